"""Coarser bars of an exchange by one rule, against pandas on the exchange's own clock; and little bars are told."""

import numpy as np
import pandas as pd
import pytest
from structlog.testing import capture_logs

from orbiquant.domain import BAR_COLUMNS, Bars, CalendarName, Timeframe
from orbiquant.market.calendars import expected_times, find_grid, load_sessions
from orbiquant.market.resampling import find_thin, resample

CLOCKS = {
    "us_equity": ("America/New_York", "09:30"),
    "XLON": ("Europe/London", "08:00"),
    "XTKS": ("Asia/Tokyo", "09:00"),
}
WEEKS = (("2024-03-04", "2024-04-06"), ("2024-10-21", "2024-11-09"), ("2024-11-25", "2024-12-07"))


def minutes(calendar: str, first: str, last: str, step: str = "5m") -> Bars:
    """Return a walk through all of an exchange's bars."""
    index = expected_times(first, last, step, calendar)
    close = 100 * np.exp(np.cumsum(np.random.default_rng(5).normal(0, 1e-3, len(index))))
    bars = pd.DataFrame(dict.fromkeys(BAR_COLUMNS, close), index=index)
    return bars.assign(high=close * 1.001, low=close * 0.999, volume=np.arange(1.0, len(index) + 1))


def by_wall(bars: Bars, step: pd.Timedelta, zone: str, opening: str) -> pd.DataFrame:
    """Group bars by the wall clock of their exchange, without anything of ours."""
    wall = bars.index.tz_convert(zone).tz_localize(None)
    since = wall - wall.normalize() - pd.Timedelta(f"{opening}:00")
    place = wall.normalize() + pd.Timedelta(f"{opening}:00") + since // step * step
    rules = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    made = bars.groupby(place).agg(rules)
    return made.set_axis(made.index.tz_localize(zone).tz_convert("UTC"))


@pytest.mark.parametrize("calendar", CLOCKS)
@pytest.mark.parametrize("weeks", WEEKS)
@pytest.mark.parametrize("target", ["30m", "1h", "4h"])
def test_bars_below_a_day_begin_at_the_opening(calendar: str, weeks: tuple[str, str], target: str):
    bars = minutes(calendar, *weeks)
    plain = by_wall(bars, Timeframe(target).delta, *CLOCKS[calendar])
    made = resample(bars, "5m", target, calendar)
    assert made.index.equals(plain.index.as_unit("us").rename("time"))
    np.testing.assert_allclose(made.to_numpy(), plain[list(BAR_COLUMNS)].to_numpy())


@pytest.mark.parametrize("calendar", [*CLOCKS, "XSAU", "XNZE"])
@pytest.mark.parametrize("weeks", WEEKS)
def test_a_bar_of_a_day_is_the_date_of_its_session(calendar: str, weeks: tuple[str, str]):
    bars = minutes(calendar, *weeks)
    days = resample(bars, "5m", "1d", calendar)
    local = bars.index.tz_convert(load_sessions(CalendarName(calendar)).zone)
    assert days.index.strftime("%Y-%m-%d %H:%M").tolist() == [
        f"{day} 00:00" for day in sorted({*local.strftime("%Y-%m-%d")})
    ]
    assert days["volume"].sum() == bars["volume"].sum()
    steps = resample(resample(bars, "5m", "1h", calendar), "1h", "1d", calendar)
    pd.testing.assert_frame_equal(steps, days, check_freq=False)


def test_a_bar_does_not_depend_on_where_the_data_begin():
    bars = minutes("us_equity", "2024-03-04", "2024-03-16")
    whole = resample(bars, "5m", "4h", "us_equity")
    for cut in (1, 17, 48, 60, 130):
        later = resample(bars.iloc[cut:], "5m", "4h", "us_equity")
        assert later.equals(whole.loc[later.index]) and len(whole) - len(later) <= cut // 30 + 1


def test_bars_before_and_after_hours_are_no_part_of_a_day():
    bars = minutes("us_equity", "2024-03-04", "2024-03-16")
    index = pd.date_range(
        bars.index[0] - pd.Timedelta("4h"), bars.index[-1] + pd.Timedelta("4h"), freq="5min", name="time"
    )
    extended = bars.reindex(index, method="nearest")
    for target in ("1h", "1d"):
        assert resample(extended, "5m", target, "us_equity").equals(resample(bars, "5m", target, "us_equity"))


def test_indian_hours_begin_at_a_quarter():
    bars = minutes("XBOM", "2024-03-04", "2024-03-09")
    hours = resample(bars, "5m", "1h", "XBOM")
    assert set(hours.index.tz_convert("Asia/Kolkata").strftime("%M")) == {"15"}
    assert find_grid(Timeframe.H1, "XBOM", Timeframe.H1).zone == "Asia/Calcutta"


@pytest.mark.parametrize("calendar", ["forex", "crypto", "us_equity", "metals"])
def test_a_day_of_three_hours_is_told_with_its_place(calendar: str):
    bars = minutes(calendar, "2024-02-04 22:00", "2024-03-02 05:00", "30m")
    days = resample(bars, "30m", "1d", calendar)
    with capture_logs() as said:
        assert resample(bars, "30m", "1d", calendar).equals(days)
    edges = find_thin(bars.index, Timeframe.M30, Timeframe.D1, calendar).index
    assert said == [] and not edges.isin(days.index).any()
    date = days.index[8]
    inside = bars.index[(bars.index >= date) & (bars.index < days.index[9])]
    thin = bars.drop(inside[3:])
    with capture_logs() as said:
        made = resample(thin, "30m", "1d", calendar)
    found = find_thin(thin.index, Timeframe.M30, Timeframe.D1, calendar)
    assert made.index.equals(days.index), "nothing is left out for it"
    found = found.drop(edges)
    assert found.index.tolist() == [date] and found["bars"].tolist() == [3]
    assert found["expected"].tolist() == [{"crypto": 48, "forex": 48, "metals": 46, "us_equity": 13}[calendar]]
    assert (
        len(said) == 1
        and f"{date:%Y-%m-%d}" in said[0]["event"]
        and f"(3 of {found['expected'].iloc[0]})" in said[0]["event"]
    )


def test_holidays_and_half_days_are_not_thin():
    for calendar in ("forex", "metals", "us_equity"):
        bars = minutes(calendar, "2019-11-20", "2020-01-10", "30m")
        quiet = bars.drop(bars["2019-12-24 19:00":"2019-12-25 22:30"].index, errors="ignore")
        kept = quiet if calendar != "us_equity" else bars
        thin = find_thin(kept.index, Timeframe.M30, Timeframe.D1, calendar).index
        assert not thin.isin(resample(kept, "30m", "1d", calendar).index).any(), calendar


def test_a_first_day_that_begins_after_the_pause_of_metals_is_whole():
    index = expected_times("2024-03-05 23:00", "2024-03-08 22:00", "1h", "metals")
    pause = index[index.tz_convert("America/New_York").hour == 17]
    bars = minutes("metals", "2024-03-05 23:00", "2024-03-08 22:00", "1h").drop(pause)
    days = resample(bars, "1h", "1d", "metals")
    assert days.index.tz_convert("America/New_York").strftime("%d %H").tolist() == ["05 17", "06 17", "07 17"]
