"""A model that an earlier program saved is still the very model that was judged."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orbiquant.core import configure_logging
from orbiquant.domain import SeriesId
from orbiquant.market.synthetic import synthetic_market
from orbiquant.models.cards import MANIFEST, StoredModel, digest, read_verified, version_name
from orbiquant.models.registry import ModelRegistry
from orbiquant.research.live import LiveLine
from orbiquant.research.spec import asked_spec, to_params
from orbiquant.research.train import trade_model
from orbiquant.runtime import Runtime
from orbiquant.settings import load_settings

ROOT = Path(__file__).parent / "fixtures" / "models"
EURUSD_1H = SeriesId.parse("EURUSD", "1h")
EXPECTED = json.loads((ROOT / "expected.json").read_text())


@pytest.fixture(scope="module")
def registry() -> ModelRegistry:
    """Return a registry of the folder that an earlier program filled."""
    return ModelRegistry(ROOT)


@pytest.fixture(scope="module")
def kept(registry: ModelRegistry) -> StoredModel:
    """Return the model that is served from there."""
    return registry.load(EURUSD_1H)


def test_it_is_listed_and_served_under_its_series(registry: ModelRegistry, kept: StoredModel):
    assert registry.series() == [EURUSD_1H] and registry.versions(EURUSD_1H) == [kept.card.version]
    assert [card.version for card in registry.list(EURUSD_1H)] == [registry.served(EURUSD_1H)] == [kept.card.version]
    assert kept.card.series == EURUSD_1H and registry.promotions(EURUSD_1H) == []


def test_its_version_is_rehashed_equal(registry: ModelRegistry, kept: StoredModel):
    folder = registry.folder(EURUSD_1H) / kept.card.version
    card, files = read_verified(folder)
    hashes = json.loads((folder / MANIFEST).read_bytes())
    assert hashes == {name: digest(content) for name, content in files.items()}
    others = {name: value for name, value in hashes.items() if name != "card.json"}
    assert version_name(card, others) == folder.name == "20261128T000000000000Z-145b1b9f"


def test_its_card_says_what_it_said(registry: ModelRegistry, kept: StoredModel):
    text = (registry.folder(EURUSD_1H) / kept.card.version / "card.json").read_text()
    assert kept.card.model_dump_json(indent=2, exclude_unset=True) == text


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """Return a workspace that has the bars the model was trained on, and the model."""
    configure_logging("ERROR")
    folder = tmp_path_factory.mktemp("kept")
    shutil.copytree(ROOT, folder / "models")
    places = {"store_uri": f"{folder}/store", "models_dir": f"{folder}/models", "database_url": f"sqlite:///{folder}/o"}
    made = Runtime(load_settings(workspace=places))
    made.store.upsert(EURUSD_1H, synthetic_market(2600, "1h", seed=11).bars)
    yield made
    made.engine.dispose()


def test_it_says_of_its_last_bar_what_it_said_then(runtime: Runtime):
    said, before = json.loads(LiveLine(runtime, EURUSD_1H).latest().model_dump_json()), dict(EXPECTED["live"])
    weights, known = ({w["name"]: w["importance"] for w in signal.pop("features")} for signal in (said, before))
    assert said == before and list(weights) == list(known)
    assert list(weights.values()) == pytest.approx(list(known.values()), abs=1e-6)


def test_its_predictions_trade_as_they_did_and_are_the_trial_they_were(runtime: Runtime):
    _, _, traded = trade_model(runtime, EURUSD_1H, "primary")
    assert len(traded.result.trades) == EXPECTED["trades"]
    assert traded.summary["total_r"] == pytest.approx(EXPECTED["total_r"], rel=1e-12)
    assert runtime.trials.table(EURUSD_1H)["key"].tolist() == [EXPECTED["trial_keys"][0]["key"]]


def test_its_card_is_the_spec_that_was_asked_for(kept: StoredModel):
    spec = asked_spec(kept.card)
    assert to_params(spec) == kept.card.params and spec.training.model_dump(mode="json") == kept.card.training
