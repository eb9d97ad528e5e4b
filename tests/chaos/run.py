"""Runs seeds: each a market, an engine that is killed several times, and a verdict. `--help` says what it takes.

One process forks every life of a victim, so that a start costs no imports; a share of the lives are started cold, from
the command line, and their time to a safe state counts the imports too.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from orbiquant.execution.fills import as_fraction_of, leave_bar
from tests.chaos import victim
from tests.chaos.market import PRICES, SHARE, keep_market, make_market
from tests.chaos.results import read_results, summary
from tests.chaos.victim import Orders
from tests.chaos.wire import Gate

HERE = Path(__file__).parent
BARS = 60  # of each symbol
KILLS = 10  # of each seed
# of so many bars and kills: transactions, or sendings (True), of which one is the last of a life
WINDOWS = {False: 26, True: 9}
INSTRUCTIONS = 25_000  # of which one is the last
LONGEST_S = 60  # of one life
OWN, EXCHANGE = "own", "binance"  # venues beside the one on paper
INTENTS = 0.6  # of a symbol and bar, where nearly every signal wants to trade
SCALE = 10.0  # that the clocks there run faster
SLOWER = 40  # that a bar takes at the exchange, whose every question goes over the wire
NONE = {"": "", "at the venue": OWN, "at the exchange": EXCHANGE}  # no bug is planted, by where
BUG_SEED = 5  # whose orders lose some replies, and vanish at the venue
FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # for what kills nobody's disk: planted bugs


@dataclass
class Run:
    """What became of one seed."""

    seed: int
    database: str
    code: str = ""  # of what was killed
    kills: int = 0
    in_transaction: int = 0  # kills inside a commit
    in_intent: int = 0  # outside of one, with an order written and not answered
    elsewhere: int = 0  # not counted
    safe_s: list[float] = field(default_factory=list)  # from start to reconciled, of each life
    cold_s: list[float] = field(default_factory=list)  # the same with the imports
    cpu_s: list[float] = field(default_factory=list)  # of a processor that the start took, of each life
    cold_cpu_s: list[float] = field(default_factory=list)  # the same with the imports
    found: dict[str, list[str]] = field(default_factory=dict)  # by invariant, of the judge
    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)  # of the exchange, that the watchman measured
    scale: float = 0.0  # that its clocks and the engine's ran faster
    places: list[str] = field(default_factory=list)  # where it was killed
    error: str = ""  # of a life that ended by itself, badly

    @property
    def counted(self) -> int:
        """Return how many kills landed in something."""
        return self.in_transaction + self.in_intent


def fork(orders: Orders) -> int:
    """Start a life, and return its process id."""
    if (pid := os.fork()) != 0:
        return pid
    code = 1
    try:
        log = os.open(orders.folder / "victim.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        victim.live(orders)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def cold(orders: Orders) -> int:
    """Start a life from the command line, and return its process id."""
    told = json.dumps({**asdict(orders), "folder": str(orders.folder)})
    with (orders.folder / "victim.log").open("a") as log:
        started = subprocess.Popen([sys.executable, "-m", "tests.chaos.life", told], stdout=log, stderr=log)
    started.returncode = 0  # it is waited for by its id
    return started.pid


def wait(pid: int, kill_after_s: float | None, longest_s: float = LONGEST_S) -> int:
    """Wait for the end of a life, or end it after a time; return what `waitpid` says."""
    end = time.monotonic() + (longest_s if kill_after_s is None else kill_after_s)
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        time.sleep(min(0.001, max(0.0, end - time.monotonic())))
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if kill_after_s is None:
        raise TimeoutError(f"a life of more than {longest_s} s was ended")
    return status


def run_seed(
    seed: int, database: str, url: str, folder: Path, *, kills: int = KILLS, bars: int = BARS, bug: str = "",
    venue: str = "", scale: float = 0.0, cold_share: float = 0.04, apart: bool = True,
) -> Run:  # fmt: skip
    """Let an engine live through the market in its folder, killed and started again, and have it judged."""
    run, gate = Run(seed, database, scale=scale), Gate(folder / "gate")
    for life in range(kills + 1):
        chance = Random(f"kill {seed} {life}")
        timed, sending = chance.random() < 0.1, chance.random() < 0.4
        most = max(3, round(WINDOWS[sending] * (bars / BARS) / (max(kills, 1) / KILLS)))
        window, instruction = 1 + chance.randrange(most), 1 + chance.randrange(INSTRUCTIONS)
        last = life == kills
        window = 0 if last or timed else window
        orders = Orders(folder, url, seed, life, window, instruction, sending, venue, scale, bug)
        start, by_hand = time.time_ns(), chance.random() < cold_share
        gate.clear()
        pid = cold(orders) if by_hand else fork(orders)
        slower = SLOWER if scale else 1
        delay = chance.uniform(0.02, 0.5 * slower * bars / BARS) + (2 if by_hand else 0)
        try:
            status = wait(pid, delay if timed and not last else None, LONGEST_S * slower)
        except TimeoutError as error:
            run.error = str(error)
            break
        _note_safety(run, folder, life, start, by_hand)
        if not os.WIFSIGNALED(status):
            if os.waitstatus_to_exitcode(status):
                run.error = (folder / "victim.log").read_text()[-1500:]
            if last or run.error or _ended(folder):
                break
            continue
        run.kills += 1
        transaction, intent, place = gate.read()
        run.in_transaction += transaction
        run.in_intent += intent and not transaction
        run.elsewhere += not (transaction or intent)
        run.places.append(place or "by the clock")
    judge(run, url, folder, apart)
    return run


def _lines(folder: Path) -> Iterator[dict[str, Any]]:
    path = folder / "wire.jsonl"
    for line in path.read_text().splitlines() if path.exists() else []:
        yield json.loads(line)


def _ended(folder: Path) -> bool:
    return any(row["kind"] == "end" for row in _lines(folder))


def _note_safety(run: Run, folder: Path, life: int, start: int, by_hand: bool) -> None:
    for row in _lines(folder):
        if row["kind"] == "safe" and row["life"] == life:
            (run.cold_s if by_hand else run.safe_s).append((row["wall"] - start) / 1e9)
            (run.cold_cpu_s if by_hand else run.cpu_s).append(row["cpu_s"])
            if row["difference"]:
                run.found.setdefault("safe state", []).append(f"life {life}: {row['difference']}")


def judge(run: Run, url: str, folder: Path, apart: bool = True) -> None:
    """Dump the database, and let judge and accountant read: in processes of their own, or here where time is short."""
    if not apart:
        from tests.chaos.accountant import Accountant
        from tests.chaos.dump import dump
        from tests.chaos.judge import Judge
        from tests.chaos.watchman import Watchman

        (folder / "dump.json").write_text(json.dumps(dump(url)))
        for found in (Judge(folder), Accountant(folder), *((Watchman(folder),) if run.scale else ())):
            found.run()
            run.counts, run.found = run.counts | found.counts, run.found | found.found
        return
    subprocess.run([sys.executable, HERE / "dump.py", url, folder / "dump.json"], check=True)
    for name in ("judge", "accountant", *(("watchman",) if run.scale else ())):
        told = subprocess.run([sys.executable, "-I", HERE / f"{name}.py", folder], capture_output=True, text=True)
        if not told.stdout:
            run.found[name] = [told.stderr[-1500:]]
            continue
        verdict = json.loads(told.stdout)
        run.counts |= verdict["counts"]
        run.seconds |= verdict.get("seconds", {})
        for each, faults in verdict["found"].items():
            run.found.setdefault(each, []).extend(faults)


def warm() -> None:
    """Load what is compiled once, for all lives that are forked."""
    leave_bar(100.0, 99.0, 1, as_fraction_of(100.0, 98.0), as_fraction_of(100.0, 104.0))


# --- databases ---


class Databases:
    """Fresh migrated databases of one kind: copies of a template."""

    def __init__(self, kind: str, server: str = "") -> None:
        """Make the template."""
        from orbiquant.persistence import engine, migrate

        warm()
        self.kind, self.server = kind, server
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-template-"))
        if kind == "sqlite":
            self.template = self.folder / "template.db"
            made = engine(f"sqlite:///{self.template}")
        else:
            self._say("CREATE DATABASE chaos_template")
            made = engine(self._url("chaos_template"))
        migrate(made)
        made.dispose()

    def _url(self, name: str) -> str:
        return self.server.rpartition("/")[0] + f"/{name}"

    def _say(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[arg-type]

    @contextmanager
    def fresh(self, folder: Path, seed: int) -> Iterator[str]:
        """Yield the URL of an empty database, and forget it afterwards."""
        if self.kind == "sqlite":
            shutil.copy(self.template, folder / "desk.db")
            yield f"sqlite:///{folder / 'desk.db'}"
            return
        self._say(f"CREATE DATABASE chaos_{seed} TEMPLATE chaos_template")
        try:
            yield self._url(f"chaos_{seed}")
        finally:
            self._say(f"DROP DATABASE chaos_{seed} WITH (FORCE)")

    def forget(self) -> None:
        """Remove the template."""
        shutil.rmtree(self.folder, ignore_errors=True)


# --- campaigns ---


@contextmanager
def staged(
    folder: Path, seed: int, bars: int, venue: str, symbols: int = len(PRICES), share: float = SHARE,
    scale: float = SCALE,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Keep a market in a folder, and yield where it is traded, as `run_seed` takes it."""
    if venue == EXCHANGE:
        from tests.chaos.exchange import limits_of, make_exchange_market, running_exchange

        keep_market(make_exchange_market(seed, bars, symbols, share), folder, scale=scale, **limits_of(symbols))
        with running_exchange(folder, seed, symbols, scale) as running:
            yield {"venue": str(running.port), "scale": scale}
        return
    keep_market(make_market(seed, bars), folder)
    if venue == OWN:
        from tests.chaos.venue import running_venue

        with running_venue(folder, seed) as address:
            yield {"venue": address}
        return
    yield {}


