"""Guards that keep the house in shape: the counts of `tests/tools/house.py`, each also shown a planted fault."""

import ast
import json
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.tools import house
from tests.tools.house import COUNTS, PLAIN, RANK, ROOT, STILL, House, measure, read_house

measured = cache(measure)
HEAVY = {"vectorbt", "torch", "transformers", "xgboost", "ccxt", "sklearn"}


ALONE = pytest.mark.slow  # a time; beside two other processes it measures them


@pytest.mark.parametrize("name", [pytest.param(n, marks=ALONE) if n.startswith("seconds") else n for n in COUNTS])
def test_the_house_keeps_its_limits(name: str):
    found = measured(name)
    assert not found.over, f"{found.value:g} {name}, at most {found.limit:g}: " + "; ".join(found.places[:20])


@pytest.mark.parametrize("name", STILL)
def test_what_is_allowed_still_only_shrinks(name: str):
    assert STILL[name] > COUNTS[name].limit, f"take {name!r} out of STILL: its limit holds"
    assert measured(name).value == STILL[name], f"lower STILL[{name!r}] to what is there"


# --- what no count says ---


def test_every_room_has_a_rank_of_its_own():
    rooms = {name.partition(".")[0] for name in house.house().modules} - {"", "_modidx"}
    assert rooms <= set(RANK), f"no rank for {rooms - set(RANK)}"
    assert len(set(house.ROOMS)) == len(house.ROOMS)


def test_every_module_has_one_notebook_or_is_plain():
    exports = Counter(book.module for book in house.house().notebooks if book.module)
    assert [name for name, times in exports.items() if times > 1] == []
    written = {name for name in house.written(house.house()) if name not in house.house().packages}
    plain = {name for name in house.written(house.house()) if name in PLAIN or name.partition(".")[0] in PLAIN}
    assert written - plain == set(exports)


