"""The folder of a training run: what was asked for, what it holds, the network that came of it.

RunConfig         what decides a run's outcome: two runs of one configuration are one run
RunInfo           that, and where and when it ran: run.json
start_or_resume   begin a run in a folder, or make sure that it is the same one that goes on
History           its rows, one for each epoch, which draws itself
load_run          the network that a finished run trained
open_network      the trained network that a name, a run's folder or a file means
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torch import nn

from .._shared.errors import HirelabError, brief, first_line, naming, unknown
from .._shared.files import remove_unfinished, unfinished, write_atomic
from .._shared.reading import misfit, parse_json
from .._shared.tables import Records
from ..hooks.forward import pretrained_cfg
from ..models import create, load, model_names
from ..models.checkpoints import load_into, read, unwrap
from ..models.pretrained import bundled, path_of
from ..results import Result, hardware, versions
from .network import build_network
from .recipes import Recipe

__all__ = [
    "History",
    "RunConfig",
    "RunInfo",
    "check_folder",
    "load_run",
    "open_network",
    "plot_histories",
    "read_history",
    "read_run",
    "start_or_resume",
]

RUN = "run.json"
CHECKPOINT = "checkpoint.pt"
HISTORY = "history.jsonl"
WEIGHTS = "model.safetensors"
EVALUATION = "evaluation.npz"


# ------------------------------------------------------------------ what a run is


@dataclass(frozen=True)
class RunConfig:
    """What decides the outcome of a run. A folder holds one run, and goes on only with the same.

    Attributes:
        model: the network's name.
        model_arguments: given to it besides the number of classes and drop path.
        seed: of weights, order and augmentation.
        recipe: what the training does.
        classes: names of the class folders; a label is an index into them.
        data_fingerprints: of the images of "train" and "val", see `LabelledImages`.
        images: how many of "train" and "val" could be read; empty until they are decoded.
        skipped: {name of an image that could not be read: why}.
    """

    model: str
    model_arguments: dict[str, Any]
    seed: int
    recipe: Recipe
    classes: tuple[str, ...]
    data_fingerprints: dict[str, str]
    images: dict[str, int] = dataclasses.field(default_factory=dict)
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From the values of `to_json`."""
        recipe, classes = Recipe(**values["recipe"]), tuple(values["classes"])
        found = cls(**{**values, "recipe": recipe, "classes": classes})
        if wrong := misfit(found) or misfit(recipe):
            raise TypeError(wrong)
        return found

    def to_json(self) -> dict[str, Any]:
        """As values that JSON knows and gives back as they are (no tuples)."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def differences(self, other: RunConfig, but: Sequence[str] = ()) -> dict[str, tuple[Any, Any]]:
        """{setting: (this one's value, the other's)}, of the recipe too, but those of ``but``."""
        mine, theirs = ({**c.pop("recipe"), **c} for c in (self.to_json(), other.to_json()))
        return {k: (v, theirs[k]) for k, v in mine.items() if v != theirs[k] and k not in but}


@dataclass(frozen=True)
class RunInfo:
    """What run.json says: the configuration of a run, and the circumstances.

    Attributes:
        config: what decides the outcome.
        source: the data set as it was named.
        command: the command line; "" if it was started from Python.
        started: the day, YYYY-MM-DD.
        processes: how many trained it together.
        versions, hardware: what it ran on.
    """

    config: RunConfig
    source: str
    command: str
    started: str
    processes: int
    versions: dict[str, str]
    hardware: str

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From the values of `to_json`; others beside them (a manifest's figures) are left out.

        Raises:
            HirelabError: values are missing or of another version.
        """
        names = [f.name for f in dataclasses.fields(cls)]
        try:
            own = {name: values[name] for name in names}
            found = cls(**{**own, "config": RunConfig.from_json(own["config"])})
            if wrong := misfit(found):
                raise TypeError(wrong)
        except (KeyError, TypeError) as error:
            raise HirelabError(
                f"this is no description of a run that this version reads ({first_line(error)}); a "
                f"run of an older version has to be trained again"
            ) from error
        return found

    def to_json(self) -> dict[str, Any]:
        """As values that JSON knows."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**own, "config": self.config.to_json()}


@dataclass(frozen=True, eq=False)
class History(Records, Result):
    """What a run wrote down after each epoch.

    Attributes:
        rows: one for each epoch: epoch (from 1), step, img_size (side in pixels), lr, loss
            (training, of augmented images), images_per_second, seconds; where the epoch was
            validated also val_loss and val_top1 (%).
    """

    rows: list[dict[str, float]]

    def records(self) -> list[dict[str, Any]]:
        """A row for each epoch; None stands where an epoch was not validated."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return [{name: row.get(name) for name in names} for row in self.rows]

    def column(self, name: str) -> tuple[list[float], list[float]]:
        """(epochs, values) of the rows that have ``name``."""
        found = [(row["epoch"], row[name]) for row in self.rows if name in row]
        return [epoch for epoch, _ in found], [value for _, value in found]

    def to_jsonl(self) -> str:
        """The rows as text, one JSON object in each line."""
        return "".join(json.dumps(row) + "\n" for row in self.rows)

    def plot(self, name: str = "") -> Any:
        """Loss and accuracy against epochs, a figure of `hirelab.viz.canvas`."""
        return plot_histories({name: self})


