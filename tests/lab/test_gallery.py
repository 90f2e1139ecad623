"""Pages for readers without Python: reproducible, and in need of no network.

How they belong together is in `test_site.py`; what only a browser can tell is in
`tests/browser/test_gallery.py`.
"""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

import hirelab as hl
from hirelab import cli
from hirelab.lab import reference
from hirelab.lab.documents import find_documents
from hirelab.lab.frozen import Frozen
from hirelab.lab.gallery import _card_html, card, thumbnail
from hirelab.lab.gallery import write_gallery as write_site
from hirelab.lab.jupyter_server_config import WIDGET_VIEW
from hirelab.lab.outputs import LONGEST, alt_text
from hirelab.lab.try_page import write_try_page
from hirelab.widgets.page import webp

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def png(color: str = "red", size: tuple[int, int] = (40, 20)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, format="PNG")
    return file.getvalue()


def image_output(color: str, text: str, kind: str = "image/png"):
    data = {kind: base64.b64encode(png(color)).decode(), "text/plain": text}
    return new_output("display_data", data)


def image_cell(color: str, text: str = "", **metadata):
    outputs = [image_output(color, text or f"all {color}")]
    return new_code_cell("show()", outputs=outputs, metadata=metadata)


def store(path, *cells):
    nbformat.write(new_notebook(cells=list(cells)), path)
    return path


def external_resources(page: str) -> list[str]:
    """Return what a browser would fetch to show ``page``: scripts, styles, fonts, images.

    Only `data:` addresses are inside the page. Links that a reader may follow do not count, nor
    does a frame of another page of the same folder.
    """
    finder = ResourceFinder()
    finder.feed(page)
    finder.close()
    return finder.found


