"""MetaTrader 4 through its files: an order comes once, is found again, and ends by the venue's word alone."""

import importlib
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orbiquant.core import BrokerRejected, BrokerUnavailable, ExecutionUnknown, FixedClock, SystemClock
from orbiquant.domain import Costs, SeriesId, Signal
from orbiquant.execution.config import parse_plan
from orbiquant.market.instruments import find_instrument
from orbiquant.orders import Bracket, Order, OrderRole, OrderState, OrderStatus
from orbiquant.trading.brokers.mt4.broker import Mt4Broker
from orbiquant.trading.brokers.mt4.config import Mt4Config
from orbiquant.trading.brokers.mt4.contracts import Contracts
from orbiquant.trading.brokers.mt4.files import Folder
from orbiquant.trading.brokers.mt4.matching import magics
from orbiquant.trading.brokers.mt4.wire import read_history_file, read_messages_file, read_orders_file, read_quotes_file
from orbiquant.trading.brokers.terms import PaperTerms, PriceBar
from orbiquant.trading.engine import TradingEngine
from orbiquant.trading.lookout import adopt_venue, look_at_venue
from orbiquant.trading.pages import Pages
from orbiquant.trading.standing import Standing
from orbiquant.trading.switches import Switches
from tests.fake_mt4 import FakeTerminal, fake_terminal
from tests.tools.desk import FREE, fresh_database, loose_profile
from tests.tools.programs import run_program

LOGIN = 1234567


def config(folder: Path, **more: Any) -> Mt4Config:
    """Return settings that do not wait long."""
    quick = {"command_answer_s": 5, "stale_s": 3, "settle_s": 0.3, "quiet_settle_s": 0.8, "history_s": 60}
    given = {"folder": folder / "Files", "state_folder": folder / "state", "login": LOGIN, "server_zone": "UTC+2"}
    return Mt4Config(**given | quick | more)


def terms(symbol: str) -> PaperTerms:
    """Return what a symbol costs: nothing."""
    return PaperTerms(find_instrument(symbol), Costs(), Decimal(30))


QUICK = ("--beat-ms", 150)  # a sign of life, a second apart at home


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeTerminal]:
    with fake_terminal(tmp_path_factory.mktemp("mt4"), *QUICK) as running:
        yield running


@pytest.fixture
def terminal(running: FakeTerminal, tmp_path: Path) -> FakeTerminal:
    running.tell("fresh")
    (tmp_path / "Files").symlink_to(running.folder)
    return running


@pytest.fixture
def hasty(terminal: FakeTerminal, tmp_path: Path) -> Mt4Broker:
    """Return a broker that does not wait long for one that is dead."""
    return Mt4Broker(config(tmp_path, command_answer_s=0.8, stale_s=0.6), SystemClock(), terms)


@pytest.fixture
def broker(terminal: FakeTerminal, tmp_path: Path) -> Mt4Broker:
    return Mt4Broker(config(tmp_path), SystemClock(), terms)


def order(id_: str = "atlas-0123456789abcdef-ent", side: str = "BUY", quantity: Any = 10_000, **more: Any) -> Order:
    """Return an order for euros."""
    return Order(**{"client_order_id": id_, "symbol": "EURUSD", "side": side, "quantity": quantity} | more)


