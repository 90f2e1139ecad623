"""Pictures of classes that a network knows: right and wrong answers, and what speaks for them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from .._shared.checks import check_whole
from .._shared.errors import HirelabError
from ..analysis.answers import first_answers
from ..analysis.attribution import grad_cam
from ..datasets.samples import samples
from ..datasets.subsets import DATA_SETS, find_data_set
from ..hooks.forward import pretrained_cfg
from ..viz.figures import Figure
from ..viz.groups import Group, groups_figure

__all__ = ["Groups", "groups", "known_images"]

ROW = 4
"""Images of each group that are shown."""


@dataclass(frozen=True)
class Groups:
    """Which images of a labelled set are shown, as indices; each group up to `ROW`.

    Attributes:
        right: answered rightly, no two of one class as far as that goes.
        wrong: answered wrongly, the first ones.
        confused: of the pair of classes (label, answer) that is confused most often.
        pair: that pair; None where everything is right.
        accuracy: share of right answers of all, 0..1.
    """

    right: list[int]
    wrong: list[int]
    confused: list[int]
    pair: tuple[int, int] | None
    accuracy: float


def groups(labels: Sequence[int], answers: Sequence[int]) -> Groups:
    """Choose what to show of labels and answers, class numbers in the order of the images.

    Nothing is picked by how it looks: every group has the first ones that belong to it.
    """
    pairs = list(zip(labels, answers, strict=True))
    right = [i for i, (label, answer) in enumerate(pairs) if label == answer]
    wrong = [i for i, (label, answer) in enumerate(pairs) if label != answer]
    first = {labels[i]: i for i in reversed(right)}  # of every class the first
    varied = sorted(first.values())
    often = Counter(pairs[i] for i in wrong).most_common(1)
    pair = often[0][0] if often else None
    return Groups(
        right=[*varied, *(i for i in right if i not in varied)][:ROW],
        wrong=wrong[:ROW],
        confused=[i for i in wrong if pairs[i] == pair][:ROW],
        pair=pair,
        accuracy=len(right) / len(pairs),
    )


def known_images(
    model: nn.Module,
    source: str | os.PathLike[str] = "imagenette",
    n: int = 200,
    img_size: int | None = None,
) -> Figure | None:
    """Grad-CAM of images whose class a network knows: right, wrong, and most often confused.

    Args:
        model: a network with ``label_names`` in its ``pretrained_cfg``, as the bundled ones have.
        source: a data set's name, or a folder or zip of class folders. Of its validation images
            the first of every class are taken, then the second, and so on.
        n: how many are answered; a few of them are shown.
        img_size: side in pixels; by default that of the network.

    Returns:
        A figure; None for a data set that is not on this machine, after saying how to get it.

    Raises:
        HirelabError: for a network without names of its classes, images of classes that it does
            not know, and what cannot be read.
    """
    names = list(pretrained_cfg(model).get("label_names") or ())
    if not names:
        raise HirelabError(
            f"{type(model).__name__} does not say what its classes are called (label_names in its "
            "pretrained_cfg), so its answers cannot be told right from wrong."
        )
    known = DATA_SETS.get(str(source))
    if known is not None and known.url and find_data_set(known) is None:
        print(
            f"{known.name} is not here. `hirelab data get {known.name}` brings it "
            f"({known.megabytes:,} MB); then run this cell again."
        )
        return None
    x, words = samples(check_whole("n", n, 1), img_size, source, model)
    if strange := sorted(set(words) - set(names)):
        raise HirelabError(
            f"{source} has images of {strange[0]!r}, and the network knows {', '.join(names[:3])} "
            f"and so on; give images of its {len(names)} classes."
        )
    labels = [names.index(word) for word in words]
    chosen = groups(labels, first_answers(model, x, k=1).classes[:, 0].tolist())
    shown = [*chosen.right, *chosen.wrong, *chosen.confused]
    found = grad_cam(model, x[shown])
    said = [
        (
            f"{names[answer]}, {share:.0%}",
            "" if answer == labels[i] else f"it is: {names[labels[i]]}",
        )
        for i, answer, share in zip(shown, found.predicted, found.confidence, strict=True)
    ]
    heads = ["right", "wrong", "most often confused"]
    if chosen.pair:
        label, answer = (names[number] for number in chosen.pair)
        heads[2] += f": {label}, taken for {answer}"
    ends = np.cumsum([0, len(chosen.right), len(chosen.wrong), len(chosen.confused)])
    rows = [
        Group(head, found.images[a:b], found.upsampled[a:b], said[a:b])
        for head, a, b in zip(heads, ends, ends[1:], strict=False)
    ]
    return groups_figure(rows, f"{chosen.accuracy:.0%} of {len(labels)} images right; {heads[2]}")
