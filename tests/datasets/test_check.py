"""What there is by name, and what `check` says of good data and of every fault."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hirelab._shared.errors import HirelabError
from hirelab.datasets.check import check, listing
from hirelab.datasets.subsets import DATA_SETS, layout


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    """No data of the machine's own."""
    monkeypatch.setenv("HIRELAB_CACHE", str(tmp_path / "own"))
    monkeypatch.delenv("HIRELAB_DATA", raising=False)


def png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


PNG = png(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))


def test_the_listing_is_a_table_that_says_what_costs_what_and_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HIRELAB_DATA", str(tmp_path))
    (tmp_path / "imagenette2-320").mkdir()
    shown, _, notes = listing().partition("\n\n")
    head, *rows = shown.splitlines()
    assert [row.split()[0] for row in rows] == list(DATA_SETS)
    where = head.index("where")
    for row, data in zip(rows, DATA_SETS.values(), strict=True):
        here = data.name == "imagenette-320"
        absent = "made here when first used" if data.make else "not here"
        assert row[where:] == (str(tmp_path / "imagenette2-320") if here else absent)
        for fact in (data.classes, data.train + data.val + data.test, data.megabytes or "?"):
            assert f" {fact:,} " in row if isinstance(fact, int) else f" {fact} " in row
        assert f"  {', '.join(data.tasks)}  " in row
        assert any(data.name in note and note.endswith(data.terms) for note in notes.splitlines())


def pets(folder: Path) -> Path:
    for split, count in (("train", 20), ("val", 5)):
        for label in ("cat", "dog"):
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                (folder / split / label / f"{i}.png").write_bytes(PNG)
    return folder


def test_good_data_is_ok(tmp_path):
    report = check(pets(tmp_path / "pets"))
    assert report.ok
    (part,) = report.parts
    assert part.counts == {"train": {"cat": 20, "dog": 20}, "val": {"cat": 5, "dog": 5}}
    assert part.images == {"train": 40, "val": 10}
    text = str(report)
    assert "train: 40 images of 2 classes, 20 of each" in text
    assert "every image can be read" in text


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_everything_that_is_wrong_is_named(tmp_path, form):
    folder = pets(tmp_path / "pets")
    for name, content in {
        "train/dog/short.png": PNG[:60],
        "train/dog/words.jpg": b"words",
        "val/dog/none.png": b"",
        "train/eel/e.png": PNG,
        "val/fox/f.png": PNG,
        "train/gnu/notes.txt": b"no image yet",
        "test/t.png": PNG,
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    source = folder
    if form == "zip":
        source = tmp_path / "pets.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for one in folder.rglob("*.*"):
                archive.write(one, one.relative_to(folder))
    report = check(source)
    assert not report.ok
    assert set(report.unreadable) == {
        "train/dog/short.png",
        "train/dog/words.jpg",
        "val/dog/none.png",
    }
    text = str(report)
    for said in (
        "class folders of train without an image: 1 ('gnu')",
        "classes of train that val lacks: 1 ('eel')",
        "classes of val that train lacks: 1 ('fox')",
        "images in no split's class folder: 1 ('test/t.png')",
        "files that are no images by their suffix: 1",
        "unreadable: train/dog/words.jpg: ",
        "faults: 6",
    ):
        assert said in text


def test_counts_are_held_to_the_published_ones_where_the_name_is_known(tmp_path, monkeypatch):
    pets(tmp_path / "pets").rename(tmp_path / "imagenette2-160")
    monkeypatch.setenv("HIRELAB_DATA", str(tmp_path))
    by_name, by_path = check("imagenette"), check(tmp_path / "imagenette2-160")
    assert by_path.ok
    assert not by_name.ok
    assert "as published has 9,469 images in train, this 40" in str(by_name)
    assert "as published has 10 classes in val, this 2" in str(by_name)


def test_nothing_to_check_is_a_fault(tmp_path):
    assert not check(tmp_path).ok
    with pytest.raises(HirelabError, match="There is no data set"):
        check(tmp_path / "gone")
    assert layout(tmp_path).images == {}


# --- boxes and pixels --------------------------------------------------------------------------


def packed(folder: Path, form: str) -> Path:
    """A folder as it is, or as a zip beside it."""
    if form == "folder":
        return folder
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for one in folder.rglob("*.*"):
            archive.write(one, one.relative_to(folder))
    return path


def box(number: int, image: int, category: int, bbox: list, **more) -> dict:
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, **more}


