"""Indicators against pandas-ta-classic, hand-computed definitions, dead markets and poisoned input."""

import warnings

import numpy as np
import pandas as pd
import pytest

from orbiquant.core import DataError
from orbiquant.domain import Bars
from orbiquant.features import indicators
from orbiquant.features.windows import moving_sum, new_memory, new_ranking
from orbiquant.market.synthetic import BITCOIN_LIKE, synthetic_market
from tests.tools.shared_bars import shared_bars

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pandas_ta_classic as oracle

SETTLED = 600  # rows after which two seeds of one recursion agree

FUNCTIONS = {
    "sma": 19,
    "ema": 19,
    "macd": 33,
    "adx": 27,
    "rsi": 14,
    "stochastic": 17,
    "true_range": 1,
    "atr": 14,
    "bollinger": 19,
    "log_returns": 1,
    "realised_volatility": 24,
    "parkinson_volatility": 23,
    "obv": 0,
    "session_vwap": 0,
    "volume_zscore": 95,
}  # name → rows of warm-up


@pytest.fixture(scope="module")
def bars() -> Bars:
    return synthetic_market(3000, timeframe="15m", seed=3).bars


def call(name: str, bars: Bars) -> pd.DataFrame:
    result = getattr(indicators, name)(bars)
    return result.to_frame() if isinstance(result, pd.Series) else result


def assert_close(ours: pd.Series, theirs: pd.Series, skip: int = SETTLED) -> None:
    np.testing.assert_allclose(ours.iloc[skip:], theirs.iloc[skip:], rtol=1e-8, atol=1e-10)


def test_against_pandas_ta(bars):
    high, low, close, volume = (bars[name] for name in ("high", "low", "close", "volume"))
    plain = {"talib": False}
    assert_close(indicators.sma(bars, 20), oracle.sma(close, length=20, **plain), 20)
    assert_close(indicators.ema(bars, 20), oracle.ema(close, length=20, **plain), 20)
    assert_close(indicators.rsi(bars, 14), oracle.rsi(close, length=14, **plain))
    assert_close(indicators.true_range(bars), oracle.true_range(high, low, close, **plain), 1)
    assert_close(indicators.atr(bars, 14), oracle.atr(high, low, close, length=14, **plain))
    assert_close(indicators.obv(bars).diff(), oracle.obv(close, volume, **plain).diff(), 1)
    for ours, theirs in zip(["macd", "histogram", "signal"], oracle.macd(close, **plain).items(), strict=True):
        assert_close(indicators.macd(bars)[ours], theirs[1])
    bands = oracle.bbands(close, length=20, std=2, ddof=0, **plain)
    for ours, theirs in zip(["lower", "middle", "upper"], bands, strict=False):
        assert_close(indicators.bollinger(bars)[ours], bands[theirs], 20)
    assert_close(indicators.bollinger(bars)["percent_b"], bands.filter(like="BBP").iloc[:, 0], 20)
    stochastic = oracle.stoch(high, low, close, k=14, d=3, smooth_k=3, **plain).reindex(bars.index)
    for ours, theirs in zip("kd", stochastic, strict=False):
        assert_close(indicators.stochastic(bars)[ours], stochastic[theirs], 20)


def test_adx_is_wilders(bars):
    high, low, close = (bars[name].to_numpy() for name in ("high", "low", "close"))
    up, down = np.diff(high), -np.diff(low)
    plus, minus = np.where((up > down) & (up > 0), up, 0), np.where((down > up) & (down > 0), down, 0)
    past = close[:-1]
    ranges = np.maximum(high[1:], past) - np.minimum(low[1:], past)
    smooth = [pd.Series(x).ewm(alpha=1 / 14, adjust=False).mean() for x in (plus, minus, ranges)]
    plus_di, minus_di = 100 * smooth[0] / smooth[2], 100 * smooth[1] / smooth[2]
    adx = (100 * (plus_di - minus_di).abs() / (plus_di + minus_di)).ewm(alpha=1 / 14, adjust=False).mean()
    ours = indicators.adx(bars).iloc[1:].reset_index(drop=True)
    assert_close(ours["plus_di"], plus_di)
    assert_close(ours["minus_di"], minus_di)
    assert_close(ours["adx"], adx)


