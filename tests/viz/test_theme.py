"""Colours that can be read and told apart, by numbers."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from skimage.color import rgb2lab

from hirelab.viz import theme


def linear(color: str) -> np.ndarray:
    """sRGB to amounts of light (IEC 61966-2-1)."""
    value = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2."""
    lights = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


# Full dichromacy on linear RGB, from Machado, Oliveira and Fernandes: A physiologically-based
# model for simulation of color vision deficiency, IEEE TVCG 15(6), 2009, severity 1.0.
VISION = {
    "trichromacy": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}


def apart(one: str, other: str, vision: str) -> float:
    """How different two colours look: CIE 1976 distance, of which about 2.3 can just be seen."""
    lab = []
    for color in (one, other):
        light = np.clip(VISION[vision] @ linear(color), 0, 1)
        value = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        lab.append(rgb2lab(value.reshape(1, 1, 3)).ravel())
    return float(np.linalg.norm(lab[0] - lab[1]))


def test_the_measures_know_black_and_white():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert apart("#ff0000", "#ff0000", "trichromacy") == 0
    # a red and a green that only colour-blind readers take for each other
    assert apart("#d06060", "#8f8f5f", "trichromacy") > 45
    assert apart("#d06060", "#8f8f5f", "deuteranopia") < 12


@pytest.mark.parametrize("name", ["INK", "MUTED", "REACHED", "PADDING"])
def test_text_can_be_read_on_paper(name):
    assert contrast(getattr(theme, name), theme.PAPER) >= 4.5


def test_the_contrast_in_the_comment_is_true():
    source = Path(theme.__file__).read_text(encoding="utf-8")
    said = re.search(r"([\d.]+) : 1 on white", source).group(1)
    assert float(said) == round(contrast(theme.MUTED, theme.PAPER), 1)


def test_numbers_on_the_greys_of_slots_can_be_read():
    for color in theme.SLOTS:
        assert max(contrast(color, theme.INK), contrast(color, theme.PAPER)) >= 4.5
    for one, other in itertools.pairwise((*theme.SLOTS, theme.SLOTS[0])):
        assert apart(one, other, "trichromacy") > 12


@pytest.mark.parametrize("vision", VISION)
def test_neighbouring_regions_differ_for_everyone(vision):
    for one, other in itertools.pairwise((*theme.CYCLE, theme.CYCLE[0])):
        assert apart(one, other, vision) > 12, (one, other)
    for color in theme.CYCLE:
        assert apart(color, theme.PAPER, vision) > 12, color


@pytest.mark.parametrize("vision", VISION)
def test_what_has_a_meaning_differs_for_everyone(vision):
    for one, other in itertools.combinations(theme.BRANCH.values(), 2):
        assert apart(one, other, vision) > 30
    for one, other in itertools.combinations((theme.FOCUS, theme.REACHED, theme.UNREACHED), 2):
        assert apart(one, other, vision) > 30


def test_the_colours_are_okabe_and_itos():
    published = {
        (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
        (204, 121, 167),
    }  # fmt: skip
    assert {theme.rgb(color) for color in theme.CYCLE} == published
    assert len(set(theme.ALL)) == len(theme.ALL)


def test_region_colours_go_round():
    assert [theme.region_color(i) for i in range(15)] == [
        *theme.CYCLE,
        *theme.CYCLE,
        theme.CYCLE[0],
    ]


def test_the_sequential_map_goes_from_dark_to_light():
    table = theme.color_table()
    assert table.shape == (256, 3)
    assert table.dtype == np.uint8
    lightness = rgb2lab(table[None] / 255)[0, :, 0]
    assert (np.diff(lightness) > -0.5).all()  # up to rounding to 8 bits
    assert lightness[-1] - lightness[0] > 60


def test_type_can_be_read_at_half_size():
    assert min(theme.SMALL, theme.TEXT, theme.TITLE) / 2 >= 8
    assert theme.font(18) is theme.font(18)
    assert theme.font(18, bold=True).getlength("region") > theme.font(18).getlength("region")
