"""Run any network without changing it: its mode, its precision, and what goes in and comes out.

Every measurement begins here: the input and the classes are checked, the network is put into
evaluation mode (`eval_mode`), without gradients of its parameters where only points are looked at
(`frozen_eval`), and left as it was, also after an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .._shared.errors import HirelabError

Target = int | Sequence[int] | np.ndarray | Tensor | None
"""A class for all images, one for each, or the predicted ones for None."""

# ------------------------------------------------------------------ what an input must be


def check_images(x: object) -> Tensor:
    """The input as a batch (N, C, H, W) of finite real numbers, or one sentence on what is wrong.

    Raises:
        HirelabError: naming what was given and the cure.
    """
    if not isinstance(x, Tensor):
        raise HirelabError(
            f"The input is a {type(x).__name__}; give a tensor (N, C, H, W), as hirelab.samples "
            "makes it."
        )
    if x.dim() != 4 or len(x) == 0:
        raise HirelabError(
            f"The input has shape {list(x.shape)}; give at least one image, (N, C, H, W): add "
            "the batch axis with x[None]."
        )
    if not x.is_floating_point():
        raise HirelabError(
            f"The input holds {x.dtype}; give normalised real numbers (hirelab.samples, or "
            "hirelab.datasets.normalise)."
        )
    if x.layout != torch.strided:
        raise HirelabError(f"The input is a tensor of {x.layout}; give a dense one, x.to_dense().")
    return check_finite(x)


def check_finite(x: Tensor) -> Tensor:
    """An input of any shape without NaN and infinite values, or one sentence.

    Raises:
        HirelabError: naming the shape and the cure.
    """
    if not torch.isfinite(x).all():
        raise HirelabError(
            f"The input of shape {tuple(x.shape)} holds NaN or infinite values, which would spread "
            "over every map; clean it first (torch.nan_to_num)."
        )
    return x


def check_targets(target: Target, logits: Tensor) -> Tensor:
    """(N,) the wanted classes as whole numbers; the predicted ones for None.

    Raises:
        HirelabError: for a class out of range, or not one class for each image.
    """
    n, classes = logits.shape
    if target is None:
        return logits.argmax(1)
    listed: Any = (
        target.tolist() if isinstance(target, (np.ndarray, np.generic, Tensor)) else target
    )
    several = isinstance(listed, Sequence) and not isinstance(listed, str)
    values = list(listed) if several else [listed] * n
    if len(values) != n:
        raise HirelabError(
            f"target names {len(values)} classes for {n} images; give one class, or one for "
            "each image."
        )
    for value in values:
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise HirelabError(f"target is {value!r}; give a class as a whole number, or None.")
        if not 0 <= value < classes:
            raise HirelabError(
                f"target is {value}; the network has {classes} classes, 0 to {classes - 1}."
            )
    return torch.tensor([index(v) for v in values], device=logits.device)


def check_logits(output: object, n: int, model: nn.Module) -> Tensor:
    """The output as (N, classes), one row of class scores for each image.

    Raises:
        HirelabError: for a network that returns something else.
    """
    if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != n:
        shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise HirelabError(
            f"{type(model).__name__} returns {shape} for {n} images; an attribution needs one "
            "row of class scores for each image, (N, classes): give a whole classifier."
        )
    return output


# ------------------------------------------------------------------ the network's mode


def check_module(model: object) -> nn.Module:
    """The network itself.

    Raises:
        HirelabError: for anything that is no network, such as its class or None.
    """
    if not isinstance(model, nn.Module):
        given = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise HirelabError(
            f"The network is {given}; give a torch.nn.Module, such as hirelab.create returns."
        )
    return model


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no checkpointing; afterwards every module as it was, error or not.

    Raises:
        HirelabError: for anything that is no network.
    """
    check_module(model)
    training = [(m, m.training) for m in model.modules()]
    # A checkpointed part would run again in the backward pass, and with it what listens there.
    saving: list[Any] = [
        m for m in model.modules() if getattr(m, "grad_checkpointing", False) is True
    ]
    try:
        model.eval()
        for module in saving:
            module.grad_checkpointing = False
        yield
    finally:
        for module, mode in training:  # each its own: parts may be frozen in evaluation mode
            module.training = mode
        for module in saving:
            module.grad_checkpointing = True


