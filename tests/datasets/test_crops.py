"""The crops of photographs: the same everywhere, splits apart, and good enough to train on."""

import dataclasses
import hashlib
import io
import multiprocessing
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from _training import RECIPE, run

import hirelab as hl
from hirelab._shared.errors import HirelabError
from hirelab.cli import main
from hirelab.datasets import open_image, subsets
from hirelab.datasets.crops import SIDE, photo_crops
from hirelab.datasets.download import get
from hirelab.datasets.subsets import DATA_SETS, find_data_set, locate, open_images
from hirelab.training.runs import read_run

KNOWN = DATA_SETS["photo-crops"]
fork = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    """No data of the machine's own, neither found nor written."""
    monkeypatch.setenv("HIRELAB_CACHE", str(tmp_path / "own"))
    monkeypatch.delenv("HIRELAB_DATA", raising=False)


def test_the_archive_has_the_known_bytes_every_time():
    """A ledger of runs on several machines takes their data for the same by these."""
    once, again = photo_crops(), photo_crops()
    assert once == again
    assert hashlib.md5(once).hexdigest() == KNOWN.md5
    assert round(len(once) / 1e6) == KNOWN.megabytes


def test_it_holds_what_it_is_known_for():
    for split, count in (("train", KNOWN.train), ("val", KNOWN.val)):
        images = open_images("photo-crops", split)
        assert np.bincount(images.labels).tolist() == [count // KNOWN.classes] * KNOWN.classes
        assert {open_image(images.read(i)).size for i in range(count)} == {(SIDE, SIDE)}


def columns(crop: np.ndarray, photograph: np.ndarray) -> Iterator[int]:
    """The left edge of every place in the photograph where the crop's pixels stand."""
    first = crop[0].tobytes()
    for top in range(len(photograph) - len(crop) + 1):
        row, start = photograph[top].tobytes(), -1
        while (start := row.find(first, start + 1)) >= 0:
            left, rest = divmod(start, 3)
            there = photograph[top : top + len(crop), left : left + crop.shape[1]]
            if not rest and there.shape == crop.shape and (there == crop).all():
                yield left


def test_every_image_is_a_crop_of_its_photograph_and_no_pixel_is_in_both_splits():
    edges: dict[str, dict[str, list[int]]] = {}
    for split in ("train", "val"):
        images = open_images("photo-crops", split)
        for i, label in enumerate(images.labels):
            name = images.classes[label]
            crop = np.asarray(open_image(images.read(i)))
            found = list(columns(crop, np.asarray(open_image(name))))
            assert found, images.names[i]
            edges.setdefault(name, {}).setdefault(split, []).extend(found)
    for of_split in edges.values():
        assert max(of_split["train"]) + SIDE <= min(of_split["val"])


def test_no_crop_is_there_twice():
    with zipfile.ZipFile(io.BytesIO(photo_crops())) as archive:
        contents = [archive.read(name) for name in archive.namelist()]
    assert len(set(contents)) == len(contents) == KNOWN.train + KNOWN.val


# --- where it lies -----------------------------------------------------------------------------


def test_it_is_made_once_where_downloads_lie(tmp_path):
    assert find_data_set(KNOWN) is None
    made = locate("photo-crops")
    assert made == tmp_path / "own/data/photo-crops.zip" == find_data_set(KNOWN)
    before = made.stat()
    assert get("photo-crops") == get(KNOWN) == locate("photo-crops") == made
    assert made.stat().st_mtime_ns == before.st_mtime_ns
    assert [file for file in made.parent.iterdir() if not file.name.startswith(".")] == [made]


def test_its_fingerprint_does_not_depend_on_the_machine_s_clock(tmp_path, monkeypatch):
    first = [open_images("photo-crops", split).fingerprint for split in ("train", "val")]
    monkeypatch.setenv("HIRELAB_CACHE", str(tmp_path / "other"))
    assert [open_images("photo-crops", split).fingerprint for split in ("train", "val")] == first
    assert first[0] != first[1]


def making(barrier, answer) -> None:
    written, write = [], subsets.write_atomic

    def slow(path, data):
        written.append(path)
        time.sleep(0.3)  # in which the other process arrives
        write(path, data)

    subsets.write_atomic = slow
    barrier.wait()
    path = locate("photo-crops")
    answer.put((len(written), hashlib.md5(path.read_bytes()).hexdigest()))


def test_two_processes_at_once_both_get_it_whole():
    answer, barrier = fork.Queue(), fork.Barrier(2)
    both = [fork.Process(target=making, args=(barrier, answer)) for _ in range(2)]
    for process in both:
        process.start()
    results = [answer.get(timeout=60) for _ in both]
    for process in both:
        process.join()
    assert [md5 for _, md5 in results] == [KNOWN.md5] * 2
    assert sum(count for count, _ in results) == 1


def test_a_killed_writer_leaves_nothing_that_is_taken_for_it(tmp_path, monkeypatch):
    def stopped(path, data):
        (path.parent / f".{path.name}.half").write_bytes(data[: len(data) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(subsets, "write_atomic", stopped)
        with pytest.raises(KeyboardInterrupt):
            locate("photo-crops")
    assert find_data_set(KNOWN) is None
    assert hashlib.md5(locate("photo-crops").read_bytes()).hexdigest() == KNOWN.md5


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "own").write_text("a file where the folder should be")
    with pytest.raises(HirelabError, match=r"photo-crops cannot be written.*HIRELAB_CACHE"):
        locate("photo-crops")


# --- used --------------------------------------------------------------------------------------


def test_samples_takes_it_by_name():
    x, names = hl.samples(4, 32, "photo-crops")
    assert x.shape == (4, 3, 32, 32)
    assert names == list(open_images("photo-crops", "val").classes)


def test_a_network_trains_on_it(tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=1, batch_size=64)
    assert run(Path("photo-crops"), tmp_path / "run", recipe).done
    config = read_run(tmp_path / "run").config
    for split, fingerprint in config.data_fingerprints.items():
        assert fingerprint == open_images("photo-crops", split).fingerprint
    assert len(config.classes) == KNOWN.classes


def test_the_commands_know_it(tmp_path, capsys):
    made = str(tmp_path / "own/data/photo-crops.zip")
    for command, said in (("where", made), ("get", made), ("check", "every image can be read")):
        assert main(["data", command, "photo-crops"]) == 0
        assert said in capsys.readouterr().out
    assert main(["data", "list"]) == 0
    assert made in capsys.readouterr().out
