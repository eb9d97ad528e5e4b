"""`orbiquant init`: a folder to work in."""

import os
import shlex
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orbiquant.cli.console import AsJson, fields, show

if TYPE_CHECKING:
    from rich.text import Text


def runnable(
    name: str,  # of a program that is installed beside this one: orbiquant, jupyter
) -> str:
    "Return what a person has to type to run a program: its name where the path has it, else where it is."
    beside, known = Path(sys.executable).parent / name, shutil.which(name)
    return name if known and Path(known).parent.resolve() == beside.parent.resolve() else str(beside)


def next_steps(
    folder: Path,  # the workspace
    *commands: tuple[str, str],  # program and its words, as they are typed in the folder
) -> "Text":
    "Return the commands that go on from here, one a line that no screen breaks, each as it can be typed."
    from rich.text import Text

    here: Path | None = None
    with suppress(FileNotFoundError):  # the current folder has been deleted
        here = Path.cwd()
    lines = [f"cd {shlex.quote(str(folder))}"] * (here != folder)
    lines += [f"{shlex.quote(runnable(program))} {words}" for program, words in commands]
    return Text("\n".join(["Next:", *(f"  {line}" for line in lines)]), no_wrap=True, overflow="ignore")


def init(
    folder: Annotated[Path, typer.Argument(help="Made when it is missing; `.` is the current one.")],
    package: Annotated[str | None, typer.Option(help="What its notebooks export; else named after the folder.")] = None,
    as_json: AsJson = False,
) -> None:
    "Make a workspace: settings, a tutorial, a first notebook of your own; what is there already stays."
    from rich.console import Group

    from orbiquant.workspace import make_workspace

    made = make_workspace(folder, package)
    place = folder.expanduser().resolve()
    new, left = ([name for name, is_new in made.items() if is_new is state] for state in (True, False))
    facts = {"workspace": str(place), "made": ", ".join(new) or "nothing", "left as they were": ", ".join(left) or None}
    if (home := os.environ.get("ORBIQUANT_HOME")) and Path(home).resolve() != place:
        facts["but"] = f"ORBIQUANT_HOME is {home}: commands and notebooks work there until it is unset"
    steps = next_steps(place, ("orbiquant", "demo"), ("jupyter", "lab tutorial.ipynb"), ("jupyter", "lab copilot.ipynb"))
    show({"workspace": place, "made": new, "left": left}, as_json, lambda: Group(fields(facts), steps))
