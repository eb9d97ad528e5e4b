"""The copilot in Telegram, against a local Bot API: who is answered, how it looks, which press is an order."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pydantic import SecretStr
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel
from sqlalchemy import select
from test_trade_attack import EURUSD, HUGE, Attack, check_orders

from orbiquant.copilot.conversations import SqlConversationStore
from orbiquant.copilot.loop import Copilot
from orbiquant.copilot.telegram import TelegramBot, telegram_bot
from orbiquant.copilot.telegram_api import BotApi
from orbiquant.copilot.telegram_book import telegram_tickets, telegram_updates
from orbiquant.copilot.tickets import tickets
from orbiquant.core import NotConfigured, SettingsError, configure_logging
from orbiquant.desk.agents import step_agents
from orbiquant.jobs.handlers import JobContext
from orbiquant.net import Backoff
from orbiquant.notices.telegram_config import TelegramConfig
from orbiquant.runtime import using
from orbiquant.trading import tables
from tests.tools.fake_telegram import TOKEN, FakeTelegram, Refused, fake_telegram, units
from tests.tools.programs import run_program

ANA, EVA, STRANGER, READER = 7, 8, 666, 9
PEOPLE = f"{ANA}:ana:pro:read+write+trade, {EVA}:eva:pro:read+write+trade, {READER}:ana:pro:read+write"
GROUP = -100500
QUICK = Backoff(attempts=4, first_pause_s=0.02, max_pause_s=0.1)


@contextmanager
def answering(copilot: Copilot, address: str, people: str = PEOPLE, apart_s: float = 0.01) -> Iterator[TelegramBot]:
    """Let a bot answer in a thread of its own."""
    api = BotApi(address, SecretStr(TOKEN), timeout_s=1, backoff=QUICK)
    config = TelegramConfig.model_validate({"people": people, "groups": str(GROUP)})
    told: list[str] = []
    bot = TelegramBot(copilot, api, config, told.append, poll_s=1, apart_s=apart_s)
    loop, failed = asyncio.new_event_loop(), []
    task = loop.create_task(bot.run())

    def run() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        except Exception as error:
            failed.append(error)
        loop.close()

    thread = Thread(target=run)
    thread.start()
    bot.told = told  # type: ignore[attr-defined]
    try:
        yield bot
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)
        thread.join(30)
        assert not thread.is_alive()
    if failed:
        raise failed[0]


class Talker:
    """A model that says what a test wants, word by word, and calls what it wants."""

    def __init__(self) -> None:
        self.words: list[str] = ["Hello"]
        self.pause_s = 0.0
        self.calls: list[dict[str, Any]] = []
        self.asked: list[str] = []

    async def speak(self, messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        last = messages[-1].parts[-1]
        self.asked.append(str(getattr(last, "content", "")))
        if self.calls and last.part_kind == "user-prompt":
            for place, call in enumerate(self.calls):
                yield {place: DeltaToolCall("execute_trade", json.dumps(call))}
            return
        for word in self.words:
            yield word
            await asyncio.sleep(self.pause_s)

    async def speak_and_ask(self, messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        yield "Let me see."
        yield {0: DeltaToolCall("execute_trade", json.dumps(self.calls[0]))}


class Desk(Attack):
    """A paper account whose owner talks in Telegram; its conversations are in the database."""

    def __init__(self, folder: Path, bars: int = 40) -> None:
        super().__init__(folder, bars)
        self.talker = Talker()
        model = FunctionModel(stream_function=self.talker.speak)
        runtime = self.runtime

        def store_of(user: str) -> SqlConversationStore:
            return SqlConversationStore(runtime.engine, runtime.clock, user)

        self.copilot = Copilot(runtime, model, store_of)

    def order(self) -> str:
        """Return the owner's next order in words, which the model is going to propose."""
        _, wish = self.wish()
        self.talker.calls = [wish]
        return "{action} {size} lots of EURUSD, stop {stop_loss}, target {take_profit}".format(**wish)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    configure_logging("ERROR")
    made = Desk(tmp_path)
    with using(made.runtime):
        yield made
    made.runtime.engine.dispose()


@pytest.fixture
def server() -> Iterator[tuple[FakeTelegram, str]]:
    with fake_telegram() as made:
        yield made


