// Read-out of values under the pointer. The plots are complete without it.
"use strict";
for (const figure of document.querySelectorAll("figure.plot")) {
  const series = JSON.parse(figure.querySelector("script").textContent);
  const readout = document.createElement("div");
  readout.className = "readout";
  readout.hidden = true;
  figure.append(readout);
  for (const svg of figure.querySelectorAll("div > svg")) watch(figure, svg, series, readout);
}

function nearest(xs, x) {
  let low = 0, high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle; else high = middle;
  }
  return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
}

function number(value) {
  const size = Math.abs(value);
  if (value === null) return "not finite";
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(3);
  if (size >= 1e4) return value.toLocaleString("en", { maximumFractionDigits: 0 });
  return value.toLocaleString("en", { minimumSignificantDigits: 4, maximumSignificantDigits: 4 });
}

function watch(figure, svg, series, readout) {
  const [left, right, top, bottom] = svg.dataset.frame.split(" ").map(Number);
  const [x0, x1, y0, y1, scale] = svg.dataset.axes.split(" ").map((part) => (isNaN(part) ? part : Number(part)));
  const position = (y) =>
    Math.min(1, scale === "log" ? Math.log(y / y0) / Math.log(y1 / y0) : (y - y0) / (y1 - y0));
  const overlay = document.createElementNS("http://www.w3.org/2000/svg", "g");
  svg.append(overlay);
  let shown = null;

  const draw = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    overlay.append(element);
  };
  const hide = () => {
    overlay.replaceChildren();
    readout.hidden = true;
    shown = null;
  };
  const show = (x) => {
    // A curve with few points (evaluations) answers only near one of them.
    const hits = series.filter((entry) => entry.x.length > 0)
      .map((entry) => ({ entry, index: nearest(entry.x, x) }))
      .filter(({ entry, index }) => Math.abs(entry.x[index] - x) <= 0.015 * (x1 - x0));
    if (hits.length === 0) return hide();
    const closest = hits.reduce((best, hit) =>
      Math.abs(hit.entry.x[hit.index] - x) < Math.abs(best.entry.x[best.index] - x) ? hit : best);
    shown = closest.entry.x[closest.index];
    const px = left + (shown - x0) / (x1 - x0) * (right - left);
    overlay.replaceChildren();
    readout.replaceChildren();
    draw("line", { class: "cursor", x1: px, x2: px, y1: top, y2: bottom });
    const title = document.createElement("b");
    title.textContent = "step " + shown.toLocaleString("en");
    readout.append(title);
    for (const { entry, index } of hits) {
      const y = entry.y[index];
      const row = document.createElement("div");
      row.className = entry.class;
      const name = document.createElement("em"), value = document.createElement("b");
      name.textContent = entry.name;
      value.textContent = number(y);
      row.append(document.createElement("i"), name, value);
      readout.append(row);
      if (y !== null && Number.isFinite(position(y))) {
        const cx = left + (entry.x[index] - x0) / (x1 - x0) * (right - left);
        draw("circle", { class: "marker " + entry.class, cx, cy: bottom - position(y) * (bottom - top), r: 4.5 });
      }
    }
    place(px);
  };
  const place = (px) => {
    readout.hidden = false;
    const box = svg.getBoundingClientRect(), home = figure.getBoundingClientRect();
    const at = box.left - home.left + px * box.width / svg.viewBox.baseVal.width;
    const beside = at + 14 + readout.offsetWidth > home.width ? at - 14 - readout.offsetWidth : at + 14;
    readout.style.left = Math.max(4, beside) + "px";
    readout.style.top = box.top - home.top + 0.12 * box.height + "px";
  };

  svg.addEventListener("pointermove", (event) => {
    const px = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()).x;
    if (px < left - 8 || px > right + 8) return hide();
    show(x0 + (Math.min(Math.max(px, left), right) - left) / (right - left) * (x1 - x0));
  });
  svg.addEventListener("pointerleave", hide);
  svg.tabIndex = 0;
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!direction) return;
    event.preventDefault();
    const xs = [...new Set(series.flatMap((entry) => entry.x))].sort((a, b) => a - b);
    if (xs.length === 0) return;
    const from = shown === null ? (direction > 0 ? -1 : xs.length) : nearest(xs, shown);
    const stride = Math.max(1, Math.round(xs.length / (event.shiftKey ? 20 : 200)));
    show(xs[Math.min(Math.max(from + direction * stride, 0), xs.length - 1)]);
  });
}
