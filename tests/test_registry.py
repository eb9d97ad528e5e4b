"""The registry under corruption, concurrency and kill -9: whole, verified and never overwritten."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from orbiquant.cli.models import behind
from orbiquant.core import DataError, ModelError, NotFoundError
from orbiquant.domain import SeriesId
from orbiquant.models.boosting import Boosting
from orbiquant.models.bundle import ModelBundle
from orbiquant.models.cards import MANIFEST, NEEDED_FILES, ModelCard, digest, version_name
from orbiquant.models.range_predictor import RangePredictor
from orbiquant.models.registry import ModelRegistry
from orbiquant.models.tpsl import TPSLClassifier

EURUSD_1H = SeriesId.parse("EURUSD", "1h")

START = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def training():
    rng = np.random.default_rng(7)
    index = pd.date_range("2024-01-01", periods=600, freq="1h", tz="UTC", name="time")
    X = pd.DataFrame({"atr": rng.uniform(1e-3, 2e-3, 600), "signal": rng.normal(size=600)}, index)
    moves = X["atr"].to_numpy()[:, None] * np.exp(X["signal"].to_numpy()[:, None] + rng.normal(size=(600, 2)) / 4)
    Y = pd.DataFrame(moves, index, ["up", "down"]).assign(long=X["signal"] > 0, short=X["signal"] < -1).astype(float)
    few = Boosting(rounds=8, leaf_rows=10)
    bundle = ModelBundle(
        RangePredictor(horizon=1, boosting=few).fit(X, Y), TPSLClassifier(horizon=1, boosting=few).fit(X, Y)
    )
    assert bundle.range_predictor.rounds_["up"] and bundle.tpsl.rounds_["long"]
    folds = pd.DataFrame({"fold": [1], "train_start": [index[0]], "error": [""]})
    skill = pd.DataFrame({"target": ["up"], "skill": [0.1], "low": [np.nan]})
    return SimpleNamespace(
        bundle=bundle,
        predictions=bundle.predict(X),
        folds=folds,
        skill=skill,
        gate=pd.DataFrame(),
        reliability=pd.DataFrame(),
        sketch=None,
        X=X,
    )


def card(minutes: int = 0, **changes) -> ModelCard:
    """Return a card created so many minutes after the start."""
    values = {
        "symbol": "EURUSD", "timeframe": "1h", "data_version": 3, "code_version": "test", "features": ["atr", "signal"],
        "params": {"folds": 5}, "metrics": {"expectancy_r": 0.1}, "created": START + timedelta(minutes=minutes),
        "rows": 600, "start": START, "end": START + timedelta(days=25), "seed": 7,
    }  # fmt: skip
    return ModelCard.model_validate(values | changes)


def test_what_was_saved_is_what_is_loaded(tmp_path, training):
    registry = ModelRegistry(tmp_path / "models")
    version = registry.save(training, card(metrics={"sharpe": float("nan"), "worst": float("-inf"), "r": 1e-300}))
    stored = registry.load(SeriesId.parse("eur/usd", "1h"))
    assert stored.card.version == version and stored.card.params == {"folds": 5}
    assert np.isnan(stored.card.metrics["sharpe"]) and stored.card.metrics["worst"] == -np.inf
    assert stored.card.metrics["r"] == 1e-300
    for name in ("predictions", "folds", "skill"):
        found, kept = getattr(stored, name), getattr(training, name)
        pd.testing.assert_frame_equal(found, kept, check_exact=True, check_freq=False)
    pd.testing.assert_frame_equal(stored.bundle.predict(training.X), training.predictions, check_exact=True)
    row = training.X.tail(1)
    assert stored.bundle.explain(row) == training.bundle.explain(row)
    assert stored.bundle.features == ["atr", "signal"]
    assert {p.name for p in (tmp_path / "models" / "EURUSD_1h" / version).iterdir()} == NEEDED_FILES | {MANIFEST}


def test_an_explanation_names_the_side_that_is_likelier(training):
    high, low = (training.X.sort_values("signal").iloc[[i]] for i in (-1, 0))
    assert training.bundle.explain(high)[0].name == "signal" and training.bundle.explain(high)[0].importance > 0
    assert training.bundle.explain(high) == training.bundle.explain(high, "long")
    assert training.bundle.explain(low) == training.bundle.explain(low.iloc[0], "short")
    assert len(training.bundle.explain(high, most=1)) == 1
    with pytest.raises(ModelError, match="`row` must be one row, had 600"):
        training.bundle.explain(training.X)


def test_versions_are_listed_newest_first_and_by_series(tmp_path, training):
    registry = ModelRegistry(tmp_path)
    saved = [registry.save(training, card(minute)) for minute in (5, 1, 3)]
    other = registry.save(training, card(2, symbol="BTCUSDT", timeframe="5m"))
    assert [c.version for c in registry.list()] == [saved[0], saved[2], other, saved[1]]
    assert [c.version for c in registry.list(SeriesId.parse("EUR/USD", "1h"))] == [saved[0], saved[2], saved[1]]
    assert registry.list(SeriesId.parse("GBPUSD", "1h")) == [] and ModelRegistry(tmp_path / "none").list() == []
    assert registry.load(EURUSD_1H).card.version == saved[0]
    assert registry.load(EURUSD_1H, saved[1]).card.created == card(1).created


def test_versions_count_in_utc_whatever_zone_the_clock_is_in(tmp_path, training):
    east = timezone(timedelta(hours=9))
    version = ModelRegistry(tmp_path).save(training, card(created=START.astimezone(east)))
    assert version.startswith("20240301T000000000000Z-")
    assert (tmp_path / "EURUSD_1h" / version).stat().st_mode & 0o777 == 0o755


def test_saving_the_same_again_changes_nothing(tmp_path, training):
    registry = ModelRegistry(tmp_path)
    first = registry.save(training, card())
    folder = tmp_path / "EURUSD_1h" / first
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert registry.save(training, card()) == first
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [first]


@pytest.mark.parametrize("name", sorted(NEEDED_FILES | {MANIFEST}))
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_a_damaged_file_is_refused_by_name(tmp_path, training, name, damage):
    registry = ModelRegistry(tmp_path)
    path = tmp_path / "EURUSD_1h" / registry.save(training, card()) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"flip": bytes(content), "cut": bytes(content[:-5]), "empty": b""}[damage])
    with pytest.raises(ModelError) as raised:
        registry.load(EURUSD_1H)
    named = {MANIFEST, *NEEDED_FILES} if name == MANIFEST else {name}
    assert any(file in str(raised.value) for file in named)


@pytest.mark.parametrize("content", [[], {}, {"card.json": ""}, None])
def test_a_manifest_that_lists_something_else_is_refused(tmp_path, training, content):
    registry = ModelRegistry(tmp_path)
    path = tmp_path / "EURUSD_1h" / registry.save(training, card()) / MANIFEST
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"manifest\.json is not the file that was saved"):
        registry.load(EURUSD_1H)


def write_manifest(folder: Path, **hashes: str | None) -> None:
    """Put hashes into a version's manifest; None strikes a file out."""
    kept = json.loads((folder / MANIFEST).read_text()) | hashes
    (folder / MANIFEST).write_text(json.dumps({name: value for name, value in kept.items() if value}))


