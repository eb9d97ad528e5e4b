"""Where pulled bars meet stored ones: one scale or nothing, and what came beside what was asked for."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.register_assert_rewrite("contracts")

from contracts.bar_store import random_bars  # noqa: E402

from orbiquant.core import DataError, FixedClock  # noqa: E402
from orbiquant.domain import Bars, SeriesId  # noqa: E402
from orbiquant.market.calendars import expected_times  # noqa: E402
from orbiquant.market.exchanges import ExchangeSource  # noqa: E402
from orbiquant.market.pulls import PullResult, pull  # noqa: E402
from orbiquant.market.seams import find_factor, find_step  # noqa: E402
from orbiquant.market.sources import CsvSource, ParquetSource  # noqa: E402
from orbiquant.market.store import DeltaBarStore  # noqa: E402
from tests.tools.fake_providers import FakeBinance, FakeForgetful  # noqa: E402

BTCUSDT_1H = SeriesId.parse("BTCUSDT", "1h")
PRICES = ["open", "high", "low", "close"]
BARS = random_bars("2024-02-26", 400)
HALF = BARS.index[200].to_pydatetime()
CLOCK = FixedClock((BARS.index[-1] + timedelta(hours=1)).to_pydatetime())


def times(bars: Bars, factor: float) -> Bars:
    """Return bars whose prices are multiplied."""
    return bars.assign(**{name: bars[name] * factor for name in PRICES})


@pytest.fixture
def store(tmp_path: Path) -> DeltaBarStore:
    """Return an empty store."""
    return DeltaBarStore(tmp_path / "store")


@pytest.fixture
def ask(store: DeltaBarStore) -> Callable[..., PullResult]:
    """Return a function that pulls from a running exchange that has some bars."""

    def pulled(bars: Bars, kind: type[FakeBinance] = FakeBinance, **options: Any) -> PullResult:
        with kind("BTCUSDT", bars).running() as server:
            clock = options.pop("clock", CLOCK)
            source = ExchangeSource("binance", server.url, clock=clock)
            source._client.exchange.enableRateLimit = False
            return pull(store, source, BTCUSDT_1H, clock=clock, **options)

    return pulled


# --- one scale ---


@pytest.mark.parametrize("factor", [0.1, 0.5, 20 / 21, 0.995, 1000.0])
@pytest.mark.parametrize("newer", [True, False])
def test_a_change_of_scale_stops_a_pull_before_anything_is_written(
    factor: float, newer: bool, store: DeltaBarStore, ask: Callable[..., PullResult]
):
    window = {"end": HALF} if newer else {"start": HALF}
    ask(BARS, **window)
    held, version = store.read(BTCUSDT_1H), store.version()
    named = "2024-03-04 19:00" if newer else "2024-03-13 03:00"
    with pytest.raises(DataError, match=rf"bar of {named} is .* times the stored one.*--again.*--accept-step"):
        ask(times(BARS, factor))
    assert store.version() == version and store.read(BTCUSDT_1H).equals(held)
    assert ask(times(BARS, factor), again=True).rows_changed == 200
    assert store.read(BTCUSDT_1H).equals(times(BARS, factor)), "all of it is of the new scale"


def test_a_step_that_is_accepted_is_written_and_reported(store: DeltaBarStore, ask: Callable[..., PullResult]):
    ask(BARS, end=HALF)
    done = ask(times(BARS, 0.1), accept_step=True)
    assert done.rows_added == 200 and len(store.read(BTCUSDT_1H)) == 400
    assert "split_like" in {issue.kind for issue in done.report.issues}


@pytest.mark.parametrize("newer", [True, False])
def test_a_step_over_a_seam_that_nothing_overlaps_is_seen(newer: bool, ask: Callable[..., PullResult]):
    ask(BARS, **({"end": HALF} if newer else {"start": HALF}))
    rest = BARS[200:] if newer else BARS[:200]
    with pytest.raises(DataError, match=r"opens at .* times the close of the bar before it, 2024-03-05 07:00"):
        ask(times(rest, 0.1))
    assert ask(rest).rows_added == 200, "the same seam without a step"


def test_a_split_that_the_source_itself_shows_is_its_own_word(ask: Callable[..., PullResult]):
    raw = pd.concat([BARS[:200], times(BARS[200:], 0.1)])
    ask(raw, end=HALF)
    done = ask(raw)
    (issue,) = [issue for issue in done.report.issues if issue.kind == "split_like"]
    assert done.rows_added == 200 and issue.first == "2024-03-05 08:00:00+00:00"


def test_corrections_and_another_exchange_are_no_other_scale(store: DeltaBarStore, ask: Callable[..., PullResult]):
    ask(BARS, end=HALF)
    spread = np.random.default_rng(3).normal(0, 0.002, len(BARS))
    other = BARS.assign(**{name: BARS[name] * (1 + spread) for name in PRICES})
    done = ask(other)
    assert (done.rows_added, done.rows_changed) == (200, 13), "the bars that were asked for again are corrected"
    bad_tick = BARS.copy()
    bad_tick.iloc[-3, 1] *= 10
    later = FixedClock(CLOCK.now() + timedelta(hours=1))
    assert ask(bad_tick, clock=later).rows_changed == 13


def test_pulling_anew_what_the_source_has_lost_the_beginning_of_is_refused(
    store: DeltaBarStore, ask: Callable[..., PullResult]
):
    ask(BARS)
    version = store.version()
    with pytest.raises(DataError, match=r"is 0\.1 times the stored one"):
        ask(times(BARS[150:], 0.1), again=True, chunk_bars=50)
    with pytest.raises(DataError, match=r"is 0\.1 times the stored one"):
        ask(times(BARS, 0.1), again=True, end=HALF)
    assert store.version() == version
    assert ask(BARS[150:], again=True).rows_changed == 0


def test_flat_bars_of_two_exchanges_are_no_other_scale():
    flat = random_bars("2024-01-01", 12).assign(**dict.fromkeys(PRICES, 2.0))
    noise = np.random.default_rng(1).normal(1, 0.003, 12)
    assert find_factor(flat, flat.assign(**{name: flat[name] * noise for name in PRICES})) == (1.0, None)
    assert find_factor(flat, times(flat, 1.003))[0] == pytest.approx(1.003)
    assert find_factor(flat, flat.set_axis(flat.index + timedelta(days=30)))[1] is None


def test_a_price_may_stray_over_a_long_hole():
    bars = random_bars("2024-01-01", 100)
    for days, factor, expected in ((0, 2.0, True), (400, 1.5, False), (400, 100.0, True)):
        later = times(bars.set_axis(bars.index + timedelta(hours=100, days=days)), factor)
        assert (find_step(bars, later, BTCUSDT_1H.timeframe) != 1.0) is expected


# --- what was asked and what came ---


def test_a_first_bar_later_than_asked_for_is_told(ask: Callable[..., PullResult]):
    done = ask(BARS, start=datetime(2023, 1, 1, tzinfo=UTC))
    (told,) = done.notices
    assert told.startswith("asked for since 2023-01-01 00:00, the first bar is of 2024-02-26 00:00")
    assert ask(BARS, start=BARS.index[0]).notices == () == ask(BARS).notices


def test_a_last_bar_earlier_than_asked_for_is_told(ask: Callable[..., PullResult]):
    later = FixedClock(datetime(2024, 6, 1, tzinfo=UTC))
    (told,) = ask(BARS, clock=later).notices
    assert "asked for until 2024-05-31 23:00, the last bar is of 2024-03-13 15:00" in told


def test_the_night_and_the_weekend_are_nothing_to_tell(store: DeltaBarStore, tmp_path: Path):
    days = expected_times("2024-01-01", "2024-02-01", "1d", "us_equity")
    random_bars("2024-01-01", len(days), "1d").set_axis(days).to_csv(tmp_path / "AAPL_1d.csv")
    window = datetime(2023, 12, 30, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)
    done = pull(store, CsvSource(tmp_path), SeriesId.parse("AAPL", "1d"), *window)
    assert done.notices == () and done.rows_added == len(days), "from a Saturday to a holiday"
    (told,) = pull(store, CsvSource(tmp_path), SeriesId.parse("AAPL", "1d"), window[0] - timedelta(days=5)).notices
    assert "the first bar is of 2024-01-02" in told


def test_a_hole_that_a_short_memory_leaves_is_told(ask: Callable[..., PullResult]):
    ask(BARS[:100])
    done = ask(BARS[300:])
    (told,) = done.notices
    assert "there is nothing from 2024-03-01 04:00 to 2024-03-09 12:00" in told and "--again" in told
    assert done.report.missing == 200
    assert ask(BARS, again=True).rows_added == 200, "as the notice says"


def exchange(server: FakeBinance, page: int, monkeypatch: pytest.MonkeyPatch) -> ExchangeSource:
    """Return a source whose pages are short."""
    source = ExchangeSource("binance", server.url, clock=CLOCK)
    source._client.exchange.enableRateLimit = False
    monkeypatch.setattr(source._client.exchange, "feature_value", lambda *_: page)
    return source


@pytest.mark.parametrize("since", [None, datetime(2023, 6, 1, tzinfo=UTC)])
def test_an_exchange_that_keeps_only_its_newest_candles_is_told_of(
    since: datetime | None, store: DeltaBarStore, monkeypatch: pytest.MonkeyPatch
):
    with FakeForgetful("BTCUSDT", BARS).running() as server:
        done = pull(store, exchange(server, 100, monkeypatch), BTCUSDT_1H, since, clock=CLOCK)
        assert done.rows_added == 100 and store.read(BTCUSDT_1H).equals(BARS[-100:])
    assert any("answers with the newest 100 candles of BTCUSDT 1h however early" in told for told in done.notices)
    assert any("asked for since 2023-06-01" in told for told in done.notices) is (since is not None)


def test_a_page_of_newest_candles_is_not_all_there_is(store: DeltaBarStore, monkeypatch: pytest.MonkeyPatch):
    with FakeForgetful("BTCUSDT", BARS).running() as server:
        server.keeps, server.reaches = 50, 250
        source = exchange(server, 50, monkeypatch)
        done = pull(store, source, BTCUSDT_1H, datetime(2024, 1, 1, tzinfo=UTC), clock=CLOCK)
    assert done.rows_added == 300 and store.read(BTCUSDT_1H).equals(BARS[-300:])
    (told,) = done.notices
    assert "the first bar is of 2024-03-01 04:00" in told


def test_pages_shorter_than_believed_are_not_the_end(store: DeltaBarStore, monkeypatch: pytest.MonkeyPatch):
    with FakeBinance("BTCUSDT", BARS.drop(BARS.index[40:300])).running() as server:
        server.page_size = 7
        source = exchange(server, 100, monkeypatch)
        done = pull(store, source, BTCUSDT_1H, BARS.index[0], clock=CLOCK)
        assert (done.rows_added, done.notices) == (140, ())
        assert source.begins(BTCUSDT_1H) == BARS.index[0]


def test_a_pull_reports_what_is_odd(ask: Callable[..., PullResult]):
    odd = BARS.copy()
    odd.iloc[77, 1] *= 10
    assert {issue.kind for issue in ask(odd).report.issues} == {"jump"}


# --- files that come late ---


@pytest.mark.parametrize("kind", [CsvSource, ParquetSource])
def test_a_file_dropped_later_is_seen_however_old_it_is(kind: type, store: DeltaBarStore, tmp_path: Path):
    folder = tmp_path / "drop"
    folder.mkdir()

    def drop(bars: Bars, name: str) -> None:
        place = folder / f"BTCUSDT_1h_{name}"
        bars.to_csv(f"{place}.csv") if kind is CsvSource else bars.to_parquet(f"{place}.parquet")
        file = next(folder.glob(f"*_{name}.*"))
        os.utime(file, (1_500_000_000, 1_500_000_000))  # older than every other

    def take() -> PullResult:
        return pull(store, kind(folder), BTCUSDT_1H, clock=CLOCK, chunk_bars=70)

    drop(BARS[:100], "1")
    drop(BARS[300:], "3")
    assert (take().rows_added, take().rows_added) == (200, 0)
    drop(BARS[100:300], "2")
    assert take().rows_added == 200 and store.read(BTCUSDT_1H).equals(BARS)
    corrected = BARS[150:160].assign(volume=7.0)
    drop(corrected, "4")
    assert take().rows_changed == 10 and store.read(BTCUSDT_1H)["volume"].eq(7).sum() == 10
    version = store.version()
    assert take().version == version


def test_files_of_another_scale_beside_stored_bars_are_refused(store: DeltaBarStore, tmp_path: Path):
    store.upsert(BTCUSDT_1H, BARS[:300])
    times(BARS[250:], 0.1).to_csv(tmp_path / "BTCUSDT_1h.csv")
    with pytest.raises(DataError, match=r"bar of 2024-03-07 10:00 is 0.1 times the stored one"):
        pull(store, CsvSource(tmp_path), BTCUSDT_1H, clock=CLOCK)
    assert len(store.read(BTCUSDT_1H)) == 300
