"""Attention model and gate: what they find, refuse, keep and repeat, and that the future and PyTorch stay untouched."""

import threading

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from orbiquant.core import ModelError
from orbiquant.models.attention import AttentionModel, from_safetensors, sequence_columns, standard, to_safetensors
from orbiquant.models.baselines import SCORED_FLOOR, HarRange, pinball_loss, quantile_columns
from orbiquant.models.gate import blend, gate
from orbiquant.models.network import AttentionSpec, Windows, initial_weights, staircase, torch_settings

torch = pytest.importorskip("torch", reason="needs the extra 'deep'")

QUANTILES = (0.1, 0.5, 0.9)
QUICK = AttentionSpec(
    length=24, patch=3, width=16, heads=2, dropout=0.1, epochs=6, max_windows=3_000, batch=128, learning_rate=6e-3
)


def world(rows: int = 5_000, seed: int = 7, strength: float = 0.6) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return features and moves whose size depends on the order: the product of `signal` 12 and 15 bars ago."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2024-01-01", periods=rows, freq="15min", tz="UTC", name="time")
    signal = pd.Series(np.sign(rng.normal(size=rows)))
    echo = (signal.shift(12) + signal.shift(15)).fillna(0).to_numpy() / 2
    atr = 0.002 * np.exp(0.3 * np.sin(np.arange(rows) / 300))
    size = atr[:, None] * np.exp(strength * echo[:, None] + 0.4 * rng.normal(size=(rows, 2)))
    X = pd.DataFrame({"atr": atr, "signal": signal.to_numpy(), "noise": rng.normal(size=rows)}, index)
    return X, pd.DataFrame(size, index, ["up", "down"])


@pytest.fixture(scope="module")
def data():
    return world()


@pytest.fixture(scope="module")
def model(data):
    X, Y = data
    return AttentionModel(QUANTILES, horizon=1, spec=QUICK).fit(X[:4_000], Y[:4_000])


def losses(model, X: pd.DataFrame, Y: pd.DataFrame) -> float:
    """Return the mean pinball loss of both targets on the rows that are predicted."""
    found = model.predict(X)
    rows = found.notna().all(axis=1).to_numpy() & Y.notna().all(axis=1).to_numpy()
    columns = {t: [f"{t}_{q}" for q in QUANTILES] for t in ("up", "down")}
    return float(
        np.mean([pinball_loss(Y[t].to_numpy()[rows], found[c].to_numpy()[rows], QUANTILES) for t, c in columns.items()])
    )


# --- what it finds


def test_it_learns_what_only_the_sequence_shows(data, model):
    X, Y = data[0][4_000:], data[1][4_000:]
    assert model.epochs_ > 0 and losses(model, X, Y) < 0.88 * losses(
        model.scale_, X[model.context_ :], Y[model.context_ :]
    )
    shares = model.explain(X).mean()
    assert shares.idxmax() in (12, 15) and shares.index.tolist() == [21, 18, 15, 12, 9, 6, 3, 0]


def test_where_there_is_nothing_to_find_it_is_har():
    X, Y = world(rows=3_000, strength=0.0)
    kept = []
    for seed in range(3):
        spec = QUICK.model_copy(update={"seed": seed, "epochs": 2})
        found = AttentionModel(QUANTILES, horizon=1, spec=spec).fit(X[:2_500], Y[:2_500])
        kept.append(found.epochs_)
        if not found.epochs_:
            har = found.scale_.predict(X[2_500:])
            assert np.allclose(found.predict(X[2_500:])[found.context_ :], har[found.context_ :], rtol=1e-4)
            assert found.explain(X[2_500:]).isna().all().all()
    assert kept.count(0) >= 2


def test_quantiles_never_cross_and_rows_keep_their_index(data, model):
    X, _ = data
    found = model.predict(X[4_000:])
    assert (
        found.index.equals(X.index[4_000:])
        and list(found) == [*quantile_columns(QUANTILES), "log_range"] == model.columns_
    )
    for target in ("up", "down"):
        steps = found[model.context_ :][[f"{target}_{q}" for q in QUANTILES]].diff(axis=1).iloc[:, 1:]
        assert (steps >= 0).all().all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=7, max_size=7))
def test_no_answer_makes_a_crossing_staircase(answers):
    steps = torch.tensor([[0.1, 0.3, 0.6], [0.0, 0.2, 0.5]])
    found = staircase(torch.tensor([answers]), steps)
    assert bool((found.diff(dim=-1) >= 0).all())


# --- time


