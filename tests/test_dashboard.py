"""The live dashboard in a real browser, on the real service: what it shows, what it stops, what it says of itself."""

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, WebSocketRoute, expect
from test_chat_page import CONTRAST, MARKUP

from orbiquant.service.chat_page import POLICY
from orbiquant.service.dashboard import DASHBOARD_PARTS, dashboard_of
from tests.tools.browser import Witness, running_browser
from tests.tools.dashboard_home import ATTACK, BARS, TOKEN, DashboardHome, Stream, dashboard_home

pytestmark = pytest.mark.browser
MOST_BYTES = 360_000  # of the page without the chat, as it is sent
NAMELESS = """() => [...document.querySelectorAll("button, input, select, textarea, a[href]")].filter((each) => {
  const label = each.labels?.[0]?.textContent ?? "";
  return !(each.getAttribute("aria-label") || each.textContent || label).trim();
}).map((each) => each.outerHTML)"""
BROKEN = """() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const ids = all("[id]").map((each) => each.id);
  const levels = all("h1, h2, h3, h4").map((each) => Number(each.tagName[1]));
  return [
    ...ids.filter((each, place) => ids.indexOf(each) !== place),
    ...all("table:not(#chart table)").filter((each) => !each.caption?.textContent).map(() => "no caption"),
    ...all("th:not([scope])").map((each) => `${each.textContent} is the head of nothing`),
    ...all("[tabindex]").filter((each) => each.tabIndex > 0).map((each) => each.outerHTML),
    ...levels.filter((each, place) => place && each > levels[place - 1] + 1).map((each) => `h${each} is too deep`),
    ...["header", "main", "nav"].filter((each) => all(each).length < 1),
    ...all("[aria-labelledby], [aria-describedby]").filter((each) =>
      [each.getAttribute("aria-labelledby"), each.getAttribute("aria-describedby")].some(
        (name) => name && !document.getElementById(name))).map((each) => each.outerHTML),
  ];
}"""
FOCUSED = """() => {
  const at = document.activeElement;
  return at.getAttribute("aria-label") || at.id || at.textContent;
}"""
HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DashboardHome, str]]:
    with dashboard_home(tmp_path_factory.mktemp("dashboard")) as found:
        yield found


@pytest.fixture(scope="module")
def home(served: tuple[DashboardHome, str]) -> DashboardHome:
    return served[0]


@pytest.fixture(scope="module")
def address(served: tuple[DashboardHome, str]) -> str:
    return served[1]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as found:
        yield found


class Visit:
    """Somebody who has the dashboard open."""

    def __init__(self, browser: Browser, address: str, key: str = TOKEN, told: str = ".facts") -> None:
        self.address = address
        self.page = browser.new_page(viewport={"width": 1440, "height": 900}, locale="en-GB")
        self.page.set_default_timeout(15_000)
        self.witness, self.stream = Witness(self.page), Stream(self.page)
        self.page.clock.install()
        self.page.goto(f"{address}/#token={key}")
        expect(self.page.locator("#agents-list h3")).to_have_count(3)
        expect(self.page.locator(f"#signal-card {told}")).to_be_visible(timeout=15_000)

    def leave(self, *meant: str) -> None:
        """Close it; it stumbled over nothing but what a test meant it to, and asked for nothing from elsewhere."""
        self.page.close()
        errors = [each for each in self.witness.errors if not any(text in each for text in meant)]
        outside = [url for url in self.witness.asked if not url.startswith((self.address, "data:"))]
        assert (errors, outside) == ([], [])


@pytest.fixture(scope="module")
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    made = Visit(browser, address)
    yield made
    made.leave("status of 429", "/chat/face.js")


@pytest.fixture
def page(visit: Visit) -> Page:
    return visit.page


def asked_for(page: Page, part: str) -> list[str]:
    """Return a list that grows by the addresses with a part in them that a page asks for from now on."""
    found: list[str] = []
    page.on("request", lambda request: found.append(request.url) if part in request.url else None)
    return found


