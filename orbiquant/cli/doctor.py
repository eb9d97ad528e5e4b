"""Looks at everything a command needs and says what is missing, changing nothing."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from packaging.requirements import Requirement


class Finding(NamedTuple):
    "What was seen of one thing."

    name: str
    status: Literal["ok", "warning", "problem"]
    detail: str


def look(
    name: str,  # of what is looked at
    at: Callable[[], str],  # returns what it sees, raises when it is broken
) -> Finding:
    "Return what a look gave; an error is a problem, not the end of the examination."
    from orbiquant.cli.ending import explain_error, printable

    try:
        return Finding(name, "ok", at())
    except Exception as error:
        return Finding(name, "problem", printable(explain_error(error)[0]))


MOST_DAMAGE = 3  # files that are named
TWINS = {"xgboost": "xgboost-cpu"}  # another distribution of the same library


def is_installed(
    name: str | None,  # of a distribution
    requirement: "Requirement",  # whose versions will do
) -> bool:
    "Say whether a distribution is installed in a version that will do."
    try:
        return bool(name) and requirement.specifier.contains(metadata.version(name or ""), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


def missing_libraries(
    extra: str,  # of pyproject.toml; "" for what is always needed
) -> list[str]:
    "Return the requirements of an extra that are not installed in the version it asks for."
    from packaging.requirements import Requirement

    wanted = [Requirement(line) for line in metadata.requires("orbiquant") or []]
    lacking: list[str] = []
    for requirement in wanted:
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        if extra and requirement.marker is None:
            continue
        if requirement.name == "orbiquant":
            lacking += [name for part in sorted(requirement.extras) for name in missing_libraries(part)]
        elif not any(is_installed(name, requirement) for name in (requirement.name, TWINS.get(requirement.name))):
            lacking.append(f"{requirement.name}{requirement.specifier}")
    return lacking


def examine_libraries() -> Iterator[Finding]:
    "Yield what is installed of each extra that a user may want."
    lacking = missing_libraries("")
    yield Finding(
        "libraries", "problem" if lacking else "ok", f"missing: {', '.join(lacking)}" if lacking else "complete"
    )
    for extra in ("models", "backtest", "notebook", "service", "deep", "exchange", "postgres", "mysql"):
        lacking = missing_libraries(extra)
        detail = f"missing: {', '.join(lacking)} (pip install 'orbiquant[{extra}]')" if lacking else "complete"
        yield Finding(f"extra {extra}", "warning" if lacking else "ok", detail)


def see_settings() -> str:
    "Say that the settings can be read."
    from orbiquant.settings import load_settings
    from orbiquant.workspace import workspace

    load_settings()
    own = [name for name in ("settings.ini", ".env") if (workspace() / name).exists()]
    return f"defaults{' and ' if own else ''}{', '.join(own)}"


LEAST_FREE_MB = 200  # a training and its report


def try_write(
    folder: Path,  # that things will be written to; it need not be there yet
) -> str:
    "Return a folder in which a file was written and removed, or in which it can be made; raise `DataError` otherwise."
    from orbiquant.core import DataError

    place = next((each for each in (folder, *folder.parents) if each.exists()), folder)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"orbiquant")
            file.flush()
        free_mb = shutil.disk_usage(place).free // 1_000_000
    except OSError as error:
        raise DataError(f"{folder} cannot be written to: {error.strerror}") from error
    if free_mb < LEAST_FREE_MB:
        raise DataError(f"{folder} has {free_mb} MB left, a training and its report need {LEAST_FREE_MB}")
    return str(folder) if place == folder else f"{folder}, made when something is written"


def examine_secrets() -> Iterator[Finding]:
    "Yield whether others on this machine can read the keys in `.env`, if there is one."
    from orbiquant.workspace import workspace

    path = workspace() / ".env"
    if path.exists() and os.name == "posix":
        open_to_others = bool(path.stat().st_mode & 0o077)
        detail = f"others can read {path}: chmod 600 {path}" if open_to_others else "for its owner alone"
        yield Finding("secrets", "warning" if open_to_others else "ok", detail)


def see_workspace() -> str:
    "Say where the workspace is and that it can be written to."
    from orbiquant.workspace import is_workspace, workspace

    named = os.environ.get("ORBIQUANT_HOME") or is_workspace(workspace())
    return (
        f"{try_write(workspace())}{'' if named else ', the current folder; `orbiquant init .` makes a workspace of it'}"
    )


def examine_folders() -> Iterator[Finding]:
    "Yield for every folder that commands write to whether they can."
    from orbiquant.persistence import database_location
    from orbiquant.settings import load_settings

    def own() -> dict[str, Path]:
        settings = load_settings()
        named, database = settings.workspace, database_location(settings.workspace.database_url)
        folders = {"data": named.data_dir, "models": named.models_dir, "report runs": named.reports_dir}
        found = {name: settings.path(folder) for name, folder in folders.items()}
        if "://" not in named.store_uri:
            found["store"] = settings.path(named.store_uri)
        if database.get_backend_name() == "sqlite":
            found["database"] = Path(database.database or "").parent
        return found

    try:
        folders = own()
    except Exception:  # the line of the settings says why
        folders = {}
    for name, folder in folders.items():
        yield look(f"folder of {name}", partial(try_write, folder))
    yield look("temporary folder", lambda: try_write(Path(tempfile.gettempdir())))


def see_store() -> str:
    "Say what the store holds; raise `DataError` for what is torn or lost of it."
    from orbiquant.core import DataError
    from orbiquant.runtime import current

    store = current().store
    if damage := store.damage():
        more = f" (and {len(damage) - MOST_DAMAGE} more)" if len(damage) > MOST_DAMAGE else ""
        raise DataError(f"the store is damaged: {'; '.join(damage[:MOST_DAMAGE])}{more}")
    return f"{len(store.series())} series, version {store.version()}"


def see_database() -> str:
    "Say which database is used and that it answers; one that is not made yet is left so."
    from orbiquant.persistence import database_location, engine
    from orbiquant.settings import load_settings

    url = load_settings().workspace.database_url
    place = database_location(url)
    if place.get_backend_name() == "sqlite" and not Path(place.database or "").exists():
        return f"{place.render_as_string()}, made when something is written"
    with engine(url).connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    return place.render_as_string(hide_password=True)


def see_providers() -> str:
    "Say which providers can be asked for bars, never with which key."
    from orbiquant.market.providers import describe_keys
    from orbiquant.settings import load_settings

    return "; ".join(f"{name}: {told}" for name, told in describe_keys(load_settings().providers).items())


def see_models() -> str:
    "Say how many models there are."
    from orbiquant.runtime import current

    return f"{len(current().registry.list())} versions"


def see_reports() -> str:
    "Say which reports there are."
    from orbiquant.reports import list_reports

    return ", ".join(report.name for report in list_reports())


def see_compiled() -> str:
    "Say where compiled loops are kept; raise `OptionError` with the remedy when nowhere can be written to."
    from pathlib import Path

    from orbiquant._caches import VARIABLE, are_writable, is_open
    from orbiquant.core import OptionError

    folder = os.environ.get(VARIABLE)
    if folder is None and are_writable():
        return "kept beside their sources"
    if folder is None or not is_open(Path(folder)):
        raise OptionError(f"`{VARIABLE}` must name a folder of your own that can be written to, was {folder!r}")
    return f"kept in {folder}"


def see_report_ground() -> str:
    "Say where reports run: their folder, their sockets and a home; raise an error with the remedy where they cannot."
    from pathlib import Path

    from orbiquant.reports.ground import check_ground, is_writable
    from orbiquant.reports.result import runs_folder

    ground = check_ground(runs_folder())
    home = os.environ.get("HOME")
    borrowed = "" if home and is_writable(Path(home)) else ", with a home of their own: there is none to write to"
    return f"runs in {ground['runs']}, sockets in {ground['sockets']}{borrowed}"


def examine_installation() -> list[Finding]:
    "Return what there is to say about this installation and this workspace."
    from orbiquant.core import code_version

    supported = (3, 11, 5) <= sys.version_info[:3] < (3, 13)
    python = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return [
        Finding("python", "ok" if supported else "problem", python),
        look("orbiquant", code_version),
        *examine_libraries(),
        look("settings", see_settings),
        *examine_secrets(),
        look("workspace", see_workspace),
        *examine_folders(),
        look("store", see_store),
        look("database", see_database),
        look("providers", see_providers),
        look("models", see_models),
        look("reports", see_reports),
        look("report runs", see_report_ground),
        look("compiled loops", see_compiled),
    ]
