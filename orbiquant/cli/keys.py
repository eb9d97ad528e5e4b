"""`orbiquant service keys`"""

from typing import Annotated, Literal

import typer

from orbiquant.cli.console import AsJson, open_runtime, show, table

key_commands = typer.Typer(help="API keys; only their hashes are stored.", no_args_is_help=True)


@key_commands.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What it is for, e.g. dashboard.")],
    user: Annotated[str, typer.Option(help="Whose requests it carries.")] = "owner",
    plan: Annotated[Literal["free", "pro", "premium"], typer.Option(help="What it may use.")] = "premium",
    scope: Annotated[
        list[str] | None, typer.Option(help="What it may do: read, write, trade, operate, act_for; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    "Make an API key and print it; it cannot be shown again."
    from orbiquant.service.keys import create_api_key

    runtime = open_runtime()
    key = create_api_key(runtime.engine, name, user, plan, scope or ["read"], runtime.clock)
    show({"name": name, "key": key}, as_json, lambda: f"{key}\nKeep it: it is not shown again.")


@key_commands.command("list")
def list_keys(as_json: AsJson = False) -> None:
    "List every key there ever was."
    from orbiquant.service.keys import list_api_keys

    found = list_api_keys(open_runtime().engine)
    rows = [
        (k.name, k.prefix, k.user_id, k.plan, ", ".join(k.scopes), k.created_at, k.last_used_at, k.revoked_at)
        for k in found
    ]
    heads = ("name", "prefix", "user", "plan", "scopes", "made", "last used", "revoked")
    show(
        found, as_json, lambda: table(rows, *heads) if rows else "No keys. Make one: orbiquant service keys create NAME"
    )


@key_commands.command("revoke")
def revoke_key(
    prefix: Annotated[str, typer.Argument(help='The eight characters after "oq_".')],
    as_json: AsJson = False,
) -> None:
    "End a key for good."
    from orbiquant.service.keys import revoke_api_key

    runtime = open_runtime()
    revoke_api_key(runtime.engine, prefix, runtime.clock)
    show({"prefix": prefix, "revoked": True}, as_json, lambda: f"{prefix} is revoked.")
