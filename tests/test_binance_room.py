"""The whole way in: settings, account, room, engine, and what a person types."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal as D
from pathlib import Path
from threading import Event, Thread
from threading import enumerate as enumerate_threads
from time import monotonic, sleep
from typing import Any

import pandas as pd
import pytest
import test_cli
from test_cli import Ask

from orbiquant.core import ConflictError, FixedClock, configure_logging
from orbiquant.desk import series as desk_series
from orbiquant.domain import SeriesId
from orbiquant.market.synthetic import synthetic_market
from orbiquant.research.accounts import account_faults, find_account, open_account, withdraw_money
from orbiquant.research.room import TradingRoom, Turn, adopt_account, start_agent
from orbiquant.research.staying import stay
from orbiquant.runtime import Runtime, using
from orbiquant.settings import load_settings
from orbiquant.trading.agents import Roster
from orbiquant.trading.decisions import Reply
from orbiquant.trading.replay import TableFeed
from tests.fake_binance.routes import REST
from tests.fake_binance.running import RunningBinance, running_binance
from tests.tools.binance_desk import wait_until
from tests.tools.desk import random_signals

ask = test_cli.ask  # the fixture
BTCUSDT, HOUR = SeriesId.parse("BTCUSDT", "1h"), timedelta(hours=1)


@pytest.fixture(scope="module")
def venue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBinance]:
    with running_binance(tmp_path_factory.mktemp("binance")) as running:
        yield running


class Desk:
    """Atlas at the fake venue as the settings compose it, on bars that close when a test says so."""

    def __init__(self, folder: Path, venue: RunningBinance, count: int = 310, ahead: int = 10) -> None:
        places = {"store_uri": f"{folder}/store", "models_dir": f"{folder}/models", "data_dir": str(folder)}
        own: dict[str, Any] = {"pairs": "BTCUSDT", "policy": "base", "min_reward_to_risk": 1, "min_confidence": 0.6}
        own |= {"strategies": "ml", "broker": "binance"}
        keys = {"api_key": venue.key, "api_secret": venue.secret, "rest_url": f"{venue.url}/api/v3"}
        keys |= {"stream_url": f"{venue.ws_url}/ws-api/v3", "environment": "testnet"}
        keys |= {"market_url": f"{venue.ws_url}/ws"}
        database = {"database_url": f"sqlite:///{folder}/o.db"}
        bars_from = {"exchange_urls": f"binance={venue.url}"}
        settings = load_settings(workspace=places | database, atlas=own, binance=keys, providers=bars_from)
        bars = synthetic_market(count, "1h", seed=3).bars
        bars[["open", "high", "low", "close"]] = (bars[["open", "high", "low", "close"]] * 40_000).round(2)
        end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - 3 * HOUR
        bars.index = pd.date_range(end=end, periods=count, freq="h", name=bars.index.name).as_unit(bars.index.unit)
        self.bars, self.venue, self.at = bars, venue, count - ahead
        self.clock = FixedClock((bars.index[self.at - 1] + HOUR + timedelta(seconds=3)).to_pydatetime())
        self.runtime = Runtime(settings, self.clock)
        self.runtime.store.upsert(BTCUSDT, bars.iloc[: self.at])
        self.room = TradingRoom(self.runtime, desk_series.live_of(self.runtime))
        self.speak()

    def speak(self) -> None:
        """Let the feed say something at every bar."""
        table = TableFeed({BTCUSDT: random_signals(self.bars, 3, share=1.0, stop=0.01)}, FixedClock(self.clock.now()))

        class Feed:
            moment = None

            def latest(self, series: SeriesId) -> Any:
                table.clock = FixedClock(self.moment)
                return table.latest(series)

            def atr(self, series: SeriesId) -> float | None:
                return None

        self.room.feeds["ml"] = Feed()

    def rows(self, begin: int, end: int, minute: int = 0) -> list[list[Any]]:
        """Return bars as the venue is told them, each as one minute of its hour."""
        prices = self.bars.iloc[begin:end][["open", "high", "low", "close"]]
        return [[int(time.timestamp() * 1000) + minute * 60_000, *row, 1]
                for time, *row in prices.itertuples()]  # fmt: skip

    def close_there(self) -> None:
        """Let a bar close at the venue only."""
        with self.room._lock:  # no hour passes in the middle of a look
            self.clock.advance(HOUR)
        self.at += 1
        self.venue.control("bars", symbol="BTCUSDT", bars=self.rows(self.at - 1, self.at, 59))

    def close(self) -> None:
        """Let a bar close, at the venue too."""
        self.venue.price("BTCUSDT", round(float(self.bars["close"].iloc[self.at]), 2))
        self.runtime.store.upsert(BTCUSDT, self.bars.iloc[self.at : self.at + 1])
        self.at += 1
        self.clock.advance(HOUR)


@pytest.fixture
def desk(tmp_path: Path, venue: RunningBinance) -> Iterator[Desk]:
    configure_logging("ERROR")
    venue.control("reset")
    made = Desk(tmp_path, venue)
    start_agent(made.room, "atlas", "binance-usdt", None, "a person")
    yield made
    made.room.engine_of("binance-usdt").broker.close()
    made.runtime.engine.dispose()


def test_an_agent_of_the_settings_trades_at_the_venue(desk: Desk):
    engine = desk.room.engine_of("binance-usdt")
    for _ in range(8):
        desk.close()
        assert not desk.room.turn("binance-usdt").said
        engine.broker.woken.set()
        assert not desk.room.turn("binance-usdt").said
    outcomes = [each.outcome for each in engine.journal.last("atlas")]
    assert {*outcomes} & {Reply.TAKEN, Reply.RESIZED}, [each.reason for each in engine.journal.last("atlas")]
    assert not engine.watch.differences() and engine.books.ledger.check() == []
    held = engine.books.positions("atlas")
    assert held or engine.books.trades("atlas")
    told = desk.venue.control("state")["accounts"][desk.venue.key]["open"]
    assert len(told) == 2 * len(held)


def test_missed_bars_spend_no_minute_s_requests(tmp_path: Path, venue: RunningBinance):
    configure_logging("CRITICAL")
    venue.control("reset")
    desk = Desk(tmp_path, venue, 330, 40)
    start_agent(desk.room, "atlas", "binance-usdt", None, "a person")
    for _ in range(30):
        desk.close()
    before = len(venue.log())
    assert desk.room.turn("binance-usdt").bars == 30
    heard = [each for each in venue.log()[before:] if each["kind"] == "heard"]
    weight = sum(REST[each["method"], each["path"].removeprefix("/api/v3/")].weight for each in heard)
    assert weight < 600, "of 6,000 a minute: what nobody can trade on any more asks for nothing"
    engine = desk.room.engine_of("binance-usdt")
    said = [each.reason for each in engine.journal.last("atlas", 30)]
    assert sum(each.startswith("stale: the decision of") for each in said) > 15
    assert not engine.watch.differences() and engine.books.ledger.check() == []
    engine.broker.close()
    desk.runtime.engine.dispose()


def test_a_venue_that_is_not_there_is_said_and_traded_again_when_it_is(desk: Desk):
    engine = desk.room.engine_of("binance-usdt")
    desk.venue.control("fault", kind="html", count=None)
    engine.broker.woken.set()
    desk.close()
    said = desk.room.looks()[0].said
    assert said.startswith("nothing is traded until this works again: Binance does not answer")
    desk.venue.control("faults/clear")
    assert not desk.room.looks()[0].said


def test_an_account_without_keys_stops_no_other(desk: Desk):
    desk.room.box.put("start:mt4", "mt4-usd", "start", {"agent": "orion", "amount": None}, "a person")
    turns = {turn.account: turn.said for turn in desk.room.looks()}
    assert turns["binance-usdt"] == "" and turns["mt4-usd"].startswith("nothing is traded until this works again: `[")


def test_a_person_adopts_and_goes_on(desk: Desk):
    desk.venue.control("account", balances={"ETH": 90})
    engine = desk.room.engine_of("binance-usdt")
    for _ in range(2):
        engine.broker.woken.set()
        desk.room.turn("binance-usdt")
    record = next(each for each in Roster(desk.runtime.engine, desk.clock).all() if each.name == "atlas")
    assert record.state == "halted" and "ETH beyond all books" in record.reason
    told = adopt_account(desk.room, "binance-usdt", "a person").answer
    assert told == {"adopted": {"ETH": "-10"}} or told == {"adopted": {"ETH": "-10.00000000"}}


def test_investors_money_waits_for_the_venue_and_stays_until_it_is_taken_out(tmp_path: Path, venue: RunningBinance):
    configure_logging("ERROR")
    venue.control("reset")
    venue.control("account", balances={"USDT": 10_500})
    desk = Desk(tmp_path, venue)
    desk.room.feeds["ml"].latest = lambda series: None
    room, engine = desk.room, desk.room.engine_of("binance-usdt")

    def turn() -> None:
        desk.close()
        for _ in range(2):
            engine.broker.woken.set()
            assert not room.turn("binance-usdt").said

    def state() -> str:
        return str(Roster(desk.runtime.engine, desk.clock).find("atlas").state)

    with pytest.raises(ConflictError, match="at most the 10500"):
        start_agent(room, "atlas", "binance-usdt", D(10_501), "a person")
    start_agent(room, "atlas", "binance-usdt", D(10_000), "a person")
    ana = open_account(room, "ana", "atlas-conservative", D(1000), "ana").id
    turn()
    shown = find_account(desk.runtime, ana)
    assert (shown.pending_balance, shown.units) == (1000, 0), "only 500 are there that no agent has"
    venue.control("account", balances={"USDT": 11_500})
    turn()
    shown = find_account(desk.runtime, ana)
    assert (shown.pending_balance, shown.units) == (0, 1000) and engine.watch.differences() == {}
    assert engine.books.cash_of("external", "USDT") == 500 and state() == "running"

    assert withdraw_money(room, ana, D(400), "ana").status == "done"
    turn()
    assert engine.books.cash_of("external", "USDT") == 900 and engine.watch.differences() == {}, "paid out, still there"
    venue.control("account", balances={"USDT": 11_100})
    turn()
    assert engine.watch.differences() == {"USDT": -400} and state() == "running", "taken out: named, and nobody halts"
    assert not engine.watch.doubtful, "what is confirmed is not looked at every second"
    assert adopt_account(room, "binance-usdt", "a person").answer == {"adopted": {"USDT": "-400.00000000"}}
    assert engine.books.cash_of("external", "USDT") == 500 and engine.watch.differences() == {}
    venue.control("account", balances={"USDT": 10_000})
    turn()
    assert state() == "halted", "that was an agent's"
    assert engine.books.ledger.check() == [] and account_faults(desk.runtime) == []
    engine.broker.close()
    desk.runtime.engine.dispose()


def test_an_order_of_a_stranger_is_cancelled_by_a_person_before_anything_is_taken(desk: Desk):
    engine = desk.room.engine_of("binance-usdt")
    engine.broker.transport.send(
        "privatePostOrder",
        {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01",
         "price": "30000", "newClientOrderId": "web_17"},
    )  # fmt: skip
    with pytest.raises(ConflictError, match="cancel web_17 on BTCUSDT there first"):
        adopt_account(desk.room, "binance-usdt", "a person")
    engine.broker.cancel("BTCUSDT", "web_17")
    desk.clock.advance(timedelta(seconds=1))
    assert adopt_account(desk.room, "binance-usdt", "a person").answer == {"adopted": {}}


def elsewhere(desk: Desk, **changes: dict[str, Any]) -> Runtime:
    """Return the desk with other settings, on the same database."""
    kept = desk.runtime.settings
    same = {
        name: getattr(kept, name).model_dump() | changes.get(name, {}) for name in ("workspace", "atlas", "binance")
    }
    return Runtime(load_settings(**same, trading=changes.get("trading", {})), desk.clock)


def room_at(runtime: Runtime, feeds: dict[str, Any]) -> TradingRoom:
    """Return a process' room."""
    room = TradingRoom(runtime, desk_series.live_of(runtime))
    room.feeds |= feeds
    return room


