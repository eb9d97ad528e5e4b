"""Killzones, trading days and the Asian range over clock changes, midnight, overlaps, gaps and six real years."""

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared_bars import shared_bars

from orbiquant.core import DataError
from orbiquant.domain import Bars
from orbiquant.features.config import SESSIONS, parse_window
from orbiquant.features.indicators import session_vwap
from orbiquant.features.sessions import asian_range, day_range, killzones, trading_day
from orbiquant.market.calendars import expected_times
from orbiquant.settings import load_settings

NEW_YORK = ZoneInfo("America/New_York")
CLOCK_WEEKS = {
    "US springs forward": ("2024-03-08", "2024-03-13"),
    "US ahead of EU, spring": ("2024-03-28", "2024-04-03"),
    "EU falls back first": ("2024-10-25", "2024-10-30"),
    "US falls back": ("2024-11-01", "2024-11-06"),
}


def utc(*moments: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(moments, tz="UTC", name="time")


def flat_bars(index: pd.DatetimeIndex, seed: int = 1) -> Bars:
    middle = 1 + np.random.default_rng(seed).random(len(index))
    prices = {"open": middle, "high": middle + 0.1, "low": middle - 0.1, "close": middle, "volume": 1.0}
    return pd.DataFrame(prices, index.rename("time"))


def zone_by_hand(moment: pd.Timestamp, sessions: dict[str, str]) -> str:
    """Say which session a moment lies in, the slow and obvious way."""
    clock = moment.to_pydatetime().astimezone(NEW_YORK).strftime("%H:%M")
    for name, window in sessions.items():
        start, end = window.split("-")
        if (start <= clock < end) if start < end else (clock >= start or clock < end):
            return name
    return "none"


@pytest.mark.parametrize("week", CLOCK_WEEKS)
def test_killzones_follow_the_wall_clock_through_clock_changes(week):
    index = pd.date_range(*CLOCK_WEEKS[week], freq="15min", tz="UTC", unit="us")
    assert killzones(index, SESSIONS).tolist() == [zone_by_hand(moment, dict(SESSIONS)) for moment in index]


@pytest.mark.parametrize("date, opens", [("2024-03-08", 7), ("2024-03-11", 6), ("2024-11-01", 6), ("2024-11-04", 7)])
def test_london_open_moves_in_utc_with_new_york(date, opens):
    hours = pd.date_range(date, periods=24, freq="1h", tz="UTC")
    zones = killzones(hours, SESSIONS)
    assert hours[zones == "london_open"].hour.tolist() == [opens, opens + 1, opens + 2]


def test_windows_are_half_open():
    edges = utc("2024-01-10 06:59:59", "2024-01-10 07:00", "2024-01-10 09:59:59", "2024-01-10 10:00")
    assert killzones(edges, SESSIONS).tolist() == ["none", "london_open", "london_open", "none"]


def test_windows_cross_midnight_and_the_first_named_wins():
    night = pd.date_range("2024-01-10 03:00", periods=6, freq="1h", tz="UTC")  # 22:00 to 03:00 New York
    assert killzones(night, {"a": "23:00-01:00", "b": "22:00-02:00"}).tolist() == ["b", "a", "a", "b", "none", "none"]
    assert killzones(night, {"b": "22:00-02:00", "a": "23:00-01:00"}).tolist() == [*"bbbb", "none", "none"]


def test_no_sessions_no_rows_and_other_zones():
    assert killzones(utc("2024-01-10"), {}).tolist() == ["none"]
    assert killzones(utc(), SESSIONS).empty
    berlin = pd.date_range("2024-01-10", periods=24, freq="1h", tz="Europe/Berlin")
    assert killzones(berlin, SESSIONS).tolist() == killzones(berlin.tz_convert("UTC"), SESSIONS).tolist()
    for unit in ("s", "ms", "ns"):
        assert killzones(berlin.as_unit(unit), SESSIONS).tolist() == killzones(berlin, SESSIONS).tolist()


@pytest.mark.parametrize(
    "window", ["2:00-05:00", "02:00", "02:00-02:00", "02:60-03:00", "24:00-01:00", "+2:00-05:00", ""]
)
def test_a_window_that_is_none_is_refused(window):
    with pytest.raises(DataError, match="must be HH:MM-HH:MM"):
        parse_window(window)


def test_the_shipped_settings_are_the_defaults():
    assert load_settings().sessions.model_dump() == SESSIONS


@given(st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1)))
def test_trading_day_turns_at_17_new_york(moment):
    index = pd.DatetimeIndex([moment]).tz_localize("UTC")
    local = index[0].to_pydatetime().astimezone(NEW_YORK)
    expected = pd.Timestamp(local.date()) + pd.Timedelta(days=int(local.hour >= 17))
    assert trading_day(index).iloc[0] == expected


