"""Generated scenes: the same bytes everywhere, and boxes, masks and labels that agree."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from hirelab.datasets.boxes import open_boxes
from hirelab.datasets.label_maps import open_label_maps
from hirelab.datasets.scenes import COUNTS, scenes
from hirelab.datasets.subsets import DATA_SETS


@pytest.fixture(scope="module")
def made():
    return scenes()


def test_the_bytes_are_those_that_are_known(made):
    assert hashlib.md5(made).hexdigest() == DATA_SETS["scenes"].md5
    assert made == scenes()


@pytest.mark.parametrize("split", ["train", "val"])
def test_boxes_masks_and_labels_are_of_the_same_shapes(made, tmp_path, split):
    path = tmp_path / "scenes.zip"
    path.write_bytes(made)
    boxed, labelled = open_boxes(path, split), open_label_maps(path, split)
    assert len(boxed) == len(labelled) == COUNTS[split] == getattr(DATA_SETS["scenes"], split)
    assert labelled.classes == ("background", *boxed.classes)
    assert boxed.notes == {}
    assert sum(not some for some in boxed.objects) > 0  # scenes without an object belong to it
    for i in range(len(boxed)):
        _, labels = labelled.read(i)
        masks = boxed.masks(i)
        assert masks.sum(0).max(initial=0) <= 1  # what lies behind is not seen
        for one, mask in zip(boxed.objects[i], masks, strict=True):
            assert (labels[mask > 0] == one.label + 1).all()
            rows, columns = np.nonzero(mask)
            assert one.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert one.area == mask.sum()
