"""Killed at any instant while it trades at the venue: nothing is lost or doubled, what is held is protected."""

import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from time import sleep

import pytest
from sqlalchemy import func, select

from orbiquant.core import BrokerError
from orbiquant.persistence import querying
from orbiquant.trading import tables
from orbiquant.trading.brokers.binance import transport
from tests.fake_binance.running import RunningBinance, running_binance
from tests.test_binance_chaos import orders_by_id, settled
from tests.tools.binance_desk import BinanceDesk, wait_until

BEGIN = datetime.now(UTC) - timedelta(days=300)


@pytest.fixture(scope="module")
def venue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBinance]:
    with running_binance(tmp_path_factory.mktemp("binance")) as running:
        yield running


def take_up(venue: RunningBinance, folder: Path) -> BinanceDesk:
    """Open the account where an earlier life left it."""
    desk = BinanceDesk(venue, folder, start=BEGIN)
    desk.broker.settled_s = 0.3  # lives are shorter than 16 s, and at this venue nothing is on its way for long
    desk.clock.advance(max([*desk.engine.standing.seen.values(), BEGIN]) - desk.clock.now())
    return desk


def live(venue: RunningBinance, folder: Path, seed: int) -> None:
    """Trade until killed."""
    desk, chance = take_up(venue, folder), Random(seed)
    while True:
        price = round(60_000 * (1 + chance.gauss(0, 0.008)), 2)
        desk.feed.say(chance.choice(["LONG", "LONG", "SHORT"]), price)
        with suppress(BrokerError):
            venue.price("BTCUSDT", price)
            desk.hour(price)
            desk.look()


@pytest.mark.parametrize("kills", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_while_it_trades(venue: RunningBinance, tmp_path: Path, kills: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transport, "MOST_WEIGHT", 10**9)  # an hour takes a second here
    venue.control("reset")
    venue.control("limits", weight_limit=10**9, orders_limit=10**6)
    chance = Random(kills)
    take_up(venue, tmp_path).close()  # what every life would load first
    for number in range(kills):
        child = os.fork()
        if not child:
            try:
                live(venue, tmp_path, number)
            finally:
                traceback.print_exc()
                os._exit(1)  # only a kill ends it otherwise
        sleep(chance.uniform(0.6, 2.4))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, "it ended by itself"
    desk = take_up(venue, tmp_path)
    desk.broker.woken.set()
    assert wait_until(lambda: settled(desk), 20)
    counts, records = orders_by_id(venue), venue.log()
    begin = max(at for at, record in enumerate(records) if record.get("deed") == "reset")
    traded = sum(record["kind"] == "trade" for record in records[begin:])
    with querying(desk.database) as connection:
        booked = connection.scalar(select(func.count()).select_from(tables.fills))
    print(f"{kills} kills, {len(counts)} orders, {traded} trades, {len(desk.engine.books.trades())} positions closed")
    assert set(counts.values()) <= {1} and traded == booked and desk.agrees()
    assert desk.record().state == "running", desk.record().reason
    assert len(desk.resting()) == 2 * len(desk.engine.books.positions())
    desk.close()
