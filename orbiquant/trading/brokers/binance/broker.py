"""The port of every broker, spoken to Binance: each order ends accepted, refused or unknown, and what is held is protected at the venue."""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from threading import Event
from time import monotonic
from typing import Any

from orbiquant.orders import (
    Account,
    Bracket,
    Capabilities,
    Fill,
    Order,
    OrderStatus,
    OrderType,
    Position,
    Side,
    TradedSymbol,
    exactly,
)

from ....core import (
    BrokerError,
    BrokerRejected,
    BrokerUnavailable,
    ExecutionUnknown,
    NotConfigured,
    NotFoundError,
)
from ...brokers.terms import PaperTerms
from .config import check_rights
from .errors import (
    NO_SUCH_ORDER,
    NOT_CANCELLED,
    HalfDone,
    NotTaken,
    VenueRefused,
    VenueSilent,
    send_fault,
)
from .feed import PriceFeed
from .filters import ExitLevels, SymbolRules, check_tradable, entry_fault, quantity_fault, value_fault
from .guards import Guards
from .history import OrderHistory, open_order_of
from .market import VenueMarket
from .protection import Resident, entry_list_request, sale_request
from .reports import order_status, taken
from .stream import UserStream
from .transport import RECV_WINDOW_MS, Transport

SETTLED_S = RECV_WINDOW_MS / 1000 + 10.0 + 1.0  # recvWindow, what the matching engine may take, a margin
HURRY_S = 1.0  # between two looks while an outcome is unknown or a position unprotected
STEPS_IN_LOT = 100_000  # of a coin, as our instruments count
ABLE = Capabilities(
    short=False, types=frozenset({OrderType.MARKET, OrderType.LIMIT}), timed=False, moves_exits=False
)