def test_a_version_of_another_series_is_refused(tmp_path, training):
    registry = ModelRegistry(tmp_path)
    version = registry.save(training, card())
    for series in ("GBPUSD_1h", "EURUSD_4h"):
        shutil.copytree(tmp_path / "EURUSD_1h", tmp_path / series)
        with pytest.raises(ModelError, match=f"must be of {series}/{version}, was of EURUSD_1h/{version}"):
            registry.load(SeriesId.parse(*series.split("_")))
    assert [c.symbol for c in registry.list()] == ["EURUSD"] and registry.list(SeriesId.parse("GBPUSD", "1h")) == []
    assert registry.load(EURUSD_1H).card.version == version


def test_a_renamed_version_is_refused(tmp_path, training):
    registry = ModelRegistry(tmp_path)
    version, fake = registry.save(training, card()), "20300101T000000000000Z-deadbeef"
    shutil.copytree(tmp_path / "EURUSD_1h" / version, tmp_path / "EURUSD_1h" / fake)
    with pytest.raises(ModelError, match=f"must be of EURUSD_1h/{fake}, was of EURUSD_1h/{version}"):
        registry.load(EURUSD_1H)
    assert [c.version for c in registry.list()] == [version]


def test_a_file_struck_from_the_manifest_is_missed(tmp_path, training):
    registry = ModelRegistry(tmp_path)
    version = registry.save(SimpleNamespace(**vars(training) | {"gate": pd.DataFrame({"fold": [1]})}), card())
    folder = tmp_path / "EURUSD_1h" / version
    write_manifest(folder, **{"gate.parquet": None})
    (folder / "gate.parquet").unlink()
    with pytest.raises(ModelError, match=f"model {version}: its files must be those of that version, were those of"):
        registry.load(EURUSD_1H)


