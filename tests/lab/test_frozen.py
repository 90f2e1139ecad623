"""The explorers of the site begin as the notebooks around them show them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

import hirelab as hl
from hirelab.lab import notebooks
from hirelab.lab.frozen import Frozen, frozen_explorers
from hirelab.lab.outputs import Shown, explorers_of

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def shown_in(*cells: tuple[str, str]) -> dict[str, Shown]:
    """What cells show: of each its source, and the text of its output."""
    made = [
        new_code_cell(
            source,
            outputs=[new_output("execute_result", {"image/png": "", "text/plain": said})],
        )
        for source, said in cells
    ]
    return explorers_of(new_notebook(cells=made))


def test_an_explorer_is_shown_as_its_first_still_and_on_the_image_that_it_was_given():
    first = "ShiftExplorer(shift=-2, region=3, padding='zero', restore=True)"
    cells = [
        ('image = "cat"\nother = image', "1"),
        ("%time\nbroken", "2"),
        ("hl.ShiftExplorer(image=other)", first),
        ("hl.ShiftExplorer(image='rocket', shift=1)", "ShiftExplorer(shift=1)"),
        ("made = hl.BlockExplorer(net, 'retina', stage=2)\nmade", "BlockExplorer(stage=2)"),
        ("hl.KinExplorer(image=photographs[3])", "KinExplorer(row=0)"),
        ("hl.CostExplorer(region=2).animation()", "animation of CostExplorer(region=2)"),
    ]
    settings = {"shift": -2, "region": 3, "padding": "zero", "restore": True}
    assert shown_in(*cells) == {
        "ShiftExplorer": Shown(settings, "cat"),
        "BlockExplorer": Shown({"stage": 2}, "retina"),
        "KinExplorer": Shown({"row": 0}, None),
    }


def test_a_page_begins_as_a_notebook_shows_it_and_has_that_position():
    one = Frozen("shift.html", hl.ShiftExplorer(), {"shift": (1, 2), "padding": ("reflect",)})
    before = one.explorer.render()
    one.begin_as(Shown({"shift": -1, "padding": "zero"}, "cat"))
    assert (one.explorer.settings.shift, one.explorer.settings.padding) == (-1, "zero")
    assert one.moving() == {"shift": [-1, 1, 2], "padding": ["zero", "reflect"]}
    same = hl.ShiftExplorer(image="cat", shift=-1, padding="zero").render()
    assert np.array_equal(one.explorer.render(), same)
    assert not np.array_equal(one.explorer.render(), before)


@pytest.mark.parametrize("wrong", [{"shift": 99}, {"shfit": 1}])
def test_what_an_explorer_cannot_show_is_refused(wrong):
    one = Frozen("shift.html", hl.ShiftExplorer(), {"shift": (1, 2)})
    with pytest.raises(hl.HirelabError):
        one.begin_as(Shown(wrong, None))


def test_every_page_of_the_site_begins_with_the_settings_that_its_notebook_stores():
    shown: dict[str, Shown] = {}
    for path in NOTEBOOKS:
        shown = {**explorers_of(notebooks.read(path)), **shown}
    pages = {one.name: one for one in frozen_explorers()}
    at_home = set(shown) & set(pages)
    assert len(at_home) >= 12
    for name in at_home:
        pages[name].begin_as(shown[name])
        now = dataclasses.asdict(pages[name].explorer.settings)
        assert now == shown[name].settings, name
        moving = pages[name].moving()
        assert all(now[setting] in values for setting, values in moving.items()), name
