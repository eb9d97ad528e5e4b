"""The page of a report as it is read: on a screen, on a phone, in the dark, and what its tables say."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from playwright.sync_api import Browser, Page

from orbiquant.cards import Card, Tiles
from orbiquant.charts import equity_chart
from orbiquant.reports import ReportRun, find_report, read_run
from orbiquant.reports.result import FILE_MIME, open_run
from orbiquant.reports.run import conclude
from orbiquant.reports.tearsheet import COLUMNS, Facts, Table, cell_text, chart_bundle, minus_signs
from tests.tools.browser import Witness, running_browser

WIDE = pd.DataFrame(np.full((4, 14), 0.3714), columns=[f"figure number {n}" for n in range(14)])
TIMES = pd.date_range("2026-01-01", periods=500, freq="1h", tz="UTC")


def shown(value: object) -> nbformat.NotebookNode:
    """Return what a notebook keeps of a value that is named last in a cell."""
    return new_output("display_data", data={"text/html": value._repr_html_(), "text/plain": repr(value)})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ReportRun:
    """Return a concluded run with every kind of output on its page."""
    equity = pd.Series(np.linspace(10_000, 9_500, 500), TIMES)
    chart = equity_chart(equity, "EURUSD 1h: equity and drawdown, a policy with a long name", beside={"held": equity})
    told = {"name": "trades.csv", "text": "side,r\nshort,-1.05\n", "what": "all trades"}
    outputs = [
        shown(Tiles({"mean net R a trade": ("−0.14", "warn")})),
        new_output("display_data", data=chart_bundle(chart)),
        shown(Table(WIDE.assign(policy="base").set_index("policy"), first="policy")),
        shown(Facts({"missing bars": "0 of 6,225 expected by the forex calendar", "costs": {"fee_bps": 0.2}})),
        shown(Card("Study", {"trades": "35"}, "Too few", "warn", curve=[1.0, 3.0, 2.0])),
        new_output("display_data", data={FILE_MIME: told, "text/plain": "attached"}),
    ]
    cells = [new_markdown_cell("# Page"), new_markdown_cell("## First part"), new_code_cell("show()", outputs=outputs)]
    cells.append(new_markdown_cell("## The `second` part\n\nprose"))
    with open_run("page", {"symbol": "EURUSD"}, tmp_path_factory.mktemp("page")) as opened:
        nbformat.write(new_notebook(cells=cells), opened.notebook)
        conclude(opened, "succeeded")
    return read_run(opened.id, opened.folder.parent)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield one Chromium for all pages."""
    with running_browser() as running:
        yield running


