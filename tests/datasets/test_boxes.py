"""COCO's form: what is read, what is put right and counted, and what is an error."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from hirelab._shared.errors import HirelabError
from hirelab.datasets.boxes import open_boxes, shape_mask

SQUARE = [[2.0, 3.0, 8.0, 3.0, 8.0, 9.0, 2.0, 9.0]]


def annotation(number, image, category, bbox, **more):
    return {
        "id": number, "image_id": image, "category_id": category, "bbox": bbox,
        "iscrowd": 0, "segmentation": SQUARE, **more,
    }  # fmt: skip


@pytest.fixture
def content():
    return {
        "images": [
            {"id": 9 * i, "file_name": f"{i}.png", "width": 20, "height": 12} for i in range(6)
        ],
        "annotations": [
            annotation(1, 0, 90, [2, 3, 6, 6]),
            annotation(2, 9, 3, [2, 3, 6, 6], area=36.0),
        ],
        "categories": [{"id": 90, "name": "brush"}, {"id": 3, "name": "car"}],
    }


def write(folder, content, name="instances.json"):
    (folder / "images").mkdir(exist_ok=True)
    for i in range(6):
        Image.new("RGB", (20, 12)).save(folder / "images" / f"{i}.png")
    (folder / name).write_text(json.dumps(content))
    return folder


def test_ids_with_holes_become_labels_without(tmp_path, content):
    found = open_boxes(write(tmp_path, content), "train")
    assert found.classes == ("car", "brush")
    assert found.category_ids == (3, 90)
    assert [[one.label for one in some] for some in found.objects] == [[1], [0], [], [], []]
    assert found.objects[0][0].box == (2, 3, 8, 9)
    assert found.objects[0][0].area == 36
    assert found.read(0).size == (20, 12)


def test_one_file_is_cut_into_splits_by_the_order_of_ids(tmp_path, content):
    folder = write(tmp_path, content)
    train, val = (open_boxes(folder, split) for split in ("train", "val"))
    assert val.ids == (36,)
    assert sorted((*train.ids, *val.ids)) == [0, 9, 18, 27, 36, 45]


def test_files_of_their_own_are_splits(tmp_path, content):
    folder = write(tmp_path, content, "instances_train2017.json")
    other = {**content, "images": content["images"][:2]}
    (folder / "instances_val2017.json").write_text(json.dumps(other))
    (folder / "captions_val2017.json").write_text("{}")
    assert len(open_boxes(folder, "train")) == 6
    assert len(open_boxes(folder, "val")) == 2


def test_boxes_over_the_edge_are_cut_and_empty_ones_dropped(tmp_path, content):
    content["annotations"] = [
        annotation(1, 0, 3, [-5, -5, 10, 10]),
        annotation(2, 0, 3, [5, 5, 0, 4]),
        annotation(3, 0, 3, [30, 5, 4, 4]),
        annotation(4, 0, 3, [15, 8, 5.4, 4]),  # rounded over the edge
    ]
    found = open_boxes(write(tmp_path, content), "train")
    assert [one.box for one in found.objects[0]] == [(0, 0, 5, 5), (15, 8, 20, 12)]
    assert found.notes == {"boxes cut at the edge": 1, "empty boxes dropped": 2}


def test_polygons_and_run_lengths_are_the_same_mask(tmp_path, content):
    from pycocotools import mask as coco

    mask = np.zeros((12, 20), np.uint8)
    mask[3:9, 2:8] = 1
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
    plain = np.diff([0, *edges, flat.size]).tolist()
    packed = coco.encode(np.asfortranarray(mask))
    text = {"size": [12, 20], "counts": packed["counts"].decode()}
    content["annotations"] = [
        annotation(i, 0, 3, [2, 3, 6, 6], segmentation=shape)
        for i, shape in enumerate((SQUARE, {"size": [12, 20], "counts": plain}, text, None))
    ]
    found = open_boxes(write(tmp_path, content), "train").masks(0)
    assert found.shape == (4, 12, 20)
    for one in found:
        assert np.array_equal(one, mask)


@pytest.mark.parametrize("shape", [[[1, 2]], {"size": [5, 5], "counts": [25]}, {"a": 1}, "text", 7])
def test_a_segmentation_that_is_none_is_said(shape):
    with pytest.raises(HirelabError, match="neither polygons"):
        shape_mask(shape, (0, 0, 1, 1), 12, 20)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda c: c.pop("categories"), "lacks categories"),
        (lambda c: c["annotations"][0].pop("bbox"), "number 0 of annotations lacks bbox"),
        (lambda c: c["annotations"][0].update(category_id=5), "category 5, and one of them"),
        (lambda c: c["annotations"][0].update(image_id=5), "image 5"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2]), "four numbers"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, float("nan"), 3]), "bbox"),
        (lambda c: c["images"].append(dict(c["images"][0])), "same id"),
        (
            lambda c: c["categories"].append({"id": 3, "name": "x"}),
            "two of categories have the same id",
        ),
        (lambda c: c["images"][0].update(file_name="gone.png"), r"1 of 5 images .*gone\.png"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path, content, spoil, said):
    spoil(content)
    with pytest.raises(HirelabError, match=said):
        open_boxes(write(tmp_path, content), "train")


def test_an_image_of_another_size_is_refused(tmp_path, content):
    found = open_boxes(write(tmp_path, content), "train")
    Image.new("RGB", (12, 20)).save(tmp_path / "images" / "0.png")
    with pytest.raises(HirelabError, match="wrong places"):
        found.read(0)


def test_no_json_and_a_strange_split_are_said(tmp_path):
    with pytest.raises(HirelabError, match="it has none"):
        open_boxes(tmp_path, "train")
    with pytest.raises(HirelabError, match="'train' and 'val'"):
        open_boxes(tmp_path, "test")


def test_a_crowd_is_kept_as_one(tmp_path, content):
    content["annotations"][0].update(
        iscrowd=1, segmentation={"size": [12, 20], "counts": [36, 12, 192]}
    )
    found = open_boxes(write(tmp_path, content), "train")
    (one,) = found.objects[0]
    assert one.crowd
    assert found.masks(0).sum() == 12


def test_an_image_of_a_few_pixels_is_read_as_it_is(tmp_path, content):
    content["images"][0].update(width=3, height=2)
    content["annotations"] = [annotation(1, 0, 3, [1, 0, 1, 2], segmentation=None)]
    folder = write(tmp_path, content)
    Image.new("RGB", (3, 2)).save(folder / "images" / "0.png")
    found = open_boxes(folder, "train")
    assert found.read(0).size == (3, 2)
    assert found.masks(0).tolist() == [[[0, 1, 0], [0, 1, 0]]]


def test_an_unreadable_image_is_named(tmp_path, content):
    found = open_boxes(write(tmp_path, content), "train")
    (tmp_path / "images" / "0.png").write_bytes(b"no image")
    with pytest.raises(HirelabError, match=r"images/0\.png cannot be read: .* give an image file"):
        found.read(0)


def test_folders_named_by_splits_hold_them(tmp_path, content):
    for split in ("train", "valid", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(content))
        for i in range(6):
            Image.new("RGB", (20, 12)).save(tmp_path / split / f"{i}.png")
    for split, folder in (("train", "train"), ("val", "valid")):
        found = open_boxes(tmp_path, split)
        assert found.names == tuple(f"{folder}/{i}.png" for i in range(6))


def test_the_file_of_one_split_is_not_cut_for_the_other(tmp_path, content):
    folder = write(tmp_path, content, "instances_val2017.json")
    assert len(open_boxes(folder, "val")) == 6
    with pytest.raises(HirelabError, match=r"'train' in it, or one alone .* 'instances_val2017"):
        open_boxes(folder, "train")
    (folder / "instances_val2017.json").rename(folder / "instances_trainval.json")
    assert [len(open_boxes(folder, split)) for split in ("train", "val")] == [5, 1]


def test_a_split_without_an_image_is_said(tmp_path, content):
    del content["images"][2:]
    with pytest.raises(
        HirelabError, match="no image of the split 'val': it lists 2, and every fif"
    ):
        open_boxes(write(tmp_path, content), "val")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda c: c.update(annotations=None), "lacks annotations: COCO's form has lists of"),
        (lambda c: c.update(categories=[]), "no categories: list one for each class"),
        (lambda c: c["images"][0].update(id="a"), "an id of images is 'a'; give whole numbers"),
        (lambda c: c["images"][0].update(width="20"), "image 0 has width and height '20' and 12"),
        (lambda c: c["images"][0].update(height=0), "image 0 has width and height 20 and 0"),
        (lambda c: c["images"][0].pop("width"), "number 0 of images lacks width"),
    ],
)
def test_a_table_that_is_none_is_said_even_if_faults_are_collected(tmp_path, content, spoil, said):
    spoil(content)
    with pytest.raises(HirelabError, match=said):
        open_boxes(write(tmp_path, content), "train", [].append)


def test_what_can_be_left_out_is_left_out_where_faults_are_collected(tmp_path, content):
    content["annotations"] += [
        annotation(3, 0, 77, [2, 3, 6, 6]),
        annotation(4, [0], 3, [2, 3, 6, 6]),
        annotation(5, 0, 3, [2, 3, 6]),
        {"id": 6, "image_id": 0},
    ]
    content["images"][2]["file_name"] = "gone.png"
    faults = []
    found = open_boxes(write(tmp_path, content), "train", faults.append)
    assert found.ids == (0, 9, 27, 45)
    assert [len(some) for some in found.objects] == [1, 1, 0, 0]
    assert len(faults) == 5
    for fault, said in zip(
        faults,
        ("number 5 of annotations lacks", "category 77", "image [0]", "annotation 5", "gone.png"),
        strict=True,
    ):
        assert said in fault


# ------------------------------------------------------------------ what the fuzzing found


def test_run_lengths_are_those_of_pycocotools():
    from pycocotools import mask as coco

    draw = np.random.default_rng(0)
    for height, width in ((1, 1), (12, 20), (7, 3), (200, 150)):
        for share in (0.0, 0.02, 0.5, 1.0):
            mask = np.asfortranarray(draw.random((height, width)) < share, np.uint8)
            packed = coco.encode(mask)
            for counts in (packed["counts"], packed["counts"].decode()):
                code = {"size": [height, width], "counts": counts}
                np.testing.assert_array_equal(shape_mask(code, (0, 0, 1, 1), height, width), mask)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        # each of the first six ended the process, or gave a mask of what lay in memory
        ({"size": [12, 20], "counts": [0, 10**9]}, "its runs are 1000000000 pixels"),
        ({"size": [12, 20], "counts": [3]}, "its runs are 3 pixels"),
        ({"size": [12, 20], "counts": [-5, 245]}, "no whole number from 0"),
        ({"size": [12, 20], "counts": "ooooooooooooooooooo"}, "has the character 'o'"),
        ({"size": [12, 20], "counts": "0"}, "its runs are 0 pixels"),
        ([[0, 0, 1e9, 0, 1e9, 1e9]], r"a corner is at 1000000000\.0"),
        ([[0, 0, float("nan"), 0, 5, 5]], "a corner is at nan"),
        ([[0, 0, 10**400, 0, 5, 5]], "a corner is at 1000"),
        ([[0, 0, "x" * 5000, 0, 5, 5]], "a corner is at 'xxx"),
        ([[0, 0, 5, 5]], "a polygon is"),
        ([[0, 0, 5, 0, 5, 5, 5]], "a polygon is"),
        ({"size": [12], "counts": [240]}, "its size is"),
        ({"size": 12, "counts": [240]}, "not iterable"),
        ({"size": [12, 20], "counts": "`"}, "cut short"),
        (True, "not subscriptable"),
    ],
)
def test_a_segmentation_is_held_to_its_size(shape, said):
    with pytest.raises(HirelabError, match=said) as caught:
        shape_mask(shape, (0, 0, 5, 5), 12, 20, "one.png")
    assert len(str(caught.value)) < 400


def test_polygons_that_overlap_are_one_mask():
    mask = shape_mask([SQUARE[0], SQUARE[0]], (0, 0, 1, 1), 12, 20)
    np.testing.assert_array_equal(mask, shape_mask(SQUARE, (0, 0, 1, 1), 12, 20))
    assert mask.max() == 1


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda c: c["annotations"][0].update(bbox=[10**400, 0, 5, 5]), "it has four numbers"),
        (lambda c: c["annotations"][0].update(bbox=[[0] * 9999] * 4), "it has four numbers"),
        (lambda c: c["annotations"][0].update(image_id=True), "is of image True"),
        (lambda c: c["annotations"][0].update(category_id="x" * 9999), "is of image 0"),
        (lambda c: c["images"][0].update(id="x" * 9999), "an id of images"),
        (lambda c: c["images"][0].update(width=True), "whole numbers from 1"),
        (lambda c: c["images"][0].update(width=10**30), "whole numbers from 1"),
    ],
)
def test_odd_values_are_said_in_a_short_sentence(tmp_path, content, spoil, said):
    spoil(content)
    with pytest.raises(HirelabError, match=said) as caught:
        open_boxes(write(tmp_path, content), "train")
    assert len(str(caught.value)) < 400


def test_json_nested_too_deeply_is_no_json(tmp_path, content):
    write(tmp_path, content)
    (tmp_path / "instances.json").write_text("[" * 100_000)
    with pytest.raises(HirelabError, match=r"instances\.json is no JSON .it is nested too deeply"):
        open_boxes(tmp_path, "train")


@pytest.mark.parametrize("area", [float("inf"), 10**400, 1e300, "36", None])
def test_an_area_that_is_none_is_the_boxs(tmp_path, content, area):
    content["annotations"][0]["area"] = area
    assert open_boxes(write(tmp_path, content), "train").objects[0][0].area == 36
