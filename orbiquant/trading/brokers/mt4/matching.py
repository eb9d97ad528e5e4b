"""Whose ticket is whose: a number that follows from an order's id, whatever the server makes of comments and tickets."""

import re
from collections.abc import Collection, Iterable, Iterator
from decimal import Decimal
from hashlib import blake2b
from typing import NamedTuple

from ....orders import Fill, Order, OrderRole, OrderState, OrderStatus, OrderType, Side, exactly
from .config import MAGICS, Mt4Config
from .contracts import Contracts
from .state import AccountMemory, Sent
from .wire import Mt4Ticket

MOST_ID = 31  # characters of a comment, and so of an id
MAGIC_PROBES = 8  # numbers that an order may have, where others have taken the first
FOREIGN = "external"
_OPENS = {OrderType.MARKET: ("buy", "sell"), OrderType.LIMIT: ("buylimit", "selllimit"),
          OrderType.STOP: ("buystop", "sellstop")}  # fmt: skip


def ticket_kind(
    order: Order,  # that opens
) -> str:
    "Return MetaTrader's name of an order's type."
    return _OPENS[order.type][order.side is Side.SELL]


def magics(
    order_id: str,  # of an entry
    base: int,  # first number that is ours
) -> Iterator[int]:
    "Yield the magic numbers that an order may have, the likeliest first."
    for probe in range(MAGIC_PROBES):
        text = order_id if not probe else f"{order_id}#{probe}"
        yield base + int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) % MAGICS


def free_magic(
    order_id: str,  # of an entry that was never sent
    config: Mt4Config,  # which numbers are ours
    state: AccountMemory,  # which are taken
    open_: Collection[int],  # magic numbers of open tickets
) -> int | None:
    "Return the number that an order is sent with; None where all are taken."
    numbers = magics(order_id, config.magic_base)
    return next((each for each in numbers if each not in open_ and state.by_magic(each) is None), None)


def is_ours(
    ticket: Mt4Ticket,  # of the terminal
    config: Mt4Config,  # which numbers are ours
) -> bool:
    "Say whether a ticket came from here."
    return config.magic_base <= ticket.magic < config.magic_base + MAGICS


def is_of(
    ticket: Mt4Ticket,  # of ours, where the memory of it is lost
    order_id: str,  # of an entry
    base: int,  # first number that is ours
) -> bool:
    "Say whether a ticket is an order's by its number, unless an untouched comment says otherwise."
    if ticket.magic not in magics(order_id, base):
        return False
    comment = re.sub(r"\[(sl|tp)\]$", "", ticket.comment)
    other = re.fullmatch(r"[A-Za-z0-9_-]{1,31}-ent", comment)
    return other is None or comment == order_id


def entry_id(
    ticket: Mt4Ticket,  # of the terminal
    config: Mt4Config,  # which numbers are ours
    state: AccountMemory,  # what was sent
) -> str:
    "Return the id of the entry that a ticket came from; a stranger's is named after the ticket."
    if not is_ours(ticket, config):
        return f"{FOREIGN}-{ticket.parent or ticket.number}"
    if (known := state.by_magic(ticket.magic)) is not None:
        return known.id
    comment = re.sub(r"\[(sl|tp)\]$", "", ticket.comment)
    told = re.fullmatch(r"[A-Za-z0-9_-]{1,31}", comment) and ticket.magic in magics(comment, config.magic_base)
    return comment if told else f"magic-{ticket.magic}"


class Event(NamedTuple):
    "Something that a ticket went through."

    key: str  # unique
    fill: Fill