def campaign(
    seeds: list[int], kind: str, results: Path, keep: Path | None, venue: str, kills: int, bars: int = BARS,
    symbols: int = len(PRICES), share: float = SHARE, scale: float = SCALE,
) -> None:  # fmt: skip
    """Run the seeds that a results file does not hold yet, and add each as a line."""
    from orbiquant.core import code_version

    version = code_version()
    known = {(row["seed"], row["database"]) for row in read_results(results)}
    name = kind + {"": "", OWN: "+venue", EXCHANGE: f"+binance of {symbols} symbols, clocks × {scale:g}"}[venue]
    with ExitStack() as stack:
        server = ""
        if kind == "postgresql":
            from tests.tools.postgres import running_postgres

            server = stack.enter_context(running_postgres(durable=True))
        databases = Databases(kind, server)
        stack.callback(databases.forget)
        for seed in [seed for seed in seeds if (seed, name) not in known]:
            folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
            stage = staged(folder, seed, bars, venue, symbols, share, scale)
            with databases.fresh(folder, seed) as url, stage as place:
                run = run_seed(seed, name, url, folder, kills=kills, bars=bars, **place)
            run.code = version
            results.parent.mkdir(parents=True, exist_ok=True)
            with results.open("a") as file:
                file.write(json.dumps(asdict(run)) + "\n")
            bad = run.error or run.found
            said = f"BAD {bad}"[:600] if bad else "ok"
            print(f"seed {seed} {name}: {run.kills} kills, {run.counted} counted, {said}", flush=True)
            if bad and keep:
                shutil.copytree(folder, keep / f"{name}-{seed}", dirs_exist_ok=True)
            shutil.rmtree(folder, ignore_errors=True)


