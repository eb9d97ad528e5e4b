"""What every `MarketData` source promises."""

from datetime import datetime, timedelta
from itertools import pairwise

import pandas as pd
import pytest

from orbiquant.core import DataError, NotFoundError, OptionError
from orbiquant.domain import Timeframe
from orbiquant.market.bars import check_bars
from orbiquant.ports import MarketData


class MarketDataContract:
    """Subclasses give a fixture `source`, and name a series of at least 20 bars that it has."""

    symbol = "EURUSD"
    timeframe = "1h"

    @pytest.fixture
    def whole(self, source: MarketData) -> pd.DataFrame:
        """Return everything there is of the series."""
        return source.bars(self.symbol, self.timeframe)

    def test_it_is_market_data(self, source: MarketData):
        assert isinstance(source, MarketData)

    def test_bars_are_valid_sorted_and_utc(self, whole: pd.DataFrame):
        assert len(whole) >= 20
        assert check_bars(whole, self.timeframe).equals(whole)
        assert whole.index.is_monotonic_increasing and whole.index.is_unique
        assert str(whole.index.dtype) == "datetime64[us, UTC]" and whole.index.name == "time"

    def test_asking_twice_gives_the_same(self, source: MarketData, whole: pd.DataFrame):
        assert source.bars(self.symbol, self.timeframe).equals(whole)

    def test_windows_are_half_open(self, source: MarketData, whole: pd.DataFrame):
        start, end = whole.index[5].to_pydatetime(), whole.index[15].to_pydatetime()
        assert source.bars(self.symbol, self.timeframe, start, end).equals(whole.iloc[5:15])
        assert source.bars(self.symbol, self.timeframe, start=start).equals(whole.iloc[5:])
        assert source.bars(self.symbol, self.timeframe, end=end).equals(whole.iloc[:15])

    def test_windows_between_bars_hold_what_opens_inside(self, source: MarketData, whole: pd.DataFrame):
        moment = timedelta(seconds=1)
        start, end = whole.index[5].to_pydatetime() + moment, whole.index[15].to_pydatetime() + moment
        assert source.bars(self.symbol, self.timeframe, start, end).equals(whole.iloc[6:16])

    def test_adjacent_windows_make_the_whole(self, source: MarketData, whole: pd.DataFrame):
        edges = [None, whole.index[7].to_pydatetime(), whole.index[12].to_pydatetime(), None]
        parts = [source.bars(self.symbol, self.timeframe, a, b) for a, b in pairwise(edges)]
        assert pd.concat(parts).equals(whole)

    def test_an_empty_window_is_empty_bars(self, source: MarketData, whole: pd.DataFrame):
        begin, after = whole.index[5].to_pydatetime(), whole.index[-1].to_pydatetime() + timedelta(days=400)
        before = whole.index[0].to_pydatetime() - timedelta(days=400)
        for window in ((begin, begin), (after, None), (None, before), (after, after + timedelta(days=1))):
            bars = source.bars(self.symbol, self.timeframe, *window)
            assert bars.empty and check_bars(bars, self.timeframe).equals(bars)

    def test_windows_may_come_in_any_zone_but_not_in_none(self, source: MarketData, whole: pd.DataFrame):
        tokyo = whole.index[5].tz_convert("Asia/Tokyo").to_pydatetime()
        assert source.bars(self.symbol, self.timeframe, tokyo).equals(whole.iloc[5:])
        with pytest.raises(DataError, match="`start` must carry a time zone"):
            source.bars(self.symbol, self.timeframe, datetime(2024, 1, 1))
        with pytest.raises(DataError, match="`end` must carry a time zone"):
            source.bars(self.symbol, self.timeframe, end=datetime(2024, 1, 1))
        with pytest.raises(DataError, match="`start` must not be after `end`"):
            source.bars(self.symbol, self.timeframe, tokyo, tokyo - timedelta(hours=1))

    def test_any_spelling_of_the_symbol_will_do(self, source: MarketData, whole: pd.DataFrame):
        spelling = f"{self.symbol[:3]}/{self.symbol[3:]}".lower()
        assert source.bars(spelling, self.timeframe).equals(whole)

    def test_an_unknown_symbol_is_not_found_and_the_nearest_is_named(self, source: MarketData):
        wrong = self.symbol[:-1] + "Q"
        with pytest.raises(NotFoundError, match=f"no {wrong} {self.timeframe}, did you mean '{self.symbol} "):
            source.bars(wrong, self.timeframe)

    def test_a_timeframe_that_does_not_exist_is_refused(self, source: MarketData):
        with pytest.raises(OptionError, match="`timeframe` must be one of 1m"):
            source.bars(self.symbol, "7h")
        assert Timeframe.parse(self.timeframe)

    def test_what_was_handed_out_can_be_changed_without_harm(self, source: MarketData, whole: pd.DataFrame):
        mine = source.bars(self.symbol, self.timeframe)
        mine.loc[mine.index[3], "close"] = -1.0
        assert source.bars(self.symbol, self.timeframe).equals(whole)
