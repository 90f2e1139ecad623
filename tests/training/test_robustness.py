"""Networks on corrupted images: against images corrupted by hand, and what is kept."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch
from _helpers import check_kept
from _training import RECIPE, run
from PIL import Image

import hirelab as hl
from hirelab._shared.errors import HirelabError
from hirelab._shared.statistics import t_interval
from hirelab.datasets import normalise, square
from hirelab.datasets.corruptions import CORRUPTIONS, corrupt
from hirelab.models.pretrained import bundled, path_of
from hirelab.training.evaluation import Evaluation, evaluate_checkpoint
from hirelab.training.robustness import (
    CORRUPTED_SIZE,
    Robustness,
    measure_robustness,
    plot_corruptions,
    robustness_results,
)
from hirelab.training.runs import load_run


@pytest.fixture(scope="module")
def runs(data, straight, tmp_path_factory):
    """Two runs on the same images, at 32 and at 40 pixels a side."""
    other = tmp_path_factory.mktemp("runs") / "larger"
    run(data, other, dataclasses.replace(RECIPE, img_size=40, epochs=1))
    return [straight, other]


@pytest.fixture(scope="module")
def found(runs, tmp_path_factory) -> Robustness:
    return measure_robustness(runs, tmp_path_factory.mktemp("kept"), ("noise", "contrast"))


def test_clean_images_are_those_of_an_evaluation(found, runs):
    for name, own in zip(runs, found.clean, strict=True):
        # the cut at 160 pixels comes between, and 40 pixels enlarged and made smaller again blur
        assert 100 * own.mean() == pytest.approx(evaluate_checkpoint(name).accuracy(), abs=100 / 12)


def test_every_answer_is_that_to_the_image_corrupted_by_hand(found, runs, data):
    files = sorted((data / "val").glob("*/*.png"))
    for network, name in enumerate(runs):
        model, info = load_run(name)
        recipe = info.config.recipe
        for k, kind in enumerate(found.kinds):
            for strength in (1, 3):
                cut = []
                for seed, file in enumerate(files):
                    image = square(Image.open(file).convert("RGB"), CORRUPTED_SIZE)
                    image = square(corrupt(image, kind, strength, seed), recipe.stored_size)
                    edge = round((recipe.stored_size - recipe.img_size) / 2)
                    size = recipe.img_size
                    cut.append(image.crop((edge, edge, edge + size, edge + size)))
                with torch.no_grad():
                    answers = model(normalise(cut)).argmax(1).numpy()
                labels = [info.config.classes.index(file.parent.name) for file in files]
                assert (found.right[network, k, strength - 1] == (answers == labels)).all()


def test_what_is_there_is_not_computed_again(found, runs, tmp_path):
    first = measure_robustness(runs[:1], tmp_path, ("contrast",))
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(before) == 1 + 3
    both = measure_robustness(runs, tmp_path, ("contrast",))
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}.items() >= before.items()
    assert (both.right[:1] == first.right).all()
    assert (both.right == found.right[:, 1:]).all()


def test_a_part_of_the_images_has_the_answers_of_the_whole(found, runs, tmp_path):
    part = measure_robustness(runs, tmp_path, ("noise",), n=5)
    assert len(set(part.which)) == 5
    assert (part.clean == found.clean[:, part.which]).all()
    assert (part.right == found.right[:, :1, :, part.which]).all()
    assert (part.which == measure_robustness(runs, tmp_path, ("noise",), n=5).which).all()
    whole = measure_robustness(runs, tmp_path, ("noise",))  # 5 kept answers are not all of them
    assert (whole.right == found.right[:, :1]).all()


def test_figures_are_counts_of_right_images(found):
    assert found.accuracy.shape == (2, 2, 4)
    for row in found.records():
        network, kind = found.networks.index(row["network"]), found.kinds.index(row["kind"])
        right = found.right[network, kind, row["strength"] - 1]
        right = right if row["strength"] else found.clean[network]
        assert row["top1"] == pytest.approx(100 * right.sum() / len(right))
        assert row["low"] <= row["top1"] <= row["high"]


def test_other_images_and_kinds_are_refused(runs, tmp_path):
    for networks, kinds, said in (
        (runs, ("nois",), "noise"),
        ([], ("noise",), "at least one"),
        ([runs[0], runs[0]], ("noise",), "a name of its own"),
        ([runs[0], "hire_mlp_atto.imagenette"], ("noise",), "different images"),
    ):
        with pytest.raises(HirelabError, match=said):
            measure_robustness(networks, tmp_path, kinds)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ what is kept


@pytest.fixture(scope="module")
def kept() -> Robustness:
    return robustness_results()


def test_what_is_kept_agrees_with_what_the_weights_say_of_themselves(kept):
    trained = {name: made for name, made in bundled().items() if made["source"] == "imagenette"}
    assert sorted(kept.networks) == sorted(trained)
    for name, size, own in zip(kept.networks, kept.img_sizes, kept.clean, strict=True):
        made = trained[name]
        assert size == made["img_size"]
        released = Evaluation.load(path_of(name).with_suffix(".evaluation.npz"))
        right = (released.predicted == released.labels)[kept.which]
        # the networks are deployed: rounding may turn an answer that stands on edge
        assert (own != right).mean() <= 0.002
        assert kept.data_fingerprint == made["config"]["data_fingerprints"]["val"]


def test_what_is_kept_was_corrupted_as_the_code_does_it(kept):
    assert dict(zip(kept.kinds, kept.parameters, strict=True)) == {
        kind: str(one) for kind, one in CORRUPTIONS.items()
    }
    assert kept.corrupted_size == CORRUPTED_SIZE
    assert (np.diff(kept.accuracy[..., 1:], axis=2) < 0).all()  # stronger is worse


def test_a_comparison_is_paired_over_the_images(kept):
    one, other = kept.networks[:2]
    found = kept.compare(one, other)
    share = kept.accuracy
    assert found.clean == pytest.approx(share[0, 0, 0] - share[1, 0, 0])
    for k in range(len(kept.kinds)):
        apart = share[0, k, 1:].mean() - share[1, k, 1:].mean()
        assert found.mean[:, k] == pytest.approx([apart, apart - found.clean])
        each = 100 * (kept.right[0, k].mean(0) - kept.right[1, k].mean(0))
        ends = t_interval(each)  # as good as the bootstrap for so many images
        assert (found.low[0, k], found.high[0, k]) == pytest.approx(ends, abs=0.1)
    assert found.mean[0, -1] == pytest.approx(found.mean[0, :-1].mean())
    back = kept.compare(other, one)
    assert back.mean == pytest.approx(-found.mean)
    assert len(found.records()) == len(found.kinds)
    with pytest.raises(HirelabError, match="resnet18"):
        kept.compare(one, "resnet18")


def test_an_image_is_shown_in_every_kind_and_strength():
    figure = plot_corruptions("cat", 40)
    for kind, one in CORRUPTIONS.items():
        assert f"{kind}: {one.parameter} " in figure.text
    assert Image.open(io.BytesIO(figure.data)).width > 1000


def test_results_are_drawn_and_kept(found, kept, tmp_path):
    check_kept(found, tmp_path)
    check_kept(kept.compare(*kept.networks[:2]), tmp_path)
    assert hl.robustness_results().plot().text == str(kept)
