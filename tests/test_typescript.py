"""The TypeScript client: made from the document that the service has, and used under Node in one whole story."""

import hashlib
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_crew import ORBIQUANT, told_address
from test_heard import BARS, SECRET, last_of

from orbiquant.domain import SeriesId
from orbiquant.runtime import Runtime
from orbiquant.settings import load_settings
from tests.tools.programs import run_program

ROOT = Path(__file__).parents[1]
CLIENT = ROOT / "deploy" / "typescript"
BTC_1M, MINUTE = SeriesId.parse("BTCUSDT", "1m"), pd.Timedelta(minutes=1)


def test_the_client_is_that_of_the_routes_there_are():
    first = (CLIENT / "src" / "schema.ts").read_text(encoding="utf-8").partition("\n")[0]
    sum_ = hashlib.sha256((ROOT / "orbiquant" / "openapi.json").read_bytes()).hexdigest()
    assert f"sha256 {sum_}" in first, "stale: `npm ci && npm run generate` in deploy/typescript"


def test_the_lock_names_no_registry():
    lock = json.loads((CLIENT / "package-lock.json").read_text(encoding="utf-8"))
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]
    assert all(name == "" or package["integrity"] for name, package in lock["packages"].items())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client, generated again, checked and built in a folder of its own."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not here")
    folder = tmp_path_factory.mktemp("client") / "deploy" / "typescript"
    left = shutil.ignore_patterns("node_modules", "dist")
    shutil.copytree(CLIENT, folder, ignore=left)
    (folder.parents[1] / "orbiquant").mkdir()
    shutil.copy(ROOT / "orbiquant" / "openapi.json", folder.parents[1] / "orbiquant")
    if subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=folder, check=False).returncode:
        pytest.skip("the packages of the client cannot be had here")
    for step in ("generate", "check", "build"):
        subprocess.run([npm, "run", "--silent", step], cwd=folder, check=True)
    return folder


@pytest.mark.slow
def test_generating_again_changes_nothing(built: Path):
    assert (built / "src" / "schema.ts").read_text() == (CLIENT / "src" / "schema.ts").read_text()


class Feed:
    """One-minute bars up to now, and then each as its minute closes: paper fills an order on the bar after it."""

    def __init__(self, runtime: Runtime) -> None:
        self.store, self.ended = runtime.store, threading.Event()
        until = last_of("neutral", "distribution", "accumulation", "invalidated") + 1
        minute = pd.Timestamp.now("UTC").floor("min")
        begin = minute - pd.Timedelta(minutes=until)
        self.bars = BARS.set_axis(pd.date_range(begin, periods=len(BARS), freq="min", name="time"))
        self.store.upsert(BTC_1M, self.bars.iloc[:until])
        self.price = float(self.bars["close"].iloc[until - 1])
        self.thread = threading.Thread(target=self.close_minutes)

    def close_minutes(self) -> None:
        while not self.ended.wait(1.0):
            self.store.upsert(BTC_1M, self.bars.loc[: pd.Timestamp.now("UTC").floor("min") - MINUTE])

    def __enter__(self) -> "Feed":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()


@pytest.mark.slow
def test_an_account_an_agent_a_signed_signal_and_a_position_under_node(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    own = os.environ | {
        "ORBIQUANT_HOME": str(tmp_path), "ORBIQUANT_WEBHOOKS_SECRET": SECRET, "ORBIQUANT_ATLAS_POLICY": "base",
        "ORBIQUANT_ATLAS_STRATEGIES": "ml", "ORBIQUANT_ATLAS_PAIRS": "BTC/USDT", "ORBIQUANT_ATLAS_TIMEFRAME": "1m",
        "ORBIQUANT_RISK_CRYPTO_LEVERAGE": "100", "ORBIQUANT_LOGGING_LEVEL": "WARNING",
    }  # fmt: skip
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    options: dict[str, Any] = {"env": own, "stderr": subprocess.PIPE, "text": True}
    with (
        Feed(Runtime(load_settings())) as feed,
        run_program([*ORBIQUANT, "serve", "--port", "0"], **options) as service,
    ):
        address, token = told_address(service)
        said = {"ORBIQUANT_URL": address, "ORBIQUANT_KEY": token, "ORBIQUANT_SECRET": SECRET}
        story = ["node", "example/story.mjs", "BTCUSDT", str(feed.price)]
        told = subprocess.run(story, cwd=built, env=own | said, capture_output=True, text=True, timeout=400)
        service.terminate()
        _, log = service.communicate(timeout=60)
    assert told.returncode == 0, f"{told.stderr}\n{log}"
    found = json.loads(told.stdout)
    assert found["position"]["symbol"] == "BTCUSDT" and found["position"]["stop_loss"]
    assert (found["health"], found["account"], found["agent"]) == ("healthy", "active", "running")
    assert (found["received"], found["paused"], found["resumed"]) == ("received", "paused", "running")
    assert found["refused"] == [404, "NOT_FOUND"]
