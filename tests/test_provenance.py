"""Reach through blocks, against sets passed along by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hirelab.provenance import MANNERS, ReachGrowth, reach_growth
from hirelab.rearrange import PADDINGS

NUMPY_PADS = {"circular": "wrap", "reflect": "reflect", "replicate": "edge"}


def one_block(size, region, shift, manner, padding="circular"):
    """For every token of a line, the tokens that one block's branch computes it from."""
    order = list(range(size))
    if shift and manner in ("shift and restore", "shift, no restore"):
        order = [(place - shift) % size for place in order]
    elif shift and manner == "shuffle":
        order = [token for first in range(region) for token in order[first::region]]
    missing = -size % region
    if padding == "zero":
        line = order + [None] * missing
    else:
        line = list(np.pad(order, (0, missing), mode=NUMPY_PADS[padding]))
    met = []
    for token in range(size):
        place = token if manner == "shift, no restore" else order.index(token)
        first = place // region * region
        met.append([int(t) for t in line[first : first + region] if t is not None])
    return met


def simulate(size, region, shift, cycle, blocks, padding, manner):
    """For each number of blocks, the set that every token has heard of."""
    heard = [{token} for token in range(size)]
    history = [heard]
    for block in range(blocks):
        met = one_block(size, region, (block % cycle) * shift, manner, padding)
        heard = [heard[t].union(*(heard[m] for m in met[t])) for t in range(size)]
        history.append(heard)
    return history


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(
    ("size", "region", "shift", "cycle"),
    [(7, 2, 1, 2), (14, 3, 1, 3), (9, 4, 2, 2), (5, 8, 3, 2), (6, 1, 2, 2), (8, 2, -3, 1)],
)
def test_growth_is_what_passing_sets_along_gives(size, region, shift, cycle, padding):
    blocks = 7
    growth = reach_growth(size, region, shift, cycle, blocks, padding)
    assert growth.manners == list(MANNERS)
    assert growth.fewest.shape == growth.mean.shape == (4, blocks + 1)
    for row, manner in enumerate(MANNERS):
        history = simulate(size, region, shift, cycle, blocks, padding, manner)
        counts = [[len(heard) for heard in step] for step in history]
        assert growth.fewest[row].tolist() == [min(c) for c in counts]
        np.testing.assert_allclose(growth.mean[row], [np.mean(c) for c in counts])
        full = [b for b, c in enumerate(counts) if min(c) == size]
        assert growth.blocks_until_global()[manner] == (full[0] if full else None)
    assert (np.diff(growth.mean, axis=1) >= 0).all()  # nobody forgets


def test_without_a_cross_region_step_reach_ends_at_the_region():
    growth = reach_growth(56, 4, 2, 2, 16)
    none = growth.manners.index("none")
    assert growth.mean[none].tolist() == [1] + [4] * 16
    assert growth.blocks_until_global()["none"] is None
    few = reach_growth(56, 4, 2, 2, growth.blocks_until_global()["shift and restore"] - 1)
    assert few.blocks_until_global()["shift and restore"] is None
    assert few.fewest[0, -1] < 56


def simulate_map(size, region, shift, cycle, blocks, manner):
    """The same on a map, where a block passes on along height and along width."""
    heard = {(i, j): {(i, j)} for i in range(size) for j in range(size)}
    history = [heard]
    for b in range(blocks):
        met = one_block(size, region, (b % cycle) * shift, manner)
        heard = {
            (i, j): heard[i, j].union(
                *(heard[k, j] for k in met[i]), *(heard[i, k] for k in met[j])
            )
            for i, j in heard
        }
        history.append(heard)
    return history


@pytest.mark.parametrize("manner", MANNERS)
def test_growth_on_a_map_goes_along_both_axes(manner):
    growth = reach_growth(5, 2, 1, 2, 4, axes=2, manners=[manner])
    assert growth.manners == [manner]
    assert growth.tokens == 25
    history = simulate_map(5, 2, 1, 2, 4, manner)
    counts = [[len(heard) for heard in step.values()] for step in history]
    assert growth.fewest[0].tolist() == [min(c) for c in counts]
    np.testing.assert_allclose(growth.mean[0], [np.mean(c) for c in counts])


def test_a_line_of_one_token_is_global_at_once():
    assert set(reach_growth(1, 2, 1, 2, 3).blocks_until_global().values()) == {0}
    assert reach_growth(3, 3, 0, 1, 0).mean.tolist() == [[1]] * 4  # no blocks, no hearing


def test_plotting_says_the_numbers():
    still = reach_growth(7, 2, 1, 2).plot()
    said = reach_growth(7, 2, 1, 2).blocks_until_global()
    for manner, blocks in said.items():
        assert f"{manner}: {'not within 16' if blocks is None else blocks}" in still.text
    assert still.data.startswith(b"\x89PNG")
    assert b"Software" not in still.data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "size is 0"),
        ({"size": 2.5}, "size is 2.5"),
        ({"region": 0}, "region is 0"),
        ({"region": True}, "region is True"),
        ({"shift": "1"}, "shift is '1'"),
        ({"padding": "mirror"}, "padding is 'mirror'; choose one of"),
        ({"cycle": 0}, "cycle is 0"),
        ({"cycle": -1}, "cycle is -1"),
        ({"blocks": -1}, "blocks -1"),
        ({"axes": 3}, "axes is 3; give 1"),
        ({"manners": ["shufle"]}, "Did you mean 'shuffle'"),
    ],
)
def test_impossible_settings_are_named(change, message):
    settings = {"size": 7, "region": 2, "shift": 1, "cycle": 2, "blocks": 3}
    with pytest.raises(ValueError, match=message):
        reach_growth(**{**settings, **change})


def test_growth_can_be_kept(tmp_path):
    numbers = (np.int64(7), np.int32(2), np.int64(1), np.int64(2), np.int64(4))
    growth = reach_growth(*numbers)
    growth.save(tmp_path / "growth.npz")
    again = ReachGrowth.load(tmp_path / "growth.npz")
    assert (again.size, again.region, again.shift, again.cycle) == (7, 2, 1, 2)
    assert again.padding == "circular"
    assert again.manners == growth.manners
    assert (again.mean == growth.mean).all()
    assert again.blocks_until_global() == growth.blocks_until_global()
    assert again.plot().data == growth.plot().data
