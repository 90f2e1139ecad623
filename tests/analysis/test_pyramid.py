"""The grids of the stages, against the network as it runs."""

from __future__ import annotations

import pytest
import torch
from _helpers import check_kept

import hirelab as hl
from hirelab.analysis.pyramid import Pyramid, pyramid


@pytest.mark.parametrize("size", [(3, 3), (75, 101), (224, 224), (226, 97), (64, 350)])
def test_the_pyramid_is_that_of_the_running_network(size):
    model = hl.create("hire_mlp_atto", seed=0)
    found = pyramid(model, size)
    x = torch.rand(1, 3, *size)
    _, cache = model.run_with_cache(x, ["stages.*.blocks.0.hire.*.regions", "stages.*.out"])
    for i, dim in enumerate(found.dims):
        assert cache[f"stages.{i}.out"].shape == (1, dim, *found.grids[i])
        for axis, name in enumerate(("height", "width")):
            grid = cache[f"stages.{i}.blocks.0.hire.{name}.regions"]
            slots = grid.shape[2 + axis] * found.region[i, axis]
            assert slots == found.grids[i, axis] + found.padded[i, axis]
            assert grid.shape[1] == dim * found.region[i, axis]


def test_the_last_region_shows_what_stands_in_its_padding():
    said = repr(pyramid("hire_mlp_tiny", (300, 401))).splitlines()
    assert "7 of 3, last: 18 [0] [1]" in said[4]  # 19 rows: 18 is alone, the line begins again
    zero = pyramid(hl.create("hire_mlp_atto", device="meta", padding="zero"), 224)
    assert "last: 27 [zero] [zero]" in repr(zero)
    single = hl.create("hire_mlp_atto", device="meta", branches=("height", "channel"))
    found = pyramid(single, 224)
    assert not found.padded[:, 1].any()
    assert repr(found).count("no branch") == 4
    assert "no branch" in found.plot().text


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: pyramid("hire_mlp_atto", (64, 50)), Pyramid),
    ],
)
def test_results_are_kept_as_they_were(make, kind, tmp_path):
    made = make()
    assert isinstance(made, kind)
    check_kept(made, tmp_path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pyramid("hire_mlp_atto", (2, 64)), r"img_size is \(2, 64\); .* from 3 to 8,192"),
        (lambda: pyramid("hire_mlp_atto", (64, 64, 3)), r"give \(height, width\)"),
        (lambda: pyramid("hire_mlp_atto", 64.5), "64.5.*whole"),
    ],
)
def test_impossible_requests_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
