// The controls, the table and the detail of a nIDP: what ties the Associations to the page.

function startAssociations(a) {
  const { d } = a;
  const plot = new Plot($("plot-manhattan"), (each) => a.draw(each));
  const controls = { contrast: $("filter-contrast"), sex: $("filter-sex"), category: $("filter-category"), threshold: $("filter-threshold"), q: $("filter-q") };
  const all = (words) => [["", words]];
  const unique = (values) => [...new Set(values)];
  fillSelect(controls.contrast, [...all("all contrasts"), ...unique(d.deltas.map((x) => x[0])).map((c) => [c, contrastWord(c)])], state.get("contrast"));
  fillSelect(controls.sex, [...all("all"), ...unique(d.deltas.map((x) => x[1])).map((s) => [s, sexWord(s)])], state.get("sex"));
  fillSelect(controls.category, [...all("all categories"), ...d.categories.map((c) => [c, c])], state.get("category"));
  fillSelect(controls.threshold, [["", "none"], ["bonferroni", `Bonferroni at ${d.alpha}`], ["bh", `Benjamini\u2013Hochberg at ${d.alpha}`], ["p2", "\u2212log\u2081\u2080 p \u2265 2"], ["p3", "\u2212log\u2081\u2080 p \u2265 3"], ["p5", "\u2212log\u2081\u2080 p \u2265 5"]], state.get("threshold"));
  controls.q.value = state.get("q") || "";

  const update = () => {
    a.filter();
    a.page = 0;
    const family = a.family();
    const pairs = `${thousands(a.rows.length)} of ${thousands(d.n)} pairs of delta and nIDP shown.`;
    const lines = family
      ? ` Family: ${family.name} (${thousands(family.tests)} tests); Bonferroni at \u2212log\u2081\u2080 p ${fixed(family.bonferroni, 2)}, ${family.bh === null ? "Benjamini\u2013Hochberg rejects none" : `Benjamini\u2013Hochberg at ${fixed(family.bh, 2)}`}.`
      : " The deltas shown belong to different families of tests: choose one contrast to see its thresholds.";
    $("association-status").textContent = pairs + lines;
    plot.redraw();
    showTable();
  };
  for (const [key, control] of Object.entries(controls)) {
    control.addEventListener(key === "q" ? "input" : "change", () => {
      remember({ [key]: control.value });
      update();
    });
  }
  $("filter-clear").addEventListener("click", () => {
    for (const [key, control] of Object.entries(controls)) {
      control.value = "";
      remember({ [key]: "" });
    }
    update();
  });

  const showTable = () => {
    const first = a.page * PAGE;
    const rows = a.rows.slice(first, first + PAGE).map(tableRow);
    $("association-body").replaceChildren(...rows);
    const pages = Math.max(Math.ceil(a.rows.length / PAGE), 1);
    $("page-words").textContent = `page ${thousands(a.page + 1)} of ${thousands(pages)}`;
    $("page-before").disabled = a.page === 0;
    $("page-after").disabled = a.page + 1 >= pages;
    for (const head of $("association-head").querySelectorAll("th")) {
      const mine = head.dataset.key === a.sort;
      head.setAttribute("aria-sort", mine ? (a.down ? "descending" : "ascending") : "none");
    }
  };
  const tableRow = (i) => {
    const v = a.nidp(i);
    const [contrast, sex] = d.deltas[a.delta(i)];
    const [low, high] = a.interval(i);
    const tested = !Number.isNaN(d.p[i]);
    const arrow = tested ? { 1: "\u25b2 ", "-1": "\u25bc ", 0: "\u25cb " }[a.sign(i)] : "";
    const button = element("button", { type: "button", class: "link", title: d.nidps[v], onclick: () => select(i, false) }, a.name(v));
    const head = element("th", { scope: "row" }, button);
    const cells = [
      d.categories[d.categoryOf[v]], contrastWord(contrast), sexWord(sex), a.count(d.counts[i]), d.cases ? a.count(d.cases[i]) : "\u2013",
      tested ? `${arrow}${fixed(a.r(i), 3)} [${fixed(low, 3)}, ${fixed(high, 3)}]` : d.reasons[d.reason[i]] || "not tested",
      fixed(d.p[i], 2), tested ? probability(a.bonferroni(i)) : "\u2013", probability(a.q(i)),
    ].map((text, k) => element("td", { class: k > 2 ? "number" : "" }, text));
    const row = element("tr", { "data-row": i }, head, ...cells);
    if (i === a.selected) row.classList.add("selected");
    return row;
  };
  const select = (i, bringTable) => {
    a.selected = i;
    if (bringTable) a.page = Math.max(0, Math.floor(a.rows.indexOf(i) / PAGE));
    $("association-said").textContent = a.sentence(i);
    remember({ nidp: d.nidps[a.nidp(i)] });
    plot.redraw();
    showTable();
    showDetail(a, a.nidp(i));
  };

  const head = $("association-head");
  head.replaceChildren(...COLUMNS.map(([key, words], k) => {
    const button = element("button", { type: "button", onclick: () => {
      a.down = a.sort === key ? !a.down : ["p", "n", "r", "cases"].includes(key);
      a.sort = key;
      remember({ sort: key, order: a.down ? "" : "up" });
      update();
    } }, words);
    return element("th", { scope: "col", "data-key": key, class: k > 3 ? "number" : null }, button);
  }));
  const turn = (step) => () => { a.page += step; showTable(); };
  $("page-before").addEventListener("click", turn(-1));
  $("page-after").addEventListener("click", turn(1));
  $("download-csv").addEventListener("click", () => download(`${document.body.dataset.experiment}_associations.csv`, a.csv(), "text/csv"));
  $("download-png").addEventListener("click", () => plot.save(`${document.body.dataset.experiment}_manhattan.png`));

  const canvas = $("plot-manhattan");
  const hint = $("hint");
  canvas.addEventListener("pointermove", (event) => {
    const k = a.nearest(event.offsetX, event.offsetY);
    hint.hidden = k < 0;
    canvas.classList.toggle("pointing", k >= 0);
    if (k < 0) return;
    hint.textContent = a.sentence(a.rows[k]);
    hint.style.left = `${Math.min(event.offsetX + 14, Math.max(plot.width - 270, 0))}px`;
    hint.style.top = `${event.offsetY + 16}px`;
  });
  canvas.addEventListener("pointerleave", () => { hint.hidden = true; });
  canvas.addEventListener("click", (event) => {
    const k = a.nearest(event.offsetX, event.offsetY);
    if (k >= 0) select(a.rows[k], true);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step || !a.rows.length) return;
    event.preventDefault();
    const now = a.rows.indexOf(a.selected);
    select(a.rows[Math.min(Math.max(now < 0 ? 0 : now + step, 0), a.rows.length - 1)], true);
  });

  update();
  const wanted = d.nidps.indexOf(state.get("nidp"));
  const found = wanted < 0 ? undefined : a.rows.find((i) => a.nidp(i) === wanted);
  if (found !== undefined) select(found, true);
}

