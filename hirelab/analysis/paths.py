"""The one table of paths: by which parts of a block information may travel, in a measurement.

What moves no token (norms, channel MLPs, residual connections) and the convolutions between the
stages are always open. "shift off" is an intervention rather than a path: the spatial paths with
every shift taken as 0.
"""

from __future__ import annotations

from dataclasses import dataclass

PARTS = ("height", "width", "channel", "gate")
"""What may enter a block's ``fused``."""


@dataclass(frozen=True)
class Paths:
    """Which of `PARTS` are open, whether shifts are taken as 0, and the choice in words."""

    open: tuple[str, ...]
    words: str
    shift_off: bool = False

    @property
    def cut(self) -> tuple[str, ...]:
        """The parts that are closed."""
        return tuple(part for part in PARTS if part not in self.open)


PATHS = {
    "full": Paths(PARTS, "every path, the gate too"),
    "spatial": Paths(PARTS[:3], "every path but the gate"),
    "height": Paths(("height",), "height branches only"),
    "width": Paths(("width",), "width branches only"),
    "channel": Paths(("channel",), "channel branches only"),
    "shift off": Paths(PARTS[:3], "every path but the gate, shifts off", shift_off=True),
}
"""The choices, by the name that measurements take as ``paths``."""
