"""Write the API reference, from the docstrings alone, into a folder (docs/api): `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

import pdoc

import hirelab as hl

MODULES = [
    "hirelab",
    "hirelab.rearrange",
    "hirelab.hooks",
    "hirelab.hooks.edit",
    "hirelab.models",
    "hirelab.datasets",
    "hirelab.analysis",
    "hirelab.training",
    "hirelab.synthetic",
    "hirelab.ablation",
    "hirelab.dense",
    "hirelab.viz",
    "hirelab.widgets",
    "hirelab.lab.exercises",
    "hirelab.results",
    "hirelab.paper",
]


def main(folder: Path) -> None:
    """Write a page for every module in ``MODULES`` and its parts, and an index."""
    for name in hl.__all__:  # they load when first used; pdoc looks into the module's dictionary
        vars(hl)[name] = getattr(hl, name)
    pdoc.render.configure(docformat="google")
    pdoc.pdoc(*MODULES, output_directory=folder)
    print(f"open {folder / 'index.html'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "api")
