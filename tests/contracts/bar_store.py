"""What every `BarStore` promises."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from orbiquant.core import DataError, NotFoundError
from orbiquant.domain import BAR_COLUMNS, SeriesId, Timeframe
from orbiquant.market.bars import check_bars, empty_bars, series_of
from orbiquant.ports import BarStore

EURUSD_1H = SeriesId.parse("EURUSD", "1h")
GBPUSD_1H = SeriesId.parse("GBPUSD", "1h")
XAUUSD_1H = SeriesId.parse("XAUUSD", "1h")
EURUSD_15M = SeriesId.parse("EURUSD", "15m")


def random_bars(start: str, periods: int, timeframe: str = "1h", seed: int = 7) -> pd.DataFrame:
    """Return valid bars of a random walk."""
    step = Timeframe.parse(timeframe).delta
    index = pd.date_range(start, periods=periods, freq=step, tz="UTC", name="time", unit="us")
    path = 100 + np.cumsum(np.random.default_rng(seed).normal(0, 0.1, (periods, 4)), axis=0)
    columns = [path[:, 0], path.max(axis=1), path.min(axis=1), path[:, 3], np.full(periods, 10.0)]
    return pd.DataFrame(dict(zip(BAR_COLUMNS, columns, strict=True)), index=index)


class BarStoreContract:
    """Subclasses give a fixture `store`: empty, and its own for every test."""

    bars = random_bars("2023-12-30", 96)

    def test_it_is_a_bar_store(self, store: BarStore):
        assert isinstance(store, BarStore)

    def test_an_empty_store_holds_nothing(self, store: BarStore):
        assert store.series() == []
        with pytest.raises(NotFoundError, match="empty"):
            store.read(EURUSD_1H)

    def test_what_is_written_is_read_back_exactly(self, store: BarStore):
        version = store.upsert(EURUSD_1H, self.bars)
        assert version == store.version()
        read = store.read(EURUSD_1H)
        pd.testing.assert_frame_equal(read, self.bars, check_exact=True, check_freq=False)
        assert check_bars(read, "1h").equals(read)

    def test_spellings_of_a_symbol_are_one_series(self, store: BarStore):
        store.upsert(SeriesId.parse("EUR/USD", "1h"), self.bars)
        assert store.read(SeriesId.parse("eur-usd", "1h")).equals(self.bars)
        assert [line.series for line in store.series()] == [EURUSD_1H]

    def test_the_same_bars_again_make_no_version(self, store: BarStore):
        version = store.upsert(EURUSD_1H, self.bars)
        assert store.upsert(EURUSD_1H, self.bars) == version
        assert store.upsert(EURUSD_1H, self.bars.iloc[5:9]) == version
        assert store.upsert(EURUSD_1H, self.bars.iloc[:0]) == version

    def test_a_window_is_replaced_in_one_version(self, store: BarStore):
        store.upsert(EURUSD_1H, self.bars)
        store.upsert(GBPUSD_1H, self.bars)
        before = store.version()
        fresh = self.bars[20:60:2] * 2
        window = (self.bars.index[10], self.bars.index[70])
        version = store.replace(EURUSD_1H, fresh, window)
        assert version == before + 1 == store.version()
        kept = store.read(EURUSD_1H)
        assert kept.equals(pd.concat([self.bars[:10], fresh, self.bars[70:]])) and len(store.read(GBPUSD_1H)) == 96
        assert store.since(EURUSD_1H, before) is None, "bars went: any may have changed"
        assert len(store.read(EURUSD_1H, version=before)) == 96

    def test_what_lies_outside_its_window_replaces_nothing(self, store: BarStore):
        version = store.upsert(EURUSD_1H, self.bars)
        with pytest.raises(DataError, match="`bars` must lie in `window`"):
            store.replace(EURUSD_1H, self.bars, (self.bars.index[1], self.bars.index[50]))
        assert store.version() == version

    def test_order_of_writing_does_not_matter(self, store: BarStore):
        for begin, end in ((48, 96), (0, 30), (20, 60)):
            store.upsert(EURUSD_1H, self.bars.iloc[begin:end])
        assert store.read(EURUSD_1H).equals(self.bars)

    def test_changed_bars_replace_and_the_rest_stays(self, store: BarStore):
        first = store.upsert(EURUSD_1H, self.bars)
        changed = self.bars.iloc[40:60] * 2  # over the turn of the year
        second = store.upsert(EURUSD_1H, changed)
        assert second > first
        read = store.read(EURUSD_1H)
        assert read.loc[changed.index].equals(changed)
        assert read.drop(changed.index).equals(self.bars.drop(changed.index))

    def test_a_version_keeps_its_bars(self, store: BarStore):
        pins = {store.upsert(EURUSD_1H, self.bars.iloc[:n]): n for n in (10, 40, 96)}
        store.upsert(EURUSD_1H, self.bars * 3)
        for version, rows in pins.items():
            assert store.read(EURUSD_1H, version=version).equals(self.bars.iloc[:rows])

    def test_an_unknown_version_is_not_found(self, store: BarStore):
        newest = store.upsert(EURUSD_1H, self.bars)
        for version in (newest + 1, -1):
            with pytest.raises(NotFoundError, match=f"between 0 and {newest}, was {version}"):
                store.read(EURUSD_1H, version=version)

    def test_a_series_is_not_in_versions_before_it(self, store: BarStore):
        early = store.upsert(EURUSD_1H, self.bars)
        store.upsert(GBPUSD_1H, self.bars)
        with pytest.raises(NotFoundError, match="GBPUSD"):
            store.read(GBPUSD_1H, version=early)

    def test_windows_are_half_open(self, store: BarStore):
        store.upsert(EURUSD_1H, self.bars)
        start, end = (self.bars.index[i].to_pydatetime() for i in (10, 60))
        assert store.read(EURUSD_1H, start, end).equals(self.bars.iloc[10:60])
        assert store.read(EURUSD_1H, start=start).equals(self.bars.iloc[10:])
        assert store.read(EURUSD_1H, end=end).equals(self.bars.iloc[:60])

    def test_an_empty_window_is_empty_bars(self, store: BarStore):
        store.upsert(EURUSD_1H, self.bars)
        noon, future = self.bars.index[12].to_pydatetime(), datetime(2030, 1, 1, tzinfo=UTC)
        for window in ((noon, noon), (future, None), (None, datetime(2000, 1, 1, tzinfo=UTC))):
            read = store.read(EURUSD_1H, *window)
            assert read.empty and check_bars(read, "1h").equals(read)

    def test_windows_may_come_in_any_zone_but_not_in_none(self, store: BarStore):
        store.upsert(EURUSD_1H, self.bars)
        there = self.bars.index[10].tz_convert("America/New_York").to_pydatetime()
        assert store.read(EURUSD_1H, start=there).equals(self.bars.iloc[10:])
        with pytest.raises(DataError, match="time zone"):
            store.read(EURUSD_1H, start=datetime(2024, 1, 1))
        with pytest.raises(DataError, match="after"):
            store.read(EURUSD_1H, start=there, end=there - timedelta(hours=1))

    def test_series_are_listed_with_their_extent(self, store: BarStore):
        store.upsert(XAUUSD_1H, self.bars)
        store.upsert(SeriesId.parse("EURUSD", "1d"), random_bars("2020-01-01", 3, "1d"))
        store.upsert(EURUSD_15M, random_bars("2020-01-01", 5, "15m"))
        store.upsert(EURUSD_15M, random_bars("2020-01-01", 9, "15m", seed=1))
        listed = [(str(line.series), line.rows) for line in store.series()]
        assert listed == [("EURUSD 15m", 9), ("EURUSD 1d", 3), ("XAUUSD 1h", 96)]
        assert store.series()[2].first == self.bars.index[0] and store.series()[2].last == self.bars.index[-1]

    def test_a_wrong_name_is_answered_with_the_nearest_and_all_there_is(self, store: BarStore):
        store.upsert(EURUSD_1H, self.bars)
        store.upsert(XAUUSD_1H, self.bars)
        with pytest.raises(NotFoundError, match=r"did you mean 'EURUSD 1h'\? .*there is EURUSD 1h, XAUUSD 1h"):
            store.read(SeriesId.parse("EURUSDT", "1h"))

    def test_only_valid_bars_get_in(self, store: BarStore):
        doubled = pd.concat([self.bars, self.bars.iloc[-1:]])
        upside_down = self.bars.rename(columns={"high": "low", "low": "high"})
        for broken in (doubled, upside_down, self.bars.iloc[::-1], self.bars.tz_localize(None), self.bars * np.nan):
            with pytest.raises(DataError, match="`bars` must be valid"):
                store.upsert(EURUSD_1H, broken)
        assert store.series() == []

    def test_bars_across_stored_bars_are_refused(self, store: BarStore):
        version = store.upsert(EURUSD_1H, self.bars)
        shifted = self.bars.set_axis(self.bars.index + timedelta(minutes=30))
        with pytest.raises(DataError, match="overlapping"):
            store.upsert(EURUSD_1H, shifted)
        assert store.version() == version

    def first_since(self, store: BarStore, series: SeriesId, version: int) -> pd.Timestamp | None:
        """Return the first bar written after a version, None where nothing was; the bars are those of the store."""
        bars = store.since(series, version)
        assert bars is not None and bars.equals(empty_bars() if bars.empty else store.read(series).loc[bars.index])
        return None if bars.empty else bars.index[0]

    def test_what_was_written_begins_at_the_first_bar_that_is_new_or_other(self, store: BarStore):
        empty = store.version()
        first = store.upsert(EURUSD_1H, self.bars.iloc[20:60])
        assert self.first_since(store, EURUSD_1H, empty) == self.bars.index[20]
        assert self.first_since(store, EURUSD_1H, first) is None is self.first_since(store, GBPUSD_1H, empty)
        later = store.upsert(EURUSD_1H, self.bars.iloc[20:])
        assert self.first_since(store, EURUSD_1H, first) == self.bars.index[60]
        fixed = store.upsert(EURUSD_1H, pd.concat([self.bars.iloc[30:40], self.bars.iloc[40:50] * 2]))
        assert self.first_since(store, EURUSD_1H, later) == self.bars.index[40]
        assert self.first_since(store, EURUSD_1H, first) == self.bars.index[40]
        store.upsert(GBPUSD_1H, self.bars)
        assert self.first_since(store, EURUSD_1H, fixed) is None
        assert self.first_since(store, GBPUSD_1H, fixed) == self.bars.index[0]
        store.upsert(EURUSD_1H, self.bars)
        assert self.first_since(store, EURUSD_1H, fixed) == self.bars.index[0]
        assert self.first_since(store, EURUSD_1H, store.version()) is None
        assert list(store.since(EURUSD_1H, store.version())) == list(self.bars)

    def test_of_versions_that_a_store_does_not_know_it_says_nothing(self, store: BarStore):
        newest = store.upsert(EURUSD_1H, self.bars)
        assert store.since(EURUSD_1H, newest + 5) is None is store.since(EURUSD_1H, -1)

    def test_bars_know_their_series(self, store: BarStore):
        store.upsert(EURUSD_1H, self.bars)
        assert series_of(store.read(EURUSD_1H)) == EURUSD_1H
        assert series_of(store.read(EURUSD_1H, start=datetime(2030, 1, 1, tzinfo=UTC))) == EURUSD_1H

    def test_the_input_is_left_as_it_was(self, store: BarStore):
        before = self.bars.copy()
        store.upsert(EURUSD_1H, self.bars)
        assert self.bars.equals(before)
