"""Which parameters each request may carry; the venue refuses what it does not read."""

from collections.abc import Mapping
from typing import Any

from tests.fake_binance.answers import Refused
from tests.fake_binance.orders_in import named

ALWAYS = frozenset({"timestamp", "recvWindow", "signature", "apiKey", "returnRateLimits"})
LEG = (
    "type",
    "side",
    "clientOrderId",
    "price",
    "quantity",
    "stopPrice",
    "trailingDelta",
    "timeInForce",
    "icebergQty",
    "strategyId",
    "strategyType",
    "pegPriceType",
    "pegOffsetType",
    "pegOffsetValue",
)
LIST = ("symbol", "listClientOrderId", "newOrderRespType", "selfTradePreventionMode")


def legs(*prefixes: str) -> set[str]:
    """Return the parameters of a list's legs."""
    return {named(prefix, name) for prefix in prefixes for name in LEG}


ORDER = {
    *("symbol", "newClientOrderId", "quoteOrderQty", "newOrderRespType", "selfTradePreventionMode"),
    *(name for name in LEG if name != "clientOrderId"),
}
NAMED = {"symbol", "orderId", "origClientOrderId"}
TIMED = {"symbol", "startTime", "endTime", "limit"}
CANCEL_REPLACE = {
    *("cancelReplaceMode", "cancelNewClientOrderId", "cancelOrigClientOrderId", "cancelOrderId"),
    *("cancelRestrictions", "orderRateLimitExceededMode"),
}
KNOWN: dict[str, set[str]] = {
    "new": ORDER,
    "test": ORDER | {"computeCommissionRates"},
    "query": NAMED,
    "cancel": NAMED | {"newClientOrderId", "cancelRestrictions"},
    "cancel_all": {"symbol"},
    "replace": ORDER | CANCEL_REPLACE,
    "open": {"symbol"},
    "all": TIMED | {"orderId"},
    "trades": TIMED | {"orderId", "fromId"},
    "account": {"omitZeroBalances"},
    "query_list": {"orderListId", "origClientOrderId"},
    "cancel_list": {"symbol", "orderListId", "listClientOrderId", "newClientOrderId"},
    "oco": {*LIST, "side", "quantity"} | legs("above", "below"),
    "oto": {*LIST} | legs("working", "pending"),
    "opo": {*LIST} | legs("working", "pending"),
    "otoco": {*LIST, "pendingSide", "pendingQuantity"} | legs("working", "pendingAbove", "pendingBelow"),
    "opoco": {*LIST, "pendingSide", "pendingQuantity"} | legs("working", "pendingAbove", "pendingBelow"),
}


def check_read(params: Mapping[str, Any], known: str) -> None:
    """Refuse a request with parameters that nothing reads."""
    if not known:
        return
    read = sum(name in KNOWN[known] or name in ALWAYS for name in params)
    if read < len(params):
        words = f"Not all sent parameters were read; read '{read}' parameter(s) but was sent '{len(params)}'."
        raise Refused(-1104, words)
