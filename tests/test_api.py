"""The API reference: every public name has a page or an entry, and says what it is."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pdoc
import pytest

import hirelab as hl
from hirelab.lab.reference import MODULES


def test_every_public_name_has_a_page_or_an_entry(monkeypatch):
    for name in hl.__all__:  # as the reference does, for this test only
        monkeypatch.setitem(vars(hl), name, getattr(hl, name))
    pages = {name for name in hl.__all__ if isinstance(getattr(hl, name), ModuleType)}
    assert {getattr(hl, name).__name__ for name in pages} <= set(MODULES)
    entries = pdoc.doc.Module(hl).members
    assert set(hl.__all__) - pages <= entries.keys()
    assert not [name for name in set(hl.__all__) - pages if not entries[name].docstring.strip()]


@pytest.mark.parametrize("name", MODULES)
def test_every_page_begins_with_what_it_is_about(name):
    assert importlib.import_module(name).__doc__


def test_every_room_has_a_page():
    rooms = {path.parent.name for path in Path(hl.__file__).parent.glob("[!_]*/__init__.py")}
    assert rooms - {"lab"} <= {name.removeprefix("hirelab.") for name in MODULES}
