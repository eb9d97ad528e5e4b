"""Traded rows: what was promised and what came; a served fit that states no more than its folds; drift watching it."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiquant.models.calibration import log_odds, sigmoid
from orbiquant.models.cards import ModelCard
from orbiquant.models.drift import DRIFT_COLUMNS, DriftReport, Sketch
from orbiquant.models.drift_traded import compare_traded, with_traded
from orbiquant.models.meta import MetaModel
from orbiquant.models.shrinkage import fit_shrinkage, fold_deviations, shrinkage_of, shrinkage_slope
from orbiquant.models.tpsl import TPSLClassifier
from orbiquant.models.traded import TradedRows, without_overlap

HORIZON = 24


def rows_of(count: int, seed: int, boast: float = 0.0, floor: float = 0.6) -> pd.DataFrame:
    """Return rows whose stated confidence is too high by so much, those above a floor traded."""
    rng = np.random.default_rng(seed)
    true = np.repeat(rng.beta(40, 40, size=count // 6 + 1), 6)[:count]
    r = np.where(rng.random(count) < true, 1.0, -1.0)
    table = pd.DataFrame({"confidence": np.minimum(true + boast, 0.99), "r": r})
    return table.assign(traded=table["confidence"] >= floor)


# --- what is counted


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 300), max_size=60), st.integers(1, 40))
def test_so_many_share_no_bar_and_no_more_could(places, horizon):
    rows = sorted(places)
    most = [0] * (len(rows) + 1)  # the most that can be picked of the first so many, by trying each
    for i, row in enumerate(rows, start=1):
        before = sum(other <= row - horizon for other in rows)
        most[i] = max(most[i - 1], most[min(before, i - 1)] + 1)
    assert without_overlap(np.array(rows, dtype=int), horizon) == most[-1]


def test_what_was_promised_and_what_came_are_those_of_the_traded_rows():
    table = rows_of(30_000, 3)
    found, picked = TradedRows.of("base", table, HORIZON), table[table["traded"]]
    gains = picked["r"].clip(lower=0).sum()
    assert (found.rows, found.judged) == (len(picked), 30_000) and found.said == pytest.approx(
        picked["confidence"].mean()
    )
    assert found.came == pytest.approx(gains / picked["r"].abs().sum())
    assert found.low < found.came < found.high and 0 < found.independent < found.rows


def test_the_interval_holds_the_truth_about_nine_times_in_ten():
    inside = []
    for seed in range(80):
        found = TradedRows.of("base", rows_of(12_000, seed), HORIZON, seed)
        inside.append(found.low <= found.said <= found.high)
    assert abs(np.mean(inside) - 0.9) < 0.1


def test_open_rows_are_not_judged_and_few_have_no_interval():
    table = rows_of(4_000, 5)
    assert TradedRows.of("base", table.assign(r=np.nan), HORIZON) == TradedRows(
        policy="base", judged=0, rows=0, independent=0
    )
    few = TradedRows.of("base", table.head(600), HORIZON)
    assert few.rows > 0 and few.came is not None and few.low is few.high is None
    assert "too few for an interval" in str(few) and "nothing to judge" in str(TradedRows.of("a", table[:0], HORIZON))


# --- no more than the folds


def test_a_final_fit_that_is_eager_by_luck_states_no_more_than_its_folds():
    rng = np.random.default_rng(11)
    fold, truth = np.repeat([0, 1, 2], 3_000), rng.normal(size=9_000)
    levels = np.array([-1.2, -1.0, -0.9])[fold]
    won = (rng.random(9_000) < sigmoid(levels + 0.15 * truth)).astype(float)
    said, own = sigmoid(levels + 0.15 * truth), sigmoid(-1.0 + 0.9 * truth)
    held = shrinkage_of(own, said, won, fold, HORIZON)(log_odds(own))
    floor = sigmoid(-1.0 + 0.5)
    assert (own > floor).mean() > 0.25 and (held > floor).mean() <= (said > floor).mean() + 0.002
    assert (np.diff(held[np.argsort(own)]) >= 0).all() and abs(np.median(held) - np.median(own)) < 0.01


def test_folds_that_boasted_are_not_taken_at_their_word():
    rng = np.random.default_rng(13)
    fold, signal = np.repeat([0, 1], 20_000), rng.normal(size=40_000)
    won = (rng.random(40_000) < sigmoid(-1.0 + 0.1 * signal)).astype(float)
    boasted = sigmoid(-1.0 + 0.5 * signal)
    held = shrinkage_of(boasted, boasted, won, fold, 1)(log_odds(boasted))
    assert 0.1 < log_odds(held).std() / log_odds(boasted).std() < 0.35


def test_no_outcome_of_the_final_fit_and_no_open_label_is_read():
    rng = np.random.default_rng(17)
    own, said = (sigmoid(-1 + s * rng.normal(size=4_000)) for s in (0.4, 0.2))
    fold, won = np.repeat([0, 1], 2_000), (rng.random(4_000) < 0.3).astype(float)
    won[-50:] = np.nan
    other = own.copy()
    other[-50:] = 0.999  # rows that are not known yet
    assert shrinkage_of(own, said, won, fold, 1) == shrinkage_of(other, said, won, fold, 1)
    assert shrinkage_of(own, said, won * np.nan, fold, 1) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 2), st.floats(0, 2), st.floats(0, 1))
def test_any_curve_rises_and_widens_nothing(seed, own_spread, fold_spread, slope):
    rng = np.random.default_rng(seed)
    score, deviation = own_spread * rng.normal(size=500) - 0.7, fold_spread * rng.normal(size=500)
    found = log_odds(fit_shrinkage(score, deviation, slope)(np.sort(score)), least=1e-12)
    middle = np.median(score)
    assert (np.diff(found) >= -1e-9).all() and np.ptp(found) <= slope * np.ptp(deviation) + 1e-6
    assert found.max() - middle <= max(score.max() - middle, 0) + 1e-6


def test_levels_of_folds_are_no_deviations():
    score, fold = np.array([1.0, 2.0, 3.0, 11.0, 12.0, 13.0]), np.array([0, 0, 0, 2, 2, 2])
    deviation, middle = fold_deviations(score, fold)
    assert deviation.tolist() == [-1, 0, 1, -1, 0, 1] and middle.tolist() == [2, 2, 2, 12, 12, 12]
    assert 0 <= shrinkage_slope(deviation, np.array([1.0, 0, 0, 1, 0, 0]), fold, 6) < 1


# --- kept and read


def fitted() -> tuple[TPSLClassifier, MetaModel, pd.DataFrame, pd.DataFrame]:
    """Return a classifier, a meta model beside it, features, and what the classifier says."""
    rng = np.random.default_rng(19)
    X = pd.DataFrame(
        rng.normal(size=(4_000, 3)), pd.date_range("2024-01-01", periods=4_000, freq="1h", tz="UTC"), list("abc")
    )
    won = {way: rng.random(4_000) < sigmoid(sign * X["a"] - 0.7) for way, sign in (("long", 1), ("short", -1))}
    Y = pd.DataFrame(won, X.index).astype(float)
    tpsl = TPSLClassifier(horizon=1).fit(X, Y)
    said = pd.DataFrame({"side": 1, "probability": tpsl.predict(X)["p_long"], "margin": 0.1})
    return tpsl, MetaModel(horizon=1).fit(X, said, Y["long"]), X, said


def test_curves_are_kept_with_the_models_and_models_from_before_have_none():
    tpsl, meta, X, said = fitted()
    before = tpsl.predict(X), meta.predict(X, said)
    for model in (tpsl, meta):
        old = {name: value for name, value in json.loads(model.to_json()).items() if name != "shrinkage"}
        again = type(model).from_json(json.dumps(old).encode())
        told = again.predict(X) if model is tpsl else again.predict(X, said)
        assert told.equals(before[0] if model is tpsl else before[1])
    small = np.linspace(-0.01, 0.01, 99)
    tpsl.shrinkage_ = {"long": fit_shrinkage(log_odds(before[0]["p_long"].to_numpy()), small, 1.0)}
    meta.shrinkage_ = fit_shrinkage(log_odds(before[1]["p_meta"].to_numpy()), small, 1.0)
    for model in (tpsl, meta):
        again = type(model).from_json(model.to_json())
        rows = (X,) if model is tpsl else (X, said)
        assert again.predict(*rows).equals(model.predict(*rows))
    after = tpsl.predict(X), meta.predict(X, said)
    assert np.ptp(after[0]["p_long"]) < 0.01 < np.ptp(before[0]["p_long"]) and after[0]["p_short"].equals(
        before[0]["p_short"]
    )
    assert np.ptp(after[1]["p_meta"]) < 0.01 and (after[1]["meta_low"] <= after[1]["p_meta"]).all()
    one = pd.concat([tpsl.predict(X.iloc[[i]]) for i in range(40)])
    assert one.equals(after[0].iloc[:40])  # row by row the same to the last bit


def test_a_card_and_a_sketch_from_before_have_no_traded_rows():
    empty = {"horizon": 1, "features": {}, "predictions": {}, "furthest": {}, "won": {}, "gap": {}}
    assert Sketch.model_validate_json(json.dumps(empty)).traded is None
    assert ModelCard.model_fields["traded"].default is None and not ModelCard.model_fields["traded"].is_required()


# --- drift


FOLDS = TradedRows.of("base", rows_of(40_000, 1), HORIZON)


@pytest.mark.parametrize("seed", range(4))
def test_the_same_promises_kept_as_before_are_no_drift(seed):
    lines = compare_traded(FOLDS, rows_of(9_000, 100 + seed), HORIZON)
    assert [line["name"] for line in lines] == ["share", "came less said"]
    assert "drifted" not in {line["status"] for line in lines}


def test_a_model_that_trades_too_often_and_keeps_no_promise_is_found():
    lines = compare_traded(FOLDS, rows_of(9_000, 9, boast=0.12), HORIZON)
    assert [line["status"] for line in lines] == ["drifted", "drifted"]
    assert lines[0]["now"] > 3 * lines[0]["then"] and lines[1]["now"] < -0.08
    assert lines[1]["now"] == pytest.approx(
        TradedRows.of("base", rows_of(9_000, 9, boast=0.12), HORIZON).came - 0.63, abs=0.03
    )


def test_folds_that_never_traded_are_a_measure_too():
    never = FOLDS.model_copy(update={"rows": 0, "said": None, "came": None})
    often, kept = compare_traded(never, rows_of(9_000, 9), HORIZON)
    assert often["status"] == "drifted" and np.isnan(kept["then"]) and kept["status"] in ("stable", "watch")
    often, kept = compare_traded(never, rows_of(9_000, 9).assign(traded=False), HORIZON)
    assert (often["status"], kept["status"]) == ("stable", "too few")


def test_it_stands_in_the_report_and_its_verdict():
    plain = pd.DataFrame(0.0, [0], DRIFT_COLUMNS).assign(kind="feature", name="atr", status="stable")
    report = DriftReport(plain, 9_000, "stable over 9000 newer bars")
    told = with_traded(report, FOLDS, rows_of(9_000, 9, boast=0.12), HORIZON)
    assert told.counts == {"drifted": 2, "stable": 1} and "traded share" in told.verdict
    assert with_traded(report, None, rows_of(9_000, 9), HORIZON) is report
    short = DriftReport(plain.iloc[:0], 12, "no verdict")
    assert with_traded(short, FOLDS, rows_of(12, 9), HORIZON) is short