def test_a_file_replaced_together_with_its_hash_is_found(tmp_path, training):
    registry = ModelRegistry(tmp_path)
    folder = tmp_path / "EURUSD_1h" / registry.save(training, card())
    other = training.predictions.head(3).to_parquet()
    (folder / "predictions.parquet").write_bytes(other)
    write_manifest(folder, **{"predictions.parquet": digest(other)})
    with pytest.raises(ModelError, match="its files must be those of that version"):
        registry.load(EURUSD_1H)


@pytest.mark.parametrize("change", [{"future_field": 1}, {"rows": "many"}, {"seed": None}])
def test_a_card_of_another_form_is_refused_by_field(tmp_path, training, change):
    registry = ModelRegistry(tmp_path)
    folder = tmp_path / "EURUSD_1h" / registry.save(training, card())
    content = json.dumps(json.loads((folder / "card.json").read_text()) | change).encode()
    (folder / "card.json").write_bytes(content)
    write_manifest(folder, **{"card.json": digest(content)})
    with pytest.raises(ModelError, match=rf"card\.json is not of this program's form \({next(iter(change))}: "):
        registry.load(EURUSD_1H)


def test_a_card_from_before_a_field_keeps_its_name(tmp_path, training):
    """A version that was kept with fewer fields is still the one its name says."""
    registry = ModelRegistry(tmp_path)
    folder = tmp_path / "EURUSD_1h" / registry.save(training, card())
    said = {k: v for k, v in json.loads((folder / "card.json").read_text()).items() if k != "training"}
    hashes = {k: v for k, v in json.loads((folder / MANIFEST).read_text()).items() if k != "card.json"}
    former = ModelCard.model_validate({k: v for k, v in said.items() if k != "version"})
    version = version_name(former, hashes)
    assert version != folder.name
    content = json.dumps(said | {"version": version}).encode()
    (folder / "card.json").write_bytes(content)
    write_manifest(folder, **{"card.json": digest(content)})
    folder.rename(folder.parent / version)
    assert registry.load(EURUSD_1H).card.training == {}


def test_a_sketch_of_another_form_is_refused(tmp_path, training):
    registry = ModelRegistry(tmp_path)
    odd = SimpleNamespace(model_dump_json=lambda: '{"horizon": 0}')
    registry.save(SimpleNamespace(**vars(training) | {"sketch": odd}), card())
    with pytest.raises(ModelError, match=r"sketch\.json is not of this program's form: train it again"):
        registry.load(EURUSD_1H)


def test_a_damaged_card_does_not_hide_the_others_from_the_list(tmp_path, training):
    registry = ModelRegistry(tmp_path)
    good, bad = registry.save(training, card()), registry.save(training, card(1))
    (tmp_path / "EURUSD_1h" / bad / "card.json").write_text("{}")
    assert [c.version for c in registry.list()] == [good]
    with pytest.raises(ModelError, match=r"card\.json"):
        registry.load(EURUSD_1H)


