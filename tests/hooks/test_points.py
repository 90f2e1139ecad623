"""Points, cache and edits: the right values, nothing left behind, and errors that help."""

from __future__ import annotations

import gc
import itertools
import re
import weakref

import pytest
import torch
from torch import nn

import hirelab as hl
from hirelab import rearrange
from hirelab._shared.errors import HirelabError
from hirelab.hooks import points as probes
from hirelab.hooks.points import Probe, UnknownPoint

REARRANGEMENTS = list(itertools.product(rearrange.PADDINGS, rearrange.CROSS_REGIONS, (True, False)))
BLOCK = "stages.2.blocks.1"  # of the smallest network: shift 1, region 3, maps of 4 x 4 at 64 px


def image(batch: int = 2, high: int = 64, wide: int = 64, chans: int = 3) -> torch.Tensor:
    return torch.randn(batch, chans, high, wide, generator=torch.manual_seed(1))


def make(**kwargs) -> nn.Module:
    """A small network whose numbers all differ from those of an untrained one."""
    model = hl.create("hire_mlp_atto", seed=0, num_classes=5, **kwargs)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point():
                positive = re.search(r"norm\d?\.(weight|running_var)", name) is not None
                noise = torch.rand(tensor.shape, generator=generator) - 0.5
                scale = 2 / tensor[0].numel() ** 0.5 if tensor.dim() > 1 else 1.0
                tensor.copy_(noise * scale + positive)
    return model


@pytest.fixture(scope="module")
def shared() -> nn.Module:
    return make()


@pytest.fixture
def model(shared):
    """One network for all tests; every test leaves it as it was."""
    before = {k: v.clone() for k, v in shared.state_dict().items()}
    yield shared
    assert shared.attached() == []
    assert hooks(shared) == 0
    assert not any(m.training for m in shared.modules())
    assert all(torch.equal(v, before[k]) for k, v in shared.state_dict().items())


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


# ------------------------------------------------------------------ the table of points


def test_the_points_of_a_block_are_the_public_api(model):
    names = [p.name.removeprefix(f"{BLOCK}.") for p in model.points(f"{BLOCK}.*")]
    assert names == [
        "hire.input",
        "hire.height.shifted",
        "hire.height.regions",
        "hire.height.mixed",
        "hire.height.out",
        "hire.width.shifted",
        "hire.width.regions",
        "hire.width.mixed",
        "hire.width.out",
        "hire.channel.out",
        "hire.gate.out",
        "hire.fused",
        "hire.out",
        "mid",
        "mlp.hidden",
        "mlp.out",
        "out",
    ]
    outside = [p.name for p in model.points() if ".blocks." not in p.name]
    assert outside == [
        "stem.out",
        "stages.0.out",
        "stages.1.downsample.out",
        "stages.1.out",
        "stages.2.downsample.out",
        "stages.2.out",
        "stages.3.downsample.out",
        "stages.3.out",
        "features",
        "pooled",
        "logits",
    ]


def test_what_the_table_says_of_a_published_network():
    model = hl.create("hire_mlp_tiny", device="meta")
    table = {p.name: p for p in model.points()}
    regions = table["stages.1.blocks.1.hire.height.regions"]
    assert (regions.kind, regions.shape) == ("region grid", (1, 384, 10, 28))
    assert (regions.axis, regions.rearrangement.region, regions.rearrangement.shift) == (
        "height",
        3,
        2,
    )
    assert regions.rearrangement.slots[-1].tolist() == [25, 26, 27]
    assert table["stages.1.blocks.1.hire.width.mixed"].shape == (1, 384, 28, 10)
    assert table["stages.3.blocks.0.hire.width.shifted"].shape == (1, 512, 7, 7)
    gate = table["stages.3.blocks.0.hire.gate.out"]
    assert (gate.kind, gate.shape) == ("gate", (1, 512, 3))
    assert gate.branches == ("height", "width", "channel")
    assert gate.rearrangement is None
    assert table["pooled"].kind == table["logits"].kind == "vector"
    assert table["stages.0.out"].kind == "token grid"
    assert table["stages.0.out"].rearrangement is None
    text = repr(model.points("stages.1.blocks.1.hire.*"))
    assert re.search(r"^name +kind +shape +region +shift$", text, re.M)
    assert re.search(r"^\S+height\.regions +region grid +1 x 384 x 10 x 28 +3 +2$", text, re.M)
    assert re.search(r"^\S+gate\.out +gate +1 x 128 x 3$", text, re.M)


