"""The chat's page in a real browser: what the real copilot sends is drawn, and nothing that it says can do harm."""

import re
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from orbiquant.copilot.face_source import face_source
from tests.tools.browser import running_browser
from tests.tools.chat_page import ChatPage, Recorded

pytestmark = pytest.mark.browser
MOST_SCRIPT = 300_000  # bytes
MARKUP = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|DOMParser")
ATTACKS = (
    "<script>window.hurt=1</script>",
    "<img src=x onerror=window.hurt=1>",
    "<svg onload=window.hurt=1><a xlink:href='javascript:window.hurt=1'>x</a></svg>",
    "[x](javascript:window.hurt=1) [y](JaVaScRiPt&colon;window.hurt=1) [z](data:text/html,<script>1</script>)",
    "<javascript:window.hurt=1> <https://ok.example/> [v](vbscript:x) [f](file:///etc/passwd) [b](//host/x)",
    "![i](https://spy.example/x.png) ![j](data:image/svg+xml,<svg onload=window.hurt=1>)",
    "&lt;img src=x onerror=window.hurt=1&gt; &#60;script&#62;window.hurt=1&#60;/script&#62;",
    '[t](https://ok.example/ "\\"onmouseover=window.hurt=1") [r]\n\n[r]: javascript:window.hurt=1\n',
    "`<img src=x onerror=window.hurt=1>`\n\n```html onload=window.hurt=1\n<script>window.hurt=1</script>\n```\n",
    "|<b>a</b>|\n|---|\n|<iframe src=javascript:window.hurt=1>|\n\n<style>*{color:red}</style><base href=//spy.ex>",
    "constructor",
    "__proto__",
    "\u202egnp.exe\u2066 \x00 \ud83d {{constructor.constructor('window.hurt=1')()}} ${window.hurt=1}",
)
HARM = """() => {
  const chat = document.querySelector(".oq-chat"), found = window.hurt ? ["a script ran"] : [];
  const odd = "script,img,svg,iframe,object,embed,link,style,base,meta,video,audio";
  for (const each of chat.querySelectorAll(odd)) found.push(each.outerHTML);
  for (const each of chat.querySelectorAll("*")) {
    found.push(...[...each.attributes].map(({ name }) => name).filter((name) => name.startsWith("on")));
  }
  for (const each of chat.querySelectorAll("a")) {
    const kept = each.rel === "noopener noreferrer nofollow" && each.target === "_blank";
    if (!/^(https?|mailto):/.test(each.href) || !kept) found.push(each.outerHTML);
  }
  return found;
}"""
CONTRAST = """() => {
  const parse = (text) => {
    const [r, g, b, share = 1] = text.match(/[\\d.]+/g).map(Number);
    return text.startsWith("color(") ? [r * 255, g * 255, b * 255, share] : [r, g, b, share];
  };
  const over = (top, under) => top.slice(0, 3).map((each, n) => each * top[3] + under[n] * (1 - top[3]));
  const linear = (each) => (each <= 10 ? each / 3294.6 : ((each / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const colour = (each, name) => parse(getComputedStyle(each)[name]);
  const paper = (each) => (each ? over(colour(each, "backgroundColor"), paper(each.parentElement)) : [255, 255, 255]);
  const skipped = ".oq-hidden,:disabled,[data-state=running],.u-legend";
  const poor = [];
  for (const each of document.querySelectorAll(".oq-chat *")) {
    const own = [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !each.checkVisibility() || each.closest(skipped)) continue;
    const ground = paper(each);
    const [high, low] = [light(over(colour(each, "color"), ground)), light(ground)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) poor.push(`${each.className || each.tagName} ${each.textContent.slice(0, 20)} ${ratio}`);
  }
  return poor;
}"""
AT_END = """() => {
  const log = document.querySelector(".oq-log");
  return log.scrollHeight - log.scrollTop - log.clientHeight < 60;
}"""
AWAY = """async () => {
  const root = document.getElementById("chat");
  root.remove();
  await new Promise((done) => setTimeout(done, 100));
  document.body.append(root);
}"""
WIDE = """() => [document.documentElement, document.querySelector(".oq-log")]
  .map((each) => each.scrollWidth - each.clientWidth)"""


