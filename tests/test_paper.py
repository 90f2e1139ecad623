"""The paper's figures: one version at a time, every row once, every number a number."""

from __future__ import annotations

import csv

import pytest

from hirelab import paper
from hirelab._shared.errors import HirelabError
from hirelab._shared.files import ROOT

FOLDER = ROOT / "data" / "paper"


def rows(name: str) -> list[dict[str, str]]:
    with open(FOLDER / f"{name}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("name", "key", "numbers"),
    [
        ("headline", ("version", "network"), ("params_M", "gflops", "top1")),
        ("ablations", ("version", "table", "setting"), ("top1",)),
    ],
)
def test_every_row_stands_once_and_holds_numbers(name, key, numbers):
    found = rows(name)
    assert len({tuple(row[k] for k in key) for row in found}) == len(found) > 0
    for row in found:
        assert set(row) == {*key, *numbers}  # None would be a key for a surplus cell
        assert row["version"] in ("v1", "v2")
        assert all(row[k] == row[k].strip() != "" for k in row)
        for column in numbers:
            assert float(row[column]) > 0
        assert 70 < float(row["top1"]) < 90


def test_settings_of_stages_are_four_whole_numbers():
    for row in rows("ablations"):
        if row["table"] in ("region", "shift"):
            assert len([int(v) for v in row["setting"].split(",")]) == 4


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_versions_are_never_mixed(version):
    table = paper.headline(version)
    assert table.columns == ("network", "params_M", "gflops", "top1")
    wanted = [r for r in rows("headline") if r["version"] == version]
    assert [r[0] for r in table.rows] == [
        f"Hire-MLP-{n}" for n in ("Tiny", "Small", "Base", "Large")
    ]
    assert [r[3] for r in table.rows] == [r["top1"] for r in wanted]
    assert version in table.title
    sizes = [float(r[1]) for r in table.rows]
    accuracies = [float(r[3]) for r in table.rows]
    assert sizes == sorted(sizes)
    assert accuracies == sorted(accuracies)


def test_the_two_versions_differ_and_v2_is_the_default():
    assert paper.headline() == paper.headline("v2") != paper.headline("v1")


@pytest.mark.parametrize("version", ["v3", "2", "", None, 2])
def test_other_versions_are_not_there(version):
    with pytest.raises(ValueError, match=r"no version .*; give 'v1' or 'v2'"):
        paper.headline(version)


@pytest.mark.parametrize("name", ["region", "shift", "padding", "components", "cross_region"])
def test_ablations_are_rows_of_their_table(name):
    table = paper.ablation(name)
    wanted = [(r["setting"], r["top1"]) for r in rows("ablations") if r["table"] == name]
    assert list(table.rows) == wanted
    assert len(wanted) >= 3
    assert "v1" in table.title
    assert "_" not in table.title


def test_the_same_configuration_has_the_same_figure_but_for_the_one_that_is_known():
    """data/README.md names the two tables that disagree; a third would be a typing error."""
    top1 = {(r["table"], r["setting"]): float(r["top1"]) for r in rows("ablations")}
    published = top1["shift", "2,2,1,1"]
    assert published == top1["padding", "circular"] == top1["components", "full"]
    assert published == top1["cross_region", "shift"]
    assert top1["shift", "0,0,0,0"] == top1["cross_region", "none"]
    assert top1["shift", "0,0,0,0"] == top1["components", "without cross-region rearrangement"]
    gap = top1["region", "4,3,3,2"] - top1["shift", "1,1,1,1"]
    assert gap == pytest.approx(0.16)


def test_an_unknown_table_suggests_near_ones():
    with pytest.raises(ValueError, match=r"no ablation table 'regoin'\. Did you mean 'region'"):
        paper.ablation("regoin")
    with pytest.raises(ValueError, match="There are region, shift, padding"):
        paper.ablation("qqq")


def test_a_table_prints_aligned():
    table = paper.headline()
    lines = repr(table).splitlines()
    assert lines[0] == table.title
    assert len(lines) == 2 + len(table.rows)
    starts = {line.index(row[2], 20) for line, row in zip(lines[2:], table.rows, strict=True)}
    assert starts == {lines[1].index("gflops")}
    assert not any(line.endswith(" ") for line in lines)


def test_without_its_files_the_cure_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr("hirelab._shared.files.ROOT", tmp_path)
    with pytest.raises(HirelabError, match=r"headline\.csv does not exist: clone the repository"):
        paper.headline()


def test_dense_figures_are_those_of_the_abstract():
    """v2's abstract: 51.7 box AP and 44.8 mask AP on COCO, 49.9 mIoU on ADE20K."""
    cascade = paper.dense("cascade_mask_rcnn")
    best = dict(zip(cascade.columns, cascade.rows[-1], strict=True))
    assert (best["network"], best["box_ap"], best["mask_ap"]) == ("Hire-MLP-Base", "51.7", "44.8")
    upernet = paper.dense("upernet")
    assert upernet.rows[-1][upernet.columns.index("miou_multi_scale")] == "49.9"
    # a longer schedule helps, a larger backbone helps, and boxes are easier than masks
    short, long = (paper.dense("mask_rcnn", schedule) for schedule in ("1x", "3x"))
    ap = short.columns.index("box_ap")
    for one, other in zip(short.rows, long.rows, strict=False):
        assert float(one[ap]) < float(other[ap])
        assert float(one[ap]) > float(one[short.columns.index("mask_ap")])
    assert len(paper.dense("retinanet").rows) == 3


def test_unknown_dense_tables_name_those_there_are():
    with pytest.raises(HirelabError, match="Did you mean 'mask_rcnn'"):
        paper.dense("mask_rcn")
    with pytest.raises(HirelabError, match="retinanet has 1x"):
        paper.dense("retinanet", "3x")
