"""AttributionExplorer: it shows what `attribute` computes, of the reader's own image too."""

from __future__ import annotations

import ipywidgets as w
import numpy as np
import pytest
import torch
from PIL import Image

import hirelab as hl
from hirelab.analysis.attribution import attribute
from hirelab.datasets.images import open_image
from hirelab.datasets.transforms import normalise, square
from hirelab.viz import overlay, theme
from hirelab.viz.canvas import Canvas
from hirelab.widgets.attribution import AttributionExplorer

NAMES = ["ape", "bee", "cat", "dog", "eel"]


@pytest.fixture(scope="module")
def network():
    model = hl.create("hire_mlp_atto", seed=0, num_classes=5)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.05)
    return model


@pytest.mark.parametrize(
    ("settings", "method", "point"),
    [
        ({}, "grad_cam", "stages.2.blocks.1.out"),
        ({"point": "height regions, mixed", "stage": 1}, "grad_cam",
         "stages.1.blocks.1.hire.height.mixed"),
        ({"point": "last map of the network"}, "grad_cam", None),
        ({"method": "gradient", "stage": 0, "block": 1}, "gradient", None),
    ],
)  # fmt: skip
def test_it_shows_what_attribute_computes(network, settings, method, point):
    explorer = AttributionExplorer(network, "coffee", NAMES, photograph="cat", target=3, **settings)
    x = normalise([square(open_image("cat"), 224)])
    expected = attribute(network, x, 3, point, method=method)
    np.testing.assert_array_equal(explorer.attribution().maps, expected.maps)
    facts = explorer.state()
    assert facts["shown_class"] == "dog"
    assert facts["predicted"] == NAMES[int(expected.predicted[0])]
    assert facts["probability"] == round(float(expected.probabilities[0]), 3)
    assert facts["at"] == (expected.point or "pixels")


def test_the_readers_own_image_is_the_given_one(network, tmp_path):
    own = Image.new("RGB", (300, 260), (20, 90, 200))
    own.paste((250, 250, 250), (80, 60, 180, 200))
    own.save(tmp_path / "mine.png")
    from_file = AttributionExplorer(network, tmp_path / "mine.png")
    x = normalise([square(own, 224)])
    expected = attribute(network, x, None, "stages.2.blocks.1.out").maps
    np.testing.assert_array_equal(from_file.attribution().maps, expected)
    np.testing.assert_allclose(
        AttributionExplorer(network, x[0]).attribution().maps, expected, rtol=1e-3, atol=1e-8
    )
    drawn = np.asarray(from_file.render())
    assert (drawn == (20, 90, 200)).all(-1).sum() > 10_000  # it stands on the sheet
    with pytest.raises(FileNotFoundError, match=r"mine\.pn"):
        AttributionExplorer(network, tmp_path / "mine.pn")


def test_the_image_is_called_by_its_name(network, tmp_path, monkeypatch):
    written, write = [], Canvas.text

    def text(self, xy, text, *args, **kwargs):
        written.append(text)
        write(self, xy, text, *args, **kwargs)

    monkeypatch.setattr(Canvas, "text", text)
    Image.new("RGB", (40, 40)).save(tmp_path / "mine.png")

    def name(explorer) -> str:
        written.clear()
        explorer.render()
        return next(t for t in written if t.endswith("x 64 pixels")).partition(",")[0]

    explorer = AttributionExplorer(network, "rocket", img_size=64)
    assert name(explorer) == "rocket"
    explorer.set(photograph="retina")
    assert name(explorer) == "retina"
    explorer.look_at(tmp_path / "mine.png")
    assert name(explorer) == "mine.png"
    explorer.look_at(Image.new("RGB", (40, 40)))
    assert name(explorer) == "the given one"
    explorer.reset()
    assert name(explorer) == "rocket"
    assert name(AttributionExplorer(network, img_size=64)) == "coffee"


