"""How JupyterLab is started, and what its server drops from a notebook before it saves it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import nbformat
from jupyter_server.services.contents.filemanager import FileContentsManager
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from traitlets.config import PyFileConfigLoader

from hirelab import cli
from hirelab.lab import jupyter, jupyter_server_config

VIEW = {jupyter_server_config.WIDGET_VIEW: {"model_id": "1", "version_major": 2}}


def test_lab_listens_here_only_and_keeps_the_token(tmp_path):
    (tmp_path / jupyter.FIRST).touch()
    arguments = jupyter.lab_arguments(tmp_path, port=9000, browser=False)
    assert "--ServerApp.ip=127.0.0.1" in arguments
    assert "--ServerApp.port=9000" in arguments
    assert "--ServerApp.port_retries=0" in arguments
    assert "--no-browser" in arguments
    assert "--allow-root" not in arguments
    assert f"--LabApp.default_url=/lab/tree/{jupyter.FIRST}" in arguments
    assert not any("token" in argument or "password" in argument for argument in arguments)


def test_lab_opens_a_folder_without_the_first_notebook(tmp_path):
    arguments = jupyter.lab_arguments(tmp_path)
    assert not any("default_url" in argument or "port" in argument for argument in arguments)


def test_lab_opens_copies_and_starts_for_root_only_when_told_to(tmp_path, monkeypatch, capsys):
    started = []
    monkeypatch.setattr(jupyter.os, "execve", lambda *command: started.append(command))
    assert cli.main(["lab", "--folder", str(tmp_path), "--allow-root"]) == 0
    _, arguments, _ = started[0]
    assert arguments[1:3] == ["-m", "jupyterlab"]
    assert f"--ServerApp.root_dir={tmp_path.resolve()}" in arguments
    assert "--allow-root" in arguments
    assert (tmp_path / jupyter.FIRST).is_file()
    assert capsys.readouterr().out.startswith(f"your notebooks: {tmp_path} (")


def test_the_readers_own_settings_stay_on_jupyters_path():
    own = str(Path(jupyter.__file__).parent)
    assert jupyter.lab_environment({"A": "b"}) == {"A": "b", "JUPYTER_CONFIG_PATH": own}
    theirs = jupyter.lab_environment({"JUPYTER_CONFIG_PATH": "theirs"})["JUPYTER_CONFIG_PATH"]
    assert theirs.split(jupyter.os.pathsep) == [own, "theirs"]


def saved(folder: Path, notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook as a server with the lab's settings writes it, read again."""
    path = jupyter.lab_environment({})["JUPYTER_CONFIG_PATH"]
    config = PyFileConfigLoader("jupyter_server_config.py", path).load_config()
    manager = FileContentsManager(root_dir=str(folder), config=config)
    manager.save({"type": "notebook", "format": "json", "content": notebook}, "a.ipynb")
    return nbformat.read(folder / "a.ipynb", as_version=4)


def test_a_saved_notebook_has_the_image_and_not_its_widget(tmp_path):
    outputs = [
        new_output("display_data", {**VIEW, "image/webp": "eA==", "text/plain": "an explorer"}),
        new_output("execute_result", {**VIEW, "text/plain": "a slider"}),
        new_output("stream", text="printed"),
    ]
    cells = [new_markdown_cell("# Title"), new_code_cell("ui", outputs=outputs)]
    shown, slider, printed = saved(tmp_path, new_notebook(cells=cells)).cells[1].outputs
    assert set(shown.data) == {"image/webp", "text/plain"}
    assert set(slider.data) == {*VIEW, "text/plain"}  # nothing else would show it
    assert printed.text == "printed"


def test_other_files_are_saved_as_they_are(tmp_path):
    model = {"type": "file", "format": "text", "content": "text"}
    jupyter_server_config.before_saving(model=model, path="a.txt", contents_manager=None)
    assert model["content"] == "text"


def test_the_servers_settings_load_neither_hirelab_nor_torch():
    tree = ast.parse(Path(jupyter_server_config.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = [getattr(node, "module", None) or node.names[0].name for node in imports]
    assert {module.partition(".")[0] for module in modules} <= sys.stdlib_module_names
