"""A sweep on a Ray cluster: each missing run is a task, and Ray finds a node for it.

A task does what a process of `work_through` does, under the same leases and into the same ledger;
this process hands them out and says what came of them. So every node needs hirelab, the data, and
the folder that the command was started in, with the ledger and the runs, at the same place.

A run whose node dies goes on elsewhere, from its checkpoint: Ray hands it out again, and the lease
that is left is taken over, at once on the same machine, after `ledger.LEASE_SECONDS` on another.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from .._shared.errors import HirelabError
from .ledger import Entry, Ledger
from .protocols import Protocol
from .sweep import POLL_SECONDS, Job, Training, line_of, open_jobs, take, warn_of_damage

__all__ = ["work_on_ray"]

RETRIES = 3
"""Times that Ray hands a run out again whose worker or node died."""

ANSWER_SECONDS = 10.0
"""What a cluster may take to answer at all. Ray itself would try for a quarter of an hour."""

CANCEL_SECONDS = 60.0
"""After which what still runs is asked again to stop: Python may swallow an interrupt that comes in
the wrong moment, and a step with its checkpoint is over by then."""

ADDRESS = re.compile(r"(?:ray://)?(?P<host>[^\s/]+):(?P<port>\d{1,5})")


def work_on_ray(
    jobs: Sequence[Job],
    ledger: Ledger,
    out: Path,
    on: str,
    *,
    retry: bool = False,
    keep: bool = False,
) -> bool:
    """`work_through` with a task of a Ray cluster for each job; whether all have an entry now.

    A task takes as many CPUs, and computes with as many threads, as ``OMP_NUM_THREADS`` says here,
    else one; and a GPU if the protocol wants one. Ctrl-C and SIGTERM take back what has not begun,
    and wait for the checkpoints of what has.

    Args:
        on: "ray" for the cluster that RAY_ADDRESS names, else the one that this machine is in;
            "ray:HOST:PORT" for the one of that head node, which this machine must be in;
            "ray://HOST:PORT" for one that it is not in, by way of Ray's client server.
        jobs, ledger, out, retry, keep: see `work_through`.

    Raises:
        HirelabError: there is no Ray or no such cluster; or the disk or the data of a node refuses,
            and nothing of what is done is lost.
    """
    with _connected(_address(on)), _sigterm_as_ctrl_c():
        return _hand_out(jobs, ledger, out, retry, keep)


def _hand_out(jobs: Sequence[Job], ledger: Ledger, out: Path, retry: bool, keep: bool) -> bool:
    import ray

    warn_of_damage(ledger)
    free = open_jobs(jobs, ledger, retry)
    cpus, gpus = _cpus(), int(any(isinstance(j, Training) and j.protocol.gpu for j in free))
    _warn_if_none_fits(ray.nodes(), cpus, gpus)
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(_take)
    tasks: dict[Any, Job] = {}
    began, spent = time.monotonic(), 0.0
    with tqdm(total=len(jobs), initial=len(jobs) - len(free), unit="run", disable=None) as bar:
        try:
            while free or tasks:
                elsewhere = ledger.leased()
                for job in free:
                    if job.key.name not in elsewhere:
                        ref = task.remote(job, ledger, out, os.getcwd(), cpus, retry, keep)
                        tasks[ref] = job
                free = [job for job in free if job.key.name in elsewhere]
                for ref in _ended(tasks, POLL_SECONDS if free else None):
                    job = tasks.pop(ref)
                    entry = _entry(ref, job)
                    if entry is None:
                        free.append(job)
                        time.sleep(POLL_SECONDS)  # before it is handed out again
                        continue
                    ledger.write(entry)  # a network disk may show the node's file late
                    spent += job.cost if entry.status == "done" else 0.0
                    rate = spent / (time.monotonic() - began)
                    bar.write(line_of(job, entry, jobs, [*free, *tasks.values()], rate))
                free = open_jobs(free, ledger, retry)  # other processes may have ended some
                bar.n = len(jobs) - len(free) - len(tasks)
                bar.refresh()
        except KeyboardInterrupt:
            return False
        finally:
            _take_back(tasks)
    return True


def _ended(tasks: dict[Any, Job], seconds: float | None) -> list[Any]:
    """One of the tasks that came to an end, waited for so long; None waits without end."""
    import ray

    if not tasks:
        time.sleep(POLL_SECONDS)
        return []
    return ray.wait(list(tasks), timeout=seconds)[0]


def _entry(ref: Any, job: Job) -> Entry | None:
    """What came of a task; None for a run that is still to be done, by it or by somebody else."""
    import ray
    from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

    try:
        return ray.get(ref)
    except HirelabError as error:  # Ray has put the node's traceback into its text
        raise HirelabError(str(getattr(error, "cause", error))) from None
    except NodeDiedError:
        return None
    except (WorkerCrashedError, OutOfMemoryError) as error:
        reason = f"its process died {RETRIES + 1} times: {type(error).__name__}"
        return Entry(job.key, "failed", reason=reason, source=job.source)


def _take_back(tasks: dict[Any, Job]) -> None:
    """Cancel what has not begun; what has gets a Ctrl-C, and is waited for."""
    import ray

    if tasks:
        text = "stopping when what runs has written its checkpoint; once more to leave at once"
        print(text, file=sys.stderr, flush=True)
    while tasks:
        for ref in tasks:
            ray.cancel(ref)
        again = time.monotonic() + CANCEL_SECONDS
        while tasks and time.monotonic() < again:
            for ref in _ended(tasks, POLL_SECONDS):
                del tasks[ref]


# ------------------------------------------------------------------ on a node


def _take(
    job: Job, ledger: Ledger, out: Path, folder: str, cpus: int, retry: bool, keep: bool
) -> Entry | None:
    """A job's turn on a node; None if it was not to be run there, or to be stopped."""
    torch.set_num_threads(cpus)
    try:
        if not Path(folder).is_dir():
            raise HirelabError(f"no folder {folder}; start the command in one that all nodes have.")
        with contextlib.chdir(folder):
            if isinstance(job, Training):
                _check_node(job.protocol)
            show = partial(partial, print, flush=True)  # into the log of the node
            return take(job, ledger, out, show, retry=retry, keep=keep)[1]
    except (HirelabError, OSError) as error:
        raise HirelabError(f"On the node {socket.gethostname()}: {error}") from error


