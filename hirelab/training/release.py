"""Releasing a finished run: its weights in half precision, with manifest, history and evaluation.

    release       a run -> the files of data/weights, and the tables of the model card
    evaluation    the answers of a bundled network on every validation image
    history       the history of its training
    run_info      its configuration and circumstances
    card_tables   what the model card says of them, in Markdown

A manifest (NAME.json) is a `RunInfo` with the figures of the released weights.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from .._shared.errors import HirelabError
from .._shared.files import atomic, write_atomic
from .._shared.statistics import (
    TRAINING_SHARE,
    compare_trainings,
    mcnemar,
    training_deviation,
    wilson_interval,
)
from .._shared.tables import table
from ..models import pretrained
from .evaluation import Evaluation, evaluate, validation_images
from .runs import EVALUATION, HISTORY, History, RunInfo, load_run, read_history

__all__ = ["card_tables", "evaluation", "history", "release", "run_info"]

MOST_BYTES = 10_000_000
"""Largest file of weights that is released: a checkout should stay quick to clone."""

MOST_CLASSES = 20
"""Up to so many classes the model card has the accuracy on each; beyond, the best and worst."""

LICENCE = (
    "MIT, as the code. Trained on images under ImageNet's terms (research and teaching only); "
    "whether these bind what is trained on them is not settled, so take them as binding."
)


# ------------------------------------------------------------------ bundled networks


def evaluation(name: str) -> Evaluation:
    """The answers of a bundled network on every validation image.

    Raises:
        HirelabError: there is none of that name.
    """
    pretrained.manifest(name)
    return Evaluation.load(_beside(name, EVALUATION))


def history(name: str) -> History:
    """The history of a bundled network's training.

    Raises:
        HirelabError: there is none of that name.
    """
    pretrained.manifest(name)
    return read_history(_beside(name, HISTORY))


def run_info(name: str) -> RunInfo:
    """The configuration and circumstances of a bundled network's training.

    Raises:
        HirelabError: there is none of that name.
    """
    return RunInfo.from_json(pretrained.manifest(name))


def _beside(name: str, file: str) -> Path:
    """A file of a bundled network, called as in the folder of a run."""
    return pretrained.FOLDER / f"{name}.{file}"


# ------------------------------------------------------------------ releasing


def release(run: str | Path, name: str, notes: str = "") -> dict[str, Any]:
    """Put a finished run's weights into `pretrained.FOLDER` as ``name``; returns the manifest.

    The figures in the manifest are those of the released, halved weights, measured here on the
    run's validation images.

    Args:
        run: the folder of a run of `train` that came to its end.
        name: NETWORK.TAG, such as "hire_mlp_pico.imagenette".
        notes: anything else that a reader of the manifest should know.

    Raises:
        HirelabError: the run is not finished or of another network, the file is too large.
    """
    network, _, tag = name.partition(".")
    model, info = load_run(run)
    trained = info.config.model
    if trained != network or not re.fullmatch(r"[a-z0-9_]+", tag):
        raise HirelabError(
            f"{run} trained {trained} and is to be released as {name!r}: name it {trained}.TAG, in "
            f"lower case"
        )
    state = halved(model.state_dict())
    model.load_state_dict(state)
    recipe = info.config.recipe
    found = evaluate(model, validation_images(info), recipe.img_size)
    path = pretrained.path_of(name)
    with atomic(path) as temporary:
        save_file(state, temporary)
        size = temporary.stat().st_size
        if size > MOST_BYTES:
            raise HirelabError(
                f"{name} takes {size / 1e6:.1f} MB and at most {MOST_BYTES / 1e6:.0f} MB are "
                f"released: publish the manifest alone"
            )
    found.save(_beside(name, EVALUATION))
    write_atomic(_beside(name, HISTORY), read_history(run).to_jsonl())
    content = {
        "name": name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "megabytes": round(path.stat().st_size / 1e6, 2),
        "parameters": sum(p.numel() for p in model.parameters()),
        "img_size": recipe.img_size,
        "crop_pct": recipe.crop_pct,
        "top1": round(found.accuracy(1), 2),
        "top5": round(found.accuracy(5), 2),
        "loss": round(found.loss, 4),
        "calibration_error": round(found.expected_calibration_error(), 2),
        "images": len(found.labels),
        "label_names": found.classes,
        "licence": LICENCE,
        "notes": notes,
        **info.to_json(),
    }
    write_atomic(pretrained.FOLDER / f"{name}.json", json.dumps(content, indent=1) + "\n")
    write_card()
    return content


def halved(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``state`` with its matrices and kernels in float16.

    Vectors stay: they are a hundredth of the bytes, and a running variance may exceed float16.
    """
    return {
        key: (value.half() if value.is_floating_point() and value.ndim > 1 else value).contiguous()
        for key, value in state.items()
    }


