"""The project's documents as pages: what stands in docs/ and beside the data, in Markdown."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .._shared.files import ROOT, data_folder, in_checkout
from ..viz.canvas import mime
from .site import headline, relink, with_anchors

# In the order in which the index has them; where hirelab is installed, docs/ is not there.
PAGES = {
    "docs/glossary.md": "glossary.html",
    "docs/walk.md": "walk.html",
    "docs/training.md": "training.html",
    "docs/data.md": "data.html",
    "docs/benchmarks.md": "benchmarks.html",
    "docs/testing.md": "testing.html",
    "data/weights/README.md": "weights.html",
    "data/results/PROTOCOL.md": "protocol.html",
    "data/README.md": "files.html",
}


@dataclass(frozen=True)
class Document:
    """A text of the project.

    Attributes:
        source: the file, as the project names it: "docs/walk.md".
        page: the page's name.
        title: its first heading.
        about: its first sentence.
        markdown: all of it.
    """

    source: str
    page: str
    title: str
    about: str
    markdown: str

    def render(self, targets: Mapping[str, str]) -> str:
        """The text as HTML, its links leading to the pages of other files (see `site.relink`)."""
        from nbconvert.filters import markdown2html

        body = re.sub(r"<!--.*?-->", "", markdown2html(self.markdown), flags=re.DOTALL)
        body = re.sub(r'(<img [^>]*src=")([^":]+)"', self._inlined, body)
        return relink(with_anchors(body, terms=True), self.source, targets)

    def _inlined(self, found: re.Match[str]) -> str:
        """An image's tag up to its source, with the file itself in place of its name: a page
        fetches nothing."""
        own = _file(self.source)
        assert own is not None  # it was read from there
        data = (own.parent / found[2]).read_bytes()
        return f'{found[1]}data:{mime(data)};base64,{base64.b64encode(data).decode("ascii")}"'


def find_documents() -> list[Document]:
    """The documents that are here."""
    found = []
    for source, page in PAGES.items():
        file = _file(source)
        if file is not None and file.is_file():
            markdown = file.read_text(encoding="utf-8")
            title, lead = headline(markdown, file.stem)
            about = re.split(r"(?<=[.?!])\s", lead)[0]
            found.append(Document(source, page, title, about, markdown))
    return found


def _file(source: str) -> Path | None:
    room, _, rest = source.partition("/")
    if room == "data":
        return data_folder("") / rest
    return ROOT / source if in_checkout() else None
