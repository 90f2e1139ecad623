"""How the networks of a sweep are trained, and the folder that remembers it.

    Protocol         network, data, recipe, seeds: all that the runs of a sweep have in common
    PROFILES         protocols by what they need: smoke, cpu, gpu, imagenet
    recall           the protocol as a ledger knows it, without its data
    settle           make a folder the ledger of a protocol, or make sure that it is
    read_protocol    what the runs of a ledger have in common

A ledger holds the runs of one protocol, so that no table ever mixes two. Its protocol.json says
which, and whose data: a fingerprint of the images that changes when any of them does.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from .._shared.checks import check_choice, check_whole
from .._shared.errors import HirelabError, brief, first_line
from .._shared.files import PACKAGED, data_folder, write_atomic
from .._shared.reading import misfit, parse_json
from ..datasets.subsets import open_images
from ..models.factory import model_names
from ..training.loop import LOOP
from ..training.recipes import PAPER, PRESETS, Recipe
from .ledger import PROTOCOL, Ledger, RunKey
from .tables import DEFAULT, Cell

__all__ = [
    "PROFILES",
    "Protocol",
    "check_no_protocol",
    "default_ledger",
    "protocol",
    "read_protocol",
    "recall",
    "results_folder",
    "settle",
]

LOOKED = ("fingerprints", "images", "classes")
"""What `Protocol.look` finds out."""

DIAGNOSTICS = "diagnostics"
"""What stands for the generated tasks where tables are named, and their ledger."""

FORMAT = 1
"""Version of protocol.json; readers refuse others."""


@dataclass(frozen=True)
class Protocol:
    """How a sweep trains.

    Attributes:
        model: the Hire-MLP whose design is varied.
        data: a data set's name, a folder or a zip.
        recipe: what every training does.
        seeds: trainings of each cell; ``default_factor``: times as many of the default design,
            which every difference is taken to.
        gpu: whether it is refused on a machine without one.
        fingerprints, images: of the splits train and val, see `LabelledImages`, and ``classes``
            how many; empty until `look` has opened the data.
    """

    model: str
    data: str
    recipe: Recipe
    seeds: int
    default_factor: int = 1
    gpu: bool = False
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, int] = field(default_factory=dict)
    classes: int = 0

    def look(self) -> Self:
        """The same with the data's fingerprints.

        Raises:
            HirelabError: the data is not here, or lacks a split; the message says what brings it.
        """
        train = open_images(self.data, "train")
        splits = {"train": train, "val": open_images(self.data, "val", train.classes)}
        return dataclasses.replace(
            self,
            fingerprints={name: split.fingerprint for name, split in splits.items()},
            images={name: len(split) for name, split in splits.items()},
            classes=len(train.classes),
        )

    def key(self, cell: Cell, seed: int) -> RunKey:
        """What the run of a cell is."""
        return RunKey(
            cell.model or self.model,
            _plain(dict(cell.arguments)),
            {name: mine for name, (_, mine) in self.recipe.differences().items()},
            dict(self.fingerprints),
            seed,
            LOOP,
        )

    def seeds_of(self, cell: Cell, turn: int) -> range:
        """The seeds of a cell in a turn of the sweep, of which there are ``seeds``."""
        factor = self.default_factor if cell == DEFAULT else 1
        return range(turn * factor, (turn + 1) * factor)

    def to_json(self) -> dict[str, Any]:
        """What its runs have in common, as values that JSON knows."""
        own = ("model", "data", "recipe", *LOOKED)
        return {name: _plain(dataclasses.asdict(self)[name]) for name in own}


# Chosen by a pilot, see data/results/PROTOCOL.md: as many trainings an hour as leave a spread over
# seeds that is no larger than that of independent errors.
CPU = dataclasses.replace(
    PRESETS["subset"],
    epochs=16,
    warmup_epochs=2,
    lr=2e-3,
    img_size=96,
    start_img_size=0,  # growing images would change what is padded while a network trains
    mixup_prob=0.0,  # this small a network learns too little to need it
    drop_path=0.0,
    precision="no",  # bfloat16 is seven times slower on processors that do not have it
    compile=True,
    evaluate_every=8,
)

PROFILES: dict[str, Protocol] = {
    # Seconds a run, to see the engine at work; its accuracies mean nothing.
    "smoke": Protocol(
        "hire_mlp_atto",
        "photo-crops",
        dataclasses.replace(
            PRESETS["quick"], epochs=1, warmup_epochs=0, batch_size=16, img_size=32, ema_decay=0.0
        ),
        seeds=1,
        default_factor=3,  # some spread to judge by
    ),
    # Fifteen hours of two cores, or eight minutes of one GPU in lockstep.
    "cpu": Protocol("hire_mlp_atto", "imagenette", CPU, seeds=4, default_factor=3),
    # One GPU, hours.
    "gpu": Protocol(
        "hire_mlp_pico",
        "imagenette",
        dataclasses.replace(PRESETS["subset"], evaluate_every=10),
        seeds=5,
        default_factor=5,
        gpu=True,
    ),
    # The paper's own setting.
    "imagenet": Protocol("hire_mlp_small", "imagenet", PRESETS["imagenet"], seeds=1, gpu=True),
}


def protocol(
    profile: str,
    *,
    data: str | None = None,
    model: str | None = None,
    seeds: int | None = None,
    **recipe: Any,
) -> Protocol:
    """The protocol of a profile with changes.

    Args:
        recipe: settings of `Recipe`, such as ``img_size`` and ``epochs``; None changes nothing.

    Raises:
        HirelabError: an unknown profile, a network that is no Hire-MLP, an impossible setting.
    """
    check_choice("profile", profile, PROFILES)
    found = PROFILES[profile]
    if model is not None and model not in model_names():
        raise HirelabError(f"{model!r} is no Hire-MLP; choose one of {', '.join(model_names())}.")
    if seeds is not None:
        check_whole("seeds", seeds, 1)
    changes = {name: value for name, value in recipe.items() if value is not None}
    if "img_size" in changes and found.recipe.start_img_size:
        changes["start_img_size"] = min(found.recipe.start_img_size, changes["img_size"])
    return dataclasses.replace(
        found,
        data=found.data if data is None else data,
        model=found.model if model is None else model,
        seeds=seeds or found.seeds,
        recipe=dataclasses.replace(found.recipe, **changes),
    )


# ------------------------------------------------------------------ its folder


def results_folder() -> Path:
    """The folder of ledgers: ``data/results/ablations`` of a checkout, else ``ablations`` here."""
    return Path("ablations") if PACKAGED.is_dir() else data_folder("results") / "ablations"


def default_ledger(names: Sequence[str], data: str, profile: str) -> Path:
    """The ledger of what is asked for, in `results_folder`: ``diagnostics``, or the data set and
    the profile, such as ``imagenette-cpu``."""
    own = DIAGNOSTICS if DIAGNOSTICS in names else f"{Path(data).stem}-{profile}"
    return results_folder() / own


def read_protocol(folder: Path) -> dict[str, Any] | None:
    """What the runs of a ledger have in common, as `Protocol.to_json` gives it; None for a folder
    that is no ledger yet.

    Raises:
        HirelabError: the file is damaged, or of another version.
    """
    path = folder / PROTOCOL
    try:
        found = parse_json(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}")
        if (version := found.pop("format", None)) != FORMAT:
            raise ValueError(f"it is of another version, {brief(version)}, than {FORMAT}")
        kinds = {"model": str, "data": str, "recipe": dict, "fingerprints": dict, "images": dict}
        for name, kind in {**kinds, "classes": int}.items():
            if not isinstance(found.get(name), kind):
                raise ValueError(f"its {name} is {brief(found.get(name))}")
        recipe = Recipe(**found["recipe"])
        # its numbers of images and fingerprints are those of a protocol too
        looked = {name: found[name] for name in LOOKED}
        if wrong := misfit(recipe) or misfit(Protocol("", "", recipe, 1, **looked)):
            raise ValueError(wrong)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, TypeError, ValueError) as error:
        raise HirelabError(
            f"{path} cannot be read ({first_line(error)}); bring it back as it was, or choose "
            "another --ledger."
        ) from error
    return found


def recall(folder: Path, chosen: Protocol) -> Protocol:
    """The protocol with the data's fingerprints: those of its ledger where that exists, so that it
    can be read without the data; else those of the data.

    Raises:
        HirelabError: as `read_protocol` and `Protocol.look`; or it holds another protocol.
    """
    found = read_protocol(folder)
    if found is None:
        _check_free(folder)
        return chosen.look()
    _compare(folder, found, chosen, but=(*LOOKED, "data"))
    return dataclasses.replace(chosen, **{name: found[name] for name in LOOKED})


def settle(folder: Path, chosen: Protocol) -> None:
    """Make ``folder`` the ledger of a protocol whose data was looked at, or make sure that it is.

    Raises:
        HirelabError: it holds runs of another protocol (naming what differs), the data has changed
            since, or it cannot be written.
    """
    wanted, found = chosen.to_json(), read_protocol(folder)
    if found is None:
        _check_free(folder)
        try:
            text = json.dumps({"format": FORMAT, **wanted}, indent=1, sort_keys=True) + "\n"
            write_atomic(folder / PROTOCOL, text)
        except OSError as error:
            raise HirelabError(
                f"The ledger {folder} cannot be written ({error}); choose another --ledger."
            ) from error
        return
    same_images = found["fingerprints"] == wanted["fingerprints"]
    if not same_images and found["data"] == wanted["data"]:
        raise HirelabError(
            f"The images of {chosen.data} are not those that {folder} was trained on; bring them "
            "back, or choose another --ledger."
        )
    # the same images under another name are the same images
    _compare(folder, found, chosen, but=(*LOOKED, *(("data",) if same_images else ())))


def check_no_protocol(folder: Path) -> None:
    """Make sure that a folder may hold diagnostics, which no table reads.

    Raises:
        HirelabError: it holds trainings.
    """
    if (folder / PROTOCOL).exists():
        raise HirelabError(
            f"{folder} holds trainings; {DIAGNOSTICS} have a ledger of their own: choose another "
            "--ledger."
        )


def _check_free(folder: Path) -> None:
    """Make sure that a folder without a protocol may become the ledger of one.

    Raises:
        HirelabError: it is a file, or holds runs already.
    """
    if folder.is_file():
        raise HirelabError(f"The ledger {folder} is a file; choose another --ledger.")
    if Ledger(folder).read()[0]:
        raise HirelabError(
            f"{folder} holds runs of no protocol, as {DIAGNOSTICS} are; choose another --ledger."
        )


def _compare(folder: Path, found: Mapping[str, Any], chosen: Protocol, but: Sequence[str]) -> None:
    """Make sure that a ledger's protocol is the chosen one, but for the names in ``but``.

    Raises:
        HirelabError: it is not; the message names what differs.
    """
    # a setting that is younger than the ledger had the paper's value then
    paper = dataclasses.asdict(PAPER)
    theirs, ours = (
        _plain({**paper, **one["recipe"], **{k: v for k, v in one.items() if k != "recipe"}})
        for one in (found, chosen.to_json())
    )
    differing = [
        f"{name} {theirs.get(name)!r}, not {value!r}"
        for name, value in ours.items()
        if name not in but and theirs.get(name) != value
    ]
    if differing:
        raise HirelabError(
            f"{folder} holds runs of another protocol ({'; '.join(differing[:3])}); give the same, "
            "or choose another --ledger."
        )


def _plain(value: Any) -> Any:
    """As JSON gives it back: lists for tuples."""
    return json.loads(json.dumps(value))
