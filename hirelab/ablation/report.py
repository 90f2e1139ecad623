"""What a ledger says: a table of the paper with our figures, intervals and verdicts beside it.

    ablation_table     one table
    ablation_summary   all contrasts together, and how far the order of rows is the paper's
    table_diagnoses    what the rows of a table can reach and have learnt, on generated tasks
    ledgers            the ledgers there are
    read_runs          the finished runs of one

Nothing is trained here, and no data is needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._shared.checks import check_choice
from .._shared.errors import HirelabError, unknown
from .._shared.files import data_folder
from .._shared.tables import Records
from .._shared.tables import table as aligned
from ..results import Result
from ..training.recipes import Recipe
from .diagnostics import Diagnosis, diagnosis_of
from .ledger import PROTOCOL, Entry, Ledger
from .protocols import DIAGNOSTICS, read_protocol
from .statistics import (
    Agreement,
    agreement,
    difference_over_images,
    differences,
    excess_spread,
    independent_spread,
    pool,
    verdicts,
)
from .tables import PEERS, AblationTable, Cell, Contrast, Row, cells, find_tables, tables

if TYPE_CHECKING:
    from ..viz.figures import Chart, Figure

__all__ = ["METRICS", "AblationResult", "AblationSummary", "Runs", "ablation_summary",
           "ablation_table", "ledgers", "read_runs", "table_diagnoses"]  # fmt: skip

METRICS = ("top1", "loss")
"""Top-1 in percent, of which more is better; mean loss in nats, of which less is."""

WORDS = ("confirmed", "contradicted", "not resolved", "not judged")
"""What is said of a claim."""


@dataclass(frozen=True, eq=False)
class AblationResult(Records, Result):
    """A table of the paper with our figures beside it.

    Differences are to the reference row, in the metric's unit. NaN stands where there is nothing:
    a row that was not trained, an interval without a second seed, a figure that the paper lacks.

    Attributes:
        table, title: of the `AblationTable`; ``reference``: its row that others are held to.
        ledger: the folder's name; ``about``: network, data, image size, epochs.
        metric: one of `METRICS`.
        rows: their names, in the paper's order.
        values: for each row the metric of every seed.
        mean, difference: (rows,), over seeds.
        low, high: (rows,) Dunnett's simultaneous 95 % interval of the difference, for another
            training on the same images; over all cells of the ledger together.
        image_low, image_high: (rows,) the same for other validation images too, row by row; of
            top-1 only.
        paper: (rows,) the paper's top-1; ``versions_of_paper``: which version prints it.
        parameters, macs: (rows,) of the trained network, at the size it was trained for.
        deviation: pooled standard deviation of one training, ``freedom`` its degrees of freedom.
        independent: what it would be, were errors independent between images; of top-1 only.
        verdicts: of this table's claims, see `AblationSummary`; Holm's correction is over the
            claims of all tables.
    """

    table: str
    title: str
    reference: str
    ledger: str
    about: str
    metric: str
    rows: list[str]
    values: list[list[float]]
    mean: np.ndarray
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    image_low: np.ndarray
    image_high: np.ndarray
    paper: np.ndarray
    versions_of_paper: list[str]
    parameters: np.ndarray
    macs: np.ndarray
    deviation: float
    freedom: int
    independent: float
    verdicts: list[dict[str, Any]]

    @property
    def paper_difference(self) -> np.ndarray:
        """(rows,) the paper's differences to the reference row, in points of top-1."""
        return self.paper - self.paper[self.rows.index(self.reference)]

    @property
    def seeds(self) -> list[int]:
        """How often each row was trained."""
        return [len(values) for values in self.values]

    def _difference(self, row: int, digits: int) -> str:
        value = _shown(self.difference[row], digits, "+")
        return f"{value} {_interval(self.low[row], self.high[row], digits)}".strip()

    def records(self) -> list[dict[str, Any]]:
        """A row for each of the table's, with everything that is known of it."""
        names = [
            *("mean", "difference", "low", "high", "image_low", "image_high"),
            *("paper", "parameters", "macs"),
        ]
        columns = [getattr(self, name).tolist() for name in names]
        rows = zip(self.rows, self.seeds, *columns, strict=True)
        return [dict(zip(("row", "seeds", *names), row, strict=True)) for row in rows]

    @property
    def new_images(self) -> str:
        """The intervals for other validation images too, a line a row that has one."""
        there = np.flatnonzero(np.isfinite(self.image_low))
        if not len(there):
            return "95 % for new images: of top-1 only, and of rows that were trained"
        rows = [(self.table, "95 % for new images")]
        rows += [(self.rows[i], _interval(self.image_low[i], self.image_high[i], 2)) for i in there]
        return aligned(rows, "lr")

    @property
    def noise(self) -> str:
        """The spread of one training in words, and what the paper shows of its own."""
        printed = " and as ".join(f"{top1:.2f}" for top1 in paper_repeats())
        paper = f"the paper prints one network as {printed}"
        if not self.freedom:
            return f"spread of one training: unknown, as no network was trained twice\n{paper}"
        points = self.metric == "top1"
        said = f"spread of one training: {_shown(self.deviation, 2 if points else 4)} "
        said += "points of top-1" if points else "nats"
        said += f" (standard deviation, {self.freedom} degrees of freedom)"
        if not points:
            return said
        alone = f"were errors independent between images: {_shown(self.independent, 2)}"
        return f"{said}\n{alone}\n{paper}"

    def __str__(self) -> str:
        unit = "top-1, %" if self.metric == "top1" else "loss, nats"
        digits = 2 if self.metric == "top1" else 3
        head = [self.table, "seeds", unit, "difference, 95 %", "paper", "diff.", "params, M",
                "MMACs"]  # fmt: skip
        lines = [
            [
                name,
                len(self.values[i]) or "",
                _shown(self.mean[i], digits),
                self._difference(i, digits),
                _shown(self.paper[i], 2),
                _shown(self.paper_difference[i], 2, "+"),
                f"{self.parameters[i] / 1e6:.2f}" if self.parameters[i] else "",
                f"{self.macs[i] / 1e6:.1f}" if self.macs[i] else "",
            ]
            for i, name in enumerate(self.rows)
        ]
        judged = [f"{one['word']}: {verdict_line(one, digits)}" for one in self.verdicts]
        return "\n".join([f"{self.title} ({self.about})", aligned([head, *lines], "lr"), *judged])

    def plot(self, seeds: bool = True) -> Chart:
        """Ours and the paper's differences to the reference row on one scale, and the verdicts.

        The paper's are of top-1 and are left out beside a loss.

        Args:
            seeds: draw every single training as well.
        """
        from ..viz.ablation import differences as draw

        points = self.metric == "top1"
        digits = 2 if points else 3
        here = self.rows.index(self.reference)
        trained = [len(values) > 0 for values in self.values]
        singles = [
            np.array(values) - self.mean[here] if seeds else np.array([]) for values in self.values
        ]
        columns = {
            "top-1, %" if points else "loss": [_shown(v, digits) for v in self.mean],
            "seeds": [str(n or "") for n in self.seeds],
            "params, M": [f"{n / 1e6:.2f}" if n else "" for n in self.parameters],
            "MMACs": [f"{n / 1e6:.1f}" if n else "" for n in self.macs],
        }
        what = "points of top-1, more is better" if points else "nats of loss, less is better"
        return draw(
            self.rows,
            self.difference,
            self.low,
            self.high,
            self.paper_difference if points else np.full(len(self.rows), np.nan),
            title=f"{self.title}\n{self.about}",
            xlabel=f"difference to {self.reference!r}: {what}",
            text=f"{self.title}, {sum(trained)} of {len(trained)} rows trained; "
            + "; ".join(
                f"{name} {_shown(self.difference[i], digits, '+')}".strip()
                for i, name in enumerate(self.rows)
                if trained[i] and i != here
            ),
            seeds=[one[np.isfinite(one)] for one in singles],
            reference=here,
            columns=columns,
            verdicts=[(one["word"], verdict_line(one, digits)) for one in self.verdicts],
        )


