"""A real ipykernel, spoken to as a page does: cells, ■, the tab, comm messages beside them, a subshell, a kill."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

ROOT = Path(__file__).parents[2]
ANSWER_S = 120  # a busy machine
START = """
import orbiquant as oq
from orbiquant.runtime import current
from pydantic_ai.models.function import FunctionModel
from tests.tools.chat_words import speak
current().__dict__["chat_model"] = FunctionModel(stream_function=speak)
"""


@dataclass
class Ran:
    """What came of a cell, as a frontend would get it."""

    status: str = ""
    error: str = ""  # name of an error that was shown with a stack
    printed: str = ""  # on either stream
    shown: list[dict[str, Any]] = field(default_factory=list)  # bundles, the last state of each display
    updates: int = 0  # times that a display was drawn anew
    cells: list[str] = field(default_factory=list)  # that were put below
    seconds: float = 0.0
    after_interrupt: float = 0.0
    places: dict[str, int] = field(default_factory=dict)  # of displays with a name

    @property
    def text(self) -> str:
        """Return all that a person reads."""
        return "\n".join([self.printed, *(str(each.get("text/plain", "")) for each in self.shown)])

    def hear(self, kind: str, told: Mapping[str, Any]) -> None:
        """Add what a message says."""
        if kind == "stream":
            self.printed += told["text"]
        elif kind == "error":
            self.error = told["ename"]
            self.printed += "\n".join(told["traceback"])
        elif kind == "update_display_data":
            self.updates += 1
            if (place := self.places.get(told["transient"]["display_id"])) is not None:
                self.shown[place] = told["data"]
        elif kind in ("display_data", "execute_result"):
            if name := told.get("transient", {}).get("display_id"):
                self.places[name] = len(self.shown)
            self.shown.append(told["data"])


class Kernel:
    """A kernel and a client of it."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager, self.client = manager, client
        self.heard: list[dict[str, Any]] = []  # on iopub, in order
        self.subshell = ""

    def wait(self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = ANSWER_S) -> dict[str, Any]:
        """Return the first message that has not been looked at and is wanted."""
        until = time.monotonic() + timeout_s
        while (left := until - time.monotonic()) > 0:
            message = self.client.get_iopub_msg(timeout=left)
            self.heard.append(message)
            if wanted(message):
                return message
        raise TimeoutError

    def begin(self, code: str, cell: str = "") -> str:
        """Begin to run a cell, and return the id of the request."""
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        message = self.client.session.msg("execute_request", content, metadata={"cellId": cell} if cell else {})
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def end(self, request: str, interrupt_at: str = "") -> Ran:
        """Return what came of a cell when it has ended; where a text is given, press ■ as soon as it is shown."""
        mine = lambda each: each["parent_header"].get("msg_id") == request  # noqa: E731
        ran, begin, pressed, earlier = Ran(), time.monotonic(), 0.0, [*filter(mine, self.heard)]
        while True:
            message = earlier.pop(0) if earlier else self.wait(mine)
            if message["content"].get("execution_state") == "idle":
                break
            ran.hear(message["msg_type"], message["content"])
            if interrupt_at and not pressed and interrupt_at in ran.text:
                pressed = time.monotonic()
                self.manager.interrupt_kernel()
        reply, now = self._reply(request), time.monotonic()
        ran.status, ran.seconds, ran.after_interrupt = reply["status"], now - begin, now - pressed if pressed else 0.0
        below = [each for each in reply.get("payload", ()) if each["source"] == "set_next_input"]
        assert not any(each["replace"] for each in below), "the user's own cell stays as it is"
        ran.cells = [each["text"] for each in below]
        return ran

    def cell(self, code: str, interrupt_at: str = "") -> Ran:
        """Run a cell and return all that came of it."""
        return self.end(self.begin(code), interrupt_at)

    def run(self, code: str, cell: str = "") -> str:
        """Run a cell and return what it printed; an error of it is raised here."""
        ran = self.end(self.begin(code, cell))
        assert ran.status == "ok", ran.printed
        return ran.printed.strip()

    def complete(self, line: str) -> list[str]:
        """Return the lines that a tab would make of one."""
        told = self._reply(self.client.complete(line))
        return [line[: told["cursor_start"]] + each for each in told["matches"]]

    def help(self, name: str) -> str:
        """Return the help of a name."""
        return str(self._reply(self.client.inspect(name))["data"].get("text/plain", ""))

    def open_subshell(self) -> None:
        """Let comm messages go beside the cells, as JupyterLab does."""
        message = self.client.session.msg("create_subshell_request", {})
        self.client.control_channel.send(message)
        self.subshell = self.client.get_control_msg(timeout=ANSWER_S)["content"]["subshell_id"]

    def tell(self, model: str, told: Any) -> None:
        """Send what the page of a widget says."""
        content = {"comm_id": model, "data": {"method": "custom", "content": told}}
        message = self.client.session.msg("comm_msg", content)
        if self.subshell:
            message["header"]["subshell_id"] = self.subshell
        self.client.shell_channel.send(message)

    def answer(self, model: str, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = ANSWER_S) -> Any:
        """Return the first message to the page of a widget that is wanted."""
        return told_to(model, self.wait(lambda each: bool(told := told_to(model, each)) and wanted(told), timeout_s))

    def kill(self) -> None:
        """End the kernel as the system does when memory is out."""
        self.manager.provisioner.process.kill()
        self.manager.provisioner.process.wait(30)

    def _reply(self, request: str) -> Any:
        while True:
            found = self.client.get_shell_msg(timeout=ANSWER_S)
            if found["parent_header"].get("msg_id") == request:
                return found["content"]


def told_to(model: str, message: dict[str, Any]) -> dict[str, Any]:
    """Return what a message tells the page of a widget, nothing where it is about something else."""
    content = message["content"]
    if message["msg_type"] != "comm_msg" or content["comm_id"] != model or content["data"].get("method") != "custom":
        return {}
    told: dict[str, Any] = content["data"]["content"]
    return told


@contextmanager
def running_kernel(home: Path, notebook: str = "study.ipynb", start: str = START) -> Iterator[Kernel]:
    """Yield a kernel that works in a folder, for a notebook of it."""
    told = {"ORBIQUANT_HOME": str(home), "JPY_SESSION_NAME": str(home / notebook), "PYTHONPATH": str(ROOT)}
    manager = KernelManager()
    manager.start_kernel(cwd=str(home), env=os.environ | told)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=ANSWER_S)
        kernel = Kernel(manager, client)
        kernel.run(start)
        yield kernel
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
