"""Accuracy on corrupted images: five kinds in three strengths, the networks bundled for Imagenette.

A thousand of Imagenette's 3,925 validation images, drawn at random and corrupted at 160 x 160 px by
`hirelab.datasets.corruptions`; every network sees the same corrupted images, at its own size. Which
images each gets right is kept in data/results/robustness.npz, for `hl.robustness_results()`. An
interrupted run goes on: every evaluation is kept in runs/robustness.
"""

from __future__ import annotations

import torch
from _report import report, table

from hirelab._shared.files import project_folder
from hirelab.models.pretrained import bundled
from hirelab.training.robustness import KEPT, Robustness, measure_robustness

IMAGES = 1000  # all of them take four times as long
PAIRS = (
    ("hire_mlp_pico.imagenette", "hire_mlp_pico.imagenette_isolated"),
    ("hire_mlp_atto.imagenette", "hire_mlp_atto.imagenette_regions_of_1"),
    ("hire_mlp_atto.imagenette", "resnet18.imagenette_narrow"),
)
"""Trained alike, at one size: what differs is the network."""


def main() -> None:
    """Measure, print and keep the tables, and keep what they are made of."""
    torch.set_num_threads(1)
    networks = [name for name, made in bundled().items() if made["source"] == "imagenette"]
    out = project_folder("benchmarks").parent / "runs/robustness"
    found = measure_robustness(networks, out / f"{IMAGES}-images", n=IMAGES)
    found.save(project_folder("data") / "results" / KEPT)
    report("robustness", "\n\n".join([accuracies(found), differences(found), notes(found)]))


def accuracies(found: Robustness) -> str:
    """Top-1 of each network at each kind and strength."""
    rows = []
    for name, size, own in zip(found.networks, found.img_sizes, found.accuracy, strict=True):
        kinds = [" / ".join(f"{share:.1f}" for share in kind[1:]) for kind in own]
        rows.append([name, str(size), f"{own[0, 0]:.1f}", *kinds, f"{own[:, 1:].mean():.1f}"])
    return table(["top-1, %", "px", "clean", *found.kinds, "mean of the 15"], rows)


def differences(found: Robustness) -> str:
    """Of each pair, the difference on the same images, averaged over the strengths."""
    rows = []
    for pair in PAIRS:
        compared = found.compare(*pair)
        for i, what in enumerate(("corrupted", "corrupted minus clean")):
            ends = zip(compared.mean[i], compared.low[i], compared.high[i], strict=True)
            cells = ["{:+.1f} [{:+.1f}, {:+.1f}]".format(*one) for one in ends]
            rows.append([" minus ".join(pair), what, *cells])
    head = ["difference, points", "of top-1 on images", *found.kinds, "all kinds"]
    return table(head, rows)


def notes(found: Robustness) -> str:
    """What was done, in which strengths, and what the figures do not say."""
    lines = [
        f"{found.clean.shape[1]:,} of the validation images, drawn at random. Differences are "
        "averages over the three strengths, with bootstrap 95 % intervals over the images; each "
        "network is one training, and what another seed would change is not in them.",
        "The corruptions are of ImageNet-C's kinds and neither its files nor its severities. "
        f"Imagenette's images were corrupted at {found.corrupted_size} pixels a side; the copy "
        "that was measured is squashed to squares and compressed as WebP already.",
        *(f"- {kind}: {text}." for kind, text in zip(found.kinds, found.parameters, strict=True)),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
