"""The toolbox under models that write badly and tools that hang, raise and answer megabytes."""

import asyncio
import json
import math
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, Field
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from orbiquant.copilot import tools as toolbox
from orbiquant.copilot.tool_arguments import BadArguments, read_tool_arguments
from orbiquant.copilot.tool_log import ToolCall, ToolCallLog, masked
from orbiquant.copilot.tool_results import as_result, cut_result
from orbiquant.copilot.tool_threads import ToolThreads
from orbiquant.copilot.tools import Tool, call_tool, call_tools, find_tool, find_tools, most_characters, read_tool
from orbiquant.core import (
    BrokerUnavailable,
    DataError,
    ExecutionUnknown,
    NotFoundError,
    OptionError,
    OrbiError,
    Plan,
    Scope,
    configure_logging,
    log_context,
    tool,
)
from orbiquant.domain import Caller, Timeframe
from orbiquant.llm.config import LlmConfig
from orbiquant.persistence import engine, migrate
from orbiquant.runtime import Runtime, current, using

PRO = Caller("key", "ana", "premium", frozenset({"read", "write", "trade"}))
ROOT = Path(__file__).parents[1]


def made(function: Callable[..., Any], **marks: Any) -> dict[str, Tool]:
    """Return a function as the only tool."""
    found = read_tool(tool(**marks)(function))
    return {found.name: found}


def ask(tools: dict[str, Tool], arguments: Any = None, caller: Caller = PRO, **more: Any) -> Any:
    """Call the only tool."""
    config = LlmConfig(**{"tool_timeout_s": 10} | more.pop("config", {}))
    name = more.pop("name", next(iter(tools)))
    return asyncio.run(call_tool(tools, name, {} if arguments is None else arguments, caller, config, **more))


@pytest.fixture(autouse=True)
def own_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[ToolThreads]:
    configure_logging("INFO")
    threads = ToolThreads()
    monkeypatch.setattr(toolbox, "THREADS", threads)
    yield threads
    until = time.monotonic() + 5
    while threads.running.total() and time.monotonic() < until:
        time.sleep(0.005)
    assert threads.running.total() == 0 == threads.stuck.total(), "a test left a call behind"


# --- what a model writes ---


class Side(StrEnum):
    BUY = "BUY"
    SELL = "SELL"


def wish(
    symbol: str,  # any spelling
    timeframe: Timeframe = Timeframe.H1,  # length of a bar
    side: Side | None = None,  # which way
    size: Annotated[float, Field(ge=0.01, le=10)] = 0.1,  # lots
    limit: Annotated[int, Field(ge=1, le=500, validation_alias=AliasChoices("limit", "bars"))] = 100,  # rows
    stop_loss: Annotated[Decimal, Field(gt=0)] | None = None,  # price
    indicators: list[Literal["RSI", "MACD", "BB"]] | None = None,  # which ones
    short: bool = False,  # in few words
) -> dict[str, Any]:
    "Return what was understood."
    return {name: value for name, value in locals().items() if value is not None}


