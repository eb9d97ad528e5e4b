"""What the lines of a results file come to."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DOUBLED = ("sent once", "one order", "fills")
UNBALANCED = ("journal", "money")


def read_results(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a results file."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{"seconds": {}, "scale": 0.0} | row for row in rows]


def quantile(values: list[float], share: float) -> float:
    """Return the value that a share of them does not pass."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def spread(values: Iterable[float]) -> str:
    """Return most, 99 % and middle of some seconds."""
    known = list(values)
    most = max(known, default=float("nan"))
    return f"max {most:.2f}, p99 {quantile(known, 0.99):.2f}, p50 {quantile(known, 0.5):.2f} of {len(known)}"


def summary(rows: list[dict[str, Any]]) -> str:
    """Return what all runs come to, one paragraph a database."""
    names = sorted({row["database"] for row in rows})
    return "\n\n".join(_paragraph(name, [row for row in rows if row["database"] == name]) for name in names)


def _function(place: str) -> str:
    """Return where a process died, without line and instruction."""
    return f"{place.partition(':')[0]} {place.rpartition(' of ')[2]}"


def _at_the_exchange(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Return what was measured by an exchange's clock."""
    names = {"bare": "without a resident stop, s", "settled": "unknown until, s", "found": "deeds of others found, s"}
    seconds = {key: [each for row in rows for each in row["seconds"].get(key, ())] for key in names}
    if not any(row["scale"] for row in rows):
        return {}
    counts = {key: sum(row["counts"].get(key, 0) for row in rows) for key in ("intents", "positions", "faults")}
    said = ", ".join(f"{count} {key}" for key, count in counts.items())
    return {"by the exchange": said} | {what: spread(seconds[key]) for key, what in names.items()}


def _paragraph(name: str, rows: list[dict[str, Any]]) -> str:
    def total(key: str) -> int:
        return sum(row[key] for row in rows)

    def count(key: str) -> int:
        return sum(row["counts"].get(key, 0) for row in rows)

    def faults(*names: str) -> int:
        return sum(len(row["found"].get(each, [])) for row in rows for each in names)

    def seconds(key: str) -> str:
        return spread(each for row in rows for each in row[key])

    seeds, every = sorted(row["seed"] for row in rows), {each for row in rows for each in row["found"]}
    others = faults(*every) - faults("acknowledged", *DOUBLED, *UNBALANCED)
    bad = [row["seed"] for row in rows if row["found"] or row["error"]]
    lines = {
        "seeds": f"{seeds[0]} to {seeds[-1]}, {len(seeds)} run, bad: {bad or 'none'}",
        "code": ", ".join(sorted({row["code"] for row in rows})),
        "kills that count": f"{total('in_transaction') + total('in_intent')}: {total('in_transaction')} in a commit, "
        f"{total('in_intent')} in an open intent",
        "in so many functions": len({_function(place) for row in rows for place in row["places"]}),
        "kills elsewhere": total("elsewhere"),
        "orders sent, fills, postings": f"{count('submits')}, {count('fills')}, {count('postings')}",
        "acknowledged rows lost": f"{faults('acknowledged')} of {count('acknowledged')}",
        "orders or fills doubled": faults(*DOUBLED),
        "faults of the ledger's balance": faults(*UNBALANCED),
        "other faults": others,
        "without a resident stop": f"{count('unprotected_s')} s",
        **_at_the_exchange(rows),
        "safe after, s, forked": seconds("safe_s"),
        "safe after, s, with imports": seconds("cold_s"),
        "of a processor, s, forked": seconds("cpu_s"),
        "of a processor, s, with imports": seconds("cold_cpu_s"),
    }
    return "\n".join([name, *(f"  {what:<32}{said}" for what, said in lines.items())])
