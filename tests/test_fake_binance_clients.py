"""Clients that others wrote judge the venue that our adapter is tested on: each must find it to be Binance."""

import asyncio
import hashlib
import hmac
import logging
import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import ccxt
import ccxt.pro
import pytest

from tests.fake_binance import signing
from tests.fake_binance.client import bare
from tests.fake_binance.pointing import keys, pointed
from tests.fake_binance.running import RunningBinance

# Signatures: the examples that Binance publishes

EXAMPLE = "symbol={}&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000&timestamp=1499827319559"


@pytest.mark.parametrize(
    "symbol, signature",
    [
        ("LTCBTC", "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"),
        ("１２３４５６", "e1353ec6b14d888f1164ae9af8228a3dbd508bc82eb867db8ab6046442f33ef3"),
    ],
)
def test_published_rest_signatures(binance: RunningBinance, symbol: str, signature: str) -> None:
    payload = EXAMPLE.format(quote(symbol))
    assert signing.sign(binance.secret, payload) == signature
    for query, body in ((payload, ""), ("", payload), tuple(payload.split("&price"))):
        body = f"&price{body}" if body.startswith("=") else body
        for sent in (signature, signature.upper()):
            answer = bare(binance).send_as_is("POST", "order", query, f"{body}&signature={sent}")
            assert answer.body["code"] == -1021, "the signature fits, so only its age is wrong"
    now = signing.sign(binance.secret, "x")
    assert now == hmac.new(binance.secret.encode(), b"x", hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    "changed, signature",
    [
        (
            {"symbol": "BTCUSDT", "side": "SELL", "price": "52000.00", "quantity": "0.01000000", "recvWindow": 100},
            "aa1b5712c094bc4e57c05a1a5c1fd8d88dcd628338ea863fec7b88e59fe2db24",
        ),
        (
            {
                "symbol": "１２３４５６",
                "side": "BUY",
                "price": "0.10000000",
                "quantity": "1.00000000",
                "recvWindow": 5000,
            },
            "b33892ae8e687c939f4468c6268ddd4c40ac1af18ad19a064864c47bae0752cd",
        ),
    ],
)
def test_published_socket_signatures(changed: dict[str, Any], signature: str) -> None:
    told = {"type": "LIMIT", "timeInForce": "GTC", "timestamp": 1645423376532, "signature": signature}
    told["apiKey"] = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
    payload, found = signing.socket_payload(told | changed)
    secret = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
    assert found == signature == signing.sign(secret, payload)


# ccxt


def test_ccxt_places_queries_and_cancels(binance: RunningBinance) -> None:
    exchange = pointed(ccxt.binance(keys(binance)), binance)
    market = exchange.load_markets()["BTC/USDT"]
    assert (market["precision"]["amount"], market["precision"]["price"]) == (1e-05, 0.01)
    placed = exchange.create_order("BTC/USDT", "limit", "buy", 0.01, 50_000, {"newClientOrderId": "first"})
    assert placed["status"] == "open"
    assert exchange.fetch_order(None, "BTC/USDT", {"origClientOrderId": "first"})["id"] == placed["id"]
    assert exchange.fetch_balance()["USDT"]["used"] == 500
    assert exchange.cancel_order(placed["id"], "BTC/USDT")["status"] == "canceled"
    bought = exchange.create_order("BTC/USDT", "market", "buy", 0.01)
    assert (bought["status"], bought["fee"]) == ("closed", {"currency": "BTC", "cost": 1e-05})
    assert [trade["amount"] for trade in exchange.fetch_my_trades("BTC/USDT")] == [0.01]
    with pytest.raises(ccxt.InsufficientFunds):
        exchange.create_order("BTC/USDT", "limit", "buy", 100, 50_000)
    with pytest.raises(ccxt.OrderNotFound):
        exchange.cancel_order("999", "BTC/USDT")


