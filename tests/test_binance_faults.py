"""What the wire can do to an order: each ends accepted, refused or unknown, and is sent once."""

from collections.abc import Iterator
from decimal import Decimal
from time import monotonic, sleep
from typing import Any

import pytest

from orbiquant.core import BrokerRejected, BrokerUnavailable, ExecutionUnknown
from orbiquant.orders import Bracket, Order, OrderState, Side
from orbiquant.trading.brokers.binance.broker import BinanceBroker
from tests.fake_binance.running import RunningBinance, running_binance
from tests.tools.binance_desk import all_logged, open_broker, wait_until

D = Decimal
BRACKET = Bracket(stop_loss=D("59400"), take_profit=D("61200"))


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
def broker(venue: RunningBinance) -> Iterator[BinanceBroker]:
    made = open_broker(venue)
    made.transport.sync()
    yield made
    made.close()


def entry(number: int = 1, **more: Any) -> Order:
    facts = {"symbol": "BTCUSDT", "side": Side.BUY, "quantity": D("0.01"), "bracket": BRACKET}
    return Order(**facts | {"client_order_id": f"nova-{number:016x}-ent"} | more)


def sent(venue: RunningBinance, client_id: str) -> int:
    """Return how often an order was sent to the venue in this test."""
    return sum(each["params"].get("newClientOrderId") == client_id for each in heard(venue) if each["method"] == "POST")


def heard(venue: RunningBinance) -> list[dict[str, Any]]:
    """Return what was asked of the venue since it began anew."""
    records = venue.log()
    begin = max(at for at, record in enumerate(records) if record["kind"] == "control" and record["deed"] == "reset")
    return [record for record in records[begin:] if record["kind"] == "heard"]


def fault(venue: RunningBinance, kind: str, path: str = "order", method: str = "POST", **more: Any) -> None:
    venue.control("fault", kind=kind, path=path, method=method, **more)


@pytest.mark.parametrize("kind", ["cut", "timeout_late", "drop", "timeout_never", "unavailable", "html"])
def test_an_order_whose_answer_is_lost_is_unknown_or_found_and_never_sent_again(
    venue: RunningBinance, broker: BinanceBroker, kind: str
):
    broker.settled_s = 1.2
    order, id_ = entry(), entry().client_order_id
    fault(venue, kind, client_id=id_)
    begin = monotonic()
    try:
        assert broker.submit(order).state is OrderState.SUBMITTED
    except ExecutionUnknown as error:
        assert kind != "cut" and error.details.get("client_order_id", id_) == id_
        if kind != "timeout_late":
            with pytest.raises(BrokerUnavailable, match="on its way"):
                broker.order("BTCUSDT", id_)
    assert wait_until(lambda: said(broker, id_) != "open", 3)
    taken = kind in ("cut", "timeout_late")
    assert said(broker, id_) == ("filled" if taken else "none")
    assert taken or monotonic() - begin >= 1.2
    assert sent(venue, id_) == 1


@pytest.mark.parametrize(
    "kind, path", [("drop", "orderList/oco"), ("timeout_never", "orderList/oco"), ("cut", "order")]
)
def test_protection_that_is_lost_is_sent_again_in_the_same_breath(
    venue: RunningBinance, broker: BinanceBroker, kind: str, path: str
):
    fault(venue, kind, path=path)
    assert broker.submit(entry()).state is OrderState.SUBMITTED
    resting = venue.control("state")["accounts"][venue.key]["open"]
    assert {each["type"] for each in resting} == {"LIMIT_MAKER", "STOP_LOSS"} and len(resting) == 2
    assert {each["origQty"] for each in resting} == {"0.00999000"}


def test_protection_that_arrives_late_stands_once(venue: RunningBinance, broker: BinanceBroker):
    fault(venue, "timeout_late", path="oco", seconds=0.3)
    broker.submit(entry())
    assert wait_until(lambda: any("oco" in each["path"] and each.get("late") for each in venue.log("refused")))
    assert len(venue.control("state")["accounts"][venue.key]["open"]) == 2, "there are coins of others to be sold, too"
    fault(venue, "timeout_late", path="oco", seconds=0.0)
    broker.submit(entry(2))
    sleep(0.2)
    assert len(venue.control("state")["accounts"][venue.key]["open"]) == 4


def said(broker: BinanceBroker, id_: str) -> str:
    try:
        status = broker.order("BTCUSDT", id_)
    except BrokerUnavailable:
        return "open"
    return "none" if status is None else status.state.value


