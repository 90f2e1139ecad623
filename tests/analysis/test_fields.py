"""Several receptive fields in one table, one figure and one chart."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from _helpers import random_images, randomise
from torch import nn

import hirelab as hl
from hirelab._shared.errors import HirelabError
from hirelab.analysis.fields import FieldComparison, compare_fields, side_by_side
from hirelab.analysis.receptive_field import receptive_field


def small(seed: int = 2) -> nn.Module:
    sizes = {"depths": (2,), "dims": (16,), "region": 3, "shift": 1, "shift_cycle": 2}
    return randomise(hl.create("hire_mlp_atto", seed=0, num_classes=5, **sizes), seed)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return small()


@pytest.fixture(scope="module")
def fields(network):
    x = random_images(2)
    return {
        "one": receptive_field(network, x, "stages.0", "corner", "spatial"),
        "other": receptive_field(network, x, "stages.0", "corner", "height"),
    }


def test_several_fields_in_numbers(network):
    trained = small(seed=4)
    with torch.no_grad():
        for p in trained.parameters():
            p.mul_(1.3)
    fields = {
        "random": receptive_field(network, random_images(3), "stages.0", paths="spatial"),
        "trained": receptive_field(trained, random_images(3), "stages.0", paths="spatial"),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = compare_fields(fields)
    assert table.names == ["random", "trained"]
    for name, values, spread in zip(table.names, table.values, table.spread, strict=True):
        assert dict(zip(table.columns, values, strict=True)) == fields[name].numbers()
        for number, found in zip(table.columns, spread, strict=True):
            each = fields[name].by_image()[number]
            mean = sum(each) / 3
            assert found == pytest.approx((sum((each - mean) ** 2) / 2) ** 0.5, abs=1e-9)
    lines = repr(table).splitlines()
    assert len(lines) == 3
    assert all(column in lines[0] for column in table.columns)
    assert "random: half of the mass within" in table.plot().text
    # the curve at half of the image's side is the share in that square
    field = fields["random"]
    inside = field.curve[field.sides <= 32 + 1e-9][-1]
    assert table.curves[0][100] == pytest.approx(inside)


def test_comparing_what_does_not_compare_warns(network):
    base = receptive_field(network, random_images(1), "stages.0")
    with pytest.warns(UserWarning, match="differ in input size .64 x 64, 96 x 96"):
        compare_fields(
            {"a": base, "b": receptive_field(network, random_images(1, 3, 96), "stages.0")}
        )
    other = receptive_field(network, random_images(1), "stages.0", gradient="square")
    with pytest.warns(UserWarning, match=r"differ in gradient \(abs, square"):
        table = compare_fields({"a": base, "b": other})
    assert np.isnan(table.spread).all()  # of a single image
    assert "\u00b1" not in repr(table)
    with pytest.raises(ValueError, match="got no field"):
        compare_fields({})


def test_a_table_of_chosen_columns(fields, tmp_path):
    comparison = compare_fields(fields)
    lines = comparison.table("wrapped share", "99% side").splitlines()
    assert lines[0].split() == ["wrapped", "share", "99%", "side"]  # in the order asked for
    for line, field in zip(lines[1:], fields.values(), strict=True):
        assert f"{field.wrapped_share:.3g} \u00b1" in line
        assert f"{field.side(0.99)[0]:.3g} \u00b1" in line
    assert comparison.table() == repr(comparison)
    with pytest.raises(HirelabError, match=r"Did you mean .*'99% side'"):
        comparison.table("99 side")
    comparison.save(tmp_path / "fields.npz")
    assert repr(FieldComparison.load(tmp_path / "fields.npz")) == repr(comparison)


def test_side_by_side_says_and_refuses(network, fields):
    still = side_by_side(fields)
    assert still.data.startswith(b"\x89PNG")
    for name, field in fields.items():
        assert f"{name}: half of the mass within {field.half_mass_side:g} px" in still.text
    whole = np.ones((64, 64), bool)
    assert side_by_side(fields, {"one": whole}).data != still.data
    with pytest.raises(HirelabError, match="got no field"):
        side_by_side({})
    with pytest.raises(HirelabError, match="Did you mean 'one'"):
        side_by_side(fields, {"on": whole})
    with pytest.raises(HirelabError, match="take both for one input size"):
        side_by_side(fields, {"one": whole[:32]})
    larger = receptive_field(network, random_images(1, 3, 96), "stages.0")
    with pytest.raises(HirelabError, match="input size or gradient"):
        side_by_side({**fields, "larger": larger})


def test_untrained_weights_are_noted_in_every_figure(fields):
    x = random_images(1)
    fresh = receptive_field(hl.create("hire_mlp_atto", seed=0), x, "stages.0")
    assert fresh.trained is False
    assert "untrained weights" in fresh.plot().text
    assert "untrained" not in fields["one"].plot().text
    noted, plain = (
        side_by_side({"fresh": one}).data
        for one in (fresh, dataclasses.replace(fresh, trained=True))
    )
    assert noted != plain
    assert compare_fields({"fresh": fresh, **fields}).trained == [False, True, True]
