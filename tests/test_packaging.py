"""The set-up files say the same thing, and what they promise is there."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from nbval.plugin import get_sanitize_patterns
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, TOOLS = SETTINGS["project"], SETTINGS["tool"]
# Packages whose import has another name than the package
IMPORTED_AS = {
    "scikit-image": "skimage",
    "pillow": "pil",
    "lazy-loader": "lazy_loader",
    "segmentation-models-pytorch": "segmentation_models_pytorch",
}


def requirements(specs: list[str]) -> dict[str, Requirement]:
    parsed = map(Requirement, specs)
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


RUNTIME = requirements(PROJECT["dependencies"])
DECLARED = RUNTIME | requirements(PROJECT["optional-dependencies"]["dev"])


def constraints() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return requirements([line for line in lines if line and not line.startswith("#")])


def conda() -> tuple[list[str], list[str]]:
    """The conda and the pip part of environment.yml."""
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    return (
        [entry for entry in listed if isinstance(entry, str)],
        next(entry["pip"] for entry in listed if isinstance(entry, dict)),
    )


def test_environment_lists_the_packages_of_pyproject():
    _, pip = conda()
    listed = requirements([spec for spec in pip if not spec.startswith("-")])
    assert {name: r.specifier for name, r in listed.items()} == {
        name: r.specifier for name, r in DECLARED.items()
    }


def test_environment_takes_only_python_from_conda_and_installs_this_project():
    packages, pip = conda()
    assert [re.split(r"[ =<>]", package)[0] for package in packages] == ["python", "pip"]
    python = Version(packages[0].removeprefix("python="))
    assert python in Requirement("python" + PROJECT["requires-python"]).specifier
    assert {"-e .", "-c constraints.txt"} <= set(pip)


@pytest.mark.parametrize("name", DECLARED)
def test_constraints_pin_every_declared_package_within_its_range(name):
    (pin,) = constraints()[name].specifier
    assert pin.operator == "=="
    assert Version(pin.version) in DECLARED[name].specifier


def test_constraints_pin_what_the_declared_packages_bring():
    """Nothing more and nothing less, or two set-ups of one commit would differ."""
    if any(metadata.version(name) not in constraints()[name].specifier for name in DECLARED):
        pytest.skip("other versions are installed, by `make oldest` or `make latest`")
    todo, brought = [*DECLARED.values(), Requirement("setuptools")], set()
    while todo:
        requirement = todo.pop()
        if (requirement.name, key := frozenset(requirement.extras)) in brought:
            continue
        brought.add((requirement.name, key))
        for further in map(Requirement, metadata.requires(requirement.name) or []):
            extras = ({"extra": extra} for extra in ("", *requirement.extras))
            if further.marker is None or any(map(further.marker.evaluate, extras)):
                todo.append(further)
    on_linux = {n for n, r in constraints().items() if r.marker is None or r.marker.evaluate()}
    assert on_linux == {canonicalize_name(name) for name, _ in brought}


def test_the_oldest_versions_are_the_lower_bounds():
    script = [sys.executable, ROOT / ".ci" / "oldest.py"]
    printed = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    pins = requirements(printed.splitlines())
    assert pins.keys() == DECLARED.keys()
    for name, pin in pins.items():
        assert str(pin.specifier) == str(DECLARED[name].specifier).replace(">=", "==")


def test_constraints_ask_for_cuda_on_linux_only():
    for name, requirement in constraints().items():
        if name.startswith(("nvidia", "cuda", "triton")):
            assert requirement.marker is not None, name
            assert not requirement.marker.evaluate({"sys_platform": "darwin"}), name


def test_every_import_of_the_package_is_declared():
    extras = PROJECT["optional-dependencies"]
    optional = requirements(
        [*extras["export"], *extras["cluster"], *extras["dense"], *extras["site"]]
    )
    declared = {IMPORTED_AS.get(name, name) for name in RUNTIME | optional}
    for path in (ROOT / "hirelab").rglob("*.py"):
        imported = {name.split(".")[0].lower() for name in absolute_imports(path)}
        undeclared = imported - declared - set(sys.stdlib_module_names) - {"hirelab"}
        assert not undeclared, f"{path.name} imports {undeclared}"


def absolute_imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
    return names


def test_citation_names_this_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == PROJECT["version"]
    assert citation["license"] == PROJECT["license"] == "MIT"
    (paper,) = citation["references"]
    assert "2108.13341" in paper["url"]
    assert len(paper["authors"]) == 8


def test_package_and_project_have_one_version():
    import hirelab

    assert hirelab.__version__ == PROJECT["version"]


# The wheel

AWAY = """
import sys
from pathlib import Path

sys.path = [folder for folder in sys.path if not (Path(folder) / "pyproject.toml").exists()]

import hirelab as hl
from hirelab import cli, paper
from hirelab._shared.files import notebooks_folder
from hirelab.lab import exercises
from hirelab.lab.copies import bring_notebooks, copies_folder