def asked_of(socket: WebSocketRoute) -> tuple[str, str]:
    """Return which series a stream was opened for."""
    query = parse_qs(urlsplit(socket.url).query)
    return query["symbols"][0], query["timeframe"][0]


def bar_told(seq: int, close: float, place: int = -1) -> str:
    """Return an event with a bar."""
    time = BARS.index[place].isoformat()
    return (
        f'{{"type":"bar","seq":{seq},"symbol":"EURUSD","timeframe":"1h","bar":{{"time":"{time}",'
        f'"open":{close},"high":{close},"low":{close},"close":{close},"volume":7}}}}'
    )


def test_everything_is_shown_and_the_key_goes_nowhere(page: Page, address: str, home: DashboardHome):
    assert page.url == f"{address}/" and page.evaluate("() => [Object.keys(localStorage).length, document.cookie]") == [
        0,
        "",
    ]
    last = BARS["close"].iloc[home.at - 1]
    expect(page.locator("#price .last")).to_have_text(f"{last:.5f}")
    expect(page.locator("#chart")).to_have_attribute(
        "aria-label", re.compile(f"Candles of EURUSD 1h, 300 bars. Last close {last:.5f}")
    )
    assert page.locator("#chart canvas").count() > 0
    expect(page.locator("#legend")).to_contain_text("Accumulation")
    expect(page.locator("#reading")).to_contain_text("AMD phase")
    expect(page.locator("#signal-card")).to_contain_text("confidence")
    expect(page.locator("#agents-list article").first).to_contain_text("Running")
    expect(page.locator("#positions tbody tr")).to_contain_text(["EURUSD"])
    assert sorted(page.locator("#alerts tbody th").all_inner_texts()) == [
        "EURUSD above 0.99580\nlook at the range", "EURUSD below 0.94700\nlook at the range",
    ]  # fmt: skip
    expect(page.locator("#decisions tbody tr").first).to_contain_text(re.compile("Atlas.*Hold.*\\."))
    expect(page.locator("#health-told")).to_have_text("Healthy")
    expect(page.locator("#connection")).to_have_text("Live")
    page.route("**/chat/face.js*", lambda route: route.fulfill(status=429), times=1)
    page.locator("#chat").scroll_into_view_if_needed()
    page.locator("#chat").get_by_role("button", name="Try again").click()
    expect(page.locator("#chat .oq-connection")).to_have_text("Connected")
    page.get_by_text("The chart as a table").click()
    expect(page.locator("#chart-table table").first.locator("tbody tr")).to_have_count(24)
    assert page.locator("#chart-table tbody td").nth(3).inner_text() == f"{last:.5f}"


def test_another_market_is_chosen(page: Page, visit: Visit):
    stream, before = visit.stream, len(visit.stream.opened["market"])
    page.locator("#symbol").select_option("BTCUSDT")
    expect(page.locator("#price .quote")).to_have_text("USDT")
    expect(page.locator("#price .badge")).to_contain_text("Stale")
    expect(page.locator("#signal-card")).to_contain_text("No model of BTCUSDT 1h is trained yet")
    page.locator("#symbol").select_option("EURUSD")
    page.get_by_role("radio", name="4h").check(force=True)
    expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile("EURUSD 4h"))
    page.get_by_role("radio", name="1h").check(force=True)
    expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile("EURUSD 1h"))
    assert [asked_of(each) for each in stream.opened["market"][before:]] == [
        ("BTCUSDT", "1h"), ("EURUSD", "1h"), ("EURUSD", "4h"), ("EURUSD", "1h"),
    ]  # fmt: skip


