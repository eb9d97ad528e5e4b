"""Little, flat and violent input: every path answers or names the cause, and its JSON is JSON."""

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from test_cli import Answer, Ask, ask

from orbiquant.core import DataError
from orbiquant.market.synthetic import synthetic_market
from orbiquant.reports.result import jsonable
from orbiquant.research.verdict import why_no_trade
from orbiquant.service.errors import Problem, respond
from orbiquant.wire import to_wire, without_gaps

__all__ = ["ask"]
BARS = synthetic_market(1200, "1h", seed=3).bars
FLAT = BARS.assign(open=1.0, high=1.0, low=1.0, close=1.0)
VIOLENT = BARS.assign(**{n: BARS[n] * np.geomspace(1e-9, 1e6, 1200) for n in ("open", "high", "low", "close")})
MARKETS = {"moving": BARS, "flat": FLAT, "violent": VIOLENT, "two": BARS[:2], "one": BARS[:1], "days": BARS[:120]}


def every(bars: pd.DataFrame, side: int) -> pd.DataFrame:
    """Return a signal on each bar, with a stop at three per mille."""
    return pd.DataFrame({"side": side, "stop_distance": 0.003 * bars["close"]}, bars.index)


NO_WORDS = ("nan", "inf", "-inf", "infinity", "nat", "<na>", "none")
SIGNALS = {"long": lambda bars: every(bars, 1), "held": lambda bars: every(bars, 0), "last": lambda b: every(b[-1:], 1)}


def strict(answer: Answer) -> Any:
    """Return JSON that holds no bare NaN, and no text that stands for one."""

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    def walk(value: Any) -> None:
        if isinstance(value, dict | list):
            for each in value.values() if isinstance(value, dict) else value:
                walk(each)
        assert not (
            isinstance(value, str) and value.lower() in ("nan", "inf", "-inf", "infinity", "nat", "<na>", "none")
        )

    found = json.loads(answer.out, parse_constant=refuse)
    walk(found)
    return found


@pytest.fixture
def typed(ask: Ask, tmp_path: Path):
    """Return a function that runs a command on a market and signals, with JSON."""

    def run(market: str, signals: str, *words: str) -> Answer:
        bars = MARKETS[market]
        bars.reset_index().to_csv(tmp_path / "EURUSD.csv", index=False)
        SIGNALS[signals](bars).reset_index().to_csv(tmp_path / "s.csv", index=False)
        where = ("--bars", str(tmp_path / "EURUSD.csv"), "--timeframe", "1h", "--signals", str(tmp_path / "s.csv"))
        return ask(*words, *where, "--json")

    return run


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("signals", SIGNALS)
def test_a_backtest_answers_whatever_the_market(typed, market: str, signals: str):
    answer = typed(market, signals, "backtest")
    assert answer.code == 0, answer.err
    found = strict(answer)
    missing = {name for name, value in found["metrics"].items() if value is None}
    assert missing == set(found["missing"]) and all(found["missing"].values())
    assert found["metrics"]["total_r"] is not None and found["metrics"]["trades"] == found["trades"]
    annual = {"yearly_return", "volatility", "sharpe", "sortino", "calmar"}
    if found["metrics"]["days"] < 30:
        assert annual <= missing and "fewer than the 30" in found["missing"]["sharpe"]
    if not found["trades"]:
        cause = {"held": "says LONG or SHORT", "last": "no bar after it", "long": "no bar after it"}[signals]
        assert cause in found["verdict"]["detail"]


@pytest.mark.parametrize(
    ("market", "signals", "said"),
    [
        ("flat", "long", "the market stands still"),
        ("flat", "held", "No signal says LONG or SHORT."),
        ("two", "long", "fewer than 15 bars"),
        ("one", "long", "fewer than 15 bars"),
        ("days", "long", "more bars or more signals"),
    ],
)
def test_a_sweep_without_trades_names_the_cause(typed, market: str, signals: str, said: str):
    answer = typed(market, signals, "sweep", "--stop-atr", "20", "--risk-reward", "1")
    assert answer.code == 0 and said in strict(answer)["verdict"]


def test_a_sweep_of_a_violent_market_is_confirmed(typed):
    found = strict(typed("violent", "long", "sweep", "--stop-atr", "1,2", "--risk-reward", "1"))
    assert found["confirmed_by_vectorbt"] and found["headline"]["figures"]["trades"] > 30


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("words", [("delays",), ("surrogates", "--count", "19")])
def test_audits_of_given_signals_say_why_there_is_no_verdict(typed, market: str, words: tuple[str, ...]):
    found = strict(typed(market, "held", "audit", *words))
    assert found["verdict"] == "no verdict" and found["why"]
    assert "trades" in found["why"] or "nothing was traded" in found["why"]


