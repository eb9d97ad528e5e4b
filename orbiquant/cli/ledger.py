"""`orbiquant ledger balances | entries | check | export`"""

from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orbiquant.cli.console import AsJson, open_runtime, show, table

if TYPE_CHECKING:
    from orbiquant.trading.journal_tables import Booked
    from orbiquant.trading.ledger import Ledger


ledger_commands = typer.Typer(help="The journal of everything that moved money.", no_args_is_help=True)
AccountOption = Annotated[
    str | None, typer.Option("--account", help="Only it and those below it, e.g. Assets:Paper:atlas.")
]
NOTHING = "Nothing is booked."


def open_ledger() -> "Ledger":
    "Return the ledger of this workspace's database."
    from orbiquant.trading.ledger import Ledger

    runtime = open_runtime()
    return Ledger(runtime.engine, runtime.clock)


@ledger_commands.command("balances")
def show_balances(account: AccountOption = None, as_json: AsJson = False) -> None:
    "Print what is in every account; an income is negative, since it is where money came from."
    from orbiquant.persistence import decimal_text

    rows = [
        (name, asset, decimal_text(amount)) for (name, asset), amount in open_ledger().balances(account or "").items()
    ]
    heads = ("account", "asset", "amount")
    data = [dict(zip(heads, row, strict=True)) for row in rows]
    show(data, as_json, lambda: table(rows, "account", "asset", ">amount") if rows else NOTHING)


@ledger_commands.command("entries")
def show_entries(
    after: Annotated[
        int | None, typer.Option(min=0, help="Those behind this id, oldest first; else the newest ones.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="So many at most.")] = 20,
    account: AccountOption = None,
    as_json: AsJson = False,
) -> None:
    "Print entries with their postings."
    from orbiquant.persistence import decimal_text

    ledger = open_ledger()
    found: Iterable[Booked]
    if after is not None:
        found = list(ledger.entries(after, account or "", limit))
    else:
        found = deque(ledger.entries(0 if account else max(0, ledger.last_id() - limit), account or ""), limit)
    rows = [
        (each.id, each.entry.time, each.entry.description, line.account, decimal_text(line.amount), line.asset)
        for each in found
        for line in each.entry.postings
    ]
    heads = ("entry", "time", "what", "account", ">amount", "asset")
    show(list(found), as_json, lambda: table(rows, *heads) if rows else NOTHING)


@ledger_commands.command("check")
def check_ledger(as_json: AsJson = False) -> None:
    "Add everything up anew; exit 1 when something does not hold."
    ledger = open_ledger()
    faults, entries = ledger.check(), ledger.last_id()
    said = (
        "\n".join(faults) or f"All is well: {entries:,} entries sum to nothing, and the balances are what they come to."
    )
    show({"entries": entries, "faults": faults}, as_json, lambda: said)
    if faults:
        raise typer.Exit(1)


@ledger_commands.command("export")
def export_ledger(
    beancount: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it there; else it is printed.")] = None,
    as_json: AsJson = False,
) -> None:
    "Write the whole journal as a text for beancount, whose bean-check says whether it adds up."
    from orbiquant.core import atomic_write
    from orbiquant.trading.ledger_export import beancount_text

    if beancount is not None and beancount.is_dir():
        raise typer.BadParameter(f"must name a file, {beancount} is a folder", param_hint="--beancount")
    ledger = open_ledger()
    text = beancount_text(ledger)
    if beancount is None:
        show({"text": text}, as_json, lambda: text.rstrip("\n"))
        return
    atomic_write(beancount, text)
    facts = {"file": str(beancount), "entries": ledger.last_id()}
    show(facts, as_json, lambda: f"{facts['entries']:,} entries are in {beancount}.")
