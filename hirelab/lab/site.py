"""What the pages of the site share: a header that leads everywhere, and links that lead to pages.

The site is one folder for any static host, and works from a disk as well: no page fetches another.
"""

from __future__ import annotations

import html
import posixpath
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..widgets import page as pages

NAME = "hirelab"
SEARCH = "search.html"
REFERENCE = "api/index.html"


@dataclass(frozen=True)
class Site:
    """Which parts the site has, besides notebooks and explorers; its header leads to them."""

    documents: bool = True
    reference: bool = True

    def header(self, root: str = "") -> str:
        """The header of a page from which ``root`` leads to the site's folder ("", "../")."""
        links = {"Notebooks": "index.html#notebooks", "Explorers": "index.html#explorers"}
        if self.documents:
            links["Documents"] = "index.html#documents"
        if self.reference:
            links["API"] = REFERENCE
        shown = "".join(f'<a href="{root}{page}">{words}</a>' for words, page in links.items())
        return f"""<header class="site">
<a class="home" href="{root}index.html">{pages.MARK}{NAME}</a>
<nav aria-label="Site">{shown}</nav>
<form role="search" action="{root}{SEARCH}">
<input type="search" name="q" aria-label="Search this site" placeholder="Search">
</form>
</header>
"""

    def page(self, title: str, body: str, description: str = "") -> str:
        """A page of the site's folder, with the header and the style of text and code."""
        named = title if title == NAME else f"{title} \u00b7 {NAME}"
        return pages.html_page(named, style(), self.header() + body, description)


def style() -> str:
    """The style of text, code and the index; every page has `pages.STYLE` before it."""
    return own("gallery.css")


def own(name: str) -> str:
    """The text of a file beside this module."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def headline(markdown: str, default: str) -> tuple[str, str]:
    """The first heading of a text (or ``default``) and the first paragraph after it, both plain."""
    title, rest = default, markdown
    if heading := re.search(r"^#+ .+$", markdown, flags=re.MULTILINE):
        title, rest = heading[0], markdown[heading.end() :]
    blocks = (block.strip() for block in re.split(r"\n\s*\n", rest))
    paragraphs = (block for block in blocks if re.match(r"(?!```)[^#<!|\s]", block))
    return plain(title), plain(next(paragraphs, ""))


def plain(markdown: str) -> str:
    """Markdown as plain text."""
    from nbconvert.filters import markdown2html

    text = re.sub(r"<[^>]+>", "", markdown2html(markdown))
    return " ".join(html.unescape(text).replace("\u00b6", "").split())


def relink(body: str, source: str, targets: Mapping[str, str]) -> str:
    """Point links to files of the project at their pages; keep the words of links to other files.

    Args:
        body: HTML.
        source: the file that it was made of, as the project names it: "docs/walk.md".
        targets: the page of every file that has one. Links to pages stay as they are.
    """
    kept = set(targets.values())

    def link(match: re.Match[str]) -> str:
        address, words = match["address"], match["words"]
        if re.match(r"[a-z]+:", address) or address in kept:  # https:, mailto:
            return match[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), address))
        if file not in targets:
            return words
        return f'<a href="{targets[file]}{match["anchor"]}">{words}</a>'

    pattern = r'<a href="(?P<address>[^"#]+)(?P<anchor>#[^"]*|)"[^>]*>(?P<words>.*?)</a>'
    return re.sub(pattern, link, body, flags=re.DOTALL)


def with_anchors(body: str, terms: bool = False) -> str:
    """Name headings as code hosts do, since links in Markdown are written for these; and the
    ``terms`` of a glossary, rows that begin with a word in bold."""
    seen: Counter[str] = Counter()

    def named(words: str) -> str:
        slug = slugify(words)
        seen[slug] += 1
        return slug if seen[slug] == 1 else f"{slug}-{seen[slug] - 1}"

    def heading(match: re.Match[str]) -> str:
        level = match["level"]
        words = re.sub(r'<a class="anchor-link".*?</a>', "", match["words"], flags=re.DOTALL)
        return f'<h{level} id="{named(words)}">{words}</h{level}>'

    def row(match: re.Match[str]) -> str:
        return f'<tr id="{named(match["words"])}">{match["cell"]}'

    body = re.sub(
        r"<h(?P<level>[1-6])\b[^>]*>(?P<words>.*?)</h(?P=level)>", heading, body, flags=re.DOTALL
    )
    cell = r"<tr>(?P<cell>\s*<td[^>]*>\s*<strong>(?P<words>.*?)</strong>\s*</td>)"
    return re.sub(cell, row, body, flags=re.DOTALL) if terms else body


def slugify(words: str) -> str:
    """A heading (HTML) as the anchor that code hosts give it."""
    text = html.unescape(re.sub(r"<[^>]+>", "", words)).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
