// A plain 2-D canvas with axes. Drawn again when its width, the colour scheme or the printer asks for it.

function niceSteps(low, high, wanted) {
  const rough = (high - low) / Math.max(wanted, 1) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const steps = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) steps.push(k * step);
  return steps;
}

const stepText = (value) => minus(String(Math.round(value * 1000) / 1000));

class Plot {
  constructor(canvas, draw) {
    this.canvas = canvas;
    this.drawing = draw;
    new ResizeObserver(() => this.redraw()).observe(canvas.parentElement);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    addEventListener("beforeprint", () => this.redraw());
  }

  redraw() {
    const { canvas } = this;
    const width = canvas.parentElement.clientWidth;
    const height = Number(canvas.dataset.height);
    if (!width) return;
    const ratio = Math.max(window.devicePixelRatio || 1, 1);
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    this.width = width;
    this.height = height;
    const c = (this.context = canvas.getContext("2d"));
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.fillStyle = color("paper");
    c.fillRect(0, 0, width, height);
    c.font = `12px ${color("font") || "sans-serif"}`;
    this.drawing(this);
  }

  // Margins, data limits and, for y, an optional fold: above it a step is five times flatter.
  frame({ x, y, left = 52, right = 14, top = 14, bottom = 44, fold = null }) {
    Object.assign(this, { left, right: this.width - right, top, bottom: this.height - bottom, x, y, fold });
    this.flat = (value) => (fold !== null && value > fold ? fold + (value - fold) / 5 : value);
  }

  px(value) {
    return this.left + ((value - this.x[0]) / (this.x[1] - this.x[0])) * (this.right - this.left);
  }

  py(value) {
    const low = this.flat(this.y[0]);
    return this.bottom - ((this.flat(value) - low) / (this.flat(this.y[1]) - low)) * (this.bottom - this.top);
  }

  axes({ xLabel = "", yLabel = "", xSteps = null, ySteps = null }) {
    const c = this.context;
    c.lineWidth = 1;
    c.strokeStyle = color("hairline");
    c.fillStyle = color("soft");
    c.textAlign = "right";
    c.textBaseline = "middle";
    for (const value of ySteps || niceSteps(this.y[0], this.y[1], (this.bottom - this.top) / 55)) {
      const height = Math.round(this.py(value)) + 0.5;
      this.line(this.left, height, this.right, height);
      c.fillText(stepText(value), this.left - 7, height);
    }
    c.textAlign = "center";
    c.textBaseline = "top";
    for (const value of xSteps || niceSteps(this.x[0], this.x[1], (this.right - this.left) / 80)) {
      const place = Math.round(this.px(value)) + 0.5;
      c.strokeStyle = color("hairline");
      this.line(place, this.top, place, this.bottom);
      c.fillText(stepText(value), place, this.bottom + 7);
    }
    c.strokeStyle = color("soft");
    this.line(this.left, this.bottom + 0.5, this.right, this.bottom + 0.5);
    c.fillStyle = color("ink");
    c.fillText(xLabel, (this.left + this.right) / 2, this.bottom + 25);
    c.save();
    c.translate(13, (this.top + this.bottom) / 2);
    c.rotate(-Math.PI / 2);
    c.fillText(yLabel, 0, -6);
    c.restore();
  }

  line(x0, y0, x1, y1, dash = []) {
    const c = this.context;
    c.setLineDash(dash);
    c.beginPath();
    c.moveTo(x0, y0);
    c.lineTo(x1, y1);
    c.stroke();
    c.setLineDash([]);
  }

  path(xs, ys, dash = []) {
    const c = this.context;
    c.setLineDash(dash);
    c.beginPath();
    let pen = false;
    for (let i = 0; i < xs.length; i++) {
      if (ys[i] === null || !Number.isFinite(ys[i])) { pen = false; continue; }
      const place = [this.px(xs[i]), this.py(ys[i])];
      if (pen) c.lineTo(...place); else c.moveTo(...place);
      pen = true;
    }
    c.stroke();
    c.setLineDash([]);
  }

  inside(draw) {
    const c = this.context;
    c.save();
    c.beginPath();
    c.rect(this.left, this.top - 4, this.right - this.left + 4, this.bottom - this.top + 4);
    c.clip();
    draw(c);
    c.restore();
  }

  words(text, x, y, align = "left", tone = "ink") {
    const c = this.context;
    c.fillStyle = color(tone);
    c.textAlign = align;
    c.textBaseline = "middle";
    c.fillText(text, x, y);
  }

  save(name) {
    this.canvas.toBlob((blob) => download(name, blob));
  }
}

// Triangle up, triangle down or circle: the sign is a shape, never a colour alone.
function mark(c, x, y, size, sign) {
  c.beginPath();
  if (sign === 0) c.arc(x, y, size * 0.6, 0, 2 * Math.PI);
  else {
    c.moveTo(x, y - sign * size);
    c.lineTo(x - size, y + sign * size * 0.75);
    c.lineTo(x + size, y + sign * size * 0.75);
    c.closePath();
  }
  c.fill();
}
