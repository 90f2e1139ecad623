"""What a network answers: its first few classes for every image, with their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._shared.checks import check_whole
from .._shared.errors import HirelabError
from .._shared.tables import Records, table
from ..hooks.forward import class_name, eval_mode
from ..results import Result

__all__ = ["FirstAnswers", "first_answers"]

AT_ONCE = 32  # images in the network's memory


@dataclass(frozen=True, eq=False, repr=False)
class FirstAnswers(Records, Result):
    """The classes that a network thinks likeliest, for each of some images.

    Attributes:
        names: of the images.
        classes: (images, k) numbers of the classes, the likeliest first.
        probabilities: (images, k) their softmax, 0 to 1.
        words: for each image what its classes are called, by the network's own ``label_names``.
    """

    names: list[str]
    classes: np.ndarray
    probabilities: np.ndarray
    words: list[list[str]]

    def rank(self, image: str, word: str) -> int | None:
        """The place of a class among an image's answers, from 1; None where it is not one."""
        words = self.words[self.names.index(image)]
        return words.index(word) + 1 if word in words else None

    def records(self) -> list[dict[str, Any]]:
        """A row for each answer: image, rank from 1, number and word of the class, probability."""
        return [
            {"image": name, "rank": k + 1, "class": int(c), "word": word, "probability": float(p)}
            for name, *rows in zip(
                self.names, self.classes, self.words, self.probabilities, strict=True
            )
            for k, (c, word, p) in enumerate(zip(*rows, strict=True))
        ]

    def __str__(self) -> str:
        rows = [
            [name, *(f"{word} {share:.0%}" for word, share in zip(words, shares, strict=True))]
            for name, words, shares in zip(self.names, self.words, self.probabilities, strict=True)
        ]
        return table(rows)


def first_answers(
    model: nn.Module, x: Tensor, k: int = 5, names: Sequence[str] | None = None
) -> FirstAnswers:
    """The ``k`` likeliest classes of each image.

    Args:
        model: a classifier; it answers in evaluation mode and is afterwards as it was.
        x: (N, 3, H, W) images as the network takes them, see `hirelab.samples`.
        k: how many, 1 to the number of classes.
        names: of the N images; by default their numbers.

    Raises:
        HirelabError: for more answers than there are classes, and names of other images.
    """
    called = [str(i) for i in range(len(x))] if names is None else list(names)
    if len(called) != len(x):
        raise HirelabError(
            f"names has {len(called)} entries; give one for each of {len(x)} images."
        )
    with eval_mode(model), torch.no_grad():
        shares = torch.cat([model(part).softmax(1) for part in x.split(AT_ONCE)])
    check_whole("k", k, 1, shares.shape[1])
    found = shares.topk(k)
    words = [[class_name(model, int(c)) for c in row] for row in found.indices]
    return FirstAnswers(called, found.indices.cpu().numpy(), found.values.cpu().numpy(), words)
