"""Candles of the venue as they happen: a close wakes, a fresh price is at hand, a feed that stops is named."""

from collections.abc import Iterator
from decimal import Decimal
from time import monotonic, sleep

import pytest

from orbiquant.domain import SeriesId
from orbiquant.trading.brokers.binance.broker import BinanceBroker
from tests.fake_binance.running import RunningBinance
from tests.tools.binance_desk import open_broker, wait_until

MINUTE_MS = 60_000
BTC, ETH = SeriesId.parse("BTCUSDT", "1m"), SeriesId.parse("ETHUSDT", "1m")
NOON = 1_790_000_040_000 // MINUTE_MS * MINUTE_MS


class Heard:
    """A broker that listens, and what woke."""

    def __init__(self, venue: RunningBinance, **changes: object) -> None:
        self.venue, self.woken = venue, list[SeriesId]()
        self.broker: BinanceBroker = open_broker(venue, **changes)
        self.feed = self.broker.feed

    def listen(self, *series: SeriesId) -> None:
        self.feed.listen(series, self.woken.append)

    def connected(self, *series: SeriesId) -> None:
        """Listen, and wait for the first sign of life."""
        self.listen(*series)
        assert wait_until(lambda: self.venue.control("state")["watchers"] == 1 and self.woken)
        sleep(0.1)
        self.woken.clear()

    def play(self, minute: int, close: float = 60_000, symbol: str = "BTCUSDT") -> None:
        """Let a minute close."""
        bar = [NOON + minute * MINUTE_MS, close, close, close, close, 1]
        self.venue.control("bars", symbol=symbol, bars=[bar])


@pytest.fixture
def heard(binance: RunningBinance) -> Iterator[Heard]:
    made = Heard(binance)
    yield made
    made.broker.close()


def test_a_close_wakes_and_the_price_is_at_hand(heard: Heard):
    heard.connected(BTC)
    begin = monotonic()
    heard.play(0, 61_000)
    assert wait_until(lambda: heard.woken == [BTC])
    print(f"woken {monotonic() - begin:.3f} s after the venue was told")
    assert heard.feed.price("BTCUSDT") == Decimal(61_000) and not heard.feed.fault
