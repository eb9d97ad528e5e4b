"""What goes wrong on purpose on the fake Binance: each kind does what it says, no more, and leaves it in the log."""

import asyncio
import json
import time
from contextlib import suppress
from http.client import RemoteDisconnected
from pathlib import Path
from typing import Any
from urllib.error import URLError

import aiohttp
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.fake_binance.client import BareClient, bare, listening
from tests.fake_binance.running import RunningBinance, running_binance

CUT = (RemoteDisconnected, ConnectionResetError, URLError)
ORDER = {"quantity": "0.01", "price": "50000"}


@pytest.fixture
def client(binance: RunningBinance) -> BareClient:
    """Return a client of the first account."""
    return bare(binance)


def fault(binance: RunningBinance, kind: str, **more: Any) -> None:
    """Let something go wrong once."""
    binance.control("fault", kind=kind, **more)


# Requests


def test_dropped_before_it_is_accepted(binance: RunningBinance, client: BareClient) -> None:
    fault(binance, "drop", client_id="a")
    with pytest.raises(CUT):
        client.order(**ORDER, newClientOrderId="a")
    assert client.query("a").code == -2013
    assert client.order(**ORDER, newClientOrderId="a").status == 200, "once means once"


def test_cut_after_it_is_accepted(binance: RunningBinance, client: BareClient) -> None:
    fault(binance, "cut", client_id="a")
    with pytest.raises(CUT):
        client.order(**ORDER, newClientOrderId="a")
    assert client.status("a") == "NEW"


def test_a_delay_longer_than_the_window_is_not_forwarded(binance: RunningBinance, client: BareClient) -> None:
    fault(binance, "delay", client_id="a", seconds=0.3, count=2)
    begun = time.monotonic()
    assert client.order(**ORDER, newClientOrderId="a").status == 200
    assert time.monotonic() - begun > 0.3
    late = client.order(**ORDER, newClientOrderId="ab", recvWindow=200)
    assert late.code == -1021
    assert client.query("ab").code == -2013


def test_nobody_knows_then_it_is_accepted(binance: RunningBinance, client: BareClient) -> None:
    fault(binance, "timeout_late", client_id="a", seconds=0.3)
    assert (lambda answer: (answer.status, answer.code))(client.order(**ORDER, newClientOrderId="a")) == (504, -1007)
    assert client.query("a").code == -2013, "not there yet proves nothing"
    time.sleep(0.5)
    assert client.status("a") == "NEW"
    fault(binance, "timeout_never", client_id="b")
    assert client.order(**ORDER, newClientOrderId="b").code == -1007
    time.sleep(0.4)
    assert client.query("b").code == -2013


def test_a_query_may_lag_behind_the_engine(binance: RunningBinance, client: BareClient) -> None:
    client.order(**ORDER, newClientOrderId="a")
    fault(binance, "blind", method="GET", path="/order", count=2)
    assert [client.query("a").code for _ in range(3)] == [-2013, -2013, 0]


def test_a_faster_clock_shortens_what_is_late(binance: RunningBinance, client: BareClient) -> None:
    binance.control("clock", scale=20)
    fault(binance, "timeout_late", client_id="a", seconds=8)
    now = client.send("GET", "time", signed=False).body["serverTime"]
    assert client.order(**ORDER, newClientOrderId="a", timestamp=now).code == -1007
    time.sleep(0.6)
    now = client.send("GET", "time", signed=False).body["serverTime"]
    found = client.send("GET", "order", symbol="BTCUSDT", origClientOrderId="a", timestamp=now)
    assert found.body["status"] == "NEW"


def test_events_before_and_after_the_answer(binance: RunningBinance, client: BareClient) -> None:
    with listening(binance) as heard:
        fault(binance, "event_first", client_id="a", seconds=0.3)
        client.order(**ORDER, newClientOrderId="a")
        answered = time.time_ns()
        sent = next(record for record in binance.log("event") if record["event"].get("c") == "a")
        assert answered - sent["wall_ns"] > 250_000_000
        heard.events()
        fault(binance, "event_late", client_id="b", seconds=0.3)
        client.order(**ORDER, newClientOrderId="b")
        assert heard.events(0.1) == []
        assert [event.get("c") for event in heard.events(0.5)] == ["b", None]


async def pings(binance: RunningBinance) -> int:
    """Return how many heartbeats arrive in most of a second."""
    count = 0
    url, until = f"{binance.ws_url}/ws-api/v3", time.monotonic() + 0.7
    async with aiohttp.ClientSession() as session, session.ws_connect(url, autoping=False) as socket:
        while (left := until - time.monotonic()) > 0:
            with suppress(TimeoutError):
                message = await socket.receive(timeout=left)
                count += message.type == aiohttp.WSMsgType.PING
                await socket.pong(message.data)
    return count


