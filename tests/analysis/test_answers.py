"""First answers: those of the softmax in its order, called as the network calls them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import hirelab as hl
from hirelab._shared.errors import HirelabError
from hirelab.analysis.answers import FirstAnswers, first_answers


@pytest.fixture(scope="module")
def model():
    return hl.create("hire_mlp_pico", pretrained=True)


@pytest.fixture(scope="module")
def x():
    return hl.samples(2, img_size=64)[0]


def test_they_are_the_largest_of_the_softmax_in_order(model, x):
    model.train()
    found = first_answers(model, x, k=10, names=["a", "b"])
    assert model.training  # as it was; it answered in evaluation mode all the same
    model.eval()
    with torch.no_grad():
        logits = model(x).double().numpy()
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_array_equal(found.classes, np.argsort(-shares, axis=1))
    np.testing.assert_allclose(found.probabilities, -np.sort(-shares, axis=1), atol=1e-5)
    names = model.pretrained_cfg["label_names"]
    assert found.words == [[names[c] for c in row] for row in found.classes]
    assert found.rank("b", names[found.classes[1, 2]]) == 3
    assert found.rank("b", "cat") is None


def test_they_print_a_line_an_image_and_are_rows_of_a_table(model, x, tmp_path):
    found = first_answers(model, x, k=2)
    first = f"0  {found.words[0][0]} {found.probabilities[0, 0]:.0%}"
    assert str(found).splitlines()[0].startswith(first)
    assert len(str(found).splitlines()) == len(x)
    rows = found.records()
    assert [(row["image"], row["rank"]) for row in rows] == [("0", 1), ("0", 2), ("1", 1), ("1", 2)]
    assert rows[3]["probability"] == pytest.approx(found.probabilities[1, 1])
    found.save(tmp_path / "answers.npz")
    assert str(FirstAnswers.load(tmp_path / "answers.npz")) == str(found)


def test_more_answers_than_classes_and_names_for_other_images_are_refused(model, x):
    with pytest.raises(HirelabError, match="k is 11"):
        first_answers(model, x, k=11)
    with pytest.raises(HirelabError, match="names has 1 entries; give one for each of 2 images"):
        first_answers(model, x, names=["a"])
