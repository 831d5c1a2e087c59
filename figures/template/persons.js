// Predicted age and delta against age (dots or counts), and the training history.

const DENSITY = [[219, 233, 244], [158, 202, 225], [66, 146, 198], [8, 81, 156], [8, 38, 79]];

function shade(share) {
  const place = Math.min(Math.max(share, 0), 1) * (DENSITY.length - 1);
  const low = Math.min(Math.floor(place), DENSITY.length - 2);
  const mixed = DENSITY[low].map((a, k) => Math.round(a + (place - low) * (DENSITY[low + 1][k] - a)));
  return `rgb(${mixed.join(",")})`;
}

const VIEWS = {
  predicted: { y: "predicted age (years)", words: "Predicted age against age" },
  delta: { y: "delta (years)", words: "Delta against age, before correction" },
  corrected: { y: "delta (years)", words: "Delta against age, after correction" },
};

function drawCell(plot, cell, name, limits) {
  const view = cell.views[name];
  plot.frame({ x: limits.age, y: name === "predicted" ? limits.predicted : limits.delta });
  plot.axes({ xLabel: "age (years)", yLabel: VIEWS[name].y });
  const c = plot.context;
  c.strokeStyle = color("soft");
  const [first, last] = limits.age;
  plot.inside(() => {
    const ends = name === "predicted" ? [first, last] : [0, 0];
    plot.path([first, last], ends, [5, 4]);
  });
  if (!view || view.empty) {
    const text = view ? "too few subjects to show counts" : "no corrected delta in this study";
    plot.words(text, (plot.left + plot.right) / 2, (plot.top + plot.bottom) / 2, "center", "soft");
    return;
  }
  plot.inside(() => {
    if (view.points) {
      c.fillStyle = color("accent");
      c.globalAlpha = 0.5;
      for (let i = 0; i < view.points.length; i += 2) {
        c.beginPath();
        c.arc(plot.px(view.points[i]), plot.py(view.points[i + 1]), 2.2, 0, 2 * Math.PI);
        c.fill();
      }
      c.globalAlpha = 1;
    } else {
      const most = Math.max(...view.squares.map((square) => square[2]));
      for (const [i, j, count] of view.squares) {
        c.fillStyle = shade(count / most);
        const [x, y] = [plot.px(view.x[i]), plot.py(view.y[j + 1])];
        c.fillRect(x, y, plot.px(view.x[i + 1]) - x + 0.5, plot.py(view.y[j]) - y + 0.5);
      }
    }
    c.strokeStyle = color("contrast");
    c.lineWidth = 2;
    plot.path(view.means.map((m) => (m[0] + m[1]) / 2), view.means.map((m) => m[3]));
    c.lineWidth = 1;
  });
  if (!view.points) drawScale(plot, Math.max(...view.squares.map((square) => square[2])));
  plot.words(view.note, plot.left + 6, plot.top + 8);
}

function drawScale(plot, most) {
  const width = 70;
  const left = plot.right - width - 6;
  for (let i = 0; i < width; i++) {
    plot.context.fillStyle = shade(i / width);
    plot.context.fillRect(left + i, plot.top + 2, 1.5, 8);
  }
  plot.words("0", left - 4, plot.top + 6, "right", "soft");
  plot.words(`${most} subjects`, plot.right - 6, plot.top + 19, "right", "soft");
}

function startPersons(data) {
  if (!data.cells.length) return;
  const contrast = $("person-contrast");
  const sex = $("person-sex");
  const contrasts = [...new Set(data.cells.map((cell) => cell.contrast))];
  fillSelect(contrast, contrasts.map((name) => [name, contrastWord(name)]), state.get("cell") || data.headline);
  const sexes = () => data.cells.filter((cell) => cell.contrast === contrast.value).map((cell) => cell.sex);
  fillSelect(sex, sexes().map((name) => [name, sexWord(name)]), state.get("cellsex"));
  let cell;
  const plots = Object.keys(VIEWS).map((name) => {
    const canvas = $(`plot-${name}`);
    return new Plot(canvas, (plot) => cell && drawCell(plot, cell, name, cell.limits));
  });
  const change = (event) => {
    if (event) {
      fillSelect(sex, sexes().map((name) => [name, sexWord(name)]), sex.value);
      remember({ cell: contrast.value, cellsex: sex.value });
    }
    cell = data.cells.find((each) => each.contrast === contrast.value && each.sex === sex.value);
    for (const name of Object.keys(VIEWS)) {
      const words = `${VIEWS[name].words}: ${contrastWord(cell.contrast)}, ${sexWord(cell.sex)}`;
      $(`plot-${name}`).setAttribute("aria-label", `${words}. The table below holds the means by age.`);
    }
    fillMeans(cell);
    plots.forEach((plot) => plot.redraw());
  };
  contrast.addEventListener("change", change);
  sex.addEventListener("change", change);
  change();
}

