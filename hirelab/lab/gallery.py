"""Writes the site: notebooks, explorers, documents and the API reference as pages with one index,
for readers without Python and for any static host.

A page holds all that it shows, but for the explorers: these are pages of their own, which stand in
the notebook's page in a frame, at the place of the still. So all of it works from a disk, too.
"""

from __future__ import annotations

import base64
import html
import io
import itertools
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from PIL import Image

from .._shared.errors import HirelabError
from .._shared.files import write_atomic
from ..widgets import page as pages
from . import reference
from .documents import Document, find_documents
from .jupyter_server_config import WIDGET_VIEW
from .notebooks import code_cells, read
from .outputs import alt_text, explorer_of, explorers_of, image_kind
from .search import Entry, search_body, sections
from .site import NAME, REFERENCE, SEARCH, Site, headline, relink, with_anchors
from .try_page import ABOUT as TRY_ABOUT
from .try_page import PAGE as TRY_PAGE
from .try_page import TITLE as TRY_TITLE
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


# A figure of many panels is small on a phone: clicked, it fills the page, and more.
_LARGER = """<dialog id="larger" aria-label="Larger picture">
<form method="dialog"><button>Close</button></form>
<div><img alt=""></div>
</dialog>
<script>
const larger = document.getElementById("larger"), shown = larger.querySelector("img");
for (const button of document.querySelectorAll("button.picture"))
  button.addEventListener("click", () => {
    const image = button.querySelector("img");
    shown.src = image.src;
    shown.alt = image.alt;
    shown.style.width = Math.max(768, Math.min(innerWidth - 48, image.naturalWidth)) + "px";
    larger.showModal();
  });
larger.addEventListener("click", event => event.target === larger && larger.close());
</script>"""

# A line of a table that is text: some of its columns stand apart
_APART = re.compile(r"\S {2,}\S")


@dataclass(frozen=True)
class Card:
    """What the index says of a notebook: its page's name, title, question and thumbnail (WebP)."""

    page: str
    title: str
    question: str
    thumbnail: bytes | None


@dataclass(frozen=True)
class Explored:
    """A frozen explorer: its page's name, its title, what it shows, and the notebook it stands in,
    if any."""

    page: str
    title: str
    about: str
    home: str | None


