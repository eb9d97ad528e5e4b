"""What else can go wrong around an engine: each scene ends with facts, and with a judge who finds nothing.

`scenes.py` prints them as JSON. A scene takes an engine through some bars, spoils something, shows what the engine does
meanwhile, mends it, and goes on to the end.
"""

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from orbiquant import persistence
from orbiquant.core import OrbiError
from orbiquant.trading import engine as trading_engine
from orbiquant.trading import requests
from orbiquant.trading.engine import EngineBusy
from orbiquant.trading.funds import Fund
from orbiquant.trading.ledger import Ledger
from orbiquant.trading.pages import Pages
from orbiquant.trading.requests import RequestBox
from orbiquant.trading.switches import Switches, SwitchScope
from tests.chaos.market import keep_market, make_market
from tests.chaos.run import FAST, Databases, Run, judge
from tests.chaos.venue import running_venue
from tests.chaos.venue_broker import VenueBroker
from tests.chaos.victim import Acknowledger, Countdown, Orders, Sender, Victim
from tests.chaos.wire import Gate, Wire

BARS, SOUND, SPOILT = 16, 6, 3  # of each symbol; before something is spoilt; while it is
SEED = 4
HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


class Stage:
    """An engine on a database of its own."""

    def __init__(self, folder: Path, url: str, venue: str = "") -> None:
        """Start it, on paper or at a venue."""
        self.folder, self.url = folder, url
        self.wire = Wire(folder / "wire.jsonl", 0)
        self.victim = Victim(Orders(folder, url, SEED, venue=venue), self.wire)
        self.market = VenueBroker(venue) if venue else None
        self.left = list(self.victim.moments())

    def pass_bars(self, count: int, late: timedelta = timedelta(0)) -> list[str]:
        """Go through bars, and return what did not work; what failed is still to be gone through."""
        faults = []
        for _ in range(min(count, len(self.left))):
            number, bars = self.left[0]
            closed = next(iter(bars.values())).closed
            self.victim.clock.advance(closed - late - self.victim.clock.now())
            self.wire.moment = closed.isoformat()
            if self.market is not None:
                self.market.pass_bars(number)
            try:
                self.victim.go_through(bars)
                self.left.pop(0)
                self.victim.ask(number)
            except (SQLAlchemyError, OrbiError, OSError, sqlite3.Error) as error:
                faults.append(f"{type(error).__name__}: {error}"[:200])
        return faults

    @property
    def sent(self) -> int:
        """Return how many orders were sent."""
        return sum(json.loads(line)["kind"] == "submit" for line in (self.folder / "wire.jsonl").open())

    def tell(self, spoil: Callable[[], Any], mend: Callable[[], Any]) -> dict[str, Any]:
        """Return what happened before, while and after something was spoilt."""
        self.victim.recover()
        self.pass_bars(SOUND)
        before = self.sent
        spoil()
        faults = self.pass_bars(SPOILT)
        meanwhile = self.sent - before
        mend()
        self.victim.wait_until_settled()  # what a venue did meanwhile is booked
        facts = {"before": before, "faults": faults, "meanwhile": meanwhile, "difference": self.victim.difference()}
        return facts | self.end(before + meanwhile)

    def end(self, sent: int) -> dict[str, Any]:
        """Go to the end of the bars, and have it judged."""
        faults = self.pass_bars(BARS)
        self.victim.wait_until_settled()
        self.wire.write("end", difference=self.victim.difference())
        self.victim.database.dispose()
        run = Run(SEED, "sqlite")
        judge(run, self.url, self.folder)
        return {"after": self.sent - sent, "faults_after": faults, "found": run.found}


@contextmanager
def pragmas(stage: Stage) -> Iterator[list[str]]:
    """Yield a list whose statements every connection hears before it is used."""
    said: list[str] = []

    def hear(connection: Any, record: Any, proxy: Any) -> None:
        for statement in said:
            connection.execute(f"PRAGMA {statement}").close()

    event.listen(stage.victim.database, "checkout", hear)
    yield said
    event.remove(stage.victim.database, "checkout", hear)


def full_disk(stage: Stage) -> dict[str, Any]:
    """Let the database find no room for another page."""
    with pragmas(stage) as said:
        return stage.tell(lambda: said.append("max_page_count=1"), lambda: said.append("max_page_count=1073741823"))


