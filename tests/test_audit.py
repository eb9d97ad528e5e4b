"""The audits, audited: leaks and edges that were planted are found, a clean line passes, few trades are no verdict."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest
from test_cli import Ask, ask

from orbiquant.backtest.audit import (
    compare_rows,
    fit_before,
    known_levels,
    relative_difference,
    replay_prefixes,
    replay_warmup,
    spread_cuts,
)
from orbiquant.backtest.null_market import (
    LEAST_TRADES,
    MOST_MARKETS,
    NullMarket,
    audit_null_market,
    fresh_seeds,
    largest_gift,
    lowered,
    market_like,
    null_bars,
    null_verdict,
)
from orbiquant.backtest.simulate import BacktestResult, simulate
from orbiquant.cli.audit import Audited, make_claim, make_line
from orbiquant.core import DataError
from orbiquant.domain import Bars, CalendarName, Phase, SeriesId, Timeframe
from orbiquant.features.config import IctConfig, PhaseConfig
from orbiquant.features.matrix import build_features
from orbiquant.features.phases import detect_phases
from orbiquant.features.spec import FeatureSpec
from orbiquant.line import Line, LineSpec
from orbiquant.market.instruments import instrument_of
from orbiquant.market.synthetic import BITCOIN_LIKE, synthetic_market
from orbiquant.models.amd import AmdSpec, detector_file, learned_phases, train_detector
from orbiquant.models.boosting import Boosting
from orbiquant.models.config import Phase2Config
from orbiquant.policies import POLICIES
from orbiquant.runtime import Runtime
from orbiquant.settings import load_settings
from tests.tools.shared_bars import shared_bars

__all__ = ["ask"]
COMMAND = Phase2Config(folds=3, rounds=20, stop_atr=1.0, risk_reward=1.0)
NEAR = Phase2Config(folds=2, rounds=10, horizon_bars=6, stop_atr=1.0, risk_reward=1.0)
TRAINING = Phase2Config(folds=2, rounds=5, horizon_bars=6, stop_atr=1.0)
FEATURES = FeatureSpec(timeframe=Timeframe.M15, calendar=CalendarName.FOREX)
LINE = Line(LineSpec(features=FEATURES, training=TRAINING))
BARS = synthetic_market(1600, seed=3).bars
CUTS = [1200, 1333, 1599]


def null_market(seed: int) -> Bars:
    """Return a driftless market on which the primary signal trades more than 500 times."""
    return null_bars(3600, Timeframe.M15, seed)


def next_return(bars: Bars) -> pd.Series:
    """Return what the next bar brings: no feature may know it."""
    return bars["close"].pct_change().shift(-1)


def trained(training: Phase2Config, **stages: Any) -> Line:
    """Return the line with another training and other stages."""
    return replace(LINE, spec=LINE.spec.model_copy(update={"training": training}), **stages)


def peeking(bars: Bars, spec: FeatureSpec) -> pd.DataFrame:
    """Return the features and one that looks a bar ahead."""
    return build_features(bars, spec).assign(peek=next_return(bars))


# --- prefix replay ---


def test_the_librarys_own_line_passes_the_replay():
    found = replay_prefixes(LINE, BARS, CUTS)
    assert found.passed and found.violations.empty
    assert found.columns > 200 and found.rows == len(BARS) and found.cuts == tuple(CUTS)


def test_a_feature_that_peeks_one_bar_is_named_with_time_and_both_values():
    violations = replay_prefixes(replace(LINE, build=peeking), BARS, CUTS).violations
    assert set(violations["time"]) == {BARS.index[cut - 1] for cut in CUTS}
    own = violations[violations["column"] == "features.peek"]
    np.testing.assert_array_equal(own["full"].astype(float), next_return(BARS).iloc[[cut - 1 for cut in CUTS]])
    assert own["truncated"].isna().all()


def test_every_stage_is_replayed_and_every_changed_value_reported(monkeypatch: pytest.MonkeyPatch):
    def centred(bars: Bars, config: IctConfig) -> pd.DataFrame:
        return known_levels(bars, config).assign(top=bars["high"].rolling(5, center=True).max())

    monkeypatch.setattr("orbiquant.backtest.audit.known_levels", centred)
    line = replace(LINE, detect=lambda bars, rules: detect_phases(bars, rules).assign(last=bars["close"].iloc[-1]))
    counts = replay_prefixes(line, BARS, CUTS[:2]).violations.groupby("column").size()
    assert counts.to_dict() == {"levels.top": 4, "phases.last": sum(CUTS[:2])}


def test_a_shifted_phase_reaches_the_signals():
    line = replace(LINE, detect=lambda bars, rules: detect_phases(bars, rules).shift(-1).bfill().ffill())
    phase = detect_phases(BARS, PhaseConfig())["phase"]
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


def test_the_detector_that_settings_name_is_the_one_that_is_audited(ask: Ask, tmp_path):
    def peeking_phases(bars: Bars, config: PhaseConfig) -> pd.DataFrame:
        return detect_phases(bars, config).shift(-1).bfill().ffill()

    line = replace(LINE, detect=peeking_phases)
    assert line.describe(BARS).phases.equals(peeking_phases(BARS, PhaseConfig()))
    spec = AmdSpec(markets=4, rows=2000, boosting=Boosting(rounds=5, learning_rate=0.3, max_depth=3, patience=5))
    runtime = Runtime(load_settings(signals={"phase_detector": "learned"}))
    kept = runtime.registry.root / "amd" / detector_file(AmdSpec())
    kept.parent.mkdir(parents=True)
    kept.write_bytes(train_detector(spec).to_json())
    runtime.trials.count()  # an open database must not go along to worker processes
    audited = Audited(BARS, SeriesId.parse("EURUSD", "15m"), instrument_of("EURUSD")[0], "1")
    found = make_line(runtime, audited).describe(BARS).phases
    assert runtime.amd.to_json() == kept.read_bytes()
    assert found.equals(learned_phases(BARS, runtime.amd, PhaseConfig()))
    assert not found["phase"].equals(detect_phases(BARS, PhaseConfig())["phase"])
    for claim in ("amd", "base"):
        _, statistic = make_claim(runtime, audited, claim, "total_r", {})
        sent = cloudpickle.loads(cloudpickle.dumps(statistic))
        detect = sent.detect if claim == "amd" else sent.line.detect
        pd.testing.assert_frame_equal(detect(BARS, PhaseConfig()), found)


# --- warm-up ---


def remembering(bars: Bars, spec: FeatureSpec) -> pd.DataFrame:
    """Return the features, one that never forgets, one that forgets too slowly and one that forgets at once."""
    close = bars["close"]
    own = {"total": bars["volume"].cumsum(), "slow": close.ewm(halflife=200).mean(), "window": close.rolling(50).mean()}
    return build_features(bars, spec).assign(**own)


@pytest.fixture(scope="module")
def long_bars() -> Bars:
    """Return bars that hold the warm-up twice before the first cut."""
    return synthetic_market(2600, seed=5).bars


def test_the_librarys_own_line_forgets_where_history_starts(long_bars: Bars):
    found = replay_warmup(LINE, long_bars, [2100, 2600])
    assert found.passed and found.history == (LINE.warmup, 2 * LINE.warmup) and found.columns > 200


def test_a_feature_that_remembers_is_named_with_both_values_however_long_the_history(long_bars: Bars):
    line, history = replace(LINE, build=remembering), [LINE.warmup, LINE.warmup + 600]
    found = replay_warmup(line, long_bars, [2600], history, rows=3).violations
    own = found[found["column"] == "features.total"]
    assert sorted(own["time"]) == sorted([*long_bars.index[-3:]] * 2) and set(own["history"]) == set(history)
    last = own.iloc[-1]
    assert last["full"] == long_bars["volume"].sum()
    assert last["short"] == long_bars["volume"].iloc[-history[1] - 3 :].sum()
    assert last["relative"] == pytest.approx(1 - last["short"] / last["full"])
    assert "features.slow" in set(found["column"]) and "features.window" not in set(found["column"])


def test_a_word_that_depends_on_the_start_is_reported(long_bars: Bars):
    line = replace(LINE, detect=lambda bars, rules: detect_phases(bars, rules).assign(first=str(bars.index[0])))
    violations = replay_warmup(line, long_bars, [2600], [LINE.warmup], rows=2).violations
    assert list(violations["column"]) == ["phases.first"] * 2 and np.isinf(violations["relative"].astype(float)).all()


def test_differences_are_relative_and_gaps_count():
    full = pd.Series([1.0, np.nan, 2.0, 0.0, 100.0, np.nan])
    short = pd.Series([1.0, np.nan, np.nan, 1e-11, 100.1, 3.0])
    assert relative_difference(full, short).tolist() == pytest.approx([0, 0, np.inf, 1, 0.1 / 100.1, np.inf])
    assert relative_difference(pd.Series(["a", "b"]), pd.Series(["a", "c"])).tolist() == [0, np.inf]
    frame = pd.DataFrame({"x": full}, pd.date_range("2024-01-01", periods=6, freq="1h"))
    late = compare_rows(frame.assign(y=1.0), frame, 2, 0.5)
    assert list(late["column"]) == ["y", "y"]


def test_two_values_that_are_zero_up_to_rounding_do_not_differ_and_a_hair_more_does():
    full = pd.Series([-2.7e-13, 0.0, np.inf, 3e-12])
    short = pd.Series([-5.5e-13, -0.9e-12, np.inf, 1.5e-12])
    assert relative_difference(full, short).tolist() == [0, 0, 0, 0.5]


def test_a_history_that_does_not_fit_is_refused(long_bars: Bars):
    models = fit_before(LINE, long_bars, [1500])
    with pytest.raises(DataError, match="`history` must be 1 to 1484"):
        replay_warmup(LINE, long_bars, [1500], [1485], models=models)
    with pytest.raises(DataError, match="`rows` must be at least 1"):
        replay_warmup(LINE, long_bars, [1500], rows=0, models=models)
    with pytest.raises(DataError, match="`cuts` at most 2600"):
        replay_warmup(LINE, long_bars, [1500, 2601], models=models)


# --- null market ---


@pytest.fixture(scope="module")
def clean() -> NullMarket:
    """Return the audit of the library's own line on two small markets, walk-forward alone."""
    return audit_null_market(LINE, null_market, seeds=(1, 2), most=0)


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


