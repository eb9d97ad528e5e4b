"""Run notebooks as `nbdev-test` does, each in a process of its own that has the slow libraries loaded already.

`nbdev-test` on a folder hands several notebooks to one process, where one sees what another has registered, such as
database tables; on one notebook at a time it loads the same libraries a hundred times. Cells marked `#| slow` are
left out, unless it is told `--slow`: then the notebooks that have some are run, whole.
"""

import os
import sys
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path

from nbdev.config import get_config
from nbdev.test import test_nb

PROCESSES = 2
LIBRARIES = ("alembic.command", "fastapi", "matplotlib_inline.backend_inline", "numba", "numpy", "pandas")
LIBRARIES += ("plotly.graph_objects", "pydantic_ai", "pydantic_settings", "pyarrow.dataset", "scipy.stats")
LIBRARIES += ("sklearn.linear_model", "sqlalchemy", "tokenizers", "torch", "transformers.models.llama")
LIBRARIES += ("transformers.models.qwen3.modeling_qwen3", "vectorbt", "xgboost")
SLOW = get_config(Path(__file__).parent).tst_flags  # the flag that plain `nbdev-test` leaves out, too


def run(notebook: Path, skipped: list[str]) -> None:
    """Run one notebook but for the cells with some flags, and end this process: 0 when it passed."""
    passed, seconds = test_nb(notebook, skip_flags=skipped, basepath=get_config(notebook.parent).config_path)
    print(f"{'ok' if passed else 'FAILED':6} {notebook.name} {seconds:.0f} s", flush=True)
    os._exit(not passed)  # an orderly end would wait minutes for joblib's idle workers


def run_all(notebooks: list[Path], skipped: list[str]) -> list[str]:
    """Return the names of the notebooks that failed."""
    for library in LIBRARIES:
        import_module(library)
    fork, waiting, running, failed = get_context("fork"), notebooks[::-1], {}, []
    while waiting or running:
        while waiting and len(running) < PROCESSES:
            process = fork.Process(target=run, args=(waiting[-1], skipped), name=waiting.pop().name)
            process.start()
            running[process.sentinel] = process
        for ended in wait(running):
            process = running.pop(ended)
            process.join()
            failed += [process.name] if process.exitcode else []
    return failed


def main(words: list[str]) -> None:
    """Run notebooks; exit with the names of those that failed."""
    slow, names = words[:1] == [f"--{SLOW}"], [word for word in words if word != f"--{SLOW}"]
    notebooks = [Path(name).absolute() for name in names if not slow or f"#| {SLOW}" in Path(name).read_text()]
    if failures := run_all(notebooks, [] if slow else [SLOW]):
        sys.exit(f"{len(failures)} of {len(notebooks)} notebooks failed: {', '.join(sorted(failures))}")


if __name__ == "__main__":
    main(sys.argv[1:])
