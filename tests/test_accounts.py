"""Investment accounts: units, prices, fees and what is told of them; the same on SQLite and on a real PostgreSQL."""

import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import Engine, select, text

from orbiquant.core import FixedClock
from orbiquant.domain import Costs, SeriesId, Signal
from orbiquant.market.instruments import find_instrument
from orbiquant.orders import Capabilities
from orbiquant.persistence import engine, migrate, querying, writing
from orbiquant.trading import tables
from orbiquant.trading.agents import AgentState
from orbiquant.trading.brokers.paper import PaperBroker
from orbiquant.trading.brokers.terms import PaperTerms, PriceBar
from orbiquant.trading.engine import TradingEngine
from orbiquant.trading.funds import NO_CAPITAL, Fund, receive_money
from orbiquant.trading.pages import Pages, RowWriter
from orbiquant.trading.products import Product
from orbiquant.trading.requests import EngineRequest, RequestBox, serve_requests, settle_funds
from orbiquant.trading.standing import Standing
from orbiquant.trading.statements import (
    enter_account,
    events_since,
    kept_snapshots,
    kept_transactions,
    read_accounts,
    statement_faults,
    statement_of,
    sync_statements,
)
from orbiquant.trading.switches import Switches
from tests.tools.desk import FREE, loose_profile
from tests.tools.postgres import migrated_postgres

START, HOUR = datetime(2024, 1, 30, 9, tzinfo=UTC), timedelta(hours=1)
BTC = SeriesId.parse("BTCUSDT", "1h")
VENUE = "paper-usdt"
TABLES = (
    *("journal_entries", "journal_postings", "journal_balances", "agents", "checkpoints", "decisions", "intents"),
    *("orders", "fills", "positions", "trades", "paper_accounts", "paper_orders", "paper_guards", "paper_fills"),
    *("engine_requests", "accounts", "fund_events", "unit_lots", "account_transactions", "performance_snapshots"),
)


@pytest.fixture(scope="module")
def server() -> Iterator[Engine]:
    """A migrated PostgreSQL."""
    with migrated_postgres() as made:
        yield made


def forget(server: Engine) -> None:
    """Empty a server; the ledger's guards are looked away from, as only a superuser can."""
    with writing(server) as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text(f"TRUNCATE {', '.join(f'investment.{table}' for table in TABLES)}"))


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "postgresql":
        forget(made := request.getfixturevalue("server"))
        yield made
        return
    made = engine(f"sqlite:///{tmp_path / 'desk.db'}")
    migrate(made)
    yield made
    made.dispose()


class Said:
    """A feed that says what a test puts into it, for the bar that closes."""

    def __init__(self, clock: FixedClock) -> None:
        self.clock, self.next = clock, {}

    def say(self, action: str = "LONG", **more: Any) -> None:
        side = -1 if action == "SHORT" else 1
        levels = {"entry_price": 100, "stop_loss": 100 - 2 * side, "take_profit": 100 + 4 * side}
        self.next = {"action": action, "confidence": 0.7} | levels | more

    def latest(self, series: SeriesId) -> Signal | None:
        if not self.next:
            return None
        facts = {"amd_phase": "neutral", "horizon": "240h", "reasoning": ["said"], "features": [], "model_version": "t"}
        return Signal(**{"symbol": "BTCUSDT", "timeframe": "1h", "time": self.clock.now() - HOUR} | facts | self.next)

    def atr(self, series: SeriesId) -> float:
        return 1.0


