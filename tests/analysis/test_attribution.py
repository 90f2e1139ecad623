"""Attributions: identities, independent truth, other libraries, and errors that help."""

from __future__ import annotations

import dataclasses
import gc
import warnings
import weakref

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import hirelab as hl
from hirelab.analysis.attribution import METHODS, Attribution, attribute, grad_cam, upsample
from hirelab.hooks.points import UnknownPoint
from hirelab.rearrange import EMPTY, PADDINGS
from hirelab.viz import overlay, theme
from hirelab.viz.canvas import Canvas

BLOCK = "stages.2.blocks.1.hire"  # of the smallest network: shift 1, region 3, maps of 4 x 4


def image(batch: int = 2, high: int = 64, wide: int = 64, chans: int = 3) -> torch.Tensor:
    return torch.randn(batch, chans, high, wide, generator=torch.manual_seed(1))


def stir(model: nn.Module, seed: int = 2) -> nn.Module:
    """Numbers that all differ from those of an untrained network, so that no part is idle."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator) - 0.5
                around = "running_var" in name or (tensor.dim() == 1 and "weight" in name)
                scale = 3 / tensor[0].numel() ** 0.5 if tensor.dim() > 1 else 1.0
                tensor.copy_(noise * scale + around)
    return model


def make(**kwargs) -> nn.Module:
    return stir(hl.create("hire_mlp_atto", seed=0, num_classes=5, **kwargs))


def state(model: nn.Module) -> list:
    """All that a call could leave behind."""
    kinds = ("forward", "forward_pre", "backward", "backward_pre")
    return [
        (name, m.training, [len(getattr(m, f"_{kind}_hooks")) for kind in kinds],
         getattr(m, "inplace", None), getattr(m, "grad_checkpointing", None))
        for name, m in model.named_modules()
    ] + [(n, p.requires_grad, p.grad is None, p._version) for n, p in model.named_parameters()] + [
        (n, b._version) for n, b in model.named_buffers()
    ]  # fmt: skip


@pytest.fixture(scope="module")
def shared() -> nn.Module:
    return make()


@pytest.fixture
def model(shared):
    """One network for all tests; every test leaves it as it was."""
    before = state(shared)
    yield shared
    assert state(shared) == before


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    """timm's, whose ReLUs work in place."""
    net = stir(timm.create_model("resnet18", num_classes=10)).eval()
    assert sum(m.inplace for m in net.modules() if isinstance(m, nn.ReLU)) > 10
    return net


def by_hand(tail, value: torch.Tensor, targets) -> np.ndarray:
    """Grad-CAM from its definition: ``tail`` goes from a map (N, C, h, w) to the logits."""
    value = value.detach().requires_grad_()
    with torch.enable_grad():
        logits = tail(value)
        (gradient,) = torch.autograd.grad(
            sum(row[t] for row, t in zip(logits, targets, strict=True)), value
        )
    channels = gradient.mean((2, 3), keepdim=True)
    return (channels * value.detach()).sum(1).numpy()


# ------------------------------------------------------------------ identities


def test_at_the_final_norm_it_is_class_activation_mapping(model):
    x = image()
    with torch.no_grad():
        features = model.forward_features(x)
    for target in (0, 4):
        cam = torch.einsum("nchw,c->nhw", features, model.head.weight[target].detach())
        expected = cam / features[0, 0].numel()
        for point in ("norm", "features", None):
            found = grad_cam(model, x, target, point)
            np.testing.assert_allclose(found.maps, expected, rtol=1e-4, atol=1e-7)
        # and adds up, less the bias, to the logit that the result holds
        total = found.maps.sum((1, 2)) + model.head.bias[target].item()
        np.testing.assert_allclose(total, found.scores, rtol=1e-4)


@pytest.mark.parametrize("name", ["stages.0", "stages.1.out", "stages.2", "stages.2.blocks.1"])
def test_at_an_inner_point_it_is_the_definition(model, name):
    x = image()
    full = name if name.endswith(".out") else f"{name}.out"

    def tail(value):
        with model.edits({full: lambda old, point: value}):
            return model(x)

    with torch.no_grad():
        _, cache = model.run_with_cache(x, full)
    found = grad_cam(model, x, [1, 3], name)
    assert found.point == full
    expected = by_hand(tail, cache[full], [1, 3])
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found.maps, expected, rtol=1e-3, atol=1e-6 * abs(expected).max())
    assert (found.maps < 0).any()  # the signs are kept


