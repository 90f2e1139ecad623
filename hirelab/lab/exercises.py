"""Exercises that check themselves. The answers are computed by the library, not written down.

    answer = ...                      # in place of the dots: yours
    exercises.padded_rows.check(answer)
    exercises.padded_rows.second_hint()
    exercises.padded_rows.solution()

Most ask for a number or for rows. A `Deed` asks for something done: an explorer that was moved, or
an edit that was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

from .._shared.errors import HirelabError
from ..ablation.statistics import holm_corrected
from ..ablation.tables import DEFAULT, find_tables
from ..analysis.cost import branch_cost, count_macs
from ..analysis.kin import blocks_in_a_row
from ..analysis.pyramid import pyramid
from ..analysis.reach import reach_growth, sources_of
from ..analysis.receptive_field import receptive_field
from ..dense.detection import detector
from ..dense.focus import focus
from ..hooks.points import Point
from ..models.factory import create
from ..models.hire_mlp import AxisBranch, HireBlock
from ..models.kin import KIN
from ..models.strided import strided_branch
from ..rearrange import Rearrangement, partition
from ..synthetic.learning import line_reach, token_network
from ..synthetic.tasks import CopyFromDistance
from ..training import release
from ..widgets.attribution import AttributionExplorer
from ..widgets.dense import DenseExplorer
from ..widgets.explorer import Explorer
from ..widgets.kin import KinExplorer
from ..widgets.region import RegionExplorer
from ..widgets.shift import ShiftExplorer

_WIDTH = 88  # characters of a printed line


@dataclass(frozen=True)
class Exercise:
    """A question, how its answer is found, and what helps.

    Attributes:
        question: in words.
        solve: computes the answer.
        hint: printed after a wrong answer.
        second: a hint that is nearer to the answer.
        because: why the solution is one, in a sentence.
    """

    question: str
    solve: Callable[[], Any]
    hint: str
    second: str
    because: str

    def check(self, answer: Any = ...) -> None:
        """Print whether an answer is right; the dots mean that there is none yet."""
        if answer is ...:
            _say(self.question)
            print("Put your answer in place of the dots and run the cell again.")
        elif (given := self.wrong(answer)) is None:
            print("Right.")
        else:
            _say(f"Not yet: {given}. {self.hint}")
            print("In place of check(answer) there is also second_hint(), and solution().")

    def second_hint(self) -> None:
        """Print a hint that is nearer to the answer."""
        _say(self.second)

    def solution(self) -> None:
        """Print the answer, and why it is one."""
        _say(f"{self.solve()!r}. {self.because}")

    def wrong(self, answer: Any) -> str | None:
        """What was given, in words, where it is not right; else None."""
        given = _plain(answer)
        return None if given == self.solve() else repr(given)


@dataclass(frozen=True)
class Deed(Exercise):
    """An exercise that is answered by something done. ``solve`` gives one that is right.

    Attributes:
        judge: what an answer does, in words, where that is not what was asked for; else None.
        code: the line that does it, for `solution`.
    """

    judge: Callable[[Any], str | None]
    code: str

    def solution(self) -> None:
        """Print a line that does what was asked for, and why."""
        print(self.code)
        _say(self.because)

    def wrong(self, answer: Any) -> str | None:
        """What was done instead, where it is not right; else None."""
        try:
            return self.judge(answer)
        except HirelabError as error:
            return str(error).rstrip(".")


def _say(text: str) -> None:
    print(fill(text, _WIDTH))


def _plain(answer: Any) -> Any:
    """Arrays and tensors as plain numbers; of a collection a sorted list, as no order is asked."""
    answer = answer.tolist() if hasattr(answer, "tolist") else answer
    if not isinstance(answer, Iterable) or isinstance(answer, str):
        return answer
    members = list(answer)
    with suppress(TypeError):  # things without an order are wrong as they stand
        members.sort()
    return members


def _state(explorer: Any, kind: type[Explorer]) -> dict[str, Any]:
    """The state of an explorer.

    Raises:
        HirelabError: for anything else.
    """
    if not isinstance(explorer, kind):
        raise HirelabError(f"that is {type(explorer).__name__}; give the {kind.__name__} itself")
    return explorer.state()


def _edited(point: str, edit: Any, read: str) -> tuple[Tensor, Tensor]:
    """A point of a small untrained network, without and with an edit at another.

    Raises:
        HirelabError: for what is no edit, or one that fails.
    """
    if not callable(edit):
        raise HirelabError(
            f"that is {type(edit).__name__}; give the function, edit(value, point) -> tensor"
        )
    model: Any = create("hire_mlp_atto", seed=0)
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    _, before = model.run_with_cache(x, read, stop_early=True)
    try:
        with model.edits({point: edit}):
            _, after = model.run_with_cache(x, read, stop_early=True)
    except Exception as error:  # whatever a reader's function raises
        raise HirelabError(f"the edit raised {type(error).__name__}: {error}") from error
    return before[read], after[read]


# ------------------------------------------------------------------ 00, start here

rows_reached = Exercise(
    "stages.0.blocks.1: 56 rows (0 to 55), regions of 4, shift 2. Row 21 is changed. Which "
    "rows of the height branch's result change?",
    lambda: Rearrangement(56, 4, 2).reach[:, 21].nonzero()[0].tolist(),
    "With a shift of 2 the regions begin at rows 2, 6, 10 and so on.",
    "All four rows of the region change. Which region holds row 21?",
    "The region of row 21 begins at row 18, and whatever is in a region is mixed.",
)

_INPUT = "stages.0.blocks.1.hire.input"
_HEIGHT = "stages.0.blocks.1.hire.height.out"


def _change_row_11(value: Tensor, point: Point) -> Tensor:
    value[:, :, 11] += 1
    return value


def _rows_changed(edit: Any) -> str | None:
    before, after = _edited(_INPUT, edit, _HEIGHT)
    rows = (before - after).abs().amax((0, 1, 3)).nonzero().flatten().tolist()
    return None if rows == [10, 11, 12, 13] else f"the rows that change are {rows}"


edit_of_a_region = Deed(
    f"Write an edit, a function of (value, point). Put at {_INPUT}, it shall change rows 10 to 13 "
    "of the height branch's result and no others. (The answer is the function itself.)",
    lambda: _change_row_11,
    "Start from change_row_25 above, and choose another row.",
    "Rows 10 to 13 are one region, so it is enough to change one of them.",
    "Any of the rows 10 to 13 will do: they are mixed with each other, and with no others.",
    _rows_changed,
    "def answer(value, point):\n    value[:, :, 11] += 1\n    return value",
)

# ------------------------------------------------------------------ 01, regions

padded_rows = Exercise(
    "A map of 17 rows is cut into regions of 5. How many rows of padding does it get?",
    lambda: Rearrangement(17, 5).pad,
    "The padded map has a multiple of 5 rows, the next one from 17 up.",
    "The padded map has 20 rows.",
    "20 is the next multiple of 5, and 17 rows are there.",
)
channel_index = Exercise(
    "Regions of 4. Which number of the concatenated vector, counted from 0, is channel 7 of the "
    "region's token 1?",
    lambda: _place_in_region(region=4, channel=7, token=1),
    "All tokens of channel 0 come first, then all of channel 1: c * region + token.",
    "Channels 0 to 6 take the first 7 * 4 numbers.",
    "7 * 4 + 1: seven channels of four tokens, then the second token of channel 7.",
)
last_region = Exercise(
    "14 rows (0 to 13), regions of 4, shift 1, circular padding: which rows does the last region "
    "hold?",
    lambda: sorted({int(t) for t in Rearrangement(14, 4, 1).slots[-1]}),
    "After the shift the line-up begins 13, 0, 1 and ends 11, 12; padding repeats its beginning.",
    "Regions of 4 need 16 places. The last one has the last two rows of the line-up and its first "
    "two.",
    "The line-up ends 11, 12, and its beginning, 13, 0, fills the two places that are left.",
)


def _place_in_region(region: int, channel: int, token: int) -> int:
    """Where the partition itself puts a channel of a token."""
    tokens = torch.zeros(1, channel + 1, region, 1)
    tokens[0, channel, token] = 1
    return int(partition(tokens, 2, region).flatten().argmax())


def _regions_moved(explorer: Any) -> str | None:
    s = _state(explorer, RegionExplorer)
    region, padded = (
        (s["region_height"], s["region_width"]),
        (s["padded_rows"], s["padded_columns"]),
    )
    if s["stage"] == 1 and min(region) > 4 and padded == (0, 0):
        return None
    return (
        f"it shows stage {s['stage']}, regions of {region[0]} rows and {region[1]} columns, with "
        f"{padded[0]} rows and {padded[1]} columns of padding"
    )


regions_that_fit = Deed(
    "Move `explorer`, the first one of this page: in stage 1, with regions of more than 4 rows and "
    "of more than 4 columns, nothing is padded. Then write answer = explorer.",
    lambda: RegionExplorer(stage=1, region_height=7, region_width=7),
    "28 tokens have to be a multiple of the region.",
    "28 is 4 times 7, and 2 times 14.",
    "28 is a multiple of 7, so every region is full.",
    _regions_moved,
    "explorer.set(stage=1, region_height=7, region_width=7)",
)

# ------------------------------------------------------------------ 02, shift and restore

neighbours_after_shift = Exercise(
    "56 rows (0 to 55), regions of 4, shift 2: which rows stand in the region of row 0, itself "
    "included?",
    lambda: list(Rearrangement(56, 4, 2).sources(0)),
    "Row i moves to place i + 2, and rows go round: -1 is row 55. Which move to places 0 to 3?",
    "Rows 0 and 1 move to places 2 and 3. Which two rows come round to places 0 and 1?",
    "The last two rows come round to the front, before rows 0 and 1.",
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
    "How many tokens has a whole region here?",
    "Every region then takes the place of the next one, with the same four rows in it.",
)
blocks_until_global = Exercise(
    "A line of 20 rows, regions of 2, shift 1 in every second block. After how many blocks has "
    "every row reached every other?",
    lambda: reach_growth(20, 2, 1, 2, blocks=40).blocks_until_global()["shift and restore"],
    "reach_growth(size, region, shift, cycle, blocks).blocks_until_global() counts it.",
    "The line closes to a ring, so nobody is farther away than 10 rows, and a block carries "
    "information on by one row.",
    "Each block reaches one row more, in one direction or the other, and the farthest is ten rows "
    "away round the ring.",
)


def _shift_moved(explorer: Any) -> str | None:
    s = _state(explorer, ShiftExplorer)
    rows, last = s["reached_by"], s["tokens"] - 1
    return None if {0, last} <= set(rows) else f"token {s['token']} shares its region with {rows}"


both_ends = Deed(
    "Move `explorer`, the first one of this page, until the token that you follow shares its "
    "region with the first row of the image and with its last. Then write answer = explorer.",
    lambda: ShiftExplorer(shift=2, token=0),
    "The shift wraps round: what leaves at one end comes in at the other.",
    "Follow one of the first two rows, with a shift that is smaller than the region.",
    "After a shift by 2 the first region holds the last two rows and row 0.",
    _shift_moved,
    "explorer.set(shift=2, token=0)",
)

# ------------------------------------------------------------------ 03, inside a block

branch_weights = Exercise(
    "How many weights do the two linear layers of a height branch hold, region 5, 96 channels?",
    lambda: branch_cost(96, 5, 20).weights,
    "The paper's formula: region times channels squared.",
    "The first layer has 5 * 96 times 48 weights, the second as many.",
    "5 * 96 * 96: two layers, between 5 * 96 numbers and 96 / 2.",
)

_GATE = "stages.1.blocks.1.hire.gate.out"


def _no_height(value: Tensor, point: Point) -> Tensor:
    value[..., 0] = 0
    return value


def _gate_changed(edit: Any) -> str | None:
    before, after = _edited(_GATE, edit, _GATE)
    if torch.equal(after[..., 1:], before[..., 1:]) and not after[..., 0].any():
        return None
    means = ", ".join(f"{m:.3f}" for m in after.mean((0, 1)).tolist())
    return f"the mean weights of height, width and channel are then {means}"


edit_without_height = Deed(
    f"Write an edit for {_GATE} that switches the height branch off and leaves the weights of the "
    "other two as the network computes them. (The answer is the function itself.)",
    lambda: _no_height,
    "The value has the shape (images, channels, 3), and height is the first of the three.",
    "value[..., 0] are the weights of height.",
    "The first of the last axis is height; the network adds what is left.",
    _gate_changed,
    "def answer(value, point):\n    value[..., 0] = 0\n    return value",
)

# ------------------------------------------------------------------ 04, architecture and cost

unpadded_side = Exercise(
    "At 192 x 192 and at 384 x 384 pixels no stage of hire_mlp_tiny pads anything. What is the "
    "next larger side, among the multiples of 32, of which that is true?",
    lambda: next(s for s in range(416, 1024, 32) if not pyramid("hire_mlp_tiny", s).padded.any()),
    "Stage by stage a token stands for 4, 8, 16 and 32 pixels, and regions hold 4, 3, 3 and 2.",
    "The side has to be a multiple of 4 * 4, 8 * 3, 16 * 3 and 32 * 2 pixels.",
    "The least common multiple of 16, 24, 48 and 64 is 192, and this is the third multiple.",
)
block_macs = Exercise(
    "A block works on 24 x 24 tokens of 96 channels, in regions of 3, and its channel MLP is four "
    "times as wide. How many multiply-adds does it do, without its gate?",
    lambda: _block_macs(dim=96, region=3, size=24),
    "Height, width, channel branch and projection do H * W * C * C each, the channel MLP eight "
    "times that.",
    "Together that is 12 * H * W * C * C, and 24 rows fill regions of 3.",
    "12 * 24 * 24 * 96 * 96: four parts of H * W * C * C, and the channel MLP with eight.",
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


# ------------------------------------------------------------------ 05, receptive fields

half_of_everything = Exercise(
    "Suppose that a token in the very middle of an image of 128 x 128 pixels weighed every pixel "
    "alike. What is the side, in pixels, of the smallest square around the middle that holds half "
    "of the mass? (A square holds whole pixels, so its side is an even number.)",
    lambda: _averager_s_half(128),
    "Half of the mass is half of the area, and not half of the side.",
    "A square of half the area has a side of 128 / sqrt(2), about 90.5; 90 is a little too small. "
    "Sides are even.",
    "90 x 90 pixels are 49.4 % of the image, and the next even side has 51.7 %.",
)
sources_without_shift = Exercise(
    "8 rows (0 to 7), regions of 3, circular padding, no shift in any block. Which rows reach row "
    "7 through four blocks, itself included?",
    lambda: sources_of((7,), [Rearrangement(8, 3)] * 4, 8).nonzero()[0].tolist(),
    "The last region is filled with a copy of row 0, which goes on reading its own region.",
    "The last region holds rows 6, 7 and the copy of row 0. What has row 0 read one block before?",
    "Rows 6 and 7 share their region with a copy of row 0, which has read rows 1 and 2 by then.",
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
    "5 regions of 3 are 15 rows, and one of them is padding.",
    "The map has the token grid's own rows, whatever the regions are.",
)


def _map_moved(explorer: Any) -> str | None:
    s = _state(explorer, AttributionExplorer)
    right = s["shown_class"] == "parachute" and s["at"] == "features"
    return None if right else f"it shows {s['shown_class']} at {s['at']}"


last_map_of_a_parachute = Deed(
    "Move `explorer`, the first one of this page, until it shows what speaks for a parachute at "
    "the network's last map, features. Then write answer = explorer.",
    lambda: _explorer_of_a_parachute(),
    "One control chooses the class, another one what Grad-CAM looks at.",
    "Choose parachute as the class, and 'last map of the network' at 'Grad-CAM at'.",
    "The last map needs no stage or block: there is only one.",
    _map_moved,
    'explorer.set(target=9, point="last map of the network")',
)


def _explorer_of_a_parachute() -> AttributionExplorer:
    model: Any = create("hire_mlp_pico", pretrained=True)
    names = model.pretrained_cfg["label_names"]
    explorer = AttributionExplorer(model, "rocket", names)
    explorer.set(target=names.index("parachute"), point="last map of the network")
    return explorer


# ------------------------------------------------------------------ 07, ablations

rows_of_the_default = Exercise(
    "find_tables() of hirelab.ablation.tables gives seven tables. How many of their rows are one "
    "and the same network, the default design?",
    lambda: sum(row.cell == DEFAULT for table in find_tables() for row in table.rows),
    "A row's cell says what its network is, whatever the row is called; tables.DEFAULT is one.",
    "Count the rows with row.cell == DEFAULT. Only the table of regions has none.",
    "Every table but that of regions compares something with the default design.",
)
trainings_for_a_tenth = Exercise(
    "One training of a design spreads by 0.4 points. Two designs are trained equally often. How "
    "often each, at least, until the difference of their means has a standard error of 0.1 points?",
    lambda: next(n for n in range(1, 100) if 0.4**2 * 2 / n <= 0.1**2 + 1e-12),
    "A mean of n trainings has variance 0.4 * 0.4 / n, and the variances of two means add up.",
    "Solve 2 * 0.4 * 0.4 / n = 0.1 * 0.1 for n.",
    "2 * 0.16 / 0.01: both designs bring their own noise.",
)
confirmed_of_four = Exercise(
    "Four claims are tested at once, with p = 0.004, 0.02, 0.03 and 0.04. How many does Holm's "
    "correction leave below 0.05?",
    lambda: sum(p < 0.05 for p in holm_corrected([0.004, 0.02, 0.03, 0.04])),
    "The smallest p is multiplied by 4, the next by 3; where one fails, all larger ones do.",
    "0.004 * 4 is below 0.05. And 0.02 * 3?",
    "0.004 * 4 = 0.016 is below 0.05; 0.02 * 3 = 0.06 is not, and with it fail those that follow.",
)

# ------------------------------------------------------------------ 08, training

rows_with_three_blocks = Exercise(
    "The same task, but the network has three blocks in place of two (regions of 3; the second "
    "block shifts by 1). From how many rows away, at most, can every token copy?",
    lambda: _copied_everywhere(depth=3),
    "token_network(task, depth=3, region=3, shift=1, fusion='sum') builds it, and learn_beside "
    "says what is possible.",
    "With two blocks it is one row. Look for the last distance of which 100 % are possible.",
    "100 % are possible up to there, 75 % from four rows away.",
)
larger_images = Exercise(
    "Both curves of the bundled networks take a step between epochs 45 and 50. What is the side of "
    "the training images after it, in pixels?",
    lambda: _side_at(50),
    "A history has more than loss and accuracy: histories['shift'].rows[48] is one epoch.",
    "histories['shift'].column('img_size') has the side in every epoch.",
    "Images of 64 pixels until epoch 48, and larger ones from epoch 49 on.",
)


def _copied_everywhere(depth: int) -> int:
    """The largest distance from which every token can copy, in both directions."""
    task = CopyFromDistance(12, (-5, -4, -3, -2, -1, 1, 2, 3, 4, 5))
    network = token_network(task, depth=depth, region=3, shift=1, fusion="sum")
    bound = task.upper_bound(line_reach(network, task.size))
    whole = (bound == 1)[:, task.mask().any(0)].all(1)
    return int(max(d for d in range(1, 6) if whole[np.abs(task.distances) == d].all()))


def _side_at(epoch: int) -> int:
    epochs, sides = release.history("hire_mlp_pico.imagenette").column("img_size")
    return int(sides[epochs.index(epoch)])


# ------------------------------------------------------------------ 09, your own

module_of_16_pixels = Exercise(
    "On which map of timm's resnet18 does a token stand for 16 x 16 pixels? Give the module's "
    "name.",
    lambda: _module_of("resnet18", 16),
    "hl.suggest_target_layer(other, x) lists the maps, with the pixels of a token.",
    "A map of an image of 128 pixels then has 8 x 8 tokens.",
    "Its tokens are 16 pixels apart, as timm's feature_info says, too.",
)


def _module_of(name: str, reduction: int) -> str:
    infos: Any = timm.create_model(name).feature_info
    return next(info["module"] for info in infos if info["reduction"] == reduction)


# ------------------------------------------------------------------ 10, dense prediction

level_of_a_large_box = Exercise(
    "A Mask R-CNN sees its images at the size that they have. From which level of the pyramid is a "
    "box of 300 x 300 pixels read? The finest is 0.",
    lambda: focus(detector("mask_rcnn", "hire_mlp_atto", 1, width=16), (0, 0, 300, 300)).level,
    "A box of 224 pixels is read from level 2, and one twice as wide from the next.",
    "hl.focus(detector, (0, 0, 300, 300)).level is the answer.",
    "Levels change at 112, 224 and 448 pixels (Lin et al. 2017, equation 1).",
)
INSIDE = 0.7
"""Share of what speaks for the object that has to lie inside its box."""


def _misses_a_triangle(explorer: Any) -> str | None:
    s = _state(explorer, DenseExplorer)
    if s.get("shown_class") != "triangle":
        return f"the chosen object is {s.get('shown_class', 'none')}"
    if "box" not in s:
        return "that is a segmenter's explorer, without boxes"
    inside = s["share_inside"]
    return None if inside > INSIDE else f"{inside:.0%} of what speaks for it lies inside its box"


a_triangle_by_itself = Deed(
    f"Move a DenseExplorer until a triangle is chosen and more than {INSIDE:.0%} of what speaks "
    "for it lies inside its box.",
    lambda: DenseExplorer(photograph="scene 6", row=40, column=40, stage=0),
    "The finer the stage, the nearer the witnesses. Other scenes have other triangles.",
    "In scene 6 there is a triangle above and left of the middle.",
    "A place of stage 0 hears few pixels, so what speaks for an object stands in it.",
    _misses_a_triangle,
    'explorer.set(photograph="scene 6", row=40, column=40, stage=0)',
)

# ------------------------------------------------------------------ 11, kin

kernel_weights = Exercise(
    "A branch with regions of 5 on 32 channels, and a bottleneck of 16, is written as a strided "
    "convolution and a transposed one. How many weights has the first of the two?",
    lambda: _kernel_weights(dim=32, region=5),
    "It is dense in the channels, and its kernel is as long as a region.",
    "It reads 5 tokens of 32 channels and gives 16.",
    "16 * 32 * 5, as many as the first linear layer of the branch, whose numbers they are.",
)
blocks_of_a_window = Exercise(
    "A network reads windows of 7 along rows and along columns apart, as Wave-MLP does, on a map "
    "of 20 x 20 tokens without a ring. After how many blocks does every token hear every other?",
    lambda: _blocks_until_global("Wave-MLP-S", 20),
    "The farthest token stands in the opposite corner, 19 rows and 19 columns away.",
    "A block goes on by 3 tokens, along the rows or along the columns.",
    "19 rows take seven steps of 3, and 19 columns seven more.",
)


def _kernel_weights(dim: int, region: int) -> int:
    """Counted on the convolution of a built branch."""
    branch = AxisBranch(dim, "height", region, 0, "circular", "shift", True, 2, device="meta")
    return strided_branch(branch).reading.numel()


def _blocks_until_global(member: str, side: int) -> int:
    steps = blocks_in_a_row(KIN[member], (side, side), 2)
    return next(block for block, counts in enumerate(steps) if counts.min() == side**2)


def _no_advantage(explorer: Any) -> str | None:
    s = _state(explorer, KinExplorer)
    if (s["left"], s["right"], s["stage"]) != ("Hire-MLP-S", "AS-MLP-T", 2):
        return f"it shows {s['left']} and {s['right']} in stage {s['stage']}"
    hire, other = s["left_reached"][-1], s["right_reached"][-1]
    if hire > other and s["blocks"] <= s["right_published"]:
        return None
    return f"after {s['blocks']} blocks {hire} tokens reach it left, and {other} right"


where_the_ring_helps = Deed(
    "Move `explorer`, the first one of this page, with Hire-MLP-S left and AS-MLP-T right, in "
    "stage 2: find a token that hears more tokens in Hire-MLP than in AS-MLP, through no more than "
    "the 6 blocks that AS-MLP has there. Then write answer = explorer.",
    lambda: KinExplorer(row=0, column=0, blocks=6),
    "In the middle of the map the right one hears more. Where has it less to read?",
    "In a corner AS-MLP has neighbours on two sides, and a ring has no corners.",
    "In a corner half of AS-MLP's cross lies outside of the map in both directions.",
    _no_advantage,
    "explorer.set(row=0, column=0, blocks=6)",
)
