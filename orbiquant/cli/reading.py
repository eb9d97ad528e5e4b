"""The options that say how a file is to be read, for every command that reads one."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeAlias

import typer

if TYPE_CHECKING:
    from orbiquant.domain import Bars, Instrument, SeriesId
    from orbiquant.market.files import ReadAs


Command: TypeAlias = Callable[..., None]
ASKED: Mapping[str, str] = {"asked": "", "signals_asked": "signals_"}  # parameter of a command → prefix of its options
_FIELDS = {"zone": "source_zone"}  # option → field of `ReadAs`, where they differ


class Audited(NamedTuple):
    "Bars and what is known of them."

    bars: "Bars"
    series: "SeriesId"
    instrument: "Instrument"
    data_version: str  # as the ledger of trials names it


def reading_options(
    of: str,  # the file that they describe, for the help
) -> dict[str, Any]:
    "Return the options that describe a file, by name."
    layouts = "histdata, kraken, lean-equity, lean-crypto, lean-forex"
    return {
        "columns": Annotated[
            str | None,
            typer.Option(
                metavar="LAYOUT",
                help=f"Columns of {of}: time,open,high,low,close,-,volume; ROLE=NAME,… of its header; or {layouts}.",
            ),
        ],
        "skip_rows": Annotated[
            int | None, typer.Option(min=0, max=1_000_000, help=f"Lines above the header of {of}, left out.")
        ],
        "zone": Annotated[
            str | None,
            typer.Option(
                metavar="CLOCK", help=f"Of times of {of} that tell none: Europe/Athens, UTC+2, America/New_York+7."
            ),
        ],
        "time_format": Annotated[
            str | None, typer.Option(metavar="FORMAT", help=f"Of odd times of {of}, as in strptime.")
        ],
        "decimal": Annotated[
            Literal[".", ","] | None, typer.Option(help=f"Decimal mark of {of}; else by what its columns tell.")
        ],
        "thousands": Annotated[
            Literal[".", ","] | None, typer.Option(help=f"Mark between thousands of {of}; else by its columns.")
        ],
    }


def reads_files(
    **described: str,  # parameter of the command, one of `ASKED` → the file it is for, for the help
) -> Callable[[Command], Command]:
    "Give a command the options of each file it reads; it gets a `ReadAs` for each."
    options = {p: {ASKED[p] + name: kind for name, kind in reading_options(of).items()} for p, of in described.items()}
    added = {name: kind for kinds in options.values() for name, kind in kinds.items()}

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(**given: Any) -> None:
            said = {parameter: {name: given.pop(name) for name in kinds} for parameter, kinds in options.items()}
            command(**given, **{parameter: read_as(values, ASKED[parameter]) for parameter, values in said.items()})

        own = [one for one in inspect.signature(command).parameters.values() if one.name not in described]
        new = [
            inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=k) for n, k in added.items()
        ]
        run.__signature__ = inspect.Signature([*own, *new])  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in (*own, *new)}
        return run

    return decorate


def takes(
    **options: Any,  # name → annotation with its `typer.Option`; None where one is left out
) -> Callable[[Command], Command]:
    "Give a command further options; it gets them as keyword arguments, of which `**` is enough."

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(**given: Any) -> None:
            command(**given)

        own = [one for one in inspect.signature(command).parameters.values() if one.kind is not one.VAR_KEYWORD]
        new = [
            inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=k) for n, k in options.items()
        ]
        run.__signature__ = inspect.Signature([*own, *new])  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in (*own, *new)}
        return run

    return decorate


def read_as(
    given: Mapping[str, Any],  # options with their prefix, None where one was left out
    prefix: str,  # of the options
) -> "ReadAs":
    "Return what options say of a file, within the limits of the settings."
    from orbiquant.market.files import ReadAs
    from orbiquant.runtime import current

    names = {option: option.removeprefix(prefix) for option in given}
    said = {_FIELDS.get(names[option], names[option]): value for option, value in given.items()}
    return ReadAs.of(limits=current().settings.files, **said)


def told_option(
    parameter: str,  # one of `ASKED`
    asked: "ReadAs",  # what is said
) -> str | None:
    "Return the first option that says something; None when none does."
    told = (name for name in reading_options("") if getattr(asked, _FIELDS.get(name, name)) not in (None, 0))
    return next((f"--{ASKED[parameter] + name}".replace("_", "-") for name in told), None)
