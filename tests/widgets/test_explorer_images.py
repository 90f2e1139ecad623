"""What the explorers draw and say, against counting by hand and against the network itself."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

import hirelab as hl
from hirelab.datasets.images import open_image
from hirelab.datasets.transforms import normalise, square
from hirelab.rearrange import CROSS_REGIONS, PADDINGS
from hirelab.viz import theme

GRIDS = {0: 56, 1: 28, 2: 14, 3: 7}  # tokens along a side at 224 pixels, of every published size
DIMS = {0: 64, 1: 128, 2: 320, 3: 512}  # channels of Tiny, Small and Base
CYCLES = {0: 2, 1: 2, 2: 3, 3: 2}  # block b of a stage shifts by (b mod cycle) * shift
NUMPY_PADS = {"circular": "wrap", "reflect": "reflect", "replicate": "edge"}


def line_up(size, region, shift=0, padding="circular", cross_region="shift"):
    """The tokens region by region, written from the paper's words; None is zero padding."""
    line = list(range(size))
    if shift and cross_region == "shift":
        line = [line[(i - shift) % size] for i in range(size)]
    if shift and cross_region == "shuffle":
        line = [token for first in range(region) for token in line[first::region]]
    missing = -size % region
    if padding == "zero":
        line += [None] * missing
    else:
        line = list(np.pad(line, (0, missing), mode=NUMPY_PADS[padding]))
    return [line[i : i + region] for i in range(0, len(line), region)]


