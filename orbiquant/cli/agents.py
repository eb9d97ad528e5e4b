"""`orbiquant agent list | start | adopt | pause | resume | stop | status | journal | run | replay`"""

import sys
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orbiquant.cli.console import (
    AsJson,
    fields,
    open_runtime,
    show,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Group
    from rich.table import Table

    from orbiquant.research.room import TradingRoom, Turn
    from orbiquant.research.standings import AgentMetrics, AgentStatus, HeldPosition
    from orbiquant.runtime import Runtime
    from orbiquant.trading.decisions import Answered


agent_commands = typer.Typer(help="Agents that trade: who may, what they did, and why not.", no_args_is_help=True)
AGENTS_TOLD = ("atlas", "orion", "nova")


AgentName = Annotated[
    str, typer.Argument(metavar="AGENT", help="atlas, orion or nova.", autocompletion=lambda: AGENTS_TOLD)
]
Replies = Literal["taken", "resized", "closed", "hold", "filtered", "denied", "rejected"]
MOST_DECISIONS = 10_000  # of a journal, shown at once


def open_trading() -> "Runtime":
    "Return this process's runtime, with everything known that follows new bars."
    import orbiquant.desk.agents
    import orbiquant.desk.alerts  # noqa: F401 - they register what they define

    return open_runtime()


def read_capital(
    text: str,  # as it was typed
) -> Decimal:
    "Return an amount of money; refuse what is none."
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(0)
    if not (amount.is_finite() and 0 < amount < Decimal("1e15")) or -int(amount.as_tuple().exponent) > 8:
        raise typer.BadParameter(f"must be an amount above 0 and below 1e15 with up to 8 decimals, was {text[:40]!r}")
    return amount


@agent_commands.command("list")
def list_command(as_json: AsJson = False) -> None:
    "List the agents: state, account, equity, and why one does not trade."
    from orbiquant.desk.agents import status_of

    runtime = open_trading()
    found = [status_of(runtime, name) for name in AGENTS_TOLD]
    rows = [(s.name, s.status, s.account, f"{s.equity:,.2f} {s.currency}", s.open_positions, s.idle[:1]) for s in found]
    heads = ("agent", "status", "account", ">equity", ">positions", "does not trade because")
    show(found, as_json, lambda: table(rows, *heads))


@agent_commands.command("start")
def start_command(
    agent: AgentName,
    equity: Annotated[
        Decimal | None,
        typer.Option(parser=read_capital, metavar="AMOUNT", help="Capital; else the profile's at first, 0 later."),
    ] = None,
    confirm: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Where real money is at stake: what you would be asked to type.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    "Let an agent trade, with capital of your own; one that runs is left as it is."
    from orbiquant.cli.kill import user_name
    from orbiquant.desk.agents import find_agent, room_of, status_of
    from orbiquant.research.agents import account_of, confirmation_of, profile_of
    from orbiquant.research.room import start_agent
    from orbiquant.research.standings import find_record

    runtime, name = open_trading(), find_agent(agent)
    known = find_record(runtime, name)
    account = known.account if known else account_of(profile_of(runtime.settings, name))
    phrase = confirmation_of(runtime.settings, name, account)
    if phrase and confirm is None and sys.stdin.isatty():
        confirm = typer.prompt(f"{name} will trade real money at {account}. Type {phrase!r} to go on", err=True)
    request = start_agent(room_of(runtime), name, account, equity, user_name(), confirm or "")
    added = "" if request.answer is None else request.answer["added"]
    status = status_of(runtime, name)
    tell_status(
        status,
        f"{name} is {status.status}" + (f", with {added} {status.currency} more" if added != "0" else ""),
        as_json,
    )


@agent_commands.command("adopt")
def adopt_command(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="At a real venue, such as binance-usdt.")],
    as_json: AsJson = False,
) -> None:
    "Take an account as its venue has it: what no agent's book has is nobody's from now on. Agents stay halted."
    from orbiquant.cli.kill import user_name
    from orbiquant.desk.agents import room_of
    from orbiquant.research.room import adopt_account

    told = adopt_account(room_of(open_trading()), account, user_name()).answer
    taken = ", ".join(f"{amount} {asset}" for asset, amount in (told or {}).get("adopted", {}).items())
    said = f"{account} is taken as it is: {taken or 'nothing differed'}." if told else "No process answered yet."
    show(told or {}, as_json, lambda: said)