class Matcher:
    "Turns tickets into what the engine knows: statuses and fills."

    def __init__(
        self,
        config: Mt4Config,  # which numbers are ours
        contracts: Contracts,  # symbols, lots and times
        state: AccountMemory,  # what was sent
    ) -> None:
        "Look at nothing yet."
        self.config, self.contracts, self.state = config, contracts, state

    @exactly
    def entry_status(
        self,
        order_id: str,  # of an entry
        tickets: Iterable[Mt4Ticket],  # all that are its own, open and closed
    ) -> OrderStatus | None:
        "Return what the venue says of an entry; None where it has nothing of it."
        found = sorted(tickets, key=lambda each: each.number)
        if not found:
            return None
        first = found[0]
        held = [each for each in found if each.held]
        state, said = OrderState.FILLED if held else OrderState.SUBMITTED, ""
        if not held and first.close_time is not None:
            state = OrderState.EXPIRED if "expiration" in first.comment else OrderState.CANCELLED
            said = first.comment
        lots = sum((each.lots for each in held), Decimal(0))
        symbol = self.contracts.symbol(first.symbol)
        return OrderStatus(
            client_order_id=order_id, broker_order_id=str(first.number), state=state,
            filled_quantity=self.contracts.units(symbol, lots), average_price=held[0].open_price if held else None,
            message=said,
        )  # fmt: skip

    @exactly
    def close_status(
        self,
        sent: Sent,  # an order that was to close
    ) -> OrderStatus | None:
        "Return how a close ended, None where nothing of it is known."
        fills = self.state.fills_of(sent.id)
        if not fills:
            return None
        quantity = sum((fill.quantity for fill in fills), Decimal(0))
        price = sum((fill.quantity * fill.price for fill in fills), Decimal(0)) / quantity
        return OrderStatus(client_order_id=sent.id, broker_order_id=str(sent.ticket), state=OrderState.FILLED,
                           filled_quantity=quantity, average_price=price)  # fmt: skip

    def events(
        self,
        open_: Iterable[Mt4Ticket],  # tickets
        closed: Iterable[Mt4Ticket],  # and those of the history, as far as it was looked at
        currency: str,  # of the account, in which costs are paid
    ) -> list[Event]:
        "Return what is not numbered yet, by time."
        known, found = self.state.events(), list[Event]()
        families: dict[str, list[Mt4Ticket]] = {}
        for ticket in [*open_, *closed]:
            if ticket.held and ticket.lots and self._counts(ticket):
                families.setdefault(entry_id(ticket, self.config, self.state), []).append(ticket)
        for id_, tickets in families.items():
            if f"open:{id_}" not in known and (opened := self._opened(id_, tickets)) is not None:
                found.append(opened)
            gone = [each for each in tickets if each.close_price and f"close:{each.number}" not in known]
            found += [self._closed(id_, each) for each in gone]
        found = [each._replace(fill=each.fill.model_copy(update={"fee_asset": currency})) for each in found]
        return sorted(found, key=lambda event: (event.fill.time, event.fill.role is not OrderRole.ENTRY, event.key))

    def _counts(self, ticket: Mt4Ticket) -> bool:
        "Say whether a ticket is of our time: what strangers did before is nobody's news."
        born = self.state.moment("born")
        return is_ours(ticket, self.config) or self.contracts.moment(ticket.open_time).timestamp() >= born - 1

    @exactly
    def _opened(self, id_: str, tickets: list[Mt4Ticket]) -> Event | None:
        "Return the fill of an entry; None while a part of it is in no file that was read."
        first, known = min(tickets, key=lambda each: each.number), self.state.sent(id_)
        if known is None and first.parent is not None:
            return None  # its beginning is in the history
        symbol = self.contracts.symbol(first.symbol)
        lots = sum((each.lots for each in tickets), Decimal(0))
        quantity = self.contracts.units(symbol, lots) if known is None else known.order.quantity
        return Event(f"open:{id_}", self._fill(id_, first, quantity, first.open_price, OrderRole.ENTRY))

    @exactly
    def _closed(self, id_: str, ticket: Mt4Ticket) -> Event:
        "Return the fill of what was closed, with all that the position has cost: costs are known for sure at its end."
        closing = self.state.closing(ticket.number)
        role = self._why(ticket, closing)
        mine = closing is not None and role is closing.order.role
        name = closing.id if closing is not None and mine else f"{id_.removesuffix('-ent')}-{role.value[:3]}"
        quantity = self.contracts.units(self.contracts.symbol(ticket.symbol), ticket.lots)
        fill = self._fill(name, ticket, quantity, ticket.close_price or Decimal(0), role)
        fill = fill.model_copy(update={"fee": -(ticket.commission + ticket.swap) + 0})  # below 0 where they cost
        return Event(f"close:{ticket.number}", fill)

    def _why(self, ticket: Mt4Ticket, closing: Sent | None) -> OrderRole:
        "Return why a position was closed: the server's mark, an order of ours, the price, or a person."
        for mark, role in (("[sl]", OrderRole.STOP), ("[tp]", OrderRole.TARGET)):
            if mark in ticket.comment:
                return role
        price, sign = ticket.close_price or Decimal(0), ticket.sign
        if closing is not None and (closing.status.state is OrderState.FILLED or not closing.doubt):
            return closing.order.role
        if ticket.stop_loss and sign * (price - ticket.stop_loss) <= 0:
            return OrderRole.STOP
        if ticket.take_profit and sign * (price - ticket.take_profit) >= 0:
            return OrderRole.TARGET
        return OrderRole.CLOSE if closing is None else closing.order.role

    def _fill(self, id_: str, ticket: Mt4Ticket, quantity: Decimal, price: Decimal, role: OrderRole) -> Fill:
        opens = role is OrderRole.ENTRY
        side = Side.BUY if (ticket.sign > 0) is opens else Side.SELL
        when = ticket.open_time if opens or ticket.close_time is None else ticket.close_time
        symbol = self.contracts.symbol(ticket.symbol)
        return Fill(
            fill_id="0", client_order_id=id_, symbol=symbol, side=side, quantity=quantity, price=price,
            fee=Decimal(0), fee_asset="", time=self.contracts.moment(when),
            role=role,
        )  # fmt: skip
