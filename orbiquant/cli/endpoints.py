"""What is served, of OrbiQuant and of your own notebooks: `orbiquant endpoint list`, and what `serve` and `build` ask."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orbiquant.cli.console import AsJson, show, table

if TYPE_CHECKING:
    from fastapi import FastAPI

    from orbiquant.service.projects import Project


PackageOption = Annotated[
    str | None, typer.Option("--package", help="Whose marked functions; else the workspace's pyproject.toml says.")
]
AloneOption = Annotated[bool, typer.Option("--alone", help="Without OrbiQuant's own routes.")]
endpoints = typer.Typer(help="The functions that are served.", no_args_is_help=True)


def project_here(
    package: str | None,  # that was asked for
) -> "Project | None":
    "Return the package that is meant in this workspace, ready to be imported; None for OrbiQuant's own."
    from orbiquant.service.projects import choose_project
    from orbiquant.workspace import workspace

    project = choose_project(package, workspace())
    if project:
        project.enter()
    return project


def refuse_ours(
    option: str,  # that needs a package of one's own
) -> Exception:
    "Return the error of an option that makes no sense for OrbiQuant's own routes."
    from orbiquant.core import OptionError
    from orbiquant.workspace import workspace

    return OptionError(
        f"`{option}` is about a package of yours, and {workspace()} has none: `orbiquant init .` writes a pyproject.toml"
    )


def chosen_app(
    package: str | None,  # that was asked for; None: the workspace's, where it marks anything
    alone: bool,  # without OrbiQuant's own routes
    export: bool,  # the notebooks first
    tell: Callable[[str], None],  # told what is served
) -> "FastAPI":
    "Return what is served: OrbiQuant's own routes, those of a package of yours, or both."
    project = project_here(package)
    if project is None or (export and not project.home):
        if export or (alone and project is None):
            raise refuse_ours("--export" if export else "--alone")
        from orbiquant.app import app

        return app
    from orbiquant.service.build import make_app
    from orbiquant.service.marks import find_marked
    from orbiquant.service.projects import export_notebooks

    if export:
        export_notebooks(project)
        project.enter()
    if not (export or alone or package) and not (project.folder.is_dir() and find_marked(project.package)):
        return chosen_app("orbiquant", False, False, tell)
    _, made = make_app(project, alone)
    own = len(find_marked(project.package))
    tell(f"Serving {own} route{'s' * (own > 1)} of {project.package}{'' if alone else ' beside those of orbiquant'}")
    return made


@endpoints.command("list")
def list_endpoints(package: PackageOption = None, as_json: AsJson = False) -> None:
    "List what is served here: route, scope, plan, and the notebook's cell that it comes from."
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
            "plan": getattr(getattr(each.function, "__orbiquant_tool__", None), "plan", None),
            "place": each.place,
        }
        for each in marked
    ]
    rows = [(f["method"], f["path"], f["scope"], f["plan"], f["place"]) for f in found]
    show(found, as_json, lambda: table(rows, "method", "path", "scope", "plan", "where it was written"))
