"""The rearrangement: two forms of one definition, held to each other and to outside truth.

The index map is checked against `numpy.pad`, ShuffleNet's reshape-transpose and a table worked out
by hand; the tensor functions against the index map; reachability against autograd.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hirelab import rearrange as rr
from hirelab.analysis.translation import token_period
from hirelab.rearrange import EMPTY, Rearrangement

examples = settings(deadline=None, max_examples=150, derandomize=True)

SIZES = st.integers(1, 20)
REGIONS = st.integers(1, 9)
SHIFTS = st.integers(-25, 25)
DIMS = st.sampled_from((2, 3))
MAPS = st.builds(
    Rearrangement,
    size=SIZES,
    region=REGIONS,
    shift=SHIFTS,
    padding=st.sampled_from(rr.PADDINGS),
    cross_region=st.sampled_from(rr.CROSS_REGIONS),
    restore=st.booleans(),
)
SHAPES = st.tuples(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)
)  # batch, channels, other


def grid(size: int, dim: int, batch: int = 1, channels: int = 1, other: int = 1) -> torch.Tensor:
    """A map whose every value is different and none is 0, which is what zero padding writes."""
    shape = (batch, channels, size, other) if dim == 2 else (batch, channels, other, size)
    return torch.arange(1.0, 1.0 + np.prod(shape)).reshape(shape)


def line(size: int, dim: int) -> torch.Tensor:
    """A line whose every value is 1 + the index of its token."""
    return torch.arange(1.0, 1.0 + size).reshape((1, 1, size, 1) if dim == 2 else (1, 1, 1, size))


def into(x: torch.Tensor, r: Rearrangement, dim: int) -> torch.Tensor:
    return rr.partition(
        rr.shift(x, dim, r.region, r.shift, r.cross_region), dim, r.region, r.padding
    )


def back(y: torch.Tensor, r: Rearrangement, dim: int) -> torch.Tensor:
    y = rr.unpartition(y, dim, r.region, r.size)
    return rr.unshift(y, dim, r.region, r.shift, r.cross_region) if r.restore else y


# ------------------------------------------------------------------ functions


@examples
@given(SIZES, REGIONS, st.sampled_from(rr.PADDINGS), DIMS, SHAPES)
def test_unpartition_undoes_partition(size, region, padding, dim, shape):
    x = grid(size, dim, *shape)
    y = rr.partition(x, dim, region, padding)
    assert torch.equal(rr.unpartition(y, dim, region, size), x)


@examples
@given(SIZES, REGIONS, SHIFTS, st.sampled_from(rr.CROSS_REGIONS), DIMS, SHAPES)
def test_unshift_undoes_shift_and_shift_undoes_unshift(size, region, shift, cross, dim, shape):
    x = grid(size, dim, *shape)
    setting = (dim, region, shift, cross)
    assert torch.equal(rr.unshift(rr.shift(x, *setting), *setting), x)
    assert torch.equal(rr.shift(rr.unshift(x, *setting), *setting), x)


@examples
@given(MAPS, DIMS, SHAPES)
def test_the_shift_moves_tokens_as_the_index_map_says(r, dim, shape):
    x = grid(r.size, dim, *shape)
    moved = rr.shift(x, dim, r.region, r.shift, r.cross_region)
    assert torch.equal(moved, x.index_select(dim, torch.from_numpy(r.order.copy())))


@examples
@given(MAPS, DIMS, SHAPES)
def test_regions_hold_the_tokens_of_the_index_map_channel_major(r, dim, shape):
    x = grid(r.size, dim, *shape)
    y = into(x, r, dim)
    batch, channels, other = shape
    assert y.shape == (
        (batch, channels * r.region, r.regions, other)
        if dim == 2
        else (batch, channels * r.region, other, r.regions)
    )
    # Entry by entry, for the last channel and image: channel c of the token in slot t of a
    # region is channel c * region + t of the region.
    c = channels - 1
    for i, t, o in itertools.product(range(r.regions), range(r.region), range(other)):
        token = int(r.slots[i, t])
        got = y[-1, c * r.region + t].select(dim - 2, i)[o].item()
        want = 0.0 if token == EMPTY else x[-1, c].select(dim - 2, token)[o].item()
        assert got == want
    # and all at once
    filled = torch.cat([x, torch.zeros_like(x.narrow(dim, 0, 1))], dim)  # EMPTY = -1: the last
    flat = torch.from_numpy(r.slots.reshape(-1) % (r.size + 1))
    assert torch.equal(
        rr.unpartition(y, dim, r.region, r.regions * r.region), filled.index_select(dim, flat)
    )


@examples
@given(MAPS, DIMS)
def test_landing_says_which_slot_a_result_is_read_from(r, dim):
    y = into(line(r.size, dim), r, dim)
    # A mixing that does nothing: the result holds the token of the slot it was read from.
    kept = back(y, r, dim).flatten().numpy() - 1
    assert np.array_equal(kept, r.slots.reshape(-1)[r.landing])
    assert np.array_equal(kept, np.arange(r.size) if r.restore else r.order)
    # A mixing that writes the number of the slot.
    slot = torch.arange(float(r.regions * r.region)).reshape(r.regions, r.region).T
    numbers = slot.reshape((1, r.region, r.regions, 1) if dim == 2 else (1, r.region, 1, r.regions))
    assert np.array_equal(back(numbers, r, dim).flatten().numpy(), r.landing)


@examples
@given(MAPS)
def test_padded_slots_stand_after_the_last_token(r):
    assert r.padded.reshape(-1).tolist() == [False] * r.size + [True] * r.pad
    assert r.padded.shape == r.slots.shape == (r.regions, r.region)
    assert 0 <= r.pad < r.region


@examples
@given(MAPS, DIMS)
def test_what_is_written_to_padded_slots_never_reaches_a_token(r, dim):
    padded = torch.from_numpy(r.padded.copy()).T
    y = into(line(r.size, dim), r, dim)
    poison = torch.full_like(y, float("nan"))
    mask = padded.reshape(y.shape)
    result = back(torch.where(mask, poison, y), r, dim)
    assert torch.isfinite(result).all()
    assert not r.padded.reshape(-1)[r.landing].any()
    assert len(set(r.landing.tolist())) == r.size
    assert (r.slots == EMPTY).sum() == (r.pad if r.padding == "zero" else 0)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("cross_region", rr.CROSS_REGIONS)
@pytest.mark.parametrize("padding", rr.PADDINGS)
def test_two_axes_do_not_touch_each_other(dim, cross_region, padding):
    """The other axis, the batch and the channels are carried along one by one."""
    r = Rearrangement(7, 3, 2, padding, cross_region)
    x = grid(7, dim, batch=2, channels=3, other=4)
    whole = into(x, r, dim)
    for b, c, o in itertools.product(range(2), range(3), range(4)):
        one = x[b : b + 1, c : c + 1].narrow(5 - dim, o, 1)
        part = whole[b : b + 1, c * 3 : c * 3 + 3].narrow(5 - dim, o, 1)
        assert torch.equal(into(one, r, dim), part)


@examples
@given(MAPS, DIMS)
def test_gradients_flow_back_to_where_values_came_from(r, dim):
    x = line(r.size, dim).double().requires_grad_()
    back(into(x, r, dim), r, dim).backward(torch.ones_like(x))
    assert torch.equal(x.grad, torch.ones_like(x))  # every token is read exactly once


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.bool])
@pytest.mark.parametrize("cross_region", rr.CROSS_REGIONS)
def test_any_dtype_and_memory_layout(dtype, cross_region):
    x = (torch.arange(2 * 3 * 7 * 5).reshape(2, 3, 7, 5) % 2).to(dtype)
    r = Rearrangement(7, 3, 2, "zero", cross_region)
    for layout in (x, x.contiguous(memory_format=torch.channels_last), x.transpose(0, 1)[:2]):
        out = back(into(layout, r, 2), r, 2)
        assert out.dtype == dtype
        assert torch.equal(out, layout)


def test_the_input_is_never_written_to():
    for r in (Rearrangement(7, 3, 2, p, c) for p in rr.PADDINGS for c in rr.CROSS_REGIONS):
        x = grid(7, 2, 2, 2, 3)
        before = x.clone()
        back(into(x, r, 2), r, 2)
        assert torch.equal(x, before)


# ------------------------------------------------------------------ the index map


@examples
@given(MAPS)
def test_padding_is_what_numpy_pads(r):
    mode = {"circular": "wrap", "zero": "constant", "reflect": "reflect", "replicate": "edge"}
    fill = {"constant_values": EMPTY} if r.padding == "zero" else {}
    truth = np.pad(r.order, (0, r.pad), mode=mode[r.padding], **fill)
    assert np.array_equal(r.slots.reshape(-1), truth)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("padding", rr.PADDINGS)
def test_padding_longer_than_the_line(size, padding):
    r = Rearrangement(size, 4 * size + 3, padding=padding)
    assert r.pad > 2 * size
    assert r.regions == 1
    mode = {"circular": "wrap", "zero": "constant", "reflect": "reflect", "replicate": "edge"}
    fill = {"constant_values": EMPTY} if padding == "zero" else {}
    assert (
        r.slots[0].tolist() == np.pad(np.arange(size), (0, r.pad), mode[padding], **fill).tolist()
    )
    x = line(size, 2)
    assert rr.pad_to_regions(x, 2, r.region, padding).flatten().tolist() == [
        float(t + 1) for t in r.slots[0]
    ]


@pytest.mark.parametrize(
    ("size", "region", "shift", "pad", "first", "last"),
    [
        (56, 4, 0, 0, [0, 1, 2, 3], [52, 53, 54, 55]),
        (56, 4, 2, 0, [54, 55, 0, 1], [50, 51, 52, 53]),
        (28, 3, 0, 2, [0, 1, 2], [27, 0, 1]),
        (28, 3, 2, 2, [26, 27, 0], [25, 26, 27]),
        (14, 3, 0, 1, [0, 1, 2], [12, 13, 0]),
        (14, 3, 1, 1, [13, 0, 1], [11, 12, 13]),
        (14, 3, 2, 1, [12, 13, 0], [10, 11, 12]),
        (7, 2, 0, 1, [0, 1], [6, 0]),
        (7, 2, 1, 1, [6, 0], [5, 6]),
    ],
)
def test_the_regions_of_the_published_network(size, region, shift, pad, first, last):
    """Every line length, region and shift that Hire-MLP meets at 224 pixels, worked out by hand."""
    r = Rearrangement(size, region, shift)
    assert r.pad == pad
    assert r.slots[0].tolist() == first
    assert r.slots[-1].tolist() == last
    for dim in (2, 3):
        y = into(line(size, dim), r, dim).reshape(region, r.regions)
        assert y[:, 0].tolist() == [t + 1 for t in first]
        assert y[:, -1].tolist() == [t + 1 for t in last]


@examples
@given(st.integers(1, 6), REGIONS, st.sampled_from((-3, 1, 7)))
def test_shuffle_is_shufflenets_where_the_region_divides_the_line(regions, region, shift):
    r = Rearrangement(regions * region, region, shift, cross_region="shuffle")
    shuffled = np.arange(r.size).reshape(regions, region).T.reshape(-1)
    assert np.array_equal(r.order, shuffled)


@examples
@given(MAPS)
def test_order_is_a_permutation(r):
    assert sorted(r.order.tolist()) == list(range(r.size))
    if r.shift == 0 or r.cross_region == "none":
        assert r.order.tolist() == list(range(r.size))
    if r.cross_region == "shift":
        # Position p holds the token that stood `shift` places lower.
        assert all((t + r.shift - p) % r.size == 0 for p, t in enumerate(r.order))


@examples
@given(MAPS, st.integers(-3, 3))
def test_a_shift_by_whole_turns_changes_nothing(r, turns):
    assume(r.cross_region == "shift")
    turned = Rearrangement(r.size, r.region, r.shift + turns * r.size, r.padding)
    assert np.array_equal(turned.slots, Rearrangement(r.size, r.region, r.shift, r.padding).slots)


def test_shuffle_deals_tokens_to_the_regions_in_turn():
    # 7 tokens, region 3: those at 0, 3, 6 first, then 1, 4, then 2, 5; the last region is padded.
    r = Rearrangement(7, 3, 1, "zero", "shuffle")
    assert r.slots.tolist() == [[0, 3, 6], [1, 4, 2], [5, EMPTY, EMPTY]]
    assert r.sources(2) == (1, 2, 4)


def test_meets_and_region_of_without_restore():
    r = Rearrangement(6, 3, 1, restore=False)
    # In: (5 0 1) (2 3 4). Nothing goes back, so place 0 is written by the region of 5, 0 and 1.
    assert r.sources(0) == (0, 1, 5)
    assert r.region_of(5) == 1
    assert r.sources(5) == (2, 3, 4)
    assert Rearrangement(6, 3, 1).sources(5) == (0, 1, 5)


def test_settings_cannot_be_changed_under_the_maps_that_follow_from_them():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Rearrangement(7, 3).shift = 2


@examples
@given(MAPS)
def test_index_maps_cannot_be_overwritten(r):
    for array in (r.order, r.slots, r.padded, r.landing, r.reach):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


# ------------------------------------------------------------------ reach


def mixing(region: int, seed: int) -> torch.Tensor:
    """A dense mixing of a region; positive, so that nothing cancels."""
    generator = torch.Generator().manual_seed(seed)
    return 0.5 + torch.rand(region, region, generator=generator, dtype=torch.float64)


def branch(x: torch.Tensor, r: Rearrangement, dim: int, weight: torch.Tensor) -> torch.Tensor:
    """One channel through rearrangement, dense mixing and restoration."""
    return back(torch.einsum("oi,bihw->bohw", weight, into(x, r, dim)), r, dim)


def jacobian(function, size: int, dim: int) -> np.ndarray:
    """(out, in), by autograd: copy i of the line is asked only for its output i."""
    x = torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    x = x.reshape((size, 1, size, 1) if dim == 2 else (size, 1, 1, size)).requires_grad_()
    (rows,) = torch.autograd.grad(function(x).reshape(size, size).trace(), x)
    return rows.reshape(size, size).numpy()


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("restore", [True, False])
@pytest.mark.parametrize("cross_region", rr.CROSS_REGIONS)
@pytest.mark.parametrize("padding", rr.PADDINGS)
def test_reach_is_the_pattern_of_the_jacobian(padding, cross_region, restore, dim):
    for size, region, shift in itertools.product(
        (1, 2, 3, 5, 7, 8), (1, 2, 3, 4, 9), (-3, 0, 1, 9)
    ):
        r = Rearrangement(size, region, shift, padding, cross_region, restore)
        weight = mixing(region, seed=size)
        pattern = jacobian(lambda x, r=r, w=weight: branch(x, r, dim, w), size, dim) != 0
        assert np.array_equal(r.reach, pattern), r


def test_reach_is_not_symmetric_where_a_token_lends_a_copy():
    reach = Rearrangement(14, 3, 0).reach
    assert np.flatnonzero(reach[:, 0]).tolist() == [0, 1, 2, 12, 13]  # row 0 influences these
    assert np.flatnonzero(reach[:, 13]).tolist() == [12, 13]  # row 13 only these
    assert np.flatnonzero(reach[0]).tolist() == [0, 1, 2]
    assert np.flatnonzero(reach[13]).tolist() == [0, 12, 13]


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("restore", [True, False])
@pytest.mark.parametrize("shift", [0, 1, 2, -5])
@pytest.mark.parametrize(("size", "region"), [(12, 3), (12, 4), (6, 6), (8, 2)])
def test_equivariant_to_circular_shifts_by_whole_regions_only(size, region, shift, restore, dim):
    r = Rearrangement(size, region, shift, restore=restore)
    weight = mixing(region, 5)
    x = torch.randn(1, 1, size, size, dtype=torch.float64, generator=torch.manual_seed(0))
    for step in range(-size, size + 1):
        one = branch(torch.roll(x, step, dim), r, dim, weight)
        other = torch.roll(branch(x, r, dim, weight), step, dim)
        error = (one - other).abs().max().item()
        assert error < 1e-12 if step % region == 0 else error > 1e-3, step


# ------------------------------------------------------------------ rolls


@examples
@given(MAPS, DIMS)
def test_a_roll_passes_through_where_it_is_a_multiple_of_the_period_and_else_not(r, dim):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((1, 2, r.size, 2) if dim == 2 else (1, 2, 2, r.size), generator=generator)
    weights = torch.rand(2 * r.region, 2 * r.region, generator=generator)

    def through(x: torch.Tensor) -> torch.Tensor:
        return back(torch.einsum("oc,bchw->bohw", weights, into(x, r, dim)), r, dim)

    before = through(x)
    for roll in range(1, r.size):
        passes = torch.allclose(through(x.roll(roll, dim)), before.roll(roll, dim), atol=1e-5)
        assert passes == (roll % token_period(r) == 0)


@examples
@given(st.integers(1, 6), REGIONS, SHIFTS, st.sampled_from(rr.PADDINGS), st.booleans())
def test_shifted_regions_that_divide_the_line_let_rolls_by_a_region_pass(n, h, s, padding, restore):
    assert token_period(Rearrangement(n * h, h, s, padding, "shift", restore)) == h


# ------------------------------------------------------------------ impossible settings


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"region": 0}, r"region is 0; .* at least 1"),
        ({"region": -3}, r"region is -3; .* at least 1"),
        ({"region": 2.5}, r"region is 2\.5; .* whole number"),
        ({"region": True}, r"region is True; .* whole number"),
        ({"region": "3"}, r"region is '3'; .* whole number"),
        ({"region": None}, r"region is None; .* whole number"),
        ({"region": np.array([2, 3])}, r"region is array\(\[2, 3\]\); .* whole number"),
        ({"shift": 1.0}, r"shift is 1\.0; .* whole number"),
        ({"shift": False}, r"shift is False; .* whole number"),
        ({"shift": torch.tensor(1.5)}, r"shift is tensor\(1\.5000\); .* whole number"),
        ({"size": 0}, r"size is 0; .* at least 1"),
        ({"size": -7}, r"size is -7; .* at least 1"),
        ({"size": 7.0}, r"size is 7\.0; .* whole number"),
        ({"size": True}, r"size is True; .* whole number"),
        ({"padding": "constant"}, r"padding is 'constant'; .*circular, zero, reflect, replicate"),
        ({"padding": None}, r"padding is None"),
        ({"padding": ""}, r"padding is ''"),
        ({"cross_region": "roll"}, r"cross_region is 'roll'; .*shift, shuffle, none"),
        ({"cross_region": None}, r"cross_region is None"),
    ],
)
def test_impossible_settings_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        Rearrangement(**{"size": 7, "region": 3, **setting})


def test_whole_numbers_of_other_libraries_are_numbers():
    r = Rearrangement(np.int64(7), np.int32(3), np.int8(-2))
    assert np.array_equal(r.slots, Rearrangement(7, 3, -2).slots)


def test_functions_do_not_guess_what_a_wrong_word_means():
    x = grid(7, 2)
    for function in (rr.shift, rr.unshift):
        with pytest.raises(ValueError, match=r"cross_region is 'roll'; choose shift, shuffle"):
            function(x, 2, 3, 1, "roll")
    for function in (rr.partition, rr.pad_to_regions):
        with pytest.raises(ValueError, match=r"padding is 'wrap'; choose circular, zero"):
            function(x, 2, 3, padding="wrap")
