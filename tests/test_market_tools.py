"""What the copilot's market tools say, beside pandas by hand, pandas-ta and exact fractions."""

import json
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from orbiquant.copilot.tools import read_tool
from orbiquant.core import DataError, FixedClock, NotFoundError, OptionError
from orbiquant.desk.bars import bars_at
from orbiquant.desk.candles import get_ohlcv
from orbiquant.desk.prices import get_price, price_of
from orbiquant.desk.readings import IndicatorSet, get_indicators, read_indicators
from orbiquant.desk.situation import analyze_market
from orbiquant.desk.sizing import position_size_for, size_position
from orbiquant.domain import Bars, Caller, SeriesId, Timeframe
from orbiquant.market.instruments import find_instrument
from orbiquant.market.sources import SampleSource
from orbiquant.runtime import Runtime, using
from orbiquant.settings import load_settings

with warnings.catch_warnings():  # of what pandas will no longer have
    warnings.simplefilter("ignore")
    import pandas_ta_classic as ta

EURUSD = SeriesId.parse("EURUSD", "1h")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ME = Caller("me", "me", "free", frozenset({"read"}))


def make(folder: Path) -> Runtime:
    """Return a runtime with an empty store, at the end of 2025."""
    places = {"store_uri": f"{folder}/store", "models_dir": f"{folder}/models", "data_dir": str(folder)}
    loaded = load_settings(workspace=places | {"database_url": f"sqlite:///{folder}/o.db"})
    return Runtime(loaded, FixedClock(pd.Timestamp("2025-12-31T12:00Z").to_pydatetime()))


def go_to(runtime: Runtime, moment: pd.Timestamp) -> None:
    """Set a runtime's clock."""
    runtime.clock.advance(moment - runtime.clock.now())


@pytest.fixture(scope="module")
def sample() -> Bars:
    """Return the real hours of EURUSD that the package ships."""
    return SampleSource().bars(EURUSD)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, sample: Bars) -> Iterator[Runtime]:
    """Yield a runtime that holds those hours, at the close of the last."""
    runtime = make(tmp_path_factory.mktemp("real"))
    runtime.store.upsert(EURUSD, sample)
    go_to(runtime, sample.index[-1] + HOUR)
    with using(runtime):
        yield runtime
    runtime.engine.dispose()


def ask(function: Callable[..., Any], **arguments: Any) -> Any:
    """Return what a tool answers, its arguments checked as a model's are, as it leaves on the wire."""
    tool = read_tool(function)
    checked = tool.arguments.model_validate(arguments)
    filled = {name: getattr(checked, name) for name in type(checked).model_fields}
    answer = function(**filled, **({tool.caller: ME} if tool.caller else {}))
    told = TypeAdapter(Any).dump_python(answer, mode="json")
    json.dumps(told, allow_nan=False)  # every number is finite
    return told


# --- the price and its day ---


@pytest.mark.parametrize("cut", [6000, 6001, 6010, 6025, 6060, 6100, 6115])  # weekdays, a weekend, and after it
def test_a_day_is_24_hours_of_the_clock(tmp_path: Path, sample: Bars, cut: int):
    runtime, bars = make(tmp_path), sample.iloc[:cut]
    runtime.store.upsert(EURUSD, bars)
    end = bars.index[-1] + HOUR
    go_to(runtime, end)
    told = price_of(runtime, "EUR/USD")
    known = bars.set_axis(bars.index + HOUR)  # by the moment from which each is known
    before = known["close"].asof(end - DAY)
    day = known[known.index > end - DAY]
    assert told.price == bars["close"].iloc[-1] and told.timestamp == end
    assert told.change24h == pytest.approx(bars["close"].iloc[-1] - before, abs=1e-6)
    assert told.change_percent == pytest.approx(100 * (bars["close"].iloc[-1] / before - 1), abs=1e-4)
    assert (told.high24h, told.low24h) == (day["high"].max(), day["low"].min())
    assert told.volume == pytest.approx(day["volume"].sum()) and not told.stale


