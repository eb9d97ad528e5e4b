"""Agents, portfolio and trade over real HTTP, as systems that already call them do: paths, bodies, forms, who may."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from test_service_http import TOKEN, check_problem, running

from orbiquant.core import FixedClock, configure_logging
from orbiquant.desk.agents import room_of, step_agents
from orbiquant.desk.health import count_running
from orbiquant.domain import SeriesId
from orbiquant.jobs.handlers import JobContext
from orbiquant.market.synthetic import synthetic_market
from orbiquant.runtime import Runtime
from orbiquant.service.keys import create_api_key
from orbiquant.settings import load_settings
from orbiquant.trading.switches import SwitchScope

MODELS = Path(__file__).parent / "fixtures" / "models"
EURUSD = SeriesId.parse("EURUSD", "1h")
BARS = synthetic_market(2600, "1h", seed=11).bars
HELD_BACK = 40


class Market:
    """A workspace whose bars close when a test says so."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(MODELS, folder / "models")
        places = {"store_uri": f"{folder}/store", "models_dir": f"{folder}/models", "data_dir": str(folder)}
        settings = load_settings(
            workspace=places | {"database_url": f"sqlite:///{folder}/o.db"},
            service={"requests_per_minute": 100_000},
            atlas={"pairs": "EURUSD", "strategies": "ml"},
        )
        self.at = len(BARS) - HELD_BACK
        self.clock = FixedClock((BARS.index[self.at - 1] + timedelta(hours=1, seconds=5)).to_pydatetime())
        self.runtime = Runtime(settings, self.clock)
        self.runtime.store.upsert(EURUSD, BARS.iloc[: self.at])

    def close(self, count: int = 1) -> None:
        """Let bars close, and the engine's job look at them."""
        self.runtime.store.upsert(EURUSD, BARS.iloc[self.at : self.at + count])
        self.at += count
        self.clock.advance(timedelta(hours=count))
        step_agents(JobContext("1", None, self.clock.now(), self.clock, shared=self.runtime))

    @property
    def price(self) -> float:
        """Return the last close."""
        return float(BARS["close"].iloc[self.at - 1])

    def order(self, action: str = "BUY", **changes: Any) -> dict[str, Any]:
        """Return an order with a stop and a target twice as far."""
        sign, price = (1 if action == "BUY" else -1), self.price
        levels = {"stop_loss": round(price * (1 - sign * 0.01), 5), "take_profit": round(price * (1 + sign * 0.03), 5)}
        return {"symbol": "EUR/USD", "action": action, "size": 0.05} | levels | changes


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    configure_logging("ERROR")
    return Market(tmp_path_factory.mktemp("agents"))


@pytest.fixture(scope="module")
def address(market: Market) -> Iterator[str]:
    from orbiquant.app import app

    with running(app, market.runtime) as url:
        yield url


@pytest.fixture(scope="module")
def operator(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=180, headers={"X-API-Key": TOKEN}) as client:
        yield client


def keyed(market: Market, address: str, user: str, plan: str, *scopes: str) -> httpx.Client:
    """Return a client with a key of its own."""
    key = create_api_key(market.runtime.engine, "test", user, plan, scopes, market.runtime.clock)
    return httpx.Client(base_url=address, timeout=180, headers={"X-API-Key": key})


# --- agents ---


def test_agents_are_listed_before_anybody_began(operator: httpx.Client):
    told = operator.get("/agents").raise_for_status().json()
    assert told["running"] == 0 and [each["name"] for each in told["agents"]] == ["atlas", "orion", "nova"]
    assert {each["status"] for each in told["agents"]} == {"created"}
    assert told["agents"][0]["account"] == "paper-usd" and told["agents"][2]["account"] == "paper-usdt"
    assert "it was never started" in told["agents"][0]["idle"]


def test_who_operates_needs_the_scope(market: Market, address: str):
    with keyed(market, address, "ana", "pro", "read", "trade") as client:
        for move in ("start", "pause", "resume", "stop"):
            check_problem(client.post(f"/agents/atlas/{move}", json={}), 403, "FORBIDDEN")
        assert client.get("/agents/atlas/status").status_code == 200
    assert httpx.get(f"{address}/agents").status_code == 401