def test_volatility_and_volume_by_definition(bars):
    returns = np.log(bars["close"]).diff()
    assert_close(indicators.log_returns(bars, 5), np.log(bars["close"] / bars["close"].shift(5)), 5)
    assert_close(indicators.realised_volatility(bars, 24), np.sqrt((returns**2).rolling(24).mean()), 25)
    squares = np.log(bars["high"] / bars["low"]) ** 2
    assert_close(indicators.parkinson_volatility(bars, 24), np.sqrt(squares.rolling(24).mean() / (4 * np.log(2))), 24)
    rolling = bars["volume"].rolling(96)
    assert_close(indicators.volume_zscore(bars, 96), (bars["volume"] - rolling.mean()) / rolling.std(ddof=0), 96)


def test_vwap_starts_again_at_17_new_york(bars):
    vwap, local = indicators.session_vwap(bars), bars.index.tz_convert("America/New_York")
    typical = bars[["high", "low", "close"]].mean(axis=1)
    starts = np.flatnonzero((local.hour == 17) & (local.minute == 0))
    np.testing.assert_allclose(vwap.iloc[starts], typical.iloc[starts], rtol=1e-12)
    day = slice(starts[2], starts[3])
    paid = (typical * bars["volume"]).iloc[day].cumsum() / bars["volume"].iloc[day].cumsum()
    np.testing.assert_allclose(vwap.iloc[day], paid, rtol=1e-12)


def test_vwap_without_volume_weighs_bars_alike_until_there_is_some(bars):
    day = bars.iloc[:8].assign(volume=[0, 0, 0, 0, 5, 0, 5, 0])
    typical = day[["high", "low", "close"]].mean(axis=1)
    vwap = indicators.session_vwap(day)
    np.testing.assert_allclose(vwap.iloc[:4], typical.iloc[:4].expanding().mean(), rtol=1e-12)
    np.testing.assert_allclose(vwap.iloc[[4, 7]], [typical.iloc[4], typical.iloc[[4, 6]].mean()], rtol=1e-12)


@pytest.mark.parametrize("name, warmup", FUNCTIONS.items())
def test_warmup_is_nan_and_nothing_after_it(name, warmup, bars):
    values = call(name, bars)
    assert values.index.equals(bars.index)
    assert values.isna().all(axis=1).sum() <= warmup
    assert values.isna().any(axis=1).sum() == warmup
    assert np.isfinite(values.iloc[warmup:]).all(axis=None)


@pytest.mark.parametrize("name", [*FUNCTIONS, "candle_patterns"])
@pytest.mark.parametrize("rows", [0, 1, 2, 13])
def test_short_histories_give_nan_not_errors(name, rows, bars):
    assert len(call(name, bars.iloc[:rows])) == rows


@pytest.mark.parametrize("name", [*FUNCTIONS, "candle_patterns"])
def test_a_market_that_stands_still_gives_no_infinity(name, bars):
    dead = bars.assign(open=1.5, high=1.5, low=1.5, close=1.5, volume=0.0)
    assert not np.isinf(call(name, dead)).any(axis=None)
    halted = bars.copy()
    halted.iloc[1000:, :4] = halted["close"].iloc[999]
    assert not np.isinf(call(name, halted)).any(axis=None)


def test_oscillators_say_neutral_in_a_dead_market(bars):
    dead = bars.assign(open=1.5, high=1.5, low=1.5, close=1.5, volume=0.0)
    assert indicators.rsi(dead).isna().all()
    assert (indicators.stochastic(dead).dropna() == 50).all(axis=None)
    assert (indicators.bollinger(dead)["percent_b"].dropna() == 0.5).all()
    assert (indicators.volume_zscore(dead).dropna() == 0).all()


def test_rsi_keeps_its_value_through_a_long_halt(bars):
    halted = bars.copy()
    halted.iloc[1000:, :4] = halted["close"].iloc[999]
    rsi = indicators.rsi(halted)
    np.testing.assert_allclose(rsi.iloc[1000:], rsi.iloc[999], rtol=1e-6)