def wait_until(true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    until = time.monotonic() + 10
    while not true():
        assert time.monotonic() < until
        time.sleep(0.002)


BRACKET = Bracket(stop_loss="1.09500", take_profit="1.11000")


def test_the_line_entry_stop_at_the_server_target_fills(terminal: FakeTerminal, broker: Mt4Broker):
    status = broker.submit(order(bracket=BRACKET))
    assert (status.state, status.filled_quantity, status.average_price) == (
        OrderState.FILLED,
        10_000,
        Decimal("1.1001"),
    )
    (held,) = broker.positions()
    assert (held.owner, held.quantity, held.bracket) == ("atlas-0123456789abcdef-ent", 10_000, BRACKET)
    assert terminal.log("send")[0]["sl"] == "1.09500", "the stop comes with the order, no moment later"
    terminal.price("1.11000")
    entry, target = broker.fills("EURUSD")
    assert (entry.role, entry.fee, entry.price) == (OrderRole.ENTRY, 0, Decimal("1.1001"))
    assert (target.role, target.client_order_id) == (OrderRole.TARGET, "atlas-0123456789abcdef-tar")
    assert (target.price, target.quantity, target.fee) == (Decimal("1.11"), 10_000, Decimal("0.7"))
    assert broker.account().balance == 10_000 + Decimal("99") - Decimal("0.7") and broker.positions() == []
    assert broker.fills("EURUSD", entry.fill_id) == [target]


# --- the terminal of the tests ---


def test_the_terminal_keeps_the_protocols_hostile_rules(terminal: FakeTerminal):
    folder = Folder(terminal.folder)
    slot = [folder.file(f"Commands_{number}") for number in range(3)]
    buy = "<:7|OPEN_ORDER|EURUSD,buy,0.10,0,0,0,5,x,0:>"

    def write(*texts: str) -> None:
        terminal.tell("freeze", seconds=60)
        for path, text in zip(slot, texts, strict=False):
            path.write_text(text)
        terminal.tell("freeze", seconds=0)
        wait_until(lambda: not folder.waiting())

    write(buy)
    write(buy)
    assert len(terminal.log("send")) == 1, "an id is carried out once"
    terminal.tell("freeze", seconds=60)
    slot[1].write_text(buy.replace("7", "8", 1))
    terminal.tell("freeze", seconds=0)
    time.sleep(0.05)
    assert folder.waiting(), "what lies behind an empty slot is not found"
    slot[0].write_text("<:9|OPEN_ORDER|half")
    wait_until(lambda: not slot[0].exists())
    time.sleep(0.05)
    assert folder.waiting() and len(terminal.log("send")) == 1, "a fault ends the scan: it was deleted, then understood"
    terminal.tell("stop")
    assert not [*folder.path.glob("DWX_Commands_*")] and not folder.stamp("Orders"), "the folder is wiped at the end"
    slot[0].write_text(buy)
    terminal.tell("start")
    assert not folder.waiting() and len(terminal.log("send")) == 1, "and at the beginning"
    write(buy)
    assert len(terminal.log("send")) == 2, "ids are forgotten: the old command is carried out again"


# --- what is ordered ---


def test_a_short_is_closed_in_parts_and_found_under_each_new_ticket(terminal: FakeTerminal, broker: Mt4Broker):
    entry = order(side="SELL", quantity=30_000, bracket=Bracket(stop_loss="1.10500"))
    broker.submit(entry)
    part = order("atlas-close1-clo", "BUY", 10_000, reduce_only=True, role="close", group=entry.client_order_id)
    assert broker.submit(part).state is OrderState.FILLED
    (held,) = broker.positions()
    assert (held.owner, held.quantity) == (entry.client_order_id, -20_000), "the rest has another number and comment"
    broker.amend("EURUSD", entry.client_order_id, Bracket(stop_loss="1.10300"))
    assert broker.positions()[0].bracket.stop_loss == Decimal("1.103")
    too_much = part.model_copy(update={"client_order_id": "atlas-close2-clo", "quantity": Decimal(90_000)})
    assert broker.submit(too_much).filled_quantity == 20_000, "what only reduces never opens"
    fills = broker.fills("EURUSD")
    assert [(fill.client_order_id, fill.quantity, fill.side) for fill in fills] == [
        (entry.client_order_id, 30_000, "SELL"),
        ("atlas-close1-clo", 10_000, "BUY"),
        ("atlas-close2-clo", 20_000, "BUY"),
    ]
    assert sum(fill.fee for fill in fills) == Decimal("2.10") and broker.positions() == []
    with pytest.raises(BrokerRejected, match="nothing of EURUSD"):
        broker.submit(part.model_copy(update={"client_order_id": "atlas-close3-clo"}))


def test_a_stop_that_gaps_is_told_as_the_stop(terminal: FakeTerminal, broker: Mt4Broker):
    broker.submit(order(bracket=BRACKET))
    terminal.price("1.09000")
    stop = broker.fills("EURUSD")[-1]
    assert (stop.role, stop.price, stop.client_order_id) == (
        OrderRole.STOP,
        Decimal("1.09"),
        "atlas-0123456789abcdef-sto",
    )


@pytest.mark.parametrize(
    ("kind", "price", "field"), [("limit", "1.09000", "limit_price"), ("stop", "1.11000", "trigger_price")]
)
def test_what_waits_for_a_price_waits(terminal: FakeTerminal, broker: Mt4Broker, kind: str, price: str, field: str):
    waiting = order(type=kind, bracket=Bracket(stop_loss="1.08000"), **{field: price})
    assert broker.submit(waiting).state is OrderState.SUBMITTED
    assert broker.open_orders() == [waiting] and broker.positions() == [] and broker.fills("EURUSD") == []
    terminal.price(price, ask=price)
    assert broker.order("EURUSD", waiting.client_order_id).state is OrderState.FILLED
    assert [fill.price for fill in broker.fills("EURUSD")] == [Decimal(price)] and not broker.open_orders()


def test_what_is_taken_back_is_filled_no_more(terminal: FakeTerminal, broker: Mt4Broker):
    waiting = order(type="limit", limit_price="1.09000", bracket=Bracket(stop_loss="1.08000"))
    broker.submit(waiting)
    for _ in range(2):
        assert broker.cancel("EURUSD", waiting.client_order_id).state is OrderState.CANCELLED
    terminal.price("1.08900")
    assert broker.positions() == [] and broker.order("EURUSD", waiting.client_order_id).state is OrderState.CANCELLED
    with pytest.raises(BrokerRejected, match="must name an order"):
        broker.cancel("EURUSD", "never-ent")


def test_taking_back_what_was_filled_a_moment_ago_leaves_the_position(
    terminal: FakeTerminal, broker: Mt4Broker, monkeypatch: pytest.MonkeyPatch
):
    waiting = order(type="limit", limit_price="1.09000", bracket=Bracket(stop_loss="1.08000"))
    broker.submit(waiting)
    ask = broker.terminal.ask
    monkeypatch.setattr(broker.terminal, "ask", lambda *given: (terminal.price("1.08900"), ask(*given))[1])
    assert broker.cancel("EURUSD", waiting.client_order_id).state is OrderState.FILLED
    assert [held.quantity for held in broker.positions()] == [10_000], "the command closes no position"


def test_other_levels_stand_or_the_old_ones_do(terminal: FakeTerminal, broker: Mt4Broker):
    broker.submit(order(bracket=BRACKET))
    name = order().client_order_id
    terminal.fault("modify", error=138)
    broker.amend("EURUSD", name, Bracket(stop_loss="1.09600"))
    assert broker.positions()[0].bracket == Bracket(stop_loss="1.096"), "a requote is asked again; no target any more"
    with pytest.raises(BrokerRejected, match="invalid stops; stop or target"):
        broker.amend("EURUSD", name, Bracket(stop_loss="1.10900"))
    terminal.fault("modify", error=128)
    with pytest.raises(ExecutionUnknown, match="timeout"):
        broker.amend("EURUSD", name, Bracket(stop_loss="1.09700"))
    assert broker.positions()[0].bracket.stop_loss == Decimal("1.096")
    with pytest.raises(BrokerRejected, match="must name the entry"):
        broker.amend("EURUSD", "never-ent", BRACKET)


def test_a_position_is_closed_when_its_time_is_over(terminal: FakeTerminal, tmp_path: Path):
    clock = FixedClock(datetime.now(UTC))
    broker = Mt4Broker(config(tmp_path), clock, terms)
    bracket = Bracket(stop_loss="1.09000", close_at=clock.now() + timedelta(minutes=5))
    broker.submit(order(bracket=bracket))
    assert broker.positions()[0].bracket.close_at == bracket.close_at and len(broker.fills("EURUSD")) == 1
    clock.advance(timedelta(minutes=5))
    terminal.fault("close", error=132)
    assert len(broker.fills("EURUSD")) == 1, "refused once"
    late = broker.fills("EURUSD")[-1]
    assert (late.role, late.client_order_id) == (OrderRole.TIME, "atlas-0123456789abcdef-tim2")
    assert broker.positions() == [] and len(broker.fills("EURUSD")) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quantity": Decimal(1_500)}, "multiple of 1000"),
        ({"quantity": Decimal(6_000_000)}, "up to 50 lots"),
        ({"symbol": "USDJPY"}, "paid in JPY"),
        ({"symbol": "NZDUSD"}, "no price of NZDUSD"),
        ({"client_order_id": "a" * 32}, "at most 31"),
        ({"bracket": Bracket(stop_loss="1.09", exits="break_even_r=1")}, "must be fixed"),
        ({"type": "limit", "limit_price": Decimal("1.09"), "time_in_force": "ioc"}, "must be gtc"),
        ({"bracket": Bracket(stop_loss="1.10005")}, "invalid stops"),
        ({"quantity": Decimal(2_000_000)}, "not enough money"),
    ],
)
def test_what_cannot_be_is_rejected_and_leaves_nothing(
    terminal: FakeTerminal, broker: Mt4Broker, change: dict[str, Any], said: str
):
    with pytest.raises(BrokerRejected, match=said):
        broker.submit(Order.model_validate(order().model_dump() | change))
    assert broker.positions() == [] and terminal.log("send") == []
    assert broker.submit(order("b-ent", quantity=1_000)).state is OrderState.FILLED, "and harms nobody after it"