def boxed(folder: Path) -> tuple[Path, dict]:
    """Ten images of 40 x 36 pixels, with boxes of two of three categories; and their table."""
    (folder / "images").mkdir(parents=True)
    for i in range(10):
        Image.new("RGB", (40, 36)).save(folder / "images" / f"{i}.png")
    content = {
        "images": [
            {"id": 5 * i, "file_name": f"{i}.png", "width": 40, "height": 36} for i in range(10)
        ],
        "annotations": [box(i, 5 * (i % 9), 7 if i % 3 else 90, [2, 3, 10, 9]) for i in range(12)],
        "categories": [
            {"id": n, "name": name} for n, name in ((90, "bee"), (7, "ant"), (8, "fly"))
        ],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return folder, content


def test_good_boxes_are_counted(tmp_path):
    report = check(boxed(tmp_path / "bugs")[0])
    assert report.ok
    (part,) = report.parts
    assert part.task == "boxes"
    assert part.images == {"train": 8, "val": 2}
    assert part.counts == {
        "train": {"ant": 7, "fly": 0, "bee": 4},
        "val": {"ant": 1, "fly": 0, "bee": 0},
    }
    assert part.empty == {"train": 0, "val": 1}
    text = str(report)
    assert "train: 8 images, 11 objects of 3 classes, 0 to 7 of each; images without: 0" in text
    assert "classes of train without an object: 1 ('fly')" in text
    assert "every image and all its labels can be read" in text


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_everything_that_is_wrong_with_boxes_is_named(tmp_path, form):
    folder, content = boxed(tmp_path / "bugs")
    (folder / "images" / "0.png").write_bytes(PNG[:60])
    (folder / "images" / "1.png").unlink()
    Image.new("RGB", (36, 40)).save(folder / "images" / "2.png")
    Image.new("RGB", (40, 20)).save(folder / "images" / "3.png")
    Image.new("RGB", (9, 9)).save(folder / "images" / "more.png")
    content["images"][3]["height"] = 20
    content["annotations"] += [
        box(20, 20, 7, [-9, 3, 20, 9]),
        box(21, 20, 7, [2, 3, 0, 9]),
        box(22, 20, 7, [2, 3, 9, 9], iscrowd=1),
        box(23, 20, 7, [2, 3, 9, 9], segmentation=[[1, 2]]),
        box(24, 20, 55, [2, 3, 9, 9]),
        box(25, 20, 7, "here"),
    ]
    (folder / "instances.json").write_text(json.dumps(content))
    report = check(packed(folder, form))
    assert set(report.unreadable) == {"images/0.png"}
    text = str(report)
    for said in (
        "wrong: instances.json lists 1 of 8 images that are not there ('1.png'): add them, or",
        "wrong: images/2.png has 36 x 40 pixels and by the JSON 40 x 36: its boxes",
        "wrong: A segmentation of images/4.png (40 x 36) is neither polygons",
        "wrong: instances.json: annotation 24 is of image 20 and category 55, and one of them",
        "wrong: instances.json: the bbox of annotation 25 is 'here'; it has four numbers",
        "boxes cut at the edge: 1",
        "empty boxes dropped: 1",
        "crowds, which are not trained on: 1",
        "images with a side of less than 32 pixels: 1 ('images/3.png')",
        "images that belong to no split: 1 ('images/more.png')",
    ):
        assert text.count(said) == 1, said
    assert "faults: 6" in text  # the JSON serves two splits, and its faults count once


def test_an_image_of_two_splits_is_a_fault(tmp_path):
    folder, content = boxed(tmp_path / "bugs")
    (folder / "instances.json").rename(folder / "instances_train.json")
    content["images"] = content["images"][:2]
    content["annotations"] = []
    (folder / "instances_val.json").write_text(json.dumps(content))
    assert check(folder).problems == (
        "images in both train and val: 2 ('images/0.png', 'images/1.png')",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"images": [], "annotations": [], ', "is no JSON"),
        ('{"images": [], "annotations": [], "a": 1}', "lacks categories"),
    ],
)
def test_a_json_that_is_none_is_a_fault_and_not_class_folders(tmp_path, text, said):
    folder, _ = boxed(tmp_path / "bugs")
    (folder / "instances.json").write_text(text)
    report = check(folder)
    assert report.parts == ()
    assert len(report.problems) == 1
    assert said in report.problems[0]


def test_another_json_beside_class_folders_changes_nothing(tmp_path):
    folder = pets(tmp_path / "pets")
    (folder / "meta.json").write_text('{"annotations": []}')
    report = check(folder)
    assert report.ok
    assert [part.task for part in report.parts] == ["classes"]