class BinanceBroker:
    "One spot account."

    def __init__(
        self,
        transport: Transport,  # to the venue, not opened yet
        name: str,  # of the account
        currency: str,  # that it is kept in
        terms: Callable[[str], PaperTerms],  # of a symbol, where the venue has not told its own steps yet
        live: bool = True,  # whether an order may open something: with real money only where the settings say so
    ) -> None:
        "Count every order as just sent whose sending this process has not seen."
        self._terms, self._live = terms, live
        self.transport, self.name, self.currency = transport, name, currency
        self.market = VenueMarket(transport)
        self.history = OrderHistory(self.market, currency)
        self.guards = Guards(self.market, transport.config.stop_gap)
        self.woken, self.feed = Event(), PriceFeed(self.market)
        self.stream = UserStream(transport, self.woken)
        self.settled_s = SETTLED_S
        self._began, self._sent_at = monotonic(), dict[str, float]()
        self._unsettled: set[str] = set()
        self._looked, self._hurry = float("-inf"), False

    def capabilities(
        self,
        symbol: TradedSymbol,  # of a market
    ) -> Capabilities:
        "Return what it can do: spot buys, and sells what is there."
        return ABLE

    @exactly
    def terms(
        self,
        symbol: TradedSymbol,  # of a market
    ) -> PaperTerms:
        "Return what an order of a symbol pays, with the venue's own steps where it has told them."
        usual, rules = self._terms(symbol), self.market.known(symbol)
        if rules is None and self.history.since is not None:
            with suppress(BrokerError, NotFoundError):
                rules = self.market.rules(symbol)
        if rules is None:
            return usual
        steps = {"tick_size": rules.tick, "lot_size": rules.venue_filters.quantity_step * STEPS_IN_LOT}
        instrument = usual.instrument.model_copy(update=steps)
        return replace(usual, instrument=instrument, filters=rules.venue_filters)

    def submit(
        self,
        order: Order,  # whose intent is durable already
    ) -> OrderStatus:
        "Send an order once; raise `BrokerRejected` or `ExecutionUnknown`."
        id_ = order.client_order_id
        try:
            rules = self.market.rules(order.symbol)
            check_tradable(rules, not order.reduce_only, id_)
            if order.reduce_only:
                return self._reduce(order, rules)
            if not self._live:
                raise BrokerRejected(f"`[trading] live` must be on for an order with real money, {id_} was not sent")
            quantity = rules.whole_lots(order.quantity, order.type is OrderType.MARKET)
            fault = _shape_fault(order) or entry_fault(rules, order, quantity, self.market.average(order.symbol))
            fault = fault or self.feed.risk_fault(order.symbol)
            if order.bracket is not None and order.bracket.stop_loss is not None:
                fault = fault or self.guards.room_fault(rules)
        except (BrokerUnavailable, NotFoundError, NotConfigured) as error:  # of a question before: nothing was sent
            raise BrokerRejected(f"not sent: {error.message}", client_order_id=id_) from None
        if fault:
            self.market.forget(order.symbol)
            raise BrokerRejected(fault, client_order_id=id_)
        if (known := self._known(order)) is not None:
            return taken(known, id_)
        told = self._place(*self._entry(order, rules, quantity), order)
        if order.bracket is not None and order.type is OrderType.MARKET:
            levels = ExitLevels.of(rules, order.bracket)
            self._hurry |= not self.guards.protect_at_once(rules, id_, told, levels)
        return taken(told, id_)

    def _entry(self, order: Order, rules: SymbolRules, quantity: Decimal) -> tuple[str, dict[str, str]]:
        "Return endpoint and request of an order that opens."
        if (listed := entry_list_request(rules, order, quantity, self.transport.config.stop_gap)) is not None:
            return listed
        request = {
            "symbol": rules.symbol, "side": "BUY", "type": order.type.value.upper(), "quantity": f"{quantity:f}",
            "newClientOrderId": order.client_order_id, "newOrderRespType": "FULL",
        }  # fmt: skip
        if order.limit_price is not None:
            price = rules.on_tick(order.limit_price, up=False)
            request |= {"price": f"{price:f}", "timeInForce": order.time_in_force.value.upper()}
        return "privatePostOrder", request

    def _place(self, method: str, request: Mapping[str, str], order: Order) -> Mapping[str, Any]:
        "Return what the venue says of a new order, or of the one that it has of this id already."
        id_, silent = order.client_order_id, ""
        self._sent_at[id_] = monotonic()
        try:
            told: Mapping[str, Any] = self.transport.send(method, request)
            told = told.get("newOrderResponse", told)
            return next((each for each in told.get("orderReports", ()) if each["clientOrderId"] == id_), told)
        except VenueRefused as error:
            if not error.is_duplicate:
                self.market.forget(order.symbol)
                raise send_fault(error, id_) from None
            silent = error.said
        except NotTaken as error:
            raise send_fault(error, id_) from None
        except HalfDone:
            raise
        except VenueSilent as error:
            silent = str(error)
        finally:
            self._sent_at[id_] = monotonic()
        self._unsettled.add(id_)
        if (found := self._look(order.symbol, id_)) is not None:
            return found
        raise send_fault(VenueSilent(silent), id_)

    def _known(self, order: Order) -> Mapping[str, Any] | None:
        "Return the order that the venue has of this id already: once it is filled, the id would be taken again."
        id_, said = order.client_order_id, ""
        try:
            return self.history.ask(order.symbol, id_)
        except VenueRefused as error:
            said = "" if error.code == NO_SUCH_ORDER else error.told
        except (NotTaken, VenueSilent) as error:
            said = str(error)
        if said:
            raise BrokerRejected(f"not sent: nobody can say whether it was sent before ({said})", client_order_id=id_)
        return None

    def _look(self, symbol: TradedSymbol, client_order_id: str) -> Mapping[str, Any] | None:
        "Return what the venue says of an order now; None where it does not know it, or does not answer."
        try:
            told: Mapping[str, Any] = self.history.ask(symbol, client_order_id)
        except (VenueRefused, NotTaken, VenueSilent):
            return None
        self._unsettled.discard(client_order_id)
        return told

    def _reduce(self, order: Order, rules: SymbolRules) -> OrderStatus:
        "Sell what a position holds, or a part of it; what protects it is put back where that fails."
        id_, average = order.client_order_id, self.market.average(order.symbol)
        quantity = rules.whole_lots(order.quantity)
        fault = quantity_fault(rules, quantity, market=True) or value_fault(rules, "market", average, quantity)
        if order.type is not OrderType.MARKET or order.side is not Side.SELL or fault:
            said = fault or f"an order that closes must be a sale at the market, was {order.side} {order.type}"
            raise BrokerRejected(said, client_order_id=id_)
        if (known := self._known(order)) is not None:
            return taken(known, id_)
        standing = self.guards.find(rules, order.group or id_)
        if rules.replaces and standing is not None and standing.quantity >= quantity:
            return self._sell_for(order, rules, standing, sale_request(rules, id_, quantity))
        with self.guards.lifted(rules, order.group or id_, standing) as lifted:
            free = self.market.balances().get(rules.base)
            quantity = rules.whole_lots(min(quantity, Decimal(0) if free is None else free.free))
            if not quantity:
                raise BrokerRejected(f"nothing of {order.symbol} is there to be reduced", client_order_id=id_)
            told = self._place("privatePostOrder", sale_request(rules, id_, quantity), order)
            lifted.sold = Decimal(str(told["executedQty"]))
        return taken(told, id_)

    def _sell_for(self, order: Order, rules: SymbolRules, standing: Resident, sale: Mapping[str, str]) -> OrderStatus:
        "Sell in the place of what protects, in one request: where that is lost, what protects still stands."
        id_ = order.client_order_id
        request = {**sale, "cancelReplaceMode": "STOP_ON_FAILURE", "cancelOrigClientOrderId": standing.order_ids[0]}
        try:
            told = self._place("privatePostOrderCancelReplace", request, order)
        except HalfDone as error:
            self.guards.put_back(rules, order.group or id_, standing, Decimal(0))
            raise BrokerRejected(f"Binance refused the sale: {error}", client_order_id=id_) from None
        self.guards.put_back(rules, order.group or id_, standing, Decimal(str(told["executedQty"])))
        return taken(told, id_)

    def amend(
        self,
        symbol: TradedSymbol,  # of the position
        client_order_id: str,  # of the entry that it came from
        bracket: Bracket,  # what closes it from now on
    ) -> None:
        "Put other protection in the place of the one that stands; raise `BrokerError` where what stood stays."
        if self.guards.swap(self.market.rules(symbol), client_order_id, bracket) is None:
            self._hurry = True  # nothing stands that could be replaced: the next look places it

    def guard(
        self,
        symbol: TradedSymbol,  # of a position
        client_order_id: str,  # of the entry that it came from
        quantity: Decimal,  # that is held of it
        bracket: Bracket,  # what closes it
    ) -> str:
        "See to it that exactly this protection stands, and return what was done, '' for nothing."
        rules = self.market.rules(symbol)
        return self.guards.ensure(rules, client_order_id, quantity, bracket)

    def cancel(
        self,
        symbol: TradedSymbol,  # of the order
        client_order_id: str,  # its id
    ) -> OrderStatus:
        "Cancel what is left of an order, and say how it ended; raise `BrokerRejected` or `ExecutionUnknown`."
        try:
            told = self.transport.send("privateDeleteOrder", {"symbol": symbol, "origClientOrderId": client_order_id})
            if (own := self._look(symbol, client_order_id)) is not None:
                return order_status(own, client_order_id)
            reports = told.get("orderReports", [told])
            own = next((e for e in reports if e.get("origClientOrderId", "") == client_order_id), told)
            return order_status(own, client_order_id)
        except VenueRefused as error:
            if error.code != NOT_CANCELLED:
                raise send_fault(error, client_order_id) from None
        except NotTaken as error:
            raise send_fault(error, client_order_id) from None
        except VenueSilent:
            self._unsettled.add(client_order_id)
        if (found := self._look(symbol, client_order_id)) is not None:
            status = order_status(found, client_order_id)
            if status.state.ended:
                return status
        raise ExecutionUnknown("Binance did not say what became of it", client_order_id=client_order_id)

    def order(
        self,
        symbol: TradedSymbol,  # of the order
        client_order_id: str,  # its id
    ) -> OrderStatus | None:
        "Return what the venue says of an order; None when nothing can come of it any more that the venue never had."
        asked_at = monotonic()
        try:
            told = self.history.ask(symbol, client_order_id)
        except VenueRefused as error:
            if error.code != NO_SUCH_ORDER:
                raise BrokerUnavailable(error.told) from None
        except (NotTaken, VenueSilent) as error:
            raise BrokerUnavailable(f"Binance does not say where an order stands: {error}") from None
        else:
            self._unsettled.discard(client_order_id)
            return order_status(told, client_order_id)
        if asked_at < (until := self._sent_at.get(client_order_id, self._began) + self.settled_s):
            self._unsettled.add(client_order_id)
            raise BrokerUnavailable(f"it may still be on its way, for {until - asked_at:.1f} s")
        self._unsettled.discard(client_order_id)
        return None

    def open_orders(self) -> list[Order]:
        "Return what stands, of others too."
        return [open_order_of(told) for told in self.history.open_orders()]

    @exactly
    def positions(self) -> list[Position]:
        "Return what is held of everything that the currency buys, at its last price; whose it is, the books say."
        owned, now = self.market.balances(), datetime.now().astimezone()
        prices = self._prices(owned)
        return [
            Position(owner=self.name, symbol=symbol, quantity=balance.total, average_price=prices[symbol],
                     opened_at=now)
            for asset, balance in owned.items()
            if (symbol := f"{asset}{self.currency}") in prices
        ]  # fmt: skip

    @exactly
    def account(self) -> Account:
        "Return what is owned, everything at its last price."
        owned = self.market.balances()
        prices = self._prices(owned)
        cash = owned[self.currency].total if self.currency in owned else Decimal(0)
        worth = [balance.total * prices.get(f"{asset}{self.currency}", Decimal(0)) for asset, balance in owned.items()]
        return Account(owner=self.name, currency=self.currency, balance=cash, equity=cash + sum(worth, Decimal(0)))

    def _prices(self, owned: Collection[str]) -> dict[str, Decimal]:
        return self.feed.prices([f"{asset}{self.currency}" for asset in owned if asset != self.currency])

    def fills(
        self,
        symbol: TradedSymbol,  # whose fills
        after: str | None = None,  # the last fill id that is known
    ) -> list[Fill]:
        "Return the fills behind the cursor, without one those since the account was begun."
        return self.history.fills(symbol, after)

    # --- a venue that goes on by itself ---

    def begin(
        self,
        since: datetime,  # when the account's books were opened: what came before is nobody's business
    ) -> None:
        "Listen to the account's events; raise `BrokerRejected` for a key that may do more than trade."
        if self.transport.config.real_money:
            check_rights(self.transport.read("sapiGetAccountApiRestrictions", {}))
        self.history.since = since
        self.stream.start()

    def due(self) -> bool:
        "Say whether it is time to look at the account: an event came, something is open, or it has been a while."
        passed = monotonic() - self._looked
        hurry = (self._hurry or bool(self._unsettled)) and passed >= HURRY_S
        return self.woken.is_set() or hurry or passed >= self.transport.config.sweep_s

    def looked(
        self,
        again: bool,  # soon: something is not as it should be
    ) -> None:
        "Note that the account is being looked at."
        self.woken.clear()
        self._looked, self._hurry = monotonic(), again

    def holdings(self) -> dict[str, Decimal]:
        "Return what is owned, by asset."
        return {asset: balance.total for asset, balance in self.market.balances().items()}

    def resting(self) -> Collection[tuple[str, str]]:
        "Return symbol and id of every order that stands, whoever sent it."
        return [(each["symbol"], each["clientOrderId"]) for each in self.history.open_orders()]

    def close(self) -> None:
        "Let go of the venue."
        self.feed.stop()
        self.stream.stop()
        self.transport.close()


def _shape_fault(order: Order) -> str:
    "Return why an order that opens is none for a spot market, '' when it is one."
    if order.side is Side.SELL:
        return f"{order.symbol} cannot be sold short on spot"
    if order.type not in ABLE.types:
        return f"a {order.type} order is not taken here"
    if order.bracket is not None and order.bracket.exits:
        return f"`exits` must be fixed at Binance, which plays no plan, was {order.bracket.exits}"
    return ""
