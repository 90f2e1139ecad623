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
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hirelab._shared.errors import HirelabError
from hirelab.cli import main
from hirelab.datasets.cache import decode
from hirelab.datasets.subsets import open_images
from hirelab.models import weights
from hirelab.training import loop as training
from hirelab.training.evaluation import Evaluation
from hirelab.training.loop import _Augmented, _Order, train
from hirelab.training.recipes import PRESETS, Recipe, preset
from hirelab.training.runs import history, load_run

NETWORK = {"depths": (1, 1), "dims": (8, 12), "region": 2, "shift": 1, "shift_cycle": 1}
RECIPE = dataclasses.replace(
    PRESETS["quick"], epochs=3, warmup_epochs=0, batch=8, size=32, lr=0.01, mixup=0.2, cutmix=1.0
)
STEPS = 4  # an epoch: 36 images, batches of 8


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HIRELAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Generated images of three classes that differ in their hue."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for channel, name in enumerate(("blue", "green", "red")):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 160, (40, 40, 3), dtype=np.uint8)
                pixels[..., channel] += 60
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    return folder


def run(data: Path, out: Path, recipe: Recipe = RECIPE, **kwargs):
    return train("hire_mlp_atto", data, recipe, out, model_arguments=NETWORK, seed=3, **kwargs)


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory) -> Path:
    """A run that nothing stopped."""
    out = tmp_path_factory.mktemp("runs") / "straight"
    assert run(data, out).done
    return out


def same_weights(a: Path, b: Path) -> None:
    first, second = (load_file(out / "model.safetensors") for out in (a, b))
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def untimed(out: Path) -> list[dict]:
    clocks = ("images_per_second", "seconds")
    return [{k: v for k, v in row.items() if k not in clocks} for row in history(out).rows]


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
    step = training._Trainer.step

    def interrupted(self, *args):
        if self.progress.step == 5:
            signal.raise_signal(number)
        return step(self, *args)

    monkeypatch.setattr(training._Trainer, "step", interrupted)
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
    settings = [f"{k}={v}" for k, v in dataclasses.asdict(RECIPE).items() if v != ""]
    settings += [f"model.{k}={v}" for k, v in NETWORK.items()]
    command = [sys.executable, "-m", "hirelab.cli", "train", "--data", str(data), "--seed", "3"]
    command += ["--model", "hire_mlp_atto", "--preset", "quick", "--out", str(tmp_path / "run")]
    command += ["--save-minutes", "0", "--set", *settings]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 100
    while not (tmp_path / "run" / "checkpoint.pt").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    said = process.communicate()[0].decode()
    assert process.returncode == -signal.SIGKILL, said
    assert not (tmp_path / "run" / "model.safetensors").exists()
    (tmp_path / "run" / ".checkpoint.pt.half").write_bytes(b"what a kill may leave behind")
    assert run(data, tmp_path / "run").done
    same_weights(straight, tmp_path / "run")
    assert not list((tmp_path / "run").glob(".*"))


def test_a_finished_run_is_not_trained_again(data, straight, monkeypatch):
    before = (straight / "model.safetensors").read_bytes()
    monkeypatch.setattr(training._Trainer, "step", None)  # nothing may call it
    assert run(data, straight).done
    assert (straight / "model.safetensors").read_bytes() == before


def test_a_folder_belongs_to_one_run(data, straight, tmp_path):
    with pytest.raises(HirelabError, match=r"holds another run \(lr 0\.01, not 0\.02\)"):
        run(data, straight, dataclasses.replace(RECIPE, lr=0.02))
    with pytest.raises(HirelabError, match=r"seed 3, not 5"):
        train("hire_mlp_atto", data, RECIPE, straight, model_arguments=NETWORK, seed=5)
    (tmp_path / "letter.txt").write_text("not a run")
    with pytest.raises(HirelabError, match="files of something else"):
        run(data, tmp_path)
    with pytest.raises(HirelabError, match="is a file"):
        run(data, tmp_path / "letter.txt")
    assert (tmp_path / "letter.txt").read_text() == "not a run"


# ------------------------------------------------------------------ bad ends


