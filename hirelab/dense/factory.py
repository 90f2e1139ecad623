"""The detector or segmenter in a file."""

from __future__ import annotations

from pathlib import Path

from .backbone import DenseNetwork, load_weights, read_config
from .detection import Detector
from .segmentation import Segmenter

__all__ = ["load_dense"]

_TASKS: dict[str, type[DenseNetwork]] = {"detection": Detector, "segmentation": Segmenter}


def load_dense(path: str | Path) -> DenseNetwork:
    """The `Detector` or `Segmenter` in a file of its ``save``, in evaluation mode.

    Nothing in the file is executed.

    Raises:
        HirelabError: there is no such file, or it holds something else.
    """
    config = read_config(path)
    network = _TASKS[config.pop("task")](**config)
    load_weights(network, path)
    return network.eval()
