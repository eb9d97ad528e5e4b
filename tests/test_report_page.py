"""The page of a report as it is read: on a screen, on a phone, in the dark, and what its tables say."""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from playwright.sync_api import Browser, Page

import orbiquant.runtime
from orbiquant.cards import Card, Tiles
from orbiquant.charts import equity_chart
from orbiquant.core import DataError, NotFoundError, OptionError, asset
from orbiquant.desk.situation import situation_of
from orbiquant.desk.study import store_sample
from orbiquant.domain import Costs, SeriesId, local_caller
from orbiquant.performance import by_group
from orbiquant.reports import ReportRun, find_report, read_run, run_report
from orbiquant.reports.ground import workspace_file
from orbiquant.reports.pdf import print_page
from orbiquant.reports.result import FILE_MIME, open_run
from orbiquant.reports.run import conclude, print_run
from orbiquant.reports.tearsheet import COLUMNS, Facts, Table, cell_text, chart_bundle, minus_signs
from orbiquant.research.agent_days import day_of_agent, day_span
from orbiquant.research.backtests import BacktestAsked, backtest_stored
from orbiquant.research.live import Live
from orbiquant.research.walk_forward import ask_grid, ask_plan, run_walk_forward, strategy_asked
from orbiquant.runtime import current
from tests.tools.agent_home import DAY, trade_some_days
from tests.tools.browser import Witness, running_browser

pytestmark = pytest.mark.browser
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)

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


# --- every report that is shipped ---

GRID = {"length": [10, 20]}
SMALL = {  # name of a run → the report, and the parameters of a small one
    "walkforward": ("walkforward", {"strategy": "breakout", "last": 3000, "grid": GRID, "min_trades": 5}),
    "backtest_tearsheet": ("backtest_tearsheet", {"strategy": "breakout", "last": 3000}),
    "agents_daily": ("agents_daily", {"day": DAY, "zone": "Europe/Madrid"}),
    "never": ("agents_daily", {"day": DAY, "agents": ["nova"]}),
    "market_brief": ("market_brief", {"symbols": ["EURUSD", "XAUUSD"], "zone": "Europe/Madrid"}),
}  # fmt: skip
LONG = {
    "research": ("research", {"last": 3000, "folds": 2, "rounds": 10}),
    "agent_year": ("agent_year", {"agent": "orion", "start": "2017-02-01", "end": "2017-04-01"}),
    "llm_eval": ("llm_eval", {"provider": "router", "most": 20}),
}
EVERY = [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LONG)]
Shipped = Callable[[str], ReportRun]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shipped]:
    """Run every shipped report once in one workspace, long ones when asked for, and yield what finds a run."""
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setenv("ORBIQUANT_HOME", str(tmp_path_factory.mktemp("shipped")))
        orbiquant.runtime._current.clear()  # it is another's workspace
        store_sample("EURUSD", "1h")
        trade_some_days()
        started = {name: pool.submit(run_report, *asked, timeout_s=300) for name, asked in SMALL.items()}

        def ended(name: str) -> ReportRun:
            if name not in started:
                started[name] = pool.submit(run_report, *LONG[name], timeout_s=600)
            return started[name].result()

        yield ended
    orbiquant.runtime._current.clear()


def figures_of(page: Page) -> str:
    """Return all that a page says, with plain hyphens and no wide spaces."""
    return re.sub(r"\s+", " ", page.locator("body").inner_text().replace("−", "-"))


def test_every_shipped_report_is_looked_at():
    assert {name for name, _ in (SMALL | LONG).values()} == {path.stem for path in asset("reports").glob("*.ipynb")}


@pytest.mark.parametrize("name", EVERY)
def test_a_shipped_page_stands_alone(browser: Browser, shipped: Shipped, name: str):
    run = shipped(name)
    assert run.status == "succeeded", run.error
    page = browser.new_context(offline=True, viewport={"width": 390, "height": 900}).new_page()
    witness = Witness(page)
    page.goto(run.html.as_uri())
    page.wait_for_function(
        "[...document.querySelectorAll('figure.chart > div')].every(box => box.querySelector('svg'))"
    )
    assert (witness.errors, witness.outside(page)) == ([], [])
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "a phone does not scroll sideways"
    assert (
        page.locator("main h2").first.inner_text() == "Verdict" and "…" not in page.locator("main p").all_inner_texts()
    )
    assert run.metrics["verdict"] and run.metrics["verdict"].split(":")[0].replace("-", "−") in page.inner_text("main")
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", page.inner_text("main"))
    assert page.locator("footer dt", has_text="code").count() == 1
    page.close()


