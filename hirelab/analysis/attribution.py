"""Which places of an image speak for a class: Grad-CAM and other attributions, on captum.

Grad-CAM (Selvaraju et al., https://arxiv.org/abs/1610.02391) looks at one point of a network: every
channel is weighed by the average of its gradient over the map, and the weighted channels are added
up. The signs are kept: below zero speaks against the class. Only drawing takes the positive part.

A point must first be brought onto the image. Inside a branch of a Hire-MLP the line of tokens is
shifted, padded and cut into regions, so position is not place. There the token grid is carried
back by the network's own rearrangement, and Grad-CAM is computed on that grid: the map at
``height.mixed`` therefore equals the map at ``height.out``, and that at ``height.regions`` the one
at ``height.shifted``. Networks of timm hold maps with the channels last, or as a list of tokens;
these are brought to (N, C, h, w) in the same way, where the layout is clear.

Every call runs the network in evaluation mode and without gradients of the parameters, and leaves
modes, parameters and hooks as they were, also after an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import index
from typing import Any
from warnings import catch_warnings, filterwarnings, warn

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import (
    GuidedBackprop,
    IntegratedGradients,
    LayerGradCam,
    NoiseTunnel,
    Occlusion,
    Saliency,
)
from torch import Tensor, nn

from .._shared.errors import HirelabError, unknown
from ..datasets.samples import IMAGENET_MEAN, IMAGENET_STD, pixels
from ..hooks.forward import (
    LAYOUTS,
    at_least_single,
    at_rest,
    called,
    check_images,
    check_logits,
    check_targets,
    default_point,
    gradient_scale,
    listening,
    resolve,
    scores,
    to_network,
)
from ..results import Result
from .advice import weights

METHODS: Mapping[str, Mapping[str, Any]] = {
    "grad_cam": {},
    "gradient": {},
    "smooth_grad": {"samples": 16, "noise": 0.5, "seed": 0},
    "integrated_gradients": {"steps": 32},
    "guided_backprop": {},
    "occlusion": {"window": None, "stride": None},
}
"""The methods and their options, see `attribute`."""


@dataclass(frozen=True, eq=False)
class Attribution(Result):
    """Maps of what spoke for a class (above zero) and against it (below), an image each.

    Attributes:
        network: the network's class or timm's name of it.
        method: one of `METHODS`; ``options`` are those in force.
        point: where the network was looked at; "" for the methods that look at pixels.
        targets: (N,) the class that each map is about.
        scores: (N,) its logit; ``probabilities``: (N,) its softmax.
        predicted: (N,) the network's own class; ``confidence``: (N,) its softmax.
        maps: (N, h, w) signed, in the image's order, in units of the logit (times the point's
            activation over its own unit, for Grad-CAM).
        size: (height, width) of the input in pixels.
        images: (N, H, W, 3) uint8 for drawing; (N, 0, 0, 3) where the input was not RGB.
        trained: whether the weights look trained, None where nothing tells; see `weights`.
    """

    network: str
    method: str
    point: str
    targets: np.ndarray
    scores: np.ndarray
    probabilities: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    maps: np.ndarray
    size: list[int]
    images: np.ndarray
    trained: bool | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.maps)

    @cached_property
    def upsampled(self) -> np.ndarray:
        """(N, H, W) the signed maps at the input's size, bilinear between the tokens' centres."""
        return upsample(self.maps, self.size)

    @property
    def positive(self) -> np.ndarray:
        """(N, H, W) what speaks for the class: the positive part of `upsampled`."""
        return np.maximum(self.upsampled, 0)

    def overlay(self, names: Sequence[str] | None = None):
        """The positive part over each image, a `hirelab.viz.canvas.Still`.

        Args:
            names: of the classes; their numbers without.

        Raises:
            HirelabError: where the input was not RGB, so that there is no image to draw on.
        """
        return self._draw("overlay", names)

    def plot(self, names: Sequence[str] | None = None):
        """Each image, the positive part over it, and the signed map, a `Still`."""
        return self._draw("signed", names)

    def _draw(self, view: str, names: Sequence[str] | None):
        from ..viz import overlay

        if not self.images.size:
            raise HirelabError(
                "The input was not RGB, so there is no image to draw on; draw the arrays `maps` "
                "with hirelab.viz.maps."
            )
        titles = [
            f"{names[t] if names else f'class {t}'}, {p:.0%}"
            for t, p in zip(self.targets, self.probabilities, strict=True)
        ]
        rows, cols = self.maps.shape[1:]
        where = f" at {self.point}, {rows} x {cols}" if self.point else ", a value a pixel"
        note = f"{self.network}: {self.method}{where}"
        if self.trained is False:
            note += "; the weights are untrained"
        smooth = 1 if self.point else max(1, min(self.size) // 32) | 1
        return overlay.overlay_figure(
            self.images, self.upsampled, titles, note, with_signed=view == "signed", smooth=smooth
        )


def beside(found: Mapping[str, Attribution]):
    """Signed maps of one image side by side, such as of several points, classes or networks.

    Args:
        found: an attribution of the same single image for every title.

    Returns:
        A `hirelab.viz.canvas.Still`; every map has its own scale.

    Raises:
        HirelabError: for none, more than one image in one, other images, or none to draw.
    """
    from ..viz import overlay

    kept = list(found.values())
    if not kept or any(len(one) != 1 for one in kept):
        raise HirelabError(
            f"There are attributions of {[len(one) for one in kept]} images; give at least one, "
            "each of a single image (x[:1] of a batch x)."
        )
    first = kept[0].images
    if not first.size or any(not np.array_equal(one.images, first) for one in kept):
        raise HirelabError(
            "The attributions are not of the same RGB image, so there is none to draw them "
            "beside; make them all from one."
        )
    notes = ["{} x {} tokens".format(*one.maps.shape[1:]) if one.point else "a value a pixel"
             for one in kept]  # fmt: skip
    return overlay.maps_figure(first[0], [one.upsampled[0] for one in kept], list(found), notes)


def upsample(maps: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """(N, h, w) maps at (height, width) pixels: bilinear, a token at the centre of its cell."""
    return _upsample(torch.from_numpy(np.ascontiguousarray(maps)), size).numpy()


def _upsample(maps: Tensor, size: Sequence[int]) -> Tensor:
    size = tuple(size)
    if maps.shape[1:] == size:
        return maps
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


# ------------------------------------------------------------------ the methods


def grad_cam(
    model: nn.Module,
    x: Tensor,
    target: int | Sequence[int] | None = None,
    point: str | None = None,
    *,
    layout: str | None = None,
) -> Attribution:
    """Grad-CAM of a batch of images at one point, in one forward and one backward pass.

    Args:
        model: a classifier: a Hire-MLP, or any network of timm.
        x: (N, C, H, W) normalised images.
        target: the class to explain, one for all images or one for each; the predicted for None.
        point: a named point of a Hire-MLP (``model.points()``; ``stages.3`` means its ``out``), or
            any module by its name; the network's last map for None, see `advise`.
        layout: how the point's tensor lies, one of `LAYOUTS`; told by its shape for None.

    Returns:
        An `Attribution` with signed maps (N, h, w) in the image's order.

    Raises:
        UnknownPoint: for a point that is not there, with near names.
        HirelabError, TypeError: one sentence for an input, class or point that gives no map: a gate
            or vector, a point that is not passed or passed twice, one that the logits do not
            depend on, a class out of range, values that are not finite.
    """
    return _attribute(model, x, target, point, "grad_cam", layout, {})


def attribute(
    model: nn.Module,
    x: Tensor,
    target: int | Sequence[int] | None = None,
    point: str | None = None,
    *,
    method: str = "grad_cam",
    layout: str | None = None,
    **options: Any,
) -> Attribution:
    """Attribute a class's logit to places, by captum's methods through one call.

    Args:
        model, x, target, point, layout: as in `grad_cam`. All methods but "grad_cam" attribute to
            pixels (summed over the colours, with their signs) and take no point.
        method: one of `METHODS`:

            - "grad_cam": see `grad_cam`;
            - "gradient": the plain gradient of the logit;
            - "smooth_grad": its mean over ``samples`` noisy copies (Smilkov et al. 2017), the
              noise's standard deviation ``noise`` in units of the input, from ``seed``;
            - "integrated_gradients": along ``steps`` points of the line from the mean colour (all
              zeros) to the image (Sundararajan et al. 2017); the map adds up to the difference
              of the two logits;
            - "guided_backprop": gradients that pass a ReLU only where positive (Springenberg et
              al. 2015). Other activations, such as GELU, pass them unchanged;
            - "occlusion": how much the logit drops when a square of ``window`` pixels is grey (all
              zeros), moved by ``stride`` pixels (Zeiler and Fergus 2014); a 7th and a 14th of the
              shorter side for None.

    Raises:
        as `grad_cam`; ValueError also for an unknown method or option, with near names.
    """
    return _attribute(model, x, target, point, method, layout, options)


def _attribute(
    model: nn.Module,
    x: Tensor,
    target: Any,
    point: str | None,
    method: str,
    layout: str | None,
    options: Mapping[str, Any],
) -> Attribution:
    if method not in METHODS:
        raise HirelabError(unknown("method", method, METHODS, f"There are {', '.join(METHODS)}."))
    for name in options:
        if name not in METHODS[method]:
            has = ", ".join(METHODS[method]) or "no options"
            raise HirelabError(unknown("option", name, METHODS[method], f"{method} has {has}."))
    if layout is not None and layout not in LAYOUTS:
        raise HirelabError(f"layout is {layout!r}; choose one of {', '.join(LAYOUTS)}, or None.")
    check_images(x)
    if method == "grad_cam":
        point = default_point(model) if point is None else resolve(model, point)
    elif point is not None:
        raise HirelabError(
            f"point is {point!r}, and {method} attributes to pixels; leave the point out, or use "
            "method='grad_cam'."
        )
    settings = _settings(method, options, x)
    with at_rest(model):
        batch = to_network(model, x)
        if method == "grad_cam":
            assert point is not None
            maps, logits, targets = _grad_cam(model, batch, target, point, layout)
        else:
            logits = scores(model, batch)
            targets = check_targets(target, logits)
            maps = _to_pixels(model, batch, targets, method, settings)
        if not torch.isfinite(maps).all():
            raise HirelabError(
                f"{type(model).__name__} computes NaN or infinite values from this input, so there "
                "is no map; look for the first point that has them (model.run_with_cache)."
            )
        shares = logits.softmax(1)
    if not maps.any():
        where = f" at {point}" if point else ""
        warn(
            f"The attribution{where} is zero everywhere, so nothing there moves the logit; "
            "hirelab.advise(model, x) names a point where something does.",
            stacklevel=3,
        )
    rows = torch.arange(len(x), device=targets.device)
    confidence, predicted = shares.max(1)
    return Attribution(
        network=called(model),
        method=method,
        point=point or "",
        targets=targets.cpu().numpy(),
        scores=logits[rows, targets].cpu().numpy(),
        probabilities=shares[rows, targets].cpu().numpy(),
        predicted=predicted.cpu().numpy(),
        confidence=confidence.cpu().numpy(),
        maps=maps.cpu().numpy(),
        size=list(x.shape[2:]),
        images=_images(model, x),
        trained=weights(model).trained,
        options=settings,
    )


def _grad_cam(
    model: nn.Module, x: Tensor, target: Any, point: str, layout: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(N, h, w) maps, (N, classes) logits and (N,) classes."""
    tap, seen, scale = nn.Identity(), {}, gradient_scale(x)

    def forward(batch: Tensor) -> Tensor:
        output = check_logits(model(batch), len(batch), model)
        if not passed[point]:
            raise HirelabError(
                f"{point} is not reached in a forward pass, so it has no map; choose a module that "
                "the network runs through."
            )
        if not output.requires_grad:
            raise HirelabError(
                f"The logits have no gradient at {point}: nothing of it reaches them; choose a "
                "point on the way to the logits."
            )
        output = at_least_single(output)
        seen["logits"], seen["targets"] = output.detach(), check_targets(target, output.detach())
        return output.gather(1, seen["targets"][:, None])[:, 0] * scale

    # captum listens at the tap, through which the point's tensor passes as a token grid.
    size = (len(x), *x.shape[2:])
    with listening(model, [point], size, lambda name, grid: tap(grid), layout) as passed:
        maps = LayerGradCam(forward, tap).attribute(x)
    return maps[:, 0].detach() / scale, seen["logits"], seen["targets"]