assert Path(hl.__file__).parents[1] == Path(sys.argv[1]), hl.__file__
images, _ = hl.samples(1)
print("classes", *hl.create("hire_mlp_pico", pretrained=True)(images).shape)
print(paper.ablation("shift"))
explorer = hl.ShiftExplorer()
explorer.set(shift=2)
print(explorer.state())
exercises.padded_rows.check(3)
print(bring_notebooks(notebooks_folder(), copies_folder()))
for command in (["info"], ["evaluate", "--help"], ["notebooks"], ["bench"]):
    try:
        print(command[0], "ends with", cli.main(command))
    except SystemExit as ended:
        print(command[0], "ends with", ended.code)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout, built from a copy: building leaves folders behind."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("hirelab", "data", "notebooks"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    command = [sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", folder, source]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_every_folder_of_the_package_is_listed():
    listed = TOOLS["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "hirelab").rglob("*.py")}
    assert sorted(listed) == sorted(
        [*(".".join(f.parts) for f in folders), "hirelab._data", "hirelab._notebooks"]
    )


def test_the_wheel_holds_every_file_that_the_package_reads(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    inside = [path for path in (ROOT / "hirelab").rglob("*") if path.is_file()]
    data = [ROOT / "data" / "peers.csv"]
    rooms = ("paper", "weights", "results/dense", "results/ablations")
    whole = [path for room in rooms for path in (ROOT / "data" / room).rglob("*")]
    data += [path for path in whole if path.is_file()]
    expected = {str(p.relative_to(ROOT)) for p in inside if p.suffix != ".pyc"}
    expected |= {f"hirelab/_data/{p.relative_to(ROOT / 'data')}" for p in data}
    expected |= {f"hirelab/_notebooks/{p.name}" for p in (ROOT / "notebooks").glob("*.ipynb")}
    assert {"hirelab/__init__.pyi", "hirelab/py.typed", "hirelab/lab/gallery.css"} <= expected
    assert sorted(expected - held) == []


def test_the_wheel_works_away_from_the_checkout(wheel, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    zipfile.ZipFile(wheel).extractall(site)
    elsewhere.mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", AWAY, str(site)],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    for part in (
        "classes 1 10\n",
        "ImageNet top-1 (%) by shift",
        "'shift': 2",
        "Right.",
        "info ends with 0",
        "usage: hirelab evaluate",
        "evaluate ends with 0",
        f"your notebooks: {elsewhere / 'hirelab_notebooks'} (",
        *(f"{command} ends with 2" for command in ("notebooks", "bench")),
    ):
        assert part in ran.stdout
    assert re.search(rf"^data +{re.escape(str(site / 'hirelab' / '_data'))}$", ran.stdout, re.M)
    said = [line for line in ran.stderr.splitlines() if line.startswith("hirelab:")]
    assert len(said) == 2
    assert all("clone the repository" in line for line in said)


# make


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make as a reader does, also where these tests are themselves run by make."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=outside, capture_output=True, text=True
    )


TARGETS = ("lab", "test", "lint", "coverage", "mutants", "oldest", "notebooks", "gallery", "bench")


@pytest.mark.parametrize("target", TARGETS)
def test_make_knows_its_targets(target):
    asked = make("--dry-run", target, "VENV=/nonexistent")
    assert asked.returncode == 0, asked.stderr
    assert "pip install" in asked.stdout  # every target sets up first


def test_make_installs_nothing_once_the_stamp_is_there(tmp_path):
    (tmp_path / ".installed").touch()
    asked = make("--dry-run", "lab", f"VENV={tmp_path}")
    assert asked.stdout.split() == [f"{tmp_path}/bin/python", "-m", "hirelab", "lab"]


def test_make_says_which_python_it_needs(tmp_path):
    old = tmp_path / "python"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{OLD_PYTHON}" "$2"\n')
    old.chmod(0o755)
    asked = make("setup", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert asked.returncode != 0
    assert "needs Python 3.11 or newer" in asked.stderr
    assert not (tmp_path / "venv").exists()


# Runs the code it is given as if this Python were an old one
OLD_PYTHON = "import sys; sys.version_info = (3, 9); sys.version = '3.9.1 (x)'; exec(sys.argv[1])"


def test_every_sanitizing_rule_is_loaded():
    file = ROOT / "notebooks" / "sanitize.cfg"
    rules = re.findall(r"^\[", file.read_text(), flags=re.MULTILINE)
    patterns = get_sanitize_patterns(file.read_text())
    assert len(patterns) == len(rules) > 0


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("<object at 0x7f5c4694f340>", "<object at ADDRESS>"),
        ("took 3.2 ms", "took DURATION"),
        ("stage 2, 56 tokens, 4 sums", "stage 2, 56 tokens, 4 sums"),
    ],
)
def test_sanitizing_masks_addresses_and_durations_only(text, masked):
    patterns = get_sanitize_patterns((ROOT / "notebooks" / "sanitize.cfg").read_text())
    for pattern, replacement in patterns:
        text = re.sub(pattern, replacement, text)
    assert text == masked
