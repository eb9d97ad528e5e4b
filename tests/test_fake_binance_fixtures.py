"""A sample of ccxt's own static examples of Binance, and the shapes that Binance documents, against the fake venue.

The examples are in ccxt's repository under `ts/src/test/static/request` and `…/response`, file `binance.json`.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import ccxt
import pytest

from tests.fake_binance.client import BareClient, bare, listening
from tests.fake_binance.pointing import keys, pointed
from tests.fake_binance.running import RunningBinance

SKIPPED = {"timestamp", "recvWindow", "newClientOrderId"}  # what the examples say changes from call to call
LTC = {"symbol": "LTCUSDT"}
LIMIT = LTC | {"side": "BUY", "newOrderRespType": "FULL", "type": "LIMIT", "quantity": "0.2", "price": "50"}
LIMIT |= {"timeInForce": "GTC"}
TRAILING = {"symbol": "BTCUSDT", "side": "SELL", "trailingDelta": "500", "newOrderRespType": "FULL"}
TRAILING |= {"quantity": "0.1", "timeInForce": "GTC"}

REQUESTS: list[tuple[str, list[Any], str, dict[str, str]]] = [
    ("create_order", ["LTC/USDT", "limit", "buy", 0.2, 50], "order", LIMIT),
    (
        "create_order",
        ["LTC/USDT", "market", "buy", 0.2, 50],
        "order",
        LTC | {"side": "BUY", "newOrderRespType": "FULL", "type": "MARKET", "quoteOrderQty": "10"},
    ),
    (
        "create_order",
        ["LTC/USDT", "limit", "buy", 0.2, 50, {"postOnly": True}],
        "order",
        {name: value for name, value in LIMIT.items() if name != "timeInForce"} | {"type": "LIMIT_MAKER"},
    ),
    (
        "create_order",
        ["BTC/USDT", "limit", "buy", 0.0007856509959147719, 55000],
        "order",
        LIMIT | {"symbol": "BTCUSDT", "quantity": "0.00078", "price": "55000"},
    ),
    (
        "create_order",
        ["LTC/USDT", "limit", "buy", 0.4234234234, 55.324242343],
        "order",
        LIMIT | {"quantity": "0.423", "price": "55.32"},
    ),
    (
        "create_order",
        ["LTC/USDT", "limit", "buy", 0.2, 50, {"triggerPrice": 100}],
        "order",
        LIMIT | {"type": "STOP_LOSS_LIMIT", "stopPrice": "100"},
    ),
    ("create_order", ["LTC/USDT", "limit", "buy", 0.2, 50, {"test": True}], "order/test", LIMIT),
    (
        "create_order",
        ["SOL/USDT", "limit", "buy", 0.05, 241, {"selfTradePrevention": "expire_maker", "icebergAmount": 0.03}],
        "order",
        LIMIT
        | {"symbol": "SOLUSDT", "quantity": "0.05", "price": "241"}
        | {"selfTradePreventionMode": "EXPIRE_MAKER", "icebergQty": "0.03"},
    ),
    (
        "create_order",
        ["BTC/USDT", "limit", "sell", 0.1, 55000, {"trailingPercent": 5, "stopLossOrTakeProfit": "stopLoss"}],
        "order",
        TRAILING | {"type": "STOP_LOSS_LIMIT", "price": "55000"},
    ),
    (
        "create_order",
        ["BTC/USDT", "limit", "sell", 0.1, 70000, {"trailingPercent": 5, "stopLossOrTakeProfit": "takeProfit"}],
        "order",
        TRAILING | {"type": "TAKE_PROFIT_LIMIT", "price": "70000"},
    ),
    ("cancel_order", ["464950", "LTC/USDT"], "order", LTC | {"orderId": "464950"}),
    ("cancel_all_orders", ["LTC/USDT"], "openOrders", LTC),
    ("fetch_order", ["465138", "LTC/USDT"], "order", LTC | {"orderId": "465138"}),
    ("fetch_balance", [], "account", {}),
    ("fetch_my_trades", ["LTC/USDT"], "myTrades", LTC),
    ("fetch_orders", ["LTC/USDT"], "allOrders", LTC),
    ("fetch_open_orders", ["LTC/USDT"], "openOrders", LTC),
    ("fetch_canceled_orders", ["LTC/USDT", None, 1], "allOrders", LTC),
]


@pytest.fixture(scope="module")
def exchange(started_binance: RunningBinance) -> Iterator[Any]:
    """Return a ccxt exchange that knows the venue's markets."""
    found = pointed(ccxt.binance(keys(started_binance)), started_binance)
    found.load_markets()
    yield found


@pytest.mark.parametrize("method, told, path, expected", REQUESTS)
def test_requests_arrive_as_in_the_examples(
    binance: RunningBinance, exchange: Any, method: str, told: list[Any], path: str, expected: dict[str, str]
) -> None:
    of_nothing = method in ("cancel_order", "cancel_all_orders", "fetch_order")
    with pytest.raises(ccxt.ExchangeError) if of_nothing or "trailingDelta" in expected else nullcontext():
        getattr(exchange, method)(*told)
    heard = binance.log("heard")[-1]
    assert heard["path"] == f"/api/v3/{path}"
    assert {name: value for name, value in heard["params"].items() if name not in SKIPPED} == expected


