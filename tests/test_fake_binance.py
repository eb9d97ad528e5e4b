"""The venue that our Binance adapter is tested on keeps Binance's rules: rights, filters, matching, money."""

import time
from decimal import Decimal
from typing import Any

import pytest

from tests.fake_binance.client import BareClient, bare, listening
from tests.fake_binance.running import RunningBinance
from tests.fake_binance.signing import sign


@pytest.fixture
def client(binance: RunningBinance) -> BareClient:
    """Return a client of the first account."""
    return bare(binance)


def told(answer: Any) -> tuple[int, int, str]:
    """Return a refusal's status, code and words."""
    return answer.status, answer.body["code"], answer.body["msg"]


# Rights


def test_keys_signatures_and_times(binance: RunningBinance, client: BareClient) -> None:
    now = int(time.time() * 1000)
    assert told(BareClient(binance, "short", "x").send("GET", "account"))[:2] == (401, -2014)
    assert told(BareClient(binance, "k" * 64, "x").send("GET", "account"))[:2] == (401, -2015)
    assert told(BareClient(binance, binance.key, "wrong").send("GET", "account"))[:2] == (400, -1022)
    assert told(client.send_as_is("GET", "account", f"timestamp={now}"))[:2] == (400, -1102)
    assert told(client.send("GET", "account", timestamp=now - 5_100))[1] == -1021
    assert client.send("GET", "account", timestamp=now - 5_100, recvWindow=10_000).status == 200
    assert told(client.send("GET", "account", timestamp=now + 1_500))[1:] == (
        -1021,
        "Timestamp for this request was 1000ms ahead of the server's time.",
    )
    assert client.send("GET", "account", timestamp=now * 1000).status == 200, "microseconds are taken too"
    binance.control("clock", offset_ms=-7_000)
    assert told(client.send("GET", "account"))[1] == -1021
    assert abs(client.send("GET", "time", signed=False).body["serverTime"] + 7_000 - time.time() * 1000) < 2_000


def test_what_is_not_percent_encoded_before_signing_is_refused(binance: RunningBinance, client: BareClient) -> None:
    plain = f"symbol=１２３４５６&timestamp={int(time.time() * 1000)}"
    encoded = plain.replace("１２３４５６", "%EF%BC%91%EF%BC%92%EF%BC%93%EF%BC%94%EF%BC%95%EF%BC%96")
    wrong, right = sign(binance.secret, plain), sign(binance.secret, encoded)
    assert told(client.send_as_is("GET", "openOrders", f"{encoded}&signature={wrong}"))[1] == -1022
    assert client.send_as_is("GET", "openOrders", f"{encoded}&signature={right}").body == []


def test_a_key_that_may_withdraw_says_so(binance: RunningBinance, client: BareClient) -> None:
    path = "/sapi/v1/account/apiRestrictions"
    assert client.send("GET", path).body["enableWithdrawals"] is False
    binance.control("account", can_withdraw=True, can_trade=False)
    assert client.send("GET", path).body["enableWithdrawals"] is True
    assert client.send("GET", "account").body["canTrade"] is False
    refusal = client.order(quantity="0.01", price="50000")
    assert told(refusal)[1:] == (-2010, "This account may not place or cancel orders.")


def test_weight_is_counted_limited_and_banned(binance: RunningBinance, client: BareClient) -> None:
    assert client.send("GET", "ping", signed=False).headers["X-MBX-USED-WEIGHT-1M"] == "1"
    assert client.order(quantity="0.01", price="50000").headers["X-MBX-ORDER-COUNT-10S"] == "1"
    binance.control("limits", weight_limit=50, patience=1)
    answers = [client.send("GET", "account") for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 429, 418]
    assert 0 < int(answers[2].headers["Retry-After"]) <= 60
    assert answers[3].headers["Retry-After"] == "120"
    assert [answer.code for answer in answers[2:]] == [-1003, -1003]
    binance.control("limits", weight_limit=6000, banned_until_ms=0, orders_limit=2)
    answers = [client.order(quantity="0.01", price="50000") for _ in range(3)]
    assert [answer.code for answer in answers] == [0, -1015, -1015]


# Filters, each by name


