"""Runs the notebooks, and turns them into pages for readers without Python.

`hirelab notebooks` runs each notebook from top to bottom and stores its outputs, normalised so
that a second run changes no byte. `hirelab gallery` writes pages that hold everything they show.
"""

from __future__ import annotations

import base64
import html
import io
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from hirelab._shared.files import pick, write_atomic

from .._shared.errors import HirelabError

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
CELL_SECONDS = 600  # no cell should need this long; it ends a notebook that hangs
THUMBNAIL_WIDTH = 360


def find(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """Return the notebooks in ``folder``, sorted, or those ``names`` in the order given.

    Raises:
        HirelabError: there are none, or a name is not there (the message suggests near ones).
    """
    found = sorted(folder.glob("*.ipynb"))
    if not found:
        raise HirelabError(f"there is no notebook in {folder}")
    return pick(found, names, "notebook")


def read(path: Path) -> NotebookNode:
    """Read a notebook.

    Raises:
        HirelabError: the file is not a notebook.
    """
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, nbformat.ValidationError) as error:
        raise HirelabError(f"{path} is not a notebook: {_first_line(error)}") from error


# Running -----------------------------------------------------------------------------------------


def run_notebooks(paths: Sequence[Path]) -> None:
    """Run every notebook and store its outputs, printing a line for each.

    Raises:
        HirelabError: a cell failed; that notebook stays as it was, as do those after it.
    """
    for number, path in enumerate(paths, start=1):
        print(f"[{number}/{len(paths)}] {path.name} ...", end=" ", flush=True)
        started = time.perf_counter()
        run_notebook(path)
        seconds = time.perf_counter() - started
        print(f"{seconds:.1f} s, {path.stat().st_size / 1000:.0f} KB", flush=True)


def run_notebook(path: Path) -> None:
    """Run one notebook in its own folder and write it back with its outputs, whole or not at all.

    Raises:
        HirelabError: a cell failed, hung or killed its kernel; the file is as it was.
    """
    notebook = read(path)
    _execute(notebook, path)
    normalise(notebook, path.stem)
    nbformat.validate(notebook)
    write_atomic(path, nbformat.writes(notebook) + "\n")


def _execute(notebook: NotebookNode, path: Path) -> None:
    """Run the cells in a fresh kernel of this Python, putting their outputs into ``notebook``."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        store_widget_state=False,  # code hosts refuse notebooks that carry it
        record_timing=False,
        coalesce_streams=True,  # where a stream is cut into pieces is chance
    )
    try:
        client.execute(env=_kernel_environment())
    except CellExecutionError as error:
        cell = next(n for n, cell in enumerate(_code_cells(notebook), 1) if _errors(cell))
        said = f"{path.name}: code cell {cell} raised {error.ename}: {_first_line(error.evalue)}"
        raise HirelabError(f"{said}; the file was left as it was\n{_traceback(error)}") from error
    except (CellTimeoutError, DeadKernelError) as error:
        said = f"{path.name}: {_first_line(error)}"
        raise HirelabError(f"{said}; the file was left as it was") from error


def _kernel_environment() -> dict[str, str]:
    """One thread, so that sums come out the same on every machine, and the notebook's own plots."""
    inherited = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return {**inherited, "OMP_NUM_THREADS": "1"}


def normalise(notebook: NotebookNode, stem: str) -> None:
    """Remove from ``notebook``, in place, what differs between two runs or two machines.

    An image that stands in for a widget stays and the reference to the widget goes: without a
    kernel there is no such widget, and JupyterLab would say so instead of showing the image.
    """
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = NotebookNode(
        kernelspec=NotebookNode(display_name="Python 3", language="python", name="python3"),
        language_info=NotebookNode(name="python"),
    )
    prefix = re.sub(r"[^\w-]", "-", stem, flags=re.ASCII)[:50]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{prefix}-{number:02d}"
        tags = cell.metadata.get("tags")
        cell.metadata = NotebookNode(tags=tags) if tags else NotebookNode()
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data.pop(WIDGET_VIEW, None)


