"""Photograph what a person may meet: chat, dashboard, charts: `python -m tests.tools.face_stills [PART …]`."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page

from orbiquant.core import asset
from tests.tools.browser import running_browser
from tests.tools.chat_home import TABLE, ChatHome, chat_home
from tests.tools.dashboard_stills import take_dashboard
from tests.tools.lab import ChatView, Lab, OpenNotebook, running_lab
from tests.tools.model_server import Act, Step, look, recite

PLACE = Path("build/faces")  # which git ignores
READING = f"""## EURUSD in three lines

The **trend** is calm, the *range* is narrow. See [the glossary](https://example.com/glossary).{TABLE}

1. Wait for the close.
2. Then look again.

```python
prices["close"].rolling(20).mean()
```

> A plan is worth more than an opinion.
"""


def speak(said: str, results: list[str]) -> Iterator[Step]:
    """Look at the price, and say much of it."""
    yield READING if results else {"get_price": {"symbol": "EURUSD"}}


ACTS: dict[str, Act] = {
    "recite": recite(1500, 0.05),
    "reading": speak,
    "signal": look("get_signal", "That is what the model says.\n", symbol="EURUSD"),
    "chart": look("plot_frame", "Here it is.\n", name="prices", column="close"),
    "precio": look("get_price", "El **euro** está tranquilo.\n", symbol="EURUSD"),
}
CELL = "prices = oq.load_bars('EURUSD').tail(300)\nchat = oq.Chat({name!r}, frames={{'prices': prices}})\nchat"


class Studio:
    """JupyterLab, a browser and who takes the pictures."""

    def __init__(self, lab: Lab, browser: Browser, home: ChatHome, place: Path) -> None:
        self.lab, self.home, self.place, self.kernel = lab, home, place, lab.start_kernel()
        self.context = browser.new_context(viewport={"width": 1100, "height": 1000}, device_scale_factor=1.5)

    @contextmanager
    def talk(self, name: str, kernel: str = "", **cell: str) -> Iterator[tuple[OpenNotebook, ChatView]]:
        """Yield a notebook with a chat in it."""
        self.lab.write(f"{name}.ipynb", "import orbiquant as oq", CELL.format(name=name))
        self.lab.share(f"{name}.ipynb", kernel or self.kernel)
        page = self.context.new_page()
        notebook = self.lab.open(page, f"{name}.ipynb")
        notebook.run_all()
        chat = notebook.chat()
        chat.is_live()
        yield notebook, chat
        page.close()

    def take(self, name: str, what: Locator | Page) -> None:
        """Write a picture of a place or of a whole page."""
        what.screenshot(path=self.place / f"{name}.png", animations="disabled")
        print(self.place / f"{name}.png")


def answers(studio: Studio) -> None:
    """Take a chat before anything was said, while something is, and afterwards."""
    with studio.talk("answers") as (_, chat):
        studio.take("empty", chat.root)
        chat.ask("recite, please")
        chat.hears("bakafa", 60)
        studio.take("streaming", chat.root)
        chat.button("Stop").click()
        chat.is_idle()
        studio.take("stopped", chat.root)
        chat.turn("Give me a reading of EURUSD")
        studio.take("answered", chat.root)
        chat.root.locator("details.oq-tool summary").last.click()
        chat.root.locator("details.oq-tool").last.scroll_into_view_if_needed()
        studio.take("tool-open", chat.root)


def tools(studio: Studio) -> None:
    """Take a signal, a chart and an error."""
    with studio.talk("tools") as (_, chat):
        chat.turn("What is the signal of EURUSD?")
        studio.take("signal", chat.root)
        chat.turn("Draw a chart of prices, please")
        studio.take("chart", chat.root)
        studio.home.model.status = 400
        chat.ask("Are you there?")
        chat.root.locator(".oq-error").wait_for()
        studio.home.model.status = 200
        studio.take("error", chat.root)


def orders(studio: Studio) -> None:
    """Take a ticket in each of its states."""
    with studio.talk("orders") as (_, chat):
        chat.turn(studio.home.order()[1])
        studio.take("ticket-override", chat.root)
        chat.approve()
        chat.stands("executed")
        chat.is_idle()
        studio.take("executed", chat.root)
        chat.turn(studio.home.order()[1])
        chat.ready_to_approve()
        studio.take("ticket-ready", chat.root)
        chat.button("Deny").click()
        chat.stands("denied")
        chat.is_idle()
        studio.take("denied", chat.root)
        chat.ask(f"Buy 0.01 lots of {studio.home.order()[0]}, stop 90, target 101")
        chat.approve()
        chat.stands("refused")
        chat.is_idle()
        studio.take("refused", chat.root)
        chat.ask(studio.home.order()[1])
        chat.is_pending()
        chat.ask("recite, please")
        chat.stands("void")
        chat.button("Stop").click()
        chat.is_idle()
        studio.take("void", chat.root)


def surroundings(studio: Studio) -> None:
    """Take it in the dark, in Spanish, on a telephone, and without a kernel."""
    with studio.talk("dark", studio.lab.start_kernel()) as (notebook, chat):
        chat.turn("Give me a reading of EURUSD")
        chat.turn(studio.home.order()[1])
        notebook.theme("JupyterLab Dark")
        studio.take("dark", chat.root)
        studio.take("dark-lab", notebook.page)
        notebook.theme("JupyterLab Light")
        notebook.save()
        notebook.shut_down()
        chat.is_dead()
        studio.take("disconnected", chat.root)
        notebook.page.reload()
        notebook.wait()
        notebook.page.locator(".oq-static").wait_for()
        studio.take("reopened", notebook.page)
    with studio.talk("spanish") as (notebook, chat):
        chat.turn("¿Cuál es el precio del euro?")
        chat.turn(studio.home.order()[1].replace("Buy", "Compra").replace("lots of", "lotes de"))
        studio.take("spanish", chat.root)
        notebook.page.set_viewport_size({"width": 390, "height": 844})
        notebook.do("application:toggle-left-area")
        notebook.page.locator(".jp-FileBrowser").first.wait_for(state="hidden")
        studio.take("phone", chat.root)


CANDLES = """
import pandas as pd
bars = oq.load_bars("EURUSD", "1h")
words = {"who": "nova breakout", "text": ["nova", "", "", "nova", ""]}
acts = ["LONG", "EXIT", "DENIED", "SHORT", "EXIT"]
why = ["at 1.187", "target, +2.00 R", "LONG: open_risk: 10.2 % of at most 10 %", "at 1.196", "stop, −1.00 R"]
decided = pd.DataFrame({"time": bars.index[[-60, -50, -40, -30, -10]], "action": acts, "why": why} | words)
"""
STATES = """
chart = oq.live_chart("EURUSD", "1h")
chart.decide(decided)
chart
"""


def charts(studio: Studio) -> None:
    """Take candles with phases and decisions, light, dark and on a telephone, and a chart that is stale or lost."""
    shown = "oq.candle_chart(bars, oq.detect_phases(bars), decided)"
    studio.lab.write("charts.ipynb", "import orbiquant as oq\n" + CANDLES, shown)
    studio.lab.share("charts.ipynb", studio.kernel)
    page = studio.context.new_page()
    notebook = studio.lab.open(page, "charts.ipynb")
    notebook.run_all()
    chart = page.locator(".oq-candles[data-bars]").first
    chart.wait_for(timeout=60_000)
    chart.locator("summary").click()
    for theme in ("Light", "Dark"):
        notebook.theme(f"JupyterLab {theme}")
        page.wait_for_timeout(800)  # colours are read again when the sheet is there
        studio.take(f"chart-{theme.lower()}", chart)
    notebook.theme("JupyterLab Light")
    notebook.show(STATES)
    live = page.locator(".oq-candles[data-bars]").nth(1)
    live.wait_for(timeout=60_000)
    studio.take("chart-stale", live)
    notebook.execute("chart.changed('lost', 'connection lost, trying again in 4 s (the connection ended)')")
    page.locator(".oq-candles[data-state=lost]").wait_for()
    studio.take("chart-lost", live)
    page.set_viewport_size({"width": 390, "height": 844})
    notebook.do("application:toggle-left-area")
    page.locator(".jp-FileBrowser").first.wait_for(state="hidden")
    studio.take("chart-phone", chart)
    page.close()


def tutorial(studio: Studio) -> None:
    """Take the beginning of the tutorial, run, in Lab."""
    shutil.copy(asset("workspace", "tutorial.ipynb"), studio.lab.folder / "tutorial.ipynb")
    page = studio.context.new_page()
    notebook = studio.lab.open(page, "tutorial.ipynb")
    for cell in (2, 4, 6):
        page.evaluate("(at) => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = at }", cell)
        notebook.do("notebook:run-cell")
    page.locator(".oq-candles[data-bars]").first.wait_for(timeout=60_000)
    page.locator(".js-plotly-plot").nth(1).wait_for(timeout=120_000)
    studio.take("tutorial-lab", page)
    page.locator(".js-plotly-plot").nth(1).scroll_into_view_if_needed()
    studio.take("tutorial-phases", page)
    page.close()


PARTS: tuple[Callable[[Studio], None], ...] = (answers, tools, orders, surroundings, charts, tutorial)


def main(wanted: list[str]) -> None:
    """Take the pictures, or those of some parts."""
    PLACE.mkdir(parents=True, exist_ok=True)
    if not wanted or "dashboard" in wanted:
        with running_browser() as browser:
            take_dashboard(browser, PLACE)
    parts = [part for part in PARTS if not wanted or part.__name__ in wanted]
    if not parts:
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        running_browser() as browser,
        chat_home(Path(folder) / "home", **ACTS) as home,
        running_lab(Path(folder) / "lab", home.environment) as lab,
    ):
        home.keep_models()
        studio = Studio(lab, browser, home, PLACE)
        for part in parts:
            part(studio)


if __name__ == "__main__":
    main(sys.argv[1:])
