"""The network: against the published sizes, a slow independent reference, and timm's contract."""

from __future__ import annotations

import copy
import importlib
import inspect
import io
import itertools
import pickle
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import reference_hire_mlp as reference
import timm
import torch
from _helpers import random_images, randomise
from timm.models import FeatureGraphNet, model_entrypoint
from timm.models._features_fx import get_notrace_functions, get_notrace_modules
from timm.models._manipulate import group_parameters
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import hirelab as hl
from hirelab import rearrange as rr
from hirelab._shared.errors import HirelabError
from hirelab.models import HireMLP
from hirelab.models import hire_mlp as hire_mlp_module

ATTO = "hire_mlp_atto"
PUBLISHED = {  # parameters, GMACs at 224 x 224
    "hire_mlp_tiny": (18_041_672, 2.144),
    "hire_mlp_small": (33_113_848, 4.231),
    "hire_mlp_base": (58_226_856, 8.111),
    "hire_mlp_large": (95_723_944, 13.422),
}


def atto(**kwargs) -> HireMLP:
    return hl.create(ATTO, seed=0, **{"num_classes": 7, **kwargs})


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def gmacs(model: nn.Module, size: int = 224) -> float:
    """Multiply-adds of convolutions and linear layers, counted as they run, on no data."""
    count = 0

    def look(module: nn.Module, args, out: torch.Tensor) -> None:
        nonlocal count
        per_output = module.weight[0].numel()
        count += out.numel() * per_output

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(look)
    model(torch.empty(1, model.in_chans, size, size, device="meta"))
    return count / 1e9


# ------------------------------------------------------------------ the published networks


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameters_and_cost(name):
    model = hl.create(name, device="meta")
    count, cost = PUBLISHED[name]
    assert parameters(model) == count
    assert gmacs(model) == pytest.approx(cost, abs=5e-4)


@pytest.mark.parametrize(
    ("name", "millions", "cost"),
    [
        ("hire_mlp_tiny", 16.08, 1.99),
        ("hire_mlp_small", 29.31, 3.90),
        ("hire_mlp_base", 51.47, 7.46),
        ("hire_mlp_large", 84.54, 12.35),
    ],
)
def test_the_papers_equation_without_gate_and_projection(name, millions, cost):
    model = hl.create(name, fusion="sum", device="meta")
    assert parameters(model) / 1e6 == pytest.approx(millions, abs=5e-3)
    assert gmacs(model) == pytest.approx(cost, abs=5e-3)


@pytest.mark.parametrize(
    ("layers", "millions", "cost"),
    [(1, 49.62, 5.63), (2, 33.11, 4.23), (3, 34.07, 4.29), (4, 35.02, 4.35)],
)
def test_layers_that_mix_a_region(layers, millions, cost):
    model = hl.create("hire_mlp_small", fc_layers=layers, device="meta")
    assert parameters(model) / 1e6 == pytest.approx(millions, abs=5e-3)
    assert gmacs(model) == pytest.approx(cost, abs=5e-3)


def test_study_sizes():
    assert parameters(hl.create("hire_mlp_pico", num_classes=10, device="meta")) == pytest.approx(
        4.4e6, rel=0.02
    )
    assert parameters(hl.create(ATTO, device="meta")) < 1e6


def shifts(model: HireMLP) -> list[list[int]]:
    return [
        [(b.hire.height.shift, b.hire.width.shift) for b in stage.blocks] for stage in model.stages
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hire_mlp_tiny", [[0, 2], [0, 2], [0, 1, 2, 0], [0, 1]]),
        ("hire_mlp_base", [[0, 2] * 2, [0, 2] * 3, [0, 1, 2] * 8, [0, 1, 0]]),
    ],
)
def test_shifts_of_the_blocks(name, expected):
    model = hl.create(name, device="meta")
    assert shifts(model) == [[(s, s) for s in stage] for stage in expected]
    regions = [stage.blocks[0].hire.height.region for stage in model.stages]
    assert regions == [4, 3, 3, 2]


# ------------------------------------------------------------------ the independent reference

SMALL = {
    "depths": (2, 2),
    "dims": (4, 8),
    "region": (3, 2),
    "shift": (2, -1),
    "shift_cycle": (2, 3),
}
REARRANGEMENTS = list(itertools.product(rr.PADDINGS, rr.CROSS_REGIONS, (True, False)))
BRANCH_CHOICES = [
    c for n in (1, 2, 3) for c in itertools.combinations(("height", "width", "channel"), n)
]
# pixels -> maps of the two stages: 5 x 7 and 3 x 4, 1 x 1 twice, 2 x 4 and 1 x 2 (below the region)
PIXELS = [(19, 27), (3, 3), (8, 16)]


