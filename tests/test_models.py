"""Baselines, boosting, range predictor, classifier and skill: what they find, refuse, keep and repeat."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiquant.core import ModelError
from orbiquant.models.baselines import (
    BaseRate,
    HarRange,
    ScaledRange,
    check_quantiles,
    pinball_loss,
    ridge,
    volatility_inputs,
)
from orbiquant.models.boosting import (
    Boosting,
    Rows,
    ask,
    categories_of,
    check_device,
    check_used,
    feature_values,
    grow,
    proven,
    thinned,
)
from orbiquant.models.calibration import Calibration, calibrate, fit_isotonic, sigmoid
from orbiquant.models.labels import range_targets
from orbiquant.models.range_predictor import RangePredictor
from orbiquant.models.skill import area_under_curve, quantile_weights, skill_interval, skill_table
from orbiquant.models.splits import WalkForward
from orbiquant.models.tpsl import TPSLClassifier
from tests.tools.shared_bars import shared_bars

QUANTILES = (0.1, 0.5, 0.9)
QUICK = Boosting(rounds=60, leaf_rows=40, max_depth=3, learning_rate=0.1)


def world(rows: int = 4_000, seed: int = 7) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return features and targets: `atr` sets the scale, `tilt` shifts moves up and wins, the rest is noise."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2024-01-01", periods=rows, freq="15min", tz="UTC", name="time")
    atr = 0.002 * np.exp(np.cumsum(rng.normal(scale=0.02, size=rows)) * 0.5)
    tilt = rng.normal(size=rows)
    X = pd.DataFrame({"atr": atr, "tilt": tilt, "noise": rng.normal(size=rows)}, index)
    up, down = (atr * np.exp(sign * 0.6 * tilt + rng.normal(scale=0.5, size=rows)) for sign in (1, -1))
    won = {name: rng.random(rows) < sigmoid(sign * tilt - 0.7) for name, sign in (("long", 1), ("short", -1))}
    return X, pd.DataFrame({"up": up, "down": down, **won}, index).astype(float)


@pytest.fixture(scope="module")
def data():
    return world()


@pytest.fixture(scope="module")
def ranges(data):
    X, Y = data
    return RangePredictor(QUANTILES, horizon=1, boosting=QUICK).fit(X[:3_000], Y[:3_000])


@pytest.fixture(scope="module")
def classifier(data):
    X, Y = data
    return TPSLClassifier(horizon=1, boosting=QUICK).fit(X[:3_000], Y[:3_000])


# --- range predictor


def test_trees_find_what_the_scale_does_not_explain(data, ranges):
    X, Y = data
    forecast = ranges.predict(X[3_000:])
    plain = ScaledRange("atr").fit(X[:3_000], Y[:3_000]).predict(X[3_000:])
    for target in ("up", "down"):
        columns = [f"{target}_{q}" for q in QUANTILES]
        truth = Y[target].to_numpy()[3_000:]
        model, simple = (
            pinball_loss(truth, frame[columns].to_numpy(), QUANTILES).mean() for frame in (forecast, plain)
        )
        assert model < 0.95 * simple
        inside = (truth > forecast[columns[0]]) & (truth < forecast[columns[2]])
        assert abs(inside.mean() - 0.8) < 0.06
    assert min(ranges.rounds_.values()) > 5


def test_quantiles_never_cross_and_rows_keep_their_index(data, ranges):
    X, _ = data
    forecast = ranges.predict(X)
    assert list(forecast) == ["up_0.1", "up_0.5", "up_0.9", "down_0.1", "down_0.5", "down_0.9", "log_range"]
    assert (np.diff(forecast.to_numpy()[:, :3]) >= 0).all() and (np.diff(forecast.to_numpy()[:, 3:6]) >= 0).all()
    assert forecast.index.equals(X.index)


def test_a_wilder_market_than_any_in_training_is_predicted_wider(data, ranges):
    X, _ = data
    calm = ranges.predict(X[:50])
    wild = ranges.predict(X[:50].assign(atr=20 * X["atr"][:50]))
    assert (wild / calm).to_numpy()[:, :6].min() > 10 and (wild - calm)["log_range"].min() > np.log(10)


def test_trees_that_find_nothing_are_mostly_left_out_and_what_remains_is_har():
    left_out = []
    for seed in range(6):
        X, Y = world(2_000, seed)
        noise = X[["noise", "atr"]].assign(tilt=np.random.default_rng(seed + 50).normal(size=len(X)))
        model = RangePredictor(QUANTILES, horizon=1, boosting=QUICK).fit(noise, Y)
        har = HarRange(["atr"], QUANTILES, horizon=1).fit(X, Y).predict(X)
        for target in [name for name, rounds in model.rounds_.items() if rounds == 0]:
            left_out.append(target)
            columns = ["log_range"] if target == "log_range" else [f"{target}_{q}" for q in QUANTILES]
            pd.testing.assert_frame_equal(model.predict(noise)[columns], har[columns])
    assert len(left_out) >= 12 and "log_range" in left_out


def test_without_a_scale_there_is_no_prediction_and_other_gaps_do_no_harm(data, ranges):
    X, _ = data
    holes = X[:4].copy()
    holes.iloc[0, 0] = holes.iloc[1, 1] = holes.iloc[2, 2] = np.nan
    predicted = ranges.predict(holes)
    assert predicted.iloc[0].isna().all() and predicted.iloc[1:].notna().all(axis=None)


# --- classifier


def test_probabilities_are_true_and_beat_the_base_rate(data, classifier):
    X, Y = data
    predicted, truth = classifier.predict(X[3_000:]), Y[3_000:]
    for side in ("long", "short"):
        p, won = predicted[f"p_{side}"], truth[side]
        assert area_under_curve(won.to_numpy(), p.to_numpy()) > 0.68
        assert ((won - p) ** 2).mean() < 0.95 * won.var()
        for low, high in ((0, 0.25), (0.25, 0.45), (0.45, 1)):
            chosen = p.between(low, high)
            assert abs(won[chosen].mean() - p[chosen].mean()) < 0.09


def test_explanations_add_up_and_name_the_cause(data, classifier):
    X, _ = data
    clear = X[X["tilt"].abs() > 0.7][:50]
    weights = classifier.explain(clear, "long")
    assert list(weights) == list(X) and (weights.abs().idxmax(axis=1) == "tilt").all()
    assert (np.sign(weights["tilt"]) == np.sign(clear["tilt"])).all()


def test_labels_that_are_all_alike_fall_back_to_the_base_rate_and_say_so(data):
    X, Y = data
    never = Y.assign(short=0.0)
    model = TPSLClassifier(horizon=1, boosting=QUICK).fit(X, never)
    predicted = model.predict(X[:3])
    assert model.fallback_ == {"short": "labels all alike"} and model.rounds_["short"] == 0
    assert np.allclose(predicted["p_short"], 1 / (len(X) + 2)) and predicted["p_long"].nunique() > 1
    assert (model.explain(X[:3], "short") == 0).all(axis=None)
    late = Y.assign(short=np.where(np.arange(len(Y)) < 3_000, Y["short"], 1.0))
    assert "short" in TPSLClassifier(horizon=1, boosting=QUICK).fit(X, late).fallback_


def test_one_row_and_no_rows_can_be_asked(data, ranges, classifier):
    X, _ = data
    for model, columns in ((ranges, 7), (classifier, 6)):
        assert model.predict(X[:1]).shape == (1, columns) and model.predict(X[:0]).shape == (0, columns)
    assert classifier.explain(X[:0], "long").empty


# --- calibration


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.integers(5, 3_000), st.floats(0.2, 5.0), st.floats(-2.0, 2.0), st.integers(1, 50))
def test_calibration_is_a_rising_probability(seed, rows, stretch, shift, horizon):
    rng = np.random.default_rng(seed)
    truth = rng.normal(-0.7, 0.6, rows)
    outcome = (rng.random(rows) < sigmoid(truth)).astype(float)
    curve = calibrate(stretch * truth + shift, outcome, base=-0.7, horizon=horizon)
    p = curve(np.linspace(-20, 20, 200))
    assert (np.diff(p) >= 0).all() and (p >= 0).all() and (p <= 1).all()


def test_isotonic_never_says_never():
    curve = fit_isotonic(np.arange(100.0), (np.arange(100) > 50).astype(float), independent=100)
    p = curve(np.array([-1e9, 1e9]))
    assert p[0] == pytest.approx(1 / 102) and p[1] == pytest.approx(101 / 102)
    assert Calibration.model_validate_json(curve.model_dump_json()) == curve


def test_more_independent_labels_move_the_curve_further_from_its_prior():
    rng = np.random.default_rng(7)
    truth = rng.normal(-0.7, 0.6, 4_800)
    outcome = (rng.random(4_800) < sigmoid(truth)).astype(float)
    slopes = [calibrate(truth, outcome, -0.7, horizon).slope for horizon in (1, 24, 480)]
    assert slopes[0] > slopes[1] > slopes[2] > 0.5


# --- what both share


def both() -> list:
    return [
        RangePredictor(QUANTILES, horizon=1, boosting=QUICK),
        TPSLClassifier(horizon=1, boosting=QUICK),
    ]


@pytest.mark.parametrize("which", [0, 1])
def test_same_rows_and_seed_give_the_same_model_on_any_number_of_threads(data, which):
    X, Y = data
    stored = []
    for threads in (1, 2, 2):
        model = both()[which]
        model.boosting = QUICK.model_copy(update={"threads": threads})
        stored.append((model.fit(X, Y).predict(X), json.loads(model.to_json())["boosters"]))
    for predicted, trees in stored[1:]:
        pd.testing.assert_frame_equal(predicted, stored[0][0], check_exact=True)
        assert trees == stored[0][1]


@pytest.mark.parametrize("kind", ["ranges", "classifier"])
def test_a_stored_model_answers_the_same_to_the_last_bit(data, kind, request):
    X, _ = data
    model = request.getfixturevalue(kind)
    again = type(model).from_json(model.to_json())
    pd.testing.assert_frame_equal(again.predict(X), model.predict(X), check_exact=True)
    assert again.to_json() == model.to_json()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"nonsense", b"\xff\xfe"])
@pytest.mark.parametrize("model", [RangePredictor, TPSLClassifier])
def test_what_is_no_model_is_refused(model, content):
    with pytest.raises(ModelError, match="cannot be read"):
        model.from_json(content)


@pytest.mark.parametrize("kind", ["ranges", "classifier"])
def test_damaged_trees_are_refused(kind, request):
    model = request.getfixturevalue(kind)
    content = json.loads(model.to_json())
    name = next(iter(content["boosters"]))
    content["boosters"][name] = {"learner": {}}
    with pytest.raises(ModelError, match="cannot be read"):
        type(model).from_json(json.dumps(content).encode())


@pytest.mark.parametrize("kind", ["ranges", "classifier"])
def test_columns_are_found_by_name_and_their_lack_is_named(data, kind, request):
    X, _ = data
    model = request.getfixturevalue(kind)
    shuffled = X[["noise", "tilt", "atr"]].assign(extra=np.inf)
    pd.testing.assert_frame_equal(model.predict(shuffled), model.predict(X), check_exact=True)
    with pytest.raises(ModelError, match=r"`X` must have a column 'tilt', did you mean 'tilts'\?"):
        model.predict(X.rename(columns={"tilt": "tilts"}))


@pytest.mark.parametrize("which", [0, 1])
def test_an_infinity_is_refused_by_name(data, which):
    X, Y = data
    bad = X.copy()
    bad.iloc[5, 2] = -np.inf
    with pytest.raises(ModelError, match="`X` must be finite or NaN, column 'noise' has 1 infinities"):
        both()[which].fit(bad, Y)


@pytest.mark.parametrize("which", [0, 1])
def test_missing_values_and_unlabelled_rows_are_no_obstacle(data, which):
    X, Y = data
    rng = np.random.default_rng(1)
    holes = X.copy()
    holes.loc[rng.random(len(X)) < 0.3, "tilt"] = np.nan
    labels = Y.mask(pd.Series(rng.random(len(Y)) < 0.1, Y.index))
    assert both()[which].fit(holes, labels).predict(holes).notna().all(axis=None)


@pytest.mark.parametrize("which", [0, 1])
def test_too_few_labelled_rows_are_an_error(data, which):
    X, Y = data
    with pytest.raises(ModelError, match="none of 4,000 rows has both a label and complete inputs"):
        both()[which].fit(X, Y * np.nan)
    with pytest.raises(ModelError, match="must leave rows on both sides"):
        both()[which].fit(X[:2], Y[:2])


def gpu_is_there() -> bool:
    """Say whether XGBoost would use a GPU."""
    try:
        return check_device("cuda") == "cuda"
    except ModelError:
        return False


@pytest.mark.skipif(gpu_is_there(), reason="there is a GPU: nothing is missing")
@pytest.mark.parametrize("which", [0, 1])
def test_a_gpu_that_is_not_there_is_an_error_and_never_the_cpu(data, which):
    X, Y = data
    model = both()[which]
    model.boosting = Boosting(device="cuda")
    with pytest.raises(ModelError, match="`device` must be available, was 'cuda' and XGBoost would use 'cpu'"):
        model.fit(X, Y)


@pytest.mark.skipif(not gpu_is_there(), reason="no GPU on this machine")
@pytest.mark.parametrize("which", [0, 1])
def test_a_gpu_finds_what_the_cpu_finds(data, which):
    X, Y = data
    frames = []
    for device in ("cpu", "cuda"):
        model = both()[which]
        model.boosting = QUICK.model_copy(update={"device": device})
        frames.append(model.fit(X[:3_000], Y[:3_000]).predict(X[3_000:]))
    assert frames[0].corrwith(frames[1]).min() > 0.95


# --- boosting


def test_early_stopping_and_thinning_keep_to_their_rows():
    X, Y = world(1_000)
    spec = Boosting(rounds=200, leaf_rows=20, max_rows=300)
    rows = Rows.of(feature_values(X, list(X)), horizon=10, spec=spec)
    assert len(rows.head) <= 300 and len(rows.every) <= 300 and rows.every[-1] == 999
    assert rows.tail[0] - rows.head[-1] > 10 and rows.tail[-1] == 999
    booster = grow(rows, Y["up"].to_numpy(), {"objective": "reg:squarederror"}, spec)
    assert 1 <= booster.num_boosted_rounds() < 200
    changed = Y["up"].to_numpy().copy()
    unused = np.setdiff1d(np.arange(1_000), np.concatenate([rows.head, rows.tail]))
    changed[unused] = 1e9
    again = grow(rows, changed, {"objective": "reg:squarederror"}, spec)
    assert again.save_raw("json") == booster.save_raw("json")


@given(st.integers(0, 500), st.integers(1, 100))
def test_thinning_keeps_the_newest_row_and_even_steps(rows, most):
    kept = thinned(np.arange(rows), most)
    assert len(kept) == min(rows, most)
    if rows:
        assert kept[-1] == rows - 1 and np.ptp(np.diff(kept, prepend=-1)) <= 1


def test_trees_that_grew_elsewhere_are_refused():
    X, Y = world(1_000)
    spec = Boosting(rounds=3, leaf_rows=20)
    booster = grow(Rows.of(feature_values(X, list(X)), 1, spec), Y["up"].to_numpy(), {}, spec)
    assert check_used(booster, "cpu") is booster
    with pytest.raises(ModelError, match="was 'cuda' and XGBoost would use 'cpu'"):
        check_used(booster, "cuda")


def test_luck_is_rarely_taken_for_proof():
    rng = np.random.default_rng(7)
    persistent = [np.repeat(rng.normal(size=100), 24) for _ in range(400)]
    believed = np.mean([proven(np.zeros(2_400), -noise, 24) for noise in persistent])
    assert abs(believed - 0.16) < 0.06
    assert proven(np.ones(480), np.full(480, 0.9), 24) and not proven(np.ones(10), np.zeros(10), 24)


# --- categories


def zoned(rows: int = 4_000, seed: int = 7) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return features with a categorical killzone whose order says nothing, and outcomes that hang on it."""
    X, Y = world(rows, seed)
    rng = np.random.default_rng(seed)
    zone = rng.integers(6, size=rows)
    names = np.array(["asia", "london_open", "new_york_am", "london_close", "new_york_pm", "none"])
    X["zone"] = pd.Categorical(names[zone], categories=sorted(names))
    good = np.isin(zone, [0, 2, 4])
    for side in ("long", "short"):
        Y[side] = (rng.random(rows) < np.where(good, 0.6, 0.2)).astype(float)
    Y["up"] = Y["up"] * np.where(good, 2.0, 1.0)
    return X, Y


