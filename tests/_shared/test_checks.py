"""Arguments that mean the same everywhere are refused alike, in a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hirelab._shared.checks import (
    MOST_PIXELS,
    check_choice,
    check_img_size,
    check_position,
    check_whole,
)
from hirelab._shared.errors import HirelabError


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_whole_numbers_of_every_library_are_whole_numbers(value):
    found = check_whole("n", value, 1, 3)
    assert (found, type(found)) == (3, int)


@pytest.mark.parametrize("value", [True, 3.0, "3", None, [3], np.array([3, 4]), float("nan")])
def test_other_values_are_not(value):
    with pytest.raises(HirelabError, match=r"n is .*; give a whole number from 1 to 3\."):
        check_whole("n", value, 1, 3)


@pytest.mark.parametrize(
    ("low", "high", "span"),
    [(4, None, " of tokens of at least 4"), (None, 2, " of tokens of at most 2"), (4, 5, "4 to 5")],
)
def test_bounds_are_held_and_said(low, high, span):
    with pytest.raises(HirelabError, match=span):
        check_whole("n", 3, low, high, "tokens")


def test_sizes_are_pairs_or_one_side():
    assert check_img_size(64) == check_img_size((64, 64)) == (64, 64)
    assert check_img_size(np.array([48, 64])) == (48, 64)
    for wrong in (2, 64.0, "64", (64,), (1, 2, 3), (64, None), MOST_PIXELS + 1, None, True):
        with pytest.raises(HirelabError, match=r"img_size is .*from 3 to 8,192"):
            check_img_size(wrong)


def test_positions_lie_on_the_grid():
    assert check_position((3, np.int64(0)), (4, 2), "stages.0") == (3, 0)
    for wrong in ((4, 0), (0, 2), (-1, 0), (0,), 3, "ab", None, (0.0, 1)):
        with pytest.raises(HirelabError, match=r"stages\.0 has 4 x 2 tokens: .*\(3, 1\)"):
            check_position(wrong, (4, 2), "stages.0")


def test_choices_name_what_was_meant():
    check_choice("mode", "shift", ("shift", "none"))
    with pytest.raises(HirelabError, match=r"no mode 'shfit'. Did you mean 'shift'\? Choose one"):
        check_choice("mode", "shfit", ("shift", "none"))
    with pytest.raises(HirelabError, match="no mode None"):
        check_choice("mode", None, ("shift", "none"))
