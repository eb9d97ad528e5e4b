"""Skill and reliability: losses against independent formulas, intervals that cover, regimes that know no future."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapie.metrics.calibration import expected_calibration_error
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss, mean_pinball_loss, roc_auc_score

from orbiquant.features.phases import PROBABILITIES
from orbiquant.models.baselines import RANGE_TARGETS
from orbiquant.models.reliability import (
    RELIABILITY_COLUMNS,
    bin_of,
    calibration_error,
    largest_of,
    regime_labels,
    reliability_report,
    said_and_observed,
)
from orbiquant.models.skill import (
    area_interval,
    barrier_losses,
    crps,
    drawn_sums,
    qlike,
    range_losses,
    skill_table,
)

QUANTILES = (0.1, 0.5, 0.9)
MANY = tuple((np.arange(200) + 0.5) / 200)


def predicted_world(rows: int = 6_000, seed: int = 7) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return outcomes, true forecasts of them with a meta model's, and base rates."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2024-01-01", periods=rows, freq="1h", tz="UTC", name="time")
    scale = 0.01 * np.exp(rng.normal(scale=0.3, size=rows))
    p_long = rng.uniform(0.2, 0.5, rows)
    odds = pd.DataFrame({"p_long": p_long, "p_short": 0.6 - p_long}, index)
    truth = pd.DataFrame(rng.exponential(size=(rows, 2)) * scale[:, None], index, RANGE_TARGETS)
    for side in ("long", "short"):
        truth[side] = (rng.random(rows) < odds[f"p_{side}"]).astype(float)
    moves = {f"{t}_{q:g}": -np.log1p(-q) * scale for t in RANGE_TARGETS for q in QUANTILES}
    best = odds.max(axis=1)
    meta = {"p_meta": best, "meta_low": best - 0.25, "meta_high": best + 0.25}
    rates = pd.DataFrame({"p_long": 0.35, "p_short": 0.25}, index)
    return truth, odds.assign(**meta, **moves), rates


@pytest.fixture(scope="module")
def scene():
    return predicted_world()


# --- losses against other people's


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 5), st.floats(-2, 8))
def test_crps_of_many_levels_is_the_closed_form_of_the_normal(sigma, at):
    levels = stats.norm.ppf(MANY) * sigma
    z = at / sigma
    exact = sigma * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    assert crps(np.array([at]), levels[None, :], MANY)[0] == pytest.approx(exact, rel=0.01, abs=0.01 * sigma)


def test_crps_is_the_energy_form_of_an_ensemble():
    rng = np.random.default_rng(7)
    members = np.sort(rng.gamma(2, size=(50, 200)), axis=1)
    happened = rng.gamma(2, size=50)
    apart = np.abs(members[:, :, None] - members[:, None, :]).mean(axis=(1, 2))
    energy = np.abs(members - happened[:, None]).mean(axis=1) - apart / 2
    np.testing.assert_allclose(crps(happened, members, MANY), energy, atol=1e-12)


def test_crps_and_pinball_agree_with_scikit_learn():
    rng = np.random.default_rng(7)
    happened, levels = rng.exponential(size=300), np.sort(rng.exponential(size=(300, 3)), axis=1)
    each = [mean_pinball_loss(happened, levels[:, i], alpha=q) for i, q in enumerate(QUANTILES)]
    assert crps(happened, levels, QUANTILES).mean() == pytest.approx(2 * np.dot([0.3, 0.4, 0.3], each))


def test_qlike_is_pattons_and_ranks_by_the_true_variance_whatever_the_proxy():
    outcome, predicted = np.array([1.0, 4.0, 0.5]), np.array([2.0, 1.0, 0.5])
    gaussian = np.log(predicted) + outcome / predicted
    np.testing.assert_allclose(qlike(outcome, predicted), gaussian - (np.log(outcome) + 1))
    rng = np.random.default_rng(7)
    proxy = rng.normal(size=200_000) ** 2
    losses = {h: qlike(proxy, np.full(len(proxy), h)).mean() for h in (0.5, 0.8, 1.0, 1.25, 2.0)}
    assert min(losses, key=losses.get) == 1.0
    assert np.isfinite(qlike(np.zeros(2), np.array([0.0, 1.0]))).all()


def test_a_constant_market_has_finite_losses():
    index = pd.RangeIndex(100)
    still = pd.DataFrame(0.0, index, RANGE_TARGETS)
    forecast = pd.DataFrame(0.0, index, [f"{t}_{q:g}" for t in RANGE_TARGETS for q in QUANTILES])
    losses = range_losses(still, forecast, QUANTILES)
    assert {metric for _, metric in losses} == {"pinball_bps", "crps_bps", "r2", "qlike"}
    assert all((loss == 0).all() for loss in losses.values())


def test_probability_losses_agree_with_scikit_learn(scene):
    truth, said, _ = scene
    outcome = truth.assign(meta=np.where(said["p_short"] > said["p_long"], truth["short"], truth["long"]))
    losses = barrier_losses(outcome, said)
    for name in ("long", "short", "meta"):
        won, p = outcome[name], said[f"p_{name}"]
        assert losses[name, "brier"].mean() == pytest.approx(brier_score_loss(won, p))
        assert losses[name, "log_loss"].mean() == pytest.approx(log_loss(won, p))


# --- intervals


def test_the_interval_of_the_area_is_that_of_resampling_rows_of_blocks():
    rng = np.random.default_rng(7)
    score = np.repeat(rng.normal(size=100), 12)
    won = (rng.random(1_200) < 1 / (1 + np.exp(-score))).astype(float)
    low, high = area_interval(won, score, 12, 7)
    drawn = []
    for _ in range(400):
        rows = (rng.integers(100, size=100)[:, None] * 12 + np.arange(12)).ravel()
        drawn.append(roc_auc_score(won[rows], score[rows]))
    np.testing.assert_allclose([low, high], np.quantile(drawn, [0.05, 0.95]), atol=0.012)


def test_the_interval_of_the_area_covers_the_truth():
    covered = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        won = (rng.random(2_400) < 0.3).astype(float)
        score = rng.normal(size=2_400) + 0.5 * won
        low, high = area_interval(won, score, 24, seed)
        covered.append(low <= stats.norm.cdf(0.5 / np.sqrt(2)) <= high)
    assert abs(np.mean(covered) - 0.9) < 0.11


def test_too_few_blocks_or_one_class_have_no_interval():
    won, score = np.zeros(500), np.arange(500.0)
    assert np.isnan(area_interval(won, score, 10, 7)).all() and np.isnan(area_interval(won, score, 100, 7)).all()
    assert drawn_sums((np.ones(90), np.ones(90)), 10, 7)[0].shape == (0, 1)
    assert (drawn_sums((np.ones(100),), 10, 7)[0] == 100).all()
    by_group = drawn_sums((np.ones(100),), 10, 7, np.arange(100) % 3 - 1, 2)[0]
    assert by_group.shape == (500, 2) and 30 <= by_group.min() <= by_group.max() <= 40


# --- the table


def test_the_table_judges_the_meta_model_against_primary_and_base_rate(scene):
    truth, said, rates = scene
    ranges = said.drop(columns=["p_long", "p_short", "p_meta", "meta_low", "meta_high"])
    rivals = {"har": ranges * 1.5, "base_rate": rates}
    table = skill_table(truth, said, rivals, QUANTILES, 24).set_index(["target", "metric"])
    assert {"pinball_bps", "crps_bps", "r2"} == set(table.loc["up"].index)
    assert table.loc[("variance", "qlike"), "skill"] > 0 and table.loc[("up", "crps_bps"), "skill"] > 0
    meta = table.loc["meta"]
    assert meta.loc["log_loss", "baseline_name"] == "primary" and meta.loc["log_loss", "skill"] == 0
    assert meta.loc["auc", "low"] < meta.loc["auc", "skill"] < meta.loc["auc", "high"]
    better = said.assign(p_long=0.5, p_short=0.4, p_meta=said["p_long"])
    against = skill_table(truth, better, rivals, QUANTILES, 24).set_index(["target", "metric"]).loc["meta"]
    assert against.loc["log_loss", "baseline_name"] == "base_rate" and against.loc["log_loss", "low"] > 0
    pd.testing.assert_frame_equal(
        table, skill_table(truth, said, rivals, QUANTILES, 24).set_index(["target", "metric"])
    )


# --- reliability


def test_bins_and_error_agree_with_scikit_learn_and_mapie(scene):
    truth, said, _ = scene
    won, p = truth["long"].to_numpy(), said["p_long"].to_numpy()
    number, names = bin_of(p)
    table = said_and_observed(p, won, number, names, 120)
    observed, predicted = calibration_curve(won, p, n_bins=10, strategy="quantile")
    np.testing.assert_allclose(table["observed"], observed, atol=0.003)
    np.testing.assert_allclose(table["predicted"], predicted, atol=1e-3)
    theirs = expected_calibration_error(won, p, num_bins=11, split_strategy="quantile")  # it counts edges
    assert calibration_error(table) == pytest.approx(theirs, abs=1e-3)
    assert table["rows"].sum() == len(p) and len(names) == 10


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([0.1, 0.2, 0.2000001, 0.35, 0.9]), min_size=1, max_size=60), st.integers(1, 12))
def test_every_probability_has_a_bin_that_holds_it(values, bins):
    p = np.array(values)
    number, names = bin_of(p, bins)
    assert len(number) == len(p) and set(number) <= set(range(len(names))) and len(set(names)) <= bins
    for value in set(values):
        assert len(set(number[p == value])) == 1
    assert (np.diff(number[np.argsort(p, kind="stable")]) >= 0).all()


def test_an_observed_share_covers_the_true_one_and_shared_labels_widen_it():
    covered, widths = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        won = np.repeat((rng.random(150) < 0.4).astype(float), 24)
        rows = np.zeros(len(won), dtype=int)
        table = said_and_observed(np.full(len(won), 0.4), won, rows, ["all"], 120, seed)
        covered.append(table["true"].iloc[0])
        if seed < 5:
            alone = said_and_observed(np.full(len(won), 0.4), won, rows, ["all"], 1, seed)
            widths.append(((table["high"] - table["low"]) / (alone["high"] - alone["low"])).iloc[0])
    assert abs(np.mean(covered) - 0.88) < 0.1 and np.median(widths) > 3


def test_nothing_but_wins_is_not_taken_for_certainty():
    table = said_and_observed(np.full(2_400, 0.97), np.ones(2_400), np.zeros(2_400, dtype=int), ["all"], 120)
    assert table["high"].iloc[0] == 1 and 0.8 < table["low"].iloc[0] < 0.9 and table["true"].iloc[0]
    empty = said_and_observed(np.empty(0), np.empty(0), np.empty(0, dtype=int), ["all"], 120)
    assert empty.empty and np.isnan(calibration_error(empty))


def matrix(rows: int = 7_000, seed: int = 7) -> pd.DataFrame:
    """Return the columns of a feature matrix that name regimes."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2024-01-01", periods=rows, freq="15min", tz="UTC", name="time")
    zone = rng.integers(3, size=rows)
    amd = rng.dirichlet(np.ones(len(PROBABILITIES)), rows)
    columns = {"atr": np.exp(np.cumsum(rng.normal(scale=0.05, size=rows)) % 3)}
    columns |= {f"killzone_{name}": (zone == i).astype(float) for i, name in enumerate(("asia", "london_open"))}
    return pd.DataFrame(columns | {f"amd_{name}": amd[:, i] for i, name in enumerate(PROBABILITIES)}, index)


