"""A sweep runs what is missing, once, in a balanced order, and says where it stands."""

from __future__ import annotations

import csv
import dataclasses
import json
import shlex
import shutil
from collections import Counter

import nbformat
import pytest
import torch
from safetensors import SafetensorError

from hirelab._shared.errors import HirelabError
from hirelab._shared.files import atomic, project_folder
from hirelab.ablation import report, sweep
from hirelab.ablation.ablate import ablate, ablation_jobs, ablation_status
from hirelab.ablation.ledger import Entry, Ledger, RunKey
from hirelab.ablation.protocols import Protocol, protocol, recall, settle
from hirelab.ablation.repeats import AGAIN
from hirelab.ablation.report import ablation_summary, ablation_table
from hirelab.ablation.source import DIAGNOSTIC, PACKAGE, TRAINING, code_of
from hirelab.ablation.sweep import Training, plan, seen_rate, status, work_through
from hirelab.ablation.tables import DEFAULT, PEERS, cell, cells, find_tables
from hirelab.analysis.cost import count_macs
from hirelab.cli import main
from hirelab.training.evaluation import Evaluation
from hirelab.training.loop import DivergedError
from hirelab.training.network import build_network

SMOKE = protocol("smoke")


@dataclasses.dataclass(frozen=True)
class Stand:
    """A job that takes no time; what comes of it is said beforehand."""

    seed: int
    outcome: str = "done"
    cost: float = 1.0
    source: str = "new"

    @property
    def key(self) -> RunKey:
        return RunKey("stand", {}, {}, {}, self.seed, 1)

    @property
    def label(self) -> str:
        return f"stand, seed {self.seed}"

    def run(self, out, progress):
        out.mkdir(parents=True)
        TAKEN.append(self.seed)
        if self.outcome == "stopped":
            return None
        if self.outcome == "disk":
            raise HirelabError("the disk is full")
        return Entry(self.key, self.outcome, top1=50.0, seconds=2.0, source="old", about=ABOUT)


TAKEN: list[int] = []
ABOUT = {"hardware": sweep.hardware()}


@pytest.fixture(autouse=True)
def _nothing_taken():
    TAKEN.clear()


# ------------------------------------------------------------------ the whole of it


def test_every_cell_of_every_table_is_trained_once_per_seed(swept):
    entries, damaged = Ledger(swept).read()
    tables = find_tables(("all",), "hire_mlp_atto")
    assert not damaged
    assert {entry.status for entry in entries} == {"done"}
    assert Counter(entry.key.seed for entry in entries) == {0: len(cells(tables)), 1: 1, 2: 1}
    assert len(cells(tables)) == 24 + 3
    assert not list((swept.parent / "runs").iterdir())  # the folders of runs are gone
    with open(swept / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["run"] for row in rows} == {entry.key.name for entry in entries}
    for table in tables:
        found = ablation_table(table.name, swept)
        assert found.seeds == [3 if row.cell == DEFAULT else 1 for row in table.rows]
        assert (found.macs > 0).all()
    judged = ablation_summary(swept)
    claims = sum(len(table.contrasts) for table in tables)
    assert len(judged.verdicts) == claims
    assert judged.compared == 24


def test_notebook_07_reads_such_a_ledger(swept, tmp_path, monkeypatch):
    for name in ("imagenette-cpu", "imagenette-pilot", "tinyimagenet-cpu"):  # those it names
        shutil.copytree(swept, tmp_path / name)
    shutil.copytree(swept, tmp_path / "imagenette-cpu" / AGAIN)
    monkeypatch.setattr(report, "_shipped", lambda: tmp_path)
    notebook = nbformat.read(project_folder("notebooks") / "07_ablations.ipynb", as_version=4)
    code = [c.source for c in notebook.cells if c.cell_type == "code" and "live." not in c.source]
    names: dict = {}
    for source in code:
        if "learnt." not in source:  # what its live cells have trained
            exec(source, names)
    assert names["components"].seeds == [3, 1, 1, 1, 1]