@pytest.mark.parametrize("size", [(64, 64), (37, 90), (3, 3), (19, 226)])
def test_shapes_of_the_table_are_those_of_a_real_run(model, size):
    table = model.points(input_size=(3, *size))
    _, cache = model.run_with_cache(image(1, *size))
    assert [p.name for p in table] != []
    assert {p.name: p for p in table} == {n: cache.point(n) for n in cache}
    assert {p.name: p.shape for p in table} == {n: tuple(v.shape) for n, v in cache.items()}


def test_points_follow_the_network_as_it_is_now():
    model = make(in_chans=1)
    assert model.points("stem.out")[0].shape == (1, 16, 56, 56)
    assert model.points("stem.out", (1, 64, 32))[0].shape == (1, 16, 16, 8)
    model.set_rearrangement(shift=5, padding="zero", cross_region="shuffle", restore=False)
    r = model.points("stages.0.blocks.1.hire.height.mixed")[0].rearrangement
    assert (r.shift, r.padding, r.cross_region, r.restore) == (5, "zero", "shuffle", False)
    assert model.train().points("logits")[0].shape == (1, 5)
    assert all(m.training for m in model.modules())  # and left in training
    assert int(model.norm.num_batches_tracked) == 0
    with pytest.raises(ValueError, match=r"\[1, 3, 64, 64\]"):
        model.points(input_size=(3, 64, 64))
    assert all(m.training for m in model.modules())
    assert model.attached() == []


def test_points_of_a_map_without_pooling_are_a_map():
    model = make(global_pool="")
    assert {p.name: p.kind for p in model.points(["pooled", "logits"])} == {
        "pooled": "token grid",
        "logits": "token grid",
    }
    model.reset_classifier(4, "avg")
    assert {p.kind for p in model.points(["pooled", "logits"])} == {"vector"}


def test_looking_at_points_does_not_run_edits(model):
    calls = []

    def edit(value, point):
        calls.append(value.device.type)
        return value * torch.ones(())

    mask = torch.ones(48, 4, 4)
    with model.edits({BLOCK: edit, f"{BLOCK}.hire": lambda value, point: value * mask}):
        assert model.points(BLOCK)[0].name == f"{BLOCK}.out"
        assert calls == []
        model(image())
    assert calls == ["cpu"]


# ------------------------------------------------------------------ reading


@pytest.mark.parametrize("grad", [False, True])
def test_reading_changes_no_value(model, grad):
    x = image()
    with torch.no_grad():
        expected = model(x)
    logits, cache = model.run_with_cache(x, grad=grad)
    assert torch.equal(logits, expected)
    assert torch.equal(cache["logits"], expected)
    assert torch.equal(cache["features"], model.forward_features(x))
    stages = model.forward_intermediates(x, intermediates_only=True)
    assert all(torch.equal(cache[f"stages.{i}"], s) for i, s in enumerate(stages))
    assert next(iter(cache)) == "stem.out"
    assert list(cache)[-1] == "logits"
    assert len(cache) == len(model.points())


