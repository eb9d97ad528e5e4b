"""A model that an earlier program saved is still the very model that was judged."""

import json
from pathlib import Path

import pytest

from orbiquant.domain import SeriesId
from orbiquant.models.cards import MANIFEST, StoredModel, digest, read_verified, version_name
from orbiquant.models.registry import ModelRegistry

ROOT = Path(__file__).parent / "fixtures" / "models"
EURUSD_1H = SeriesId.parse("EURUSD", "1h")


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
