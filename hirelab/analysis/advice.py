"""Which point of a network to look at, why, and what makes its maps mislead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._shared.errors import HirelabError
from .._shared.tables import table
from ..hooks.forward import (
    Target,
    at_least_float32,
    check_images,
    check_logits,
    check_targets,
    class_name,
    frozen_eval,
    gradient_scale,
    is_trained,
    model_name,
    pretrained_cfg,
    to_model_device,
)
from ..hooks.layouts import default_point, listed_maps, reading_all, resolve
from ..results import Result

_WIDTH = 88  # characters of a line


@dataclass(frozen=True, eq=False, repr=False)
class TargetLayerSuggestion(Result):
    """Which point to look at, why, and what to be warned of. Prints as a short text.

    Attributes:
        network: timm's name of the network, or its class.
        points: candidates in the order of the forward pass, the last of every resolution.
        grids: (points, 2) tokens along height and width.
        cells: (points, 2) pixels that a token stands for: the resolution.
        coherence: (points,) how much of the gradient's mean square over the map is in its average,
            0 to 1; NaN without images. Grad-CAM keeps only the average, so at 1 it leaves
            nothing out, and near 0 it speaks of little: the meaning of a channel's weight.
        point: the one to look at; ``finer``: one with a finer grid, "" if there is none.
        why: the reasons, in words.
        warnings: what makes maps of this network, or of these images, mislead.
    """

    network: str
    points: list[str]
    grids: np.ndarray
    cells: np.ndarray
    coherence: np.ndarray
    point: str
    finer: str
    why: str
    warnings: list[str]

    def __repr__(self) -> str:
        said = [*(f"Warning: {text}" for text in self.warnings)]
        said.append(f"Look at {self.point}: {self.why}")
        # whole words in every line: JupyterLab breaks long ones wherever its column ends
        lines = [fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
                 for text in said]  # fmt: skip
        rows = [("point", "tokens", "px per token", "coherence")]
        for name, (down, across), (high, wide), held in zip(
            self.points, self.grids, self.cells, self.coherence, strict=True
        ):
            share = "not measured" if np.isnan(held) else f"{held:.2f}"
            rows.append((name, f"{down} x {across}", f"{high:.3g} x {wide:.3g}", share))
        return "\n".join([*lines, "", table(rows, "lrrl")])


def suggest_target_layer(
    model: nn.Module,
    x: Tensor | None = None,
    labels: Target = None,
) -> TargetLayerSuggestion:
    """Suggest which point to look at and say why, and what to be warned of.

    Args:
        model: a classifier with timm's ``feature_info``: a Hire-MLP, or any network of timm.
        x: (N, C, H, W) images; with them the gradient's coherence is measured (see
            `TargetLayerSuggestion`), for the predicted classes. Without them only the grids are,
            on a blank input.
        labels: the true classes, one for each image; wrong predictions are then named.

    Raises:
        HirelabError: for a network that does not list its maps, labels without images, and as
            `grad_cam`.
    """
    if labels is not None and x is None:
        raise HirelabError("labels are given without images; give x, the images, beside them.")
    blank = x is None
    if x is None:
        _, *size = pretrained_cfg(model).get("input_size", (3, 224, 224))
        x = torch.zeros(1, getattr(model, "in_chans", 3), *size)
    names = _maps_of(model)
    found: dict[str, Tensor] = {}

    def keep(name: str, grid: Tensor) -> Tensor:
        found[name] = grid if grid.requires_grad else grid.detach().requires_grad_()
        return found[name]

    with frozen_eval(model):
        batch = to_model_device(model, check_images(x))
        with torch.enable_grad(), reading_all(model, names, keep):
            logits = at_least_float32(check_logits(model(batch), len(x), model))
            targets = check_targets(None, logits)
            total = logits.gather(1, targets[:, None]).sum() * gradient_scale(batch)
            reached = [found[name] for name in names if name in found]
            gradients = torch.autograd.grad(total, reached, allow_unused=True)
        logits = logits.detach()
        truth = None if labels is None else check_targets(labels, logits)
    moving = dict(zip((name for name in names if name in found), gradients, strict=True))
    silent = [name for name, g in moving.items() if g is None or not g.any()]
    if len(silent) < len(moving):  # all of them: a head that is zero still, say
        moving = {name: g for name, g in moving.items() if name not in silent}
    kept = _last_of_each_grid({name: tuple(found[name].shape[2:]) for name in moving})
    grids = np.array([found[name].shape[2:] for name in kept])
    held = np.array([np.nan if blank else _coherence(moving[name]) for name in kept])
    finer = [name for name, grid in zip(kept, grids, strict=True) if grid.prod() > grids[-1].prod()]
    return TargetLayerSuggestion(
        network=model_name(model),
        points=kept,
        grids=grids,
        cells=np.array(x.shape[2:]) / grids,
        coherence=held,
        point=kept[-1],
        finer=finer[-1] if finer else "",
        why=_why(kept, grids, held, finer),
        warnings=_warnings(model, logits, truth, silent, blank),
    )


def _maps_of(model: nn.Module) -> list[str]:
    """The maps that a network lists, and the last one."""
    names = listed_maps(model)
    if not names:
        raise HirelabError(
            f"{type(model).__name__} does not list its maps (timm's feature_info), so there is "
            "nothing to choose from; give a whole network of timm or of hirelab."
        )
    return list(dict.fromkeys([*(resolve(model, n) for n in names), default_point(model)]))


def _last_of_each_grid(grids: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The last point of every resolution; of a network with only one, points along its depth."""
    last = {grid: name for name, grid in grids.items()}
    if len(last) > 1:
        return list(last.values())
    names = list(grids)
    return [names[i] for i in sorted({round(q * (len(names) - 1)) for q in (0.25, 0.5, 0.75, 1)})]


