"""Turns the notebooks into pages for readers without Python: every page holds all that it shows."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from .._shared.errors import HirelabError
from .._shared.files import write_atomic
from .notebooks import WIDGET_VIEW, code_cells, first_line, read

THUMBNAIL_WIDTH = 360


@dataclass(frozen=True)
class Card:
    """What the index says of a notebook: its page's name, title, question and thumbnail (PNG)."""

    page: str
    title: str
    question: str
    thumbnail: bytes | None


def write_gallery(notebooks: Sequence[Path], folder: Path) -> Path:
    """Write a page for every notebook, and an index, to ``folder``; return the index's path.

    The pages hold their images and styles themselves and need no network. Explorers that can be
    frozen are written beside them, as pages whose sliders still work.

    Raises:
        HirelabError: ``folder`` cannot be a folder.
    """
    folder = _make_folder(folder)
    read_notebooks = {path: read(path) for path in notebooks}
    cards = [card(notebook, path.stem) for path, notebook in read_notebooks.items()]
    for position, (path, notebook) in enumerate(read_notebooks.items()):
        body = _relink(_render(notebook, path.parent), {path.stem for path in notebooks})
        links = _neighbours(cards, position)
        page = _page(cards[position].title, f"{links}<main>{body}</main>{links}")
        write_atomic(folder / cards[position].page, page)
    from .frozen import frozen_pages

    write_atomic(folder / "index.html", _index(cards, frozen_pages(folder)))
    return folder / "index.html"


def write_thumbnails(notebooks: Sequence[Path], folder: Path) -> list[Path]:
    """Write ``NAME.png`` to ``folder`` for every notebook with an image; return their paths."""
    folder = _make_folder(folder)
    written = []
    for path in notebooks:
        image = first_image(read(path))
        if image is not None:
            written.append(folder / f"{path.stem}.png")
            write_atomic(written[-1], thumbnail(image))
    return written


def card(notebook: NotebookNode, stem: str) -> Card:
    """Describe a notebook by its first heading, the paragraph after it, and its image."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    title, rest = stem, text
    if heading := re.search(r"^#+ .+$", text, flags=re.MULTILINE):
        title, rest = heading[0], text[heading.end() :]
    blocks = (block.strip() for block in re.split(r"\n\s*\n", rest))
    paragraphs = (block for block in blocks if re.match(r"[^#<!|`\s]", block))
    image = first_image(notebook)
    return Card(
        page=f"{stem}.html",
        title=_plain(title),
        question=_plain(next(paragraphs, "")),
        thumbnail=None if image is None else thumbnail(image),
    )


def first_image(notebook: NotebookNode) -> bytes | None:
    """Return the image (PNG, JPEG or GIF bytes) that a notebook is known by, if it has one.

    That is the first image of the cell tagged ``thumbnail``, or else the first of all.
    """
    cells = code_cells(notebook)
    tagged = [cell for cell in cells if "thumbnail" in cell.metadata.get("tags", [])]
    return next(_images([*tagged, *cells]), None)


def _images(cells: Iterable[NotebookNode]) -> Iterator[bytes]:
    for cell in cells:
        for output in cell.outputs:
            for kind in ("image/png", "image/jpeg"):
                if kind in output.get("data", {}):
                    yield base64.b64decode(output.data[kind])


def thumbnail(data: bytes, width: int = THUMBNAIL_WIDTH) -> bytes:
    """Return ``data`` as a PNG of ``width`` pixels, on white, in 256 colours."""
    from PIL import Image

    image = Image.open(io.BytesIO(data)).convert("RGBA")
    paper = Image.new("RGBA", image.size, "white")
    flat = Image.alpha_composite(paper, image).convert("RGB")
    height = max(1, round(flat.height * width / flat.width))
    small = flat.resize((width, height), Image.Resampling.LANCZOS).quantize(256)
    file = io.BytesIO()
    small.save(file, format="PNG", optimize=True)
    return file.getvalue()


def _render(notebook: NotebookNode, folder: Path) -> str:
    """The notebook's cells as HTML, without a page around them."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="basic",  # the cells alone; the other templates fetch their styles
        embed_images=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    body, _ = exporter.from_notebook_node(
        _still(notebook), resources={"metadata": {"path": str(folder)}}
    )
    return body