class ResourceFinder(HTMLParser):
    """Collects the addresses that a page fetches, in tags, styles and scripts."""

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
                ours = tag == "iframe" and re.fullmatch(r"\w+\.html", value)
                self.found += [] if ours or value.startswith(self._INSIDE) else [value]

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.found += self._CSS.findall(data)
        elif self._inside == "script":
            self.found += self._SCRIPT.findall(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = None


class Page(HTMLParser):
    """Where a page's links and frames lead, the sources and texts of its images, the controls by
    their labels, and which outputs are folded."""

    def __init__(self, path):
        super().__init__()
        self.links, self.frames, self.images, self.folded = [], [], [], []
        self.controls, self.labels = {}, {}
        self._label, self._fold = "", False
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "a":
            self.links.append(attributes["href"])
        elif tag == "iframe":
            self.frames.append(attributes["src"])
        elif tag == "img" and "src" in attributes:
            self.images.append((attributes["src"], attributes.get("alt")))
        elif tag in ("input", "select") and "id" in attributes:
            self.controls[attributes["id"]] = attributes.get("type", tag)
        elif tag == "label":
            self._label = attributes["for"]
        elif tag == "details":
            self._fold = True

    def handle_endtag(self, tag):
        self._label = "" if tag == "label" else self._label
        self._fold = self._fold and tag != "details"

    def handle_data(self, data):
        if self._label:
            self.labels[self._label] = data
        if self._fold:
            self.folded.append(data.strip())


def own_links(path):
    """The links of a page below the header that all pages have."""
    header = path.read_text().partition("</header>")[0].count("<a ")
    return Page(path).links[header:]


SHIFT = "ShiftExplorer(shift=2, region=3, direction='height', restore=False)"


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    Image.new("RGB", (4, 4)).save(folder / "local.png")
    first = (
        "# 1. What is a *region* & why?\n\nDoes a [token](https://example.org)\nmove?\n\n"
        "![here](local.png) See [the next](01_b.ipynb#top) and [the code](../hirelab/cli.py)."
    )
    answer = {"tags": ["answer"]}
    widget = {WIDGET_VIEW: {"model_id": "gone"}, "text/plain": "IntSlider(value=3)"}
    return [
        store(
            folder / "00_a.ipynb",
            new_markdown_cell(first),
            image_cell("red"),
            image_cell("blue", tags=["thumbnail"]),
            new_code_cell("slider", outputs=[new_output("display_data", widget)]),
        ),
        store(
            folder / "01_b.ipynb",
            new_markdown_cell("# Second < two"),
            new_code_cell("x", outputs=[new_output("stream", text="yes")], metadata=answer),
        ),
        store(
            folder / "02_c.ipynb",
            new_markdown_cell("# Third"),
            image_cell("green", SHIFT),
            image_cell("gray", SHIFT),
        ),
        store(folder / "03_d.ipynb", new_markdown_cell("# Fourth"), image_cell("blue", SHIFT)),
    ]


@pytest.fixture(scope="module", autouse=True)
def few_frozen_pages():
    """Two small pages in place of the frozen explorers, which take a while to draw."""
    frozen = [
        Frozen("shift.html", hl.ShiftExplorer(), {"shift": (1, 2), "restore": (True, False)}),
        Frozen("cost.html", hl.CostExplorer(), {"region": (3, 4)}),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hirelab.lab.frozen.frozen_explorers", lambda: frozen)
        patch.setattr("hirelab.lab.gallery.write_try_page", small_try_page)
        yield


def small_try_page(path, nav):
    """In place of the page on which networks run, whose export takes half a minute."""
    path.write_text(f"<body>\n{nav}</body>")


def write_gallery(notebooks, folder):
    """Without the API reference, which takes its time and has tests of its own."""
    return write_site(notebooks, folder, modules=())


@pytest.fixture(scope="module")
def gallery(notebooks, few_frozen_pages, tmp_path_factory):
    return write_gallery(notebooks, tmp_path_factory.mktemp("out") / "new" / "gallery").parent


def test_every_page_shows_itself_without_a_network(gallery):
    pages = sorted(gallery.glob("*.html"))
    assert {"00_a.html", "01_b.html", "02_c.html", "index.html"} <= {page.name for page in pages}
    for page in pages:
        assert external_resources(page.read_text()) == []
        assert all(source.startswith("data:image/") for source, _ in Page(page).images)


def test_pages_lead_to_their_neighbours(gallery):
    links = set(own_links(gallery / "01_b.html"))
    assert links == {"00_a.html", "index.html#notebooks", "02_c.html"}
    assert "02_c.html" not in Page(gallery / "00_a.html").links


def test_an_explorer_stands_in_the_first_notebook_that_shows_it_and_leads_back(gallery):
    home, later = Page(gallery / "02_c.html"), Page(gallery / "03_d.html")
    assert (home.frames, later.frames) == (["shift.html"], [])
    assert len(home.images) == 1  # of two stills, the second
    assert len(later.images) == 1
    assert home.links.count("shift.html") == 2
    assert later.links.count("shift.html") == 1
    assert set(own_links(gallery / "shift.html")) == {"02_c.html", "index.html#notebooks"}
    assert own_links(gallery / "cost.html") == ["index.html#notebooks"]  # no notebook shows it
    index = own_links(gallery / "index.html")
    assert index[index.index("02_c.html") + 1] == "shift.html"
    assert index.index("cost.html") > index.index("03_d.html")


def test_every_frozen_control_has_a_label_and_is_what_it_controls(gallery):
    page = Page(gallery / "shift.html")
    assert page.labels.keys() == page.controls.keys()
    controls = {page.labels[name].strip(): kind for name, kind in page.controls.items()}
    assert controls == {"shift": "range", "restore": "checkbox"}


def test_answers_are_folded(gallery):
    assert "yes" in Page(gallery / "01_b.html").folded
    assert Page(gallery / "00_a.html").folded == []


def test_links_to_notebooks_lead_to_pages_and_links_to_code_to_nothing(gallery):
    text = (gallery / "00_a.html").read_text()
    assert '<a href="01_b.html#top">the next</a> and the code.' in text


def test_pages_show_images_and_text_but_no_dead_widget(gallery):
    text = (gallery / "00_a.html").read_text()
    assert "IntSlider(value=3)" in text
    assert "widget-view" not in text
    assert "all red" in [alt for _, alt in Page(gallery / "00_a.html").images]


def test_a_page_with_pictures_can_show_them_larger(gallery):
    parts = ('<button class="picture"', '<dialog id="larger"')
    for name, pictures in (("00_a.html", 2), ("01_b.html", 0), ("02_c.html", 1)):
        page = (gallery / name).read_text()
        assert [page.count(part) for part in parts] == [pictures, bool(pictures)]


def test_tables_of_printed_text_scroll_apart_from_lines_that_wrap(tmp_path):
    text = "what it says\nname   tokens\na.out  3 <x>\n\nAnd so on."
    said = new_code_cell("x", outputs=[new_output("stream", text=text)])
    path = store(tmp_path / "00_a.ipynb", new_markdown_cell("# A"), said)
    page = (write_gallery([path], tmp_path / "out").parent / "00_a.html").read_text()
    printed = re.search(r"<pre>(<span>what.*?)</pre>", page, re.DOTALL)[1]
    assert re.findall(r"<span([^>]*)>(.*?)</span>", printed, re.DOTALL) == [
        ("", "what it says"),
        (' class="table" tabindex="0"', "name   tokens\na.out  3 &lt;x&gt;"),
        ("", "\nAnd so on."),
    ]


def test_index_shows_title_question_and_chosen_image(gallery):
    text = (gallery / "index.html").read_text()
    assert ">1. What is a region &amp; why?</a></h3><p>Does a token move?</p>" in text
    assert ">Second &lt; two</a></h3>" in text
    source, _ = Page(gallery / "index.html").images[0]
    shown = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))
    assert shown.convert("RGB").getpixel((5, 5)) == (0, 0, 255)


