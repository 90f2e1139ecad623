"""Faults in the middle of everything long: SIGKILL and a full disk, at moments drawn by chance.

    python tests/faults.py [NAME ...] [--times 20] [--seed 0]

Each operation is a command of ``hirelab`` on something small. It runs once undisturbed, which says
what it comes to and how long it takes. Then it is killed at a moment of that time, with all that it
started, and again on a disk that ends before the result does. Each time nothing half-written may
have a final name, and the same command afterwards has to end with the same files. A full disk has
to be said in a sentence. Prints the table of docs/testing.md; ends with 1 if anything was wrong.

The full disk is a small tmpfs where this process may mount one, else a limit to the size of files.
Commands run in processes that are forked after hirelab's imports, so that a moment falls into the
work and not into the imports. Linux alone.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import functools
import hashlib
import importlib
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from random import Random

os.environ.setdefault("OMP_NUM_THREADS", "1")

import nbformat
import numpy as np
import onnx
import torch
from PIL import Image
from safetensors.torch import load_file

import hirelab as hl
from hirelab import cli
from hirelab._shared.tables import table
from hirelab.datasets import subsets
from hirelab.lab import frozen, gallery
from hirelab.models import pretrained

ROOMS = "ablation.ablate datasets.download dense.loop lab.notebooks lab.reference models.export "
ROOMS += "training.loop training.rehearsal training.release"
for _room in ROOMS.split():
    importlib.import_module(f"hirelab.{_room}")  # what commands import, before the forks

ROOT = Path(__file__).resolve().parents[1]
MARK = "HIRELAB_FAULT"
"""Variable of the environment by which what a killed command had started is known."""

BLOCK = 4096
PATIENCE = 900.0
"""Seconds after which a command counts as hanging."""

CLOCKS = ("seconds", "images_per_second", "date", "started")
"""Names of what differs between two equal runs, in JSON."""


# ------------------------------------------------------------------ what a file holds


def digest(path: Path) -> str:
    """What a file of a result comes to, without what a clock says.

    Raises:
        Exception: it is half a file, of whatever kind its reader raises.
    """
    reader = READERS.get(path.suffix)
    content = reader(path) if reader else path.read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _json(path: Path) -> bytes:
    return _untimed(json.loads(path.read_text()))


def _lines(path: Path) -> bytes:
    text = path.read_text()
    _ends(text or "\n", "\n")  # empty before the first epoch's end
    return b"\n".join(_untimed(json.loads(line)) for line in text.splitlines())


def _untimed(value: object) -> bytes:
    """JSON's values as text, without clocks at any depth."""

    def plain(one: object) -> object:
        if isinstance(one, dict):
            return {k: plain(v) for k, v in one.items() if k not in CLOCKS}
        return one

    return json.dumps(plain(value), sort_keys=True).encode()


def _csv(path: Path) -> bytes:
    text = path.read_text()
    _ends(text, "\n")
    rows = csv.DictReader(text.splitlines())
    return repr([{k: v for k, v in row.items() if k not in CLOCKS} for row in rows]).encode()


def _html(path: Path) -> bytes:
    text = path.read_text()
    _ends(text.strip(), "</html>")
    return text.encode()


def _tensors(path: Path) -> bytes:
    load_file(path)
    return path.read_bytes()


def _arrays(path: Path) -> bytes:
    with np.load(path) as file:
        return b"".join(name.encode() + file[name].tobytes() for name in file.files)


def _array(path: Path) -> bytes:
    return np.load(path).tobytes()


def _checkpoint(path: Path) -> bytes:
    """Readable; not compared, since it keeps the seconds of its run."""
    torch.load(path, weights_only=True)
    return b""


def _image(path: Path) -> bytes:
    return np.asarray(Image.open(path)).tobytes()


def _notebook(path: Path) -> bytes:
    nbformat.validate(nbformat.read(path, as_version=4))
    return path.read_bytes()


def _onnx(path: Path) -> bytes:
    onnx.checker.check_model(onnx.load(path))
    return path.read_bytes()


def _ends(text: str, end: str) -> None:
    if not text.endswith(end):
        raise ValueError(f"it does not end with {end!r}")