async def hear_with_ccxt(venue: RunningBinance) -> tuple[Any, ...]:
    """Return an order and a bar as ccxt hears them, and an order placed by socket."""
    exchange = pointed(ccxt.pro.binance(keys(venue)), venue)
    try:
        await exchange.load_markets()
        orders = asyncio.create_task(exchange.watch_orders("BTC/USDT"))
        bars = asyncio.create_task(exchange.watch_ohlcv("BTC/USDT", "1m"))
        await until(venue, listeners=1, watchers=1)
        await exchange.create_order("BTC/USDT", "limit", "buy", 0.01, 50_000)
        heard = await asyncio.wait_for(orders, 10)
        await asyncio.to_thread(venue.price, "BTCUSDT", 60_010)
        bar = await asyncio.wait_for(bars, 10)
        sent = await exchange.create_order_ws("BTC/USDT", "limit", "buy", 0.01, 50_000)
        ended = await exchange.cancel_order_ws(sent["id"], "BTC/USDT")
        return heard[0]["status"], bar[-1][4], sent["status"], ended["status"]
    finally:
        await exchange.close()


async def until(venue: RunningBinance, **counts: int) -> None:
    """Wait until the venue has this many listeners or watchers."""
    for _ in range(200):
        state = await asyncio.to_thread(venue.control, "state")
        if all(state[name] >= count for name, count in counts.items()):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"the venue has not got {counts}")


def test_ccxt_hears_orders_and_bars(binance: RunningBinance) -> None:
    assert asyncio.run(hear_with_ccxt(binance)) == ("open", 60_010, "open", "canceled")


# python-binance


async def use_python_binance(venue: RunningBinance) -> tuple[Any, ...]:
    """Return what python-binance places, finds, cancels and hears."""
    from binance import AsyncClient, BinanceSocketManager

    client = AsyncClient(venue.key, venue.secret)
    client.API_URL = f"{venue.url}/api"
    client.ws_api._url = f"{venue.ws_url}/ws-api/v3"
    client.ws_api.TIMEOUT = 0.5  # it waits so long for a message before it sees that it is to end
    try:
        async with BinanceSocketManager(client).user_socket() as events:
            placed = await client.order_limit_buy(symbol="BTCUSDT", quantity="0.01", price="50000")
            heard = [await asyncio.wait_for(events.recv(), 10) for _ in range(2)]
            found = await client.get_order(symbol="BTCUSDT", orderId=placed["orderId"])
            ended = await client.cancel_order(symbol="BTCUSDT", orderId=placed["orderId"])
            heard += [await asyncio.wait_for(events.recv(), 10)]
            by_socket = await client.ws_create_order(
                symbol="BTCUSDT", side="BUY", type="LIMIT", timeInForce="GTC", quantity="0.01", price="50000"
            )
        told = [(event["e"], event.get("X")) for event in heard]
        return placed["status"], found["status"], ended["status"], by_socket["status"], told
    finally:
        await client.close_connection()


def test_python_binance_places_queries_cancels_and_hears(binance: RunningBinance) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its use of websockets' older names
        placed, found, ended, by_socket, heard = asyncio.run(use_python_binance(binance))
    assert (placed, found, ended, by_socket) == ("NEW", "NEW", "CANCELED", "NEW")
    assert heard == [("executionReport", "NEW"), ("outboundAccountPosition", None), ("executionReport", "CANCELED")]


# Binance's own SDK


def test_binance_sdk_places_queries_and_cancels(binance: RunningBinance) -> None:
    from binance_common.configuration import ConfigurationRestAPI
    from binance_common.errors import BadRequestError
    from binance_sdk_spot.spot import Spot

    told = ConfigurationRestAPI(api_key=binance.key, api_secret=binance.secret, base_path=binance.url, retries=0)
    client = Spot(config_rest_api=told).rest_api
    placed = client.new_order(
        symbol="BTCUSDT", side="BUY", type="LIMIT", time_in_force="GTC", quantity=0.01, price=50000
    ).data()
    assert placed.status == "NEW"
    assert client.get_order(symbol="BTCUSDT", order_id=placed.order_id).data().status == "NEW"
    assert client.delete_order(symbol="BTCUSDT", order_id=placed.order_id).data().status == "CANCELED"
    pair = client.order_list_opoco(
        symbol="BTCUSDT",
        working_type="LIMIT",
        working_side="BUY",
        working_price=59000,
        working_quantity=0.01,
        working_time_in_force="GTC",
        pending_side="SELL",
        pending_above_type="LIMIT_MAKER",
        pending_above_price=62000,
        pending_below_type="STOP_LOSS",
        pending_below_stop_price=57000,
    ).data()
    assert [order.status for order in pair.order_reports] == ["NEW", "PENDING_NEW", "PENDING_NEW"]
    with pytest.raises(BadRequestError, match="Order does not exist"):
        client.get_order(symbol="BTCUSDT", orig_client_order_id="nobody")
    assert len(client.exchange_info(symbol="BTCUSDT").data().symbols[0].filters) == 9