def test_a_sweep_that_is_done_trains_nothing(swept, capsys, monkeypatch):
    before = {path.name: path.stat().st_mtime_ns for path in swept.glob("*.json")}
    monkeypatch.setattr(sweep, "train", None)
    call = ["ablate", "--profile", "smoke", "--ledger", str(swept)]
    assert main([*call, "--out", str(swept.parent / "runs")]) == 0
    assert {path.name: path.stat().st_mtime_ns for path in swept.glob("*.json")} == before
    capsys.readouterr()
    assert main([*call, "--status"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "all runs are done"


def test_the_printed_command_trains_the_same_network(swept, tmp_path):
    found = Ledger(swept).read()[0]
    entry = next(e for e in found if e.key.arguments.get("padding") == "reflect")
    words = shlex.split(entry.about["command"])
    words[words.index("--out") + 1] = str(tmp_path / "again")
    assert main(words[1:]) == 0
    again = Evaluation.load(tmp_path / "again" / "evaluation.npz")
    assert (again.predicted == again.labels).tolist() == entry.answers.tolist()
    assert again.loss == entry.loss


# ------------------------------------------------------------------ what there is to run


def test_wherever_it_is_cut_off_the_tables_are_balanced():
    chosen = protocol("cpu", seeds=3)
    jobs = plan(chosen, cells(find_tables(("all",), chosen.model)))
    assert len({(job.cell, job.seed) for job in jobs}) == len(jobs) == 26 * 3 + 9
    for count in range(1, len(jobs)):
        trained = Counter(job.cell for job in jobs[:count])
        of_default = trained.pop(DEFAULT)
        least = min(trained.values()) if len(trained) == 26 else 0
        assert max(trained.values(), default=0) - least <= 1
        assert of_default in (3 * least, 3 * least + 1, 3 * least + 2, 3 * least + 3)


def test_a_key_is_what_json_keeps_of_it():
    key = SMOKE.key(cell(shift=(1, 1, 1, 1)), 2)
    again = RunKey(**json.loads(json.dumps(dataclasses.asdict(key))))
    assert again == key
    longer = dataclasses.replace(SMOKE, recipe=dataclasses.replace(SMOKE.recipe, epochs=2))
    assert longer.key(DEFAULT, 0).name != SMOKE.key(DEFAULT, 0).name


def test_peers_cost_about_as_much():
    for name, img_size in (("hire_mlp_atto", 96), ("hire_mlp_pico", 128)):
        x = torch.zeros(1, 3, img_size, img_size)

        def macs(model, arguments, x=x):
            with torch.no_grad():
                return count_macs(build_network(model, 10, 0.0, arguments).eval(), x)

        own = macs(name, {})
        for _, model, arguments in PEERS[name]:
            assert 0.75 < macs(model, arguments) / own <= 1.3


# ------------------------------------------------------------------ running


def test_what_fails_keeps_its_reason_and_the_rest_goes_on(tmp_path):
    jobs = [Stand(0), Stand(1, "failed"), Stand(2)]
    ledger = Ledger(tmp_path / "ledger")
    assert work_through(jobs, ledger, tmp_path / "runs")
    assert TAKEN == [0, 1, 2]
    assert work_through(jobs, ledger, tmp_path / "runs")
    assert TAKEN == [0, 1, 2]
    assert work_through(jobs, ledger, tmp_path / "runs", retry=True)
    assert TAKEN == [0, 1, 2, 1]
    ((name, done, of, failed, stale, running),) = status(jobs, ledger).rows
    assert (name, done, of, failed, stale, running) == ("stand", 2, 3, 1, 3, 0)


@pytest.mark.parametrize("outcome", ["stopped", "disk"])
def test_a_stop_or_a_full_disk_leaves_the_run_open_and_its_folder_there(tmp_path, outcome):
    jobs, ledger = [Stand(0), Stand(1, outcome), Stand(2)], Ledger(tmp_path / "ledger")
    if outcome == "stopped":
        assert not work_through(jobs, ledger, tmp_path / "runs")
    else:
        with pytest.raises(HirelabError, match="disk is full"):
            work_through(jobs, ledger, tmp_path / "runs")
    assert TAKEN == [0, 1]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [jobs[1].key.name]
    assert not ledger.leased()
    found = status(jobs, ledger)
    assert found.missing == 2
    assert found.seconds_left == pytest.approx(2 * 2.0)  # one run took two seconds


def test_a_network_that_cannot_be_built_is_a_failed_run_and_not_the_end(tmp_path):
    jobs = [Training(cell(region=(0, 1, 1, 1)), 0, SMOKE.look()), Stand(0)]
    assert work_through(jobs, Ledger(tmp_path / "ledger"), tmp_path / "runs")
    found = status(jobs, Ledger(tmp_path / "ledger"))
    (reason,) = found.reasons.values()
    assert "region" in reason
    assert reason in str(found)


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (DivergedError("the loss became nan"), "the loss became nan"),
        (RuntimeError("out of memory"), "RuntimeError: out of memory"),
        (HirelabError("the disk is full"), None),
        (OSError("gone"), None),
    ],
)
def test_only_what_is_of_this_network_fails_it(tmp_path, monkeypatch, error, kept):
    def fails(*args, **kwargs):
        raise error

    monkeypatch.setattr(sweep, "train", fails)
    job = Training(DEFAULT, 0, SMOKE.look())
    if kept is None:
        with pytest.raises(type(error), match=str(error)):
            job.run(tmp_path / "run", print)
    else:
        entry = job.run(tmp_path / "run", print)
        assert (entry.status, entry.reason) == ("failed", kept)