def test_the_future_changes_no_past_prediction(data, model):
    X, _ = data
    wild = X.copy()
    wild.iloc[4_500:] *= 3
    assert model.predict(wild)[:4_500].equals(model.predict(X)[:4_500])
    assert np.allclose(model.predict(X[:4_500])[model.context_ :], model.predict(X)[model.context_ : 4_500], rtol=1e-5)
    changed = model.predict(wild)[4_500:]
    assert not np.isclose(changed.to_numpy(), model.predict(X)[4_500:].to_numpy()).any()


def test_a_prediction_depends_on_its_window_alone_and_needs_all_of_it(data, model):
    X, _ = data
    assert model.context_ == 23
    found = model.predict(X[4_000:4_100])
    assert found[:23].isna().all().all() and found[23:].notna().all().all()
    one = model.predict(X[4_076:4_100])
    assert np.allclose(one.iloc[-1], found.iloc[-1], rtol=1e-5) and one[:-1].isna().all().all()
    assert model.predict(X[:0]).empty and model.predict(X[:23]).isna().all().all()
    assert np.isclose(model.explain(X[4_076:4_100]).iloc[-1].sum(), 1)


def test_training_never_sees_the_rows_behind_it(data, model):
    X, Y = data
    wild_x, wild_y = X.copy(), Y.copy()
    wild_x.iloc[4_000:], wild_y.iloc[4_000:] = 9.0, 9.0
    again = AttentionModel(QUANTILES, horizon=1, spec=QUICK).fit(wild_x[:4_000], wild_y[:4_000])
    assert again.to_bytes() == model.to_bytes()


def test_what_judges_standardises_nothing(data):
    X, Y = data[0][:1_500].copy(), data[1][:1_500]
    spec = QUICK.model_copy(update={"epochs": 1})
    before = AttentionModel(QUANTILES, horizon=10, spec=spec).fit(X, Y)
    X.iloc[1_400:, 1] += 50
    after = AttentionModel(QUANTILES, horizon=10, spec=spec).fit(X, Y)
    assert np.array_equal(before.mean_, after.mean_) and np.array_equal(before.spread_, after.spread_)


def test_windows_are_gathered_not_kept():
    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    windows = Windows(rows, np.zeros(10, np.float32), relative=0, length=3)
    assert windows.gather(np.array([4]))[0].tolist() == np.clip(rows[2:5], -5, 5).tolist()
    assert rows[4, 0] == 8 and windows.values is rows


# --- the same again


def test_same_rows_and_seed_give_the_same_model(data):
    X, Y = data[0][:1_500], data[1][:1_500]
    spec = QUICK.model_copy(update={"epochs": 2})
    first = AttentionModel(QUANTILES, 1, spec=spec).fit(X, Y).to_bytes()
    torch.manual_seed(1)
    assert AttentionModel(QUANTILES, 1, spec=spec).fit(X, Y).to_bytes() == first
    other = AttentionModel(QUANTILES, 1, spec=spec.model_copy(update={"seed": 8})).fit(X, Y)
    assert other.losses_ != AttentionModel.from_bytes(first).losses_


def test_a_stored_model_answers_the_same_to_the_last_bit(data, model):
    X, _ = data
    again = AttentionModel.from_bytes(model.to_bytes())
    assert again.predict(X[4_000:]).equals(model.predict(X[4_000:])) and again.to_bytes() == model.to_bytes()
    assert again.epochs_ == model.epochs_ and again.features_ == ["atr", "signal", "noise"]
    assert b"pickle" not in model.to_bytes() and len(model.to_bytes()) < 200_000


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\x02" + bytes(7) + b"{}",
        b"\xff" * 64,
        to_safetensors({}, {}),
        to_safetensors({"a": np.zeros(2, np.float32)}, {"spec": 1}),
    ],
)
def test_what_is_no_model_is_refused(content):
    with pytest.raises(ModelError, match="stored attention model cannot be read"):
        AttentionModel.from_bytes(content)


def test_a_model_cut_short_is_refused(model):
    with pytest.raises(ModelError, match="cut short"):
        AttentionModel.from_bytes(model.to_bytes()[:-8])


def test_packing_is_the_safetensors_layout():
    content = to_safetensors({"a": np.float32([[1, 2]]), "b": np.float32([3])}, {"n": 1})
    size = int.from_bytes(content[:8], "little")
    assert size % 8 == 0 and np.frombuffer(content[8 + size :], "<f4").tolist() == [1, 2, 3]
    arrays, about = from_safetensors(content)
    assert arrays["a"].shape == (1, 2) and about == {"n": 1}


