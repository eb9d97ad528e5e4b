"""An engine is killed at any instruction, beside lost replies, full disks, a second engine: nothing is lost or doubled.

The short form of `make chaos`. What says so is a program that knows nothing of the engine, and finds every planted bug.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.bugs import BUGS
from tests.tools.house import ROOT
from tests.tools.postgres import find_binaries

CHAOS = ROOT / "tests" / "chaos"
JUDGES = ("judge", "accountant", "watchman")


def run_module(name: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a program of the chaos tests to its end."""
    command = [sys.executable, "-m", f"tests.chaos.{name}", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


def run_seeds(results: Path, seeds: str, *words: object, bars: int = 24) -> list[dict[str, Any]]:
    """Kill through a range of seeds, and return the lines of the results."""
    done = run_module("run", "--seeds", seeds, "--results", results, "--bars", bars, *words)
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert done.returncode == 0, (done.stdout[-3000:], done.stderr[-3000:])
    return rows


def check_kills(rows: list[dict[str, Any]], least: int) -> None:
    """Hold what every campaign must show."""
    assert [row for row in rows if row["found"] or row["error"]] == []
    assert sum(row["in_transaction"] + row["in_intent"] for row in rows) >= least
    assert all(row["in_transaction"] + row["in_intent"] + row["elsewhere"] == row["kills"] for row in rows)
    assert sum(row["counts"]["acknowledged"] for row in rows) > 300 and sum(row["counts"]["fills"] for row in rows) > 40
    assert max(each for row in rows for each in row["safe_s"]) < 5


@pytest.mark.slow
def test_kills_lose_and_double_nothing_and_ranges_of_seeds_add_up(tmp_path: Path):
    first = run_seeds(tmp_path / "results.jsonl", "0", "--kills", 10)
    both = run_seeds(tmp_path / "results.jsonl", "0-1", "--kills", 10)
    assert both[: len(first)] == first and [row["seed"] for row in both] == [0, 1]
    check_kills(both, 12)


@pytest.mark.slow
def test_at_a_venue_that_fails_as_venues_do(tmp_path: Path):
    rows = run_seeds(tmp_path / "results.jsonl", "0", "--kills", 8, "--venue", "own")
    check_kills([*rows, *rows], 8)


@pytest.mark.slow
def test_at_the_fake_binance(tmp_path: Path):
    words = ("--venue", "binance", "--kills", 1, "--scale", 5)
    row = run_seeds(tmp_path / "results.jsonl", "2", *words, bars=5)[0]
    assert not row["found"] and not row["error"] and row["kills"] == 1 and row["scale"] == 5
    assert row["counts"]["faults"] and row["counts"]["fills"] and row["seconds"]["bare"]


@pytest.mark.slow
def test_many_kills_at_the_fake_binance(tmp_path: Path):
    rows = run_seeds(tmp_path / "results.jsonl", "0-1", "--kills", 8, "--venue", "binance")
    assert [row for row in rows if row["found"] or row["error"]] == [] and sum(row["kills"] for row in rows) > 4
    deeds = sum(row["counts"]["deeds of somebody else"] for row in rows)
    assert sum(len(row["seconds"]["found"]) for row in rows) == deeds > 4


@pytest.mark.slow
def test_many_symbols_at_the_fake_binance(tmp_path: Path):
    words = ("--venue", "binance", "--symbols", 40, "--share", 0.9, "--kills", 0)
    row = run_seeds(tmp_path / "results.jsonl", "3", *words, bars=6)[0]
    assert not row["found"] and not row["error"] and row["counts"]["intents"] > 30 and row["counts"]["faults"] > 30


@pytest.mark.slow
@pytest.mark.skipif(find_binaries() is None, reason="no PostgreSQL is here")
def test_on_postgresql(tmp_path: Path):
    check_kills(run_seeds(tmp_path / "results.jsonl", "0-2", "--kills", 10, "--database", "postgresql"), 15)


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, list[str]]]:
    """Return what the judges find of each planted bug."""
    return plant(*BUGS)


def plant(*names: str) -> dict[str, dict[str, list[str]]]:
    """Return what the judges find of some bugs, "" for none."""
    done = run_module("run", "--bugs", *names)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", BUGS)
@pytest.mark.slow
def test_the_judge_finds_a_planted_bug(found: dict[str, dict[str, list[str]]], name: str):
    assert {*BUGS[name].invariants} <= {*found[name]}, found[name]


def test_the_judge_finds_nothing_where_nothing_is_planted():
    assert plant("", "at the venue") == {"": {}, "at the venue": {}}


@pytest.mark.slow
def test_the_judges_find_nothing_at_the_exchange_where_nothing_is_planted():
    assert plant("at the exchange") == {"at the exchange": {}}


def test_every_invariant_of_the_judge_has_a_planted_bug():
    trees = [ast.parse((CHAOS / f"{name}.py").read_text()) for name in JUDGES]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    said = {node.args[0].value for node in calls if node.func.attr == "say" and isinstance(node.args[0], ast.Constant)}
    assert said == {each for bug in BUGS.values() for each in bug.invariants} and len(said) == 26


@pytest.mark.parametrize("name", [*JUDGES, "dump"])
def test_the_judge_knows_none_of_the_code_that_it_judges(name: str):
    imported = set()
    for node in ast.walk(ast.parse((CHAOS / f"{name}.py").read_text())):
        if isinstance(node, ast.Import):
            imported |= {each.name.split(".")[0] for each in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module).split(".")[0])
    assert imported <= {*sys.stdlib_module_names, "psycopg"} and "json" in imported


@pytest.fixture(scope="module")
def scenes() -> dict[str, dict[str, Any]]:
    """Return the facts of every scene."""
    done = run_module("scenes")
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


SAID = {
    "full_disk": "database or disk is full",
    "failing_disk": "disk I/O error",
    "read_only_disk": "attempt to write a readonly database",
    "locked": "database is locked",
    "database_dies": "the server closed the connection",
    "venue_out_of_reach": "BrokerUnavailable: the venue does not answer",
}


@pytest.mark.parametrize("name", [*SAID, "clock_set_back", "switch_from_outside", "two_engines"])
def test_a_scene_adds_no_risk_meanwhile_and_ends_as_if_nothing_had_been(scenes: dict[str, dict[str, Any]], name: str):
    facts = scenes[name]
    assert facts["before"] > 0 and facts["meanwhile"] == 0 and facts["after"] > 0
    assert facts["difference"] == {} and facts["faults_after"] == [] and facts["found"] == {}


@pytest.mark.parametrize("name", SAID)
def test_what_does_not_answer_is_said(scenes: dict[str, dict[str, Any]], name: str):
    assert len(scenes[name]["faults"]) == 3 and all(SAID[name] in each for each in scenes[name]["faults"])


def test_the_switch_works_while_the_database_is_locked(scenes: dict[str, dict[str, Any]]):
    assert scenes["locked"]["thrown"] == ["file"]


def test_a_clock_that_was_set_back_is_a_reason_in_the_journal(scenes: dict[str, dict[str, Any]]):
    assert "from_the_future" in scenes["clock_set_back"]["reasons"]


def test_the_second_engine_says_who_trades(scenes: dict[str, dict[str, Any]]):
    assert len(scenes["two_engines"]["said"]) == 2
    assert all("is traded by another process" in each for each in scenes["two_engines"]["said"])
