"""Which terminal, which account, and how long to wait for them."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ....core import OptionError, OrbiError
from ....domain import Value
from ....orders import TradedSymbol

MAGICS = 1_000_000_000  # how many numbers from `magic_base` on are ours


def _read_pairs(given: Any) -> Any:
    "Return the mapping that a text such as `XAUUSD=GOLD, EURUSD=EURUSD.r` names."
    if not isinstance(given, str):
        return given
    if given.strip() == "{}":
        return {}
    pairs = [part.partition("=") for part in given.split(",") if part.strip()]
    if wrong := [name.strip() for name, is_, value in pairs if not is_ or not value.strip()]:
        raise ValueError(f"must be pairs such as XAUUSD=GOLD, had {wrong[0][:40]!r}")
    return {name.strip(): value.strip() for name, _, value in pairs}


_USUAL_ZONE = "America/New_York+7"  # of most brokers: their day ends when New York's does


def _check_zone(zone: str) -> str:
    if zone == _USUAL_ZONE:
        return zone
    from ....market.clocks import parse_zone  # which brings pandas

    try:
        parse_zone(zone)
    except OrbiError as error:
        raise ValueError(error.message.replace("`source_zone` (--zone) ", "")) from error
    return zone


_Place = Annotated[
    Path | None,
    BeforeValidator(lambda given: given or None),
    AfterValidator(lambda path: path and path.expanduser()),
]
_Spelled = Annotated[str, Field(pattern=r"^[^,|\"\s]{1,31}$")]  # a name that survives a command file
_Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
_Lots = Annotated[Decimal, Field(gt=0, allow_inf_nan=False)]


class Mt4Config(Value):
    "The section `[mt4]`: one terminal, and the account that it must be logged in to."

    folder: _Place = None  # `MQL4/Files` of the terminal; the expert advisor's own folder `DWX` lies in it
    login: Annotated[int, Field(ge=0)] = 0  # number of the account: orders go there and nowhere else; 0: none
    state_folder: _Place = None  # where what was sent is remembered; it must outlive the terminal
    demo: bool = False  # on: the account trades no money
    server_zone: Annotated[str, AfterValidator(_check_zone)] = _USUAL_ZONE  # the clock of the trade server
    symbol_suffix: Annotated[str, Field(pattern=r"^[^,|\"\s]{0,12}$")] = ""  # what the broker appends, such as `.r`
    symbol_names: Annotated[
        Mapping[TradedSymbol, _Spelled], BeforeValidator(_read_pairs)
    ] = {}  # where it is another word
    lot_sizes: Annotated[
        Mapping[TradedSymbol, _Lots], BeforeValidator(_read_pairs)
    ] = {}  # units; else the instrument's
    lot_step: _Lots = Decimal("0.01")
    most_lots: _Lots = Decimal(50)  # of one order
    magic_base: Annotated[int, Field(ge=1, le=2**31 - 1 - MAGICS)] = 1_000_000_000  # first of a billion numbers
    command_answer_s: _Seconds = 10.0  # for a command to be answered
    stale_s: _Seconds = 5.0  # without a sign of life, after which an expert advisor is dead
    settle_s: _Seconds = 30.0  # after which an order that left no trace never came, where prices have moved since
    quiet_settle_s: _Seconds = 300.0  # and where none has moved, as at a weekend
    history_s: _Seconds = 30.0  # between two looks into the history, at most
    history_reach_days: Annotated[int, Field(ge=1, le=3650)] = 30  # that a look goes back, at least
    retries: Annotated[int, Field(ge=0, le=10)] = 3  # of what the server refused because the price had moved

    @property
    def real_money(self) -> bool:
        "Say whether an order costs something."
        return not self.demo

    def places(self) -> tuple[Path, Path]:
        "Return the terminal's folder and the one of what was sent; raise `OptionError` naming what is not set."
        if self.folder is None or self.state_folder is None or not self.login:
            lacking = [name for name in ("folder", "login", "state_folder") if not getattr(self, name)]
            raise OptionError(f"`[mt4] {lacking[0]}` must be set before anything is traded at MetaTrader 4, was empty")
        return self.folder, self.state_folder

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.quiet_settle_s < self.settle_s:
            raise ValueError(
                f"`quiet_settle_s` must be at least `settle_s` {self.settle_s:g}, was {self.quiet_settle_s:g}"
            )
        return self