def test_cached_values_obey_the_definition_of_the_block(model):
    _, c = model.run_with_cache(image(), f"{BLOCK}.*")
    block = model.stages[2].blocks[1]
    branches = [c[f"{BLOCK}.hire.{b}"] for b in ("height", "width", "channel")]
    gate = c[f"{BLOCK}.hire.gate"]
    torch.testing.assert_close(gate.sum(-1), torch.ones(2, 48))
    fused = sum(b * gate[..., i, None, None] for i, b in enumerate(branches))
    torch.testing.assert_close(c[f"{BLOCK}.hire.fused"], fused)
    with torch.no_grad():
        torch.testing.assert_close(c[f"{BLOCK}.hire"], block.hire.proj(fused))
    torch.testing.assert_close(c[f"{BLOCK}.out"], c[f"{BLOCK}.mid"] + c[f"{BLOCK}.mlp"])
    shifted = c[f"{BLOCK}.hire.height.shifted"]
    assert torch.equal(shifted, c[f"{BLOCK}.hire.input"].roll(1, 2))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (BLOCK, [f"{BLOCK}.out"]),
        (f"{BLOCK}.hire.gate", [f"{BLOCK}.hire.gate.out"]),
        (f"{BLOCK}.hire.gate.out", [f"{BLOCK}.hire.gate.out"]),
        ("stages.?.out", [f"stages.{i}.out" for i in range(4)]),
        ("stages.?", [f"stages.{i}.out" for i in range(4)]),
        ("stages.2.*.gate", [f"stages.2.blocks.{j}.hire.gate.out" for j in range(3)]),
        (["logits", "stem", "stem.out"], ["stem.out", "logits"]),
        (f"{BLOCK}.hire.[hw]*.mixed", [f"{BLOCK}.hire.{a}.mixed" for a in ("height", "width")]),
        ((), []),
    ],
)
def test_patterns(model, pattern, expected):
    _, cache = model.run_with_cache(image(1), pattern)
    assert list(cache) == expected
    assert [p.name for p in model.points(pattern)] == expected


def test_names_of_the_cache(model):
    _, cache = model.run_with_cache(image(1), f"{BLOCK}.hire.*")
    gate = f"{BLOCK}.hire.gate"
    assert cache[gate] is cache[f"{gate}.out"]
    assert gate in cache
    assert f"{gate}.out" in cache
    assert "stem" not in cache
    assert cache.get("stem") is None
    assert 3 not in cache
    assert cache.point(gate).kind == "gate"
    assert [point.name for point in cache.points()] == list(cache)
    assert repr(cache) == repr(cache.points())
    with pytest.raises(KeyError, match=r"no cached point 'stages.2.blocks.1.hire.gat'.*gate\.out"):
        cache[f"{BLOCK}.hire.gat"]
    with pytest.raises(UnknownPoint, match=f"{len(cache)} points"):
        cache.point("stem")


@pytest.mark.parametrize("grad", [False, True])
def test_stopping_early_really_stops(model, grad):
    ran = []
    watched = {
        "block": model.stages[1].blocks[0].mid,
        "same": model.stages[1].blocks[0].mlp,
        "next": model.stages[1].blocks[1],
        "head": model.head,
    }
    handles = [m.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, m in watched.items()]
    try:
        names = ["stages.1.blocks.0.hire.width.regions", "stages.0.out", "stages.1.blocks.0.mid"]
        logits, cache = model.run_with_cache(image(), names, stop_early=True, grad=grad)
        assert logits is None
        assert ran in ([], ["block"])  # the last wanted probe, nothing behind it
        assert set(cache) == set(names)
        assert all(v.requires_grad is grad for v in cache.values())
        full, whole = model.run_with_cache(image(), names)
        assert full is not None
        assert ran[-1] == "head"
        assert all(torch.equal(cache[n], whole[n]) for n in names)
    finally:
        for handle in handles:
            handle.remove()


def test_gradients(model):
    x = image().requires_grad_()
    logits, cache = model.run_with_cache(x, ["stages.1", "stages.3"], grad=True)
    (by_stage,) = torch.autograd.grad(logits.sum(), cache["stages.1"], retain_graph=True)
    assert by_stage.shape == cache["stages.1"].shape
    assert by_stage.any()
    cache["stages.1"].square().sum().backward()
    expected = torch.autograd.grad(
        model.forward_intermediates(x, [1], intermediates_only=True)[0].square().sum(), x
    )[0]
    torch.testing.assert_close(x.grad, expected)
    model.zero_grad(set_to_none=True)

    logits, cache = model.run_with_cache(x, grad=False)
    assert not logits.requires_grad
    assert not any(v.requires_grad for v in cache.values())
    assert torch.is_grad_enabled()
    with torch.no_grad():
        assert model.run_with_cache(x, "stem", grad=True)[1]["stem"].requires_grad
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_an_input_that_is_not_finite_is_refused(model, bad):
    x = image()
    x[1, 0, 3, 3] = bad
    with pytest.raises(ValueError, match=r"\(2, 3, 64, 64\) holds NaN or infinite.*nan_to_num"):
        model.run_with_cache(x)


# ------------------------------------------------------------------ the way back to the image


