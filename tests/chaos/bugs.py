"""One planted bug an invariant: each breaks one rule of the engine, and the judge must say which.

They change classes of the process that they are planted in, which lives for one run.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from itertools import count
from typing import Any, NamedTuple

from sqlalchemy import text

from orbiquant.core import BrokerError
from orbiquant.orders import OrderState
from orbiquant.persistence import INVESTMENT, writing
from orbiquant.trading import funds_closing, marks, requests
from orbiquant.trading.books import Books
from orbiquant.trading.brokers.paper_book import PaperBook
from orbiquant.trading.engine import TradingEngine
from orbiquant.trading.funds import Fund
from orbiquant.trading.journal import EXTERNAL
from orbiquant.trading.ledger import Ledger
from orbiquant.trading.risk import RiskGate
from orbiquant.trading.sender import GONE, Sender
from orbiquant.trading.switches import Switches
from orbiquant.trading.units import Lot
from orbiquant.trading.verdicts import Denied
from orbiquant.trading.watch import Watch
from tests.chaos import victim

DUE = 5  # the so many-th time a bug shows


class Bug(NamedTuple):
    """What is planted, and what the judge must find."""

    plant: Callable[[], None]
    invariants: tuple[str, ...]
    venue: str = ""  # at which it shows: OWN or EXCHANGE of `tests.chaos.run`; "": on paper
    bars: int = 16  # that it takes to show
    seed: int | None = None  # whose market shows it


def send_before_commit() -> None:
    """Send while the intent is not committed yet."""
    prepare, send = Sender.prepare, Sender.send

    def prepared(self: Sender, intent: Any, order: Any, *rest: Any) -> None:
        prepare(self, intent, order, *rest)
        with suppress(BrokerError):
            self.broker.submit(order)

    def sent(self: Sender, id_: str) -> Any:
        waiting = self.waiting[id_]
        status = self.broker.order(waiting.order.symbol, id_)
        return self._write(waiting, status.state, "") if status else send(self, id_)

    Sender.prepare, Sender.send = prepared, sent  # type: ignore[method-assign]


def resend_unknown() -> None:
    """Send an order again whose outcome is not known."""
    send = Sender.send

    def sent(self: Sender, id_: str) -> Any:
        order, state = self.waiting[id_].order, send(self, id_)
        if state is OrderState.UNKNOWN:
            with suppress(BrokerError):
                self.broker.submit(order)
        return state

    Sender.send = sent  # type: ignore[method-assign]


def two_orders_an_intent() -> None:
    """Send a second order for each intent that opens."""
    send = Sender.send

    def sent(self: Sender, id_: str) -> Any:
        order, opens = self.waiting[id_].order, self.waiting[id_].opens
        state = send(self, id_)
        if opens:
            with suppress(BrokerError):
                self.broker.broker.submit(order.model_copy(update={"client_order_id": f"{id_[:-4]}-two"}))
        return state

    Sender.send = sent  # type: ignore[method-assign]


def end_what_vanished() -> None:
    """Call an order ended that the venue had and does not know any more."""
    ask = Sender._ask

    def asked(self: Sender, waiting: Any) -> Any:
        state = ask(self, waiting)
        return self._write(waiting, OrderState.EXPIRED, "") if waiting.message == GONE else state

    Sender._ask = asked  # type: ignore[method-assign]


def book_twice() -> None:
    """Book a fill under a second key."""
    post, number = Ledger.post_many, count(1)

    def posted(self: Ledger, entries: Any) -> list[int]:
        made = post(self, entries)
        for entry, key in entries:
            if entry.kind == "trade" and next(number) == DUE:
                post(self, [(entry, f"{key}:again")])
        return made

    Ledger.post_many = posted  # type: ignore[method-assign]


def drop_fill() -> None:
    """Take note of a fill and book it nowhere."""
    book, number = Books.book, count(1)

    def booked(self: Books, fill: Any, *rest: Any) -> Any:
        if next(number) == DUE:
            self.cursors[fill.symbol] = fill.fill_id
            return None
        return book(self, fill, *rest)

    Books.book = booked  # type: ignore[method-assign]


def ignore_switch() -> None:
    """Send whatever is killed, two seconds later."""
    Switches.stops = lambda *arguments: None  # type: ignore[method-assign, assignment]
    throw = victim.Victim.throw

    def thrown(self: Any, scope: Any, name: str) -> None:
        throw(self, scope, name)
        self.wire.write_later(2)

    victim.Victim.throw = thrown  # type: ignore[method-assign]


def risk_too_much() -> None:
    """Send twenty times what risk allowed."""
    review = RiskGate.review

    def reviewed(self: RiskGate, *arguments: Any) -> Any:
        verdict = review(self, *arguments)
        return verdict if isinstance(verdict, Denied) else replace(verdict, quantity=verdict.quantity * 20)

    RiskGate.review = reviewed  # type: ignore[method-assign]


def one_position_too_many() -> None:
    """Let an agent hold one position more than it may."""
    profile = victim.profile
    victim.profile = lambda *told: profile(*told).model_copy(update={"max_positions": 3})


def send_without_stop() -> None:
    """Send an order without its stop."""
    send, number = Sender.send, count(1)

    def sent(self: Sender, id_: str) -> Any:
        waiting = self.waiting[id_]
        if waiting.opens and next(number) == DUE:
            waiting.order = waiting.order.model_copy(update={"bracket": None})
        return send(self, id_)

    Sender.send = sent  # type: ignore[method-assign]


def keep_the_fee() -> None:
    """Let the venue take no fee from the cash."""
    record, number = PaperBook.record, count(1)

    def recorded(self: PaperBook, fill: Any) -> None:
        record(self, fill)
        if next(number) == DUE:
            self.pay(fill.fee)

    PaperBook.record = recorded  # type: ignore[method-assign]


def skip_a_bar() -> None:
    """Leave a moment out."""
    step, number = TradingEngine.step, count(1)

    def stepped(self: TradingEngine, bars: Any) -> None:
        if next(number) != DUE:
            step(self, bars)

    TradingEngine.step = stepped  # type: ignore[method-assign]


def forget_a_lot() -> None:
    """Sell units, and write down nowhere whose they are."""
    book, number = Fund.book, count(1)

    def booked(self: Fund, entries: Any, flow: Any, before: Any, lots: Any) -> None:
        book(self, entries, flow, before, () if next(number) == 2 * DUE else lots)

    Fund.book = booked  # type: ignore[method-assign]


def subscribe_twice() -> None:
    """Let the same money buy units twice."""
    subscribe, number = Fund.subscribe, count(1)

    def subscribed(self: Fund, account: str, amount: Any, key: str, time: Any) -> Any:
        if next(number) == DUE:
            subscribe(self, account, amount, f"{key}:again", time)
        return subscribe(self, account, amount, key, time)

    Fund.subscribe = subscribed  # type: ignore[method-assign]


def price_backwards() -> None:
    """Let everybody in and out at the price that they know."""
    requests.is_priced = lambda *arguments: True  # type: ignore[assignment]


def forget_the_positions() -> None:
    """Take an agent's cash for what its book is worth."""
    note = Fund.note
    cash = property(lambda self: self.books.cash_of(self.product.agent, self.product.currency))

    def noted(self: Fund, *arguments: Any, **about: Any) -> Any:
        worth, Fund.equity = Fund.equity, cash  # type: ignore[method-assign, assignment]
        try:
            return note(self, *arguments, **about)
        finally:
            Fund.equity = worth  # type: ignore[method-assign]

    Fund.note = noted  # type: ignore[method-assign]


