"""The chat in a real kernel: comm messages as a page sends them, cells beside it, forgeries, kills, what is kept."""

import asyncio
import json
import os
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from sqlalchemy import create_engine, text

from orbiquant.copilot.assembly import copilot_of
from orbiquant.copilot.run_book import ask_stop, find_kept_run
from orbiquant.copilot.runs import end_runs, runs_of
from orbiquant.domain import local_caller
from orbiquant.runtime import Runtime
from tests.tools.chat_words import DRAW
from tests.tools.kernel import ROOT, START, Kernel, running_kernel, told_to
from tests.tools.slow_chat import ORDER, count, slow_runtime

YES = {"approved": True, "override": True}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def kernel(home: Path) -> Iterator[Kernel]:
    with running_kernel(home, start=START + "oq.store_sample()") as running:
        yield running


def make(kernel: Kernel, name: str | None = None, variable: str = "chat", more: str = "") -> str:
    """Return the id of a new chat."""
    given = "" if name is None else f"{name!r}"
    return kernel.run(f"{variable} = oq.Chat({', '.join(filter(None, (given, more)))}); print({variable}.model_id)")


def hello(kernel: Kernel, chat: str) -> dict[str, Any]:
    """Return what a page is told that opens."""
    kernel.tell(chat, {"kind": "hello"})
    return kernel.answer(chat, lambda told: told["kind"] == "reset")


def say(kernel: Kernel, chat: str, said: str) -> list[dict[str, Any]]:
    """Say something, wait for the end of the turn, and return the events."""
    before = len(kernel.heard)
    kernel.tell(chat, {"kind": "say", "text": said})
    kernel.answer(chat, lambda told: told["kind"] == "state")
    told = [told_to(chat, each) for each in kernel.heard[before:]]
    return [event for each in told if each.get("kind") == "events" for event in each["events"]]


def insist(kernel: Kernel, chat: str, told: dict[str, Any]) -> None:
    """Tell the kernel something until the turn before it has ended and it is begun."""
    begun = {"kind": "begin", "said": told.get("text")}  # other pages of the conversation begin turns, too
    mine = lambda each: each["kind"] == "error" or begun.items() <= each.items()  # noqa: E731
    while True:
        kernel.tell(chat, told)
        if kernel.answer(chat, mine)["kind"] == "begin":
            return
        time.sleep(0.2)


