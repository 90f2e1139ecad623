"""How answers change when the image moves by pixels: the networks bundled for Imagenette.

Twenty validation images of each class of Imagenette, at one and a half times a network's size, of
which it sees squares: the middle one, rolled around the border, and two some pixels apart. What was
measured is kept in data/results/translation.npz (rounded to 0.0001), for
`hl.translation_results()`. An interrupted run goes on: every network's result is kept in
runs/translation.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from _report import report, table
from robustness import PAIRS

import hirelab as hl
from hirelab._shared.files import project_folder
from hirelab.analysis.translation import KEPT, WAYS, TranslationComparison, TranslationSensitivity
from hirelab.models.pretrained import bundled
from hirelab.training.runs import open_network

IMAGES = 200
OFFSETS = (*range(1, 34), 47, 48)  # no stretch has multiples of a stride alone
SHOWN = (1, 4, 10, 16, 48)
STEPS = (4, 8, 16)


def main() -> None:
    """Measure, print and keep the tables, and keep what they are made of."""
    torch.set_num_threads(1)
    networks = [name for name, made in bundled().items() if made["source"] == "imagenette"]
    found = hl.compare_translations({name: measured(name) for name in networks})
    found = replace(found, change=found.change.round(4))
    found.save(project_folder("data") / "results" / KEPT)
    parts = [changes(found), strides(found), differences(found), notes(found)]
    report("translation", "\n\n".join(parts))


def measured(name: str) -> TranslationSensitivity:
    """One network's result, from the folder of the run where it is there already."""
    kept = project_folder("benchmarks").parent / "runs" / "translation" / f"{name}.npz"
    if not kept.is_file():
        model, info = open_network(name)
        assert info is not None
        size = info.config.recipe.img_size
        model = hl.deploy(model) if isinstance(model, hl.models.HireMLP) else model
        x, _ = hl.samples(IMAGES, size * 3 // 2, info.source)
        hl.translation_sensitivity(model, x, size, OFFSETS).save(kept)
    return TranslationSensitivity.load(kept)


def changes(found: TranslationComparison) -> str:
    """Of each network and way, both numbers at some offsets."""
    rows = []
    for name in found.names:
        own = found[name].records()
        for way in WAYS:
            at = {row["offset"]: row for row in own if row["way"] == way}
            cells = [f"{100 * at[d]['change']:.1f} ({100 * at[d]['changed']:.0f})" for d in SHOWN]
            rows.append([name, way, *cells])
    return table(
        ["change of probability (other answers), %", "", *(f"{d} px" for d in SHOWN)], rows
    )


def strides(found: TranslationComparison) -> str:
    """How much more answers change beside multiples of a stride than at them."""
    rows = []
    for name in found.names:
        for way in WAYS:
            effects = (found[name].stride_effect(step)[way] for step in STEPS)
            rows.append([name, way, *map(points, effects)])
    head = ["more change beside than at multiples, points", "", *(f"of {s} px" for s in STEPS)]
    return table(head, rows)


def differences(found: TranslationComparison) -> str:
    """Of each pair of networks, the differences of both tables' numbers, over all offsets."""
    rows = []
    for pair in PAIRS:
        name = " minus ".join(pair)
        apart, stride = found.difference(*pair), found.stride_difference(*pair, STEPS[0])
        answers = found.difference(*pair, of="changed")
        rows.append([name, "mean change", *map(points, apart.values())])
        rows.append([name, "other answers", *map(points, answers.values())])
        rows.append([name, f"beside minus at {STEPS[0]} px", *map(points, stride.values()), ""])
    return table(["difference, points", "of", *apart], rows)


def points(ends: tuple[float, float, float]) -> str:
    """Mean and interval as percentage points."""
    return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*(100 * value for value in ends))


def notes(found: TranslationComparison) -> str:
    """What was done, and what the figures do not say."""
    sizes = ", ".join(f"{n} {s}" for n, s in zip(found.names, found.img_sizes, strict=True))
    return (
        f"{found.change.shape[3]} images moved along the width by {found.offsets[0]} to "
        f"{found.offsets[-1]} pixels of what the network sees (pixels a side: {sizes}). Change "
        "is of the probability of the answer to the unmoved image; intervals are Student's, 95 %, "
        "over the images. Each network is one training, and what another seed would change is not "
        "in them."
    )


if __name__ == "__main__":
    main()
