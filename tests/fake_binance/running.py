"""The venue running beside a test, and what a test holds of it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.fake_binance.service import KEY, SECRET
from tests.fake_binance.venue_log import read_log
from tests.tools.programs import run_program

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class RunningBinance:
    """A venue that runs: where it is, and what it may be told."""

    port: int
    folder: Path
    key: str = KEY
    secret: str = SECRET

    @property
    def url(self) -> str:
        """Return where REST begins."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """Return where WebSockets begin."""
        return f"ws://127.0.0.1:{self.port}"

    def control(self, deed: str, **told: Any) -> Any:
        """Tell the venue something, and return what it says."""
        data = json.dumps(told, default=str).encode()
        request = Request(f"{self.url}/control/{deed}", data, {"Content-Type": "application/json"}, method="POST")
        try:
            with urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except HTTPError as error:
            raise AssertionError(error.read().decode()) from error

    def price(self, symbol: str, price: Any) -> None:
        """Let a market trade at a price."""
        self.control("price", symbol=symbol, price=str(price))

    def log(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the venue's log, or the records of a kind."""
        return [record for record in read_log(self.folder / "venue.jsonl") if kind in (None, record["kind"])]


@contextmanager
def running_binance(folder: Path, *options: str) -> Iterator[RunningBinance]:
    """Yield a venue that runs in a folder; options are those of its command line."""
    command = [sys.executable, "-m", "tests.fake_binance", folder, *options]
    with run_program(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        port = process.stdout.readline() if process.stdout else ""
        assert port.strip(), "the venue did not start"
        try:
            yield RunningBinance(int(port), folder)
        finally:
            process.terminate()
