"""Networks trained side by side come to what they come to one after another."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hirelab._shared.errors import HirelabError
from hirelab.ablation.ablate import ablate
from hirelab.ablation.ledger import Ledger
from hirelab.ablation.lockstep import check_lockstep, work_in_lockstep
from hirelab.ablation.protocols import Protocol, protocol, settle
from hirelab.ablation.sweep import Training, plan, work_through
from hirelab.ablation.tables import DEFAULT, cell, peers
from hirelab.training.recipes import Recipe

CELLS = [DEFAULT, cell(cross_region="shuffle", padding="reflect"), peers("hire_mlp_atto").rows[2].cell]


@pytest.fixture(scope="module")
def chosen() -> Protocol:
    """Two epochs of 8 steps with everything that is random in one, and averaged weights."""
    small = protocol(
        "smoke", epochs=2, ema_decay=0.9, mixup_prob=0.7, drop_path=0.0, reprob=0.25)
    return small.look()


@pytest.fixture(scope="module")
def jobs(chosen) -> list[Training]:
    """Two seeds of three networks."""
    return [Training(one, seed, chosen) for seed in (0, 1) for one in CELLS]


@pytest.fixture(scope="module")
def side_by_side(jobs, chosen, tmp_path_factory):
    """The ledger of a sweep in lockstep, in two groups of which the second takes the lanes of the
    first, and the folder of weights."""
    folder = tmp_path_factory.mktemp("lockstep")
    settle(folder / "ledger", chosen)
    ledger = Ledger(folder / "ledger")
    assert work_in_lockstep(jobs, ledger, "lockstep:3", weights=folder / "weights")
    return ledger, folder / "weights"


@pytest.fixture(scope="module")
def one_by_one(jobs, chosen, tmp_path_factory):
    """The same, one training after another."""
    folder = tmp_path_factory.mktemp("loop")
    settle(folder / "ledger", chosen)
    ledger = Ledger(folder / "ledger")
    assert work_through(jobs, ledger, folder / "runs", keep=True)
    return ledger, folder / "runs"


def test_weights_are_those_of_the_loop(jobs, side_by_side, one_by_one):
    from safetensors.torch import load_file

    for job in jobs:
        ours = torch.load(side_by_side[1] / f"{job.key.name}.pt")
        theirs = load_file(one_by_one[1] / job.key.name / "model.safetensors")
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, atol=2e-4, rtol=2e-3, msg=f"{job.label} {name}")


def test_the_ledger_says_the_same(jobs, side_by_side, one_by_one):
    for job in jobs:
        ours, theirs = side_by_side[0].get(job.key), one_by_one[0].get(job.key)
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-3)
        assert (ours.images, ours.parameters, ours.macs) == (theirs.images, theirs.parameters, theirs.macs)
        assert ours.source == theirs.source and ours.about["command"] == theirs.about["command"]
        assert ours.about["lockstep"] == "3 networks"