@pytest.fixture(scope="module")
def browser(recorded: Recorded) -> Iterator[Browser]:  # which needs a loop of its own, before the browser has one
    with running_browser() as found:
        yield found


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., ChatPage]]:
    pages: list[ChatPage] = []

    def open_(**options: Any) -> ChatPage:
        pages.append(ChatPage(browser, **options))
        return pages[-1]

    yield open_
    for each in pages:
        asked, errors = each.witness.outside(each.page), each.witness.errors
        each.page.close()
        assert not asked and not errors, "a page asks for nothing and stumbles over nothing"


@pytest.fixture
def chat(opened: Callable[..., ChatPage]) -> ChatPage:
    return opened()


def play(chat: ChatPage, recorded: Recorded) -> None:
    """Draw all recorded turns as they happened."""
    for name, events in recorded.turns.items():
        chat.turn(None if name in ("bought", "not sold", "refused") else name, events)


def pending(recorded: Recorded, **known: Any) -> dict[str, Any]:
    """Return the ticket of the order to buy as it waited."""
    ticket = recorded.ticket("buy")
    return ticket | {"known": ticket["known"] | known}


def deltas(*texts: str) -> list[dict[str, Any]]:
    """Return events that say something."""
    return [{"type": "text-delta", "id": "t", "delta": each} for each in texts]


SPEAKS: list[dict[str, Any]] = [{"type": "start"}, {"type": "text-start", "id": "t"}]
DONE = {"type": "done"}


def offer(chat: ChatPage, ticket: dict[str, Any]) -> None:
    """Draw a ticket in a turn of its own."""
    chat.turn(
        "an order", [{"type": "start"}, {"type": "data-ticket", "id": ticket["id"], "data": ticket}, {"type": "done"}]
    )


def test_the_module_is_small_and_never_reads_text_as_markup():
    assert len(face_source().encode()) <= MOST_SCRIPT and "sourceMappingURL" not in face_source()
    ours = [each for each in (files("orbiquant") / "assets" / "faces").iterdir() if each.name.endswith(".js")]
    assert len(ours) > 8
    for each in ours:
        assert not MARKUP.search(each.read_text(encoding="utf-8")), each.name


def test_the_module_leaves_nothing_in_the_window(opened: Callable[..., ChatPage]):
    chat = opened(mount=False)
    before = set(chat.page.evaluate("() => Object.getOwnPropertyNames(window)"))
    chat.mount()
    assert set(chat.page.evaluate("() => Object.getOwnPropertyNames(window)")) - before == {"face", "leave"}
    assert chat.page.evaluate("() => Object.keys(window.face).sort()") == [
        "default",
        "httpLink",
        "kernelLink",
        "mountChat",
    ]


def test_what_the_copilot_sends_is_drawn(chat: ChatPage, recorded: Recorded):
    play(chat, recorded)
    price = chat.at(".oq-card", has_text="High 24 h").first
    expect(price).to_contain_text(f"{recorded.price:.5f}".rstrip("0"))
    expect(chat.at("td", has_text="RSI").first).to_be_visible()
    rich = chat.at(".oq-answer", has_text="What the table says")
    assert rich.locator("h4").text_content() == "What the table says"
    assert [each.text_content() for each in rich.locator("tbody td.oq-number").all()] == ["12", "+1.40", "9", "−0.35"]
    assert (
        rich.locator("pre").text_content() == 'prices["close"].rolling(20).mean()'
        and rich.locator("ol li").count() == 2
    )
    chart = chat.at(".oq-plot")
    chart.scroll_into_view_if_needed()
    expect(chart.locator("canvas")).to_have_count(1)
    told = chart.get_attribute("aria-label") or ""
    assert told.startswith("prices: close.") and "400 points" in told and f"last {recorded.price:.5g}"[:9] in told
    states = [each.get_attribute("data-state") for each in chat.at(".oq-ticket").all()]
    assert states == ["executed", "denied", "void", "refused"] and chat.at(".oq-approve").count() == 0
    rich.locator(".oq-code button").click()
    chat.at(".oq-composer").press("Control+v")
    assert chat.at(".oq-composer").input_value() == 'prices["close"].rolling(20).mean()'
    details = chat.at("details.oq-tool", has_text="get_price").first
    details.locator("summary").click()
    expect(details).to_contain_text('"symbol": "EURUSD"')