def buttons(message: dict[str, Any]) -> dict[str, str]:
    """Return what the buttons of a message carry, by their first sign."""
    return {button["text"].split()[0]: button["callback_data"] for row in message["buttons"] for button in row}


def ticket_of(fake: FakeTelegram, chat: int = ANA) -> dict[str, Any]:
    """Return the newest message with buttons, once there is one."""
    found: list[dict[str, Any]] = fake.wait(lambda: [each for each in fake.said(chat) if each["buttons"]])
    return found[-1]


def shown(fake: FakeTelegram, message: dict[str, Any]) -> dict[str, Any]:
    """Return a message as it stands now."""
    return fake.messages[message["chat"]["id"], message["message_id"]]


def approve(fake: FakeTelegram, message: dict[str, Any], account: int = ANA) -> None:
    """Approve a ticket in both steps, and wait until it is placed."""
    fake.press(account, message, buttons(message)["✅"])
    fake.wait(lambda: "⚠️" in buttons(shown(fake, message)) or not shown(fake, message)["buttons"])
    if again := buttons(shown(fake, message)).get("⚠️"):
        fake.press(account, message, again)
    fake.wait(lambda: "✅ " in shown(fake, message)["text"] and not shown(fake, message)["buttons"])


def orders(desk: Any) -> int:
    """Return how many orders the engine was asked for."""
    with desk.runtime.engine.connect() as connection:
        asked = select(tables.engine_requests).where(tables.engine_requests.c.kind == "order")
        return len(connection.execute(asked).all())


def done(desk: Any, number: int) -> bool:
    """Say whether an update was carried out."""
    with desk.runtime.engine.connect() as connection:
        asked = select(telegram_updates.c.state).where(telegram_updates.c.number == number)
        return connection.scalar(asked) == "done"


# --- who is answered ---


def test_people_are_answered_and_strangers_told_once(desk: Desk, server: tuple[FakeTelegram, str]):
    fake, address = server
    desk.talker.words = ["The **price** ", "is `1.1`."]
    with answering(desk.copilot, address):
        fake.write(STRANGER, "buy everything")
        fake.write(STRANGER, "please")
        last = fake.write(STRANGER, "/status")
        fake.write(ANA, "price of EURUSD?")
        fake.wait(lambda: fake.said(ANA) and fake.said(ANA)[-1]["text"] == "The price is 1.1.")
        fake.wait(lambda: done(desk, last))
    [refusal] = fake.said(STRANGER)
    assert "666" in refusal["text"] and desk.talker.asked == ["price of EURUSD?"]
    assert [each["type"] for each in fake.said(ANA)[0]["entities"]] == ["bold", "code"]
    assert {each["action"] for each in fake.called("sendChatAction")} == {"typing"}
    menus = fake.called("setMyCommands")
    assert [each.get("language_code") for each in menus] == [None, "es"] and menus[1]["commands"][1]["command"] == "new"


def test_a_group_is_heard_when_it_is_allowed_and_the_bot_addressed(desk: Desk, server: tuple[FakeTelegram, str]):
    fake, address = server
    with answering(desk.copilot, address):
        fake.write(ANA, "price of gold?", GROUP)
        fake.write(ANA, "@orbi_bot price of gold?", -100666)
        fake.write(STRANGER, "@orbi_bot hello", -100666)
        fake.write(ANA, "/status@other_bot", GROUP)
        fake.write(STRANGER, "hello all", GROUP)
        fake.write(ANA, None, GROUP, photo=[{"file_id": "x"}])
        last = fake.write(ANA, "@orbi_bot price of EURUSD?", GROUP)
        fake.wait(lambda: done(desk, last))
    assert desk.talker.asked == ["price of EURUSD?"] and {chat for chat, _ in fake.messages} == {GROUP}
    [sent] = fake.called("sendMessage")
    assert sent["reply_parameters"]["message_id"] == 7