class Desk:
    """A pooled agent on one market, bars that a test lets close, and investors who ask."""

    def __init__(self, database: Engine, folder: Path, **terms: Any) -> None:
        facts = {"id": "atlas-conservative", "agent": "atlas", "currency": "USDT", "performance_fee": "0.2"}
        facts |= {"distribution": "reinvest", "minimum_deposit": "10", "cent": "0.01"}
        self.product, self.database, self.folder = Product.model_validate(facts | terms), database, folder
        self.clock, self.asked = FixedClock(START), 0
        self.feed, self.box = Said(self.clock), RequestBox(database, self.clock)
        self.open()

    def open(self) -> TradingEngine:
        pages = Pages(self.database)
        terms = lambda symbol: PaperTerms(find_instrument(symbol), Costs())  # noqa: E731
        broker = PaperBroker(pages, VENUE, "USDT", terms, self.clock, lambda symbol: Capabilities(short=False))
        switches = Switches(self.database, self.folder / "switches", self.clock)
        profiles = {"atlas": loose_profile(BTC, risk_per_trade="0.01", initial_equity="10000")}
        standing = Standing(pages, broker, VENUE, "USDT", terms, switches, self.clock)
        products = {"atlas": self.product}
        self.engine = TradingEngine(standing, profiles, FREE, {"ml": self.feed}, products=products)
        self.engine.recover()
        self.fund = Fund(self.engine, self.product)
        return self.engine

    def hour(self, opened: float = 100, high: float = 101, low: float = 99, close: float = 100) -> None:
        begin = self.clock.now()
        self.clock.advance(HOUR)
        self.engine.step({BTC: PriceBar("BTCUSDT", begin, self.clock.now(), opened, high, low, close, 1e9)})
        settle_funds(self.engine, self.box, self.clock.now())

    def ask(self, kind: str, account: str, amount: str | None, key: str = "") -> str:
        self.asked += 1
        id_ = key or f"{kind}-{self.asked}"
        with writing(self.database):
            if kind == "deposit":
                receive_money(self.fund.ledger, self.fund.paths, account, Decimal(amount or 0), id_)
            content = {"account_id": account, "product": self.product.id, "amount": amount}
            self.box.put(id_, VENUE, kind, content, account)
        return id_

    def want(self, kind: str, account: str, amount: str | None, key: str = "") -> EngineRequest:
        id_ = self.ask(kind, account, amount, key)
        serve_requests(self.engine, self.box)
        return self.box.find(id_)

    def trade(self, exit_price: float) -> None:
        """Let the agent buy at 100 and leave at a price."""
        self.feed.say(stop_loss=exit_price if exit_price < 99 else 90, take_profit=max(130, exit_price))
        self.hour()
        self.feed.next = {}
        self.hour()
        assert self.engine.books.positions("atlas")
        self.hour(exit_price, exit_price, exit_price, exit_price)
        assert not self.engine.books.positions("atlas")

    def holds(self) -> None:
        """Assert what must hold at any moment."""
        fund, ledger = self.fund, self.fund.ledger
        lots = fund.lots()
        units = sum((lot.units for lot in lots), Decimal(0))
        assert units == fund.units and all(lot.units > 0 for lot in lots)
        left = fund.equity - units * fund.nav
        assert not units or 0 <= left <= units * Decimal("1e-18")
        kept = ledger.balances("Assets:Units")
        assert {fund.paths.units(lot.account_id, lot.number): lot.units for lot in lots} == {
            account: amount for (account, _), amount in kept.items()
        }
        assert self.engine.standing.broker.book.cash == self.engine.books.cash_of("atlas", "USDT")
        owed = sum(ledger.balances("Liabilities:Pending").values()) + sum(ledger.balances("Liabilities:Cash").values())
        assert ledger.balance(fund.paths.bank, "USDT") == -owed
        assert ledger.check() == []


@pytest.fixture
def desk(database: Engine, tmp_path: Path) -> Desk:
    return Desk(database, tmp_path)


def test_an_account_from_the_first_deposit_to_the_last_unit(desk: Desk):
    answer = desk.want("deposit", "inv-ana", "1000").answer
    assert answer["status"] == "done" and (answer["units"], answer["nav"]) == ("1000", "1")
    assert desk.engine.roster.find("atlas").state is AgentState.RUNNING, "its agent runs"
    desk.holds()
    desk.trade(130)
    gained = desk.fund.nav - 1
    assert gained > 0
    desk.holds()
    held = desk.fund.held("inv-ana")
    assert held == (1000 + gained * 800).quantize(Decimal("0.01")), "a fifth of the gain is the fee"
    out = desk.want("withdrawal", "inv-ana", None)
    assert Decimal(out.answer["amount"]) == held
    desk.holds()
    operator = desk.fund.lots()
    assert [lot.account_id for lot in operator] == [desk.product.operator]
    last = desk.want("withdrawal", desk.product.operator, None)
    assert 0 <= Decimal(out.answer["fee"]) - Decimal(last.answer["amount"]) <= Decimal("0.01"), "the fee, rounded down"
    assert desk.fund.units == 0 and desk.fund.equity < Decimal("0.02")
    assert desk.engine.roster.find("atlas").reason == NO_CAPITAL
    desk.want("deposit", "inv-ben", "50")
    assert desk.engine.roster.find("atlas").state is AgentState.RUNNING
    desk.holds()


