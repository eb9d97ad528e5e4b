"""An engine at the fake Binance, for tests: agents, a feed that says what a test puts in, bars that a test closes."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from sqlalchemy import Engine, select

from orbiquant.core import FixedClock
from orbiquant.domain import Costs, SeriesId, Signal
from orbiquant.market.instruments import find_instrument
from orbiquant.persistence import engine, migrate, querying
from orbiquant.trading import tables
from orbiquant.trading.brokers.binance.broker import BinanceBroker
from orbiquant.trading.brokers.binance.config import BinanceConfig
from orbiquant.trading.brokers.binance.transport import Transport
from orbiquant.trading.brokers.terms import PaperTerms, PriceBar
from orbiquant.trading.engine import TradingEngine
from orbiquant.trading.lookout import look_at_venue
from orbiquant.trading.pages import Pages
from orbiquant.trading.standing import Standing
from orbiquant.trading.switches import Switches
from tests.fake_binance.running import RunningBinance
from tests.tools.desk import FREE, loose_profile

HOUR = timedelta(hours=1)
BTC = SeriesId.parse("BTCUSDT", "1h")
ACCOUNT = "binance-usdt"
CAPITAL = Decimal(10_000)


def config_of(venue: RunningBinance, **changes: Any) -> BinanceConfig:
    """Return how the fake venue is reached."""
    facts = {"api_key": venue.key, "api_secret": venue.secret, "rest_url": f"{venue.url}/api/v3"}
    facts |= {"stream_url": f"{venue.ws_url}/ws-api/v3", "market_url": f"{venue.ws_url}/ws", "environment": "testnet"}
    facts |= {"timeout_s": 2}
    return BinanceConfig.model_validate(facts | changes)


def usual_terms(symbol: str) -> PaperTerms:
    """Return what a symbol costs by our own table."""
    return PaperTerms(find_instrument(symbol), Costs())


def open_broker(venue: RunningBinance, **changes: Any) -> BinanceBroker:
    """Return a broker at the fake venue."""
    return BinanceBroker(Transport(config_of(venue, **changes)), ACCOUNT, "USDT", usual_terms)


class Said:
    """A feed that says what a test puts into it, for the bar that closes."""

    def __init__(self, clock: FixedClock) -> None:
        self.clock, self.next = clock, dict[str, Any]()

    def say(self, action: str = "LONG", price: float = 60_000, **more: Any) -> None:
        """Say one signal, until another is said."""
        side = -1 if action == "SHORT" else 1
        levels = {
            "entry_price": price,
            "stop_loss": price * (1 - 0.01 * side),
            "take_profit": price * (1 + 0.02 * side),
        }
        self.next = {"action": action, "confidence": 0.7} | levels | more

    def latest(self, series: SeriesId) -> Signal | None:
        """Return what was said."""
        if not self.next:
            return None
        facts = {"amd_phase": "neutral", "horizon": "24h", "reasoning": ["said"], "features": [], "model_version": "t"}
        return Signal(**{"symbol": "BTCUSDT", "timeframe": "1h", "time": self.clock.now() - HOUR} | facts | self.next)

    def atr(self, series: SeriesId) -> float:
        """Return a range."""
        return 100.0


class BinanceDesk:
    """An engine at the fake venue."""

    def __init__(
        self, venue: RunningBinance, folder: Path, names: tuple[str, ...] = ("nova",), start: datetime | None = None,
        **changes: Any,
    ) -> None:  # fmt: skip
        self.venue, self.folder, self.names, self.changes = venue, folder, names, changes
        self.database: Engine = engine(f"sqlite:///{folder / 'desk.db'}")
        migrate(self.database)
        self.clock = FixedClock(start or datetime.now(UTC) - timedelta(days=2))
        self.feed = Said(self.clock)
        self.broker = self.engine = None  # type: ignore[assignment]
        self.open()

    def open(self) -> TradingEngine:
        """Take up where the account stands, as a new process would."""
        if self.broker is not None:
            self.broker.close()
        self.broker = open_broker(self.venue, **self.changes)
        self.switches = Switches(self.database, self.folder / "switches", self.clock)
        profiles = {name: self.profile(name) for name in self.names}
        standing = Standing(
            Pages(self.database), self.broker, ACCOUNT, "USDT", self.broker.terms, self.switches, self.clock
        )
        self.engine = TradingEngine(standing, profiles, FREE, {"ml": self.feed})
        self.engine.recover()
        known = {record.name for record in self.engine.roster.all()}
        for name in {*self.names} - known:
            self.engine.enlist(name)
        return self.engine

    def profile(self, name: str) -> Any:
        """Return a profile that risks 100 a trade, which at a stop of 1 % is a position worth about 10,000 at most."""
        risk = {"risk_per_trade": "0.005", "initial_equity": str(CAPITAL), "max_position_loss": "0.5"}
        return loose_profile(BTC, broker="binance", **risk)

    def hour(self, close: float = 60_000) -> None:
        """Let an hour close, and look at the venue."""
        begin = self.clock.now()
        self.clock.advance(HOUR)
        self.engine.step({BTC: PriceBar("BTCUSDT", begin, self.clock.now(), close, close, close, close, 1e9)})
        self.look()

    def look(self) -> int:
        """Look at the venue, now."""
        self.broker.woken.set()
        return look_at_venue(self.engine)

    def enter(self, **more: Any) -> None:
        """Let the first hour close, and another in which a signal is said."""
        self.hour()
        self.feed.say(**more)
        self.hour()
        self.feed.next = {}

    @property
    def state(self) -> dict[str, Any]:
        """Return what the venue says of the account."""
        return self.venue.control("state")["accounts"][self.venue.key]

    def resting(self) -> list[dict[str, Any]]:
        """Return what stands at the venue."""
        return self.state["open"]

    def answers(self, name: str = "nova") -> list[tuple[str, str]]:
        """Return an agent's decisions, the oldest first."""
        return [(each.outcome.value, each.reason) for each in reversed(self.engine.journal.last(name))]

    def record(self, name: str = "nova") -> Any:
        """Return an agent's record."""
        return self.engine.roster.find(name)

    def orders(self) -> list[tuple[str, str]]:
        """Return id and state of every order that was written."""
        orders = tables.orders.c
        with querying(self.database) as connection:
            rows = connection.execute(select(orders.client_order_id, orders.state).order_by(orders.created_at))
            return [(row.client_order_id, row.state) for row in rows]

    def agrees(self) -> bool:
        """Say whether books and venue are one to the last digit, and the ledger sound."""
        return not self.engine.watch.differences() and not self.engine.books.ledger.check()

    def close(self) -> None:
        """Let go of everything."""
        self.broker.close()
        self.database.dispose()


def wait_until(condition: Any, most_s: float = 5.0) -> bool:
    """Wait until something holds."""
    end = monotonic() + most_s
    while not condition():
        if monotonic() > end:
            return False
        sleep(0.02)
    return True


@contextmanager
def all_logged() -> Iterator[list[str]]:
    """Yield every line that anything logs in the block, at the finest level."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    root, handler = logging.getLogger(), Keep()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