def verdict_line(one: dict[str, Any], digits: int = 2) -> str:
    """A claim with the figures that its verdict stands on."""
    if one["word"] == "not judged":
        return str(one["claim"])
    interval = _interval(one["low"], one["high"], digits)
    found = f"{one['claim']}: {_shown(one['estimate'], digits, '+')} {interval}"
    if one["word"] != "not resolved":
        return found
    return f"{found}; resolvable: {_shown(one['resolvable'], digits)}"


@dataclass(frozen=True, eq=False)
class AblationSummary(Records, Result):
    """All claims of the tables as a ledger judges them, and its order of rows beside the paper's.

    Attributes:
        ledger, about, metric: as in `AblationResult`.
        verdicts: for each claim its ``table``, ``claim``, ``source``, ``margin``; ``estimate``,
            ``low``, ``high``, ``p``, ``p_holm``, ``word`` and ``resolvable`` of a
            `statistics.Verdict`, in a form of which more speaks for the claim; ``paper``: the same
            difference of the paper's top-1. The word is "not judged" and figures are NaN where a
            row was not trained, no cell has two seeds, or a margin in points is asked of a loss.
        tau, tau_low, tau_high, p: pooled Kendall's tau-b with the rows that v1 prints, its 95 %
            interval over seeds, and the share of permutations within tables that agree as well.
        ceiling: (low, mean, high) of the tau that our noise would allow, were the paper's
            differences the truth here. All of these are NaN where fewer than two rows of a table
            were trained, and the intervals also where nothing was trained twice.
        compared: how many rows the tau is over.
    """

    ledger: str
    about: str
    metric: str
    verdicts: list[dict[str, Any]]
    tau: float
    tau_low: float
    tau_high: float
    p: float
    ceiling: tuple[float, float, float]
    compared: int

    def records(self) -> list[dict[str, Any]]:
        """A row for each claim, see ``verdicts``."""
        return [dict(one) for one in self.verdicts]

    @property
    def counts(self) -> dict[str, int]:
        """{verdict: how many claims}."""
        words = [one["word"] for one in self.verdicts]
        return {word: words.count(word) for word in WORDS}

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {word}" for word, count in self.counts.items())
        lines = [f"{len(self.verdicts)} claims ({self.about})", counts]
        if self.compared > 2 and np.isnan(self.tau):  # of two rows the order is a coin
            lines.append("order of the rows: not judged, they all came out equal")
        elif self.compared > 2 and np.isnan(self.tau_low):
            lines.append(
                f"order of {self.compared} rows against the paper's: tau {self.tau:.2f}, "
                f"p = {self.p:.3f}; its noise is unknown, as no network was trained twice"
            )
        elif self.compared > 2:
            low, mean, high = self.ceiling
            lines.append(
                f"order of {self.compared} rows against the paper's: tau {self.tau:.2f} "
                f"[{self.tau_low:.2f}, {self.tau_high:.2f}], p = {self.p:.3f}\nthis noise would "
                f"allow {mean:.2f} [{low:.2f}, {high:.2f}]"
            )
        return "\n".join(lines)

    @property
    def apart(self) -> list[str]:
        """Claims of which our interval, each claim's own, excludes the paper's difference."""
        return [
            one["claim"]
            for one in self.verdicts
            if one["paper"] < one["low"] or one["paper"] > one["high"]
        ]

    @property
    def unresolved(self) -> str:
        """What is not resolved, and how many times as many trainings of every network would do.

        *times for ours* (or the paper's) many trainings would confirm a claim in 80 of 100
        experiments if the truth were what we found (or what the paper prints), had it been the
        only question. There is none where that speaks against the claim.
        """
        head = ("claim", "ours", "resolvable", "times for ours", "paper", "times for the paper's")
        rows = [
            (
                one["claim"],
                _shown(one["estimate"], 2, "+"),
                _shown(one["resolvable"], 2),
                _times(one["resolvable"], one["estimate"] + one["margin"]),
                _shown(one["paper"], 2, "+"),
                _times(one["resolvable"], one["paper"] + one["margin"]),
            )
            for one in self.verdicts
            if one["word"] == "not resolved"
        ]
        return (
            aligned([head, *rows], "lr") if rows else "every claim that can be judged is resolved"
        )

    def plot(self) -> Figure:
        """Every claim as the difference that speaks for it, ours and the paper's."""
        from ..viz.ablation import differences as draw

        def column(name: str) -> np.ndarray:
            return np.array([one[name] for one in self.verdicts], dtype=float)

        points = self.metric == "top1"
        what = "points of top-1" if points else "nats of loss"
        return draw(
            [one["claim"] for one in self.verdicts],
            column("estimate"),
            column("low"),
            column("high"),
            column("paper") if points else np.full(len(self.verdicts), np.nan),
            title=f"All claims\n{self.about}",
            xlabel=f"{what} in favour of the claim",
            text=str(self),
            columns={"verdict": [one["word"] for one in self.verdicts]},
        )