@agent_commands.command("pause")
def pause_command(agent: AgentName, as_json: AsJson = False) -> None:
    "Let an agent open nothing more for now; what it holds stays protected."
    move(agent, "pause", as_json)


@agent_commands.command("resume")
def resume_command(agent: AgentName, as_json: AsJson = False) -> None:
    "Let an agent that is paused or halted go on."
    move(agent, "resume", as_json)


@agent_commands.command("stop")
def stop_command(agent: AgentName, as_json: AsJson = False) -> None:
    "Stop an agent; what it holds stays protected until its stop, its target or its time."
    move(agent, "stop", as_json)


def move(
    agent: str,  # its name
    step: str,  # pause, resume or stop
    as_json: bool,  # for a script
) -> None:
    "Move an agent in its life, and say where it stands."
    from orbiquant.cli.kill import user_name
    from orbiquant.desk.agents import move_agent

    status = move_agent(open_trading(), agent, step, user_name())
    tell_status(status, f"{status.name} is {status.status}: {status.reason}", as_json)


def tell_status(
    status: "AgentStatus",  # of an agent
    said: str,  # what was done
    as_json: bool,  # for a script
) -> None:
    "Print what was done, and why nothing comes of it yet."
    show(status, as_json, lambda: "\n".join([f"{said}.", *(f"It does not trade: {why}." for why in status.idle)]))


@agent_commands.command("status")
def status_command(
    agent: AgentName,
    decisions: Annotated[int, typer.Option(min=0, max=MOST_DECISIONS, help="The newest so many.")] = 10,
    as_json: AsJson = False,
) -> None:
    "Print where an agent stands: limits, positions with stops, targets against actuals, the last decisions and why."
    from orbiquant.desk.agents import find_agent, status_of
    from orbiquant.research.standings import agent_metrics_of, decisions_of, positions_of, read_standing

    runtime, name = open_trading(), find_agent(agent)
    status, made = status_of(runtime, name), agent_metrics_of(runtime, name)
    held = positions_of(read_standing(runtime, status.account), name)
    last = decisions_of(runtime, name, None, decisions) if decisions else []
    facts = {"status": status, "metrics": made, "positions": held, "decisions": [each._asdict() for each in last]}
    show(facts, as_json, lambda: status_view(status, made, held, last))


def status_view(
    status: "AgentStatus",  # of an agent
    made: "AgentMetrics",  # what it made
    held: "list[HeldPosition]",  # what it holds
    last: "list[Answered]",  # what it decided
) -> "Group":
    "Return an agent's status for a screen."
    from rich.console import Group

    target = " to ".join(f"{share:.0%}" for share in made.target_month)
    facts = {
        "agent": f"{status.name} ({status.profile}) at {status.account}",
        "state": f"{status.status}: {status.reason}",
        "equity": f"{status.equity:,.2f} {status.currency}",
        "drawdown": f"{status.drawdown:.2%} of at most {status.max_drawdown:.0%}",
        "today": f"{status.day_loss:.2%} lost of at most {status.daily_loss:.0%}",
        "positions": f"{status.open_positions} of at most {status.max_positions}",
        "engine": status.engine or "no process trades this account",
        "closed trades": f"{made.total_trades}, net {made.net_profit:+,.2f} {made.currency}, fees {made.fees:,.2f}",
        "win rate": None if made.win_rate is None else f"{made.win_rate:.0%}, the least is {made.min_win_rate:.0%}",
        "target a month": target,
        "warnings": [*status.warnings, *made.warnings],
        "does not trade": status.idle,
    }
    rows = [
        (p.ticket, p.symbol, p.type, p.size, p.open_price, p.current_price, p.stop_loss, p.take_profit, p.profit)
        for p in held
    ]
    heads = ("ticket", "symbol", "side", ">size", ">opened at", ">price", ">stop", ">target", ">profit")
    months = [(m["month"], f"{m['return']:.2%}", target, m["reached"]) for m in made.months[-12:]]
    parts: list[Any] = [fields(facts)]
    parts += [table(rows, *heads)] if rows else []
    parts += [table(months, "month", ">closed", ">target", "reached")] if months else []
    return Group(*parts, *([journal_table(last)] if last else []))


