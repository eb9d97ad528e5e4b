"""The Delta store: the contract of every store, two writers at once, kills in mid-write, upkeep, scale."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from deltalake import DeltaTable
from deltalake.table import TableOptimizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.register_assert_rewrite("contracts")

from contracts.bar_store import BarStoreContract, random_bars  # noqa: E402

from orbiquant.core import DataError, NotFoundError  # noqa: E402
from orbiquant.domain import SeriesId  # noqa: E402
from orbiquant.market import bar_table  # noqa: E402
from orbiquant.market import store as module  # noqa: E402
from orbiquant.market.store import TIDY_EVERY, DeltaBarStore  # noqa: E402
from tests.tools.shared_bars import SHARED  # noqa: E402

EURUSD_1H = SeriesId.parse("EURUSD", "1h")
EURUSD_1D = SeriesId.parse("EURUSD", "1d")
GBPUSD_1H = SeriesId.parse("GBPUSD", "1h")
BTCUSDT_5M = SeriesId.parse("BTCUSDT", "5m")


class TestDeltaBarStore(BarStoreContract):
    """The contract, on disk."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> DeltaBarStore:
        """Return a store in a folder that does not exist yet."""
        return DeltaBarStore(tmp_path / "not yet" / "here")


class TestCompactedDeltaBarStore(BarStoreContract):
    """The contract, with files merged and leftovers deleted after every write."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> DeltaBarStore:
        """Return a store that tidies up all the time."""

        class Tidy(DeltaBarStore):
            def upsert(self, series: SeriesId, bars: pd.DataFrame) -> int:
                before = self.version()
                if super().upsert(series, bars) > before:
                    self.compact()
                    self.vacuum(older_than_hours=0)
                return self.version()

        return Tidy(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> DeltaBarStore:
    """Return an empty store."""
    return DeltaBarStore(tmp_path)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 80), st.integers(1, 40), st.integers(0, 3)), min_size=1, max_size=5))
def test_any_sequence_of_upserts_ends_as_it_would_in_a_dict(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, int, int]]
):
    store, expected = DeltaBarStore(tmp_path_factory.mktemp("store")), {}
    base = random_bars("2023-12-29", 120)
    for begin, rows, seed in writes:
        part = base.iloc[begin : begin + rows] * (1 + seed)
        store.upsert(EURUSD_1H, part)
        expected |= dict(zip(part.index, part.to_numpy().tolist(), strict=True))
    wanted = pd.DataFrame.from_dict(expected, orient="index", columns=base.columns).sort_index()
    read = store.read(EURUSD_1H)
    assert read.index.equals(wanted.index) and np.array_equal(read.to_numpy(), wanted.to_numpy())
    assert [line.rows for line in store.series()] == [len(wanted)]


def test_history_says_what_was_done(store: DeltaBarStore):
    bars = random_bars("2024-01-01", 10)
    store.upsert(EURUSD_1H, bars)
    store.upsert(EURUSD_1H, bars.assign(volume=99.0).iloc[:3])
    newest, first, created = store.versions()
    assert (newest["operation"], newest["symbol"], newest["timeframe"], newest["rows"]) == ("merge", "EURUSD", "1h", 3)
    assert (first["operation"], first["rows"]) == ("write", 10)
    assert (created["version"], created["rows"]) == (0, 0)
    assert newest["time"] >= first["time"] > pd.Timestamp("2020-01-01", tz="UTC")
    assert store.versions(limit=1) == [newest]


def test_a_read_opens_the_files_of_its_years_alone(store: DeltaBarStore):
    store.upsert(EURUSD_1D, random_bars("2019-06-01", 1500, "1d"))
    for year in (2019, 2020, 2022, 2023):
        for file in Path(store.uri).glob(f"**/year={year}/*.parquet"):
            file.write_bytes(b"not parquet")
    read = store.read(EURUSD_1D, datetime(2021, 3, 1, tzinfo=UTC), datetime(2021, 9, 1, tzinfo=UTC))
    assert len(read) == 184
    with pytest.raises(DataError, match="cannot be read"):
        store.read(EURUSD_1D)


def test_a_read_opens_the_files_of_its_days_alone(store: DeltaBarStore):
    bars = random_bars("2024-01-01", 60)
    store.upsert(EURUSD_1H, bars.iloc[:40])
    for file in Path(store.uri).glob("**/*.parquet"):
        file.write_bytes(b"not parquet")
    store.upsert(EURUSD_1H, bars.iloc[42:])
    local = bars.index[42].tz_convert("Asia/Kathmandu")
    assert store.read(EURUSD_1H, local).equals(bars.iloc[42:])
    with pytest.raises(DataError, match="cannot be read"):
        store.read(EURUSD_1H, bars.index[39])


def test_a_merge_leaves_other_years_and_series_alone(store: DeltaBarStore):
    bars = random_bars("2020-06-01", 900, "1d")
    store.upsert(EURUSD_1D, bars)
    store.upsert(SeriesId.parse("GBPUSD", "1d"), bars)
    before = {path.relative_to(store.uri) for path in Path(store.uri).glob("**/*.parquet")}
    store.upsert(EURUSD_1D, bars[bars.index.year == 2021].iloc[:5] * 2)
    added = {path.relative_to(store.uri) for path in Path(store.uri).glob("**/*.parquet")} - before
    assert [str(path.parent) for path in added] == ["symbol=EURUSD/timeframe=1d/year=2021"]


def test_compaction_keeps_bars_and_pins(store: DeltaBarStore):
    bars = random_bars("2024-01-01", 60)
    pins = [store.upsert(EURUSD_1H, bars.iloc[: n + 6]) for n in range(0, 60, 6)]
    version = store.compact()
    assert store.versions(limit=1)[0]["operation"] == "optimize"
    assert store.compact() == version
    assert store.read(EURUSD_1H).equals(bars)
    assert store.vacuum(older_than_hours=0) == 0
    for pin, rows in zip(pins, range(6, 66, 6), strict=True):
        assert store.read(EURUSD_1H, version=pin).equals(bars.iloc[:rows])


def test_vacuum_keeps_the_named_versions_and_drops_the_rest_when_asked(store: DeltaBarStore):
    bars = random_bars("2024-01-01", 60)
    first, pinned, lost = (store.upsert(EURUSD_1H, bars * factor) for factor in (1, 2, 3))
    store.upsert(EURUSD_1H, bars * 4)
    assert store.vacuum(keep=[pinned]) == 0, "files of the last day stay: somebody may be writing"
    assert store.vacuum(keep=[pinned], older_than_hours=0) == 2
    assert store.read(EURUSD_1H, version=pinned).equals(bars * 2)
    assert store.read(EURUSD_1H).equals(bars * 4)
    for version in (first, lost):
        with pytest.raises(DataError, match="vacuumed"):
            store.read(EURUSD_1H, version=version)
    with pytest.raises(NotFoundError, match="`version` must be between"):
        store.vacuum(keep=[99])


def test_vacuum_deletes_what_a_killed_writer_left(store: DeltaBarStore):
    store.upsert(EURUSD_1H, random_bars("2024-01-01", 60))
    held = next(Path(store.uri).glob("**/*.parquet"))
    old, young = held.with_name("part-old.parquet"), held.with_name("part-young.parquet")
    for orphan in (old, young):
        orphan.write_bytes(held.read_bytes())
    two_days_ago = time.time() - 2 * 86_400
    for path in (old, held):
        os.utime(path, (two_days_ago, two_days_ago))
    assert store.vacuum() == 1
    assert not old.exists() and young.exists() and held.exists()
    assert len(store.read(EURUSD_1H)) == 60


def test_a_removed_series_stays_in_older_versions(store: DeltaBarStore):
    bars = random_bars("2023-12-30", 96)
    store.upsert(EURUSD_1H, bars)
    pinned = store.upsert(GBPUSD_1H, bars)
    assert store.remove(SeriesId.parse("eur/usd", "1h")) == pinned + 1 == store.version()
    assert [line.series for line in store.series()] == [GBPUSD_1H]
    with pytest.raises(NotFoundError, match="there is GBPUSD 1h"):
        store.read(EURUSD_1H)
    with pytest.raises(NotFoundError, match="there is GBPUSD 1h"):
        store.remove(EURUSD_1H)
    assert store.read(EURUSD_1H, version=pinned).equals(bars)
    shifted = bars.set_axis(bars.index + pd.Timedelta(minutes=30))
    store.upsert(EURUSD_1H, shifted)
    assert store.read(EURUSD_1H).equals(shifted) and store.read(GBPUSD_1H).equals(bars)


def test_nothing_is_made_by_looking(tmp_path: Path):
    store = DeltaBarStore(tmp_path / "store")
    assert (store.version(), store.versions(), store.series(), store.compact(), store.vacuum()) == (0, [], [], 0, 0)
    for look in (store.read, store.remove):
        with pytest.raises(NotFoundError, match="it is empty"):
            look(EURUSD_1H)
    with pytest.raises(NotFoundError):
        store.read(EURUSD_1H, version=0)
    with pytest.raises(NotFoundError, match="between 0 and 0, was 3"):
        store.read(EURUSD_1H, version=3)
    assert not (tmp_path / "store").exists()


def test_a_folder_that_is_no_store_says_so(tmp_path: Path):
    (tmp_path / "bars").write_text("a file in the way")
    with pytest.raises(DataError, match="store"):
        DeltaBarStore(tmp_path).upsert(EURUSD_1H, random_bars("2024-01-01", 3))


def test_a_half_made_table_is_made_again(store: DeltaBarStore):
    log = Path(store.uri) / "_delta_log"
    log.mkdir(parents=True)
    (log / "_commit_0.json.tmp").write_text('{"protocol"')
    assert store.series() == []
    store.upsert(EURUSD_1H, random_bars("2024-01-01", 3))
    assert len(store.read(EURUSD_1H)) == 3


def test_a_writer_that_never_gets_its_turn_says_so(store: DeltaBarStore, monkeypatch: pytest.MonkeyPatch):
    bars = random_bars("2024-01-01", 10)
    store.upsert(EURUSD_1H, bars)
    monkeypatch.setattr(bar_table, "MAX_PAUSE_S", 0.0)
    monkeypatch.setattr(bar_table, "ATTEMPTS", 4)
    rival, original = DeltaBarStore(Path(store.uri).parent), module._commit

    def after_a_rival(table, series, rows, first):  # somebody else commits between reading and writing
        monkeypatch.setattr(module, "_commit", original)
        factor = 1 + store.version()
        rival.upsert(series, bars.iloc[:2] * factor)
        monkeypatch.setattr(module, "_commit", after_a_rival)
        return original(table, series, rows, first)

    monkeypatch.setattr(module, "_commit", after_a_rival)
    with pytest.raises(DataError, match="4 times in a row"):
        store.upsert(EURUSD_1H, bars.iloc[5:] * 2)
    monkeypatch.setattr(module, "_commit", original)
    assert store.read(EURUSD_1H).iloc[5:].equals(bars.iloc[5:])


PRELUDE = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from contracts.bar_store import EURUSD_1H, random_bars
from orbiquant.domain import SeriesId
from orbiquant.market.store import DeltaBarStore
import deltalake, pyarrow.dataset
store, me = DeltaBarStore(sys.argv[2]), int(sys.argv[3])
"""
WRITER = """
print("ready", flush=True)
sys.stdin.readline()
bars = random_bars("2023-12-29", 144)
for part in range(8):  # everybody's windows overlap everybody else's
    store.upsert(EURUSD_1H, bars.iloc[part * 16 + me : part * 16 + me + 16])
store.upsert(SeriesId.parse(f"OWN{me}", "1h"), bars)
"""
ENDLESS = """
acknowledged = open(sys.argv[4], "a")
bars = random_bars("2000-01-01", 20_000)
print("ready", flush=True)
for part in range(me, 1000):
    store.upsert(EURUSD_1H, bars.iloc[part * 20 : part * 20 + 20])
    acknowledged.write(f"{part}\\n")
    acknowledged.flush()
    if part % 5 == 4:
        store.upsert(EURUSD_1H, bars.iloc[part * 20 : part * 20 + 20].assign(volume=99.0))
    if part % 7 == 6:
        store.compact()
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python process of its own and wait until it says that it is ready."""
    command = [sys.executable, "-c", PRELUDE + code, str(Path(__file__).parent), *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_writers_in_several_processes_lose_and_double_nothing(tmp_path: Path):
    writers = [start(WRITER, tmp_path, me) for me in range(3)]
    for writer in writers:  # all at once, on a store that nobody has made yet
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=120)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    store, bars = DeltaBarStore(tmp_path), random_bars("2023-12-29", 144)
    assert store.read(EURUSD_1H).equals(bars.iloc[: 7 * 16 + 2 + 16])
    assert all(store.read(SeriesId.parse(f"OWN{me}", "1h")).equals(bars) for me in range(3))


