"""The pages as one site: every link and anchor leads somewhere, also without what is not installed,
and what can be found is where the search says."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

import hirelab as hl
from hirelab.lab import documents, reference
from hirelab.lab.documents import PAGES, find_documents
from hirelab.lab.frozen import Frozen
from hirelab.lab.gallery import write_gallery
from hirelab.lab.notebooks import find
from hirelab.lab.search import Entry, search_body, sections
from hirelab.lab.site import Site, relink, slugify, with_anchors
from hirelab.lab.try_page import ABOUT, TITLE
from hirelab.widgets.page import html_page, with_links

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


class Anchors(HTMLParser):
    """The ids of a page, how often each is there, and the addresses that it leads to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.ids += [attributes["id"]] if attributes.get("id") else []
        self.addresses += [v for k in ("href", "src", "action") if (v := attributes.get(k))]


def read_pages(folder: Path) -> dict[Path, Anchors]:
    return {path.resolve(): Anchors(path) for path in folder.rglob("*.html")}


def broken(pages: dict[Path, Anchors], path: Path, address: str) -> bool:
    """Whether an address on a page leads to no page of the site, or to no place on it."""
    parts = urlsplit(address)
    if parts.scheme:
        return False
    target = (path.parent / parts.path).resolve() if parts.path else path
    return target not in pages or (
        bool(parts.fragment) and unquote(parts.fragment) not in pages[target].ids
    )


def dead_ends(pages: dict[Path, Anchors]) -> list[tuple[str, str]]:
    return [
        (path.name, address)
        for path, page in pages.items()
        for address in page.addresses
        if broken(pages, path, address)
    ]


def small_try_page(path: Path, nav: str) -> None:
    path.write_text(with_links(html_page(TITLE, "", "", ABOUT), nav))


@pytest.fixture(scope="module", autouse=True)
def few_slow_pages():
    """A small page in place of the frozen explorers and of the networks, which take a while."""
    frozen = [Frozen("shift.html", hl.ShiftExplorer(), {"shift": (1, 2)})]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hirelab.lab.frozen.frozen_explorers", lambda: frozen)
        patch.setattr("hirelab.lab.gallery.write_try_page", small_try_page)
        yield


@pytest.fixture(scope="module")
def site(few_slow_pages, tmp_path_factory):
    """The project's own, whole but for the drawings."""
    return write_gallery(find(NOTEBOOKS), tmp_path_factory.mktemp("site")).parent


@pytest.fixture(scope="module")
def pages(site):
    return read_pages(site)


@pytest.fixture(scope="module")
def entries(site):
    text = (site / "search.html").read_text()
    return [Entry(*row) for row in json.loads(re.search(r"const data = (\[.*\]);\n", text)[1])]


def test_no_link_of_the_whole_site_is_broken(pages):
    assert len(pages) > 100
    assert dead_ends(pages) == []


def test_every_place_that_the_search_finds_is_there(site, pages, entries):
    index = (site / "search.html").resolve()
    assert [e.address for e in entries if broken(pages, index, e.address)] == []
    assert len({entry.address for entry in entries}) == len(entries)


def test_the_search_knows_every_page_and_every_documented_public_name(site, entries):
    found = {entry.address.partition("#")[0] for entry in entries}
    written = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert written - found == {"index.html", "search.html", "api/index.html"}
    names = {entry.title for entry in entries}
    modules = {name for name in hl.__all__ if isinstance(getattr(hl, name), ModuleType)}
    assert set(hl.__all__) - modules <= names


def test_every_page_has_one_header_a_title_a_description_and_no_name_twice(site, pages):
    titles = []
    for path, page in pages.items():
        text = path.read_text()
        assert text.count('<header class="site">') == 1, path
        assert text.count('role="search"') == 1, path
        titles.append(re.search("<title>(.+?)</title>", text)[1])
        if path.name not in ("search.html",) and path.parent.name != "api":
            assert re.search('<meta name="description" content="[^"]{10,}">', text), path
        if "api" not in path.relative_to(site.resolve()).parts:  # a module's page repeats sources
            assert len(set(page.ids)) == len(page.ids), path
    assert len(set(titles)) == len(titles)


