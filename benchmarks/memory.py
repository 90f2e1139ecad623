"""Memory over hours: what 2,000 moves of every explorer and 1,000 calls of what measures leave.

Each subject in a process of its own, one after another: an explorer with its live view open, one of
whose settings after another is drawn among the possible ones, and every measurement of a network
(hire_mlp_atto at 64 px, so that it ends). Memory is the anonymous part of the
process's resident set. Its first tenth is
warm-up; then come the least-squares slope of all that follows, that of its last half (what fills a
bounded cache grows at first and not at last), and the growth in all. Beside it what is left behind:
figures, hooks and tensors that live after a full collection, at the end against the end of the
warm-up. A subject stops early when its time is over, and the table says how far it came. A run that
was interrupted goes on the same day: what is known is kept in runs/memory.

By hand, with fewer: `python benchmarks/memory.py --moves 50 --calls 20 ShiftExplorer grad_cam`.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import itertools
import json
import multiprocessing
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _report import report, table
from torch import nn

import hirelab as hl
from hirelab import widgets
from hirelab._shared.errors import HirelabError
from hirelab._shared.files import project_folder, write_atomic
from hirelab._shared.tables import table as text_table
from hirelab.analysis import answers, cost, cost_growth, growth, pairs, pyramid, reach
from hirelab.analysis.attribution import METHODS
from hirelab.dense.predictions import stage_maps
from hirelab.widgets.controls import Choice, Toggle

MOVES, CALLS, SECONDS = 2000, 1000, 400.0
WARM_UP = 0.1
SAMPLES = 40
"""Readings of the resident set over a whole run, each after a full collection: garbage that waits
for one makes it rise and fall by tens of MB."""

SIDE = 64
GROWS = 1.0
"""KB a turn, over the last half, above which a subject is said to grow."""


# ------------------------------------------------------------------ what is turned over

Turn = Callable[[], object]


def network() -> hl.models.HireMLP:
    return hl.create("hire_mlp_atto.imagenette", pretrained=True)


def images(count: int = 2) -> torch.Tensor:
    """Photographs of which the network says different things, as patching asks."""
    x, _ = hl.samples(None, SIDE)
    with torch.no_grad():
        said = network()(x).argmax(1)
    other = next(i for i in range(len(x)) if said[i] != said[0])
    return x[[0, other]][:count]


def explorer(name: str) -> widgets.Explorer:
    """An explorer, small: of the small network at `SIDE` where it runs one."""
    cls = getattr(widgets, name)
    if name in ("BlockExplorer", "NetworkExplorer", "ReceptiveFieldExplorer"):
        return cls(network(), "cat", SIDE)
    if name == "AttributionExplorer":
        return cls(network(), "cat", img_size=SIDE)
    if name == "DenseExplorer":
        return cls(small_segmenter(), hl.datasets.images.open_image("cat").resize((SIDE, SIDE)))
    return cls()


def small_segmenter() -> nn.Module:
    return hl.segmenter("fpn", "hire_mlp_atto", 3, seed=0).eval()


def small_detector() -> nn.Module:
    sizes = {"min_size": SIDE, "max_size": SIDE}
    return hl.detector("mask_rcnn", "hire_mlp_atto", 2, seed=0, **sizes).eval()


def moves(name: str) -> Turn:
    """Moves an explorer whose live view is open to settings that are drawn."""
    one, draw = explorer(name), random.Random(0)
    assert one.widget is not None  # opens the live view

    def turn() -> None:
        while True:
            controls = one.controls
            setting = draw.choice(list(controls))
            wanted = one.fit({setting: drawn(controls[setting], draw)})
            if one.problem(wanted) is None:
                break
        one.set(**vars(wanted))

    return turn


def drawn(control: Any, draw: random.Random) -> Any:
    """One of the values that a control can take."""
    if isinstance(control, Toggle):
        return draw.random() < 0.5
    if isinstance(control, Choice):
        return draw.choice(control.options)
    return draw.randint(control.low, control.high)


def opened(name: str) -> Turn:
    """Makes an explorer, shows it, closes it."""

    def turn() -> None:
        one = explorer(name)
        assert one.widget is not None
        one.close()

    return turn


def with_model(action: Callable[[Any, torch.Tensor], object], count: int = 2) -> Callable[[], Turn]:
    """A measurement of one network on the same images, again and again."""

    def make() -> Turn:
        model, x = network(), images(count)
        return lambda: action(model, x)

    return make


def edited(model: Any, x: torch.Tensor) -> None:
    edits = {
        "stages.0.out": hl.edit.scale(0.5),
        "stages.1.blocks.0.hire.gate": hl.edit.fix(width=0),
    }
    with torch.no_grad(), model.edits(edits):
        model(x)


def rearranged(model: Any, x: torch.Tensor) -> None:
    model.set_rearrangement(shift=1)
    with torch.no_grad():
        model(x)
    model.set_rearrangement(shift=2)


def saved_and_loaded(model: Any, x: torch.Tensor) -> None:
    found = hl.provenance(model, (0, 0), img_size=SIDE)
    with tempfile.TemporaryDirectory() as folder:
        found.save(Path(folder) / "one.npz")
        type(found).load(Path(folder) / "one.npz")


def weights_loaded(model: Any, x: torch.Tensor) -> None:
    with tempfile.TemporaryDirectory() as folder:
        torch.save(model.state_dict(), Path(folder) / "one.pt")
        hl.load(Path(folder) / "one.pt")


def plotted(model: Any, x: torch.Tensor) -> None:
    hl.grad_cam(model, x).plot()
    hl.receptive_field(model, x).plot()


def faithful(model: Any, x: torch.Tensor) -> None:
    found = hl.grad_cam(model, x)
    hl.deletion_insertion(model, x, found, steps=4)
    hl.pointing_game(found, np.array([[8, 8, 40, 40]] * len(x)), draws=10)


def compared(model: Any, x: torch.Tensor) -> None:
    one, other = (hl.receptive_field(model, x, f"stages.{i}.out") for i in (1, 2))
    hl.compare_fields({"one": one, "other": other})
    pairs.paired_differences({"pair": (one, other)}, "half-mass side")


def counted(model: Any, x: torch.Tensor) -> None:
    cost.network_cost(model, SIDE)
    cost.block_parts(model, 0, 0, SIDE)
    pyramid.pyramid(model, SIDE)
    reach.reach_growth(16, 4, 2, 2)


def translated(model: Any, x: torch.Tensor) -> None:
    found = hl.translation_sensitivity(model, x, 32, (1, 4))
    hl.compare_translations({"one": found, "other": found})


def dense(make: Callable[[], nn.Module]) -> Callable[[], Turn]:
    def made() -> Turn:
        model = make()
        image = hl.datasets.images.open_image("cat").resize((SIDE, SIDE))

        def turn() -> None:
            hl.predict(model, image, threshold=0.0)
            stage_maps(model, image)

        return turn

    return made


def focused() -> Turn:
    model, x = small_segmenter(), images(1)

    def turn() -> None:
        pixel = hl.focus(model, (SIDE // 2, SIDE // 2))
        hl.grad_cam(pixel, x)

    return turn


def attributions() -> dict[str, Callable[[], Turn]]:
    """Every method of attribution, the slow ones with few samples."""
    few = {
        "smooth_grad": {"samples": 2},
        "integrated_gradients": {"steps": 2},
        "occlusion": {"window": 32, "stride": 32},
    }
    return {
        f"attribute {name}": with_model(
            lambda m, x, name=name: hl.attribute(m, x, method=name, **few.get(name, {}))
        )
        for name in METHODS
        if name != "grad_cam"
    }


def measurements() -> dict[str, Callable[[], Turn]]:
    """{measurement: what makes one turn of it}."""
    return {
        "run_with_cache": with_model(lambda m, x: m.run_with_cache(x)),
        "points": with_model(lambda m, x: m.points("*", input_size=(3, SIDE, SIDE))),
        "edits": with_model(edited),
        "set_rearrangement": with_model(rearranged),
        "receptive_field": with_model(lambda m, x: hl.receptive_field(m, x)),
        "compare_fields, paired_differences": with_model(compared),
        "field_growth": with_model(lambda m, x: growth.field_growth(m, x), 1),
        "provenance": with_model(lambda m, x: hl.provenance(m, (0, 0), img_size=SIDE)),
        "descendants": with_model(lambda m, x: hl.descendants(m, (9, 9), img_size=SIDE)),
        "grad_cam": with_model(lambda m, x: hl.grad_cam(m, x)),
        **attributions(),
        "deletion_insertion, pointing_game": with_model(faithful),
        "randomisation_check": with_model(
            lambda m, x: hl.randomisation_check(m, x, modules=["head", "stages.3"])
        ),
        "patching": with_model(lambda m, x: hl.patching(m, x, x.flip(0), "stages.*.out")),
        "patching_by_place": with_model(
            lambda m, x: hl.patching_by_place(m, x, x.flip(0), "stages.3.out")
        ),
        "suggest_target_layer": with_model(lambda m, x: hl.suggest_target_layer(m, x)),
        "first_answers": with_model(lambda m, x: answers.first_answers(m, x, 3)),
        "translation_sensitivity": with_model(translated),
        "deploy": with_model(lambda m, x: hl.deploy(m)(x)),
        "strided_branch": with_model(
            lambda m, x: hl.strided_branch(m.stages[0].blocks[0].hire.height)
        ),
        "network_cost, block_parts, pyramid, reach_growth": with_model(counted),
        "cost_growth": with_model(lambda m, x: cost_growth.cost_growth(["hire_mlp_atto"], [SIDE])),
        "kin_reach": with_model(lambda m, x: hl.kin_reach(("Hire-MLP-S", "Swin-T"))),
        "save, load of a result": with_model(saved_and_loaded),
        "load of weights": with_model(weights_loaded),
        "plot": with_model(plotted),
        "predict, segmenter": dense(small_segmenter),
        "predict, detector": dense(small_detector),
        "focus": focused,
        "samples": lambda: lambda: hl.samples(2, SIDE),
        "an explorer opened and closed": lambda: opened("ShiftExplorer"),
        "an explorer of a network opened and closed": lambda: opened("BlockExplorer"),
    }


def subjects(moved: int, called: int) -> Iterator[tuple[str, Callable[[], Turn], int]]:
    """(name, what makes its turn, how many turns)."""
    for name in widgets.__all__:
        if name != "Explorer":
            yield name, lambda name=name: moves(name), moved
    for name, make in measurements().items():
        yield name, make, called


# ------------------------------------------------------------------ what it leaves


@dataclass(frozen=True)
class Left:
    """What a subject left behind.

    Attributes:
        turns: how many were made; ``wanted``: of how many.
        slope, last: KB a turn, after the warm-up and over its last half.
        grown: MB, from the end of the warm-up to the end.
        figures, hooks, tensors: how many more live at the end than at the end of the warm-up.
        fault: why it ended, "" where it came to its end.
    """

    turns: int
    wanted: int
    slope: float = float("nan")
    last: float = float("nan")
    grown: float = float("nan")
    figures: int = 0
    hooks: int = 0
    tensors: int = 0
    fault: str = ""

    @property
    def grows(self) -> bool:
        """Whether more turns leave more behind."""
        more = self.slope > GROWS and self.last > GROWS
        return bool(self.fault) or more or max(self.figures, self.hooks) > 0


def resident() -> float:
    """The anonymous part of this process's resident set, in KB: without the pages of files (code of
    libraries, weights), which the machine brings and drops as it likes."""
    found = re.search(r"RssAnon:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return float(found[1])


def living() -> tuple[int, int, int]:
    """Figures, hooks on modules, and tensors that live after a full collection."""
    gc.collect()
    figure = getattr(sys.modules.get("matplotlib.figure"), "Figure", ())
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    figures = hooks = tensors = 0
    for one in gc.get_objects():
        kind = type(one)  # isinstance would ask lazy objects for their class
        figures += issubclass(kind, figure)
        tensors += issubclass(kind, torch.Tensor)
        if issubclass(kind, nn.Module):
            hooks += sum(len(vars(one).get(name, ())) for name in kinds)
    return figures, hooks, tensors


def turned(turn: Turn, wanted: int, seconds: float) -> Left:
    """Take a turn again and again and see what stays.

    The warm-up ends, and a reading is due, by turns, or by time where that is over first.
    """
    start = time.process_time()  # whoever stops the process takes no time from it
    seen: list[tuple[int, float]] = []
    before, warm, read_at, read = (0, 0, 0), False, start, 0
    done = 0
    while done < wanted and (time.process_time() < start + seconds or len(seen) < 3):
        turn()
        done += 1
        now = time.process_time()
        if not warm and (done >= WARM_UP * wanted or now > start + WARM_UP * seconds):
            warm, before = True, living()
        due = done - read >= wanted / SAMPLES or now - read_at > seconds / SAMPLES
        if warm and (due or not seen or done == wanted):
            gc.collect()
            seen.append((done, resident()))
            read_at, read = time.process_time(), done
    more = (now - then for now, then in zip(living(), before, strict=True))
    half = seen[len(seen) // 2 :]
    grown = (seen[-1][1] - seen[0][1]) / 1024
    return Left(done, wanted, slope_of(seen), slope_of(half), grown, *more)


def slope_of(seen: Sequence[tuple[int, float]]) -> float:
    """KB a turn; NaN for fewer than two readings."""
    return float(np.polyfit(*zip(*seen, strict=True), 1)[0]) if len(seen) > 1 else float("nan")


def measured(make: Callable[[], Turn], wanted: int, seconds: float) -> Left:
    """What a subject leaves in a process of its own."""
    here, there = multiprocessing.Pipe(duplex=False)

    def work(pipe: Connection) -> None:
        try:
            gc.freeze()  # what was there before is not looked through again and again
            pipe.send(turned(make(), wanted, seconds))
        except Exception as error:
            pipe.send(Left(0, wanted, fault=f"{type(error).__name__}: {error}"))

    process = multiprocessing.get_context("fork").Process(target=work, args=(there,))
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        process.join()
        return Left(0, wanted, fault=f"ended with status {process.exitcode}")
    finally:
        process.join()


# ------------------------------------------------------------------ the table

HEAD = ["", "turns", "KB a turn", "of the last half", "MB in all", "figures", "hooks", "tensors"]


def cells(name: str, left: Left) -> list[str]:
    """A subject's row."""
    few = "" if left.turns == left.wanted else f" of {left.wanted:,}"
    if left.fault:
        return [name, f"0{few}", left.fault, *[""] * 5]
    mark = " (grows)" if left.grows else ""
    return [
        *(name, f"{left.turns:,}{few}", f"{left.slope:+.2f}", f"{left.last:+.2f}{mark}"),
        *(f"{left.grown:+.1f}", f"{left.figures:+d}", f"{left.hooks:+d}", f"{left.tensors:+d}"),
    ]


