"""Calibration curves and the meta model: true probabilities, intervals that cover, no row that answers for itself."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from venn_abers import VennAbers

from orbiquant.core import ModelError
from orbiquant.models.boosting import Boosting
from orbiquant.models.calibration import Calibration, calibrate, fit_venn_abers, log_odds, sigmoid
from orbiquant.models.labels import barrier_distance
from orbiquant.models.meta import (
    CORRECTED,
    RUN_TRADES,
    MetaModel,
    adapt_intervals,
    adaptive_reach,
    conformal_quantile,
    crossed,
    fit_meta,
    inner_predictions,
    run_coverage,
)
from orbiquant.models.primary import primary_view, side_outcome
from orbiquant.models.skill import log_loss
from orbiquant.models.splits import WalkForward
from orbiquant.models.tpsl import TPSLClassifier
from orbiquant.signals import primary_signals
from tests.benchmarks.study_meta import real_labels
from tests.tools.shared_bars import shared_bars

QUICK = Boosting(rounds=60, leaf_rows=60, max_depth=3, learning_rate=0.1)


# --- Venn–Abers


@st.composite
def scored(draw):
    """Return scores with ties, outcomes, and scores to ask about: on the knots, between them, beyond them."""
    rows = draw(st.lists(st.tuples(st.integers(-6, 6), st.booleans()), min_size=1, max_size=40))
    score, won = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    return score, won, np.arange(-7.5, 8, 0.5)


@settings(max_examples=25, deadline=None)
@given(scored(), st.sampled_from([1.0, 3.0, 24.0]))
def test_venn_abers_is_isotonic_regression_asked_twice(case, weight):
    score, won, asked = case
    pair = fit_venn_abers(score, won, weight).interval(asked)
    weights = np.append(np.ones(len(won)), weight)
    for label, found in enumerate(pair):
        for s, value in zip(asked, found, strict=True):
            fit = IsotonicRegression().fit(np.append(score, s), np.append(won, label), sample_weight=weights)
            assert value == pytest.approx(fit.predict([s])[0], abs=1e-9)


@pytest.mark.parametrize(("rows", "ties"), [(20, False), (300, False), (300, True), (3_000, True)])
def test_venn_abers_without_weights_equals_the_library_and_keeps_it_through_json(rows, ties):
    rng = np.random.default_rng(rows)
    score = rng.normal(size=rows).round(1 if ties else 9)
    won = (rng.random(rows) < sigmoid(score)).astype(float)
    asked = np.concatenate([score, rng.normal(size=500), [-99.0, 99.0]])
    library = VennAbers()
    library.fit(np.column_stack([-score, score]), won)
    merged, pair = library.predict_proba(np.column_stack([-asked, asked]))
    curve = fit_venn_abers(score, won)
    again = Calibration.model_validate_json(curve.model_dump_json())
    assert again == curve
    for each in (curve, again):
        np.testing.assert_allclose(np.column_stack(each.interval(asked)), pair, atol=1e-12)
        np.testing.assert_allclose(each(asked), merged[:, 1], atol=1e-12)


def test_overlapping_rows_are_not_taken_for_independent_ones():
    rng = np.random.default_rng(7)
    score = rng.normal(size=200)
    won = (rng.random(200) < sigmoid(score)).astype(float)
    single = fit_venn_abers(score, won, 1.0)
    repeated = fit_venn_abers(np.repeat(score, 24), np.repeat(won, 24), 24.0)
    np.testing.assert_allclose(repeated.interval(score), single.interval(score))


@pytest.mark.parametrize("kind", ["sigmoid", "isotonic", "venn_abers"])
def test_half_a_correction_lies_halfway_and_costs_at_most_half(kind):
    rng = np.random.default_rng(7)
    score = rng.normal(size=6_000)
    won = (rng.random(6_000) < sigmoid(score)).astype(float)
    whole = calibrate(score[:300], 1 - won[:300], 0.0, 1, kind)
    half = calibrate(score[:300], 1 - won[:300], 0.0, 1, kind, share=0.5)
    np.testing.assert_allclose(half(score), (sigmoid(score) + whole(score)) / 2)
    low, high = half.interval(score)
    assert (low <= half(score) + 1e-12).all() and (half(score) <= high + 1e-12).all()
    told, wrong, between = (log_loss(p, won).mean() for p in (sigmoid(score), whole(score), half(score)))
    assert told < between < (told + wrong) / 2


def test_the_primary_alone_is_corrected_by_half_and_trees_in_full():
    rng = np.random.default_rng(7)
    X = pd.DataFrame({"told": rng.normal(size=8_000), "noise": rng.normal(size=8_000)})
    said = np.full(8_000, 0.5)
    primary = pd.DataFrame({"side": 1, "probability": said, "margin": 0.1})
    for strength, share in ((0.0, CORRECTED), (1.5, 1.0)):
        won = pd.Series((rng.random(8_000) < sigmoid(strength * X["told"].to_numpy())).astype(float))
        meta = MetaModel(1, QUICK).fit(X, primary, won)
        assert (meta.booster_ is None) == (strength == 0) and meta.calibration_.share == share


@pytest.mark.parametrize("kind", ["auto", "sigmoid", "isotonic", "venn_abers"])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_labels_all_alike_are_never_certain_inside_what_was_seen(kind, label):
    score = np.linspace(-1, 1, 50)
    p = calibrate(score, np.full(50, label), 0.0, 1, kind)(score)
    assert ((p > 0) & (p < 1)).all() and (np.diff(p) >= 0).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "venn_abers", "scores": (0.0,), "lower": (0.0,), "upper": (1.0,)},
        {"kind": "venn_abers"},
        {"kind": "isotonic"},
    ],
)
def test_a_curve_with_missing_parts_is_refused(wrong):
    with pytest.raises(ValueError, match="needs"):
        Calibration(**wrong)


@pytest.mark.parametrize("kind", ["sigmoid", "isotonic", "venn_abers"])
def test_the_classifier_takes_each_curve_and_keeps_it(kind):
    X, Y = labelled(3_000, seed=3)
    model = TPSLClassifier(1, QUICK, kind).fit(X, Y)
    assert {curve.kind for curve in model.calibrations_.values()} == {kind}
    again = TPSLClassifier.from_json(model.to_json())
    assert again.calibration == kind
    pd.testing.assert_frame_equal(again.predict(X), model.predict(X), check_exact=True)


# --- the primary's view


def labelled(rows: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return features and labels: `tilt` decides both sides, but only where `calm`."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2024-01-01", periods=rows, freq="15min", tz="UTC", name="time")
    tilt, calm = rng.normal(size=rows), rng.random(rows) < 0.5
    X = pd.DataFrame({"tilt": tilt, "calm": calm + rng.normal(scale=0.4, size=rows), "flat": 1.0}, index)
    X["noise"] = np.where(rng.random(rows) < 0.2, np.nan, rng.normal(size=rows))
    won = {
        name: rng.random(rows) < sigmoid(-0.8 + sign * 1.6 * calm * tilt) for name, sign in (("long", 1), ("short", -1))
    }
    return X, pd.DataFrame(won, index).astype(float)


def test_the_view_chooses_the_side_that_signals_choose():
    rng = np.random.default_rng(7)
    index = pd.date_range("2024-01-01", periods=300, freq="1h", tz="UTC", name="time")
    both = pd.DataFrame(rng.uniform(0.2, 0.6, (300, 2)).round(1), index, ["p_long", "p_short"])
    both.iloc[::7, 0] = both.iloc[3::11, 1] = np.nan
    close = pd.Series(np.exp(np.cumsum(rng.normal(scale=1e-3, size=300))), index)
    bars = pd.DataFrame({"open": close, "high": close * 1.001, "low": close * 0.999, "close": close, "volume": 1.0})
    traded = primary_signals(bars["close"], barrier_distance(bars, 1.5), both, risk_reward=2.0)
    view = primary_view(both)
    assert (view["side"] == traded.side).all()
    np.testing.assert_array_equal(view["probability"], traded.probability)
    assert view["margin"].min() == 0 and view[both.isna().any(axis=1)][["probability", "margin"]].isna().all(axis=None)


def test_signals_use_the_meta_models_probability_where_there_is_one():
    index = pd.date_range("2024-01-01", periods=40, freq="1h", tz="UTC", name="time")
    bars = pd.DataFrame({"open": 1.0, "high": 1.01, "low": 0.99, "close": 1.0, "volume": 1.0}, index)
    said = pd.DataFrame({"p_long": 0.4, "p_short": 0.3, "p_meta": 0.55, "meta_low": 0.4, "meta_high": 0.7}, index)
    said.iloc[-1, 2:] = np.nan
    said.iloc[0] = np.nan
    traded = primary_signals(bars["close"], barrier_distance(bars, 1.5), said, risk_reward=2.0)
    assert (traded.probability[1:-1] == 0.55).all() and traded.probability[-1] == 0.4
    assert traded.side[0] == 0 and (traded.side[1:] == 1).all()
    assert np.isnan(traded.probability[0])


# --- nothing answers for itself


class Recorder:
    """A primary that remembers every row it was fitted on and asked about."""

    calls: list[tuple[pd.Index, pd.Index]]

    def __init__(self, calls):
        self.calls = calls

    def fit(self, X, Y):
        self.fitted = X.index
        assert Y.index.equals(X.index)
        return self

    def predict(self, X):
        self.calls.append((self.fitted, X.index))
        return pd.DataFrame({"p_long": 0.4, "p_short": 0.3}, X.index)


@settings(max_examples=30, deadline=None)
@given(st.integers(1_776, 4_000), st.integers(1, 48), st.integers(0, 48), st.integers(1, 5))
def test_inner_predictions_are_purged_embargoed_and_later_than_what_was_fitted(rows, horizon, embargo, splits):
    index = pd.RangeIndex(rows)
    X, calls = pd.DataFrame({"a": 0.0}, index), []
    found = inner_predictions(X, X, lambda: Recorder(calls), horizon, embargo, splits)
    assert len(calls) == splits and found.index.equals(index[-len(found) :])
    for fitted, asked in calls:
        assert fitted[0] == 0 and asked[0] - fitted[-1] == horizon + embargo + 1
    assert found.index.is_unique


def test_too_few_rows_for_the_inner_walk_are_an_error():
    X = pd.DataFrame({"a": np.zeros(500)})
    with pytest.raises(ModelError, match="need at least"):
        inner_predictions(X, X, lambda: Recorder([]), 24, 24, 4)


def test_labels_a_primary_was_not_fitted_on_change_nothing_it_says():
    X, Y = labelled(2_500, seed=1)
    first = inner_predictions(X, Y, lambda: TPSLClassifier(24, QUICK), 24, 24, 4)
    flipped = Y.copy()
    flipped.iloc[-500 - 48 :] = 1 - flipped.iloc[-500 - 48 :]
    second = inner_predictions(X, flipped, lambda: TPSLClassifier(24, QUICK), 24, 24, 4)
    pd.testing.assert_frame_equal(first, second, check_exact=True)


# --- the meta model


class Blind(TPSLClassifier):
    """A primary that sees the direction only: what is left to a meta model is when it counts."""

    def fit(self, X, Y):
        return super().fit(X[["tilt"]], Y)


@pytest.fixture(scope="module")
def scene():
    X, Y = labelled(14_000, seed=7)
    meta = fit_meta(X[:9_000], Y[:9_000], lambda: Blind(1, QUICK), MetaModel(1, QUICK))
    primary = primary_view(Blind(1, QUICK).fit(X[:9_000], Y[:9_000]).predict(X[9_000:]))
    return X, Y, meta, primary


def test_planted_probabilities_are_told_truly(scene):
    X, Y, meta, primary = scene
    won, p = side_outcome(Y[9_000:], primary), meta.predict(X[9_000:], primary)["p_meta"]
    bins = pd.qcut(p, 8)
    means = pd.DataFrame({"said": p, "won": won}).groupby(bins, observed=True).agg(["mean", "size"])
    noise = np.sqrt(means["said", "mean"] * (1 - means["said", "mean"]) / means["said", "size"])
    assert ((means["said", "mean"] - means["won", "mean"]).abs() < 4 * noise).all()
    assert not meta.fallback_ and p.std() > 0.03


def test_intervals_hold_the_stated_share_of_runs(scene):
    X, Y, meta, primary = scene
    runs = run_coverage(meta.predict(X[9_000:], primary), side_outcome(Y[9_000:], primary), 1)
    assert len(runs) == 500 and abs(runs["inside"].mean() - 0.9) < 0.04
    narrow = run_coverage(with_coverage(meta, 0.6).predict(X[9_000:], primary), side_outcome(Y[9_000:], primary), 1)
    assert abs(narrow["inside"].mean() - 0.6) < 0.07


def with_coverage(meta: MetaModel, coverage: float) -> MetaModel:
    """Return the same model asked for another coverage."""
    again = MetaModel.from_json(meta.to_json())
    again.coverage = coverage
    return again


def test_overlapping_labels_are_covered_as_well():
    """Runs of ten horizons, each label shared by 24 rows, over several markets."""
    inside = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        n = 36_000
        p = np.repeat(rng.uniform(0.2, 0.6, n // 24), 24)
        won = pd.Series((np.repeat(rng.random(n // 24), 24) < p).astype(float))
        primary = pd.DataFrame({"side": 1, "probability": p, "margin": 0.1})
        X = pd.DataFrame({"a": rng.normal(size=n)})
        meta = MetaModel(24, QUICK).fit(X[:24_000], primary[:24_000], won[:24_000])
        inside.append(run_coverage(meta.predict(X[24_000:], primary[24_000:]), won[24_000:], 24)["inside"])
    assert abs(pd.concat(inside).mean() - 0.9) < 0.06


def test_the_adaptive_interval_keeps_covering_when_the_market_drifts():
    rng = np.random.default_rng(7)
    misses = np.abs(rng.normal(size=6_000)) * np.linspace(1, 2, 6_000)
    earlier = np.abs(rng.normal(size=250))
    fixed, moving = conformal_quantile(earlier, 0.9), adaptive_reach(misses, earlier, 0.9)
    assert (misses <= fixed).mean() < 0.8
    assert abs((misses <= moving).mean() - 0.9) < 0.01
    assert np.isfinite(moving).mean() > 0.95


def test_an_adaptive_reach_knows_only_runs_that_are_complete():
    rng = np.random.default_rng(7)
    misses, earlier = np.abs(rng.normal(size=50)), np.abs(rng.normal(size=100))
    whole = adaptive_reach(misses, earlier, 0.9)
    for cut in (3, 20, 49):
        changed = misses.copy()
        changed[cut - 1 :] = 1e9
        assert (adaptive_reach(changed, earlier, 0.9)[: cut + 1] == whole[: cut + 1]).all()


def test_adapted_intervals_do_not_look_ahead():
    rng = np.random.default_rng(7)
    said = pd.DataFrame({"p_meta": rng.uniform(0.2, 0.5, 5_000)})
    said.iloc[17:40] = np.nan
    won, earlier = pd.Series((rng.random(5_000) < 0.35).astype(float)), np.abs(rng.normal(size=60))
    whole = adapt_intervals(said, won, 3, earlier)
    assert whole["meta_low"].isna().equals(said["p_meta"].isna())
    for cut in (100, 1_234, 4_000):
        part = adapt_intervals(said[:cut], won[:cut].mask(won.index[:cut] >= cut - 3), 3, earlier)
        pd.testing.assert_frame_equal(part, whole[:cut], check_exact=True)


@given(st.lists(st.floats(0, 9), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_the_conformal_quantile_counts_one_more_than_it_has(misses, coverage):
    reach = conformal_quantile(np.array(misses), coverage)
    rank = np.ceil(round((len(misses) + 1) * coverage, 9))
    if rank > len(misses):
        assert np.isinf(reach)
    else:
        assert (np.array(misses) <= reach).sum() >= rank > (np.array(misses) < reach).sum()


def test_with_too_few_runs_the_interval_is_everything():
    X, Y = labelled(900, seed=2)
    primary = pd.DataFrame({"side": 1, "probability": 0.35}, X.index)
    said = MetaModel(24, QUICK).fit(X, primary, Y["long"]).predict(X, primary)
    assert (said["meta_low"] == 0).all() and (said["meta_high"] == 1).all() and said["p_meta"].between(0, 1).all()


def test_noise_leaves_the_primary_as_it_is_and_says_so():
    kept = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        p = rng.uniform(0.2, 0.5, 3_000)
        X = pd.DataFrame(rng.normal(size=(3_000, 5)), columns=list("abcde"))
        primary = pd.DataFrame({"side": rng.choice([-1, 1], 3_000), "probability": p, "margin": p / 2})
        meta = MetaModel(1, QUICK).fit(X, primary, pd.Series((rng.random(3_000) < p).astype(float)))
        said = meta.predict(X, primary)["p_meta"]
        kept.append(meta.rounds_["meta"] > 0)
        if not kept[-1]:
            assert meta.fallback_ == {"meta": "not proven better than the primary on held-back rows"}
            assert np.abs(said - p).max() < 0.08 and said.corr(pd.Series(p), method="spearman") == pytest.approx(1)
            assert (meta.explain(X[:3], primary[:3]) == 0).all(axis=None)
    assert sum(kept) <= 2


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_labels_all_alike_fall_back_with_a_note(label):
    X, _ = labelled(2_000, seed=2)
    primary = pd.DataFrame({"side": 1, "probability": 0.4, "margin": 0.1}, X.index)
    meta = MetaModel(1, QUICK).fit(X, primary, pd.Series(label, X.index))
    said = meta.predict(X, primary)["p_meta"]
    assert meta.fallback_ == {"meta": "labels all alike"} and meta.rounds_ == {"meta": 0}
    assert said.between(1e-4, 1 - 1e-4).all() and (said.mean() > 0.4) == (label == 1)


def test_rows_without_a_side_a_probability_or_a_label_are_left_out(scene):
    X, Y, _, _ = scene
    X, Y = X[:3_000], Y[:3_000]
    primary = primary_view(pd.DataFrame({"p_long": 0.4, "p_short": np.linspace(0.2, 0.6, 3_000)}, X.index))
    won = side_outcome(Y, primary)
    primary.iloc[:50] = [0, np.nan, np.nan]
    won.iloc[-30:] = np.nan
    meta = MetaModel(1, QUICK).fit(X, primary, won)
    alone = MetaModel(1, QUICK).fit(X[50:-30], primary[50:-30], won[50:-30])
    pd.testing.assert_frame_equal(meta.predict(X, primary), alone.predict(X, primary), check_exact=True)
    assert meta.predict(X, primary)[:50].isna().all(axis=None)
    assert meta.predict(X[:0], primary[:0]).shape == (0, 3)


def test_a_meta_model_needs_rows_and_a_coverage(scene):
    X, Y, _, primary = scene
    later = X[9_000:]
    with pytest.raises(ModelError, match="has both a label and complete inputs"):
        MetaModel(1, QUICK).fit(later, primary, pd.Series(np.nan, later.index))
    with pytest.raises(ModelError, match="must leave rows on both sides"):
        MetaModel(24, QUICK).fit(later[:20], primary[:20], side_outcome(Y[9_000:9_020], primary[:20]))
    with pytest.raises(ModelError, match="`X` must have a column 'probability'"):
        MetaModel(1, QUICK).fit(later, primary[["side"]], pd.Series(1.0, later.index))
    for bad in (0, 1, 1.5, np.nan):
        with pytest.raises(ModelError, match="`coverage` must be between 0 and 1"):
            MetaModel(coverage=bad)


def test_the_same_rows_give_the_same_model_and_json_keeps_it_to_the_last_bit(scene):
    X, Y, meta, primary = scene
    once_more = fit_meta(X[:9_000], Y[:9_000], lambda: Blind(1, QUICK), MetaModel(1, QUICK))
    assert once_more.to_json() == meta.to_json()
    again = MetaModel.from_json(meta.to_json())
    later = X[9_000:]
    pd.testing.assert_frame_equal(again.predict(later, primary), meta.predict(later, primary), check_exact=True)
    one = pd.concat([meta.predict(later[i : i + 1], primary[i : i + 1]) for i in range(5)])
    pd.testing.assert_frame_equal(one, meta.predict(later, primary)[:5], check_exact=True)
    for content in (b"", b"{}", b"[]", json.dumps({"horizon": 1}).encode()):
        with pytest.raises(ModelError, match="cannot be read"):
            MetaModel.from_json(content)


def test_explanations_add_up_to_the_distance_from_the_primary(scene):
    X, _, meta, primary = scene
    later = X[9_000:9_040]
    parts = meta.explain(later, primary[:40])
    assert list(parts) == [*X, "side", "probability", "margin"]
    assert parts.abs().mean().idxmax() == "calm" and (parts["flat"] == 0).all()
    curve, said = meta.calibration_, meta.predict(later, primary[:40])["p_meta"].to_numpy()
    moved = (log_odds(said) - curve.intercept) / curve.slope - log_odds(primary["probability"][:40].to_numpy())
    assert np.allclose(np.diff(moved), np.diff(parts.sum(axis=1)), atol=1e-4)


SIGMOID = partial(calibrate, base=0.0, horizon=24, kind="sigmoid")


def test_curves_that_judge_are_fitted_on_the_other_half():
    rng = np.random.default_rng(7)
    score = rng.normal(size=2_000)
    won = (rng.random(2_000) < sigmoid(score)).astype(float)
    plain = crossed(score, won, 24, SIGMOID)
    changed = won.copy()
    changed[1_024:] = 0
    moved = crossed(score, changed, 24, SIGMOID)
    assert (moved[:1_000] != plain[:1_000]).any() and (moved[1_000:] == plain[1_000:]).all()
    near = won.copy()
    near[1_000 - 24 : 1_000 + 24] = 1 - near[1_000 - 24 : 1_000 + 24]
    assert (crossed(score, near, 24, SIGMOID) == plain).all()


@pytest.mark.slow
def test_on_real_bars_runs_are_covered_and_the_primary_is_not_spoiled():
    """EURUSD 1h 2010 to 2018, three outer folds, target twice the stop of 1.5 ATR: labels are judged, not trades."""
    X, Y = real_labels(shared_bars("EURUSD_1h"), "1h")
    parts, spec = [], Boosting(rounds=60, max_rows=20_000)
    for train, test in WalkForward.over(len(X), 3, 24, 24).split(X):
        meta = fit_meta(X.iloc[train], Y.iloc[train], lambda: TPSLClassifier(24, spec), MetaModel(24, spec), 24, 3)
        said = TPSLClassifier(24, spec).fit(X.iloc[train], Y.iloc[train]).predict(X.iloc[test])
        primary = primary_view(said)
        outcome = {"primary": primary["probability"], "won": side_outcome(Y.iloc[test], primary)}
        parts.append(meta.predict(X.iloc[test], primary).assign(**outcome))
    table = pd.concat(parts)
    runs = run_coverage(table, table["won"], 24)
    assert len(runs) > 150 and abs(runs["inside"].mean() - 0.9) < 0.06
    won = table["won"].to_numpy()
    losses = {name: log_loss(table[name].to_numpy(), won).mean() for name in ("primary", "p_meta")}
    assert losses["p_meta"] < losses["primary"] + 0.001 and abs(table["p_meta"].mean() - won.mean()) < 0.02
    assert abs(table["p_meta"].mean() - won.mean()) < table["primary"].mean() - won.mean()  # the winner's curse


def test_log_odds_and_sigmoid_undo_each_other_and_nothing_is_certain():
    p = np.linspace(0.001, 0.999, 50)
    assert np.allclose(sigmoid(log_odds(p)), p) and np.isfinite(log_odds(np.array([0.0, 1.0]))).all()
    assert RUN_TRADES == 10
