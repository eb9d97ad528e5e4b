"""The broker's words for what is traded: its symbols, its lots, its clock."""

import re
from datetime import UTC, datetime
from decimal import Decimal

from ....core import BrokerRejected, OrbiError, get_logger
from ....domain import Instrument, normalise_symbol
from ....market.clocks import parse_zone
from ....market.instruments import instrument_of
from ....orders import TradedSymbol, exactly
from .config import Mt4Config
from .wire import Quote

NEAR = Decimal("0.01")  # share by which two values of a tick may differ


class Contracts:
    "Symbols, lots and times of one broker."

    def __init__(
        self,
        config: Mt4Config,  # what it calls what
    ) -> None:
        "Take the settings."
        self.config, (self._zone, self._ahead) = config, parse_zone(config.server_zone)
        self._symbols = {name: symbol for symbol, name in config.symbol_names.items()}
        self._told: set[str] = set()

    def written(
        self,
        symbol: TradedSymbol,  # to be traded
    ) -> str:
        "Return a symbol as the broker spells it."
        return self.config.symbol_names.get(symbol, f"{symbol}{self.config.symbol_suffix}")

    def symbol(
        self,
        written: str,  # as the broker spells it
    ) -> str:
        "Return a symbol as we spell it; one that cannot be spelled keeps its letters."
        if written in self._symbols:
            return self._symbols[written]
        try:
            return normalise_symbol(written.removesuffix(self.config.symbol_suffix))
        except OrbiError:
            letters = re.sub(r"[^A-Z0-9]", "", written.upper())[:20]
            return letters if len(letters) > 1 else "NAMELESS"

    def instrument(
        self,
        symbol: TradedSymbol,  # to be traded
    ) -> Instrument:
        "Return what is traded."
        return instrument_of(symbol).instrument

    def lot_size(
        self,
        symbol: TradedSymbol,  # to be traded
    ) -> Decimal:
        "Return how many units a lot has."
        return self.config.lot_sizes.get(symbol) or self.instrument(symbol).lot_size

    @exactly
    def units(
        self,
        symbol: TradedSymbol,  # to be traded
        lots: Decimal,  # of it
    ) -> Decimal:
        "Return a quantity in units."
        return (lots * self.lot_size(symbol)).normalize() + 0

    @exactly
    def lots(
        self,
        symbol: TradedSymbol,  # to be traded
        quantity: Decimal,  # units
    ) -> Decimal:
        "Return a quantity in lots; raise `BrokerRejected` where it is no whole number of steps."
        step, size = self.config.lot_step, self.lot_size(symbol)
        lots = quantity / size
        if lots % step or not 0 < lots <= self.config.most_lots:
            raise BrokerRejected(
                f"`quantity` must be a multiple of {step * size:f} units ({step} lots) up to {self.config.most_lots} "
                f"lots of {symbol}, was {quantity:f}"
            )
        return lots.quantize(step)

    def price(
        self,
        symbol: TradedSymbol,  # to be traded
        price: Decimal | None,  # a level; None: none
    ) -> Decimal:
        "Return a level as it is sent: on a tick, 0 for none."
        if price is None:
            return Decimal(0)
        tick = self.instrument(symbol).tick_size
        return (price / tick).to_integral_value() * tick

    def check_lot(
        self,
        symbol: TradedSymbol,  # to be traded
        quote: Quote,  # with what the terminal says a tick is worth
    ) -> None:
        "Raise `BrokerRejected` where the terminal's lot is another than ours: a wrong one is wrong by powers of ten."
        worth = self.instrument(symbol).tick_size * self.lot_size(symbol)
        if abs(quote.tick_value - worth) > NEAR * worth:
            raise BrokerRejected(
                f"the terminal says that a tick of a lot of {symbol} is worth {quote.tick_value:f}, by our instrument "
                f"table it is {worth:f}: set `lot_sizes` for {symbol}, or its tick_size in data/instruments.csv"
            )

    def moment(
        self,
        clock: datetime,  # what the server's clock showed
    ) -> datetime:
        "Return a moment in UTC."
        return (clock - self._ahead).replace(tzinfo=self._zone).astimezone(UTC)

    def check_clock(
        self,
        opened: datetime,  # what the server's clock showed just now
        now: datetime,  # UTC
    ) -> None:
        "Tell a person once when the server's clock is not the one that was set."
        late = (self.moment(opened) - now).total_seconds()
        if abs(late) > 900 and "clock" not in self._told:
            self._told.add("clock")
            get_logger("trading.mt4").error(
                "`server_zone` is not the clock of the trade server", server_zone=self.config.server_zone,
                off_by_hours=round(late / 3600, 2),
            )  # fmt: skip
