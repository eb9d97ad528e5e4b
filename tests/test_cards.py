"""Results show one line in a terminal and one card in a notebook; what others typed is never markup."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

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


def test_every_result_is_one_line_and_one_card(bars, signals, result):
    grid = oq.SweepGrid(stop_atr=(1.0, 2.0), risk_reward=(1.0, 2.0))
    sweep = sweep_grid(bars, signals[["side", "entry_price"]], grid, oq.Costs())
    run = {
        "id": "r",
        "name": "research",
        "status": "failed",
        "parameters": {"symbol": "<script>"},
        "folder": Path("/x"),
    }
    report = ReportRun(**run, started=datetime(2024, 1, 1, tzinfo=UTC), code_version="1")
    stored = ModelRegistry(FIXTURES).load(oq.SeriesId.parse("EURUSD", "1h"), None) if FIXTURES.is_dir() else None
    results = [result, monte_carlo(result), sweep, a_signal(), report, *audits().values()]
    results += [sweep.headline(0), *([stored, stored.card] if stored else [])]
    for each in results:
        line, card = repr(each), each._repr_html_()
        assert isinstance(each, Carded) and "\n" not in line and len(line) < 250, line
        assert "nan" not in line.lower() and ">nan" not in card.lower() and "DataFrame" not in line
        assert card.count('<div class="card">') == 1 and len(card) < 8000 and "<script>" not in card


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
