"""How fast the trading wing is at an exchange: the fake Binance beside it, a real wire between them, real clocks."""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from random import Random
from threading import Thread

import numpy as np

from orbiquant.domain import Signal
from orbiquant.orders import Bracket, Intent, Order, OrderState, intent_id
from orbiquant.trading.switches import SwitchScope
from tests.benchmarks.quant_row import Row
from tests.chaos.exchange import RATE
from tests.chaos.run import EXCHANGE, SHARE, Databases, Run, run_seed, staged
from tests.fake_binance.running import RunningBinance, running_binance
from tests.tools.binance_desk import ACCOUNT, BinanceDesk

DECISIONS, SEEDS, BARS, KILLS = 150, (11, 12), 40, 20
MOST_WIRE_MS, MOST_BARE_S, MOST_SETTLED_S, MOST_FOUND_S, MOST_KILL_S = 25.0, 2.0, 18.0, 60.0, 1.0


def row(work: str, said: str, goal: str, met: bool, note: str) -> Row:
    """Return a row that no peer is beside."""
    return Row(work, "–", said, "–", said, goal, met, note)


def spread(values: list[float], unit: str = "s", digits: int = 2) -> str:
    """Return middle, 99th percentile and most."""
    p50, p99 = np.percentile(values, (50, 99))
    return f"p50 {p50:.{digits}f}, p99 {p99:.{digits}f}, max {max(values):.{digits}f} {unit}"


def entries_at(venue: RunningBinance) -> list[int]:
    """Return when the venue heard each order that opens, by its clock, which is this machine's."""
    found = []
    for record in venue.log("heard"):
        told = record["params"]
        id_ = str(told.get("workingClientOrderId") or told.get("newClientOrderId", ""))
        if record["method"] == "POST" and id_.endswith("-ent"):
            found.append(record["wall_ns"])
    return found


def wire_row(venue: RunningBinance, folder: Path) -> Row:
    """Return how long it takes from a signal to the order at the venue's door."""
    desk, heard, said_at = BinanceDesk(venue, folder), list[int](), list[int]()
    desk.broker.transport.most_weight = 10**9  # an hour takes a part of a second here
    latest = desk.feed.latest

    def hear(series: object) -> Signal | None:
        said = latest(series)  # type: ignore[arg-type]
        heard.append(time.time_ns())
        return said

    desk.feed.latest = hear  # type: ignore[method-assign]
    desk.hour()
    for _ in range(DECISIONS):
        desk.feed.say("LONG")
        desk.hour()
        said_at.append(heard[-1])
        desk.feed.say("SHORT")
        desk.hour()
    assert desk.agrees()
    desk.close()
    took = [(at - said) / 1e6 for said, at in zip(said_at, entries_at(venue), strict=True)]
    p99 = float(np.percentile(took, 99))
    note = (
        f"{DECISIONS} signals, each with gate, sizing, the intent's commit (SQLite FULL), and what is asked of the "
        "venue before: prices, balances, the average, what rests, whether it has the id; no faults, clocks × 1"
    )
    return row(
        "decision → wire, Binance", spread(took, "ms", 1), f"p99 ≤ {MOST_WIRE_MS:g} ms", p99 <= MOST_WIRE_MS, note
    )


def write_order(desk: BinanceDesk, number: int) -> str:
    """Write an order that adds risk and waits far below the market, and return its id."""
    bracket = Bracket(stop_loss=Decimal(40_000), take_profit=Decimal(61_500))
    intent = Intent(
        id=intent_id("nova", "switch", number), account=ACCOUNT, agent="nova", strategy="ml", symbol="BTCUSDT",
        timeframe="1h", time=desk.clock.now(), purpose="open", side="BUY", entry_price=Decimal(50_000), type="limit",
        bracket=bracket,
    )  # fmt: skip
    order = Order(
        client_order_id=intent.order_id(), symbol="BTCUSDT", side="BUY", quantity=Decimal("0.001"), type="limit",
        limit_price=Decimal(50_000), bracket=bracket,
    )  # fmt: skip
    desk.engine.sender.prepare(intent, order, intent.id, "bench")
    return order.client_order_id


