"""The book's chapters as `nbs/chapters.toml` groups them, and the index of the notebooks that is made from it."""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "nbs"
CONTENTS = NOTEBOOKS / "contents.md"
COVER = "index"  # README's source: the cover, in no chapter


@dataclass(frozen=True)
class Chapter:
    """A title, README's row, and the notebooks in reading order."""

    title: str
    row: str
    about: str
    notebooks: tuple[Path, ...]

    @property
    def slug(self) -> str:
        """Return the title as an address."""
        return self.title.lower().replace(" ", "-")


def read_chapters(folder: Path = NOTEBOOKS) -> list[Chapter]:
    """Return the chapters; refuse a notebook that is in none or in several, and a pattern that finds nothing."""
    told = tomllib.loads((folder / "chapters.toml").read_text(encoding="utf-8"))["chapter"]
    books = sorted(path for path in folder.glob("*.ipynb") if path.stem != COVER)
    homes: dict[Path, list[str]] = {path: [] for path in books}
    chapters = []
    for one in told:
        found = []
        for pattern in one["notebooks"]:
            matched = [path for path in books if fnmatchcase(path.stem, pattern)]
            if not matched:
                raise ValueError(f"chapters.toml: `{pattern}` of {one['title']!r} finds no notebook")
            found += [path for path in matched if path not in found]
        for path in found:
            homes[path].append(one["title"])
        chapters.append(Chapter(one["title"], one["row"], one["about"], tuple(sorted(found))))
    if odd := [f"{path.name} is in {titles or 'no chapter'}" for path, titles in homes.items() if len(titles) != 1]:
        raise ValueError(f"chapters.toml: every notebook belongs to one chapter: {'; '.join(odd)}")
    return chapters


def heading(path: Path) -> tuple[str, str]:
    """Return a notebook's title and its one-line summary."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    lines = "".join(cells[0]["source"]).splitlines()
    summary = " ".join(line[1:].strip() for line in lines if line.startswith(">"))
    return lines[0].removeprefix("# ").strip(), summary


def contents(chapters: Sequence[Chapter]) -> str:
    """Return the index of the notebooks by chapter, as Markdown that JupyterLab and code hosts show."""
    parts = ["# The notebooks by chapter\n\nMade from `chapters.toml` by `make generate`; not edited by hand.\n"]
    for chapter in chapters:
        lines = [f"\n## {chapter.title}\n\n{chapter.about[0].upper()}{chapter.about[1:]}.\n\n"]
        for path in chapter.notebooks:
            title, summary = heading(path)
            lines.append(f"- [`{path.stem}`]({path.name}) **{title}**: {summary}\n")
        parts += lines
    return "".join(parts)


if __name__ == "__main__":
    CONTENTS.write_text(contents(read_chapters()), encoding="utf-8")
