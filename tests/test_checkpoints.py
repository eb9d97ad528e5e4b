"""Checkpoints: a training killed at any moment goes on where it stopped and ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from orbiquant.features.matrix import build_features
from orbiquant.features.spec import FeatureSpec
from orbiquant.market.synthetic import synthetic_market
from orbiquant.models import checkpoints
from orbiquant.models.checkpoints import RunFolder, outcome_bytes, outcome_of, training_key
from orbiquant.models.config import Phase2Config
from orbiquant.models.phase2 import Phase2Pipeline
from orbiquant.models.phase2_jobs import Labelled, Outcome

CONFIG = Phase2Config(folds=2, rounds=10, horizon_bars=8, meta="off")
OUTCOME = Outcome(np.array([[0.1, np.nan], [0.3, 0.4]]), ("a", "b"), b"model\n", {"rounds": 3}, "note", 1.5)
TRAIN = """
import sys
from datetime import UTC, datetime
from orbiquant.core import FixedClock, configure_logging
from orbiquant.domain import SeriesId
from orbiquant.market.synthetic import synthetic_market
from orbiquant.research.spec import ResearchSpec
from orbiquant.research.train import prepare, train
from orbiquant.runtime import Runtime
from orbiquant.settings import load_settings

configure_logging("INFO")
home = sys.argv[1]
places = {"store_uri": f"{home}/store", "models_dir": f"{home}/models", "database_url": f"sqlite:///{home}/db"}
models = {"folds": 2, "rounds": 60, "meta": "nested", "threads": 2}
runtime = Runtime(load_settings(workspace=places, models=models), FixedClock(datetime(2026, 1, 1, tzinfo=UTC)))
series = SeriesId.parse("EURUSD", "1h")
if not runtime.store.series():
    runtime.store.upsert(series, synthetic_market(4_000, "1h", seed=5).bars)