// All deltas of one nIDP: r with its interval as a forest, and as numbers.
function showDetail(a, v) {
  const { d } = a;
  $("detail").hidden = false;
  $("detail-name").textContent = a.name(v);
  const about = [d.nidps[v] === a.name(v) ? "" : d.nidps[v], d.categories[d.categoryOf[v]], d.descriptions[v]];
  $("detail-about").textContent = about.filter(Boolean).join(" \u00b7 ");
  const pairs = d.deltas.map((_, k) => k * d.width + v);
  const reach = Math.max(0.05, ...pairs.flatMap((i) => a.interval(i).map(Math.abs)).filter(Number.isFinite));
  $("detail-body").replaceChildren(...pairs.map((i) => {
    const [low, high] = a.interval(i);
    const tested = !Number.isNaN(d.p[i]);
    const [contrast, sex] = d.deltas[a.delta(i)];
    const drawing = element("td", { class: "forest" });
    if (tested) drawing.append(forestLine(a.r(i), low, high, reach));
    const cells = [
      sexWord(sex), a.count(d.counts[i]),
      tested ? `${fixed(a.r(i), 3)} [${fixed(low, 3)}, ${fixed(high, 3)}]` : d.reasons[d.reason[i]] || "not tested",
      fixed(d.p[i], 2), probability(a.q(i)),
    ].map((text, k) => element("td", { class: k ? "number" : null }, text));
    return element("tr", {}, element("th", { scope: "row" }, contrastWord(contrast)), cells[0], cells[1], drawing, ...cells.slice(2));
  }));
}

function forestLine(r, low, high, reach) {
  const space = "http://www.w3.org/2000/svg";
  const make = (name, attributes) => {
    const made = document.createElementNS(space, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const x = (value) => 80 + (value / reach) * 74;
  const drawing = make("svg", { viewBox: "0 0 160 16", width: 160, height: 16, "aria-hidden": "true" });
  drawing.append(
    make("line", { x1: 80, x2: 80, y1: 0, y2: 16, class: "zero" }),
    make("line", { x1: x(low), x2: x(high), y1: 8, y2: 8, class: "interval" }),
    make("circle", { cx: x(r), cy: 8, r: 3.2, class: "estimate" }),
  );
  return drawing;
}
