"""A real kernel that a test types into: runs, interrupts, completes, and hands over what a frontend would get."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

ANSWER_S = 120  # a busy machine


@dataclass
class Ran:
    """What came of a cell."""

    status: str = ""
    error: str = ""  # name of an error that was shown with a stack
    printed: str = ""  # on either stream
    shown: list[dict[str, Any]] = field(default_factory=list)  # bundles, the last state of each display
    updates: list[float] = field(default_factory=list)  # when a display was drawn anew
    cells: list[str] = field(default_factory=list)  # that were put below
    seconds: float = 0.0
    after_interrupt: float = 0.0

    @property
    def text(self) -> str:
        """Return all that a person reads."""
        return "\n".join([self.printed, *(str(each.get("text/plain", "")) for each in self.shown)])


class Kernel:
    """A kernel with a client."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager, self.client = manager, client

    def _reply(self, message: str) -> Any:
        while True:
            found = self.client.get_shell_msg(timeout=ANSWER_S)
            if found["parent_header"].get("msg_id") == message:
                return found["content"]

    def run(self, code: str, interrupt_at: str = "") -> Ran:
        """Run a cell; where a text is given, press ■ as soon as it is shown."""
        ran, begin, places, pressed = Ran(), time.monotonic(), dict[str, int](), 0.0
        message = self.client.execute(code)
        while True:
            found = self.client.get_iopub_msg(timeout=ANSWER_S)
            if found["parent_header"].get("msg_id") != message:
                continue
            kind, told = found["msg_type"], found["content"]
            if kind == "status" and told["execution_state"] == "idle":
                break
            _hear(ran, kind, told, places)
            if interrupt_at and not pressed and interrupt_at in ran.text:
                pressed = time.monotonic()
                self.manager.interrupt_kernel()
        reply, now = self._reply(message), time.monotonic()
        ran.status, ran.seconds, ran.after_interrupt = reply["status"], now - begin, now - pressed if pressed else 0.0
        below = [each for each in reply.get("payload", ()) if each["source"] == "set_next_input"]
        assert not any(each["replace"] for each in below), "the user's own cell stays as it is"
        ran.cells = [each["text"] for each in below]
        return ran

    def complete(self, line: str) -> list[str]:
        """Return the lines that a tab would make of one."""
        told = self._reply(self.client.complete(line))
        return [line[: told["cursor_start"]] + each for each in told["matches"]]

    def help(self, name: str) -> str:
        """Return the help of a name."""
        return str(self._reply(self.client.inspect(name))["data"].get("text/plain", ""))


def _hear(ran: Ran, kind: str, told: Mapping[str, Any], places: dict[str, int]) -> None:
    if kind == "stream":
        ran.printed += told["text"]
    elif kind == "error":
        ran.error = told["ename"]
        ran.printed += "\n".join(told["traceback"])
    elif kind == "update_display_data":
        ran.updates.append(time.monotonic())
        ran.shown[places[told["transient"]["display_id"]]] = told["data"]
    elif kind in ("display_data", "execute_result"):
        if name := told.get("transient", {}).get("display_id"):
            places[name] = len(ran.shown)
        ran.shown.append(told["data"])


@contextmanager
def running_kernel(folder: Path) -> Iterator[Kernel]:
    """Return a kernel whose workspace is a folder."""
    manager = KernelManager(kernel_name="python3")
    root = Path(__file__).parents[2]
    manager.start_kernel(cwd=str(folder), env=os.environ | {"ORBIQUANT_HOME": str(folder), "PYTHONPATH": str(root)})
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=ANSWER_S)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
