"""Which application is served: OrbiQuant's own routes, those of a package of yours, or both."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from orbiquant.service.projects import Project


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
    export: bool = False,  # the notebooks first
    tell: Callable[[str], None] = lambda text: None,  # told what is served
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
    from orbiquant.service.projects import export_notebooks, unserved

    if export:
        export_notebooks(project)
        for sentence in unserved(project):
            tell(sentence)
        project.enter()
    if not (export or alone or package) and not (project.folder.is_dir() and find_marked(project.package)):
        return chosen_app("orbiquant", False)
    _, made = make_app(project, alone)
    own = len(find_marked(project.package))
    tell(f"Serving {own} route{'s' * (own > 1)} of {project.package}{'' if alone else ' beside those of orbiquant'}")
    return made
