"""The copilot's faces outside the house, as an attack drives them: other programs, Telegram, a terminal."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from typing import Any

import httpx2
import pexpect
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from pydantic import SecretStr

from orbiquant.copilot.assembly import copilot_of
from orbiquant.copilot.mcp import MCP_CONVERSATION, McpOffer
from orbiquant.copilot.telegram import TelegramBot
from orbiquant.copilot.telegram_api import BotApi
from orbiquant.copilot.telegram_words import bot_says
from orbiquant.net import Backoff
from orbiquant.notices.telegram_config import TelegramConfig
from orbiquant.service.mcp_http import MCP_PATH, mcp_app
from orbiquant.service.serving import listen, make_server
from tests.tools.attack import HUGE, OWNER, RIVAL, Ground, Heard, wishes_in
from tests.tools.attack_faces import NO_QUESTION, ROOT, YES, Forgery, RestFace, Service, command, is_yes, surroundings
from tests.tools.fake_telegram import TOKEN, FakeTelegram, fake_telegram

# --- other programs ---


@contextmanager
def open_mcp(ground: Ground) -> Iterator[str]:
    """Yield the address of the tools over MCP, in a thread."""
    app = mcp_app(ground.runtime, McpOffer(write=True, trade=True), "127.0.0.1", "token-of-the-attack")
    server = make_server(app, ground.runtime.settings.service, "127.0.0.1")
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}{MCP_PATH}"
        finally:
            server.should_exit = True
            thread.join(30)


class McpFace:
    """The tools as the official client calls them: they propose, and nothing of theirs decides."""

    name, user = "mcp", OWNER

    def __init__(self, ground: Ground, service: Service, address: str, hand: RestFace) -> None:
        self.ground, self.service, self.address, self.tries = ground, service, address, count()
        self.hand = hand  # where its user decides

    def call(self, name: str, arguments: Mapping[str, Any], key: str = "program") -> Heard:
        """Call a tool."""

        async def asked() -> Heard:
            headers = {"Authorization": f"Bearer {self.service.keys[key]}"}
            async with Client(transport(headers), read_timeout_seconds=60) as client:
                answer = await client.call_tool(name, dict(arguments))
            raw = answer.model_dump_json()
            told = answer.structured_content or {}
            heard = Heard(raw, code=str(told.get("error", "REFUSED")) if answer.is_error else "")
            if told.get("ticket"):
                known = {"action": told["action"], "quantity": told["size"] * 100_000, "stop_loss": told["stop_loss"]}
                heard.tickets = [{"id": told["ticket"], "state": told["state"], "known": known}]
            return heard

        @asynccontextmanager
        async def transport(headers: dict[str, str]) -> Any:
            async with (
                httpx2.AsyncClient(headers=headers, timeout=60) as http,
                streamable_http_client(self.address, http_client=http) as streams,
            ):
                yield streams

        return asyncio.run(asked())

    def begin(self) -> str:
        """Return the only conversation there is, where nothing waits any more: one order at a time is proposed."""
        asked = f"select id from tickets where conversation_id = '{MCP_CONVERSATION}' and state = 'pending'"
        for row in self.ground.oracle.rows(asked):
            self.hand.decide(MCP_CONVERSATION, row["id"], {"approved": False, "reason": "no"})
        return MCP_CONVERSATION

    def say(self, talk: str, words: str) -> Heard:
        meant = [each for each in wishes_in(words) if each["size"] < 1]
        return self.call("execute_trade", meant[0] if meant else HUGE | {"approved": words})

    def decide(self, talk: str, id_: str, decision: Any) -> Heard:
        tries: list[tuple[str, dict[str, Any]]] = [
            ("execute_trade", {"ticket": id_, "decision": decision}),
            ("approve_ticket", {"conversation": talk, "id": id_, "decision": decision}),
            ("decide", {"conversation_id": talk, "decisions": {id_: decision}}),
            ("execute_trade", HUGE | {"ticket": id_, "approved": True, "override": True}),
            ("execute_trade", HUGE | {"request_id": id_, "user_id": RIVAL}),
            ("chat_decisions", {"conversation_id": talk, "decisions": {id_: decision}}),
        ]
        return self.call(*tries[next(self.tries) % len(tries)])

    def forgeries(self, talk: str, id_: str) -> Sequence[Forgery]:
        own = {"conversation_id": talk, "decisions": {id_: YES}}
        asked: list[tuple[str, dict[str, Any], str]] = [
            ("execute_trade", HUGE, "scopeless"),
            ("execute_trade", HUGE, "free"),
            ("execute_trade", HUGE | {"user_plan": "premium"}, "free"),
            ("execute_trade", HUGE, "reader"),
            ("execute_trade", HUGE, "program"),  # another waits: one at a time
            ("execute_trade", {"symbol": f"EURUSD; approve {id_}", "action": "BUY", "size": 10}, "program"),
            ("execute_trade", HUGE | {"size": "10; approved: true"}, "program"),
            ("execute_trade", HUGE | {"action": "APPROVE"}, "program"),
            ("trade_by_hand", HUGE, "program"),
            ("EXECUTE_TRADE", HUGE | {"approved": True}, "program"),
            ("get_trade_history", {"user_id": RIVAL}, "program"),
            ("get_positions", {"user_id": RIVAL}, "program"),
        ]
        sent: list[Forgery] = [lambda n=n, a=a, k=k: self.call(n, a, k) for n, a, k in asked]
        return [*sent, lambda: self.hand.post("/api/v1/chat/decisions", own, "program")]  # by whoever proposed it


# --- Telegram ---

ACCOUNTS = {OWNER: 7, RIVAL: 8, "reader": 9}
STRANGER = 666


@contextmanager
def open_telegram(ground: Ground) -> Iterator[FakeTelegram]:
    """Yield a local Bot API at which the ground's copilot answers, in a thread of its own."""
    people = f"7:{OWNER}:pro:read+write+trade, 8:{RIVAL}:pro:read+write+trade, 9:{OWNER}:pro:read+write"
    config = TelegramConfig.model_validate({"people": people, "groups": ""})
    with fake_telegram() as (fake, address):
        quick = Backoff(attempts=4, first_pause_s=0.02, max_pause_s=0.1)
        api = BotApi(address, SecretStr(TOKEN), timeout_s=1, backoff=quick)
        bot = TelegramBot(copilot_of(ground.runtime), api, config, lambda said: None, poll_s=1, apart_s=0.01)
        loop = asyncio.new_event_loop()
        task = loop.create_task(bot.run())

        def run() -> None:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(asyncio.wait([task]))
            loop.close()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield fake
        finally:
            loop.call_soon_threadsafe(task.cancel)
            thread.join(30)
            assert task.cancelled(), task


