"""The learned phase detector: blind to the future and to units, better than its rivals where the truth is known."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiquant.core import ModelError, OptionError
from orbiquant.domain import Bars, SeriesId
from orbiquant.features.config import PhaseConfig
from orbiquant.features.matrix import causality_violations
from orbiquant.features.phases import PROBABILITIES, detect_phases
from orbiquant.market.bars import empty_bars
from orbiquant.market.synthetic import BITCOIN_LIKE, synthetic_market
from orbiquant.models.amd import (
    STATES,
    AmdClassifier,
    AmdSpec,
    amd_view,
    detector_file,
    learned_phases,
    practice,
    states_of,
    stored_detector,
    train_detector,
)
from orbiquant.models.amd_rivals import (
    HMM_COLUMNS,
    HmmPhases,
    VolatilityPhases,
    best_naming,
    codes_of,
    macro_f1,
    phase_scores,
    state_codes,
)
from orbiquant.models.boosting import Boosting
from orbiquant.research.spec import ResearchSpec
from orbiquant.runtime import Runtime
from orbiquant.settings import load_settings
from tests.tools.shared_bars import shared_bars

RULES = PhaseConfig()
SPEC = AmdSpec(
    markets=8, rows=3000, boosting=Boosting(rounds=40, learning_rate=0.2, max_depth=5, max_rows=100_000, patience=10)
)


@pytest.fixture(scope="module")
def lesson() -> tuple[pd.DataFrame, np.ndarray]:
    """Return what a few small markets teach."""
    return practice(SPEC)


@pytest.fixture(scope="module")
def detector(lesson: tuple[pd.DataFrame, np.ndarray]) -> AmdClassifier:
    """Return a detector trained on them."""
    return AmdClassifier(SPEC.boosting).fit(*lesson)


def view_of(bars: Bars) -> pd.DataFrame:
    """Return what the model sees of bars."""
    return amd_view(bars, detect_phases(bars, RULES))


def test_the_same_spec_makes_the_same_detector(detector):
    assert train_detector(SPEC).to_json() == detector.to_json()


def test_it_survives_storage_and_refuses_what_is_none(detector):
    view = view_of(synthetic_market(1000, seed=3).bars)
    assert AmdClassifier.from_json(detector.to_json()).predict(view).equals(detector.predict(view))
    for content in (b"", b"{}", b'{"boosting": {}, "features": [], "temperature": "x", "booster": {}}'):
        with pytest.raises(ModelError, match="stored AMD model cannot be read"):
            AmdClassifier.from_json(content)


def test_a_detector_is_trained_once_and_again_when_its_file_is_damaged(tmp_path, detector):
    kept = stored_detector(tmp_path / "new", SPEC)
    (file,) = (tmp_path / "new").iterdir()
    assert kept.to_json() == detector.to_json() == file.read_bytes()
    written = file.stat().st_mtime_ns
    assert stored_detector(tmp_path / "new", SPEC).to_json() == detector.to_json()
    assert file.stat().st_mtime_ns == written
    file.write_bytes(file.read_bytes()[:1000])
    assert stored_detector(tmp_path / "new", SPEC).to_json() == detector.to_json() == file.read_bytes()


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(700, 1999), min_size=1, max_size=3))
def test_no_bar_of_the_future_changes_a_phase(detector, seed, cuts):
    bars = synthetic_market(2000, "5m", seed, BITCOIN_LIKE).bars
    assert causality_violations(lambda part: learned_phases(part, detector, RULES), bars, cuts).empty


def test_the_table_is_that_of_the_rules(detector):
    bars = synthetic_market(3000, seed=5).bars
    found, rules = learned_phases(bars, detector, RULES), detect_phases(bars, RULES)
    assert list(found) == list(rules) and (found.dtypes == rules.dtypes).all() and found.index.equals(rules.index)
    assert np.allclose(found[list(PROBABILITIES)].sum(axis=1), 1)
    assert (found["phase"].iloc[: RULES.first_known] == "neutral").all()
    likeliest = found[list(PROBABILITIES)].idxmax(axis=1).str.removeprefix("p_")
    assert (likeliest == found["phase"].replace("invalidated", "neutral")).all()
    pointing = found["phase"].isin(["manipulation", "distribution"])
    assert (found["direction"].ne(0) == pointing).all()
    new = found["phase"].ne(found["phase"].shift())
    assert (found["age"].eq(0) == new).all() and (found["age"].diff()[~new] == 1).all()


def test_no_bars_and_still_bars_have_phases_too(detector):
    assert learned_phases(empty_bars(), detector, RULES).empty
    still = synthetic_market(1500, seed=1).bars.assign(open=1.0, high=1.0, low=1.0, close=1.0, volume=0.0)
    found = learned_phases(still, detector, RULES)
    assert np.isfinite(found[list(PROBABILITIES)].to_numpy()).all()


def test_prices_have_no_unit(detector):
    bars = synthetic_market(2000, seed=8).bars
    dear = bars.assign(**{name: 1024 * bars[name] for name in ("open", "high", "low", "close")})
    first, second = (learned_phases(part, detector, RULES) for part in (bars, dear))
    assert (first["phase"] == second["phase"]).mean() > 0.999


def test_a_lesson_without_a_state_is_refused(lesson):
    X, y = lesson
    with pytest.raises(ModelError, match="without manipulation_up"):
        AmdClassifier(SPEC.boosting).fit(X, np.where(y == 2, 0, y))


@pytest.mark.slow
def test_it_beats_its_rivals_where_the_truth_is_known(detector, lesson):
    blind, hidden = VolatilityPhases(SPEC.boosting).fit(*lesson), HmmPhases().fit(*lesson)
    assert all(name.startswith("volatility_") for name in blind.features_)
    markets = [synthetic_market(4000, seed=seed) for seed in (50, 51)]
    views = [view_of(market.bars).iloc[RULES.first_known :] for market in markets]
    truth = np.concatenate([codes_of(m.phases["phase"])[RULES.first_known :] for m in markets])
    own, calm, states = (
        macro_f1(truth, np.concatenate([codes(view) for view in views]))
        for codes in (lambda v: state_codes(detector.predict(v)), lambda v: state_codes(blind.predict(v)), hidden.codes)
    )
    assert own > max(calm, states) + 0.1


@pytest.mark.parametrize("seed", range(5))
def test_hidden_states_get_the_names_that_suit_them_best(seed):
    rng = np.random.default_rng(seed)
    truth = rng.choice(4, 2000, p=[0.6, 0.25, 0.03, 0.12])
    states = np.where(rng.random(2000) < 0.5, (truth + 1) % 4, rng.integers(0, 4, 2000))
    counts = np.zeros((4, 4))
    np.add.at(counts, (states, truth), 1.0)
    scores = [macro_f1(truth, np.array(naming)[states]) for naming in np.ndindex(4, 4, 4, 4)]
    assert macro_f1(truth, best_naming(counts)[states]) == pytest.approx(max(scores))


def test_the_hidden_markov_model_is_filtered_not_smoothed(lesson):
    hidden = HmmPhases().fit(*lesson)
    view = view_of(synthetic_market(2000, seed=9).bars)
    whole = hidden.filtered(view)
    assert np.array_equal(whole[:1500], hidden.filtered(view.iloc[:1500]))
    assert np.allclose(whole.sum(axis=1), 1)
    with pytest.raises(ModelError, match="complete rows"):
        HmmPhases().fit(view.iloc[:100], np.zeros(100, int))


def test_the_last_filtered_row_is_hmmlearns_own_posterior(lesson):
    """Smoothing and filtering agree on the last row, the only one that has no future."""
    hidden = HmmPhases().fit(*lesson)
    view = view_of(synthetic_market(1500, seed=10).bars).iloc[RULES.first_known :]
    scaled = np.nan_to_num(hidden._scaled(view[list(HMM_COLUMNS)].to_numpy()))
    assert np.allclose(hidden.filtered(view)[-1], hidden.model_.predict_proba(scaled)[-1], atol=1e-6)


def test_states_and_scores_count_what_they_say():
    phases = pd.DataFrame(
        {"phase": ["neutral", "manipulation", "distribution", "invalidated"], "direction": [0, -1, 1, 1]}
    )
    assert [STATES[n] for n in states_of(phases)] == ["neutral", "manipulation_down", "distribution_up", "neutral"]
    perfect = phase_scores(phases["phase"], phases["phase"])
    assert perfect["f1"].tolist() == [1, 0, 1, 1] and perfect["false_alarms"].eq(0).all()


def test_real_bars_have_every_phase(detector):
    bars = shared_bars("BTCUSDT_5m").tail(5000)
    found = learned_phases(bars, detector, RULES).iloc[RULES.first_known :]
    assert {"neutral", "accumulation", "distribution"} <= set(found["phase"])


def test_the_line_reads_the_detector_that_settings_name(tmp_path, detector):
    """The kept file answers, so that the minute of training is not part of this test."""
    home = load_settings()
    workspace = home.workspace.model_copy(update={"models_dir": tmp_path / "models"})
    signals = home.signals.model_copy(update={"phase_detector": "learned"})
    runtime = Runtime(home.model_copy(update={"workspace": workspace, "signals": signals}))
    kept = tmp_path / "models" / "amd" / detector_file(AmdSpec())
    kept.parent.mkdir(parents=True)
    kept.write_bytes(detector.to_json())
    spec = ResearchSpec.from_settings(runtime.settings, SeriesId.parse("EURUSD", "1h"))
    assert spec.signals.phase_detector == "learned"
    bars = synthetic_market(1500, "1h", 4).bars
    found = runtime.detector(spec.signals.phase_detector)(bars, RULES)
    assert found.equals(learned_phases(bars, detector, RULES))
    assert runtime.detector("rules")(bars, RULES).equals(detect_phases(bars, RULES))
    with pytest.raises(OptionError, match="`phase_detector` must be one of rules, learned, was 'ruels'"):
        runtime.detector("ruels")
