"""Effective receptive fields, against theory, index maps and straightforward implementations."""

from __future__ import annotations

import contextlib
import copy
import gc
import itertools
import tracemalloc
import warnings
import weakref

import numpy as np
import pytest
import timm
import torch
from torch import nn

import hirelab as hl
from hirelab.analysis.fields import ReceptiveField
from hirelab.analysis.paths import PATHS
from hirelab.analysis.receptive_field import POSITIONS, receptive_field
from hirelab.hooks.points import Probe, UnknownPoint
from hirelab.rearrange import CROSS_REGIONS, PADDINGS

ONE_STAGE = {"depths": (2,), "dims": (16,), "region": 3, "shift": 1, "shift_cycle": 2}


def random_images(n=2, high=64, wide=64, chans=3, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(n, chans, high, wide, generator=torch.manual_seed(1), dtype=dtype)


def randomise(model: nn.Module) -> nn.Module:
    """Numbers that all differ from those of an untrained network, none of them zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator) - 0.5
                scale = 2 / tensor[0].numel() ** 0.5 if tensor.dim() > 1 else 1.0
                tensor.copy_(noise * scale + (tensor.dim() == 1))
    return model.eval()


def hire(**kwargs) -> nn.Module:
    return randomise(hl.create("hire_mlp_atto", seed=0, num_classes=5, **{**ONE_STAGE, **kwargs}))


def hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in model.modules() for kind in kinds)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return hire()


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return randomise(timm.create_model("resnet18", num_classes=3))


def by_hand(read, images, place, gradient="abs", outputs="all") -> np.ndarray:
    """An image at a time: ``read`` gives its map (1, C, rows, columns)."""
    total = 0
    for image in images:
        pixels = image[None].clone().requires_grad_()
        value = read(pixels)[0, :, place[0], place[1]]
        (value if outputs == "all" else torch.relu(value)).sum().backward()
        g = pixels.grad[0]
        g = {"abs": g.abs(), "square": g**2, "relu": g.clamp(min=0)}[gradient]
        total = total + g.sum(0).double().numpy()
    return total / len(images)


# ------------------------------------------------------------------ the map


@pytest.mark.parametrize(
    ("gradient", "outputs"),
    [("abs", "all"), ("square", "all"), ("relu", "all"), ("relu", "positive")],
)
def test_on_a_resnet_it_is_what_a_straightforward_implementation_gives(resnet, gradient, outputs):
    images = random_images(3, 48, 64)
    double = copy.deepcopy(resnet).double()

    def read(x):
        x = double.maxpool(double.act1(double.bn1(double.conv1(x))))
        return double.layer2(double.layer1(x))

    expected = by_hand(read, images.double(), (2, 1), gradient, outputs)
    options = {"gradient": gradient, "outputs": outputs}
    for batch in (1, 2, 16):
        exact = receptive_field(
            resnet, images, "layer2", (2, 1), batch_size=batch, dtype=torch.float64, **options
        )
        np.testing.assert_allclose(exact.map, expected, rtol=1e-9, atol=expected.max() * 1e-12)
        assert (exact.grid, exact.layout, exact.dtype) == ([6, 8], "NCHW", "float64")
    single = receptive_field(resnet, images, "layer2", (2, 1), **options)
    # float32 may put an activation on the other side of a ReLU
    np.testing.assert_allclose(single.map, expected, atol=expected.max() * 1e-3)
    assert single.dtype == "float32"


def uniform_stack(kernel: int, layers: int, **kwargs) -> nn.Sequential:
    stack = nn.Sequential(
        *(nn.Conv2d(1, 1, kernel, padding=kernel // 2, bias=False, **kwargs) for _ in range(layers))
    )
    for layer in stack:
        nn.init.constant_(layer.weight, 1.0)
    return stack


@pytest.mark.parametrize(("kernel", "layers"), [(3, 1), (3, 10), (5, 6), (7, 4)])
def test_a_stack_of_convolutions_has_the_known_gaussian(kernel, layers):
    """Luo et al. 2016, section 2.2: n uniform kernels of k give a deviation of
    sqrt(n (k^2 - 1) / 12); the field itself is the n-fold convolution."""
    side = layers * (kernel - 1) + 5
    stack = uniform_stack(kernel, layers)
    field = receptive_field(stack, random_images(2, side, side + 4, 1), str(layers - 1))
    expected = np.sqrt(layers * (kernel**2 - 1) / 12)
    np.testing.assert_allclose(field.deviation, (expected, expected), rtol=1e-6)
    np.testing.assert_allclose(field.centroid, field.centre)
    line = np.ones(1)
    for _ in range(layers):
        line = np.convolve(line, np.ones(kernel))
    mass = np.convolve(line, [1])
    found = field.map.sum(axis=1)
    middle = int(field.centre[0])
    reach = len(mass) // 2
    np.testing.assert_allclose(
        found[middle - reach : middle + reach + 1] / found.sum(), mass / mass.sum(), rtol=1e-5
    )


def test_a_batch_is_every_image_by_itself(network):
    images = random_images(5)
    together = receptive_field(network, images, "stages.0", (3, 5))
    alone = [receptive_field(network, x[None], "stages.0", (3, 5)) for x in images]
    np.testing.assert_allclose(together.map, np.mean([f.map for f in alone], axis=0), rtol=1e-4)
    for name, values in together.by_image().items():
        np.testing.assert_allclose(values, [f.numbers()[name] for f in alone], atol=1e-4)
    assert together.image_count == 5


def test_norms_by_the_batch_do_not_mix_images():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    images = random_images(3, 9, 9) * torch.tensor([1.0, 3.0, 9.0])[:, None, None, None]
    expected = by_hand(net, images, (3, 3))
    np.testing.assert_allclose(receptive_field(net, images, "1").map, expected, rtol=1e-4)


# ------------------------------------------------------------------ numbers


def brute(field: ReceptiveField, share: float) -> tuple[float, float]:
    """Side and area of the smallest centred square with a share of the mass, pixel by pixel."""
    high, wide = field.map.shape
    down = (field.position[0] + 0.5) * high / field.grid[0]
    right = (field.position[1] + 0.5) * wide / field.grid[1]
    edges = {}
    for i, j in itertools.product(range(high), range(wide)):
        # the square must reach the pixel's far edges
        half = max(abs(i - down), abs(i + 1 - down), abs(j - right), abs(j + 1 - right))
        edges.setdefault(round(2 * half, 6), []).append((i, j))
    mass = count = 0
    for side in sorted(edges):
        mass += sum(field.map[p] for p in edges[side])
        count += len(edges[side])
        if mass >= share * field.map.sum() * (1 - 1e-12):
            return side, count / field.map.size
    raise AssertionError


@pytest.mark.parametrize("position", [*POSITIONS, (2, 0)])
@pytest.mark.parametrize(("high", "wide"), [(12, 12), (11, 14)])
def test_squares_are_what_counting_pixels_gives(position, high, wide):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 5, 2, 2), nn.ReLU(), nn.Conv2d(3, 3, 3, 2, 1))
    field = receptive_field(net, random_images(2, high, wide, 2), "2", position)
    for share in (0.1, 0.5, 0.9, 0.99, 1.0):
        side, area = brute(field, share)
        assert field.side(share) == pytest.approx((side,))
        assert field.area(share) == pytest.approx((area,))
    assert field.area(0.5, 0.99) == (field.area(0.5)[0], field.area(0.99)[0])
    # the area under a staircase, summed step by step
    steps = np.diff(np.append(field.sides, field.sides[-1]))
    under = (field.curve * steps).sum() / field.sides[-1]
    assert field.area_under_curve == pytest.approx(under)
    assert field.curve[-1] == 1
    assert (np.diff(field.curve) >= 0).all()


def test_a_point_and_a_flat_map():
    narrow = receptive_field(nn.Sequential(nn.Conv2d(1, 1, 1)), random_images(1, 9, 9, 1), "0")
    assert narrow.half_mass_side == 1
    assert narrow.area(0.01, 1.0) == (1 / 81, 1 / 81)
    assert narrow.area_under_curve == pytest.approx(1 - 1 / 9)
    flat = receptive_field(
        nn.Sequential(nn.AdaptiveAvgPool2d(1)), random_images(1, 400, 400, 1), "0"
    )
    # share of a square is its area, so the curve is a parabola
    assert flat.area(0.25)[0] == pytest.approx(0.25, abs=0.01)
    assert flat.area_under_curve == pytest.approx(1 / 3, abs=0.01)


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


@pytest.mark.parametrize("factor", [1e-4, 2.0**-20, 2.0**20, 1e4])
@pytest.mark.parametrize("gradient", ["abs", "square", "relu"])
def test_a_constant_factor_on_the_gradient_changes_no_number(network, factor, gradient):
    scaled = nn.Sequential(network.stem, network.stages, Times(factor))
    plain = receptive_field(
        network, random_images(), "stages.0", gradient=gradient, dtype=torch.float64
    )
    field = receptive_field(scaled, random_images(), "2", gradient=gradient, dtype=torch.float64)
    power = 2 if gradient == "square" else 1
    np.testing.assert_allclose(field.map, plain.map * factor**power, rtol=1e-9)
    for name, value in field.numbers().items():
        assert value == pytest.approx(plain.numbers()[name], rel=1e-9), name


def test_wrapping_is_told_from_staying():
    images = random_images(1, 8, 8, 1)
    round_the_border = uniform_stack(3, 1, padding_mode="circular")
    corner = receptive_field(round_the_border, images, "0", "corner")
    assert corner.wrapped_share == pytest.approx(5 / 9)  # of a 3 x 3 kernel, all but 2 x 2
    edge = receptive_field(round_the_border, images, "0", "top edge")
    assert edge.wrapped_share == pytest.approx(3 / 9)
    assert receptive_field(round_the_border, images, "0", (4, 4)).wrapped_share == 0
    assert receptive_field(uniform_stack(3, 1), images, "0", "corner").wrapped_share == 0
    # from pixel 0, pixels 5, 6 and 7 of 8 are nearer the other way
    assert corner.wrapped_share_uniform == pytest.approx(1 - (5 / 8) ** 2)


def test_shifts_and_circular_padding_cross_the_border_and_others_do_not():
    images = random_images(2, 56, 56)  # 14 tokens: a region of 3 is padded
    shares = {}
    for padding, cross in itertools.product(("circular", "zero"), ("shift", "none")):
        model = hire(padding=padding, cross_region=cross)
        shares[padding, cross] = receptive_field(
            model, images, "stages.0", (13, 7), "height"
        ).wrapped_share
    assert shares["zero", "none"] == 0
    assert min(v for k, v in shares.items() if k != ("zero", "none")) > 0


# ------------------------------------------------------------------ paths


def reached(model, place, size, paths) -> np.ndarray:
    """Pixels that can reach a token of a one-stage network, from the index maps."""
    reached = np.zeros((size, size), dtype=bool)
    reached[place] = True
    for block in reversed(model.stages[0].blocks):
        down, along = (getattr(block.hire, axis) for axis in ("height", "width"))
        before = reached.copy()
        shift = {"shift": 0} if paths == "shift off" else {}
        for branch, axis in ((down, "height"), (along, "width")):
            if paths in ("height", "width", "channel") and paths != axis:
                continue
            line = {"shift": branch.shift, **shift}["shift"]
            settings = (branch.padding, branch.cross_region, branch.restore)
            reach = hl.Rearrangement(size, branch.region, line, *settings).reach.astype(int)
            before |= (reach.T @ reached if axis == "height" else reached @ reach) > 0
        reached = before
    pixels = np.zeros((4 * size, 4 * size), dtype=bool)
    for i, j in np.argwhere(reached):  # the stem: 7 pixels, a step of 4, two before
        pixels[max(4 * i - 2, 0) : 4 * i + 5, max(4 * j - 2, 0) : 4 * j + 5] = True
    return pixels


@pytest.mark.parametrize("paths", [p for p in PATHS if p != "full"])
@pytest.mark.parametrize("padding", PADDINGS)
def test_the_support_is_what_the_index_maps_allow(paths, padding):
    images = random_images(2, 40, 40)
    for cross, restore in itertools.product(CROSS_REGIONS, (True, False)):
        model = hire(padding=padding, cross_region=cross, restore=restore)
        for place in ((0, 9), (4, 4)):
            field = receptive_field(model, images, "stages.0", place, paths, dtype=torch.float64)
            allowed = reached(model, place, 10, paths)
            assert not (field.map > 0)[~allowed].any()
            # and nothing less: random weights leave no pixel out
            assert (field.map > 0)[allowed].all()


@pytest.mark.parametrize("paths", [p for p in PATHS if p != "full"])
@pytest.mark.parametrize("size", [96, (70, 130)])
def test_in_a_whole_network_nothing_is_outside_its_provenance_and_nothing_is_missing(paths, size):
    """All four stages, stem and downsampling: two files that share no code agree on every pixel."""
    network = hl.create("hire_mlp_atto", seed=0)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
    height, width = (size, size) if isinstance(size, int) else size
    images = random_images(2, height, width)
    for point, place in (("stages.1.blocks.1", (2, 3)), ("stages.2", (1, 4)), ("stages.3", (2, 0))):
        field = receptive_field(network, images, point, place, paths, dtype=torch.float64)
        allowed = hl.provenance(network, place, point, paths, size).pixels
        assert allowed.any()
        np.testing.assert_array_equal(field.map > 0, allowed)


def test_the_gate_makes_every_field_global(network):
    full = receptive_field(network, random_images(2), "stages.0", dtype=torch.float64)
    assert (full.map > 0).all()
    without = hire(fusion="sum")
    one, other = (
        receptive_field(without, random_images(2), "stages.0", "corner", p)
        for p in ("full", "spatial")
    )
    np.testing.assert_array_equal(one.map, other.map)
    assert (one.map == 0).any()


@pytest.mark.parametrize("paths", ["spatial", "height", "width", "channel"])
def test_a_path_is_the_gradient_with_the_others_held_at_their_values(network, paths):
    image = random_images(1)
    _, cache = network.run_with_cache(image)
    held = ["gate"] + [b for b in ("height", "width", "channel") if paths not in ("spatial", b)]
    changes = {
        name: hl.edit.replace(cache[name])
        for name in cache
        if f".{name}".split(".")[-2] in held and name.endswith(".out")
    }
    assert len(changes) == 2 * len(held)

    def read(x):
        _, seen = network.run_with_cache(x, "stages.0.out", grad=True)
        return seen["stages.0.out"]

    with network.edits(changes):
        expected = by_hand(read, image, (5, 6))
    field = receptive_field(network, image, "stages.0", (5, 6), paths)
    np.testing.assert_allclose(field.map, expected, atol=expected.max() * 1e-5)
    assert field.paths == paths


def test_shift_off_is_the_network_without_shifts_and_leaves_them_on():
    model, still = hire(), hire()
    still.set_rearrangement(shift=0)
    field = receptive_field(model, random_images(), "stages.0", "corner", "shift off")
    other = receptive_field(still, random_images(), "stages.0", "corner", "spatial")
    np.testing.assert_array_equal(field.map, other.map)
    assert [b.shift for b in model.axis_branches().values()] == [0, 0, 1, 1]
    shifted = receptive_field(model, random_images(), "stages.0", "corner", "spatial")
    assert not np.array_equal(field.map > 0, shifted.map > 0)


# ------------------------------------------------------------------ points


@pytest.mark.parametrize("leaf", ["shifted", "regions", "mixed", "out"])
@pytest.mark.parametrize("axis", ["height", "width"])
def test_points_inside_a_region_are_carried_back_to_places(network, leaf, axis):
    name = f"stages.0.blocks.1.hire.{axis}.{leaf}"

    def read(x):
        _, cache = network.run_with_cache(x, name, grad=True)
        return cache.tokens(name)

    expected = by_hand(read, random_images(1), (0, 9))
    field = receptive_field(network, random_images(1), name, (0, 9))
    np.testing.assert_allclose(field.map, expected, atol=expected.max() * 1e-5)
    assert field.grid == [16, 16]


def test_a_module_means_its_result(network):
    one, other = (
        receptive_field(network, random_images(), p) for p in ("stages.0", "stages.0.out")
    )
    assert one.point == other.point == "stages.0.out"
    np.testing.assert_array_equal(one.map, other.map)
    # one without a probe is read itself
    norm = receptive_field(network, random_images(), "stages.0.blocks.0.norm1")
    assert norm.point == "stages.0.blocks.0.norm1"


def test_deployed_it_is_the_same():
    model = hire()
    deployed = hl.deploy(model)
    for paths in ("full", "spatial", "height", "width", "channel"):
        one = receptive_field(
            model, random_images(), "features", "corner", paths, dtype=torch.float64
        )
        other = receptive_field(
            deployed, random_images(), "features", "corner", paths, dtype=torch.float64
        )
        np.testing.assert_allclose(other.map, one.map, atol=one.map.max() * 1e-5)
    with pytest.raises(ValueError, match="has its shifts built in"):
        receptive_field(deployed, random_images(), "features", paths="shift off")


class Lay(nn.Module):
    """Gives (B, C, H, W) in another layout."""

    def __init__(self, layout, prefix=0):
        super().__init__()
        self.layout, self.prefix = layout, prefix

    def forward(self, x):
        if self.layout == "NHWC":
            return x.permute(0, 2, 3, 1)
        if self.layout == "NCHW":
            return x
        x = torch.cat([x.new_zeros(*x.shape[:2], self.prefix), x.flatten(2)], dim=2)
        return x if self.layout == "NCL" else x.transpose(1, 2)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NLC", "NCL"])
@pytest.mark.parametrize(("high", "wide"), [(32, 32), (24, 40)])
@pytest.mark.parametrize("given", [True, False])
def test_the_layout_is_worked_out_or_given(layout, high, wide, given):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 6, 4, 4)
    expected = by_hand(conv, random_images(2, high, wide), (2, 4))
    more = {"layout": layout} if given else {}
    if given and "L" in layout:
        more["grid"] = (high // 4, wide // 4)
    net = nn.Sequential(conv, Lay(layout, prefix=2 if given else 0))
    field = receptive_field(net, random_images(2, high, wide), "1", (2, 4), **more)
    np.testing.assert_allclose(field.map, expected, rtol=1e-5)
    assert (field.layout, field.grid) == (layout, [high // 4, wide // 4])


class OneSize(nn.Conv2d):
    """Patches of 4 pixels, of images of 32 x 32 only."""

    def forward(self, x):
        assert x.shape[2:] == (32, 32)
        return super().forward(x)


def test_class_tokens_are_known_of_the_network():
    net = nn.Sequential(nn.Conv2d(3, 64, 4, 4), Lay("NLC", prefix=1))
    net.num_prefix_tokens = 1
    expected = by_hand(net[0], random_images(1, 32, 32), (2, 5))
    field = receptive_field(net, random_images(1, 32, 32), "1", (2, 5))
    np.testing.assert_allclose(field.map, expected, rtol=1e-5)


@pytest.mark.parametrize("layout", ["NHWC", "NLC", "NCL"])
def test_where_shapes_leave_the_layout_open_half_a_image_tells(layout):
    tokens = 64 if "L" in layout else 8
    net = nn.Sequential(nn.Conv2d(3, tokens, 4, 4), Lay(layout))
    expected = by_hand(net[0], random_images(1, 32, 32), (2, 5))
    field = receptive_field(net, random_images(1, 32, 32), "1", (2, 5))
    assert field.layout == layout
    np.testing.assert_allclose(field.map, expected, rtol=1e-5)
    # and where half an image does not go, nothing is guessed
    fixed = nn.Sequential(OneSize(3, tokens, 4, 4), Lay(layout))
    with pytest.raises(ValueError, match=r"shape \[1, .*cannot be known: give layout as one of"):
        receptive_field(fixed, random_images(1, 32, 32), "1")
    fixed.load_state_dict(net.state_dict())
    given = receptive_field(fixed, random_images(1, 32, 32), "1", (2, 5), layout=layout)
    np.testing.assert_allclose(given.map, expected, rtol=1e-5)
    assert hooks(fixed) == 0


FOREIGN = [
    ("convnext_atto", {}, "stages.2", "NCHW"),
    ("poolformer_s12", {}, "stages.1", "NCHW"),
    ("pvt_v2_b0", {}, "stages.1", "NCHW"),
    ("pvt_v2_b0", {}, "stages.1.blocks.0", "NLC"),
    ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 4}, "layers.1", "NHWC"),
    ("mixer_s32_224", {"img_size": 64}, "blocks.1", "NLC"),
    ("deit_tiny_patch16_224", {"img_size": 64}, "blocks.1", "NLC"),
]


@pytest.mark.parametrize(("name", "kwargs", "point", "layout"), FOREIGN)
def test_networks_of_timm(name, kwargs, point, layout):
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=2, **kwargs).eval()
    seen = []
    handle = net.get_submodule(point).register_forward_hook(lambda m, a, out: seen.append(out))

    def read(x):
        net(x)
        out = seen.pop()
        if layout == "NHWC":
            return out.permute(0, 3, 1, 2)
        if layout == "NLC":
            tokens = out[:, -(side**2) :]
            return tokens.transpose(1, 2).unflatten(2, (side, side))
        return out

    field = receptive_field(net, random_images(2), point, outputs="positive")
    seen.clear()
    side = field.grid[0]
    assert field.layout == layout
    assert field.grid == [side, side]
    expected = by_hand(read, random_images(2), (side // 2, side // 2), outputs="positive")
    handle.remove()
    np.testing.assert_allclose(field.map, expected, atol=expected.max() * 1e-5)
    assert hooks(net) == 0


# ------------------------------------------------------------------ what is hard


class Twice(nn.Module):
    """One convolution, used two times, and one that is not used."""

    def __init__(self):
        super().__init__()
        self.conv, self.idle = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1)

    def forward(self, x):
        return self.conv(self.conv(x).relu_())


def test_a_module_used_twice_asks_which():
    torch.manual_seed(0)
    net, images = Twice(), random_images(2, 9, 9, 2)
    with pytest.raises(ValueError, match="conv is called more than once in a pass; say which"):
        receptive_field(net, images, "conv")
    first = receptive_field(net, images, "conv", call=0)
    np.testing.assert_allclose(first.map, by_hand(net.conv, images, (4, 4)), rtol=1e-5)
    second = receptive_field(net, images, "conv", call=1)
    np.testing.assert_allclose(second.map, by_hand(net, images, (4, 4)), rtol=1e-5)
    with pytest.raises(ValueError, match="call is 2; conv is called 2 times: 0 to 1"):
        receptive_field(net, images, "conv", call=2)
    with pytest.raises(ValueError, match="idle is not used in the pass"):
        receptive_field(net, images, "idle")
    assert hooks(net) == 0


@pytest.mark.parametrize("point", ["0", "1", "2", "3"])
def test_activations_in_place_change_nothing(point):
    torch.manual_seed(0)

    def build(in_place):
        return nn.Sequential(
            nn.ReLU(in_place),
            nn.Conv2d(3, 4, 3),
            nn.ReLU(in_place),
            nn.Sigmoid(),
            nn.Hardtanh(-0.2, 0.6, in_place),
        )

    net, other = build(True), build(False)
    other.load_state_dict(net.state_dict())
    images = random_images(2, 9, 9)
    before = images.clone()
    place = (3, 5)
    expected = by_hand(other[: int(point) + 1], images, place)
    np.testing.assert_allclose(receptive_field(net, images, point, place).map, expected, rtol=1e-5)
    assert torch.equal(images, before)
    # past a sigmoid whose result is overwritten there is no gradient to be had
    with pytest.raises(ValueError, match="changes in place what its gradient needs"):
        receptive_field(net, images, "4", place)


def test_a_sum_that_is_constant_is_said():
    """LayerNorm's results sum to the same at every position, so their sum has no gradient."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), Lay("NHWC"), nn.LayerNorm(4))
    said = pytest.warns(UserWarning, match=r"channels of 2 is the same everywhere.*positive")
    with said, contextlib.suppress(ValueError):  # where rounding leaves nothing at all
        receptive_field(net, random_images(2, 12, 12), "2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        receptive_field(net, random_images(2, 12, 12), "2", outputs="positive")
        receptive_field(net, random_images(2, 12, 12), "1")


def test_a_module_under_two_names_keeps_its_parameters():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU())
    net.again = net[0]
    net.forward = lambda x: net[1](net[0](x))
    before = state_of(net)
    for dtype in (None, torch.float64):
        receptive_field(net, random_images(1, 9, 9), "0", dtype=dtype)
    assert state_of(net) == before
    assert all(isinstance(p, nn.Parameter) for p in net.parameters())


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_measured_in_single(half, resnet):
    rough = hire().to(half)
    exact = hire().to(half).float()
    field = receptive_field(rough, random_images().to(half), "stages.0", "corner", "spatial")
    same = receptive_field(exact, random_images().to(half).float(), "stages.0", "corner", "spatial")
    np.testing.assert_array_equal(field.map, same.map)
    assert field.dtype == "float32"
    assert {p.dtype for p in rough.parameters()} == {half}
    with pytest.raises(ValueError, match=r"dtype is torch\.\w*float16; .*give float32 or float64"):
        receptive_field(resnet, random_images(), "layer1", dtype=half)


def test_the_mode_of_the_caller_does_not_matter(network):
    plain = receptive_field(network, random_images(), "stages.0")
    with torch.inference_mode():
        inside = receptive_field(network, random_images(), "stages.0")
    with torch.no_grad():
        without = receptive_field(network, random_images(), "stages.0")
    with torch.autocast("cpu", torch.bfloat16):
        mixed = receptive_field(network, random_images(), "stages.0")
    wanting = receptive_field(network, random_images().requires_grad_(), "stages.0")
    for other in (inside, without, mixed, wanting):
        np.testing.assert_array_equal(other.map, plain.map)


def state_of(model: nn.Module) -> list:
    branches = [(m.shift, m.padding) for m in model.modules() if hasattr(m, "restore")]
    return [
        [m.training for m in model.modules()],
        [(p.requires_grad, p.grad is None, p.dtype) for p in model.parameters()],
        [getattr(m, "grad_checkpointing", None) for m in model.modules()],
        branches,
        hooks(model),
        [t.data_ptr() for t in model.state_dict().values()],
        [t.double().sum().item() for t in model.state_dict().values()],
    ]


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({}, None),
        ({"paths": "shift off"}, None),
        ({"dtype": torch.float64}, None),
        ({"position": (99, 0)}, ValueError),
        (
            {"position": (99, 0), "paths": "shift off", "point": "stages.0.blocks.0.norm1"},
            ValueError,
        ),
        ({"point": "stages.0.blocks.0.hire.gate"}, ValueError),
        ({"point": "stages.0.blocks.0.hire.width.out", "paths": "height"}, ValueError),
        ({"x": torch.zeros(2, 4, 32, 32)}, ValueError),
    ],
)
def test_the_network_is_left_as_it_was_also_after_an_error(kwargs, error):
    model = hire(drop_path_rate=0.5, drop_rate=0.5)
    model.train()
    model.stages[0].blocks[1].eval()  # frozen apart
    model.stem.requires_grad_(False)
    model.set_grad_checkpointing(True)
    mode = torch.is_grad_enabled()
    before = state_of(model)
    given = {"x": random_images(), "point": "stages.0", **kwargs}
    if error is None:
        measured = receptive_field(model, **given)
        again = receptive_field(model.eval(), **given)  # no drop path, no batch statistics
        np.testing.assert_array_equal(measured.map, again.map)
        model.train()
        model.stages[0].blocks[1].eval()
    else:
        with pytest.raises(error):
            receptive_field(model, **given)
    assert state_of(model) == before
    assert torch.is_grad_enabled() == mode
    assert model.attached() == []


