"""Numbers as words, for the sentences that explorers say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def several(count: int, what: str) -> str:
    """A count of something: "1 region", "3 regions"."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def listed(numbers: Sequence[int], what: str) -> str:
    """Numbered things as they are said: "rows 3, 4 and 5"; nothing for none."""
    words = [str(number) for number in numbers]
    if len(words) < 2:
        return f"{what} {words[0]}" if words else ""
    return f"{what}s {', '.join(words[:-1])} and {words[-1]}"


def said_of_gate(weights: np.ndarray, branches: Sequence[str]) -> str:
    """What a gate's weights (C, branches) say; (0, 0) where there is no gate."""
    if not len(weights):
        return "This block has no gate: it adds its branches up as they are."
    if np.abs(weights - 1 / weights.shape[1]).max() < 0.01:  # as before any training
        return "The gate has learnt nothing yet: it gives every branch an equal share."
    most = np.bincount(weights.argmax(axis=1), minlength=len(branches)) / len(weights)
    said = [f"{part:.0%} from {name}" for name, part in zip(branches, most, strict=True)]
    return f"Of the gate's channels, {', '.join(said).replace(' from', ' take most from', 1)}."
