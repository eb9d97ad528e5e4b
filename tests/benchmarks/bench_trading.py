"""How fast the trading wing is, from a decision to a durable intent, over a year, and after a kill.

Run `make bench-trading`, or `python -m tests.benchmarks.bench_trading`; it takes some minutes. With the word `venue`
only the rows at the fake Binance are measured anew.
Writes `reports/benchmarks/trading.md`. `PEER_PYTHON` names an interpreter that has nautilus_trader: it needs a pandas
below 3, so it cannot live in the same environment.
"""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import numpy as np
import pandas as pd
from sqlalchemy import Engine

from orbiquant.core import atomic_write, configure_logging
from orbiquant.domain import BAR_COLUMNS, Bars, Costs, SeriesId, Signal, Signals
from orbiquant.orders import Bracket, Intent, Order, OrderState, OrderType, Purpose, Side, intent_id
from orbiquant.persistence import engine, migrate, writing
from orbiquant.signals import to_signal
from orbiquant.strategies.altcoin_rotation import AltcoinRotation
from orbiquant.strategies.contract import TradeTerms, terms_of
from orbiquant.strategies.plans import PlannedFeed, TablePast
from orbiquant.strategies.registry import find_strategy
from orbiquant.trading.engine import TradingEngine
from orbiquant.trading.journal import deposit_entry
from orbiquant.trading.ledger import Ledger
from orbiquant.trading.replay import TableFeed, moments, replay
from tests.benchmarks.bench_line import machine_facts
from tests.benchmarks.quant_live import served
from tests.benchmarks.quant_row import Row, shared_rows
from tests.benchmarks.venue_rows import venue_rows
from tests.tools.desk import begin_of, fresh_database, loose_profile, make_engine, random_signals
from tests.tools.postgres import running_postgres
from tests.tools.shared_bars import SHARED

OUTPUT = Path(__file__).parents[2] / "reports" / "benchmarks" / "trading.md"
PEER = Path(__file__).with_name("peer_nautilus.py")
SERIES = SeriesId.parse("BTCUSDT", "5m")
COSTS = Costs(fee_bps=0.2, slippage_bps=0.3, spread_bps=0.5)
YEAR, FAST, SLOW, SHARE = 2024, 40, 160, 0.0045
AGENTS = ("atlas", "nova", "orion")
RULES: dict[str, tuple[str, dict[str, float]]] = {  # of each agent, with parameters beside the shipped ones
    "atlas": ("mean_reversion", {"threshold": 3.0}),
    "orion": ("trend_following", {}),
    "nova": ("scalping", {"width": 3.0}),
}  # fmt: skip
LEAST_BARS_S, LEAST_FILLS, MOST_STEP_MS = 5_000, 20.0, 1.0
MODEL_ROWS, STEPS = 40_000, 300
DECISIONS, OPEN_ORDERS, ENTRIES = 200, 1_000, 2_000


class Watch:
    """Wall and CPU seconds of some work."""

    def __enter__(self) -> "Watch":
        gc.collect()
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *told: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu


def in_ms(seconds: list[float]) -> str:
    """Return median and 99th percentile."""
    p50, p99 = np.percentile(1e3 * np.array(seconds), (50, 99))
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"


def year_of_bars() -> Bars:
    """Return a year of five minutes of bitcoin."""
    bars = shared_rows("BTCUSDT_5m", 1_000_000)
    return bars[bars.index.year == YEAR]


# --- a decision becomes a durable intent ---


def decide_live(database: Engine, bars: Bars, folder: Path) -> list[float]:
    """Return the seconds from each signal that is taken to the moment its intent is durable and may be sent."""
    signals = random_signals(bars, 5, share=0.5, horizon=2)
    made = make_engine(
        database, {SERIES: signals}, {"atlas": loose_profile(SERIES)}, COSTS, begin_of(bars), folder=folder
    )
    heard, took = made.feeds["ml"].latest, []

    def hear(series: SeriesId) -> Signal | None:
        signal = heard(series)
        made.heard_at = time.perf_counter()
        return signal

    send = made.sender.send

    def sent(client_order_id: str) -> OrderState:
        took.append(time.perf_counter() - made.heard_at)
        return send(client_order_id)

    made.feeds["ml"].latest, made.sender.send = hear, sent
    for moment, closing in moments({SERIES: bars}):
        made.clock.advance(moment - made.clock.now())
        made.step(closing)
        if len(took) == DECISIONS:
            break
    return took