def test_a_history_looks_like_the_turns_it_is_of(chat: ChatPage, recorded: Recorded):
    play(chat, recorded)
    words = "() => [...document.querySelectorAll('.oq-text')].map(each => each.textContent)"
    live = chat.page.evaluate(words)
    chat.reset(recorded.messages, recorded.tickets)
    assert chat.page.evaluate(words) == live and len(live) > 6
    states = [each.get_attribute("data-state") for each in chat.at(".oq-ticket").all()]
    assert states == ["executed", "denied", "void", "refused"]
    expect(chat.at(".oq-ticket[data-state=executed]")).to_contain_text("6,000 units")
    chat.at(".oq-plot").scroll_into_view_if_needed()
    expect(chat.at(".oq-plot canvas")).to_have_count(1)


def hostile_turn(attack: str, recorded: Recorded) -> list[dict[str, Any]]:
    """Return a turn whose every text is an attack."""
    known = {name: attack for name, each in recorded.ticket("buy")["known"].items() if isinstance(each, str)}
    known |= {"override_reasons": [attack], "warnings": [attack], "amd_phase": attack, "signal": attack}
    ticket = pending(recorded, **known) | {"reason": attack, "id": attack}
    outcome = {"success": True, "message": attack, "ticket": attack, "executed_price": None, "slippage": None}
    done = ticket | {"id": attack + "2", "state": "executed", "outcome": outcome, "override": True}
    signal = {
        "symbol": attack,
        "action": attack,
        "confidence": 0.7,
        "entry_price": 1.0,
        "reasoning": [attack],
        "amd_phase": attack,
    }
    figure = {
        "data": [
            {"type": "bar", "name": attack, "x": [attack, "b"], "y": [1, 2], "marker": {"color": attack}},
            {"type": attack},
        ],
        "layout": {"title": {"text": attack}, "xaxis": {"title": {"text": attack}}},
    }
    events: list[dict[str, Any]] = [{"type": "start"}]
    for place, output in enumerate((signal, {"error": attack, "message": attack}, {attack: attack})):
        call = {"toolCallId": f"{attack}{place}"}
        events += [
            {"type": "tool-input-start", "toolName": attack, **call},
            {"type": "tool-input-available", "input": {attack: attack}, **call},
        ]
        events.append({"type": "tool-output-available", "output": output, **call})
    events += [
        {"type": "data-chart", "data": figure},
        *({"type": "data-ticket", "id": each["id"], "data": each} for each in (ticket, done)),
    ]
    events += [
        {"type": "text-start", "id": attack},
        {"type": "text-delta", "id": attack, "delta": attack},
        {"type": "text-end", "id": attack},
    ]
    return [*events, {"type": "error", "errorText": attack}, {"type": "done"}]


def test_nothing_that_is_said_can_do_harm(chat: ChatPage, recorded: Recorded):
    for attack in ATTACKS:
        told = dict.fromkeys(("provider", "model", "plan", "why", "conversation"), attack)
        chat.reset(state=told | {"frames": [attack]})
        chat.turn(attack, hostile_turn(attack, recorded))
        chat.page.evaluate("() => document.querySelectorAll('details').forEach(each => (each.open = true))")
        chat.tell("error", text=attack, said=attack)
        assert chat.page.evaluate(HARM) == [], attack
        chat.at(".oq-plot").scroll_into_view_if_needed()
        chat.at(".oq-plot canvas").wait_for()
    chat.speak("[one](https://a.example/x?y=1) [two](http://b.example) [three](mailto:c@d.example) <https://e.example>")
    assert chat.at(".oq-text a").count() >= 4 and chat.page.evaluate(HARM) == []


