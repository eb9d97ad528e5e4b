"""The page of commands, asked of the parser that runs them."""

import re
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from deploy.docs.pages import cell, fenced
from orbiquant.cli.examples import EXAMPLES
from orbiquant.cli.program import program


def leaves(group: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command with the words that reach it."""
    for name, command in (group or get_command(program)).commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, (*words, name))
        else:
            yield (*words, name), command


def options(command: Any) -> Iterator[str]:
    """Yield the rows of a command's arguments and options."""
    for one in command.params:
        if one.name == "help" or getattr(one, "hidden", False):
            continue
        called = (*one.opts, *one.secondary_opts) if one.opts[0].startswith("-") else (one.metavar or one.name.upper(),)
        name = ", ".join(f"`{word}`" for word in called)
        yield f"| {name} | {cell(' '.join((one.help or '').split()))} |"


def command_part(words: tuple[str, ...], command: Any) -> str:
    """Return what one command is for, an example of it and what it takes."""
    said = re.sub(r"[\b\f]", "", command.help or "").strip()
    rows = [*options(command)]
    table = "\n".join(["| takes | meaning |", "|---|---|", *rows]) if rows else ""
    example = fenced("sh", f"orbiquant {EXAMPLES[words]}")
    return "\n\n".join(filter(None, [f"## orbiquant {' '.join(words)}", said, example, table]))


def commands_page() -> str:
    """Return the page of all commands."""
    said = "Each takes `--help`; each that prints a result takes `--json`; `--debug` shows the traceback of an error."
    return "\n\n".join(["# Commands", said, *(command_part(words, command) for words, command in leaves())])
