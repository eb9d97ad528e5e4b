"""What is stale: two bars of an open market later, by counting the market's own minutes."""

import numpy as np
import pandas as pd
import pytest

from orbiquant.desk.freshness import Freshness, stale_after
from orbiquant.domain import CalendarName, Timeframe
from orbiquant.market.calendars import load_sessions, to_index, to_times

C, T = CalendarName, Timeframe


def at(text: str) -> pd.Timestamp:
    """Return a moment in UTC."""
    return pd.Timestamp(text, tz="UTC")


@pytest.mark.parametrize(
    ("calendar", "timeframe", "opened", "end"),
    [
        (C.CRYPTO, T.H1, "2024-01-06 10:00", "2024-01-06 13:00"),
        (C.CRYPTO, T.D1, "2024-01-06", "2024-01-09"),
        (C.FOREX, T.H1, "2024-01-05 20:00", "2024-01-08 00:00"),  # Friday, its last hour begins at 21:00
        (C.FOREX, T.M5, "2024-01-05 21:55", "2024-01-07 23:10"),
        (C.FOREX, T.H4, "2024-01-05 18:00", "2024-01-08 06:00"),
        (C.FOREX, T.H1, "2024-12-24 21:00", "2024-12-26 01:00"),  # Christmas
        (C.FOREX, T.D1, "2024-01-04 22:00", "2024-01-09 22:00"),  # Friday's day, Monday's, Tuesday's
        (C.FOREX, T.W1, "2023-12-31 22:00", "2024-01-21 22:00"),
        (C.US_EQUITY, T.D1, "2024-01-12", "2024-01-18"),  # Friday; Monday is Martin Luther King's
        (C.US_EQUITY, T.M30, "2024-01-12 20:30", "2024-01-16 15:30"),
        (C.XSHG, T.D1, "2023-09-28", "2023-10-11"),  # a week of holidays
        (C.METALS, T.H1, "2024-03-08 21:00", "2024-03-11 00:00"),  # summer time begins in between
    ],
)
def test_two_bars_of_an_open_market_later(calendar: C, timeframe: T, opened: str, end: str):
    assert stale_after(at(opened), timeframe, calendar) == at(end)
    for second, stale in ((0, False), (1, True)):
        moment = at(end) + pd.Timedelta(seconds=second)
        assert Freshness.of(at(opened), timeframe, calendar, moment.to_pydatetime()).stale is stale


@pytest.mark.parametrize("calendar", [C.FOREX, C.US_EQUITY, C.XSHG, C.METALS])
def test_never_before_the_market_was_open_for_so_long_and_soon_after(calendar: C):
    """Count the open minutes of the library's own sessions between a bar's close and the end of its freshness."""
    sessions, hour = load_sessions(calendar), 3_600_000_000
    rng = np.random.default_rng(3)
    first, last = to_times(pd.DatetimeIndex([at("2022-01-01"), at("2024-12-01")]))
    for opened in to_index(np.sort(rng.integers(first // hour, last // hour, 60)) * hour):
        end = stale_after(opened, T.H1, calendar)
        closed = opened + T.H1.delta
        began, ended = to_times(pd.DatetimeIndex([closed, end]))
        overlap = np.minimum(sessions.closes, ended) - np.maximum(sessions.opens, began)
        hours = overlap[overlap > 0].sum() / hour
        assert 0.5 <= hours <= 4.5, f"{opened}: open for {hours} h until {end}"


def test_a_market_that_does_not_open_again_makes_nothing_stale():
    assert stale_after(at("2050-12-31 12:00"), T.H1, C.US_EQUITY) is None
    late = at("2060-01-01").to_pydatetime()
    assert not Freshness.of(at("2050-12-31 12:00"), T.H1, C.US_EQUITY, late).stale


def test_a_bar_that_forms_is_no_second_old():
    moment = at("2024-01-08 10:20").to_pydatetime()
    assert Freshness.of(at("2024-01-08 10:00"), T.H1, C.FOREX, moment) == Freshness(age_s=0, stale=False)
