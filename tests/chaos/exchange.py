"""The engine at the fake Binance: the real adapter, signed requests, lost answers, and somebody else at the account.

Its clock and the venue's run so many times as fast as the wall's, alike: what takes sixteen seconds there, and has to,
takes the scale's share of them here. No constant of the adapter is changed.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from orbiquant.core import OrbiError
from orbiquant.market.instruments import instrument_of
from orbiquant.trading.agents import AgentState
from orbiquant.trading.brokers.binance import broker, guards, market, stream, transport
from orbiquant.trading.brokers.binance.broker import BinanceBroker
from orbiquant.trading.brokers.binance.transport import Transport
from orbiquant.trading.brokers.terms import PaperTerms, PriceBar
from orbiquant.trading.lookout import adopt_venue, look_at_venue
from tests.chaos.market import PRICES, make_market, prices_of
from tests.chaos.victim import COSTS, Victim
from tests.chaos.wire import LoggedVenue
from tests.fake_binance.running import RunningBinance, running_binance
from tests.tools.binance_desk import ACCOUNT, config_of

RATE = 0.2  # of requests and events about an order that go wrong
KINDS = ("drop", "delay", "cut", "timeout_late", "timeout_never", "unavailable", "html")
EVENTS = ("event_first", "event_late", "event_drop", "event_twice")
MONEY = "10000000"  # USDT that the account begins with
STEPS = {"BTCUSDT": "0.00001", "ETHUSDT": "0.0001"}  # of a quantity; of others, the next
STEP = "0.001"
REST_S = 2.0  # of the venue, between two bars
BEYOND = ("coins", "order", "trade")  # what somebody else does to the account
TIMEOUT_S, PING_S = 20.0, 20.0  # of the venue


def scale_clocks(scale: float) -> None:
    """Let every clock that the adapter and its library read run faster from now on."""
    import ccxt.async_support as ccxt

    wall, steady = time.time(), time.monotonic()

    def now() -> float:
        return wall + (time.time() - wall) * scale

    def monotonic() -> float:
        return steady + (time.monotonic() - steady) * scale

    transport.time = stream.time = now  # type: ignore[attr-defined]
    for module in (transport, broker, guards, market, stream):
        module.monotonic = monotonic  # type: ignore[attr-defined]
    ccxt.Exchange.milliseconds = staticmethod(lambda: int(now() * 1000))
    stream.FIRST_PAUSE_S, stream.MOST_PAUSE_S = stream.FIRST_PAUSE_S / scale, stream.MOST_PAUSE_S / scale
    stream.QUIET_S = stream.QUIET_S / scale


def spoil_plan(seed: int, bars: int) -> dict[int, str]:
    """Return what somebody else does, by the number of the bar after which it is done."""
    chance = Random(f"spoil {seed}")
    begins = range(bars // 8, bars - bars // 8, max(4, bars // 6))
    return {begin + chance.randrange(3): BEYOND[(seed + at) % len(BEYOND)] for at, begin in enumerate(begins)}


def make_exchange_market(seed: int, bars: int, symbols: int = len(PRICES), share: float = 0.35) -> dict[str, Any]:
    """Return a market, with the steps in which its coins are traded."""
    made = make_market(seed, bars, symbols, share)
    return made | {"steps": {symbol: STEPS.get(symbol, STEP) for symbol in made["bars"]}}


def limits_of(symbols: int) -> dict[str, Any]:
    """Return what an agent may do where it trades so many symbols with its own money alone."""
    most = 2 if symbols <= len(PRICES) else symbols
    return {"risk_per_trade": f"{0.002 / symbols:.6f}", "max_positions": most, "books": "Assets:Binance-usdt:"}


@contextmanager
def running_exchange(
    folder: Path, seed: int, symbols: int, scale: float, rate: float = RATE
) -> Iterator[RunningBinance]:
    """Yield the fake Binance with the symbols of a market, where things go wrong by chance."""
    with running_binance(folder, "--seed", str(seed), "--ping", str(PING_S / scale)) as venue:
        venue.control("clock", scale=scale)
        venue.control("limits", weight_limit=10**9, orders_limit=10**6, orders_day_limit=10**9)
        for symbol, price in prices_of(symbols).items():
            step = STEPS.get(symbol, STEP)
            told = {"base": symbol.removesuffix("USDT"), "quote": "USDT", "step": step, "min_quantity": step}
            most = {"max_quantity": "1000000", "max_market_quantity": "1000000"}
            venue.control("symbol", symbol=symbol, price=str(price), **told, **most)
        venue.control("account", balances={"USDT": MONEY})
        if rate:
            venue.control("fault", rate=rate, seed=seed, kinds=(*KINDS, *EVENTS))
        yield venue


def usual_terms(symbol: str) -> PaperTerms:
    """Return what a symbol costs, before the venue tells its own steps."""
    return PaperTerms(instrument_of(symbol).instrument, COSTS)


class ExchangeVictim(Victim):
    """An engine at the fake Binance, and the person who looks after its account."""

    account = ACCOUNT

    def connect(self) -> Any:
        """Return the real adapter, whose clocks run as fast as the venue's."""
        scale = self.orders.scale
        scale_clocks(scale)
        self.venue = RunningBinance(int(self.orders.venue), self.orders.folder)
        self.plan = spoil_plan(self.orders.seed, len(next(iter(self.market["bars"].values()))))
        made = BinanceBroker(
            Transport(config_of(self.venue, timeout_s=TIMEOUT_S / scale)), ACCOUNT, "USDT", usual_terms
        )
        made.transport.most_weight = 10**9  # a day takes minutes here
        return made

    def logged(self) -> Any:
        """Return the broker behind what writes down each order."""
        return LoggedVenue(self.inner, self.wire)

    def terms(self, symbol: str) -> PaperTerms:
        """Return what a symbol costs, by the venue."""
        return self.inner.terms(symbol)

    def difference(self) -> dict[str, str]:
        """Return what venue and books do not agree on."""
        return {asset: str(left) for asset, left in self.engine.watch.differences().items()}

    def pass_time(self, number: int) -> None:
        """Let every symbol trade at the close of a bar."""
        for symbol, rows in self.market["bars"].items():
            self.venue.price(symbol, rows[number][4])

    def go_through(self, bars: dict[Any, PriceBar]) -> None:
        """Look, go through a moment, and look again, as the room does."""
        look_at_venue(self.engine, now=True)
        self.engine.step(bars)
        look_at_venue(self.engine)

    def stay(self, number: int) -> None:
        """Look whenever it is time to, until the next bar; somebody else may have been there."""
        if (kind := self.plan.get(number)) is not None:
            symbols = [*self.market["bars"]]
            self.venue.control("spoil", number=number, act=kind, symbol=symbols[number % len(symbols)])
        end = time.monotonic() + REST_S / self.orders.scale
        while time.monotonic() < end:
            self.look()
            time.sleep(0.01)
        self.put_right()

    def look(self) -> None:
        """Look at the venue when it is time to; what fails is said, and done again."""
        try:
            look_at_venue(self.engine)
        except OrbiError as error:
            self.wire.write("blocked", error=f"{type(error).__name__}: {error}"[:300])

    def put_right(self) -> None:
        """Do what a person does who reads that venue and books differ, once nothing is on its way any more."""
        halted = [record for record in self.engine.roster.all() if record.state is AgentState.HALTED]
        if not halted:
            return
        self.wire.write("found", said=halted[0].reason)
        if self.unsettled_orders():
            return
        state = self.venue.control("state")["accounts"][self.venue.key]
        for each in state["open"]:
            if each["clientOrderId"].startswith("web_"):
                self.venue.control("expire", symbol=each["symbol"], clientOrderId=each["clientOrderId"])
        try:
            adopt_venue(self.engine, f"chaos:{time.time_ns()}")
        except OrbiError as error:
            self.wire.write("blocked", error=f"{type(error).__name__}: {error}"[:300])
            return
        self.wire.write("adopted")
        for record in halted:
            self.engine.roster.move(record.name, "resume", "chaos")

    def unsettled_orders(self) -> bool:
        """Say whether nobody knows what became of an order."""
        return any(each.state in ("new", "unknown") for each in self.engine.sender.waiting.values())

    def unsettled(self) -> bool:
        """Say whether anything is still to be found out, done or put right."""
        halted = any(record.state is AgentState.HALTED for record in self.engine.roster.all())
        return halted or self.unsettled_orders() or self.engine.watch.doubtful or bool(self.difference())

    def wait_until_settled(self, most_s: float = 60) -> None:
        """Look until all is well, or for a while of the venue's."""
        end = time.monotonic() + most_s / self.orders.scale
        while time.monotonic() < end:
            self.inner.woken.set()
            self.look()
            try:
                if not self.unsettled():
                    return
            except OrbiError:
                continue
            self.put_right()
            time.sleep(0.05)
