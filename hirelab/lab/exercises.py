"""Exercises that check themselves. The answers are computed by the library, not written down.

answer = ...            # in place of the dots: yours
exercises.padded_rows.check(answer)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import torch
from torch import nn

from ..ablation.statistics import holm_corrected
from ..ablation.tables import DEFAULT, find_tables
from ..analysis.cost import branch_cost, count_macs
from ..analysis.pyramid import pyramid
from ..analysis.reach import reach_growth, sources_of
from ..analysis.receptive_field import receptive_field
from ..models.hire_mlp import HireBlock
from ..rearrange import Rearrangement, partition


@dataclass(frozen=True)
class Exercise:
    """A question, how its answer is found, and what helps."""

    question: str
    solve: Callable[[], Any]
    hint: str

    def check(self, answer: Any = ...) -> None:
        """Print whether an answer is right; the dots mean that there is none yet."""
        if answer is ...:
            print(fill(self.question, 88))
            print("Put your answer in place of the dots and run the cell again.")
            return
        right = self.solve()
        given = _plain(answer)
        print("Right." if given == right else f"Not yet: {given!r}. {self.hint}")


def _plain(answer: Any) -> Any:
    """Arrays and tensors as plain numbers; of a collection a sorted list, as no order is asked."""
    answer = answer.tolist() if hasattr(answer, "tolist") else answer
    if not isinstance(answer, Iterable) or isinstance(answer, str):
        return answer
    members = list(answer)
    with suppress(TypeError):  # things without an order are wrong as they stand
        members.sort()
    return members


padded_rows = Exercise(
    "A map of 17 rows is cut into regions of 5. How many rows of padding does it get?",
    lambda: Rearrangement(17, 5).pad,
    "The padded map has a multiple of 5 rows, the next one from 17 up.",
)
channel_index = Exercise(
    "Regions of 4. Which number of the concatenated vector, counted from 0, is channel 7 of the "
    "region's token 1?",
    lambda: _place_in_region(region=4, channel=7, token=1),
    "All tokens of channel 0 come first, then all of channel 1: c * region + token.",
)
last_region = Exercise(
    "14 rows (0 to 13), regions of 4, shift 1, circular padding: which rows does the last region "
    "hold?",
    lambda: sorted({int(t) for t in Rearrangement(14, 4, 1).slots[-1]}),
    "After the shift the line-up begins 13, 0, 1 and ends 11, 12; padding repeats its beginning.",
)
neighbours_after_shift = Exercise(
    "56 rows (0 to 55), regions of 4, shift 2: which rows stand in the region of row 0, itself "
    "included?",
    lambda: list(Rearrangement(56, 4, 2).sources(0)),
    "Row i moves to place i + 2, and rows go round: -1 is row 55. Which move to places 0 to 3?",
)
same_as_none = Exercise(
    "Regions of 4 on 56 rows: which shift from 1 to 8 makes the very regions that no shift makes? "
    "Give the smallest.",
    lambda: next(
        s
        for s in range(1, 9)
        if {tuple(sorted(r)) for r in Rearrangement(56, 4, s).slots.tolist()}
        == {tuple(sorted(r)) for r in Rearrangement(56, 4).slots.tolist()}
    ),
    "Regions move as a whole when every token moves by a whole region.",
)
blocks_until_global = Exercise(
    "A line of 20 rows, regions of 2, shift 1 in every second block. After how many blocks has "
    "every row reached every other?",
    lambda: reach_growth(20, 2, 1, 2, blocks=40).blocks_until_global()["shift and restore"],
    "reach_growth(size, region, shift, cycle, blocks).blocks_until_global() counts it.",
)
branch_weights = Exercise(
    "How many weights do the two linear layers of a height branch hold, region 5, 96 channels?",
    lambda: branch_cost(96, 5, 20).weights,
    "The paper's formula: region times channels squared.",
)
rows_reached = Exercise(
    "stages.0.blocks.1: 56 rows (0 to 55), regions of 4, shift 2. Row 21 is changed. Which "
    "rows of the height branch's result change?",
    lambda: Rearrangement(56, 4, 2).reach[:, 21].nonzero()[0].tolist(),
    "With a shift of 2 the regions begin at rows 2, 6, 10 and so on.",
)


def _place_in_region(region: int, channel: int, token: int) -> int:
    """Where the partition itself puts a channel of a token."""
    tokens = torch.zeros(1, channel + 1, region, 1)
    tokens[0, channel, token] = 1
    return int(partition(tokens, 2, region).flatten().argmax())


# ------------------------------------------------------------------ 05, receptive fields

half_of_everything = Exercise(
    "Suppose that a token in the very middle of an image of 128 x 128 pixels weighed every pixel "
    "alike. What is the side, in pixels, of the smallest square around the middle that holds half "
    "of the mass? (Squares there have even sides.)",
    lambda: _averager_s_half(128),
    "Half of the mass is half of the area, and not half of the side.",
)
sources_without_shift = Exercise(
    "8 rows (0 to 7), regions of 3, circular padding, no shift in any block. Which rows reach row "
    "7 through four blocks, itself included?",
    lambda: sources_of((7,), [Rearrangement(8, 3)] * 4, 8).nonzero()[0].tolist(),
    "The last region is filled with a copy of row 0, which goes on reading its own region.",
)


def _averager_s_half(size: int) -> float:
    """Half-mass side of a network that averages an image, and so weighs every pixel alike."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1))
    return receptive_field(network, torch.ones(1, 3, size, size), "0").half_mass_side