@contextmanager
def postgres_database() -> Iterator[Engine]:
    """Yield a migrated database of a server that waits for the disk."""
    with running_postgres(durable=True) as url:
        made = engine(url)
        migrate(made)
        yield made
        made.dispose()


def intent_rows(bars: Bars) -> Iterator[Row]:
    """Yield the row of each database."""
    for name, opened in (("SQLite, synchronous FULL", None), ("PostgreSQL, fsync on", postgres_database)):
        with TemporaryDirectory() as folder, opened() if opened else nullcontext() as server:
            took = decide_live(server or fresh_database(Path(folder)), bars, Path(folder))
        note = f"{len(took)} signals taken, with gate, sizing, order, decision and the bar's other rows in one commit"
        yield Row(f"decision → durable intent, {name}", "–", in_ms(took), "–", in_ms(took), "printed", True, note)


# --- a year is replayed ---


def cross_signals(bars: Bars) -> Signals:
    """Return signals of an EMA cross, described in batch: each cross is one, with a stop and a target."""
    close = bars["close"]
    above = (close.ewm(span=FAST).mean() > close.ewm(span=SLOW).mean()).to_numpy()
    signals = random_signals(bars, 1, share=0.0, stop=0.01, horizon=288)
    side, crossed = np.where(above, 1, -1), np.r_[False, above[1:] != above[:-1]]
    distance = 0.01 * close.to_numpy()
    return signals.assign(
        action=np.where(crossed, np.where(side > 0, "LONG", "SHORT"), "HOLD"), side=side,
        stop_loss=close - side * distance, take_profit=close + 2 * side * distance,
        reason=np.where(crossed, "", "low confidence"),
    )  # fmt: skip


def rule_signals(bars: Bars) -> tuple[dict[str, Signals], dict[str, TradeTerms]]:
    """Return signals and terms of a rule for each agent, rare enough for five minutes and ten basis points."""
    rules = {name: find_strategy(name, **parameters) for name, parameters in RULES.values()}
    return {name: rule.batch(bars) for name, rule in rules.items()}, {
        name: terms_of(rule) for name, rule in rules.items()
    }


def replay_row(
    bars: Bars, signals: Mapping[str, Signals], work: str, peer: Callable[[], tuple[str, str]] | None = None,
    terms: Mapping[str, TradeTerms] = MappingProxyType({}),
) -> Row:  # fmt: skip
    """Return how many bars a second three agents with a full ledger go through."""
    with TemporaryDirectory() as folder:
        database = fresh_database(Path(folder))
        spoken = {name: RULES[name][:1] if terms else ("ml",) for name in AGENTS}
        profiles = {name: loose_profile(SERIES, strategies=spoken[name]) for name in AGENTS}
        made = make_engine(database, {SERIES: next(iter(signals.values()))}, profiles, COSTS, begin_of(bars))
        made.feeds = {name: TableFeed({SERIES: each}, made.clock) for name, each in signals.items()}
        made.consumer.terms = terms
        with Watch() as watch:
            result = replay(made, {SERIES: bars})
        assert made.books.ledger.check() == []
        size, fills = (Path(folder) / "desk.db").stat().st_size / 1e6, 2e3 * len(result.trades) / result.steps
        database.dispose()
    pace = result.steps / watch.wall
    who, theirs = peer() if peer else ("–", "–")
    note = (
        f"{result.steps:,} bars in {watch.wall:.1f} s wall, {watch.cpu:.1f} s CPU: "
        f"{result.steps / watch.cpu:,.0f} bars a CPU second; database {size:.0f} MB; journal balances; FULL"
    )
    met = pace >= LEAST_BARS_S and fills >= LEAST_FILLS
    goal = f"≥ {LEAST_BARS_S:,} bars/s with ≥ {LEAST_FILLS:g} fills in 1,000"
    return Row(work, who, f"{pace:,.0f} bars/s", theirs, f"{pace:,.0f} bars/s, {fills:.1f} fills", goal, met, note)


