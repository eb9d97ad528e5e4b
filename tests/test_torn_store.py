"""A store whose newest commit or whose files a crash has torn: said by whoever looks, never passed over."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.register_assert_rewrite("contracts")

from contracts.bar_store import EURUSD_1H, GBPUSD_1H, random_bars  # noqa: E402

from orbiquant.cli import main  # noqa: E402
from orbiquant.core import DataError  # noqa: E402
from orbiquant.market.store import DeltaBarStore  # noqa: E402
from orbiquant.market.table_log import commit_file, find_damage  # noqa: E402
from orbiquant.runtime import Runtime, using  # noqa: E402

BARS = random_bars("2023-12-30", 96)
TEARS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "one byte": lambda content: content[:1],
    "cut in a line": lambda content: content[: len(content) // 2],
    "cut at the end of its first line": lambda content: content.splitlines(keepends=True)[0],
    "cut before its last line": lambda content: b"".join(content.splitlines(keepends=True)[:-1]),
    "zeros": lambda content: bytes(len(content)),
    "zeros at its end": lambda content: content[: len(content) // 2] + bytes(len(content) - len(content) // 2),
    "another file": lambda content: b"<html>not found</html>",
    "a list": lambda content: b"[1, 2]",
}
USES: dict[str, Callable[[DeltaBarStore], object]] = {
    "read": lambda store: store.read(EURUSD_1H),
    "read an older version": lambda store: store.read(EURUSD_1H, version=1),
    "list": lambda store: store.series(),
    "version": lambda store: store.version(),
    "versions": lambda store: store.versions(),
    "since": lambda store: store.since(EURUSD_1H, 1),
    "write": lambda store: store.upsert(EURUSD_1H, BARS * 2),
    "remove": lambda store: store.remove(EURUSD_1H),
    "compact": lambda store: store.compact(),
}


@pytest.fixture
def store(tmp_path: Path) -> DeltaBarStore:
    """Return a store of three writes, the last of which changes bars of two years."""
    made = DeltaBarStore(tmp_path / "data" / "store")
    for rows in (BARS[:40], BARS[40:], BARS[20:60] * 2):
        made.upsert(EURUSD_1H, rows)
    return made


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("tear", TEARS)
def test_a_torn_newest_commit_is_named_whoever_looks(tear: str, warm: bool, store: DeltaBarStore, tmp_path: Path):
    version = store.version()
    file = commit_file(store.uri, version)
    file.write_bytes(TEARS[tear](file.read_bytes()))
    for name, use in USES.items():
        asked = store if warm else DeltaBarStore(tmp_path / "data" / "store")
        with pytest.raises(DataError, match=f"{file.name}.*move this file away.*version {version - 1}") as refused:
            use(asked)
        assert len(refused.value.message) < 1000 and "\x1b" not in refused.value.message, name
    assert commit_file(store.uri, version + 1).exists() is False, "nothing was written behind it"
    (line,) = store.damage()
    assert file.name in line
    shutil.move(file, tmp_path)
    held = store.read(EURUSD_1H)
    assert store.version() == version - 1 and held.equals(BARS), "as the message says"
    store.upsert(EURUSD_1H, BARS[20:60] * 2)
    assert store.read(EURUSD_1H)[20:60].equals(BARS[20:60] * 2) and store.damage() == []


def test_a_commit_cut_anywhere_is_seen(store: DeltaBarStore):
    for version in range(store.version() + 1):
        content = commit_file(store.uri, version).read_bytes()
        assert find_damage(content) is None
        whole = {len(content)} | ({len(content) - 1} if content.endswith(b"\n") else set())
        assert all(find_damage(content[:cut]) for cut in range(len(content)) if cut not in whole)


def test_a_commit_of_another_process_that_is_torn_is_seen_by_a_warm_store(store: DeltaBarStore, tmp_path: Path):
    assert len(store.read(EURUSD_1H)) == 96
    rival = DeltaBarStore(tmp_path / "data" / "store")
    file = commit_file(store.uri, rival.upsert(GBPUSD_1H, BARS))
    file.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(DataError, match=f"{file.name} is empty"):
            store.series()


def test_a_commit_that_is_missing_between_others_is_named(store: DeltaBarStore, tmp_path: Path):
    commit_file(store.uri, 2).unlink()
    with pytest.raises(DataError, match=r"02\.json is not there, although later ones are"):
        DeltaBarStore(tmp_path / "data" / "store").series()


def test_a_torn_first_commit_is_no_empty_store(tmp_path: Path):
    store = DeltaBarStore(tmp_path)
    store.upsert(EURUSD_1H, BARS)
    for version in (1, 0):
        commit_file(store.uri, version).unlink()
        commit_file(store.uri, 0).write_bytes(b"")
        for use in (DeltaBarStore(tmp_path).series, lambda: DeltaBarStore(tmp_path).upsert(EURUSD_1H, BARS)):
            with pytest.raises(DataError, match=r"00\.json is empty"):
                use()


def test_whatever_is_done_to_a_store_its_log_is_whole(tmp_path: Path):
    store, rng, bars = DeltaBarStore(tmp_path), np.random.default_rng(5), random_bars("2023-12-20", 600)
    for turn in range(60):
        series, begin, length = (EURUSD_1H, GBPUSD_1H)[rng.integers(2)], rng.integers(0, 500), rng.integers(1, 90)
        act = rng.integers(12)
        if act == 0:
            store.compact()
        elif act == 1:
            store.vacuum(keep=[], older_than_hours=0)
        elif act == 2 and any(line.series == series for line in store.series()):
            store.remove(series)
        else:
            store.upsert(series, bars[begin : begin + length] * (1 + turn % 3))
        assert store.damage() == []


@pytest.fixture
def ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Return a function that runs a command on the store."""
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))

    def typed(*words: str) -> tuple[int, str]:
        with using(Runtime()), pytest.raises(SystemExit) as ended:
            main(words)
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    return typed


