"""Moved images: against slices cut by hand, networks whose answer is known, and what is exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _helpers import check_kept, random_images, randomise
from scipy import stats
from torch import nn

import hirelab as hl
from hirelab._shared.errors import HirelabError
from hirelab.analysis.translation import (
    TranslationSensitivity,
    compare_translations,
    roll_period,
    translation_results,
    translation_sensitivity,
)
from hirelab.models.pretrained import bundled


class Pooled(nn.Module):
    """A strided convolution that wraps around, averaged: it meets rolls by its stride only."""

    def __init__(self, stride: int, kernel: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, kernel, stride, kernel // 2, padding_mode="circular")
        self.head = nn.Linear(8, 5)
        self.feature_info = [{"reduction": stride}]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 4 * self.head(self.conv(x).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return random_images(6, height=48)


@pytest.fixture(scope="module")
def found(x) -> TranslationSensitivity:
    return translation_sensitivity(Pooled(4), x, 32, range(1, 17))


# ------------------------------------------------------------------ the measurement


@pytest.mark.parametrize("axis", ["height", "width"])
def test_it_is_what_slices_by_hand_say(x, axis):
    model = Pooled(3)
    measured = translation_sensitivity(model, x, 31, (1, 6, 17), axis)
    upright = x if axis == "width" else x.transpose(2, 3)

    def answers(part: torch.Tensor) -> np.ndarray:
        part = part if axis == "width" else part.transpose(2, 3)
        return model(part).softmax(1).detach().numpy()

    middle = upright[:, :, 8:39, 8:39]
    for i, (offset, left) in enumerate(((1, 8), (6, 5), (17, 0))):
        right = left + offset
        rolled = torch.cat([middle[..., 31 - offset :], middle[..., : 31 - offset]], dim=3)
        pairs = (
            (answers(middle), answers(rolled)),
            (answers(upright[:, :, 8:39, right : right + 31]),
             answers(upright[:, :, 8:39, left : left + 31])),
        )  # fmt: skip
        for way, (first, other) in enumerate(pairs):
            rows, best = np.arange(6), first.argmax(1)
            truth = np.abs(other[rows, best] - first[rows, best])
            assert measured.change[way, i] == pytest.approx(truth, abs=1e-6)
            assert (measured.changed[way, i] == (other.argmax(1) != best)).all()


def test_a_network_without_positions_meets_no_roll(x):
    measured = translation_sensitivity(Pooled(1, 1), x, 32, (1, 5, 16))
    roll, crop = measured.change.max((1, 2))
    assert roll < 1e-5
    assert crop > 1e-2


def test_rolls_by_the_stride_pass_and_others_do_not(found):
    multiples = found.offsets % 4 == 0
    assert found.change[0, multiples].max() < 1e-5
    assert found.change[0, ~multiples].mean(1).min() > 1e-3
    mean, low, _ = found.stride_effect(4)["roll"]
    at = [i for i, d in enumerate(found.offsets) if d in (4, 8, 12)]
    beside = [(found.change[0, i - 1] + found.change[0, i + 1]) / 2 for i in at]
    assert mean == pytest.approx(np.mean(beside), abs=1e-5)
    assert 0 < low < mean


def test_defaults_go_to_half_of_two_thirds(x):
    measured = translation_sensitivity(Pooled(4), x[:2])
    assert measured.img_size == 32
    assert measured.offsets.tolist() == [*range(1, 17)]
    wider = translation_sensitivity(Pooled(4), random_images(1, height=60))
    assert wider.offsets.tolist() == [*range(1, 17), 18, 20]
    assert measured.reductions == [4]


def test_rows_have_scipys_intervals(found):
    row = next(r for r in found.records() if (r["way"], r["offset"]) == ("crop", 3))
    each = found.change[1, 2]
    truth = stats.ttest_1samp(each, 0).confidence_interval(0.95)
    assert row["change"] == pytest.approx(each.mean())
    assert row["change_low"] == pytest.approx(max(truth.low, 0))
    assert row["change_high"] == pytest.approx(truth.high)
    assert row["changed_low"] <= row["changed"] <= row["changed_high"]


def test_one_image_has_no_interval(x):
    alone = translation_sensitivity(Pooled(4), x[:1], 32, (1, 2))
    assert all(np.isnan([row["change_low"], row["change_high"]]).all() for row in alone.records())
    assert np.isnan(alone.plot().figure.axes[0].lines[0].get_ydata()).sum() == 0


def test_what_cannot_be_measured_is_refused(x, found):
    model = Pooled(4)
    for arguments, said in (
        ((model, x, 32, (17,)), "by 1 to 16"),
        ((model, x, 32, ()), "by 1 to 16"),
        ((model, x, 32, (0,)), "by 1 to 16"),
        ((model, x, 49), "from 2 to 48"),
        ((model, x, 32, (1,), "depth"), "height"),
        ((None, x), "NoneType"),
    ):
        with pytest.raises(HirelabError, match=said):
            translation_sensitivity(*arguments)
    with pytest.raises(HirelabError, match="both of its neighbours"):
        found.stride_effect(16)


# ------------------------------------------------------------------ side by side


def test_a_comparison_is_paired_over_what_both_have(x, found, tmp_path):
    other = translation_sensitivity(Pooled(2), x, 32, (2, 3, 8))
    both = compare_translations({"a": found, "b": other})
    assert both.offsets.tolist() == [2, 3, 8]
    assert (both["b"].change == other.change).all()
    assert (both["a"].changed == found.changed[:, [1, 2, 7]]).all()
    assert both.reductions == []  # 4 and 2
    apart = both.difference("a", "b")
    one, two = ([both[name].change[way].mean(0) for way in (0, 1)] for name in "ab")
    for name, pair in (
        ("roll", (one[0], two[0])),
        ("crop", (one[1], two[1])),
        ("roll minus crop", (one[0] - one[1], two[0] - two[1])),
    ):
        truth = stats.ttest_rel(*pair).confidence_interval(0.95)
        mean = np.subtract(*pair).mean()
        assert apart[name] == pytest.approx((mean, truth.low, truth.high), rel=1e-3)
        printed = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * v for v in apart[name]))
        assert any(line.strip().startswith(f"{name}  ") and printed in line
                   for line in both.paired.splitlines())  # fmt: skip
    assert len(both.records()) == 2 * 2 * 3
    check_kept(both, tmp_path)
    check_kept(found, tmp_path)


def test_networks_of_two_sizes_are_not_paired(x, found):
    smaller = translation_sensitivity(Pooled(4), x, 24, range(1, 17))
    both = compare_translations({"a": found, "b": smaller})
    assert both.paired == "no two networks saw images of one size"


def test_stride_effects_differ_image_by_image(x, found):
    other = translation_sensitivity(Pooled(2), x, 32, range(1, 17))
    apart = compare_translations({"a": found, "b": other}).stride_difference("a", "b", 4)
    for way, name in enumerate(("roll", "crop")):
        pair = [one.beside_minus_at(4)[way] for one in (found, other)]
        truth = stats.ttest_rel(*pair).confidence_interval(0.95)
        expected = (np.subtract(*pair).mean(), truth.low, truth.high)
        assert apart[name] == pytest.approx(expected, rel=1e-3)


def test_what_does_not_compare_is_refused(x, found):
    short = translation_sensitivity(Pooled(4), x[:3], 32, (1,))
    down = translation_sensitivity(Pooled(4), x, 32, (1,), "height")
    for results, said in (({}, "at least one"), ({"a": found, "b": short}, "numbers of images"),
                          ({"a": found, "b": down}, "axes")):  # fmt: skip
        with pytest.raises(HirelabError, match=said):
            compare_translations(results)
    with pytest.raises(HirelabError, match="network"):
        compare_translations({"a": found})["b"]


# ------------------------------------------------------------------ what is exact


def wrapped(model: hl.models.HireMLP) -> hl.models.HireMLP:
    """The network with convolutions that wrap around the border instead of padding with zeros."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and any(module.padding):
            module.padding_mode = "circular"
            both = [p for p in module.padding[::-1] for _ in (0, 1)]
            module._reversed_padding_repeated_twice = both
    return model