def test_capital_that_an_operator_brings_is_units_too(desk: Desk):
    for _ in range(2):
        desk.box.put("start", VENUE, "start", {"agent": "atlas", "amount": None}, "op")
        serve_requests(desk.engine, desk.box)
    assert desk.fund.units == 10_000 == desk.fund.equity
    desk.want("deposit", "inv-ana", "500")
    desk.trade(130)
    desk.holds()
    assert desk.fund.held(desk.product.operator) == (10_000 * desk.fund.nav).quantize(Decimal("0.01"), "ROUND_DOWN")


def test_capital_of_before_is_adopted_once(desk: Desk):
    with writing(desk.database), desk.engine.pages.together():
        desk.engine.enlist("atlas", Decimal(2500), "of before")
    for _ in range(2):
        settle_funds(desk.engine, desk.box, desk.clock.now())
    assert [(lot.account_id, lot.units) for lot in desk.fund.lots()] == [(desk.product.operator, 2500)]
    desk.holds()


def test_money_in_a_moving_book_gets_a_price_that_nobody_knew(desk: Desk):
    desk.want("deposit", "inv-ana", "1000")
    desk.feed.say(stop_loss=90, take_profit=200)
    desk.hour()
    desk.feed.next = {}
    assert desk.want("deposit", "inv-ben", "1000", "ben").answer is None, "an order is on its way"
    desk.hour(100, 110, 99, 110)
    told = desk.box.find("ben").answer
    assert Decimal(told["nav"]) > 1 and desk.fund.units == 1000 + Decimal(told["units"])
    assert desk.want("withdrawal", "inv-ana", "100", "out").answer is None
    desk.hour(110, 120, 109, 120)
    assert Decimal(desk.box.find("out").answer["nav"]) > Decimal(told["nav"])
    desk.holds()


def test_more_than_is_held_is_refused_naming_both_amounts(desk: Desk):
    desk.want("deposit", "inv-ana", "1000")
    said = desk.want("withdrawal", "inv-ana", "1000.01").answer["message"]
    assert "1000.01" in said and "at most 1000," in said
    assert "inv-ben" in desk.want("withdrawal", "inv-ben", None).answer["message"]
    desk.holds()


def test_bound_money_is_freed_from_all_positions_alike(desk: Desk):
    desk.want("deposit", "inv-ana", "1000")
    desk.feed.say(stop_loss=99, take_profit=200)
    desk.hour()
    desk.feed.next = {}
    desk.hour(100, 101, 99.5, 100)
    (held,) = desk.engine.books.positions("atlas")
    free = desk.fund.payable()
    assert free < 600
    desk.ask("withdrawal", "inv-ana", "600", "out")
    desk.hour(100, 101, 99.5, 100)
    assert desk.box.find("out").answer is None, "it waits for the orders that reduce"
    before = held.opened_quantity
    desk.hour(100, 101, 99.5, 100)
    assert desk.box.find("out").answer["amount"] == "600"
    (held,) = desk.engine.books.positions("atlas")
    assert 0 < held.quantity < before
    desk.holds()


def test_the_month_ends_with_a_fee_and_a_distribution(database: Engine, tmp_path: Path):
    desk = Desk(database, tmp_path, distribution="pay_out")
    desk.want("deposit", "inv-ana", "1000")
    desk.trade(130)
    desk.want("deposit", "inv-ben", "1000")
    nav = desk.fund.nav
    desk.clock.advance(timedelta(days=3))
    for _ in range(2):
        settle_funds(desk.engine, desk.box, desk.clock.now())
    month = desk.fund.event("month:2024-01")
    gain = 1000 * (nav - 1)
    assert month.nav == nav and month.time == datetime(2024, 2, 1, tzinfo=UTC)
    fee = -desk.fund.ledger.balance(desk.fund.paths.fees, "USDT")
    assert fee == (gain * Decimal("0.2")).quantize(Decimal("0.01"), "ROUND_DOWN")
    assert desk.fund.cash_of("inv-ana") == (gain - fee).quantize(Decimal("0.01"), "ROUND_DOWN")
    assert desk.fund.cash_of("inv-ben") == 0
    marks = {lot.account_id: lot.mark for lot in desk.fund.lots()}
    assert marks["inv-ana"] == nav and abs(marks["inv-ben"] - nav) < Decimal("1e-9")
    desk.holds()
    assert desk.want("withdrawal", "inv-ana", "1").answer["units"] == "0", "cash goes first"
    desk.holds()


