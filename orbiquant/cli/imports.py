"""`orbiquant data import`"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orbiquant.cli.console import (
    AsJson,
    FrameOption,
    RepairOption,
    fields,
    open_runtime,
    progress_bar,
    show,
    table,
)
from orbiquant.cli.data import data_commands, describe_report, judge_alerts_on
from orbiquant.cli.reading import reads_files

if TYPE_CHECKING:
    from orbiquant.market.files import ReadAs
    from orbiquant.market.imports import ImportResult


@data_commands.command("import")
@reads_files(asked="the file")
def import_command(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="CSV (plain, .gz, .zip) or Parquet.")],
    symbol: Annotated[str | None, typer.Option(help="Stored as this; else as the file's name begins.")] = None,
    timeframe: FrameOption = None,
    repair: RepairOption = None,
    stored: Annotated[
        Literal["stop", "replace", "merge"],
        typer.Option(help="When stored bars contradict the file: stop, replace them in its span, or merge."),
    ] = "stop",
    all_symbols: Annotated[bool, typer.Option("--all-symbols", help="Every symbol of a table of many.")] = False,
    as_json: AsJson = False,
    asked: "ReadAs | None" = None,
) -> None:
    "Put a file's bars into the store."
    from orbiquant.core import OptionError
    from orbiquant.domain import SeriesId
    from orbiquant.market.imports import import_file, import_symbols
    from orbiquant.market.sources import parse_name

    rules, runtime = repair or (), open_runtime()
    if all_symbols and symbol:
        raise OptionError(f"`--symbol` must be left out with `--all-symbols`, was {symbol!r}")
    if all_symbols:
        with progress_bar(as_json, compiles=False) as progress:
            found = import_symbols(runtime.store, path, timeframe, rules, asked, stored, progress)
            judge_alerts_on(runtime, [SeriesId.parse(one.symbol, one.timeframe) for one in found])
            show_imports(found, as_json)
        return
    name = symbol or parse_name(path.name)[0]
    if name is None:
        raise OptionError(
            f"`--symbol` must be given for a file that is not named like EURUSD_1h.csv, was {path.name!r}"
        )
    result = import_file(runtime.store, path, name, timeframe, rules, asked, stored)
    judge_alerts_on(runtime, [SeriesId.parse(result.symbol, result.timeframe)])
    show(result, as_json, lambda: fields(describe_import(result)))


def describe_import(
    result: "ImportResult",  # of one series
) -> dict[str, Any]:
    "Return what came of an import, label → text."
    return {
        "series": f"{result.symbol} {result.timeframe}",
        "dialect": result.dialect,
        "rows": result.rows_read,
        "new": result.rows_added,
        "changed": result.rows_changed,
        "as stored": result.rows_equal,
        "store version": result.version,
        "repaired": ", ".join(f"{rule} {rows}" for rule, rows in result.repairs.items() if rows),
        "notices": "\n".join(result.notices),
        **describe_report(result.report),
    }


def show_imports(
    results: "Sequence[ImportResult]",  # of a table of many symbols
    as_json: bool,  # for a script
) -> None:
    "Print one line a symbol, and what was noticed of all."
    from rich.console import Group

    notices: dict[str, list[str]] = {}
    for one in results:
        for notice in one.notices:
            notices.setdefault(notice, []).append(one.symbol)
    told = [f"{text} ({', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''})"
            for text, names in notices.items()]  # fmt: skip
    lines = [
        (r.symbol, r.timeframe, r.rows_read, r.rows_added, r.rows_changed, sum(i.count for i in r.report.issues))
        for r in results
    ]
    show(
        {"series": results, "rows_read": sum(result.rows_read for result in results)},
        as_json,
        lambda: Group(
            table(lines, "symbol", "timeframe", ">rows", ">new", ">changed", ">findings"),
            fields({"symbols": len(results), "rows": sum(r.rows_read for r in results), "notices": "\n".join(told)}),
        ),
    )
