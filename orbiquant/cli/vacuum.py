"""`orbiquant data vacuum`"""

from typing import Annotated

import typer

from orbiquant.cli.console import MOST_BARS, AsJson, confirm, fields, open_runtime, show
from orbiquant.cli.data import data_commands


@data_commands.command("vacuum")
def vacuum_store(
    versions: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_BARS, help="Keep the newest so many, and those that models were trained on; else all."
        ),
    ] = None,
    older_than_hours: Annotated[int, typer.Option(min=0, max=876_000, help="Younger files stay; in hours.")] = 24,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    "Delete files of the store that no version needs, such as those of a killed writer, or give older versions up."
    runtime = open_runtime()
    store, newest = runtime.store, runtime.store.version()
    keep: list[int] | None = None
    if versions is not None:
        pinned = {card.data_version for card in runtime.registry.list()}
        oldest = max(newest - versions + 1, 0)
        keep = sorted({*range(oldest, newest + 1), *(v for v in pinned if isinstance(v, int) and 0 <= v <= newest)})
        if not yes:
            confirm(f"Give up the bars of {newest + 1 - len(keep)} of {newest + 1} versions?")
    deleted = store.vacuum(keep, older_than_hours)
    kept = newest + 1 if keep is None else len(keep)
    show(
        {"deleted": deleted, "kept_versions": kept, "version": store.version()},
        as_json,
        lambda: fields({"files deleted": deleted, "versions kept": kept, "store version": store.version()}),
    )