def test_after_a_restart_an_order_counts_as_just_sent(venue: RunningBinance):
    made = open_broker(venue)
    made.settled_s = 0.5
    with pytest.raises(BrokerUnavailable, match="on its way"):
        made.order("BTCUSDT", entry().client_order_id)
    sleep(0.6)
    assert made.order("BTCUSDT", entry().client_order_id) is None
    assert open_broker(venue).settled_s == 16.0, "recvWindow, what the engine may take, and a second"
    made.close()


def test_the_same_order_sent_twice_is_told_not_taken_twice(venue: RunningBinance, broker: BinanceBroker):
    assert broker.submit(entry(2)).broker_order_id == broker.submit(entry(2)).broker_order_id
    assert sent(venue, entry(2).client_order_id) == 1, "it is filled: the venue would take its id again"
    waiting = entry(limit_price=D("59900"), type="limit")
    first = broker.submit(waiting)
    again = broker.submit(waiting)
    assert again.broker_order_id == first.broker_order_id
    assert len([each for each in venue.control("state")["accounts"][venue.key]["open"] if each["type"] == "LIMIT"]) == 1


def test_a_clock_that_is_off_is_set_again_and_no_order_is_sent_twice(venue: RunningBinance, broker: BinanceBroker):
    fault(venue, "timestamp")
    with pytest.raises(BrokerRejected, match="-1021"):
        broker.submit(entry())
    assert broker.transport.offset_ms is None and sent(venue, entry().client_order_id) == 1
    venue.control("clock", offset_ms=-60_000)
    assert broker.submit(entry(2)).state is OrderState.SUBMITTED
    venue.control("clock", offset_ms=60_000)
    assert broker.market.balances()["USDT"].total < 1_000_000, "a question is asked again"
    venue.control("clock", offset_ms=0)


@pytest.mark.parametrize("kind, status", [("too_many", 429), ("banned", 418)])
def test_nothing_is_sent_while_the_venue_asks_to_be_left_alone(
    venue: RunningBinance, broker: BinanceBroker, kind: str, status: int
):
    broker.market.rules("BTCUSDT")
    fault(venue, kind, seconds=1)
    with pytest.raises(BrokerRejected, match="left alone"):
        broker.submit(entry())
    seen = len(heard(venue))
    with pytest.raises(BrokerRejected, match="not sent"):
        broker.submit(entry(2))
    with pytest.raises(BrokerUnavailable, match="left alone"):
        broker.market.balances()
    assert len(heard(venue)) == seen > 0
    sleep(1.1)
    venue.control("faults/clear")
    assert broker.submit(entry(3)).state is OrderState.SUBMITTED


def test_a_cancel_that_is_lost_is_found_out(venue: RunningBinance, broker: BinanceBroker):
    waiting = entry(limit_price=D("59900"), type="limit")
    broker.submit(waiting)
    fault(venue, "cut", method="DELETE")
    assert broker.cancel("BTCUSDT", waiting.client_order_id).state is OrderState.CANCELLED
    assert broker.cancel("BTCUSDT", waiting.client_order_id).state is OrderState.CANCELLED, "twice is once"
    other = entry(2, limit_price=D("59900"), type="limit")
    broker.submit(other)
    fault(venue, "race", method="DELETE")
    assert broker.cancel("BTCUSDT", other.client_order_id).state is OrderState.FILLED
    with pytest.raises(ExecutionUnknown):
        broker.cancel("BTCUSDT", entry(9).client_order_id)


def test_keys_stand_in_no_error_and_no_log(venue: RunningBinance):
    made, right = open_broker(venue, api_secret="not-the-secret-of-anybody"), open_broker(venue)
    with all_logged() as lines:
        with pytest.raises(BrokerRejected, match=r"-1022.*secret") as refused:
            made.holdings()
        fault(venue, "cut", path="account", method="GET", count=6)  # the HTTP library asks twice
        with pytest.raises(BrokerUnavailable) as lost:
            right.holdings()
    told = [str(refused.value), repr(lost.value), repr(lost.value.__cause__), repr(made.transport.config), *lines]
    chain = lost.value.__context__
    while chain is not None:
        told.append(repr(chain))
        chain = chain.__context__
    assert not any(word in line for line in told for word in (venue.key, venue.secret, "not-the-secret", "signature="))
    made.close()
    right.close()