def test_a_lot_of_another_size_is_seen_before_anything_is_sent(terminal: FakeTerminal, tmp_path: Path):
    broker = Mt4Broker(config(tmp_path, lot_sizes="EURUSD=10000"), SystemClock(), terms)
    with pytest.raises(BrokerRejected, match=r"worth 1\.00000, by our instrument table it is 0\.1"):
        broker.submit(order())


def test_inputs_of_the_expert_advisor_are_named(tmp_path: Path):
    with fake_terminal(tmp_path / "Files", *QUICK, "--most-orders", 1, "--most-lots", "0.05"):
        broker = Mt4Broker(config(tmp_path), SystemClock(), terms)
        with pytest.raises(BrokerRejected, match="raise MaximumLotSize"):
            broker.submit(order())
        broker.submit(order("a-ent", quantity=5_000))
        with pytest.raises(BrokerRejected, match="raise MaximumOrders"):
            broker.submit(order("b-ent", quantity=5_000))


# --- what goes wrong ---


def _die(*given: Any) -> Any:
    raise KeyboardInterrupt


def settled(
    broker: Mt4Broker, id_: str = "atlas-0123456789abcdef-ent", meanwhile: Callable[[], Any] = lambda: None
) -> Any:
    """Return what an order has come to, once that is settled."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            return broker.order("EURUSD", id_)
        except BrokerUnavailable:
            meanwhile()
            time.sleep(0.05)
    raise AssertionError("it is never settled")


def test_a_command_that_vanishes_with_its_folder_is_asked_about_and_not_written_again(
    terminal: FakeTerminal, tmp_path: Path
):
    broker = Mt4Broker(config(tmp_path, quiet_settle_s=9, command_answer_s=0.8, stale_s=0.6), SystemClock(), terms)
    broker.terminal.quotes("EURUSD")
    terminal.tell("freeze", seconds=60)  # the command lies there when the advisor is put on anew, and is wiped
    with pytest.raises(ExecutionUnknown, match="nobody read"):
        broker.submit(order())
    terminal.tell("freeze", seconds=0)
    terminal.tell("start")
    with pytest.raises(BrokerUnavailable, match="may still come"):
        broker.order("EURUSD", order().client_order_id)
    terminal.price("1.10050")  # prices move: it need not be waited for as long as at a weekend
    began = time.monotonic()
    assert settled(broker) is None and terminal.log("send") == [] and time.monotonic() - began < 0.5
    with pytest.raises(BrokerRejected, match="not sent again"):
        broker.submit(order())


@pytest.mark.parametrize("moment", ["read", "after"])
def test_an_advisor_that_dies_over_a_command(terminal: FakeTerminal, hasty: Mt4Broker, moment: str):
    hasty.terminal.quotes("EURUSD")
    terminal.fault("command" if moment == "read" else "send", die=moment)
    with pytest.raises(ExecutionUnknown):
        hasty.submit(order())
    terminal.tell("start")
    status = settled(hasty)
    assert (status is not None) == (moment == "after") == bool(terminal.log("send"))
    assert status is None or (status.state is OrderState.FILLED and len(hasty.fills("EURUSD")) == 1)


def test_a_server_that_carries_out_what_it_said_had_timed_out(terminal: FakeTerminal, tmp_path: Path):
    broker = Mt4Broker(config(tmp_path, quiet_settle_s=9), SystemClock(), terms)
    terminal.fault("send", error=128, late_s=1.5)
    with pytest.raises(ExecutionUnknown, match="trade timeout"):
        broker.submit(order())
    with pytest.raises(ExecutionUnknown):
        broker.submit(order())
    assert settled(broker).state is OrderState.FILLED and len(terminal.log("send")) == 1
    assert [fill.role for fill in broker.fills("EURUSD")] == [OrderRole.ENTRY]


def test_an_advisor_that_says_nothing(terminal: FakeTerminal, broker: Mt4Broker):
    terminal.fault("send", mute=True)
    assert broker.submit(order()).state is OrderState.FILLED, "the ticket is there"
    terminal.fault("send", mute=True, error=2)
    with pytest.raises(ExecutionUnknown, match="not answered"):
        broker.submit(order("b-ent"))
    assert settled(broker, "b-ent") is None and len(terminal.log("send")) == 1
    assert broker.submit(order("c-ent")).state is OrderState.FILLED, "the next waits for a sign of life, and goes"


def test_an_advisor_that_is_busy_for_longer_than_we_wait(terminal: FakeTerminal, hasty: Mt4Broker):
    hasty.terminal.quotes("EURUSD")
    terminal.fault("send", slow=1.6)
    with pytest.raises(ExecutionUnknown):
        hasty.submit(order())
    assert settled(hasty).state is OrderState.FILLED and len(terminal.log("send")) == 1


def test_an_id_that_the_advisor_has_had_before(terminal: FakeTerminal, broker: Mt4Broker):
    broker.terminal.quotes("EURUSD")
    now = broker.state.number()
    for id_ in range(now - 2, now + 50):
        broker.terminal.folder.put(f"<:{id_}|SUBSCRIBE_SYMBOLS|EURUSD:>")
        wait_until(lambda: not broker.terminal.folder.waiting())
    with pytest.raises(ExecutionUnknown):
        broker.submit(order())
    for _ in range(60):  # ids go on, and leave what was used behind
        broker.state.number()
    assert settled(broker) is None and terminal.log("send") == []


@pytest.mark.parametrize(("code", "times"), [(138, 2), (135, 3), (136, 1), (146, 3)])
def test_a_price_that_has_moved_is_asked_again(terminal: FakeTerminal, broker: Mt4Broker, code: int, times: int):
    for _ in range(times):
        terminal.fault("send", error=code)
    assert broker.submit(order()).state is OrderState.FILLED and len(terminal.log("send")) == 1


@pytest.mark.parametrize(("code", "said"), [(138, "requote"), (132, "market is closed"), (134, "not enough money")])
def test_what_the_server_refuses_is_rejected(terminal: FakeTerminal, broker: Mt4Broker, code: int, said: str):
    for _ in range(4):
        terminal.fault("send", error=code)
    with pytest.raises(BrokerRejected, match=said):
        broker.submit(order())
    assert broker.order("EURUSD", order().client_order_id).state is OrderState.REJECTED and broker.positions() == []


def test_a_comment_that_the_server_edits_and_a_memory_that_is_lost(terminal: FakeTerminal, tmp_path: Path):
    broker = Mt4Broker(config(tmp_path), SystemClock(), terms)
    terminal.fault("send", comment="dealer #7 requoted")
    broker.submit(order())
    (entry,) = broker.fills("EURUSD")
    assert broker.positions()[0].owner == order().client_order_id
    other = Mt4Broker(config(tmp_path, state_folder=tmp_path / "empty"), SystemClock(), terms)
    assert other.order("EURUSD", order().client_order_id).state is OrderState.FILLED, "its number follows from its id"
    assert other.submit(order()).state is OrderState.FILLED and len(terminal.log("send")) == 1
    assert len(other.fills("EURUSD")) == 1, "it finds the fill, and gives it a number of its own"
    with pytest.raises(BrokerUnavailable, match="lost its memory"):
        other.fills("EURUSD", entry.fill_id)


def test_a_number_that_another_order_has_is_passed_over(terminal: FakeTerminal, broker: Mt4Broker):
    first, second, *_ = magics(order().client_order_id, broker.config.magic_base)
    broker.state.add(order("other-ent"), first, None)
    broker.submit(order())
    assert terminal.log("send")[0]["magic"] == second
    assert broker.positions()[0].owner == order().client_order_id


def test_what_opens_and_closes_between_two_looks_is_in_the_history(terminal: FakeTerminal, broker: Mt4Broker):
    terminal.fault("send", close=True)
    assert broker.submit(order(bracket=BRACKET)).state is OrderState.FILLED
    terminal.fault("send", close=True, mute=True)
    with pytest.raises(ExecutionUnknown):
        broker.submit(order("b-ent", bracket=BRACKET))
    assert settled(broker, "b-ent").state is OrderState.FILLED
    roles = [fill.role for fill in broker.fills("EURUSD")]
    assert sorted(roles) == [OrderRole.ENTRY] * 2 + [OrderRole.STOP] * 2 and broker.positions() == []


def test_half_a_file_is_waited_for_and_then_named(terminal: FakeTerminal, hasty: Mt4Broker):
    hasty.submit(order())
    terminal.tell("tear", name="Orders", seconds=0.4)
    assert [held.quantity for held in hasty.positions()] == [10_000], "what was whole a moment ago"
    time.sleep(0.3)
    terminal.tell("tear", name="Messages", seconds=0.3)
    assert hasty.submit(order("b-ent")).state is OrderState.FILLED
    terminal.tell("manual", symbol="EURUSD", kind=0, lots="0.01", comment='he said "buy"')
    with pytest.raises(BrokerUnavailable, match="quotation mark"):
        for _ in range(100):
            hasty.positions()
            time.sleep(0.05)


def test_a_dead_advisor_is_seen_and_nothing_is_sent(terminal: FakeTerminal, hasty: Mt4Broker):
    hasty.terminal.quotes("EURUSD")
    terminal.tell("freeze", seconds=60)
    time.sleep(0.8)
    with pytest.raises(BrokerUnavailable, match=r"no sign of life from the expert advisor for \d s: is MetaTrader"):
        hasty.positions()
    with pytest.raises(BrokerRejected, match="not sent: no sign of life"):
        hasty.submit(order())
    terminal.tell("stop")
    with pytest.raises(BrokerRejected, match="not sent: there is no"):
        hasty.submit(order())
    terminal.tell("freeze", seconds=0)
    terminal.tell("start")
    assert hasty.submit(order()).state is OrderState.FILLED and len(terminal.log("send")) == 1


def test_a_weekend_settles_later(terminal: FakeTerminal, broker: Mt4Broker):
    broker.terminal.quotes("EURUSD")
    terminal.fault("send", mute=True, error=128)
    began = time.monotonic()
    with pytest.raises(ExecutionUnknown):
        broker.submit(order())
    assert settled(broker) is None and time.monotonic() - began >= 0.6, "no price has moved"


def test_another_account_gets_no_order(terminal: FakeTerminal, broker: Mt4Broker):
    terminal.tell("login", number=7)
    time.sleep(0.1)
    with pytest.raises(BrokerRejected, match="log in to 1234567"):
        broker.submit(order())
    assert terminal.log("send") == []


def test_another_program_in_the_folder_is_named(terminal: FakeTerminal, hasty: Mt4Broker):
    hasty.terminal.quotes("EURUSD")
    hasty.terminal.folder.file("Commands_3").write_text("<:1|CLOSE_ALL_ORDERS|:>")
    with pytest.raises(BrokerRejected, match=r"not sent: nobody reads DWX_Commands_3.txt"):
        hasty.submit(order())


def test_strangers_are_shown_as_strangers(terminal: FakeTerminal, broker: Mt4Broker):
    ticket = terminal.tell("manual", symbol="EURUSD", kind=1, lots="0.30")
    terminal.tell("pay", amount="500")
    broker.submit(order())
    held = {each.owner: each.quantity for each in broker.positions()}
    assert held == {f"external-{ticket}": -30_000, order().client_order_id: 10_000}
    terminal.tell("close", number=ticket, lots="0.10")
    assert {each.owner for each in broker.positions()} == {*held}, "the rest of it is the same stranger's"
    fills = broker.fills("EURUSD")
    told = {(fill.client_order_id, fill.role.value): fill.quantity for fill in fills}
    assert told == {(f"external-{ticket}", "entry"): 30_000, (order().client_order_id, "entry"): 10_000,
                    (f"external-{ticket}-clo", "close"): 10_000}  # fmt: skip
    assert broker.account().balance == 10_500 + Decimal("-1.00") + Decimal("-0.70") and broker.account().margin > 0


def test_a_person_closes_our_position(terminal: FakeTerminal, broker: Mt4Broker):
    broker.submit(order(bracket=BRACKET))
    terminal.tell("close", number=1001)
    assert broker.fills("EURUSD")[-1].client_order_id == "atlas-0123456789abcdef-clo"


def test_a_reboot_counts_messages_anew(terminal: FakeTerminal, broker: Mt4Broker):
    time.sleep(0.3)
    broker.submit(order("a-ent"))
    terminal.tell("reboot")
    assert broker.submit(order("b-ent")).state is OrderState.FILLED


def test_swap_that_pays_is_a_fee_below_nothing(terminal: FakeTerminal, broker: Mt4Broker):
    gold = order(quantity=10, symbol="XAUUSD")
    broker.submit(gold)
    for _ in range(10):
        terminal.tell("night")
    out = order("g-clo", "SELL", 10, symbol="XAUUSD", reduce_only=True, role="close", group=gold.client_order_id)
    broker.submit(out)
    paid = Decimal("10") * Decimal("0.12") - Decimal("0.70")
    assert [fill.fee for fill in broker.fills("XAUUSD")] == [0, -paid]
    assert broker.account().balance == 10_000 - 3 + paid


@pytest.mark.parametrize("after_put", [False, True])
def test_a_process_that_dies_while_it_sends(
    terminal: FakeTerminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after_put: bool
):
    broker = Mt4Broker(config(tmp_path), SystemClock(), terms)
    broker.terminal.quotes("EURUSD")
    place = (broker.terminal, "_answer") if after_put else (broker.terminal.folder, "put")
    monkeypatch.setattr(*place, _die)
    with pytest.raises(KeyboardInterrupt):
        broker.submit(order())
    other = Mt4Broker(config(tmp_path), SystemClock(), terms)
    status = settled(other)
    assert (status is not None) == after_put and len(terminal.log("send")) == after_put


def test_two_processes_share_a_terminal(terminal: FakeTerminal, tmp_path: Path):
    code = (
        "import sys; from orbiquant.trading.brokers.mt4.broker import Mt4Broker, Order\n"
        "from orbiquant.trading.brokers.mt4.config import Mt4Config; from orbiquant.core import SystemClock\n"
        "broker = Mt4Broker(Mt4Config.model_validate_json(sys.argv[1]), SystemClock(), None)\n"
        "for n in range(3):\n"
        "    name = f'{sys.argv[2]}{n}-ent'\n"
        "    broker.submit(Order(client_order_id=name, symbol='EURUSD', side='BUY', quantity=1000))\n"
        "broker.fills('EURUSD')"
    )
    command = [sys.executable, "-c", code, config(tmp_path, command_answer_s=9).model_dump_json()]
    with run_program([*command, "a"]) as one, run_program([*command, "b"]) as two:
        assert (one.wait(60), two.wait(60)) == (0, 0)
    sent = terminal.log("send")
    assert len({each["magic"] for each in sent}) == len(sent) == 6
    fills = Mt4Broker(config(tmp_path), SystemClock(), terms).fills("EURUSD")
    assert len(fills) == 6 == len({fill.fill_id for fill in fills})


def test_an_account_that_is_reset_has_lost_what_it_had(tmp_path: Path):
    waiting = order(type="limit", limit_price="1.09000", bracket=Bracket(stop_loss="1.08000"))
    with fake_terminal(tmp_path / "Files", *QUICK):
        Mt4Broker(config(tmp_path), SystemClock(), terms).submit(waiting)
    shutil.rmtree(tmp_path / "Files")
    with fake_terminal(tmp_path / "Files", *QUICK):
        broker = Mt4Broker(config(tmp_path), SystemClock(), terms)
        assert broker.order("EURUSD", waiting.client_order_id) is None, "the sender halts: it was accepted once"
        assert broker.open_orders() == []


# --- all of it together ---


class Storm:
    """Orders in bad weather, each remembered with what was said of it."""

    def __init__(self, terminal: FakeTerminal, broker: Mt4Broker, seed: int) -> None:
        self.terminal, self.broker, self.dice = terminal, broker, Random(seed)
        self.said: dict[str, Any] = {}

    def weather(self) -> None:
        """Let something go wrong, or not."""
        on, dies = self.dice.choice(["send", "close"]), self.dice.random() < 0.3
        if self.dice.random() < 0.4:
            return
        if dies:
            self.terminal.fault(self.dice.choice(["command", on]), die=self.dice.choice(["before", "after"]))
            return
        kind = self.dice.randrange(6)
        if kind == 0:
            self.terminal.tell("tear", name=self.dice.choice(["Orders", "Messages", "Historic_Trades"]), seconds=0.2)
        elif kind == 1:
            self.terminal.tell("reboot")
        else:
            faults = [{"mute": True}, {"error": 138}, {"slow": 0.3}, {"error": 128, "late_s": 0.2}, {"close": True}]
            self.terminal.fault(on, **faults[kind - 1])

    def step(self, number: int) -> None:
        """Do one thing."""
        bid = Decimal("1.1") + self.dice.randrange(-60, 60) * Decimal("0.0001")
        self.terminal.price(bid)
        self.weather()
        try:
            held = [each.owner for each in self.broker.positions()]
        except BrokerUnavailable:  # it died of what was left over
            self.terminal.tell("revive")
            return
        if held and self.dice.random() < 0.5:
            part = self.dice.choice([1000, 3000, 10_000])
            sent = order(f"s{number}-clo", "SELL", part, reduce_only=True, role="close", group=self.dice.choice(held))
        else:
            sent = order(f"s{number}-ent", quantity=self.dice.choice([3000, 10_000]), bracket=self.bracket(bid))
        self.send(sent)
        self.terminal.tell("revive")

    def bracket(self, bid: Decimal) -> Bracket:
        return Bracket(stop_loss=bid - Decimal("0.004"), take_profit=bid + Decimal("0.006"))

    def send(self, sent: Order) -> None:
        try:
            self.said[sent.client_order_id] = self.broker.submit(sent)
        except BrokerRejected as error:
            self.said[sent.client_order_id] = error
        except ExecutionUnknown:
            self.said[sent.client_order_id] = None

    def settle(self) -> None:
        """Ask until nothing is in doubt."""
        for id_, said in self.said.items():
            if said is None:
                self.said[id_] = settled(self.broker, id_, lambda: self.terminal.tell("revive"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_storm_leaves_nothing_lost_and_nothing_doubled(terminal: FakeTerminal, tmp_path: Path, seed: int):
    broker = Mt4Broker(config(tmp_path, settle_s=0.6, command_answer_s=1.5, stale_s=1), SystemClock(), terms)
    storm = Storm(terminal, broker, seed)
    broker.terminal.quotes("EURUSD")
    for number in range(40):
        storm.step(number)
        storm.settle()  # as the sender does before it adds to what it does not know
    terminal.tell("revive")
    fills, magic = broker.fills("EURUSD"), broker.config.magic_base
    sent = Counter(each["magic"] for each in terminal.log("send"))
    for id_, said in storm.said.items():
        if id_.endswith("-ent"):
            came = isinstance(said, OrderStatus) and said.state is OrderState.FILLED
            assert sent[next(magics(id_, magic))] == came, (id_, said)
            assert [fill.role for fill in fills if fill.client_order_id == id_] == [OrderRole.ENTRY] * came, (id_, said)
        else:
            done = [fill for fill in fills if fill.client_order_id == id_]
            assert len(done) == (isinstance(said, OrderStatus) and said.state is OrderState.FILLED), (id_, said, done)
    opened, closed = terminal.log("send"), terminal.log("close")
    lots = [sum(Decimal(each["lots"]) for each in part) * 100_000 for part in (opened, closed)]
    told = [sum(fill.quantity for fill in fills if (fill.role is OrderRole.ENTRY) is opens) for opens in (True, False)]
    assert told == lots
    left = terminal.tell("state")
    assert sum(each.quantity for each in broker.positions()) == told[0] - told[1]
    assert sum(fill.fee for fill in fills) == -sum(Decimal(each["commission"]) for each in closed)
    paid = sum(-fill.side.sign * fill.price * fill.quantity - fill.fee for fill in fills)
    if not left["held"]:
        assert broker.account().balance == 10_000 + paid


# --- a foreign client ---


def test_the_stock_client_trades_on_a_polite_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`TEST_DWX_CLIENT` names the folder `python` of a checkout of darwinex/dwxconnect: no package brings it."""
    if (where := os.environ.get("TEST_DWX_CLIENT")) is None:
        pytest.skip("TEST_DWX_CLIENT names no stock client")
    monkeypatch.syspath_prepend(where)
    with fake_terminal(tmp_path / "Files", "--polite") as terminal:
        client = importlib.import_module("api.dwx_client").dwx_client(None, str(tmp_path / "Files"), verbose=False)
        try:
            _trade_with(client, terminal)
        finally:
            client.ACTIVE = False


