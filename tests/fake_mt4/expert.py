"""The expert advisor: it reads command files, does what they say, and writes what there is to be read.

Commands are deleted, then parsed; a fault ends the scan until the next tick; a thousand ids are remembered, in memory;
the folder is wiped at start and stop. Files are written in two goes, so that a reader may meet half of one; a polite
terminal writes them at once.
"""

import time
from collections import deque
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from tests.fake_mt4.server import NAMES, SELL, Server, Ticket, TradeError

SLOTS, REMEMBERED, MESSAGES = 50, 1000, 50
WIPED = ("Market_Data", "Bar_Data", "Historic_Data", "Orders", "Messages")  # historic trades are left lying


class Died(Exception):
    """The terminal is gone in the middle of it."""


def number(text: str) -> Decimal:
    """Return what MQL reads of a text: what is no number is 0."""
    try:
        found = Decimal(text.strip())
    except InvalidOperation:
        return Decimal(0)
    return found if found.is_finite() else Decimal(0)


class Expert:
    """One chart's expert advisor."""

    def __init__(
        self, folder: Path, server: Server, polite: bool, most_orders: int, most_lots: Decimal, beat_s: float
    ) -> None:
        """Wait to be put on a chart."""
        self.folder, self.server, self.polite = folder / "DWX", server, polite
        self.most_orders, self.most_lots, self.beat_s = most_orders, most_lots, beat_s
        self.running, self.booted = False, time.monotonic()
        self.faults: dict[str, list[dict[str, Any]]] = {}
        self.torn: dict[str, float] = {}  # file → until when only half of it is written
        self.quiet_until = 0.0
        self._begin()

    def _begin(self) -> None:
        self.ids: deque[int] = deque(maxlen=REMEMBERED)
        self.messages: deque[tuple[int, str]] = deque(maxlen=MESSAGES)
        self.last_key, self.symbols = 0, list[str]()
        self.written: dict[str, tuple[str, float]] = {}
        self.unsent = False

    # --- life ---

    def start(self) -> None:
        """Be put on a chart."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.wipe()
        self._begin()
        self.running = True

    def stop(self, wipe: bool = True) -> None:
        """Be taken off; a terminal that dies wipes nothing."""
        self.running = False
        if wipe:
            self.wipe()

    def wipe(self) -> None:
        """Empty the folder."""
        for path in [self._path(name) for name in WIPED] + [self._slot(slot) for slot in range(SLOTS)]:
            path.unlink(missing_ok=True)

    def tick(self) -> None:
        """Do everything once."""
        if not self.running or time.monotonic() < self.quiet_until:
            return
        try:
            self.server.expire()
            self.commands()
            self.write_orders()
            self.write_quotes()
            if self.unsent or "Messages" in self.torn:
                self.write_messages()
        except Died:
            self.stop(wipe=False)

    # --- commands ---

    def commands(self) -> None:
        """Go through the slots until one is empty or wrong."""
        for slot in range(SLOTS):
            path = self._slot(slot)
            try:
                text = path.read_text()
                path.unlink()
            except OSError:
                return
            fault = next(iter(self.faults.get("command", [])), {})
            if fault:
                self.faults["command"].pop(0)
                raise Died
            text = text.removesuffix("\n")
            if not self.command(text):
                return

    def command(self, text: str) -> bool:
        """Carry out a command, and say whether the next is looked at in this tick."""
        if not text.startswith("<:"):
            return self.error("WRONG_FORMAT_START_IDENTIFIER", f"Start identifier not found for command: {text}")
        if not text.endswith(":>"):
            return self.error("WRONG_FORMAT_END_IDENTIFIER", f"End identifier not found for command: {text}")
        parts = text[2:-2].split("|")
        if len(parts) != 3:
            return self.error("WRONG_FORMAT_COMMAND", f"Wrong format for command: {text[2:-2]}")
        id_, name, content = int(number(parts[0])), parts[1], parts[2]
        if name != "RESET_COMMAND_IDS" and id_ in self.ids:
            return False
        self.ids.append(id_)
        data = content.split(",")
        does = {"OPEN_ORDER": self.open_order, "MODIFY_ORDER": self.modify_order, "CLOSE_ORDER": self.close_order,
                "CLOSE_ALL_ORDERS": self.close_all, "CLOSE_ORDERS_BY_SYMBOL": self.close_symbol,
                "CLOSE_ORDERS_BY_MAGIC": self.close_magic, "SUBSCRIBE_SYMBOLS": self.subscribe,
                "SUBSCRIBE_SYMBOLS_BAR_DATA": self.subscribe_bars, "GET_HISTORIC_TRADES": self.trades,
                "GET_HISTORIC_DATA": self.history, "RESET_COMMAND_IDS": self.reset}.get(name)  # fmt: skip
        if does is not None:
            does(data)
        return True

    def _fault(self, on: str) -> dict[str, Any]:
        """Return what goes wrong with this request, and let what comes before it happen."""
        waiting = self.faults.get(on, [])
        fault = waiting.pop(0) if waiting else {}
        time.sleep(fault.get("slow", 0))
        if fault.get("die") == "before":
            raise Died
        return fault

    def open_order(self, data: list[str]) -> None:
        """Send an order to the server."""
        if len(data) != 9:
            self.error("OPEN_ORDER_WRONG_FORMAT", "Wrong format for OPEN_ORDER command: " + ",".join(data))
            return
        if (n := len(self.server.tickets)) >= self.most_orders:
            self.error("OPEN_ORDER_MAXIMUM_NUMBER", f"Number of orders ({n}) larger than or equal to MaximumOrders "
                                                    f"({self.most_orders}).")  # fmt: skip
            return
        market = self.server.quotes.get(data[0])
        if data[1] not in NAMES:
            self.error("OPEN_ORDER_TYPE", f"Order type could not be parsed: -1.000000 ({data[1]})")
            return
        kind, lots = NAMES.index(data[1]), number(data[2]).quantize(Decimal("0.01"))
        digits = 0 if market is None else market.digits
        price, sl, tp = (number(each).quantize(Decimal(1).scaleb(-digits)) for each in data[3:6])
        least, most = (market.least, market.most) if market else (Decimal(0), Decimal(0))
        if not least <= lots <= most:
            self.error("OPEN_ORDER_LOTSIZE_OUT_OF_RANGE", f"Lot size out of range (min: {least:f}, max: {most:f}): "
                                                          f"{lots:f}")  # fmt: skip
            return
        if lots > self.most_lots:
            self.error("OPEN_ORDER_LOTSIZE_TOO_LARGE", f"Lot size ({lots:.2f}) larger than MaximumLotSize "
                                                       f"({self.most_lots:.2f}).")  # fmt: skip
            return
        if kind > SELL and not price:
            self.error("OPEN_ORDER_PRICE_ZERO", "Price is zero: " + ",".join(data))
            return
        self._send((data[0], kind, lots, price, sl, tp, data[7], int(number(data[6])), int(number(data[8]))))

    def _send(self, order: tuple[Any, ...]) -> None:
        fault = self._fault("send")
        try:
            if "late_s" in fault:
                self.server.late.append((time.time() + fault["late_s"], order))
            if "error" in fault:
                raise TradeError(fault["error"])
            ticket = self.server.send(*order)
        except TradeError as error:
            if not fault.get("mute"):
                self.error("OPEN_ORDER", f"Could not open order: {error}")
            return
        if "comment" in fault:
            ticket.comment = fault["comment"]
        if fault.get("close"):
            self.server.end(ticket, self.server.exit_price(ticket), "[sl]")
        if fault.get("die") == "after":
            raise Died
        if not fault.get("mute"):
            digits = self.server.quotes[ticket.symbol].digits
            self.info(f"Successfully sent order {ticket.number}: {ticket.symbol}, {NAMES[ticket.type]}, "
                      f"{ticket.lots:.2f}, {ticket.open_price:.{digits}f}")  # fmt: skip

    def _find(self, text: str, error: str) -> Ticket | None:
        """Return a ticket, open or closed, by its number."""
        wanted = int(number(text))
        every = [*self.server.tickets.values(), *self.server.history]
        found = next((each for each in every if each.number == wanted), None)
        if found is None:
            self.error(error, f"Could not select order with ticket: {wanted}")
        return found

    def modify_order(self, data: list[str]) -> None:
        """Put other levels to a ticket."""
        if len(data) != 5:
            self.error("MODIFY_ORDER_WRONG_FORMAT", "Wrong format for MODIFY_ORDER command: " + ",".join(data))
            return
        if (ticket := self._find(data[0], "MODIFY_ORDER_SELECT_TICKET")) is None:
            return
        digits = Decimal(1).scaleb(-self.server.quotes[ticket.symbol].digits)
        price, sl, tp = (number(each).quantize(digits) for each in data[1:4])
        fault = self._fault("modify")
        try:
            if "error" in fault:
                raise TradeError(fault["error"])
            self.server.modify(ticket.number, price or ticket.open_price, sl, tp, int(number(data[4])))
        except TradeError as error:
            self.error("MODIFY_ORDER", f"Error in modifying order {ticket.number}: {error}")
            return
        if fault.get("die") == "after":
            raise Died
        if not fault.get("mute"):
            self.info(f"Successfully modified order {ticket.number}: {ticket.symbol}, {NAMES[ticket.type]}, "
                      f"{ticket.open_price:.5f}, {sl:.5f}, {tp:.5f}")  # fmt: skip

    def close_order(self, data: list[str]) -> None:
        """Close a position, or take back what waits: whatever the ticket is by now."""
        if len(data) != 2:
            self.error("CLOSE_ORDER_WRONG_FORMAT", "Wrong format for CLOSE_ORDER command: " + ",".join(data))
            return
        lots = number(data[1]).quantize(Decimal("0.01"))
        if (ticket := self._find(data[0], "CLOSE_ORDER_SELECT_TICKET")) is None:
            return
        fault = self._fault("close")
        try:
            if "error" in fault:
                raise TradeError(fault["error"])
            if ticket.type <= SELL:
                self.server.close(ticket.number, lots or ticket.lots)
            else:
                self.server.delete(ticket.number)
        except TradeError as error:
            self.error("CLOSE_ORDER_TICKET", f"Could not close position {ticket.number}: {error}")
            return
        if fault.get("die") == "after":
            raise Died
        if not fault.get("mute"):
            self.info(f"Successfully closed order: {ticket.number}, {ticket.symbol}, {lots:.2f}")

    def close_all(self, data: list[str]) -> None:
        """Close everything."""
        self._close_many([*self.server.tickets.values()], "", "CLOSE_ORDER_ALL")

    def close_symbol(self, data: list[str]) -> None:
        """Close everything of a symbol."""
        found = [each for each in self.server.tickets.values() if each.symbol == data[0]]
        self._close_many(found, f" with symbol {data[0]}", "CLOSE_ORDER_SYMBOL")

    def close_magic(self, data: list[str]) -> None:
        """Close everything of a magic number."""
        found = [each for each in self.server.tickets.values() if each.magic == int(number(data[0]))]
        self._close_many(found, f" with magic {data[0]}", "CLOSE_ORDER_MAGIC")

    def _close_many(self, tickets: list[Ticket], which: str, error: str) -> None:
        failed = 0
        for ticket in tickets:
            try:
                if ticket.type <= SELL:
                    self.server.close(ticket.number, ticket.lots)
                else:
                    self.server.delete(ticket.number)
            except TradeError:
                failed += 1
        if failed:
            self.error(error, f"Error during closing of {failed} orders{which}.")
        elif tickets:
            self.info(f"Successfully closed {len(tickets)} orders{which}.")
        else:
            self.info(f"No orders to close{which}.")

    def reset(self, data: list[str]) -> None:
        """Forget the ids."""
        self.ids.clear()

    # --- what is asked ---

    def subscribe(self, data: list[str]) -> None:
        """Write quotes of these symbols from now on, and of no others; an unknown one leaves a hole before others."""
        wrong = [each for each in data if each not in self.server.quotes]
        good = [each for each in data if each in self.server.quotes]
        if good:
            last = data.index(good[-1]) + 1
            self.symbols = [each if each in good else "" for each in data[:last]]
        if wrong:
            self.error("SUBSCRIBE_SYMBOL", f"Could not subscribe to symbols: {', '.join(wrong)}")
        if good:
            self.info(f"Successfully subscribed to: {', '.join(good)}")

    def subscribe_bars(self, data: list[str]) -> None:
        """Write the last bar of each series: nobody here waits for another."""
        pairs = [*zip(data[::2], data[1::2], strict=False)]
        if any(symbol not in self.server.quotes for symbol, _ in pairs) or len(data) % 2:
            self.error("BAR_DATA_WRONG_FORMAT", "Wrong format to subscribe to bar data: " + ",".join(data))
            return
        bars = [
            f'"{symbol}_{frame}": {{"time": "{self.server.now()[:16]}", {self._bar(symbol)}}}'
            for symbol, frame in pairs
        ]
        self._write("Bar_Data", "{" + ", ".join(bars) + "}")
        self.info("Successfully subscribed to bar data: " + ",".join(data))

    def _bar(self, symbol: str) -> str:
        price = f"{self.server.quotes[symbol].bid:.5f}"
        return ", ".join(f'"{name}": {price}' for name in ("open", "high", "low", "close")) + ', "tick_volume": 1'

    def history(self, data: list[str]) -> None:
        """Write one bar of a symbol: nobody here asks for more."""
        if len(data) != 4 or data[0] not in self.server.quotes:
            self.error("HISTORIC_DATA_SYMBOL", "Could not read symbol: " + ",".join(data))
            return
        bar = f'"{self.server.now()[:16]}": {{{self._bar(data[0])}}}'
        self._write("Historic_Data", f'{{"{data[0]}_{data[1]}": {{{bar}}}}}')
        self.info(f"Successfully read historic data for {data[0]}_{data[1]}.")

    def trades(self, data: list[str]) -> None:
        """Write what is closed."""
        days = int(number(data[0]))
        if days <= 0:
            self.error("HISTORIC_TRADES", f"Lookback days smaller or equal to zero: {data[0]}")
            return
        if self._fault("history").get("mute"):
            return
        closed = ", ".join(_line(each, closed=True) for each in reversed(self.server.history))
        self._write("Historic_Trades", f"{{{closed}}}")
        self.info("Successfully read historic trades.")

    # --- what is written ---

    def write_orders(self) -> None:
        """Write account and orders when they changed, and once a second."""
        server = self.server
        account = (
            f'{{"name": "A. Nyone", "number": {server.login}, "currency": "{server.currency}", "leverage": '
            f'{server.leverage}, "free_margin": {server.equity() - server.margin():.6f}, "balance": '
            f'{server.balance:.6f}, "equity": {server.equity():.6f}}}'
        )
        orders = ", ".join(_line(each) for each in reversed(server.tickets.values()))
        self._write("Orders", f'{{"account_info": {account}, "orders": {{{orders}}}}}', self.beat_s)

    def write_quotes(self) -> None:
        """Write quotes when they changed."""
        quotes = []
        for symbol in self.symbols:
            if not symbol:
                self.error("GET_BID_ASK", "Could not get bid/ask for . Last error: unknown symbol")
                continue
            market = self.server.quotes[symbol]
            value = market.contract * market.point / (1 if market.quote == self.server.currency else market.bid)
            quotes.append(
                f'"{symbol}": {{"bid": {market.bid:.5f}, "ask": {market.ask:.5f}, "tick_value": {value:.5f}}}'
            )
        self._write("Market_Data", "{" + ", ".join(quotes) + "}", float("inf"))

    def write_messages(self) -> None:
        """Write the last messages, the oldest first."""
        self.unsent = False
        self._write("Messages", "{" + ", ".join(f'"{key}": {said}' for key, said in self.messages) + "}")

    def error(self, kind: str, said: str) -> bool:
        """Say that something went wrong; the scan of commands ends with it where the format did."""
        self._say(f'"type": "ERROR", "time": "{_gmt()}", "error_type": "{kind}", "description": "{said}"')
        return False

    def info(self, said: str) -> None:
        """Say that something was done."""
        self._say(f'"type": "INFO", "time": "{_gmt()}", "message": "{said}"')

    def _say(self, said: str) -> None:
        ticks = int((time.monotonic() - self.booted) * 1000)
        self.last_key = max(ticks, self.last_key + 1)
        self.messages.append((self.last_key, f"{{{said}}}"))
        self.write_messages()

    def _write(self, name: str, text: str, every_s: float = 0.0) -> None:
        """Write a file unless it holds the same and is young enough."""
        before, when = self.written.get(name, ("", 0.0))
        if text == before and time.monotonic() < when + every_s:
            return
        path, half = self._path(name), len(text) // 2
        if time.monotonic() < self.torn.get(name, 0):
            path.write_text(text[:half])
            return
        self.torn.pop(name, None)
        if self.polite:
            path.with_suffix(".new").write_text(text + "\n")
            path.with_suffix(".new").replace(path)
        else:
            with path.open("w") as file:
                file.write(text[:half])
                file.flush()
                time.sleep(0.0005)
                file.write(text[half:] + "\n")
        self.written[name] = text, time.monotonic()

    def _path(self, name: str) -> Path:
        return self.folder / f"DWX_{name}.txt"

    def _slot(self, slot: int) -> Path:
        return self._path(f"Commands_{slot}")


def _line(ticket: Ticket, closed: bool = False) -> str:
    """Return a ticket as it is written: a quote in its comment breaks the file, as it does at home."""
    kind = NAMES[ticket.type] if ticket.type < len(NAMES) else "unknown"
    opened = f', "open_price": {ticket.open_price:.5f}'
    began = f', "open_time": "{ticket.open_time}"'
    ended = f', "close_time": "{ticket.close_time}"{opened}, "close_price": {ticket.close_price:.5f}'
    when = f"{began}{ended}" if closed else f"{opened}{began}"
    return (
        f'"{ticket.number}": {{"magic": {ticket.magic}, "symbol": "{ticket.symbol}", "lots": {ticket.lots:.2f}, '
        f'"type": "{kind}"{when}, "SL": {ticket.sl:.5f}, "TP": {ticket.tp:.5f}, "pnl": {ticket.pnl:.2f}, '
        f'"commission": {ticket.commission:.2f}, "swap": {ticket.swap:.2f}, "comment": "{ticket.comment}"}}'
    )


def _gmt() -> str:
    return datetime.now(UTC).strftime("%Y.%m.%d %H:%M:%S")
