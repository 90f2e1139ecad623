"""Diagnostics of cells: bounds found again by hand, equal networks trained once, and learning."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from _helpers import check_kept, randomise

from hirelab.ablation.diagnostics import (
    ARGUMENTS,
    TASKS,
    Diagnosis,
    diagnosis_of,
    diagnostic,
    diagnostic_runs,
)
from hirelab.ablation.ledger import Entry, Ledger
from hirelab.ablation.tables import DEFAULT, cell, cells, find_tables
from hirelab.synthetic.learning import line_reach, token_network
from hirelab.synthetic.tasks import CopyFromDistance

ALL = cells(find_tables())
STAGES = range(4)


def settings_of(one, stage):
    given = dict(one.arguments)
    own = {name: given[name][stage] for name in ("region", "shift")}
    return {name: given[name] for name in ARGUMENTS} | own


def every_stage():
    """(cell, stage, task's name) of all that is asked, once for the same settings."""
    every = [(one, stage, name) for one in ALL for stage in STAGES for name in TASKS]
    return list(
        {
            (name, *settings_of(one, stage).values()): (one, stage, name)
            for one, stage, name in every
        }.values()
    )


# ------------------------------------------------------------------ what is possible


def reached_by_hand(size, region, shift, padding, cross_region, restore, branches):
    """For each token of a line the tokens that reach it through two blocks, moved as lists."""
    assert {"height", "width"} <= set(branches)
    heard = [{i} for i in range(size)]
    for step in (0, shift):
        line = list(range(size))
        if step and cross_region == "shift":
            line = line[-step:] + line[:-step]
        if step and cross_region == "shuffle":
            line = [i for first in range(region) for i in range(first, size, region)]
        missing = -size % region
        more = {
            "circular": line[:missing],
            "zero": [None] * missing,
            "reflect": line[::-1][1 : 1 + missing],
            "replicate": line[-1:] * missing,
        }
        full = line + more[padding]
        after = [set(tokens) for tokens in heard]
        for position in range(size):
            start = position // region * region
            target = line[position] if restore else position
            for member in full[start : start + region]:
                after[target] |= heard[member] if member is not None else set()
        heard = after
    return heard


def bounds_by_hand(name, heard):
    if name == "copy":
        return {
            f"{d:+}": 100 * np.mean([1 if (i + d) % 14 in heard[i] else 0.5 for i in range(14)])
            for d in (-6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6)
        }
    if name == "border":
        return {"border": 50 + 25 * ((12 in heard[11]) + (11 in heard[12]))}
    # the symbol half a ring away is the same for both textures
    tells = [any((i - j) % 12 not in (0, 6) for j in heard[i]) for i in range(12)]
    return {"texture": 25 * np.mean([[(1 + a) * (1 + b) for b in tells] for a in tells])}


def test_bounds_are_those_found_by_hand_in_every_cell():
    for one, stage, name in every_stage():
        task = TASKS[name]
        wanted = bounds_by_hand(name, reached_by_hand(task.size, **settings_of(one, stage)))
        assert diagnostic(one, stage, task).bounds == pytest.approx(wanted), (one, stage, name)


@pytest.mark.parametrize("changes", [{}, {"cross_region": "shuffle"}, {"restore": False}])
@pytest.mark.parametrize("name", TASKS)
def test_the_network_that_is_trained_has_these_bounds(name, changes):
    one = diagnostic(cell(**changes), 1, TASKS[name])
    best = one.task.upper_bound(line_reach(one.network(), one.task.size))
    wanted = [100 * np.nanmean(question) for question in best]
    assert list(one.bounds.values()) == pytest.approx(wanted)


def test_the_diagnostics_tell_from_the_default_every_cell_that_changes_reach():
    bounds = {one: diagnosis_of(one, []).bound for one in ALL}
    same = {str(one) for one in ALL if np.array_equal(bounds[one], bounds[DEFAULT])}
    assert same == {
        "default", "fusion=sum", "fc_layers=1", "fc_layers=3", "fc_layers=4",
        "branches=height,width",
    }  # fmt: skip


# ------------------------------------------------------------------ what is run


def test_networks_have_one_key_exactly_where_they_are_the_same_function():
    answers = {name: {} for name in TASKS}
    for one, stage, name in every_stage():
        settings = settings_of(one, stage)
        network = token_network(TASKS[name], 2, 8, fusion="sum", **settings)
        with torch.no_grad():
            found = randomise(network).eval()(TASKS[name].batch(1, 0).x)
        key = diagnostic(one, stage, TASKS[name]).key.name
        known = answers[name].setdefault(key, found)
        torch.testing.assert_close(found, known, msg=f"{settings} {name}")
    for found in answers.values():
        several = torch.stack(list(found.values())).flatten(1)
        apart = (several[:, None] - several).abs().amax(2)
        assert (apart + torch.eye(len(several)) > 1e-4).all()


def test_what_is_equal_as_built_is_trained_once():
    runs = diagnostic_runs([DEFAULT], [0])
    assert len(runs) == 4 * len(TASKS)
    assert diagnostic_runs([DEFAULT, cell(fc_layers=4), cell(fusion="sum")], [0]) == runs
    copy = TASKS["copy"]
    no_shift, long_shift = cell(shift=(0, 0, 0, 0)), cell(shift=(2, 2, 2, 2))
    assert diagnostic(long_shift, 3, copy) == diagnostic(no_shift, 3, copy)  # a whole region
    assert diagnostic(long_shift, 1, copy) == diagnostic(DEFAULT, 1, copy)
    assert diagnostic(cell(padding="zero"), 3, copy) == diagnostic(DEFAULT, 3, copy)  # none needed
    assert diagnostic(cell(padding="zero"), 0, copy) != diagnostic(DEFAULT, 0, copy)


def test_runs_come_seed_by_seed_and_all_differ():
    runs = diagnostic_runs(ALL, (0, 1, 2))
    seeds = [one.key.seed for one in runs]
    assert seeds == sorted(seeds)
    assert len({one.key.name for one in runs}) == len(runs)
    assert [one.key.seed for one in runs[:: len(runs) // 3]] == [0, 1, 2]
    assert {one.task.seed for one in runs} == {0, 1, 2}


def test_a_key_is_the_same_after_json():
    for one in diagnostic_runs(ALL, [1]):
        again = json.loads(json.dumps(dataclasses.asdict(one.key)))
        assert again == dataclasses.asdict(one.key)


def test_a_stage_that_is_not_there_is_said():
    with pytest.raises(ValueError, match=r"stage is 4.*from 0 to 3"):
        diagnostic(DEFAULT, 4, TASKS["copy"])


# ------------------------------------------------------------------ what is learnt


def test_what_is_reachable_is_learnt_and_nothing_else_and_the_ledger_keeps_it(tmp_path):
    # regions of 3 that never meet: 4 of 6 rows find the next one, none the row 3 away
    task = CopyFromDistance(6, (1, 3), symbols=2, region=1)
    one = diagnostic(cell(cross_region="none"), 1, task, seed=3)
    entry = one.run()
    assert entry.measured["+1"]["bound"] == pytest.approx(100 * 5 / 6)
    assert entry.measured["+1"]["accuracy"] == pytest.approx(100 * 5 / 6, abs=2)
    assert entry.measured["+3"]["bound"] == 50
    assert entry.measured["+3"]["accuracy"] == pytest.approx(50, abs=2)
    accuracies = [found["accuracy"] for found in entry.measured.values()]
    assert entry.top1 == pytest.approx(np.mean(accuracies))
    ledger = Ledger(tmp_path)
    ledger.write(entry)
    (kept,), damaged = ledger.read()
    assert not damaged
    assert kept.key == one.key
    assert kept.measured == entry.measured
    assert {name: found["bound"] for name, found in kept.measured.items()} == one.bounds


# ------------------------------------------------------------------ what came of it


def made_up(one, short):
    """An entry whose accuracies are so many points below the bounds."""
    measured = {q: {"accuracy": b - short, "bound": b} for q, b in one.bounds.items()}
    return Entry(one.key, "done", measured=measured)


def test_a_diagnosis_finds_the_entries_of_its_cell(tmp_path):
    changed = cell(shift=(2, 2, 2, 2))
    entries = [made_up(one, short=1 + one.key.seed) for one in diagnostic_runs([changed], (0, 2))]
    found = diagnosis_of(changed, entries)
    assert (found.regions, found.shifts, found.seeds) == ((4, 3, 3, 2), (2, 2, 2, 2), (0, 2))
    assert found.distances == {d: i for i, d in enumerate([*range(-6, 0), *range(1, 7)])}
    wanted = {
        q: b for task in TASKS.values() for q, b in diagnostic(changed, 3, task).bounds.items()
    }
    assert list(wanted) == list(found.questions)
    np.testing.assert_allclose(found.bound[3], list(wanted.values()))
    np.testing.assert_allclose(found.accuracy, found.bound - np.array([1, 3])[:, None, None])
    assert found.shortfall == pytest.approx(3)
    assert "98.0 of 100.0" in str(found)  # the mean over seeds
    check_kept(found, tmp_path)


def test_what_is_missing_is_missing_and_what_is_of_others_is_not_taken():
    one = diagnostic(DEFAULT, 2, TASKS["border"], seed=1)
    failed = Entry(diagnostic(DEFAULT, 0, TASKS["border"]).key, "failed", reason="stopped")
    strangers = [made_up(run, 0) for run in diagnostic_runs([cell(region=(1, 1, 1, 1))], (1, 5))]
    found = diagnosis_of(DEFAULT, [failed, *strangers, made_up(one, 2)])
    assert found.seeds == (1,)
    there = np.argwhere(~np.isnan(found.accuracy))
    border = found.questions.index("border")
    # stages of one region and one shift are one network on this map
    same = [s for s in STAGES if diagnostic(DEFAULT, s, TASKS["border"], 1) == one]
    assert there.tolist() == [[0, stage, border] for stage in same]
    empty = diagnosis_of(DEFAULT, [])
    assert isinstance(empty, Diagnosis)
    assert empty.accuracy.shape == (0, 4, 14)
    assert np.isnan(empty.shortfall)
    assert "- of 100.0" in str(empty)
