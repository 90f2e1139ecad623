"""Numbers as words, for the sentences that explorers say."""

from __future__ import annotations

from collections.abc import Sequence


def several(count: int, what: str) -> str:
    """A count of something: "1 region", "3 regions"."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def listed(numbers: Sequence[int], what: str) -> str:
    """Numbered things as they are said: "rows 3, 4 and 5"; nothing for none."""
    words = [str(number) for number in numbers]
    if len(words) < 2:
        return f"{what} {words[0]}" if words else ""
    return f"{what}s {', '.join(words[:-1])} and {words[-1]}"
