// Rating of volumes: keys and buttons, a comment each, kept by position (no ids) and downloaded as a table.

const RATINGS = ["", "good", "doubtful", "bad"];
const KEPT = `check ${document.body.dataset.key}`;
const items = [...document.querySelectorAll("#seen > li")];
const ratings = items.map(() => ({ rating: "", comment: "" }));
let isKept = true;

function recall() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEPT) || "[]");
    kept.forEach((each, i) => { if (ratings[i] && RATINGS.includes(each.rating)) ratings[i] = { rating: each.rating, comment: String(each.comment) }; });
  } catch (refused) {
    isKept = false; // a page opened from disk may not keep anything; what is in memory is downloaded
  }
}

function keep() {
  try {
    localStorage.setItem(KEPT, JSON.stringify(ratings));
  } catch (refused) {
    isKept = false;
  }
}

const shownItems = () => items.filter((item) => !item.hidden);
const nameOf = (item) => `${item.dataset.contrast}, subject ${item.dataset.subject}`;

function tell(words) {
  const rated = ratings.filter((each) => each.rating).length;
  const memory = isKept ? "" : " This browser keeps nothing for this page: download before closing it.";
  $("said").textContent = `${words ? `${words} ` : ""}${rated} of ${items.length} rated.${memory}`;
}

function show(item) {
  const { rating, comment } = ratings[items.indexOf(item)];
  for (const name of RATINGS) if (name) item.classList.toggle(`rated-${name}`, rating === name);
  for (const button of item.querySelectorAll(".rating button")) button.setAttribute("aria-pressed", String(button.dataset.rating === rating));
  const input = item.querySelector(".rating input");
  if (input.value !== comment) input.value = comment;
}

function rate(item, rating) {
  ratings[items.indexOf(item)].rating = rating;
  keep();
  show(item);
  tell(`${nameOf(item)}: ${rating || "no rating"}.`);
}

function step(item, by) {
  const there = shownItems();
  const next = there[Math.min(Math.max(there.indexOf(item) + by, 0), there.length - 1)];
  if (next) makeCurrent(next, true);
}

function makeCurrent(item, focus) {
  for (const each of items) each.tabIndex = each === item ? 0 : -1;
  if (focus) item.focus();
}

function controls(item, position) {
  const group = element("div", { class: "rating", role: "group", "aria-label": `Rating of ${nameOf(item)}` });
  RATINGS.forEach((rating, number) => {
    if (!rating) return;
    const press = () => rate(item, ratings[position].rating === rating ? "" : rating);
    group.append(element("button", { type: "button", "data-rating": rating, "aria-pressed": "false", onclick: press }, `${number} ${rating}`));
  });
  const input = element("input", { type: "text", placeholder: "comment", "aria-label": `Comment on ${nameOf(item)}`, autocomplete: "off" });
  input.addEventListener("input", () => { ratings[position].comment = input.value; keep(); });
  group.append(input);
  item.lastElementChild.append(group);
}

function onKey(event) {
  const item = event.target.closest("#seen > li");
  if (!item || event.ctrlKey || event.metaKey || event.altKey) return;
  const input = item.querySelector(".rating input");
  if (event.target === input) {
    if (event.key === "Escape" || event.key === "Enter") item.focus();
    return;
  }
  if (/^[0-3]$/.test(event.key)) rate(item, RATINGS[Number(event.key)]);
  else if (event.key === "j" || event.key === "ArrowDown") step(item, 1);
  else if (event.key === "k" || event.key === "ArrowUp") step(item, -1);
  else if (event.key === "c") input.focus();
  else return;
  event.preventDefault();
}

function filter() {
  const contrast = $("filter-contrast").value;
  const which = $("filter-which").value;
  items.forEach((item, i) => {
    const fits = (!contrast || item.dataset.contrast === contrast)
      && (which !== "odd" || item.classList.contains("odd"))
      && (which !== "unrated" || !ratings[i].rating);
    item.hidden = !fits;
  });
  const there = shownItems();
  if (there.length) makeCurrent(there[0], false);
  tell(`${there.length} volume${there.length === 1 ? "" : "s"} shown.`);
}

const quoted = (text) => `"${String(text).replace(/"/g, '""')}"`;

function ratingsTable() {
  const lines = ["subject_id,contrast,rating,comment"];
  items.forEach((item, i) => {
    const { rating, comment } = ratings[i];
    if (rating || comment) lines.push([item.dataset.subject, item.dataset.contrast, rating, comment].map(quoted).join(","));
  });
  return `${lines.join("\n")}\n`;
}

function startRating() {
  recall();
  items.forEach((item, position) => { controls(item, position); show(item); });
  for (const each of document.querySelectorAll("[data-live]")) each.hidden = false;
  for (const each of document.querySelectorAll("[data-static]")) each.hidden = true;
  const contrasts = [...new Set(items.map((item) => item.dataset.contrast))];
  fillSelect($("filter-contrast"), [["", "all"], ...contrasts.map((name) => [name, name])], "");
  for (const id of ["filter-contrast", "filter-which"]) $(id).addEventListener("change", filter);
  $("seen").addEventListener("keydown", onKey);
  $("seen").addEventListener("focusin", (event) => {
    const item = event.target.closest("#seen > li");
    if (item) makeCurrent(item, false);
  });
  $("download").addEventListener("click", () => {
    download(`${document.body.dataset.experiment}_ratings.csv`, ratingsTable(), "text/csv");
  });
  filter();
  document.body.dataset.ready = "yes";
}

if (items.length) startRating();