def _trade_with(client: Any, terminal: FakeTerminal) -> None:
    client.subscribe_symbols(["EURUSD"])
    wait_until(lambda: client.market_data.get("EURUSD", {}).get("bid") == 1.1)
    client.open_order("EURUSD", "buy", lots=0.2, stop_loss=1.09, magic=7, comment="stock")
    wait_until(lambda: len(client.open_orders) == 1)
    (ticket,) = client.open_orders
    client.modify_order(ticket, stop_loss=1.095, take_profit=1.2)
    wait_until(lambda: client.open_orders[ticket]["TP"] == 1.2)
    client.close_order(ticket, lots=0.1)
    wait_until(lambda: ticket not in client.open_orders and len(client.open_orders) == 1)
    (rest,) = client.open_orders.values()
    assert (rest["lots"], rest["magic"], rest["comment"]) == (0.1, 7, f"from #{ticket}")
    for kind, price in (("buylimit", 1.05), ("sellstop", 1.06)):
        client.open_order("EURUSD", kind, lots=0.1, price=price, magic=8)
    wait_until(lambda: len(client.open_orders) == 3)
    client.close_orders_by_magic(7)
    wait_until(lambda: len(client.open_orders) == 2)
    client.close_all_orders()
    wait_until(lambda: not client.open_orders)
    client.get_historic_data("EURUSD", "D1")
    wait_until(lambda: "EURUSD_D1" in client.historic_data)
    client.subscribe_symbols_bar_data([["EURUSD", "M1"]])
    wait_until(lambda: "EURUSD_M1" in client.bar_data)
    assert len(terminal.log("close")) == 2 and len(terminal.log("delete")) == 2


