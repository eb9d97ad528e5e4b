"""The copilot over Socket.IO: what is said, what is refused, who vanishes and comes back; by two clients."""

import asyncio
import json
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import openai
import pytest
import socketio
from socketio.exceptions import ConnectionError as Refused
from test_service_http import TOKEN
from test_streams_redis import started
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from orbiquant.core import configure_logging
from orbiquant.desk.study import store_sample
from orbiquant.runtime import Runtime, using
from orbiquant.service import gate
from orbiquant.service import socket as copilot_socket
from orbiquant.service.keys import create_api_key
from tests.tools.slow_chat import ORDER, count
from tests.tools.stream_desk import stream_runtime

SPACE = "/copilot"
SCRIPT = """
const { io } = require("socket.io-client");
const [url, token, content] = process.argv.slice(2);
const socket = io(url + "/copilot", { auth: { token }, transports: ["websocket"], reconnection: false });
let said = "";
socket.on("agent:stream", ({ chunk }) => { said += chunk; });
socket.on("agent:complete", (whole) => { console.log(JSON.stringify({ said, whole })); socket.disconnect(); });
socket.on("agent:error", (error) => { console.log(JSON.stringify({ error })); socket.disconnect(); });
socket.on("connect_error", (error) => { console.log(JSON.stringify({ refused: error.data })); process.exit(0); });
socket.on("connect", () => socket.emit("message:send", { conversationId: "from node", content }));
"""


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    configure_logging("CRITICAL")
    made = stream_runtime(tmp_path_factory.mktemp("socket"))
    with using(made):
        store_sample()
    return made


def key_of(runtime: Runtime, *scopes: str, user: str = "ana") -> str:
    """Return a new key."""
    return create_api_key(runtime.engine, "test", user, "pro", scopes, runtime.clock)


