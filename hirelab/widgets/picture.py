"""What the explorers look at: a square picture and the stages of a network."""

from __future__ import annotations

from typing import Any

from PIL import Image
from torch import Tensor, nn

from ..datasets.samples import picture, pixels, square

SIDE = 224  # pixels; the input of the paper's networks


def square_picture(source: Any = None) -> Image.Image:
    """A 224 x 224 RGB picture from a normalised tensor (3, H, W), or from anything that
    `hirelab.datasets.samples.picture` opens (a file, a name, a PIL image, an array).

    Raises:
        ValueError: for a tensor of another shape, or one with NaN.
    """
    if source is None:
        source = "coffee"
    if isinstance(source, Tensor):
        if source.dim() != 3 or source.shape[0] != 3:
            raise ValueError(
                f"The picture is a tensor of shape {list(source.shape)}; give one picture "
                "(3, height, width), say x[0] of a batch x."
            )
        source = Image.fromarray(pixels(source[None])[0])
    return square(picture(source), SIDE)


def stage_table(model: nn.Module | None) -> list[dict[str, int]]:
    """grid, dim, region, shift and cycle of every stage of a network at 224 x 224 pixels.

    Without a network: those of Hire-MLP-Tiny, whose stages Small and Base share.
    """
    if model is None:
        from ..models import create

        model = create("hire_mlp_tiny", device="meta")
    rows = []
    for i, (stage, info) in enumerate(zip(model.stages, model.feature_info, strict=True)):
        branches = [block.hire.height or block.hire.width for block in stage.blocks]
        rows.append(
            {
                "grid": SIDE // info["reduction"],
                "dim": info["num_chs"],
                "region": branches[0].region,
                # block 0 never shifts; block 1 shifts by the stage's step
                "shift": branches[1].shift if len(branches) > 1 else 0,
                "cycle": model.shift_cycle[i],
            }
        )
    return rows
