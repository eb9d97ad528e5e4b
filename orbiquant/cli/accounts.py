"""`orbiquant account open | list | show | deposit | withdraw | transactions | performance | check`"""

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import typer

from orbiquant.cli.agents import open_trading, read_capital
from orbiquant.cli.console import AsJson, fields, show, table
from orbiquant.cli.kill import user_name
from orbiquant.core import LOCAL_USER

if TYPE_CHECKING:
    from orbiquant.research.accounts import FlowAnswer, InvestmentAccount
    from orbiquant.research.room import TradingRoom
    from orbiquant.runtime import Runtime


account_commands = typer.Typer(
    help="Units of pooled agents: who owns them, and what became of it.", no_args_is_help=True
)
AccountId = Annotated[str, typer.Argument(metavar="ACCOUNT", help="As `orbiquant account list` names it.")]
KeyOption = Annotated[str | None, typer.Option(metavar="TEXT", help="The same again is the same request.")]
MOST_ROWS = 100_000  # of a statement, shown at once


def open_room() -> "tuple[Runtime, TradingRoom]":
    "Return this process's runtime and its trading room."
    from orbiquant.desk.agents import room_of
    from orbiquant.desk.periods import schedule_accounts

    runtime = open_trading()
    schedule_accounts(runtime)
    return runtime, room_of(runtime)


def check_key(
    key: str | None,  # as it was typed
) -> str:
    "Return a key; refuse what cannot be part of a request's name."
    if key is None:
        return ""
    if len(key) > 60 or not all(letter.isascii() and (letter.isalnum() or letter in "-_") for letter in key):
        raise typer.BadParameter(f"must be up to 60 letters, digits, - and _, was {key[:60]!r}", param_hint="--key")
    return key


def account_facts(
    account: "InvestmentAccount",  # as it stands
) -> dict[str, object]:
    "Return an account for a screen."
    money = account.currency
    return {
        "account": f"{account.id} of {account.user_id}, {account.status} since {account.opened_at:%Y-%m-%d %H:%M} UTC",
        "product": f"{account.product_id}: {account.agent} is {account.agent_status}",
        "balance": f"{account.current_balance:,f} {money}",
        "units": f"{account.units:,f} at {account.nav.normalize():f}",
        "in cash": f"{account.cash_balance:,f} {money}" if account.cash_balance else None,
        "waits for a price": f"{account.pending_balance:,f} {money}" if account.pending_balance else None,
    }


def tell_flow(
    flow: "FlowAnswer",  # a deposit or a withdrawal
    currency: str,  # of the account
    as_json: bool,  # for a script
) -> None:
    "Print what came of a deposit or a withdrawal."
    amount = "all" if flow.amount is None else f"{flow.amount:f} {currency}"
    if flow.status == "pending":
        said = f"{flow.kind} {flow.id} of {amount} {flow.message}."
    else:
        units, nav = flow.units or Decimal(0), flow.nav or Decimal(0)
        said = f"{flow.kind} of {amount}: {units:f} units at {nav.normalize():f}"
        said += f", {flow.fee:f} {currency} of performance fee." if flow.fee else "."
    show(flow, as_json, lambda: said)


@account_commands.command("open")
def open_command(
    product: Annotated[str, typer.Argument(metavar="PRODUCT", help="atlas-conservative, orion-moderate, …")],
    deposit: Annotated[
        Decimal | None, typer.Option(parser=read_capital, metavar="AMOUNT", help="What is paid in first.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Whose it is; else of whoever sits at this machine.")] = None,
    key: KeyOption = None,
    as_json: AsJson = False,
) -> None:
    "Open an account of a product; its agent runs from the first deposit on."
    from orbiquant.research.accounts import open_account

    whose = LOCAL_USER if user is None else user
    if not (0 < len(whose) <= 100 and whose.isprintable()):
        raise typer.BadParameter(f"must be 1 to 100 printable letters, was {whose[:60]!r}", param_hint="--user")
    _, room = open_room()
    account = open_account(room, whose, product, deposit, user_name(), check_key(key))
    show(account, as_json, lambda: fields(account_facts(account)))