def _still(notebook: NotebookNode) -> NotebookNode:
    """A copy that shows only what needs no script, its images named by their text."""
    copy = nbformat.from_dict(notebook)
    for cell in code_cells(copy):
        for output in cell.outputs:
            data = output.get("data", {})
            data.pop(WIDGET_VIEW, None)
            data.pop("application/javascript", None)
            for kind in (kind for kind in data if kind.startswith("image/")):
                text = first_line(data.get("text/plain", ""))
                alt = "figure" if text.startswith("<") else text or "figure"
                output.metadata.setdefault(kind, NotebookNode()).setdefault("alt", alt)
    return copy


def _relink(body: str, stems: Collection[str]) -> str:
    """Point links to notebooks at their pages; keep the words of links that lead to other files."""

    def link(match: re.Match[str]) -> str:
        address, words = match["address"], match["words"]
        target = Path(address)
        if re.match(r"[a-z]+:", address):  # https:, mailto:
            return match[0]
        if target.suffix == ".ipynb" and target.stem in stems and len(target.parts) == 1:
            return f'<a href="{target.stem}.html{match["anchor"]}">{words}</a>'
        return words

    pattern = r'<a href="(?P<address>[^"#]+)(?P<anchor>#[^"]*|)"[^>]*>(?P<words>.*?)</a>'
    return re.sub(pattern, link, body, flags=re.DOTALL)


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HirelabError(f"cannot make the folder {folder}: {error.strerror}") from error
    return folder


# HTML --------------------------------------------------------------------------------------------


def _plain(markdown: str) -> str:
    """Markdown as plain text."""
    from nbconvert.filters import markdown2html

    text = re.sub(r"<[^>]+>", "", markdown2html(markdown))
    return " ".join(html.unescape(text).replace("¶", "").split())


def _page(title: str, body: str) -> str:
    style = (Path(__file__).parent / "gallery.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def _neighbours(cards: Sequence[Card], position: int) -> str:
    """Links to the notebook before, the index and the notebook after."""

    def link(index: int, words: str) -> str:
        if not 0 <= index < len(cards):
            return "<span></span>"
        return f'<a href="{cards[index].page}">{words.format(html.escape(cards[index].title))}</a>'

    before, after = link(position - 1, "← {}"), link(position + 1, "{} →")
    return f'<nav>{before}<a href="index.html">All notebooks</a>{after}</nav>\n'


def _index(cards: Sequence[Card], frozen: Sequence[tuple[str, str]]) -> str:
    shown = "\n".join(map(_card_html, cards))
    body = f"""<header>
<h1>hirelab</h1>
<p>A microscope for Hire-MLP, a vision network that mixes space by rearranging tokens. Each page
is a notebook with one question, as its author last ran it.</p>
</header>
<section class="cards">
{shown}
</section>"""
    if frozen:
        links = "\n".join(
            f'<li><a href="{html.escape(name)}">{html.escape(title)}</a></li>'
            for title, name in frozen
        )
        body += f"\n<section>\n<h2>Move the sliders without a kernel</h2>\n<ul>\n{links}\n</ul>\n"
        body += "</section>"
    return _page("hirelab: the notebooks", body)


def _card_html(card: Card) -> str:
    image = ""
    if card.thumbnail:
        data = base64.b64encode(card.thumbnail).decode()
        image = f'<img src="data:image/png;base64,{data}" alt="">'
    words = f"<h2>{html.escape(card.title)}</h2><p>{html.escape(card.question)}</p>"
    return f'<a class="card" href="{card.page}">{image}{words}</a>'
