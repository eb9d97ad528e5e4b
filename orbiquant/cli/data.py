"""`orbiquant data pull | list | remove | check | show`"""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orbiquant.cli.console import (
    MOST_BARS,
    MOST_MADE,
    MOST_SEED,
    TIMEFRAMES,
    AsJson,
    RepairOption,
    Since,
    Symbol,
    TimeframeName,
    Until,
    confirm,
    console,
    fields,
    open_runtime,
    progress_bar,
    show,
    table,
)
from orbiquant.cli.reading import ASKED, reads_files, told_option
from orbiquant.cli.words import write_number

if TYPE_CHECKING:
    from orbiquant.domain import Bars, SeriesId
    from orbiquant.market.bars import BarReport
    from orbiquant.market.files import ReadAs
    from orbiquant.market.pulls import PullResult
    from orbiquant.ports import MarketData, Progress
    from orbiquant.runtime import Runtime


data_commands = typer.Typer(help="Bring bars in, and look at them.", no_args_is_help=True)
AcceptStep = Annotated[
    bool, typer.Option("--accept-step", help="Go on although the bars are not at the scale of the stored ones.")
]
LOCAL = ("sample", "synthetic", "csv", "parquet")
FILE_SOURCES = ("csv", "parquet")
SOURCES = (*LOCAL, "binance", "dukascopy", "polygon", "alpaca", "sql")
TAKEN: Mapping[str, Sequence[str]] = {  # option of a pull → sources that take it
    "path": FILE_SOURCES,
    "price": ("dukascopy", "sql"),
    "repair": (*FILE_SOURCES, "remote sources"),
    "rows": ("synthetic",),
    "seed": ("synthetic",),
    "asked": FILE_SOURCES,
}


def show_pulls(
    results: "Sequence[PullResult]",  # of several series
    missed: "Sequence[SeriesId]",  # that the source lacks
    as_json: bool,  # for a script
) -> None:
    "Print one line a series, and below what is to tell of them."
    from rich.console import Group
    from rich.text import Text

    lines: list[tuple[Any, ...]] = [
        (r.symbol, r.timeframe, r.rows_read, r.rows_added, r.rows_changed, r.first, r.last) for r in results
    ]
    lines += [(one.symbol, one.timeframe, "not there", *[None] * 4) for one in missed]
    told = [Text(f"{r.symbol} {r.timeframe}: {notice}") for r in results for notice in r.notices]
    columns = ("symbol", "timeframe", ">rows", ">new", ">changed", "first (UTC)", "last (UTC)")
    show(
        {"series": results, "missed": [(one.symbol, one.timeframe) for one in missed]},
        as_json,
        lambda: Group(table(lines, *columns), *told),
    )


@data_commands.command("pull")
@reads_files(asked="--path")
def pull_command(
    source: Annotated[
        str,
        typer.Argument(
            help=f"One of {', '.join(SOURCES)}, or another exchange that ccxt knows.", autocompletion=lambda: SOURCES
        ),
    ],
    symbol: Annotated[
        str | None, typer.Argument(metavar="SYMBOL", help="In any spelling: BTCUSDT, btc/usdt; else as set.")
    ] = None,
    timeframe: Annotated[
        str | None,
        typer.Argument(
            metavar="TIMEFRAME", help=f"One of {', '.join(TIMEFRAMES)}; else as set.", autocompletion=lambda: TIMEFRAMES
        ),
    ] = None,
    since: Since = None,
    until: Until = None,
    price: Annotated[
        str | None, typer.Option(metavar="SIDE", help="bid, ask or mid, for dukascopy and ticks of sql; else as set.")
    ] = None,
    repair: RepairOption = None,
    path: Annotated[Path | None, typer.Option(help="File or folder, for csv and parquet.")] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, max=MOST_MADE, help="Bars of the synthetic market; else 20,000.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=MOST_SEED, help="Of the synthetic market; else 7.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Ask for what is stored too.")] = False,
    accept_step: AcceptStep = False,
    as_json: AsJson = False,
    asked: "ReadAs | None" = None,
) -> None:
    "Bring the store up to date with a source; go on where an earlier pull ended."
    said = locals()
    from orbiquant.domain import SeriesId

    given = {name: said[name] for name in TAKEN if said[name] not in (None, [])}
    if source not in FILE_SOURCES and not told_option("asked", given["asked"]):
        del given["asked"]
    check_taken(source, given)
    if path is not None and path.is_file() and symbol and timeframe:
        given |= {"timeframe": timeframe}  # one file need not be named after what it holds
    runtime = open_runtime()
    origin = open_local(source, symbol, **given) if source in LOCAL else open_remote(runtime, source, **given)
    market, window = runtime.settings.market, {"start": since, "end": until, "again": again, "accept_step": accept_step}
    named = product([symbol] if symbol else market.symbols, [timeframe] if timeframe else market.timeframes)
    series = [SeriesId.parse(*name) for name in named]
    with progress_bar(as_json, compiles=False) as progress:
        results, missed = pull_series(runtime, origin, series, progress, **window)
    judge_alerts_on(runtime, [one for one in series if one not in missed])
    if symbol and timeframe:
        show(results[0], as_json, lambda: fields(describe_pull(results[0])))
        return
    show_pulls(results, missed, as_json)


