"""Runs beside each other, against runs whose figures are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from _helpers import check_kept
from scipy import stats

import hirelab as hl
from hirelab._shared.errors import HirelabError
from hirelab.dense.evaluation import PixelEvaluation
from hirelab.dense.report import DenseResults
from hirelab.training.runs import EVALUATION, HISTORY, RUN

CLASSES = ["sky", "road"]
VALUES = {(True, 0): 60.0, (True, 1): 64.0, (False, 0): 50.0, (False, 1): 52.0}


def write(folder, pretrained, seed, miou, data="d", kind="fpn", done=True):
    """A run as `train_dense` leaves it; its sky is 20 points better than its road."""
    folder.mkdir(parents=True)
    asked = {
        "task": "segmentation",
        "network": {"kind": kind, "backbone": "hire_mlp_atto", "classes": CLASSES},
        "pretrained": pretrained,
        "seed": seed,
        "recipe": {"epochs": 2},
        "fingerprints": {"train": data, "val": data},
    }
    (folder / RUN).write_text(json.dumps({"asked": asked}))
    rows = [{"epoch": e + 1, "val_miou": v} for e, v in enumerate((miou / 2, miou))]
    (folder / HISTORY).write_text("".join(json.dumps(row) + "\n" for row in rows))
    if done:
        hit = [round(10 * (miou + 10)), round(10 * (miou - 10))]
        # what is missed is answered with a third class, which no label has
        confusion = np.array([[hit[0], 0, 1000 - hit[0]], [0, hit[1], 1000 - hit[1]], [0, 0, 0]])
        PixelEvaluation([*CLASSES, "none"], confusion, 3, data, [1.0]).save(folder / EVALUATION)


@pytest.fixture
def runs(tmp_path):
    for (pretrained, seed), miou in VALUES.items():
        write(tmp_path / f"{pretrained}-{seed}", pretrained, seed, miou)
    write(tmp_path / "going on", True, 2, 99.0, done=False)
    return tmp_path


def test_seeds_of_one_setting_are_a_group(runs, tmp_path):
    found = hl.dense_results(runs)
    assert found.groups == ["pretrained", "random weights"]
    assert found.seeds == [[0, 1], [0, 1]]
    assert found.values == [[60.0, 64.0], [50.0, 52.0]]
    assert found.curves[0][1] == [[1, 2], [32.0, 64.0]]
    np.testing.assert_allclose(found.by_class[:, :2], [[72, 52], [61, 41]])
    assert found.about == "fpn on hire_mlp_atto, 2 epochs"
    text = str(found)
    assert "62.0" in text
    assert "60.0, 64.0" in text
    check_kept(found, tmp_path)


def test_differences_are_of_the_same_seeds(runs):
    mean, low, high = hl.dense_results(runs).difference(1)
    pairs = np.array([50 - 60, 52 - 64])
    interval = stats.ttest_1samp(pairs, 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((-11, interval.low, interval.high))


def test_a_seed_that_one_group_lacks_is_left_out_of_the_difference(runs):
    write(runs / "third", True, 2, 90.0)
    assert hl.dense_results(runs).difference(1)[0] == pytest.approx(-11)


def test_other_settings_name_the_groups(tmp_path):
    write(tmp_path / "a", True, 0, 60.0)
    write(tmp_path / "b", True, 0, 70.0, kind="upernet")
    found = hl.dense_results(tmp_path)
    assert found.groups == ["kind=upernet", "kind=fpn"]
    assert np.isnan(found.difference(1)[1:]).all()  # of one seed no interval
    assert "nan" not in str(found)


def test_the_figure_says_the_table(runs):
    assert "random weights" in hl.dense_results(runs).plot().text


def test_what_cannot_be_compared_is_refused(runs, tmp_path):
    write(runs / "elsewhere", True, 0, 60.0, data="other")
    with pytest.raises(HirelabError, match="several tasks or data sets"):
        hl.dense_results(runs)
    with pytest.raises(
        HirelabError, match="no finished run in nowhere: give one of camvid, coco, coco"
    ):
        hl.dense_results("nowhere")


def test_it_is_a_result(runs):
    assert isinstance(hl.dense_results(runs), DenseResults)
    assert len(hl.dense_results(runs).records()) == 4


@pytest.mark.parametrize("text", ["{", "[1]", "{}", '{"asked": 3}', '{"asked": {}}', "[" * 100_000])
def test_a_damaged_description_is_named(tmp_path, text):
    write(tmp_path / "a", True, 0, 60.0)
    (tmp_path / "a" / RUN).write_text(text)
    with pytest.raises(HirelabError, match=str(tmp_path)):
        hl.dense_results(tmp_path)
