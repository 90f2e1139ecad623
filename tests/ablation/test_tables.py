"""The ablation tables are what the paper prints, and each cell is one network."""

from __future__ import annotations

import csv
from itertools import combinations

import pytest
import torch

import hirelab as hl
from hirelab._shared.errors import HirelabError
from hirelab._shared.files import project_folder
from hirelab.ablation.tables import DEFAULT, DEFAULTS, cell, cells, find_tables, tables

SMALL = {"depths": (2, 2, 3, 2), "dims": (8, 12, 16, 20), "num_classes": 3}


def build(one, **more):
    return hl.create("hire_mlp_atto", seed=0, **SMALL, **dict(one.arguments), **more)


def test_every_figure_of_v1_stands_in_its_row():
    with open(project_folder("data") / "paper" / "ablations.csv", newline="") as file:
        printed = list(csv.DictReader(file))
    assert len(printed) == 24
    for line in printed:
        row = tables()[line["table"]].row(line["setting"])
        assert (row.top1, row.version) == (float(line["top1"]), line["version"])
    known = [row for table in tables().values() for row in table.rows if row.top1 is not None]
    assert len(known) == len(printed)


def test_there_are_18_cells_in_v1_22_with_v2_and_24_with_ours():
    v1 = {row.cell for table in tables().values() for row in table.rows if row.version == "v1"}
    paper = [name for name in tables() if name != "fusion"]
    assert len(v1) == 18
    assert len(cells(find_tables(paper))) == 22
    assert len(cells(find_tables())) == 24
    assert cells(find_tables())[0] == DEFAULT


def test_one_network_has_one_cell():
    rows = {name: table.row for name, table in tables().items()}
    assert rows["components"]("full").cell == rows["shift"]("2,2,1,1").cell == DEFAULT
    assert rows["padding"]("circular").cell == rows["fc_layers"]("2").cell == DEFAULT
    none = rows["shift"]("0,0,0,0").cell
    assert none == rows["cross_region"]("none").cell == rows["fusion"]("gate, none").cell
    assert none == cell(restore=False, cross_region="none")
    assert rows["region"]("4,3,3,2").cell == rows["shift"]("1,1,1,1").cell


def test_defaults_are_those_of_the_network():
    plain, spelled = hl.create("hire_mlp_atto", seed=0, **SMALL), build(DEFAULT)
    x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    assert torch.equal(plain(x), spelled(x))
    assert set(DEFAULTS) == {name for name, _ in DEFAULT.arguments}


def test_different_cells_compute_differently():
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    answers = {}
    for one in cells(find_tables()):
        model = build(one)
        for parameter in model.parameters():  # so that every path carries a signal
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            answers[one] = model(x)
    same = [
        (str(a), str(b)) for a, b in combinations(answers, 2) if torch.equal(answers[a], answers[b])
    ]
    assert not same
    assert len({str(one) for one in answers}) == len(answers)


def test_contrasts_name_rows_and_are_contrasts():
    for table in tables().values():
        assert table.contrasts
        for contrast in table.contrasts:
            assert sum(contrast.weights.values()) == 0
            assert all(table.row(name) for name in contrast.weights)
            assert contrast.margin >= 0


def test_the_paper_agrees_with_its_own_conclusions():
    for table in tables().values():
        for contrast in table.contrasts:
            figures = {name: table.row(name).top1 for name in contrast.weights}
            if None not in figures.values():
                total = sum(contrast.weights[name] * figures[name] for name in figures)
                assert total > -contrast.margin, contrast.claim


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: find_tables(["regoin"]), "Did you mean 'region'"),
        (lambda: cell(regions=(2, 2, 2, 2)), "Did you mean 'region'"),
        (lambda: tables()["shift"].row("2,2,1,2"), "It has 0,0,0,0"),
    ],
)
def test_unknown_names_are_said(call, message):
    with pytest.raises(HirelabError, match=message):
        call()
