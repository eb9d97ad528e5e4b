"""Order lists of the fake Binance: one cancels the other, one triggers or pays the other, by the real rules."""

from typing import Any

import pytest

from tests.fake_binance.client import Answer, BareClient, bare, listening
from tests.fake_binance.running import RunningBinance

ENTRY = {
    "workingType": "LIMIT",
    "workingTimeInForce": "GTC",
    "workingSide": "BUY",
    "workingPrice": "59000",
    "workingQuantity": "0.01",
    "workingClientOrderId": "entry",
}
BRACKET = {
    "pendingSide": "SELL",
    "pendingAboveType": "LIMIT_MAKER",
    "pendingAbovePrice": "62000",
    "pendingAboveClientOrderId": "target",
    "pendingBelowType": "STOP_LOSS",
    "pendingBelowStopPrice": "57000",
    "pendingBelowClientOrderId": "stop",
}
EXIT = {
    "side": "SELL",
    "quantity": "0.01",
    "aboveType": "LIMIT_MAKER",
    "abovePrice": "62000",
    "aboveClientOrderId": "target",
    "belowType": "STOP_LOSS",
    "belowStopPrice": "57000",
    "belowClientOrderId": "stop",
}


@pytest.fixture
def client(binance: RunningBinance) -> BareClient:
    """Return a client of the first account."""
    return bare(binance)


def place(client: BareClient, kind: str, **params: str) -> Answer:
    """Place a list on BTCUSDT."""
    return client.send("POST", f"orderList/{kind}", symbol="BTCUSDT", listClientOrderId="list", **params)


def statuses(client: BareClient, *names: str) -> list[str]:
    """Return what orders have come to."""
    return [client.status(name) for name in names]


def list_status(client: BareClient) -> str:
    """Return what the list has come to."""
    return str(client.send("GET", "orderList", origClientOrderId="list").body["listOrderStatus"])


# One cancels the other


def test_oco_locks_once_and_the_stop_cancels_the_target(binance: RunningBinance, client: BareClient) -> None:
    placed = place(client, "oco", **EXIT).body
    assert (placed["contingencyType"], placed["listStatusType"], placed["listOrderStatus"]) == (
        "OCO",
        "EXEC_STARTED",
        "EXECUTING",
    )
    assert [report["type"] for report in placed["orderReports"]] == ["STOP_LOSS", "LIMIT_MAKER"]
    assert client.money("BTC") == ("9.99000000", "0.01000000")
    binance.price("BTCUSDT", 56_900)
    assert statuses(client, "stop", "target") == ["FILLED", "EXPIRED"]
    assert client.query("target").body["expiryReason"] == "OCO_TRIGGER"
    assert client.money("BTC") == ("9.99000000", "0.00000000")
    assert list_status(client) == "ALL_DONE"


def test_a_partly_filled_target_cancels_the_stop(binance: RunningBinance, client: BareClient) -> None:
    place(client, "oco", **EXIT)
    binance.control("fill", symbol="BTCUSDT", clientOrderId="target", quantity="0.004")
    assert statuses(client, "stop", "target") == ["EXPIRED", "PARTIALLY_FILLED"], "the rest is without a stop"
    assert client.money("BTC") == ("9.99000000", "0.00600000")
    assert list_status(client) == "EXECUTING"
    binance.price("BTCUSDT", 62_500)
    assert (statuses(client, "target"), list_status(client)) == (["FILLED"], "ALL_DONE")


def test_cancelling_one_of_a_list_cancels_all(binance: RunningBinance, client: BareClient) -> None:
    place(client, "oco", **EXIT)
    ended = client.send("DELETE", "order", symbol="BTCUSDT", origClientOrderId="stop").body
    assert [report["status"] for report in ended["orderReports"]] == ["CANCELED", "CANCELED"]
    assert client.money("BTC") == ("10.00000000", "0.00000000")
    place(client, "oco", **EXIT)
    ended = client.send("DELETE", "orderList", symbol="BTCUSDT", listClientOrderId="list").body
    assert ended["listOrderStatus"] == "ALL_DONE"
    gone = client.send("DELETE", "orderList", symbol="BTCUSDT", listClientOrderId="list")
    assert gone.code == -2011
    assert client.send("GET", "orderList", origClientOrderId="nobody").code == -2018