def variants():
    for padding in PADDINGS:
        yield {"padding": padding}
    yield {"cross_region": "shuffle"}
    yield {"cross_region": "none"}
    yield {"shift": 2, "region": (4, 3, 5, 2)}


@pytest.mark.parametrize("settings", list(variants()), ids=str)
@pytest.mark.parametrize("axis", ["height", "width"])
def test_inside_a_branch_carrying_back_equals_computing_in_unshifted_space(settings, axis):
    model = make(**settings).double()
    x = image(high=96).double()  # 6 x 4 tokens in stage 3
    branch = f"{BLOCK}.{axis}"
    out, mixed = (grad_cam(model, x, 2, f"{branch}.{name}") for name in ("out", "mixed"))
    shifted, regions = (grad_cam(model, x, 2, f"{branch}.{n}") for n in ("shifted", "regions"))
    assert np.abs(out.maps).max() > 0
    # after the mixing: the region grid, carried back, is the branch's result in image order
    np.testing.assert_allclose(mixed.maps, out.maps, rtol=1e-9)
    assert mixed.maps.shape == (2, 6, 4)
    assert not np.allclose(shifted.maps, out.maps)
    # before it: gradients at the branch's input, in places, through this branch alone
    with torch.no_grad():
        _, cache = model.run_with_cache(x, f"{BLOCK}.input")
    expected = by_hand_inside(model, x, branch, cache[f"{BLOCK}.input"], 2)
    np.testing.assert_allclose(shifted.maps, expected, rtol=1e-7, atol=1e-15)
    np.testing.assert_allclose(regions.maps, expected, rtol=1e-7, atol=1e-15)
    np.testing.assert_allclose(mixed.upsampled, upsample(out.maps, (96, 64)), rtol=1e-7, atol=1e-15)


def by_hand_inside(model, x, branch: str, value: torch.Tensor, target: int) -> np.ndarray:
    """Grad-CAM on the input of one branch in places, by gathering through the index map."""
    axis = model.get_submodule(branch)
    dim = {"height": 2, "width": 3}[axis.axis]
    r = axis.rearrangement(value.shape[dim])
    slots = torch.from_numpy(r.slots.ravel().copy())

    def tail(tokens):
        line = tokens.index_select(dim, slots.clamp(min=0))
        shape = [1, 1, 1, 1]
        shape[dim] = -1
        line = line * (slots != EMPTY).view(shape)
        moved = line.movedim(dim, -1).unflatten(-1, (r.regions, r.region))
        grouped = moved.movedim(-1, 2).flatten(1, 2).movedim(-1, dim)  # channel-major
        mixed = axis.mix(grouped).movedim(dim, -1).unflatten(1, (-1, r.region)).movedim(2, -1)
        landed = mixed.flatten(-2).index_select(-1, torch.from_numpy(r.landing.copy()))
        with model.edits({f"{branch}.out": lambda old, point: landed.movedim(-1, dim)}):
            return model(x)

    return by_hand(tail, value, [target] * len(x))


def test_a_image_does_not_depend_on_its_batch(model):
    x = image(2, 32, 32)
    sizes = {"integrated_gradients": {"steps": 3}, "occlusion": {"window": 16, "stride": 16}}
    for method in ("grad_cam", "gradient", "integrated_gradients", "occlusion"):
        options = sizes.get(method, {})
        whole = attribute(model, x, [0, 1], method=method, **options).maps
        alone = np.concatenate(
            [attribute(model, x[i : i + 1], i, method=method, **options).maps for i in range(2)]
        )
        np.testing.assert_allclose(whole, alone, rtol=1e-3, atol=1e-5 * abs(whole).max())


def test_integrated_gradients_add_up_to_the_difference_of_the_logits():
    model = make(depths=(1, 1), dims=(8, 8), region=2, shift=1, shift_cycle=2).double()
    x = image(2, 16, 16).double()
    with torch.no_grad():
        difference = (model(x) - model(torch.zeros_like(x)))[:, 3]
    few, many = (
        attribute(model, x, 3, method="integrated_gradients", steps=steps).maps.sum((1, 2))
        for steps in (4, 400)
    )
    assert abs(difference).min() > 0.01
    np.testing.assert_allclose(many, difference, rtol=2e-2)
    assert np.abs(many - difference.numpy()).sum() < np.abs(few - difference.numpy()).sum()


