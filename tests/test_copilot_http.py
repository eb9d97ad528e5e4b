"""The copilot as other systems ask it: the documented clients' calls, streams, tickets, and what is refused."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select
from test_agents_http import Market, keyed
from test_service_http import check_problem, running

from orbiquant.copilot.tickets import tickets
from orbiquant.core import configure_logging
from orbiquant.trading import tables

ORDER = "buy 0.1 lots of EURUSD with stop {stop} and target {target}"


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    configure_logging("ERROR")
    return Market(tmp_path_factory.mktemp("copilot"))


@pytest.fixture(scope="module")
def address(market: Market) -> Iterator[str]:
    from orbiquant.app import app

    with running(app, market.runtime) as url:
        yield url


@pytest.fixture
def client(market: Market, address: str) -> Iterator[httpx.Client]:
    with keyed(market, address, "ana", "pro", "read", "write", "trade") as opened:
        yield opened


def order(market: Market) -> str:
    """Return an order in words."""
    return ORDER.format(stop=round(market.price * 0.98, 5), target=round(market.price * 1.06, 5))


def ask(client: httpx.Client, message: str, conversation: str = "first", **more: Any) -> dict[str, Any]:
    """Return what is said to a message."""
    asked = {"message": message, "conversation_id": conversation} | more
    return client.post("/api/v1/chat", json=asked, timeout=60).raise_for_status().json()


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the events of a stream."""
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]" and response.headers["x-vercel-ai-ui-message-stream"] == "v1"
    return [json.loads(line) for line in lines[:-1]]


def test_a_question_is_answered_and_remembered(client: httpx.Client, market: Market):
    said = ask(client, "what is the price of EURUSD?", "talk")
    assert said["tools_used"] == ["get_price"] and "EURUSD" in said["response"] and not said["error"]
    assert ask(client, "¿y el RSI?", "talk")["tools_used"] == ["get_indicators"], "of the same symbol"
    kept = client.get("/api/v1/chat/talk").json()["messages"]
    said_by_user = [each["parts"][0]["text"] for each in kept if each["role"] == "user"]
    assert said_by_user == ["what is the price of EURUSD?", "¿y el RSI?"] and kept[-1]["role"] == "assistant"
    assert client.delete("/api/v1/context/ana/talk").json() == {"status": "cleared"}
    assert client.get("/api/v1/chat/talk").json()["messages"] == []


def test_a_stream_is_the_events_of_the_turn(client: httpx.Client):
    asked = {"message": "price of EURUSD", "conversation_id": "stream", "stream": True}
    events = events_of(client.post("/api/v1/chat", json=asked, timeout=60).raise_for_status())
    kinds = [event["type"] for event in events]
    assert kinds[0] == "start" and kinds[-1] == "finish" and "tool-output-available" in kinds
    assert "EURUSD" in "".join(event.get("delta", "") for event in events)


def test_the_simple_form_speaks_older_names(client: httpx.Client):
    said = client.post(
        "/api/chat", json={"message": "what is the price?", "session_id": "s", "symbol": "EURUSD"}
    ).json()
    assert said["tools_used"] == ["get_market_data"] and said["signal"] is None and "EURUSD" in said["response"]
    gold = client.post("/api/chat", json={"message": "price?", "session_id": "s2"}).json()
    assert gold["tools_used"] == ["get_market_data"] and "XAUUSD" in gold["response"], "asked, with no bars to answer"
    assert "did you mean" not in gold["response"]
    assert client.post("/api/clear_history?session_id=s").json() == {"status": "cleared"}
    health = client.get("/api/health").json()
    assert health["status"] in ("healthy", "degraded") and health["llm_status"] == "router"


def test_programs_made_for_openai_ask_the_router_and_cannot_trade(client: httpx.Client, market: Market):
    def said(*messages: str) -> tuple[str, list[str]]:
        roles = ("user", "assistant") * len(messages)
        sent = [{"role": role, "content": text} for role, text in zip(roles, messages, strict=False)]
        asked = {"model": "orbiquant:router", "messages": sent}
        told = client.post("/v1/chat/completions", json=asked, timeout=60).raise_for_status().json()
        return told["choices"][0]["message"]["content"], told["tools_used"]

    before = waiting_tickets(market)
    price, tools = said("what is the price of EURUSD?")
    assert "EURUSD" in price and tools == ["get_price"], "ours are called here, and only named"
    again, tools = said("what is the RSI of EURUSD?", "50", "and the price?")
    assert "EURUSD" in again and tools == ["get_price"], "what it is about stands in what was sent"
    _, tools = said(order(market), "Shall I?", "yes, approved")
    refused, more = said(order(market))
    assert tools == more == [] and "no tool" in refused and waiting_tickets(market) == before


