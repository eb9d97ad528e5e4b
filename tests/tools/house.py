"""Measures the house: every rule that can be counted, beside its limit. `make house` prints it, a test holds each line.

What is measured is the source, read once (`read_house`), so that a guard can be shown a planted fault in a tree of its
own; the two counts that reflect on classes take the classes.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE = "orbiquant"

# From the ground up: a room may import the rooms before it.
ROOMS = (
    *("_version", "_caches", "core", "wire", "arrays", "cards", "domain", "orders", "ports", "workspace"),
    *("charts", "net", "compute", "persistence", "leases", "notices", "access", "jobs"),
    *("market", "llm", "features", "models"),
    *("execution", "performance", "traits", "policies", "signals", "strategies", "line"),
    *("backtest", "trading", "settings", "runtime", "backup"),
    *("research", "desk", "reports", "copilot", "service"),
    *("app", "demo", "cli"),
)
RANK = {room: rank for rank, room in enumerate(ROOMS)}
SIBLINGS = ({"market", "llm"}, {"backtest", "trading"})  # neither knows the other
# Rooms, or modules as `room.module`, that are written by hand: there is nothing in them to show.
PLAIN = {
    *("cli", "reports.worker", "service.gate", "service.factory", "service.serving"),
    *(
        "service.beside",
        "service.chat_page",
        "service.connections",
        "service.crew",
        "service.dashboard",
        "service.kept",
        "service.known",
        "service.mcp_http",
        "service.memory",
        "service.metrics",
        "service.notebook",
        "service.origins",
    ),
    *("service.openai_form", "service.rates", "service.request_log", "service.routes", "service.socket"),
    *(
        "service.stream_relay",
        "service.stream_routes",
        "service.stream_watch",
        "service.stream_wire",
        "service.streams",
    ),
    *("service.warming", "trading.tables"),
    *(f"trading.brokers.mt4.{name}" for name in ("broker", "commands", "config", "contracts", "dealing", "files")),
    *(f"trading.brokers.mt4.{name}" for name in ("lookout", "matching", "state", "terminal", "wire")),
    *(f"trading.brokers.binance.{name}" for name in ("broker", "config", "errors", "feed", "filters", "guards")),
    *(
        f"trading.brokers.binance.{name}"
        for name in ("history", "ids", "market", "protection", "reports", "stream", "transport")
    ),
}
HAND_WRITTEN = {"", "_modidx", "_version", "_caches", "app"}  # and what another tool writes

STATEMENTS, DEFINITIONS = 40, 2  # of an export cell
MEDIAN_LINES, MOST_LINES = 25, 120  # of export cells
FUNCTION_LINES, MODULE_LINES = 60, 400
NOTEBOOK_CELLS, NOTEBOOK_BYTES = 60, 500_000
PARSINGS = 12  # places that make a timeframe of text
PLACES = 10  # printed of a count that is over

# What is over a limit and stays so, with the reason.
GRAIN_EXCEPTIONS = {  # module.first definition of a cell
    **dict.fromkeys(("core.OrbiError", "core.DataError", "core.BrokerError"), "error family"),
    **dict.fromkeys(
        (
            *("market.bar_table.KeptTable", "market.store.DeltaBarStore", "market.remote.RemoteSource"),
            *("market.fundamentals.AlphaVantage", "llm.finance_words.Clause"),
            *("market.sources.FileSource", "market.sql.SqlSource"),
            *("features.stream.FeatureStream", "line.LineStream", "strategies.rules.RuleStep"),
            *("charts.widget.CandleChart", "desk.bar_feeds.SocketFeed", "research.portfolio.PortfolioView"),
            *("models.range_predictor.RangePredictor", "models.tpsl.TPSLClassifier", "models.attention.AttentionModel"),
            *(
                "backtest.sweep.SweepResult",
                "backtest.combinations.Combinations",
                "models.meta.MetaModel",
                "models.bundle.ModelBundle",
                "models.registry.ModelRegistry",
            ),
            *("backtest.trials.TrialsLedger", "runtime.Runtime", "research.live.LiveLine", "jobs.work.Worker"),
            *("trading.journal_tables.JournalWriter", "trading.ledger.Ledger", "trading.switches.Switches"),
            *(
                "trading.pages.Pages",
                "trading.brokers.paper_book.Guard",
                "trading.brokers.paper_book.PaperBook",
                "trading.brokers.paper.PaperBroker",
            ),
            *(
                "trading.books.Books",
                "trading.agents.AgentRecord",
                "trading.sender.Sender",
                "trading.standing.Standing",
                "trading.watch.Watch",
            ),
            *("trading.dispatcher.PlanDispatcher", "strategies.grid_trading.GridTrading"),
            "strategies.altcoin_rotation.AltcoinRotation",
            *("trading.engine.TradingEngine", "trading.consumer.SignalConsumer", "trading.decisions.DecisionJournal"),
            *(
                "trading.fund_state.FundState",
                "trading.funds.FundWriter",
                "trading.funds.Fund",
                "trading.statement_rows.Statement",
            ),
            "llm.spoken.AnswerReader",
            *("copilot.origins.ResultWalk", "copilot.origins.NumberOrigins"),
            *("trading.requests.RequestBox", "research.live.Live", "research.replays.AgentReplay"),
            *(
                "research.room.TradingRoom",
                "net.HttpClient",
                "llm.router.Router",
                "research.feeds.StrategyFeed",
                "settings.Settings",
            ),
            "backtest.sweep.SweepResult",
            *("copilot.conversations.SqlConversationStore", "copilot.hot.SqlShelf", "copilot.hot.HotContext"),
            *("copilot.tool_threads.ToolThreads", "copilot.sentences.SentenceFilter"),
            *("copilot.magic_answers.MagicAnswer", "notices.courier.Courier"),
            *("copilot.checking.CheckedStream", "copilot.flow.TurnFlow", "copilot.loop.Copilot"),
            *("copilot.telegram_api.BotApi", "copilot.telegram_writing.GrowingAnswer"),
            *("copilot.telegram_turns.ChatAnswers", "copilot.telegram_control.TicketControl"),
        ),
        "one class",
    ),
}
LARGE_MODULES = {  # module
    "core": "everything stands on it and it on nothing, and each part of it is a few lines",
}
FIELD_EXCEPTIONS = {  # field of several configurations
    "device": "of the trees, of the language model",
    "timeout_s": "of one answer of a provider, of one whole report",
    "sweep_bars": "phases and ICT events each count a sweep of their own, and saved cards hold both",
    "initial_equity": "a float of a backtest, an exact amount of an agent",
    "exits": "of a backtest, of an agent",
    "live": "whether any agent may trade money, whether this one may",
    "api_key": "of a language model, of Binance",
    "risk_per_trade": "a float of a backtest, an exact share of an agent",
    "max_age_bars": "of a range in phases, of a level in ICT events, and saved cards hold both",
}
TEXT_EXCEPTIONS = {  # module.function that takes a symbol or a timeframe as text
    **dict.fromkeys(("domain.normalise_symbol", "domain.SeriesId.parse"), "it is what parses"),
    **dict.fromkeys(
        ("market.instruments.instrument_of", "research.files.name_bars", "research.files.bars_of_file"),
        "an edge: it takes what people write about a file",
    ),
    "features.spec.spec_of": "an edge: it takes what people write about bars of their own",
}
CALLERS = {"desk", "cli", "service", "app"}  # rooms whose code asks for `current()`; an `api` of a room may, too
FACES = {"copilot.widget", "copilot.magics"}  # what a person calls from a cell

# What is not there yet: the count as it stands, which may only fall. An entry that is gone holds its limit.
STILL: dict[str, float] = {
    "ports without adapter and contract": 2
}  # Broker and SignalFeed, which the trading room brings


# --- what is measured ---


class Cell(NamedTuple):
    """A code cell of a notebook."""

    place: str  # notebook and number
    exported: bool
    source: str  # without magics
    tree: ast.Module


class Notebook(NamedTuple):
    """A notebook as it lies there."""

    stem: str
    module: str  # that it exports, below the package; "" for none
    cells: tuple[Cell, ...]
    all_cells: int
    size: int


@dataclass(frozen=True)
class House:
    """The notebooks and the modules of a tree."""

    notebooks: tuple[Notebook, ...] = ()
    modules: Mapping[str, ast.Module] = field(default_factory=dict)  # by name below the package; "" is the package
    lines: Mapping[str, int] = field(default_factory=dict)
    packages: frozenset[str] = frozenset()  # modules that are a folder's `__init__`


def read_notebook(path: Path) -> Notebook:
    """Return a notebook's code cells."""
    raw = path.read_bytes()
    found = json.loads(raw)["cells"]
    cells, module = [], ""
    for number, cell in enumerate(found):
        if cell["cell_type"] != "code":
            continue
        text = re.sub(r"^[%!].*$", "pass", "".join(cell["source"]), flags=re.MULTILINE)
        if named := re.search(r"^#\|\s*default_exp\s+(\S+)", text, re.MULTILINE):
            module = named[1]
        exported = bool(re.search(r"^#\|\s*exports?\b", text, re.MULTILINE))
        cells.append(Cell(f"{path.stem} cell {number}", exported, text, ast.parse(text)))
    return Notebook(path.stem, module, tuple(cells), len(found), len(raw))