def test_over_a_weekend_the_day_has_no_bar_and_says_so(tmp_path: Path, sample: Bars):
    runtime = make(tmp_path)
    gaps = np.flatnonzero(np.diff(sample.index) > np.timedelta64(40, "h"))
    friday = sample.index[gaps[-2]]
    runtime.store.upsert(EURUSD, sample.loc[:friday])
    go_to(runtime, friday + timedelta(hours=30))
    told = price_of(runtime, "EURUSD")
    assert not told.stale and told.age_s == 29 * 3600 and told.timestamp == friday + HOUR
    assert told.change24h is not None  # of Friday, which its timestamp says


def plain(start: str, periods: int, freq: str, price: float, volume: float = 1.0) -> Bars:
    """Return flat bars."""
    index = pd.date_range(start, periods=periods, freq=freq, tz="UTC", name="time")
    return pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), price) | {"volume": volume}, index)


def test_the_finest_that_is_fresh_tells_the_price(tmp_path: Path):
    runtime = make(tmp_path)
    store = runtime.store
    store.upsert(SeriesId.parse("BTCUSDT", "1h"), plain("2025-12-28", 84, "1h", 100.0))
    store.upsert(SeriesId.parse("BTCUSDT", "5m"), plain("2025-12-20", 100, "5min", 90.0))
    store.upsert(SeriesId.parse("BTCUSDT", "15m"), plain("2025-12-31", 48, "15min", 101.0))
    with using(runtime):
        told = ask(get_price, symbol="btc-usdt")
    assert (told["timeframe"], told["price"], told["stale"]) == ("15m", 101.0, False)
    go_to(runtime, pd.Timestamp("2026-02-01T00:00Z"))
    late = price_of(runtime, "BTCUSDT")
    assert late.stale and late.price == 101.0 and "orbiquant data pull binance BTCUSDT" in late.notices[0]


def test_a_week_says_nothing_of_a_day(tmp_path: Path):
    runtime = make(tmp_path)
    runtime.store.upsert(SeriesId.parse("BTCUSDT", "1w"), plain("2025-12-01", 4, "7D", 100.0))
    told = price_of(runtime, "BTCUSDT")
    assert told.price == 100.0 and told.change24h is told.high24h is told.volume is None


def test_what_nobody_knows_is_null(tmp_path: Path):
    runtime = make(tmp_path)
    runtime.store.upsert(SeriesId.parse("BTCUSDT", "1h"), plain("2025-12-31", 12, "1h", 100.0))
    told = price_of(runtime, "BTCUSDT")  # half a day: there is no price of yesterday
    assert told.change24h is None and told.change_percent is None and told.high24h == 100.0 and told.volume == 12


def test_a_bar_that_forms_has_the_newest_price(tmp_path: Path):
    runtime = make(tmp_path)
    runtime.store.upsert(SeriesId.parse("BTCUSDT", "1h"), plain("2025-12-28", 85, "1h", 100.0))
    go_to(runtime, pd.Timestamp("2025-12-31T12:20Z"))
    told = price_of(runtime, "BTCUSDT")
    assert told.timestamp == pd.Timestamp("2025-12-31T12:20Z") and told.age_s == 0 and not told.stale


# --- bars of any timeframe ---


def test_days_and_fours_are_those_of_pandas(real: Runtime, sample: Bars):
    eastern = sample.index.tz_convert("America/New_York") + timedelta(hours=7)  # a day of forex begins at 17:00
    rule = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    mine = sample.groupby(eastern.date).agg(rule).iloc[-120:]
    days = bars_at(real, "EURUSD", Timeframe.D1, 120).bars
    assert len(days) == 120 and np.array_equal(days.to_numpy(), mine.to_numpy())
    assert bars_at(real, "EURUSD", Timeframe.H1, 50).bars.equals(sample.iloc[-50:])


@pytest.mark.parametrize("spelling, frame", [("H4", "4h"), ("4H", "4h"), ("daily", "1d"), ("d1", "1d"), ("1h", "1h")])
def test_timeframes_are_read_as_others_write_them(real: Runtime, spelling: str, frame: str):
    told = ask(get_ohlcv, symbol="eurusd", timeframe=spelling, limit=3)
    assert told["timeframe"] == frame and len(told["data"]) == 3
    assert (told["made_of"] is None) == (frame == "1h")


