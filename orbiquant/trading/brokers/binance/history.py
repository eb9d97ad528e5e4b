"""What Binance keeps: orders by their id, trades behind a cursor, what rests."""

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from ....core import get_logger
from ....orders import Fill, Order, OrderType, Side, TradedSymbol
from .ids import role_of
from .market import VenueMarket
from .reports import fill_of

PAGE = 1000  # trades that one answer holds
MOST_IDS = 10_000  # orders whose ids are kept in mind


def open_order_of(
    told: Mapping[str, Any],  # an order as REST has it
) -> Order:
    "Return an order that rests; an id that is none of ours is brought to letters that an id may have."
    kind = OrderType.STOP if told["type"].startswith(("STOP", "TAKE_PROFIT")) else OrderType.LIMIT
    id_ = re.sub(r"[^A-Za-z0-9_-]", "_", told["clientOrderId"])[:36]
    price = Decimal(told["stopPrice"] if kind is OrderType.STOP else told["price"])
    return Order(
        client_order_id=id_, symbol=told["symbol"], side=Side(told["side"]), type=kind, role=role_of(id_),
        quantity=Decimal(told["origQty"]) - Decimal(told["executedQty"]),
        limit_price=price if kind is OrderType.LIMIT else None,
        trigger_price=price if kind is OrderType.STOP else None,
    )  # fmt: skip


class OrderHistory:
    "Asks for orders and trades."

    def __init__(
        self,
        market: VenueMarket,  # of the account
        currency: str,  # that it is kept in
    ) -> None:
        self.market, self.currency = market, currency
        self.since: datetime | None = None  # what was traded before is nobody's business; None: nothing was
        self._ids: dict[tuple[str, int], str] = {}

    def ask(
        self,
        symbol: TradedSymbol,  # of the order
        client_order_id: str,  # its id
    ) -> Mapping[str, Any]:
        "Return what the venue says of an order; raise one of the three ways in which a request can fail."
        told: Mapping[str, Any] = self.market.transport.ask(
            "privateGetOrder", {"symbol": symbol, "origClientOrderId": client_order_id}, urgent=True
        )
        return told

    def open_orders(
        self,
        symbol: TradedSymbol | None = None,  # None: of all
    ) -> list[Mapping[str, Any]]:
        "Return what rests."
        asked = {} if symbol is None else {"symbol": symbol}
        told: list[Mapping[str, Any]] = self.market.transport.read("privateGetOpenOrders", asked)
        return told

    def fills(
        self,
        symbol: TradedSymbol,  # whose
        after: str | None,  # the last trade that is known; None: from when the account was begun
    ) -> list[Fill]:
        "Return trades behind a cursor, in the venue's order."
        found = self._trades(symbol, after)
        return [self._fill(symbol, told) for told in found]

    def _trades(self, symbol: TradedSymbol, after: str | None) -> list[Mapping[str, Any]]:
        offset_ms = self.market.transport.offset_ms or 0
        begin = 0 if self.since is None else int(self.since.timestamp() * 1000) + offset_ms  # by the venue's clock
        if after is None:
            newest = self._page(symbol, {})
            if len(newest) < PAGE or newest[0]["time"] < begin:
                return [each for each in newest if each["time"] >= begin]
        found: list[Mapping[str, Any]] = []
        number = 0 if after is None else int(after) + 1
        while page := self._page(symbol, {"fromId": number}):
            found += [each for each in page if after is not None or each["time"] >= begin]
            if len(page) < PAGE:
                break
            number = page[-1]["id"] + 1
        return found

    def _page(self, symbol: TradedSymbol, more: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        asked = {"symbol": symbol, "limit": PAGE, **more}
        told: list[Mapping[str, Any]] = self.market.transport.read("privateGetMyTrades", asked)
        return sorted(told, key=lambda each: each["id"])

    def _fill(self, symbol: TradedSymbol, told: Mapping[str, Any]) -> Fill:
        return fill_of(told, self._id_of(symbol, told["orderId"]), symbol, self._fee_rate(symbol, told))

    def _id_of(self, symbol: TradedSymbol, order_id: int) -> str:
        "Return the client's id of an order that a trade names by the venue's."
        if (kept := self._ids.get((symbol, order_id))) is None:
            asked = {"symbol": symbol, "orderId": order_id}
            kept = str(self.market.transport.read("privateGetOrder", asked)["clientOrderId"])
            if len(self._ids) >= MOST_IDS:
                self._ids.pop(next(iter(self._ids)))
            self._ids[symbol, order_id] = kept
        return kept

    def _fee_rate(self, symbol: TradedSymbol, told: Mapping[str, Any]) -> Decimal | None:
        "Return what a unit of another fee asset is worth in the account's currency, 0 where nobody knows."
        asset, paid = told["commissionAsset"], Decimal(told["commission"])
        if not paid or asset == self.currency or f"{asset}{self.currency}" == symbol:
            return None
        other = f"{asset}{self.currency}"
        price = self.market.price_at(other, int(told["time"])) or self.market.prices().get(other)
        if price is None:
            get_logger("trading.binance").warning("a fee that nobody can value", asset=asset, fee=f"{paid:f}")
        return price or Decimal(0)