def test_regimes_are_known_at_the_bar_and_missing_where_unknown():
    features = matrix()
    features.iloc[100, 2] = np.nan
    whole = regime_labels(features)
    for cut in (200, 3_000, 6_500):
        pd.testing.assert_frame_equal(regime_labels(features[:cut]), whole[:cut])
    assert whole["volatility"][:499].isna().all() and whole["volatility"][500:].notna().all()
    assert whole["volatility"].value_counts(normalize=True).min() > 0.15
    assert set(whole["killzone"].dropna()) == {"asia", "london_open", "none"} and pd.isna(whole["killzone"].iloc[100])
    assert (
        whole["phase"] == features[[f"amd_{n}" for n in PROBABILITIES]].idxmax(axis=1).str.removeprefix("amd_p_")
    ).all()
    assert list(regime_labels(features[["atr"]])) == ["volatility"] and regime_labels(features[[]]).shape == (7_000, 0)
    assert largest_of(features[:2], ["atr"], ["a"]).tolist() == ["a", "a"]


def test_a_true_forecast_is_reliable_and_a_narrow_one_is_caught_in_every_regime():
    truth, said, _ = predicted_world(7_000)
    regimes = regime_labels(matrix().set_axis(said.index))
    report = reliability_report(truth, said, QUANTILES, 2, regimes)
    assert list(report) == RELIABILITY_COLUMNS and report["true"].mean() > 0.8
    assert set(report["regime"]) == {"all", "volatility", "killzone", "phase"}
    assert set(report["kind"]) == {"probability", "interval", "quantile", "runs"}
    assert np.allclose(report.query("kind == 'interval'")["predicted"], 0.8)
    inside = truth["up"].between(said["up_0.1"], said["up_0.9"]).mean()
    found = report.query("kind == 'interval' and target == 'up' and regime == 'all'")
    assert found["observed"].iloc[0] == pytest.approx(inside)
    narrow = said.assign(**{f"{t}_0.9": said[f"{t}_0.5"] for t in RANGE_TARGETS}, p_meta=said["p_meta"] + 0.15)
    caught = reliability_report(truth, narrow, QUANTILES, 2, regimes).query("regime != 'all'")
    assert not caught.query("kind == 'interval'")["true"].any()
    assert caught.query("target == 'meta'")["true"].mean() < 0.1


def test_the_report_leaves_out_what_is_unknown_and_needs_no_rows():
    truth, said, _ = predicted_world(3_000)
    truth.iloc[-24:] = np.nan
    said.iloc[:100] = np.nan
    report = reliability_report(truth, said, QUANTILES, 5)
    alone = reliability_report(truth[100:-24], said[100:-24], QUANTILES, 5)
    pd.testing.assert_frame_equal(report, alone)
    assert reliability_report(truth[:0], said[:0], QUANTILES, 5).empty
    plain = reliability_report(truth, said.drop(columns=["p_meta", "meta_low", "meta_high"]), QUANTILES, 5)
    assert "meta" not in set(plain["target"])
