"""`orbiquant chat`: the copilot in a terminal."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orbiquant.cli.console import AsJson, console, open_runtime, show
from orbiquant.core import OrbiError

if TYPE_CHECKING:
    from rich.panel import Panel

    from orbiquant.copilot.loop import Copilot, TicketDecision
    from orbiquant.domain import Caller


LEAVING = frozenset({"exit", "quit", "/exit", "/quit"})
UNDECIDED = "Orders wait for a decision, which only a person at a terminal can give."
MOST_SHOWN = 160  # letters of a tool's result
SHOWN = (
    *("symbol", "action", "size", "price", "stop_loss", "take_profit", "risk_reward", "risk_percent", "risk_amount"),
    *("currency", "account_id", "confidence", "amd_phase", "override_reasons", "warnings"),
)


def ticket_panel(
    ticket: dict[str, Any],  # as faces draw it
) -> "Panel":
    "Return a proposed order for a person to look at."
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    grid, known = Table.grid(padding=(0, 2)), ticket["known"]
    if ticket.get("source") == "mcp":
        told = f'another program, over MCP, that calls itself "{known["program"]}": no words of yours asked for it'
        grid.add_row("proposed by", Text(told, style="bold"))
        grid.add_row("proposed at", Text(f"{ticket['proposed_at'][:16].replace('T', ' ')} UTC"))
    for name in SHOWN:
        if (value := known.get(name)) not in (None, "", [], {}):
            told = "; ".join(map(str, value)) if isinstance(value, list) else value
            grid.add_row(name.replace("_", " "), Text(f"{told:.6g}" if isinstance(told, float) else str(told)))
    if known.get("risk_reward") is None:
        grid.add_row("risk reward", "none: there is no target")
    if ticket["reason"]:
        grid.add_row("reason", Text(ticket["reason"]))
    if outcome := ticket.get("outcome"):
        grid.add_row("outcome", Text(outcome["message"]))
    return Panel(grid, title=f"Order ticket: {ticket['state']}", expand=False)


async def draw(
    events: AsyncIterator[dict[str, Any]],  # of a turn
) -> list[dict[str, Any]]:
    "Print a turn as it comes, and return the tickets that wait."
    screen, waiting, names = console(), {}, {}
    async for event in events:
        match event:
            case {"type": "text-delta", "delta": text}:
                print(text, end="", flush=True)
            case {"type": "text-end"}:
                print(flush=True)
            case {"type": "tool-input-available", "toolCallId": call, "toolName": name, "input": given}:
                names[call] = name
                told = ", ".join(f"{key} {value}" for key, value in (given or {}).items())
                screen.print(f"  {name}({told})", style="dim", markup=False, highlight=False)
            case {"type": "tool-output-available", "output": {"error": code, "message": said}}:
                screen.print(f"  {code}: {said}"[:MOST_SHOWN], style="dim yellow", markup=False, highlight=False)
            case {"type": "data-ticket", "data": ticket}:
                waiting[ticket["id"]] = ticket
            case {"type": "error", "errorText": text}:
                console(stderr=True).print(text, style="bold red", markup=False)
            case {"type": "abort"}:
                screen.print("  stopped", style="dim")
    for ticket in waiting.values():
        screen.print(ticket_panel(ticket))
    return [each for each in waiting.values() if each["state"] == "pending"]


def drop_typed_ahead() -> None:
    "Forget what was typed or pasted before a question was shown: it cannot be its answer."
    try:
        import termios
    except ImportError:  # Windows
        import msvcrt

        while msvcrt.kbhit():  # type: ignore[attr-defined]
            msvcrt.getch()  # type: ignore[attr-defined]
        return
    with suppress(termios.error, OSError, ValueError):  # no terminal: what is piped in decides nothing
        termios.tcflush(sys.stdin, termios.TCIFLUSH)


def ask_decision(
    ticket: dict[str, Any],  # that waits
) -> "TicketDecision":
    "Ask a person whether an order is meant; one that no signal speaks for is meant twice."
    from orbiquant.copilot.loop import TicketDecision

    drop_typed_ahead()
    if not typer.confirm("Place this order on the paper account?", default=False):
        return TicketDecision(approved=False, reason="the user said no")
    if not ticket["known"].get("needs_override"):
        return TicketDecision(approved=True)
    return ask_override("No signal speaks for it")


def ask_override(
    against: str,  # why it takes one
) -> "TicketDecision":
    "Ask a person whether an order is meant although something speaks against it."
    from orbiquant.copilot.loop import TicketDecision

    drop_typed_ahead()
    typed = typer.prompt(f"{against}. Type override to place it all the same", default="no")
    return TicketDecision(
        approved=typed == "override", override=typed == "override", reason="the user did not override"
    )


async def press(
    copilot: "Copilot",  # its tickets
    me: "Caller",  # who decides
    conversation: str,  # theirs
    tickets: list[dict[str, Any]],  # that wait
) -> None:
    "Ask a person about orders, once more where something has come to speak against one, and print what became of them."
    from orbiquant.copilot.tickets import OverrideRequired

    decisions = {each["id"]: ask_decision(each) for each in tickets}
    try:
        await draw(copilot.decide(me, conversation, decisions))
    except OverrideRequired as error:
        meant = ask_override("; ".join(error.details["reasons"]))
        again = {id_: meant if decision.approved else decision for id_, decision in decisions.items()}
        await draw(copilot.decide(me, conversation, again))


async def turn(
    copilot: "Copilot",  # that answers
    me: "Caller",  # who speaks
    conversation: str,  # which
    message: str,  # what is said
) -> None:
    "Print what is said to a message, and let a person decide on the orders that come of it."
    waiting = await draw(copilot.stream(me, conversation, message))
    if not waiting:
        return
    if not sys.stdin.isatty():
        console(stderr=True).print(UNDECIDED)
        return
    await press(copilot, me, conversation, waiting)


def waiting_tickets(
    copilot: "Copilot",  # its tickets
    me: "Caller",  # whose
    conversation: str,  # theirs
) -> list[dict[str, Any]]:
    "Return the orders that wait in a conversation, as faces draw them."
    from orbiquant.copilot.tickets import TicketBook

    book = TicketBook(copilot.runtime.engine, copilot.runtime.clock)
    return [each.shown for each in book.waiting(me.user_id, conversation)]


def decide_waiting(
    copilot: "Copilot",  # its tickets
    me: "Caller",  # who decides
    conversation: str,  # theirs
) -> None:
    "Show the orders that wait in a conversation, such as those of other programs, and let a person decide on each."
    for ticket in waiting_tickets(copilot, me, conversation):
        console().print(ticket_panel(ticket))
        if not sys.stdin.isatty():
            console(stderr=True).print(UNDECIDED)
            return
        asyncio.run(press(copilot, me, conversation, [ticket]))


def tell_elsewhere(
    copilot: "Copilot",  # its tickets
    me: "Caller",  # whose
    conversation: str,  # that is opened
) -> None:
    "Say where an order of another program waits."
    from orbiquant.copilot.mcp import MCP_CONVERSATION

    if conversation != MCP_CONVERSATION and waiting_tickets(copilot, me, MCP_CONVERSATION):
        told = f"An order that another program proposed waits: orbiquant chat --conversation {MCP_CONVERSATION}"
        console().print(told, style="bold", markup=False)


def try_to(
    act: Callable[[], None],  # of a talk
) -> None:
    "Do something that may be stopped or refused: the talk goes on."
    try:
        act()
    except KeyboardInterrupt:
        console().print("\n  stopped", style="dim")
    except OrbiError as error:
        console(stderr=True).print(error.message, style="bold red", markup=False)


def talk(
    copilot: "Copilot",  # that answers
    me: "Caller",  # who speaks
    conversation: str,  # which
) -> None:
    "Answer what a person types until they leave; Ctrl-C stops an answer, and at the prompt ends the talk."
    choice = copilot.runtime.chat_choice
    console().print(
        f"{choice.provider}: {choice.why}. Conversation {conversation}; /quit or Ctrl-D leaves.", style="dim"
    )
    tell_elsewhere(copilot, me, conversation)
    try_to(partial(decide_waiting, copilot, me, conversation))
    while True:
        try:
            message = input("> ").strip()
        except EOFError:
            print()
            return
        if message.lower() in LEAVING:
            return
        if message:
            try_to(lambda said=message: asyncio.run(turn(copilot, me, conversation, said)))  # type: ignore[misc]


def chat_command(
    message: Annotated[str | None, typer.Argument(metavar="MESSAGE", help="Left out: a talk begins.")] = None,
    conversation: Annotated[str, typer.Option(metavar="NAME", help="Which conversation goes on.")] = "console",
    as_json: AsJson = False,
) -> None:
    "Ask the copilot: it answers with its tools, in Spanish or English; an order waits for your decision."
    from orbiquant.copilot.assembly import copilot_of
    from orbiquant.domain import local_caller

    me, copilot = local_caller(), copilot_of(open_runtime())
    if message is None:
        talk(copilot, me, conversation)
    elif as_json:
        show(asyncio.run(copilot.answer(me, conversation, message)), as_json, str)
    else:
        asyncio.run(turn(copilot, me, conversation, message))
