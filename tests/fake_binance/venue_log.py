"""The venue's own log: one JSON object a line; what changes anything is on the disk before it is answered."""

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
    """An append-only file, which a judge reads. Records of one `deed` came about at once."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._waiting: list[str] = []
        self._number = self._deed = 0
        self._changes = False

    def write(self, kind: str, **fields: Any) -> None:
        """Note something that happened; it is on the disk after `sync`."""
        self._number += 1
        record = {"n": self._number, "deed": self._deed, "wall_ns": time.time_ns(), "kind": kind} | fields
        self._changes |= kind != "heard"
        self._waiting.append(json.dumps(record, default=plain, ensure_ascii=False))

    def sync(self) -> None:
        """Write what waits; unless nothing but questions was heard, have it on the disk when this returns."""
        if not self._waiting:
            return
        text = "\n".join([*self._waiting, ""])
        self._waiting.clear()
        self._deed += 1
        os.write(self._descriptor, text.encode())
        if self._changes:
            os.fdatasync(self._descriptor)
            self._changes = False

    def close(self) -> None:
        """End the file."""
        self.sync()
        os.fdatasync(self._descriptor)
        os.close(self._descriptor)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return every whole record of a log, oldest first."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]
