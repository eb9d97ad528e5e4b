"""One conversation with a terminal: is it alive, a command and its answer, a look into the history."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from ....core import BrokerUnavailable
from .commands import AdvisorCommand, AdvisorReply, ReplyKind, history_command, subscribe_command
from .config import Mt4Config
from .files import LOOK_PAUSE_S, Folder
from .state import AccountMemory
from .wire import (
    Message,
    Mt4Ticket,
    OrdersFile,
    Quote,
    read_history_file,
    read_messages_file,
    read_orders_file,
    read_quotes_file,
)

CARE = (
    "is MetaTrader running and connected, is DWX_Server_MT4 on a chart with a smiling face, is AutoTrading on, and is "
    "`folder` its MQL4/Files?"
)
FILE_PATIENCE_S = 0.25  # for a file that is being written


class Snapshot(NamedTuple):
    "Account and open tickets, and when they were written."

    orders: OrdersFile
    beat_ns: int  # by the clock of the terminal's disk
    seen: float  # by this process's own

    def find(
        self,
        magic: int,  # of an order of ours
    ) -> Mt4Ticket | None:
        "Return the open ticket of an order, whatever its number is by now."
        return next((each for each in self.orders.tickets if each.magic == magic), None)


class Terminal:
    "A terminal, seen through its folder."

    def __init__(
        self,
        config: Mt4Config,  # where it is
        state: AccountMemory,  # whose turn it is, and which ids were used
        folder: Path,  # its `MQL4/Files`
    ) -> None:
        "Look at nothing yet."
        self.config, self.state, self.folder = config, state, Folder(folder)
        self._last: Snapshot | None = None
        self._wanted: set[str] = set()

    # --- what is seen ---

    def snapshot(self) -> Snapshot:
        "Return account and open tickets; raise `BrokerUnavailable` unless the expert advisor lives."
        first, until = self.folder.stamp("Orders"), time.monotonic() + self.config.stale_s
        while True:
            stamp = self.folder.stamp("Orders")
            lives = stamp != first or abs(time.time() - stamp / 1e9) <= self.config.stale_s
            if stamp and lives and (found := self._read(stamp)) is not None:
                return self._checked(found)
            if time.monotonic() >= until:
                raise BrokerUnavailable(self._silence(stamp))
            time.sleep(LOOK_PAUSE_S)

    def _read(self, stamp: int) -> Snapshot | None:
        "Return what is open; while the file is half written, what it held a moment ago."
        found = self.folder.whole("Orders", read_orders_file, FILE_PATIENCE_S)
        if found is not None:
            self._last = Snapshot(found, stamp, time.monotonic())
        young = self._last is not None and time.monotonic() - self._last.seen < self.config.stale_s
        return self._last if young else None

    def _checked(self, found: Snapshot) -> Snapshot:
        if (number := found.orders.account.number) != self.config.login:
            raise BrokerUnavailable(
                f"`login` must be the account that the terminal is logged in to, was {self.config.login}, the terminal "
                f"says {number}: log in to {self.config.login} there"
            )
        return found

    def _silence(self, stamp: int) -> str:
        where = self.folder.file("Orders")
        if not stamp:
            return f"there is no {where}: {CARE}"
        if abs(time.time() - stamp / 1e9) <= self.config.stale_s:
            return (
                f"{where} is written but not whole JSON for {self.config.stale_s:g} s: an order whose comment has a "
                "quotation mark breaks it; close that order in MetaTrader"
            )
        return f"no sign of life from the expert advisor for {time.time() - stamp / 1e9:.0f} s: {CARE}"

    def await_beat(
        self,
        after_ns: int,  # a sign of life that is known
        patience_s: float,  # for another
    ) -> bool:
        "Wait for a sign of life, and say whether one came."
        return _until(lambda: self.folder.stamp("Orders") > after_ns, patience_s)

    # --- what is asked ---

    def ask(
        self,
        command: AdvisorCommand,  # to be carried out
        about_to: Callable[[str, int], None] = lambda text, beat_ns: None,  # told its text and the last sign of life
    ) -> AdvisorReply:
        "Send a command once and return its answer; raise `BrokerUnavailable` only while nothing is sent."
        with self.state.turn(self.config.command_answer_s):
            return self._ask(command, about_to)

    def _ask(
        self, command: AdvisorCommand, about_to: Callable[[str, int], None] = lambda text, beat_ns: None
    ) -> AdvisorReply:
        beat_ns = self._be_alone()
        before = self._messages()
        id_ = self.state.number()
        text = command.text(id_)
        about_to(text, beat_ns)
        if not self.folder.put(text):
            raise BrokerUnavailable(f"another program writes commands into {self.folder.path}: let only one do so")
        try:
            reply = self._answer(command, text, before)
            if reply.outcome is not ReplyKind.UNCERTAIN:
                self.state.answered(id_)
        except BrokerUnavailable as error:  # it is sent: whatever fails now says nothing of it
            return AdvisorReply(ReplyKind.UNCERTAIN, error.message)
        return reply

    def _be_alone(self) -> int:
        "Wait until earlier commands are through, and return the last sign of life."
        beat_ns = self.snapshot().beat_ns
        if not self.state.is_quiet() and not self.await_beat(beat_ns, self.config.stale_s):
            raise BrokerUnavailable(f"the expert advisor is busy with an earlier command: {CARE}")
        if not _until(lambda: not self.folder.waiting(), self.config.stale_s):
            others = ", ".join(f"DWX_Commands_{slot}.txt" for slot in self.folder.waiting())
            raise BrokerUnavailable(
                f"nobody reads {others} in {self.folder.path}: the expert advisor hangs, or another program writes "
                f"there, too; {CARE}"
            )
        return self.snapshot().beat_ns

    def _messages(self) -> Mapping[str, Message]:
        if not self.folder.stamp("Messages"):
            return {}
        found = self.folder.whole("Messages", read_messages_file, self.config.stale_s)
        if found is None:
            raise BrokerUnavailable(f"{self.folder.file('Messages')} is not whole JSON")
        return found

    def _answer(self, command: AdvisorCommand, text: str, before: Mapping[str, Message]) -> AdvisorReply:
        "Return the answer to a command that lies in the folder."
        until, beats, stamp = time.monotonic() + self.config.command_answer_s, 0, 0
        while time.monotonic() < until:
            if (reply := self._new_reply(command, before)) is not None:
                if command.trades:  # what is open is written after what is said, in the same tick
                    _until(lambda: self.folder.stamp("Orders") >= self.folder.stamp("Messages"), FILE_PATIENCE_S)
                return reply
            if self.folder.read("Commands_0") != text.encode():  # read: what it says is said within a tick
                now = self.folder.stamp("Orders")
                beats, stamp = beats + (now > stamp), max(now, stamp)
                if beats > 2:
                    reply = self._new_reply(command, before)
                    return reply or AdvisorReply(ReplyKind.UNCERTAIN, "the command was read and not answered")
            time.sleep(LOOK_PAUSE_S)
        if self.folder.waiting().get(0) == text:
            self.folder.withdraw(text)
            return AdvisorReply(ReplyKind.UNCERTAIN, f"nobody read the command for {self.config.command_answer_s:g} s")
        return AdvisorReply(ReplyKind.UNCERTAIN, f"no answer for {self.config.command_answer_s:g} s")

    def _new_reply(self, command: AdvisorCommand, before: Mapping[str, Message]) -> AdvisorReply | None:
        messages = self.folder.whole("Messages", read_messages_file, 0) or {}
        new = [message for key, message in messages.items() if before.get(key) != message]
        return next((reply for message in new if (reply := command.reply(message)) is not None), None)

    def history(
        self,
        days: int,  # since an order was opened
    ) -> tuple[Mt4Ticket, ...]:
        "Return closed tickets as they are now."
        with self.state.turn(self.config.command_answer_s):
            self.folder.remove("Historic_Trades")  # what lies there may be of yesterday
            reply = self._ask(history_command(days))
            found = self.folder.whole("Historic_Trades", read_history_file, self.config.stale_s)
        if found is None:
            raise BrokerUnavailable(f"the history was not written: {reply.text or CARE}")
        return found

    def quotes(
        self,
        written: str,  # a symbol as the broker spells it
    ) -> Mapping[str, Quote]:
        "Return the last prices, those of a symbol among them; raise `BrokerUnavailable` where it has none."
        known = self._quotes()
        if written in known:
            self._wanted.add(written)
            return known
        others = sorted((self._wanted | {*known}) - {written})
        reply = self.ask(
            subscribe_command([*others, written])
        )  # last: one that nobody knows leaves a hole before others
        _until(lambda: written in self._quotes(), FILE_PATIENCE_S if reply.outcome is ReplyKind.DONE else 0)
        known = self._quotes()
        if written not in known:
            raise BrokerUnavailable(f"the terminal has no price of {written}: {reply.text or CARE}")
        self._wanted.add(written)
        return known

    def price(
        self,
        written: str,  # a symbol as the broker spells it
    ) -> str:
        "Return the last price as a text to compare with, '' where none is known; nothing is asked."
        quote = self._quotes().get(written)
        return "" if quote is None else f"{quote.bid}/{quote.ask}"

    def _quotes(self) -> Mapping[str, Quote]:
        if not self.folder.stamp("Market_Data"):
            return {}
        return self.folder.whole("Market_Data", read_quotes_file, FILE_PATIENCE_S) or {}


def _until(true: Callable[[], bool], patience_s: float) -> bool:
    "Wait until something is true, and say whether it came to that."
    until = time.monotonic() + patience_s
    while not true():
        if time.monotonic() >= until:
            return False
        time.sleep(LOOK_PAUSE_S)
    return True
