"""What a victim says of itself before and after each act: one line each, on the disk before the act."""

import json
import mmap
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from orbiquant.core import BrokerRejected, BrokerUnavailable, ExecutionUnknown
from orbiquant.orders import Account, Bracket, Capabilities, Fill, Order, OrderStatus, Position
from orbiquant.trading.brokers.terms import PriceBar


class Wire:
    """An append-only log that outlives its writer."""

    def __init__(self, path: Path, life: int) -> None:
        """Go on behind what an earlier life wrote."""
        self.file, self.life, self.moment = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600), life, ""
        self.later_ns = 0  # that its clock is ahead

    def write(self, kind: str, **facts: Any) -> None:
        """Write a line, and return when the disk has it."""
        row = {"kind": kind, "life": self.life, "wall": time.time_ns() + self.later_ns, "moment": self.moment, **facts}
        os.write(self.file, json.dumps(row, default=str).encode() + b"\n")
        os.fdatasync(self.file)

    def write_later(self, seconds: float) -> None:
        """Let time pass, in what is written from now on."""
        self.later_ns += int(seconds * 1e9)


class Gate:
    """Says whether a transaction or an intent is open, to whoever looks after the process is dead."""

    TRANSACTION, INTENT, PLACE = 0, 1, 16

    def __init__(self, path: Path) -> None:
        """Open the page that survives the process."""
        if not path.exists():
            path.write_bytes(bytes(256))
        with path.open("r+b") as file:
            self.map = mmap.mmap(file.fileno(), 256)

    def counts(self, sending: bool) -> bool:
        """Say whether a kill now lands in a commit or an intent, or, `sending`, in an intent outside of a commit."""
        if sending:
            return bool(self.map[self.INTENT] and not self.map[self.TRANSACTION])
        return bool(self.map[self.TRANSACTION] or self.map[self.INTENT])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Be open while the block runs."""
        self.map[self.TRANSACTION] = 1
        try:
            yield
        finally:
            self.map[self.TRANSACTION] = 0

    def intent(self, open_: bool) -> None:
        """Say whether an order is written whose answer is not."""
        self.map[self.INTENT] = int(open_)

    def note(self, place: str) -> None:
        """Write where the process dies."""
        content = place.encode()[: 256 - self.PLACE]
        self.map[self.PLACE : 256] = content.ljust(256 - self.PLACE, b"\0")

    def read(self) -> tuple[bool, bool, str]:
        """Return whether a transaction and an intent were open, and where the process died."""
        place = bytes(self.map[self.PLACE : 256]).rstrip(b"\0").decode()
        return bool(self.map[self.TRANSACTION]), bool(self.map[self.INTENT]), place

    def clear(self) -> None:
        """Forget the dead."""
        self.map[:] = bytes(256)


class LoggedBroker:
    """A broker whose every order, change and answer is written down; the rest passes through."""

    def __init__(self, broker: Any, wire: Wire) -> None:
        """Stand before a broker."""
        self.broker, self.wire = broker, wire

    def capabilities(self, symbol: str) -> Capabilities:
        """Return what it can do on a market."""
        return self.broker.capabilities(symbol)

    def open_orders(self) -> list[Order]:
        """Return what stands."""
        return self.broker.open_orders()

    def positions(self) -> list[Position]:
        """Return what is held."""
        return self.broker.positions()

    def account(self) -> Account:
        """Return what is owned."""
        return self.broker.account()

    def fills(self, symbol: str, after: str | None = None) -> list[Fill]:
        """Return the fills behind the cursor."""
        return self.broker.fills(symbol, after)

    def submit(self, order: Order) -> OrderStatus:
        """Write the order, send it, write the reply."""
        id_ = order.client_order_id
        self.wire.write("submit", id=id_, order=order.model_dump(mode="json"))
        try:
            status = self.broker.submit(order)
        except BrokerRejected as error:
            self.wire.write("reply", id=id_, outcome="rejected", message=error.message)
            raise
        except ExecutionUnknown:
            self.wire.write("reply", id=id_, outcome="unknown")
            raise
        self.wire.write("reply", id=id_, outcome=status.state)
        return status

    def amend(self, symbol: str, client_order_id: str, bracket: Bracket) -> None:
        """Write the change, send it, write that it was taken."""
        self.wire.write("amend", id=client_order_id, bracket=bracket.model_dump(mode="json"))
        self.broker.amend(symbol, client_order_id, bracket)
        self.wire.write("amended", id=client_order_id)

    def cancel(self, symbol: str, client_order_id: str) -> OrderStatus:
        """Write that an order is to go, send it, write how it ended."""
        self.wire.write("cancel", id=client_order_id)
        status = self.broker.cancel(symbol, client_order_id)
        self.wire.write("cancelled", id=client_order_id, outcome=status.state)
        return status

    def order(self, symbol: str, client_order_id: str) -> OrderStatus | None:
        """Ask, and write the answer."""
        try:
            status = self.broker.order(symbol, client_order_id)
        except BrokerUnavailable:
            self.wire.write("asked", id=client_order_id, outcome="unsettled")
            raise
        self.wire.write("asked", id=client_order_id, outcome="never" if status is None else status.state)
        return status


class LoggedVenue(LoggedBroker):
    """The same for a venue that goes on by itself: what is looked at passes through, protection is written down."""

    def begin(self, since: datetime) -> None:
        """Listen to what happens."""
        self.broker.begin(since)

    def due(self) -> bool:
        """Say whether it is time to look."""
        return self.broker.due()

    def looked(self, again: bool) -> None:
        """Note that somebody looks."""
        self.broker.looked(again)

    def holdings(self) -> dict[str, Decimal]:
        """Return what is owned, by asset."""
        return self.broker.holdings()

    def resting(self) -> Collection[tuple[str, str]]:
        """Return symbol and id of every order that stands."""
        return self.broker.resting()

    def guard(self, symbol: str, client_order_id: str, quantity: Decimal, bracket: Bracket) -> str:
        """See to it that protection stands, and write what was done."""
        said = self.broker.guard(symbol, client_order_id, quantity, bracket)
        if said:
            self.wire.write("guarded", id=client_order_id, said=said)
        return said


class LoggedPaper(LoggedBroker):
    """The same for a broker that bars fill."""

    def load(self) -> None:
        """Forget what was not written."""
        self.broker.load()

    def deposit(self, amount: Decimal) -> None:
        """Put cash into the account."""
        self.broker.deposit(amount)

    def advance(self, bar: PriceBar) -> list[Fill]:
        """Let a bar fill what rests."""
        return self.broker.advance(bar)

    def close_all(self, bar: PriceBar) -> list[Fill]:
        """Close what is held."""
        return self.broker.close_all(bar)
