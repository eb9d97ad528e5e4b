"""What every broker promises, promised by MetaTrader 4, too: on a coin that a terminal quotes."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from contracts.broker import BrokerContract, order
from test_mt4 import config, terms

from orbiquant.core import SystemClock
from orbiquant.orders import Bracket
from orbiquant.ports import Broker
from orbiquant.trading.brokers.mt4.broker import Mt4Broker
from orbiquant.trading.watch import LiveVenue
from tests.fake_mt4 import FakeTerminal, fake_terminal


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeTerminal]:
    with fake_terminal(tmp_path_factory.mktemp("mt4"), "--beat-ms", 50) as running:
        yield running


class TestMetaTrader(BrokerContract):
    at_once, shorts, cent = True, True, Decimal("0.01")

    def cash(self, broker: Broker) -> Decimal:
        return broker.holdings()["USDT"]  # type: ignore[attr-defined]  # its balance is what closed positions made

    @pytest.fixture
    def broker(self, terminal: FakeTerminal, tmp_path: Path) -> Mt4Broker:
        terminal.tell("fresh")
        terminal.tell("coin", currency="USDT", balance="1000000", symbol="BTCUSDT", price="100")
        (tmp_path / "Files").symlink_to(terminal.folder)
        size = {"lot_sizes": {"BTCUSDT": "0.001"}, "most_lots": 100_000}
        return Mt4Broker(config(tmp_path, **size), SystemClock(), terms)

    @pytest.fixture
    def move(self, terminal: FakeTerminal) -> Callable[..., None]:
        def move(*prices: float) -> None:
            for price in prices:
                terminal.price(price, "BTCUSDT", price)

        return move

    def test_it_goes_on_by_itself(self, broker: Mt4Broker):
        broker.submit(order("a-ent", quantity=2))
        broker.submit(order("b-ent", "SELL", 1, bracket=Bracket(stop_loss=120)))
        assert isinstance(broker, LiveVenue) and broker.due()
        assert broker.holdings() == {"BTC": 1, "USDT": 999_900} and broker.resting() == []
        assert broker.guard("BTCUSDT", "b-ent", Decimal(1), Bracket(stop_loss=120)) == ""
        assert broker.guard("BTCUSDT", "b-ent", Decimal(1), Bracket(stop_loss=110)) == "levels put back"