def charge_below_the_mark() -> None:
    """Take a fee on what was no gain above the mark."""
    Lot.fee = lambda self, nav, rate: rate * max(Decimal(0), nav - self.mark * Decimal("0.9"))  # type: ignore[method-assign]


def lose_the_cents() -> None:
    """Share out a cent less than there is."""
    share = funds_closing.share_out_cents

    def shared(due: Any, total: Any, cent: Any) -> dict[str, Decimal]:
        return share(due, max(Decimal(0), total - cent), cent)

    funds_closing.share_out_cents = shared  # type: ignore[assignment]


def pay_half_a_cent() -> None:
    """Pay out what no coin is."""
    receive = victim.receive_money

    def received(ledger: Any, paths: Any, account: str, amount: Decimal, key: str) -> None:
        receive(ledger, paths, account, amount + Decimal("0.005"), key)

    victim.receive_money = received  # type: ignore[attr-defined]


def skip_a_month() -> None:
    """Close no month."""
    marks.close_month = lambda fund, end: (Decimal(0), Decimal(0))  # type: ignore[assignment]


def answer_nobody() -> None:
    """Answer a request and do nothing."""
    flow_at, number = requests.flow_at, count(1)

    def flowed(fund: Fund, request: Any, moment: Any) -> Any:
        if next(number) == DUE:
            nothing = Decimal(0)
            return requests.Flow(Decimal(request.content["amount"] or 1), nothing, Decimal(1), nothing, moment), []
        return flow_at(fund, request, moment)

    requests.flow_at = flowed  # type: ignore[assignment]


def keep_money_from_the_venue() -> None:
    """Book what investors bring, and let the venue know nothing of it."""
    deposit, number = PaperBook.pay, count(1)

    def paid(self: PaperBook, amount: Decimal) -> None:
        if next(number) != DUE:
            deposit(self, amount)

    PaperBook.pay = paid  # type: ignore[method-assign]


