"""What an installation weighs and how long it takes to the first chart, written to reports/benchmarks/install.md.

Run `python -m tests.benchmarks.bench_install` from the root of a clean repository; it downloads what it installs.
"""

import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from orbiquant.core import atomic_write, code_version

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "reports" / "benchmarks" / "install.md"
DEVELOPERS = {"dev", "docs", "peers"}  # theirs, not a user's
CHART = """
import orbiquant as oq
oq.store_sample()
oq.price_chart(oq.load_bars("EURUSD", "1h").tail(120)).to_html()
"""


def run(*words: str | Path, cwd: Path, **environment: str) -> float:
    """Run a command that must succeed, and return its wall seconds."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ORBIQUANT_", "PYTHONPATH"))}
    began = time.perf_counter()
    done = subprocess.run(words, cwd=cwd, env=kept | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}: {(done.stdout + done.stderr)[-2000:]}")
    return time.perf_counter() - began


def megabytes(folder: Path) -> float:
    """Return the size of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()) / 1e6


def clone(home: Path) -> tuple[Path, float]:
    """Clone what is committed; return the folder and the seconds it took."""
    return home / "clone", run("git", "clone", "--quiet", ROOT, home / "clone", cwd=home)


def first_chart(home: Path) -> Iterator[tuple[str, float]]:
    """Yield each stage from a clone to the first chart, with its seconds."""
    folder, seconds = clone(home)
    yield "clone", seconds
    yield (
        "install what the demo needs (`make`)",
        run("make", ".venv/.installed-demo", f"PYTHON={sys.executable}", cwd=folder),
    )
    desk, programs = home / "desk", folder / ".venv" / "bin"
    yield "`orbiquant init`, the first start of the package", run(programs / "orbiquant", "init", desk, cwd=home)
    where = {"cwd": desk, "NUMBA_CACHE_DIR": str(home / "numba")}
    yield "bars and a chart, the first time", run(programs / "python", "-c", CHART, **where)
    yield "bars and a chart, again", run(programs / "python", "-c", CHART, **where)


def extras() -> list[str]:
    """Return the extras that a user may ask for."""
    named = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    return ["", *(name for name in named if name not in DEVELOPERS)]


def weigh(wheel: Path, extra: str, home: Path) -> tuple[float, float]:
    """Install the wheel with an extra into an environment of its own; return its megabytes and the seconds it took."""
    place = home / f"with-{extra or 'nothing'}"
    run(sys.executable, "-m", "venv", place, cwd=home)
    before = megabytes(place)
    asked = f"{wheel}[{extra}]" if extra else str(wheel)
    pip = (place / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile")
    seconds = run(*pip, "--constraint", ROOT / "constraints.txt", asked, cwd=home)
    return megabytes(place) - before, seconds


def tell(home: Path) -> Iterator[str]:
    """Measure, and yield the lines of the page."""
    today, load = datetime.now(UTC), os.getloadavg()[0]
    yield "# What an installation weighs\n"
    yield f"{today:%Y-%m-%d}, code {code_version()}, Python {sys.version.split()[0]}, load {load:.1f} before."
    yield "Times hold the downloads of that day; sizes are unpacked, without compiled bytecode.\n"
    yield "| from a clone to the first chart | seconds |\n|---|--:|"
    total = 0.0
    for stage, seconds in first_chart(home):
        total += seconds
        yield f"| {stage} | {seconds:.1f} |"
    yield f"| all | {total:.0f} |\n"
    source = home / "clone"
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", cwd=source)
    [wheel] = (source / "dist").glob("*.whl")
    yield f"The wheel: {wheel.stat().st_size / 1e6:.1f} MB.\n"
    yield "| installed | MB | seconds |\n|---|--:|--:|"
    for extra in extras():
        size, seconds = weigh(wheel, extra, home)
        yield f"| {f'`orbiquant[{extra}]`' if extra else '`orbiquant`'} | {size:,.0f} | {seconds:.0f} |"


if __name__ == "__main__":
    lines = []
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for line in tell(Path(folder)):
            print(line, flush=True)
            lines.append(line)
    atomic_write(OUTPUT, ("\n".join(lines) + "\n").encode())