def test_the_gallery_is_the_same_twice(gallery, notebooks, tmp_path):
    again = write_gallery(notebooks, tmp_path / "again").parent
    for path in gallery.glob("0*.html"):
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_every_page_is_told_with_what_it_took(gallery, notebooks, tmp_path, capsys):
    write_gallery(notebooks, tmp_path / "out")
    left_out, *lines = capsys.readouterr().out.splitlines()
    assert left_out.startswith("left out: the API reference")
    total = len(list(gallery.glob("*.html")))
    assert [line.split("]")[0] for line in lines] == [f"[{n + 1}/{total}" for n in range(total)]
    assert re.fullmatch(r"\[1/\d+\] shift\.html, 4 images \.\.\. [\d.]+ s, [\d.]+ MB", lines[0])


def test_the_project_s_own_pages_fetch_nothing(tmp_path):
    own = sorted(NOTEBOOKS.glob("*.ipynb"))
    index = write_gallery(own, tmp_path)
    pages = sorted(tmp_path.glob("*.html"))
    # the index, the search, and those in place of what takes long
    assert len(pages) == len(own) + len(find_documents()) + 5
    assert {page.name: external_resources(page.read_text()) for page in pages} == {
        page.name: [] for page in pages
    }
    assert [Page(index).images.count(image) for image in Page(index).images] == [1] * len(own)


def test_a_frozen_explorer_fetches_nothing(tmp_path):
    """All of them are written by one function; one is enough, and drawing takes its time."""
    page = hl.ShiftExplorer().freeze(tmp_path / "shift.html", shift=(0, 1)).read_text()
    assert external_resources(page) == []
    assert "<script" in page


def test_without_its_runtime_the_page_that_runs_is_left_out_and_all_else_is_there(
    notebooks, tmp_path, monkeypatch, capsys
):
    """With the real writer, and no npm on the path."""
    monkeypatch.setattr("hirelab.lab.gallery.write_try_page", write_try_page)
    monkeypatch.setattr(reference, "can_be_written", lambda: False)  # it takes its time
    monkeypatch.setenv("HIRELAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = ["gallery", "--notebooks", str(notebooks[0].parent), "--out", str(tmp_path / "out")]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "try.html").write_text("of an earlier run")
    assert cli.main(arguments) == 0
    (said,) = (line for line in capsys.readouterr().out.splitlines() if "try.html" in line)
    assert "left out: onnxruntime-web" in said
    assert "install Node.js" in said
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"00_a.html", "03_d.html", "shift.html", "cost.html", "index.html"} <= written
    assert "try.html" not in written
    assert "try.html" not in (tmp_path / "out" / "index.html").read_text()


def test_the_index_leads_to_the_page_that_runs(gallery):
    assert own_links(gallery / "index.html")[0] == "try.html"
    assert own_links(gallery / "try.html") == ["index.html#notebooks"]


def test_a_gallery_over_a_file_is_refused(notebooks, tmp_path, capsys):
    (tmp_path / "file").touch()
    arguments = ["gallery", "--notebooks", str(notebooks[0].parent), "--out"]
    assert cli.main([*arguments, str(tmp_path / "file")]) == 2
    assert "cannot make the folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "fragment",
    [
        '<script src="https://a.org/x.js"></script>',
        '<link rel="stylesheet" href="//a.org/x.css">',
        '<img src="image.png">',
        '<img srcset="http://a.org/x.png 2x">',
        "<style>@import 'https://a.org/x.css';</style>",
        "<style>@font-face { src: url(https://a.org/x.woff) }</style>",
        '<p style="background: url(x.png)"></p>',
        "<script>var s = document.createElement('script'); s.src = 'https://a.org/x.js'</script>",
        '<script type="module">import x from "https://a.org/x.js"</script>',
        '<iframe src="https://a.org"></iframe>',
    ],
)
def test_what_a_browser_would_fetch_is_found(fragment):
    assert len(external_resources(fragment)) == 1


