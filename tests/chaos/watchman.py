"""The watchman: reads an exchange's log and the wire's, and says how long anything was not as it has to be.

As the judge, it imports nothing of the package. `watchman.py FOLDER` prints a JSON object: `found`, the faults by
invariant, `counts`, and `seconds`, by the exchange's clock, which may run faster than the wall's.
"""

import json
import sys
from bisect import bisect_left
from collections import Counter, defaultdict
from decimal import Decimal
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

SETTLED_S = 16.0 + 2.0  # after which it is known what became of an order
WALL_S = 0.5  # of the wall, that a question takes where others use the machine too
FOUND_S = 60.0  # after which somebody else's deed is known
QUOTE = "USDT"
STANDING = ("NEW", "PARTIALLY_FILLED")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log; a line that a kill tore is none."""
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


class Watchman:
    """What there is to read, and what lasted too long."""

    def __init__(self, folder: Path) -> None:
        """Read the folder of a run."""
        self.venue, self.wire = read_lines(folder / "venue.jsonl"), read_lines(folder / "wire.jsonl")
        self.steps = json.loads((folder / "market.json").read_text())["steps"]
        self.scale = json.loads((folder / "limits.json").read_text())["scale"]
        self.groups = {row["id"]: row["order"]["group"] for row in self.wire if row["kind"] == "submit"}
        self.found: dict[str, list[str]] = defaultdict(list)
        self.counts: Counter[str] = Counter()
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def say(self, name: str, fault: str) -> None:
        """Note a fault."""
        self.found[name].append(fault)

    def run(self) -> None:
        """Check everything."""
        self.counts["faults"] = sum(row["kind"] == "fault" for row in self.venue)
        self.counts["intents"] = sum(row["kind"] == "submit" and not row["order"]["reduce_only"] for row in self.wire)
        self.bare()
        self.settled()
        self.beyond()

    def between(self, begin: int, end: int) -> float:
        """Return how long it is from one wall to another, in the exchange's seconds."""
        return (end - begin) / 1e9 * self.scale

    def alive(self, begin: int, end: int) -> float:
        """Return how much of that an engine was there to see it: not between a kill and a safe state."""
        gone = 0.0
        for before, after in pairwise(self.wire):
            if before["life"] != after["life"]:
                safe = (row["wall"] for row in self.wire if row["kind"] == "safe" and row["life"] == after["life"])
                gone += max(0.0, self.between(max(begin, before["wall"]), min(end, next(safe, end))))
        return self.between(begin, end) - gone

    def bare(self) -> None:
        """How long each position stood without a stop over all of it; only the state after each deed counts."""
        held: dict[str, Decimal] = defaultdict(Decimal)
        stops: dict[str, dict[int, Decimal]] = defaultdict(dict)
        begun: dict[str, int] = {}
        rows = [row for row in self.venue if row["kind"] in ("trade", "order")]
        for _, deed in groupby(rows, key=lambda row: row["deed"]):
            touched = {}
            for row in deed:
                id_ = row["clientOrderId"]
                position = (self.groups.get(id_) or id_).rpartition("-")[0]
                if id_.startswith("web_"):
                    continue
                if row["kind"] == "trade":
                    in_kind = row["commissionAsset"] == row["symbol"].removesuffix(QUOTE)
                    sign = 1 if row["isBuyer"] else -1
                    held[position] += sign * Decimal(row["qty"]) - (Decimal(row["commission"]) if in_kind else 0)
                elif row["type"].startswith("STOP") and row["status"] in STANDING:
                    stops[position][row["orderId"]] = Decimal(row["origQty"]) - Decimal(row["executedQty"])
                elif row["type"].startswith("STOP"):
                    stops[position].pop(row["orderId"], None)
                touched[position] = row
            for position, row in touched.items():
                bare = held[position] - sum(stops[position].values()) >= Decimal(self.steps[row["symbol"]])
                if bare:
                    begun.setdefault(position, row["wall_ns"])
                elif position in begun:
                    self.seconds["bare"].append(self.between(begun.pop(position), row["wall_ns"]))
        self.counts["positions"] = len(held)
        for position in begun:
            self.say("bare", f"{position} stands without a stop at the end")

    def settled(self) -> None:
        """Whoever asks late enough is told what became of an order; a kill in between begins anew."""
        open_: dict[str, tuple[int, int]] = {}
        for row in self.wire:
            if row["kind"] == "reply" and row["outcome"] == "unknown":
                open_[row["id"]] = row["wall"], row["life"]
            if row["kind"] not in ("asked", "cancelled") or row["id"] not in open_:
                continue
            begin, life = open_[row["id"]]
            took, own = self.between(begin, row["wall"]), life == row["life"]
            if row["outcome"] not in ("unknown", "unsettled"):
                del open_[row["id"]]
                if own:
                    self.seconds["settled"].append(took)
            elif own and took > SETTLED_S + WALL_S * self.scale:
                self.say("settled", f"what became of {row['id']} was not known after {took:.1f} s")
        for id_ in open_:
            self.say("settled", f"what became of {id_} was never known")

    def beyond(self) -> None:
        """What somebody else did at the account is found, and no risk is added before a person has looked."""
        done: dict[int, dict[str, Any]] = {}
        for row in self.venue:
            if row["kind"] == "control" and row["deed"] == "spoil":
                done.setdefault(row["told"]["number"], row)
        found = [row["wall"] for row in self.wire if row["kind"] == "found"]
        adopted = [row["wall"] for row in self.wire if row["kind"] == "adopted"]
        opens = [row for row in self.wire if row["kind"] == "submit" and not row["order"]["reduce_only"]]
        for row in done.values():
            begin, what = row["wall_ns"], f"{row['told']['act']} of somebody else"
            at = bisect_left(found, begin)
            if at == len(found):
                self.say("found", f"{what} was never found")
                continue
            self.seconds["found"].append(took := self.alive(begin, found[at]))
            if took > FOUND_S:
                self.say("found", f"{what} was found after {took:.1f} s")
            until = next((wall for wall in adopted if wall > begin), found[-1])
            for each in opens:
                if begin < each["wall"] < until:
                    self.say("no new risk", f"{each['id']} was sent after {what}, which nobody had looked at")
        self.counts["deeds of somebody else"] = len(done)


if __name__ == "__main__":
    watchman = Watchman(Path(sys.argv[1]))
    watchman.run()
    found = {name: faults[:20] for name, faults in watchman.found.items()}
    print(json.dumps({"found": found, "counts": watchman.counts, "seconds": watchman.seconds}))
    sys.exit(bool(watchman.found))
