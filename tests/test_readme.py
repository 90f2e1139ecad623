"""The documents: the README's code runs, links lead somewhere, tables are those that were kept."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

import hirelab as hl
from hirelab.ablation.report import read_runs
from hirelab.ablation.tables import tables

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
every = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def test_the_six_lines_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # they save an image
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[1]
    assert len(code.splitlines()) == 6
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "cam.png").read_bytes().startswith(b"\x89PNG")
    assert "stages.2.blocks.1.hire.gate.out" in capsys.readouterr().out


def test_the_readme_is_short():
    assert len(README.read_bytes()) < 10_500


def test_the_findings_are_those_of_the_ledger():
    text = README.read_text(encoding="utf-8")
    summary, components = hl.ablation_summary(), hl.ablation_table("components")
    counts = summary.counts
    assert f"spread by {components.deviation:.2f} points" in text
    printed = [abs(one["paper"]) for one in summary.verdicts if one["paper"] == one["paper"]]
    assert sum(points < components.deviation for points in printed) > len(printed) / 2
    assert (
        f"of {len(summary.verdicts)} claims {counts['confirmed']} is confirmed, "
        f"{counts['contradicted']} are contradicted and {counts['not resolved']} not resolved"
    ) in text
    judged = {one["claim"]: one for one in summary.verdicts}
    inner = judged["the network loses without inner-region rearrangement"]
    assert inner["paper"] == max(one["paper"] for one in summary.verdicts if one["paper"] > 0)
    assert f"{inner['paper']:.2f} points, is {inner['estimate']:.2f} " in text
    assert f"[{inner['low']:+.2f}, {inner['high']:+.2f}] here" in text
    fusion = hl.ablation_table("fusion")
    row = fusion.rows.index("sum, none")
    interval = f"{fusion.difference[row]:.2f} [{fusion.low[row]:.2f}, {fusion.high[row]:.2f}]"
    assert f"without gate and shift together loses for certain: {interval}" in text
    for table in tables():  # "only"
        found = hl.ablation_table(table)
        sure = {n for n, high in zip(found.rows, found.high, strict=True) if high < 0}
        assert sure == ({"sum, none"} if table == "fusion" else set())
    assert f"{sum(len(v) for v in read_runs('imagenette-cpu').entries.values())} trainings" in text


def test_what_is_said_of_camvid_is_what_the_runs_came_to():
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    found = hl.dense_results("camvid")
    assert found.groups == ["pretrained", "random weights"]
    assert [len(one) for one in found.seeds] == [3, 3]
    means = [sum(values) / 3 for values in found.values]
    assert (
        "{:.1f} % mean IoU from the bundled classification weights, {:.1f} %".format(*means) in text
    )
    gains = dict(zip(found.classes, found.by_class[0] - found.by_class[1], strict=True))
    most = sorted(gains, key=gains.get, reverse=True)[:3]
    assert f"{most[0]}, {most[1]} and {most[2]} gain most" in text
    little = [k for k, row in zip(found.classes, found.by_class.T, strict=True) if row.max() < 5]
    assert sorted(little) == ["pole", "sign"]  # "found by neither"
    assert f"falls from {found.values[0][found.seeds[0].index(0)]:.2f} to" in text


def headings(path: Path) -> set[str]:
    """The anchors that a code host gives the headings of a Markdown file."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


@every
def test_every_local_link_leads_somewhere(document):
    links = re.findall(r"\]\(([^)]+)\)", document.read_text(encoding="utf-8"))
    for link in links:
        if not link.startswith("http"):
            address, _, anchor = link.partition("#")
            target = document.parent / address if address else document
            assert target.exists(), link
            assert not anchor or anchor in headings(target), link


def test_every_notebook_has_its_row():
    shown = re.findall(r"\]\(notebooks/(\w+\.ipynb)\): ", README.read_text(encoding="utf-8"))
    assert shown == sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def report():
    spec = importlib.util.spec_from_file_location("_report", ROOT / "benchmarks" / "_report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_kept_table_stands_in_the_documents(report):
    results = ROOT / "data" / "results"
    for name in report.DOCUMENTS:
        page = (ROOT / name).read_text(encoding="utf-8")
        assert report.filled(page, results) == page
    pages = [(ROOT / name).read_text(encoding="utf-8") for name in report.DOCUMENTS]
    marked = [name for page in pages for name in re.findall(r"<!-- bench:(\w+) -->", page)]
    kept = {path.stem for path in results.glob("*.md")} - {"PROTOCOL"}  # which is no table
    assert sorted(marked) == sorted(kept)


def test_a_new_result_takes_the_place_of_the_old(report, tmp_path):
    (tmp_path / "a.md").write_text("| x |\n|---|\n| 2\\1 |\n\nwords\n\n*machine*\n")
    page = "before\n<!-- bench:a -->\nold\n<!-- end -->\n<!-- bench:a table -->\n<!-- end -->\n"
    page += "<!-- bench:b -->\nstays\n<!-- end -->\n"
    assert report.filled(page, tmp_path) == (
        "before\n<!-- bench:a -->\n| x |\n|---|\n| 2\\1 |\n\nwords\n\n*machine*\n<!-- end -->\n"
        "<!-- bench:a table -->\n| x |\n|---|\n| 2\\1 |\n\n*machine*\n<!-- end -->\n"
        "<!-- bench:b -->\nstays\n<!-- end -->\n"
    )


def test_a_command_puts_its_table_into_the_documents(report, tmp_path, monkeypatch, capsys):
    for document in report.DOCUMENTS:
        (tmp_path / document).parent.mkdir(exist_ok=True)
        (tmp_path / document).write_text("<!-- bench:a table -->\n<!-- end -->\n")
    (tmp_path / "data").mkdir()
    monkeypatch.setattr("hirelab._shared.files.ROOT", tmp_path)
    report.report("a", report.table(["x", "y"], [["long", "1"]]))
    printed = capsys.readouterr().out.rstrip("\n")
    assert printed.startswith("| x    | y |\n|------|---|\n| long | 1 |\n")
    for document in report.DOCUMENTS:
        assert printed in (tmp_path / document).read_text()