BOMBS = {
    "brackets": "[" * 100_000,
    "quotes": ">" * 100_000,
    "stars": "*a " * 33_000,
    "stars without a space": "*" * 100_000 + "a",
    "bars": "|" * 100_000,
    "a table": "|a" * 500 + "|\n" + "|-" * 500 + "|\n" + ("|1" * 500 + "|\n") * 95,
    "a deep list": "".join("  " * depth + "- x\n" for depth in range(440)),
    "links": "[a](" * 25_000,
    "ticks": "".join("`" * count + " " for count in range(1, 440)),
    "entities": "&amp" * 25_000,
    "one word": "x" * 100_000,
    "lines": "a\n" * 50_000,
    "references": "".join(f"[{n}]: <x>\n[{n}]\n\n" for n in range(6_000)),
    "tildes": "~~a" * 33_000,
    "html": "<a " * 33_000,
    "nested emphasis": "**a *b " * 14_000,
}


def test_no_text_freezes_the_page(chat: ChatPage):
    for name, whole in BOMBS.items():
        for text in (whole, whole[:29_000]):
            chat.reset()
            began, half = time.monotonic(), len(text) // 2 + 1
            run = chat.turn("?", SPEAKS)
            for place, at in enumerate(range(0, len(text), half)):
                chat.tell("events", run=run, first=3 + place, events=deltas(text[at : at + half]))
                chat.page.wait_for_timeout(75)  # it is drawn in between
            chat.tell("events", run=run, first=5, events=[DONE])
            letters = chat.page.evaluate("() => document.querySelector('.oq-text').textContent.length")
            took_s = time.monotonic() - began
            assert took_s < 5 and letters > 0, (name, len(text), took_s)


def test_keys_stay_in_the_chat_and_are_enough_for_it(chat: ChatPage, recorded: Recorded):
    page, box = chat.page, chat.at(".oq-composer")
    page.evaluate(
        "() => { window.heard = []; for (const name of ['keydown', 'keyup', 'keypress', 'paste', 'contextmenu'])"
        " document.addEventListener(name, each => window.heard.push(each.key ?? name)); }"
    )
    box.focus()
    page.keyboard.type("dd")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("ab")
    page.keyboard.press("Enter")
    assert chat.sent("say") == [{"kind": "say", "text": "dd\nab"}] and box.input_value() == ""
    page.keyboard.press("ArrowUp")
    assert box.input_value() == "dd\nab"
    box.evaluate(
        "each => each.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true}))"
    )
    assert len(chat.sent("say")) == 1, "Enter that ends a composition sends nothing"
    offer(chat, pending(recorded, needs_override=False, override_reasons=[]))
    box.fill("")
    for _ in range(12):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("() => document.activeElement.className") == "oq-approve":
            break
    page.keyboard.type("xdd")
    page.keyboard.press("Enter")
    assert len(chat.sent("decide")) == 1
    assert page.evaluate("() => document.activeElement.closest('.oq-ticket') !== null"), "focus is not lost"
    assert page.evaluate("() => window.heard") == [], "no key reached the notebook"
    assert chat.at(".oq-chat").get_attribute("data-lm-suppress-shortcuts") == "true"


def test_stop_is_always_in_reach(chat: ChatPage):
    run = chat.turn("?", [{"type": "start"}])
    expect(chat.at(".oq-send")).to_be_hidden()
    chat.at(".oq-stop").click()
    expect(chat.at(".oq-stop")).to_be_disabled()
    chat.tell("events", run=run, first=2, events=[{"type": "abort", "reason": "stop"}, {"type": "done"}])
    expect(chat.at(".oq-stopped")).to_have_text("Stopped")
    expect(chat.at(".oq-send")).to_be_visible()
    chat.turn("?", [{"type": "start"}])
    chat.at(".oq-composer").focus()
    chat.page.keyboard.press("Escape")
    assert len(chat.sent("stop")) == 1
    chat.page.keyboard.press("Escape")
    assert len(chat.sent("stop")) == 2
    chat.at(".oq-composer").fill("next")
    chat.page.keyboard.press("Enter")
    assert chat.sent("say") == [] and chat.at(".oq-composer").input_value() == "next", "one turn at a time"