def test_links_in_documents_lead_to_pages_and_to_the_reference(site):
    walk = (site / "walk.html").read_text()
    assert '<a href="api/hirelab/rearrange.html">' in walk
    assert "../hirelab" not in walk
    weights = find_documents()[list(PAGES).index("data/weights/README.md")]
    assert f">{weights.title}<" in (site / "weights.html").read_text()


def test_writing_the_reference_leaves_the_package_as_it_was(tmp_path):
    before = dict(vars(hl))
    reference.write_reference(tmp_path, Site(), ["hirelab.paper"])
    assert vars(hl) == before


def test_a_link_to_a_private_class_keeps_its_words():
    page = '<p id="A"></p><a href="#A">A</a> <a class="x" href="#_B">_B</a>'
    assert reference._without_dead_ends(page) == '<p id="A"></p><a href="#A">A</a> _B'


def test_what_is_not_installed_is_left_out_and_nothing_leads_there(tmp_path, monkeypatch, capsys):
    """As where hirelab is installed from a wheel, without pdoc."""
    monkeypatch.setattr(documents, "in_checkout", lambda: False)
    monkeypatch.setattr(reference.importlib.util, "find_spec", lambda name: None)
    folder = write_gallery(find(NOTEBOOKS), tmp_path).parent
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith("left out: the documents in docs/")
    assert "hirelab[site]" in said
    assert not (folder / "glossary.html").exists()
    assert (folder / "weights.html").exists()  # a wheel has data/
    assert not (folder / "api").exists()
    assert dead_ends(read_pages(folder)) == []


def test_a_link_is_resolved_from_where_its_file_lies():
    targets = {"docs/a.md": "a.html", "data/README.md": "files.html"}
    body = (
        '<a href="a.md#x">1</a><a href="../docs/a.md">2</a><a href="README.md">3</a>'
        '<a href="https://b.org">4</a><a href="#here">5</a><a href="a.html">6</a>'
    )
    assert relink(body, "data/README.md", targets) == (
        '1<a href="a.html">2</a><a href="files.html">3</a>'
        '<a href="https://b.org">4</a><a href="#here">5</a><a href="a.html">6</a>'
    )
    assert relink(body, "docs/b.md", targets).startswith('<a href="a.html#x">1</a>')


@pytest.mark.parametrize(
    ("words", "anchor"),
    [
        ("What padding a batch does", "what-padding-a-batch-does"),
        ("Beside timm's <em>networks</em>", "beside-timms-networks"),
        ("Boxes, masks &amp; pixels", "boxes-masks--pixels"),
        ("A `x_y` 2-by-2", "a-x_y-2-by-2"),
    ],
)
def test_anchors_are_those_of_code_hosts(words, anchor):
    assert slugify(words) == anchor


def test_headings_of_one_name_have_anchors_of_their_own():
    assert re.findall('id="(.*?)"', with_anchors("<h2>A b</h2><h3>A b</h3>")) == ["a-b", "a-b-1"]


def test_a_page_is_cut_into_what_can_be_found():
    body = (
        '<h1 id="t">T</h1><p>First.</p><pre>code</pre><h2 id="a">A <em>b</em></h2><p>Under a.</p>'
        '<table><tr id="w"><td><strong>w</strong></td><td>a word</td></tr></table>'
    )
    assert sections(body, "Document", "p.html", "T") == [
        Entry("T", "Document", "p.html", "First."),
        Entry("A b", "Document: T", "p.html#a", "Under a."),
        Entry("w", "Document: T", "p.html#w", "a word"),
    ]


def test_no_text_ends_the_script_of_the_search_page():
    body = search_body([Entry("</script><b>", "k", "p.html", "<!-- <script>")])
    data = body.partition("const data = ")[2].partition(";\n")[0]
    assert "<" not in data
    assert json.loads(data)[0][0] == "</script><b>"