def logits_apart(model: nn.Module, x: torch.Tensor, roll: int) -> float:
    with torch.no_grad():
        return float((model(x.roll(roll, 3)) - model(x)).abs().max() / model(x).std())


def test_a_roll_by_the_period_passes_where_convolutions_wrap_around():
    """Regions of 2 divide every map of 128 pixels: the last stage, 32 pixels a token, sets 64."""
    model = randomise(hl.create("hire_mlp_atto", region=2)).double()
    x = random_images(2, height=128, dtype=torch.float64)
    assert roll_period(model, 128) == 64
    assert logits_apart(model, x, 64) > 1e-3  # zeros at the border
    wrapped(model)
    assert logits_apart(model, x, 64) < 1e-9
    assert logits_apart(model, x, 32) > 1e-3


def test_regions_that_do_not_divide_the_line_let_no_roll_through():
    model = wrapped(randomise(hl.create("hire_mlp_atto"))).double()
    for size, period in ((96, 96), (128, 128), (192, 192), (384, 192), (100, 100)):
        assert roll_period(model, size) == period
    x = random_images(1, height=96, dtype=torch.float64)
    assert logits_apart(model, x, 48) > 1e-3
    x = random_images(1, height=384, dtype=torch.float64)
    assert logits_apart(model, x, 192) < 1e-9


def test_regions_of_one_token_wait_for_the_last_stride():
    assert roll_period(hl.create("hire_mlp_atto", region=1), 96) == 32
    assert roll_period(hl.create("hire_mlp_atto", region=2, branches=("height",)), 128) == 32
    assert roll_period(hl.create("hire_mlp_atto", region=2), 128, "height") == 64
    with pytest.raises(HirelabError, match="no Hire-MLP"):
        roll_period(nn.Identity(), 128)


# ------------------------------------------------------------------ what is kept


def test_what_is_kept_is_of_the_bundled_networks():
    kept = translation_results()
    trained = {name: made for name, made in bundled().items() if made["source"] == "imagenette"}
    assert sorted(kept.names) == sorted(trained)
    for name, size in zip(kept.names, kept.img_sizes, strict=True):
        assert size == trained[name]["img_size"]
    assert kept.plot().text == str(kept)
