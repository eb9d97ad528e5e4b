"""Errors as programs made for OpenAI read them: under /v1, `error` is an object, and our code stands in it."""

# Whatever refuses a request there (the gate, a route, FastAPI) does it in the service's own form. It is put into OpenAI's
# on the way out, with `message` and `details` beside it where our own clients look for them.

import json
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orbiquant.wire import to_wire

OPENAI_PATHS = "/v1/"
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class OpenAiError(BaseModel):
    "What went wrong, as OpenAI tells it."

    message: str
    type: str
    param: str | None = None
    code: str


class OpenAiProblem(BaseModel):
    "What every refused or failed request under /v1 is answered with."

    error: OpenAiError
    message: str
    details: dict[str, Any] = {}


def as_openai(
    status: int,  # of HTTP
    problem: dict[str, Any],  # in the service's own form
) -> OpenAiProblem:
    "Return an error in OpenAI's form."
    kind = _TYPES.get(status, "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error")
    places = problem["details"].get("problems") or [{}]
    param = str(places[0].get("place", "")).removeprefix("body.") or None
    told = OpenAiError(message=problem["message"], type=kind, param=param, code=problem["error"])
    return OpenAiProblem(error=told, message=problem["message"], details=problem["details"])


class OpenAiErrors:
    "The ASGI layer that does it."

    def __init__(
        self,
        app: ASGIApp,  # what answers
    ) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        "Pass a request on, and an error back in the other form."
        if scope["type"] != "http" or not scope["path"].startswith(OPENAI_PATHS):
            await self.app(scope, receive, send)
            return
        start: Message | None = None
        body = b""

        async def told(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and message["status"] >= HTTPStatus.BAD_REQUEST:
                start = message
            elif start is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    await self._tell(start, body, send)

        await self.app(scope, receive, told)

    async def _tell(self, start: Message, body: bytes, send: Send) -> None:
        told = to_wire(as_openai(start["status"], json.loads(body)))
        headers = [each for each in start["headers"] if each[0].lower() != b"content-length"]
        await send({**start, "headers": [*headers, (b"content-length", str(len(told)).encode())]})
        await send({"type": "http.response.body", "body": told})
