"""How far tokens hear: counting for all tokens at once against one token at a time."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from _helpers import check_kept

import hirelab as hl
from hirelab.analysis import kin
from hirelab.analysis.kin import blocks_in_a_row, kin_reach, sources_through
from hirelab.analysis.reach import reach_growth
from hirelab.models.kin import KIN
from hirelab.viz import kin as viz


@pytest.fixture(scope="module")
def reach():
    return kin_reach()


@pytest.mark.parametrize("name", KIN)
def test_all_tokens_at_once_are_one_after_another(name):
    grid, blocks, stage = (7, 14), 4, 2
    steps = list(islice(blocks_in_a_row(KIN[name], grid, stage), blocks + 1))
    for row, column in np.ndindex(*grid):
        one = sources_through(KIN[name], grid, stage, (row, column), blocks)
        assert [int(step.sum()) for step in one] == [int(step[row, column]) for step in steps]


def test_hire_mlp_grows_as_its_own_measurement_says(reach):
    for stage, setting in enumerate(((28, 3, 2, 2), (14, 3, 1, 3), (7, 2, 1, 2)), start=1):
        growth = reach_growth(*setting, blocks=30, axes=2, modes=["shift and restore"])
        assert (
            reach.blocks_until_global("Hire-MLP-S", stage)
            == growth.blocks_until_global()["shift and restore"]
        )


@pytest.mark.parametrize(
    ("name", "steps"), [("AS-MLP-T", 2), ("S2-MLP-deep", 1), ("CycleMLP-B2", 1), ("Wave-MLP-S", 3)]
)
def test_from_corner_to_corner_a_cross_goes_along_one_axis_and_then_the_other(reach, name, steps):
    for row, tokens in enumerate(reach.tokens):
        if reach.members[row] == name:
            far = round(tokens**0.5) - 1
            expected = 2 * -(-far // steps)
            assert reach.blocks_until_global(name, int(reach.stage[row])) == expected


@pytest.mark.parametrize(("name", "steps"), [("PoolFormer-S24", 1), ("ConvNeXt-T", 3)])
def test_from_corner_to_corner_a_square_goes_along_both_at_once(reach, name, steps):
    for stage, side in enumerate((56, 28, 14, 7)):
        assert reach.blocks_until_global(name, stage) == -(-(side - 1) // steps)


def test_what_the_rows_hold(reach):
    assert list(dict.fromkeys(reach.members)) == list(KIN)
    records = reach.records()
    assert len(records) == sum(depth + 1 for m in KIN.values() for depth in m.depths if depth)
    first = records[0]
    assert (first["blocks"], first["median"], first["tokens"]) == (0, 1, 56 * 56)
    for row, name in enumerate(reach.members):
        depth, stage = int(reach.depth[row]), int(reach.stage[row])
        assert depth == KIN[name].depths[stage]
        assert (np.diff(reach.blocks[row, : depth + 1]) >= 0).all()
        assert np.isnan(reach.blocks[row, depth + 1 :]).all()
        until = reach.blocks_until_global(name, stage)
        whole = reach.share(name, stage) == 1
        assert whole or depth < until
        assert 0 < reach.pixel_share(name, stage) <= 1


def test_the_middle_of_a_map_hears_at_least_as_much_as_most(reach):
    borders = [name not in ("Hire-MLP-S", "Swin-T") for name in reach.members]
    assert (reach.centre[borders] >= reach.blocks[borders])[~np.isnan(reach.blocks[borders])].all()


def test_a_limit_of_blocks_is_said(monkeypatch):
    monkeypatch.setattr(kin, "MOST", 5)
    short = kin_reach(["CycleMLP-B2"], 64)
    assert short.blocks_until_global("CycleMLP-B2", 0) is None
    assert short.blocks_until_global("CycleMLP-B2", 3) == 2
    assert "> 5" in repr(short)


def test_other_sizes(reach):
    small = kin_reach(["Hire-MLP-S", "AS-MLP-T"], (64, 96))
    assert small.tokens.tolist() == [16 * 24, 8 * 12, 4 * 6, 2 * 3] * 2
    assert small.plot().text == repr(small)


def test_every_bar_and_diamond_is_on_the_scale_of_its_panel(reach, monkeypatch):
    """A panel of small shares has a scale of its own, and says so; all others have one to 100 %."""
    drawn, finish = [], viz.finish
    monkeypatch.setattr(
        viz, "finish", lambda figure, text: drawn.extend(figure.axes) or finish(figure, text)
    )
    reach.plot()
    ends = []
    for axes in drawn:
        ends.append(axes.get_xlim()[1])
        points = [x for line in axes.lines for x in line.get_xdata()]
        most = max(*points, *(bar.get_width() for bar in axes.patches))
        assert ends[-1] / 4 < most <= ends[-1]
        assert ("scale ends at" in axes.get_xlabel()) == (ends[-1] < 100)
    assert ends == [15, 100, 100, 100]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: kin_reach([]), "give a list of names: Hire-MLP-S"),
        (lambda: kin_reach("AS-MLP-T"), "give a list of names"),
        (lambda: kin_reach(["AS-MLP"]), "Did you mean 'AS-MLP-T'"),
        (lambda: kin_reach(["Swin-T"], 256), "windows of 7"),
        (lambda: kin_reach(["AS-MLP-T"], 20), "img_size is 20"),
        (lambda: sources_through(KIN["AS-MLP-T"], (7, 7), 3, (7, 0), 2), r"\(0, 0\) to \(6, 6\)"),
    ],
)
def test_what_cannot_be_counted_is_said(change, message):
    with pytest.raises(hl.HirelabError, match=message):
        change()


def test_questions_beyond_what_was_counted(reach):
    with pytest.raises(hl.HirelabError, match="Stage 0 of 'S2-MLP-deep'"):
        reach.share("S2-MLP-deep", 0)
    with pytest.raises(hl.HirelabError, match=r"has 3 in stage 0: give 0 to 3"):
        reach.share("Hire-MLP-S", 0, 4)


def test_it_can_be_kept(reach, tmp_path):
    check_kept(reach, tmp_path)