@pytest.mark.parametrize("which", [0, 1])
def test_a_category_is_split_natively_explained_and_stored(which):
    X, Y = zoned()
    model = both()[which].fit(X[:3_000], Y[:3_000])
    trees = next(iter(json.loads(model.to_json())["boosters"].values()))["learner"]["gradient_booster"]["model"][
        "trees"
    ]
    assert any(any(tree["split_type"]) for tree in trees)
    predicted = model.predict(X[3_000:])
    again = type(model).from_json(model.to_json())
    as_text = X[3_000:].assign(zone=X["zone"].astype("str"))
    other_order = X[3_000:].assign(zone=X["zone"].cat.reorder_categories(X["zone"].cat.categories[::-1]))
    for asked in (X[3_000:], as_text, other_order):
        pd.testing.assert_frame_equal(again.predict(asked), predicted, check_exact=True)
    pd.testing.assert_frame_equal(again.predict(X[3_000:3_004]), predicted[:4], check_exact=True)
    truth = Y[3_000:]
    if which:
        assert area_under_curve(truth["long"].to_numpy(), predicted["p_long"].to_numpy()) > 0.65
        parts = model.explain(X[3_000:3_200], "long")
        assert parts["zone"].abs().mean() == parts.abs().mean().max()


@pytest.mark.parametrize("which", [0, 1])
def test_a_category_that_training_did_not_know_is_a_missing_value(which):
    X, Y = zoned()
    model = both()[which].fit(X, Y)
    unknown = X[:50].assign(zone="mars")
    missing = X[:50].assign(zone=pd.Categorical([None] * 50, categories=X["zone"].cat.categories))
    pd.testing.assert_frame_equal(model.predict(unknown), model.predict(missing), check_exact=True)