def test_commands_in_two_languages(desk: Desk, server: tuple[FakeTelegram, str]):
    fake, address = server
    spanish = {"from": {"id": EVA, "is_bot": False, "first_name": "Eva", "language_code": "es"}}
    with answering(desk.copilot, address):
        for command in ("/start", "/help", "/stop", "/status", "/positions", "/approve", "/new"):
            fake.write(ANA, command)
            last = fake.write(EVA, command, **spanish)
        fake.write(EVA, None, voice={}, **spanish)
        fake.wait(lambda: done(desk, last) and len(fake.said(EVA)) == 8 and len(fake.said(ANA)) == 7)
    ana, eva = ([each["text"] for each in fake.said(chat)] for chat in (ANA, EVA))
    assert all(any(part in text for text in ana) for part in ("Hello", "nothing to stop", "nothing there", "plan pro"))
    assert all(any(part in text for text in eva) for part in ("¡Hola!", "nada que parar", "Solo leo texto", "plan pro"))
    assert any("only" not in each and "button alone" in each for each in ana), "/approve is no command"
    assert desk.talker.asked == []


def test_a_bot_without_token_or_people_is_refused(desk: Desk):
    with pytest.raises(NotConfigured, match="telegram_token is empty"):
        telegram_bot(desk.copilot)


@pytest.mark.parametrize("token", ["43:hunter2-other"])
def test_a_token_that_telegram_does_not_know_ends_the_bot(desk: Desk, server: tuple[FakeTelegram, str], token: str):
    _, address = server
    bot = TelegramBot(desk.copilot, BotApi(address, SecretStr(token)), TelegramConfig(people=PEOPLE))
    with pytest.raises(SettingsError, match="none that Telegram knows") as refused:
        asyncio.run(bot.run())
    assert "hunter2" not in str(refused.value)


# --- how an answer is shown ---


def test_a_fast_answer_is_few_edits_and_whole_at_the_end(desk: Desk):
    desk.talker.words, desk.talker.pause_s = [f"word{n} " for n in range(300)], 0.01
    with fake_telegram(edit_s=1.0) as (fake, address), answering(desk.copilot, address, apart_s=1.0):
        last = fake.write(ANA, "tell me")
        fake.wait(lambda: done(desk, last))
        said = fake.said(ANA)
        assert fake.called("sendMessage") and 1 <= said[0]["edits"] <= 6
    assert said[0]["text"].split() == [f"word{n}" for n in range(300)]


def test_a_long_answer_is_several_messages(desk: Desk, server: tuple[FakeTelegram, str]):
    fake, address = server
    desk.talker.words = [f"**Point {n}** 📈 {'some words ' * 30}\n\n" for n in range(40)]
    with answering(desk.copilot, address):
        last = fake.write(ANA, "tell me")
        fake.wait(lambda: done(desk, last))
    said = fake.said(ANA)
    assert len(said) > 2 and all(units(each["text"]) <= 4096 for each in said)
    assert "".join(each["text"] for each in said).count("Point") == 40
    assert sum(len(each["entities"]) for each in said) == 40


