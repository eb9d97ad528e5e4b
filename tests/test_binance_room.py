"""The whole way in: settings, account, room, engine, and what a person types."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from threading import enumerate as enumerate_threads
from time import monotonic, sleep
from typing import Any

import pandas as pd
import pytest
import test_cli
from test_cli import Ask

from orbiquant.core import FixedClock, configure_logging
from orbiquant.desk import series as desk_series
from orbiquant.domain import SeriesId
from orbiquant.market.synthetic import synthetic_market
from orbiquant.research.room import TradingRoom, Turn, adopt_account, start_agent
from orbiquant.research.staying import stay
from orbiquant.runtime import Runtime, using
from orbiquant.settings import load_settings
from orbiquant.trading.agents import Roster
from orbiquant.trading.decisions import Reply
from orbiquant.trading.replay import TableFeed
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

    def __init__(self, folder: Path, venue: RunningBinance, count: int = 310) -> None:
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
        self.bars, self.venue, self.at = bars, venue, count - 10
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


def test_a_venue_that_is_not_there_is_said_and_traded_again_when_it_is(desk: Desk):
    engine = desk.room.engine_of("binance-usdt")
    desk.venue.control("fault", kind="html", count=None)
    engine.broker.woken.set()
    desk.close()
    said = desk.room.looks()[0].said
    assert said.startswith("nothing is traded until this works again: Binance does not answer")
    desk.venue.control("faults/clear")
    assert not desk.room.looks()[0].said


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