@pytest.mark.parametrize("size", [(64, 64), (37, 90), (3, 20)])
@pytest.mark.parametrize("setting", REARRANGEMENTS, ids=str)
def test_grids_carried_back_lie_where_they_came_from(shared, setting, size):
    """With a mixing that does nothing, every point of a branch shows its input again."""
    padding, cross_region, restore = setting
    model = make(shift=(3, -2, 1, 2))
    model.set_rearrangement(padding=padding, cross_region=cross_region, restore=restore)
    for branch in model.axis_branches().values():
        branch.mix = nn.Identity()
    _, cache = model.run_with_cache(image(2, *size), "stages.*.blocks.*.hire.*")
    for name in cache:
        hire, _, leaf = name.rpartition(".hire.")
        source = cache[f"{hire}.hire.input"]
        if leaf.endswith(("shifted", "regions", "mixed")) or leaf == "input":
            assert torch.equal(cache.tokens(name), source), name
        elif leaf in ("height.out", "width.out"):
            # The result of a branch lies where the branch put it, restored or not.
            assert torch.equal(cache.tokens(name), cache[name])
            axis = 2 if leaf == "height.out" else 3
            order = torch.arange(source.shape[axis])
            if not restore:
                order = torch.from_numpy(cache.point(name).rearrangement.order.copy())
            assert torch.equal(cache[name], source.index_select(axis, order)), name


def test_what_has_no_place_on_the_image_says_so(model):
    _, cache = model.run_with_cache(image(1), [f"{BLOCK}.hire.gate", "pooled"])
    with pytest.raises(ValueError, match=r"gate\.out is a gate of shape \(1, 48, 3\)"):
        cache.tokens(f"{BLOCK}.hire.gate")
    with pytest.raises(ValueError, match=r"pooled is a vector"):
        cache.tokens("pooled")


# ------------------------------------------------------------------ nothing stays behind


def cached_references(model, grad: bool, **kwargs):
    logits, cache = model.run_with_cache(image(), grad=grad, **kwargs)
    return logits, cache, [weakref.ref(v) for v in cache.values()]


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("early", [False, True])
def test_no_tensor_outlives_the_cache(model, grad, early):
    gc.disable()  # freed at once, not when the collector comes by
    try:
        points = "stages.1.*" if early else "*"
        logits, cache, references = cached_references(model, grad, points=points, stop_early=early)
        assert all(r() is not None for r in references)
        assert len(references) > 10
        del cache, logits
        assert [r for r in references if r() is not None] == []
    finally:
        gc.enable()


class Bang(Exception):
    pass


def bang(attached):
    assert len(attached) > 10
    raise Bang


@pytest.mark.parametrize("grad", [False, True])
def test_no_tensor_and_no_hook_outlives_an_error_in_the_forward(model, grad):
    references = []

    def bang(module, args, out):
        references.append(weakref.ref(out))
        raise Bang

    handle = model.stages[2].blocks[0].norm1.register_forward_hook(bang)
    early = model.stages[0].register_forward_hook(
        lambda m, a, out: references.append(weakref.ref(out))
    )
    try:
        with pytest.raises(Bang):
            model.run_with_cache(image(), grad=grad)
        assert model.attached() == []
    finally:
        handle.remove()
        early.remove()
    gc.collect()
    assert len(references) == 2
    assert [r for r in references if r() is not None] == []


def test_no_tensor_and_no_hook_outlives_an_edit(model):
    references, values = [], []

    def watch(value, point):
        references.append(weakref.ref(value))
        return value * 2

    def bang(value, point):
        references.append(weakref.ref(value))
        raise Bang

    with model.edits({f"{BLOCK}.hire.*.mixed": watch, f"{BLOCK}.hire.gate": watch}):
        values.append(weakref.ref(model(image())))
    assert len(references) == 3
    with pytest.raises(Bang), model.edits({BLOCK: watch, "stages.3": bang}):
        model(image())
    assert model.attached() == []
    gc.collect()
    assert len(references) == 5
    assert [r for r in references + values if r() is not None] == []


def test_hooks_end_with_an_error_inside_the_block(model):
    expected = model(image())
    with pytest.raises(Bang), model.edits({"stages.*": hl.edit.zero()}):
        bang(model.attached())
    assert model.attached() == []
    assert torch.equal(model(image()), expected)