@pytest.mark.parametrize("amount", [0, -1, "NaN", "1e30", 1e15, "Infinity", 0.123456789, "ten", None, [1]])
def test_capital_that_is_none_is_refused(operator: httpx.Client, amount: Any):
    answer = operator.post("/agents/orion/start", json={"agent_name": "orion", "initial_equity": amount})
    if amount is None:
        assert answer.status_code == 200 and answer.json()["equity"] == 10_000
        operator.post("/agents/orion/stop")
    else:
        assert answer.status_code == 422


def test_a_start_brings_capital_once(market: Market, operator: httpx.Client):
    check_problem(operator.post("/agents/atlas/start", json={"agent_name": "nova"}), 422, "OPTION_INVALID")
    check_problem(operator.post("/agents/atlos/start", json={}), 404, "NOT_FOUND")
    check_problem(operator.post("/agents/atlas/pause"), 404, "NOT_FOUND")
    for _ in range(3):
        told = operator.post("/agents/atlas/start", json={"agent_name": "atlas", "initial_equity": 5000}).json()
        assert told["status"] == "running" and told["equity"] == told["balance"] == 5000.0
    assert count_running(market.runtime) == operator.get("/health").json()["agents_running"] == 1
    assert market.runtime.broker("paper-usd", market.runtime.pages).book.cash == 5000


def test_an_agent_answers_the_newest_bar_and_every_one_that_closes(market: Market, operator: httpx.Client):
    market.close()
    market.close(3)
    lines = operator.get("/agents/atlas/journal").raise_for_status().json()["decisions"]
    times = [line["time"] for line in reversed(lines)]
    assert len(lines) == 5 and times == sorted(times) and len(set(times)) == 5
    assert all(line["reason"] and line["symbol"] == "EURUSD" and line["outcome"] == "hold" for line in lines)
    assert operator.get("/agents/atlas/journal?outcome=taken").json()["decisions"] == []
    assert operator.get("/agents/atlas/journal?outcome=hold&limit=2").json()["decisions"] == lines[:2]
    check_problem(operator.get("/agents/atlas/journal?outcome=won"), 422, "OPTION_INVALID")
    pages, after = [], ""
    while after is not None:
        page = operator.get(f"/agents/atlas/journal?limit=2{after and f'&after={after}'}").raise_for_status().json()
        pages.append(page["decisions"])
        after = page["next"]
    assert [line for page in pages for line in page] == lines and [len(page) for page in pages] == [2, 2, 1]


def test_the_kill_switch_is_thrown_seen_and_lifted(market: Market, address: str, operator: httpx.Client):
    told = operator.post("/agents/kill", json={"agent": "Atlas", "why": "it buys tops"}).raise_for_status().json()
    assert (told["scope"], told["name"], told["places"]) == ("agent", "atlas", ["file", "database"]) and told["who"]
    assert "atlas" in operator.get("/agents/atlas/status").json()["idle"][1]
    operator.post("/agents/kill", json={"everybody": True, "why": "x", "flatten": True}).raise_for_status()
    stands = operator.get("/agents/kill").raise_for_status().json()["kills"]
    assert {(each["scope"], each["flatten"]) for each in stands} == {("agent", False), ("all", True)}
    left = operator.post("/agents/kill/lift", json={"everybody": True, "why": "seen"}).raise_for_status().json()
    assert [each["name"] for each in left["kills"]] == ["atlas"]
    assert operator.post("/agents/kill/lift", json={"agent": "atlas", "why": "seen"}).json() == {"kills": []}
    check_problem(operator.post("/agents/kill/lift", json={"agent": "atlas", "why": "seen"}), 409, "CONFLICT")
    for wrong in ({}, {"agent": "atlas", "everybody": True}, {"agent": "zorro"}, {"account": "x" * 99 + "\n"}):
        assert operator.post("/agents/kill", json={"why": "x"} | wrong).status_code == 422, wrong
    assert operator.post("/agents/kill", json={"agent": "atlas", "why": ""}).status_code == 422
    with keyed(market, address, "ana", "premium", "read", "trade", "act_for") as client:
        check_problem(client.post("/agents/kill", json={"everybody": True, "why": "x"}), 403, "FORBIDDEN")
    assert operator.get("/agents/kill").json() == {"kills": []}