def read_house(root: Path = ROOT) -> House:
    """Return what there is to measure below a root: `nbs/` and the package, but for migrations."""
    package = root / PACKAGE
    modules, lines, packages = {}, {}, set()
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if "migrations" in parts:
            continue
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        packages |= {name} if parts[-1] == "__init__" else set()
        text = path.read_text(encoding="utf-8")
        modules[name], lines[name] = ast.parse(text), len(text.splitlines())
    notebooks = tuple(read_notebook(path) for path in sorted((root / "nbs").glob("*.ipynb")))
    return House(notebooks, modules, lines, frozenset(packages))


def written(house: House) -> dict[str, ast.Module]:
    """Return the modules that people write, in a notebook or by hand."""
    return {name: tree for name, tree in house.modules.items() if name not in HAND_WRITTEN}


# --- imports ---


def spoken(node: ast.Call) -> str | None:
    """Return the module that a call imports by a string, as far as the string is written out."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    said = next(iter(node.args), next((each.value for each in node.keywords if each.arg == "name"), None))
    if name not in ("import_module", "__import__") or said is None:
        return None
    if isinstance(said, ast.JoinedStr) and said.values:
        said = said.values[0]
    return said.value.rstrip(".") if isinstance(said, ast.Constant) and isinstance(said.value, str) else None


def imported(tree: ast.AST, name: str = "", package: bool = False) -> set[str]:
    """Return every name of the package that the code of module `name` imports anywhere, as a dotted path below it."""
    inside = [PACKAGE, *filter(None, name.split("."))]
    inside = inside if package else inside[:-1]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) - node.level + 1] if node.level else []
            path = ".".join(filter(None, [*base, node.module or ""]))
            found |= {f"{path}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Call) and (said := spoken(node)):
            level = len(said) - len(said.lstrip("."))
            base = inside[: len(inside) - level + 1] if level else []
            found.add(".".join(filter(None, [*base, said.lstrip(".")])))
    return {path.removeprefix(PACKAGE).lstrip(".") for path in found if path.partition(".")[0] == PACKAGE}


def module_of(path: str, known: Collection[str]) -> str:
    """Return the module that a dotted path lies in; "" for the package itself."""
    while path and path not in known:
        path = path.rpartition(".")[0]
    return path


def graph(house: House) -> dict[str, set[str]]:
    """Return which modules each module imports, wherever it does; the package's own face is no module."""
    edges = {}
    for name, tree in house.modules.items():
        paths = imported(tree, name, name in house.packages)
        edges[name] = {module_of(path, house.modules) for path in paths} - {"", name}
    return {name: edges[name] for name in edges if name not in ("", "_modidx")}


