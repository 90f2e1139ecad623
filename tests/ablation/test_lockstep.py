"""Networks trained side by side come to what they come to one after another."""

from __future__ import annotations

import dataclasses
import time
from contextlib import ExitStack

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader

from hirelab._shared.errors import HirelabError
from hirelab.ablation import lockstep
from hirelab.ablation.ablate import ablate
from hirelab.ablation.diagnostics import diagnostic_runs
from hirelab.ablation.ledger import Ledger
from hirelab.ablation.lockstep import check_lockstep, work_in_lockstep
from hirelab.ablation.protocols import Protocol, protocol, settle
from hirelab.ablation.sweep import Training, work_through
from hirelab.ablation.tables import DEFAULT, cell, peers
from hirelab.datasets.cache import decode
from hirelab.datasets.subsets import open_images
from hirelab.training.data import AugmentedDataset, EpochSampler, collate
from hirelab.training.evaluation import evaluate
from hirelab.training.trainer import Trainer

CELLS = [
    DEFAULT,
    cell(cross_region="shuffle", padding="reflect"),
    peers("hire_mlp_atto").rows[2].cell,
]


@pytest.fixture(scope="module")
def chosen() -> Protocol:
    """Two epochs with everything that is random in one, and averaged weights."""
    changes = {"epochs": 2, "ema_decay": 0.9, "mixup_prob": 0.7, "drop_path": 0.0, "reprob": 0.25}
    return protocol("smoke", **changes).look()


@pytest.fixture(scope="module")
def jobs(chosen) -> list[Training]:
    """Three networks with a seed, and the first with another."""
    return [*(Training(one, 0, chosen) for one in CELLS), Training(DEFAULT, 1, chosen)]


@pytest.fixture(scope="module")
def side_by_side(jobs, chosen, tmp_path_factory):
    """The ledger of a sweep in two groups, of which the second takes the lanes of the first, and
    the loss of every step of every training."""
    folder = tmp_path_factory.mktemp("lockstep")
    settle(folder, chosen)
    losses: dict[str, Tensor] = {}
    made = []

    def entry(self, lane, job, *more):
        losses[job.key.name] = lane.losses.clone()
        return whole(self, lane, job, *more)

    class Counted(lockstep.Lane):
        def __init__(self, *args):
            made.append(self)
            super().__init__(*args)

    whole = lockstep._Pen._entry
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lockstep._Pen, "_entry", entry)
        patched.setattr(lockstep, "Lane", Counted)
        assert work_in_lockstep(jobs, Ledger(folder), "lockstep:3", weights=folder / "weights")
    assert len(made) == len(CELLS)
    return Ledger(folder), losses, folder / "weights"


@pytest.fixture(scope="module")
def one_by_one(jobs, chosen, tmp_path_factory):
    """The ledger of the same sweep, one training after another, and its losses."""
    folder = tmp_path_factory.mktemp("loop")
    settle(folder / "ledger", chosen)
    ledger = Ledger(folder / "ledger")
    losses: dict[str, list[float]] = {}
    whole = Trainer.step
    key = ""

    def step(self, *args):
        mean, asked = whole(self, *args)
        losses[key].append(mean)
        return mean, asked

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Trainer, "step", step)
        for job in jobs:
            key = job.key.name
            losses[key] = []
            assert work_through([job], ledger, folder / "runs")
    return ledger, {name: torch.tensor(values) for name, values in losses.items()}


def test_every_loss_is_that_of_the_loop(jobs, side_by_side, one_by_one):
    """Of weights and their average nothing else is asked: a bias before a BatchNorm has no gradient
    but rounding, and AdamW makes steps of that."""
    for job in jobs:
        ours, theirs = side_by_side[1][job.key.name], one_by_one[1][job.key.name]
        assert len(ours) == len(theirs) > 8
        torch.testing.assert_close(ours, theirs, atol=5e-4, rtol=0)
        torch.testing.assert_close(ours[:3], theirs[:3], atol=2e-5, rtol=0)


def test_the_ledger_says_the_same(jobs, side_by_side, one_by_one):
    for job in jobs:
        ours, theirs = side_by_side[0].get(job.key), one_by_one[0].get(job.key)
        assert ours.loss == pytest.approx(theirs.loss, abs=1e-3)  # of the averaged weights
        sizes = ("images", "parameters", "macs", "source")
        assert all(getattr(ours, name) == getattr(theirs, name) for name in sizes)
        assert ours.about["command"] == theirs.about["command"]
        assert ours.about["lockstep"] == ("1 network" if job.seed else "3 networks")


def test_kept_weights_are_those_that_the_entry_is_of(jobs, chosen, side_by_side):
    ledger, _, weights = side_by_side
    labels = open_images(chosen.data, "train").classes
    images = decode(open_images(chosen.data, "val", labels), chosen.recipe.stored_size)
    for job in jobs[:3]:
        network = lockstep._network(job)
        network.load_state_dict(load_file(weights / f"{job.key.name}.safetensors"))
        found = evaluate(network, images, chosen.recipe.img_size, 16, progress=False)
        assert found.loss == pytest.approx(ledger.get(job.key).loss, abs=1e-5)


def test_seeds_and_networks_differ(side_by_side):
    losses = torch.stack(list(side_by_side[1].values()))
    assert len(losses.unique(dim=0)) == len(losses)


def test_what_is_in_the_ledger_is_not_done_again(jobs, side_by_side, monkeypatch):
    monkeypatch.setattr(lockstep, "_Pen", None)  # would be needed to train
    assert work_in_lockstep(jobs, side_by_side[0])