def adopt_nothing() -> None:
    """Say that a venue was taken as it is, and book nothing."""

    def adopted(self: Watch, key: str) -> dict[str, Decimal]:
        self.standing.books.forget(self.standing.books.positions(EXTERNAL))
        self._before, self.standing.doubt = {}, ""
        return {}

    Watch.adopt = adopted  # type: ignore[method-assign]


def see_nobody() -> None:
    """Look at the venue, and find all well."""
    Watch.find = lambda self: ""  # type: ignore[method-assign]


def doubt_nothing() -> None:
    """Let risk be added until a difference was found again and again."""
    find, looks = Watch.find, count(1)

    def found(self: Watch) -> str:
        said = find(self)
        self.standing.doubt = ""
        return said if said and next(looks) > 4 * DUE else ""

    Watch.find = found  # type: ignore[method-assign]


def protect_nothing() -> None:
    """Hold what was bought, and put up no stop."""
    from orbiquant.trading.brokers.binance.guards import Guards

    Guards._put = lambda *arguments: None  # type: ignore[method-assign]


def protect_twice() -> None:
    """Put up a second stop beside the first."""
    from orbiquant.trading.brokers.binance.guards import Guards

    put = Guards._put

    def doubled(self: Guards, rules: Any, entry_id: str, quantity: Any, levels: Any, number: int) -> None:
        put(self, rules, entry_id, quantity, levels, number)
        with suppress(Exception):
            put(self, rules, entry_id, quantity, levels, number + 1)

    Guards._put = doubled  # type: ignore[method-assign]


def wait_for_ever() -> None:
    """Never believe that an order did not arrive."""
    from orbiquant.trading.brokers.binance import broker

    broker.SETTLED_S = 1e9


def _afterwards(*statements: str) -> Callable[[], None]:
    """Return a bug that changes the database behind everybody's back, when the bars are over."""

    def plant() -> None:
        run = victim.Victim.run

        def ran(self: Any) -> None:
            run(self)
            with writing(self.database) as connection:
                prefix = f"{INVESTMENT}." if connection.dialect.name == "postgresql" else ""
                for statement in statements:
                    connection.execute(text(statement.replace("@", prefix)))

        victim.Victim.run = ran  # type: ignore[method-assign]

    return plant


def _bug(plant: Callable[[], None], *invariants: str) -> Bug:
    return Bug(plant, invariants)


BUGS = {
    "send before commit": _bug(send_before_commit, "intent first"),
    "resend unknown": _bug(resend_unknown, "not while unknown", "sent once"),
    "two orders an intent": _bug(two_orders_an_intent, "one order"),
    "end what vanished": Bug(end_what_vanished, ("not while unknown",), venue="own", bars=64),
    "book twice": _bug(book_twice, "money", "fills"),
    "drop a fill": _bug(drop_fill, "fills"),
    "keep the fee": _bug(keep_the_fee, "money"),
    "edit a posting": _bug(
        _afterwards(
            "DROP TRIGGER journal_postings_no_update",
            "UPDATE journal_postings SET amount = '1' WHERE entry_id = 5 AND line = 0",
        ),
        "journal",
    ),
    "ignore the switch": _bug(ignore_switch, "switches"),
    "risk too much": _bug(risk_too_much, "limits"),
    "one position too many": _bug(one_position_too_many, "limits"),
    "send without stop": _bug(send_without_stop, "protection"),
    "lose a row": _bug(
        _afterwards("DELETE FROM @decisions WHERE id = (SELECT max(id) FROM @decisions)"), "acknowledged"
    ),
    "forget a position": _bug(
        _afterwards("DELETE FROM @positions WHERE id = (SELECT max(id) FROM @positions)"), "end"
    ),
    "skip a bar": _bug(skip_a_bar, "decided"),
    "forget a lot": _bug(forget_a_lot, "units"),
    "subscribe twice": _bug(subscribe_twice, "flows", "cents"),
    "answer nobody": _bug(answer_nobody, "flows"),
    "price backwards": _bug(price_backwards, "price"),
    "forget the positions": _bug(forget_the_positions, "price"),
    "charge below the mark": _bug(charge_below_the_mark, "fee"),
    "pay half a cent": _bug(pay_half_a_cent, "cents"),
    "lose the cents": Bug(lose_the_cents, ("shares",), bars=60, seed=1),
    "skip a month": _bug(skip_a_month, "ends"),
    "keep money from the venue": _bug(keep_money_from_the_venue, "money"),
    "adopt nothing": Bug(adopt_nothing, ("holdings",), venue="binance"),
    "see nobody": Bug(see_nobody, ("found",), venue="binance"),
    "doubt nothing": Bug(doubt_nothing, ("no new risk",), venue="binance"),
    "protect nothing": Bug(protect_nothing, ("protection", "bare"), venue="binance"),
    "protect twice": Bug(protect_twice, ("sold once",), venue="binance"),
    "wait for ever": Bug(wait_for_ever, ("settled",), venue="binance", seed=2),
}  # fmt: skip
