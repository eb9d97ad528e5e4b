"""A real JupyterLab on a folder of its own, looked at with Chromium."""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Any

import httpx
import nbformat
from playwright.sync_api import Locator, Page, expect

from tests.tools.programs import run_program

QUIET = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
}
SESSION = "window.jupyterapp.shell.currentWidget.context.sessionContext.session"
READY = """() => {
  const panel = window.jupyterapp?.shell.currentWidget, session = panel?.context?.sessionContext?.session;
  return Boolean(panel?.context?.isReady && session?.kernel?.connectionStatus === "connected"
    && ["idle", "busy"].includes(session.kernel.status));
}"""
EXECUTE = """async (code) => {
  const kernel = window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel;
  const asked = kernel.requestExecute({ code, store_history: false });
  let said = "";
  asked.onIOPub = ({ content }) => { said += content.text ?? (content.traceback ?? []).join("\\n"); };
  const answer = await asked.done;
  return { ok: answer.content.status === "ok", said };
}"""
ADD_CELL = """async (code) => {
  const { commands, shell } = window.jupyterapp;
  const { model } = shell.currentWidget.content;
  model.sharedModel.addCell({ cell_type: "code", source: code });
  shell.currentWidget.content.activeCellIndex = model.cells.length - 1;
  commands.execute("notebook:run-cell");
}"""
CELLS = """() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells.map(
  (cell) => [cell.cell_type, [cell.source].flat().join("")])"""


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab."""

    folder: Path
    address: str
    http: httpx.Client

    def write(self, name: str, *sources: str) -> None:
        """Write a notebook of code cells."""
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        book = nbformat.v4.new_notebook(cells=cells)
        book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
        nbformat.write(book, self.folder / name)

    def share(self, name: str, kernel: str) -> None:
        """Let a notebook be opened with a kernel that runs already."""
        asked = {"path": name, "name": name, "type": "notebook", "kernel": {"id": kernel}}
        self.http.post("/api/sessions", json=asked).raise_for_status()

    def start_kernel(self) -> str:
        """Return the id of a new kernel."""
        return self.http.post("/api/kernels", json={"name": "python3"}).raise_for_status().json()["id"]

    def open(self, page: Page, name: str) -> "OpenNotebook":
        """Open a notebook and wait until its kernel is there."""
        page.goto(f"{self.address}/lab/tree/{name}?token=t&reset")
        return OpenNotebook(page).wait()


@dataclass(frozen=True)
class OpenNotebook:
    """A notebook in a page."""

    page: Page

    def wait(self) -> "OpenNotebook":
        """Wait until its kernel is there."""
        self.page.wait_for_function(READY, timeout=60_000)
        return self

    @property
    def kernel(self) -> str:
        """Return its kernel's id."""
        return self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel.id"
        )

    @property
    def status(self) -> str:
        """Return what its kernel does: idle, busy …"""
        return self.page.evaluate(f"() => {SESSION}.kernel.status")

    @property
    def cells(self) -> list[list[str]]:
        """Return kind and source of its cells."""
        return self.page.evaluate(CELLS)

    def do(self, command: str, **arguments: Any) -> None:
        """Begin one of Lab's commands."""
        self.page.evaluate("([c, a]) => { window.jupyterapp.commands.execute(c, a) }", [command, arguments])

    def run_all(self) -> None:
        """Begin to run all cells."""
        self.do("notebook:run-all-cells")

    def execute(self, code: str) -> str:
        """Run code in the kernel beside the cells, and return what it prints."""
        done = self.page.evaluate(EXECUTE, code)
        assert done["ok"], done["said"]
        return done["said"]

    def restart(self) -> None:
        """Restart the kernel: what its cells made is gone."""
        self.page.evaluate(f"() => {SESSION}.kernel.restart()")
        self.wait()

    def shut_down(self) -> None:
        """Shut the kernel down."""
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.context.sessionContext.shutdown()")

    def show(self, code: str) -> None:
        """Write a cell below the others and begin to run it."""
        self.page.evaluate(ADD_CELL, code)

    def save(self) -> None:
        """Write the notebook to its file."""
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.context.save()")

    def theme(self, name: str) -> None:
        """Change Lab's colours."""
        self.page.evaluate("(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", name)
        self.page.wait_for_function("(name) => document.body.dataset.jpThemeName === name", arg=name)

    def tab_to(self, place: Locator, most: int = 60) -> None:
        """Press the tabulator until something has the focus."""
        for _ in range(most):
            self.page.keyboard.press("Tab")
            if place.evaluate("(element) => element === document.activeElement"):
                return
        raise AssertionError(f"{most} tabs do not lead to {place}")

    def chat(self, view: int = 0) -> "ChatView":
        """Return a chat that the cells show, once it is there."""
        shown = ChatView(self.page.locator(".jp-OutputArea-output:has(.oq-composer)").nth(view))
        shown.composer.wait_for(timeout=60_000)
        return shown