def test_the_switch_kills_and_is_lifted(page: Page, home: DashboardHome):
    switch = page.get_by_role("button", name="Kill switch")
    switch.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Kill switch")
    expect(dialog.get_by_label("Everybody")).to_be_checked()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(switch).to_be_focused()
    page.get_by_role("button", name="Kill Atlas").click()
    expect(dialog.get_by_label("Atlas")).to_be_checked()
    dialog.get_by_role("button", name="Stop them now").click()
    expect(dialog).to_be_visible()  # without a reason nothing is done
    assert home.runtime.switches.all() == []
    page.get_by_label("Reason").fill(ATTACK)
    page.get_by_role("button", name="Stop them now").click()
    banner = page.get_by_role("region", name="What is stopped")
    expect(banner).to_contain_text(f"Atlas is stopped by local since {home.clock.now():%-d}")
    expect(banner).to_contain_text(ATTACK)
    expect(page.locator("#agents-list article").first).to_contain_text("Killed")
    expect(page.locator("#said")).to_have_text("Stopped: Atlas")
    expect(page.get_by_role("button", name="Pause Atlas")).to_have_count(0)
    assert [(each.name, each.why) for each in home.runtime.switches.all()] == [("atlas", ATTACK)]
    page.get_by_role("button", name="Lift: let Atlas trade again").click()
    page.get_by_label("Reason").fill("seen to")
    page.get_by_role("button", name="Lift it").click()
    expect(banner).to_have_count(0)
    expect(switch).to_be_focused()  # what was pressed has gone
    assert home.runtime.switches.all() == [] and page.evaluate("() => window.hurt ?? null") is None


def test_an_agent_is_paused_and_goes_on(page: Page):
    atlas = page.locator("#agents-list article").first
    for move, state in (("Pause", "Paused"), ("Resume", "Running")):
        atlas.get_by_role("button", name=f"{move} Atlas").click()
        page.get_by_role("dialog").get_by_role("button", name=move).click()
        expect(atlas.locator(".badge").first).to_have_text(state)
    expect(page.locator("#agents")).to_be_focused()


def test_an_alert_is_set_and_removed(page: Page):
    rows = page.locator("#alerts tbody tr")
    expect(rows).to_have_count(2)
    page.get_by_label("Price").fill("0.91")
    page.get_by_label("Condition").select_option("below")
    page.get_by_label("Note").fill(ATTACK)
    page.get_by_role("button", name="Set alert").click()
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text(f"EURUSD below 0.91000{ATTACK}")
    expect(page.locator(".answer")).to_contain_text("You are told once when EURUSD crosses to below 0.91")
    page.get_by_role("button", name="Remove the alert EURUSD below 0.91000").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(rows).to_have_count(2)
    assert page.evaluate("() => window.hurt ?? null") is None


def test_nothing_that_was_said_is_read_as_markup():
    for folder in ("dashboard", "charts"):
        for each in (files("orbiquant") / "assets" / folder).iterdir():
            if each.name.endswith(".js") and each.name != "lightweight-charts.js":
                assert not MARKUP.search(each.read_text(encoding="utf-8")), each.name


@pytest.mark.parametrize(("size", "scheme"), [((390, 844), "dark"), ((320, 640), "light")])
def test_it_fits_and_can_be_read(page: Page, size: tuple[int, int], scheme: Any):
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.emulate_media(color_scheme=scheme)
    expect(page.locator("#decisions tbody tr").first).to_be_visible()
    expect(page.locator("#signal-card .facts")).to_be_visible()
    assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
    assert page.locator(".top").bounding_box()["height"] <= (100 if size[0] == 390 else 130)  # type: ignore[index]
    dark = page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 21)"
    assert dark == (scheme == "dark")
    assert page.evaluate(CONTRAST.replace(".oq-chat *", "body *").replace(".u-legend", ".unseen")) == []
    assert page.evaluate(NAMELESS) == [] and page.evaluate(BROKEN) == []
    page.get_by_role("button", name="Kill switch").click()
    box = page.get_by_role("dialog").bounding_box()
    assert box and box["x"] >= 0 and box["x"] + box["width"] <= size[0] and box["height"] <= size[1]
    assert page.evaluate(CONTRAST.replace(".oq-chat *", "dialog *")) == [] and page.evaluate(NAMELESS) == []
    page.keyboard.press("Escape")
    page.locator("#theme").select_option("light" if dark else "dark")
    assert (page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 21)") != dark
    page.locator("#theme").select_option("")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1440, "height": 900})