@pytest.mark.parametrize(
    "params, expected",
    [
        ({"quantity": "0.01", "price": "50000.001"}, "PRICE_FILTER"),
        ({"quantity": "0.01", "price": "2000000"}, "PRICE_FILTER"),
        ({"quantity": "0.010001", "price": "50000"}, "LOT_SIZE"),
        ({"quantity": "9001", "price": "50000"}, "LOT_SIZE"),
        ({"quantity": "0.00009", "price": "50000"}, "NOTIONAL"),
        ({"quantity": "0.01", "price": "11000"}, "PERCENT_PRICE_BY_SIDE"),
        ({"quantity": "0.01", "price": "310000", "side": "SELL"}, "PERCENT_PRICE_BY_SIDE"),
        ({"quantity": "101", "type": "MARKET"}, "MARKET_LOT_SIZE"),
        ({"quantity": "0.00008", "type": "MARKET"}, "NOTIONAL"),
        ({"quantity": "0.01", "stopPrice": "50000.001", "type": "STOP_LOSS", "side": "SELL"}, "PRICE_FILTER"),
    ],
)
def test_filters(client: BareClient, params: dict[str, str], expected: str) -> None:
    assert told(client.order(**params)) == (400, -1013, f"Filter failure: {expected}")


def test_counts_of_open_orders(binance: RunningBinance, client: BareClient) -> None:
    binance.control("symbol", symbol="BTCUSDT", max_orders=4, max_algo_orders=2)
    stop = {"side": "SELL", "type": "STOP_LOSS", "quantity": "0.01"}
    answers = [client.order(**stop, stopPrice=str(50_000 + step)) for step in range(3)]
    assert [answer.body.get("msg", "") for answer in answers] == ["", "", "Filter failure: MAX_NUM_ALGO_ORDERS"]
    answers = [client.order(quantity="0.01", price="50000") for _ in range(3)]
    assert [answer.body.get("msg", "") for answer in answers] == ["", "", "Filter failure: MAX_NUM_ORDERS"]


@pytest.mark.parametrize(
    "params, code",
    [
        ({"quantity": "0.010000001", "price": "50000"}, -1111),
        ({"quantity": "0.01", "price": "50000", "symbol": "NOPE"}, -1121),
        ({"quantity": "0.01", "price": "50000", "side": "HOLD"}, -1117),
        ({"quantity": "0.01", "price": "50000", "type": "ICEBERG"}, -1116),
        ({"quantity": "0.01", "price": "50000", "timeInForce": "DAY"}, -1115),
        ({"quantity": "1e-2", "price": "50000"}, -1100),
        ({"quantity": "0.01", "price": "50000", "newClientOrderId": "a b"}, -1100),
        ({"quantity": "0.01", "price": "50000", "newClientOrderId": "a" * 37}, -1100),
        ({"quantity": "0.01"}, -1102),
        ({"quantity": "0.01", "price": "50000", "stopPrice": "1"}, -1106),
        ({"quantity": "0.01", "price": "50000", "reduceOnly": "true"}, -1104),
        ({"quantity": "0.01", "price": "50000", "icebergQty": "0.0005"}, -1013),
        ({"quantity": "0.01", "price": "50000", "strategyType": "7"}, -1134),
        ({"quantity": "0.01", "type": "STOP_LOSS", "side": "SELL", "trailingDelta": "100"}, -1013),
        ({"quantity": "0.01", "price": "50000", "pegPriceType": "PRIMARY_PEG"}, -1013),
        ({"quantity": "100", "price": "50000"}, -2010),
        ({"quantity": "0.01", "type": "LIMIT_MAKER", "price": "61000"}, -2010),
        ({"quantity": "0.01", "type": "STOP_LOSS", "side": "SELL", "stopPrice": "61000"}, -2010),
    ],
)
def test_refusals(client: BareClient, params: dict[str, str], code: int) -> None:
    assert client.order(**params).code == code


def test_pairs_of_ones_own(binance: RunningBinance, client: BareClient) -> None:
    for number in range(40):
        told = {"base": f"C{number}", "quote": "USDT", "price": 10, "step": "0.1", "min_quantity": "0.1"}
        binance.control("symbol", symbol=f"C{number}USDT", **told)
        assert client.order(f"C{number}USDT", type="MARKET", quantity="1.5").body["status"] == "FILLED"
    assert client.money("C39") == ("1.49850000", "0.00000000")
    assert len(client.send("GET", "ticker/price", signed=False).body) == 48
    named = '["C1USDT","C2USDT"]'
    info = client.send("GET", "exchangeInfo", signed=False, symbols=named).body
    assert [symbol["baseAsset"] for symbol in info["symbols"]] == ["C1", "C2"]


