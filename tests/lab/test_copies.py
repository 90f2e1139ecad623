"""The reader's copies: brought when missing, renewed while unchanged, never overwritten."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from hirelab._shared.errors import HirelabError
from hirelab._shared.files import ROOT
from hirelab.lab import copies
from hirelab.lab.copies import bring_notebooks, copies_folder


def store(path: Path, *sources: str, printed: str = "", **metadata: str) -> None:
    """A notebook with these cells, of which the first printed something."""
    outputs = [new_output("stream", text=printed)] if printed else []
    cells = [new_code_cell(source, id=f"cell-{n}") for n, source in enumerate(sources)]
    cells[0].outputs = outputs
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)


@pytest.fixture
def source(tmp_path) -> Path:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("a", "b"):
        store(folder / f"{name}.ipynb", name, printed="stored")
    (folder / "conftest.py").touch()
    return folder


@pytest.fixture
def mine(source, tmp_path) -> Path:
    """A folder of copies, made from ``source``."""
    folder = tmp_path / "mine"
    bring_notebooks(source, folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def copied(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(folder).items() if name != copies.NOTES}


def test_the_first_time_brings_the_notebooks_and_nothing_else(source, tmp_path):
    before = files(source)
    brought = bring_notebooks(source, tmp_path / "deep" / "mine")
    del before["conftest.py"]
    assert copied(tmp_path / "deep" / "mine") == before
    assert brought.new == ["a.ipynb", "b.ipynb"]
    assert str(brought) == f"your notebooks: {tmp_path / 'deep' / 'mine'} (2 new)"
    assert "conftest.py" in files(source)


def test_the_second_time_does_nothing(source, mine):
    before = files(mine)
    assert str(bring_notebooks(source, mine)) == f"your notebooks: {mine}"
    assert files(mine) == before


def test_what_was_only_opened_and_run_is_renewed(source, mine):
    store(mine / "a.ipynb", "a", "", " \n", printed="run", author="saved by JupyterLab")
    store(source / "a.ipynb", "a better")
    brought = bring_notebooks(source, mine)
    assert (brought.new, brought.renewed, brought.beside) == ([], ["a.ipynb"], {})
    assert (mine / "a.ipynb").read_bytes() == (source / "a.ipynb").read_bytes()


def test_what_was_changed_is_kept_and_a_new_version_is_put_beside_it_once(source, mine):
    store(mine / "a.ipynb", "a of mine")
    kept = (mine / "a.ipynb").read_bytes()
    assert not bring_notebooks(source, mine).beside  # there is nothing new
    store(source / "a.ipynb", "a better")
    brought = bring_notebooks(source, mine)
    assert brought.beside == {"a.ipynb": "a_new.ipynb"}
    assert "a.ipynb stays as you changed it; its newer version is a_new.ipynb" in str(brought)
    assert (mine / "a.ipynb").read_bytes() == kept
    assert (mine / "a_new.ipynb").read_bytes() == (source / "a.ipynb").read_bytes()

    (mine / "a_new.ipynb").unlink()  # not wanted
    assert not bring_notebooks(source, mine).beside
    store(source / "a.ipynb", "a better", printed="only the output is new")
    assert not bring_notebooks(source, mine).beside
    assert copied(mine).keys() == {"a.ipynb", "b.ipynb"}
    assert (mine / "a.ipynb").read_bytes() == kept


def test_a_version_put_beside_is_renewed_until_it_is_changed_too(source, mine):
    store(mine / "a.ipynb", "a of mine")
    for better in ("a better", "a best"):
        store(source / "a.ipynb", better)
        assert bring_notebooks(source, mine).beside == {"a.ipynb": "a_new.ipynb"}
        assert (mine / "a_new.ipynb").read_bytes() == (source / "a.ipynb").read_bytes()
    store(mine / "a_new.ipynb", "also of mine")
    store(source / "a.ipynb", "a best of all")
    assert bring_notebooks(source, mine).beside == {"a.ipynb": "a_new2.ipynb"}
    assert nbformat.read(mine / "a_new.ipynb", as_version=4).cells[0].source == "also of mine"


def test_a_copy_that_was_removed_comes_back(source, mine):
    store(mine / "a.ipynb", "a of mine")
    (mine / "a.ipynb").rename(mine / "my a.ipynb")
    assert bring_notebooks(source, mine).new == ["a.ipynb"]
    assert copied(mine).keys() == {"a.ipynb", "b.ipynb", "my a.ipynb"}


def test_what_the_reader_adds_stays(source, mine):
    store(mine / "c.ipynb", "c of mine")
    (mine / "my.jpg").write_bytes(b"a photograph")
    before = copied(mine)
    store(source / "b.ipynb", "b better")
    store(source / "c.ipynb", "c comes with hirelab")
    assert bring_notebooks(source, mine).beside == {"c.ipynb": "c_new.ipynb"}
    after = copied(mine)
    assert after["my.jpg"] == before["my.jpg"]
    assert after["c.ipynb"] == before["c.ipynb"]


@pytest.mark.parametrize("damage", ["", "no json", "[]", '{"cells": [{}]}'])
def test_what_is_no_notebook_is_kept_as_well(source, mine, damage):
    (mine / "a.ipynb").write_text(damage)
    store(source / "a.ipynb", "a better")
    assert bring_notebooks(source, mine).beside == {"a.ipynb": "a_new.ipynb"}
    assert (mine / "a.ipynb").read_text() == damage


@pytest.mark.parametrize("damage", [None, "no json", "[]", '{"a.ipynb": {"strange": 1}}'])
def test_without_its_notes_it_takes_every_other_version_for_the_readers(source, mine, damage):
    (mine / copies.NOTES).unlink()
    if damage:
        (mine / copies.NOTES).write_text(damage)
    store(source / "a.ipynb", "a better")
    brought = bring_notebooks(source, mine)
    assert brought.beside == {"a.ipynb": "a_new.ipynb"}
    assert brought.renewed == ["b.ipynb"]  # the same as the project's, so nothing is lost


def test_an_interruption_leaves_whole_files_and_the_next_call_goes_on(
    source, tmp_path, monkeypatch
):
    folder, write = tmp_path / "mine", copies.write_atomic

    def interrupted(path, data):
        if path.name == "b.ipynb":
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(copies, "write_atomic", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bring_notebooks(source, folder)
    assert files(folder) == {"a.ipynb": (source / "a.ipynb").read_bytes()}
    monkeypatch.undo()
    bring_notebooks(source, folder)
    store(source / "a.ipynb", "a better")
    assert bring_notebooks(source, folder).renewed == ["a.ipynb"]


def test_an_interruption_puts_no_version_beside_twice(source, mine, monkeypatch):
    store(mine / "a.ipynb", "a of mine")
    store(source / "a.ipynb", "a better")
    monkeypatch.setattr(copies, "_write_notes", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        bring_notebooks(source, mine)
    monkeypatch.undo()
    bring_notebooks(source, mine)
    assert copied(mine).keys() == {"a.ipynb", "a_new.ipynb", "b.ipynb"}


def test_the_projects_own_folder_is_opened_as_it_is(source):
    before = files(source)
    store(source / "a.ipynb", "changed by who writes it")
    before["a.ipynb"] = (source / "a.ipynb").read_bytes()
    bring_notebooks(source, source.parent / "notebooks" / ".." / "notebooks")
    assert files(source) == before


def test_a_folder_that_cannot_be_written_is_said(source, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HirelabError, match=r"cannot be written to .*name another.* --folder"):
        bring_notebooks(source, tmp_path / "file")


@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="no git here")
def test_git_does_not_see_the_copies():
    seen = ["git", "check-ignore", "--quiet", copies_folder() / "00_start_here.ipynb"]
    assert subprocess.run(seen, cwd=ROOT).returncode == 0
