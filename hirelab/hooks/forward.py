"""Look at any network without changing it: at rest, and its maps as token grids on the image.

What a point holds must first be brought onto the image. Inside a branch of a Hire-MLP the line of
tokens is shifted, padded and cut into regions, so position is not place; there the token grid is
carried back by the network's own rearrangement. Networks of timm hold maps with the channels last,
or as a list of tokens; these are brought to (N, C, h, w) where the layout is clear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import index
from typing import Any

import torch
from torch import Tensor, nn

from .._shared.errors import HirelabError, unknown
from ..rearrange import AXES, partition, shift
from . import points as probes
from .points import Point, Probe, UnknownPoint

LAYOUTS = ("NCHW", "NHWC", "tokens")


# ------------------------------------------------------------------ what an input must be


def check_images(x: object) -> Tensor:
    """The input as a batch (N, C, H, W) of finite real numbers, or one sentence on what is wrong.

    Raises:
        TypeError, ValueError: naming what was given and the cure.
    """
    if not isinstance(x, Tensor):
        raise TypeError(
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
    if not torch.isfinite(x).all():
        raise HirelabError(
            f"The input of shape {tuple(x.shape)} holds NaN or infinite values, which would spread "
            "over every map; clean it first (torch.nan_to_num)."
        )
    return x


def check_targets(target: Any, logits: Tensor) -> Tensor:
    """(N,) the wanted classes as whole numbers; the predicted ones for None.

    Raises:
        HirelabError: for a class out of range, or not one class for each image.
    """
    n, classes = logits.shape
    if target is None:
        return logits.argmax(1)
    listed = target.tolist() if hasattr(target, "tolist") else target
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
    if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != n:
        shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise HirelabError(
            f"{type(model).__name__} returns {shape} for {n} images; an attribution needs one "
            "row of class scores an image, (N, classes): give a whole classifier."
        )
    return output


# ------------------------------------------------------------------ a network at rest


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no checkpointing; afterwards every module as it was, error or not."""
    training = [(m, m.training) for m in model.modules()]
    # A checkpointed part would run again in the backward pass, and with it what listens there.
    saving = [m for m in model.modules() if getattr(m, "grad_checkpointing", False) is True]
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
def at_rest(model: nn.Module) -> Iterator[None]:
    """`evaluating`, and no gradients of parameters; as before in the end.

    Gradients are then taken only from the point looked at onwards, and what lies before it runs
    without a graph.
    """
    wanting = [p for p in model.parameters() if p.requires_grad]
    with evaluating(model):
        try:
            for parameter in wanting:
                parameter.requires_grad_(False)
            with torch.inference_mode(False), torch.no_grad():
                yield
        finally:
            for parameter in wanting:
                parameter.requires_grad_(True)


def to_network(model: nn.Module, x: Tensor) -> Tensor:
    """A copy of the input, on the network's device and in its precision, outside any graph."""
    first = next((p for p in model.parameters() if p.is_floating_point()), x)
    return x.detach().to(first.device, first.dtype, copy=True)


@torch.no_grad()
def scores(model: nn.Module, x: Tensor) -> Tensor:
    """(N, classes) the logits of a network `at_rest`, in single precision or better."""
    return at_least_single(check_logits(model(x), len(x), model))


def at_least_single(value: Tensor) -> Tensor:
    return value if value.dtype in (torch.float32, torch.float64) else value.float()


def gradient_scale(x: Tensor) -> float:
    """What the logit is multiplied with: small gradients would vanish in float16."""
    return 1024.0 if x.dtype == torch.float16 else 1.0


def called(model: nn.Module) -> str:
    """timm's name of a network, or its class."""
    cfg = getattr(model, "pretrained_cfg", None) or {}
    name = cfg.get("architecture") if isinstance(cfg, Mapping) else None
    return str(name or type(model).__name__)


# ------------------------------------------------------------------ points on the image


@dataclass(frozen=True)
class _Grid:
    """How a point's tensor becomes a token grid (N, C, h, w) in image order, and back.

    ``back(carry(value))`` gives the network all that it reads of ``value``.
    """

    carry: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]


def default_point(model: nn.Module) -> str:
    """The last map of a network: its point ``features``, or else the last in feature_info.

    Raises:
        HirelabError: for a network that says neither.
    """
    if isinstance(dict(model.named_children()).get("features"), Probe):
        return "features"
    try:
        return resolve(model, model.feature_info[-1]["module"])
    except (AttributeError, LookupError, TypeError):
        raise HirelabError(
            f"{type(model).__name__} does not say where its last map is; give point, the name of "
            "a module in named_modules()."
        ) from None


def resolve(model: nn.Module, point: str) -> str:
    """The full name of a point: a probe, the path of a module with a probe ``out``, or a module.

    Raises:
        UnknownPoint: for no such name, with near ones; and for a module inside a branch's cut
            line, which only the branch's probes can bring back to places.
    """
    modules = dict(model.named_modules())
    if isinstance(modules.get(f"{point}.out"), Probe):
        return f"{point}.out"
    if not isinstance(point, str) or not point or point not in modules:
        known = [name for name in modules if name]
        cure = "Any module's name will do, see named_modules()"
        cure += ", or a point of model.points()." if hasattr(model, "points") else "."
        raise UnknownPoint(unknown("point", point, known, cure))
    branch = next(
        (up for up in _ancestors(point) if hasattr(modules.get(up), "rearrangement")), None
    )
    if branch is not None and not isinstance(modules[point], Probe):
        raise UnknownPoint(
            f"{point} lies inside the shifted and cut line of {branch}, where position is not "
            f"place; use {branch}.regions before the mixing, or {branch}.mixed after it."
        )
    return point


