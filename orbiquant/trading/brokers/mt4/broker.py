"""MetaTrader 4 behind the port of every broker: what was sent is asked about and never written again."""

from collections.abc import Callable, Collection
from datetime import datetime
from decimal import Decimal
from time import monotonic

from ....core import BrokerError, BrokerRejected, BrokerUnavailable, ExecutionUnknown, get_logger
from ....orders import (
    Account,
    Bracket,
    Capabilities,
    Fill,
    Order,
    OrderRole,
    OrderState,
    OrderStatus,
    OrderType,
    Position,
    Side,
    TradedSymbol,
    exactly,
)
from ....ports import Clock
from ..terms import PaperTerms
from .commands import NO_POSITION_LOTS, ReplyKind, close_command
from .config import Mt4Config
from .contracts import Contracts
from .dealing import Dealing, not_sent, plan_refusal
from .lookout import Lookout
from .matching import MOST_ID, Matcher, entry_id, is_ours
from .state import AccountMemory
from .terminal import Terminal
from .wire import Mt4Ticket

HEDGED = Capabilities(short=True, id_length=MOST_ID, moves_exits=False)
_LOOK_S, _HURRY_S = 15.0, 1.0  # between two looks at the account, and while something is not as it should be


class Mt4Broker:
    "One account of MetaTrader 4."

    def __init__(
        self,
        config: Mt4Config,  # terminal, account, patience
        clock: Clock,  # tells when a position's time is over
        terms: Callable[[str], PaperTerms],  # what a symbol costs, for who weighs an order
    ) -> None:
        "Take up what was sent before; the terminal is looked at when it is needed."
        self.config, self.clock, self.terms = config, clock, terms
        folder, memory = config.places()
        self.state, self.contracts = AccountMemory(memory, config.login), Contracts(config)
        self.terminal = Terminal(config, self.state, folder)
        matcher = Matcher(config, self.contracts, self.state)
        self.lookout = Lookout(self.terminal, self.contracts, matcher)
        self.dealing = Dealing(self.lookout, clock)
        self._looked, self._hurry = float("-inf"), False

    # --- what is there ---

    def capabilities(
        self,
        symbol: TradedSymbol,  # of a market
    ) -> Capabilities:
        "Return what MetaTrader can do: hedged tickets, each with a stop and a target of its own."
        return HEDGED

    def account(self) -> Account:
        "Return what is owned, in the account's currency."
        info = self.terminal.snapshot().orders.account
        margin = max(Decimal(0), info.equity - info.free_margin)
        return Account(
            owner=str(info.number), currency=info.currency, balance=info.balance, equity=info.equity, margin=margin
        )

    @exactly
    def positions(self) -> list[Position]:
        "Return what is held, ticket by ticket; the owner is the entry's order, or a stranger's ticket."
        limits = self.state.limits()
        return [self._position(each, limits) for each in self.terminal.snapshot().orders.tickets if each.held]

    def _position(self, ticket: Mt4Ticket, limits: dict[str, datetime]) -> Position:
        symbol, id_ = self.contracts.symbol(ticket.symbol), entry_id(ticket, self.config, self.state)
        bracket = Bracket(stop_loss=ticket.stop_loss or None, take_profit=ticket.take_profit or None,
                          close_at=limits.get(id_))  # fmt: skip
        return Position(
            owner=id_, symbol=symbol, quantity=ticket.sign * self.contracts.units(symbol, ticket.lots),
            average_price=ticket.open_price, bracket=bracket, opened_at=self.contracts.moment(ticket.open_time),
        )  # fmt: skip

    def open_orders(self) -> list[Order]:
        "Return what waits for its price, strangers' orders among it."
        tickets = self.terminal.snapshot().orders.tickets
        return [self._waiting(each) for each in tickets if not each.held]

    def _waiting(self, ticket: Mt4Ticket) -> Order:
        known = self.state.by_magic(ticket.magic) if is_ours(ticket, self.config) else None
        if known is not None:
            return known.order
        symbol, limit = self.contracts.symbol(ticket.symbol), ticket.kind.endswith("limit")
        return Order(
            client_order_id=entry_id(ticket, self.config, self.state), symbol=symbol,
            side=Side.BUY if ticket.sign > 0 else Side.SELL, quantity=self.contracts.units(symbol, ticket.lots),
            type=OrderType.LIMIT if limit else OrderType.STOP, limit_price=ticket.open_price if limit else None,
            trigger_price=None if limit else ticket.open_price,
        )  # fmt: skip

    def fills(
        self,
        symbol: TradedSymbol,  # whose fills
        after: str | None = None,  # the last fill id that is known
    ) -> list[Fill]:
        "Return the fills behind the cursor; what is to be closed by now is closed first, for MetaTrader has no clock."
        if after is not None and not self.state.numbered(int(after)):
            raise BrokerUnavailable(
                f"{self.state.path} has lost its memory: fill {after} of {symbol} is booked and not in it. Bring the "
                "file back from a copy; without it fills would be booked twice"
            )
        self._close_due()
        self.lookout.look()
        return self.state.fills(symbol, int(after or 0))

    def order(
        self,
        symbol: TradedSymbol,  # of the order
        client_order_id: str,  # its id
    ) -> OrderStatus | None:
        "Return what the venue says of an order; None when time and prices have passed and nothing has it."
        sent = self.state.sent(client_order_id)
        if sent is not None and sent.status.state.ended and not sent.doubt:
            return sent.status
        opens = sent is None or sent.magic is not None
        status = self.lookout.entry(client_order_id) if sent is None or opens else self.lookout.closing(sent)
        if status is not None:
            return self.state.keep(status)
        if sent is not None and sent.text and sent.doubt:
            self.lookout.settled(sent)
        return None  # never written, or written and lost on the way, or taken and gone: the asker knows which

    # --- a venue that goes on by itself ---

    def begin(
        self,
        since: datetime,  # unused: a memory numbers what came in its time
    ) -> None:
        "Raise `BrokerUnavailable` unless the terminal lives: it is looked at, and says nothing by itself."
        self.terminal.snapshot()

    def due(self) -> bool:
        "Say whether it is time to look at the account."
        passed = monotonic() - self._looked
        return passed >= _LOOK_S or (passed >= _HURRY_S and (self._hurry or self.state.in_doubt()))

    def looked(
        self,
        again: bool,  # soon: something is not as it should be
    ) -> None:
        "Note that the account is being looked at."
        self._looked, self._hurry = monotonic(), again

    @exactly
    def holdings(self) -> dict[str, Decimal]:
        "Return what is owned, by asset, as if all that is held were bought; what is paid in other money, by symbol."
        orders, owned = self.terminal.snapshot().orders, dict[str, Decimal]()
        money = orders.account.currency
        owned[money] = orders.account.balance
        for each in orders.tickets:
            if not each.held:
                continue
            symbol = self.contracts.symbol(each.symbol)
            instrument, units = self.contracts.instrument(symbol), each.sign * self.contracts.units(symbol, each.lots)
            asset = instrument.base if instrument.quote == money else symbol
            owned[asset] = owned.get(asset, Decimal(0)) + units
            owned[money] -= units * each.open_price if instrument.quote == money else 0
        return {asset: amount for asset, amount in owned.items() if amount}

    def resting(self) -> Collection[tuple[str, str]]:
        "Return symbol and id of every order that waits for a price, whoever sent it."
        return [(each.symbol, each.client_order_id) for each in self.open_orders()]

    def guard(
        self,
        symbol: TradedSymbol,  # of a position
        client_order_id: str,  # of the entry that it came from
        quantity: Decimal,  # unused: a level at the server is of the whole ticket
        bracket: Bracket,  # what closes it
    ) -> str:
        "See to it that exactly these levels stand at the server, and return what was done, '' for nothing."
        ticket = self.lookout.find(client_order_id)
        levels = tuple(self.contracts.price(symbol, each) for each in (bracket.stop_loss, bracket.take_profit))
        if ticket is None or not ticket.held or (ticket.stop_loss, ticket.take_profit) == levels:
            return ""
        self.amend(symbol, client_order_id, bracket)
        return "levels put back"

    # --- what is ordered ---

    def submit(
        self,
        order: Order,  # whose intent is durable already
    ) -> OrderStatus:
        "Send an order once; one that is known is told again. It ends accepted, rejected, or unknown."
        id_ = order.client_order_id
        with not_sent(id_):
            known = self.state.sent(id_)
        if known is not None:
            return self._again(order)
        with not_sent(id_):
            snapshot = self.terminal.snapshot()
            if (status := self.lookout.entry(id_, deep=False)) is not None:
                return status  # it is there, though this memory is younger
            command = (self.dealing.reducing if order.reduce_only else self.dealing.opening)(order, snapshot)
        reply = self.dealing.send(order, command)
        try:
            return self.dealing.outcome(order, reply)
        except BrokerUnavailable as error:  # it is sent, and what came of it cannot be written down
            raise ExecutionUnknown(f"{reply.text}; {error.message}", client_order_id=id_) from error

    def _again(self, order: Order) -> OrderStatus:
        "Return what became of an order that was sent before."
        id_ = order.client_order_id
        try:
            status = self.order(order.symbol, id_)
        except BrokerUnavailable as error:
            raise ExecutionUnknown(error.message, client_order_id=id_) from error
        if status is None or status.state is OrderState.REJECTED:
            said = "it never came" if status is None else status.message
            raise BrokerRejected(f"sent before: {said}; it is not sent again", client_order_id=id_)
        return status

    # --- what is changed ---

    def amend(
        self,
        symbol: TradedSymbol,  # of the position
        client_order_id: str,  # of the entry that it came from
        bracket: Bracket,  # what closes it from now on
    ) -> None:
        "Put other levels to a position in one stroke; raise `BrokerRejected` where there is none."
        with not_sent(client_order_id):
            ticket = self.lookout.find(client_order_id)
        if ticket is None:
            raise BrokerRejected(f"`client_order_id` must name the entry of a position, was {client_order_id!r}")
        if refusal := plan_refusal(bracket):
            raise BrokerRejected(refusal, client_order_id=client_order_id)
        stop, target = (self.contracts.price(symbol, each) for each in (bracket.stop_loss, bracket.take_profit))
        if (ticket.stop_loss, ticket.take_profit) != (stop, target):
            self.dealing.modify(ticket.number, stop, target, client_order_id)
        self.state.limit(client_order_id, bracket.close_at)

    def cancel(
        self,
        symbol: TradedSymbol,  # of the order
        client_order_id: str,  # its id
    ) -> OrderStatus:
        "Take back what waits; one that was filled meanwhile stays a position, and is told as filled."
        with not_sent(client_order_id):
            ticket = self.lookout.find(client_order_id)
            if ticket is None or ticket.held:
                return self._ended(symbol, client_order_id)
        before = self.terminal.folder.stamp("Orders")
        reply = self.dealing.change(client_order_id, close_command(ticket.number, NO_POSITION_LOTS))
        try:
            status = self.lookout.entry(client_order_id)
            if (status is None or not status.state.ended) and self.terminal.await_beat(before, self.config.stale_s):
                status = self.lookout.entry(client_order_id)
        except BrokerUnavailable as error:
            raise ExecutionUnknown(f"{reply.text}; {error.message}", client_order_id=client_order_id) from error
        if status is None or not status.state.ended:
            kind = BrokerRejected if reply.outcome is ReplyKind.REFUSED else ExecutionUnknown
            raise kind(reply.text, client_order_id=client_order_id)
        return self.state.keep(status)

    def _ended(self, symbol: TradedSymbol, id_: str) -> OrderStatus:
        status = self.order(symbol, id_)
        if status is None:
            raise BrokerRejected(f"`client_order_id` must name an order of this account, was {id_!r}")
        return status

    def _close_due(self) -> None:
        "Close what is to be closed by now; what is refused is tried again at the next look."
        now = self.clock.now()
        for id_, at in self.state.limits().items():
            if at > now:
                continue
            ticket, known = self.lookout.find(id_), self.state.sent(id_)
            if ticket is not None and ticket.held:
                self._end(id_, ticket)
            elif ticket is None and known is not None and known.status.state.ended:
                self.state.limit(id_, None)

    def _end(self, id_: str, ticket: Mt4Ticket) -> None:
        "Close a position whose time is over, under an id that no refused attempt had."
        stem, symbol = f"{id_.removesuffix('-ent')}-{OrderRole.TIME.value[:3]}", self.contracts.symbol(ticket.symbol)
        ids = [stem, *(f"{stem}{number}" for number in range(2, 100))]
        tried = {each: self.state.sent(each) for each in ids}
        free = next((each for each in ids if (sent := tried[each]) is None or sent.doubt), None)
        if free is None:
            return
        order = Order(client_order_id=free, symbol=symbol, side=Side.SELL if ticket.sign > 0 else Side.BUY,
                      quantity=self.contracts.units(symbol, ticket.lots), reduce_only=True, role=OrderRole.TIME,
                      group=id_)  # fmt: skip
        try:
            self.submit(order)
        except BrokerError as error:
            get_logger("trading.mt4").error("not closed in time", position=id_, reason=error.message)
