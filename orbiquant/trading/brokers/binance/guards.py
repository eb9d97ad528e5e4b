"""A position is never left without its stop on purpose: what must be lifted to be changed is put back in the same breath.

A pair locks what it would sell, so the venue cannot hold an old and a new one at once, and no request replaces a pair
by a pair. A sale takes a pair's place in one request: where that is lost, the pair still stands. A single stop is replaced in
one request. Else what is possible: cancel, and place in the next request of the same call; where the new one is refused, the
old one is put back, and where that is refused too, the position is sold at the market.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from time import monotonic
from typing import Any

from ....core import BrokerError, BrokerRejected, BrokerUnavailable, ExecutionUnknown, get_logger
from ....orders import Bracket
from . import ids
from .errors import NOT_CANCELLED, NotTaken, VenueRefused, VenueSilent
from .filters import TAKER_FEE, ExitLevels, SymbolRules, quantity_fault, value_fault
from .market import VenueMarket
from .protection import Resident, find_standing, pair_request, sale_request, single_request
from .reports import bought

TRIES = 2  # to protect a position before a look has to
TRIGGERED_S = 5.0  # that a stop with a limit may work without being filled


@dataclass(slots=True)
class Lifted:
    "Protection that is out of the way for a sale."

    standing: Resident | None
    sold: Decimal = Decimal(0)


class Guards:
    "Places, replaces and lifts what protects positions."

    def __init__(
        self,
        market: VenueMarket,  # of the account
        gap: Decimal,  # under a stop that must name a limit, of its price
    ) -> None:
        self.market, self.transport, self.gap = market, market.transport, gap
        self._numbers: dict[str, int] = {}  # the newest protection by intent, where this process has placed one
        self._triggered: dict[str, float] = {}
        self.triggered_s = TRIGGERED_S

    def find(
        self,
        rules: SymbolRules,  # of the symbol
        entry_id: str,  # of the order that opened a position
    ) -> Resident | None:
        "Return what protects a position at the venue."
        told = self.transport.read("privateGetOpenOrders", {"symbol": rules.symbol}, urgent=True)
        return find_standing(told, entry_id)

    def room_fault(
        self,
        rules: SymbolRules,  # of the symbol
    ) -> str:
        "Return why one more stop would not be taken, '' when it would."
        told = self.transport.read("privateGetOpenOrders", {"symbol": rules.symbol}, urgent=True)
        resting = sum("STOP" in each["type"] or "TAKE_PROFIT" in each["type"] for each in told)
        if rules.most_stops and resting >= rules.most_stops:
            return (
                f"at most {rules.most_stops} stops may rest on {rules.symbol}, {resting} do: none is left for this one"
            )
        return ""

    def place(
        self,
        rules: SymbolRules,  # of the symbol
        entry_id: str,  # of the order that opened a position
        quantity: Decimal,  # in whole lots
        levels: ExitLevels,  # at least one
        number: int = 0,  # of the protection
    ) -> None:
        "Put up protection; where the venue refuses it, sell at the market: what cannot be protected is not held."
        try:
            self._put(rules, entry_id, quantity, levels, number)
        except VenueRefused as error:
            self._sell(rules, entry_id, quantity, number, error.told)

    def protect_at_once(
        self,
        rules: SymbolRules,  # of the symbol
        entry_id: str,  # of an order that opens at the market
        told: Mapping[str, Any],  # what the venue says of it
        levels: ExitLevels,  # at least one
    ) -> bool:
        "Protect what an entry brought, in the same breath, and say whether no look has to do so."
        log, begin = get_logger("trading.binance"), monotonic()
        if told["status"] != "FILLED":
            return False
        exactly_known = "fills" in told  # else its answer was lost, and what fees took is not told: a look knows
        quantity = bought(told, rules.base) if exactly_known else Decimal(told["executedQty"]) * (1 - TAKER_FEE)
        for _ in range(TRIES):  # under the same ids: of one that arrives late only one can rest
            try:
                self.place(rules, entry_id, rules.whole_lots(quantity), levels)
            except BrokerUnavailable as error:
                log.error("not protected yet", order=entry_id, said=error.message)
            except BrokerError as error:
                log.error("not protected", order=entry_id, said=error.message)
                return False
            else:
                log.info("protected", order=entry_id, unprotected_s=round(monotonic() - begin, 3))
                return exactly_known
        return False

    def _put(self, rules: SymbolRules, entry_id: str, quantity: Decimal, levels: ExitLevels, number: int) -> None:
        "Send protection once; raise `VenueRefused`, or `BrokerUnavailable` where it does not stand for certain."
        if levels.stop is not None and levels.target is not None:
            method, request = (
                "privatePostOrderListOco",
                pair_request(rules, entry_id, number, quantity, levels, self.gap),
            )
        else:
            method, request = "privatePostOrder", single_request(rules, entry_id, number, quantity, levels, self.gap)
        self._send(method, request, rules, entry_id, number)

    def _send(self, method: str, request: Mapping[str, str], rules: SymbolRules, entry_id: str, number: int) -> None:
        try:
            self.transport.send(method, request)
        except VenueRefused as error:
            if not error.is_duplicate:
                raise
        except NotTaken as error:
            raise BrokerUnavailable(f"protection of {entry_id} was not placed: {error}") from None
        except VenueSilent as error:
            standing = self.find(rules, entry_id)
            if standing is None or standing.number != number:
                raise BrokerUnavailable(f"nobody knows whether protection of {entry_id} stands: {error}") from None
        self._numbers[ids.intent_of(entry_id)] = number

    def _sell(self, rules: SymbolRules, entry_id: str, quantity: Decimal, number: int, why: str) -> None:
        "Close a position at the market, as its stop would."
        get_logger("trading.binance").error("closed at the market: protection refused", order=entry_id, said=why)
        request = sale_request(rules, ids.leg_id(entry_id, ids.STOP_LEG, number + 1), quantity)
        try:
            self.transport.send("privatePostOrder", request)
        except VenueRefused as error:
            raise BrokerRejected(f"{entry_id} is not protected and cannot be sold: {error.told}") from None
        except (NotTaken, VenueSilent) as error:
            raise BrokerUnavailable(f"nobody knows whether {entry_id} was sold: {error}") from None
        self._numbers[ids.intent_of(entry_id)] = number + 1

    def _cancel(self, rules: SymbolRules, standing: Resident) -> bool:
        "Take protection away; say whether it was there: what was hit meanwhile is not."
        if standing.list_id is not None:
            method, which = "privateDeleteOrderList", {"orderListId": str(standing.list_id)}
        else:
            method, which = "privateDeleteOrder", {"origClientOrderId": standing.order_ids[0]}
        try:
            self.transport.send(method, {"symbol": rules.symbol, **which})
        except VenueRefused as error:
            if error.code != NOT_CANCELLED:
                raise BrokerRejected(error.told) from None
            return False
        except NotTaken as error:
            raise BrokerUnavailable(f"what stands stays: {error}") from None
        except VenueSilent:
            if self.find(rules, standing.order_ids[0]) is not None:
                raise BrokerUnavailable("what stands stays: the venue did not answer") from None
        return True

    def ensure(
        self,
        rules: SymbolRules,  # of the symbol
        entry_id: str,  # of the order that opened a position
        quantity: Decimal,  # that is held of it
        bracket: Bracket,  # what closes it
    ) -> str:
        "See to it that exactly this protection stands, and return what was done, '' for nothing."
        kept, levels = rules.whole_lots(quantity), ExitLevels.of(rules, bracket)
        lowest = levels.stop or levels.target
        if lowest is None:
            return ""
        if fault := quantity_fault(rules, kept, market=False) or value_fault(rules, "stop_loss", lowest, kept):
            return f"too little to be protected: {fault}"
        told = self.transport.read("privateGetOpenOrders", {"symbol": rules.symbol}, urgent=True)
        if any(each["clientOrderId"] == entry_id for each in told):  # a part was filled: the rest is not waited for
            self._end_entry(rules, entry_id)
            return "the rest of the entry taken back"
        standing = find_standing(told, entry_id)
        if standing is None:
            self.place(rules, entry_id, kept, levels, self._numbers.get(ids.intent_of(entry_id), -1) + 1)
            return "placed"
        if standing.triggered:
            return self._hurry(rules, entry_id, kept, standing)
        if standing.levels == levels and standing.quantity == kept:
            return ""
        self._replace(rules, entry_id, kept, levels, standing)
        return "replaced"

    def _hurry(self, rules: SymbolRules, entry_id: str, quantity: Decimal, standing: Resident) -> str:
        "Wait for a stop with a limit that was triggered, and sell at the market where it is not filled for too long."
        if monotonic() - self._triggered.setdefault(entry_id, monotonic()) < self.triggered_s:
            return "the stop was hit, its limit is not filled"
        if self._cancel(rules, standing):
            self._sell(rules, entry_id, quantity, standing.number, "its limit is not filled")
        self._triggered.pop(entry_id, None)
        return "sold at the market"

    def _end_entry(self, rules: SymbolRules, entry_id: str) -> None:
        try:
            self.transport.send("privateDeleteOrder", {"symbol": rules.symbol, "origClientOrderId": entry_id})
        except VenueRefused as error:
            if error.code != NOT_CANCELLED:
                raise BrokerRejected(error.told) from None
        except (NotTaken, VenueSilent) as error:
            raise BrokerUnavailable(f"the rest of {entry_id} was not taken back: {error}") from None

    def swap(
        self,
        rules: SymbolRules,  # of the symbol
        entry_id: str,  # of the order that opened a position
        bracket: Bracket,  # what closes it from now on
    ) -> Resident | None:
        "Put other protection over what the standing one covers, and return that; None where none stands."
        standing, levels = self.find(rules, entry_id), ExitLevels.of(rules, bracket)
        if standing is not None and standing.levels != levels and (levels.stop or levels.target):
            self._replace(rules, entry_id, standing.quantity, levels, standing)
        return standing

    def _replace(
        self, rules: SymbolRules, entry_id: str, quantity: Decimal, levels: ExitLevels, standing: Resident
    ) -> None:
        number = standing.number + 1
        if standing.list_id is None and None in (levels.stop, levels.target):
            self._replace_single(rules, entry_id, quantity, levels, standing)
            return
        begin = monotonic()
        if not self._cancel(rules, standing):
            return
        try:
            self._put(rules, entry_id, quantity, levels, number)
        except VenueRefused as error:
            get_logger("trading.binance").error("new protection refused", order=entry_id, said=error.told)
            self.place(rules, entry_id, min(quantity, standing.quantity), standing.levels, number + 1)
            raise BrokerRejected(f"the protection that stood was put back: {error.told}") from None
        get_logger("trading.binance").info(
            "protection replaced", order=entry_id, unprotected_s=round(monotonic() - begin, 3)
        )

    def _replace_single(
        self, rules: SymbolRules, entry_id: str, quantity: Decimal, levels: ExitLevels, standing: Resident
    ) -> None:
        "Replace one order by one, in one request: where the old cannot be cancelled, the new is not placed."
        number = standing.number + 1
        request = single_request(rules, entry_id, number, quantity, levels, self.gap)
        request |= {"cancelReplaceMode": "STOP_ON_FAILURE", "cancelOrigClientOrderId": standing.order_ids[0]}
        try:
            self._send("privatePostOrderCancelReplace", request, rules, entry_id, number)
        except VenueRefused as error:
            if self.find(rules, entry_id) is None:  # HTTP 409 is unknown; here nothing was cancelled, or it was hit
                raise BrokerUnavailable(f"protection of {entry_id} was hit, or is gone: {error.told}") from None
            raise BrokerRejected(f"the protection that stood still stands: {error.told}") from None

    @contextmanager
    def lifted(
        self,
        rules: SymbolRules,  # of the symbol
        entry_id: str,  # of the order that opened a position
        standing: Resident | None,  # what protects it
    ) -> Iterator[Lifted]:
        "Take protection away for a sale inside the block; afterwards what was not sold is protected again."
        if standing is not None and not self._cancel(rules, standing):
            standing = None
        lifted, certain = Lifted(standing), True
        try:
            yield lifted
        except ExecutionUnknown:
            certain = False  # what may still be sold is not locked again; the next look knows
            raise
        finally:
            if standing is not None and certain:
                self.put_back(rules, entry_id, standing, lifted.sold)

    def put_back(
        self,
        rules: SymbolRules,  # of the symbol
        entry_id: str,  # of the order that opened a position
        standing: Resident,  # what protected it until a sale
        sold: Decimal,  # of it
    ) -> None:
        "Protect again what was not sold."
        if quantity_fault(rules, left := rules.whole_lots(standing.quantity - sold), market=False):
            return
        try:
            self.place(rules, entry_id, left, standing.levels, standing.number + 1)
        except BrokerError as error:
            get_logger("trading.binance").error("not protected yet", order=entry_id, said=error.message)
