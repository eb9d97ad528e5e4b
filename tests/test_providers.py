"""Models behind an address, over real HTTP: tool calls, servers that know none, cut questions, servers that go away."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from pydantic import SecretStr
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError
from pydantic_ai.models import Model
from pydantic_ai.models.function import FunctionModel

from orbiquant.copilot.assembly import AnswerFilter
from orbiquant.copilot.loop import Copilot
from orbiquant.core import ModelError, SettingsError
from orbiquant.desk.study import store_sample
from orbiquant.domain import Caller
from orbiquant.llm.asides import hear_asides
from orbiquant.llm.config import LlmConfig
from orbiquant.llm.ensemble import ensemble_model
from orbiquant.llm.providers import OPENERS, Choice, anthropic_model, open_chat_model, server_model
from orbiquant.llm.text_tools import UNREADABLE, CallReader
from orbiquant.runtime import Runtime, using
from orbiquant.settings import load_settings
from tests.tools.model_server import ModelHandler, ModelServer

ANA = Caller("key:ana", "ana", "pro", frozenset({"read"}))
KEY = "sk-nobody-may-see-this"


class Server(ModelServer):
    """Plays an OpenAI-compatible server: its fields say what each kind of question is answered with."""

    def __init__(self) -> None:
        super().__init__(Handler)
        self.tools, self.dies_after, self.status = True, 0, 200
        self.writes = False  # calls as text, although it takes tools
        self.answer = "It stands at 1.2."


class Handler(ModelHandler):
    """Answers one question: with a tool call first, with words when there is a result."""

    server: Server

    def answer(self, body: dict[str, Any]) -> None:
        """Answer as the server's fields say."""
        if self.server.status != 200:
            self.refuse(self.server.status, "not now")
        elif body.get("tools") and not self.server.tools:
            self.refuse(400, "registry.ollama.ai/library/llama3:latest does not support tools")
        elif body.get("stream"):
            with suppress(GoneAway):
                self.stream(body)
        else:
            self.whole(body)

    def refuse(self, status: int, message: str) -> None:
        """Send an error as Ollama does."""
        self.send_json(status, {"error": {"message": message, "type": "api_error"}})

    def whole(self, body: dict[str, Any]) -> None:
        """Send the answer at once."""
        said = {"role": "assistant", "content": None}
        if body["messages"][-1]["role"] == "tool":
            said["content"] = "It stands at 1.2."
        else:
            called = {"name": "get_price", "arguments": '{"symbol": "EURUSD"}'}
            said["tool_calls"] = [{"id": "c1", "type": "function", "function": called}]
        choices = [{"index": 0, "message": said, "finish_reason": "stop"}]
        known = {"id": "x", "object": "chat.completion", "created": 1, "model": "played"}
        self.send_json(200, known | {"choices": choices, "usage": self.server.usage})

    def deltas(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the pieces of an answer, as many as the server lives for."""
        for number, delta in enumerate(self.pieces(body)):
            if self.server.dies_after and number == self.server.dies_after:
                self.close_connection = True
                raise GoneAway
            yield delta

    def pieces(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the pieces of a whole answer."""
        last = body["messages"][-1]
        if last["role"] == "tool" or "Result of" in str(last["content"]):
            yield {"role": "assistant", "content": self.server.answer[:10]}
            yield {"content": self.server.answer[10:]}
        elif body.get("tools") and not self.server.writes:
            called = {"name": "get_price", "arguments": ""}
            yield {
                "role": "assistant",
                "tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": called}],
            }
            for piece in ('{"sym', 'bol": "EURUSD"}'):
                yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
        else:
            for piece in ("Let me look. <to", "ol>get_pri", 'ce({"symbol": "EURUSD"})</tool>', " I guess 9.9."):
                yield {"content": piece}