function fillMeans(cell) {
  const rows = [];
  for (const [name, { words }] of Object.entries(VIEWS)) {
    for (const [from, to, n, mean, sd] of cell.views[name] ? cell.views[name].means : []) {
      const cells = [words, `${fixed(from, 1)} to ${fixed(to, 1)}`, n, fixed(mean, 2), fixed(sd, 2)];
      rows.push(element("tr", {}, ...cells.map((text, k) => element("td", { class: k ? "number" : "" }, String(text)))));
    }
  }
  if (!rows.length) rows.push(element("tr", {}, element("td", { colspan: 5 }, "No age group holds ten subjects.")));
  $("means-body").replaceChildren(...rows);
}

const DASHES = [[], [7, 4], [2, 3], [8, 3, 2, 3]];

function drawHistory(plot, cell, kind) {
  const names = kind === "loss" ? ["train", "validation"] : ["mae"];
  const all = cell.networks.flatMap((network) => names.flatMap((name) => network[name])).filter(Number.isFinite);
  const sorted = [...all].sort((a, b) => a - b);
  const middle = sorted[Math.floor(sorted.length / 2)] || 1;
  let high = sorted[sorted.length - 1] || 1;
  if (high > 20 * middle) high = 8 * middle;
  const low = Math.max(0, sorted[0] - 0.08 * (high - sorted[0]) || 0);
  const epochs = cell.networks.flatMap((network) => network.epoch);
  plot.frame({ x: [Math.min(...epochs), Math.max(...epochs, Math.min(...epochs) + 1)], y: [low, high * 1.04] });
  plot.axes({ xLabel: "epoch", yLabel: kind === "loss" ? "loss" : "validation MAE (years)" });
  const c = plot.context;
  plot.inside(() => {
    cell.networks.forEach((network, k) => {
      c.strokeStyle = color(`series${(k % 4) + 1}`);
      for (const name of names) {
        c.globalAlpha = name === "train" ? 0.45 : 1;
        c.lineWidth = name === "train" ? 1 : 2;
        plot.path(network.epoch, network[name], name === "train" ? [] : DASHES[k % 4]);
      }
      c.globalAlpha = 1;
      c.lineWidth = 1;
    });
  });
  cell.networks.forEach((network, k) => {
    const height = plot.top + 10 + 17 * k;
    c.strokeStyle = color(`series${(k % 4) + 1}`);
    c.lineWidth = 2;
    plot.line(plot.right - 112, height, plot.right - 82, height, DASHES[k % 4]);
    c.lineWidth = 1;
    plot.words(`network ${network.network}`, plot.right - 76, height);
  });
}

function startHistory(data) {
  if (!data.history.length) return;
  const select = $("history-cell");
  const words = (cell) => `${contrastWord(cell.contrast)}, ${sexWord(cell.sex)}`;
  fillSelect(select, data.history.map((cell, place) => [String(place), words(cell)]), "0");
  const chosen = () => data.history[Number(select.value)];
  const plots = ["loss", "mae"].map(
    (kind) => new Plot($(`plot-history-${kind}`), (plot) => drawHistory(plot, chosen(), kind)),
  );
  const change = () => {
    for (const kind of ["loss", "mae"]) {
      const what = kind === "loss" ? "Training and validation loss" : "Validation error";
      $(`plot-history-${kind}`).setAttribute("aria-label", `${what} by epoch, ${words(chosen())}. Numbers in the table below.`);
    }
    plots.forEach((plot) => plot.redraw());
  };
  select.addEventListener("change", change);
  change();
}