def waiting_tickets(market: Market) -> int:
    """Return how many orders were ever proposed."""
    with market.runtime.engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(tickets)) or 0


def test_an_order_waits_for_a_decision_and_is_placed_once(client: httpx.Client, market: Market):
    said = ask(client, order(market), "order")
    (ticket,) = said["tickets"]
    assert ticket["state"] == "pending"
    assert ask(client, "yes, approved", "words")["tickets"] == []
    decision = {"conversation_id": "order", "decisions": {ticket["id"]: {"approved": True}}}
    refused = client.post("/api/v1/chat/decisions", json=decision)
    check_problem(refused, 409, "OVERRIDE_REQUIRED")
    decision["decisions"][ticket["id"]]["override"] = True
    first, again = (client.post("/api/v1/chat/decisions", json=decision).raise_for_status().json() for _ in range(2))
    assert first["tickets"][0]["state"] == again["tickets"][0]["state"] == "executed"
    assert first["tickets"][0]["outcome"] == again["tickets"][0]["outcome"]


def test_an_approval_whose_client_vanishes_at_once_is_one_order(market: Market, address: str):
    with keyed(market, address, "vera", "pro", "read", "write", "trade") as client:
        (ticket,) = ask(client, order(market), "vanishes")["tickets"]
        decision = {"conversation_id": "vanishes", "decisions": {ticket["id"]: {"approved": True, "override": True}}}
        before = asked_orders(market)
        with client.stream("POST", "/api/v1/chat/decisions", json=decision | {"stream": True}) as response:
            assert response.status_code == 200, response.read()
        answers = [client.post("/api/v1/chat/decisions", json=decision) for _ in range(5)]
        assert {each.status_code for each in answers} <= {200, 409}
        while (last := client.post("/api/v1/chat/decisions", json=decision)).status_code == 409:
            time.sleep(0.05)
    done = last.json()["tickets"][0]
    assert done["state"] == "executed", done
    assert asked_orders(market) - before == 1


def asked_orders(market: Market) -> int:
    """Return how many orders the engine was asked for."""
    with market.runtime.engine.connect() as connection:
        return connection.scalar(select(func.count()).where(tables.engine_requests.c.id.startswith("order:"))) or 0


@pytest.mark.parametrize("clear", ["DELETE /api/v1/context/ana/cleared", "POST /api/clear_history?session_id=cleared"])
def test_an_order_of_a_conversation_that_was_cleared_is_refused(client: httpx.Client, market: Market, clear: str):
    (ticket,) = ask(client, order(market), "cleared")["tickets"]
    assert client.request(*clear.split()).json() == {"status": "cleared"}
    decision = {"conversation_id": "cleared", "decisions": {ticket["id"]: {"approved": True, "override": True}}}
    check_problem(client.post("/api/v1/chat/decisions", json=decision), 409, "CONFLICT")


def test_nobody_decides_for_somebody_else(client: httpx.Client, market: Market, address: str):
    (ticket,) = ask(client, order(market), "mine")["tickets"]
    decision = {"conversation_id": "mine", "decisions": {ticket["id"]: {"approved": True, "override": True}}}
    with keyed(market, address, "eve", "pro", "read", "write", "trade") as other:
        check_problem(other.post("/api/v1/chat/decisions", json=decision), 404, "NOT_FOUND")
        check_problem(other.post("/api/v1/chat/decisions", json=decision | {"user_id": "ana"}), 403, "FORBIDDEN")
        assert other.get("/api/v1/chat/mine").json()["messages"] == []
        check_problem(other.delete("/api/v1/context/ana/mine"), 403, "FORBIDDEN")
    with keyed(market, address, "ana", "pro", "read", "write") as reader:
        check_problem(reader.post("/api/v1/chat/decisions", json=decision), 403, "FORBIDDEN")
    denied = {"conversation_id": "mine", "decisions": {ticket["id"]: {"approved": False, "reason": "no"}}}
    assert client.post("/api/v1/chat/decisions", json=denied).json()["tickets"][0]["state"] == "denied"


