"""Programs that tests start and end."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def run_program(command: Sequence[Any], **options: Any) -> Iterator["subprocess.Popen[Any]"]:
    """Yield a program, which ends with the block when a test fails in it: `Popen` alone would wait for it for ever."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise
