"""A notebook's marked functions served while it runs: mark a cell, call `oq.serve_notebook()`, paste the curl line."""

# The application is made as that of a package is, from the functions that the notebook holds now, and replaced when it is
# asked for again: address and token stay. What is served lives as long as the kernel. Nothing that a request says may land
# in a cell, whichever runs at the time: requests, failures, notices and what a function prints are kept in `log`.

import inspect
import os
import re
import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import MutableMapping
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote, urlencode

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from orbiquant.cards import Card, Carded
from orbiquant.core import EndpointInfo, OptionError, get_logger
from orbiquant.runtime import current
from orbiquant.service.build import run_app, write_app
from orbiquant.service.gate import Gatekeeper
from orbiquant.service.marks import BuildError, Marked
from orbiquant.service.projects import Project, cells_of, check_names, is_exported, marks_in
from orbiquant.service.reading import Parameter, route_parameters
from orbiquant.service.request_log import RequestLog
from orbiquant.service.serving import address, listen, make_server, url_of

HOST, START_S, STOP_S, OWN_ANSWER_S = "127.0.0.1", 30.0, 5.0, 60.0
LINES_KEPT, FRAMES = 1000, 4  # of the log; of a failure, the innermost
_heard: ContextVar["deque[str] | None"] = ContextVar("served_notebook", default=None)
_running: list["NotebookService"] = []


class KeptLines(deque[str]):
    "The newest lines of a log, shown as lines."

    def __repr__(self) -> str:
        "Return it as it is read: one entry after the other, the newest last."
        return "\n".join(self)


class KeptLog(RequestLog):
    "Keeps a line for each request instead of writing it."

    def __init__(
        self,
        lines: deque[str],  # that are kept
    ) -> None:
        super().__init__()
        self.lines = lines

    def write(
        self,
        request_id: str,  # stands in the answer's headers too
        method: str,  # HTTP method
        path: str,  # as asked, decoded
        status: int | None,  # of the answer; None: there was none
        took_ms: float,  # from gate to gate
        caller: str | None,  # id of the key; None: a stranger
    ) -> None:
        "Keep one line."
        self.lines.append(f"{method} {path!r} {status} {took_ms:.1f} ms, {caller or 'a stranger'}, {request_id}")


class Newest(Starlette):
    "Whatever was made last: the server keeps this, and each request goes to the application of the moment."

    app: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        "Pass one connection on."
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class NotebookService(Carded):
    "The functions of a running notebook, served on this machine until `stop()` or the end of the kernel."

    def __init__(
        self,
        port: int,  # 0: any free one
    ) -> None:
        runtime = current()
        self.token, self.log = secrets.token_urlsafe(32), KeptLines(maxlen=LINES_KEPT)
        self.gatekeeper = Gatekeeper(runtime, self.token)
        self.gatekeeper.log = KeptLog(self.log)
        self.newest, self.functions = Newest(), list[Marked]()
        self.server = make_server(self.newest, runtime.settings.service, HOST)
        self.listener = listen(HOST, port)
        self.port = int(self.listener.getsockname()[1])
        self.url = url_of(HOST, self.port, "")
        self.thread = threading.Thread(target=self._run, name="notebook service", daemon=True)

    def _run(self) -> None:
        _heard.set(self.log)
        self.server.run(sockets=[self.listener])

    def start(self) -> None:
        "Begin to serve; raise `OptionError` when that does not come about."
        keep_apart()
        self.thread.start()
        until = time.monotonic() + START_S
        while not self.server.started:
            if not self.thread.is_alive() or time.monotonic() > until:
                raise OptionError(f"the service of this notebook did not begin on {self.url}; try another `port`")
            time.sleep(0.005)

    def show(
        self,
        app: Any,  # the application of the moment
        functions: list[Marked],  # that it serves
    ) -> None:
        "Serve another version from now on."
        app.state.gatekeeper, app.state.connections = self.gatekeeper, self.newest.state.connections
        self.newest.app, self.functions = app, functions

    def stop(self) -> None:
        "End it; the next `serve_notebook()` begins anew, with another token."
        self.server.should_exit = True
        self.thread.join(STOP_S)
        self.listener.close()
        if self in _running:
            _running.remove(self)
        if not _running:
            for name in ("stdout", "stderr"):
                stream: Any = getattr(sys, name)
                setattr(sys, name, stream.stream if isinstance(stream, Apart) else stream)

    def ask(
        self,
        path: str,  # of a function, e.g. "/ranges/EURUSD"
        **query: Any,  # what stands behind the ?, by name
    ) -> Any:
        "Return what a GET over HTTP is answered, as any program would be; raise `OptionError` with what refused it."
        import httpx

        try:
            answer = httpx.get(self.url + path, params=query, headers={"X-API-Key": self.token}, timeout=OWN_ANSWER_S)
        except httpx.HTTPError as error:
            raise OptionError(f"`{path}` of {self.url} was not answered: {error}") from error
        if answer.is_success:
            return answer.json()
        said = answer.json().get("message", "") if "json" in answer.headers.get("content-type", "") else answer.text
        raise OptionError(f"`{path}` was refused with {answer.status_code}: {said[:300]}")

    def as_card(self) -> Card:
        "Return where it is, without its token: what is shown is saved with the notebook."
        runs = self.thread.is_alive()
        tiles = {f"{each.info.method} {each.info.path}": each.name for each in self.functions}
        return Card(f"Service {self.url}", tiles, *(("serving", "good") if runs else ("stopped", "warn")))


