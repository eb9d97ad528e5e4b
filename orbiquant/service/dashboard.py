"""The live dashboard at `/`: a page, its style and its modules as they lie in the package, and nothing from elsewhere."""

# Like the chat's, the page is the same for everybody and holds no secret, so that it needs no key; what it asks for does.

from collections.abc import Callable
from importlib.resources import files
from typing import NamedTuple

from fastapi import FastAPI
from fastapi.responses import Response

from orbiquant.copilot.face_source import face_style
from orbiquant.service.chat_page import POLICY

_ASSETS = files("orbiquant") / "assets"
_MODULES = {
    **dict.fromkeys(
        ("agents", "alerts", "books", "dialogs", "feed", "format", "health", "market", "page", "service"), "dashboard"
    ),
    **dict.fromkeys(("candles", "lightweight-charts"), "charts"),
    "dom": "faces",
}  # by the folder they lie in


class PagePart(NamedTuple):
    "A file of the page."

    text: Callable[[], str]
    kind: str  # media type


def _asset(
    name: str,  # below the package's assets
) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _module(folder: str, name: str) -> PagePart:
    return PagePart(lambda: _asset(f"{folder}/{name}.js"), "text/javascript")


DASHBOARD_PARTS = {
    "/": PagePart(lambda: _asset("dashboard/page.html"), "text/html"),
    "/dashboard/page.css": PagePart(lambda: f"{face_style()}\n{_asset('dashboard/page.css')}", "text/css"),
    **{f"/dashboard/{name}.js": _module(folder, name) for name, folder in _MODULES.items()},
}
DASHBOARD_PATHS = (*DASHBOARD_PARTS,)


def dashboard_of(
    address: str,  # of the API page, with its key
) -> str:
    "Return the dashboard's address beside the API page's; the key moves behind the #, which browsers send to nobody."
    place, _, key = address.partition("/docs")
    return f"{place}/{key.replace('?', '#', 1)}"


def add_dashboard(
    app: FastAPI,  # gets `/`
) -> None:
    "Add the dashboard's page and its parts, which anybody may have."

    def answer(part: PagePart) -> Callable[[], Response]:
        return lambda: Response(part.text(), media_type=part.kind, headers={"Content-Security-Policy": POLICY})

    for path, part in DASHBOARD_PARTS.items():
        app.add_api_route(path, answer(part), include_in_schema=False)