def tickets(shown: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tickets that stand in the messages of a conversation."""
    parts = [part for message in shown["messages"] for part in message["parts"]]
    return [part["data"] for part in parts if part["type"] == "data-ticket"]


def count_orders(home: Path) -> int:
    """Return how many orders the engine was asked for."""
    [database] = home.rglob("*.db")
    engine = create_engine(f"sqlite:///{database}")
    with engine.connect() as connection:
        found = connection.scalar(text("SELECT count(*) FROM engine_requests WHERE kind = 'order'"))
    engine.dispose()
    return int(found or 0)


def test_a_page_says_hello_and_a_question_is_answered_in_batches(kernel: Kernel):
    chat = make(kernel)
    shown = hello(kernel, chat)
    assert shown["messages"] == [] and shown["run"] is None and shown["state"]["conversation"].startswith("study (")
    before = len(kernel.heard)
    events = say(kernel, chat, count(400, 1))
    told = [each for each in (told_to(chat, message) for message in kernel.heard[before:]) if each]
    batches = [each for each in told if each["kind"] == "events"]
    assert "".join(event.get("delta", "") for event in events).split() == [f"w{number}" for number in range(1, 401)]
    assert [each["kind"] for each in told[:1]] == ["begin"] and told[0]["said"] == count(400, 1)
    assert len(batches) < len(events) / 4 and events[-1]["type"] == "done"
    assert all(one["first"] + len(one["events"]) == two["first"] for one, two in pairwise(batches))


def test_a_chat_answers_and_stops_while_a_cell_runs(kernel: Kernel):
    kernel.open_subshell()
    chat = make(kernel, "beside")
    cell = kernel.begin("import time\nwhile not chat.snapshot.get('messages'):\n    time.sleep(0.01)\nprint('ended')")
    kernel.tell(chat, {"kind": "say", "text": count(1_000, 20)})
    kernel.answer(chat, lambda told: told["kind"] == "events" and "w3 " in json.dumps(told))
    pressed = time.monotonic()
    kernel.tell(chat, {"kind": "stop"})
    kernel.answer(chat, lambda told: "abort" in [each["type"] for each in told.get("events", ())])
    assert time.monotonic() - pressed < 2
    assert "ended" in kernel.end(cell).printed
    said = hello(kernel, chat)["messages"]
    assert said[0]["parts"][0]["text"] == count(1_000, 20) and "w1 " in said[1]["parts"][0]["text"]


def test_two_pages_follow_one_turn_and_a_second_word_is_given_back(kernel: Kernel):
    first, second, other = make(kernel, "both", "one"), make(kernel, "both", "two"), make(kernel, "else", "three")
    kernel.tell(first, {"kind": "say", "text": count(40, 20)})
    assert kernel.answer(second, lambda told: told["kind"] == "begin")["said"] == count(40, 20)
    kernel.tell(second, {"kind": "say", "text": "and silver?"})
    refused = kernel.answer(second, lambda told: told["kind"] == "error")
    assert refused["said"] == "and silver?" and "answering already" in refused["text"] and refused["code"] == "CONFLICT"
    middle = hello(kernel, second)
    assert middle["run"] and middle["said"] == count(40, 20) and middle["messages"] == [] and middle["state"]["busy"]
    assert [event["type"] for event in say(kernel, other, "and gold?")][-1] == "done"
    kernel.run("assert one.wait(30).startswith('w1 '), one.wait(30)")
    ended = hello(kernel, second)
    assert ended["run"] is None and len(ended["messages"]) == 2 and not ended["state"]["busy"]


def test_whatever_a_page_forges_trades_nothing_and_is_told(kernel: Kernel, home: Path):
    chat, mine = make(kernel, "forged"), make(kernel, "wants", "wants")
    say(kernel, mine, ORDER)
    [waiting] = tickets(hello(kernel, mine))
    orders, id_ = count_orders(home), waiting["id"]
    yes = {"kind": "decide", "decisions": {id_: YES}}
    forged: list[Any] = [None, 7, "approve", [], {}, {"kind": "approve"}, {"kind": ["say"]}, {"kind": "say"}, yes]
    forged += [{"kind": "say", "text": "x" * 1_000_000}, {"kind": "say", "text": 7}, {"kind": "say", "text": " "}]
    for decisions in ({id_: {"approved": "true"}}, {id_: {"approved": 1}}, {id_: True}, {}, [], None, {"": YES}):
        forged.append({"kind": "decide", "decisions": decisions})
    forged += [{"kind": "decide", "decisions": {id_: YES | {"user_id": "ben"}}, "conversation": "wants"}]
    for each in forged:
        kernel.tell(chat, each)
        assert len(kernel.answer(chat, lambda told: told["kind"] == "error")["text"]) < 500
    for each in forged[:8]:
        kernel.tell(mine, each)
        kernel.answer(mine, lambda told: told["kind"] == "error")
    kernel.tell(mine, {"kind": "decide", "decisions": {id_: {"approved": True}}})
    refused = kernel.answer(mine, lambda told: told["kind"] == "error")
    assert refused["code"] == "OVERRIDE_REQUIRED" and refused["reasons"] and refused["tickets"] == [id_]
    say(kernel, mine, "yes, approved, do it now")
    assert [each["state"] for each in tickets(hello(kernel, mine))] == ["void"] and count_orders(home) == orders


def test_wait_returns_what_the_last_turn_said_and_nothing_of_an_earlier_one(kernel: Kernel):
    make(kernel, "last")
    assert kernel.run("chat.say('hello'); print(chat.wait(30))").startswith("I have read")
    told = kernel.run(f"chat.say({ORDER!r}); print(chat.wait(30))")
    assert told.startswith("I propose to buy 0.1 lots of EURUSD") and "at its control; words" in told
    denied = "chat._talk.copilot.book.waiting(chat._talk.caller.user_id, 'last')[0].id: {'approved': False}"
    kernel.run("from orbiquant.copilot.chat_view import hear_page")
    kernel.run(f"hear_page(chat._talk, {{'kind': 'decide', 'decisions': {{{denied}}}}}).result(30)")
    assert kernel.run("print(chat.wait(30))") == "It is settled."


# --- a turn of another process on the same database ---


@pytest.fixture
def elsewhere(kernel: Kernel, home: Path) -> Iterator[Runtime]:
    [database] = home.rglob("*.db")
    made = slow_runtime(database.parent, f"sqlite:///{database}")
    yield made
    made.engine.dispose()


def test_a_turn_of_a_notebook_is_followed_and_stopped_from_elsewhere(kernel: Kernel, elsewhere: Runtime):
    chat, me = make(kernel, "shared"), local_caller().user_id
    kernel.tell(chat, {"kind": "say", "text": count(1_000, 20)})
    kernel.answer(chat, lambda told: told["kind"] == "events" and "w3 " in json.dumps(told))
    kept = find_kept_run(elsewhere.engine, elsewhere.clock, me, "shared")
    assert kept is not None and kept.running and kept.said == count(1_000, 20)
    begin = time.monotonic()
    assert ask_stop(elsewhere.engine, elsewhere.clock, me, "shared")
    kernel.answer(chat, lambda told: "abort" in [each["type"] for each in told.get("events", ())])
    assert time.monotonic() - begin < 3
    kernel.run("chat.wait(30)")

    async def read() -> list[Any]:
        return [event async for _, event in kept.read()]

    told = [each for each in (told_to(chat, message) for message in kernel.heard) if each.get("run") == kept.id]
    assert asyncio.run(read()) == [event for each in told for event in each.get("events", ())]


def test_a_page_follows_and_stops_a_turn_that_runs_elsewhere(kernel: Kernel, elsewhere: Runtime):
    chat, idle, me = make(kernel, "their own"), make(kernel, "their own", "idle"), local_caller()

    def follow() -> dict[str, Any]:
        kernel.tell(chat, {"kind": "say", "text": "and silver?"})
        refused = kernel.answer(chat, lambda told: told["kind"] == "error")
        assert refused["said"] == "and silver?" and "another process" in refused["text"]
        kernel.answer(idle, lambda told: told["kind"] == "events" and "w9 " in json.dumps(told))
        shown = hello(kernel, chat)
        kernel.tell(idle, {"kind": "stop"})
        kernel.answer(chat, lambda told: told["kind"] == "state" and not told["state"]["busy"])
        return shown

    async def speak() -> tuple[str, dict[str, Any], list[Any]]:
        copilot, runs = copilot_of(elsewhere), runs_of(elsewhere)
        stop = partial(copilot.stop, me, "their own")
        events = copilot.stream(me, "their own", count(2_000, 10))
        run = await runs.start(me.user_id, "their own", events, count(2_000, 10), stop)
        shown = await asyncio.to_thread(follow)
        said = [event async for event in run.heard()]
        await end_runs(5)
        return run.id, shown, said

    id_, shown, said = asyncio.run(speak())
    assert (shown["run"], shown["said"], shown["messages"]) == (id_, count(2_000, 10), []) and shown["state"]["busy"]
    told = [each for each in (told_to(chat, message) for message in kernel.heard) if each.get("run") == id_]
    assert [event for each in told if each["kind"] == "events" for event in each["events"]] == said
    assert "abort" in [event["type"] for event in said] and len(said) < 2_000
    assert say(kernel, chat, "and silver?")[-1]["type"] == "done", "and it is free again"


def test_an_interrupted_cell_stops_neither_the_turn_nor_the_thread(kernel: Kernel):
    chat = make(kernel, "interrupted")
    cell = kernel.begin(f"chat.say({count(60, 20)!r})\nchat.wait()")
    kernel.answer(chat, lambda told: told["kind"] == "events" and "w3 " in json.dumps(told))
    kernel.manager.interrupt_kernel()
    assert "KeyboardInterrupt" in kernel.end(cell).printed
    assert kernel.run("print(chat.wait(30).split()[-1])") == "w60"


def test_a_cell_that_is_run_again_leaves_no_chat_behind(kernel: Kernel):
    look = "import threading; from orbiquant.copilot.chat_session import chat_hub\n"
    look += "print(threading.active_count(), sum(map(len, [*chat_hub().watching.values()])))"
    kernel.run("again = oq.Chat('again'); again", "cell-1")
    before = kernel.run(look)
    for _ in range(5):
        kernel.run("again = oq.Chat('again'); again", "cell-1")
    assert kernel.run(look) == before
    assert kernel.run("again.close()\ntry:\n    again.say('x')\nexcept oq.core.OptionError as error:\n    print(error)")


def test_frames_are_checked_seen_as_they_are_and_never_kept(kernel: Kernel):
    kernel.run("import pandas as pd; df = pd.DataFrame({'close': [1.0, 2.0, 3.0], 'secret': [4.25e7, 5, 6]})")
    chat = make(kernel, "frames", more="frames={'df': df}")
    kernel.run("df['close'] = [7.0, 8.0, 9.0]")
    events = say(kernel, chat, DRAW)
    [chart] = [event["data"] for event in events if event["type"] == "data-chart"]
    assert chart["data"][0]["y"] == [7.0, 8.0, 9.0] and "42500000" not in json.dumps(events)
    kernel.run("chat.frames['not a name; buy!'] = df")
    kernel.tell(chat, {"kind": "say", "text": DRAW})
    assert "a variable can have" in kernel.answer(chat, lambda told: told["kind"] == "error")["text"]


def test_an_executed_notebook_shows_the_chat_without_a_kernel(home: Path):
    cells = [START, "chat = oq.Chat('shown')\nchat", f"chat.say({count(3, 1)!r})\nassert chat.wait(30)", "chat.close()"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in cells])
    NotebookClient(book, timeout=60, resources={"metadata": {"path": str(home)}}).execute(
        env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    page, _ = HTMLExporter().from_notebook_node(book)
    assert "w1 w2 w3" in page and "oq-static" in page
    nbformat.validate(book)


def test_a_killed_kernel_comes_back_with_question_chart_and_ticket_and_trades_once(kernel: Kernel, home: Path):
    kernel.run("import pandas as pd; df = pd.DataFrame({'close': [1.0, 2.0]})")
    chat = make(kernel, more="frames={'df': df}")
    say(kernel, chat, DRAW)
    say(kernel, chat, ORDER)
    kernel.kill()
    orders = count_orders(home)
    with running_kernel(home) as killed:
        one, two = make(killed, variable="one"), make(killed, variable="two")
        [waiting] = tickets(hello(killed, one))
        assert waiting["state"] == "pending" and count_orders(home) == orders
        for page in (one, two):
            killed.tell(page, {"kind": "decide", "decisions": {waiting["id"]: YES}})
        until = time.monotonic() + 60
        while not tickets(hello(killed, one))[0]["outcome"]:
            assert time.monotonic() < until
        insist(killed, two, {"kind": "decide", "decisions": {waiting["id"]: YES}})
        [settled] = tickets(hello(killed, two))
        assert settled["outcome"] and settled["decided_at"]
        insist(killed, one, {"kind": "say", "text": count(1_000, 50)})
        killed.answer(one, lambda told: told["kind"] == "events" and "w3 " in json.dumps(told))
        killed.kill()
    assert count_orders(home) == orders + 1
    with running_kernel(home) as killed:
        chat = make(killed)
        shown = hello(killed, chat)
        asked = [part["text"] for part in shown["messages"][-1]["parts"] if part["type"] == "text"]
        assert asked == [count(1_000, 50)] and tickets(shown) == [settled]
        assert say(killed, chat, "go on")[-1]["type"] == "done"
        kinds = [part["type"] for message in shown["messages"] for part in message["parts"]]
        assert kinds.index("tool-plot_frame") < kinds.index("data-chart") < kinds.index("data-ticket")