def run_peer(bars: Bars) -> tuple[str, str]:
    """Return what nautilus_trader does on the same bars with the same cross: name and pace."""
    if not (python := os.environ.get("PEER_PYTHON")):
        return "nautilus_trader: peer not there", "–"
    with TemporaryDirectory() as folder:
        path = Path(folder, "bars.csv")
        bars.rename_axis("time").to_csv(path)
        words = [python, PEER, path, *map(str, (FAST, SLOW, len(AGENTS)))]
        plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        told = subprocess.run(words, capture_output=True, text=True, check=True, env=plain).stdout
    said = json.loads(told.splitlines()[-1])
    fills = 1e3 * said["fills"] / said["bars"]
    pace = f"{said['bars'] / said['wall_s']:,.0f} bars/s ({fills:.1f} fills in 1,000; nothing is kept on a disk)"
    return f"nautilus_trader {said['version']}, {len(AGENTS)} EMA crosses", pace


def rules_row(bars: Bars) -> Row:
    """Return the pace of three agents that follow a rule each."""
    signals, terms = rule_signals(bars)
    said = ", ".join(f"{agent} {name}" for agent, (name, _) in RULES.items())
    return replay_row(bars, signals, f"a year of BTCUSDT 5m, rules: {said}", terms=terms)


def rotation_row(most: int | None = None) -> Row:
    """Return how many bars a second one agent rotates through, on all pairs that there are."""
    table = pd.read_parquet(SHARED / "USDT136_1h_long.parquet")
    markets = {}
    for symbol, rows in table.groupby("symbol", sort=True):
        bars = rows.set_index("time")[list(BAR_COLUMNS)].astype("float64")
        bars.index = pd.to_datetime(bars.index, utc=True)
        markets[SeriesId.parse(str(symbol), "1h")] = bars.iloc[:most]
    first = min(bars.index[0] for bars in markets.values())
    with TemporaryDirectory() as folder:
        database = fresh_database(Path(folder))
        planner, series = AltcoinRotation(trend_weeks=4), next(iter(markets))
        profile = loose_profile(series, strategies=(planner.name,), pairs=("all",))
        planned = {planner.name: PlannedFeed(planner, TablePast(markets))}
        made = make_engine(
            database, {}, {"nova": profile}, COSTS, (first - pd.Timedelta(days=1)).to_pydatetime(), planned=planned
        )
        with Watch() as watch:
            result = replay(made, markets)
        assert made.books.ledger.check() == []
        database.dispose()
    total, fills = sum(map(len, markets.values())), 2 * len(result.trades)
    pace = f"{total / watch.wall:,.0f} bars/s"
    note = (
        f"{total:,} bars of {len(markets)} pairs at {result.steps:,} moments from {first:%Y-%m-%d}: {watch.wall:.1f} s "
        f"wall, {watch.cpu:.1f} s CPU; {fills} fills; a trend of 4 weeks, since there is no year before"
    )
    return Row(f"rotation, {len(markets)} pairs of 1h", "–", pace, "–", pace, "printed", True, note)


# --- a live step ---


class LastSignal:
    """A feed that says what a line said last."""

    signal: Signal | None = None

    def latest(self, series: SeriesId) -> Signal | None:
        """Return it."""
        return self.signal

    def atr(self, series: SeriesId) -> float | None:
        """Return None: no plan trails here."""
        return None


def live_row() -> Row:
    """Return what a bar costs an agent that follows a model, beside its features."""
    bars = shared_rows("BTCUSDT_5m", MODEL_ROWS + STEPS)
    bars.attrs |= {"symbol": SERIES.symbol, "timeframe": SERIES.timeframe}
    with TemporaryDirectory() as folder:
        runtime = served(bars.iloc[:MODEL_ROWS], folder)
        try:
            parts = follow(runtime, bars, Path(folder))
        finally:
            runtime.engine.dispose()
    beyond = float(np.median(1e3 * parts["beyond"]))
    said = "; ".join(f"{name} {in_ms(list(took))}" for name, took in parts.items() if name != "beyond")
    note = f"{STEPS} bars, CPU time but for the last; {said}"
    return Row(
        "one bar for a model agent beyond features and models", "–", f"{beyond:.2f} ms", "–",
        f"p50 {beyond:.2f} ms CPU", f"≤ {MOST_STEP_MS:g} ms", beyond <= MOST_STEP_MS, note,
    )  # fmt: skip