# ------------------------------------------------------------------ reading


def ledgers() -> list[str]:
    """Names of the ledgers of trained networks that come with hirelab, sorted."""
    return sorted(path.parent.name for path in _shipped().glob(f"*/{PROTOCOL}"))


def paper_repeats() -> list[float]:
    """The figures of the one network that the paper prints with two: its only sign of noise."""
    figures: dict[Cell, list[float]] = {}
    for table in find_tables():
        for row in table.rows:
            if row.top1 is not None:
                figures.setdefault(row.cell, []).append(row.top1)
    (found,) = (sorted(set(one)) for one in figures.values() if len(set(one)) > 1)
    return found


def _shipped() -> Path:
    return data_folder("results") / "ablations"


def table_diagnoses(
    table: str, rows: Sequence[str] = (), ledger: str | Path = DIAGNOSTICS
) -> list[Diagnosis]:
    """What the cells of a table can reach, and what was learnt of it; see `diagnostics`.

    Args:
        rows: their names; all of the table without.
        ledger: folder of a ledger of diagnostics; that of hirelab by default. Where it lacks a
            training there is the bound alone.

    Raises:
        HirelabError: an unknown table or row, or no such folder.
    """
    check_choice("ablation table", table, tables())  # of peers nothing is known
    found = tables()[table]
    folder = _shipped() / DIAGNOSTICS if ledger == DIAGNOSTICS else Path(ledger)
    if ledger != DIAGNOSTICS and not folder.is_dir():
        raise HirelabError(f"There is no folder {folder}; give one with a ledger of diagnostics.")
    entries = Ledger(folder).read()[0]
    names = [rows] if isinstance(rows, str) else rows
    chosen = [found.row(name) for name in names] or found.rows
    return [diagnosis_of(row.cell, entries) for row in chosen]


