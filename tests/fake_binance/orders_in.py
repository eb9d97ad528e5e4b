"""Orders as requests tell them: the parameters an order needs, one by one."""

import itertools
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from tests.fake_binance.answers import Refused, bad_symbol, illegal, market_closed, missing, unsupported
from tests.fake_binance.market import Market
from tests.fake_binance.records import ALGO, PRICED, SIDES, ZERO, Order, OrderList, text
from tests.fake_binance.symbols import STP_MODES, TYPES

Params = Mapping[str, Any]
CLIENT_ID = re.compile(r"[a-zA-Z0-9-_]{1,36}")
NUMBER = re.compile(r"([0-9]{1,20})(\.[0-9]{1,20})?")
TIMES_IN_FORCE = ("GTC", "IOC", "FOK")
_made = itertools.count(1)


def made_id() -> str:
    """Return a client id for who sent none."""
    return f"venue{next(_made):017d}"


def amount(params: Params, name: str, needed: bool = False) -> Decimal:
    """Return a parameter that is a number; zero when it is not sent."""
    told = params.get(name)
    if told in (None, ""):
        if needed:
            raise missing(name)
        return ZERO
    if NUMBER.fullmatch(str(told)) is None:
        raise illegal(name, "^([0-9]{1,20})(\\.[0-9]{1,20})?$")
    try:
        return Decimal(str(told))
    except InvalidOperation:
        raise missing(name) from None


def whole(params: Params, name: str) -> int | None:
    """Return a parameter that is a whole number, None when it is not sent."""
    told = params.get(name)
    if told in (None, ""):
        return None
    if not str(told).isascii() or not str(told).isdigit():
        raise illegal(name, "^[0-9]{1,20}$")
    return int(told)


def client_id(params: Params, name: str) -> str:
    """Return an id that the sender chose, or one of the venue's."""
    told = params.get(name)
    if told is None:
        return made_id()
    if CLIENT_ID.fullmatch(str(told)) is None:
        raise illegal(name, "^[a-zA-Z0-9-_]{1,36}$")
    return str(told)


def choice(params: Params, name: str, choices: Iterable[str], refusal: Refused) -> str:
    """Return a parameter that is one of a few words."""
    told = params.get(name)
    if told in (None, ""):
        raise missing(name)
    if told not in choices:
        raise refusal
    return str(told)


def market_of(markets: Mapping[str, Market], params: Params, needed: bool = True) -> Market | None:
    """Return the market a request names."""
    name = params.get("symbol")
    if name in (None, ""):
        if needed:
            raise missing("symbol")
        return None
    if name not in markets:
        raise bad_symbol()
    return markets[name]


def trading_market(markets: Mapping[str, Market], params: Params) -> Market:
    """Return the market an order is for, if it trades."""
    market = market_of(markets, params)
    assert market is not None
    if market.symbol.status != "TRADING":
        raise market_closed()
    return market


def named(prefix: str, name: str) -> str:
    """Return a parameter's name for a leg of a list: `pendingAbove` and `price` make `pendingAbovePrice`."""
    return prefix + name[0].upper() + name[1:] if prefix else name


def read_order(params: Params, market: Market, prefix: str = "", **given: Any) -> Order:
    """Return the order that a request, or one leg of a list's request, describes."""
    kind = choice(params, named(prefix, "type"), TYPES, Refused(-1116, "Invalid orderType."))
    side = given.pop("side", None) or choice(params, named(prefix, "side"), SIDES, Refused(-1117, "Invalid side."))
    if kind not in market.symbol.types:
        raise unsupported(kind.replace("_", " ").capitalize())
    id_name = named(prefix, "clientOrderId") if prefix else "newClientOrderId"
    sized = given.pop("sized", True)
    quantity = given.pop("quantity", None)
    if quantity is None and sized:
        by_money = kind == "MARKET" and "quoteOrderQty" in params and not prefix
        quantity = amount(params, named(prefix, "quantity"), needed=not by_money)
    order = Order(
        id=0,
        client_id=client_id(params, id_name),
        symbol=market.symbol.name,
        side=side,
        type=kind,
        quantity=quantity or ZERO,
        time_ms=0,
        price=amount(params, named(prefix, "price"), needed=kind in PRICED),
        stop_price=amount(params, named(prefix, "stopPrice"), needed=kind in ALGO and not trails(params, prefix)),
        quote_quantity=amount(params, "quoteOrderQty") if kind == "MARKET" and not prefix else ZERO,
        time_in_force=read_time_in_force(params, prefix, kind),
        sized=sized,
    )
    order.extras = read_extras(params, prefix)
    refuse_extras(params, prefix, kind)
    return order


