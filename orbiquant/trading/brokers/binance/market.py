"""What Binance says of symbols, prices and balances, kept for as long as it may be believed."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from time import monotonic
from typing import Any

from ....core import BrokerRejected, NotFoundError
from ....orders import TradedSymbol
from .errors import NotTaken, VenueRefused, VenueSilent, read_fault
from .filters import SymbolRules
from .transport import Transport

RULES_S = 600.0  # that a symbol's rules are believed
NO_SYMBOL = -1121


@dataclass(frozen=True, slots=True)
class Balance:
    "What there is of one asset."

    free: Decimal
    locked: Decimal

    @property
    def total(self) -> Decimal:
        "Return all of it."
        return self.free + self.locked


class VenueMarket:
    "Asks for what no order changes, and for what is owned."

    def __init__(
        self,
        transport: Transport,  # to the venue
    ) -> None:
        self.transport = transport
        self._rules: dict[str, tuple[float, SymbolRules]] = {}

    def known(
        self,
        symbol: TradedSymbol,  # "BTCUSDT"
    ) -> SymbolRules | None:
        "Return a symbol's rules where they were asked for before."
        kept = self._rules.get(symbol)
        return None if kept is None else kept[1]

    def rules(
        self,
        symbol: TradedSymbol,  # "BTCUSDT"
    ) -> SymbolRules:
        "Return a symbol's rules; raise `NotFoundError` for one that the venue does not have."
        kept = self._rules.get(symbol)
        if kept is not None and monotonic() < kept[0] + RULES_S:
            return kept[1]
        try:
            told = self.transport.ask("publicGetExchangeInfo", {"symbol": symbol})
        except VenueRefused as error:
            if error.code == NO_SYMBOL:
                raise NotFoundError(f"Binance has no spot market {symbol}") from None
            raise read_fault(error) from None
        except (NotTaken, VenueSilent) as error:
            raise read_fault(error) from None
        rules = SymbolRules.of(told["symbols"][0])
        self._rules[symbol] = (monotonic(), rules)
        return rules

    def forget(
        self,
        symbol: TradedSymbol,  # whose rules have changed: an order was refused by one
    ) -> None:
        "Ask anew next time."
        self._rules.pop(symbol, None)

    def average(
        self,
        symbol: TradedSymbol,  # "BTCUSDT"
    ) -> Decimal:
        "Return the average price that the venue's band is around."
        return Decimal(self.transport.read("publicGetAvgPrice", {"symbol": symbol})["price"])

    def traded_ms(
        self,
        symbol: TradedSymbol,  # "BTCUSDT"
    ) -> int:
        "Return when a symbol was traded last, by the venue's clock."
        return int(self.transport.read("publicGetAvgPrice", {"symbol": symbol})["closeTime"])

    def prices(self) -> dict[str, Decimal]:
        "Return the last price of every symbol."
        told = self.transport.read("publicGetTickerPrice", {})
        return {each["symbol"]: Decimal(each["price"]) for each in told}

    def price_at(
        self,
        symbol: TradedSymbol,  # "BNBUSDT"
        time_ms: int,  # since 1970
    ) -> Decimal | None:
        "Return what a symbol cost in a minute; None where the venue does not have it."
        begin = time_ms - time_ms % 60_000
        try:
            told = self.transport.read(
                "publicGetKlines", {"symbol": symbol, "interval": "1m", "startTime": begin, "limit": 1}
            )
        except BrokerRejected:
            return None
        return Decimal(told[0][4]) if told else None

    def balances(self) -> dict[str, Balance]:
        "Return what is owned, by asset; what there is nothing of is left out."
        told: Mapping[str, Any] = self.transport.read("privateGetAccount", {"omitZeroBalances": "true"})
        owned = {each["asset"]: Balance(Decimal(each["free"]), Decimal(each["locked"])) for each in told["balances"]}
        return {asset: balance for asset, balance in owned.items() if balance.total}
