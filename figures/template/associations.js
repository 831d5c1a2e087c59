// Manhattan plot and table of the associations, linked both ways.

const PAGE = 25;
const COLUMNS = [
  ["nidp", "nIDP"], ["category", "Category"], ["contrast", "Contrast"], ["sex", "Sex"], ["n", "n"], ["cases", "Cases"],
  ["r", "r [95 % CI]"], ["p", "\u2212log\u2081\u2080 p"], ["bonferroni", "p Bonferroni"], ["q", "q (BH)"],
];

class Associations {
  constructor(data) {
    this.d = data;
    const lowered = data.nidps.map((nidp, v) => `${nidp}\n${data.names[v]}\n${data.descriptions[v]}`.toLowerCase());
    this.text = lowered;
    this.byName = new Int32Array(data.width);
    const order = [...data.nidps.keys()].sort((x, y) => (this.name(x) < this.name(y) ? -1 : 1));
    order.forEach((v, place) => { this.byName[v] = place; });
    this.sort = state.get("sort") || "p";
    this.down = state.get("order") !== "up";
    this.page = 0;
    this.selected = -1;
    this.rows = [];
  }

  delta(i) { return Math.floor(i / this.d.width); }
  nidp(i) { return i % this.d.width; }
  name(v) { return this.d.names[v] || this.d.nidps[v]; }
  r(i) { return this.d.r[i] === -32768 ? NaN : this.d.r[i] * this.d.steps.r; }
  q(i) { return this.d.q[i]; }
  log10Tests(i) {
    const family = this.d.families[this.d.family[i]];
    return family ? Math.log10(family.tests) : NaN;
  }
  bonferroni(i) { return Math.max(0, this.d.p[i] - this.log10Tests(i)); }
  interval(i) {
    if (this.d.half[i] === 65535) return [NaN, NaN];
    const half = this.d.half[i] * this.d.steps.half;
    return [Math.tanh(Math.atanh(this.r(i)) - half), Math.tanh(Math.atanh(this.r(i)) + half)];
  }
  sign(i) {
    const [low, high] = this.interval(i);
    if (low > 0) return 1;
    return high < 0 ? -1 : 0;
  }
  count(value) { return value === -2 ? "<10" : value < 0 ? "\u2013" : thousands(value); }
  label(i) {
    const [contrast, sex] = this.d.deltas[this.delta(i)];
    return `${contrastWord(contrast)}, ${sexWord(sex)}`;
  }
  passes(i, level) {
    const line = -Math.log10(this.d.alpha);
    if (level === "bonferroni") return this.d.p[i] >= line + this.log10Tests(i);
    if (level === "bh") return this.q(i) >= line;
    return true;
  }

  filter() {
    const { d } = this;
    const [contrast, sex, category, level] = ["contrast", "sex", "category", "threshold"].map((k) => state.get(k) || "");
    const query = (state.get("q") || "").toLowerCase();
    const deltas = d.deltas.map(([c, s]) => (!contrast || c === contrast) && (!sex || s === sex));
    const nidps = this.text.map((text, v) => (!category || d.categories[d.categoryOf[v]] === category) && (!query || text.includes(query)));
    const least = level.startsWith("p") ? Number(level.slice(1)) : 0;
    const rows = [];
    for (let k = 0; k < deltas.length; k++) {
      if (!deltas[k]) continue;
      for (let v = 0, i = k * d.width; v < d.width; v++, i++) {
        if (!nidps[v]) continue;
        if (level && !(d.p[i] >= least && this.passes(i, level))) continue;
        if (!level && Number.isNaN(d.p[i]) && d.reason[i] === 255) continue;
        rows.push(i);
      }
    }
    this.rows = this.sorted(rows);
    this.deltasShown = d.deltas.map((_, k) => k).filter((k) => deltas[k]);
    this.nidpsShown = nidps;
  }

