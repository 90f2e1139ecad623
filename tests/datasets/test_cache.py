"""Decoded squares: exact, found again only when they are the same, none where any went wrong."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hirelab._shared.errors import HirelabError
from hirelab.datasets import cache, open_image, square
from hirelab.datasets.cache import decode
from hirelab.datasets.subsets import open_images

fork = multiprocessing.get_context("fork")


def photograph(name: str, *box: int) -> Image.Image:
    return open_image(name).crop(box or (0, 0, 120, 90))


@pytest.fixture
def pets(tmp_path):
    """Three photographs in two classes, and two to validate."""
    folder = tmp_path / "pets"
    for name, box in {
        "train/cat/a.jpg": (100, 50, 260, 170),
        "train/cat/b.png": (0, 0, 90, 120),
        "train/cup/c.webp": (10, 10, 110, 110),
        "val/cat/d.jpg": (50, 0, 150, 80),
        "val/cup/e.jpg": (0, 50, 100, 150),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        photograph("cat" if "/cat/" in name else "coffee", *box).save(folder / name)
    return folder


def run(pets: Path, tmp_path: Path, split: str = "train", size: int = 32):
    return decode(open_images(pets, split), size, tmp_path / "cache", progress=False)


def caches(tmp_path: Path) -> list[str]:
    """What would be taken for a cache."""
    return sorted(p.name for p in (tmp_path / "cache").glob("*") if not p.name.startswith("."))


# --- good data ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["folder", "zip"])
@pytest.mark.parametrize("size", [16, 33])
def test_pixels_are_those_of_the_square_of_the_image(pets, tmp_path, form, size):
    source = pets
    if form == "zip":
        source = tmp_path / "pets.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for one in pets.rglob("*.*"):
                archive.write(one, one.relative_to(pets))
    squares = run(source, tmp_path, size=size)
    assert squares.pixels.shape == (3, size, size, 3)
    for i, name in enumerate(squares.images.names):
        assert np.array_equal(squares.pixels[i], np.asarray(square(open_image(pets / name), size)))
    assert squares.labels.tolist() == [0, 0, 1]
    assert squares.kept.tolist() == [0, 1, 2]
    assert squares.report() == ""


def test_the_second_time_nothing_is_decoded_and_nothing_written(pets, tmp_path, monkeypatch):
    first = run(pets, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()}
    monkeypatch.setattr(cache, "open_image", None)
    again = run(pets, tmp_path)
    assert np.array_equal(first.pixels, again.pixels)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()} == before


def test_what_is_read_cannot_be_written(pets, tmp_path):
    for squares in (run(pets, tmp_path), run(pets, tmp_path)):
        with pytest.raises(ValueError, match="read-only"):
            squares.pixels[0] = 0


def test_other_sizes_splits_and_contents_are_other_caches(pets, tmp_path):
    def count() -> int:
        return len([name for name in caches(tmp_path) if name.endswith(".npy")])

    first = np.array(run(pets, tmp_path).pixels)
    for step, other in enumerate(({"size": 16}, {"split": "val"}), 2):
        run(pets, tmp_path, **other)
        assert count() == step
    photograph("rocket").save(pets / "train/cat/a.jpg")
    second = run(pets, tmp_path)
    assert count() == 4
    assert not np.array_equal(first[0], second.pixels[0])
    assert np.array_equal(first[1:], second.pixels[1:])


# --- images of every kind --------------------------------------------------------------------


def kinds(folder: Path) -> None:
    """One class of readable oddities."""
    cat = photograph("cat")
    for name, image in {
        "grey.png": cat.convert("L"),
        "palette.png": cat.convert("P"),
        "cmyk.jpg": cat.convert("CMYK"),
        "alpha.png": cat.convert("RGBA"),
        "deep.png": Image.fromarray(np.asarray(cat.convert("L")).astype(np.uint16) * 257),
        "one.bmp": Image.new("RGB", (1, 1), "red"),
    }.items():
        image.save(folder / name)
    cat.save(folder / "png_called.jpg", "PNG")


BAD = {
    "empty.jpg": b"",
    "text.jpg": b"these are words",
    "zeros.png": bytes(2000),
}


def test_images_of_every_kind_are_decoded_and_bad_ones_skipped_by_name(pets, tmp_path):
    kinds(pets / "train/cat")
    good = len(open_images(pets))
    whole = (pets / "train/cat/a.jpg").read_bytes()
    bad = BAD | {"short.jpg": whole[: len(whole) // 2], "head.jpg": whole[:30]}
    for name, content in bad.items():
        (pets / "train/cup" / name).write_bytes(content)
    (pets / "train/cup/folder.jpg").mkdir()
    (pets / "train/cup/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")

    squares = run(pets, tmp_path)
    assert len(squares) == len(squares.pixels) == good == 10
    skipped = {f"train/cup/{name}" for name in (*bad, "folder.jpg/", "gone.jpg")}
    assert set(squares.skipped) == skipped
    assert all(squares.skipped.values())
    assert f"{len(skipped)} of {good + len(skipped)} images were skipped" in squares.report()
    for row, i in enumerate(squares.kept):
        name = squares.images.names[i]
        assert np.array_equal(squares.pixels[row], np.asarray(square(open_image(pets / name), 32)))
        assert squares.labels[row] == ["cat", "cup"].index(Path(name).parent.name)
    again = run(pets, tmp_path)
    assert (again.skipped, again.kept.tolist()) == (squares.skipped, squares.kept.tolist())
    assert np.array_equal(again.pixels, squares.pixels)


def test_a_damaged_member_of_a_zip_is_skipped_by_name(pets, tmp_path):
    path = tmp_path / "pets.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for one in sorted(pets.rglob("*.*")):
            archive.write(one, one.relative_to(pets))
    whole = bytearray(path.read_bytes())
    content = (pets / "train/cat/b.png").read_bytes()
    whole[bytes(whole).index(content) + len(content) // 2] ^= 255
    path.write_bytes(whole)
    squares = run(path, tmp_path)
    assert list(squares.skipped) == ["train/cat/b.png"]
    assert "CRC" in squares.skipped["train/cat/b.png"]
    assert squares.kept.tolist() == [0, 2]


@pytest.mark.parametrize("every", [False, True])
def test_a_class_that_loses_all_its_images_is_an_error(pets, tmp_path, every):
    for name in ("cup/c.webp", "cat/a.jpg", "cat/b.png")[: 3 if every else 1]:
        (pets / "train" / name).write_bytes(b"")
    for _ in range(2):  # made, and found
        with pytest.raises(HirelabError, match=r"no image of .*cup can be read .*c\.webp") as error:
            run(pets, tmp_path)
        assert ("cat" in str(error.value).partition("can be read")[0]) == every


def test_a_image_that_can_be_read_again_is_not_skipped_for_ever(pets, tmp_path, monkeypatch):
    train = open_images(pets)
    read = type(train).read

    def refusing(self, index):
        if index == 1:
            raise PermissionError(13, "Permission denied")
        return read(self, index)

    monkeypatch.setattr(type(train), "read", refusing)
    assert list(run(pets, tmp_path).skipped) == ["train/cat/b.png"]
    monkeypatch.undo()
    assert run(pets, tmp_path).kept.tolist() == [0, 1, 2]


# --- disks that end ----------------------------------------------------------------------------


def test_too_little_room_is_said_before_anything_is_decoded(pets, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    monkeypatch.setattr(cache, "open_image", None)
    with pytest.raises(HirelabError, match=r"decoding 3 images needs .* HIRELAB_CACHE"):
        run(pets, tmp_path)
    assert caches(tmp_path) == []


def limited(pets: Path, tmp_path: Path, answer) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))  # the system refuses to write more
    try:
        run(pets, tmp_path)
    except HirelabError as error:
        answer.put(str(error))


def test_a_disk_that_is_full_in_the_middle_is_a_sentence_and_leaves_nothing(pets, tmp_path):
    answer = fork.Queue()
    process = fork.Process(target=limited, args=(pets, tmp_path, answer))
    process.start()
    assert "cannot be written to" in answer.get(timeout=60)
    process.join()
    assert caches(tmp_path) == []
    assert not list((tmp_path / "cache").glob(".*.npy.*"))


def test_a_folder_that_cannot_be_made_is_a_sentence(pets, tmp_path):
    (tmp_path / "cache").write_text("a file is in the way")
    with pytest.raises(HirelabError, match="HIRELAB_CACHE"):
        run(pets, tmp_path)


# --- killed, damaged, twice at once ------------------------------------------------------------


def killed(pets: Path, tmp_path: Path, where: str, after: int) -> None:
    """Decode, and be killed at the ``after``-th call of a function that decoding uses."""
    original, calls = getattr(cache, where), iter(range(after))

    def counting(*arguments):
        if next(calls, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    setattr(cache, where, counting)
    run(pets, tmp_path)


@pytest.mark.parametrize(
    ("where", "after"),
    [("open_image", 0), ("open_image", 2), ("_write_head", 1), ("write_atomic", 0)],
)
def test_killed_while_decoding_leaves_nothing_that_is_taken_for_a_cache(
    pets, tmp_path, where, after
):
    process = fork.Process(target=killed, args=(pets, tmp_path, where, after))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not [name for name in caches(tmp_path) if name.endswith(".json")]
    squares = run(pets, tmp_path)
    assert np.array_equal(
        squares.pixels[1], np.asarray(square(open_image(pets / "train/cat/b.png"), 32))
    )
    assert len(caches(tmp_path)) == 2
    assert not list((tmp_path / "cache").glob(".*.npy.*"))  # what was left is gone


@pytest.mark.parametrize("damage", ["shorter", "garbage", "notes", "other notes"])
def test_a_damaged_cache_is_made_anew(pets, tmp_path, damage):
    first = np.array(run(pets, tmp_path).pixels)
    array, notes = (next((tmp_path / "cache").glob(f"*.{end}")) for end in ("npy", "json"))
    if damage == "shorter":
        array.write_bytes(array.read_bytes()[:-100])
    elif damage == "garbage":
        array.write_bytes(b"garbage")
    elif damage == "notes":
        notes.write_text('{"kept": [0')
    else:
        notes.write_text(json.dumps({"kept": [0, 1], "skipped": {}}))
    assert np.array_equal(run(pets, tmp_path).pixels, first)


def slowly(pets: Path, tmp_path: Path, barrier, answer) -> None:
    count = 0
    original = cache.open_image

    def counting(*arguments):
        nonlocal count
        count += 1
        return original(*arguments)

    cache.open_image = counting
    barrier.wait()
    pixels = run(pets, tmp_path).pixels.tobytes()
    answer.put((count, pixels))


def test_two_processes_at_once_both_end_well(pets, tmp_path):
    answer, barrier = fork.Queue(), fork.Barrier(2)
    both = [fork.Process(target=slowly, args=(pets, tmp_path, barrier, answer)) for _ in range(2)]
    for process in both:
        process.start()
    results = [answer.get(timeout=60) for _ in both]
    for process in both:
        process.join()
    expected = b"".join(
        np.asarray(square(open_image(pets / name), 32)).tobytes()
        for name in open_images(pets).names
    )
    assert [pixels for _, pixels in results] == [expected] * 2
    assert sorted(count for count, _ in results) == [0, 3]  # one decoded, the other waited