def test_a_warm_store_sees_what_another_process_writes(tmp_path: Path):
    store, bars = DeltaBarStore(tmp_path), random_bars("2000-01-01", 20_000)
    assert store.version() == 0
    writers = [start(ENDLESS, tmp_path, 0, tmp_path / f"log {me}") for me in range(2)]  # of the same bars
    seen, until = [0], time.monotonic() + 20
    while (time.monotonic() < until and len(store.series()) == 0) or store.version() < 12:
        seen.append(store.version())
    rows = [len(store.read(EURUSD_1H, version=pin)) for pin in sorted({version for version in seen if version})]
    assert rows == sorted(rows), "time travel goes on in order beside a store that is kept open"
    for writer in writers:
        writer.kill()
        writer.communicate()
    assert seen == sorted(seen), "a version once seen is not unseen"
    fresh = DeltaBarStore(tmp_path)
    assert store.version() == fresh.version() and store.series() == fresh.series()
    assert store.read(EURUSD_1H).equals(fresh.read(EURUSD_1H))
    begin, written = store.version(), store.since(EURUSD_1H, 1)
    assert written is not None and bars.index[0] <= written.index[0]
    fresh.upsert(EURUSD_1H, bars.iloc[5:7] * 3)
    assert store.version() in (begin + 1, begin + 2), "a write, and every thirty-second time a tidying after it"
    assert store.since(EURUSD_1H, begin).index[0] == bars.index[5]


