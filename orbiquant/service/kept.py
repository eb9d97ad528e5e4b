"""Answers that are given again: one computation a question however many ask, and few that compute at once."""

# A kept answer is at most `FRESH_S` old, whichever process wrote to the store or promoted a model meanwhile. Whoever asks
# what is being computed waits for that, in the event loop and not in a thread. A question that was not answered lately
# takes its turn among `COMPUTING`; one that was is asked anew at once, because what it needs is warm. Only what is the
# same for everybody is kept: a good answer, without the headers of one request; the scopes its route needs go with it.

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from contextlib import nullcontext
from typing import NamedTuple, cast
from urllib.parse import parse_qsl, urlencode

from starlette.routing import compile_path
from starlette.types import Message, Receive, Scope, Send

from orbiquant.core import AuthError, Plan
from orbiquant.desk.identity import require_plan
from orbiquant.domain import Caller

FRESH_S = 1.0  # an answer is given again for so long
WARM_S = 10.0  # one that is not older is made anew without waiting for a turn
COMPUTING = 4  # questions that are computed at once
MOST_ANSWERS, MOST_BYTES = 256, 131_072  # kept at most, and of one
PLAN_MARK = "plan:"  # of a plan among the scopes that a route needs
NAMED_HEADERS = frozenset({b"content-type", b"content-length"})  # of an answer, given again with it

Question = tuple[str, bytes]  # path and query, without a key
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def check_needs(
    caller: Caller | None,  # who asks; None: a stranger
    needed: Iterable[str],  # scopes, and "plan:pro" for a plan
) -> None:
    "Raise `AuthError` for a stranger, `ForbiddenError` unless a caller has every scope and the plan."
    for each in needed:
        if caller is None:
            raise AuthError("an API key is needed, was none")
        if each.startswith(PLAN_MARK):
            require_plan(caller.plan, cast(Plan, each.removeprefix(PLAN_MARK)), "this")
        else:
            caller.require(each)


class KeptAnswer(NamedTuple):
    "One answer, as it is sent."

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    scopes: tuple[str, ...]  # that a caller must have, a plan as "plan:pro" among them
    made_s: float  # by the monotonic clock
    route: str = ""  # template of its path

    def check(
        self,
        caller: Caller | None,  # who wants it
    ) -> None:
        "Raise `AuthError` for a stranger, `ForbiddenError` for a caller who may not have it."
        check_needs(caller, self.scopes)

    async def send_to(
        self,
        send: Send,  # the caller's
    ) -> None:
        "Send it."
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})


class PathForms:
    "Which paths have which mark."

    def __init__(
        self,
        templates: Iterable[str],  # e.g. "/signals/{symbol}"
    ) -> None:
        self.forms: list[re.Pattern[str]] = [compile_path(template)[0] for template in templates]

    def __contains__(self, path: str) -> bool:
        return any(form.match(path) for form in self.forms)


class KeptAnswers:
    "Stands between gate and routes."

    def __init__(
        self,
        app: Application,  # the routes
        kept: Iterable[str] = (),  # paths whose answers to GET are given again
        computing: Iterable[str] = (),  # paths that take their turn
    ) -> None:
        self.app, self.kept, self.computing = app, PathForms(kept), PathForms(computing)
        self._answers: OrderedDict[Question, KeptAnswer] = OrderedDict()
        self._flights: dict[Question, asyncio.Future[KeptAnswer | None]] = {}
        self._turns = asyncio.Semaphore(COMPUTING)

    def find(
        self,
        scope: Scope,  # of a request
    ) -> KeptAnswer | None:
        "Return the kept answer to a request, None when there is none that is fresh."
        if scope["type"] != "http" or scope["method"] != "GET":
            return None
        found = self._answers.get(question_of(scope))
        if found is None or time.monotonic() - found.made_s >= FRESH_S:
            return None
        scope["state"]["route"] = found.route
        return found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        "Answer a request that has been through the gate."
        path = scope["path"]
        if scope["type"] != "http" or scope["method"] != "GET" or path not in self.kept:
            computes = scope["type"] == "http" and path in self.computing
            async with self._turns if computes else nullcontext():
                await self.app(scope, receive, send)
            return
        question, caller = question_of(scope), scope["state"]["caller"]
        answer = self.find(scope)
        if answer is None and question in self._flights:
            answer = await asyncio.shield(self._flights[question])
        if answer is None:
            await self._fly(question, scope, receive, send)
            return
        scope["state"]["route"] = answer.route
        answer.check(caller)
        await answer.send_to(send)

    async def _fly(self, question: Question, scope: Scope, receive: Receive, send: Send) -> None:
        "Ask the routes, and let everybody have the answer who waits for it."
        flight: asyncio.Future[KeptAnswer | None] = asyncio.get_running_loop().create_future()
        first = self._flights.setdefault(question, flight) is flight
        before, draft = self._answers.get(question), Draft(send)
        warm = before is not None and time.monotonic() - before.made_s < WARM_S
        try:
            async with self._turns if scope["path"] in self.computing and not warm else nullcontext():
                await self.app(scope, receive, draft)
            answer = draft.kept(tuple(scope["state"].get("needed", ())), getattr(scope.get("route"), "path", ""))
            if answer:
                self._keep(question, answer)
            if first:
                flight.set_result(answer)
        finally:
            if first:
                del self._flights[question]
                if not flight.done():
                    flight.set_result(None)

    def _keep(self, question: Question, answer: KeptAnswer) -> None:
        self._answers[question] = answer
        self._answers.move_to_end(question)
        while len(self._answers) > MOST_ANSWERS:
            self._answers.popitem(last=False)


def question_of(
    scope: Scope,  # of a request
) -> Question:
    "Return what a request asks, whoever asks it."
    query: bytes = scope["query_string"]
    if b"token" in query or b"%" in query:  # a key may stand there, its name in any spelling
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        keys = [pair for pair in pairs if pair[0] == "token"]  # two are refused, so they stay part of what is asked
        query = urlencode([pair for pair in pairs if pair[0] != "token" or len(keys) > 1]).encode()
    return scope["path"], query


class Draft:
    "A sender that passes an answer on and keeps a copy."

    def __init__(
        self,
        send: Send,  # the caller's
    ) -> None:
        self.send = send
        self.start: Message | None = None
        self.body, self.whole = b"", False

    async def __call__(self, message: Message) -> None:
        "Send one message."
        if message["type"] == "http.response.start":
            self.start = message
        elif message["type"] == "http.response.body" and len(self.body) <= MOST_BYTES:
            self.body += message.get("body", b"")
            self.whole = not message.get("more_body", False)
        await self.send(message)

    def kept(
        self,
        scopes: tuple[str, ...],  # that the route needs
        route: str,  # template of the path
    ) -> KeptAnswer | None:
        "Return what was sent, None when it is not to be given again."
        if self.start is None or self.start["status"] != 200 or not self.whole or len(self.body) > MOST_BYTES:
            return None
        headers = [(name, value) for name, value in self.start["headers"] if name.lower() in NAMED_HEADERS]
        return KeptAnswer(200, headers, self.body, scopes, time.monotonic(), route)
