"""What a monitoring system asks: requests by route as they are answered, and how data, jobs and agents stand when it looks."""

# Requests are counted where all of them pass, at the gate, by the path's template: what callers put into paths must not
# make a time series each. How the rest stands is read when it is asked for, part by part: one that cannot be read is
# counted as failed and hides no other. With several workers each writes into one folder, named in the environment before
# the library is loaded, so that whichever is asked tells of all.

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.responses import Response
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

from orbiquant._version import __version__
from orbiquant.core import get_logger
from orbiquant.leases import has_died, own_name
from orbiquant.runtime import Runtime, current

if TYPE_CHECKING:
    from starlette.types import Scope

METRICS_PATH = "/metrics"
FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the library's name for the folder that workers share
NAMED, HOLDER = "orbiquant-metrics-", "holder"  # how the name of that folder begins; the file that says whose it is
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
UNKNOWN_ROUTE = "unknown"
COUNTED_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET"})
MOST_BOUND = 4096  # series whose counters are at hand

disable_created_metrics()  # a second series for each, of which nobody asks


class Meters:
    "Counts what the gate lets through and refuses, in this process."

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "orbiquant_http_requests", "Answers by route and status.", ["method", "route", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "orbiquant_http_request_seconds", "From gate to gate; a stream counts to its end.", ["route"],
            buckets=BUCKETS, registry=self.registry,
        )  # fmt: skip
        self._bound: dict[tuple[str, str, int | None], tuple[Any, Any]] = {}

    def count(
        self,
        method: str,  # HTTP method, or WEBSOCKET
        scope: "Scope",  # of the connection, as the routes left it
        status: int | None,  # of the answer; None: there was none
        took_s: float,  # from gate to gate
    ) -> None:
        "Count one request."
        route = scope.get("state", {}).get("route") or getattr(scope.get("route"), "path", UNKNOWN_ROUTE)
        bound = self._bound.get((method, route, status))
        if bound is None:
            known = method if method in COUNTED_METHODS else "OTHER"
            bound = self.requests.labels(known, route, status or "none"), self.seconds.labels(route)
            if len(self._bound) < MOST_BOUND:
                self._bound[method, route, status] = bound
        bound[0].inc()
        bound[1].observe(took_s)


METERS = Meters()


@contextmanager
def shared_folder() -> Iterator[str]:
    "Make the folder that workers share, and remove those that services left which were killed."
    for old in Path(gettempdir()).glob(f"{NAMED}*"):
        said = old / HOLDER
        with suppress(OSError):  # it is another user's, or goes just now
            if said.is_file() and has_died(said.read_text(encoding="utf-8", errors="replace")):
                rmtree(old)
    with TemporaryDirectory(prefix=NAMED) as folder:
        (Path(folder) / HOLDER).write_text(own_name(), encoding="utf-8")
        yield folder


def gauge(
    name: str,  # without the product's
    said: str,  # what it is, and its unit
    rows: Iterable[tuple[dict[str, str], float]],  # labels and value
) -> Metric:
    "Return one reading of something that goes up and down."
    found = [*rows]
    family = GaugeMetricFamily(f"orbiquant_{name}", said, labels=[*found[0][0]] if found else [])
    for labels, value in found:
        family.add_metric([*labels.values()], value)
    return family


def read_health(
    runtime: Runtime,  # whose parts are looked at
) -> Iterator[Metric]:
    "Yield the state of every part."
    from orbiquant.desk.health import health

    seen = health()
    parts = [({"component": name}, float(state == "error")) for name, state in seen.components.items()]
    yield gauge("component_failing", "1: the part does not answer.", parts)
    yield gauge("agents_running", "Agents that may trade.", [({}, seen.agents_running)])


