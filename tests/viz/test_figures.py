"""Figures keep and show their bytes; charts have the project's style and leave no other behind."""

from __future__ import annotations

import base64
import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

from hirelab.rearrange import Rearrangement
from hirelab.viz import charts, theme
from hirelab.viz.canvas import compact, png
from hirelab.viz.figures import Figure, chart, finish


def test_a_figure_shows_and_saves_its_bytes(tmp_path):
    data = png(Image.new("RGB", (4, 4), "red"))
    figure = Figure(data, "a red square")
    figure.save(tmp_path / "deep" / "red.png")
    assert (tmp_path / "deep" / "red.png").read_bytes() == data
    bundle = figure._repr_mimebundle_()
    assert set(bundle) == {"image/png", "text/plain"}
    assert base64.b64decode(bundle["image/png"]) == data
    assert bundle["text/plain"] == "a red square"
    assert repr(figure) == "Figure(text='a red square')"
    assert figure == Figure(data, "a red square", figure=object())
    assert figure != Figure(data + b"x", "a red square")


def test_a_photograph_is_kept_as_jpeg_and_written_as_the_suffix_says(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    photograph = Image.fromarray(noise).resize((600, 400))
    figure = Figure(compact(photograph), "noise")
    assert set(figure._repr_mimebundle_()) == {"image/jpeg", "text/plain"}
    for name, format_ in (("a.png", "PNG"), ("a.jpeg", "JPEG"), ("a.webp", "WEBP")):
        figure.save(tmp_path / name)
        written = Image.open(tmp_path / name)
        assert written.format == format_
        kept = np.asarray(Image.open(io.BytesIO(figure.data))).astype(int)
        assert abs(np.asarray(written.convert("RGB")) - kept).mean() < 4
    assert (tmp_path / "a.jpeg").read_bytes() == figure.data


def test_a_figure_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "red.png"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space left"):
        Figure(b"new", "").save(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["red.png"]


# ------------------------------------------------------------------ charts


def test_a_chart_has_the_style_and_leaves_matplotlib_s_own():
    before = matplotlib.rcParams["axes.labelcolor"]
    with chart(4, 2, **{"axes.grid": False}) as sheet:
        assert matplotlib.rcParams["axes.labelcolor"] == theme.INK
        assert matplotlib.rcParams["axes.grid"] is False
        sheet.subplots().plot([0, 1])
        found = finish(sheet, "a line")
    assert matplotlib.rcParams["axes.labelcolor"] == before
    assert found.figure is sheet
    image = Image.open(io.BytesIO(found.data))
    assert (image.size, image.mode) == ((4 * 144, 2 * 144), "P")


def test_reach_matrices_count_the_pairs_and_those_of_one_way():
    r = Rearrangement(14, region=3)
    reach = np.zeros((14, 14), bool)  # row: to, column: from
    for token in range(14):
        reach[token, list(r.sources(token))] = True
    figure = charts.reach_matrices({"a": reach})
    # tokens 12 and 13 share their region with a copy of token 0, which neither of them reaches
    assert figure.text == f"a: {4 * 9 + 2 * 3} pairs, 2 one-way"
    (axes,) = figure.figure.axes
    image = axes.images[0].get_array()
    assert tuple(image[12, 0]) == tuple(image[13, 0]) == theme.rgb(theme.ORANGE)
    assert tuple(image[0, 12]) == theme.rgb(theme.UNREACHED)
    assert tuple(image[0, 1]) == theme.rgb(theme.REACHED)
