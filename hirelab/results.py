"""What a measurement returns: its numbers, the settings that made it, the versions it ran on."""

from __future__ import annotations

import dataclasses
import io
import json
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np

from ._shared.errors import HirelabError
from ._shared.files import write_atomic


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

    ``versions`` is filled in when a result is made, and kept when it is loaded.
    """

    versions: dict[str, str] = dataclasses.field(default_factory=versions, kw_only=True, repr=False)

    def save(self, path: str | Path) -> None:
        """Write to one .npz file: arrays as arrays, the rest as JSON inside; all or nothing."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        arrays = {k: v for k, v in values.items() if isinstance(v, np.ndarray)}
        plain = {k: v for k, v in values.items() if k not in arrays}
        buffer = io.BytesIO()
        head = json.dumps({"result": type(self).__name__, "values": plain})
        np.savez_compressed(buffer, __head__=np.array(head), **arrays)
        write_atomic(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote. Nothing in the file is executed.

        Raises:
            HirelabError: for a file that holds something else, naming what.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                head: dict[str, Any] = json.loads(str(file["__head__"]))
                arrays = {name: file[name] for name in file.files if name != "__head__"}
            kind, values = head["result"], head["values"]
        except FileNotFoundError:
            raise
        # zipfile, zlib, json and numpy each have errors of their own for a damaged file
        except Exception as error:
            raise HirelabError(f"{path} is not a result that hirelab saved: {error}.") from error
        if kind != cls.__name__:
            raise HirelabError(f"{path} holds a {kind}; load it with that class.")
        try:
            return cls(**values, **arrays)
        except TypeError as error:
            raise HirelabError(f"{path} is of another version of hirelab: {error}.") from error