def opened(browser: Browser, run: ReportRun, width: int, scheme: str = "light") -> tuple[Page, Witness]:
    """Open the page in a window of some width, its charts drawn."""
    page = browser.new_context(offline=True, viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    witness = Witness(page)
    page.goto(run.html.as_uri())
    page.wait_for_selector(".js-plotly-plot .main-svg")
    return page, witness


def luminance(page: Page, selector: str, name: str) -> float:
    """Return how bright a colour of an element is, 0 to 255."""
    colour = page.locator(selector).first.evaluate(f"part => getComputedStyle(part)['{name}']")
    return sum(float(part) for part in re.findall(r"[\d.]+", colour)[:3]) / 3


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_cut_off_unseen(browser: Browser, run: ReportRun, width: int):
    page, witness = opened(browser, run, width)
    assert (witness.errors, witness.outside(page)) == ([], [])
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator(".table").first
    inside = box.evaluate("part => [part.scrollWidth, part.clientWidth, getComputedStyle(part).overflowX]")
    assert inside[2] == "auto" and inside[1] <= width
    assert "gradient" in box.evaluate("part => getComputedStyle(part).backgroundImage"), "a shadow says that it scrolls"
    for text in page.locator(".js-plotly-plot .gtitle, .js-plotly-plot .legendtext, .js-plotly-plot .ytick text").all():
        place = text.bounding_box()
        assert place and place["x"] >= 0 and place["x"] + place["width"] <= width, text.text_content()


def test_a_phone_reads_heads_unbroken_and_keeps_the_first_column(browser: Browser, run: ReportRun):
    page, _ = opened(browser, run, 400)
    assert page.locator(".table").first.evaluate("part => part.scrollWidth > part.clientWidth")
    page.locator(".table").first.evaluate("part => { part.scrollLeft = 300 }")
    first = page.locator(".table td").first.bounding_box()
    assert first and first["x"] < 40, "the name of the row stays in sight"
    assert page.locator(".table th").nth(1).evaluate("part => getComputedStyle(part).overflowWrap") == "normal"
    assert page.locator(".modebar").count() == 0 or not page.locator(".modebar").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_ink_stands_out_from_the_paper(browser: Browser, run: ReportRun, scheme: str):
    page, _ = opened(browser, run, 1280, scheme)
    paper = luminance(page, "body", "backgroundColor")
    assert (paper < 60) == (scheme == "dark")
    for selector, name in (("body", "color"), (".table td", "color"), (".js-plotly-plot .gtitle", "fill")):
        assert abs(luminance(page, selector, name) - paper) > 100, selector


def test_contents_lead_to_their_parts(browser: Browser, run: ReportRun):
    page, _ = opened(browser, run, 1280)
    links = page.locator("nav.contents a")
    assert links.all_inner_texts() == ["First part", "The second part"]
    for link in links.all():
        assert page.locator(link.get_attribute("href") or "").count() == 1


def test_the_trades_can_be_taken_from_the_page_alone(browser: Browser, run: ReportRun, tmp_path: Path):
    page, _ = opened(browser, run, 1280)
    with page.expect_download() as waiting:
        page.locator("a[download]").click()
    assert waiting.value.suggested_filename == "trades.csv"
    assert Path(waiting.value.path()).read_text() == "side,r\nshort,-1.05\n" == (run.folder / "trades.csv").read_text()


def test_a_card_keeps_its_curve_and_a_table_its_words(browser: Browser, run: ReportRun):
    page, _ = opened(browser, run, 1280)
    assert page.locator("main .card polyline").count() == 1 and page.locator("main style").count() == 0
    assert page.locator(".table td").nth(1).inner_text() == "0.371" and page.locator("dl.pairs dd").count() == 2


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (0.3714, ".1%", "37.1 %"),
        (float("nan"), "", "–"),
        (None, "", "–"),
        (float("inf"), "+.2f", "–"),
        (-9.066e-05, "+.2f", "0.00"),
        (-9.066e-05, "", "0.000"),
        (-0.13665, "+.2f", "−0.14"),
        (1234567, "", "1,234,567"),
        (1234.5, "", "1,234"),
        (np.int64(446), "", "446"),
        (pd.NaT, "", "–"),
        (np.bool_(False), "", "no"),
        ("conservative_filter", "name", "conservative_filter"),
        ("new_york_am", "", "new york am"),
    ],
)
def test_a_figure_is_written_as_people_read_it(value: object, form: str, text: str):
    assert cell_text(value, form) == text


def test_no_table_shows_a_programs_figures():
    rng = np.random.default_rng(7)
    frame = pd.DataFrame(rng.normal(size=(20, len(COLUMNS))) * 10.0 ** rng.integers(-9, 3, size=20)[:, None])
    frame = frame.set_axis(list(COLUMNS), axis=1).mask(rng.random(frame.shape) < 0.2)
    page = Table(frame)._repr_html_()
    assert not re.search(r"nan|\de-\d|None|_", page, re.IGNORECASE)
    assert not re.search(r"\d\.\d{4,}", page)


def test_words_keep_their_hyphens():
    assert minus_signs("low-risk, 2026-01-02, base-1, -1.5 and (-2)") == "low-risk, 2026-01-02, base-1, −1.5 and (−2)"


def test_the_research_report_asks_for_stored_bars_and_names_every_other_policy():
    report = find_report("research")
    assert report.needs_bars
    source = "".join("".join(cell["source"]) for cell in json.loads(report.path.read_text())["cells"])
    assert source.count("of_whom") >= 5 and "0 draws" not in source and "figures[" not in source


def test_a_chart_keeps_its_title_where_it_is_held():
    bundle = chart_bundle(go.Figure(layout={"title": {"text": "Equity"}}))
    assert bundle["text/plain"] == "Equity" and "application/vnd.plotly.v1+json" in bundle
