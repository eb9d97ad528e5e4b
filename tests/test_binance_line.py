"""From a signal to the venue and back: an entry, its protection, what it comes to in the books."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from orbiquant.orders import OrderRole
from tests.fake_binance.running import RunningBinance, running_binance
from tests.tools.binance_desk import BinanceDesk, wait_until

D = Decimal


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBinance]:
    with running_binance(tmp_path_factory.mktemp("binance")) as venue:
        yield venue


@pytest.fixture
def venue(running: RunningBinance) -> RunningBinance:
    running.control("reset")
    running.control("faults/clear")
    return running


@pytest.fixture
def desk(venue: RunningBinance, tmp_path: Path) -> Iterator[BinanceDesk]:
    made = BinanceDesk(venue, tmp_path)
    yield made
    made.close()


def test_a_signal_becomes_a_protected_position_and_its_target_is_booked(desk: BinanceDesk):
    desk.enter()
    assert desk.answers()[-1][0] in ("taken", "resized"), desk.answers()
    held = desk.engine.books.positions("nova")[0]
    legs = {each["type"]: each for each in desk.resting()}
    assert set(legs) == {"LIMIT_MAKER", "STOP_LOSS"}
    assert D(legs["STOP_LOSS"]["stopPrice"]) == 59_400 and D(legs["LIMIT_MAKER"]["price"]) == 61_200
    assert D(legs["STOP_LOSS"]["origQty"]) == held.quantity.quantize(D("0.00001"), "ROUND_DOWN")
    assert held.quantity < held.opened_quantity * D("1.0001") and desk.agrees()
    desk.venue.price("BTCUSDT", 61_300)
    assert wait_until(desk.broker.due)
    desk.look()
    trade = desk.engine.books.trades("nova")[0]
    assert trade.reason is OrderRole.TARGET and trade.pnl > 0 and not desk.engine.books.held and desk.agrees()
    assert not desk.resting() and [state for _, state in desk.orders()] == ["filled"]