# Answers, parsed alike


def chosen(parsed: dict[str, Any], names: str) -> dict[str, Any]:
    """Return some fields of what ccxt makes of an answer."""
    return {name: parsed[name] for name in names.split()}


def test_a_placed_order_parses_as_in_the_examples(binance: RunningBinance, exchange: Any) -> None:
    binance.price("SOLUSDT", 250)
    told = {"selfTradePrevention": "expire_maker", "icebergAmount": 0.03}
    parsed = exchange.create_order("SOL/USDT", "limit", "buy", 0.05, 241, told)
    expected = {"symbol": "SOL/USDT", "type": "limit", "timeInForce": "GTC", "postOnly": False, "reduceOnly": None}
    expected |= {"side": "buy", "price": 241, "triggerPrice": None, "amount": 0.05, "cost": 0, "average": None}
    expected |= {"filled": 0, "remaining": 0.05, "status": "open", "fee": None, "trades": [], "fees": []}
    expected |= {"stopPrice": None, "takeProfitPrice": None, "stopLossPrice": None, "lastTradeTimestamp": None}
    assert chosen(parsed, " ".join(expected)) == expected
    raw = (
        "symbol orderId orderListId clientOrderId transactTime price origQty executedQty origQuoteOrderQty status side "
    )
    raw += "cummulativeQuoteQty timeInForce type workingTime icebergQty fills selfTradePreventionMode"
    assert set(parsed["info"]) == set(raw.split())
    assert (parsed["info"]["icebergQty"], parsed["info"]["selfTradePreventionMode"]) == ("0.03000000", "EXPIRE_MAKER")


def test_a_trade_parses_as_in_the_examples(binance: RunningBinance, exchange: Any) -> None:
    binance.control("account", balances={"LTC": "0.91974100", "BTC": 0, "ETH": "0.02229833"})
    binance.price("LTCUSDT", "69.63")
    exchange.create_order("LTC/USDT", "market", "sell", 0.2)
    parsed = exchange.fetch_my_trades("LTC/USDT", None, 1)[0]
    fee = {"cost": 0.013926, "currency": "USDT"}
    expected = {"symbol": "LTC/USDT", "type": None, "side": "sell", "takerOrMaker": "taker", "price": 69.63}
    expected |= {"amount": 0.2, "cost": 13.926, "fee": fee, "fees": [fee]}
    assert chosen(parsed, " ".join(expected)) == expected
    raw = "symbol id orderId orderListId price qty quoteQty commission commissionAsset time isBuyer isMaker isBestMatch"
    assert set(parsed["info"]) == set(raw.split())
    assert parsed["info"]["commission"] == "0.01392600"


def test_balances_parse_as_in_the_examples(binance: RunningBinance, exchange: Any) -> None:
    binance.control("account", balances={"LTC": "0.91974100", "BTC": 0, "ETH": "0.02229833"})
    parsed = exchange.fetch_balance()
    assert parsed["LTC"] == {"free": 0.919741, "used": 0, "total": 0.919741}
    assert (parsed["ETH"]["total"], parsed["BTC"]["total"]) == (0.02229833, 0)
    raw = "makerCommission takerCommission buyerCommission sellerCommission commissionRates canTrade canWithdraw uid "
    raw += "canDeposit brokered requireSelfTradePrevention preventSor updateTime accountType balances permissions"
    assert set(parsed["info"]) == set(raw.split())


# Answers with no example of their own: what ccxt makes of them is what the venue was told


def test_the_market_parses_to_what_the_venue_was_told(binance: RunningBinance, exchange: Any) -> None:
    begin = 1_700_000_040_000
    bars = [[begin + 60_000 * at, 60_000 + at, 60_100 + at, 59_900, 60_050 + at, "2.5"] for at in range(3)]
    binance.control("bars", symbol="BTCUSDT", bars=bars)
    parsed = exchange.fetch_ohlcv("BTC/USDT", "1m", begin, 2)
    assert parsed == [[opened, *map(float, numbers)] for opened, *numbers in bars[:2]]
    ticker = exchange.fetch_ticker("BTC/USDT")
    expected = {"symbol": "BTC/USDT", "last": 60_052, "close": 60_052, "open": 60_000, "high": 60_102, "low": 59_900}
    expected |= {"baseVolume": 7.5, "change": 52}
    assert chosen(ticker, " ".join(expected)) == expected and ticker["bid"] <= 60_052 <= ticker["ask"]
    both = exchange.fetch_tickers(["BTC/USDT", "ETH/USDT"])
    assert set(both) == {"BTC/USDT", "ETH/USDT"} and both["BTC/USDT"]["last"] == 60_052
    book = exchange.fetch_order_book("BTC/USDT", 5)
    assert book["bids"][0][0] < book["asks"][0][0] and book["bids"] == sorted(book["bids"], reverse=True)
    rules = exchange.market("BTC/USDT")
    assert (rules["spot"], rules["active"], rules["base"], rules["quote"]) == (True, True, "BTC", "USDT")
    assert rules["precision"]["price"] == 0.01 and rules["limits"]["amount"]["min"] == rules["precision"]["amount"]


