"""`[logging] json_lines`: what a service and its engine write to standard error can be collected, every line of it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.tools.house import ROOT
from tests.tools.programs import run_program

BIN = Path(sys.executable).parent


@pytest.mark.slow
def test_every_line_is_an_object_with_a_time_and_none_holds_the_console_s_key(tmp_path: Path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORBIQUANT_")}
    env = kept | {"PYTHONPATH": str(ROOT), "ORBIQUANT_HOME": str(tmp_path), "ORBIQUANT_LOGGING_JSON_LINES": "on"}
    command, lines = [BIN / "orbiquant", "serve", "--port", "0"], list[str]()
    with run_program(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"Serving on (http://127\.0\.0\.1:\d+)/docs \(", line):
                break
        for path in ("/nowhere", "/socket.io/?EIO=4&transport=polling"):
            assert httpx.get(f"{found[1]}{path}", timeout=60).status_code in (400, 401, 404)
        for line in process.stderr:  # until the engine beside it has begun, too
            lines.append(line)
            if "Trading nothing yet" in line:
                break
        process.terminate()
        lines += process.stderr.readlines()
    entries = [json.loads(line) for line in lines]
    assert all(re.match(r"20\d\d-\d\d-\d\dT.*Z$", entry["timestamp"]) for entry in entries)
    told = [entry["event"] for entry in entries]
    assert "request" in told and any(each.startswith("Invalid transport") for each in told), told
    assert any(each.startswith("Ended: nothing was opened") for each in told)
    assert any("`orbiquant service keys create NAME`" in each for each in told) and "token=" not in "".join(lines)
    command = [BIN / "orbiquant", "serve", "--host", "0.0.0.0"]
    refused = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    [why, *more] = [json.loads(line) for line in refused.stderr.splitlines()]
    assert refused.returncode == 1 and "there is no API key yet" in why["event"]
    assert all(entry["timestamp"] for entry in (why, *more))
