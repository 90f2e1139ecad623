"""Finished detectors and segmenters: loading one, and putting one into the checkout.

load_dense     a file, or the name of a bundled one -> the network
bundled        what comes with the checkout, each with its manifest
release_dense  a finished run -> the files of data/weights/dense
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .._shared.errors import HirelabError, brief, naming, unknown
from .._shared.files import data_folder
from .._shared.reading import read_object
from ..models.checkpoints import check_fits, read
from ..training.runs import WEIGHTS
from .backbone import DenseNetwork, load_weights, read_config
from .detection import Detector
from .segmentation import Segmenter

__all__ = ["FOLDER", "bundled", "load_dense"]

FOLDER = data_folder("weights") / "dense"

_TASKS: dict[str, type[DenseNetwork]] = {"detection": Detector, "segmentation": Segmenter}


def bundled() -> dict[str, dict[str, Any]]:
    """{name: manifest} of the detectors and segmenters that come with the checkout."""
    return {path.stem: read_object(path) for path in sorted(FOLDER.glob("*.json"))}


def load_dense(path: str | Path) -> DenseNetwork:
    """A trained `Detector` or `Segmenter`, in evaluation mode.

    Args:
        path: a finished run's folder, a file of its ``save``, or the name of one that comes with
            hirelab, such as "scenes.mask_rcnn" (`bundled` lists them). Nothing in the file is
            executed.

    Raises:
        HirelabError: there is no such file or name, the run has not ended, or the file holds
            something else.
    """
    known = bundled()
    if str(path) in known:
        path = FOLDER / f"{path}.safetensors"
    elif Path(path).is_dir():
        path = Path(path) / WEIGHTS
        if not path.is_file():
            raise HirelabError(
                f"{path.parent} holds no finished run of `hirelab dense train`, which writes "
                f"{path.name} at its end; the same command goes on with one that was stopped."
            )
    elif Path(path).suffix != ".safetensors" and not Path(path).exists():
        cure = f"Bundled are {', '.join(known) or 'none'}; or give a file."
        raise HirelabError(unknown("detector or segmenter", str(path), known, cure))
    config = read_config(path)
    task = config.pop("task", None)
    if task not in list(_TASKS):
        raise HirelabError(
            f"{path} holds a network for {brief(task)}; hirelab knows {' and '.join(_TASKS)}."
        )
    with naming(path, "a detector or segmenter"):
        # without numbers first: a config could ask for more memory than there is
        with torch.device("meta"):
            check_fits(_TASKS[task](**{**config, "pretrained": False}), read(path), str(path))
        network = _TASKS[task](**{**config, "pretrained": False})
        load_weights(network, path)
    return network.eval()
