"""Receptive fields drawn: logarithmic colours, squares cut off at the image, borders of masks."""

from __future__ import annotations

import numpy as np
import pytest

from hirelab.viz import field


def test_logarithm_is_relative_to_the_largest_value_and_has_a_floor():
    values = np.array([[200.0, 20.0], [0.002, 0.0]])
    assert field.logarithm(values, decades=4) == pytest.approx(np.array([[0, -1], [-4, -4]]))
    assert (field.logarithm(np.zeros((2, 3)), decades=3) == -3).all()


def test_square_box_is_cut_off_at_the_image():
    image = (20, 30)  # rows, columns
    assert field.square_box((10, 12), 8, image) == (8, 6, 16, 14)
    assert field.square_box((2, 28), 8, image) == (24, 0, 30, 6)


def test_the_border_runs_round_the_mask_and_nowhere_else():
    mask = np.zeros((9, 9), bool)
    mask[2:7, 3:8] = True
    dark = np.zeros((9, 9, 3), np.uint8)
    drawn = field._bordered(dark, mask)
    fold = len(drawn) // 9
    assert drawn.shape == (9 * fold, 9 * fold, 3)
    white = (drawn == 255).all(axis=2)
    assert set(np.unique(drawn)) == {0, 255}
    expected = np.kron(mask, np.ones((fold, fold), bool))
    # a line of two dots inside the mask's edge, thin beside a pixel of so few
    expected[2 * fold + 2 : 7 * fold - 2, 3 * fold + 2 : 8 * fold - 2] = False
    assert fold > 10
    assert (white == expected).all()