def test_a_disk_that_fills_while_weights_are_written_fails_no_network(tmp_path, monkeypatch):
    """The writer of weights has errors of its own, which are not of the network."""

    def full(*args, **kwargs):
        with atomic(tmp_path / "model.safetensors"):
            raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(sweep, "train", full)
    with pytest.raises(OSError, match="No space left on device"):
        Training(DEFAULT, 0, SMOKE.look()).run(tmp_path / "run", print)


def test_a_damaged_entry_does_not_count_and_is_kept(tmp_path, capsys):
    ledger, jobs = Ledger(tmp_path / "ledger"), [Stand(0), Stand(1)]
    assert work_through(jobs, ledger, tmp_path / "runs")
    path = ledger.path(jobs[0].key)
    half = path.read_text()[:40]
    path.write_text(half)
    assert path.name in str(status(jobs, ledger))
    assert work_through(jobs, ledger, tmp_path / "runs")
    assert TAKEN == [0, 1, 0]
    assert path.with_suffix(".damaged").read_text() == half
    assert ledger.get(jobs[0].key).top1 == 50.0
    assert f"{path.name} does not count" in capsys.readouterr().out


def test_speed_is_judged_by_this_machine_alone(tmp_path):
    ledger, jobs = Ledger(tmp_path), [Stand(0, cost=6.0), Stand(1)]
    assert seen_rate(jobs, ledger) == 0
    assert "after the first" in str(status(jobs, ledger))
    trainings = plan(SMOKE.look(), [DEFAULT])
    assert 0 < status(trainings, ledger).seconds_left < 3600  # nothing was run: a step was timed
    elsewhere = {"hardware": "another machine"}
    ledger.write(Entry(jobs[0].key, "done", top1=50.0, seconds=100.0, about=elsewhere))
    assert seen_rate(jobs, ledger) == 0
    ledger.write(Entry(jobs[0].key, "done", top1=50.0, seconds=3.0, about=ABOUT))
    assert seen_rate(jobs, ledger) == pytest.approx(2.0)


# ------------------------------------------------------------------ whose runs they are


def test_a_ledger_holds_one_protocol(tmp_path):
    chosen = SMOKE.look()
    settle(tmp_path / "ledger", chosen)
    settle(tmp_path / "ledger", chosen)
    longer = dataclasses.replace(chosen.recipe, epochs=7)
    with pytest.raises(HirelabError, match=r"epochs 1, not 7.*choose another --ledger"):
        settle(tmp_path / "ledger", dataclasses.replace(chosen, recipe=longer))
    with pytest.raises(HirelabError, match="model 'hire_mlp_atto', not 'hire_mlp_pico'"):
        settle(tmp_path / "ledger", dataclasses.replace(chosen, model="hire_mlp_pico"))
    changed = dataclasses.replace(chosen, fingerprints={"train": "x", "val": "y"})
    with pytest.raises(HirelabError, match="images of photo-crops are not those"):
        settle(tmp_path / "ledger", changed)
    settle(tmp_path / "ledger", dataclasses.replace(chosen, data="other/name.zip"))


