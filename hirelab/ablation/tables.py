"""The paper's ablation tables as data: which network each row is, its figure, and what is claimed.

A row names a `Cell`, the network that it builds; two rows that build the same network hold the same
cell, which is trained once. What the paper concludes from a table stands beside it as contrasts:
one-sided statements about differences of accuracy, fixed here before anything is trained.

The rows are those of arXiv 2108.13341 v1 (pages 13 and 14, the only version whose ablation figures
are known to us), three rows and one table that v2 adds without known figures, and two tables of our
own: fusion, and peers (networks of other designs and of like cost in the same training). The layer
shapes of the variants with 1, 3 and 4 linear layers are our reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from .. import paper
from .._shared.checks import check_whole
from .._shared.errors import HirelabError, unknown

DEFAULTS: Mapping[str, Any] = {
    "region": (4, 3, 3, 2),
    "shift": (2, 2, 1, 1),
    "padding": "circular",
    "cross_region": "shift",
    "restore": True,
    "branches": ("height", "width", "channel"),
    "fc_layers": 2,
    "fusion": "gate",
}
"""The arguments of `HireMLP` that the ablations vary, with the published design's values."""

MARGIN = 0.5
"""Percentage points of top-1: a loss that "no more than a little" allows."""


@dataclass(frozen=True)
class Cell:
    """One design: what the network is, whatever words a table has for it.

    Attributes:
        arguments: ((name, value), ...) of every name in `DEFAULTS`, made canonical: no shift in
            any stage is no cross-region step, and then nothing is to be restored. Of a peer: its
            own arguments.
        model: the timm network of a peer; "" for a Hire-MLP, of whatever size is trained.
    """

    arguments: tuple[tuple[str, Any], ...]
    model: str = ""

    @property
    def changes(self) -> dict[str, Any]:
        """The arguments that differ from `DEFAULTS`; empty for the default."""
        return {name: value for name, value in self.arguments if value != DEFAULTS.get(name)}

    def __str__(self) -> str:
        words = (f"{name}={_text(value)}" for name, value in self.changes.items())
        return " ".join([self.model, *words]).strip() or "default"


def cell(**changes: Any) -> Cell:
    """The cell of the default design with some arguments changed.

    Raises:
        HirelabError: for an argument that the ablations do not vary, or a region or shift that is
            not a whole number for each of the four stages.
    """
    for name in changes:
        if name not in DEFAULTS:
            known = f"The ablations vary {', '.join(DEFAULTS)}."
            raise HirelabError(unknown("design argument", name, DEFAULTS, known))
    whole = {**DEFAULTS, **{k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}}
    for name in ("region", "shift"):
        stages = whole[name]
        if not isinstance(stages, tuple) or len(stages) != len(DEFAULTS[name]):
            raise HirelabError(
                f"{name} is {stages!r}; give {len(DEFAULTS[name])} whole numbers, one a stage."
            )
        for number in stages:
            check_whole(name, number, 0)
    if whole["cross_region"] == "none" or not any(whole["shift"]):
        whole |= {"cross_region": "shift", "shift": (0,) * len(whole["shift"]), "restore": True}
    return Cell(tuple((name, whole[name]) for name in DEFAULTS))


DEFAULT = cell()


@dataclass(frozen=True)
class Row:
    """One line of a table: its name, its cell, and the paper's top-1 (%) where it is known."""

    name: str
    cell: Cell
    top1: float | None = None
    version: str = ""


@dataclass(frozen=True)
class Contrast:
    """A statement about accuracies, one-sided: the weighted sum of the rows exceeds ``-margin``.

    Attributes:
        claim: in words.
        weights: {row's name: weight}; they add up to 0.
        margin: percentage points that the sum may fall short; 0 for "is better".
        source: where the statement comes from.
    """

    claim: str
    weights: Mapping[str, float]
    margin: float = 0.0
    source: str = "v1"


