"""A cell of your own, learnt while you wait, in a ledger that nobody keeps.

scratch_ledger   an empty ledger in a temporary folder
learn            train a cell on a generated task, into a ledger, with a bar
ledger_rows      what a ledger of diagnostics holds, as a table
"""

from __future__ import annotations

import sys
import tempfile
from math import ceil
from pathlib import Path
from statistics import fmean

from tqdm import tqdm

from .._shared.checks import check_choice
from .._shared.tables import table
from .diagnostics import TASKS, Diagnosis, diagnosis_of, diagnostic_runs
from .ledger import Ledger
from .tables import Cell

_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []  # each goes when its object does


def scratch_ledger() -> Ledger:
    """An empty ledger in a temporary folder, which is removed when Python ends."""
    _FOLDERS.append(tempfile.TemporaryDirectory(prefix="hirelab-"))
    return Ledger(Path(_FOLDERS[-1].name))


def learn(cell: Cell, ledger: Ledger, task: str = "copy", seed: int = 0) -> Diagnosis:
    """Train what a ledger lacks of a cell on one of the generated tasks, and say what came of it.

    Stages that are built alike are trained once, in about 4 s on one core each. A bar on the screen
    counts them.

    Args:
        task: "copy", "border" or "texture", see `diagnostics.TASKS`.
        seed: of weights and images.

    Raises:
        HirelabError: an unknown task, or a ledger that cannot be written.
    """
    check_choice("task", task, TASKS)
    runs = [run for run in diagnostic_runs([cell], [seed]) if type(run.task) is type(TASKS[task])]
    # on stdout and without a clock, so that a notebook can keep it as it ended
    form = "{desc}|{bar:24}| {n_fmt} of {total_fmt}"
    with tqdm(total=len(runs), file=sys.stdout, bar_format=form, ascii=" #") as bar:
        for run in runs:
            settings = dict(run.settings)
            bar.set_description_str(f"region {settings['region']}, shift {settings['shift']} ")
            if ledger.get(run.key) is None:
                ledger.write(run.run())
            bar.update()
        bar.set_description_str("done ")
    return diagnosis_of(cell, ledger.read()[0])


def ledger_rows(ledger: Ledger) -> str:
    """What a ledger of diagnostics holds, a line a run: the share of right answers that is
    possible, the mean over its questions, and within how many points all of them were learnt."""
    rows = [("run", "task", "region", "shift", "seed", "possible, %", "learnt within, points")]
    for entry in ledger.read()[0]:
        key, questions = entry.key, entry.measured.values()
        gaps = [abs(one["accuracy"] - one["bound"]) for one in questions]
        rows.append(
            (
                key.name,
                key.data["task"].partition("(")[0],
                str(key.arguments["region"]),
                str(key.arguments["shift"]),
                str(key.seed),
                f"{fmean(one['bound'] for one in questions):.1f}",
                str(ceil(max(gaps))),  # rounded up: the same on every machine, nearly
            )
        )
    return table(rows, "llr") if len(rows) > 1 else "no run yet"
