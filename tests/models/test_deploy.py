"""Deployed networks: the same function as the network, to the last digits, whatever is asked of it.

Norms are filled with negative, tiny and zero scales, so that a fold that skips one, divides by one
or takes its absolute value shows.
"""

from __future__ import annotations

import copy
import io
import itertools
import pickle
import re
import sys
import threading

import pytest
import reference_hire_mlp as reference
import torch
from torch import nn

import hirelab as hl
from hirelab import rearrange as rr
from hirelab.hooks.points import UnknownPoint
from hirelab.models import HireMLP
from hirelab.models.deploy import _KEPT_SIZES, DeployedAxis

ATTO = "hire_mlp_atto"
SMALL = {
    "depths": (2, 2),
    "dims": (4, 8),
    "region": (3, 2),
    "shift": (2, -1),
    "shift_cycle": (2, 3),
}
REARRANGEMENTS = list(itertools.product(rr.PADDINGS, rr.CROSS_REGIONS, (True, False)))
BRANCHES = [c for n in (1, 2, 3) for c in itertools.combinations(("height", "width", "channel"), n)]
# pixels -> maps of the two stages: 5 x 7 and 3 x 4, 1 x 1 twice, 2 x 4 and 1 x 2, 12 x 6 and 6 x 3
PIXELS = [(19, 27), (3, 3), (8, 16), (48, 24)]


