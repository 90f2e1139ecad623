"""The one error of hirelab, and the checks and sentences that several rooms share."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from operator import index


class HirelabError(ValueError):
    """A wrong argument, file or setting: something that the caller can put right.

    The message is one sentence that names what was given, what was expected and the cure. A
    ``ValueError``, so that code which does not know hirelab can catch it. The command line prints
    it without a traceback.
    """


def unknown(what: str, name: object, known: Iterable[str], cure: str) -> str:
    """A sentence for an unknown name: what was given, the nearest names, where the rest stand."""
    near = get_close_matches(str(name), sorted(known), n=3, cutoff=0.5)
    guess = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"There is no {what} {name!r}.{guess} {cure}"


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
