"""One pair's prices: what is bid and asked, the bars they leave, and how much there is to take."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.fake_binance.records import ZERO, text
from tests.fake_binance.symbols import Symbol

MINUTE_MS = 60_000
LENGTHS_MS = {
    "1s": 1_000,
    "1m": MINUTE_MS,
    "3m": 3 * MINUTE_MS,
    "5m": 5 * MINUTE_MS,
    "15m": 15 * MINUTE_MS,
    "30m": 30 * MINUTE_MS,
    "1h": 60 * MINUTE_MS,
    "2h": 120 * MINUTE_MS,
    "4h": 240 * MINUTE_MS,
    "6h": 360 * MINUTE_MS,
    "8h": 480 * MINUTE_MS,
    "12h": 720 * MINUTE_MS,
    "1d": 1_440 * MINUTE_MS,
    "3d": 4_320 * MINUTE_MS,
    "1w": 10_080 * MINUTE_MS,
}
MONDAY_MS = 4 * 1_440 * MINUTE_MS  # 5 January 1970, where weeks begin


@dataclass
class Bar:
    """One minute's prices."""

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal = ZERO
    quote: Decimal = ZERO
    trades: int = 0

    def join(self, other: "Bar") -> None:
        """Take a later bar in."""
        self.high, self.low = max(self.high, other.high), min(self.low, other.low)
        self.close = other.close
        self.volume += other.volume
        self.quote += other.quote
        self.trades += other.trades


@dataclass
class Market:
    """The state of one pair."""

    symbol: Symbol
    last: Decimal
    spread: Decimal = ZERO
    liquidity: Decimal | None = None
    bars: dict[int, Bar] = field(default_factory=dict)
    trade_id: int = 0
    traded_ms: int = 0
    update_id: int = 0

    @property
    def bid(self) -> Decimal:
        """Return what a seller gets."""
        return self.last

    @property
    def ask(self) -> Decimal:
        """Return what a buyer pays."""
        return self.last + (self.spread or self.symbol.tick)

    def side_price(self, side: str) -> Decimal:
        """Return what an order of a side trades at when it takes."""
        return self.ask if side == "BUY" else self.bid

    def average_price(self) -> Decimal:
        """Return the volume-weighted mean of the last five minutes that have bars, else the last price."""
        bars = list(self.bars.values())[-5:]
        volume = sum((bar.volume for bar in bars), ZERO)
        return sum((bar.quote for bar in bars), ZERO) / volume if volume else self.last

    def next_trade(self) -> int:
        """Return a new trade's number."""
        self.trade_id += 1
        return self.trade_id

    def note(self, time_ms: int, price: Decimal, quantity: Decimal) -> None:
        """Let the running minute know of a trade."""
        opened = time_ms - time_ms % MINUTE_MS
        fresh = Bar(price, price, price, price, quantity, price * quantity, 1)
        if opened in self.bars:
            self.bars[opened].join(fresh)
        else:
            self.bars[opened] = fresh
        self.update_id += 1

    def takeable(self, wanted: Decimal) -> Decimal:
        """Return how much of a quantity can be had now."""
        return wanted if self.liquidity is None else min(wanted, self.liquidity)

    def take(self, quantity: Decimal) -> None:
        """Use some of what can be had."""
        if self.liquidity is not None:
            self.liquidity -= quantity

    def klines(self, interval: str, first_ms: int | None, last_ms: int | None, limit: int) -> list[list[Any]]:
        """Return bars of a length as `/api/v3/klines` sends them."""
        length_ms = LENGTHS_MS[interval]
        joined: dict[int, Bar] = {}
        for opened, bar in sorted(self.bars.items()):
            start = opened_at(opened, interval)
            if (first_ms is not None and start < first_ms) or (last_ms is not None and start > last_ms):
                continue
            if start in joined:
                joined[start].join(bar)
            else:
                joined[start] = Bar(**vars(bar))
        chosen = list(joined.items())
        chosen = chosen[:limit] if first_ms is not None else chosen[-limit:]
        return [kline(start, start + length_ms - 1, bar) for start, bar in chosen]

    def depth(self, levels: int) -> dict[str, Any]:
        """Return a book as thick everywhere as the first price is."""
        there = text(self.takeable(Decimal(1000)))
        tick = self.symbol.tick
        bids = [[text(self.bid - tick * level), there] for level in range(levels) if self.bid > tick * level]
        asks = [[text(self.ask + tick * level), there] for level in range(levels)]
        return {"lastUpdateId": self.update_id, "bids": bids, "asks": asks}

    def book_ticker(self) -> dict[str, str]:
        """Return the best prices as `/api/v3/ticker/bookTicker` sends them."""
        there = text(self.takeable(Decimal(1000)))
        best = {"bidPrice": text(self.bid), "bidQty": there, "askPrice": text(self.ask), "askQty": there}
        return {"symbol": self.symbol.name} | best


def opened_at(time_ms: int, interval: str) -> int:
    """Return when the bar that a time falls into opened."""
    base = MONDAY_MS if interval == "1w" else 0
    return time_ms - (time_ms - base) % LENGTHS_MS[interval]


def kline(opened: int, closed: int, bar: Bar) -> list[Any]:
    """Return a bar as the venue sends it."""
    prices = [text(price) for price in (bar.open, bar.high, bar.low, bar.close)]
    half = [text(bar.volume / 2), text(bar.quote / 2)]
    return [opened, *prices, text(bar.volume), closed, text(bar.quote), bar.trades, *half, "0"]
