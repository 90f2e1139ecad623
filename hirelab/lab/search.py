"""The search page: a list of all headings, terms and public names, and a script that looks in it.

The list is inside the page, since a page that was opened from a disk may fetch nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from html.parser import HTMLParser

from .site import own

_TITLES = {"h2", "h3", "h4", "h5", "h6", "tr"}  # a row with an id is a term of a glossary
_SILENT = {"h1", "pre", "style", "script", "svg", "summary"}  # a page's title is known


@dataclass(frozen=True)
class Entry:
    """What can be found: a title, what kind of thing it is, its address, and its words."""

    title: str
    kind: str
    address: str
    text: str


def sections(body: str, kind: str, page: str, title: str) -> list[Entry]:
    """An entry for each heading and each term that has an anchor, in a page's HTML.

    What stands before the first of them is found as ``title``.
    """
    parser = _Sections(title)
    parser.feed(body)
    parser.close()
    entries = []
    for i, (anchor, heading, text) in enumerate(parser.found):
        words = " ".join("".join(text).split())
        address = f"{page}#{anchor}" if anchor and i else page
        what = kind if not i else f"{kind}: {title}"
        entries.append(Entry(" ".join("".join(heading).split()), what, address, words))
    return entries


class _Sections(HTMLParser):
    """Collects (anchor, heading, text) from a page; code and what is hidden are no words."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[str], list[str]]] = [("", [title], [])]
        self._heading = ""
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        anchor = dict(attrs).get("id")
        if tag in _SILENT:
            self._silent += 1
        elif tag in _TITLES and anchor:
            self._heading = tag
            self.found.append((anchor, [], []))
        elif tag == "td" and self._heading == "tr":
            self._heading = "td"

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in _SILENT
        if tag == self._heading:
            self._heading = ""
        if tag in {"p", "li", "td", "th", "tr", "div"}:
            self.found[-1][2].append(" ")

    def handle_data(self, data: str) -> None:
        if self._silent:
            return
        _, heading, text = self.found[-1]
        (heading if self._heading else text).append(data)


def search_body(entries: Iterable[Entry]) -> str:
    """The body of the search page."""
    data = json.dumps([astuple(entry) for entry in entries], ensure_ascii=False)
    data = data.replace("<", r"\u003c")  # no text can end the script, or begin a comment
    return f"""<main class="search">
<h1>Search</h1>
<p id="count" role="status">Type a word above: it is looked for in notebooks, explorers, documents
and public names.</p>
<ol id="results"></ol>
<noscript><p>Searching needs JavaScript; <a href="index.html">the index</a> leads to every
page without it.</p></noscript>
</main>
<script>
const data = {data};
{own("search.js")}</script>"""