WISH = read_tool(tool()(wish)).arguments
PLAIN: dict[str, Any] = {"symbol": "EURUSD"}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({}, {}),
        ({"size": "0.5"}, {"size": 0.5}),
        ({"size": "0,5"}, {"size": 0.5}),
        ({"size": " 2 "}, {"size": 2.0}),
        ({"size": 1}, {"size": 1.0}),
        ({"limit": "50"}, {"limit": 50}),
        ({"limit": 50.0}, {"limit": 50}),
        ({"limit": "50.0"}, {"limit": 50}),
        ({"bars": 7}, {"limit": 7}),
        ({"stop_loss": "2,345.50"}, {"stop_loss": Decimal("2345.50")}),
        ({"stop_loss": "2.345,50"}, {"stop_loss": Decimal("2345.50")}),
        ({"stop_loss": 1.0855}, {"stop_loss": Decimal("1.0855")}),
        ({"stopLoss": 1.5}, {"stop_loss": Decimal("1.5")}),
        ({"Stop-Loss": 1.5}, {"stop_loss": Decimal("1.5")}),
        ({"stop_loss": None, "side": "null", "size": "", "timeframe": None}, {}),
        ({"side": "buy"}, {"side": Side.BUY}),
        ({"side": "Sell"}, {"side": Side.SELL}),
        ({"timeframe": "4H"}, {"timeframe": Timeframe.H4}),
        ({"timeframe": "H4"}, {"timeframe": Timeframe.H4}),
        ({"timeframe": "M15"}, {"timeframe": Timeframe.M15}),
        ({"timeframe": "15 min"}, {"timeframe": Timeframe.M15}),
        ({"timeframe": "1 hora"}, {"timeframe": Timeframe.H1}),
        ({"timeframe": "'1d'"}, {"timeframe": Timeframe.D1}),
        ({"timeframe": ["1d"]}, {"timeframe": Timeframe.D1}),
        ({"indicators": "RSI"}, {"indicators": ["RSI"]}),
        ({"indicators": "rsi, macd"}, {"indicators": ["RSI", "MACD"]}),
        ({"indicators": '["RSI", "BB"]'}, {"indicators": ["RSI", "BB"]}),
        ({"indicators": ["rsi", "BB"]}, {"indicators": ["RSI", "BB"]}),
        ({"short": "true"}, {"short": True}),
        ({"short": "False"}, {"short": False}),
        ({"symbol": ["XAUUSD"]}, {"symbol": "XAUUSD"}),
        ({"symbol": "null"}, {"symbol": "null"}),
    ],
)
def test_what_can_mean_one_thing_is_understood(written: dict[str, Any], meant: dict[str, Any]):
    assert read_tool_arguments(WISH, PLAIN | written) == read_tool_arguments(WISH, PLAIN) | meant


def test_arguments_may_be_json_text_or_wrapped():
    plain = read_tool_arguments(WISH, PLAIN)
    assert read_tool_arguments(WISH, '{"symbol": "EURUSD"}') == plain
    assert read_tool_arguments(WISH, {"arguments": PLAIN}) == read_tool_arguments(WISH, {"parameters": PLAIN}) == plain


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ({"size": "1,000"}, "`size` must be a valid number, was '1,000'"),
        ({"stop_loss": "1,085"}, "`stop_loss`"),
        ({"timeframe": "1M"}, "`timeframe` must be '1m', '5m'"),
        ({"timeframe": "2h"}, "`timeframe` must be"),
        ({"timeframe": "15mm"}, "was '15mm', did you mean '15m'?"),
        ({"side": "long"}, "`side` must be 'BUY' or 'SELL', was 'long'"),
        ({"side": "sel"}, "did you mean 'SELL'?"),
        ({"size": True}, "`size`"),
        ({"size": 11}, "`size` must be less than or equal to 10, was 11"),
        ({"size": float("nan")}, "`size`"),
        ({"size": "inf"}, "`size`"),
        ({"size": "-1"}, "`size`"),
        ({"size": "0.1 lots"}, "`size` must be a valid number, was '0.1 lots'"),
        ({"limit": 2.5}, "`limit`"),
        ({"limit": 10**30}, "`limit`"),
        ({"indicators": ["RSI", "Ichimoku"]}, "`indicators`"),
        ({"symbl": "x"}, "`symbl` is no argument of wish, did you mean 'symbol'?"),
        ({"sl": 1.5}, "`sl` is no argument of wish"),
        ({"stop_loss": 1, "stopLoss": 2}, "`stopLoss` is no argument of wish, did you mean 'stop_loss'?"),
        ({"caller": "boss"}, "`caller` is no argument of wish"),
        ({"symbol": {"a": 1}}, "`symbol`"),
        ({"symbol": None}, "`symbol`"),
    ],
)
def test_what_cannot_is_refused_with_what_comes_near(written: dict[str, Any], told: str):
    with pytest.raises(BadArguments) as refused:
        read_tool_arguments(WISH, PLAIN | written, "wish")
    assert told in refused.value.message


@pytest.mark.parametrize(
    "written",
    ["", "not json", "[1]", "3", '{"symbol": "EURUSD"', "[" * 40_000, [PLAIN], 3, None, b"{}", {1: 2}, "{" * 60_000],
)
def test_what_is_no_object_is_refused(written: Any):
    with pytest.raises(BadArguments, match=r"wish must|`symbol` is missing"):
        read_tool_arguments(WISH, written, "wish")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["1,5", "null", "buy"]),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(max_size=8), each, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from([*WISH.model_fields, "stopLoss", "bars", "arguments"]) | st.text(max_size=8)


