"""What a ledger says, against a ledger whose accuracies are known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from _ablation import IMAGES, made_ledger, made_protocol
from _helpers import check_kept
from scipy import stats

from hirelab._shared.errors import HirelabError
from hirelab.ablation import report
from hirelab.ablation.ledger import Entry, Ledger
from hirelab.ablation.protocols import settle
from hirelab.ablation.report import (
    AblationResult,
    AblationSummary,
    ablation_summary,
    ablation_table,
    ledgers,
)
from hirelab.ablation.tables import DEFAULT, cell, cells, find_tables, tables

NO_REGION = cell(region=(1, 1, 1, 1))
NO_SHIFT = cell(cross_region="none")
KNOWN = {DEFAULT: [76.0, 76.5, 77.0], NO_REGION: [73.0, 74.0], NO_SHIFT: [75.0]}
DEVIATION = np.sqrt((0.5**2 + 0.5**2 + 0.5**2 + 0.5**2) / 3)  # pooled: 3 degrees of freedom
ROWS = [
    "full", "without cross-region rearrangement", "without inner-region rearrangement",
    "without the channel branch", "without restore",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_ledger(tmp_path_factory.mktemp("ledgers") / "known", KNOWN)


@pytest.fixture(scope="module")
def result(folder):
    return ablation_table("components", folder)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A ledger of all cells, twice, whose differences are the paper's where it prints any."""
    top1 = {}
    for table in find_tables(("all",), "hire_mlp_atto"):
        for row in table.rows:
            points = round(4 * (row.top1 or 81.78)) / 4 - 6  # a whole number of images
            top1.setdefault(row.cell, [points - 0.25, points + 0.25])
    return made_ledger(tmp_path_factory.mktemp("ledgers") / "full", top1)


def test_means_and_differences_are_those_of_the_runs(result):
    assert result.rows == ROWS
    assert result.values == [[76.0, 76.5, 77.0], [75.0], [73.0, 74.0], [], []]
    assert result.seeds == [3, 1, 2, 0, 0]
    nan = np.nan
    np.testing.assert_allclose(result.mean, [76.5, 75.0, 73.5, nan, nan])
    np.testing.assert_allclose(result.difference, [0, -1.5, -3, nan, nan])
    np.testing.assert_allclose(result.paper, [81.78, 81.06, 79.81, 81.18, nan])
    np.testing.assert_allclose(result.paper_difference, [0, -0.72, -1.97, -0.60, nan], atol=1e-9)
    assert list(result.parameters) == [1000, 1002, 1001, 0, 0]
    assert list(result.macs) == [2000, 2002, 2001, 0, 0]
    assert (result.deviation, result.freedom) == (pytest.approx(DEVIATION), 3)


def test_intervals_are_dunnett_s_and_stand_where_there_is_a_difference(result):
    there = [False, True, True, False, False]
    assert list(np.isfinite(result.low)) == list(np.isfinite(result.high)) == there
    found = stats.dunnett([73.0, 74.0], [75.0], control=[76.0, 76.5, 77.0]).confidence_interval()
    np.testing.assert_allclose(result.low[[2, 1]], found.low, rtol=0.02)
    np.testing.assert_allclose(result.high[[2, 1]], found.high, rtol=0.02)
    assert list(np.isfinite(result.image_low)) == there
    inside = result.difference[1:3]
    assert ((result.image_low[1:3] < inside) & (inside < result.image_high[1:3])).all()


def test_the_noise_of_the_paper_stands_beside_ours(result):
    region, shift = tables()["region"].row("4,3,3,2"), tables()["shift"].row("1,1,1,1")
    assert f"{DEVIATION:.2f} points" in result.noise
    assert f"{shift.top1} and as {region.top1}" in result.noise


def test_a_loss_is_a_loss(folder, result):
    loss = ablation_table("components", folder, "loss")
    np.testing.assert_allclose(loss.mean, 3 - result.mean / 50)  # as the helper wrote it
    np.testing.assert_allclose(loss.difference, -result.difference / 50, atol=1e-12)
    # the better row of top-1 is the better one here: the interval turns round
    np.testing.assert_allclose(loss.low, -result.high / 50, rtol=0.02)
    np.testing.assert_allclose(loss.high, -result.low / 50, rtol=0.02)
    assert np.isnan(loss.image_low).all()
    for one, other in zip(loss.verdicts, result.verdicts, strict=True):
        assert one["word"] == other["word"]
        np.testing.assert_allclose(one["estimate"], other["estimate"] / 50)


