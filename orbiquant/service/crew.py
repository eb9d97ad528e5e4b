"""The processes beside the one that was started: further ones that serve, and one that works. Who ends is begun again."""

# Each is told what it needs in one line of standard input, which then stays open: it ends when we do, however we end. They
# have sessions of their own, so that a Ctrl-C at the terminal reaches them through us alone, in order.

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any, Self

from orbiquant.core import get_logger

ALIVE_EVERY_S = 0.2  # between two looks at who still lives
PAUSE_MOST_S = 30.0  # before who ended again and again is begun once more
STEADY_S = 60.0  # after which an end is a first one again
WORK = (sys.executable, "-c", "from orbiquant.cli import main; main()", "work", "--attached")


@dataclass
class Member:
    "One process that is kept alive."

    name: str  # for the log
    command: Sequence[str]
    told: Mapping[str, Any] = field(default_factory=dict)  # the first line of its standard input
    pass_fds: tuple[int, ...] = ()
    env: Mapping[str, str] | None = None  # None: ours
    patience_s: float = 15.0  # that it has to end in
    process: "subprocess.Popen[str] | None" = None
    begun_s: float = 0.0
    due_s: float = 0.0
    ended: int = 0  # times in a row

    def look(self) -> None:
        "Begin it, or begin it again when its pause is over."
        now = time.monotonic()
        if self.process is not None and (code := self.process.poll()) is not None:
            self.ended = 1 if now - self.begun_s > STEADY_S else self.ended + 1
            pause_s = min(PAUSE_MOST_S, 0.5 * 2 ** min(self.ended - 1, 10))
            get_logger("service").error("a process ended", process=self.name, code=code, begins_again_in_s=pause_s)
            self._forget()
            self.due_s = now + pause_s
        if self.process is None and now >= self.due_s:
            self._begin(now)

    def _begin(self, now: float) -> None:
        environment = dict(self.env) if self.env is not None else None
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, text=True, pass_fds=self.pass_fds, env=environment,
            start_new_session=True,
        )  # fmt: skip
        self.begun_s = now
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it ended already: the next look says so
            self.process.stdin.write(json.dumps(dict(self.told)) + "\n")
            self.process.stdin.flush()

    def ask_to_end(self) -> None:
        "Ask it to end in its own way."
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def see_off(
        self,
        until_s: float,  # of the monotonic clock
    ) -> None:
        "Wait for its end; end it for good when that takes too long."
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            get_logger("service").error("a process did not end in time and was killed", process=self.name)
            self.process.kill()
            self.process.wait()
        self._forget()

    def _forget(self) -> None:
        assert self.process is not None and self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process = None


class Crew:
    "Keeps its members alive for the length of a `with` block, and ends them after it."

    def __init__(
        self,
        members: Iterable[Member],  # not begun yet
    ) -> None:
        self.members = [*members]
        self._over = Event()
        self._thread = Thread(target=self._keep, name="crew", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for member in self.members:
            member.ask_to_end()
        now = time.monotonic()
        for member in self.members:
            member.see_off(now + member.patience_s)

    def _keep(self) -> None:
        while not self._over.is_set():
            for member in self.members:
                try:
                    member.look()
                except OSError as error:  # no memory, no processes: tried again
                    get_logger("service").error("a process cannot be begun", process=member.name, reason=str(error))
            self._over.wait(ALIVE_EVERY_S)


def working() -> Member:
    "Return the process that trades what was started, keeps the schedule and does what is queued."
    return Member("work", WORK)


def end_with_parent() -> None:
    "Ask this process to end when its standard input does: whoever began it is no more."

    def wait() -> None:
        while os.read(0, 4096):  # not through its buffer, whose lock would be held at the end
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=wait, name="end with parent", daemon=True).start()
