"""Turns the notebooks into pages for readers without Python: one folder for any static host.

A page holds all that it shows, but for the explorers: these are pages of their own, which stand in
the notebook's page in a frame, at the place of the still.
"""

from __future__ import annotations

import base64
import html
import io
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from PIL import Image

from .._shared.errors import HirelabError
from .._shared.files import write_atomic
from ..widgets import page as pages
from .jupyter_server_config import WIDGET_VIEW
from .notebooks import code_cells, read
from .outputs import alt_text, explorer_of, image_kind
from .try_page import PAGE as TRY_PAGE
from .try_page import write_try_page

THUMBNAIL_WIDTH = 360

# The cells alone (other templates fetch their styles); what answers a guess is folded
_TEMPLATE = """
{%- extends 'basic/index.html.j2' -%}
{%- block output_group -%}
{%- if 'answer' in cell.metadata.get('tags', []) -%}
<details class="answer"><summary>Show the answer</summary>{{ super() }}</details>
{%- else -%}{{ super() }}{%- endif -%}
{%- endblock output_group -%}
"""

# Where images are embedded, nbconvert repairs every piece of HTML by itself, and would close a
# folded answer before its text: it goes through as paragraphs of characters that no notebook has.
_FOLD = re.compile(r"<details><summary>(.*?)</summary>")
_OPEN, _CLOSED, _END = "\ue000", "\ue001", "\ue002"

# A frozen explorer says how high it is, also where it may not be asked: opened from a disk.
_MAKE_ROOM = """<script>
addEventListener("message", event => {
  const height = Number(event.data && event.data.explorerHeight);
  for (const frame of document.querySelectorAll("iframe"))
    if (frame.contentWindow === event.source && height > 0) frame.style.height = height + "px";
});
</script>"""


@dataclass(frozen=True)
class Card:
    """What the index says of a notebook: its page's name, title, question and thumbnail (WebP)."""

    page: str
    title: str
    question: str
    thumbnail: bytes | None


@dataclass(frozen=True)
class Explored:
    """A frozen explorer: its page's name, its title, and the notebook it stands in, if any."""

    page: str
    title: str
    home: str | None


def write_gallery(notebooks: Sequence[Path], folder: Path) -> Path:
    """Write a page for every notebook and every explorer, one on which a network runs, and an
    index, to ``folder``, printing a line for each; return the index's path.

    The pages need no network. An explorer stands in the first notebook that shows it, in place of
    its still; in others, a link stands below the still.

    Raises:
        HirelabError: ``folder`` cannot be a folder.
    """
    from .frozen import frozen_explorers

    folder = _make_folder(folder)
    given = {path.stem: read(path) for path in notebooks}
    cards = {stem: card(notebook, stem) for stem, notebook in given.items()}
    frozen = frozen_explorers()
    homes = {name: stem for stem, book in reversed(given.items()) for name in _explorers(book)}
    explored = {f.name: Explored(f.page, f.explorer.title, homes.get(f.name)) for f in frozen}

    steps = _Steps(len(frozen) + len(notebooks) + 2)
    for one in frozen:
        home = explored[one.name].home
        with steps(folder / one.page, f"{one.pictures} images"):
            path = one.write(folder)
            links = _links(cards[home] if home else None)
            write_atomic(path, pages.with_links(path.read_text(encoding="utf-8"), links))
    for position, path in enumerate(notebooks):
        with steps(folder / f"{path.stem}.html"):
            own = {name: about for name, about in explored.items() if about.home == path.stem}
            body = _render(_still(given[path.stem], explored, set(own)), path.parent)
            body = _relink(body, set(given), {about.page for about in explored.values()})
            links = _neighbours(list(cards.values()), position)
            script = _MAKE_ROOM if own else ""
            page = _page(cards[path.stem].title, f"{script}{links}<main>{body}</main>{links}")
            write_atomic(folder / f"{path.stem}.html", page)
    with steps(folder / TRY_PAGE, "networks that run in the browser"):
        runs = _write_try_page(folder / TRY_PAGE)
    with steps(folder / "index.html"):
        index = _index(list(cards.values()), list(explored.values()), runs)
        write_atomic(folder / "index.html", index)
    return folder / "index.html"


