"""A turn of the copilot: one at a time, kept however it ends, silent about errors, and stopped before an order."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai.conversation_store import ConversationStore, InMemoryConversationStore
from pydantic_ai.messages import ModelMessage, ModelRequest, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel
from sqlalchemy import func, select

from orbiquant.copilot.calls import MOST_REPEATS, Session
from orbiquant.copilot.conversations import SqlConversationStore
from orbiquant.copilot.hot import open_hot
from orbiquant.copilot.loop import Copilot, TicketDecision, TurnAnswer, gather
from orbiquant.copilot.retention import forget_conversation, forget_conversations
from orbiquant.copilot.tickets import TicketBook, TicketState, approve_ticket
from orbiquant.copilot.tools import read_tool
from orbiquant.copilot.turns import one_turn
from orbiquant.core import ConflictError, FixedClock, NotFoundError, OptionError, configure_logging, tool
from orbiquant.desk.study import store_sample
from orbiquant.domain import Caller
from orbiquant.leases import lease_holder
from orbiquant.runtime import Runtime, using
from orbiquant.settings import load_settings
from orbiquant.trading import tables

ANA = Caller("key:ana", "ana", "pro", frozenset({"read", "write", "trade"}))
BEN = Caller("key:ben", "ben", "pro", frozenset({"read", "write", "trade"}))
YES = TicketDecision(approved=True, override=True)
WISH = {"symbol": "EURUSD", "action": "BUY", "size": 0.1, "stop_loss": 1.0, "take_profit": 3.0}
ORDER = "Buy 0.1 lots of EURUSD, stop 1.0, target 3.0"
SECRET = "postgresql://admin:hunter2@10.0.0.7:5432"
Speak = Callable[[list[ModelMessage], AgentInfo], AsyncIterator[str | DeltaToolCalls]]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    configure_logging("ERROR")
    folder = tmp_path_factory.mktemp("loop")
    places = {"store_uri": f"{folder}/store", "models_dir": folder / "models", "data_dir": folder}
    made = Runtime(load_settings(workspace=places | {"database_url": f"sqlite:///{folder}/o.db"}))
    with using(made):
        store_sample()
        yield made
    made.engine.dispose()


class Stores(dict[str, ConversationStore]):
    """The conversations of all users, as a database would keep them over a restart."""

    def __call__(self, user_id: str) -> ConversationStore:
        """Return one user's."""
        return self.setdefault(user_id, InMemoryConversationStore())

    def texts(self, user_id: str, talk: str) -> list[str]:
        """Return what was said in a conversation, in order."""
        found = asyncio.run(self[user_id].load(talk, scope=user_id))
        return [str(part.content) for message in found.messages for part in message.parts if hasattr(part, "content")]


def copilot_of(runtime: Runtime, speak: Speak, stores: Stores | None = None, **more: Any) -> Copilot:
    """Return a copilot with a scripted model."""
    return Copilot(runtime, FunctionModel(stream_function=speak), stores if stores is not None else Stores(), **more)


def last_part(messages: list[ModelMessage]) -> Any:
    """Return what the model answers to."""
    return messages[-1].parts[-1]