def test_pytorch_is_left_as_it_was(data, model):
    torch.manual_seed(5)
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    X, Y = data
    AttentionModel(QUANTILES, 1, spec=QUICK.model_copy(update={"epochs": 1, "threads": 2})).fit(X[:800], Y[:800])
    model.predict(X[:100])
    with pytest.raises(RuntimeError, match="inside"), torch_settings(threads=3):
        raise RuntimeError("inside")
    assert torch.equal(torch.get_rng_state(), random) and torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_models_fitted_side_by_side_are_the_same_and_restore_the_settings(data):
    X, Y = data[0][:1_500], data[1][:1_500]
    found: list[bytes] = []

    def work() -> None:
        spec = QUICK.model_copy(update={"epochs": 2})
        found.append(AttentionModel(QUANTILES, 1, spec=spec).fit(X, Y).to_bytes())

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    work()
    assert found == [found[2]] * 3 and not torch.are_deterministic_algorithms_enabled()


# --- poor input


def test_missing_values_and_unlabelled_rows_are_no_obstacle(data):
    X, Y = data[0][:2_000].copy(), data[1][:2_000].copy()
    X.iloc[100:140, 1], X.iloc[700, 2], X["never"] = np.nan, np.nan, np.nan
    Y.iloc[-30:] = np.nan
    spec = QUICK.model_copy(update={"epochs": 2})
    found = AttentionModel(QUANTILES, 1, spec=spec).fit(X, Y).predict(X)
    assert np.isfinite(found[23:]).all().all()
    X.iloc[500, 0] = np.nan
    holed = AttentionModel(QUANTILES, 1, spec=spec).fit(X, Y).predict(X)
    assert holed.iloc[500].isna().all() and np.isfinite(holed.iloc[501:]).all().all()


def test_a_constant_series_is_predicted_as_it_is(data):
    X, Y = data[0][:1_000] * 0, data[1][:1_000] * 0
    found = AttentionModel(QUANTILES, 1, spec=QUICK).fit(X, Y)
    said = found.predict(X)[23:]
    assert found.epochs_ == 0 and (said.drop(columns="log_range") == 0).all().all()
    assert np.allclose(said["log_range"], np.log(SCORED_FLOOR), atol=1e-3)


@pytest.mark.parametrize("rows", [1, 20, 26])
def test_too_few_rows_are_an_error(data, rows):
    with pytest.raises(ModelError, match="rows"):
        AttentionModel(QUANTILES, horizon=12, spec=QUICK).fit(data[0][:rows], data[1][:rows])


def test_columns_are_found_by_name_and_their_lack_is_named(data, model):
    X, Y = data
    assert model.predict(X[["noise", "atr", "signal"]][:100]).equals(model.predict(X[:100]))
    with pytest.raises(ModelError, match="must have a column 'signal'"):
        model.predict(X.drop(columns="signal"))
    with pytest.raises(ModelError, match=r"must have a column 'sgnal'.*signal"):
        AttentionModel(QUANTILES, 1, spec=QUICK.model_copy(update={"columns": ("sgnal",)})).fit(X, Y)
    chosen = AttentionModel(QUANTILES, 1, spec=QUICK.model_copy(update={"columns": ("noise",), "epochs": 1}))
    assert chosen.fit(X[:600], Y[:600]).features_ == ["atr", "noise"]
    with pytest.raises(ModelError, match="column 'noise' has 1 infinities"):
        model.predict(X.assign(noise=np.where(np.arange(len(X)) == 3, np.inf, 0)))


@pytest.mark.parametrize("wrong", [{"patch": 5}, {"heads": 5}, {"length": 1}, {"depth": 3}])
def test_a_shape_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValidationError):
        AttentionSpec(**wrong)


def test_the_sequence_columns_are_those_of_the_matrix():
    names = ["return_1", "true_range", "position_24", "position_1h", "day_sin_2", "amd_p_neutral", "atr"]
    assert sequence_columns(pd.DataFrame(columns=names)) == ("true_range", "position_24", "day_sin_2")
    assert sequence_columns(pd.DataFrame(columns=["x"])) == ()


def test_standardising_knows_no_missing_values():
    mean, spread = standard(np.float32([[1, np.nan, 5], [3, np.nan, 5]]))
    assert mean.tolist() == [2, 0, 5] and spread.tolist() == [1, 1, 1]


def test_weights_depend_on_the_seed_alone_and_start_without_opinion():
    first, second = (initial_weights(AttentionSpec(), 20, 7) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not first["head"].any() and first["embed"].shape == (24, 160)


# --- devices


def test_a_gpu_that_is_not_there_is_an_error_and_never_the_cpu(data):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ModelError, match="`device` must be available, was 'cuda'"):
        AttentionModel(spec=AttentionSpec(device="cuda")).fit(*data)