def agree(model: HireMLP, settings: dict, pixels: tuple[int, int], training: bool) -> None:
    state = {k: v.numpy().copy() for k, v in model.state_dict().items()}
    x = random_images(2, model.in_chans, *pixels, dtype=torch.float64)
    expected = reference.forward(state, x.numpy(), settings, training)
    with torch.no_grad():
        got = model.train(training)(x).numpy()
    if training:  # moved the running statistics
        model.load_state_dict({k: torch.from_numpy(np.asarray(v)) for k, v in state.items()})
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12, err_msg=f"{settings}")


def build(**kwargs) -> HireMLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        options = {"in_chans": 2, "num_classes": 5, "dtype": torch.float64, **SMALL, **kwargs}
        return randomise(HireMLP(**options))


@pytest.mark.parametrize("training", [False, True])
def test_a_large_map_that_no_region_divides(training):
    """97 x 61 tokens in the first stage."""
    defaults = inspect.signature(HireMLP).parameters
    settings = {name: p.default for name, p in defaults.items()} | SMALL
    agree(build(), settings, (387, 243), training)


@pytest.mark.parametrize("branches", BRANCH_CHOICES, ids="+".join)
@pytest.mark.parametrize("fusion", ["gate", "sum"])
@pytest.mark.parametrize("fc_layers", [1, 2, 3, 4])
def test_agrees_with_the_slow_reference_for_every_choice(branches, fusion, fc_layers):
    """All 1344 combinations; sizes and modes take turns, so each meets each setting many times."""
    choice = {"branches": branches, "fusion": fusion, "fc_layers": fc_layers}
    model = build(**choice)
    turn = BRANCH_CHOICES.index(branches) + fc_layers
    for k, (padding, cross_region, restore) in enumerate(REARRANGEMENTS):
        setting = {"padding": padding, "cross_region": cross_region, "restore": restore}
        model.set_rearrangement(**setting)
        pixels, training = PIXELS[(turn + k) % 3], (turn + k // 3) % 2 == 1
        agree(model, {**SMALL, **choice, **setting}, pixels, training)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"region": 2}, r"hirelab\.create\(name, region=2\)"),
        ({"fusion": "sum"}, r"another one: hirelab\.create"),
        ({"shft": 1}, "Did you mean 'shift'"),
    ],
)
def test_what_a_built_network_cannot_change_is_said_in_words(others, said):
    model = build()
    before = {name: branch.shift for name, branch in model.axis_branches().items()}
    with pytest.raises(HirelabError, match=said):
        model.set_rearrangement(shift=5, **others)
    assert {name: branch.shift for name, branch in model.axis_branches().items()} == before


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("pixels", [*PIXELS, (40, 19)])
@pytest.mark.parametrize("setting", REARRANGEMENTS, ids=str)
def test_agrees_with_the_slow_reference_at_every_size(setting, pixels, training):
    names = ("padding", "cross_region", "restore")
    choice = {"region": (4, 3), "shift": (1, 7), **dict(zip(names, setting, strict=True))}
    defaults = {"branches": BRANCH_CHOICES[-1], "fusion": "gate", "fc_layers": 2}
    agree(build(**choice), {**SMALL, **defaults, **choice}, pixels, training)