@dataclass(frozen=True, eq=False)
class Runs:
    """The finished runs of a ledger, by cell, each cell's by seed."""

    folder: Path
    about: str
    model: str
    entries: dict[Cell, list[Entry]]

    def samples(self, metric: str) -> dict[str, list[float]]:
        """{cell: metric of every seed}, in a form of which more is better."""
        sign = 1.0 if metric == "top1" else -1.0
        return {
            str(cell): [sign * float(getattr(entry, metric)) for entry in entries]
            for cell, entries in self.entries.items()
        }


def read_runs(ledger: str | Path) -> Runs:
    """The finished runs of a ledger by its name, or of a folder.

    Raises:
        HirelabError: there is none, or none of it came to its end.
    """
    if not isinstance(ledger, str | Path):
        raise HirelabError(f"ledger is {ledger!r}; give the name or the folder of one.")
    folder = Path(ledger)
    if not (folder / PROTOCOL).exists():
        known = ledgers()
        if str(ledger) not in known:
            if folder.is_dir():
                raise HirelabError(
                    f"{folder} has no {PROTOCOL}: it is no ledger of trained networks; "
                    "`hirelab ablate --ledger` makes one."
                )
            cure = f"There are {', '.join(known) or 'none'}; or give the folder of one."
            raise HirelabError(unknown("ledger", str(ledger), known, cure))
        folder = _shipped() / str(ledger)
    shared = read_protocol(folder)
    assert shared is not None
    found, _ = Ledger(folder).read()
    done: dict[tuple[str, str], list[Entry]] = {}
    for entry in sorted(found, key=lambda one: one.key.seed):
        if entry.status == "done":
            name = (entry.key.model, _text(entry.key.arguments))
            done.setdefault(name, []).append(entry)
    model = shared["model"]
    entries = {
        cell: done[name]
        for cell in cells(find_tables(("all",), model))  # in an order that is always the same
        if (name := (cell.model or model, _text(dict(cell.arguments)))) in done
    }
    if not entries:
        raise HirelabError(f"No run of {folder} has come to its end; `hirelab ablate` trains them.")
    counts = {entry.images for found in entries.values() for entry in found}
    if len(counts) > 1:
        raise HirelabError(
            f"The runs of {folder} answered different numbers of images ({sorted(counts)}), which "
            "cannot be compared; take out those that are not of its data."
        )
    recipe = Recipe(**shared["recipe"])  # what it does not say is the paper's
    about = (
        f"{model} on {Path(shared['data']).stem} at {recipe.img_size} px, {recipe.epochs} epochs"
    )
    return Runs(folder, about, model, entries)