def test_a_keyboard_reaches_everything_in_order(page: Page):
    expect(page.get_by_role("button", name="Pause Atlas")).to_be_enabled()
    page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
    page.locator(".skip").focus()
    seen: list[str] = []
    for _ in range(60):
        seen.append(page.evaluate(FOCUSED))
        page.keyboard.press("Tab")
    wanted = (
        "Skip to the market",
        "Market",
        "Chat",
        "theme",
        "docs",
        "kill",
        "symbol",
        "frame-1h",
        "Earlier",
        "TradingView",
    )
    wanted += ("Pause Atlas", "Kill Atlas…", "Kill Nova…", "alert-condition", "Set alert", "outcome", "chat-page")
    places = [seen.index(each) if each in seen else -1 for each in wanted]
    assert -1 not in places and places == sorted(places), [*zip(wanted, places, strict=True)]
    assert page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_stream_is_followed_and_taken_up_again(page: Page, visit: Visit, home: DashboardHome, address: str):
    stream = visit.stream
    expect(page.locator("#connection")).to_have_text("Live")
    price = page.locator("#price .last")
    stream.say(bar_told(6, 0.98001, home.at - 1))
    expect(price).to_have_text("0.98001")
    stream.say(bar_told(6, 0.5, home.at - 1))  # what was told before is not told again
    stream.say(bar_told(7, 0.98002, home.at))
    expect(price).to_have_text("0.98002")
    loaded = asked_for(page, "market_data")
    stream.say(bar_told(10, 0.98003, home.at))  # 8 and 9 were of other markets
    expect(price).to_have_text("0.98003")
    page.clock.run_for(1_500)
    assert loaded == []
    stream.say('{"type":"gap","from":11,"to":20}')
    page.clock.run_for(1_500)
    expect(price).to_have_text(f"{BARS['close'].iloc[home.at - 1]:.5f}")  # the store is asked, which has no such bar
    assert loaded and loaded[0].endswith("bars=300")
    stream.refuses = True
    stream.opened["market"][-1].close()
    expect(page.locator("#connection")).to_have_text("Polling every 15 s")
    del loaded[:]
    page.clock.run_for(16_000)
    assert [url for url in loaded if url.endswith("bars=2")]
    stream.refuses = False
    page.clock.run_for(40_000)
    expect(page.locator("#connection")).to_have_text("Live")
    assert (
        "epoch=one&since=20" in stream.opened["market"][-1].url and f"token={TOKEN}" in stream.opened["market"][-1].url
    )
    stream.tell_signal(address)
    expect(page.locator("#signal-card")).to_contain_text("▲ Long with 81 % confidence")
    expect(page.locator("#signal-card")).to_contain_text(ATTACK)


def test_the_chart_is_moved_by_buttons_and_says_what_is_pointed_at(page: Page, home: DashboardHome):
    pointed, chart = page.locator("#pointed"), page.locator("#chart")
    last = f"C {BARS['close'].iloc[home.at - 1]:.5f}"
    expect(pointed).to_contain_text(last)
    chart.hover(position={"x": 60, "y": 200})
    expect(pointed).not_to_contain_text(last)
    expect(pointed).to_have_text(
        re.compile("O .* H .* L .* C .* V .* (Neutral|Accumulation|Manipulation|Distribution)$")
    )
    for place, name in enumerate(("Earlier", "Fewer bars")):
        before = pointed.inner_text()
        page.get_by_role("button", name=name).press("Enter")
        chart.hover(position={"x": 61 + place, "y": 200})
        expect(pointed).not_to_have_text(before)
    page.get_by_role("button", name="Newest bars").press("Enter")
    page.locator("#market-name").hover()
    expect(pointed).to_contain_text(last)


