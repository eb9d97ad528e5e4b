"""`orbiquant serve`, `orbiquant service build`, `orbiquant report run | list | runs`"""

import os
import sys
from signal import SIGINT, signal
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from orbiquant.cli.console import TIMEFRAMES, AsJson, console, fields, open_runtime, progress_bar, show, table
from orbiquant.cli.endpoints import AloneOption, PackageOption

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from orbiquant.reports import Report
    from orbiquant.runtime import Runtime


WORKER = (sys.executable, "-m", "orbiquant.cli.worker")
service = typer.Typer(help="Generate the service, and manage who may call it.", no_args_is_help=True)


def serve_command(
    host: Annotated[str | None, typer.Option(help="Address to listen on; else the settings'.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="0: any free one; else the settings'.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that serve.")] = 1,
    work: Annotated[
        bool,
        typer.Option("--work/--no-work", help="Also trade, keep the schedule and do jobs, in a process beside it."),
    ] = True,
    export: Annotated[bool, typer.Option("--export", help="Run nbdev-export on your notebooks first.")] = False,
    package: PackageOption = None,
    alone: AloneOption = False,
) -> None:
    "Serve signals, analysis, market data, and what your own notebooks mark, over HTTP until interrupted."
    signal(SIGINT, end_at_once)  # until `serve` ends in its own way; nothing is begun that needs more
    say = console(stderr=True)

    runtime = open_runtime(service=True)
    tell = service_teller(runtime, say)

    def announce(address: str) -> None:
        place, _, token = address.partition("?")
        kept = bool(token) and runtime.settings.logging.json_lines  # in a log, which is collected
        shown = place if kept else address
        tell(f"Serving on {shown} (Ctrl-C ends it)")
        if not alone:
            tell(f"The dashboard is at {dashboard_of(shown)}")
        if kept:
            tell("No key is written into a log: `orbiquant service keys create NAME` makes one")
        if workers > 1 and not runtime.settings.redis.url:
            tell(f"Each of {workers} processes counts limits for itself: name a Redis in `[redis] url` to share them")

    from orbiquant.cli.choosing import chosen_app

    app = chosen_app(package, alone, export, tell)
    from orbiquant.service.crew import working
    from orbiquant.service.dashboard import dashboard_of
    from orbiquant.service.serving import leave, serve, serve_many

    beside = [working()] if work else []
    if workers > 1:
        serve_many(WORKER, {"package": package, "alone": alone}, workers, host, port, announce, beside)
    else:
        serve(app, host, port, announce, tell, beside)
    leave(0)


def service_teller(
    runtime: "Runtime",  # whose settings say what is logged
    say: "Console",  # where it is told, unless lines are collected
) -> "Callable[[str], None]":
    "Return what tells a line of a service, whose log is set up."
    from orbiquant.cli.follow import plain_teller, tell_at_once

    return tell_at_once(runtime, say) if runtime.settings.logging.json_lines else plain_teller(say)


def end_at_once(*_: Any) -> NoReturn:
    "End the process on Ctrl-C, wherever it stands: a library may drop what is raised while it is loaded."
    os.write(2, b"Interrupted.\n")
    os._exit(130)


@service.command("build")
def build_command(
    package: PackageOption = None,
    alone: AloneOption = False,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 when something is stale.")] = False,
    as_json: AsJson = False,
) -> None:
    "Generate app.py and openapi.json from the marked functions."
    from orbiquant.cli.choosing import project_here, refuse_ours
    from orbiquant.service.build import build_service

    project = project_here(package)
    if alone and project is None:
        raise refuse_ours("--alone")
    changes = build_service(check, project, alone)
    words = "is stale" if check else "was written"
    routes, named, api = changes.partition(f"--- {project.package if project else 'orbiquant'}/openapi.json\n")
    told = f"{routes}{named}{f'({len(api.splitlines()):,} lines)' if named else ''}" if project else changes
    view = f"{told.rstrip()}\nThe service {words}." if changes else "The service is up to date."
    show({"changed": bool(changes), "diff": changes}, as_json, lambda: view)
    if check and changes:
        raise typer.Exit(1)


reports = typer.Typer(help="Run report notebooks and find their pages.", no_args_is_help=True)


def split_parameters(
    pairs: list[str],  # "name=value" each
    option: str = "--param",  # that they were given with
) -> dict[str, str]:
    "Return `name=value` pairs as a dict; raise a usage error for another form and for a name that comes twice."
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name.strip() or not equals:
            raise typer.BadParameter(f"must be name=value, was {pair!r}", param_hint=option)
        if name.strip() in found:
            raise typer.BadParameter(f"must name {name.strip()!r} once, was given twice", param_hint=option)
        found[name.strip()] = value
    return found


def complete_report() -> list[str]:
    "Return the names of the reports, for the shell."
    from orbiquant.reports import list_reports

    return [report.name for report in list_reports()]


def plain_figures(
    metrics: dict[str, Any],  # as a report recorded them
) -> dict[str, Any]:
    "Return the figures and words among them, in words; lists and tables are for `--json` and the page."
    kept = {name: value for name, value in metrics.items() if not isinstance(value, dict | list) and value is not None}
    return {name.replace("_", " "): value for name, value in kept.items()}


def require_bars(
    runtime: "Runtime",  # whose store is asked
    report: "Report",  # which may need bars
    parameters: dict[str, str],  # as typed
) -> None:
    "Raise `NotFoundError` when a report needs bars that the store does not hold: before anything starts."
    from orbiquant.domain import SeriesId

    values = report.check(parameters)
    if report.needs_bars:
        for symbol in values["symbols"] if "symbols" in values else [values["symbol"]]:
            series = SeriesId.parse(symbol, values["timeframe"])
            runtime.store.read(series, start=runtime.clock.now(), version=values.get("version"))


ReportArgument = Annotated[
    str, typer.Argument(metavar="REPORT", help="As `report list` shows it.", autocompletion=complete_report)
]
ReportParamOption = Annotated[list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="May be repeated.")]
RunTimeout = Annotated[
    float | None, typer.Option(min=1, max=604_800, help="Seconds that one run may take; else the settings'.")
]


@reports.command("run")
def run_named_report(
    name: ReportArgument,
    symbol: Annotated[str | None, typer.Option(help="Short for --param symbol=…")] = None,
    timeframe: Annotated[
        str | None, typer.Option(help=f"Short for --param timeframe=…; one of {', '.join(TIMEFRAMES)}.")
    ] = None,
    param: ReportParamOption = None,
    timeout: RunTimeout = None,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Also print the page to report.pdf, where a browser is there.")
    ] = False,
    tell: Annotated[bool, typer.Option("--tell", help="Tell how it ended in the ways that [notices] names.")] = False,
    as_json: AsJson = False,
) -> None:
    "Run a report in a process of its own; exit 1 unless it succeeds."
    from orbiquant.core import LOCAL_USER
    from orbiquant.reports import find_report, run_report

    runtime = open_runtime()
    short = {"symbol": symbol, "timeframe": timeframe}
    parameters = split_parameters(
        [*(param or []), *(f"{key}={value}" for key, value in short.items() if value is not None)]
    )
    require_bars(runtime, find_report(name), parameters)
    with progress_bar(as_json, compiles=False) as progress:
        run = run_report(name, parameters, timeout_s=timeout, progress=progress, pdf=pdf)
    facts: dict[str, Any] = {
        "status": run.status.replace("_", " "),
        "page": run.html,
        "took": f"{run.duration_s:.1f} s",
    }
    if pdf:
        facts["pdf"] = run.pdf if run.pdf.exists() else "none was written, the page is there"
    if tell:
        from orbiquant.reports.tell import tell_report

        ways = tell_report(runtime, LOCAL_USER, "", run)
        facts["told by"] = ", ".join(ways) or "nothing: `[notices] channels` names no way, or `tell` no reports"
    if run.error:
        facts["error"] = f"{run.error.type}: {run.error.message}"
    files = {"html": str(run.html), "pdf": str(run.pdf) if run.pdf.exists() else None}
    show(
        run.model_dump(mode="json") | files,
        as_json,
        lambda: fields(facts | plain_figures(run.metrics)),
    )
    if run.status != "succeeded":
        raise typer.Exit(1)


@reports.command("list")
def show_reports(as_json: AsJson = False) -> None:
    "List the reports and what they take."
    from orbiquant.reports import list_reports

    found = list_reports()
    rows = [
        (report.name, report.summary or report.title, ", ".join(p.name for p in report.parameters)) for report in found
    ]
    show(found, as_json, lambda: table(rows, "report", "what it tells", "parameters"))


@reports.command("runs")
def show_runs(
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="The newest so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    "List runs, newest first."
    from orbiquant.reports import list_runs

    found = list_runs()[:limit]
    rows = [
        (run.id, run.status.replace("_", " "), run.started, run.duration_s, run.html if run.html.exists() else None)
        for run in found
    ]
    heads = ("run", "status", "started", ">seconds", "page")
    data = [run.model_dump(mode="json") | {"html": str(run.html)} for run in found]
    show(
        data, as_json, lambda: table(rows, *heads) if rows else "No runs yet. Start one: orbiquant report run research"
    )
