"""A kept model is fed what it was trained on, whatever the settings say by now."""

from pathlib import Path

import pandas as pd
import pytest

from orbiquant.core import ModelError, configure_logging
from orbiquant.domain import SeriesId
from orbiquant.market.synthetic import synthetic_market
from orbiquant.models.cards import ModelCard, StoredModel
from orbiquant.research.drift import model_drift
from orbiquant.research.live import LiveLine
from orbiquant.research.spec import ResearchSpec, asked_spec, feature_spec, kept_line, spec_now
from orbiquant.research.train import prepare, trade_model, train
from orbiquant.runtime import Runtime
from orbiquant.settings import load_settings

EURUSD_1H = SeriesId.parse("EURUSD", "1h")

BARS = synthetic_market(3000, "1h", seed=11).bars
OTHER = {
    "phases": {"range_bars": 96},
    "sessions": {"asia": "00:00-04:00", "london_open": "08:00-11:00", "new_york_am": "12:00-14:00"},
}


def runtime_in(folder: Path, **changes: dict) -> Runtime:
    """Return a runtime on a folder, with settings of its own."""
    places = {"store_uri": f"{folder}/store", "models_dir": f"{folder}/models", "database_url": f"sqlite:///{folder}/o"}
    return Runtime(load_settings(workspace=places, models={"folds": 2, "rounds": 20}, **changes))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def stored(place: Path) -> StoredModel:
    configure_logging("ERROR")
    made = runtime_in(place)
    made.store.upsert(EURUSD_1H, BARS.iloc[:2400])
    spec = ResearchSpec.from_settings(made.settings, EURUSD_1H)
    kept = train(made, prepare(made, spec), spec)
    made.store.upsert(EURUSD_1H, BARS)
    return kept


def test_the_card_keeps_how_features_were_built_and_models_fitted(place: Path, stored: StoredModel):
    settings = runtime_in(place).settings
    assert kept_line(stored.card).features == feature_spec(settings, EURUSD_1H)
    spec = asked_spec(stored.card)
    assert stored.card.training == spec.training.model_dump(mode="json")
    assert {"max_depth", "learning_rate", "embargo_bars", "quantiles"} <= set(stored.card.training)


@pytest.mark.parametrize("section", sorted(OTHER))
def test_other_settings_do_not_change_what_a_kept_model_is_fed(place: Path, stored: StoredModel, section: str):
    as_trained, other = runtime_in(place), runtime_in(place, **{section: OTHER[section]})
    assert feature_spec(other.settings, EURUSD_1H) != kept_line(stored.card).features
    assert LiveLine(other, EURUSD_1H).latest() == LiveLine(as_trained, EURUSD_1H).latest()
    pd.testing.assert_frame_equal(model_drift(other, EURUSD_1H).table, model_drift(as_trained, EURUSD_1H).table)
    found, expected = (trade_model(each, EURUSD_1H, "base")[2] for each in (other, as_trained))
    pd.testing.assert_frame_equal(found.signals, expected.signals)


@pytest.mark.parametrize("spec", [{}, {"timeframe": "1h", "retired": 1}], ids=["before", "other form"])
def test_a_model_that_cannot_tell_its_features_must_be_trained_again(place: Path, stored: StoredModel, spec: dict):
    runtime = runtime_in(place)
    before = stored.card.model_copy(update={"feature_spec": spec, "version": ""})
    version = runtime.registry.save(stored, before, stored.trades)
    runtime.registry.promote(EURUSD_1H, version, runtime.clock.now(), force=True)
    for ask in (lambda *asked: LiveLine(*asked).latest(), model_drift, trade_model):
        with pytest.raises(ModelError, match=f"model {version} was kept without how its features are built.*train it"):
            ask(runtime, EURUSD_1H)
    runtime.registry.promote(EURUSD_1H, stored.card.version, runtime.clock.now(), force=True)


def test_a_card_of_another_research_spec_is_a_model_error(stored: StoredModel):
    odd: ModelCard = stored.card.model_copy(update={"params": stored.card.params | {"retired": 1}})
    model = StoredModel(**vars(stored) | {"card": odd})
    with pytest.raises(ModelError, match="was kept with another research spec: train it again"):
        spec_now(model.card, load_settings())
