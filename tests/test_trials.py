"""The ledger and its figures: the papers' numbers, purgedcv's results, one line a trial whoever runs it how often."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from purgedcv import deflated_sharpe_ratio_full, effective_n_trials, probability_of_backtest_overfitting
from purgedcv import minimum_backtest_length as years_needed
from test_cli import Ask, ask
from test_line import make_runtime, prepared, runtime, spec, stored
from test_persistence import at_once, postgres_url

from orbiquant.backtest.overfitting import (
    BLOCKS,
    SelectionRisk,
    daily_r,
    deflate,
    effective_trials,
    expected_best,
    minimum_backtest_length,
    probability_of_overfitting,
    selection_risk,
)
from orbiquant.backtest.sweep import sweep_grid
from orbiquant.backtest.sweep_plan import SweepGrid, parse_steps
from orbiquant.backtest.trials import Trial, TrialsLedger
from orbiquant.core import DataError, FixedClock
from orbiquant.domain import Costs, SeriesId
from orbiquant.market.synthetic import synthetic_market
from orbiquant.models.cards import StoredModel
from orbiquant.performance import LEAST_MOMENTS, Moments, probabilistic_sharpe
from orbiquant.persistence import engine, migrate
from orbiquant.policies import POLICIES
from orbiquant.research.spec import ResearchSpec
from orbiquant.research.sweeps import from_signals, run_sweep
from orbiquant.research.train import Prepared, compare_policies, trade_model
from orbiquant.research.verdict import judge, trials_note
from orbiquant.runtime import Runtime, current

EURUSD_15M = SeriesId.parse("EURUSD", "15m")
COPY_15M = SeriesId.parse("COPY", "15m")
COIN_1H = SeriesId.parse("COIN", "1h")
EURUSD_1H = SeriesId.parse("EURUSD", "1h")

__all__ = ["ask", "postgres_url", "prepared", "runtime", "spec", "stored"]
NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
ABOUT = {
    "kind": "sweep", "symbol": "EURUSD", "timeframe": "15m", "data_version": "3", "policy": "base", "seed": 7,
    "first": datetime(2024, 1, 1, tzinfo=UTC), "last": datetime(2024, 6, 1, tzinfo=UTC),
}  # fmt: skip


def trial(params: dict[str, float], r: pd.Series | None = None, **changes: object) -> Trial:
    """Return a trial on the same data."""
    return Trial.of(pd.Series([1.0, -1.0, 0.5]) if r is None else r, params=params, **(ABOUT | changes))


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TrialsLedger]:
    """Yield an empty ledger on each database."""
    url = f"sqlite:///{tmp_path}/x.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    made = engine(url)
    migrate(made)
    with made.begin() as connection:
        connection.exec_driver_sql("DELETE FROM trials")
    yield TrialsLedger(made, FixedClock(NOON))
    made.dispose()


# --- figures ---


def test_the_papers_worked_numbers():
    example = Moments(1250, 2.5 / np.sqrt(250), -3.0, 10.0)
    assert expected_best(100, 0.5 / 250) == pytest.approx(0.1132, abs=5e-5)
    assert probabilistic_sharpe(example, expected_best(100, 0.5 / 250)) == pytest.approx(0.9004, abs=5e-5)
    assert probabilistic_sharpe(example, expected_best(46, 0.5 / 250)) == pytest.approx(0.9505, abs=5e-5)
    assert minimum_backtest_length(45, 1.0) == pytest.approx(5.0, abs=0.01)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), trials=st.integers(1, 500), variance=st.floats(0, 0.05), tail=st.integers(3, 30))
def test_deflation_from_moments_equals_purgedcvs_from_returns(seed: int, trials: int, variance: float, tail: int):
    r = pd.Series(np.random.default_rng(seed).standard_t(tail, 80) + 0.1)
    moments, theirs = Moments.of(r), deflated_sharpe_ratio_full(r.to_numpy(), trials, variance)
    assert moments.sharpe == pytest.approx(theirs.observed_sr) and moments.kurtosis == pytest.approx(theirs.kurt)
    assert probabilistic_sharpe(moments, expected_best(trials, variance)) == pytest.approx(theirs.dsr, abs=1e-9)
    assert minimum_backtest_length(trials, 0.5) == pytest.approx(years_needed(trials, 0.5))


def test_a_headline_sinks_with_every_trial_and_one_trial_costs_nothing():
    moments = Moments.of(pd.Series(np.random.default_rng(1).normal(0.1, 1, 400)))
    figures = [deflate(moments, trials).deflated_sharpe for trials in (1, 2, 10, 100, 1000)]
    assert figures == sorted(figures, reverse=True) and figures[0] == probabilistic_sharpe(moments)
    assert deflate(moments, 1).minimum_trades == 0 and deflate(moments, 100).minimum_trades > 400


def test_trials_that_resemble_each_other_launder_no_luck():
    moments = Moments.of(pd.Series(np.random.default_rng(5).normal(0.15, 1, 400)))
    alike = [moments.sharpe] * 10
    nine, ten = deflate(moments, 10, alike[:9]), deflate(moments, 10, alike)
    assert ten.model_copy(update={"effective_trials": nine.effective_trials}) == nine
    assert deflate(moments, 1000, alike * 100).deflated_sharpe < 0.5 < 0.95 < probabilistic_sharpe(moments)


@pytest.mark.parametrize("scatter", [0.0, 0.01, 0.05, 0.2])
def test_a_backtest_is_long_enough_exactly_where_it_beats_the_best_of_luck(scatter: float):
    rng = np.random.default_rng(9)
    for mean in (0.02, 0.1, 0.3):
        left = deflate(Moments.of(pd.Series(rng.normal(mean, 1, 300))), 40, rng.normal(0, scatter, 40))
        assert (left.minimum_trades < 300) == (left.sharpe_per_trade > left.expected_best)
        assert (left.minimum_trades < 300) == (left.deflated_sharpe > 0.5)


@pytest.mark.parametrize("r", [[], [1.0], [0.5] * 200, list(np.random.default_rng(2).normal(size=LEAST_MOMENTS - 1))])
def test_what_cannot_be_computed_is_said(r: list[float]):
    left = deflate(Moments.of(pd.Series(r, dtype=float)), 5, [0.1, 0.2])
    assert left.deflated_sharpe is None and left.note.startswith("not computable") and left.trials == 5


def test_figures_refuse_what_makes_no_sense():
    with pytest.raises(DataError, match="`trials` must be"):
        expected_best(0, 0.1)
    with pytest.raises(DataError, match="`variance`"):
        expected_best(3, -1)
    noise = pd.DataFrame(np.random.default_rng(1).normal(size=(100, 4)))
    with pytest.raises(DataError, match="`blocks` must be"):
        probability_of_overfitting(noise, 7)
    for wrong in (noise[[0]], noise.iloc[:20], noise.where(noise > 0)):
        with pytest.raises(DataError, match="`returns` must hold"):
            probability_of_overfitting(wrong)


@pytest.mark.parametrize(("rows", "variants", "blocks"), [(97, 2, 4), (160, 7, 8), (333, 12, 10)])
def test_overfitting_equals_purgedcvs(rows: int, variants: int, blocks: int):
    rng = np.random.default_rng(rows)
    returns = pd.DataFrame(rng.normal(rng.normal(0, 0.1, variants), 1, (rows, variants))).assign(idle=0.0, still=3.0)
    own, theirs = (
        probability_of_overfitting(returns, blocks),
        probability_of_backtest_overfitting(returns.to_numpy().T, blocks),
    )
    logits = np.asarray(theirs.logits)
    below = np.mean(logits < 0) + np.mean(logits == 0) / 2  # theirs lets a choice at the median off
    assert (
        own.pbo == pytest.approx(below) and own.slope == pytest.approx(theirs.slope) and own.halves == theirs.n_combos
    )
    assert own.loss == pytest.approx(np.mean(theirs.is_oos_performance[:, 1] < 0))


@pytest.mark.parametrize("variants", range(2, 8))
def test_choosing_among_any_number_without_skill_is_worth_one_half(variants: int):
    rng = np.random.default_rng(3)
    found = [probability_of_overfitting(pd.DataFrame(rng.normal(size=(240, variants))), 6).pbo for _ in range(300)]
    assert abs(np.mean(found) - 0.5) < 3 * np.std(found) / np.sqrt(len(found))


@pytest.mark.parametrize("kind", ["noise", "walk", "sweep"])
def test_effective_trials_equal_purgedcvs(kind: str):
    rng = np.random.default_rng(8)
    for size in (1, 2, 3, 50, 801):
        noise = rng.normal(size=size)
        sharpes = {"noise": noise, "walk": noise.cumsum(), "sweep": np.sin(np.arange(size) / 7) + noise / 9}[kind]
        assert effective_trials(sharpes) == effective_n_trials(sharpes)
    assert effective_trials([]) == 1 and effective_trials([0.1] * 9) == effective_n_trials(np.full(9, 0.1)) == 1


def test_a_quarter_million_trials_are_weighed():
    assert effective_trials(np.random.default_rng(2).normal(size=250_000).cumsum()) < 100


def test_choosing_is_worth_nothing_without_skill_and_much_with_it():
    rng = np.random.default_rng(4)
    noise = [pd.DataFrame(rng.normal(size=(320, 10))) for _ in range(40)]
    assert np.mean([probability_of_overfitting(part, 8).pbo for part in noise]) == pytest.approx(0.5, abs=0.1)
    assert max(probability_of_overfitting(part.assign(skill=part[0] + 0.5), 8).pbo for part in noise) < 0.01


def test_trades_become_days_and_too_few_days_no_figure():
    times = pd.to_datetime(["2024-01-01 23:59", "2024-01-03 00:00", "2024-01-03 12:00"], utc=True)
    none = pd.DataFrame({"exit_time": times[:0], "r": pd.Series(dtype=float)})
    variants = {"a": pd.DataFrame({"exit_time": times, "r": [1.0, 2.0, -0.5]}), "b": none}
    matrix = daily_r(variants)
    assert matrix["a"].tolist() == [1.0, 0.0, 1.5] and matrix["b"].tolist() == [0, 0, 0]
    assert selection_risk(variants) is None and selection_risk({}) is None
    days = pd.date_range("2024-01-01", periods=2 * BLOCKS, tz="UTC")
    long = pd.DataFrame({"exit_time": days, "r": np.arange(2.0 * BLOCKS)})
    losing = long.assign(r=-long["r"])
    assert selection_risk({"a": long, "b": losing}).pbo == 0
    assert selection_risk({"a": long}) is None


def test_what_cannot_be_chosen_is_no_variant():
    rng = np.random.default_rng(6)
    days = pd.date_range("2024-01-01", periods=250, tz="UTC")
    losing = {name: pd.DataFrame({"exit_time": days, "r": rng.normal(-0.4, 1, 250)}) for name in "abcde"}
    idle = {f"idle {n}": losing["a"].iloc[:n] for n in (0, 1, LEAST_MOMENTS - 1)}
    twin = {"twin": losing["b"].copy()}
    assert selection_risk(losing | idle | twin) == selection_risk(losing)
    assert selection_risk({"a": losing["a"]} | idle) is None and selection_risk({"b": losing["b"]} | twin) is None


# --- ledger ---


def test_the_same_trial_is_one_line_and_another_result_another(ledger: TrialsLedger):
    first = trial({"stop": 1.5})
    assert ledger.record(first, first) == 1 and ledger.record(first) == 0
    assert ledger.record(trial({"stop": 1.5}, kind="report")) == 0
    assert ledger.record(trial({"stop": 1.5 + 1e-13}, pd.Series([1.0, -1.0, 0.5 + 1e-13]))) == 0
    others = [trial({"stop": 2.0}), trial({"stop": 1.5}, pd.Series([1.0])), trial({"stop": 1.5}, symbol="GBPUSD")]
    assert ledger.record(*others) == 3 and ledger.record() == 0
    assert (ledger.count(), ledger.count(EURUSD_15M), ledger.count(EURUSD_1H)) == (4, 3, 0)
    row = ledger.table(SeriesId.parse("GBPUSD", "15m")).iloc[0]
    assert row["params"] == {"stop": 1.5} and row["recorded_at"] == NOON and row["mean_r"] == pytest.approx(1 / 6)
    gold = SeriesId.parse("XAUUSD", "1h")
    assert ledger.table(gold).empty and ledger.best(gold) is None


def test_money_makes_no_other_trial(ledger: TrialsLedger):
    small, large = ({"risk_per_trade": share, "initial_equity": 1e4, "max_leverage": 30.0} for share in (0.01, 0.05))
    assert trial({"stop": 1.0} | small).key == trial({"stop": 1.0} | large).key == trial({"stop": 1.0}).key
    assert trial({"stop": 1.0} | small).key != trial({"stop": 2.0} | small).key
    assert ledger.record(trial({"stop": 1.0} | small)) == 1 and ledger.record(trial({"stop": 1.0} | large)) == 0


def test_the_best_trial_is_the_one_least_like_luck(ledger: TrialsLedger):
    rng = np.random.default_rng(1)
    many, few = pd.Series(rng.normal(size=5000)), pd.Series(rng.normal(size=31))
    many, few = ((r - r.mean()) / r.std() + mean for r, mean in ((many, 0.12), (few, 0.25)))
    ledger.record(trial({"a": 1}, many), trial({"a": 2}, few))
    best = ledger.best(EURUSD_15M)
    assert best.trades == 5000 and best.deflated_sharpe > 0.99


def test_a_sweep_keeps_its_order_and_deflates_its_best(ledger: TrialsLedger):
    rng = np.random.default_rng(2)
    swept = [trial({"stop": float(step)}, pd.Series(rng.normal(size=60))) for step in range(1100)]
    assert ledger.record(*swept) == 1100
    table = ledger.table(EURUSD_15M)
    assert [params["stop"] for params in table["params"]] == list(range(1100))
    left = ledger.best(EURUSD_15M)
    assert left.trials == 1100 and left.sharpe_per_trade == pytest.approx(table["sharpe"].max())
    best = table.loc[table["sharpe"].idxmax()]
    naive = probabilistic_sharpe(Moments(60, best["sharpe"], best["skew"], best["kurtosis"]))
    assert left.deflated_sharpe < 0.95 < naive


def test_ratios_of_unequal_samples_are_compared_at_the_headlines_size(ledger: TrialsLedger):
    rng = np.random.default_rng(8)
    made = [pd.Series(rng.normal(size=int(size))) for size in np.geomspace(30, 3000, 40)]
    ledger.record(*(trial({"stop": float(number)}, r) for number, r in enumerate(made)))
    headline = Moments.of(made[-1])
    t_values = [Moments.of(r).sharpe * np.sqrt(len(r)) for r in made]
    expected = expected_best(40, max(np.var(t_values, ddof=1), 1) / 3000)
    assert ledger.overfitting(headline, EURUSD_15M).expected_best == pytest.approx(expected)


def test_a_renamed_copy_of_a_file_does_not_start_again(ledger: TrialsLedger):
    ledger.record(*(trial({"stop": float(n)}, data_version="file 1f") for n in range(5)), trial({"stop": 9.0}))
    assert ledger.count(COPY_15M, "file 1f") == 5 and ledger.count(EURUSD_15M, "file 1f") == 6
    assert (
        ledger.count(COPY_15M, "3")
        == 0
        == ledger.count(COPY_15M)
        == ledger.count(SeriesId.parse("COPY", "1h"), "file 1f")
    )
    assert len(ledger.table(COPY_15M, "file 1f")) == 5
    moments = Moments.of(pd.Series(np.random.default_rng(1).normal(size=50)))
    assert ledger.overfitting(moments, COPY_15M, "file 1f").trials == 5
    assert ledger.overfitting(moments, COPY_15M).trials == 1


@pytest.mark.slow
def test_a_fine_sweep_around_a_lucky_winner_does_not_survive(tmp_path: Path):
    runtime = make_runtime(tmp_path)
    rng = np.random.default_rng(11)
    bars = synthetic_market(6000, "1h", seed=11).bars
    coin = pd.DataFrame({"side": rng.choice([1, -1], len(bars))}, bars.index).iloc[::6]
    what = from_signals(bars, coin, Costs(), COIN_1H)
    wide = run_sweep(runtime, what, SweepGrid(stop_atr=parse_steps("0.5:3:0.5"), risk_reward=parse_steps("0.5:3:0.5")))
    terms = {name: wide.headline.terms[name] for name in ("stop_atr", "risk_reward")}
    near = {name: tuple(round(value * (1 + step * 1e-4), 8) for step in range(8)) for name, value in terms.items()}
    fine = run_sweep(runtime, what, SweepGrid(**near)).headline
    assert fine.overfitting.trials == runtime.trials.count(COIN_1H) > 90
    assert fine.overfitting.deflated_sharpe < 0.95 and "does not survive" in fine.sentence()
    again = sweep_grid(bars, coin, SweepGrid(**near), Costs())
    assert again.headline().overfitting.deflated_sharpe < 0.95
    moments = Moments.of(again.trades(fine.combination)["r"])
    assert fine.overfitting == runtime.trials.overfitting(moments, COIN_1H)
    copy = run_sweep(runtime, replace(what, series=SeriesId.parse("RENAMED", "1h")), SweepGrid(**near)).headline
    assert copy.overfitting.trials > fine.overfitting.trials


def test_a_trial_without_trades_counts(ledger: TrialsLedger):
    assert ledger.record(trial({}, pd.Series(dtype=float))) == 1
    row = ledger.table().iloc[0]
    assert row["trades"] == 0 and np.isnan(row["sharpe"])
    assert ledger.overfitting(Moments.of(pd.Series(dtype=float)), EURUSD_15M).note.startswith("not computable")


RECORD = """
from datetime import UTC, datetime
from orbiquant.backtest.trials import Trial, TrialsLedger
from orbiquant.core import SystemClock
ledger = TrialsLedger(engine(sys.argv[1]), SystemClock())
day = datetime(2024, 1, 1, tzinfo=UTC)
made = [Trial(kind="sweep", symbol="EURUSD", timeframe="1h", data_version="1", first=day, last=day, policy="base",
              params={"stop": n}, trades=n) for n in range(700)]
