"""`hirelab ablate`: tables and a protocol become jobs, a ledger and a csv.

ablate            run what is missing of some tables, here or on a cluster
ablation_status   where they stand
ablation_jobs     what there is to run for them
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from .._shared.errors import HirelabError
from ..training.rehearsal import check_compiler
from .diagnostics import diagnostic_runs
from .ledger import Ledger, compile_csv
from .lockstep import LOCKSTEP, check_lockstep, work_in_lockstep
from .protocols import (
    DIAGNOSTICS,
    Protocol,
    check_no_protocol,
    recall,
    results_folder,
    settle,
)
from .sweep import Job, Status, plan, status, work_through
from .tables import cells, find_tables

__all__ = ["ablate", "ablation_jobs", "ablation_status"]


def ablation_jobs(names: Sequence[str], chosen: Protocol, rows: Sequence[str] = ()) -> list[Job]:
    """What there is to run, in order.

    Args:
        names: tables, "all" of them, or "diagnostics" alone.
        chosen: whose data was looked at; of it the diagnostics take nothing but ``seeds``.
        rows: of these tables; all without.

    Raises:
        HirelabError: an unknown table or row, or diagnostics beside others.
    """
    if DIAGNOSTICS not in names:
        return list(plan(chosen, cells(find_tables(names, chosen.model), rows)))
    if len(names) > 1:
        raise HirelabError(
            f"{DIAGNOSTICS} have a ledger of their own; give --table {DIAGNOSTICS} alone."
        )
    return list(diagnostic_runs(cells(find_tables(), rows), range(chosen.seeds)))


def ablation_status(
    names: Sequence[str], chosen: Protocol, folder: Path, rows: Sequence[str] = ()
) -> Status:
    """Where tables, or some ``rows`` of them, stand in a ledger; needs no data where the ledger
    exists.

    Raises:
        HirelabError: an unknown table or row, a protocol that is not the ledger's, no ledger and
            no data.
    """
    if DIAGNOSTICS in names:
        check_no_protocol(folder)
    else:
        chosen = recall(folder, chosen)
    return status(ablation_jobs(names, chosen, rows), Ledger(folder))


def ablate(
    names: Sequence[str],
    chosen: Protocol,
    folder: Path,
    out: Path,
    *,
    rows: Sequence[str] = (),
    retry: bool = False,
    keep: bool = False,
    on: str = "",
) -> bool:
    """Run what a ledger lacks of some tables, and write its csv; whether nothing is missing now.

    The csv of all ledgers in `results_folder` is ``ablations.csv`` beside that folder, that of
    another ledger ``runs.csv`` in it.

    Args:
        names, chosen, rows: see `ablation_jobs`; the data is looked at here.
        folder: of the ledger. Several processes may share it.
        out: folder for the folders of the runs that are going on.
        retry, keep: see `work_through`.
        on: "" for this process, "lockstep" or "lockstep:N" for many side by side on its GPU, see
            `lockstep`, "ray" or "ray:ADDRESS" for a cluster, see `cluster`.

    Raises:
        HirelabError: what the user can put right; nothing of what is done is lost.
    """
    side_by_side = on.startswith(LOCKSTEP)
    if side_by_side and not torch.cuda.is_available():
        raise HirelabError("Lockstep wants a GPU and PyTorch sees none; leave --on lockstep out.")
    if DIAGNOSTICS in names:
        check_no_protocol(folder)
    else:
        if chosen.gpu and not on and not torch.cuda.is_available():
            raise HirelabError(
                "This profile wants a GPU and PyTorch sees none; choose --profile cpu or smoke."
            )
        cells(find_tables(names, chosen.model), rows)  # before images are read
        if side_by_side:
            check_lockstep(chosen.recipe)
        else:
            check_compiler(chosen.recipe)
        chosen = chosen.look()
        settle(folder, chosen)
    jobs, ledger = ablation_jobs(names, chosen, rows), Ledger(folder)
    if side_by_side:
        finished = work_in_lockstep(jobs, ledger, on, retry=retry, weights=out if keep else None)
    elif on:
        from .cluster import work_on_ray

        finished = work_on_ray(jobs, ledger, out, on, retry=retry, keep=keep)
    else:
        finished = work_through(jobs, ledger, out, retry=retry, keep=keep)
    with ledger.writing():
        if folder.resolve().parent == results_folder().resolve():
            ledgers = [Ledger(one) for one in sorted(results_folder().iterdir()) if one.is_dir()]
            compile_csv(ledgers, results_folder().with_suffix(".csv"))
        else:
            compile_csv([ledger], folder / "runs.csv")
    return finished
