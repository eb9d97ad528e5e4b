"""The adapter of the venue of the tests, as one of a real venue must be: a lost reply is unknown, never a refusal."""

import http.client
import json
import time
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from orbiquant.core import BrokerRejected, BrokerUnavailable, ExecutionUnknown
from orbiquant.orders import (
    Account,
    Bracket,
    Capabilities,
    Fill,
    Order,
    OrderState,
    OrderStatus,
    Position,
    Side,
)

TIMEOUT_S = 0.06
SETTLED_S = 0.3  # after which an order that the venue does not know never comes any more


class VenueBroker:
    """Orders to a venue over HTTP."""

    def __init__(self, address: str) -> None:
        """Count every order as just sent whose sending this process has not seen."""
        self.place, self.began = urlsplit(address).netloc, time.monotonic()
        self.sent_at: dict[str, float] = {}

    def _ask(self, what: str, *arguments: Any, timeout_s: float = 5) -> Any:
        connection = http.client.HTTPConnection(self.place, timeout=timeout_s)
        try:
            connection.request("POST", f"/{what}", json.dumps(arguments))
            return json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException) as error:
            raise BrokerUnavailable(f"the venue does not answer: {type(error).__name__}") from error
        finally:
            connection.close()

    def capabilities(self, symbol: str) -> Capabilities:
        """Return what the venue can do."""
        return Capabilities(short=True)

    def submit(self, order: Order) -> OrderStatus:
        """Send an order once."""
        id_ = order.client_order_id
        self.sent_at[id_] = time.monotonic()
        try:
            answer = self._ask("submit", order.model_dump(mode="json"), timeout_s=TIMEOUT_S)
        except BrokerUnavailable as error:
            raise ExecutionUnknown(error.message, client_order_id=id_) from error
        if "error" in answer:
            raise BrokerRejected(answer["error"], client_order_id=id_)
        return self._status(id_, answer)

    def _status(self, id_: str, answer: dict[str, Any]) -> OrderStatus:
        if "unknown" in answer:  # taken, and gone at once
            return OrderStatus(client_order_id=id_, broker_order_id=id_, state=OrderState.SUBMITTED,
                               filled_quantity=Decimal(0), average_price=None)  # fmt: skip
        filled = Decimal(answer["filled"])
        price = Decimal(answer["paid"]) / filled if filled else None
        return OrderStatus(client_order_id=id_, broker_order_id=id_, state=OrderState(answer["state"]),
                           filled_quantity=filled, average_price=price)  # fmt: skip

    def order(self, symbol: str, client_order_id: str) -> OrderStatus | None:
        """Return where an order stands, None when it is settled that it never came."""
        answer = self._ask("status", client_order_id)
        if "unknown" not in answer:
            return self._status(client_order_id, answer)
        if time.monotonic() < self.sent_at.get(client_order_id, self.began) + SETTLED_S:
            raise BrokerUnavailable("it may still be on its way")
        return None

    def amend(self, symbol: str, client_order_id: str, bracket: Bracket) -> None:
        """Put other protection in the place of what stands."""
        answer = self._ask("amend", client_order_id, bracket.model_dump(mode="json"))
        if "error" in answer:
            raise BrokerRejected(answer["error"], client_order_id=client_order_id)

    def cancel(self, symbol: str, client_order_id: str) -> OrderStatus:
        """Refuse: nothing rests here for long."""
        raise BrokerRejected("this venue cancels nothing", client_order_id=client_order_id)

    def open_orders(self) -> list[Order]:
        """Return what stands."""
        return [Order.model_validate(order) for order in self._ask("state")["open"]]

    def positions(self) -> list[Position]:
        """Return what is held, entry by entry."""
        return [
            Position(owner=id_, symbol=guard["symbol"], average_price=Decimal(guard["price"]),
                     quantity=Side(guard["side"]).sign * Decimal(guard["quantity"]), opened_at=guard["opened"])
            for id_, guard in self._ask("state")["guards"].items()
        ]  # fmt: skip

    def account(self) -> Account:
        """Return money enough."""
        return Account(owner="paper", currency="USDT", balance=Decimal(3_000_000), equity=Decimal(3_000_000))

    def fills(self, symbol: str, after: str | None = None) -> list[Fill]:
        """Return the fills behind the cursor, in the venue's order."""
        return [Fill.model_validate(fill) for fill in self._ask("listed", symbol, int(after or 0))["fills"]]

    def pass_bars(self, number: int) -> None:
        """Let the venue's time come to the end of a bar: this is the market, no request of an engine."""
        self._ask("pass_bars", number)