def failing_disk(stage: Stage) -> dict[str, Any]:
    """Let no file of this process grow any more: a write is cut short in the midst of a commit."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (stage.folder / "desk.db").stat().st_size

    def spoil() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    return stage.tell(spoil, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)))


def read_only_disk(stage: Stage) -> dict[str, Any]:
    """Let the database be one that can only be read."""
    with pragmas(stage) as said:
        return stage.tell(lambda: said.append("query_only=ON"), lambda: said.append("query_only=OFF"))


def locked(stage: Stage) -> dict[str, Any]:
    """Let another process hold the database; meanwhile somebody throws the switch."""
    holder: list[subprocess.Popen[str]] = []
    thrown: list[Any] = []

    def spoil() -> None:
        said.append("busy_timeout=100")
        command = [sys.executable, "-c", HOLD, str(stage.folder / "desk.db")]
        holder.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert holder[0].stdout is not None and holder[0].stdout.readline() == "held\n"
        kill = stage.victim.switches.kill(SwitchScope.AGENT, "nova", who="somebody", why="nothing answers")
        thrown.append([*kill.places])

    def mend() -> None:
        holder[0].communicate("")
        stage.victim.switches.lift(SwitchScope.AGENT, "nova", who="somebody", why="it answers")

    with pragmas(stage) as said:
        return stage.tell(spoil, mend) | {"thrown": thrown[0]}


def database_dies(stage: Stage) -> dict[str, Any]:
    """Let the database be gone in the midst of a step: nothing can be written, and nothing read."""
    left: list[int] = []

    def execute(connection: Any, *arguments: Any) -> None:
        if not left:
            return
        left[0] -= 1
        if left[0] < 0:
            raise sqlite3.OperationalError("the server closed the connection")

    event.listen(stage.victim.database, "before_cursor_execute", execute)
    return stage.tell(lambda: left.append(20), left.clear)


def clock_set_back(stage: Stage) -> dict[str, Any]:
    """Set the clock back by an hour: what was decided seems to come from the future."""
    stage.victim.recover()
    stage.pass_bars(SOUND)
    before = stage.sent
    stage.pass_bars(SPOILT, late=timedelta(hours=1))
    meanwhile = stage.sent - before
    reasons = {each.reason.split(":")[0] for each in stage.victim.engine.journal.last(count=9 * SPOILT)}
    facts = {"before": before, "meanwhile": meanwhile, "reasons": sorted(reasons), "difference": {}}
    return facts | stage.end(before + meanwhile)


def switch_from_outside(stage: Stage) -> dict[str, Any]:
    """Let somebody whose process knows no database stop everything, and lift it again."""
    beside = Switches(None, stage.folder / "switches", stage.victim.clock)

    def mend() -> None:
        stage.victim.switches.lift(SwitchScope.ALL, who="somebody", why="all is well")

    return stage.tell(lambda: beside.kill(SwitchScope.ALL, who="somebody", why="stop"), mend)


def venue_out_of_reach(stage: Stage) -> dict[str, Any]:
    """Let nobody answer at the venue's address."""
    with running_venue(stage.folder, SEED) as address:
        stage = Stage(stage.folder, stage.url, address)
        broker = stage.victim.inner
        place = broker.place
        return stage.tell(lambda: setattr(broker, "place", "127.0.0.1:9"), lambda: setattr(broker, "place", place))


def two_engines(stage: Stage) -> dict[str, Any]:
    """Start a second engine beside one that trades; then the first is killed, and the second takes over."""
    read, write = os.pipe()
    if (first := os.fork()) == 0:
        other = Stage(stage.folder, stage.url)
        other.victim.recover()
        other.pass_bars(SOUND)
        os.write(write, b"!")
        signal.pause()
    os.read(read, 1)
    before, said = stage.sent, []
    stage.victim.engine.load()
    stage.left = list(stage.victim.moments())
    for act in (stage.victim.engine.claim, lambda: stage.victim.engine.step(stage.left[0][1])):
        try:
            act()
        except EngineBusy as error:
            said.append(error.message)
    meanwhile = stage.sent - before
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    stage.victim.recover()
    stage.left = list(stage.victim.moments())
    facts = {"before": before, "meanwhile": meanwhile, "said": said, "difference": stage.victim.difference()}
    return facts | stage.end(before)


SCENES = (full_disk, failing_disk, read_only_disk, locked, clock_set_back)
SCENES += (database_dies, switch_from_outside, venue_out_of_reach, two_engines)


def play() -> dict[str, Any]:
    """Return the facts of every scene."""
    trading_engine.LEASE = timedelta(hours=6)  # of the market's time
    found, market = {}, make_market(SEED, BARS)
    with ExitStack() as stack:
        databases = Databases("sqlite")
        stack.callback(databases.forget)
        for scene in SCENES:
            folder = Path(tempfile.mkdtemp(prefix="chaos-scene-", dir=FAST))
            stack.callback(shutil.rmtree, folder)
            os.environ["ORBIQUANT_HOME"] = str(folder)
            keep_market(market, folder)
            url = stack.enter_context(databases.fresh(folder, SEED))
            with listening(folder):
                found[scene.__name__] = scene(Stage(folder, url))
    return found


@contextmanager
def listening(folder: Path) -> Iterator[None]:
    """Write down what each commit holds, while a scene lasts."""
    places = [(persistence, "writing"), (requests, "writing"), (Pages, "_write"), (Fund, "note")]
    places += [(Ledger, "post"), (Ledger, "post_many"), (RequestBox, "put"), (RequestBox, "answer")]
    places += [(Sender, "prepare"), (Sender, "send"), (Sender, "_write")]
    before = [(place, name, getattr(place, name)) for place, name in places]
    gate = Gate(folder / "gate")
    listener = Acknowledger(Wire(folder / "wire.jsonl", 0), gate, Countdown(gate, 0, 0, False))
    listener.install()
    listener.watch(Sender)
    try:
        yield
    finally:
        for place, name, own in before:
            setattr(place, name, own)


if __name__ == "__main__":
    print(json.dumps(play(), indent=1))