def write_gallery(
    notebooks: Sequence[Path], folder: Path, modules: Sequence[str] = reference.MODULES
) -> Path:
    """Write the site to ``folder``, printing a line for each page; return its index's path.

    The pages need no network. An explorer stands in the first notebook that shows it, in place of
    its still; in others, a link stands below the still. What is not here (documents and pdoc,
    where hirelab was installed without its checkout; npm, which brings the runtime of the page on
    which a network runs) is left out, which a line says.

    Args:
        notebooks: the files.
        folder: is made, where it is not there.
        modules: what the API reference is about; of a package, all that is public in it.

    Raises:
        HirelabError: ``folder`` cannot be a folder.
    """
    from .frozen import frozen_explorers

    folder = _make_folder(folder)
    given = {path.stem: read(path) for path in notebooks}
    cards = {stem: card(notebook, stem) for stem, notebook in given.items()}
    frozen = frozen_explorers()
    shown = {stem: explorers_of(book) for stem, book in given.items()}
    homes = {name: stem for stem, own in reversed(shown.items()) for name in own}
    for one in frozen:
        if one.name in homes:
            with suppress(HirelabError):  # a reader's own notebook, of another network
                one.begin_as(shown[homes[one.name]][one.name])
    explored = {
        f.name: Explored(f.page, f.explorer.title, f.explorer.about(), homes.get(f.name))
        for f in frozen
    }
    documents = find_documents()
    site = Site(bool(documents), bool(modules) and reference.can_be_written())
    if missing := _missing(documents, site):
        print(missing, flush=True)

    steps = _Steps(len(frozen) + len(notebooks) + len(documents) + site.reference + 3)
    public: list[Entry] = []
    if site.reference:
        with steps(folder / REFERENCE, "with a page for each module"):
            public = reference.write_reference(folder, site, modules)
    targets = {f"notebooks/{stem}.ipynb": about.page for stem, about in cards.items()}
    targets |= {document.source: document.page for document in documents}
    targets |= reference.sources(public)
    entries: list[Entry] = []
    for one in frozen:
        about = explored[one.name]
        with steps(folder / one.page, f"{one.pictures} images"):
            path = one.write(folder)
            links = site.header() + _links(cards[about.home] if about.home else None)
            write_atomic(path, pages.with_links(path.read_text(encoding="utf-8"), links))
        entries.append(Entry(about.title, "Explorer", about.page, about.about))
    for position, path in enumerate(notebooks):
        own = cards[path.stem]
        with steps(folder / own.page):
            body = _notebook_body(path, given[path.stem], explored, targets)
            links = _neighbours(list(cards.values()), position)
            script = _MAKE_ROOM if "<iframe" in body else ""
            larger = _LARGER if 'class="picture"' in body else ""
            content = f"{script}{links}<main>{body}</main>{links}{larger}"
            write_atomic(folder / own.page, site.page(own.title, content, own.question))
        entries += sections(body, "Notebook", own.page, own.title)
    with steps(folder / TRY_PAGE, "networks that run in the browser"):
        runs = _write_try_page(folder / TRY_PAGE, site.header() + _links(None))
    if runs:
        entries.append(Entry(TRY_TITLE, "Explorer", TRY_PAGE, TRY_ABOUT))
    for document in documents:
        with steps(folder / document.page):
            body = document.render(targets)
            content = f'<main class="document">{body}</main>'
            write_atomic(folder / document.page, site.page(document.title, content, document.about))
        entries += sections(body, "Document", document.page, document.title)
    with steps(folder / SEARCH):
        page = site.page("Search", search_body([*entries, *public]))
        write_atomic(folder / SEARCH, page)
    with steps(folder / "index.html"):
        index = _index(list(cards.values()), list(explored.values()), documents, public, runs)
        write_atomic(folder / "index.html", site.page(NAME, index, _ABOUT))
    return folder / "index.html"


def _write_try_page(path: Path, nav: str) -> bool:
    """Write the page on which networks run; where that cannot be, say why, and that all else is."""
    try:
        write_try_page(path, nav=nav)
    except HirelabError as error:
        path.unlink(missing_ok=True)  # an older one, which nothing would lead to
        print(f"left out: {error} All other pages are written.", flush=True)
        return False
    return True


def _notebook_body(
    path: Path, notebook: NotebookNode, explored: Mapping[str, Explored], targets: Mapping[str, str]
) -> str:
    """A notebook as HTML, with its own explorers in frames and links that lead to pages."""
    own = {name for name, about in explored.items() if about.home == path.stem}
    body = with_anchors(_tables_apart(_render(_still(notebook, explored, own), path.parent)))
    frames = {about.page: about.page for about in explored.values()}
    return relink(body, f"notebooks/{path.name}", {**targets, **frames})


