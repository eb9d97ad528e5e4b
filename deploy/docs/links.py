"""Follow every link of a built site without a network: files, anchors, and what a page would fetch from elsewhere."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {
    "img": "src",
    "script": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
}
SAID_ONLY = {
    "canonical",
    "search",
    "next",
    "prev",
    "index",
    "author",
    "license",
    "help",
}  # kinds of `link`, not fetched
STYLE = re.compile(r"""url\(\s*['"]?([^'")]+)|@import\s+['"]([^'"]+)""")


@dataclass
class Page(HTMLParser):
    """What one page names: its anchors, where its links lead, and what it fetches."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        HTMLParser.__init__(self)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := told.get(name))}
        if tag == "a" and told.get("href") is not None:
            self.links.append(told["href"] or "")
        elif (address := told.get(FETCHED.get(tag, ""))) and not ({*(told.get("rel") or "").split()} & SAID_ONLY):
            self.fetched.append(address)


def read(path: Path) -> Page:
    """Return what a page names."""
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def target_of(path: Path, site: Path, address: str) -> tuple[Path, str] | None:
    """Return the file and the anchor that an address leads to; nothing where it leads to another site."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return None
    if not parts.path:
        return path, unquote(parts.fragment)
    base = site if parts.path.startswith("/") else path.parent
    return (base / unquote(parts.path).lstrip("/")).resolve(), unquote(parts.fragment)


def faults(site: Path) -> list[str]:
    """Return every link to a file or anchor that is not there, and everything fetched from another site."""
    site = site.resolve()
    pages = {path: read(path) for path in sorted(site.rglob("*.html"))}
    found = [fault for path, page in pages.items() for fault in page_faults(path, page, site, pages)]
    return found + [fault for path in sorted(site.rglob("*.css")) for fault in style_faults(path, site)]


def page_faults(path: Path, page: Page, site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    """Yield what is wrong on one page, each fault once."""
    name = path.relative_to(site)
    for address in dict.fromkeys(page.links + page.fetched):
        goal = target_of(path, site, address)
        if goal is None:
            if address in page.fetched and not address.startswith("data:"):
                yield f"{name}: fetches {address}"
            continue
        file, anchor = goal
        if not file.is_file():
            yield f"{name}: no file for {address}"
        elif anchor and file in pages and anchor not in pages[file].anchors:
            yield f"{name}: no anchor for {address}"


def style_faults(path: Path, site: Path) -> Iterator[str]:
    """Yield what a style sheet fetches from another site, or names without its being there."""
    for plain, imported in STYLE.findall(path.read_text(encoding="utf-8")):
        address = plain or imported
        goal = None if address.startswith(("data:", "#")) else target_of(path, site, address)
        if goal and not goal[0].is_file():
            yield f"{path.relative_to(site)}: no file for {address}"
        if goal is None and not address.startswith(("data:", "#")):
            yield f"{path.relative_to(site)}: fetches {address}"
