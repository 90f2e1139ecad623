"""The ledger: one JSON file per finished run, in a folder that any number of processes may share.

A file is named by what its run *is* (`RunKey`): network and arguments, recipe, data, seed, and the
version of the training loop. It is written whole or not at all, so two writers lose nothing and no
lock is held; the committed csv is compiled from the files, sorted.

Who works on what is said by leases: ``KEY.lease``, made only where none is, renewed while the work
goes on. A lease whose process died, or that nobody renewed for `LEASE_SECONDS`, is taken over. So
several processes that share the folder, on one machine or many, are a cluster without a server.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import io
import json
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from .._shared.errors import HirelabError, brief, first_line
from .._shared.files import write_atomic
from .._shared.reading import misfit, parse_json

FORMAT = 1
"""Version of the files; readers refuse others."""

MOST = 10**18
"""No count or time of a run is larger."""

PROTOCOL = "protocol.json"
"""What the runs of a folder have in common, see `protocols`; no entry."""

LEASE_SECONDS = 300.0
"""Age at which a lease that nobody renews is given up. Renewed four times as often."""

WRITING = 10.0
"""Seconds after which a lease that is still empty is given up: writing it takes one call."""


@dataclass(frozen=True)
class RunKey:
    """What a run is. Equal keys are the same run, and run once.

    Attributes:
        model: name of the network; ``arguments``: what it is built with, defaults of the design
            included, so that a change of a default makes other runs.
        recipe: the settings that differ from the paper's recipe.
        data: fingerprints of the train and val images.
        seed: of weights, order and augmentation.
        loop: version of the training loop, raised when equal keys would train otherwise.
    """

    model: str
    arguments: Mapping[str, Any]
    recipe: Mapping[str, Any]
    data: Mapping[str, str]
    seed: int
    loop: int

    @property
    def name(self) -> str:
        """Sixteen hexadecimal digits: the name of the run's file."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Entry:
    """A run that came to its end, or failed.

    Attributes:
        key: what it is.
        status: "done" or "failed"; ``reason``: why it failed.
        source: hash of the source that matters, see `source.stale`.
        top1: percent; ``loss``: nats; both on the validation images, NaN where it failed.
        correct: base64 of the packed bits, image by image, of what was right; ``images``: how many.
        parameters, macs: of the network, at the recipe's size.
        seconds: of training; ``images_per_second`` of it.
        measured: what else was measured; of a diagnostic: for each question its accuracy and bound.
        about: hardware, versions, commit, date, command: what else a reader may ask.
    """

    key: RunKey
    status: str
    reason: str = ""
    source: str = ""
    top1: float = float("nan")
    loss: float = float("nan")
    correct: str = ""
    images: int = 0
    parameters: int = 0
    macs: int = 0
    seconds: float = 0.0
    images_per_second: float = 0.0
    measured: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def answers(self) -> np.ndarray:
        """(images,) bool: which validation images were right, in the data set's order."""
        packed = np.frombuffer(base64.b64decode(self.correct), dtype=np.uint8)
        return np.unpackbits(packed, count=self.images).astype(bool)

    def to_json(self) -> str:
        """The content of the run's file."""
        values = {k: v for k, v in dataclasses.asdict(self).items() if v == v}  # JSON has no NaN
        return json.dumps({"format": FORMAT, **values}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read `to_json`.

        Raises:
            HirelabError: for anything else, saying what.
        """
        try:
            values = parse_json(text)
            if not isinstance(values, dict):
                raise HirelabError(f"it holds a {type(values).__name__} and no run")
            if (version := values.pop("format")) != FORMAT:
                raise HirelabError(f"it is of another version, {brief(version)}, than {FORMAT}")
            found = cls(RunKey(**values.pop("key")), **values)
        except HirelabError:
            raise
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise HirelabError(f"it is damaged: {first_line(error)}") from error
        if wrong := found._wrong():
            raise HirelabError(f"it is damaged: {wrong}")
        return found

    def _wrong(self) -> str:
        """What cannot be true of a run; "" where nothing is wrong."""
        if wrong := misfit(self) or misfit(self.key):
            return wrong
        if self.status not in ("done", "failed"):
            return f"its status is {brief(self.status)}"
        for name in ("images", "parameters", "macs", "seconds", "images_per_second"):
            if not 0 <= getattr(self, name) <= MOST:
                return f"its {name} is {brief(getattr(self, name))}"
        if self.status == "failed":
            return ""
        if not 0 <= self.top1 <= 100:
            return f"its top1 is {brief(self.top1)}"
        if math.isinf(self.loss):  # a diagnostic has none
            return f"its loss is {self.loss}"
        try:
            packed = base64.b64decode(self.correct, validate=True)
        except (TypeError, ValueError):
            return "its answers cannot be read"
        if len(packed) != -(-self.images // 8):
            return f"it has {8 * len(packed)} answers to {self.images} images"
        if self.images and abs(100 * self.answers.mean() - self.top1) > 1e-6:
            return "its top1 is not that of its answers"
        return ""


def pack(correct: np.ndarray) -> str:
    """Base64 of (images,) bool: 3,925 answers are 656 characters."""
    return base64.b64encode(np.packbits(correct.astype(bool)).tobytes()).decode("ascii")


@dataclass(frozen=True)
class Ledger:
    """A folder of entries and leases. Making one touches nothing."""

    folder: Path

    def path(self, key: RunKey) -> Path:
        """The file of a run, there or not."""
        return self.folder / f"{key.name}.json"

    def get(self, key: RunKey) -> Entry | None:
        """The entry of a run; None where there is none that can be read."""
        return self._entry(self.path(key))[0]

    def _entry(self, path: Path) -> tuple[Entry | None, str]:
        """The entry that a file holds, or None and why it cannot be read."""
        try:
            entry = Entry.from_json(path.read_text(encoding="utf-8"))
        except (HirelabError, OSError, UnicodeDecodeError) as error:
            return None, first_line(error)
        if entry.key.name != path.stem:
            return None, "its name is not that of its content"
        return entry, ""

    def read(self) -> tuple[list[Entry], dict[Path, str]]:
        """Every entry, sorted by file, and {file that cannot be read: why}."""
        entries, damaged = [], {}
        for path in sorted(self.folder.glob("*.json")):
            if path.name == PROTOCOL:
                continue
            entry, why = self._entry(path)
            if entry:
                entries.append(entry)
            else:
                damaged[path] = why
        return entries, damaged

    def write(self, entry: Entry) -> Path:
        """Write an entry; the file is there whole or not at all. What stands in its place and
        cannot be read is kept beside it, as KEY.damaged.

        Raises:
            HirelabError: the folder cannot be written to; nothing of what is there is lost.
        """
        path = self.path(entry.key)
        with self.writing():
            if path.exists() and self.get(entry.key) is None:
                os.replace(path, path.with_suffix(".damaged"))
            write_atomic(path, entry.to_json())
        return path

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn what the disk refuses in the block into a sentence with the cure."""
        try:
            yield
        except OSError as error:
            raise HirelabError(
                f"The ledger {self.folder} cannot be written ({error}); make room or choose "
                "another folder, and run the same command again."
            ) from error

    @contextmanager
    def lease(self, key: RunKey, seconds: float = LEASE_SECONDS) -> Iterator[bool]:
        """Whether the run is ours to do while the block lasts: False if another process has it."""
        path = self.folder / f"{key.name}.lease"
        token = uuid.uuid4().hex
        with self.writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            taken = _take(path, token, seconds)
        if not taken:
            yield False
            return
        over = threading.Event()

        def renew() -> None:
            while not over.wait(seconds / 4):
                # gone since the look, or a shared disk that stumbles: the next turn asks again
                with suppress(OSError):
                    if _holder(path).get("token") == token:
                        os.utime(path)

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield True
        finally:
            over.set()
            thread.join()
            if _holder(path).get("token") == token:
                path.unlink(missing_ok=True)

    def leased(self, seconds: float = LEASE_SECONDS) -> set[str]:
        """Names of the runs that some living process works on now."""
        return {p.stem for p in self.folder.glob("*.lease") if not _abandoned(p, seconds)}


def compile_csv(ledgers: Sequence[Ledger], path: Path) -> int:
    """Write all readable entries as one csv, a line per run, sorted; returns how many."""
    rows = [
        {"ledger": ledger.folder.name, **_flat(entry)}
        for ledger in ledgers
        for entry in ledger.read()[0]
    ]
    head = list(rows[0]) if rows else ["ledger", "run"]
    buffer = io.StringIO()
    lines = sorted([_cell(v) for v in row.values()] for row in rows)
    csv.writer(buffer, lineterminator="\n").writerows([head, *lines])
    write_atomic(path, buffer.getvalue())
    return len(rows)


def source_hash(files: Mapping[str, str]) -> str:
    """Sixteen hexadecimal digits of {name: text} of the files that decide what training does.

    Not the commit: every edit of a README changes that.
    """
    text = json.dumps(dict(files), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# ------------------------------------------------------------------ leases


def _take(path: Path, token: str, seconds: float) -> bool:
    """Make the lease file, taking the place of an abandoned one."""
    if _create(path, token):
        return True
    if not _abandoned(path, seconds):
        return False
    before = _holder(path).get("token")
    aside = path.with_suffix(f".{token}")
    try:
        os.rename(path, aside)  # of several that try, one succeeds
    except FileNotFoundError:
        return False
    if _holder(aside).get("token") != before:
        # another process took it over between the look and the rename: give its lease back
        os.rename(aside, path)
        return False
    aside.unlink(missing_ok=True)
    return _create(path, token)


def _create(path: Path, token: str) -> bool:
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    holder = {"host": socket.gethostname(), "process": os.getpid(), "token": token}
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(holder, file)
    except OSError:
        path.unlink(missing_ok=True)  # the disk is full: nobody holds this
        raise
    return True


def _holder(path: Path) -> dict[str, Any]:
    """What a lease says; empty where it is gone, still being written, or none of ours."""
    try:
        found = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    process = found.get("process") if isinstance(found, dict) else None
    ours = isinstance(process, int) and 0 < process < 2**31
    return found if ours else {}


def _abandoned(path: Path, seconds: float) -> bool:
    """Whether nobody works under a lease: its process is gone, or it has grown old, or it was
    killed before it wrote who it is."""
    holder = _holder(path)
    if holder.get("host") == socket.gethostname() and not _runs(holder["process"]):
        return True
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return time.time() - found.st_mtime > (seconds if found.st_size else min(seconds, WRITING))


def _runs(process: int) -> bool:
    """Whether a process of this machine runs. One that died and that its parent has not asked for
    does not: in a container without an init there may be nobody to ask."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # not Linux
        return True
    return state != "Z"


# ------------------------------------------------------------------ csv


def _flat(entry: Entry) -> dict[str, Any]:
    """An entry as columns, without the answers image by image."""
    key = entry.key
    return {
        "model": key.model,
        "arguments": " ".join(f"{k}={v}" for k, v in sorted(key.arguments.items())),
        "seed": key.seed,
        "status": entry.status,
        "top1": entry.top1,
        "loss": entry.loss,
        "parameters": entry.parameters,
        "macs": entry.macs,
        "images_per_second": entry.images_per_second,
        "seconds": entry.seconds,
        "recipe": " ".join(f"{k}={v}" for k, v in sorted(key.recipe.items()) if v != ""),
        "task": key.data.get("task", ""),
        "train": key.data.get("train", ""),
        "val": key.data.get("val", ""),
        "loop": key.loop,
        "source": entry.source,
        "reason": entry.reason,
        "run": key.name,
    }


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