HOSTILE = (
    "*a " * 2000 + "b*" * 2000,
    "\u200b\u2060 seen",
    "<b>bold</b> & <script>alert(1)</script> *a _b [x](tg://user?id=1) `c",
    "_*[]()~`>#+-=|{}.!\\ ||spoiler|| __u__",
    "```python\nprint('<x>')\n",
    "[click](javascript:alert(1)) ![i](https://evil.example/p.png)",
    "\u202eevil\u202c \ud83d half",
    "> " * 300 + "deep",
    "**" * 500 + "x",
    "| a | b |\n|---|---|\n| **1** | `2` |",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_a_model_says_is_shown(desk: Desk, server: tuple[FakeTelegram, str], text: str):
    fake, address = server
    desk.talker.words = [text]
    with answering(desk.copilot, address):
        last = fake.write(ANA, "tell me")
        fake.wait(lambda: done(desk, last))
    said = fake.said(ANA)
    assert said and said[0]["text"].strip() and "\u202e" not in said[0]["text"]
    assert not {each["type"] for message in said for each in message["entities"]} & {"text_link", "text_mention"}
    assert "<script>" in said[0]["text"] or "<script>" not in text


def test_where_a_mark_is_refused_the_plain_text_is_sent(desk: Desk, server: tuple[FakeTelegram, str]):
    fake, address = server
    desk.talker.words = ["a **b** c"]
    bad = Refused(400, "Bad Request: can't parse entities: unsupported")
    fake.fail("sendMessage", bad)
    with answering(desk.copilot, address):
        last = fake.write(ANA, "tell me")
        fake.wait(lambda: done(desk, last))
    assert [(each["text"], each["entities"]) for each in fake.said(ANA)] == [("a b c", [])]


def test_an_order_is_shown_where_its_words_could_not_be(desk: Desk, server: tuple[FakeTelegram, str]):
    fake, address = server
    desk.talker.words = ["\u200b"]
    with answering(desk.copilot, address):
        last = fake.write(ANA, "tell me")
        fake.wait(lambda: done(desk, last))
        desk.copilot.model = FunctionModel(stream_function=desk.talker.speak_and_ask)
        fake.fail("sendMessage", 400)
        fake.write(ANA, desk.order())
        assert "EURUSD" in ticket_of(fake)["text"]


def test_stop_ends_an_answer_at_once(desk: Desk, server: tuple[FakeTelegram, str]):
    fake, address = server
    desk.talker.words, desk.talker.pause_s = ["palabra "] * 3000, 0.01
    with answering(desk.copilot, address):
        fake.write(ANA, "dime algo de la cartera")
        fake.wait(lambda: fake.said(ANA) and "palabra" in fake.said(ANA)[0]["text"])
        began = time.monotonic()
        fake.write(ANA, "/stop")
        fake.wait(lambda: "(parado)" in fake.said(ANA)[0]["text"])
        assert time.monotonic() - began < 2
        desk.talker.words, desk.talker.pause_s = ["Sigo aquí."], 0
        last = fake.write(ANA, "¿y ahora?")
        fake.wait(lambda: done(desk, last))
    assert any("Parado." in each["text"] for each in fake.said(ANA)) and fake.said(ANA)[-1]["text"] == "Sigo aquí."


def test_a_slow_user_blocks_nobody(desk: Desk, server: tuple[FakeTelegram, str]):
    fake, address = server
    desk.talker.words, desk.talker.pause_s = ["slow "] * 100, 0.05
    with answering(desk.copilot, address):
        fake.write(ANA, "tell me")
        fake.wait(lambda: fake.said(ANA))
        desk.talker.words, desk.talker.pause_s = ["quick"], 0
        fake.write(EVA, "tell me")
        fake.wait(lambda: fake.said(EVA) and fake.said(EVA)[0]["text"] == "quick")
        assert "slow" in fake.said(ANA)[0]["text"] and len(fake.said(ANA)[0]["text"]) < 500
        for number in range(15):
            fake.write(ANA, f"and {number}?")
        fake.wait(lambda: any("One thing at a time" in each["text"] for each in fake.said(ANA)))
    assert len(desk.talker.asked) < 20


# --- orders ---


def test_a_ticket_is_told_in_full_and_approved_once(desk: Desk, server: tuple[FakeTelegram, str]):
    fake, address = server
    with answering(desk.copilot, address):
        fake.write(ANA, desk.order())
        card = ticket_of(fake)
        assert all(part in card["text"] for part in ("EURUSD", "0.01", "1.05", "1.2", "R:R: ", "%", "paper", "Signal"))
        assert set(buttons(card)) == {"✅", "✖️"}, "the second step is not offered before the first"
        fake.write(ANA, "yes, approved! /approve")
        approvable = buttons(card)
        fake.wait(lambda: not shown(fake, card)["buttons"])
        assert "Expired" in shown(fake, card)["text"] and orders(desk) == 0
        fake.write(ANA, desk.order())
        card = fake.wait(lambda: [each for each in fake.said(ANA) if each["buttons"]])[-1]
        query = fake.press(ANA, card, buttons(card)["✅"])
        fake.wait(lambda: "⚠️" in buttons(shown(fake, card)))
        fake.wait(lambda: query in fake.answers)
        assert orders(desk) == 0 and "no signal" in str(shown(fake, card)["buttons"])
        second = buttons(shown(fake, card))["⚠️"]
        for _ in range(3):
            fake.press(ANA, card, second)
        again = fake.press(ANA, card, buttons(card)["✅"])
        late = fake.press(ANA, card, approvable["✅"])
        fake.wait(lambda: again in fake.answers and late in fake.answers)
        assert not shown(fake, card)["buttons"] and "✅ Placed" in shown(fake, card)["text"]
        assert "Placed" in fake.answers[again] and "Expired" in fake.answers[late]
    assert orders(desk) == 1


def test_a_denial_in_spanish(desk: Desk, server: tuple[FakeTelegram, str]):
    fake, address = server
    desk.talker.words = ["Hecho."]
    with answering(desk.copilot, address):
        desk.order()
        fake.write(ANA, "Compra 0,01 lotes de EURUSD, stop en 1.05 y objetivo en 1.2")
        card = ticket_of(fake)
        assert "COMPRAR 0.01 lotes de EURUSD" in card["text"] and "Aprobar" in str(card["buttons"])
        fake.press(ANA, card, buttons(card)["✖️"])
        fake.wait(lambda: "Rechazada por ti" in shown(fake, card)["text"] and not shown(fake, card)["buttons"])
        query = fake.press(ANA, card, buttons(card)["✅"])
        fake.wait(lambda: query in fake.answers)
    assert "Rechazada" in fake.answers[query] and orders(desk) == 0


def test_a_button_is_its_owners(desk: Desk, server: tuple[FakeTelegram, str]):
    fake, address = server
    with answering(desk.copilot, address):
        fake.write(ANA, f"@orbi_bot {desk.order()}", GROUP)
        card = ticket_of(fake, GROUP)
        data, elsewhere = buttons(card)["✅"], card | {"chat": {"id": EVA, "type": "private"}}
        asked = [fake.press(who, card, data) for who in (EVA, STRANGER, READER)]
        asked += [fake.press(ANA, elsewhere, data), fake.press(ANA, card, data.replace("approve", "override"))]
        for forged in ("approve:x", "x", "", "approve:" + "A" * 24, f"{data}' OR 1=1", "override", "approve:\x00"):
            asked.append(fake.press(ANA, card, forged))
        fake.wait(lambda: all(each in fake.answers for each in asked))
        assert {fake.answers[each] for each in asked[:4]} == {"This button is not yours."}
        assert set(buttons(shown(fake, card))) == {"⚠️", "✖️"}, "an override that was not offered is the first step"
        assert orders(desk) == 0
        fake.press(ANA, card, buttons(shown(fake, card))["⚠️"])
        fake.wait(lambda: not shown(fake, card)["buttons"])
    assert orders(desk) == 1


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ((f"{ANA}:ana:pro:read+write", f"{ANA}:ana:free:read+write+trade"), "may not trade"),
        ((f"{EVA}:eva:pro:trade", f"{ANA}:eva:pro:trade"), "This button is not yours."),
    ],
    ids=["who may not trade any more", "an account taken off the list"],
)
def test_a_list_that_changed_decides_who_presses(
    desk: Desk, server: tuple[FakeTelegram, str], changed: tuple[str, ...], told: str
):
    fake, address = server
    with answering(desk.copilot, address):
        fake.write(ANA, desk.order())
        card = ticket_of(fake)
    for people in changed:
        with answering(desk.copilot, address, people):
            query = fake.press(ANA, card, buttons(card)["✅"])
            fake.wait(lambda query=query: query in fake.answers)
        assert told in fake.answers[query] and orders(desk) == 0


