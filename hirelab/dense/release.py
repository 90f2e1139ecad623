"""Putting a finished detector or segmenter into the checkout, in half precision."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from .._shared.errors import HirelabError
from .._shared.files import atomic, write_atomic
from .._shared.reading import read_object
from ..datasets.boxes import open_boxes
from ..datasets.label_maps import open_label_maps
from ..training.release import MOST_BYTES, halved
from ..training.runs import RUN, WEIGHTS
from .detection import Detector
from .evaluation import Detections, PixelEvaluation, evaluate_detector, evaluate_segmenter
from .factory import FOLDER, load_dense
from .segmentation import Segmenter

__all__ = ["release_dense"]


def release_dense(run: str | Path, name: str, licence: str) -> dict[str, Any]:
    """Put a finished run's network into `FOLDER` as ``name``; returns the manifest.

    Its matrices and kernels are halved, and the manifest's figures are those of the halved weights,
    measured here on the run's validation images.

    Args:
        run: the folder of a run of `train_dense` that came to its end.
        name: DATA.HEAD, such as "scenes.fpn".
        licence: under which the weights may be used, given what they were trained on.

    Raises:
        HirelabError: the run is not finished, the name is none, or the file would be too large.
    """
    run = Path(run)
    if not (run / WEIGHTS).is_file():
        raise HirelabError(f"{run} holds no finished run of `hirelab dense train`")
    if not re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", name):
        raise HirelabError(f"{name!r} is no name: give DATA.HEAD in lower case, as in scenes.fpn")
    info = read_object(run / RUN, "source", "command")
    model = load_dense(run / WEIGHTS)
    state = halved(model.state_dict())
    model.load_state_dict(state)
    found: Detections | PixelEvaluation
    if isinstance(model, Detector):
        found = evaluate_detector(model, open_boxes(info["source"], "val"))
        figures = {"box_ap": round(found.box["ap"], 2)}
        figures |= {"mask_ap": round(found.mask["ap"], 2)} if found.mask else {}
    else:
        assert isinstance(model, Segmenter)
        found = evaluate_segmenter(model, open_label_maps(info["source"], "val"))
        figures = {"miou": round(found.miou, 2)}
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.safetensors"
    with atomic(path) as temporary:
        save_file(state, temporary, {"hirelab": json.dumps(model.config)})
        size = temporary.stat().st_size
        if size > MOST_BYTES:
            raise HirelabError(
                f"{name} takes {size / 1e6:.1f} MB and at most {MOST_BYTES / 1e6:.0f} MB are "
                "released: make it smaller (--set model.width=64)"
            )
    content = {
        "name": name,
        "megabytes": round(path.stat().st_size / 1e6, 2),
        "parameters": sum(p.numel() for p in model.parameters()),
        **figures,
        "images": found.images,
        "licence": licence,
        **info,
        "command": re.sub(r"--out \S+", f"--out runs/{name}", info["command"]),
    }
    write_atomic(FOLDER / f"{name}.json", json.dumps(content, indent=1) + "\n")
    return content
