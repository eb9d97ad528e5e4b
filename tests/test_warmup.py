"""`orbiquant warmup` compiles what is not kept yet, and nothing the second time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("orbiquant")


ASK = """
import json
from numba.core.event import install_recorder
from orbiquant.desk.market import analyse
from orbiquant.domain import SeriesId
from orbiquant.market.synthetic import synthetic_market
from orbiquant.runtime import current
from tests.test_fixture_model import ROOT
import shutil

runtime, series = current(), SeriesId.parse("EURUSD", "1h")
bars = synthetic_market(3000, "1h", seed=11).bars
runtime.store.upsert(series, bars.iloc[:-2])
shutil.copytree(ROOT / "EURUSD_1h", runtime.registry.folder(series))
with install_recorder("numba:compile") as recorder:
    told = [analyse(runtime, "EURUSD", None)]
    runtime.store.upsert(series, bars)  # and the next bars are stepped
    told.append(analyse(runtime, "EURUSD", None))
assert told[1].recent_signals[0].time == bars.index[-1] > told[0].recent_signals[0].time
print(json.dumps({"series": str(series), "compiled": sum(event.is_start for _, event in recorder.buffer)}))
"""


@pytest.mark.slow
def test_a_second_warmup_compiles_nothing(tmp_path: Path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "ORBIQUANT_HOME": str(tmp_path)}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[1])}

    def warm() -> dict:
        run = {"env": environment, "cwd": tmp_path, "check": True, "capture_output": True, "text": True}
        return json.loads(subprocess.run([PROGRAM, "warmup", "--json"], **run).stdout)

    first = warm()
    cold = subprocess.run([sys.executable, "-c", ASK], env=environment, check=True, capture_output=True, text=True)
    assert json.loads(cold.stdout) == {"series": "EURUSD 1h", "compiled": 0}, "what serves was not warm"
    second = warm()
    assert first["compiled"] > 50 and second["compiled"] == 0
    assert [s["stage"] for s in first["stages"]] == [s["stage"] for s in second["stages"]]
    assert second["seconds"] < first["seconds"]
