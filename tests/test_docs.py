"""The book: every notebook has a chapter, every command that is shown is one, every link leads somewhere."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
from fastcore.docments import docments
from playwright.sync_api import Browser
from typer import BadParameter
from typer.main import get_command

from deploy.docs.build import renew
from deploy.docs.chapters import CONTENTS, NOTEBOOKS, ROOT, contents, heading, read_chapters
from deploy.docs.links import faults
from deploy.docs.pages import page
from deploy.docs.reference import Source, module_page, parameters
from orbiquant.cli.program import program
from orbiquant.features.ict import ict_events
from tests.tools.browser import Witness, running_browser

UsageError: Any = BadParameter.__base__  # what its parser refuses with, of whichever click it has

# --- chapters ---


def test_every_notebook_belongs_to_one_chapter_and_has_a_summary(tmp_path: Path):
    chapters = read_chapters()
    there = {path for path in NOTEBOOKS.glob("*.ipynb") if path.stem != "index"}
    assert {path for chapter in chapters for path in chapter.notebooks} == there
    assert [path.name for path in sorted(there) if not all(heading(path))] == []
    for path in [NOTEBOOKS / "chapters.toml", *there]:
        (tmp_path / path.name).touch() if path.suffix == ".ipynb" else shutil.copy(path, tmp_path)
    (tmp_path / "96_lost.ipynb").touch()
    with pytest.raises(ValueError, match=r"96_lost\.ipynb is in no chapter"):
        read_chapters(tmp_path)
    (tmp_path / "96_lost.ipynb").unlink()
    (tmp_path / "chapters.toml").write_text(
        (tmp_path / "chapters.toml").read_text().replace('"49_signals"', '"49_signals", "5[2-8]_backtest.*"')
    )
    with pytest.raises(ValueError, match=r"52_backtest\.config\.ipynb is in \['From bars to signals', 'Backtests"):
        read_chapters(tmp_path)


def test_the_index_in_the_lab_and_the_table_of_the_readme_say_what_the_chapters_say():
    chapters, readme = read_chapters(), (ROOT / "README.md").read_text()
    assert CONTENTS.read_text() == contents(chapters), "stale: make generate"
    table = readme.partition("| notebooks | what they define |\n|---|---|\n")[2].partition("\n\n")[0]
    assert table.splitlines() == [f"| {one.row} | {one.about} |" for one in chapters if one.row]


# --- commands ---


def prose() -> Iterator[tuple[str, str]]:
    """Yield the Markdown of README, the guide for contributors, and every notebook."""
    for name in ("README.md", "CONTRIBUTING.md"):
        yield name, (ROOT / name).read_text()
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            text = "".join(cell["source"])
            shell = re.sub(r"^!", "", text, flags=re.MULTILINE) if text.startswith("!") else ""
            yield path.name, text if cell["cell_type"] == "markdown" else f"```sh\n{shell}\n```"


def commands(text: str) -> Iterator[str]:
    """Yield each `orbiquant …` of the shell blocks of some Markdown."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|(?!\|)", line):
                if found := re.match(r"\s*(?:[A-Z_]+=\S+ |docker compose .*? (?:service|work) )?(orbiquant .*)", part):
                    yield found[1]


@cache
def tree() -> Any:
    """Return the tree of commands."""
    return get_command(program)


def parse(line: str) -> None:
    """Have the parser that runs commands read a line; `UsageError` for what it would refuse."""
    _, *words = shlex.split(line, comments=True)
    command = tree()
    while hasattr(command, "commands"):
        if not words or words[0] not in command.commands:
            raise UsageError(f"no command: {line}")
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words)


def test_every_command_that_is_shown_is_one_that_the_parser_takes():
    lines = [(name, line) for name, text in prose() for line in commands(text)]
    bad = []
    for name, line in lines:
        try:
            parse(line)
        except UsageError as error:
            bad.append(f"{name}: {line}: {error.format_message()}")
    assert not bad, "\n".join(bad)
    assert len(lines) > 100 and {"README.md", "95_howto.own_data.ipynb", "95_howto.servers.ipynb"} <= {
        n for n, _ in lines
    }
    for wrong in (
        "orbiquant data pul binance",
        "orbiquant serve --workrs 2",
        "orbiquant data check",
        "orbiquant agent",
    ):
        with pytest.raises(UsageError):
            parse(wrong)
    assert [*commands("```sh\nA=b orbiquant serve && orbiquant work | head\n```\norbiquant no")] == [
        "orbiquant serve ", "orbiquant work ",
    ]  # fmt: skip


def test_every_how_to_says_what_goes_wrong_and_what_it_does_not_do():
    pages = sorted(NOTEBOOKS.glob("95_howto.*.ipynb"))
    assert len(pages) >= 13
    for path in pages:
        cells = json.loads(path.read_text())["cells"]
        told = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        assert re.search("^## What goes wrong|^## What the commonest", told, re.MULTILINE), path.name
        assert "\n## What it does not do\n" in told and "default_exp" not in path.read_text(), path.name
        assert any("assert " in "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"), path.name


# --- pages ---


def write_site(folder: Path) -> None:
    """Write a small site whose links are whole."""
    (folder / "one.html").write_text(
        '<link rel="stylesheet" href="s.css"><link rel="next" href="two.html"><script src="s.js"></script>'
        '<a href="two.html#here">a</a> <a href="#top" id="top">b</a> <a href="https://example.org/x">c</a> '
        '<img src="data:image/png;base64,">'
    )
    (folder / "two.html").write_text('<h2 id="here">x</h2><a href="one.html">back</a>')
    (folder / "s.css").write_text("a { background: url(data:image/png;base64,) } b { background: url('s.js') }")
    (folder / "s.js").touch()


