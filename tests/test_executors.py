"""Executors: one answer wherever tasks run, failures as values, workers that die, interrupts that end everything."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orbiquant import compute
from orbiquant.compute import Failure, Packed, connect, run_dask, run_tasks
from orbiquant.core import ModelError
from tests.tools.programs import run_program

MATRIX = np.random.default_rng(7).normal(size=(4_000, 12))
WAYS = [{"threads": 1}, {"threads": 3}]


def least_squares(shared: np.ndarray, first: int, last: int) -> np.ndarray:
    """Return coefficients of the last column on the others; a sum whose bits depend on how it is added."""
    if first >= last:
        raise ValueError("no rows")
    rows = shared[first:last]
    return np.linalg.solve(rows[:, :-1].T @ rows[:, :-1], rows[:, :-1].T @ rows[:, -1])


def end_worker(shared: Path, name: str, lives: int) -> str:
    """Kill the process that runs this, so many times; then answer."""
    mark = shared / f"{name}-{time.time_ns()}"
    if len(list(shared.glob(f"{name}-*"))) < lives:
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return name


def count_data(shared: Packed, seconds: float) -> int:
    """Return the identity of the shared data in this process."""
    time.sleep(seconds)
    return id(shared)


TASKS = {part: (500 * part, 500 * part + (500 if part != 5 else 0)) for part in range(8)}


def answers(work: Any = least_squares, shared: Any = MATRIX, tasks: Any = TASKS, **where: Any) -> dict:
    """Return every answer of a run."""
    found: dict = {}
    run_tasks(work, shared, tasks, found.__setitem__, **where)
    return found


@pytest.fixture(scope="module")
def serial() -> dict:
    return answers()


@pytest.fixture(scope="module")
def client():
    with connect("local", threads=2) as made:
        yield made


def same(first: dict, second: dict) -> None:
    """Assert that two runs answered alike, bit by bit."""
    assert set(first) == set(second)
    for key, answer in first.items():
        if isinstance(answer, Failure):
            assert second[key] == answer
        else:
            np.testing.assert_array_equal(second[key], answer)


def test_threads_answer_like_a_loop_and_a_failure_is_a_value(serial):
    assert serial[5] == Failure("ValueError: no rows") and len(serial) == len(TASKS)
    same(serial, answers(threads=3))


def test_a_cluster_answers_like_a_loop_bit_by_bit(serial, client):
    found: dict = {}
    run_dask(client, least_squares, MATRIX, TASKS, found.__setitem__)
    same(serial, found)


def test_data_travel_once_and_are_unpacked_once_a_worker(client):
    found: dict = {}
    run_dask(client, count_data, MATRIX, dict.fromkeys(range(6), (0.05,)), found.__setitem__)
    assert 1 <= len(set(found.values())) <= 2


def test_a_worker_that_dies_is_replaced_and_its_task_answered(client, tmp_path):
    found: dict = {}
    run_dask(
        client, end_worker, tmp_path, {name: (name, lives) for name, lives in (("a", 1), ("b", 0))}, found.__setitem__
    )
    assert found == {"a": "a", "b": "b"} and len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_a_task_that_kills_every_worker_is_a_failure_and_spares_its_neighbours(tmp_path):
    found: dict = {}
    with connect("local", threads=2) as client:
        tasks = {name: (name, lives) for name, lives in (("deadly", 99), ("b", 0), ("c", 0))}
        run_dask(client, end_worker, tmp_path, tasks, found.__setitem__)
    assert found["b"] == "b" and found["c"] == "c"
    assert isinstance(found["deadly"], Failure) and "worker" in found["deadly"].reason


class Foreign:
    """Data that a worker cannot unpack."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("not here",)


def test_what_a_worker_cannot_do_is_said_as_it_is(client):
    found: dict = {}
    run_dask(client, least_squares, Foreign(), {0: (0, 1)}, found.__setitem__)
    assert "invalid literal for int()" in found[0].reason


def test_a_cluster_without_workers_is_an_error(monkeypatch):
    from distributed import Client, LocalCluster

    monkeypatch.setattr("orbiquant.compute.PATIENCE_S", 0.2)
    options = {"n_workers": 0, "processes": False, "dashboard_address": None, "silence_logs": "CRITICAL"}
    with (
        LocalCluster(**options) as empty,
        Client(empty) as idle,
        pytest.raises(ModelError, match=r"had none for 0\.2 s"),
    ):
        run_dask(idle, least_squares, MATRIX, {0: TASKS[0]}, print)


@pytest.mark.parametrize("where", WAYS, ids=("serial", "threads"))
def test_an_interrupt_starts_nothing_more(where):
    begun: list[int] = []

    def work(shared: None, i: int) -> int:
        begun.append(i)
        time.sleep(0.02)
        return i

    def stop(key: int, answer: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tasks(work, None, {i: (i,) for i in range(50)}, stop, **where)
    assert len(begun) <= 1 + 2 * where["threads"]


def test_an_interrupt_cancels_what_waits_on_a_cluster(client):
    def stop(key: int, answer: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_dask(client, count_data, MATRIX, dict.fromkeys(range(200), (0.05,)), stop)
    found: dict = {}
    begin = time.monotonic()
    run_dask(client, count_data, MATRIX, {0: (0.0,)}, found.__setitem__)
    assert len(found) == 1 and time.monotonic() - begin < 5


def test_no_task_asks_nobody():
    assert answers(tasks={}, scheduler="tcp://127.0.0.1:1") == {}


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr(compute, "PATIENCE_S", 0.5)
    with pytest.raises(ModelError, match=r"`scheduler` must be the address .* was 'tcp://127\.0\.0\.1:1'"):
        answers(scheduler="tcp://127.0.0.1:1")


INTERRUPTED = """
import sys, time
from orbiquant.compute import run_tasks
def work(shared, i):
    time.sleep(0.2)
if __name__ == "__main__":
    where = {"serial": {}, "threads": {"threads": 2}, "dask": {"threads": 2, "scheduler": "local"}}[sys.argv[1]]
    run_tasks(work, None, {i: (i,) for i in range(500)}, lambda key, answer: print(key, flush=True), **where)
"""


def alive(group: int) -> bool:
    """Say whether a process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("way", ["serial", "threads", pytest.param("dask", marks=pytest.mark.slow)])
def test_ctrl_c_ends_the_program_and_its_workers(tmp_path, way):
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    with run_program(
        [sys.executable, script, way], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        os.killpg(running.pid, signal.SIGINT)
        _, said = running.communicate(timeout=30)
    assert running.returncode == -signal.SIGINT and "KeyboardInterrupt" in said
    deadline = time.monotonic() + 10
    while alive(running.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(running.pid)
