"""What empty canvas beside an image changes, where index maps and arithmetic say what must hold."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from _helpers import check_kept

import hirelab as hl
from hirelab._shared.errors import HirelabError
from hirelab.datasets.boxes import open_boxes
from hirelab.dense.evaluation import evaluate_detector
from hirelab.dense.padding import image_gates, larger_canvas, padding_effect
from hirelab.dense.predictions import image_share

SIDE = 128
ROOT = Path(__file__).parents[2]


DIVIDING = {"cross_region": "none", "region": (4, 2, 2, 2)}
"""Regions that divide the 32, 16, 8 and 4 tokens of an image of 128 pixels, and stay apart."""


def made(**changes):
    """With biases that make empty canvas speak, and gates that listen."""
    model = hl.create("hire_mlp_atto", seed=0, **changes)
    generator = torch.Generator().manual_seed(1)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.bias.data.normal_(0, 0.5, generator=generator)
        if name.endswith(("gate.fc1", "gate.fc2")):
            module.weight.data.mul_(100)
    return model


@pytest.fixture(scope="module")
def x():
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_without_gate_and_exchange_nothing_changes(x):
    """Strided convolutions of even maps never look past the lower and right border, and no region
    holds a token of both sides."""
    found = padding_effect({"still": made(fusion="sum", **DIVIDING)}, x, (32, 128))
    for pad in (0, 1):
        for stage in range(4):
            assert found.change(0, pad, stage).shape == (32 >> stage, 32 >> stage)
            # not 0: on maps of other sizes some processors add up in another order
            assert found.change(0, pad, stage).max() < 2e-6


def test_a_shift_brings_the_canvas_in_at_the_borders_it_crosses(x):
    """Stage 0 of two blocks: the second shifts by 2, so regions of 4 that cross a border are its
    last and, round the other side, its first two rows and columns."""
    shifted = made(fusion="sum", region=(4, 2, 2, 2), shift=(2, 0, 0, 0))
    change = padding_effect({"shifted": shifted}, x, (128,)).change(0, 0, 0)
    assert change[2:30, 2:30].max() < 2e-6
    for border in (change[:2], change[30:], change[:, :2], change[:, 30:]):
        assert border.max() > 1e-3


def test_a_gate_carries_the_canvas_everywhere_and_image_gates_keep_it_out(x):
    gated = made(**DIVIDING)
    found = padding_effect({"gated": gated}, x, (128,))
    assert all(found.change(0, 0, stage).min() > 1e-5 for stage in range(4))
    kept = padding_effect({"gated": gated}, x, (128,), masked=True)
    assert all(kept.change(0, 0, stage).max() < 2e-6 for stage in range(4))


def test_a_gate_says_what_it_says_of_the_image_alone(x):
    """Two images on one canvas; the gate's arithmetic, on the parts of the branches by hand."""
    model = made()
    hire = "stages.0.blocks.0.hire"
    names = [f"{hire}.{name}.out" for name in ("height", "width", "channel")]
    sizes = [(0.5, 1.0), (0.75, 0.25)]
    with torch.no_grad(), image_gates(model, sizes):
        _, cache = model.run_with_cache(x[:2], [*names, f"{hire}.gate.out"])
    total = sum(cache[name] for name in names)
    gate = model.stages[0].blocks[0].hire.gate
    for i, (rows, columns) in enumerate(sizes):
        part = total[i, :, : int(32 * rows), : int(32 * columns)].mean((-2, -1))
        torch.testing.assert_close(cache[f"{hire}.gate.out"][i], gate(part[None])[0])


def test_whole_images_are_as_without(x):
    model = made()
    with torch.no_grad():
        plain = model(x)
        with image_gates(model, torch.ones(3, 2)):
            torch.testing.assert_close(model(x), plain)
        with image_gates(model, [(0.5, 0.5)] * 3):
            assert not torch.allclose(model(x), plain)
        assert torch.equal(model(x), plain)  # and nothing stays


def test_other_networks_are_left_as_they_are(x):
    model = timm.create_model("resnet10t", num_classes=3).eval()
    with torch.no_grad(), image_gates(model, [(0.5, 0.5)] * 3):
        changed = model(x)
    torch.testing.assert_close(changed, model(x))