def test_a_setting_younger_than_a_ledger_does_not_make_it_another(tmp_path):
    chosen = SMOKE.look()
    settle(tmp_path, chosen)
    path = tmp_path / "protocol.json"
    kept = json.loads(path.read_text())
    del kept["recipe"]["aug_repeats"]  # of this one the smoke recipe differs from the paper's
    path.write_text(json.dumps(kept))
    with pytest.raises(HirelabError, match="aug_repeats 3, not 1"):
        settle(tmp_path, chosen)
    kept["recipe"] |= {"aug_repeats": 1}
    del kept["recipe"]["min_lr"]  # of this one it does not
    path.write_text(json.dumps(kept))
    settle(tmp_path, chosen)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"format": 99}',
        "[]",
        '"x"',
        '{"format": 1}',
        '{"format": 1, "model": "m", "data": ""}',
    ],
)
def test_a_protocol_that_cannot_be_read_is_said_and_left(tmp_path, text):
    path = tmp_path / "protocol.json"
    path.write_text(text)
    with pytest.raises(HirelabError, match=r"cannot be read .*choose another --ledger"):
        settle(tmp_path, SMOKE.look())
    assert path.read_text() == text


def test_where_it_stands_is_known_without_the_data(tmp_path, swept, monkeypatch):
    monkeypatch.setenv("HIRELAB_DATA", str(tmp_path))
    monkeypatch.setenv("HIRELAB_CACHE", str(tmp_path))
    shared = json.loads((swept / "protocol.json").read_text())
    lost = dataclasses.replace(SMOKE, data="imagenette")
    with pytest.raises(HirelabError, match="data get imagenette"):
        recall(tmp_path / "new", lost)
    assert recall(swept, lost).fingerprints == shared["fingerprints"]
    assert not ablation_status(["all"], lost, swept).missing


def test_code_is_what_counts_as_source():
    text = (PACKAGE / "rearrange.py").read_text()
    commented = text.replace('"""', '"""Changed. ', 1).replace("\ndef ", "\n\n# why\ndef ")
    assert commented != text
    assert code_of(commented) == code_of(text)
    assert code_of(text.replace("return ", "return not ", 1)) != code_of(text)
    assert code_of("if a:\n    b\nc\n") != code_of("if a:\n    b\n    c\n")
    assert code_of("x = 'a'\n") != code_of("x = 'b'\n")
    assert all((PACKAGE / name).is_file() for name in (*TRAINING, *DIAGNOSTIC))


def test_code_is_the_same_whatever_python_reads_it():
    """Python 3.12 splits a formatted string into words, 3.11 does not."""
    text = 'x = f\'a{b:>{c}} {d(1)!r}\' \'e\'  # why\n\ny = (f"""{\n    b}\n  c""", 1)\n'
    assert code_of(text) == (
        '0 x = f\'a{b:>{c}} {d(1)!r}\' \'e\'\n0 y = ( f"""{\n    b}\n  c""" , 1 )'
    )


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--table", "shfit"], "Did you mean 'shift'"),
        (["--profile", "cpus"], "Did you mean 'cpu'"),
        (["--profile", "smoke", "--seeds", "0"], "seeds is 0"),
        (["--profile", "smoke", "--epochs", "0"], "epochs is 0"),
        (["--profile", "smoke", "--img-size", "8"], "at least 32 pixels"),
        (["--profile", "smoke", "--data", "nowhere"], "'nowhere'"),
        (["--profile", "smoke", "--table", "diagnostics", "shift"], "alone"),
        (["--profile", "smoke", "--table", "all", "shfit"], "Did you mean 'shift'"),
        (["--table", "diagnostics", "--img-size", "64", "--data", "x"], "leave --data, --img-size"),
        (["--profile", "smoke", "--table", "peers", "--model", "hire_mlp_tiny"], "No peers"),
        (["--profile", "smoke", "--model", "resnet18"], "no Hire-MLP"),
    ],
)
def test_what_is_asked_wrongly_is_said_and_nothing_is_written(tmp_path, capsys, words, message):
    folder = tmp_path / "ledger"
    assert main(["ablate", *words, "--ledger", str(folder), "--out", str(tmp_path / "runs")]) == 2
    assert message in capsys.readouterr().err
    assert not folder.exists()