class Apart:
    "A stream of the notebook's: what is written while a request is answered is kept, all else goes where it went."

    def __init__(
        self,
        stream: Any,  # the kernel's own
    ) -> None:
        self.stream = stream

    def write(
        self,
        text: str,  # of anybody
    ) -> int:
        "Write to the cell that runs, or keep what no cell has written."
        lines = _heard.get()
        if lines is None:
            return int(self.stream.write(text))
        if text.strip():
            lines.append(text.rstrip())
        return len(text)

    def __getattr__(self, name: str) -> Any:
        "Return whatever else the stream has."
        return getattr(self.stream, name)


def keep_apart() -> None:
    "Keep out of cells what is logged, and what a function prints, while a request is answered."
    import structlog

    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if not isinstance(stream, Apart):
            setattr(sys, name, Apart(stream))
    get_logger("service")  # sets up logging where nobody has
    before = structlog.get_config()["processors"]
    if keep_notice not in before:
        structlog.configure(processors=[keep_notice, *before])


def keep_notice(
    logger: Any,  # unused: the framework's signature
    method: str,  # "info", "warning", "error"
    told: MutableMapping[str, Any],  # the event and its facts
) -> MutableMapping[str, Any]:
    "Keep a notice that belongs to a request, with the traceback of a failure; let every other pass."
    import structlog

    lines = _heard.get()
    if lines is None:
        return told
    error = told.get("exc_info")
    facts = ", ".join(f"{name}={value}" for name, value in told.items() if name not in ("event", "exc_info"))
    lines.append(f"{method}: {told.get('event')} ({facts})")
    if isinstance(error, BaseException):
        import traceback

        whose = structlog.contextvars.get_contextvars().get("request_id", "")
        lines.append(f"{whose} ".lstrip() + "".join(traceback.format_exception(error, limit=-FRAMES)).rstrip())
    raise structlog.DropEvent


def marked_here(
    main: ModuleType,  # the notebook's own
) -> list[Marked]:
    "Return the functions that are marked in a running notebook; raise `OptionError` for two of one route."
    found: dict[tuple[str, str], Marked] = {}
    for name, value in list(vars(main).items()):
        info = inspect.getattr_static(value, "__orbiquant_endpoint__", None)
        if name.startswith("_") or not isinstance(info, EndpointInfo) or value.__module__ != main.__name__:
            continue
        marked = Marked(value, info, main, f"cell {cell_of(value)}")
        other = found.setdefault((info.method, info.path), marked)
        if other.function is not value:
            raise OptionError(
                f"`{other.name}` and `{name}` are both marked {info.method} {info.path}; "
                f"if the cell of one is gone, its function is not yet: `del {other.name}`"
            )
    return sorted(found.values(), key=lambda each: (each.info.path, each.info.method))


def cell_of(
    function: Any,  # defined in a notebook
) -> str:
    "Return the number of the cell that a function was defined in, as the notebook shows it."
    from IPython.core.getipython import get_ipython

    shell, code = get_ipython(), getattr(inspect.unwrap(function), "__code__", None)
    told = shell.compile.format_code_name(code.co_filename) if shell and code else None
    return str(told[1]) if told else "of this notebook"


def notebook_file(
    main: ModuleType,  # the notebook's own
) -> Path | None:
    "Return the file of the running notebook, None where its program does not tell."
    told = os.environ.get("JPY_SESSION_NAME") or vars(main).get("__vsc_ipynb_file__")
    file = Path.cwd() / told if isinstance(told, str) and told else None
    return file if file and file.suffix == ".ipynb" and file.is_file() else None