def test_a_symbol_without_market_stops(binance: RunningBinance, client: BareClient) -> None:
    binance.control("symbol", symbol="BTCUSDT", types=["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT"])
    stop = {"side": "SELL", "quantity": "0.01", "stopPrice": "59000"}
    refusal = told(client.order(type="STOP_LOSS", **stop))
    assert refusal[1:] == (-1013, "Stop loss orders are not supported for this symbol.")
    assert client.order(type="STOP_LOSS_LIMIT", price="58000", **stop).status == 200


def test_symbols_that_do_not_trade(binance: RunningBinance, client: BareClient) -> None:
    client.order(quantity="0.01", price="50000", newClientOrderId="stays")
    for status in ("CANCEL_ONLY", "BREAK", "HALT"):
        binance.control("symbol", symbol="BTCUSDT", status=status)
        assert client.send("GET", "exchangeInfo", signed=False, symbol="BTCUSDT").body["symbols"][0]["status"] == status
        assert told(client.order(quantity="0.01", price="50000"))[1:] == (-1013, "Market is closed.")
    binance.control("symbol", symbol="BTCUSDT", status="CANCEL_ONLY")
    ended = client.send("DELETE", "order", symbol="BTCUSDT", origClientOrderId="stays")
    assert ended.body["status"] == "CANCELED"


# Client ids


def test_a_client_id_is_unique_while_open_and_free_once_filled(binance: RunningBinance, client: BareClient) -> None:
    order = {"quantity": "0.01", "price": "59000", "newClientOrderId": "mine"}
    first = client.order(**order)
    assert told(client.order(**order))[1:] == (-2010, "Duplicate order sent.")
    binance.price("BTCUSDT", 59_000)
    assert client.status("mine") == "FILLED"
    binance.price("BTCUSDT", 60_000)
    second = client.order(**order)
    assert second.body["orderId"] != first.body["orderId"], "who sends again after a fill buys twice"
    assert client.query("mine").body["orderId"] == second.body["orderId"]


def test_what_is_not_there(client: BareClient) -> None:
    assert told(client.query("nobody")) == (400, -2013, "Order does not exist.")
    gone = client.send("DELETE", "order", symbol="BTCUSDT", origClientOrderId="nobody")
    assert told(gone) == (400, -2011, "Unknown order sent.")
    assert client.send("GET", "order", symbol="BTCUSDT").code == -1102


# Matching and money


def test_limit_orders_lock_rest_and_fill_at_their_price(binance: RunningBinance, client: BareClient) -> None:
    client.order(quantity="0.01", price="59000", newClientOrderId="b")
    assert client.money("USDT") == ("999410.00000000", "590.00000000")
    binance.price("BTCUSDT", 58_000)
    assert client.query("b").body["cummulativeQuoteQty"] == "590.00000000", "a maker gets its own price"
    assert client.money("USDT") == ("999410.00000000", "0.00000000")
    assert client.money("BTC") == ("10.00999000", "0.00000000"), "the fee is taken from what was bought"
    taken = client.order(quantity="0.01", price="60000")
    assert [fill["price"] for fill in taken.body["fills"]] == ["58000.01000000"], "a taker gets the better price"
    assert client.money("USDT") == ("998829.99990000", "0.00000000")


def test_fees_in_bnb(binance: RunningBinance, client: BareClient) -> None:
    binance.control("account", bnb_fees=True, balances={"BNB": 1})
    fill = client.order(type="MARKET", quantity="0.1").body["fills"][0]
    assert (fill["commissionAsset"], fill["commission"]) == ("BNB", "0.00750000")
    assert client.money("BTC")[0] == "10.10000000"
    assert client.money("BNB")[0] == "0.99250000"
    rates = client.send("GET", "account/commission", symbol="BTCUSDT").body
    assert (rates["standardCommission"]["taker"], rates["discount"]["enabledForAccount"]) == ("0.00100000", True)
    binance.control("account", balances={"BNB": "0.001"})
    fill = client.order(type="MARKET", quantity="0.1").body["fills"][0]
    assert fill["commissionAsset"] == "BTC", "too little BNB: the fee comes from what was bought"
    fill = client.order(type="MARKET", side="SELL", quantity="0.1").body["fills"][0]
    assert (fill["commissionAsset"], fill["commission"]) == ("USDT", "6.00000000")


