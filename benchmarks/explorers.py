"""Explorers: from a changed setting to the new image's bytes, and memory over 500 changes.

At 56 x 56 tokens, in the kernel, as a live view does it (check, draw, encode, and the facts in
words), every setting new, so that nothing comes from the cache. The goal is 100 ms. Beside it,
drawn in the same run, a figure of the same size that shows one token grid with matplotlib, the
usual way to draw under a slider: the ratio says what drawing with Pillow is worth.
"""

from __future__ import annotations

import gc
import io
import resource
import statistics
import time
from collections.abc import Callable, Iterable

import numpy as np

import hirelab as hl
from hirelab.widgets.explorer import Explorer

GOAL_MS = 100


def milliseconds(action: Callable[[], object]) -> float:
    """One run, in ms."""
    start = time.perf_counter()
    action()
    return (time.perf_counter() - start) * 1e3


def changes(explorer: Explorer, settings: Iterable[dict]) -> list[float]:
    """The time of every change, from the controls to the frame that a live view would send."""
    return [milliseconds(lambda s=s: explorer.update(s)) for s in settings]


def matplotlib_figure() -> None:
    """A figure of the explorers' size with one 56 x 56 image, to PNG bytes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.8, 4.86), dpi=200)
    figure.subplots().imshow(np.random.default_rng(0).random((56, 56, 3)))
    figure.savefig(io.BytesIO(), format="png")


def report(name: str, times: list[float], reference: float) -> None:
    low, middle, high = np.percentile(times, (25, 50, 75))
    verdict = "within" if middle < GOAL_MS else "OVER"
    print(
        f"{name:16} median {middle:6.1f} ms of {len(times)} (quartiles {low:.1f} to {high:.1f}), "
        f"{verdict} the goal of {GOAL_MS} ms; matplotlib / this = {reference / middle:.1f}"
    )


def main() -> None:
    """Print the medians and the growth of memory."""
    region = hl.RegionExplorer(stage=0, pick=0)
    shift = hl.ShiftExplorer(stage=0, region=4)
    sizes = [{"region_height": h, "region_width": w} for h in (2, 3, 4, 5) for w in (2, 4, 6, 7, 8)]
    shifts = [{"shift": s, "token": t} for t in (20, 30) for s in range(-5, 5)]
    matplotlib_figure()
    reference = statistics.median(milliseconds(matplotlib_figure) for _ in range(5))
    report("RegionExplorer", changes(region, sizes), reference)
    report("ShiftExplorer", changes(shift, shifts), reference)

    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    changes(shift, ({"token": i % 56, "shift": i // 56 - 4} for i in range(500)))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"500 changes     peak memory grew by {grown:.1f} MiB (32 frames are kept)")


if __name__ == "__main__":
    main()