print(sum(ledger.record(one) for one in made[:40]) + ledger.record(*made))
"""


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_two_processes_at_once_write_each_trial_once(backend: str, tmp_path: Path, request: pytest.FixtureRequest):
    url = f"sqlite:///{tmp_path}/x.db" if backend == "sqlite" else request.getfixturevalue("postgres_url")
    made = engine(url)
    migrate(made)
    with made.begin() as connection:
        connection.exec_driver_sql("DELETE FROM trials")
    assert sum(map(int, at_once(RECORD, url))) == 700
    assert TrialsLedger(made, FixedClock(NOON)).count() == 700
    made.dispose()


def test_a_process_killed_while_recording_leaves_whole_sweeps(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/x.db"
    code = RECORD.replace("print(", "import os, signal\nledger._row = lambda one, now: ("
                          "os.kill(os.getpid(), signal.SIGKILL) if one.params['stop'] == 600 else None, "
                          "TrialsLedger._row(ledger, one, now))[1]\nprint(")  # fmt: skip
    made = engine(url)
    migrate(made)
    words = "import sys\nfrom orbiquant.persistence import engine, migrate\n" + code
    assert subprocess.run([sys.executable, "-c", words, url], check=False).returncode == -9
    assert TrialsLedger(made, FixedClock(NOON)).count() == 40
    made.dispose()


# --- who counts ---


def test_training_backtests_and_comparisons_count_once_each(
    runtime: Runtime, prepared: Prepared, spec: ResearchSpec, stored: StoredModel
):
    ledger = runtime.trials
    assert {"trials", "deflated_sharpe"} <= set(stored.card.metrics)
    compared = compare_policies(prepared, stored.predictions, spec, ledger)
    assert ledger.count(EURUSD_1H) == len(compared) == 1 + len(POLICIES)
    for policy in ("primary", "base", "base"):
        _, _, traded = trade_model(runtime, EURUSD_1H, policy)
        assert traded.summary["trials"] == len(compared) == ledger.count()
        assert traded.summary["expectancy_r"] == compared[policy].summary["expectancy_r"]
    kinds = ledger.table().set_index("policy")["kind"]
    assert kinds["primary"] == "train" and kinds["base"] == "compare"
    note = trials_note(traded.summary, selection_risk({name: each.result.trades for name, each in compared.items()}))
    assert note.startswith("Trials: 5 on this series") and "Deflated Sharpe ratio:" in note
    some = SelectionRisk(pbo=0.25, slope=0.1, loss=0.5, variants=3, halves=12870)
    assert "among the 3 policies that differ with 30 trades or more overfits: 0.25." in trials_note(
        traded.summary, some
    )
    assert "among the policies overfits: not computable" in trials_note(traded.summary, None)


def test_a_positive_result_is_believed_only_beyond_its_trials():
    good = {"trades": 400.0, "expectancy_r": 0.2, "standard_error_r": 0.07, "total_r": 80.0, "trials": 50.0}
    believed, lucky = (judge(good | {"deflated_sharpe": value}) for value in (0.97, 0.6))
    assert believed.tone == "good" and "beyond its trials" in believed.headline
    assert lucky.tone == "warn" and "best of 50 trials by luck" in lucky.headline and "0.60" in lucky.detail
    assert judge(good | {"deflated_sharpe": float("nan")}).tone == "warn"


def test_the_command_shows_the_ledger_and_fails_when_the_best_may_be_luck(ask: Ask):
    assert ask("audit", "trials", "--json").json == {
        "symbol": None, "timeframe": None, "trials": 0, "best": None, "verdict": "no verdict", "ledger": [],
    }  # fmt: skip
    rng = np.random.default_rng(3)
    current().trials.record(*(trial({"stop": float(n)}, pd.Series(rng.normal(size=100))) for n in range(30)))
    done = ask("audit", "trials", "--symbol", "eur/usd", "--timeframe", "15m", "--json")
    assert done.code == 1 and done.json["verdict"] == "fail" and done.json["trials"] == len(done.json["ledger"]) == 30
    assert done.json["best"]["trials"] == 30 and 0 < done.json["best"]["deflated_sharpe"] < 0.95
    current().trials.record(trial({"stop": 0.0}, pd.Series(rng.normal(1, 1, size=200))))
    done = ask("audit", "trials", "--symbol", "EURUSD", "--timeframe", "15m")
    assert done.code == 0 and "(deflated Sharpe)" in done.out
    assert ask("audit", "trials", "--timeframe", "7m").code == 1
