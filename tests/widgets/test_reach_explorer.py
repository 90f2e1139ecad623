"""ReachExplorer: against the network itself, against counting for all tokens, and its sheet."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

import hirelab as hl
from hirelab.analysis.provenance import provenance
from hirelab.analysis.reach import CROSS_REGION_MODES, reach_growth
from hirelab.rearrange import PADDINGS
from hirelab.viz import theme
from hirelab.viz.canvas import Canvas
from hirelab.viz.reach import block_colors
from hirelab.widgets.reach import LONGEST, ReachExplorer

NETWORK = {
    "shift and restore": {},
    "shift, no restore": {"restore": False},
    "shuffle": {"cross_region": "shuffle"},
    "none": {"cross_region": "none"},
}


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", CROSS_REGION_MODES)
def test_it_shows_what_reaches_a_token_of_a_network_of_so_many_blocks(mode, padding):
    """The explorer's maps are the provenance of a network that is built in that mode."""
    blocks = 4
    network = hl.create(
        "hire_mlp_atto", device="meta", depths=(1, blocks), dims=(4, 4), region=3, shift=2,
        shift_cycle=3, padding=padding, **NETWORK[mode],
    )  # fmt: skip
    place = {"stage": 1, "row": 25, "column": 3}
    explorer = ReachExplorer(network, **place, blocks=blocks, region=3, shift=2, padding=padding)
    maps = explorer.reached(mode)
    assert len(maps) == blocks + 1
    for n, reached in enumerate(maps[1:]):
        back = provenance(network, (25, 3), f"stages.1.blocks.{n}.out", "spatial")
        assert np.array_equal(reached, back["stages.1.downsample"])
    name = mode.replace(",", "").replace(" ", "_")
    assert explorer.state()[name] == [int(reached.sum()) for reached in maps[1:]]


def test_blocks_until_all_agrees_with_counting_for_all_tokens():
    """All tokens are reached by all when the last one is: the largest count over all tokens."""
    explorer = ReachExplorer(stage=3, row=0, column=0, region=3, shift=2)
    last = dict.fromkeys(CROSS_REGION_MODES, 0)
    for row, column in itertools.product(range(7), range(7)):
        explorer.set(row=row, column=column)
        for mode, blocks in explorer.blocks_until_all().items():
            reached = explorer.in_a_row(mode, LONGEST)
            assert len(reached) == LONGEST
            never = last[mode] is None or blocks is None
            last[mode] = None if never else max(last[mode], blocks)
    growth = reach_growth(7, 3, 2, cycle=2, blocks=LONGEST, axes=2)
    assert last == growth.blocks_until_global()
    assert last["none"] is None
    assert last["shift and restore"] is not None


def test_the_count_does_not_move_with_the_blocks_that_are_shown():
    explorer = ReachExplorer(stage=3, row=6, column=0, blocks=1)
    until = explorer.blocks_until_all()["shift and restore"]
    for blocks in (until - 1, until):
        explorer.set(blocks=blocks)
        state = explorer.state()
        assert state["shift_and_restore_all_after"] == until
        assert (state["shift_and_restore"][-1] == state["tokens"] == 49) == (blocks == until)
    assert json.loads(json.dumps(explorer.state())) == explorer.state()


def test_a_cell_has_the_colour_of_the_number_of_blocks():
    explorer = ReachExplorer(stage=3, row=2, column=5, blocks=5, region=2, shift=1)
    drawn = np.asarray(explorer.render())
    colors = block_colors(5)
    cell = 246 / 7
    for i, mode in enumerate(CROSS_REGION_MODES):
        steps = explorer.reached(mode)
        for row, column in itertools.product(range(7), range(7)):
            y, x = 104 + (row + 0.5) * cell, 12 + i * 270 + (column + 0.5) * cell
            found = drawn[round(2 * y), round(2 * x)].tolist()
            reached = [n for n, step in enumerate(steps) if step[row, column]]
            if (row, column) == (2, 5):
                assert found == list(theme.rgb(theme.FOCUS))
            elif not reached:
                assert found == list(theme.rgb(theme.UNREACHED))
            else:
                assert found == colors[reached[0] - 1].tolist()


@pytest.mark.parametrize("blocks", [1, 2, 24])
def test_colours_of_blocks_brighten(blocks):
    light = block_colors(blocks).astype(float) @ [0.2126, 0.7152, 0.0722]
    assert len(light) == blocks
    assert (np.diff(light) > 0).all()  # also reached apart in black and white


def test_an_impossible_token_is_said():
    explorer = ReachExplorer(stage=0, row=30, column=3)
    for name in ("row", "column"):
        with pytest.raises(ValueError, match=f"{name} is 7; with stage=3, .* from 0 to 6"):
            explorer.set(**{"stage": 3, "row": 1, "column": 1, name: 7})
    assert explorer.settings.stage == 0
    with pytest.raises(ValueError, match="Linear is not a whole Hire-MLP"):
        ReachExplorer(torch.nn.Linear(1, 1))
    small = hl.create("hire_mlp_atto", device="meta", depths=(1,), dims=(8,), region=2, shift=1,
                      shift_cycle=2)  # fmt: skip
    with pytest.raises(ValueError, match="stage is 1; choose one of 0"):
        ReachExplorer(small, stage=1)


@pytest.mark.parametrize("stage", [0, 3])
def test_no_text_leaves_the_sheet_or_runs_into_another(stage, monkeypatch):
    written, write = [], Canvas.text

    def text(self, xy, text, size=theme.TEXT, color=theme.INK, anchor="la", bold=False):
        font = theme.font(size * self.scale, bold)
        at = tuple(round(v * self.scale) for v in xy)
        written.append((text, self._draw.textbbox(at, text, font=font, anchor=anchor)))
        assert size >= 14
        write(self, xy, text, size, color, anchor, bold)

    monkeypatch.setattr(Canvas, "text", text)
    last = 55 if stage == 0 else 6
    explorer = ReachExplorer(stage=stage, row=last, column=last, padding="replicate")
    for blocks, shift in itertools.product((1, 24), (-8, 0)):
        written.clear()
        explorer.set(blocks=blocks, shift=shift, region=1 if shift else 8)
        width, height = explorer.render().size
        assert len(written) > 16
        for words, (left, top, right, bottom) in written:
            assert left >= 0 <= top, words
            assert right <= width, words
            assert bottom <= height, words
        for (one, a), (other, b) in itertools.combinations(written, 2):
            apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
            assert apart, f"{one!r} and {other!r}"
