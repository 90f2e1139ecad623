"""RearrangementPlayer: the steps of the rearrangement as a film that can be stopped anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import nn

from ..rearrange import AXES, CROSS_REGIONS, PADDINGS, Rearrangement
from ..viz import animation, grids
from ..viz.canvas import Still
from .explorer import Explorer, choice, slider, toggle
from .inputs import missing_stage, square_image, stage_table

LAST = len(animation.moments()) - 1


class RearrangementPlayer(Explorer):
    """Shift, cut and pad, mix, crop, restore: press play, or drag the frame.

    Mixing is shown as the mean over a region. `film` gives it as a GIF, which also plays
    on a page without a kernel.

    Args:
        model: the network whose stages are shown; by default Hire-MLP-Tiny's sizes.
        image: a tensor (3, H, W), a file, a sample's name, a PIL image or an array.
        settings: see ``RearrangementPlayer.Settings``.
    """

    title = "The rearrangement, step by step"
    last = LAST

    @dataclass(frozen=True)
    class Settings:
        frame: int = slider(0, 0, LAST, "frame", play=True)
        stage: int = choice(3, (1, 2, 3, 4), "stage")
        shift: int = slider(2, -8, 8, "shift")
        region: int = slider(3, 1, 8, "region")
        padding: str = choice("circular", PADDINGS, "padding")
        cross_region: str = choice("shift", CROSS_REGIONS, "cross-region")
        restore: bool = toggle(True, "restore")

    def __init__(self, model: nn.Module | None = None, image: Any = None, **settings: Any):
        self._stages = stage_table(model)
        self._source = square_image(image)
        super().__init__(**settings)

    def problem(self, s: Settings) -> str | None:
        return missing_stage(self._stages, s.stage)

    def facts(self, s: Settings) -> dict[str, Any]:
        return {"step": animation.STEPS[animation.moments(s.restore)[s.frame].step]}

    def draw(self, s: Settings) -> Image.Image:
        return self._frame(s, s.frame, scale=2)

    def _frame(self, s: Settings, index: int, scale: int) -> Image.Image:
        size = self._stages[s.stage - 1]["grid"]
        shift = 0 if s.cross_region == "none" else s.shift
        r = Rearrangement(size, s.region, shift, s.padding, s.cross_region, s.restore)
        tokens = grids.token_colors(self._source, size)
        return animation.frame(
            tokens, dict.fromkeys(AXES, r), animation.moments(s.restore)[index], scale
        )

    def film(self) -> Still:
        """The whole film as a GIF, with the settings in force."""
        s = self.settings
        frames = [self._frame(s, i, scale=1) for i in range(LAST + 1)]
        return Still(animation.gif(frames), f"film of {self!r}")