def test_a_profile_that_wants_a_gpu_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(HirelabError, match=r"wants a GPU.*--profile cpu"):
        ablate(["shift"], protocol("gpu"), tmp_path / "ledger", tmp_path / "runs")
    assert not list(tmp_path.iterdir())


def test_where_it_stands_is_said_of_its_own_protocol_alone(swept, tmp_path):
    with pytest.raises(HirelabError, match="epochs 1, not 7"):
        ablation_status(["all"], protocol("smoke", epochs=7), swept)
    with pytest.raises(HirelabError, match="holds trainings"):
        ablation_status(["diagnostics"], SMOKE, swept)
    with pytest.raises(HirelabError, match="holds trainings"):
        ablate(["diagnostics"], SMOKE, swept, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(HirelabError, match="is a file"):
        ablation_status(["all"], SMOKE, tmp_path / "file")
    one = ablation_jobs(["diagnostics"], SMOKE)[0]
    Ledger(tmp_path).write(Entry(one.key, "done", top1=50.0))
    with pytest.raises(HirelabError, match="runs of no protocol"):
        ablate(["shift"], SMOKE, tmp_path, tmp_path)


def test_failed_runs_are_not_called_done(tmp_path, capsys):
    folder, chosen = tmp_path / "ledger", SMOKE.look()
    settle(folder, chosen)
    jobs = ablation_jobs(["shift"], chosen)
    for job in jobs:
        Ledger(folder).write(Entry(job.key, "failed", reason="it did not fit"))
    call = ["ablate", "--profile", "smoke", "--table", "shift", "--ledger", str(folder)]
    assert main([*call, "--out", str(tmp_path / "runs")]) == 1
    said = f"no run is missing; {len(jobs)} failed, which --retry runs again"
    assert said in capsys.readouterr().out


def test_what_the_disk_refuses_a_run_is_said_with_its_cure(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HirelabError, match=r"cannot go on .*choose another --out"):
        work_through([Stand(0)], Ledger(tmp_path / "ledger"), tmp_path / "file" / "runs")


def test_a_ledger_in_the_way_of_a_file_is_said(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(HirelabError, match="cannot be written"):
        ablate(["shift"], SMOKE, tmp_path / "file" / "ledger", tmp_path / "runs")
    with pytest.raises(HirelabError, match="cannot be written"):
        work_through([Stand(0)], Ledger(tmp_path / "file" / "ledger"), tmp_path / "runs")
    assert (tmp_path / "file").read_text() == "mine"


def test_jobs_of_tables_are_the_cells_of_the_tables():
    chosen: Protocol = SMOKE.look()
    jobs = ablation_jobs(["shift", "cross_region"], chosen)
    assert {str(job.cell) for job in jobs} == {
        "default", "shift=0,0,0,0", "shift=1,1,1,1", "shift=2,2,2,2", "cross_region=shuffle"
    }  # fmt: skip


def test_rows_of_tables_alone_can_be_run(tmp_path):
    chosen = SMOKE.look()
    names = ["without inner-region rearrangement", "2,2,2,2"]
    jobs = ablation_jobs(["components", "region"], chosen, names)
    assert {str(job.cell) for job in jobs} == {
        "region=1,1,1,1", "region=2,2,2,2 shift=1,1,1,1"
    }  # fmt: skip
    # a row's cell is one, whatever table names it
    (first, *_) = ablation_jobs(["components"], chosen, ["full"])
    assert first.cell == ablation_jobs(["shift"], chosen, ["2,2,1,1"])[0].cell
    call = ["ablate", "--profile", "smoke", "--table", "components", "--row", "without restored"]
    for wanted in (
        lambda: ablation_jobs(["components"], chosen, ["without restored"]),
        lambda: ablate(["components"], SMOKE, tmp_path / "a", tmp_path / "b", rows=call[-1:]),
    ):
        with pytest.raises(HirelabError, match="Did you mean 'without restore'"):
            wanted()
    assert not (tmp_path / "a").exists()
    assert main([*call, "--ledger", str(tmp_path / "a"), "--status"]) != 0