def refuse_twice(
    file: Path | None,  # the saved notebook; None: nobody knows which
    ran: list[str],  # what was run until now, from cell 0
) -> list[str]:
    "Refuse two cells that mark one name; return in words what may be two: only a saved notebook tells, the kernel keeps one."
    try:
        cells = cells_of(file, file.parent) if file else []
    except BuildError:
        cells = []  # `differences` says so
    try:
        check_names(cells)
    except BuildError as error:
        raise OptionError(error.message) from None
    seen: dict[str, tuple[int, str]] = {}
    told: dict[str, str] = {}
    for number, source in enumerate(ran):
        for name, mark in marks_in(source).items():
            first, other = seen.get(name, (number, mark))
            if other != mark and not any(mark in marks_in(saved).values() for saved, _ in cells):
                told[name] = (
                    f"`{name}` was marked {other} in cell {first} and {mark} in cell {number}: the last alone is served. "
                    "If both are meant, call one of them something else."
                )
            seen[name] = (number, mark)
    return list(told.values())


def differences(
    functions: list[Marked],  # that are served
    file: Path | None,  # the saved notebook; None: nobody knows which
) -> list[str]:
    "Return in words how the saved notebook differs from what is served, which is what the cells said when they ran."
    if file is None:
        return ["Which file this notebook is cannot be told here: what is saved may differ from what is served."]
    try:
        saved = [source for source, _ in cells_of(file, file.parent)]
    except BuildError as error:
        return [f"The saved notebook was not compared: {error.message}"]
    sources = {each.name: inspect.getsource(each.function).strip() for each in functions}
    exported = [source for source in saved if is_exported(source)]
    other = [name for name, text in sources.items() if not any(text in source for source in saved)]
    idle = sorted({name for source in saved for name in marks_in(source)} - set(sources))
    kernel = [name for name, text in sources.items() if name not in other and not any(text in each for each in exported)]
    told = {
        f"{named(other)} stands otherwise in the saved {file.name}, or not at all: save it before you export.": other,
        f"{named(idle)} is marked in the saved {file.name}, and its cell was not run.": idle,
        f"To keep {named(kernel)}: `#| export` in its cell, then `orbiquant serve --export`.": kernel,
    }
    return [text for text, names in told.items() if names]


def named(
    names: list[str],  # of functions
) -> str:
    "Return names as a sentence lists them."
    return ", ".join(f"`{name}`" for name in names)


def curl_line(
    url: str,  # of the service
    token: str,  # that it takes
    marked: Marked,  # the function to be asked
) -> str:
    "Return a line for a terminal that asks a function: what it needs is taken from `e.g. …` in the parameter's comment."
    parameters = route_parameters(marked)
    needed = {each.name: _example(each) for each in parameters if each.default is None}
    path = re.sub(r"{(\w+)(?::\w+)?}", lambda hit: quote(needed.get(hit[1]) or hit[1].upper()), marked.info.path)
    asked = {each.name: needed[each.name] for each in parameters if each.kind == "Query" and each.name in needed}
    query = f"?{urlencode(asked)}" if asked else ""
    body = " -H 'Content-Type: application/json' -d '{}'" if any(each.kind == "Body" for each in parameters) else ""
    method = "" if marked.info.method == "GET" else f" -X {marked.info.method}"
    return f"curl{method} -H 'X-API-Key: {token}'{body} '{url}{path}{query}'"


def _example(parameter: Parameter) -> str:
    told = re.search(r"e\.g\. [\"'`]?([\w./-]*\w)", parameter.description)
    return told[1] if told else parameter.name.upper()


def serve_notebook(
    port: int = 0,  # 0: any free one, or the one that is served on already
) -> NotebookService:
    "Serve the functions that this notebook marks with `@oq.endpoint`; called again, it serves what they are now."
    main = sys.modules["__main__"]
    functions = marked_here(main)
    if not functions:
        raise OptionError(
            'nothing in this notebook is marked: put `@oq.endpoint("GET", "/path")` above a function and run its cell'
        )
    file = notebook_file(main)
    doubtful = refuse_twice(file, list(vars(main).get("In", ())))
    project = Project(main.__name__, Path.cwd(), title=file.stem if file else "notebook")
    app = run_app(write_app(functions, project), main.__name__)
    service = next((each for each in _running if port in (0, each.port)), None)
    if service is None:
        service = NotebookService(port)
        service.show(app, functions)
        service.start()
        for each in [*_running]:
            each.stop()
        _running.append(service)
    service.show(app, functions)
    print(f"Serving {named([each.name for each in functions])} on {address(HOST, service.port, service.token)}")
    print(curl_line(service.url, service.token, functions[0]))
    for text in (*doubtful, *differences(functions, file)):
        print(text)
    return service