def test_categories_become_their_numbers_and_numbers_stay():
    X = pd.DataFrame({"n": [1.5, np.nan], "c": pd.Categorical([3, 1], categories=[1, 2, 3])})
    known = categories_of(X)
    assert known == {"c": ["1", "2", "3"]}
    np.testing.assert_array_equal(feature_values(X, ["c", "n"], known), np.array([[2, 1.5], [0, np.nan]], np.float32))
    assert categories_of(X[["n"]]) == {}


def test_trees_added_to_a_start_leave_it_where_there_is_nothing_to_add():
    rng = np.random.default_rng(7)
    start = rng.normal(-0.7, 0.8, 4_000)
    won = (rng.random(4_000) < sigmoid(start)).astype(float)
    spec = Boosting(rounds=50, leaf_rows=50)
    objective = {"objective": "binary:logistic", "base_score": 0.5, "min_child_weight": 10}
    rows = Rows.of(rng.normal(size=(4_000, 3)).astype(np.float32), 1, spec)
    moved = ask(grow(rows, won, objective, spec, start), rows.values, margin=True)[:, 0]
    assert np.abs(moved).mean() < 0.15
    late = Rows.of(rows.values, 1, spec)
    alone = ask(grow(late, won, objective, spec), rows.values, margin=True)[:, 0]
    assert np.abs(alone).mean() > 0.3


