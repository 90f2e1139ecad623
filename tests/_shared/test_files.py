"""Files whole or not there: what a kill leaves is cleared away, what a disk refuses is said."""

from __future__ import annotations

import errno
import multiprocessing
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hirelab._shared.files import atomic, remove_unfinished, unfinished, write_atomic

fork = multiprocessing.get_context("fork")


def half_way(path: Path, begun, go_on) -> None:
    """Write half a file, say so, and wait."""
    with atomic(path) as temporary:
        temporary.write_text("half")
        begun.set()
        go_on.wait(60)
        temporary.write_text("whole")


@pytest.fixture
def writer(tmp_path):
    """A process that has written half of ``tmp_path``/a, and what makes it go on."""
    begun, go_on = fork.Event(), fork.Event()
    process = fork.Process(target=half_way, args=(tmp_path / "a", begun, go_on))
    process.start()
    assert begun.wait(60)
    yield process, go_on
    process.kill()
    process.join()


def test_what_a_killed_process_left_goes_with_the_next_writing_of_that_file(tmp_path, writer):
    process, _ = writer
    process.kill()
    process.join()
    assert [path.read_text() for path in unfinished(tmp_path, "a")] == ["half"]
    write_atomic(tmp_path / "b", "another")
    assert len(unfinished(tmp_path)) == 1
    write_atomic(tmp_path / "a", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_what_a_living_process_writes_is_left_to_it(tmp_path, writer):
    process, go_on = writer
    remove_unfinished(tmp_path)
    write_atomic(tmp_path / "a", "of another")
    assert [path.read_text() for path in unfinished(tmp_path)] == ["half"]
    go_on.set()
    process.join()
    assert process.exitcode == 0
    assert (tmp_path / "a").read_text() == "whole"
    assert unfinished(tmp_path) == []


def test_files_of_somebody_else_are_not_taken_for_unfinished_ones(tmp_path):
    for name in (".a.part", ".a.backup20.part.txt", "a.abcdefgh.part", ".a.abcdefgh"):
        (tmp_path / name).touch()
    before = set(tmp_path.iterdir())
    write_atomic(tmp_path / "a", "new")
    assert set(tmp_path.iterdir()) == {*before, tmp_path / "a"}


def in_few_bytes(write, answer) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # the system refuses to write more
    try:
        write()
    except OSError as error:
        answer.put((error.errno, str(error.filename)))


@pytest.mark.parametrize("kind", ["bytes", "safetensors"])
def test_a_disk_that_refuses_is_an_error_of_the_system_which_names_the_file(tmp_path, kind):
    path = tmp_path / "a"

    def write() -> None:
        with atomic(path) as temporary:
            if kind == "bytes":
                temporary.write_bytes(bytes(5000))
            else:  # whose error is one of Rust
                save_file({"a": torch.zeros(5000)}, temporary)

    answer = fork.SimpleQueue()
    process = fork.Process(target=in_few_bytes, args=(write, answer))
    process.start()
    process.join()
    assert not answer.empty()
    assert answer.get() == (errno.EFBIG, str(path))
    assert list(tmp_path.iterdir()) == []


def test_other_errors_stay_as_they_are(tmp_path):
    with pytest.raises(ValueError, match="mine"), atomic(tmp_path / "a"):
        raise ValueError("mine")
    with pytest.raises(FileNotFoundError) as raised, atomic(tmp_path / "a"):
        (tmp_path / "source").read_text()
    assert raised.value.filename == str(tmp_path / "source")
    assert list(tmp_path.iterdir()) == []