def test_what_is_too_long_is_refused_and_said(chat: ChatPage):
    box = chat.at(".oq-composer")
    box.evaluate(
        "each => { const data = new DataTransfer(); data.setData('text/plain', 'x'.repeat(100_000));"
        " each.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true})); }"
    )
    assert "100,000" in chat.at(".oq-composer-told").inner_text() and box.input_value() == ""
    box.fill("x" * 8_001)
    assert "8,001 of 8,000" in chat.at(".oq-composer-told").inner_text()
    box.press("Enter")
    assert chat.sent("say") == [] and chat.at(".oq-send").is_disabled()
    box.fill("😀" * 8_000)  # as the copilot counts
    box.press("Enter")
    assert len(chat.sent("say")) == 1


def test_an_order_is_decided_on_once(chat: ChatPage, recorded: Recorded):
    ticket = pending(recorded, needs_override=False, override_reasons=[])
    offer(chat, ticket)
    approve = chat.at(".oq-approve")
    approve.evaluate("each => { for (let n = 0; n < 5; n += 1) each.click(); }")
    assert chat.sent("decide") == [{"kind": "decide", "decisions": {ticket["id"]: {"approved": True}}}]
    assert all(each.is_disabled() for each in chat.at(".oq-decide button").all())
    chat.tell("error", text="this conversation is answering already")
    expect(chat.at(".oq-ticket .oq-error-line")).to_have_text("this conversation is answering already")
    chat.at(".oq-deny").dblclick()
    assert chat.sent("decide")[1:] == [{"kind": "decide", "decisions": {ticket["id"]: {"approved": False}}}]


def test_an_override_is_a_control_of_its_own(chat: ChatPage, recorded: Recorded):
    ticket = pending(recorded, needs_override=False, override_reasons=[])
    offer(chat, ticket)
    chat.at(".oq-approve").click()
    chat.tell("error", text=recorded.override_said)
    expect(chat.at(".oq-override")).to_contain_text("no signal speaks for it")
    place = chat.at(".oq-override-place")
    assert place.is_disabled() and len(chat.sent("decide")) == 1
    place.evaluate("each => { each.disabled = false; each.click(); }")
    assert len(chat.sent("decide")) == 1, "not without the box"
    chat.at(".oq-override input").check()
    place.click()
    assert chat.sent("decide")[-1]["decisions"] == {ticket["id"]: {"approved": True, "override": True}}
    chat.turn(None, recorded.turns["bought"])
    expect(chat.at(".oq-ticket")).to_have_attribute("data-state", "executed")
    assert chat.at(".oq-ticket").count() == 1 and chat.at(".oq-approve").count() == 0
    expect(chat.at(".oq-ticket")).to_contain_text("at the open of the next bar")


@pytest.mark.parametrize(
    ("language", "claim", "unnamed"),
    [
        ("en", "Proposed by another program, which calls itself “the copilot”.", "which gives no name"),
        ("es", "Propuesta por otro programa, que se llama a sí mismo «the copilot».", "que no dice su nombre"),
    ],
)
def test_an_order_of_another_program_says_so(
    chat: ChatPage, recorded: Recorded, language: str, claim: str, unnamed: str
):
    foreign = pending(recorded, program="the copilot") | {"source": "mcp", "proposed_at": "2026-01-05T09:30:12Z"}
    own = pending(recorded) | {"id": "own"}
    nameless = pending(recorded, program="") | {"id": "nameless", "source": "mcp"}
    chat.reset(state={"language": language}, tickets=[foreign, own, nameless])
    tickets = chat.at(".oq-ticket")
    expect(tickets.nth(0).locator(".oq-claim")).to_contain_text(claim)
    expect(tickets.nth(0)).to_contain_text("2026-01-05 09:30 UTC")
    assert tickets.nth(1).locator(".oq-claim").count() == 0
    expect(tickets.nth(2).locator(".oq-claim")).to_contain_text(unnamed)


