"""Exercises: the right answer in every form is right, and everything else is not."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from hirelab.lab import exercises
from hirelab.lab.exercises import Deed, Exercise
from hirelab.models import create
from hirelab.rearrange import Rearrangement, partition
from hirelab.widgets.attribution import AttributionExplorer
from hirelab.widgets.cost import CostExplorer
from hirelab.widgets.dense import DenseExplorer
from hirelab.widgets.kin import KinExplorer
from hirelab.widgets.region import RegionExplorer
from hirelab.widgets.shift import ShiftExplorer

# Worked out by hand, each in a way that the library does not use.
ANSWERS = {
    "padded_rows": 20 - 17,
    "channel_index": 7 * 4 + 1,
    # the line-up is 13, 0, 1, ... 12; places 12 and 13 hold rows 11 and 12, the padding 13 and 0
    "last_region": [11, 12, 13, 0],
    "neighbours_after_shift": [54, 55, 0, 1],
    "same_as_none": 4,
    "blocks_until_global": None,  # below
    "branch_weights": 5 * 96 * 96,
    # row 21 moves to place 23, in the region of places 20 to 23: rows 18 to 21
    "rows_reached": [18, 19, 20, 21],
    # half of the area is a square of 128 / sqrt(2) = 90.5; the next even number holds it
    "half_of_everything": 92,
    # rows 6 and 7 share their region with a copy of row 0, which has read 1 and 2 by then
    "sources_without_shift": [0, 1, 2, 6, 7],
    # 5 regions of 3 are 15 rows, one of them padding
    "map_rows": 5 * 3 - 1,
    # grids of s/4, s/8, s/16, s/32 tokens in regions of 4, 3, 3, 2: s divides by 16, 24, 48 and 64
    "unpadded_side": 3 * math.lcm(4 * 4, 8 * 3, 16 * 3, 32 * 2),
    # three branches, the projection, and a channel MLP of twice four
    "block_macs": 24 * 24 * 96 * 96 * (3 + 1 + 2 * 4),
    # a row of shift, padding, components, cross_region, fc_layers and fusion; not of region
    "rows_of_the_default": 6,
    "trainings_for_a_tenth": 2 * 4**2,  # the spread is four times the error that is wanted
    "confirmed_of_four": 1,  # 0.004 * 4 = 0.016, but 0.02 * 3 = 0.06
    "rows_with_three_blocks": None,  # below
    "larger_images": 96,  # data/weights/hire_mlp_pico.imagenette.history.jsonl, line 50
    "module_of_16_pixels": "layer3",  # a stem of stride 4, then layer2 and layer3 halve the grid
    "kernel_weights": 16 * 32 * 5,
    "blocks_of_a_window": 2 * math.ceil(19 / 3),  # corner to corner, an axis after the other
    "level_of_a_large_box": 2,  # from 224 to 448 pixels it is that of stride 16, the third
}


def until_global() -> int:
    """A ring of 20: pairs (0, 1), (2, 3), ... and in every second block (1, 2), ... (19, 0)."""
    known, blocks = [{i} for i in range(20)], 0
    while min(map(len, known)) < 20:
        partner = [i ^ 1 if blocks % 2 == 0 else (i - 1 if i % 2 == 0 else i + 1) % 20
                   for i in range(20)]  # fmt: skip
        known, blocks = [known[i] | known[partner[i]] for i in range(20)], blocks + 1
    return blocks


def copied_everywhere() -> int:
    """Twelve rows in regions 0-2, 3-5, ...; in the second block row i moves to place i + 1."""
    home = [{j for j in range(12) if j // 3 == i // 3} for i in range(12)]
    moved = [{j for j in range(12) if (j + 1) % 12 // 3 == (i + 1) % 12 // 3} for i in range(12)]
    known = home
    for regions in (moved, home):
        known = [set().union(*(known[j] for j in regions[i])) for i in range(12)]
    far = [d for d in range(1, 6)
           if all({(i + d) % 12, (i - d) % 12} <= known[i] for i in range(12))]  # fmt: skip
    return max(far)


ANSWERS["blocks_until_global"] = until_global()
ANSWERS["rows_with_three_blocks"] = copied_everywhere()
EVERY = {k: v for k, v in vars(exercises).items() if isinstance(v, Exercise)}
DEEDS = {k: v for k, v in EVERY.items() if isinstance(v, Deed)}
NAMED = {k: v for k, v in EVERY.items() if k not in DEEDS}
every = pytest.mark.parametrize("name", NAMED)
deeds = pytest.mark.parametrize("name", DEEDS)


def said(capsys, name: str, *answer) -> str:
    EVERY[name].check(*answer)
    return capsys.readouterr().out


def test_no_exercise_is_left_out_here():
    assert NAMED.keys() == ANSWERS.keys()


@every
def test_the_right_answer_is_right_in_every_form(name, capsys):
    answer = ANSWERS[name]
    forms = [answer, np.array(answer)]
    forms += [] if isinstance(answer, str) else [torch.tensor(answer)]
    if isinstance(answer, list):
        forms += [tuple(answer), set(answer), answer[::-1], sorted(answer), frozenset(answer)]
        forms += [[np.int64(a) for a in answer], (a for a in answer), dict.fromkeys(answer)]
    elif isinstance(answer, str):
        forms = [answer]
    else:
        forms += [np.int64(answer), np.int32(answer), float(answer)]
    for form in forms:
        assert said(capsys, name, form) == "Right.\n", form


@every
def test_everything_else_is_not(name, capsys):
    answer = ANSWERS[name]
    wrong = [None, "", "2", [], {}, object(), float("nan"), [None], ["a", 1], np.array([])]
    if isinstance(answer, list):
        wrong += [answer[1:], [*answer, 99], 12, np.array(answer) + 1, [[0]], np.zeros((2, 2))]
    elif isinstance(answer, str):
        wrong += [answer + "x", answer.upper(), [answer]]
    else:
        wrong += [answer + 1, -answer, 0, [answer], (answer, answer), str(answer), answer + 0.5]
    for form in wrong:
        text = said(capsys, name, form)
        assert text.startswith("Not yet: "), form
        assert EVERY[name].hint in " ".join(text.split())
        assert "second_hint(), and solution()" in text


def test_a_wrong_answer_is_shown_as_plain_numbers(capsys):
    assert said(capsys, "padded_rows", np.int64(4)).startswith("Not yet: 4. ")
    assert said(capsys, "last_region", np.array([3, 1])).startswith("Not yet: [1, 3]. ")


@pytest.mark.parametrize("name", EVERY)
def test_the_dots_are_no_answer(name, capsys):
    for answer in ((), (...,)):
        text = said(capsys, name, *answer)
        question, _, rest = text.partition("Put your answer")
        assert " ".join(question.split()) == EVERY[name].question
        assert rest == " in place of the dots and run the cell again.\n"
        assert max(map(len, text.splitlines())) <= 88


@every
def test_the_hint_does_not_give_the_answer_away(name):
    answer = ANSWERS[name]
    shown = str(answer) if not isinstance(answer, list) else ", ".join(map(str, sorted(answer)))
    assert f" {shown}." not in NAMED[name].hint
    assert f" {shown}." not in NAMED[name].second


@every
def test_a_solution_is_printed_on_request(name, capsys):
    NAMED[name].second_hint()
    assert " ".join(capsys.readouterr().out.split()) == NAMED[name].second
    NAMED[name].solution()
    text = " ".join(capsys.readouterr().out.split())
    assert text == f"{NAMED[name].solve()!r}. {NAMED[name].because}"


# ------------------------------------------------------------------ what is done and not said

START = {  # the first explorers of their notebooks
    "regions_that_fit": RegionExplorer,
    "both_ends": ShiftExplorer,
    "last_map_of_a_parachute": lambda: AttributionExplorer(
        model := create("hire_mlp_pico", pretrained=True),
        "rocket",
        model.pretrained_cfg["label_names"],
    ),
    "a_triangle_by_itself": lambda: DenseExplorer(row=40, column=40),
    "where_the_ring_helps": KinExplorer,
}


@deeds
def test_a_right_deed_is_right_and_its_printed_line_does_it(name, capsys):
    deed = DEEDS[name]
    assert said(capsys, name, deed.solve()) == "Right.\n"
    deed.solution()
    assert capsys.readouterr().out.startswith(deed.code)
    scope = {"explorer": START[name]()} if name in START else {}
    exec(deed.code, scope)
    assert said(capsys, name, scope.get("answer", scope.get("explorer"))) == "Right.\n"


@deeds
def test_other_deeds_are_not(name, capsys):
    def nothing(value, point):
        return value

    def all_of_it(value, point):
        return value + torch.rand_like(value)

    def failing(value, point):
        raise KeyError("no such row")

    wrong = [None, 3, "edit", nothing, all_of_it, failing, exercises, CostExplorer()]
    wrong += [RegionExplorer(), ShiftExplorer(), RegionExplorer(stage=1, region_height=7)]
    for answer in wrong:
        text = said(capsys, name, answer)
        assert text.startswith("Not yet: "), answer
        assert DEEDS[name].hint in " ".join(text.split())


def test_what_was_done_instead_is_said(capsys):
    def row_9(value, point):
        value[:, :, 9] += 1
        return value

    assert "the rows that change are [6, 7, 8, 9]." in said(capsys, "edit_of_a_region", row_9)
    assert "KeyError" in said(capsys, "edit_without_height", lambda value, point: {}["a"])
    assert "token 6 shares its region with" in said(capsys, "both_ends", ShiftExplorer())


def test_the_place_of_a_channel_is_where_the_library_puts_it():
    x = torch.arange(9.0 * 4).reshape(1, 9, 4, 1)  # one region of 4 tokens, 9 channels
    vector = partition(x, 2, 4)[0, :, 0, 0]
    assert vector[NAMED["channel_index"].solve()] == x[0, 7, 1, 0]


def test_answers_are_those_of_the_network():
    branch = create("hire_mlp_tiny", seed=0).stages[0].blocks[1].hire.height
    assert (branch.region, branch.shift) == (4, 2)  # as the question says
    x = torch.rand(1, 64, 56, 1)
    changed = x.clone()
    changed[:, :, 21] += 1
    with torch.no_grad():
        rows = (branch(x) != branch(changed)).any(1).flatten().nonzero().flatten()
    assert rows.tolist() == NAMED["rows_reached"].solve()
    # "makes the very regions": as sets of rows, wherever the regions stand
    plain = {frozenset(r) for r in Rearrangement(56, 4).slots.tolist()}
    same = [
        s
        for s in range(1, 9)
        if {frozenset(r) for r in Rearrangement(56, 4, s).slots.tolist()} == plain
    ]
    assert same == [4, 8]


@pytest.mark.parametrize("name", EVERY)
def test_every_exercise_is_asked_in_one_notebook(name):
    folder = Path(__file__).parents[2] / "notebooks"
    asked = [p.stem for p in folder.glob("*.ipynb") if f"exercises.{name}.check(" in p.read_text()]
    assert len(asked) == 1
