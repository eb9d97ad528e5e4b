"""Books and venue are one: events wake, looks find out, and what differs halts and says what to do."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from orbiquant.core import BrokerRejected, ConflictError
from orbiquant.trading.brokers.binance.broker import BinanceBroker
from orbiquant.trading.lookout import adopt_venue, look_at_venue
from tests.fake_binance.running import RunningBinance, running_binance
from tests.tools.binance_desk import BinanceDesk, open_broker, wait_until

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
    assert wait_until(lambda: made.broker.stream.connected_since is not None)
    yield made
    made.close()


@pytest.fixture
def stranger(venue: RunningBinance) -> Iterator[BinanceBroker]:
    """Somebody else with the same key."""
    made = open_broker(venue)
    yield made
    made.close()


def trade_by_hand(stranger: BinanceBroker, **more: str) -> None:
    facts = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.01", "newClientOrderId": "web_17"}
    stranger.transport.send("privatePostOrder", facts | more)


def test_an_event_wakes_at_once(desk: BinanceDesk):
    desk.enter()
    desk.look()
    assert not desk.broker.due(), "nothing happened"
    desk.venue.price("BTCUSDT", 61_300)
    assert wait_until(desk.broker.due, 1)
    assert look_at_venue(desk.engine) and desk.engine.books.trades("nova")


def test_a_lost_event_is_healed_by_the_next_look(venue: RunningBinance, tmp_path: Path):
    desk = BinanceDesk(venue, tmp_path, sweep_s=0.8)
    desk.enter()
    desk.look()
    venue.control("fault", kind="event_drop", count=10)
    begin = monotonic()
    venue.price("BTCUSDT", 61_300)
    assert wait_until(desk.broker.due, 3) and not desk.broker.woken.is_set()
    look_at_venue(desk.engine)
    assert desk.engine.books.trades("nova") and monotonic() - begin < 3 and desk.agrees()
    desk.close()


@pytest.mark.parametrize("end", ["shutdown", "disconnect", "terminate"])
def test_a_stream_that_ends_comes_back_and_is_taken_for_a_gap(desk: BinanceDesk, end: str):
    stream, gaps = desk.broker.stream, desk.broker.stream.gaps
    desk.look()
    desk.venue.control(end)
    assert wait_until(lambda: stream.gaps > gaps) and desk.broker.due(), "in between anything may have happened"
    assert wait_until(lambda: stream.connected_since is not None)


def test_a_stream_that_says_nothing_is_given_up(desk: BinanceDesk):
    stream = desk.broker.stream
    stream.quiet_s = 0.3  # of the next connection
    desk.venue.control("disconnect")
    assert wait_until(lambda: stream.gaps >= 2), "without a ping it is dead"


def test_an_order_of_somebody_else_halts_and_a_person_goes_on(desk: BinanceDesk, stranger: BinanceBroker):
    desk.hour()
    trade_by_hand(stranger, type="LIMIT", price="50000", timeInForce="GTC")
    desk.look()
    record = desk.record()
    assert record.state == "halted" and "order web_17 on BTCUSDT is none of ours" in record.reason
    assert "orbiquant agent adopt binance-usdt" in record.reason
    stranger.transport.send("privateDeleteOrder", {"symbol": "BTCUSDT", "origClientOrderId": "web_17"})
    desk.engine.roster.move("nova", "resume", "a person")
    desk.look()
    assert desk.record().state == "running"


def test_a_trade_of_somebody_else_goes_to_external_and_blocks(desk: BinanceDesk, stranger: BinanceBroker):
    desk.enter()
    trade_by_hand(stranger)
    desk.look()
    assert desk.record().state == "halted" and "somebody else traded 0.00999" in desk.record().reason
    assert "in no agent's book" in desk.engine.standing.blocked("BTCUSDT")
    assert len(desk.resting()) == 2, "what is held stays protected"
    told = adopt_venue(desk.engine, "a person")
    assert not desk.engine.standing.blocked("BTCUSDT") and desk.agrees(), told
    desk.engine.roster.move("nova", "resume", "a person")
    desk.look()
    assert desk.record().state == "running"


def test_keys_that_are_not_taken_any_more_halt(desk: BinanceDesk):
    desk.enter()
    desk.broker.transport.client.secret = "another"
    with pytest.raises(BrokerRejected, match="-1022"):
        desk.look()
    assert desk.record().state == "halted" and "`[binance] environment`" in desk.record().reason
    assert len(desk.resting()) == 2, "what protects lies at the venue"


def test_what_comes_from_nowhere_is_found_by_the_second_look(desk: BinanceDesk):
    desk.hour()
    desk.venue.control("account", balances={"ETH": 99})
    assert wait_until(lambda: desk.broker.due() and not look_at_venue(desk.engine) and desk.record().state == "halted")
    assert "holds -1" in desk.record().reason and "ETH" in desk.record().reason
    assert adopt_venue(desk.engine, "a person")["adopted"]["ETH"].startswith("-1") and desk.agrees()


def test_money_that_somebody_pays_in_is_named_and_written_down(desk: BinanceDesk, capsys: Any):
    desk.enter()
    owned = desk.broker.holdings()["USDT"]
    desk.venue.control("account", balances={"USDT": str(owned + 500)})
    for _ in range(3):
        desk.look()
    said = capsys.readouterr().err
    assert said.count("+500") == 1 and "agent adopt binance-usdt" in said and desk.record().state == "running"
    assert not desk.engine.standing.blocked("BTCUSDT") and not desk.engine.watch.doubtful
    assert adopt_venue(desk.engine, "a person")["adopted"] == {"USDT": "+500.00000000"} and desk.agrees()
    desk.engine.enlist("nova", D(500), "of that")
    assert desk.agrees() and desk.engine.watch.free() == 990_000


def test_before_it_is_found_twice_nobody_adds_risk(desk: BinanceDesk):
    desk.hour()
    desk.venue.control("spoil", number=1, act="coins", symbol="ETHUSDT")
    assert not desk.broker.due(), "nobody was told of it"
    look_at_venue(desk.engine, now=True)
    desk.feed.say()
    desk.hour()
    assert desk.answers()[-1] == ("denied", "the venue holds +1.00000000 ETH beyond all books")
    desk.look()
    assert desk.record().state == "halted"


def test_a_venue_that_begins_anew_halts_everybody(desk: BinanceDesk):
    desk.enter()
    desk.venue.control("reset_account", balances={"USDT": 1_000_000})
    desk.look()
    desk.look()
    said = desk.record().reason
    assert desk.record().state == "halted" and "beyond all books" in said and "BTC" in said
    desk.feed.say()
    desk.hour()
    assert desk.answers()[-1][0] == "denied"
    assert not desk.resting(), "nothing is sold that is not there"
    assert all(state != "rejected" for _, state in desk.orders()), "what was accepted was no refusal"
    adopt_venue(desk.engine, "a person")
    assert desk.agrees() and not desk.engine.books.held, "what is not there is written off"
    desk.look()
    desk.engine.roster.move("nova", "resume", "a person")
    desk.look()
    assert desk.record().state == "running"


def test_an_order_that_vanishes_is_no_refusal(desk: BinanceDesk):
    from tests.test_binance_line import waiting_order

    desk.hour()
    order = waiting_order(desk)
    desk.engine.sender.send(order.client_order_id)
    desk.broker.settled_s = 0.0
    desk.venue.control("reset_account", balances={"USDT": 1_000_000, "BTC": 10, "ETH": 100})
    desk.look()
    assert dict(desk.orders())[order.client_order_id] == "unknown"
    assert desk.record().state == "halted" and "does not know" in desk.record().reason
    assert "not known yet" in desk.engine.standing.blocked("BTCUSDT")
    adopt_venue(desk.engine, "a person")
    assert not desk.engine.standing.blocked("BTCUSDT") and dict(desk.orders())[order.client_order_id] == "expired"


def test_protection_of_what_is_gone_is_taken_away(desk: BinanceDesk, stranger: BinanceBroker):
    desk.enter()
    held = desk.engine.books.positions("nova")[0]
    desk.engine.sender.send(desk.engine.consumer.close(held).client_order_id)
    desk.look()
    late = {"symbol": "BTCUSDT", "side": "SELL", "type": "LIMIT", "price": "70000", "timeInForce": "GTC"}
    stranger.transport.send("privatePostOrder", late | {"quantity": "0.01", "newClientOrderId": f"{held.id}-tar"})
    desk.look()
    assert not desk.resting() and desk.record().state == "running", "it would sell what is somebody else's"


def test_capital_is_what_nobody_has(venue: RunningBinance, tmp_path: Path):
    venue.control("account", balances={"USDT": 15_000})
    desk = BinanceDesk(venue, tmp_path, ("nova",))
    with pytest.raises(ConflictError, match="at most the 5000"):
        desk.engine.enlist("nova", D(5001), "again")
    desk.engine.enlist("nova", D(5000), "again")
    assert desk.engine.books.cash_of("nova", "USDT") == 15_000 and desk.agrees()
    desk.close()


def test_an_unknown_order_blocks_its_symbol_until_it_is_settled(desk: BinanceDesk):
    desk.hour()
    desk.broker.settled_s = 1.5
    desk.venue.control("fault", kind="timeout_late", path="order", method="POST", seconds=0.7)
    desk.feed.say()
    desk.hour()
    assert "not known yet" in desk.engine.standing.blocked("BTCUSDT")
    assert desk.engine.standing.risky("nova"), "its risk is reserved"
    assert wait_until(lambda: desk.broker.due() and look_at_venue(desk.engine), 4)
    assert len(desk.engine.books.positions("nova")) == 1 and desk.agrees()
    assert {each["type"] for each in desk.resting()} == {"LIMIT_MAKER", "STOP_LOSS"}
