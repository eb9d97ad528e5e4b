// Draws each chart from the JSON beside it at the width of the page, in the ink of the page, and shrinks what is wider than
// the paper to print. A chart that cannot be drawn says so in its place and leaves the others alone.
(() => {
  const narrow = matchMedia("(max-width: 40rem)"), dark = matchMedia("(prefers-color-scheme: dark)");
  const ink = (forPaper) => (dark.matches && !forPaper ? "#c9d2dc" : "#3a4552");
  const boxes = [];
  for (const figure of document.querySelectorAll("figure.chart")) {
    const box = figure.querySelector("div");
    try {
      const { data, layout = {} } = JSON.parse(figure.querySelector("script").textContent);
      const { width, ...rest } = layout;
      const font = { ...rest.font, color: ink(false), ...(narrow.matches ? { size: 11 } : {}) };
      const across = Object.keys(rest).filter((name) => name.startsWith("xaxis") && rest[name].type !== "category");
      if (narrow.matches) across.forEach((name) => { rest[name] = { ...rest[name], nticks: 4 }; });
      const bar = { displaylogo: false, displayModeBar: narrow.matches ? false : "hover" };
      Plotly.newPlot(box, data, { ...rest, font, autosize: true }, { responsive: true, ...bar });
      boxes.push(box);
    } catch (error) {
      box.textContent = `This chart cannot be drawn: ${error.message}`;
    }
  }
  const repaint = (forPaper) => boxes.forEach((box) => Plotly.relayout(box, { "font.color": ink(forPaper) }));
  dark.addEventListener("change", () => repaint(false));
  const paper_px = 182 * 96 / 25.4; // A4 less its margins
  const wide = () => [...boxes, ...document.querySelectorAll("main table")];
  addEventListener("beforeprint", () => {
    repaint(true);
    wide().forEach((part) => {
      part.style.zoom = Math.min(part.tagName === "TABLE" ? 0.8 : 1, paper_px / part.offsetWidth);
    });
  });
  addEventListener("afterprint", () => {
    repaint(false);
    wide().forEach((part) => { part.style.zoom = ""; });
  });
})();