def test_hooks_end_with_keyboard_interrupt(model):
    def stop(value, point):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), model.edits({BLOCK: stop}):
        model.run_with_cache(image())
    assert model.attached() == []


# ------------------------------------------------------------------ nesting


def test_edits_in_edits_each_end_alone(model):
    x = image()
    plain = model(x)
    with model.edits({f"{BLOCK}.hire": hl.edit.zero()}):
        outer = model(x)
        with model.edits({BLOCK: hl.edit.scale(2.0)}):
            inner = model(x)
            assert len(model.attached()) == 2
        assert torch.equal(model(x), outer)
        with pytest.raises(Bang), model.edits({BLOCK: hl.edit.scale(2.0)}):
            raise Bang
        assert torch.equal(model(x), outer)
        assert [a.point for a in model.attached()] == [f"{BLOCK}.hire.out"]
    assert torch.equal(model(x), plain)
    assert not torch.equal(outer, plain)
    assert not torch.equal(inner, outer)


def test_contexts_may_end_in_any_order(model):
    x = image()
    plain = model(x)
    first, second = model.edits({BLOCK: hl.edit.scale(2.0)}), model.edits({"stem": hl.edit.zero()})
    with second:
        only_second = model(x)
    second = model.edits({"stem": hl.edit.zero()})
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.equal(model(x), only_second)
    second.__exit__(None, None, None)
    assert torch.equal(model(x), plain)


def test_a_cache_inside_edits_shows_what_the_network_went_on_with(model):
    x = image()
    with model.edits({f"{BLOCK}.hire": hl.edit.scale(3.0)}):
        edited, cache = model.run_with_cache(x, f"{BLOCK}.*")
        assert len(model.attached()) == 1
        assert torch.equal(model(x), edited)
    _, plain = model.run_with_cache(x, f"{BLOCK}.*")
    assert torch.equal(cache[f"{BLOCK}.hire"], 3.0 * plain[f"{BLOCK}.hire"])
    assert torch.equal(cache[f"{BLOCK}.hire.fused"], plain[f"{BLOCK}.hire.fused"])
    assert not torch.equal(cache[f"{BLOCK}.mid"], plain[f"{BLOCK}.mid"])


def test_edits_of_one_point_act_in_the_order_given(model):
    x = image()
    _, cache = model.run_with_cache(x, BLOCK)
    add, scale = hl.edit.add(1.0), hl.edit.scale(2.0)
    for changes, expected in (
        ({BLOCK: add, f"{BLOCK}.out": scale}, (cache[BLOCK] + 1) * 2),
        ({f"{BLOCK}.out": scale, BLOCK: add}, cache[BLOCK] * 2 + 1),
    ):
        with model.edits(changes):
            assert torch.equal(model.run_with_cache(x, BLOCK)[1][BLOCK], expected)
    with model.edits({BLOCK: add}), model.edits({BLOCK: scale}):
        assert torch.equal(model.run_with_cache(x, BLOCK)[1][BLOCK], (cache[BLOCK] + 1) * 2)


def test_two_networks_do_not_hear_each_other(model):
    other = make()
    x = image()
    expected = other(x)

    def compare(value, point):
        _, cache = other.run_with_cache(x, point.name, stop_early=True)
        assert torch.equal(cache[point.name], value)
        return value

    with model.edits({f"{BLOCK}.hire.*": compare, "stages.3.*": hl.edit.zero()}):
        model(x)
        assert torch.equal(other(x), expected)
    assert other.attached() == []


def test_foreign_hooks_stay_and_are_listed(model):
    seen = []
    probe = model.get_submodule(f"{BLOCK}.out")
    handles = [
        probe.register_forward_hook(lambda m, a, o: seen.append("out")),
        probe.register_forward_pre_hook(lambda m, a: seen.append("in")),
        probe.register_full_backward_hook(lambda m, i, o: seen.append("back")),
    ]
    try:
        assert [a.point for a in model.attached()] == [f"{BLOCK}.out"] * 3
        with model.edits({BLOCK: hl.edit.zero()}):
            labels = [a.label for a in model.attached()]
            assert sorted(labels) == ["edit zero()", "function", "function", "function"]
            assert repr(model.attached()[0]).startswith(f"{BLOCK}.out: ")
            model.run_with_cache(image())
        assert seen == ["in", "out"]
        assert len(model.attached()) == 3
        model(image()).sum().backward()
        assert seen == ["in", "out", "in", "out", "back"]
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad(set_to_none=True)