def test_a_shipped_network_agrees_with_the_slow_reference():
    model = randomise(hl.create(ATTO, num_classes=5, dtype=torch.float64))
    settings = {
        "depths": (2, 2, 3, 2),
        "region": (4, 3, 3, 2),
        "shift": (2, 2, 1, 1),
        "shift_cycle": (2, 2, 3, 2),
        "padding": "circular",
        "cross_region": "shift",
        "restore": True,
        "branches": ("height", "width", "channel"),
        "fusion": "gate",
        "fc_layers": 2,
    }
    state = {k: v.numpy() for k, v in model.state_dict().items()}
    x = random_images(1, 3, 90, 70, dtype=torch.float64)
    expected = reference.forward(state, x.numpy(), settings)
    np.testing.assert_allclose(model(x).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("setting", REARRANGEMENTS, ids=str)
def test_settings_of_a_built_network_are_those_of_the_constructor(setting):
    names = ("padding", "cross_region", "restore")
    choice = {**dict(zip(names, setting, strict=True)), "shift": (3, -2, 1, 5)}
    built = atto(**choice)
    changed = atto()
    changed.load_state_dict(built.state_dict())
    before = changed(random_images())
    changed.set_rearrangement(**choice)
    assert torch.equal(changed(random_images()), built(random_images()))
    assert not torch.equal(before, built(random_images()))
    changed.set_rearrangement((2, 2, 1, 1), "circular", "shift", True)  # and back
    assert torch.equal(changed(random_images()), before)


def test_settings_that_are_not_named_stay():
    model = atto(padding="reflect", cross_region="shuffle", restore=False, shift=3)
    model.set_rearrangement()
    model.set_rearrangement(padding="zero")
    for branch in model.axis_branches().values():
        assert (branch.padding, branch.cross_region, branch.restore) == ("zero", "shuffle", False)
    assert shifts(model) == shifts(atto(shift=3))
    model.stages[2].blocks[1].hire.height.shift = 2
    assert shifts(model)[2][1] == (2, 3)


# ------------------------------------------------------------------ timm's contract


@pytest.mark.parametrize("in_chans", [1, 4])
@pytest.mark.parametrize("num_classes", [0, 7])
@pytest.mark.parametrize("pool", ["avg", "max", "avgmax", "catavgmax", ""])
def test_create_model(in_chans, num_classes, pool):
    model = timm.create_model(
        ATTO, in_chans=in_chans, num_classes=num_classes, global_pool=pool
    ).eval()
    x = random_images(2, in_chans)
    out, features = model(x), model.forward_features(x)
    assert features.shape == (2, 96, 2, 2)
    width = num_classes or 96 * (2 if pool == "catavgmax" else 1)
    assert out.shape == ((2, width) if pool else (2, width, 2, 2))
    assert torch.equal(out, model.forward_head(features))
    pooled = {
        "avg": features.mean((2, 3)),
        "max": features.amax((2, 3)),
        "avgmax": 0.5 * (features.mean((2, 3)) + features.amax((2, 3))),
        "catavgmax": torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1),
        "": features,
    }[pool]
    before_head = model.forward_head(features, pre_logits=True)
    torch.testing.assert_close(before_head, pooled)
    expected = before_head if num_classes == 0 else model.get_classifier()(before_head)
    assert torch.equal(out, expected)
    assert (model.num_classes, model.in_chans) == (num_classes, in_chans)
    assert model.num_features == model.head_hidden_size == 96