def test_one_event_is_lost_while_heartbeats_go_on(tmp_path: Path) -> None:
    with running_binance(tmp_path, "--ping", "0.2") as binance:
        client = bare(binance)
        with listening(binance) as heard:
            fault(binance, "event_drop", client_id="a", event="executionReport")
            client.order(**ORDER, newClientOrderId="a")
            assert [event["e"] for event in heard.events(0.8)] == ["outboundAccountPosition"]
            client.order(**ORDER, newClientOrderId="b")
            assert [event["e"] for event in heard.events()] == ["executionReport", "outboundAccountPosition"]
        assert asyncio.run(pings(binance)) >= 2
        lost = [record["copies"] for record in binance.log("event") if record["event"].get("c") == "a"]
        assert lost == [0]


def test_events_come_twice(binance: RunningBinance, client: BareClient) -> None:
    with listening(binance) as heard:
        fault(binance, "event_twice", client_id="a", event="executionReport")
        client.order(**ORDER, newClientOrderId="a")
        assert [event.get("c") for event in heard.events()] == ["a", "a", None]


def test_an_old_event_comes_again(binance: RunningBinance, client: BareClient) -> None:
    with listening(binance) as heard:
        fault(binance, "event_again", client_id="a", event="executionReport", seconds=0.5)
        client.order(**ORDER, newClientOrderId="a")
        client.order(**ORDER, newClientOrderId="b")
        told = [event for event in heard.events(0.8) if event["e"] == "executionReport"]
    assert [event["c"] for event in told] == ["a", "b", "a"]
    assert told[0] == told[2]


def test_a_fill_wins_against_a_cancel(binance: RunningBinance, client: BareClient) -> None:
    client.order(**ORDER, newClientOrderId="a")
    fault(binance, "race", method="DELETE")
    lost = client.send("DELETE", "order", symbol="BTCUSDT", origClientOrderId="a")
    assert lost.code == -2011
    assert client.status("a") == "FILLED"
    stop = client.order("BTCUSDT", "SELL", "STOP_LOSS", quantity="0.01", stopPrice="50000", newClientOrderId="s").body
    fault(binance, "race", path="cancelReplace")
    replaced = {"symbol": "BTCUSDT", "side": "SELL", "type": "STOP_LOSS", "quantity": "0.01", "stopPrice": "51000"}
    replaced |= {"cancelReplaceMode": "STOP_ON_FAILURE", "cancelOrderId": stop["orderId"]}
    assert client.send("POST", "order/cancelReplace", **replaced).code == -2022
    assert client.status("s") == "FILLED"


def test_answers_instead_of_a_look(binance: RunningBinance, client: BareClient) -> None:
    fault(binance, "timestamp", path="order")
    assert client.order(**ORDER).code == -1021
    fault(binance, "too_many", path="order", seconds=3)
    busy = client.order(**ORDER)
    assert (busy.status, busy.code, busy.headers["Retry-After"]) == (429, -1003, "3")
    fault(binance, "unavailable", path="order")
    assert client.order(**ORDER).status == 503
    fault(binance, "html", path="order")
    page = client.order(**ORDER)
    assert (page.status, page.body[:15]) == (502, "<!DOCTYPE html>")
    assert client.send("GET", "openOrders").body == []


def test_a_ban_holds_for_everything_until_it_is_over(binance: RunningBinance, client: BareClient) -> None:
    fault(binance, "banned", path="order", seconds=1)
    first = client.order(**ORDER)
    assert (first.status, first.code, first.headers["Retry-After"]) == (418, -1003, "1")
    assert client.send("GET", "ping", signed=False).status == 418
    with connect(f"{binance.ws_url}/ws-api/v3") as socket:
        socket.send(json.dumps({"id": 1, "method": "ping"}))
        told = json.loads(socket.recv())
        assert (told["status"], told["error"]["code"]) == (418, -1003)
        assert told["error"]["data"]["retryAfter"] > told["error"]["data"]["serverTime"]
    time.sleep(1.1)
    assert client.order(**ORDER).status == 200


def test_a_rule_that_does_not_exist(binance: RunningBinance) -> None:
    with pytest.raises(AssertionError, match="`kind` must be one of"):
        fault(binance, "meteor")
    with pytest.raises(AssertionError, match="is none of"):
        binance.control("meteor")


# Drawn by seed


def outcomes(binance: RunningBinance, client: BareClient) -> list[str]:
    """Return what comes of forty orders while faults are drawn."""
    binance.control("reset")
    binance.control("fault", rate=0.5, kinds=["drop", "cut", "timeout_never"], seed=7)
    found = []
    for number in range(40):
        try:
            found.append(str(client.order(**ORDER, newClientOrderId=f"seeded-{number}").code))
        except CUT:
            found.append("cut")
    return found


def test_drawn_faults_are_the_same_every_time(binance: RunningBinance, client: BareClient) -> None:
    first = outcomes(binance, client)
    assert first == outcomes(binance, client)
    assert 10 <= sum(found != "0" for found in first) <= 30
    assert {"0", "cut", "-1007"} == set(first)
    binance.control("faults/clear")
    assert client.order(**ORDER, newClientOrderId="seeded-end").status == 200


