"""What closes a position lies at the venue: a pair of which one cancels the other, placed, found, put in another's place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

from ....orders import Order, exactly
from . import ids
from .filters import TAKER_FEE, ExitLevels, SymbolRules

Parameters: TypeAlias = dict[str, str]


@dataclass(frozen=True, slots=True)
class Resident:
    "The protection that stands for one entry."

    number: int
    quantity: Decimal
    levels: ExitLevels
    order_ids: tuple[str, ...]  # client ids of its orders
    list_id: int | None  # of the pair; None: a single order
    triggered: bool = False  # a stop with a limit that works and is not filled


def stop_leg(
    rules: SymbolRules,  # of the symbol
    stop: Decimal,  # on a tick
    gap: Decimal,  # of the price, where a limit must be named
    prefix: str = "",  # "below", "pendingBelow"; "": an order of its own
) -> Parameters:
    "Return the words for a stop: at the market where the symbol has that, else with a limit far below."
    name = _namer(prefix)
    if "STOP_LOSS" in rules.order_types:
        return {name("type"): "STOP_LOSS", name("stopPrice"): f"{stop:f}"}
    limit = rules.on_tick(stop * (1 - gap), up=False)
    return {
        name("type"): "STOP_LOSS_LIMIT", name("stopPrice"): f"{stop:f}", name("price"): f"{limit:f}",
        name("timeInForce"): "GTC",
    }  # fmt: skip


def _namer(prefix: str) -> Any:
    return lambda name: f"{prefix}{name[0].upper()}{name[1:]}" if prefix else name


def pair_request(
    rules: SymbolRules,  # of the symbol
    entry_id: str,  # of the order that opened the position
    number: int,  # of the protection
    quantity: Decimal,  # in whole lots
    levels: ExitLevels,  # both of them
    gap: Decimal,  # under a stop that must name a limit
) -> Parameters:
    "Return the request for a pair: target above, stop below."
    assert levels.stop is not None and levels.target is not None
    return {
        "symbol": rules.symbol, "side": "SELL", "quantity": f"{quantity:f}",
        "listClientOrderId": ids.leg_id(entry_id, ids.PAIR, number),
        "aboveType": "LIMIT_MAKER", "abovePrice": f"{levels.target:f}",
        "aboveClientOrderId": ids.leg_id(entry_id, ids.TARGET_LEG, number),
        "belowClientOrderId": ids.leg_id(entry_id, ids.STOP_LEG, number),
        "newOrderRespType": "RESULT",
    } | stop_leg(rules, levels.stop, gap, "below")  # fmt: skip


def sale_request(
    rules: SymbolRules,  # of the symbol
    client_order_id: str,  # of the sale
    quantity: Decimal,  # in whole lots
) -> Parameters:
    "Return the request for a sale at the market."
    return {
        "symbol": rules.symbol, "side": "SELL", "type": "MARKET", "quantity": f"{quantity:f}",
        "newClientOrderId": client_order_id, "newOrderRespType": "FULL",
    }  # fmt: skip


def single_request(
    rules: SymbolRules,  # of the symbol
    entry_id: str,  # of the order that opened the position
    number: int,  # of the protection
    quantity: Decimal,  # in whole lots
    levels: ExitLevels,  # one of them
    gap: Decimal,  # under a stop that must name a limit
) -> Parameters:
    "Return the request for the one order that protects a position with a stop alone, or a target alone."
    common = {"symbol": rules.symbol, "side": "SELL", "quantity": f"{quantity:f}", "newOrderRespType": "RESULT"}
    if levels.stop is not None:
        id_ = ids.leg_id(entry_id, ids.STOP_LEG, number)
        return common | {"newClientOrderId": id_} | stop_leg(rules, levels.stop, gap)
    id_ = ids.leg_id(entry_id, ids.TARGET_LEG, number)
    return common | {
        "newClientOrderId": id_, "type": "LIMIT", "timeInForce": "GTC", "price": f"{levels.target:f}",
    }  # fmt: skip


@exactly
def entry_list_request(
    rules: SymbolRules,  # of the symbol
    order: Order,  # that waits at a price
    quantity: Decimal,  # in whole lots
    gap: Decimal,  # under a stop that must name a limit
) -> tuple[str, Parameters] | None:
    "Return endpoint and request for an entry with its pair behind it; None where the venue or the order has none."
    levels = ExitLevels.of(rules, order.bracket)
    if order.limit_price is None or levels.stop is None or levels.target is None:
        return None
    if not rules.lists & {"opoco", "otoco"}:
        return None
    id_ = order.client_order_id
    request = {
        "symbol": rules.symbol, "listClientOrderId": ids.leg_id(id_, ids.PAIR, 0), "newOrderRespType": "RESULT",
        "workingType": "LIMIT", "workingSide": "BUY", "workingClientOrderId": id_,
        "workingPrice": f"{rules.on_tick(order.limit_price, up=False):f}", "workingQuantity": f"{quantity:f}",
        "workingTimeInForce": "GTC", "pendingSide": "SELL", "pendingAboveType": "LIMIT_MAKER",
        "pendingAbovePrice": f"{levels.target:f}", "pendingAboveClientOrderId": ids.leg_id(id_, ids.TARGET_LEG, 0),
        "pendingBelowClientOrderId": ids.leg_id(id_, ids.STOP_LEG, 0),
    } | stop_leg(rules, levels.stop, gap, "pendingBelow")  # fmt: skip
    if "opoco" in rules.lists:  # its pair is as large as what was received
        return "privatePostOrderListOpoco", request
    kept = rules.whole_lots(quantity * (1 - TAKER_FEE))
    return "privatePostOrderListOtoco", request | {"pendingQuantity": f"{kept:f}"}


def find_standing(
    open_orders: Sequence[Mapping[str, Any]],  # of the symbol, as REST has them
    entry_id: str,  # of the order that opened a position
) -> Resident | None:
    "Return the protection that stands for an entry, None where there is none."
    legs = [
        each for each in open_orders
        if ids.is_leg(each["clientOrderId"], entry_id) and each["status"] != "PENDING_NEW"  # waits for its entry
    ]  # fmt: skip
    if not legs:
        return None
    number = max(ids.number_of(each["clientOrderId"]) for each in legs)
    legs = [each for each in legs if ids.number_of(each["clientOrderId"]) == number]
    stop = next((each for each in legs if each["type"].startswith("STOP")), None)
    target = next((each for each in legs if not each["type"].startswith("STOP")), None)
    list_id = int(legs[0].get("orderListId", -1))
    return Resident(
        number=number, quantity=Decimal(legs[0]["origQty"]) - Decimal(legs[0]["executedQty"]),
        levels=ExitLevels(
            None if stop is None else Decimal(stop["stopPrice"]), None if target is None else Decimal(target["price"])
        ),
        order_ids=tuple(each["clientOrderId"] for each in legs), list_id=list_id if list_id >= 0 else None,
        triggered=stop is not None and stop["type"] == "STOP_LOSS_LIMIT" and bool(stop.get("isWorking")),
    )  # fmt: skip
