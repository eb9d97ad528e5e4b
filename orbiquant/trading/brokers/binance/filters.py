"""What Binance takes of a symbol, asked before anything is sent: steps, values, the band around the average, whether it trades at all."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_UP, Decimal
from typing import Any

from ....core import BrokerRejected
from ....orders import Bracket, Order, OrderType, Side, exactly
from ...sizing import VenueFilters

_ZERO, _ONE = Decimal(0), Decimal(1)
TAKER_FEE = Decimal("0.001")  # taken from what a purchase brings, where nobody has said otherwise yet


def _number(filters: Mapping[str, Mapping[str, Any]], name: str, key: str, usual: Decimal = _ZERO) -> Decimal:
    number = Decimal(str(filters.get(name, {}).get(key, usual)))
    return Decimal(f"{number.normalize():f}")


@dataclass(frozen=True, slots=True)
class Band:
    "Prices that are taken, as multiples of the average: of purchases and of sales."

    buy: tuple[Decimal, Decimal]
    sell: tuple[Decimal, Decimal]


@dataclass(frozen=True, slots=True)
class SymbolRules:
    "What the venue says of one symbol; 0 where it sets no limit."

    symbol: str
    base: str
    quote: str
    status: str
    order_types: frozenset[str]
    lists: frozenset[str]  # "oco", "otoco", "opoco"
    tick: Decimal
    prices: tuple[Decimal, Decimal]
    lot: tuple[Decimal, Decimal, Decimal]  # least, most, step
    market_lot: tuple[Decimal, Decimal, Decimal]
    least_value: Decimal
    most_value: Decimal
    band: Band | None
    most_stops: int  # that may rest at once
    replaces: bool  # an order by another, in one request

    @classmethod
    def of(
        cls,
        told: Mapping[str, Any],  # one symbol of exchangeInfo
    ) -> "SymbolRules":
        "Return the rules that a venue's answer holds."
        filters = {each["filterType"]: each for each in told["filters"]}
        lots = [
            (_number(filters, name, "minQty"), _number(filters, name, "maxQty"), _number(filters, name, "stepSize"))
            for name in ("LOT_SIZE", "MARKET_LOT_SIZE")
        ]
        value = "NOTIONAL" if "NOTIONAL" in filters else "MIN_NOTIONAL"
        flags = {"oco": "ocoAllowed", "otoco": "otoAllowed", "opoco": "opoAllowed"}
        return cls(
            symbol=told["symbol"], base=told["baseAsset"], quote=told["quoteAsset"],
            status=told["status"] if told.get("isSpotTradingAllowed", True) else "NO SPOT TRADING",
            order_types=frozenset(told["orderTypes"]),
            lists=frozenset(name for name, flag in flags.items() if told.get(flag)),
            tick=_number(filters, "PRICE_FILTER", "tickSize"),
            prices=(_number(filters, "PRICE_FILTER", "minPrice"), _number(filters, "PRICE_FILTER", "maxPrice")),
            lot=lots[0], market_lot=lots[1], least_value=_number(filters, value, "minNotional"),
            most_value=_number(filters, value, "maxNotional"), band=_band(filters),
            most_stops=int(_number(filters, "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders")),
            replaces=bool(told.get("cancelReplaceAllowed")),
        )  # fmt: skip

    @property
    def venue_filters(self) -> VenueFilters:
        "Return what a risk gate sizes by; prices are brought onto the tick when an order is written."
        least, most, step = self.lot
        return VenueFilters(
            quantity_step=max(step, self.market_lot[2]), min_quantity=max(least, self.market_lot[0]),
            max_quantity=min(filter(None, (most, self.market_lot[1])), default=None),
            min_notional=self.least_value, max_notional=self.most_value or None,
        )  # fmt: skip

    @exactly
    def whole_lots(
        self,
        quantity: Decimal,  # in the base asset
        market: bool = True,  # of an order at the market, whose step may be another
    ) -> Decimal:
        "Return the largest quantity that the venue takes and that is no more."
        step = max(self.lot[2], self.market_lot[2] if market else _ZERO)
        return (quantity // step * step).normalize() if step else quantity

    @exactly
    def on_tick(
        self,
        price: Decimal,  # any
        up: bool,  # to the next tick above; else below
    ) -> Decimal:
        "Return a price as the venue takes it."
        if not self.tick:
            return price
        return ((price / self.tick).to_integral_value(ROUND_UP if up else ROUND_DOWN) * self.tick).normalize()


def _band(filters: Mapping[str, Mapping[str, Any]]) -> Band | None:
    if (by_side := filters.get("PERCENT_PRICE_BY_SIDE")) is not None:
        names = ("bidMultiplierDown", "bidMultiplierUp", "askMultiplierDown", "askMultiplierUp")
        down, up, ask_down, ask_up = (Decimal(str(by_side[name])) for name in names)
        return Band((down, up), (ask_down, ask_up))
    if (both := filters.get("PERCENT_PRICE")) is not None:
        one = Decimal(str(both["multiplierDown"])), Decimal(str(both["multiplierUp"]))
        return Band(one, one)
    return None


@dataclass(frozen=True, slots=True)
class ExitLevels:
    "The prices at which a position is left, on the venue's ticks."

    stop: Decimal | None
    target: Decimal | None

    @classmethod
    def of(
        cls,
        rules: SymbolRules,  # of the symbol
        bracket: Bracket | None,  # of a long position
    ) -> "ExitLevels":
        "Return the levels of a bracket: brought to the tick that loses less and wins sooner."
        stop, target = (None, None) if bracket is None else (bracket.stop_loss, bracket.take_profit)
        return cls(
            None if stop is None else rules.on_tick(stop, up=True),
            None if target is None else rules.on_tick(target, up=False),
        )


def price_fault(
    rules: SymbolRules,  # of the symbol
    name: str,  # "limit_price", "stop_loss", "take_profit"
    price: Decimal,  # of an order there
    side: Side,  # of that order
    average: Decimal,  # that the band is around
) -> str:
    "Return why the venue would refuse a price, '' when it would not."
    least, most = rules.prices
    if rules.band is not None:
        down, up = rules.band.buy if side is Side.BUY else rules.band.sell
        least, most = max(least, average * down), min(filter(None, (most, average * up)))
    if rules.tick and price % rules.tick:
        return f"`{name}` must be a multiple of the tick {rules.tick.normalize():f}, was {price:f}"
    if price < least or (most and price > most):
        around = f" around the average {average:f}" if rules.band else ""
        return f"`{name}` must lie in {least:f} … {most:f}{around} for a {side.value}, was {price:f}"
    return ""


def quantity_fault(
    rules: SymbolRules,  # of the symbol
    quantity: Decimal,  # in whole lots
    market: bool,  # of an order at the market
) -> str:
    "Return why the venue would refuse a quantity, '' when it would not."
    least = max(rules.lot[0], rules.market_lot[0] if market else _ZERO)
    most = min(filter(None, (rules.lot[1], rules.market_lot[1] if market else _ZERO)), default=None)
    if quantity < least or not quantity:
        return f"`quantity` must be at least {least:f} {rules.base} in whole lots, was {quantity:f}"
    if most is not None and quantity > most:
        return f"`quantity` must be at most {most:f} {rules.base}, was {quantity:f}"
    return ""


@exactly
def value_fault(
    rules: SymbolRules,  # of the symbol
    name: str,  # of the price
    price: Decimal,  # of an order there
    quantity: Decimal,  # of it
) -> str:
    "Return why the venue would refuse what an order is worth, '' when it would not."
    value = price * quantity
    if value < rules.least_value:
        return f"an order must be worth {rules.least_value:f} {rules.quote} or more, at `{name}` it was {value:f}"
    if rules.most_value and value > rules.most_value:
        return f"an order must be worth {rules.most_value:f} {rules.quote} or less, at `{name}` it was {value:f}"
    return ""


def entry_fault(
    rules: SymbolRules,  # of the symbol
    order: Order,  # that opens
    quantity: Decimal,  # of it, in whole lots
    average: Decimal,  # price over the last minutes
) -> str:
    "Return why the venue would refuse an entry, its stop or its target, '' when it would take all of them."
    market, levels = order.type is OrderType.MARKET, ExitLevels.of(rules, order.bracket)
    price = average if order.limit_price is None else rules.on_tick(order.limit_price, up=False)
    kept = rules.whole_lots(quantity * (_ONE - TAKER_FEE))
    faults = [quantity_fault(rules, quantity, market), value_fault(rules, "entry", price, quantity)]
    if not market:
        faults.append(price_fault(rules, "limit_price", price, Side.BUY, average))
    for name, level in (("stop_loss", levels.stop), ("take_profit", levels.target)):
        if level is not None:
            faults += [price_fault(rules, name, level, Side.SELL, average), value_fault(rules, name, level, kept)]
    return next(filter(None, faults), "")


def check_tradable(
    rules: SymbolRules,  # of the symbol
    opens: bool,  # adds risk
    client_order_id: str,  # of the order, for the error
) -> None:
    "Raise `BrokerRejected` for a symbol that cannot be traded now."
    if rules.status != "TRADING":
        may = ": what rests may be cancelled, nothing is taken" if rules.status == "CANCEL_ONLY" else ""
        raise BrokerRejected(
            f"{rules.symbol} must be TRADING for an order{'' if opens else ' that closes'}, was {rules.status}{may}",
            client_order_id=client_order_id,
        )