def _coherence(gradient: Tensor | None) -> float:
    """The share of the gradient's mean square that its average over the map holds, 0 to 1."""
    if gradient is None or not gradient.any():
        return float("nan")
    g = gradient.double()
    whole = g.square().mean((2, 3)).sum(1)
    share = g.mean((2, 3)).square().sum(1) / whole
    return float(share[whole > 0].mean())


def _why(kept: list[str], grids: np.ndarray, held: np.ndarray, finer: list[str]) -> str:
    def kept_by(share: float) -> str:
        return f"one weight for each channel keeps {share * 100:.0f} % of the gradient there"

    rows, cols = grids[-1]
    why = f"the last map, {rows} x {cols}, is nearest to the classes"
    if held[-1] > 0.9999:
        why += (
            "; every position has the same gradient, so that one weight for each channel leaves "
            "nothing out and the map is the class's score, position by position"
        )
    elif np.isfinite(held[-1]):
        why += f"; {kept_by(held[-1])}"
    why += "."
    if finer:
        at = kept.index(finer[-1])
        why += f" For a finer grid look at {finer[-1]}, {grids[at][0]} x {grids[at][1]}"
        if np.isfinite(held[at]):
            why += f"; {kept_by(held[at])}"
        why += "."
    return why


def _warnings(
    model: nn.Module, logits: Tensor, truth: Tensor | None, silent: list[str], blank: bool
) -> list[str]:
    said = []
    state = is_trained(model)
    if state.trained is False:
        said.append(
            f"the weights are untrained ({state.why}): maps show the architecture and chance, not "
            "what a network has learnt to look at."
        )
    classifier: Any = getattr(model, "get_classifier", None)
    head = classifier() if classifier else None
    bias = getattr(head, "bias", None)
    if state.trained and isinstance(bias, Tensor) and bias.numel() > 1 and not bias.any():
        said.append(
            "every bias of the head is exactly zero, as in a new head: it may be untrained, even "
            "if what comes before it is trained."
        )
    if silent:
        said.append(
            f"nothing of the map at {', '.join(silent)} moves the class's score (a class token "
            "takes over, say, or a weight after it is zero): Grad-CAM is zero there."
        )
    if blank:
        return said
    shares = logits.softmax(1)
    confidence, predicted = shares.max(1)
    if truth is not None:
        for i in (predicted != truth).nonzero()[:, 0].tolist():
            label, guess = int(truth[i]), int(predicted[i])
            taken, right = class_name(model, guess), class_name(model, label)
            said.append(
                f"image {i} is predicted wrongly: {taken} ({confidence[i]:.0%}), and its label is "
                f"{right} ({shares[i, label]:.0%}); a map of {taken} (target={guess}) shows why "
                f"the network errs, one of {right} (target={label}) what spoke for the label."
            )
    undecided = (confidence < 2 / logits.shape[1]).nonzero()[:, 0].tolist()
    if undecided and logits.shape[1] > 2:
        which = ", ".join(map(str, undecided))
        said.append(
            f"the network is undecided on image {which}: its best class has less than twice the "
            "share of guessing, so there is little that a map could explain."
        )
    return said
