"""Photograph the dashboard in every state that a person may meet it in: `make faces` does."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, Page

from tests.tools.dashboard_home import TOKEN, DashboardHome, Stream, dashboard_home

DESK, PHONE = (1440, 900), (390, 844)


class DashboardStills:
    """A browser that looks at a service, and where the pictures go."""

    def __init__(self, browser: Browser, place: Path) -> None:
        self.browser, self.place = browser, place

    def open(self, address: str, key: str = TOKEN, size: tuple[int, int] = DESK, scheme: str = "light") -> Page:
        """Return the page as somebody sees it who has a key."""
        viewport = {"width": size[0], "height": size[1]}
        page = self.browser.new_page(viewport=viewport, color_scheme=scheme, device_scale_factor=1.5)
        page.set_default_timeout(30_000)
        page.goto(f"{address}/#token={key}")
        page.locator("#health-told .badge").wait_for()
        page.locator("#agents-list h3").first.wait_for()
        return page

    def take(self, page: Page, name: str, whole: bool = True) -> None:
        """Write a picture, and close the page."""
        path = self.place / f"dashboard-{name}.png"
        page.screenshot(path=path, full_page=whole, animations="disabled")
        page.close()
        print(path)

    def lit(self, address: str) -> None:
        """Take it full, in light and dark, on a desk and on a telephone."""
        for name, size in (("desk", DESK), ("phone", PHONE)):
            for scheme in ("light", "dark"):
                page = self.open(address, size=size, scheme=scheme)
                page.locator("#decisions tbody tr").first.wait_for()
                page.locator("#signal-card .facts").wait_for()
                page.locator("#chat").scroll_into_view_if_needed()
                page.locator("#chat .oq-welcome").wait_for()
                page.evaluate("() => scrollTo(0, 0)")
                self.take(page, f"{name}-{scheme}")

    def live(self, address: str) -> None:
        """Take it while streams tell a bar and a signal."""
        page = self.browser.new_page(viewport={"width": 1440, "height": 900}, device_scale_factor=1.5)
        stream = Stream(page)
        page.goto(f"{address}/#token={TOKEN}")
        page.locator("#signal-card .facts").wait_for()
        stream.tell_signal(address)
        page.get_by_text("▲ Long").first.wait_for()
        self.take(page, "live", whole=False)

    def killed(self, address: str) -> None:
        """Take the question before a kill, and what stands after it."""
        page = self.open(address)
        page.locator("#kill").click()
        page.get_by_label("Reason").fill("The feed of the venue looks wrong")
        page.screenshot(path=self.place / "dashboard-kill-asked.png")
        page.get_by_role("button", name="Stop them now").click()
        page.locator("#killed .kill").wait_for()
        page.wait_for_timeout(500)
        self.take(page, "killed", whole=False)
        page = self.open(address, size=PHONE, scheme="dark")
        page.locator("#killed .kill").wait_for()
        self.take(page, "killed-phone", whole=False)

    def refused(self, home: DashboardHome, address: str) -> None:
        """Take it with a key that may only read, and without any."""
        page = self.open(address, home.key("ana", "free", "read"))
        page.locator("#signal-card :is(.facts, .trouble)").first.wait_for()
        self.take(page, "free")
        page = self.browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(address)
        page.locator("#notices .notice").wait_for()
        page.locator("#notices button").click()
        self.take(page, "signed-out", whole=False)

    def gone(self, leave: Callable[[], Page]) -> None:
        """Take it after the service went away."""
        page = leave()
        page.locator("#notices .notice.bad").wait_for(timeout=60_000)
        self.take(page, "gone")


def take_dashboard(browser: Browser, place: Path) -> None:
    """Take all pictures of the dashboard."""
    stills = DashboardStills(browser, place)
    with tempfile.TemporaryDirectory() as folder:
        with dashboard_home(Path(folder)) as (home, address):
            stills.lit(address)
            stills.refused(home, address)
            stills.live(address)
            stills.killed(address)
            page = stills.open(address)
            page.locator("#signal-card .facts").wait_for()
        stills.gone(lambda: page)
    with tempfile.TemporaryDirectory() as folder, dashboard_home(Path(folder), stored=False) as (_, address):
        for name, size in (("empty", DESK), ("empty-phone", PHONE)):
            page = stills.open(address, size=size)
            page.locator("#price .empty").wait_for()
            stills.take(page, name)
