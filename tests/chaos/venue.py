"""A venue of its own: a small HTTP server that fills orders by bars, keeps a log on the disk, and fails by chance.

What goes wrong with an order is a matter of its id: the reply is lost, the order comes too late or never, is refused,
vanishes after it was taken, or its fills are told twice. Where the seed is odd, orders are filled before the reply.
Run as a program: `venue.py FOLDER SEED`, prints its port.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from threading import RLock
from typing import Any

FAULTS = ("lost reply", "late", "dropped", "refused", "vanishing", "told twice")
SHARE = 0.3  # of the orders with which something goes wrong
LATE_S = 0.12  # that a late order takes; the asker has given up before
FEE = Decimal("0.001")
BAR_S = 300


class Venue:
    """Orders, fills and positions of one account."""

    def __init__(self, folder: Path, seed: int) -> None:
        """Begin with the bars of a market, and cash that nobody asks for."""
        self.seed, self.lock = seed, RLock()
        self.log = os.open(folder / "venue.jsonl", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self.bars = json.loads((folder / "market.json").read_text())["bars"]
        self.number = -1  # of the bar that was passed last
        self.orders: dict[str, dict[str, Any]] = {}
        self.guards: dict[str, dict[str, Any]] = {}
        self.fills: dict[str, list[dict[str, Any]]] = {}
        self.vanished: set[str] = set()

    def say(self, kind: str, **facts: Any) -> None:
        """Write a line of the log, on the disk before anybody hears of it."""
        os.write(self.log, json.dumps({"kind": kind, "wall": time.time_ns(), **facts}).encode() + b"\n")
        os.fdatasync(self.log)

    def fault(self, id_: str) -> str:
        """Return what goes wrong with an order, '' for nothing."""
        chance = Random(f"fault {self.seed} {id_}")
        return chance.choice(FAULTS) if chance.random() < SHARE else ""

    # --- requests ---

    def submit(self, order: dict[str, Any]) -> dict[str, Any] | None:
        """Take an order; None closes the connection without a reply."""
        id_ = order["client_order_id"]
        fault = self.fault(id_)
        self.say("heard", id=id_, fault=fault)
        if fault == "dropped":
            return None
        if fault == "refused":
            return {"error": "the venue does not want it"}
        if fault == "late":
            time.sleep(LATE_S)
        with self.lock:
            if id_ not in self.orders or id_ in self.vanished:
                self.say("accepted", order=order)
                self.orders[id_] = {"order": order, "state": "submitted", "filled": "0", "paid": "0"}
                self.vanished.discard(id_)
                if fault == "vanishing":
                    self.say("vanished", id=id_)
                    self.vanished.add(id_)
                elif self.seed % 2:
                    self._meet_at_once(id_)
                self.tell()
            return None if fault in ("lost reply", "late") else self.status(id_)

    def status(self, id_: str) -> dict[str, Any] | None:
        """Return where an order stands."""
        kept = self.orders.get(id_)
        if kept is None or id_ in self.vanished:
            return {"unknown": True}
        return {"state": kept["state"], "filled": kept["filled"], "paid": kept["paid"]}

    def amend(self, id_: str, bracket: dict[str, Any]) -> dict[str, Any]:
        """Put other protection in the place of what stands."""
        with self.lock:
            if id_ not in self.guards:
                return {"error": f"nothing is held of {id_}"}
            self.say("amended", id=id_, bracket=bracket)
            self.guards[id_] |= bracket
            self.tell()
            return {}

    def listed(self, symbol: str, after: int) -> dict[str, Any]:
        """Return the fills behind a cursor, some of them twice."""
        found = []
        for fill in self.fills.get(symbol, [])[after:]:
            found += [fill] * (2 if self.fault(fill["client_order_id"]) == "told twice" else 1)
        return {"fills": found}

    def state(self) -> dict[str, Any]:
        """Return what stands and what is held."""
        standing = [
            kept["order"]
            for id_, kept in self.orders.items()
            if kept["state"] == "submitted" and id_ not in self.vanished
        ]
        return {"open": standing, "guards": self.guards}

    def tell(self) -> None:
        """Write what stands into the log."""
        ids = [order["client_order_id"] for order in self.state()["open"]]
        self.say("state", open=ids, guards=self.guards, cash=None)

    # --- time ---

    def pass_bars(self, number: int) -> dict[str, Any]:
        """Let time come to the end of a bar; what was passed already is not passed again."""
        with self.lock, localcontext() as context:
            context.prec = 60
            while self.number < number:
                self.number += 1
                for symbol, rows in self.bars.items():
                    self._pass(symbol, rows[self.number])
                self.tell()
        return {}

    def _pass(self, symbol: str, bar: list[Any]) -> None:
        time_, opened, high, low, close = bar[0], *(Decimal(repr(value)) for value in bar[1:5])
        for id_, kept in list(self.orders.items()):
            order = kept["order"]
            if order["symbol"] == symbol and kept["state"] == "submitted" and id_ not in self.vanished:
                self._meet(id_, kept, order, opened, time_)
        for id_, guard in list(self.guards.items()):
            if guard["symbol"] == symbol:
                self._leave(id_, guard, (opened, high, low, close), time_)

    def _meet_at_once(self, id_: str) -> None:
        """Fill an order at the last price, before anybody has heard that it was taken."""
        kept = self.orders[id_]
        time_, *prices, _ = self.bars[kept["order"]["symbol"]][self.number]
        now = datetime.fromisoformat(time_) + timedelta(seconds=BAR_S)
        with localcontext() as context:
            context.prec = 60
            self._meet(id_, kept, kept["order"], Decimal(repr(prices[-1])), now.isoformat())

    def _meet(self, id_: str, kept: dict[str, Any], order: dict[str, Any], price: Decimal, time_: str) -> None:
        quantity = Decimal(order["quantity"])
        if order["reduce_only"]:
            guard = self.guards.get(order["group"] or "")
            if guard is None:
                kept["state"] = "expired"
                return
            quantity = min(quantity, Decimal(guard["quantity"]))
        self._fill(id_, order["symbol"], order["side"], quantity, price, order["role"], time_)
        kept |= {"state": "filled", "filled": str(quantity), "paid": str(quantity * price)}
        if order["reduce_only"]:
            del self.guards[order["group"]]
            return
        bracket = order["bracket"] or {}
        self.guards[id_] = {"symbol": order["symbol"], "side": order["side"], "quantity": str(quantity),
                            "price": str(price), "opened": time_, **bracket}  # fmt: skip
        if not bracket.get("stop_loss"):
            self.say("unprotected", id=id_, seconds=BAR_S)

    def _leave(self, id_: str, guard: dict[str, Any], bar: tuple[Decimal, ...], time_: str) -> None:
        opened, high, low, close = bar
        sign = 1 if guard["side"] == "BUY" else -1
        worst, best = (low, high) if sign > 0 else (high, low)
        for role, level, reached in (("stop", "stop_loss", worst), ("target", "take_profit", best)):
            way = sign if role == "stop" else -sign
            if guard.get(level) and way * (reached - Decimal(guard[level])) <= 0:
                beyond = way * (opened - Decimal(guard[level])) <= 0
                return self._close(id_, guard, opened if beyond else Decimal(guard[level]), role, time_)
        due = guard.get("close_at")
        if due and _seconds(due) <= _seconds(time_) + BAR_S:
            self._close(id_, guard, close, "time", time_)
        return None

    def _close(self, id_: str, guard: dict[str, Any], price: Decimal, role: str, time_: str) -> None:
        other = "SELL" if guard["side"] == "BUY" else "BUY"
        name = f"{id_.removesuffix('-ent')}-{role[:3]}"
        self._fill(name, guard["symbol"], other, Decimal(guard["quantity"]), price, role, time_)
        del self.guards[id_]

    def _fill(self, id_: str, symbol: str, side: str, quantity: Decimal, price: Decimal, role: str, at: str) -> None:
        made = self.fills.setdefault(symbol, [])
        fee = (quantity * price * FEE).quantize(Decimal("1e-8"))
        fill = {"fill_id": str(len(made) + 1), "client_order_id": id_, "symbol": symbol, "side": side,
                "quantity": str(quantity), "price": str(price), "fee": str(fee), "fee_asset": "USDT", "time": at,
                "role": role}  # fmt: skip
        self.say("fill", fill=fill)
        made.append(fill)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def serve(venue: Venue) -> None:
    """Answer until the process is ended."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            try:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            except (OSError, ValueError):  # whoever asks has died in the midst of it
                self.close_connection = True
                return
            answer = getattr(venue, self.path[1:])(*body)
            if answer is None:  # the reply is lost
                self.close_connection = True
                return
            content = json.dumps(answer).encode()
            try:
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                return  # whoever asked is dead

        def log_message(self, *arguments: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


@contextmanager
def running_venue(folder: Path, seed: int) -> Iterator[str]:
    """Yield the address of a venue whose market lies in the folder."""
    command = [sys.executable, Path(__file__), folder, str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


if __name__ == "__main__":
    serve(Venue(Path(sys.argv[1]), int(sys.argv[2])))
