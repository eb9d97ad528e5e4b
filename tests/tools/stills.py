"""Put a still image beside each interactive chart of the notebooks: code hosts show images, and run no scripts."""

import base64
import json
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Page
from plotly.offline import get_plotlyjs

from orbiquant.core import atomic_write
from tests.tools.browser import running_browser

CHART, STILL = "application/vnd.plotly.v1+json", "image/png"
PAGE = "<body style='margin:0'><div id='chart'></div></body>"
DRAW = "figure => Plotly.newPlot('chart', figure.data, figure.layout, {staticPlot: true})"


def photograph(page: Page, figure: dict[str, Any]) -> str:
    """Return a chart as a PNG in base64."""
    page.set_content(PAGE)
    page.add_script_tag(content=get_plotlyjs())
    page.evaluate(DRAW, figure)
    return base64.b64encode(page.locator("#chart .svg-container").screenshot()).decode()


def still(path: Path, page: Page) -> int:
    """Write the images of one notebook and return how many there are."""
    book = json.loads(path.read_text(encoding="utf-8"))
    outputs = [output["data"] for cell in book["cells"] for output in cell.get("outputs", []) if "data" in output]
    charts = [data for data in outputs if CHART in data]
    for data in charts:
        data[STILL] = photograph(page, data[CHART])
    if charts:
        atomic_write(path, json.dumps(book, indent=1, ensure_ascii=False) + "\n")
    return len(charts)


def main(paths: list[str]) -> None:
    """Go through the notebooks."""
    with running_browser() as browser:
        page = browser.new_page(viewport={"width": 900, "height": 600})
        for path in map(Path, paths):
            if made := still(path, page):
                print(f"{path}: {made}")


if __name__ == "__main__":
    main(sys.argv[1:])
