"""Backups out of one kind of database and into another, while somebody writes; and files that are no whole backup."""

import gc
import io
import json
import sqlite3
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import IntegrityError
from test_ledger import NOON
from test_persistence import fill

from orbiquant.backup import whole
from orbiquant.backup.archive import CONTENTS, new_archive, read_manifest
from orbiquant.backup.rows import snapshot
from orbiquant.backup.whole import create_backup, restore_backup
from orbiquant.cli import main
from orbiquant.core import ConflictError, DataError, FixedClock, SettingsError, configure_logging
from orbiquant.domain import SeriesId
from orbiquant.market.synthetic import synthetic_market
from orbiquant.persistence import migration_steps, writing
from orbiquant.runtime import Runtime
from orbiquant.service.keys import create_api_key, list_api_keys
from orbiquant.settings import load_settings
from orbiquant.trading.journal import deposit_entry
from orbiquant.trading.ledger import Ledger
from tests.tools.postgres import migrated_postgres

configure_logging("ERROR")
EURUSD = SeriesId.parse("EURUSD", "1h")
BARS = synthetic_market(120, "1h", seed=7).bars
ODD = Decimal("12345678901234567890.123456789012345678")


def desk(folder: Path, url: str | None = None, **workspace: Any) -> Runtime:
    """Return a runtime that keeps everything in a folder, rows perhaps elsewhere."""
    places = {"store_uri": f"{folder}/store", "models_dir": f"{folder}/models", "data_dir": f"{folder}/data"}
    places |= {"database_url": url or f"sqlite:///{folder}/o.db"} | workspace
    return Runtime(load_settings(workspace=places), FixedClock(NOON))


def rows(database: Engine) -> dict[str, list[Any]]:
    """Return every row by its table, as lines have them."""
    return {name: [json.loads(line) for line in lines] for name, lines in snapshot(database)}


