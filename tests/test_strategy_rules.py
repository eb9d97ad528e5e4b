"""The five rules of one market against slow ones in plain pandas; bar by bar, in any unit, where nothing moves."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from orbiquant.backtest.baselines import (
    backtest_strategy,
    beside_chance,
    beside_markets,
    placed_anew,
    play_setups,
    trade_setups,
)
from orbiquant.backtest.null_rules import audit_rule, null_market_of, null_results
from orbiquant.backtest.simulate import simulate
from orbiquant.core import DataError
from orbiquant.domain import Bars, Costs, SeriesId, Signals
from orbiquant.execution.config import FIXED, parse_plan
from orbiquant.execution.exits import exit_rule
from orbiquant.execution.fills import make_tape
from orbiquant.features.indicators import atr
from orbiquant.market.bars import with_series
from orbiquant.market.resampling import resample
from orbiquant.market.sources import SampleSource
from orbiquant.market.synthetic import BITCOIN_LIKE, synthetic_market
from orbiquant.strategies.breakout import Breakout
from orbiquant.strategies.mean_reversion import MeanReversion
from orbiquant.strategies.momentum import Momentum
from orbiquant.strategies.rules import RuleStrategy
from orbiquant.strategies.scalping import Scalping
from orbiquant.strategies.trend_following import TrendFollowing
from tests.tools.shared_bars import shared_bars

PRICES = ["open", "high", "low", "close"]
ROWS = 1200
HOURS = synthetic_market(ROWS, "1h", seed=11).bars
MINUTES = synthetic_market(4000, "1m", seed=12).bars
CRYPTO = Costs(fee_bps=10, slippage_bps=1, spread_bps=0.2)
FOREX = Costs(fee_bps=0.2, slippage_bps=0.3, spread_bps=0.5)
METAL = Costs(fee_bps=0.3, slippage_bps=0.5, spread_bps=1.5)


def first_of(state: pd.Series) -> pd.Series:
    """Return a state where it differs from the bar before."""
    return state.where(state != state.shift(fill_value=0.0), 0.0)


def slow_mean_reversion(own: MeanReversion, bars: Bars) -> tuple[pd.Series, pd.Series, pd.Series]:
    close, past = bars["close"], bars["close"].rolling(own.length)
    away, spread = close - past.apply(np.mean, raw=True), past.apply(np.std, raw=True)
    state = -np.sign(away).where(away.abs() > own.threshold * spread, 0.0)
    return first_of(state), own.stop_atr * atr(bars), away.abs()


def slow_trend_following(own: TrendFollowing, bars: Bars) -> tuple[pd.Series, pd.Series, pd.Series]:
    def average(length: int) -> pd.Series:
        seeded = bars["close"].rolling(length).mean().where(np.arange(len(bars)) == length - 1)
        return seeded.fillna(bars["close"].where(np.arange(len(bars)) >= length)).ewm(span=length, adjust=False).mean()

    state = np.sign(average(own.fast) - average(own.slow)).fillna(0.0)
    return first_of(state), own.trail_atr * atr(bars), bars["close"] * np.nan


def slow_breakout(own: Breakout, bars: Bars) -> tuple[pd.Series, pd.Series, pd.Series]:
    top, bottom = bars["high"].rolling(own.length).max().shift(), bars["low"].rolling(own.length).min().shift()
    state = (bars["close"] > top).astype(float) - (bars["close"] < bottom).astype(float)
    return first_of(state), own.stop_atr * atr(bars), bars["close"] * np.nan


def slow_momentum(own: Momentum, bars: Bars) -> tuple[pd.Series, pd.Series, pd.Series]:
    gone = bars["close"].shift(own.skip) / bars["close"].shift(own.lookback) - 1
    return np.sign(gone).fillna(0.0), own.stop_atr * atr(bars), bars["close"] * np.nan


def slow_scalping(own: Scalping, bars: Bars) -> tuple[pd.Series, pd.Series, pd.Series]:
    day = (bars.index.tz_convert("America/New_York") + pd.Timedelta(hours=7)).date  # clocks change while it is closed
    typical, rows = bars[["high", "low", "close"]].mean(axis=1), []
    for _, own_day in bars.assign(typical=typical).groupby(day, sort=False):
        for count in range(1, len(own_day) + 1):
            part = own_day.iloc[:count]
            weight = part["volume"] if part["volume"].sum() > 0 else part["volume"] * 0 + 1
            mean = np.average(part["typical"], weights=weight)
            rows.append((mean, np.average((part["typical"] - mean) ** 2, weights=weight) ** 0.5, count))
    found = pd.DataFrame(rows, bars.index, ["mean", "spread", "count"])
    away = bars["close"] - found["mean"]
    far = (found["count"] > own.settle) & (away.abs() > own.width * found["spread"])
    return first_of(-np.sign(away).where(far, 0.0)), own.stop_share * away.abs(), away.abs()


Slow = Callable[[RuleStrategy, Bars], tuple[pd.Series, pd.Series, pd.Series]]
RULES: dict[str, tuple[RuleStrategy, Bars, Slow]] = {
    "mean_reversion": (MeanReversion(), HOURS, slow_mean_reversion),
    "mean_reversion, short": (MeanReversion(length=3, threshold=1.2), HOURS, slow_mean_reversion),
    "trend_following": (TrendFollowing(), HOURS, slow_trend_following),
    "trend_following, short": (TrendFollowing(fast=3, slow=8, trail_atr=2), HOURS, slow_trend_following),
    "breakout": (Breakout(), HOURS, slow_breakout),
    "breakout, short": (Breakout(length=2), HOURS, slow_breakout),
    "momentum": (Momentum(), HOURS, slow_momentum),
    "momentum, no skip": (Momentum(lookback=5, skip=0), HOURS, slow_momentum),
    "scalping": (Scalping(), MINUTES, slow_scalping),
    "scalping, no volume": (Scalping(settle=5), MINUTES.assign(volume=0.0), slow_scalping),
}
EACH = pytest.mark.parametrize("name", RULES)


@EACH
def test_a_rule_says_what_a_slow_one_in_plain_pandas_says(name: str):
    strategy, bars, slow = RULES[name]
    signals, (side, stop, target) = strategy.batch(bars), slow(strategy, bars)
    side = side.where(np.arange(len(bars)) >= strategy.warmup_bars, 0.0)
    assert signals["side"].tolist() == side.astype(int).tolist() and (side > 0).sum() > 5 and (side < 0).sum() > 5
    acting = side != 0
    np.testing.assert_allclose((bars["close"] - side * stop)[acting], signals["stop_loss"][acting], rtol=1e-12)
    np.testing.assert_allclose((bars["close"] + side * target)[acting], signals["take_profit"][acting], rtol=1e-12)
    assert signals["stop_loss"][~acting].isna().all()
    assert set(signals.loc[acting, "reason"]) <= {"", "manipulation"}


@EACH
def test_bar_by_bar_it_says_the_same_bits_from_any_split(name: str):
    strategy, bars, _ = RULES[name]
    signals, rng = strategy.batch(bars), np.random.default_rng(5)
    least = max(strategy.warmup_bars + 1, 15)  # an average true range goes on from 15 bars
    for cut in {least, least + 1, *rng.integers(least, len(bars) - 1, 4).tolist()}:
        stop = min(cut + 200, len(bars))
        stream = strategy.follow(bars.iloc[:cut])
        steps = [stream.step(bar) for _, bar in bars.iloc[cut:stop].iterrows()]
        found = pd.DataFrame([step.row for step in steps], [step.time for step in steps]).astype(signals.dtypes)
        pd.testing.assert_frame_equal(
            found, signals.iloc[cut:stop], check_exact=True, check_freq=False, check_names=False
        )


@EACH
def test_the_future_changes_nothing(name: str):
    strategy, bars, _ = RULES[name]
    signals = strategy.batch(bars)
    for cut in (strategy.warmup_bars + 1, len(bars) // 2, len(bars) - 1):
        pd.testing.assert_frame_equal(
            strategy.batch(bars.iloc[:cut]), signals.iloc[:cut], check_exact=True, check_freq=False
        )


@EACH
def test_a_power_of_two_changes_no_bit_and_any_unit_no_side(name: str):
    strategy, bars, _ = RULES[name]
    signals = strategy.batch(bars)
    for unit in (2.0**-27, 2.0**20, 1e-8, 1e6):
        found = strategy.batch(bars.assign(**{price: bars[price] * unit for price in PRICES}))
        assert found["side"].tolist() == signals["side"].tolist(), unit
        exact = np.log2(unit).is_integer()
        for level in ("stop_loss", "take_profit", "atr"):
            np.testing.assert_allclose(found[level], signals[level] * unit, rtol=0 if exact else 1e-9)
        assert found["action"].tolist() == signals["action"].tolist(), unit


@EACH
@pytest.mark.parametrize("price", [0.1, 1.1, 60_000.7])
def test_where_nothing_moves_nothing_is_traded(name: str, price: float):
    strategy, bars, _ = RULES[name]
    still = bars.assign(**dict.fromkeys(PRICES, price))
    signals = strategy.batch(still)
    assert set(signals["action"]) == {"HOLD"} and signals["side"].isin([-1, 0, 1]).all()
    assert backtest_strategy(strategy, still, FOREX).trades.empty


@EACH
def test_few_bars_are_held_and_refused_by_nobody(name: str):
    strategy, bars, _ = RULES[name]
    for rows in (1, 2, 14, strategy.warmup_bars):
        signals = strategy.batch(bars.iloc[:rows])
        assert len(signals) == rows and set(signals["action"]) == {"HOLD"}, rows
    assert strategy.batch(bars.iloc[:0]).empty


@EACH
def test_holes_and_weekends_are_bars_that_are_not_there(name: str):
    strategy, bars, slow = RULES[name]
    rng = np.random.default_rng(3)
    keep = rng.random(len(bars)) > 0.1
    keep[400:500] = False  # a long hole
    torn = bars[keep]
    signals, (side, _, _) = strategy.batch(torn), slow(strategy, torn)
    side = side.where(np.arange(len(torn)) >= strategy.warmup_bars, 0.0)
    assert signals["side"].tolist() == side.astype(int).tolist()
    stream = strategy.follow(torn.iloc[:380])
    for time, bar in torn.iloc[380:480].iterrows():
        assert stream.step(bar).row["side"] == signals.at[time, "side"]


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (MeanReversion, {"length": 1}),
        (MeanReversion, {"length": 1001}),
        (MeanReversion, {"threshold": 0}),
        (MeanReversion, {"threshold": float("nan")}),
        (MeanReversion, {"stop_atr": -1}),
        (MeanReversion, {"hold": 0}),
        (MeanReversion, {"treshold": 2}),
        (TrendFollowing, {"fast": 100}),
        (TrendFollowing, {"fast": 200, "slow": 100}),
        (TrendFollowing, {"trail_atr": 0}),
        (TrendFollowing, {"trail_atr": float("inf")}),
        (Breakout, {"length": 1}),
        (Breakout, {"length": 2.5}),
        (Breakout, {"stop_atr": 0}),
        (Momentum, {"skip": 252}),
        (Momentum, {"skip": -1}),
        (Momentum, {"lookback": 20_001}),
        (Scalping, {"width": 0}),
        (Scalping, {"settle": 0}),
        (Scalping, {"hold": 1.5}),
        (Scalping, {"stop_share": "far"}),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_name(kind: type[RuleStrategy], wrong: dict[str, float]):
    with pytest.raises(ValidationError) as refused:
        kind(**wrong)
    assert next(iter(wrong)) in str(refused.value)


# --- what judges them ---

PLANS = ["fixed", "trail_atr=2", "break_even_r=1", "targets=1:0.5", "targets=0.5:0.25,1:0.25 trail_atr=3"]


def guesses(bars: Bars, seed: int, targets: bool) -> Signals:
    """Return random sides with random levels."""
    rng, unit = np.random.default_rng(seed), atr(bars)
    rows = unit.notna().to_numpy() & (rng.random(len(bars)) < 0.1)
    side, stop = rng.choice([1, -1], len(bars)), rng.uniform(0.3, 4, len(bars)) * unit
    target = rng.uniform(0.3, 6, len(bars)) * unit if targets else np.nan
    levels = {"stop_loss": bars["close"] - side * stop, "take_profit": bars["close"] + side * target, "atr": unit}
    return pd.DataFrame({"side": side, **levels})[rows]


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("targets", [True, False])
def test_trades_put_where_they_were_make_what_they_made(plan: str, targets: bool):
    for seed, limit, risk_from in ((1, None, "fill"), (2, 7, "plan"), (3, 40, "fill")):
        signals = guesses(HOURS, seed, targets)
        result = simulate(HOURS, signals, CRYPTO, max_holding_bars=limit, risk_from=risk_from, exits=parse_plan(plan))
        at = HOURS.index.get_indexer(result.trades["entry_time"])
        free = np.append(0, HOURS.index.get_indexer(result.trades["exit_time"])[:-1] + 1)
        terms = exit_rule(result.exits), limit or len(HOURS), CRYPTO.fee, CRYPTO.slippage, risk_from == "plan"
        out, setups = np.empty((len(at), 2)), trade_setups(HOURS, result.trades)
        count = play_setups(make_tape(HOURS), atr(HOURS).to_numpy(), setups, at - free, 0, *terms, out)
        assert count == len(at) > 20
        np.testing.assert_allclose(out, result.trades[["r", "r_gross"]], rtol=0, atol=1e-9)


def test_random_bars_keep_all_but_the_moment():
    strategy = MeanReversion()
    result = backtest_strategy(strategy, HOURS, FOREX)
    drawn = list(placed_anew(HOURS, result, strategy.warmup_bars, draws=30, seed=1))
    again = list(placed_anew(HOURS, result, strategy.warmup_bars, draws=30, seed=1))
    assert all(np.array_equal(*pair) for pair in zip(drawn, again, strict=True))
    assert len({tuple(r[:, 0]) for r in drawn}) == 30
    assert all(0.8 * len(result.trades) < len(r) <= len(result.trades) for r in drawn)  # random ones may last longer
    with pytest.raises(DataError, match="draws"):
        next(placed_anew(HOURS, result, strategy.warmup_bars, draws=0))


def test_a_rule_that_peeks_is_far_above_its_draws_and_fails_where_nothing_can_be_earned():
    class Peeking(MeanReversion):
        def batch(self, bars: Bars, spec: object = None) -> Signals:
            ahead = np.sign(bars["close"].shift(-5).ffill() - bars["close"]).astype(int)
            unit = atr(bars)
            levels = {"stop_loss": bars["close"] - ahead * 2 * unit, "take_profit": bars["close"] + ahead * unit}
            return pd.DataFrame({"side": ahead, **levels})[unit.notna() & (ahead != 0)]

    bars = SampleSource().bars(SeriesId.parse("EURUSD", "1h"))
    beside = beside_chance(bars, backtest_strategy(Peeking(), bars, FOREX), 20, draws=40)
    assert beside.standing["percentile"].min() == 1 and beside.standing["z"].min() > 5
    market = null_market_of(bars, rows=1500)
    found = audit_rule(Peeking(), market, seeds=(1,), least_trades=200)
    assert found.verdict == "fail" and found.verdicts["z"].item() > 5
    honest = audit_rule(MeanReversion(), market, seeds=(1,), least_trades=150)
    assert honest.verdict == "pass", honest.verdicts


def test_no_trade_is_said_and_no_number_made_up():
    still = HOURS.assign(**dict.fromkeys(PRICES, 1.1))
    beside = beside_chance(still, backtest_strategy(MeanReversion(), still, FOREX), 20, draws=3)
    assert "No trade" in beside._repr_html_() and beside.table.loc["strategy", "trades"] == 0
    assert beside.standing["p_value"].isna().all() and np.isnan(beside.held_r)
    own, chance, markets = null_results(Scalping(), null_market_of(HOURS, rows=300), 1, least_trades=10, most=2)
    assert markets == 2 and own.empty and chance.empty
    verdict = audit_rule(Scalping(), null_market_of(HOURS, rows=300), seeds=(1,), least_trades=10, most=1)
    assert verdict.verdict == "no verdict"
    with pytest.raises(DataError, match="seeds"):
        audit_rule(Scalping(), null_market_of(HOURS), seeds=())


def test_trades_without_a_range_are_refused():
    signals = pd.DataFrame({"side": [1], "stop_loss": [HOURS["close"].iloc[3] * 0.99]}, HOURS.index[3:4])
    result = backtest_strategy(MeanReversion(), HOURS, FOREX, signals)
    with pytest.raises(DataError, match="average true range"):
        trade_setups(HOURS, result.trades)


def test_the_agents_exits_stand_where_a_strategy_names_none():
    result = backtest_strategy(MeanReversion(), HOURS, FOREX, exits=parse_plan("break_even_r=1 max_holding_bars=5"))
    assert result.exits.break_even_r == 1 and result.trades["bars"].max() <= 5
    own = backtest_strategy(TrendFollowing(), HOURS, FOREX, exits=parse_plan("break_even_r=1"))
    assert own.exits == TrendFollowing().exits
    assert backtest_strategy(MeanReversion(), HOURS, FOREX).exits == FIXED


# --- at scale ---


def coarser(name: str, to: str, calendar: str) -> Bars:
    """Return shared bars joined to a coarser timeframe."""
    return resample(shared_bars(name), name.split("_")[1], to, calendar)


def at_scale() -> dict[str, tuple[Bars, Costs]]:
    """Return the markets of the table."""
    return {
        "BTCUSDT 1h": (coarser("BTCUSDT_5m", "1h", "crypto"), CRYPTO),
        "BTCUSDT 1d": (coarser("BTCUSDT_5m", "1d", "crypto"), CRYPTO),
        "EURUSD 1h": (shared_bars("EURUSD_1h"), FOREX),
        "EURUSD 1d": (coarser("EURUSD_1h", "1d", "forex"), FOREX),
        "XAUUSD 1h": (shared_bars("XAUUSD_1h"), METAL),
        "XAUUSD 1d": (coarser("XAUUSD_1h", "1d", "forex"), METAL),
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_the_rules_make_of_years_of_real_bars(capsys: pytest.CaptureFixture[str]):
    """Print what each rule made with its frozen parameters, beside random bars and the market held."""
    markets = at_scale()
    tables = {
        strategy.name: beside_markets(strategy, markets)
        for strategy in (MeanReversion(), TrendFollowing(), Breakout(), Momentum())
    }
    tables["scalping"] = beside_markets(Scalping(), {"BTCUSDT 1m": (shared_bars("BTCUSDT_1m"), CRYPTO)})
    table = pd.concat(tables, names=["strategy"])
    with capsys.disabled():
        print("\n" + table.round(3).to_string())
    assert len(table) == 25 and (table["trades"] > 0).all() and table.notna().all().all()
    np.testing.assert_allclose(table["gross_r"] - table["cost_r"], table["mean_r"], atol=1e-9)
    scalped = table.loc["scalping"].iloc[0]
    assert scalped["mean_r"] < -10 * scalped["standard_error_r"]  # as it says: costs eat it
    believed = (table["p_gross"] <= 0.05).sum()
    assert believed <= 4  # of 25 looks at nothing, five or more are below in one of twenty-nine


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [MeanReversion(), TrendFollowing(), Breakout(), Momentum()], ids=lambda s: s.name)
@pytest.mark.parametrize("name", ["EURUSD_1h", "BTCUSDT_5m"])
def test_no_rule_earns_where_nothing_can_be_earned(strategy: RuleStrategy, name: str):
    found = audit_rule(strategy, null_market_of(shared_bars(name).iloc[-20_000:]), seeds=(1, 2, 3))
    assert found.verdict == "pass", found.verdicts


@pytest.mark.slow
def test_scalping_earns_nothing_before_costs_where_nothing_can_be_earned():
    bars = synthetic_market(20_000, "1m", seed=1, config=BITCOIN_LIKE).bars
    bars = with_series(bars, SeriesId.parse("BTCUSDT", "1m"))
    found = audit_rule(Scalping(), null_market_of(bars, rows=20_000), seeds=(1, 2, 3))
    assert found.verdict == "pass", found.verdicts
