"""Heat maps and gates: the image is the numbers."""

from __future__ import annotations

import numpy as np
import pytest

from hirelab.viz import maps, theme
from hirelab.viz.canvas import Canvas

TABLE = theme.color_table()
BRANCHES = ("height", "width", "channel")


def level(colors: np.ndarray) -> np.ndarray:
    """Where in the colour table each colour stands."""
    return (colors[..., None, :] == TABLE).all(-1).argmax(-1)


def test_more_is_never_darker():
    values = np.sort(np.random.default_rng(0).normal(size=300))
    found = maps.heat(values[None])
    assert found.shape == (1, 300, 3)
    assert found.dtype == np.uint8
    levels = level(found)[0]
    assert (np.diff(levels) >= 0).all()
    assert (levels[0], levels[-1]) == (0, 255)
    expected = (values - values[0]) / (values[-1] - values[0]) * 255
    assert abs(levels - expected).max() <= 2  # the table repeats a few colours


@pytest.mark.parametrize("value", [0.0, -3.5, 1e-30, 7e20])
def test_a_map_of_one_value_is_all_dark(value):
    assert (maps.heat(np.full((3, 4), value)) == TABLE[0]).all()


def test_the_ends_of_the_scale_can_be_given():
    found = level(maps.heat(np.array([[-5.0, 0.0, 1.0, 2.0, 9.0]]), low=0, high=2))[0]
    assert found.tolist() == [0, 0, 127, 255, 255]
    assert level(maps.heat(np.array([[1, 3]]), low=1))[0].tolist() == [0, 255]


def test_whole_numbers_and_booleans_are_numbers():
    assert level(maps.heat(np.array([[0, 1, 2]])))[0].tolist() == [0, 127, 255]
    assert level(maps.heat(np.array([[True, False]])))[0].tolist() == [255, 0]
    assert level(maps.heat(np.array([[0, 255]], np.uint8)))[0].tolist() == [0, 255]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_has_no_colour_is_said(bad):
    values = np.ones((3, 3))
    values[1, 2] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        maps.heat(values)


@pytest.mark.parametrize("shape", [(7, 7), (19, 56), (56, 19), (1, 56), (56, 1)])
def test_a_map_lies_in_its_box_and_keeps_its_proportions(shape):
    values = np.random.default_rng(1).random(shape)
    canvas = Canvas(300, 300)
    box = (20, 20, 256, 240)
    maps.draw_heat_map(canvas, values, box, "hire.height.regions", theme.BLUE)
    drawn = np.asarray(canvas.image)
    rows, columns = shape
    cell = min(236 / columns, (220 - 44) / rows)
    expected = maps.heat(values)
    for row in {0, rows // 2, rows - 1}:
        for column in {0, columns // 2, columns - 1}:
            x, y = 20 + (column + 0.5) * cell, 44 + (row + 0.5) * cell
            seen = drawn[int(y * 2), int(x * 2)]
            assert tuple(seen) in {tuple(expected[row, column]), theme.rgb(theme.LINE)}
            if cell > 3:  # a frame of one pixel does not reach the middle of a cell
                assert tuple(seen) == tuple(expected[row, column])
    covered = np.nonzero((drawn != 255).any(-1))
    assert covered[0].max() < 240 * 2
    assert tuple(drawn[60, 44]) == theme.rgb(theme.BLUE)


def gate(channels: int, sharp: float, branches: int = 3, seed: int = 0) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(channels, branches)) * sharp
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def drawn_gate(weights, branches=BRANCHES) -> np.ndarray:
    """(height, width) number of the branch of every pixel, without the frame."""
    canvas = Canvas(340, 220)
    maps.draw_gate(canvas, weights, branches, (10, 10, 330, 210))
    image = np.asarray(canvas.image)[22:418, 22:658]
    colors = np.array([theme.rgb(theme.BRANCH[b]) for b in branches])
    match = (image[:, :, None] == colors).all(-1)
    assert match.any(-1).all()  # every pixel is a branch's
    return match.argmax(-1)


@pytest.mark.parametrize("channels", [1, 2, 16, 64])
@pytest.mark.parametrize("sharp", [0.0, 0.5, 4.0])
def test_each_branch_has_the_area_of_its_weight(channels, sharp):
    weights = gate(channels, sharp)
    found = drawn_gate(weights)
    share = [(found == i).mean() for i in range(3)]
    np.testing.assert_allclose(share, weights.mean(0), atol=0.012)


def test_every_channel_has_its_column():
    weights = gate(16, 2.0)
    found = drawn_gate(weights)
    middle = ((np.arange(16) + 0.5) * 40 - 2).astype(int)  # the frame took 2 pixels
    columns = np.stack([(found[:, middle] == i).mean(0) for i in range(3)], axis=1)
    nearest = [int(abs(weights - column).sum(1).argmin()) for column in columns]
    assert sorted(nearest) == list(range(16))  # each channel once
    assert abs(columns - weights[nearest]).max() < 0.012
    for column in middle:  # stacked in the order of the branches, from the top
        assert (np.diff(found[:, column]) >= 0).all()
    strongest = weights[nearest].argmax(1)
    assert (np.diff(strongest) >= 0).all()  # sorted by the branch that wins


def test_more_channels_than_pixels_still_fill_the_box():
    weights = gate(2000, 1.0)
    share = [(drawn_gate(weights) == i).mean() for i in range(3)]
    np.testing.assert_allclose(share, weights.mean(0), atol=0.03)


def test_gates_of_two_branches_and_of_one():
    weights = gate(8, 1.0, branches=2)
    found = drawn_gate(weights, ("width", "channel"))
    np.testing.assert_allclose((found == 0).mean(), weights[:, 0].mean(), atol=0.012)
    assert (drawn_gate(np.ones((4, 1)), ("height",)) == 0).all()
