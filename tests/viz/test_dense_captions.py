"""Captions of objects stand where they can be read."""

from __future__ import annotations

import numpy as np

from hirelab.viz.dense import _place_tab, _shared

IMAGE = (0.0, 0.0, 200.0, 150.0)
SIZE = (60.0, 20.0)


def test_a_caption_stands_above_its_object_where_there_is_room():
    assert _place_tab(IMAGE, (50, 60, 90, 100), SIZE, [], []) == (50, 40, 110, 60)


def test_at_the_upper_edge_it_stands_elsewhere_and_inside_the_image():
    place = _place_tab(IMAGE, (150, 5, 195, 40), SIZE, [], [])
    assert place[1] == 40  # below
    assert place[2] <= IMAGE[2]


def test_an_object_as_large_as_the_image_has_it_inside():
    left, top, right, bottom = _place_tab(IMAGE, IMAGE, SIZE, [], [])
    assert left >= 0
    assert top >= 0
    assert right <= 200
    assert bottom <= 150


def test_captions_of_a_heap_of_objects_do_not_cover_each_other():
    generator = np.random.default_rng(0)
    for _ in range(20):
        corners = generator.uniform((60, 40), (90, 60), (4, 2))
        outlines = [(x, y, x + 40, y + 40) for x, y in corners]
        tabs = []
        for i, own in enumerate(outlines):
            others = outlines[:i] + outlines[i + 1 :]
            tabs.append(_place_tab(IMAGE, own, SIZE, tabs, others))
        covered = [_shared(a, b) for i, a in enumerate(tabs) for b in tabs[:i]]
        assert max(covered) == 0


def test_the_area_of_two_boxes():
    assert _shared((0, 0, 2, 3), (1, 1, 5, 5)) == 2
    assert _shared((0, 0, 1, 1), (1, 0, 2, 1)) == 0