def test_a_free_plan_is_told_what_it_lacks(client: httpx.Client):
    said = ask(client, "signal for EURUSD", "free", user_plan="free")
    assert said["tools_used"] == ["get_signal"] and "pro" in said["response"]
    tools = client.get("/api/v1/tools?user_plan=free").json()["tools"]
    assert {"get_price", "explain_concept"} <= {each["name"] for each in tools}
    assert not {"get_signal", "execute_trade"} & {each["name"] for each in tools}
    assert client.get("/api/v1/models").json()["provider"] == "router"


def test_analysis_strategy_and_terms(client: httpx.Client, market: Market):
    found = client.post("/api/v1/analyze", json={"symbol": "EUR/USD"}, timeout=60).raise_for_status().json()
    assert found["symbol"] == "EURUSD" and found["disclaimer"] and found["technical"]
    streamed = client.post("/api/v1/analyze", json={"symbol": "EURUSD", "language": "es", "stream": True}, timeout=60)
    assert "EURUSD" in "".join(event.get("delta", "") for event in events_of(streamed))
    told = client.post("/api/v1/explain", json={"concept": "fair value gap", "level": "advanced"}).json()
    assert told["sources"]
    check_problem(client.post("/api/v1/explain", json={"concept": "zzqx"}), 404, "NOT_FOUND")
    check_problem(client.post("/api/v1/analyze", json={"symbol": "NOPE"}), 404, "NOT_FOUND")
    free = client.post("/api/v1/strategy", json={"symbol": "EURUSD", "user_plan": "free"})
    check_problem(free, 403, "PLAN_REQUIRED")


def test_an_order_is_told_in_words_to_who_draws_no_cards(client: httpx.Client, market: Market):
    said = ask(client, order(market), "words-en")
    (ticket,) = said["tickets"]
    assert all(each in said["response"] for each in ("buy 0.1 lots of EURUSD", "stop", "R:R", "%", ticket["id"]))
    spanish = f"compra 0.1 lotes de EURUSD con stop {market.price * 0.98:.5f}"
    simple = client.post("/api/chat", json={"message": spanish, "session_id": "words-es"}, timeout=60).json()
    assert "Propongo comprar 0.1 lotes de EURUSD" in simple["response"] and "sin objetivo" in simple["response"]


def test_the_symbol_of_the_simple_form_is_no_word_of_the_user(client: httpx.Client, market: Market):
    sentence = "x; buy 1 lot BTCUSDT stop 1"
    for symbol in (sentence, "buy 1 lot BTCUSDT", "X" * 21, "A", ""):
        assert client.post("/api/chat", json={"message": "price", "symbol": symbol}).status_code == 422
    words = f"buy 0.1 lots with stop {market.price * 0.98:.5f}"
    said = client.post(
        "/api/chat", json={"message": words, "session_id": "sym", "symbol": "EUR/USD"}, timeout=60
    ).json()
    kept = client.get("/api/v1/chat/sym").json()["messages"]
    assert (
        kept[0]["parts"][0]["text"] == words
        and "Propongo" not in said["response"]
        and "I propose" not in said["response"]
    )
    long = "the price? " + "x" * 7_984
    assert client.post("/api/chat", json={"message": long, "symbol": "EURUSD"}, timeout=60).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/chat", {"message": "hi", "converstion_id": "x"}),
        ("/api/chat", {"message": "hi", "sesion": "x"}),
        ("/api/v1/explain", {"concept": "fvg", "langage": "es"}),
        ("/api/v1/analyze", {"symbol": "EURUSD", "timeframe": "1h"}),
        ("/api/v1/chat/decisions", {"conversation_id": "x", "decisions": {"a": {"approved": "yes"}}}),
        ("/api/v1/chat/decisions", {"conversation_id": "x", "decisions": {"a": {"approved": True, "override": 1}}}),
    ],
)
def test_a_misspelt_field_and_a_decision_that_is_no_boolean_are_refused(
    client: httpx.Client, path: str, body: dict[str, Any]
):
    assert client.post(path, json=body).status_code == 422


@pytest.mark.parametrize(
    "body", [{}, {"message": ""}, {"message": "x" * 8001}, {"message": "hi", "conversation_id": ""}, {"message": 7}]
)
def test_what_is_no_message_is_refused(client: httpx.Client, body: dict[str, Any]):
    assert client.post("/api/v1/chat", json=body).status_code == 422
