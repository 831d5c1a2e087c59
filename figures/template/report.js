// Start of the page: what works without the packed data first, then the plots.

function startSortableTables() {
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = element("button", { type: "button" }, head.textContent.trim());
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((each) => each.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
        const rows = [...table.tBodies[0].rows].sort((a, b) => {
          const [x, y] = [value(a), value(b)];
          const order = x !== "" && y !== "" && !isNaN(x) && !isNaN(y) ? x - y : x.localeCompare(y);
          return down ? -order : order;
        });
        table.tBodies[0].append(...rows);
      });
    });
  }
}

function startCopy() {
  const button = $("copy-methods");
  if (!button) return;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const text = $("methods-text").textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch (refused) {
      const range = document.createRange();
      range.selectNodeContents($("methods-text"));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy the methods"; }, 2000);
  });
}

function startNetworkRows() {
  const box = $("show-networks");
  if (!box) return;
  box.closest(".only-script").hidden = false;
  const change = () => $("accuracy-table").classList.toggle("means-only", !box.checked);
  box.addEventListener("change", change);
  change();
}

function reveal(name) {
  for (const each of document.querySelectorAll(`[data-live="${name}"]`)) each.hidden = false;
  for (const each of document.querySelectorAll(`[data-static="${name}"]`)) each.hidden = true;
}

async function start() {
  startSortableTables();
  startCopy();
  startNetworkRows();
  if (typeof DecompressionStream === "undefined") {
    $("no-plots").hidden = false;
    return;
  }
  const data = await packedJson("packed-curves");
  if (data.cells.length) { reveal("persons"); startPersons(data); }
  if (data.history.length) { reveal("history"); startHistory(data); }
  if ($("packed-associations")) {
    const associations = new Associations(unpackAssociations(await inflated("packed-associations")));
    reveal("associations");
    startAssociations(associations);
  }
  document.body.dataset.ready = "yes";
}

start();