# --- with the engine ---

EURUSD, HOUR = SeriesId.parse("EURUSD", "1h"), timedelta(hours=1)


class OneSignal:
    """A feed that says what a test puts into it, for the bar that closes."""

    def __init__(self, clock: FixedClock) -> None:
        self.clock, self.action = clock, ""

    def latest(self, series: SeriesId) -> Signal | None:
        facts = {"amd_phase": "neutral", "horizon": "24h", "reasoning": ["said"], "features": [], "model_version": "t"}
        levels = {"entry_price": 1.1, "stop_loss": 1.095, "take_profit": 1.11, "confidence": 0.7}
        if self.action == "SHORT":
            levels |= {"stop_loss": 1.105, "take_profit": 1.09}
        when = {"symbol": "EURUSD", "timeframe": "1h", "time": self.clock.now() - HOUR}
        return Signal(**when | facts | levels, action=self.action) if self.action else None

    def atr(self, series: SeriesId) -> float:
        return 0.002


class Desk:
    """An engine whose orders go to a terminal, and bars that a test lets close."""

    def __init__(self, broker: Mt4Broker, folder: Path) -> None:
        self.clock, account = FixedClock(datetime.now(UTC).replace(minute=0)), "mt4-1234567"
        self.feed, database = OneSignal(self.clock), fresh_database(folder)
        broker.clock = self.clock
        switches = Switches(database, folder / "switches", self.clock)
        standing = Standing(Pages(database), broker, account, "USD", terms, switches, self.clock)
        profile = loose_profile(EURUSD, initial_equity="10000", risk_per_trade="0.01")
        self.engine = TradingEngine(standing, {"nova": profile}, FREE, {"ml": self.feed})
        self.engine.recover()
        self.engine.enlist("nova")

    def hour(self, close: float = 1.1) -> None:
        """Let a bar close."""
        begin = self.clock.now()
        self.clock.advance(HOUR)
        bar = PriceBar("EURUSD", begin, self.clock.now(), 1.1, max(1.1, close), min(1.1, close), close, 1e9)
        self.engine.step({EURUSD: bar})


