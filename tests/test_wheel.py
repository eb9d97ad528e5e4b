"""The wheel alone, in an empty folder: complete, and enough for the whole demonstration."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from orbiquant.domain import MIN_CONFIDENCE

ROOT = Path(__file__).parents[1]
SOURCES = ("orbiquant", "pyproject.toml", "README.md", "LICENSE")
LOADS = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("object", "data")}


def run(*words: str, **options: Any) -> str:
    """Return what a command prints; it must succeed."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources."""
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, copy / name)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(copy / "dist"), str(copy))
    [built] = (copy / "dist").glob("orbiquant-*-py3-none-any.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel, without its dependencies, into a folder of its own."""
    target = tmp_path_factory.mktemp("site")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--no-index", "--quiet")
    run(*pip, "--target", str(target), str(wheel))
    return target


@pytest.fixture
def environment(installed: Path) -> dict[str, str]:
    """Return the environment in which the installed wheel comes first, and nothing is set for it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORBIQUANT_")}
    return kept | {"PYTHONPATH": str(installed)}


def test_the_wheel_holds_every_file_of_the_package(wheel: Path):
    held = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "orbiquant"
    files = (path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert {path.relative_to(ROOT).as_posix() for path in files} <= held
    needed = {
        "assets/settings.ini", "assets/instruments.csv", "assets/reports/research.ipynb",
        "assets/report_template/orbiquant/index.html.j2", "assets/report_template/orbiquant/conf.json",
        "assets/jupyter/kernels/orbiquant/kernel.json", "migrations/env.py", "openapi.json", "_modidx.py",
    }  # fmt: skip
    assert {f"orbiquant/{name}" for name in needed} <= held
    assert any(name.startswith("orbiquant/migrations/versions/0001") for name in held)
    assert {name.split("/")[0].split("-")[0] for name in held} == {"orbiquant"}


def test_the_wheel_tells_type_checkers_that_it_is_typed(wheel: Path):
    assert "orbiquant/py.typed" in zipfile.ZipFile(wheel).namelist()


def test_the_wheel_names_its_command(installed: Path):
    [entry_points] = installed.glob("orbiquant-*.dist-info/entry_points.txt")
    assert "orbiquant = orbiquant.cli:main" in entry_points.read_text().splitlines()


class Loads(HTMLParser):
    """Collect the addresses that a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one tag."""
        self.tags.add(tag)
        self.found += [value for name, value in attrs if (tag, name) in LOADS and value]


@pytest.mark.slow  # it compiles everything anew
def test_the_demonstration_runs_from_an_empty_folder(environment: dict[str, str], installed: Path, tmp_path: Path):
    where = run(
        sys.executable, "-c", "import orbiquant; print(orbiquant.__file__)", cwd=tmp_path, env=environment
    ).strip()
    assert Path(where).is_relative_to(installed)
    program = "import sys; from orbiquant.cli import main; main(sys.argv[1:])"
    made = json.loads(run(sys.executable, "-c", program, "demo", "--json", cwd=tmp_path, env=environment))

    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "reports"]
    report = Path(made["report"])
    assert report.is_relative_to(tmp_path / "reports") and report.stat().st_size > 100_000
    page = Loads()
    page.feed(report.read_text(encoding="utf-8"))
    assert {"html", "body", "script", "h1"} <= page.tags
    assert [address for address in page.found if not address.startswith(("data:", "#"))] == []

    signal, metrics = made["signal"], made["metrics"]
    assert (signal["symbol"], signal["timeframe"]) == ("EURUSD", "1h")
    assert signal["direction"] == "HOLD" or signal["confidence"] >= MIN_CONFIDENCE
    assert metrics["trades"] > 0 and metrics["causality_violations"] == 0 and metrics["verdict"]
    told = (ROOT / "README.md").read_text(encoding="utf-8")
    mean = f"{metrics['expectancy_r']:+.3f} ± {metrics['standard_error_r']:.3f}, of which costs {metrics['cost_r']:.3f}"
    assert metrics["verdict"] in told and f"{metrics['trades']:.0f} (policy base)" in told and mean in told

    models = json.loads(run(sys.executable, "-c", program, "models", "list", "--json", cwd=tmp_path, env=environment))
    assert [model["version"] for model in models] == [signal["model_version"]]
    assert "+g" not in models[0]["code_version"]
