"""What notebook 08 says in prose is so; its numbers are computed here."""

from __future__ import annotations

from pathlib import Path

import nbformat
import numpy as np
import pytest

import hirelab as hl
from hirelab.synthetic.learning import line_reach, token_network
from hirelab.synthetic.tasks import CopyFromDistance
from hirelab.synthetic.watching import learn_beside
from hirelab.training import release

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "08_training.ipynb"


@pytest.fixture(scope="module")
def prose() -> str:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    return " ".join(c.source for c in cells if c.cell_type == "markdown").replace("*", "")


@pytest.fixture(scope="module")
def task() -> CopyFromDistance:
    return CopyFromDistance(12, (-4, -3, -2, -1, 1, 2, 3, 4))


def built(task) -> dict:
    return {
        name: token_network(task, region=3, shift=shift, fusion="sum")
        for name, shift in (("no shift", 0), ("shift 1", 1))
    }


@pytest.fixture(scope="module")
def learnt(task):
    """The networks before, the same after, and how they learnt."""
    networks = built(task)
    learning = learn_beside(task, networks, steps=150)
    return built(task), networks, learning


def test_the_task_is_the_one_that_is_described(task, prose):
    x = task.batch(2, 0).x
    assert x.shape[1:] == (task.symbols, 12, 12)
    assert f"an image has {task.size} x {task.size} tokens" in prose.lower()
    assert task.symbols == 4  # "one of four symbols"
    assert f"right in {100 * task.chance:.0f} of 100 cases" in prose
    assert all(n.stages[0].blocks[0].hire.gate is None for n in built(task).values())


def test_what_is_possible_without_a_shift(task, learnt, prose):
    possible = dict(zip(learnt[2].names, learnt[2].possible, strict=True))
    alone = possible["no shift"]
    assert alone[0] == pytest.approx(2 / 3 + 1 / 3 * 1 / 4)
    assert "2/3 + 1/3 \u00b7 1/4" in prose
    assert f"it is {100 * alone[0]:.0f} of 100" in prose
    assert (alone[2:] == task.chance).all()  # "three and four rows away there is only guessing"


def test_near_distances_are_learnt_first(learnt):
    learning = learnt[2]
    assert learning.shortfall < 0.05  # "up to what its rearrangement allows"
    near, far = learning.learnt_after()[1, :2], learning.learnt_after()[1, 2:]
    assert near.max() < far.min()
    # "they rise only when the near ones are there": when one row is right by nine in ten
    accuracy = learning.accuracy[1]
    moment = int((accuracy[:, 0] > 0.9).argmax())
    assert (accuracy[moment, 2:] < learning.chance + 0.05).all()


def test_far_rows_need_both_blocks(task):
    one = token_network(task, depth=1, region=3, shift=1, fusion="sum")
    bound = task.upper_bound(line_reach(one, 12))
    far = np.abs(task.distances) >= 3
    assert bound[far][:, task.mask().any(0)] == pytest.approx(task.chance)


def test_training_fills_what_the_design_leaves(task, learnt):
    x = task.batch(8, 0, True).x
    for name in learnt[2].names:
        before, after = (hl.receptive_field(n[name], x, "stages.0") for n in learnt[:2])
        can = hl.provenance(learnt[1][name], before.position, "stages.0", "spatial", 12).pixels
        row, column = before.position
        for field in (before, after):
            assert field.map[~can].sum() == 0  # "the border stays"
        alone, still = (f.map[row, column] / f.map.sum() for f in (before, after))
        assert alone > 0.9  # "nearly everything that a token hears is itself"
        assert still < 0.6
        down = after.map[:, column].sum() - after.map[row, column]
        across = after.map[row].sum() - after.map[row, column]
        assert down > 2 * across  # "mostly along its column"


def test_what_the_histories_say(prose):
    one, other = (
        release.history(f"hire_mlp_pico.{tag}") for tag in ("imagenette", "imagenette_isolated")
    )
    (epochs, top1), (_, apart) = one.column("val_top1"), other.column("val_top1")
    ahead = {e: a - b for e, a, b in zip(epochs, top1, apart, strict=True)}
    first, last = epochs[0], epochs[-1]
    assert f"After {first} epochs the network with the shift is {ahead[first]:.1f} points" in prose
    assert f"after {last} epochs {ahead[last]:.1f}, with" in prose
    for history, values in ((one, top1), (other, apart)):
        steps = dict(zip(epochs[1:], np.diff(values), strict=True))
        late = {e: s for e, s in steps.items() if e > 20}
        assert max(late, key=late.get) == 50  # "between epochs 45 and 50"
        sides = history.column("img_size")[1]
        assert sides[44] < sides[49]  # "the images grow"
