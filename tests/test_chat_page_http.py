"""The chat's page on the real service: a turn survives a cut line, an order is decided on, and refusals are told."""

from collections.abc import Iterator
from itertools import count as numbers
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from orbiquant.copilot.face_source import face_source, face_style
from orbiquant.copilot.tickets import TicketBook, TicketState
from orbiquant.core import configure_logging
from orbiquant.desk.study import store_sample
from orbiquant.runtime import Runtime, using
from orbiquant.service.keys import create_api_key
from tests.tools.browser import Witness, running_browser
from tests.tools.slow_chat import ORDER, count, slow_runtime

pytestmark = pytest.mark.browser
HTML = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><style>{style}</style><div id="chat"></div>'
MOUNT = """async ([source, conversation, key]) => {
  const face = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  window.key = key;
  const link = face.httpLink({ conversation, headers: () => ({ "X-API-Key": window.key }) });
  window.leave = face.mountChat(document.getElementById("chat"), link);
}"""
CUT = """() => {
  const real = window.fetch;
  window.asked = [];
  window.fetch = async (address, options) => {
    const response = await real(address, options);
    window.asked.push([address, response.status, options.headers["Last-Event-ID"] ?? ""]);
    if (options.method !== "POST") return response;
    let chunks = 0;
    const cut = new TransformStream({
      transform(chunk, control) {
        if ((chunks += 1) > 8) control.error(new TypeError("cut"));
        else control.enqueue(chunk);
      },
    });
    return new Response(response.body.pipeThrough(cut), response);
  };
}"""
INJECTED = """() => {
  const script = document.createElement("script");
  script.textContent = "window.hurt = 1";
  document.body.append(script);
}"""
TOO_MANY = {"error": "RATE_LIMITED", "message": "60 a minute", "details": {"retry_after_s": 3}}
names = numbers()


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    configure_logging("ERROR")
    made = slow_runtime(tmp_path_factory.mktemp("page"))
    with using(made):
        store_sample()
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as found:
        yield found


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    page = browser.new_page()
    page.set_default_timeout(20_000)
    page.route(
        "**/the-chat", lambda route: route.fulfill(body=HTML.format(style=face_style()), content_type="text/html")
    )
    page.goto(f"{address}/the-chat")
    yield page
    page.close()


def key_of(runtime: Runtime, *scopes: str) -> str:
    """Return a key that may do some things."""
    return create_api_key(runtime.engine, "test", "ana", "pro", scopes, runtime.clock)


def mount(page: Page, key: str, conversation: str | None = None) -> str:
    """Draw the chat of a conversation and return its name."""
    name = conversation or f"talk-{next(names)}"
    page.evaluate(MOUNT, [face_source(), name, key])
    expect(page.locator(".oq-connection")).not_to_have_text("Connecting…", timeout=10_000)
    return name


def ask(page: Page, message: str) -> None:
    """Say something."""
    page.locator(".oq-composer").fill(message)
    page.locator(".oq-composer").press("Enter")


def test_a_turn_is_streamed_and_survives_a_cut_line(page: Page, runtime: Runtime):
    mount(page, key_of(runtime, "read", "write"))
    page.evaluate(CUT)
    ask(page, count(60, 10))
    expect(page.locator(".oq-text")).to_contain_text("w1 w2 w3", timeout=20_000)
    expect(page.locator(".oq-stop")).to_be_hidden(timeout=20_000)
    assert page.locator(".oq-text").inner_text().split() == [f"w{n}" for n in range(1, 61)], (
        "no word twice, none missing"
    )
    resumed = [each for each in page.evaluate("() => window.asked") if each[0].endswith("/stream")]
    assert resumed and all(status == 200 and seen for _, status, seen in resumed)
    assert page.locator(".oq-question").count() == 1


def test_a_page_that_is_loaded_again_goes_on_with_the_turn(page: Page, runtime: Runtime, address: str):
    key = key_of(runtime, "read", "write")
    name = mount(page, key)
    ask(page, count(150, 20))
    expect(page.locator(".oq-text")).to_contain_text("w5")
    page.goto(f"{address}/the-chat")
    mount(page, key, name)
    expect(page.locator(".oq-stop")).to_be_visible()
    expect(page.locator(".oq-question")).to_have_count(1)
    page.locator(".oq-stop").click()
    expect(page.locator(".oq-stopped")).to_be_visible()
    expect(page.locator(".oq-text")).to_contain_text("w5")  # what was said before is drawn a frame later
    words = page.locator(".oq-text").inner_text().split()
    assert words == [f"w{n}" for n in range(1, len(words) + 1)] and 5 <= len(words) < 150


def test_an_order_is_overridden_placed_and_still_there_after_a_reload(page: Page, runtime: Runtime, address: str):
    key = key_of(runtime, "read", "write", "trade")
    name = mount(page, key)
    ask(page, ORDER)
    ticket = page.locator(".oq-ticket")
    expect(ticket).to_have_attribute("data-state", "pending")
    ticket.locator("input").check()
    ticket.locator(".oq-approve").click()
    expect(ticket).not_to_have_attribute("data-state", "pending")
    expect(ticket.locator(".oq-outcome")).to_be_visible()
    expect(page.locator(".oq-stop")).to_be_hidden()
    state = ticket.get_attribute("data-state")
    page.goto(f"{address}/the-chat")
    mount(page, key, name)
    expect(page.locator(".oq-ticket")).to_have_attribute("data-state", state)
    assert page.locator(".oq-approve").count() == 0