def test_a_stop_keeps_the_groups_that_are_done(jobs, chosen, tmp_path, monkeypatch, side_by_side):
    settle(tmp_path, chosen)
    ledger = Ledger(tmp_path)
    train, groups = lockstep._Pen.train, []

    def stopped_in_the_second(self, group, stopped):
        groups.append(group)
        return train(self, group, stopped if len(groups) == 1 else lambda: True)

    monkeypatch.setattr(lockstep._Pen, "train", stopped_in_the_second)
    two = [jobs[0], jobs[3]]
    assert not work_in_lockstep(two, ledger, "lockstep:1")
    assert ledger.get(two[1].key) is None
    assert not ledger.leased()
    monkeypatch.undo()
    assert work_in_lockstep(two, ledger, "lockstep:1")
    for job in two:
        assert ledger.get(job.key).loss == pytest.approx(
            side_by_side[0].get(job.key).loss, abs=1e-3
        )


def test_no_group_is_begun_after_the_deadline(jobs, chosen, tmp_path):
    settle(tmp_path, chosen)
    assert not work_in_lockstep(jobs, Ledger(tmp_path), deadline=time.monotonic() - 1)
    assert not Ledger(tmp_path).read()[0]


def test_a_training_that_another_process_has_is_left_to_it(jobs, chosen, tmp_path, monkeypatch):
    settle(tmp_path, chosen)
    ledger = Ledger(tmp_path)

    def give_back(seconds):  # it waits for what the other has
        assert ledger.get(jobs[0].key) is None
        assert ledger.get(jobs[1].key) is not None
        stack.close()

    monkeypatch.setattr(lockstep.time, "sleep", give_back)
    with ExitStack() as stack:
        assert stack.enter_context(ledger.lease(jobs[0].key))
        assert work_in_lockstep(jobs[:2], Ledger(tmp_path), "lockstep:2")
    assert ledger.get(jobs[0].key) is not None


def test_a_loss_that_is_not_finite_fails_its_training_alone(jobs, chosen, tmp_path, monkeypatch):
    settle(tmp_path, chosen)
    ledger = Ledger(tmp_path)
    gradients = Trainer.gradients

    def broken(self, x, y):
        loss = gradients(self, x, y)
        kinds = {type(module).__name__ for module in self.network.modules()}
        return loss * float("nan") if "ConvNeXt" in kinds else loss

    monkeypatch.setattr(Trainer, "gradients", broken)
    assert work_in_lockstep(jobs[:3], ledger)
    assert work_in_lockstep(jobs[:3], ledger, retry=True)  # once more, and not for ever
    found = [ledger.get(job.key) for job in jobs[:3]]
    assert [entry.status for entry in found] == ["done", "done", "failed"]
    assert found[2].reason == "the loss became nan at step 1"


def test_the_feed_gives_the_batches_of_the_loop(chosen):
    """Of two seeds at once, over both epochs, each the bytes that `Trainer.prepare` makes."""
    job = Training(DEFAULT, 0, chosen)
    pen = lockstep._Pen(job, 2)
    feed, recipe = pen.feed, chosen.recipe
    feed.begin([4, 7])
    for epoch in (0, 1):
        for step in range(feed.steps):
            feed.fill(epoch, step)
        for seed in (4, 7):
            trainer = pen._trainer(dataclasses.replace(job, seed=seed))
            sampler = EpochSampler(len(pen.train_set), recipe, seed)
            sampler.epoch = epoch
            loader = DataLoader(
                AugmentedDataset(pen.train_set, recipe, seed),
                batch_sampler=sampler,
                collate_fn=collate,
            )
            for step, (x, y) in enumerate(loader):
                x, y = trainer.prepare(x, y, epoch * feed.steps + step)
                place = feed.place(seed, epoch) + step
                assert torch.equal(feed.x[place], x)
                assert torch.equal(feed.y[place], y)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"drop_path": 0.1}, "drop_path is 0.1 and must be 0.0"),
        ({"start_img_size": 32, "img_size": 64}, "start_img_size is 32 and must be 64"),
        ({"precision": "bf16", "ema_decay": 0.0}, "precision is 'bf16'.*; ema_decay is 0"),
    ],
)
def test_a_recipe_that_cannot_be_captured_is_refused(chosen, changes, named):
    with pytest.raises(HirelabError, match=named):
        check_lockstep(dataclasses.replace(chosen.recipe, **changes))


def test_diagnostics_and_odd_numbers_are_refused(jobs, tmp_path):
    with pytest.raises(HirelabError, match="Only trainings run in lockstep"):
        work_in_lockstep(list(diagnostic_runs([DEFAULT], range(1))), Ledger(tmp_path))
    for on in ("lockstep:0", "lockstep:many", "lockstep:-3", "lockstep:", "locksteps"):
        with pytest.raises(HirelabError, match=f"{on!r}; give lockstep or lockstep:N"):
            work_in_lockstep(jobs, Ledger(tmp_path), on)


def test_without_a_gpu_it_says_so(chosen, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(HirelabError, match="Lockstep wants a GPU and PyTorch sees none"):
        ablate(["components"], chosen, tmp_path / "a", tmp_path / "b", on="lockstep:4")
    assert not (tmp_path / "a").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")
def test_a_graph_repeats_to_the_bit(jobs, chosen, tmp_path):
    losses = []
    for name in "ab":
        settle(tmp_path / name, chosen)
        assert work_in_lockstep(jobs, Ledger(tmp_path / name), "lockstep:6")
        losses.append([Ledger(tmp_path / name).get(job.key).loss for job in jobs])
    assert losses[0] == losses[1]