def test_default_cfg():
    for name in hl.model_names():
        cfg = timm.get_pretrained_cfg(name)
        assert cfg is not None, name
        assert cfg.input_size == (3, 128, 128) if cfg.file else (3, 224, 224)
        assert cfg.pool_size == tuple(side // 32 for side in cfg.input_size[1:])
        with torch.device("meta"):
            model = timm.create_model(name)
        weights = dict(model.named_parameters())
        assert f"{cfg.classifier}.weight" in weights
        assert weights[f"{cfg.first_conv}.weight"].shape[1] == 3
        assert model.default_cfg["architecture"] == name


def test_drop_path_rises_linearly_over_all_blocks():
    model = atto(drop_path_rate=0.4, drop_rate=0.3)
    blocks = [b for stage in model.stages for b in stage.blocks]
    rates = [getattr(b.drop_path1, "drop_prob", 0.0) for b in blocks]
    assert rates == pytest.approx(np.linspace(0.0, 0.4, 9).tolist())
    assert rates == [getattr(b.drop_path2, "drop_prob", 0.0) for b in blocks]
    assert model.head_drop.p == 0.3
    x = random_images()
    assert torch.equal(model(x), atto()(x))  # nothing is dropped in evaluation
    model.train()
    torch.manual_seed(0)
    assert not torch.equal(model(x), model(x))


@pytest.mark.parametrize(
    "indices", [c for n in (1, 2, 3, 4) for c in itertools.combinations(range(4), n)]
)
def test_features_only_for_any_stages(indices):
    whole = atto()
    features = timm.create_model(ATTO, features_only=True, out_indices=indices).eval()
    assert features.feature_info.channels() == [(16, 24, 48, 96)[i] for i in indices]
    assert features.feature_info.reduction() == [4 * 2**i for i in indices]
    left = features.load_state_dict(
        {k.replace("stages.", "stages_"): v for k, v in whole.state_dict().items()}, strict=False
    )
    assert left.missing_keys == []
    x = random_images(1, 3, 90, 70)
    expected = whole.forward_intermediates(x, list(indices), intermediates_only=True)
    got = features(x)
    assert len(got) == len(expected) == len(indices)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    # and by names of points, which the cut network keeps
    assert [f.shape[1] for f in got] == features.feature_info.channels()


def test_features_only_with_negative_index_and_getter():
    last = timm.create_model(ATTO, features_only=True, out_indices=(-2, -1)).eval()
    assert [f.shape[1] for f in last(random_images())] == [48, 96]
    getter = timm.create_model(
        ATTO, features_only=True, out_indices=(0, 2), feature_cls="getter"
    ).eval()
    assert [tuple(f.shape[1:]) for f in getter(random_images())] == [(16, 16, 16), (48, 4, 4)]


def test_forward_intermediates():
    model, x = randomise(atto()), random_images()
    final, maps = model.forward_intermediates(x)
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 16, 16), (24, 8, 8), (48, 4, 4), (96, 2, 2)]
    assert torch.equal(final, model.forward_features(x))
    assert not torch.equal(maps[-1], final)
    assert torch.equal(model.norm(maps[-1]), final)
    assert torch.equal(model.forward_intermediates(x, 1, norm=True)[1][0], final)
    assert len(model.forward_intermediates(x, 2, intermediates_only=True)) == 2
    early, maps_early = model.forward_intermediates(x, [1], stop_early=True)
    assert torch.equal(early, maps[1])
    assert torch.equal(maps_early[0], maps[1])
    ran = []
    handle = model.stages[2].register_forward_hook(lambda *_: ran.append(2))
    model.forward_intermediates(x, [1], stop_early=True)
    assert ran == []
    model.forward_intermediates(x, [1])
    assert ran == [2]
    handle.remove()
    with pytest.raises(ValueError, match=r"'NLC'.*'NCHW'"):
        model.forward_intermediates(x, output_fmt="NLC")
    with pytest.raises(AssertionError):
        model.forward_intermediates(x, [4])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_reset_classifier_keeps_what_it_should(training, dtype):
    model = atto(dtype=dtype).train(training)
    for classes, pool, shape in [(3, None, (2, 3)), (0, None, (2, 96)), (5, "max", (2, 5)),
                                 (4, "", (2, 4, 2, 2)), (6, None, (2, 6, 2, 2)),
                                 (0, "catavgmax", (2, 192)), (2, "avg", (2, 2))]:  # fmt: skip
        model.reset_classifier(classes, pool)
        assert model.num_classes == classes
        assert all(m.training is training for m in model.modules())
        assert {t.dtype for t in model.parameters()} == {dtype}
        assert model(random_images(dtype=dtype)).shape == shape
    if training:
        return
    meta = hl.create(ATTO, device="meta")
    meta.reset_classifier(3)
    assert meta.get_classifier().weight.device.type == "meta"


def test_reset_classifier_initialises_as_the_constructor():
    model = atto()
    model.reset_classifier(50)
    assert model.get_classifier() is model.head
    assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not model.head.bias.any()


def test_layer_decay_groups_follow_depth():
    model = atto()
    groups = group_parameters(model, model.group_matcher(), reverse=True)
    assert set(groups) == {name for name, _ in model.named_parameters()}
    blocks = [
        [groups[n] for n in groups if n.startswith(f"stages.{i}.blocks.{j}.")]
        for i, stage in enumerate(model.stages)
        for j in range(len(stage.blocks))
    ]
    assert all(len(set(b)) == 1 for b in blocks)  # a block is one group
    assert [b[0] for b in blocks] == list(range(1, 10))  # in order of depth
    assert {groups[n] for n in groups if n.startswith("stem.")} == {0}
    for i in (1, 2, 3):  # the way into a stage belongs to its first block
        down = {groups[n] for n in groups if n.startswith(f"stages.{i}.downsample")}
        assert down == {groups[f"stages.{i}.blocks.0.norm1.weight"]}
    assert groups["norm.weight"] >= 9
    assert groups["head.weight"] == max(groups.values()) > groups["norm.weight"]
    assert (
        len(set(group_parameters(model, model.group_matcher(coarse=True), reverse=True).values()))
        > 2
    )


