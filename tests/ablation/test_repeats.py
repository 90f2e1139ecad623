"""How far a run comes out the same where it is done again."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from _ablation import made_ledger, made_protocol

from hirelab._shared.errors import HirelabError
from hirelab.ablation.ledger import Ledger, pack
from hirelab.ablation.repeats import AGAIN, repeats
from hirelab.ablation.tables import DEFAULT, cell

NONE = cell(cross_region="none")


def test_runs_stand_beside_their_repetitions(tmp_path):
    folder = made_ledger(tmp_path / "mine", {DEFAULT: [76.0, 78.0], NONE: [70.0]})
    ledger, again = Ledger(folder), Ledger(folder / AGAIN)
    (folder / AGAIN).mkdir()
    for one, count, right in ((DEFAULT, 4, False), (NONE, 12, True)):
        entry = ledger.get(made_protocol().key(one, 0))
        answers = entry.answers.copy()
        answers[np.flatnonzero(answers != right)[:count]] = right
        again.write(dataclasses.replace(entry, top1=100 * answers.mean(), correct=pack(answers)))
    found = repeats(folder)
    rows = [(one["network"], one["seed"], one["first"], one["again"]) for one in found.runs]
    assert rows == [("default", 0, 76.0, 75.0), (str(NONE), 0, 70.0, 73.0)]
    assert [one["alike"] for one in found.runs] == [99.0, 97.0]  # of 400 images
    # of pairs (a, b) the deviation about their mean is |a - b| / sqrt(2)
    assert found.deviation == pytest.approx(np.sqrt((1**2 + 3**2) / 2 / 2))
    assert found.between_seeds == pytest.approx(np.std([76, 78], ddof=1))
    first, second = (ledger.get(made_protocol().key(DEFAULT, seed)).answers for seed in (0, 1))
    assert found.alike_between_seeds == pytest.approx(100 * (first == second).mean())
    assert f"{found.deviation:.2f} points between machines" in str(found)


def test_a_ledger_without_repetitions_says_how_to_make_some(tmp_path):
    folder = made_ledger(tmp_path / "mine", {DEFAULT: [76.0]})
    with pytest.raises(HirelabError, match=r"No run of mine was repeated; `hirelab ablate"):
        repeats(folder)


def test_the_sweep_repeats_within_the_spread_of_its_seeds():
    found = repeats("imagenette-cpu")
    assert len(found.runs) >= 5
    assert found.deviation < 1.5 * found.between_seeds
    gaps = [abs(one["first"] - one["again"]) for one in found.runs]
    assert max(gaps) < 3 * np.sqrt(2) * found.between_seeds
