"""The judge: reads wire log, venue log, bars and a dump of the database, and says which invariants do not hold.

It imports nothing of the package that it judges, and counts everything anew. `judge.py FOLDER` prints a JSON object:
`found`, the faults by invariant, and `counts`. It exits with 1 when there are faults.
"""

import json
import sys
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from datetime import datetime
from decimal import Decimal, getcontext
from itertools import groupby
from pathlib import Path
from typing import Any

getcontext().prec = 60
ENDED = ("filled", "cancelled", "expired", "rejected")
KEYS = {
    "intents": ("id",),
    "orders": ("client_order_id",),
    "fills": ("account", "symbol", "fill_id"),
    "trades": ("id",),
    "decisions": ("agent", "strategy", "symbol", "timeframe", "time"),
    "paper_orders": ("account", "client_order_id"),
    "paper_fills": ("account", "symbol", "number"),
    "journal_entries": ("key",),
    "engine_requests": ("id",),
    "fund_events": ("product_id", "key"),
}
QUOTE = "USDT"
VENUE = "Assets:Paper:"  # the books of the agents, where no other are named
ROLES = {"ent": "entry", "sto": "stop", "tar": "target", "tim": "time", "clo": "close", "end": "end"}
STANDING = ("NEW", "PARTIALLY_FILLED", "PENDING_NEW")
LEAST = Decimal("1e-18")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log; a line that a kill tore is none."""
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def moment(text: str) -> str:
    """Return a moment as the dump has it: UTC without a zone."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).replace(tzinfo=None).isoformat(timespec="microseconds")


def role_of(id_: str) -> str:
    """Return what an order is there for, by its id."""
    return ROLES.get(id_.rpartition("-")[2][:3], "entry")


