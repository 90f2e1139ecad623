"""A sweep on several machines, played by processes: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.cluster_utils import Cluster
from ray.exceptions import NodeDiedError, WorkerCrashedError

from hirelab._shared.errors import HirelabError
from hirelab.ablation import cluster
from hirelab.ablation.cluster import work_on_ray
from hirelab.ablation.ledger import Entry, Ledger, RunKey
from hirelab.ablation.protocols import protocol
from hirelab.ablation.sweep import Training, plan
from hirelab.ablation.tables import DEFAULT, cell, cells, find_tables

ROOT = Path(__file__).resolve().parents[2]
SMOKE = protocol("smoke", seeds=1)


@dataclasses.dataclass(frozen=True)
class Traced:
    """A job that leaves a file when it begins and one when it ends, or when it is interrupted."""

    number: int
    folder: Path
    seconds: float = 0.2
    doomed: str = ""  # the node on which it would never end
    cost: float = 1.0
    source: str = "new"

    @property
    def key(self) -> RunKey:
        return RunKey("traced", {}, {}, {}, self.number, 1)

    @property
    def label(self) -> str:
        return f"traced, seed {self.number}"

    def run(self, out: Path, progress: Callable[[str], None]) -> Entry:
        node = ray.get_runtime_context().get_node_id()
        progress("began")
        self.leave("began", node)
        end = time.monotonic() + (600 if node == self.doomed else self.seconds)
        try:
            while time.monotonic() < end:
                time.sleep(0.05)  # no longer: Ray interrupts between two steps, as a training has
        except KeyboardInterrupt:
            self.leave("interrupted", node)
            raise
        self.leave("ended", node)
        return Entry(self.key, "done", top1=float(self.number), source=self.source)

    def leave(self, what: str, node: str) -> None:
        (self.folder / f"{what} {self.number} {node} {time.time_ns()}").touch()


def traces(folder: Path, what: str) -> list[tuple[int, str]]:
    """(number, node) of every file that jobs left."""
    found = (path.name.split() for path in folder.glob(f"{what} *"))
    return [(int(number), node) for _, number, node, _ in found]


@contextmanager
def meanwhile(seen: Callable[[], Any], then: Callable[[], None]) -> Iterator[None]:
    """While the block runs, ``then`` is done once as soon as ``seen`` is true."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            if seen():
                then()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# ------------------------------------------------------------------ processes on one folder