def write_card() -> None:
    """Put `card_tables` of all bundled networks between the markers of the model card."""
    card = pretrained.FOLDER / "README.md"
    block = re.compile(r"(<!-- tables -->\n).*?(<!-- end -->)", re.DOTALL)
    tables = card_tables()
    text = card.read_text(encoding="utf-8")
    write_atomic(card, block.sub(lambda m: f"{m[1]}{tables}\n{m[2]}", text))


# ------------------------------------------------------------------ the model card


def card_tables(names: Sequence[str] | None = None) -> str:
    """What the model card says of bundled networks, all or those named, as Markdown.

    First the figures of all. Then for each set of validation images: accuracy by class, the pairs
    of classes most often confused, and how the networks differ on the same images.
    """
    found = {name: evaluation(name) for name in names or pretrained.bundled()}
    parts = [_figures(found)] if found else []
    for fingerprint in dict.fromkeys(one.data_fingerprint for one in found.values()):
        alike = {n: one for n, one in found.items() if one.data_fingerprint == fingerprint}
        parts += [_by_class(alike), *_confused(alike), *_compared(alike)]
    return "\n\n".join(parts)


def _figures(found: Mapping[str, Evaluation]) -> str:
    figures = ["top-1, %", "95 % interval", "top-5, %", "loss", "calibration error, %"]
    rows = [["weights", "images", *figures]]
    for name, one in found.items():
        low, high = wilson_interval(one.accuracy(1) / 100, len(one.labels))
        rows.append(
            [
                name,
                f"{len(one.labels):,}",
                f"{one.accuracy(1):.2f}",
                f"{100 * low:.1f} to {100 * high:.1f}",
                f"{one.accuracy(5):.2f}",
                f"{one.loss:.2f}",
                f"{one.expected_calibration_error():.2f}",
            ]
        )
    return table(rows, "lr", markdown=True)


def _by_class(found: Mapping[str, Evaluation]) -> str:
    """Accuracy on the images of each class, or of the five best and worst of many."""
    shares = {name: one.by_class() for name, one in found.items()}
    first = next(iter(shares.values()))
    classes, head = list(first), "class"
    if len(classes) > MOST_CLASSES:
        ranked = sorted(classes, key=lambda word: -first[word])
        head = f"best and worst 5 of {len(classes)} classes"
        classes = [*ranked[:5], *ranked[-5:]]
    rows = [[head, *(f"{name}, %" for name in shares)]]
    rows += [[word, *(f"{share[word]:.1f}" for share in shares.values())] for word in classes]
    return table(rows, "lr", markdown=True)


def _confused(found: Mapping[str, Evaluation]) -> list[str]:
    """A table of the five pairs of classes that the first network confuses most often, by images;
    none where it is always right."""
    counts = {name: one.confusion() for name, one in found.items()}
    words = next(iter(found.values())).classes
    wrong = next(iter(counts.values())).copy()
    np.fill_diagonal(wrong, 0)
    rows = [["taken for", *counts]]
    for flat in np.argsort(-wrong, axis=None, kind="stable")[:5]:
        right, said = np.unravel_index(flat, wrong.shape)
        if not wrong[right, said]:
            break
        cells = (str(count[right, said]) for count in counts.values())
        rows.append([f"{words[right]} for {words[said]}", *cells])
    return [table(rows, "lr", markdown=True)] if len(rows) > 1 else []


def _compared(found: Mapping[str, Evaluation]) -> list[str]:
    """A sentence for each network but the first: how its answers differ from those of the first.

    All were asked the same images, so that the difference may be tested image by image.
    """
    (name, first), *others = found.items()
    return [_difference(name, first, other, one) for other, one in others]


def _difference(name: str, first: Evaluation, other: str, second: Evaluation) -> str:
    right, too = (one.predicted == one.labels for one in (first, second))
    only_first, only_second = int((right & ~too).sum()), int((too & ~right).sum())
    count = len(right)
    better, worse = sorted((1 - right.mean(), 1 - too.mean()))
    spread = training_deviation((better + worse) / 2, count)
    z, p = compare_trainings(worse, better, count)
    z_two, p_two = compare_trainings(worse, better, count, share=0.5)
    return (
        f"Image by image: {only_first} are right with {name} alone, {only_second} with {other} "
        f"alone. Were these two networks equally good, so uneven a split had probability "
        f"{mcnemar(only_first, only_second):.2g} (McNemar's exact test). That compares the two "
        f"networks, trained once each, on these images; it does not compare their designs. "
        f"Another training of either design would differ by about {100 * spread:.2g} points: the "
        f"standard deviation over seeds is estimated as sqrt({TRAINING_SHARE} err / n) for an "
        f"error rate err on n images, after Jordan (ICLR 2024, arXiv 2304.01910). So between the "
        f"designs, with one seed each, the difference of {100 * (worse - better):.2f} points is "
        f"z = {z:.1f}, p = {p:.2g} (with 0.5 in place of {TRAINING_SHARE}, which he derives for "
        f"two classes, z = {z_two:.1f}, p = {p_two:.2g}). Several trainings of each would be "
        f"needed to tell."
    )