@settings(max_examples=100, deadline=None)
@given(written=st.dictionaries(NAMES, JSON, max_size=6) | JSON)
def test_whatever_is_written_is_understood_or_refused(written: Any):
    try:
        read = read_tool_arguments(WISH, written)
    except BadArguments as error:
        assert 0 < len(error.message) <= 1_000
    else:
        assert {*read} == {*WISH.model_fields} and 0.01 <= read["size"] <= 10 and isinstance(read["symbol"], str)


# --- who may ---


@pytest.mark.parametrize("plan", ["free", "pro", "premium"])
@pytest.mark.parametrize("needed", ["free", "pro", "premium"])
def test_a_plan_has_its_tools_and_those_below(plan: Plan, needed: Plan):
    said = ask(made(lambda_of(7), plan=needed), caller=Caller("k", "ana", plan, frozenset({"read"})))
    order = ["free", "pro", "premium"]
    if order.index(plan) >= order.index(needed):
        assert said == 7
    else:
        message = f"answer needs the plan {needed}, yours is {plan}"
        assert said == {"error": "PLAN_REQUIRED", "message": message, "upgradeUrl": "/pricing"}


@pytest.mark.parametrize("effect", ["read", "write", "trade", "operate"])
def test_what_a_tool_changes_decides_the_scope(effect: Scope):
    for scopes in (set(), {"read"}, {"read", "write"}, {"read", "write", "trade"}, {"operate"}):
        said = ask(made(lambda_of(7), effect=effect), caller=Caller("k", "ana", "pro", frozenset(scopes)))
        assert said == 7 if effect in scopes else said["error"] == "FORBIDDEN" and repr(effect) in said["message"]


def lambda_of(value: Any) -> Callable[[], Any]:
    """Return a tool that answers a value."""

    def answer() -> Any:
        "Answer."
        return value

    return answer


def whoami(
    caller: Caller,  # filled
    note: str = "",  # anything
) -> str:
    "Return who calls."
    return caller.user_id


def test_who_calls_is_filled_and_never_the_model_s():
    tools = made(whoami)
    assert "caller" not in tools["whoami"].schema["properties"]
    assert ask(tools, {"note": "x"}) == "ana"
    for forged in ({"caller": "boss"}, {"caller": {"user_id": "boss"}}, {"Caller": 1}, {"arguments": {"caller": 1}}):
        assert ask(tools, forged)["error"] == "ARGUMENTS_INVALID"


def test_a_plan_that_a_tool_asks_for_itself_is_answered_alike():
    from orbiquant.desk.identity import PlanRequired

    def deep() -> None:
        raise PlanRequired("so many alerts need the plan pro")

    assert ask(made(deep)) == {
        "error": "PLAN_REQUIRED", "message": "so many alerts need the plan pro", "upgradeUrl": "/pricing",
    }  # fmt: skip


# --- names ---


def test_a_call_is_reported_by_the_name_that_it_was_made_by():
    rows: list[ToolCall] = []
    tools = made(lambda_of(7), aliases=("get_answer", "reply"))
    assert ask(tools, name="reply", keep=rows.append) == 7 and find_tool(tools, "get_answer") is tools["answer"]
    assert (rows[0].called, rows[0].tool, rows[0].outcome) == ("reply", "answer", "done")
    said = ask(tools, name="repl", keep=rows.append)
    assert said["error"] == "TOOL_UNKNOWN" and "did you mean 'reply'?" in said["message"] and rows[1].tool is None
    assert len(ask(tools, name="x" * 10_000)["message"]) < 300


def test_two_tools_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "twice"
    package.mkdir()
    (package / "__init__.py").write_text("")
    body = "from orbiquant.core import tool\n@tool(aliases={aliases})\ndef {name}() -> int:\n    'Do.'\n    return 1\n"
    (package / "a.py").write_text(body.format(aliases='("other",)', name="first"))
    (package / "b.py").write_text(body.format(aliases="()", name="other"))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OrbiError, match="'other' is of first and of other"):
        find_tools("twice")


def test_every_tool_of_the_house_says_what_it_takes():
    for name, found in find_tools().items():
        assert name.isidentifier() and found.description, name
        assert found.schema.get("additionalProperties") is False, name
        for field, schema in found.schema.get("properties", {}).items():
            assert schema.get("description"), f"{name} does not say what {field} is"
        json.dumps(found.schema, allow_nan=False)