def test_other_hooks_stay_and_still_act(network):
    with network.edits({"stages.0.blocks.0.hire.gate": hl.edit.fix(width=0.0)}):
        edited = receptive_field(network, random_images(), "stages.0", paths="spatial")
        assert len(network.attached()) == 1
    plain = receptive_field(network, random_images(), "stages.0", paths="spatial")
    assert not np.allclose(edited.map, plain.map)


class Odd(nn.Module):
    """Results that are no maps, each a module."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.pair, self.fold, self.whole = Pair(), Fold(), Whole()
        self.dead, self.vector = Times(0.0), nn.Flatten()
        self.blow = Times(float("inf"))
        self.region = Probe("region grid")

    def forward(self, x):
        y = self.conv(x)
        self.pair(y), self.fold(y), self.whole(y), self.dead(y), self.vector(y), self.blow(y)
        return self.region(y)


class Pair(nn.Module):
    def forward(self, x):
        return x, x


class Fold(nn.Module):
    def forward(self, x):
        return x.flatten(0, 1)[:, None]


class Whole(nn.Module):
    def forward(self, x):
        return x.argmax(1, keepdim=True)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"point": "pair"}, "pair gives a tuple; name a module that gives one tensor"),
        ({"point": "fold"}, "fold gives 8 pieces .*not one map for each image"),
        ({"point": "whole"}, "whole has no gradient to the image"),
        ({"point": "dead"}, r"gradient of dead at \(3, 3\) is zero for every image"),
        ({"point": "blow"}, r"not finite for images \[0, 1\]"),
        ({"point": "vector"}, r"which axes are the map cannot be known"),
        ({"point": "conv", "layout": "NHCW"}, "no layout 'NHCW'. Did you mean .*'NCHW'"),
        ({"point": "region", "layout": "NHWC"}, "region is a probe, whose layout is NCHW"),
        ({"paths": "spatial"}, "Odd is no Hire-MLP .* measure it with paths='full'"),
        ({"paths": "spacial"}, "Did you mean 'spatial'"),
        ({"gradient": "absolute"}, "no gradient 'absolute'.*Choose one of abs, square, relu"),
        ({"outputs": "some"}, "no outputs 'some'"),
        ({"position": "center"}, "no position 'center'. Did you mean 'centre'"),
        ({"position": (7, 0)}, r"position is \(7, 0\); conv has 7 x 7 positions"),
        ({"position": (-1, 0)}, r"from \(0, 0\) to \(6, 6\)"),
        ({"position": (1, 2, 3)}, r"position is \(1, 2, 3\)"),
        ({"position": (1.5, 2)}, r"position is \(1.5, 2\); conv has 7 x 7"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"x": torch.zeros(3, 9, 9)}, r"shape \[3, 9, 9\]; .*x\[None\]"),
        ({"x": torch.zeros(0, 3, 9, 9)}, "at least one image"),
        ({"x": [1]}, "The input is a list"),
        ({"x": torch.zeros(1, 3, 9, 9, dtype=torch.uint8)}, "normalised real numbers"),
        ({"x": torch.full((1, 3, 9, 9), float("nan"))}, "NaN"),
    ],
)
def test_what_cannot_be_measured_is_said(kwargs, message):
    torch.manual_seed(0)
    net = Odd()
    with pytest.raises(ValueError, match=message):
        receptive_field(net, **{"x": random_images(2, 9, 9), "point": "conv", **kwargs})
    assert hooks(net) == 0


def test_unknown_points_suggest_near_ones(network, resnet):
    with pytest.raises(UnknownPoint, match=r"'stages\.0\.owt'\. Did you mean 'stages\.0\.out'"):
        receptive_field(network, random_images(), "stages.0.owt")
    with pytest.raises(UnknownPoint, match=r"'layer9'\. Did you mean 'layer\d'"):
        receptive_field(resnet, random_images(), "layer9")
    with pytest.raises(UnknownPoint, match="There is no point ''"):
        receptive_field(resnet, random_images(), "")


def test_paths_that_the_network_has_not():
    model = hire(branches=("height", "channel"))
    with pytest.raises(ValueError, match="built without width branches"):
        receptive_field(model, random_images(), "stages.0", paths="width")
    assert receptive_field(model, random_images(), "stages.0", paths="height").wrapped_share >= 0


# ------------------------------------------------------------------ results


def test_a_image_without_gradient_counts_as_nothing():
    torch.manual_seed(0)
    net = nn.Sequential(nn.ReLU(), nn.Conv2d(1, 2, 3))
    images = random_images(3, 9, 9, 1).abs()
    images[1] = -1  # behind the ReLU
    field = receptive_field(net, images, "1")
    single = receptive_field(net, images[:1], "1")
    np.testing.assert_allclose(field.map, single.map * 2 / 3, rtol=1e-5)
    sides = field.by_image()["half-mass side"]
    assert np.isnan(sides[1])
    assert sides[0] == sides[2] == field.half_mass_side


def test_fields_can_be_kept_and_drawn(network, tmp_path):
    field = receptive_field(network, random_images(), "stages.0", "corner", "spatial", "square")
    field.save(tmp_path / "field.npz")
    again = ReceptiveField.load(tmp_path / "field.npz")
    assert again.numbers() == field.numbers()
    assert (again.title, again.gradient, again.position) == (field.title, "square", [0, 0])
    assert again.versions == field.versions
    still = again.plot()
    assert still.data == field.plot().data
    assert still.data.startswith(b"\x89PNG")
    assert f"half-mass side {field.half_mass_side:.3g}" in still.text
    for wrong in (0, 1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match="A share of mass is"):
            field.area(0.5, wrong)


def test_nothing_is_kept_and_200_calls_do_not_grow():
    torch.manual_seed(0)
    small = nn.Sequential(nn.Conv2d(3, 4, 3))

    images = random_images(1, 24, 24)

    def run(calls: int) -> None:
        for _ in range(calls):
            receptive_field(small, images, "0")

    tracemalloc.start()
    try:
        run(10)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
        run(200)
        gc.collect()
        # one map a call, of 24 x 24 numbers of 8 bytes, would be 900 kB
        assert tracemalloc.get_traced_memory()[0] - held < 100_000
    finally:
        tracemalloc.stop()


def test_tensors_do_not_outlive_a_call():
    model, images = hire(depths=(1,), dims=(8,)), random_images(2, 24, 24)

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    receptive_field(model, images, "stages.0", paths="spatial")
    before = tensors()
    for _ in range(3):
        field = receptive_field(model, images, "stages.0", paths="spatial")
    assert tensors() == before
    gone = weakref.ref(model), weakref.ref(images)
    del model, images
    gc.collect()
    assert [r() for r in gone] == [None, None]
    assert field.map.any()


def test_without_a_point_it_is_the_last_map():
    model, x = hl.create("hire_mlp_atto", seed=0), hl.samples(1, 64)[0]
    field = receptive_field(model, x)
    assert field.point == hl.grad_cam(model, x).point == "features"
    assert hl.provenance(model, field.position, img_size=64).point == field.point
    other = timm.create_model("resnet10t").eval()
    assert receptive_field(other, x).point == hl.grad_cam(other, x).point == "layer4"


def test_every_result_calls_a_network_as_timm_does():
    model, x = hl.create("hire_mlp_atto", seed=0), hl.samples(1, 64)[0]
    found = [
        receptive_field(model, x),
        hl.grad_cam(model, x),
        hl.suggest_target_layer(model, x),
        hl.analysis.cost.network_cost(model, 64),
        hl.analysis.pyramid.pyramid(model, 64),
    ]
    assert {one.network for one in found} == {"hire_mlp_atto"}
    other = timm.create_model("resnet10t").eval()
    assert {receptive_field(other, x).network, hl.grad_cam(other, x).network} == {"resnet10t"}
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert receptive_field(own, x, "0").network == "Sequential"
