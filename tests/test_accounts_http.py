"""Accounts over real HTTP as a backend calls them, and an attacker at every route that the API's description names."""

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


# --- an attacker at every route ---

SHARED = {  # what is everybody's: the market, the agents as a whole, what a key says of itself
    *(f"GET /{name}" for name in ("health", "api/health", "api/v1/health", "agents", "agents/kill", "api/v1/me")),
    *(f"GET /agents/{{name}}/{part}" for part in ("journal", "metrics", "positions", "status")),
    *("GET /api/phases", "GET /api/series"),
    *("GET /api/analysis", "GET /api/market_data", "GET /api/signal", "GET /api/v1/signals/latest/{symbol}"),
    *("POST /api/v1/signals/batch", "GET /investment/products"),
    *("GET /api/v1/models", "GET /api/v1/tools", "POST /api/v1/explain"),
    *("POST /api/chat", "POST /api/clear_history"),  # which speak of nobody but the key's own user
    *("GET /reports", "GET /reports/runs", "POST /reports/{name}/runs"),  # and these run and list what is the key's
    *("GET /v1/models", "GET /v1/models/{model}", "POST /v1/chat/completions"),
    "POST /webhooks/ml-signals",  # whose signature says who speaks; it has tests of its own
}
ORDER = {"symbol": "BTCUSDT", "action": "BUY", "size": 0.01}
ALERT = {"symbol": "BTCUSDT", "condition": "above", "price": 1e9}
BODIES: dict[str, dict[str, Any]] = {  # what is sent where something can be; a `user_id` is added where there is one
    "POST /agents/kill": {"everybody": True, "why": "x"},
    "POST /agents/kill/lift": {"everybody": True, "why": "x"},
    **{f"POST /agents/{{name}}/{move}": {} for move in ("start", "pause", "resume", "stop")},
    "POST /api/alerts": ALERT,
    "POST /api/trade": ORDER,
    "POST /api/v1/analyze": {"symbol": "BTCUSDT"},
    "POST /api/v1/chat": {"message": "hola"},
    "POST /api/v1/chat/decisions": {"conversation_id": "talk", "decisions": {"x": {"approved": True}}},
    "POST /api/v1/chat/{conversation_id}/stop": {},
    "POST /api/v1/strategy": {"symbol": "BTCUSDT"},
    "POST /api/v1/users/{user_id}/erase": {"confirm": "victim"},
    "PUT /api/v1/preferences": {"changes": {"level": "beginner"}},
    "POST /investment/accounts": {"product_id": PRODUCT, "initial_deposit": 100},
    "POST /investment/accounts/{account_id}/deposits": {"amount": 100},
    "POST /investment/accounts/{account_id}/withdrawals": {"amount": 100},
}


def described() -> dict[str, dict[str, Any]]:
    """Return every operation of the API's description by method and path."""
    from orbiquant.app import app

    paths = app.openapi()["paths"]
    return {f"{method.upper()} {path}": what for path, of in paths.items() for method, what in of.items()}


def body_names(operation: dict[str, Any]) -> set[str]:
    """Return the names that a body has."""
    from orbiquant.app import app

    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    found = [schema, *schema.get("anyOf", [])]
    names = [each["$ref"].rpartition("/")[2] for each in found if "$ref" in each]
    return {field for name in names for field in app.openapi()["components"]["schemas"][name].get("properties", {})}


