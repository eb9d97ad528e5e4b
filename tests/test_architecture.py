"""Guards that keep the house in shape: layers, lazy imports, orphans, sizes, notebooks."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "orbiquant"
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
HAND_WRITTEN = {"__init__.py", "_modidx.py", "app.py"}
PLAIN = {
    "cli",
    "reports.worker",
}  # rooms, or modules as `room.module`, that are written by hand: there is nothing in them to show

# From the ground up: a room may import the rooms before it.
ROOMS = (
    *("core", "arrays", "domain", "ports", "workspace"),
    *("charts", "net", "compute", "persistence"),
    *("market", "llm", "features", "models"),
    *("execution", "performance", "policies", "signals", "strategies", "line"),
    *("backtest", "trading", "settings", "runtime"),
    *("research", "desk", "reports", "copilot", "service"),
    *("app", "demo", "cli"),
)
LAYERS = {room: rank for rank, room in enumerate(ROOMS)}
SIBLINGS = [{"market", "llm"}, {"backtest", "trading"}]
HEAVY = {"vectorbt", "torch", "transformers", "xgboost", "ccxt", "sklearn"}


def modules() -> list[Path]:
    """Return every module of the package but migrations, which Alembic loads by path."""
    return [path for path in sorted(PACKAGE.rglob("*.py")) if "migrations" not in path.parts]


def dotted(path: Path) -> str:
    """Return a module's name below the package, e.g. `market.bars`."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imported(path: Path) -> set[str]:
    """Return the package's modules that `path` imports anywhere, as names below the package."""
    package = ["orbiquant", *dotted(path).split(".")[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            found |= {f"{name}.{alias.name}" for alias in node.names} | {name}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix("orbiquant.") for name in found if name.startswith("orbiquant.")}


def violations(name: str, imports: set[str]) -> list[str]:
    """Return the imports of module `name` that go up or across."""
    area = name.split(".")[0]
    bad = []
    for other in imports:
        target = other.split(".")[0]
        if target not in LAYERS or target == area:
            continue
        across = any({area, target} <= pair for pair in SIBLINGS)
        if LAYERS[target] > LAYERS[area] or across:
            bad.append(f"{name} imports {other}")
    return bad


def test_every_module_has_a_layer():
    areas = {dotted(path).split(".")[0] for path in modules()} - {"__init__", "_modidx"}
    assert areas <= set(LAYERS), f"no layer for {areas - set(LAYERS)}"


def test_imports_go_down_only():
    assert [line for path in modules() for line in violations(dotted(path), imported(path))] == []


def test_the_layer_guard_catches_a_planted_violation():
    assert violations("features.matrix", {"models.labels"}) == ["features.matrix imports models.labels"]
    assert violations("trading.agents", {"backtest.simulate"}) == ["trading.agents imports backtest.simulate"]


def directive(notebook: Path, name: str) -> list[str]:
    """Return the arguments of every `#| name` directive in a notebook."""
    cells = json.loads(notebook.read_text())["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return re.findall(rf"^#\|\s*{name}\s+(\S+)", source, flags=re.MULTILINE)


def test_no_two_notebooks_write_one_module():
    exports = Counter(name for notebook in NOTEBOOKS for name in directive(notebook, "default_exp"))
    assert [name for name, times in exports.items() if times > 1] == []


def test_no_module_without_its_notebook():
    exports = {name for notebook in NOTEBOOKS for name in directive(notebook, "default_exp")}
    generated = {dotted(path) for path in modules() if path.name not in HAND_WRITTEN}
    plain = {name for name in generated if name in PLAIN or name.split(".")[0] in PLAIN}
    assert generated - plain == exports


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_stay_readable(notebook: Path):
    cells = json.loads(notebook.read_text())["cells"]
    assert notebook.stat().st_size <= 500_000
    assert len(cells) <= 70
    title = "".join(cells[0]["source"])
    assert title.startswith("# ") and "\n> " in title


def functions(path: Path) -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Return every function of a module with its place."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [
        (f"{dotted(path)}:{n.lineno} {n.name}", n)
        for n in nodes
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_functions_and_modules_stay_small():
    generated = [path for path in modules() if path.name not in HAND_WRITTEN]
    long = [place for path in generated for place, n in functions(path) if n.end_lineno - n.lineno + 1 > 60]
    big = {dotted(path): lines for path in generated if (lines := len(path.read_text().splitlines())) > 650}
    assert (long, big) == ([], {})


def test_public_functions_are_annotated_and_documented():
    bare = []
    for path in (p for p in modules() if p.name not in HAND_WRITTEN):
        tree = ast.parse(path.read_text())
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
                arguments = [*node.args.args, *node.args.kwonlyargs]
                if node.returns is None or any(a.annotation is None for a in arguments) or not ast.get_docstring(node):
                    bare.append(f"{dotted(path)}.{node.name}")
            elif isinstance(node, ast.ClassDef) and not ast.get_docstring(node):
                bare.append(f"{dotted(path)}.{node.name}")
    assert bare == []


def test_no_star_imports_and_no_swallowed_errors():
    found = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            star = isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
            swallowed = isinstance(node, ast.ExceptHandler) and [type(n) for n in node.body] == [ast.Pass]
            if star or swallowed:
                found.append(f"{dotted(path)}:{node.lineno}")
    assert found == []


def python(code: str) -> str:
    """Run `code` in a fresh interpreter and return what it printed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["orbiquant", "orbiquant.app", "orbiquant.cli", "orbiquant.research.train"])
def test_heavy_libraries_load_only_when_used(module: str):
    loaded = set(python(f"import sys, {module}; print(*sys.modules)").split())
    assert loaded & HEAVY == set()


def test_the_command_line_starts_without_pandas():
    """Help, completion and Ctrl-C answer at once; every command imports what it needs itself."""
    loaded = set(python("import sys, orbiquant.cli; print(*sys.modules)").split())
    assert loaded & (HEAVY | {"numpy", "pandas"}) == set()


@pytest.mark.parametrize(("module", "budget_s"), [("orbiquant", 0.15), ("orbiquant.app", 1.5)])
def test_import_budget(module: str, budget_s: float):
    timed = f"from time import process_time as t; a = t(); import {module}; print(t() - a)"
    assert min(float(python(timed)) for _ in range(3)) < budget_s
