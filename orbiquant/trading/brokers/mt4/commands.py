"""What is asked of the expert advisor, and how an answer is told from somebody else's."""

import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from .wire import Message

AGAIN = frozenset({"requote", "price changed", "off quotes", "trade context is busy", "trade server is busy"})
UNCERTAIN = frozenset({"trade timeout", "common error", "no connection with trade server", "no error"})
NO_POSITION_LOTS = Decimal(1_000_000)  # more than any position has: what waits is taken back, a position stays
REFUSAL_HINTS = {
    "OPEN_ORDER_MAXIMUM_NUMBER": "raise MaximumOrders in the inputs of DWX_Server_MT4",
    "OPEN_ORDER_LOTSIZE_TOO_LARGE": "raise MaximumLotSize in the inputs of DWX_Server_MT4",
    "trade is not allowed in the expert properties": "tick `Allow live trading` in the expert advisor's properties",
    "invalid stops": "stop or target is nearer than the broker's stop level, or on the wrong side of the price",
}


class ReplyKind(StrEnum):
    "What an answer says of a command."

    DONE = "done"
    REFUSED = "refused"  # by server or expert advisor: it was not carried out
    AGAIN = "again"  # refused, because the price had moved or somebody was busy
    UNCERTAIN = "uncertain"  # nobody says whether it was carried out
    NOT_SENT = "not sent"  # nothing was written


@dataclass(frozen=True)
class AdvisorReply:
    "The answer to a command."

    outcome: ReplyKind
    text: str = ""
    ticket: int | None = None


@dataclass(frozen=True)
class AdvisorCommand:
    "A command, and what its answer looks like."

    name: str
    content: str
    done: re.Pattern[str]  # of good news; the group `ticket`, where there is one, is the order's number
    errors: tuple[str, ...]  # types of errors that may be its own
    about: re.Pattern[str]  # of the text of such an error

    @property
    def trades(self) -> bool:
        "Say whether it changes what is open."
        return self.name.endswith("_ORDER")

    def text(
        self,
        id_: int,  # that no command had before
    ) -> str:
        "Return what is written into the file."
        return f"<:{id_}|{self.name}|{self.content}:>"

    def reply(
        self,
        message: Message,  # new since it was sent
    ) -> AdvisorReply | None:
        "Return what a message says of this command; None for one of another."
        if not message.kind:
            found = self.done.search(message.text)
            number = found.groupdict().get("ticket") if found else None
            return AdvisorReply(ReplyKind.DONE, message.text, int(number) if number else None) if found else None
        if message.kind.startswith("WRONG_FORMAT") and self.content in message.text:
            return AdvisorReply(ReplyKind.REFUSED, message.text)
        if not message.kind.startswith(self.errors) or not self.about.search(message.text):
            return None
        said = message.text.rpartition(": ")[2].strip()
        hint = REFUSAL_HINTS.get(message.kind) or REFUSAL_HINTS.get(said)
        return AdvisorReply(_outcome(said), f"{message.text}; {hint}" if hint else message.text)


def _outcome(said: str) -> ReplyKind:
    if said in UNCERTAIN or said.startswith("ErrorCode"):
        return ReplyKind.UNCERTAIN
    return ReplyKind.AGAIN if said in AGAIN else ReplyKind.REFUSED


def decimal_word(
    number: Decimal,  # lots or a price
) -> str:
    "Return a number as MetaTrader reads it: no exponent, no grouping."
    return f"{number:f}"


_ANY = re.compile("")


def entry_command(
    written: str,  # a symbol as the broker spells it
    kind: str,  # `buy`, `selllimit` …
    lots: Decimal,  # of the broker's contract
    price: Decimal,  # that it waits for; 0: at the market
    stop_loss: Decimal,  # 0: none
    take_profit: Decimal,  # 0: none
    magic: int,  # that it is found by
    comment: str,  # at most 31 characters
) -> AdvisorCommand:
    "Return the command that opens a position, or lets an order wait for one."
    numbers = ",".join(map(decimal_word, (lots, price, stop_loss, take_profit)))
    content = f"{written},{kind},{numbers},{magic},{comment},0"
    done = re.compile(rf"^Successfully sent order (?P<ticket>\d+): {re.escape(written)}, {kind}, ")
    return AdvisorCommand("OPEN_ORDER", content, done, ("OPEN_ORDER",), _ANY)


def modify_command(
    ticket: int,  # number as it is now
    stop_loss: Decimal,  # 0: none
    take_profit: Decimal,  # 0: none
) -> AdvisorCommand:
    "Return the command that puts other levels in the place of those that stand."
    content = f"{ticket},0,{decimal_word(stop_loss)},{decimal_word(take_profit)},0"
    done = re.compile(rf"^Successfully modified order (?P<ticket>{ticket}):")
    return AdvisorCommand("MODIFY_ORDER", content, done, ("MODIFY_ORDER",), _of(ticket))


def close_command(
    ticket: int,  # number as it is now
    lots: Decimal,  # of it; `NO_POSITION_LOTS`: only if it waits still
) -> AdvisorCommand:
    "Return the command that closes a position, a part of it, or takes back what waits."
    done = re.compile(rf"^Successfully closed order: (?P<ticket>{ticket}),")
    content = f"{ticket},{decimal_word(lots)}"
    return AdvisorCommand("CLOSE_ORDER", content, done, ("CLOSE_ORDER_TICKET", "CLOSE_ORDER_SELECT"), _of(ticket))


def subscribe_command(
    symbols: list[str],  # all that prices are wanted of: others are dropped
) -> AdvisorCommand:
    "Return the command that asks for prices."
    done = re.compile("^Successfully subscribed to:")
    return AdvisorCommand("SUBSCRIBE_SYMBOLS", ",".join(symbols), done, ("SUBSCRIBE_SYMBOL",), _ANY)


def history_command(
    days: int,  # since an order was opened
) -> AdvisorCommand:
    "Return the command that asks for closed orders."
    done = re.compile("^Successfully read historic trades")
    return AdvisorCommand("GET_HISTORIC_TRADES", str(days), done, ("HISTORIC_TRADES",), _ANY)


def _of(ticket: int) -> re.Pattern[str]:
    return re.compile(rf"\b{ticket}\b")