def test_an_engine_trades_through_the_terminal(terminal: FakeTerminal, broker: Mt4Broker, tmp_path: Path):
    desk = Desk(broker, tmp_path)
    desk.hour()
    desk.feed.action = "LONG"
    desk.hour()
    desk.feed.action = ""
    desk.hour()
    (held,) = desk.engine.books.positions("nova")
    assert (held.average_price, held.bracket.stop_loss) == (Decimal("1.1001"), Decimal("1.095"))
    assert not desk.engine.standing.beyond_books() and not desk.engine.standing.blocked("EURUSD")
    terminal.price("1.11000")
    desk.hour(1.11)
    (trade,) = desk.engine.books.trades("nova")
    assert (trade.reason, trade.entry, trade.exit) == (OrderRole.TARGET, Decimal("1.1001"), Decimal("1.11"))
    assert desk.engine.books.ledger.check() == []
    assert trade.pnl == broker.account().balance - 10_000, "to the cent what the terminal says"
    terminal.tell("manual", symbol="EURUSD", kind=0, lots="0.10")
    desk.hour()
    assert "in no agent's book" in desk.engine.standing.blocked("EURUSD")


def entered(broker: Mt4Broker, folder: Path, action: str = "LONG") -> Desk:
    """Return a desk whose agent holds euros, or owes some."""
    desk = Desk(broker, folder)
    desk.hour()
    desk.feed.action = action
    desk.hour()
    desk.feed.action = ""
    look(desk, broker)
    assert desk.engine.books.positions("nova") and not desk.engine.watch.differences()
    return desk


