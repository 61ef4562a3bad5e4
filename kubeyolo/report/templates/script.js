"use strict";
// Tables: a click on a heading sorts by that column; a second click reverses the order.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const numeric = head.classList.contains("n");
      const now = head.getAttribute("aria-sort");
      const down = now ? now === "ascending" : numeric;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      const value = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
      const order = (a, b) => (numeric ? value(a) - value(b) : value(a).localeCompare(value(b)));
      body.append(...[...body.rows].sort((a, b) => (down ? order(b, a) : order(a, b))));
    });
  });
}
// Line charts: the pointer shows the values of the nearest point.
for (const plot of document.querySelectorAll(".plot[data-chart]")) {
  const chart = JSON.parse(plot.dataset.chart);
  const [left, top, right, bottom] = chart.box;
  const cursor = plot.appendChild(Object.assign(document.createElement("div"), { className: "cursor", hidden: true }));
  const tip = plot.appendChild(Object.assign(document.createElement("div"), { className: "tip", hidden: true }));
  const number = (v) => (v !== 0 && Math.abs(v) < 0.001 ? v.toExponential(2) : String(+v.toPrecision(4)));
  const hide = () => { cursor.hidden = tip.hidden = true; };
  const show = (event) => {
    const area = plot.getBoundingClientRect();
    const share = ((event.clientX - area.left) / area.width - left) / (right - left);
    if (share < 0 || share > 1) return hide();
    const x = chart.x[0] + share * (chart.x[1] - chart.x[0]);
    const nearest = (values) => values.reduce((best, v, i) => (Math.abs(v - x) < Math.abs(values[best] - x) ? i : best), 0);
    const at = chart.series[0].x[nearest(chart.series[0].x)];
    const heading = document.createElement("div");
    heading.textContent = `${chart.label} ${number(at)}`;
    tip.replaceChildren(heading, ...chart.series.map((row) => {
      const line = document.createElement("div");
      const swatch = line.appendChild(document.createElement("span"));
      swatch.className = "swatch";
      swatch.style.setProperty("--swatch", row.color);
      line.append(`${row.name} ${number(row.y[nearest(row.x)])}`);
      return line;
    }));
    const place = (left + ((at - chart.x[0]) / (chart.x[1] - chart.x[0])) * (right - left)) * area.width;
    cursor.style.cssText = `left:${place}px;top:${top * 100}%;height:${(bottom - top) * 100}%`;
    cursor.hidden = tip.hidden = false;
    tip.style.left = `${place > area.width / 2 ? place - tip.offsetWidth - 10 : place + 10}px`;
  };
  plot.addEventListener("pointermove", show);
  plot.addEventListener("pointerleave", hide);
}
// Pictures: a click on a picture or its button enlarges it in its place; a second click makes it small again.
for (const figure of document.querySelectorAll("figure.zoomable")) {
  const button = figure.querySelector("button.zoom");
  const toggle = () => {
    const large = figure.classList.toggle("large");
    button.setAttribute("aria-expanded", String(large));
    button.textContent = large ? "Make smaller" : "Enlarge";
  };
  button.addEventListener("click", toggle);
  figure.querySelector(".frame").addEventListener("click", toggle);
}