# --- baselines


def test_har_beats_atr_on_real_bars():
    bars = shared_bars("EURUSD_15m")
    targets, inputs = range_targets(bars, 24), volatility_inputs(bars, 24)
    known = (targets.notna().all(axis=1) & inputs.notna().all(axis=1)).to_numpy()
    targets, inputs = targets[known], inputs[known]
    spans = [name for name in inputs if name.startswith("range_")]
    losses: dict[str, list[float]] = {}
    for train, test in WalkForward.over(len(inputs), 4, 24).split(inputs):
        for name, model in {"har": HarRange(spans), "atr": ScaledRange("atr"), "ewma": ScaledRange("ewma")}.items():
            predicted = model.fit(inputs.iloc[train], targets.iloc[train]).predict(inputs.iloc[test])
            columns = [f"up_{q}" for q in QUANTILES]
            loss = pinball_loss(targets["up"].to_numpy()[test], predicted[columns].to_numpy(), QUANTILES)
            losses.setdefault(name, []).append(loss.mean())
    mean = {name: np.mean(values) for name, values in losses.items()}
    assert mean["har"] < 0.95 * min(mean["atr"], mean["ewma"])


def test_baselines_leave_out_what_is_unknown_and_name_what_is_missing(data):
    X, Y = data
    holes = X.copy()
    holes.iloc[0, 0], holes.iloc[1, 0] = np.nan, 0.0
    for model in (ScaledRange("atr"), HarRange(["atr"])):
        predicted = model.fit(holes, Y).predict(holes)
        assert predicted.iloc[0].isna().all() and np.isfinite(predicted.iloc[1:]).all(axis=None)
        with pytest.raises(ModelError, match="must have a column 'atr'"):
            model.fit(X[["tilt"]], Y)
    with pytest.raises(ModelError, match="`columns` must name at least one"):
        HarRange([])


