"""What a notebook's stored outputs are: images, stills of explorers, and what they say in words."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbformat import NotebookNode

from .. import widgets
from .notebooks import code_cells

LONGEST = 300  # characters that a screen reader shall read of an image
_REPR = re.compile(r"(?P<film>animation of )?(?P<call>(?P<name>[A-Z]\w*)\(.*\))$")


def image_kind(output: NotebookNode) -> str | None:
    """The type of an output's image, whichever it is: image/png, image/jpeg, image/webp."""
    kinds = (kind for kind in output.get("data", {}) if kind.startswith("image/"))
    return next((kind for kind in kinds if kind != "image/svg+xml"), None)


def explorer_of(output: NotebookNode) -> str:
    """The class of the explorer whose still an output is; "" for a film and for anything else."""
    said = _REPR.match(next(iter(_lines(output)), ""))
    still = said and not said["film"] and _class(said["name"]) and image_kind(output)
    return said["name"] if said and still else ""


@dataclass(frozen=True)
class Shown:
    """An explorer as a notebook shows it.

    Attributes:
        settings: of its still.
        image: the name or the file of the image that the cell gives it; None where it gives none,
            or one that only running the cell would tell.
    """

    settings: Mapping[str, Any]
    image: str | None


def explorers_of(notebook: NotebookNode) -> dict[str, Shown]:
    """The explorers that a notebook shows by their classes, each as its first still has it."""
    shown: dict[str, Shown] = {}
    sources: list[str] = []
    for cell in code_cells(notebook):
        sources.append(cell.source)
        for output in cell.outputs:
            if (name := explorer_of(output)) and name not in shown:
                shown[name] = Shown(settings_of(output), _image_given(name, sources))
    return shown


def settings_of(output: NotebookNode) -> dict[str, Any]:
    """The settings in an explorer's repr, which its still is of."""
    said = _REPR.match(next(iter(_lines(output)), ""))
    return _literals(said["call"]) if said else {}


def _literals(call: str) -> dict[str, Any]:
    """The keywords of a call, written in Python, whose values are; none where it is not Python."""
    try:
        node = ast.parse(call, mode="eval").body
        words = node.keywords if isinstance(node, ast.Call) else []
        return {word.arg: ast.literal_eval(word.value) for word in words if word.arg}
    except (SyntaxError, ValueError):
        return {}


def _image_given(name: str, sources: Sequence[str]) -> str | None:
    """The image of the last call in some cells that makes an explorer, if it is written there, or
    as a variable's value."""
    texts: dict[str, str] = {}
    given = None
    place = list(inspect.signature(getattr(widgets, name)).parameters)
    for node in itertools.chain.from_iterable(map(_statements, sources)):
        for call in (n for n in ast.walk(node) if isinstance(n, ast.Call)):
            if ast.unparse(call.func).rpartition(".")[2] == name:
                words = dict(zip(place, call.args, strict=False))
                words |= {word.arg: word.value for word in call.keywords if word.arg}
                given = _text(words.get("image"), texts)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            texts[node.targets[0].id] = _text(node.value, texts) or ""
    return given or None


def _text(node: ast.expr | None, known: Mapping[str, str]) -> str | None:
    """The text that an expression is, or a variable of it has."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _statements(source: str) -> list[ast.stmt]:
    """A cell's statements; none where only IPython understands it."""
    try:
        return ast.parse(source).body
    except SyntaxError:
        return []


def alt_text(output: NotebookNode) -> str:
    """What is to be read in place of an output's image: its own ``alt``; of an explorer, title and
    facts, or the settings where it stored none; else its text."""
    given = output.get("metadata", {}).get(image_kind(output), {}).get("alt")
    first, *rest = _lines(output) or ["<nothing>"]
    if given or first.startswith("<"):  # the repr of an object that has nothing to say
        return shorten(given or "figure")
    said = _REPR.match(first)
    explorer = _class(said["name"]) if said else None
    if said is None or explorer is None:
        return shorten("; ".join([first, *rest]))
    words = "; ".join(rest) or _settings(explorer, said["call"])
    return shorten(f"{'Film: ' if said['film'] else ''}{explorer.title}: {words}")


def shorten(text: str, longest: int = LONGEST) -> str:
    """The text in one line, cut after its last whole statement or word where it is too long."""
    line = " ".join(text.split())
    if len(line) <= longest:
        return line
    head = line[: longest - 1]
    cut = max(head.rfind("; "), head.rfind(". "))
    return f"{head[: cut if cut > longest // 2 else head.rfind(' ')]} \u2026"


def _lines(output: NotebookNode) -> list[str]:
    """The lines of an output's text."""
    return str(output.get("data", {}).get("text/plain", "")).strip().splitlines()


def _class(name: str) -> type[widgets.Explorer] | None:
    """The explorer of that name, if it is one."""
    found = getattr(widgets, name, None)
    return found if isinstance(found, type) and issubclass(found, widgets.Explorer) else None


def _settings(explorer: type[widgets.Explorer], call: str) -> str:
    """The settings in an explorer's repr, in the words of its controls."""
    labels = {f.name: f.metadata["control"].label for f in dataclasses.fields(explorer.Settings)}
    said = []
    for name, value in _literals(call).items():
        words = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
        said.append(f"{labels.get(name, name)} {words}")
    return "; ".join(said)