def test_a_backend_reads_status_metrics_and_positions(operator: httpx.Client):
    """They read `status`, the named figures and the list, whatever else is told beside."""
    assert operator.get("/agents/atlas/status").raise_for_status().json()["status"] == "running"
    metrics = operator.get("/agents/atlas/metrics").raise_for_status().json()
    figures = {name: metrics[name] for name in ("total_profit", "total_loss", "total_trades", "current_drawdown")}
    assert figures == {"total_profit": 0.0, "total_loss": 0.0, "total_trades": 0, "current_drawdown": 0.0}
    assert metrics["win_rate"] is None and metrics["target_month"] == [0.03, 0.05]
    held = operator.get("/agents/atlas/positions").raise_for_status().json()
    assert held == {"total_positions": 0, "positions": []}


def test_an_agent_is_paused_resumed_and_stopped(market: Market, operator: httpx.Client):
    moves = [operator.post(f"/agents/atlas/{move}").json()["status"] for move in ("pause", "pause", "resume", "stop")]
    assert moves == ["paused", "paused", "running", "stopped"]
    check_problem(operator.post("/agents/atlas/resume"), 409, "CONFLICT")
    assert count_running(market.runtime) == 0
    again = operator.post("/agents/atlas/start", json={"initial_equity": "250.5"}).json()
    assert again["status"] == "running" and again["equity"] == 5250.5 and again["drawdown"] == 0


# --- a person's own acts ---


def test_nobody_owns_anything_at_first(market: Market, address: str):
    with keyed(market, address, "zoe", "pro", "read") as client:
        told = client.get("/api/portfolio").raise_for_status().json()
        assert (told["balance"], told["equity"], told["positions"]) == (0.0, 0.0, [])
        assert {"margin", "free_margin", "daily_pnl", "weekly_pnl"} <= set(told)
        check_problem(client.post("/api/trade", json=market.order()), 403, "FORBIDDEN")


def test_a_persons_order_goes_through_the_gate_to_a_fill(market: Market, address: str):
    with keyed(market, address, "ana", "pro", "read", "trade") as client:
        told = client.post("/api/trade", json=market.order()).raise_for_status().json()
        assert told["success"] and told["outcome"] in ("taken", "resized") and told["quantity"] == 5000
        assert told["executed_price"] is None and "next bar" in told["message"] and told["status"] == "accepted"
        place = f"/api/trade/{told['ticket']}"
        waits = client.get(place).raise_for_status().json()
        assert (waits["status"], waits["executed_price"], waits["quantity"]) == ("accepted", None, 5000)
        check = client.post("/api/trade", json=market.order()).json()
        assert not check["success"] and "on its way" in check["message"]
        market.close()
        own = client.get("/api/portfolio").json()
        (held,) = own["positions"]
        assert held["ticket"] == told["ticket"] and held["type"] == "BUY" and held["size"] == 5000
        assert held["stop_loss"] and held["take_profit"] and own["account_id"] == told["account_id"]
        assert own["equity"] == pytest.approx(own["balance"] + held["size"] * held["current_price"], abs=1e-6)
        filled = client.get(place).json()
        assert filled["status"] == "open" and filled["executed_price"] == pytest.approx(held["open_price"])
        assert abs(filled["slippage"]) < 0.01 and (filled["symbol"], filled["action"]) == ("EURUSD", "BUY")
        closed = client.post("/api/trade", json=market.order("SELL")).json()
        assert closed["success"] and closed["outcome"] == "closed"
        market.close()
        after = client.get("/api/portfolio").json()
        done = client.get(place).json()
        assert done["status"] == "closed" and done["profit"] == pytest.approx(after["daily_pnl"]) and done["exit_price"]
        assert after["positions"] == [] and after["daily_pnl"] == pytest.approx(after["equity"] - 10_000, abs=1e-6)