def look(desk: Desk, broker: Mt4Broker) -> str:
    """Look at the terminal between two bars, and return where the agent stands."""
    broker._looked = float("-inf")
    assert broker.due()
    look_at_venue(desk.engine)
    record = desk.engine.roster.find("nova")
    return f"{record.state}: {record.reason}"


def test_a_foreign_order_is_found_between_bars(terminal: FakeTerminal, broker: Mt4Broker, tmp_path: Path):
    desk = entered(broker, tmp_path)
    assert look(desk, broker).startswith("running") and not broker.due(), "seconds later there is nothing to see"
    terminal.tell("manual", symbol="EURUSD", kind=0, lots="0.10")
    assert "somebody else traded 10000 EURUSD" in look(desk, broker)
    assert adopt_venue(desk.engine, "a person") == {"adopted": {}}
    terminal.tell("manual", symbol="XAUUSD", kind=1, lots="0.10")
    look(desk, broker)
    desk.engine.roster.move("nova", "resume", "a person")
    assert "the venue holds -10 XAU" in look(desk, broker)
    assert terminal.log("close") == [], "nobody but a person ends what is foreign"


def test_what_the_server_closed_is_booked_between_bars(terminal: FakeTerminal, broker: Mt4Broker, tmp_path: Path):
    desk = entered(broker, tmp_path)
    for _ in range(3):
        terminal.tell("night")
    terminal.tell("close", number=1001)  # as a stop-out does
    assert look(desk, broker).startswith("running")
    (trade,) = desk.engine.books.trades("nova")
    assert trade.reason is OrderRole.CLOSE and trade.pnl == broker.account().balance - 10_000
    assert not desk.engine.watch.differences() and desk.engine.books.ledger.check() == []


def test_a_short_that_is_there_is_not_written_off(terminal: FakeTerminal, broker: Mt4Broker, tmp_path: Path):
    desk = entered(broker, tmp_path, "SHORT")
    held = desk.engine.books.positions("nova")[0]
    assert broker.holdings()["EUR"] == held.signed < 0
    terminal.tell("manual", symbol="EURUSD", kind=1, lots="0.10")
    look(desk, broker)
    adopt_venue(desk.engine, "a person")
    assert desk.engine.books.positions("nova") == [held] and not desk.engine.watch.differences()
    desk.engine.books.held[held.id].quantity += 20_000  # as if the books knew of more than there is
    assert [each.id for each, _ in desk.engine.watch._lost()] == [held.id]


def test_a_stop_that_somebody_took_away_is_put_back(terminal: FakeTerminal, broker: Mt4Broker, tmp_path: Path):
    desk = entered(broker, tmp_path)
    held = desk.engine.books.positions("nova")[0]
    broker.dealing.modify(1001, Decimal(0), Decimal(0), f"{held.id}-ent")
    look(desk, broker)
    assert broker.positions()[0].bracket.stop_loss == held.bracket.stop_loss
    changes = len(terminal.log("modify"))
    look(desk, broker)
    assert len(terminal.log("modify")) == changes, "what stands is left alone"