def goes_wrong(name: str, other: str) -> bool:
    """Say whether an import leads up or to a sibling."""
    room, target = name.partition(".")[0], other.partition(".")[0]
    if room == target:
        return False
    across = any({room, target} <= pair for pair in SIBLINGS)
    return across or RANK.get(target, len(RANK)) >= RANK.get(room, -1)


def wrong_imports(house: House) -> list[str]:
    """Return the imports that go up or across, and those of the package's face, which stands above all."""
    edges = graph(house)
    found = [f"{name} → {other}" for name in edges for other in sorted(edges[name]) if goes_wrong(name, other)]
    for name in edges:
        faces = {p for p in imported(house.modules[name], name, name in house.packages) if not module_of(p, edges)}
        found += [
            f"{name} → {PACKAGE}.{path}".rstrip(".")
            for path in sorted(faces - {"__version__"})
            if name not in HAND_WRITTEN
        ]
    return found


def cycles(house: House) -> list[str]:
    """Return the groups of modules that import each other round about (Tarjan)."""
    edges, order, low, stack, found = graph(house), {}, {}, [], []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in sorted(edges[name]):
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            at = stack.index(name)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                found.append(" ↔ ".join(sorted(group)))

    for name in edges:
        if name not in order:
            visit(name)
    return found


