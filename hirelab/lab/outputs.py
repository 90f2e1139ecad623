"""What a notebook's stored outputs are: images, stills of explorers, and what they say in words."""

from __future__ import annotations

import ast
import dataclasses
import re

from nbformat import NotebookNode

from .. import widgets

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
    for name, value in re.findall(r"(\w+)=('[^']*'|\"[^\"]*\"|[^,()]+)", call):
        try:
            plain = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            plain = value
        words = {True: "yes", False: "no"}[plain] if isinstance(plain, bool) else plain
        said.append(f"{labels.get(name, name)} {words}")
    return "; ".join(said)
