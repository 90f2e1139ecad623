"""RearrangementPlayer: the steps of the rearrangement, an animation to stop anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import nn

from ..rearrange import AXES, CROSS_REGIONS, PADDINGS, Rearrangement
from ..viz import animation, grids
from ..viz.figures import Figure
from .controls import choice, slider, toggle
from .inputs import square_image
from .network import StageExplorer

LAST = len(animation.moments()) - 1


class RearrangementPlayer(StageExplorer):
    """Shift, cut and pad, mix, crop, restore: press play, or drag the frame.

    Mixing is shown as the mean over a region. `animation` gives it as a GIF, which also
    plays on a page without a kernel.

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
        stage: int = choice(2, range(4), "stage")
        shift: int = slider(2, -8, 8, "shift")
        region: int = slider(3, 1, 8, "region")
        padding: str = choice("circular", PADDINGS, "padding")
        cross_region: str = choice("shift", CROSS_REGIONS, "cross-region")
        restore: bool = toggle(True, "restore")

    def __init__(self, model: nn.Module | None = None, image: Any = None, **settings: Any):
        self._source = square_image(image)
        super().__init__(model, **settings)

    def facts(self, s: Settings, measured: None) -> dict[str, Any]:
        step = animation.moments(s.restore)[s.frame].step
        return {"at": self.stage(s).name, "step": animation.STEPS[step]}

    def draw(self, s: Settings, measured: None) -> Image.Image:
        return self.moment(s, s.frame, scale=2)

    def moment(self, s: Settings, frame: int, scale: int) -> Image.Image:
        """One frame of the animation at ``scale`` pixels per logical pixel."""
        size = self.stage(s).grid
        shift = 0 if s.cross_region == "none" else s.shift
        r = Rearrangement(size, s.region, shift, s.padding, s.cross_region, s.restore)
        tokens = grids.token_colors(self._source, size)
        return animation.frame(
            tokens, dict.fromkeys(AXES, r), animation.moments(s.restore)[frame], scale
        )

    def animation(self) -> Figure:
        """All frames as a GIF, with the current settings."""
        s = self.settings
        frames = [self.moment(s, i, scale=1) for i in range(LAST + 1)]
        return Figure(animation.gif(frames), f"animation of {self!r}")
