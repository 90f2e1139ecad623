"""A cell of one's own: trained once, into a ledger that goes away."""

from __future__ import annotations

import pytest

from hirelab._shared.errors import HirelabError
from hirelab.ablation import diagnostics, live
from hirelab.ablation.diagnostics import TASKS, Diagnostic, diagnosis_of, side_by_side
from hirelab.ablation.report import table_diagnoses
from hirelab.ablation.tables import DEFAULT, cell, tables


@pytest.fixture
def quick(monkeypatch):
    """A recipe of a moment, and every run that is done."""
    recipe = {**diagnostics.RECIPE, "steps": 2, "images": 8}
    monkeypatch.setattr(diagnostics, "RECIPE", recipe)
    done, run = [], Diagnostic.run

    def counted(self, *args):
        done.append(self)
        return run(self, *args)

    monkeypatch.setattr(Diagnostic, "run", counted)
    return done


def test_stages_that_are_built_alike_are_trained_once_and_nothing_twice(quick, capsys):
    ledger = live.scratch_ledger()
    assert live.ledger_rows(ledger) == "no run yet"
    mine = cell(region=(5, 5, 2, 2))
    found = live.learn(mine, ledger)
    assert [dict(run.settings)["region"] for run in quick] == [5, 2]
    assert {type(run.task) for run in quick} == {type(TASKS["copy"])}
    assert capsys.readouterr().out.rstrip().endswith("| 2 of 2")
    assert found.seeds == (0,)
    again = live.learn(mine, ledger)
    assert len(quick) == 2
    assert str(again) == str(found) == str(diagnosis_of(mine, ledger.read()[0]))
    rows = live.ledger_rows(ledger).splitlines()
    assert len(rows) == 1 + 2
    assert {row.split()[0] for row in rows[1:]} == {run.key.name for run in quick}
    live.learn(cell(region=(5, 5, 2, 2), shift=(1, 1, 1, 1)), ledger)
    assert len(quick) == 3  # regions of 2 shifted by 1 were there


def test_a_task_that_does_not_exist_is_said(quick):
    with pytest.raises(HirelabError, match=r"no task 'copi'\. Did you mean 'copy'"):
        live.learn(DEFAULT, live.scratch_ledger(), "copi")
    assert not quick


def test_scratch_ledgers_are_two(quick):
    one, other = live.scratch_ledger(), live.scratch_ledger()
    live.learn(cell(region=(2, 2, 2, 2), shift=(1, 1, 1, 1)), one)
    assert len(one.read()[0]) == 1
    assert not other.read()[0]


def test_rows_of_a_table_are_diagnosed_in_order(quick, tmp_path):
    names = ["without restore", "full"]
    found = table_diagnoses("components", names, tmp_path)
    cells = [tables()["components"].row(name).cell for name in names]
    assert [one.cell for one in found] == list(map(str, cells))
    assert [one.seeds for one in found] == [(), ()]
    every = table_diagnoses("components", ledger=tmp_path)
    assert len(every) == len(tables()["components"].rows)
    figure = side_by_side(found)
    assert figure.text.count("not trained yet") == 2
    with pytest.raises(HirelabError, match="row of components"):
        table_diagnoses("components", ["none"])


def test_a_diagnosis_says_how_far_it_stays_below(quick):
    found = live.learn(cell(region=(2, 2, 2, 2), shift=(1, 1, 1, 1)), live.scratch_ledger())
    (said,) = found.plot().text.split(": ")[1:]
    assert 0 <= int(said.split()[-1]) - found.shortfall < 1
