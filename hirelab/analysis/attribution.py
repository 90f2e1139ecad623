"""Which places of an image speak for a class: Grad-CAM and other attributions, on captum.

Grad-CAM (Selvaraju et al., https://arxiv.org/abs/1610.02391) looks at one point of a network: every
channel is weighed by the average of its gradient over the map, and the weighted channels are added
up. The signs are kept: below zero speaks against the class. Only drawing takes the positive part.

The point is read by `hirelab.hooks.layouts`, which brings it onto the image. Inside a branch of a
Hire-MLP that means carrying it back by the network's own rearrangement, and Grad-CAM is computed on
that grid: the map at ``height.mixed`` therefore equals the map at ``height.out``, and that at
``height.regions`` the one at ``height.shifted``.

Every call runs the network in evaluation mode and without gradients of the parameters, and leaves
modes, parameters and hooks as they were, also after an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, filterwarnings, warn

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._shared.checks import check_choice, check_whole
from .._shared.errors import HirelabError, unknown
from ..datasets.transforms import IMAGENET_MEAN, IMAGENET_STD, pixels
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
    scores,
    to_model_device,
)
from ..hooks.layouts import LAYOUTS, default_point, reading, resolve
from ..results import Result

if TYPE_CHECKING:
    from ..viz.figures import Figure


@dataclass(frozen=True, eq=False)
class Attribution(Result):
    """Maps of what spoke for a class (above zero) and against it (below), one for each image.

    Attributes:
        network: the network's class or timm's name of it.
        method: one of `METHODS`; ``options`` are the current ones.
        point: where the network was looked at; "" for the methods that look at pixels.
        targets: (N,) the class that each map is about.
        scores: (N,) its logit; ``probabilities``: (N,) its softmax.
        predicted: (N,) the network's own class; ``confidence``: (N,) its softmax.
        maps: (N, h, w) signed, in the image's order, in units of the logit (times the point's
            activation over its own unit, for Grad-CAM).
        img_size: (height, width) of the input in pixels.
        images: (N, H, W, 3) uint8 for drawing; (N, 0, 0, 3) where the input was not RGB.
        trained: whether the weights look trained, None where nothing tells; see
            `is_trained`.
        names: (N,) what the targets are called, by the network's own ``label_names`` or "class 5".
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
    img_size: list[int]
    images: np.ndarray
    trained: bool | None = None
    options: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.maps)

    @cached_property
    def upsampled(self) -> np.ndarray:
        """(N, H, W) the signed maps at the input's size, bilinear between the tokens' centres."""
        return upsample(self.maps, self.img_size)

    @property
    def positive(self) -> np.ndarray:
        """(N, H, W) what speaks for the class: the positive part of `upsampled`."""
        return np.maximum(self.upsampled, 0)

    def overlay(self, names: Sequence[str] | None = None) -> Figure:
        """The positive part over each image, a `hirelab.viz.figures.Figure`.

        Args:
            names: of all classes, in the place of the network's own.

        Raises:
            HirelabError: where the input was not RGB, so that there is no image to draw on.
        """
        return self._draw("overlay", names)

    def plot(self, names: Sequence[str] | None = None) -> Figure:
        """Each image, the positive part over it, and the signed map, a `Figure`."""
        return self._draw("signed", names)

    def _draw(self, view: str, names: Sequence[str] | None) -> Figure:
        from ..viz import overlay

        if not self.images.size:
            raise HirelabError(
                "The input was not RGB, so there is no image to draw on; draw the arrays `maps` "
                "with hirelab.viz.maps."
            )
        own = self.names or [f"class {t}" for t in self.targets]
        called = [names[t] for t in self.targets] if names else own
        titles = [f"{n}, {p:.0%}" for n, p in zip(called, self.probabilities, strict=True)]
        rows, cols = self.maps.shape[1:]
        where = f" at {self.point}, {rows} x {cols}" if self.point else ", one value per pixel"
        note = f"{self.network}: {self.method}{where}"
        if self.trained is False:
            note += "; the weights are untrained"
        smooth = 1 if self.point else max(1, min(self.img_size) // 32) | 1
        return overlay.overlay_figure(
            self.images, self.upsampled, titles, note, with_signed=view == "signed", smooth=smooth
        )


def beside(found: Mapping[str, Attribution]) -> Figure:
    """Signed maps of one image side by side, such as of several points, classes or networks.

    Args:
        found: an attribution of the same single image for every title.

    Returns:
        A `hirelab.viz.figures.Figure`; every map has its own scale.

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
    notes = ["{} x {} tokens".format(*one.maps.shape[1:]) if one.point else "one value per pixel"
             for one in kept]  # fmt: skip
    return overlay.maps_figure(first[0], [one.upsampled[0] for one in kept], list(found), notes)


def upsample(maps: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """(N, h, w) maps at (height, width) pixels: bilinear, a token at the centre of its cell."""
    return _upsample(torch.from_numpy(np.ascontiguousarray(maps)), size).numpy()


def _upsample(maps: Tensor, size: Sequence[int]) -> Tensor:
    if maps.shape[1:] == tuple(size):
        return maps
    return F.interpolate(maps[:, None], tuple(size), mode="bilinear", align_corners=False)[:, 0]


# ------------------------------------------------------------------ the methods


def grad_cam(
    model: nn.Module,
    x: Tensor,
    target: Target = None,
    point: str | None = None,
    *,
    layout: str | None = None,
    grid: Sequence[int] | None = None,
    call: int | None = None,
) -> Attribution:
    """Grad-CAM of a batch of images at one point, in one forward and one backward pass.

    Args:
        model: a classifier: a Hire-MLP, or any network of timm.
        x: (N, C, H, W) normalised images.
        target: the class to explain, one for all images or one for each; the predicted for None.
        point: a named point of a Hire-MLP (``model.points()``; ``stages.3`` means its ``out``), or
            any module by its name; the network's last map for None, see
            `suggest_target_layer`.
        layout, grid, call: how the point's tensor lies and which call to read, where that cannot
            be worked out, see `hirelab.hooks.layouts.reading`.

    Returns:
        An `Attribution` with signed maps (N, h, w) in the image's order.

    Raises:
        UnknownPoint: for a point that does not exist, with near names.
        HirelabError: one sentence for an input, class or point that gives no map: a gate or
            vector, a point that is not passed or passed twice, one that the logits do not depend
            on, a class out of range, values that are not finite.
    """
    where = {"layout": layout, "grid": grid, "call": call}
    return _attribute(model, x, target, point, "grad_cam", where, {})


def attribute(
    model: nn.Module,
    x: Tensor,
    target: Target = None,
    point: str | None = None,
    *,
    method: str = "grad_cam",
    layout: str | None = None,
    grid: Sequence[int] | None = None,
    call: int | None = None,
    **options: Any,
) -> Attribution:
    """Attribute a class's logit to places, by captum's methods through one call.

    Args:
        model, x, target, point, layout, grid, call: as in `grad_cam`. All methods but "grad_cam"
            and "hires_cam" attribute to pixels (summed over the colours, with their signs) and take
            no point.
        method: one of `METHODS`:

            - "grad_cam": see `grad_cam`;
            - "hires_cam": at a point too, gradient times activation place by place, summed over
              channels (Draelos and Carin 2020, https://arxiv.org/abs/2011.08891). What does not
              move the logit stays dark, whereas Grad-CAM weighs a channel by one number for the
              whole map: for an answer about one place, a box or a pixel, take this one;
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
        as `grad_cam`; HirelabError also for an unknown method or option, with near names.
    """
    where = {"layout": layout, "grid": grid, "call": call}
    return _attribute(model, x, target, point, method, where, options)


def _attribute(
    model: nn.Module,
    x: Tensor,
    target: Target,
    point: str | None,
    method: str,
    where: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Attribution:
    """Check, run, and say what was done; ``where`` are `reading`'s arguments."""
    _check_request(point, method, where, options)
    check_images(x)
    settings = _settings(method, options, x)
    to_pixels = METHODS[method].to_pixels
    if to_pixels is None:
        point = default_point(model) if point is None else resolve(model, point)
    with frozen_eval(model):
        batch = to_model_device(model, x)
        if to_pixels is None:
            assert point is not None
            maps, logits, targets = _at_point(model, batch, target, point, where, method)
        else:
            logits = scores(model, batch)
            targets = check_targets(target, logits)
            scale = gradient_scale(batch)
            values = at_least_float32(batch).requires_grad_()
            found = to_pixels(_Logits(model, batch.dtype, scale), values, targets, settings)
            maps = found.detach().sum(1) / scale
        shares = logits.softmax(1)
    _check_maps(model, maps, point)
    rows = torch.arange(len(x), device=targets.device)
    confidence, predicted = shares.max(1)
    return Attribution(
        network=model_name(model),
        method=method,
        point=point or "",
        targets=targets.cpu().numpy(),
        scores=logits[rows, targets].cpu().numpy(),
        probabilities=shares[rows, targets].cpu().numpy(),
        predicted=predicted.cpu().numpy(),
        confidence=confidence.cpu().numpy(),
        maps=maps.cpu().numpy(),
        img_size=list(x.shape[2:]),
        images=_images(model, x),
        trained=is_trained(model).trained,
        options=settings,
        names=[class_name(model, number) for number in targets.tolist()],
    )


def _check_request(
    point: str | None, method: str, where: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    if method not in METHODS:
        raise HirelabError(unknown("method", method, METHODS, f"There are {', '.join(METHODS)}."))
    known = METHODS[method].options
    for name in options:
        if name not in known:
            has = ", ".join(known) or "no options"
            raise HirelabError(unknown("option", name, known, f"{method} has {has}."))
    if where["layout"] is not None:
        check_choice("layout", where["layout"], LAYOUTS)
    if METHODS[method].to_pixels is not None and point is not None:
        raise HirelabError(
            f"point is {point!r}, and {method} attributes to pixels; leave the point out, or use "
            "method='grad_cam' or 'hires_cam'."
        )


def _check_maps(model: nn.Module, maps: Tensor, point: str | None) -> None:
    """Refuse maps with NaN, and warn of one that is zero everywhere."""
    if not torch.isfinite(maps).all():
        raise HirelabError(
            f"{type(model).__name__} computes NaN or infinite values from this input, so there "
            "is no map; look for the first point that has them (model.run_with_cache)."
        )
    if not maps.any():
        where = f" at {point}" if point else ""
        warn(
            f"The attribution{where} is zero everywhere, so nothing there moves the logit; "
            "hirelab.suggest_target_layer(model, x) names a point where something does.",
            stacklevel=4,
        )


def _at_point(
    model: nn.Module, x: Tensor, target: Target, point: str, where: Mapping[str, Any], method: str
) -> tuple[Tensor, Tensor, Tensor]:
    """(N, h, w) maps, (N, classes) logits and (N,) classes, of a method that looks at a point."""
    from captum.attr import LayerGradCam, LayerGradientXActivation

    seen: dict[str, Tensor] = {}
    tap, scale = nn.Identity(), gradient_scale(x)

    def forward(batch: Tensor) -> Tensor:
        output = check_logits(model(batch), len(batch), model)
        point_map.check_reached()
        if not output.requires_grad:
            raise HirelabError(
                f"The logits have no gradient at {point}: nothing of it reaches them; choose a "
                "point on the way to the logits."
            )
        output = at_least_float32(output)
        seen["logits"], seen["targets"] = output.detach(), check_targets(target, output.detach())
        return output.gather(1, seen["targets"][:, None])[:, 0] * scale

    # captum listens at the tap, through which the point's tensor passes as a token grid.
    with reading(model, point, **where, replace=tap) as point_map:
        taken = LayerGradCam if method == "grad_cam" else LayerGradientXActivation
        maps = taken(forward, tap).attribute(x)
    return maps.sum(1).detach() / scale, seen["logits"], seen["targets"]


# ------------------------------------------------------------------ attributing to pixels


class _Logits(nn.Module):
    """The network as captum's pixel methods call it: in and out in single precision or better."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, scale: float) -> None:
        super().__init__()
        self.model, self.dtype, self.scale = model, dtype, scale

    def forward(self, x: Tensor) -> Tensor:
        return at_least_float32(self.model(x.to(self.dtype))) * self.scale


# captum brings matplotlib, half a second, so each imports what it uses of it.
# Each takes the network, (N, C, H, W) images, (N,) classes and its options, and returns the
# attributions (N, C, H, W).


def _gradient(network: nn.Module, x: Tensor, targets: Tensor, options: Any) -> Tensor:
    from captum.attr import Saliency

    return Saliency(network).attribute(x, targets, abs=False)


def _smooth_grad(network: nn.Module, x: Tensor, targets: Tensor, options: Any) -> Tensor:
    from captum.attr import NoiseTunnel, Saliency

    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        torch.manual_seed(options["seed"])
        return NoiseTunnel(Saliency(network)).attribute(
            x,
            nt_samples=options["samples"],
            nt_samples_batch_size=1,
            stdevs=float(options["noise"]),
            target=targets,
            abs=False,
        )


def _integrated(network: nn.Module, x: Tensor, targets: Tensor, options: Any) -> Tensor:
    from captum.attr import IntegratedGradients

    return IntegratedGradients(network).attribute(
        x, target=targets, n_steps=options["steps"], internal_batch_size=max(len(x), 16)
    )


def _occlusion(network: nn.Module, x: Tensor, targets: Tensor, options: Any) -> Tensor:
    from captum.attr import Occlusion

    window, stride, channels = options["window"], options["stride"], x.shape[1]
    found = Occlusion(network).attribute(
        x,
        sliding_window_shapes=(channels, window, window),
        strides=(channels, stride, stride),
        target=targets,
    )
    return found / channels  # captum gives a window's drop to each of its colours


def _guided(network: nn.Module, x: Tensor, targets: Tensor, options: Any) -> Tensor:
    from captum.attr import GuidedBackprop

    relus = [m for m in network.modules() if isinstance(m, nn.ReLU)]
    if not relus:
        raise HirelabError(
            "The network has no ReLU module, so guided backpropagation would be the plain "
            "gradient; use method='gradient'."
        )
    # captum's backward hooks cannot stand on what is overwritten in place
    overwriting: list[Any] = [m for m in network.modules() if getattr(m, "inplace", False) is True]
    try:
        for module in overwriting:
            module.inplace = False
        with catch_warnings():
            filterwarnings("ignore", message="Setting backward hooks")
            return GuidedBackprop(network).attribute(x, targets)
    finally:
        for module in overwriting:
            module.inplace = True


ToPixels = Callable[[nn.Module, Tensor, Tensor, Mapping[str, Any]], Tensor]


@dataclass(frozen=True)
class Method:
    """How a method attributes to pixels (None for those that look at a point), and the options that
    it has, with their defaults."""

    to_pixels: ToPixels | None
    options: Mapping[str, Any] = field(default_factory=dict)


METHODS: Mapping[str, Method] = {
    "grad_cam": Method(None),
    "hires_cam": Method(None),
    "gradient": Method(_gradient),
    "smooth_grad": Method(_smooth_grad, {"samples": 16, "noise": 0.5, "seed": 0}),
    "integrated_gradients": Method(_integrated, {"steps": 32}),
    "guided_backprop": Method(_guided),
    "occlusion": Method(_occlusion, {"window": None, "stride": None}),
}
"""The methods by name, see `attribute`."""


def _settings(method: str, options: Mapping[str, Any], x: Tensor) -> dict[str, Any]:
    """The method's options and what was given in their place, checked, as plain numbers."""
    found = {**METHODS[method].options, **options}
    short = min(x.shape[2:])
    if method == "occlusion":
        window = max(1, short // 7) if found["window"] is None else found["window"]
        found["window"] = check_whole("window", window, 1, short, "pixels")
        stride = found["stride"]
        stride = max(1, min(short // 14, found["window"])) if stride is None else stride
        found["stride"] = check_whole("stride", stride, 1, found["window"], "pixels")
    for name in ("samples", "steps"):
        if name in found:
            found[name] = check_whole(name, found[name], 1)
    if "noise" in found and not float(found["noise"]) > 0:
        raise HirelabError(f"noise is {found['noise']!r}; give a standard deviation above 0.")
    return found


def _images(model: nn.Module, x: Tensor) -> np.ndarray:
    """(N, H, W, 3) uint8: what the network was shown, by its own mean and standard deviation."""
    if x.shape[1] != 3:
        return np.zeros((len(x), 0, 0, 3), np.uint8)
    cfg = pretrained_cfg(model)
    mean, std = cfg.get("mean", IMAGENET_MEAN), cfg.get("std", IMAGENET_STD)
    return pixels(x, *(pair if len(pair) == 3 else pair * 3 for pair in (mean, std)))
