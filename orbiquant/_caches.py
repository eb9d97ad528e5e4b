"""Where compiled loops are kept when the package's own folder cannot be written to, and what else is built once."""

import os
import stat
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"


def is_open(
    folder: Path,  # to be
) -> bool:
    "Say whether a folder is this user's alone to write to, and can be: it is made when it is not there."
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return found.st_uid == os.getuid() and not found.st_mode & (
        stat.S_IWGRP | stat.S_IWOTH
    )  # what is kept there is run


def are_writable() -> bool:
    "Say whether compiled loops can be kept beside their sources: ours and those of the installed libraries."
    library = find_spec("vectorbt")
    files = [__file__, library.origin if library else None]
    return all(os.access(Path(file).parent, os.W_OK) for file in files if file)


def folders(
    name: str = "numba",  # of what is kept there
) -> Iterator[Path]:
    "Yield where something that is built once could be kept, the preferred folder first."
    home = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("HOME") and f"{os.environ['HOME']}/.cache")
    if home:
        yield Path(home) / "orbiquant" / name
    if workspace := os.environ.get("ORBIQUANT_HOME"):
        yield Path(workspace).expanduser() / "data" / name
    yield Path(tempfile.gettempdir()) / f"orbiquant-{os.getuid()}" / name


def own_folder(
    name: str,  # of what is kept there
) -> Path | None:
    "Return the first folder that is this user's alone and can be written to; None where there is none."
    return next(filter(is_open, folders(name)), None)


def choose_cache() -> None:
    "Tell numba a folder it can write to where it would find none; one that is set stays."
    if VARIABLE in os.environ or are_writable():
        return
    if found := own_folder("numba"):
        os.environ[VARIABLE] = str(found)
