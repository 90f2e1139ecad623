"""Receptive field of 16 images: one backward pass for all, against the usual one an image.

CPU, 1 thread, float32, hire_mlp_tiny at 224 x 224, at its last map; in turn in one run, ratios of
rounds. The usual recipe is that of RepLKNet's published script, restated: images one by one, the
positive activations at the middle of the last map summed, the positive part of the gradient to the
pixels added up. The same map comes out; both do the same multiply-adds, so beside the ratio stands
how many a second each does, and how many torch.mm does on a large product.

Then 200 calls in a row, for what they leave in memory.
"""

from __future__ import annotations

import gc
from functools import partial

import numpy as np
import torch
from _report import report, table
from _timing import in_turn
from torch import Tensor, nn

import hirelab as hl
from hirelab.analysis.cost import count_macs
from hirelab.analysis.receptive_field import receptive_field

IMAGES, GOAL, ROUNDS = 16, 4.0, 5
CALLS = 200


def one_by_one(model: nn.Module, images: Tensor) -> np.ndarray:
    """The usual recipe: a forward and a backward pass for every image, averaged."""
    total = np.zeros(images.shape[2:])
    for image in images:
        pixels = image[None].clone().requires_grad_()
        features = model.forward_features(pixels)
        rows, columns = features.shape[2:]
        middle = features[:, :, rows // 2, columns // 2].relu().sum()
        (gradient,) = torch.autograd.grad(middle, pixels)
        total += gradient.relu().sum((0, 1)).numpy()
    return total / len(images)


def at_once(model: nn.Module, images: Tensor) -> np.ndarray:
    """The same by `receptive_field`."""
    recipe = {"gradient": "relu", "outputs": "positive"}
    return receptive_field(model, images, "features", batch_size=IMAGES, **recipe).map


def product_speed() -> float:
    """Multiply-adds a second of torch.mm, the best of five."""
    one, other = torch.randn(3136, 320), torch.randn(320, 1280)
    seconds = in_turn({"mm": partial(torch.mm, one, other)}, rounds=5).seconds["mm"]
    return 3136 * 320 * 1280 / seconds.min()


def growth() -> tuple[int, int]:
    """Tensors, and objects of Python, more after 200 calls than after 20."""
    model = hl.create("hire_mlp_atto", seed=0)
    images = torch.randn(2, 3, 32, 32)

    def held() -> tuple[int, int]:
        gc.collect()
        things = gc.get_objects()
        return sum(issubclass(type(thing), Tensor) for thing in things), len(things)

    before = (0, 0)
    for call in range(CALLS):
        receptive_field(model, images, "stages.3.out", paths="spatial")
        if call == 20:
            before = held()
    after = held()
    return after[0] - before[0], after[1] - before[1]


def main() -> None:
    """Measure, print and keep the table."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = hl.create("hire_mlp_tiny", seed=0)
        images = torch.randn(IMAGES, 3, 224, 224, generator=torch.manual_seed(0))
        candidates = {
            "one pass per image": partial(one_by_one, model, images),
            "receptive_field": partial(at_once, model, images),
            "receptive_field, deploying first": lambda: at_once(hl.deploy(model), images),
        }
        reference, apart = candidates["one pass per image"](), {}
        for name, run in candidates.items():
            apart[name] = abs(run() - reference).max() / reference.max()
            assert apart[name] < 1e-6, f"{name} is {apart[name]:.1e} apart"
        rounds = in_turn(candidates, ROUNDS)
        meta = torch.empty(1, 3, 224, 224, device="meta")
        macs = count_macs(hl.create("hire_mlp_tiny", device="meta"), meta)
        rows = []
        for name in candidates:
            middle, low, high = rounds.faster(name, "one pass per image")
            goal = f" (goal {GOAL:g})" if name != "one pass per image" and middle < GOAL else ""
            seconds = rounds.median(name)
            rows.append(
                [
                    name,
                    f"{seconds:.2f}",
                    f"{middle:.2f} [{low:.2f}, {high:.2f}]{goal}",
                    f"{2 * macs * IMAGES / seconds / 1e9:.0f}",
                    f"{apart[name]:.0e}",
                ]
            )
        head = ["16 images", "s", "times as fast", "GMAC/s", "largest difference"]
        tensors, objects = growth()
        text = (
            f"{table(head, rows)}\n\ntorch.mm: {product_speed() / 1e9:.0f} GMAC/s. Differences are "
            "shares of the map's largest value. Seconds are medians; "
            f"ratios are of rounds. After {CALLS} calls {tensors} tensors and "
            f"{objects} objects of Python more than after 20."
        )
        report("receptive_field", text)
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    main()
