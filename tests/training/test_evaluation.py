"""Figures of an evaluation against loops that say what they mean, and what evaluate() leaves."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import hirelab as hl
from hirelab._shared.errors import HirelabError
from hirelab.datasets.cache import DecodedImages
from hirelab.datasets.subsets import LabelledImages
from hirelab.datasets.transforms import normalise
from hirelab.training.evaluation import Evaluation, evaluate


@pytest.fixture(scope="module")
def answers() -> Evaluation:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(200, 7))
    labels = rng.integers(0, 7, 200)
    scores[np.arange(200), labels] += 1.5
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return Evaluation(list("abcdefg"), labels, probabilities.astype(np.float32), 64, "data")


def test_top_k_counts_the_right_class_among_the_k_most_probable(answers):
    for k in range(1, 8):
        right = 0
        for row, label in zip(answers.probabilities, answers.labels, strict=True):
            right += label in sorted(range(7), key=lambda c: -row[c])[:k]
        assert answers.accuracy(k) == pytest.approx(100 * right / 200)
    assert answers.accuracy(7) == 100


def test_a_network_that_says_the_same_of_every_class_is_not_right_by_accident():
    flat = Evaluation(["a", "b"], np.array([0, 1]), np.full((2, 2), 0.5, np.float32), 64, "data")
    assert flat.by_class() == {"a": 100.0, "b": 0.0}
    assert flat.accuracy(1) == 50


def test_loss_confusion_and_classes(answers):
    own = [row[c] for row, c in zip(answers.probabilities, answers.labels, strict=True)]
    assert answers.loss == pytest.approx(-sum(math.log(p) for p in own) / 200, rel=1e-5)
    table = answers.confusion()
    assert table.sum() == 200
    for right, said in ((0, 0), (2, 5), (6, 1)):
        both = (answers.labels == right) & (answers.probabilities.argmax(1) == said)
        assert table[right, said] == both.sum()
    assert answers.accuracy(1) == pytest.approx(100 * np.trace(table) / 200)
    for i, (name, share) in enumerate(answers.by_class().items()):
        mine = answers.labels == i
        right = (answers.probabilities.argmax(1) == i) & mine
        assert (name, share) == ("abcdefg"[i], pytest.approx(100 * right.sum() / mine.sum()))


def test_calibration_error(answers):
    """Guo et al. 2017, eq. 3, bin by bin."""
    sure, right = answers.probabilities.max(1), answers.predicted == answers.labels
    error = 0.0
    for b in range(15):
        inside = (sure >= b / 15) & (sure < (b + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert answers.expected_calibration_error() == pytest.approx(100 * error, rel=1e-4)
    honest = np.array([[0.75, 0.25]] * 4, np.float32)
    said = Evaluation(["a", "b"], np.array([0, 0, 0, 1]), honest, 64, "data")
    assert said.expected_calibration_error() == pytest.approx(0, abs=1e-5)
    said = Evaluation(["a", "b"], np.array([1, 1, 1, 1]), honest, 64, "data")
    assert said.expected_calibration_error() == pytest.approx(75)


def test_it_is_kept_and_found_again(answers, tmp_path):
    answers.save(tmp_path / "e.npz")
    again = Evaluation.load(tmp_path / "e.npz")
    assert str(again) == str(answers)
    assert np.array_equal(again.probabilities, answers.probabilities)


def stored_images(count: int = 5, size: int = 40) -> DecodedImages:
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    labels = np.arange(count) % 3
    images = LabelledImages(Path(), "val", ("a", "b", "c"), ("x",) * count, labels, "f", None)
    return DecodedImages(images, pixels, labels, np.arange(count), {"y": "damaged"})


def test_evaluate_reads_the_middle_of_the_images_in_any_batches():
    sizes = {"depths": (1, 1), "dims": (8, 12), "region": 2, "shift": 1, "shift_cycle": 2}
    model = hl.create("hire_mlp_atto", seed=0, num_classes=3, **sizes)
    data = stored_images()
    found = evaluate(model, data, 32, batch_size=2)
    with torch.no_grad():
        expected = model(normalise(list(data.pixels[:, 4:36, 4:36]))).softmax(1).numpy()
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    assert (found.skipped, found.img_size, found.data_fingerprint) == (1, 32, "f")
    with pytest.raises(HirelabError, match="40 pixels wide and img_size is 48"):
        evaluate(model, data, 48)


def test_evaluate_gives_the_mode_back_also_after_an_error():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            assert not self.training
            raise RuntimeError("odd")

    model = Odd().train()
    with pytest.raises(RuntimeError, match="odd"):
        evaluate(model, stored_images(), 32)
    assert model.training