def test_a_request_is_one_request(desk: Desk):
    for _ in range(3):
        desk.want("deposit", "inv-ana", "1000", "same")
        desk.open()
    assert desk.fund.units == 1000
    desk.holds()


# --- statements ---


def test_a_statement_goes_on_from_row_to_row_and_equals_a_rebuild(desk: Desk):
    for name in ("inv-ana", "inv-ben"):
        enter_account(desk.database, name, name, desk.product, desk.clock.now())
    desk.want("deposit", "inv-ana", "1000")
    desk.trade(130)
    desk.want("deposit", "inv-ben", "500")
    desk.trade(95)
    seen = {
        each["id"]: statement_of(desk.database, desk.product, each).transactions
        for each in read_accounts(desk.database)
    }
    assert [row.transaction_type for row in seen["inv-ana"]] == ["deposit", "profit", "loss"]
    assert seen["inv-ana"][1].reference_type == "agent_trade"
    assert seen["inv-ana"][1].description.startswith("BUY BTCUSDT ")
    desk.clock.advance(timedelta(days=3))
    settle_funds(desk.engine, desk.box, desk.clock.now())
    sync_statements(desk.database, desk.product)
    desk.want("withdrawal", "inv-ana", "200")
    sync_statements(desk.database, desk.product)
    for each in read_accounts(desk.database):
        rows = kept_transactions(desk.database, each["id"])
        assert rows[: len(seen.get(each["id"], []))] == seen.get(each["id"], [])
        assert all(a.balance_after == b.balance_before for a, b in itertools.pairwise(rows))
        worth = sum((lot.units for lot in desk.fund.lots(each["id"])), Decimal(0)) * desk.fund.nav
        assert abs(each["balance"] - worth) <= Decimal("0.02")
    days = kept_snapshots(desk.database, "inv-ana")
    assert [day.total_trades for day in days] == [2, 0, 0] and days[0].winning_trades == 1
    assert all(a.closing_balance == b.opening_balance for a, b in itertools.pairwise(days))
    assert statement_faults(desk.database, desk.product) == []
    with writing(desk.database) as connection:
        connection.execute(tables.account_transactions.update().values(description="x"))
    assert any("row 1" in said for said in statement_faults(desk.database, desk.product))


# --- faults ---


class Crash(BaseException):
    """The process ends."""