def _text(arguments: Any) -> str:
    """Arguments as JSON gives them back, lists for tuples, in one order."""
    return repr(sorted((k, _listed(v)) for k, v in arguments.items()))


def _listed(value: Any) -> Any:
    return [_listed(one) for one in value] if isinstance(value, (list, tuple)) else value


def ablation_table(
    table: str, ledger: str | Path | Runs = "imagenette-cpu", metric: str = "top1"
) -> AblationResult:
    """A table of the paper beside what the runs of a ledger say.

    Args:
        table: region, shift, padding, components, cross_region, fc_layers, fusion or peers.
        ledger: one of `ledgers`, the folder of one, or what `read_runs` read of it.
        metric: "top1" or "loss".

    Raises:
        HirelabError: an unknown table, ledger or metric; no run that came to its end.
    """
    check_choice("metric", metric, METRICS)
    runs = ledger if isinstance(ledger, Runs) else read_runs(ledger)
    found = _table(table, runs.model)
    samples = runs.samples(metric)
    sign = 1.0 if metric == "top1" else -1.0
    reference = found.row(found.reference).cell
    count = len(found.rows)
    columns: dict[str, Any] = {
        name: np.full(count, np.nan)
        for name in ("mean", "difference", "low", "high", "image_low", "image_high")
    }
    pooled = pool(samples)
    simultaneous = {}
    if pooled.freedom and str(reference) in samples:
        simultaneous = {one.name: one for one in differences(samples, str(reference))}
    answers = {cell: _answers(entries) for cell, entries in runs.entries.items()}
    excess = excess_spread(list(answers.values()))
    sizes = np.zeros((2, count), dtype=np.int64)
    for i, row in enumerate(found.rows):
        if row.cell not in runs.entries:
            continue
        first = runs.entries[row.cell][0]
        sizes[:, i] = first.parameters, first.macs
        columns["mean"][i] = sign * pooled.means[str(row.cell)]
        if reference not in runs.entries:
            continue
        here, there = pooled.means[str(row.cell)], pooled.means[str(reference)]
        columns["difference"][i] = sign * (here - there) + 0.0  # no -0.0
        if one := simultaneous.get(str(row.cell)):
            ends = sorted((sign * one.low, sign * one.high))
            columns["low"][i], columns["high"][i] = ends
        if metric == "top1" and row.cell != reference and pooled.freedom:
            columns["image_low"][i], columns["image_high"][i] = difference_over_images(
                answers[row.cell], answers[reference], excess
            )
    return AblationResult(
        table=found.name,
        title=found.title,
        reference=found.reference,
        ledger=runs.folder.name,
        about=runs.about,
        metric=metric,
        rows=[row.name for row in found.rows],
        values=[[sign * v for v in samples.get(str(row.cell), [])] for row in found.rows],
        paper=np.array([np.nan if row.top1 is None else row.top1 for row in found.rows]),
        versions_of_paper=[row.version for row in found.rows],
        parameters=sizes[0],
        macs=sizes[1],
        deviation=pooled.deviation,
        freedom=pooled.freedom,
        independent=_independent(list(answers.values())) if metric == "top1" else float("nan"),
        verdicts=[one for one in _verdicts(runs, metric) if one["table"] == found.name],
        **columns,
    )


