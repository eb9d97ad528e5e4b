"""The audits, audited: leaks and edges that were planted are found, a clean line passes, few trades are no verdict."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from shared_bars import shared_bars
from test_cli import Ask, ask

from orbiquant.backtest.audit import (
    LEAST_TRADES,
    Line,
    NullMarket,
    audit_null_market,
    known_levels,
    lowered,
    market_like,
    null_bars,
    null_verdict,
    replay_prefixes,
    spread_cuts,
)
from orbiquant.core import DataError
from orbiquant.domain import Bars, CalendarName, Phase, Timeframe
from orbiquant.features.ict_rules import IctConfig
from orbiquant.features.matrix import FeatureSpec
from orbiquant.market.synthetic import BITCOIN_LIKE, synthetic_market
from orbiquant.models.phase2 import Phase2Config
from orbiquant.signals import POLICIES

__all__ = ["ask"]
TRAINING = Phase2Config(folds=2, rounds=5, horizon_bars=6, stop_atr=1.0)
LINE = Line.of(FeatureSpec(timeframe=Timeframe.M15, calendar=CalendarName.FOREX), TRAINING)
BARS = synthetic_market(1600, seed=3).bars
CUTS = [1200, 1333, 1599]


def null_market(seed: int) -> Bars:
    """Return a driftless market on which the primary signal trades more than 500 times."""
    return null_bars(3600, Timeframe.M15, seed)


def next_return(bars: Bars) -> pd.Series:
    """Return what the next bar brings: no feature may know it."""
    return bars["close"].pct_change().shift(-1)


def peeking(bars: Bars) -> pd.DataFrame:
    """Return the features and one that looks a bar ahead."""
    return LINE.features(bars).assign(peek=next_return(bars))


# --- prefix replay ---


def test_the_librarys_own_line_passes_the_replay():
    found = replay_prefixes(LINE, BARS, CUTS)
    assert found.passed and found.violations.empty
    assert found.columns > 200 and found.rows == len(BARS) and found.cuts == tuple(CUTS)


def test_a_feature_that_peeks_one_bar_is_named_with_time_and_both_values():
    violations = replay_prefixes(replace(LINE, features=peeking), BARS, CUTS).violations
    assert set(violations["time"]) == {BARS.index[cut - 1] for cut in CUTS}
    own = violations[violations["column"] == "features.peek"]
    np.testing.assert_array_equal(own["full"].astype(float), next_return(BARS).iloc[[cut - 1 for cut in CUTS]])
    assert own["truncated"].isna().all()


def test_every_stage_is_replayed_and_every_changed_value_reported():
    line = replace(
        LINE,
        phases=lambda bars: LINE.phases(bars).assign(last=bars["close"].iloc[-1]),
        levels=lambda bars: LINE.levels(bars).assign(top=bars["high"].rolling(5, center=True).max()),
    )
    counts = replay_prefixes(line, BARS, CUTS[:2]).violations.groupby("column").size()
    assert counts.to_dict() == {"levels.top": 4, "phases.last": sum(CUTS[:2])}


def test_a_shifted_phase_reaches_the_signals():
    line = replace(LINE, phases=lambda bars: LINE.phases(bars).shift(-1).bfill().ffill())
    phase = LINE.phases(BARS)["phase"]
    last_of_a_phase = np.flatnonzero(phase != phase.shift(-1))
    cuts = [int(row) + 1 for row in last_of_a_phase if 1200 <= row < len(BARS) - 1][:2]
    columns = set(replay_prefixes(line, BARS, cuts).violations["column"])
    assert {"phases.phase", "signals.primary.amd_phase"} <= columns


def test_known_levels_stand_on_the_bars_they_became_known_at():
    levels = known_levels(BARS, IctConfig())
    assert levels.index.equals(BARS.index)
    assert (levels.filter(regex="price_high").notna().any()).all()
    assert known_levels(BARS.iloc[:3], IctConfig()).index.equals(BARS.index[:3])


def test_cuts_are_spread_over_the_second_half_or_refused():
    assert spread_cuts(1000, 4) == [624, 749, 874, 999]
    for rows, count in ((1000, 0), (5, 2), (0, 1)):
        with pytest.raises(DataError, match="`count` must be"):
            spread_cuts(rows, count)
    with pytest.raises(DataError, match="`cuts` must be"):
        replay_prefixes(LINE, BARS, [])


# --- null market ---


@pytest.fixture(scope="module")
def clean() -> NullMarket:
    """Return the audit of the library's own line on two small markets."""
    return audit_null_market(LINE, null_market, seeds=(1, 2))


def test_a_clean_line_earns_nothing_where_nothing_can_be_earned(clean: NullMarket):
    verdicts = clean.verdicts.set_index("policy")
    assert list(verdicts.index) == ["primary", *POLICIES]
    primary = verdicts.loc["primary"]
    assert primary["verdict"] == "pass" and abs(primary["z"]) <= 3 and primary["fewest"] >= LEAST_TRADES
    assert abs(primary["mean_r"]) < 3 * primary["standard_error_r"]
    assert (verdicts["verdict"] != "fail").all()


def test_a_policy_with_few_trades_gets_no_verdict_and_spoils_the_pass(clean: NullMarket):
    few = clean.verdicts[clean.verdicts["fewest"] < LEAST_TRADES]
    assert "conservative_filter" in set(few["policy"])
    assert set(few["verdict"]) == {"no verdict"} and clean.verdict == "no verdict"


def test_a_planted_leak_fails_every_policy_that_trades_enough():
    line = replace(LINE, features=peeking, training=TRAINING.model_copy(update={"rounds": 30}))
    found = audit_null_market(line, null_market, seeds=(1,), least_trades=300)
    judged = found.verdicts[found.verdicts["fewest"] >= 300]
    assert {"primary", "base"} <= set(judged["policy"]) and set(judged["verdict"]) == {"fail"}
    assert found.verdict == "fail" and judged["z"].min() > 4