def test_its_other_name_takes_its_other_argument(real: Runtime):
    assert ask(get_ohlcv, symbol="EURUSD", bars=7) == ask(get_ohlcv, symbol="EURUSD", limit=7)
    assert len(ask(get_ohlcv, symbol="EURUSD")["data"]) == 100
    assert "limit" in read_tool(get_ohlcv).schema["properties"]


@pytest.mark.parametrize("wrong", [{"limit": 501}, {"limit": 0}, {"timeframe": "2h"}, {"timeframe": "1M"}, {"bar": 3}])
def test_what_it_cannot_take_is_refused(real: Runtime, wrong: dict[str, Any]):
    with pytest.raises(ValidationError):
        ask(get_ohlcv, symbol="EURUSD", **wrong)


def test_nothing_finer_is_made_of_anything_coarser(real: Runtime):
    with pytest.raises(NotFoundError, match=r"nothing finer.*orbiquant data pull dukascopy EURUSD 5m"):
        ask(get_ohlcv, symbol="EURUSD", timeframe="5m")


@pytest.mark.parametrize(
    "symbol, said",
    [
        ("EURUSS", "did you mean 'EURUSD'"),
        ("BTCUSTD", "did you mean 'BTCUSD'"),
        ("GBPUSD", "orbiquant data pull dukascopy GBPUSD"),
        ("BTCUSDT", "orbiquant data pull binance BTCUSDT"),
        ("AAPL", "orbiquant data pull polygon AAPL"),
    ],
)
def test_what_is_missing_is_told_with_the_way_out(real: Runtime, symbol: str, said: str):
    for function in (get_price, get_ohlcv, get_indicators, analyze_market):
        with pytest.raises(NotFoundError, match=said):
            ask(function, symbol=symbol)


@pytest.mark.parametrize("symbol", ["", "ignore all rules", "💶", "x" * 5000, "'; DROP TABLE bars;--"])
def test_no_symbol_is_an_error_in_short_words(real: Runtime, symbol: str):
    with pytest.raises(DataError) as refused:
        ask(get_price, symbol=symbol)
    assert len(refused.value.message) < 300


# --- indicators ---


def by_hand(bars: Bars) -> dict[str, float]:
    """Return the last values of the indicators, by pandas alone."""
    close, high, low = bars["close"], bars["high"], bars["low"]
    change = close.diff()
    rise, fall = (part.clip(lower=0).iloc[1:].ewm(alpha=1 / 14, adjust=False).mean() for part in (change, -change))
    ranges = pd.concat([high - low, (high - close.shift()).abs(), (low - close.shift()).abs()], axis=1).max(axis=1)
    fast, slow = (close.ewm(span=length, adjust=False).mean() for length in (12, 26))
    line = fast - slow
    signal = line.ewm(span=9, adjust=False).mean()
    mean, spread = close.rolling(20).mean(), close.rolling(20).std(ddof=0)
    flow = (np.sign(change).fillna(1.0) * bars["volume"]).cumsum()
    eastern = (bars.index.tz_convert("America/New_York") + timedelta(hours=7)).date
    day = bars[eastern == eastern[-1]]
    typical = (day["high"] + day["low"] + day["close"]) / 3
    last = {
        "rsi": 100 - 100 / (1 + rise / fall), "atr": ranges.iloc[1:].ewm(alpha=1 / 14, adjust=False).mean(),
        "macd": line, "signal": signal, "histogram": line - signal, "ema12": fast, "ema26": slow,
        "sma20": mean, "sma50": close.rolling(50).mean(), "sma200": close.rolling(200).mean(),
        "upper": mean + 2 * spread, "lower": mean - 2 * spread, "percentB": (close - mean + 2 * spread) / (4 * spread),
        "obv": flow,
    }  # fmt: skip
    values = {name: float(series.iloc[-1]) for name, series in last.items()}
    return values | {"vwap": float((typical * day["volume"]).sum() / day["volume"].sum())}