def _write_try_page(path: Path) -> bool:
    """Write the page on which networks run; where that cannot be, say why, and that all else is."""
    try:
        write_try_page(path, nav=_links(None))
    except HirelabError as error:
        path.unlink(missing_ok=True)  # an older one, which nothing would lead to
        print(f"left out: {error} All other pages are written.", flush=True)
        return False
    return True


class _Steps:
    """Prints a line for each page: ``[3/19] shift.html, 72 images ... 8.1 s, 3.3 MB``."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0

    @contextmanager
    def __call__(self, path: Path, what: str = "") -> Iterator[None]:
        self._done += 1
        words = ", ".join(filter(None, (path.name, what)))
        print(f"[{self._done}/{self._total}] {words} ...", end=" ", flush=True)
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        if path.exists():  # a page that cannot be made has said so
            print(f"{seconds:.1f} s, {path.stat().st_size / 1e6:.1f} MB", flush=True)


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
        thumbnail=None if image is None else pages.webp(_small(image)),
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
            kind = image_kind(output)
            if kind:
                yield base64.b64decode(output.data[kind])


def thumbnail(data: bytes, width: int = THUMBNAIL_WIDTH) -> bytes:
    """Return ``data`` as a PNG of ``width`` pixels, on white, in 256 colours."""
    file = io.BytesIO()
    _small(data, width).quantize(256).save(file, format="PNG", optimize=True)
    return file.getvalue()


def _small(data: bytes, width: int = THUMBNAIL_WIDTH) -> Image.Image:
    """The image of some bytes, ``width`` pixels wide, on white."""
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    paper = Image.new("RGBA", image.size, "white")
    flat = Image.alpha_composite(paper, image).convert("RGB")
    height = max(1, round(flat.height * width / flat.width))
    return flat.resize((width, height), Image.Resampling.LANCZOS)


def _render(notebook: NotebookNode, folder: Path) -> str:
    """The notebook's cells as HTML, without a page around them."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        raw_template=_TEMPLATE,
        embed_images=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    copy = nbformat.from_dict(notebook)
    for cell in copy.cells:
        if cell.cell_type == "markdown":
            cell.source = _FOLD.sub(rf"{_OPEN}\1{_CLOSED}", cell.source.replace("</details>", _END))
    body, _ = exporter.from_notebook_node(copy, resources={"metadata": {"path": str(folder)}})
    opened = r'<details class="answer"><summary>\1</summary>'
    body = re.sub(f"<p>{_OPEN}(.*?){_CLOSED}</p>", opened, body)
    return body.replace(f"<p>{_END}</p>", "</details>")


def _still(
    notebook: NotebookNode, explored: Mapping[str, Explored], here: Collection[str]
) -> NotebookNode:
    """A copy that shows only what needs no kernel: images named by their text, and of the explorers
    ``here`` the frozen page in place of the first still."""
    copy = nbformat.from_dict(notebook)
    waiting = set(here)
    for cell in code_cells(copy):
        for output in cell.outputs:
            data = output.get("data", {})
            data.pop(WIDGET_VIEW, None)
            data.pop("application/javascript", None)
            kind = image_kind(output)
            if kind is None or "text/html" in data:
                continue
            name = explorer_of(output)
            about = explored.get(name)
            if about and name in waiting:
                waiting.remove(name)
                shown = _frame_html(about)
            else:
                shown = _image_html(base64.b64decode(data[kind]), alt_text(output))
                shown += _link_html(about) if about else ""
            output.data = NotebookNode({"text/html": shown})
    return copy


def _explorers(notebook: NotebookNode) -> list[str]:
    """The classes of explorers that a notebook shows."""
    outputs = (output for cell in code_cells(notebook) for output in cell.outputs)
    return [name for name in map(explorer_of, outputs) if name]