def test_partial_fills_and_short_liquidity(binance: RunningBinance, client: BareClient) -> None:
    client.order(quantity="0.03", price="59000", newClientOrderId="p")
    binance.control("fill", symbol="BTCUSDT", clientOrderId="p", quantity="0.01")
    assert client.status("p") == "PARTIALLY_FILLED"
    binance.control("liquidity", symbol="BTCUSDT", quantity="0.015")
    binance.price("BTCUSDT", 58_900)
    assert client.query("p").body["executedQty"] == "0.02500000"
    ended = client.send("DELETE", "order", symbol="BTCUSDT", origClientOrderId="p", newClientOrderId="c")
    assert (ended.body["status"], ended.body["origClientOrderId"], ended.body["clientOrderId"]) == (
        "CANCELED",
        "p",
        "c",
    )
    assert client.money("USDT") == ("998525.00000000", "0.00000000")
    binance.control("liquidity", symbol="BTCUSDT", quantity="0.004")
    market = client.order(type="MARKET", quantity="0.01").body
    assert (market["status"], market["executedQty"]) == ("EXPIRED", "0.00400000")
    assert market["expiryReason"] == "INSUFFICIENT_LIQUIDITY"
    trades = client.send("GET", "myTrades", symbol="BTCUSDT").body
    assert [trade["qty"] for trade in trades] == ["0.01000000", "0.01500000", "0.00400000"]
    later = client.send("GET", "myTrades", symbol="BTCUSDT", fromId=trades[1]["id"]).body
    assert [trade["id"] for trade in later] == [trade["id"] for trade in trades[1:]]


def test_immediate_or_cancel_and_fill_or_kill(binance: RunningBinance, client: BareClient) -> None:
    binance.control("liquidity", symbol="BTCUSDT", quantity="0.004")
    fok = client.order(quantity="0.01", price="60001", timeInForce="FOK").body
    assert (fok["status"], fok["executedQty"], fok["expiryReason"]) == (
        "EXPIRED",
        "0.00000000",
        "UNFILLED_FOK_ORDER_EXPIRED",
    )
    ioc = client.order(quantity="0.01", price="60001", timeInForce="IOC").body
    assert (ioc["status"], ioc["executedQty"], ioc["expiryReason"]) == (
        "EXPIRED",
        "0.00400000",
        "UNFILLED_IOC_QUANTITY_EXPIRED",
    )
    assert client.order(quantity="0.01", price="50000", timeInForce="IOC").body["status"] == "EXPIRED"
    assert client.money("USDT")[1] == "0.00000000"


def test_stops_trigger_slip_and_may_stay_unfilled(binance: RunningBinance, client: BareClient) -> None:
    sell = {"side": "SELL", "quantity": "0.01"}
    client.order(type="STOP_LOSS", stopPrice="59000", newClientOrderId="market", **sell)
    client.order(type="STOP_LOSS_LIMIT", stopPrice="59000", price="58900", newClientOrderId="limit", **sell)
    client.order(type="TAKE_PROFIT", stopPrice="61000", newClientOrderId="target", **sell)
    client.order(type="STOP_LOSS", stopPrice="61000", quantity="0.01", newClientOrderId="breakout")
    assert client.money("BTC") == ("9.97000000", "0.03000000")
    binance.price("BTCUSDT", 59_500)
    assert client.status("market") == "NEW"
    binance.price("BTCUSDT", 58_000)
    assert client.query("market").body["cummulativeQuoteQty"] == "580.00000000", "a stop sells at what there is"
    assert client.status("limit") == "NEW", "gapped through: a stop with a limit stays unfilled"
    binance.price("BTCUSDT", 61_000)
    assert [client.status(name) for name in ("limit", "target", "breakout")] == ["FILLED"] * 3
    by_money = client.order(type="MARKET", quoteOrderQty="1000").body
    assert Decimal(by_money["cummulativeQuoteQty"]) <= 1000 and by_money["executedQty"] == "0.01639000"


def test_bars_move_the_market_and_are_told(binance: RunningBinance, client: BareClient) -> None:
    first = 1_796_000_000_000 // 60_000 * 60_000
    binance.control("history", symbol="BTCUSDT", bars=[[first, 60_000, 60_100, 59_900, 60_050, 3]])
    client.order(quantity="0.01", price="59000", newClientOrderId="dip")
    binance.control("bars", symbol="BTCUSDT", bars=[[first + 60_000, 60_050, 60_200, 58_900, 60_100, 4]])
    assert client.status("dip") == "FILLED"
    bars = client.send("GET", "klines", signed=False, symbol="BTCUSDT", interval="1m").body
    assert [bar[:5] for bar in bars] == [
        [first, "60000.00000000", "60100.00000000", "59900.00000000", "60050.00000000"],
        [first + 60_000, "60050.00000000", "60200.00000000", "58900.00000000", "60100.00000000"],
    ]
    hour = client.send("GET", "klines", signed=False, symbol="BTCUSDT", interval="1h").body
    assert [bar[1:6] for bar in hour] == [
        ["60000.00000000", "60200.00000000", "58900.00000000", "60100.00000000", "7.00000000"]
    ]
    assert client.send("GET", "klines", signed=False, symbol="BTCUSDT", interval="7m").code == -1120
    assert client.send("GET", "ticker/price", signed=False, symbol="BTCUSDT").body["price"] == "60100.00000000"
    best = client.send("GET", "ticker/bookTicker", signed=False, symbol="BTCUSDT").body
    assert (best["bidPrice"], best["askPrice"]) == ("60100.00000000", "60100.01000000")