def test_a_loss_that_is_not_finite_stops_and_spoils_nothing(data, tmp_path):
    recipe = dataclasses.replace(RECIPE, lr=1e30, ema=0.0)
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
        ({"batch": 9}, "even number"),
        ({"batch": 64}, "36 training images do not fill a batch of 64"),
    ],
    ids=str,
)
def test_batches_that_cannot_be_made(data, tmp_path, change, match):
    with pytest.raises(HirelabError, match=match):
        run(data, tmp_path / "run", dataclasses.replace(RECIPE, **change))
    assert not (tmp_path / "run").exists()


def test_networks_that_cannot_be_built(data, tmp_path):
    with pytest.raises(HirelabError, match=r"no network 'hire_mlp_pica'.*hire_mlp_pico"):
        train("hire_mlp_pica", data, RECIPE, tmp_path / "a")
    with pytest.raises(HirelabError, match="regoin"):
        train("hire_mlp_atto", data, RECIPE, tmp_path / "b", model_arguments={"regoin": 2})


# ------------------------------------------------------------------ processes and batches


def test_the_shares_of_processes_are_the_batch():
    recipe = dataclasses.replace(RECIPE, batch=12, repeats=3)
    whole = list(_Order(40, recipe, seed=1))
    shares = [list(_Order(40, recipe, 1, rank, 3)) for rank in range(3)]
    assert len(whole) == 3
    for step, batch in enumerate(whole):
        assert sorted(key for share in shares for key in share[step]) == sorted(batch)
        assert {len(share[step]) for share in shares} == {4}
    # repeated augmentation: the three copies of an image fall to three processes
    for share in shares:
        indices = [index for batch in share for _, _, index in batch]
        assert len(set(indices)) == len(indices)


def test_an_epoch_shows_each_image_once_in_a_new_order():
    order = _Order(36, RECIPE, seed=1)
    epochs = []
    for order.epoch in range(2):
        keys = [key for batch in order for key in batch]
        assert len({index for _, _, index in keys}) == len(keys) == STEPS * RECIPE.batch
        epochs.append([index for _, _, index in keys])
        for step, batch in enumerate(order):
            assert order.batch(step) == batch
    assert epochs[0] != epochs[1]


def test_an_augmented_image_follows_from_its_place_alone(data):
    squares = decode(open_images(data, "train"), RECIPE.stored_size, progress=False)
    images = _Augmented(squares, RECIPE, seed=1)
    first, label = images[0, 5, 7]
    torch.manual_seed(99)
    np.random.seed(99)
    _ = images[0, 6, 8]
    again, _ = images[0, 5, 7]
    assert torch.equal(first, again)
    assert label == squares.labels[7]
    for other in ((0, 6, 7), (1, 5, 7)):
        assert not torch.equal(first, images[other][0])
    assert not torch.equal(first, _Augmented(squares, RECIPE, seed=2)[0, 5, 7][0])


CLEAN = dataclasses.replace(
    RECIPE, mixup=0.0, cutmix=0.0, drop_path=0.0, ema=0.0, lr=1e-3, epochs=2, smoothing=0.0
)


