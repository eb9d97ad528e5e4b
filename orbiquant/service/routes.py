"""A route that takes the names it declares: a query name that is misspelt or repeated is refused and not ignored."""

# `?symbl=XAUUSD` would be answered for the default symbol, and of `?limit=5&limit=50` only one counts: both look like
# answers to a question that was not asked. What a route takes is worked out once, when it is made.

import json
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from orbiquant.core import suggest
from orbiquant.domain import RawRequest
from orbiquant.service.openai_form import OPENAI_PATHS, OpenAiProblem
from orbiquant.wire import NameRepeated, named_once

KEY = "token"  # where a key may stand in the address of a GET
MOST_NAMED = 20  # problems that one answer tells
MOST_NAME_LETTERS = 100  # of a name that is told back


def described_refusal(
    said: str,  # when it is answered
) -> dict[str, Any]:
    "Return how a problem is described at a route: by the name of its model, which would be built anew for each of them."
    return {"description": said, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}


def takes_many(
    hint: Any,  # annotation of a parameter
) -> bool:
    "Say whether a parameter is a collection, so that its name may be repeated."
    if get_origin(hint) is Annotated:
        return takes_many(get_args(hint)[0])
    if (get_origin(hint) or hint) in (list, set, tuple, frozenset):
        return True
    options = [option for option in get_args(hint) if option is not NoneType]
    return len(options) < len(get_args(hint)) and any(map(takes_many, options))


def query_names(
    dependant: Any,  # FastAPI's description of what a function takes
) -> Iterator[tuple[str, bool]]:
    "Yield the names that a function and what it depends on read from the query, and whether each may be repeated."
    for field in dependant.query_params:
        yield field.alias, takes_many(field.field_info.annotation)
    for part in dependant.dependencies:
        yield from query_names(part)


def check_query(
    given: list[tuple[str, str]],  # names and values as they were sent
    known: dict[str, bool],  # name -> whether it may be repeated
) -> None:
    "Raise `RequestValidationError` for a name that is not known, or stands twice."
    counted = Counter(name for name, _ in given)
    wrong = [name for name, times in counted.items() if name not in known or (times > 1 and not known[name])]
    if wrong:
        problems = [
            {
                "type": "query_name",
                "loc": ("query", name[:MOST_NAME_LETTERS]),
                "msg": explain_name(name[:MOST_NAME_LETTERS], counted[name], known),
                "input": counted[name],
            }
            for name in wrong[:MOST_NAMED]  # to look for the near names of thousands would take seconds
        ]
        raise RequestValidationError(problems)


def explain_name(
    name: str,  # as it was sent
    times: int,  # how often it stands
    known: dict[str, bool],  # the names there are
) -> str:
    "Say what is wrong with a name."
    if name in known:
        return f"stands {times} times, must stand once"
    if name == KEY:
        return "a key may stand in the address of a GET only"
    return f"there is no such name{suggest(name, known) or ', there is ' + (', '.join(known) or 'none')}"


def described_body(
    function: Callable[..., Any],  # of a route
) -> dict[str, Any]:
    "Return what tells the model of a body that the function reads for itself; empty where there is none."
    for hint in get_type_hints(function, include_extras=True).values():
        if get_origin(hint) is Annotated and get_args(hint)[0] is RawRequest and issubclass(get_args(hint)[1], BaseModel):
            schema = inlined(get_args(hint)[1].model_json_schema())
            return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
    return {}


def described_answer(
    function: Callable[..., Any],  # of a route
    status: int,  # of a good answer
) -> dict[str, Any]:
    "Return the options that tell what kinds of answer a function may send beside JSON; empty where it sends none."
    hint = get_type_hints(function).get("return")
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    sent = [each for each in members if isinstance(each, type) and issubclass(each, Response)]
    kinds = [str(each.media_type) for each in sent if each.media_type]
    if not kinds:
        return {}
    content = {kind: {"schema": {"type": "string"} if kind == "text/html" else {}} for kind in kinds}
    only = len(sent) == len(members) and "application/json" not in kinds
    return {"responses": {status: {"content": content}}} | ({"response_class": sent[0]} if only else {})


def inlined(
    schema: Any,  # of a model that holds others, but not itself
    parts: dict[str, Any] | None = None,  # those others; None: in the schema itself
) -> Any:
    "Return a schema without references: one that stands alone in a document of many."
    if isinstance(schema, list):
        return [inlined(each, parts) for each in schema]
    if not isinstance(schema, dict):
        return schema
    known = schema.get("$defs", {}) if parts is None else parts
    if "$ref" in schema:
        return inlined(known[schema["$ref"].rpartition("/")[2]], known)
    return {name: inlined(each, known) for name, each in schema.items() if name != "$defs"}


class NamedBody(Request):
    "A request in whose JSON each name of an object stands once."

    async def json(self) -> Any:
        "Return the body; raise `HTTPException` for a name that stands twice."
        try:
            return json.loads(await self.body(), object_pairs_hook=named_once)
        except NameRepeated as error:
            raise HTTPException(400, f"the body: {error}") from error


class NamedRoute(APIRoute):
    "A route that refuses query names it does not declare, and any name that a body says twice."

    def __init__(self, path: str, **options: Any) -> None:
        if {"POST", "PUT", "PATCH"} & set(options.get("methods") or ()):
            bodies = {413: described_refusal("Too large a body"), 415: described_refusal("A body that is packed")}
            options["responses"] = bodies | (options.get("responses") or {})
        if path.startswith(OPENAI_PATHS):
            given = options.get("responses") or {}
            options["responses"] = {status: each | {"model": OpenAiProblem} for status, each in given.items()}
        answer = described_answer(options["endpoint"], options.get("status_code") or 200)
        options |= answer | {"responses": (options.get("responses") or {}) | answer.get("responses", {})}
        if body := described_body(options["endpoint"]):
            options["openapi_extra"] = body | (options.get("openapi_extra") or {})
        super().__init__(path, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        "Return FastAPI's handler behind a look at the query."
        handle = super().get_route_handler()
        known = dict(query_names(self.dependant)) | ({KEY: False} if "GET" in (self.methods or ()) else {})

        async def checked(request: Request) -> Response:
            if request.scope["query_string"]:
                check_query(request.query_params.multi_items(), known)
            return await handle(NamedBody(request.scope, request.receive))

        return checked