def test_volatility_inputs_are_causal():
    X, _ = world(900)
    close = pd.Series(np.exp(np.cumsum(X["tilt"].to_numpy()) * 1e-3), X.index)
    bars = pd.DataFrame({"open": close, "high": close * 1.001, "low": close * 0.999, "close": close, "volume": 1.0})
    whole = volatility_inputs(bars, 24)
    for cut in (30, 481, 700):
        pd.testing.assert_frame_equal(volatility_inputs(bars.iloc[:cut], 24), whole.iloc[:cut])


def test_little_data_keeps_har_near_its_prior_and_much_data_frees_it():
    rng = np.random.default_rng(7)
    design = np.column_stack([rng.normal(size=5_000), np.ones(5_000)])
    outcome = design @ np.array([2.0, -1.0]) + rng.normal(size=5_000)
    few, many = (ridge(design[:n], outcome[:n], np.array([0.0, 0.0]), 72) for n in (24, 5_000))
    assert few[0] < 1 < 1.9 < many[0] < 2.1 and abs(many[1] + 1) < 0.1


def test_the_base_rate_is_never_certain():
    Y = pd.DataFrame({"long": [0.0, 0.0], "short": [1.0, np.nan]})
    rates = BaseRate().fit(Y, Y).predict(Y).iloc[0]
    assert rates.to_dict() == {"p_long": 0.25, "p_short": pytest.approx(2 / 3)}


