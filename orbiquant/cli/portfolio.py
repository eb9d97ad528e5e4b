"""`orbiquant portfolio show | allocate | rebalance`"""

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orbiquant.cli.agents import open_trading
from orbiquant.cli.console import AsJson, fields, show, table

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Group

    from orbiquant.research.portfolio import PortfolioView
    from orbiquant.runtime import Runtime
    from orbiquant.trading.allocation import Allocation
    from orbiquant.trading.portfolio_config import PortfolioConfig


portfolio_commands = typer.Typer(
    help="All agents of an account: what they hold, who earned it, how capital is divided.", no_args_is_help=True
)
AccountName = Annotated[
    str | None, typer.Option("--account", help="Such as paper-usdt; else where the first agent trades.")
]
WeighingOption = Annotated[
    Literal["fixed", "inverse_volatility", "risk_parity"] | None, typer.Option(help="Else that of [portfolio].")
]
DrawdownAware = Annotated[
    bool | None, typer.Option("--drawdown-aware/--no-drawdown-aware", help="Less near a drawdown limit; else as set.")
]
ProfitGroup = Literal["agent", "strategy", "symbol", "month"]


def chosen_config(
    runtime: "Runtime",  # its settings
    method: str | None,  # None: that of the settings
    drawdown_aware: bool | None,  # None: as the settings say
) -> "PortfolioConfig":
    "Return the settings of the portfolio with what options name."
    told = {"method": method, "drawdown_aware": drawdown_aware}
    given = {name: value for name, value in told.items() if value is not None}
    return runtime.settings.portfolio.model_copy(update=given)


def check_account(
    account: str | None,  # as it was typed
) -> None:
    "Refuse a name that no account has."
    if account is not None and (not account.isascii() or not account.isprintable() or not 1 <= len(account) <= 40):
        raise typer.BadParameter("must be 1 to 40 letters such as paper-usdt", param_hint="--account")


@portfolio_commands.command("show")
def show_portfolio_command(
    account: AccountName = None,
    by: Annotated[ProfitGroup, typer.Option(help="What profit and loss are attributed to.")] = "agent",
    as_json: AsJson = False,
) -> None:
    "Print all agents of an account: equity, holdings, exposure, who earned it, what moves together."
    from orbiquant.research.portfolio import view_portfolio

    check_account(account)
    view = view_portfolio(open_trading(), account)
    show(view_facts(view, by), as_json, lambda: view_screen(view, by))


def view_facts(
    view: "PortfolioView",  # of an account
    by: str,  # agent, strategy, symbol or month
) -> dict[str, Any]:
    "Return a portfolio for a script; amounts are decimals."
    return {
        "account": view.account,
        "currency": view.currency,
        "time": view.now,
        "equity": view.equity,
        "agents": rows_of_table(view.agents),
        "holdings": view.holdings.to_dict("records"),
        "exposure": rows_of_table(view.exposure("symbol")),
        "attribution": rows_of_table(view.attribution(by)),
        "correlations": {"symbols": matrix(view.symbols), "agents": matrix(view.agent_correlations())},
        "decisions": [each.told for each in view.decisions],
    }


def rows_of_table(
    made: "pd.DataFrame",  # with an index that has a name
) -> list[dict[str, Any]]:
    "Return rows for a script."
    return made.reset_index().to_dict("records")


def matrix(
    made: "pd.DataFrame",  # of correlations
) -> dict[str, dict[str, float]]:
    "Return a matrix for a script."
    return {str(name): {str(other): float(value) for other, value in row.items()} for name, row in made.iterrows()}


def money(
    amount: Decimal,  # of the account's currency
) -> str:
    "Return an amount as people read it."
    return f"{amount:,.2f}"


def view_screen(
    view: "PortfolioView",  # of an account
    by: str,  # agent, strategy, symbol or month
) -> "Group | str":
    "Return a portfolio for a screen, 80 columns wide."
    from rich.console import Group

    if view.agents.empty:
        return f"No agent has begun at {view.account}: `orbiquant agent start AGENT` begins one."
    agents = [
        (name, row.state, money(row.equity), f"{row.share:.1%}", f"{row.drawdown:.1%} of {row.max_drawdown:.0%}", row.positions)
        for name, row in view.agents.iterrows()
    ]  # fmt: skip
    held = [
        (row.agent, row.symbol, row.side, f"{row.value:,.0f}", f"{row.profit:+,.2f}", money(row.risk))
        for row in view.holdings.itertuples()
    ]
    together = [
        (name, f"{row.long:,.0f}", f"{row.short:,.0f}", f"{row.net:,.0f}", money(row.risk))
        for name, row in view.exposure("symbol").iterrows()
    ]
    made = [
        (name, row.trades, f"{row.closed:+,.2f}", f"{row.open:+,.2f}", money(row.fees), f"{row.r:+.1f}", f"{row.share:.0%}")
        for name, row in view.attribution(by).iterrows()
    ]  # fmt: skip
    facts = {"account": f"{view.account}, {money(view.equity)} {view.currency}", "time": view.now}
    parts: list[Any] = [fields(facts), table(agents, "agent", "state", ">equity", ">share", ">drawdown", ">positions")]
    parts += [table(held, "agent", "symbol", "side", ">value", ">profit", ">at stop")] if held else []
    parts += [table(together, "symbol", ">long", ">short", ">net", ">at stop")] if held else []
    parts += [table(made, by, ">trades", ">closed", ">open", ">fees", ">R", ">share")] if made else []
    parts += [pairs] if (pairs := pair_table(view.symbols, "symbols")) is not None else []
    parts += [pairs] if (pairs := pair_table(view.agent_correlations(), "agents' days")) is not None else []
    last = [(each.decided_at, each.period, each.outcome, each.reason) for each in view.decisions[:3]]
    return Group(*parts, *([table(last, "decided (UTC)", "period", "outcome", "reason")] if last else []))