@pytest.mark.slow
def test_a_planted_leak_fails_every_policy_that_trades_enough():
    line = trained(TRAINING.model_copy(update={"rounds": 30}), build=peeking)
    found = audit_null_market(line, null_market, seeds=(1,), least_trades=300, most=0)
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

    found = audit_null_market(LINE, drifting, seeds=(1,), most=0).verdicts.set_index("policy").loc["primary"]
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


def test_a_coin_that_earns_more_than_the_fills_can_give_fails_every_policy():
    rng = np.random.default_rng(1)
    coin, noise = pd.Series(rng.normal(size=4000)), pd.Series(rng.normal(size=600))
    gift = largest_gift(1.0, 2.0)
    assert 0.05 < gift < 0.08 and largest_gift(2.0, 2.0) == gift / 2
    centred = coin - coin.mean()
    for shift, verdict in ((0.0, "pass"), (gift + 0.3, "fail")):
        assert null_verdict("x", [noise + shift], centred + shift, gift=gift)["verdict"] == verdict
    assert null_verdict("x", [noise - 0.3], centred - 0.3, gift=gift)["verdict"] == "pass"  # ambiguous bars cost it
    assert null_verdict("x", [noise[:9]], centred + 0.4, gift=gift)["verdict"] == "fail"


def test_fills_that_give_every_trade_money_are_caught(monkeypatch: pytest.MonkeyPatch):
    def generous(*given: Any, **terms: Any) -> BacktestResult:
        found = simulate(*given, **terms)
        return replace(found, trades=found.trades.assign(r_gross=found.trades["r_gross"] + 0.3))

    monkeypatch.setattr("orbiquant.backtest.null_market.simulate", generous)
    found = audit_null_market(LINE, null_market, seeds=(1,), most=0)
    assert found.verdict == "fail" and set(found.verdicts["verdict"]) == {"fail"}
    assert found.verdicts["coin_r"].min() > 0.2


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


