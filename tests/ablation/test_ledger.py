"""The ledger loses nothing and lets nothing be done twice, whoever dies in the middle."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import errno
import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from hirelab._shared.errors import HirelabError
from hirelab.ablation import source
from hirelab.ablation.ledger import (
    PROTOCOL,
    WRITING,
    Entry,
    Ledger,
    RunKey,
    compile_csv,
    pack,
    source_hash,
)
from hirelab.ablation.protocols import DIAGNOSTICS, results_folder
from hirelab.ablation.source import DIAGNOSTIC, TRAINING, code_hash, stale


def key(seed=0, **arguments) -> RunKey:
    return RunKey("net", arguments, {"epochs": 2, "lr": 1e-3}, {"train": "a", "val": "b"}, seed, 1)


def entry(one: RunKey, **more) -> Entry:
    return Entry(one, "done", top1=50.0, loss=1.25, **more)


def test_a_run_is_what_it_is_and_not_how_it_was_typed():
    one = key(shift=(2, 1), padding="zero")
    assert one.name == key(padding="zero", shift=[2, 1]).name
    others = [key(1, shift=(2, 1)), key(shift=(2, 1)), dataclasses.replace(one, loop=2),
              dataclasses.replace(one, data={"train": "a", "val": "c"}),
              dataclasses.replace(one, recipe={"epochs": 3, "lr": 1e-3})]  # fmt: skip
    assert len({one.name, *(other.name for other in others)}) == 6


def test_what_is_written_is_read(tmp_path):
    ledger, correct = Ledger(tmp_path / "runs"), np.random.default_rng(0).random(3925) < 0.7
    top1 = 100 * correct.mean()
    kept = Entry(key(shift=(1, 1)), "done", top1=top1, loss=1.25, correct=pack(correct),
                 images=3925, about={"commit": "abc"})  # fmt: skip
    failed = Entry(key(1), "failed", reason="the loss became nan")
    for one in (kept, failed):
        assert ledger.write(one) == ledger.path(one.key)
    entries, damaged = ledger.read()
    assert not damaged
    found = {e.key.name: e for e in entries}
    assert len(kept.correct) == 656
    np.testing.assert_array_equal(found[kept.key.name].answers, correct)
    assert found[kept.key.name].top1 == top1
    assert found[failed.key.name].reason == failed.reason
    assert np.isnan(found[failed.key.name].top1)


def test_what_failed_has_no_numbers_but_those_it_was_given():
    failed = Entry(key(), "failed")
    numbers = (failed.images, failed.parameters, failed.macs, failed.seconds)
    assert (*numbers, failed.images_per_second) == (0, 0, 0, 0.0, 0.0)
    assert np.isnan([failed.top1, failed.loss]).all()


def test_a_file_is_sorted_and_has_a_line_for_each_value():
    """So that a version control system shows which value of a committed run changed."""
    text = entry(key(shift=1)).to_json()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"


@pytest.mark.parametrize("record", [key(), entry(key()), Ledger(Path("nowhere"))])
def test_a_record_cannot_be_changed(record):
    name = dataclasses.fields(record)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, name, None)


def test_damaged_files_are_named_and_the_rest_is_read(tmp_path):
    ledger = Ledger(tmp_path)
    good = ledger.write(entry(key()))
    text = good.read_text()
    (tmp_path / "half.json").write_text(text[: len(text) // 2])
    (tmp_path / "other.json").write_text(text)
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "old.json").write_text(json.dumps(json.loads(text) | {"format": 0}))
    (tmp_path / "zzz.json").write_text("")
    (tmp_path / PROTOCOL).write_text("{}")  # is no run
    entries, damaged = ledger.read()
    assert [e.key for e in entries] == [json_key(key())]
    assert {p.name for p in damaged} == {
        "half.json", "other.json", "list.json", "bytes.json", "old.json", "zzz.json"
    }  # fmt: skip
    assert "holds a list" in damaged[tmp_path / "list.json"]
    assert "another version" in damaged[tmp_path / "old.json"]
    assert "name" in damaged[tmp_path / "other.json"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"top1": None}, "its top1 is None"),
        ({"top1": "x"}, "its top1 is 'x'"),
        ({"top1": 120.0, "loss": 1.0}, "its top1 is 120"),
        ({"top1": -1.0}, "its top1 is -1"),
        ({"top1": 100.5, "images": 0, "correct": ""}, "its top1 is 100.5"),
        ({"top1": 25.0}, "not that of its answers"),
        ({"top1": 50.00001}, "not that of its answers"),
        ({"macs": True}, "its macs is True"),
        ({"status": "running"}, "status is 'running'"),
        ({"correct": "!!"}, "answers cannot be read"),
        ({"correct": ""}, "0 answers to 8 images"),
        ({"images": 100_000}, "8 answers to 100000 images"),
        ({"extra": 1}, "extra"),
        ({"format": 7}, "another version, 7, than 1"),
    ],
)
def test_an_entry_that_cannot_be_true_does_not_count(tmp_path, change, why):
    ledger = Ledger(tmp_path)
    half = np.array([True, False] * 4)
    path = ledger.write(entry(key(), correct=pack(half), images=8))
    assert ledger.get(key()) is not None
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert ledger.get(key()) is None
    assert why in ledger.read()[1][path]


@pytest.mark.parametrize("text", ["[]", '""', "{", '{"host": "HERE"}', '{"process": "abc"}'])
def test_a_lease_that_is_none_of_ours_grows_old_and_is_taken_over(tmp_path, text):
    ledger, path = Ledger(tmp_path), tmp_path / f"{key().name}.lease"
    path.write_text(text.replace("HERE", socket.gethostname()))
    with ledger.lease(key()) as mine:
        assert not mine
    os.utime(path, (time.time() - 1000,) * 2)
    with ledger.lease(key()) as mine:
        assert mine


def json_key(one: RunKey) -> RunKey:
    return RunKey(**json.loads(json.dumps(dataclasses.asdict(one))))


def test_a_lease_whose_process_was_killed_before_it_wrote_who_it_is_is_soon_taken_over(tmp_path):
    ledger, path = Ledger(tmp_path), tmp_path / f"{key().name}.lease"
    path.touch()  # as another process may be about to fill it
    with ledger.lease(key()) as mine:
        assert not mine
    since = time.time() - WRITING - 1
    os.utime(path, (since, since))
    assert not ledger.leased()
    with ledger.lease(key()) as mine:
        assert mine


def test_a_full_disk_leaves_no_lease_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hirelab.ablation.ledger.json.dump", full)
    with pytest.raises(HirelabError, match="cannot be written"), Ledger(tmp_path).lease(key()):
        pass
    assert list(tmp_path.iterdir()) == []


def json_entry(one: Entry) -> Entry:
    return dataclasses.replace(one, key=json_key(one.key))


def test_the_csv_is_sorted_and_does_not_depend_on_the_order_of_writing(tmp_path):
    runs = [entry(key(seed, shift=shift)) for seed in (1, 0) for shift in (2, 0)]
    for name, order in (("a", runs), ("b", runs[::-1])):
        ledger = Ledger(tmp_path / name / "sweep")
        for one in order:
            ledger.write(one)
        assert compile_csv([ledger], tmp_path / f"{name}.csv") == 4
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["arguments"], r["seed"]) for r in rows] == [
        ("shift=0", "0"), ("shift=0", "1"), ("shift=2", "0"), ("shift=2", "1")
    ]  # fmt: skip


def test_a_line_of_the_csv_says_what_a_run_is_and_what_came_of_it(tmp_path):
    recipe = {"lr": 0.001, "auto_augment": "", "epochs": 2}
    one = RunKey("net", {"shift": 1, "dims": (8,)}, recipe, {"task": "t", "val": "v"}, 3, 4)
    ledger = Ledger(tmp_path / "sweep")
    ledger.write(Entry(one, "done", "why", "src", 12.3456789, 2.5, "", 0, 10, 20, 30.0, 40.0))
    assert compile_csv([ledger], tmp_path / "all.csv") == 1
    with open(tmp_path / "all.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == {
        "ledger": "sweep", "model": "net", "arguments": "dims=[8] shift=1", "seed": "3",
        "status": "done", "top1": "12.3457", "loss": "2.5", "parameters": "10", "macs": "20",
        "images_per_second": "40", "seconds": "30", "recipe": "epochs=2 lr=0.001", "task": "t",
        "train": "", "val": "v", "loop": "4", "source": "src", "reason": "why", "run": one.name,
    }  # fmt: skip
    assert compile_csv([Ledger(tmp_path / "empty")], tmp_path / "none.csv") == 0
    assert (tmp_path / "none.csv").read_text() == "ledger,run\n"


def test_what_cannot_be_read_is_kept_aside_when_the_run_is_written_again(tmp_path):
    ledger = Ledger(tmp_path)
    path = ledger.path(key())
    path.write_text("half a fi")
    ledger.write(entry(key()))
    assert ledger.get(key()) == json_entry(entry(key()))
    assert path.with_suffix(".damaged").read_text() == "half a fi"
    ledger.write(entry(key(), source="x"))  # what can be read is replaced
    assert path.with_suffix(".damaged").read_text() == "half a fi"


def test_a_changed_source_makes_stale_and_nothing_else_does():
    before = source_hash({"loop.py": "a", "net.py": "b"})
    assert source_hash({"net.py": "b", "loop.py": "a"}) == before
    one = entry(key(), source=before)
    assert not stale(one, before)
    after = source_hash({"loop.py": "a", "net.py": "c"})
    assert stale(one, after)


def test_code_that_trains_to_the_same_bytes_makes_nothing_stale(monkeypatch):
    now, then, long_ago = "c" * 16, "b" * 16, "a" * 16
    monkeypatch.setattr(source, "EQUAL", {now: {then: "moved"}, then: {long_ago: "renamed"}})
    assert not stale(entry(key(), source=then), now)
    # equality was seen for one state of the code: it does not hold for another by inheritance
    assert stale(entry(key(), source=long_ago), now)
    assert stale(entry(key(), source=then), "d" * 16)


def test_no_run_that_is_kept_is_stale():
    """Who changes what trains either runs the sweeps again or shows that nothing changed."""
    for folder in (one for one in results_folder().iterdir() if one.is_dir()):
        now = code_hash(DIAGNOSTIC if folder.name == DIAGNOSTICS else TRAINING)
        entries, damaged = Ledger(folder).read()
        assert entries
        assert not damaged
        assert not [one.key.name for one in entries if stale(one, now)]


def test_only_one_holds_a_lease_and_gives_it_back(tmp_path):
    ledger = Ledger(tmp_path)
    with ledger.lease(key()) as mine, ledger.lease(key()) as second, ledger.lease(key(1)) as other:
        assert (mine, second, other) == (True, False, True)
        assert ledger.leased() == {key().name, key(1).name}
    with contextlib.suppress(RuntimeError), ledger.lease(key()) as mine:
        raise RuntimeError(mine)
    with ledger.lease(key()) as mine:
        assert mine
    assert not list(tmp_path.iterdir())


def test_a_lease_makes_its_folder_and_ends_its_thread(tmp_path):
    threads = threading.active_count()
    with Ledger(tmp_path / "a" / "b").lease(key()) as mine:
        assert mine
    assert threading.active_count() == threads


def test_a_lease_that_nobody_renews_is_taken_over_and_one_that_is_renewed_is_not(tmp_path):
    ledger = Ledger(tmp_path)
    path = tmp_path / f"{key().name}.lease"
    path.write_text(json.dumps({"host": "elsewhere", "process": 1, "token": "x"}))
    with ledger.lease(key(), seconds=60) as mine:
        assert not mine
    os.utime(path, (time.time() - 61,) * 2)
    with ledger.lease(key(), seconds=60) as mine:
        assert mine
        assert list(tmp_path.iterdir()) == [path]
    with ledger.lease(key(), seconds=0.4) as mine:
        assert mine
        time.sleep(1.0)  # two and a half times the life of a lease
        with ledger.lease(key(), seconds=0.4) as second:
            assert not second


def test_a_lease_is_renewed_again_after_its_disk_stumbled(tmp_path, monkeypatch):
    renewed, utime = [], os.utime

    def stumble_once(path):
        renewed.append(path)
        if len(renewed) == 1:
            raise OSError(errno.ESTALE, "Stale file handle")
        utime(path)

    monkeypatch.setattr(os, "utime", stumble_once)
    with Ledger(tmp_path).lease(key(), seconds=0.4) as mine:
        assert mine
        deadline = time.monotonic() + 20
        while len(renewed) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert len(renewed) >= 3


def test_a_lease_of_a_dead_process_is_taken_over_though_its_parent_does_not_know(tmp_path):
    ledger = Ledger(tmp_path)
    fork = multiprocessing.get_context("fork")

    def die() -> None:
        with ledger.lease(key()):
            os._exit(0)

    child = fork.Process(target=die)
    child.start()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is dead, and stays a zombie
    assert (tmp_path / f"{key().name}.lease").exists()
    assert not ledger.leased()
    with ledger.lease(key()) as mine:
        assert mine
    child.join()


def lease_of(path: Path, process: int, token: str = "x", host: str = "") -> None:
    """A lease as another process left it."""
    holder = {"host": host or socket.gethostname(), "process": process, "token": token}
    path.write_text(json.dumps(holder))


def test_a_lease_of_a_process_that_is_gone_is_taken_over(tmp_path):
    child = multiprocessing.get_context("fork").Process(target=int)
    child.start()
    child.join()
    lease_of(tmp_path / f"{key().name}.lease", child.pid)
    assert not Ledger(tmp_path).leased()


def test_to_ask_for_a_process_sends_it_nothing(tmp_path):
    lease_of(tmp_path / f"{key().name}.lease", os.getpid())
    got: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, frame: got.append(number))
    try:
        assert Ledger(tmp_path).leased()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not got


def test_a_process_that_can_only_be_asked_whether_it_is_there_runs(tmp_path, monkeypatch):
    lease_of(tmp_path / f"{key().name}.lease", os.getpid())
    read = Path.read_text

    def no_proc(path: Path, *args, **kwargs) -> str:
        if path.parts[1] == "proc":  # as on macOS
            raise FileNotFoundError(path)
        return read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", no_proc)
    assert Ledger(tmp_path).leased() == {key().name}

    def not_ours(process: int, number: int) -> None:
        raise PermissionError(process)

    monkeypatch.setattr(os, "kill", not_ours)
    assert Ledger(tmp_path).leased() == {key().name}


@pytest.mark.parametrize("there", [True, False])
def test_who_comes_second_to_an_abandoned_lease_leaves_it_to_the_first(
    tmp_path, monkeypatch, there
):
    path = tmp_path / f"{key().name}.lease"
    lease_of(path, 1, "old", "elsewhere")
    os.utime(path, (time.time() - 1000,) * 2)
    rename = os.rename

    def late(source: Path, target: Path) -> None:
        if source == path:  # between the look and the rename another process took it over
            path.unlink()
            if there:
                lease_of(path, 1, "new", "elsewhere")
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    with Ledger(tmp_path).lease(key()) as mine:
        assert not mine
    assert list(tmp_path.iterdir()) == [path] * there
    assert not there or json.loads(path.read_text())["token"] == "new"


def work(folder: Path) -> None:
    """Twelve short runs, as a sweep does them."""
    ledger = Ledger(folder / "ledger")
    for number in range(12):
        run = key(number)
        with ledger.lease(run) as mine:
            # another process may have finished it between the look at the folder and the lease
            if not mine or ledger.path(run).exists():
                continue
            (folder / f"started-{number}-{os.getpid()}").touch()
            time.sleep(0.2)
            ledger.write(Entry(run, "done", top1=float(number)))
            (folder / f"ended-{number}-{os.getpid()}").touch()


def test_four_processes_share_the_work_and_one_that_is_killed_loses_nothing(tmp_path):
    fork = multiprocessing.get_context("fork")  # a fresh interpreter would import torch first
    workers = [fork.Process(target=work, args=(tmp_path,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    doomed = workers[0]
    while not list(tmp_path.glob(f"started-*-{doomed.pid}")):
        time.sleep(0.01)
    os.kill(doomed.pid, signal.SIGKILL)  # in the middle of a run
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [-signal.SIGKILL, 0, 0, 0]
    work(tmp_path)  # the same command again: what the killed one left
    ledger = Ledger(tmp_path / "ledger")
    entries, damaged = ledger.read()
    assert not damaged
    assert sorted(e.key.seed for e in entries) == list(range(12))
    ended = [path.name.split("-")[1] for path in tmp_path.glob("ended-*")]
    assert len(ended) == len(set(ended)) >= 11  # nothing was done twice
    assert not ledger.leased()
    assert not list(ledger.folder.glob("*.lease*"))


def test_a_folder_that_cannot_be_written_is_said_and_keeps_what_it_has(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path)
    path = ledger.write(entry(key()))
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HirelabError, match=r"No space left.*run the same command again"):
        ledger.write(entry(key(), source="x"))
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


# ------------------------------------------------------------------ what the fuzzing found


def spoilt(folder: Path, **changes) -> tuple[Ledger, str]:
    """A ledger whose one entry has other values, under the name that these give it; why it does
    not count."""
    values = json.loads(entry(key()).to_json())
    of_key = {k: v for k, v in changes.items() if k in values["key"]}
    values["key"] |= of_key
    values |= {k: v for k, v in changes.items() if k not in of_key}
    name = RunKey(**values["key"]).name
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(values))
    (why,) = Ledger(folder).read()[1].values()
    return Ledger(folder), why


@pytest.mark.parametrize(
    "changes",
    [
        {"arguments": "x"}, {"arguments": 2.5}, {"recipe": []}, {"seed": None}, {"seed": "1"},
        {"model": 3}, {"data": {"train": 3}}, {"images": 2.5}, {"images": -8}, {"reason": []},
        {"parameters": float("inf")}, {"macs": 10**30}, {"loss": float("inf")}, {"measured": 3},
        {"about": None}, {"source": 3}, {"correct": 3},
    ],
)  # fmt: skip
def test_an_entry_with_odd_values_does_not_count(tmp_path, changes):
    ledger, why = spoilt(tmp_path, **changes)
    assert "damaged" in why
    assert compile_csv([ledger], tmp_path / "all.csv") == 0  # arguments that are none ended here


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"format": ' + "9" * 5000 + "}", '{"a": "\\ud800"}']
)
def test_an_entry_of_strange_json_does_not_count(tmp_path, text):
    (tmp_path / "0123456789abcdef.json").write_text(text)
    entries, damaged = Ledger(tmp_path).read()
    assert not entries
    assert len(damaged) == 1


@pytest.mark.parametrize("process", [-1, 0, 10**400, 2**40, "1", None])
def test_a_lease_of_no_process_is_nobodys(tmp_path, process):
    lease = tmp_path / "a.lease"
    lease.write_text(json.dumps({"host": socket.gethostname(), "process": process, "token": "x"}))
    assert Ledger(tmp_path).leased() == {"a"}  # until it is old, as one still being written
    assert Ledger(tmp_path).leased(seconds=-1) == set()


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": {"auto_augment": 3}}, {"recipe": {"epochs": 2.5}}, {"recipe": {"lr": True}},
        {"fingerprints": {"train": 3}}, {"images": {"train": "many"}}, {"model": "x\n" * 5000},
        {"fingerprints": [0] * 5000},
    ],
)  # fmt: skip
def test_a_protocol_with_odd_values_is_refused_in_a_short_sentence(tmp_path, changes):
    from _ablation import made_protocol

    from hirelab.ablation.protocols import read_protocol

    values = {"format": 1, **made_protocol().to_json()}
    (tmp_path / "protocol.json").write_text(json.dumps(values))
    assert read_protocol(tmp_path) is not None
    (tmp_path / "protocol.json").write_text(json.dumps({**values, **changes}))
    if "model" in changes:  # any text may be a name
        assert read_protocol(tmp_path) is not None
        return
    with pytest.raises(HirelabError, match=r"protocol\.json cannot be read") as caught:
        read_protocol(tmp_path)
    assert len(str(caught.value)) < 500


def test_a_deep_protocol_is_refused(tmp_path):
    from hirelab.ablation.protocols import read_protocol

    (tmp_path / "protocol.json").write_text("[" * 100_000)
    with pytest.raises(HirelabError, match="nested too deeply"):
        read_protocol(tmp_path)


def test_what_a_protocol_does_not_say_is_the_papers(tmp_path):
    from _ablation import made_ledger

    from hirelab.ablation.report import read_runs
    from hirelab.ablation.tables import DEFAULT

    made_ledger(tmp_path, {DEFAULT: [75.0]})
    path = tmp_path / "protocol.json"
    values = json.loads(path.read_text())
    del values["recipe"]["epochs"]
    path.write_text(json.dumps(values))
    assert "300 epochs" in read_runs(tmp_path).about