def pair_table(
    made: "pd.DataFrame",  # of correlations
    what: str,  # moves together
) -> Any:
    "Return the pairs of a matrix, the closest first; None where there are none."
    names = [str(name) for name in made.columns]
    found = [(f"{a}, {b}", float(made.iloc[i, j])) for i, a in enumerate(names) for j, b in enumerate(names) if i < j]
    known = sorted(found, key=lambda pair: (pair[1] != pair[1], -abs(pair[1]) if pair[1] == pair[1] else 0, pair[0]))
    rows = [(pair, f"{value:.2f}" if value == value else "not known") for pair, value in known[:10]]
    return table(rows, what, ">correlation") if rows else None


@portfolio_commands.command("allocate")
def allocate_command(
    account: AccountName = None,
    method: WeighingOption = None,
    drawdown_aware: DrawdownAware = None,
    as_json: AsJson = False,
) -> None:
    "Print how an account's capital should be divided, from what is known now; nothing is moved."
    from orbiquant.research.portfolio import allocation_of, view_portfolio

    check_account(account)
    runtime = open_trading()
    made, view = (
        allocation_of(runtime, account, chosen_config(runtime, method, drawdown_aware)),
        view_portfolio(runtime, account),
    )
    now = {name: float(view.agents.loc[name, "share"]) for name in made.shares}
    facts = {"account": view.account, "method": made.method, "days": made.days, "shares": made.shares, "now": now,
             "headrooms": dict(made.headrooms), "notes": made.notes}  # fmt: skip
    show(facts, as_json, lambda: allocation_screen(made, now))


def allocation_screen(
    made: "Allocation",  # shares
    now: dict[str, float],  # shares as they stand, of the whole account
) -> "Group":
    "Return shares for a screen."
    from rich.console import Group

    rows = [
        (name, f"{now[name]:.1%}", f"{share:.1%}", f"{made.headrooms[name]:.0%}" if name in made.headrooms else None)
        for name, share in made.shares.items()
    ]
    how = f"{made.method}, from {made.days} days" if made.days else made.method
    shown = table(rows, "agent", ">now", ">should be", ">way to its drawdown limit")
    return Group(fields({"method": how, "notes": made.notes}), shown)


@portfolio_commands.command("rebalance")
def rebalance_command(
    account: AccountName = None,
    method: WeighingOption = None,
    drawdown_aware: DrawdownAware = None,
    now: Annotated[bool, typer.Option("--now", help="Whatever the rule says, once more.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be moved, and move nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    "Bring an account's capital to its shares, once a period: cash moves, nothing is closed for it."
    from orbiquant.cli.kill import user_name
    from orbiquant.desk.agents import room_of
    from orbiquant.research.portfolio import agents_at, rebalance_account, rebalance_order

    check_account(account)
    runtime = open_trading()
    place, _ = agents_at(runtime, account)
    config, moment = chosen_config(runtime, method, drawdown_aware), runtime.clock.now()
    by_hand = now or (dry_run and config.rebalance == "off")
    order = rebalance_order(runtime, place, config, f"by hand {moment:%Y-%m-%d %H:%M:%S}" if by_hand else "")
    room = room_of(runtime)
    if dry_run:
        from orbiquant.trading.rebalancing import preview

        told: dict[str, Any] | None = preview(room.engine_of(place), order)
    else:
        told = rebalance_account(runtime, room.ask, place, order, user_name())
    if told is None:
        told = {
            "account": place,
            "period": order.period,
            "outcome": "asked",
            "reason": "its engine has not answered yet",
        }
    show(told, as_json, lambda: told_screen(told, dry_run))


def told_screen(
    told: dict[str, Any],  # what was decided
    dry_run: bool,  # nothing was done
) -> "Group":
    "Return a decision for a screen."
    from rich.console import Group

    words = {"moved": "would move" if dry_run else "moved", "kept": "nothing to do"}
    said = words.get(told["outcome"], told["outcome"]) + (", decided before" if told.get("again") else "")
    moves = [(each["source"], each["target"], money(Decimal(each["amount"]))) for each in told.get("moves", ())]
    facts = {"account": told["account"], "period": told["period"], "outcome": said, "reason": told["reason"]}
    return Group(fields(facts), *([table(moves, "from", "to", ">amount")] if moves else []))
