"""What notebook 10 says in prose is so; its numbers are computed here."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest

import hirelab as hl
from hirelab.datasets.boxes import open_boxes
from hirelab.datasets.label_maps import open_label_maps
from hirelab.datasets.transforms import normalise
from hirelab.dense.factory import bundled
from hirelab.dense.padding import padding_effect
from hirelab.dense.stages import stage_effect
from hirelab.training.runs import open_network

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "10_dense_prediction.ipynb"


@pytest.fixture(scope="module")
def prose() -> str:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    return " ".join(c.source for c in cells if c.cell_type == "markdown").replace("*", "")


@pytest.fixture(scope="module")
def detector():
    return hl.load_dense("scenes.mask_rcnn")


@pytest.fixture(scope="module")
def images():
    return open_boxes("scenes", "val")


def sides(images) -> np.ndarray:
    boxes = np.array([one.box for objects in images.objects for one in objects])
    return np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def test_the_networks_are_as_described(prose, images):
    info = bundled()["scenes.mask_rcnn"]
    assert f"{info['parameters'] / 1e6:.1f} million parameters" in prose
    assert f"learnt them from {len(open_boxes('scenes', 'train'))} pictures" in prose
    assert f"the {len(images)} that follow" in prose


def test_what_a_place_hears(prose, detector, images):
    x = normalise([images.read(i) for i in range(8)])
    seen = hl.focus(detector, (48, 32, 80, 64))
    half = {
        name: hl.receptive_field(seen, x, name).half_mass_side
        for name in ("network.stages.0", "network.stages.3", "levels.0")
    }
    assert f"a square of {half['network.stages.0']:.0f} pixels" in prose
    assert f"{half['levels.0']:.0f} pixels, wider than every box" in prose
    assert 0.8 < half["levels.0"] / half["network.stages.3"] < 1  # "nearly as far"
    own = sides(images)
    assert f"The boxes are {own.min():.0f} to {own.max():.0f} pixels wide" in prose
    assert own.max() < half["levels.0"]
    assert seen.level == hl.focus(detector, (0, 0, 111, 111)).level == 0
    assert hl.focus(detector, (0, 0, 112, 112)).level == 1


def test_which_stage_could_be_missing(prose, detector, images):
    """To a point and a half: an object more or less, of the few that there are, is so much."""
    values = stage_effect(detector, images, progress=False).values
    said = re.search(
        r"from (\d+) to (\d+), without stage 1 to (\d+), without stage 2 to (\d+) or \d+\. "
        r".*from (\d+) to (\d+), and there are (\d+) of them\. What the coarse",
        prose,
    ).groups()
    *said, larger = said
    assert (sides(images) >= 32).sum() == int(larger)  # COCO's border of small objects
    own = [*values[:4, 0], values[0, 2], values[4, 2]]
    assert own == pytest.approx(list(map(float, said)), abs=1.5)
    assert abs(values[4, 0] - values[0, 0]) < 3  # "as before, within what 24 pictures can tell"
    pixels = stage_effect(hl.load_dense("scenes.fpn"), open_label_maps("scenes", "val")).values
    assert f"{pixels[1, 0]:.0f} % mean IoU in place of {pixels[0, 0]:.0f}" in prose
    assert pixels[1, 2:].max() < 1  # "no shape is left"


def test_canvas_is_heard_in_the_middle_by_the_gate_alone():
    names = {"Hire-MLP": "hire_mlp_atto.imagenette", "ResNet": "resnet18.imagenette_narrow"}
    networks = {name: open_network(of)[0] for name, of in names.items()}
    x, _ = hl.samples(7, img_size=96)
    heard = padding_effect(networks, x, (96,))
    masked = padding_effect({"Hire-MLP": networks["Hire-MLP"]}, x, (96,), masked=True)
    assert heard.middle(0, 0, 0) > 0.1  # "everywhere from the first stage on"
    assert heard.middle(1, 0, 0) < 0.001
    assert masked.middle(0, 0, 0) < 0.02


def test_what_a_canvas_costs_on_street_scenes_stands_in_the_documents(prose):
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    alone, padded = re.search(r"falls from ([\d.]+) to ([\d.]+) %", page).groups()
    masked = re.search(r"([\d.]+) % are left", page)[1]
    resnet = re.search(
        r"from ([\d.]+) to [\d.]+ and ([\d.]+) % mean IoU \(ResNet-18\)", page
    ).groups()
    hire = re.search(r"from ([\d.]+) to [\d.]+ and ([\d.]+) % \(Hire-MLP-Pico", page).groups()
    alone, padded, masked, *rest = (
        f"{float(v):.1f}" for v in (alone, padded, masked, *hire, *resnet)
    )
    assert f"from {alone} to {padded} % mean IoU, and to {masked} with masked gates" in prose
    assert f"random weights fell from {rest[0]} to {rest[1]}" in prose
    assert f"a ResNet-18 fell from {rest[2]} to {rest[3]}" in prose


def test_what_is_left_with_masked_gates(prose):
    """In the whole map and in its middle, at the last stage."""
    assert "not much more than what the ResNet's border lets in" in prose
    names = {"Hire-MLP": "hire_mlp_atto.imagenette", "ResNet": "resnet18.imagenette_narrow"}
    networks = {name: open_network(of)[0] for name, of in names.items()}
    x, _ = hl.samples(7, img_size=96)
    masked = padding_effect(networks, x, (96,), masked=True)
    assert 1 < masked.middle(0, 0, 3) / masked.middle(1, 0, 3) < 1.2


def test_what_comes_first_below_the_score(prose, detector, images):
    """Down to the lowest score that the explorer shows, each answer is about a shape."""
    assert "a second answer about a shape, or something in the noise" in prose
    for i in range(len(images)):
        for box in hl.predict(detector, images.read(i), threshold=0.05).boxes:
            own = [one.box for one in images.objects[i]]
            assert max(overlap(box, one) for one in own) > 0.1


def overlap(one, other) -> float:
    """The share of the first box that lies in the other."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0) * max(down, 0) / ((one[2] - one[0]) * (one[3] - one[1]))