def _ancestors(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _probe_grid(point: Point) -> _Grid:
    """The grid of a probe: its own way back, and the network's own way forth."""

    def back(value: Tensor) -> Tensor:
        if not point.shifted:
            return value
        assert point.rearrangement is not None
        assert point.axis is not None
        r, dim = point.rearrangement, AXES[point.axis]
        value = shift(value, dim, r.region, r.shift, r.cross_region)
        # After the mixing the padded slots hold other numbers than these, but are cropped away.
        grouped = point.kind == "region grid"
        return partition(value, dim, r.region, r.padding) if grouped else value

    return _Grid(point.tokens, back)


def _module_grid(
    model: nn.Module, name: str, value: Tensor, size: Sequence[int], layout: str | None
) -> _Grid:
    """The grid of any module's output, by what its shape and the network say."""
    shape = list(value.shape)
    if value.dim() == 4 and layout != "tokens":
        last = layout == "NHWC" if layout else _channels_last(model, shape, size)
        if last is not None:
            if last:
                return _Grid(lambda v: v.permute(0, 3, 1, 2), lambda v: v.permute(0, 2, 3, 1))
            return _Grid(lambda v: v, lambda v: v)
    if value.dim() == 3 and layout in (None, "tokens"):
        grid, prefix = _token_grid(model, shape, size)
        if grid:

            def carry(v: Tensor) -> Tensor:
                return v[:, prefix:].transpose(1, 2).unflatten(2, grid)

            def back(v: Tensor) -> Tensor:
                tokens = v.flatten(2).transpose(1, 2)
                return torch.cat([value[:, :prefix], tokens], 1) if prefix else tokens

            return _Grid(carry, back)
    asked = f" as {layout}" if layout else ""
    raise HirelabError(
        f"{name} has the shape {shape}, which cannot be laid on an image of {size[0]} x {size[1]} "
        f"pixels{asked}; choose a point with a map, (N, C, h, w), (N, h, w, C) or (N, tokens, C), "
        "or say which of these it is with layout='NCHW', 'NHWC' or 'tokens'."
    )


def _fits(high: int, wide: int, size: Sequence[int]) -> bool:
    """Whether a map has the image's proportions, up to one token."""
    return abs(high * size[1] - wide * size[0]) <= max(size) and high <= size[0]


def _channels_last(model: nn.Module, shape: Sequence[int], size: Sequence[int]) -> bool | None:
    """Whether a map holds its channels last; None where it has the image's shape neither way."""
    first, last = _fits(shape[2], shape[3], size), _fits(shape[1], shape[2], size)
    if first and last:  # as many channels as tokens along a side
        return getattr(model, "output_fmt", None) == "NHWC"
    return last if first or last else None


def _token_grid(
    model: nn.Module, shape: Sequence[int], size: Sequence[int]
) -> tuple[tuple[int, int] | None, int]:
    """(rows, columns) of a list of tokens, and how many tokens before it are not of the map."""
    own = next(
        (
            tuple(part.grid_size)
            for part in (getattr(model, n, None) for n in ("patch_embed", "stem"))
            if getattr(part, "grid_size", None) is not None
        ),
        None,
    )
    for prefix in dict.fromkeys((int(getattr(model, "num_prefix_tokens", 0) or 0), 0)):
        tokens = shape[1] - prefix
        if own and tokens == own[0] * own[1] and _fits(*own, size):
            return own, prefix
        if tokens < 1 or (own and shape[2] == own[0] * own[1]):
            continue  # the tokens come last here, as inside the token mixing of a Mixer
        high = max(1, round((tokens * size[0] / size[1]) ** 0.5))
        if tokens % high == 0 and _fits(high, tokens // high, size):
            return (high, tokens // high), prefix
    return None, 0


@contextmanager
def listening(
    model: nn.Module,
    points: Sequence[str],
    size: Sequence[int],
    act: Callable[[str, Tensor], Tensor],
    layout: str | None = None,
) -> Iterator[dict[str, int]]:
    """Let ``act(name, grid)`` replace every point's token grid; yields how often each was passed.

    ``size`` is the batch's: images, height, width. Raises ValueError during the pass for a point
    that has no place on the image.
    """
    passed = dict.fromkeys(points, 0)
    shapes: dict[str, tuple[int, ...]] = {}
    known = probes.probes(model)

    def look(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda module, args, output: shapes.update({name: tuple(output.shape)})

    def listen(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            passed[name] += 1
            if passed[name] > 1:
                raise HirelabError(
                    f"{name} is used more than once in a forward pass, so it has no map of its "
                    "own; choose a module around one of its uses."
                )
            if not isinstance(output, Tensor):
                raise HirelabError(
                    f"{name} returns a {type(output).__name__}; choose a point that returns a map."
                )
            if len(output) != size[0]:
                raise HirelabError(
                    f"{name} sees {len(output)} pieces of {size[0]} images (windows, say); "
                    "choose a point outside, where an image is whole."
                )
            if name in known:
                shapes[name] = tuple(output.shape)
                grid = _probe_grid(probes._describe(model, name, shapes))
            else:
                grid = _module_grid(model, name, output, size[1:], layout)
            # A copy: what the network does in place, before or after, must not reach it.
            value = at_least_single(grid.carry(output).clone())
            result = grid.back(act(name, value)).to(output.dtype)
            return result.contiguous() if output.is_contiguous() else result

        return hook

    siblings = {f"{n.rpartition('.')[0]}.shifted" for n in points if n in known} & known.keys()
    with ExitStack() as stack:
        for name in sorted(siblings):
            stack.callback(known[name].register_forward_hook(look(name)).remove)
        for name in points:
            handle = model.get_submodule(name).register_forward_hook(listen(name))
            stack.callback(handle.remove)
        yield passed
