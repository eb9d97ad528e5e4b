"""What is generated is what is committed: regenerate everything in a copy of the tree and compare."""

import filecmp
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [
    "nbs",
    "deploy/docs",
    "orbiquant",
    "data",
    "reports",
    "pyproject.toml",
    "settings.ini",
    "Makefile",
    "README.md",
    "LICENSE",
]
GENERATED = ["orbiquant", "README.md", "nbs/contents.md"]
IGNORED = shutil.ignore_patterns("__pycache__", ".scratch", ".ipynb_checkpoints", "runs", "store", "models", "*.db*")


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the source tree in which `make generate` has run."""
    copy = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=IGNORED)
        else:
            shutil.copy(source, copy / name)
    regenerate(copy)
    return copy


def regenerate(tree: Path) -> None:
    """Run `make generate` in a tree, with this interpreter's tools and that tree's package."""
    make = ["make", "--assume-old=.venv/.installed", "generate", f"BIN={Path(sys.executable).parent}", "READY="]
    done = subprocess.run(
        make, cwd=tree, capture_output=True, text=True, env={**environment(), "PYTHONPATH": str(tree)}
    )
    assert done.returncode == 0, done.stdout + done.stderr


def environment() -> dict[str, str]:
    """Return this process's environment without settings of the platform."""
    import os

    return {name: value for name, value in os.environ.items() if not name.startswith("ORBIQUANT_")}


def differences(left: Path, right: Path) -> list[str]:
    """Return the files that are not the same in two trees."""
    if left.is_file():
        return [] if filecmp.cmp(left, right, shallow=False) else [left.name]
    names = {
        path.relative_to(top)
        for top in (left, right)
        for path in top.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return sorted(
        str(name)
        for name in names
        if not (left / name).exists()
        or not (right / name).exists()
        or not filecmp.cmp(left / name, right / name, shallow=False)
    )


@pytest.mark.parametrize("name", GENERATED)
def test_generated_files_are_current(regenerated: Path, name: str):
    assert differences(regenerated / name, ROOT / name) == [], "run `make generate` and commit the result"


def test_no_output_of_a_notebook_tells_where_it_was_run():
    for path in sorted([*(ROOT / "nbs").glob("*.ipynb"), *(ROOT / "reports").glob("*.ipynb")]):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        told = json.dumps([cell.get("outputs", []) for cell in cells])
        assert str(ROOT) not in told and "site-packages" not in told, path.name