def switch_row(venue: RunningBinance, folder: Path) -> Row:
    """Return how long orders that add risk still arrive after somebody has thrown the switch."""
    desk, chance, number = BinanceDesk(venue, folder), Random(1), 0
    desk.broker.transport.most_weight = 10**9
    desk.hour()
    venue.control("symbol", symbol="BTCUSDT", max_algo_orders=10**6, max_orders=10**6, max_lists=10**6)
    thrown, lifted = list[int](), list[int]()

    def throw(after_s: float) -> None:
        time.sleep(after_s)
        thrown.append(time.time_ns())
        desk.switches.kill(SwitchScope.ALL, who="bench", why="to see")

    for _ in range(KILLS):
        person = Thread(target=throw, args=(chance.uniform(0.05, 0.3),))
        person.start()
        state = OrderState.SUBMITTED
        while state is not OrderState.REJECTED:
            number += 1
            id_ = write_order(desk, number)
            state = desk.engine.sender.send(id_)
            if state is OrderState.SUBMITTED:
                desk.engine.sender.cancel(desk.engine.sender.waiting[id_])
        person.join()
        lifted.append(time.time_ns())
        desk.switches.lift(SwitchScope.ALL, who="bench", why="again")
    desk.close()
    entries = entries_at(venue)
    late = [
        (max((at for at in entries if begin < at < end), default=begin) - begin) / 1e9
        for begin, end in zip(thrown, lifted, strict=True)
    ]
    note = f"{KILLS} times, amid {number} orders sent one after another; from the call to the last order's arrival"
    return row("kill switch, Binance", spread(late, digits=3), f"≤ {MOST_KILL_S:g} s", max(late) <= MOST_KILL_S, note)


def trade_with_faults(seed: int) -> Run:
    """Trade a market at the exchange, where a fifth of all goes wrong and somebody else trades, by real clocks."""
    databases = Databases("sqlite")
    with tempfile.TemporaryDirectory(prefix="bench-venue-") as name:
        folder = Path(name)
        place = staged(folder, seed, BARS, EXCHANGE, share=2 * SHARE, scale=1)
        with databases.fresh(folder, seed) as url, place as where:
            run = run_seed(seed, "sqlite", url, folder, kills=0, bars=BARS, cold_share=0, **where)
    databases.forget()
    assert not run.error, run.error
    return run


def faulty_rows() -> Iterator[Row]:
    """Yield what a market with faults shows: times without a stop, until orders are settled, until others are seen."""
    runs = [trade_with_faults(seed) for seed in SEEDS]
    seconds = {name: [each for run in runs for each in run.seconds[name]] for name in ("bare", "settled", "found")}
    counts = {name: sum(run.counts[name] for run in runs) for name in ("intents", "faults", "deeds of somebody else")}
    found = sum((Counter({name: len(each) for name, each in run.found.items()}) for run in runs), Counter())
    how = (
        f"seeds {', '.join(map(str, SEEDS))} with {BARS} bars of 3 symbols each, {counts['intents']} intents, "
        f"{RATE:.0%} of requests and events with a fault, {counts['faults']} in all, clocks × 1; "
        f"the judges find {dict(found) or 'nothing'}"
    )
    bare, settled, others = seconds["bare"], seconds["settled"], seconds["found"]
    p99 = float(np.percentile(bare, 99))
    yield row("without a resident stop, Binance", spread(bare), f"p99 ≤ {MOST_BARE_S:g} s", p99 <= MOST_BARE_S,
              f"{len(bare)} times that a stop was not there yet, or was changed; {how}")  # fmt: skip
    yield row("unknown orders settled, Binance", spread(settled), f"≤ {MOST_SETTLED_S:g} s",
              max(settled) <= MOST_SETTLED_S, f"{len(settled)} orders whose answer was lost; {how}")  # fmt: skip
    risk = found["no new risk"]
    met = len(others) == counts["deeds of somebody else"] and max(others) <= MOST_FOUND_S and not risk
    yield row("coins, orders and trades of somebody else found, Binance", f"{len(others)} of "
              f"{counts['deeds of somebody else']}, {spread(others)}, {risk} orders that add risk meanwhile",
              f"all ≤ {MOST_FOUND_S:g} s, no new risk", met, how)  # fmt: skip


def venue_rows() -> Iterator[Row]:
    """Yield every row."""
    for measure in (wire_row, switch_row):
        with tempfile.TemporaryDirectory() as folder, running_binance(Path(folder)) as venue:
            venue.control("limits", weight_limit=10**9, orders_limit=10**6)
            yield measure(venue, Path(folder))
    yield from faulty_rows()
