"""Throws damaged input at hirelab's readers; what they make of it is right or one clear sentence.

    python tests/fuzz.py KIND --minutes 10 --seed 0      one kind, or `all`
    python tests/fuzz.py KIND --seed 0 --only 1234       one input again, here, with its traceback

An input is decided by kind, seed and number alone. Anything else than a right-looking result or a
`HirelabError` whose sentence names the file is a finding: another error, a process that ends, more
than 20 seconds of processor time, more than 2 GB of memory. Its input is saved, and what it did.
Inputs are read in a process of their own, which is replaced when it ends. Minutes are of processor
time. Findings of one cause are saved once, and counted.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import torch
from _fuzzing import KINDS, Kind, faults_of

from hirelab._shared.errors import HirelabError

SECONDS, GIGABYTES = 20, 2.0
"""What one input may take, of processor time and of memory beyond what the process has."""

BACKSTOP = 8 * 2**30  # bytes of addresses beyond: more is refused, as on a smaller machine
SILENCE = 1200.0  # seconds after which a process that computes nothing is given up


@dataclass(frozen=True)
class Outcome:
    """What came of one input.

    Attributes:
        right, refused: what was read, or the sentence that refused it.
        finding: what was neither, in a line; ``cause``: what findings of one cause share;
            ``details``: its traceback.
        seconds: of processor time; ``gigabytes``: the peak, beyond what the process had.
    """

    right: str = ""
    refused: str = ""
    finding: str = ""
    cause: str = ""
    details: str = ""
    seconds: float = 0.0
    gigabytes: float = 0.0


# ------------------------------------------------------------------ one input


def made(kind: Kind, name: str, seed: int, number: int, folder: Path) -> Path:
    """Input ``number`` of a seed, written into an empty folder."""
    return kind.make(Random(f"{name} {seed} {number}"), folder)


def outcome_of(kind: Kind, path: Path) -> Outcome:
    """Read an input."""
    start = time.process_time()
    base = _memory("VmRSS")
    _forget_peak()
    found = _read(kind, path)
    seconds, gigabytes = time.process_time() - start, _memory("VmHWM") - base
    if not found.finding and seconds > SECONDS:
        found = Outcome(finding=f"took {seconds:.0f} s", cause=f"slow {found.right[:9]}")
    elif not found.finding and gigabytes > GIGABYTES:
        found = Outcome(finding=f"took {gigabytes:.1f} GB", cause=f"memory {found.right[:9]}")
    return Outcome(*list(vars(found).values())[:5], seconds, gigabytes)


def _read(kind: Kind, path: Path) -> Outcome:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Outcome(right=kind.read(path))
    except HirelabError as error:
        fault = faults_of(error, path)
        if not fault:
            return Outcome(refused=str(error))
        return Outcome(finding=f"{fault}: {str(error)[:300]!r}", cause=_cause(error, fault),
                       details=traceback.format_exc())  # fmt: skip
    except Exception as error:
        line = f"{type(error).__name__}: {str(error)[:300]}"
        return Outcome(finding=line, cause=_cause(error), details=traceback.format_exc()[-20_000:])


def _cause(error: BaseException, more: str = "") -> str:
    """The kind of an error and where it was raised, the last place in hirelab among it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [one for one in frames if "hirelab" in one.filename or "_fuzzing" in one.filename]
    places = {f"{Path(one.filename).name}:{one.name}" for one in (*ours[-1:],)}
    return re.sub(r"\d+", "N", f"{type(error).__name__} {' '.join(sorted(places))} {more}")


def _memory(name: str) -> float:
    """A figure of /proc/self/status in GB; 0 where there is none."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return 0.0
    found = re.search(rf"{name}:\s*(\d+) kB", text)
    return int(found[1]) / 2**20 if found else 0.0


def _forget_peak() -> None:
    """Let the process's peak of memory begin anew."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


# ------------------------------------------------------------------ many


def _worker(pipe: Connection, name: str, seed: int, first: int, folder: Path) -> None:
    """Make and read one input after another, saying so before and after each."""
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff and others write there
    limit = int(_memory("VmSize") * 2**30) + BACKSTOP
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    number, kind = first, KINDS[name]
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        path = made(kind, name, seed, number, folder)
        pipe.send(number)
        # ends the process, whatever it is in
        signal.setitimer(signal.ITIMER_PROF, 2 * SECONDS)
        found = outcome_of(kind, path)
        signal.setitimer(signal.ITIMER_PROF, 0)
        pipe.send(found)
        pipe.recv()  # the input stays until its outcome is kept
        number += 1
        if number % 200 == 0:
            gc.collect()