def test_two_processes_train_the_network_that_one_trains(data, tmp_path):
    """accelerate launch, two CPU processes on gloo: same batches, same BatchNorm, same answers.

    Weights before a BatchNorm may drift (its output does not depend on their sum), so answers are
    compared. The last part shows what the comparison would see if BatchNorm were not synchronised:
    statistics of half a batch.
    """
    settings = [f"{k}={v}" for k, v in dataclasses.asdict(CLEAN).items() if v != ""]
    settings += [f"model.{k}={v}" for k, v in NETWORK.items()]
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
    launch += ["--out", str(tmp_path / "two"), "--set", *settings]
    # the flag means "several processes here"; the variable, that they run on CPUs
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(launch, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == 2
    assert run(data, tmp_path / "one", CLEAN).done
    assert run(data, tmp_path / "halves", CLEAN, part=CLEAN.batch // 2).done
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
    for part in (0, 3):
        out = tmp_path / str(part)
        train("test_vit", data, CLEAN, out, part=part, **kwargs)
        losses.append([row["loss"] for row in untimed(out)])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


# ------------------------------------------------------------------ what a run leaves


def test_the_averaged_weights_are_kept(straight):
    kept = torch.load(straight / "checkpoint.pt", weights_only=True)
    final = load_file(straight / "model.safetensors")
    key = "stages.0.blocks.0.mlp.fc1.weight"
    assert torch.equal(final[key], kept["average"][key])
    assert not torch.equal(final[key], kept["model"][key])


def test_a_run_tells_what_it_was(straight, data):
    facts = json.loads((straight / "run.json").read_text())
    assert facts["asked"]["classes"] == ["blue", "green", "red"]
    assert facts["asked"]["images"] == {"train": 36, "val": 12}
    assert facts["asked"]["data"]["train"] == open_images(data, "train").fingerprint
    assert Recipe(**facts["asked"]["recipe"]) == RECIPE
    network, _ = load_run(straight)
    assert not network.training
    assert len(network.stages) == 2


def test_curves_say_how_the_run_ended(straight):
    rows = history(straight).rows
    text = str(history(straight).plot())
    assert f"loss {rows[-1]['loss']:.2f}" in text
    assert f"top-1 {rows[-1]['val_top1']:.1f} %" in text
    with Image.open(straight / "curves.png") as image:
        assert image.width > image.height > 100


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


# ------------------------------------------------------------------ recipes


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


def test_images_grow_from_the_first_size_to_the_last():
    recipe = PRESETS["subset"]
    sizes = [recipe.size_at(epoch) for epoch in range(recipe.epochs)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (recipe.start_size, recipe.size)
    assert all(size % 32 == 0 for size in sizes)
    constant = dataclasses.replace(recipe, start_size=0, size=100)
    assert {constant.size_at(epoch) for epoch in range(constant.epochs)} <= {96, 100}


def test_presets_say_how_they_differ_from_the_papers():
    for name, recipe in PRESETS.items():
        changed = {key: mine for key, (_, mine) in recipe.differences().items()}
        assert dataclasses.replace(PRESETS["imagenet"], **changed) == recipe, name
    assert not PRESETS["imagenet"].differences()


def test_settings_on_the_command_line():
    recipe, network = preset("quick", ["epochs=7", "lr=1", "augment=", "model.cross_region=none"])
    assert (recipe.epochs, recipe.lr, recipe.augment) == (7, 1.0, "")
    assert network == {"cross_region": "none"}
    for change, match in (
        ("epoch=7", "no setting 'epoch'.*'epochs'"),
        ("epochs=many", "epochs is 'many' and must be a int"),
        ("epochs", "NAME=VALUE, not 'epochs'"),
        ("epochs=0", "epochs is 0 and must be at least 1"),
        ("precision=half", "precision is 'half'"),
    ):
        with pytest.raises(HirelabError, match=match):
            preset("quick", [change])
    with pytest.raises(HirelabError, match=r"no preset 'quik'.*'quick'"):
        preset("quik")


# ------------------------------------------------------------------ shipping


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> Path:
    """A folder of shipped weights of its own, with a card."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "README.md").write_text("before\n<!-- tables -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(weights, "FOLDER", folder)
    return folder


def test_a_finished_run_is_shipped_whole(straight, shelf):
    made = weights.ship(straight, "hire_mlp_atto.small", "notes")
    judged = weights.evaluation("hire_mlp_atto.small")
    assert made == weights.manifest("hire_mlp_atto.small")
    assert (made["top1"], made["notes"]) == (round(judged.top(1), 2), "notes")
    assert weights.history("hire_mlp_atto.small").rows == history(straight).rows
    kept, whole = load_file(shelf / "hire_mlp_atto.small.safetensors"), load_run(straight)[0]
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(kept[key].to(value.dtype), value, atol=1e-3, rtol=1e-3)
    card = (shelf / "README.md").read_text()
    assert card == f"before\n<!-- tables -->\n{weights.card_tables()}\n<!-- end -->\nafter\n"


def test_what_cannot_be_shipped_leaves_nothing(data, straight, shelf, tmp_path, monkeypatch):
    run(data, tmp_path / "open", stop_after=1)
    with pytest.raises(HirelabError, match="not finished"):
        weights.ship(tmp_path / "open", "hire_mlp_atto.small")
    with pytest.raises(HirelabError, match=r"trained hire_mlp_atto.*name it hire_mlp_atto\.TAG"):
        weights.ship(straight, "hire_mlp_pico.small")
    monkeypatch.setattr(weights, "MOST_BYTES", 1000)
    with pytest.raises(HirelabError, match="MB are shipped"):
        weights.ship(straight, "hire_mlp_atto.small")
    assert [path.name for path in shelf.iterdir()] == ["README.md"]