# --- tools that hang ---


def test_a_tool_that_hangs_is_given_up_and_harms_no_other(own_threads: ToolThreads):
    gate = threading.Event()
    tools = made(lambda: gate.wait(20), name="hangs") | made(lambda_of(7))
    rows: list[ToolCall] = []

    async def both() -> tuple[float, Any, Any]:
        begun = time.monotonic()
        config = LlmConfig(tool_timeout_s=0.3)
        calls = [call_tool(tools, name, {}, PRO, config, keep=rows.append) for name in ("hangs", "answer")]
        hung, answered = await asyncio.gather(*calls)
        return time.monotonic() - begun, hung, answered

    took_s, hung, answered = asyncio.run(both())
    assert 0.3 <= took_s < 1.5 and answered == 7
    assert hung == {"error": "TOOL_TIMEOUT", "message": "hangs took longer than 0.3 s"}
    assert own_threads.stuck["hangs"] == 1 and {row.outcome for row in rows} == {"done", "TOOL_TIMEOUT"}
    with capture_logs() as notices:
        gate.set()
        while own_threads.running.total():
            time.sleep(0.005)
        time.sleep(0.02)
    assert [each["event"] for each in notices] == ["a call that nobody waits for has ended"]


def test_who_waited_for_a_change_is_told_that_nobody_knows():
    gate = threading.Event()
    said = ask(made(lambda: gate.wait(20), name="order", effect="trade"), config={"tool_timeout_s": 0.05})
    gate.set()
    assert "nobody knows whether it was done" in said["message"]


def test_hanging_calls_eat_no_pool(own_threads: ToolThreads):
    gate = threading.Event()
    tools = made(lambda: gate.wait(20), name="hangs") | made(lambda_of(7))
    config = LlmConfig(tool_timeout_s=0.1, tool_tries=1)

    async def many() -> tuple[list[Any], list[Any]]:
        hung = [await call_tool(tools, "hangs", {}, PRO, config) for _ in range(10)]
        return hung, await asyncio.gather(*(call_tool(tools, "answer", {}, PRO, LlmConfig()) for _ in range(50)))

    hung, answered = asyncio.run(many())
    assert [each["error"] for each in hung] == ["TOOL_TIMEOUT"] * 4 + ["TOOL_BUSY"] * 6 and answered == [7] * 50
    assert "is stuck" in hung[-1]["message"] and own_threads.running["hangs"] == 4
    gate.set()
    while own_threads.running.total():
        time.sleep(0.005)
    assert ask(tools) is True, "and when they end, the tool is whole again"


def test_more_calls_than_places_wait_for_one(own_threads: ToolThreads):
    own_threads.most = 4
    answers = asyncio.run(gather_calls(made(lambda: time.sleep(0.02) or 7, name="short"), 40))
    assert answers == [7] * 40


async def gather_calls(tools: dict[str, Tool], count: int, **limits: Any) -> list[Any]:
    """Call the only tool many times at once."""
    config = LlmConfig(**limits)
    return await asyncio.gather(*(call_tool(tools, next(iter(tools)), {}, PRO, config) for _ in range(count)))


def test_a_hanging_tool_keeps_no_process_alive(tmp_path: Path):
    program = """
        import asyncio, time
        from orbiquant.copilot.tools import call_tool, read_tool
        from orbiquant.core import tool
        from orbiquant.domain import Caller
        from orbiquant.llm.config import LlmConfig

        def hangs() -> None:
            time.sleep(600)

        caller = Caller("k", "ana", "free", frozenset({"read"}))
        found = {"hangs": read_tool(tool()(hangs))}
        print(asyncio.run(call_tool(found, "hangs", {}, caller, LlmConfig(tool_timeout_s=0.1)))["error"])
    """
    script = tmp_path / "hanging.py"
    script.write_text(textwrap.dedent(program))
    command, environment = [sys.executable, str(script)], os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert (done.returncode, done.stdout) == (0, "TOOL_TIMEOUT\n"), done.stderr


def test_a_call_that_is_stopped_is_kept_as_that(own_threads: ToolThreads):
    gate, rows = threading.Event(), list[ToolCall]()
    tools = made(lambda: gate.wait(20), name="hangs")

    async def stop() -> float:
        task = asyncio.create_task(call_tool(tools, "hangs", {}, PRO, LlmConfig(), keep=rows.append))
        await asyncio.sleep(0.1)
        begun = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - begun

    assert asyncio.run(stop()) < 0.2
    gate.set()
    assert [row.outcome for row in rows] == ["STOPPED"]