@pytest.fixture(scope="module")
def victim(house: House, address: str, backend: httpx.Client) -> dict[str, str]:
    """Somebody with an account, a deposit, an alert and an order, and the ids of all that."""
    name = open_for(backend, "victim")["id"]
    flow = backend.post(f"/investment/accounts/{name}/deposits", json={"amount": 100}).json()["id"]
    alert = backend.post("/api/alerts", json=ALERT | {"user_id": "victim"}).json()["alert_id"]
    price = float(BARS["close"].iloc[house.at - 1])
    levels = {"stop_loss": round(price * 0.99, 2), "take_profit": round(price * 1.05, 2)}
    ticket = backend.post("/api/trade", json=ORDER | levels | {"user_id": "victim"}).raise_for_status().json()["ticket"]
    assert ticket
    house.close()
    said = {"message": "hola", "conversation_id": "victims-talk", "user_id": "victim"}
    backend.post("/api/v1/chat", json=said, timeout=60).raise_for_status()
    with keyed(house, address, "victim", "premium", "read", "write") as client:
        asked = client.post("/reports/research/runs", json={"parameters": {"symbol": "BTCUSDT"}})
        run = asked.raise_for_status().json()["id"]
    own = {"account_id": name, "flow_id": flow, "alert_id": alert, "ticket": ticket, "run_id": run, "name": "atlas"}
    return own | {"conversation_id": "victims-talk", "user_id": "victim"}


def attack(client: httpx.Client, what: str, operation: dict[str, Any], ids: dict[str, str]) -> httpx.Response:
    """Ask for something of somebody else, wherever the route lets one say whose."""
    method, _, path = what.partition(" ")
    named = {each["in"] for each in operation.get("parameters", []) if each["name"] == "user_id"}
    query = {"user_id": "victim"} if "query" in named else {}
    body = dict(BODIES[what]) if what in BODIES else None
    if body is not None and "user_id" in body_names(operation):
        body |= {"user_id": "victim"}
    aimed = "{" in path or query or "user_id" in (body or {}) or "operate" in str(operation["security"])
    assert aimed, f"{what} is nobody's in particular: name it in SHARED, or let it say whose it is"
    return client.request(method, path.format(**ids), params=query, json=body)


PRIVATE = sorted(set(described()) - SHARED)


def test_every_route_is_shared_or_attacked():
    assert set(described()) >= SHARED and set(BODIES) <= set(described())
    assert {each for each in PRIVATE if each.startswith(("POST", "PUT"))} == set(BODIES), (
        "a new route needs a body here"
    )


@pytest.mark.parametrize("what", PRIVATE)
def test_nobody_reaches_what_is_somebody_elses(
    house: House, address: str, backend: httpx.Client, victim: dict[str, str], what: str
):
    def state() -> list[Any]:
        own = [f"/investment/accounts/{victim['account_id']}", "/api/alerts?user_id=victim"]
        own += ["/api/v1/chat?user_id=victim", "/api/v1/preferences?user_id=victim"]
        return [backend.get(each).json() for each in [*own, "/investment/accounts?user_id=victim", "/agents/kill"]]

    before, operation = state(), described()[what]
    with keyed(house, address, "attacker", "premium", "read", "write", "trade") as client:
        answer = attack(client, what, operation, victim)
        assert answer.status_code in (403, 404), f"{what}: {answer.status_code} {answer.text[:300]}"
        nothing = {name: f"none-{name}" if name != "name" else "atlas" for name in victim}
        blank = attack(client, what, operation, nothing)
        told = [each.text for each in (answer, blank)]
        for ids in (victim, nothing):
            for name, value in ids.items():
                told = [each.replace(value, f"<{name}>") for each in told]
        assert told[0] == told[1] and answer.status_code == blank.status_code, "what there is must not be told"
    assert state() == before
    with httpx.Client(base_url=address) as stranger:
        assert attack(stranger, what, operation, victim).status_code == 401


def test_its_owner_reaches_all_of_it(house: House, address: str, victim: dict[str, str]):
    with keyed(house, address, "victim", "pro", "read", "write", "trade") as client:
        for what in PRIVATE:
            method, _, path = what.partition(" ")
            if method == "GET" and not path.endswith("/page"):  # no page before it has run
                assert client.get(path.format(**victim)).status_code in (200, 204), what
        assert client.get(f"/api/trade/{victim['ticket']}").json()["status"] in ("open", "closed")
