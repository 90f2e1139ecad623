"""What padding a batch does: how much a network's maps change beside empty canvas.

Networks that were trained alike (Imagenette, 16 epochs at 96 px; the last pair is larger and was
trained longer), 64 of the validation images at 96 px, on a canvas 32 and 96 pixels larger, as
beside larger images in a batch. Each figure is the change in the middle of the map, a quarter of it
away from every border, in percent of the map's own length; of stage 3, whose map has 3 x 3 tokens,
the change of its middle token. *Gates masked*: `hirelab.dense.padding.image_gates`.
"""

from __future__ import annotations

import numpy as np
import torch
from _report import report, table

from hirelab.datasets.transforms import normalise
from hirelab.dense.padding import padding_effect
from hirelab.training.evaluation import validation_images
from hirelab.training.runs import open_network

NETWORKS = {
    "Hire-MLP": "hire_mlp_atto.imagenette",
    "ResNet": "resnet18.imagenette_narrow",
    "Hire-MLP, pico": "hire_mlp_pico.imagenette",
    "pico without exchange": "hire_mlp_pico.imagenette_isolated",
}
PADS = (32, 96)
SIZE = 96
COUNT = 64


def main() -> None:
    """Measure, print and keep the table."""
    opened = {name: open_network(of) for name, of in NETWORKS.items()}
    info = opened["Hire-MLP"][1]
    assert info is not None
    images = validation_images(info)
    start = round((images.pixels.shape[1] - SIZE) / 2)
    inner = slice(start, start + SIZE)
    some = np.linspace(0, len(images) - 1, COUNT).astype(int)
    pixels = np.array(images.pixels[some][:, inner, inner])
    x = normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    rows = []
    for masked in (False, True):
        networks = {
            name: model
            for name, (model, _) in opened.items()
            if not masked or name != "ResNet"  # which has no gates
        }
        found = padding_effect(networks, x, PADS, masked=masked)
        for i, name in enumerate(networks):
            for j, pad in enumerate(PADS):
                shown = f"{name}, gates masked" if masked else name
                middles = [f"{100 * found.middle(i, j, stage):.1f}" for stage in range(4)]
                rows.append([shown, str(pad), *middles])
    head = ["network", "canvas, px", *(f"stage {stage}, %" for stage in range(4))]
    report("padding", table(head, rows))


if __name__ == "__main__":
    main()