@contextmanager
def started(count: int, command: list[str], folder: Path) -> Iterator[dict[int, subprocess.Popen]]:
    """{process: it} of a command that is started so often, each with a log in ``folder``."""
    processes = []
    for number in range(count):
        with open(folder / f"{number}.log", "w") as log:
            one = {"cwd": ROOT, "stdout": log, "stderr": subprocess.STDOUT}
            processes.append(subprocess.Popen(command, **one))
    try:
        yield {process.pid: process for process in processes}
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_four_commands_share_a_folder_and_one_is_killed_in_the_middle(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = [sys.executable, "-m", "hirelab", "ablate", "--profile", "smoke", "--table", "shift"]
    command += [
        "--seeds",
        "1",
        "--ledger",
        str(tmp_path / "ledger"),
        "--out",
        str(tmp_path / "runs"),
    ]
    with started(4, command, tmp_path) as workers:
        while not (running := list((tmp_path / "runs").glob("*/run.json"))):  # a training has begun
            assert {worker.poll() for worker in workers.values()} == {None}
            time.sleep(0.01)
        name = running[0].parent.name
        doomed = json.loads((tmp_path / "ledger" / f"{name}.lease").read_text())["process"]
        workers[doomed].kill()
        codes = {pid: worker.wait(120) for pid, worker in workers.items()}
    assert codes == {pid: -signal.SIGKILL if pid == doomed else 0 for pid in workers}
    entries, damaged = Ledger(tmp_path / "ledger").read()
    assert not damaged
    jobs = plan(SMOKE.look(), cells(find_tables(["shift"])))
    assert {entry.key.name for entry in entries} == {job.key.name for job in jobs}
    assert {entry.status for entry in entries} == {"done"}
    assert name in {entry.key.name for entry in entries}
    said = "".join(log.read_text() for log in tmp_path.glob("*.log"))
    ended = re.findall(r"^\d/\d (.*): top-1 ", said, re.MULTILINE)
    assert sorted(ended) == sorted(job.label for job in jobs)
    assert not list((tmp_path / "ledger").glob("*.lease"))
    assert not list((tmp_path / "runs").iterdir())


# ------------------------------------------------------------------ Ray


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """Two nodes of one CPU; the second says that it has a GPU."""
    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_log_monitor": False}
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # nodes cannot import it
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)
        head = {**small, "include_dashboard": False, "no_monitor": True}
        made = Cluster(initialize_head=True, head_node_args=head)
        made.add_node(**small, num_gpus=1)
        yield made
        made.shutdown()
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_a_stop_takes_back_what_has_not_begun_and_keeps_checkpoints(
    nodes, tmp_path, capfd, monkeypatch
):
    monkeypatch.setattr(cluster, "CANCEL_SECONDS", 15.0)
    ledger, out = Ledger(tmp_path / "ledger"), tmp_path / "runs"
    longer = dataclasses.replace(SMOKE.recipe, epochs=500)
    training = Training(DEFAULT, 0, dataclasses.replace(SMOKE, recipe=longer).look())
    jobs = [training, *(Traced(n, tmp_path, seconds=600) for n in range(3))]
    run = out / training.key.name

    def begun() -> bool:
        return (run / "history.jsonl").exists() and bool(traces(tmp_path, "began"))

    with meanwhile(begun, lambda: os.kill(os.getpid(), signal.SIGTERM)):
        assert not work_on_ray(jobs, ledger, out, f"ray:{nodes.address}")
    (began,) = traces(tmp_path, "began")
    assert traces(tmp_path, "interrupted") == [began]
    assert torch.load(run / "checkpoint.pt", weights_only=True)["state"]["step"] > 0
    assert not ledger.read()[0]
    assert not list(ledger.folder.iterdir())  # no lease either
    assert "SIGTERM received" not in capfd.readouterr().err  # Ray's handler, which aborts


def test_an_interrupt_that_was_swallowed_is_sent_again(monkeypatch):
    sent, monotonic = Counter(), iter(range(100))
    monkeypatch.setattr(cluster, "CANCEL_SECONDS", 3.0)
    monkeypatch.setattr(cluster.time, "monotonic", lambda: next(monotonic))
    monkeypatch.setattr(ray, "cancel", lambda ref: sent.update([ref]))
    # "deaf" comes to an end only when it was asked twice
    monkeypatch.setattr(
        ray, "wait", lambda refs, timeout: ([r for r in refs if sent[r] > (r == "deaf")], [])
    )
    cluster._take_back({"deaf": None, "heeds": None})
    assert sent == {"deaf": 2, "heeds": 1}


def test_a_node_that_cannot_train_stops_the_sweep_and_says_so(nodes, tmp_path, monkeypatch):
    def telling(job, *rest):
        has = ray.get_runtime_context().get_assigned_resources()
        (tmp_path / "has.json").write_text(json.dumps(has))
        return cluster._take(job, *rest)  # on the node, where it is the real one

    monkeypatch.setattr(cluster, "_take", telling)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    jobs = [Training(DEFAULT, 0, dataclasses.replace(SMOKE, gpu=True).look())]
    said = f"^On the node {re.escape(socket.gethostname())}: PyTorch sees no GPU"
    with nullcontext() if torch.cuda.is_available() else pytest.raises(HirelabError, match=said):
        work_on_ray(jobs, Ledger(tmp_path / "ledger"), tmp_path / "runs", f"ray:{nodes.address}")
    assert json.loads((tmp_path / "has.json").read_text()) == {"CPU": 1.0, "GPU": 1.0}