def test_orders_parse_to_what_was_done(binance: RunningBinance, exchange: Any) -> None:
    binance.price("LTCUSDT", 70)
    bought = exchange.create_order("LTC/USDT", "market", "buy", 0.5)
    waiting = exchange.create_order("LTC/USDT", "limit", "buy", 0.2, 50)
    found = exchange.fetch_order(bought["id"], "LTC/USDT")
    expected = {"status": "closed", "side": "buy", "filled": 0.5, "remaining": 0, "average": found["average"]}
    expected |= {
        "cost": pytest.approx(0.5 * found["average"]),
        "type": "market",
        "clientOrderId": bought["clientOrderId"],
    }
    assert chosen(found, " ".join(expected)) == expected and found["average"] == pytest.approx(70, rel=0.01)
    assert [each["id"] for each in exchange.fetch_open_orders("LTC/USDT")] == [waiting["id"]]
    assert exchange.cancel_order(waiting["id"], "LTC/USDT")["status"] == "canceled"
    assert [each["status"] for each in exchange.fetch_orders("LTC/USDT")] == ["closed", "canceled"]


# Shapes that Binance documents

ACK = "symbol orderId orderListId clientOrderId transactTime"
BODY = "price origQty executedQty origQuoteOrderQty cummulativeQuoteQty status timeInForce type side"
PLACED = f"{ACK} {BODY} workingTime selfTradePreventionMode"
CANCELLED = f"{ACK} {BODY} origClientOrderId selfTradePreventionMode"
QUERIED = f"{BODY} symbol orderId orderListId clientOrderId stopPrice icebergQty time updateTime isWorking workingTime "
QUERIED += "selfTradePreventionMode"
LISTED = "orderListId contingencyType listStatusType listOrderStatus listClientOrderId transactionTime symbol orders"
REPORT = "e E s c S o f q p P F g C x X r i l z L n N T t I w m M O Z Y Q V W"
LIST_EVENT = "e E s g c l L r C T O"


def test_documented_shapes(binance: RunningBinance) -> None:
    client: BareClient = bare(binance)

    def names(told: dict[str, Any]) -> set[str]:
        return set(told)

    order = {"quantity": "0.01", "price": "50000"}
    assert names(client.order(**order, newOrderRespType="ACK").body) == set(ACK.split())
    assert names(client.order(**order, newOrderRespType="RESULT").body) == set(PLACED.split())
    assert names(client.order(**order, newClientOrderId="a").body) == {*PLACED.split(), "fills"}
    stop = client.order("BTCUSDT", "SELL", "STOP_LOSS", quantity="0.01", stopPrice="50000", newClientOrderId="s")
    assert names(stop.body) == set(ACK.split()), "orders that are neither LIMIT nor MARKET answer shortly"
    assert names(client.query("a").body) == set(QUERIED.split())
    assert names(client.send("DELETE", "order", symbol="BTCUSDT", origClientOrderId="a").body) == set(CANCELLED.split())
    pending = {"pendingType": "MARKET", "pendingSide": "SELL"}
    working = {f"working{name[0].upper()}{name[1:]}": value for name, value in order.items()}
    working |= {"workingType": "LIMIT", "workingSide": "BUY", "workingTimeInForce": "GTC"}
    placed = client.send("POST", "orderList/opo", symbol="BTCUSDT", **working, **pending).body
    assert names(placed) == {*LISTED.split(), "orderReports"}
    assert names(placed["orderReports"][0]) == set(PLACED.split())
    assert names(placed["orderReports"][1]) == set(PLACED.split()) - {"origQty"}, "not sized before the entry is filled"
    found = client.send("GET", "orderList", orderListId=placed["orderListId"]).body
    assert names(found) == set(LISTED.split())


def test_documented_events(binance: RunningBinance) -> None:
    client = bare(binance)
    pair = {"side": "SELL", "quantity": "0.01", "aboveType": "LIMIT_MAKER", "abovePrice": "61000"}
    pair |= {"belowType": "STOP_LOSS", "belowStopPrice": "59000", "symbol": "BTCUSDT"}
    with listening(binance) as heard:
        client.order(quantity="0.01", price="50000")
        told = {event["e"]: event for event in heard.events()}
        assert set(told["executionReport"]) == set(REPORT.split())
        assert set(told["outboundAccountPosition"]) == {"e", "E", "u", "B"}
        client.send("POST", "orderList/oco", **pair)
        events = heard.events()
        binance.price("BTCUSDT", 58_000)
        events += heard.events()
    lists = [event for event in events if event["e"] == "listStatus"]
    assert all(set(event) == set(LIST_EVENT.split()) for event in lists)
    assert [(event["l"], event["L"]) for event in lists] == [("EXEC_STARTED", "EXECUTING"), ("ALL_DONE", "ALL_DONE")]
    expired = [event for event in events if event.get("x") == "EXPIRED"]
    assert [event["eR"] for event in expired] == ["OCO_TRIGGER"]
