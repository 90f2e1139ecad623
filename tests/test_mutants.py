"""Mutants: that changes are made where they should be, and that what notices them is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

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
NOTICES = "tests/test_rearrange.py::test_functions_do_not_guess_what_a_wrong_word_means"

# In a process of its own: a pytest inside of another one disturbs it.
JUDGE = """
import timm, torch
from mutants import Outcome, find_mutants
from test_mutants import NOTICES, REARRANGE
seen = Outcome(seconds={NOTICES: 0.1}, reached={NOTICES: set(range(1000))})
for text, change in CASES:
    (mutant,) = (m for m in find_mutants(REARRANGE.source) if change in m.change and text in m.text)
    print(repr(REARRANGE.judge(mutant, seen)))
"""


def test_what_a_test_notices_is_killed_and_what_it_does_not_is_alive():
    cases = [('raise ValueError(f"padding', "-> pass"), ("slots = (", "region -> size - region")]
    code = JUDGE.replace("CASES", repr(cases))
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)])}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines() == [repr(NOTICES), "''"]


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
    rows = [{"by": by, "text": by, "change": "0 -> 1"} for by in ("a", "b", "", "")]
    rows[2]["text"] = "x = 0"
    monkeypatch.setitem(EXPLAINED, ("m.py", "x = 0", "0 -> 1"), "nobody reads x")
    lines = mutants.table_of({"m.py": rows, "n.py": rows[:1]}).splitlines()
    assert [line.strip("|").split() for line in lines[2:]] == [
        ["m.py", "|", "4", "|", "2", "|", "1", "|", "1", "|", "75.0%"],
        ["n.py", "|", "1", "|", "1", "|", "0", "|", "0", "|", "100.0%"],
        ["all", "|", "5", "|", "3", "|", "1", "|", "1", "|", "80.0%"],
    ]


def test_every_reason_is_of_a_mutant_that_there_is():
    for path in {path for path, _, _ in EXPLAINED}:
        source = (ROOT / path).read_text(encoding="utf-8")
        there = {(path, m.text, m.change) for m in find_mutants(source)}
        assert {key for key in EXPLAINED if key[0] == path} <= there