# ------------------------------------------------------------------ 06, Grad-CAM

map_rows = Exercise(
    "stages.1 of an image of 112 pixels: 14 x 14 tokens, regions of 3, shift 2, so the height "
    "branch holds 5 x 14 regions at height.mixed. How many rows has the map of Grad-CAM there?",
    lambda: len(Rearrangement(14, 3, 2).landing),
    "Before Grad-CAM is computed, the padding is cropped away and every row is back at home.",
)


# ------------------------------------------------------------------ 04, architecture and cost

unpadded_side = Exercise(
    "At 192 x 192 pixels no stage of hire_mlp_tiny pads anything. What is the next larger side, "
    "among the multiples of 32, of which that is true?",
    lambda: next(s for s in range(224, 1024, 32) if not pyramid("hire_mlp_tiny", s).padded.any()),
    "Stage by stage a token stands for 4, 8, 16 and 32 pixels, and regions hold 4, 3, 3 and 2.",
)
block_macs = Exercise(
    "A block works on 24 x 24 tokens of 96 channels, in regions of 3, and its channel MLP is four "
    "times as wide. How many multiply-adds does it do, without its gate?",
    lambda: _block_macs(dim=96, region=3, size=24),
    "Height, width, channel branch and projection do H * W * C * C each, the channel MLP eight "
    "times that.",
)


def _block_macs(dim: int, region: int, size: int) -> int:
    """Counted on a built block."""
    axes = {
        "region": region,
        "shift": 0,
        "padding": "circular",
        "cross_region": "shift",
        "restore": True,
        "fc_layers": 2,
    }
    hire = {"branches": ("height", "width", "channel"), "fusion": "gate", "axis_settings": axes}
    block = HireBlock(dim, hire, 4.0, 0.0, device="meta").eval()
    whole = count_macs(block, torch.empty(1, dim, size, size, device="meta"))
    assert block.hire.gate is not None
    return whole - count_macs(block.hire.gate, torch.empty(1, dim, device="meta"))


# ------------------------------------------------------------------ 07, ablations

rows_of_the_default = Exercise(
    "find_tables() of hirelab.ablation.tables gives seven tables. How many of their rows are one "
    "and the same network, the default design?",
    lambda: sum(row.cell == DEFAULT for table in find_tables() for row in table.rows),
    "A row's cell says what its network is, whatever the row is called; tables.DEFAULT is one.",
)
trainings_for_a_tenth = Exercise(
    "One training of a design spreads by 0.4 points. Two designs are trained equally often. How "
    "often each, at least, until the difference of their means has a standard error of 0.1 points?",
    lambda: next(n for n in range(1, 100) if 0.4**2 * 2 / n <= 0.1**2 + 1e-12),
    "A mean of n trainings has variance 0.4 * 0.4 / n, and the variances of two means add up.",
)
confirmed_of_four = Exercise(
    "Four claims are tested at once, with p = 0.004, 0.02, 0.03 and 0.04. How many does Holm's "
    "correction leave below 0.05?",
    lambda: sum(p < 0.05 for p in holm_corrected([0.004, 0.02, 0.03, 0.04])),
    "The smallest p is multiplied by 4, the next by 3; where one fails, all larger ones do.",
)
