"""Paired differences: on the same images, image by image."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from hirelab._shared.errors import HirelabError
from hirelab._shared.statistics import t_interval
from hirelab.analysis.fields import half_around_centroid
from hirelab.analysis.pairs import PairedDifferences, paired_differences
from hirelab.analysis.receptive_field import receptive_field


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = (nn.Conv2d(3, 6, 5, padding=2), nn.Tanh(), nn.Conv2d(6, 4, 5, padding=2), nn.Tanh())
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def fields():
    x = torch.rand(5, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    return [receptive_field(network(seed), x, "3", (9, 14)) for seed in range(2)]


def test_a_field_does_not_differ_from_itself(fields):
    same = paired_differences({"a": (fields[0], fields[0])}, "half-mass side", "99% side")
    assert (same.each == 0).all()
    assert (same.low == 0).all()
    assert (same.high == 0).all()


def test_differences_turn_round_with_the_pair(fields):
    one, other = fields
    found = paired_differences({"a": (one, other), "b": (other, one)}, "area under curve")
    assert found.each[0] == pytest.approx(-found.each[1])
    assert found.low[0] == pytest.approx(-found.high[1])
    assert found.mean[0, 0] == pytest.approx(
        np.mean(one.by_image()["area under curve"] - other.by_image()["area under curve"])
    )


def test_an_interval_is_that_of_the_paired_t_test(fields):
    one, other = (f.by_image()["area under curve"] for f in fields)
    found = paired_differences({"a": tuple(fields)}, "area under curve")
    truth = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert (found.low[0, 0], found.high[0, 0]) == pytest.approx((truth.low, truth.high))


def test_a_mean_of_one_value_has_no_interval():
    assert np.isnan(t_interval([3.0])).all()
    low, high = t_interval([1.0, 2.0, 3.0])
    assert (low + high) / 2 == pytest.approx(2)
    assert t_interval([1.0, 2.0, 3.0], 0.5)[0] > low


def test_a_pair_is_read_drawn_and_kept(fields, tmp_path):
    found = paired_differences({"a": tuple(fields)}, "half-mass side", "99% side")
    assert "of 5" in str(found)
    assert found.plot().text.startswith("a: ")
    found.save(tmp_path / "a.npz")
    assert str(PairedDifferences.load(tmp_path / "a.npz")) == str(found)


def test_what_cannot_be_compared_is_refused(fields):
    one, other = fields
    fewer = dataclasses.replace(one, mass_within=one.mass_within[:3])
    single = dataclasses.replace(one, mass_within=one.mass_within[:1])
    for pairs, numbers, said in (
        ({}, ["99% side"], "at least one pair"),
        ({"a": (one, other)}, [], "at least one number"),
        ({"a": (one, other)}, ["99 side"], "99% side"),
        ({"a": (one, fewer)}, ["99% side"], "same images"),
        ({"a": (single, single)}, ["99% side"], "at least two"),
    ):
        with pytest.raises(HirelabError, match=said):
            paired_differences(pairs, *numbers)


# ------------------------------------------------------------------ squares around the centroid


def test_a_square_around_the_centroid_goes_with_the_map():
    values = np.zeros((40, 40))
    values[10:15, 20:25] = 1
    # 5 x 5 pixels: the middle 3 x 3 hold 9 of 25, all of them 25
    assert half_around_centroid(values) == 5
    for down, right in ((3, -7), (-9, 12)):
        assert half_around_centroid(np.roll(values, (down, right), (0, 1))) == 5


def test_around_the_centroid_brute_force():
    generator = np.random.default_rng(0)
    values = generator.random((9, 12)) ** 4
    total = values.sum()
    down = (values.sum(1) * (np.arange(9) + 0.5)).sum() / total
    right = (values.sum(0) * (np.arange(12) + 0.5)).sum() / total

    def inside(side: float) -> float:
        rows = (np.arange(9) >= down - side / 2 - 1e-5) & (
            np.arange(9) + 1 <= down + side / 2 + 1e-5
        )
        columns = (np.arange(12) >= right - side / 2 - 1e-5) & (
            np.arange(12) + 1 <= right + side / 2 + 1e-5
        )
        return values[np.ix_(rows, columns)].sum() / total

    side = half_around_centroid(values)
    assert inside(side) >= 0.5
    assert inside(side - 0.01) < 0.5


def test_a_map_without_mass_has_no_such_square():
    assert np.isnan(half_around_centroid(np.zeros((4, 4))))


def test_a_field_has_it_of_its_mean_map_and_of_every_image(fields):
    field = fields[0]
    assert field.numbers()["half-mass side, centroid"] == half_around_centroid(field.map)
    assert field.by_image()["half-mass side, centroid"].shape == (5,)
