"""One reading of a point for every measurement: names, layouts, and the way there and back."""

from __future__ import annotations

import gc
import weakref

import pytest
import timm
import torch
from _helpers import random_images, randomise
from torch import nn

import hirelab as hl
from hirelab._shared.errors import HirelabError
from hirelab.hooks.layouts import (
    LAYOUTS,
    Layout,
    default_point,
    find_layouts,
    reading,
    reading_all,
    resolve,
)
from hirelab.hooks.points import UnknownPoint
from hirelab.rearrange import PADDINGS

BLOCK = "stages.2.blocks.1"


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return randomise(hl.create("hire_mlp_atto", seed=0, num_classes=5)).eval()


def swin() -> nn.Module:
    sizes = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2), "img_size": 112}
    return timm.create_model("swin_tiny_patch4_window7_224", num_classes=4, **sizes)


def vit() -> nn.Module:
    sizes = {"depth": 2, "embed_dim": 24, "num_heads": 2, "img_size": (64, 96)}
    return timm.create_model("vit_tiny_patch16_224", num_classes=4, **sizes)


def mixer() -> nn.Module:
    sizes = {"img_size": 96, "patch_size": 32, "num_blocks": 2, "embed_dim": 24}
    return timm.models.MlpMixer(num_classes=4, **sizes)