def fill(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if not value.is_floating_point():
                continue
            noise = torch.rand(value.shape, generator=generator, dtype=torch.float64)
            if name.endswith("running_var"):
                value.copy_(0.2 + noise)
            elif re.search(r"norm\d?\.weight", name):
                noise = noise * 3 - 1
                noise[0], noise[-1] = 0.0, -1e-4
                value.copy_(noise)
            elif value.dim() > 1:  # keeps a signal about as large as it was
                value.copy_((noise - 0.5) * 3 / value[0].numel() ** 0.5)
            else:
                value.copy_(noise - 0.5)
    return model


def build(**kwargs) -> HireMLP:
    """Two small stages in float64 and evaluation mode."""
    options = {"in_chans": 2, "num_classes": 5, "dtype": torch.float64, **SMALL, **kwargs}
    return fill(HireMLP(**options)).eval()


def atto(**kwargs) -> HireMLP:
    return fill(hl.create(ATTO, **{"num_classes": 7, **kwargs}))


def image(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def equal(got: torch.Tensor, expected: torch.Tensor, note: object = "") -> None:
    """To 1e-10 in float64, 1e-5 of the largest value in float32."""
    assert got.shape == expected.shape, note
    assert got.dtype == expected.dtype, note
    if expected.dtype == torch.float64:
        close = torch.allclose(got, expected, rtol=1e-10, atol=1e-10)
    else:
        close = (got - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert close, (note, (got - expected).abs().max())


def same(model: nn.Module, deployed: nn.Module, *shape: int, note: object = "") -> None:
    """Outputs and input gradients."""
    dtype = next(t.dtype for t in model.parameters())
    x, y = (image(*shape, dtype=dtype).requires_grad_() for _ in range(2))
    expected, got = model(x), deployed(y)
    assert expected.detach().abs().max() > 1e-3  # a comparison of zeros says nothing
    equal(got, expected, note)
    with torch.no_grad():  # and where nothing is kept for a gradient
        equal(deployed(y), expected, note)
    if dtype == torch.float64:
        weights = image(*expected.shape)
        (want,) = torch.autograd.grad((expected * weights).sum(), x)
        (grad,) = torch.autograd.grad((got * weights).sum(), y)
        equal(grad, want, note)


# ------------------------------------------------------------------ equal, for every option


@pytest.mark.parametrize("branches", BRANCHES, ids="+".join)
@pytest.mark.parametrize("fusion", ["gate", "sum"])
@pytest.mark.parametrize("fc_layers", [1, 2, 3, 4])
def test_equal_for_every_choice_of_parts(branches, fusion, fc_layers):
    """Each padding with every choice; cross-region mode, restore and size take turns."""
    choice = {"branches": branches, "fusion": fusion, "fc_layers": fc_layers}
    model = build(**choice)
    turn = 5 * BRANCHES.index(branches) + 2 * fc_layers + (fusion == "sum")
    for k, padding in enumerate(rr.PADDINGS):
        _, cross_region, restore = REARRANGEMENTS[(turn + k) % 6]
        model.set_rearrangement(None, padding, cross_region, restore)
        pixels, batch = PIXELS[(turn + k) % 4], (1, 3)[k % 2]
        note = (choice, padding, cross_region, restore, pixels)
        same(model, hl.deploy(model), batch, 2, *pixels, note=note)


@pytest.mark.parametrize("region", [(3, 2), (4, 9), (16, 1)], ids=str)
@pytest.mark.parametrize("setting", REARRANGEMENTS, ids=str)
def test_equal_for_every_rearrangement(setting, region):
    """Regions larger than the map, shifts larger than the map; sizes take turns."""
    padding, cross_region, restore = setting
    model = build(region=region, shift=(7, -3), padding=padding, cross_region=cross_region,
                  restore=restore)  # fmt: skip
    deployed = hl.deploy(model)
    turn = REARRANGEMENTS.index(setting) + region[0] % 3
    pixels = PIXELS[turn % 4]
    same(model, deployed, 2, 2, *pixels, note=(setting, region, pixels))


@pytest.mark.parametrize("setting", REARRANGEMENTS[::3], ids=str)
def test_agrees_with_the_slow_reference(setting):
    """Not only with the network: with loops over tokens that share no code with either."""
    names = ("padding", "cross_region", "restore")
    choice = {**SMALL, **dict(zip(names, setting, strict=True))}
    model = build(**choice)
    state = {k: v.numpy() for k, v in model.state_dict().items()}
    x = image(2, 2, 19, 27)
    others = {"branches": BRANCHES[-1], "fusion": "gate", "fc_layers": 2}
    expected = reference.forward(state, x.numpy(), {**choice, **others})
    with torch.no_grad():
        equal(hl.deploy(model)(x), torch.from_numpy(expected))


@pytest.mark.parametrize("size", [(64, 64), (3, 3), (33, 97), (224, 64), (61, 5)], ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_equal_in_single_precision(size, batch):
    model = atto()
    same(model, hl.deploy(model), batch, 3, *size)


@pytest.mark.parametrize("name", ["hire_mlp_tiny", "hire_mlp_large"])
def test_published_networks_are_equal(name):
    """Fresh weights of the true widths, norms as after training."""
    model = hl.create(name, seed=0, depths=(2, 2, 3, 2))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for value, low in ((module.weight, 0.5), (module.running_var, 0.5)):
                    value.copy_(torch.rand(value.shape, generator=generator) + low)
                for value in (module.bias, module.running_mean):
                    value.copy_(torch.rand(value.shape, generator=generator) - 0.5)
    same(model, hl.deploy(model), 1, 3, 96, 160)


@pytest.mark.parametrize("pool", ["avg", "max", "avgmax", "catavgmax", ""])
@pytest.mark.parametrize("num_classes", [0, 5])
def test_every_head(pool, num_classes):
    model = build(global_pool=pool, num_classes=num_classes)
    deployed = hl.deploy(model)
    same(model, deployed, 2, 2, 19, 27)
    assert deployed.num_classes == num_classes
    assert (deployed.in_chans, deployed.num_features) == (2, 8)
    assert deployed.feature_info == model.feature_info
    model.reset_classifier(3, "")  # and a head that came later
    same(model, hl.deploy(model), 1, 2, 19, 27)


@pytest.mark.parametrize("in_chans", [1, 3, 7])
def test_every_number_of_input_channels(in_chans):
    model = build(in_chans=in_chans)
    same(model, hl.deploy(model), 2, in_chans, 19, 27)


@pytest.mark.parametrize(
    "choice",
    [
        {"mlp_ratio": 1.5},
        {"depths": (1,), "dims": (12,), "region": 3, "shift": 1, "shift_cycle": 2},
        {"depths": (1, 1, 2), "dims": (4, 12, 8), "region": 2, "shift": 1, "shift_cycle": 2},
        {"drop_rate": 0.5, "drop_path_rate": 0.5},
        {"stage_norms": True},
        {"shift": 0},
    ],
    ids=str,
)
def test_other_shapes_of_network(choice):
    model = build(**choice)
    same(model, hl.deploy(model), 2, 2, 19, 27)


def test_settings_in_force_are_built_in():
    model = build()
    model.set_rearrangement(padding="reflect", restore=False)
    model.stages[0].blocks[1].hire.width.shift = 1
    model.stages[1].blocks[0].hire.height.padding = "zero"
    model.stages[1].blocks[1].hire.height.cross_region = "shuffle"
    deployed, x = hl.deploy(model), image(1, 2, 40, 40)
    same(model, deployed, 1, 2, 40, 40)
    before = deployed(x)
    model.set_rearrangement(1, "circular", "none", True)
    assert torch.equal(deployed(x), before)
    assert not torch.allclose(model(x), before)


def test_a_training_network_is_deployed_as_it_evaluates():
    model = build(drop_path_rate=0.4, drop_rate=0.4).train()
    deployed = hl.deploy(model)
    assert model.training
    assert all(m.training for m in model.modules())
    assert not any(m.training for m in deployed.modules())
    same(model.eval(), deployed, 2, 2, 19, 27)


def test_synchronised_norms_fold_too():
    model = build()
    expected = model(image(1, 2, 19, 27))
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    equal(hl.deploy(synchronised)(image(1, 2, 19, 27)), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    model = atto()
    x = image(2, 3, 64, 64, dtype=torch.float32)
    expected = model(x)
    cast = hl.deploy(model).to(dtype)
    from_cast = hl.deploy(atto().to(dtype))
    for deployed in (cast, from_cast):
        assert {b.dtype for b in deployed.buffers()} == {dtype}
        got = deployed(x.to(dtype))
        assert got.dtype == dtype
        # no worse than the network itself in that precision, with room for luck
        limit = 3 * (atto().to(dtype)(x.to(dtype)).float() - expected).abs().max()
        assert (got.float() - expected).abs().max() <= max(limit, 0.02 * expected.abs().max())


def test_autocast_keeps_close():
    model = atto()
    x = image(2, 3, 64, 64, dtype=torch.float32)
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        got = hl.deploy(model)(x).float()
    assert (got - expected).abs().max() <= 0.1 * expected.abs().max()


# ------------------------------------------------------------------ points

GONE = ("shifted", "regions", "mixed", "input")


@pytest.mark.parametrize("fusion", ["gate", "sum"])
@pytest.mark.parametrize("padding", ["circular", "zero"])
def test_points_that_remain_have_the_networks_values(padding, fusion):
    model = build(padding=padding, fusion=fusion)
    deployed, x = hl.deploy(model), image(2, 2, 19, 27)
    expected, theirs = model.run_with_cache(x)
    got, ours = deployed.run_with_cache(x)
    equal(got, expected)
    assert set(ours) < set(theirs)
    for end in ("fused", "mid", "height.out", "width.out", "channel.out", "mlp.hidden"):
        assert any(name.endswith(end) for name in ours), end
    assert {"stem.out", "features", "pooled", "logits", "stages.1.downsample.out"} <= set(ours)
    assert any(name.endswith("gate.out") for name in ours) == (fusion == "gate")
    for name in ours:
        equal(ours[name], theirs[name], name)
        assert ours.point(name).kind == theirs.point(name).kind
        assert ours.point(name).branches == theirs.point(name).branches
    table = {p.name: p.shape for p in deployed.points(input_size=(2, 19, 27))}
    assert table == {name: (1, *v.shape[1:]) for name, v in ours.items()}


def test_edits_at_points_that_remain_act_as_in_the_network():
    model = build()
    deployed, x = hl.deploy(model), image(2, 2, 19, 27)
    plain = model(x)
    for name in deployed.run_with_cache(x)[1]:
        weights = image(2)[0]

        def edit(value, point, weights=weights):
            return value * 0.7 + weights * value.roll(1, 1) + 0.1

        with model.edits({name: edit}), deployed.edits({name: edit}):
            expected, got = model(x), deployed(x)
        equal(got, expected, name)
        assert not torch.allclose(expected, plain), name
        equal(deployed(x), plain, name)  # and it is over


def test_gates_can_be_fixed():
    model = build()
    deployed, x = hl.deploy(model), image(2, 2, 19, 27)
    for shares in ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.2, 0.3, 0.5)):

        def fix(value, point, shares=shares):
            return torch.tensor(shares, dtype=value.dtype).expand_as(value).contiguous()

        with model.edits({"*gate": fix}), deployed.edits({"*gate": fix}):
            equal(deployed(x), model(x), shares)


def test_points_folded_away_are_said():
    deployed = hl.deploy(build())
    for end in GONE:
        name = f"stages.0.blocks.0.hire.{'' if end == 'input' else 'height.'}{end}"
        with pytest.raises(UnknownPoint, match=r"folded some points away.*was made from"):
            deployed.run_with_cache(image(1, 2, 19, 27), name)
        with pytest.raises(UnknownPoint, match=re.escape(name)), deployed.edits({name: abs}):
            pass


@pytest.mark.parametrize("num_classes", [0, 5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_table_of_points_in_every_precision(num_classes, dtype):
    """Also of a network without parameters: no gate, no head."""
    model = HireMLP(**SMALL, num_classes=num_classes, fusion="sum", dtype=dtype).eval()
    table = hl.deploy(model).points("stages.*.out", input_size=(3, 32, 32))
    assert "stages.1.out" in {p.name for p in table}


def test_hooks_of_the_network_stay_with_it():
    """Deployed inside an edit, it is the network without the edit, then and afterwards."""
    model, x = build(), image(1, 2, 19, 27)
    plain = model(x)
    with model.edits({"*gate": hl.edit.zero(), "logits": hl.edit.zero()}):
        deployed = hl.deploy(model)
    assert deployed.attached() == []
    equal(deployed(x), plain)


# ------------------------------------------------------------------ a thing of its own


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fusion", ["gate", "sum"])
def test_nothing_is_shared_with_the_network(dtype, fusion):
    model = build(dtype=dtype, fusion=fusion, padding="zero")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()]
    deployed, x = hl.deploy(model), image(1, 2, 19, 27, dtype=dtype)
    expected = deployed(x)
    after = model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert [p.requires_grad for p in model.parameters()] == flags
    own = {t.untyped_storage().data_ptr() for t in (*deployed.buffers(), *deployed.parameters())}
    theirs = {t.untyped_storage().data_ptr() for t in (*model.buffers(), *model.parameters())}
    assert not own & theirs
    with torch.no_grad():
        for value in model.state_dict().values():
            value.zero_()
    assert torch.equal(deployed(x), expected)
    assert not any(t.requires_grad for t in (*deployed.buffers(), *deployed.parameters()))


def test_it_does_not_train():
    deployed = hl.deploy(build())
    with pytest.raises(RuntimeError, match=r"cannot train; train the network it was made from"):
        deployed.train()
    assert deployed.eval() is deployed
    assert deployed.train(False) is deployed
    assert not any(m.training for m in deployed.modules())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in deployed.modules())


@pytest.mark.parametrize("padding", ["circular", "zero"])
def test_state_dict_and_copies(padding):
    deployed, x = hl.deploy(build(padding=padding)), image(1, 2, 19, 27)
    expected = deployed(x)
    other = hl.deploy(HireMLP(2, 5, **SMALL, padding=padding, dtype=torch.float64))
    assert not torch.allclose(other(x), expected)
    buffer = io.BytesIO()
    torch.save(deployed.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
    assert torch.equal(other(x), expected)
    twin = copy.deepcopy(deployed)
    assert torch.equal(twin(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(deployed))(x), expected)
    for value in twin.buffers():
        value.zero_()
    assert torch.equal(deployed(x), expected)


def test_sizes_in_turn_are_remembered_within_bounds():
    model = build()
    deployed = hl.deploy(model)
    sizes = [(11 + 4 * k, 40 - 3 * k) for k in range(_KEPT_SIZES + 4)]
    axes = [m for m in deployed.modules() if isinstance(m, DeployedAxis)]
    with torch.no_grad():
        for high, wide in [*sizes, *reversed(sizes), sizes[0]]:
            x = image(1, 2, high, wide)
            equal(deployed(x), model(x), (high, wide))
            assert max(len(axis._indices) for axis in axes) <= _KEPT_SIZES
    assert max(len(axis._indices) for axis in axes) > 1
    assert not [k for k in deployed.state_dict() if "ind" in k]


def test_other_devices_have_their_own_maps():
    deployed, x = hl.deploy(build()), image(1, 2, 19, 27)
    expected = deployed(x)
    on_meta = copy.deepcopy(deployed).to("meta")  # after maps were made on the processor
    assert on_meta(x.to("meta")).shape == (1, 5)
    deployed.points(input_size=(2, 19, 27))  # runs on the meta device, too
    assert torch.equal(deployed(x), expected)
    assert hl.deploy(HireMLP(**SMALL, device="meta")).stem.weight.device.type == "meta"


def test_maps_made_in_inference_mode_serve_gradients():
    model = build()
    deployed, x = hl.deploy(model), image(1, 2, 19, 27)
    with torch.inference_mode():
        deployed(x)
    same(model, deployed, 1, 2, 19, 27)
    with torch.inference_mode():
        made = hl.deploy(model)
        expected = made(x)
    same(model, made, 1, 2, 19, 27)
    equal(model(x), expected.clone())


def test_threads_with_many_sizes():
    deployed = hl.deploy(build())
    sizes = [(8 + 4 * k, 24) for k in range(_KEPT_SIZES + 3)]
    with torch.no_grad():
        expected = {size: deployed(image(1, 2, *size)) for size in sizes}
    wrong: list[object] = []

    def work(turn: int) -> None:
        try:
            with torch.no_grad():
                for k in range(30):
                    size = sizes[(turn * 3 + k) % len(sizes)]
                    if not torch.equal(deployed(image(1, 2, *size)), expected[size]):
                        wrong.append(size)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ------------------------------------------------------------------ memory formats and compilers


def test_every_memory_format_of_the_input():
    model = build()
    deployed, x = hl.deploy(model), image(2, 2, 19, 27)
    expected = model(x)
    strided = torch.stack([x, x], -1)[..., 0]
    for form in (x, x.contiguous(memory_format=torch.channels_last), strided, x.mT.contiguous().mT):
        before = form.clone()
        equal(deployed(form), expected)
        assert torch.equal(form, before)  # nothing in place on what is the caller's
    moved = hl.deploy(copy.deepcopy(model).to(memory_format=torch.channels_last))
    equal(moved(x), expected)
    one = image(1, 1, 19, 27).expand(3, 2, 19, 27)
    equal(deployed(one), model(one))


@pytest.mark.parametrize("dynamic", [None, True])
def test_compiles_whole(dynamic):
    torch._dynamo.reset()
    padding = "zero" if dynamic else "circular"
    model = build(padding=padding, depths=(2,), dims=(4,), region=3, shift=1, shift_cycle=2)
    deployed = hl.deploy(model)
    compiled = torch.compile(deployed, fullgraph=True, backend="eager", dynamic=dynamic)
    with torch.no_grad():
        for size in ((19, 27), (40, 24)):
            x = image(2, 2, *size)
            equal(compiled(x), model(x), size)
    # a graph makes its own index maps: what it keeps would be of one size
    assert not any(getattr(module, "_indices", None) for module in deployed.modules())
    torch._dynamo.reset()


# ------------------------------------------------------------------ wrong input, wrong network


@pytest.mark.parametrize("make", [lambda m: m, hl.deploy], ids=["network", "deployed"])
@pytest.mark.parametrize("padding", ["circular", "zero"])
def test_inputs(make, padding):
    model = make(build(padding=padding))
    for shape in ((1, 3, 19, 27), (2, 19, 27), (19,), (1, 2, 3, 19, 27), (1, 0, 19, 27)):
        with pytest.raises(ValueError, match=re.escape(str(list(shape))) + r".*\(batch, 2, "):
            model(image(*shape))
    for size in ((1, 1), (2, 40), (40, 2), (0, 40)):
        with pytest.raises(ValueError, match=f"{size[0]} x {size[1]} pixels; .* 3 x 3"):
            model(image(1, 2, *size))
    for dtype in (torch.uint8, torch.int64, torch.bool, torch.complex64):
        with pytest.raises(ValueError, match=r"whole or complex numbers; .*x / 255") as caught:
            model(torch.ones(1, 2, 19, 27).to(dtype))
        assert "\n" not in str(caught.value)
    for size in ((19, 27), (3, 3), (64, 64)):
        empty = model(image(0, 2, *size))
        assert empty.shape == (0, 5)
        assert empty.dtype == torch.float64
    unpooled = make(build(global_pool="", padding=padding))
    assert unpooled(image(0, 2, 64, 64)).shape == (0, 5, 8, 8)


def test_not_a_number_stays_where_it_is():
    """It spreads over its own image, as in the network, and to no other."""
    deployed, x = hl.deploy(build()), image(2, 2, 19, 27)
    expected = deployed(x)
    x[0, 0, 4, 4] = float("nan")
    got = deployed(x)
    assert got[0].isnan().all()
    equal(got[1], expected[1])


def test_only_networks_of_this_library_deploy():
    for other in (nn.Linear(2, 2), hl.deploy(build()), HireMLP, None, "hire_mlp_tiny"):
        with pytest.raises(ValueError, match=r"deploy takes a HireMLP; this is a \w+:"):
            hl.deploy(other)


@pytest.mark.parametrize("prune", [{"indices": [0]}, {"indices": [1], "prune_norm": True}], ids=str)
def test_pruned_networks_are_refused(prune):
    model = build()
    model.prune_intermediate_layers(**prune)
    with pytest.raises(ValueError, match=r"was pruned and has no final norm; deploy it before"):
        hl.deploy(model)


def test_a_network_with_its_last_stage_kept_deploys():
    model = build()
    model.prune_intermediate_layers([1])  # the head alone is gone
    same(model, hl.deploy(model), 2, 2, 19, 27)


def test_the_private_operator_can_be_switched_off(monkeypatch):
    """HIRELAB_ONEDNN=0, which is read at import: the same function without it."""
    deployed, x = hl.deploy(atto()), image(2, 3, 64, 64, dtype=torch.float32)
    with torch.no_grad():
        expected = deployed(x)
        monkeypatch.setattr(sys.modules["hirelab.models.deploy"], "_ONEDNN", False)
        monkeypatch.delattr(torch.ops.mkldnn, "_linear_pointwise", raising=False)
        equal(deployed(x), expected)