def test_books_of_a_play_are_not_carried_on_with_money(desk: Desk):
    assert not desk.room.turn("binance-usdt").said
    money = elsewhere(desk, binance={"environment": "mainnet"}, atlas={"live": True}, trading={"live": True})
    room = room_at(money, desk.room.feeds)
    (looked,) = room.looks()
    assert "open at testnet" in looked.said and "other money has other books" in looked.said
    record = next(each for each in Roster(money.engine, desk.clock).all() if each.name == "atlas")
    assert record.state == "halted" and not desk.venue.control("state")["accounts"][desk.venue.key]["open"]
    room.engine_of("binance-usdt").broker.close()
    money.engine.dispose()


def test_an_agent_at_a_venue_is_locked_by_what_its_settings_say_of_another(desk: Desk):
    paper = elsewhere(desk, atlas={"broker": "paper"})
    room = room_at(paper, desk.room.feeds)
    with pytest.raises(ConflictError, match="its books are at binance-usdt and stay there"):
        start_agent(room, "atlas", "paper-usdt", None, "a person")
    given = {"agent": "atlas", "symbol": "BTCUSDT", "timeframe": "1h", "action": "LONG", "confidence": 0.9,
             "price": float(desk.bars["close"].iloc[desk.at]), "time": desk.clock.now().isoformat()}  # fmt: skip
    desk.close()
    room.box.put("signal:1", "binance-usdt", "signal", given | {"time": desk.clock.now().isoformat()}, "webhook")
    room.turn("binance-usdt")
    engine = room.engine_of("binance-usdt")
    assert engine.standing.locked["atlas"].startswith("`[atlas] broker` is paper")
    assert not engine.sender.waiting and not engine.books.positions("atlas")
    engine.broker.close()
    paper.engine.dispose()