def test_a_terminal_that_stopped_is_said_by_the_next_look(terminal: FakeTerminal, hasty: Mt4Broker, tmp_path: Path):
    desk = entered(hasty, tmp_path)
    terminal.tell("stop")
    time.sleep(0.7)
    with pytest.raises(BrokerUnavailable, match="is MetaTrader running"):
        look(desk, hasty)
    terminal.tell("start")
    wait_until(lambda: "running" in _looked(desk, hasty))


def _looked(desk: Desk, broker: Mt4Broker) -> str:
    try:
        return look(desk, broker)
    except BrokerUnavailable:
        return ""


def test_exits_that_move_are_denied_before_anything_is_sent(terminal: FakeTerminal, broker: Mt4Broker, tmp_path: Path):
    desk = Desk(broker, tmp_path)
    plan = parse_plan("trail_atr=2")
    desk.engine.profiles = {"nova": desk.engine.profiles["nova"].model_copy(update={"exits": plan})}
    desk.engine.load()
    desk.hour()
    desk.feed.action = "LONG"
    desk.hour()
    answer = desk.engine.journal.last("nova")[0]
    assert answer.outcome == "denied" and answer.reason.startswith("exits_fixed") and terminal.log("send") == []


def test_an_engine_asks_where_the_terminal_left_it_in_doubt(terminal: FakeTerminal, broker: Mt4Broker, tmp_path: Path):
    desk = Desk(broker, tmp_path)
    desk.hour()
    broker.terminal.quotes("EURUSD")
    terminal.fault("send", error=128, late_s=1.0)
    desk.feed.action = "LONG"
    desk.hour()
    desk.feed.action = ""
    (waiting,) = desk.engine.sender.waiting.values()
    assert waiting.state is OrderState.UNKNOWN and "not known yet" in desk.engine.standing.blocked("EURUSD")
    time.sleep(1.2)
    desk.hour()
    assert [held.quantity for held in desk.engine.books.positions("nova")] == [waiting.order.quantity]
    assert len(terminal.log("send")) == 1 and not desk.engine.standing.beyond_books()


# --- what is read ---

WHOLE = (
    b'{"account_info": {"name": "n", "number": 1, "currency": "USD", "leverage": 100, "free_margin": 1.0, '
    b'"balance": 1.0, "equity": 1.0}, "orders": {"7": {"magic": 5, "symbol": "EURUSD", "lots": 0.10, "type": "buy", '
    b'"open_price": 1.1, "open_time": "2026.11.30 10:00:00", "SL": 0.0, "TP": 0.0, "pnl": 0.0, "commission": -0.7, '
    b'"swap": 0.0, "comment": "x"}}}'
)


def _mutated(place: int, put: bytes) -> bytes:
    """Return a whole file with a few bytes written over."""
    return WHOLE[:place] + put + WHOLE[place + len(put) :]


@pytest.mark.parametrize("read", [read_orders_file, read_history_file, read_quotes_file, read_messages_file])
@given(st.one_of(st.binary(max_size=300), st.builds(_mutated, st.integers(0, 500), st.binary(max_size=4))))
def test_no_bytes_break_a_reader(read: Any, content: bytes):
    read(content)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Mt4Broker:
    """Return a broker whose terminal does not run."""
    return Mt4Broker(config(tmp_path_factory.mktemp("still")), SystemClock(), terms)


FIELDS = ("magic", "symbol", "lots", "type", "open_price", "close_price", "SL", "TP", "commission", "swap", "open_time")
ODD = st.one_of(
    *(st.integers(), st.floats(), st.text(max_size=40), st.none(), st.just([])),
    st.datetimes().map(lambda when: when.strftime("%Y.%m.%d %H:%M:%S")),
    st.sampled_from(["buy", "sellstop", "C", "#DAX", "é", "0", 1e15, 1e-9, 1_500_000_000]),
)
ROW = json.loads(WHOLE)["orders"]["7"] | {"close_price": 1.2, "close_time": "2026.11.30 11:00:00"}


@given(
    changes=st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=2),
    comment=st.one_of(st.text(max_size=40), st.sampled_from(["from #7", "[sl]", "a-ent[tp]"])),
    number=st.integers(-9, 2**64),
)
def test_whatever_is_read_can_be_told(still: Mt4Broker, changes: dict[str, Any], comment: str, number: int):
    content = json.dumps({str(number): ROW | changes | {"comment": comment}}).encode()
    for ticket in read_history_file(content) or ():
        told = still._position(ticket, {}) if ticket.held else still._waiting(ticket)
        assert told.quantity is not None
        still.lookout.matcher.events([], [ticket], "USD")


@given(st.integers(0, len(WHOLE) - 1))
def test_a_part_of_a_file_is_nothing(length: int):
    assert read_orders_file(WHOLE[:length]) is None


def test_numbers_are_exact_and_odd_ones_are_nothing():
    found = read_orders_file(WHOLE)
    assert found is not None and found.tickets[0].lots == Decimal("0.10")
    for odd in (b"nan", b"Infinity", b"-1e999999999", b"1" * 5000, b'"x"', b"null", b"[" * 5000):
        assert read_orders_file(WHOLE.replace(b'"lots": 0.10', b'"lots": ' + odd)) is None


def test_times_are_of_the_servers_clock():
    contracts = Contracts(config(Path("/x"), server_zone="America/New_York+7"))
    summer, winter = datetime(2026, 7, 1, 12), datetime(2026, 12, 1, 12)
    assert [contracts.moment(each).hour for each in (summer, winter)] == [9, 10]
    with pytest.raises(ValidationError, match="Europe/Athens"):
        config(Path("/x"), server_zone="Moon")


def test_names_of_the_broker_go_both_ways():
    contracts = Contracts(config(Path("/x"), symbol_suffix=".r", symbol_names="XAUUSD=GOLD, GER40=#DAX"))
    assert [contracts.written(each) for each in ("EURUSD", "XAUUSD", "GER40")] == ["EURUSD.r", "GOLD", "#DAX"]
    assert [contracts.symbol(each) for each in ("EURUSD.r", "GOLD", "#DAX", "é")] == [
        "EURUSD",
        "XAUUSD",
        "GER40",
        "NAMELESS",
    ]
    with pytest.raises(ValidationError, match="pairs such as"):
        config(Path("/x"), symbol_names="GOLD")
