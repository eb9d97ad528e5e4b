"""Planners: a grid's legs by an oracle, one stop for a basket, crashes at every place, coins as of then."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Engine, func, select

from orbiquant.core import configure_logging
from orbiquant.domain import Bars, Costs, SeriesId, Timeframe
from orbiquant.market.synthetic import synthetic_market
from orbiquant.orders import OrderState
from orbiquant.strategies.altcoin_rotation import AltcoinRotation
from orbiquant.strategies.grid_trading import Grid, GridTrading
from orbiquant.strategies.plans import Past, PlannedFeed, TablePast
from orbiquant.trading import tables
from orbiquant.trading.config import RiskConfig
from orbiquant.trading.dispatcher import own_of
from orbiquant.trading.engine import TradingEngine
from orbiquant.trading.kills import SwitchScope
from orbiquant.trading.replay import moments, replay
from tests.tools.desk import FREE, begin_of, fresh_database, loose_profile, make_engine, random_signals

EURUSD, BTC = SeriesId.parse("EURUSD", "1h"), SeriesId.parse("BTCUSDT", "1h")
CHEAP = Costs(fee_bps=0.2, slippage_bps=0.3, spread_bps=0.5)
RULE = GridTrading(steps=6, range_atr=3.0, stop_atr=1.0, atr_bars=24, cool_down_bars=10)


@pytest.fixture(autouse=True)
def quiet() -> None:
    configure_logging("ERROR")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Engine]:
    made = fresh_database(tmp_path)
    yield made
    made.dispose()


def market(rows: int = 700, seed: int = 5) -> Bars:
    """Return bars that turn and trend by chance."""
    return synthetic_market(rows, "1h", seed=seed).bars


def by_hand(*prices: tuple[float, float, float, float], calm: int = 30) -> Bars:
    """Return quiet bars about 100, then given ones: open, high, low, close."""
    rows = [(100.0, 100.5, 99.5, 100.0)] * calm + list(prices)
    index = pd.date_range("2024-01-01", periods=len(rows), freq="h", tz="UTC", name="time").as_unit("us")
    return pd.DataFrame(rows, index, columns=["open", "high", "low", "close"]).assign(volume=1e9)


@dataclass
class Run:
    """An agent that trades one planner, over bars that a test lets close."""

    database: Engine
    bars: Mapping[SeriesId, Bars]
    rule: Any = RULE
    costs: Costs = CHEAP
    limits: RiskConfig = FREE
    short: bool = False
    past: Past | None = None

    def __post_init__(self) -> None:
        self.changes: dict[str, Any] = {"strategies": (self.rule.name,), "pairs": ("ALL",), "risk_per_trade": "0.01"}
        self.steps = [*moments(self.bars)]
        self.done = 0

    def open(self) -> TradingEngine:
        """Return the engine as a process finds it."""
        past = TablePast(self.bars) if self.past is None else self.past
        profile = loose_profile(next(iter(self.bars)), **self.changes)
        start = min(map(begin_of, self.bars.values()))
        planned = {self.rule.name: PlannedFeed(self.rule, past)}
        self.engine = make_engine(self.database, {}, {"nova": profile}, self.costs, start, self.limits, self.short,
                                  planned=planned)  # fmt: skip
        if self.done:
            self.tell(self.steps[self.done - 1][0])
        self.engine.recover()
        return self.engine

    def tell(self, moment: datetime) -> None:
        self.engine.clock.advance(moment - self.engine.clock.now())

    def go(self, count: int | None = None) -> TradingEngine:
        """Go through some moments, or all that are left."""
        for moment, closing in self.steps[self.done : None if count is None else self.done + count]:
            self.tell(moment)
            self.engine.step(closing)
            self.done += 1
        return self.engine

    def own(self) -> list[Any]:
        return sorted(own_of(self.engine.standing, "nova", self.rule.name), key=lambda each: (each.series, each.price))

    def said(self, outcome: str = "") -> list[tuple[str, str]]:
        told = [(each.outcome.value, each.reason) for each in reversed(self.engine.journal.last("nova", 100_000))]
        return [each for each in told if outcome in ("", each[0])]

    def trades(self) -> list[tuple[Any, ...]]:
        found = self.engine.books.trades("nova")
        return [(each.entry_time, each.exit_time, each.entry, each.exit, each.quantity, each.reason) for each in found]


# --- a grid by an oracle ---


def oracle_entries(
    time: Any,
    bar: "pd.Series[float]",
    grid: Any,
    levels: list[Decimal],
    waits: dict[int, datetime],
    held: dict[int, Any],
) -> set[int]:
    """Fill the orders that a bar reaches, in place, and return those that it filled after its open."""
    late = set()
    for i in sorted(waits):
        limit, stop = float(levels[i]), float(grid.stop)
        if bar["open"] <= limit:
            # beyond or all but at the stop: no trade
            if bar["open"] <= stop or (limit - stop) * 0.1 > bar["open"] - stop:
                del waits[i]
                continue
            held[i] = (time, bar["open"])
        elif bar["low"] < limit:
            held[i] = (time, limit)
            late.add(i)
    for i in held:
        waits.pop(i, None)
    return late


def oracle_exits(
    time: Any,
    bar: "pd.Series[float]",
    grid: Any,
    levels: list[Decimal],
    late: set[int],
    held: dict[int, Any],
    slip: float,
) -> list[tuple[Any, ...]]:
    """Close what a bar takes to its stop or target, in place, and return the trades."""
    trades = []
    for i in sorted(held):
        entered, price = held[i]
        opened = price if i in late else bar["open"]
        stop, target = float(grid.stop), float(levels[i + 1])
        leave = None
        if i not in late and bar["open"] >= target:
            leave = (bar["open"], "target")
        elif bar["low"] <= stop:
            leave = (min(opened, stop), "stop")
        elif i not in late and bar["high"] >= target:
            leave = (max(opened, target), "target")
        if leave is not None:
            trades.append((entered, time, price, leave[0] * (1 - slip), leave[1]))
            del held[i]
    return trades


def grid_oracle(bars: Bars, rule: GridTrading, costs: Costs, tick: Decimal) -> list[tuple[Any, ...]]:
    """Return the trades of a grid: entry and exit time, entry and exit price, reason; written without the engine."""
    slip, frame, trades = costs.slippage, timedelta(hours=1), []
    grid, levels, waits, held = None, [], dict[int, datetime](), dict[int, tuple[Any, float]]()
    rested: datetime | None = None
    true_range = pd.concat([bars["high"], bars["close"].shift()], axis=1).max(axis=1)
    true_range -= pd.concat([bars["low"], bars["close"].shift()], axis=1).min(axis=1)
    for number, (time, bar) in enumerate(bars.iterrows()):
        late = oracle_entries(time, bar, grid, levels, waits, held)
        left = oracle_exits(time, bar, grid, levels, late, held, slip)
        trades += left
        if any(reason == "stop" for *_, reason in left):
            rested = time
        moment, close = time.to_pydatetime() + frame, bar["close"]
        if grid is not None and not (waits or held):
            grid = None
        if grid is None:
            calm = rested is not None and moment < rested.to_pydatetime() + frame * (1 + rule.cool_down_bars)
            if calm or number < rule.atr_bars:
                continue
            share = true_range.iloc[number - rule.atr_bars + 1 : number + 1].mean() / close
            away = (-rule.range_atr, rule.range_atr, -rule.range_atr - rule.stop_atr)
            ends = [close * np.exp(each * share) for each in away]
            low, high, stop = (Decimal(repr(float(each))).quantize(tick) for each in ends)
            ratio = float(high / low)
            inner = [Decimal(repr(float(low) * ratio ** (i / rule.steps))).quantize(tick) for i in range(1, rule.steps)]
            levels = [low, *inner, high]
            grid = Grid("EURUSD", moment, low, high, rule.steps, stop)
            half = ratio ** (0.5 / rule.steps)  # of a step
            waits = {i: moment for i in range(rule.steps) if float(levels[i]) * half <= close}
        elif (
            (rested is not None and rested.to_pydatetime() >= grid.begun)
            or close <= float(grid.stop)
            or (close > float(grid.upper) and not held)
        ):
            waits = {}
        else:
            free = [i for i in range(rule.steps) if i not in waits | held and float(levels[i]) * half <= close]
            waits |= dict.fromkeys(free, moment)
    return trades


@pytest.mark.parametrize("seed", [3, 5, 11])
def test_a_grids_legs_are_those_of_an_oracle(database: Engine, seed: int):
    bars = market(900, seed)
    run = Run(database, {EURUSD: bars})
    made = replay(run.open(), run.bars).trades
    made = made[made["exit_reason"] != "end"].sort_values(["exit_time", "entry"])
    wanted = grid_oracle(bars, RULE, CHEAP, Decimal("0.00001"))
    wanted = sorted(wanted, key=lambda each: (each[1], each[2]))
    assert len(wanted) > 40 and {each[4] for each in wanted} == {"stop", "target"}
    assert [*made["exit_reason"].astype(str)] == [each[4] for each in wanted]
    assert [*made["entry_time"]] == [each[0] for each in wanted]
    assert [*made["exit_time"]] == [each[1] for each in wanted]
    np.testing.assert_allclose(made[["entry", "exit"]], [each[2:4] for each in wanted], rtol=1e-12)
    assert run.engine.books.ledger.check() == [] and not run.engine.standing.beyond_books()


def test_a_basket_risks_one_trades_share_at_its_stop(database: Engine):
    run = Run(database, {BTC: by_hand()}, costs=Costs(fee_bps=10, slippage_bps=1))
    run.changes |= {"initial_equity": "10000"}
    run.open()
    run.go()
    own = run.own()
    grid = Grid.parse(own[0].basket)
    levels = grid.levels(Decimal("0.01"))[:-1]
    fee, slip, stop = Decimal("0.001"), Decimal("0.0001"), grid.stop
    lost = sum(
        own[0].quantity * (level * (1 + slip) * (1 + fee) - stop * (1 - slip) * (1 - fee)) for level in levels
    )  # of all six, those that are not placed yet too
    assert 0.99 * 100 < lost <= 100 and len({each.quantity for each in own}) == 1
    assert [each.price for each in own] == [level for level in levels if level < 100] and all(
        each.waits for each in own
    )


# --- fills ---


def test_a_gap_through_levels_fills_them_at_the_open_and_the_way_down_at_their_price(database: Engine):
    run = Run(database, {BTC: by_hand((98.9, 99, 97.9, 98.2))}, costs=Costs())
    run.open()
    run.go(30)
    levels = [each.price for each in run.own()]
    assert len(levels) == 3 and levels == sorted(levels)
    run.go()
    paid = {each.bracket.take_profit: each.price for each in run.own() if each.held}
    assert len(paid) == 2 and [*paid.values()] == [levels[1], Decimal("98.9")], "one on the way down, one at the open"
    (held,) = [each for each in run.engine.books.positions() if each.average_price == Decimal("98.9")]
    assert held.average_price < levels[2] and held.bracket.stop_loss == Grid.parse(held.basket).stop


def test_the_basket_stop_closes_every_leg_and_the_market_rests(database: Engine):
    down = [(100, 100, 96.5, 96.6), (96.6, 96.7, 90, 91)]
    run = Run(database, {BTC: by_hand(*down, *[(91, 91.5, 90.5, 91)] * 40)}, costs=Costs())
    run.open()
    run.go(32)
    trades = run.engine.books.trades("nova")
    assert len(trades) == 3 and {each.reason for each in trades} == {"stop"} and not run.own()
    assert len({each.exit for each in trades}) == 1, "one stop for all of them"
    assert -1.01 < sum(float(each.pnl) for each in trades) / 1_000_000 * (6 / 3) < 0, (
        "less than the agent's one percent"
    )
    run.go()
    said = [each for each in run.said() if "no grid before" in each[1]]
    grids = run.said("taken")
    assert len(said) == 10 and len(grids) == 2 and run.own(), "as many bars as the rule rests, then another grid"


def test_a_bar_that_opens_below_the_stop_ends_the_grid_and_fills_nothing(database: Engine):
    run = Run(database, {BTC: by_hand((90, 91, 89, 90), (90, 91, 89, 90))}, costs=Costs())
    run.open()
    run.go(31)
    ended = run.engine.standing.sender.waiting
    assert not run.engine.books.positions() and not [each for each in ended.values() if each.order.limit_price > 95]
    with run.database.connect() as connection:
        rows = connection.execute(select(tables.orders.c.state, tables.orders.c.message)).all()
    assert [tuple(row) for row in rows[:3]] == [("expired", "opened beyond stop")] * 3


def test_a_leg_that_was_sold_waits_again_and_a_price_above_ends_the_grid(database: Engine):
    turn = [(100, 100, 98.9, 99), (99, 101, 98.99, 100.6)]
    run = Run(database, {BTC: by_hand(*turn, (105, 106, 104, 105), (105, 106, 104, 105))}, costs=Costs())
    run.open()
    run.go(31)
    assert sum(bool(each.held) for each in run.own()) == 1
    run.go(1)
    (trade,) = run.engine.books.trades("nova")
    assert trade.reason == "target" and [each.price for each in run.own()][-1] < Decimal("100.6")
    assert len(run.own()) == 4 and not any(each.held for each in run.own()), "the level above the old price, too"
    run.go(1)
    assert not run.own() and {each[1] for each in run.said("withdrawn")} == {
        "the price has left the grid above, and nothing is held"
    }
    run.go(1)
    assert len(run.own()) == 3 and run.own()[0].basket != trade.id


# --- refusals ---


def refused(run: Run, count: int = 30) -> str:
    """Return the reason why no grid was placed."""
    run.open()
    run.go(count)
    assert not run.own() and not run.said("taken")
    return run.said("denied")[-1][1]


def test_a_step_that_two_fills_cost_is_refused(database: Engine):
    run = Run(database, {BTC: by_hand()}, costs=Costs(fee_bps=60))
    assert refused(run) == "a step of 1.005% must exceed what two fills cost, 1.200%"


def test_legs_that_do_not_fit_refuse_the_whole(database: Engine):
    run = Run(database, {BTC: by_hand()})
    run.changes |= {"initial_equity": "0.01"}
    assert "quantity_zero: `risk_per_trade` over 6 legs leaves less than one step" in refused(run)


def test_one_leg_that_risk_makes_smaller_refuses_the_whole(database: Engine):
    tight = FREE.model_copy(update={"max_exposure": Decimal("0.1")})
    run = Run(database, {BTC: by_hand()}, limits=tight, costs=Costs())
    run.changes |= {"initial_equity": "10000"}
    tight_leverage = tight.model_copy(update={"crypto_leverage": Decimal(1)})
    run.limits = tight_leverage
    said = refused(run)
    assert "does not fit, so none is placed" in said and "max_exposure" in said


def test_a_grid_is_one_position_of_those_that_are_allowed(database: Engine):
    other = SeriesId.parse("ETHUSDT", "1h")
    run = Run(database, {BTC: by_hand(), other: by_hand()}, costs=Costs())
    run.changes |= {"max_positions": 1}
    run.open()
    run.go()
    assert {each.series for each in run.own()} == {BTC} and len(run.own()) == 3
    assert "max_positions: the leg at" in run.said("denied")[-1][1]


# --- who may trade ---


@pytest.mark.parametrize("way", ["pause", "kill", "stop"])
def test_what_waits_is_withdrawn_when_its_agent_may_open_no_more(database: Engine, way: str):
    run = Run(database, {BTC: by_hand(*[(100, 100.5, 99.5, 100)] * 4)}, costs=Costs())
    run.open()
    run.go(30)
    assert len(run.own()) == 3
    if way == "kill":
        run.engine.standing.switches.kill(SwitchScope.AGENT, "nova", who="a person", why="a test")
    else:
        run.engine.roster.move("nova", way, "a person says so")
    run.go(1)
    assert not run.own() and not run.engine.broker.open_orders()
    denied = run.said("denied")[-1][1] if way != "kill" else "the agent is"
    assert "the agent is" in denied
    run.go(1)
    assert not run.engine.broker.open_orders(), "and nothing is put there again"
    if way == "pause":
        run.engine.roster.move("nova", "resume", "a person says so")
        run.go(1)
        assert len(run.own()) == 3, "a grid about the price of now"


def test_a_halted_agent_of_a_fast_replay_leaves_nothing_at_the_venue(database: Engine):
    bars = by_hand((100, 100, 98.9, 99), *[(99, 99.3, 98.7, 99)] * 6)
    run = Run(database, {BTC: bars}, costs=Costs())
    engine = run.open()
    with engine.deferring():
        run.go(31)
        engine.halt(engine.crew()[0], "by the test")
        run.go(1)
        assert not engine.broker.open_orders() and engine.books.positions(), "what is held keeps its stop"


def test_signals_leave_a_grids_legs_alone(database: Engine):
    bars = market(300, 5)
    run = Run(database, {EURUSD: bars})
    past = PlannedFeed(RULE, TablePast(run.bars))
    alone = replay(run.open(), run.bars).trades
    with_signals = fresh_database(Path(database.url.database).parent / "other")
    profile = loose_profile(
        EURUSD, **run.changes | {"strategies": ("ml", "grid_trading"), "initial_equity": "100000000"}
    )
    signals = {EURUSD: random_signals(bars, 4, 0.3)}
    engine = make_engine(with_signals, signals, {"nova": profile}, CHEAP, begin_of(bars), FREE, False,
                         planned={"grid_trading": past})  # fmt: skip
    both = replay(engine, run.bars).trades
    of_grid = both[both["strategy"] == "grid_trading"]
    assert len(both) > len(of_grid) + 10 and len(of_grid) > 10
    same = ["entry_time", "exit_time", "entry", "exit", "exit_reason"]
    pd.testing.assert_frame_equal(
        of_grid[same].reset_index(drop=True), alone[same].reset_index(drop=True), check_dtype=False
    )
    with_signals.dispose()


def test_a_planner_that_raises_halts_its_agent(database: Engine):
    class Broken(GridTrading):
        def plan(self, scene: Any) -> Any:
            raise ZeroDivisionError("somebody's code")

    run = Run(database, {BTC: by_hand()}, rule=Broken())
    run.open()
    run.go(3)
    record = run.engine.roster.find("nova")
    assert record.state == "halted" and record.reason == "grid_trading failed: ZeroDivisionError somebody's code"


# --- crashes ---


def test_a_run_that_is_cut_anywhere_is_the_whole_run(database: Engine, tmp_path: Path):
    bars = {EURUSD: market(320, 5)}
    whole = Run(database, bars)
    whole.open()
    whole.go()
    cut = Run(fresh_database(tmp_path / "cut"), bars)
    cut.open()
    for _ in range(20):
        cut.go(16)
        cut.open()  # all that was in memory is gone
    assert len(whole.trades()) > 10 and cut.trades() == whole.trades()
    assert cut.said() == whole.said() and cut.own() == whole.own()
    cut.database.dispose()


class Cut(BaseException):
    """A process that ends."""


def cutting(function: Callable[..., Any], at: int) -> Callable[..., Any]:
    """Return a function that ends the process at its n-th call."""
    calls = iter(range(1_000_000))

    def run(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == at:
            raise Cut
        return function(*args, **kwargs)

    return run


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_crash_between_intents_leaves_none_of_them_and_the_moment_comes_again(database: Engine, at: int):
    run = Run(database, {BTC: by_hand()}, costs=Costs())
    run.open()
    run.go(24)
    run.engine.sender.prepare = cutting(run.engine.sender.prepare, at)
    with pytest.raises(Cut):
        run.go(1)
    with database.connect() as connection:
        assert not connection.execute(select(func.count()).select_from(tables.intents)).scalar()
    run.open()
    run.go(1)
    ids = {each.id for each in run.own()}
    other = replace(run, database=fresh_database(Path(database.url.database).parent / "other"))
    other.open()
    other.go(25)
    assert len(ids) == 3 and ids == {each.id for each in other.own()}
    other.database.dispose()


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_crash_between_orders_is_mended_at_the_next_close_and_nothing_is_doubled(database: Engine, at: int):
    run = Run(database, {BTC: by_hand()}, costs=Costs())
    run.open()
    run.go(24)
    run.engine.sender.send = cutting(run.engine.sender.send, at)
    with pytest.raises(Cut):
        run.go(1)
    run.done += 1  # its moment was written
    run.open()
    assert len(run.own()) == at, "what the venue never had is not on its way"
    run.go(2)
    prices = [each.limit_price for each in run.engine.broker.open_orders()]
    assert len(prices) == 3 == len({*prices}) and len(run.own()) == 3
    states = [each.state for each in run.engine.sender.waiting.values()]
    assert {*states} == {OrderState.SUBMITTED} and run.engine.books.ledger.check() == []


def test_a_moment_that_comes_twice_does_nothing_the_second_time(database: Engine):
    run = Run(database, {BTC: by_hand()}, costs=Costs())
    run.open()
    run.go(30)
    before = run.own(), run.said()
    run.engine.step(run.steps[29][1])
    assert (run.own(), run.said()) == before


# --- rotation ---

COINS = ("ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT", "DOGEUSDT", "LTCUSDT", "LINKUSDT", "TRXUSDT")
ROTATION = AltcoinRotation(weeks=2, top=3, trend_weeks=4, stop_atr=12.0, least_volume=1000.0)


def coins(weeks: int = 20, seed: int = 2) -> dict[SeriesId, Bars]:
    """Return coins that walk by chance: one begins late, one ends early, one is hardly traded."""
    chance = np.random.default_rng(seed)
    index = pd.date_range("2024-01-01", periods=weeks * 42, freq="4h", tz="UTC", name="time").as_unit("us")
    made = {}
    for symbol in ("BTCUSDT", *COINS):
        close = np.round(100 * np.exp(np.cumsum(chance.normal(0.0004, 0.006, len(index)))), 4)
        spread = np.exp(np.abs(chance.normal(0, 0.002, len(index))))
        before = np.concatenate([[100.0], close[:-1]])
        high, low = np.round(np.maximum(before, close) * spread, 4), np.round(np.minimum(before, close) / spread, 4)
        volume = 0.01 if symbol == "TRXUSDT" else 1000.0
        table = pd.DataFrame({"open": before, "high": high, "low": low, "close": close, "volume": volume}, index)
        cut = {"LTCUSDT": slice(42 * 6 + 5, None), "ETHUSDT": slice(None, 42 * 12 + 9)}.get(symbol, slice(None))
        made[SeriesId.parse(symbol, "4h")] = table.iloc[cut]
    return made


def rotation_oracle(bars: Mapping[SeriesId, Bars], rule: AltcoinRotation) -> dict[pd.Timestamp, set[str]]:
    """Return which coins are to be held from each Monday on; written on tables."""
    closes = pd.DataFrame({series.symbol: table["close"] for series, table in bars.items()})
    closes.index += pd.Timedelta(hours=4)  # known then
    money = pd.DataFrame({series.symbol: table["close"] * table["volume"] for series, table in bars.items()})
    money.index += pd.Timedelta(hours=4)
    held = {}
    for monday in closes.index[(closes.index.day_of_week == 0) & (closes.index.hour == 0)]:
        known = closes.loc[:monday]
        back = rule.weeks * 42
        bitcoin = known["BTCUSDT"].dropna().iloc[-rule.trend_weeks * 42 :]
        if len(bitcoin) < rule.trend_weeks * 42 or bitcoin.iloc[-1] <= bitcoin.mean():
            held[monday] = set()
            continue
        change = known.iloc[-1] / known.shift(back).iloc[-1] - 1
        enough = money.loc[:monday].iloc[-back:].sum() / (rule.weeks * 7) >= rule.least_volume
        change = change[enough].drop("BTCUSDT").dropna()
        held[monday] = {*change.nlargest(rule.top).index}
    return held


def held_at(trades: pd.DataFrame, moment: pd.Timestamp) -> set[str]:
    """Return what is held at a moment: entries and exits are opens of bars."""
    return {*trades[(trades["entry_time"] < moment) & (trades["exit_time"] >= moment)]["symbol"]}


def test_the_coins_that_are_held_are_those_of_an_oracle(database: Engine):
    bars = coins()
    run = Run(database, bars, rule=ROTATION)
    trades = replay(run.open(), bars).trades
    wanted = rotation_oracle(bars, ROTATION)
    assert "stop" not in {*trades["exit_reason"]} and len(trades) > 15
    checked = [
        (monday, held) for monday, held in wanted.items() if monday < bars[SeriesId.parse("BTCUSDT", "4h")].index[-9]
    ]
    for monday, held in checked:
        assert held_at(trades, monday + pd.Timedelta(hours=12)) == held, monday
    sets = [held for _, held in checked]
    assert sum(not held for held in sets) > 3 and sum(a != b for a, b in pairwise(sets)) > 6
    assert {"LTCUSDT", "ETHUSDT"} <= {*trades["symbol"]} and "TRXUSDT" not in {*trades["symbol"]}


def test_a_coin_counts_from_its_first_bars_on_and_no_longer_than_its_last(database: Engine):
    bars = coins()
    run = Run(database, bars, rule=ROTATION)
    trades = replay(run.open(), bars).trades
    late, gone = bars[SeriesId.parse("LTCUSDT", "4h")], bars[SeriesId.parse("ETHUSDT", "4h")]
    assert trades[trades["symbol"] == "LTCUSDT"]["entry_time"].min() > late.index[0] + pd.Timedelta(weeks=2)
    assert trades[trades["symbol"] == "ETHUSDT"]["exit_time"].max() <= gone.index[-1]


def test_a_coin_that_vanishes_while_it_is_held_is_let_go_at_the_bar_that_comes_again(database: Engine):
    bars = {
        series: table
        for series, table in coins(12, seed=2).items()
        if series.symbol in ("BTCUSDT", "SOLUSDT", "XRPUSDT")
    }
    sol = SeriesId.parse("SOLUSDT", "4h")
    always = AltcoinRotation(weeks=2, top=2, trend_weeks=1, stop_atr=40.0, least_volume=0.0)

    class Up(AltcoinRotation):
        def trend(self, scene: Any, monday: datetime) -> Any:
            return super().trend(scene, monday)._replace(up=True)

    rule = Up(**always.model_dump())
    monday = pd.Timestamp("2024-02-05", tz="UTC")
    bars[sol] = pd.concat([bars[sol].loc[: monday + pd.Timedelta(days=2)], bars[sol].loc["2024-02-21":]])
    run = Run(database, bars, rule=rule)
    run.open()
    until = sum(moment <= pd.Timestamp("2024-02-20", tz="UTC") for moment, _ in run.steps)
    run.go(until)
    assert [each.series for each in run.own() if each.leaving] == [sol], "it cannot be sold without a bar"
    said = [each for each in run.said("closed") if "it counts no more" in each[1]]
    assert len(said) == 1, "and is not sold again every week"
    run.go(8)
    assert sol not in {each.series for each in run.own()}
    (trade,) = [each for each in run.engine.books.trades() if each.symbol == "SOLUSDT"]
    assert trade.reason == "close" and trade.exit_time >= pd.Timestamp("2024-02-21", tz="UTC")


def test_a_past_shows_nothing_that_closed_later():
    bars = market(200)
    past, moment = TablePast({EURUSD: bars}), bars.index[120].to_pydatetime()
    cut = TablePast({EURUSD: bars.iloc[:120]})
    for one, two in zip(past.last(EURUSD, moment, 50), cut.last(EURUSD, moment, 50), strict=True):
        np.testing.assert_array_equal(one, two)
    assert AltcoinRotation().due(datetime.fromisoformat("2024-01-08T06:00+00:00"), Timeframe.H1)
    assert not AltcoinRotation().due(datetime.fromisoformat("2024-01-08T07:00+00:00"), Timeframe.H1)