async def greedy(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    """Propose an order, and repeat what came of it."""
    last = last_part(messages)
    if isinstance(last, ToolReturnPart):
        yield f"It says {json.dumps(last.content, default=str)}"
    else:
        yield {0: DeltaToolCall("execute_trade", json.dumps(WISH))}


async def plain(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    """Say how many messages there are."""
    yield f"I have read {len(messages)}."


async def slow(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    """Speak for a long time."""
    for number in range(1_000):
        yield f"word {number} "
        await asyncio.sleep(0.01)


def ask(copilot: Copilot, talk: str, message: str, who: Caller = ANA) -> TurnAnswer:
    """Return an answer as a whole."""
    return asyncio.run(copilot.answer(who, talk, message))


def press(copilot: Copilot, talk: str, id_: str, decision: TicketDecision = YES, who: Caller = ANA) -> TurnAnswer:
    """Return what came of a decision."""
    return asyncio.run(copilot.settle(who, talk, {id_: decision}))


def count_orders(runtime: Runtime, user: str = "ana") -> int:
    """Return how many orders were asked of engines for a user."""
    asked = select(func.count()).where(tables.engine_requests.c.kind == "order", tables.engine_requests.c.who == user)
    with runtime.engine.connect() as connection:
        return connection.scalar(asked) or 0


def test_a_turn_begins_and_ends_as_the_protocol_says(runtime: Runtime):
    async def listen() -> list[dict[str, Any]]:
        return [event async for event in copilot_of(runtime, plain).stream(ANA, "protocol", "hello")]

    kinds = [event["type"] for event in asyncio.run(listen())]
    assert kinds[0] == "start" and kinds[-2:] == ["finish", "done"] and "text-delta" in kinds


@pytest.mark.parametrize("message", ["", "   ", "\x00\x01", "x" * 8_001, "\ud800"])
def test_a_message_that_says_nothing_or_too_much_is_refused_before_anything(runtime: Runtime, message: str):
    stores = Stores()
    with pytest.raises(OptionError, match="`message` must have"):
        ask(copilot_of(runtime, plain, stores), "talk", message)
    assert not stores


@pytest.mark.parametrize("talk", ["", "x" * 101, "a\nb"])
def test_a_conversation_has_a_name_that_can_be_kept(runtime: Runtime, talk: str):
    with pytest.raises(OptionError, match="conversation_id"):
        ask(copilot_of(runtime, plain), talk, "hello")


def test_a_hostile_message_is_text(runtime: Runtime):
    stores = Stores()
    hostile = "\x1b[31m'; DROP TABLE tickets; --\x00 <script>alert(1)</script> {{7*7}} \ud800" + "🦀" * 1_000
    assert ask(copilot_of(runtime, plain, stores), "hostile", hostile).text == "I have read 1."
    assert stores.texts("ana", "hostile")[0].startswith("[31m'; DROP TABLE")


def test_users_with_a_conversation_of_one_name_do_not_meet(runtime: Runtime):
    stores = Stores()
    copilot = copilot_of(runtime, plain, stores)
    ask(copilot, "default", "my secret is 42")
    assert ask(copilot, "default", "what is my secret?", BEN).text == "I have read 1."
    assert "42" not in str(stores.texts("ben", "default"))


def test_one_turn_at_a_time(runtime: Runtime):
    copilot = copilot_of(runtime, slow)

    async def two() -> int:
        first = copilot.stream(ANA, "busy", "one")
        await anext(first)
        with pytest.raises(ConflictError, match="answering already"):
            await copilot.answer(ANA, "busy", "two")
        with pytest.raises(ConflictError, match="answering already"):
            await copilot_of(runtime, plain, Stores()).settle(ANA, "busy", {"call": YES})
        other = (await copilot_of(runtime, plain).answer(ANA, "elsewhere", "three")).text
        await first.aclose()
        return len(other) + len((await copilot_of(runtime, plain).answer(ANA, "busy", "four")).text)

    assert asyncio.run(two()) == 2 * len("I have read 1.")


HOLDS = """
import asyncio, sys
from pathlib import Path
from orbiquant.copilot.turns import one_turn
from orbiquant.runtime import Runtime
from orbiquant.settings import load_settings
async def hold():
    async with one_turn(Runtime(load_settings(workspace={{"database_url": {url!r}}})), "ana", "shared"):
        print("held", flush=True)
        await asyncio.sleep(60)
asyncio.run(hold())
"""


def test_another_process_that_answers_is_waited_for_and_a_dead_one_is_not(runtime: Runtime):
    url = str(runtime.settings.workspace.database_url)
    with subprocess.Popen([sys.executable, "-c", HOLDS.format(url=url)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConflictError, match="another process"):
            ask(copilot_of(runtime, plain), "shared", "hello")
        other.kill()
    assert ask(copilot_of(runtime, plain), "shared", "hello").text == "I have read 1."


def test_a_lease_is_given_back_and_prolonged(runtime: Runtime):
    from datetime import timedelta

    async def hold() -> bool:
        async with one_turn(runtime, "ana", "long", timedelta(seconds=0.3)):
            await asyncio.sleep(0.8)  # longer than the lease
            return bool(await asyncio.to_thread(lease_names, runtime))

    assert asyncio.run(hold()) and lease_names(runtime) == []


def lease_names(runtime: Runtime) -> list[str]:
    """Return the turns that are held."""
    from orbiquant.leases import leases

    with runtime.engine.connect() as connection:
        names = connection.scalars(select(leases.c.name).where(leases.c.expires_at > runtime.clock.now())).all()
    return [name for name in names if name.startswith("copilot:") and lease_holder(runtime.engine, name)]


def test_stop_keeps_what_was_said_and_the_conversation_goes_on(runtime: Runtime):
    stores = Stores()
    copilot = copilot_of(runtime, slow, stores)

    async def stopped() -> list[str]:
        kinds = []
        async for event in copilot.stream(ANA, "stopped", "tell me all"):
            kinds.append(event["type"])
            if kinds.count("text-delta") == 5:
                threading.Thread(target=copilot.stop, args=(ANA, "stopped")).start()
        return kinds

    kinds = asyncio.run(stopped())
    assert "abort" in kinds and kinds.count("text-delta") < 100 and not copilot.stop(ANA, "stopped")
    said = stores.texts("ana", "stopped")
    assert said[0] == "tell me all" and said[1].startswith("word 0 word 1 ") and len(said) == 2
    assert ask(copilot_of(runtime, plain, stores), "stopped", "go on").text == "I have read 3."


def test_who_leaves_finds_what_was_said(runtime: Runtime):
    stores = Stores()

    async def leave() -> None:
        events = copilot_of(runtime, slow, stores).stream(ANA, "left", "tell me all")
        async for event in events:
            if event["type"] == "text-delta" and "word 3" in event["delta"]:
                break
        await events.aclose()

    async def vanish() -> None:
        async def read() -> None:
            async for _ in copilot_of(runtime, slow, stores).stream(ANA, "gone", "tell me all"):
                pass

        reading = asyncio.create_task(read())
        await asyncio.sleep(0.5)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(leave())
    asyncio.run(vanish())
    for talk in ("left", "gone"):
        said = stores.texts("ana", talk)
        assert said[0] == "tell me all" and said[1].startswith("word 0 ") and len(said) == 2
        assert ask(copilot_of(runtime, plain, stores), talk, "go on").text == "I have read 3."


@pytest.mark.parametrize("when", ["at once", "in a word", "after a tool"])
def test_a_model_that_dies_says_nothing_of_why_and_the_conversation_goes_on(runtime: Runtime, when: str):
    async def dies(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        if when == "at once":
            raise ConnectionError(SECRET)
        if when == "after a tool" and not isinstance(last_part(messages), ToolReturnPart):
            yield {0: DeltaToolCall("get_price", '{"symbol": "EURUSD"}')}
            return
        yield "It is "
        raise RuntimeError(SECRET)

    stores = Stores()
    said = ask(copilot_of(runtime, dies, stores), "dies", "¿Cuál es el precio de EURUSD?")
    assert said.error and "Pregunta otra vez" in said.error
    assert "hunter2" not in str(said) and "hunter2" not in str(stores.texts("ana", "dies"))
    kept = stores.texts("ana", "dies")
    assert kept[0] == "¿Cuál es el precio de EURUSD?" and ("It is " in kept) == (when != "at once")
    assert ("EURUSD" in str(kept[1:])) == (when == "after a tool")
    assert ask(copilot_of(runtime, plain, stores), "dies", "go on").text.startswith("I have read ")


@tool()
def break_down() -> str:
    """Fail."""
    raise RuntimeError(SECRET)


@pytest.mark.parametrize(
    "call", [("break_down", "{}"), ("get_price", "{not json"), ("no_such_tool", "{}"), ("get_price", "[]")]
)
def test_a_tool_or_a_call_that_fails_is_told_and_the_turn_goes_on(runtime: Runtime, call: tuple[str, str]):
    async def calls(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        if len(messages) == 1:
            yield {0: DeltaToolCall(*call)}
        else:
            yield "I could not look it up."

    copilot = copilot_of(runtime, calls)
    copilot.tools["break_down"] = read_tool(break_down)
    said = ask(copilot, "fails", "price?")
    assert said.text == "I could not look it up." and "hunter2" not in str(said)


def test_a_model_that_goes_in_circles_is_ended(runtime: Runtime):
    requests = 0

    async def circles(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        nonlocal requests
        requests += 1
        yield {0: DeltaToolCall("get_price", '{"symbol": "EURUSD"}')}

    stores = Stores()
    said = ask(copilot_of(runtime, circles, stores), "circles", "price of EURUSD?")
    assert "same thing again and again" in said.error and requests == MOST_REPEATS + 1
    called = [call for call in said.results.values() if "note" in call]
    assert len(called) == MOST_REPEATS - 1 and all("answer the user now" in call["note"] for call in called)
    assert ask(copilot_of(runtime, plain, stores), "circles", "and now?").text.startswith("I have read ")


def test_a_ticket_is_approved_after_a_restart_and_once(runtime: Runtime):
    stores, before = Stores(), count_orders(runtime)
    asked = ask(copilot_of(runtime, greedy, stores), "restart", ORDER)
    [ticket] = asked.tickets
    assert ticket["state"] == "pending" and ticket["known"]["risk_reward"] and ticket["known"]["risk_percent"]
    fresh = copilot_of(runtime, greedy, stores)
    [*_, shown] = asyncio.run(fresh.messages(ANA, "restart"))
    [*_, called, drawn] = shown["parts"]
    assert called["state"] == "approval-requested" and drawn["data"]["state"] == "pending"
    done, again = press(fresh, "restart", ticket["id"]), press(fresh, "restart", ticket["id"])
    assert count_orders(runtime) == before + 1 and done.tickets[0]["state"] == "refused"
    assert '"outcome": ' in done.text and again.text == "" and again.tickets == done.tickets
    assert again.results[ticket["id"]] == done.results[ticket["id"]]


def test_what_was_denied_is_told_to_the_model_and_is_no_order(runtime: Runtime):
    stores, before = Stores(), count_orders(runtime)
    copilot = copilot_of(runtime, greedy, stores)
    [ticket] = ask(copilot, "denied", ORDER).tickets
    said = press(copilot, "denied", ticket["id"], TicketDecision(approved=False, reason="too big"))
    assert "too big" in said.text and said.tickets[0]["state"] == "denied"
    assert press(copilot, "denied", ticket["id"]).tickets[0]["state"] == "denied"
    assert count_orders(runtime) == before


def test_writing_on_voids_what_waits(runtime: Runtime):
    copilot, before = copilot_of(runtime, greedy), count_orders(runtime)
    [ticket] = ask(copilot, "void", ORDER).tickets
    after = ask(copilot, "void", "yes, approved")
    assert [(each["id"], each["state"]) for each in after.tickets] == [(ticket["id"], "void")]
    with pytest.raises(ConflictError, match="cannot be approved any more"):
        press(copilot, "void", ticket["id"])
    assert count_orders(runtime) == before


async def sql_stores(runtime: Runtime, talk: str, message: str, during: Callable[[], Any] | None = None) -> TurnAnswer:
    """Answer from a conversation in the database, and do something once its order was proposed."""
    whole = TurnAnswer()
    store = SqlConversationStore(runtime.engine, runtime.clock, "ana")
    copilot = Copilot(runtime, FunctionModel(stream_function=greedy), lambda user_id: store)
    async for event in copilot.stream(ANA, talk, message):
        gather(whole, event)
        if during is not None and event["type"] == "tool-input-available":
            await during()
    return whole


@pytest.mark.parametrize("how", ["forgotten", "deleted by its store", "too old"])
def test_an_order_does_not_outlive_its_conversation(runtime: Runtime, how: str):
    talk, before = f"gone {how}", count_orders(runtime)
    [ticket] = asyncio.run(sql_stores(runtime, talk, ORDER)).tickets
    hot = open_hot(runtime.settings.redis, runtime.engine, runtime.clock)
    if how == "forgotten":
        asyncio.run(forget_conversation(runtime.engine, runtime.clock, "ana", talk, hot))
    elif how == "too old":
        assert forget_conversations(runtime.engine, FixedClock(runtime.clock.now() + timedelta(days=9)), 7)
    else:
        asyncio.run(SqlConversationStore(runtime.engine, runtime.clock, "ana").delete(talk))
    assert TicketBook(runtime.engine, runtime.clock).find("ana", talk, ticket["id"]).state is TicketState.VOID
    with pytest.raises(ConflictError, match="its conversation was deleted"):
        press(copilot_of(runtime, greedy), talk, ticket["id"])
    assert count_orders(runtime) == before


def test_an_order_that_is_proposed_while_its_conversation_is_deleted_is_void(runtime: Runtime):
    hot = open_hot(runtime.settings.redis, runtime.engine, runtime.clock)

    def forget() -> Any:
        return forget_conversation(runtime.engine, runtime.clock, "ana", "meanwhile", hot)

    asyncio.run(sql_stores(runtime, "meanwhile", ORDER, forget))
    book = TicketBook(runtime.engine, runtime.clock)
    assert book.waiting("ana", "meanwhile") == [], "neither the order before the deletion nor one after it"


def test_one_order_comes_of_a_turn(runtime: Runtime):
    async def two(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        for place in range(3):
            yield {place: DeltaToolCall("execute_trade", json.dumps(WISH))}

    said = ask(copilot_of(runtime, two), "several", ORDER)
    refused = [each["error"] for each in said.results.values()]
    assert len(said.tickets) == 1 and refused == ["ONE_AT_A_TIME"] * 2


def test_the_model_speaks_of_an_order_only_after_it_was_placed_and_stopping_undoes_none(runtime: Runtime):
    stores, before = Stores(), count_orders(runtime)

    async def talks(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        if isinstance(last_part(messages), ToolReturnPart):
            async for word in slow(messages, info):
                yield word
        else:
            yield {0: DeltaToolCall("execute_trade", json.dumps(WISH))}

    copilot = copilot_of(runtime, talks, stores)
    [ticket] = ask(copilot, "stop-order", ORDER).tickets

    async def stopped() -> None:
        async for event in copilot.decide(ANA, "stop-order", {ticket["id"]: YES}):
            if event["type"] == "text-delta":
                assert count_orders(runtime) == before + 1
                copilot.stop(ANA, "stop-order")

    asyncio.run(stopped())
    assert TicketBook(runtime.engine, runtime.clock).find("ana", "stop-order", ticket["id"]).state == "executed"
    assert "'outcome': " in str(stores.texts("ana", "stop-order")) and count_orders(runtime) == before + 1
    assert ask(copilot_of(runtime, plain, stores), "stop-order", "so?").text.startswith("I have read ")


def test_a_history_that_missed_an_order_learns_of_it(runtime: Runtime):
    """The process died after the order and before the conversation was saved."""
    stores, before = Stores(), count_orders(runtime)
    copilot, book = copilot_of(runtime, greedy, stores), TicketBook(runtime.engine, runtime.clock)
    [ticket] = ask(copilot, "missed", ORDER).tickets
    done = approve_ticket(runtime, book, ANA, book.find("ana", "missed", ticket["id"]), override=True)
    said = ask(copilot_of(runtime, plain, stores), "missed", "what became of it?")
    assert said.tickets[0]["state"] == "refused" and said.text == "I have read 3."
    loaded = asyncio.run(stores["ana"].load("missed", scope="ana"))
    returned = [part for message in loaded.messages for part in message.parts if isinstance(part, ToolReturnPart)]
    assert [part.content["ticket"] for part in returned] == [done.outcome["ticket"]]
    assert press(copilot, "missed", ticket["id"]).tickets[0]["outcome"] == done.outcome
    assert count_orders(runtime) == before + 1


def test_a_model_that_is_down_does_not_keep_an_order_from_being_told(runtime: Runtime):
    stores, before = Stores(), count_orders(runtime)

    async def down(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        raise ConnectionError(SECRET)
        yield ""

    [ticket] = ask(copilot_of(runtime, greedy, stores), "down", ORDER).tickets
    done = press(copilot_of(runtime, down, stores), "down", ticket["id"])
    assert done.tickets[0]["state"] == "refused" and done.error and "hunter2" not in str(done)
    assert "'outcome': " in str(stores.texts("ana", "down")) and count_orders(runtime) == before + 1
    assert ask(copilot_of(runtime, plain, stores), "down", "so?").text.startswith("I have read ")


def test_nobody_decides_on_what_is_not_theirs(runtime: Runtime):
    copilot, before = copilot_of(runtime, greedy), count_orders(runtime)
    [ticket] = ask(copilot, "mine", ORDER).tickets
    with pytest.raises(NotFoundError):
        press(copilot, "mine", ticket["id"], who=BEN)
    with pytest.raises(NotFoundError):
        press(copilot, "other", ticket["id"])
    with pytest.raises(OptionError, match="decisions"):
        asyncio.run(copilot.settle(ANA, "mine", {}))
    assert TicketBook(runtime.engine, runtime.clock).find("ana", "mine", ticket["id"]).state is TicketState.PENDING
    assert count_orders(runtime) == before == count_orders(runtime, "ana") and count_orders(runtime, "ben") == 0


def test_what_is_told_to_the_model_and_what_it_says_pass_through_hooks(runtime: Runtime):
    seen: list[Session] = []

    def instruct(session: Session) -> str:
        return f"You talk with {session.caller.user_id}, who said {session.message!r}"

    class Check:
        """Puts a number right that came in two pieces."""

        def __init__(self, session: Session) -> None:
            seen.append(session)
            self.session, self.held = session, ""

        def feed(self, chunk: str) -> list[str]:
            self.held += chunk
            return []

        def close(self) -> list[str]:
            said, self.held = self.held, ""
            return [said.replace("9.99", str(self.session.results[0][1]["symbol"]) if self.session.results else "?")]

        def ending(self) -> str:
            return " (checked)"

    async def invents(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        assert info.instructions == "You talk with ana, who said 'price?'"
        if isinstance(last_part(messages), ToolReturnPart):
            yield "It is at 9."
            yield "99. Be careful"
        else:
            yield "I look. "
            yield {0: DeltaToolCall("get_price", '{"symbol": "EURUSD"}')}

    stores = Stores()
    said = ask(copilot_of(runtime, invents, stores, instructions=instruct, check=Check), "hooks", "price?")
    assert said.text == "I look. It is at EURUSD. Be careful (checked)" and seen[0].message == "price?"
    assert "9.99" not in str(stores.texts("ana", "hooks"))


def test_an_earlier_word_of_the_user_names_the_symbol_and_a_tools_word_does_not(runtime: Runtime):
    copilot = copilot_of(runtime, greedy)
    assert not ask(copilot, "pronoun", "Buy 0.1 lots, stop 1.0, target 3.0").tickets
    ask(copilot, "pronoun", "How is EURUSD doing?")
    assert len(ask(copilot, "pronoun", "Buy 0.1 lots, stop 1.0, target 3.0").tickets) == 1


def test_the_question_is_kept_before_the_model_has_it(runtime: Runtime):
    stores, kept = Stores(), []

    async def looks(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        found = await stores["ana"].load("first", scope="ana")
        kept.extend(part.content for message in found.messages for part in message.parts)
        assert isinstance(messages[-1], ModelRequest) and isinstance(last_part(messages), UserPromptPart)
        yield "yes"

    assert ask(copilot_of(runtime, looks, stores), "first", "Do you hear me?").text == "yes"
    assert kept == ["Do you hear me?"] and stores.texts("ana", "first") == ["Do you hear me?", "yes"]
    record = asyncio.run(stores["ana"].read_record("first"))
    assert record.branches == []


def test_the_runtime_is_left_without_a_turn(runtime: Runtime, tmp_path: Path):
    assert lease_names(runtime) == []


@pytest.mark.parametrize("word", ["exit", "quit", "/quit", "/EXIT"])
def test_a_person_leaves_the_talk_by_a_word(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, word: str):
    from orbiquant.cli.chat import talk

    typed = iter(["", word])  # a third question would raise StopIteration
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    stores = Stores()
    talk(copilot_of(runtime, plain, stores), ANA, "leaving")
    assert not stores


def test_a_panel_tells_the_reward_or_that_there_is_none():
    from orbiquant.cli.chat import ticket_panel

    known = {"symbol": "EURUSD", "risk_reward": 2.5}
    for each, told in ((known, "2.5"), (known | {"risk_reward": None}, "no target")):
        grid = ticket_panel({"known": each, "reason": "", "state": "pending"}).renderable
        cells = [str(cell) for column in grid.columns for cell in column.cells]
        assert "risk reward" in cells and any(told in cell for cell in cells)
