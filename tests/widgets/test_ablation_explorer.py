"""AblationExplorer says what the tables of its ledgers say, and why there is none."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from _ablation import made_ledger, made_protocol
from PIL import Image

import hirelab as hl
from hirelab._shared.errors import HirelabError
from hirelab.ablation.ledger import Ledger
from hirelab.ablation.protocols import settle
from hirelab.ablation.tables import DEFAULT, cell


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    top1 = {DEFAULT: [76.0, 76.5], cell(region=(1, 1, 1, 1)): [70.0, 70.5]}
    folder = tmp_path_factory.mktemp("ledgers")
    small = dataclasses.replace(made_protocol(), model="hire_mlp_small")
    made_ledger(folder / "atto", top1)
    made_ledger(folder / "small", {DEFAULT: [80.0]}, small)
    settle(folder / "empty", made_protocol())
    return [folder / name for name in ("atto", "small", "empty")]


def test_its_image_is_the_table_s_own_figure(folders):
    explorer = hl.AblationExplorer(folders, ledger="atto", seeds=False)
    table = hl.ablation_table("components", folders[0])
    plot = table.plot(seeds=False)
    np.testing.assert_array_equal(np.asarray(explorer.render()), np.asarray(plot.image))
    # a plot that is kept has a palette: its lines and dots keep their colours, edges hardly differ
    kept = np.asarray(Image.open(io.BytesIO(plot.data)).convert("RGB")).astype(int)
    assert abs(kept - np.asarray(plot.image)).mean() < 1
    assert explorer.table().rows == table.rows


def test_its_facts_are_those_of_the_ledger(folders):
    explorer = hl.AblationExplorer(folders, ledger="atto")
    state = explorer.state()
    assert state["trained"] == "2 of 5 rows"
    assert (state["confirmed"], state["not_judged"]) == (1, 4)
    assert state["spread_of_one_training"] == f"{0.5 / 2**0.5:.3g}"
    explorer.set(ledger="small", table="padding")
    state = explorer.state()
    assert state["trained"] == "1 of 4 rows"
    assert "unknown" in state["spread_of_one_training"]


def test_what_a_ledger_cannot_say_is_said(folders):
    explorer = hl.AblationExplorer(folders, ledger="small")
    before = explorer.settings
    with pytest.raises(HirelabError, match="peers"):
        explorer.set(table="peers")
    with pytest.raises(HirelabError, match="has come to its end"):
        explorer.set(ledger="empty")
    assert explorer.settings is before
    explorer.set(table="peers", ledger="atto")
    with pytest.raises(HirelabError, match="no ledger"):
        hl.AblationExplorer([])


def test_a_ledger_is_read_once(folders, monkeypatch):
    explorer = hl.AblationExplorer(folders, ledger="atto")
    explorer.state()
    monkeypatch.setattr(Ledger, "read", lambda self: pytest.fail("read again"))
    explorer.set(seeds=False)
    explorer.set(metric="top1")
    assert explorer.state()["trained"] == "2 of 5 rows"


def test_one_ledger_may_be_given_alone_and_two_of_one_name_may_not(folders):
    one = folders[0]
    assert hl.AblationExplorer(one).state() == hl.AblationExplorer([str(one)]).state()
    with pytest.raises(HirelabError, match="another folder name each"):
        hl.AblationExplorer([one, one.parent / "elsewhere" / one.name])