def meeting(token, size, region, restore=True, **settings):
    """The tokens that the result at a place is computed from."""
    regions = line_up(size, region, **settings)
    flat = [t for group in regions for t in group]
    slot = flat.index(token) if restore else token
    return {int(t) for t in regions[slot // region] if t is not None}


# ------------------------------------------------------------------ RegionExplorer


def runs(pixels: np.ndarray) -> list[tuple[tuple[int, ...], int]]:
    """Colours along a line of pixels and how long each is, without white."""
    found = []
    for color, group in itertools.groupby(map(tuple, pixels.tolist())):
        if color != (255, 255, 255):
            found.append((color, len(list(group))))
    return found


@pytest.mark.parametrize("stage", [0, 1, 3])
@pytest.mark.parametrize(("high", "wide"), [(1, 8), (3, 4), (8, 2), (5, 5)])
@pytest.mark.parametrize("view", ["photograph", "tokens"])
def test_bands_have_the_colours_of_their_regions(stage, high, wide, view):
    explorer = hl.RegionExplorer(
        stage=stage, region_height=high, region_width=wide, view=view, pick=0
    )
    drawn = np.asarray(explorer.render())
    assert drawn.shape == (972, 2160, 3)
    size = GRIDS[stage]
    slots = size + max(-size % high, -size % wide)
    # the spines: left of the left image, top to bottom; above the right one, left to right
    down = runs(drawn[164 : 164 + 661, 22])
    across = runs(drawn[146, 772 : 772 + 661])
    for found, region in ((down, high), (across, wide)):
        regions = math.ceil(size / region)
        colors = [theme.rgb(theme.CYCLE[i % 7]) for i in range(regions)]
        assert [color for color, _ in found] == colors
        cell = 660 / slots
        for _, length in found:
            assert region * cell - 7 <= length <= region * cell + 2  # a cut takes 2.5 at an end


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("stage", [1, 3])
def test_facts_of_regions(padding, stage):
    size, dim = GRIDS[stage], DIMS[stage]
    explorer = hl.RegionExplorer(stage=stage, padding=padding, pick=0)
    for high, wide, unpack in [(3, 5, "height"), (4, 8, "width"), (1, 1, "width"), (8, 3, "width")]:
        region = high if unpack == "height" else wide
        pick = math.ceil(size / region) - 1
        explorer.set(pick=0)
        explorer.set(region_height=high, region_width=wide, unpack=unpack)
        explorer.set(pick=pick)
        facts = explorer.state()
        assert facts["map"] == f"{size} x {size} x {dim}"
        rows, columns = line_up(size, high), line_up(size, wide)
        assert facts["height_regions"] == f"{len(rows)} x {size} x {high * dim}"
        assert facts["width_regions"] == f"{size} x {len(columns)} x {wide * dim}"
        assert facts["padded_rows"] == sum(map(len, rows)) - size
        assert facts["padded_columns"] == sum(map(len, columns)) - size
        last = line_up(size, region, padding=padding)[pick]
        assert facts["unpacked"] == [-1 if t is None else t for t in last]
        with pytest.raises(
            ValueError, match=rf"pick is {pick + 1}; with .*(0 to {pick}|give {pick},)"
        ):
            explorer.set(pick=pick + 1)


def test_the_network_s_own_regions_are_shown():
    network = hl.create("hire_mlp_large", device="meta")
    facts = hl.RegionExplorer(network, stage=0, region_height=4).state()
    assert facts["height_regions"] == f"14 x 56 x {4 * 96}"


# ------------------------------------------------------------------ ShiftExplorer

SHIFTS = [
    (shift, region, padding, cross, restore, stage)
    for (shift, region, stage), padding, cross, restore in itertools.product(
        [(0, 3, 1), (2, 3, 3), (-5, 4, 2), (8, 8, 3), (1, 1, 3)],
        PADDINGS,
        CROSS_REGIONS,
        (True, False),
    )
]


@pytest.mark.parametrize(("shift", "region", "padding", "cross", "restore", "stage"), SHIFTS)
def test_which_tokens_reach_a_token(shift, region, padding, cross, restore, stage):
    size, blocks = GRIDS[stage], 5
    explorer = hl.ShiftExplorer(
        image=np.zeros((8, 8)), stage=stage, token=0, blocks=blocks, region=region, shift=shift,
        padding=padding, cross_region=cross, restore=restore,
    )  # fmt: skip
    settings = {"padding": padding, "cross_region": cross, "restore": restore}
    reached = [{token} for token in range(size)]
    history = [reached]
    for block in range(blocks):
        step = (block % CYCLES[stage]) * shift
        reached = [
            # the residual connection, and the branch
            reached[token].union(*(reached[t] for t in meeting(token, size, region, shift=step,
                                                               **settings)))
            for token in range(size)
        ]  # fmt: skip
        history.append(reached)
    for token in {0, 1, size // 2, size - 1}:
        explorer.set(token=token)
        found = [set(np.flatnonzero(step).tolist()) for step in explorer.reached()]
        assert found == [step[token] for step in history]
        facts = explorer.state()
        assert facts["reached_by"] == sorted(meeting(token, size, region, shift=shift, **settings))
        assert facts["reached_by_after_blocks"] == [len(step[token]) for step in history[1:]]
        assert facts["tokens"] == size
        assert facts["regions"] == math.ceil(size / region)
        assert facts["padded"] == -size % region


@pytest.mark.parametrize("direction", ["height", "width"])
def test_tokens_reach_the_network_s_as_the_explorer_says(direction):
    """Two blocks of the real network, without gate and norm's statistics, by gradients."""
    torch.manual_seed(0)
    network = hl.create(
        "hire_mlp_atto", seed=0, branches=(direction,), fusion="sum", depths=(2, 2, 2, 2)
    ).double()
    for tensor in network.parameters():
        tensor.data.add_(torch.randn_like(tensor) * 0.3)
    explorer = hl.ShiftExplorer(
        network, stage=2, direction=direction, token=5, blocks=2, shift=1, region=3
    )
    # one image's stage 3: 14 x 14 tokens; region 3 and shift 1 are the network's own there
    x = torch.rand(1, 48, 14, 14, dtype=torch.double, requires_grad=True)
    y = network.stages[2].blocks(x)
    at = (0, slice(None), 5, 3) if direction == "height" else (0, slice(None), 3, 5)
    (gradient,) = torch.autograd.grad(y[at].square().sum(), x)
    alive = gradient[0].abs().sum(0) > 0
    along = alive[:, 3] if direction == "height" else alive[3]
    assert alive.sum() == along.sum()  # nothing across the other axis
    assert along.tolist() == explorer.reached()[-1].tolist()


def band(drawn: np.ndarray, left: float, size: int, slots: int, color: str) -> set[int]:
    """The lines of a panel of `ShiftExplorer` that carry a mark of a colour at the far side."""
    cell = 432 / slots
    x = round(left * 2 + size * cell + 20)
    return {
        i
        for i in range(slots)
        if tuple(drawn[round(108 + (i + 0.5) * cell), x]) == theme.rgb(color)
    }


@pytest.mark.parametrize("restore", [True, False])
@pytest.mark.parametrize(("shift", "region", "token"), [(2, 3, 6), (-4, 5, 27), (5, 3, 6)])
def test_marks_stand_at_the_token_and_at_what_it_meets(restore, shift, region, token):
    size = 28
    explorer = hl.ShiftExplorer(shift=shift, region=region, token=token, restore=restore)
    drawn = np.asarray(explorer.render())
    slots = size + -size % region
    met = meeting(token, size, region, restore, shift=shift)
    assert band(drawn, 18, size, slots, theme.FOCUS) == {token}
    assert band(drawn, 18, size, slots, theme.REACHED) == met - {token}
    assert band(drawn, 289, size, slots, theme.FOCUS) == {(token + shift) % size}
    places = {(t + shift) % size for t in met - {token}}
    assert band(drawn, 289, size, slots, theme.REACHED) == places
    # the result's token is a place, wherever its content comes from
    assert band(drawn, 831, size, slots, theme.FOCUS) == {token}


# ------------------------------------------------------------------ RearrangementPlayer


def test_the_player_names_each_step():
    explorer = hl.RearrangementPlayer()
    steps = []
    for frame in range(explorer.last + 1):
        steps.append(explorer.facts(type(explorer.settings)(frame=frame), None)["step"])
    said = [name for name, _ in itertools.groupby(steps)]
    assert said == [
        "the token grid", "shift", "cut into regions, pad", "mix inside regions", "crop", "restore",
    ]  # fmt: skip
    explorer.set(restore=False, frame=explorer.last)
    assert explorer.state()["step"] == "crop"
    with pytest.raises(ValueError, match="frame"):
        explorer.set(frame=explorer.last + 1)


# ------------------------------------------------------------------ CostExplorer


@pytest.mark.parametrize(("region", "dim", "size"), [(3, 128, 28), (8, 64, 7), (1, 512, 56)])
def test_facts_of_costs(region, dim, size):
    facts = hl.CostExplorer(region=region, dim=dim, size=size).state()
    assert facts["weights"] == facts["weights_formula"] == region * dim * dim
    assert facts["macs_formula"] == size * size * dim * dim
    padded = math.ceil(size / region) * region
    assert facts["macs"] == padded * size * dim * dim
    assert facts["padding_share"] == round(padded / size - 1, 4)
    assert facts["biases_and_norm"] == 2 * (dim // 2) + region * dim


def test_bars_of_costs_are_as_high_as_what_they_show():
    drawn = np.asarray(hl.CostExplorer(region=8, dim=64, size=28).render())
    blue, sky = theme.rgb(theme.BLUE), theme.rgb(theme.SKY)
    heights = []
    for region in range(1, 9):
        bar = drawn[172:552, (6 + (region - 1) * 62 + 9) * 2]  # over the bar's left part
        heights.append((bar == (blue if region == 8 else sky)).all(-1).sum())
    # weights grow as the region does; the formula's line covers 4 pixels at each top
    assert np.allclose(np.array(heights) + 4, np.arange(1, 9) / 8 * 380, atol=5)


# ------------------------------------------------------------------ BlockExplorer


@pytest.fixture(scope="module")
def network():
    model = hl.create("hire_mlp_atto", seed=0)
    generator = torch.Generator().manual_seed(1)
    for tensor in model.parameters():  # untrained gates are all equal: make them differ
        tensor.data.add_(torch.randn(tensor.shape, generator=generator) * 0.05)
    return model


@pytest.fixture(scope="module")
def cache(network):
    x = normalise([square(open_image("cat"), 224)])
    return network.run_with_cache(x)[1]


def named(prefix: str, name: str) -> str:
    """The point of a map: the block's input is called by its whole name."""
    return name if name.startswith(("stages.", "stem.")) else prefix + name


@pytest.mark.parametrize(("stage", "block"), [(0, 0), (0, 1), (2, 0), (2, 2)])
def test_the_first_map_is_what_goes_into_the_block(network, stage, block):
    given = []
    module = network.stages[stage].blocks[block]
    handle = module.register_forward_pre_hook(lambda _, args: given.append(args[0][0].double()))
    found = hl.BlockExplorer(network, "cat", stage=stage, block=block).maps()
    handle.remove()
    first = next(iter(found.values()))
    np.testing.assert_allclose(first, (given[0] ** 2).mean(0).sqrt(), rtol=1e-4)


@pytest.mark.parametrize(("stage", "block"), [(0, 0), (0, 1), (1, 1), (2, 2), (3, 1)])
def test_maps_are_what_the_network_computes(network, cache, stage, block):
    explorer = hl.BlockExplorer(network, "cat", stage=stage, block=block)
    prefix = f"stages.{stage}.blocks.{block}."
    found = explorer.maps()
    for name in ("shifted", "regions", "mixed", "out"):
        assert {f"hire.height.{name}", f"hire.width.{name}"} <= set(found)
    assert {"hire.input", "hire.channel.out", "hire.fused", "hire.out", "mlp.out", "out"} <= set(
        found
    )
    for name, values in found.items():
        whole = cache[named(prefix, name)][0].double()
        expected = (whole**2).sum(0).div(len(whole)).sqrt()
        assert values.shape == tuple(expected.shape)
        np.testing.assert_allclose(values, expected, rtol=1e-4)
    facts = explorer.state()
    branch = network.get_submodule(prefix + "hire.height")
    assert (facts["region"], facts["shift"]) == (branch.region, branch.shift)
    out = cache[prefix + "out"][0].double()
    assert facts["output_rms"] == pytest.approx(float((out**2).mean().sqrt()), abs=6e-4)
    gate = cache[prefix + "hire.gate.out"][0]
    for column, name in enumerate(("height", "width", "channel")):
        assert facts[f"gate_{name}"] == pytest.approx(float(gate[:, column].mean()), abs=6e-4)
    weights, branches = explorer.gate()
    assert branches == ("height", "width", "channel")
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(weights, gate, rtol=1e-5)


@pytest.mark.parametrize("channel", [0, 7, 23])
def test_one_channel_is_its_own_numbers_of_every_token(network, cache, channel):
    explorer = hl.BlockExplorer(network, "cat", stage=1, block=1, channel=channel)
    found, prefix = explorer.maps(), "stages.1.blocks.1."
    region = network.stages[1].blocks[1].hire.height.region
    for name, values in found.items():
        whole = cache[named(prefix, name)][0].double()
        if name.endswith(("regions", "mixed")):
            part = torch.stack([whole[channel * region + token] for token in range(region)])
        else:
            part = whole[channel : channel + 1]
        np.testing.assert_allclose(values, (part**2).mean(0).sqrt(), rtol=1e-4)
    with pytest.raises(
        ValueError, match="channel is 24; with stage=1, give a whole number from -1 to 23"
    ):
        explorer.set(channel=24)


def test_carried_back_every_map_has_the_places_of_the_image(network, cache):
    explorer = hl.BlockExplorer(network, "cat", stage=1, block=1)
    plain = explorer.maps()
    explorer.set(carry_back=True)
    carried = explorer.maps()
    branch, prefix = network.stages[1].blocks[1].hire.height, "stages.1.blocks.1."
    size, region, shift = 28, branch.region, branch.shift
    assert shift != 0
    assert carried.keys() == plain.keys()
    for name, values in carried.items():
        assert values.shape == (size, size)
        if name.endswith(".out") or name in ("out", "mid", "hire.input", "hire.fused"):
            np.testing.assert_array_equal(values, plain[name])
    # row t of the image stands at place t + shift of the line, in this region and slot
    grouped = cache[prefix + "hire.height.mixed"][0].double()
    for row in (0, 13, 27):
        group, slot = divmod((row + shift) % size, region)
        part = grouped[slot::region, group]
        np.testing.assert_allclose(
            carried["hire.height.mixed"][row], (part**2).mean(0).sqrt(), rtol=1e-4
        )
    np.testing.assert_allclose(
        carried["hire.height.shifted"], carried["hire.input"], rtol=1e-5
    )  # shifted and carried back: where it was


def test_without_a_shift_carrying_back_the_shifted_map_changes_nothing(network):
    explorer = hl.BlockExplorer(network, "cat", stage=0, block=0)  # the first block never shifts
    plain, whole = explorer.maps(), None
    explorer.set(carry_back=True)
    whole = explorer.maps()
    for axis in ("height", "width"):
        np.testing.assert_array_equal(whole[f"hire.{axis}.shifted"], plain[f"hire.{axis}.shifted"])


def test_looking_leaves_the_network_as_it_was(network):
    network.train()
    network.stages[0].eval()  # a part that its owner has frozen
    before = [module.training for module in network.modules()]
    statistics = network.stages[1].blocks[0].norm1.running_mean.clone()
    try:
        first = hl.BlockExplorer(network, "cat").still()
        assert [module.training for module in network.modules()] == before
        assert torch.equal(network.stages[1].blocks[0].norm1.running_mean, statistics)
        assert all(p.grad is None for p in network.parameters())
        assert not network.attached()
        handle = network.stem.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            hl.BlockExplorer(network, "cat").render()
        handle.remove()
        assert [module.training for module in network.modules()] == before
    finally:
        network.eval()
    assert hl.BlockExplorer(network, "cat").still() == first  # drawn as in evaluation mode


@pytest.mark.parametrize("branches", [("width",), ("channel",), ("height", "channel")])
@pytest.mark.parametrize("fusion", ["gate", "sum"])
def test_blocks_of_other_designs(branches, fusion):
    model = hl.create("hire_mlp_atto", seed=0, branches=branches, fusion=fusion)
    explorer = hl.BlockExplorer(model, "cat")
    assert explorer.render()
    facts = explorer.state()
    gates = {name for name in facts if name.startswith("gate_")}
    assert gates == ({f"gate_{b}" for b in branches} if fusion == "gate" else set())
    assert ("region" in facts) == ("height" in branches)
    shown = {name.split(".")[1] for name in explorer.maps() if name.startswith("hire.")}
    assert shown & {"height", "width", "channel"} == set(branches)


def test_a_network_that_computes_nan_is_said_and_the_last_image_stays(network):
    broken = hl.create("hire_mlp_atto", seed=0)
    torch.nn.init.constant_(broken.stages[1].blocks[1].mlp.fc1.bias, float("nan"))
    explorer = hl.BlockExplorer(broken, "cat", stage=1, block=0)
    assert explorer.widget
    before = explorer.settings
    with pytest.raises(ValueError, match="NaN or infinite"):
        explorer.set(block=1)
    assert explorer.settings is before
    explorer.close()
