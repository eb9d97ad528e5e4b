"""Signals: nested policies, reasons, causality, and nothing that the domain would refuse."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orbiquant.backtest.simulate import simulate
from orbiquant.core import DataError, OptionError
from orbiquant.domain import Costs, FeatureWeight, SeriesId, Timeframe
from orbiquant.features.config import PhaseConfig
from orbiquant.features.phases import detect_phases
from orbiquant.features.sessions import killzones
from orbiquant.market.synthetic import synthetic_market
from orbiquant.models.labels import barrier_distance
from orbiquant.policies import POLICIES, Policy, find_policy, primary_policy
from orbiquant.signals import (
    REASONS,
    confidence,
    explain_row,
    generate_signals,
    historical_accuracy,
    horizon_text,
    killzone_of,
    to_signal,
)

SESSIONS = {
    "asia": "20:00-00:00",
    "london_open": "02:00-05:00",
    "new_york_am": "08:30-11:00",
    "london_close": "11:00-12:00",
    "new_york_pm": "13:30-16:00",
}
ORDER = ("primary", "base", "aggressive_filter", "balanced_filter", "conservative_filter")

SERIES = SeriesId.parse("EUR/USD", "15m")


class FromColumns:
    """A predictor that reads its answers from feature columns of the same row: causal by construction."""

    def predict(self, features):
        return features[[c for c in features if c.startswith(("p_long", "p_short", "up_", "down_"))]].dropna()


def market(n=4000, seed=3):
    bars = synthetic_market(n, timeframe="15m", seed=seed).bars
    rng = np.random.default_rng(seed)
    zone = killzones(bars.index, SESSIONS)
    columns = {f"killzone_{name}": (zone == name).astype(float) for name in SESSIONS}
    reach = barrier_distance(bars, 1.5) / bars["close"] * rng.gamma(3, 1.2, n)
    features = pd.DataFrame(
        columns
        | {"p_long": rng.uniform(0.1, 0.7, n), "p_short": rng.uniform(0.1, 0.7, n)}
        | {f"{way}_{q}": q * reach for way in ("up", "down") for q in (0.1, 0.5, 0.9)},
        index=bars.index,
    )
    features.iloc[:300, features.columns.get_loc("p_long")] = np.nan
    return bars, features, detect_phases(bars, PhaseConfig())


@pytest.fixture(scope="module")
def scene():
    return market()


def signals_of(scene, policy, stop_atr=1.5, risk_reward=2.0):
    return generate_signals(*scene, FromColumns(), find_policy(policy), stop_atr=stop_atr, risk_reward=risk_reward)


@given(st.floats(0, 1), st.floats(0.1, 10))
def test_confidence_ranks_as_expected_value_does(p, b):
    value = confidence(pd.Series([p]), b).iloc[0]
    assert 0 <= value <= 1
    assert (value > 0.5 + 1e-9) <= (p * b - (1 - p) > 0) and (value < 0.5 - 1e-9) <= (p * b - (1 - p) < 0)
    assert confidence(pd.Series([p]), 1.0).iloc[0] == pytest.approx(p)


def test_confidence_refuses_what_is_no_probability():
    with pytest.raises(DataError, match="`probability` must lie in 0 to 1"):
        confidence(pd.Series([0.5, 1.2]), 2.0)
    with pytest.raises(DataError, match="`risk_reward` must be above 0"):
        confidence(pd.Series([0.5]), 0.0)


def test_policies_grow_stricter_and_each_filter_filters(scene):
    kept = [set(table.index[table["action"] != "HOLD"]) for table in (signals_of(scene, name) for name in ORDER)]
    for looser, stricter in pairwise(kept):
        assert stricter < looser
    assert kept[-1]
    reasons = set().union(*(signals_of(scene, name)["reason"] for name in ORDER))
    assert reasons == {"", *REASONS} - {"no levels", "no setup"}


def test_every_row_has_an_answer_and_every_hold_a_reason(scene):
    bars, _, phases = scene
    for name in ORDER:
        signals = signals_of(scene, name)
        acts = signals["action"] != "HOLD"
        assert signals.index.equals(bars.index) and (acts == (signals["reason"] == "")).all()
        assert (signals["reason"].iloc[:300] == "no prediction").all() and (signals["side"].iloc[:300] == 0).all()
        assert (signals["entry_price"] == bars["close"]).all()
        assert (signals["amd_phase"] == phases["phase"]).all()
        assert (signals["killzone"] == killzones(bars.index, SESSIONS)).all()
        assert (signals["side"][acts] == np.where(signals["action"][acts] == "LONG", 1, -1)).all()
    base = signals_of(scene, "base")
    acts = base["action"] != "HOLD"
    assert base["confidence"][acts].min() >= 0.6 and "manipulation" not in set(base["amd_phase"][acts])


def test_side_and_levels_follow_their_definition(scene):
    bars, features, _ = scene
    signals = signals_of(scene, "primary", stop_atr=2.0, risk_reward=3.0)
    made = signals[signals["side"] != 0]
    p = features.loc[made.index]
    assert (made["side"] == np.where(p["p_short"] > p["p_long"], -1, 1)).all()
    assert np.allclose(made["probability"], p[["p_long", "p_short"]].max(axis=1))
    distance = barrier_distance(bars, 2.0).loc[made.index]
    assert np.allclose(made["side"] * (made["entry_price"] - made["stop_loss"]), distance)
    assert np.allclose(made["side"] * (made["take_profit"] - made["entry_price"]), 3 * distance)
    assert (made["action"] != "HOLD").all() and (made["risk_reward"] == 3).all()


def test_a_row_knows_nothing_of_later_rows(scene):
    bars, features, phases = scene
    for name in ("base", "conservative_filter"):
        full = signals_of(scene, name)
        for cut in (301, 700, 1999, 3500):
            part = signals_of((bars.iloc[:cut], features.iloc[:cut], phases.iloc[:cut]), name)
            pd.testing.assert_frame_equal(part, full.iloc[:cut])


def test_a_leak_would_be_seen(scene):
    bars, features, phases = scene

    class Leaky(FromColumns):
        def predict(self, features):
            return features.assign(p_long=features["p_long"].shift(-1)).dropna()

    full = generate_signals(*scene, Leaky(), POLICIES["base"], stop_atr=1.5, risk_reward=2.0)
    cut = tuple(table.iloc[:2000] for table in (bars, features, phases))
    part = generate_signals(*cut, Leaky(), POLICIES["base"], stop_atr=1.5, risk_reward=2.0)
    with pytest.raises(AssertionError):
        pd.testing.assert_frame_equal(part, full.iloc[:2000])


def test_signals_trade_and_leave_the_house(scene):
    bars, _, _ = scene
    for name in ORDER[1:]:
        signals = signals_of(scene, name)
        acts = signals[signals["action"] != "HOLD"]
        result = simulate(bars, signals, Costs(fee_bps=1), max_holding_bars=24)
        assert len(result.trades) + sum(result.skipped.values()) == len(acts)
        for _, row in pd.concat([acts.iloc[:40], signals.iloc[280:340]]).iterrows():
            signal = to_signal(row, row.name, SERIES, 24, "v1", [FeatureWeight(name="adx", importance=1.0)], decimals=5)
            assert signal.action == row["action"] and signal.reasoning
            assert signal.stop_loss is None or signal.stop_loss == round(row["stop_loss"], 5)


def test_a_market_that_stands_still_has_no_levels(scene):
    bars, features, phases = scene
    still = bars.assign(open=1.0, high=1.0, low=1.0, close=1.0)
    signals = generate_signals(still, features, phases, FromColumns(), primary_policy(), 1.5, 2.0)
    assert set(signals["reason"]) == {"no prediction", "no levels"}
    wide = generate_signals(*scene, FromColumns(), primary_policy(), stop_atr=1e5, risk_reward=2.0)
    assert set(wide["reason"]) == {"no prediction", "no levels"}


@pytest.mark.parametrize("rows", [200, 420])
def test_a_market_that_stops_moving_is_traded_no_more_and_its_backtest_runs(rows: int):
    moving = synthetic_market(rows, timeframe="15m", seed=3).bars
    last = moving["close"].iloc[-1]
    times = pd.date_range(moving.index[-1], periods=601, freq="15min")[1:]
    bars = pd.concat([moving, pd.DataFrame(dict.fromkeys(moving, last), times)])
    features = pd.DataFrame({"p_long": 0.6, "p_short": 0.3}, bars.index)
    signals = generate_signals(
        bars, features, detect_phases(bars, PhaseConfig()), FromColumns(), primary_policy(), 1.5, 2.0
    )
    assert (signals["reason"].iloc[-200:] == "no levels").all() and (signals["action"].iloc[20:150] == "LONG").all()
    assert np.isfinite(simulate(bars, signals, Costs(), max_holding_bars=24).trades["r"]).all()


def test_ties_go_long_and_extremes_are_no_error(scene):
    bars, features, phases = scene
    for p in (0.0, 0.4, 1.0):
        same = features.assign(p_long=p, p_short=p)
        signals = generate_signals(bars, same, phases, FromColumns(), primary_policy(), 1.5, 2.0)
        assert (signals.loc[signals["side"] != 0, "action"] == "LONG").all()


def test_no_bars_no_signals(scene):
    empty = tuple(table.iloc[:0] for table in scene)
    signals = signals_of(empty, "balanced_filter")
    assert len(signals) == 0 and list(signals.columns) == list(signals_of(scene, "base").columns)


def test_predictions_may_cover_a_part(scene):
    bars, features, phases = scene
    some = SimpleNamespace(predict=lambda rows: FromColumns().predict(rows).iloc[1000:1500])
    signals = generate_signals(bars, features, phases, some, primary_policy(), 1.5, 2.0)
    assert (signals["side"] != 0).sum() == 500
    none = SimpleNamespace(predict=lambda rows: FromColumns().predict(rows).iloc[:0])
    signals = generate_signals(bars, features, phases, none, primary_policy(), 1.5, 2.0)
    assert set(signals["reason"]) == {"no prediction"}


def test_wrong_tables_are_refused(scene):
    bars, features, phases = scene
    for given_tables, words in (
        ((bars, features.iloc[1:], phases), "`features` must have the index of `bars`"),
        ((bars, features, phases.iloc[::-1]), "`phases` must have the index of `bars`"),
        ((bars, features.drop(columns="p_long"), phases), "without p_long"),
        ((bars, features.drop(columns="up_0.9"), phases), "without up_0.9"),
        ((bars, features.drop(columns="killzone_london_open"), phases), "without killzone_london_open"),
        ((bars, features, phases.drop(columns="direction")), "without direction"),
    ):
        with pytest.raises(DataError) as caught:
            signals_of(given_tables, "balanced_filter")
        assert words in caught.value.message


def test_daily_bars_lie_in_no_killzone(scene):
    bars, features, phases = scene
    daily = features.drop(columns=[column for column in features if column.startswith("killzone_")])
    signals = signals_of((bars, daily, phases), "balanced_filter")
    assert (signals["action"] == "HOLD").all() and (signals["killzone"] == "none").all()
    assert (signals["reason"] == "outside killzone").any()


def test_killzones_are_read_back_from_features():
    features = pd.DataFrame({"rsi": [1.0, 2.0, 3.0], "killzone_asia": [0, 1, 0], "killzone_late": [0.0, 0.0, 1.0]})
    assert list(killzone_of(features)) == ["none", "asia", "late"]
    assert list(killzone_of(features[["rsi"]])) == ["none"] * 3
    assert list(killzone_of(features.iloc[:0])) == []


def test_no_policy_goes_below_the_domain():
    for wrong in ({"min_confidence": 0.5999}, {"phases": ("accumulation", "manipulation")}, {"threshold": 1}):
        with pytest.raises(ValidationError):
            Policy(name="mine", **wrong)
    with pytest.raises(ValidationError):
        POLICIES["base"].min_confidence = 0.1
    assert all(type(policy) is Policy and policy.name == name for name, policy in POLICIES.items())
    assert find_policy("base", 0.1).min_confidence == 0.6 and find_policy("base", 0.8).min_confidence == 0.8
    assert find_policy("primary").min_confidence == 0
    with pytest.raises(OptionError, match="did you mean 'balanced_filter'"):
        find_policy("balanced_filters")


def test_research_rows_cannot_leave_the_house(scene):
    signals = signals_of(scene, "primary")
    acts = signals[signals["action"] != "HOLD"]
    unsure = acts[acts["confidence"] < 0.6].iloc[0]
    moved = acts[(acts["confidence"] > 0.6) & (acts["amd_phase"] == "manipulation")].iloc[0]
    for row in (unsure, moved):
        with pytest.raises(DataError, match="cannot leave"):
            to_signal(row, row.name, SERIES, 24, "v1")
    flat = acts[acts["confidence"] > 0.7].iloc[0]
    with pytest.raises(DataError, match="needs"):
        to_signal(dict(flat) | {"stop_loss": flat["entry_price"]}, flat.name, SERIES, 24, "v1")


@pytest.mark.parametrize("unit", [1e-10, 1e-8, 1e-3, 1.0, 1e7])
@pytest.mark.parametrize("decimals", [0, 1, 5, 8])
def test_whatever_a_backtest_trades_can_leave_with_its_levels_apart(scene, unit: float, decimals: int):
    bars, features, phases = scene
    priced = bars.assign(**{name: bars[name] * unit for name in ("open", "high", "low", "close")})
    signals = generate_signals(priced, features, phases, FromColumns(), POLICIES["base"], 1.5, 2.0)
    acts = signals[signals["action"] != "HOLD"]
    assert len(simulate(priced, signals, Costs(), max_holding_bars=24).trades) > 20
    for row in acts.iloc[:60].to_dict("records"):
        told = to_signal(row, acts.index[0], SERIES, 24, "v1", decimals=decimals)
        risk = abs(row["entry_price"] - row["stop_loss"])
        for name in ("entry_price", "stop_loss", "take_profit"):
            assert abs(getattr(told, name) - row[name]) <= max(0.051 * risk, 1e-12 * row[name])
    idle = signals.iloc[0]
    assert to_signal(idle, idle.name, SERIES, 24, "v1", decimals=decimals).entry_price == pytest.approx(
        idle["entry_price"], rel=1e-3
    )


def test_reasons_are_sentences(scene):
    for name in ORDER:
        signals = signals_of(scene, name)
        for reason in set(signals["reason"]):
            sentences = explain_row(signals[signals["reason"] == reason].iloc[-1])
            assert all(s[0].isupper() and s.endswith(".") and "nan" not in s for s in sentences)
            assert (sentences[0] == REASONS[reason]) if reason else sentences[0].startswith("The likelier side")


def test_accuracy_counts_only_what_was_closed_before():
    times = pd.date_range("2024-01-01", periods=100, freq="1h", tz="UTC")
    trades = pd.DataFrame({"exit_time": times, "confidence": [0.62, 0.75] * 50, "r": [1.9] * 60 + [-1.1] * 40})
    assert historical_accuracy(trades, 0.63, times[60]) == 1.0
    assert historical_accuracy(trades, 0.63, times[99]) == pytest.approx(30 / 50)
    assert historical_accuracy(trades, 0.63, times[59]) == 1.0
    assert historical_accuracy(trades, 0.63, times[58]) is None
    assert historical_accuracy(trades, 0.9, times[99]) is None
    assert historical_accuracy(trades.iloc[:0], 0.63, times[99]) is None


@pytest.mark.parametrize(
    ("timeframe", "bars", "text"),
    [("1h", 24, "24h"), ("15m", 24, "6h"), ("5m", 9, "45m"), ("1d", 1, "24h"), ("1d", 5, "5d"), ("4h", 12, "2d")],
)
def test_horizons_read_as_people_write_them(timeframe, bars, text):
    assert horizon_text(Timeframe(timeframe), bars) == text
