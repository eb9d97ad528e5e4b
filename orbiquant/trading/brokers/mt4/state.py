"""What was sent and what was filled, kept where neither a crash nor the terminal can lose it."""

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from secrets import randbelow
from typing import Any

from ....core import BrokerUnavailable
from ....orders import Fill, Order, OrderState, OrderStatus, TradedSymbol

_SCHEMA = """
CREATE TABLE IF NOT EXISTS commands (id INTEGER PRIMARY KEY, text TEXT NOT NULL, answered INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS orders (order_id TEXT PRIMARY KEY, magic INTEGER UNIQUE, ticket INTEGER,
    content TEXT NOT NULL, text TEXT NOT NULL, beat_ns INTEGER NOT NULL, price TEXT NOT NULL, status TEXT NOT NULL, doubt TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS fills (number INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL UNIQUE,
    symbol TEXT NOT NULL, content TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS due (order_id TEXT PRIMARY KEY, close_at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
EPOCH_S = 1_767_225_600  # 2026: ids count tenths of a second since, and last for six years
LEAD = 100_000  # ids that a new memory skips some of: those of one that was lost a moment ago are still remembered
MOST_ID_NUMBER = 2**31 - 2 * LEAD  # of MetaTrader's integers
_TURNS: dict[Path, threading.Lock] = {}


@dataclass(frozen=True)
class Sent:
    "An order that was handed over, or was about to be."

    order: Order
    magic: int | None  # of what opens
    ticket: int | None  # of what closes: the position that it takes from
    text: str  # of its last command, '' before the first
    beat_ns: int  # last sign of life before it was sent
    price: str  # that stood then, '' where none was known
    status: OrderStatus
    doubt: str  # why its outcome is not known, '' where it is

    @property
    def id(self) -> str:
        "Return its name."
        return self.order.client_order_id


class AccountMemory:
    "The memory of one account."

    def __init__(
        self,
        folder: Path,  # that outlives the terminal
        login: int,  # number of the account
    ) -> None:
        "Open the memory, or begin one."
        self.path = folder / f"mt4-{login}.sqlite"
        self._turn = folder / f"mt4-{login}.turn"
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._base = sqlite3.connect(self.path, timeout=30, check_same_thread=False)
        self._base.row_factory = sqlite3.Row
        self._base.execute("PRAGMA journal_mode = WAL")
        with self._open() as base:
            base.executescript(_SCHEMA)
            base.execute("BEGIN IMMEDIATE")
            base.execute("INSERT OR IGNORE INTO facts VALUES ('born', ?)", (str(time.time()),))
            born = base.execute("SELECT value FROM facts WHERE name = 'born'").fetchone()["value"]
            first = "INSERT INTO sqlite_sequence SELECT 'fills', ? WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence)"
            base.execute(first, (int(1000 * float(born)),))  # so that no number is one of another memory

    @contextmanager
    def _open(self, lasting: bool = True) -> Iterator[sqlite3.Connection]:
        "Yield a transaction; one that must last is on the disk when it ends, others outlive a crash of the process."
        try:
            with self._lock, self._base as base:
                base.execute(f"PRAGMA synchronous = {'FULL' if lasting else 'NORMAL'}")
                yield base
        except sqlite3.OperationalError as error:
            raise BrokerUnavailable(f"{self.path} cannot be used: {error}") from error

    def _all(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._open(lasting=False) as base:
            return base.execute(query, values).fetchall()

    @contextmanager
    def turn(
        self,
        patience_s: float,  # for others to end
    ) -> Iterator[None]:
        "Let one thread of one process talk to the expert advisor at a time: its answers name nobody."
        lock = _TURNS.setdefault(self._turn, threading.Lock())
        if not lock.acquire(timeout=patience_s):
            raise BrokerUnavailable("another thread talks to the terminal for too long")
        try:
            with closing(sqlite3.connect(self._turn, timeout=patience_s, isolation_level=None)) as base:
                base.execute("BEGIN EXCLUSIVE")
                yield
        except sqlite3.OperationalError as error:
            raise BrokerUnavailable(f"another process talks to the terminal for too long: {error}") from error
        finally:
            lock.release()

    def moment(
        self,
        name: str,  # `born`: of this memory; `oldest`: of what was open when the history was looked at last
    ) -> float:
        "Return a moment that is kept, in s since 1970; the birth where none is."
        rows = {row["name"]: float(row["value"]) for row in self._all("SELECT * FROM facts")}
        return rows.get(name, rows["born"])

    def note(
        self,
        name: str,  # of a moment
        moment: float,  # s since 1970
    ) -> None:
        "Keep a moment."
        with self._open() as base:
            base.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, str(moment)))

    # --- commands ---

    def number(self) -> int:
        "Return the id of a new command: above all before it, and above those of a memory that was lost."
        with self._open(lasting=False) as base:
            base.execute("BEGIN IMMEDIATE")
            last = base.execute("SELECT max(id) AS last FROM commands").fetchone()["last"]
            tenths = int(10 * (time.time() - EPOCH_S)) % MOST_ID_NUMBER
            id_ = tenths + randbelow(LEAD) if last is None else max(last + 1, tenths)
            base.execute("INSERT INTO commands VALUES (?, '', 0)", (id_,))
            base.execute("DELETE FROM commands WHERE id < ?", (id_ - 100_000,))
        return id_

    def answered(
        self,
        id_: int,  # of a command
    ) -> None:
        "Note that nothing more will be heard of a command."
        with self._open(lasting=False) as base:
            base.execute("UPDATE commands SET answered = 1 WHERE id = ?", (id_,))

    def is_quiet(self) -> bool:
        "Say whether the last command was answered."
        rows = self._all("SELECT answered FROM commands ORDER BY id DESC LIMIT 1")
        return not rows or bool(rows[0]["answered"])

    # --- orders ---

    def add(
        self,
        order: Order,  # that is about to be sent
        magic: int | None,  # of what opens
        ticket: int | None,  # that it takes from
    ) -> None:
        "Keep an order before anything of it is written for the terminal."
        status = OrderStatus(client_order_id=order.client_order_id, broker_order_id=None, state=OrderState.NEW,
                             filled_quantity=Decimal(0), average_price=None)  # fmt: skip
        row = (order.client_order_id, magic, ticket, order.model_dump_json(), "", 0, "", status.model_dump_json(),
               "new")  # fmt: skip
        with self._open() as base:
            base.execute("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def sending(
        self,
        order_id: str,  # of an order
        text: str,  # of the command that carries it
        beat_ns: int,  # last sign of life before
        price: str,  # that stands
    ) -> None:
        "Keep what is being sent, before it is."
        change = "UPDATE orders SET text = ?, beat_ns = ?, price = ?, doubt = 'sent' WHERE order_id = ?"
        with self._open() as base:
            base.execute(change, (text, beat_ns, price, order_id))

    def keep(
        self,
        status: OrderStatus,  # the venue's word
        doubt: str = "",  # why it is none
    ) -> OrderStatus:
        "Keep where an order stands."
        with self._open() as base:
            base.execute(
                "UPDATE orders SET status = ?, doubt = ? WHERE order_id = ?",
                (status.model_dump_json(), doubt, status.client_order_id),
            )
        return status

    def sent(
        self,
        order_id: str,  # of an order
    ) -> Sent | None:
        "Return what is known of an order; None when it was never to be sent from here."
        rows = self._all("SELECT * FROM orders WHERE order_id = ?", order_id)
        return _sent(rows[0]) if rows else None

    def by_magic(
        self,
        magic: int,  # of a ticket
    ) -> Sent | None:
        "Return the order that has a magic number."
        rows = self._all("SELECT * FROM orders WHERE magic = ?", magic)
        return _sent(rows[0]) if rows else None

    def closing(
        self,
        ticket: int,  # of a position
    ) -> Sent | None:
        "Return the last order that was to take from a ticket and was not refused."
        rows = self._all("SELECT * FROM orders WHERE ticket = ? ORDER BY rowid DESC", ticket)
        asked = [_sent(row) for row in rows if row["text"]]
        return next((each for each in asked if each.status.state is not OrderState.REJECTED), None)

    def in_doubt(self) -> bool:
        "Say whether the outcome of an order is not known."
        return bool(self._all("SELECT 1 FROM orders WHERE doubt = 'sent' LIMIT 1"))

    # --- fills ---

    def record(
        self,
        fills: Sequence[tuple[str, Fill]],  # event and fill
    ) -> list[Fill]:
        "Number fills as they become known, each event once, and return the new ones."
        new = []
        with self._open() as base:
            base.execute("BEGIN IMMEDIATE")
            for event, fill in fills:
                if base.execute("SELECT 1 FROM fills WHERE event = ?", (event,)).fetchone():
                    continue
                row = base.execute("INSERT INTO fills (event, symbol, content) VALUES (?, ?, '')",
                                   (event, fill.symbol))  # fmt: skip
                new.append(fill.model_copy(update={"fill_id": str(row.lastrowid)}))
                content = new[-1].model_dump_json()
                base.execute("UPDATE fills SET content = ? WHERE number = ?", (content, row.lastrowid))
        return new

    def fills(
        self,
        symbol: TradedSymbol,  # whose
        after: int,  # number of the last that is known
    ) -> list[Fill]:
        "Return fills in the order in which they became known."
        rows = self._all("SELECT content FROM fills WHERE symbol = ? AND number > ? ORDER BY number", symbol, after)
        return [Fill.model_validate_json(row["content"]) for row in rows]

    def fills_of(
        self,
        order_id: str,  # of an order
    ) -> list[Fill]:
        "Return what an order was filled with."
        rows = self._all("SELECT content FROM fills WHERE content LIKE ? ORDER BY number", f'%"{order_id}"%')
        found = [Fill.model_validate_json(row["content"]) for row in rows]
        return [fill for fill in found if fill.client_order_id == order_id]

    def events(self) -> frozenset[str]:
        "Return what was numbered already."
        return frozenset(row["event"] for row in self._all("SELECT event FROM fills"))

    def numbered(
        self,
        number: int,  # of a fill that somebody has booked
    ) -> bool:
        "Say whether a fill was numbered here: another memory has other numbers."
        return bool(self._all("SELECT 1 FROM fills WHERE number = ?", number))

    # --- time limits ---

    def limit(
        self,
        order_id: str,  # of an entry
        close_at: datetime | None,  # None: no limit any more
    ) -> None:
        "Keep when a position is to be closed."
        with self._open() as base:
            base.execute("DELETE FROM due WHERE order_id = ?", (order_id,))
            if close_at is not None:
                base.execute("INSERT INTO due VALUES (?, ?)", (order_id, close_at.isoformat()))

    def limits(self) -> dict[str, datetime]:
        "Return when positions are to be closed, by their entries."
        return {row["order_id"]: datetime.fromisoformat(row["close_at"]) for row in self._all("SELECT * FROM due")}


def _sent(row: sqlite3.Row) -> Sent:
    order, status = Order.model_validate_json(row["content"]), OrderStatus.model_validate_json(row["status"])
    return Sent(order, row["magic"], row["ticket"], row["text"], row["beat_ns"], row["price"], status, row["doubt"])
