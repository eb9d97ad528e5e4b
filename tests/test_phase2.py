"""The pipeline: no future in any prediction, the same result on any threads, failures that stay where they happen."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from orbiquant.core import ModelError
from orbiquant.features.matrix import build_features
from orbiquant.features.spec import FeatureSpec
from orbiquant.market.synthetic import synthetic_market
from orbiquant.models import phase2_jobs
from orbiquant.models.amd import AmdSpec
from orbiquant.models.boosting import Boosting
from orbiquant.models.bundle import to_content
from orbiquant.models.config import Phase2Config
from orbiquant.models.phase2 import OutOfFold, Phase2Pipeline, Training
from orbiquant.models.phase2_jobs import BASELINES, MODELS, scale_columns
from orbiquant.models.tpsl import TPSLClassifier
from orbiquant.settings import load_settings
from tests.tools.shared_bars import shared_bars

CONFIG = Phase2Config(folds=3, rounds=25, threads=2)
RANGES = [f"{side}_{q}" for side in ("up", "down") for q in (0.1, 0.5, 0.9)]
COLUMNS = [*TPSLClassifier().columns_, *RANGES, "log_range", "p_meta", "meta_low", "meta_high"]
JOBS = 3 * (len(MODELS) + 1 + len(BASELINES)) + 3


@pytest.fixture(scope="module")
def bars():
    return synthetic_market(4_000, timeframe="15m", seed=7).bars


@pytest.fixture(scope="module")
def features(bars):
    return build_features(bars, FeatureSpec(timeframe="15m", calendar="forex"))


@pytest.fixture(scope="module")
def training(bars, features):
    return Phase2Pipeline(CONFIG).run(bars, features)


def same(first: Training, second: Training) -> None:
    """Assert that two trainings differ in nothing but the time they took."""
    pd.testing.assert_frame_equal(first.predictions, second.predictions, check_exact=True)
    pd.testing.assert_frame_equal(first.skill, second.skill, check_exact=True)
    pd.testing.assert_frame_equal(first.folds, second.folds, check_exact=True)
    pd.testing.assert_frame_equal(first.gate, second.gate, check_exact=True)
    pd.testing.assert_frame_equal(first.reliability, second.reliability, check_exact=True)
    assert first.sketch == second.sketch
    assert first.notes == second.notes and first.bundle.range_from == second.bundle.range_from
    contents = [{name: to_content(model) for name, model in t.bundle.models.items()} for t in (first, second)]
    assert contents[0] == contents[1]


@pytest.mark.parametrize("config", [Phase2Config, Boosting, AmdSpec])
@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_library_takes_is_refused(config, seed):
    with pytest.raises(ValidationError, match="seed"):
        config(seed=seed)


def test_what_a_training_leaves_behind(bars, features, training):
    assert list(training.predictions) == COLUMNS and training.predictions[COLUMNS[:8]].notna().all(axis=None)
    assert training.predictions.loc[training.folds["test_start"].iloc[1] :].notna().all(axis=None)
    assert training.predictions.index.is_monotonic_increasing and training.predictions.index.is_unique
    assert training.predictions.index[-1] == bars.index[-1]
    probabilities = training.predictions[["p_long", "p_short"]]
    assert ((probabilities > 0) & (probabilities < 1)).all(axis=None)
    assert training.bundle.features == list(features)
    assert set(training.seconds) == {"labels", "training", "skill", "sketch"} and min(training.seconds.values()) >= 0
    latest = training.bundle.predict(features.tail(3))
    assert list(latest) == COLUMNS and latest.notna().all(axis=None)
    assert len(training.bundle.explain(features.tail(1))) <= 8


def test_folds_are_purged_in_time_and_join_without_a_hole(bars, features, training):
    folds = training.folds
    assert (folds["labels_end"] < folds["test_start"]).all() and (folds["error"] == "").all()
    step = pd.Timedelta("15min")
    place = bars.index.get_indexer
    gap = place(folds["test_start"]) - place(folds["train_end"])
    assert (gap >= 2 * CONFIG.horizon_bars + 1).all()
    joined = features.loc[folds["test_start"].iloc[0] :].index
    assert training.predictions.index.equals(joined) and step == joined[1] - joined[0]
    assert (folds["independent_labels"] < folds["train_rows"] / 2).all()
    assert folds["test_rows"].sum() == len(joined)


def test_the_skill_table_names_its_rivals(training):
    skill = training.skill.set_index(["target", "metric"])
    ranges = [("up", "pinball_bps"), ("down", "pinball_bps"), ("up", "r2"), ("down", "r2"), ("log_range", "r2")]
    assert set(skill.loc[ranges, "baseline_name"]) <= {"atr", "ewma", "har", "garch"}
    sides = [(side, metric) for side in ("long", "short") for metric in ("brier", "log_loss", "auc")]
    assert {*ranges, *sides} <= set(skill.index)
    assert set(skill.loc[sides, "baseline_name"]) == {"base_rate", "chance"}
    assert np.isfinite(skill[["model", "baseline", "skill"]].astype(float)).all(axis=None)
    known = skill["low"].notna()
    assert (skill["low"] < skill["high"])[known].all() and known.loc[ranges].all()


def test_no_prediction_knows_the_bars_after_it(bars, features, training):
    """Replace everything after a moment in fold 2: every earlier prediction of folds 1 and 2 stays as it was."""
    moment = training.folds["test_start"].iloc[1] + 200 * pd.Timedelta("15min")
    later = bars.index > moment
    other = bars.copy()
    other.loc[later, ["open", "high", "low", "close"]] *= 1.7
    noise = features.copy()
    noise.loc[later] = np.random.default_rng(1).normal(size=noise.loc[later].shape) ** 2
    changed = Phase2Pipeline(CONFIG).run(other, noise)
    before, after = (t.predictions.loc[:moment] for t in (training, changed))
    assert len(before) > 600
    pd.testing.assert_frame_equal(before, after, check_exact=True)
    assert not changed.predictions.loc[moment:].equals(training.predictions.loc[moment:])


def test_a_leaked_label_is_found_at_once(bars, features):
    """Show that skill does rise when a feature knows the future, so that its absence above means something."""
    leak = features.assign(leak=bars["close"].shift(-12) / bars["close"] - 1)
    cheat = Phase2Pipeline(CONFIG).run(bars, leak).skill.set_index(["target", "metric"])["skill"]
    assert cheat["long", "auc"] > 0.4 and cheat["up", "pinball_bps"] > 0.1


@pytest.mark.parametrize("change", ["nothing", "no meta model", "a fold that fails"])
def test_predictions_without_the_rest_are_those_of_a_whole_training(bars, features, change):
    config = CONFIG.model_copy(
        update={"folds": 2, "rounds": 5, "meta": "off" if change == "no meta model" else "nested"}
    )
    X = features.copy()
    if change == "a fold that fails":
        X.iloc[-3:, 4] = np.inf
    whole, alone = Phase2Pipeline(config).run(bars, X), Phase2Pipeline(config).predict_folds(bars, X)
    assert (whole.folds["error"] != "").any() == (change == "a fold that fails")
    pd.testing.assert_frame_equal(alone, whole.predictions, check_exact=True)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_threads_change_nothing(bars, features, training, threads):
    same(Phase2Pipeline(CONFIG.model_copy(update={"threads": threads})).run(bars, features), training)


def test_a_failed_fold_is_a_line_in_the_table_and_spares_the_others(bars, features, training):
    broken = features.copy()
    broken.iloc[-3:, 4] = np.inf
    outcome = Phase2Pipeline(CONFIG).run(bars, broken)
    errors = outcome.folds["error"]
    assert errors.iloc[:2].tolist() == ["", ""]
    column = features.columns[4]
    assert f"`X` must be finite or NaN, column '{column}' has 3 infinities" in errors.iloc[2]
    assert "range: ModelError" in errors.iloc[2] and "tpsl: ModelError" in errors.iloc[2]
    last_fold = training.folds["test_start"].iloc[2]
    kept = training.predictions[training.predictions.index < last_fold]
    pd.testing.assert_frame_equal(outcome.predictions, kept, check_exact=True)
    assert outcome.skill["skill"].notna().all()


def test_when_nothing_can_be_fitted_the_reason_is_raised(bars, features):
    broken = features.copy()
    broken.iloc[600] = np.where(features.columns.str.startswith("range_mean"), features.iloc[600], np.inf)
    with pytest.raises(ModelError, match=r"training failed: .*`X` must be finite or NaN") as raised:
        Phase2Pipeline(CONFIG).run(bars, broken)
    assert 0 in raised.value.details["failed"]


def test_progress_counts_every_job_and_can_stop_the_run(bars, features):
    seen: list[tuple[int, int, str]] = []

    def stop(done: int, total: int, text: str) -> None:
        seen.append((done, total, text))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Phase2Pipeline(CONFIG).run(bars, features, stop)
    assert [done for done, _, _ in seen] == [1, 2, 3] and {total for _, total, _ in seen} == {JOBS}
    assert all(text.startswith(("final fit: ", "fold ")) for _, _, text in seen)


def test_too_few_rows_say_how_many_are_needed(bars, features):
    with pytest.raises(ModelError, match="3 folds need at least 992 bars that can be learned from"):
        Phase2Pipeline(CONFIG).run(bars[:1_000], features[:1_000])
    with pytest.raises(ModelError, match="can be learned from"):
        Phase2Pipeline(CONFIG).run(bars[:0], features[:0])


def test_features_of_other_bars_are_refused(bars, features):
    with pytest.raises(ModelError, match="`features` must have the bars' index, had 3999 rows for 4000 bars"):
        Phase2Pipeline(CONFIG).run(bars, features[1:])


def test_a_scale_is_found_or_asked_for(features):
    assert scale_columns(features)[0].startswith("range_mean_")
    assert scale_columns(features[["atr"]]) == ("atr",)
    with pytest.raises(ModelError, match="range_mean_<bars> or atr"):
        scale_columns(features[["rsi"]])


def test_a_scale_that_is_not_there_is_named(bars, features):
    with pytest.raises(ModelError, match=r"`X` must have a column 'atrs', did you mean 'atr'\?"):
        Phase2Pipeline(CONFIG.model_copy(update={"scale": ("atrs",)})).run(bars, features)


def test_kept_predictions_answer_like_a_bundle(features, training):
    kept = OutOfFold(training.predictions)
    predicted = kept.predict(features)
    assert predicted.index.equals(features.index) and list(predicted) == COLUMNS
    assert predicted.iloc[:500].isna().all(axis=None)
    pd.testing.assert_frame_equal(predicted.dropna(subset=COLUMNS[:8]), training.predictions, check_freq=False)


@pytest.mark.slow
def test_a_cluster_of_processes_changes_nothing(bars, features, training):
    same(Phase2Pipeline(CONFIG, "local").run(bars, features), training)


@pytest.mark.slow
def test_one_cannot_tell_the_sequence_model_was_there_when_it_proves_nothing(bars, features, training, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(phase2_jobs, "ATTENTION_ROWS", 100)
    gated = Phase2Pipeline(CONFIG.model_copy(update={"attention": "gated"})).run(bars, features)
    assert gated.gate["fold"].tolist() == [1, 2, 3, 0] and gated.gate["choice"].iloc[0] == "range"
    assert set(gated.rivals) == {*BASELINES, "range", "attention"}
    assert gated.bundle.models.keys() == training.bundle.models.keys() | {"attention"}
    sides = [name for name in COLUMNS if name not in RANGES]
    pd.testing.assert_frame_equal(gated.predictions[sides], training.predictions[sides], check_exact=True)
    kept = gated.gate.set_index("fold")["choice"] == "range"
    for fold in (number for number, by_trees in kept.items() if number and by_trees):
        test = gated.folds.set_index("fold").loc[fold]
        span = slice(test["test_start"], test["test_end"])
        pd.testing.assert_frame_equal(gated.predictions.loc[span], training.predictions.loc[span], check_exact=True)


def test_a_sequence_model_is_left_out_of_small_data_and_said_so(bars, features):
    short = Phase2Pipeline(CONFIG.model_copy(update={"attention": "gated", "folds": 1})).run(bars, features)
    assert short.gate.empty and short.bundle.attention is None
    assert any(note.startswith("attention: needs 50,000 labelled rows") for note in short.notes)


def test_an_optional_model_with_too_few_rows_is_left_out_with_a_note(training):
    first = training.folds.iloc[0]
    assert first["error"] == "" and "meta left out: 4 folds with 48 rows purged need at least" in first["note"]
    assert any(note.startswith("fold 1: meta left out: 4 folds") for note in training.notes)
    assert training.predictions.loc[: first["test_end"], "p_meta"].isna().all()
    assert training.bundle.meta is not None


def test_folds_can_begin_at_a_given_moment(bars, features):
    moment = bars.index[3_000]
    config = CONFIG.model_copy(update={"test_from": moment, "folds": 2, "meta": "off"})
    tested = Phase2Pipeline(config).run(bars, features)
    assert tested.predictions.index[0] >= moment and len(tested.folds) == 2
    assert (tested.folds["labels_end"] < tested.folds["test_start"]).all()
    with pytest.raises(ModelError, match="`test_from` must leave 200 labelled rows before it"):
        Phase2Pipeline(config.model_copy(update={"test_from": bars.index[20]})).run(bars, features)


def test_tuning_inside_folds_is_counted_and_causal(bars, features):
    config = CONFIG.model_copy(update={"tune_trials": 2, "folds": 1, "rounds": 5, "meta": "off"})
    note = Phase2Pipeline(config).run(bars, features).folds["note"].iloc[0]
    assert "range tuned in 2 trials" in note and "tpsl tuned in 2 trials" in note


def test_the_curve_is_chosen_in_the_settings(bars, features):
    settings = load_settings(models={"calibration": "venn_abers", "meta": "off", "folds": 1, "rounds": 5})
    training = Phase2Pipeline(settings.models).run(bars, features)
    assert {curve.kind for curve in training.bundle.tpsl.calibrations_.values()} == {"venn_abers"}


def test_a_fold_too_short_to_search_in_is_trained_as_set_and_says_so(bars, features):
    config = CONFIG.model_copy(update={"tune_trials": 2, "rounds": 5, "meta": "off"})
    folds = Phase2Pipeline(config).run(bars[:1_800], features[:1_800]).folds
    assert (folds["error"] == "").all() and "range not tuned: 3 folds with" in folds["note"].iloc[0]


def test_the_meta_model_learns_beside_the_primary_that_is_tuned(bars, features, monkeypatch):
    grown: list[int] = []
    monkeypatch.setattr(phase2_jobs, "search", lambda rows, name, X, Y, config: ({"max_depth": 2}, f"{name} tuned"))
    plain = phase2_jobs.make_tpsl

    def make(rows, config, boosting):
        grown.append(boosting.max_depth)
        return plain(rows, config, boosting)

    monkeypatch.setattr(phase2_jobs, "make_tpsl", make)
    config = CONFIG.model_copy(update={"tune_trials": 2, "rounds": 5, "folds": 1, "threads": 1})
    Phase2Pipeline(config).run(bars, features)
    assert set(grown) == {2}


def test_a_meta_model_that_no_fold_has_judged_does_not_answer(bars, features):
    training = Phase2Pipeline(CONFIG.model_copy(update={"folds": 5})).run(bars[:2_020], features[:2_020])
    assert "p_meta" not in training.predictions and "meta" not in training.bundle.models
    assert any("no fold has judged the meta model" in note for note in training.notes)


@pytest.mark.slow
def test_a_fold_without_meta_is_judged_for_all_the_rest(bars, features):
    training = Phase2Pipeline(CONFIG.model_copy(update={"folds": 4})).run(bars, features)
    alone = Phase2Pipeline(CONFIG.model_copy(update={"folds": 4, "meta": "off"})).run(bars, features)
    skill = training.skill.set_index(["target", "metric"])
    assert training.predictions["p_meta"].isna().any() and training.predictions["p_meta"].notna().any()
    assert skill.loc["meta", "rows"].max() < skill.loc["long", "rows"].min()
    pd.testing.assert_frame_equal(skill.drop(index="meta", level=0), alone.skill.set_index(["target", "metric"]))
    kept = training.reliability.query("target != 'meta'").reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, alone.reliability.reset_index(drop=True))


def test_a_constant_series_is_refused_in_words():
    flat = synthetic_market(3_000, timeframe="15m", seed=7).bars
    flat[["open", "high", "low", "close"]] = 100.0
    with pytest.raises(ModelError, match="no bar of 3,000 can be learned from: each is flat"):
        Phase2Pipeline(CONFIG).run(flat, build_features(flat, FeatureSpec(timeframe="15m", calendar="forex")))


def test_labels_all_alike_fall_back_to_the_base_rate_and_say_so(bars, features):
    far = Phase2Pipeline(CONFIG.model_copy(update={"risk_reward": 500.0, "meta": "off"})).run(bars, features)
    assert far.folds["note"].str.contains("long: labels all alike").all() and (far.folds["error"] == "").all()
    assert (far.predictions[["p_long", "p_short"]] < 0.01).all(axis=None)


def test_columns_of_nan_are_missing_values(bars, features):
    holes = features.assign(rsi=np.nan)
    trained = Phase2Pipeline(CONFIG.model_copy(update={"folds": 1, "meta": "off"})).run(bars, holes)
    assert (trained.folds["error"] == "").all() and trained.predictions.notna().all(axis=None)
    assert trained.sketch.features["rsi"].shares == (0.0, 1.0)


def test_an_array_of_one_row_is_answered_like_a_table(features, training):
    bundle = training.bundle
    many = bundle.predict(features.tail(300))
    values = bundle.values_of(features.tail(1))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(bundle.predict_values(values, features.index[-1:])[0], many.to_numpy()[-1])


def test_the_settings_are_the_defaults():
    assert load_settings().models == Phase2Config()
    with pytest.raises(ValueError, match="folds"):
        Phase2Config(folds=0)


@pytest.mark.slow
def test_five_folds_on_200_000_real_bars_beat_every_baseline_and_a_second_look_costs_nothing():
    bars = shared_bars("BTCUSDT_5m")[-201_500:]
    features = build_features(bars, FeatureSpec(timeframe="5m", calendar="crypto"))[-200_000:]
    training = Phase2Pipeline(Phase2Config()).run(bars[-200_000:], features)
    skill = training.skill.set_index(["target", "metric"])
    assert len(training.folds) == 5 and (training.folds["error"] == "").all()
    second = skill["baseline_name"] == "primary"
    assert second.sum() == 2 and (skill.loc[~second, "skill"] > 0).all() and (skill.loc[second, "high"] > 0).all()
    assert (skill.loc[["up", "down"]].query("metric == 'pinball_bps'")["low"] > 0).all()


def test_what_the_final_fit_noted_stands_in_the_notes():
    bars = synthetic_market(2_000, timeframe="1h", seed=7).bars
    config = Phase2Config(folds=1, rounds=5, horizon_bars=8, tune_trials=2, meta="off")
    training = Phase2Pipeline(config).run(bars, build_features(bars, FeatureSpec(timeframe="1h", calendar="forex")))
    noted = [note.removeprefix("final fit: ") for note in training.notes if note.startswith("final fit: ")]
    assert {note.split()[0] for note in noted} == {"range", "tpsl"} and all("tuned" in note for note in noted)