def test_of_many_classes_the_most_and_least_frequent_are_shown(tmp_path):
    folder, content = boxed(tmp_path / "bugs")
    content["categories"] = [{"id": n, "name": f"kind {n}"} for n in range(30)]
    content["annotations"] = [box(n, 0, n, [1, 1, 4, 4]) for n in range(30) for _ in range(30 - n)]
    (folder / "instances.json").write_text(json.dumps(content))
    shown = str(check(folder).parts[0]).splitlines()
    assert shown[3].split() == ["kind", "0", "30", "0"]
    assert shown[13].strip() == "..."
    assert [row.split()[1] for row in shown[14:]] == [str(n) for n in range(20, 30)]


def mapped(folder: Path) -> Path:
    """CamVid's form: two splits of three images of 40 x 36 pixels, half sky, a ninth without."""
    labels = np.zeros((36, 40), np.uint8)
    labels[18:] = 3
    labels[32:] = 11
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        (folder / f"{split}annot").mkdir()
        for i in range(3):
            Image.new("RGB", (40, 36)).save(folder / split / f"{split}{i}.png")
            Image.fromarray(labels).save(folder / f"{split}annot" / f"{split}{i}.png")
    return folder


def test_good_label_maps_are_counted(tmp_path):
    report = check(mapped(tmp_path / "drive"))
    assert report.ok
    (part,) = report.parts
    assert part.task == "pixels"
    assert part.counts["val"]["sky"] == 3 * 18 * 40
    assert part.empty == {"train": 3 * 4 * 40, "val": 3 * 4 * 40}
    text = str(report)
    assert "val: 3 images, pixels of 11 classes, 0.0 % to 50.0 % each; 11.1 % without a" in text
    assert "classes of val without a pixel: 9 ('building', " in text


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_everything_that_is_wrong_with_label_maps_is_named(tmp_path, form):
    folder = mapped(tmp_path / "drive")
    (folder / "train" / "train0.png").write_bytes(b"words")
    (folder / "train" / "train1.png").unlink()
    (folder / "trainannot" / "train2.png").unlink()
    Image.new("L", (36, 40)).save(folder / "valannot" / "val0.png")
    Image.new("RGB", (40, 36)).save(folder / "valannot" / "val1.png")
    Image.new("L", (40, 36), 12).save(folder / "valannot" / "val2.png")
    report = check(packed(folder, form))
    assert set(report.unreadable) == {"train/train0.png"}
    text = str(report)
    for said in (
        "1 of 2 images of 'train' have no label map ('train/train2.png'): add them",
        "wrong: valannot/val0.png has 36 x 40 pixels and its image 40 x 36: a label map has",
        "wrong: valannot/val1.png has colours (RGB) where each pixel's label is expected",
        "wrong: valannot/val2.png has the labels 12, and there are 11 classes, 0 to 10",
        "images that belong to no split: 2 ('train/train2.png', 'trainannot/train1.png')",
        "faults: 5",
    ):
        assert text.count(said) == 1, said


def test_many_faults_of_a_kind_are_counted_and_not_all_printed(tmp_path):
    folder = mapped(tmp_path / "drive")
    for i in range(30):
        Image.new("RGB", (40, 36)).save(folder / "train" / f"more{i}.png")
        Image.new("RGB", (40, 36)).save(folder / "trainannot" / f"more{i}.png")
    report = check(folder)
    assert len(report.problems) == 30
    text = str(report)
    assert text.count("has colours") == 20
    assert "wrong: 10 more, all in `problems`" in text
    assert "faults: 30" in text


def test_published_counts_of_boxes_and_maps_are_held_to(tmp_path, monkeypatch):
    monkeypatch.setenv("HIRELAB_DATA", str(tmp_path))
    mapped(tmp_path / "CamVid")
    boxed(tmp_path / "coco")
    (tmp_path / "ade20k").mkdir()
    said = str(check("camvid"))
    for text in ("367 images in train, this 3", "101 images in val, this 3", "233 images in test"):
        assert f"camvid as published has {text}" in said
    assert "11 classes in train" not in said
    assert "coco as published has 80 classes in train, this 3" in str(check("coco"))
    said = str(check("ade20k"))
    assert "no images with label maps in a layout that is known" in said
    assert "ade20k as published has 20,210 images in train, this 0" in said


def test_one_archive_can_serve_two_tasks():
    report = check("scenes")
    assert report.ok
    assert [part.task for part in report.parts] == ["boxes", "pixels"]
    assert report.notes == ()
    assert [part.images for part in report.parts] == [{"train": 96, "val": 24}] * 2