@pytest.mark.parametrize(
    "changed, code",
    [
        ({"abovePrice": "59000"}, -2010),
        ({"belowStopPrice": "61000"}, -2010),
        ({"belowType": "TAKE_PROFIT"}, -1168),
        ({"aboveType": "STOP_LOSS", "aboveStopPrice": "62000", "abovePrice": ""}, -1158),
        ({"quantity": "0.010001"}, -1013),
        ({"quantity": "50"}, -2010),
    ],
)
def test_oco_refusals(client: BareClient, changed: dict[str, str], code: int) -> None:
    assert place(client, "oco", **EXIT | changed).code == code
    assert client.send("GET", "openOrders").body == []


def test_a_buying_pair(binance: RunningBinance, client: BareClient) -> None:
    pair = {"side": "BUY", "quantity": "0.01", "aboveType": "STOP_LOSS", "aboveStopPrice": "61000"}
    pair |= {"belowType": "LIMIT_MAKER", "belowPrice": "59000", "belowClientOrderId": "low", "aboveClientOrderId": "up"}
    assert place(client, "oco", **pair).status == 200
    assert client.money("USDT") == ("999390.00000000", "610.00000000"), "the dearer of the two is set aside"
    binance.price("BTCUSDT", 58_000)
    assert statuses(client, "low", "up") == ["FILLED", "EXPIRED"]
    assert client.money("USDT") == ("999410.00000000", "0.00000000")


def test_open_ids_and_counts_of_lists(binance: RunningBinance, client: BareClient) -> None:
    assert place(client, "oco", **EXIT).status == 200
    binance.control("symbol", symbol="BTCUSDT", max_lists=1)
    assert place(client, "oco", **EXIT).body["msg"] == "Filter failure: MAX_NUM_ORDER_LISTS"
    binance.control("symbol", symbol="BTCUSDT", max_lists=20)
    other = {"aboveClientOrderId": "t2", "belowClientOrderId": "s2"}
    assert place(client, "oco", **EXIT | other).body["msg"] == "Duplicate order sent."
    client.send("DELETE", "orderList", symbol="BTCUSDT", listClientOrderId="list")
    assert place(client, "oco", **EXIT | other).status == 200
    assert len(client.send("GET", "openOrderList").body) == 1
    assert len(client.send("GET", "allOrderList").body) == 2


# One triggers the other


def test_otoco_stands_only_when_the_entry_is_filled_whole(binance: RunningBinance, client: BareClient) -> None:
    placed = place(client, "otoco", pendingQuantity="0.00999", **ENTRY, **BRACKET).body
    assert [report["status"] for report in placed["orderReports"]] == ["NEW", "PENDING_NEW", "PENDING_NEW"]
    assert client.money("BTC") == ("10.00000000", "0.00000000")
    binance.control("fill", symbol="BTCUSDT", clientOrderId="entry", quantity="0.009")
    assert statuses(client, "entry", "stop", "target") == ["PARTIALLY_FILLED", "PENDING_NEW", "PENDING_NEW"]
    binance.price("BTCUSDT", 58_900)
    assert statuses(client, "entry", "stop", "target") == ["FILLED", "NEW", "NEW"]
    binance.price("BTCUSDT", 62_000)
    assert statuses(client, "stop", "target") == ["EXPIRED", "FILLED"]
    assert list_status(client) == "ALL_DONE"


