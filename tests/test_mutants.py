"""Mutants: that changes are made where they should be, and that what notices them is told."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import mutants
from mutants import MODULES, ROOT, Mutant, Outcome, Room, choose, find_mutants, forked, try_room
from mutants_explained import EXPLAINED

SOURCE = '''"""A text with 1 < 2."""
__all__ = ["grow"]
STEP: int = 1


def grow(size: int | None, *, by: float = 0.5) -> int:
    """Says 3 + 4."""
    if size is None and not by:
        raise ValueError(f"{1 + 1} is {size or 2}")
    größe = size  # columns are counted in bytes
    while True:
        größe += -by * 2
        break
    return größe if größe < 7 else 0


def __repr__(self):
    return "1" + "2"
'''


def test_every_place_that_runs_is_changed_and_no_other():
    assert [m.change for m in find_mutants(SOURCE)] == [
        "1 -> 0",
        "0.5 -> 1.5",
        "size is None -> size is not None",
        "size is None and not by -> not (size is None and (not by))",
        "size is None and not by -> size is None or not by",
        "not by -> by",
        'raise ValueError(f"{1 + 1} is {size or 2}") -> pass',
        "größe = size -> pass",
        "True -> False",
        "größe += -by * 2 -> größe -= -by * 2",
        "größe += -by * 2 -> pass",
        "-by -> by",
        "-by * 2 -> -by // 2",
        "2 -> 3",
        "break -> continue",
        "return größe if größe < 7 else 0 -> return None",
        "größe < 7 -> größe <= 7",
        "größe < 7 -> not (größe < 7)",
        "7 -> 8",
        "0 -> 1",
    ]


def test_a_change_stands_in_its_place_and_the_rest_stays():
    (mutant,) = (m for m in find_mutants(SOURCE) if m.change == "7 -> 8")
    assert mutant.apply(SOURCE) == SOURCE.replace("größe < 7", "größe < (8)")
    assert mutant.text == "return größe if größe < 7 else 0"
    assert SOURCE.split("\n")[mutant.line - 1].strip() == mutant.text
    assert mutant.function == "grow"
    first, last = mutant.scope  # the body of the function, without its head, which the import runs
    assert SOURCE.split("\n")[first - 1].strip() == '"""Says 3 + 4."""'
    assert SOURCE.split("\n")[last - 1].strip() == mutant.text


def test_every_mutant_is_python_and_another_program():
    for path in MODULES:
        source = (ROOT / path).read_text(encoding="utf-8")
        for mutant in choose(find_mutants(source), 30, "any"):
            compile(mutant.apply(source), path, "exec")
            assert mutant.apply(source) != source


def test_a_sample_is_the_beginning_of_a_larger_one():
    found = find_mutants(SOURCE)
    assert choose(found, 5, "0 a") == choose(found, 9, "0 a")[:5] != choose(found, 5, "1 a")
    assert sorted(choose(found, 0, "0 a"), key=found.index) == found


REARRANGE = Room("hirelab/rearrange.py", ("tests/test_rearrange.py",))


def test_a_known_mutant_is_noticed_by_whom_it_concerns():
    """The tests of rearrange ask for this error; here one of them is run by hand, without pytest,
    which cannot run inside of itself."""
    text = "raise ValueError(f\"padding is '{padding}'"
    (mutant,) = (m for m in find_mutants(REARRANGE.source) if m.text.startswith(text))

    def refuses(source: str) -> dict[str, Any]:
        mutants.install(ROOT / REARRANGE.path, source)
        import torch

        from hirelab.rearrange import padding_source

        try:
            padding_source(torch.arange(3), 2, "mirror")
        except ValueError:
            return {"refuses": True}
        return {"refuses": False}

    assert forked(lambda: refuses(REARRANGE.source), limit=60) == {"refuses": True}
    assert forked(lambda: refuses(mutant.apply(REARRANGE.source)), 60) == {"refuses": False}


def test_asked_are_the_tests_that_reach_the_function_quick_ones_first(monkeypatch):
    asked: list[list[str]] = []

    def fork(work: Any, limit: float) -> dict[str, Any]:
        room, _, tests = work.args
        assert room == REARRANGE
        assert limit > 6 * sum(seconds[test] for test in tests)
        asked.append(tests)
        return {"failed": "x"}

    monkeypatch.setattr(mutants, "forked", fork)
    found = find_mutants(REARRANGE.source)
    inside = next(m for m in found if m.function == "unshift")
    outside = next(m for m in found if not m.function)
    first, last = inside.scope
    seconds = {"slow": 3.0, "far": 0.5, "quick": 1.0}
    seen = Outcome(seconds=seconds)
    seen.reached = {"slow": {first}, "far": {first - 1, last + 1}, "quick": {last}}
    assert REARRANGE.judge(inside, seen) == "x"
    assert REARRANGE.judge(outside, seen) == "x"
    assert asked == [["quick", "slow"], ["far", "quick", "slow"]]
    assert REARRANGE.judge(inside, Outcome(seconds={"far": 1.0}, reached={"far": set()})) == ""
    assert len(asked) == 2


def test_the_module_that_is_tried_is_the_changed_one_and_only_there(tmp_path):
    source = REARRANGE.source.replace("EMPTY = -1", "EMPTY = -7")

    def work() -> dict[str, object]:
        mutants.install(ROOT / REARRANGE.path, source)
        import inspect

        from hirelab import rearrange

        return {"empty": rearrange.EMPTY, "source": inspect.getsource(rearrange)}

    assert forked(work, limit=60) == {"empty": -7, "source": source}
    assert "EMPTY = -1" in REARRANGE.source


def test_what_hangs_or_crashes_has_failed():
    assert forked(lambda: time.sleep(60) or {}, limit=0.3) == {"failed": "time limit"}
    assert forked(lambda: os.kill(os.getpid(), signal.SIGKILL) or {}, limit=60) == {
        "failed": "crash"
    }


def test_what_is_known_is_not_tried_again_until_the_tests_change(tmp_path, monkeypatch):
    tried: list[str] = []

    def judge(room: Room, mutant: Mutant, seen: Outcome) -> str:
        tried.append(mutant.change)
        return "a test" if "->" in mutant.change and "pass" in mutant.change else ""

    monkeypatch.setattr(Room, "judge", judge)
    monkeypatch.setattr(Room, "watch", lambda room: Outcome())
    out = tmp_path / "results.jsonl"
    first = try_room(REARRANGE, 20, 0, out)
    assert len(first) == len(tried) == 20
    assert try_room(REARRANGE, 20, 0, out) == first
    assert len(tried) == 20
    monkeypatch.setattr(Room, "tests_hash", lambda room: "other tests")
    try_room(REARRANGE, 20, 0, out)
    assert tried[20:] == [row["change"] for row in first if not row["by"]] != []


def test_the_table_counts_what_is_killed_explained_and_alive(tmp_path, monkeypatch):
    rows = [
        {"by": by, "function": "f", "text": by, "change": "0 -> 1"} for by in ("a", "b", "", "")
    ]
    rows[2]["text"] = "x = 0"
    monkeypatch.setitem(EXPLAINED, ("m.py", "f", "x = 0", "0 -> 1"), "nobody reads x")
    lines = mutants.table_of({"m.py": rows, "n.py": rows[:1]}).splitlines()
    assert [line.strip("|").split() for line in lines[2:]] == [
        ["m.py", "|", "4", "|", "2", "|", "1", "|", "1", "|", "75.0%"],
        ["n.py", "|", "1", "|", "1", "|", "0", "|", "0", "|", "100.0%"],
        ["all", "|", "5", "|", "3", "|", "1", "|", "1", "|", "80.0%"],
    ]


def test_every_reason_is_of_a_mutant_that_there_is():
    for path in {key[0] for key in EXPLAINED}:
        source = (ROOT / path).read_text(encoding="utf-8")
        there = {(path, m.function, m.text, m.change) for m in find_mutants(source)}
        assert {key for key in EXPLAINED if key[0] == path} <= there