def decisions(wire: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """Return when it was decided to send something, by the wall and by the market's time."""
    wrote = [row for row in wire if row["kind"] == "committed" and any(each[0] == "intents" for each in row["rows"])]
    return [(row["wall"], row["moment"]) for row in wrote]


def is_leg(id_: str, position: str | None = None) -> bool:
    """Say whether an order protects a position, or this one."""
    return role_of(id_) in ("stop", "target") and position in (None, id_.rpartition("-")[0])


def is_strange(id_: str) -> bool:
    """Say whether an order was placed by somebody else, by hand."""
    return id_.startswith("web_")


def moved(fill: dict[str, Any], asset: str) -> Decimal:
    """Return what a fill brought of what is traded, less than nothing where it went; a fee may be taken from it."""
    quantity, fee = Decimal(str(fill["quantity"])), Decimal(str(fill["fee"]))
    return (quantity if fill["side"] == "BUY" else -quantity) - (fee if fill["fee_asset"] == asset else 0)


class Venue:
    """What the venue did: its own log, or the tables of the one on paper."""

    def __init__(self, folder: Path, dump: dict[str, Any], wire: list[dict[str, Any]], steps: dict[str, str]) -> None:
        """Read orders, fills, what is held, and the cash."""
        rows = read_lines(folder / "venue.jsonl")
        self.vanished, self.legs = set[str](), set[str]()
        self.oversold: dict[str, Decimal] = {}
        self.unprotected_s = 0
        self.holdings: dict[str, Decimal] | None = None  # at the end, by asset; None: it does not tell
        self.steps = {symbol: Decimal(step) for symbol, step in steps.items()}
        if any(row["kind"] == "started" for row in rows):
            self._read_exchange(rows, wire)
        elif rows:
            self._read(rows)
        else:
            self._read_paper(dump)

    def _read_exchange(self, rows: list[dict[str, Any]], wire: list[dict[str, Any]]) -> None:
        """Read what an exchange says of an account's orders: what protects a position is named after its entry."""
        last = {row["orderId"]: row for row in rows if row["kind"] == "order"}
        ids = Counter(row["clientOrderId"] for row in last.values())
        self.orders = Counter({id_: count for id_, count in ids.items() if not (is_leg(id_) or is_strange(id_))})
        self.legs = {id_ for id_ in ids if is_leg(id_)}
        moments = [(0, "2000-01-01T00:00:00"), *decisions(wire)]  # what is filled before one, it knows
        walls = [wall for wall, _ in moments]
        self.fills = [
            {"symbol": row["symbol"], "fill_id": str(row["id"]), "client_order_id": row["clientOrderId"],
             "side": "BUY" if row["isBuyer"] else "SELL", "quantity": row["qty"], "price": row["price"],
             "fee": row["commission"], "fee_asset": row["commissionAsset"], "role": role_of(row["clientOrderId"]),
             "time": moments[bisect_right(walls, row["wall_ns"]) - 1][1]}
            for row in rows if row["kind"] == "trade"
        ]  # fmt: skip
        self.cash = None
        self.open = {
            row["clientOrderId"] for row in last.values()
            if row["status"] in STANDING and not is_leg(row["clientOrderId"])
        }  # fmt: skip
        groups = {row["id"]: row["order"]["group"] for row in wire if row["kind"] == "submit"}
        self._find_guards(last, groups)
        self.holdings = {}
        for row in rows:
            if row["kind"] == "account":
                self.holdings |= {asset: Decimal(amount) for asset, amount in row["free"].items()}
            if row["kind"] == "balance":
                self.holdings |= {each["a"]: Decimal(each["f"]) + Decimal(each["l"]) for each in row["balances"]}

    def _find_guards(self, last: dict[int, dict[str, Any]], groups: dict[str, str]) -> None:
        """Note what is held of each entry, and the stop over it."""
        held: dict[str, Decimal] = defaultdict(Decimal)
        symbols = {}
        for fill in self.fills:
            if is_strange(fill["client_order_id"]):
                continue
            position = (groups.get(fill["client_order_id"]) or fill["client_order_id"]).rpartition("-")[0]
            asset = fill["symbol"].removesuffix(QUOTE)
            held[position] += moved(fill, asset)
            symbols[position] = fill["symbol"]
        self.guards = {}
        self.oversold = {id_: left for id_, left in held.items() if left <= -self.steps[symbols[id_]]}
        for position, quantity in held.items():
            step = self.steps[symbols[position]]
            if quantity < step:
                continue
            stops = [
                row for row in last.values()
                if is_leg(row["clientOrderId"], position)
                and row["status"] in STANDING and row["type"].startswith("STOP")
            ]  # fmt: skip
            covered = sum((Decimal(row["origQty"]) - Decimal(row["executedQty"]) for row in stops), Decimal(0))
            stop = stops[0]["stopPrice"] if stops and quantity - covered < step else None
            self.guards[f"{position}-ent"] = {"quantity": str(quantity), "stop_loss": stop}

    def _read(self, rows: list[dict[str, Any]]) -> None:
        self.orders = Counter(row["order"]["client_order_id"] for row in rows if row["kind"] == "accepted")
        self.contents = {row["order"]["client_order_id"]: row["order"] for row in rows if row["kind"] == "accepted"}
        self.fills = [row["fill"] for row in rows if row["kind"] == "fill"]
        self.vanished = {row["id"] for row in rows if row["kind"] == "vanished"}
        last = next((row for row in reversed(rows) if row["kind"] == "state"), {"open": [], "guards": {}, "cash": None})
        self.open, self.guards = set(last["open"]), last["guards"]
        self.cash = None if last["cash"] is None else Decimal(last["cash"])
        self.unprotected_s = sum(row["seconds"] for row in rows if row["kind"] == "unprotected")

    def _read_paper(self, dump: dict[str, Any]) -> None:
        self.orders = Counter(row["client_order_id"] for row in dump["paper_orders"])
        self.contents = {row["client_order_id"]: json.loads(row["content"]) for row in dump["paper_orders"]}
        self.fills = [json.loads(row["content"]) for row in dump["paper_fills"]]
        self.open = {row["client_order_id"] for row in dump["paper_orders"] if row["state"] not in ENDED}
        self.guards = {
            row["entry_id"]: {"quantity": row["quantity"], "side": row["side"], **json.loads(row["bracket"])}
            for row in dump["paper_guards"]
        }
        self.cash = sum((Decimal(row["cash"]) for row in dump["paper_accounts"]), Decimal(0))


class Holder:
    """What an agent has at a moment, by its capital and the venue's fills."""

    def __init__(self, capital: list[tuple[str, Decimal]], fills: list[tuple[str, str, dict[str, Any]]]) -> None:
        """Begin with nothing."""
        self.capital, self.fills = sorted(capital), sorted(fills, key=lambda each: each[0])
        self.cash = Decimal(0)
        self.held: dict[tuple[str, str], Decimal] = defaultdict(Decimal)  # by symbol and position
        self.bought: dict[str, Decimal] = defaultdict(Decimal)  # by an entry, and what was paid for it
        self.spent: dict[str, Decimal] = defaultdict(Decimal)

    def go_to(self, now: str) -> None:
        """Go through what came before a moment."""
        while self.capital and self.capital[0][0] < now:
            self.cash += self.capital.pop(0)[1]
        while self.fills and self.fills[0][0] < now:
            _, position, fill = self.fills.pop(0)
            quantity, price, fee = (Decimal(str(fill[name])) for name in ("quantity", "price", "fee"))
            self.cash -= (quantity if fill["side"] == "BUY" else -quantity) * price
            self.cash -= fee if fill["fee_asset"] == QUOTE else 0
            place = fill["symbol"], position
            self.held[place] += moved(fill, fill["symbol"].removesuffix(QUOTE))
            if not self.held[place]:
                del self.held[place]
            if fill["client_order_id"] == f"{position}-ent":
                self.bought[position] += quantity
                self.spent[position] += quantity * price


def _price(closes: list[tuple[str, float]], now: str) -> Decimal:
    """Return the close of the last bar that had opened before a moment."""
    return Decimal(str(closes[max(0, bisect_left(closes, (now,)) - 1)][1]))


class Judge:
    """Everything that there is to read, and what is wrong with it."""

    def __init__(self, folder: Path) -> None:
        """Read the folder of a run."""
        self.wire = read_lines(folder / "wire.jsonl")
        self.dump = json.loads((folder / "dump.json").read_text())
        self.market = json.loads((folder / "market.json").read_text())
        self.limits = json.loads((folder / "limits.json").read_text()) if (folder / "limits.json").exists() else {}
        self.books = self.limits.get("books", VENUE)
        self.venue = Venue(folder, self.dump, self.wire, self.market.get("steps", {}))
        self.submits = [row for row in self.wire if row["kind"] == "submit"]
        self.found: dict[str, list[str]] = defaultdict(list)
        self.counts: Counter[str] = Counter()

    def say(self, name: str, fault: str) -> None:
        """Note a fault."""
        self.found[name].append(fault)

    def run(self) -> None:
        """Check everything."""
        for check in (
            *(self.sent_once, self.intent_first, self.not_while_unknown, self.journal, self.money, self.fills),
            *(self.switches, self.exposure, self.protection, self.end, self.acknowledged, self.decided),
        ):
            check()

    # --- orders ---

    def sent_once(self) -> None:
        """At most one order a client id: sent once, and taken once."""
        self.counts["submits"] = len(self.submits)
        for id_, count in Counter(row["id"] for row in self.submits).items():
            if count > 1:
                self.say("sent once", f"{id_} was sent {count} times")
        for id_, count in self.venue.orders.items():
            if count > 1:
                self.say("one order", f"the venue took {id_} {count} times")
        intents = Counter(row["intent_id"] for row in self.dump["orders"] if row["role"] == "entry")
        for id_, count in intents.items():
            if count > 1:
                self.say("one order", f"intent {id_} has {count} entries")
        sent = {row["id"] for row in self.submits}
        for id_ in {*self.venue.orders, *(f"{id_.rpartition('-')[0]}-ent" for id_ in self.venue.legs)}:
            if id_ not in sent:
                self.say("one order", f"the venue has {id_}, which no log saw sent")

    def intent_first(self) -> None:
        """Every order that was sent has an intent that was committed earlier, and is the order that was written."""
        known: set[tuple[str, str]] = set()
        intents = {row["id"] for row in self.dump["intents"]}
        orders = {row["client_order_id"]: row for row in self.dump["orders"]}
        for row in self.wire:
            if row["kind"] == "committed":
                known |= {(table, key[0]) for table, key, *_ in row["rows"]}
            if row["kind"] != "submit":
                continue
            id_, written = row["id"], orders.get(row["id"])
            if ("orders", id_) not in known or ("intents", id_.rpartition("-")[0]) not in known:
                self.say("intent first", f"{id_} was sent before its intent was committed")
            if written is None or written["intent_id"] not in intents:
                self.say("intent first", f"{id_} was sent and has no intent in the books")
            elif not _same_order(json.loads(written["content"]), row["order"]):
                self.say("intent first", f"{id_} was written otherwise than it was sent")

    def not_while_unknown(self) -> None:
        """Nothing is sent under an id whose outcome is open; nobody adds risk on its symbol meanwhile."""
        open_: dict[str, str] = {}
        for row in self.wire:
            if row["kind"] == "submit":
                id_, symbol = row["id"], row["order"]["symbol"]
                if id_ in open_:
                    self.say("not while unknown", f"{id_} was sent again while nobody knew what became of it")
                elif not row["order"]["reduce_only"] and symbol in open_.values():
                    other = next(key for key, value in open_.items() if value == symbol)
                    self.say("not while unknown", f"{id_} was sent while nobody knew what became of {other}")
                open_[id_] = symbol
            if row["kind"] in ("reply", "asked", "cancelled") and row["outcome"] not in ("unknown", "unsettled"):
                open_.pop(row["id"], None)
        lines = [each for row in self.wire if row["kind"] == "committed" for each in row["rows"]]
        taken = {key[0] for table, key, *state in lines if table == "orders" and state == ["submitted"]}
        for row in self.dump["orders"]:  # what the books knew to be there, and the venue does not know any more
            if row["client_order_id"] in self.venue.vanished & taken and row["state"] in ENDED:
                self.say("not while unknown", f"{row['client_order_id']} vanished at the venue and is {row['state']}")

    # --- money ---

    def journal(self) -> None:
        """Postings sum to zero per entry and asset; balances are their sums; ids have no gap, keys are one each."""
        sums: dict[Any, Decimal] = defaultdict(Decimal)
        totals: dict[Any, Decimal] = defaultdict(Decimal)
        self.counts["postings"] = len(self.dump["journal_postings"])
        for row in self.dump["journal_postings"]:
            sums[row["entry_id"], row["asset"]] += Decimal(row["amount"])
            totals[row["account"], row["asset"]] += Decimal(row["amount"])
        for (entry, asset), total in sums.items():
            if total:
                self.say("journal", f"entry {entry}: {asset} sums to {total}")
        kept = {(row["account"], row["asset"]): Decimal(row["amount"]) for row in self.dump["journal_balances"]}
        for place in {*kept, *totals}:
            if kept.get(place, Decimal(0)) != totals.get(place, Decimal(0)):
                self.say("journal", f"{place}: balance {kept.get(place)}, postings {totals.get(place)}")
        ids = sorted(row["id"] for row in self.dump["journal_entries"])
        if ids != list(range(1, len(ids) + 1)):
            self.say("journal", "the ids of its entries have a gap")
        if {entry for entry, _ in sums} != {*ids}:
            self.say("journal", "an entry is without postings, or postings are without an entry")
        for key, count in Counter(row["key"] for row in self.dump["journal_entries"]).items():
            if count > 1:
                self.say("journal", f"{key} was booked {count} times")

    def money(self) -> None:
        """What came in, plus fills, minus fees, is what is there: in the journal, and at the venue."""
        expected: dict[str, Decimal] = defaultdict(Decimal)
        held: dict[str, Decimal] = defaultdict(Decimal)
        kinds = {row["id"]: row["kind"] for row in self.dump["journal_entries"]}
        for row in self.dump["journal_postings"]:
            if row["account"].startswith(self.books):
                held[row["asset"]] += Decimal(row["amount"])
                if kinds.get(row["entry_id"]) != "trade":  # capital that comes or goes, and what is nobody's
                    expected[row["asset"]] += Decimal(row["amount"])
        cash = expected[QUOTE]
        for fill in self.venue.fills:
            sign = 1 if fill["side"] == "BUY" else -1
            quantity, price, fee = (Decimal(str(fill[name])) for name in ("quantity", "price", "fee"))
            expected[fill["symbol"].removesuffix(QUOTE)] += sign * quantity
            expected[QUOTE] -= sign * (quantity * price).quantize(LEAST)
            expected[fill["fee_asset"]] -= fee
            cash -= sign * quantity * price + fee
        for asset in {*expected, *held}:
            if expected[asset] != held[asset]:
                self.say("money", f"{asset}: the venue's fills make {expected[asset]}, the books hold {held[asset]}")
        if self.venue.cash is not None and cash != self.venue.cash:
            self.say("money", f"the venue's fills make {cash} {QUOTE} of cash, it says {self.venue.cash}")
        there = self.venue.holdings
        for asset in {*there, *held} - {QUOTE} if there is not None else ():
            if there.get(asset, Decimal(0)) != held[asset]:
                self.say("holdings", f"{asset}: {there.get(asset)} at the venue, {held[asset]} in all books")

    def fills(self) -> None:
        """Booked fills are the venue's trades, as sets; each has one entry in the journal."""
        names = ("symbol", "fill_id", "client_order_id", "side", "quantity", "price", "fee", "role")

        def said(row: dict[str, Any]) -> tuple[Any, ...]:
            return tuple(Decimal(str(row[name])) if name in names[4:7] else row[name] for name in names)

        booked, traded = Counter(map(said, self.dump["fills"])), Counter(map(said, self.venue.fills))
        self.counts["fills"] = len(self.dump["fills"])
        for each in booked - traded:
            self.say("fills", f"booked and not traded: {each[:3]}")
        for each in traded - booked:
            self.say("fills", f"traded and not booked: {each[:3]}")
        for position, left in self.venue.oversold.items():
            self.say("sold once", f"{left} is left of {position}: what was sold was somebody else's")
        trades = sum(row["kind"] == "trade" for row in self.dump["journal_entries"])
        if trades != len(self.venue.fills):
            self.say("fills", f"{len(self.venue.fills)} trades at the venue, {trades} in the journal")

    # --- risk ---

    def _opens(self) -> list[dict[str, Any]]:
        return [row for row in self.submits if not row["order"]["reduce_only"] and row["order"]["role"] == "entry"]

    def _agents(self) -> dict[str, str]:
        agents = {row["id"]: row["agent"] for row in self.dump["intents"]}
        return {row["client_order_id"]: agents.get(row["intent_id"], "") for row in self.dump["orders"]}

    def switches(self) -> None:
        """Nothing adds risk later than a second after a kill, until it is lifted."""
        agents, killed = self._agents(), {}  # type: dict[str, str], dict[tuple[str, str], int]
        for row in self.wire:
            if row["kind"] == "killed":
                killed.setdefault((row["scope"], row["name"]), row["wall"])
            elif row["kind"] == "lifted":
                killed.pop((row["scope"], row["name"]), None)
            elif row["kind"] == "submit" and not row["order"]["reduce_only"]:
                for (scope, name), wall in killed.items():
                    if (scope != "agent" or agents.get(row["id"]) == name) and row["wall"] >= wall + 1_000_000_000:
                        self.say("switches", f"{row['id']} was sent though {scope} {name} was killed")

    def exposure(self) -> None:
        """Positions and open risk of an agent stay within its limits, counted anew at each order."""
        if not self.limits:
            return
        agents, opens = self._agents(), sorted(self._opens(), key=lambda row: (moment(row["moment"]), row["wall"]))
        holders = {name: self._holder(name, agents) for name in {*agents.values()}}
        closes = {symbol: [(moment(row[0]), row[4]) for row in rows] for symbol, rows in self.market["bars"].items()}
        entries = {row["id"].rpartition("-")[0]: row for row in opens}
        for now, rows in groupby(opens, key=lambda row: moment(row["moment"])):
            prices = {symbol: _price(known, now) for symbol, known in closes.items()}
            same: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for row in rows:
                owner = agents.get(row["id"], "")
                if owner in holders:
                    holders[owner].go_to(now)
                    self._check_order(row, owner, holders[owner], same[owner], prices, entries)
                    same[owner].append(row)

    def _holder(self, name: str, agents: dict[str, str]) -> "Holder":
        """Return what there is to know of an agent's money: when capital came, and its fills."""
        groups = {row["id"]: row["order"]["group"] for row in self.submits}
        own = []
        for fill in self.venue.fills:
            position = (groups.get(fill["client_order_id"]) or fill["client_order_id"]).rpartition("-")[0]
            if agents.get(f"{position}-ent") == name:
                own.append((moment(fill["time"]), position, fill))
        came = {row["id"]: row["recorded_at"] for row in self.dump["journal_entries"] if row["kind"] != "trade"}
        capital = [
            (came[row["entry_id"]], Decimal(row["amount"])) for row in self.dump["journal_postings"]
            if row["entry_id"] in came and row["account"] == self.books + name and row["asset"] == QUOTE
        ]  # fmt: skip
        return Holder(capital, own)

    def _check_order(
        self, row: dict[str, Any], owner: str, holder: "Holder", same: list[dict[str, Any]],
        prices: dict[str, Decimal], entries: dict[str, dict[str, Any]],
    ) -> None:  # fmt: skip
        """Count what an agent held when it sent an order."""
        order, steps = row["order"], self.venue.steps
        open_ = {key: left for key, left in holder.held.items() if left and abs(left) >= steps.get(key[0], 0)}
        equity = holder.cash + sum((left * prices[symbol] for (symbol, _), left in holder.held.items()), Decimal(0))
        count = len(open_) + len(same) + 1
        if count > self.limits["max_positions"]:
            self.say(
                "limits", f"{row['id']} is position {count} of {owner}, {self.limits['max_positions']} are allowed"
            )
        risk = self._risk(order, prices[order["symbol"]])
        share = max(Decimal(self.limits["risk_per_trade"]), Decimal(0))
        if risk > share * equity * Decimal("1.000001"):
            self.say("limits", f"{row['id']} risks {risk:.2f} of {equity:.2f}, {share:%} are allowed")
        others = sum((self._risk(each["order"], prices[each["order"]["symbol"]]) for each in same), Decimal(0))
        for (_, position), quantity in open_.items():
            if position in entries:
                stop = (entries[position]["order"].get("bracket") or {}).get("stop_loss")
                paid = holder.spent[position] / holder.bought[position]
                others += max(Decimal(0), quantity * (paid - Decimal(stop))) if stop else abs(quantity) * paid
        most = Decimal(self.limits["open_risk_share"]) * Decimal(self.limits["max_drawdown"]) * equity
        if risk + others > most * Decimal("1.000001"):
            self.say(
                "limits", f"{row['id']} makes the open risk of {owner} {risk + others:.2f}, {most:.2f} are allowed"
            )

    def _risk(self, order: dict[str, Any], price: Decimal) -> Decimal:
        stop = (order.get("bracket") or {}).get("stop_loss")
        quantity, sign = Decimal(order["quantity"]), 1 if order["side"] == "BUY" else -1
        return quantity * price if stop is None else max(Decimal(0), sign * quantity * (price - Decimal(stop)))

    def protection(self) -> None:
        """Every order that opens carries its stop, every position at the venue has one; seconds without are counted."""
        for row in self._opens():
            if (row["order"].get("bracket") or {}).get("stop_loss") is None:
                self.say("protection", f"{row['id']} was sent without a stop")
        for row in self.wire:
            if row["kind"] == "amend" and row["bracket"].get("stop_loss") is None:
                self.say("protection", f"the stop of {row['id']} was taken away")
        for id_, guard in self.venue.guards.items():
            if guard.get("stop_loss") is None:
                self.say("protection", f"the position of {id_} stands without a stop")
        self.counts["unprotected_s"] = self.venue.unprotected_s

    # --- at the end ---

    def end(self) -> None:
        """Open orders and positions of the venue are those of the books."""
        if not any(row["kind"] == "end" for row in self.wire):
            self.say("end", "the engine did not come to the end of the bars")
            return
        book = {
            row["client_order_id"] for row in self.dump["orders"] if row["state"] not in ENDED
        } - self.venue.vanished  # fmt: skip
        for id_ in book ^ self.venue.open:
            where = "books" if id_ in book else "venue"
            self.say("end", f"{id_} stands open in the {where} alone")
        positions = {f"{row['id']}-ent": Decimal(row["quantity"]) for row in self.dump["positions"]}
        guards = {id_: Decimal(str(guard["quantity"])) for id_, guard in self.venue.guards.items()}
        for id_ in {*positions, *guards}:
            if positions.get(id_) != guards.get(id_):
                self.say("end", f"{id_}: {positions.get(id_)} in the books, {guards.get(id_)} at the venue")

    def acknowledged(self) -> None:
        """No row whose commit had returned is missing, and no order that had ended lives again."""
        there = {
            table: {tuple(str(row[name]) for name in names) for row in self.dump[table]}
            for table, names in KEYS.items()
        }
        states = {row["client_order_id"]: row["state"] for row in self.dump["orders"]}
        answers = {row["id"]: row["answer"] for row in self.dump["engine_requests"]}
        for line in self.wire:
            for table, key, *state in line["rows"] if line["kind"] == "committed" else []:
                self.counts["acknowledged"] += 1
                if tuple(key) not in there[table]:
                    self.say("acknowledged", f"{table} {key} was acknowledged and is gone")
                elif table == "orders" and state[0] in ENDED and states[key[0]] != state[0]:
                    self.say("acknowledged", f"order {key[0]} was {state[0]} and is {states[key[0]]}")
                elif table == "engine_requests" and state[0] and answers[key[0]] != state[0]:
                    self.say("acknowledged", f"{key[0]} was answered {state[0]} and now {answers[key[0]]}")

    def decided(self) -> None:
        """Every agent that a signal reached answered it once: no bar is left out, none is gone through twice."""
        bars = sum(map(len, self.market["bars"].values()))
        by_agent = Counter(row["agent"] for row in self.dump["decisions"])
        self.counts["decisions"] = sum(by_agent.values())
        if any(row["kind"] == "end" for row in self.wire):
            for agent in (row["name"] for row in self.dump["agents"]):
                if by_agent[agent] != bars:
                    self.say("decided", f"{agent} answered {by_agent[agent]} of {bars} signals")


def _same_order(first: dict[str, Any], second: dict[str, Any]) -> bool:
    names = ("client_order_id", "symbol", "side", "quantity", "type", "reduce_only", "bracket", "role")
    return all(first.get(name) == second.get(name) for name in names)


if __name__ == "__main__":
    judge = Judge(Path(sys.argv[1]))
    judge.run()
    print(json.dumps({"found": {name: found[:20] for name, found in judge.found.items()}, "counts": judge.counts}))
    sys.exit(bool(judge.found))
