"""The folder of a training run: who it belongs to, what it holds, and the network that came of it.

claim        begin a run in a folder, or make sure that it is the same one that goes on
history      its rows, an epoch each, as a `History` that draws itself
load_run     the network that a finished run trained
validation   the validation images of a run
judge        accuracy of a network, by its name, its run or its file
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from safetensors.torch import load_file
from torch import nn

from .._shared.errors import HirelabError, unknown
from .._shared.files import write_atomic
from ..datasets.cache import DecodedImages, decode
from ..datasets.subsets import open_images
from ..results import Result, hardware, versions
from .evaluation import Evaluation, evaluate
from .recipes import Recipe

__all__ = ["History", "build", "claim", "history", "judge", "load_run", "validation"]


@dataclass(frozen=True, eq=False)
class History(Result):
    """What a run wrote down after each epoch.

    Attributes:
        rows: an epoch each: epoch (from 1), step, size (pixels a side), lr, loss (training, of
            augmented images), images_per_second, seconds; where the epoch was validated also
            val_loss and val_top1 (%).
    """

    rows: list[dict[str, float]]

    def column(self, name: str) -> tuple[list[float], list[float]]:
        """(epochs, values) of the rows that have ``name``."""
        found = [(row["epoch"], row[name]) for row in self.rows if name in row]
        return [epoch for epoch, _ in found], [value for _, value in found]

    def plot(self, name: str = ""):
        """Loss and accuracy against epochs, a `hirelab.viz.canvas.Still`."""
        return plot_histories({name: self})


def plot_histories(runs: Mapping[str, History]):
    """Loss and accuracy of several runs in one image, a `hirelab.viz.canvas.Still`."""
    from ..viz import charts

    return charts.training_curves(
        {name: run.column("loss") for name, run in runs.items()},
        {name: run.column("val_top1") for name, run in runs.items()},
    )


def claim(out: Path, asked: dict[str, Any], source: str, command: str, world: int) -> bool:
    """Write run.json into ``out``, or check that it asks for the same; whether there was one.

    Also removes what a killed process left half-written.

    Raises:
        HirelabError: the folder holds another run (naming what differs) or something else.
    """
    path = out / "run.json"
    asked = json.loads(json.dumps(asked))  # tuples become lists, as in the file
    if path.exists():
        before = json.loads(path.read_text())["asked"]
        if before != asked:
            raise HirelabError(
                f"{out} holds another run ({_changed(before, asked)}): choose another --out, or "
                f"remove it to start over"
            )
        for name in ("checkpoint.pt", "history.jsonl", "model.safetensors", "evaluation.npz"):
            for left in out.glob(f".{name}.*"):  # see `_files.atomic`
                left.unlink()
        return True
    if out.is_file():
        raise HirelabError(f"{out} is a file: give --out a folder, new or empty")
    if out.exists() and any(out.iterdir()):
        raise HirelabError(f"{out} holds files of something else: choose another --out")
    facts = {
        "asked": asked,
        "source": source,
        "command": command,
        "started": time.strftime("%Y-%m-%d"),
        "processes": world,
        "versions": versions(),
        "hardware": hardware(),
    }
    write_atomic(path, json.dumps(facts, indent=1) + "\n")
    return False


def _changed(before: dict[str, Any], now: dict[str, Any]) -> str:
    flat = [{**one, **one["recipe"]} for one in (before, now)]
    keys = [k for k in flat[1] if k != "recipe" and flat[0].get(k) != flat[1][k]]
    shown = [f"{k} {flat[0].get(k)!r}, not {flat[1][k]!r}" for k in keys[:3]]
    return "; ".join(text if len(text) < 120 else text[:117] + "..." for text in shown)


def history(out: str | Path) -> History:
    """What a run wrote down, finished or not.

    Raises:
        HirelabError: ``out`` is no run, or has not come to the end of an epoch.
    """
    path = Path(out) / "history.jsonl"
    if not path.exists():
        raise HirelabError(f"{out} has no history.jsonl: it is no run, or none that ended an epoch")
    return read_history(path)


def read_history(path: Path) -> History:
    """A `History` from its file, a JSON object a line."""
    return History([json.loads(line) for line in path.read_text().splitlines()])


def build(name: str, classes: int, recipe: Recipe, arguments: Mapping[str, Any]) -> nn.Module:
    """A network of timm's or ours for so many classes, with the recipe's drop path.

    Raises:
        HirelabError: there is none of that name, or it does not take these arguments.
    """
    import hirelab.models  # noqa: F401  (registers the networks with timm)

    if not timm.is_model(name):
        raise HirelabError(unknown("network", name, timm.list_models(), "See timm.list_models()."))
    try:
        return timm.create_model(
            name, num_classes=classes, drop_path_rate=recipe.drop_path, **arguments
        )
    except (TypeError, ValueError) as error:
        raise HirelabError(f"{name} with {dict(arguments)}: {error}") from error


def load_run(out: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The trained network of a finished run, in evaluation mode, and what run.json says.

    Raises:
        HirelabError: ``out`` holds no run, or one that has not come to its end.
    """
    out = Path(out)
    if not (out / "run.json").exists():
        raise HirelabError(f"{out} has no run.json: it is no folder of `hirelab train`")
    facts = json.loads((out / "run.json").read_text())
    if not (out / "model.safetensors").exists():
        raise HirelabError(f"{out} is not finished: run its command again ({facts['command']})")
    asked = facts["asked"]
    recipe = Recipe(**asked["recipe"])
    net = build(asked["model"], len(asked["classes"]), recipe, asked["model_arguments"])
    net.load_state_dict(load_file(out / "model.safetensors"))
    return net.eval(), facts


