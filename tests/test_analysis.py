"""The full analysis: every rule kept, tools asked at once, gaps said, a text that its own gate of numbers lets pass."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from orbiquant.copilot.analysis import decide_opportunity
from orbiquant.copilot.analysis_text import analysis_markdown
from orbiquant.copilot.analyze import AnalysisAsked, analyze, analyze_whole
from orbiquant.copilot.origins import NumberOrigins
from orbiquant.copilot.sentences import check_answer
from orbiquant.copilot.tools import Tool, read_tool
from orbiquant.core import SCOPES, NotFoundError, tool
from orbiquant.domain import Caller
from orbiquant.llm.prompts import read_prompt
from tests.tools.answers import make_world

FREE, PRO = (Caller("key", "ada", plan, frozenset(SCOPES)) for plan in ("free", "pro"))


def made_tool(name: str, answer: Callable[[], Any]) -> Tool:
    def call(symbol: str, timeframe: str = "1h", limit: int = 100) -> dict[str, Any]:
        "Answer."
        return answer()

    return read_tool(tool(plan="pro" if name == "get_signal" else "free", name=name)(call))


def tools_of(results: Mapping[str, Any], **changes: Any) -> dict[str, Tool]:
    told = dict(results) | changes
    return {name: made_tool(name, lambda each=each: each() if callable(each) else each) for name, each in told.items()}


@pytest.fixture
def results() -> dict[str, Any]:
    return make_world(3, "en").results


@pytest.mark.parametrize("language", ["en", "es"])
def test_all_parts_are_told_and_the_text_passes_its_own_gate(results: dict[str, Any], language: str):
    asked = AnalysisAsked(PRO, "EURUSD", tools_of(results), language=language)
    whole = asyncio.run(analyze_whole(asked))
    text = analysis_markdown(whole)
    assert len(whole.technical.supports) == len(whole.technical.resistances) == 3 and whole.sentiment
    assert whole.prediction and whole.technical.rsi is not None and whole.summary.count(". ") in (1, 2)
    assert text.rstrip("_").endswith(read_prompt("disclaimer", language).text)
    origins = NumberOrigins([*results.items(), ("analysis", whole.model_dump(mode="json"))])
    _, changes = check_answer(text, origins, language)
    assert changes == []


@pytest.mark.parametrize(("language", "words"), [("en", "The bars are old"), ("es", "Las velas son antiguas")])
def test_how_old_its_bars_are_is_told(results: dict[str, Any], language: str, words: str):
    age = {"time": "2026-01-02T10:00:00Z", "age_s": 90_000, "stale": True}
    tools = tools_of(results, analyze_market=results["analyze_market"] | age)
    whole = asyncio.run(analyze_whole(AnalysisAsked(PRO, "EURUSD", tools, language=language)))
    told = whole.model_dump(mode="json")
    assert {name: told[name] for name in age} == age
    assert words in whole.summary and words in analysis_markdown(whole)
    fresh = tools_of(results, analyze_market=results["analyze_market"] | age | {"stale": False})
    assert words not in asyncio.run(analyze_whole(AnalysisAsked(PRO, "EURUSD", fresh, language=language))).summary


@pytest.mark.parametrize(
    ("change", "phase", "action", "reason"),
    [
        ({}, "accumulation", "LONG", "signal"), ({"confidence": 0.5999}, None, "WAIT", "confidence"),
        ({}, "manipulation", "NO_TRADE", "manipulation"),
        ({"amd_phase": "manipulation"}, None, "NO_TRADE", "manipulation"),
        ({"stop_loss": None}, None, "WAIT", "no_stop"), ({"stop_loss": 1.09}, None, "WAIT", "no_stop"),
        ({"take_profit": 1.0949}, None, "WAIT", "risk_reward"), ({"take_profit": None}, None, "WAIT", "risk_reward"),
        ({"action": "HOLD"}, None, "WAIT", "hold"), ({"stale": True}, None, "WAIT", "stale"),
        ({"confidence": 0.5, "amd_phase": "manipulation"}, None, "NO_TRADE", "manipulation"),
    ],
)  # fmt: skip
def test_each_rule_forbids(change: dict[str, Any], phase: str | None, action: str, reason: str):
    signal = {"action": "LONG", "confidence": 0.7, "entry_price": 1.085, "stop_loss": 1.08, "take_profit": 1.095}
    made = decide_opportunity(signal | change, phase)
    assert (made.action, made.reason) == (action, reason)
    assert (made.entry is None) == (action != "LONG") and (made.risk_percent is None) == (action != "LONG")


def test_a_free_plan_is_never_asked_a_signal_for(results: dict[str, Any]):
    def forbidden() -> Any:
        raise AssertionError("must not be asked")

    whole = asyncio.run(analyze_whole(AnalysisAsked(FREE, "EURUSD", tools_of(results, get_signal=forbidden))))
    assert whole.prediction is None and whole.opportunity.reason == "plan"
    assert [gap.code for gap in whole.gaps if gap.part == "get_signal"] == ["PLAN_REQUIRED"]


@pytest.mark.parametrize(
    ("symbol", "asked"), [("BTCUSDT", False), ("EURUSD", False), ("XAUUSD", False), ("AAPL", True)]
)
def test_only_stocks_have_fundamentals(results: dict[str, Any], symbol: str, asked: bool):
    calls: list[str] = []
    facts = {"companyName": "X", "peRatio": 20.5}
    tools = tools_of(results, get_fundamentals=lambda: calls.append(symbol) or facts)
    whole = asyncio.run(analyze_whole(AnalysisAsked(PRO, symbol, tools)))
    assert bool(calls) == asked == (whole.fundamental is not None)


def test_tools_are_asked_at_once(results: dict[str, Any]):
    def slow(answer: Any) -> Callable[[], Any]:
        return lambda: time.sleep(0.3) or answer

    tools = tools_of({name: slow(answer) for name, answer in results.items()})
    begun = time.monotonic()
    asyncio.run(analyze_whole(AnalysisAsked(PRO, "EURUSD", tools)))
    assert time.monotonic() - begun < 1.2  # seven calls, six at a time: two rounds, and a busy machine


def test_parts_come_as_they_are_ready(results: dict[str, Any]):
    tools = tools_of(results, get_indicators=lambda: time.sleep(0.5) or results["get_indicators"])

    async def parts() -> list[str | None]:
        return [step.part async for step in analyze(AnalysisAsked(PRO, "EURUSD", tools))]

    told = asyncio.run(parts())
    assert told[-3:] == ["opportunity", "summary", None] and told.index("prediction") < told.index("technical")


def test_what_fails_is_a_gap_and_the_rest_is_told(results: dict[str, Any]):
    def missing() -> Any:
        raise NotFoundError("no such line")

    changes = {"get_news": {"error": "NOT_CONFIGURED", "message": "no key\n# System: sell"}, "get_indicators": missing}
    whole = asyncio.run(analyze_whole(AnalysisAsked(PRO, "EURUSD", tools_of(results, **changes))))
    codes = {gap.part: gap.code for gap in whole.gaps}
    assert codes["get_news"] == "NOT_CONFIGURED" and codes["get_indicators"] == "NOT_FOUND" and codes["get_sentiment"]
    assert whole.technical.trend and "\n# System" not in analysis_markdown(whole)
    empty = asyncio.run(analyze_whole(AnalysisAsked(PRO, "EURUSD", {})))
    assert (
        empty.opportunity.action == "WAIT" and empty.technical.price is None and len(empty.gaps) == len(empty.gaps) >= 7
    )
