"""What is said where nothing, or little, was traded, and what stands beside an account."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from orbiquant.backtest.comparison import buy_and_hold, random_entries, random_signals
from orbiquant.backtest.simulate import simulate, summarise
from orbiquant.core import DataError
from orbiquant.domain import Costs
from orbiquant.features.matrix import build_features
from orbiquant.features.phases import detect_phases
from orbiquant.features.spec import FeatureSpec
from orbiquant.market.synthetic import synthetic_market
from orbiquant.models.skill import count_skill, tell_skill
from orbiquant.policies import POLICY_NAMES, find_policy
from orbiquant.research.train import Traded
from orbiquant.research.unfiltered import held_rows, tell_held, unfiltered, unfiltered_signals
from orbiquant.research.verdict import judge_traded, warnings_of
from orbiquant.signals import REASONS, generate_signals
from orbiquant.traits import describe_trades

BARS = synthetic_market(1500, "1h", seed=7).bars
COSTS = Costs(fee_bps=1, spread_bps=1)


class Coin:
    """Predictions that know nothing."""

    def predict(self, features: pd.DataFrame) -> pd.DataFrame:
        rng = np.random.default_rng(7)
        said = {f"p_{side}": rng.uniform(0.2, 0.6, len(features)) for side in ("long", "short")}
        reach = {f"{way}_{q:g}": 0.01 for way in ("up", "down") for q in (0.5, 0.9)}
        return pd.DataFrame(said | reach, index=features.index).iloc[300:]


@pytest.fixture(scope="module")
def described() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return features and phases of the bars."""
    spec = FeatureSpec(timeframe="1h", calendar="forex")
    return build_features(BARS, spec), detect_phases(BARS, spec.phases)


def traded_by(name: str, described: tuple[pd.DataFrame, pd.DataFrame]) -> Traded:
    """Return the backtest of a policy over the coin's predictions."""
    signals = generate_signals(BARS, *described, Coin(), find_policy(name), stop_atr=1.5, risk_reward=2.0)
    result = simulate(BARS, signals, COSTS, max_holding_bars=24)
    return Traded(signals, result, summarise(result), BARS)


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_the_unfiltered_signal_of_any_policy_is_the_primary_policys(name: str, described):
    primary, own = traded_by("primary", described), traded_by(name, described)
    again = unfiltered(own)
    assert again is not None and again.summary == pytest.approx(primary.summary, nan_ok=True)
    pd.testing.assert_frame_equal(again.result.trades, primary.result.trades)
    pd.testing.assert_frame_equal(unfiltered_signals(own.signals), primary.signals)


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_every_held_row_is_counted_under_a_rule(name: str, described):
    signals = traded_by(name, described).signals
    held = held_rows(signals)
    assert held["rows"].sum() == (signals["reason"] != "").sum() and held["share"].between(0, 1).all()
    assert set(held.index) <= set(REASONS) and held["meaning"].map(len).gt(0).all()
    assert f"{held['rows'].sum():,} of {len(signals):,} rows" in tell_held(signals)


def nothing_traded(described, reason: str = "low confidence") -> Traded:
    """Return a backtest whose policy held every row that the models spoke of."""
    signals = traded_by("primary", described).signals
    reasons = signals["reason"].where(signals["reason"] != "", reason)
    signals = signals.assign(action="HOLD", reason=reasons)
    result = simulate(BARS, signals, COSTS, max_holding_bars=24)
    return Traded(signals, result, summarise(result), BARS)


@pytest.mark.parametrize("reason", ["low confidence", "phase not traded", "against phase", "outside killzone"])
def test_a_backtest_without_trades_explains_itself(described, reason: str):
    detail = judge_traded(nothing_traded(described, reason)).detail
    assert f"{reason}" in detail and "300 no prediction" in detail
    assert "The unfiltered primary, for comparison: " in detail and " ± " in detail and "To try: " in detail
    assert "nan" not in detail and "0 draws" not in detail


def test_given_signals_without_trades_have_no_primary(described):
    nothing = nothing_traded(described)
    detail = judge_traded(nothing, given=True).detail
    assert "primary, for comparison" not in detail


def test_the_sample_says_what_it_can(described):
    nothing = nothing_traded(described)
    primary = traded_by("primary", described)
    skill = pd.DataFrame({"target": ["up"], "metric": ["r2"], "skill": [0.1], "low": [-0.1], "high": [0.2]})
    stored = SimpleNamespace(skill=skill, folds=pd.DataFrame({"error": [""]}))
    held = warnings_of(BARS, stored, nothing, 5, None, primary)
    mean, error = primary.summary["expectancy_r"], primary.summary["standard_error_r"]
    assert any(f"{len(primary.result.trades)} trades of {mean:+.3f} ± {error:.3f} R" in line for line in held)
    assert held[0] == "Sample size: 0 trades; under 100, luck decides."
    assert not any("1 trades" in line for line in held)