class _Logits(nn.Module):
    """The network as captum's pixel methods call it: in and out in single precision or better."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, scale: float) -> None:
        super().__init__()
        self.model, self.dtype, self.scale = model, dtype, scale

    def forward(self, x: Tensor) -> Tensor:
        return at_least_single(self.model(x.to(self.dtype))) * self.scale


def _to_pixels(
    model: nn.Module, x: Tensor, targets: Tensor, method: str, options: Mapping[str, Any]
) -> Tensor:
    """(N, H, W) of the methods that attribute to pixels."""
    scale = gradient_scale(x)
    network = _Logits(model, x.dtype, scale)
    x = at_least_single(x).requires_grad_()
    if method == "gradient":
        found = Saliency(network).attribute(x, targets, abs=False)
    elif method == "smooth_grad":
        devices = [x.device] if x.is_cuda else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(options["seed"])
            found = NoiseTunnel(Saliency(network)).attribute(
                x,
                nt_samples=options["samples"],
                nt_samples_batch_size=1,
                stdevs=float(options["noise"]),
                target=targets,
                abs=False,
            )
    elif method == "integrated_gradients":
        found = IntegratedGradients(network).attribute(
            x, target=targets, n_steps=options["steps"], internal_batch_size=max(len(x), 16)
        )
    elif method == "guided_backprop":
        found = _guided(network, x, targets)
    else:
        window, stride, channels = options["window"], options["stride"], x.shape[1]
        found = Occlusion(network).attribute(
            x,
            sliding_window_shapes=(channels, window, window),
            strides=(channels, stride, stride),
            target=targets,
        )
        found = found / channels  # captum gives a window's drop to each of its colours
    return found.detach().sum(1) / scale


def _guided(network: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
    relus = [m for m in network.modules() if isinstance(m, nn.ReLU)]
    if not relus:
        raise HirelabError(
            "The network has no ReLU module, so guided backpropagation would be the plain "
            "gradient; use method='gradient'."
        )
    # captum's backward hooks cannot stand on what is overwritten in place
    overwriting = [m for m in network.modules() if getattr(m, "inplace", False) is True]
    try:
        for module in overwriting:
            module.inplace = False
        with catch_warnings():
            filterwarnings("ignore", message="Setting backward hooks")
            return GuidedBackprop(network).attribute(x, targets)
    finally:
        for module in overwriting:
            module.inplace = True


def _settings(method: str, options: Mapping[str, Any], x: Tensor) -> dict[str, Any]:
    """The options in force, checked, as plain numbers."""
    found = {**METHODS[method], **options}
    short = min(x.shape[2:])
    if method == "occlusion":
        if found["window"] is None:
            found["window"] = max(1, short // 7)
        if found["stride"] is None:
            found["stride"] = max(1, min(short // 14, int(found["window"])))
    limits = {"samples": None, "steps": None, "window": short, "stride": found.get("window")}
    for name, most in limits.items():
        if name not in found:
            continue
        value = found[name]
        whole = hasattr(value, "__index__") and not isinstance(value, bool)
        if not whole or value < 1 or (most is not None and value > most):
            span = "from 1" + (f" to {most}" if most is not None else "")
            raise HirelabError(f"{name} is {value!r}; give a whole number {span}.")
        found[name] = index(value)
    if "noise" in found and not float(found["noise"]) > 0:
        raise HirelabError(f"noise is {found['noise']!r}; give a standard deviation above 0.")
    return found


def _images(model: nn.Module, x: Tensor) -> np.ndarray:
    """(N, H, W, 3) uint8: what the network was shown, by its own mean and standard deviation."""
    if x.shape[1] != 3:
        return np.zeros((len(x), 0, 0, 3), np.uint8)
    cfg = getattr(model, "pretrained_cfg", None) or {}
    mean, std = cfg.get("mean", IMAGENET_MEAN), cfg.get("std", IMAGENET_STD)
    return pixels(x, *(pair if len(pair) == 3 else pair * 3 for pair in (mean, std)))
