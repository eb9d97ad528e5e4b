"""The venue's own log: one JSON object a line, on the disk before anything is answered."""

import json
import os
import time
from decimal import Decimal
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it, exactly."""
    if isinstance(value, Decimal):
        return format(value, "f")
    raise TypeError(f"{type(value).__name__} does not belong into the log")


class VenueLog:
    """An append-only file, which a judge reads."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._waiting: list[str] = []
        self._number = 0

    def write(self, kind: str, **fields: Any) -> None:
        """Note something that happened; it is on the disk after `sync`."""
        self._number += 1
        record = {"n": self._number, "wall_ns": time.time_ns(), "kind": kind} | fields
        self._waiting.append(json.dumps(record, default=plain, ensure_ascii=False))

    def sync(self) -> None:
        """Put what waits on the disk."""
        if not self._waiting:
            return
        text = "\n".join([*self._waiting, ""])
        self._waiting.clear()
        os.write(self._descriptor, text.encode())
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """End the file."""
        self.sync()
        os.close(self._descriptor)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return every whole record of a log, oldest first."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]
