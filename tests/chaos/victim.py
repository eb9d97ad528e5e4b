"""The engine as it runs live, on paper or at a foreign venue, saying what it does: one life, until it is killed."""

import json
import os
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from orbiquant import persistence
from orbiquant.core import ExecutionUnknown, FixedClock, OrbiError
from orbiquant.domain import AssetClass, Costs, SeriesId, Signal, Timeframe
from orbiquant.execution.config import ExitPlan
from orbiquant.leases import own_name
from orbiquant.market.instruments import find_instrument
from orbiquant.orders import Capabilities
from orbiquant.trading import engine as trading_engine
from orbiquant.trading import requests
from orbiquant.trading.brokers.paper import PaperBroker
from orbiquant.trading.brokers.terms import PaperTerms, PriceBar
from orbiquant.trading.config import AgentProfile, RiskConfig
from orbiquant.trading.engine import TradingEngine
from orbiquant.trading.fund_entries import FundPaths
from orbiquant.trading.funds import Fund, receive_money
from orbiquant.trading.ledger import Ledger
from orbiquant.trading.pages import Pages
from orbiquant.trading.products import Product
from orbiquant.trading.requests import RequestBox, serve_requests, settle_funds
from orbiquant.trading.sender import GONE, Sender
from orbiquant.trading.standing import Standing
from orbiquant.trading.switches import Switches, SwitchScope
from tests.chaos.killer import Countdown
from tests.chaos.market import AGENTS, LIMITS, PRODUCTS, STEP, TERMS
from tests.chaos.wire import Gate, LoggedBroker, LoggedPaper, Wire

ACCOUNT = "paper"
COSTS = Costs(fee_bps=10, slippage_bps=1, spread_bps=1)
FRAME = Timeframe.M5
GROWING = {  # tables of which a row, once acknowledged, must never be missed, and what names a row
    "intents": ("id",),
    "orders": ("client_order_id",),
    "fills": ("account", "symbol", "fill_id"),
    "trades": ("id",),
    "decisions": ("agent", "strategy", "symbol", "timeframe", "time"),
    "paper_orders": ("account", "client_order_id"),
    "paper_fills": ("account", "symbol", "number"),
}


@dataclass
class Orders:
    """What a victim is told to do."""

    folder: Path
    url: str  # of the database
    seed: int
    life: int = 0
    window: int = 0  # transaction or sending in which it is killed; 0: in none
    instruction: int = 1  # of that window, or of those after it
    sending: bool = False  # aim between the commit of an intent and its answer's
    venue: str = ""  # address of a venue; "": on paper
    scale: float = 0.0  # that venue is the fake Binance, whose clock and the victim's run so many times as fast
    bug: str = ""  # that is planted
    cold: float = 0.0  # when the process was started, if it is to be told


class LossyReplies:
    """Loses the answer to a share of the orders, before or after they are taken; the same for the same id."""

    def __init__(self, share: float) -> None:
        self.share = share

    def install(self, broker: Any) -> None:
        """Stand before a broker's `submit`."""
        submit = broker.submit

        def submitted(order: Any) -> Any:
            number = sum(order.client_order_id.encode()) * 2_654_435_761 % 2**32 / 2**32
            if number < self.share / 2:
                raise ExecutionUnknown("no answer came", client_order_id=order.client_order_id)
            status = submit(order)
            if number < self.share:
                raise ExecutionUnknown("no answer came", client_order_id=order.client_order_id)
            return status

        broker.submit = submitted


