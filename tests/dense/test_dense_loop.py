"""Training detectors and segmenters: it learns, goes on to the bit, and protects its folder."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import hirelab as hl
from hirelab._shared.errors import HirelabError
from hirelab.datasets.boxes import Box, BoxedImages, open_boxes
from hirelab.datasets.label_maps import open_label_maps
from hirelab.dense.data import DenseSampler, DetectionImages, PixelImages, fitted_sizes
from hirelab.dense.evaluation import Detections, PixelEvaluation
from hirelab.dense.loop import evaluate_dense, train_dense
from hirelab.dense.recipes import DENSE_PRESETS, DenseRecipe
from hirelab.training.recipes import changed
from hirelab.training.runs import read_history

QUICK = dataclasses.replace(
    DENSE_PRESETS["small"], epochs=2, batch_size=8, warmup_steps=4, sides=(64,), max_side=86,
    crop=64, evaluate_every=5, lr=1e-3, proposals=40, samples=16,
)  # fmt: skip
KINDS = ["fpn", "retinanet"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Scenes are made once, in a folder of this test's."""
    patch = pytest.MonkeyPatch()
    patch.setenv("HIRELAB_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def run(kind, out, **changes):
    say = changes.pop("on_epoch", lambda row: None)
    return train_dense(
        kind, "hire_mlp_atto", "scenes", QUICK, out, pretrained=False, on_epoch=say, **changes
    )


@pytest.fixture(scope="module", params=KINDS)
def finished(request, tmp_path_factory):
    return request.param, run(request.param, tmp_path_factory.mktemp("run") / "whole")


def test_a_run_leaves_what_it_says(finished):
    kind, whole = finished
    assert whole.done
    assert {p.name for p in whole.out.iterdir()} >= {
        "run.json", "history.jsonl", "checkpoint.pt", "model.safetensors", "evaluation.npz"
    }  # fmt: skip
    rows = read_history(whole.out).rows
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["loss"] < rows[0]["loss"]
    assert any(name.startswith("val_") for name in rows[-1])
    result = PixelEvaluation if kind == "fpn" else Detections
    again = result.load(whole.out / "evaluation.npz")
    assert str(again) == str(whole.evaluation)


def test_a_stopped_run_goes_on_to_the_same_bits(finished, tmp_path):
    kind, whole = finished
    first = run(kind, tmp_path / "cut", stop_after=5)
    assert not first.done
    assert first.evaluation is None
    second = run(kind, tmp_path / "cut", stop_after=9)
    assert not second.done
    last = run(kind, tmp_path / "cut")
    assert last.done
    files = [(out / "model.safetensors").read_bytes() for out in (whole.out, tmp_path / "cut")]
    assert files[0] == files[1]
    losses = [[row["loss"] for row in r.history.rows] for r in (whole, last)]
    assert losses[0] == losses[1]


def test_the_file_gives_the_network_that_was_evaluated(finished):
    kind, whole = finished
    model = hl.load_dense(whole.out)
    weights = hl.load_dense(whole.out / "model.safetensors").state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    from hirelab.dense.evaluation import evaluate_detector, evaluate_segmenter

    if kind == "fpn":
        again = evaluate_segmenter(model, open_label_maps("scenes", "val"))
        assert np.array_equal(again.confusion, whole.evaluation.confusion)
    else:
        again = evaluate_detector(model, open_boxes("scenes", "val"))
        assert again.box == pytest.approx(whole.evaluation.box, nan_ok=True)


def test_a_folder_belongs_to_its_run(finished, tmp_path):
    kind, whole = finished
    with pytest.raises(HirelabError, match=r"holds another run .*seed"):
        run(kind, whole.out, seed=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(HirelabError, match="something else"):
        run(kind, tmp_path / "mine")
    json.loads((whole.out / "run.json").read_text())


def test_what_a_kill_left_half_written_is_no_other_run(finished, tmp_path):
    kind, whole = finished
    (tmp_path / ".run.json.abcd_123.part").write_text('{"asked"')
    assert not run(kind, tmp_path, stop_after=1).done
    (whole.out / ".checkpoint.pt.abcd_123.part").write_text("half")
    assert run(kind, whole.out).done
    for folder in (tmp_path, whole.out):
        assert not list(folder.glob(".*"))


def test_what_is_wrong_leaves_no_folder(tmp_path):
    with pytest.raises(HirelabError, match="fpn"):
        run("fpm", tmp_path / "a")
    with pytest.raises(HirelabError, match="Did you mean"):
        train_dense("fpn", "hire_mlp_ato", "scenes", QUICK, tmp_path / "a", pretrained=False)
    with pytest.raises(HirelabError, match="scene"):
        train_dense("fpn", "hire_mlp_atto", "scene", QUICK, tmp_path / "a", pretrained=False)
    assert not (tmp_path / "a").exists()


# ------------------------------------------------------------------ order and augmentation


def test_batches_hold_one_group_and_every_image_at_most_once():
    groups = np.random.default_rng(0).integers(0, 2, 50)
    sampler = DenseSampler(groups, 4, seed=3)
    for epoch in (0, 1):
        sampler.epoch = epoch
        batches = sampler.batches()
        assert len(batches) == len(sampler) == sum(n // 4 for n in np.bincount(groups))
        indices = [[index for _, _, index in batch] for batch in batches]
        assert all(len({groups[i] for i in batch}) == 1 for batch in indices)
        flat = [index for batch in indices for index in batch]
        assert len(set(flat)) == len(flat)
        assert sorted(place for batch in batches for _, place, _ in batch) == list(range(len(flat)))
    sampler.epoch = 0
    assert sampler.batches() != batches


def test_processes_share_the_batches_of_one():
    whole = DenseSampler([0] * 20, 4, seed=0)
    shares = [list(DenseSampler([0] * 20, 4, seed=0, rank=r, world=2)) for r in range(2)]
    for batch, one, other in zip(whole, *shares, strict=True):
        assert sorted(one + other) == sorted(batch)


def test_a_mirrored_image_takes_its_boxes_and_masks_along():
    """Boxes are where the masks are, mirrored or not; and both happen."""
    images = open_boxes("scenes", "train")
    found = DetectionImages(images, dataclasses.replace(QUICK, jitter=0.0), seed=0)
    plain = DetectionImages(images, dataclasses.replace(QUICK, jitter=0.0, flip=False), seed=0)
    mirrored = 0
    for place in range(12):
        x, target = found[0, place, place]
        original, before = plain[0, place, place]
        turned = torch.equal(x, original.flip(-1))
        assert turned or torch.equal(x, original)
        mirrored += turned
        assert torch.equal(target["labels"], before["labels"])
        for box, mask in zip(target["boxes"], target["masks"], strict=True):
            rows, columns = torch.nonzero(mask, as_tuple=True)
            edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == [int(edge) for edge in edges]
    assert 0 < mirrored < 12


def test_crops_and_labels_stay_together_and_the_rest_has_no_label():
    """Shapes are coloured and the ground is grey, so that labels can be read off the image."""
    recipe = dataclasses.replace(QUICK, jitter=0.0, crop=160, scale=(1.0, 1.0))
    images = PixelImages(open_label_maps("scenes", "train"), recipe, seed=0)
    from hirelab.datasets.transforms import pixels

    for place in range(6):
        x, y = images[0, place, place]
        assert x.shape == (3, 160, 160)
        assert (y[96:] == 255).all()
        assert (y[:, 128:] == 255).all()
        assert not x[:, 96:].any()
        colors = pixels(x[None])[0][:96, :128].astype(int)
        colored = colors.max(-1) - colors.min(-1) > 20
        assert np.array_equal(colored, y[:96, :128].numpy() > 0)


def test_the_same_key_gives_the_same_bytes():
    images = PixelImages(open_label_maps("scenes", "train"), QUICK, seed=0)
    first, again, other = images[1, 5, 7], images[1, 5, 7], images[2, 5, 7]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_rates_are_the_schedules():
    step = DenseRecipe(lr=1.0, warmup_steps=0)
    assert [step.lr_at(s, 12) for s in (0, 7, 8, 10, 11)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    poly = DenseRecipe(lr=1.0, schedule="poly", power=0.9, warmup_steps=0)
    assert poly.lr_at(0, 10) == 1
    assert poly.lr_at(5, 10) == pytest.approx(0.5**0.9)
    warm = DenseRecipe(lr=1.0, warmup_steps=4, schedule="poly")
    rates = [warm.lr_at(s, 1000) for s in range(6)]
    assert rates[0] == pytest.approx(0.2)
    assert rates == [*sorted(rates[:5]), rates[5]]
    with pytest.raises(HirelabError, match="milestones is"):
        DenseRecipe(milestones=(1.5,))


def boxed(size, *sides):
    """Images of a size with square boxes of these sides, as `open_boxes` gives them."""
    objects = tuple(Box((0, 0, side, side), 0, None, False, side**2) for side in sides)
    rest = {"source": Path(), "split": "train", "classes": ("thing",), "category_ids": (1,)}
    rest |= {"ids": (1,), "names": ("a",), "notes": {}, "fingerprint": "", "_files": None}
    return BoxedImages(sizes=(size,), objects=(objects,), **rest)


@pytest.mark.parametrize(
    ("size", "sides", "preset", "expected"),
    [
        ((640, 480), (16, 40, 200), "1x", ([800], 32)),  # COCO's own
        ((128, 96), (14, 20, 40), "1x", ([192], 32)),  # not enlarged to 800
        ((640, 480), (24, 48, 120), "small", ([160], 16)),  # boxes of 8 pixels and more
        ((640, 480), (4, 5, 6), "small", ([160], 8)),  # there is a limit
        ((640, 480), (), "small", ([160], 32)),
    ],
)
def test_sizes_and_anchors_follow_the_data(size, sides, preset, expected):
    assert fitted_sizes(boxed(size, *sides), DENSE_PRESETS[preset]) == expected


def test_a_run_has_the_anchors_of_its_data(finished):
    kind, whole = finished
    config = json.loads((whole.out / "run.json").read_text())["asked"]["network"]
    if kind == "retinanet":  # scenes at 64 pixels: a tenth of the boxes is below 9 pixels
        anchors = hl.detector(kind, "hire_mlp_atto", 3, anchor_scale=config["anchor_scale"])
        smallest = anchors.net.anchor_generator.sizes[0][0]
        assert smallest == fitted_sizes(open_boxes("scenes", "train"), QUICK)[1] == 16


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("sides=96", {"sides": (96,)}),
        ("sides=96,128", {"sides": (96, 128)}),
        ("scale=1,2", {"scale": (1.0, 2.0)}),
        ("sides=wide", r"sides is 'wide' and must be of type int, or several .*sides=160"),
        ("scale=2", "scale is .*two, above 0"),
        ("scale=2,1", "scale is .*the smaller first"),
    ],
)
def test_settings_of_several_values_on_the_command_line(change, expected):
    if isinstance(expected, str):
        with pytest.raises(HirelabError, match=expected):
            changed(DENSE_PRESETS, "small", [change])
        return
    recipe, _ = changed(DENSE_PRESETS, "small", [change])
    assert recipe == dataclasses.replace(DENSE_PRESETS["small"], **expected)


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_and_evaluate(kind, tmp_path):
    """accelerate launch, two processes on gloo: each takes its share of a batch and of the images
    to evaluate, and what they say together is what one process says of the same network."""
    task = "segmentation" if kind == "fpn" else "detection"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    launch += ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    launch += ["--dynamo_backend", "no", "--main_process_port", "0", "-m", "hirelab.cli"]
    launch += ["dense", "train", "--task", task, "--head", kind, "--data", "scenes"]
    launch += ["--model", "hire_mlp_atto", "--untrained", "--out", str(tmp_path / "two")]
    small = ["epochs=1", "batch_size=8", "sides=64", "max_side=86", "crop=64", "warmup_steps=4"]
    launch += ["--set", *small]
    # the flag means "several processes here"; the variable, that they run on CPUs
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(launch, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == 2
    (row,) = read_history(tmp_path / "two").rows
    assert row["step"] == 96 // 8
    alone = evaluate_dense(tmp_path / "two")
    if kind == "fpn":
        together = PixelEvaluation.load(tmp_path / "two" / "evaluation.npz")
        assert np.array_equal(together.confusion, alone.confusion)
    else:
        together = Detections.load(tmp_path / "two" / "evaluation.npz")
        assert together.box == pytest.approx(alone.box, nan_ok=True)
    assert together.images == alone.images == 24


def test_a_folder_without_weights_says_what_goes_on_with_it(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    for ask in (hl.load_dense, evaluate_dense):
        with pytest.raises(HirelabError, match="holds no finished run of `hirelab dense train`"):
            ask(tmp_path)
