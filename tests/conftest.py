"""What holds for every test."""

import signal

import pytest
import structlog

# A shell ignores Ctrl-C in what it runs in the background, and so would all programs that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

LONGEST = ("test_phase2.py", "test_line.py", "test_audit.py", "test_reports.py", "test_sweep.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no process is left alone with one at the end."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(autouse=True, scope="module")
def own_logging() -> None:
    """Begin each file with logging that nobody has set up: what another file told it would hide notices."""
    structlog.reset_defaults()
