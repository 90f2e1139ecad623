"""What a network does where tokens do not mix: does its gate take over, does it see less far?

Bundled networks on Imagenette's validation images. Top-1 as they are; with every gate saying what
it says on average, the same of every image (`hl.edit.replace`); and with every shift set to 0. The
side is that of the square, around its centroid, with half of the mass of the receptive field of the
last map's middle, over 64 of the images: by every path, and not through the gate. One training of
each network: what another seed would change is not known from one.
"""

from __future__ import annotations

import numpy as np
import torch
from _report import report, table
from torch import Tensor, nn
from tqdm import tqdm

import hirelab as hl
from hirelab.datasets.cache import DecodedImages
from hirelab.datasets.transforms import normalise
from hirelab.training.evaluation import evaluate, validation_images
from hirelab.training.runs import open_network

NETWORKS = (
    "hire_mlp_atto.imagenette",
    "hire_mlp_atto.imagenette_regions_of_1",
    "hire_mlp_pico.imagenette",
    "hire_mlp_pico.imagenette_isolated",
)
BATCH = 128
LOOKED_AT = 64


def main() -> None:
    """Measure, print and keep the table."""
    rows = []
    for name in tqdm(NETWORKS, "networks"):
        model, info = open_network(name)
        assert info is not None
        size = info.config.recipe.img_size
        images = validation_images(info)
        own = evaluate(model, images, size).accuracy(1)
        with model.edits({point: hl.edit.replace(m) for point, m in means(model, images, size)}):
            deaf = evaluate(model, images, size).accuracy(1)
        some = np.linspace(0, len(images) - 1, LOOKED_AT).astype(int)
        x = middle(images, some, size)
        whole, spatial = (
            hl.receptive_field(model, x, paths=paths) for paths in ("full", "spatial")
        )
        model.set_rearrangement(shift=0)
        still = evaluate(model, images, size).accuracy(1)
        sides = (f"{field.half_around_centroid:.0f}" for field in (whole, spatial))
        rows.append(
            [name, f"{own:.1f}", f"{deaf - own:+.1f}", f"{still - own:+.1f}", str(size), *sides]
        )
    head = ["network", "top-1, %", "gate at its mean", "shift 0", "image, px",
            "half-mass side, px", "not through the gate"]  # fmt: skip
    report("compensation", table(head, rows))


def middle(images: DecodedImages, which: np.ndarray, size: int) -> Tensor:
    """(N, 3, size, size): the middles of some images, normalised, as `evaluate` shows them."""
    start = round((images.pixels.shape[1] - size) / 2)
    inner = slice(start, start + size)
    pixels = torch.from_numpy(np.array(images.pixels[which][:, inner, inner]))
    return normalise(pixels.permute(0, 3, 1, 2))


def means(model: nn.Module, images: DecodedImages, size: int) -> list[tuple[str, Tensor]]:
    """What each gate says on average over the images, by point."""
    gates = [point.name for point in model.points("*.gate.out")]
    total = dict.fromkeys(gates, torch.zeros(()))
    for first in range(0, len(images), BATCH):
        which = np.arange(first, min(first + BATCH, len(images)))
        _, cache = model.run_with_cache(middle(images, which, size), gates)
        for name in gates:
            total[name] = total[name] + cache[name].sum(0, keepdim=True)
    return [(name, value / len(images)) for name, value in total.items()]


if __name__ == "__main__":
    main()
