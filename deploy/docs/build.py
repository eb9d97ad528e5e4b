"""Build the book: notebooks, reference and README become Markdown, Sphinx makes pages of them, every link is followed.

Nothing is run and nothing is fetched: the notebooks' saved outputs are shown.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from plotly.offline import get_plotlyjs
from sphinx.cmd.build import build_main

from deploy.docs.chapters import ROOT, Chapter, heading, read_chapters
from deploy.docs.commands import commands_page
from deploy.docs.links import faults
from deploy.docs.pages import linked, page
from deploy.docs.reference import write_reference

HERE = Path(__file__).parent
FRONT = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def toctree(entries: Sequence[str], *options: str) -> str:
    """Return what tells Sphinx which pages come below this one."""
    return "\n".join(["```{toctree}", *options, "", *entries, "```", ""])


def chapter_page(chapter: Chapter) -> str:
    """Return a chapter's own page: what it is about, and each notebook with its summary."""
    rows = [f"- [{heading(path)[0]}](book/{path.stem}.md): {heading(path)[1]}" for path in chapter.notebooks]
    about = f"{chapter.about[0].upper()}{chapter.about[1:]}."
    tree = toctree([f"book/{path.stem}" for path in chapter.notebooks], ":hidden:")
    return "\n".join([f"# {chapter.title}", "", about, "", *rows, "", tree])


def write_sources(folder: Path) -> None:
    """Write everything that Sphinx reads."""
    chapters = read_chapters()
    books = {path.stem for chapter in chapters for path in chapter.notebooks}
    shutil.copytree(HERE / "static", folder / "static")
    shutil.copy(HERE / "conf.py", folder)
    (folder / "static/plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    (folder / "book").mkdir()
    for chapter in chapters:
        for path in chapter.notebooks:
            (folder / f"book/{path.stem}.md").write_text(page(path, books, folder / "static/images"), encoding="utf-8")
        (folder / f"{chapter.slug}.md").write_text(linked(chapter_page(chapter), books, "book/"), encoding="utf-8")
    how_to, *others = [chapter.slug for chapter in chapters]
    lines = [f"- [{one.title}]({one.slug}.md): {one.about}" for one in chapters[1:]]
    (folder / "book.md").write_text(
        "\n".join(["# The book", "", "The notebooks that are the library, in reading order.", "", *lines, "",
                   toctree(others, ":hidden:")]), encoding="utf-8")  # fmt: skip
    tree = toctree(
        [f"How to <{how_to}>", "The book <book>", "Reference <api>", "contributing", "changelog"], ":hidden:"
    )
    for name, target in [("README.md", "index.md"), *FRONT.items()]:
        text = linked((ROOT / name).read_text(encoding="utf-8"), books, up="book/")
        for old, new in FRONT.items():
            text = text.replace(f"]({old})", f"]({new})")
        (folder / target).write_text(text + (f"\n{tree}" if target == "index.md" else ""), encoding="utf-8")
    write_reference(folder, books)
    (folder / "commands.md").write_text(commands_page(), encoding="utf-8")


def renew(made: Path, kept: Path) -> None:
    """Bring a folder to what was made, and leave files that are the same alone: Sphinx reads what is newer only."""
    fresh = {path.relative_to(made) for path in made.rglob("*") if path.is_file()}
    for path in [path for path in kept.rglob("*") if path.is_file() and path.relative_to(kept) not in fresh]:
        path.unlink()
    for name in fresh:
        if not (kept / name).is_file() or (kept / name).read_bytes() != (made / name).read_bytes():
            (kept / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(made / name, kept / name)


def build(target: Path, processes: int = 2) -> list[str]:
    """Build the site into a folder and return what is wrong with its links."""
    sources, trees = target.with_name(f"{target.name}.src"), target.with_name(f"{target.name}.trees")
    with TemporaryDirectory() as folder:
        write_sources(Path(folder))
        renew(Path(folder), sources)
    if build_main(
        ["-b", "html", "-q", "-W", "--keep-going", "-j", str(processes), "-d", str(trees), str(sources), str(target)]
    ):
        return ["Sphinx found faults: see above"]
    pages = {path.relative_to(sources).with_suffix(".html") for path in sources.rglob("*.md")} | {Path("search.html")}
    for path in [path for path in target.rglob("*.html") if path.relative_to(target) not in pages]:
        path.unlink()  # of a notebook or module that is no more
    return faults(target)


def main(words: Sequence[str]) -> int:
    """Build, and say how long it took and how large it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path, nargs="?", default=ROOT / "build/docs")
    target, began = parser.parse_args(words).target.absolute(), time.perf_counter()
    if found := build(target):
        print(*found, f"{len(found)} faults", sep="\n", file=sys.stderr)
        return 1
    files = [path for path in target.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    pages = sum(path.suffix == ".html" for path in files)
    took = time.perf_counter() - began
    print(f"{target}: {pages} pages, {size:.0f} MB, {took:.0f} s; open index.html, no server is needed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
