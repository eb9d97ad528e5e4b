"""`orbiquant`: the tree of commands."""

import re
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from orbiquant.cli.console import AsJson, show, table
from orbiquant.cli.ending import run

from . import (  # noqa: F401
    accounts,
    agents,
    alerts,
    backup,
    batches,
    chat,
    claims,
    endpoints,
    follow,
    imports,
    jobs,
    keys,
    kill,
    ledger,
    llm,
    llm_eval,
    llm_tune,
    mcp,
    models,
    portfolio,
    replays,
    research,
    schedules,
    serving,
    sweep,
    telegram,
    vacuum,
    warmup,
    work,
    workspace,
)

program = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
settings = typer.Typer(help="Look at the settings.", no_args_is_help=True)


def print_version(
    asked: bool,  # `--version` was given
) -> None:
    "Print the version and end."
    if asked:
        from orbiquant.core import code_version

        print(f"orbiquant {code_version()}", flush=True)
        raise typer.Exit


@program.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and end.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; stands anywhere.")] = False,
) -> None:
    "From bars to a served signal: data, models, backtests, reports, service."


@program.command()
def version(as_json: AsJson = False) -> None:
    "Print the version of the code."
    from orbiquant.core import code_version

    show({"version": code_version(), "python": sys.version.split()[0]}, as_json, code_version)


@program.command()
def doctor(as_json: AsJson = False) -> None:
    "Look at everything a command needs; exit 1 when there is a problem."
    from orbiquant.cli.doctor import examine_installation

    findings = examine_installation()
    show(
        [finding._asdict() for finding in findings],
        as_json,
        lambda: table(((f.name, f.status, f.detail) for f in findings), "what", "status", "detail"),
    )
    if any(finding.status == "problem" for finding in findings):
        raise typer.Exit(1)


@settings.command("show")
def show_settings(
    section: Annotated[str | None, typer.Argument(help="Only this section.")] = None, as_json: AsJson = False
) -> None:
    "Print the settings in force: defaults, settings.ini, .env and environment together."
    from orbiquant.core import choose
    from orbiquant.settings import load_settings

    merged = load_settings().model_dump(mode="json")
    chosen = {choose("section", section, merged): merged[section]} if section else merged
    shown = {name: {key: hide_password(value) for key, value in keys.items()} for name, keys in chosen.items()}
    rows = ((name, key, value) for name, keys in shown.items() for key, value in keys.items())
    show(
        shown,
        as_json,
        lambda: table(
            ((a, b, ", ".join(map(str, c)) if isinstance(c, list) else str(c)) for a, b, c in rows),
            "section",
            "key",
            "value",
        ),
    )


def hide_password(
    value: object,  # a setting, or the list that one is
) -> object:
    "Return a setting with the passwords of URLs left out."
    if isinstance(value, list | tuple):
        return [hide_password(each) for each in value]
    return re.sub(r"(?<=://)([^/@:]*):[^@]*@", r"\1:***@", value) if isinstance(value, str) else value


program.add_typer(settings, name="settings")
program.add_typer(imports.data_commands, name="data")
program.add_typer(jobs.job_commands, name="jobs")
program.add_typer(models.model_commands, name="models")
program.add_typer(agents.agent_commands, name="agent")
program.add_typer(alerts.alert_commands, name="alert")
program.add_typer(claims.audit_commands, name="audit")
program.add_typer(serving.reports, name="report")
program.add_typer(accounts.account_commands, name="account")
program.add_typer(ledger.ledger_commands, name="ledger")
program.add_typer(llm.llm_commands, name="llm")
program.add_typer(portfolio.portfolio_commands, name="portfolio")
serving.service.add_typer(keys.key_commands, name="keys")
serving.service.command("token")(keys.token_command)
program.add_typer(serving.service, name="service")
program.add_typer(backup.backup_commands, name="backup")
program.add_typer(backup.database_commands, name="database")
program.add_typer(endpoints.endpoints, name="endpoint")
program.command("init")(workspace.init)
program.command("demo")(research.demo)
program.command("train")(models.train_command)
program.command("backtest")(research.backtest_command)
program.command("sweep")(sweep.sweep_command)
program.command("serve")(serving.serve_command)
program.command("chat")(chat.chat_command)
program.command("telegram")(telegram.telegram_command)
program.command("mcp")(mcp.mcp_command)
program.command("warmup")(warmup.warmup)
program.command("work")(work.work_alone)
program.command("kill", context_settings={"allow_extra_args": True})(kill.kill_command)


def run_words(
    words: Sequence[str] | None = None,  # what was typed after `orbiquant`; None: as it was
) -> NoReturn:
    "Run the command that was typed and exit."
    run(program, sys.argv[1:] if words is None else words)