def plot_histories(runs: Mapping[str, History]) -> Any:
    """Loss and accuracy of several runs, by name, in one figure of `hirelab.viz.canvas`."""
    from ..viz import charts

    return charts.training_curves(
        {name: run.column("loss") for name, run in runs.items()},
        {name: run.column("val_top1") for name, run in runs.items()},
    )


# ------------------------------------------------------------------ its folder


def check_folder(out: Path, config: RunConfig, but: Sequence[str] = ()) -> bool:
    """Make sure that ``out`` is free or holds a run of ``config``; whether it holds one.

    Args:
        but: settings that are not compared, because they are not known yet.

    Raises:
        HirelabError: the folder holds another run (naming what differs) or something else.
    """
    if (out / RUN).exists():
        changed = read_run(out).config.differences(config, but)
        if changed:
            shown = [f"{k} {a!r}, not {b!r}" for k, (a, b) in list(changed.items())[:3]]
            text = "; ".join(one if len(one) < 120 else one[:117] + "..." for one in shown)
            raise HirelabError(
                f"{out} holds another run ({text}): choose another --out, or remove it to start "
                f"over"
            )
        return True
    if out.is_file():
        raise HirelabError(f"{out} is a file: give --out a folder, new or empty")
    if out.exists() and set(out.iterdir()) - set(unfinished(out)):
        raise HirelabError(f"{out} holds files of something else: choose another --out")
    return False


def start_or_resume(
    out: Path, config: RunConfig, source: str, command: str, processes: int
) -> bool:
    """Write run.json into ``out``, or check that it is of the same run; whether there was one.

    Also removes what a killed process left half-written.

    Raises:
        HirelabError: as `check_folder`.
    """
    if check_folder(out, config):
        remove_unfinished(out)
        return True
    started = time.strftime("%Y-%m-%d")
    info = RunInfo(config, source, command, started, processes, versions(), hardware())
    write_atomic(out / RUN, json.dumps(info.to_json(), indent=1) + "\n")
    return False


def read_run(out: str | Path) -> RunInfo:
    """What run.json of a run's folder says, finished or not.

    Raises:
        HirelabError: ``out`` holds no run, or one of another version.
    """
    path = Path(out) / RUN
    if not path.exists():
        raise HirelabError(f"{out} has no {RUN}: it is no folder of `hirelab train`")
    try:
        return RunInfo.from_json(parse_json(path.read_bytes()))
    except ValueError as error:  # JSON's errors are of that kind too
        raise HirelabError(f"{path}: {first_line(error)}") from error


def read_history(path: str | Path) -> History:
    """The history of a run, finished or not, from its folder or its file.

    Raises:
        HirelabError: there is none (a run writes it at the end of an epoch), or it is damaged.
    """
    path = Path(path)
    file = path / HISTORY if path.is_dir() else path
    if not file.exists():
        raise HirelabError(f"{file} does not exist: no run, or none that came to an epoch's end")
    try:
        history = History([parse_json(line) for line in file.read_bytes().splitlines()])
        wrong = misfit(history) or next(
            (f"a row has no epoch: {brief(row)}" for row in history.rows if "epoch" not in row), ""
        )
    except ValueError as error:
        wrong = first_line(error)
    if wrong:
        raise HirelabError(f"{file} is no history of a run ({wrong}): get a fresh copy.")
    return history


def load_run(out: str | Path) -> tuple[nn.Module, RunInfo]:
    """The trained network of a finished run, in evaluation mode, and what is known of the run.

    Raises:
        HirelabError: ``out`` holds no run, or one that has not come to its end.
    """
    out = Path(out)
    info = read_run(out)
    if not (out / WEIGHTS).exists():
        raise HirelabError(f"{out} is not finished: run its command again ({info.command})")
    return _built(info, out / WEIGHTS), info


def _built(info: RunInfo, weights: Path) -> nn.Module:
    """The network of a run, in evaluation mode, with the weights in a file."""
    config = info.config
    with naming(weights.parent / RUN, "a network's settings"):
        network = build_network(
            config.model, len(config.classes), config.recipe.drop_path, config.model_arguments
        )
    with naming(weights, "the weights of a network"):
        load_into(network, unwrap(read(weights)), str(weights))
    return network.eval()


def open_network(network: str | Path) -> tuple[nn.Module, RunInfo | None]:
    """The trained network that a name, a run's folder or a file means, in evaluation mode; and
    what is known of its training.

    Names are timm's: NAME.TAG means these weights, and NAME the first of its network's, as
    `hirelab.create` has them with ``pretrained=True``. Of other networks that are bundled, trained
    beside a Hire-MLP, only NAME.TAG: timm has weights of its own for NAME.

    Raises:
        HirelabError: there is none, it is not trained, or its weights cannot be had.
    """
    name = str(network)
    if name.partition(".")[0] in model_names():
        try:
            model = create(name, pretrained=True)
        except (FileNotFoundError, RuntimeError) as error:  # files missing, downloads that fail
            raise HirelabError(str(error)) from error
        cfg = pretrained_cfg(model)
        made = bundled().get(f"{cfg['architecture']}.{cfg['tag']}")
        return model, RunInfo.from_json(made) if made else None
    if name in bundled():
        info = RunInfo.from_json(bundled()[name])
        return _built(info, path_of(name)), info
    if Path(network).is_dir():
        return load_run(network)
    if Path(network).is_file():
        return load(network), None
    cure = (
        "Give the name of a trained one (NAME or NAME.TAG), the folder of a run or a file of "
        "weights."
    )
    raise HirelabError(unknown("network", name, model_names(pretrained=True), cure))
