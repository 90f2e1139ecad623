"""What `hirelab info` prints: versions, device, threads and the data folders found."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .._shared.files import data_folder
from .._shared.tables import table
from ..datasets.subsets import DATA_SETS, find_data_set, own_folder

PACKAGES = (
    "hirelab",
    "torch",
    "torchvision",
    "timm",
    "captum",
    "jupyterlab",
    "ipywidgets",
    "matplotlib",
    "scikit-image",
)
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.xz", ".tar.zst")


def report() -> str:
    """Return what one would put into a bug report: one fact per line, name and value."""
    return table([*_versions(), *_machine(), *_data_folders(), *_data_sets()])


def _versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not installed"
        if package == "hirelab":
            yield "python", f"{platform.python_version()} on {platform.platform(terse=True)}"


def _machine() -> Iterator[tuple[str, str]]:
    import torch  # takes seconds, and only this command needs it

    if torch.cuda.is_available():
        yield "device", f"cuda ({torch.cuda.get_device_name()})"
    elif torch.backends.mps.is_available():
        yield "device", "mps"
    else:
        yield "device", "cpu"
    yield "threads", f"{torch.get_num_threads()} of {os.cpu_count()} processors"


def _data_folders() -> Iterator[tuple[str, str]]:
    """The folders that HIRELAB_DATA names, with their archives; hirelab's own; the project's."""
    named = os.environ.get("HIRELAB_DATA", "").split(os.pathsep)
    folders = [Path(one).expanduser() for one in named if one]
    if not folders:
        yield "HIRELAB_DATA", "not set"
    for i, folder in enumerate(folders):
        name = "" if i else "HIRELAB_DATA"
        if not folder.is_dir():
            yield name, f"{folder} (there is no such folder)"
            continue
        found = archives(folder)
        yield name, f"{folder} ({len(found)} archive{'s' * (len(found) != 1)})"
        for path in found:
            yield "", f"{path.name}, {path.stat().st_size / 1e6:.1f} MB"
    yield "HIRELAB_CACHE", str(own_folder())
    own = data_folder("")
    yield "data", str(own) if own.is_dir() else f"{own} does not exist"


def _data_sets() -> Iterator[tuple[str, str]]:
    """The data sets known by name: where each lies, then those that are not here."""
    found = {name: find_data_set(data) for name, data in DATA_SETS.items()}
    rows = [f"{name}: {path}" for name, path in found.items() if path]
    # what is made here when it is first used is never missing
    if absent := [name for name, path in found.items() if not path and not DATA_SETS[name].make]:
        rows.append(f"not here: {', '.join(absent)}")
    for i, row in enumerate(rows):
        yield "" if i else "data sets", row


def archives(folder: Path) -> list[Path]:
    """Return the archives that lie directly in ``folder``, sorted by name."""
    files = (path for path in folder.iterdir() if path.is_file())
    return sorted(path for path in files if path.name.lower().endswith(ARCHIVES))