def plant_bugs(names: Iterable[str], seed: int = BUG_SEED) -> dict[str, dict[str, list[str]]]:
    """Return what the judges find of planted bugs, and of none, each where it shows."""
    from tests.chaos.bugs import BUGS

    found = {}
    databases = Databases("sqlite")
    for name in names:
        bug = BUGS.get(name)
        folder = Path(tempfile.mkdtemp(prefix="chaos-bug-", dir=FAST))
        venue = bug.venue if bug else NONE.get(name, "")
        bars = max(32 if venue else 16, bug.bars if bug else 0)  # the more, the likelier is a fault of the venue
        number = seed if bug is None or bug.seed is None else bug.seed
        with (
            databases.fresh(folder, number) as url,
            staged(folder, number, bars, venue) as place,
        ):
            told = {"kills": 0, "bars": bars, "bug": name if bug else "", "cold_share": 0} | place
            run = run_seed(number, "sqlite", url, folder, **told, apart=False)
        found[name] = run.found | ({"error": [run.error]} if run.error else {})
        shutil.rmtree(folder)
    databases.forget()
    return found


def main() -> None:
    """Run a range of seeds, and print what all of them come to."""
    parser = argparse.ArgumentParser(description="Kill an engine again and again, and judge what is left.")
    parser.add_argument("--seeds", default="0-9", help="a seed, or the first and the last: 0-499")
    parser.add_argument("--database", default="sqlite", choices=["sqlite", "postgresql"])
    said = "orders go to a venue of the tests, or to the fake Binance: both fail by chance"
    parser.add_argument("--venue", default="", choices=["", OWN, EXCHANGE], help=said)
    parser.add_argument("--symbols", type=int, default=len(PRICES), help="that are traded at the fake Binance")
    parser.add_argument("--share", type=float, default=SHARE, help="of the signals there that want to trade")
    parser.add_argument("--kills", type=int, default=KILLS, help="of each seed")
    parser.add_argument("--results", type=Path, default=Path("build/chaos.jsonl"), help="file of lines that add up")
    parser.add_argument("--keep", type=Path, help="folder for what a bad seed left")
    parser.add_argument("--bars", type=int, default=BARS, help="of each symbol")
    said = "plant each bug, or none, or these, and print what the judges find as JSON"
    parser.add_argument("--bugs", nargs="*", metavar="NAME", help=said)
    parser.add_argument("--scale", type=float, default=SCALE, help="that clocks run faster, there and here")
    parser.add_argument("--intents", type=int, help="about how many there are to be, in the place of --bars")
    options = parser.parse_args()
    if options.intents:
        options.bars = round(options.intents / (INTENTS * options.symbols))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended
    if options.bugs is not None:
        from tests.chaos.bugs import BUGS

        print(json.dumps(plant_bugs(options.bugs or [*NONE, *BUGS]), indent=1))
        return
    first, _, last = options.seeds.partition("-")
    seeds = list(range(int(first), int(last or first) + 1))
    told = (options.venue, options.kills, options.bars, options.symbols, options.share, options.scale)
    campaign(seeds, options.database, options.results, options.keep, *told)
    rows = read_results(options.results)
    print(summary(rows))
    sys.exit(any(row["found"] or row["error"] for row in rows))


if __name__ == "__main__":
    main()