def test_events_are_drawn_once_and_in_order(chat: ChatPage):
    told = [
        {"type": "start"},
        {"type": "text-start", "id": "t"},
        *({"type": "text-delta", "id": "t", "delta": f"{n} "} for n in range(6)),
    ]
    chat.tell("begin", run="r", said="?")
    chat.tell("begin", run="r", said="?")
    chat.tell("events", run="r", first=1, events=told[:4])
    chat.tell("events", run="r", first=2, events=told[1:6])
    chat.tell("events", run="r", first=1, events=told[:2])
    expect(chat.at(".oq-text")).to_have_text("0 1 2 3 ")
    hellos = len(chat.sent("hello"))
    chat.tell("events", run="r", first=8, events=told[7:])
    assert len(chat.sent("hello")) == hellos + 1, "a gap is asked about"
    chat.reset(run="r", said="?", events=told)
    chat.tell(
        "events",
        run="r",
        first=7,
        events=[*told[6:], {"type": "text-delta", "id": "t", "delta": "6"}, {"type": "done"}],
    )
    expect(chat.at(".oq-text")).to_have_text("0 1 2 3 4 5 6")
    assert chat.at(".oq-question").count() == 1
    chat.tell("events", run="r", first=9, events=[{"type": "done"}])
    chat.tell("events", run="other", first=1, events=told)
    assert len(chat.sent("hello")) == hellos + 2 and chat.at(".oq-answer").count() == 1


def test_a_page_that_comes_in_the_middle_of_a_turn_sees_it_in_order(chat: ChatPage, recorded: Recorded):
    events = [each for each in recorded.turns["buy"] if each["type"] not in ("finish-step", "finish", "done")]
    chat.reset(recorded.messages[:2], [recorded.ticket("buy")], run="r", said="buy some", events=events)
    last = chat.at(".oq-messages > article").all()[-2:]
    assert [each.get_attribute("class") for each in last] == ["oq-question", "oq-answer oq-live"]
    expect(last[1].locator(".oq-ticket .oq-deny")).to_be_enabled()
    assert chat.at(".oq-ticket").count() == 1


def test_a_page_that_leaves_takes_all_along(chat: ChatPage, recorded: Recorded):
    play(chat, recorded)
    assert chat.page.evaluate("() => window.listeners()") == 1
    first = "() => { window.first = window.leave; }"
    chat.page.evaluate(first)
    chat.mount()
    chat.reset(recorded.messages, recorded.tickets)
    assert chat.at(".oq-chat").count() == 2 and chat.at(".oq-ticket").count() == 8
    chat.page.evaluate("() => { window.leave(); window.first(); }")
    assert (
        chat.page.evaluate("() => window.listeners()") == 0
        and chat.page.evaluate("() => document.getElementById('chat').childElementCount") == 0
    )
    chat.reset(recorded.messages)
    chat.mount()
    chat.reset(recorded.messages, recorded.tickets)
    assert chat.at(".oq-ticket").count() == 4


def test_without_a_kernel_the_saved_conversation_is_there(opened: Callable[..., ChatPage], recorded: Recorded):
    chat = opened(mount=False)
    chat.page.clock.install()
    saved = {"state": {"language": "es", "plan": "pro"}, "messages": recorded.messages, "tickets": [pending(recorded)]}
    chat.page.evaluate("saved => { window.snapshot = saved; }", saved)
    chat.mount()
    chat.page.clock.run_for(3_100)
    expect(chat.at(".oq-notice")).to_contain_text("El kernel no responde")
    assert chat.at(".oq-answer").count() > 5 and all(
        each.is_disabled() for each in chat.at(".oq-decide button, .oq-override input").all()
    )
    assert chat.at(".oq-decide button").count() == 2
    chat.reset(tickets=[pending(recorded)])
    expect(chat.at(".oq-deny")).to_be_enabled()
    expect(chat.at(".oq-notice")).to_be_empty()
    chat.tell("state", state={"disconnected": True})
    expect(chat.at(".oq-connection")).to_have_text("Not connected")
    expect(chat.at(".oq-deny")).to_be_disabled()


