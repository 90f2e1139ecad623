"""The one error of hirelab, and the sentence for a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


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
