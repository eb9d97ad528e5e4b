"""Candles of the venue as they happen: a close wakes, a fresh price is at hand, a feed that stops is named."""

import json
import threading
from collections.abc import Iterator
from decimal import Decimal
from time import monotonic, sleep, time

import pytest

from orbiquant.core import BrokerRejected
from orbiquant.domain import SeriesId
from orbiquant.orders import Order
from orbiquant.trading.brokers.binance.broker import BinanceBroker
from orbiquant.trading.brokers.binance.config import BinanceConfig
from orbiquant.trading.brokers.binance.transport import open_client
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


def event(opened_ms: int, close: str = "60000", told_ms: int = 0, **more: object) -> str:
    """Return a candle's event, as text."""
    row = {"t": opened_ms, "s": "BTCUSDT", "i": "1m", "c": close, "n": 4, "x": True} | more
    return json.dumps({"e": "kline", "E": told_ms or int(time() * 1000), "s": "BTCUSDT", "k": row})


def test_what_comes_twice_late_or_broken_changes_nothing(heard: Heard):
    heard.connected(BTC)
    heard.play(5, 61_000)
    assert wait_until(lambda: heard.woken == [BTC])
    later = int(time() * 1000) + 50
    odd = [event(NOON + 5 * MINUTE_MS, "61000", later)] * 2  # the same close again
    odd += [event(NOON + 3 * MINUTE_MS, "55000", later + 1)]  # an older candle
    odd += [event(NOON + 6 * MINUTE_MS, close, later + 2, x=True) for close in ("NaN", "-1", "", "x", "Infinity")]
    odd += ['{"e": "kline"}', '{"e": "kline", "k": []}', "<html>502</html>", "[]", "null", "{", '{"e": 7}', "\x00"]
    odd += [event(NOON + 6 * MINUTE_MS, "99", later + 3, s="ETHUSDT")]  # nobody asked for it
    for text in odd:
        heard.venue.control("say", text=text)
    heard.venue.control("say", text=event(NOON + 6 * MINUTE_MS, "61500", later + 4, x=False))
    assert wait_until(lambda: heard.feed.price("BTCUSDT") == Decimal(61_500))
    assert heard.woken == [BTC] and heard.feed.price("ETHUSDT") is None and not heard.feed.gaps


def test_a_close_that_was_not_told_is_missed_at_the_next_candle(heard: Heard):
    heard.connected(BTC)
    for minute in (1, 4):
        heard.venue.control("say", text=event(NOON + minute * MINUTE_MS, x=False))
    assert wait_until(lambda: heard.woken == [BTC])


def test_an_old_price_is_asked_for(heard: Heard):
    heard.connected(BTC)
    heard.feed.fresh_s = 0.4
    heard.play(0, 61_000)
    assert wait_until(lambda: heard.feed.price("BTCUSDT") == 61_000)
    before = len(heard.venue.log("heard"))
    assert heard.feed.prices(["BTCUSDT"]) == {"BTCUSDT": 61_000} and len(heard.venue.log("heard")) == before
    assert heard.feed.prices(["BTCUSDT", "ETHUSDT"])["ETHUSDT"] == 3_000, "one is missing: all are asked for"
    heard.venue.control("say", text=event(NOON + MINUTE_MS, "1", int(time() * 1000) - 9_000))
    sleep(0.5)
    assert heard.feed.price("BTCUSDT") is None and heard.feed.prices(["BTCUSDT"])["BTCUSDT"] == 61_000


