"""The reference: every public name of every module, read from the source without importing it.

A function is documented by its docstring and the comment behind each parameter, a class by those behind its fields.
"""

import ast
import copy
import io
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from deploy.docs.chapters import ROOT
from deploy.docs.pages import cell, fenced, linked
from orbiquant import _ROOMS

PACKAGE = ROOT / "orbiquant"
LEFT_OUT = ("_modidx", "app", "migrations", "assets", "cli")  # the command line has a page of its own
LONGEST_VALUE = 100
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """A module: its name, its tree, and the comment behind each line."""

    name: str
    tree: ast.Module
    comments: Mapping[int, str]
    notebook: str | None

    @classmethod
    def read(cls, path: Path) -> "Source":
        """Read a module of the package."""
        text = path.read_text(encoding="utf-8")
        dotted = path.relative_to(PACKAGE.parent).with_suffix("").parts
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        comments = {one.start[0]: one.string.lstrip("# ") for one in tokens if one.type == tokenize.COMMENT}
        made = [line for line in text.splitlines()[:6] if "File to edit:" in line]
        notebook = made[0].rpartition("/")[2].removesuffix(".ipynb.") if made else None
        name = ".".join(dotted[:-1] if dotted[-1] == "__init__" else dotted)
        return cls(name, ast.parse(text), comments, notebook)

    @property
    def exported(self) -> set[str]:
        """Return the names that the module lends: `__all__`, or what is public in it."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                return {one.value for one in ast.walk(node.value) if isinstance(one, ast.Constant)}
        return {name for node in self.tree.body if (name := name_of(node)) and not name.startswith("_")}


def name_of(node: ast.stmt) -> str | None:
    """Return what a statement defines."""
    if isinstance(node, Function | ast.ClassDef):
        return node.name
    target = (
        node.target if isinstance(node, ast.AnnAssign) else node.targets[0] if isinstance(node, ast.Assign) else None
    )
    return target.id if isinstance(target, ast.Name) else None


def told(node: ast.AST) -> str:
    """Return a docstring, its lines as they stand."""
    return ast.get_docstring(node) or ""  # type: ignore[arg-type]


def parameters(source: Source, node: Function) -> Iterator[tuple[str, str, str]]:
    """Yield name, type and comment of each parameter, and of what is returned."""
    asked = node.args
    named = [*asked.posonlyargs, *asked.args, *([asked.vararg] if asked.vararg else []), *asked.kwonlyargs]
    named += [asked.kwarg] if asked.kwarg else []
    shared = [one.lineno for one in named]
    for one in named:
        if one.arg in ("self", "cls"):
            continue
        comment = source.comments.get(one.end_lineno or one.lineno, "") if shared.count(one.lineno) == 1 else ""
        yield one.arg, ast.unparse(one.annotation) if one.annotation else "", comment
    if node.returns and (comment := source.comments.get(node.returns.end_lineno or 0)):
        yield "returns", ast.unparse(node.returns), comment


def table(rows: list[tuple[str, str, str]]) -> str:
    """Return parameters or fields as a table, where a comment says something of one."""
    if not any(comment for *_, comment in rows):
        return ""
    lines = [f"| `{name}` | {f'`{cell(kind)}`' if kind else ''} | {cell(comment)} |" for name, kind, comment in rows]
    return "\n".join(["| | | |", "|---|---|---|", *lines, ""])


def without_types(asked: ast.arguments) -> ast.arguments:
    """Return parameters without their types, which stand in the table below."""
    bare = copy.deepcopy(asked)
    for one in ast.walk(bare):
        if isinstance(one, ast.arg):
            one.annotation = None
    return bare


def signature(node: Function, *, method: bool, typed: bool) -> str:
    """Return how a function is called, in one line; a method without what it is bound to."""
    asked = ast.unparse(node.args if typed else without_types(node.args))
    if method and not any(ast.unparse(mark) == "staticmethod" for mark in node.decorator_list):
        asked = asked.partition(", ")[2] if "," in asked else ""
        asked = asked.removeprefix("/, ")
    return f"{node.name}({asked})" + (f" -> {ast.unparse(node.returns)}" if node.returns else "")


def function(source: Source, node: Function, *, method: bool = False) -> str:
    """Return a function or a method."""
    marks = [ast.unparse(mark) for mark in node.decorator_list]
    kind = "py:method" if method else "py:function"
    options = [f":{name}:" for name in ("classmethod", "staticmethod") if name in marks]
    rows = table([*parameters(source, node)])
    call = signature(node, method=method, typed=not rows)
    if "property" in marks or "cached_property" in marks:
        kind, call = "py:property", node.name
        options = [f":type: {ast.unparse(node.returns)}"] if node.returns else []
    options += [":async:"] if isinstance(node, ast.AsyncFunctionDef) else []
    routes = [mark for mark in marks if mark.startswith(("endpoint(", "tool("))]
    said = "\n\n".join(filter(None, [told(node), *(f"Marked `@{mark}`." for mark in routes), rows]))
    return fenced(f"{{{kind}}} {call}", said, *options)


def class_(source: Source, node: ast.ClassDef) -> str:
    """Return a class: its fields as a table, then its public methods."""
    fields = [
        (one.target.id, ast.unparse(one.annotation), source.comments.get(one.end_lineno or 0, ""))
        for one in node.body
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and not one.target.id.startswith("_")
    ]
    members = [
        (name, "", source.comments.get(one.end_lineno or 0, ""))
        for one in node.body
        if isinstance(one, ast.Assign) and (name := name_of(one)) and not name.startswith("_")
    ]
    methods = [
        function(source, one, method=True)
        for one in node.body
        if isinstance(one, Function) and not one.name.startswith("_")
    ]
    listed = fields + members
    rows = table(listed) or ("Fields: " + ", ".join(f"`{name}`" for name, *_ in listed) + "." if listed else "")
    bases = ", ".join(map(ast.unparse, node.bases))
    above = f"Made of `{bases}`." if bases else ""
    return fenced(f"{{py:class}} {node.name}", "\n\n".join(filter(None, [told(node), above, rows, *methods])))


def value(source: Source, node: ast.Assign | ast.AnnAssign, name: str) -> str:
    """Return a constant or a type's name, with what it is where that is short."""
    text = ast.unparse(node.value) if node.value else ""
    comment = source.comments.get(node.end_lineno or 0, "")
    options = [f":value: {text}"] if text and len(text) <= LONGEST_VALUE else []
    return fenced(f"{{py:data}} {name}", comment, *options)