READERS: dict[str, Callable[[Path], bytes]] = {
    ".json": _json,
    ".jsonl": _lines,
    ".csv": _csv,
    ".html": _html,
    ".safetensors": _tensors,
    ".npz": _arrays,
    ".npy": _array,
    ".pt": _checkpoint,
    ".png": _image,
    ".ipynb": _notebook,
    ".onnx": _onnx,
}


def digests(place: Path) -> dict[str, str]:
    """{file: its `digest`} of all files below a folder, hidden ones too; not of empty locks."""
    files = sorted(p for p in place.rglob("*") if p.is_file())
    locks = [p for p in files if p.suffix == ".lock" and not p.stat().st_size]
    return {p.relative_to(place).as_posix(): digest(p) for p in files if p not in locks}


def half_written(place: Path) -> list[str]:
    """What has a final name (no part of it hidden) and cannot be read."""
    found = []
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            try:
                digest(path)
            except Exception as error:  # every reader has errors of its own
                found.append(f"{name} is half-written ({type(error).__name__}: {error})")
    return found


# ------------------------------------------------------------------ operations


@dataclass(frozen=True)
class Operation:
    """A command, what it finds in its folder, and what is made small for it.

    Attributes:
        command: arguments of ``hirelab``; paths are relative to its folder.
        prepare: puts into the folder what the command starts from.
        small: called in the command's process before it begins.
        own_cache: whether HIRELAB_CACHE is in its folder; else it is shared and warm.
        units: folders that are there with every file or not at all.
    """

    command: Sequence[str]
    prepare: Callable[[Path], None] = lambda place: None
    small: Callable[[Path], None] = lambda place: None
    own_cache: bool = False
    units: Sequence[str] = ()


TRAINING = ["model.depths=(1,1)", "model.dims=(8,12)", "model.region=2", "model.shift=1"]
TRAINING += ["model.shift_cycle=1", "epochs=3", "warmup_epochs=0", "batch_size=16", "img_size=32"]
DENSE = ["epochs=2", "batch_size=8", "warmup_steps=4", "crop=64", "evaluate_every=5"]
NOTEBOOK = "01_region_partition"


def _train(out: str, *more: str, data: str = "photo-crops") -> list[str]:
    words = ["train", "--data", data, "--model", "hire_mlp_atto", "--preset", "quick"]
    return [*words, "--out", out, *more, "--set", *TRAINING]