def test_listing_names_what_listens(model):
    fix = hl.edit.fix(height=1.0, width=0.0, channel=0.0)
    with model.edits({f"{BLOCK}.hire.gate": fix, f"{BLOCK}.hire.height.mixed": lambda v, p: v}):
        listed = {a.point: a.label for a in model.attached()}
    assert listed[f"{BLOCK}.hire.gate.out"] == "edit fix(height=1.0, width=0.0, channel=0.0)"
    assert listed[f"{BLOCK}.hire.height.mixed"] == "edit"
    assert set(listed) - {f"{BLOCK}.hire.height.shifted"} == {
        f"{BLOCK}.hire.gate.out",
        f"{BLOCK}.hire.height.mixed",
    }


# ------------------------------------------------------------------ wrong names, wrong edits


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("stages.2.blocks.1.hire.gates", "stages.2.blocks.1.hire.gate.out"),
        ("stage.1.out", "stages.1.out"),
        ("stem.output", "stem.out"),
        ("logit", "logits"),
    ],
)
def test_unknown_points_suggest_near_ones(model, name, near):
    message = rf"no point '{re.escape(name)}'\. Did you mean .*'{re.escape(near)}'"
    with pytest.raises(UnknownPoint, match=message) as caught:
        model.points(name)
    assert not str(caught.value).startswith(("'", '"'))
    with pytest.raises(KeyError, match=message):
        model.run_with_cache(image(), ["stem", name])
    with (
        pytest.raises(UnknownPoint, match=message),
        model.edits({"stem": hl.edit.zero(), name: hl.edit.zero()}),
    ):
        pytest.fail("entered")
    assert model.attached() == []


def test_names_that_resemble_nothing(model):
    for name in ("", "qqqq", "*.nothing", "stages.4.*"):
        with pytest.raises(UnknownPoint, match=r"model\.points\(\) lists them all"):
            model.points(name)


def test_a_network_without_points_says_so():
    with pytest.raises(UnknownPoint, match="Linear has no named points"):
        probes.points(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"kind is 'image'; .*token grid"):
        Probe("image")


def test_points_in_any_network():
    net = nn.Sequential(nn.Linear(3, 4), Probe("vector"), nn.ReLU())
    x = torch.randn(2, 3)
    out, cache = probes.run_with_cache(net, x)
    assert torch.equal(cache["1"].relu(), out)
    with probes.edits(net, {"1": hl.edit.zero()}):
        assert not net(x).any()
    assert torch.equal(net(x), out)


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (lambda v, p: None, ValueError, "returned NoneType; return the edited tensor"),
        (lambda v, p: 1.0, ValueError, "returned float"),
        (lambda v, p: v[:1], ValueError, r"returned shape \(1, 48, 4, 4\).*\(2, 48, 4, 4\)"),
        (lambda v, p: v.mean(), ValueError, r"returned shape \(\)"),
        (lambda v, p: v.double(), ValueError, r"dtype torch\.float64.*torch\.float32"),
        (lambda v, p: v.to("meta"), ValueError, "device meta.*cpu"),
        (hl.edit.replace(torch.zeros(3, 3, 3, 3)), ValueError, r"\(2, 48, 4, 4\).*\(3, 3, 3, 3\)"),
    ],
)
def test_edits_that_return_something_else(model, edit, error, message):
    with model.edits({BLOCK: edit}):
        with pytest.raises(error, match=rf"{re.escape(BLOCK)}\.out.*{message}"):
            model(image())
        assert len(model.attached()) == 1


@pytest.mark.parametrize("wrong", [3.0, None, hl.edit.zero, hl.edit.scale, torch.zeros(1), int])
def test_what_is_no_edit_is_refused_at_the_door(model, wrong):
    with pytest.raises(HirelabError, match=r"stem"), model.edits({"stem": wrong}):
        pytest.fail("entered")


