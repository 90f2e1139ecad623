"""Which source decides what a run comes to, as one short hash, and where a run took place.

An entry of the ledger keeps both. One with another hash is called stale: what it says was true of
other code. It is shown and never deleted, since nobody but a reader can tell whether the change
mattered. Comments, docstrings and layout do not count, and a change that was seen to train to
the same bytes stands in `EQUAL`.
"""

from __future__ import annotations

import io
import subprocess
import time
import tokenize
from functools import cache
from pathlib import Path

from .._shared.files import ROOT
from ..results import hardware, versions
from .ledger import Entry, source_hash

PACKAGE = Path(__file__).resolve().parents[1]

TRAINING = (
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
"""What decides a training. Not the recipes: a run's key has every setting of its own."""

DIAGNOSTIC = (
    "rearrange.py",
    "models/hire_mlp.py",
    "models/arguments.py",
    "synthetic/learning.py",
    "synthetic/tasks.py",
)
"""What decides a diagnostic."""

_MOVED = (
    "checkpoints and stopping moved out of the loop, set_rearrangement refuses region in words: "
    "weights equal to the byte in float32 and bfloat16, a diagnostic of each task to the last digit"
)
_NAMED = (
    "bundled weights are known by their manifests, classes by timm's words: equal in the same way"
)
_PREPARED = (
    "a step's random part is a method of its own, images are decoded on several threads: equal in "
    "the same way"
)
_SPLIT = (
    "the same code as Python 3.12 and later read it, when its hash still depended on how a "
    "formatted string is split into words"
)
_SMALLER = "weights of hire_mlp_atto are bundled as well: equal in the same way"
EQUAL: dict[str, dict[str, str]] = {
    "de59ed396119021e": {  # trainings
        "01606df9eb64481d": _MOVED,
        "b61537ec729853ee": _NAMED,
        "46ee000607e26c5f": _PREPARED,
        "bed8e30763515df9": _SPLIT,
        "85a5e17627f24cb2": _SMALLER,
        "fa5853409f5c8de3": _SMALLER,
    },
    "a87133cb6ff2aedf": {  # diagnostics
        "9b48a563e83fe675": _MOVED,
        "2c39f924c77444d5": _NAMED,
        "1b10663b1c428818": _SMALLER,
        "f696aabdcee4135c": _SMALLER,
    },
}
"""{hash of the code as it is: {hash of earlier code: what changed, and how equality was seen}}.

Only for code that moves, or that trainings do not use: run tests/ablation/training_bytes.py before
and after, and compare what it prints, the bytes of weights among it. A later change of the code has
another hash, and the table no longer counts: whoever makes it has to look again, at all of the
earlier ones."""

_F_STRING = {"FSTRING_START": 1, "TSTRING_START": 1, "FSTRING_END": -1, "TSTRING_END": -1}
"""By how much a token deepens what is inside a formatted string, where Python reads into one."""

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

    A line keeps its depth, since that is meaning in Python. A formatted string is one word, as it
    is written: Python 3.11 reads it so, and later ones read into it.
    """
    source = text.splitlines(keepends=True)
    lines: list[str] = []
    parts: list[str] = []
    depth = inside = 0
    start = (0, 0)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        deeper = _F_STRING.get(tokenize.tok_name[token.type], 0)
        start = token.start if deeper == 1 and not inside else start
        inside += deeper
        if inside:
            continue
        if deeper:  # the end of the outermost one
            parts.append(_between(source, start, token.end))
            continue
        depth += (token.type == tokenize.INDENT) - (token.type == tokenize.DEDENT)
        if token.type == tokenize.NEWLINE:
            if not (len(parts) == 1 and parts[0].endswith(('"', "'"))):  # a docstring
                lines.append(f"{depth} {' '.join(parts)}")
            parts = []
        elif token.type not in _LAYOUT:
            parts.append(token.string)
    return "\n".join(lines)


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """What stands from one place to another, each a line, from 1, and a column."""
    (first, left), (last, right) = start, end
    if first == last:
        return lines[first - 1][left:right]
    inner = lines[first : last - 1]
    return "".join([lines[first - 1][left:], *inner, lines[last - 1][:right]])


@cache
def code_hash(files: tuple[str, ...]) -> str:
    """The hash of some files of the package as they are now."""
    return source_hash(
        {name: code_of((PACKAGE / name).read_text(encoding="utf-8")) for name in files}
    )


def circumstances(command: str = "") -> dict[str, str]:
    """Where and when a run takes place: the command that repeats it, commit, date, hardware,
    versions."""
    return {
        "command": command,
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d"),
        "hardware": hardware(),
        **{f"version of {name}": version for name, version in versions().items()},
    }


@cache
def _commit() -> str:
    """The checkout's commit; "" where there is none."""
    try:
        call = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def stale(entry: Entry, source: str) -> bool:
    """Whether the code that trains has changed since a run; shown, never a reason to delete.

    Args:
        source: hash of the code as it is.
    """
    return entry.source not in ("", source, *EQUAL.get(source, ()))