def test_it_asks_gently(page: Page, visit: Visit):
    asked = asked_for(page, visit.address)
    for _ in range(120):
        page.clock.run_for(1_000)
    page.wait_for_timeout(300)
    assert 20 < len(asked) < 2 * 40  # in two minutes; the free plan has 60 a minute


def test_the_service_is_left_alone_while_it_says_so_and_while_nobody_looks(page: Page):
    expect(page.locator("#decisions tbody tr").first).to_be_visible()
    page.route(
        "**/agents",
        lambda route: route.fulfill(
            status=429, json={"error": "RATE_LIMITED", "message": "60 a minute"}, headers={"Retry-After": "90"}
        ),
    )
    page.clock.run_for(16_000)
    expect(page.locator("#connection")).to_contain_text("Too many requests: waits until")
    page.wait_for_timeout(300)  # what was under way
    asked = asked_for(page, "/a")
    page.clock.run_for(60_000)
    assert asked == []
    page.unroute("**/agents")
    page.clock.run_for(35_000)
    expect(page.locator("#connection")).to_have_text("Live")
    assert asked
    page.evaluate(HIDE, True)
    page.wait_for_timeout(500)
    del asked[:]
    page.clock.run_for(300_000)
    assert asked == []
    page.evaluate(HIDE, False)
    page.clock.run_for(1_500)
    assert asked


def test_a_reader_without_scopes_is_told_what_is_needed(browser: Browser, address: str, home: DashboardHome):
    reader = Visit(browser, address, home.key("ana", "free", "read"), told=".trouble")
    page = reader.page
    page.clock.run_for(61_000)
    expect(page.locator("#signal-card")).to_have_text("This needs the plan pro, this one is free")
    expect(page.get_by_role("button", name="Kill switch")).to_be_disabled()
    expect(page.locator("#kill-why")).to_have_text("Needs the scope operate")
    expect(page.locator("#agents-list article").first).to_contain_text("Needs the scope operate")
    expect(page.get_by_role("button", name="Set alert")).to_be_disabled()
    expect(page.locator("#who")).to_have_text("ana, plan free")
    needs = "tells their signals, which need the plan pro."
    expect(page.locator("#decisions-list")).to_have_text(f"What agents decide {needs}")
    expect(page.locator("#positions-list")).to_contain_text(f"What agents hold {needs}")
    expect(page.locator("#positions-list")).not_to_contain_text("Nobody")
    reader.leave("status of 403")


def test_a_key_that_may_not_read_is_told_so(browser: Browser, address: str, home: DashboardHome):
    page = browser.new_page()
    page.set_default_timeout(15_000)
    page.goto(f"{address}/#token={home.key('bea', 'free', 'write')}")
    expect(page.locator("#connection")).to_have_text("This key may not read")
    expect(page.locator("#notices")).to_contain_text(
        "This needs a key with scope 'read', the scopes of this one are: write"
    )
    expect(page.get_by_role("button", name="Sign in with another…")).to_be_visible()
    page.close()


def test_without_a_key_it_asks_for_one(browser: Browser, address: str):
    page = browser.new_page()
    page.set_default_timeout(15_000)
    Stream(page)
    page.goto(address)
    expect(page.locator("#connection")).to_have_text("Not signed in")
    for part in ("#agents-list", "#decisions-list"):
        expect(page.locator(part)).to_have_text("Sign in to see this.")
    page.get_by_role("button", name="Sign in…").click()
    page.get_by_label("Key").fill("nobody's")
    page.get_by_role("dialog").get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).not_to_be_empty()
    page.get_by_label("Key").fill(TOKEN)
    page.get_by_role("dialog").get_by_role("button", name="Sign in").click()
    expect(page.locator("#agents-list h3")).to_have_count(3)
    page.close()


