"""How an order becomes a command, and what the venue's files make of its answer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal

from ....core import BrokerRejected, BrokerUnavailable, ExecutionUnknown
from ....execution.config import parse_plan
from ....orders import Bracket, Order, OrderState, OrderStatus, OrderType, TimeInForce
from ....ports import Clock
from .commands import AdvisorCommand, AdvisorReply, ReplyKind, close_command, entry_command, modify_command
from .lookout import Lookout
from .matching import MOST_ID, free_magic, ticket_kind
from .terminal import Snapshot
from .wire import Mt4Ticket


@contextmanager
def not_sent(
    order_id: str,  # of an order
) -> Iterator[None]:
    "Let what cannot be reached refuse: nothing was sent, and that is known."
    try:
        yield
    except BrokerUnavailable as error:
        raise BrokerRejected(f"not sent: {error.message}", client_order_id=order_id) from error


def plan_refusal(
    bracket: Bracket | None,  # of an order, or to be put in its place
) -> str:
    "Return why a bracket cannot lie at the server, '' where it can."
    if bracket is not None and bracket.exits and parse_plan(bracket.exits).moves:
        return f"`exits` must be fixed here, for MetaTrader moves no stop by itself, was {bracket.exits!r}"
    return ""


class Dealing:
    "Sends what is asked for, and says what came of it."

    def __init__(
        self,
        lookout: Lookout,  # that has the last word
        clock: Clock,  # that the server's is compared with
    ) -> None:
        "Send nothing yet."
        self.lookout, self.clock = lookout, clock
        self.terminal, self.contracts = lookout.terminal, lookout.contracts
        self.config, self.state = lookout.config, lookout.state

    def opening(
        self,
        order: Order,  # that opens
        snapshot: Snapshot,  # what there is
    ) -> AdvisorCommand:
        "Return the command that opens, and remember its order; raise `BrokerRejected` for what cannot be."
        id_, symbol = order.client_order_id, order.symbol
        if refusal := self._refusal(order, snapshot):
            raise BrokerRejected(refusal, client_order_id=id_)
        lots, written = self.contracts.lots(symbol, order.quantity), self.contracts.written(symbol)
        self.contracts.check_lot(symbol, self.terminal.quotes(written)[written])
        taken = {each.magic for each in snapshot.orders.tickets}
        if (magic := free_magic(id_, self.config, self.state, taken)) is None:
            raise BrokerRejected("every magic number that it may have is taken", client_order_id=id_)
        bracket, waits_for = order.bracket or Bracket(), order.limit_price or order.trigger_price
        price, stop, target = (
            self.contracts.price(symbol, each) for each in (waits_for, bracket.stop_loss, bracket.take_profit)
        )
        self.state.add(order, magic, None)
        self.state.limit(id_, bracket.close_at)
        return entry_command(written, ticket_kind(order), lots, price, stop, target, magic, id_)

    def _refusal(self, order: Order, snapshot: Snapshot) -> str:
        "Return why an order is not for this venue, '' where it is."
        currency, quote = snapshot.orders.account.currency, self.contracts.instrument(order.symbol).quote
        if len(order.client_order_id) > MOST_ID:
            return f"`client_order_id` must have at most {MOST_ID} characters here, was {order.client_order_id!r}"
        if quote != currency:
            return f"{order.symbol} is paid in {quote}, the account holds {currency}"
        if order.type is not OrderType.MARKET and order.time_in_force is not TimeInForce.GTC:
            return f"`time_in_force` must be gtc for what waits for a price, was {order.time_in_force}"
        return plan_refusal(order.bracket)

    def reducing(
        self,
        order: Order,  # that only reduces
        snapshot: Snapshot,  # what there is
    ) -> AdvisorCommand:
        "Return the command that closes a position or a part of it, and remember its order."
        ticket = self._taken_from(order, snapshot)
        held = self.contracts.units(order.symbol, ticket.lots)
        lots = self.contracts.lots(order.symbol, min(order.quantity, held))
        self.state.add(order, None, ticket.number)
        return close_command(ticket.number, lots)

    def _taken_from(self, order: Order, snapshot: Snapshot) -> Mt4Ticket:
        "Return the open position that an order takes from; raise `BrokerRejected` where there is none."
        if order.type is not OrderType.MARKET:
            raise BrokerRejected(f"what only reduces must be a market order here, was {order.type}")
        held = [each for each in snapshot.orders.tickets if each.held and each.sign == -order.side.sign]
        mine = [each for each in held if self.contracts.symbol(each.symbol) == order.symbol]
        if order.group is not None:
            mine = [each for each in mine if self.lookout.is_of(each, order.group)]
        if not mine:
            raise BrokerRejected(f"nothing of {order.symbol} is there to be reduced")
        if len(mine) > 1:
            raise BrokerRejected(f"`group` must name one of the {len(mine)} positions of {order.symbol}, was None")
        return mine[0]

    def send(
        self,
        order: Order,  # that is remembered
        command: AdvisorCommand,  # that carries it out
    ) -> AdvisorReply:
        "Send a command, again where the server refused it because the price had moved."

        def about_to(text: str, beat_ns: int) -> None:
            price = self.terminal.price(self.contracts.written(order.symbol))
            self.state.sending(order.client_order_id, text, beat_ns, price)

        for _ in range(self.config.retries + 1):
            try:
                reply = self.terminal.ask(command, about_to)
            except BrokerUnavailable as error:
                return AdvisorReply(ReplyKind.NOT_SENT, f"not sent: {error.message}")
            if reply.outcome is not ReplyKind.AGAIN:
                break
        return reply

    def outcome(
        self,
        order: Order,  # that was sent
        reply: AdvisorReply,  # to its last command
    ) -> OrderStatus:
        "Return what became of an order that was sent: the venue's files have the last word."
        id_ = order.client_order_id
        sent, status = self.state.sent(id_), None
        assert sent is not None
        look: Callable[[str, AdvisorReply], OrderStatus | None] = self._closed if order.reduce_only else self._opened
        try:
            status = None if reply.outcome is ReplyKind.NOT_SENT else look(id_, reply)
        except BrokerUnavailable as error:
            if reply.outcome is not ReplyKind.DONE:
                raise ExecutionUnknown(f"{reply.text}; {error.message}", client_order_id=id_) from error
        if status is not None:
            return self.state.keep(status)
        if reply.outcome is ReplyKind.UNCERTAIN:
            raise ExecutionUnknown(reply.text, client_order_id=id_)
        number = None if reply.ticket is None else str(reply.ticket)
        done = reply.outcome is ReplyKind.DONE
        state = OrderState.SUBMITTED if done else OrderState.REJECTED
        update = {"state": state, "broker_order_id": number, "message": reply.text}
        status = self.state.keep(sent.status.model_copy(update=update))
        if not done:
            self.state.limit(id_, None)
            raise BrokerRejected(reply.text, client_order_id=id_)
        return status

    def _opened(self, id_: str, reply: AdvisorReply) -> OrderStatus | None:
        "Look for an entry among the open tickets, and in the history where it is said to be done."
        before = self.terminal.folder.stamp("Orders")
        status = self.lookout.entry(id_, deep=False)
        if status is None:
            self.terminal.await_beat(before, self.config.stale_s)
            status = self.lookout.entry(id_, deep=reply.outcome is ReplyKind.DONE)
        ticket = None if status is None else self.lookout.find(id_)
        if ticket is not None:
            self.contracts.check_clock(ticket.open_time, self.clock.now())
        return status

    def _closed(self, id_: str, reply: AdvisorReply) -> OrderStatus | None:
        "Look for what a close did."
        sent = self.state.sent(id_)
        assert sent is not None
        if reply.outcome is ReplyKind.DONE:  # no doubt is left, so that the history's line is known to be its own
            self.state.keep(sent.status.model_copy(update={"state": OrderState.SUBMITTED}))
        elif any(each.number == sent.ticket for each in self.terminal.snapshot().orders.tickets):
            return None
        return self.lookout.closing(sent)

    def modify(
        self,
        number: int,  # of a ticket
        stop: Decimal,  # 0: none
        target: Decimal,  # 0: none
        id_: str,  # of the entry
    ) -> None:
        "Put levels to a ticket; raise unless they stand."
        before = self.terminal.folder.stamp("Orders")
        reply = self.change(id_, modify_command(number, stop, target))
        if reply.outcome is ReplyKind.DONE:
            return
        try:
            self.terminal.await_beat(before, self.config.stale_s)
            tickets = self.terminal.snapshot().orders.tickets
        except BrokerUnavailable as error:
            raise ExecutionUnknown(f"{reply.text}; {error.message}", client_order_id=id_) from error
        if (number, stop, target) in {(each.number, each.stop_loss, each.take_profit) for each in tickets}:
            return
        kind = ExecutionUnknown if reply.outcome is ReplyKind.UNCERTAIN else BrokerRejected
        raise kind(reply.text, client_order_id=id_)

    def change(
        self,
        id_: str,  # of an order
        command: AdvisorCommand,  # that does no harm twice
    ) -> AdvisorReply:
        "Send a command that may be sent twice: it says how things are to be, not what is to be added."
        for _ in range(self.config.retries + 1):
            with not_sent(id_):
                reply = self.terminal.ask(command)
            if reply.outcome is not ReplyKind.AGAIN:
                break
        return reply