def test_the_gradient_is_autograds(model):
    x = image().requires_grad_()
    (expected,) = torch.autograd.grad(model(x)[:, 1].sum(), x)
    found = attribute(model, x, 1, method="gradient")
    np.testing.assert_allclose(found.maps, expected.sum(1), rtol=1e-4, atol=1e-9)
    assert x.grad is None
    assert x.requires_grad


def test_smooth_grad_is_seeded_and_leaves_the_random_state(model):
    x = image()
    before = torch.get_rng_state()
    one, same, other = (
        attribute(model, x, 1, method="smooth_grad", samples=3, seed=seed).maps
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    quiet = attribute(model, x, 1, method="smooth_grad", samples=3, noise=1e-6).maps
    plain = attribute(model, x, 1, method="gradient").maps
    np.testing.assert_allclose(quiet, plain, rtol=1e-2, atol=1e-3 * abs(plain).max())


def test_occlusion_is_the_drop_of_the_logit(model):
    x = image(1)
    found = attribute(model, x, 0, method="occlusion", window=32, stride=32).maps[0]
    with torch.no_grad():
        for top, left in [(0, 0), (0, 32), (32, 0), (32, 32)]:
            hidden = x.clone()
            hidden[:, :, top : top + 32, left : left + 32] = 0
            drop = float(model(x)[0, 0] - model(hidden)[0, 0])
            tile = found[top : top + 32, left : left + 32]
            np.testing.assert_allclose(tile, drop, rtol=1e-3, atol=1e-6)


def test_guided_backpropagation_passes_only_what_is_positive():
    """By hand on two layers, with an in-place ReLU as timm's networks have them."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 4),
    )  # fmt: skip
    x = image(high=9, wide=9)
    before = state(net)
    found = attribute(net, x, 2, method="guided_backprop").maps
    assert state(net) == before
    hidden = F.conv2d(x, net[0].weight, net[0].bias)
    gradient = net[4].weight[2].clamp(min=0)[None, :, None, None] / 49 * (hidden > 0)
    expected = F.conv_transpose2d(gradient, net[0].weight).sum(1).detach()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-8)


# ------------------------------------------------------------------ beside other networks


def test_it_agrees_with_the_package_grad_cam(resnet, monkeypatch):
    cv2, base_cam = pytest.importorskip("cv2"), pytest.importorskip("pytorch_grad_cam.base_cam")
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    x, targets = image(3, 96, 64), [1, 7, 4]
    package = base_cam.scale_cam_image

    def resized_only(cam, size=None):  # the package's own scaling, without its normalisation
        return cam if size is None else np.stack([cv2.resize(np.float32(c), size) for c in cam])

    for point in ("layer4", "layer3", "layer3.0.act1", "maxpool"):
        found = grad_cam(resnet, x, targets, point)
        with GradCAM(resnet, [resnet.get_submodule(point)]) as cam:
            signed = []
            inner = cam.get_cam_image
            monkeypatch.setattr(
                cam, "get_cam_image", lambda *a, s=signed, f=inner: s.append(f(*a)) or s[-1]
            )
            classes = [ClassifierOutputTarget(t) for t in targets]
            whole = cam(x, classes)
            monkeypatch.setattr(base_cam, "scale_cam_image", resized_only)
            raw = cam(x, classes)
            monkeypatch.setattr(base_cam, "scale_cam_image", package)
        size = np.abs(signed[0]).max()
        np.testing.assert_allclose(found.maps, signed[0], rtol=0, atol=1e-5 * size)
        mine = upsample(np.maximum(found.maps, 0), found.img_size)
        np.testing.assert_allclose(mine, raw, rtol=0, atol=1e-5 * size)
        # and with its normalisation done to ours instead
        low, high = mine.min((1, 2), keepdims=True), mine.max((1, 2), keepdims=True)
        there = high > low  # a map without a positive value stays zero
        spread = np.where(there, high - low, 1)
        np.testing.assert_allclose((mine - low) / spread, whole, atol=1e-4)
        assert there.any()
    resnet.zero_grad(set_to_none=True)  # which the package leaves behind


def timm_network(family: str) -> nn.Module:
    """A small network of a family of timm, with other layouts than ours."""
    four, kwargs = (1, 1, 1, 1), {"num_classes": 4}
    if family == "swin":
        kwargs |= {"embed_dim": 16, "depths": four, "num_heads": (1, 2, 2, 2), "img_size": 112}
        return timm.create_model("swin_tiny_patch4_window7_224", **kwargs).eval()
    if family == "mixer":
        sizes = {"img_size": 96, "patch_size": 32, "num_blocks": 2, "embed_dim": 24}
        return timm.models.MlpMixer(**kwargs, **sizes).eval()
    if family == "vit":
        kwargs |= {"depth": 2, "embed_dim": 24, "num_heads": 2, "img_size": (64, 96)}
        return timm.create_model("vit_tiny_patch16_224", **kwargs).eval()
    if family == "convnext":
        return timm.models.ConvNeXt(**kwargs, depths=four, dims=(8, 8, 16, 16)).eval()
    if family == "pvt":
        kwargs |= {"depths": four, "embed_dims": (8, 16, 24, 32), "num_heads": (1, 2, 3, 4)}
        return timm.models.PyramidVisionTransformerV2(**kwargs).eval()
    return timm.models.MetaFormer(**kwargs, depths=four, dims=(8, 8, 16, 16)).eval()


# input, point, its grid
SMALL = {
    "swin": ((112, 112), "layers.2", (7, 7)),
    "mixer": ((96, 96), "blocks.1", (3, 3)),
    "vit": ((64, 96), "blocks.0", (4, 6)),
    "convnext": ((64, 32), "stages.2", (4, 2)),
    "pvt": ((64, 64), "stages.2", (4, 4)),
    "metaformer": ((64, 64), "stages.2", (8, 8)),
}
CHANNELS = {"swin": "NHWC", "mixer": "NLC", "vit": "NLC"}


@pytest.mark.parametrize("family", SMALL)
def test_any_network_of_timm(family):
    (high, wide), point, grid = SMALL[family]
    net = stir(timm_network(family))
    x, before = image(2, high, wide), state(net)
    found = grad_cam(net, x, [3, 0], point)
    assert state(net) == before
    assert found.maps.shape == (2, *grid)
    assert found.upsampled.shape == (2, high, wide)
    # by hand, in the network's own layout
    module, layout = net.get_submodule(point), CHANNELS.get(family, "NCHW")
    with torch.no_grad():
        held = []
        handle = module.register_forward_hook(lambda m, a, out: held.append(out))
        net(x)
        handle.remove()
    prefix = getattr(net, "num_prefix_tokens", 0) if layout == "NLC" else 0

    def inside(v):
        if layout == "NHWC":
            return v.permute(0, 3, 1, 2)
        return v if layout == "NCHW" else v[:, prefix:].transpose(1, 2).unflatten(2, grid)

    def outside(v):
        if layout == "NHWC":
            return v.permute(0, 2, 3, 1)
        if layout == "NCHW":
            return v
        return torch.cat([held[0][:, :prefix], v.flatten(2).transpose(1, 2)], 1)

    def tail(v):
        handle = module.register_forward_hook(lambda m, a, out: outside(v))
        try:
            return net(x)
        finally:
            handle.remove()

    expected = by_hand(tail, inside(held[0]), [3, 0])
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found.maps, expected, rtol=1e-3, atol=1e-5 * abs(expected).max())
    if layout != "NCHW":
        told = grad_cam(net, x, [3, 0], point, layout=layout)
        np.testing.assert_array_equal(told.maps, found.maps)


def test_shapes_that_lie_nowhere_on_the_image_are_said():
    mixer, swin = timm_network("mixer"), timm_network("swin")
    hidden = mixer.blocks[1].mlp_tokens.fc1.out_features
    message = rf"shape \[2, 24, {hidden}\] .*cannot be known: give layout as one of NCHW"
    with pytest.raises(ValueError, match=message):
        grad_cam(mixer, image(2, 96, 96), point="blocks.1.mlp_tokens.fc1")
    with pytest.raises(ValueError, match=r"pieces for 2 images \(windows, say\)"):
        grad_cam(swin, image(2, 112, 112), point="layers.0.blocks.0.attn.qkv")
    with pytest.raises(ValueError, match=r"no layout 'HWC'.* Choose one of NCHW, NHWC, NLC, NCL"):
        grad_cam(swin, image(2, 112, 112), point="layers.2", layout="HWC")


def test_a_deployed_network_gives_the_same_maps(model):
    x = image()
    deployed = hl.deploy(model)
    for point in ("features", "stages.2", f"{BLOCK}.height.out", "stages.1.blocks.0.mid"):
        found, expected = (grad_cam(net, x, 2, point).maps for net in (deployed, model))
        np.testing.assert_allclose(found, expected, atol=1e-4 * abs(expected).max())


# ------------------------------------------------------------------ place by place


def test_hires_cam_is_gradient_times_activation(model):
    found = attribute(model, image(2), 1, "stages.1", method="hires_cam")
    kept = []
    hook = model.stages[1].register_forward_hook(lambda _, given, output: kept.append(output))
    logits = model(image(2))
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), kept)
    expected = (gradient * kept[0]).sum(1).detach().numpy()
    np.testing.assert_allclose(found.maps, expected, atol=1e-5 * np.abs(expected).max())


def test_hires_cam_inside_a_branch_is_carried_back(model):
    """Between these two points tokens only move, and nothing is padded."""
    maps = [
        attribute(model, image(2), 1, f"{BLOCK}.width.{name}", method="hires_cam").maps
        for name in ("mixed", "out")
    ]
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-5 * np.abs(maps[1]).max())


def test_where_only_an_average_follows_both_cams_are_one(model):
    """After the last map come its mean over places and a linear layer: one weight a channel."""
    one = attribute(model, image(2), 1, "features", method="hires_cam")
    other = grad_cam(model, image(2), 1, "features")
    np.testing.assert_allclose(one.maps, other.maps, rtol=1e-4, atol=1e-7)


def test_hires_cam_is_dark_where_nothing_moves_the_answer():
    """A classifier of one corner: Grad-CAM lights up elsewhere, gradient times activation not."""
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 4, 1), torch.nn.ReLU())
    corner = torch.nn.Sequential(net, Corner())
    maps = {
        m: attribute(corner, image(1), 1, "0", method=m).maps[0] for m in ("hires_cam", "grad_cam")
    }
    assert np.abs(maps["hires_cam"][:2, :2]).sum() > 0
    assert not maps["hires_cam"][2:].any()
    assert not maps["hires_cam"][:, 2:].any()
    assert maps["grad_cam"][2:].any()


class Corner(torch.nn.Module):
    """Two classes from the first four tokens alone."""

    def forward(self, x):
        part = x[:, :, :2, :2].sum((2, 3))
        return torch.stack([part[:, :4].sum(1), part[:, 4:].sum(1)], 1)


# ------------------------------------------------------------------ what a network may be doing


@pytest.mark.parametrize("method", METHODS)
def test_a_training_network_is_read_in_evaluation_mode_and_goes_on_training(method):
    net, x = make(drop_rate=0.5, drop_path_rate=0.5), image(1, 32, 32)
    options = {"occlusion": {"window": 16, "stride": 16}, "integrated_gradients": {"steps": 3},
               "smooth_grad": {"samples": 2}}.get(method, {})  # fmt: skip
    expected = attribute(net, x, 1, method=method, **options).maps
    net.train()
    net.stages[0].eval()  # a part that its owner has frozen
    for parameter in net.stem.parameters():
        parameter.requires_grad_(False)
    net.set_grad_checkpointing()
    before = state(net)
    np.testing.assert_array_equal(attribute(net, x, 1, method=method, **options).maps, expected)
    assert state(net) == before
    with pytest.raises(ValueError, match="5 classes"):
        attribute(net, x, 5, method=method)
    assert state(net) == before
    handle = net.norm.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        attribute(net, x, 1, method=method)
    handle.remove()
    assert state(net) == before


@pytest.mark.parametrize("outer", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_inside_other_modes_the_maps_are_the_same(model, outer):
    expected = grad_cam(model, image(), 1, "stages.2").maps
    with outer():
        found = grad_cam(model, image(), 1, "stages.2").maps
        integrated = attribute(model, image(1), 1, method="integrated_gradients", steps=3)
    np.testing.assert_array_equal(found, expected)
    assert np.abs(integrated.maps).max() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("point", ["features", "stages.2", f"{BLOCK}.width.mixed"])
def test_half_precision_gives_the_map_up_to_its_rounding(dtype, point):
    half = make().to(dtype)
    expected = grad_cam(make().to(dtype).float(), image(), 1, point)  # the same weights
    found = grad_cam(half, image(), 1, point)  # a batch in another precision is converted
    assert found.maps.dtype == np.float32
    for one, other in zip(found.maps, expected.maps, strict=True):
        likeness = np.corrcoef(one.ravel(), other.ravel())[0, 1]
        assert likeness > (0.99 if dtype == torch.float16 else 0.9)  # 10 bits, and 7
        assert np.abs(one).max() == pytest.approx(np.abs(other).max(), rel=0.3)


def test_small_gradients_survive_in_float16():
    """Without a scale they would be below what float16 can hold."""
    half = make().half()
    with torch.no_grad():
        half.head.weight.mul_(1e-4)
    found = grad_cam(half, image(), 1, "stages.1").maps
    with torch.no_grad():
        full = make()
        full.head.weight.mul_(1e-4)
    expected = grad_cam(full, image(), 1, "stages.1").maps
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.98


class Odd(nn.Module):
    """A network with everything that a point may not be."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, padding=1)
        self.twice = nn.ReLU(inplace=True)
        self.unused = nn.Conv2d(3, 4, 1)
        self.aside = nn.Conv2d(4, 4, 1)
        self.pair = Pair()
        self.alias = nn.Identity()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.twice(self.body(x)) * 1.0
        kept = self.alias(x)
        self.aside(x)
        a, _ = self.pair(kept)
        x.mul_(0.5)  # what a neighbour overwrites, after the point
        return self.head(self.twice(a + x).mean((2, 3)))


class Pair(nn.Module):
    def forward(self, x):
        return x * 2, x


def test_points_without_a_map_are_one_sentence():
    torch.manual_seed(0)
    net, x = Odd(), image(high=8, wide=8)
    before = state(net)
    wrong = {
        "twice": "called more than once in a pass; say which call you mean",
        "unused": "is not used in the pass",
        "aside": "have no gradient at aside",
        "pair": "gives a tuple",
        "head": r"shape \[2, 3\] for images of 8 x 8; which axes are the map cannot be known",
    }
    for point, why in wrong.items():
        with pytest.raises(ValueError, match=why) as caught:
            grad_cam(net, x, 1, point)
        assert str(caught.value).endswith(".")
        assert "\n" not in str(caught.value)
        assert state(net) == before
    with pytest.raises(UnknownPoint, match=r"no point 'bodi'\. Did you mean 'body'"):
        grad_cam(net, x, 1, "bodi")
    with pytest.raises(ValueError, match="does not say where its last map is"):
        grad_cam(net, x, 1)


def test_what_is_overwritten_in_place_does_not_reach_the_map():
    """`body` is followed by an in-place ReLU; `alias` is overwritten by a neighbour."""
    torch.manual_seed(0)
    net, x = Odd(), image(high=8, wide=8)
    with torch.no_grad():
        body = net.body(x)
    relu = body.relu()

    def rest(a, b):
        return net.head((2 * a + b * 0.5).relu().mean((2, 3)))

    expected = by_hand(lambda v: rest(v.relu(), v.relu()), body, [1, 1])
    np.testing.assert_allclose(grad_cam(net, x, 1, "body").maps, expected, rtol=1e-4, atol=1e-8)
    # at `alias` only what the network takes from it counts, not the tensor that it shares
    expected = by_hand(lambda v: rest(v, relu), relu, [1, 1])
    np.testing.assert_allclose(grad_cam(net, x, 1, "alias").maps, expected, rtol=1e-4, atol=1e-8)


def test_points_of_a_hire_mlp_without_a_place(model):
    x = image()
    for point, kind in [(f"{BLOCK}.gate", "gate"), ("pooled", "vector"), ("logits", "vector")]:
        with pytest.raises(ValueError, match=f"{point}.* is a {kind} .* only token grids"):
            grad_cam(model, x, point=point)
    inner = f"{BLOCK}.height.mix.fc1"
    with pytest.raises(UnknownPoint, match=rf"{inner} lies inside .* use .*\.regions .*\.mixed"):
        grad_cam(model, x, point=inner)
    with pytest.raises(UnknownPoint, match=r"Did you mean .*'stages\.2'"):
        grad_cam(model, x, point="stage.2")


def test_wrong_inputs_are_one_sentence(model):
    x = image()
    broken = x.clone()
    broken[0, 0, 0, 0] = float("nan")
    cases = [
        ((x[0],), ValueError, r"\[3, 64, 64\]; .* x\[None\]"),
        ((x[:0],), ValueError, "at least one image"),
        ((x.numpy(),), ValueError, "ndarray; give a tensor"),
        (((x * 255).to(torch.uint8),), ValueError, "normalised real numbers"),
        ((broken,), ValueError, "NaN or infinite"),
        ((x, 5), ValueError, "target is 5; the network has 5 classes, 0 to 4"),
        ((x, -1), ValueError, "target is -1; the network has 5 classes"),
        ((x, [1]), ValueError, "names 1 classes for 2 images"),
        ((x, [1, 9]), ValueError, "target is 9"),
        ((x, 1.5), ValueError, "target is 1.5; give a class as a whole number"),
        ((x, True), ValueError, "target is True"),
        ((x, "cat"), ValueError, "target is 'cat'"),
    ]
    for args, kind, why in cases:
        with pytest.raises(kind, match=why) as caught:
            grad_cam(model, *args)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"no method 'gradcam'\. Did you mean 'grad_cam'"):
        attribute(model, x, method="gradcam")
    with pytest.raises(ValueError, match="integrated_gradients attributes to pixels"):
        attribute(model, x, point="stages.2", method="integrated_gradients")
    with pytest.raises(ValueError, match=r"no option 'step'\. Did you mean 'steps'"):
        attribute(model, x, method="integrated_gradients", step=3)
    for option, value, method in [
        ("steps", 0, "integrated_gradients"), ("window", 65, "occlusion"),
        ("stride", 99, "occlusion"), ("samples", 2.5, "smooth_grad"), ("noise", 0, "smooth_grad"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=f"{option} is {value}"):
            attribute(model, x, method=method, **{option: value})
    with pytest.raises(ValueError, match=r"returns .* give a whole classifier"):
        grad_cam(model.stages[0].blocks[0], torch.randn(1, 16, 8, 8), point="mid")
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="no ReLU module"):
        attribute(net, x, 0, method="guided_backprop")


