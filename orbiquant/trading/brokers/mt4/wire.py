"""What the expert advisor's files hold, whatever bytes are in them: whole and known, or nothing."""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

POSITIONS = ("buy", "sell")
WAITING = ("buylimit", "selllimit", "buystop", "sellstop")
_TIME = "%Y.%m.%d %H:%M:%S"


def _read_time(given: Any) -> datetime:
    found = datetime.strptime(str(given), _TIME)  # the server's clock: a setting tells its zone
    if not 1970 <= found.year < 2100:
        raise ValueError(f"must be a time of our days, was {given}")
    return found


_Clocked = Annotated[datetime, BeforeValidator(_read_time)]
_MOST = Decimal("1e15")  # beyond which a number is a mistake
_Money = Annotated[Decimal, Field(ge=-_MOST, le=_MOST, allow_inf_nan=False)]
_Price = Annotated[Decimal, Field(gt=0, le=_MOST, allow_inf_nan=False)]
_Level = Annotated[Decimal, Field(ge=0, le=_MOST, allow_inf_nan=False)]  # 0: none
_Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class FileRecord(BaseModel):
    "The base of what was written by somebody else: unknown fields are passed over."

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Mt4Ticket(FileRecord):
    "An order of MetaTrader 4, open or closed; a position is one, too."

    number: _Whole
    magic: _Whole
    symbol: str
    lots: _Level  # 0 of what another ticket has closed
    kind: str = Field(alias="type")  # of `POSITIONS` or `WAITING`
    open_price: _Price
    open_time: _Clocked  # by the server's clock
    stop_loss: _Level = Field(alias="SL")
    take_profit: _Level = Field(alias="TP")
    commission: _Money
    swap: _Money
    comment: str
    close_price: _Level | None = None
    close_time: _Clocked | None = None

    @property
    def held(self) -> bool:
        "Say whether it is a position, or was one."
        return self.kind in POSITIONS

    @property
    def sign(self) -> int:
        "Return +1 for what buys, −1 for what sells."
        return -1 if self.kind.startswith("sell") else 1

    @property
    def parent(self) -> int | None:
        "Return the ticket that a partial close has made it the rest of, where the comment tells."
        found = re.search(r"from #(\d{1,18})", self.comment)
        return int(found[1]) if found else None


class AccountInfo(FileRecord):
    "The account that a terminal is logged in to."

    number: int
    currency: str
    leverage: int
    free_margin: _Money
    balance: _Money
    equity: _Money


class OrdersFile(NamedTuple):
    "The account with all that is open in it."

    account: AccountInfo
    tickets: tuple[Mt4Ticket, ...]


class Quote(FileRecord):
    "The last price of a symbol."

    bid: _Price
    ask: _Price
    tick_value: _Money  # of one tick and lot, in the account's currency


class Message(NamedTuple):
    "What the expert advisor says of something that it did."

    kind: str  # the error's type, '' for good news
    text: str


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def decode(
    content: bytes,  # of a file, perhaps half of it
) -> dict[str, Any] | None:
    "Return the object that a file holds; None for anything else."
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
    try:
        found = json.loads(text, parse_float=Decimal, parse_constant=_no_number)
    except (ValueError, ArithmeticError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _tickets(found: Any) -> tuple[Mt4Ticket, ...] | None:
    "Return what a table of tickets holds; payments and credits are among them, and are passed over."
    try:
        rows = {int(number): row for number, row in found.items()}
        wanted = {number: row for number, row in rows.items() if row["type"] in (*POSITIONS, *WAITING)}
        return tuple(Mt4Ticket.model_validate(row | {"number": number}) for number, row in sorted(wanted.items()))
    except (ValidationError, ValueError, TypeError, KeyError, AttributeError):
        return None


def read_orders_file(
    content: bytes,  # of DWX_Orders.txt
) -> OrdersFile | None:
    "Return account and open tickets; None unless the file is whole."
    found = decode(content) or {}
    tickets = _tickets(found.get("orders"))
    try:
        account = AccountInfo.model_validate(found.get("account_info"))
    except ValidationError:
        return None
    return None if tickets is None else OrdersFile(account, tickets)


def read_history_file(
    content: bytes,  # of DWX_Historic_Trades.txt
) -> tuple[Mt4Ticket, ...] | None:
    "Return closed tickets, the oldest first; None unless the file is whole."
    tickets = _tickets(decode(content))
    if tickets is None or any(each.close_time is None or each.close_price is None for each in tickets):
        return None
    return tickets


def read_quotes_file(
    content: bytes,  # of DWX_Market_Data.txt
) -> Mapping[str, Quote] | None:
    "Return the last prices by the broker's names; None unless the file is whole. A symbol without a price is left out."
    found = decode(content)
    if found is None:
        return None
    quotes = {}
    for symbol, row in found.items():
        try:
            quotes[symbol] = Quote.model_validate(row)
        except ValidationError:
            continue
    return quotes


def read_messages_file(
    content: bytes,  # of DWX_Messages.txt
) -> Mapping[str, Message] | None:
    "Return messages by their keys, the oldest first; None unless the file is whole. Keys begin anew at a reboot."
    found = decode(content)
    if found is None or not all(isinstance(row, dict) for row in found.values()):
        return None
    return {key: _message(row) for key, row in found.items()}


def _message(row: Mapping[str, Any]) -> Message:
    if row.get("type") == "ERROR":
        return Message(str(row.get("error_type") or "ERROR"), str(row.get("description", "")))
    return Message("", str(row.get("message", "")))
