"""A branch is a strided convolution on a ring: equal for every setting, by the same numbers."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from _helpers import random_images, randomise

import hirelab as hl
from hirelab.models.hire_mlp import AxisBranch
from hirelab.rearrange import CROSS_REGIONS, PADDINGS

DIM = 6
AXES_AND_REGIONS = [(axis, region) for axis in ("height", "width") for region in (1, 3, 4)]
SIZES = ((7, 5), (12, 12), (1, 3), (2, 9))  # regions fit or not, or are longer than the line


def make(axis="height", region=3, shift=1, padding="circular", cross="shift", restore=True, fc=2):
    branch = AxisBranch(DIM, axis, region, shift, padding, cross, restore, fc)
    return randomise(branch).double().eval()


def every_setting():
    others = itertools.product((0, -2, 5), PADDINGS, CROSS_REGIONS, (True, False))
    for (axis, region), other in itertools.product(AXES_AND_REGIONS, others):
        yield axis, region, *other


@pytest.mark.parametrize("fc", [1, 2, 3])
def test_it_is_the_branch_for_every_setting(fc):
    made = {(axis, region): make(axis, region, fc=fc) for axis, region in AXES_AND_REGIONS}
    for axis, region, shift, padding, cross, restore in every_setting():
        branch = made[axis, region]  # what has no weights is set on it
        branch.shift, branch.padding = shift, padding
        branch.cross_region, branch.restore = cross, restore
        strided = hl.strided_branch(branch)
        height, width = SIZES[(region + shift + fc) % len(SIZES)]
        x = random_images(2, DIM, height, width, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(strided(x), branch(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("fc", [1, 2, 3])
@pytest.mark.parametrize("axis", ["height", "width"])
def test_gradients_reach_the_branchs_own_weights(axis, fc):
    branch = make(axis, fc=fc)
    x = random_images(2, DIM, 7, 8, dtype=torch.float64)
    found = []
    for module in (branch, hl.strided_branch(branch)):
        branch.zero_grad()
        (module(x) ** 3).sum().backward()
        found.append({name: p.grad.clone() for name, p in branch.named_parameters()})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(found[1][name], gradient, msg=name)


def test_no_number_is_copied():
    branch = make(fc=3)
    strided = hl.strided_branch(branch)
    assert strided.reading.shape == (DIM // 2, DIM, 3, 1)
    assert strided.writing.shape == (DIM // 2, DIM, 3, 1)
    for view, layer in ((strided.reading, branch.mix.fc1), (strided.writing, branch.mix.fc3)):
        storage = layer.weight.untyped_storage()
        assert view.untyped_storage().data_ptr() == storage.data_ptr()
        assert view.numel() == layer.weight.numel()
    assert dict(strided.named_parameters()).keys() == {
        f"branch.{name}" for name, _ in branch.named_parameters()
    }
    x = random_images(1, DIM, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        branch.mix.fc1.weight[:, 4] += 1  # token 1 of channel 1
        assert (strided.reading[:, 1, 1, 0] == branch.mix.fc1.weight[:, 4, 0, 0]).all()
        torch.testing.assert_close(strided(x), branch(x))
    branch.shift, branch.padding = 2, "zero"  # what is set on the branch holds here too
    with torch.no_grad():
        torch.testing.assert_close(strided(x), branch(x))


@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_on_a_ring_it_is_pytorchs_own_convolution(shift):
    """Against Conv2d and ConvTranspose2d of PyTorch on a line that was closed by hand: the tokens
    that a ring of ``size`` shows from ``-shift`` on."""
    size, region = 12, 3
    branch = make("height", region, shift)
    x = random_images(2, DIM, size, 5, dtype=torch.float64)
    ring = F.pad(x, (0, 0, size, size), mode="circular")[:, :, size - shift : 2 * size - shift]
    down = torch.nn.Conv2d(DIM, DIM // 2, (region, 1), (region, 1), bias=False).double()
    up = torch.nn.ConvTranspose2d(DIM // 2, DIM, (region, 1), (region, 1)).double()
    fc1, fc2 = branch.mix.fc1, branch.mix.fc2
    with torch.no_grad():
        fc2.bias.copy_(fc2.bias.view(DIM, region)[:, :1].expand(-1, region).reshape(-1))
        for c, token in itertools.product(range(DIM), range(region)):
            down.weight[:, c, token, 0] = fc1.weight[:, c * region + token, 0, 0]
            up.weight[:, c, token, 0] = fc2.weight[c * region + token, :, 0, 0]
            up.bias[c] = fc2.bias[c * region]
        written = up(branch.mix.act1(branch.mix.norm1(down(ring))))
        whole = F.pad(written, (0, 0, size, size), mode="circular")
        torch.testing.assert_close(whole[:, :, size + shift : 2 * size + shift], branch(x))


def test_what_it_says_of_itself():
    text = repr(hl.strided_branch(make("width", region=4, shift=2)))
    assert "Conv2d(6, 3, kernel_size=(1, 4), stride=(1, 4))" in text
    assert "ConvTranspose2d(3, 6, kernel_size=(1, 4), stride=(1, 4))" in text
    assert "shift by 2 along the width, circular padding" in text
    assert "4 a region" in repr(hl.strided_branch(make(region=4, fc=1)))


def test_something_else_is_refused():
    with pytest.raises(hl.HirelabError, match=r"this is a Linear: give model\.stages"):
        hl.strided_branch(torch.nn.Linear(2, 2))
