"""Checks links and the search index of the built docs: python docs/check_links.py docs/_build.

Each link to a file must have a target, and each #anchor an element of that name. Links to other hosts are skipped,
since they need a network; `sphinx-build -b linkcheck docs docs/_build/links` checks them. The pages of source code
(`_modules`), which Sphinx writes, are skipped too.

The search box must find each of `TERMS`.
"""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Terms that people type into the search box.
TERMS = """time series, audio, DICOM, NIfTI, Hugging Face, WebDataset, S3, contrastive, mixed precision, test set,
three-way split, class weight, shuffle buffer, prefetch, FAQ"""


class _Page(HTMLParser):
    """The links and anchors of a page."""

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
    """Yield one line per broken link on the pages in a folder."""
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


def not_found(folder: Path, terms: str = TERMS) -> list[str]:
    """Yield one line per comma-separated term for which the search box finds no page.

    A page is found if each word is in its text or in its title, as in Sphinx' searchtools.js.
    """
    from sphinx.search.en import SearchEnglish

    text = (folder / "searchindex.js").read_text("utf-8")
    index = json.loads(text[text.index("{") : text.rindex("}") + 1])
    english = SearchEnglish({})
    found = []
    for term in terms.split(","):
        pages = set(range(len(index["docnames"])))
        for word in english.split(term.lower()):
            stem = english.stem(word)
            for_word = set()
            for part in ("terms", "titleterms"):
                got = index[part].get(stem, [])
                for_word |= set(got if isinstance(got, list) else [got])
            pages &= for_word
        if not pages:
            found.append(f"{term.strip()}: the search finds no page")
    return found


if __name__ == "__main__":
    built = Path(sys.argv[1])
    lines = broken(built) + not_found(built)
    sys.stdout.write("\n".join(lines or ["all links lead somewhere, all terms are found"]) + "\n")
    sys.exit(1 if lines else 0)