def validation(
    facts: Mapping[str, Any], data: str | Path | None = None, stored: int | None = None
) -> DecodedImages:
    """The validation images of a run, or others of the same classes, as squares.

    ``stored`` pixels a side, by default those of the run's recipe.

    Raises:
        HirelabError: the images are not those of the run (without ``data``), or of other classes.
    """
    asked = facts["asked"]
    images = open_images(data or facts["source"], "val", asked["classes"])
    if data is None and images.fingerprint != asked["data"]["val"]:
        raise HirelabError(f"{facts['source']} has other validation images than the run had")
    return decode(images, stored or Recipe(**asked["recipe"]).stored_size)


def judge(
    network: str | Path, data: str | Path | None = None, size: int | None = None
) -> Evaluation:
    """`evaluate` a network by what it is called: what `hirelab evaluate` prints.

    Args:
        network: a shipped network's name, the folder of a finished run, or a checkpoint's file.
        data: a data set; default that which the network was trained on (needed for a file).
        size: pixels a side; default the network's own, 224 for a file.

    Raises:
        HirelabError: no such network, no such data, other classes than the network has.
    """
    from ..models import create, load
    from ..models.pretrained import manifest, shipped

    network = str(network)
    if network in shipped():
        facts = manifest(network)
        net = create(network, pretrained=True)
    elif Path(network).is_dir():
        net, facts = load_run(network)
    elif Path(network).is_file():
        try:
            net, facts = load(network), None
        except ValueError as error:
            raise HirelabError(str(error)) from error
        if data is None:
            raise HirelabError(f"{network} does not say what it was trained on: give --data")
    else:
        cure = "Give a shipped network's name, the folder of a run or a file of weights."
        raise HirelabError(unknown("network", network, shipped(), cure))
    if facts is None:
        size, crop = size or 224, Recipe.crop
        squares = decode(open_images(data, "val"), round(size / crop))
    else:
        recipe = Recipe(**facts["asked"]["recipe"])
        size = size or recipe.size
        squares = validation(facts, data, round(size / recipe.crop))
    classes = len(squares.images.classes)
    if net.num_classes != classes:
        raise HirelabError(f"the network has {net.num_classes} classes and the images {classes}")
    return evaluate(net, squares, size)