def later_imports(house: House, exported: bool) -> list[str]:
    """Return the imports of a later notebook's module, from exported cells or from the others."""
    at = {book.module: number for number, book in enumerate(house.notebooks) if book.module}
    found = []
    for number, book in enumerate(house.notebooks):
        for cell in (cell for cell in book.cells if cell.exported == exported):
            names = {module_of(path, at) for path in imported(cell.tree)} - {""}
            found += [f"{cell.place} → {name}" for name in sorted(names) if at[name] > number]
    return found


def asks_for_current(tree: ast.AST, name: str, package: bool = False) -> bool:
    """Say whether code takes hold of `runtime.current`, under whatever name the module goes there."""
    if "runtime.current" in imported(tree, name, package):
        return True
    names = [alias for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names]
    called = {"runtime"} | {each.asname for each in names if each.asname and each.name.split(".")[-1] == "runtime"}
    spelled = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "current"]
    return any(ast.unparse(node.value).rpartition(".")[2] in called for node in spelled)


def stray_runtimes(house: House) -> list[str]:
    """Return the modules that ask for the process's runtime without being an edge of the house."""
    edges = lambda name: name.partition(".")[0] in CALLERS or name in FACES or "api" in name.split(".")  # noqa: E731
    return [
        name
        for name, tree in house.modules.items()
        if name not in ("", "_modidx", "runtime") and not edges(name)
        if asks_for_current(tree, name, name in house.packages)
    ]


# --- cells ---


def export_cells(house: House) -> Iterator[tuple[Notebook, Cell]]:
    """Yield every exported cell with its notebook."""
    for book in house.notebooks:
        yield from ((book, cell) for cell in book.cells if cell.exported)


def definitions(tree: ast.Module) -> list[str]:
    """Return the public functions and classes that code defines."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return [node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


def excused(book: Notebook, cell: Cell) -> bool:
    """Say whether a cell is named as an exception to the grain."""
    return f"{book.module}.{next(iter(definitions(cell.tree)), '')}" in GRAIN_EXCEPTIONS


def long_cells(house: House) -> list[str]:
    """Return the export cells of more statements than one idea has."""
    found = []
    for book, cell in export_cells(house):
        statements = sum(isinstance(node, ast.stmt) for node in ast.walk(cell.tree))
        if statements > STATEMENTS and not excused(book, cell):
            found.append(f"{cell.place}: {statements} statements, {', '.join(definitions(cell.tree))}")
    return found


def crowded_cells(house: House) -> list[str]:
    """Return the export cells of more public definitions than one idea has."""
    found = []
    for book, cell in export_cells(house):
        names = definitions(cell.tree)
        if len(names) > DEFINITIONS and not excused(book, cell):
            found.append(f"{cell.place}: {', '.join(names)}")
    return found


def cell_lines(house: House) -> list[int]:
    """Return the lines of every export cell, but for those that are named as an exception to the grain."""
    return sorted(len(cell.source.splitlines()) for book, cell in export_cells(house) if not excused(book, cell))


def bare_ideas(house: House) -> list[str]:
    """Return the exported ideas that no evidence follows: the next code cell is exported too, or there is none."""
    found = []
    for book in house.notebooks:
        for cell, after in pairwise([*book.cells, None]):
            if cell and cell.exported and definitions(cell.tree) and (after is None or after.exported):
                found.append(f"{cell.place}: {', '.join(definitions(cell.tree))}")
    return found


def large_notebooks(house: House) -> list[str]:
    """Return the notebooks that are too long or too heavy to read."""
    return [
        f"{book.stem}: {book.all_cells} cells, {book.size / 1000:.0f} KB"
        for book in house.notebooks
        if book.all_cells > NOTEBOOK_CELLS or book.size > NOTEBOOK_BYTES
    ]


# --- names and parameters ---


def assigned(node: ast.stmt) -> list[str]:
    """Return the names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)]