def plain(value: Any) -> str:
    """Return a value as a dump of the database has it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return str(getattr(value, "value", value))


class Feed:
    """Signals of one strategy, known when their bar closes."""

    def __init__(self, signals: Mapping[str, list[dict[str, Any]]], wire: Wire) -> None:
        self.wire = wire  # which knows the market's time, whatever a clock says
        self.rows = {(name, row["time"]): row for name, rows in signals.items() for row in rows}

    def latest(self, series: SeriesId) -> Signal | None:
        """Return the signal of the bar that closes now."""
        row = self.rows.get((series.symbol, (datetime.fromisoformat(self.wire.moment) - STEP).isoformat()))
        if row is None:
            return None
        return Signal(
            symbol=series.symbol, timeframe=FRAME, confidence=0.7, amd_phase="neutral", reasoning=["by chance"],
            features=[], model_version="chaos", **row,
        )  # fmt: skip

    def atr(self, series: SeriesId) -> float | None:
        """Return a range to trail by."""
        row = self.rows.get((series.symbol, (datetime.fromisoformat(self.wire.moment) - STEP).isoformat()))
        return None if row is None else 0.003 * row["entry_price"]


class Acknowledger:
    """Writes down what each commit held, once it has returned."""

    def __init__(self, wire: Wire, gate: Gate, countdown: Countdown) -> None:
        self.wire, self.gate, self.countdown = wire, gate, countdown
        self.rows: list[list[Any]] = []

    def install(self) -> None:
        """Listen at the transactions, the pages and the ledger."""
        writing, write, post = persistence.writing, Pages._write, Ledger.post
        post_many, note, put, answer = Ledger.post_many, Fund.note, RequestBox.put, RequestBox.answer

        @contextmanager
        def watched(engine: Engine, *arguments: Any, **options: Any) -> Iterator[Any]:
            try:
                self.countdown.opened(False)
                with self.gate.transaction(), writing(engine, *arguments, **options) as connection:
                    yield connection
            except BaseException:
                self.rows = []
                raise
            rows, self.rows = self.rows, []
            if rows:
                self.wire.write("committed", rows=rows)

        def described(pages: Pages) -> None:
            rows = []
            for table, states in pages._states.items():
                rows += [_said(table.name, row) for row in states.values() if row is not None]
            for table, added in pages._added.items():
                rows += [_said(table.name, row) for row in added]
            self.rows += [row for row in rows if row is not None]
            write(pages)

        def posted(ledger: Ledger, entry: Any, key: str) -> int:
            self.rows.append(["journal_entries", [key]])
            return post(ledger, entry, key)

        def posted_many(ledger: Ledger, entries: Any) -> list[int]:
            self.rows += [["journal_entries", [key]] for _, key in entries]
            return post_many(ledger, entries)

        def noted(fund: Fund, kind: str, key: str, *rest: Any, **about: Any) -> Any:
            self.rows.append(["fund_events", [fund.product.id, key]])
            return note(fund, kind, key, *rest, **about)

        def asked(box: RequestBox, id_: str, *rest: Any) -> Any:
            self.rows.append(["engine_requests", [id_], ""])
            return put(box, id_, *rest)

        def answered(box: RequestBox, id_: str, told: Mapping[str, Any]) -> None:
            self.rows.append(["engine_requests", [id_], json.dumps(dict(told), default=str)])
            answer(box, id_, told)

        persistence.writing = requests.writing = watched  # type: ignore[assignment]
        Pages._write, Ledger.post = described, posted  # type: ignore[assignment]
        Ledger.post_many, Fund.note = posted_many, noted  # type: ignore[method-assign]
        RequestBox.put, RequestBox.answer = asked, answered  # type: ignore[method-assign]

    def watch(self, sender: type[Sender]) -> None:
        """Say when an order is written whose answer is not."""
        prepare, send, write = sender.prepare, sender.send, sender._write

        def prepared(this: Sender, *arguments: Any, **options: Any) -> None:
            self.gate.intent(True)
            prepare(this, *arguments, **options)

        def sent(this: Sender, id_: str) -> Any:
            self.countdown.opened(True)
            return send(this, id_)

        def written(this: Sender, waiting: Any, state: Any, *rest: Any) -> Any:
            result = write(this, waiting, state, *rest)
            self.gate.intent(any(each.state in ("new", "unknown") for each in this.waiting.values()))
            return result

        sender.prepare, sender.send, sender._write = prepared, sent, written  # type: ignore[method-assign]


def _said(table: str, row: Mapping[str, Any]) -> list[Any] | None:
    if table not in GROWING:
        return None
    return [table, [plain(row[name]) for name in GROWING[table]], plain(row.get("state", ""))]


PLANS = {"orion": "break_even_r=0.5 trail_atr=2 targets=1:0.5"}  # that the venue on paper plays by itself


def profile(name: str, limits: Mapping[str, Any], pairs: Collection[str]) -> AgentProfile:
    """Return what an agent trades and may lose."""
    facts = {key: limits[key] for key in LIMITS if key != "open_risk_share"}
    return AgentProfile.model_validate(
        facts
        | {"profile": "aggressive", "strategies": (AGENTS[name],), "pairs": tuple(pairs), "timeframe": FRAME}
        | {"target_month": "0.1", "min_win_rate": "0.5", "initial_equity": limits["cash"], "min_confidence": 0.6}
        | {"exits": PLANS.get(name, "fixed")}
    )


def risk_limits() -> RiskConfig:
    """Return what holds for everybody; the two that are not counted by the judge are out of the way."""
    return RiskConfig(
        open_risk_share=LIMITS["open_risk_share"], max_exposure=50, max_account_risk="0.9", max_correlated_risk=100
    )


def terms(symbol: str) -> PaperTerms:
    """Return what a symbol costs."""
    instrument = find_instrument(symbol)
    return PaperTerms(instrument, COSTS, risk_limits().leverage(AssetClass(instrument.asset_class)))


def capabilities(seed: int) -> Any:
    """Return what the venue on paper can do: a third of them cannot sell short."""
    able = Capabilities(short=seed % 3 != 0)
    return lambda symbol: able


class Victim:
    """An engine on an account, from wherever an earlier life left it."""

    account = ACCOUNT

    def __init__(self, orders: Orders, wire: Wire) -> None:
        self.orders, self.wire = orders, wire
        self.database = persistence.engine(orders.url)
        self.market = json.loads((orders.folder / "market.json").read_text())
        self.limits = json.loads((orders.folder / "limits.json").read_text())
        self.begin = datetime.fromisoformat(next(iter(self.market["bars"].values()))[0][0])
        self.clock = FixedClock(self.begin)
        self.pages = Pages(self.database)
        self.switches = Switches(self.database, orders.folder / "switches", self.clock)
        self.inner = self.connect()
        self.broker = self.logged()
        feeds = {strategy: Feed(signals, wire) for strategy, signals in self.market["signals"].items()}
        profiles = {name: profile(name, self.limits, self.market["bars"]) for name in AGENTS}
        if orders.venue:
            profiles = {name: each.model_copy(update={"exits": ExitPlan()}) for name, each in profiles.items()}
        standing = Standing(self.pages, self.broker, self.account, "USDT", self.terms, self.switches, self.clock)
        self.products = (
            {}
            if orders.venue
            else {agent: Product.model_validate(TERMS | each | {"agent": agent}) for agent, each in PRODUCTS.items()}
        )
        self.engine = TradingEngine(standing, profiles, risk_limits(), feeds, own_name(), products=self.products)
        self.box = RequestBox(self.database, self.clock)
        self.flows = list(self.market["flows"]) if self.products else []  # that nobody in this life asked for yet

    def connect(self) -> Any:
        """Return the broker: paper, or a foreign venue."""
        if self.orders.venue:
            from tests.chaos.venue_broker import VenueBroker

            return VenueBroker(self.orders.venue)
        broker = PaperBroker(self.pages, ACCOUNT, "USDT", terms, self.clock, capabilities(self.orders.seed))
        if self.orders.seed % 2:
            LossyReplies(0.2).install(broker)
        return broker

    def logged(self) -> Any:
        """Return the broker behind what writes down each order."""
        return (LoggedBroker if self.orders.venue else LoggedPaper)(self.inner, self.wire)

    def terms(self, symbol: str) -> PaperTerms:
        """Return what a symbol costs."""
        return terms(symbol)

    def difference(self) -> dict[str, str]:
        """Return what venue and books do not agree on."""
        holdings: dict[str, Decimal] = {}
        for position in self.inner.positions():
            holdings[position.symbol] = holdings.get(position.symbol, Decimal(0)) + position.quantity
        return {name: str(left) for name, left in self.engine.books.difference(holdings).items()}

    def recover(self) -> None:
        """Ask about what is on its way, and say when books and venue are one."""
        began = time.time_ns()
        self.engine.recover()
        for name in sorted({*AGENTS} - {record.name for record in self.engine.roster.all()}):
            if self.products:
                self.box.put(f"start:{name}", ACCOUNT, "start", {"agent": name, "amount": None}, "chaos")
                serve_requests(self.engine, self.box)
            else:
                self.engine.enlist(name)
        self.wait_until_settled()
        self.wire.write("safe", difference=self.difference(), recovering_ns=time.time_ns() - began,
                        cpu_s=time.process_time())  # fmt: skip

    def moments(self) -> Iterator[tuple[int, dict[SeriesId, PriceBar]]]:
        """Yield the bars that close together and were not gone through, with their number."""
        seen = min(self.engine.standing.seen.values(), default=self.begin)
        for number, rows in enumerate(zip(*self.market["bars"].values(), strict=True)):
            opened = datetime.fromisoformat(rows[0][0])
            if opened + STEP > seen:
                yield (
                    number,
                    {
                        SeriesId(symbol, FRAME): PriceBar(symbol, opened, opened + STEP, *row[1:])
                        for symbol, row in zip(self.market["bars"], rows, strict=True)
                    },
                )

    def run(self) -> None:
        """Go through what is left of the bars."""
        plan = kill_plan(self.orders.seed, len(next(iter(self.market["bars"].values()))), self.account)
        for number, bars in self.moments():
            moment = next(iter(bars.values())).closed
            self.clock.advance(moment - self.clock.now())
            self.pass_time(number)
            self.wire.moment = moment.isoformat()
            for begin, end, scope, name in plan:
                if begin <= number < end:
                    self.throw(scope, name)
                elif number >= end:
                    self.lift(scope, name)
            self.step(bars)
            self.ask(number)
            self.stay(number)
        self.wait_until_settled()  # of what was sent last nobody has been asked yet

    def pass_time(self, number: int) -> None:
        """Let a venue's time come to the end of a bar."""
        if self.orders.venue:
            self.inner.pass_bars(number)

    def stay(self, number: int) -> None:
        """Do what is to be done between two bars: a venue that bars fill does nothing."""

    def wait_until_settled(self, most_s: float = 3) -> None:
        """Ask until every answer is there, or for a while."""
        end = time.monotonic() + most_s
        while self.unsettled() and time.monotonic() < end:
            time.sleep(0.02)
            self.engine.recover()

    def unsettled(self) -> bool:
        """Say whether the answer to an order is still to come, or a fill; what has vanished is waited for by nobody."""
        waiting = [each for each in self.engine.sender.waiting.values() if each.message != GONE]
        return bool(self.difference()) or any(each.state in ("new", "unknown") for each in waiting)

    def step(self, bars: dict[SeriesId, PriceBar]) -> None:
        """Go through a moment; what a disk or a database does not allow is tried again from what is written."""
        for patience in range(50):
            try:
                self.go_through(bars)
                return
            except (SQLAlchemyError, OrbiError, OSError) as error:
                self.wire.write("blocked", error=f"{type(error).__name__}: {error}"[:300])
                time.sleep(0.02 * (patience + 1))
        raise RuntimeError("a moment could not be gone through")

    def go_through(self, bars: dict[SeriesId, PriceBar]) -> None:
        """Go through a moment, then let investors in and out, as whoever stays at an account does."""
        self.engine.step(bars)
        settle_funds(self.engine, self.box, self.clock.now())

    def ask(self, number: int) -> None:
        """Want what investors want by the so many-th bar, each once: whoever was killed meanwhile asks again."""
        if not self.flows or self.flows[0]["number"] > number:
            return
        while self.flows and self.flows[0]["number"] <= number:
            flow = self.flows.pop(0)
            product = next(each for each in self.products.values() if each.id == flow["product"])
            content = {name: flow[name] for name in ("account_id", "product", "amount")}
            with persistence.writing(self.database):
                self.box.put(flow["id"], ACCOUNT, flow["kind"], content, flow["account_id"])
                if flow["kind"] == "deposit":
                    paths, ledger = FundPaths(product, ACCOUNT), self.engine.books.ledger
                    receive_money(ledger, paths, flow["account_id"], Decimal(flow["amount"]), flow["id"])
        settle_funds(self.engine, self.box, self.clock.now())  # who asks is answered at once where that can be

    def throw(self, scope: SwitchScope, name: str) -> None:
        """Kill somebody's new risk, once."""
        if not any((each.scope, each.name) == (scope, name) for each in self.switches.all()):
            self.switches.kill(scope, name, who="chaos", why="it was in the plan")
            self.wire.write("killed", scope=scope, name=name)

    def lift(self, scope: SwitchScope, name: str) -> None:
        """Let somebody trade again."""
        if any((each.scope, each.name) == (scope, name) for each in self.switches.all()):
            self.wire.write("lifted", scope=scope, name=name)
            self.switches.lift(scope, name, who="chaos", why="it was in the plan")


