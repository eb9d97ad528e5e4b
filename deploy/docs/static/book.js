// A page that was opened from a disk may not read its neighbours, which the excerpts under search results are made of.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// Draws a page's charts where it has some; the script that draws lies beside this one and is loaded for such a page only.
const charts = document.querySelectorAll(".chart");
if (charts.length) {
  const script = document.createElement("script");
  script.src = new URL("plotly.min.js", document.currentScript.src).href;
  script.onload = () => {
    for (const chart of charts) {
      const figure = JSON.parse(chart.querySelector("script").textContent);
      const place = document.createElement("div");
      chart.replaceChildren(place);
      delete figure.layout.width;
      Plotly.newPlot(place, figure.data, figure.layout, { responsive: true, displaylogo: false });
    }
  };
  document.head.append(script);
}
