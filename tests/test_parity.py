"""The engine that trades is the backtest: the same signals make the same trades, one by one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orbiquant.backtest.simulate import BacktestResult, simulate
from orbiquant.domain import Bars, Costs, SeriesId, Signals
from orbiquant.execution.config import FIXED, ExitPlan
from orbiquant.market.sources import SampleSource
from orbiquant.trading.replay import ReplayResult, replay
from tests.tools.desk import begin_of, fresh_database, loose_profile, make_engine, random_signals
from tests.tools.shared_bars import shared_bars

EURUSD_1H, BTCUSDT_1H = SeriesId.parse("EURUSD", "1h"), SeriesId.parse("BTCUSDT", "1h")
FOREX, CRYPTO = Costs(fee_bps=0.2, slippage_bps=0.3, spread_bps=0.5), Costs(fee_bps=10, slippage_bps=1, spread_bps=0.2)
ROUNDED = 2e-6  # of a price, where a part of a position is not a whole number of steps
PLANS = [FIXED, *map(ExitPlan.model_validate, ("break_even_r=1", "trail_atr=2", "targets=1:0.5 break_even_r=1"))]


def trade_both(
    bars: Bars, signals: Signals, series: SeriesId, costs: Costs, folder: Path, plan: ExitPlan = FIXED
) -> tuple[BacktestResult, ReplayResult]:
    """Return what a backtest and the engine on paper make of the same signals."""
    signals = signals.assign(atr=0.001 * bars["close"])
    signals.attrs["horizon_bars"] = 24
    database = fresh_database(folder)
    engine = make_engine(
        database, {series: signals}, {"nova": loose_profile(series, exits=plan)}, costs, begin_of(bars)
    )
    played = replay(engine, {series: bars})
    assert engine.books.ledger.check() == [] and not engine.books.held and not engine.standing.beyond_books()
    database.dispose()
    return simulate(bars, signals, costs, exits=plan), played


def check_equal(tested: BacktestResult, played: ReplayResult, rounding: float = 1e-9) -> None:
    """Fail at the first trade that differs in time, side, price, reason or R."""
    a, b = tested.trades.reset_index(drop=True), played.trades
    assert len(a) == len(b), f"{len(a)} in the backtest, {len(b)} on paper"
    for name in ("entry_time", "exit_time", "signal_time"):
        assert a[name].astype("datetime64[us, UTC]").equals(b[name].astype("datetime64[us, UTC]")), name
    for name in ("side", "exit_reason", "bars"):
        assert a[name].tolist() == b[name].tolist(), name
    assert np.allclose(a["entry"], b["entry"], rtol=1e-12) and np.allclose(a["exit"], b["exit"], rtol=rounding)
    assert np.allclose(a["r"], b["r"], rtol=1e-6, atol=max(1e-9, 100 * rounding))


@pytest.fixture(scope="module")
def euro() -> Bars:
    return SampleSource().bars(EURUSD_1H).iloc[:2_000]


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_a_year_of_the_sample(euro: Bars, tmp_path: Path, plan: ExitPlan):
    tested, played = trade_both(euro, random_signals(euro, 5, share=0.1), EURUSD_1H, FOREX, tmp_path, plan)
    assert len(played.trades) > 50 and {"stop", "target"} <= set(played.trades["exit_reason"])
    check_equal(tested, played, ROUNDED if plan.targets else 1e-9)


@pytest.mark.parametrize("stop", [0.0005, 0.03])
def test_very_near_and_very_far_stops(euro: Bars, tmp_path: Path, stop: float):
    tested, played = trade_both(euro, random_signals(euro, 7, share=0.2, stop=stop), EURUSD_1H, FOREX, tmp_path)
    check_equal(tested, played)
    assert len(played.trades) > 100 or "time" in set(played.trades["exit_reason"])


def test_real_years_of_bitcoin(tmp_path: Path):
    bars = shared_bars("BTCUSDT_5m").loc["2024-01":"2024-03"]
    series = SeriesId.parse("BTCUSDT", "5m")
    tested, played = trade_both(bars, random_signals(bars, 11, share=0.02), series, CRYPTO, tmp_path)
    assert len(played.trades) > 300
    check_equal(tested, played)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "costs", "plan"), [("BTCUSDT_5m", CRYPTO, PLANS[3]), ("EURUSD_1h", FOREX, FIXED)])
def test_all_the_years(tmp_path: Path, name: str, costs: Costs, plan: ExitPlan):
    bars, series = shared_bars(name).iloc[-150_000:], SeriesId.parse(*name.split("_"))
    tested, played = trade_both(bars, random_signals(bars, 13, share=0.02), series, costs, tmp_path, plan)
    assert len(played.trades) > 400
    check_equal(tested, played, ROUNDED)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10_000),
    share=st.sampled_from([0.05, 0.3, 1.0]),
    stop=st.sampled_from([0.001, 0.005, 0.02]),
    gaps=st.booleans(),
    plan=st.sampled_from(PLANS),
)
def test_random_markets(
    seed: int, share: float, stop: float, gaps: bool, plan: ExitPlan, tmp_path_factory: pytest.TempPathFactory
):
    chance = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(chance.normal(0, 0.004, 120)))
    opened = np.append(100, close[:-1]) * (np.exp(chance.normal(0, 0.004, 120)) if gaps else 1)
    spread = np.exp(np.abs(chance.normal(0, 0.003, (2, 120))))
    high, low = np.maximum(opened, close) * spread[0], np.minimum(opened, close) / spread[1]
    times = pd.date_range("2024-01-02", periods=120, freq="1h", tz="UTC", name="time")
    bars = pd.DataFrame({"open": opened, "high": high, "low": low, "close": close, "volume": 1e9}, index=times).round(2)
    folder = tmp_path_factory.mktemp("random")
    check_equal(*trade_both(bars, random_signals(bars, seed, share, stop), BTCUSDT_1H, CRYPTO, folder, plan), ROUNDED)