def double_names(house: House) -> list[str]:
    """Return the public names that two modules define; the generated service bears the names of what it serves."""
    where: dict[str, set[str]] = {}
    for name, tree in written(house).items():
        for node in tree.body:
            for each in (each for each in assigned(node) if not each.startswith("_")):
                where.setdefault(each, set()).add(name)
    return [f"{name}: {', '.join(sorted(places))}" for name, places in sorted(where.items()) if len(places) > 1]


def functions(tree: ast.AST, above: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield every function of code with its path."""
    for node in ast.iter_child_nodes(tree):
        named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        path = f"{above}.{node.name}" if named else above
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield path, node
        yield from functions(node, path)


def is_text(annotation: ast.expr | None) -> bool:
    """Say whether an annotation says `str`, alone or as one of several, marked up or not."""
    if annotation is None:
        return False
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return is_text(ast.parse(annotation.value, mode="eval").body)
    if isinstance(annotation, ast.BinOp):
        return is_text(annotation.left) or is_text(annotation.right)
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value).rpartition(".")[2] in (
        "Annotated",
        "Optional",
    ):
        inner = annotation.slice
        return is_text(inner.elts[0] if isinstance(inner, ast.Tuple) else inner)
    return isinstance(annotation, ast.Name) and annotation.id == "str"


def text_parameters(house: House) -> list[str]:
    """Return the parameters below the desk, outside market, that take a symbol or a timeframe as text."""
    found = []
    for name, tree in written(house).items():
        room = name.partition(".")[0]
        if room == "market" or RANK.get(room, 0) >= RANK["desk"]:
            continue
        for path, node in functions(tree):
            taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            named = [a.arg for a in taken if a.arg in ("symbol", "timeframe") and is_text(a.annotation)]
            if f"{name}{path}" not in TEXT_EXCEPTIONS:
                found += [f"{name}{path}({arg})" for arg in named]
    return found


def parsings(house: House) -> list[str]:
    """Return the places that make a timeframe of text."""
    return [
        f"{name}:{node.lineno}"
        for name, tree in written(house).items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Timeframe.parse")
    ]


# --- sizes and manners ---


def long_functions(house: House) -> list[str]:
    """Return the functions that nobody reads at a glance."""
    return [
        f"{name}{path}: {node.end_lineno - node.lineno + 1} lines"
        for name, tree in written(house).items()
        for path, node in functions(tree)
        if node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    ]


def large_modules(house: House) -> list[str]:
    """Return the modules that are too long, but for those that are named."""
    return [
        f"{name}: {house.lines[name]} lines"
        for name in written(house)
        if house.lines[name] > MODULE_LINES and name not in LARGE_MODULES
    ]


def stars(house: House) -> list[str]:
    """Return the imports of everything."""
    return [
        f"{name}:{node.lineno}"
        for name, tree in house.modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
    ]


def is_broad(node: ast.expr | None) -> bool:
    """Say whether a handler takes any error."""
    return node is None or getattr(node, "id", "") in ("Exception", "BaseException")


def swallows(node: ast.AST) -> bool:
    """Say whether code makes an error as if it had not been."""
    if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "suppress":
        return any(map(is_broad, node.args))
    if not isinstance(node, ast.ExceptHandler):
        return False
    idle = {ast.unparse(each) for each in node.body} <= {"pass", "..."}
    return idle or (is_broad(node.type) and isinstance(node.body[0], ast.Continue | ast.Break))


def swallowed_errors(house: House) -> list[str]:
    """Return the handlers that do nothing."""
    return [
        f"{name}:{node.lineno}" for name, tree in house.modules.items() for node in ast.walk(tree) if swallows(node)
    ]


def bare_functions(house: House) -> list[str]:
    """Return the public functions and classes without annotations or a docstring."""
    found = []
    for name, tree in written(house).items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
                taken = [*node.args.args, *node.args.kwonlyargs]
                if node.returns is None or any(a.annotation is None for a in taken) or not ast.get_docstring(node):
                    found.append(f"{name}.{node.name}")
            elif isinstance(node, ast.ClassDef) and not ast.get_docstring(node):
                found.append(f"{name}.{node.name}")
    return found


# --- configuration and ports ---


@cache
def config_classes() -> list[type]:
    """Return every class that configures something: of the areas' `config` modules, and what `Settings` composes."""
    from importlib import import_module

    from pydantic import BaseModel

    from orbiquant.settings import Settings

    modules = [name for name in house().modules if name.rpartition(".")[2] == "config"]
    found = {}
    for name in modules:
        module = import_module(f"{PACKAGE}.{name}")
        held = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, BaseModel)]
        found |= {each: None for each in held if each.__module__ == module.__name__}

    def compose(model: type[BaseModel]) -> None:
        for info in model.model_fields.values():
            if (
                isinstance(info.annotation, type)
                and issubclass(info.annotation, BaseModel)
                and info.annotation not in found
            ):
                found[info.annotation] = None
                compose(info.annotation)

    compose(Settings)
    for each in [*found]:
        compose(each)
    return [*found]


