"""What trainings and diagnostics come to, as hashes: run before and after a change of their code.

    python tests/ablation/training_bytes.py

Equal lines allow an entry in `EQUAL` (hirelab/ablation/source.py). It trains the default of the
smoke protocol for two epochs, stopped in between, in float32 and in bfloat16 with mixup and
averaging, and learns one diagnostic of each task.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from pathlib import Path

import torch
from accelerate.state import AcceleratorState

from hirelab.ablation.diagnostics import diagnostic_runs
from hirelab.ablation.protocols import PROFILES
from hirelab.ablation.source import DIAGNOSTIC, TRAINING, code_hash
from hirelab.ablation.tables import DEFAULT
from hirelab.training.loop import train

SETTINGS = {
    "float32": {},
    "bfloat16, mixed and averaged": {"precision": "bf16", "mixup_prob": 0.7, "ema_decay": 0.99},
}
STEPS = 3  # before the stop, inside the first epoch


def trained(folder: Path, **settings: object) -> str:
    """The hash of the weights after two epochs that were stopped once."""
    smoke = PROFILES["smoke"]
    recipe = dataclasses.replace(smoke.recipe, epochs=2, **settings)
    AcceleratorState._reset_state()  # it keeps the first precision of a process
    for stop_after in (STEPS, 0):
        train(smoke.model, smoke.data, recipe, folder, stop_after=stop_after, on_epoch=str)
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]


def main() -> None:
    torch.set_num_threads(1)
    print("code of trainings", code_hash(TRAINING), "and of diagnostics", code_hash(DIAGNOSTIC))
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, settings) in enumerate(SETTINGS.items()):
            print(f"{name}: {trained(Path(folder, str(number)), **settings)}", flush=True)
    first = {run.task.__class__: run for run in reversed(diagnostic_runs([DEFAULT], range(1)))}
    for task, run in first.items():
        print(f"{task.__name__}: {run.run().measured}", flush=True)


if __name__ == "__main__":
    main()