def test_the_reference_row_may_be_missing(tmp_path):
    found = ablation_table("components", made_ledger(tmp_path, {NO_REGION: [73.0, 74.0]}))
    assert found.mean[2] == 73.5
    for column in (found.difference, found.low, found.image_low):
        assert np.isnan(column).all()
    assert found.plot().text


def test_one_seed_gives_a_difference_and_no_interval(tmp_path):
    found = ablation_table(
        "components", made_ledger(tmp_path, {DEFAULT: [76.0], NO_REGION: [74.0]})
    )
    assert found.difference[2] == -2
    assert np.isnan([*found.low, *found.image_low, found.deviation, found.independent]).all()
    assert {one["word"] for one in found.verdicts} == {"not judged"}


def test_claims_are_judged_where_all_their_rows_are_there(folder, result):
    words = {one["claim"]: one["word"] for one in result.verdicts}
    assert words == {
        "the network loses without cross-region rearrangement": "not resolved",
        "the network loses without inner-region rearrangement": "confirmed",
        "the network loses without the channel branch": "not judged",
        "the network loses without restore": "not judged",
        "inner-region rearrangement matters more than cross-region": "not resolved",
    }
    first, second, *_, last = result.verdicts
    assert first["estimate"] == pytest.approx(1.5)
    assert first["paper"] == pytest.approx(0.72)
    assert last["paper"] == pytest.approx(81.06 - 79.81)
    assert np.isnan(result.verdicts[3]["paper"])  # v1 prints no such row
    spread = DEVIATION * np.sqrt(1 / 3 + 1 / 2)
    assert second["p"] == pytest.approx(stats.t(3).sf(3 / spread))
    # the same contrast of cells stands in three tables, under other words
    again = {
        one["claim"]: one["estimate"]
        for one in ablation_summary(folder).verdicts
        if one["word"] != "not judged"
    }
    assert again["shift beats none"] == pytest.approx(1.5)
    assert len(again) == 4


def test_a_margin_in_points_is_not_asked_of_a_loss(full):
    counted = {metric: ablation_summary(full, metric).counts for metric in ("top1", "loss")}
    margins = sum(c.margin > 0 for table in tables().values() for c in table.contrasts)
    assert margins > 0
    assert counted["top1"]["not judged"] == 0
    assert counted["loss"]["not judged"] == margins


def test_a_ledger_that_is_the_paper_agrees_with_it(full):
    found = ablation_summary(full)
    assert found.tau > 0.9  # one network has two figures in the paper, and ours are rounded
    assert found.p < 0.01
    assert found.compared == sum(row.top1 is not None for t in tables().values() for row in t.rows)
    assert sum(found.counts.values()) == len(found.verdicts)
    components = ablation_table("components", full)
    np.testing.assert_allclose(components.difference[:4], components.paper_difference[:4], atol=0.2)


def test_every_table_can_be_said_and_drawn(full, folder):
    for ledger in (full, folder):
        for table in find_tables(("all",), "hire_mlp_atto"):
            found = ablation_table(table.name, ledger)
            for row in table.rows:
                assert row.name in str(found)
            assert found.plot().data.startswith(b"\x89PNG")


def test_what_was_not_trained_is_said(result):
    figure = result.plot()
    texts = [one.get_text() for one in figure.figure.findobj() if hasattr(one, "get_text")]
    assert texts.count("not trained yet") == 2
    assert "3 of 5 rows" in figure.text


def test_results_are_kept(result, folder, tmp_path):
    check_kept(result, tmp_path)
    check_kept(ablation_summary(folder), tmp_path)
    assert isinstance(result, AblationResult)
    assert isinstance(ablation_summary(folder), AblationSummary)


def test_failed_runs_and_foreign_ones_are_no_rows(tmp_path):
    chosen = made_protocol()
    made_ledger(tmp_path, {DEFAULT: [76.0]}, chosen)
    Ledger(tmp_path).write(Entry(chosen.key(NO_REGION, 0), "failed", reason="diverged"))
    other = chosen.key(cell(shift=(3, 3, 3, 3)), 0)
    Ledger(tmp_path).write(Entry(other, "done", top1=99.0, loss=0.1))
    found = ablation_table("components", tmp_path)
    assert found.seeds == [1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("componets",), r"no ablation table 'componets'\. Did you mean 'components'"),
        (("components", "top5"), r"no metric 'top5'.*Choose one of top1, loss"),
    ],
)
def test_what_does_not_exist_is_said(folder, arguments, message):
    table, *rest = arguments
    with pytest.raises(HirelabError, match=message):
        ablation_table(table, folder, *rest)


