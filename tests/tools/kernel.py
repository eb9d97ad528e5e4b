"""A real ipykernel, spoken to as a page does: cells, comm messages beside them, a subshell, a kill."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

ROOT = Path(__file__).parents[2]
START = """
import orbiquant as oq
from orbiquant.runtime import current
from pydantic_ai.models.function import FunctionModel
from tests.tools.chat_words import speak
current().__dict__["chat_model"] = FunctionModel(stream_function=speak)
"""


class Kernel:
    """A kernel and a client of it."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager, self.client = manager, client
        self.heard: list[dict[str, Any]] = []  # on iopub, in order
        self.subshell = ""

    def wait(self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = 30) -> dict[str, Any]:
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

    def end(self, request: str) -> list[dict[str, Any]]:
        """Wait for the end of a cell and return its outputs."""
        mine = lambda each: each["parent_header"].get("msg_id") == request  # noqa: E731
        done = lambda each: mine(each) and each["content"].get("execution_state") == "idle"  # noqa: E731
        self.wait(done, 60)
        kinds = ("stream", "execute_result", "display_data", "error")
        return [each for each in self.heard if mine(each) and each["msg_type"] in kinds]

    def run(self, code: str, cell: str = "") -> str:
        """Run a cell and return what it printed; an error of it is raised here."""
        outputs = self.end(self.begin(code, cell))
        for each in outputs:
            if each["msg_type"] == "error":
                raise AssertionError("\n".join(each["content"]["traceback"]))
        return "".join(each["content"].get("text", "") for each in outputs if each["msg_type"] == "stream").strip()

    def open_subshell(self) -> None:
        """Let comm messages go beside the cells, as JupyterLab does."""
        message = self.client.session.msg("create_subshell_request", {})
        self.client.control_channel.send(message)
        self.subshell = self.client.get_control_msg(timeout=30)["content"]["subshell_id"]

    def tell(self, model: str, told: Any) -> None:
        """Send what the page of a widget says."""
        content = {"comm_id": model, "data": {"method": "custom", "content": told}}
        message = self.client.session.msg("comm_msg", content)
        if self.subshell:
            message["header"]["subshell_id"] = self.subshell
        self.client.shell_channel.send(message)

    def answer(self, model: str, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = 30) -> dict[str, Any]:
        """Return the first message to the page of a widget that is wanted."""
        return told_to(model, self.wait(lambda each: bool(told := told_to(model, each)) and wanted(told), timeout_s))

    def kill(self) -> None:
        """End the kernel as the system does when memory is out."""
        self.manager.provisioner.process.kill()
        self.manager.provisioner.process.wait(30)


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
        client.wait_for_ready(timeout=60)
        kernel = Kernel(manager, client)
        kernel.run(start)
        yield kernel
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
