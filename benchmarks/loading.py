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
from hirelab.datasets.cache import decoded
from hirelab.datasets.samples import PHOTOGRAPHS, open_image, square
from hirelab.datasets.subsets import open_images
from hirelab.training.evaluation import normalised
from hirelab.training.loop import _Augmented, _Order, _together
from hirelab.training.recipes import PRESETS

RECIPE = dataclasses.replace(PRESETS["subset"], size=64, start_size=0)
PLAIN = dataclasses.replace(RECIPE, augment="", color_jitter=0.0)


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
        squares = decoded(images, RECIPE.stored_size, Path(folder) / "cache", progress=False)
        keys = next(iter(_Order(len(squares), RECIPE, seed=0)))
        x, y = _together([_Augmented(squares, RECIPE, 0)[key] for key in keys])

        def load(recipe) -> None:
            data = _Augmented(squares, recipe, 0)
            normalised(_together([data[key] for key in keys])[0])

        def from_files() -> None:
            for _, _, index in keys:
                square(open_image(images.read(index)), RECIPE.stored_size)
            load(RECIPE)

        def step() -> None:
            functional.cross_entropy(model(normalised(x)), y).backward()
            optimizer.step()
            optimizer.zero_grad()

        rounds = in_turn(
            {
                "crop and flip": lambda: load(PLAIN),
                "crop, flip, RandAugment": lambda: load(RECIPE),
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
        rows.append([name, f"{1000 * time:.0f}", f"{1e6 * time / RECIPE.batch:.0f}", share])
    head = ["batch of 64 at 64 px", "ms", "µs an image", "share of loading and step, %"]
    report("loading", table(head, rows))


if __name__ == "__main__":
    main()