def ablation_summary(
    ledger: str | Path = "imagenette-cpu", metric: str = "top1"
) -> AblationSummary:
    """All contrasts of all tables that a ledger can judge, and the agreement of ranks.

    Raises:
        HirelabError: as `ablation_table`.
    """
    check_choice("metric", metric, METRICS)
    runs = read_runs(ledger)
    order, compared = _order(runs, metric)
    return AblationSummary(
        ledger=runs.folder.name,
        about=runs.about,
        metric=metric,
        verdicts=_verdicts(runs, metric),
        tau=float(order.tau),
        tau_low=order.low,
        tau_high=order.high,
        p=order.p,
        ceiling=order.ceiling,
        compared=compared,
    )


def _table(name: str, model: str) -> AblationTable:
    known = {table.name: table for table in find_tables(("all",), model)}
    check_choice("ablation table", name, known)
    return known[name]


def _answers(entries: Sequence[Entry]) -> np.ndarray:
    """(seeds, images) bool: what each network got right."""
    return np.stack([entry.answers for entry in entries])


def _independent(answers: Sequence[np.ndarray]) -> float:
    """`independent_spread`, pooled over the cells that were trained twice."""
    several = [one for one in answers if len(one) > 1]
    if not several:
        return float("nan")
    weights = [len(one) - 1 for one in several]
    squares = [independent_spread(one) ** 2 for one in several]
    return float(np.sqrt(np.average(squares, weights=weights)))


def _verdicts(runs: Runs, metric: str) -> list[dict[str, Any]]:
    """Every contrast of every table; those that can be judged are corrected together."""
    samples = runs.samples(metric)
    every = [
        (table, contrast)
        for table in find_tables(("all",), runs.model if runs.model in PEERS else "")
        for contrast in table.contrasts
    ]
    # rows of several tables are one cell
    by_cell = {
        at: dataclasses.replace(
            contrast,
            weights={str(table.row(name).cell): w for name, w in contrast.weights.items()},
        )
        for at, (table, contrast) in enumerate(every)
    }
    asked = {
        at: contrast
        for at, contrast in by_cell.items()
        # a margin in points means nothing for a loss
        if set(contrast.weights) <= set(samples) and not (contrast.margin and metric == "loss")
    }
    found = {}
    if asked and pool(samples).freedom:
        judged = verdicts(list(asked.values()), samples)
        found = dict(zip(asked, judged, strict=True))
    own = ("estimate", "low", "high", "p", "p_holm", "word", "resolvable")
    nothing = dict.fromkeys(own, float("nan")) | {"word": "not judged"}
    return [
        {
            "table": table.name,
            "claim": contrast.claim,
            "source": contrast.source,
            "margin": contrast.margin,
            "paper": _of_paper(table, contrast),
            **({name: getattr(found[at], name) for name in own} if at in found else nothing),
        }
        for at, (table, contrast) in enumerate(every)
    ]


def _of_paper(table: AblationTable, contrast: Contrast) -> float:
    """The contrast of the paper's figures; NaN where it prints none."""
    figures = {name: table.row(name).top1 for name in contrast.weights}
    return sum(
        float("nan") if figures[name] is None else weight * float(figures[name] or 0)
        for name, weight in contrast.weights.items()
    )


def _order(runs: Runs, metric: str) -> tuple[Agreement, int]:
    """The agreement with v1 over the tables of which two rows or more were trained."""
    samples = runs.samples(metric)
    paper = []
    for table in find_tables():
        rows: list[Row] = [
            row for row in table.rows if row.top1 is not None and str(row.cell) in samples
        ]
        if len(rows) > 1:
            paper.append({str(row.cell): float(row.top1 or 0) for row in rows})
    if not paper:
        nothing = float("nan")
        return Agreement(nothing, nothing, nothing, nothing, (nothing,) * 3), 0
    return agreement(paper, samples), sum(map(len, paper))


def _shown(value: float, digits: int, sign: str = "") -> str:
    return "" if np.isnan(value) else f"{value:{sign}.{digits}f}"


def _times(resolvable: float, effect: float) -> str:
    """How many times as many trainings would resolve an effect: errors fall with their root."""
    return f"{(resolvable / effect) ** 2:,.1f}" if effect > 0 else ""


def _interval(low: float, high: float, digits: int) -> str:
    return "" if np.isnan(low) else f"[{low:+.{digits}f}, {high:+.{digits}f}]"
