"""The synthetic market: the same by seed, valid everywhere, true to its plan, and like a market."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from orbiquant.core import DataError, OptionError
from orbiquant.domain import CalendarName, Phase, SeriesId, Timeframe
from orbiquant.market.activity import session_activity
from orbiquant.market.bars import inspect_bars, series_of
from orbiquant.market.calendars import expected_times
from orbiquant.market.synthetic import BITCOIN_LIKE, SyntheticConfig, SyntheticMarket, round_to_tick, synthetic_market

CONFIGS = {
    "default": SyntheticConfig(),
    "no edge": SyntheticConfig(edge=0),
    "bitcoin": BITCOIN_LIKE,
    "stock": SyntheticConfig(calendar=CalendarName.US_EQUITY, start_price=200, tick_size=0.01, daily_volatility=0.02),
    "index": SyntheticConfig(start_price=5000, tick_size=0.25, daily_volatility=0.01),
}


@pytest.fixture(scope="module", params=CONFIGS)
def market(request: pytest.FixtureRequest) -> SyntheticMarket:
    return synthetic_market(40_000, "15m", 11, CONFIGS[request.param])


def cycles(market: SyntheticMarket) -> pd.DataFrame:
    "One row a finished cycle: its range, and what each stretch did."
    joined = market.bars.join(market.phases)
    joined = joined[(joined["cycle"] >= 0) & (joined["cycle"] < joined["cycle"].max())]
    stretch = joined.groupby(["cycle", "phase"])
    facts = stretch.agg(
        high=("high", "max"), low=("low", "min"), close=("close", "last"), direction=("direction", "first")
    )
    wide = facts.unstack("phase")
    wide.columns = [f"{phase}_{name}" for name, phase in wide.columns]
    ranges = joined.groupby("cycle")[["range_high", "range_low"]].agg(["min", "max"])
    assert (ranges.xs("min", axis=1, level=1) == ranges.xs("max", axis=1, level=1)).all(axis=None)
    return wide.join(ranges.xs("min", axis=1, level=1))


def test_bars_are_valid_and_on_the_tick(market: SyntheticMarket, request: pytest.FixtureRequest) -> None:
    config = CONFIGS[request.node.callspec.params["market"]]
    report = inspect_bars(market.bars, "15m", config.calendar)
    assert report.ok and report.missing == 0 and not report.issues
    ticks = market.bars[["open", "high", "low", "close"]] / config.tick_size
    assert np.allclose(ticks, ticks.round(), atol=1e-6)
    assert (market.bars["volume"] >= 1).all() and (market.bars["volume"] % 1 == 0).all()
    jump = market.bars["open"].iloc[1:].to_numpy() != market.bars["close"].iloc[:-1].to_numpy()
    pause = np.diff(market.bars.index) > pd.Timedelta(days=1)
    assert not (jump & ~pause).any()


def test_truth_is_aligned_and_complete(market: SyntheticMarket) -> None:
    truth = market.phases
    assert truth.index.equals(market.bars.index)
    assert set(truth["phase"]) == {phase.value for phase in Phase}
    assert truth["direction"].dtype == "int8" and set(truth["direction"]) == {-1, 0, 1}
    pointing = truth["phase"].isin(["manipulation", "distribution"])
    assert (truth["direction"] != 0).equals(pointing)
    neutral = truth["phase"] == "neutral"
    assert (truth["cycle"] == -1).equals(neutral) and truth["range_high"].isna().equals(neutral)
    order = truth["phase"][truth["phase"] != truth["phase"].shift()]
    follows = set(zip(order, order.shift(-1).dropna(), strict=False))
    assert follows == {
        ("neutral", "accumulation"),
        ("accumulation", "manipulation"),
        ("manipulation", "distribution"),
        ("manipulation", "invalidated"),
        ("distribution", "neutral"),
        ("invalidated", "neutral"),
    }


def test_accumulation_is_the_range(market: SyntheticMarket) -> None:
    found = cycles(market)
    assert (found["accumulation_high"] == found["range_high"]).all()
    assert (found["accumulation_low"] == found["range_low"]).all()


def test_manipulation_pierces_one_side_and_reclaims(market: SyntheticMarket) -> None:
    found = cycles(market)
    height = found["range_high"] - found["range_low"]
    above, below = found["manipulation_high"] - found["range_high"], found["range_low"] - found["manipulation_low"]
    up = found["manipulation_direction"] < 0
    pierce = above.where(up, below) / height
    assert (above.where(up, below) > 0).all() and (above.where(~up, below) <= 0).all()
    assert pierce.between(0.14, 0.51).mean() > 0.98  # a tick more or less on a narrow range
    assert found["manipulation_close"].between(found["range_low"], found["range_high"], inclusive="neither").all()
    assert 0.4 < up.mean() < 0.6


def test_distribution_leaves_through_the_other_side(market: SyntheticMarket) -> None:
    found = cycles(market).dropna(subset="distribution_close")
    up = found["distribution_direction"] > 0
    assert (found["distribution_direction"] == found["manipulation_direction"]).all()
    assert (found["distribution_close"] > found["range_high"])[up].all()
    assert (found["distribution_close"] < found["range_low"])[~up].all()


def test_a_failed_cycle_leaves_through_the_side_it_swept(market: SyntheticMarket) -> None:
    found = cycles(market).dropna(subset="invalidated_close")
    swept_high = found["manipulation_direction"] < 0
    assert len(found) > 20
    assert (found["invalidated_close"] > found["range_high"])[swept_high].all()
    assert (found["invalidated_close"] < found["range_low"])[~swept_high].all()


def test_the_same_seed_is_the_same_market() -> None:
    one, two = synthetic_market(3000, "5m", 42), synthetic_market(3000, "5m", 42)
    assert one.bars.equals(two.bars) and one.phases.equals(two.phases)
    closes = [synthetic_market(3000, "5m", seed).bars["close"] for seed in range(5)]
    assert len({tuple(close) for close in closes}) == 5


def test_a_market_goes_by_a_name_where_that_name_is_true() -> None:
    assert series_of(synthetic_market(50, "15m").bars) == SeriesId.parse("ORBUSD", "15m")
    assert series_of(synthetic_market(50, "4h", symbol="btc/usdt").bars) == SeriesId.parse("BTCUSDT", "4h")
    with pytest.raises(DataError, match="`symbol`"):  # ORBUSD trades forex hours
        series_of(synthetic_market(50, "1h", config=BITCOIN_LIKE).bars)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 2**32), st.booleans())
def test_a_longer_market_begins_with_the_shorter(a: int, b: int, seed: int, cycles: bool) -> None:
    config = SyntheticConfig(cycles=cycles)
    short, long = (synthetic_market(rows, "1h", seed, config) for rows in sorted((a, b)))
    assert short.bars.equals(long.bars.iloc[: len(short.bars)])
    same = ["phase", "direction", "cycle"]
    assert short.phases[same].equals(long.phases[same].iloc[: len(short.phases)])


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 400),
    timeframe=st.sampled_from([frame.value for frame in Timeframe]),
    seed=st.integers(0, 2**32),
    calendar=st.sampled_from(list(CalendarName)),
    volatility=st.floats(1e-5, 0.1),
    wildness=st.floats(0, 0.6),
    ticks=st.floats(1000, 1e7),
)
def test_any_configuration_gives_valid_bars(
    rows: int, timeframe: str, seed: int, calendar: CalendarName, volatility: float, wildness: float, ticks: float
) -> None:
    config = SyntheticConfig(
        calendar=calendar,
        start_price=ticks * 0.01,
        tick_size=0.01,
        daily_volatility=volatility,
        volatility_of_volatility=wildness,
        neutral_bars=(3, 8),
        accumulation_bars=(4, 10),
        weekend_gap=1.0,
    )
    market = synthetic_market(rows, timeframe, seed, config)
    assert len(market.bars) == len(market.phases) == rows
    report = inspect_bars(market.bars, timeframe, calendar)
    assert report.ok and report.missing == 0, report.issues


@pytest.mark.parametrize("calendar", [*list(CalendarName)[:4], CalendarName.XTKS, CalendarName.XTAE, CalendarName.XSAU])
@pytest.mark.parametrize("timeframe", ["5m", "4h", "1d", "1w"])
def test_times_are_the_calendars(timeframe: str, calendar: CalendarName) -> None:
    index = synthetic_market(700, timeframe, 3, SyntheticConfig(calendar=calendar)).bars.index
    end = index[-1] + pd.Timedelta(minutes=1)
    assert index.equals(expected_times(SyntheticConfig().start, end, timeframe, calendar))


def test_returns_are_those_of_a_market() -> None:
    bars = synthetic_market(100_000, "15m").bars
    returns = np.log(bars["close"]).diff().dropna()
    size = returns.abs()
    assert returns.kurt() > 5 and abs(returns.autocorr(1)) < 0.05
    clustering = [size.autocorr(lag) for lag in (1, 10, 96, 480)]
    assert min(clustering) > 0.04 and clustering[0] > clustering[1]
    assert 0.004 < np.log(bars["close"].iloc[::96]).diff().std() < 0.008  # asked for: 0.006 a day
    hour = size.groupby(bars.index[1:].tz_convert("America/New_York").hour).mean()
    assert hour.loc[8:11].min() > 1.3 * hour.loc[17:22].max()
    assert np.log(bars["volume"]).corr(np.log((bars["high"] - bars["low"]).clip(lower=1e-5))) > 0.6
    overnight = (bars["open"] / bars["close"].shift() - 1)[
        np.diff(bars.index, prepend=bars.index[:1]) > pd.Timedelta("1D")
    ]
    assert overnight.abs().mean() > 1e-4  # weekends gap


def test_activity_averages_out() -> None:
    times = expected_times("2024-03-04", "2024-03-09", "1m", "forex").asi8
    assert np.isclose((session_activity(times[:1440], Timeframe.M1, CalendarName.FOREX) ** 2).mean(), 1, atol=0.02)
    assert (session_activity(times[:10], Timeframe.D1, CalendarName.FOREX) == 1).all()


@pytest.mark.parametrize(("edge", "completed"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_the_edge_is_the_share_of_completed_cycles(edge: float, completed: float) -> None:
    truth = synthetic_market(200_000, config=SyntheticConfig(edge=edge)).phases
    ends = truth[truth["phase"].isin(["distribution", "invalidated"])].groupby("cycle")["phase"].first()
    assert abs((ends == "distribution").mean() - completed) < 3 * np.sqrt(0.25 / len(ends))


@pytest.mark.parametrize("bars_later", [1, 4, 12])
def test_without_edge_a_reclaim_says_nothing(bars_later: int) -> None:
    scores = []
    for edge in (0.0, 1.0):
        bars, truth = synthetic_market(200_000, "5m", 5, SyntheticConfig(edge=edge))
        ends = (truth["phase"] == "manipulation") & (truth["phase"].shift(-1) != "manipulation")
        height = truth["range_high"] - truth["range_low"]
        move = (truth["direction"] * (bars["close"].shift(-bars_later) - bars["close"]) / height)[ends].dropna()
        scores.append(move.mean() / move.sem())
    assert abs(scores[0]) < 3 and scores[1] > 5


def test_without_cycles_the_price_is_a_martingale() -> None:
    bars, truth = synthetic_market(200_000, "15m", 5, SyntheticConfig(cycles=False))
    assert set(truth["phase"]) == {"neutral"} and truth["range_high"].isna().all()
    change = bars["close"].pct_change().dropna()
    scaled = change / change.abs().rolling(96).mean().shift()
    assert abs(change.mean() / change.sem()) < 3
    for lag in (1, 2, 5, 20):
        assert abs(scaled.dropna().autocorr(lag)) < 4 / np.sqrt(len(change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pierce": (0.5, 0.1)}, "`pierce` must be (least, most), was (0.5, 0.1)"),
        ({"start_price": 1.0, "tick_size": 0.01}, "`start_price` must be at least 1000 ticks, was 100"),
        ({"move": (1.0, 2.0)}, "`move` must be at least 1.2"),
        ({"reclaim": (0.1, 1.5)}, "`reclaim` must end at most 0.9"),
        ({"edge": 1.5}, "less than or equal to 1"),
        ({"edgy": 1}, "Extra inputs"),
    ],
)
def test_a_bad_configuration_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SyntheticConfig.model_validate(change)
    assert message in str(caught.value)


def test_a_bad_request_is_refused() -> None:
    with pytest.raises(DataError, match="`rows` must be at least 1, was 0"):
        synthetic_market(0)
    with pytest.raises(DataError, match="`seed` must be at least 0, was -1"):
        synthetic_market(10, seed=-1)
    with pytest.raises(OptionError, match="`timeframe`"):
        synthetic_market(10, "2h")


def test_prices_keep_no_digits_behind_the_tick() -> None:
    assert round_to_tick(np.array([1.100030000000001, 1.1]), 1e-5).tolist() == [1.10003, 1.1]
    assert round_to_tick(np.array([5000.13, 4999.9]), 0.25).tolist() == [5000.25, 5000.0]
