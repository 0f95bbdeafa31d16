"""Checks links in the built docs: python docs/check_links.py docs/_build.

Each link to a file has to lead to one, and each #anchor to an element of that name. Links to other hosts are left out:
they need a network, and `sphinx-build -b linkcheck docs docs/_build/links` looks at them. So are the pages of source code
(`_modules`), which Sphinx writes.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.links.add(value)
            elif value and name in ("id", "name"):
                self.anchors.add(value)


def broken(folder: Path) -> list[str]:
    """A line for each link of the pages in a folder that leads nowhere."""
    pages = {path.resolve(): _Page(path.read_text("utf-8")) for path in folder.rglob("*.html")}
    found = []
    for path, page in sorted(pages.items()):
        for link in () if "_modules" in path.parts else sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            anchor = unquote(parts.fragment)
            there = pages.get(target)
            if not target.exists():
                found.append(f"{path.name}: {link} is not there")
            elif there is not None and anchor and anchor not in there.anchors:
                found.append(f"{path.name}: {link}: no such anchor")
    if not pages:
        found.append(f"{folder} has no pages: build them first.")
    return found


if __name__ == "__main__":
    lines = broken(Path(sys.argv[1]))
    sys.stdout.write("\n".join(lines or ["all links lead somewhere"]) + "\n")
    sys.exit(1 if lines else 0)