# --- tools that raise ---

SECRET = "postgresql://u:hunter2@10.0.0.7/db"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(SECRET), KeyError(SECRET), RecursionError(SECRET), MemoryError(SECRET), TimeoutError(SECRET),
        SystemExit(SECRET), KeyboardInterrupt(SECRET), GeneratorExit(SECRET), asyncio.CancelledError(SECRET),
        StopIteration(SECRET), StopAsyncIteration(SECRET), ExceptionGroup(SECRET, [ValueError(SECRET)]),
        type("Odd", (BaseException,), {})(SECRET),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_the_text_of_an_error_that_nobody_meant_stays_in_the_log(error: BaseException):
    def breaks() -> None:
        raise error

    rows: list[ToolCall] = []
    with capture_logs() as notices:
        said = ask(made(breaks), keep=rows.append)
    if isinstance(error, TimeoutError):
        assert said["error"] in ("TOOL_FAILED", "TOOL_TIMEOUT")
    else:
        assert said == {"error": "TOOL_FAILED", "message": "breaks failed; the log says why"}
    assert "hunter2" not in str(said) and "hunter2" not in rows[0].model_dump_json()
    if not isinstance(error, TimeoutError):
        assert [each["event"] for each in notices] == ["tool failed", "tool called"] and notices[0]["exc_info"]


@pytest.mark.parametrize("kind", [DataError, OptionError, NotFoundError, ExecutionUnknown])
def test_what_a_tool_says_on_purpose_goes_on(kind: type[OrbiError]):
    def says() -> None:
        raise kind("`limit` must be at most 500", secret="s")

    assert ask(made(says)) == {"error": kind.code, "message": "`limit` must be at most 500"}


def test_a_symbol_that_is_not_there_comes_with_the_near_one():
    def price(
        symbol: str,  # any
    ) -> None:
        "Return a price."
        raise NotFoundError(f"the store has no bars of {symbol}")

    assert ask(made(price), {"symbol": "EURUSSD"})["message"].endswith("of EURUSSD, did you mean 'EURUSD'?")


