"""One way to say 'no such name', with the names that the reader may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(what: str, name: object, known: Iterable[str], cure: str) -> str:
    """A sentence for an unknown name: what was given, the nearest names, where the rest stand."""
    near = get_close_matches(str(name), sorted(known), n=3, cutoff=0.5)
    guess = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"There is no {what} {name!r}.{guess} {cure}"