def journal_table(
    decisions: "list[Answered]",  # newest first
) -> "Table":
    "Return decisions as a table."
    rows = [
        (f"{d.decided_at:%y-%m-%d %H:%M}", d.agent, f"{d.symbol} {d.timeframe}", d.strategy, d.action.value,
         d.outcome.value, d.reason)
        for d in decisions
    ]  # fmt: skip
    return table(rows, "decided (UTC)", "agent", "series", "strategy", "signal", "answer", "reason")


@agent_commands.command("journal")
def journal_command(
    agent: Annotated[
        str | None, typer.Argument(metavar="AGENT", help="One of them; else all.", autocompletion=lambda: AGENTS_TOLD)
    ] = None,
    outcome: Annotated[Replies | None, typer.Option(help="Only what was answered so.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MOST_DECISIONS, help="The newest so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    "Print what was decided on each signal, newest first, and why."
    from orbiquant.desk.agents import find_agent
    from orbiquant.research.standings import decisions_of

    runtime = open_trading()
    found = decisions_of(runtime, None if agent is None else find_agent(agent), outcome, limit)
    empty = "Nothing was decided yet: an agent decides when a bar closes while `orbiquant agent run` goes on."
    show([each._asdict() for each in found], as_json, lambda: journal_table(found) if found else empty)


@agent_commands.command("run")
def run_command(
    poll: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    as_json: AsJson = False,
) -> None:
    "Trade what was started, until interrupted: no new risk from the first Ctrl-C on, stops stay."
    from threading import Event

    from orbiquant.cli.console import console
    from orbiquant.cli.follow import plain_teller, tell_at_once
    from orbiquant.desk.alerts import judge_new_bars
    from orbiquant.research.staying import stay

    runtime, stop, say = open_trading(), Event(), console(stderr=True)
    room = room_with_summary(runtime)
    if once:
        tell_turn = turn_teller(plain_teller(say), as_json)
        for turn in [room.turn(account) for account in room.accounts()]:
            tell_turn(turn)
        return
    close_on_signals(runtime, stop.set)
    tell = tell_at_once(runtime, say)
    tell(f"{trading_told(room)} (Ctrl-C ends it)")
    stay(room, stop, turn_teller(tell, as_json), poll, [judge_new_bars])
    tell(ENDED_TOLD)


ENDED_TOLD = "Ended: nothing was opened since the interrupt, protective stops stay."


def room_with_summary(
    runtime: "Runtime",  # whose accounts are traded
) -> "TradingRoom":
    "Return this process's trading room, which tells the day's summary, too."
    from orbiquant.desk.agents import room_of
    from orbiquant.desk.periods import DayTeller

    room = room_of(runtime)
    room.beside = DayTeller(runtime).look
    return room


def trading_told(
    room: "TradingRoom",  # of this process
) -> str:
    "Return what is traded from now on, in words."
    return f"Trading {', '.join(room.accounts()) or 'nothing yet: `orbiquant agent start AGENT`'}"


def turn_teller(
    tell: "Callable[[str], None]",  # tells one line
    as_json: bool,  # as one line of JSON on standard output instead
) -> "Callable[[Turn], None]":
    "Return what tells a turn."
    from orbiquant.cli.follow import line_teller

    return line_teller(tell, as_json, lambda turn: turn.told)


def close_on_signals(
    runtime: "Runtime",  # in whose process no new risk passes from then on
    stop: "Callable[[], object]",  # called in the signal handler: it may set a flag and no more
) -> None:
    "Let Ctrl-C and SIGTERM shut the door to new risk and ask for the end."
    from signal import SIGINT, SIGTERM, signal

    def end(*_: Any) -> None:
        runtime.switches.close("the engine's process is ending")
        stop()

    for each in (SIGINT, SIGTERM):
        signal(each, end)
