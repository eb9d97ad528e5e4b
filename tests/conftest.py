"""What holds for every test."""

import signal
from collections.abc import Iterator

import pytest
import structlog

from orbiquant.runtime import Runtime
from tests.fake_binance.running import RunningBinance, running_binance

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


@pytest.fixture(scope="module")
def address(runtime: Runtime) -> Iterator[str]:
    """Serve a file's `runtime` for all its tests."""
    from test_service_http import running

    from orbiquant.app import app

    with running(app, runtime) as url:
        yield url


@pytest.fixture(scope="module")
def started_binance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBinance]:
    """Start one fake Binance for all tests of a file."""
    with running_binance(tmp_path_factory.mktemp("binance")) as running:
        yield running


@pytest.fixture
def binance(started_binance: RunningBinance) -> RunningBinance:
    """Return the file's fake Binance as fresh as it was; only its log goes on."""
    started_binance.control("reset")
    return started_binance
