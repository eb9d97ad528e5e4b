"""One application out of two: the routes of a package of yours, and OrbiQuant's own beside them."""

# The file of a user's routes holds only those, so that it is read in a minute and stays as it is when ours change. What is
# served are both: each route as it was made, in the order that a single file would have, and whatever one of the two says
# of a path (open to all, kept, computing, signed) holds in the whole.

from typing import Any

from fastapi import FastAPI

from orbiquant.service.gate import Gate
from orbiquant.service.routes import NamedRoute


def serve_beside(
    app: FastAPI,  # gets the routes
    other: FastAPI,  # whose described routes it gets; stays as it is
) -> None:
    "Serve another application's routes beside an app's own: a literal path before one with parameters."
    routes = app.router.routes
    there = {(route.path, *(route.methods or ())) for route in routes if isinstance(route, NamedRoute)}  # the metrics are in both
    described = [route for route in other.router.routes if isinstance(route, NamedRoute) and route.include_in_schema]
    routes += [route for route in described if (route.path, *(route.methods or ())) not in there]
    routes.sort(key=lambda route: str(getattr(route, "path", "")))
    gate, theirs = _gate_of(app), _gate_of(other)
    for name, paths in theirs.items():
        gate[name] = sorted({*gate[name], *paths})


def _gate_of(app: FastAPI) -> dict[str, Any]:
    layers: list[Any] = list(app.user_middleware)
    return next(layer.kwargs for layer in layers if layer.cls is Gate)
