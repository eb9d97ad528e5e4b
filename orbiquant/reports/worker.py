"""What runs inside the child process of a report: papermill, the page, the result."""

# `orbiquant.reports.run` starts it as `python -m orbiquant.reports.worker RUN_FOLDER WORKSPACE SOCKETS`, and nothing else does.
# Its standard output carries one JSON line a cell to the caller. Its standard input is the lifeline: the caller never writes
# to it, and when it ends the caller is gone, so that kernel and worker have no one to work for.

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import Any, TextIO

from pydantic_core import from_json

from orbiquant.reports.result import ReportFailure, ReportRun
from orbiquant.reports.run import conclude


def hold_lifeline(
    sockets: Path,  # the kernel's folder, which goes too
) -> None:
    "End this process and its kernel as soon as standard input closes."

    def wait() -> None:
        import psutil

        os.read(0, 1)
        for member in psutil.Process().children(recursive=True):
            member.kill()
        shutil.rmtree(sockets, ignore_errors=True)
        os._exit(3)

    Thread(target=wait, daemon=True).start()


def take_stdout() -> TextIO:
    "Return standard output as the caller's channel, and send what anyone prints to the log instead."
    channel = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    return channel


class CurrentCell:
    "The code cell a run is at: its number among the code cells, as `In [n]` shows, and the heading above it."

    def __init__(
        self,
        tell: Callable[[dict[str, Any]], None],  # told at every cell
    ) -> None:
        self.tell = tell
        self.left = False
        self.at: dict[str, Any] = {"index": 0, "total": 0, "heading": ""}

    def arrive(
        self,
        cells: Sequence[Any],  # of the notebook
        cell_index: int,  # of the one that starts, counting prose too
    ) -> None:
        "Note that a cell starts."
        code = [cell.cell_type == "code" and bool(cell.source.strip()) for cell in cells]
        prose = [cell.source for cell in cells[:cell_index] if cell.cell_type == "markdown"]
        headings = [found[1].strip() for text in prose for found in re.finditer(r"^#+ (.+)$", text, re.MULTILINE)]
        at = {"index": sum(code[: cell_index + 1]), "total": sum(code), "heading": headings[-1] if headings else ""}
        self.at = at
        self.tell(at)

    def leave(
        self,
        reply: dict[str, Any],  # the kernel's answer to a cell
    ) -> None:
        "Note whether a cell ended the notebook before its end: by `sys.exit()`, whatever its code, or by `exit`."
        content = reply.get("content", {})
        asked = [part.get("source") for part in content.get("payload") or ()]
        self.left = self.left or content.get("ename") == "SystemExit" or "ask_exit" in asked

    def failure(
        self,
        error: BaseException,  # what ended the run
    ) -> ReportFailure:
        "Return an error with its place; a notebook's own error is told as it was raised there."
        kind, message = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
        if kind == "SystemExit":
            message = f"the cell left the notebook before its end (exit {message or 0})"
        lines = "\n".join(getattr(error, "traceback", ()))
        return ReportFailure(
            type=kind,
            message=message,
            cell=self.at["index"] or None,
            heading=self.at["heading"],
            traceback=re.sub(r"\x1b\[[0-9;]*m", "", lines),
        )


def execute(
    run: ReportRun,  # its notebook in place; the current folder is its folder
    home: Path,  # folder the kernel starts in
    sockets: Path,  # folder for the kernel's sockets
    place: CurrentCell,  # told of every cell
) -> None:
    """Execute a run's notebook with papermill, which saves it after every cell.

    The kernel is reached over sockets in a folder of the caller's, not over ports: kernels that start at once cannot take
    one another's port, and no other user of the machine can listen.
    """
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # a jsonschema extra: 1.7 s to import, unused here
    import papermill
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import Engine, papermill_engines
    from traitlets.config import Config

    class ReportEngine(Engine):
        "papermill's own engine, telling where it is."

        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **_: Any) -> None:
            "Execute the notebook."
            client = PapermillNotebookClient(
                nb_man,
                kernel_name=kernel_name,
                startup_timeout=120,
                config=Config(
                    {"ConnectionFileMixin": {"transport": "ipc", "connection_file": f"{sockets}/kernel.json"}}
                ),
                resources={"metadata": {"path": str(home)}},
                on_cell_execute=lambda cell, cell_index: place.arrive(nb_man.nb.cells, cell_index),
                on_cell_executed=lambda cell, cell_index, execute_reply: place.leave(execute_reply),
            )
            client.execute()

    papermill_engines.register("orbiquant", ReportEngine)
    papermill.execute_notebook(
        run.notebook.name,
        run.notebook.name,
        run.parameters,
        engine_name="orbiquant",
        kernel_name="orbiquant",
        language="python",
        progress_bar=False,
    )
    if (
        place.left
    ):  # papermill takes `sys.exit(0)` for a good end, and a kernel that was asked to go for one that is done
        raise SystemExit


def run_worker(
    folder: Path,  # of the run
    home: Path,  # workspace
    sockets: Path,  # folder for the kernel's sockets
) -> None:
    "Execute, describe and close one run."
    hold_lifeline(sockets)
    channel = take_stdout()
    place = CurrentCell(lambda at: print(json.dumps(at), file=channel))
    run = ReportRun.model_validate(from_json((folder / "run.json").read_bytes()) | {"folder": folder})
    try:
        execute(run, home, sockets, place)
    except (Exception, SystemExit) as error:
        conclude(run, "failed", place.failure(error))
    else:
        conclude(run, "succeeded")


if __name__ == "__main__":
    run_worker(*map(Path, sys.argv[1:]))
