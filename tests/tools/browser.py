"""A real Chromium for tests: the system's, Playwright's own download, or the system's package when root."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import pytest
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

from orbiquant.reports.pdf import own_browser

expect.set_options(timeout=20_000)  # a busy machine draws late
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def installed() -> str | None:
    """Return a browser that is already on this machine."""
    with sync_playwright() as playwright:
        return own_browser(playwright)


def run(*command: str) -> str:
    """Run a command; return an empty string when it worked and the last line it said otherwise."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=os.environ | {"CI": "1"})
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]}: {error}"
    said = (done.stdout + done.stderr).strip().splitlines()
    return "" if done.returncode == 0 else f"{' '.join(command[:4])}: {said[-1] if said else done.returncode}"


@lru_cache(maxsize=1)
def find_browser() -> tuple[str | None, str]:
    """Return a browser, fetched when there is none, and why there is none."""
    found = installed()
    if found:
        return found, ""
    reasons = [run(sys.executable, "-m", "playwright", "install", "chromium")]
    if reasons[0] and os.geteuid() == 0 and shutil.which("apt-get"):
        packages = ("chromium", "fonts-noto-color-emoji")
        reasons.append(run("apt-get", "update", "-qq"))
        reasons.append(run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages))
    return installed(), "; ".join(filter(None, reasons))


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Yield a headless Chromium; skip the test, saying why, when none can be had."""
    path, reason = find_browser()
    if path is None:
        pytest.skip(f"NO BROWSER: pages were not looked at. Install Chromium to run this test ({reason})")
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        except Error as error:
            pytest.skip(f"NO BROWSER: {path} does not start, so pages were not looked at ({error})")
        yield browser
        browser.close()


class Witness:
    """What a page asked of the network, what went wrong and what it said, from the moment it is opened."""

    def __init__(self, page: Page) -> None:
        self.asked: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("requestfailed", lambda request: self.errors.append(f"{request.failure}: {request.url}"))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if said.type in ("error", "warning") else None)

    def outside(self, page: Page) -> list[str]:
        """Return the addresses asked for beyond the page itself and data inside it."""
        return [url for url in self.asked if url != page.url and not url.startswith(("data:", "blob:"))]