def _check_node(chosen: Protocol) -> None:
    """Make sure that a node trains as the protocol says.

    Raises:
        HirelabError: it has no GPU or not the same images.
    """
    if chosen.gpu and not torch.cuda.is_available():
        raise HirelabError("PyTorch sees no GPU; install one that does, or choose --profile cpu.")
    if chosen.look() != chosen:
        raise HirelabError(
            f"its images of {chosen.data} are not those of the ledger; copy them as a zip, or with "
            "their times."
        )


# ------------------------------------------------------------------ the cluster


@contextlib.contextmanager
def _connected(address: str) -> Iterator[None]:
    """Connected to a cluster while the block lasts.

    Raises:
        HirelabError: there is no Ray, or no such cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise HirelabError("--on ray needs Ray: pip install 'hirelab[cluster]'") from error
    try:
        if found := ADDRESS.fullmatch(address):
            place = found["host"].strip("[]"), int(found["port"])
            socket.create_connection(place, ANSWER_SECONDS).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray has no error of its own for this
        cure = "start one with `ray start --head`, or name its head node: --on ray:HOST:PORT"
        raise HirelabError(
            f"No Ray cluster at {address!r} can be joined ({error}); {cure}."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """While the block lasts, SIGTERM interrupts as Ctrl-C does. Ray's own handler for it would end
    this process within seconds, before checkpoints are written."""
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not in the main thread: signals are somebody else's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _address(on: str) -> str:
    """What Ray calls the cluster that ``on`` asks for.

    Raises:
        HirelabError: it is none of the forms that `work_on_ray` names.
    """
    if on == "ray":
        return os.environ.get("RAY_ADDRESS") or "auto"
    address = on if on.startswith("ray://") else on.removeprefix("ray:")
    if not on.startswith("ray:") or not ADDRESS.fullmatch(address):
        raise HirelabError(f"--on is {on!r}; give ray, ray:HOST:PORT or ray://HOST:PORT.")
    return address


def _cpus() -> int:
    """The CPUs of a task: OMP_NUM_THREADS, whose first number counts; 1 without it."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(int(first), 1) if first.isdecimal() else 1


def _warn_if_none_fits(nodes: Sequence[dict[str, Any]], cpus: int, gpus: int) -> None:
    """Say so if no node is large enough for a task: Ray would wait for one without a word."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(one.get("CPU", 0) >= cpus and one.get("GPU", 0) >= gpus for one in alive):
        needs = f"{cpus} CPUs (OMP_NUM_THREADS){' and a GPU' * gpus}"
        tqdm.write(f"warning: no node of the cluster has {needs}; the runs wait until one joins")