def test_a_tearsheet_tells_what_the_library_says(browser: Browser, shipped: Shipped):
    run = shipped("backtest_tearsheet")
    found = backtest_stored(current(), SeriesId.parse("EURUSD", "1h"), BacktestAsked(strategy="breakout", last=3000))
    luck = {"trials", "effective_trials", "expected_best", "deflated_sharpe", "minimum_trades"}  # the ledger counts on
    for name, value in found.traded.summary.items():
        assert name in luck or run.metrics[name] == (pytest.approx(value) if np.isfinite(value) else None), name
    trades = pd.read_csv(run.folder / "trades.csv")
    assert trades["r"].tolist() == pytest.approx(found.traded.result.trades["r"].tolist())
    page = browser.new_page()
    page.goto(run.html.as_uri())
    said, summary = figures_of(page), found.traded.summary
    assert f"{summary['expectancy_r']:+.3f} ± {summary['standard_error_r']:.3f} R each" in said
    assert f"{found.verdict.headline}." in said and f"{summary['total_r']:+.1f} total net R" in said
    side = by_group(found.traded.result.trades, "side").loc["long"]
    assert re.search(rf"long {side['trades']:.0f} {side['win_rate']:.1%}".replace("%", " ?%").replace("+", r"\+"), said)
    page.close()


def test_a_walk_forward_tells_what_the_library_says(browser: Browser, shipped: Shipped):
    run, runtime = shipped("walkforward"), current()
    asked = strategy_asked(runtime, SeriesId.parse("EURUSD", "1h"), "breakout", 3000)
    grid = ask_grid(runtime, "breakout", GRID)
    walked = run_walk_forward(runtime, asked, grid, ask_plan(stretch="30d", min_trades=5))
    assert run.metrics["total_r"] == pytest.approx(walked.summary["total_r"])
    assert run.metrics["in_sample_r"] == pytest.approx(walked.headline.in_sample_r)
    assert (run.metrics["windows"], run.metrics["combinations"]) == (len(walked.result.choices), 2)
    windows = pd.read_csv(run.folder / "windows.csv")
    assert windows["total_r"].tolist() == pytest.approx(walked.result.choices["total_r"].tolist(), nan_ok=True)
    page = browser.new_page()
    page.goto(run.html.as_uri())
    said = figures_of(page)
    assert walked.headline.sentence().split(" (")[0].replace("−", "-") in said
    assert "Probability" in said or "probability of overfitting" in said
    page.close()


def test_the_agents_day_tells_what_the_books_say(browser: Browser, shipped: Shipped):
    run, runtime = shipped("agents_daily"), current()
    span = day_span(DAY, "Europe/Madrid", runtime.clock.now())
    own = day_of_agent(runtime, Live(runtime), "atlas", span)
    told = run.metrics["agents"]["atlas"]
    assert told == {"began": True, "begin": own.equity[0], "end": own.equity[1], "profit": pytest.approx(own.profit)}
    assert (run.metrics["denied"], run.metrics["kills"]) == (own.count("denied", "rejected"), 1) and own.count() > 0
    page = browser.new_page()
    page.goto(run.html.as_uri())
    said = figures_of(page)
    assert f"{own.equity[1]:,.2f}" in said and "nova killed by ana: it is not wanted yet" in said
    assert "decided, Europe/Madrid" in said and "Never started: orion, nova." in said
    (position,) = own.positions
    assert f"{position.stop_loss:,.8g}" in said
    page.close()


def test_a_day_without_agents_is_a_clear_page(shipped: Shipped):
    run = shipped("never")
    assert run.status == "succeeded" and run.metrics["verdict"] == "No agent had begun"
    assert run.metrics["agents"] == {"nova": {"began": False, "begin": 0, "end": 0, "profit": 0}}