def test_an_entry_that_fills_at_once_still_tells_of_pending_orders(client: BareClient) -> None:
    placed = place(client, "otoco", pendingQuantity="0.005", **ENTRY | {"workingPrice": "60100"}, **BRACKET).body
    assert [report["status"] for report in placed["orderReports"]] == ["FILLED", "PENDING_NEW", "PENDING_NEW"]
    assert statuses(client, "stop", "target") == ["NEW", "NEW"]


def test_a_gap_through_the_stop_leaves_the_position_bare(binance: RunningBinance, client: BareClient) -> None:
    place(client, "opoco", **ENTRY, **BRACKET)
    binance.price("BTCUSDT", 56_000)
    assert statuses(client, "entry", "stop", "target") == ["FILLED", "EXPIRED", "EXPIRED"]
    assert client.query("stop").body["expiryReason"] == "REJECTED"
    assert client.money("BTC") == ("10.00999000", "0.00000000")
    assert list_status(client) == "ALL_DONE"


def test_pending_orders_without_money_are_rejected(binance: RunningBinance, client: BareClient) -> None:
    binance.control("account", balances={"BTC": 0})
    place(client, "otoco", pendingQuantity="0.01", **ENTRY, **BRACKET)
    binance.price("BTCUSDT", 59_000)
    assert statuses(client, "stop", "target") == ["EXPIRED", "EXPIRED"], "the fee is missing: 0.01 is not there"


def test_what_ends_a_list_early(binance: RunningBinance, client: BareClient) -> None:
    place(client, "otoco", pendingQuantity="0.01", **ENTRY, **BRACKET)
    binance.control("fill", symbol="BTCUSDT", clientOrderId="entry", quantity="0.004")
    ended = client.send("DELETE", "order", symbol="BTCUSDT", origClientOrderId="entry").body
    assert [report["status"] for report in ended["orderReports"]] == ["CANCELED"] * 3
    place(client, "otoco", pendingQuantity="0.01", **ENTRY, **BRACKET)
    binance.control("expire", symbol="BTCUSDT", clientOrderId="entry")
    assert statuses(client, "entry", "stop") == ["EXPIRED", "EXPIRED"]
    assert client.query("stop").body["expiryReason"] == "OTO_PHASE_ONE_EXPIRED"
    assert client.money("USDT")[1] == client.money("BTC")[1] == "0.00000000"


def test_oto_with_a_market_order(binance: RunningBinance, client: BareClient) -> None:
    pending = {"pendingType": "MARKET", "pendingSide": "SELL", "pendingQuantity": "0.01", "pendingClientOrderId": "out"}
    place(client, "oto", **ENTRY, **pending)
    binance.price("BTCUSDT", 59_000)
    assert statuses(client, "entry", "out") == ["FILLED", "FILLED"]
    refused = place(client, "oto", **ENTRY | {"workingType": "STOP_LOSS", "workingStopPrice": "1"}, **pending)
    assert refused.status == 400


# One pays the other


@pytest.mark.parametrize(
    "money, bnb_fees, quantity, free",
    [
        ({"BTC": 1}, False, "0.01000000", "0.99999000"),  # the fee comes from what is free, as the rule says
        ({"BTC": 0}, False, "0.00999000", "0.00000000"),  # else from what was received
        ({"BTC": 0, "BNB": 1}, True, "0.01000000", "0.00000000"),
    ],
)
def test_opoco_is_sized_by_what_was_received(
    binance: RunningBinance, client: BareClient, money: dict[str, int], bnb_fees: bool, quantity: str, free: str
) -> None:
    binance.control("account", balances=money, bnb_fees=bnb_fees)
    placed = place(client, "opoco", **ENTRY, **BRACKET).body
    assert "origQty" not in placed["orderReports"][1]
    binance.control("fill", symbol="BTCUSDT", clientOrderId="entry", quantity="0.004")
    assert client.money("BTC")[1] != "0.00000000", "what pays for the pending orders is locked at once"
    binance.price("BTCUSDT", 58_900)
    assert statuses(client, "entry", "stop", "target") == ["FILLED", "NEW", "NEW"]
    assert client.query("stop").body["origQty"] == client.query("target").body["origQty"] == quantity
    assert client.money("BTC") == (free, quantity)
    binance.price("BTCUSDT", 56_000)
    assert client.money("BTC") == (free, "0.00000000")