def test_another_store_put_in_the_place_of_a_warm_one_is_noticed(tmp_path: Path):
    bars, other = random_bars("2024-01-01", 60), random_bars("2024-01-01", 60, seed=1)
    store, twin = DeltaBarStore(tmp_path / "here"), DeltaBarStore(tmp_path / "there")
    for begin in range(0, 60, 20):
        store.upsert(EURUSD_1H, bars.iloc[begin : begin + 20])
    for begin in range(0, 60, 10):
        twin.upsert(EURUSD_1H, other.iloc[begin : begin + 10])
    assert len(store.read(EURUSD_1H)) == 60 and twin.version() > store.version()
    shutil.rmtree(tmp_path / "here")
    assert store.version() == 0 and store.series() == []
    shutil.copytree(tmp_path / "there", tmp_path / "here")
    assert store.read(EURUSD_1H).equals(other) and store.version() == twin.version()
    shutil.rmtree(tmp_path / "here")
    short = DeltaBarStore(tmp_path / "here")
    short.upsert(EURUSD_1H, bars.iloc[:5])
    assert len(store.read(EURUSD_1H)) == 5 and store.version() == short.version()


def test_another_store_begins_an_epoch(tmp_path: Path):
    store = DeltaBarStore(tmp_path / "here")
    for turn in range(3):
        store.upsert(EURUSD_1H, random_bars("2024-01-01", 60, seed=turn))
        assert store.version() and store.epoch() == turn
        shutil.rmtree(tmp_path / "here")
        assert store.version() == 0 and store.epoch() == turn + 1
        assert store.since(EURUSD_1H, 0).empty