@contextmanager
def staying(desk: Desk, poll_s: float = 30.0) -> Iterator[list[Turn]]:
    """Let a process stay at the accounts, and yield what it tells."""
    told, stop = list[Turn](), Event()
    desk.venue.control("history", symbol="BTCUSDT", bars=desk.rows(0, desk.at))
    thread = Thread(target=stay, args=(desk.room, stop, told.append, poll_s))
    thread.start()
    feed = desk.room.engine_of("binance-usdt").broker.feed
    try:
        assert wait_until(lambda: feed.connected_since is not None, 10)
        sleep(0.3)
        yield told
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive() and {each.name for each in enumerate_threads()}.isdisjoint({"bars"})


def test_a_close_on_the_stream_is_decided_on_without_another_program(desk: Desk):
    journal = desk.room.engine_of("binance-usdt").journal
    with staying(desk) as told:
        for count in (1, 2):
            before, begin = len(journal.last("atlas")), monotonic()
            desk.close_there()
            assert wait_until(lambda: len(journal.last("atlas")) > before, 20), told  # noqa: B023 - of this bar
            print(f"decided {monotonic() - begin:.2f} s after the close")
            assert wait_until(lambda: sum(turn.bars for turn in told) == count), told  # noqa: B023
        assert len(desk.runtime.store.read(BTCUSDT)) == desk.at, "what is stored is what the source answers"
        assert not any(turn.noted for turn in told), told
    answered = journal.last("atlas")[0]
    assert answered.outcome is not Reply.DENIED, answered.reason


