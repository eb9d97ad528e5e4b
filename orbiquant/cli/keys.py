"""`orbiquant service keys create | list | revoke | rotate`, `orbiquant service token`"""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orbiquant.cli.console import AsJson, open_runtime, show, table
from orbiquant.cli.ending import complain

if TYPE_CHECKING:
    from datetime import datetime

    from orbiquant.runtime import Runtime


key_commands = typer.Typer(help="API keys; only their hashes are stored.", no_args_is_help=True)
Prefix = Annotated[str, typer.Argument(help='The eight characters after "oq_".')]
Expires = Annotated[
    str | None, typer.Option(metavar="WHEN", help="When it ends: 12h, 90d, 8w, 2027-01-31; else when it is revoked.")
]
PlanOption = Annotated[Literal["free", "pro", "premium"], typer.Option(help="What it may use.")]
ScopeOption = Annotated[
    list[str] | None, typer.Option(help="What it may do: read, write, trade, operate, act_for; may be repeated.")
]


def moment_of(
    runtime: "Runtime",  # its clock
    text: str | None,  # as it was typed
) -> "datetime | None":
    "Return when something ends, None where nothing was said."
    from orbiquant.service.keys import read_expiry

    return None if text is None else read_expiry(text, runtime.clock.now())


def scopes_of(
    given: list[str] | None,  # as they were typed
) -> list[str]:
    "Return the scopes that are meant; refuse, in the words of the option, what is none."
    from orbiquant.core import SCOPES, choose

    for each in given or []:
        if "," in each or " " in each.strip():
            told = " ".join(f"--scope {part}" for part in each.replace(",", " ").split())
            raise typer.BadParameter(f"takes one at a time: {told}", param_hint="--scope")
        choose("--scope", each, SCOPES)
    return given or ["read"]


@key_commands.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What it is for, e.g. dashboard.")],
    user: Annotated[str, typer.Option(help="Whose requests it carries.")] = "owner",
    plan: PlanOption = "premium",
    scope: ScopeOption = None,
    expires: Expires = None,
    as_json: AsJson = False,
) -> None:
    "Make an API key and print it; it cannot be shown again."
    from orbiquant.service.keys import create_api_key

    runtime = open_runtime()
    ends = moment_of(runtime, expires)
    key = create_api_key(runtime.engine, name, user, plan, scopes_of(scope), runtime.clock, ends)
    show({"name": name, "key": key, "expires_at": ends}, as_json, lambda: key)
    if not as_json:
        complain("Keep it: it is not shown again.")


@key_commands.command("list")
def list_keys(as_json: AsJson = False) -> None:
    "List every key there ever was."
    from orbiquant.service.keys import list_api_keys

    found = list_api_keys(open_runtime().engine)
    rows = [
        (
            k.name,
            k.prefix,
            k.user_id,
            k.plan,
            ", ".join(k.scopes),
            k.created_at,
            k.last_used_at,
            k.expires_at,
            k.revoked_at,
        )
        for k in found
    ]
    heads = ("name", "prefix", "user", "plan", "scopes", "made", "last used", "expires", "revoked")
    show(
        found, as_json, lambda: table(rows, *heads) if rows else "No keys. Make one: orbiquant service keys create NAME"
    )


@key_commands.command("revoke")
def revoke_key(
    prefix: Prefix,
    as_json: AsJson = False,
) -> None:
    "End a key for good."
    from orbiquant.service.keys import revoke_api_key

    runtime = open_runtime()
    revoke_api_key(runtime.engine, prefix, runtime.clock)
    show({"prefix": prefix, "revoked": True}, as_json, lambda: f"{prefix} is revoked.")


@key_commands.command("rotate")
def rotate_key(
    prefix: Prefix,
    grace: Annotated[
        str, typer.Option(metavar="SPAN", help="How long the old key stays in force: 0, 12h, 7d, 2w.")
    ] = "24h",
    expires: Expires = None,
    as_json: AsJson = False,
) -> None:
    "Make a key with the rights of an old one, which ends a while later; print it, once."
    from orbiquant.service.keys import read_grace, rotate_api_key

    runtime = open_runtime()
    key = rotate_api_key(runtime.engine, prefix, runtime.clock, read_grace(grace), moment_of(runtime, expires))
    show({"prefix": prefix, "key": key, "grace": grace}, as_json, lambda: key)
    if not as_json:
        complain(f"Keep it: it is not shown again. The old one ends in {grace}, or when it would have ended anyway.")


def token_command(
    user: Annotated[str, typer.Argument(help="Who comes with it.")],
    plan: PlanOption = "free",
    scope: ScopeOption = None,
    minutes: Annotated[int, typer.Option(min=1, max=527_040, help="How long it is good.")] = 15,
    as_json: AsJson = False,
) -> None:
    "Sign a token (JWT) with the secret of [tokens] and print it: for tests, and for a backend of one's own."
    from datetime import timedelta

    from orbiquant.service.tokens import mint_token

    runtime = open_runtime()
    lasts, tokens = timedelta(minutes=minutes), runtime.settings.tokens
    token = mint_token(tokens, user, plan, scopes_of(scope), runtime.clock, lasts)
    show({"user": user, "token": token, "expires_in_s": 60 * minutes}, as_json, lambda: token)