def test_a_network_that_computes_nan_is_said():
    broken = make()
    nn.init.constant_(broken.stages[2].blocks[0].mlp.fc1.bias, float("nan"))
    for method in ("grad_cam", "gradient"):
        with pytest.raises(ValueError, match="HireMLP computes NaN or infinite values"):
            attribute(broken, image(1), 0, method=method)


def test_a_map_of_nothing_warns():
    net = timm.create_model("resnet18", num_classes=3).eval()  # its last norms start at zero
    with pytest.warns(
        UserWarning, match=r"at layer4\.1\.bn2 is zero everywhere.*suggest_target"
    ) as caught:
        grad_cam(net, image(), 1, "layer4.1.bn2")
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grad_cam(net, image(), 1, "layer4")
        for method in ("gradient", "smooth_grad", "guided_backprop", "integrated_gradients"):
            attribute(net, image(1, 32, 32), 1, method=method)


def tensors_after(net: nn.Module, times: int) -> tuple[int, int]:
    """How many tensors there are, and how many numbers they hold, after some calls."""
    x = image(1, 16, 16)
    for _ in range(times):
        grad_cam(net, x, 1, "stages.0.blocks.0.hire.height.mixed")
    gc.collect()
    kept = [t for t in gc.get_objects() if issubclass(type(t), torch.Tensor)]
    return len(kept), sum(t.numel() for t in kept)


