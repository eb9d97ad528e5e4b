"""What became of an order: open tickets and the history decide, and time, where neither has it."""

import time
from contextlib import suppress

from ....core import BrokerUnavailable, get_logger
from ....orders import OrderState, OrderStatus
from .contracts import Contracts
from .matching import Matcher, is_of
from .state import Sent
from .terminal import Snapshot, Terminal
from .wire import Mt4Ticket

DAY_S = 86_400


class Lookout:
    "Asks a terminal about orders, and never writes one."

    def __init__(
        self,
        terminal: Terminal,  # to be asked
        contracts: Contracts,  # symbols, lots and times
        matcher: Matcher,  # whose ticket is whose
    ) -> None:
        "Look at nothing yet."
        self.terminal, self.contracts, self.matcher = terminal, contracts, matcher
        self.config, self.state = terminal.config, terminal.state
        self._looked, self._shape = float("-inf"), tuple[object, ...]()  # when, and what was open then

    def is_of(
        self,
        ticket: Mt4Ticket,  # open or closed
        order_id: str,  # of an entry
    ) -> bool:
        "Say whether a ticket came from an entry: its number tells, whatever became of comment and ticket."
        known = self.state.sent(order_id)
        if known is not None:
            return known.magic == ticket.magic
        return self.state.by_magic(ticket.magic) is None and is_of(ticket, order_id, self.config.magic_base)

    def find(
        self,
        order_id: str,  # of an entry
    ) -> Mt4Ticket | None:
        "Return the open ticket of an entry."
        tickets = self.terminal.snapshot().orders.tickets
        return next((each for each in tickets if self.is_of(each, order_id)), None)

    def entry(
        self,
        order_id: str,  # of what opens
        deep: bool = True,  # in the history, too
    ) -> OrderStatus | None:
        "Return where an entry stands, None where it is not found."
        status = self._standing(order_id, self.terminal.snapshot())
        if status is None and deep:
            closed = self.look(anew=True)
            found = {each.number: each for each in (*self.terminal.snapshot().orders.tickets, *closed)}
            mine = [each for each in found.values() if self.is_of(each, order_id)]
            status = self.matcher.entry_status(order_id, mine)
        return status

    def _standing(self, order_id: str, snapshot: Snapshot) -> OrderStatus | None:
        "Return where an entry stands that has an open ticket."
        tickets = [each for each in snapshot.orders.tickets if self.is_of(each, order_id)]
        status, known = self.matcher.entry_status(order_id, tickets), self.state.sent(order_id)
        if status is None or known is None or status.state is not OrderState.FILLED:
            return status
        return status.model_copy(update={"filled_quantity": known.order.quantity})  # a part may be closed by now

    def closing(
        self,
        sent: Sent,  # of what closes
    ) -> OrderStatus | None:
        "Return how a close ended, None where nothing came of it."
        self.look(anew=True)
        return self.matcher.close_status(sent)

    def settled(
        self,
        sent: Sent,  # an order that left no trace
    ) -> None:
        "Raise `BrokerUnavailable` while an order may still come."
        if sent.text in self.terminal.folder.waiting().values():
            raise BrokerUnavailable(f"the command of {sent.id} lies in the folder and was not read yet")
        written = self.contracts.written(sent.order.symbol)
        with suppress(BrokerUnavailable):  # no price: as quiet as it can be
            self.terminal.quotes(written)
        moved = bool(sent.price) and self.terminal.price(written) not in ("", sent.price)
        wait_s = self.config.settle_s if moved else self.config.quiet_settle_s
        left_s = wait_s - (self.terminal.snapshot().beat_ns - sent.beat_ns) / 1e9
        if left_s > 0:
            raise BrokerUnavailable(f"{sent.id} may still come; that is settled in {left_s:.0f} s")
        self.state.keep(sent.status, "void")

    def look(
        self,
        anew: bool = False,  # even if nothing has changed
    ) -> tuple[Mt4Ticket, ...]:
        "Number what is new, and return the history where it was looked at: when anything changed, or after a while."
        tickets = self.terminal.snapshot().orders.tickets
        late = time.monotonic() > self._looked + self.config.history_s
        if not (anew or late or self._shape != _shape(tickets) or self.state.in_doubt()):
            return ()
        closed = self.terminal.history(self._days())
        now = self.terminal.snapshot().orders  # after the history: what left meanwhile is missed, never counted twice
        gone = {each.number for each in closed}
        open_ = [each for each in now.tickets if each.number not in gone]
        for fill in self.state.record(self.matcher.events(open_, closed, now.account.currency)):
            get_logger("trading.mt4").info("filled", order=fill.client_order_id, role=fill.role, price=str(fill.price))
        opened = [self.contracts.moment(each.open_time).timestamp() for each in open_]
        self.state.note("oldest", min(opened, default=time.time()))
        self._looked, self._shape = time.monotonic(), _shape(now.tickets)
        return closed

    def _days(self) -> int:
        "Return how far back the history is asked for: it goes by the day that an order was opened."
        since_s = time.time() - self.state.moment("oldest")
        return max(self.config.history_reach_days, int(since_s / DAY_S) + 3)


def _shape(tickets: tuple[Mt4Ticket, ...]) -> tuple[object, ...]:
    return tuple((each.number, each.lots, each.kind) for each in tickets)
