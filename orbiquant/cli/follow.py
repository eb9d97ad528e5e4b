"""`orbiquant data follow`"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from signal import SIGTERM, default_int_handler, signal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orbiquant.cli.console import AsJson, Symbol, TimeframeName, console, open_runtime, to_text
from orbiquant.cli.data import LOCAL, SOURCES, data_commands, open_remote
from orbiquant.cli.ending import collect

if TYPE_CHECKING:
    from rich.console import Console

    from orbiquant.domain import SeriesId
    from orbiquant.market.follow import Followed
    from orbiquant.runtime import Runtime


FOLLOWED = tuple(name for name in SOURCES if name not in LOCAL)


def tell_at_once(
    runtime: "Runtime",  # whose settings say what is logged
    say: "Console",  # where it is told, unless lines are collected
) -> Callable[[str], None]:
    "Tell notices as they come, as a command that stays does; return what tells all else: where lines are collected, as such."
    from orbiquant.core import configure_logging, get_logger

    logging = runtime.settings.logging
    if logging.json_lines:
        configure_logging("INFO" if logging.level == "AUTO" else logging.level, True)
        log = get_logger("cli")
        collect(log.error)
        threading.excepthook = lambda told: log.error("a thread failed", exc_info=told.exc_value)
        return lambda text: log.info(text)
    tell = plain_teller(say)
    configure_logging(logging.level, False, lambda sentence: tell(f"Note: {sentence}"))
    return tell


def plain_teller(
    say: "Console",  # where it is told
) -> Callable[[str], None]:
    "Return what prints a line as it is."
    return lambda text: say.print(text, markup=False, soft_wrap=True)


def line_teller(
    tell_line: Callable[[str], None],  # tells one line
    as_json: bool,  # as one line of JSON on standard output instead
    words: Callable[[Any], str],  # of what happened
) -> Callable[[Any], None]:
    "Return what tells each thing that happens in a command that stays."

    def tell(what: Any) -> None:
        if as_json:
            print(" ".join(to_text(what).split()), flush=True)
        else:
            tell_line(words(what))

    return tell


@contextmanager
def until_interrupted(
    runtime: "Runtime",  # whose settings say what is logged
    say: "Console",  # where it is told
) -> Iterator[Callable[[str], None]]:
    "End the block, which gets what tells a line, on Ctrl-C or SIGTERM, as it is meant to end; notices are told as they come."
    tell = tell_at_once(runtime, say)
    signal(SIGTERM, default_int_handler)
    with suppress(KeyboardInterrupt):
        yield tell
    tell("Ended.")


def scheduled_source(
    runtime: "Runtime",  # whose jobs are asked
    series: "SeriesId",  # to follow
) -> str:
    "Return the source that a scheduled job follows a series from; raise `OptionError` when none does."
    from orbiquant.core import OptionError
    from orbiquant.research.staying import followed_from

    if (found := followed_from(runtime, series)) is not None:
        return found
    raise OptionError(f"`SOURCE` must be one of {', '.join(FOLLOWED)} or another exchange, was not given for {series}")


@data_commands.command("follow")
def follow_command(
    symbol: Symbol,
    timeframe: TimeframeName,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE",
            help=f"One of {', '.join(FOLLOWED)}, or another exchange; else as a job has it.",
            autocompletion=lambda: FOLLOWED,
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    as_json: AsJson = False,
) -> None:
    "Keep a stored series current, until interrupted: pull each bar when it has closed, judge alerts, say what is late."
    from orbiquant.core import OptionError
    from orbiquant.desk.alerts import judge_new_bars
    from orbiquant.domain import SeriesId
    from orbiquant.market.follow import follow_bars, follow_once

    series, runtime = SeriesId.parse(symbol, timeframe), open_runtime()
    name = source or scheduled_source(runtime, series)
    if name in LOCAL:
        raise OptionError(f"`SOURCE` must be one that grows, such as {', '.join(FOLLOWED)}, was {name!r}")
    origin, say = open_remote(runtime, name), console()

    def tell(look: "Followed") -> None:
        if as_json:
            print(" ".join(to_text(look).split()), flush=True)
        else:
            say.print(look.told, markup=False, soft_wrap=True)

    if once:
        tell(follow_once(runtime.store, origin, series, [judge_new_bars], runtime.clock))
        return
    with until_interrupted(runtime, console(stderr=True)):
        follow_bars(runtime.store, origin, series, [judge_new_bars], tell, runtime.clock)
