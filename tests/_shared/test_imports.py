"""Imports that wait: nothing heavy comes with `import hirelab`, and nothing is missing for it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import hirelab as hl
from hirelab._shared.imports import after_import


def in_a_new_process(code: str) -> str:
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_package_brings_no_heavy_library():
    code = "import sys, hirelab as hl; dir(hl); hl.training.recipes.PRESETS; print(*sys.modules)"
    loaded = set(in_a_new_process(code).split())
    assert "hirelab.training.recipes" in loaded
    assert not loaded & {"torch", "timm", "numpy", "matplotlib", "ipywidgets", "scipy"}


@pytest.mark.parametrize("order", ["hirelab, timm", "timm, hirelab"])
def test_timm_knows_the_networks_whoever_comes_first(order):
    code = f"import sys, {order}; print(timm.is_model('hire_mlp_tiny'), *sys.modules)"
    known, *loaded = in_a_new_process(code).split()
    assert known == "True"
    assert not {"matplotlib", "ipywidgets"} & set(loaded)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that counts how often it is run, and fails while a file says so."""
    folder = tmp_path / "hirelab_tested_package"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from pathlib import Path\nassert not (Path(__file__).parent / 'broken').exists()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    sys.modules.pop(folder.name, None)


def test_the_action_comes_once_after_the_first_import_that_succeeds(package):
    done, finders = [], list(sys.meta_path)
    after_import(package.name, lambda: done.append(package.name in sys.modules))
    (package / "broken").touch()
    with pytest.raises(AssertionError):
        __import__(package.name)
    assert not done
    (package / "broken").unlink()
    __import__(package.name)
    assert done == [True]
    assert sys.meta_path == finders
    del sys.modules[package.name]
    __import__(package.name)
    assert done == [True]


def test_a_package_that_is_there_gets_the_action_at_once():
    done: list[int] = []
    after_import("sys", lambda: done.append(1))
    assert done == [1]


def test_dir_has_every_public_name_and_nothing_else():
    assert dir(hl) == sorted(hl.__all__) == sorted(set(hl.__all__))
    rooms = {path.parent.name for path in Path(hl.__file__).parent.glob("[!_]*/__init__.py")}
    assert rooms - {"lab"} <= set(dir(hl))
    assert not [name for name in dir(hl) if name.startswith("_")]


def test_modules_of_a_room_need_no_import_of_their_own():
    assert hl.training.runs.RunConfig.__module__ == "hirelab.training.runs"
    assert hl.exercises is importlib.import_module("hirelab.lab.exercises")
    assert {"reach", "cost"} <= set(dir(hl.analysis))
    with pytest.raises(AttributeError):
        hl.analysis.nothing  # noqa: B018
