"""The copilot's chat in a real JupyterLab, looked at with a real browser: every way of using and of misusing it."""

from collections.abc import Iterator
from itertools import count

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.tools.browser import Witness, running_browser
from tests.tools.chat_home import ChatHome, chat_home
from tests.tools.lab import ChatView, Lab, OpenNotebook, running_lab
from tests.tools.model_server import recite

pytestmark = pytest.mark.browser
ACTS = {"recite": recite(1000, 0.05), "briefly": recite(5, 0.02)}
FORGIVEN = ()  # what Lab itself says in the console


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as found:
        yield found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatHome]:
    with chat_home(tmp_path_factory.mktemp("chat") / "home", **ACTS) as made:
        yield made


@pytest.fixture(scope="module")
def lab(browser: Browser, home: ChatHome) -> Iterator[Lab]:
    with running_lab(home.folder.parent / "lab", home.environment) as running:
        yield running


@pytest.fixture(scope="module")
def kernel(lab: Lab) -> str:
    """Return a kernel for all that do it no harm."""
    return lab.start_kernel()


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    with browser.new_context(viewport={"width": 1200, "height": 900}) as opened:
        yield opened


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    opened = context.new_page()
    seen = Witness(opened)
    yield opened
    opened.close()
    assert [each for each in seen.errors if not any(known in each for known in FORGIVEN)] == []


NUMBERS = count(1)


class Talk:
    """A notebook with a chat in it."""

    def __init__(self, lab: Lab, page: Page, kernel: str | None = None, *cells: str) -> None:
        self.name = f"talk-{next(NUMBERS)}"
        cells = cells or (f"import orbiquant as oq\nchat = oq.Chat({self.name!r})\nchat",)
        lab.write(f"{self.name}.ipynb", *cells)
        if kernel:
            lab.share(f"{self.name}.ipynb", kernel)
        self.notebook: OpenNotebook = lab.open(page, f"{self.name}.ipynb")
        self.notebook.run_all()
        self.chat: ChatView = self.notebook.chat()


def test_an_answer_grows_while_it_comes(lab: Lab, kernel: str, page: Page):
    talk = Talk(lab, page, kernel)
    talk.chat.ask("recite, please")
    talk.chat.hears("bababa")
    talk.chat.hears("babada")
    talk.chat.button("Stop").click()


def test_an_order_is_approved_once(lab: Lab, kernel: str, page: Page, home: ChatHome):
    talk = Talk(lab, page, kernel)
    symbol, words = home.order()
    talk.chat.ask(words)
    talk.chat.stands("pending")
    talk.chat.button("Approve").click()
    talk.chat.stands("executed")
    assert len(home.orders(symbol)) == 1