class Uneven(nn.Module):
    """A map of 7 x 8 of a square image, which no one stride makes."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, (4, 3), (4, 3), padding=(0, 0))
        self.lay, self.layout, self.head = nn.Identity(), layout, nn.Linear(5, 4)

    def forward(self, x):
        laid = Layout(self.layout, (7, 8))
        maps = self.conv(x)
        value = self.lay(laid.back(maps, maps.flatten(2) if self.layout == "NCL" else
                                   maps.flatten(2).transpose(1, 2)))  # fmt: skip
        return self.head(laid.carry(value).mean((2, 3)))


# network, image, point, what is given, and how it must be read
NETWORKS = {
    "resnet18": (lambda: timm.create_model("resnet18", num_classes=4), (64, 96), "layer3", {},
                 ("NCHW", (4, 6))),
    "vit_tiny": (vit, (64, 96), "blocks.0", {}, ("NLC", (4, 6))),
    "swin": (swin, (112, 112), "layers.2", {}, ("NHWC", (7, 7))),
    "mixer": (mixer, (96, 96), "blocks.1", {}, ("NLC", (3, 3))),
    "mixer, tokens last": (mixer, (96, 96), "blocks.1.mlp_tokens.fc2", {}, ("NCL", (3, 3))),
    "hire": (lambda: hl.create("hire_mlp_atto", seed=0), (64, 96), f"{BLOCK}.hire.width.mixed", {},
             ("NCHW", (4, 6))),
    **{
        f"7 x 8, {layout}": (lambda layout=layout: Uneven(layout), (28, 24), "lay",
                             {"layout": layout, **({"grid": (7, 8)} if "L" in layout else {})},
                             (layout, (7, 8)))
        for layout in LAYOUTS
    },
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_both_measurements_read_a_point_alike(name):
    build, (high, wide), point, given, (layout, grid) = NETWORKS[name]
    torch.manual_seed(0)
    net, x = randomise(build()).eval(), random_images(2, 3, high, wide)
    field = hl.receptive_field(net, x, point, (grid[0] - 1, 0), outputs="positive", **given)
    assert (field.layout, tuple(field.grid)) == (layout, grid)
    assert hl.grad_cam(net, x, 0, point, **given).maps.shape == (2, *grid)
    with reading(net, point, **given) as point_map, torch.no_grad():
        seen = point_map.read(x)
        net(x)
        assert (point_map.layout, point_map.grid, point_map.calls) == (layout, grid, 1)
    assert seen.shape[2:] == grid


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_map_of_7_by_8_is_refused_on_a_square_image_until_its_layout_is_given(layout):
    net = nn.Sequential(nn.Conv2d(3, 5, (32, 28), (32, 28)), nn.Identity())
    x = random_images(1, 3, 224)
    back = Layout(layout, (7, 8)).back
    net[1].register_forward_hook(
        lambda m, a, out: back(out, out.flatten(2) if layout == "NCL" else
                               out.flatten(2).transpose(1, 2))
    )  # fmt: skip
    message = "for images of 224 x 224; which axes are the map cannot be known"
    for read in (lambda **kw: hl.receptive_field(net, x, "1", **kw),
                 lambda **kw: read_once(net, "1", x, **kw)):  # fmt: skip
        with pytest.raises(HirelabError, match=message):
            read()
        given = {"layout": layout} | ({"grid": (7, 8)} if "L" in layout else {})
        assert tuple(read(**given).grid) == (7, 8)


def read_once(net: nn.Module, point: str, x: torch.Tensor, **given):
    with reading(net, point, **given) as point_map:
        point_map.read(x)
    return point_map


@pytest.mark.parametrize(
    ("shape", "image", "found"),
    [
        ((2, 5, 8, 8), (64, 64), [("NCHW", (8, 8))]),
        ((2, 8, 8, 5), (64, 64), [("NHWC", (8, 8))]),
        ((2, 64, 5), (64, 64), [("NLC", (8, 8))]),
        ((2, 5, 64), (64, 64), [("NCL", (8, 8))]),
        ((2, 8, 8, 8), (64, 64), [("NCHW", (8, 8)), ("NHWC", (8, 8))]),
        ((2, 64, 64), (64, 64), [("NLC", (8, 8)), ("NCL", (8, 8))]),
        ((2, 24, 500), (64, 96), [("NLC", (4, 6))]),  # 3 x 8 would cut borders off
        ((2, 7, 500), (70, 10), [("NLC", (7, 1))]),
        ((2, 56, 5), (224, 224), []),
        ((2, 5), (64, 64), []),
    ],
)
def test_shapes_and_the_layouts_that_they_can_have(shape, image, found):
    assert [(one.name, one.grid) for one in find_layouts(shape, image)] == found


@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_there_and_back_is_the_tensor_itself(layout, prefix):
    laid = Layout(layout, (3, 4))
    sizes = {"N": 2, "C": 5, "H": 3, "W": 4, "L": 12 + prefix}
    own = torch.randn([sizes[axis] for axis in layout])
    grid = laid.carry(own)
    assert grid.shape == (2, 5, 3, 4)
    assert torch.equal(laid.back(grid, own), own)


@pytest.mark.parametrize("leaf", ["shifted", "regions"])
@pytest.mark.parametrize("padding", PADDINGS)
def test_back_is_the_inverse_of_tokens(leaf, padding):
    """Before the mixing padded slots hold copies, so that the whole tensor comes back."""
    net = hl.create("hire_mlp_atto", seed=0, padding=padding)
    for axis in ("height", "width"):
        name = f"{BLOCK}.hire.{axis}.{leaf}"
        _, cache = net.run_with_cache(random_images(1, 3, 64, 96), name)
        point = cache.point(name)
        assert torch.equal(point.back(point.tokens(cache[name])), cache[name])


def test_names(model):
    assert resolve(model, BLOCK) == f"{BLOCK}.out"
    assert resolve(model, f"{BLOCK}.norm1") == f"{BLOCK}.norm1"
    assert default_point(model) == "features"
    with pytest.raises(UnknownPoint, match=r"'stages\.2\.blocks\.1\.ot'.*Did you mean"):
        resolve(model, f"{BLOCK}.ot")
    with pytest.raises(UnknownPoint, match=r"use .*height\.regions before the mixing"):
        resolve(model, f"{BLOCK}.hire.height.mix.fc1")
    with pytest.raises(HirelabError, match="Conv2d does not say where its last map is"):
        default_point(nn.Conv2d(3, 3, 3))
    with pytest.raises(HirelabError, match="gate"), reading(model, f"{BLOCK}.hire.gate") as gate:
        gate.read(random_images())


def test_replacing_changes_what_the_network_goes_on_with(model):
    x = random_images()
    with torch.no_grad():
        with model.edits({BLOCK: hl.edit.scale(2.0)}):
            expected = model(x)
        with reading(model, BLOCK, replace=lambda grid: 2 * grid):
            assert torch.equal(model(x), expected)
        with reading(model, BLOCK) as point_map:
            assert torch.equal(model(x), model(x))  # reading alone changes nothing
        assert point_map.grid == (4, 4)


def test_a_module_used_twice_is_replaced_in_the_call_that_is_meant():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 3, 3, padding=1)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv

        def forward(self, x):
            return self.conv(self.conv(x))

    net, x = Twice(), random_images(1, 3, 8)
    for call, expected in ((0, conv(2 * conv(x))), (1, 2 * conv(conv(x)))):
        with reading(net, "conv", call=call, replace=lambda grid: 2 * grid) as point_map:
            torch.testing.assert_close(net(x), expected)
            assert point_map.calls == 2
    with pytest.raises(HirelabError, match="more than once"), reading(net, "conv"):
        net(x)


def test_several_points_in_one_pass_and_half_an_image_asked_in_between(leaves_no_hooks):
    """8 x 8 places of 8 channels: half an image tells, in a pass inside the pass."""
    net = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Identity(), nn.Identity())
    net[1].register_forward_hook(lambda m, a, out: out.permute(0, 2, 3, 1))
    leaves_no_hooks(net)
    seen = {}
    with reading_all(net, ["0", "1", "2"], lambda name, grid: seen.setdefault(name, grid)) as maps:
        net(random_images(2, 3, 32))
    assert [m.layout for m in maps] == ["NCHW", "NHWC", "NHWC"]
    assert [m.calls for m in maps] == [1, 1, 1]
    assert torch.equal(seen["0"], seen["1"])
    assert torch.equal(seen["0"], seen["2"])


def test_nothing_is_kept_after_the_block(model, leaves_no_hooks):
    leaves_no_hooks(model)
    gc.disable()
    try:
        with reading(model, BLOCK) as point_map:
            held = weakref.ref(point_map.read(random_images()))
        del point_map
        assert held() is None
    finally:
        gc.enable()
