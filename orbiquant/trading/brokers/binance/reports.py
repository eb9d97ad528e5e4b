"""What Binance says of orders and trades, in our words."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from ....orders import Fill, OrderState, OrderStatus, Side, TradedSymbol, exactly
from .ids import role_of

VENUE_STATES = {
    "NEW": OrderState.SUBMITTED,
    "PENDING_NEW": OrderState.SUBMITTED,
    "PARTIALLY_FILLED": OrderState.PARTLY_FILLED,
    "FILLED": OrderState.FILLED,
    "CANCELED": OrderState.CANCELLED,
    "PENDING_CANCEL": OrderState.SUBMITTED,
    "REJECTED": OrderState.REJECTED,
    "EXPIRED": OrderState.EXPIRED,
    "EXPIRED_IN_MATCH": OrderState.EXPIRED,
}


def time_of(
    milliseconds: int | str,  # since 1970
) -> datetime:
    "Return a moment."
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


@exactly
def order_status(
    told: Mapping[str, Any],  # an order as REST has it
    client_order_id: str,  # by which it was asked: a cancelled one answers with another
) -> OrderStatus:
    "Return where an order stands."
    filled = Decimal(str(told["executedQty"]))
    paid = Decimal(str(told.get("cummulativeQuoteQty", 0)))
    reason = told.get("expiryReason") or ""
    return OrderStatus(
        client_order_id=client_order_id, broker_order_id=str(told["orderId"]),
        state=VENUE_STATES.get(told["status"], OrderState.UNKNOWN), filled_quantity=filled,
        average_price=paid / filled if filled and paid > 0 else None,
        message=f"{told['status'].lower()}{f': {reason}' if reason else ''}",
    )  # fmt: skip


def taken(
    told: Mapping[str, Any],  # what came back of a new order
    client_order_id: str,  # its id
) -> OrderStatus:
    "Return that an order was taken; what it filled, a look tells together with the fills, so that neither is alone."
    status = order_status({"executedQty": 0, **told}, client_order_id)
    if not status.filled_quantity and status.state.ended:
        return status
    return status.model_copy(update={"state": OrderState.SUBMITTED})


@exactly
def bought(
    told: Mapping[str, Any],  # a new order's answer, with its fills
    base: str,  # asset
) -> Decimal:
    "Return what a purchase brought after a fee in kind."
    fees = (Decimal(each["commission"]) for each in told.get("fills", ()) if each["commissionAsset"] == base)
    return Decimal(str(told["executedQty"])) - sum(fees, Decimal(0))


def fill_of(
    told: Mapping[str, Any],  # a trade as REST has it
    client_order_id: str,  # of its order
    symbol: TradedSymbol,  # as we name it
    fee_rate: Decimal | None,  # what a unit of the fee's asset is worth in the quote; None: nobody knows
) -> Fill:
    "Return a trade as a fill."
    return Fill(
        fill_id=str(told["id"]), client_order_id=client_order_id, symbol=symbol,
        side=Side.BUY if told["isBuyer"] else Side.SELL, quantity=Decimal(told["qty"]), price=Decimal(told["price"]),
        fee=Decimal(told["commission"]), fee_asset=told["commissionAsset"], time=time_of(told["time"]),
        role=role_of(client_order_id), fee_rate=fee_rate,
    )  # fmt: skip