@pytest.mark.parametrize(
    "fragment",
    [
        '<a href="https://a.org">a</a>',
        '<iframe src="page.html"></iframe>',
        '<img src="data:image/png;base64,AAAA">',
        '<style>p { background: url("data:image/png;base64,AAAA") }</style>',
        '<svg><use href="#part"></use></svg>',
        "<script>var ns = 'http://www.w3.org/2000/svg'; // import nothing</script>",
        "<pre>import x from &quot;https://a.org&quot;</pre>",
    ],
)
def test_what_is_inside_a_page_is_not_mistaken(fragment):
    assert external_resources(fragment) == []


# What images say


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "image/webp"])
def test_an_image_of_any_kind_is_named(kind):
    assert alt_text(image_output("red", "two\nlines", kind)) == "two; lines"


def test_an_explorer_is_named_by_its_title_and_settings():
    words = "shift 2; region 3; direction height; restore no"
    assert alt_text(image_output("red", SHIFT)) == f"Shift and restore: {words}"
    film = alt_text(image_output("red", f"animation of {SHIFT}"))
    assert film == f"Film: Shift and restore: {words}"
    facts = alt_text(image_output("red", f"{SHIFT}\nRow 6 is reached."))
    assert facts == "Shift and restore: Row 6 is reached."


def test_an_image_s_own_words_come_first_and_an_address_is_none():
    output = image_output("red", "<Figure at 0x7f>")
    assert alt_text(output) == "figure"
    output.metadata["image/png"] = {"alt": "a cat"}
    assert alt_text(output) == "a cat"


def test_long_words_end_after_a_statement():
    said = "; ".join(f"stage {n} has so many tokens" for n in range(40))
    short = alt_text(image_output("red", said))
    assert len(short) <= LONGEST
    assert short.endswith("tokens \u2026")
    assert said.startswith(short.removesuffix(" \u2026"))
    assert alt_text(image_output("red", "x" * 400)).endswith("\u2026")


def test_frozen_drawings_keep_their_pixels_and_photographs_their_looks():
    drawing = hl.CostExplorer().render()
    assert Image.open(io.BytesIO(webp(drawing))).convert("RGB").tobytes() == drawing.tobytes()
    photograph = hl.RegionExplorer().render()  # 2160 pixels wide
    kept = Image.open(io.BytesIO(webp(photograph)))
    assert kept.width == 1440
    small = photograph.resize(kept.size, Image.Resampling.LANCZOS)
    assert np.abs(np.subtract(kept.convert("RGB"), small, dtype=float)).mean() < 3  # of 255


# Thumbnails


def test_thumbnails_are_small_and_the_same_twice(notebooks, tmp_path, capsys):
    arguments = ["gallery", "--notebooks", str(notebooks[0].parent), "--thumbnails"]
    assert cli.main([*arguments, str(tmp_path / "one")]) == 0
    assert cli.main([*arguments, str(tmp_path / "two")]) == 0
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["00_a.png", "02_c.png", "03_d.png"]  # the second notebook has no image
    for name in names:
        data = (tmp_path / "one" / name).read_bytes()
        assert data == (tmp_path / "two" / name).read_bytes()
        assert Image.open(io.BytesIO(data)).size == (360, 180)


def test_a_thumbnail_of_a_transparent_image_is_on_white():
    file = io.BytesIO()
    Image.new("RGBA", (10, 10), (0, 0, 0, 0)).save(file, format="PNG")
    small = Image.open(io.BytesIO(thumbnail(file.getvalue())))
    assert small.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_a_notebook_without_words_has_its_name_as_title():
    empty = card(new_notebook(), "07_name")
    assert (empty.title, empty.question, empty.thumbnail) == ("07_name", "", None)
    assert not re.search("<img", _card_html(empty))


def test_an_answer_in_words_is_folded_with_all_that_it_says(tmp_path, monkeypatch):
    monkeypatch.setattr("hirelab.lab.frozen.frozen_explorers", list)
    text = (
        "# One\n\n<details><summary>The answer</summary>\n\nIt is **52**.\n\nAnd wide.\n\n"
        "</details>\n\nNext."
    )
    path = store(tmp_path / "00_a.ipynb", new_markdown_cell(text))
    write_gallery([path], tmp_path / "out")
    folded = Page(tmp_path / "out" / "00_a.html").folded
    assert [part for part in folded if part] == ["The answer", "It is", "52", ".", "And wide."]