def test_a_folder_that_is_no_ledger_is_said(tmp_path):
    for call in (lambda one: ablation_table("region", one), ablation_summary):
        with pytest.raises(HirelabError, match=r"no ledger 'imagenete'.*or give the folder of one"):
            call("imagenete")
    settle(tmp_path, made_protocol())
    with pytest.raises(HirelabError, match=r"No run of .* has come to its end; `hirelab ablate`"):
        ablation_table("region", tmp_path)


def test_the_ledgers_that_come_along_can_be_read():
    for name in ledgers():
        found = ablation_summary(name)
        assert found.ledger == name
        assert sum(found.counts.values()) == len(found.verdicts) > 0


def test_the_made_ledger_answers_as_it_says(folder):
    for entry in Ledger(folder).read()[0]:
        assert entry.answers.sum() * 100 / IMAGES == entry.top1


def test_the_order_of_rows_without_a_spread_has_no_interval(tmp_path):
    once = {row.cell: [75.0 + i] for i, row in enumerate(tables()["shift"].rows)}
    found = ablation_summary(made_ledger(tmp_path / "once", once))
    assert np.isnan([found.tau_low, found.tau_high, *found.ceiling]).all()
    assert "its noise is unknown" in str(found)
    equal = ablation_summary(made_ledger(tmp_path / "equal", {one: [75.0] for one in once}))
    assert np.isnan([equal.tau, equal.p]).all()
    assert "all came out equal" in str(equal)


def test_the_ceiling_uses_the_spread_that_is_printed(full):
    found, table = ablation_summary(full), ablation_table("shift", full)
    cells = {row.cell for t in find_tables(("all",), "hire_mlp_atto") for row in t.rows}
    assert table.freedom == len(cells)  # two seeds each, however many tables a cell stands in
    assert found.ceiling[0] <= found.ceiling[1] <= found.ceiling[2]


def test_what_is_not_resolved_says_how_many_more_trainings_would_do(folder):
    """So many seeds of every network would have made the effect as large as what is resolvable."""
    summary = ablation_summary(folder)
    one = next(v for v in summary.verdicts if v["claim"] == "shift beats none")
    line = next(row for row in summary.unresolved.splitlines() if one["claim"] in row)
    times = float(line.split()[-3])  # for ours; paper, times for the paper's
    assert times == pytest.approx((one["resolvable"] / 1.5) ** 2, abs=0.05)
    more = int(np.ceil(times))
    spread = DEVIATION * np.sqrt(1 / (3 * more) + 1 / more)
    law = stats.t(3)
    assert (law.ppf(0.95) + law.ppf(0.8)) * spread <= 1.5
    assert "confirmed" not in summary.unresolved
    assert not any(v["claim"] in summary.unresolved for v in summary.verdicts
                   if v["word"] != "not resolved")  # fmt: skip


def test_a_claim_is_apart_where_the_paper_s_difference_is_outside_of_our_interval(folder):
    summary = ablation_summary(folder)
    judged = {v["claim"]: v for v in summary.verdicts if v["word"] != "not judged"}
    inner = judged["the network loses without inner-region rearrangement"]
    assert inner["low"] < 1.97 < inner["high"]
    assert summary.apart == []
    many = dataclasses.replace(summary, verdicts=[inner | {"low": 2.5}, inner | {"high": 1.9}])
    assert len(many.apart) == 2


def test_runs_of_other_images_are_not_compared(tmp_path, monkeypatch):
    folder = made_ledger(tmp_path / "ledger", {DEFAULT: [75.0, 76.0]})
    other = Entry(made_protocol().key(NO_SHIFT, 0), "done", top1=100.0, correct="/w==", images=8)
    Ledger(folder).write(other)
    with pytest.raises(HirelabError, match=r"different numbers of images \(\[8, 400\]\)"):
        ablation_table("shift", folder)


def test_cells_come_in_the_order_of_the_tables():
    """Noise is drawn cell by cell: in another order the same ledger would print other digits."""
    found = list(report.read_runs("imagenette-pilot").entries)
    order = cells(find_tables(("all",), "hire_mlp_atto"))
    assert found == [one for one in order if one in found]
    assert len(found) == 4
