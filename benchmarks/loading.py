"""Loading: its share of a training step of Hire-MLP-Pico at 64 pixels, goal below 10 %.

CPU, 2 threads, batch 64, in turn in one run: batches read from the cache of decoded squares and
augmented by the recipe `subset`, with and without its RandAugment; the same from the image files;
and a step of the network. The images are those of scikit-image, written as files at 160 pixels.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import torch
from _report import report, table
from _timing import in_turn
from torch.nn import functional

import hirelab as hl
from hirelab.datasets.cache import decode
from hirelab.datasets.images import PHOTOGRAPHS, open_image
from hirelab.datasets.subsets import open_images
from hirelab.datasets.transforms import normalise, square
from hirelab.training.data import AugmentedDataset, EpochSampler, collate
from hirelab.training.recipes import PRESETS, Recipe

RECIPE = dataclasses.replace(PRESETS["subset"], img_size=64, start_img_size=0)
PLAIN = dataclasses.replace(RECIPE, auto_augment="", color_jitter=0.0)


def files(folder: Path) -> Path:
    """Class folders of JPEG files, 70 images: a photograph is a class."""
    for name in PHOTOGRAPHS:
        (folder / "train" / name).mkdir(parents=True)
        for i in range(10):
            small = square(open_image(name).rotate(3 * i), 160)
            small.save(folder / "train" / name / f"{i}.jpg", quality=90)
    return folder


def main() -> None:
    """Measure, print and keep the table."""
    torch.set_num_threads(2)
    model = hl.create("hire_mlp_pico", seed=0).train()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    with tempfile.TemporaryDirectory() as folder:
        images = open_images(files(Path(folder)), "train")
        squares = decode(images, RECIPE.stored_size, Path(folder) / "cache", progress=False)
        keys = next(iter(EpochSampler(len(squares), RECIPE, seed=0)))

        def batch(recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
            dataset = AugmentedDataset(squares, recipe, 0)
            x, y = collate([dataset[key] for key in keys])
            return normalise(x), y

        def from_files() -> None:
            for _, _, index in keys:
                square(open_image(images.read(index)), RECIPE.stored_size)
            batch(RECIPE)

        x, y = batch(RECIPE)

        def step() -> None:
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()

        rounds = in_turn(
            {
                "crop and flip": lambda: batch(PLAIN),
                "crop, flip, RandAugment": lambda: batch(RECIPE),
                "crop, flip, RandAugment, from JPEG files": from_files,
                "training step": step,
            },
            15,
        )
    step_time = rounds.median("training step")
    rows = []
    for name in rounds.seconds:
        time = rounds.median(name)
        share = "" if name == "training step" else f"{100 * time / (time + step_time):.1f}"
        rows.append([name, f"{1000 * time:.0f}", f"{1e6 * time / RECIPE.batch_size:.0f}", share])
    head = ["batch of 64 at 64 px", "ms", "µs per image", "share of loading and step, %"]
    report("loading", table(head, rows))


if __name__ == "__main__":
    main()