async def use_sdk_socket(venue: RunningBinance) -> tuple[Any, ...]:
    """Return what the SDK places, cancels and hears by socket."""
    from binance_common.configuration import ConfigurationWebSocketAPI
    from binance_sdk_spot.spot import Spot

    url = f"{venue.ws_url}/ws-api/v3"
    told = ConfigurationWebSocketAPI(api_key=venue.key, api_secret=venue.secret, stream_url=url)
    connection = await Spot(config_ws_api=told).websocket_api.create_connection()
    heard: list[Any] = []
    try:
        stream = await connection.user_data_stream_subscribe_signature()
        stream.stream.on("message", heard.append)
        placed = await connection.order_place(
            symbol="BTCUSDT", side="BUY", type="LIMIT", time_in_force="GTC", quantity=0.01, price=50000
        )
        order = placed.data().result
        found = await connection.order_status(symbol="BTCUSDT", order_id=order.order_id)
        ended = await connection.order_cancel(symbol="BTCUSDT", order_id=order.order_id)
        for _ in range(100):
            if len(heard) >= 4:
                break
            await asyncio.sleep(0.05)
        told_of = [type(getattr(event, "actual_instance", event)).__name__ for event in heard]
        return order.status, found.data().result.status, ended.data().result.status, told_of
    finally:
        await connection.close_connection(close_session=True)


def test_binance_sdk_hears_by_socket(binance: RunningBinance, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its use of aiohttp's older names
        placed, found, ended, heard = asyncio.run(use_sdk_socket(binance))
    assert (placed, found, ended) == ("NEW", "NEW", "CANCELED")
    assert heard == ["ExecutionReport", "OutboundAccountPosition"] * 2
    assert not caplog.records


# Each hears a refusal as the exception its users know


@pytest.mark.parametrize(
    "fault, expected",
    [
        ("cut", ccxt.NetworkError),
        ("drop", ccxt.NetworkError),
        ("timeout_never", ccxt.RequestTimeout),
        ("timestamp", ccxt.InvalidNonce),
        ("too_many", ccxt.DDoSProtection),
        ("banned", ccxt.DDoSProtection),
        ("unavailable", ccxt.ExchangeError),
        ("html", ccxt.ExchangeError),
    ],
)
def test_ccxt_knows_each_fault(binance: RunningBinance, fault: str, expected: type[Exception]) -> None:
    exchange = pointed(ccxt.binance(keys(binance)), binance)
    exchange.load_markets()
    binance.control("fault", kind=fault, path="order", seconds=1)
    with pytest.raises((expected, ccxt.ExchangeNotAvailable)) as caught:
        exchange.create_order("BTC/USDT", "limit", "buy", 0.01, 50_000, {"newClientOrderId": f"once-{fault}"})
    print(fault, type(caught.value).__name__)
    accepted = [record for record in binance.log("order") if record["clientOrderId"] == f"once-{fault}"]
    assert len(accepted) == (1 if fault == "cut" else 0)
    assert Decimal(binance.control("state")["accounts"][binance.key]["balances"][-1]["locked"]) == 500 * len(accepted)


def test_the_venue_knows_nothing_of_ours() -> None:
    for path in sorted((Path(__file__).parent / "fake_binance").glob("*.py")):
        assert "orbiquant" not in path.read_text(encoding="utf-8"), path
