"""Rows of the quant table: 1,000 stops and targets swept over 100,000 bars, in a sample held against a plain loop."""

import contextlib
import io
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd

from orbiquant.backtest.sweep import SweepResult, sweep_grid
from orbiquant.backtest.sweep_plan import SweepGrid
from orbiquant.domain import Bars, Costs, Signals
from orbiquant.models.labels import barrier_distance
from tests.benchmarks.quant_row import Row, Seconds, best_of, shared_rows, times_faster
from tests.tools.oracle import Terms, replay

ROWS, SHARE, SEED = 100_000, 0.1, 7
COSTS = Costs(fee_bps=2, slippage_bps=1, spread_bps=1)
GRID = SweepGrid(
    stop_atr=tuple(np.linspace(0.5, 5, 25).round(4)), risk_reward=tuple(np.linspace(0.5, 5, 40).round(4))
)  # 1,000 combinations
COLUMNS = 25  # that vectorbt is shown at once
SAMPLE = (0, 137, 418, 640, 999)  # combinations held against the plain loop and played by backtesting.py


def coin_signals(bars: Bars) -> Signals:
    """Return a random side on a tenth of the bars, with the average true range there."""
    rng = np.random.default_rng(SEED)
    side = np.where(rng.random(len(bars)) < SHARE, rng.choice([1, -1], len(bars)), 0)
    return pd.DataFrame({"side": side, "entry_price": bars["close"], "distance": barrier_distance(bars, 1.0)}).iloc[14:]


def equal_to_oracle(found: SweepResult) -> bool:
    """Return whether a sample of the combinations has the trades of a plain loop, to 1e-9 R."""
    for combination in SAMPLE:
        own = found.trades(combination)
        levels = found.signals_of(combination)
        want = pd.DataFrame(replay(found.bars, levels, Terms(COSTS.fee, COSTS.slippage)).trades)
        same = len(own) == len(want) and (found.bars.index[want["exit_bar"]] == own["exit_time"]).all()
        if not (
            same and (own["exit_reason"] == want["exit_reason"]).all() and np.allclose(own["r"], want["r"], 0, 1e-9)
        ):
            return False
    return True


def vectorbt_sweep(bars: Bars, signals: Signals) -> int:
    """Play all combinations as vectorbt's users do, some columns at once, and return how many trades it made."""
    import vectorbt as vbt

    ahead = signals.reindex(bars.index).shift(1)
    fraction = (ahead["distance"] / bars["open"]).to_numpy()[:, None]
    stops, rewards = GRID.table()["stop_atr"].to_numpy(), GRID.table()["risk_reward"].to_numpy()
    count = 0
    for start in range(0, len(stops), COLUMNS):
        stop = fraction * stops[start : start + COLUMNS]
        portfolio = vbt.Portfolio.from_signals(
            bars["close"],
            open=bars["open"],
            high=bars["high"],
            low=bars["low"],
            price=bars["open"],
            entries=ahead["side"] > 0,
            short_entries=ahead["side"] < 0,
            sl_stop=stop,
            tp_stop=stop * rewards[start : start + COLUMNS],
            stop_entry_price="fillprice",
            stop_exit_price="stopmarket",
            upon_opposite_entry="ignore",
            size=1.0,
            init_cash=np.inf,
            fees=COSTS.fee,
            slippage=COSTS.slippage,
        )
        count += len(portfolio.exit_trades.records)
    return count


def backtesting_sample(bars: Bars, signals: Signals) -> Seconds:
    """Return what one combination takes in backtesting.py, on average over the sample."""
    from backtesting import Backtest, Strategy

    known = signals.reindex(bars.index)
    side, price = known["side"].fillna(0).to_numpy(), bars["close"].to_numpy()
    distance = known["distance"].to_numpy()

    class Bracket(Strategy):
        """Enter at the next open with a stop and a target."""

        stop_atr = risk_reward = 1.0

        def init(self) -> None:
            """Need no indicator."""

        def next(self) -> None:
            """Place the bar's signal when nothing is held."""
            number = len(self.data) - 1
            if side[number] and not self.position:
                risk = side[number] * self.stop_atr * distance[number]
                place = self.buy if side[number] > 0 else self.sell
                place(size=1, sl=price[number] - risk, tp=price[number] + self.risk_reward * risk)

    frame = bars.set_axis([name.title() for name in bars.columns], axis=1).tz_localize(None)
    terms = GRID.table().loc[list(SAMPLE), ["stop_atr", "risk_reward"]].to_dict("records")

    def work() -> None:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            for row in terms:
                Backtest(frame, Bracket, cash=1e12, commission=COSTS.fee + COSTS.slippage).run(**row)

    took = best_of(work, 1)
    return Seconds(took.wall / len(terms), took.cpu / len(terms))


def rows() -> Iterator[Row]:
    """Yield two rows."""
    bars = shared_rows("BTCUSDT_5m", ROWS)
    signals, kept = coin_signals(bars), dict[str, SweepResult]()
    sweep_grid(bars.iloc[:500], signals.loc[: bars.index[499]], GRID, COSTS)
    own = best_of(lambda: kept.update(found=sweep_grid(bars, signals, GRID, COSTS)), 3)
    found = kept["found"]
    exact = equal_to_oracle(found) and len(found.confirm(SAMPLE[1]).trades) > 0
    trades = int(found.table["trades"].sum())
    work = f"sweep of {len(GRID):,} stops and targets, {ROWS:,} bars of BTCUSDT 5m"
    said = f"CPU time; {trades:,} trades here, {'equal' if exact else 'NOT EQUAL'} to the plain loop in a sample"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vectorbt_sweep(bars.iloc[:500], signals.loc[: bars.index[499]])
        theirs = best_of(lambda: kept.update(count=vectorbt_sweep(bars, signals)), 1)
        slow = backtesting_sample(bars, signals)
    row = times_faster(
        work,
        "vectorbt 1.2.0",
        own.cpu,
        theirs.cpu,
        10,
        f"{said}; {kept['count']:,} there, {COLUMNS} columns at once, plain bars",
    )
    yield row._replace(met=row.met and exact)
    note = f"{said}; {len(SAMPLE)} combinations measured there and scaled"
    row = times_faster(work, "backtesting.py 0.6.6", own.cpu, len(GRID) * slow.cpu, 300, note)
    yield row._replace(met=row.met and exact)