# The whole venue


def test_reset_of_an_account_wipes_orders_and_money_without_a_word(binance: RunningBinance, client: BareClient) -> None:
    client.order(**ORDER, newClientOrderId="a")
    with listening(binance) as heard:
        binance.control("reset_account", balances={"USDT": 10_000})
        assert heard.events() == []
    assert client.query("a").code == -2013
    assert client.money("USDT") == ("10000.00000000", "0.00000000")
    assert client.money("BTC") == ("0", "0")


@pytest.mark.parametrize("deed", ["shutdown", "disconnect"])
def test_connections_end(binance: RunningBinance, deed: str) -> None:
    with listening(binance) as heard, connect(f"{binance.ws_url}/stream?streams=btcusdt@trade") as market:
        binance.control(deed)
        if deed == "shutdown":
            assert [event["e"] for event in heard.events()] == ["serverShutdown"]
            assert json.loads(market.recv())["data"]["e"] == "serverShutdown"
        with pytest.raises(ConnectionClosed):
            heard.socket.recv(timeout=5)
        with pytest.raises(ConnectionClosed):
            market.recv(timeout=5)
    with listening(binance) as again:
        assert again.ask("session.subscriptions", signed=False)["result"] == [{"subscriptionId": 0}]


def test_subscriptions_end_and_say_so(binance: RunningBinance, client: BareClient) -> None:
    with listening(binance) as heard:
        twice = heard.ask("userDataStream.subscribe.signature")
        assert twice["error"]["code"] == -2035
        binance.control("terminate")
        assert [event["e"] for event in heard.events()] == ["eventStreamTerminated"]
        client.order(**ORDER)
        assert heard.events() == [], "the connection stands, and says nothing"
        assert heard.ask("userDataStream.subscribe.signature")["result"] == {"subscriptionId": 1}
        assert heard.ask("userDataStream.unsubscribe", signed=False)["result"] == {}
        assert heard.ask("userDataStream.unsubscribe", signed=False)["error"]["code"] == -2036
        assert heard.ask("userDataStream.start", signed=False)["status"] == 400, "listen keys are gone"


def test_a_cut_by_socket_ends_the_connection_after_it_is_accepted(binance: RunningBinance, client: BareClient) -> None:
    fault(binance, "cut", client_id="a")
    with listening(binance) as heard, pytest.raises(ConnectionClosed):
        order = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "newClientOrderId": "a"}
        heard.ask("order.place", **ORDER, **order)
        heard.events(2)
    assert client.status("a") == "NEW"


def test_a_feed_that_stops_while_its_connection_stands(tmp_path: Path) -> None:
    with running_binance(tmp_path, "--tick", "0.05") as binance:
        binance.price("BTCUSDT", 60_100)
        with connect(f"{binance.ws_url}/stream?streams=btcusdt@kline_1m") as watched:
            told = [json.loads(watched.recv(timeout=5))["data"]["k"]["c"] for _ in range(3)]
            assert told == ["60100.00000000"] * 3
            binance.control("mute")
            with pytest.raises(TimeoutError):
                for _ in range(100):  # what was on its way, and no more
                    watched.recv(timeout=0.4)
            binance.control("mute", on=False)
            assert json.loads(watched.recv(timeout=5))["data"]["k"]["c"] == "60100.00000000"


def test_streams_of_the_market(binance: RunningBinance) -> None:
    with connect(f"{binance.ws_url}/ws") as raw, connect(f"{binance.ws_url}/stream?streams=btcusdt@kline_1m") as both:
        raw.send(json.dumps({"method": "SUBSCRIBE", "params": ["btcusdt@trade", "btcusdt@bookTicker"], "id": 1}))
        assert json.loads(raw.recv()) == {"result": None, "id": 1}
        binance.price("BTCUSDT", 60_100)
        trade, best = json.loads(raw.recv()), json.loads(raw.recv())
        assert (trade["e"], trade["p"], best["b"], best["a"]) == (
            "trade",
            "60100.00000000",
            "60100.00000000",
            "60100.01000000",
        )
        bar = json.loads(both.recv())
        assert (bar["stream"], bar["data"]["k"]["c"], bar["data"]["k"]["x"]) == (
            "btcusdt@kline_1m",
            "60100.00000000",
            False,
        )
        first = 1_796_000_000_000 // 60_000 * 60_000
        binance.control("bars", symbol="BTCUSDT", bars=[[first, 60_100, 60_200, 60_000, 60_050, 3]])
        closed = json.loads(both.recv())["data"]["k"]
        assert (closed["t"], closed["c"], closed["x"]) == (first, "60050.00000000", True)
        raw.send(json.dumps({"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": 2}))
        raw.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": 3}))
        rest = [json.loads(raw.recv(timeout=5)) for _ in range(10)]
        assert rest[-1] == {"result": ["btcusdt@bookTicker"], "id": 3}