@dataclass(frozen=True)
class AblationTable:
    """A table: rows in the paper's order, and the contrasts that were fixed for it.

    Attributes:
        reference: the row that the others are held to; in the paper's tables the best one.
    """

    name: str
    title: str
    reference: str
    rows: tuple[Row, ...]
    contrasts: tuple[Contrast, ...] = field(default=())

    def row(self, name: str) -> Row:
        """The row of that name.

        Raises:
            HirelabError: there is none; the message names the rows.
        """
        found = {row.name: row for row in self.rows}
        if name not in found:
            rows = f"It has {', '.join(found)}."
            raise HirelabError(unknown(f"row of {self.name}", name, found, rows))
        return found[name]


def better(
    claim: str, first: str, second: str, margin: float = 0.0, source: str = "v1"
) -> Contrast:
    """The contrast "``first`` exceeds ``second``" (by more than ``-margin``)."""
    return Contrast(claim, {first: 1.0, second: -1.0}, margin, source)


@cache
def tables() -> dict[str, AblationTable]:
    """Every table by name: region, shift, padding, components, cross_region, fc_layers, fusion."""
    found = (
        AblationTable(
            "region",
            "Region size in each stage, all shifts 1",
            "4,3,3,2",
            tuple(
                _row("region", text, region=_numbers(text), shift=(1, 1, 1, 1))
                for text, *_ in paper.ablation("region").rows
            ),
            (
                better("larger regions in lower stages beat 2,2,2,2", "4,3,3,2", "2,2,2,2"),
                better("too large regions lose", "4,3,3,2", "5,4,3,3"),
            ),
        ),
        AblationTable(
            "shift",
            "Shift step in each stage",
            "2,2,1,1",
            tuple(
                _row("shift", text, shift=_numbers(text))
                for text, *_ in paper.ablation("shift").rows
            ),
            (
                better("shift beats none", "2,2,1,1", "0,0,0,0"),
                better("a longer shift in the lower stages helps", "2,2,1,1", "1,1,1,1"),
                better("a longer shift in the upper stages harms", "2,2,1,1", "2,2,2,2"),
            ),
        ),
        AblationTable(
            "padding",
            "What fills the last region",
            "circular",
            tuple(
                _row("padding", text, padding=text) for text, *_ in paper.ablation("padding").rows
            ),
            tuple(
                better(f"circular beats {other}", "circular", other)
                for other in ("zero", "reflect", "replicate")
            ),
        ),
        AblationTable(
            "components",
            "What each component gives",
            "full",
            (
                _row("components", "full"),
                _row("components", "without cross-region rearrangement", cross_region="none"),
                _row("components", "without inner-region rearrangement", region=(1, 1, 1, 1)),
                _row("components", "without the channel branch", branches=("height", "width")),
                Row("without restore", cell(restore=False)),
            ),
            (
                *(
                    better(f"the network loses {what}", "full", what, source=source)
                    for what, source in (
                        ("without cross-region rearrangement", "v1"),
                        ("without inner-region rearrangement", "v1"),
                        ("without the channel branch", "v1"),
                        ("without restore", "v2"),
                    )
                ),
                better(
                    "inner-region rearrangement matters more than cross-region",
                    "without cross-region rearrangement",
                    "without inner-region rearrangement",
                ),
            ),
        ),
        AblationTable(
            "cross_region",
            "How regions exchange tokens",
            "shift",
            tuple(
                _row("cross_region", text, cross_region=text)
                for text, *_ in paper.ablation("cross_region").rows
            ),
            (
                better("shift beats the ShuffleNet manner", "shift", "shuffle"),
                better("the ShuffleNet manner is worse than no exchange", "none", "shuffle"),
            ),
        ),
        AblationTable(
            "fc_layers",
            "Linear layers that mix a region",
            "2",
            tuple(Row(str(n), cell(fc_layers=n)) for n in (1, 2, 3, 4)),
            tuple(
                better(f"2 layers lose at most {MARGIN} points against {n}", "2", n, MARGIN, "v2")
                for n in ("1", "3", "4")
            ),
        ),
        AblationTable(
            "fusion",
            "How the branches are joined, with and without shift (ours)",
            "gate, shift",
            tuple(
                Row(f"{fusion}, {words}", cell(fusion=fusion, **change))
                for fusion in ("gate", "sum")
                for words, change in (("shift", {}), ("none", {"cross_region": "none"}))
            ),
            (
                Contrast(
                    "without the gate, which sees the whole image, the shift gives more",
                    {"sum, shift": 1.0, "sum, none": -1.0, "gate, shift": -1.0, "gate, none": 1.0},
                    source="ours",
                ),
            ),
        ),
    )
    return {table.name: table for table in found}


