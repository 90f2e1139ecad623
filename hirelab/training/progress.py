"""Where a run stands, and the checkpoint that remembers it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .._shared.errors import HirelabError, naming
from .._shared.files import atomic, write_atomic
from .._shared.reading import misfit
from .runs import CHECKPOINT, HISTORY, History

__all__ = ["Progress", "restore_checkpoint", "save_checkpoint"]


@dataclass
class Progress:
    """Where a run stands, kept in its checkpoint.

    Attributes:
        step: steps taken, over all epochs.
        loss_sum, loss_count, seconds: of the steps of the open epoch.
        history: rows of the epochs that are closed, see `runs.History`.
    """

    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """Mean loss of the open epoch's steps."""
        return self.loss_sum / self.loss_count

    def count(self, loss: float, seconds: float) -> None:
        """Add a step to the open epoch."""
        self.loss_sum += loss
        self.loss_count += 1
        self.seconds += seconds

    def close_epoch(self, row: dict[str, float]) -> None:
        """Keep an epoch's row and begin the next."""
        self.history.append(row)
        self.loss_sum, self.loss_count, self.seconds = 0.0, 0, 0.0


def save_checkpoint(out: Path, parts: Mapping[str, Any], progress: Progress) -> None:
    """Write the state of every part, the progress, and the history; the files before stay until
    these are whole.

    Raises:
        HirelabError: the disk refuses; what was there is still there.
    """
    content = {name: part.state_dict() for name, part in parts.items()}
    try:
        with atomic(out / CHECKPOINT) as temporary:
            torch.save({**content, "state": dataclasses.asdict(progress)}, temporary)
        write_atomic(out / HISTORY, History(progress.history).to_jsonl())
    # torch reports a full disk as a RuntimeError of its writer
    except (OSError, RuntimeError) as error:
        raise HirelabError(
            f"the checkpoint of step {progress.step:,} could not be written to {out} "
            f"({error}); the one before is still there: make room, and run the same command "
            f"again"
        ) from error


def restore_checkpoint(out: Path, parts: Mapping[str, Any]) -> Progress | None:
    """Put every part back to the checkpoint in ``out``; None where there is none.

    Raises:
        HirelabError: it is damaged, or of other parts.
    """
    if not (out / CHECKPOINT).exists():
        return None
    with naming(out / CHECKPOINT, "the state of this run"):
        content = torch.load(out / CHECKPOINT, map_location="cpu", weights_only=True)
        progress = Progress(**content["state"])
        if wrong := misfit(progress):
            raise HirelabError(f"{out / CHECKPOINT} is damaged: {wrong}.")
        for name, part in parts.items():
            part.load_state_dict(content[name])
    return progress
