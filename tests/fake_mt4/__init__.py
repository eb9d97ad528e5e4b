"""A MetaTrader 4 terminal of the tests: a trade server, an expert advisor that speaks DWX Connect, a folder of files.

It imports nothing of the package and runs as a process of its own: `python -m tests.fake_mt4 FOLDER`. Files are the
protocol; what the market, the server or the weather does is told on its standard input, one JSON object a line.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.tools.programs import run_program


class FakeTerminal:
    """The handle of a running terminal."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        """Take over its standard input and output."""
        self.process, self.folder = process, folder

    def tell(self, do: str, **facts: Any) -> Any:
        """Let something happen, and return what the terminal answers once it has."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do} | facts) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert "fault" not in answer, answer["fault"]
        return answer["answer"]

    def price(self, bid: Any, symbol: str = "EURUSD", ask: Any = None) -> None:
        """Move a market; the spread is a pip where no other is said."""
        self.tell("price", symbol=symbol, bid=str(bid), ask=None if ask is None else str(ask))

    def fault(self, on: str, **what: Any) -> None:
        """Let the next request of a kind (`send`, `close`, `modify`, `history`) go wrong."""
        self.tell("fault", on=on, **what)

    def log(self, kind: str = "") -> list[dict[str, Any]]:
        """Return what the trade server wrote down, the judge's own word: nothing in it is ever changed."""
        path = self.folder / "server.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if kind in ("", line["kind"])]


@contextmanager
def fake_terminal(folder: Path, *options: Any) -> Iterator[FakeTerminal]:
    """Yield a terminal that runs on a folder; what its server knows is taken up where an earlier one left it."""
    command = [sys.executable, "-m", "tests.fake_mt4", folder, *options]
    root, pipe = Path(__file__).parents[2], subprocess.PIPE
    with run_program([*map(str, command)], stdin=pipe, stdout=pipe, text=True, cwd=root) as process:
        terminal = FakeTerminal(process, folder)
        terminal.tell("hello")
        yield terminal