PEERS: Mapping[str, Sequence[tuple[str, str, Mapping[str, Any]]]] = {
    "hire_mlp_atto": (
        (
            "ResNet",
            "resnet18",
            {"channels": (12, 24, 48, 96), "stem_type": "deep", "stem_width": 6},
        ),
        ("ConvNeXt", "convnext_atto", {"dims": (14, 28, 56, 112)}),
        ("PVT v2", "pvt_v2_b0", {"embed_dims": (12, 24, 60, 96)}),
    ),
    "hire_mlp_pico": (
        (
            "ResNet",
            "resnet18",
            {"channels": (32, 64, 160, 256), "stem_type": "deep", "stem_width": 16},
        ),
        ("ConvNeXt", "convnext_atto", {}),
        ("PVT v2", "pvt_v2_b0", {}),
    ),
}
"""{Hire-MLP: (row, timm network, its arguments), ...}: of at most 1.3 times its multiply-adds. Swin
and Mixer are built for one size of image, and the recipes grow the images while they train."""


def peers(model: str) -> AblationTable:
    """The table of a Hire-MLP beside its `PEERS`; the paper makes no such claim at this scale.

    Raises:
        HirelabError: for a network that has none here.
    """
    if model not in PEERS:
        raise HirelabError(
            f"No peers of {model!r} are chosen; there are some of {', '.join(PEERS)}: leave the "
            "table out, or train one of these."
        )
    others = (Row(name, Cell(tuple(args.items()), timm)) for name, timm, args in PEERS[model])
    rows = (Row("Hire-MLP", DEFAULT), *others)
    return AblationTable("peers", "Other designs in the same training (ours)", "Hire-MLP", rows)


def find_tables(names: Sequence[str] = ("all",), model: str = "") -> list[AblationTable]:
    """The tables of those names; all of them for "all".

    Args:
        model: the Hire-MLP that is trained; "peers" is a table where it has `PEERS`.

    Raises:
        HirelabError: for a name that is no table, with near names.
    """
    known = tables()
    if model in PEERS or "peers" in names:
        known = {**known, "peers": peers(model)}
    for name in names:
        if name not in known and name != "all":
            cure = f"There are {', '.join(known)}, and all."
            raise HirelabError(unknown("ablation table", str(name), known, cure))
    chosen = list(known) if "all" in names else list(dict.fromkeys(names))
    return [known[name] for name in chosen]


def cells(chosen: Sequence[AblationTable], rows: Sequence[str] = ()) -> list[Cell]:
    """Every cell of the tables once, the default first.

    Args:
        rows: names of rows, of whichever table; all without.

    Raises:
        HirelabError: no table has a row of that name; the message names the rows.
    """
    every = [row for table in chosen for row in table.rows]
    names = list(dict.fromkeys(row.name for row in every))
    for name in rows:
        if name not in names:
            raise HirelabError(unknown("row", name, names, f"There are {'; '.join(names)}."))
    found = dict.fromkeys(row.cell for row in every if not rows or row.name in rows)
    return sorted(found, key=lambda one: one != DEFAULT)  # stable: the others keep their order


def _row(table: str, name: str, **changes: Any) -> Row:
    """A row with the figure that v1 prints for it."""
    printed = {setting: top1 for setting, top1 in paper.ablation(table).rows}  # noqa: C416
    return Row(name, cell(**changes), float(printed[name]), "v1")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
