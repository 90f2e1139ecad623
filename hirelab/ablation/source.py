"""Which source decides what a training comes to, as one short hash.

An entry of the ledger keeps it. One with another hash is called stale: what it says was true of
other code. It is shown and never deleted, since nobody but a reader can tell whether the change
mattered. Comments, docstrings and layout do not count.
"""

from __future__ import annotations

import io
import tokenize
from functools import cache
from pathlib import Path

from .ledger import source_hash

PACKAGE = Path(__file__).resolve().parents[1]

FILES = (
    "rearrange.py",
    "models/hire_mlp.py",
    "models/arguments.py",
    "training/data.py",
    "training/loop.py",
    "training/network.py",
    "training/trainer.py",
    "datasets/cache.py",
    "datasets/transforms.py",
)
"""What is hashed. Not the recipes: a run's key has every setting of its own."""

_LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def code_of(text: str) -> str:
    """Python source without comments, docstrings and blank lines, a statement a line.

    A line keeps its depth, since that is meaning in Python.
    """
    lines: list[str] = []
    parts: list[str] = []
    depth = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        depth += (token.type == tokenize.INDENT) - (token.type == tokenize.DEDENT)
        if token.type == tokenize.NEWLINE:
            if not (len(parts) == 1 and parts[0].endswith(('"', "'"))):  # a docstring
                lines.append(f"{depth} {' '.join(parts)}")
            parts = []
        elif token.type not in _LAYOUT:
            parts.append(token.string)
    return "\n".join(lines)


@cache
def training_source() -> str:
    """The hash of `FILES` as they are now."""
    return source_hash(
        {name: code_of((PACKAGE / name).read_text(encoding="utf-8")) for name in FILES}
    )
