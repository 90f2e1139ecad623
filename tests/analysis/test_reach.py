"""Reach through blocks in a row, against sets that are passed along by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hirelab.analysis.reach import (
    CROSS_REGION_MODES,
    ReachGrowth,
    reach_growth,
    reach_through,
    sources_of,
)
from hirelab.rearrange import PADDINGS, Rearrangement

NUMPY_PADS = {"circular": "wrap", "reflect": "reflect", "replicate": "edge"}


def one_block(size, region, shift, mode, padding="circular"):
    """For every token of a line, the tokens that one block's branch computes it from."""
    order = list(range(size))
    if shift and mode in ("shift and restore", "shift, no restore"):
        order = [(place - shift) % size for place in order]
    elif shift and mode == "shuffle":
        order = [token for first in range(region) for token in order[first::region]]
    missing = -size % region
    if padding == "zero":
        line = order + [None] * missing
    else:
        line = list(np.pad(order, (0, missing), mode=NUMPY_PADS[padding]))
    sources = []
    for token in range(size):
        place = token if mode == "shift, no restore" else order.index(token)
        first = place // region * region
        sources.append([int(t) for t in line[first : first + region] if t is not None])
    return sources


def simulate(size, region, shift, cycle, blocks, padding, mode):
    """For each number of blocks, the tokens that reach every token."""
    known = [{token} for token in range(size)]
    history = [known]
    for block in range(blocks):
        sources = one_block(size, region, (block % cycle) * shift, mode, padding)
        known = [known[t].union(*(known[m] for m in sources[t])) for t in range(size)]
        history.append(known)
    return history


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(
    ("size", "region", "shift", "cycle"),
    [(7, 2, 1, 2), (14, 3, 1, 3), (9, 4, 2, 2), (5, 8, 3, 2), (6, 1, 2, 2), (8, 2, -3, 1)],
)
def test_growth_is_what_passing_sets_along_gives(size, region, shift, cycle, padding):
    blocks = 7
    growth = reach_growth(size, region, shift, cycle, blocks, padding)
    assert growth.modes == list(CROSS_REGION_MODES)
    assert growth.fewest.shape == growth.mean.shape == (4, blocks + 1)
    for row, mode in enumerate(CROSS_REGION_MODES):
        history = simulate(size, region, shift, cycle, blocks, padding, mode)
        counts = [[len(known) for known in step] for step in history]
        assert growth.fewest[row].tolist() == [min(c) for c in counts]
        np.testing.assert_allclose(growth.mean[row], [np.mean(c) for c in counts])
        full = [b for b, c in enumerate(counts) if min(c) == size]
        assert growth.blocks_until_global()[mode] == (full[0] if full else None)
    assert (np.diff(growth.mean, axis=1) >= 0).all()  # nobody forgets


@pytest.mark.parametrize("mode", CROSS_REGION_MODES)
def test_the_sources_of_one_token_are_its_part_of_all_reach(mode):
    size, shifts = 7, (0, 2, 1, 0, 2)
    blocks = [Rearrangement(size, 3, shift, **CROSS_REGION_MODES[mode]) for shift in shifts]
    lines, maps = list(reach_through(blocks, size)), list(reach_through(blocks, size, axes=2))
    history = [{token} for token in range(size)]
    for n, shift in enumerate((None, *shifts)):
        if n:
            sources = one_block(size, 3, shift, mode)
            history = [history[t].union(*(history[m] for m in sources[t])) for t in range(size)]
        for token in range(size):
            assert set(np.flatnonzero(lines[n][token])) == history[token]
            assert np.array_equal(sources_of((token,), blocks[:n], size), lines[n][token])
            place = (token, (3 * token) % size)
            expected = maps[n][place].reshape(size, size)
            assert np.array_equal(sources_of(place, blocks[:n], size), expected)


def test_blocks_in_a_row_have_an_order():
    first, second = Rearrangement(6, 2, 0), Rearrangement(6, 3, 0)
    *_, forth = reach_through([first, second], 6)
    *_, other = reach_through([second, first], 6)
    assert not np.array_equal(forth, other)
    assert np.flatnonzero(forth[0]).tolist() == [0, 1, 2, 3]  # 0 reads 2, which read 3 before
    assert np.flatnonzero(sources_of((0,), [first, second], 6)).tolist() == [0, 1, 2, 3]
    assert [reach.tolist() for reach in reach_through([], 1)] == [[[True]]]


def test_blocks_of_different_sizes_are_no_row():
    with pytest.raises(ValueError, match="rearranges 5 tokens, where the line has 7"):
        list(reach_through([Rearrangement(7, 3), Rearrangement(5, 3)], 7))
    with pytest.raises(ValueError, match="rearranges 5 tokens, where the line has 7"):
        sources_of((0, 0), [Rearrangement(5, 3)], 7)


def test_without_a_cross_region_step_reach_ends_at_the_region():
    growth = reach_growth(56, 4, 2, 2, 16)
    none = growth.modes.index("none")
    assert growth.mean[none].tolist() == [1] + [4] * 16
    assert growth.blocks_until_global()["none"] is None
    few = reach_growth(56, 4, 2, 2, growth.blocks_until_global()["shift and restore"] - 1)
    assert few.blocks_until_global()["shift and restore"] is None
    assert few.fewest[0, -1] < 56


def simulate_map(size, region, shift, cycle, blocks, mode):
    """The same on a map, where a block passes on along height and along width."""
    known = {(i, j): {(i, j)} for i in range(size) for j in range(size)}
    history = [known]
    for b in range(blocks):
        sources = one_block(size, region, (b % cycle) * shift, mode)
        known = {
            (i, j): known[i, j].union(
                *(known[k, j] for k in sources[i]), *(known[i, k] for k in sources[j])
            )
            for i, j in known
        }
        history.append(known)
    return history


@pytest.mark.parametrize("mode", CROSS_REGION_MODES)
def test_growth_on_a_map_goes_along_both_axes(mode):
    growth = reach_growth(5, 2, 1, 2, 4, axes=2, modes=[mode])
    assert growth.modes == [mode]
    assert growth.tokens == 25
    history = simulate_map(5, 2, 1, 2, 4, mode)
    counts = [[len(known) for known in step.values()] for step in history]
    assert growth.fewest[0].tolist() == [min(c) for c in counts]
    np.testing.assert_allclose(growth.mean[0], [np.mean(c) for c in counts])


def test_a_line_of_one_token_is_global_at_once():
    assert set(reach_growth(1, 2, 1, 2, 3).blocks_until_global().values()) == {0}
    assert reach_growth(3, 3, 0, 1, 0).mean.tolist() == [[1]] * 4  # no blocks, no reach


def test_plotting_says_the_numbers():
    still = reach_growth(7, 2, 1, 2).plot()
    said = reach_growth(7, 2, 1, 2).blocks_until_global()
    for mode, blocks in said.items():
        assert f"{mode}: {'not within 16' if blocks is None else blocks}" in still.text
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
        ({"blocks": -1}, "blocks is -1"),
        ({"axes": 3}, "axes is 3; give 1"),
        ({"modes": ["shufle"]}, "Did you mean 'shuffle'"),
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
    assert again.modes == growth.modes
    assert (again.mean == growth.mean).all()
    assert again.blocks_until_global() == growth.blocks_until_global()
    assert again.plot().data == growth.plot().data