def test_a_gpu_finds_what_the_cpu_finds(data, model):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    X, Y = data
    found = AttentionModel(QUANTILES, 1, spec=QUICK.model_copy(update={"device": "cuda"})).fit(X[:4_000], Y[:4_000])
    assert abs(losses(found, X[4_000:], Y[4_000:]) / losses(model, X[4_000:], Y[4_000:]) - 1) < 0.05


# --- the gate


def forecasters(rows: int = 6_000, seed: int = 3) -> tuple[pd.DataFrame, pd.Series, dict[float, pd.DataFrame]]:
    """Return outcomes, three folds, and forecasts by how much of the coming size they know."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2024-01-01", periods=rows, freq="15min", tz="UTC", name="time")
    size = np.exp(0.5 * rng.normal(size=rows))
    outcome = pd.DataFrame(0.002 * size[:, None] * rng.exponential(size=(rows, 2)), index, ["up", "down"])
    levels = np.tile(-np.log1p(-np.array(QUANTILES)), 2)
    known = {
        k: pd.DataFrame(0.002 * size[:, None] ** k * levels, index, quantile_columns(QUANTILES))
        for k in (0.0, 0.3, 0.8)
    }
    return outcome, pd.Series(np.repeat([1, 2, 3], rows // 3), index), known


def test_the_gate_decides_a_fold_without_its_outcome_or_any_later_one():
    outcome, folds, known = forecasters()
    forecasts = {"range": known[0.3], "har": known[0.0], "attention": known[0.8]}
    found = gate(outcome, forecasts, folds, QUANTILES, 12)
    assert found.decisions["choice"].tolist() == ["range", "attention", "attention", "attention"]
    shuffled = outcome.copy()
    start = int((folds == 2).to_numpy().argmax())
    shuffled.iloc[start - 12 :] = 0.5
    again = gate(shuffled, forecasts, folds, QUANTILES, 12)
    assert again.decisions.iloc[:2].equals(found.decisions.iloc[:2])
    assert again.predictions[folds < 3].equals(found.predictions[folds < 3])
    assert not again.decisions.iloc[2:].equals(found.decisions.iloc[2:])


def test_a_challenger_has_to_beat_every_incumbent():
    outcome, folds, known = forecasters()
    strong = gate(outcome, {"range": known[0.3], "har": known[0.8], "attention": known[0.8]}, folds, QUANTILES, 12)
    weak = gate(outcome, {"range": known[0.8], "har": known[0.0], "attention": known[0.3]}, folds, QUANTILES, 12)
    assert strong.choice == weak.choice == "range" and weak.predictions.equals(known[0.8])


def test_a_blend_that_is_better_than_both_is_chosen():
    outcome, folds, known = forecasters()
    rng = np.random.default_rng(0)
    noise = np.exp(0.8 * rng.normal(size=(2, len(folds), 1)))
    forecasts = {"range": known[0.8] * noise[0], "har": known[0.0] * 3, "attention": known[0.8] * noise[1]}
    found = gate(outcome, forecasts, folds, QUANTILES, 12)
    assert found.choice == "blend"
    last = folds == 3
    assert found.predictions[last].equals(blend([forecasts["range"], forecasts["attention"]])[last])


def test_little_evidence_proves_nothing_and_gaps_are_answered_by_the_incumbent():
    outcome, folds, known = forecasters()
    forecasts = {"range": known[0.3], "har": known[0.0], "attention": known[0.8].copy()}
    forecasts["attention"].iloc[4_500:4_600] = np.nan
    found = gate(outcome, forecasts, folds, QUANTILES, 12)
    assert found.predictions[4_500:4_600].equals(known[0.3][4_500:4_600]) and found.choice == "attention"
    few = gate(outcome[:400], forecasts, folds[:400], QUANTILES, 12)
    assert few.choice == "range" and few.decisions["attention_low"].isna().all()
    with pytest.raises(ModelError, match="`forecasts` must have 'har'"):
        gate(outcome, {"range": known[0.3], "attention": known[0.8]}, folds, QUANTILES, 12)


def test_har_alone_is_the_untrained_network(data):
    X, Y = data
    har = HarRange(("atr",), QUANTILES, 1).fit(X[:4_000].astype("float32").astype("float64"), Y[:4_000])
    steps = torch.from_numpy(np.diff(har.ratios_, axis=1, prepend=0).astype(np.float32))
    assert np.allclose(staircase(torch.zeros(1, 7), steps)[0], har.ratios_, rtol=1e-5)
