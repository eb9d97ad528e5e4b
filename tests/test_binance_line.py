"""From a signal to the venue and back: an entry, its protection, what it comes to in the books."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from orbiquant.orders import Bracket, Intent, Order, OrderRole, OrderState, intent_id
from orbiquant.trading.kills import SwitchScope
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


def heard(desk: BinanceDesk, kind: str) -> list[dict[str, Any]]:
    """Return what the venue logged of a kind since it began anew."""
    return [record for record in since_reset(desk) if record["kind"] == kind]


def since_reset(desk: BinanceDesk) -> list[dict[str, Any]]:
    """Return what the venue logged since it began anew."""
    records = desk.venue.log()
    return records[max(at for at, record in enumerate(records) if record.get("deed") == "reset") :]


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


def test_what_is_bought_and_what_is_held_differ_by_the_fee(desk: BinanceDesk):
    desk.enter()
    held = desk.engine.books.positions("nova")[0]
    bought = sum(D(each["qty"]) for each in heard(desk, "trade"))
    assert D("0.9989") * bought < held.quantity < bought and held.fees == pytest.approx(bought * 60, rel=D("0.02"))
    sold = desk.engine.consumer.close(held)
    assert desk.engine.sender.send(sold.client_order_id).value == "submitted"
    desk.look()
    trade = desk.engine.books.trades("nova")[0]
    assert trade.reason is OrderRole.CLOSE and not desk.resting() and desk.agrees()
    dust = desk.engine.books.cash_of("nova", "BTC")
    assert 0 < dust < D("0.00001"), "less than a lot stays in the book"
    lost = desk.engine.standing.equity_of("nova") - 10_000
    assert abs(lost - trade.pnl) < D("1e-12") and trade.pnl < 0, "what a trade made is what the money says"


def test_a_part_is_sold_and_the_rest_stays_protected(desk: BinanceDesk):
    desk.enter()
    held = desk.engine.books.positions("nova")[0]
    half = (held.quantity / 2).quantize(D("0.00001"))
    desk.engine.sender.send(desk.engine.consumer.close(held, quantity=half).client_order_id)
    legs = {each["type"]: D(each["origQty"]) for each in desk.resting()}
    left = (held.opened_quantity - half).quantize(D("0.00001"), "ROUND_DOWN")
    assert legs == {"LIMIT_MAKER": left, "STOP_LOSS": left}, "put back in the same call"
    desk.look()
    assert desk.engine.books.held[held.id].quantity == held.opened_quantity - half and desk.agrees()
    too_much = desk.engine.consumer.close(held, quantity=D("0.00001"))
    assert desk.engine.sender.send(too_much.client_order_id).value == "rejected", "worth too little: nothing is touched"
    assert len(desk.resting()) == 2


def test_a_fee_in_the_venue_s_coin_is_valued_and_leaves_the_position_whole(venue: RunningBinance, tmp_path: Path):
    venue.control("account", balances={"BNB": 5}, bnb_fees=True)
    desk = BinanceDesk(venue, tmp_path)
    desk.enter()
    held = desk.engine.books.positions("nova")[0]
    assert held.quantity % D("0.00001") == 0 and held.fees > 0 and desk.agrees()
    spent = held.spent + held.fees
    assert abs(10_000 - desk.engine.books.cash_of("nova", "USDT") - spent) < D("1e-9")
    assert D(4) < desk.engine.books.cash_of("external", "BNB") < 5 and not desk.engine.books.cash_of("nova", "BNB")
    desk.close()


def test_a_short_signal_closes_what_is_held_and_opens_nothing(desk: BinanceDesk):
    desk.enter()
    desk.feed.say("SHORT")
    desk.hour()
    desk.hour()
    assert not desk.engine.books.held and desk.agrees() and not desk.resting()
    assert [trade.reason for trade in desk.engine.books.trades("nova")] == [OrderRole.CLOSE]
    assert desk.answers()[-1][0] == "denied" and "short" in desk.answers()[-1][1]


def test_a_waiting_entry_brings_its_pair_with_it(desk: BinanceDesk):
    desk.hour()
    order = waiting_order(desk)
    assert desk.engine.sender.send(order.client_order_id).value == "submitted"
    kinds = {each["type"]: each["status"] for each in desk.resting()}
    assert kinds == {"LIMIT": "NEW", "LIMIT_MAKER": "PENDING_NEW", "STOP_LOSS": "PENDING_NEW"}
    desk.venue.price("BTCUSDT", 59_500)
    desk.look()
    held = desk.engine.books.positions("nova")[0]
    legs = {each["type"]: each for each in desk.resting()}
    assert set(legs) == {"LIMIT_MAKER", "STOP_LOSS"} and D(legs["STOP_LOSS"]["origQty"]) <= held.quantity
    numbers = {each["orderId"] for each in desk.resting()}
    desk.look()
    assert {each["orderId"] for each in desk.resting()} == numbers, "what stands is left alone"
    desk.venue.price("BTCUSDT", 58_000)
    desk.look()
    assert desk.engine.books.trades("nova")[0].reason is OrderRole.STOP and desk.agrees()


def waiting_order(desk: BinanceDesk, **more: Any) -> Order:
    """Write an order that waits below the market."""
    bracket = Bracket(stop_loss=D(58_500), take_profit=D(61_500))
    intent = Intent(
        id=intent_id("nova", "a test"), account="binance-usdt", agent="nova", strategy="ml", symbol="BTCUSDT",
        timeframe="1h", time=desk.clock.now(), purpose="open", side="BUY", entry_price=D(59_600), type="limit",
        bracket=bracket,
    )  # fmt: skip
    order = Order(
        **{"client_order_id": intent.order_id(), "symbol": "BTCUSDT", "side": "BUY", "quantity": D("0.05")}
        | {"type": "limit", "limit_price": D(59_600), "bracket": bracket} | more
    )  # fmt: skip
    desk.engine.sender.prepare(intent, order, intent.id, "a test")
    return order


@pytest.mark.parametrize("kind", ["drop", "timeout_never"])
def test_a_sale_that_is_lost_leaves_what_protects_standing(desk: BinanceDesk, kind: str):
    desk.enter()
    held, before = desk.engine.books.positions("nova")[0], {each["orderId"] for each in desk.resting()}
    order = desk.engine.consumer.close(held)
    desk.venue.control("fault", kind=kind, client_id=order.client_order_id, path="cancelReplace")
    assert desk.engine.sender.send(order.client_order_id) is OrderState.UNKNOWN
    assert {each["orderId"] for each in desk.resting()} == before and len(before) == 2
    desk.broker.settled_s = 0.0
    desk.look()
    again = desk.engine.consumer.close(held, moment=desk.clock.now() + timedelta(minutes=1))
    assert desk.engine.sender.send(again.client_order_id) is OrderState.SUBMITTED
    desk.look()
    assert not desk.resting() and not desk.engine.books.held and desk.agrees()


def test_a_sale_that_finds_nobody_puts_back_what_protected(desk: BinanceDesk):
    desk.enter()
    order = desk.engine.consumer.close(desk.engine.books.positions("nova")[0])
    desk.venue.control("liquidity", symbol="BTCUSDT", quantity=0)
    assert desk.engine.sender.send(order.client_order_id) is OrderState.EXPIRED
    assert len(desk.resting()) == 2 and desk.engine.books.held and desk.agrees()
    desk.venue.control("liquidity", symbol="BTCUSDT")


def test_a_sale_that_is_refused_though_its_protection_is_gone_is_known_at_once(desk: BinanceDesk):
    desk.enter()
    order, owned = desk.engine.consumer.close(desk.engine.books.positions("nova")[0]), desk.broker.holdings()["BTC"]
    desk.venue.control("account", balances={"BTC": -1})
    assert desk.engine.sender.send(order.client_order_id) is OrderState.REJECTED and not desk.resting()
    desk.venue.control("account", balances={"BTC": owned})
    desk.look()
    assert len(desk.resting()) == 2 and desk.engine.books.held and desk.agrees()


def test_a_part_of_a_waiting_entry_is_protected_and_the_rest_taken_back(desk: BinanceDesk):
    desk.hour()
    order = waiting_order(desk)
    desk.engine.sender.send(order.client_order_id)
    desk.venue.control("fill", symbol="BTCUSDT", clientOrderId=order.client_order_id, quantity="0.02")
    desk.look()
    desk.look()
    held = desk.engine.books.positions("nova")[0]
    legs = {each["type"]: D(each["origQty"]) for each in desk.resting()}
    assert set(legs) == {"LIMIT_MAKER", "STOP_LOSS"} and set(legs.values()) == {D("0.01998")}
    assert held.quantity == D("0.01998") and desk.agrees()
    assert dict(desk.orders())[order.client_order_id] == "cancelled"


def test_protection_is_replaced_and_never_lost(desk: BinanceDesk):
    desk.enter()
    held = desk.engine.books.positions("nova")[0]
    desk.engine.protect(held, Bracket(stop_loss=D("59900.004"), take_profit=D("61000.019")))
    legs = {each["type"]: each for each in desk.resting()}
    assert D(legs["STOP_LOSS"]["stopPrice"]) == D("59900.01") and D(legs["LIMIT_MAKER"]["price"]) == D("61000.01")
    assert held.bracket.stop_loss == D("59900.004") and len(desk.resting()) == 2
    desk.engine.protect(held, Bracket(stop_loss=D(60_500), take_profit=D(61_000)))  # above the price: refused
    legs = {each["type"]: each for each in desk.resting()}
    assert D(legs["STOP_LOSS"]["stopPrice"]) == D("59900.01") and held.bracket.stop_loss == D("59900.004")
    desk.engine.protect(held, Bracket(stop_loss=D(59_000)))
    assert [each["type"] for each in desk.resting()] == ["STOP_LOSS"]
    before = desk.resting()[0]["orderId"]
    desk.engine.protect(held, Bracket(stop_loss=D(59_200)))
    assert [D(each["stopPrice"]) for each in desk.resting()] == [59_200] and desk.resting()[0]["orderId"] != before
    asked = [each["path"] for each in heard(desk, "heard") if each["method"] == "POST"]
    assert asked[-1].endswith("order/cancelReplace"), "one order is replaced by one in one request"
    desk.look()
    assert len(desk.resting()) == 1 and desk.agrees()


def test_what_cannot_be_protected_is_not_held(desk: BinanceDesk):
    desk.hour()
    desk.feed.say()
    desk.venue.control("fault", kind="drop", path="orderList/oco", method="POST")
    desk.hour()
    desk.feed.next = {}
    desk.venue.price("BTCUSDT", 59_000)  # below the stop, before it stands
    desk.look()
    desk.look()
    trades = desk.engine.books.trades("nova")
    assert [trade.reason for trade in trades] == [OrderRole.STOP] and desk.agrees() and not desk.resting()


def test_a_crash_after_sending_is_found_out_and_protected(venue: RunningBinance, tmp_path: Path):
    desk = BinanceDesk(venue, tmp_path)
    desk.hour()
    desk.feed.say()
    begin = desk.clock.now()
    send, desk.engine.sender.send = desk.engine.sender.send, lambda id_: kill(id_)

    def kill(id_: str) -> None:
        venue.control("fault", kind="drop", path="orderList/oco", method="POST", count=2)
        send(id_)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        desk.hour()
    assert not desk.resting() and begin < desk.clock.now()
    desk.feed.next = {}
    desk.open()
    desk.look()
    assert {each["type"] for each in desk.resting()} == {"LIMIT_MAKER", "STOP_LOSS"} and desk.agrees()
    assert len(desk.engine.books.positions("nova")) == 1
    desk.close()


def test_a_switch_that_flattens_sells_and_lets_nothing_in(desk: BinanceDesk):
    desk.enter()
    desk.switches.kill(SwitchScope.ALL, who="a test", why="to see", flatten=True)
    desk.feed.say()
    desk.hour()
    desk.hour()
    assert not desk.engine.books.held and not desk.resting() and desk.agrees()
    assert [each["isBuyer"] for each in heard(desk, "trade")][-1] is False


def test_an_exit_at_its_time_is_sold_at_the_market(desk: BinanceDesk):
    desk.enter(horizon="3h")
    for _ in range(4):
        desk.hour()
    assert [trade.reason for trade in desk.engine.books.trades("nova")] == [OrderRole.TIME] and desk.agrees()


def test_a_stop_whose_limit_is_not_filled_is_sold_at_the_market(venue: RunningBinance, tmp_path: Path):
    kinds = ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT"]
    venue.control("symbol", symbol="BTCUSDT", types=[kind for kind in kinds if kind != "STOP_LOSS"])
    try:
        desk = BinanceDesk(venue, tmp_path, stop_gap="0.001")
        desk.enter()
        desk.venue.price("BTCUSDT", 50_000)  # through stop and limit
        desk.look()
        assert [each["type"] for each in desk.resting()] == ["STOP_LOSS_LIMIT"] and desk.engine.books.held
        assert desk.engine.watch.doubtful, "looked at again soon"
        desk.broker.guards.triggered_s = 0.0
        desk.look()
        desk.look()
        assert [trade.reason for trade in desk.engine.books.trades("nova")] == [OrderRole.STOP] and desk.agrees()
        desk.close()
    finally:
        venue.control("symbol", symbol="BTCUSDT", types=kinds)


def test_seconds_without_a_stop_at_the_venue(venue: RunningBinance, tmp_path: Path):
    desk = BinanceDesk(venue, tmp_path)
    for _ in range(6):
        desk.enter()
        desk.venue.price("BTCUSDT", 61_500)
        desk.look()
        desk.venue.price("BTCUSDT", 60_000)
        desk.look()
    bare = unprotected_s(desk)
    print(f"{len(bare)} positions, without a resident stop for {max(bare):.3f} s at most")
    assert len(bare) == 6 and max(bare) < 2 and desk.agrees() and not desk.engine.books.held
    desk.close()


def unprotected_s(desk: BinanceDesk) -> list[float]:
    """Return how long each position was without a resident stop, by the venue's log alone."""
    found, since = list[float](), 0
    for record in since_reset(desk):
        if record["kind"] == "trade" and record["isBuyer"]:
            since = since or record["wall_ns"]
        elif since and record["kind"] == "order" and (record["type"], record["status"]) == ("STOP_LOSS", "NEW"):
            found.append((record["wall_ns"] - since) / 1e9)
            since = 0
    return found