@pytest.mark.parametrize(
    ("market", "words", "code", "said"),
    [
        ("one", ("prefix-replay",), 1, "1 bars are too few to be cut short"),
        ("days", ("prefix-replay",), 1, "120 bars are too few to be cut short"),
        ("one", ("null-market",), 1, "must be at least 3"),
        ("flat", ("null-market",), 1, "`bars` must move to take a market's measure, all 1200 closed at 1"),
        ("flat", ("surrogates", "--claim", "amd", "--count", "19"), 0, "no manipulation was found"),
        ("moving", ("surrogates", "--claim", "amd", "--count", "3"), 0, "3 surrogates show no p-value below 0.25"),
    ],
)
def test_audits_of_the_line_name_the_cause(ask: Ask, tmp_path: Path, market, words, code, said):
    MARKETS[market].reset_index().to_csv(tmp_path / "EURUSD.csv", index=False)
    answer = ask("audit", *words, "--bars", str(tmp_path / "EURUSD.csv"), "--timeframe", "1h", "--json")
    assert answer.code == code and said in " ".join((answer.err + answer.out).split())


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_without_a_signal_says_so(ask: Ask, tmp_path: Path, ending: str):
    BARS.reset_index().to_csv(tmp_path / "EURUSD.csv", index=False)
    empty = every(BARS[:0], 1).reset_index()
    empty.to_csv(tmp_path / "s.csv", index=False) if ending == "csv" else empty.to_parquet(tmp_path / "s.parquet")
    for words in (("backtest",), ("sweep",), ("audit", "delays"), ("audit", "surrogates")):
        answer = ask(*words, "--bars", str(tmp_path / "EURUSD.csv"), "--signals", str(tmp_path / f"s.{ending}"))
        assert answer.code == 1 and f"s.{ending} has no row, so there is no signal to trade" in answer.err


def test_the_rule_that_held_most_is_named():
    held = pd.DataFrame({"action": "HOLD", "reason": ["outside killzone"] * 3 + ["no levels"]})
    assert "3 of them for this: The policy does not trade at this hour." in why_no_trade(held, {})
    assert why_no_trade(held, {}).endswith("`--policy primary` trades every prediction.")
    assert "--policy" not in why_no_trade(held[3:], {})


# --- the wire ---


class Held(BaseModel):
    """A model with figures that may be none."""

    sharpe: float
    many: list[float] = []


FLOATS = [math.nan, math.inf, -math.inf, np.float64("nan"), np.float32("inf")]
GAPS = [*FLOATS, Decimal("NaN"), Decimal("-Infinity"), pd.NaT, pd.NA, np.datetime64("NaT"), pd.Timedelta("NaT"), None]
WORDS = st.text(st.characters(codec="ascii", categories=["Lu"]), max_size=3)
VALUES = st.recursive(
    st.sampled_from(GAPS) | st.floats() | st.integers(-9, 9) | st.decimals() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_whatever_is_told_is_json(value: Any):
    for text in (to_wire(value).decode(), json.dumps(jsonable({"v": value}))):
        assert "NaN" not in text and "Infinity" not in text and "NaT" not in text
        json.loads(text, parse_constant=lambda token: pytest.fail(token))


def test_gaps_are_null_and_the_rest_stays():
    told = json.loads(
        to_wire({"gaps": GAPS, "held": Held(sharpe=math.nan, many=[1, math.inf]), "kept": Decimal("0.10")})
    )
    assert told == {"gaps": [None] * len(GAPS), "held": {"sharpe": None, "many": [1.0, None]}, "kept": "0.10"}
    assert without_gaps({"a": ("x", 1.5, True)}) == {"a": ["x", 1.5, True]}


def test_an_error_tells_whatever_it_holds():
    error = DataError(
        "bad", width=np.float32("nan"), fee=Decimal("NaN"), when=pd.NaT, what={"deep": [math.inf]}, kind=int
    )
    body = respond(422, Problem(error=error.code, message=error.message, details=error.details)).body
    assert json.loads(body)["details"] == {
        "width": None, "fee": None, "when": None, "what": {"deep": [None]}, "kind": "<class 'int'>",
    }  # fmt: skip