class _Workers:
    """The process that reads, and those that take its place."""

    def __init__(self, name: str, seed: int, folder: Path) -> None:
        self.name, self.seed, self.folder = name, seed, folder
        self.start(0)

    def start(self, first: int) -> None:
        self.pipe, there = multiprocessing.Pipe()
        work = (there, self.name, self.seed, first, self.folder)
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=_worker, args=work, daemon=True)
        self.process.start()
        there.close()

    def next(self) -> tuple[int, Outcome]:
        """The number and outcome of the next input."""
        number = -1
        try:
            number = self._received()
            return number, self._received()
        except EOFError:
            self.process.join()
            if number < 0:
                raise RuntimeError("the process ended while it made an input") from None
            code = self.process.exitcode or 0
            why = signal.Signals(-code).name if code < 0 else f"status {code}"
            why = f"took more than {2 * SECONDS} s" if why == "SIGPROF" else f"ended by {why}"
            return number, Outcome(finding=why, cause=why, seconds=float(SECONDS))

    def go_on(self) -> bool:
        """Let the process make its next input; whether it still can."""
        try:
            self.pipe.send(None)
        except OSError:
            return False
        return True

    def _received(self) -> Any:
        if not self.pipe.poll(SILENCE):
            self.process.kill()
        return self.pipe.recv()

    def stop(self) -> None:
        self.process.kill()
        self.process.join()


def fuzz(name: str, seed: int, minutes: float, keep: Path, count: int = 0) -> Counter[str]:
    """Read inputs for some minutes (or ``count`` of them), print and save what was found.

    Returns:
        {"inputs", "right", "refused", "findings", "causes": how many}.
    """
    tally: Counter[str] = Counter(inputs=0, right=0, refused=0, findings=0, causes=0)
    causes: Counter[str] = Counter()
    slowest = largest = spent = 0.0
    KINDS[name].make(Random(0), Path(tempfile.mkdtemp()))  # what is made once is made before
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "input"
        workers = _Workers(name, seed, folder)
        start = _processor_time(workers.process.pid)
        while (spent < 60 * minutes) if not count else (tally["inputs"] < count):
            number, found = workers.next()
            tally["inputs"] += 1
            tally["right"] += bool(found.right)
            tally["refused"] += bool(found.refused)
            slowest, largest = max(slowest, found.seconds), max(largest, found.gigabytes)
            if found.finding:
                tally["findings"] += 1
                causes[found.cause] += 1
                if causes[found.cause] <= 2:
                    print(f"{name} {seed} {number}: {found.finding}  [{found.cause}]", flush=True)
                    _save(keep / f"{name}-{seed}-{number}", folder, found, name, seed, number)
            if not workers.go_on():
                spent += max(0.0, found.seconds)
                workers.start(number + 1)
                start = _processor_time(workers.process.pid) - spent
            else:
                spent = _processor_time(workers.process.pid) - start
        workers.stop()
    tally["causes"] = len(causes)
    print(
        f"{name}: seed {seed}, {spent / 60:.1f} minutes, {tally['inputs']:,} inputs: "
        f"{tally['right']:,} read, {tally['refused']:,} refused in a sentence, "
        f"{tally['findings']:,} findings of {len(causes)} causes; at most {slowest:.1f} s and "
        f"{largest:.2f} GB",
        flush=True,
    )
    for cause, times in causes.most_common():
        print(f"    {times:6,}  {cause}")
    return tally


def _processor_time(process: int | None) -> float:
    """Seconds of processor time of a process."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _save(to: Path, folder: Path, found: Outcome, name: str, seed: int, number: int) -> None:
    """Keep an input with what it did."""
    shutil.rmtree(to, ignore_errors=True)
    if folder.is_dir():
        shutil.copytree(folder, to)
    to.mkdir(parents=True, exist_ok=True)
    again = f"python tests/fuzz.py {name} --seed {seed} --only {number}"
    (to / "FINDING.txt").write_text(f"{found.finding}\n{again}\n\n{found.details}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=[*KINDS, "all"])
    parser.add_argument("--minutes", type=float, default=10.0, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="read this input alone, in this process")
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="where findings go")
    options = parser.parse_args(arguments)
    if options.only is not None:
        with tempfile.TemporaryDirectory() as folder:
            kind = KINDS[options.kind]
            found = outcome_of(
                kind, made(kind, options.kind, options.seed, options.only, Path(folder))
            )
        print(found.details or found.right or found.refused, found.finding, sep="\n")
        print(f"{found.seconds:.1f} s, {found.gigabytes:.2f} GB")
        return bool(found.finding)
    kinds = list(KINDS) if options.kind == "all" else [options.kind]
    tallies = [fuzz(name, options.seed, options.minutes, options.keep) for name in kinds]
    return int(any(tally["findings"] for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