def read_extras(params: Params, prefix: str) -> dict[str, Any]:
    """Return what an order carries without its changing what comes of it."""
    extras: dict[str, Any] = {
        name: whole(params, named(prefix, name))
        for name in ("strategyId", "strategyType")
        if params.get(named(prefix, name)) is not None
    }
    if (extras.get("strategyType") or 1_000_000) < 1_000_000:
        raise Refused(-1134, "`strategyType` was less than 1000000.")
    if iceberg := amount(params, named(prefix, "icebergQty")):
        extras["icebergQty"] = text(iceberg)
    if params.get("selfTradePreventionMode"):
        refusal = Refused(-1130, "Data sent for parameter 'selfTradePreventionMode' is not valid.")
        extras["selfTradePreventionMode"] = choice(params, "selfTradePreventionMode", STP_MODES, refusal)
    return extras


def trails(params: Params, prefix: str) -> bool:
    """Say whether a stop is to follow the price."""
    return params.get(named(prefix, "trailingDelta")) not in (None, "")


def read_time_in_force(params: Params, prefix: str, kind: str) -> str:
    """Return how long an order stands; only those with a limit price that may take have to say it."""
    name = named(prefix, "timeInForce")
    if kind in ("LIMIT", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"):
        return choice(params, name, TIMES_IN_FORCE, Refused(-1115, "Invalid timeInForce."))
    if params.get(name) not in (None, ""):
        raise Refused(-1106, f"Parameter '{name}' sent when not required.")
    return "GTC"


def refuse_extras(params: Params, prefix: str, kind: str) -> None:
    """Refuse a price or stop price that an order of a kind does not have."""
    if trails(params, prefix):
        raise unsupported("Trailing stop")
    if params.get(named(prefix, "pegPriceType")) not in (None, ""):
        raise unsupported("Pegged")
    for name, kinds in (("price", PRICED), ("stopPrice", ALGO)):
        if kind not in kinds and params.get(named(prefix, name)) not in (None, ""):
            raise Refused(-1106, f"Parameter '{named(prefix, name)}' sent when not required.")


def read_pair(params: Params, market: Market, prefix: str, **given: Any) -> list[Order]:
    """Return a pair of which one cancels the other, the one below first."""
    below = read_order(params, market, named(prefix, "below"), **given)
    above = read_order(params, market, named(prefix, "above"), **given)
    takes_profit = {"LIMIT_MAKER", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"}
    stops = {"STOP_LOSS", "STOP_LOSS_LIMIT"}
    upper, lower = (takes_profit, stops) if above.side == "SELL" else (stops, takes_profit)
    if above.type in takes_profit and below.type in takes_profit:
        raise Refused(-1168, "At least one OCO order must be contingent.")
    if above.type not in upper or below.type not in lower:
        raise Refused(-1158, "Order type not supported in OCO.")
    return [below, above]


def read_oco(params: Params, market: Market) -> OrderList:
    """Return the list of `orderList/oco`."""
    side = choice(params, "side", SIDES, Refused(-1117, "Invalid side."))
    quantity = amount(params, "quantity", needed=True)
    pair = read_pair(params, market, "", side=side, quantity=quantity)
    return OrderList(-1, client_id(params, "listClientOrderId"), market.symbol.name, "OCO", 0, pair)


def read_triggered(params: Params, market: Market, paired: bool, pays: bool) -> OrderList:
    """Return the list of `orderList/oto`, `otoco`, `opo` or `opoco`."""
    working = read_order(params, market, "working")
    if working.type not in ("LIMIT", "LIMIT_MAKER"):
        raise Refused(-1116, "Invalid orderType.")
    given: dict[str, Any] = {"sized": not pays}
    if pays and params.get("pendingQuantity") not in (None, ""):
        raise Refused(-1225, "Pending orders should not include the 'pendingQuantity' tag.")
    if paired:
        given["side"] = choice(params, "pendingSide", SIDES, Refused(-1117, "Invalid side."))
        if not pays:
            given["quantity"] = amount(params, "pendingQuantity", needed=True)
        pending = read_pair(params, market, "pending", **given)
    else:
        pending = [read_order(params, market, "pending", **given)]
    if pays and working.side != "BUY":
        raise Refused(-1222, "Working order in an OPO list must be a bid.")
    if pays and pending[0].side != "SELL":
        raise Refused(-1223, "Pending orders in an OPO list must be asks.")
    name, list_id = market.symbol.name, client_id(params, "listClientOrderId")
    return OrderList(-1, list_id, name, "OTO", 0, [working, *pending], pays=pays)
