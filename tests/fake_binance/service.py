"""The venue as one thing: every request, by whichever door, goes through here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.fake_binance import signing
from tests.fake_binance.answers import Refused, no_such_order, timed_out
from tests.fake_binance.clock import Clock
from tests.fake_binance.engine import Engine
from tests.fake_binance.faults import Faults, Rule, client_id_of
from tests.fake_binance.limits import Limits
from tests.fake_binance.market import Market
from tests.fake_binance.parameters import check_read
from tests.fake_binance.records import Account
from tests.fake_binance.routes import Route
from tests.fake_binance.symbols import starting_symbols
from tests.fake_binance.venue_log import VenueLog

KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"  # of Binance's own examples
SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
STARTING_MONEY = {"USDT": Decimal(1_000_000), "BTC": Decimal(10), "ETH": Decimal(100), "BNB": Decimal(0)}
PAGE = "<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body>cloudfront</body></html>"


class Hangup(Exception):
    """The connection ends without an answer."""


class Page(Exception):
    """A page for people is sent instead of an answer."""


@dataclass
class Ask:
    """One request, by whichever door it came."""

    door: str
    method: str
    path: str
    params: dict[str, Any]
    payload: str
    signature: str | None
    key: str | None

    @property
    def facts(self) -> dict[str, str]:
        """Return what faults look at."""
        told = {"client_id": client_id_of(self.params), "symbol": str(self.params.get("symbol", ""))}
        return told | {"method": self.method, "path": self.path}


@dataclass
class Listener:
    """Somebody who hears an account's events."""

    account: str
    send: Callable[[dict[str, Any]], None]


