// Draws each chart from the JSON beside it at the width of the page, and shrinks what is wider than the paper to print.
(() => {
  const boxes = [...document.querySelectorAll("figure.chart")].map((figure) => {
    const { data, layout = {} } = JSON.parse(figure.querySelector("script").textContent);
    const { width, ...rest } = layout;
    const box = figure.querySelector("div");
    Plotly.newPlot(box, data, { ...rest, autosize: true }, { responsive: true, displaylogo: false });
    return box;
  });
  const paper_px = 182 * 96 / 25.4; // A4 less its margins
  const wide = () => [...boxes, ...document.querySelectorAll("main table")];
  addEventListener("beforeprint", () => wide().forEach((part) => {
    part.style.zoom = Math.min(part.tagName === "TABLE" ? 0.8 : 1, paper_px / part.offsetWidth);
  }));
  addEventListener("afterprint", () => wide().forEach((part) => { part.style.zoom = ""; }));
})();
