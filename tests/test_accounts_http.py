"""Accounts over real HTTP as a backend calls them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from test_agents_http import keyed
from test_service_http import check_problem, running

from orbiquant.core import FixedClock, configure_logging
from orbiquant.desk.agents import step_agents
from orbiquant.domain import SeriesId
from orbiquant.jobs.handlers import JobContext
from orbiquant.market.synthetic import synthetic_market
from orbiquant.runtime import Runtime
from orbiquant.settings import load_settings
from orbiquant.trading.switches import SwitchScope

BTC = SeriesId.parse("BTCUSDT", "1h")
BARS = synthetic_market(400, "1h", seed=11).bars
BARS[["open", "high", "low", "close"]] *= 40_000
PRODUCT = "atlas-conservative"


class House:
    """A workspace with one coin, whose bars close when a test says so."""

    def __init__(self, folder: Path) -> None:
        places = {"store_uri": f"{folder}/store", "models_dir": f"{folder}/models", "data_dir": str(folder)}
        settings = load_settings(
            workspace=places | {"database_url": f"sqlite:///{folder}/o.db"},
            service={"requests_per_minute": 100_000},
            atlas={"pairs": "BTCUSDT", "strategies": "ml"},
        )
        self.at = 300
        self.clock = FixedClock((BARS.index[self.at - 1] + timedelta(hours=1, seconds=5)).to_pydatetime())
        self.runtime = Runtime(settings, self.clock)
        self.runtime.store.upsert(BTC, BARS.iloc[: self.at])

    def close(self, count: int = 1) -> None:
        """Let bars close, and the engine's job look at them."""
        self.runtime.store.upsert(BTC, BARS.iloc[self.at : self.at + count])
        self.at += count
        self.clock.advance(timedelta(hours=count))
        step_agents(JobContext("1", None, self.clock.now(), self.clock, shared=self.runtime))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    configure_logging("ERROR")
    return House(tmp_path_factory.mktemp("accounts"))


@pytest.fixture(scope="module")
def address(house: House) -> Iterator[str]:
    from orbiquant.app import app

    with running(app, house.runtime) as url:
        yield url


@pytest.fixture(scope="module")
def backend(house: House, address: str) -> Iterator[httpx.Client]:
    """A backend that speaks for its users."""
    with keyed(house, address, "backend", "pro", "read", "write", "trade", "act_for") as client:
        yield client


def open_for(client: httpx.Client, user: str | None, amount: float | None = 1000, **more: Any) -> dict[str, Any]:
    """Open an account and return it."""
    asked = {"user_id": user, "product_id": PRODUCT, "initial_deposit": amount} | more
    answer = client.post("/investment/accounts", json=asked)
    assert answer.status_code == 201, answer.text
    return answer.json()


# --- a backend's documented calls ---


def test_an_account_is_opened_and_its_agent_runs(house: House, backend: httpx.Client):
    made = open_for(backend, "ana")
    assert {"id", "user_id", "product_id", "status", "current_balance", "units", "nav", "opened_at"} <= set(made)
    assert (made["user_id"], made["product_id"], made["agent_status"]) == ("ana", PRODUCT, "running")
    assert (made["current_balance"], made["units"], made["nav"]) == (1000, 1000, 1)
    assert backend.get(f"/investment/accounts/{made['id']}").raise_for_status().json() == made
    assert backend.get("/agents/atlas/status").json()["status"] == "running"
    listed = backend.get("/investment/accounts?user_id=ana").raise_for_status().json()["accounts"]
    assert listed == [made] and backend.get("/investment/accounts").json()["accounts"] == []