@pytest.mark.parametrize("start, end", [("2024-03-03", "2024-03-31"), ("2024-10-20", "2024-11-17")])
def test_a_forex_week_has_five_whole_trading_days_in_clock_change_weeks_too(start, end):
    days = trading_day(expected_times(start, end, "1h", "forex"))
    assert set(days.dt.day_of_week) == {0, 1, 2, 3, 4}
    assert set(days.value_counts()) - {24} <= {days.value_counts().min()}
    assert (days.value_counts() == 24).sum() >= 19


def test_day_range_is_so_far_and_the_day_before():
    bars = flat_bars(pd.date_range("2024-03-08", periods=400, freq="30min", tz="UTC", unit="us"))
    found, days = day_range(bars), trading_day(bars.index)
    for row in (0, 43, 44, 45, 180, 399):
        day = days.iloc[row]
        so_far = bars[(days == day) & (bars.index <= bars.index[row])]
        assert found["high"].iloc[row] == so_far["high"].max() and found["low"].iloc[row] == so_far["low"].min()
        before = bars[days < day]
        last = before[days[days < day] == days[days < day].max()]
        expected = (last["high"].max(), last["low"].min()) if len(last) else (np.nan, np.nan)
        np.testing.assert_equal(tuple(found[["previous_high", "previous_low"]].iloc[row]), expected)


@pytest.mark.parametrize("week", CLOCK_WEEKS)
def test_asian_range_is_known_only_after_it_has_ended(week):
    bars = flat_bars(pd.date_range(*CLOCK_WEEKS[week], freq="15min", tz="UTC", unit="us"))
    found, local = asian_range(bars), bars.index.tz_convert(NEW_YORK)
    evening = np.asarray(local.hour >= 20)
    assert found[evening].isna().all(axis=None)
    for row in np.flatnonzero(~evening)[::7]:
        date = (local[row] - pd.Timedelta(days=1)).date() if local[row].hour < 20 else local[row].date()
        window = bars[evening & (local.date == date)]
        if len(window) and found.iloc[row].notna().all():
            assert tuple(found.iloc[row]) == (window["high"].max(), window["low"].min())
    assert found.loc[~evening].iloc[-1].notna().all()


def test_asian_range_over_midnight_and_with_missing_evenings():
    index = pd.date_range("2024-01-08", "2024-01-13", freq="1h", tz="UTC", unit="us")
    bars = flat_bars(index)
    late = asian_range(bars, "22:00-02:00")
    wednesday = bars.loc["2024-01-10 03:00":"2024-01-10 06:59"]
    assert tuple(late.loc["2024-01-10 07:00"]) == (wednesday["high"].max(), wednesday["low"].min())
    gap = bars[(index < "2024-01-10 01:00") | (index >= "2024-01-10 06:00")]
    kept = asian_range(gap)
    assert tuple(kept.loc["2024-01-10 12:00"]) == tuple(kept.loc["2024-01-09 12:00"])
    jump = bars.loc[utc("2024-01-09 02:00", "2024-01-10 03:00", "2024-01-10 08:00")]
    assert tuple(asian_range(jump).iloc[2]) == (jump["high"].iloc[1], jump["low"].iloc[1])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["high", "low"])
def test_a_hole_is_refused_and_neither_hides_in_a_range_nor_spreads(name, value):
    bars = flat_bars(pd.date_range("2024-03-08", periods=400, freq="30min", tz="UTC", unit="us"))
    bars.iloc[0, bars.columns.get_loc(name)] = bars.iloc[200, bars.columns.get_loc(name)] = value
    for function in (day_range, asian_range, session_vwap):
        with pytest.raises(DataError, match=f"`{name}` must be finite, 2 values are not, the first is row 0"):
            function(bars)
    silent = bars.assign(high=2.0, low=1.0, volume=np.nan)
    with pytest.raises(DataError, match="`volume` must be finite, 400 values are not"):
        session_vwap(silent)


def test_a_time_without_a_zone_or_without_a_time_is_refused():
    for function in (trading_day, lambda index: killzones(index, SESSIONS)):
        with pytest.raises(DataError, match="must be time-zone aware"):
            function(pd.date_range("2024-07-01 08:30", periods=2, freq="h"))
        with pytest.raises(DataError, match="a time in every row, was NaT in row 1"):
            function(pd.DatetimeIndex(["2024-07-01 08:30", None], tz="UTC"))


def test_no_bars_give_no_rows():
    empty = flat_bars(utc().as_unit("us"))
    assert asian_range(empty).empty and day_range(empty).empty and trading_day(empty.index).empty


def test_six_years_of_five_minute_bars_are_labelled():
    bars = shared_bars("BTCUSDT_5m")
    zones = killzones(bars.index, SESSIONS)
    share = zones.value_counts(normalize=True)
    assert abs(share["asia"] - 4 / 24) < 0.001 and abs(share["new_york_am"] - 2.5 / 24) < 0.001
    sample = np.random.default_rng(0).integers(0, len(bars), 300)
    assert zones.iloc[sample].tolist() == [zone_by_hand(bars.index[i], dict(SESSIONS)) for i in sample]