@pytest.fixture(scope="module")
def server() -> Iterator[Engine]:
    with migrated_postgres() as made:
        yield made


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """A desk with a row in every table, a booked deposit, bars and a model."""
    folder = tmp_path_factory.mktemp("full")
    made = desk(folder)
    with writing(made.engine) as connection:
        fill(connection)
    Ledger(made.engine, made.clock).post(deposit_entry("atlas", "paper", "USDT", ODD, NOON), "first")
    made.store.upsert(EURUSD, BARS)
    (folder / "models" / "EURUSD_1h").mkdir(parents=True)
    (folder / "models" / "EURUSD_1h" / "card.json").write_text('{"é": 1}', encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def backup(full: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kept") / "desk.tar"
    create_backup(full, path)
    return path


def test_every_row_comes_back_digit_for_digit(full: Runtime, backup: Path, tmp_path: Path):
    again = desk(tmp_path)
    came = restore_backup(again, backup)
    assert came.rows > 40 and rows(again.engine) == rows(full.engine)
    assert again.store.read(EURUSD).equals(BARS)
    assert json.loads((tmp_path / "models/EURUSD_1h/card.json").read_text(encoding="utf-8")) == {"é": 1}


def test_a_ledger_moves_to_postgresql_and_back_and_counts_on(
    full: Runtime, backup: Path, server: Engine, tmp_path: Path
):
    url = server.url.render_as_string(hide_password=False)
    moved = desk(tmp_path / "server", url)
    restore_backup(moved, backup)
    before = rows(full.engine)
    assert {name: len(found) for name, found in rows(moved.engine).items()} == {n: len(f) for n, f in before.items()}
    assert [row["amount"] for row in rows(moved.engine)["journal_postings"]] == [
        row["amount"] for row in before["journal_postings"]
    ]
    second = Ledger(moved.engine, moved.clock)
    assert second.post(deposit_entry("atlas", "paper", "USDT", Decimal(1), NOON), "second")  # numbers go on
    create_backup(moved, tmp_path / "back.tar")
    home = desk(tmp_path / "home")
    restore_backup(home, tmp_path / "back.tar")
    assert rows(home.engine) == rows(moved.engine)
    with home.engine.connect() as connection, pytest.raises(IntegrityError, match="journal"):
        connection.execute(text("DELETE FROM journal_entries"))
    for each in (moved, home):
        each.engine.dispose()


def test_what_is_kept_is_of_one_moment_while_somebody_books(tmp_path: Path):
    one, ended = desk(tmp_path / "one"), threading.Event()
    ledger = Ledger(one.engine, one.clock)

    def book() -> None:
        number = 0
        while not ended.is_set():
            ledger.post(deposit_entry("atlas", "paper", "USDT", Decimal(1), NOON), f"d{number}")
            number += 1

    writer = threading.Thread(target=book)
    writer.start()
    try:
        for number in range(3):
            create_backup(one, tmp_path / f"{number}.tar")
    finally:
        ended.set()
        writer.join()
    again = desk(tmp_path / "again")
    restore_backup(again, tmp_path / "2.tar", ["database"])
    kept = rows(again.engine)
    assert len(kept["journal_postings"]) == 2 * len(kept["journal_entries"]) > 0
    again.engine.dispose()
    one.engine.dispose()


def test_nothing_is_ever_written_over(full: Runtime, backup: Path, tmp_path: Path):
    with pytest.raises(DataError, match="must be a new file"):
        create_backup(full, backup)
    with pytest.raises(ConflictError, match="empty"):
        restore_backup(full, backup)
    taken = desk(tmp_path)
    taken.store.upsert(EURUSD, BARS.iloc[:5])
    with pytest.raises(ConflictError, match="empty store"):
        restore_backup(taken, backup)
    assert len(taken.store.read(EURUSD)) == 5 and not (tmp_path / "models").exists()
    assert not any(rows(taken.engine).values())


def retold(backup: Path, path: Path, change: Any) -> Path:
    """Write a backup again with its parts as `change` leaves them."""
    with tarfile.open(backup) as tar:
        parts = {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]
    with tarfile.open(path, "w") as tar:
        for name, content in change(parts).items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def with_manifest(held: dict[str, bytes], /, **facts: Any) -> dict[str, bytes]:
    return held | {CONTENTS: json.dumps(json.loads(held[CONTENTS]) | facts).encode()}


@pytest.mark.parametrize(
    "change",
    [
        lambda parts: {name: content for name, content in parts.items() if name != CONTENTS},
        lambda parts: {name: content for name, content in parts.items() if "card.json" not in name},
        lambda parts: {"models/../../evil": b"x"} | parts,
        lambda parts: {"models/more": b"x"} | parts,
        lambda parts: parts | {"models/EURUSD_1h/card.json": b"{}"},
        lambda parts: with_manifest(parts, form=99),
        lambda parts: with_manifest(parts, parts={}),
        lambda parts: parts | {CONTENTS: b"[]"},
    ],
)
def test_a_file_that_is_not_whole_is_refused_before_anything_is_written(change, backup: Path, tmp_path: Path):
    torn = retold(backup, tmp_path / "torn.tar", change)
    with pytest.raises(DataError):
        read_manifest(torn)
    target = desk(tmp_path / "target")
    with pytest.raises(DataError):
        restore_backup(target, torn)
    assert not any(rows(target.engine).values()) and not (tmp_path / "target/models").exists()
    assert not (tmp_path / "evil").exists()


def test_a_restore_that_fails_leaves_nothing_and_can_be_done_anew(
    full: Runtime, backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = desk(tmp_path)

    def fail(*_: object) -> int:
        raise DataError("the server went away")

    with monkeypatch.context() as patched:
        patched.setattr(whole, "_fill_database", fail)
        with pytest.raises(DataError, match="went away"):
            restore_backup(made, backup)
    assert not [*tmp_path.rglob("*.parquet")] and not [*tmp_path.rglob("card.json")]
    restore_backup(made, backup)
    assert rows(made.engine) == rows(full.engine)
    made.engine.dispose()


def test_a_text_of_before_keeps_no_backup_from_coming_back(tmp_path: Path):
    old, new = desk(tmp_path / "old"), desk(tmp_path / "new")
    create_api_key(old.engine, "desk", "ana", "pro", ["read"], old.clock)
    with closing(sqlite3.connect(tmp_path / "old/o.db")) as raw, raw:
        raw.execute("UPDATE api_keys SET name = 'desk' || char(0)")
    create_backup(old, tmp_path / "b.tar")
    restore_backup(new, tmp_path / "b.tar")
    assert [each.name for each in list_api_keys(new.engine)] == ["desk\ufffd"]
    for each in (old, new):
        each.engine.dispose()


def test_an_archive_that_fails_does_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    later: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", later.append)
    with pytest.raises(OSError, match="disk"), new_archive(tmp_path / "a.tar") as archive:
        archive.add("models/a", io.BytesIO(b"a"))
        raise OSError("the disk is full")
    del archive
    gc.collect()
    assert not later and not [*tmp_path.iterdir()]


def test_a_backup_of_older_tables_is_brought_up_to_date(full: Runtime, backup: Path, tmp_path: Path):
    from alembic import command

    old = desk(tmp_path / "old", migration="auto")
    restore_backup(old, backup, ["database"])
    with writing(old.engine) as connection:
        command.downgrade(migration_steps(connection), "0014")
    create_backup(old, tmp_path / "old.tar")
    assert read_manifest(tmp_path / "old.tar").revision == "0014"
    new = desk(tmp_path / "new")
    restore_backup(new, tmp_path / "old.tar", ["database"])
    kept = rows(new.engine)
    assert kept["journal_entries"] == rows(full.engine)["journal_entries"] and kept["telegram_chats"] == []
    with pytest.raises(DataError, match="newer OrbiQuant"):
        newer = retold(tmp_path / "old.tar", tmp_path / "newer.tar", lambda p: with_manifest(p, revision="9999"))
        restore_backup(desk(tmp_path / "third"), newer, ["database"])


def test_tables_are_brought_up_to_date_by_hand_where_the_settings_say_so(tmp_path: Path):
    waiting = desk(tmp_path, migration="by_hand")
    with pytest.raises(SettingsError, match="orbiquant database migrate"):
        _ = waiting.engine
    assert desk(tmp_path).engine is not None
    assert inspect(desk(tmp_path, migration="by_hand").engine).has_table("journal_entries")


def test_the_commands_say_what_they_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))

    def ask(*words: str) -> tuple[int, Any]:
        with pytest.raises(SystemExit) as ended:
            main([*words, "--json"])
        told = capsys.readouterr()
        return int(ended.value.code or 0), json.loads(told.out) if told.out.strip() else told.err

    before = ask("database", "status")[1]
    assert before["has"] is None and before["state"] == "orbiquant database migrate"
    assert ask("database", "migrate") == (0, {"before": None, "after": before["needs"]})
    assert ask("database", "status")[1]["state"] == "current"
    code, made = ask("backup", "create", str(tmp_path / "kept" / "a.tar"))
    assert code == 0 and made["revision"] == before["needs"] and made["store_version"] is None
    assert datetime.fromisoformat(made["made_at"]).tzinfo == UTC or made["made_at"].endswith("Z")
    assert ask("backup", "check", str(tmp_path / "kept" / "a.tar")) == (0, made)
    assert ask("backup", "restore", str(tmp_path / "kept" / "a.tar"))[1]["rows"] == 0
    assert ask("backup", "check", str(tmp_path / "none.tar"))[0] == 1
    assert ask("backup", "restore", str(tmp_path / "kept" / "a.tar"), "--only", "modles")[0] == 1
