"""`orbiquant warmup` compiles what is not kept yet, and nothing the second time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("orbiquant")


@pytest.mark.slow
def test_a_second_warmup_compiles_nothing(tmp_path: Path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "ORBIQUANT_HOME": str(tmp_path)}

    def warm() -> dict:
        run = {"env": environment, "cwd": tmp_path, "check": True, "capture_output": True, "text": True}
        return json.loads(subprocess.run([PROGRAM, "warmup", "--json"], **run).stdout)

    first, second = warm(), warm()
    assert first["compiled"] > 50 and second["compiled"] == 0
    assert [s["stage"] for s in first["stages"]] == [s["stage"] for s in second["stages"]]
    assert second["seconds"] < first["seconds"]
