"""What every command shares: how it prints, shows progress and reads a time."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

import typer

from orbiquant.cli.ending import has_notices, hear, tell_notices, watch_places
from orbiquant.cli.reading import ASKED, told_option
from orbiquant.cli.words import legend, words_of, write_figure, write_number

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from orbiquant.domain import Costs
    from orbiquant.ports import Progress
    from orbiquant.runtime import Runtime


Given: TypeAlias = dict[str, Any]  # options by name, None where one was left out
COST_OPTIONS = ("fee_bps", "slippage_bps", "spread_bps")
MOST_BARS = 1_000_000_000  # that anything is cut to
MOST_MADE = 10_000_000  # bars of a synthetic market
POLICIES_TOLD = "primary, base, conservative_filter, balanced_filter, aggressive_filter"
REPAIRS_TOLD = (
    "to_utc, to_float64, drop_missing, sort, drop_duplicates, clamp_high_low, drop_infinite, drop_not_positive, "
    "drop_negative_volume, drop_impossible, drop_off_grid, drop_overlapping, drop_off_session, drop_off_anchor"
)
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
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise typer.BadParameter(f"must lie in the years 1 to 9999 in UTC, was {text!r}") from error


SymbolOption = Annotated[str | None, typer.Option("--symbol", help="In any spelling: BTCUSDT, btc/usdt.")]
FrameOption = Annotated[
    str | None,
    typer.Option(
        "--timeframe", help=f"One of {', '.join(TIMEFRAMES)}; a file's is found.", autocompletion=lambda: TIMEFRAMES
    ),
]
PolicyOption = Annotated[str | None, typer.Option(help=f"One of {POLICIES_TOLD}; else the settings'.")]
RepairOption = Annotated[
    list[str] | None, typer.Option(metavar="RULE", help=f"A repair rule, may be repeated: {REPAIRS_TOLD}.")
]
FoldsOption = Annotated[int | None, typer.Option(min=1, max=1000, help="Walk-forward folds; else the settings'.")]
RoundsOption = Annotated[
    int | None, typer.Option(min=1, max=100_000, help="Boosting rounds (trees) at most; else the settings'.")
]
LastOption = Annotated[int | None, typer.Option(min=2, max=MOST_BARS, help="Only the last so many bars.")]
FeeBps = Annotated[
    float | None, typer.Option(min=0, max=4999, help="Fee of a side in basis points (bp, 1 bp = 0.01 %).")
]
SlippageBps = Annotated[float | None, typer.Option(min=0, max=4999, help="Slippage of a side in basis points.")]
SpreadBps = Annotated[
    float | None, typer.Option(min=0, max=4999, help="Whole spread in basis points; each side pays half.")
]
HoldingBars = Annotated[int | None, typer.Option(min=1, max=MOST_BARS, help="Time limit of given signals, in bars.")]
ExitOption = Annotated[
    str | None,
    typer.Option(help="Exit plan: `fixed`, or some of break_even_r=1 trail_atr=3 targets=1:0.5 max_holding_bars=24."),
]
RiskBase = Annotated[
    Literal["plan", "fill"] | None, typer.Option(help="One R of given signals: from the planned entry, or the fill.")
]
ModelOption = Annotated[
    str | None, typer.Option(help="Version, as `models list` shows it; else the one that is served.")
]
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
    "Return where the signals come from: `--strategy`, `--signals`, `--bars` or `stored bars`; refuse half of one."
    if given["signals"] and not given["bars"]:
        raise typer.BadParameter("--signals needs the --bars it stands on")
    if not given["bars"] and not (given["symbol"] and given["timeframe"]):
        raise typer.BadParameter("give --bars FILE, or --symbol and --timeframe of stored bars")
    if given.get("strategy"):
        return "--strategy"
    return "--signals" if given["signals"] else "--bars" if given["bars"] else "stored bars"


def check_source(
    given: Given,  # every option by name, None where it was left out
    allowed: Mapping[str, Iterable[str]],  # source, as `find_source` names it → options that only some sources take
    common: Iterable[str] = (),  # options that every source takes
) -> None:
    "Raise `typer.BadParameter` for an option that does not go with where the signals come from."
    source = find_source(given)
    if given.get("param") and not given.get("strategy"):
        raise typer.BadParameter("--param needs the --strategy it is of")
    taken = {"bars", "symbol", "timeframe", "as_json", *common, *allowed[source]}
    taken |= {"strategy"} if source == "--strategy" else {"signals"}
    for name, value in given.items():
        if value is not None and name not in taken:
            option = told_option(name, value) if name in ASKED else f"--{name.replace('_', '-')}"
            if option:
                raise typer.BadParameter(f"{option} does not go with {source}")


def check_written(
    option: str,  # that names a file to be written
    target: Path | None,  # the file; None: nothing is written
    *read: Path | None,  # files that the command reads
) -> None:
    "Refuse a file that cannot be written, or that the command reads, before anything is computed."
    if target is None:
        return
    from orbiquant.research.files import check_target

    if target.exists() and any(file is not None and file.exists() and target.samefile(file) for file in read):
        raise typer.BadParameter(f"`{option}` must be another file than those that are read, was {target.name}")
    check_target(target)


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
    text = to_text(value) if as_json or has_notices() else ""
    if as_json:
        print(in_encoding(text, getattr(sys.stdout, "encoding", None)), flush=True)
    else:
        screen = console()
        seen = view()
        copied = isinstance(seen, str) and any(len(word) > screen.width for word in seen.split())  # a token: never broken
        with screen.capture() as held:
            screen.print(seen, markup=False, soft_wrap=copied)
        printed = re.sub(r"[ \t]+$", "", held.get(), flags=re.MULTILINE)
        meant = legend(re.sub(r"\x1b\[[0-9;]*m", "", printed))
        print(f"{printed}{meant}" if meant else printed.removesuffix("\n"), flush=True)
    tell_notices(text)


def in_encoding(
    text: str,  # JSON
    encoding: str | None,  # of where it goes
) -> str:
    "Return JSON that an encoding can hold, its other characters escaped as JSON escapes them."
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(json.loads(text), indent=2)
    return text


COPIED = ("version",)  # columns of words that a person copies: never broken over lines, as figures are not


def table(
    rows: Iterable[Sequence[Any]],  # what stands in the cells
    *columns: str,  # headings; one that begins with ">" is aligned right
) -> "Table":
    "Return rows as a plain table."
    from rich import box
    from rich.table import Table
    from rich.text import Text

    names = [column.removeprefix(">") for column in columns]
    cells = [[format_cell(write_figure(*pair)) for pair in zip(names, row, strict=True)] for row in rows]
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for at, (column, name) in enumerate(zip(columns, names, strict=True)):
        longest = max((len(word) for row in cells for word in row[at].split()), default=0)
        side: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        whole = longest if side == "right" or name in COPIED else None
        made.add_column(words_of(name), justify=side, min_width=whole, overflow="fold")
    for row in cells:
        made.add_row(*map(Text, row))
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
            made.add_row(Text(words_of(label), style="dim"), Text(format_cell(write_figure(label, value))))
    return made


def tell_seconds(
    seconds: Mapping[str, float],  # by stage
) -> str:
    "Return what each stage took, in one line."
    return ", ".join(f"{stage} {taken:.1f} s" for stage, taken in seconds.items())


def format_cell(
    value: Any,  # anything
) -> str:
    "Return a value as a table shows it."
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, float):
        return write_number(value)
    if isinstance(value, list | tuple):
        return "\n".join(map(format_cell, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return "–" if value is None else str(value)


EVERY_S = 5.0  # between lines of progress where there is no terminal


class Lines:
    "Progress as lines: one at first, then every few seconds what is being done, were it the same."

    def __init__(self) -> None:
        self.now, self.place, self.last, self.began, self.ended = "", "", -EVERY_S, monotonic(), Event()

    def __enter__(self) -> Self:
        Thread(target=self.go_on, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()

    def __call__(
        self,
        done: int,  # steps
        total: int,  # steps in all
        text: str,  # what is being done
    ) -> None:
        "Take note of a step, and print it when the last line is a few seconds old."
        self.place = f"[{done}/{total}] " if total else ""
        self.say(text)

    def say(
        self,
        text: str,  # what is being done
    ) -> None:
        "Take note of what is being done, and print it when the last line is a few seconds old."
        new, self.now = text != self.now, text
        if new and monotonic() - self.last >= EVERY_S:
            self.tell()

    def go_on(self) -> None:
        "Print every few seconds what is being done, until the end."
        while not self.ended.wait(max(0.1, self.last + EVERY_S - monotonic())):
            if self.now and monotonic() - self.last >= EVERY_S:
                self.tell()

    def tell(self) -> None:
        "Print what is being done, and for how long anything is."
        self.last = monotonic()
        typer.echo(f"{self.place}{self.now} ({self.last - self.began:.0f} s)", err=True)


@contextmanager
def progress_bar(
    as_json: bool,  # a script is reading: nothing
    compiles: bool = True,  # Numba may have to compile
) -> "Iterator[Progress | None]":
    "Yield what a library function reports its progress to: done, of how many, doing what; what compiles is said too."
    screen = console(stderr=True)
    if as_json:
        yield None
        return
    if not screen.is_terminal:
        with Lines() as lines, compiling(lines.say if compiles else None):
            yield lines
        return
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    look = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Bar(*look, console=screen, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        with compiling((lambda text: bar.update(task, description=text)) if compiles else None):
            yield lambda done, total, text: bar.update(task, completed=done, total=total, description=text)


@contextmanager
def compiling(
    say: Callable[[str], None] | None,  # called with what is compiled; None: nobody asks
) -> Iterator[None]:
    "Say which function Numba compiles inside the block, which happens once on a machine."
    if say is None:
        yield
        return
    from numba.core import event

    told = say

    class Heard(event.Listener):
        def on_start(self, event: Any) -> None:
            told(f"compiling {event.data['dispatcher'].py_func.__name__.strip('_')}, once for this machine")

        def on_end(self, event: Any) -> None:
            return

    heard = Heard()
    event.register("numba:compile", heard)
    try:
        yield
    finally:
        event.unregister("numba:compile", heard)


def confirm(
    question: str,  # ends in a question mark
) -> None:
    "Ask a person; raise `typer.Abort` for a no, `typer.BadParameter` where nobody can answer."
    if sys.stdin is None:
        raise typer.BadParameter("nobody can be asked here: --yes says yes")
    if not typer.confirm(question, err=True):
        raise typer.Abort


def open_runtime(
    service: bool = False,  # it serves others, whose requests are logged
) -> "Runtime":
    "Return this process's runtime, its logging set up as the settings say; AUTO at a command line: notices alone."
    from orbiquant.core import configure_logging
    from orbiquant.runtime import current

    runtime = current()
    logging = runtime.settings.logging
    asked = "INFO" if service and logging.level == "AUTO" else logging.level
    configure_logging(asked, logging.json_lines, hear)
    watch_places(runtime.settings)
    return runtime
