"""What `make` refuses before it installs anything, and what it installs for whom."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.house import ROOT

FAKE = """#!/bin/sh
if [ "$1" = -c ]; then
    exec {python} -c 'import sys
sys.version_info, sys.version = {version}, "{text} (main)"
exec(sys.argv[1])' "$2"
fi
echo "$@" >> asked
[ -e .venv/bin/python ] || (mkdir -p .venv/bin && cp "$0" .venv/bin/python)
"""


@pytest.fixture
def make(tmp_path: Path):
    """Return what runs `make` in an empty checkout, with an interpreter that says it is of some version."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)

    def run(version: tuple[int, ...], *words: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        fake = tmp_path / "fake python"
        fake.write_text(FAKE.format(python=sys.executable, version=version, text=".".join(map(str, version))))
        fake.chmod(0o755)
        command = ["make", *words, "PYTHON=./fake\\ python"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        asked = tmp_path / "asked"
        return done, asked.read_text().splitlines() if asked.exists() else []

    return run


@pytest.mark.parametrize("version", [(3, 10, 14), (3, 11, 2), (3, 11, 4), (3, 13, 0)])
@pytest.mark.parametrize("goal", ["demo", "test", "lab"])
def test_a_python_that_will_not_do_is_refused_before_anything_is_installed(make, version, goal: str, tmp_path: Path):
    done, asked = make(version, goal)
    assert done.returncode != 0 and asked == [] and not (tmp_path / ".venv").exists()
    said = f"OrbiQuant needs Python 3.11.5 or newer, below 3.13; ./fake\\ python is {'.'.join(map(str, version))}."
    assert said in done.stderr and f"Name another one: make {goal} PYTHON=/path/to/python" in done.stderr


@pytest.mark.parametrize("version", [(3, 11, 5), (3, 12, 0)])
def test_the_demo_installs_what_the_demo_needs(make, version, tmp_path: Path):
    _, asked = make(version, "demo")
    assert asked == [
        "-m venv .venv",
        "-m pip install -qq --upgrade pip>=25",
        "-m pip install -qq --constraint constraints.txt --editable .[demo]",
    ]
    _, again = make(version, "demo")
    assert again == asked, "what is there is not installed again"


def test_the_tests_add_the_rest_with_torch_first(make):
    make((3, 11, 9), "demo")
    _, asked = make((3, 11, 9), "test")
    assert asked[3:6] == [
        "-m pip uninstall -qq --yes xgboost-cpu",
        "-m pip install -qq --constraint constraints.txt torch",
        "-m pip install -qq --constraint constraints.txt --editable .[dev]",
    ]
    _, again = make((3, 11, 9), "demo")
    assert again == asked, "who can run the tests can run the demo"
