"""The copilot's chat in a real JupyterLab, looked at with a real browser."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.tools.browser import running_browser
from tests.tools.lab import Lab, running_lab

pytestmark = pytest.mark.browser
START = "import orbiquant as oq\noq.store_sample()\nchat = oq.Chat()\nchat"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as found:
        yield found


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    (folder / "home").mkdir()
    with running_lab(folder, ORBIQUANT_HOME=str(folder / "home")) as running:
        yield running


def test_a_question_is_answered_in_a_cell(lab: Lab, browser: Browser):
    lab.write("ask.ipynb", START)
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    lab.open(page, "ask.ipynb")
    lab.run_all(page)
    page.locator(".oq-composer").fill("What is the price of EURUSD?", timeout=60_000)
    page.locator(".oq-composer").press("Enter")
    page.locator(".oq-answer", has_text="EURUSD").wait_for(timeout=60_000)
    page.close()
