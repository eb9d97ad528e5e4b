"""`orbiquant mcp`: the copilot's tools for other programs, over the Model Context Protocol."""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from signal import SIGINT, signal
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orbiquant.cli.console import AsJson, console, open_runtime, show, table
from orbiquant.cli.mcp_wire import claim_wire
from orbiquant.cli.serving import end_at_once

if TYPE_CHECKING:
    from orbiquant.copilot.mcp import McpOffer
    from orbiquant.domain import Caller

HTTP_PORT = 8004  # beside the service's
LONGEST_USER = 100
ALONE = "Programs speak here, not people: `orbiquant mcp --config claude` prints how an application starts this; Ctrl-C ends."


def speak(
    offer: "McpOffer",  # what is switched on
    owner: "Caller",  # who is behind every call
) -> None:
    "Serve one program over standard input and output, until it closes them."
    wire: Any = claim_wire()
    from orbiquant.copilot.mcp import mcp_server
    from orbiquant.service.serving import leave

    server = mcp_server(open_runtime(), offer, lambda _: owner)

    async def serve() -> None:
        from mcp.server.stdio import stdio_server

        async with stdio_server(wire, wire) as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())

    try:
        asyncio.run(serve())
    except* OSError:  # the program is gone
        leave(0)
    leave(0)  # a call that still computes has nobody to answer


def settings_for(
    application: str,  # whose settings they are for
    switches: list[str],  # of this command
) -> dict[str, Any]:
    "Return what an application's settings take to start the server."
    from orbiquant.workspace import workspace

    beside = Path(sys.executable).with_name("orbiquant")
    command = str(beside) if beside.exists() else "orbiquant"
    server: dict[str, Any] = {"command": command, "args": ["mcp", *switches]}
    server |= {"env": {"ORBIQUANT_HOME": str(workspace())}}
    if application == "vscode":
        return {"servers": {"orbiquant": {"type": "stdio"} | server}}
    return {"mcpServers": {"orbiquant": server}}


def mcp_command(
    write: Annotated[bool, typer.Option("--write", help="Let programs set alerts and queue jobs.")] = False,
    trade: Annotated[bool, typer.Option("--trade", help="Let programs propose orders, which you decide on.")] = False,
    plan: Annotated[Literal["free", "pro", "premium"] | None, typer.Option(help="Nobody has a higher one.")] = None,
    user: Annotated[str | None, typer.Option(metavar="NAME", help="On whose behalf, over stdio; else yours.")] = None,
    http: Annotated[bool, typer.Option("--http", help="Serve over HTTP, with a token or API keys.")] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on; else 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help=f"0: any free one; else {HTTP_PORT}.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Print what would be offered.")] = False,
    config: Annotated[
        Literal["claude", "cursor", "vscode"] | None, typer.Option(help="Print what an application's settings take.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    "Offer the copilot's tools to other programs over MCP: they read, unless you allow more; no order follows from it."
    from orbiquant.copilot.mcp import McpOffer

    offer = McpOffer(write=write, trade=trade, plan=plan)
    if not http and (host is not None or port is not None):
        raise typer.BadParameter("--host and --port go with --http")
    if http and user is not None:
        raise typer.BadParameter("--user goes without --http: there the key says who calls")
    if sum((http, listed, config is not None)) > 1:
        raise typer.BadParameter("--http, --list and --config stand alone")
    if as_json and not (listed or config):
        raise typer.BadParameter("--json goes with --list or --config")
    owner = speaker(user)
    if listed:
        show_offered(offer, owner, as_json)
    elif config is not None:
        given = [*(["--write"] if write else []), *(["--trade"] if trade else []), *(["--plan", plan] if plan else [])]
        told = settings_for(config, [*given, *(["--user", user] if user else [])])
        show(told, True, str)
    elif http:
        serve_over_http(offer, host or "127.0.0.1", HTTP_PORT if port is None else port)
    else:
        if sys.stdin is not None and sys.stdin.isatty():
            console(stderr=True).print(ALONE, markup=False)
        signal(SIGINT, end_at_once)  # a thread that waits for input cannot be interrupted
        speak(offer, owner)


def speaker(
    user: str | None,  # as it was typed; None: whoever sits at this machine
) -> "Caller":
    "Return who is behind every call over stdio."
    from orbiquant.domain import local_caller

    if user is not None and not (len(user) <= LONGEST_USER and user.isprintable()):
        raise typer.BadParameter(f"must be 1 to {LONGEST_USER} printable characters", param_hint="--user")
    me = local_caller("mcp")
    return me if user is None else replace(me, user_id=user)


def show_offered(
    offer: "McpOffer",  # what is switched on
    owner: "Caller",  # who would call
    as_json: bool,  # print it as JSON
) -> None:
    "Print the tools that would be listed."
    from orbiquant.copilot.mcp import callable_tools

    found = callable_tools(offer, owner)
    told = [
        {"name": each.name, "effect": each.info.effect, "plan": each.info.plan, "description": each.description}
        for each in found
    ]
    rows = [tuple(each.values()) for each in told]
    show(told, as_json, lambda: table(rows, "tool", "does", "plan", "what it tells"))


def serve_over_http(
    offer: "McpOffer",  # what is switched on
    host: str,  # address to listen on
    port: int,  # 0: any free one
) -> None:
    "Serve until interrupted."
    from orbiquant.core import require_library

    require_library("mcp", "mcp")
    from orbiquant.service.mcp_http import serve_mcp
    from orbiquant.service.serving import leave

    open_runtime(service=True)
    say = console(stderr=True)

    def announce(address: str, token: str | None) -> None:
        say.print(f"Serving MCP on {address} (Ctrl-C ends it)", markup=False, soft_wrap=True)
        said = f"Token: {token}" if token else "API keys say who calls"
        say.print(f"{said}; sent as `Authorization: Bearer …`", markup=False, soft_wrap=True)

    signal(SIGINT, end_at_once)  # until `serve_mcp` ends in its own way
    serve_mcp(offer, host, port, announce)
    leave(0)