@pytest.mark.parametrize(
    ("error", "effect", "tries"),
    [
        (BrokerUnavailable("away"), "read", 3),
        (ConnectionResetError("away"), "read", 3),
        (OperationalError("", {}, Exception("database is locked")), "read", 3),
        (BrokerUnavailable("away"), "write", 1),
        (BrokerUnavailable("away"), "trade", 1),
        (DataError("the provider said no"), "read", 1),
        (ExecutionUnknown("who knows"), "read", 1),
        (RuntimeError("odd"), "read", 1),
    ],
)
def test_only_reading_is_tried_again_and_only_what_passes(
    error: Exception, effect: Scope, tries: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(toolbox, "PAUSE_S", 0.01)
    count, rows = list[int](), list[ToolCall]()

    def breaks() -> None:
        count.append(1)
        raise error

    said = ask(made(breaks, effect=effect), keep=rows.append)
    assert "error" in said and len(count) == tries == rows[0].tries


def test_the_second_try_may_succeed_and_all_have_one_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(toolbox, "PAUSE_S", 0.01)
    count: list[int] = []

    def once() -> int:
        count.append(1)
        if len(count) == 1:
            raise BrokerUnavailable("away")
        return 7

    assert ask(made(once)) == 7 and len(count) == 2

    def slow() -> None:
        time.sleep(0.15)
        raise BrokerUnavailable("away")

    begun = time.monotonic()
    assert ask(made(slow), config={"tool_timeout_s": 0.4, "tool_tries": 10})["error"] in (
        "BROKER_UNAVAILABLE",
        "TOOL_TIMEOUT",
    )
    assert time.monotonic() - begun < 1


# --- side by side ---


def test_six_tools_of_three_tenths_take_less_than_half_a_second():
    tools = made(lambda: time.sleep(0.3) or 7, name="slow")
    asyncio.run(call_tools(tools, [("slow", {})], PRO, LlmConfig()))

    def took() -> float:
        begun = time.perf_counter()
        assert asyncio.run(call_tools(tools, [("slow", {})] * 6, PRO, LlmConfig())) == [7] * 6
        return time.perf_counter() - begun

    best = min(took() for _ in range(3))
    print(f"\n6 tools of 0.3 s in {best:.3f} s")
    assert best <= 0.45


def test_no_more_than_parallel_tools_run_at_once():
    lock, now, most = threading.Lock(), [0], [0]

    def counts() -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1

    asyncio.run(call_tools(made(counts), [("counts", {})] * 9, PRO, LlmConfig(parallel_tools=3)))
    assert most[0] == 3


def test_what_changes_something_runs_alone_and_in_its_place():
    lock, log, now = threading.Lock(), list[str](), [0]

    def step(name: str, alone: bool) -> None:
        with lock:
            now[0] += 1
            log.append(f"{name}+")
            assert not alone or now[0] == 1
        time.sleep(0.03)
        with lock:
            now[0] -= 1
            log.append(f"{name}-")

    def look(
        n: str,  # which
    ) -> None:
        "Look."
        step(n, alone=False)

    def change(
        n: str,  # which
    ) -> None:
        "Change."
        step(n, alone=True)

    tools = made(look) | made(change, effect="write")
    calls = [
        ("look", {"n": "a"}),
        ("look", {"n": "b"}),
        ("change", {"n": "c"}),
        ("change", {"n": "d"}),
        ("look", {"n": "e"}),
    ]
    assert asyncio.run(call_tools(tools, calls, PRO, LlmConfig())) == [None] * 5
    assert {*log[:2]} == {"a+", "b+"} and log[4:] == ["c+", "c-", "d+", "d-", "e+", "e-"]


MARK: ContextVar[str] = ContextVar("mark", default="nothing")


def test_a_tool_sees_where_it_was_called_from():
    seen: list[tuple[str, Any]] = []

    def looks() -> None:
        seen.append((MARK.get(), current()))
        MARK.set("changed inside")

    runtime = Runtime()
    MARK.set("outside")
    with using(runtime), log_context(request="r1"), capture_logs():
        ask(made(looks))
    assert seen == [("outside", runtime)] and MARK.get() == "outside"


# --- what comes back ---


class Odd(BaseModel):
    """Names as the documented forms have them."""

    change_percent: Annotated[float, Field(serialization_alias="changePercent")]
    at: pd.Timestamp | None = None

    model_config = {"arbitrary_types_allowed": True}


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (None, None),
        ("oro \ud83d", "oro \ufffd"),
        (float("inf"), None),
        ({"a": float("nan"), "b": [math.inf, 1.5]}, {"a": None, "b": [None, 1.5]}),
        ([Odd(change_percent=math.nan)], [{"changePercent": None, "at": None}]),
        (np.arange(3), [0, 1, 2]),
        (np.array([1.5, np.nan]), [1.5, None]),
        (pd.Series([1.0, np.inf]), [1.0, None]),
        ({"when": pd.Timestamp("2025-01-02", tz="UTC")}, {"when": "2025-01-02T00:00:00Z"}),
        ({"when": pd.NaT, "n": np.int64(3), "x": np.float32(0.5)}, {"when": None, "n": 3, "x": 0.5}),
        (Decimal("0.10"), "0.10"),
        ((1, 2), [1, 2]),
        (Timeframe.H4, "4h"),
    ],
)
def test_what_comes_back_is_json_with_numbers_that_are(value: Any, wire: Any):
    said = ask(made(lambda_of(value)))
    assert said == wire
    json.dumps(said, allow_nan=False)


def ring() -> list[Any]:
    """Return a list that holds itself."""
    made: list[Any] = []
    made.append(made)
    return made


@pytest.mark.parametrize("value", [object(), pd.DataFrame({"a": [1]}), ring(), {1, object()}, b"\xff\xfe", lambda: 1])
def test_what_has_no_form_is_a_failure_that_is_said(value: Any):
    with capture_logs() as notices:
        assert ask(made(lambda_of(value))) == {"error": "TOOL_FAILED", "message": "answer failed; the log says why"}
    assert notices[0]["event"] == "tool failed"