def follow(runtime: object, bars: Bars, folder: Path) -> dict[str, np.ndarray]:
    """Return the seconds of features and models, of the engine's step by CPU, and of the step by the wall."""
    from orbiquant.research.live import LiveLine

    live = LiveLine(runtime, SERIES)
    live.latest()
    stream, feed = live._stream, LastSignal()
    database = fresh_database(folder)
    made = make_engine(database, {SERIES: random_signals(bars[:2], 1)}, {"atlas": loose_profile(SERIES)}, COSTS,
                       begin_of(bars), folder=folder)  # fmt: skip
    made.feeds["ml"] = feed
    took: dict[str, list[float]] = {"features and models": [], "beyond": [], "step with its commit (wall)": []}
    for moment, closing in moments({SERIES: bars.iloc[MODEL_ROWS:]}):
        row = bars.loc[closing[SERIES].opened]
        begin = time.process_time()
        decision = stream.step(row)
        features = time.process_time() - begin
        wall, cpu = time.perf_counter(), time.process_time()
        feed.signal = to_signal(decision.row, decision.time, SERIES, 24, "bench")
        made.clock.advance(moment - made.clock.now())
        made.step(closing)
        for name, value in zip(took, (features, time.process_time() - cpu, time.perf_counter() - wall), strict=True):
            took[name].append(value)
    database.dispose()
    return {name: np.array(values) for name, values in took.items()}


# --- the ledger ---


def ledger_rows() -> Iterator[Row]:
    """Yield how many postings a second are booked: one entry a commit, and all in one."""
    moment = datetime.fromisoformat("2024-01-02T12:00:00+00:00")
    entries = [(deposit_entry("atlas", "paper", "USDT", Decimal(n), moment), f"d:{n}") for n in range(1, ENTRIES + 1)]
    with TemporaryDirectory() as folder:
        database = fresh_database(Path(folder))
        ledger = Ledger(database)
        with Watch() as alone:
            for entry, key in entries[:DECISIONS]:
                ledger.post(entry, key)
        with Watch() as each, writing(database):
            for entry, key in entries[DECISIONS : 2 * DECISIONS]:
                ledger.post(entry, key)
        with Watch() as whole:
            ledger.post_many(entries[2 * DECISIONS :])
        assert ledger.check() == []
        database.dispose()
    for how, watch, count in (
        ("each entry a commit", alone, DECISIONS),
        ("one by one in one commit", each, DECISIONS),
        ("all at once", whole, ENTRIES - 2 * DECISIONS),
    ):
        pace = f"{2 * count / watch.wall:,.0f} postings/s"
        note = f"SQLite, synchronous FULL; {2 * count / watch.cpu:,.0f} a CPU second; two postings an entry"
        yield Row(f"ledger, {how}", "–", pace, "–", pace, "printed", True, note)


# --- after a kill ---


def rest(folder: Path) -> TradingEngine:
    """Return an engine at a folder's database, whose bars are at an end."""
    bars = year_of_bars()[:10]
    path = folder / "desk.db"
    database = engine(f"sqlite:///{path}") if path.exists() else fresh_database(folder)
    signals = random_signals(bars, 1, share=0.0)
    made = make_engine(database, {SERIES: signals}, {"atlas": loose_profile(SERIES)}, COSTS, begin_of(bars))
    made.bars = bars
    return made


