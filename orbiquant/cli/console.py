"""What every command shares: how it prints, shows progress, reads a time, and fails."""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from signal import SIG_DFL, SIGINT, default_int_handler, getsignal, pthread_kill, signal
from threading import Timer, get_ident
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeAlias

import typer

from orbiquant.cli.reading import ASKED, told_option

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from orbiquant.domain import Costs
    from orbiquant.ports import Progress
    from orbiquant.runtime import Runtime


Given: TypeAlias = dict[str, Any]  # options by name, None where one was left out
COST_OPTIONS = ("fee_bps", "slippage_bps", "spread_bps")
TIMEFRAMES = ("1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w")


def parse_time(
    text: str,  # "2024-05-01", "2024-05-01T08:30" or with an offset
) -> datetime:
    "Return an ISO date or time; one without an offset is UTC."
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"must be an ISO date or time such as 2024-05-01 or 2024-05-01T08:30, was {text!r}"
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
MOST_SEED = 2**32 - 1  # what every library takes
SeedOption = Annotated[int | None, typer.Option(min=0, max=MOST_SEED, help="Of everything random.")]
Since = Annotated[
    datetime | None, typer.Option(parser=parse_time, metavar="TIME", help="First bar open, inclusive; UTC.")
]
Until = Annotated[datetime | None, typer.Option(parser=parse_time, metavar="TIME", help="Bars open before this; UTC.")]
Symbol = Annotated[str, typer.Argument(metavar="SYMBOL", help="In any spelling: BTCUSDT, btc/usdt.")]
TimeframeName = Annotated[
    str, typer.Argument(metavar="TIMEFRAME", help=f"One of {', '.join(TIMEFRAMES)}.", autocompletion=lambda: TIMEFRAMES)
]


def costs_told(
    costs: "Costs",  # of the settings
    given: Given,  # with `COST_OPTIONS`
) -> "Costs":
    "Return the costs with those that options name."
    told = {name: given[name] for name in COST_OPTIONS if given[name] is not None}
    return type(costs).model_validate(costs.model_dump() | told)


def find_source(
    given: Given,  # `bars`, `signals`, `symbol` and `timeframe` among them
) -> str:
    "Return where the signals come from: `--signals`, `--bars` or `stored bars`; refuse half of one."
    if given["signals"] and not given["bars"]:
        raise typer.BadParameter("--signals needs the --bars it stands on")
    if not given["bars"] and not (given["symbol"] and given["timeframe"]):
        raise typer.BadParameter("give --bars FILE, or --symbol and --timeframe of stored bars")
    return "--signals" if given["signals"] else "--bars" if given["bars"] else "stored bars"


def check_source(
    given: Given,  # every option by name, None where it was left out
    allowed: Mapping[str, Iterable[str]],  # source, as `find_source` names it → options that only some sources take
    common: Iterable[str] = (),  # options that every source takes
) -> None:
    "Raise `typer.BadParameter` for an option that does not go with where the signals come from."
    source = find_source(given)
    taken = {"bars", "signals", "symbol", "timeframe", "as_json", *common, *allowed[source]}
    for name, value in given.items():
        if value is not None and name not in taken:
            option = told_option(name, value) if name in ASKED else f"--{name.replace('_', '-')}"
            if option:
                raise typer.BadParameter(f"{option} does not go with {source}")


def console(
    stderr: bool = False,  # for progress and complaints
) -> "Console":
    "Return a console; a pipe gets lines as long as they are."
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    if not made.is_terminal:
        made.width = 240
    return made


def to_text(
    value: Any,  # models, dataclasses, NumPy scalars, times, and lists and dicts of them
) -> str:
    "Return a value as JSON text; what is not finite is null."
    from orbiquant.wire import to_wire

    return to_wire(value, indent=2).decode()


def show(
    value: Any,  # what the library returned
    as_json: bool,  # print it as JSON
    view: "Callable[[], RenderableType]",  # the form for people
) -> None:
    "Print a result to standard output."
    if as_json:
        print(to_text(value), flush=True)
    else:
        console().print(view(), markup=False)


