"""The fuzzing itself: what it begins with is read, and some of what it makes of that.

What it found, kind by kind, stands with the reader's own tests, as an input that is made there.
"""

from __future__ import annotations

import os
import random
import signal
import time

import fuzz
import pytest
from _fuzzing import KINDS, Kind, faults_of, image_files
from fuzz import made, outcome_of

from hirelab._shared.errors import HirelabError
from hirelab.datasets.images import open_image

every = pytest.mark.parametrize("name", KINDS)


@every
def test_what_the_inputs_begin_as_is_read(name, tmp_path):
    found = outcome_of(KINDS[name], KINDS[name].make(None, tmp_path))
    assert found.right, found


@every
def test_an_input_follows_from_its_seed_and_number(name, tmp_path):
    contents = []
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        made(KINDS[name], name, 1, 5, tmp_path / folder)
        files = sorted(path for path in (tmp_path / folder).rglob("*") if path.is_file())
        contents.append([path.read_bytes() for path in files])
    assert contents[0] == contents[1]


@every
def test_damaged_inputs_are_read_or_refused_in_a_sentence(name, tmp_path):
    seen = set()
    for number in range(12):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = outcome_of(KINDS[name], made(KINDS[name], name, 3, number, folder))
        assert not found.finding, (number, found)
        seen.add(bool(found.refused))
    assert True in seen  # faults that nobody notices would test nothing


def test_images_of_most_formats_that_pillow_reads_are_begun_with():
    read, kinds = set(), {name.split(" ")[0] for name in image_files()}
    for name, content in image_files().items():
        try:
            open_image(content)
            read.add(name.split(" ")[0])
        except HirelabError:
            pass
    assert len(read) >= 25, kinds - read


def test_an_error_that_names_no_file_is_found(tmp_path):
    path = tmp_path / "image.png"
    assert faults_of(HirelabError(f"{path} is no image that can be read."), path) == ""
    assert "name the file" in faults_of(HirelabError("It is no image that can be read."), path)
    assert "line" in faults_of(HirelabError(f"{path} is\nno image."), path)
    assert "characters" in faults_of(HirelabError(f"{path} is {'x' * 900}"), path)


def test_what_a_reader_raises_besides_is_a_finding(tmp_path):
    kind = KINDS["images"]

    def raises(path):
        raise KeyError(path.name)

    found = outcome_of(type(kind)(kind.make, raises), kind.make(random.Random(0), tmp_path))
    assert found.finding.startswith("KeyError")
    assert "raises" in found.details


def misbehaving(path):
    """Reads an input as its number says."""
    number = int(path.read_text())
    if number == 1:
        raise HirelabError(f"{path} is no input that can be read.")
    if number == 2:
        raise KeyError("a")
    if number == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 4:
        return f"{len(b'x' * 150_000_000)} bytes"
    end = time.process_time() + (0.6 if number == 5 else 30 if number == 6 else 0)
    while time.process_time() < end:
        pass
    return "a number"


def numbered(draw, folder):
    """The input of a number, which its generator was seeded with."""
    numbered.next += 1
    (folder / "input.txt").write_text(str(numbered.next - 1))
    return folder / "input.txt"


def test_whatever_an_input_does_is_found_and_kept(tmp_path, monkeypatch, capfd):
    numbered.next = -1  # the first is made to make what is made once
    monkeypatch.setitem(KINDS, "toy", Kind(numbered, misbehaving))
    monkeypatch.setattr(fuzz, "SECONDS", 0.4)
    monkeypatch.setattr(fuzz, "GIGABYTES", 0.1)
    # a process that ends takes its count with it: each new one goes on after the input that did it
    started = fuzz._Workers.start

    def start(self, first):
        numbered.next = first
        started(self, first)

    monkeypatch.setattr(fuzz._Workers, "start", start)
    tally = fuzz.fuzz("toy", 0, 0, tmp_path, count=9)
    assert tally["inputs"] == 9
    assert (tally["right"], tally["refused"], tally["findings"]) == (3, 1, 5)
    said = {p.name: (p / "FINDING.txt").read_text() for p in tmp_path.iterdir()}
    assert {name: text.splitlines()[0][:9] for name, text in said.items()} == {
        "toy-0-2": "KeyError:",
        "toy-0-3": "ended by ",
        "toy-0-4": "took 0.1 ",
        "toy-0-5": "took 1 s",
        "toy-0-6": "took more",
    }
    assert "python tests/fuzz.py toy --seed 0 --only 2" in said["toy-0-2"]
    assert "misbehaving" in said["toy-0-2"]
    assert (tmp_path / "toy-0-3" / "input.txt").read_text() == "3"
    assert "5 findings of 5 causes" in capfd.readouterr().out
