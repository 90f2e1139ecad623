"""The API reference: a page for every public module, made by pdoc from the docstrings alone."""

from __future__ import annotations

import html
import importlib.util
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import hirelab

from .._shared.docstrings import summary
from .._shared.files import write_atomic
from ..widgets import page as pages
from .search import Entry
from .site import REFERENCE, Site, style

if TYPE_CHECKING:
    from pdoc.doc import Doc, Module

MODULES = (
    "hirelab",
    "hirelab.rearrange",
    "hirelab.hooks",
    "hirelab.hooks.edit",
    "hirelab.models",
    "hirelab.datasets",
    "hirelab.analysis",
    "hirelab.training",
    "hirelab.synthetic",
    "hirelab.ablation",
    "hirelab.dense",
    "hirelab.viz",
    "hirelab.widgets",
    "hirelab.lab.exercises",
    "hirelab.results",
    "hirelab.paper",
)
_TEMPLATES = Path(__file__).parent / "pdoc_templates"
_FOLDER = REFERENCE.partition("/")[0]


def can_be_written() -> bool:
    """Whether pdoc is installed."""
    return importlib.util.find_spec("pdoc") is not None


def write_reference(folder: Path, site: Site, modules: Sequence[str] = MODULES) -> list[Entry]:
    """Write a page for each of ``modules`` and its public parts, and one that lists them.

    Args:
        folder: the site's; the pages go into api/.
        site: says what their header leads to.
        modules: dotted names.

    Returns:
        What can be found on the pages: every module and every documented name, once.
    """
    import pdoc

    pdoc.render.configure(
        docformat="google",
        search=False,  # the site has one for all its pages
        favicon=pages.FAVICON,
        template_directory=_TEMPLATES,
    )
    pdoc.render.env.globals.update(site=site, site_style=pages.STYLE + style())
    entries: list[Entry] = []
    seen: set[tuple[str, str]] = set()
    with _loaded(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of hints that only a type checker can resolve
        names = pdoc.extract.walk_specs(modules)
        found: dict[str, Module] = {name: pdoc.doc.Module.from_name(name) for name in names}
        for name, module in found.items():
            text = _without_dead_ends(pdoc.render.html_module(module, found))
            path = folder / address(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, text)
            entries.append(Entry(name, "Module", address(name), summary(module.docstring)))
            for member in _members(module):
                anchor = f'id="{member.qualname}"'
                if member.docstring and anchor in text and member.taken_from not in seen:
                    seen.add(member.taken_from)
                    entries.append(_entry(member, name))
    titles = {name: summary(module.docstring) for name, module in found.items()}
    index = pages.html_page("API reference \u00b7 hirelab", style(), _index(site, titles))
    write_atomic(folder / REFERENCE, index)
    return entries


def address(module: str) -> str:
    """The page of a module, from the site's folder."""
    return f"{_FOLDER}/{module.replace('.', '/')}.html"


def sources(entries: Sequence[Entry]) -> dict[str, str]:
    """The pages of source files, by the names that the project gives these."""
    found: dict[str, str] = {}
    for module in (entry for entry in entries if entry.kind == "Module"):
        base = module.title.replace(".", "/")
        found |= {f"{base}.py": module.address, f"{base}/__init__.py": module.address}
    return found


@contextmanager
def _loaded() -> Iterator[None]:
    """With all public names in the package, where pdoc looks; they load when they are first used,
    and some of them hide a module of the same name, so they go away again."""
    known = vars(hirelab)
    added = set(known["__all__"]) - known.keys()
    known.update({name: getattr(hirelab, name) for name in added})
    try:
        yield
    finally:
        for name in added:
            del known[name]


def _without_dead_ends(page: str) -> str:
    """The page, with the words alone of links to what is not on it: private classes."""

    def link(match: re.Match[str]) -> str:
        return match[0] if f'id="{match[1]}"' in page else match[2]

    return re.sub(r'<a[^>]* href="#([^"]+)"[^>]*>(.*?)</a>', link, page)


def _members(module: Module) -> Iterator[Doc]:
    """What a module offers, and what its classes do."""
    for member in module.members.values():
        yield member
        yield from getattr(member, "own_members", ()) if member.kind == "class" else ()


def _entry(member: Doc, module: str) -> Entry:
    words = summary(member.docstring)
    return Entry(member.qualname, f"API: {module}", f"{address(module)}#{member.qualname}", words)


def _index(site: Site, titles: dict[str, str]) -> str:
    """A list of all modules, those inside a package below it."""
    rows = []
    for name, words in titles.items():
        deep = ' class="part"' if name.rpartition(".")[0] in set(titles) - {"hirelab"} else ""
        link = f'<a href="{address(name).partition("/")[2]}"><code>{name}</code></a>'
        rows.append(f"<li{deep}>{link} <span>{html.escape(words)}</span></li>")
    return f"""{site.header("../")}<main>
<h1>API reference</h1>
<p class="lead">Made from the docstrings. <a href="hirelab.html"><code>hirelab</code></a> has all
public names that are reached as <code>hl.NAME</code>; the others are the rooms they come from.</p>
<ul class="list">
{chr(10).join(rows)}
</ul>
</main>"""