def test_money_goes_in_and_out_and_is_told(house: House, backend: httpx.Client):
    name = open_for(backend, "ben")["id"]
    paid = backend.post(f"/investment/accounts/{name}/deposits", json={"amount": 250.5})
    assert paid.status_code == 201 and (paid.json()["status"], paid.json()["amount"]) == ("done", 250.5)
    out = backend.post(f"/investment/accounts/{name}/withdrawals", json={"amount": "50.25"}).raise_for_status().json()
    assert (out["kind"], out["status"], out["amount"]) == ("withdrawal", "done", 50.25)
    asked = backend.get(f"/investment/accounts/{name}/flows/{out['id']}").raise_for_status().json()
    assert asked == out
    first = backend.get(f"/investment/accounts/{name}/transactions?limit=2").raise_for_status().json()
    rest = backend.get(f"/investment/accounts/{name}/transactions?limit=2&after={first['next']}").json()
    rows = first["transactions"] + rest["transactions"]
    assert [row["transaction_type"] for row in rows] == ["withdrawal", "deposit", "deposit"] and rest["next"] is None
    assert rows[0]["balance_after"] == 1200.25 and all(row["amount"] > 0 for row in rows)
    made = backend.get(f"/investment/accounts/{name}/performance").raise_for_status().json()
    figures = {name: made[name] for name in ("current_balance", "total_return", "total_trades", "current_drawdown")}
    assert figures == {"current_balance": 1200.25, "total_return": 0, "total_trades": 0, "current_drawdown": 0}
    assert made["account_id"] == name and made["win_rate"] is None
    everything = backend.post(f"/investment/accounts/{name}/withdrawals", json={"amount": "all"}).json()
    assert (everything["status"], everything["amount"]) == ("done", 1200.25)
    assert backend.get(f"/investment/accounts/{name}").json()["current_balance"] == 0


def test_what_its_agent_hears(house: House, backend: httpx.Client):
    name = open_for(backend, "cleo")["id"]
    told = backend.get(f"/api/v1/signals/account/{name}").raise_for_status().json()
    assert told["signals"]["BTCUSDT"]["error"] == "NOT_FOUND" and list(told["signals"]) == ["BTCUSDT"]


def test_products_are_told(backend: httpx.Client):
    told = backend.get("/investment/products").raise_for_status().json()["products"]
    assert [each["id"] for each in told] == [PRODUCT, "orion-moderate", "nova-aggressive"]
    assert told[0]["performance_fee"] == 0.2 and told[0]["minimum_deposit"] == 10


# --- what is sent again, and what cannot be ---


def test_a_retry_never_doubles(house: House, backend: httpx.Client):
    keyed_by = {"Idempotency-Key": "open-dora"}
    asked = {"user_id": "dora", "product_id": PRODUCT, "initial_deposit": 500}
    twice = [backend.post("/investment/accounts", json=asked, headers=keyed_by) for _ in range(2)]
    assert [each.status_code for each in twice] == [201, 201] and twice[0].json() == twice[1].json()
    name = twice[0].json()["id"]
    place = f"/investment/accounts/{name}"

    def pay(number: int) -> tuple[int, str]:
        answer = backend.post(f"{place}/deposits", json={"amount": 100}, headers={"Idempotency-Key": "pay-1"})
        return answer.status_code, answer.json()["id"]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(pay, range(4)))
    assert len(set(answers)) == 1 and answers[0][0] == 201
    by_body = backend.post(f"{place}/deposits", json={"amount": 100, "request_id": "pay-1"}).json()
    assert by_body["id"] == answers[0][1] and backend.get(place).json()["current_balance"] == 600
    for _ in range(2):
        backend.post(f"{place}/withdrawals", json={"amount": 50, "request_id": "out-1"}).raise_for_status()
    assert backend.get(place).json()["current_balance"] == 550
    other = backend.post(f"{place}/deposits", json={"amount": 101, "request_id": "pay-1"})
    check_problem(other, 409, "CONFLICT")
    clash = backend.post(f"{place}/deposits", json={"amount": 1, "request_id": "a"}, headers={"Idempotency-Key": "b"})
    check_problem(clash, 422, "OPTION_INVALID")
    check_problem(
        backend.post("/investment/accounts", json=asked | {"initial_deposit": 501}, headers=keyed_by), 409, "CONFLICT"
    )
    assert backend.get(place).json()["current_balance"] == 550


def test_more_than_is_held_is_a_conflict_and_leaves_everything(house: House, backend: httpx.Client):
    name = open_for(backend, "eve")["id"]
    problem = check_problem(
        backend.post(f"/investment/accounts/{name}/withdrawals", json={"amount": 1000.01}), 409, "CONFLICT"
    )
    assert "1000" in problem["message"]
    assert backend.get(f"/investment/accounts/{name}").json()["current_balance"] == 1000