def test_a_new_conversation_leaves_no_order_behind(desk: Desk, server: tuple[FakeTelegram, str]):
    fake, address = server
    with answering(desk.copilot, address):
        fake.write(ANA, desk.order())
        card = ticket_of(fake)
        last = fake.write(ANA, "/new")
        fake.wait(lambda: done(desk, last))
        assert "Expired" in shown(fake, card)["text"] and not shown(fake, card)["buttons"]
        query = fake.press(ANA, card, buttons(card)["✅"])
        fake.wait(lambda: query in fake.answers)
    assert orders(desk) == 0


def test_forwarded_words_are_nobodys_order(desk: Desk, server: tuple[FakeTelegram, str]):
    fake, address = server
    with answering(desk.copilot, address):
        last = fake.write(ANA, desk.order(), forward_origin={"type": "user"})
        fake.wait(lambda: done(desk, last))
    with desk.runtime.engine.connect() as connection:
        assert connection.execute(select(tickets)).all() == []


# --- what goes wrong ---


def test_telegram_in_a_bad_mood(desk: Desk, server: tuple[FakeTelegram, str]):
    fake, address = server
    desk.talker.words = ["fine"]
    fake.fail("getMe", 500, "cut")
    fake.fail("getUpdates", 502, "cut", "page", 429, "hang")
    fake.fail("sendMessage", Refused(429, "Too Many Requests: retry after 1", retry_after=1), "page")
    fake.fail("setMyCommands", 400)
    fake.fail("sendChatAction", 403)
    with answering(desk.copilot, address):
        last = fake.write(ANA, "tell me")
        fake.wait(lambda: done(desk, last))
        waited = [at for name, _, at in fake.calls if name == "sendMessage"]
        assert fake.said(ANA)[0]["text"] == "fine" and waited[1] - waited[0] >= 1, "429 is obeyed"
        fake.blocked.add(ANA)
        last = fake.write(ANA, "and now?")
        fake.wait(lambda: done(desk, last))
        fake.blocked.clear()
        last = fake.write(ANA, "again?")
        fake.wait(lambda: done(desk, last))
    assert desk.talker.asked == ["tell me", "and now?", "again?"]