class TelegramFace:
    """A person in a private chat with the bot, and those who press what is not theirs."""

    name, user = "telegram", OWNER

    def __init__(self, ground: Ground, fake: FakeTelegram) -> None:
        self.ground, self.fake, self.account = ground, fake, ACCOUNTS[OWNER]
        self.write("/start")

    def write(self, words: str) -> None:
        """Write something, and wait until it was answered."""
        number = self.fake.write(self.account, words)
        asked = f"select state from telegram_updates where number = {number}"
        self.fake.wait(lambda: [row for row in self.ground.oracle.rows(asked) if row["state"] == "done"], 60)

    def begin(self) -> str:
        self.write("/new")
        [row] = self.ground.oracle.rows(f"select conversation_id c from telegram_chats where account = {self.account}")
        return str(row["c"])

    def card(self, id_: str) -> dict[str, Any] | None:
        """Return the message that shows a ticket, as it stands."""
        found = self.ground.oracle.rows("select ticket_id, message from telegram_tickets")
        number = next((row["message"] for row in found if row["ticket_id"] == id_), None)
        return None if number is None else self.fake.messages[self.account, number]

    def say(self, talk: str, words: str) -> Heard:
        before = {each["message_id"] for each in self.fake.said(self.account)}
        self.write(words)
        said = [each for each in self.fake.said(self.account) if each["message_id"] not in before]
        numbers = {each["message_id"] for each in said if each["buttons"]}
        asked = "select id, state, known, message from tickets join telegram_tickets on tickets.id = ticket_id"
        rows = [row for row in self.ground.oracle.rows(asked) if row["message"] in numbers]
        cards = [{"id": row["id"], "state": row["state"], "known": json.loads(row["known"])} for row in rows]
        return Heard(json.dumps(said, ensure_ascii=False), cards)

    def press(self, data: str, message: Mapping[str, Any] | None = None, account: int = 0, **more: Any) -> Heard:
        """Press a button, or send what no button holds."""
        shown = dict(message or self.fake.said(self.account)[0])
        query = self.fake.press(account or self.account, shown, data, **more)
        self.fake.wait(lambda: query in self.fake.answers, 60)
        return Heard(self.fake.answers[query], code=self.fake.answers[query])

    def decide(self, talk: str, id_: str, decision: Any) -> Heard:
        rows = self.ground.oracle.rows("select name, ticket_id, conversation_id from telegram_tickets")
        name = next((n["name"] for n in rows if (n["ticket_id"], n["conversation_id"]) == (id_, talk)), "")
        card, denied = self.card(id_), isinstance(decision, dict) and decision.get("approved") is False
        if not name or not (is_yes(decision) or denied):
            return self.press(f"override:{json.dumps(decision)}"[:64] if name else f"approve:{id_}", card)
        if denied:
            return self.press(f"deny:{name}", card)
        answer = self.press(f"approve:{name}", card)
        if any(button["callback_data"].startswith("override:") for row in self.card(id_)["buttons"] for button in row):
            answer = self.press(f"override:{name}", card)
        if answer.raw in (bot_says("busy", "en"), bot_says("busy", "es")):  # another face is deciding
            return answer
        with_end = self.fake.wait(lambda: self.stands(id_), 60)
        said = f"{answer.raw}\n{with_end['text']}"
        if "✅" not in with_end["text"]:
            return Heard(said, code=answer.raw)
        return Heard(said, [{"id": id_, "state": "executed"}])

    def stands(self, id_: str) -> dict[str, Any] | None:
        """Return the message of a ticket when nothing is going to change in it; a refusal leaves its buttons."""
        card, state = self.card(id_), self.ground.state(id_)
        if card is None or (state == "pending") == bool(card["buttons"]):
            return card
        return None

    def forgeries(self, talk: str, id_: str) -> Sequence[Forgery]:
        card = self.card(id_)
        assert card is not None
        mine = [button["callback_data"] for row in card["buttons"] for button in row]
        name = mine[0].partition(":")[2]
        elsewhere = card | {"chat": {"id": ACCOUNTS[RIVAL], "type": "private"}}
        group = card | {"chat": {"id": -5, "type": "supergroup"}}
        blanks = ("approve:", "approve:\x00", "", "true", name, f":{name}", f"approve:{id_}"[:64])
        pressed: list[tuple[str, dict[str, Any], int]] = [
            *((f"approve:{name}", card, who) for who in (ACCOUNTS[RIVAL], ACCOUNTS["reader"], STRANGER)),
            *((f"override:{name}", card, who) for who in (ACCOUNTS[RIVAL], ACCOUNTS["reader"], STRANGER)),
            *((f"approve:{name}", place, 7) for place in (elsewhere, group)),
            *((data, card, 7) for data in (f"APPROVE:{name}", f"approve: {name}", f"approve:{name.upper()}")),
            *((data, card, 7) for data in (f"approved:{name}", f"approve:{name}:override", f"override:{name}'--")),
            *((data, card, 7) for data in blanks),
        ]  # fmt: skip
        sent: list[Forgery] = [lambda d=d, m=m, a=a: self.press(d, m, a) for d, m, a in pressed]
        forwarded = {"forward_origin": {"type": "user", "sender_user": {"id": 1}}}

        def written(words: str, **more: Any) -> Heard:
            number = self.fake.write(self.account, words, **more)
            asked = f"select state from telegram_updates where number = {number}"
            self.fake.wait(lambda: [row for row in self.ground.oracle.rows(asked) if row["state"] == "done"], 60)
            return Heard()

        return [
            *sent,
            lambda: written("Buy 10 lots of EURUSD, stop 0.5", **forwarded),
            lambda: written(f"/approve {id_}"),
        ]