PLANTED = {
    '<a href="thre.html">x</a>': "one.html: no file for thre.html",
    '<a href="two.html#her">x</a>': "one.html: no anchor for two.html#her",
    '<a href="#nowhere">x</a>': "one.html: no anchor for #nowhere",
    '<a href="../outside.html">x</a>': "one.html: no file for ../outside.html",
    '<img src="gone.png">': "one.html: no file for gone.png",
    '<script src="https://cdn.example.org/p.js"></script>': "one.html: fetches https://cdn.example.org/p.js",
    '<link rel="stylesheet" href="//fonts.example.org/f.css">': "one.html: fetches //fonts.example.org/f.css",
}


def test_a_planted_broken_link_is_found_and_so_is_what_would_be_fetched_from_elsewhere(tmp_path: Path):
    write_site(tmp_path)
    assert faults(tmp_path) == []
    whole = (tmp_path / "one.html").read_text()
    for planted, found in PLANTED.items():
        (tmp_path / "one.html").write_text(whole + planted)
        assert faults(tmp_path) == [found]
    (tmp_path / "one.html").write_text(whole)
    (tmp_path / "s.css").write_text("@import 'https://example.org/f.css'; a { background: url(gone.svg) }")
    assert faults(tmp_path) == ["s.css: fetches https://example.org/f.css", "s.css: no file for gone.svg"]


def test_a_notebook_becomes_a_page_and_its_links_lead_to_pages(tmp_path: Path):
    prose = "# One\n\nSee [two](20_two.ipynb), `20_two`, [none](30_none.ipynb).\n\n```\n`20_two`\n```"
    told = {
        "data": {
            "application/vnd.plotly.v1+json": {"data": [], "layout": {"title": "</script>"}},
            "text/plain": "Figure",
        }
    }
    cells = [
        {"cell_type": "markdown", "source": prose},
        {"cell_type": "code", "source": "#| default_exp one", "outputs": []},
        {"cell_type": "code", "source": "#| hide\nsecret = 1", "outputs": []},
        {"cell_type": "code", "source": ["#| export\n", "def one(): ..."], "outputs": [told]},
        {"cell_type": "code", "source": "1", "outputs": [{"output_type": "stream", "text": "\x1b[1m<b>\x1b[0m"}]},
    ]  # fmt: skip
    path = tmp_path / "10_one.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    text = page(path, {"10_one", "20_two"}, tmp_path)
    assert "[two](20_two.md), [`20_two`](20_two.md), [none](30_none.ipynb)" in text and "```\n`20_two`\n```" in text
    assert "secret" not in text and ":class: exported\n\ndef one(): ..." in text and "api/orbiquant.one.md" in text
    assert "<\\/script>" in text and "<pre>&lt;b&gt;</pre>" in text and "\x1b" not in text


def test_the_reference_has_what_docments_reads_and_every_name_of_a_module():
    source = Source.read(ROOT / "orbiquant/features/ict.py")
    node = next(each for each in source.tree.body if getattr(each, "name", "") == "ict_events")
    said = {name: comment for name, _, comment in parameters(source, node)}  # type: ignore[arg-type]
    assert said == docments(ict_events, returns=False) and len(said) == 2
    text = module_page(source)
    names = [name for name in source.exported if not re.search(rf"\{{py:\w+\}} {name}\b", text)]
    assert not names and "known at the *close*" not in text and "24_features.ict" in text


def test_what_is_the_same_is_left_alone_so_that_only_changed_pages_are_read_again(tmp_path: Path):
    made, kept = tmp_path / "made", tmp_path / "kept"
    for folder in (made, kept):
        (folder / "under").mkdir(parents=True)
        (folder / "under/same.md").write_text("same")
    (kept / "gone.md").touch()
    (made / "new.md").write_text("new")
    before = (kept / "under/same.md").stat().st_mtime_ns
    renew(made, kept)
    assert (kept / "under/same.md").stat().st_mtime_ns == before and (kept / "new.md").read_text() == "new"
    assert not (kept / "gone.md").exists()


# --- the site ---


def look(site: Path, browser: Browser, theme: Literal["light", "dark"], width: int) -> None:
    """Search and read as a person does, from the disk and without a network."""
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=theme, offline=True)
    shown = context.new_page()
    witness = Witness(shown)
    shown.goto(f"file://{site}/search.html?q=triple_barrier")
    first = shown.locator("#search-results li a").first
    first.wait_for(timeout=30_000)
    assert first.inner_text() == "orbiquant.models.labels.triple_barrier"
    first.click()
    place = "orbiquant.models.labels.triple_barrier"
    shown.wait_for_url(f"**/api/orbiquant.models.labels.html*{place}")
    assert "distance from entry to target, in price" in shown.locator(f"dl:has(> dt[id='{place}'])").inner_text()
    shown.goto(f"file://{site}/book/03_charts.prices.html")
    shown.locator(".chart .main-svg").first.wait_for(timeout=30_000)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    ground = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (theme == "light")
    assert [url for url in witness.asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert witness.errors == []
    context.close()


@pytest.mark.slow
@pytest.mark.browser
def test_the_site_is_built_and_found_through_without_a_network(tmp_path: Path):
    site = tmp_path / "docs"
    command = [sys.executable, "-m", "deploy.docs.build", site]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "pages" in done.stdout, done.stderr[-3000:]
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    assert len([*site.rglob("*.html")]) > 900 and size < 120e6
    with running_browser() as browser:
        look(site, browser, "light", 1280)
        look(site, browser, "dark", 390)