@contextmanager
def frozen_eval(model: nn.Module) -> Iterator[None]:
    """`eval_mode`, and no gradients of parameters; as before in the end.

    Gradients are then taken only from the point looked at onwards, and what lies before it runs
    without a graph.
    """
    wanting = [p for p in model.parameters() if p.requires_grad]
    with eval_mode(model):
        try:
            for parameter in wanting:
                parameter.requires_grad_(False)
            with torch.inference_mode(False), torch.no_grad():
                yield
        finally:
            for parameter in wanting:
                parameter.requires_grad_(True)


def to_model_device(model: nn.Module, x: Tensor) -> Tensor:
    """A copy of the input, on the network's device and in its precision, outside any graph."""
    first = next((p for p in model.parameters() if p.is_floating_point()), x)
    return x.detach().to(first.device, first.dtype, copy=True)


@torch.no_grad()
def scores(model: nn.Module, x: Tensor) -> Tensor:
    """(N, classes) the logits of a network in `frozen_eval`, in single precision or better."""
    return at_least_float32(check_logits(model(x), len(x), model))


def at_least_float32(value: Tensor) -> Tensor:
    """The tensor itself in single or double precision, else a copy in single."""
    return value if value.dtype in (torch.float32, torch.float64) else value.float()


def gradient_scale(x: Tensor) -> float:
    """What the logit is multiplied with: small gradients would vanish in float16."""
    return 1024.0 if x.dtype == torch.float16 else 1.0


# ------------------------------------------------------------------ what a network says of itself


def pretrained_cfg(model: nn.Module) -> Mapping[str, Any]:
    """timm's description of a network and its weights; empty where there is none."""
    cfg = getattr(model, "pretrained_cfg", None)
    return cfg if isinstance(cfg, Mapping) else {}


def model_name(model: nn.Module) -> str:
    """timm's name of a network, or its class."""
    return str(pretrained_cfg(model).get("architecture") or type(model).__name__)


def class_name(model: nn.Module, number: int) -> str:
    """The class by name where the network's ``label_names`` has one for each, else "class 5"."""
    names = pretrained_cfg(model).get("label_names") or ()
    whole = len(names) == getattr(model, "num_classes", None)
    return str(names[number]) if whole else f"class {number}"


@dataclass(frozen=True)
class Trained:
    """Whether a network's weights look trained (None: nothing tells), and why, in words.

    True as a condition only where training is seen; ask ``.trained is False`` for untrained.
    """

    trained: bool | None
    why: str

    def __bool__(self) -> bool:
        return self.trained is True


def is_trained(model: nn.Module) -> Trained:
    """Whether weights have been trained, by what training cannot leave as it was.

    BatchNorm's running statistics start at mean 0 and variance 1 and move with the first batch, so
    a network all of whose statistics stand there has never been trained. (The count of batches
    alone says less: weights that were carried over from elsewhere often come without it.) Without
    BatchNorm the same is asked of the weights and biases of the other norms, 1 and 0 at first.
    """
    running = [
        (m.running_mean, m.running_var) for m in model.modules()
        if isinstance(m, _BatchNorm) and m.running_mean is not None and m.running_var is not None
    ]  # fmt: skip
    if running:
        fresh = all(not mean.any() and bool((var == 1).all()) for mean, var in running)
        state = "stand" if fresh else "do not stand"
        return Trained(not fresh, f"its BatchNorm statistics {state} at their initial values")
    others = [
        m for m in model.modules()
        if isinstance(m, (nn.LayerNorm, nn.GroupNorm)) and m.weight is not None
    ]  # fmt: skip
    if others:
        fresh = all((m.weight == 1).all() and (m.bias is None or not m.bias.any()) for m in others)
        state = "stand" if fresh else "do not stand"
        return Trained(not fresh, f"the weights of its norms {state} at their initial values")
    return Trained(None, "it has no norm whose numbers would tell")