def _code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _errors(cell: NotebookNode) -> bool:
    """Whether the cell ended in an error that it was not meant to show."""
    meant = "raises-exception" in cell.metadata.get("tags", [])
    return not meant and any(output.output_type == "error" for output in cell.outputs)


def _traceback(error: Exception) -> str:
    """The traceback as the kernel printed it, without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", getattr(error, "traceback", "")).strip()


def _first_line(text: object) -> str:
    return (str(text).strip().splitlines() or [""])[0]


# Gallery -----------------------------------------------------------------------------------------


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
        HirelabError: a page would have to fetch something, or ``folder`` cannot be a folder.
    """
    folder = _make_folder(folder)
    read_notebooks = {path: read(path) for path in notebooks}
    cards = [card(notebook, path.stem) for path, notebook in read_notebooks.items()]
    for position, (path, notebook) in enumerate(read_notebooks.items()):
        body = _relink(_render(notebook, path.parent), {path.stem for path in notebooks})
        links = _neighbours(cards, position)
        page = _page(cards[position].title, f"{links}<main>{body}</main>{links}")
        _write_page(folder / cards[position].page, page)
    frozen = _frozen_pages(folder)
    _write_page(folder / "index.html", _index(cards, frozen))
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
    cells = _code_cells(notebook)
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
    for cell in _code_cells(copy):
        for output in cell.outputs:
            data = output.get("data", {})
            data.pop(WIDGET_VIEW, None)
            data.pop("application/javascript", None)
            if "image/png" in data:
                text = _first_line(data.get("text/plain", ""))
                alt = "figure" if text.startswith("<") else text or "figure"
                output.metadata.setdefault("image/png", NotebookNode()).setdefault("alt", alt)
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


def _frozen_pages(folder: Path) -> list[tuple[str, str]]:
    """Write the explorers that work without a kernel to ``folder``; return titles and names."""
    from .frozen import frozen_pages

    pages = frozen_pages(folder)
    for _, name in pages:
        _check(folder / name, (folder / name).read_text(encoding="utf-8"))
    return pages


def _write_page(path: Path, page: str) -> None:
    _check(path, page)
    write_atomic(path, page)


def _check(path: Path, page: str) -> None:
    if fetched := external_resources(page):
        raise HirelabError(f"{path.name} would not work offline, because it fetches {fetched[0]}")


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HirelabError(f"cannot make the folder {folder}: {error.strerror}") from error
    return folder


# HTML --------------------------------------------------------------------------------------------


def external_resources(page: str) -> list[str]:
    """Return what a browser would fetch to show ``page``: scripts, styles, fonts, images.

    Only `data:` addresses are inside the page. Links that a reader may follow do not count.
    """
    finder = _ResourceFinder()
    finder.feed(page)
    finder.close()
    return finder.found


class _ResourceFinder(HTMLParser):
    _FETCHED = ("src", "srcset", "poster", "data", "href", "xlink:href", "background")
    _INSIDE = ("data:", "blob:", "about:", "#")
    _CSS = re.compile(r"""(?:url\(\s*|@import\s+)["']?(?!data:|#|["'])([^"')\s]+)""")
    _SCRIPT = re.compile(
        r"""(?:src\s*=|\bimport\b|\bfetch\b)[^;\n]{0,40}?["'`]((?:https?:)?//[^"'`]+)"""
    )

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        for name, value in attrs:
            if name == "style":
                self.found += self._CSS.findall(value or "")
            elif name in self._FETCHED and tag not in ("a", "area") and value:
                self.found += [] if value.startswith(self._INSIDE) else [value]

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.found += self._CSS.findall(data)
        elif self._inside == "script":
            self.found += self._SCRIPT.findall(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = None


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