spec = ResearchSpec.from_settings(runtime.settings, series)
train(runtime, prepare(runtime, spec), spec)
"""


def begin(home: Path) -> subprocess.Popen[str]:
    """Start a training in a process of its own."""
    home.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, "-c", TRAIN, str(home)], stderr=subprocess.PIPE, text=True)


def kept(home: Path) -> int:
    """Return how many finished jobs are on disk."""
    return len(list(home.glob("models/.training/*/*.job")))


def version_of(home: Path) -> dict[str, bytes]:
    """Return the files of the one version that was saved."""
    (folder,) = home.glob("models/EURUSD_1h/2*")
    return {"name": folder.name.encode()} | {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_training_killed_again_and_again_ends_like_one_that_was_not(tmp_path):
    rng, interrupted, whole = np.random.default_rng(7), tmp_path / "killed", tmp_path / "whole"
    with begin(whole) as process:
        assert process.wait(timeout=300) == 0
    found = []
    for jobs in (1, 4, 8, 12):
        with begin(interrupted) as process:
            while kept(interrupted) < jobs and process.poll() is None:
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.3))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        found.append(kept(interrupted))
    assert found == sorted(found) and found[0] >= 1
    with begin(interrupted) as process:
        said = process.communicate(timeout=300)[1]
    assert process.returncode == 0 and f"finished={found[-1]}" in said and "training resumed" in said
    assert version_of(interrupted) == version_of(whole)
    assert kept(interrupted) == 0 and not list(interrupted.glob("models/.training/*"))


def stop_after(jobs: int):
    """Return a progress function that interrupts after so many jobs."""

    def stop(done: int, total: int, text: str) -> None:
        if done == jobs:
            raise KeyboardInterrupt

    return stop


class Made(NamedTuple):
    """What a training is made of."""

    bars: pd.DataFrame
    features: pd.DataFrame
    rows: Labelled


@pytest.fixture(scope="module")
def made() -> Made:
    bars = synthetic_market(2_000, timeframe="1h", seed=5).bars
    features = build_features(bars, FeatureSpec(timeframe="1h", calendar="forex"))
    return Made(bars, features, Labelled.of(bars, features, CONFIG))


@pytest.fixture(scope="module")
def whole(made):
    return Phase2Pipeline(CONFIG).run(made.bars, made.features)


def test_finished_jobs_are_taken_over_and_damaged_ones_done_again(tmp_path, whole, made):
    with pytest.raises(KeyboardInterrupt):
        Phase2Pipeline(CONFIG).run(made.bars, made.features, stop_after(6), tmp_path)
    (folder,) = tmp_path.iterdir()
    files = sorted(folder.iterdir())
    assert len(files) == 6
    files[0].write_bytes(files[0].read_bytes()[:-3])
    files[1].write_bytes(b"")
    counts: list[int] = []
    again = Phase2Pipeline(CONFIG).run(
        made.bars, made.features, lambda done, total, text: counts.append(done), tmp_path
    )
    assert again.resumed == 4 and counts[0] == 5
    assert again.predictions.equals(whole.predictions) and again.skill.equals(whole.skill)
    assert again.bundle.tpsl.to_json() == whole.bundle.tpsl.to_json()
    assert again.folder is not None
    again.folder.remove()
    assert not list(tmp_path.iterdir())


def test_fresh_forgets_what_was_finished(tmp_path, made):
    with pytest.raises(KeyboardInterrupt):
        Phase2Pipeline(CONFIG).run(made.bars, made.features, stop_after(4), tmp_path)
    assert Phase2Pipeline(CONFIG).run(made.bars, made.features, keep=tmp_path, fresh=True).resumed == 0


def test_a_failed_job_is_tried_again(tmp_path, made):
    broken = made.features.copy()
    broken.iloc[-3:, 4] = np.inf
    for _ in range(2):
        training = Phase2Pipeline(CONFIG).run(made.bars, broken, keep=tmp_path)
    assert training.folds["error"].iloc[1] != "" and 0 < training.resumed < len(training.jobs)


def test_the_key_follows_data_and_settings_but_not_threads(made):
    def key(bars=made.bars, features=made.features, **changes) -> str:
        config = CONFIG.model_copy(update=changes)
        return training_key(bars, Labelled.of(bars, features, config), config)

    other_bars, other_features = made.bars.copy(), made.features.copy()
    other_bars.iloc[5, 3] *= 1 + 1e-12
    other_features.iloc[700, 2] += 1e-3
    keys = [key(), key(bars=other_bars), key(features=other_features), key(seed=8), key(folds=3)]
    assert len(set(keys)) == len(keys)
    assert key() == key(threads=1) == keys[0]


@pytest.mark.parametrize(
    "spoil", [lambda b: b[:-1], lambda b: b"x" + b[1:], lambda b: b"", lambda b: b.replace(b"note", b"nope")]
)
def test_damaged_bytes_are_never_read_as_an_outcome(spoil):
    content = outcome_bytes(OUTCOME)
    assert outcome_bytes(outcome_of(content)) == content
    with pytest.raises(ValueError, match="hash"):
        outcome_of(spoil(content))


def test_a_folder_without_jobs_is_empty(tmp_path):
    folder = RunFolder(tmp_path / "none")
    folder.keep((1, "tpsl"), Outcome(error="failed"))
    assert folder.find({(1, "tpsl"): None}) == {} and not folder.path.exists()
    folder.remove()


@pytest.mark.parametrize("library", ["numba", "ta-lib", "xgboost", "optuna"])
def test_another_version_of_a_library_is_another_training(monkeypatch, library, made):
    key = training_key(made.bars, made.rows, CONFIG)
    monkeypatch.setattr(checkpoints, "version", lambda name: "0.0" if name == library else version(name))
    checkpoints.code_fingerprint.cache_clear()
    changed = training_key(made.bars, made.rows, CONFIG)
    checkpoints.code_fingerprint.cache_clear()
    assert changed != key


@pytest.mark.parametrize("table", ["features", "inputs", "targets"])
def test_another_figure_is_another_training(table, made):
    changed = getattr(made.rows, table).copy()
    changed.iloc[700, 0] += 1
    other = replace(made.rows, **{table: changed})
    assert training_key(made.bars, other, CONFIG) != training_key(made.bars, made.rows, CONFIG)