def test_a_brief_tells_what_the_desk_says_and_what_is_missing(shipped: Shipped):
    run, found = shipped("market_brief"), situation_of(current(), local_caller(), "EURUSD", None)
    told = run.metrics["symbols"]["EURUSD"]
    assert (told["amd_phase"], told["trend"], told["volatility"]) == (found.amd_phase, found.trend, found.volatility)
    assert told["stale"] and run.metrics["stale"] == ["EURUSD"] and run.metrics["missing"] == ["XAUUSD"]
    page = run.html.read_text()
    assert "orbiquant data pull" in page and "Stale: no price here is fresh" in page and "new york am" in page


def test_a_page_is_printed_at_the_width_of_paper(browser: Browser, shipped: Shipped):
    run = shipped("agents_daily")
    printed = print_run(run)
    assert printed == run.pdf and run.pdf.read_bytes().startswith(b"%PDF-") and run.pdf.stat().st_size > 10_000


def test_without_a_browser_the_run_is_kept_and_what_is_missing_is_named(
    shipped: Shipped, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    copy = tmp_path / "report.html"
    copy.write_bytes(shipped("never").html.read_bytes())
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    with pytest.raises(NotFoundError, match=r"a PDF takes a browser, and there is none: `playwright install chromium`"):
        print_page(copy)
    bare = shipped("never").model_copy(update={"folder": tmp_path})
    assert print_run(bare) is None and bare.html.exists() and not bare.pdf.exists()


# --- what they are asked with ---


@pytest.mark.parametrize(
    ("report", "given", "named"),
    [
        ("walkforward", {"by": "luck"}, "`by` must be one of"),
        ("walkforward", {"timeframe": "2h"}, "`timeframe` must be one of"),
        ("walkforward", {"min_trades": "few"}, "`min_trades` must be int"),
        ("walkforward", {"grid": "length=10"}, "`grid` must be dict"),
        ("backtest_tearsheet", {"policy": "bold"}, "`policy` must be one of"),
        ("backtest_tearsheet", {"parameters": "[1]"}, "`parameters` must be dict"),
        ("agents_daily", {"agents": "atlas, apollo"}, "`agents` must be one of"),
        ("market_brief", {"bars": "many"}, "`bars` must be int"),
        ("market_brief", {"symbol": "EURUSD"}, "has no parameter 'symbol', did you mean 'symbols'"),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_starts(report: str, given: dict[str, object], named: str):
    with pytest.raises((DataError, OptionError)) as refused:
        find_report(report).check(given)
    assert named in str(refused.value)


@pytest.mark.parametrize(
    ("ask", "named"),
    [
        (lambda: ask_plan(stretch="a month"), "`stretch` must be"),
        (lambda: ask_plan(min_trades=0), "`min_trades` must be"),
        (lambda: ask_grid(current(), "breakot", {}), "`strategy` must be one of"),
        (lambda: ask_grid(current(), "grid_trading", {}), "`strategy` must be one that gives signals"),
        (lambda: ask_grid(current(), "breakout", {"lenght": [1]}), "did you mean 'length'"),
        (lambda: ask_grid(current(), "breakout", {"length": [1]}), "`length` of breakout"),
        (lambda: BacktestAsked(strategy="breakout", policy="base").source, "`policy` goes with"),
        (lambda: BacktestAsked(policy="base", costs={"fee_bps": 1}).source, "`costs` goes with"),
        (lambda: BacktestAsked(strategy="x", costs={"fee_bps": -1}).costs_over(Costs()), "`fee_bps` must be"),
        (lambda: workspace_file("signals", "/etc/hostname", (".csv",)), "`signals` must be a file of the workspace"),
        (lambda: day_span("2026-02-30", "UTC", NOW), "`day` must be a date"),
        (lambda: day_span("2999-01-01", "UTC", NOW), "`day` must not lie ahead"),
        (lambda: day_span(None, "Mars/Olympus", NOW), "`zone` must be a time zone"),
    ],
)
def test_what_only_the_report_knows_is_refused_by_name(ask: Callable[[], object], named: str):
    with pytest.raises(OptionError) as refused:
        ask()
    assert named in str(refused.value)