def test_what_nobody_has_answered_yet_is_not_said_to_be_nothing(browser: Browser, address: str):
    page = browser.new_page()
    page.set_default_timeout(15_000)
    Stream(page)
    held: list[Route] = []
    page.route(re.compile(r"/agents$"), lambda route: held.append(route))
    page.goto(f"{address}/#token={TOKEN}")
    expect(page.locator("#alerts-list")).not_to_have_text("Loading…")
    expect(page.locator("#positions-list")).not_to_have_text("Loading…")
    for part in ("#agents-list", "#decisions-list"):
        expect(page.locator(part)).to_have_text("Loading…")
    held[0].continue_()
    expect(page.locator("#agents-list h3")).to_have_count(3)
    expect(page.locator("#decisions-list")).not_to_have_text("Loading…")
    page.close()


def test_nothing_there_and_nobody_there_are_told(browser: Browser, tmp_path: Path):
    with dashboard_home(tmp_path, stored=False) as (_, address):
        page = browser.new_page()
        page.set_default_timeout(15_000)
        Stream(page)
        page.clock.install()
        page.goto(f"{address}/?token={TOKEN}")
        expect(page.locator("#price")).to_contain_text("The store holds no bars yet")
        expect(page.locator("#decisions-list")).to_have_text("No agent has decided anything yet.")
        expect(page.locator("#positions-list")).to_contain_text("Nobody holds anything.")
        assert page.url == f"{address}/"
        page.context.set_offline(True)
        page.clock.run_for(31_000)
        expect(page.locator("#connection")).to_contain_text("Offline since")
        expect(page.locator("#health-told")).to_have_text("Does not answer")
        page.context.set_offline(False)
        page.clock.run_for(31_000)
        expect(page.locator("#connection")).to_contain_text("Polling")
        expect(page.locator("#health-told")).to_have_text("Healthy")
    page.clock.run_for(31_000)
    expect(page.locator("#connection")).to_contain_text("Offline since")
    expect(page.locator("#notices")).to_contain_text("What you see is from before")
    expect(page.locator("#notices code")).to_have_text("orbiquant kill --all --why …")
    page.close()


def test_its_address_sends_no_key():
    assert dashboard_of("http://127.0.0.1:8003/docs?token=a-b_c") == "http://127.0.0.1:8003/#token=a-b_c"
    assert dashboard_of("https://example.org/docs") == "https://example.org/"


def test_the_page_is_whole_small_and_closed(address: str):
    with httpx.Client(base_url=address) as stranger:
        answers = {path: stranger.get(path) for path in DASHBOARD_PARTS}
        assert stranger.get("/dashboard/other.js").status_code in (401, 404)
    assert {answer.status_code for answer in answers.values()} == {200}
    assert {answer.headers["content-security-policy"] for answer in answers.values()} == {POLICY}
    assert sum(len(answer.content) for answer in answers.values()) < MOST_BYTES
    text = answers["/"].text
    assert not re.search(r"<script>|<style|style=|\son\w+=", text) and set(
        re.findall('(?:src|href)="(dashboard/[^"]+)"', text)
    ) <= {path.lstrip("/") for path in DASHBOARD_PARTS}
    here = {
        f"/dashboard/{each.name}"
        for each in (files("orbiquant") / "assets" / "dashboard").iterdir()
        if each.name.endswith(".js")
    }
    assert here <= set(DASHBOARD_PARTS)
    imported = {name for answer in answers.values() for name in re.findall(r'from "\./([\w-]+\.js)"', answer.text)}
    assert {f"/dashboard/{name}" for name in imported} <= set(DASHBOARD_PARTS)
    from orbiquant.app import app

    assert not [path for path in app.openapi()["paths"] if path == "/" or path.startswith("/dashboard")]