def test_check_and_doctor_say_which_commit_is_torn(store: DeltaBarStore, ask: Callable[..., tuple[int, str]]):
    code, said = ask("data", "check", "EURUSD", "1h", "--json")
    assert (code, json.loads(said)["store_damage"]) == (0, [])
    file = commit_file(store.uri, store.version())
    file.write_bytes(file.read_bytes()[:300])
    for words in (("data", "check", "EURUSD", "1h"), ("data", "show", "EURUSD", "1h"), ("data", "list")):
        code, said = ask(*words)
        assert code == 1 and file.name in said.replace("\n", "")
    findings = {
        finding["name"]: finding for finding in json.loads(ask("doctor", "--json")[1].partition("]\n")[0] + "]")
    }
    assert findings["store"]["status"] == "problem" and file.name in findings["store"]["detail"]


@pytest.mark.parametrize("loss", ["gone", "short", "rotten"])
def test_check_doctor_and_reads_say_which_file_is_lost(
    loss: str, store: DeltaBarStore, ask: Callable[..., tuple[int, str]]
):
    store.upsert(GBPUSD_1H, BARS)
    file = next(Path(store.uri).glob("symbol=GBPUSD/**/year=2024/*.parquet"))
    content = file.read_bytes()
    file.unlink() if loss == "gone" else file.write_bytes(content[:100] if loss == "short" else bytes(len(content)))
    if loss != "rotten":  # a file of the right size is found out by who reads it
        code, said = ask("data", "check", "EURUSD", "1h", "--json")
        assert code == 1 and file.name in json.loads(said)["store_damage"][0]
        assert f"{file.name}" in ask("doctor", "--json")[1]
    code, said = ask("data", "check", "GBPUSD", "1h")
    assert code == 1 and "has a file that cannot be read" in said and "data remove" in said
    assert len(store.read(EURUSD_1H)) == 96
    assert ask("data", "remove", "GBPUSD", "1h", "--yes")[0] == 0
    assert store.damage() == [] and store.upsert(GBPUSD_1H, BARS) and len(store.read(GBPUSD_1H)) == 96


def test_vacuum_deletes_what_no_version_needs_and_older_versions_when_told_to(
    store: DeltaBarStore, ask: Callable[..., tuple[int, str]]
):
    orphan = Path(store.uri) / "symbol=EURUSD" / "timeframe=1h" / "year=2024" / "part-of-a-killed-writer.parquet"
    orphan.write_bytes(b"PAR1")
    code, said = ask("data", "vacuum", "--older-than-hours", "0", "--json")
    assert (code, json.loads(said)["deleted"]) == (0, 1) and not orphan.exists()
    assert store.read(EURUSD_1H, version=2).equals(BARS)
    held = store.read(EURUSD_1H)
    code, said = ask("data", "vacuum", "--versions", "1", "--older-than-hours", "0", "--yes", "--json")
    assert (code, json.loads(said)["deleted"] > 0, json.loads(said)["kept_versions"]) == (0, True, 1)
    assert store.read(EURUSD_1H).equals(held) and store.damage() == []
    with pytest.raises(DataError, match="was it vacuumed"):
        store.read(EURUSD_1H, version=2)
    assert ask("data", "vacuum", "--versions", "1")[0] != 0, "asked, and not answered"