def _relink(body: str, stems: Collection[str], kept: Collection[str] = ()) -> str:
    """Point links to notebooks at their pages; keep the words of links that lead to other files,
    and links to the pages ``kept`` as they are."""

    def link(match: re.Match[str]) -> str:
        address, words = match["address"], match["words"]
        target = Path(address)
        if re.match(r"[a-z]+:", address) or address in kept:  # https:, mailto:
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
    return pages.html_page(title, style, body)


def _image_html(image: bytes, alt: str) -> str:
    width, height = Image.open(io.BytesIO(image)).size
    return (
        f'<img src="{pages.data_address(image)}" alt="{html.escape(alt)}" '
        f'width="{width}" height="{height}">'
    )


def _frame_html(about: Explored) -> str:
    title = html.escape(about.title)
    frame = f'<iframe src="{about.page}" title="{title}, with controls" loading="lazy"></iframe>'
    return f'{frame}<p class="more"><a href="{about.page}">{title}, on a page of its own</a></p>'


def _link_html(about: Explored) -> str:
    return f'<p class="more"><a href="{about.page}">Move it: {html.escape(about.title)}</a></p>'


_INDEX_LINK = '<a class="index" href="index.html">All notebooks</a>'


def _neighbours(cards: Sequence[Card], position: int) -> str:
    """Links to the notebook before, the index and the notebook after."""
    before = _nav_link(cards[position - 1], "prev") if position else "<span></span>"
    after = _nav_link(cards[position + 1], "next") if position + 1 < len(cards) else "<span></span>"
    return f'<nav aria-label="Notebooks">{before}{_INDEX_LINK}{after}</nav>\n'


def _links(home: Card | None) -> str:
    """Links of an explorer's page: to its notebook and to the index."""
    back = _nav_link(home, "prev") if home else "<span></span>"
    return f'<nav aria-label="Notebooks">{back}{_INDEX_LINK}</nav>\n'


def _nav_link(card: Card, way: str) -> str:
    """A link with an arrow and what stands before the colon of a title."""
    title = f"<span>{html.escape(card.title.partition(':')[0])}</span>"
    words = f"\u2190 {title}" if way == "prev" else f"{title} \u2192"
    return f'<a rel="{way}" href="{card.page}">{words}</a>'


_TRY = f'''<p><a href="{TRY_PAGE}">Run a network in your browser</a>: on your own image, which
stays on your machine, with a rearrangement that you move.</p>
'''


def _index(cards: Sequence[Card], explored: Sequence[Explored], runs: bool = False) -> str:
    shown = "\n".join(
        _card_html(card, [e for e in explored if e.home == Path(card.page).stem]) for card in cards
    )
    body = f"""<header>
<h1>hirelab</h1>
<p>A microscope for Hire-MLP, a vision network that mixes space by rearranging tokens. Each page
is a notebook with one question, as its author last ran it; its explorers have controls that move
here, without Python.</p>
{_TRY if runs else ""}</header>
<main class="cards">
{shown}
</main>"""
    homeless = [about for about in explored if about.home is None]
    if homeless:
        body += f"\n<section>\n<h2>More explorers</h2>\n{_moves(homeless)}\n</section>"
    return _page("hirelab: the notebooks", body)


def _card_html(card: Card, explored: Sequence[Explored] = ()) -> str:
    image = ""
    if card.thumbnail:
        image = f'<img src="{pages.data_address(card.thumbnail)}" alt="">'
    number = re.match(r"\d+", card.page)
    before = f'<span class="number">{number[0]}</span> ' if number else ""
    title = f'<h2>{before}<a href="{card.page}">{html.escape(card.title)}</a></h2>'
    words = f"{title}<p>{html.escape(card.question)}</p>"
    return f'<article class="card">{image}{words}{_moves(explored)}</article>'


def _moves(explored: Sequence[Explored]) -> str:
    """Links to explorers, as a list."""
    items = "".join(
        f'<li><a href="{about.page}">{html.escape(about.title)}</a></li>' for about in explored
    )
    return f'<ul class="moves" aria-label="Explorers">{items}</ul>' if explored else ""