def test_one_nan_is_refused_where_it_stands_not_spread(bars):
    spoilt = bars.copy()
    spoilt.iloc[777, 3] = np.nan
    for name in ("rsi", "macd", "atr", "adx", "bollinger", "realised_volatility"):
        with pytest.raises(DataError, match="first is row 77"):
            call(name, spoilt)
    spoilt.iloc[777, 3] = np.inf
    with pytest.raises(DataError, match="row 777"):
        indicators.sma(spoilt)


def test_a_length_talib_cannot_use_is_named(bars):
    with pytest.raises(DataError, match=r"SMA cannot run with .*'timeperiod': 0"):
        indicators.sma(bars, 0)


@pytest.mark.parametrize("value", [0, -1, -5, 2.5])
@pytest.mark.parametrize("name", ["realised_volatility", "parkinson_volatility", "volume_zscore", "log_returns"])
def test_a_length_without_bars_is_refused_where_talib_is_not_asked(name, value, bars):
    parameter, least = ("lag", 1) if name == "log_returns" else ("length", 2)
    with pytest.raises(DataError, match=f"`{parameter}` must be a whole number of bars, at least {least}, was {value}"):
        getattr(indicators, name)(bars, value)


@pytest.mark.parametrize("value", [0, -1, -5, 2.5])
def test_a_memory_without_bars_is_refused_before_compiled_code_writes_to_it(value):
    values = np.arange(10.0)
    for refused in (indicators.rolling_mean, moving_sum):
        with pytest.raises(DataError, match=f"`length` must be a whole number of bars, at least 1, was {value}"):
            refused(values, value)
    for make in (new_memory, new_ranking):
        with pytest.raises(DataError, match=f"`length` must be a whole number of bars, at least 1, was {value}"):
            make(value)


def test_a_lag_does_not_look_ahead_nor_a_band_turn_over(bars):
    with pytest.raises(DataError, match="`lag` must be a whole number of bars, at least 0, was -1"):
        indicators.lagged(np.arange(5.0), -1)
    np.testing.assert_equal(indicators.lagged(np.arange(3.0), 0), [0, 1, 2])
    np.testing.assert_equal(indicators.lagged(np.arange(3.0), 5), [np.nan] * 3)
    for width in (-1.0, np.nan):
        with pytest.raises(DataError, match=f"`width` must be at least 0, was {width}"):
            indicators.bollinger(bars, 20, width)


def test_no_talib_parameter_is_left_to_its_default(monkeypatch):
    import talib.abstract as abstract

    seen = {}
    original = indicators.run_talib

    def record(function, *inputs, **parameters):
        seen[function] = set(parameters)
        return original(function, *inputs, **parameters)

    monkeypatch.setattr(indicators, "run_talib", record)
    small = synthetic_market(200, seed=1).bars
    for name in [*FUNCTIONS, "candle_patterns"]:
        call(name, small)
    assert len(seen) > 15
    assert seen == {function: set(abstract.Function(function).parameters) for function in seen}


def test_candle_patterns_on_drawn_candles(bars):
    quiet = pd.DataFrame({"open": 10.0, "high": 10.6, "low": 9.9, "close": 10.5, "volume": 1.0}, bars.index[:30])
    drawn = quiet.copy()
    drawn.iloc[20] = [10.6, 10.7, 9.7, 9.8, 1.0]
    drawn.iloc[25] = [10.2, 10.7, 9.7, 10.2, 1.0]
    patterns = indicators.candle_patterns(drawn)
    assert patterns["engulfing"].iloc[20] == -1
    assert patterns["doji"].iloc[25] == 1
    assert (patterns.dtypes == "int8").all()


def test_prices_of_any_size_give_the_same_oscillators():
    market = synthetic_market(1500, seed=5, config=BITCOIN_LIKE).bars
    tiny = market.assign(**{name: market[name] * 2.0**-40 for name in ("open", "high", "low", "close")})
    for name in ("rsi", "stochastic", "adx"):
        np.testing.assert_allclose(call(name, market), call(name, tiny), rtol=1e-9, atol=1e-9)
    percent = [indicators.bollinger(frame)["percent_b"] for frame in (market, tiny)]
    assert (percent[0] - percent[1]).abs().median() < 1e-9


def test_all_indicators_on_six_years_of_five_minute_bars():
    real = shared_bars("BTCUSDT_5m")
    for name, warmup in FUNCTIONS.items():
        assert np.isfinite(call(name, real).iloc[warmup:]).all(axis=None), name
