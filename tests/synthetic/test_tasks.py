"""Diagnostic tasks: answers found again by loops, reach found again by poking real networks, and
what small networks learn beside what the index maps say they can.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from hirelab.synthetic.learning import (
    TaskResult,
    line_reach,
    reach_by_learning,
    token_network,
    train_on_task,
)
from hirelab.synthetic.tasks import (
    UNSCORED,
    CopyFromDistance,
    MeetAcrossBorder,
    Task,
    TextureInRegion,
)

TASKS = [
    CopyFromDistance(6, (1, -2, 5), symbols=3, region=2),
    CopyFromDistance(6, (2, -1), symbols=2, axis="width", wrap=False),
    TextureInRegion(9, 3),
    TextureInRegion(8, 4),
    MeetAcrossBorder(6, 3),
    MeetAcrossBorder(8, 2, symbols=4, axis="width"),
]
NAMES = [f"{type(t).__name__}-{i}" for i, t in enumerate(TASKS)]
every_task = pytest.mark.parametrize("task", TASKS, ids=NAMES)


# ------------------------------------------------------------------ images and answers


@every_task
def test_images_depend_on_seed_step_and_freshness_and_on_nothing_else(task):
    torch.manual_seed(1)
    np.random.seed(1)
    first = task.batch(4, 3)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again = type(task)(**vars(task)).batch(4, 3)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    other_seed = type(task)(**{**vars(task), "seed": 1})
    for other in (task.batch(4, 4), task.batch(4, 3, fresh=True), other_seed.batch(4, 3)):
        assert not torch.equal(first.x, other.x)
        assert torch.equal(first.mask, other.mask)


@every_task
def test_a_batch_has_the_shapes_it_promises(task):
    x, target, mask = task.batch(5, 0)
    assert x.shape == (5, task.symbols, task.size, task.size)
    assert x.dtype == torch.float32
    assert ((x == 0) | (x == 1)).all()
    assert (x.sum(1) == 1).all()
    assert target.shape == (5, task.questions, task.size, task.size)
    assert mask.shape == target.shape[1:]
    assert mask.any()
    for one in target:
        assert torch.equal(one == UNSCORED, ~mask)
        assert (one[mask] >= 0).all()
        assert (one[mask] < task.classes).all()


@every_task
def test_every_image_holds_every_symbol_equally_often(task):
    x = task.batch(16, 0).x
    np.testing.assert_allclose(x.mean((2, 3)), 1 / task.symbols, rtol=1e-6)
    if not isinstance(task, TextureInRegion):
        line = x if task.axis == "height" else x.mT
        for slot in range(task.region):  # and so does every slot of the regions on every line
            share = line[..., slot :: task.region].mean(3)
            np.testing.assert_allclose(share, 1 / task.symbols, rtol=1e-6)


@every_task
def test_every_answer_is_as_frequent_as_chance_says(task):
    _, target, mask = task.batch(2000, 0)
    shares = [(target == answer).float().mean(0)[mask] for answer in range(task.classes)]
    for share in shares:  # five standard deviations at every single token
        deviation = (task.chance * (1 - task.chance) / 2000) ** 0.5
        assert (share - task.chance).abs().max() < 5 * deviation


@pytest.mark.parametrize("axis", ["height", "width"])
@pytest.mark.parametrize("wrap", [True, False])
def test_copies_come_from_the_distance(axis, wrap):
    size, distances = 6, (1, -2, 0, 5)
    x, target, mask = CopyFromDistance(size, distances, 3, 2, axis, wrap, seed=4).batch(3, 0)
    symbols = x.argmax(1)
    for q, distance in enumerate(distances):
        for i in range(size):
            for j in range(size):
                row, column = (i + distance, j) if axis == "height" else (i, j + distance)
                inside = 0 <= row < size and 0 <= column < size
                assert mask[q, i, j] == (inside or wrap)
                if inside or wrap:
                    assert torch.equal(target[:, q, i, j], symbols[:, row % size, column % size])


@pytest.mark.parametrize("region", [3, 4])
def test_textures_rise_the_way_the_answer_says(region):
    size = 3 * region
    x, target, _ = TextureInRegion(size, region, seed=2).batch(8, 0)
    symbols, seen = x.argmax(1), set()
    for i in range(size):
        for j in range(size):
            for n in range(8):
                answer = int(target[n, 0, i, j])
                seen.add(answer)
                for (k, m), down in (((i + 1, j), answer >= 2), ((i, j + 1), answer % 2 == 1)):
                    if k // region == i // region and m // region == j // region:
                        step = int(symbols[n, k, m] - symbols[n, i, j]) % region
                        assert step == (region - 1 if down else 1)
                        assert target[n, 0, k, m] == answer
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("axis", ["height", "width"])
@pytest.mark.parametrize(
    ("size", "region", "symbols", "borders"),
    [(6, 3, 2, [(2, 3)]), (8, 2, 4, [(1, 2), (3, 4), (5, 6)]), (9, 3, 3, [(2, 3), (5, 6)])],
)
def test_tokens_on_both_sides_of_a_border_answer_with_their_sum(
    size, region, symbols, borders, axis
):
    x, target, mask = MeetAcrossBorder(size, region, symbols, axis).batch(4, 0)
    held, answers, asked = x.argmax(1), target[:, 0], mask[0]
    if axis == "width":
        held, answers, asked = held.mT, answers.mT, asked.mT
    lines = {line for border in borders for line in border}
    assert [i for i in range(size) if asked[i].all()] == sorted(lines)
    assert [i for i in range(size) if asked[i].any()] == sorted(lines)
    for before, after in borders:
        both = (held[:, before] + held[:, after]) % symbols
        assert torch.equal(answers[:, before], both)
        assert torch.equal(answers[:, after], both)


# ------------------------------------------------------------------ what can be reached


class InDouble(CopyFromDistance):
    def batch(self, *args):
        batch = super().batch(*args)
        return batch._replace(x=batch.x.double())


def poked(network, task):
    """Which line changes which, by changing lines of images and looking at the answers."""
    reach = {axis: np.zeros((task.size, task.size), dtype=bool) for axis in ("height", "width")}
    x, other = task.batch(8, 0).x, task.batch(8, 1).x
    for dim, axis in ((2, "height"), (3, "width")):
        for line in range(task.size):
            changed = x.clone()
            changed.select(dim, line).copy_(other.select(dim, line))
            apart = answers_apart(network, changed, x)
            reach[axis][:, line] = apart.any(3 - dim)
    return reach


def answers_apart(network, x, y):
    """(size, size) bool, the tokens that answer x and y differently."""
    with torch.no_grad():
        # floats may round apart where nothing arrived
        return ((network(x) - network(y)).abs().amax((0, 1)) > 1e-9).numpy()


def lively(network):
    """The same network with weights that let everything through that can get through."""
    generator = torch.Generator().manual_seed(0)
    for p in network.parameters():
        if p.ndim > 1:
            p.data = torch.randn(p.shape, generator=generator) / p.shape[1] ** 0.5
    return network.double()


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        (6, {"cross_region": "none"}),
        (6, {}),
        (8, {"shift": 2, "cycle": 2}),
        (8, {"depth": 1}),  # padded: the last region holds a copy of row 0
        (8, {"depth": 1, "padding": "zero"}),
        (8, {"restore": False, "depth": 3, "cycle": 3}),
        (8, {"cross_region": "shuffle"}),
        (6, {"branches": ("height", "channel")}),
        (6, {"branches": ("channel",)}),
    ],
)
def test_reach_of_a_network_is_what_poking_it_shows(size, settings):
    task = InDouble(size, symbols=2, region=1)
    network = lively(token_network(task, dim=16, fusion="sum", **settings))
    seen = poked(network, task)
    for axis, reach in line_reach(network, size).items():
        assert np.array_equal(reach, seen[axis]), axis


def test_a_gate_reads_how_neighbours_stand_but_nothing_of_single_tokens():
    task = InDouble(12, symbols=2)
    gated = lively(token_network(task, dim=16, cross_region="none"))
    assert poked(gated, task)["height"].all()
    alone = lively(token_network(task, dim=16, region=1))
    assert np.array_equal(poked(alone, task)["height"], np.eye(12))


def test_what_a_gate_reads_of_other_regions_fits_all_answers_alike():
    # Rolling a row of regions gives another image of the task, as probable as the first. The
    # rest of the map cannot tell them apart, and over all rolls each answer is right equally often.
    task = InDouble(12, (3,), symbols=2, region=3)
    network = lively(token_network(task, dim=16, cross_region="none"))
    x, target, _ = task.batch(4, 0)
    rolled = torch.stack([target] * 4)
    for roll in range(1, 4):
        other = x.clone()
        other[:, :, 3:6] = x[:, :, 3:6].roll(3 * roll, 3)
        changed = answers_apart(network, x, other)
        assert changed[3:6].any()
        assert not changed[:3].any()
        assert not changed[6:].any()
        rolled[roll, :, :, :3] = other.argmax(1)[:, None, 3:6]
    assert (rolled[:, :, :, :3].double().mean(0) == 0.5).all()


def test_a_network_of_several_stages_has_no_one_line_of_tokens():
    network = token_network(CopyFromDistance())
    network.stages.append(network.stages[0])
    with pytest.raises(ValueError, match=r"2 stages.*one stage"):
        line_reach(network, 12)


# ------------------------------------------------------------------ learning

QUICK = {"depth": 2, "dim": 16, "fusion": "sum"}


def learnt(task, steps=80, **settings):
    network = token_network(task, **{**QUICK, **settings})
    return train_on_task(task, network, steps, batch_size=16, images=1024)


@pytest.mark.parametrize(("cross_region", "possible"), [("none", 2 / 3), ("shift", 1.0)])
def test_copying_is_learnt_exactly_where_the_index_maps_let_it_be(cross_region, possible):
    task = CopyFromDistance(6, (1,), symbols=2)
    result = learnt(task, cross_region=cross_region)
    # without a cross-region step two of three rows find their source inside the region
    assert np.isclose(np.mean(result.upper_bound == 1.0), possible)
    assert result.agreement() == 1.0
    assert result.by_distance[1][0] == pytest.approx(possible + (1 - possible) / 2, abs=0.03)


def test_learning_shows_the_copy_that_padding_lends_in_one_direction_only():
    task = CopyFromDistance(8, (1, -1), symbols=2, region=1)
    result = learnt(task, depth=1, dim=24)
    assert (result.positions[0, 7] > 0.9).all()  # row 7 shares its region with a copy of row 0
    assert (result.positions[1, 0] < 0.6).all()  # row 7 does not reach row 0
    assert result.agreement() == 1.0


@pytest.mark.parametrize(("cross_region", "possible"), [("none", 0.5), ("shift", 1.0)])
def test_only_a_cross_region_step_lets_tokens_reach_across_a_border(cross_region, possible):
    result = learnt(MeetAcrossBorder(6, 3), cross_region=cross_region)
    assert np.isnan(result.positions).sum() == 4 * 6  # the rows at no border
    assert (result.upper_bound[~np.isnan(result.upper_bound)] == possible).all()
    assert result.accuracy == pytest.approx(possible, abs=0.04)


@pytest.mark.parametrize(
    ("settings", "possible"),
    [
        ({"cross_region": "none"}, 1.0),
        ({"cross_region": "none", "branches": ("height", "channel")}, 0.5),
        ({"region": 1}, 0.25),
    ],
)
def test_texture_needs_both_axes_and_no_other_region(settings, possible):
    result = learnt(TextureInRegion(6, 3), depth=1, dim=24, **settings)
    assert (result.upper_bound == possible).all()
    assert result.accuracy == pytest.approx(possible, abs=0.04)


class WhichIsMore(CopyFromDistance):
    """What an average carries, and tasks must not ask: which symbol most tokens hold."""

    def _draw(self, rng, n):
        more = rng.integers(2, size=(n, 1, 1))
        symbols = np.where(rng.random((n, self.size, self.size)) < 0.75, more, 1 - more)
        return symbols, np.broadcast_to(more, symbols.shape)[:, None]


def test_the_gate_carries_averages_and_the_answers_are_not_in_them():
    gated = {"depth": 1, "fusion": "gate", "region": 1}  # no reach but through the gate
    assert learnt(WhichIsMore(6, symbols=2), **gated).accuracy > 0.95
    assert learnt(WhichIsMore(6, symbols=2), depth=1, region=1).accuracy < 0.8
    task = CopyFromDistance(6, (1,), symbols=2)
    assert learnt(task, **gated).accuracy == pytest.approx(0.5, abs=0.03)


def test_learning_by_distance_is_the_reach():
    result = reach_by_learning(
        (-2, 1, 3, -1), size=6, steps=80, depth=1, dim=16, cross_region="none"
    )
    assert list(result.by_distance) == [-1, 1, -2, 3]
    for accuracy, possible in result.by_distance.values():
        assert accuracy == pytest.approx(possible, abs=0.03)
    possible = [c for _, c in result.by_distance.values()]
    np.testing.assert_allclose(possible, [5 / 6, 5 / 6, 4 / 6, 3 / 6])
    said = str(result)
    for number in ("50.0% by chance", "+1 tokens", "of 83.3%", "-2 tokens"):
        assert number in said


def test_the_same_seeds_learn_the_same():
    task = CopyFromDistance(6, symbols=2)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    runs = [learnt(task, steps=5, drop_path_rate=0.5) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(runs[0].loss, runs[1].loss)
    assert np.array_equal(runs[0].positions, runs[1].positions)
    other = learnt(task, steps=5, drop_path_rate=0.5, seed=1)
    assert not np.array_equal(runs[0].loss, other.loss)


# ------------------------------------------------------------------ measuring


class Roller(nn.Module):
    """Knows how to copy, by rolling; except in row 2, where it always answers wrongly."""

    def __init__(self, distances):
        super().__init__()
        self.distances = distances
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        answers = torch.cat([x.roll(-d, 2) for d in self.distances], 1)
        answers[:, :, 2] = 1 - answers[:, :, 2]  # two symbols
        return answers * self.scale


def test_accuracy_is_counted_question_by_question_and_position_by_position():
    task = CopyFromDistance(6, (1, -2), symbols=2, wrap=False)
    network = Roller(task.distances)
    result = train_on_task(task, network, 2, lr=1e-6, images=200)
    wanted = np.ones((2, 6, 6))
    wanted[:, 2] = 0
    wanted[0, 5] = wanted[1, :2] = np.nan
    np.testing.assert_array_equal(result.positions, wanted)
    assert result.accuracy == pytest.approx(7 / 9)
    assert result.by_distance[1][0] == pytest.approx(4 / 5)
    assert np.isnan(result.upper_bound).all()  # nobody knows the reach of a foreign network
    assert not network.training


class Watched(CopyFromDistance):
    def batch(self, n, step, fresh=False):
        self.asked.append((n, step, fresh))
        return super().batch(n, step, fresh)


def test_nothing_is_measured_on_what_was_trained_on():
    task = Watched(6, symbols=2)
    object.__setattr__(task, "asked", [])
    train_on_task(task, token_network(task, dim=16), 3, batch_size=4, images=300)
    assert [a for a in task.asked if not a[2]] == [(4, 0, False), (4, 1, False), (4, 2, False)]
    measured = [a for a in task.asked if a[2]]
    assert sum(n for n, _, _ in measured) == 300
    assert len({step for _, step, _ in measured}) == len(measured)


def test_what_was_learnt_can_be_kept(tmp_path):
    task = CopyFromDistance(np.int64(6), np.array([1, -1]), np.int64(2))
    result = train_on_task(task, token_network(task, dim=16), 2, images=16)
    result.save(tmp_path / "result.npz")
    again = TaskResult.load(tmp_path / "result.npz")
    assert again.by_distance == result.by_distance
    assert str(again) == str(result)
    assert again.task["name"] == "CopyFromDistance"
    assert any("region=3, shift=1" in text for text in again.network.values())
    texture = train_on_task(
        TextureInRegion(6), token_network(TextureInRegion(6), dim=16), 1, images=8
    )
    with pytest.raises(ValueError, match="TextureInRegion asks for no distance"):
        _ = texture.by_distance


def test_networks_read_and_answer_token_by_token():
    task = CopyFromDistance(8, (1, 2, 3), symbols=4, region=2)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    network = token_network(task, depth=3, dim=16, region=2, shift=1, cycle=2, seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    again = token_network(task, depth=3, dim=16, region=2, shift=1, cycle=2, seed=7).state_dict()
    assert all(torch.equal(v, again[k]) for k, v in network.state_dict().items())
    assert network(task.batch(2, 0).x).shape == (2, 12, 8, 8)
    # a real one: its points are named, and its shifts are those of the paper's cycle
    _, cache = network.run_with_cache(task.batch(2, 0).x, points="stages.0.blocks.*.hire.height")
    shifts = [point.rearrangement.shift for point in cache.points()]
    assert shifts == [0, 1, 0]


# ------------------------------------------------------------------ bad arguments


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CopyFromDistance(10, symbols=4), "size is 10, region 3 and symbols 4.*3 x 4"),
        (
            lambda: CopyFromDistance(2, symbols=2, region=1),
            "size is 2; give a whole number of at least 3",
        ),
        (lambda: CopyFromDistance(6.5), "size is 6.5.*whole"),
        (lambda: CopyFromDistance(6, symbols=1), "symbols is 1; give a whole number of at least 2"),
        (lambda: CopyFromDistance(12, (12,)), re.escape("distances is (12,)") + ".*shorter"),
        (lambda: CopyFromDistance(12, (1, 1)), "each once"),
        (lambda: CopyFromDistance(12, ()), "one or more"),
        (lambda: CopyFromDistance(12, (0.5,)), "distance is 0.5"),
        (lambda: CopyFromDistance(axis="depth"), "no axis 'depth'.*height, width"),
        (lambda: CopyFromDistance(seed=-1), "seed is -1"),
        (lambda: TextureInRegion(6, 2), "region is 2; give a whole number of at least 3"),
        (lambda: TextureInRegion(10, 3), "size is 10 and region 3.*multiple"),
        (lambda: MeetAcrossBorder(6, 1), "region is 1; give a whole number of at least 2"),
        (lambda: MeetAcrossBorder(6, 6), "size is 6, region 6 and symbols 2.*6 x 2"),
        (lambda: reach_by_learning(size=14, fusion="gate"), "size is 14, region 3"),
        (lambda: MeetAcrossBorder(axis=2), "no axis 2"),
        (lambda: CopyFromDistance().batch(0, 0), "n is 0"),
        (lambda: CopyFromDistance().batch(1, -1), "step is -1"),
        (lambda: reach_by_learning(steps=0), "steps is 0"),
        (lambda: token_network(CopyFromDistance(), padding="mirror"), "padding is 'mirror'"),
    ],
)
def test_impossible_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_network_that_does_not_answer_token_by_token_is_told_so():
    task = CopyFromDistance(6, symbols=2)
    with pytest.raises(ValueError, match=r"shape \(16, 4, 6, 6\).*1 questions of 2 classes"):
        train_on_task(task, token_network(CopyFromDistance(6, (1, 2), 2), dim=16), 1, batch_size=16)


def test_a_loss_that_is_no_number_stops_with_its_step():
    task = CopyFromDistance(6, symbols=2)
    network = token_network(task, dim=16)
    network.head.bias.data[0] = torch.nan
    with pytest.raises(RuntimeError, match=r"nan at step 0.*smaller lr than 0\.01"):
        train_on_task(task, network, 3)


def test_a_task_of_ones_own_says_what_is_missing():
    with pytest.raises(TypeError, match="abstract"):
        Task()
