"""What is traded, and the rules that hold for it."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tests.fake_binance.records import text

TYPES = ("LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT")
STP_MODES = ("NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH")


@dataclass
class Symbol:
    """One pair and its rules."""

    name: str
    base: str
    quote: str
    tick: Decimal = Decimal("0.01")
    step: Decimal = Decimal("0.00001")
    min_quantity: Decimal = Decimal("0.00001")
    max_quantity: Decimal = Decimal("9000")
    max_market_quantity: Decimal = Decimal("100")
    min_price: Decimal = Decimal("0.01")
    max_price: Decimal = Decimal("1000000")
    min_notional: Decimal = Decimal("5")
    max_notional: Decimal = Decimal("9000000")
    far_up: Decimal = Decimal("5")
    far_down: Decimal = Decimal("0.2")
    max_orders: int = 200
    max_algo_orders: int = 5
    max_lists: int = 20
    precision: int = 8
    status: str = "TRADING"
    types: tuple[str, ...] = TYPES
    permissions: tuple[str, ...] = ("SPOT",)
    oco: bool = True
    oto: bool = True
    opo: bool = True
    cancel_replace: bool = True

    def filters(self) -> list[dict[str, Any]]:
        """Return the filters as `exchangeInfo` tells them."""
        lot = {"minQty": text(self.min_quantity), "maxQty": text(self.max_quantity), "stepSize": text(self.step)}
        market = {"minQty": text(Decimal(0)), "maxQty": text(self.max_market_quantity), "stepSize": text(Decimal(0))}
        price = {"minPrice": text(self.min_price), "maxPrice": text(self.max_price), "tickSize": text(self.tick)}
        far = {
            "bidMultiplierUp": str(self.far_up),
            "bidMultiplierDown": str(self.far_down),
            "askMultiplierUp": str(self.far_up),
            "askMultiplierDown": str(self.far_down),
            "avgPriceMins": 5,
        }
        notional = {
            "minNotional": text(self.min_notional),
            "applyMinToMarket": True,
            "maxNotional": text(self.max_notional),
            "applyMaxToMarket": False,
            "avgPriceMins": 5,
        }
        return [
            {"filterType": "PRICE_FILTER"} | price,
            {"filterType": "LOT_SIZE"} | lot,
            {"filterType": "ICEBERG_PARTS", "limit": 10},
            {"filterType": "MARKET_LOT_SIZE"} | market,
            {"filterType": "PERCENT_PRICE_BY_SIDE"} | far,
            {"filterType": "NOTIONAL"} | notional,
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": self.max_orders},
            {"filterType": "MAX_NUM_ORDER_LISTS", "maxNumOrderLists": self.max_lists},
            {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": self.max_algo_orders},
        ]

    def info(self) -> dict[str, Any]:
        """Return the pair as `exchangeInfo` tells it."""
        return {
            "symbol": self.name,
            "status": self.status,
            "baseAsset": self.base,
            "baseAssetPrecision": self.precision,
            "quoteAsset": self.quote,
            "quotePrecision": self.precision,
            "quoteAssetPrecision": self.precision,
            "baseCommissionPrecision": 8,
            "quoteCommissionPrecision": 8,
            "orderTypes": list(self.types),
            "icebergAllowed": True,
            "ocoAllowed": self.oco,
            "otoAllowed": self.oto,
            "opoAllowed": self.opo,
            "quoteOrderQtyMarketAllowed": True,
            "allowTrailingStop": False,
            "cancelReplaceAllowed": self.cancel_replace,
            "amendAllowed": False,
            "pegInstructionsAllowed": False,
            "isSpotTradingAllowed": True,
            "isMarginTradingAllowed": False,
            "filters": self.filters(),
            "permissions": [],
            "permissionSets": [list(self.permissions)],
            "defaultSelfTradePreventionMode": "NONE",
            "allowedSelfTradePreventionModes": list(STP_MODES),
        }


def starting_symbols() -> list[tuple[Symbol, Decimal]]:
    """Return the pairs a fresh venue trades, and their prices."""
    d = Decimal
    fine: dict[str, Any] = {"tick": d("0.00001"), "min_price": d("0.00001"), "min_notional": d("0.0001")}
    coins: dict[str, Any] = {"step": d("0.001"), "min_quantity": d("0.001")}
    parts: dict[str, Any] = {"step": d("0.0001"), "min_quantity": d("0.0001")}
    return [
        (Symbol("BTCUSDT", "BTC", "USDT"), d("60000")),
        (Symbol("ETHUSDT", "ETH", "USDT", **parts), d("3000")),
        (Symbol("BNBUSDT", "BNB", "USDT", **coins), d("600")),
        (Symbol("SOLUSDT", "SOL", "USDT", **coins, max_market_quantity=d("5000")), d("150")),
        (Symbol("LTCUSDT", "LTC", "USDT", **coins), d("70")),
        (Symbol("ETHBTC", "ETH", "BTC", **fine | parts), d("0.05")),
        (Symbol("LTCBTC", "LTC", "BTC", **fine | coins), d("0.0015")),
        (Symbol("１２３４５６", "１２３４５６", "USDT", **coins), d("1")),
    ]