def test_opoco_rounds_down_to_whole_lots(binance: RunningBinance, client: BareClient) -> None:
    binance.control("account", balances={"BTC": 0})
    binance.control("symbol", symbol="BTCUSDT", step="0.001", min_quantity="0.001")
    place(client, "opoco", **ENTRY, **BRACKET)
    binance.price("BTCUSDT", 58_900)
    assert client.query("stop").body["origQty"] == "0.00900000"
    assert client.money("BTC") == ("0.00099000", "0.00900000"), "the crumbs are free"


def test_cancelling_an_opoco_frees_what_was_received(binance: RunningBinance, client: BareClient) -> None:
    place(client, "opoco", **ENTRY, **BRACKET)
    binance.control("fill", symbol="BTCUSDT", clientOrderId="entry", quantity="0.004")
    client.send("DELETE", "orderList", symbol="BTCUSDT", listClientOrderId="list")
    assert client.money("BTC") == ("10.00399600", "0.00000000")
    assert client.money("USDT")[1] == "0.00000000"


@pytest.mark.parametrize(
    "changed, code",
    [
        ({"workingSide": "SELL"}, -1222),
        ({"pendingSide": "BUY"}, -1158),
        ({"pendingQuantity": "0.01"}, -1225),
        ({"workingType": "MARKET", "workingPrice": "", "workingTimeInForce": ""}, -1116),
        ({"pendingBelowStopPrice": "57000.001"}, -1013),
    ],
)
def test_opoco_refusals(client: BareClient, changed: dict[str, str], code: int) -> None:
    assert place(client, "opoco", **ENTRY | BRACKET | changed).code == code


def test_opo_with_one_pending_order(binance: RunningBinance, client: BareClient) -> None:
    pending = {"pendingType": "STOP_LOSS", "pendingSide": "SELL", "pendingStopPrice": "57000"}
    place(client, "opo", **ENTRY, **pending, pendingClientOrderId="stop")
    binance.price("BTCUSDT", 58_900)
    assert client.query("stop").body["origQty"] == "0.01000000"
    client.send("DELETE", "orderList", symbol="BTCUSDT", listClientOrderId="list")
    binance.price("BTCUSDT", 60_000)
    place(client, "opo", **ENTRY, **pending, pendingClientOrderId="stop")
    binance.price("BTCUSDT", 56_000)
    assert (client.status("stop"), client.query("stop").body["expiryReason"]) == ("EXPIRED", "REJECTED")
    binance.control("symbol", symbol="BTCUSDT", opo=False)
    refused = place(client, "opo", **ENTRY, **pending)
    assert refused.body["msg"] == "OPO orders are not supported for this symbol."


def test_a_list_by_socket_and_its_events(binance: RunningBinance, client: BareClient) -> None:
    with listening(binance) as heard:
        answer: Any = heard.ask("orderList.place.opoco", symbol="BTCUSDT", **ENTRY, **BRACKET)
        assert (answer["status"], answer["result"]["listOrderStatus"]) == (200, "EXECUTING")
        heard.events()
        binance.price("BTCUSDT", 58_900)
        binance.price("BTCUSDT", 62_000)
        told = [(event["e"], event.get("c"), event.get("X") or event.get("L")) for event in heard.events()]
    orders = [(name, status) for kind, name, status in told if kind == "executionReport"]
    assert orders == [
        ("entry", "FILLED"),
        ("stop", "NEW"),
        ("target", "NEW"),
        ("stop", "EXPIRED"),
        ("target", "FILLED"),
    ]
    assert [status for kind, _, status in told if kind == "listStatus"] == ["EXECUTING", "ALL_DONE"]
