"""`orbiquant report schedule add | list | remove | run-due | daemon`"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orbiquant.cli.console import AsJson, console, fields, show, table
from orbiquant.cli.follow import plain_teller
from orbiquant.cli.jobs import JobName, open_jobs, run_teller, tell_end, work_until_interrupted
from orbiquant.cli.serving import ReportParamOption, ReportArgument, RunTimeout, reports, require_bars, split_parameters

if TYPE_CHECKING:
    from orbiquant.jobs.records import JobRun
    from orbiquant.jobs.schedule import ScheduledJob

schedules = typer.Typer(help="Reports that run by themselves.", no_args_is_help=True)
reports.add_typer(schedules, name="schedule")
HANDLER = "report.run"


def report_line(
    job: "ScheduledJob",  # that runs a report
    last: "JobRun | None",  # its newest run
) -> tuple[Any, ...]:
    "Return the row of a schedule."
    given: Any = job.arguments["parameters"]
    words = ", ".join(f"{name}={value}" for name, value in given.items())
    due = job.next_due if job.enabled else "disabled"
    told = f"{last.status} {tell_end(last)}".strip() if last else ""
    return job.name, job.arguments["name"], words, job.schedule, job.zone, due, job.missed, told


@schedules.command("add")
def add_schedule(
    name: JobName,
    report: ReportArgument,
    schedule: Annotated[
        str, typer.Option(help='Five fields of cron ("30 6 * * 1-5"), @daily, @weekly, @monthly or "@every 6h".')
    ],
    zone: Annotated[str, typer.Option(help="Whose clock cron is read on: UTC, Europe/Madrid.")] = "UTC",
    missed: Annotated[
        Literal["skip", "once", "all"], typer.Option(help="What happens to due times that passed while nobody worked.")
    ] = "once",
    param: ReportParamOption = None,
    tries: Annotated[int, typer.Option(min=1, max=10, help="So often at most, until it succeeds.")] = 1,
    timeout: RunTimeout = None,
    as_json: AsJson = False,
) -> None:
    "Run a report by itself from now on, in the place of a schedule of that name."
    from orbiquant.core import LOCAL_USER
    from orbiquant.jobs.cron import Schedule
    from orbiquant.jobs.schedule import schedule_job
    from orbiquant.reports import find_report

    runtime, found, when = open_jobs(), find_report(report), Schedule.parse(schedule, zone)
    parameters = split_parameters(param or [])
    require_bars(runtime, found, parameters)
    told = {"user_id": LOCAL_USER, "name": found.name, "parameters": parameters, "tries": tries, "timeout_s": timeout}
    made = schedule_job(runtime.engine, name, HANDLER, when, runtime.clock, told, missed)
    facts = {"schedule": made.name, "report": found.name, "due": f"{made.schedule} ({made.zone})"}
    show(made, as_json, lambda: fields(facts | {"next due (UTC)": made.next_due}))


@schedules.command("list")
def list_schedules(as_json: AsJson = False) -> None:
    "List the reports that run by themselves: when each is due next, and how it ended last."
    from orbiquant.jobs.records import list_job_runs
    from orbiquant.jobs.schedule import list_jobs

    engine = open_jobs().engine
    found = [job for job in list_jobs(engine) if job.handler == HANDLER]
    rows = [report_line(job, next(iter(list_job_runs(engine, job.name, 1)), None)) for job in found]
    heads = ("schedule", "report", "parameters", "due", "zone", "next due (UTC)", "missed", "last")
    empty = "No report runs by itself. Let one: orbiquant report schedule add --help"
    show(found, as_json, lambda: table(rows, *heads) if rows else empty)


@schedules.command("remove")
def remove_schedule(name: JobName, as_json: AsJson = False) -> None:
    "Run a report by itself no more; its runs and pages stay."
    from orbiquant.core import NotFoundError
    from orbiquant.jobs.schedule import find_job, remove_job

    engine = open_jobs().engine
    if (handler := find_job(engine, name).handler) != HANDLER:
        raise NotFoundError(f"{name!r} runs no report, it is a job of {handler}: orbiquant jobs remove {name}")
    gone = remove_job(engine, name)
    show(gone, as_json, lambda: f"{gone.name} is scheduled no more.")


@schedules.command("run-due")
def run_due_reports(as_json: AsJson = False) -> None:
    "Run the reports that are due and end, as cron calls it; exit 1 when one did not succeed."
    from orbiquant.jobs.records import claim_next
    from orbiquant.jobs.running import run_claimed
    from orbiquant.jobs.schedule import run_due
    from orbiquant.jobs.work import holder_name

    runtime, say, ended, holder = open_jobs(), console(stderr=True), list["JobRun"](), holder_name()
    tell = run_teller(plain_teller(say), as_json)
    run_due(runtime.engine, holder, runtime.clock, only=HANDLER)
    while run := claim_next(runtime.engine, holder, "long", runtime.clock, handler=HANDLER):
        ended.append(run_claimed(runtime.engine, run, runtime.clock, runtime))
        tell(ended[-1])
    if not ended and not as_json:
        say.print("No report is due.")
    if not all(succeeded(run) for run in ended):
        raise typer.Exit(1)


def succeeded(
    run: "JobRun",  # of a report, ended
) -> bool:
    "Say whether a report ended well, and not only its job."
    return run.status == "done" and isinstance(run.result, dict) and run.result.get("status") == "succeeded"


@schedules.command("daemon")
def report_daemon(
    at_once: Annotated[int, typer.Option(min=1, max=64, help="Reports at once, each in a process of its own.")] = 1,
    as_json: AsJson = False,
) -> None:
    "Run reports whenever they are due, until interrupted; however many do so, each due time is run once."
    work_until_interrupted(at_once, as_json, "Running reports when they are due (Ctrl-C ends it)", only=HANDLER)
