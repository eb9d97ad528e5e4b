"""Standard input and output as a protocol uses them: whole messages in, whole messages out, and nothing else out."""

# The SDK drops a line that it cannot read, so that whoever sent it waits for ever; here it is answered. Half of a
# character, as programs in JavaScript send it when they cut a text, is no reason to refuse the rest.

import asyncio
import json
import os
import sys
from typing import Any, BinaryIO, Self

MOST_LINE = 8_388_608  # bytes of one message
LAST_ANSWERS_S = 5.0  # after the other side has sent its last: what it asked is still answered
PARSE_ERROR, INVALID_REQUEST = -32700, -32600


def claim_wire() -> "Wire":
    "Return the wire: from now on whatever else reads standard input finds none, and what it prints goes to stderr."
    sys.stdout.flush()
    come, go = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        os.dup2(2, 1)
    except OSError:  # whoever started it gave no standard error
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return Wire(come, go)


def read_line(
    line: bytes,  # as it came
) -> tuple[dict[str, Any] | None, str]:
    "Return the message of a line, and the line as the SDK reads it; None, and what is answered, for one that is none."
    try:
        message = json.loads(line)
        whole = json.dumps(message, ensure_ascii=False).encode(errors="replace").decode()
    except (ValueError, RecursionError):
        said = f"a message may have {MOST_LINE:,} bytes" if len(line) == MOST_LINE else "Parse error"
        return None, refused_line(PARSE_ERROR, said)
    if isinstance(message, dict) and message.get("jsonrpc") == "2.0":
        return message, whole
    return None, refused_line(INVALID_REQUEST, "a line must be one JSON-RPC 2.0 message")


def refused_line(
    code: int,  # of JSON-RPC
    said: str,  # what is wrong
) -> str:
    "Return the answer to a line whose id nobody knows."
    return json.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": said}})


class Wire:
    "Both directions, as `stdio_server` takes them."

    def __init__(
        self,
        come: BinaryIO,  # what the other side sends
        go: BinaryIO,  # what it is told
    ) -> None:
        self.come, self.go, self.asked, self.told = come, go, 0, 0
        self.writing = asyncio.Lock()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        from anyio.to_thread import run_sync

        while line := await run_sync(self.read, abandon_on_cancel=True):
            if line.isspace():
                continue
            message, text = read_line(line)
            if message is not None:
                self.asked += "method" in message and "id" in message
                return text
            self.asked += 1
            await self.write(f"{text}\n")
        await self.finish()
        raise StopAsyncIteration

    def read(self) -> bytes:
        "Return the next line, as far as a message may go; nothing at the end."
        line = self.come.readline(MOST_LINE)
        if len(line) == MOST_LINE and not line.endswith(b"\n"):
            while (rest := self.come.readline(MOST_LINE)) and not rest.endswith(b"\n"):
                pass
        return line

    async def write(
        self,
        text: str,  # a message and the end of its line
    ) -> None:
        "Send a message."
        from anyio.to_thread import run_sync

        async with self.writing:
            await run_sync(self.put, text.encode())
        self.told += 1

    def put(
        self,
        line: bytes,  # as it goes out
    ) -> None:
        "Send a line whole."
        self.go.write(line)
        self.go.flush()

    async def flush(self) -> None:
        "Do nothing: what is written has gone out."

    async def finish(self) -> None:
        "Wait a little for the last answers: a question that was piped in is answered, too."
        for _ in range(round(LAST_ANSWERS_S / 0.05)):
            if self.told >= self.asked:
                return
            await asyncio.sleep(0.05)