@pytest.mark.parametrize("notebook", sorted((ROOT / "nbs").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_begins_with_title_and_summary(notebook: Path):
    title = "".join(json.loads(notebook.read_text())["cells"][0]["source"])
    assert title.startswith("# ") and "\n> " in title


def loaded_by(module: str) -> set[str]:
    """Return what a fresh interpreter has loaded after importing a module."""
    command = [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["orbiquant", "orbiquant.app", "orbiquant.cli", "orbiquant.research.train"])
def test_heavy_libraries_load_only_when_used(module: str):
    assert loaded_by(module) & HEAVY == set()


def test_the_command_line_starts_without_pandas():
    """Help, completion and Ctrl-C answer at once; every command imports what it needs itself."""
    assert loaded_by("orbiquant.cli") & (HEAVY | {"numpy", "pandas"}) == set()


# --- planted faults ---


def plant(root: Path, modules: dict[str, str] | None = None, **notebooks: list[str]) -> House:
    """Write modules (path below the package → code) and notebooks (name → code cells) and read them as a house."""
    (root / "nbs").mkdir()
    for path, code in {"__init__.py": "", **(modules or {})}.items():
        file = root / "orbiquant" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)
    for name, sources in notebooks.items():
        cells = [{"cell_type": "code", "source": source} for source in sources]
        (root / "nbs" / f"{name}.ipynb").write_text(json.dumps({"cells": cells}))
    return read_house(root)


@pytest.mark.parametrize(
    ("name", "other", "wrong"),
    [
        ("trading.brokers.paper", "execution", False),
        ("trading.agents", "performance", False),
        ("trading.engine", "backtest.simulate", True),
        ("backtest.simulate", "trading.ledger", True),
        ("market.remote", "llm.models", True),
        ("features.matrix", "models.labels", True),
        ("performance", "execution", False),
        ("execution", "performance", True),
        ("settings", "runtime", True),
        ("desk.signals", "desk.series", False),
        ("core", "a_new_room", True),
        ("a_new_room", "core", True),
    ],
)
def test_who_may_import_whom(name: str, other: str, wrong: bool):
    assert house.goes_wrong(name, other) == wrong


IMPORTS = {
    "in a function": "def f():\n    from orbiquant.backtest.simulate import simulate",
    "relative": "from ..backtest import simulate",
    "as a module": "import orbiquant.backtest.simulate as s",
    "by a string": "from importlib import import_module\nimport_module('orbiquant.backtest.simulate')",
    "by a relative string": "import importlib\nimportlib.import_module('..backtest.simulate', __package__)",
    "by the built-in": "__import__('orbiquant.backtest.simulate')",
    "by a string with a hole": "import_module(f'orbiquant.backtest.simulate.{name}')",
    "by a named string": "import_module(name='orbiquant.backtest.simulate')",
}


@pytest.mark.parametrize("code", IMPORTS.values(), ids=IMPORTS)
def test_an_import_is_seen_however_it_is_spelled(code: str, tmp_path: Path):
    tree = {
        "trading/__init__.py": "",
        "trading/engine.py": code,
        "backtest/__init__.py": "",
        "backtest/simulate.py": "",
    }
    assert house.wrong_imports(plant(tmp_path, tree)) == ["trading.engine → backtest.simulate"]


@pytest.mark.parametrize(
    "code",
    [
        "from orbiquant.runtime import current",
        "import orbiquant.runtime as rt\nrt.current()",
        "from orbiquant import runtime as rt\nrt.current()",
        "from .. import runtime\nruntime.current()",
    ],
)
def test_whoever_asks_for_the_runtime_is_seen_however_it_is_called(code: str, tmp_path: Path):
    tree = {"runtime.py": "", "research/__init__.py": "", "research/train.py": code, "desk/__init__.py": code}
    assert house.stray_runtimes(plant(tmp_path, tree)) == ["research.train"]


@pytest.mark.parametrize(
    ("code", "swallowed"),
    [
        ("try:\n    f()\nexcept OSError:\n    ...", True),
        ("try:\n    f()\nexcept OSError:\n    pass", True),
        ("while True:\n    try:\n        f()\n    except Exception:\n        continue", True),
        ("with contextlib.suppress(Exception):\n    f()", True),
        ("with suppress(KeyboardInterrupt):\n    f()", False),
        ("for x in y:\n    try:\n        f()\n    except FileNotFoundError:\n        continue", False),
        ("try:\n    f()\nexcept OSError:\n    return_none()", False),
    ],
)
def test_an_error_made_as_if_it_had_not_been_is_seen(code: str, swallowed: bool, tmp_path: Path):
    assert bool(house.swallowed_errors(plant(tmp_path, {"core.py": code}))) == swallowed


@pytest.mark.parametrize("code", ["import orbiquant as oq", "from orbiquant import simulate"])
def test_nothing_inside_imports_the_front_door(code: str, tmp_path: Path):
    tree = {"core.py": "from orbiquant import __version__", "features/ict.py": f"{code}\nimport orbiquant_other"}
    assert len(house.wrong_imports(plant(tmp_path, tree))) == 1


def test_cycles_are_seen_inside_a_room_and_through_functions(tmp_path: Path):
    tree = {
        "features/one.py": "from orbiquant.features.two import x",
        "features/two.py": "def f():\n    from .three import x",
        "features/three.py": "from importlib import import_module\nimport_module('orbiquant.features.one')",
        "features/four.py": "from orbiquant.features.one import x",
    }
    assert house.cycles(plant(tmp_path, tree)) == ["features.one ↔ features.three ↔ features.two"]


CURRENT = {
    "by name": "from orbiquant.runtime import current\ncurrent()",
    "under another name": "from orbiquant.runtime import current as now\nnow()",
    "through the module": "from orbiquant import runtime\nruntime.current()",
    "by its path": "import orbiquant.runtime\norbiquant.runtime.current()",
}


@pytest.mark.parametrize("code", CURRENT.values(), ids=CURRENT)
def test_the_runtime_is_asked_for_at_the_edges_only(code: str, tmp_path: Path):
    edges = ("desk/signals.py", "reports/api.py", "cli/data.py", "service/gate.py")
    tree = {"runtime.py": "def current(): ...", "research/train.py": code, "reports/run.py": code}
    found = house.stray_runtimes(plant(tmp_path, tree | dict.fromkeys(edges, code)))
    assert found == ["reports.run", "research.train"]


def test_a_later_notebook_is_seen_from_both_kinds_of_cells(tmp_path: Path):
    early = [
        "#| default_exp early",
        "#| export\ndef f():\n    from orbiquant.late import x",
        "%time\nfrom orbiquant import late",
        "from orbiquant.early import f",
    ]
    planted = plant(tmp_path, **{"00_early": early, "01_late": ["#| default_exp late"]})
    assert house.later_imports(planted, exported=True) == ["00_early cell 1 → late"]
    assert house.later_imports(planted, exported=False) == ["00_early cell 2 → late"]


def test_the_grain_of_cells_is_counted(tmp_path: Path):
    long = "#| export\ndef f():\n" + "    x = 1\n" * 40
    crowded = "#| export\nclass A: ...\n\n\ndef b(): ...\n\n\ndef c(): ...\n\n\ndef _d(): ..."
    cells = ["#| default_exp a", long, "f()", "#| export\nX = 1", crowded, "#| export\ndef g(): ...", "g()"]
    planted = plant(tmp_path, **{"00_a": cells})
    assert house.long_cells(planted) == ["00_a cell 1: 41 statements, f"]
    assert house.crowded_cells(planted) == ["00_a cell 4: A, b, c"]
    assert house.bare_ideas(planted) == ["00_a cell 4: A, b, c"]
    assert house.cell_lines(planted) == [2, 2, 11, 42]


def test_a_named_exception_to_the_grain_is_excused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(house.GRAIN_EXCEPTIONS, "a.A", "they are one table")
    cell = "#| export\nclass A: ...\nclass B: ...\nclass C: ..."
    planted = plant(tmp_path, **{"00_a": ["#| default_exp a", cell]})
    assert house.crowded_cells(planted) == [] == house.cell_lines(planted)
    assert house.bare_ideas(planted) == ["00_a cell 1: A, B, C"], "evidence is owed all the same"


def test_a_notebook_that_is_too_long_or_too_heavy_is_seen(tmp_path: Path):
    books = {"00_long": ["1"] * 61, "01_heavy": ["#" * 500_001], "02_fine": ["1"] * 60}
    assert [line.split(":")[0] for line in house.large_notebooks(plant(tmp_path, **books))] == ["00_long", "01_heavy"]


def test_a_name_defined_twice_is_seen(tmp_path: Path):
    tree = {
        "core.py": "def find(): ...\n_own = 1\nA, B = 1, 2",
        "market/bars.py": "find: int = 1\n_own = 2\nfrom orbiquant.core import B",
        "features/ict.py": "class A: ...",
        "app.py": "def find(): ...",
    }
    assert house.double_names(plant(tmp_path, tree)) == ["A: core, features.ict", "find: core, market.bars"]


def test_text_for_a_series_is_seen_below_the_desk_and_outside_market(tmp_path: Path):
    code = (
        "class A:\n    def f(self, symbol: str, *, timeframe: 'str | None' = None, series: str = ''): ...\n"
        "def g(symbol: Annotated[str, 1], timeframe: Timeframe): Timeframe.parse(symbol)"
    )
    planted = plant(tmp_path, {"research/live.py": code, "market/bars.py": code, "desk/signals.py": code})
    said = ["research.live.A.f(symbol)", "research.live.A.f(timeframe)", "research.live.g(symbol)"]
    assert house.text_parameters(planted) == said
    assert len(house.parsings(planted)) == 3


def test_sizes_and_manners_are_counted(tmp_path: Path):
    code = (
        "from os import *\ndef long() -> None:\n    'Be long.'\n"
        + "    x = 1\n" * 60
        + "def bare(x): ...\nclass Bare: ...\ntry:\n    x = 1\nexcept ValueError:\n    pass\n"
    )
    planted = plant(tmp_path, {"core.py": code, "domain.py": "\n" * 401})
    assert house.long_functions(planted) == ["core.long: 62 lines"]
    assert house.large_modules(planted) == ["domain: 401 lines"]
    assert house.bare_functions(planted) == ["core.bare", "core.Bare"]
    assert house.stars(planted) == ["core:1"] and house.swallowed_errors(planted) == ["core:68"]


class Tree(BaseModel):
    """A configuration."""

    seed: int = 1
    sweep_bars: int = 2


class Deep(Tree):
    """Another one, which inherits a field and declares others."""

    rounds: int = 3


class Twin(BaseModel):
    """A third one, which restates."""

    rounds: int = 4
    sweep_bars: int = 5


class Spec(BaseModel):
    """A specification."""

    training: Deep = Deep()
    seed: int = 6


def test_a_field_has_one_home():
    assert house.shared_fields([Tree, Deep, Twin]) == ["rounds: Deep, Twin"]
    assert house.restated_fields(Spec, [Tree, Deep]) == ["Spec.seed: Tree"]


def test_every_area_s_configuration_is_looked_at():
    names = {each.__name__ for each in house.config_classes()}
    assert {"Phase2Config", "TreeConfig", "PhaseConfig", "SignalConfig", "ClusterConfig", "WorkspaceConfig"} <= names


def test_a_port_needs_an_adapter_and_a_contract(tmp_path: Path):
    tree = {
        "ports.py": "class Store(Protocol): ...\nclass Cache(Protocol): ...\nclass Row(TypedDict): ...",
        "runtime.py": "class Runtime:\n    cache: Cache\n    def store(self) -> Store: ...",
    }
    planted = plant(tmp_path, tree)
    suites = [ast.parse("class StoreContract:\n    def test(self, store: Store): ...\nclass Other:\n    x: Cache")]
    assert house.idle_protocols(planted, suites) == ["Cache: no contract"]
    assert house.idle_protocols(planted, []) == ["Store: no contract", "Cache: no contract"]


def test_the_table_is_printed_and_says_when_a_limit_is_passed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    counts: dict[str, Any] = {
        "cracks": house.Count(lambda: [f"wall {number}" for number in range(12)], 3),
        "doors": house.Count(lambda: 1.5, 2),
    }
    monkeypatch.setattr(house, "COUNTS", counts)
    monkeypatch.setattr(house, "STILL", {})
    assert house.main([]) == 1
    said = capsys.readouterr().out
    assert "OVER      12  limit 3      cracks" in said and "wall 9\n" in said and "wall 10" not in said
    assert "ok       1.5  limit 2      doors" in said
    assert house.main(["cracks"]) == 1 and "wall 11" in capsys.readouterr().out
    monkeypatch.setattr(house, "STILL", {"cracks": 12})
    assert house.main([]) == 0 and "(to reach: 3)" in capsys.readouterr().out
