"""Alerts over real HTTP: set, listed, fired and told once, removed; who may, how many, and what is no alert."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from test_agents_http import BARS, Market, keyed
from test_service_http import TOKEN, check_problem, running

from orbiquant.core import configure_logging
from orbiquant.desk.alerts import judge_waiting
from orbiquant.jobs.handlers import JobContext


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    configure_logging("ERROR")
    return Market(tmp_path_factory.mktemp("alerts"))


@pytest.fixture(scope="module")
def address(market: Market) -> Iterator[str]:
    from orbiquant.app import app

    with running(app, market.runtime) as url:
        yield url


def judge(market: Market) -> dict[str, Any]:
    """Look at what waits, as the job does."""
    return judge_waiting(JobContext("1", None, market.clock.now(), market.clock, shared=market.runtime))


def alert(market: Market, condition: str = "above", **changes: Any) -> dict[str, Any]:
    """Return what a client sends."""
    far = 2 if condition == "above" else 0.5
    return {"symbol": "EUR/USD", "condition": condition, "price": market.price * far, "message": "look"} | changes


def test_an_alert_is_set_fires_once_and_is_removed(market: Market, address: str):
    with keyed(market, address, "ana", "pro", "read", "write") as client:
        while (high := float(BARS["high"].iloc[market.at : market.at + 3].max())) < market.price + 1e-4:
            market.close()
        answer = client.post("/api/alerts", json=alert(market, price=round(high - 1e-5, 6)))
        assert answer.status_code == 201 and set(answer.json()) == {"alert_id", "status", "message"}
        twin = client.post("/api/alerts", json=alert(market, price=round(high - 1e-5, 6))).json()
        assert answer.json()["status"] == "active" and twin["alert_id"] != answer.json()["alert_id"]
        before = client.get("/api/alerts").raise_for_status().json()["alerts"]
        assert [each["status"] for each in before] == ["active"] * 2 and before[0]["symbol"] == "EURUSD"
        market.close(3)
        assert [judge(market)["fired"] for _ in range(2)] == [2, 0]
        after = client.get("/api/alerts?status=fired").json()["alerts"]
        assert len(after) == 2 and after[0]["fired_at"] > after[0]["created_at"]
        gone = client.delete(f"/api/alerts/{twin['alert_id']}").raise_for_status().json()
        assert gone["status"] == "removed" and gone["alert_id"] == twin["alert_id"]
        assert len(client.get("/api/alerts").json()["alerts"]) == 1
        check_problem(client.delete(f"/api/alerts/{twin['alert_id']}"), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    "changes",
    [
        *({"price": bad} for bad in (0, -1, "NaN", "Infinity", 1e30, None, "ten", [1], "1e-30")),
        *({"condition": bad} for bad in ("over", "", None, 1)),
        *({"symbol": bad} for bad in ("", "x" * 101, None, "💰", {"a": 1})),
        *({"message": bad} for bad in ("x" * 501, 1, None)),
        *({"request_id": bad} for bad in ("a b", "", "x" * 65)),
        *({"user_plan": "gold"}, {"user_id": ""}),
    ],
)
def test_what_is_no_alert_is_refused(market: Market, address: str, changes: dict[str, Any]):
    with keyed(market, address, "bad", "pro", "read", "write") as client:
        assert client.post("/api/alerts", json=alert(market, **changes)).status_code == 422
        assert client.get("/api/alerts").json() == {"alerts": []}


def test_a_symbol_without_bars_is_not_judged_by_anybody(market: Market, address: str):
    with keyed(market, address, "cleo", "pro", "write") as client:
        check_problem(client.post("/api/alerts", json=alert(market, symbol="XAU/USD")), 404, "NOT_FOUND")


def test_plans_and_how_many_may_wait(market: Market, address: str):
    config = market.runtime.settings.notices
    with keyed(market, address, "dan", "free", "write") as client:
        problem = check_problem(client.post("/api/alerts", json=alert(market)), 403, "PLAN_REQUIRED")
        assert problem["details"] == {"upgradeUrl": "/pricing"}
    with keyed(market, address, "eve", "pro", "write") as client:
        check_problem(client.post("/api/alerts", json=alert(market, user_plan="free")), 403, "PLAN_REQUIRED")
        codes = [client.post("/api/alerts", json=alert(market)).status_code for _ in range(config.alerts)]
        assert codes == [201] * config.alerts
        check_problem(client.post("/api/alerts", json=alert(market)), 409, "CONFLICT")
    with keyed(market, address, "eve", "premium", "write") as client:
        assert client.post("/api/alerts", json=alert(market)).status_code == 201


def test_the_same_request_is_the_same_alert(market: Market, address: str):
    with keyed(market, address, "fay", "pro", "read", "write") as client:
        asked = alert(market, request_id="mine-1")
        first, second = (client.post("/api/alerts", json=asked).raise_for_status().json() for _ in range(2))
        assert first["alert_id"] == second["alert_id"] and len(client.get("/api/alerts").json()["alerts"]) == 1
        check_problem(client.post("/api/alerts", json=asked | {"message": "other"}), 409, "CONFLICT")


def test_who_may(market: Market, address: str):
    assert httpx.post(f"{address}/api/alerts", json=alert(market)).status_code == 401
    with keyed(market, address, "gil", "pro", "read") as client:
        check_problem(client.post("/api/alerts", json=alert(market)), 403, "FORBIDDEN")
        check_problem(client.delete("/api/alerts/x"), 403, "FORBIDDEN")
        assert client.get("/api/alerts").status_code == 200
        check_problem(client.get("/api/alerts?user_id=fay"), 403, "FORBIDDEN")
    with keyed(market, address, "hal", "pro", "read", "write") as client:
        check_problem(client.post("/api/alerts", json=alert(market, user_id="fay")), 403, "FORBIDDEN")
    with keyed(market, address, "shop", "pro", "read", "write", "act_for") as client:
        made = client.post("/api/alerts", json=alert(market, user_id="ivy")).raise_for_status().json()
        assert [each["alert_id"] for each in client.get("/api/alerts?user_id=ivy").json()["alerts"]] == [
            made["alert_id"]
        ]
        assert client.get("/api/alerts").json() == {"alerts": []}
        assert client.delete(f"/api/alerts/{made['alert_id']}?user_id=ivy").status_code == 200
    with httpx.Client(base_url=address, headers={"X-API-Key": TOKEN}) as operator:
        assert operator.get("/api/alerts").status_code == 200
