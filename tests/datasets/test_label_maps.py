"""Label maps: every layout that is in use, and what is wrong with one in a sentence."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from PIL import Image

from hirelab._shared.errors import HirelabError
from hirelab.datasets.label_maps import NO_LABEL, open_label_maps

LABELS = np.array([[0, 1, 2], [3, 4, 11]], np.uint8)


def put(path, values, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values, mode).save(path)


def image(path, size=(3, 2)):
    put(path, np.zeros((size[1], size[0], 3), np.uint8))


@pytest.fixture
def camvid(tmp_path):
    for split in ("train", "val"):
        image(tmp_path / split / "one.png")
        put(tmp_path / f"{split}annot" / "one.png", LABELS)
    return tmp_path


@pytest.mark.parametrize("packed", [False, True])
def test_camvid(camvid, tmp_path_factory, packed):
    source = camvid
    if packed:
        source = tmp_path_factory.mktemp("zip") / "camvid.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for path in camvid.rglob("*.png"):
                archive.write(path, path.relative_to(camvid))
    found = open_label_maps(source, "val")
    assert len(found) == 1
    assert found.classes[0] == "sky"
    assert len(found.classes) == 11
    shown, labels = found.read(0)
    assert shown.size == (3, 2)
    assert labels.tolist() == [[0, 1, 2], [3, 4, NO_LABEL]]


def test_ade20k_counts_from_1_and_0_is_none(tmp_path):
    for folder in ("training", "validation"):
        image(tmp_path / "ADE" / "images" / folder / "a.jpg")
        values = np.array([[0, 1, 150], [2, 3, 4]], np.uint8)
        put(tmp_path / "ADE" / "annotations" / folder / "a.png", values)
    _, labels = open_label_maps(tmp_path, "val").read(0)
    assert labels.tolist() == [[NO_LABEL, 0, 149], [1, 2, 3]]


def test_voc_lists_its_splits_and_has_palettes(tmp_path):
    for name in ("a", "b"):
        image(tmp_path / "JPEGImages" / f"{name}.jpg")
        stored = Image.fromarray(np.array([[0, 20, 255], [1, 2, 3]], np.uint8)).convert("P")
        stored.putpalette([7] * 768)
        (tmp_path / "SegmentationClass").mkdir(exist_ok=True)
        Image.fromarray(np.array([[0, 20, 255], [1, 2, 3]], np.uint8)).save(
            tmp_path / "SegmentationClass" / f"{name}.png"
        )
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n")
    (lists / "val.txt").write_text("b\n")
    found = open_label_maps(tmp_path, "val")
    assert [name.split("/")[-1] for name in found.names] == ["b.jpg"]
    _, labels = found.read(0)
    assert labels.tolist() == [[0, 20, NO_LABEL], [1, 2, 3]]


def test_own_classes_stand_in_a_file(camvid):
    (camvid / "classes.txt").write_text("".join(f"kind {i}\n" for i in range(12)))
    found = open_label_maps(camvid, "train")
    assert found.classes[11] == "kind 11"
    assert found.read(0)[1].tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: put(f / "valannot" / "one.png", np.zeros((4, 4), np.uint8)), "4 x 4 pixels"),
        (lambda f: image(f / "valannot" / "one.png"), "has colours"),
        (lambda f: put(f / "valannot" / "one.png", LABELS + 9), "labels 12, 13, 20"),
        (lambda f: (f / "valannot" / "one.png").write_bytes(b"x"), "empty or not an image"),
    ],
)
def test_a_map_that_is_none_is_named(camvid, spoil, said):
    spoil(camvid)
    found = open_label_maps(camvid, "val")
    with pytest.raises(HirelabError, match=said):
        found.read(0)


def test_what_is_missing_is_named(camvid, tmp_path_factory):
    with pytest.raises(HirelabError, match="no split 'test'; there is train, val"):
        open_label_maps(camvid, "test")
    (camvid / "valannot" / "one.png").unlink()
    put(camvid / "valannot" / "other.png", LABELS)
    with pytest.raises(HirelabError, match=r"1 of 1 images of 'val' have no label map .*one\.png"):
        open_label_maps(camvid, "val")
    with pytest.raises(HirelabError, match="CamVid"):
        open_label_maps(tmp_path_factory.mktemp("empty"), "train")


def test_the_fingerprint_changes_with_a_map(camvid):
    before = open_label_maps(camvid, "train").fingerprint
    assert open_label_maps(camvid, "train").fingerprint == before
    put(camvid / "trainannot" / "one.png", np.zeros((2, 3), np.uint8))
    assert open_label_maps(camvid, "train").fingerprint != before


def test_own_classes_in_ade20k_s_form_still_count_from_1(tmp_path):
    image(tmp_path / "images" / "training" / "a.png")
    put(
        tmp_path / "annotations" / "training" / "a.png",
        np.array([[0, 1, 2], [2, 1, 255]], np.uint8),
    )
    (tmp_path / "classes.txt").write_text("lawn\nhouse\n")
    found = open_label_maps(tmp_path, "train")
    assert found.classes == ("lawn", "house")
    assert found.read(0)[1].tolist() == [[NO_LABEL, 0, 1], [1, 0, NO_LABEL]]


@pytest.mark.parametrize("count", [0, 256])
def test_classes_that_labels_cannot_count_are_said(camvid, count):
    (camvid / "classes.txt").write_text("".join(f"kind {i}\n" for i in range(count)))
    with pytest.raises(
        HirelabError, match=rf"classes\.txt has {count} names of classes: give 1 to"
    ):
        open_label_maps(camvid, "train")


def test_more_labels_than_classes_are_said(camvid):
    (camvid / "classes.txt").write_text("sky\nroad\n")
    with pytest.raises(HirelabError, match=r"labels 2, 3, 4, 11, and there are 2 classes, 0 to 1"):
        open_label_maps(camvid, "train").read(0)


def test_coco_s_folders_are_not_taken_for_ade20k(tmp_path):
    image(tmp_path / "images" / "train2017" / "a.jpg")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train2017.json").write_text("{}")
    with pytest.raises(HirelabError, match="in a layout that is known"):
        open_label_maps(tmp_path, "train")


@pytest.mark.parametrize(
    ("listed", "said"),
    [("a gone", r"1 of 2 .* listed and not there \('JPEGImages/gone\.jpg'\)"), ("", "no image of")],
)
def test_voc_lists_what_is_there(tmp_path, listed, said):
    image(tmp_path / "JPEGImages" / "a.jpg")
    put(tmp_path / "SegmentationClass" / "a.png", LABELS)
    with pytest.raises(HirelabError, match=r"has no ImageSets/Segmentation/train\.txt or val\.txt"):
        open_label_maps(tmp_path, "train")
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text(listed)
    with pytest.raises(HirelabError, match=said):
        open_label_maps(tmp_path, "train")


def test_an_unreadable_image_is_named(camvid):
    (camvid / "train" / "one.png").write_bytes(b"no image")
    with pytest.raises(HirelabError, match=r"train/one\.png cannot be read: .* give an image file"):
        open_label_maps(camvid, "train").read(0)


def test_images_without_a_map_are_left_out_where_faults_are_collected(camvid):
    image(camvid / "train" / "two.png")
    faults = []
    assert open_label_maps(camvid, "train", faults.append).names == ("train/one.png",)
    assert len(faults) == 1
    assert "1 of 2 images of 'train' have no label map ('train/two.png')" in faults[0]


# ------------------------------------------------------------------ what the fuzzing found


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"P5 70000 70000 255\n", "has 70000 x 70000 = 4,900,000,000 pixels|more pixels than"),
        (b"P5 14000 12000 255\n", "has 14000 x 12000 = 168,000,000 pixels"),
        (b"P5 3 2 255\n\x00", "damaged, cut short"),  # a ValueError of Pillow's
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 3 2\n", "not an image"),  # Ghostscript's
    ],
)
def test_a_damaged_map_is_named(camvid, content, said):
    (camvid / "valannot" / "one.png").write_bytes(content)
    with pytest.raises(HirelabError, match=said) as caught:
        open_label_maps(camvid, "val").read(0)
    assert "valannot/one.png" in str(caught.value)
