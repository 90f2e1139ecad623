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

from .cost import branch_cost
from .models import create
from .provenance import reach_growth
from .rearrange import Rearrangement


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
    "A map of 14 rows is cut into regions of 4. How many rows of padding does it get?",
    lambda: Rearrangement(14, 4).pad,
    "The padded map has a multiple of 4 rows, the next one from 14 up.",
)
channel_index = Exercise(
    "Regions of 3. Where in the concatenated vector does channel 5 of the region's token 2 stand?",
    lambda: 5 * 3 + 2,
    "All tokens of channel 0 come first, then all of channel 1: c * region + token.",
)
last_region = Exercise(
    "14 rows, regions of 3, circular padding, no shift: which rows does the last region hold?",
    lambda: sorted({int(t) for t in Rearrangement(14, 3).slots[-1]}),
    "It starts at row 12; where the rows end, circular padding starts again from the top.",
)
neighbours_after_shift = Exercise(
    "56 rows, regions of 4, shift 2: which rows does row 0 meet, itself included?",
    lambda: list(Rearrangement(56, 4, 2).meets(0)),
    "Row i moves to place i + 2. Which rows move to places 0 to 3?",
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
    "Stage 4: 7 rows, regions of 2, shift 1 in every second block. After how many blocks has every "
    "row heard of every other?",
    lambda: reach_growth(7, 2, 1, 2).blocks_until_global()["shift and restore"],
    "reach_growth(size, region, shift, cycle).blocks_until_global() counts it.",
)
branch_weights = Exercise(
    "How many weights do the two linear layers of a height branch hold, region 4, 64 channels?",
    lambda: branch_cost(64, 4, 56).weights,
    "The paper's formula: region times channels squared.",
)
points_in_a_branch = Exercise(
    "How many named points has the height branch of one block?",
    lambda: len(create("hire_mlp_atto", device="meta").points("stages.0.blocks.0.hire.height.*")),
    "List them: model.points('stages.0.blocks.0.hire.height.*').",
)