def test_grad_checkpointing_changes_no_number():
    plain, saved = atto(drop_path_rate=0.2).train(), atto(drop_path_rate=0.2).train()
    saved.set_grad_checkpointing()
    results = []
    for model in (plain, saved):
        torch.manual_seed(3)
        out = model(random_images())
        out.square().sum().backward()
        results.append((out, [p.grad for p in model.parameters()]))
    torch.testing.assert_close(results[0], results[1])
    saved.set_grad_checkpointing(False)
    assert not any(s.grad_checkpointing for s in saved.stages)


@pytest.mark.parametrize("indices", [[0], [1], [0, 2], [3], 1, [2]])
@pytest.mark.parametrize("prune_norm", [False, True])
def test_pruning_leaves_no_unused_parameter(indices, prune_norm):
    model, x = atto(), random_images()
    expected = model.forward_intermediates(x, indices, intermediates_only=True)
    take = model.prune_intermediate_layers(indices, prune_norm=prune_norm)
    got = model.forward_intermediates(x, take, norm=not prune_norm, intermediates_only=True)
    if prune_norm or 3 not in take:
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    sum(g.sum() for g in got).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert model(x).shape[1] == model.num_features


@pytest.mark.parametrize("fusion", ["gate", "sum"])
@pytest.mark.parametrize("branches", BRANCH_CHOICES, ids="+".join)
def test_every_parameter_learns(branches, fusion):
    model = atto(branches=branches, fusion=fusion).train()
    model(random_images()).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    if fusion == "sum" or len(branches) > 1:
        still = [n for n, p in model.named_parameters() if not p.grad.any()]
        assert still == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_is_honoured(dtype):
    model = atto(dtype=dtype)
    tensors = [*model.parameters(), *model.buffers()]
    assert {t.dtype for t in tensors if t.is_floating_point()} == {dtype}
    out = model(random_images(dtype=dtype))
    assert out.dtype == dtype
    assert torch.isfinite(out).all()


def test_device_is_honoured():
    model = atto(device="meta")
    assert {t.device.type for t in [*model.parameters(), *model.buffers()]} == {"meta"}
    assert model(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, 7)


def test_unknown_arguments_are_refused():
    for wrong in ("img_size", "attn_drop_rate", "regions"):
        with pytest.raises(TypeError, match=wrong):
            timm.create_model(ATTO, **{wrong: 1})


TWO = {"depths": (1, 2), "dims": (8, 12), "region": 3, "shift": 2, "shift_cycle": 2}


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"padding": "zero", "restore": False, **TWO},
        {"padding": "reflect", "cross_region": "shuffle", **TWO},
        {"branches": ("width",), "fusion": "sum", "fc_layers": 3, "global_pool": "", **TWO},
    ],
    ids=str,
)
def test_script_and_trace(choice):
    model, x, other = atto(**choice), random_images(), random_images(1, 3, 50, 90)
    expected, expected_other = model(x), model(other)
    scripted = torch.jit.script(model)
    traced = torch.fx.symbolic_trace(model)
    for again in (scripted, traced):
        torch.testing.assert_close(again(x), expected)
        torch.testing.assert_close(again(other), expected_other)  # no size is burnt in
    with pytest.raises(Exception, match="shape"):
        scripted(x[0])
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer)
    buffer.seek(0)
    torch.testing.assert_close(torch.jit.load(buffer)(x), expected)


def test_features_by_graph():
    """As timm's own tests extract features from a traced graph."""
    model, x = atto(), random_images()
    tracer = {
        "leaf_modules": list(get_notrace_modules()),
        "autowrap_functions": list(get_notrace_functions()),
        "param_shapes_constant": True,
    }
    train_nodes, eval_nodes = get_graph_node_names(model, tracer_kwargs=tracer)
    graph = create_feature_extractor(
        model,
        train_return_nodes=[train_nodes[-1]],
        eval_return_nodes=[eval_nodes[-1]],
        tracer_kwargs=tracer,
    )
    graph.eval()
    torch.testing.assert_close(next(iter(graph(x).values())), model(x))
    graph.train()
    out = next(iter(graph(x).values()))
    out.sum().backward()
    assert torch.isfinite(out).all()

    net = timm.create_model(ATTO, features_only=True, feature_cls="fx", out_indices=(1, 3))
    assert isinstance(net, FeatureGraphNet)
    assert [tuple(f.shape[1:]) for f in net.eval()(x)] == [(24, 8, 8), (96, 2, 2)]


