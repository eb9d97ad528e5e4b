"""The folder between two programs: files that may be half written, and commands that appear whole or not at all."""

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ....core import BrokerUnavailable

_T = TypeVar("_T")
LOOK_PAUSE_S = 0.004
SLOTS = 50  # that the expert advisor looks through, from 0 to the first that is empty


class Folder:
    "The expert advisor's folder."

    def __init__(
        self,
        files: Path,  # `MQL4/Files` of the terminal
    ) -> None:
        "Use a folder that may not be there yet."
        self.path = files / "DWX"

    def file(
        self,
        name: str,  # such as `Orders`
    ) -> Path:
        "Return where a file is."
        return self.path / f"DWX_{name}.txt"

    def stamp(
        self,
        name: str,  # such as `Orders`
    ) -> int:
        "Return when a file was written, in ns by the clock of its disk; 0 where there is none."
        try:
            return self.file(name).stat().st_mtime_ns
        except OSError:
            return 0

    def read(
        self,
        name: str,  # such as `Orders`
    ) -> bytes | None:
        "Return what a file holds now, perhaps half of it; None where it cannot be read."
        try:
            return self.file(name).read_bytes()
        except OSError:
            return None

    def whole(
        self,
        name: str,  # such as `Orders`
        parse: Callable[[bytes], _T | None],  # returns None for half a file
        patience_s: float,  # for a writer to end
    ) -> _T | None:
        "Return what a file says once it is whole; None where it is not within the time."
        until = time.monotonic() + patience_s
        while True:
            content = self.read(name)
            if content is not None and (found := parse(content)) is not None:
                return found
            if time.monotonic() >= until:
                return None
            time.sleep(LOOK_PAUSE_S)

    def remove(
        self,
        name: str,  # such as `Historic_Trades`
    ) -> None:
        "Remove a file that was read, or is not to be read any more."
        try:
            self.file(name).unlink(missing_ok=True)
        except OSError as error:  # it is open on the other side
            raise BrokerUnavailable(f"{self.file(name)} cannot be removed: {type(error).__name__}") from error

    def waiting(self) -> dict[int, str]:
        "Return the commands that were not read yet, by slot."
        found = {}
        for slot in range(SLOTS):
            content = self.read(f"Commands_{slot}")
            if content is not None:
                found[slot] = content.decode("ascii", errors="replace")
        return found

    def put(
        self,
        text: str,  # of a command
    ) -> bool:
        "Write a command into the first slot, whole or not at all; False where one waits there."
        target = self.file("Commands_0")
        try:
            handle, scratch = tempfile.mkstemp(dir=self.path, prefix=".DWX_")
            with os.fdopen(handle, "wb") as file:
                file.write(text.encode("ascii"))
                file.flush()
                os.fsync(file.fileno())
            return _take_place(Path(scratch), target)
        except OSError as error:
            raise BrokerUnavailable(f"{self.path} cannot be written to: {error.strerror or error}") from error

    def withdraw(
        self,
        text: str,  # of a command that nobody reads
    ) -> None:
        "Take a command back; whoever has read it a moment ago carries it out all the same."
        if self.waiting().get(0) == text:
            self.remove("Commands_0")


def _take_place(scratch: Path, target: Path) -> bool:
    "Give a file its name unless another has it: a reader never meets half of it."
    try:
        os.link(scratch, target)  # unlike a rename, it takes nobody's place
    except FileExistsError:
        return False
    except OSError:  # a disk without links
        if target.exists():
            return False
        scratch.rename(target)
        return True
    finally:
        with suppress(OSError):  # what is left of it disturbs nobody
            scratch.unlink(missing_ok=True)
    return True