def test_what_is_not_there_is_said_with_the_nearest_name(tmp_path, training):
    registry = ModelRegistry(tmp_path)
    with pytest.raises(NotFoundError, match="no model of EURUSD 1h is saved"):
        registry.load(EURUSD_1H)
    version = registry.save(training, card())
    with pytest.raises(NotFoundError, match=r"did you mean .?EURUSD 1h"):
        registry.load(SeriesId.parse("EURUSD", "4h"))
    with pytest.raises(NotFoundError, match=f"did you mean .{version}"):
        registry.load(EURUSD_1H, version[:-1] + "z")
    with pytest.raises(NotFoundError):
        registry.load(EURUSD_1H, "../../etc")
    with pytest.raises(DataError):
        registry.load(SeriesId.parse("../x", "1h"))


def test_many_that_save_at_once_all_succeed(tmp_path, training):
    registry = ModelRegistry(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda i: registry.save(training, card(i % 4)), range(16)))
    assert len(set(versions)) == 4 and [c.version for c in registry.list()] == sorted(set(versions), reverse=True)
    for version in set(versions):
        registry.load(EURUSD_1H, version)
    assert not list((tmp_path / "EURUSD_1h").glob(".*"))


def save_for_ever(root: Path, training: SimpleNamespace) -> None:
    """Save one version after the other until killed."""
    registry = ModelRegistry(root)
    for minute in range(10_000):
        registry.save(training, card(minute))


@pytest.mark.skipif(os.name != "posix", reason="needs fork and SIGKILL")
def test_a_killed_save_leaves_every_listed_version_whole(tmp_path, training):
    rng = np.random.default_rng(7)
    fork = multiprocessing.get_context("fork")
    for attempt in range(6):
        root = tmp_path / str(attempt)
        process = fork.Process(target=save_for_ever, args=(root, training))
        process.start()
        deadline = time.monotonic() + 20
        while not list(root.glob("EURUSD_1h/[0-9]*")) and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        registry = ModelRegistry(root)
        cards = registry.list()
        assert cards and len(cards) == len(registry.versions(EURUSD_1H))
        for found in cards[:3]:
            registry.load(EURUSD_1H, found.version)
        assert registry.save(training, card(99_999)) == registry.list()[0].version


def test_a_card_names_what_is_wrong_with_it():
    with pytest.raises(ValueError, match="timeframe"):
        card(timeframe="2h")
    with pytest.raises(ValueError, match="created"):
        card(created=datetime(2024, 1, 1))
    assert ModelCard.model_validate_json(card().model_dump_json()) == card()


# --- which version is served ---


SKILL = pd.DataFrame(
    {"target": ["up", "long"], "metric": ["pinball_bps", "log_loss"], "baseline_name": ["har", "base_rate"]}
).assign(skill=[0.02, 0.001], low=-0.01, high=0.03)


def judged(training: SimpleNamespace, *skill: float) -> SimpleNamespace:
    """Return the training with these figures of skill."""
    return SimpleNamespace(**vars(training) | {"skill": SKILL.assign(skill=skill)})


def test_what_was_promoted_is_served_whatever_is_trained_after_it(tmp_path, training):
    registry = ModelRegistry(tmp_path)
    first, second = (registry.save(judged(training, 0.02, 0.001), card(minute)) for minute in (0, 1))
    assert registry.served(EURUSD_1H) == second
    registry.promote(SeriesId.parse("eur/usd", "1h"), first, START)
    third = registry.save(judged(training, 0.02, 0.001), card(2))
    assert registry.served(EURUSD_1H) == registry.load(EURUSD_1H).card.version == first
    registry.promote(EURUSD_1H, third, START + timedelta(hours=1))
    assert registry.served(EURUSD_1H) == third
    assert [p.version for p in registry.promotions(EURUSD_1H)] == [first, third]
    assert registry.series() == [EURUSD_1H] and len(registry.versions(EURUSD_1H)) == 3


@pytest.mark.parametrize("skill", [(-0.02, 0.01), (0.01, -0.001), (float("nan"), 0.01)])
def test_a_model_worse_than_a_baseline_is_promoted_by_force_only(tmp_path, training, skill):
    registry = ModelRegistry(tmp_path)
    version = registry.save(judged(training, *skill), card())
    with pytest.raises(ModelError, match=r"is not promoted, out of sample it was worse than a baseline: (up|long)"):
        registry.promote(EURUSD_1H, version, START)
    assert registry.promotions(EURUSD_1H) == []
    forced = registry.promote(EURUSD_1H, version, START, force=True)
    assert len(forced.against) == 1 and registry.promotions(EURUSD_1H) == [forced]