def open_orders_and_die(folder: Path) -> None:
    """Leave a thousand orders at the venue, and end as a process does that is killed."""
    made = rest(folder)
    for moment, closing in moments({SERIES: made.bars}):
        made.clock.advance(moment - made.clock.now())
        made.step(closing)
    price = (made.standing.prices[SERIES.symbol] / 2).quantize(Decimal("0.01"))
    time_ = made.clock.now()
    with made.pages.together():
        for number in range(OPEN_ORDERS):
            intent = Intent(
                id=intent_id("atlas", number), account="paper", agent="atlas", strategy="ml", symbol=SERIES.symbol,
                timeframe=SERIES.timeframe, time=time_, purpose=Purpose.OPEN, side=Side.BUY, entry_price=price,
                bracket=Bracket(stop_loss=price / 2),
            )  # fmt: skip
            order = Order(
                client_order_id=intent.order_id(), symbol=SERIES.symbol, side=Side.BUY, quantity=Decimal("0.001"),
                type=OrderType.LIMIT, limit_price=price, bracket=intent.bracket,
            )  # fmt: skip
            made.sender.prepare(intent, order, intent.id, "bench")
    for id_ in list(made.sender.waiting):
        with made.pages.together():
            made.sender.send(id_)
    os.kill(os.getpid(), signal.SIGKILL)


def recovery_row() -> Row:
    """Return how long an engine takes to know again where a thousand orders stand."""
    with TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "tests.benchmarks.bench_trading", "orders", folder]
        ended = subprocess.run(words, check=False, cwd=Path(__file__).parents[2])
        assert ended.returncode == -signal.SIGKILL, ended.returncode
        with Watch() as watch:
            made = rest(Path(folder))
            made.recover()
            moment = made.bars.index[-1].to_pydatetime() + 2 * SERIES.timeframe.delta
            made.clock.advance(moment - made.clock.now())
        stand = [each.state for each in made.sender.waiting.values()]
        assert stand == [OrderState.SUBMITTED] * OPEN_ORDERS, len(stand)
        made.pages.database.dispose()
    took = f"{watch.wall:.2f} s"
    note = f"wall; {watch.cpu:.2f} s CPU; database opened, books read, every order asked about; SQLite"
    return Row(f"after kill −9 with {OPEN_ORDERS:,} open orders", "–", took, "–", took, "≤ 5 s", watch.wall <= 5, note)


# --- the page ---


def rows() -> Iterator[Row]:
    """Yield every row."""
    bars = year_of_bars()
    yield from ledger_rows()
    yield from intent_rows(bars)
    yield recovery_row()
    chance = {"ml": random_signals(bars, 3, share=SHARE)}
    yield replay_row(bars, chance, "a year of BTCUSDT 5m, three agents, random signals")
    cross = f"a year of BTCUSDT 5m, three agents, EMA {FAST}/{SLOW} cross"
    yield replay_row(bars, {"ml": cross_signals(bars)}, cross, lambda: run_peer(bars))
    yield rules_row(bars)
    yield rotation_row()
    yield live_row()
    yield from venue_rows()


def to_markdown(facts: dict[str, str], found: list[Row]) -> str:
    """Return the page."""
    lines = ["# How fast the trading wing is", "", "Written by `make bench-trading`.", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", "| work | peer | here | there | measured | goal | met | how |", "|---|---|--:|--:|--:|--:|---|---|"]
    lines += map(to_line, found)
    return "\n".join(lines) + "\n"


def to_line(row: Row) -> str:
    """Return a row of the table."""
    return f"| {' | '.join((*row[:6], 'yes' if row.met else '**no**', row.note))} |"


def measure_again() -> None:
    """Measure the rows at the venue alone, and put them in the place of those in the page."""
    configure_logging("ERROR")
    load, found = os.getloadavg()[0], list(venue_rows())
    new = [to_line(row._replace(note=f"{row.note}; load average {load:.1f}")) for row in found]
    begins = tuple(f"| {row.work} |" for row in found)
    kept = [line for line in OUTPUT.read_text().splitlines() if not line.startswith(begins)]
    atomic_write(OUTPUT, "\n".join([*kept, *new]) + "\n")
    print(*new, sep="\n")


def main() -> None:
    """Measure, print and write."""
    configure_logging("ERROR")
    facts, load, found = machine_facts(year_of_bars(), "BTCUSDT 5m"), os.getloadavg()[0], []
    for row in rows():
        print(*row, sep="  ", flush=True)
        found.append(row)
    facts["Load average"] = f"{load:.2f} before, {os.getloadavg()[0]:.2f} after"
    page = to_markdown(facts, found)
    atomic_write(OUTPUT, page)
    print(f"\n{page}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["orders"]:
        open_orders_and_die(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["venue"]:
        measure_again()
    else:
        main()
