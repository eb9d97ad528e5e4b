// Draws each chart from the JSON beside it, at the width of the page or of the paper.
(() => {
  const charts = [...document.querySelectorAll("figure.chart")].map((figure) => {
    const { data, layout = {} } = JSON.parse(figure.querySelector("script").textContent);
    const box = figure.querySelector("div");
    const { width, ...rest } = layout;
    Plotly.newPlot(box, data, { ...rest, autosize: true }, { responsive: true, displaylogo: false });
    return box;
  });
  const refit = () => charts.forEach((box) => Plotly.Plots.resize(box));
  const paper = (on) => { document.documentElement.classList.toggle("paper", on); refit(); };
  addEventListener("beforeprint", () => paper(true));
  addEventListener("afterprint", () => paper(false));
})();
