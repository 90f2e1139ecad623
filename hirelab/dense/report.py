"""Runs of dense training beside each other: what differs between them, over how many seeds.

`dense_results` reads a folder of runs, as `hirelab dense train` leaves them (run.json,
history.jsonl and evaluation.npz are enough; weights and checkpoints need not be there). Runs that
were asked the same but for the seed are one group.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._shared.errors import HirelabError, naming
from .._shared.files import data_folder
from .._shared.reading import read_object
from .._shared.statistics import t_interval
from .._shared.tables import Records, table
from ..results import Result
from ..training.runs import EVALUATION, RUN, read_history
from .evaluation import Detections, PixelEvaluation

if TYPE_CHECKING:
    from ..viz.figures import Figure

__all__ = ["DenseResults", "dense_results"]

MEASURES = {"segmentation": ("miou", "mean IoU, %"), "detection": ("box_ap", "box AP, %")}
"""{task: the figure that runs are compared by, and its name}."""

_SAID: dict[tuple[str, Any], str] = {
    ("pretrained", True): "pretrained",
    ("pretrained", False): "random weights",
}


@dataclass(frozen=True, eq=False)
class DenseResults(Records, Result):
    """Groups of runs, the best mean first; the figures are of the last epoch, on the val split.

    Attributes:
        about: what all runs have in common, in words.
        measure: what they are compared by, with its unit.
        groups: what each group was asked that others were not.
        seeds: of each group's runs; ``values``: the measure of each of them.
        curves: of each group, of each run, (epochs, values) of the measure while it trained.
        classes: names of the K classes; ``by_class``: (groups, K), each class's own figure (IoU or
            box AP, percent), mean over seeds, NaN where no run has it.
    """

    about: str
    measure: str
    groups: list[str]
    seeds: list[list[int]]
    values: list[list[float]]
    curves: list[list[list[list[float]]]]
    classes: list[str]
    by_class: np.ndarray

    def records(self) -> list[dict[str, Any]]:
        """A row for each run: group, seed, value."""
        return [
            {"group": group, "seed": seed, self.measure: value}
            for group, seeds, values in zip(self.groups, self.seeds, self.values, strict=True)
            for seed, value in zip(seeds, values, strict=True)
        ]

    def difference(self, group: int) -> tuple[float, float, float]:
        """How far a group is from the first: mean over the seeds that both have, with Student's
        95 % interval (NaN for fewer than two)."""
        first, other = (dict(zip(self.seeds[i], self.values[i], strict=True)) for i in (0, group))
        pairs = [other[seed] - first[seed] for seed in first if seed in other]
        return (float(np.mean(pairs)) if pairs else float("nan"), *t_interval(pairs))

    def __str__(self) -> str:
        head = ("runs", "seeds", "mean", "single runs", "to the first, 95 %")
        rows = []
        for i, (group, values) in enumerate(zip(self.groups, self.values, strict=True)):
            mean, low, high = self.difference(i)
            apart = f"{mean:+.1f}" + (f" [{low:+.1f}, {high:+.1f}]" if low == low else "")
            single = ", ".join(f"{value:.1f}" for value in values)
            rows.append((group, len(values), f"{np.mean(values):.1f}", single, apart if i else ""))
        return f"{self.measure} ({self.about})\n{table([head, *rows], 'lr')}"

    @property
    def class_table(self) -> str:
        """Each class's figure, a column for each group, the largest difference first."""
        order = np.argsort(-np.ptp(self.by_class, axis=0), kind="stable")
        rows = [
            (self.classes[k], *(f"{value:.1f}" for value in self.by_class[:, k])) for k in order
        ]
        return table([("class", *self.groups), *rows], "lr")

    def plot(self) -> Figure:
        """The measure while they trained, and class by class at the end."""
        from ..viz.dense import results as draw

        return draw(
            self.groups, self.curves, self.classes, self.by_class,
            title=self.about, measure=self.measure, text=str(self),
        )  # fmt: skip


def dense_results(folder: str | Path) -> DenseResults:
    """Compare the runs in a folder.

    Args:
        folder: with a folder for each run; or the name of one in data/results/dense.

    Raises:
        HirelabError: there is none that came to its end, or they are of two tasks or data sets.
    """
    path, own = Path(folder), data_folder("results") / "dense"
    if not path.is_dir():
        path = own / str(folder)
    found = sorted(p.parent for p in path.glob(f"*/{RUN}") if (p.parent / EVALUATION).is_file())
    if not found:
        kept = sorted({found.parent.parent.name for found in own.glob(f"*/*/{RUN}")})
        raise HirelabError(
            f"There is no finished run in {folder}: give one of {', '.join(kept)}, or a folder of "
            "folders that `hirelab dense train` filled."
        )
    with naming(path, "runs of dense training"):
        return _compared(folder, found)


def _compared(folder: str | Path, found: list[Path]) -> DenseResults:
    """The comparison of finished runs, from their folders."""
    asked = [read_object(run / RUN, "asked")["asked"] for run in found]
    shared = {(one["task"], json.dumps(one["fingerprints"], sort_keys=True)) for one in asked}
    if len(shared) > 1:
        raise HirelabError(f"The runs in {folder} are of several tasks or data sets: part them.")
    task = asked[0]["task"]
    figure, name = MEASURES[task]
    flat = [_flat(one) for one in asked]
    differing = [key for key in flat[0] if len({repr(one.get(key)) for one in flat}) > 1]
    labels = [_label(one, differing) for one in flat]
    groups: dict[str, list[int]] = {}
    for i in sorted(range(len(found)), key=lambda i: asked[i]["seed"]):
        groups.setdefault(labels[i], []).append(i)
    kind: type[Detections | PixelEvaluation] = (
        PixelEvaluation if task == "segmentation" else Detections
    )
    evaluations = [kind.load(run / EVALUATION) for run in found]
    histories = [read_history(run).column(f"val_{figure}") for run in found]
    finals = [values[-1] for _, values in histories]
    order = sorted(groups, key=lambda label: -float(np.mean([finals[i] for i in groups[label]])))
    classes = list(evaluations[0].classes)
    network, recipe = asked[0]["network"], asked[0]["recipe"]
    return DenseResults(
        about=f"{network['kind']} on {network['backbone']}, {recipe['epochs']} epochs",
        measure=name,
        groups=order,
        seeds=[[asked[i]["seed"] for i in groups[label]] for label in order],
        values=[[finals[i] for i in groups[label]] for label in order],
        curves=[[list(map(list, histories[i])) for i in groups[label]] for label in order],
        classes=classes,
        by_class=np.array(
            [
                np.mean([_classes(evaluations[i], classes) for i in groups[label]], axis=0)
                for label in order
            ]
        ),
    )


def _classes(found: Any, classes: list[str]) -> list[float]:
    figures = found.by_class()
    return [figures.get(name, float("nan")) for name in classes]


def _flat(asked: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Settings by dotted name, without the seed and the data."""
    flat: dict[str, Any] = {}
    for key, value in asked.items():
        if key in ("seed", "fingerprints", "classes"):
            continue
        name = f"{before}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def _label(flat: Mapping[str, Any], differing: list[str]) -> str:
    words = [
        _SAID.get((key, flat.get(key)), f"{key.rpartition('.')[2]}={flat.get(key)}")
        for key in differing
    ]
    return ", ".join(words) or "all"
