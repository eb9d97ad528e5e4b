"""The accountant: reads journal, events and requests, and works out anew whose every unit and every cent is.

As the judge, it imports nothing of the package. `accountant.py FOLDER` prints a JSON object: `found`, the faults by
invariant, and `counts`. It exits with 1 when there are faults.
"""

import json
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, getcontext
from pathlib import Path
from typing import Any

getcontext().prec = 60
LAST, UNIT, BAR, NONE = Decimal("1e-18"), Decimal("1e-8"), timedelta(minutes=5), Decimal(0)
VENUE = "Assets:Paper:"


@dataclass
class Lot:
    """Units that were bought together."""

    account: str
    number: int
    mark: Decimal
    opening: Decimal
    units: Decimal = NONE
    fee: Decimal = NONE  # of the event that is gone through
    gone: Decimal = NONE  # units that left in it


def moment(text: str) -> datetime:
    """Return a moment as the dump has it: UTC without a zone."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).replace(tzinfo=None)


def down(amount: Decimal, step: Decimal) -> Decimal:
    """Return an amount in whole steps, rounded down."""
    return (amount / step).to_integral_value(ROUND_FLOOR) * step


def up(amount: Decimal, step: Decimal) -> Decimal:
    """Return an amount in whole steps, rounded up."""
    return (amount / step).to_integral_value(ROUND_CEILING) * step


class Book:
    """What an agent has at the venue, up to an entry of the journal."""

    def __init__(self, postings: list[dict[str, Any]], agents: list[str]) -> None:
        """Begin before the first entry."""
        self.left = [row for row in postings if row["account"].removeprefix(VENUE) in agents]
        self.held: dict[str, dict[str, Decimal]] = {agent: defaultdict(Decimal) for agent in agents}

    def go_to(self, entry: int) -> None:
        """Go through what was posted before an entry."""
        while self.left and self.left[0]["entry_id"] < entry:
            row = self.left.pop(0)
            self.held[row["account"].removeprefix(VENUE)][row["asset"]] += Decimal(row["amount"])

    def worth(self, agent: str, prices: dict[str, Decimal], money: str) -> tuple[Decimal, Decimal, Decimal]:
        """Return equity, cash, and what positions bind where nobody lends."""
        held = self.held[agent]
        bound = [quantity * prices[asset] for asset, quantity in held.items() if quantity and asset != money]
        return held[money] + sum(bound, NONE), held[money], sum(map(abs, bound), NONE)


class Accountant:
    """All that there is to read, and what is wrong with it."""

    def __init__(self, folder: Path) -> None:
        """Read the folder of a run."""
        read = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("dump", "market", "products")}
        self.dump, self.market, self.products = read["dump"], read["market"], read["products"]
        self.found: dict[str, list[str]] = defaultdict(list)
        self.counts: Counter[str] = Counter()
        self.entries = {row["id"]: row for row in sorted(self.dump["journal_entries"], key=lambda row: row["id"])}
        postings = sorted(self.dump["journal_postings"], key=lambda row: (row["entry_id"], row["line"]))
        self.lines: dict[int, list[tuple[list[str], str, Decimal]]] = defaultdict(list)
        for row in postings:
            self.lines[row["entry_id"]].append((row["account"].split(":"), row["asset"], Decimal(row["amount"])))
        self.by_event: dict[str, list[int]] = defaultdict(list)
        for id_, row in self.entries.items():
            self.by_event[row["reference"]].append(id_)
        self.ends = any(row.get("kind") == "end" for row in _lines(folder / "wire.jsonl"))
        self.postings = postings

    def say(self, name: str, fault: str) -> None:
        """Note a fault."""
        self.found[name].append(fault)

    def run(self) -> None:
        """Check everything."""
        for id_, terms in self.products.items():
            Recount(self, id_, terms).run()
            self.cents(id_)
        self.flows()

    def prices(self, at: datetime) -> dict[str, Decimal]:
        """Return the last closes that were known at a moment."""
        found = {}
        for symbol, rows in self.market["bars"].items():
            known = [row for row in rows if moment(row[0]) + BAR <= at]
            found[symbol.removesuffix("USDT")] = Decimal(str((known[-1] if known else rows[0])[4]))
        return found

    def cents(self, id_: str) -> None:
        """What lies in the bank is what is owed, nobody owes it anything, and whoever is paid is paid whole cents."""
        terms, name = self.products[id_], _name(id_)
        bank, owed, cent = NONE, dict[str, Decimal](), Decimal(self.products[id_]["cent"])
        for entry, lines in self.lines.items():
            touched = False
            for (kind, *parts), _, amount in lines:
                if (kind, *parts) == ("Assets", "Cash", name):
                    bank, touched = bank + amount, True
                elif kind == "Liabilities" and parts[0] in ("Pending", "Cash") and parts[1] == name:
                    place = ":".join(parts)
                    owed[place], touched = owed.get(place, NONE) - amount, True
                    if owed[place] < 0 or owed[place] % cent:
                        self.say("cents", f"entry {entry} lets {place} be {owed[place]} {terms['currency']}")
            if touched and bank != sum(owed.values(), NONE):
                self.say("cents", f"entry {entry}: the bank of {id_} has {bank}, it owes {sum(owed.values(), NONE)}")
        self.counts["cents_lost"] += int(abs(bank - sum(owed.values(), NONE)) / cent)

    def flows(self) -> None:
        """Everything that was asked for stands once, is answered once, and moved what its answer says, once."""
        asked = {row["id"]: row for row in self.dump["engine_requests"]}
        keys = Counter(row["key"].partition(":")[2] for row in self.entries.values() if row["kind"] == "subscription")
        self.counts["flows"] = len(asked)
        for flow in self.market["flows"] if self.ends else []:
            row = asked.get(flow["id"])
            if row is None or row["answer"] is None:
                self.say("flows", f"{flow['id']} {'is gone' if row is None else 'has no answer'}")
        for key in keys:
            if key not in asked:
                self.say("flows", f"units were bought under {key}, which nobody asked for")
        by_key = {row["key"]: row["id"] for row in self.entries.values()}
        for id_, row in asked.items():
            told = json.loads(row["answer"] or "{}")
            if row["kind"] == "start" or not told:
                continue
            content, done = json.loads(row["content"]), told.get("status") == "done"
            self.counts["done" if done else "refused"] += 1
            moved = [key for key in (f"subscribe:{id_}", f"redeem:{id_}", f"pay:{id_}") if key in by_key]
            if bool(moved) is not done or (row["kind"] == "deposit" and (f"returned:{id_}" in by_key) is done):
                self.say("flows", f"{id_} was answered {told}, and {moved or 'nothing'} was booked")
            elif done:
                self._check_flow(id_, row, content, told, [by_key[key] for key in moved])

    def _check_flow(
        self, id_: str, row: dict[str, Any], content: dict[str, Any], told: dict[str, Any], entries: list[int]
    ) -> None:
        """Compare an answer with what was booked, and the price's moment with the question's."""
        terms = self.products[content["product"]]
        money, agent, amount = terms["currency"], terms["agent"], Decimal(told["amount"])
        paths = [VENUE + agent] + ["Assets:Cash:" + _name(content["product"])] * (row["kind"] == "withdrawal")
        lines = [line for entry in entries for line in self.lines[entry] if line[1] == money]
        paid = abs(sum((each for path, _, each in lines if ":".join(path) in paths), NONE))
        if paid != amount or (content["amount"] is not None and Decimal(content["amount"]) != amount):
            self.say("flows", f"{id_} asked for {content['amount']}, was told {amount}, and {paid} moved")
        first = self.entries[entries[0]]
        balances = Book(self.postings, [agent])
        balances.go_to(entries[0])
        held = {asset: each for asset, each in balances.held[agent].items() if each and asset != money}
        if held and moment(first["recorded_at"]) <= moment(row["asked_at"]):
            self.say("price", f"{id_} got a price that was known when it was asked for")


class Recount:
    """A product from its first event to its last."""

    def __init__(self, accountant: Accountant, id_: str, terms: dict[str, Any]) -> None:
        """Begin with nothing."""
        self.accountant, self.id, self.terms, self.money = accountant, id_, terms, terms["currency"]
        self.say, self.name = accountant.say, _name(id_)
        self.rate, self.cent = Decimal(terms["performance_fee"]), Decimal(terms["cent"])
        self.operator, self.agents = f"operator-{id_}", [each["agent"] for each in accountant.products.values()]
        self.lots: dict[tuple[str, int], Lot] = {}
        self.book = Book(accountant.postings, self.agents)
        events = [row for row in accountant.dump["fund_events"] if row["product_id"] == id_]
        self.events = sorted(events, key=lambda row: row["number"])

    def run(self) -> None:
        """Go through the events, and compare what is left with what is kept."""
        self.accountant.counts["events"] += len(self.events)
        for event in self.events:
            nav, entries = Decimal(event["nav"]), self.accountant.by_event[f"{self.id}:{event['number']}"]
            self.price(event, nav, entries)
            for lot in self.lots.values():
                lot.fee = lot.gone = NONE
            before = {key: Lot(**vars(lot)) for key, lot in self.lots.items()}
            for entry in entries:
                self.apply(entry, nav)
            if event["kind"] == "month":
                self.month(event, nav, before, entries)
            elif event["kind"] == "redemption":
                self.redeemed(event, nav, before, entries)
        self.kept()
        self.ended()

    def price(self, event: dict[str, Any], nav: Decimal, entries: list[int]) -> None:
        """The price of an event is what the book was worth then by the units that were there."""
        units, equity = sum((lot.units for lot in self.lots.values()), NONE), Decimal(event["equity"])
        if Decimal(event["units"]) != units:
            self.say("units", f"{self.id}:{event['number']} counts {event['units']} units, {units} are held")
        if nav != (down(equity / units, LAST) if units else 1):
            self.say("price", f"{self.id}:{event['number']} has a price of {nav}, {equity} by {units} is another")
        if entries:
            self.book.go_to(entries[0])
            prices = self.accountant.prices(moment(self.accountant.entries[entries[0]]["recorded_at"]))
            worth = self.book.worth(self.terms["agent"], prices, self.money)[0]
            if worth != equity:
                self.say("price", f"{self.id}:{event['number']} says {equity}, the book was worth {worth}")

    def apply(self, entry: int, nav: Decimal) -> None:
        """Let an entry move units, and note the fee of each lot."""
        last: Lot | None = None
        kind, bought, paid = self.accountant.entries[entry]["kind"], NONE, NONE
        for (root, *parts), _, amount in self.accountant.lines[entry]:
            if (root, parts[0]) == ("Assets", "Units"):
                key = parts[2], int(parts[3])
                lot = self.lots.setdefault(key, Lot(*key, nav, nav))
                lot.units += amount
                bought += amount
                if lot.units < 0:
                    self.say("units", f"entry {entry} leaves {lot.units} units in lot {key}")
                if amount < 0:
                    lot.gone, last = lot.gone - amount, lot
            elif (root, parts[0]) == ("Equity", "Capital"):
                paid -= amount
            elif root == "Expenses" and last is not None:
                last.fee += amount
        if kind in ("subscription", "adoption"):
            prices = self.accountant.prices(moment(self.accountant.entries[entry]["recorded_at"]))
            money = paid if kind == "subscription" else self.book.worth(self.terms["agent"], prices, self.money)[0]
            if bought != down(money / nav, UNIT):
                self.say("price", f"entry {entry} gives {bought} units for {money} at {nav}")

    def due(self, lot: Lot, nav: Decimal, units: Decimal) -> Decimal:
        """Return the fee on some units of a lot: none at or below its mark, none of the operator."""
        if lot.account == self.operator:
            return NONE
        return down(units * self.rate * max(NONE, nav - lot.mark), self.cent)

    def redeemed(self, event: dict[str, Any], nav: Decimal, before: dict[Any, Lot], entries: list[int]) -> None:
        """Who leaves pays the fee on what leaves, and gets neither more nor a cent less than it is worth."""
        worth, steps, cash = NONE, 2 * self.cent, NONE
        for key, lot in self.lots.items():
            if lot.gone:
                old = before[key]
                if lot.fee != self.due(old, nav, lot.gone):
                    self.say(
                        "fee",
                        f"{self.id}:{event['number']} takes {lot.fee} of {key}, {self.due(old, nav, lot.gone)} is due",
                    )
                rate = NONE if lot.account == self.operator else self.rate
                worth += lot.gone * (nav - rate * max(NONE, nav - old.mark))
                steps += UNIT * nav
        for entry in entries:
            for (root, *parts), _, amount in self.accountant.lines[entry]:
                cash += amount if (root, parts[0]) == ("Equity", "Capital") else NONE
        if cash > worth or cash < worth - steps or cash % self.cent:
            self.say("price", f"{self.id}:{event['number']} pays {cash} for what is worth {worth}")

    def month(self, event: dict[str, Any], nav: Decimal, before: dict[Any, Lot], entries: list[int]) -> None:
        """At a month's end each lot pays its fee, and what is distributed is shared out to the cent."""
        charged: dict[Any, Decimal] = {}
        for key, old in before.items():
            fee, lot = self.due(old, nav, old.units), self.lots[key]
            charged[key] = down(fee / nav, UNIT)
            if lot.fee != fee:
                self.say("fee", f"{self.id}:{event['number']} takes {lot.fee} of {key}, {fee} is due above {old.mark}")
            if fee:
                lot.mark = nav
        self.accountant.counts["fees"] += sum(bool(lot.fee) for lot in self.lots.values())
        shares: dict[str, Decimal] = defaultdict(Decimal)
        for entry in entries:
            if self.accountant.entries[entry]["kind"] == "distribution":
                paid = [
                    each
                    for (root, *parts), _, each in self.accountant.lines[entry]
                    if root == "Liabilities" and parts[0] == "Cash"
                ]
                shares[self.accountant.entries[entry]["key"].rpartition(":")[2]] -= sum(paid, NONE)
        self.accountant.counts["distributions"] += len(shares)
        self.shared(event, nav, before, charged, shares)
        for lot in self.lots.values():
            lot.opening = nav

    def shared(
        self, event: dict[str, Any], nav: Decimal, before: dict[Any, Lot], charged: dict[Any, Decimal],
        shares: dict[str, Decimal],
    ) -> None:  # fmt: skip
        """The whole of what was made, or of what is free, is shared in its proportions, each within a cent."""
        due: dict[str, Decimal] = defaultdict(Decimal)
        for key, old in before.items():
            left = old.units - charged[key]
            made = max(NONE, left * nav - old.units * old.opening)
            if old.account != self.operator and made and left * nav >= up(made, self.cent):
                due[old.account] += made
        whole = sum(due.values(), NONE)
        total = down(min(whole, self.free(event)), self.cent) if self.terms["distribution"] == "pay_out" else NONE
        if sum(shares.values(), NONE) != max(NONE, total):
            self.say("shares", f"{self.id}:{event['number']} shares out {sum(shares.values(), NONE)}, {total} is to be")
        for account in {*shares, *due} if total > 0 else ():
            if abs(shares[account] - total * due[account] / whole) >= self.cent:
                self.say("shares", f"{self.id}:{event['number']} gives {account} {shares[account]} of {total}")

    def free(self, event: dict[str, Any]) -> Decimal:
        """Return what nothing binds, of the agent and at the venue."""
        later = [row for row in self.accountant.entries.values() if moment(row["recorded_at"]) >= moment(event["time"])]
        entries = self.accountant.by_event[f"{self.id}:{event['number']}"]
        self.book.go_to(entries[0] if entries else later[0]["id"] if later else 10**9)
        at = moment(self.accountant.entries[entries[0]]["recorded_at"]) if entries else moment(event["time"])
        prices = self.accountant.prices(at)
        own = self.book.worth(self.terms["agent"], prices, self.money)
        every = [
            sum(each, NONE) for each in zip(*(self.book.worth(a, prices, self.money) for a in self.agents), strict=True)
        ]
        return min(own[0] - own[2], own[1], every[0] - every[2], every[1])

    def kept(self) -> None:
        """The lots that are kept are those that the journal makes."""
        rows = [row for row in self.accountant.dump["unit_lots"] if row["product_id"] == self.id]
        kept = {(row["account_id"], row["number"]): row for row in rows if Decimal(row["units"])}
        mine = {key: lot for key, lot in self.lots.items() if lot.units}
        for key in {*kept, *mine}:
            row, lot = kept.get(key), mine.get(key)
            if row is None or lot is None or Decimal(row["units"]) != lot.units:
                self.say(
                    "units",
                    f"lot {key} is kept with {row and row['units']} units, the journal makes {lot and lot.units}",
                )
            elif lot.account != self.operator and (Decimal(row["mark"]), Decimal(row["opening"])) != (
                lot.mark,
                lot.opening,
            ):
                self.say("fee", f"lot {key} is kept with a mark of {row['mark']}, {lot.mark} it must be")

    def ended(self) -> None:
        """Each day and each month that has ended is closed once."""
        if not (self.events and self.accountant.ends):
            return
        first, bars = moment(self.events[0]["time"]), next(iter(self.accountant.market["bars"].values()))
        last, day = moment(bars[-1][0]) + BAR, first.replace(hour=0, minute=0) + timedelta(days=1)
        must = Counter[tuple[str, datetime]]()
        while day <= last:
            must["day", day] += 1
            must["month", day] += day.day == 1
            day += timedelta(days=1)
        has = Counter((row["kind"], moment(row["time"])) for row in self.events if row["kind"] in ("day", "month"))
        for kind, at in {each for each in must | has if must[each] != has[each]}:
            self.say("ends", f"{self.id} closed the {kind} that ended on {at:%Y-%m-%d} {has[kind, at]} times")


def _name(id_: str) -> str:
    """Return how the journal's accounts spell a product."""
    return id_[0].upper() + id_[1:]


def _lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


if __name__ == "__main__":
    accountant = Accountant(Path(sys.argv[1]))
    accountant.run()
    found = {name: faults[:20] for name, faults in accountant.found.items()}
    print(json.dumps({"found": found, "counts": accountant.counts}))
    sys.exit(bool(accountant.found))