def kept(name: str) -> Path:
    """Where today's result of a subject is kept."""
    word = re.sub(r"\W+", "_", name)
    return project_folder("benchmarks").parent / "runs" / "memory" / f"{word}-{date.today()}.json"


def run(names: Sequence[str], moved: int, called: int, seconds: float) -> dict[str, Left]:
    """What every subject leaves, or those named; each is printed when it is known.

    Raises:
        HirelabError: there is no subject of that name.
    """
    every = list(subjects(moved, called))
    known = [name for name, _, _ in every]
    if strange := [name for name in names if name not in known]:
        raise HirelabError(f"There is no {strange[0]!r}; there are {', '.join(known)}.")
    torch.set_num_threads(1)
    found = {}
    for name, make, wanted in every:
        if not names or name in names:
            found[name] = measured(make, wanted, seconds)
            print(text_table([HEAD, cells(name, found[name])]).splitlines()[-1], flush=True)
    return found


def run_or_recall(seconds: float, names: Sequence[str] = ()) -> dict[str, Left]:
    """The same of all subjects, or of those named, in full, and of those alone that are not known
    of today."""
    found = {}
    for name, _, _ in subjects(MOVES, CALLS):
        if names and name not in names:
            continue
        if not kept(name).is_file():
            left = run([name], MOVES, CALLS, seconds)[name]
            write_atomic(kept(name), json.dumps(dataclasses.asdict(left)))
        found[name] = Left(**json.loads(kept(name).read_text()))
    return found


def main(seconds: float = SECONDS) -> None:
    """Measure, print and keep the table."""
    found = run_or_recall(seconds)
    explorers = {n: left for n, left in found.items() if n in widgets.__all__}
    others = {n: left for n, left in found.items() if n not in explorers}
    parts = [
        table([kind, *HEAD[1:]], list(itertools.starmap(cells, some.items())))
        for kind, some in (("moved", explorers), ("called", others))
    ]
    report("memory", "\n\n".join(parts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="explorers and measurements; all by default")
    parser.add_argument("--moves", type=int, default=MOVES)
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="at most, for each of them")
    options = parser.parse_args()
    run(options.names, options.moves, options.calls, options.seconds)
