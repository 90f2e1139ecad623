"""Several receptive fields together: the table of chosen columns, and the maps side by side."""

from __future__ import annotations

import numpy as np
import pytest
from _helpers import random_images, randomise
from torch import nn

import hirelab as hl
from hirelab.analysis.receptive_field import side_by_side


@pytest.fixture(scope="module")
def fields():
    """Of two points of one small network, two images of 64 x 64 pixels."""
    network = randomise(hl.create("hire_mlp_atto"))
    points = {"one": "stages.1", "other": "stages.2"}
    x = random_images()
    return {name: hl.receptive_field(network, x, point) for name, point in points.items()}


def test_comparison_prints_a_table_of_chosen_columns(fields):
    comparison = hl.compare_fields(fields)
    lines = comparison.table("half-mass side", "99% side").splitlines()
    assert lines[0].split() == ["half-mass", "side", "99%", "side"]
    reverse = comparison.table("99% side", "half-mass side").splitlines()
    assert reverse[0].split() == ["99%", "side", "half-mass", "side"]  # in the order asked for
    for line, field in zip(lines[1:], fields.values(), strict=True):
        assert f"{field.half_mass_side:.3g} ±" in line
        assert f"{field.side(0.99)[0]:.3g} ±" in line
    assert comparison.table() == repr(comparison)
    with pytest.raises(ValueError, match="99% side"):
        comparison.table("99 side")


def test_side_by_side_names_every_field_and_draws_a_border(fields):
    figure = side_by_side(fields)
    assert figure.data.startswith(b"\x89PNG")
    for name, field in fields.items():
        assert f"{name}: half of the mass within {field.half_mass_side:g} px" in figure.text
    whole = np.ones((64, 64), bool)
    assert side_by_side(fields, {"one": whole}).data != figure.data


def test_side_by_side_refuses_what_shares_no_scale(fields):
    whole = np.ones((64, 64), bool)
    with pytest.raises(ValueError, match="got no field"):
        side_by_side({})
    with pytest.raises(ValueError, match="one"):
        side_by_side(fields, {"on": whole})
    with pytest.raises(ValueError, match="take both for one input size"):
        side_by_side(fields, {"one": whole[:32]})
    smaller = random_images(height=32)
    other = hl.receptive_field(nn.Sequential(nn.AdaptiveAvgPool2d(1)), smaller, "0")
    with pytest.raises(ValueError, match="input size or reduction"):
        side_by_side({**fields, "small": other})