# Cancel and replace


def test_cancel_replace(binance: RunningBinance, client: BareClient) -> None:
    def replace(old: str, mode: str = "STOP_ON_FAILURE", **params: str) -> Any:
        given = {"symbol": "BTCUSDT", "side": "SELL", "quantity": "0.01", "type": "STOP_LOSS"}
        given |= {"cancelReplaceMode": mode, "cancelOrigClientOrderId": old}
        return client.send("POST", "order/cancelReplace", **given | params)

    client.order(side="SELL", type="STOP_LOSS", quantity="0.01", stopPrice="58000", newClientOrderId="s1")
    done = replace("s1", stopPrice="58500", newClientOrderId="s2")
    assert (done.status, done.body["cancelResult"], done.body["newOrderResult"]) == (200, "SUCCESS", "SUCCESS")
    assert (client.status("s1"), client.status("s2")) == ("CANCELED", "NEW")
    half = replace("s2", stopPrice="60500", newClientOrderId="s3")
    assert (half.status, half.code) == (409, -2021)
    assert half.body["data"]["newOrderResponse"] == {"code": -2010, "msg": "Order would trigger immediately."}
    assert client.status("s2") == "CANCELED", "half done: the old stop is gone and no new one stands"
    neither = replace("s2", stopPrice="58000")
    assert (neither.status, neither.code) == (400, -2022)
    assert neither.body["data"]["newOrderResult"] == "NOT_ATTEMPTED"
    other_half = replace("s2", mode="ALLOW_FAILURE", stopPrice="58000", newClientOrderId="s4")
    assert (other_half.status, other_half.code, client.status("s4")) == (409, -2021, "NEW")
    both = replace("s2", mode="ALLOW_FAILURE", stopPrice="60500")
    assert (both.status, both.code, both.body["data"]["newOrderResult"]) == (400, -2022, "FAILURE")
    filtered = replace("s4", stopPrice="58000.001")
    assert told(filtered)[1:] == (-1013, "Filter failure: PRICE_FILTER")
    assert client.status("s4") == "NEW", "filters are looked at before anything is cancelled"


# The log


def test_the_log_tells_all_and_adds_up(binance: RunningBinance, client: BareClient) -> None:
    begun = len(binance.log())
    client.order(quantity="0.01", price="59000", newClientOrderId="b")
    binance.price("BTCUSDT", 59_000)
    client.order(type="MARKET", side="SELL", quantity="0.005")
    told_since = binance.log()[begun:]
    kinds = {record["kind"] for record in told_since}
    assert {"heard", "order", "trade", "balance", "event", "price", "control"} <= kinds
    numbers = [record["n"] for record in binance.log()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert "signature" not in str(told_since) and binance.secret not in str(told_since)
    trades = [record for record in told_since if record["kind"] == "trade"]
    change = sum((1 if trade["isBuyer"] else -1) * Decimal(trade["qty"]) for trade in trades)
    fees = sum(Decimal(trade["commission"]) for trade in trades if trade["commissionAsset"] == "BTC")
    assert Decimal(client.money("BTC")[0]) == 10 + change - fees


def test_two_accounts_do_not_see_each_other(binance: RunningBinance, client: BareClient) -> None:
    other = BareClient(binance, "o" * 64, "s" * 64)
    binance.control("account", apiKey=other.key, secret=other.secret, balances={"USDT": 1000})
    with listening(binance, other.key, other.secret) as heard:
        client.order(quantity="0.01", price="50000", newClientOrderId="same")
        assert heard.events() == []
        assert other.query("same").code == -2013
        assert other.order(quantity="0.01", price="50000", newClientOrderId="same").status == 200
        assert [event["e"] for event in heard.events()] == ["executionReport", "outboundAccountPosition"]
