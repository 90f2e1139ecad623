"""The benchmark of memory: it sees what is left behind, and what it turns can be turned."""

from __future__ import annotations

import gc
import importlib
import itertools
import mmap

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from hirelab import widgets
from hirelab._shared.errors import HirelabError
from hirelab._shared.files import project_folder


@pytest.fixture(scope="module")
def memory():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(project_folder("benchmarks")))
        return importlib.import_module("memory")


@pytest.fixture(autouse=True)
def quick_collections():
    """Collections that look only through what a test makes."""
    gc.freeze()
    yield
    gc.unfreeze()


def block() -> mmap.mmap:
    """200 kB of the system's own, none that an earlier test gave back."""
    found = mmap.mmap(-1, 200_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    found.write(b"x" * 200_000)
    return found


def test_what_stays_is_seen(memory):
    kept = []
    module = nn.Linear(1, 1)

    def leaks():
        kept.append((block(), torch.zeros(1), Figure()))
        module.register_forward_hook(print)

    left = memory.turned(leaks, 60, 60)
    assert (left.turns, left.figures, left.hooks, left.tensors) == (60, 54, 54, 54)
    assert 150 < left.slope < 400  # a figure takes some too
    assert 54 * 0.15 < left.grown < 54 * 0.4
    assert left.grows


def test_what_goes_is_not(memory):
    left = memory.turned(block, 60, 60)
    assert (left.figures, left.hooks, left.tensors) == (0, 0, 0)
    assert abs(left.grown) < 1
    assert not left.grows


def test_a_cache_that_fills_up_does_not_grow(memory):
    kept, turn = {}, itertools.count()

    def caches():
        kept[next(turn) % 30] = block()

    left = memory.turned(caches, 100, 60)
    assert left.slope > memory.GROWS
    assert not left.grows


def test_a_subject_that_takes_too_long_or_fails_says_so(memory):
    left = memory.measured(lambda: lambda: sum(range(10**6)), 10**9, 0.2)
    assert 1 <= left.turns < 10**9
    assert " of 1,000,000,000" in memory.cells("a", left)[1]
    left = memory.measured(lambda: lambda: 1 / 0, 5, 60)
    assert left.fault == "ZeroDivisionError: division by zero"
    assert left.grows
    assert memory.cells("a", left)[2] == left.fault


def test_every_explorer_moves_and_a_measurement_is_called(memory, capsys):
    names = [name for name, _, _ in memory.subjects(1, 1)]
    assert {name for name in widgets.__all__ if name != "Explorer"} < set(names)
    found = memory.run(["ShiftExplorer", "edits", "provenance"], 3, 2, 60)
    assert {name: left.turns for name, left in found.items()} == {
        "ShiftExplorer": 3,
        "edits": 2,
        "provenance": 2,
    }
    assert not any(left.fault or left.hooks for left in found.values())
    assert "ShiftExplorer" in capsys.readouterr().out
    with pytest.raises(HirelabError, match="There is no 'Shift'; there are Abl"):
        memory.run(["Shift"], 1, 1, 1)
