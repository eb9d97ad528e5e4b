"""Results show one line in a terminal and one card in a notebook; what others typed is never markup."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import orbiquant as oq
from orbiquant.backtest.audit import PrefixReplay, WarmupSensitivity
from orbiquant.backtest.null_market import NullMarket
from orbiquant.backtest.robustness import monte_carlo
from orbiquant.backtest.surrogates import SurrogateTest
from orbiquant.backtest.sweep import sweep_grid
from orbiquant.cards import Card, Carded, Tiles, shown
from orbiquant.market.synthetic import synthetic_market
from orbiquant.models.registry import ModelRegistry
from orbiquant.reports.result import ReportRun
from orbiquant.research.accounts import InvestmentAccount
from orbiquant.research.standings import AgentStatus

FIXTURES = Path(__file__).parent / "fixtures" / "models"
TIMES = pd.date_range("2024-01-01", periods=3, freq="h", tz="UTC")


@pytest.fixture(scope="module")
def bars():
    return synthetic_market(1500, "1h", seed=7).bars


@pytest.fixture(scope="module")
def signals(bars):
    at = bars.index[20::20]
    close = bars["close"].loc[at]
    side = pd.Series(np.resize([1, -1], len(at)), at)
    levels = {"stop_loss": close - side * 0.003, "take_profit": close + side * 0.006, "confidence": 0.63}
    return pd.DataFrame({"side": side, "entry_price": close, **levels})


@pytest.fixture(scope="module")
def result(bars, signals):
    return oq.simulate(bars, signals, oq.Costs(fee_bps=0.2), max_holding_bars=24)


def a_signal(**changes):
    levels = {"entry_price": 1.1, "stop_loss": 1.09, "take_profit": 1.12, "risk_reward": 2.0, "horizon": "24h"}
    said = {"amd_phase": "distribution", "reasoning": ["<b>Sure</b> of it."], "features": [], "model_version": "v"}
    head = {"symbol": "EURUSD", "timeframe": "1h", "time": TIMES[0], "action": "LONG", "confidence": 0.63}
    return oq.Signal(**{**head, **levels, **said, **changes})


def audits():
    violations = pd.DataFrame({"column": ["features.rsi", "features.rsi"], "time": TIMES[:2]})
    verdicts = {"policy": ["base", "primary"], "verdict": ["pass", "fail"], "trades": 500, "fewest": 500}
    figures = {"mean_r": [0.01, 0.2], "standard_error_r": 0.02, "coin_r": 0.01, "z": [0.0, 9.0]}
    drawn = pd.DataFrame({"primary": np.linspace(-0.1, 0.1, 99)})
    return {
        "leak": PrefixReplay(180, 5000, (2000, 3000), violations),
        "clean": PrefixReplay(180, 5000, (2000, 3000), violations[:0]),
        "warm": WarmupSensitivity(180, (400, 800), (3000,), violations[:0]),
        "null": NullMarket(pd.DataFrame(), pd.DataFrame(verdicts | figures)),
        "surrogates": SurrogateTest({"primary": 0.3}, drawn, "day"),
    }


def a_report():
    started = datetime(2024, 1, 1, tzinfo=UTC)
    facts = {"id": "r", "name": "research", "status": "failed", "parameters": {"symbol": "<script>"}}
    return ReportRun(**facts, folder=Path("/x"), started=started, code_version="1")


def an_agent():
    lost = {"drawdown": 0.02, "max_drawdown": 0.05, "day_loss": 0.0, "daily_loss": 0.02}
    held = {"open_positions": 1, "max_positions": 3, "engine": None, "warnings": [], "idle": ["<script> is away"]}
    money = {"account": "paper-usdt", "currency": "USDT", "equity": 9_800.0, "balance": 9_800.0}
    who = {"name": "atlas", "status": "running", "reason": "started by ana", "since": None, "profile": "conservative"}
    return AgentStatus(**who, **money, **lost, **held)


def an_account():
    names = {"id": "1", "user_id": "<script>", "product_id": "atlas-conservative", "agent": "atlas"}
    money = {"current_balance": Decimal("1050.25"), "cash_balance": Decimal(20), "pending_balance": Decimal(0)}
    states = {"agent_status": "running", "status": "open", "currency": "USDT", "opened_at": TIMES[0]}
    return InvestmentAccount(**names, **money, **states, units=Decimal("10.5"), nav=Decimal("100.0238"))


def a_sweep(bars, signals):
    grid = oq.SweepGrid(stop_atr=(1.0, 2.0), risk_reward=(1.0, 2.0))
    return sweep_grid(bars, signals[["side", "entry_price"]], grid, oq.Costs())


def a_model():
    return ModelRegistry(FIXTURES).load(oq.SeriesId.parse("EURUSD", "1h"), None)


# kind → how it is made of bars, signals and a backtest; whether a person would look at a chart of it
KINDS = {
    "bars": (lambda bars, signals, result: oq.view(bars), True),
    "phases": (lambda bars, signals, result: oq.view(oq.detect_phases(bars), bars), True),
    "signals": (lambda bars, signals, result: oq.view(signals, bars), True),
    "signal": (lambda *_: a_signal(), False),
    "backtest": (lambda bars, signals, result: result, True),
    "monte carlo": (lambda bars, signals, result: monte_carlo(result), False),
    "sweep": (lambda bars, signals, result: a_sweep(bars, signals), True),
    "best of a sweep": (lambda bars, signals, result: a_sweep(bars, signals).headline(0), False),
    "training": (lambda *_: a_model(), True),
    "model card": (lambda *_: a_model().card, False),
    "leak": (lambda *_: audits()["leak"], False),
    "clean audit": (lambda *_: audits()["clean"], False),
    "warm-up": (lambda *_: audits()["warm"], False),
    "null market": (lambda *_: audits()["null"], True),
    "surrogates": (lambda *_: audits()["surrogates"], True),
    "agent": (lambda *_: an_agent(), False),
    "account": (lambda *_: an_account(), False),
    "report": (lambda *_: a_report(), False),
}
CHARTLESS = {"best of a sweep", "model card", "null market", "surrogates", "report"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_line_a_card_a_table_json_and_a_chart(kind: str, bars, signals, result):
    make, drawn = KINDS[kind]
    found = make(bars, signals, result)
    line, card, told = repr(found), found._repr_html_(), found.as_json()
    assert isinstance(found, Carded) and "\n" not in line and len(line) < 250, line
    assert "nan" not in line.lower() and ">nan" not in card.lower() and "DataFrame" not in line
    assert card.count('<div class="card">') == 1 and len(card) < 8000 and "<script>" not in card
    assert ("<polyline" in card or 'class="card-shares"' in card) == (kind not in CHARTLESS), "a small chart"
    screen = Console(file=StringIO(), width=100)
    screen.print(found)
    title = found.as_card().title.split()[0]
    assert title in screen.file.getvalue() and "╭" in screen.file.getvalue()
    assert json.loads(json.dumps(told, allow_nan=False)) == told and told["title"] == found.as_card().title
    assert {*told} == {"kind", "title", "verdict", "note", "figures"} and told["figures"], told
    if drawn:
        assert len(found.plot().data) >= 1


def test_what_a_program_reads_are_numbers(result):
    told = result.as_json()["figures"]
    assert told["expectancy_r"] == pytest.approx(result.trades["r"].mean()) and told["trades"] == len(result.trades)
    assert a_signal().as_json()["figures"]["entry_price"] == 1.1
    assert an_account().as_json()["figures"]["nav"] == "100.0238", "money is exact"
    assert audits()["leak"].as_json()["figures"]["changed"] == ["features.rsi"]
    assert audits()["surrogates"].as_json()["figures"]["claims"][0]["verdict"] == "pass"


def test_a_card_escapes_what_others_wrote_and_has_no_ink_of_its_own():
    card = a_signal()._repr_html_()
    assert "&lt;b&gt;Sure" in card and "<b>Sure" not in card
    body = Card("<i>", {"<u>": ("<s>", 'x" onload="')}, "<v>", 'y" z="', "<n>")._repr_html_()
    for tag in ("<i>", "<u>", "<s>", "<v>", "<n>", 'onload="', ' z="'):
        assert tag not in body
    plain = Tiles({"trades": "35"})._repr_html_()
    assert "background" not in plain and "color:#0" not in plain.partition("</style>")[2]


def test_a_backtest_says_its_figures_with_their_units(result):
    line = repr(result)
    assert line.startswith(f"<Backtest: trades {len(result.trades)}, mean net R a trade ")
    r = result.trades["r"]
    assert f"{shown(r.mean(), '+.2f')} ± {shown(r.sem())} R" in line
    assert "<polyline" in result._repr_html_() and result.plot().layout.title.text.startswith("Equity of")


def test_a_backtest_without_trades_says_so_without_figures(bars, signals):
    quiet = oq.simulate(bars, signals.iloc[:0], oq.Costs())
    assert repr(quiet) == "<Backtest: No trade>" and "–" not in quiet._repr_html_()
    late = oq.simulate(bars, signals.assign(stop_loss=bars["close"].max() * 2).iloc[:0], oq.Costs())
    assert "nan" not in late._repr_html_().lower()


def test_audits_say_pass_and_fail_in_words_and_in_colour():
    said = audits()
    assert (
        repr(said["leak"]).startswith("<Prefix replay: Cutting off the future changes 1 of")
        and "bad" in said["leak"]._repr_html_()
    )
    assert repr(said["clean"]).startswith("<Prefix replay: No past value changed")
    assert repr(said["null"]).startswith("<A market without an edge: fail")
    marks = said["null"].plot().data[0]
    assert len(marks.x) == 2 and len(set(marks.marker.color)) == 2
    assert [len(trace.x) for trace in said["surrogates"].plot().data] == [99, 1]
    assert "p 0.010" in said["surrogates"]._repr_html_()


def test_a_sweep_draws_itself_and_flatters_nobody(bars, signals):
    grid = oq.SweepGrid(stop_atr=(1.0, 2.0), risk_reward=(1.0, 2.0), max_holding_bars=(12, 24))
    sweep = sweep_grid(bars, signals[["side", "entry_price"]], grid, oq.Costs())
    drawn = sweep.plot().data[0]
    assert drawn.z.shape == (2, 2)
    cell = sweep.table.query("stop_atr == 1 and risk_reward == 2")["expectancy_r"].median()
    assert drawn.z[list(drawn.y).index("2")][list(drawn.x).index("1")] == pytest.approx(cell, abs=1e-5)
    assert "flatters itself" in sweep._repr_html_()
    few = replace(sweep, table=sweep.table.assign(trades=3))
    assert "No combination has 30 trades" in repr(few)


@pytest.mark.parametrize(
    ("value", "form", "unit", "text"),
    [
        (0.3714, ".1%", "", "37.1 %"),
        (-0.154, "+.2f", "R", "−0.15 R"),
        (-0.001, "+.2f", "R", "0.00 R"),
        (float("nan"), ".2f", "R", "–"),
        (float("inf"), ".2f", "", "–"),
        (None, ".2f", "", "–"),
        (np.float64(1234567.8), ",.0f", "", "1,234,568"),
    ],
)
def test_figures_are_written_as_people_read_them(value, form, unit, text):
    assert shown(value, form, unit) == text


def test_what_is_served_is_not_changed_by_the_card():
    signal = a_signal()
    assert set(json.loads(signal.model_dump_json())) == set(oq.Signal.model_fields)