@pytest.mark.parametrize("bad", [[], [0.5, 0.1], [0.0], [1.0], [0.5, 0.5], [-0.1, 0.5]])
def test_quantiles_must_rise_between_0_and_1(bad):
    with pytest.raises(ModelError, match="`quantiles` must rise between 0 and 1"):
        check_quantiles(bad)


# --- skill


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=60))
def test_area_under_curve_agrees_with_scikit_learn(rows):
    from sklearn.metrics import roc_auc_score

    outcome, score = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    found = area_under_curve(outcome, score)
    if outcome.min() == outcome.max():
        assert np.isnan(found)
    else:
        assert found == pytest.approx(roc_auc_score(outcome, score))


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=9, unique=True))
def test_quantile_weights_make_a_mean(quantiles):
    weights = quantile_weights(sorted(quantiles))
    assert weights.sum() == pytest.approx(1) and (weights > 0).all()


def test_block_intervals_are_wider_than_independent_ones_and_cover_nothing_when_there_is_nothing():
    rng = np.random.default_rng(7)
    base = 5 + np.repeat(rng.normal(size=100), 50)
    model = 5 + np.repeat(rng.normal(size=100), 50)
    blocks, rows = skill_interval(model, base, 50, 7), skill_interval(model, base, 1, 7)
    assert blocks[1] - blocks[0] > 3 * (rows[1] - rows[0])
    assert blocks[0] < 0 < blocks[1]
    assert np.isnan(skill_interval(model[:100], base[:100], 50, 7)).all()


def test_everyone_is_judged_on_the_same_rows(data):
    X, Y = data
    models = [fitted.fit(X[:2_000], Y[:2_000]) for fitted in (ScaledRange("atr"), BaseRate())]
    scaled, rates = (model.predict(X) for model in models)
    predicted = pd.concat([rates, scaled], axis=1)[2_000:]
    gaps = scaled.copy()
    gaps.iloc[2_000:2_500] = np.nan
    table = skill_table(Y, predicted, {"gaps": gaps, "base_rate": rates}, QUANTILES, 24)
    assert (table.loc[table["metric"] != "auc", "skill"] == 0).all()
    kept = skill_table(Y[2_500:], predicted[500:], {"gaps": scaled, "base_rate": rates}, QUANTILES, 24)
    pd.testing.assert_frame_equal(table.drop(columns="baseline_name"), kept.drop(columns="baseline_name"))
    r2 = table.set_index(["target", "metric"]).loc[("up", "r2")]
    mean = predicted[[f"up_{q}" for q in QUANTILES]].to_numpy()[500:] @ [0.3, 0.4, 0.3]
    truth = Y["up"].to_numpy()[2_500:]
    assert r2["model"] == pytest.approx(1 - ((truth - mean) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())
