"""What a measurement returns: its numbers, the settings that made it, the versions it ran on."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import UnionType
from typing import Any, Self, Union, get_args, get_origin, get_type_hints

import numpy as np

from ._shared.errors import HirelabError, brief, first_line
from ._shared.files import write_atomic
from ._shared.reading import misfit, parse_json


def versions() -> dict[str, str]:
    """The versions of what a number may depend on."""
    return {name: _version(name) for name in ("hirelab", "torch", "timm", "numpy")}


_version = cache(version)  # reads a file of the installed package, which takes milliseconds


def hardware() -> str:
    """The processor and the accelerators that torch sees here, and how many threads it uses."""
    import torch  # results are read without it

    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(one.split(":")[1].strip() for one in lines if one.startswith("model name"))
    except (OSError, StopIteration):
        pass
    gpus = torch.cuda.device_count()
    extra = f", {gpus} x {torch.cuda.get_device_name()}" if gpus else ""
    return f"{name}, {torch.get_num_threads()} threads{extra}"


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """Base of the results: a frozen dataclass of arrays and plain values that can be kept.

    Plain values are what JSON knows, and tuples where a field's annotation says so. ``versions`` is
    filled in when a result is made, and kept when it is loaded.

    At the end of a notebook's cell a result shows its plot, where it has one; what prints as a
    table shows that. Its repr is one line, with the shapes of its arrays and not their numbers.
    """

    versions: dict[str, str] = dataclasses.field(default_factory=versions, kw_only=True, repr=False)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # the dataclass decorator, which runs after this, would write one with all numbers in it
        if "__repr__" not in vars(cls):
            cls.__repr__ = cls.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        shown = [
            f"{f.name}={_brief(getattr(self, f.name))}" for f in dataclasses.fields(self) if f.repr
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        draw = getattr(self, "plot", None)
        if draw and "\n" not in repr(self):
            return draw()._repr_mimebundle_()
        return {"text/plain": repr(self) if draw else str(self)}

    def save(self, path: str | Path) -> None:
        """Write to one .npz file: arrays as arrays, the rest as JSON inside; all or nothing."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        arrays = {k: v for k, v in values.items() if isinstance(v, np.ndarray)}
        plain = {k: v for k, v in values.items() if k not in arrays}
        buffer = io.BytesIO()
        head = json.dumps({"result": type(self).__name__, "values": plain})
        everything: dict[str, Any] = {"__head__": np.array(head), **arrays}
        np.savez_compressed(buffer, **everything)
        write_atomic(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote. Nothing in the file is executed.

        Raises:
            HirelabError: for a file that holds something else, naming what.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                _check_held(file)
                head: dict[str, Any] = parse_json(str(file["__head__"]))
                arrays = {name: file[name] for name in file.files if name != "__head__"}
            kind, values = head["result"], dict(head["values"])
        except FileNotFoundError:
            raise
        # zipfile, zlib, json and numpy each have errors of their own for a damaged file
        except Exception as error:
            said = first_line(error)
            raise HirelabError(f"{path} is not a result that hirelab saved: {said}.") from error
        if kind != cls.__name__:
            raise HirelabError(f"{path} holds a {brief(kind)[1:-1]}; load it with that class.")
        hints = get_type_hints(cls)
        try:
            plain = {name: _as_annotated(value, hints.get(name)) for name, value in values.items()}
            found = cls(**plain, **arrays)
        except (TypeError, ValueError) as error:
            said = first_line(error)
            raise HirelabError(f"{path} is of another version of hirelab: {said}.") from error
        if wrong := misfit(found):
            raise HirelabError(f"{path} is damaged: {wrong}.")
        try:
            repr(found), str(found)
        # numbers that do not go together fail wherever they first meet
        except Exception as error:
            raise HirelabError(
                f"{path} is damaged: its values do not go together ({first_line(error)})."
            ) from error
        return found


MOST_BYTES = 2**30
"""Of all arrays of a result together, unpacked: a small file could unpack to any size."""


def _check_held(file: Any) -> None:
    """Make sure that the arrays of an .npz file take no more memory than a result does.

    Raises:
        ValueError: they do, or an array claims more numbers than the file has.
    """
    infos = file.zip.infolist()
    if (size := sum(info.file_size for info in infos)) > MOST_BYTES:
        raise ValueError(f"it unpacks to {size:,} bytes, of at most {MOST_BYTES:,}")
    for info in infos:
        with file.zip.open(info) as member:
            version = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0
            shape, _, dtype = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(
                member
            )
            held = info.file_size - member.tell()
        if math.prod(shape) * dtype.itemsize > held:
            raise ValueError(f"{info.filename} claims shape {shape} and holds {held:,} bytes")


def _brief(value: Any) -> str:
    """A value in a few words: an array by its shape, long lists and texts by their length."""
    if isinstance(value, np.ndarray):
        return f"<{' x '.join(map(str, value.shape))} {value.dtype}>" if value.ndim else str(value)
    text = repr(value)
    if len(text) <= 60:
        return text
    if isinstance(value, str):
        return f"{text[:57]}...{text[0]}"
    return f"<{type(value).__name__} of {len(value)}>" if hasattr(value, "__len__") else text


def _as_annotated(value: Any, hint: Any) -> Any:
    """A value out of JSON, which knows lists alone, with tuples where the annotation has them."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):  # of one thing and None, or left as it is
        others = [one for one in inner if one is not type(None)]
        return _as_annotated(value, others[0]) if len(others) == 1 else value
    if kind is tuple and isinstance(value, list):
        kinds = inner[:1] * len(value) if inner[1:] == (...,) else inner
        return tuple(_as_annotated(*pair) for pair in zip(value, kinds, strict=True))
    if kind is list and isinstance(value, list):
        return [_as_annotated(one, inner[0]) for one in value]
    if kind is dict and isinstance(value, dict):
        return {key: _as_annotated(one, inner[1]) for key, one in value.items()}
    return value