FORMS: dict[str, dict[str, Any]] = {  # as plotly writes them
    "candles": {"type": "candlestick", "x": ["2024-01-01", "2024-01-02"], "open": [1, 2], "high": [3, 3], "low": [1, 1],
                "close": [2, 1]},
    "words": {"type": "bar", "x": ["a", "b", "a"], "y": [1, -2, None]},
    "counts": {"type": "histogram", "x": [1, 2, 2, 3, 3, 3]},
    "marks": {"type": "scatter", "mode": "markers", "x": [3, 1, 1], "y": [1, 2, 3]},
    "packed": {"type": "scatter", "y": {"dtype": "f8", "bdata": "AAAAAAAA8D8AAAAAAAAAQA=="}},
    "one point": {"type": "scatter", "x": ["2024-01-01"], "y": [0]},
    "below zero": {"type": "scatter", "x": [1, 2, 3], "y": [0, -3, 10]},
    "huge": {"type": "scatter", "x": [1, 2, 3], "y": [1e300, -1e300, 0]},
}  # fmt: skip


def test_charts_of_every_form_are_drawn_and_told(chat: ChatPage):
    for name, trace in FORMS.items():
        layout = {"title": {"text": f"<b>{name}</b><br>of &lt;it&gt;"}, "yaxis": {"type": "log"}}
        chat.turn("?", [{"type": "data-chart", "data": {"data": [trace, {"type": "heatmap"}], "layout": layout}}, DONE])
        chart = chat.at(".oq-chart").last
        chart.scroll_into_view_if_needed()
        expect(chart.locator("canvas")).to_have_count(1)
        assert (chart.locator("figcaption").text_content() or "") == f"{name} of <it>"
        assert "lowest" in (chart.locator("[role=img]").get_attribute("aria-label") or "")
        expect(chart).to_contain_text("Not drawn here: heatmap (1).")
    chat.turn("?", [{"type": "data-chart", "data": {"data": "nothing"}}, DONE])
    expect(chat.at(".oq-chart").last).to_contain_text("There is nothing to draw.")


def test_a_ticket_shows_every_digit(chat: ChatPage, recorded: Recorded):
    levels = {"price": 1.234e-7, "stop_loss": 1.1e-7, "take_profit": 2e-7}
    offer(chat, pending(recorded, size=0.12345, **levels))
    expect(chat.at(".oq-ticket h3")).to_contain_text("0.12345 lots")
    told = chat.at(".oq-levels dd").all_text_contents()
    assert told[:3] == ["0.0000001234", "0.0000001100", "0.0000002000"]


def test_what_is_refused_comes_back_to_the_composer(chat: ChatPage):
    box = chat.at(".oq-composer")
    box.fill("price of gold")
    box.press("Enter")
    expect(chat.at(".oq-waiting")).to_contain_text("price of gold")
    chat.tell("error", text="this conversation is answering already", said="price of gold")
    assert box.input_value() == "price of gold" and chat.at(".oq-question").count() == 0
    expect(chat.at(".oq-composer-told")).to_have_text("this conversation is answering already")
    box.press("Enter")
    chat.turn(
        "price of gold", [{"type": "start"}, {"type": "error", "errorText": "The model is away."}, {"type": "done"}]
    )
    assert chat.at(".oq-question").count() == 1, "what was sent is not drawn twice"
    chat.at(".oq-error button").click()
    assert box.input_value() == "price of gold"


def test_two_hundred_messages_stay_fluid_and_the_reader_stays_where_they_are(chat: ChatPage, recorded: Recorded):
    began = time.monotonic()
    chat.reset([*recorded.messages] * 20, recorded.tickets)
    chat.page.wait_for_timeout(50)
    assert len(recorded.messages) * 20 >= 200 and time.monotonic() - began < 6
    chat.page.wait_for_function(AT_END)
    chat.at(".oq-log").evaluate("each => { each.scrollTop = 200; }")
    expect(chat.at(".oq-latest")).to_be_visible()
    chat.speak("something new")
    assert chat.at(".oq-log").evaluate("each => each.scrollTop") < 900
    chat.reset([*recorded.messages] * 20, recorded.tickets)
    assert 0 < chat.at(".oq-log").evaluate("each => each.scrollTop") < 900, "told anew, it stays where it was"
    chat.at(".oq-latest").click()
    chat.page.wait_for_function(AT_END)
    expect(chat.at(".oq-latest")).to_be_hidden()
    chat.page.evaluate(AWAY)
    chat.page.wait_for_function(AT_END)  # JupyterLab takes a cell off the page and puts it back


