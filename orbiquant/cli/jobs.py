"""`orbiquant jobs list | add | remove | enable | disable | run | history | work`"""

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orbiquant.cli.console import AsJson, console, fields, open_runtime, show, table
from orbiquant.cli.follow import line_teller, until_interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from orbiquant.jobs.records import JobRun
    from orbiquant.runtime import Runtime


job_commands = typer.Typer(help="What runs by itself, and when.", no_args_is_help=True)
JobName = Annotated[str, typer.Argument(metavar="NAME", help="Of the job, as `jobs list` shows it.")]
HandlerArguments = Annotated[
    list[str] | None,
    typer.Option("--arg", metavar="NAME=VALUE", help="An argument of the handler; JSON or text; may be repeated."),
]
MOST_RUNS = 10_000  # shown at once


def open_jobs() -> "Runtime":
    "Return this process's runtime, with every handler known."
    import orbiquant.copilot.retention
    import orbiquant.desk.agents
    import orbiquant.desk.alerts
    import orbiquant.desk.jobs
    import orbiquant.desk.periods
    import orbiquant.desk.rebalance
    import orbiquant.desk.research_tools
    import orbiquant.reports.api  # noqa: F401 - they register what they define

    return open_runtime()


def read_arguments(
    pairs: list[str] | None,  # "name=value" each
) -> dict[str, Any]:
    "Return arguments by name: a value that is JSON as what it says, any other as text."
    from orbiquant.cli.serving import split_parameters

    found: dict[str, Any] = {}
    for name, value in split_parameters(pairs or []).items():
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def tell_end(
    run: "JobRun",  # as it ended
) -> str:
    "Return how a run ended, in one cell."
    said: Any = run.error or run.result
    if isinstance(said, dict):
        said = said.get("message") or said.get("told") or ", ".join(f"{key} {value}" for key, value in said.items())
    return "" if said is None else str(said)[:200]


@job_commands.command("list")
def show_jobs(as_json: AsJson = False) -> None:
    "List the jobs that are scheduled, and when each is due next."
    from orbiquant.jobs.schedule import list_jobs

    found = list_jobs(open_jobs().engine)
    rows = [
        (
            j.name,
            j.handler,
            j.schedule,
            j.zone,
            j.next_due if j.enabled else "disabled",
            j.missed,
            json.dumps(j.arguments),
        )
        for j in found
    ]
    heads = ("job", "handler", "schedule", "zone", "next due (UTC)", "missed", "arguments")
    empty = "Nothing is scheduled. Schedule something: orbiquant jobs add --help"
    show(found, as_json, lambda: table(rows, *heads) if rows else empty)


@job_commands.command("add")
def add_job(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the job is called.")],
    handler: Annotated[str, typer.Argument(metavar="HANDLER", help="What it does, e.g. data.follow.")],
    schedule: Annotated[
        str, typer.Option(help='Five fields of cron ("5 * * * *"), @hourly, @daily, @weekly, @monthly or "@every 5m".')
    ],
    zone: Annotated[str, typer.Option(help="Whose clock cron is read on: UTC, Europe/Madrid.")] = "UTC",
    missed: Annotated[
        Literal["skip", "once", "all"], typer.Option(help="What happens to due times that passed while nobody worked.")
    ] = "once",
    arg: HandlerArguments = None,
    as_json: AsJson = False,
) -> None:
    "Schedule a job, in the place of one of that name."
    from orbiquant.jobs.cron import Schedule
    from orbiquant.jobs.schedule import schedule_job

    runtime = open_jobs()
    when = Schedule.parse(schedule, zone)
    made = schedule_job(runtime.engine, name, handler, when, runtime.clock, read_arguments(arg), missed)
    facts = {"job": made.name, "handler": made.handler, "schedule": f"{made.schedule} ({made.zone})"}
    show(made, as_json, lambda: fields(facts | {"next due (UTC)": made.next_due}))


@job_commands.command("remove")
def remove_named(name: JobName, as_json: AsJson = False) -> None:
    "Schedule a job no more; its history stays."
    from orbiquant.jobs.schedule import remove_job

    gone = remove_job(open_jobs().engine, name)
    show(gone, as_json, lambda: f"{gone.name} is scheduled no more.")