class GoneAway(Exception):
    """The server has gone in mid-answer."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server().running() as played:
        yield played


def config(server: Server, **changes: Any) -> LlmConfig:
    """Return settings that speak with the played server."""
    known = {"provider": "openai", "base_url": server.address, "model": "llama3", "api_key": SecretStr(KEY)}
    return LlmConfig.model_validate(known | changes)


def asking(model: Model) -> tuple[Agent[None, str], list[str]]:
    """Return an agent with one tool, and what the tool is asked."""
    agent, asked = Agent(model), []

    @agent.tool_plain
    def get_price(symbol: str) -> dict[str, float]:
        """Return the last price."""
        asked.append(symbol)
        return {"price": 1.2}

    return agent, asked


async def say(agent: Agent[None, str], message: str = "price of EURUSD?") -> str:
    """Return what is streamed to a message."""
    async with agent, agent.run_stream_events(message) as events:
        return [event async for event in events][-1].result.output


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.parametrize("tools", [True, False])
async def test_a_tool_is_called_whether_the_server_knows_tools_or_not(server: Server, tools: bool):
    server.tools = tools
    agent, asked = asking(server_model(config(server)))
    said = await say(agent)
    assert asked == ["EURUSD"] and said.endswith("It stands at 1.2.") and "9.9" not in said and "<tool>" not in said
    refused = [body for body in server.asked if body.get("tools")]
    assert len(refused) == 2 and (len(server.asked) == 2 if tools else len(server.asked) == 4)


@pytest.mark.anyio
async def test_how_it_speaks_is_as_set(server: Server):
    agent, _ = asking(server_model(config(server, temperature=0.1, top_p=0.5, max_tokens=77, stop_sequences="END")))
    await say(agent)
    sent = server.asked[0]
    assert (sent["temperature"], sent["top_p"], sent["stop"]) == (0.1, 0.5, ["END"])
    assert 77 in (sent.get("max_tokens"), sent.get("max_completion_tokens"))


@pytest.mark.anyio
async def test_a_question_that_the_server_cut_is_told(server: Server):
    server.tokens = 4095
    agent, _ = asking(server_model(config(server)))
    with hear_asides() as told:
        assert await say(agent, "price of EURUSD? " + "word " * 12_000) == "It stands at 1.2."
        assert "cut this conversation at 4,096 tokens" in told["cut"].en
        assert await say(agent) == "It stands at 1.2." and not told


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    places = {"store_uri": f"{tmp_path}/store", "models_dir": tmp_path / "models", "data_dir": tmp_path}
    made = Runtime(load_settings(workspace=places | {"database_url": f"sqlite:///{tmp_path}/o.db"}))
    with using(made):
        store_sample()
        yield made
    made.engine.dispose()


async def hear(runtime: Runtime, model: Model, message: str, check: Any = AnswerFilter) -> tuple[str, str]:
    """Return a turn's answer, and what the model is told of it in the next turn."""
    copilot = Copilot(runtime, model, check=check)
    said = await copilot.answer(ANA, "talk", message)
    assert not said.error
    return said.text, json.dumps(await copilot.messages(ANA, "talk"))


def long(words: str, filling: str = "and so on ") -> str:
    """Return a question that a small server cuts."""
    return f"{words} " + filling * 700


@pytest.mark.anyio
@pytest.mark.parametrize("check", [AnswerFilter, None])
@pytest.mark.parametrize("tools", [True, False])
async def test_a_cut_is_told_once_under_the_answer_and_passes_no_filter(
    server: Server, runtime: Runtime, check: Any, tools: bool
):
    server.tools, server.tokens, server.answer = tools, 2047, "Look at the chart first."
    said, kept = await hear(runtime, server_model(config(server)), long("price of EURUSD?"), check)
    assert said.count("cut this conversation at 2,048 tokens") == 1 and said.endswith("new conversation.]")
    assert "Look at the chart first.\n\n[The server" in said and "no figure" not in said
    assert "2,048" not in kept and "2,048" not in json.dumps(server.asked)
    spanish, _ = await hear(
        runtime, server_model(config(server)), long("¿Qué precio tiene el EURUSD?", "y así más "), check
    )
    assert spanish.count("cortó esta conversación en 2.048 tokens") == 1 and "The server" not in spanish


@pytest.mark.anyio
async def test_a_call_that_a_server_with_tools_writes_as_text_is_run_and_not_shown(server: Server, runtime: Runtime):
    server.writes, server.tokens, server.answer = True, 7_000, "Look at the chart."
    said, _ = await hear(runtime, server_model(config(server)), "price of EURUSD?")
    assert "<tool>" not in said and said.endswith("Look at the chart.") and "9.9" not in said
    assert (
        server.asked[-1]["messages"][-1]["role"] == "tool" and "EURUSD" in server.asked[-1]["messages"][-1]["content"]
    )