def _pets() -> bytes:
    """An archive of a data set of noise."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for number in range(400):
            split, label = ("val", "train")[number % 5 > 0], ("cat", "dog")[number % 2]
            pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            member = tarfile.TarInfo(f"pets/{split}/{label}/{number}.png")
            member.size = file.tell()
            file.seek(0)
            archive.addfile(member, file)
    return buffer.getvalue()


class _Publisher(BaseHTTPRequestHandler):
    """Gives an archive, also the rest of it, in blocks that take their time."""

    body = b""
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.close_connection = True
        part = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(part[1]) if part else 0
        self.send_response(206 if part else 200)
        if part:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}"
            )
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(self.body) - start))
        self.end_headers()
        with contextlib.suppress(OSError):  # a reader that was killed
            for at in range(start, len(self.body), 8 * BLOCK):
                self.wfile.write(self.body[at : at + 8 * BLOCK])
                self.wfile.flush()
                time.sleep(0.03)


@contextlib.contextmanager
def publisher() -> Iterator[subsets.DataSet]:
    """A data set that a process of its own publishes on this machine."""
    _Publisher.body = body = _pets()
    server = HTTPServer(("127.0.0.1", 0), _Publisher)
    if not (process := os.fork()):
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        server.serve_forever()
    url, md5 = f"http://127.0.0.1:{server.server_port}/pets.tgz", hashlib.md5(body).hexdigest()
    try:
        yield subsets.DataSet("pets", "noise", 2, 320, 80, url, md5, 1, ("pets",))
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def _known(data: subsets.DataSet, place: Path) -> None:
    subsets.DATA_SETS["pets"] = data


def _folder_of_images(place: Path) -> None:
    """A data set large enough for its decoding to take a while."""
    for number in range(300):
        split, label = ("val", "train")[number % 5 > 0], ("cat", "dog")[number % 2]
        pixels = np.random.default_rng(number).integers(0, 256, (160, 160, 3), np.uint8)
        path = place / "images" / split / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        os.utime(path, (0, 0))  # or they are other images to the cache


def _shelf(trained: Path, place: Path) -> None:
    (place / "weights").mkdir()
    (place / "weights/README.md").write_text("before\n<!-- tables -->\n<!-- end -->\nafter\n")
    shutil.copytree(trained / "run", place / "run")


def _own_shelf(place: Path) -> None:
    pretrained.FOLDER = place / "weights"


def _copy_notebook(place: Path) -> None:
    (place / "notebooks").mkdir()
    shutil.copy(ROOT / f"notebooks/{NOTEBOOK}.ipynb", place / "notebooks")


def _few_pages(place: Path) -> None:
    """Two explorers, one network in the browser, and two modules of the reference."""
    few = [
        frozen.Frozen("shift.html", hl.ShiftExplorer(), {"shift": range(4)}),
        frozen.Frozen("region.html", hl.RegionExplorer(), {"region": (2, 3, 4)}),
    ]
    frozen.frozen_explorers = lambda: few  # type: ignore[assignment]
    modules = ("hirelab.rearrange", "hirelab.paper")
    write = gallery.write_gallery
    gallery.write_gallery = functools.partial(write, modules=modules)  # type: ignore[assignment]


def operations(data: subsets.DataSet, trained: Path) -> dict[str, Operation]:
    """All of them, by name.

    Args:
        data: that is published here.
        trained: a folder with a finished run, ``run``.
    """
    scenes = ["--task", "segmentation", "--head", "fpn", "--model", "hire_mlp_atto", "--untrained"]
    scenes += ["--data", "scenes", "--out", "run", "--save-minutes", "0", "--set", *DENSE]
    smoke = ["--profile", "smoke", "--table", "cross_region", "--ledger", "ledger", "--out", "runs"]
    book = ["--notebooks", "notebooks"]
    large = ["epochs=1", "img_size=128"]  # most of its time goes into decoding
    return {
        "download": Operation(
            ["data", "get", "pets"],
            small=functools.partial(_known, data),
            own_cache=True,
            units=("cache/data/pets",),
        ),
        "cache": Operation(
            [*_train("run", data="images"), *large],
            _folder_of_images,
            own_cache=True,
        ),
        "training": Operation(_train("run", "--save-minutes", "0")),
        "dense training": Operation(["dense", "train", *scenes]),
        "sweep": Operation(["ablate", *smoke]),
        "release": Operation(
            ["release", "run", "hire_mlp_atto.small"],
            functools.partial(_shelf, trained),
            _own_shelf,
        ),
        "export": Operation(
            ["export", "hire_mlp_atto", "--untrained", "--img-size", "32", "--out", "made/net.onnx"]
        ),
        "gallery": Operation(["gallery", "--out", "site", *book], _copy_notebook, _few_pages),
        "notebooks": Operation(["notebooks", NOTEBOOK, *book], _copy_notebook),
    }


# ------------------------------------------------------------------ running one


@dataclass(frozen=True)
class Bench:
    """Where commands run: a folder of this process's own, and the warm cache in it."""

    top: Path

    @property
    def cache(self) -> Path:
        return self.top / "cache"

    def log(self) -> str:
        return (self.top / "log").read_text(errors="replace")

    def start(self, operation: Operation, place: Path, most: int = 0) -> int:
        """Start an operation in ``place``, in a session of its own; its process.

        Args:
            most: bytes that a file may have; 0 for no limit.
        """
        sys.stdout.flush()
        if process := os.fork():
            return process
        try:
            os.setsid()
            log = os.open(self.top / "log", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.environ |= {"HIRELAB_DATA": "", "no_proxy": "*", MARK: place.name}
            os.environ["HIRELAB_CACHE"] = str(
                place / "cache" if operation.own_cache else self.cache
            )
            os.chdir(place)
            operation.small(place)
            if most:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            sys.argv = ["hirelab", *operation.command]
            code = cli.main(operation.command)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
            code = 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def run(self, operation: Operation, place: Path, most: int = 0) -> int:
        """Run it to its end; its exit code."""
        return self.wait(self.start(operation, place, most), PATIENCE)

    def wait(self, process: int, seconds: float) -> int:
        """Wait for the end of a process, and kill its session at a moment; its exit code, or minus
        the signal that ended it."""
        end = time.monotonic() + seconds
        while not (done := os.waitpid(process, os.WNOHANG))[0]:
            if time.monotonic() > end:
                try:
                    os.killpg(process, signal.SIGKILL)
                except ProcessLookupError:  # it has no session of its own yet
                    os.kill(process, signal.SIGKILL)
                done = os.waitpid(process, 0)
                break
            time.sleep(0.002)
        return os.waitstatus_to_exitcode(done[1])


def started_by(place: Path) -> list[int]:
    """Processes that a command in ``place`` had started and that still run."""
    mark, found = f"{MARK}={place.name}\0".encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes() + b"\0":
                found.append(int(entry.name))
    return found


def left_running(place: Path, seconds: float = 15.0) -> list[str]:
    """Says what still runs some seconds after a command's end, and ends it."""
    end = time.monotonic() + seconds
    while (found := started_by(place)) and time.monotonic() < end:
        time.sleep(0.1)
    for process in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return [f"{len(found)} processes went on running"] if found else []


@contextlib.contextmanager
def folder(top: Path, name: str, mounted: bool = False) -> Iterator[Path]:
    """A new folder for a command, on a tmpfs of its own where asked; gone afterwards."""
    place = top / name
    place.mkdir()
    if mounted:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4g", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        if mounted:
            subprocess.run(["umount", "-l", place], check=True)
        shutil.rmtree(place)


def resize(place: Path, size: int) -> None:
    """Give the tmpfs at ``place`` so many bytes."""
    subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)


