"""A local Bot API: the rules that Telegram's server holds a bot to, and its moods on demand."""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import Any

TOKEN = "42:hunter2-AAFsecret"
BOT = {"id": 42, "is_bot": True, "first_name": "Orbi", "username": "orbi_bot"}
MOST_UNITS, MOST_DATA = 4096, 64
ENTITIES = {"bold", "italic", "underline", "strikethrough", "spoiler", "blockquote", "code", "pre"}


class Refused(Exception):
    """What the server does not do."""

    def __init__(self, code: int, said: str, **parameters: Any) -> None:
        super().__init__(said)
        self.body = {"ok": False, "error_code": code, "description": said}
        self.body |= {"parameters": parameters} if parameters else {}


def units(text: str) -> int:
    """Return a text's length as Telegram counts it."""
    return len(text.encode("utf-16-le")) // 2


class FakeTelegram:
    """A server with chats, messages and updates; `fail` lets calls of a method go wrong."""

    def __init__(self, edit_s: float = 0) -> None:
        self.edit_s = edit_s  # a chat that is written to faster is answered 429
        self.changed = Condition()
        self.updates: list[dict[str, Any]] = []
        self.number, self.message_number, self.poller = 100, 0, 0
        self.messages: dict[tuple[int, int], dict[str, Any]] = {}
        self.calls: list[tuple[str, dict[str, Any], float]] = []
        self.answers: dict[str, str] = {}
        self.open: set[str] = set()
        self.faults: dict[str, list[Any]] = defaultdict(list)
        self.blocked: set[int] = set()
        self.last: dict[int, float] = {}
        self.webhook = False

    # --- what a test does ---

    def write(self, account: int, text: str | None, chat: int | None = None, **more: Any) -> int:
        """Let a person write; return the number of the update."""
        place = {"id": chat or account, "type": "private" if chat is None else "supergroup"}
        words = (text or "").split()
        found = [("bot_command", words[0])] if words and words[0].startswith("/") else []
        found += [("mention", word) for word in words if word.startswith("@")]
        entities = [
            {"type": kind, "offset": units((text or "")[: (text or "").index(word)]), "length": units(word)}
            for kind, word in found
        ]
        who = {"id": account, "is_bot": False, "first_name": "Ana", "language_code": "en"}
        message = {"from": who, "chat": place, "date": 1, "entities": entities} | (
            {} if text is None else {"text": text}
        )
        with self.changed:
            self.message_number += 1
            return self.put({"message": {"message_id": self.message_number} | message | more})

    def press(self, account: int, message: dict[str, Any], data: str, **more: Any) -> str:
        """Let a person press a button, or send what no button holds; return the query's id."""
        with self.changed:
            query = f"q{self.number}"
            self.open.add(query)
            who = {"id": account, "is_bot": False, "first_name": "<b>/approve</b>", "language_code": "en"}
            self.put({"callback_query": {"id": query, "from": who, "message": message, "data": data} | more})
        return query

    def put(self, update: dict[str, Any]) -> int:
        """Let an update come, and return its number."""
        with self.changed:
            self.number += 1
            self.updates.append({"update_id": self.number} | update)
            self.changed.notify_all()
            return self.number

    def fail(self, method: str, *faults: Any) -> None:
        """Let the next calls fail: a status, a `Refused`, "cut" (done, and no answer), "hang" or "page"."""
        self.faults[method].extend(faults)

    def said(self, chat: int) -> list[dict[str, Any]]:
        """Return the bot's messages of a chat as they stand."""
        with self.changed:
            return [dict(each) for (place, _), each in sorted(self.messages.items()) if place == chat]

    def wait(self, holds: Callable[[], Any], within_s: float = 20) -> Any:
        """Return what holds at last; fail when it never does."""
        until = time.monotonic() + within_s
        while not (found := holds()):
            if time.monotonic() > until:
                texts = [(place, each["text"][-300:]) for (place, _), each in self.messages.items()]
                raise AssertionError(f"it did not come about; said: {texts}")
            time.sleep(0.005)
        return found

    def called(self, method: str) -> list[dict[str, Any]]:
        """Return the calls of a method."""
        return [given for name, given, _ in [*self.calls] if name == method]

    # --- what the server does ---

    def act(self, method: str, given: dict[str, Any]) -> Any:
        """Carry out a call; raise `Refused`."""
        known = {"getMe": lambda _: BOT, "setMyCommands": self._take, "sendChatAction": self._take}
        known |= {"getUpdates": self._get_updates, "sendMessage": self._send, "editMessageText": self._edit}
        known |= {"deleteMessage": self._delete, "answerCallbackQuery": self._answer}
        if method not in known:
            raise Refused(404, "Not Found")
        return known[method](given)

    def _take(self, given: dict[str, Any]) -> bool:
        return True

    def _get_updates(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        if self.webhook:
            raise Refused(409, "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook")
        with self.changed:
            self.poller += 1
            mine, until = self.poller, time.monotonic() + given.get("timeout", 0)
            self.changed.notify_all()
            if (offset := given.get("offset")) is not None:
                self.updates = [each for each in self.updates if each["update_id"] >= offset]
            while not self.updates and time.monotonic() < until and mine == self.poller:
                self.changed.wait(until - time.monotonic())
            if mine != self.poller:
                raise Refused(409, "Conflict: terminated by other getUpdates request; make sure that only one bot runs")
            return self.updates[:100]

    def _check(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return a message's content, or refuse it."""
        chat, text = given["chat_id"], given.get("text", "")
        if chat in self.blocked:
            raise Refused(403, "Forbidden: bot was blocked by the user")
        if not text.strip():
            raise Refused(400, "Bad Request: message text is empty")
        if units(text) > MOST_UNITS:
            raise Refused(400, "Bad Request: message is too long")
        code: list[tuple[int, int]] = []
        for each in given.get("entities", ()):
            start, end = each["offset"], each["offset"] + each["length"]
            if each["type"] not in ENTITIES or not 0 <= start < end <= units(text):
                raise Refused(400, f"Bad Request: can't parse entities: unsupported {each['type']} at {start}")
            text.encode("utf-16-le")[2 * start : 2 * end].decode("utf-16-le")
            code += [(start, end)] if each["type"] in ("code", "pre") else []
        for each in given.get("entities", ()):
            start, end = each["offset"], each["offset"] + each["length"]
            if any(start < b and a < end and (start, end) != (a, b) for a, b in code):
                raise Refused(400, "Bad Request: can't parse entities: code holds another")
        rows = given.get("reply_markup", {}).get("inline_keyboard", [])
        for button in (button for row in rows for button in row):
            if not 0 < len(button["callback_data"].encode()) <= MOST_DATA or not button["text"]:
                raise Refused(400, "Bad Request: BUTTON_DATA_INVALID")
        now = time.monotonic()
        if self.edit_s and now - self.last.get(chat, 0) < self.edit_s * 0.95:
            raise Refused(429, "Too Many Requests: retry after 1", retry_after=1)
        self.last[chat] = now
        return {"text": text.strip(), "entities": given.get("entities", []), "buttons": rows}

    def _shown(self, chat: int, number: int) -> dict[str, Any]:
        return {
            "message_id": number,
            "chat": {"id": chat, "type": "private" if chat > 0 else "supergroup"},
            "from": BOT,
        }

    def _send(self, given: dict[str, Any]) -> dict[str, Any]:
        with self.changed:
            content = self._check(given)
            self.message_number += 1
            place = (given["chat_id"], self.message_number)
            self.messages[place] = self._shown(*place) | content | {"edits": 0}
            return self._shown(*place)

    def _edit(self, given: dict[str, Any]) -> dict[str, Any]:
        with self.changed:
            place = (given["chat_id"], given["message_id"])
            if place not in self.messages:
                raise Refused(400, "Bad Request: message to edit not found")
            held, content = self.messages[place], self._check(given)
            if all(held[name] == value for name, value in content.items()):
                raise Refused(400, "Bad Request: message is not modified: specified new message content is the same")
            self.messages[place] = held | content | {"edits": held["edits"] + 1}
            return self._shown(*place)

    def _delete(self, given: dict[str, Any]) -> bool:
        with self.changed:
            if self.messages.pop((given["chat_id"], given["message_id"]), None) is None:
                raise Refused(400, "Bad Request: message to delete not found")
            return True

    def _answer(self, given: dict[str, Any]) -> bool:
        query = given["callback_query_id"]
        if query not in self.open:
            raise Refused(400, "Bad Request: query is too old and response timeout expired or query ID is invalid")
        self.open.discard(query)
        self.answers[query] = given.get("text", "")
        return True


def _handler(fake: FakeTelegram) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            given = json.loads(self.rfile.read(int(self.headers["content-length"])) or b"{}")
            token, _, method = self.path.removeprefix("/bot").partition("/")
            fake.calls.append((method, given, time.monotonic()))
            fault = fake.faults[method].pop(0) if fake.faults[method] else None
            if fault == "hang":
                time.sleep(1.5)
            if isinstance(fault, int):
                return self.reply({"ok": False, "error_code": fault, "description": f"fault {self.path}"})
            if fault == "page":
                return self.send(502, f"<html>502 {self.path}</html>".encode())
            if isinstance(fault, Refused):
                return self.reply(fault.body)
            try:
                if token != TOKEN:
                    raise Refused(401, "Unauthorized")
                answer = {"ok": True, "result": fake.act(method, given)}
            except Refused as error:
                answer = error.body
            if fault in ("cut", "hang"):
                self.close_connection = True
                return self.connection.close()
            return self.reply(answer)

        def reply(self, body: dict[str, Any]) -> None:
            self.send(body.get("error_code", 200), json.dumps(body).encode())

        def send(self, status: int, content: bytes) -> None:
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing of connections that were cut on purpose."""


@contextmanager
def fake_telegram(edit_s: float = 0) -> Iterator[tuple[FakeTelegram, str]]:
    """Yield a server and its address."""
    fake = FakeTelegram(edit_s)
    server = _Server(("127.0.0.1", 0), _handler(fake))
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield fake, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