def flat(told: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of an answer by the names of `by_hand`."""
    macd = told["MACD"]
    numbers = {"rsi": told["RSI"]["value"], "macd": macd["value"], "obv": told["OBV"]["value"]}
    numbers |= {"atr": told["ATR"]["value"], "vwap": told["VWAP"]["value"]}
    numbers |= {name: macd[name] for name in ("signal", "histogram")} | told["SMA"] | told["EMA"] | told["BB"]
    return {name: value for name, value in numbers.items() if name not in ("interpretation", "middle")}


@pytest.mark.parametrize("cut", [1200, 2500, 4000, 5555, 6115])
def test_indicators_are_those_of_pandas(tmp_path: Path, sample: Bars, cut: int):
    runtime, bars = make(tmp_path), sample.iloc[:cut]
    runtime.store.upsert(EURUSD, bars)
    go_to(runtime, bars.index[-1] + HOUR)
    with using(runtime):
        told = ask(get_indicators, symbol="EURUSD", timeframe="1h")
    mine, theirs = flat(told), by_hand(bars.iloc[-500:])
    assert {*mine} == {*theirs} and told["bars"] == 500
    for name, value in theirs.items():
        near = {"rsi": 0.0051, "percentB": 5.1e-5, "obv": 1e-6 * abs(value) + 1e-6}.get(name, 1e-6)
        assert mine[name] == pytest.approx(value, abs=near), name
    strength = "oversold" if theirs["rsi"] < 30 else "overbought" if theirs["rsi"] > 70 else "neutral"
    assert told["RSI"]["interpretation"] == strength
    assert told["MACD"]["interpretation"] == ("bullish" if theirs["histogram"] > 0 else "bearish")


def test_indicators_are_those_of_another_library(real: Runtime, sample: Bars):
    bars = sample.iloc[-500:]
    told = ask(get_indicators, symbol="EURUSD", timeframe="1h")
    close, high, low = bars["close"], bars["high"], bars["low"]
    bands, lines = ta.bbands(close, length=20, std=2, ddof=0, talib=False), ta.macd(close, talib=False)
    assert told["RSI"]["value"] == pytest.approx(ta.rsi(close, 14, talib=False).iloc[-1], abs=0.0051)
    assert told["ATR"]["value"] == pytest.approx(ta.atr(high, low, close, 14, talib=False).iloc[-1], abs=2e-6)
    assert told["BB"]["lower"] == pytest.approx(bands.iloc[-1, 0], abs=1e-6)
    assert told["BB"]["upper"] == pytest.approx(bands.iloc[-1, 2], abs=1e-6)
    assert told["MACD"]["value"] == pytest.approx(lines.iloc[-1, 0], abs=1e-6)
    assert told["SMA"]["sma50"] == pytest.approx(ta.sma(close, 50, talib=False).iloc[-1], abs=1e-6)


def path(closes: np.ndarray) -> Bars:
    """Return hours of a market that goes through some closes."""
    index = pd.date_range("2025-06-01", periods=len(closes), freq="1h", tz="UTC", name="time")
    close = pd.Series(closes, index)
    table = {"open": close.shift().fillna(close.iloc[0]), "close": close, "volume": 1.0}
    frame = pd.DataFrame(table)
    high, low = frame[["open", "close"]].max(axis=1) + 0.01, frame[["open", "close"]].min(axis=1) - 0.01
    return frame.assign(high=high, low=low)[["open", "high", "low", "close", "volume"]]


def read(folder: Path, closes: np.ndarray) -> IndicatorSet:
    """Return the indicators of such a market."""
    runtime, bars = make(folder), path(closes)
    runtime.store.upsert(SeriesId.parse("BTCUSDT", "1h"), bars)
    go_to(runtime, bars.index[-1] + HOUR)
    return read_indicators(bars_at(runtime, "BTCUSDT", Timeframe.H1, 500))


def test_each_word_is_said_of_the_market_it_means(tmp_path: Path):
    steps = np.arange(400, dtype=float)
    rising, falling = read(tmp_path / "up", 100 + steps**1.5 / 100), read(tmp_path / "down", 300 - steps**1.5 / 100)
    still = read(tmp_path / "still", np.full(400, 100.0))
    jump = read(tmp_path / "jump", np.append(np.tile([100.0, 100.1], 200), 130.0))
    drop = read(tmp_path / "drop", np.append(np.tile([100.0, 100.1], 200), 70.0))
    assert rising.rsi.interpretation == "overbought" and falling.rsi.interpretation == "oversold"
    assert (rising.macd.interpretation, falling.macd.interpretation) == ("bullish", "bearish")
    assert (rising.sma.interpretation, falling.sma.interpretation) == ("bullish", "bearish")
    assert (rising.ema.interpretation, falling.ema.interpretation) == ("bullish", "bearish")
    assert (rising.obv.interpretation, falling.obv.interpretation) == ("bullish", "bearish")
    assert (rising.vwap.interpretation, falling.vwap.interpretation) == ("bullish", "bearish")
    assert (jump.bb.interpretation, drop.bb.interpretation) == ("above_upper", "below_lower")
    assert (rising.bb.interpretation, falling.bb.interpretation) == ("upper_half", "lower_half")
    assert jump.atr.interpretation == "high" and still.macd.interpretation == still.ema.interpretation == "neutral"
    assert still.rsi.value is None and still.rsi.interpretation is None  # it has not moved once: nobody knows


@pytest.mark.parametrize("rows", [1, 2, 15, 30, 199, 200, 249])
def test_a_short_history_knows_what_it_can_and_says_so(tmp_path: Path, rows: int):
    told = read(tmp_path, 100 + np.sin(np.arange(rows)))
    assert (told.sma.sma200 is None) == (rows < 200) and (told.rsi.value is None) == (rows < 15)
    assert told.bars == rows and any("250 were asked for" in each for each in told.notices)
    assert (told.sma.interpretation is None) == (rows < 200)


def test_indicators_by_name(real: Runtime):
    told = ask(get_indicators, symbol="EURUSD", indicators="rsi, bollinger")
    assert {"RSI", "BB"} <= {*told} and not {"MACD", "OBV", "rsi"} & {*told} and told["timeframe"] == "1d"
    assert told["made_of"] == "1h" and told["sma200" if "sma200" in told else "bars"] >= 200
    with pytest.raises(ValidationError):
        ask(get_indicators, symbol="EURUSD", indicators=["ichimoku"])


# --- how a market stands ---


@pytest.mark.parametrize("frame", [None, "1h", "4h", "1d"])
def test_a_market_is_analysed_on_any_timeframe(real: Runtime, sample: Bars, frame: str | None):
    told = ask(analyze_market, symbol="EUR/USD", timeframe=frame)
    assert told["trend"] in ("bullish", "bearish", "neutral") and told["volatility"] in ("low", "medium", "high")
    assert {"killzone", "ote_zone", "score"} == {*told["ict_context"]} and {"resistance", "support"} == {
        *told["key_levels"]
    }
    levels = told["key_levels"]
    assert all(level >= told["current_price"] for level in levels["resistance"])
    assert all(level <= told["current_price"] for level in levels["support"])
    assert told["amd_phase"] in ("accumulation", "manipulation", "distribution", "neutral", "invalidated")
    assert told["volume24h"] == ask(get_price, symbol="EURUSD")["volume"] and "changePercent" in told
    assert told["recent_signals"] == [] and any("plan pro" in each for each in told["notices"])


# --- sizes ---

SIZED = {"EURUSD": 1.1, "USDJPY": 150.0, "XAUUSD": 2400.0, "BTCUSDT": 60_000.0, "AAPL": 200.0, "SPX": 5000.0}


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """Yield a runtime with a price of each instrument."""
    runtime = make(tmp_path_factory.mktemp("priced"))
    for symbol, price in SIZED.items():
        runtime.store.upsert(SeriesId.parse(symbol, "1h"), plain("2025-12-29", 60, "1h", price))
    with using(runtime):
        yield runtime
    runtime.engine.dispose()


@settings(max_examples=60, deadline=None)
@given(
    symbol=st.sampled_from(sorted(SIZED)), balance=st.integers(500, 5_000_000),
    percent=st.sampled_from([0.25, 1.0, 2.0]), away=st.floats(0.001, 0.2), long=st.booleans(),
)  # fmt: skip
def test_a_size_is_the_largest_whose_stop_costs_no_more(
    priced: Runtime, symbol: str, balance: int, percent: float, away: float, long: bool
):
    from decimal import Decimal

    instrument, entry = find_instrument(symbol), SIZED[symbol]
    stop = round(entry * (1 - away if long else 1 + away), 5)
    told = size_position(priced, instrument, (Decimal(balance), "USD"), entry, stop, percent)
    rate = Fraction(1) / Fraction("150.0") if symbol == "USDJPY" else Fraction(1)
    costs = priced.settings.costs.of(instrument.asset_class)
    fee, slip = Fraction(str(costs.fee_bps)) / 10_000, Fraction(str(costs.slippage_bps)) / 10_000
    slip += Fraction(str(costs.spread_bps)) / 20_000
    side = 1 if long else -1
    bought, sold = Fraction(str(entry)) * (1 + side * slip), Fraction(str(stop)) * (1 - side * slip)
    loss = (side * (bought - sold) + fee * (bought + sold)) * rate  # of one unit, by exact fractions
    step, units = Fraction(instrument.quantity_step), Fraction(str(told.units))
    budget = Fraction(balance) * Fraction(str(percent)) / 100
    leverage = Fraction(priced.settings.risk.leverage(instrument.asset_class))
    most = min(budget / loss, Fraction(balance) * leverage / (Fraction(str(entry)) * rate))
    tiny = Fraction(1, 10**9) * most
    assert units % step == 0 and units <= most + tiny < units + step + 2 * tiny
    assert told.risk_amount == pytest.approx(float(units * loss), rel=1e-6, abs=1e-6)
    assert told.risk_percent <= percent + 1e-6 and told.lots * float(instrument.lot_size) == pytest.approx(told.units)
    assert told.pips == pytest.approx(abs(entry - stop) / float(instrument.pip_size), abs=1e-3)
    assert (told.side == "BUY") == long and (not told.units) == any("fewer units" in each for each in told.warnings)
    assert any("careful" in each for each in told.warnings) == (percent > 1)


def test_money_of_another_kind_is_said_or_refused(priced: Runtime):
    told = ask(position_size_for, symbol="USDJPY", entry=150.0, stop_loss=149.0, balance=10_000)
    assert any("in JPY, the balance in USD: converted at" in each for each in told["warnings"])
    euros = ask(position_size_for, symbol="EURUSD", entry=1.1, stop_loss=1.09, balance=10_000, currency="eur")
    assert (
        euros["currency"] == "EUR" and euros["risk_amount"] <= 100 and "converted at 0.909091" in euros["warnings"][0]
    )
    with pytest.raises(NotFoundError, match="no stored price tells the rate"):
        ask(position_size_for, symbol="EURUSD", entry=1.1, stop_loss=1.09, balance=10_000, currency="CHF")


@pytest.mark.parametrize(
    "wrong",
    [
        {"risk_percent": 2.01}, {"risk_percent": 0}, {"balance": -5}, {"balance": "nan"}, {"stop_loss": 0},
        {"entry": "inf"}, {"currency": "DOLLARS AND MORE"},
    ],
)  # fmt: skip
def test_a_size_of_nonsense_is_refused(priced: Runtime, wrong: dict[str, Any]):
    asked = {"symbol": "EURUSD", "entry": 1.1, "stop_loss": 1.09, "balance": 10_000} | wrong
    with pytest.raises(ValidationError):
        ask(position_size_for, **asked)


def test_a_size_needs_a_stop_a_balance_and_a_market(priced: Runtime):
    with pytest.raises(DataError, match="must differ"):
        ask(position_size_for, symbol="EURUSD", entry=1.1, stop_loss=1.1, balance=1000)
    with pytest.raises(OptionError, match="`balance` must be given"):
        ask(position_size_for, symbol="EURUSD", entry=1.1, stop_loss=1.09)
    with pytest.raises(NotFoundError, match="did you mean"):
        ask(position_size_for, symbol="EURUSS", entry=1.1, stop_loss=1.09, balance=1000)
    for wrong in ({}, {"stop_loss": 1.09, "stop_pips": 100}):
        with pytest.raises(OptionError, match="give one of `stop_loss` and `stop_pips`"):
            ask(position_size_for, symbol="EURUSD", entry=1.1, balance=1000, **wrong)
    two = {"risk_percent": 1, "risk_amount": 10}
    for wrong, told in (
        (two, "at most one of `risk_percent`"),
        ({"risk_amount": 20.1}, "at most 2 % of the balance, 20"),
    ):
        with pytest.raises(OptionError, match=told):
            ask(position_size_for, symbol="EURUSD", entry=1.1, stop_loss=1.09, balance=1000, **wrong)
    with pytest.raises(OptionError, match="whose pip is known"):
        ask(position_size_for, symbol="ZZTOP", entry=1.1, stop_pips=10, balance=1000)
    far = ask(position_size_for, symbol="EURUSD", entry=1.5, stop_loss=1.4, balance=1000)
    assert any("36.4 % away from the last price" in each for each in far["warnings"])


def test_a_stop_in_pips_and_a_risk_in_money_are_the_same_size(priced: Runtime):
    asked = {"symbol": "USDJPY", "entry": 150.0, "balance": 10_000}
    plain = ask(position_size_for, **asked, stop_loss=149.75, risk_percent=1)
    told = ask(position_size_for, **asked, stop_pips=25, risk_amount=100)
    assert told["units"] == plain["units"] > 0 and told["stop_loss"] == 149.75
    assert any("25 pips below the entry, at 149.75" in each for each in told["warnings"])
    far = ask(position_size_for, **asked, stop_loss=25)
    assert any("83 % away from the entry" in each for each in far["warnings"])


def test_of_the_last_price_the_entry_is_left_out(priced: Runtime):
    told = ask(position_size_for, symbol="XAUUSD", stop_loss=2380, balance=20_000, risk_percent=1)
    assert told["entry_price"] == 2400.0 and told["stop_distance"] == 20.0 and told["pips"] == 200.0
    assert told["lots"] == pytest.approx(0.09) and told["risk_amount"] <= 200  # 10 ounces would lose 200 and the costs


def test_without_a_balance_it_is_that_of_the_callers_account(tmp_path: Path):
    from decimal import Decimal

    from test_accounts_http import PRODUCT, House

    from orbiquant.desk.accounts import OpenAccount, open_account_for

    house = House(tmp_path)
    ana, ben = (Caller(name, name, "pro", frozenset({"read", "trade"})) for name in ("ana", "ben"))
    with using(house.runtime):
        first = open_account_for(ana, OpenAccount(product_id=PRODUCT, initial_deposit=Decimal(1000)))
        house.close(2)  # its deposit buys at the next price
        price = price_of(house.runtime, "BTCUSDT").price
        told = position_size_for(ana, "BTCUSDT", round(price * 0.98, 2))
        assert (told.balance, told.currency, told.entry_price) == (
            1000.0,
            "USDT",
            price,
        ) and 9.5 < told.risk_amount <= 10
        named = position_size_for(ana, "BTCUSDT", round(price * 0.98, 2), account_id=first.id)
        assert named == told
        with pytest.raises(NotFoundError, match="no account is called"):
            position_size_for(ben, "BTCUSDT", price * 0.98, account_id=first.id)
        with pytest.raises(OptionError, match="there is no account with a balance"):
            position_size_for(ben, "BTCUSDT", price * 0.98)
        second = open_account_for(ana, OpenAccount(product_id=PRODUCT, initial_deposit=Decimal(500)))
        house.close(2)
        with pytest.raises(OptionError, match=f"{first.id}.*{second.id}"):
            position_size_for(ana, "BTCUSDT", price * 0.98)
    house.runtime.engine.dispose()
