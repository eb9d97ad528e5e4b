"""The evaluation of a model: files, counting, and the gate of unconfirmed trades."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel
from test_service_http import make_runtime
from typer.testing import CliRunner

from orbiquant.cli.program import program
from orbiquant.copilot import evaluate
from orbiquant.copilot.eval_asking import EvalAnswer, offered_tools
from orbiquant.copilot.eval_cases import EvalCase, argument_names, own_cases, read_cases, tool_names
from orbiquant.copilot.eval_judging import judge_answer, normalise_arguments
from orbiquant.copilot.evaluate import evaluate_model
from orbiquant.copilot.tools import Tool, find_tools
from orbiquant.core import DataError, ToolInfo
from orbiquant.runtime import using

GOOD = '{"id": "1", "lang": "en", "text": "gold?", "tool": "get_price", "args": {"symbol": "gold"}}'
PAIR = (
    '{"id": "1", "lang": "en", "text": "gold, and 3 news", "kind": "parallel", '
    '"calls": [["get_price", {"symbol": "gold"}], ["get_news", {"limit": 3}]]}'
)
KNOWN, TAKES = tool_names({}), argument_names({})


def written(folder: Path, *lines: str | bytes) -> Path:
    file = folder / "cases.jsonl"
    file.write_bytes(b"\n".join(each if isinstance(each, bytes) else each.encode() for each in lines))
    return file


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([GOOD, "{"], "line 2: no JSON"),
        ([GOOD, "", "[]"], "line 3: "),
        ([GOOD.replace("get_price", "get_prise")], "did you mean 'get_price'"),
        ([GOOD, GOOD], "line 2: `id` '1' is there twice"),
        ([GOOD.replace('"lang": "en", ', "")], "line 1: `lang`"),
        ([GOOD.replace('{"symbol": "gold"}', '"gold"')], "line 1: `args"),
        ([GOOD.replace('"id"', '"odd": 1, "id"')], "line 1: `odd`"),
        ([], "no questions"),
        ([b"\xff\xfe"], "not UTF-8"),
        (["[" * 100_000], "line 1"),
        ([GOOD.replace('"gold"}', "1" * 5000 + "}")], "line 1: a number has more than 4,300 digits"),
        ([GOOD.replace('"gold"}', "NaN}")], "line 1: NaN is no number"),
        ([GOOD.replace('"gold"}', '"\\ud800"}')], "line 1: half a character"),
        ([GOOD.replace('"id"', '"id": "0", "id"')], "line 1: 'id' is there twice"),
        ([GOOD.replace('"symbol"', '"symbol": "oil", "symbol"')], "line 1: 'symbol' is there twice"),
        ([GOOD.replace('"symbol"', '"symbl"')], "line 1: 'symbl' is no argument of get_price, did you mean 'symbol'"),
        ([PAIR.replace('"limit"', '"limits"')], "line 1: 'limits' is no argument of get_news, did you mean 'limit'"),
        ([GOOD, "[]"], "line 2: must be an object"),
        ([GOOD, "3"], "line 2: must be an object"),
        ([GOOD.replace('{"symbol": "gold"}', "[]")], "line 1: `args` must be an object"),
        ([PAIR.replace('["get_news", {"limit": 3}]', '"get_news"')], "line 1: `calls.1` must be a list"),
        (
            [PAIR.replace('{"limit": 3}', '{"limit": 3}, 1')],
            "line 1: `calls.1` a list should have at most 2 items, not 3",
        ),
    ],
)
def test_a_broken_file_is_refused_with_its_line(tmp_path: Path, lines: list[str | bytes], told: str):
    with pytest.raises(DataError) as refused:
        read_cases(written(tmp_path, *lines), KNOWN, takes=TAKES)
    assert told in refused.value.message
    left_out: list[str] = []
    if "line" in told:
        good = GOOD.replace('"1"', '"good"')
        found = read_cases(written(tmp_path, *lines, good), KNOWN, left_out.append, TAKES)
        assert found[-1].id == "good" and len(left_out) == 1 and told in left_out[0]


def test_an_argument_may_be_named_by_any_of_its_names(tmp_path: Path):
    tools = find_tools()
    one = {"id": "1", "lang": "en", "text": "size?", "tool": "calculate_position_size", "args": {"stop": 1, "entry": 2}}
    other = {"id": "2", "lang": "en", "text": "5 bars", "tool": "get_ohlcv", "args": {"bars": 5, "symbol": "gold"}}
    file = written(tmp_path, json.dumps(one), json.dumps(other))
    assert len(read_cases(file, tool_names(tools), takes=argument_names(tools))) == 2
    left_out: list[str] = []
    read_cases(own_cases(), tool_names(tools), left_out.append, argument_names(tools))
    broken = len(left_out)
    assert broken == 0, "the product's own questions name arguments that there are"


def test_a_folder_is_no_file_and_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(DataError):
            read_cases(place, KNOWN)


def test_aliases_and_none_are_tools(tmp_path: Path):
    lines = [GOOD.replace("get_price", "get_ml_signals"), '{"id": "2", "lang": "es", "text": "hola", "tool": "none"}']
    assert [case.tool for case in read_cases(written(tmp_path, *lines), KNOWN)] == ["get_signal", "none"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"symbol": "oro"}, {"symbol": "XAU/USD"}), ({"symbol": "cable"}, {"symbol": "gbpusd"}),
        ({"limit": 50}, {"bars": "50"}), ({"price": 2400}, {"price": 2400.0}), ({"stop": 1.1}, {"stop_loss": "1.10"}),
        ({"concept": "Order Blocks"}, {"concept": "the order block"}), ({"action": "BUY"}, {"action": "buy"}),
        ({"indicators": ["RSI", "MACD"]}, {"indicators": ["macd", "rsi"]}), ({}, {"timeframe": None}),
        ({"condition": "above"}, {"condition": "above", "message": "gold at 2400"}),
    ],
)  # fmt: skip
def test_arguments_that_mean_the_same_are_equal(one: dict[str, Any], other: dict[str, Any]):
    assert normalise_arguments(one) == normalise_arguments(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"symbol": "oro"}, {"symbol": "XAGUSD"}), ({"limit": 50}, {"limit": 5}), ({}, {"timeframe": "1h"}),
        ({"symbol": "EURUSD"}, {}), ({"action": "BUY"}, {"action": "SELL"}),
    ],
)  # fmt: skip
def test_arguments_that_mean_another_thing_differ(one: dict[str, Any], other: dict[str, Any]):
    assert normalise_arguments(one) != normalise_arguments(other)


CASE = EvalCase(id="1", lang="en", text="gold?", tool="get_price", args={"symbol": "gold"})
NOTHING = EvalCase(id="2", lang="en", text="hi", tool="none")


@pytest.mark.parametrize(
    ("case", "answer", "reason"),
    [
        (CASE, EvalAnswer(calls=[("get_price", {"symbol": "XAUUSD"})]), ""),
        (CASE, EvalAnswer(calls=[("get_price", {"symbol": "XAUUSD", "odd": 1})]), "arguments"),
        (CASE, EvalAnswer(calls=[("get_price", {"symbol": "gold"}), ("get_news", {})]), "tool"),
        (CASE, EvalAnswer(text="Which symbol?"), "asked back"),
        (CASE, EvalAnswer(text="I do not know."), "tool"),
        (CASE, EvalAnswer(error="ValueError: x"), "error"),
        (NOTHING, EvalAnswer(text="Hello, what can I do for you?"), ""),
        (NOTHING, EvalAnswer(text="1. price\n2. news\nWhich one?"), "asked back"),
        (NOTHING, EvalAnswer(calls=[("get_price", {"symbol": "gold"})]), "tool"),
    ],
)
def test_judgement(case: EvalCase, answer: EvalAnswer, reason: str):
    assert judge_answer(case, answer, offered_tools({}), KNOWN).reason == reason


def trading_tool(effect: str) -> dict[str, Tool]:
    """Return `execute_trade` with an effect."""
    made = next(iter(find_tools().values()))
    info = replace(made.info, effect=effect, name="execute_trade") if isinstance(made.info, ToolInfo) else made.info
    return {"execute_trade": replace(made, name="execute_trade", info=info)}


def model_that_trades() -> FunctionModel:
    async def speak(messages: Any, info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        yield {0: DeltaToolCall("execute_trade", '{"symbol": "XAUUSD"}')}

    return FunctionModel(stream_function=speak, model_name="eager")


@pytest.mark.parametrize(("effect", "unconfirmed"), [("trade", 0), ("read", 2), ("write", 2)])
def test_a_trade_that_would_not_wait_for_approval_is_counted(effect: str, unconfirmed: int):
    report = asyncio.run(evaluate_model(model_that_trades(), [CASE, NOTHING], trading_tool(effect)))
    assert report.unconfirmed_trades == unconfirmed and report.overall.tool.share == 0


def test_a_model_that_fails_is_a_figure():
    async def speak(messages: Any, info: AgentInfo) -> AsyncIterator[str]:
        raise ConnectionError("the server is away")
        yield ""

    report = asyncio.run(evaluate_model(FunctionModel(stream_function=speak), [CASE], {}))
    assert report.errors == 1 and "the server is away" in report.failures[0].detail


def test_figures_are_of_their_groups():
    async def speak(messages: Any, info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        yield {0: DeltaToolCall("get_price", '{"symbol": "XAUUSD"}')}

    spanish = CASE.model_copy(update={"id": "3", "lang": "es", "args": {"symbol": "plata"}})
    report = asyncio.run(evaluate_model(FunctionModel(stream_function=speak), [CASE, NOTHING, spanish], {}))
    assert report.overall.tool.share == pytest.approx(2 / 3) and report.overall.arguments.share == 0.5
    assert report.languages["es"].arguments.share == 0 and report.tools["none"].tool.share == 0
    assert 0 < report.overall.tool.low < 2 / 3 < report.overall.tool.high < 1 and {
        each.id: each.reason for each in report.failures
    } == {
        "2": "tool",
        "3": "arguments",
    }


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    return written(tmp_path, GOOD, '{"id": "2", "lang": "es", "text": "gracias", "tool": "none", "args": {}}')


def test_the_command_prints_json(cases: Path):
    said = CliRunner().invoke(program, ["llm", "eval", "--provider", "router", "--cases", str(cases), "--json"])
    told = json.loads(said.stdout)
    assert said.exit_code == 0 and told["overall"]["questions"] == 2 and told["unconfirmed_trades"] == 0
    assert told["provider"] == "router" and set(told["languages"]) == {"en", "es"}


def test_an_unconfirmed_trade_ends_the_command_with_1(cases: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("orbiquant.copilot.tools.find_tools", lambda: trading_tool("read"))
    monkeypatch.setattr(evaluate, "open_evaluated", lambda runtime, provider: (model_that_trades(), None, False))
    said = CliRunner().invoke(program, ["llm", "eval", "--provider", "router", "--cases", str(cases), "--json"])
    assert said.exit_code == 1 and json.loads(said.stdout)["unconfirmed_trades"] == 2


def test_the_model_of_the_settings_is_asked(cases: Path, tmp_path: Path):
    with using(make_runtime(tmp_path)):
        said = CliRunner().invoke(program, ["llm", "eval", "--cases", str(cases)])
    assert said.exit_code == 0 and "questions" in said.stdout
