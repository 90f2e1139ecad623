"""Who can hear whom: against the pattern of the Jacobian, and against sets passed along by hand."""

from __future__ import annotations

import itertools
import random
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hirelab as hl
from hirelab import results
from hirelab.analysis.provenance import (
    MANNERS,
    PATHS,
    Provenance,
    ReachGrowth,
    descendants,
    heard,
    heard_by,
    provenance,
    reach_growth,
)
from hirelab.hooks.points import UnknownPoint, probes
from hirelab.models import HireMLP
from hirelab.rearrange import CROSS_REGIONS, PADDINGS, Rearrangement


@pytest.fixture(autouse=True, scope="module")
def _versions_once():
    """Looking up four packages takes several times as long as following a token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "version", cache(results.version))
        yield


# ------------------------------------------------------------------ the truth: a Jacobian's pattern


def network(seed: int = 0, **settings) -> HireMLP:
    """A small network in float64 with random weights and statistics, whose activations are never
    flat: a zero of its Jacobian is one of its structure."""
    settings = {"in_chans": 1, "num_classes": 3, "depths": (2, 2), "dims": (4, 6)} | settings
    stages = len(settings["depths"])
    for name, value in (("region", 2), ("shift", 1), ("shift_cycle", 2)):
        settings.setdefault(name, (value,) * stages)
    generator = torch.Generator().manual_seed(seed)
    model = HireMLP(**settings, dtype=torch.float64).eval()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, (nn.ReLU, nn.GELU)):
                setattr(module, name, nn.LeakyReLU(0.4))
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
            tensor.copy_(noise + 0.5 if name.endswith("var") else noise - 0.5)
    return model


def cut(value: Tensor, point) -> Tensor:
    return value.detach()


CUTS = {
    "full": (),
    "spatial": ("gate",),
    "shift off": ("gate",),
    "height": ("gate", "width", "channel"),
    "width": ("gate", "height", "channel"),
    "channel": ("gate", "height", "width"),
}


def jacobian(model: HireMLP, point: str, size: tuple[int, int], paths: str) -> dict:
    """For every point and "input": (places of ``point``, rows, columns) bool, by autograd.

    Copy i of the input is asked only for place i. Every probe hands on a copy, or points that pass
    a tensor on unchanged could not be told apart.
    """
    names = list(probes(model))
    ends = tuple(f".hire.{part}.out" for part in CUTS[paths])
    # a branch that is cut off is still asked itself, and so is a gate
    cuts = {n: cut for n in names if n.endswith(ends) and n != point} if ends else {}
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(1, 1, *size, generator=generator, dtype=torch.float64)
    shape = model.run_with_cache(x, point, stop_early=True)[1][point].shape
    places = shape[2] * shape[3] if len(shape) == 4 else 1
    x = x.repeat(places, 1, 1, 1).requires_grad_()
    with model.edits({"*": lambda value, point: value, **cuts}):
        _, seen = model.run_with_cache(x, "*", grad=True)
    value = seen[point].reshape(places, shape[1], -1, places)
    weight = torch.rand(value.shape[1:3], generator=generator, dtype=torch.float64)
    asked = torch.einsum("bckp,ck->bp", value, weight).trace()
    earlier = [name for name in names if seen[name].requires_grad]
    if not asked.requires_grad:
        earlier, gradients = [], [torch.zeros_like(x)]
    else:
        gradients = torch.autograd.grad(asked, [x, *(seen[n] for n in earlier)], allow_unused=True)
    grids = {"input": size} | {n: grid(seen[n]) for n in names}
    found = {n: np.zeros((places, *shape), bool) for n, shape in grids.items()}
    for name, gradient in zip(["input", *earlier], gradients, strict=True):
        if gradient is None:
            continue
        amount = gradient.abs().sum(1)  # over channels; a gate's branches count together
        found[name] = (amount.reshape(*found[name].shape, -1) != 0).any(-1).numpy()
    return found


def grid(value: Tensor) -> tuple[int, int]:
    return tuple(value.shape[2:]) if value.dim() == 4 else (1, 1)


def has_tokens(model: HireMLP, point: str) -> bool:
    return point == "input" or probes(model)[point].kind in ("token grid", "region grid")


def set_all(model: HireMLP, **settings) -> None:
    for branch in model.axis_branches().values():
        for name, value in settings.items():
            setattr(branch, name, value)


@pytest.mark.parametrize("region", [1, 2, 3, 5])
@pytest.mark.parametrize("shift", [0, 1, -3])
def test_every_setting_is_the_pattern_of_the_jacobian(region, shift):
    """All tokens of all settings of two blocks, pixels and tokens on the way: no token missing and
    none too many, in both directions."""
    model = network(depths=(2,), dims=(4,), region=(region,))
    sizes = itertools.cycle([(15, 19), (27, 8), (20, 14)])
    points = itertools.cycle(["stages.0.out", "stages.0.blocks.1.hire.fused"])
    for padding, cross_region, restore in itertools.product(PADDINGS, CROSS_REGIONS, (True, False)):
        set_all(model, shift=shift, padding=padding, cross_region=cross_region, restore=restore)
        model.stages[0].blocks[1].hire.width.shift = shift + 1
        point, size = next(points), next(sizes)
        truth = jacobian(model, point, size, "spatial")
        rows, columns = truth["stages.0.out"].shape[1:]
        for place, token in enumerate(itertools.product(range(rows), range(columns))):
            back = provenance(model, token, point, "spatial", size)
            for name in back.names[: back.names.index(point)]:
                assert np.array_equal(back[name], truth[name][place]), (name, padding, token)
            if place % 5 == 2:
                on = descendants(model, token, "stem", "spatial", size)
                assert np.array_equal(on[point].ravel(), truth["stem.out"][:, *token])
        assert place == len(truth["stem.out"]) - 1


def mixed_network(seed: int) -> tuple[HireMLP, tuple[int, int]]:
    """Two stages whose every branch has settings of its own, and an input that is not square."""
    draw = random.Random(seed)
    branches = draw.choice([("height", "width", "channel"), ("height", "width"), ("width",)])
    model = network(
        seed,
        region=[draw.randint(1, 4) for _ in range(2)],
        branches=branches if seed else ("height", "width", "channel"),
        fusion="sum" if seed == 2 else "gate",
        global_pool="" if seed == 3 else "avg",
    )
    for branch in model.axis_branches().values():
        branch.shift = draw.randint(-3, 5)
        branch.padding, branch.cross_region = draw.choice(PADDINGS), draw.choice(CROSS_REGIONS)
        branch.restore = draw.random() < 0.5
    return model, (draw.randint(11, 24), draw.randint(11, 24))


@pytest.mark.parametrize(
    ("seed", "paths"), [(0, "full"), (0, "spatial"), (1, "spatial"), (2, "full"), (3, "full")]
)
def test_every_point_hears_and_is_heard_as_the_jacobian_says(seed, paths):
    """Inside branches, region grids, gates and vectors; the whole stack with its convolutions."""
    model, size = mixed_network(seed)
    draw = random.Random(seed)
    names = list(probes(model))
    asked = [*draw.sample(names, 40 if seed == 0 else 15), "features"]
    truth = {point: jacobian(model, point, size, paths) for point in asked}
    for point in truth:
        tokens, columns = [None], 1
        if has_tokens(model, point):
            rows, columns = truth[point][point].shape[1:]
            tokens = draw.sample(list(itertools.product(range(rows), range(columns))), 1)
        for token in tokens:
            place = 0 if token is None else token[0] * columns + token[1]
            back = provenance(model, token, point, paths, size)
            assert back.names[0] == "input"
            assert back.names[-1] == point
            for name in back.names[:-1]:
                assert np.array_equal(back[name], truth[point][name][place]), (point, name, token)
    # a gate that is cut off is left out of what others hear, so nobody hears it
    for source in ["input", *names]:
        rows, columns = truth["features"][source].shape[1:]
        token = (draw.randrange(rows), draw.randrange(columns))
        on = descendants(model, token if has_tokens(model, source) else None, source, paths, size)
        assert on.names[0] == source
        assert on.names[-1] == "logits"
        for name in truth.keys() & set(on.names[1:]):
            expected = truth[name][source][:, token[0], token[1]]
            assert np.array_equal(on[name].ravel(), expected), (source, name, token)


@pytest.mark.parametrize("paths", ["height", "width", "channel", "shift off"])
def test_paths_through_one_branch_and_without_shifts(paths):
    model, size = mixed_network(0)
    found = {}
    for point in ("features", "stages.1.blocks.0.mid", "stages.0.blocks.1.hire.width.mixed"):
        before = [branch.shift for branch in model.axis_branches().values()]
        shape = jacobian(model, point, size, "full")[point].shape[1:]
        token = (shape[0] - 1, shape[1] // 2)
        found[point] = provenance(model, token, point, paths, size)
        assert [branch.shift for branch in model.axis_branches().values()] == before
    if paths == "shift off":
        model.set_rearrangement(shift=0)
    for point, back in found.items():
        truth = jacobian(model, point, size, paths)
        place = back.token[0] * truth[point].shape[2] + back.token[1]
        for name in back.names[:-1]:
            assert np.array_equal(back[name], truth[name][place]), (point, name)


# ------------------------------------------------------------------ what follows from the structure


def test_the_gate_counts_from_its_block_on_and_not_before():
    model = hl.create("hire_mlp_atto", device="meta")
    point = "stages.0.blocks.0.hire.{}"
    assert provenance(model, (9, 9), point.format("fused")).pixels.all()
    for inside in ("input", "height", "width", "channel"):
        full = provenance(model, (9, 9), point.format(inside))
        spatial = provenance(model, (9, 9), point.format(inside), "spatial")
        assert np.array_equal(full.flat, spatial.flat)
        assert full.share("input") < 0.01
    assert provenance(model, None, point.format("gate")).pixels.all()
    assert provenance(model, None, point.format("gate"), "spatial").pixels.all()
    assert provenance(model, None, "logits", "channel").pixels.all()


def test_the_gate_of_a_single_branch_weighs_nothing():
    """The softmax of one number is 1, whatever it reads."""
    model = network(branches=("height",))
    truth = jacobian(model, "stages.0.out", (20, 20), "full")
    back = provenance(model, (2, 3), "stages.0.out", size=20)
    assert np.array_equal(back.pixels, truth["input"][2 * 5 + 3])
    assert not back.pixels.all()
    assert not provenance(model, None, "stages.0.blocks.0.hire.gate", size=20).pixels.any()


def test_reach_is_not_mutual_where_a_padded_copy_is_lent():
    model = network(depths=(1,), dims=(4,), region=(3,), shift=(0,), branches=("height",))
    size = (56, 8)  # 14 lines of 2 tokens
    hears = provenance(model, (13, 0), "stages.0.out", "spatial", size)["stem"]
    heard_by_others = descendants(model, (13, 0), "stem", "spatial", size)["stages.0"]
    assert np.argwhere(hears).tolist() == [[0, 0], [12, 0], [13, 0]]
    assert np.argwhere(heard_by_others).tolist() == [[12, 0], [13, 0]]


def test_pixels_that_the_stem_does_not_reach():
    """A kernel of 7 at every 4th pixel from -2 on stops short of the last pixel of 226."""
    model = hl.create("hire_mlp_atto", device="meta")
    assert provenance(model, None, "logits", size=224).pixels.all()
    pixels = provenance(model, None, "logits", size=(226, 224)).pixels
    assert np.flatnonzero(~pixels.any(axis=1)).tolist() == [225]
    on = descendants(model, (225, 0), size=(226, 224))
    assert on.flat.sum() == 1
    assert not on["logits"].any()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"fusion": "sum", "global_pool": ""},
        {"branches": ("channel",)},
        {"branches": ("width",), "num_classes": 0, "stage_norms": True},
        {"depths": (1, 3, 1), "dims": (4, 4, 4)},
    ],
)
def test_every_point_of_the_model_has_its_map(settings):
    model = network(**settings)
    table = model.points("*", (1, 50, 37))
    on = descendants(model, (0, 0), "input", size=(50, 37))
    assert set(on.names) == {"input"} | {p.name for p in table}
    for point in table:
        expected = point.shape[2:] if "grid" in point.kind else (1, 1)
        assert on[point.name].shape == expected
    assert provenance(model, (0, 0), "input", size=50).names == ["input"]


def test_a_network_that_was_cut_short_is_followed_to_its_end():
    model = network()
    model.prune_intermediate_layers([0])
    assert provenance(model, (1, 2), "features", "spatial", 20).share("stages.0") == 1 / 25


def test_nothing_is_run_and_nothing_is_left_behind(monkeypatch):
    model = network().train()
    state = {k: v.clone() for k, v in model.state_dict().items()}

    def fail(*args, **kwargs):
        raise AssertionError("the network was run")

    monkeypatch.setattr(nn.Module, "__call__", fail)
    for paths in PATHS:
        provenance(model, (0, 0), "stages.1.out", paths, 24)
        descendants(model, (0, 0), "input", paths, 24)
    assert model.attached() == []
    assert all(module.training for module in model.modules())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


# ------------------------------------------------------------------ the result, and bad input


def test_a_result_can_be_read_kept_and_drawn(tmp_path):
    model = hl.create("hire_mlp_atto", device="meta")
    back = provenance(model, np.array([3, 5]), "stages.1.blocks.0.hire.height.regions", "spatial")
    assert back.token == (3, 5)
    assert back.levels == [
        "input", "stem.out", "stages.0.out", "stages.1.downsample.out", back.point,
    ]  # fmt: skip
    assert np.array_equal(back.pixels, back["input"])
    assert back["stages.0"].sum() == back["stages.0.out"].sum() > 0
    assert back.share("stem") == back["stem"].mean()
    with pytest.raises(UnknownPoint, match=r"Did you mean 'stages\.0\.out'"):
        back["stages.0.uot"]
    back.save(tmp_path / "back.npz")
    again = Provenance.load(tmp_path / "back.npz")
    assert repr(again) == repr(back)
    assert again.token == (3, 5)
    assert all(np.array_equal(again[n], back[n]) for n in back.names)
    still = back.plot()
    assert still.text == repr(back)
    assert f"{back.pixels.sum()} of 50176" in still.text
    assert still.data == again.plot().data
    vector = Provenance(
        "pooled", None, "full", "back", ["pooled"], np.ones((1, 2), int), np.ones(1)
    )
    assert vector.plot().data != still.data
    assert "What pooled hears" in vector.plot().text
    assert "What hears pixel (1, 2) of input" in repr(descendants(model, (1, 2)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"point": "stages.1.otu"}, UnknownPoint, "no point 'stages.1.otu'. Did you mean"),
        ({"point": "stages.0.downsample"}, UnknownPoint, "no point 'stages.0.downsample'"),
        ({"point": "stages.*.out"}, UnknownPoint, r"no point 'stages.\*.out'"),
        ({"point": 3}, UnknownPoint, "no point 3"),
        ({"token": (28, 0)}, ValueError, r"\(28, 0\); stages.1.out has 28 x 28 tokens"),
        ({"token": (0, -1)}, ValueError, r"\(0, -1\); .* from \(0, 0\) to \(27, 27\)"),
        ({"token": 3}, ValueError, "token is 3;"),
        ({"token": (1.0, 2)}, ValueError, r"token is \(1.0, 2\)"),
        ({"token": (True, 2)}, ValueError, r"token is \(True, 2\)"),
        ({"token": None}, ValueError, "token is None; stages.1.out has 28 x 28"),
        ({"token": (10, 0), "point": "stages.1.blocks.0.hire.height.mixed"}, ValueError,
         r"\(10, 0\); .* 10 x 28 regions"),
        ({"token": (224, 0), "point": "input"}, ValueError, "224 x 224 pixels"),
        ({"point": "logits"}, ValueError, "logits is a vector and has no tokens: give token=None"),
        ({"point": "stages.0.blocks.0.hire.gate"}, ValueError, "gate.out is a gate and has no"),
        ({"paths": "spacial"}, ValueError, "Did you mean 'spatial'"),
        ({"paths": ["full"]}, ValueError, r"no choice of paths \['full'\]"),
        ({"size": 2}, ValueError, "size is 2; .* at least 3 x 3"),
        ({"size": (2, 224)}, ValueError, r"size is \(2, 224\)"),
        ({"size": (3, 32, 32)}, ValueError, r"size is \(3, 32, 32\); give the input's"),
        ({"size": 64.5}, ValueError, "size is 64.5"),
        ({"size": "224"}, ValueError, "size is '224'"),
        ({"model": nn.Linear(1, 1)}, TypeError, "HireMLP; this is a Linear"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("function", [provenance, descendants])
def test_bad_input_is_one_sentence(function, change, error, message):
    arguments = {"token": (3, 3), "point": "stages.1.out"}
    arguments["model"] = hl.create("hire_mlp_atto", device="meta")
    with pytest.raises(error, match=message) as caught:
        function(**{**arguments, **change})
    assert "\n" not in str(caught.value)


def test_other_networks_are_refused_with_the_cure():
    model = network()
    with pytest.raises(TypeError, match="the one that this was made from"):
        provenance(hl.deploy(model), (0, 0), "stages.0.out")
    features = hl.create("hire_mlp_atto", features_only=True)
    with pytest.raises(TypeError, match="FeatureListNet"):
        provenance(features, (0, 0), "stages.0.out")
    with pytest.raises(ValueError, match="built without width branches"):
        provenance(network(branches=("height", "channel")), (0, 0), "stages.0.out", "width")


# ------------------------------------------------------------------ blocks in a row

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


@pytest.mark.parametrize("manner", MANNERS)
def test_what_one_token_has_heard_is_its_part_of_what_all_have(manner):
    size, shifts = 7, (0, 2, 1, 0, 2)
    blocks = [Rearrangement(size, 3, shift, **MANNERS[manner]) for shift in shifts]
    lines, maps = list(heard(blocks, size)), list(heard(blocks, size, axes=2))
    history = [{token} for token in range(size)]
    for n, shift in enumerate((None, *shifts)):
        if n:
            met = one_block(size, 3, shift, manner)
            history = [history[t].union(*(history[m] for m in met[t])) for t in range(size)]
        for token in range(size):
            assert set(np.flatnonzero(lines[n][token])) == history[token]
            assert np.array_equal(heard_by((token,), blocks[:n], size), lines[n][token])
            place = (token, (3 * token) % size)
            expected = maps[n][place].reshape(size, size)
            assert np.array_equal(heard_by(place, blocks[:n], size), expected)


def test_blocks_in_a_row_have_an_order():
    first, second = Rearrangement(6, 2, 0), Rearrangement(6, 3, 0)
    *_, forth = heard([first, second], 6)
    *_, other = heard([second, first], 6)
    assert not np.array_equal(forth, other)
    assert np.flatnonzero(forth[0]).tolist() == [0, 1, 2, 3]  # 0 hears 2, which heard 3 before
    assert np.flatnonzero(heard_by((0,), [first, second], 6)).tolist() == [0, 1, 2, 3]
    assert [told.tolist() for told in heard([], 1)] == [[[True]]]


def test_blocks_of_different_sizes_are_no_row():
    with pytest.raises(ValueError, match="rearranges 5 tokens, where the line has 7"):
        list(heard([Rearrangement(7, 3), Rearrangement(5, 3)], 7))
    with pytest.raises(ValueError, match="rearranges 5 tokens, where the line has 7"):
        heard_by((0, 0), [Rearrangement(5, 3)], 7)


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
