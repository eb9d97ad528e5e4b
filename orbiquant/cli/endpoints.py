"""What is served, of OrbiQuant and of your own notebooks: `orbiquant endpoint list`"""

from typing import Annotated, Any

import typer

from orbiquant.cli.console import AsJson, show, table

PackageOption = Annotated[
    str | None, typer.Option("--package", help="Whose marked functions; else the workspace's pyproject.toml says.")
]
AloneOption = Annotated[bool, typer.Option("--alone", help="Without OrbiQuant's own routes.")]
endpoints = typer.Typer(help="The functions that are served.", no_args_is_help=True)


@endpoints.command("list")
def list_endpoints(package: PackageOption = None, as_json: AsJson = False) -> None:
    "List what is served here: route, scope, plan, and the notebook's cell that it comes from."
    from orbiquant.cli.choosing import project_here
    from orbiquant.service.build import some_marked
    from orbiquant.service.marks import find_marked

    project = project_here(package)
    marked = some_marked(project.package) if project and package else []
    if not marked:
        mine = find_marked(project.package) if project and project.folder.is_dir() else []
        marked = [*find_marked("orbiquant"), *mine]
    found: list[dict[str, Any]] = [
        {
            "method": each.info.method,
            "path": each.info.path,
            "function": f"{each.module.__name__}.{each.name}",
            "scope": each.info.scope,
            "plan": each.info.plan,
            "place": each.place,
        }
        for each in marked
    ]
    rows = [(f["method"], f["path"], f["scope"], f["plan"], f["place"]) for f in found]
    show(found, as_json, lambda: table(rows, "method", "path", "scope", "plan", "where it was written"))
