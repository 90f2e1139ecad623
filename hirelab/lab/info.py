"""What `hirelab info` prints: versions, device, threads and the data folders found."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .._shared.files import data_folder

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
    """Return what one would put into a bug report: a line a fact, name and value in two columns."""
    facts = [*_versions(), *_machine(), *_data_folders()]
    return "\n".join(f"{name:<14}{value}".rstrip() for name, value in facts)


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
    """The folder that HIRELAB_DATA names, with its archives, and the project's own."""
    named = os.environ.get("HIRELAB_DATA")
    if not named:
        yield "HIRELAB_DATA", "not set"
    elif not Path(named).is_dir():
        yield "HIRELAB_DATA", f"{named} (there is no such folder)"
    else:
        found = archives(Path(named))
        yield "HIRELAB_DATA", f"{named} ({len(found)} archive{'s' * (len(found) != 1)})"
        for path in found:
            yield "", f"{path.name}, {path.stat().st_size / 1e6:.1f} MB"
    own = data_folder("")
    yield "data", str(own) if own.is_dir() else f"{own} does not exist"


def archives(folder: Path) -> list[Path]:
    """Return the archives that lie directly in ``folder``, sorted by name."""
    files = (path for path in folder.iterdir() if path.is_file())
    return sorted(path for path in files if path.name.lower().endswith(ARCHIVES))