def test_unknown_accounts_and_products(backend: httpx.Client):
    for method, path, body in (
        ("GET", "", None),
        ("GET", "/performance", None),
        ("GET", "/transactions", None),
        ("GET", "/flows/x", None),
        ("POST", "/deposits", {"amount": 100}),
        ("POST", "/withdrawals", {"amount": 100}),
    ):
        check_problem(backend.request(method, f"/investment/accounts/inv-nobody{path}", json=body), 404, "NOT_FOUND")
    check_problem(backend.get("/api/v1/signals/account/inv-nobody"), 404, "NOT_FOUND")
    wrong = backend.post("/investment/accounts", json={"user_id": "x", "product_id": "atlas", "initial_deposit": 100})
    check_problem(wrong, 422, "OPTION_INVALID")


BAD = (0, -1, "NaN", "Infinity", 1e30, "ten", [1], {}, True, 0.001, "1e-9", "9" * 400)


@pytest.mark.parametrize("amount", BAD)
def test_what_is_no_amount_is_refused(house: House, backend: httpx.Client, amount: Any):
    name = some_account(backend)
    for path in ("deposits", "withdrawals"):
        answer = backend.post(f"/investment/accounts/{name}/{path}", json={"amount": amount})
        assert answer.status_code == 422, (path, amount, answer.text)
    opened = backend.post(
        "/investment/accounts", json={"user_id": "m", "product_id": PRODUCT, "initial_deposit": amount}
    )
    assert opened.status_code == 422, opened.text
    assert backend.get("/investment/accounts?user_id=m").json()["accounts"] == []


def some_account(client: httpx.Client) -> str:
    """Return one account for what is refused, the same each time."""
    return open_for(client, "mallory", request_id="one")["id"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"product_id": null}', b'{"product_id": 1}']
)
def test_a_body_that_is_none_is_no_fault_of_ours(backend: httpx.Client, body: bytes):
    name = some_account(backend)
    for path in ("", f"/{name}/deposits", f"/{name}/withdrawals"):
        answer = backend.post(f"/investment/accounts{path}", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422), answer.text
    for query in ("limit=0", "limit=1001", "after=-1", "after=x", "after=99999999999999999999", "befor=1"):
        assert backend.get(f"/investment/accounts/{name}/transactions?{query}").status_code == 422


def test_a_killed_agent_takes_money_and_trades_nothing(house: House, backend: httpx.Client):
    house.runtime.switches.kill(SwitchScope.AGENT, "atlas", who="a person", why="to see")
    try:
        name = open_for(backend, "kim")["id"]
        assert backend.post(f"/investment/accounts/{name}/withdrawals", json={"amount": "all"}).status_code == 201
    finally:
        house.runtime.switches.lift(SwitchScope.AGENT, "atlas", who="a person", why="seen")


# --- who may ---


def test_a_plan_without_trading_pays_nothing_in_and_takes_everything_out(
    house: House, address: str, backend: httpx.Client
):
    name = open_for(backend, "lea")["id"]
    with keyed(house, address, "lea", "free", "read", "trade") as client:
        asked = {"product_id": PRODUCT, "initial_deposit": 100}
        for answer in (
            client.post("/investment/accounts", json=asked),
            client.post(f"/investment/accounts/{name}/deposits", json={"amount": 100}),
            client.get(f"/api/v1/signals/account/{name}"),
        ):
            assert check_problem(answer, 403, "PLAN_REQUIRED")["details"] == {"upgradeUrl": "/pricing"}
        assert client.post(f"/investment/accounts/{name}/withdrawals", json={"amount": "all"}).status_code == 201


def test_who_trades_needs_the_scope(house: House, address: str, backend: httpx.Client):
    name = open_for(backend, "nora")["id"]
    with keyed(house, address, "nora", "pro", "read", "write") as client:
        assert client.get(f"/investment/accounts/{name}").status_code == 200
        check_problem(client.post(f"/investment/accounts/{name}/deposits", json={"amount": 100}), 403, "FORBIDDEN")
        check_problem(client.post("/investment/accounts", json={"product_id": PRODUCT}), 403, "FORBIDDEN")
    with keyed(house, address, "nora", "pro", "read", "trade") as client:
        assert client.post(f"/investment/accounts/{name}/deposits", json={"amount": 100}).status_code == 201
        own = client.post("/investment/accounts", json={"product_id": PRODUCT, "initial_deposit": 100}).json()
        assert own["user_id"] == "nora"
