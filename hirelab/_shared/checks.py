"""Checks of arguments that mean the same everywhere: one sentence when they are wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index
from typing import Any

from .errors import HirelabError, unknown

MOST_PIXELS = 8192
"""Longest side of an image that is worked on: at 8192 x 8192 a batch of one is 800 MB already."""


def check_whole(
    name: str, value: object, low: int | None = None, high: int | None = None, unit: str = ""
) -> int:
    """The value as an int, where it is a whole number from ``low`` to ``high``.

    Integers of NumPy and PyTorch count as whole numbers; booleans and floats do not.

    Args:
        name: of the argument, for the message.
        low, high: bounds, both included; None for no bound.
        unit: what is counted ("tokens", "pixels"), for the message.

    Raises:
        HirelabError: for anything else, naming the argument, the value and the bounds.
    """
    number = _whole(value)
    inside = number is not None and (low is None or number >= low)
    if number is not None and inside and (high is None or number <= high):
        return number
    span = (
        f" from {low:,} to {high:,}" if low is not None and high is not None
        else f" of at least {low:,}" if low is not None
        else f" of at most {high:,}" if high is not None
        else ""
    )  # fmt: skip
    counts = f" of {unit}" if unit else ""
    raise HirelabError(f"{name} is {value!r}; give a whole number{counts}{span}.")


def _whole(value: object) -> int | None:
    """The value as an int, or None for what is no whole number."""
    # bool is an int to Python, and np.int64 is not: ask what indexing asks. The attribute alone
    # says little, since every array and tensor has it.
    if isinstance(value, bool):
        return None
    try:
        return index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def check_choice(name: str, value: object, known: Iterable[str]) -> None:
    """Make sure that a string is one of those ``known``.

    Raises:
        HirelabError: naming the argument, the value, near names and all of them.
    """
    names = list(known)
    if not isinstance(value, str) or value not in names:
        raise HirelabError(unknown(name, value, names, f"Choose one of {', '.join(names)}."))


def check_img_size(value: Any, low: int = 3, name: str = "img_size") -> tuple[int, int]:
    """(height, width) in pixels, from such a pair or from one number for a square.

    Args:
        low: the shortest side allowed; a Hire-MLP's stem needs 3 pixels.
        name: of the argument, for the message.

    Raises:
        HirelabError: for what is neither, or a side that is too short or too long.
    """
    sides = [_whole(side) for side in _elements(value) or (value, value)]
    if len(sides) == 2 and None not in sides:
        height, width = sides
        assert height is not None
        assert width is not None
        if low <= height <= MOST_PIXELS and low <= width <= MOST_PIXELS:
            return height, width
    raise HirelabError(
        f"{name} is {value!r}; give (height, width) in pixels, or one whole number for a square, "
        f"from {low} to {MOST_PIXELS:,}."
    )


def check_position(
    value: Any, grid: Sequence[int], name: str, what: str = "tokens"
) -> tuple[int, int]:
    """(row, column) on a grid.

    Args:
        grid: (rows, columns).
        name: of the point that the grid belongs to; ``what`` stands at its
            places ("pixels").

    Raises:
        HirelabError: for anything that is no place on the grid, naming the grid.
    """
    place = [_whole(index) for index in _elements(value)]
    rows, columns = grid
    if len(place) == 2 and None not in place:
        row, column = place
        assert row is not None
        assert column is not None
        if 0 <= row < rows and 0 <= column < columns:
            return row, column
    raise HirelabError(
        f"position is {value!r}; {name} has {rows} x {columns} {what}: give (row, column) from "
        f"(0, 0) to ({rows - 1}, {columns - 1})."
    )


def _elements(value: Any) -> list[Any]:
    """What a tuple, a list or an array holds; nothing for a single number, a string or None."""
    try:
        return [] if isinstance(value, str) else list(value)
    except TypeError:
        return []