def test_fresh_markets_are_traded_until_a_policy_has_enough_and_no_longer():
    traded: list[int] = []

    def market(seed: int) -> Bars:
        traded.append(seed)
        return null_market(seed)

    found = audit_null_market(trained(NEAR), market, seeds=(1,), least_trades=260, most=2)
    rows = found.trades.set_index("policy")
    assert rows.loc["primary", "fresh"] == 0 and rows.loc["conservative_filter", "fresh"] > 0
    assert traded == [1, *list(fresh_seeds(1))[:2]] and len({*fresh_seeds(1), *fresh_seeds(2)}) == 2 * MOST_MARKETS
    assert (rows.loc[rows["fresh"] == 0, "trades"].drop("coin") >= 260).all()


def leaking_verdicts(market: Callable[[int], Bars]) -> pd.Series:
    """Return each policy's verdict on a line whose features look a bar ahead."""
    line = trained(NEAR.model_copy(update={"rounds": 20}), build=peeking)
    return audit_null_market(line, market, seeds=(1,)).verdicts.set_index("policy")["verdict"]


@pytest.mark.slow
def test_every_policy_reaches_a_verdict_and_passes_on_ten_markets():
    line = trained(NEAR)
    found = audit_null_market(line, lambda s: null_bars(8000, Timeframe.M15, s), range(1, 11))
    assert found.verdict == "pass" and found.verdicts["fewest"].min() >= LEAST_TRADES


