"""The fuzzing itself: what it begins with is read, and some of what it makes of that.

What it found, kind by kind, stands with the reader's own tests, as an input that is made there.
"""

from __future__ import annotations

import random

import pytest
from _fuzzing import KINDS, faults_of, image_files
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