@pytest.mark.slow
def test_prices_that_stop_are_said_beside_what_is_done_and_bars_come_all_the_same(desk: Desk):
    broker = desk.room.engine_of("binance-usdt").broker
    broker.feed.silent_s = 1.0
    journal = desk.room.engine_of("binance-usdt").journal
    with staying(desk, 0.5) as told:
        desk.close_there()
        assert wait_until(lambda: bool(journal.last("atlas")), 20)
        resting = desk.venue.control("state")["accounts"][desk.venue.key]["open"]
        desk.venue.control("mute")
        desk.close_there()
        assert wait_until(lambda: any("the stream of BTCUSDT has stopped" in turn.told for turn in told), 40)
        assert wait_until(lambda: len(desk.runtime.store.read(BTCUSDT)) == desk.at, 20), "it reconnects, which wakes"
        assert len(desk.venue.control("state")["accounts"][desk.venue.key]["open"]) >= len(resting)
        desk.venue.control("mute", on=False)

        def speaks_again() -> bool:
            desk.venue.control("bars", symbol="BTCUSDT", bars=desk.rows(desk.at - 1, desk.at, 59))
            return not broker.feed.fault

        assert wait_until(speaks_again, 60) and wait_until(lambda: told[-1].noted == "")


def test_what_is_typed(ask: Ask):
    money: dict[str, Any] = {"binance": {"environment": "mainnet"}, "atlas": {"broker": "binance"}}
    with using(Runtime(load_settings(**money))):
        refused = ask("agent", "start", "atlas")
    assert refused.code == 1 and "[trading] live" in refused.err and "trade live atlas" in refused.err
    money |= {"trading": {"live": "on"}, "atlas": {"broker": "binance", "live": "on"}}
    with using(Runtime(load_settings(**money))):
        refused = ask("agent", "start", "atlas")
        assert refused.code == 1 and "must be typed" in refused.err and "must be on" not in refused.err
        allowed = ask("agent", "start", "atlas", "--confirm", "trade live atlas")
        assert allowed.code == 1 and "BINANCE_API_KEY" in allowed.err, "the word is given; keys are the next thing"
        assert "binance-usdt" in ask("agent", "status", "atlas").out
    told = ask("agent", "adopt", "paper-usdt")
    assert told.code == 1 and "is on paper" in told.err