def _missing(documents: Sequence[Document], site: Site) -> str:
    """What the site is written without, and how it would have it; "" if it has everything."""
    without = []
    if not any(document.source.startswith("docs/") for document in documents):
        without.append("the documents in docs/ (they are in a clone of the repository)")
    if not site.reference:
        without.append("the API reference (`pip install 'hirelab[site]'`)")
    return f"left out: {' and '.join(without)}" if without else ""


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
    title, question = headline(text, stem)
    image = first_image(notebook)
    return Card(
        page=f"{stem}.html",
        title=title,
        question=question,
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


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HirelabError(f"cannot make the folder {folder}: {error.strerror}") from error
    return folder


# HTML --------------------------------------------------------------------------------------------


def _image_html(image: bytes, alt: str) -> str:
    width, height = Image.open(io.BytesIO(image)).size
    return (
        '<button class="picture" type="button" title="Larger picture">'
        f'<img src="{pages.data_address(image)}" alt="{html.escape(alt)}" '
        f'width="{width}" height="{height}"></button>'
    )


def _tables_apart(body: str) -> str:
    """The tables in the texts that cells print, in boxes of their own: they scroll, where other
    lines wrap."""

    def parted(match: re.Match[str]) -> str:
        runs = itertools.groupby(match["text"].splitlines(), lambda line: bool(_APART.search(line)))
        texts = (("\n".join(lines), table) for table, lines in runs)
        return match["before"] + "".join(
            f'<span class="table" tabindex="0">{text}</span>' if table else f"<span>{text}</span>"
            for text, table in texts
        )

    printed = r'(?P<before><div class="[^"]*\boutput_text\b[^"]*">\s*<pre>)(?P<text>.*?)(?=</pre>)'
    return re.sub(printed, parted, body, flags=re.DOTALL)


def _frame_html(about: Explored) -> str:
    title = html.escape(about.title)
    frame = f'<iframe src="{about.page}" title="{title}, with controls" loading="lazy"></iframe>'
    return f'{frame}<p class="more"><a href="{about.page}">{title}, on a page of its own</a></p>'


def _link_html(about: Explored) -> str:
    return f'<p class="more"><a href="{about.page}">Move it: {html.escape(about.title)}</a></p>'


_INDEX_LINK = '<a class="index" href="index.html#notebooks">All notebooks</a>'


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
_ABOUT = (
    "A microscope for Hire-MLP, a vision network that mixes space by rearranging tokens: notebooks "
    "with one question each, explorers with controls that move, and the library behind them."
)


def _index(
    cards: Sequence[Card],
    explored: Sequence[Explored],
    documents: Sequence[Document],
    public: Sequence[Entry],
    runs: bool,
) -> str:
    """A section for each kind of page. What is listed is a page's address, title and text."""
    shown = "\n".join(
        _card_html(card, [e for e in explored if e.home == Path(card.page).stem]) for card in cards
    )
    rooms = [e for e in public if e.kind == "Module" and e.title.count(".") < 2]
    lists = {
        "Explorers": [(TRY_PAGE, TRY_TITLE, TRY_ABOUT)] * runs
        + [(e.page, e.title, e.about) for e in explored],
        "Documents": [(d.page, d.title, d.about) for d in documents],
        "API": [(REFERENCE, "All modules", "")] * bool(rooms)
        + [(e.address, e.title, e.text) for e in rooms],
    }
    sections = "\n".join(_list_html(title, rows) for title, rows in lists.items() if rows)
    return f"""<div class="intro">
<h1>hirelab</h1>
<p>A microscope for Hire-MLP, a vision network that mixes space by rearranging tokens. Each notebook
has one question, as its author last ran it; its explorers have controls that move here, without
Python.</p>
{_TRY if runs else ""}</div>
<main>
<h2 id="notebooks">Notebooks</h2>
<div class="cards">
{shown}
</div>
{sections}
</main>"""


def _list_html(title: str, rows: Sequence[tuple[str, str, str]]) -> str:
    items = "\n".join(
        f'<li><a href="{page}">{html.escape(name)}</a> <span>{html.escape(words)}</span></li>'
        for page, name, words in rows
    )
    return f'<h2 id="{title.lower()}">{title}</h2>\n<ul class="list">\n{items}\n</ul>'


def _card_html(card: Card, explored: Sequence[Explored] = ()) -> str:
    image = ""
    if card.thumbnail:
        image = f'<img src="{pages.data_address(card.thumbnail)}" alt="">'
    number = re.match(r"\d+", card.page)
    before = f'<span class="number">{number[0]}</span> ' if number else ""
    title = f'<h3>{before}<a href="{card.page}">{html.escape(card.title)}</a></h3>'
    words = f"{title}<p>{html.escape(card.question)}</p>"
    return f'<article class="card">{image}{words}{_moves(explored)}</article>'


def _moves(explored: Sequence[Explored]) -> str:
    """Links to explorers, as a list."""
    items = "".join(
        f'<li><a href="{about.page}">{html.escape(about.title)}</a></li>' for about in explored
    )
    return f'<ul class="moves" aria-label="Explorers">{items}</ul>' if explored else ""
