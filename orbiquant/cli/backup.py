"""`orbiquant backup create | check | restore`, `orbiquant database status | migrate`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orbiquant.cli.console import AsJson, fields, open_runtime, show

if TYPE_CHECKING:
    from orbiquant.backup.archive import Manifest


backup_commands = typer.Typer(help="Ledger, bars and models in one file, and back.", no_args_is_help=True)
database_commands = typer.Typer(help="The tables of the database and their version.", no_args_is_help=True)
BackupFile = Annotated[Path, typer.Argument(metavar="FILE", help="The backup, e.g. desk-2026-11-30.tar.")]


def manifest_facts(
    manifest: "Manifest",  # of a backup
) -> dict[str, object]:
    "Return what a backup holds, for a person."
    rooms = dict.fromkeys(name.partition("/")[0] for name in manifest.parts)
    counted = ", ".join(f"{room} {len(manifest.below(room))} files" for room in rooms)
    size = sum(part.size for part in manifest.parts.values())
    return {
        "made": manifest.made_at,
        "by": f"orbiquant {manifest.version}",
        "holds": f"{counted}; {size / 1e6:,.1f} MB",
        "bars": "none" if manifest.store_version is None else f"version {manifest.store_version} and what it keeps",
        "database": f"revision {manifest.revision}",
    }


@backup_commands.command("create")
def create_command(path: BackupFile, as_json: AsJson = False) -> None:
    "Write ledger, bars, models and what stands killed into one file, while everything runs."
    from orbiquant.backup.whole import create_backup

    made = create_backup(open_runtime(), path)
    left = "Settings and keys are not in it: keep settings.ini and .env beside it, as secrets."
    show(made, as_json, lambda: fields(manifest_facts(made) | {"left out": left}))


@backup_commands.command("check")
def check_backup_command(path: BackupFile, as_json: AsJson = False) -> None:
    "Say whether a backup is whole, and what it holds; nothing is unpacked."
    from orbiquant.backup.archive import read_manifest

    found = read_manifest(path)
    show(found, as_json, lambda: fields(manifest_facts(found)))


@backup_commands.command("restore")
def restore_command(
    path: BackupFile,
    only: Annotated[
        list[str] | None, typer.Option(help="database, store, models, switches or mt4; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    "Bring a backup into the empty places that the settings name: another disk, PostgreSQL, object storage."
    from orbiquant.backup.whole import ROOMS, restore_backup

    came = restore_backup(open_runtime(), path, only or ROOMS)
    bars = "none" if came.store_version is None else f"version {came.store_version}"
    facts = {"made": came.made_at, "rows": came.rows, "bars": bars, "files": came.files}
    show(came, as_json, lambda: fields(facts))


@database_commands.command("status")
def tables_command(as_json: AsJson = False) -> None:
    "Say which version the tables have and which the code needs; nothing is changed."
    from orbiquant.persistence import engine, head_revision, known_revision
    from orbiquant.settings import load_settings

    url = load_settings().workspace.database_url
    opened = engine(url)
    facts = {"database": opened.url.render_as_string(hide_password=True), "has": known_revision(opened)}
    facts |= {"needs": head_revision()}
    facts |= {"state": "current" if facts["has"] == facts["needs"] else "orbiquant database migrate"}
    show(facts, as_json, lambda: fields(facts))


@database_commands.command("migrate")
def migrate_command(as_json: AsJson = False) -> None:
    "Bring the tables to the version that the code needs; once for however many processes."
    from orbiquant.persistence import engine, known_revision, migrate
    from orbiquant.settings import load_settings

    opened = engine(load_settings().workspace.database_url)
    before, after = known_revision(opened), migrate(opened)
    facts = {"before": before, "after": after}
    show(facts, as_json, lambda: "The tables are current." if before == after else fields(facts))
