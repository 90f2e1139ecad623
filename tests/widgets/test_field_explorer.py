"""ReceptiveFieldExplorer: what it draws and says is what was measured."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from torch import nn

import hirelab as hl
from hirelab.analysis.paths import PATHS
from hirelab.analysis.receptive_field import receptive_field
from hirelab.datasets.images import open_image
from hirelab.datasets.transforms import normalise, square
from hirelab.viz import theme
from hirelab.viz.canvas import Canvas
from hirelab.viz.field import logarithm, square_box
from hirelab.widgets.field import ALL, POINTS, ReceptiveFieldExplorer
from hirelab.widgets.inputs import GIVEN

SIZES = {"depths": (1, 2), "dims": (8, 16), "region": 2, "shift": 1, "shift_cycle": 2}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return hl.create("hire_mlp_atto", seed=0, **SIZES)


def test_it_measures_what_the_settings_say(network):
    explorer = ReceptiveFieldExplorer(network, "cat", stage=1, position="corner", paths="height")
    x = normalise([square(open_image("cat"), 224)])
    name = "stages.1.blocks.1.out"
    expected = receptive_field(network, x, name, (0, 0), "height")
    np.testing.assert_array_equal(explorer.field().map, expected.map)
    state = explorer.state()
    assert (state["row"], state["column"]) == (0, 0)
    assert state["half_mass_side"] == expected.half_mass_side
    assert state["wrapped_share"] == pytest.approx(expected.wrapped_share, rel=0.01, abs=1e-6)
    assert json.loads(json.dumps(state)) == state
    explorer.set(point="height branch", photograph="coffee")
    assert explorer.field().point == "stages.1.blocks.1.hire.height.out"
    coffee = ReceptiveFieldExplorer(network, "coffee", stage=1)
    coffee.set(point="height branch", position="corner", paths="height", photograph=GIVEN)
    np.testing.assert_array_equal(coffee.field().map, explorer.field().map)


def test_the_square_stands_where_the_map_says(network):
    explorer = ReceptiveFieldExplorer(network, "cat", stage=1, position="corner")
    drawn = np.asarray(explorer.render())
    focus = (drawn == theme.rgb(theme.FOCUS)).all(axis=-1)
    panel = focus[204:844, 704:1344]  # the middle image, at double density
    rows, columns = (np.flatnonzero(panel.any(axis=axis)) for axis in (1, 0))
    field = explorer.field()
    left, top, right, bottom = square_box(field.centre, field.half_mass_side, (224, 224))
    scale = 640 / 224
    for found, (low, high) in ((rows, (top, bottom)), (columns, (left, right))):
        assert abs(found[0] - low * scale) <= 3
        assert abs(found[-1] - high * scale) <= 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stage": 2}, "stage is 2; give a whole number from 0 to 1"),
        ({"stage": 0, "block": 1}, "block is 1; with stage=0, give 0, there is no other"),
        (
            {"stage": 1, "point": "width branch", "paths": "height"},
            "paths is 'height'; with point='width branch', choose one of",
        ),
    ],
)
def test_impossible_settings_say_why(network, settings, message):
    with pytest.raises(ValueError, match=message):
        ReceptiveFieldExplorer(network, "cat", **{"stage": 1, **settings})


def test_a_branch_that_was_not_built_is_said():
    model = hl.create("hire_mlp_atto", seed=0, branches=("channel",), **SIZES)
    explorer = ReceptiveFieldExplorer(model, "cat", stage=1)
    assert explorer.still()
    for change in ({"paths": "height"}, {"point": "width branch"}):
        with pytest.raises(ValueError, match="choose one of"):
            explorer.set(**change)


def test_foreign_networks_are_said():
    with pytest.raises(ValueError, match="Linear is not a whole Hire-MLP"):
        ReceptiveFieldExplorer(nn.Linear(1, 1))


def test_no_text_leaves_the_sheet_or_runs_into_another(network, monkeypatch):
    written, write = [], Canvas.text

    def text(self, xy, text, size=theme.TEXT, color=theme.INK, anchor="la", bold=False):
        font = theme.font(size * self.scale, bold)
        at = tuple(round(v * self.scale) for v in xy)
        box = self._draw.textbbox(at, text, font=font, anchor=anchor)
        written.append((text, tuple(v / self.scale for v in box)))
        write(self, xy, text, size, color, anchor, bold)

    monkeypatch.setattr(Canvas, "text", text)
    explorer = ReceptiveFieldExplorer(network, "cat", stage=1)
    cases = [{"paths": p} for p in PATHS] + [{"point": p} for p in POINTS]
    cases += [
        {"position": "corner", "stage": 0, "block": 0},
        {"photograph": ALL, "paths": "channel"},
    ]
    for settings in cases:
        explorer.set(**{"stage": 1, "block": 1, "point": "block", "paths": "full", **settings})
        written.clear()
        explorer.render()
        for text_, (left, top, right, bottom) in written:
            inside = left >= 0 and top >= 0 and right <= 1080 and bottom <= 524
            assert inside, f"{text_!r} leaves the sheet: {settings}"
        for (one, a), (other, b) in itertools.combinations(written, 2):
            apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
            assert apart, f"{one!r} and {other!r} overlap: {settings}"


def test_colours_are_powers_of_ten_below_the_largest():
    shown = logarithm(np.array([[10.0, 1.0], [1e-9, 0.0]]))
    np.testing.assert_allclose(shown, [[0, -1], [-4, -4]])
    np.testing.assert_array_equal(logarithm(np.zeros((2, 2))), np.full((2, 2), -4.0))
    scaled = logarithm(np.array([[1e6, 1e5], [1e-3, 0.0]]))
    np.testing.assert_allclose(scaled, [[0, -1], [-4, -4]])
