"""What a file says, before anything is made of it: its JSON, and whether values are of the kinds
that a dataclass announces."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from .errors import HirelabError, brief, first_line

__all__ = ["misfit", "parse_json", "read_object"]


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text; whatever is wrong with it is a ValueError.

    Beside what is no JSON that is a text that cannot be decoded, one nested deeper than Python
    follows, and half of a character (a lone surrogate), which nothing can write again.
    """
    try:
        value = json.loads(text)
        if (b"\\ud" if isinstance(text, bytes) else "\\ud") in text.lower():  # type: ignore[operator]
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value


def read_object(path: Path, *names: str) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        names: entries that it has to have.

    Raises:
        FileNotFoundError: there is no such file.
        HirelabError: it holds something else.
    """
    try:
        found = parse_json(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError(f"it holds {brief(found)}")
        if lacking := [name for name in names if name not in found]:
            raise ValueError(f"it lacks {', '.join(lacking)}")
    except ValueError as error:
        raise HirelabError(f"{path} is damaged ({first_line(error)}): get a fresh copy.") from error
    return found


def misfit(instance: Any) -> str:
    """What is wrong with the first field of a dataclass whose value is not of the kind that its
    annotation says; "" where all are. An annotation of other kinds than JSON's and arrays is not
    compared."""
    cls: Any = type(instance)
    for name, hint in _hints(cls).items():
        value = getattr(instance, name)
        if not _fits(value, hint):
            kind = getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint)
            return f"its {name} is {brief(value)} and no {kind.replace('typing.', '')}"
    return ""


@lru_cache(maxsize=256)
def _hints(cls: type) -> dict[str, Any]:
    """The annotations of a dataclass's fields."""
    hints = get_type_hints(cls)
    return {one.name: hints[one.name] for one in dataclasses.fields(cls)}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is what an annotation says."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if kind is Literal:
        return value in inner
    if hint in (int, float):
        numbers = (int, float) if hint is float else (int,)
        return isinstance(value, numbers) and not isinstance(value, bool)
    if hint in (str, bool, np.ndarray, type(None)):
        return isinstance(value, hint)
    if kind is tuple:
        same = isinstance(value, tuple)
        inner = inner[:1] * len(value) if same and inner[1:] == (...,) else inner
        return same and len(value) == len(inner) and all(map(_fits, value, inner))
    if kind is list:
        return isinstance(value, list) and all(_fits(one, inner[0]) for one in value)
    if kind in (dict, Mapping):
        fits = isinstance(value, Mapping)
        return fits and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    return True