@pytest.mark.parametrize("calls", [1, 3, 6, 9, 12])
def test_a_month_end_that_is_cut_off_leaves_nothing_and_is_done_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, calls: int
):
    for name in ("inv-ana", "inv-ben"):
        desk.want("deposit", name, "1000")
    desk.trade(130)
    asked = desk.ask("deposit", "inv-eva", "500")
    desk.clock.advance(timedelta(days=3))
    before, left = desk.fund.ledger.balances(), calls
    write = RowWriter._run

    def cut(self: RowWriter, *arguments: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Crash
        write(self, *arguments)

    monkeypatch.setattr(RowWriter, "_run", cut)
    with suppress(Crash):
        settle_funds(desk.engine, desk.box, desk.clock.now())
    monkeypatch.undo()
    desk.open()
    if desk.fund.event("month:2024-01") is None:
        assert desk.fund.ledger.balances() == before, "all of it or nothing"
    for _ in range(2):
        settle_funds(desk.engine, desk.box, desk.clock.now())
    desk.holds()
    fees = {name: desk.fund.ledger.balance(desk.fund.paths.paid_fees(name), "USDT") for name in ("inv-ana", "inv-ben")}
    assert len({*fees.values()}) == 1 and fees["inv-ana"] > 0
    assert desk.fund.ledger.balance(desk.fund.paths.paid_fees("inv-eva"), "USDT") == 0, "wholly after"
    assert desk.box.find(asked).answer["status"] == "done"
    assert [e.kind for e in events_since(desk.database, desk.product.id, 0)].count("month") == 1


SYNC = """
import sys
from orbiquant.persistence import engine, writing
from orbiquant.trading.products import Product
from orbiquant.trading.statements import sync_statements
made, product = engine(sys.argv[1]), Product.model_validate_json(sys.argv[2])
print(sum(sync_statements(made, product) for _ in range(5)))
"""


def test_processes_that_sync_at_once_keep_everything_once(desk: Desk):
    for name in ("inv-ana", "inv-ben"):
        enter_account(desk.database, name, name, desk.product, desk.clock.now())
        desk.want("deposit", name, "1000")
    desk.trade(130)
    desk.clock.advance(timedelta(days=40))
    settle_funds(desk.engine, desk.box, desk.clock.now())
    url = desk.database.url.set(drivername=desk.database.dialect.name).render_as_string(hide_password=False)
    words = [sys.executable, "-c", SYNC, url, desk.product.model_dump_json()]
    crowd = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    counts = [int(process.communicate(timeout=120)[0]) for process in crowd]
    kept = sum(len(rows) for rows in rows_of(desk.database)[1:])
    assert sum(counts) == kept > 0 and statement_faults(desk.database, desk.product) == []


# --- all of it, in any order ---

PEOPLE = ("inv-ana", "inv-ben", "inv-eva")


class Pool(RuleBasedStateMachine):
    """The same steps on both databases; what must hold is asked of each after every step."""

    begun: Callable[[], tuple[Engine, ...]]  # of a subclass: the databases of a story
    folder: Path

    @initialize(distribution=st.sampled_from(["reinvest", "pay_out"]))
    def begin(self, distribution: str) -> None:
        self.desks = [
            Desk(each, self.folder / str(number), distribution=distribution) for number, each in enumerate(self.begun())
        ]
        for desk in self.desks:
            for name in PEOPLE:
                enter_account(desk.database, name, name, desk.product, START)
        self.price, self.count = 100.0, 0
        self.hour(0.0)

    def both(self, act: Any) -> Any:
        """Do a thing on each database and return what came of it, which is the same."""
        outcomes = [act(desk) for desk in self.desks]
        assert all(outcome == outcomes[0] for outcome in outcomes), outcomes
        return outcomes[0]

    @rule(who=st.sampled_from(PEOPLE), amount=st.decimals("10", "5000", places=2))
    def deposit(self, who: str, amount: Decimal) -> None:
        self.count += 1
        key = f"d{self.count}"
        answer = self.both(lambda desk: desk.want("deposit", who, f"{amount:f}", key).answer)
        assert answer is None or Decimal(answer["units"]) * Decimal(answer["nav"]) <= amount

    @rule(who=st.sampled_from(PEOPLE), share=st.decimals("0.01", "1.2", places=2))
    def withdraw(self, who: str, share: Decimal) -> None:
        self.count += 1
        held = self.both(lambda desk: desk.fund.held(who))
        amount, key = (held * share).quantize(Decimal("0.01")), f"w{self.count}"
        if amount:
            answer = self.both(lambda desk: desk.want("withdrawal", who, f"{amount:f}", key).answer)
            assert answer is None or ("error" in answer) == (amount > held)

    @rule(who=st.sampled_from(PEOPLE))
    def leave(self, who: str) -> None:
        self.count += 1
        self.both(lambda desk: desk.want("withdrawal", who, None, f"l{self.count}").answer)

    @rule(amount=st.decimals("10", "5000", places=2))
    def in_and_out_at_one_price_never_profits(self, amount: Decimal) -> None:
        if self.both(lambda desk: bool(desk.engine.books.positions() or desk.engine.standing.sender.waiting)):
            return
        self.count += 1
        who, key = f"inv-{self.count}", f"r{self.count}"
        self.both(lambda desk: enter_account(desk.database, who, who, desk.product, desk.clock.now()))
        came = self.both(lambda desk: desk.want("deposit", who, f"{amount:f}", f"{key}i").answer)
        if "error" not in came:
            gone = self.both(lambda desk: desk.want("withdrawal", who, None, f"{key}o").answer)
            assert amount - Decimal("0.02") <= Decimal(gone["amount"]) <= amount

    @rule(move=st.floats(-0.06, 0.06), buys=st.booleans())
    def hour(self, move: float, buys: bool = False) -> None:
        before, after = self.price, round(self.price * (1 + move), 2)
        for desk in self.desks:
            desk.feed.next = {}
            if buys:
                levels = (after, round(after * 0.9, 2), round(after * 1.08, 2))
                desk.feed.say(**dict(zip(("entry_price", "stop_loss", "take_profit"), levels, strict=True)))
            desk.hour(before, max(before, after), min(before, after), after)
        self.price = after

    @rule(days=st.integers(1, 40))
    def pass_days(self, days: int) -> None:
        """Let the machine be off for days, and be woken by a bar."""
        lots = {lot.key: (lot.mark, lot.units) for lot in self.desks[0].fund.lots()}
        before, quiet = self.desks[0].fund.last(), not self.desks[0].box.waiting(VENUE)
        for desk in self.desks:
            desk.clock.advance(timedelta(days=days))
        self.hour(0.0)
        desk = self.desks[0]
        months = [
            e for e in events_since(desk.database, desk.product.id, before.number if before else 0) if e.kind == "month"
        ]
        if months and quiet:  # nothing else moved units before the first of them
            self.judge_fees(months[0], lots)

    def judge_fees(self, month: Any, lots: dict[tuple[str, int], tuple[Decimal, Decimal]]) -> None:
        """Compare a month's fees with fractions."""
        desk, product = self.desks[0], self.desks[0].product
        for name in {account for account, _ in lots} - {product.operator}:
            booked = desk.fund.ledger.find(f"{month.name}:fee:{name}")
            paid = (
                sum((p.amount for p in booked.entry.postings if p.account.startswith("Expenses")), Decimal(0))
                if booked
                else 0
            )
            must = Fraction(0)
            for (account, _), (mark, units) in lots.items():
                if account == name and month.nav > mark:
                    exact = Fraction(product.performance_fee) * (Fraction(month.nav) - Fraction(mark)) * Fraction(units)
                    must += Fraction(int(exact * 100), 100)
            assert Fraction(paid) == must, (name, paid, must)

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        self.desks[which].open()

    @rule()
    def another_process_takes_over_and_finds_nothing_to_do(self) -> None:
        for desk in self.desks:
            first, last = desk.engine, desk.fund.ledger.last_id()
            desk.open()
            settle_funds(desk.engine, desk.box, desk.clock.now())
            assert desk.engine is not first and desk.fund.ledger.last_id() == last

    @rule()
    def sync(self) -> None:
        self.both(lambda desk: sync_statements(desk.database, desk.product))
        assert self.both(lambda desk: sync_statements(desk.database, desk.product)) == 0

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "desks"):
            return
        for desk in self.desks:
            desk.holds()
            assert statement_faults(desk.database, desk.product) == []
        self.both(lambda desk: desk.fund.lots())
        self.both(lambda desk: desk.fund.ledger.balances())
        self.both(lambda desk: events_since(desk.database, desk.product.id, 0))
        self.both(
            lambda desk: [statement_of(desk.database, desk.product, each) for each in read_accounts(desk.database)]
        )
        self.both(lambda desk: rows_of(desk.database))


def rows_of(database: Engine) -> list[Any]:
    """Return what is kept of statements."""
    with querying(database) as connection:
        return [
            [*map(tuple, connection.execute(select(table).order_by(*table.primary_key)))]
            for table in (tables.accounts, tables.account_transactions, tables.performance_snapshots)
        ]


def test_any_order_of_steps_comes_to_the_same_on_both_databases(tmp_path: Path, server: Engine):
    template, files = engine(f"sqlite:///{tmp_path / 'template.db'}"), list[Engine]()
    migrate(template)
    template.dispose()

    class Begun(Pool):
        folder = tmp_path

        def begun(self) -> tuple[Engine, ...]:
            file = tmp_path / f"{len(files)}.db"
            shutil.copyfile(tmp_path / "template.db", file)
            files.append(engine(f"sqlite:///{file}"))
            forget(server)
            return files[-1], server

        def teardown(self) -> None:
            if files:
                files[-1].dispose()

    run_state_machine_as_test(
        Begun,
        settings=settings(
            max_examples=6, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