def test_only_a_whole_known_version_is_promoted(tmp_path, training):
    registry = ModelRegistry(tmp_path)
    with pytest.raises(NotFoundError, match="no model of EURUSD 1h is saved"):
        registry.promote(EURUSD_1H, "20240301T000000000000Z-00000000", START)
    version = registry.save(judged(training, 0.02, 0.001), card())
    with pytest.raises(NotFoundError, match=f"did you mean '{version}'"):
        registry.promote(EURUSD_1H, version[:-1] + "z", START)
    (tmp_path / "EURUSD_1h" / version / "tpsl.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tpsl\.json"):
        registry.promote(EURUSD_1H, version, START)


def test_many_that_promote_at_once_all_stand_in_the_history(tmp_path, training):
    registry = ModelRegistry(tmp_path)
    versions = [registry.save(judged(training, 0.02, 0.001), card(minute)) for minute in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: registry.promote(EURUSD_1H, versions[i], START + timedelta(minutes=i)), range(4)))
    assert [p.version for p in registry.promotions(EURUSD_1H)] == versions
    assert registry.served(EURUSD_1H) == versions[-1]


def test_a_promoted_version_that_is_gone_is_named_and_not_replaced_in_silence(tmp_path, training):
    registry = ModelRegistry(tmp_path)
    first, _ = (registry.save(judged(training, 0.02, 0.001), card(minute)) for minute in (0, 1))
    registry.promote(EURUSD_1H, first, START)
    (tmp_path / "EURUSD_1h" / first).rename(tmp_path / "elsewhere")
    with pytest.raises(NotFoundError, match=first):
        registry.load(EURUSD_1H)
    next((tmp_path / "EURUSD_1h" / ".promoted").iterdir()).write_text("{")
    with pytest.raises(ModelError, match=r"promotion .* cannot be read"):
        registry.served(EURUSD_1H)


# --- leftovers and older versions ---


def test_a_save_sweeps_what_a_killed_one_left_long_ago(tmp_path, training):
    registry = ModelRegistry(tmp_path)
    old, young = (tmp_path / "EURUSD_1h" / name for name in (".saving-old", ".saving-young"))
    run = registry.runs / "abandoned"
    for folder in (old, young, run):
        folder.mkdir(parents=True)
        (folder / "half.json").write_text("{")
    for path in (old / "half.json", old):
        os.utime(path, (0, 0))
    registry.save(training, card())
    assert not old.exists() and young.exists() and run.exists()


def test_a_version_without_the_newer_files_is_read_without_them(tmp_path, training):
    registry = ModelRegistry(tmp_path)
    registry.save(training, card())
    stored = registry.load(EURUSD_1H)
    assert stored.sketch is None and stored.gate.empty and stored.reliability.empty and stored.bundle.meta is None


def test_a_manifest_with_a_file_nobody_knows_is_refused(tmp_path, training):
    registry = ModelRegistry(tmp_path)
    manifest = tmp_path / "EURUSD_1h" / registry.save(training, card()) / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"code.py": "0"}))
    with pytest.raises(ModelError, match=MANIFEST):
        registry.load(EURUSD_1H)


def test_a_clock_that_was_set_back_does_not_leave_an_older_promotion_in_force(tmp_path, training):
    registry = ModelRegistry(tmp_path)
    first, second = (registry.save(judged(training, 0.02, 0.001), card(minute)) for minute in (0, 1))
    assert behind([], START) == START
    for version, hours in ((first, 0), (second, 1), (first, 2), (second, 3)):  # each time an hour earlier by the clock
        time = behind(registry.promotions(EURUSD_1H), START - timedelta(hours=hours))
        registry.promote(EURUSD_1H, version, time)
        assert registry.served(EURUSD_1H) == version
    assert behind(registry.promotions(EURUSD_1H), START + timedelta(days=1)) == START + timedelta(days=1)
