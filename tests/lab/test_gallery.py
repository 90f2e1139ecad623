"""Running notebooks and writing pages: reproducible, whole or not at all, and offline."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from hirelab import cli
from hirelab._shared.errors import HirelabError
from hirelab.lab import gallery as publish


def png(color: str = "red", size: tuple[int, int] = (40, 20)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, format="PNG")
    return file.getvalue()


SHOW = f"""import base64
from IPython.display import display
data = {{
    "image/png": "{base64.b64encode(png()).decode()}",
    "text/plain": "a red image",
    "application/vnd.jupyter.widget-view+json": {{"model_id": "1", "version_major": 2}},
}}
display(data, raw=True)"""


def image_cell(color: str, **metadata):
    data = {"image/png": base64.b64encode(png(color)).decode(), "text/plain": f"all {color}"}
    return new_code_cell("show()", outputs=[new_output("display_data", data)], metadata=metadata)


def store(path, *cells):
    nbformat.write(new_notebook(cells=list(cells)), path)
    return path


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A notebook that was run, and the bytes after a first and a second run."""
    path = tmp_path_factory.mktemp("run") / "00 first.ipynb"
    store(
        path,
        new_markdown_cell("# First"),
        new_code_cell(SHOW, metadata={"collapsed": True, "tags": ["thumbnail"]}),
        new_code_cell("import os\nprint(os.environ['OMP_NUM_THREADS'], 'thread')\nprint('end')"),
        new_code_cell("import ipywidgets\nslider = ipywidgets.IntSlider()"),
        new_code_cell("1 / 0", metadata={"tags": ["raises-exception"]}),
    )
    publish.run_notebook(path)
    once = path.read_bytes()
    publish.run_notebook(path)
    return path, once, path.read_bytes()


# Running


def test_a_second_run_changes_no_byte(ran):
    _, once, twice = ran
    assert once == twice


def test_a_run_stores_outputs_of_one_thread(ran):
    cells = nbformat.read(ran[0], as_version=4).cells
    assert [cell.execution_count for cell in cells[1:]] == [1, 2, 3, 4]
    assert cells[2].outputs[0].text == "1 thread\nend\n"


def test_a_run_leaves_nothing_of_the_machine(ran):
    notebook = nbformat.read(ran[0], as_version=4)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    assert [cell.id for cell in notebook.cells] == [f"00-first-{n:02d}" for n in range(5)]
    assert notebook.cells[1].metadata == {"tags": ["thumbnail"]}
    assert set(notebook.cells[1].outputs[0].data) == {"image/png", "text/plain"}


def test_a_widget_without_a_image_keeps_its_reference():
    view = {publish.WIDGET_VIEW: {"model_id": "1"}, "text/plain": "IntSlider()"}
    cell = new_code_cell("slider", outputs=[new_output("display_data", view)])
    publish.normalise(notebook := new_notebook(cells=[cell]), "name")
    assert publish.WIDGET_VIEW in notebook.cells[0].outputs[0].data


