"""Where information comes from and goes to, against the pattern of the Jacobian."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hirelab as hl
from hirelab.analysis.paths import PATHS
from hirelab.analysis.provenance import Provenance, descendants, provenance
from hirelab.hooks.points import UnknownPoint, probes
from hirelab.models import HireMLP
from hirelab.rearrange import CROSS_REGIONS, PADDINGS

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
def test_every_point_reaches_and_is_reached_as_the_jacobian_says(seed, paths):
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
    # a gate that is cut off reaches nobody
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
        place = back.position[0] * truth[point].shape[2] + back.position[1]
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
    back = provenance(model, (2, 3), "stages.0.out", img_size=20)
    assert np.array_equal(back.pixels, truth["input"][2 * 5 + 3])
    assert not back.pixels.all()
    assert not provenance(model, None, "stages.0.blocks.0.hire.gate", img_size=20).pixels.any()


def test_reach_is_not_mutual_where_only_a_padded_copy_is_read():
    model = network(depths=(1,), dims=(4,), region=(3,), shift=(0,), branches=("height",))
    size = (56, 8)  # 14 lines of 2 tokens
    back = provenance(model, (13, 0), "stages.0.out", "spatial", size)["stem"]
    on = descendants(model, (13, 0), "stem", "spatial", size)["stages.0"]
    assert np.argwhere(back).tolist() == [[0, 0], [12, 0], [13, 0]]
    assert np.argwhere(on).tolist() == [[12, 0], [13, 0]]


def test_pixels_that_the_stem_does_not_reach():
    """A kernel of 7 at every 4th pixel from -2 on stops short of the last pixel of 226."""
    model = hl.create("hire_mlp_atto", device="meta")
    assert provenance(model, None, "logits", img_size=224).pixels.all()
    pixels = provenance(model, None, "logits", img_size=(226, 224)).pixels
    assert np.flatnonzero(~pixels.any(axis=1)).tolist() == [225]
    on = descendants(model, (225, 0), img_size=(226, 224))
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
    on = descendants(model, (0, 0), "input", img_size=(50, 37))
    assert set(on.names) == {"input"} | {p.name for p in table}
    for point in table:
        expected = point.shape[2:] if "grid" in point.kind else (1, 1)
        assert on[point.name].shape == expected
    assert provenance(model, (0, 0), "input", img_size=50).names == ["input"]
    assert provenance(model, (0, 0), img_size=50).point == "features"


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
    assert back.position == (3, 5)
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
    assert again.position == (3, 5)
    assert all(np.array_equal(again[n], back[n]) for n in back.names)
    still = back.plot()
    assert still.text == repr(back)
    assert f"{back.pixels.sum()} of 50176" in still.text
    assert still.data == again.plot().data
    vector = Provenance(
        "pooled", None, "full", "back", ["pooled"], np.ones((1, 2), int), np.ones(1)
    )
    assert vector.plot().data != still.data
    assert "What reaches pooled" in vector.plot().text
    assert "What pixel (1, 2) of input reaches" in repr(descendants(model, (1, 2)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"point": "stages.1.otu"}, UnknownPoint, "no point 'stages.1.otu'. Did you mean"),
        ({"point": "stages.0.downsample"}, UnknownPoint, "no point 'stages.0.downsample'"),
        ({"point": "stages.*.out"}, UnknownPoint, r"no point 'stages.\*.out'"),
        ({"point": 3}, UnknownPoint, "no point 3"),
        ({"position": (28, 0)}, ValueError, r"\(28, 0\); stages.1.out has 28 x 28 tokens"),
        ({"position": (0, -1)}, ValueError, r"\(0, -1\); .* from \(0, 0\) to \(27, 27\)"),
        ({"position": 3}, ValueError, "position is 3;"),
        ({"position": (1.0, 2)}, ValueError, r"position is \(1.0, 2\)"),
        ({"position": (True, 2)}, ValueError, r"position is \(True, 2\)"),
        ({"position": None}, ValueError, "position is None; stages.1.out has 28 x 28"),
        ({"position": (10, 0), "point": "stages.1.blocks.0.hire.height.mixed"}, ValueError,
         r"\(10, 0\); .* 10 x 28 regions"),
        ({"position": (224, 0), "point": "input"}, ValueError, "224 x 224 pixels"),
        ({"point": "logits"}, ValueError, "is a vector and has no tokens: give position=None"),
        ({"point": "stages.0.blocks.0.hire.gate"}, ValueError, "gate.out is a gate and has no"),
        ({"paths": "spacial"}, ValueError, "Did you mean 'spatial'"),
        ({"paths": ["full"]}, ValueError, r"no choice of paths \['full'\]"),
        ({"img_size": 2}, ValueError, "img_size is 2; .* from 3 to 8,192"),
        ({"img_size": (2, 224)}, ValueError, r"img_size is \(2, 224\)"),
        ({"img_size": (3, 32, 32)}, ValueError, r"img_size is \(3, 32, 32\); give \(height"),
        ({"img_size": 64.5}, ValueError, "img_size is 64.5"),
        ({"img_size": "224"}, ValueError, "img_size is '224'"),
        ({"model": nn.Linear(1, 1)}, ValueError, "HireMLP; this is a Linear"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("function", [provenance, descendants])
def test_bad_input_is_one_sentence(function, change, error, message):
    arguments = {"position": (3, 3), "point": "stages.1.out"}
    arguments["model"] = hl.create("hire_mlp_atto", device="meta")
    with pytest.raises(error, match=message) as caught:
        function(**{**arguments, **change})
    assert "\n" not in str(caught.value)


def test_other_networks_are_refused_with_the_cure():
    model = network()
    with pytest.raises(ValueError, match="the one that this was made from"):
        provenance(hl.deploy(model), (0, 0), "stages.0.out")
    features = hl.create("hire_mlp_atto", features_only=True)
    with pytest.raises(ValueError, match="FeatureListNet"):
        provenance(features, (0, 0), "stages.0.out")
    with pytest.raises(ValueError, match="built without width branches"):
        provenance(network(branches=("height", "channel")), (0, 0), "stages.0.out", "width")


def test_the_drawing_says_in_which_direction_it_looks(monkeypatch):
    model = network()
    monkeypatch.setattr("hirelab.viz.reach.levels", lambda *said: said)
    assert "can reach it" in provenance(model, (0, 0), img_size=50).plot()
    assert "can be reached from it" in descendants(model, (0, 0), img_size=50).plot()
