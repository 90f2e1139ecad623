"""What there is by name, and what `check` says of good data and of every fault."""

import io
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
        for fact in (data.classes, data.train + data.val, data.megabytes):
            assert f" {fact:,} " in row
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
    assert report.counts == {"train": {"cat": 20, "dog": 20}, "val": {"cat": 5, "dog": 5}}
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