class Chat:
    """A client, and what it heard."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.io = socketio.AsyncClient(reconnection=False, http_session=session)
        self.heard: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        self.io.on("*", lambda event, data: self.heard.put_nowait((event, data)), namespace=SPACE)

    async def say(self, event: str = "message:send", **data: Any) -> Any:
        """Send something, and return what it is acknowledged with."""
        return await self.io.call(event, data, namespace=SPACE, timeout=20)

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """Return what is heard up to the first event of a kind."""
        told: list[dict[str, Any]] = []
        while True:
            event, data = await asyncio.wait_for(self.heard.get(), 20)
            told.append(data)
            if event == kind:
                return told


@asynccontextmanager
async def chatting(address: str, key: Any = TOKEN) -> AsyncIterator[Chat]:
    """Yield a client that was let in."""
    async with aiohttp.ClientSession() as session:
        chat = Chat(session)
        await chat.io.connect(
            address, auth={"token": key}, namespaces=[SPACE], transports=["websocket"], wait_timeout=10
        )
        yield chat
        await chat.io.disconnect()


def words(told: list[dict[str, Any]]) -> str:
    """Return what chunks say."""
    return "".join(each.get("chunk", "") for each in told)


def test_a_message_is_answered_in_chunks_and_then_as_a_whole(address: str):
    async def main() -> None:
        async with chatting(address) as chat:
            begun = await chat.say(conversationId="talk", content=count(4, 5))
            *chunks, whole = await chat.until("agent:complete")
            assert words(chunks) == whole["response"] == "w1 w2 w3 w4 " and whole["conversationId"] == "talk"
            assert {each["conversationId"] for each in chunks} == {"talk"} and whole["tickets"] == []
            assert all(each["id"].startswith(begun["runId"]) for each in chunks)
            await chat.say(conversationId="order", content=ORDER)
            *_, whole = await chat.until("agent:complete")
            assert [each["state"] for each in whole["tickets"]] == ["pending"], "an order waits, as over REST"

    asyncio.run(main())


def test_one_turn_a_conversation_and_what_is_wrong_is_told(address: str, runtime: Runtime):
    async def main() -> None:
        async with (
            chatting(address, key_of(runtime, "write")) as chat,
            chatting(address, key_of(runtime, "write")) as two,
        ):
            await chat.say(conversationId="busy", content=count(50, 10))
            refused = await two.say(conversationId="busy", content="hello")
            (told,) = await two.until("agent:error")
            assert told == refused and told["error"] == "CONFLICT" and told["conversationId"] == "busy"
            for data in ({}, {"conversationId": "a"}, {"conversationId": "a", "content": ""}, {"content": 7}):
                assert (await two.say(**data))["error"] == "OPTION_INVALID"
            for letters in (9_000, 90_000, 1_000_000):  # the line holds, and says why
                told = await two.say(conversationId="long", content="x" * letters)
                assert told["error"] == "OPTION_INVALID" and "8000 characters" in told["message"]
            assert (await two.say("message:resume", conversationId="never"))["error"] == "NOT_FOUND"
            assert words(await chat.until("agent:complete")).startswith("w1 w2 ")

    asyncio.run(main())


def test_who_vanishes_ends_no_turn_and_comes_back_to_the_rest(address: str, runtime: Runtime):
    async def main() -> None:
        key = key_of(runtime, "write")
        async with chatting(address, key) as chat:
            await chat.say(conversationId="lost", content=count(60, 10))
            seen = [(await chat.heard.get())[1] for _ in range(10)]
        async with chatting(address, key_of(runtime, "write", user="eve")) as eve:
            stolen = await eve.say("message:resume", conversationId="lost", lastEventId=seen[-1]["id"])
            assert stolen["error"] == "NOT_FOUND"
        async with chatting(address, key) as again:
            await again.say("message:resume", conversationId="lost", lastEventId=seen[-1]["id"])
            *rest, whole = await again.until("agent:complete")
            assert words(seen + rest) == whole["response"] == "".join(f"w{number} " for number in range(1, 61))

    asyncio.run(main())


def test_who_may_not_is_told_why(address: str, runtime: Runtime):
    async def main() -> None:
        for key in ("wrong", "", None, 7, key_of(runtime, "read")):
            with pytest.raises(Refused):
                await chatting(address, key).__aenter__()
        with pytest.raises(InvalidStatus):
            await connect(
                f"{address.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket", origin="https://evil.example"
            ).__aenter__()
        async with httpx.AsyncClient() as http:
            polled = await http.get(f"{address}/socket.io/?EIO=4&transport=polling")
        assert polled.status_code == 400, "polling would need every request at the same worker"

    asyncio.run(main())


def test_one_user_does_not_hold_every_connection(address: str, runtime: Runtime, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gate, "SOCKETS_OF_ONE", runtime.settings.service.connections // 2)
    ana, bob = key_of(runtime, "read", "write"), key_of(runtime, "read", "write", user="bob")
    stream = f"{address.replace('http', 'ws')}/ws/market?token={ana}"

    async def main() -> None:
        async with chatting(address, ana), connect(stream) as line:
            assert '"hello"' in await line.recv()
            with pytest.raises(Refused):
                await chatting(address, ana).__aenter__()
            async with connect(stream) as more:
                assert "sockets open" in await more.recv()
                await more.wait_closed()
                assert more.close_code == 1013
            async with chatting(address, bob):
                pass
        for _ in range(50):
            if not address_gate().sockets:
                break
            await asyncio.sleep(0.1)
        assert not address_gate().sockets, "who has left is counted no longer"
        async with chatting(address, ana), chatting(address, ana):
            pass
        silent = f"{address.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket"
        async with connect(silent), connect(silent):
            with pytest.raises(InvalidStatus):
                await connect(silent).__aenter__()
            async with httpx.AsyncClient() as http:
                assert (await http.get(f"{address}/health")).status_code == 200

    asyncio.run(main())


def address_gate() -> gate.Gatekeeper:
    """Return who counts for the service that runs here."""
    from orbiquant.app import app

    found: gate.Gatekeeper = app.state.gatekeeper
    return found


def test_who_does_not_say_who_it_is_is_ended(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(copilot_socket, "SAY_WHO_S", 0.2)

    async def main() -> None:
        began = time.monotonic()
        async with connect(f"{address.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket") as line:
            assert (await line.recv()).startswith("0{")
            await asyncio.wait_for(line.wait_closed(), 10)
        async with connect(f"{address.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket") as line:
            await line.send('40/copilot,{"token":"' + "x" * copilot_socket.MOST_STRANGE_BYTES + '"}')
            await asyncio.wait_for(line.wait_closed(), 10)
        assert time.monotonic() - began < 5
        async with chatting(address) as chat:
            await asyncio.sleep(0.4)
            assert (await chat.say(conversationId="still here", content=count(1, 1)))["runId"]
            await chat.until("agent:complete")

    asyncio.run(main())


@pytest.mark.slow
def test_the_javascript_client_hears_the_same(address: str, tmp_path: Path):
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node is not here")
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(tmp_path), "socket.io-client@4"]
    if subprocess.run(command, capture_output=True, timeout=120, check=False).returncode:
        pytest.skip("socket.io-client cannot be had")
    (tmp_path / "chat.js").write_text(SCRIPT)

    def run(token: str) -> Any:
        command = ["node", tmp_path / "chat.js", address, token, count(5, 5)]
        return json.loads(subprocess.run(command, capture_output=True, timeout=60, check=True, text=True).stdout)

    told = run(TOKEN)
    assert told["said"] == told["whole"]["response"] == "w1 w2 w3 w4 w5 "
    assert run("wrong")["refused"]["error"] == "UNAUTHORIZED", "and it reads why it was not let in"


@pytest.mark.slow
def test_a_service_that_everybody_listens_to_ends_in_time(tmp_path: Path):
    async def main(process: Any, place: str, token: str) -> None:
        async with chatting(f"http://{place}", token) as chat, connect(f"ws://{place}/ws/market?token={token}") as line:
            await chat.say(conversationId="long", content=count(2_000, 10))
            client = openai.AsyncOpenAI(base_url=f"http://{place}/v1", api_key=token, max_retries=0)
            said: Any = [{"role": "user", "content": count(2_000, 10)}]
            stream = await client.chat.completions.create(model="orbiquant", messages=said, stream=True)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 20) == 0 and time.monotonic() - began < 10
            await line.wait_closed()
            assert line.close_code == 1012
            await stream.close()

    with ExitStack() as stack:
        asyncio.run(main(*started(stack, tmp_path, "")))
