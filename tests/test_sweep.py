"""Sweeps: every combination trade for trade against vectorbt and a plain loop, and chunks that survive anything."""

import signal
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiquant.backtest import simulate as simulate_module
from orbiquant.backtest import sweep_job
from orbiquant.backtest.overfitting import deflate
from orbiquant.backtest.simulate import simulate
from orbiquant.backtest.sweep import SweepResult, sweep_grid
from orbiquant.backtest.sweep_job import chunk_file
from orbiquant.backtest.sweep_plan import SweepGrid, filter_mask, parse_steps
from orbiquant.core import DataError, ModelError, OptionError
from orbiquant.domain import Bars, Costs, Signals
from orbiquant.performance import Moments, r_figures, r_moments
from tests.tools.oracle import Terms, replay
from tests.tools.programs import run_program
from tests.tools.shared_bars import shared_bars

FREE, COSTS = Costs(), Costs(fee_bps=2.0, slippage_bps=1.0, spread_bps=1.0)
EXACT = 1e-12
GRID = SweepGrid(
    stop_atr=(1.0, 2.0, 3.5),
    risk_reward=(0.5, 1.0, 2.0),
    min_confidence=(0.0, 0.7),
    max_holding_bars=(None, 1, 6),
    filters=("all", "short", "long&killzone=asia"),
)


