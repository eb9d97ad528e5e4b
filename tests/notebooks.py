"""Run notebooks as `nbdev-test` does, each in a process of its own that has the slow libraries loaded already.

`nbdev-test` on a folder hands several notebooks to one process, where one sees what another has registered, such as
database tables; on one notebook at a time it loads the same libraries a hundred times.
"""

import sys
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path

from nbdev.config import get_config
from nbdev.test import test_nb

PROCESSES = 2
LIBRARIES = ("numba", "numpy", "pandas", "plotly.graph_objects", "pydantic_settings", "pyarrow.dataset")
LIBRARIES += ("scipy.stats", "sklearn.linear_model", "sqlalchemy", "vectorbt", "xgboost")


def run(notebook: Path) -> None:
    """Run one notebook and end this process: 0 when it passed."""
    config = get_config(notebook.parent)
    flags = config.tst_flags.split() if isinstance(config.tst_flags, str) else config.tst_flags
    passed, seconds = test_nb(notebook, skip_flags=flags, force_flags=[], basepath=config.config_path)
    print(f"{'ok' if passed else 'FAILED':6} {notebook.name} {seconds:.0f} s", flush=True)
    sys.exit(not passed)


def run_all(notebooks: list[Path]) -> list[str]:
    """Return the names of the notebooks that failed."""
    for library in LIBRARIES:
        import_module(library)
    fork, waiting, running, failed = get_context("fork"), notebooks[::-1], {}, []
    while waiting or running:
        while waiting and len(running) < PROCESSES:
            process = fork.Process(target=run, args=(waiting[-1],), name=waiting.pop().name)
            process.start()
            running[process.sentinel] = process
        for ended in wait(running):
            process = running.pop(ended)
            process.join()
            failed += [process.name] if process.exitcode else []
    return failed


if __name__ == "__main__":
    if failures := run_all([Path(name).absolute() for name in sys.argv[1:]]):
        sys.exit(f"{len(failures)} of {len(sys.argv) - 1} notebooks failed: {', '.join(sorted(failures))}")