def test_a_planted_edge_is_found():
    def drifting(seed: int) -> Bars:
        bars = null_market(seed)
        step = 0.2 * float(bars["close"].pct_change().std())
        growth = np.exp(step * np.arange(len(bars)))
        prices = bars[["open", "high", "low", "close"]].mul(growth, axis=0)
        prices["close"] *= np.exp(step)
        prices["high"] = np.maximum(prices["high"], prices["close"])
        return bars.assign(**prices)

    found = audit_null_market(LINE, drifting, seeds=(1,)).verdicts.set_index("policy").loc["primary"]
    assert found["verdict"] == "fail" and found["z"] > 4


def test_a_verdict_needs_enough_trades_in_every_seed_and_sees_both_signs():
    rng = np.random.default_rng(1)
    coin, noise = pd.Series(rng.normal(size=4000)), pd.Series(rng.normal(size=600))
    assert null_verdict("x", [noise, noise], coin)["verdict"] == "pass"
    assert null_verdict("x", [noise, noise[:499]], coin)["verdict"] == "no verdict"
    assert null_verdict("x", [noise + 5, noise[:499]], coin)["verdict"] == "no verdict"
    assert {null_verdict("x", [noise + shift], coin)["verdict"] for shift in (-0.4, 0.4)} == {"fail"}
    assert null_verdict("x", [noise[:0]], coin)["verdict"] == "no verdict"
    with pytest.raises(DataError, match="`seeds` must be"):
        audit_null_market(LINE, null_market, seeds=())


def test_only_the_confidence_floor_is_lowered():
    for name, policy in POLICIES.items():
        audited = lowered(name, 0.1)
        assert audited.model_dump(exclude={"min_confidence"}) == policy.model_dump(exclude={"min_confidence"})
        assert audited.min_confidence == 0.1 and Phase.MANIPULATION not in audited.phases


@pytest.mark.parametrize(
    ("timeframe", "calendar"), [("15m", "forex"), ("1h", "crypto"), ("4h", "forex"), ("1d", "us_equity")]
)
def test_null_bars_have_no_drift_and_take_after_real_ones(timeframe: str, calendar: str):
    frame, market = Timeframe(timeframe), CalendarName(calendar)
    like = BITCOIN_LIKE.model_copy(update={"calendar": market})
    config = market_like(null_bars(400, frame, 1, like), frame, market)
    assert config.calendar is market and config.tick_size == 0.1
    assert config.daily_volatility == pytest.approx(like.daily_volatility, rel=0.5)
    bars = null_bars(400, frame, 2, config)
    assert 300 < len(bars) <= 400 and bars.equals(null_bars(400, frame, 2, config))
    returns = bars["close"].pct_change().dropna()
    assert abs(returns.mean()) < 4 * returns.sem()


@pytest.mark.slow
def test_a_clean_line_passes_on_ten_markets_for_every_policy_that_trades_enough():
    verdicts = audit_null_market(LINE, lambda s: null_bars(8000, Timeframe.M15, s), range(1, 11)).verdicts
    passed = verdicts.loc[verdicts["verdict"] == "pass", "policy"]
    assert {"primary", "base", "aggressive_filter"} <= set(passed) and "fail" not in set(verdicts["verdict"])


@pytest.mark.slow
def test_every_policy_passes_where_its_rules_leave_enough_trades():
    near = Phase2Config(folds=2, rounds=10, horizon_bars=24, stop_atr=1.0, risk_reward=1.0)
    found = audit_null_market(replace(LINE, training=near), lambda s: null_bars(150_000, Timeframe.M15, s), seeds=(1,))
    assert found.verdict == "pass" and found.verdicts["fewest"].min() >= LEAST_TRADES


@pytest.mark.slow
@pytest.mark.parametrize("name", ["EURUSD_1h", "BTCUSDT_5m"])
def test_real_bars_pass_the_replay(name: str):
    bars = shared_bars(name).iloc[-6000:]
    symbol, timeframe = name.split("_")
    calendar = CalendarName.FOREX if symbol == "EURUSD" else CalendarName.CRYPTO
    line = Line.of(FeatureSpec(timeframe=Timeframe(timeframe), calendar=calendar), TRAINING)
    assert replay_prefixes(line, bars, spread_cuts(len(bars), 7)).passed


# --- command line ---


def test_audits_are_typed_and_answer_in_json(ask: Ask, tmp_path):
    file = tmp_path / "EURUSD_15m.parquet"
    BARS.reset_index().to_parquet(file)
    done = ask("audit", "prefix-replay", "--bars", str(file), "--cuts", "1", "--rounds", "3", "--json")
    assert done.code == 0 and done.json["verdict"] == "pass"
    assert done.json["bars"] == "EURUSD" and done.json["cuts"] == [1599] and done.json["violations"] == []
    words = ("--seeds", "1", "--rows", "1500", "--rounds", "3", "--folds", "1", "--json")
    done = ask("audit", "null-market", "--bars", str(file), *words)
    assert done.code == 0 and done.json["verdict"] == "no verdict"
    assert [row["policy"] for row in done.json["policies"]] == ["primary", *POLICIES]


def test_an_audit_needs_bars(ask: Ask):
    done = ask("audit", "prefix-replay", "--symbol", "EURUSD")
    assert done.code == 2 and "--bars FILE" in done.err
    done = ask("audit", "null-market", "--symbol", "EURUSD", "--timeframe", "1h")
    assert done.code == 1 and done.err.startswith("Error:")
