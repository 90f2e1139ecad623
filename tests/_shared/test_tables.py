"""One way to lay out rows of text."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

import hirelab as hl
from hirelab._shared.tables import Records, table

ROWS = [("name", "n", "share"), ("a", 1, "0.5"), ("longer", 1000, "")]


def test_columns_are_as_wide_as_their_widest_cell():
    assert table(ROWS, "lr").splitlines() == [
        "name       n  share",
        "a          1    0.5",
        "longer  1000",  # no blanks at the end
    ]
    assert table(ROWS).splitlines()[1] == "a       1     0.5"
    assert table([]) == ""


def test_markdown_has_bars_and_a_rule_that_says_which_columns_are_numbers():
    assert table(ROWS, "lr", markdown=True).splitlines() == [
        "| name   |    n | share |",
        "|--------|-----:|------:|",
        "| a      |    1 |   0.5 |",
        "| longer | 1000 |       |",
    ]


class Two(Records):
    def records(self):
        return [
            {"name": 'a, "b"', "share": 0.1, "none": None},
            {"name": "é", "share": 2, "none": 3},
        ]


def test_records_as_csv_come_back(tmp_path):
    text = Two().to_csv(tmp_path / "new" / "two.csv")
    assert (tmp_path / "new" / "two.csv").read_text(encoding="utf-8") == text
    read = list(csv.DictReader(io.StringIO(text)))
    assert read == [
        {"name": 'a, "b"', "share": "0.1", "none": ""},
        {"name": "é", "share": "2", "none": "3"},
    ]


def tables():
    """One of every kind of table that the library makes without training."""
    model, x = hl.create("hire_mlp_atto", seed=0), hl.samples(2, 32)[0]
    cost = hl.analysis.cost
    yield model.points("stages.0.*", x=x), "name"
    yield hl.compare_fields({"a": hl.receptive_field(model, x)}), "name"
    yield cost.block_parts(model, img_size=64), "part"
    yield cost.network_cost(model, 64), "part"
    yield cost.family(["hire_mlp_atto", "hire_mlp_pico"], 64), "part"
    yield hl.analysis.cost_growth.cost_growth(["hire_mlp_atto"], (32, 64)), "side"
    yield hl.training.release.history("hire_mlp_pico.imagenette"), "epoch"


def test_every_table_gives_its_rows_as_plain_values():
    for one, column in tables():
        rows = one.records()
        assert rows, type(one)
        assert len({tuple(row) for row in rows}) == 1
        assert all(column in row for row in rows)
        plain = (str, int, float, bool, type(None))
        assert {type(value) for row in rows for value in row.values()} <= set(plain)
        assert len(one.to_csv().splitlines()) == len(rows) + 1


def test_costs_in_rows_add_up_to_the_whole():
    cost = hl.analysis.cost.network_cost("hire_mlp_atto", 64)
    assert sum(row["macs"] for row in cost.records()) == cost.macs.sum()
    both = hl.analysis.cost.family(["hire_mlp_atto", "hire_mlp_pico"], 64).records()
    atto = sum(row["params"] for row in both if row["network"] == "hire_mlp_atto")
    assert atto == cost.params.sum()


def test_numbers_in_rows_are_not_rounded():
    model, x = hl.create("hire_mlp_atto", seed=0), hl.samples(2, 32)[0]
    found = hl.compare_fields({"a": hl.receptive_field(model, x)})
    (row,) = found.records()
    assert [row[name] for name in found.columns] == found.values[0].tolist()
    assert row[f"{found.columns[0]} spread"] == pytest.approx(np.nan_to_num(found.spread[0, 0]))