def test_a_failing_notebook_stays_as_it_was(tmp_path, capsys):
    store(tmp_path / "a.ipynb", new_code_cell("x = 1"))
    broken = store(tmp_path / "b.ipynb", new_code_cell("x = 1"), new_code_cell("{}['shift']"))
    before = broken.read_bytes()
    assert cli.main(["notebooks", "--notebooks", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert "b.ipynb: code cell 2 raised KeyError: 'shift'; the file was left as it was" in (
        printed.err
    )
    assert "\x1b" not in printed.err
    assert broken.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ipynb", "b.ipynb"]
    assert "[1/2] a.ipynb" in printed.out


def test_a_dying_kernel_is_said(tmp_path):
    path = store(tmp_path / "a.ipynb", new_code_cell("import os\nos._exit(1)"))
    with pytest.raises(HirelabError, match=r"a\.ipynb: Kernel died"):
        publish.run_notebook(path)


def test_a_file_that_is_no_notebook_is_said(tmp_path):
    (tmp_path / "a.ipynb").write_text("no json")
    with pytest.raises(HirelabError, match="is not a notebook"):
        publish.read(tmp_path / "a.ipynb")


def test_finding_notebooks(tmp_path):
    with pytest.raises(HirelabError, match="there is no notebook in"):
        publish.find(tmp_path)
    for name in ("01_region", "00_start"):
        (tmp_path / f"{name}.ipynb").touch()
    assert [path.stem for path in publish.find(tmp_path)] == ["00_start", "01_region"]
    assert [path.stem for path in publish.find(tmp_path, ["01_region.ipynb"])] == ["01_region"]
    with pytest.raises(HirelabError, match="01_region"):
        publish.find(tmp_path, ["01_regoin"])


# Gallery


class Page(HTMLParser):
    """Where a page's links lead, and the sources and texts of its images."""

    def __init__(self, path):
        super().__init__()
        self.links, self.images = [], []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "a":
            self.links.append(attributes["href"])
        elif tag == "img":
            self.images.append((attributes["src"], attributes.get("alt")))


@pytest.fixture
def notebooks(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(folder / "local.png")
    first = (
        "# 1. What is a *region* & why?\n\nDoes a [token](https://example.org)\nmove?\n\n"
        "![here](local.png) See [the next](01_b.ipynb#top) and [the code](../hirelab/cli.py)."
    )
    widget = {publish.WIDGET_VIEW: {"model_id": "gone"}, "text/plain": "IntSlider(value=3)"}
    return [
        store(
            folder / "00_a.ipynb",
            new_markdown_cell(first),
            image_cell("red"),
            image_cell("blue", tags=["thumbnail"]),
            new_code_cell("slider", outputs=[new_output("display_data", widget)]),
        ),
        store(folder / "01_b.ipynb", new_markdown_cell("# Second < two"), new_code_cell("x = 1")),
        store(folder / "02_c.ipynb", new_markdown_cell("# Third"), image_cell("green")),
    ]


@pytest.fixture(autouse=True)
def few_frozen_pages(request, monkeypatch):
    """One small page in place of the frozen explorers, which take a while to draw."""

    def frozen_pages(folder):
        (folder / "shift.html").write_text("<p>slider</p>")
        return [("Shift & restore", "shift.html")]

    if "frozen_explorers" not in request.node.name:
        monkeypatch.setattr("hirelab.lab.frozen.frozen_pages", frozen_pages)


@pytest.fixture
def gallery(notebooks, tmp_path):
    return publish.write_gallery(notebooks, tmp_path / "out" / "gallery").parent


def test_every_page_shows_itself_without_a_network(gallery):
    pages = sorted(gallery.glob("*.html"))
    assert {"00_a.html", "01_b.html", "02_c.html", "index.html"} <= {page.name for page in pages}
    for page in pages:
        assert publish.external_resources(page.read_text()) == []
        assert all(source.startswith("data:image/") for source, _ in Page(page).images)


def test_every_local_link_leads_to_a_page(gallery):
    for page in gallery.glob("*.html"):
        for link in Page(page).links:
            if not link.startswith("https://"):
                assert (gallery / link.split("#")[0]).is_file(), link


def test_pages_lead_to_their_neighbours(gallery):
    assert set(Page(gallery / "01_b.html").links) == {"00_a.html", "index.html", "02_c.html"}
    assert "02_c.html" not in Page(gallery / "00_a.html").links


def test_links_to_notebooks_lead_to_pages_and_links_to_code_to_nothing(gallery):
    text = (gallery / "00_a.html").read_text()
    assert '<a href="01_b.html#top">the next</a> and the code.' in text


def test_pages_show_images_and_text_but_no_dead_widget(gallery):
    text = (gallery / "00_a.html").read_text()
    assert "IntSlider(value=3)" in text
    assert "widget-view" not in text
    assert "all red" in [alt for _, alt in Page(gallery / "00_a.html").images]


def test_index_shows_title_question_and_chosen_image(gallery):
    text = (gallery / "index.html").read_text()
    assert "<h2>1. What is a region &amp; why?</h2><p>Does a token move?</p>" in text
    assert "<h2>Second &lt; two</h2>" in text
    source, _ = Page(gallery / "index.html").images[0]
    shown = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))
    assert shown.convert("RGB").getpixel((5, 5)) == (0, 0, 255)


def test_the_gallery_is_the_same_twice(gallery, notebooks, tmp_path):
    again = publish.write_gallery(notebooks, tmp_path / "again").parent
    for path in gallery.glob("0*.html"):
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_the_index_links_explorers(gallery):
    text = (gallery / "index.html").read_text()
    assert '<a href="shift.html">Shift &amp; restore</a>' in text


def test_frozen_explorers_stand_in_the_gallery(tmp_path):
    pages = publish._frozen_pages(tmp_path)  # refuses what would fetch something
    assert pages
    assert {name for _, name in pages} == {path.name for path in tmp_path.iterdir()}


def test_an_explorer_that_would_fetch_something_is_refused(tmp_path, monkeypatch):
    def frozen_pages(folder):
        (folder / "shift.html").write_text('<script src="embed.js"></script>')
        return [("Shift", "shift.html")]

    monkeypatch.setattr("hirelab.lab.frozen.frozen_pages", frozen_pages)
    with pytest.raises(HirelabError, match=r"shift\.html.*embed\.js"):
        publish._frozen_pages(tmp_path)


def test_a_page_that_would_fetch_something_is_refused(tmp_path):
    html = '<script src="https://cdn.example.org/a.js"></script>'
    cell = new_code_cell("x", outputs=[new_output("display_data", {"text/html": html})])
    path = store(tmp_path / "a.ipynb", cell)
    with pytest.raises(HirelabError, match=r"a\.html would not work offline.*cdn\.example\.org"):
        publish.write_gallery([path], tmp_path / "out")
    assert not (tmp_path / "out" / "a.html").exists()


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
    assert len(publish.external_resources(fragment)) == 1


@pytest.mark.parametrize(
    "fragment",
    [
        '<a href="https://a.org">a</a>',
        '<img src="data:image/png;base64,AAAA">',
        '<style>p { background: url("data:image/png;base64,AAAA") }</style>',
        '<svg><use href="#part"></use></svg>',
        "<script>var ns = 'http://www.w3.org/2000/svg'; // import nothing</script>",
        "<pre>import x from &quot;https://a.org&quot;</pre>",
    ],
)
def test_what_is_inside_a_page_is_not_mistaken(fragment):
    assert publish.external_resources(fragment) == []


# Thumbnails


def test_thumbnails_are_small_and_the_same_twice(notebooks, tmp_path, capsys):
    arguments = ["gallery", "--notebooks", str(notebooks[0].parent), "--thumbnails"]
    assert cli.main([*arguments, str(tmp_path / "one")]) == 0
    assert cli.main([*arguments, str(tmp_path / "two")]) == 0
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["00_a.png", "02_c.png"]  # the second notebook has no image
    for name in names:
        data = (tmp_path / "one" / name).read_bytes()
        assert data == (tmp_path / "two" / name).read_bytes()
        assert Image.open(io.BytesIO(data)).size == (360, 180)


def test_a_thumbnail_of_a_transparent_image_is_on_white():
    file = io.BytesIO()
    Image.new("RGBA", (10, 10), (0, 0, 0, 0)).save(file, format="PNG")
    small = Image.open(io.BytesIO(publish.thumbnail(file.getvalue())))
    assert small.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_a_notebook_without_words_has_its_name_as_title():
    card = publish.card(new_notebook(), "07_name")
    assert (card.title, card.question, card.thumbnail) == ("07_name", "", None)
    assert not re.search("<img", publish._card_html(card))