@pytest.mark.anyio
async def test_an_answer_that_ended_at_its_length_says_so(server: Server, runtime: Runtime):
    server.ended, server.answer, server.tokens = "length", "It looks as if the", 7_000
    said, _ = await hear(runtime, server_model(config(server)), "price of EURUSD?")
    assert said == "It looks as if the\n\n[The answer was cut at the most tokens that one may have ([llm] max_tokens).]"
    assert "max_tokens" in (await hear(runtime, server_model(config(server)), "price of EURUSD?", None))[0]
    server.ended = "stop"
    assert "max_tokens" not in (await hear(runtime, server_model(config(server)), "price of EURUSD?"))[0]


@pytest.mark.anyio
async def test_who_answers_for_a_server_that_is_down_is_told(server: Server, runtime: Runtime):
    openers, asked = OPENERS | {"router": words}, config(server, fallback="router")
    server.status = 400
    model = open_chat_model(asked, Choice("openai", "as told"), openers)
    assert await hear(runtime, model, "hello") == ("a router\n\n[openai did not answer, so router did.]", ANY)
    server.status, server.answer, server.tokens = 200, "Look at the chart.", 7_000
    assert (await hear(runtime, model, "hello"))[0] == "Look at the chart."


@pytest.mark.anyio
async def test_who_is_down_is_followed_and_nobody_is_told_the_key(server: Server):
    server.status = 400
    first = open_chat_model(config(server, fallback="router"), Choice("openai", "as told"), OPENERS | {"router": words})
    assert await say(Agent(first), "hello") == "a router"
    alone = open_chat_model(config(server, fallback=""), Choice("openai", "as told"))
    with pytest.raises(ModelHTTPError) as caught:
        await say(Agent(alone), "hello")
    assert KEY not in str(caught.value) and KEY not in repr(config(server))


@pytest.mark.anyio
async def test_a_server_that_goes_away_in_the_middle_is_an_error(server: Server):
    server.dies_after = 1
    agent, asked = asking(server_model(config(server)))
    with pytest.raises(ModelAPIError):
        await say(agent)
    server.dies_after = 0
    assert (await say(agent)).endswith("at 1.2.") and asked == ["EURUSD"]


def words(_: LlmConfig) -> Model:
    """Return a model that says it is a router."""

    async def speak(messages: Any, info: Any) -> Any:
        yield "a router"

    return FunctionModel(stream_function=speak)


def test_what_is_missing_is_named():
    with pytest.raises(SettingsError, match="base_url"):
        server_model(LlmConfig(provider="openai"))
    with pytest.raises(SettingsError, match="api_key"):
        anthropic_model(LlmConfig(provider="anthropic"))
    with pytest.raises(ModelError, match="orbiquant llm pull nobody/none"):
        open_chat_model(LlmConfig(model="nobody/none", fallback=""), Choice("local", "as told"))
    with pytest.raises(SettingsError, match="ensemble"):
        open_chat_model(LlmConfig(ensemble="router"), Choice("router", "as told"))


@pytest.mark.anyio
async def test_the_majority_of_an_ensemble_decides(server: Server):
    other = FunctionModel(lambda messages, info: (_ for _ in ()).throw(ModelAPIError("other", "down")))
    agent, asked = asking(ensemble_model([other, server_model(config(server)), server_model(config(server))]))
    assert (await say(agent)).endswith("at 1.2.") and asked == ["EURUSD"]


@pytest.mark.parametrize(
    "text",
    [
        "<tool>",
        "<tool>get_price",
        "<tool>get_price({</tool>",
        "<tool></tool>",
        "<tool>(1)</tool>",
        "</tool>",
        "<tool><tool>",
    ],
)
def test_markup_that_is_no_call_is_never_shown_as_words(text: str):
    for step in (1, 3, 100):
        reader = CallReader()
        parts = [part for at in range(0, len(text), step) for part in reader.feed(text[at : at + step])]
        said = [part for part in [*parts, *reader.end()] if isinstance(part, str)]
        assert all("<tool>" not in part for part in said) and (
            not said or said[0] in (UNREADABLE, "</tool>"[: len(said[0])])
        )