@dataclass
class Venue:
    """The state of the whole venue."""

    folder: Path
    seed: int = 0
    rate: float = 0.0
    ping_s: float = 20.0
    tick_s: float = 0.0
    muted: bool = False
    paged: bool = False
    clock: Clock = field(default_factory=Clock)
    listeners: list[Listener] = field(default_factory=list)
    sockets: set[Any] = field(default_factory=set)
    watchers: set[Any] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.log = VenueLog(self.folder / "venue.jsonl")
        self.reset()

    def reset(self) -> None:
        """Begin again: markets, accounts, limits, faults and the clock."""
        self.clock.set()
        self.muted = self.paged = False
        self.spoilt: set[int] = set()
        self.engine = Engine(self.clock, self.log)
        self.limits = Limits()
        self.faults = Faults(self.seed, self.rate)
        for symbol, price in starting_symbols():
            self.engine.markets[symbol.name] = Market(symbol, price, traded_ms=self.clock.now_ms())
        self.add_account(KEY, SECRET, dict(STARTING_MONEY))
        self.log.write("started", seed=self.seed, rate=self.rate)
        self.tell()

    def add_account(self, key: str, secret: str, money: dict[str, Decimal]) -> Account:
        """Open an account."""
        account = self.engine.accounts[key] = Account(key, secret, free=money)
        self.log.write("account", account=key, free=money)
        return account

    # Requests

    async def answer(self, ask: Ask, route: Route) -> Any:
        """Return what a request gets, or raise what it gets instead."""
        told = {name: value for name, value in ask.params.items() if name != "signature"}
        self.log.write("heard", door=ask.door, method=ask.method, path=ask.path, params=told)
        planned = {rule.kind: rule for rule in self.faults.of_request(**ask.facts)}
        for kind in planned:
            self.log.write("fault", fault=kind, **ask.facts)
        try:
            body = await self.with_faults(ask, route, planned)
        except Refused as refusal:
            self.log.write("refused", status=refusal.status, **ask.facts | refusal.body())
            raise
        finally:
            await self.after(planned)
        if "cut" in planned:
            raise Hangup
        return body

    async def with_faults(self, ask: Ask, route: Route, planned: dict[str, Rule]) -> Any:
        """Do what is asked, unless something is to go wrong first."""
        self.refuse_at_once(planned)
        if "delay" in planned:
            await self.sleep(planned["delay"].wait_s)
        late = planned.get("timeout_late")
        if late is not None or "timeout_never" in planned:
            self.check_rights(ask, route)
            if late is not None:
                self.start(self.do_late(ask, route, late.wait_s, self.engine))
            raise timed_out()
        if "race" in planned:
            self.fill_first(ask)
        return self.do(ask, route)

    def refuse_at_once(self, planned: dict[str, Rule]) -> None:
        """Raise what a fault answers instead of looking at the request."""
        now_ms = self.clock.now_ms()
        if "drop" in planned:
            raise Hangup
        if "html" in planned:
            raise Page
        if "timestamp" in planned:
            raise Refused(-1021, "Timestamp for this request is outside of the recvWindow.")
        if "blind" in planned:
            raise no_such_order()
        if "unavailable" in planned:
            raise Refused(
                -1008, "Server is currently overloaded with other requests. Please try again in a few minutes.", 503
            )
        if "too_many" in planned:
            wait_s = max(1, round(planned["too_many"].wait_s))
            raise Refused(-1003, "Too many requests queued.", status=429, retry_after_s=wait_s)
        if "banned" in planned:
            self.limits.ban(planned["banned"].wait_s, now_ms)
            raise self.limits.ban_words(now_ms)

    def check_rights(self, ask: Ask, route: Route) -> Account | None:
        """Return who asks, after limits, key, time and signature."""
        now_ms = self.clock.now_ms()
        self.limits.weigh(route.weight, now_ms)
        if not route.signed:
            return None
        account: Account = signing.check_key(ask.key, self.engine.accounts)
        signing.check_signature(account.secret, ask.payload, ask.signature)
        signing.check_time(ask.params, now_ms)
        check_read(ask.params, route.known)
        return account

    def do(self, ask: Ask, route: Route, counted: bool = False) -> Any:
        """Do what is asked, all of it before anything else happens."""
        account = self.check_rights(ask, route) if not counted else self.engine.accounts[str(ask.key)]
        if route.orders:
            self.limits.count_orders(route.orders, self.clock.now_ms())
        seen = len(account.trades) if account else 0
        body = route.act(self, account, ask.params)
        if account is not None and len(account.trades) > seen:
            self.limits.give_back(route.orders)
        return body

    async def do_late(self, ask: Ask, route: Route, wait_s: float, engine: Engine) -> None:
        """Do what is asked after its sender was told that nobody knows, unless the venue began again."""
        await self.sleep(wait_s)
        if engine is not self.engine:
            return
        try:
            self.do(ask, route, counted=True)
        except Refused as refusal:
            self.log.write("refused", late=True, **ask.facts | refusal.body())
        self.tell()

    def fill_first(self, ask: Ask) -> None:
        """Fill the order that a cancel is about, before the cancel is looked at."""
        account = self.engine.accounts.get(str(ask.key))
        if account is None:
            return
        name = str(ask.params.get("cancelOrigClientOrderId") or ask.facts["client_id"])
        number = str(ask.params.get("cancelOrderId") or ask.params.get("orderId") or 0)
        order = account.by_client.get((ask.facts["symbol"], name)) or account.orders.get(int(number))
        if order and order.is_open and order.status != "PENDING_NEW":
            price = order.price or order.stop_price
            self.engine.fill(account, order, price, order.left, maker=True)

    async def after(self, planned: dict[str, Rule]) -> None:
        """Send events around the answer: just before it, well before it, or well after."""
        late = planned.get("event_late")
        if late is not None:
            self.log.sync()
            waiting, self.engine.outbox = self.engine.outbox, []
            self.start(self.tell_late(waiting, late.wait_s))
        self.tell()
        if "event_first" in planned:
            await self.sleep(planned["event_first"].wait_s)

    # Events

    def tell(self) -> None:
        """Send what the engine has to tell, after it is on the disk."""
        waiting, self.engine.outbox = self.engine.outbox, []
        public, self.engine.public = self.engine.public, []
        self.send_events(waiting)
        self.log.sync()
        for topic, payload in () if self.muted else public:
            for watcher in list(self.watchers):
                watcher.hear(topic, payload)

    async def tick(self) -> None:
        """Tell watchers the running bars again and again, as the venue does though nothing trades."""
        while True:
            await asyncio.sleep(self.tick_s)
            for market in self.engine.markets.values():
                if market.bars:
                    self.engine.publish_bar(market, max(market.bars))
            self.tell()

    async def tell_late(self, waiting: list[tuple[str, dict[str, Any]]], wait_s: float) -> None:
        """Send events later than they happened."""
        await self.sleep(wait_s)
        self.send_events(waiting)
        self.log.sync()

    def send_events(self, waiting: list[tuple[str, dict[str, Any]]]) -> None:
        """Send events to whoever hears their account."""
        for account, event in waiting:
            planned = {rule.kind: rule for rule in self.faults.of_event(**event_facts(event))}
            copies = 0 if "event_drop" in planned else 2 if "event_twice" in planned else 1
            self.send_event(account, event, copies)
            again = planned.get("event_again")
            if again is not None:
                self.start(self.send_again(account, event, again.wait_s))

    def send_event(self, account: str, event: dict[str, Any], copies: int) -> None:
        """Send an event some times."""
        hearers = [listener for listener in self.listeners if listener.account == account]
        self.log.write("event", account=account, copies=copies, hearers=len(hearers), event=event)
        for listener in hearers:
            for _ in range(copies):
                listener.send(event)

    async def send_again(self, account: str, event: dict[str, Any], wait_s: float) -> None:
        """Send an old event once more."""
        await self.sleep(wait_s)
        self.send_event(account, event, 1)
        self.log.sync()

    # Time

    async def sleep(self, venue_s: float) -> None:
        """Wait some of the venue's seconds."""
        await asyncio.sleep(self.clock.wall_s(venue_s))

    def start(self, work: Any) -> None:
        """Let something go on beside the rest."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


def event_facts(event: dict[str, Any]) -> dict[str, str]:
    """Return what faults look at in an event."""
    own = event.get("C") or event.get("c", "") if event["e"] == "executionReport" else event.get("C", "")
    return {"event": str(event["e"]), "client_id": str(own), "symbol": str(event.get("s", ""))}