def test_an_answer_that_grows_keeps_its_reader_at_the_end(chat: ChatPage, recorded: Recorded):
    chat.reset(recorded.messages, recorded.tickets)
    run = chat.turn("?", SPEAKS)
    chat.page.evaluate(
        """async ([run, text]) => {
          for (let number = 3; number < 43; number += 1) {
            window.tell({ kind: "events", run, first: number, events: [{ type: "text-delta", id: "t", delta: text }] });
            await new Promise((done) => setTimeout(done, 10));
          }
        }""",
        [run, "word " * 60 + "\n\n"],
    )
    chat.page.wait_for_function(AT_END)
    expect(chat.at(".oq-latest")).to_be_hidden()
    chat.tell("events", run=run, first=43, events=[DONE])
    details = chat.at("details.oq-tool").last
    details.scroll_into_view_if_needed()
    details.locator("summary").click()
    chat.page.wait_for_timeout(100)
    expect(details.locator("summary")).to_be_in_viewport()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everything_can_be_read_on_a_phone_and_in_the_dark(
    opened: Callable[..., ChatPage], recorded: Recorded, theme: str
):
    chat = opened(width=360, theme=theme)
    play(chat, recorded)
    offer(chat, pending(recorded) | {"id": "again"})
    chat.turn("?", [{"type": "start"}, {"type": "abort"}, {"type": "error", "errorText": "w" * 300}, {"type": "done"}])
    chat.page.evaluate("() => document.querySelectorAll('details').forEach(each => (each.open = true))")
    assert chat.page.evaluate(WIDE) == [0, 0], "nothing scrolls sideways"
    assert chat.page.evaluate(CONTRAST) == []


def test_a_narrow_cell_of_a_wide_window_is_drawn_for_its_own_width(chat: ChatPage, recorded: Recorded):
    look = "each => [getComputedStyle(each).display, document.querySelector('.oq-log').clientWidth < 400]"
    assert chat.at(".oq-hint").evaluate(look) == ["block", False]
    chat.page.evaluate("() => { document.getElementById('chat').style.width = '320px'; }")
    play(chat, recorded)
    offer(chat, pending(recorded, program="x" * 60) | {"id": "again", "source": "mcp"})
    assert chat.at(".oq-hint").evaluate(look) == ["none", True]
    assert chat.page.evaluate(WIDE)[1] == 0, "nothing scrolls sideways"
    inside = """each => {
      const { right } = each.getBoundingClientRect();
      return [...each.children].every((part) => part.getBoundingClientRect().right <= right);
    }"""
    assert all(each.evaluate(inside) for each in chat.at(".oq-chat, .oq-head, .oq-row, .oq-ticket, .oq-decide").all())


def test_a_listener_hears_whole_sentences(chat: ChatPage):
    region = chat.at(".oq-chat > [aria-live=polite]")
    assert chat.at("[role=log]").get_attribute("aria-live") == "off"
    run = chat.turn(
        "?",
        [
            {"type": "start"},
            {"type": "text-start", "id": "t"},
            {"type": "text-delta", "id": "t", "delta": "The price is **1."},
        ],
    )
    assert region.inner_text() == ""
    chat.tell("events", run=run, first=4, events=[{"type": "text-delta", "id": "t", "delta": "08** now. It ro"}])
    assert region.inner_text().strip() == "The price is 1.08 now."
    chat.tell("events", run=run, first=5, events=[{"type": "text-delta", "id": "t", "delta": "se"}, {"type": "done"}])
    assert "It rose" in region.inner_text()


def test_the_page_speaks_spanish(chat: ChatPage, recorded: Recorded):
    chat.reset(state={"language": "es"}, tickets=[pending(recorded)])
    expect(chat.at(".oq-send")).to_have_text("Enviar")
    expect(chat.at(".oq-ticket")).to_contain_text("Esta orden requiere un override")
    expect(chat.at(".oq-ticket")).to_contain_text("1,07992")
    assert chat.at(".oq-chat").get_attribute("lang") == "es"
