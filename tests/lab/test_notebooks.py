"""Running notebooks: the same bytes twice, whole or not at all."""

from __future__ import annotations

import base64
import io
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from hirelab import cli
from hirelab._shared.errors import HirelabError
from hirelab.lab import notebooks
from hirelab.lab.jupyter_server_config import WIDGET_VIEW

FILE = io.BytesIO()
Image.new("RGB", (40, 20), "red").save(FILE, format="PNG")
SHOW = f"""import base64
from IPython.display import display
data = {{
    "image/png": "{base64.b64encode(FILE.getvalue()).decode()}",
    "text/plain": "a red image",
    "{WIDGET_VIEW}": {{"model_id": "1", "version_major": 2}},
}}
display(data, raw=True)"""


def store(path, *cells):
    nbformat.write(new_notebook(cells=list(cells)), path)
    return path


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A notebook that was run, and the bytes after a first and a second run."""
    data = tmp_path_factory.mktemp("data")
    (data / "imagenette_160px.zip").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HIRELAB_DATA", str(data))
        yield from run_twice(tmp_path_factory)


def run_twice(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "00 first.ipynb"
    store(
        path,
        new_markdown_cell("# First"),
        new_code_cell(SHOW, metadata={"collapsed": True, "tags": ["thumbnail"]}),
        new_code_cell("import os\nprint(os.environ['OMP_NUM_THREADS'], 'thread')\nprint('end')"),
        new_code_cell("import ipywidgets\nslider = ipywidgets.IntSlider()"),
        new_code_cell("1 / 0", metadata={"tags": ["raises-exception"]}),
        new_code_cell(
            "from hirelab.datasets import subsets\nprint(subsets.find_data_set("
            "subsets.known_data_set('imagenette')))",
            metadata={"tags": ["answer"]},
        ),
    )
    notebooks.run_notebook(path)
    once = path.read_bytes()
    notebooks.run_notebook(path)
    yield path, once, path.read_bytes()


def test_a_second_run_changes_no_byte(ran):
    _, once, twice = ran
    assert once == twice


def test_a_run_stores_outputs_of_one_thread(ran):
    cells = nbformat.read(ran[0], as_version=4).cells
    assert [cell.execution_count for cell in cells[1:]] == [1, 2, 3, 4, 5]
    assert cells[2].outputs[0].text == "1 thread\nend\n"


def test_a_run_leaves_nothing_of_the_machine(ran):
    notebook = nbformat.read(ran[0], as_version=4)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    assert [cell.id for cell in notebook.cells] == [f"00-first-{n:02d}" for n in range(6)]
    assert notebook.cells[1].metadata == {"tags": ["thumbnail"]}
    assert set(notebook.cells[1].outputs[0].data) == {"image/png", "text/plain"}


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg"])
def test_an_image_stands_in_for_its_widget(kind):
    view = {WIDGET_VIEW: {"model_id": "1"}, kind: "AAAA", "text/plain": "x"}
    cell = new_code_cell("x", outputs=[new_output("display_data", view)])
    notebooks.normalise(notebook := new_notebook(cells=[cell]), "name")
    assert set(notebook.cells[0].outputs[0].data) == {kind, "text/plain"}


def test_an_answer_is_folded(ran):
    cells = nbformat.read(ran[0], as_version=4).cells
    assert cells[5].metadata == {"tags": ["answer"], "jupyter": {"outputs_hidden": True}}
    assert [cell.id for cell in cells if "jupyter" in cell.metadata] == [cells[5].id]


def test_a_run_sees_no_data_set_of_this_machine(ran):
    assert nbformat.read(ran[0], as_version=4).cells[5].outputs[0].text == "None\n"


def test_a_widget_without_a_image_keeps_its_reference():
    view = {WIDGET_VIEW: {"model_id": "1"}, "text/plain": "IntSlider()"}
    cell = new_code_cell("slider", outputs=[new_output("display_data", view)])
    notebooks.normalise(notebook := new_notebook(cells=[cell]), "name")
    assert WIDGET_VIEW in notebook.cells[0].outputs[0].data


def test_a_failing_notebook_stays_as_it_was(tmp_path, capsys):
    store(tmp_path / "a.ipynb", new_code_cell("x = 1"))
    broken = store(tmp_path / "b.ipynb", new_code_cell("x = 1"), new_code_cell("{}['shift']"))
    before = broken.read_bytes()
    assert cli.main(["notebooks", "--notebooks", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert "b.ipynb: code cell 2 raised KeyError: 'shift'; the file was left as it was" in (
        printed.err
    )
    assert "\x1b" not in printed.err
    assert broken.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ipynb", "b.ipynb"]
    assert "[1/2] a.ipynb" in printed.out


def test_a_dying_kernel_is_said(tmp_path):
    path = store(tmp_path / "a.ipynb", new_code_cell("import os\nos._exit(1)"))
    with pytest.raises(HirelabError, match=r"a\.ipynb: Kernel died"):
        notebooks.run_notebook(path)


INTERRUPTED = """
import asyncio, os, signal, sys
import nbclient
from hirelab import cli

def interrupted(self, *args, **kwargs):
    asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGINT)
    return wait(self)

async def wait(self):
    while self.km is not None:
        await asyncio.sleep(0.05)

nbclient.NotebookClient.async_execute_cell = interrupted
sys.exit(cli.main(["notebooks", "a", "--notebooks", sys.argv[1]]))
"""


def test_an_interruption_is_one_though_nbclient_takes_it_for_itself(tmp_path):
    """In a process of its own: a signal is the whole process's."""
    path = tmp_path / "a.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), path)
    before = path.read_bytes()
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 130, ran.stderr
    assert "stopped by Ctrl-C" in ran.stderr
    assert path.read_bytes() == before


def test_a_file_that_is_no_notebook_is_said(tmp_path):
    (tmp_path / "a.ipynb").write_text("no json")
    with pytest.raises(HirelabError, match="is not a notebook"):
        notebooks.read(tmp_path / "a.ipynb")


def test_finding_notebooks(tmp_path):
    with pytest.raises(HirelabError, match="there is no notebook in"):
        notebooks.find(tmp_path)
    for name in ("01_region", "00_start"):
        (tmp_path / f"{name}.ipynb").touch()
    assert [path.stem for path in notebooks.find(tmp_path)] == ["00_start", "01_region"]
    assert [path.stem for path in notebooks.find(tmp_path, ["01_region.ipynb"])] == ["01_region"]
    with pytest.raises(HirelabError, match="01_region"):
        notebooks.find(tmp_path, ["01_regoin"])
