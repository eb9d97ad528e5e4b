"""The copilot's chat as a page of the service: three files and a few lines that mount them, and nothing from elsewhere."""

# The page is the same for everybody and holds no secret, so that it needs no key; what it asks for does. Its key stands
# behind the # of its address, which browsers send to nobody.

from collections.abc import Callable
from importlib.resources import files

from fastapi import FastAPI
from fastapi.responses import Response

from orbiquant.copilot.face_source import face_source, face_style

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_OWN = files("orbiquant") / "assets" / "faces" / "web"


def _own(
    name: str,  # of a file of the page
) -> str:
    return (_OWN / name).read_text(encoding="utf-8")


_PARTS: dict[str, tuple[Callable[[], str], str]] = {
    "/chat": (lambda: _own("page.html"), "text/html"),
    "/chat/page.js": (lambda: _own("page.js"), "text/javascript"),
    "/chat/face.js": (face_source, "text/javascript"),
    "/chat/page.css": (lambda: f"{face_style()}\n{_own('page.css')}", "text/css"),
}
CHAT_PATHS = (*_PARTS,)


def add_chat_page(
    app: FastAPI,  # gets /chat
) -> None:
    "Add the chat's page and its parts, which anybody may have."

    def part(text: Callable[[], str], kind: str) -> Callable[[], Response]:
        return lambda: Response(text(), media_type=kind, headers={"Content-Security-Policy": POLICY})

    for path, (text, kind) in _PARTS.items():
        app.add_api_route(path, part(text, kind), include_in_schema=False)