def test_a_store_that_cannot_be_tidied_keeps_what_it_was_given(store: DeltaBarStore, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    bars = random_bars("2024-01-01", 2 * TIDY_EVERY)
    monkeypatch.setattr(TableOptimizer, "compact", full)
    versions = [store.upsert(EURUSD_1H, bars.iloc[[row]]) for row in range(len(bars))]
    assert len(set(versions)) == len(bars) and store.read(EURUSD_1H).equals(bars)


def test_a_damaged_file_is_named_whoever_reads_it(store: DeltaBarStore):
    bars = random_bars("2024-01-01", 30)
    store.upsert(EURUSD_1H, bars)
    for file in files_of(store):
        Path(file.removeprefix("file://")).write_bytes(b"not Parquet")
    for work in (lambda: store.read(EURUSD_1H), lambda: store.upsert(EURUSD_1H, bars * 2)):
        with pytest.raises(DataError, match="at version 1 has a file that cannot be read"):
            work()


def test_threads_share_a_warm_store(store: DeltaBarStore):
    bars = random_bars("2024-01-01", 200)
    rival = DeltaBarStore(Path(store.uri).parent)
    rival.upsert(EURUSD_1H, bars.iloc[:10])

    def look(_: int) -> bool:
        version = store.version()
        read = store.read(EURUSD_1H)
        return read.equals(bars.iloc[: len(read)]) and store.version() >= version

    with ThreadPoolExecutor(4) as pool:
        looks = pool.map(look, range(60))
        for end in range(20, 200, 20):
            rival.upsert(EURUSD_1H, bars.iloc[:end])
        assert all(looks)


def test_the_version_of_a_warm_store_costs_little(store: DeltaBarStore):
    bars = random_bars("2024-01-01", 600)
    for begin in range(0, 600, 10):
        store.upsert(EURUSD_1H, bars.iloc[begin : begin + 10])

    def seconds(ask: Callable[[], object]) -> float:
        begin = time.perf_counter()
        ask()
        return time.perf_counter() - begin

    store.version()
    warm = min(seconds(store.version) for _ in range(20))
    cold = min(seconds(DeltaBarStore(Path(store.uri).parent).version) for _ in range(5))
    assert warm < cold / 2


def test_a_commit_that_does_not_tell_may_have_touched_anything(store: DeltaBarStore):
    bars = random_bars("2024-01-01", 30)
    begin = store.upsert(EURUSD_1H, bars)
    written = store.upsert(EURUSD_1H, bars.iloc[20:] * 2)
    assert store.since(EURUSD_1H, begin).index[0] == bars.index[20]
    entry = Path(store.uri) / "_delta_log" / f"{written:020}.json"
    told = entry.read_text()
    for fact in ("first", "symbol", "timeframe"):  # as a program of another day wrote it
        lines = [json.loads(line) for line in told.splitlines()]
        for line in lines:
            line.get("commitInfo", {}).pop(fact, None)
            line.get("commitInfo", {}).pop("first" if fact != "first" else "", None)
        entry.write_text("\n".join(map(json.dumps, lines)) + "\n")
        assert DeltaBarStore(Path(store.uri).parent).since(EURUSD_1H, begin) is None
    entry.write_text(told)
    assert DeltaBarStore(Path(store.uri).parent).since(EURUSD_1H, begin).equals(bars.iloc[20:] * 2)
    removed = store.remove(EURUSD_1H)
    assert store.since(EURUSD_1H, written) is None and store.since(EURUSD_1H, removed).empty
    assert store.since(GBPUSD_1H, written).empty


def test_tidying_up_touches_nothing(store: DeltaBarStore):
    bars = random_bars("2024-01-01", 30)
    for begin in range(0, 30, 10):
        version = store.upsert(EURUSD_1H, bars.iloc[begin : begin + 10])
    assert store.compact() > version and store.vacuum(keep=[], older_than_hours=0)
    assert store.version() > version + 1 and store.since(EURUSD_1H, version).empty
    assert store.since(EURUSD_1H, 0).equals(bars)


def files_of(store: DeltaBarStore) -> list[str]:
    return DeltaTable(store.uri).file_uris()


def test_bars_written_one_by_one_leave_few_files_and_every_version(store: DeltaBarStore):
    bars, gold = random_bars("2024-01-01", TIDY_EVERY + 8), SeriesId.parse("XAUUSD", "1h")
    store.upsert(gold, bars)
    other, pins = files_of(store), [store.upsert(EURUSD_1H, bars.iloc[[row]]) for row in range(len(bars))]
    assert len(files_of(store)) <= 2 + 8 and set(other) <= set(files_of(store))
    assert store.read(EURUSD_1H).equals(bars) and store.since(EURUSD_1H, pins[9]).equals(bars.iloc[10:])
    assert all(len(store.read(EURUSD_1H, version=pins[row])) == row + 1 for row in range(0, len(pins), 6))
    assert DeltaBarStore(Path(store.uri).parent).since(EURUSD_1H, pins[9]).equals(bars.iloc[10:])


def test_a_large_file_is_not_written_again_for_small_ones(store: DeltaBarStore, monkeypatch: pytest.MonkeyPatch):
    bars = random_bars("2024-01-01", 2_000)
    store.upsert(EURUSD_1H, bars.iloc[:-40])
    large = files_of(store)
    monkeypatch.setattr(module, "TIDY_BYTES", Path(large[0].removeprefix("file://")).stat().st_size // 2)
    for row in range(1_960, 2_000):
        store.upsert(EURUSD_1H, bars.iloc[[row]])
    assert set(large) <= set(files_of(store)) and len(files_of(store)) < TIDY_EVERY
    assert store.read(EURUSD_1H).equals(bars)


def test_what_a_store_remembers_of_its_own_writes_is_what_the_log_tells(tmp_path: Path):
    """Two writers take turns at two series, forwards, backwards and over each other; a third one asks the log alone."""
    rng, bars = np.random.default_rng(7), random_bars("2024-01-01", 300)
    writers, seen = [DeltaBarStore(tmp_path), DeltaBarStore(tmp_path)], [0]
    for turn in range(30):
        begin, length = rng.integers(0, 280), rng.integers(1, 20)
        series, by = (EURUSD_1H, GBPUSD_1H)[rng.integers(2)], writers[rng.integers(2)]
        seen.append(by.upsert(series, bars.iloc[begin : begin + length] * (1 + turn % 3)))
        since = seen[-rng.integers(1, min(len(seen), 9) + 1)]
        for asked in (EURUSD_1H, GBPUSD_1H):
            told = DeltaBarStore(tmp_path).since(asked, since)
            for store in writers:
                written = store.since(asked, since)
                assert (written is None) == (told is None)
                if written is None or told is None:
                    continue
                assert written.empty == told.empty and written.index.is_monotonic_increasing
                assert written.empty or written.index[0] == told.index[0]
                assert written.equals(told.loc[written.index]), "what is told is what is stored"


def kill_in_mid_write(tmp_path: Path, kills: int, seed: int) -> None:
    """Kill a writer `kills` times at random moments; after each, everything acknowledged must be there, whole."""
    moments, log = random.Random(seed), tmp_path / "acknowledged"
    store, bars, done = DeltaBarStore(tmp_path / "store"), random_bars("2000-01-01", 20_000), 0
    for _ in range(kills):
        writer = start(ENDLESS, tmp_path / "store", done, log)
        time.sleep(moments.uniform(0.02, 0.6))
        writer.kill()
        writer.communicate()
        lines = log.read_text().split() if log.exists() else []
        done = 1 + int(lines[-1]) if lines else 0
        if not store.series():
            assert done == 0
            continue
        read = store.read(EURUSD_1H)
        assert read.index.equals(bars.index[: len(read)]), "whole batches, none lost, none doubled"
        assert len(read) in {done * 20, done * 20 + 20}, "at most the batch that was on its way"
        assert read.drop(columns="volume").equals(bars.iloc[: len(read)].drop(columns="volume"))
        for version in {*moments.sample(range(store.version() + 1), 3)} if store.version() > 3 else ():
            assert version == 0 or len(store.read(EURUSD_1H, version=version)) % 20 == 0
    store.upsert(EURUSD_1H, bars.iloc[: done * 20 + 20])
    assert len(store.read(EURUSD_1H)) == done * 20 + 20 > 20


def test_a_kill_in_mid_write_loses_nothing_committed(tmp_path: Path):
    kill_in_mid_write(tmp_path, kills=3, seed=7)


@pytest.mark.slow
def test_many_kills_in_mid_write_lose_nothing_committed(tmp_path: Path):
    kill_in_mid_write(tmp_path, kills=60, seed=8)


@pytest.mark.skipif(not SHARED.exists(), reason=f"no market data in {SHARED}; set ORBIQUANT_SAMPLE_DATA")
def test_a_long_real_series_is_fast_enough(store: DeltaBarStore):
    bars = pd.read_parquet(SHARED / "BTCUSDT_5m.parquet").set_index("time").astype("float64")
    begin = time.process_time()
    store.upsert(BTCUSDT_5M, bars)
    written = time.process_time()
    read = store.read(BTCUSDT_5M)
    done = time.process_time()
    assert len(read) == 630_478 and np.array_equal(read.to_numpy(), bars.to_numpy())
    assert written - begin < 1.5 and done - written < 1.0  # CPU seconds of all threads