def test_a_feed_that_stops_is_named_takes_no_risk_and_comes_back(heard: Heard):
    heard.feed.silent_s = 0.8
    heard.connected(BTC)
    heard.venue.price("BTCUSDT", 60_000)
    assert wait_until(lambda: heard.feed.price("BTCUSDT") == 60_000)
    sleep(1.2)
    assert not heard.feed.fault and not heard.feed.gaps, "a market that does not trade is no feed that stopped"
    heard.venue.control("mute")
    heard.venue.price("BTCUSDT", 60_500)
    assert wait_until(lambda: heard.feed.fault == "the stream of BTCUSDT has stopped")
    assert heard.feed.price("BTCUSDT") is None and heard.feed.prices(["BTCUSDT"])["BTCUSDT"] == 60_500
    heard.feed.old_s = 0.0
    facts = {"symbol": "BTCUSDT", "side": "BUY", "quantity": "0.01", "client_order_id": "nova-0123456789abcdef-ent"}
    with pytest.raises(BrokerRejected, match="no new risk on an old price: BTCUSDT was traded"):
        heard.broker.submit(Order(**facts))
    heard.feed.old_s = 60.0
    heard.broker.submit(Order(**facts))  # the venue says that its price is not old
    heard.woken.clear()
    heard.venue.control("mute", on=False)
    assert wait_until(lambda: heard.feed.connected_since is not None, 8)

    def comes_back() -> bool:
        heard.venue.price("BTCUSDT", 60_700)
        return heard.feed.price("BTCUSDT") == 60_700

    assert wait_until(comes_back, 8) and not heard.feed.fault and heard.woken


@pytest.mark.slow
@pytest.mark.parametrize("end", ["shutdown", "disconnect"])
def test_a_stream_that_is_cut_comes_back_and_is_taken_for_a_gap(heard: Heard, end: str):
    heard.connected(BTC)
    heard.venue.control(end, only="market")
    assert wait_until(lambda: heard.feed.gaps == 1)
    assert wait_until(lambda: heard.woken == [BTC]), "in between a bar may have closed"
    heard.play(0, 61_000)
    assert wait_until(lambda: heard.feed.price("BTCUSDT") == 61_000)


@pytest.mark.slow
def test_a_page_instead_of_a_socket_is_named_until_it_is_gone(heard: Heard):
    heard.feed.fresh_s = 0.2
    heard.venue.control("page")
    heard.listen(BTC)
    assert wait_until(lambda: heard.feed.fault == "the stream of prices is cut off", 8)
    assert heard.feed.prices(["BTCUSDT"])["BTCUSDT"] == 60_000, "it is asked for"
    heard.venue.control("page", on=False)
    assert wait_until(lambda: heard.woken == [BTC] and not heard.feed.fault, 12)


def test_a_symbol_that_the_venue_does_not_have_stops_no_other(heard: Heard):
    heard.connected(SeriesId.parse("NONEUSDT", "1m"), BTC)
    assert heard.feed.fault == "Binance has no NONEUSDT"
    heard.play(0, 61_000)
    assert wait_until(lambda: heard.woken == [BTC])
    heard.listen(ETH)
    assert wait_until(lambda: heard.play(1, 3_000, "ETHUSDT") or ETH in heard.woken, 8), "more can be listened to"


def test_it_ends_without_a_thread_or_a_socket(binance: RunningBinance):
    threads = {*threading.enumerate()}
    made = Heard(binance)
    made.connected(BTC)
    made.broker.close()
    assert {*threading.enumerate()} <= threads
    assert wait_until(lambda: binance.control("state")["watchers"] == 0)
    made.broker.close()


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ("mainnet", "wss://stream.binance.com:9443/ws"),
        ("demo", "wss://demo-stream.binance.com/ws"),
        ("testnet", "wss://stream.testnet.binance.vision/ws"),
    ],
)
def test_where_candles_are_streamed(environment: str, url: str):
    config = BinanceConfig(environment=environment, api_key="key", api_secret="secret")
    made = open_client(config, lambda headers: None, streams=True)
    assert made.urls["api"]["ws"]["spot"] == url and not made.apiKey and not made.secret


def test_prices_of_another_place_than_the_orders_are_not_listened_to(binance: RunningBinance):
    made = Heard(binance, market_url="")
    made.listen(BTC)
    assert made.feed.connected_since is None and not made.feed.fault and made.feed.price("BTCUSDT") is None
    assert made.feed.prices(["BTCUSDT"])["BTCUSDT"] == 60_000
    made.broker.close()
    assert BinanceConfig().streamed and not BinanceConfig(rest_url="https://example.org/api/v3").streamed
