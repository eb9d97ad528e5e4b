"""What the venue remembers: accounts, orders, order lists and trades."""

from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from typing import Any

ZERO = Decimal(0)
CRUMB = Decimal("0.00000001")
OPEN = frozenset({"NEW", "PARTIALLY_FILLED", "PENDING_NEW"})
ALGO = frozenset({"STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"})
PRICED = frozenset({"LIMIT", "LIMIT_MAKER", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"})
SIDES = ("BUY", "SELL")


def text(amount: Decimal) -> str:
    """Return an amount with eight decimals, as the venue writes them."""
    return format(amount.quantize(CRUMB, rounding=ROUND_DOWN), "f")


@dataclass
class Lock:
    """Money set aside for an order, or for both of a pair."""

    asset: str
    amount: Decimal


@dataclass
class Order:
    """One order."""

    id: int
    client_id: str
    symbol: str
    side: str
    type: str
    quantity: Decimal
    time_ms: int
    price: Decimal = ZERO
    stop_price: Decimal = ZERO
    quote_quantity: Decimal = ZERO
    time_in_force: str = "GTC"
    status: str = "NEW"
    list_id: int = -1
    executed: Decimal = ZERO
    executed_quote: Decimal = ZERO
    working_time_ms: int = -1
    updated_ms: int = 0
    lock: Lock | None = None
    expiry_reason: str = "NONE"
    triggered: bool = False
    sized: bool = True
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Say whether anything may still happen to it."""
        return self.status in OPEN

    @property
    def left(self) -> Decimal:
        """Return the quantity that is not filled."""
        return self.quantity - self.executed

    @property
    def waits_for_trigger(self) -> bool:
        """Say whether its stop price has not been reached."""
        return self.type in ALGO and not self.triggered


@dataclass
class OrderList:
    """Orders that hang together."""

    id: int
    client_id: str
    symbol: str
    contingency: str
    time_ms: int
    orders: list[Order]
    pays: bool = False
    status_type: str = "EXEC_STARTED"
    order_status: str = "EXECUTING"

    @property
    def working(self) -> Order | None:
        """Return the order that the others wait for."""
        return self.orders[0] if self.contingency == "OTO" else None

    @property
    def pending(self) -> list[Order]:
        """Return the orders that wait for the first."""
        return self.orders[1:] if self.contingency == "OTO" else []

    @property
    def pair(self) -> list[Order]:
        """Return the two of which one cancels the other."""
        candidates = self.pending if self.contingency == "OTO" else self.orders
        return candidates if len(candidates) == 2 else []


@dataclass
class Trade:
    """One fill of an order."""

    id: int
    order: Order
    price: Decimal
    quantity: Decimal
    fee: Decimal
    fee_asset: str
    time_ms: int
    maker: bool

    @property
    def quote(self) -> Decimal:
        """Return what changed hands."""
        return self.price * self.quantity


@dataclass
class Account:
    """One owner of keys and money."""

    key: str
    secret: str
    free: dict[str, Decimal] = field(default_factory=dict)
    locked: dict[str, Decimal] = field(default_factory=dict)
    orders: dict[int, Order] = field(default_factory=dict)
    standing: dict[int, Order] = field(default_factory=dict)
    by_client: dict[tuple[str, str], Order] = field(default_factory=dict)
    lists: dict[int, OrderList] = field(default_factory=dict)
    trades: list[Trade] = field(default_factory=list)
    bnb_fees: bool = False
    can_trade: bool = True
    can_withdraw: bool = False
    ip_restricted: bool = True
    permissions: tuple[str, ...] = ("SPOT",)
    maker: Decimal = Decimal("0.001")
    taker: Decimal = Decimal("0.001")
    updated_ms: int = 0

    def add(self, asset: str, amount: Decimal) -> None:
        """Change what is free of an asset."""
        self.free[asset] = self.free.get(asset, ZERO) + amount

    def hold(self, asset: str, amount: Decimal) -> Lock:
        """Set free money aside."""
        self.add(asset, -amount)
        self.locked[asset] = self.locked.get(asset, ZERO) + amount
        return Lock(asset, amount)

    def release(self, lock: Lock | None, amount: Decimal | None = None) -> None:
        """Give money set aside back, all of it when no amount is said."""
        if lock is None:
            return
        given = lock.amount if amount is None else min(amount, lock.amount)
        lock.amount -= given
        self.locked[lock.asset] -= given
        self.add(lock.asset, given)

    def open_orders(self, symbol: str | None = None) -> list[Order]:
        """Return the orders that still stand, oldest first."""
        found = [order for order in self.standing.values() if symbol in (None, order.symbol)]
        return sorted(found, key=lambda order: order.id)

    def remember(self, order: Order) -> None:
        """Keep an order that has a number now."""
        self.orders[order.id] = self.standing[order.id] = order
        self.by_client[order.symbol, order.client_id] = order
