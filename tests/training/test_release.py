"""Releasing weights: whole or not at all, and a model card for any number of networks."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from _training import run
from safetensors.torch import load_file
from scipy.stats import binomtest

from hirelab._shared.errors import HirelabError
from hirelab.cli import main
from hirelab.models import pretrained
from hirelab.training import release
from hirelab.training.evaluation import Evaluation
from hirelab.training.runs import load_run, read_history, read_run


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> Path:
    """A folder of bundled weights of its own, with a card."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "README.md").write_text("before\n<!-- tables -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(pretrained, "FOLDER", folder)
    return folder


def test_a_finished_run_is_released_whole(straight, shelf):
    made = release.release(straight, "hire_mlp_atto.small", "notes")
    found = release.evaluation("hire_mlp_atto.small")
    assert made == pretrained.manifest("hire_mlp_atto.small")
    assert (made["top1"], made["notes"]) == (round(found.accuracy(1), 2), "notes")
    assert release.run_info("hire_mlp_atto.small") == read_run(straight)
    assert release.history("hire_mlp_atto.small").rows == read_history(straight).rows
    kept, whole = load_file(shelf / "hire_mlp_atto.small.safetensors"), load_run(straight)[0]
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(kept[key].to(value.dtype), value, atol=1e-3, rtol=1e-3)
    card = (shelf / "README.md").read_text()
    assert card == f"before\n<!-- tables -->\n{release.card_tables()}\n<!-- end -->\nafter\n"


def test_what_cannot_be_released_leaves_nothing(data, straight, shelf, tmp_path, monkeypatch):
    run(data, tmp_path / "open", stop_after=1)
    with pytest.raises(HirelabError, match="not finished"):
        release.release(tmp_path / "open", "hire_mlp_atto.small")
    with pytest.raises(HirelabError, match=r"trained hire_mlp_atto.*name it hire_mlp_atto\.TAG"):
        release.release(straight, "hire_mlp_pico.small")
    monkeypatch.setattr(release, "MOST_BYTES", 1000)
    with pytest.raises(HirelabError, match="MB are released"):
        release.release(straight, "hire_mlp_atto.small")
    assert [path.name for path in shelf.iterdir()] == ["README.md"]


def test_the_command_line_releases(straight, shelf, capsys):
    assert main(["release", str(straight), "hire_mlp_atto.small", "--notes", "by hand"]) == 0
    said = capsys.readouterr().out
    made = pretrained.manifest("hire_mlp_atto.small")
    assert made["notes"] == "by hand"
    assert f"top-1 {made['top1']} %" in said
    assert main(["release", str(straight / "nothing"), "hire_mlp_atto.small"]) == 2


# ------------------------------------------------------------------ the model card


def answers(right: list[bool], classes: int, fingerprint: str) -> Evaluation:
    """An evaluation that is right where it is said to be, and else off by one class."""
    labels = np.arange(len(right)) % classes
    said = np.where(right, labels, (labels + 1) % classes)
    probabilities = np.full((len(right), classes), 0.1 / (classes - 1), np.float32)
    probabilities[np.arange(len(right)), said] = 0.9
    return Evaluation([f"c{i}" for i in range(classes)], labels, probabilities, 32, fingerprint)


@pytest.fixture
def card(shelf):
    """The tables for these evaluations, by name."""

    def tables(**evaluations: Evaluation) -> str:
        for name, one in evaluations.items():
            one.save(shelf / f"{name}.evaluation.npz")
            (shelf / f"{name}.json").write_text(json.dumps({"name": name, "started": "2026-01-01"}))
        return release.card_tables(list(evaluations))

    return tables


def rows(text: str, first: str) -> list[list[str]]:
    """The cells of the table whose heading begins so, below its rule."""
    (found,) = (part for part in text.split("\n\n") if part.startswith(f"| {first}"))
    return [[c.strip() for c in line.strip("|").split("|")] for line in found.splitlines()[2:]]


def test_every_network_is_compared_with_the_first_that_answered_the_same_images(card):
    right = [True] * 40
    text = card(
        one=answers(right, 4, "x"),
        two=answers([False] * 7 + right[7:], 4, "x"),
        three=answers([True] * 38 + [False] * 2, 4, "x"),
        alone=answers(right[:24], 3, "y"),
    )
    for other, lost in (("two", 7), ("three", 2)):
        p = binomtest(0, lost).pvalue
        sentence = f"{lost} are right with one alone, 0 with {other} alone"
        assert sentence in text
        said = text.split(sentence)[1]
        assert f"probability {p:.2g} (McNemar" in said
        error = lost / 40
        for share in (0.4, 0.5):
            z = error / math.sqrt(share * error / 40)
            assert f"z = {z:.1f}, p = {math.erfc(z / math.sqrt(2)):.2g}" in said
        assert f"about {100 * math.sqrt(0.4 * error / 2 / 40):.2g} points" in said
    assert text.count("Image by image") == text.count("it does not compare their designs") == 2
    # "one" and "alone" are always right: there is no table of what they take for what
    assert "taken for" not in text
    shares = [row[:3] for row in rows(text, "weights")]
    assert shares[1] == ["two", "40", "82.50"]
    assert shares[3] == ["alone", "24", "100.00"]


def test_many_classes_are_summed_up_by_the_best_and_the_worst_five(card):
    few = answers([True] * 40, release.MOST_CLASSES, "few")
    right = [i % 200 >= 5 for i in range(400)]  # classes 0 to 4 are always taken for the next
    text = card(few=few, many=answers(right, 200, "many"))
    assert len(rows(text, "class ")) == release.MOST_CLASSES
    ends = rows(text, "best and worst 5 of 200 classes")
    assert [row[1] for row in ends] == ["100.0"] * 5 + ["0.0"] * 5
    assert {row[0] for row in ends[5:]} == {f"c{i}" for i in range(5)}
    wrong = {tuple(row) for row in rows(text.split("best and worst")[1], "taken for")}
    assert wrong == {(f"c{i} for c{i + 1}", "2") for i in range(5)}


def test_a_card_without_weights_is_empty(shelf):
    assert release.card_tables() == ""


def test_the_card_that_comes_with_the_weights_is_what_its_tables_are_now():
    card = (pretrained.FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"<!-- tables -->\n{release.card_tables()}\n<!-- end -->" in card
