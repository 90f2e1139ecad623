"""RearrangementPlayer: the steps of the rearrangement, an animation to stop anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image

from ..rearrange import AXES, CROSS_REGIONS, PADDINGS, Rearrangement
from ..viz import animation, grids
from ..viz.figures import Figure
from .controls import choice, slider, toggle
from .network import StageExplorer
from .phrases import several

LAST = len(animation.moments()) - 1


class RearrangementPlayer(StageExplorer):
    """Shift, cut and pad, mix, crop, restore: press play, or drag the frame.

    Mixing is shown as the mean over a region. `animation` gives it as a GIF, which also
    plays on a page without a kernel.

    Args:
        model: the network whose stages are shown; by default Hire-MLP-Tiny's sizes.
        image: a tensor (3, H, W), a file, a sample's name, a PIL image or an array.
        img_size: the side of the image in pixels; by default the one the network was made for, 224
            where nothing tells.
        settings: see ``RearrangementPlayer.Settings``.
    """

    title = "The rearrangement, step by step"
    last = LAST
    pictured = True

    @dataclass(frozen=True)
    class Settings:
        frame: int = slider(0, 0, LAST, "frame", play=True)
        stage: int = choice(2, range(4), "stage")
        shift: int = slider(2, -8, 8, "shift")
        region: int = slider(3, 1, 8, "region")
        padding: str = choice("circular", PADDINGS, "padding")
        cross_region: str = choice("shift", CROSS_REGIONS, "cross-region")
        restore: bool = toggle(True, "restore")

    def facts(self, s: Settings, measured: None) -> dict[str, Any]:
        step = animation.moments(s.restore)[s.frame].step
        return {"at": self.stage(s).name, "step": animation.STEPS[step]}

    def words(self, s: Settings, measured: None) -> str:
        r = self._rearrangement(s)
        moved = {
            "shift": f"Every line moves by {s.shift}; what leaves at one end comes in at the other."
            if s.shift
            else "A shift of 0 moves nothing.",
            "shuffle": "Tokens of all regions take turns, as channels do in ShuffleNet.",
            "none": "This mode moves nothing.",
        }
        padded = f"; the last is filled up with {several(r.pad, 'place')}" if r.pad else ""
        return (
            f"The map as a block gets it: {r.size} x {r.size} tokens.",
            moved[s.cross_region],
            f"Each axis is cut into {several(r.regions, 'region')} of {s.region}{padded}.",
            "In each region every token becomes a mixture of all of them; here, their mean.",
            "What was padded is cut off.",
            "Every token goes back to its own position.",
        )[animation.moments(s.restore)[s.frame].step]

    def draw(self, s: Settings, measured: None) -> Image.Image:
        return self.moment(s, s.frame, scale=2)

    def _rearrangement(self, s: Settings) -> Rearrangement:
        shift = 0 if s.cross_region == "none" else s.shift
        size = self.stage(s).grid
        return Rearrangement(size, s.region, shift, s.padding, s.cross_region, s.restore)

    def moment(self, s: Settings, frame: int, scale: int) -> Image.Image:
        """One frame of the animation at ``scale`` pixels per logical pixel."""
        r = self._rearrangement(s)
        tokens = grids.token_colors(self._image, r.size)
        return animation.frame(
            tokens, dict.fromkeys(AXES, r), animation.moments(s.restore)[frame], scale
        )

    def animation(self) -> Figure:
        """All frames as a GIF, with the current settings."""
        s = self.settings
        frames = [self.moment(s, i, scale=1) for i in range(LAST + 1)]
        return Figure(animation.gif(frames), f"animation of {self!r}")
