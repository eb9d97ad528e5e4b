"""Bars in object storage by settings alone, at a real S3 server: several writers, old versions, a move from a disk."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orbiquant.backup.whole import create_backup, restore_backup
from orbiquant.core import DataError, configure_logging
from orbiquant.domain import SeriesId
from orbiquant.market.synthetic import synthetic_market
from orbiquant.runtime import Runtime
from orbiquant.settings import load_settings
from tests.tools.object_store import running_object_store

pytestmark = pytest.mark.slow  # the server is installed first
EURUSD, GBPUSD = SeriesId.parse("EURUSD", "1h"), SeriesId.parse("GBPUSD", "1h")
BARS = synthetic_market(1000, "1h", seed=7).bars


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    configure_logging("ERROR")
    with running_object_store("bars") as said, pytest.MonkeyPatch.context() as patch:
        for name, value in said.items():
            patch.setenv(name, value)
        yield


def desk(folder: Path, store_uri: str) -> Runtime:
    """Return a runtime whose bars lie where a setting says."""
    places = {"store_uri": store_uri, "models_dir": f"{folder}/models", "data_dir": f"{folder}/data"}
    return Runtime(load_settings(workspace=places | {"database_url": f"sqlite:///{folder}/o.db"}))


def test_several_writers_lose_nothing_and_every_version_can_be_read(tmp_path: Path):
    store = desk(tmp_path, "s3://bars/shared").store
    first = store.upsert(EURUSD, BARS.iloc[:500])
    assert store.upsert(EURUSD, BARS.iloc[:500]) == first  # written twice it changes nothing
    store.upsert(EURUSD, BARS)
    assert desk(tmp_path, "s3://bars/shared").store.read(EURUSD).equals(BARS)
    assert store.read(EURUSD, version=first).equals(BARS.iloc[:500])

    def write(number: int) -> int:
        return desk(tmp_path, "s3://bars/shared").store.upsert(GBPUSD, BARS.iloc[number * 100 : number * 100 + 100])

    with ThreadPoolExecutor(4) as pool:
        versions = [*pool.map(write, range(8))]
    assert len({*versions}) == 8 and store.read(GBPUSD).equals(BARS.iloc[:800])


def test_a_store_moves_from_a_disk_into_a_bucket_with_its_versions(tmp_path: Path):
    local = desk(tmp_path / "local", f"{tmp_path}/store")
    first = local.store.upsert(EURUSD, BARS.iloc[:500])
    local.store.upsert(EURUSD, BARS)
    create_backup(local, tmp_path / "desk.tar")
    moved = desk(tmp_path / "moved", "s3://bars/moved")
    restore_backup(moved, tmp_path / "desk.tar")
    assert moved.store.read(EURUSD).equals(BARS) and moved.store.read(EURUSD, version=first).equals(BARS.iloc[:500])
    create_backup(moved, tmp_path / "again.tar")
    home = desk(tmp_path / "home", f"{tmp_path}/home-store")
    restore_backup(home, tmp_path / "again.tar")
    assert home.store.read(EURUSD).equals(BARS)
    for each in (local, moved, home):
        each.engine.dispose()


def test_a_bucket_that_is_not_there_is_a_clear_error(tmp_path: Path):
    with pytest.raises(DataError, match="no-such-bucket"):
        desk(tmp_path, "s3://no-such-bucket/desk").store.upsert(EURUSD, BARS)