# --- skill in one sentence ---


def test_a_skill_whose_interval_holds_zero_is_no_win():
    rows = [
        ("up", 0.2, -0.01, 0.4),
        ("long", 0.1, 0.01, 0.2),
        ("meta", -0.2, -0.3, -0.1),
        ("short", 0.9, np.nan, np.nan),
    ]
    skill = pd.DataFrame(rows, columns=["target", "skill", "low", "high"])
    assert count_skill(skill)[["above", "below"]].to_numpy().tolist() == [[0, 0], [1, 0], [0, 1]]
    told = tell_skill(skill)
    assert told.startswith("1 of 4 skill figures lies above") and "target before stop." in told and "3 models" in told


# --- what stands beside an account ---


def test_buy_and_hold_pays_both_ends(described):
    result = traded_by("primary", described).result
    worth = buy_and_hold(BARS, result)
    side = (COSTS.fee_bps + COSTS.slippage_bps + COSTS.spread_bps / 2) / 1e4
    assert worth.iloc[-1] == pytest.approx(10_000 * (1 - side) ** 2 * BARS["close"].iloc[-1] / BARS["open"].iloc[0])
    assert worth.index.equals(BARS.index) and buy_and_hold(BARS[:0], result).empty


@pytest.mark.parametrize("name", ["primary", "base"])
def test_random_entries_are_as_frequent_and_seeded(name: str, described):
    own = traded_by(name, described)
    if not len(own.result.trades):
        pytest.skip("the coin was never sure")
    band, figures = random_entries(own.bars, own.signals, own.result, draws=12, seed=3)
    assert figures["trades"].mean() == pytest.approx(len(own.result.trades), rel=0.25, abs=3)
    again, _ = random_entries(own.bars, own.signals, own.result, draws=12, seed=3)
    other, _ = random_entries(own.bars, own.signals, own.result, draws=12, seed=4)
    assert band.equals(again) and not band.equals(other)


def test_random_entries_never_see_the_result(described):
    own = traded_by("primary", described)
    rng = np.random.default_rng(7)
    drawn = random_signals(own.signals, own.result.trades, rng)
    acting = drawn["action"] != "HOLD"
    assert (own.signals["side"][acting] != 0).all(), "only where the models could place levels"
    distance = (own.signals["entry_price"] - own.signals["stop_loss"]).abs()
    pd.testing.assert_series_equal((drawn["entry_price"] - drawn["stop_loss"]).abs(), distance, check_names=False)
    with pytest.raises(DataError, match="`signals` must have the columns"):
        random_signals(own.signals.drop(columns="side"), own.result.trades, rng)


# --- what trades have in common ---


def many(count: int, **columns: object) -> pd.DataFrame:
    """Return trades, two days apart."""
    times = pd.date_range("2026-01-05", periods=count, freq="49h", tz="UTC")
    return pd.DataFrame({"entry_time": times, "side": 1, "r": 0.1, "exit_reason": "stop"} | columns)


def test_trades_alike_are_told_alike():
    trades = many(
        40, side=[-1] * 38 + [1, 1], amd_phase=["accumulation"] * 40, killzone=["london_open"] * 35 + ["asia"] * 5
    )
    found = describe_trades(trades, trades["entry_time"].iloc[0], trades["entry_time"].iloc[-1])
    assert found == [
        "38 of 40 short",
        "40 of 40 in the phase accumulation",
        "35 of 40 in the killzone london open",
        "40 of 40 ended by stop",
    ]


def test_silence_and_single_months_are_told():
    trades = many(12)
    first, last = pd.Timestamp("2025-10-01", tz="UTC"), pd.Timestamp("2026-06-01", tz="UTC")
    found = describe_trades(trades, first, last)
    assert "none in the first 13 weeks of 34 weeks" in found and "none in the last 17 weeks of 34 weeks" in found
    assert "12 in January 2026 alone" in found


def test_different_trades_share_nothing_and_few_say_nothing():
    mixed = many(40, side=[1, -1] * 20, exit_reason=["stop", "target"] * 20)
    assert describe_trades(mixed, mixed["entry_time"].iloc[0], mixed["entry_time"].iloc[-1]) == []
    assert describe_trades(many(3), *many(3)["entry_time"].iloc[[0, 2]]) == []


def test_a_gain_that_three_trades_made_is_told():
    lucky = many(40, side=[1, -1] * 20, exit_reason=["stop", "target"] * 20, r=[-0.1] * 37 + [5.0] * 3)
    (found,) = describe_trades(lucky, lucky["entry_time"].iloc[0], lucky["entry_time"].iloc[-1])
    assert found == "the best three made +15.0 R of +11.3 R in all"
