"""Differences stand where their numbers are, and no word leaves the figure or covers another."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from hirelab.viz.ablation import SIGNS, differences, learnt

NAN = np.nan
OURS = np.array([0.0, -1.5, NAN, 0.5])
LOW, HIGH = np.array([NAN, -2.5, NAN, NAN]), np.array([NAN, -0.5, NAN, NAN])
PAPER = np.array([0.0, -2.0, -0.7, NAN])
LABELS = {"title": "a title", "xlabel": "points", "text": "said"}


def draw(**changes):
    given = {
        "names": ["full", "less", "other", "third"], "ours": OURS, "low": LOW, "high": HIGH,
        "paper": PAPER, "reference": 0, "seeds": [[-0.1, 0.1], [-1.6, -1.4], [], [0.5]],
        "columns": {"top-1, %": ["76", "74.5", "", "76.5"], "seeds": ["2", "2", "", "1"]},
    }  # fmt: skip
    return differences(**{**given, **LABELS, **changes})


def dots(figure, **look) -> set[tuple[float, float]]:
    """Where marks of that look are."""
    lines = [one for axes in figure.figure.axes for one in axes.lines]
    return {
        tuple(at)
        for line in lines
        if all(getattr(line, f"get_{name}")() == value for name, value in look.items())
        for at in line.get_xydata().tolist()
        if not np.isnan(at[0])
    }


def words(figure) -> list[Text]:
    return [one for one in figure.figure.findobj(Text) if one.get_text() and one.get_visible()]


def assert_legible(figure) -> None:
    sheet = figure.figure
    renderer = FigureCanvasAgg(sheet).get_renderer()
    sheet.draw(renderer)
    width, height = sheet.bbox.width, sheet.bbox.height
    beyond = {  # labels of ticks beyond the ends of an axis exist and are not drawn
        label
        for axes in sheet.axes
        for label in axes.get_xticklabels()
        if not axes.get_xlim()[0] <= label.get_position()[0] <= axes.get_xlim()[1]
    }
    shown = [one for one in words(figure) if one not in beyond]
    boxes = [(one.get_text(), one.get_window_extent(renderer)) for one in shown]
    for text, box in boxes:
        inside = min(box.x0, box.y0) >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, f"{text!r} leaves the figure"
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        apart = a.x1 <= b.x0 + 1 or b.x1 <= a.x0 + 1 or a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1
        assert apart, f"{one!r} and {other!r} overlap"


def test_every_number_is_a_mark_in_its_row():
    figure = draw()
    assert dots(figure, marker="o", markersize=8) == {(0, 0), (-1.5, 1), (0.5, 3)}
    assert dots(figure, marker="D") == {(0, 0), (-2, 1), (-0.7, 2)}
    small = dots(figure, marker="o", markersize=4)
    assert {(x, int(y)) for x, y in small} == {
        (-0.1, 0), (0.1, 0), (-1.6, 1), (-1.4, 1), (0.5, 3)
    }  # fmt: skip
    assert dots(figure, marker="|") == {(-2.5, 1), (-0.5, 1)}
    assert not dots(draw(seeds=()), markersize=4)
    assert figure.text == "said"


def test_rows_without_words_say_so_and_the_reference_is_bold():
    figure = draw()
    written = {one.get_text(): one for one in words(figure)}
    assert [one.get_text() for one in words(figure)].count("not trained yet") == 1
    assert written["full"].get_fontweight() == "bold"
    assert written["less"].get_fontweight() != "bold"


def test_an_interval_too_wide_to_be_shown_is_cut_with_an_arrow():
    figure = draw(low=LOW * 400, high=HIGH * -400)
    (axes,) = figure.figure.axes
    left, right = axes.get_xlim()
    assert left < -2
    assert right - left < 20
    assert dots(figure, marker="<") == {(left, 1)}
    assert dots(figure, marker=">") == {(right, 1)}
    assert not dots(figure, marker="|")


def test_the_legend_names_what_is_there():
    def legend(figure) -> set[str]:
        return {one.get_text() for one in figure.figure.legends[0].get_texts()}

    assert legend(draw()) == {
        "ours: mean and 95 % interval", "one training", "the paper's (ImageNet)"
    }  # fmt: skip
    nothing = np.full(4, NAN)
    assert legend(draw(low=nothing, high=nothing, paper=nothing, seeds=())) == {"ours: mean"}
    assert legend(draw(ours=nothing, low=nothing, high=nothing, seeds=())) == {
        "the paper's (ImageNet)"
    }


@pytest.mark.parametrize("rows", [1, 4, 20])
def test_words_are_inside_and_apart(rows):
    names = ["without inner-region rearrangement"] * rows
    some = np.linspace(-2, 1, rows)
    verdicts = [(word, "a claim of some length: +0.44 [-0.15, +1.04]") for word in SIGNS]
    columns = {name: ["100.00"] * rows for name in ("top-1, %", "seeds", "params, M", "MMACs")}
    figure = differences(
        names, some, some - 1, some + 1, some, **LABELS, columns=columns, verdicts=verdicts
    )
    assert_legible(figure)
    names = ["without the gate, which sees the whole image, the shift gives more"] * rows
    marks = [list(SIGNS)[row % 4] for row in range(rows)]
    assert_legible(
        differences(names, some, some - 1, some + 1, some, **LABELS, columns={"verdict": marks})
    )


def test_verdicts_are_words_and_not_only_colours():
    assert len({sign for sign, _ in SIGNS.values()}) == len(SIGNS)
    figure = draw(verdicts=[(word, "claim") for word in SIGNS])
    texts = [one.get_text() for one in words(figure)]
    assert all(texts.count(word) == 1 for word in SIGNS)


# ------------------------------------------------------------------ diagnostics

QUESTIONS = ("-2", "-1", "+1", "+2", "border", "texture")


def test_bars_are_bounds_and_dots_trainings():
    bound = np.array([[50, 75, 100, 50, 100, 25], [50, 50, 50, 50, 50, 100.0]])
    accuracy = np.stack([bound - 1, bound + 1])
    accuracy[1, 1] = NAN  # a stage that was trained once
    figure = learnt(["a"], [["stage 0", "stage 1"]], QUESTIONS, [accuracy], [bound], "said")
    for stage, axes in enumerate(figure.figure.axes):
        heights = [bar.get_height() for bar in axes.patches]
        assert heights == bound[stage].tolist()
        middles = [bar.get_x() + bar.get_width() / 2 for bar in axes.patches]
        np.testing.assert_allclose(middles[:4], [-2, -1, 1, 2])
        assert min(np.diff(middles[3:])) >= 2  # words stand apart from distances
        seen = sorted(y for line in axes.lines for y in line.get_ydata() if not np.isnan(y))
        assert seen == sorted(accuracy[:, stage][~np.isnan(accuracy[:, stage])])
        assert axes.get_title(loc="left") == f"stage {stage}"
    assert_legible(figure)


def test_cells_stand_one_above_the_other_without_any_training():
    bound = np.full((4, 6), 100.0)
    stages = [[f"stage {i}: region 3, shift 2" for i in range(4)]] * 3
    names = ["default", "shift=0,0,0,0", "branches=height,width"]
    figure = learnt(names, stages, QUESTIONS, [np.empty((0, 4, 6))] * 3, [bound] * 3, "said")
    assert len(figure.figure.axes) == 12
    assert [axes.get_ylabel() for axes in figure.figure.axes[::4]] == names
    assert_legible(figure)