def table(
    rows: Iterable[Sequence[Any]],  # what stands in the cells
    *columns: str,  # headings; one that begins with ">" is aligned right
) -> "Table":
    "Return rows as a plain table."
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    for row in rows:
        made.add_row(*(Text(format_cell(value)) for value in row))
    return made


def fields(
    values: Mapping[str, Any],  # label → value; empty ones are left out
) -> "Table":
    "Return labelled values, one a line."
    from rich.table import Table
    from rich.text import Text

    made = Table.grid(padding=(0, 2))
    for label, value in values.items():
        if value not in (None, "", (), [], {}) and value == value:  # a NaN is no figure
            made.add_row(Text(label, style="dim"), Text(format_cell(value)))
    return made


def format_cell(
    value: Any,  # anything
) -> str:
    "Return a value as a table shows it."
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, float):
        return f"{value + 0.0:.6g}" if value == value else "–"  # no −0, and a NaN is no figure
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "–" if value is None else str(value)


@contextmanager
def progress_bar(
    as_json: bool,  # a script is reading: no bar
) -> "Iterator[Progress | None]":
    "Yield what a library function reports its progress to: done, of how many, doing what."
    screen = console(stderr=True)
    if as_json or not screen.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    look = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Bar(*look, console=screen, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda done, total, text: bar.update(task, completed=done, total=total, description=text)


EXTRAS = {
    "xgboost": "models", "sklearn": "models", "vectorbt": "backtest", "papermill": "notebook", "nbconvert": "notebook",
    "psutil": "notebook", "fastapi": "service", "uvicorn": "service", "torch": "deep", "ccxt": "exchange",
}  # fmt: skip
HINTS = {
    "SETTINGS_INVALID": "`orbiquant settings show` prints what is in force, `orbiquant doctor` looks at the rest",
    "NOT_FOUND": "`orbiquant data list`, `models list` and `report list` show what there is",
}


def explain_error(
    error: BaseException,  # what a command raised
) -> tuple[str, str]:
    "Return what went wrong in one line, and what to do about it where that is known."
    from orbiquant.core import OrbiError, missing_library

    if isinstance(error, OrbiError):
        return error.message, HINTS.get(error.code, "")
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in EXTRAS:
        return missing_library(error.name or "", EXTRAS[(error.name or "").split(".")[0]]).message, ""
    said = re.sub(r"\s+", " ", str(error)).strip()
    return f"{type(error).__name__}: {said}" if said else type(
        error
    ).__name__, "run it again with --debug for the traceback"


def redeliver_interrupt(
    ignored: Any,  # what Python could not raise, as `sys.unraisablehook` gets it
) -> None:
    "Raise an interrupt again that fell where Python drops it, such as an import's own clean-up."
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        Timer(0.05, pthread_kill, (get_ident(), SIGINT)).start()
    else:
        sys.__unraisablehook__(ignored)


def run(
    program: typer.Typer,  # the whole command line
    words: Sequence[str],  # what was typed after the program's name
) -> NoReturn:
    "Run a command and exit: 0 done, 1 failed, 2 mistyped, 130 interrupted."
    from typer.main import get_command

    debug = "--debug" in words
    sys.unraisablehook = redeliver_interrupt
    try:
        command = get_command(program)
        if getsignal(SIGINT) is SIG_DFL:
            signal(SIGINT, default_int_handler)
        command([word for word in words if word != "--debug"], prog_name="orbiquant")
    except SystemExit as ended:
        if ended.code == 130:
            print("Interrupted.", file=sys.stderr)
        raise
    except Exception as error:
        if debug:
            raise
        from rich.text import Text

        message, hint = explain_error(error)
        screen = console(stderr=True)
        screen.print(Text.assemble(("Error: ", "bold red"), message), soft_wrap=True)
        if hint:
            screen.print(Text.assemble(("Hint: ", "bold"), hint), soft_wrap=True)
        sys.exit(1)
    sys.exit(0)


def open_runtime() -> "Runtime":
    "Return this process's runtime, its logging set up as the settings say."
    from orbiquant.core import configure_logging
    from orbiquant.runtime import current

    runtime = current()
    logging = runtime.settings.logging
    configure_logging(logging.level, logging.json_lines)
    return runtime