def test_a_node_that_is_lost_costs_its_run_and_nothing_else(nodes, tmp_path, capsys, monkeypatch):
    (lost,) = nodes.worker_nodes
    jobs = [Traced(n, tmp_path, doomed=lost.node_id) for n in range(5)]
    jobs.append(Training(cell(padding="zero"), 0, SMOKE.look()))
    ledger = Ledger(tmp_path / "ledger")

    def in_the_middle() -> bool:
        return lost.node_id in dict(traces(tmp_path, "began")).values() and bool(
            traces(tmp_path, "ended")
        )

    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    with meanwhile(in_the_middle, lambda: nodes.remove_node(lost, allow_graceful=False)):
        assert work_on_ray(jobs, ledger, tmp_path / "runs", "ray")
    entries = {entry.key.name: entry for entry in ledger.read()[0]}
    assert {job.key.name for job in jobs} == set(entries)
    assert {entry.status for entry in entries.values()} == {"done"}
    began, ended = traces(tmp_path, "began"), traces(tmp_path, "ended")
    assert sorted(number for number, _ in ended) == list(range(5))
    assert len(began) == 6
    (twice,) = (number for number, count in Counter(n for n, _ in began).items() if count == 2)
    assert (twice, lost.node_id) in began
    assert not ledger.leased()
    assert not list((tmp_path / "runs").iterdir())
    said = re.findall(r"^(\d)/6 (.*, seed \d): top-1 ", capsys.readouterr().out, re.MULTILINE)
    assert [int(count) for count, _ in said] == list(range(1, 7))
    assert {label for _, label in said} == {job.label for job in jobs}


@pytest.mark.parametrize(
    ("error", "reason"),
    [(WorkerCrashedError(), "its process died 4 times"), (NodeDiedError("gone"), None)],
)
def test_a_run_whose_process_keeps_dying_fails_and_a_lost_node_fails_none(
    tmp_path, monkeypatch, error, reason
):
    def fails(ref):
        raise error

    monkeypatch.setattr(ray, "get", fails)
    entry = cluster._entry("a task", Traced(0, tmp_path))
    if reason is None:
        assert entry is None
    else:
        assert (entry.key, entry.status) == (Traced(0, tmp_path).key, "failed")
        assert reason in entry.reason


def test_what_a_node_lacks_is_said(tmp_path):
    chosen = SMOKE.look()
    other = dataclasses.replace(chosen, fingerprints={**chosen.fingerprints, "val": "other"})
    for protocol_there, folder, said in (
        (chosen, tmp_path / "gone", "no folder .*gone"),
        (other, tmp_path, "its images of photo-crops are not those"),
    ):
        job = Training(DEFAULT, 0, protocol_there)
        with pytest.raises(HirelabError, match=f"^On the node .*: {said}"):
            cluster._take(
                job, Ledger(tmp_path), tmp_path, str(folder), torch.get_num_threads(), False, False
            )
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ asked wrongly


@pytest.mark.parametrize("on", ["rya", "ray:", "ray:host", "ray:host:port", "ray:6379", "ray//h:1"])
def test_what_is_no_cluster_is_said(tmp_path, on):
    with pytest.raises(HirelabError, match=f"--on is {on!r}; give ray, ray:HOST:PORT"):
        work_on_ray([], Ledger(tmp_path), tmp_path, on)


@pytest.mark.parametrize("form", ["ray:127.0.0.1:{}", "ray://127.0.0.1:{}", "ray"])
def test_a_cluster_that_does_not_answer_is_said(tmp_path, monkeypatch, form):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
        with pytest.raises(HirelabError, match=rf"127\.0\.0\.1:{port}.*`ray start --head`"):
            work_on_ray([], Ledger(tmp_path), tmp_path, form.format(port))


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(HirelabError, match=r"pip install 'hirelab\[cluster\]'"):
        work_on_ray([], Ledger(tmp_path), tmp_path, "ray")


@pytest.mark.parametrize(("set_to", "cpus"), [(None, 1), ("", 1), ("4", 4), ("4,2", 4), ("0", 1)])
def test_threads_are_cpus(monkeypatch, capsys, set_to, cpus):
    if set_to is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", set_to)
    assert cluster._cpus() == cpus
    alive = {"Alive": True, "Resources": {"CPU": 3.0, "GPU": 1.0}}
    cluster._warn_if_none_fits([{**alive, "Alive": False}, alive], cpus, 1)
    assert ("no node" in capsys.readouterr().out) == (cpus > 3)
