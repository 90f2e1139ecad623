"""Fields from block to block: those that `receptive_field` and `provenance` give one by one."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

import hirelab as hl
from hirelab._shared.errors import HirelabError
from hirelab.analysis.growth import FieldGrowth, field_growth


@pytest.fixture(scope="module")
def model():
    return hl.create("hire_mlp_atto", seed=0)


@pytest.fixture(scope="module")
def growth(model):
    return field_growth(model, torch.rand(2, 3, 96, 96))


def test_every_block_is_there_in_order(model, growth):
    named = [name for name, _ in model.named_modules()]
    blocks = [n for n in named if n.count(".") == 3 and n.split(".")[2] == "blocks"]
    assert growth.points == blocks
    assert np.all(np.diff(growth.reachable) >= 0)


def test_nothing_comes_from_where_nothing_can(growth):
    assert (growth.outside == 0).all()
    assert 0 < growth.reachable[0] < growth.reachable[-1] <= 1


def test_mass_outside_would_be_seen(growth):
    wrong = FieldGrowth(
        growth.points,
        growth.maps,
        np.zeros_like(growth.possible),
        growth.centres,
        growth.half,
        growth.most,
    )
    assert wrong.outside == pytest.approx(growth.maps.sum((1, 2)))


def test_a_block_is_what_is_measured_alone(model):
    x = torch.rand(1, 3, 64, 64)
    found = field_growth(model, x, "shift off")
    at = found.points.index("stages.1.blocks.1")
    alone = hl.receptive_field(model, x, "stages.1.blocks.1", paths="shift off")
    assert (found.maps[at] == alone.map).all()
    assert (found.half[at], found.most[at]) == alone.side(0.5, 0.99)
    can = hl.provenance(model, alone.position, "stages.1.blocks.1", "shift off", 64).pixels
    assert (found.possible[at] == can).all()


def test_it_is_read_drawn_and_kept(growth, tmp_path):
    assert len(str(growth).splitlines()) == 1 + len(growth.points)
    assert growth.plot().text == repr(growth)
    growth.save(tmp_path / "a.npz")
    assert str(FieldGrowth.load(tmp_path / "a.npz")) == str(growth)


def test_what_has_no_index_maps_is_refused(model):
    with pytest.raises(HirelabError, match="no Hire-MLP"):
        field_growth(timm.create_model("resnet18"), torch.rand(1, 3, 64, 64))
    with pytest.raises(HirelabError, match="paths"):
        field_growth(model, torch.rand(1, 3, 64, 64), "full")