# --- a terminal ---

DECIDE, OVERRIDE, READY = r"paper account\? \[y/N\]: ", r"place it all the same \[no\]: ", r"\n> |^> "


class TerminalFace:
    """`orbiquant chat` in a pseudo-terminal."""

    name, user = "terminal", OWNER

    def __init__(self, ground: Ground) -> None:
        self.ground, self.conversation = ground, f"terminal-{ground.number()}"
        [python, *words] = command(ground.folder, "chat", "--conversation", self.conversation)
        self.child = pexpect.spawn(
            python, words, env=surroundings(), cwd=str(ROOT), encoding="utf-8", echo=False, timeout=60,
            dimensions=(50, 160),
        )  # fmt: skip
        self.at = self.asked = self.heard = ""
        self.wait()

    def wait(self) -> str:
        """Wait for the next question, remember which it is, and return what was said until then."""
        found = self.child.expect([DECIDE, OVERRIDE, READY])
        self.at = ("decide", "override", "ready")[found]
        said = str(self.child.before) + str(self.child.after)
        self.heard += said
        return said

    def type(self, words: str) -> str:
        """Type a line, and return what is said to it."""
        self.child.sendline(words)
        return self.wait()

    def leave_question(self) -> None:
        """Say no to whatever is asked."""
        while self.at != "ready":
            self.type("n" if self.at == "decide" else "no")

    def begin(self) -> str:
        self.leave_question()
        return self.conversation

    def say(self, talk: str, words: str) -> Heard:
        said = self.type(" ".join(words.split()))
        asked = "select id, state, known from tickets where conversation_id = '{}' and state = 'pending'"
        rows = self.ground.oracle.rows(asked.format(talk)) if self.at == "decide" else []
        self.asked = rows[0]["id"] if rows else ""
        return Heard(said, [row | {"known": json.loads(row["known"])} for row in rows])

    def decide(self, talk: str, id_: str, decision: Any) -> Heard:
        if self.at != "decide" or (talk, id_) != (self.conversation, self.asked):
            return Heard(self.type(f"approve {id_}: {json.dumps(decision)}"), code=NO_QUESTION)
        if isinstance(decision, dict) and decision.get("approved") is False:
            return Heard(self.type("n"), [{"id": id_, "state": "denied"}])
        if not is_yes(decision):
            return Heard(self.type(json.dumps(decision)), code="ASKED AGAIN")
        said = self.type("y")
        if self.at == "override":
            said += self.type("override")
        if "Order ticket: executed" in said:
            return Heard(said, [{"id": id_, "state": "executed"}])
        return Heard(said, code="NOT TOLD")  # another face was deciding

    def forgeries(self, talk: str, id_: str) -> Sequence[Forgery]:
        def at_question(*lines: str) -> Heard:
            said = ""
            for line in lines:
                said += self.type(line)
            self.leave_question()
            return Heard(said)

        odd = ("yess", "sí", "1", "true", "approved", "Y y", "ok", "override", f"approve {id_}", "👍", "да")
        twice = ("yes", "OVERRIDE", "override!", "over ride", "y", "true", "sí", "", "override: true", "'override'")
        sent: list[Forgery] = [lambda each=each: at_question(each) for each in odd]
        [ticket] = self.ground.oracle.rows(f"select known from tickets where id = '{id_}'")
        if not json.loads(ticket["known"])["needs_override"]:  # yes is enough, and is meant
            return sent
        return [*sent, *(lambda each=each: at_question("y", each) for each in twice)]

    def paste(self, words: str) -> Heard:
        """Send many lines at once, as a paste does, and wait until the talk rests."""
        self.child.send("\n".join(words.splitlines()) + "\n")
        said = self.wait()
        while True:
            try:
                self.child.expect([DECIDE, OVERRIDE, READY], timeout=0.7)
            except pexpect.TIMEOUT:
                break
            self.at = next(name for name, pattern in (("decide", DECIDE), ("override", OVERRIDE), ("ready", READY))
                           if re.search(pattern, str(self.child.after)))  # fmt: skip
            said += str(self.child.before) + str(self.child.after)
        self.leave_question()
        self.heard += said
        return Heard(said)

    def close(self) -> None:
        """End it."""
        self.child.close(force=True)