def test_an_order_that_takes_an_override_by_now_gets_its_control(page: Page, runtime: Runtime, address: str):
    key = key_of(runtime, "read", "write", "trade")
    name = mount(page, key)
    ask(page, ORDER)
    expect(page.locator(".oq-ticket .oq-override")).to_be_visible()
    expect(page.locator(".oq-stop")).to_be_hidden()
    book = TicketBook(runtime.engine, runtime.clock)
    ticket = book.waiting("ana", name)[0]
    spoken = ticket.known | {"needs_override": False, "override_reasons": []}  # a signal that has gone since
    assert book.move(ticket, TicketState.PENDING, TicketState.PENDING, known=spoken)
    page.goto(f"{address}/the-chat")
    mount(page, key, name)
    card = page.locator(".oq-ticket")
    expect(card.locator(".oq-override")).to_have_count(0)
    card.locator(".oq-approve").click()
    expect(card.locator(".oq-override li")).to_have_text(ticket.known["override_reasons"])
    expect(card.locator(".oq-error-line")).to_have_count(0)
    card.locator("input").check()
    card.locator(".oq-override-place").click()
    expect(card.locator(".oq-outcome")).to_contain_text("stale")  # the sample is of another year: the engine says no
    assert book.find("ana", name, ticket.id).reason.startswith("override: ")


@pytest.mark.parametrize("words", [20, 200])  # it has ended, or is on its way
def test_a_run_that_the_service_does_not_know_is_asked_for_anew(page: Page, runtime: Runtime, words: int):
    name = mount(page, key_of(runtime, "read", "write"))
    page.evaluate(CUT)
    page.route(
        f"**/{name}/stream",
        lambda route: route.continue_(headers=route.request.headers | {"last-event-id": f"{uuid4().hex}-4"}),
        times=1,
    )
    ask(page, count(words, 5))
    expect(page.locator(".oq-text")).to_contain_text(f"w{words}")
    expect(page.locator(".oq-stop")).to_be_hidden()
    resumed = [each[1] for each in page.evaluate("() => window.asked") if each[0].endswith("/stream")]
    assert resumed[0] == 410 and set(resumed[1:]) <= {200, 204}  # 204: it has ended by then
    assert page.locator(".oq-text").inner_text().split() == [f"w{n}" for n in range(1, words + 1)]
    expect(page.locator(".oq-notice")).to_be_empty()


def test_refusals_are_told_in_words(page: Page, runtime: Runtime):
    mount(page, "no-key-of-anybody")
    expect(page.locator(".oq-notice")).to_contain_text("not signed in")
    page.evaluate("() => window.leave()")
    mount(page, key_of(runtime, "read", "write", "trade"))
    ask(page, ORDER)
    page.locator(".oq-ticket input").check()
    page.evaluate("key => { window.key = key; }", key_of(runtime, "read", "write"))
    page.locator(".oq-ticket .oq-approve").click()
    expect(page.locator(".oq-ticket .oq-error-line")).to_contain_text("may not do that. This needs a key")
    expect(page.locator(".oq-deny")).to_be_enabled()
    page.route("**/api/v1/chat", lambda route: route.fulfill(status=429, json=TOO_MANY))
    ask(page, "hello")
    expect(page.locator(".oq-composer-told")).to_contain_text("Too many requests: try again in a moment. 60 a minute")
    assert page.locator(".oq-composer").input_value() == "hello"
    page.evaluate("() => window.leave()")
    page.route("**/api/v1/chat/*", lambda route: None)  # a service that is slow, and no kernel anywhere
    mount(page, key_of(runtime, "read"))
    expect(page.locator(".oq-notice")).to_contain_text("The service does not answer: it is slow, or cannot be reached")


def test_the_service_has_the_chat_as_a_page(browser: Browser, runtime: Runtime, address: str):
    key, page = key_of(runtime, "read", "write"), browser.new_page()
    seen = Witness(page)
    page.goto(f"{address}/chat#token={key}&conversation=own-page")
    expect(page.locator(".oq-connection")).to_have_text("Connected")
    assert page.url == f"{address}/chat" and page.evaluate("() => Object.keys(localStorage)") == []
    ask(page, count(5, 1))
    expect(page.locator(".oq-text")).to_have_text("w1 w2 w3 w4 w5")
    page.reload()
    expect(page.locator(".oq-text")).to_have_text("w1 w2 w3 w4 w5")
    box = page.locator(".oq-chat").bounding_box()
    assert box and box["y"] + box["height"] <= page.viewport_size["height"]
    assert not [each for each in seen.errors if "ERR_ABORTED" not in each]  # what was read as the page was loaded again
    assert not [url for url in seen.asked if key in url or not url.startswith((address, "data:"))]
    page.evaluate(INJECTED)
    assert page.evaluate("() => window.hurt ?? null") is None and "Content Security Policy" in seen.errors[-1]
    page.evaluate("() => sessionStorage.clear()")
    page.reload()
    expect(page.locator(".oq-notice")).to_contain_text("not signed in")
    page.close()


def test_the_page_is_no_part_of_the_interface_and_lets_nobody_frame_it(address: str):
    told = httpx.get(f"{address}/chat")
    policy = told.headers["content-security-policy"].split("; ")
    assert told.status_code == 200 and {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= {
        *policy
    }
    assert "unsafe" not in told.headers["content-security-policy"] and "<script>" not in told.text
    assert httpx.get(f"{address}/chat/other.js").status_code in (401, 404)
    from orbiquant.app import app

    assert not [path for path in app.openapi()["paths"] if path.startswith("/chat")]