def kill_plan(seed: int, bars: int, account: str) -> list[tuple[int, int, SwitchScope, str]]:
    """Return when whose new risk is killed and lifted again, by the number of the moment."""
    chance = Random(f"switches {seed}")
    begin = chance.randrange(bars // 4, bars // 2)
    end = begin + bars // 8
    agent = chance.choice([*AGENTS])
    return [(begin, end, SwitchScope.ACCOUNT, account), (end + 4, end + 4 + bars // 8, SwitchScope.AGENT, agent)]


def victim_of(orders: Orders, wire: Wire) -> Victim:
    """Return the victim of a venue."""
    if orders.scale:
        from tests.chaos.exchange import ExchangeVictim

        return ExchangeVictim(orders, wire)
    return Victim(orders, wire)


def live(orders: Orders) -> None:
    """Live once: recover, go on, end with the bars or by a kill."""
    os.environ["ORBIQUANT_HOME"] = str(orders.folder)
    gate = Gate(orders.folder / "gate")
    wire = Wire(orders.folder / "wire.jsonl", orders.life)
    countdown = Countdown(gate, orders.window, orders.instruction, orders.sending)
    listener = Acknowledger(wire, gate, countdown)
    listener.install()
    listener.watch(Sender)
    trading_engine.LEASE = timedelta(hours=1)  # of the market's time, in which bars are minutes apart
    if orders.bug:
        from tests.chaos.bugs import BUGS

        BUGS[orders.bug].plant()
    victim = victim_of(orders, wire)
    victim.recover()
    victim.run()
    wire.write("end", difference=victim.difference(), windows=countdown.windows)
    victim.database.dispose()