def test_nothing_is_kept_over_200_calls():
    net = make(depths=(1, 1), dims=(4, 4), region=2, shift=1, shift_cycle=2)
    before = tensors_after(net, 3)
    assert tensors_after(net, 200) == before
    found = grad_cam(net, image(1, 16, 16), 1)  # a result does not keep its network
    gone = weakref.ref(net)
    del net
    gc.collect()
    assert gone() is None
    assert len(found) == 1


# ------------------------------------------------------------------ the result


def test_the_result_says_what_was_asked(model):
    x = image(3)
    with torch.no_grad():
        shares = model(x).softmax(1).numpy()
    own = grad_cam(model, x)
    np.testing.assert_array_equal(own.targets, shares.argmax(1))
    np.testing.assert_array_equal(own.predicted, own.targets)
    asked = grad_cam(model, x, torch.tensor([4, 0, 1]))
    np.testing.assert_allclose(asked.probabilities, shares[[0, 1, 2], [4, 0, 1]], rtol=1e-4)
    np.testing.assert_allclose(asked.confidence, shares.max(1), rtol=1e-4)
    np.testing.assert_array_equal(asked.predicted, own.predicted)
    for one in (3, np.int64(3), torch.tensor(3)):
        np.testing.assert_array_equal(grad_cam(model, x, one).targets, [3, 3, 3])
    with pytest.raises(dataclasses.FrozenInstanceError):
        own.point = "elsewhere"