@pytest.mark.slow
def test_a_planted_leak_fails_every_policy():
    verdicts = leaking_verdicts(lambda seed: null_bars(5000, Timeframe.M15, seed))
    assert list(verdicts.index) == ["primary", *POLICIES] and set(verdicts) == {"fail"}


@pytest.mark.slow
@pytest.mark.parametrize(("timeframe", "calendar"), [("5m", "crypto"), ("1h", "forex"), ("4h", "forex")])
def test_every_policy_passes_at_the_commands_stop_and_target(timeframe: str, calendar: str):
    frame, market = Timeframe(timeframe), CalendarName(calendar)
    like = BITCOIN_LIKE if market is CalendarName.CRYPTO else None
    line = Line(LineSpec(features=FeatureSpec(timeframe=frame, calendar=market), training=COMMAND))
    found = audit_null_market(line, lambda seed: null_bars(20_000, frame, seed, like), seeds=(1,))
    assert found.verdict == "pass" and found.verdicts["fewest"].min() >= LEAST_TRADES


@pytest.mark.slow
@pytest.mark.parametrize("name", ["EURUSD_1h", "BTCUSDT_5m"])
def test_real_bars_pass_the_replay(name: str):
    bars = shared_bars(name).iloc[-6000:]
    symbol, timeframe = name.split("_")
    calendar = CalendarName.FOREX if symbol == "EURUSD" else CalendarName.CRYPTO
    features = FeatureSpec(timeframe=Timeframe(timeframe), calendar=calendar)
    line = Line(LineSpec(features=features, training=TRAINING))
    assert replay_prefixes(line, bars, spread_cuts(len(bars), 7)).passed


# --- command line ---


def test_audits_are_typed_and_answer_in_json(ask: Ask, tmp_path):
    file = tmp_path / "EURUSD_15m.parquet"
    BARS.reset_index().to_parquet(file)
    done = ask("audit", "prefix-replay", "--bars", str(file), "--cuts", "1", "--rounds", "3", "--json")
    assert done.code == 0 and done.json["verdict"] == "pass"
    assert done.json["bars"] == "EURUSD" and done.json["cuts"] == [1599] and done.json["violations"] == []
    words = ("--seeds", "1", "--rows", "1500", "--rounds", "3", "--folds", "1", "--markets", "0", "--json")
    done = ask("audit", "null-market", "--bars", str(file), *words)
    assert done.code == 0 and done.json["verdict"] == "no verdict"
    assert [row["policy"] for row in done.json["policies"]] == ["primary", *POLICIES]


def test_an_audit_needs_bars(ask: Ask):
    done = ask("audit", "prefix-replay", "--symbol", "EURUSD")
    assert done.code == 2 and "--bars FILE" in done.err
    done = ask("audit", "null-market", "--symbol", "EURUSD", "--timeframe", "1h")
    assert done.code == 1 and done.err.startswith("Error:")