def test_impossible_choices_are_explained(network):
    explorer = AttributionExplorer(network)
    before = explorer.settings
    for change, why in [
        ({"target": 5}, "target is 5; choose one of predicted, class 0, .*, class 4"),
        ({"target": "cat"}, "target is 'cat'; choose one of predicted, class 0"),
        ({"block": 9}, "block is 9; with stage=2, give a whole number from 0 to 2"),
        ({"stage": 3, "block": 2}, "block is 2; with stage=3, give a whole number from 0 to 1"),
    ]:
        with pytest.raises(ValueError, match=why):
            explorer.set(**change)
        assert explorer.settings is before
    narrow = hl.create("hire_mlp_atto", seed=0, branches=("width",))
    with pytest.raises(ValueError, match="point is 'height branch'; choose one of"):
        AttributionExplorer(narrow, point="height branch")
    with pytest.raises(ValueError, match="There are 5 names for 1000 classes"):
        AttributionExplorer(narrow, names=NAMES)
    with pytest.raises(ValueError, match="not a whole Hire-MLP"):
        AttributionExplorer(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("settings", "idle"),
    [
        ({"method": "gradient"}, {"point", "stage", "block"}),
        ({"point": "last map of the network"}, {"stage", "block"}),
        ({}, set()),
    ],
)
def test_controls_that_change_nothing_are_greyed(network, settings, idle):
    explorer = AttributionExplorer(network, names=NAMES, img_size=64, **settings)
    labels = {about.label: name for name, about in explorer.controls.items()}
    (grid,) = [part for part in explorer.widget.children if isinstance(part, w.GridBox)]
    controls = [part for part in grid.children if hasattr(part, "value")]
    assert {labels[c.description] for c in controls if c.disabled} == idle
    other = {"point": "after the hire module", "stage": 1, "block": 0}
    shown = explorer.update({}).image
    for name, value in other.items():
        assert (explorer.update({name: value}).image == shown) == (name in idle)
        explorer.reset()
    explorer.close()


def test_a_class_has_a_name_and_can_be_asked_for_by_it(network):
    explorer = AttributionExplorer(network, names=NAMES)
    control = explorer.controls["target"]
    assert list(map(control.name_of, control.options)) == ["predicted", *NAMES]
    explorer.set(target="cat")
    assert (explorer.settings.target, explorer.state()["shown_class"]) == (2, "cat")
    explorer.set(target="predicted")
    assert explorer.settings.target == -1
    # the network's own description has them, or else they are numbered
    trained = hl.create("hire_mlp_pico", pretrained=True)
    own = AttributionExplorer(trained).controls["target"].names
    assert own == ("predicted", *trained.pretrained_cfg["label_names"])
    assert AttributionExplorer(network).controls["target"].name_of(4) == "class 4"
    many = AttributionExplorer(hl.create("hire_mlp_atto", seed=0))
    with pytest.raises(ValueError, match="target is 1000; give a whole number from -1 to 999"):
        many.set(target=1000)


def test_the_line_runs_where_half_of_the_highest_value_ends():
    from hirelab.viz.canvas import Canvas

    values = np.zeros((4, 4))
    values[1:3, 1:3] = 1.0
    values[0, 0] = 0.5  # not above half
    canvas = Canvas(80, 80, scale=1)
    canvas.rect((0, 0, 80, 80), fill=theme.INK)
    overlay.draw_outline(canvas, values, (0, 0, 80, 80))
    white = (np.asarray(canvas.image) == 255).all(-1)
    rows, cols = np.nonzero(white)
    assert (rows.min(), cols.min()) >= (18, 18)
    assert (rows.max(), cols.max()) <= (61, 61)
    assert not white[24:56, 24:56].any()


def test_means_over_pixels_are_drawn_and_keep_the_total():
    values = np.zeros((9, 9))
    values[4, 4], values[0, 0] = 9.0, -5.0
    found = overlay.positive(values, 3)
    assert found.sum() == pytest.approx(9)
    np.testing.assert_allclose(found[3:6, 3:6], 1)
    np.testing.assert_array_equal(overlay.positive(values), np.maximum(values, 0))