def test_a_result_can_be_kept(model, tmp_path):
    found = attribute(model, image(), 1, method="occlusion", window=32)
    found.save(tmp_path / "map.npz")
    again = Attribution.load(tmp_path / "map.npz")
    for f in dataclasses.fields(Attribution):
        np.testing.assert_array_equal(getattr(again, f.name), getattr(found, f.name))
    np.testing.assert_array_equal(again.upsampled, found.upsampled)
    assert again.overlay().data == found.overlay().data


def test_upsampling_puts_a_token_at_the_centre_of_its_cell():
    tokens = np.arange(12, dtype=np.float32).reshape(1, 3, 4) ** 2
    large = upsample(tokens, (9, 20))  # a token is 3 x 5 pixels
    np.testing.assert_allclose(large[0, 1::3, 2::5], tokens[0], atol=1e-5)
    np.testing.assert_array_equal(upsample(large, (9, 20)), large)


def test_drawings_say_class_point_and_untrained(model):
    x = image()
    found = grad_cam(model, x, [1, 2], "stages.1")
    text = found.overlay(names=["ape", "bee", "cat", "dog", "eel"]).text
    assert f"bee, {found.probabilities[0]:.0%}" in text
    assert "stages.1.out, 8 x 8" in text
    assert "untrained" not in text
    fresh = grad_cam(hl.create("hire_mlp_atto", seed=0), x, 1, "stages.1")
    assert "the weights are untrained" in fresh.plot().text
    grey = grad_cam(make(in_chans=1), image(chans=1), 0)
    with pytest.raises(ValueError, match="was not RGB"):
        grey.overlay()