def test_copies_and_pickles():
    model, x = randomise(atto()), random_images()
    expected = model(x)
    assert torch.equal(copy.deepcopy(model)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), expected)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    fresh = hl.create(ATTO, num_classes=7, seed=5)
    assert not torch.equal(fresh(x), expected)
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(fresh(x), expected)


def test_a_state_dict_holds_weights_and_statistics_only():
    model = atto()
    expected = {n for n, _ in model.named_parameters()}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            expected |= {f"{name}.{b}" for b in ("running_mean", "running_var")}
            expected.add(f"{name}.num_batches_tracked")
    assert set(model.state_dict()) == expected


def test_channels_last_changes_no_number():
    model, x = atto(), random_images(2, 3, 50, 70)
    expected = model(x)
    model = model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x.contiguous(memory_format=torch.channels_last)), expected)


def test_export():
    model, x = atto(), random_images()
    program = torch.export.export(model, (x,))
    torch.testing.assert_close(program.module()(x), model(x))


# ------------------------------------------------------------------ registration and creation


def test_reloading_the_module_is_quiet_and_a_foreign_overwrite_is_not():
    original, classes = model_entrypoint(ATTO), dict(vars(hire_mlp_module))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            importlib.reload(hire_mlp_module)
        assert model_entrypoint(ATTO) is not original

        def hire_mlp_atto(pretrained=False, **kwargs):
            raise NotImplementedError

        with pytest.warns(UserWarning, match="Overwriting hire_mlp_atto"):
            timm.models.register_model(hire_mlp_atto)
        # and taking the name from somebody else is said, too
        with pytest.warns(UserWarning, match="Overwriting hire_mlp_atto"):
            hire_mlp_module.register_model(hire_mlp_module.hire_mlp_atto)
    finally:
        vars(hire_mlp_module).update(classes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in hl.model_names():
                timm.models.register_model(classes[name])
    assert model_entrypoint(ATTO) is original
    assert isinstance(atto(), HireMLP)


def test_pretrained_never_gives_random_weights_silently():
    for name in (ATTO, "hire_mlp_large"):  # of these no weights were released or ship
        for make in (hl.create, timm.create_model):
            with pytest.raises((RuntimeError, HirelabError), match=r"[Nn]o (pre)?trained weights"):
                make(name, pretrained=True)


def test_unknown_networks_suggest_near_ones():
    with pytest.raises(ValueError, match=r"'hire_mlp_tinny'\. Did you mean 'hire_mlp_tiny'"):
        hl.create("hire_mlp_tinny")
    with pytest.raises(ValueError, match=r"'resnet50'\. hirelab has hire_mlp_atto.*timm"):
        hl.create("resnet50")
    with pytest.raises(RuntimeError):
        timm.create_model("hire_mlp_tinny")


def test_a_seed_decides_the_weights_and_leaves_the_global_state():
    torch.manual_seed(123)
    state = torch.get_rng_state()
    one, same, other = (hl.create(ATTO, seed=s).state_dict() for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not torch.equal(one["stem.conv.weight"], other["stem.conv.weight"])
    with pytest.raises(ValueError, match="region is 0"):
        hl.create(ATTO, seed=0, region=0)
    assert torch.equal(torch.get_rng_state(), state)  # also after an error
    hl.create(ATTO)  # without a seed it draws from the global state, as timm does
    assert not torch.equal(torch.get_rng_state(), state)


def test_initial_weights():
    model = hl.create("hire_mlp_pico", seed=0)
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            if module.weight.numel() > 10_000:
                assert module.weight.std().item() == pytest.approx(0.02, rel=0.1), name
            assert module.bias is None or not module.bias.any()
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert not module.bias.any()


def test_create_is_timms_in_evaluation_mode():
    assert not any(m.training for m in hl.create(ATTO).modules())
    assert timm.create_model(ATTO).training


def test_the_core_imports_neither_matplotlib_nor_ipywidgets():
    """Of what hirelab itself imports: its dependencies may load what they like before."""
    script = (
        "import sys, torch, torchvision, timm\n"
        "before = set(sys.modules)\n"
        "import hirelab as hl\n"
        "hl.create('hire_mlp_atto', device='meta').points()\n"
        "new = {m.partition('.')[0] for m in set(sys.modules) - before}\n"
        "print(sorted(new & {'matplotlib', 'ipywidgets', 'IPython', 'captum'}))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# ------------------------------------------------------------------ impossible choices


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"region": 0}, r"region is 0"),
        ({"region": (4, 3, 0, 2)}, r"region is 0"),
        ({"region": 2.0}, r"region is 2\.0; .*whole number"),
        ({"region": (4, 3)}, r"region is \(4, 3\); give one number, or 4"),
        ({"region": "4332"}, r"region is '4332'"),
        ({"shift": 1.5}, r"shift is 1\.5"),
        ({"shift": (1, 2, 1.5, 0)}, r"shift is 1\.5"),
        ({"shift": (1, 2)}, r"shift is \(1, 2\); give one number, or 4"),
        ({"shift": "2"}, r"shift is '2'"),
        ({"shift_cycle": 0}, r"shift_cycle is .*0"),
        ({"shift_cycle": (2, 2)}, r"shift_cycle is \(2, 2\)"),
        ({"shift_cycle": 1.5}, r"shift_cycle is 1\.5"),
        ({"padding": "wrap"}, r"padding is 'wrap'; .*circular"),
        ({"padding": ""}, r"padding is ''"),
        ({"cross_region": "roll"}, r"cross_region is 'roll'; .*shift, shuffle, none"),
        ({"branches": ()}, r"branches is \(\); .*height, width, channel"),
        ({"branches": ("height", "depth")}, r"branches is .*'depth'"),
        ({"branches": ("height", "height")}, r"branches is .*each once"),
        ({"fusion": "mean"}, r"no fusion 'mean'.*gate, sum"),
        ({"fc_layers": 0}, r"fc_layers is 0; .* at least 1"),
        ({"fc_layers": 1.5}, r"fc_layers is 1\.5"),
        ({"depths": (2, 2)}, r"depths has 2 stages and dims 4"),
        ({"depths": (), "dims": ()}, r"depths is \(\)"),
        ({"depths": (2, -1, 2, 2)}, r"depths is \(2, -1, 2, 2\)"),
        ({"dims": (16, 2, 48, 96)}, r"dims is \(16, 2, 48, 96\); .* at least 4"),
    ],
    ids=str,
)
def test_impossible_choices_are_named(choice, message):
    with pytest.raises(ValueError, match=message):
        atto(**choice)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"shift": 1.5}, r"shift is 1\.5"),
        ({"shift": (1, 2)}, r"shift is \(1, 2\)"),
        ({"padding": "wrap"}, r"padding is 'wrap'"),
        ({"padding": ""}, r"padding is ''"),
        ({"cross_region": "roll"}, r"cross_region is 'roll'"),
        ({"cross_region": ""}, r"cross_region is ''"),
        ({"shift": 1, "padding": "wrap"}, r"padding is 'wrap'"),
        ({"padding": "zero", "shift": "x"}, r"shift is 'x'"),
    ],
    ids=str,
)
def test_impossible_changes_change_nothing(choice, message):
    model = atto()
    before = repr(model)
    with pytest.raises(ValueError, match=message):
        model.set_rearrangement(**choice)
    assert repr(model) == before


def test_whole_numbers_of_numpy_are_numbers():
    model = atto(region=np.array([4, 3, 3, 2]), shift=np.int64(1))
    assert type(model.stages[0].blocks[1].hire.height.shift) is int
    assert torch.equal(torch.jit.script(model)(random_images()), atto(shift=1)(random_images()))


def test_one_branch_by_name():
    assert list(atto(branches="height").axis_branches()) == list(
        atto(branches=("height",)).axis_branches()
    )


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 4, 64, 64), (64, 64), (1, 64, 64, 3), (0,)])
def test_wrong_input_shapes_are_named(shape):
    with pytest.raises(ValueError, match=re.escape(str(list(shape))) + r".*\(batch, 3, "):
        atto()(torch.zeros(shape))


def test_images_too_small_for_the_stem():
    model = atto()
    assert model(torch.zeros(1, 3, 3, 3)).shape == (1, 7)
    for high, wide in ((2, 64), (64, 1)):
        with pytest.raises(ValueError, match=f"{high} x {wide} pixels.*3 x 3"):
            model(torch.zeros(1, 3, high, wide))


def test_an_empty_batch_is_an_empty_answer():
    assert atto()(torch.zeros(0, 3, 64, 64)).shape == (0, 7)