@job_commands.command("enable")
def enable_named(name: JobName, as_json: AsJson = False) -> None:
    "Let a job be due again, from now on."
    switch(name, True, as_json)


@job_commands.command("disable")
def disable_named(name: JobName, as_json: AsJson = False) -> None:
    "Let a job be due no more until it is enabled."
    switch(name, False, as_json)


def switch(
    name: str,  # of the job
    enabled: bool,  # to be
    as_json: bool,  # for a script
) -> None:
    "Enable or disable a job, and say when it is due."
    from orbiquant.jobs.schedule import enable_job

    runtime = open_jobs()
    made = enable_job(runtime.engine, name, enabled, runtime.clock)
    said = f"is due at {made.next_due:%Y-%m-%d %H:%M} UTC" if enabled else "is due no more until it is enabled"
    show(made, as_json, lambda: f"{made.name} {said}.")


@job_commands.command("run")
def run_named(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of a scheduled job, or of a handler.")],
    arg: HandlerArguments = None,
    as_json: AsJson = False,
) -> None:
    "Run a job now, in this process; exit 1 unless it is done."
    from orbiquant.jobs.handlers import find_handler
    from orbiquant.jobs.schedule import list_jobs
    from orbiquant.jobs.work import run_now

    runtime = open_jobs()
    known = {job.name: job for job in list_jobs(runtime.engine)}.get(name)
    handler = find_handler(known.handler if known else name)
    arguments = (known.arguments if known else {}) | read_arguments(arg)
    run = run_now(runtime.engine, handler, arguments, runtime.clock, runtime)
    facts = {"run": run.id, "status": run.status, "said": tell_end(run)}
    show(run, as_json, lambda: fields(facts))
    if run.status != "done":
        raise typer.Exit(1)


@job_commands.command("history")
def show_history(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only of this job.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MOST_RUNS, help="The newest so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    "List runs, newest first: when they were due, how they ended."
    from orbiquant.jobs.records import list_job_runs

    found = list_job_runs(open_jobs().engine, name, limit)
    rows = [(r.job or r.handler, r.due_at, r.status, seconds_of(r), r.attempt, tell_end(r)) for r in found]
    heads = ("job", "due (UTC)", "status", ">seconds", ">attempt", "said")
    show(found, as_json, lambda: table(rows, *heads) if rows else "No runs yet.")


def seconds_of(
    run: "JobRun",  # begun or not
) -> float | None:
    "Return how many seconds a run took; None for one that has not ended."
    if run.started_at is None or run.finished_at is None:
        return None
    return (run.finished_at - run.started_at).total_seconds()


def run_teller(
    tell: "Callable[[str], None]",  # tells one line
    as_json: bool,  # as one line of JSON on standard output instead
) -> "Callable[[JobRun], None]":
    "Return what tells a run as it ended."

    def line(run: "JobRun") -> str:
        return f"{run.job or run.handler}, due {run.due_at:%Y-%m-%d %H:%M:%S}: {run.status} {tell_end(run)}".strip()

    return line_teller(tell, as_json, line)


def work_until_interrupted(
    at_once: int,  # long jobs, each on a thread of its own
    as_json: bool,  # each run as one line of JSON on standard output
    saying: str,  # told when it begins
    only: str | None = None,  # the handler whose jobs are done; None: all
) -> None:
    "Do what is due and what is asked for, until interrupted."
    from orbiquant.jobs.work import Worker, ending_on_signals

    runtime = open_jobs()
    with until_interrupted(runtime, console(stderr=True)) as tell:
        worker = Worker(runtime.engine, runtime, runtime.clock, at_once, tell=run_teller(tell, as_json), only=only)
        with ending_on_signals(lambda: setattr(worker, "asked", True)):
            tell(saying)
            worker.work()


@job_commands.command("work")
def work_command(
    threads: Annotated[int, typer.Option(min=0, max=64, help="Long jobs at once.")] = 2,
    as_json: AsJson = False,
) -> None:
    "Run what is due and what is asked for, until interrupted."
    work_until_interrupted(threads, as_json, "Working (Ctrl-C ends it when what runs has ended, a second one at once)")