def declared(model: type) -> set[str]:
    """Return the fields that a class declares itself."""
    return set(model.__annotations__) & set(model.model_fields)  # type: ignore[attr-defined]


def shared_fields(models: Iterable[type]) -> list[str]:
    """Return the fields that several classes declare."""
    where: dict[str, set[str]] = {}
    for model in models:
        for name in declared(model):
            where.setdefault(name, set()).add(model.__name__)
    return [
        f"{name}: {', '.join(sorted(owners))}"
        for name, owners in sorted(where.items())
        if len(owners) > 1 and name not in FIELD_EXCEPTIONS
    ]


def restated_fields(spec: type, models: Iterable[type]) -> list[str]:
    """Return the fields of a specification that a configuration has already."""
    owners = {name: model.__name__ for model in models for name in declared(model)}
    return [f"{spec.__name__}.{name}: {owners[name]}" for name in sorted(declared(spec)) if name in owners]


def idle_protocols(house: House, contracts: Iterable[ast.Module]) -> list[str]:
    """Return the protocols of `ports` that `runtime` gives nobody, or that no contract suite speaks of."""
    named = lambda node: {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}  # noqa: E731
    protocols = [
        node.name
        for node in house.modules.get("ports", ast.Module([], [])).body
        if isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in node.bases)
    ]
    given: set[str] = set()
    for node in house.modules.get("runtime", ast.Module([], [])).body:
        for member in node.body if isinstance(node, ast.ClassDef) and node.name == "Runtime" else ():
            given |= named(member.returns) if isinstance(member, ast.FunctionDef) and member.returns else set()
            given |= named(member.annotation) if isinstance(member, ast.AnnAssign) else set()
    suites = {
        name
        for tree in contracts
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name.endswith("Contract")
        for name in named(node)
    }
    return [
        f"{name}: {' and '.join(lack)}"
        for name in protocols
        if (lack := [*["no runtime"] * (name not in given), *["no contract"] * (name not in suites)])
    ]


def contract_suites(root: Path = ROOT) -> list[ast.Module]:
    """Return the code of the contract suites."""
    return [ast.parse(path.read_text()) for path in sorted((root / "tests" / "contracts").glob("*.py"))]


YARDSTICK, YARDSTICK_S = "pandas, sqlalchemy, pydantic", 0.45  # and what they take on a quiet machine of two cores


def _processor_seconds(modules: str) -> float:
    """Return the processor time that an import takes in a fresh interpreter."""
    timed = f"from time import process_time as t; a = t(); import {modules}; print(t() - a)"
    return float(subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True).stdout)


@cache
def slowness() -> float:
    """Return how many times longer than a quiet machine this one takes now, shared cores and all."""
    return min(_processor_seconds(YARDSTICK) for _ in range(5)) / YARDSTICK_S


