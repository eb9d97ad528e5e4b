"""`orbiquant kill`: what a person types when trading must stop at once."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orbiquant.cli.console import AsJson, show, table
from orbiquant.cli.ending import complain

if TYPE_CHECKING:
    from orbiquant.settings import Settings
    from orbiquant.trading.kills import Kill, SwitchScope
    from orbiquant.trading.switches import Switches


def load_or_none() -> "Settings | None":
    "Return the settings; None, with a note, where a mistake in them must not keep anybody from stopping."
    from orbiquant.core import SettingsError
    from orbiquant.settings import load_settings

    try:
        return load_settings()
    except SettingsError as error:
        complain(f"Note: the settings cannot be read, so the usual folder is taken: {error}")
        return None


def switch_folder(
    settings: "Settings | None",  # in force
) -> Path:
    "Return where the files of the switches lie."
    from orbiquant.workspace import workspace

    data = settings.path(settings.workspace.data_dir) if settings else workspace() / "data"
    return data / "switches"


def open_switches(
    settings: "Settings | None",  # in force
) -> "Switches":
    "Return the switches; a database that is not made yet is left so."
    from orbiquant.core import SystemClock
    from orbiquant.persistence import database_made, engine
    from orbiquant.trading.switches import Switches

    url = settings and settings.workspace.database_url
    opened = engine(url) if url and database_made(url) else None
    return Switches(opened, switch_folder(settings), SystemClock())


def choose_switch(
    agent: str | None,  # one of them
    account: str | None,  # or one of those
    everybody: bool,  # or all
) -> "tuple[SwitchScope, str]":
    "Return which switch is meant; refuse none and several."
    from orbiquant.trading.kills import name_switch

    if (agent is not None) + (account is not None) + everybody != 1:
        raise typer.BadParameter("give one of --agent NAME, --account NAME or --all")
    return name_switch(agent, account, everybody)


def tell_kill(
    kill: "Kill",  # that stands
) -> dict[str, Any]:
    "Return a kill as JSON takes it."
    at = kill.at.isoformat() if kill.at else None
    told = {"scope": kill.scope.value, "name": kill.name, "who": kill.who, "why": kill.why, "at": at}
    return told | {"flatten": kill.flatten, "places": list(kill.places)}


def user_name() -> str:
    "Return who types, as far as the machine knows."
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return f"user {os.getuid()}"


def show_status(
    as_json: bool,  # print it as JSON
) -> None:
    "Print everything that is killed."
    stands = open_switches(load_or_none()).all()
    rows = [(kill.whom, kill.who, f"{kill.at or ''}"[:19], kill.why, ", ".join(kill.places)) for kill in stands]
    show(
        [tell_kill(kill) for kill in stands],
        as_json,
        lambda: table(rows, "killed", "by", "at (UTC)", "why", "stands in") if rows else "Nothing is killed.",
    )


def throw_switch(
    scope: "SwitchScope",  # of the switch
    name: str,  # of the agent or the account; "" of all
    why: str,  # for the journal
    flatten: bool,  # also close what is held
    as_json: bool,  # print the result as JSON
) -> None:
    "Make the file first and say so, then tell the database, as far as it answers."
    from orbiquant.core import SystemClock
    from orbiquant.trading.kills import Kill, SwitchFiles

    settings = load_or_none()
    kill = Kill(scope, name, user_name(), why, SystemClock().now(), flatten)
    said = f"{kill.whom} is killed: no order that adds risk goes out any more; protective stops stay"
    said += ", what is held is closed" if flatten else ""
    try:
        SwitchFiles(switch_folder(settings)).write(kill)
        if not as_json:
            print(f"{said[0].upper()}{said[1:]}.", flush=True)
    except OSError as error:
        complain(f"Note: the file of the switch cannot be made ({error.strerror}), the database is asked")
    thrown = open_switches(settings).throw(kill)
    again = " ".join(filter(None, ("--" + scope.value, name)))
    show(
        tell_kill(thrown),
        as_json,
        lambda: f"It stands in: {', '.join(thrown.places)}; until `orbiquant kill --lift {again} --why …`.",
    )


def kill_command(
    context: typer.Context,
    agent: Annotated[str | None, typer.Option("--agent", metavar="NAME", help="Stop this agent.")] = None,
    account: Annotated[str | None, typer.Option("--account", metavar="NAME", help="Stop all on this account.")] = None,
    everybody: Annotated[bool, typer.Option("--all", help="Stop everybody.")] = False,
    why: Annotated[str | None, typer.Option(metavar="TEXT", help="For the journal; needed but for --status.")] = None,
    flatten: Annotated[bool, typer.Option("--flatten", help="Also close what is held, by orders that reduce.")] = False,
    lift: Annotated[bool, typer.Option("--lift", help="Let trade again what was killed.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Print what is killed.")] = False,
    as_json: AsJson = False,
) -> None:
    "Stop all new risk of an agent, an account or everybody, until a person lifts it; --status prints what stands."
    if context.args:
        first = context.args[0]
        told = f"--agent {first}, --account {first} or --all" if not first.startswith("-") else "see --help"
        raise typer.BadParameter(f"{first!r} alone does not say whom: {told}")
    if status:
        if lift or flatten or why is not None or everybody or agent is not None or account is not None:
            raise typer.BadParameter("--status stands alone")
        show_status(as_json)
        return
    scope, name = choose_switch(agent, account, everybody)
    if not (why or "").strip():
        raise typer.BadParameter("--why TEXT is needed: it is what the journal says")
    if not lift:
        throw_switch(scope, name, str(why), flatten, as_json)
        return
    if flatten:
        raise typer.BadParameter("--lift closes nothing: it goes without --flatten")
    from orbiquant.settings import load_settings

    lifted = open_switches(load_settings()).lift(scope, name, who=user_name(), why=str(why))
    show(tell_kill(lifted), as_json, lambda: f"{lifted.whom[0].upper()}{lifted.whom[1:]} may trade again.")
