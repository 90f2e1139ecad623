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
    drawn = field._bordered(dark, mask, fold=4)
    assert drawn.shape == (36, 36, 3)
    white = (drawn == 255).all(axis=2)
    assert set(np.unique(drawn)) == {0, 255}
    expected = np.zeros((36, 36), bool)
    expected[8:28, 12:32] = True
    expected[10:26, 14:30] = False  # half a pixel of four dots inside the mask's edge
    assert (white == expected).all()