def module_page(source: Source) -> str:
    """Return a module's page, or nothing where it lends no name."""
    parts = []
    for node in source.tree.body:
        name = name_of(node)
        if name not in source.exported or name is None:
            continue
        if isinstance(node, Function):
            parts.append(function(source, node))
        elif isinstance(node, ast.ClassDef):
            parts.append(class_(source, node))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            parts.append(value(source, node, name))
    if not parts:
        return ""
    where = f"Defined in the notebook [`{source.notebook}`](../book/{source.notebook}.md)." if source.notebook else ""
    head = [f"# {source.name}", told(source.tree), where, fenced(f"{{py:module}} {source.name}", "")]
    return "\n\n".join(filter(None, [*head, *parts]))


def front_door(said: Mapping[str, str]) -> str:
    """Return what `import orbiquant as oq` lends, each name with its page and its first line."""
    names = sorted((name, f"orbiquant.{room}") for room, lent in _ROOMS.items() for name in lent)
    rows = "".join(
        f'<tr><td><a href="api/{module}.html#{module}.{name}"><code>oq.{name}</code></a></td>'
        f"<td>{escape(said.get(f'{module}.{name}', ''))}</td></tr>"
        for name, module in names
    )
    return fenced("{raw} html", f'<table class="front-door">{rows}</table>')


def write_reference(folder: Path, books: set[str]) -> None:
    """Write a page a module, a page a room, and the list of rooms."""
    (folder / "api").mkdir()
    rooms: dict[str, list[tuple[str, str]]] = {}
    lines_of: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).with_suffix("").parts[0] in LEFT_OUT:
            continue
        source = Source.read(path)
        for node in source.tree.body:
            if isinstance(node, Function | ast.ClassDef):
                lines_of[f"{source.name}.{node.name}"] = told(node).partition("\n")[0]
        if text := module_page(source):
            (folder / f"api/{source.name}.md").write_text(linked(text, books, "../book/"), encoding="utf-8")
            rooms.setdefault(".".join(source.name.split(".")[:2]), []).append(
                (source.name, linked(told(source.tree), books, "book/"))
            )
    listed = []
    for room, modules in sorted(rooms.items()):
        if [name for name, _ in modules] == [room]:
            listed.append((f"api/{room}", f"- [`{room}`](api/{room}.md): {modules[0][1].splitlines()[0]}"))
            continue
        lines = [f"- [`{name}`](api/{name}.md): {said.splitlines()[0] if said else ''}" for name, said in modules]
        tree = [
            "```{toctree}",
            ":hidden:",
            "",
            *(f"{name.removeprefix(f'{room}.')} <api/{name}>" for name, _ in modules),
            "```",
        ]
        (folder / f"room-{room}.md").write_text("\n".join([f"# {room}", "", *lines, "", *tree, ""]), encoding="utf-8")
        listed.append((f"room-{room}", f"- [`{room}`](room-{room}.md): {len(modules)} modules"))
    tree = ["```{toctree}", ":hidden:", "", "commands", *(place for place, _ in listed), "```"]
    said = "Every public name, by room and module: what it is, what it takes, what it returns."
    (folder / "api.md").write_text(
        "\n".join(
            [
                "# Reference",
                "",
                said,
                "",
                "- [Commands](commands.md): what `orbiquant` can be told",
                "",
                "## The front door",
                "",
                front_door(lines_of),
                "",
                "## Rooms",
                "",
                *(line for _, line in listed),
                "",
                *tree,
                "",
            ]
        ),
        encoding="utf-8",
    )