  sorted(rows) {
    const { d } = this;
    const keys = {
      nidp: (i) => this.byName[this.nidp(i)], category: (i) => d.categoryOf[this.nidp(i)], contrast: (i) => this.delta(i),
      sex: (i) => d.deltas[this.delta(i)][1], n: (i) => d.counts[i], cases: (i) => (d.cases ? d.cases[i] : 0),
      r: (i) => this.r(i), p: (i) => d.p[i], bonferroni: (i) => -this.bonferroni(i), q: (i) => -this.q(i),
    };
    const key = keys[this.sort] || keys.p;
    if (this.sort === "sex") {
      return rows.sort((a, b) => (this.down ? -1 : 1) * key(a).localeCompare(key(b)) || a - b);
    }
    const values = new Float64Array(d.n);
    for (const i of rows) values[i] = key(i);
    const way = this.down ? -1 : 1;
    return rows.sort((a, b) => {
      const [x, y] = [values[a], values[b]];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b;
      return way * (x - y) || a - b;
    });
  }

  // One family's lines where all deltas shown share it; otherwise none, and the page says so.
  family() {
    const places = new Set(this.deltasShown.map((k) => this.d.familyOfDelta[k]));
    const [place] = places;
    return places.size === 1 && place >= 0 ? this.d.families[place] : null;
  }

  draw(plot) {
    const { d } = this;
    const family = this.family();
    const line = family ? family.bonferroni || 0 : 0;
    let high = 1;
    for (const i of this.rows) if (d.p[i] > high) high = d.p[i];
    const base = Math.ceil(2.5 * Math.max(line, 2));
    const fold = high > 3 * base ? base : null;
    const top = Math.max(high, line * 1.1) * (fold ? 1.04 : 1.08);
    const place = new Int32Array(d.width).fill(-1);
    let shown = 0;
    for (let v = 0; v < d.width; v++) if (this.nidpsShown[v]) place[v] = shown++;
    plot.frame({ x: [-0.5, Math.max(shown - 0.5, 0.5)], y: [0, top], left: 50, right: 16, top: 14, bottom: 64, fold });
    const steps = fold ? [...niceSteps(0, fold, 4), ...niceSteps(fold, top, 3).filter((s) => s > fold * 1.3)] : null;
    plot.axes({ yLabel: "\u2212log\u2081\u2080 p", xSteps: [], ySteps: steps });
    const c = plot.context;
    this.drawCategories(plot, place);
    c.strokeStyle = color("soft");
    if (fold) {
      plot.line(plot.left, plot.py(fold), plot.right, plot.py(fold), [1, 4]);
      plot.words("axis folded: five times flatter above", plot.right, plot.py(fold) - 8, "right", "soft");
    }
    this.drawPoints(plot, place);
    c.strokeStyle = color("ink");
    c.font = `11px ${color("font")}`;
    const lines = family ? [["Bonferroni", family.bonferroni, [7, 4]], ["Benjamini\u2013Hochberg", family.bh, [2, 3]]] : [];
    for (const [words, value, dash] of lines) {
      if (value === null || value > top) continue;
      plot.line(plot.left, plot.py(value), plot.right, plot.py(value), dash);
      plot.words(words, plot.left + 5, plot.py(value) - 8, "left", "ink");
    }
    c.font = `12px ${color("font")}`;
    if (!this.rows.length) plot.words("no association passes these filters", (plot.left + plot.right) / 2, (plot.top + plot.bottom) / 2, "center", "soft");
  }

  drawPoints(plot, place) {
    const { d } = this;
    const c = plot.context;
    const many = this.rows.length > 20000;
    this.xs = new Float32Array(this.rows.length).fill(NaN);
    this.ys = new Float32Array(this.rows.length).fill(NaN);
    const taken = new Uint8Array(Math.ceil(plot.width + 2) * Math.ceil(plot.height + 2));
    const tones = [color("accent"), color("contrast")];
    const grey = color("grey");
    this.rows.forEach((i, k) => {
      if (Number.isNaN(d.p[i])) return;
      const v = this.nidp(i);
      const [x, y] = [plot.px(place[v]), plot.py(d.p[i])];
      this.xs[k] = x;
      this.ys[k] = y;
      const spot = Math.round(y) * Math.ceil(plot.width) + Math.round(x);
      if (many && taken[spot]) return;
      taken[spot] = 1;
      const sign = this.sign(i);
      c.fillStyle = sign === 0 ? grey : tones[d.categoryOf[v] % 2];
      if (many && sign === 0) c.fillRect(x - 1, y - 1, 2, 2);
      else mark(c, x, y, this.passes(i, "bh") ? 4.6 : 3.4, sign);
    });
    const k = this.rows.indexOf(this.selected);
    if (k >= 0 && Number.isFinite(this.xs[k])) {
      c.strokeStyle = color("ink");
      c.lineWidth = 2;
      c.beginPath();
      c.arc(this.xs[k], this.ys[k], 8, 0, 2 * Math.PI);
      c.stroke();
      c.lineWidth = 1;
    }
  }

