"""A notebook as a page: Markdown for Sphinx, its outputs as they were saved, its charts as data."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

CHART = "application/vnd.plotly.v1+json"
ANSI = re.compile(r"\x1b\[[0-9;]*m")
NAMED = re.compile(r"(?<!\[)`([0-9]{2,4}_[a-z0-9_.]+)`(?!\])")
LINK = re.compile(r"\]\((?:nbs/)?([\w.]+)\.ipynb(#[^)]*)?\)")
FENCE = re.compile(r"^(```|~~~)")


def joined(text: str | list[str]) -> str:
    """Return what a notebook keeps as text or as lines."""
    return text if isinstance(text, str) else "".join(text)


def fenced(kind: str, body: str, *options: str) -> str:
    """Return a block of Markdown whose fence is longer than any inside it."""
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`{3,}", body)), default=0))
    return "\n".join([f"{ticks}{kind}", *options, *([""] if options else []), body.rstrip("\n"), ticks]) + "\n"


def cell(text: str) -> str:
    """Return a text as a cell of a table."""
    return text.replace("|", "\\|")


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Return Markdown with each line changed but those inside fences."""
    lines, inside = [], False
    for line in text.splitlines():
        mark = bool(FENCE.match(line.lstrip()))
        lines.append(line if inside or mark else change(line))
        inside ^= mark
    return "\n".join(lines)


def linked(text: str, books: set[str], up: str = "") -> str:
    """Return Markdown whose links, and names of notebooks in code style, lead to pages; `up` leads to their folder."""

    def change(line: str) -> str:
        line = LINK.sub(lambda found: f"]({up}{found[1]}.md{found[2] or ''})" if found[1] in books else found[0], line)
        return NAMED.sub(lambda found: f"[{found[0]}]({up}{found[1]}.md)" if found[1] in books else found[0], line)

    return outside_code(text, change)


def image(data: str, folder: Path) -> str:
    """Write an image that a notebook holds and return its address from a page."""
    content = base64.b64decode(data)
    name = f"{hashlib.sha256(content).hexdigest()[:16]}.png"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return f"../_static/images/{name}"


def shown(output: Mapping[str, Any], images: Path) -> str:
    """Return one saved output as HTML: chart, table, image or text, in this order."""
    if "data" not in output:
        said = output.get("text") or output.get("traceback") or ""
        return f"<pre>{html.escape(ANSI.sub('', joined(said)))}</pre>"
    data = output["data"]
    still = (
        f'<img src="{image(joined(data["image/png"]), images)}" loading="lazy" alt="Chart">'
        if "image/png" in data
        else ""
    )
    if CHART in data:
        figure = json.dumps(data[CHART]).replace("</", "<\\/")
        return f'<div class="chart"><script type="application/json">{figure}</script>{still}</div>'
    if "text/html" in data:
        return joined(data["text/html"])
    return still or f"<pre>{html.escape(ANSI.sub('', joined(data.get('text/plain', ''))))}</pre>"


def code(cell: Mapping[str, Any], images: Path) -> Iterator[str]:
    """Yield a code cell and its outputs; what is hidden, or only names the module, is left out."""
    lines = joined(cell["source"]).splitlines()
    marks = [line for line in lines if line.startswith("#|")]
    body = "\n".join(line for line in lines if not line.startswith("#|")).strip("\n")
    if not body or any(mark.startswith("#| hide") for mark in marks):
        return
    exported = any(mark.startswith("#| export") for mark in marks)
    magic = "ipython" if re.search(r"^[%!]", body, re.MULTILINE) else "python"
    yield fenced(f"{{code-block}} {magic}", body, *([":class: exported"] if exported else []))
    if outputs := "".join(shown(output, images) for output in cell.get("outputs", [])):
        yield fenced("{container} output no-search", fenced("{raw} html", outputs))


def module_of(book: Mapping[str, Any]) -> str | None:
    """Return the module that a notebook exports, if it does."""
    for cell in book["cells"]:
        if found := re.search(r"^#\| default_exp (\S+)", joined(cell["source"]), re.MULTILINE):
            return f"orbiquant.{found[1]}"
    return None


def page(path: Path, books: set[str], images: Path) -> str:
    """Return a notebook as a page."""
    book = json.loads(path.read_text(encoding="utf-8"))
    parts: list[str] = []
    for cell in book["cells"]:
        if cell["cell_type"] == "markdown":
            parts.append(linked(joined(cell["source"]), books) + "\n")
        elif cell["cell_type"] == "code":
            parts += code(cell, images)
    module = module_of(book)
    where = f"Notebook `{path.name}`" + (f", defines [`{module}`](../api/{module}.md)" if module else "")
    parts.insert(1, fenced("{container} source", where))
    return "\n".join(parts)