def import_seconds(module: str) -> float:
    """Return the processor time that importing a module would take on a quiet machine; the best of five."""
    turns = [(_processor_seconds(module), _processor_seconds(YARDSTICK)) for _ in range(5)]  # under the same load
    taken, slow = (min(each) for each in zip(*turns, strict=True))
    return taken * YARDSTICK_S / slow


# --- the table ---


@dataclass(frozen=True)
class Count:
    """One rule: what is counted, how, and what it may come to."""

    measure: Callable[[], list[str] | float]  # places, or a figure
    limit: float = 0


@cache
def house() -> House:
    """Return this house, read once."""
    return read_house()


def research_restated() -> list[str]:
    """Return the fields of the research specification that a configuration has already."""
    from orbiquant.research.spec import ResearchSpec

    return restated_fields(ResearchSpec, config_classes())


COUNTS: dict[str, Count] = {
    "exported imports of a later notebook": Count(lambda: later_imports(house(), exported=True)),
    "evidence imports of a later notebook": Count(lambda: later_imports(house(), exported=False)),
    f"export cells over {STATEMENTS} statements": Count(lambda: long_cells(house())),
    f"export cells over {DEFINITIONS} public definitions": Count(lambda: crowded_cells(house())),
    "median lines of an export cell": Count(lambda: median(cell_lines(house())), MEDIAN_LINES),
    "most lines of an export cell": Count(lambda: max(cell_lines(house())), MOST_LINES),
    "exported ideas without evidence": Count(lambda: bare_ideas(house())),
    f"notebooks over {NOTEBOOK_CELLS} cells or {NOTEBOOK_BYTES // 1000} KB": Count(lambda: large_notebooks(house())),
    "names defined twice": Count(lambda: double_names(house())),
    "fields in two configurations": Count(lambda: shared_fields(config_classes())),
    "fields that ResearchSpec restates": Count(research_restated),
    "symbols and timeframes taken as text below the desk": Count(lambda: text_parameters(house())),
    "parsings of a timeframe": Count(lambda: parsings(house()), PARSINGS),
    "callers of `current()` inside the house": Count(lambda: stray_runtimes(house())),
    "imports up or across": Count(lambda: wrong_imports(house())),
    "cycles of modules": Count(lambda: cycles(house())),
    "ports without adapter and contract": Count(lambda: idle_protocols(house(), contract_suites())),
    f"functions over {FUNCTION_LINES} lines": Count(lambda: long_functions(house())),
    f"modules over {MODULE_LINES} lines": Count(lambda: large_modules(house())),
    "public functions without annotations or docstring": Count(lambda: bare_functions(house())),
    "star imports": Count(lambda: stars(house())),
    "swallowed errors": Count(lambda: swallowed_errors(house())),
    "seconds to import orbiquant": Count(lambda: import_seconds("orbiquant"), 0.15),
    "seconds to import orbiquant.app": Count(lambda: import_seconds("orbiquant.app"), 1.5),
}


class Measured(NamedTuple):
    """A rule, measured."""

    value: float
    limit: float
    places: list[str]

    @property
    def over(self) -> bool:
        """Say whether the limit is passed."""
        return self.value > self.limit


def measure(name: str) -> Measured:
    """Return what a rule of `COUNTS` comes to, and its limit or what is allowed still."""
    found = COUNTS[name].measure()
    places = found if isinstance(found, list) else []
    return Measured(len(found) if isinstance(found, list) else found, STILL.get(name, COUNTS[name].limit), places)


def main(words: list[str]) -> int:
    """Print every count beside its limit, with all places where a word of its name is asked for; 1 when one is over."""
    over = 0
    for name in COUNTS:
        found = measure(name)
        note = f"  (to reach: {COUNTS[name].limit:g})" if name in STILL else ""
        print(f"{'OVER' if found.over else 'ok':4}  {found.value:6.4g}  limit {found.limit:<6.4g} {name}{note}")
        asked = any(word in name for word in words)
        shown = found.places if asked else found.places[:PLACES] if found.over else []
        print(*(f"            {place}" for place in shown), sep="\n", end="\n" if shown else "")
        if found.over and len(shown) < len(found.places):
            print(f"            … and {len(found.places) - len(shown)} more: make house WORDS='{name}'")
        over += found.over
    return int(over > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