@pytest.mark.parametrize("shares", [[(0.0, 1.0)], [(0.5, 1.5)], [(-1.0, 0.5)], [(float("nan"), 1)]])
def test_shares_out_of_range_are_refused(shares):
    with (
        pytest.raises(HirelabError, match="shares of the canvas above 0"),
        image_gates(made(), shares),
    ):
        pass


def test_a_batch_of_another_number_leaves_nothing_behind(x):
    model = made()
    with torch.no_grad():
        plain = model(x)
        with pytest.raises(HirelabError, match="3 images and shares were given for 2"):  # noqa: SIM117
            with image_gates(model, [(1, 1), (1, 1)]):
                model(x)
        assert torch.equal(model(x), plain)


def test_the_result_says_and_draws_what_was_measured(x, tmp_path):
    networks = {"Hire-MLP": made(), "ResNet": timm.create_model("resnet10t")}
    networks["ResNet"].train()
    found = padding_effect(networks, x, (32, 64))
    assert networks["ResNet"].training  # as it came
    assert len(found.records()) == 2 * 2 * 4
    one = next(
        r for r in found.records() if (r["network"], r["pad"], r["stage"]) == ("ResNet", 64, 2)
    )
    assert one["all"] == pytest.approx(np.sqrt((found.change(1, 1, 2) ** 2).mean()))
    assert "64 pixels of canvas" not in str(found)
    check_kept(found, tmp_path)


def test_sizes_that_do_not_fit_the_maps_are_refused(x):
    with pytest.raises(HirelabError, match="multiples of 32"):
        padding_effect({"one": made()}, x, (20,))
    with pytest.raises(HirelabError, match="no forward_intermediates"):
        padding_effect({"one": torch.nn.Conv2d(3, 3, 1)}, x, (32,))


def test_a_larger_canvas_is_that_of_a_coarser_padding():
    """A square image of 96 pixels on multiples of 128, and on a canvas 32 pixels larger."""
    settings = {"seed": 0, "min_size": 96, "max_size": 96, "width": 16, "anchor_scale": 4.0}
    fine, coarse = (
        hl.detector("retinanet", "hire_mlp_atto", 2, pad_to=n, **settings).eval() for n in (32, 128)
    )
    for network in (fine, coarse):
        network.net.score_thresh = 0.0
    x = [torch.randn(3, 96, 96, generator=torch.Generator().manual_seed(0))]
    with torch.no_grad():
        alone = fine(x)[0]
        with larger_canvas(fine, 32):
            padded = fine(x)[0]
            assert image_share(fine, x[0][None]) == (0.75, 0.75)
        expected = coarse(x)[0]
        again = fine(x)[0]
    for name in ("boxes", "scores", "labels"):
        assert torch.equal(padded[name], expected[name])
        assert torch.equal(again[name], alone[name])
    assert not torch.equal(alone["scores"], padded["scores"])


def test_a_detectors_figures_on_a_canvas():
    """The bundled detector loses a little, and its gates' share of that comes back."""
    model, images = hl.load_dense("scenes.mask_rcnn"), open_boxes("scenes", "val")
    with pytest.raises(RuntimeError, match="stop"), larger_canvas(model, 32):
        raise RuntimeError("stop")
    found = {
        key: evaluate_detector(model, images, masks=False, pad=pad, masked=masked, progress=False)
        for key, pad, masked in (("alone", 0, False), ("canvas", 192, False), ("masked", 192, True))
    }
    ap = {key: one.box["ap"] for key, one in found.items()}
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    said = re.search(r"from ([\d.]+) to ([\d.]+) % box AP .* no less than ([\d.]+) with", page)
    # to a point: an object more or less, of the few that there are, is so much
    assert [ap["alone"], ap["canvas"]] == pytest.approx([float(said[1]), float(said[2])], abs=1)
    assert ap["masked"] > float(said[3]) - 1
    assert "on a canvas 192 pixels larger, which the gates do not hear" in str(found["masked"])
