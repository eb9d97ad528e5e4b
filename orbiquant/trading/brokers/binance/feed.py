"""The venue's candles as they happen: a close wakes whoever decides, the last price is at hand while it is fresh, and a feed that stops is named."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from time import monotonic
from typing import Any

from ....core import get_logger
from ....domain import SeriesId
from ....orders import TradedSymbol
from .errors import NotTaken, VenueRefused
from .market import VenueMarket
from .stream import FIRST_PAUSE_S, MOST_PAUSE_S
from .transport import open_client

BELIEVED_S = 5.0  # that a streamed price is believed: the venue tells a candle every two seconds
SILENT_S = 20.0  # without a candle after which the venue is asked what there should have been
OLD_S = 60.0  # since the last trade, while no stream vouches for a price
LISTED_S = 600.0  # until a symbol that the venue did not have is asked for again


@dataclass(slots=True)
class Candle:
    "The newest that was heard of a series."

    opened_ms: int
    told_ms: int  # by the venue's clock
    price: Decimal
    trades: int
    closed: bool
    heard: float  # on the monotonic clock

    @classmethod
    def of(
        cls,
        told: Mapping[str, Any],  # a `kline` event
    ) -> "Candle":
        "Return an event's candle; raise `ValueError`, `ArithmeticError` or `LookupError` for what is none."
        row, price = told["k"], Decimal(str(told["k"]["c"]))
        if not (price.is_finite() and price > 0):
            raise ValueError(f"a price must be above 0, was {price}")
        return cls(int(row["t"]), int(told["E"]), price, int(row["n"]), row["x"] is True, monotonic())


class PriceFeed:
    "Listens to candles until it is told to stop, and comes back whenever it is cut off or falls silent."

    exchange = "binance"  # by whose name the same candles are pulled

    def __init__(
        self,
        market: VenueMarket,  # of the account
    ) -> None:
        self.market, self.transport = market, market.transport
        self.fresh_s, self.silent_s, self.old_s = BELIEVED_S, SILENT_S, OLD_S
        self.connected_since: float | None = None  # on the monotonic clock
        self.gaps = 0  # connections that ended: between them anything may have been missed
        self.stopped: dict[str, float] = {}  # symbols that the venue trades and the stream does not tell, since when
        self._series: set[SeriesId] = set()
        self._candles: dict[SeriesId, Candle] = {}
        self._unlisted: dict[str, float] = {}  # when it was asked for, by symbol
        self._closed: Callable[[SeriesId], object] = lambda series: None
        self._checked, self._cut = 0.0, 0.0
        self._garbled = False  # in this connection: said once
        self._task: asyncio.Task[None] | None = None
        self._client: Any = None

    # --- what it is asked ---

    def listen(
        self,
        series: Iterable[SeriesId],  # that somebody decides on
        closed: Callable[[SeriesId], object],  # told of each whose bar closed, or may have; in another thread
    ) -> None:
        "Listen to these series from now on, too."
        self._closed = closed
        self._series = self._series | {*series}  # another one: the loop may be going through it
        if self._task is None and self._series and self.transport.config.streamed:
            self._cut, self._client = (
                monotonic(),
                open_client(self.transport.config, self.transport.count, streams=True),
            )
            self.transport.threads.run(self._begin(), 5)

    def stop(self) -> None:
        "Listen no more."
        if self._task is not None:
            with suppress(TimeoutError):
                self.transport.threads.run(self._end(self._task), 15)
            self._task = None

    def price(
        self,
        symbol: TradedSymbol,  # of a market
    ) -> Decimal | None:
        "Return the last price, None where the stream has told none for a while."
        newest = None if symbol in self.stopped else self._newest(symbol)
        return newest.price if newest is not None and self._age_s(newest) <= self.fresh_s else None

    def prices(
        self,
        symbols: Collection[str],  # of which some may have no market
    ) -> dict[str, Decimal]:
        "Return last prices: of the stream where it has them all, and else of the venue."
        told = {symbol: price for symbol in symbols if (price := self.price(symbol)) is not None}
        return told if len(told) == len(symbols) else self.market.prices()

    def risk_fault(
        self,
        symbol: TradedSymbol,  # that somebody wants to enter
    ) -> str:
        "Return why no new risk is taken: a stream that should tell the price does not, and the venue's own is old."
        if symbol not in {each.symbol for each in self._series} or not (symbol in self.stopped or self._is_cut()):
            return ""
        age_s = (self.transport.now_ms() - self.market.traded_ms(symbol)) / 1000
        if age_s <= self.old_s:
            return ""
        return f"no new risk on an old price: {symbol} was traded {age_s:.0f} s ago, and its stream is silent"

    @property
    def fault(self) -> str:
        "Return what is wrong with the prices, '' for nothing."
        said = [f"the stream of {symbol} has stopped" for symbol in sorted(self.stopped)]
        if self._is_cut():
            said = ["the stream of prices is cut off"]
        said += [f"Binance has no {symbol}" for symbol in sorted(self._unlisted)]
        return "; ".join(said)

    def _is_cut(self) -> bool:
        return self._task is not None and self.connected_since is None and monotonic() - self._cut > self.fresh_s

    def _newest(self, symbol: TradedSymbol) -> Candle | None:
        found = [candle for series, candle in [*self._candles.items()] if series.symbol == symbol]
        return max(found, key=lambda candle: candle.told_ms, default=None)

    def _age_s(self, candle: Candle) -> float:
        "Return how old a candle is: what was on its way for long is old when it comes."
        return max(monotonic() - candle.heard, (self.transport.now_ms() - candle.told_ms) / 1000)

    # --- what it hears ---

    async def _begin(self) -> None:
        read, connected = self._client.handle_message, self._client.on_connected

        def receive(client: Any, message: Any) -> None:
            try:
                if isinstance(message, dict) and message.get("e") == "kline":
                    self._hear(message)
                read(client, message)
            except Exception as error:  # nobody would hear it there, and the connection would be deaf from then on
                if not self._garbled:
                    get_logger("trading.binance").warning("the stream said what is no candle", reason=repr(error)[:200])
                self._garbled = True

        def connect(client: Any, message: Any = None) -> None:
            connected(client, message)
            self.connected_since, self._garbled = monotonic(), False
            self._wake(*self._series)  # in between anything may have been missed

        self._client.handle_message, self._client.on_connected = receive, connect
        self._task = asyncio.create_task(self._listen())

    async def _end(self, task: "asyncio.Task[None]") -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def _hear(self, told: Mapping[str, Any]) -> None:
        "Keep what is new, and wake whoever waits for a close; what comes twice or late changes nothing."
        series, candle = SeriesId.parse(told["k"]["s"], told["k"]["i"]), Candle.of(told)
        before = self._candles.get(series)
        if series not in self._series:
            return
        if before is not None and (candle.opened_ms, candle.told_ms) <= (before.opened_ms, before.told_ms):
            return
        self._candles[series] = candle
        if self.stopped.pop(series.symbol, None) is not None:
            get_logger("trading.binance").info("prices come again", symbol=series.symbol)
            self._wake(series)
        known = before is not None and before.closed and before.opened_ms == candle.opened_ms
        missed = before is not None and candle.opened_ms > before.opened_ms and not before.closed
        if missed or (candle.closed and not known):
            self._wake(series)

    def _wake(self, *series: SeriesId) -> None:
        for each in series:
            self._closed(each)

    # --- how it stays ---

    async def _listen(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            began = monotonic()
            try:
                await self._connection()
            except Exception as error:
                said = f"{type(error).__name__} {error}"[:200]
            finally:
                await self._client.close()
            self.connected_since, self.gaps, self._cut = None, self.gaps + 1, monotonic()
            pause_s = FIRST_PAUSE_S if monotonic() - began > 2 * MOST_PAUSE_S else min(MOST_PAUSE_S, 2 * pause_s)
            get_logger("trading.binance").info("the stream of prices is cut off", reason=said, pause_s=pause_s)
            await asyncio.sleep(pause_s)

    async def _connection(self) -> None:
        "Listen until the connection ends, or is silent where the venue is not."
        self._checked = monotonic()
        while True:
            if pairs := [
                [self._client.safe_symbol(each.symbol), each.timeframe.value] for each in await self._listed()
            ]:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._client.watch_ohlcv_for_symbols(pairs), min(1.0, self.silent_s / 4))
            else:
                await asyncio.sleep(1)
            if monotonic() - self._checked > self.silent_s / 4:
                self._checked = monotonic()
                await self._check()

    async def _listed(self) -> list[SeriesId]:
        "Return the series whose symbols the venue has."
        known = self._client.markets_by_id or {}
        for symbol in {each.symbol for each in self._series} - known.keys():
            if monotonic() < self._unlisted.get(symbol, float("-inf")) + LISTED_S:
                continue
            try:
                found = await self.transport.once(partial(self._client.fetch_markets, {"symbol": symbol}))
            except VenueRefused:
                self._unlisted[symbol] = monotonic()
                get_logger("trading.binance").warning("no such market", symbol=symbol)
            else:
                self._unlisted.pop(symbol, None)
                self._client.set_markets([*(self._client.markets or {}).values(), *found])
        return sorted((each for each in [*self._series] if each.symbol in (self._client.markets_by_id or {})), key=str)

    async def _check(self) -> None:
        "Ask the venue about each series that says nothing; raise `ConnectionError` where there was something to say."
        if self.connected_since is None:
            return
        for series in await self._listed():
            candle = self._candles.get(series)
            heard = max(self.connected_since, self.connected_since if candle is None else candle.heard)
            if monotonic() - heard < self.silent_s:
                continue
            if await self._moved(series, candle) and series.symbol not in self.stopped:
                self.stopped[series.symbol] = monotonic()
                get_logger("trading.binance").warning("prices have stopped, the connection lives", symbol=series.symbol)
        if self.stopped:
            raise ConnectionError(f"nothing is heard of {', '.join(sorted(self.stopped))}")

    async def _moved(self, series: SeriesId, candle: Candle | None) -> bool:
        "Say whether the venue has traded what the stream did not tell; where it has not, the price is the last one."
        asked = {"symbol": series.symbol, "interval": series.timeframe.value, "limit": 1}
        try:
            rows = await self.transport.once(partial(self._client.publicGetKlines, asked))
        except NotTaken:
            return False
        if not rows:
            return False
        opened_ms, price, trades = int(rows[-1][0]), Decimal(rows[-1][4]), int(rows[-1][8])
        if candle is not None and trades and (opened_ms, trades) != (candle.opened_ms, candle.trades):
            return True
        self._candles[series] = Candle(opened_ms, self.transport.now_ms(), price, trades, False, monotonic())
        return False