@dataclass(frozen=True)
class ChatView:
    """A chat as a page shows it."""

    root: Locator

    @property
    def composer(self) -> Locator:
        """Return where a person writes."""
        return self.root.locator(".oq-composer")

    @property
    def answers(self) -> Locator:
        """Return what the copilot said."""
        return self.root.locator(".oq-answer")

    @property
    def tickets(self) -> Locator:
        """Return the tickets, the newest last."""
        return self.root.locator(".oq-ticket")

    @property
    def check(self) -> Locator:
        """Return the newest ticket's box of an override."""
        return self.tickets.last.get_by_role("checkbox")

    @property
    def press(self) -> Locator:
        """Return the newest ticket's control that approves."""
        return self.tickets.last.locator(".oq-approve")

    def button(self, name: str) -> Locator:
        """Return the newest control of a name."""
        return self.root.get_by_role("button", name=name, exact=True).last

    def ask(self, text: str) -> None:
        """Say something."""
        self.composer.fill(text)
        self.composer.press("Enter")

    def turn(self, text: str, timeout_s: float = 90) -> None:
        """Say something and wait until it has been answered."""
        said = self.root.locator(".oq-question:not(.oq-waiting)")
        before = said.count()
        self.ask(text)
        expect(said).to_have_count(before + 1, timeout=timeout_s * 1000)
        self.is_idle(timeout_s)

    def hears(self, text: str, timeout_s: float = 30) -> None:
        """Wait until something stands in the chat."""
        self.root.get_by_text(text).last.wait_for(timeout=timeout_s * 1000)

    def stands(self, state: str, timeout_s: float = 30) -> None:
        """Wait until the newest ticket is in a state."""
        expect(self.tickets.last).to_have_attribute("data-state", state, timeout=timeout_s * 1000)

    def is_settled(self) -> bool:
        """Wait while a decision is on its way, and say whether there is none to take any more."""
        expect(self.tickets.last).not_to_have_attribute("data-state", "deciding", timeout=30_000)
        return self.press.count() == 0

    def is_pending(self) -> None:
        """Wait until the newest ticket can be decided on."""
        self.press.wait_for()

    def ready_to_approve(self) -> None:
        """Wait for a ticket, and say that it is meant where that is asked."""
        self.is_pending()
        if self.check.count():
            self.check.check()

    def approve(self) -> None:
        """Approve the newest ticket."""
        self.ready_to_approve()
        self.press.click()

    def is_live(self) -> None:
        """Wait until the kernel has answered."""
        self.root.locator(".oq-chat[data-connection=live]").wait_for(timeout=60_000)

    def is_idle(self, timeout_s: float = 30) -> None:
        """Wait until the turn is over."""
        self.root.locator(".oq-stop").wait_for(state="hidden", timeout=timeout_s * 1000)

    def is_dead(self) -> None:
        """Wait until the chat says that nobody hears it, and look whether an order can be decided on."""
        self.root.locator(".oq-chat[data-connection=gone] .oq-notice", has_text="kernel").wait_for()
        for place in (self.check, self.press, self.button("Deny")):
            assert place.is_disabled()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def running_lab(folder: Path, environment: Mapping[str, str]) -> Iterator[Lab]:
    """Yield a JupyterLab that knows nothing of this machine's settings."""
    port, notebooks, settings = free_port(), folder / "notebooks", folder / "settings"
    notebooks.mkdir(parents=True)
    for name, values in QUIET.items():
        (settings / name).parent.mkdir(parents=True, exist_ok=True)
        (settings / name).write_text(json.dumps(values))
    own = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "run", "IPYTHONDIR": "py"}
    own = {name: str(folder / place) for name, place in own.items()}
    own["JUPYTERLAB_SETTINGS_DIR"] = str(settings)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root"]
    command += ["--ServerApp.port_retries=0", "--IdentityProvider.token=t", "--LabApp.expose_app_in_browser=True"]
    command += ["--LabApp.extension_manager=readonly", f"--ServerApp.root_dir={notebooks}", "--log-level=CRITICAL"]
    address = f"http://127.0.0.1:{port}"
    http = httpx.Client(base_url=address, headers={"Authorization": "token t"}, timeout=60)
    with http, run_program(command, env=os.environ | own | environment, cwd=notebooks) as program:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                if http.get("/api/status").is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        yield Lab(notebooks, address, http)
        program.terminate()