def can_mount(top: Path) -> bool:
    """Whether this process may mount a tmpfs."""
    try:
        with folder(top, "try", mounted=True):
            return True
    except (OSError, subprocess.CalledProcessError):
        (top / "try").rmdir()
        return False


def used(place: Path) -> int:
    """Bytes of the files below a folder, in whole blocks."""
    sizes = (p.stat().st_size for p in place.rglob("*") if p.is_file())
    return sum(-(-size // BLOCK) * BLOCK for size in sizes)


# ------------------------------------------------------------------ faults


@dataclass
class Found:
    """What came of an operation's faults.

    Attributes:
        seconds: undisturbed.
        kills, killed_well: how often it was killed, and how often all was well afterwards.
        full, said, full_well: how often the disk was full, how often that was said in a sentence
            or did not matter, and how often all was well afterwards.
        wrong: what was not.
    """

    seconds: float = 0.0
    kills: int = 0
    killed_well: int = 0
    full: int = 0
    said: int = 0
    full_well: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)

    def row(self, name: str) -> list[str]:
        return [
            name,
            f"{self.seconds:.1f}",
            *map(str, (self.kills, self.killed_well, self.full, self.said, self.full_well)),
        ]


HEAD = ["operation", "seconds undisturbed", "kills", "same result afterwards"]
HEAD += ["full disks", "said in a sentence", "same result afterwards"]


def disturb(
    bench: Bench, name: str, operation: Operation, times: int, random: Random, mounts: bool
) -> Found:
    """Run an operation undisturbed, then kill it, then fill its disk, each so many ``times``."""
    found = Found()
    for turn in ("first", "second"):  # the faster of two: other work may slow one down
        with folder(bench.top, turn) as place:
            operation.prepare(place)
            before, began = used(place), time.monotonic()
            if bench.run(operation, place):
                raise SystemExit(f"{name} does not run: {bench.log()}")
            seconds = time.monotonic() - began
            found.seconds = min(found.seconds or seconds, seconds)
            if turn == "first":
                wanted, need = digests(place), used(place)
                largest = max(p.stat().st_size for p in place.rglob("*") if p.is_file())
            elif differs := differences(wanted, place):
                raise SystemExit(f"two undisturbed runs of {name} are not alike: {differs}")

    def afterwards(place: Path) -> list[str]:
        """The same command again: what is wrong with its end."""
        if code := bench.run(operation, place):
            return [f"the same command ended with {code}: {bench.log()[-600:]}"]
        return differences(wanted, place)

    def halves(place: Path) -> list[str]:
        whole = [unit for unit in operation.units if (place / unit).exists()]
        parts = [
            f"{unit} is there without all of its files"
            for unit in whole
            if {k for k in wanted if k.startswith(unit)}
            - {p.relative_to(place).as_posix() for p in place.rglob("*")}
        ]
        return parts + half_written(place)

    for number in range(3 * times):
        if found.kills == times:
            break
        moment = random.uniform(0, found.seconds)
        with folder(bench.top, f"kill-{number}") as place:
            operation.prepare(place)
            process = bench.start(operation, place)
            if bench.wait(process, moment) != -signal.SIGKILL:
                continue  # it was faster than at first
            found.kills += 1
            wrong = left_running(place) + halves(place) + afterwards(place)
            found.killed_well += not wrong
            found.wrong += [f"{name}, killed after {moment:.2f} s: {one}" for one in wrong]
    for number in range(times):
        size = random.randrange(1, max(2, (need - before) // BLOCK)) * BLOCK
        most = 0 if mounts else random.randrange(1, largest)
        with folder(bench.top, f"full-{number}", mounted=mounts) as place:
            operation.prepare(place)
            if mounts:
                resize(place, before + size)
            code, found.full = bench.run(operation, place, most), found.full + 1
            unsaid = [] if code == 0 else not_said(code, bench.log())
            found.said += not unsaid
            if mounts:
                resize(place, 4 << 30)
            wrong = left_running(place) + halves(place) + afterwards(place)
            found.full_well += not wrong
            where = f"{most:,} bytes a file" if most else f"{size:,} of {need - before:,} bytes"
            found.wrong += [f"{name}, {where}: {one}" for one in (*unsaid, *wrong)]
    return found


def not_said(code: int, log: str) -> list[str]:
    """What is wrong with how a command said that the disk is full."""
    if "Traceback (most recent call last)" in log:
        return [f"a traceback: {log[-1500:]}"]
    if code not in (1, 2) or "hirelab: " not in log:
        return [f"no sentence, exit code {code}: {log[-600:]}"]
    return []


def differences(wanted: dict[str, str], place: Path) -> list[str]:
    """How the files in ``place`` differ from those of an undisturbed run."""
    try:
        found = digests(place)
    except Exception as error:
        return [f"a file cannot be read: {error}"]
    lacking, more = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    other = [name for name in wanted.keys() & found.keys() if wanted[name] != found[name]]
    words = {"lacks": lacking, "left behind": more, "differs": sorted(other)}
    return [f"{word}: {', '.join(names[:5])}" for word, names in words.items() if names]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="operations (all)")
    parser.add_argument("--times", type=int, default=20, help="of each fault (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, wrong = [], []
    with tempfile.TemporaryDirectory() as top, publisher() as data:
        bench = Bench(Path(top))
        trained = bench.top / "trained"
        trained.mkdir()
        if bench.run(Operation(_train("run")), trained):
            raise SystemExit(bench.log())
        known = operations(data, trained)
        if unknown := set(options.names) - set(known):
            parser.error(f"no operation {', '.join(unknown)}: there are {', '.join(known)}")
        mounts = can_mount(bench.top)
        for name in options.names or known:
            random = Random(f"{options.seed} {name}")
            found = disturb(bench, name, known[name], options.times, random, mounts)
            rows.append(found.row(name))
            wrong += found.wrong
            print(*found.row(name), sep=", ", file=sys.stderr, flush=True)
            print(*found.wrong, sep="\n", file=sys.stderr, flush=True)
    method = "a tmpfs smaller than the result" if mounts else "a limit to the size of files"
    print(table([HEAD, *rows], "lr", markdown=True))
    print(f"\n{time.strftime('%Y-%m-%d')}, seed {options.seed}; the full disk is {method}.")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