def test_an_edit_in_place_touches_only_its_point(model):
    """`mid` enters both the MLP and the residual sum; the cache shows which value each one saw."""
    x = image()
    _, plain = model.run_with_cache(x)

    def in_place(value, point):
        value.zero_()
        return value

    def late(value, point):
        value.add_(100.0)  # of a copy, which is not returned
        return torch.zeros_like(value)

    for edit in (in_place, late):
        with model.edits({"stages.2.out": edit}):
            logits, cache = model.run_with_cache(x)
        # the same tensor passes `stages.2.blocks.2.out` just before: it keeps its value
        assert torch.equal(cache["stages.2.blocks.2"], plain["stages.2.blocks.2"])
        assert not cache["stages.2"].any()
        assert not torch.equal(logits, plain["logits"])
    before = x.clone()
    with model.edits({"stem": in_place}):
        model(x)
    assert torch.equal(x, before)


def test_gradients_pass_through_edits(model):
    x = image().requires_grad_()
    with model.edits({"stages.1": hl.edit.scale(3.0)}):
        _, cache = model.run_with_cache(x, "stages.1", grad=True)
    (by_edit,) = torch.autograd.grad(cache["stages.1"].sum(), x)
    _, cache = model.run_with_cache(x, "stages.1", grad=True)
    (plain,) = torch.autograd.grad(cache["stages.1"].sum(), x)
    torch.testing.assert_close(by_edit, 3 * plain)


@pytest.mark.parametrize("size", [(64, 64), (37, 90)])
def test_an_edit_knows_its_point_in_this_very_pass(model, size):
    seen = {}

    def note(value, point):
        assert tuple(value.shape) == point.shape
        seen[point.name] = point
        return value

    with model.edits({"*": note}):
        model(image(2, *size))
    _, cache = model.run_with_cache(image(2, *size))
    assert seen == {n: cache.point(n) for n in cache}


def test_an_edit_that_runs_its_own_network_on_another_size_still_knows_its_line(model):
    """The lengths of the lines are of the pass that is running, not of the last one."""
    _, cache = model.run_with_cache(image())
    seen, inside = {}, []

    def note(value, point):
        seen[point.name] = point
        if not inside and point.name.endswith("height.regions"):
            inside.append(point.name)
            outer = dict(seen)
            model(image(1, 37, 90))
            seen.clear()
            seen.update(outer)
            inside.clear()
        return value

    with model.edits({f"{BLOCK}.hire.height.*": note}):
        model(image())
    assert seen == {n: cache.point(n) for n in seen}
    assert len(seen) == 4
    assert hooks(model) == 0


def test_training_and_scripts_stay_possible_with_probes_in_the_way():
    model = make().train()
    with model.edits({BLOCK: hl.edit.scale(0.5)}):
        model(image()).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_features_only_keeps_the_points():
    net = hl.create("hire_mlp_atto", seed=0, features_only=True, out_indices=(1, 2))
    maps = net(image())
    out, cache = probes.run_with_cache(net, image(), "*blocks.1.hire.*")
    assert all(torch.equal(a, b) for a, b in zip(out, maps, strict=True))
    assert len(cache) == 3 * 13
    assert cache.tokens("stages_2.blocks.1.hire.height.mixed").shape == (2, 48, 4, 4)


def test_an_input_that_learns_is_cached_detached():
    net = nn.Sequential(Probe("vector"), nn.Linear(3, 4))
    x = torch.randn(2, 3, requires_grad=True)
    assert not probes.run_with_cache(net, x)[1]["0"].requires_grad
    assert probes.run_with_cache(net, x, grad=True)[1]["0"] is x


def test_the_table_takes_the_size_of_an_input():
    model = hl.create("hire_mlp_atto", seed=0, in_chans=1)
    x = torch.zeros(2, 1, 64, 96)
    assert repr(model.points("stages.*", x=x)) == repr(model.points("stages.*", (1, 64, 96)))
    assert model.points("stem.out", x=x)[0].shape == (1, 16, 16, 24)
    assert model.points("stem.out")[0].shape == (1, 16, 56, 56)


def test_a_method_says_what_its_function_says():
    model = hl.create("hire_mlp_atto", seed=0)
    for name in ("points", "run_with_cache", "edits", "attached"):
        assert getattr(model, name).__doc__ == getattr(probes, name).__doc__
        assert getattr(probes, name).__doc__.strip()
