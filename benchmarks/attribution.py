"""Grad-CAM of a batch of 16 images, beside the package grad-cam on the same network and layer.

Both give maps at the images' size for the predicted classes: hirelab's are signed, the package's
normalised. CPU, 1 thread, float32, both in turn in one run, so that a slow moment of the machine
hits both; what counts is the ratio inside a round. The networks are untrained (the time does not
depend on the weights). Checked first: the same maps, once ours are normalised as theirs are.
"""

from __future__ import annotations

import numpy as np
import timm
import torch
from _report import report, table
from _timing import in_turn
from pytorch_grad_cam import GradCAM

import hirelab as hl
from hirelab.analysis.attribution import grad_cam, upsample

BATCH, SIZE, ROUNDS = 16, 224, 5
POINTS = (
    ("hire_mlp_pico", "features"),
    ("hire_mlp_pico", "stages.2.out"),
    ("resnet18", "layer4"),
)


def normalised(maps: np.ndarray) -> np.ndarray:
    """What the package does to a map, (N, h, w), before and after it is resized."""

    def span(values: np.ndarray) -> np.ndarray:
        values = values - values.min((1, 2), keepdims=True)
        return values / (1e-7 + values.max((1, 2), keepdims=True))

    return span(upsample(span(np.maximum(maps, 0)), (SIZE, SIZE)))


def main() -> None:
    """Measure, print and keep the table."""
    torch.set_num_threads(1)
    x, rows = torch.randn(BATCH, 3, SIZE, SIZE, generator=torch.manual_seed(0)), []
    for name, point in POINTS:
        ours = name.startswith("hire_mlp")
        torch.manual_seed(0)
        model = hl.create(name, seed=0) if ours else timm.create_model(name).eval()
        # logits of an untrained network are tiny, and the package adds 1e-7 to a map's largest
        # value: larger ones make the maps comparable
        head = model.get_classifier()
        torch.nn.init.normal_(head.weight, std=10.0)
        mine = normalised(grad_cam(model, x, point=point).maps)
        with GradCAM(model, [model.get_submodule(point)]) as package:
            candidates = {
                "hirelab": lambda m=model, p=point: grad_cam(m, x, point=p).upsampled,
                "grad-cam": lambda c=package: c(x, None),
            }
            if ours:
                folded = hl.deploy(model)
                candidates["deployed"] = lambda m=folded, p=point: grad_cam(m, x, point=p).upsampled
            off = float(np.abs(candidates["grad-cam"]() - mine).max())
            rounds = in_turn(candidates, ROUNDS)
        shown = [
            "{:.2f} [{:.2f}, {:.2f}]".format(*rounds.faster(one, "grad-cam"))
            for one in candidates
            if one != "grad-cam"
        ]
        grid = "{} x {}".format(*grad_cam(model, x[:1], point=point).maps.shape[1:])
        rows.append([name, point, grid, shown[0], *(shown[1:] or [""]), f"{off:.0e}"])
    head = ["network", "point", "map", "times as fast", "deployed", "largest difference"]
    note = (
        f"Batch {BATCH}, {SIZE} px, {ROUNDS} rounds, goal 3 times as fast. Differences are of maps "
        "from 0 to 1."
    )
    report("attribution", "\n".join([table(head, rows), "", note]))


if __name__ == "__main__":
    main()
