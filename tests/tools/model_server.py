"""Models behind an OpenAI-compatible address over real HTTP, and one that does what a test tells it."""

import json
import re
import select
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self


class ModelServer(ThreadingHTTPServer):
    """An OpenAI-compatible server."""

    daemon_threads = True

    def __init__(self, handler: type["ModelHandler"]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.asked: list[dict[str, Any]] = []
        self.tokens, self.ended = 100, "stop"  # in the question, and why an answer ends

    @property
    def address(self) -> str:
        """Return what goes into `base_url`."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def usage(self) -> dict[str, int]:
        """Return what is told of an answer's length."""
        return {"prompt_tokens": self.tokens, "completion_tokens": 1, "total_tokens": self.tokens + 1}

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Serve for the length of a `with` block."""
        thread = Thread(target=self.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class ModelHandler(BaseHTTPRequestHandler, ABC):
    """Answers one question."""

    server: Any
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Answer in pieces."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        self.answer(body)

    def answer(self, body: dict[str, Any]) -> None:
        """Send an answer."""
        self.stream(body)

    def send_json(self, status: int, content: dict[str, Any]) -> None:
        """Send an answer with its length."""
        told = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def stream(self, body: dict[str, Any]) -> None:
        """Send the answer in pieces."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for delta in self.deltas(body):
            self.send({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        self.send({"choices": [{"index": 0, "delta": {}, "finish_reason": self.server.ended}]})
        self.send({"choices": [], "usage": self.server.usage})
        self.write("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    @abstractmethod
    def deltas(self, body: dict[str, Any]) -> Iterable[dict[str, Any]]:
        """Yield the pieces of an answer."""

    def send(self, chunk: dict[str, Any]) -> None:
        """Send one piece."""
        told = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "played"} | chunk
        self.write(f"data: {json.dumps(told)}\n\n")

    def write(self, text: str) -> None:
        """Send a chunk of HTTP."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text.encode()))
        self.wfile.flush()


# --- a model that does what a test tells it ---

Step = str | float | Mapping[str, Any]  # words, seconds to wait, or tools to call with what
Act = Callable[[str, list[str]], Iterable[Step]]  # of what the user said and what tools have answered since
SIDES = {"buy": "BUY", "sell": "SELL", "compra": "BUY", "vende": "SELL"}
ORDER = re.compile(
    r"(?i)(buy|sell|compra|vende) ([\d.]+) (?:lots? of|lotes de) (\w+),? stop ([\d.]+)(?:,? target ([\d.]+))?"
)


def tag(number: int) -> str:
    """Return a word of its own for a number: figures without an origin are not let through."""
    letters = "bcdfghklmnprstvz"
    return "".join(letters[number >> shift & 15] + "a" for shift in (8, 4, 0))


def recite(lines: int, gap_s: float) -> Act:
    """Return an act that says line after line."""

    def act(said: str, results: list[str]) -> Iterator[Step]:
        for number in range(lines):
            yield f"The tide brings {tag(number)} to the shore.\n\n"
            yield gap_s

    return act


def propose(said: str, results: list[str]) -> Iterator[Step]:
    """Propose the order that a message asks for, and say when it has been decided."""
    if results:
        yield "That is how it went.\n"
        return
    side, size, symbol, stop, target = ORDER.search(said).groups()  # type: ignore[union-attr]
    wish = {"symbol": symbol, "action": SIDES[side.lower()], "size": size, "stop_loss": stop, "take_profit": target}
    yield {"execute_trade": {name: value for name, value in wish.items() if value is not None}}


def look(tool: str, words: str, **arguments: Any) -> Act:
    """Return an act that calls a tool and then says something."""

    def act(said: str, results: list[str]) -> Iterator[Step]:
        yield words if results else {tool: arguments}

    return act


class PlayedHandler(ModelHandler):
    """Does what the act of a message says."""

    server: "PlayedModel"

    def answer(self, body: dict[str, Any]) -> None:
        """Send an answer, unless whoever asked hangs up, or the server does not want to."""
        if self.server.status != 200:
            return self.send_json(self.server.status, {"error": {"message": "not now", "type": "api_error"}})
        try:
            self.stream(body)
        except ConnectionError:
            self.server.left.append(time.time())
            self.close_connection = True

    def deltas(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the pieces of an answer, and note when each goes."""
        self.server.tokens = len(json.dumps(body)) // 4
        place, said = max((n, each["content"]) for n, each in enumerate(body["messages"]) if each["role"] == "user")
        results = [str(each["content"]) for each in body["messages"][place + 1 :] if each["role"] == "tool"]
        act = next((act for word, act in self.server.acts.items() if word in said.lower()), None)
        calls = 0
        for step in act(said, results) if act else ("I see.\n",):
            if isinstance(step, str):
                self.server.sent.append((time.time(), step))
                yield {"content": step}
            elif isinstance(step, Mapping):
                for name, arguments in step.items():
                    called = {"name": name, "arguments": json.dumps(arguments)}
                    id_ = f"call-{len(self.server.asked)}-{calls}"
                    yield {"tool_calls": [{"index": calls, "id": id_, "type": "function", "function": called}]}
                    calls += 1
            else:
                self.wait(step)

    def wait(self, seconds: float) -> None:
        """Wait, and notice at once when whoever asked hangs up."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self.connection], [], [], left)[0]:
                if not self.connection.recv(1, socket.MSG_PEEK):
                    raise ConnectionResetError
                time.sleep(left)


class PlayedModel(ModelServer):
    """A model that acts by the first known word in what the user says."""

    def __init__(self, **acts: Act) -> None:
        super().__init__(PlayedHandler)
        self.acts: dict[str, Act] = dict.fromkeys(SIDES, propose) | acts
        self.sent: list[tuple[float, str]] = []  # when each piece went out
        self.status = 200
        self.left: list[float] = []  # when somebody hung up in mid-answer