def check_taken(
    source: str,  # a name, known or not
    given: Mapping[str, Any],  # option → value
) -> None:
    "Raise `OptionError` for an option that the source does not take."
    from orbiquant.core import OptionError

    names = {source, "local" if source in LOCAL else "remote sources"}
    for option in given:
        if names.isdisjoint(TAKEN[option]):
            name = told_option(option, given[option]) if option in ASKED else f"--{option}"
            raise OptionError(f"`{name}` is for {' and '.join(TAKEN[option])}, was given for {source}")


def pull_series(
    runtime: "Runtime",  # whose store is filled
    origin: "MarketData",  # where from
    series: "Sequence[SeriesId]",  # which bars
    progress: "Progress | None",  # told chunks done, chunks in all, and what was done
    **asked: Any,  # of each: `start`, `end`, `again`, `accept_step`
) -> tuple[list["PullResult"], list["SeriesId"]]:
    "Return what came of pulling each series, and those that the source lacks; raise `NotFoundError` when it has none."
    from orbiquant.core import NotFoundError
    from orbiquant.market.pulls import pull

    results, missed = [], []
    for one in series:
        try:
            results.append(pull(runtime.store, origin, one, progress=progress, clock=runtime.clock, **asked))
        except NotFoundError:
            missed.append(one)
            if missed == [*series]:
                raise
    return results, missed


def judge_alerts_on(
    runtime: "Runtime",  # store and database
    series: "Sequence[SeriesId]",  # that have new bars
) -> None:
    "Hold new bars against the alerts that wait for their symbols; bars that are stored stay so whatever a database says."
    from sqlalchemy.exc import SQLAlchemyError

    from orbiquant.persistence import database_made

    if not database_made(runtime.settings.workspace.database_url):
        return  # nobody has set an alert, and looking would make one
    from orbiquant.desk.alerts import judge_series
    from orbiquant.notices.alerts import waited_for

    try:
        waited = waited_for(runtime.engine)
        for one in series:
            if one.symbol in waited:
                judge_series(runtime, one)
    except (SQLAlchemyError, OSError) as error:
        console(stderr=True).print(f"Alerts were not judged on these bars: {str(error)[:200]}", markup=False)


def describe_pull(
    result: "PullResult",  # of one series
) -> dict[str, Any]:
    "Return what came of a pull, label → text."
    facts = {"series": f"{result.symbol} {result.timeframe}", "rows": result.rows_read, "new": result.rows_added}
    facts |= {"changed": result.rows_changed, "store version": result.version}
    facts |= {"first": result.first, "last": result.last, "notices": "\n".join(result.notices)}
    return facts | (
        {} if result.report is None else {"window": f"{result.report.rows:,} bars", **describe_report(result.report)}
    )


def open_remote(
    runtime: "Runtime",  # whose settings hold
    name: str,  # a provider or an exchange
    price: str | None = None,  # None: as set
    repair: Sequence[str] = (),  # names of repair rules
) -> "MarketData":
    "Return the remote source of a name; raise `OptionError` for a name that is none, with the nearest that is."
    from importlib.util import find_spec

    from orbiquant.core import OptionError, missing_library, suggest
    from orbiquant.runtime import Runtime

    if name not in SOURCES:
        from orbiquant.market.exchanges import list_exchanges

        known = [*SOURCES, *(list_exchanges() if find_spec("ccxt") else ())]
        if name not in known:
            if not find_spec("ccxt") and not suggest(name, known):
                raise missing_library("ccxt", "exchange")
            offered = f"{', '.join(SOURCES)} or an exchange that ccxt knows"
            raise OptionError(f"`source` must be one of {offered}, was {name!r}{suggest(name, known)}")
    if price is not None:
        if name == "sql" and runtime.settings.providers.sql_kind != "ticks":
            raise OptionError("`--price` is for ticks, was given for a table of bars; look at `sql_kind`")
        chosen = {"dukascopy_price": price, "sql_price": price}
        providers = runtime.settings.providers.model_copy(update=chosen)
        runtime = Runtime(runtime.settings.model_copy(update={"providers": providers}), runtime.clock)
    return runtime.source(name, repair)


def open_local(
    name: str,  # one of `LOCAL`
    symbol: str | None = None,  # what the synthetic market is called
    path: Path | None = None,  # for files
    repair: Sequence[str] = (),  # names of repair rules, for files
    rows: int = 20_000,  # of the synthetic market
    seed: int = 7,  # of the synthetic market
    asked: "ReadAs | None" = None,  # what is said of files
    timeframe: str | None = None,  # of one file of one symbol; None: by the files' names
) -> "MarketData":
    "Return the source of a name; raise `OptionError` for files without a path, or a synthetic market without a name."
    from orbiquant.core import OptionError
    from orbiquant.market.sources import CsvSource, ParquetSource, SampleSource, SyntheticSource

    if name == "sample":
        return SampleSource()
    if name == "synthetic":
        if symbol is None:
            raise OptionError("`SYMBOL` must be given for the synthetic market, was not")
        return SyntheticSource(rows=rows, seed=seed, symbol=symbol)
    if path is None:
        raise OptionError(f"`--path` must be given for the source {name}, was not")
    made = CsvSource if name == "csv" else ParquetSource
    return made(path, symbol if timeframe else None, timeframe, repair, asked)