def test_a_message_whose_answer_is_cut_is_there_and_its_button_decides_once(
    desk: Desk, server: tuple[FakeTelegram, str]
):
    fake, address = server
    with answering(desk.copilot, address):
        fake.fail("sendMessage", "cut")
        fake.write(ANA, desk.order())
        found = fake.wait(lambda: len([e for e in fake.said(ANA) if e["buttons"]]) == 2 and fake.said(ANA))
        first, second = (each for each in found if each["buttons"])
        assert buttons(first) == buttons(second)
        approve(fake, first)
        fake.wait(lambda: not shown(fake, second)["buttons"])
    assert orders(desk) == 1


def test_an_update_that_comes_again_is_not_answered_again(desk: Desk, server: tuple[FakeTelegram, str]):
    fake, address = server
    fake.fail("getUpdates", "cut")
    with answering(desk.copilot, address):
        last = fake.write(ANA, "tell me")
        fake.wait(lambda: done(desk, last))
    fake.updates.append({"update_id": last, "message": {}})
    with answering(desk.copilot, address):
        last = fake.write(ANA, "and?")
        fake.wait(lambda: done(desk, last))
    assert desk.talker.asked == ["tell me", "and?"]


def test_updates_of_another_form_harm_nobody(desk: Desk, server: tuple[FakeTelegram, str]):
    fake, address = server
    with answering(desk.copilot, address):
        for odd in ({}, {"message": None}, {"message": {"chat": 5}}, {"poll": {}}, {"callback_query": {"id": "1"}}):
            fake.put(odd)
        last = fake.write(ANA, "tell me")
        fake.wait(lambda: done(desk, last) and fake.said(ANA))
    assert desk.talker.asked == ["tell me"]


def test_a_second_poller_and_a_webhook(desk: Desk, server: tuple[FakeTelegram, str]):
    fake, address = server
    with answering(desk.copilot, address) as bot:
        fake.fail("getUpdates", Refused(409, "Conflict: terminated by other getUpdates request"))
        last = fake.write(ANA, "tell me")
        fake.wait(lambda: done(desk, last))
        fake.wait(lambda: any("end one of the two" in each for each in bot.told))  # type: ignore[attr-defined]
    fake.webhook = True
    with pytest.raises(SettingsError, match="webhook"), answering(desk.copilot, address):
        time.sleep(0.5)


def test_the_token_is_told_nowhere(
    desk: Desk, server: tuple[FakeTelegram, str], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
):
    configure_logging("DEBUG")
    fake, address = server
    fake.fail("getUpdates", 500, "page", "cut", "hang")
    fake.fail("sendMessage", 400, "page", 500)
    with caplog.at_level(logging.DEBUG), answering(desk.copilot, address) as bot:
        last = fake.write(ANA, "tell me")
        fake.wait(lambda: done(desk, last))
    heard = "".join(capsys.readouterr()) + caplog.text + repr(bot.told)  # type: ignore[attr-defined]
    assert "getUpdates" in heard and "hunter2" not in heard


# --- over a restart ---


