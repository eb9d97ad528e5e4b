"""`kill -9` at an instruction: of the so many-th transaction or sending, the so many-th that runs."""

import os
import signal
import sys
from types import FrameType
from typing import Any

from tests.chaos.wire import Gate

PLACES = ("/orbiquant/trading/", "/orbiquant/persistence.py", "/sqlalchemy/engine/", "/tests/chaos/wire.py")


class Countdown:
    """Waits for a window to open, then counts the instructions of what writes and sends, and ends the process."""

    def __init__(self, gate: Gate, window: int, instruction: int, sending: bool) -> None:
        """Aim at an instruction of a window; `sending`: between the commit of an intent and its answer's."""
        self.gate, self.window, self.left, self.sending = gate, window, instruction, sending
        self.windows = self.seen = 0
        self._known: dict[str, bool] = {}

    def opened(self, sending: bool) -> None:
        """Hear that a transaction has begun, or a sending; from the window that is aimed at, count."""
        if sending is not self.sending:
            return
        self.windows += 1
        if self.windows == self.window:
            sys.settrace(self._call)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if (counted := self._known.get(name)) is None:
            counted = self._known[name] = any(place in name for place in PLACES)
        if not counted:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._instruction

    def _instruction(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode" and self.gate.counts(self.sending):
            self.seen += 1
            if self.seen == self.left:
                name = "/".join(frame.f_code.co_filename.split("/")[-2:])
                self.gate.note(f"{name}:{frame.f_lineno} instruction {frame.f_lasti} of {frame.f_code.co_name}")
                os.kill(os.getpid(), signal.SIGKILL)
        return self._instruction
