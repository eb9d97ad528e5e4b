"""Candles in a real JupyterLab: many of them, live over a socket that is killed, with decisions, in light and dark."""

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from orbiquant.core import OptionError
from orbiquant.desk.bar_feeds import FeedListener, SocketFeed
from orbiquant.domain import SeriesId
from orbiquant.workspace import make_workspace
from tests.test_service_http import TOKEN
from tests.tools.browser import running_browser
from tests.tools.dashboard_home import DashboardHome, dashboard_home
from tests.tools.lab import Lab, OpenNotebook, running_lab

pytestmark = pytest.mark.browser
MANY = """
import numpy as np, pandas as pd
rng = np.random.default_rng(7)
times = pd.date_range("2022-01-01", periods=200_000, freq="min", tz="UTC", name="time")
close = pd.Series(100 * np.exp(rng.normal(0, 0.0003, len(times)).cumsum()), times).round(2)
opened = close.shift(fill_value=100.0)
wide = rng.uniform(0, 0.1, len(times)).round(2)
bars = pd.DataFrame({"open": opened, "high": np.maximum(opened, close) + wide, "low": np.minimum(opened, close) - wide,
                     "close": close, "volume": rng.uniform(1, 9, len(times)).round(1)})
"""
PAINTED = """async (code) => {
  const began = performance.now(), { commands, shell } = window.jupyterapp, { model } = shell.currentWidget.content;
  model.sharedModel.addCell({ cell_type: "code", source: code });
  shell.currentWidget.content.activeCellIndex = model.cells.length - 1;
  commands.execute("notebook:run-cell");
  const places = () => document.querySelectorAll(".oq-candles[data-bars='200000']").length;
  const before = places();
  while (places() === before && performance.now() - began < 60_000) await new Promise((done) => setTimeout(done, 5));
  return performance.now() - began;
}"""
EURUSD = SeriesId.parse("EURUSD", "1h")
NUMBERS = count(1)


class Wire:
    """A connection between two programs that can be cut and mended; the port stays."""

    def __init__(self, port: int) -> None:
        self.target, self.held = port, list[socket.socket]()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.begin()

    def begin(self) -> None:
        """Let connections through."""
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
                self.held += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)
        for each in (one, other):
            with suppress(OSError):
                each.close()

    def cut(self) -> None:
        """Kill what is open, and refuse what comes."""
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for each in self.held:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self.held.clear()

    def mend(self) -> None:
        """Let connections through again, at the same port."""
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.begin()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as found:
        yield found


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DashboardHome, str]]:
    """Yield a workspace whose bars close when a test says so, and its service."""
    with dashboard_home(tmp_path_factory.mktemp("desk")) as found:
        yield found