# ------------------------------------------------------------------ drawing


def test_heat_covers_what_is_positive_and_only_that():
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    values = -rng.random((8, 8))
    none = overlay.spotlight(photo, values)
    assert (none == none[..., :1]).all()  # grey
    values[2, 3] = 2.0
    drawn = overlay.spotlight(photo, values)
    changed = (drawn != none).any(-1)
    assert changed.sum() == 1
    assert changed[2, 3]
    assert drawn[2, 3].sum() > none.sum(-1).max()  # brighter than any of the image
    np.testing.assert_array_equal(overlay.spotlight(photo, values * 7), drawn)  # its own scale
    with pytest.raises(ValueError, match="upsample the map"):
        overlay.spotlight(photo, values[:4])
    with pytest.raises(ValueError, match="NaN or infinite"):
        overlay.spotlight(photo, np.where(values > 0, np.nan, values))


def test_heat_is_told_from_grey_and_its_bar_shows_it():
    """More heat never looks less: further from grey, and in the end brighter than any image."""
    ramp = np.linspace(0, 1, 64)[None].repeat(2, 0)
    for level in (0, 95, 255):
        photo = np.full((2, 64, 3), level, np.uint8)
        drawn = overlay.spotlight(photo, ramp).astype(int)[0]
        assert (drawn[0] == drawn[0, 0]).all()  # nothing speaks for the class: the grey image
        coloured = drawn.max(-1) - drawn.min(-1)
        assert (coloured[6:] > 12).all()
        assert (np.diff(drawn[:, 0]) >= -3).all()  # red, which all of the heat has
    canvas = Canvas(200, 60, scale=1)
    overlay.draw_bar(canvas, (0, 0, 200, 20), ("0", "1"))
    bar = np.asarray(canvas.image)[10, 2:-2].astype(int)
    whole = overlay.spotlight(np.full((1, 196, 3), 127, np.uint8), np.linspace(0, 1, 196)[None])[0]
    assert abs(bar - whole).max() < 12
    overlay.draw_signed_bar(canvas, (0, 0, 200, 20), ("against", "for"))
    bar = np.asarray(canvas.image)[10]
    assert abs(bar[3].astype(int) - theme.rgb(theme.ORANGE)).max() < 12
    assert abs(bar[-4].astype(int) - theme.rgb(theme.BLUE)).max() < 12


def test_signed_colours_have_one_scale_for_both_signs():
    drawn = overlay.signed(np.array([[0.0, 2.0, -2.0, 1.0, -1.0]]))[0].tolist()
    assert drawn[:3] == [[255] * 3, list(theme.rgb(theme.BLUE)), list(theme.rgb(theme.ORANGE))]
    for half, whole in ((drawn[3], drawn[1]), (drawn[4], drawn[2])):
        np.testing.assert_allclose(half, (np.array(whole) + 255) / 2, atol=1)
    assert (overlay.signed(np.zeros((2, 2))) == 255).all()
    with pytest.raises(ValueError, match="NaN or infinite"):
        overlay.signed(np.array([[np.inf]]))
