"""The trained weights that come with the checkout: where they lie, and what is known of them.

    path_of     the file of a name, NETWORK.TAG
    bundled     all names, each with its manifest
    manifest    how one was made and what it reaches

`hl.create("hire_mlp_pico", pretrained=True)` loads from here; nothing is downloaded.
`training.release` writes here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .._shared.errors import HirelabError, unknown
from .._shared.files import data_folder
from .._shared.reading import read_object

__all__ = ["FOLDER", "bundled", "manifest", "path_of"]

FOLDER = data_folder("weights")


def path_of(name: str) -> Path:
    """The weights' file of a name such as "hire_mlp_pico.imagenette", whether it exists or not."""
    return FOLDER / f"{name}.safetensors"


def bundled() -> dict[str, dict[str, Any]]:
    """{name: manifest} of all weights in the checkout, the oldest first: a network's first weights
    are those of its name alone, and a later release does not take their place."""
    found = {path.stem: read_object(path, "started") for path in FOLDER.glob("*.json")}
    return dict(sorted(found.items(), key=lambda one: (one[1]["started"], one[0])))


def manifest(name: str) -> dict[str, Any]:
    """How a bundled network was trained and what it reaches, as `training.release` wrote it.

    Raises:
        HirelabError: there is none of that name; the message suggests near ones.
    """
    known = bundled()
    if name not in known:
        cure = f"Bundled are {', '.join(known) or 'none'}, in {FOLDER}."
        raise HirelabError(unknown("bundled network", name, known, cure))
    return known[name]
