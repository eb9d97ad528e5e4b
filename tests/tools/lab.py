"""A real JupyterLab on a folder of its own, looked at with Chromium."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import socket

import httpx
import nbformat
from playwright.sync_api import Page

from tests.tools.programs import run_program

QUIET = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
}
READY = """() => {
  const panel = window.jupyterapp?.shell.currentWidget, session = panel?.context?.sessionContext?.session;
  return Boolean(panel?.context?.isReady && session?.kernel?.connectionStatus === "connected"
    && session.kernel.status === "idle");
}"""


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab."""

    folder: Path
    address: str

    def write(self, name: str, *sources: str) -> None:
        """Write a notebook of code cells."""
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        book = nbformat.v4.new_notebook(cells=cells)
        book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
        nbformat.write(book, self.folder / name)

    def open(self, page: Page, name: str) -> None:
        """Open a notebook and wait until its kernel is there."""
        page.goto(f"{self.address}/lab/tree/{name}?token=t&reset")
        page.wait_for_function(READY, timeout=60_000)

    def run_all(self, page: Page) -> None:
        """Begin to run all cells."""
        page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def running_lab(folder: Path, **environment: str) -> Iterator[Lab]:
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
    command += ["--LabApp.extension_manager=readonly", f"--ServerApp.root_dir={notebooks}"]
    address = f"http://127.0.0.1:{port}"
    with run_program(command, env=os.environ | own | environment, cwd=notebooks) as program:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                if httpx.get(f"{address}/api/status?token=t").is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        yield Lab(notebooks, address)
        program.terminate()
