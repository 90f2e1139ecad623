"""The training loop: what it promises about stopping, processes, batches and bad ends."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from _training import NETWORK, RECIPE, STEPS, run, same_weights, settings, untimed
from safetensors.torch import load_file

from hirelab._shared.errors import HirelabError
from hirelab.cli import main
from hirelab.training.evaluation import Evaluation
from hirelab.training.loop import train
from hirelab.training.trainer import Trainer

# ------------------------------------------------------------------ stopping and going on


@pytest.mark.parametrize("stops", [(1,), (STEPS,), (3, 2, STEPS + 1)], ids=str)
def test_a_stopped_run_ends_with_the_same_bits(data, straight, tmp_path, stops):
    for steps in stops:
        stopped = run(data, tmp_path / "run", stop_after=steps)
        assert not stopped.done
        assert not (tmp_path / "run" / "model.safetensors").exists()
    # also when other processes load the images
    assert run(data, tmp_path / "run", workers=2).done
    same_weights(straight, tmp_path / "run")
    assert untimed(straight) == untimed(tmp_path / "run")
    assert [row["step"] for row in untimed(straight)] == [STEPS, 2 * STEPS, 3 * STEPS]


def test_another_seed_gives_other_weights(data, straight, tmp_path):
    train("hire_mlp_atto", data, RECIPE, tmp_path / "run", model_arguments=NETWORK, seed=4)
    a, b = (load_file(out / "model.safetensors") for out in (straight, tmp_path / "run"))
    assert not torch.equal(a["stem.conv.weight"], b["stem.conv.weight"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_with_a_checkpoint(
    data, straight, tmp_path, monkeypatch, capsys, number
):
    step = Trainer.step

    def interrupted(self, *args):
        if self.progress.step == 5:
            signal.raise_signal(number)
        return step(self, *args)

    monkeypatch.setattr(Trainer, "step", interrupted)
    before = signal.getsignal(number)
    assert not run(data, tmp_path / "run").done
    assert signal.getsignal(number) is before
    assert "with a checkpoint" in capsys.readouterr().err
    monkeypatch.undo()
    assert run(data, tmp_path / "run").done
    assert "going on after step 6 of" in capsys.readouterr().out
    same_weights(straight, tmp_path / "run")


def test_killed_at_any_moment_it_goes_on(data, straight, tmp_path):
    """A real process and a real SIGKILL, as soon as there is a checkpoint."""
    command = [sys.executable, "-m", "hirelab.cli", "train", "--data", str(data), "--seed", "3"]
    command += ["--model", "hire_mlp_atto", "--preset", "quick", "--out", str(tmp_path / "run")]
    command += ["--save-minutes", "0", "--set", *settings(RECIPE)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 100
    while not (tmp_path / "run" / "checkpoint.pt").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    said = process.communicate()[0].decode()
    assert process.returncode == -signal.SIGKILL, said
    assert not (tmp_path / "run" / "model.safetensors").exists()
    (tmp_path / "run" / ".checkpoint.pt.half_one.part").write_bytes(b"what a kill may leave behind")
    assert run(data, tmp_path / "run").done
    same_weights(straight, tmp_path / "run")
    assert not list((tmp_path / "run").glob(".*"))


def test_a_finished_run_is_not_trained_again(data, straight, monkeypatch):
    before = (straight / "model.safetensors").read_bytes()
    monkeypatch.setattr(Trainer, "step", None)  # nothing may call it
    assert run(data, straight).done
    assert (straight / "model.safetensors").read_bytes() == before


# ------------------------------------------------------------------ bad ends


def test_a_loss_that_is_not_finite_stops_and_spoils_nothing(data, tmp_path):
    recipe = dataclasses.replace(RECIPE, lr=1e30, ema_decay=0.0)
    with pytest.raises(
        HirelabError, match=r"became (nan|inf) at step \d+ \(epoch 1\).*\.png.*Lower"
    ):
        run(data, tmp_path / "run", recipe, save_minutes=0)
    kept = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    again = dataclasses.replace(recipe, lr=0.01)
    with pytest.raises(HirelabError, match="another run"):
        run(data, tmp_path / "run", again)
    assert math.isfinite(kept["state"]["loss_sum"])


def test_a_full_disk_keeps_the_checkpoint_before(data, straight, tmp_path, monkeypatch):
    run(data, tmp_path / "run", stop_after=2)
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    save = torch.save

    def full(content, path):
        save(content, path)
        os.truncate(path, 100)  # what is on the disk when it is full
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(HirelabError, match=r"step 3 could not be written.*No space.*make room"):
        run(data, tmp_path / "run", stop_after=1)
    monkeypatch.undo()
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before
    assert run(data, tmp_path / "run").done
    same_weights(straight, tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"batch_size": 9}, "even number"),
        ({"batch_size": 64}, "36 training images do not fill a batch of 64"),
    ],
    ids=str,
)
def test_batches_that_cannot_be_made(data, tmp_path, change, match):
    with pytest.raises(HirelabError, match=match):
        run(data, tmp_path / "run", dataclasses.replace(RECIPE, **change))
    assert not (tmp_path / "run").exists()


def test_what_is_wrong_is_said_before_anything_is_decoded_or_written(
    data, straight, tmp_path, monkeypatch
):
    """So that the corrected command may use the same folder."""
    monkeypatch.setenv("HIRELAB_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "run"
    with pytest.raises(HirelabError, match=r"no network 'hire_mlp_pica'.*hire_mlp_pico"):
        train("hire_mlp_pica", data, RECIPE, out)
    with pytest.raises(HirelabError, match="regoin"):
        train("hire_mlp_atto", data, RECIPE, out, model_arguments={"regoin": 2})
    with pytest.raises(HirelabError, match=r"img_size 32, not 64"):
        run(data, straight, dataclasses.replace(RECIPE, img_size=64))
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ processes and batches


CLEAN = dataclasses.replace(
    RECIPE, mixup=0.0, cutmix=0.0, drop_path=0.0, ema_decay=0.0, lr=1e-3, epochs=2, smoothing=0.0
)


def test_two_processes_train_the_network_that_one_trains(data, tmp_path):
    """accelerate launch, two CPU processes on gloo: same batches, same BatchNorm, same answers.

    Weights before a BatchNorm may drift (its output does not depend on their sum), so answers are
    compared. The last part shows what the comparison would see if BatchNorm were not synchronised:
    statistics of half a batch.
    """
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    launch += [
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
    ]
    launch += ["--main_process_port", "0", "-m", "hirelab.cli", "train", "--data", str(data)]
    launch += ["--model", "hire_mlp_atto", "--preset", "quick", "--seed", "3"]
    launch += ["--out", str(tmp_path / "two"), "--set", *settings(CLEAN)]
    # the flag means "several processes here"; the variable, that they run on CPUs
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(launch, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == 2
    assert run(data, tmp_path / "one", CLEAN).done
    assert run(data, tmp_path / "halves", CLEAN, micro_batch=CLEAN.batch_size // 2).done
    one, two = (
        Evaluation.load(tmp_path / name / "evaluation.npz").probabilities for name in ("one", "two")
    )
    losses = {n: [r["loss"] for r in untimed(tmp_path / n)] for n in ("one", "two", "halves")}
    assert losses["two"] == pytest.approx(losses["one"], abs=1e-4)
    np.testing.assert_allclose(two, one, atol=1e-3)
    assert [r["step"] for r in untimed(tmp_path / "two")] == [STEPS, 2 * STEPS]
    assert losses["halves"] != pytest.approx(losses["one"], abs=1e-3)


def test_parts_add_up_to_the_batch(data, tmp_path):
    """On a network without BatchNorm, which alone sees the parts."""
    kwargs = {"model_arguments": {"img_size": 32}, "seed": 3}
    losses = []
    for size in (0, 3):
        out = tmp_path / str(size)
        train("test_vit", data, CLEAN, out, micro_batch=size, **kwargs)
        losses.append([row["loss"] for row in untimed(out)])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


# ------------------------------------------------------------------ what a run leaves


def test_the_averaged_weights_are_kept(straight):
    kept = torch.load(straight / "checkpoint.pt", weights_only=True)
    final = load_file(straight / "model.safetensors")
    key = "stages.0.blocks.0.mlp.fc1.weight"
    assert torch.equal(final[key], kept["average"][key])
    assert not torch.equal(final[key], kept["model"][key])


def test_tensorboard_holds_the_history(data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(data, tmp_path / "run", tensorboard=True)
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    for name in ("loss", "val_top1", "lr"):
        kept = [(e.step, e.value) for e in board.Scalars(name)]
        rows = [(row["step"], pytest.approx(row[name])) for row in untimed(tmp_path / "run")]
        assert kept == rows


def test_the_command_line_prints_what_the_run_kept(straight, data, capsys):
    assert main(["evaluate", str(straight), "--by-class"]) == 0
    said = capsys.readouterr().out
    kept = Evaluation.load(straight / "evaluation.npz")
    assert str(kept) in said
    for name, share in kept.by_class().items():
        assert f"{share:6.1f} %  {name}" in said
    assert main(["evaluate", str(straight / "nothing")]) == 2
    assert "no network" in capsys.readouterr().err


# ------------------------------------------------------------------ learning rate


def test_the_learning_rate_is_warmed_up_and_falls_as_a_cosine(data, tmp_path):
    recipe = dataclasses.replace(CLEAN, epochs=4, warmup_epochs=1, cooldown_epochs=1, lr=1e-2)
    run(data, tmp_path / "run", recipe)
    measured = [row["lr"] for row in untimed(tmp_path / "run")]

    def expected(step: int) -> float:  # Loshchilov & Hutter 2017, eq. 5, after a linear warm-up
        warm, total = STEPS, STEPS * 4
        if step < warm:
            return recipe.warmup_lr + (recipe.lr - recipe.warmup_lr) * step / warm
        turn = math.cos(math.pi * min(step / total, 1))
        return recipe.min_lr + (recipe.lr - recipe.min_lr) * (1 + turn) / 2

    assert measured == pytest.approx([expected(STEPS * epoch - 1) for epoch in range(1, 6)])
    assert measured[-1] == recipe.min_lr


# ------------------------------------------------------------------ shipping