def test_what_was_taken_is_done_after_a_restart(desk: Desk, server: tuple[FakeTelegram, str]):
    fake, address = server
    with answering(desk.copilot, address) as bot:
        fake.write(ANA, desk.order())
        card = ticket_of(fake)
    number = fake.write(ANA, "what is new?")
    begun = fake.write(EVA, "buy?")
    query = fake.press(ANA, card, buttons(card)["✖️"])
    bot.box.take(fake.updates)
    bot.box.move(begun, "begun"), bot.box.move(fake.number, "begun")
    fake.updates.clear()
    desk.talker.calls, desk.talker.words = [], ["news"]
    with answering(desk.copilot, address):
        fake.wait(lambda: done(desk, number) and done(desk, begun) and query in fake.answers)
    assert "what is new?" in desk.talker.asked and "buy?" not in desk.talker.asked
    assert "restarted" in fake.said(EVA)[0]["text"] and orders(desk) == 0


@contextmanager
def program(folder: Path, address: str) -> Iterator[Any]:
    """Run `orbiquant telegram` over a workspace until it is ended."""
    told = {
        "HOME": folder, "WORKSPACE_STORE_URI": f"{folder}/store", "WORKSPACE_MODELS_DIR": f"{folder}/models",
        "WORKSPACE_DATA_DIR": folder, "WORKSPACE_DATABASE_URL": f"sqlite:///{folder}/o.db", "TELEGRAM_PEOPLE": PEOPLE,
        "NOTICES_TELEGRAM_URL": address, "NOTICES_TELEGRAM_TOKEN": TOKEN, "LLM_PROVIDER": "router",
    }  # fmt: skip
    command = [sys.executable, "-c", "from orbiquant.cli import main; main()", "telegram"]
    environment = os.environ | {f"ORBIQUANT_{name}": str(value) for name, value in told.items()}
    with run_program(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


@pytest.mark.slow
def test_a_killed_bot_goes_on_where_it_was(tmp_path: Path, server: tuple[FakeTelegram, str]):
    configure_logging("ERROR")
    fake, address = server
    desk = Desk(tmp_path)
    with program(tmp_path, address) as bot:
        fake.write(ANA, desk.order())
        fake.wait(lambda: [each for each in fake.said(ANA) if each["buttons"]], 90)
        bot.kill()
    card = ticket_of(fake)
    question = fake.write(EVA, "what is the price of EURUSD?")
    fake.press(ANA, card, buttons(card)["✅"])
    with program(tmp_path, address) as bot:
        fake.wait(lambda: "⚠️" in buttons(shown(fake, card)) and done(desk, question), 90)
        fake.press(ANA, card, buttons(shown(fake, card))["⚠️"])
        fake.wait(lambda: orders(desk) == 1)
        bot.kill()
    with program(tmp_path, address) as bot:
        fake.wait(lambda: "stale" in shown(fake, card)["text"] and not shown(fake, card)["buttons"], 90)
        fake.press(ANA, card, buttons(card)["✅"])
        last = fake.write(EVA, "/status")
        fake.wait(lambda: done(desk, last))
        bot.send_signal(signal.SIGINT)
        _, said = bot.communicate(timeout=30)
    assert orders(desk) == 1 and bot.returncode == 0 and "Ended." in said and "hunter2" not in said
    assert any("EURUSD" in each["text"] for each in fake.said(EVA)) and "@orbi_bot answers 3 people" in said
    desk.runtime.engine.dispose()


# --- everybody who wants it to trade ---


class Siege(Desk):
    """An owner in Telegram, and those who press, forge, repeat and talk."""

    def __init__(self, folder: Path, fake: FakeTelegram, orders: int) -> None:
        super().__init__(folder, orders + 5)
        self.fake, self.cards, self.presses = fake, list[dict[str, Any]](), list[dict[str, Any]]()
        self.sent = 0

    def names(self) -> list[tuple[str, str, str]]:
        """Return the tickets that were shown: button, conversation, id."""
        table = telegram_tickets.c
        with self.runtime.engine.connect() as connection:
            asked = select(table.name, table.conversation_id, table.ticket_id).order_by(table.made_at)
            return [(row.name, row.conversation_id, row.ticket_id) for row in connection.execute(asked)]

    def asked(self) -> dict[str, Any]:
        """Let the owner ask for an order, and return its card."""
        words, before = self.order(), self.fake.message_number
        self.talker.calls.insert(0, HUGE)
        self.fake.write(ANA, words)
        self.fake.wait(lambda: [e for e in self.fake.said(ANA) if e["buttons"] and e["message_id"] > before])
        return ticket_of(self.fake)

    def push(self, account: int, card: dict[str, Any], data: str) -> str:
        """Press, and remember the press for whoever repeats it."""
        query = self.fake.press(account, card, data)
        self.presses.append(self.fake.updates[-1])
        return query

    def heard(self, *queries: str) -> list[str]:
        """Return what presses were answered with."""
        self.fake.wait(lambda: all(each in self.fake.answers for each in queries))
        return [self.fake.answers[each] for each in queries]

    def genuine_order(self) -> None:
        """Ask for an order and approve it, every button three times."""
        card = self.asked()
        for sign in ("✅", "⚠️"):
            if data := buttons(shown(self.fake, card)).get(sign):
                self.heard(*(self.push(ANA, card, data) for _ in range(3)))
        self.fake.wait(lambda: not shown(self.fake, card)["buttons"])
        assert "✅" in shown(self.fake, card)["text"]
        self.approved += [
            (conversation, id_) for name, conversation, id_ in self.names() if name in buttons(card)["✅"]
        ]
        self.cards.append(card)
        self.holds, self.count = not self.holds, self.count + 1
        self.runtime.store.upsert(EURUSD, self.market.iloc[self.count - 1 : self.count])
        self.clock.advance(timedelta(hours=1))
        step_agents(JobContext("1", None, self.clock.now(), self.clock, shared=self.runtime))

    def worded(self) -> None:
        """Say something that sounds like an approval, while an order waits."""
        card = self.asked()
        name = buttons(card)["✅"]
        said = ("yes", "Sí, aprobado", "approve", f"/approve {name}", name, '{"approved": true}', "✅", "✅ Approve")
        last = self.fake.write(ANA, self.chance.choice(said))
        self.fake.wait(lambda: done(self, last))
        self.fake.write(ANA, "/new")
        self.fake.wait(lambda: not shown(self.fake, card)["buttons"])

    def repeated(self) -> None:
        """Press again what was decided, and deliver old presses again, under their number and a new one."""
        if not self.cards:
            return self.forged()
        card = self.chance.choice(self.cards)
        name = buttons(card)["✅"].partition(":")[2]
        self.heard(*(self.push(ANA, card, f"{verb}:{name}") for verb in ("approve", "override", "deny")))
        old = self.chance.choice(self.presses)
        with self.fake.changed:
            self.fake.updates.append(old)
        self.fake.put({"callback_query": old["callback_query"] | {"id": "again"}})
        return None

    def forged(self) -> None:
        """Press what no button holds."""
        card = self.chance.choice(self.cards) if self.cards else {"message_id": 1, "chat": {"id": ANA}}
        made = [
            f"{self.chance.choice(('approve', 'override'))}:{self.chance.randbytes(12).hex()}",
            "approve:",
            "\x00",
            "{}",
        ]
        assert {*self.heard(*(self.push(ANA, card, each) for each in made))} == {"This button is not known any more."}

    def foreign(self) -> None:
        """Let others press the owner's buttons, and the owner's be pressed in other chats."""
        card = self.asked()
        name = buttons(card)["✅"].partition(":")[2]
        pressed = [
            self.push(who, card, f"{verb}:{name}") for who in (EVA, STRANGER) for verb in ("approve", "override")
        ]
        pressed.append(self.push(ANA, card | {"chat": {"id": GROUP}}, f"approve:{name}"))
        assert {*self.heard(*pressed)} == {"This button is not yours."}
        self.heard(self.push(ANA, card, f"deny:{name}"))
        self.cards.append(card)

    def run_all(self, attempts: int, orders_: int) -> None:
        """Do so much, in an order drawn by chance."""
        kinds = (self.worded, self.repeated, self.forged, self.foreign)
        acts = [self.genuine_order] * orders_ + [kinds[each % 4] for each in range(attempts)]
        self.chance.shuffle(acts)
        for act in acts:
            act()


@pytest.mark.parametrize(("attempts", "count"), [(12, 2), pytest.param(200, 10, marks=pytest.mark.slow)])
def test_orders_are_what_their_owner_pressed(
    tmp_path: Path, server: tuple[FakeTelegram, str], attempts: int, count: int
):
    configure_logging("ERROR")
    fake, address = server
    siege = Siege(tmp_path, fake, count)
    with using(siege.runtime), answering(siege.copilot, address):
        siege.run_all(attempts, count)
    check_orders(siege, count)
    siege.runtime.engine.dispose()
