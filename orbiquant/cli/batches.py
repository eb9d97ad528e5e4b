"""`orbiquant report batch`"""

from typing import Annotated

import typer

from orbiquant.cli.console import AsJson, open_runtime, progress_bar, show, table
from orbiquant.cli.serving import ReportParamOption, ReportArgument, RunTimeout, reports, require_bars, split_parameters


@reports.command("batch")
def batch_command(
    name: ReportArgument,
    vary: Annotated[
        list[str], typer.Option(metavar="NAME=A,B,…", help="Values to run it with, each with each; may be repeated.")
    ],
    param: ReportParamOption = None,
    at_once: Annotated[int, typer.Option(min=1, max=64, help="Runs at a time, each in a process of its own.")] = 2,
    timeout: RunTimeout = None,
    as_json: AsJson = False,
) -> None:
    "Run a report with every combination of some parameters, several at a time; exit 1 unless all succeed."
    from orbiquant.reports import find_report
    from orbiquant.reports.batch import batch_table, parameter_sets, run_reports

    runtime, report = open_runtime(), find_report(name)
    varied = {key: [each.strip() for each in text.split(",")] for key, text in split_parameters(vary, "--vary").items()}
    sets = parameter_sets(split_parameters(param or []), varied)
    for values in sets:
        require_bars(runtime, report, values)
    with progress_bar(as_json, compiles=False) as progress:
        runs = run_reports(name, sets, at_once, timeout_s=timeout, progress=progress)
    found = batch_table(runs)
    rows, heads = found.itertuples(index=False), [f">{each}" if each == "seconds" else each for each in found.columns]
    data = [run.model_dump(mode="json") | {"html": str(run.html)} for run in runs]
    show(data, as_json, lambda: table(rows, *heads))
    if any(run.status != "succeeded" for run in runs):
        raise typer.Exit(1)