def read_ages(
    runtime: Runtime,  # whose store is looked at
) -> Iterator[Metric]:
    "Yield how old the newest bar of every series is."
    from orbiquant.desk.series import live_of

    now = runtime.clock.now()
    rows = [
        (
            {"symbol": held.series.symbol, "timeframe": str(held.series.timeframe)},
            (now - held.last - held.series.timeframe.delta).total_seconds(),
        )
        for held in live_of(runtime).series()
    ]
    yield gauge("bars_age_seconds", "Since the newest stored bar closed.", rows)


def read_jobs(
    runtime: Runtime,  # whose database is asked
) -> Iterator[Metric]:
    "Yield how many jobs wait, run, or ended how."
    from orbiquant.jobs.records import count_runs

    rows = [({"status": status}, float(count)) for status, count in count_runs(runtime.engine).items()]
    yield gauge("job_runs", "Runs of jobs that are kept, by status.", rows)


def read_agents(
    runtime: Runtime,  # whose database is asked
) -> Iterator[Metric]:
    "Yield where each agent stands, and what is killed."
    from orbiquant.desk.agents import list_agents
    from orbiquant.desk.kills import list_kills

    agents = list_agents().agents
    names = [{"agent": each.name, "account": each.account, "currency": each.currency} for each in agents]

    def told(name: str, said: str, values: Iterable[float]) -> Metric:
        return gauge(f"agent_{name}", said, zip(names, values, strict=True))

    yield told("running", "1: the agent may trade.", (float(a.status == "running") for a in agents))
    yield told("halted", "1: a person must let it go on.", (float(a.status == "halted") for a in agents))
    yield told("equity", "In the account's currency.", (a.equity for a in agents))
    yield told("drawdown_ratio", "Fall from the highest equity, 0 to 1.", (a.drawdown for a in agents))
    yield told("open_positions", "Positions held.", (float(a.open_positions) for a in agents))
    yield told("engine_up", "1: a process trades its account.", (float(bool(a.engine)) for a in agents))
    yield gauge("kill_switches", "Kill switches that stand.", [({}, float(len(list_kills().kills)))])


PARTS: dict[str, Callable[[Runtime], Iterator[Metric]]] = {
    "health": read_health,
    "bars": read_ages,
    "jobs": read_jobs,
    "agents": read_agents,
}


class Readings:
    "Reads how everything stands, at the moment it is asked."

    def __init__(
        self,
        runtime: Runtime,  # that is asked
    ) -> None:
        self.runtime = runtime

    def collect(self) -> Iterator[Metric]:
        "Yield every reading; a part that cannot be read is told as failed."
        failed: list[tuple[dict[str, str], float]] = []
        for name, read in PARTS.items():
            try:
                found = [*read(self.runtime)]
            except Exception as error:  # whatever ails a part is told by its own metric, and by the log
                get_logger("service").warning("metrics of a part not read", part=name, reason=str(error)[:300])
                found = []
            failed.append(({"part": name}, float(not found)))
            yield from found
        yield gauge("part_unreadable", "1: this part could not be read now.", failed)
        yield gauge("build_info", "1, with the version.", [({"version": __version__}, 1.0)])


def write_metrics(
    runtime: Runtime,  # that is asked
) -> bytes:
    "Return everything in Prometheus's text form."
    asked = CollectorRegistry()
    asked.register(Readings(runtime))
    if os.environ.get(FOLDER):
        MultiProcessCollector(asked)
        return generate_latest(asked)
    ProcessCollector(registry=asked)
    return generate_latest(METERS.registry) + generate_latest(asked)


def add_metrics(
    app: FastAPI,  # gets /metrics
    needed: Any,  # the dependency that lets a caller pass
) -> None:
    "Add the metrics, which need a key like everything else: a scraper sends it as its bearer token."

    def metrics() -> Response:
        "Return the service's metrics in Prometheus's text form."
        return Response(write_metrics(current()), media_type=CONTENT_TYPE_LATEST)

    app.add_api_route(METRICS_PATH, metrics, dependencies=[needed], include_in_schema=False)
