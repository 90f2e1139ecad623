"""What the tests of training share: a recipe and a network of seconds, and runs compared."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from hirelab.training.loop import Run, train
from hirelab.training.recipes import PRESETS, Recipe
from hirelab.training.runs import read_history

NETWORK = {"depths": (1, 1), "dims": (8, 12), "region": 2, "shift": 1, "shift_cycle": 1}
RECIPE = dataclasses.replace(
    PRESETS["quick"],
    epochs=3,
    warmup_epochs=0,
    batch_size=8,
    img_size=32,
    lr=0.01,
    mixup=0.2,
    cutmix=1.0,
)
STEPS = 4  # in an epoch: 36 images, batches of 8


def run(data: Path, out: Path, recipe: Recipe = RECIPE, **kwargs: Any) -> Run:
    return train("hire_mlp_atto", data, recipe, out, model_arguments=NETWORK, seed=3, **kwargs)


def settings(recipe: Recipe) -> list[str]:
    """The recipe and the network as arguments of ``hirelab train --set``."""
    own = [f"{k}={v}" for k, v in dataclasses.asdict(recipe).items() if v != ""]
    return own + [f"model.{k}={v}" for k, v in NETWORK.items()]


def same_weights(a: Path, b: Path) -> None:
    first, second = (load_file(out / "model.safetensors") for out in (a, b))
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def untimed(out: Path) -> list[dict[str, float]]:
    """The rows of a run's history without what the clock says."""
    clocks = ("images_per_second", "seconds")
    return [{k: v for k, v in row.items() if k not in clocks} for row in read_history(out).rows]