  drawCategories(plot, place) {
    const { d } = this;
    const spans = new Map();
    for (let v = 0; v < d.width; v++) {
      if (place[v] < 0) continue;
      const span = spans.get(d.categoryOf[v]) || [place[v], place[v]];
      span[1] = place[v];
      spans.set(d.categoryOf[v], span);
    }
    const c = plot.context;
    let rightmost = [-Infinity, -Infinity];
    let row = 0;
    for (const [code, [first, last]] of spans) {
      const [x0, x1] = [plot.px(first - 0.5), plot.px(last + 0.5)];
      c.fillStyle = color(code % 2 ? "contrast" : "accent");
      c.fillRect(x0 + 0.5, plot.bottom + 3, Math.max(x1 - x0 - 1, 1), 4);
      const name = d.categories[code];
      const half = c.measureText(name).width / 2;
      const middle = Math.min(Math.max((x0 + x1) / 2, plot.left + half), plot.right - half);
      row = middle - half > rightmost[0] + 8 ? 0 : 1;
      if (middle - half <= rightmost[row] + 8) continue;
      rightmost[row] = middle + half;
      plot.words(name, middle, plot.bottom + 19 + 16 * row, "center", "ink");
    }
  }

  nearest(x, y) {
    let best = -1;
    let least = 144;
    for (let k = 0; k < this.rows.length; k++) {
      const distance = (this.xs[k] - x) ** 2 + (this.ys[k] - y) ** 2;
      if (distance < least) { least = distance; best = k; }
    }
    return best;
  }

  sentence(i) {
    const { d } = this;
    const v = this.nidp(i);
    if (Number.isNaN(d.p[i])) return `${this.name(v)}, ${this.label(i)}: no p (${d.reasons[d.reason[i]] || "not tested"}).`;
    const [low, high] = this.interval(i);
    const cases = d.cases && d.cases[i] !== -1 ? `, ${this.count(d.cases[i])} cases` : "";
    return `${this.name(v)} (${d.categories[d.categoryOf[v]]}), ${this.label(i)}: n ${this.count(d.counts[i])}${cases}, `
      + `r ${fixed(this.r(i), 3)} [${fixed(low, 3)}, ${fixed(high, 3)}], \u2212log\u2081\u2080 p ${fixed(d.p[i], 2)}, `
      + `Bonferroni p ${probability(this.bonferroni(i))}, q ${probability(this.q(i))}.`;
  }

  csv() {
    const { d } = this;
    const quote = (text) => {
      // A cell that begins like a formula would be run by a spreadsheet.
      const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
      return /[",\n\r]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
    };
    const number = (value, digits) => (Number.isFinite(value) ? value.toFixed(digits) : "");
    const count = (value) => (value === -2 ? "<10" : value < 0 ? "" : String(value));
    const head = "contrast,sex,nidp,name,category,n,n_cases,r,ci_lo,ci_hi,nlog10p,nlog10p_bonf,nlog10q_bh,family,reason";
    const lines = this.rows.map((i) => {
      const [contrast, sex] = d.deltas[this.delta(i)];
      const v = this.nidp(i);
      const [low, high] = this.interval(i);
      const family = d.families[d.family[i]];
      return [
        quote(contrast), quote(sex), quote(d.nidps[v]), quote(this.name(v)), quote(d.categories[d.categoryOf[v]]),
        count(d.counts[i]), d.cases ? count(d.cases[i]) : "", number(this.r(i), 5), number(low, 5), number(high, 5),
        number(d.p[i], 3), number(this.bonferroni(i), 3), number(this.q(i), 3), quote(family ? family.name : ""),
        quote(d.reason[i] === 255 ? "" : d.reasons[d.reason[i]]),
      ].join(",");
    });
    return `\ufeff${[head, ...lines].join("\r\n")}\r\n`;
  }
}