def test_what_the_gate_denies_is_said(market: Market, address: str):
    with keyed(market, address, "ana", "pro", "trade") as client:
        for changes, word in (
            ({"stop_loss": None}, "stop_loss"),
            ({"stop_loss": 2.5}, "stop < entry"),
            ({"take_profit": round(market.price * 1.001, 5)}, "reward"),
        ):
            told = client.post("/api/trade", json=market.order(**changes)).raise_for_status().json()
            assert not told["success"] and told["outcome"] == "denied" and word in told["message"], told
        market.close(3)  # after a loss there is a pause
        big = client.post("/api/trade", json=market.order(size=10)).json()
        assert big["outcome"] == "resized" and big["quantity"] < 1_000_000
        market.close()
        client.post("/api/trade", json=market.order("SELL"))
        market.close()


@pytest.mark.parametrize(
    "changes",
    [{"size": 0}, {"size": -1}, {"size": "NaN"}, {"size": 1e30}, {"size": 11}, {"action": "HOLD"}, {"stop_loss": -1}],
)
def test_an_order_that_is_none_is_refused(market: Market, operator: httpx.Client, changes: dict[str, Any]):
    assert operator.post("/api/trade", json=market.order(**changes)).status_code == 422


def test_an_unknown_symbol_and_a_free_plan_are_refused(market: Market, address: str, operator: httpx.Client):
    check_problem(operator.post("/api/trade", json=market.order(symbol="XYZABC")), 404, "NOT_FOUND")
    with keyed(market, address, "ben", "free", "trade") as client:
        problem = check_problem(client.post("/api/trade", json=market.order()), 403, "PLAN_REQUIRED")
        assert problem["details"]["upgradeUrl"] == "/pricing"
        raised = client.post("/api/trade", json=market.order(user_plan="premium"))
        check_problem(raised, 403, "PLAN_REQUIRED")
    with keyed(market, address, "cleo", "pro", "trade") as client:
        check_problem(client.post("/api/trade", json=market.order(user_plan="free")), 403, "PLAN_REQUIRED")


def test_only_a_backend_speaks_for_its_users(market: Market, address: str):
    with keyed(market, address, "ana", "pro", "read", "trade") as client:
        check_problem(client.post("/api/trade", json=market.order(user_id="ben")), 403, "FORBIDDEN")
        check_problem(client.get("/api/portfolio?user_id=ben"), 403, "FORBIDDEN")
        assert client.get("/api/portfolio?user_id=ana").status_code == 200
    with keyed(market, address, "shop", "pro", "read", "trade", "act_for") as client:
        told = client.post("/api/trade", json=market.order(user_id="dora")).raise_for_status().json()
        assert told["success"] and told["account_id"] == client.get("/api/portfolio?user_id=dora").json()["account_id"]
        assert client.get("/api/portfolio").json()["account_id"] != told["account_id"]


def test_the_same_request_is_the_same_order(market: Market, address: str):
    with keyed(market, address, "eve", "pro", "trade") as client:
        order = market.order(request_id="my-order-1")
        first, second = (client.post("/api/trade", json=order).raise_for_status().json() for _ in range(2))
        assert first == second and first["success"]
        other = client.post("/api/trade", json=market.order(request_id="my-order-1", size=0.07))
        check_problem(other, 409, "CONFLICT")


def test_a_killed_account_takes_no_order(market: Market, address: str):
    switches = market.runtime.switches
    switches.kill(SwitchScope.ALL, who="a person", why="to see")
    try:
        with keyed(market, address, "fay", "pro", "trade") as client:
            told = client.post("/api/trade", json=market.order()).raise_for_status().json()
            assert not told["success"] and told["outcome"] in ("denied", "rejected")
    finally:
        switches.lift(SwitchScope.ALL, who="a person", why="seen")


def test_one_room_serves_a_process(market: Market):
    assert room_of(market.runtime) is room_of(market.runtime)