@pytest.fixture(scope="module")
def lab(browser: Browser, desk: tuple[DashboardHome, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Yield a JupyterLab on the same workspace as the service."""
    workspace, place = tmp_path_factory.mktemp("live"), desk[0].runtime.settings.workspace
    told = {"DATABASE_URL": place.database_url, "STORE_URI": place.store_uri, "MODELS_DIR": str(place.models_dir)}
    told = {f"ORBIQUANT_WORKSPACE_{name}": value for name, value in told.items()}
    with running_lab(workspace, told | {"ORBIQUANT_HOME": str(workspace / "notebooks")}) as running:
        make_workspace(running.folder)
        yield running


@pytest.fixture(scope="module")
def kernel(lab: Lab) -> str:
    return lab.start_kernel()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    opened.close()
    assert errors == []


@pytest.fixture
def notebook(lab: Lab, page: Page, kernel: str) -> OpenNotebook:
    """Return an empty notebook on the kernel that all share."""
    name = f"charts-{next(NUMBERS)}.ipynb"
    lab.write(name, "import orbiquant as oq")
    lab.share(name, kernel)
    opened = lab.open(page, name)
    opened.run_all()
    return opened


def chart_of(notebook: OpenNotebook, code: str) -> Locator:
    """Run a cell and return the chart that it shows, once it is painted."""
    notebook.show(code)
    found = notebook.page.locator(".oq-candles[data-bars]").last
    found.wait_for(timeout=60_000)
    return found


def test_the_tutorial_begins_with_a_chart_that_is_drawn(lab: Lab, page: Page, kernel: str):
    lab.share("tutorial.ipynb", kernel)
    tutorial = lab.open(page, "tutorial.ipynb")
    tutorial.page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 2 }")
    tutorial.do("notebook:run-cell")
    chart = page.locator(".oq-candles[data-bars]").first
    chart.wait_for(timeout=60_000)
    assert int(chart.get_attribute("data-bars")) > 2_000 and "EURUSD 1h" in chart.inner_text()


def test_200_000_bars_are_there_at_once_and_can_be_moved(notebook: OpenNotebook, capsys: pytest.CaptureFixture[str]):
    notebook.execute(MANY)
    took_ms = notebook.page.evaluate(PAINTED, "oq.candle_chart(bars, title='Made up')")
    with capsys.disabled():
        print(f"\n200,000 bars painted in {took_ms:,.0f} ms")
    assert took_ms < 10_000, "3 seconds on an idle machine: `make bench-faces`"
    chart = notebook.page.locator(".oq-candles").last
    chart.scroll_into_view_if_needed()
    told = chart.locator(".oq-candles-readout")
    newest = told.inner_text()
    chart.get_by_role("button", name="Earlier").click()
    chart.locator(".oq-candles-chart").hover(position={"x": 300, "y": 150})
    expect(told).not_to_have_text(newest)
    assert re.search(r"O [\d.,]+ +H [\d.,]+ +L [\d.,]+ +C [\d.,]+ +V [\d.,]+", told.inner_text())
    for _ in range(12):
        chart.get_by_role("button", name="More bars").click()
    chart.locator(".oq-candles-chart").hover(position={"x": 20, "y": 150})
    expect(told).to_have_text(re.compile(r"May \d, 2022|Apr \d+, 2022"))  # drawn as it was come near to


def test_a_live_chart_survives_a_killed_socket_and_misses_no_bar(
    notebook: OpenNotebook, desk: tuple[DashboardHome, str]
):
    home, address = desk
    wire = Wire(int(address.rpartition(":")[2]))
    code = f"chart = oq.live_chart('EURUSD', '1h', service='http://127.0.0.1:{wire.port}', token={TOKEN!r})\nchart"
    chart = chart_of(notebook, code)
    begun = int(chart.get_attribute("data-bars"))
    expect(chart).to_have_attribute("data-state", "stale", timeout=20_000)  # these bars are years old
    home.close(2)
    expect(chart).to_have_attribute("data-bars", str(begun + 2), timeout=20_000)
    wire.cut()
    expect(chart.locator(".oq-candles-status")).to_contain_text("connection lost", timeout=20_000)
    home.close(3)
    time.sleep(0.5)
    assert int(chart.get_attribute("data-bars")) == begun + 2
    wire.mend()
    expect(chart).to_have_attribute("data-bars", str(begun + 5), timeout=30_000)
    expect(chart).to_have_attribute("data-state", "stale")
    home.close()
    expect(chart).to_have_attribute("data-bars", str(begun + 6), timeout=20_000)
    held = notebook.execute("print(*chart.bars.index.asi8, sep=',')")
    stored = home.runtime.store.read(EURUSD).index[-(begun + 6) :]
    assert held.strip() == ",".join(map(str, stored.as_unit("us").asi8)), "every bar of the store, each once"
    notebook.execute("chart.close()")
    wire.cut()


def test_a_key_that_is_none_is_refused_once(desk: tuple[DashboardHome, str]):
    states: list[tuple[str, str]] = []
    feed, stop = SocketFeed(desk[1], "no-such-key", EURUSD, pace=0.01), threading.Event()
    late = threading.Timer(20, stop.set)
    late.start()
    feed.follow(FeedListener(lambda _: None, lambda *told: states.append(told)), stop)
    late.cancel()
    assert [state for state, _ in states] == ["refused"] and "key" in states[0][1]
    with pytest.raises(OptionError, match="`service` must be an address"):
        SocketFeed("ftp://here", "", EURUSD)


DECIDED = """
import pandas as pd
words = {"who": "atlas breakout", "text": "atlas", "action": ["LONG", "DENIED", "EXIT"]}
why = ["at 1.1", "LONG: open_risk <img src=x onerror=pwned=1>", "target +2 R"]
live.decide(pd.DataFrame({"time": live.bars.index[[-9, -5, -3]], "why": why} | words))
"""
COUNTED = """
from orbiquant.desk.watched_chart import decisions_on
print(len(decisions_on(oq.current(), "atlas", live.series)), len(live.widget.decisions))
"""


def test_what_an_agent_decided_stands_on_the_chart_and_grows(notebook: OpenNotebook):
    chart = chart_of(notebook, "live = oq.live_chart('EURUSD', '1h', agent='atlas')\nlive")
    made, drawn = notebook.execute(COUNTED).split()
    assert made == drawn, "what its journal and its book hold on these bars"
    notebook.execute(DECIDED)
    expect(chart.locator("summary")).to_have_text("Decisions: 3")
    chart.locator("summary").click()
    assert "atlas breakout · ● denied · LONG: open_risk <img" in chart.inner_text(), "a reason is text, never markup"
    assert notebook.page.evaluate("() => window.pwned ?? null") is None
    chart.get_by_role("listitem").last.get_by_role("button").click()
    notebook.execute("live.close()")


def test_its_colours_are_those_of_the_page(notebook: OpenNotebook):
    chart = chart_of(notebook, "oq.candle_chart(oq.load_bars('EURUSD', '1h').tail(300))")
    seen = {}
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        notebook.theme(theme)
        expect(chart).to_have_attribute("data-theme", theme.rpartition(" ")[2].lower())
        seen[theme] = chart.evaluate("(root) => getComputedStyle(root).color")
    assert len({*seen.values()}) == 2, seen


def test_the_saved_notebook_shows_a_card_in_its_place(notebook: OpenNotebook, lab: Lab):
    name = notebook.page.evaluate("() => window.jupyterapp.shell.currentWidget.context.path")
    chart_of(notebook, "oq.candle_chart(oq.load_bars('EURUSD', '1h').tail(300))")
    notebook.save()
    notebook.page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")
    saved = Path(lab.folder / name).read_text()
    assert "<EURUSD 1h: bars 300" in saved and 'class=\\"card\\"' in saved and len(saved) < 100_000