@account_commands.command("list")
def list_accounts_command(
    user: Annotated[str | None, typer.Option(help="Only theirs.")] = None,
    as_json: AsJson = False,
) -> None:
    "List the accounts with what they are worth."
    from orbiquant.research.accounts import list_accounts

    found = list_accounts(open_trading(), user)
    rows = [
        (a.id, a.user_id, a.product_id, a.status, f"{a.current_balance:,f} {a.currency}", f"{a.units:f}", a.opened_at)
        for a in found
    ]
    heads = ("account", "user", "product", "status", ">balance", ">units", "opened (UTC)")
    show(found, as_json, lambda: table(rows, *heads) if rows else "No account was opened yet.")


@account_commands.command("show")
def show_command(account: AccountId, as_json: AsJson = False) -> None:
    "Print where an account stands."
    from orbiquant.research.accounts import find_account

    found = find_account(open_trading(), account)
    show(found, as_json, lambda: fields(account_facts(found)))


@account_commands.command("deposit")
def deposit_command(
    account: AccountId,
    amount: Annotated[Decimal, typer.Argument(parser=read_capital, metavar="AMOUNT", help="Of money.")],
    key: KeyOption = None,
    as_json: AsJson = False,
) -> None:
    "Pay money in, which buys units at the next price."
    from orbiquant.research.accounts import deposit_money, find_account

    runtime, room = open_room()
    flow = deposit_money(room, account, amount, user_name(), check_key(key))
    tell_flow(flow, find_account(runtime, account).currency, as_json)


@account_commands.command("withdraw")
def withdraw_command(
    account: AccountId,
    amount: Annotated[
        Decimal | None, typer.Argument(parser=read_capital, metavar="[AMOUNT]", help="Of money; else all.")
    ] = None,
    key: KeyOption = None,
    as_json: AsJson = False,
) -> None:
    "Take money out at the next price; a fee on the gain above the high-water mark is taken from the same units."
    from orbiquant.research.accounts import find_account, withdraw_money

    runtime, room = open_room()
    flow = withdraw_money(room, account, amount, user_name(), check_key(key))
    tell_flow(flow, find_account(runtime, account).currency, as_json)


@account_commands.command("transactions")
def transactions_command(
    account: AccountId,
    limit: Annotated[int, typer.Option(min=1, max=MOST_ROWS, help="The newest so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    "Print what changed an account's balance, newest first."
    from orbiquant.research.accounts import transactions_of

    found = transactions_of(open_trading(), account, limit)
    rows = [
        (r.time, r.transaction_type, f"{r.amount:,f}", f"{r.balance_before:,f}", f"{r.balance_after:,f}", r.description)
        for r in found
    ]
    heads = ("time (UTC)", "type", ">amount", ">before", ">after", "what")
    show(found, as_json, lambda: table(rows, *heads) if rows else "Nothing happened to it yet.")


@account_commands.command("performance")
def performance_command(
    account: AccountId,
    days: Annotated[int, typer.Option(min=0, max=10_000, help="The newest so many.")] = 30,
    as_json: AsJson = False,
) -> None:
    "Print what an account made, in all and day by day."
    from rich.console import Group

    from orbiquant.research.accounts import performance_of

    made = performance_of(open_trading(), account)
    facts = {
        "balance": f"{made.current_balance:,f} {made.currency}",
        "paid in": f"{made.deposits:,f}",
        "taken out": f"{made.withdrawals:,f}",
        "profit": f"{made.total_profit:+,f} after {made.fees:,f} of fees, {made.total_return:+.2%} of what was paid in",
        "trades": f"{made.total_trades}, {made.winning_trades} won",
        "drawdown": f"{made.current_drawdown:.2%}",
    }
    rows = [
        (f"{d.snapshot_date}", f"{d.opening_balance:,f}", f"{d.closing_balance:,f}", f"{d.profit_loss:+,f}", d.total_trades)
        for d in made.snapshots[-days:] if days
    ]  # fmt: skip
    heads = ("day", ">opening", ">closing", ">profit", ">trades")
    show(made, as_json, lambda: Group(fields(facts), *([table(rows, *heads)] if rows else [])))


@account_commands.command("check")
def check_command(as_json: AsJson = False) -> None:
    "Work out every account anew from the journal; exit 1 when something differs."
    from orbiquant.research.accounts import account_faults, list_accounts

    runtime = open_trading()
    faults, count = account_faults(runtime), len(list_accounts(runtime))
    said = "\n".join(faults) or f"All is well: {count:,} accounts are what the journal says."
    show({"accounts": count, "faults": faults}, as_json, lambda: said)
    if faults:
        raise typer.Exit(1)
