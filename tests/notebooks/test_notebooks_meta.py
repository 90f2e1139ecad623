"""What every stored notebook keeps to, checked without running it (nbval runs them)."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_is_valid_and_small(path, notebook):
    nbformat.validate(notebook)
    assert path.stat().st_size < 1_000_000


def test_says_nothing_of_the_machine_in_its_metadata(notebook):
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata.language_info) == {"name"}
    assert all(set(cell.metadata) <= {"tags", "jupyter"} for cell in notebook.cells)


def test_folds_what_answers_a_guess_and_nothing_else(notebook):
    for cell in notebook.cells:
        folded = {"outputs_hidden": True} if "answer" in cell.metadata.get("tags", []) else {}
        assert cell.metadata.get("jupyter", {}) == folded, cell.id


def test_was_run_once_from_top_to_bottom(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_shows_outputs_and_an_image(notebook):
    kinds = {kind for output in outputs(notebook) for kind in output.get("data", {})}
    assert kinds & {"image/png", "image/jpeg"}


def test_stored_no_error_that_was_not_meant(notebook):
    for cell in code_cells(notebook):
        failed = any(output.output_type == "error" for output in cell.outputs)
        assert failed == ("raises-exception" in cell.metadata.get("tags", []))


def test_stored_no_warnings(notebook):
    streams = [output for output in outputs(notebook) if output.output_type == "stream"]
    assert [stream.text for stream in streams if stream.name == "stderr"] == []


def test_an_image_stands_without_its_widget(notebook):
    for output in outputs(notebook):
        data = output.get("data", {})
        assert not (WIDGET_VIEW in data and {"image/png", "image/jpeg"} & set(data))


def test_keeps_logic_in_the_library(notebook):
    for cell in code_cells(notebook):
        assert len(cell.source.splitlines()) <= 15, cell.id
        assert not re.search(r"\binteract(ive)?\b|\binteractive_output\b|\bOutput\(", cell.source)


def test_has_no_path_of_a_machine(notebook):
    texts = [cell.source for cell in notebook.cells]
    for output in outputs(notebook):
        data = {kind: text for kind, text in output.get("data", {}).items() if "image/" not in kind}
        texts += [str(output.get("text", "")), str(data)]
    found = re.findall(r"(?:^|[\s\"'(=])((?:/[\w.-]+){2,}|[A-Z]:\\\S+)", "\n".join(texts))
    assert not found


def test_begins_with_a_title_and_a_question(notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert "$$" not in first.source