@pytest.mark.parametrize(
    "value",
    [
        "x" * 3_000_000,
        ["x" * 1000] * 3000,
        [{"time": n, "close": 1.5 + n / 7} for n in range(30_000)],
        {f"k{n}": n for n in range(100_000)},
        {"a": {"b": {"c": [[[["deep"] * 1000] * 100]]}}},
        [[[[0.1] * 30] * 30] * 30] * 3,
        {"k" * 100_000: 1, "rest": ["x"] * 100_000},
        ['\U0001f600"\\\n' * 1000] * 300,
    ],
    ids=["text", "texts", "rows", "fields", "deep", "cube", "key", "signs"],
)
def test_a_megabyte_is_cut_to_what_a_model_can_read(value: Any):
    begun = time.perf_counter()
    said = ask(made(lambda_of(value)))
    assert time.perf_counter() - begun < 8
    assert len(json.dumps(said, ensure_ascii=False, allow_nan=False)) <= most_characters(LlmConfig())
    assert said["left_out"], "and what is missing is said"


@settings(max_examples=100, deadline=None)
@example(value=[1.5] * 300, most=2000)
@given(value=JSON, most=st.integers(200, 3000))
def test_no_number_changes_when_a_result_is_cut(value: Any, most: int):
    whole = as_result({"rows": [value] * 40, "last": value})
    cut = cut_result(whole, most)
    assert len(json.dumps(cut, ensure_ascii=False)) <= max(most, 100)
    assert numbers(cut) <= numbers(whole)
    if len(json.dumps(whole, ensure_ascii=False)) <= most:
        assert cut == whole


def numbers(value: Any) -> set[str]:
    """Return the numbers in a value, as they are written."""
    if isinstance(value, dict):
        return {number for each in value.values() for number in numbers(each)}
    if isinstance(value, list):
        return {number for each in value for number in numbers(each)}
    return {repr(value)} if isinstance(value, int | float) and not isinstance(value, bool) else set()


# --- what is kept ---


def test_every_call_is_logged_and_kept_without_its_secrets(tmp_path: Path):
    database = engine(f"sqlite:///{tmp_path / 'o.db'}")
    migrate(database)
    log = ToolCallLog(database)

    def fetch(
        symbol: str,  # any
        api_key: str = "",  # of the provider
    ) -> int:
        "Fetch."
        return 7

    tools = made(fetch)
    with capture_logs() as notices:
        kept = {"keep": log.keep, "conversation_id": "talk"}
        ask(tools, {"symbol": "EURUSD", "api_key": "s3cret"}, call_id="c1", **kept)
        ask(tools, '{"symbol": "XAUUSD", "api_key": "s3cret"}', call_id="c2", **kept)
        ask(tools, "{api_key: s3cret", call_id="c3", **kept)
        ask(tools, {"symbol": "EURUSD", "nested": {"password": "s3cret"}, "big": "x" * 99_999}, call_id="c4", **kept)
    rows = log.calls("ana", "talk")
    assert [(row.id, row.outcome) for row in rows] == [
        ("c1", "done"), ("c2", "done"), ("c3", "ARGUMENTS_INVALID"), ("c4", "ARGUMENTS_INVALID"),
    ]  # fmt: skip
    assert rows[0].arguments == {"symbol": "EURUSD", "api_key": "***"} and rows[0].duration_ms >= 0
    assert "s3cret" not in str(notices) and "s3cret" not in str(rows) and len(str(rows[3].arguments)) < 2_000
    told = [each for each in notices if each["event"] == "tool called"]
    assert len(told) == 4 and {"tool", "arguments", "duration_ms", "outcome", "caller", "tries"} <= {*told[0]}
    assert log.calls("ben", "talk") == [] == log.calls("ana", "other")
    database.dispose()


def test_a_call_that_cannot_be_kept_is_answered_all_the_same():
    def full(call: ToolCall) -> None:
        raise OSError(f"no space left: {SECRET}")

    with capture_logs() as notices:
        assert ask(made(lambda_of(7)), keep=full) == 7
    assert notices[-1]["event"] == "a call of a tool was not kept" and "hunter2" not in str(notices)


@settings(max_examples=80, deadline=None)
@given(value=JSON)
def test_whatever_was_written_can_be_kept(value: Any):
    kept = ToolCall.model_validate(
        {"user_id": "a", "called": "x", "arguments": {"x": masked(value)}, "outcome": "done", "duration_ms": 100}
        | {"started_at": "2025-06-02T09:00:00Z"}
    )
    assert len(kept.model_dump_json()) < 40_000
    json.dumps(kept.arguments, allow_nan=False).encode()