def market(seed: int, rows: int, gap: float = 0.3, tick: float = 1.0) -> Bars:
    """Return a random walk on a price grid, so that levels are often touched exactly, with gaps between bars."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(-3, 4, (rows, 4))
    opened = 100 + np.cumsum(steps[:, 0] + (rng.random(rows) < gap) * rng.integers(-6, 7, rows))
    opened = np.maximum(opened, 20)
    closed = opened + steps[:, 1]
    high, low = np.maximum(opened, closed) + abs(steps[:, 2]), np.minimum(opened, closed) - abs(steps[:, 3])
    index = pd.date_range("2024-01-01", periods=rows, freq="4h", tz="UTC", name="time")
    prices = {"open": opened, "high": high, "low": low, "close": closed}
    return pd.DataFrame(prices, index=index).astype(float).mul(tick).assign(volume=1.0)


def guesses(seed: int, bars: Bars, share: float = 0.4, tick: float = 1.0) -> Signals:
    """Return random sides with a distance in whole ticks, and labels."""
    rng = np.random.default_rng(seed)
    rows = len(bars)
    return pd.DataFrame(
        {
            "side": rng.choice([1, -1, 0], rows, p=[share / 2, share / 2, 1 - share]),
            "confidence": rng.uniform(0.5, 0.9, rows),
            "distance": tick * rng.integers(1, 4, rows),
            "killzone": rng.choice(["none", "asia"], rows),
        },
        bars.index,
    )


def assert_same_trades(found: SweepResult, combination: int) -> set[str]:
    """Hold one combination against vectorbt and the plain loop, trade by trade; return the reasons seen."""
    own, levels, terms = found.trades(combination), found.signals_of(combination), found.terms(combination)
    limit = terms["max_holding_bars"]
    known = Terms(found.costs.fee, found.costs.slippage, limit)
    slow = pd.DataFrame(replay(found.bars, levels.drop(columns=["side"]), known).trades)
    fast = simulate(found.bars, levels, found.costs, max_holding_bars=limit).trades
    assert len(own) == len(slow) == len(fast) == found.table.loc[combination, "trades"]
    if len(own):
        assert list(own["entry_time"]) == list(found.bars.index[slow["bar"]])
        assert list(own["exit_time"]) == list(found.bars.index[slow["exit_bar"]])
        assert list(own["exit_reason"]) == list(slow["exit_reason"])
        np.testing.assert_allclose(own["r_gross"], slow["r_gross"], EXACT, EXACT)
        for column in ("entry", "exit", "stop_loss", "take_profit", "r"):
            np.testing.assert_allclose(own[column], slow[column], EXACT, EXACT, err_msg=column)
    shared = [column for column in own if column in fast]
    pd.testing.assert_frame_equal(own[shared], fast[shared], rtol=EXACT, atol=EXACT, check_dtype=False)
    return set(own["exit_reason"])


@pytest.mark.parametrize(
    "costs", [pytest.param(FREE, id="free", marks=pytest.mark.slow), pytest.param(COSTS, id="costs")]
)
def test_every_combination_makes_the_trades_of_vectorbt_and_of_a_plain_loop(costs):
    reasons = set()
    for seed in range(2):
        bars = market(seed, 260)
        found = sweep_grid(bars, guesses(seed, bars, 0.1 + 0.5 * seed), GRID, costs)
        for combination in range(seed, len(GRID), 13):
            reasons |= assert_same_trades(found, combination)
    assert reasons == {"stop", "target", "time", "end"}


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 70),
    share=st.floats(0, 1),
    gap=st.floats(0, 1),
    tick=st.sampled_from([1.0, 0.25, 64.0, 0.1, 0.01]),
    stop=st.sampled_from([0.5, 1.0, 1.5, 4.0]),
    reward=st.sampled_from([0.5, 1.0, 3.0]),
    limit=st.none() | st.integers(1, 80),
    costs=st.sampled_from([FREE, COSTS]),
)
def test_any_combination_makes_the_trades_of_vectorbt_and_of_a_plain_loop(
    seed, rows, share, gap, tick, stop, reward, limit, costs
):
    bars = market(seed, rows, gap, tick)
    grid = SweepGrid(stop_atr=(stop,), risk_reward=(reward,), min_confidence=(0.6,), max_holding_bars=(limit,))
    assert_same_trades(sweep_grid(bars, guesses(seed, bars, share, tick), grid, costs), 0)


def test_levels_that_lie_on_the_price_grid_by_a_rounding_are_touched_as_in_vectorbt():
    bars, grid = market(5, 4000, tick=0.1), SweepGrid(stop_atr=(0.7, 1.1, 3.0), risk_reward=(1.0, 1.3, 3.0))
    found = sweep_grid(bars, guesses(5, bars, tick=0.1), grid, COSTS)
    for combination in found.table.index:
        assert len(found.confirm(combination).trades) > 300


def test_an_open_on_the_stop_up_to_rounding_is_no_trade():
    bars = market(5, 3, gap=0.0)
    bars[:] = [[1.001] * 4 + [1], [0.999, 1.01, 0.99, 1.0, 1], [1.0, 1.01, 0.99, 1.0, 1]]
    assert 1.001 - 0.002 < 0.999
    signal = pd.DataFrame({"side": [1], "distance": [0.002]}, bars.index[:1])
    found = sweep_grid(bars, signal, SweepGrid(stop_atr=(1.0, 9.0), risk_reward=(1.0,)), COSTS)
    assert list(found.table["trades"]) == [0, 1]
    for combination in found.table.index:
        assert_same_trades(found, combination)


def test_decimal_ticks_make_the_trades_of_vectorbt_and_of_a_plain_loop():
    grid = SweepGrid(stop_atr=(0.7, 1.0, 2.0), risk_reward=(0.5, 1.0))
    for seed, tick in enumerate((0.1, 0.01, 1e-5)):
        bars = market(seed, 300, tick=tick)
        for costs in (FREE, COSTS):
            found = sweep_grid(bars, guesses(seed, bars, tick=tick), grid, costs)
            for combination in found.table.index:
                assert_same_trades(found, combination)


def test_figures_are_those_of_the_trades():
    bars = market(3, 900)
    found = sweep_grid(bars, guesses(3, bars), GRID, COSTS, period="week")
    for combination, row in found.table.iloc[::5].iterrows():
        trades = found.trades(combination)
        want = r_figures(trades["r"]) | r_moments(trades["r"])
        want |= {"cost_r": trades["cost_r"].mean(), "average_bars": trades["bars"].mean()}
        for name in row.index.intersection(list(want)):
            assert row[name] == pytest.approx(want[name], rel=1e-9, abs=1e-9, nan_ok=True), name
        weekly = trades["r"].groupby(trades["exit_time"].dt.tz_localize(None).dt.to_period("W-SUN").dt.start_time).sum()
        kept = found.returns[combination].tz_localize(None)
        assert kept[kept.index.difference(weekly.index)].eq(0).all()
        np.testing.assert_allclose(kept[weekly.index], weekly, atol=1e-9)


@pytest.mark.parametrize(("period", "count"), [("day", 92), ("week", 14), ("month", 4)])
def test_periods_begin_where_the_calendar_says(period, count):
    bars = market(1, 92 * 6).set_axis(pd.date_range("2024-01-01", periods=92 * 6, freq="4h", tz="UTC"), axis=0)
    begins = sweep_grid(
        bars, guesses(1, bars), SweepGrid(stop_atr=(1.0,), risk_reward=(1.0,)), FREE, period=period
    ).returns.index
    assert len(begins) == count and begins[0] == bars.index[0] and begins.is_monotonic_increasing


def test_later_bars_never_change_a_closed_trade():
    bars = market(11, 500)
    signals, grid = (
        guesses(11, bars),
        SweepGrid(stop_atr=(1.0, 3.0), risk_reward=(1.0, 2.0), max_holding_bars=(None, 8)),
    )
    full = sweep_grid(bars, signals, grid, COSTS)
    for cut in (1, 70, 333, 499):
        part = sweep_grid(bars.iloc[:cut], signals.iloc[:cut], grid, COSTS)
        for combination in range(len(grid)):
            closed = part.trades(combination).query("exit_reason != 'end'")
            pd.testing.assert_frame_equal(closed, full.trades(combination).iloc[: len(closed)])


def test_absent_columns_are_filled_with_what_the_bar_knows():
    bars = market(4, 300)
    given = guesses(4, bars)[["side"]]
    found = sweep_grid(bars, given, SweepGrid(stop_atr=(1.5,), risk_reward=(2.0,)), FREE)
    assert (found.signals["entry_price"] == bars["close"].loc[found.signals.index]).all()
    assert found.signals["distance"].isna().sum() > 0  # the ATR warms up: such a signal is no order
    assert found.trades(0)["signal_time"].min() > bars.index[13] and len(found.confirm(0).trades) > 10


# --- chunks ---


BIG = SweepGrid(stop_atr=parse_steps("1:5:0.5"), risk_reward=parse_steps("0.5:3:0.5"), min_confidence=(0.0, 0.6, 0.7))


@pytest.fixture(scope="module")
def work() -> tuple[Bars, Signals, SweepResult]:
    bars = market(21, 800)
    return bars, guesses(21, bars), sweep_grid(bars, guesses(21, bars), BIG, COSTS)


def assert_same_result(one: SweepResult, other: SweepResult) -> None:
    pd.testing.assert_frame_equal(one.table, other.table, check_exact=True)
    pd.testing.assert_frame_equal(one.returns, other.returns, check_exact=True)


def played(monkeypatch) -> list[tuple[int, int]]:
    """Return a list to which every span that is really computed is added."""
    spans, play = [], sweep_job.play_span
    monkeypatch.setattr(sweep_job, "play_span", lambda job, span: (spans.append(span), play(job, span))[1])
    return spans


def test_threads_change_nothing(work):
    bars, signals, want = work
    for threads in (2, 5):
        assert_same_result(sweep_grid(bars, signals, BIG, COSTS, threads=threads), want)


def test_a_dask_cluster_changes_nothing(work, tmp_path):
    bars, signals, want = work
    assert_same_result(sweep_grid(bars, signals, BIG, COSTS, folder=tmp_path, threads=1, scheduler="local"), want)
    assert len(list(tmp_path.glob("*/*.chunk"))) == len(want.job.spans())


def test_a_chunk_that_fails_says_which_and_why(work, monkeypatch):
    bars, signals, _ = work
    play = sweep_job.play_span

    def break_one(job, span):
        return play(job, span) if span[0] < 8 else 1 / 0

    monkeypatch.setattr(sweep_job, "play_span", break_one)
    with pytest.raises(ModelError, match="pairs 8 to 12 of the sweep failed: ZeroDivisionError"):
        sweep_grid(bars, signals, BIG, COSTS)


def spoil_short(data: bytes) -> bytes:
    return data[:-8]


def spoil_bit(data: bytes) -> bytes:
    return data[:100] + bytes([data[100] ^ 1]) + data[101:]


@pytest.mark.parametrize("spoil", [spoil_short, spoil_bit, lambda data: b"", lambda data: data + data])
def test_a_damaged_chunk_is_computed_again(work, tmp_path, monkeypatch, spoil):
    bars, signals, want = work
    sweep_grid(bars, signals, BIG, COSTS, folder=tmp_path)
    broken = sorted(tmp_path.glob("*/*.chunk"))[3]
    broken.write_bytes(spoil(broken.read_bytes()))
    spans = played(monkeypatch)
    assert_same_result(sweep_grid(bars, signals, BIG, COSTS, folder=tmp_path), want)
    assert [chunk_file(broken.parent, span) for span in spans] == [broken]
    assert_same_result(sweep_grid(bars, signals, BIG, COSTS, folder=tmp_path), want)
    assert len(spans) == 1


def test_an_interrupt_keeps_what_is_done(work, tmp_path, monkeypatch):
    bars, signals, want = work

    def stop_early(done: int, total: int, text: str) -> None:
        if done >= total / 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep_grid(bars, signals, BIG, COSTS, folder=tmp_path, progress=stop_early)
    kept = {path.name for path in tmp_path.glob("*/*.chunk")}
    spans, steps = played(monkeypatch), []
    again = sweep_grid(bars, signals, BIG, COSTS, folder=tmp_path, progress=lambda *step: steps.append(step[0]))
    assert_same_result(again, want)
    assert 0 < len(kept) == len(want.job.spans()) - len(spans)
    assert steps == sorted(steps) and steps[-1] == len(BIG)
    assert not list(tmp_path.glob("*/.*"))


def test_another_question_shares_no_chunk(work, tmp_path):
    bars, signals, want = work
    moved = bars.assign(close=bars["close"].where(bars.index != bars.index[50], bars["open"]))
    others = [
        sweep_grid(moved, signals.assign(entry_price=bars["close"]), BIG, COSTS),
        sweep_grid(bars, signals.assign(confidence=signals["confidence"] + 0.01), BIG, COSTS),
        sweep_grid(bars, signals, BIG, FREE),
        sweep_grid(bars, signals, BIG, COSTS, period="month"),
        sweep_grid(bars, signals, BIG.model_copy(update={"min_confidence": (0.0, 0.6, 0.71)}), COSTS),
    ]
    assert len({want.job.key, *(other.job.key for other in others)}) == 6
    finer = bars.set_axis(bars.index.as_unit("ns"), axis=0)
    assert sweep_grid(finer, signals.set_axis(finer.index, axis=0), BIG, COSTS).job.key == want.job.key


KILLED = """
import sys
from pathlib import Path
from orbiquant.backtest.sweep import sweep_grid
from tests.test_sweep import BIG, COSTS, guesses, market
import time
bars = market(21, 800)
sweep_grid(bars, guesses(21, bars), BIG, COSTS, folder=Path(sys.argv[1]), progress=lambda *step: time.sleep(0.05))
"""


def test_a_killed_sweep_goes_on_where_it_was(work, tmp_path, monkeypatch):
    bars, signals, want = work
    with run_program([sys.executable, "-c", KILLED, str(tmp_path)], cwd=Path(__file__).parents[1]) as process:
        while process.poll() is None and len(list(tmp_path.glob("*/*.chunk"))) < 3:
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    kept = len(list(tmp_path.glob("*/*.chunk")))
    spans = played(monkeypatch)
    assert_same_result(sweep_grid(bars, signals, BIG, COSTS, folder=tmp_path), want)
    assert 3 <= kept < len(want.job.spans()) and len(spans) == len(want.job.spans()) - kept


# --- what the best is worth ---


def test_luck_does_not_survive_its_trials_and_skill_does():
    bars = market(8, 4000, gap=0.0)
    ahead = np.sign(bars["close"].shift(-5) - bars["close"]).fillna(0)
    rng = np.random.default_rng(8)
    coin = pd.Series(rng.choice([1, -1], len(bars)), bars.index)
    knows = coin.where(rng.random(len(bars)) > 0.45, ahead)
    grid = SweepGrid(stop_atr=parse_steps("1:4:0.5"), risk_reward=parse_steps("0.5:3:0.5"), filters=("all", "long"))
    found = {}
    for name, side in (("luck", coin), ("skill", knows)):
        result = sweep_grid(bars, side.to_frame("side").iloc[::6], grid, FREE)
        found[name] = result.headline()
        assert found[name].combination == result.table["t_statistic"].where(result.table["trades"] >= 30).idxmax()
        chosen = found[name].selection.variants  # those of the 84 that trade enough, and differ
        assert found[name].overfitting.trials == 84 > chosen > 40
    assert found["luck"].overfitting.deflated_sharpe < 0.95 < found["skill"].overfitting.deflated_sharpe
    assert found["skill"].selection.pbo < 0.1
    assert "does not survive" in found["luck"].sentence() and "it survives" in found["skill"].sentence()
    number = found["skill"].combination
    assert found["skill"].sentence().startswith(f"Combination {number}, the best of this sweep's 84 (84 trials on the")
    named = result.headline(3, judge=lambda moments: deflate(moments, 1084)).sentence()
    assert named.startswith("Combination 3, one of this sweep's 84 (1,084 trials on the series), made")
    more = result.headline(judge=lambda moments: deflate(moments, 1084)).overfitting
    assert more == deflate(Moments.of(result.trades(found["skill"].combination)["r"]), 1084)


def test_a_missing_entry_price_is_refused_as_simulate_does():
    bars = market(2, 60)
    signals = guesses(2, bars, 0.1).assign(entry_price=np.nan)
    with pytest.raises(DataError, match="`entry_price` must be above zero and finite, was not"):
        sweep_grid(bars, signals, SweepGrid(stop_atr=(1.0,), risk_reward=(1.0,)), FREE)


def test_too_few_trades_are_no_headline():
    bars = market(2, 60)
    found = sweep_grid(bars, guesses(2, bars, 0.1), SweepGrid(stop_atr=(1.0,), risk_reward=(1.0,)), FREE)
    with pytest.raises(ModelError, match="no combination has 30 trades"):
        found.headline()
    assert found.headline(0).overfitting.deflated_sharpe is None
    assert "not computable" in found.headline(0).sentence()


def test_confirm_refuses_trades_that_differ(work):
    _, _, want = work
    moved = want.job.__class__(**(vars(want.job) | {"pairs": want.job.pairs[::-1]}))
    with pytest.raises(ModelError, match="other trades in vectorbt"):
        SweepResult(**(vars(want) | {"job": moved})).confirm(0)


# --- odd input ---


def test_nothing_to_trade_is_a_typed_empty_result():
    bars = market(2, 60)
    some = sweep_grid(bars, guesses(2, bars), GRID, FREE)
    grid = GRID.model_copy(update={"filters": ("all", "short")})
    for few, signals in ((bars, guesses(2, bars).assign(side=0)), (bars.iloc[:0], guesses(2, bars).iloc[:0])):
        found = sweep_grid(few, signals, grid, FREE)
        assert (found.table["trades"] == 0).all() and found.table["expectancy_r"].isna().all()
        assert found.trades(0).empty and list(found.trades(0)) == list(some.trades(0))
        assert found.table.dtypes.equals(some.table.dtypes)


@pytest.mark.parametrize("text", ["1:2", "1:2:0", "2:1:0.5", "a,b", "", "1:inf:1", "0:1:nan"])
def test_wrong_steps_are_refused(text):
    with pytest.raises(DataError, match="FIRST:LAST:STEP"):
        parse_steps(text)


def test_a_list_has_an_end():
    assert len(parse_steps("1:2:0.001")) == 1001
    for text in ("1:5:0.000001", "0:1:1e-300"):
        with pytest.raises(DataError, match="at most 10,000"):
            parse_steps(text)


def test_steps_hold_both_ends():
    assert parse_steps("0.1:0.7:0.1") == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    assert parse_steps("1:1:5") == (1.0,) and parse_steps("1:2:0.7") == (1.0, 1.7)


@pytest.mark.parametrize(
    "given",
    [
        {"stop_atr": ()},
        {"risk_reward": (1.0, 1.0)},
        {"stop_atr": (0.0,)},
        {"min_confidence": (1.1,)},
        {"filters": ()},
        {"filters": ("all", "long&")},
    ],
)
def test_wrong_grids_are_refused(given):
    with pytest.raises(ValueError, match=next(iter(given))):
        SweepGrid(**({"stop_atr": (1.0,), "risk_reward": (1.0,)} | given))


@pytest.mark.parametrize(
    ("filters", "words"),
    [("phase=x", "`filter` must be one of"), ("killzone=asai", "did you mean 'asia'"), ("killzone=nan", "was 'nan'")],
)
def test_wrong_filters_are_refused(filters, words):
    bars = market(2, 60)
    with pytest.raises(OptionError, match=words):
        sweep_grid(bars, guesses(2, bars), SweepGrid(stop_atr=(1.0,), risk_reward=(1.0,), filters=(filters,)), FREE)


def test_a_filter_lets_no_missing_value_in():
    bars = market(2, 200)
    signals = guesses(2, bars).assign(hour=np.where(np.arange(200) % 3, bars.index.hour, np.nan))
    signals["killzone"] = signals["killzone"].where(signals["killzone"] == "asia", None)
    grid = SweepGrid(stop_atr=(1.0,), risk_reward=(1.0,), filters=("killzone=asia", "hour=8.0&killzone=asia"))
    found = sweep_grid(bars, signals, grid, FREE)
    asia = signals["killzone"].eq("asia")
    for combination, at in enumerate((asia, asia & (signals["hour"] == 8))):
        want = sweep_grid(bars, signals[at], SweepGrid(stop_atr=(1.0,), risk_reward=(1.0,)), FREE)
        assert list(found.trades(combination)["r"]) == list(want.trades(0)["r"]) and len(want.trades(0)) > 1


def test_stops_and_targets_of_the_signals_are_left_aside():
    bars, grid = market(2, 200), SweepGrid(stop_atr=(1.0,), risk_reward=(2.0,))
    signals = guesses(2, bars)
    want = sweep_grid(bars, signals, grid, COSTS).confirm(0).trades
    for levels in ({"stop_distance": 7.0, "target_distance": 9.0}, {"stop_loss": 1.0, "take_profit": np.nan}):
        pd.testing.assert_frame_equal(sweep_grid(bars, signals.assign(**levels), grid, COSTS).confirm(0).trades, want)


def test_filters_join():
    bars = market(2, 200)
    signals = guesses(2, bars).query("side != 0")
    both = filter_mask(signals, "long & killzone=asia")
    assert list(both) == list((signals["side"] == 1) & (signals["killzone"] == "asia")) and both.any()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda b, s: (b.mask(b["open"] > 0), s), "must hold numbers, was NaN"),
        (lambda b, s: (b.iloc[1:], s), "must stand on times of `bars`"),
        (lambda b, s: (b, s.drop(columns="side")), "must have `action` or `side`"),
        (lambda b, s: (b, s.assign(side=2)), "`side` must be one of"),
        (lambda b, s: (b, s.assign(distance="far")), "must hold numbers"),
        (lambda b, s: (b, s.assign(distance=-1.0)), "`distance` must be above zero and finite, was not in"),
        (lambda b, s: (b, s.assign(distance=np.inf)), "`distance` must be above zero and finite, was not in"),
        (lambda b, s: (b, s.assign(entry_price=0.0)), "`entry_price` must be above zero and finite, was not in"),
        (lambda b, s: (b, s.assign(confidence=65.0)), "`confidence` must be from 0 to 1, was not in"),
        (lambda b, s: (b, s.assign(confidence=np.nan)), "`confidence` must be from 0 to 1, was not in"),
        (lambda b, s: (b, s.iloc[::-1]), "must be sorted"),
    ],
)
def test_wrong_tables_are_refused(spoil, words):
    bars = market(2, 60)
    with pytest.raises(DataError, match=words):
        sweep_grid(*spoil(bars, guesses(2, bars)), GRID, FREE)


def test_rows_without_a_distance_trade_nothing():
    bars = market(2, 100)
    signals = guesses(2, bars)
    kept = np.arange(100) % 2 == 0
    grid = SweepGrid(stop_atr=(1.0,), risk_reward=(1.0,))
    found = sweep_grid(bars, signals.assign(distance=signals["distance"].where(kept)), grid, FREE)
    pd.testing.assert_frame_equal(found.trades(0), sweep_grid(bars, signals[kept], grid, FREE).trades(0))
    still = bars.assign(open=50.0, high=50.0, low=50.0, close=50.0)  # no range, so no distance to count in
    assert sweep_grid(still, signals.drop(columns="distance"), grid, FREE).trades(0).empty


def test_wrong_terms_are_refused():
    bars = market(2, 60)
    signals = guesses(2, bars)
    with pytest.raises(DataError, match="`threads` must be at least 1"):
        sweep_grid(bars, signals, GRID, FREE, threads=0)
    with pytest.raises(OptionError, match="`period` must be one of day, week, month, was 'year'"):
        sweep_grid(bars, signals, GRID, FREE, period="year")
    with pytest.raises(DataError, match="`combination` must be 0 to 161, was 162"):
        sweep_grid(bars, signals, GRID, FREE).trades(162)


def test_more_than_memory_is_refused_beforehand():
    bars = market(2, 6000)
    many = tuple(np.linspace(0.1, 5, 9000))
    with pytest.raises(DataError, match="a longer `period` than 'day'"):
        sweep_grid(
            bars, guesses(2, bars), SweepGrid(stop_atr=many, risk_reward=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)), FREE
        )


# --- the kernel's guess in `simulate` ---


@pytest.mark.parametrize("target", ["take_profit", "none"])
def test_showing_vectorbt_only_the_likely_orders_changes_nothing(monkeypatch, target):
    bars = market(9, 500)
    levels = sweep_grid(bars, guesses(9, bars, 0.9), SweepGrid(stop_atr=(2.0,), risk_reward=(2.0,)), COSTS).signals_of(
        0
    )
    levels = levels.assign(take_profit=np.nan) if target == "none" else levels
    want = simulate(bars, levels, COSTS, max_holding_bars=20)
    assert len(want.trades) < len(levels) / 3
    monkeypatch.setattr(simulate_module, "_CELLS", 400)
    shown, play = [], simulate_module.play_all
    monkeypatch.setattr(simulate_module, "play_all", lambda *given: (shown.append(len(given[1])), play(*given))[1])
    every = len(want.trades) + want.skipped["in position"]
    rounds = [None, lambda *_: np.arange(every), lambda *_: np.array([0]), lambda *_: np.array([1, every - 1])]
    for wrong in rounds:
        shown.clear()
        if wrong:
            monkeypatch.setattr(simulate_module, "guess_taken", wrong)
        found = simulate(bars, levels, COSTS, max_holding_bars=20)
        pd.testing.assert_frame_equal(found.trades, want.trades)
        pd.testing.assert_series_equal(found.equity, want.equity)
        assert found.skipped == want.skipped
        assert shown[0] == len(want.trades) if wrong is None else shown[-1] == every


def test_real_bars_make_the_trades_of_vectorbt_and_of_a_plain_loop():
    bars = shared_bars("BTCUSDT_5m").iloc[-6000:]
    rng = np.random.default_rng(1)
    signals = pd.DataFrame({"side": rng.choice([1, -1, 0], len(bars), p=[0.1, 0.1, 0.8])}, bars.index)
    found = sweep_grid(
        bars, signals, SweepGrid(stop_atr=(0.5, 2.0), risk_reward=(1.0, 3.0), max_holding_bars=(None, 48)), COSTS
    )
    for combination in found.table.index:
        trades = found.trades(combination)
        want = pd.DataFrame(
            replay(
                bars,
                found.signals_of(combination),
                Terms(COSTS.fee, COSTS.slippage, found.terms(combination)["max_holding_bars"]),
            ).trades
        )
        assert list(trades["exit_time"]) == list(bars.index[want["exit_bar"]])
        np.testing.assert_allclose(trades["r"], want["r"], rtol=1e-10, atol=1e-10)
        assert len(found.confirm(combination).trades) == len(trades) > 100