@data_commands.command("list")
def list_series(as_json: AsJson = False) -> None:
    "List the series that the store holds."
    store = open_runtime().store
    series = store.series()
    heads = ("symbol", "timeframe", "rows", "first", "last")
    rows = [(s.series.symbol, s.series.timeframe, s.rows, s.first, s.last) for s in series]
    empty = f"The store is empty ({getattr(store, 'uri', 'elsewhere')}). Fill it: orbiquant data pull sample EURUSD 1h"
    show(
        {"version": store.version(), "series": [dict(zip(heads, row, strict=True)) for row in rows]},
        as_json,
        lambda: table(rows, "symbol", "timeframe", ">bars", "first (UTC)", "last (UTC)") if rows else empty,
    )


@data_commands.command("remove")
def remove_series(
    symbol: Symbol,
    timeframe: Annotated[
        str | None,
        typer.Argument(
            metavar="TIMEFRAME",
            help=f"One of {', '.join(TIMEFRAMES)}; else every one.",
            autocompletion=lambda: TIMEFRAMES,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    "Remove a series from the newest version of the store; older versions keep it."
    from orbiquant.core import NotFoundError
    from orbiquant.domain import SeriesId, Timeframe, normalise_symbol

    store, name = open_runtime().store, normalise_symbol(symbol)
    wanted = [SeriesId.parse(name, timeframe)] if timeframe else [SeriesId(name, frame) for frame in Timeframe]
    held = [line for line in store.series() if line.series in wanted]
    if not held:
        raise NotFoundError(f"the store holds no {wanted[0] if timeframe else name}; look at `data list`")
    told = ", ".join(f"{line.series} ({line.rows:,} bars)" for line in held)
    if not yes:
        confirm(f"Remove {told}?")
    versions = [store.remove(line.series) for line in held]
    removed = [line.series for line in held]
    show(
        {"removed": removed, "version": versions[-1]},
        as_json,
        lambda: fields({"removed": told, "store version": versions[-1]}),
    )


@data_commands.command("check")
def check_series(
    symbol: Symbol, timeframe: TimeframeName, since: Since = None, until: Until = None, as_json: AsJson = False
) -> None:
    "Report faults, gaps and oddities of a stored series, and damage of the store; exit 1 for a fault or damage."
    from orbiquant.domain import SeriesId
    from orbiquant.market.instruments import instrument_of
    from orbiquant.market.plausibility import examine_bars

    series, runtime = SeriesId.parse(symbol, timeframe), open_runtime()
    bars, damage = runtime.store.read(series, since, until), runtime.store.damage()
    instrument, notice = instrument_of(symbol, bars.index)
    report = examine_bars(bars, series.timeframe, instrument.calendar, runtime.clock.now())
    facts = {"bars": report.rows, "notices": notice, **describe_report(report), "store": "\n".join(damage)}
    told = {"notices": [notice] if notice else [], "store_damage": damage}
    show(report.to_dict() | told, as_json, lambda: fields(facts))
    if damage or not report.ok:
        raise typer.Exit(1)


@data_commands.command("show")
def show_(
    symbol: Symbol,
    timeframe: TimeframeName,
    since: Since = None,
    until: Until = None,
    rows: Annotated[int, typer.Option(min=1, max=MOST_BARS, help="The last so many of the window.")] = 10,
    version: Annotated[int | None, typer.Option(min=0, max=MOST_BARS, help="Store version to travel back to.")] = None,
    as_json: AsJson = False,
) -> None:
    "Print stored bars."
    from orbiquant.domain import BAR_COLUMNS, SeriesId

    bars = open_runtime().store.read(SeriesId.parse(symbol, timeframe), since, until, version).tail(rows)
    show(
        to_records(bars),
        as_json,
        lambda: table(bars.reset_index().itertuples(index=False), "time (UTC)", *(f">{c}" for c in BAR_COLUMNS)),
    )


def to_records(
    bars: "Bars",  # any
) -> list[dict[str, Any]]:
    "Return bars as one dict a row."
    return [{"time": time, **row} for time, row in zip(bars.index, bars.to_dict("records"), strict=True)]


def describe_report(
    report: "BarReport",  # from `inspect_bars`
) -> dict[str, Any]:
    "Return what a report says, label → text."
    gap = report.longest_gap
    share = None if report.missing is None or not report.expected else report.missing / report.expected
    return {
        "from": report.first,
        "to": report.last,
        "calendar": report.calendar,
        "missing": None
        if share is None
        else f"{report.missing:,} of {report.expected:,} bars ({write_number(share, '.2%')}) in {report.gaps:,} gaps",
        "longest gap": gap and f"{gap.bars:,} bars from {gap.start:%Y-%m-%d %H:%M}",
        "findings": "\n".join(f"{issue.severity}: {issue}" for issue in report.issues) or "none",
    }
