"""What every `Broker` promises, whatever its venue is."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from orbiquant.core import BrokerRejected
from orbiquant.orders import Bracket, Order, OrderRole, OrderState
from orbiquant.ports import Broker

Move = Callable[..., None]


def order(id_: str, side: str = "BUY", quantity: Any = 1, **more: Any) -> Order:
    """Return an order for Bitcoin."""
    return Order(**{"client_order_id": id_, "symbol": "BTCUSDT", "side": side, "quantity": quantity} | more)


class BrokerContract:
    """
    Subclasses give two fixtures.

    `broker` holds 1,000,000 of its currency and nothing else, on a market that stands at 100; `move(low, high, close)`
    lets the market trade from where it stands over both prices to the close. What venues differ in is said beside them.
    """

    at_once = False  # an order at the market is filled before `submit` returns
    shorts = False  # what is not held can be sold
    cent = Decimal(0)  # that the venue may be off by: it rounds what a close has made

    def cash(self, broker: Broker) -> Decimal:
        """Return what is left when all that is held was paid."""
        return broker.account().balance

    def test_it_is_a_broker(self, broker: Broker):
        assert isinstance(broker, Broker)
        assert broker.capabilities("BTCUSDT").short is self.shorts
        assert broker.positions() == broker.open_orders() == []
        assert broker.account().equity == broker.account().balance == 1_000_000

    def test_an_order_is_filled_and_told_of(self, broker: Broker, move: Move):
        assert broker.submit(order("a-ent")).state is (OrderState.FILLED if self.at_once else OrderState.SUBMITTED)
        assert [each.client_order_id for each in broker.open_orders()] == ([] if self.at_once else ["a-ent"])
        move(99, 101, 100)
        status, (fill,) = broker.order("BTCUSDT", "a-ent"), broker.fills("BTCUSDT")
        assert (status.state, status.filled_quantity, status.average_price) == (OrderState.FILLED, 1, fill.price)
        assert (fill.client_order_id, fill.side, fill.quantity, fill.role) == ("a-ent", "BUY", 1, OrderRole.ENTRY)
        assert not broker.open_orders()

    def test_money_and_coins_follow_from_the_fills_to_the_last_digit(self, broker: Broker, move: Move):
        broker.submit(order("a-ent", quantity="1.00001"))
        move(99, 101, 100)
        broker.submit(order("b-clo", "SELL", "0.33333", reduce_only=True, role="close"))
        move(98, 102, 99)
        cash = Decimal(1_000_000)
        for fill in broker.fills("BTCUSDT"):
            assert fill.fee_asset == "USDT"
            cash -= fill.side.sign * fill.price * fill.quantity + fill.fee
        assert abs(self.cash(broker) - cash) <= self.cent
        assert abs(broker.account().equity - cash - Decimal("0.66668") * 99) <= self.cent

    def test_sending_twice_buys_once(self, broker: Broker, move: Move):
        first = broker.submit(order("a-ent"))
        assert broker.submit(order("a-ent")) == first and len(broker.open_orders()) == (not self.at_once)
        move(99, 101, 100)
        assert broker.submit(order("a-ent")).state is OrderState.FILLED
        move(99, 101, 100)
        assert len(broker.fills("BTCUSDT")) == 1

    def test_an_unknown_order_is_none(self, broker: Broker):
        assert broker.order("BTCUSDT", "never-ent") is None
        with pytest.raises(BrokerRejected):
            broker.cancel("BTCUSDT", "never-ent")

    def test_what_is_cancelled_is_filled_no_more(self, broker: Broker, move: Move):
        broker.submit(order("a-ent", type="limit", limit_price=90))
        assert broker.cancel("BTCUSDT", "a-ent").state is OrderState.CANCELLED
        assert broker.cancel("BTCUSDT", "a-ent").state is OrderState.CANCELLED, "cancelled twice is cancelled"
        move(80, 101, 100)
        assert broker.fills("BTCUSDT") == [] and broker.order("BTCUSDT", "a-ent").state is OrderState.CANCELLED

    def test_a_limit_waits_for_its_price(self, broker: Broker, move: Move):
        broker.submit(order("a-ent", type="limit", limit_price=90))
        move(91, 101, 95)
        assert broker.fills("BTCUSDT") == []
        move(89, 101, 95)
        assert [fill.price for fill in broker.fills("BTCUSDT")] == [90]

    def test_a_stop_waits_for_its_price(self, broker: Broker, move: Move):
        broker.submit(order("a-ent", type="stop", trigger_price=110))
        move(91, 109, 105)
        assert broker.fills("BTCUSDT") == []
        move(100, 111, 110)
        assert [fill.price >= 110 for fill in broker.fills("BTCUSDT")] == [True]

    @pytest.mark.parametrize(("low", "high", "role"), [(89, 101, OrderRole.STOP), (99, 121, OrderRole.TARGET)])
    def test_a_bracket_protects_by_itself(self, broker: Broker, move: Move, low: float, high: float, role: OrderRole):
        broker.submit(order("a-ent", bracket=Bracket(stop_loss=90, take_profit=120)))
        move(99, 101, 100)
        (position,) = broker.positions()
        assert (position.quantity, position.bracket.stop_loss) == (1, 90)
        move(low, high, 100)
        assert [fill.role for fill in broker.fills("BTCUSDT")] == [OrderRole.ENTRY, role]
        assert broker.positions() == broker.open_orders() == []

    def test_a_bracket_is_replaced_with_no_moment_between(self, broker: Broker, move: Move):
        broker.submit(order("a-ent", bracket=Bracket(stop_loss=90)))
        move(99, 101, 100)
        broker.amend("BTCUSDT", "a-ent", Bracket(stop_loss=95))
        assert broker.positions()[0].bracket.stop_loss == 95
        move(94, 101, 96)
        assert broker.fills("BTCUSDT")[-1].role is OrderRole.STOP
        with pytest.raises(BrokerRejected):
            broker.amend("BTCUSDT", "a-ent", Bracket(stop_loss=95))

    def test_what_only_reduces_never_opens(self, broker: Broker, move: Move):
        with pytest.raises(BrokerRejected, match="nothing of BTCUSDT"):
            broker.submit(order("a-clo", "SELL", reduce_only=True))
        broker.submit(order("b-ent"))
        move(99, 101, 100)
        broker.submit(order("b-clo", "SELL", 5, reduce_only=True))
        move(99, 101, 100)
        assert broker.fills("BTCUSDT")[-1].quantity == 1 and not broker.open_orders()
        assert not any(position.quantity for position in broker.positions())

    def test_a_close_takes_the_bracket_with_it(self, broker: Broker, move: Move):
        broker.submit(order("a-ent", bracket=Bracket(stop_loss=90)))
        move(99, 101, 100)
        broker.submit(order("a-clo", "SELL", reduce_only=True, role="close", group="a-ent"))
        move(80, 101, 100)
        assert [fill.role for fill in broker.fills("BTCUSDT")] == [OrderRole.ENTRY, OrderRole.CLOSE]
        assert broker.positions() == []

    @pytest.mark.parametrize("change", [{"side": "SELL"}, {"quantity": "0.000001"}, {"symbol": "NOSUCHCOIN"}])
    def test_what_cannot_be_is_rejected_and_leaves_nothing(self, broker: Broker, change: dict[str, Any]):
        if self.shorts and change == {"side": "SELL"}:
            return
        with pytest.raises(BrokerRejected):
            broker.submit(order("a-ent").model_copy(update={"quantity": Decimal(1)} | _typed(change)))
        assert broker.open_orders() == [] and broker.account().equity == 1_000_000

    def test_fills_come_in_order_behind_a_cursor(self, broker: Broker, move: Move):
        for number in range(3):
            broker.submit(order(f"{number}-ent"))
            move(99, 101, 100)
        first, second, third = broker.fills("BTCUSDT")
        assert broker.fills("BTCUSDT", first.fill_id) == [second, third]
        assert broker.fills("BTCUSDT", third.fill_id) == broker.fills("ETHUSDT") == []


def _typed(change: dict[str, Any]) -> dict[str, Any]:
    made = order("x").model_dump() | change
    if "symbol" in change:
        return change
    return {name: getattr(Order.model_validate(made), name) for name in change}
