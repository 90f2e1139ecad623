"""The same function, arranged for inference: `deploy` folds and regroups, exactly.

What changes, and why it is faster:

- every BatchNorm disappears into the linear layer before or after it;
- a token's channels stand together in memory (channels last), so that every 1x1 convolution is one
  large matrix product, and a region along the width needs no copy where nothing is shifted or
  padded;
- shift, pad and partition are one gather, restore is another, by the index maps of `rearrange`;
- weights are reordered once, so that a region's tokens follow each other whole.

The result computes in evaluation mode only; gradients reach the input, not the weights.

Where a part can be computed in several ways, it names them (`Linear`, `DeployedAxis`,
`DeployedMlp`), and `deploy` with ``tune=True`` measures which is the fastest (see `tuning`).

On a processor it calls a private operator of PyTorch (`_onednn_linear`). The environment variable
HIRELAB_ONEDNN=0, set before hirelab is imported, does without: slower, and equal up to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._shared.checks import check_img_size, check_whole
from .._shared.errors import HirelabError
from ..hooks.points import Cache, Probe, Probed, UnknownPoint
from ..rearrange import EMPTY, landing_slots, slot_tokens
from ..results import hardware
from .arguments import check_input
from .hire_mlp import (
    AxisBranch,
    ConvNormAct,
    Gate,
    HireBlock,
    HireMLP,
    HireStage,
    blocks_of,
    stages_of,
)
from .tuning import Tunable, Tuning, tune_parts

Norm = nn.BatchNorm2d | nn.SyncBatchNorm
_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)
_Indices = tuple[Tensor | None, Tensor | None]
_KEPT_SIZES = 8  # index maps that a branch remembers, a pair for each input size
_ONEDNN = os.environ.get("HIRELAB_ONEDNN", "1") != "0"
_PARTS = (2, 4, 8)  # pieces of a map that a channel MLP may take one after another


def _affine(norm: Norm) -> tuple[Tensor, Tensor]:
    """A BatchNorm in evaluation as ``scale * x + offset``, in float64."""
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def _recorded() -> bool:
    """Whether a compiler or an exporter writes down what is computed, instead of a pass."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _onednn_serves(x: Tensor) -> bool:
    """Whether `_onednn_linear` can compute on ``x``, here and now."""
    return (
        _ONEDNN
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not (torch.is_grad_enabled() and x.requires_grad)
        and not _recorded()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _onednn_linear(
    x: Tensor, weight: Tensor, bias: Tensor, activation: str | None
) -> Tensor | None:
    """The layer by oneDNN's product with an activation inside, or None where that cannot serve.

    PyTorch's compiler emits that call; here it serves eager inference. Measured on two cores of an
    AMD processor it runs at the speed of the machine's arithmetic from the widest map to the
    smallest, where F.linear (MKL) stays at half of it, F.conv2d reorders large weights anew for
    every small map, and an activation apart costs as much as the product before it. It has no
    gradient, and its name begins with an underscore: this is the one place that knows it.
    """
    if not _onednn_serves(x):
        return None
    b, c, h, w = x.shape
    tokens = x.permute(0, 2, 3, 1).reshape(b * h * w, c)
    y = torch.ops.mkldnn._linear_pointwise(tokens, weight, bias, activation or "none", [], "none")
    return y.view(b, h, w, len(bias)).permute(0, 3, 1, 2)


class Linear(Tunable):
    """A fixed linear layer, and an activation, on the channels of (B, C, H, W) in channels-last
    memory, where it is one matrix product of all tokens with the weight.

    Buffers, not parameters: nothing trains here. Its ways are products of different libraries, the
    weight's rows or its columns whole in memory, and the activation inside the product or apart. A
    compiler gets the convolution, whatever the way, and chooses for itself.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, weight: Tensor, bias: Tensor, like: Tensor, activation: str | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight.to(like).contiguous())
        self.register_buffer("bias", bias.to(like).contiguous())
        self.activation = activation
        self.way = "oneDNN"

    def ways(self, x: Tensor) -> tuple[str, ...]:
        if not _onednn_serves(x):
            return "F.conv2d", "F.linear"
        inside = "oneDNN", "oneDNN by columns"
        apart = tuple(f"{way}, GELU apart" for way in inside if self.activation == "gelu")
        return *inside, *apart, "F.conv2d", "F.linear"

    def use(self, way: str) -> None:
        super().use(way)
        columns = "by columns" in way
        self.weight = self.weight.T.contiguous().T if columns else self.weight.contiguous()

    def alike(self) -> tuple[Any, ...]:
        return *self.weight.shape, self.activation

    def forward(self, x: Tensor) -> Tensor:
        if self.way.startswith("oneDNN"):
            inside = None if self.way.endswith("apart") else self.activation
            y = _onednn_linear(x, self.weight, self.bias, inside)
            if y is not None:
                return y if inside == self.activation else self.activate(y)
        if self.way == "F.linear" and not _recorded():
            y = F.linear(x.permute(0, 2, 3, 1), self.weight, self.bias).permute(0, 3, 1, 2)
        else:
            y = F.conv2d(x, self.weight[..., None, None], self.bias)
        return self.activate(y)

    def activate(self, y: Tensor) -> Tensor:
        if self.activation == "gelu":
            return F.gelu(y)
        return y.relu_() if self.activation == "relu" else y

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, activation={self.activation}"


def _fold(
    conv: nn.Conv2d, before: Norm | None = None, after: Norm | None = None
) -> tuple[Tensor, Tensor]:
    """Weight (out, in) and bias of ``after(conv(before(x)))``, in float64.

    ``before`` normalises single tokens: for a convolution that reads regions its scale and offset
    are repeated for every token of the region.
    """
    # copies, also where the network is in float64 already and nothing gets folded
    weight = conv.weight.to(torch.float64, copy=True).flatten(1)
    bias = weight.new_zeros(len(weight))
    if conv.bias is not None:
        bias += conv.bias
    if before is not None:
        scale, offset = _affine(before)
        tokens = weight.shape[1] // len(scale)  # channel-major: c * region + token
        bias = bias + weight @ offset.repeat_interleave(tokens)
        weight = weight * scale.repeat_interleave(tokens)
    if after is not None:
        scale, offset = _affine(after)
        weight, bias = weight * scale[:, None], bias * scale + offset
    return weight, bias


def _tokens_together(weight: Tensor, region: int) -> Tensor:
    """Reorder the last axis from channel-major (c * region + t) to token by token (t * C + c)."""
    return weight.unflatten(-1, (-1, region)).transpose(-1, -2).flatten(-2)


def _tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) in channels-last memory as (B, H*W, C), without a copy."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _map(x: Tensor, like: Tensor) -> Tensor:
    """(B, H*W, C) as (B, C, H, W) with the height and width of ``like``, without a copy."""
    return x.unflatten(1, like.shape[2:]).permute(0, 3, 1, 2)


def _unless_in_order(index: Tensor, size: int, device: torch.device) -> Tensor | None:
    """None where an index of ``size`` places is 0, 1, 2, ...: a view does without gathering. Whole
    and in order: a line whose end is padding, or cropped, starts in order too."""
    return None if torch.equal(index, torch.arange(size)) else index.to(device)


class DeployedChannel(Linear):
    """`ChannelBranch`."""

    def __init__(self, weight: Tensor, bias: Tensor, like: Tensor) -> None:
        super().__init__(weight, bias, like)
        self.out = Probe()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(super().forward(x))


class DeployedAxis(Tunable):
    """An `AxisBranch` with its norms, and the block's first, folded in.

    Its ways: gather a region's tokens and put them back; or read regions, and write them too, by
    strided convolutions (see `strided`), which need no copy where nothing is shifted or padded. A
    compiler gets the gathers.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, branch: AxisBranch, norm: Norm) -> None:
        super().__init__()
        convs = [m for m in branch.mix if isinstance(m, nn.Conv2d)]
        norms = [m for m in branch.mix if isinstance(m, _NORMS)]
        like = convs[0].weight
        self.dim, self.region, self.shift = branch.dim, branch.region, branch.shift
        self.padding, self.cross_region = branch.padding, branch.cross_region
        self.restore = branch.restore
        # A zero in a padded slot is a zero after the norm; it cannot be folded past that.
        self.zero = branch.padding == "zero"
        if self.zero:
            scale, offset = _affine(norm)
            self.register_buffer("scale", scale.to(like))
            self.register_buffer("offset", offset.to(like))
        layers = []
        for i, conv in enumerate(convs):
            first, last = i == 0, i == len(convs) - 1
            weight, bias = _fold(
                conv, norm if first and not self.zero else None, None if last else norms[i]
            )
            if first:
                weight = _tokens_together(weight, self.region)
            if last:
                weight = _tokens_together(weight.T, self.region).T
                bias = _tokens_together(bias, self.region)
            layers.append(Linear(weight, bias, like, None if last else "relu"))
        self.layers = nn.Sequential(*layers)
        self.out = Probe()
        self.way = "gathers"
        self._indices: dict[Any, _Indices] = {}

    def ways(self, x: Tensor) -> tuple[str, ...]:
        writes = ("strided reading and writing",) if len(self.layers) > 1 else ()
        return "gathers", "strided reading", *writes

    def use(self, way: str) -> None:
        super().use(way)
        if way != "gathers":  # a convolution reads a region's weights in this order
            for layer in self._linears():
                layer.weight = layer.weight.contiguous()

    def alike(self) -> tuple[Any, ...]:
        settings = self.shift, self.padding, self.cross_region, self.restore
        return self.dim, self.region, *settings, *(layer.alike() for layer in self._linears())

    def _linears(self) -> list[Linear]:
        return [layer for layer in self.layers if isinstance(layer, Linear)]

    def indices(self, x: Tensor) -> _Indices:
        """Where each slot takes its token, and where each token's result lies; None for "in order".

        Made anew inside a graph that is compiled or exported, where sizes may be symbols.
        """
        height, width = x.shape[2:]
        if _recorded():
            return self._make_indices(height, width, x.device)
        return self._kept(self._grid_maps, height, width, x.device)

    def _kept(
        self, make: Callable[..., _Indices], height: int, width: int, device: torch.device
    ) -> _Indices:
        """The index maps of a size on a device, as ``make`` makes them, remembered."""
        key = (make.__name__, height, width, device)
        if (kept := self._indices.get(key)) is None:
            with torch.inference_mode(False):  # the maps outlive the mode of this pass
                kept = make(height, width, device)
            if len(self._indices) >= _KEPT_SIZES:
                self._indices.clear()
            self._indices[key] = kept
        return kept

    def _grid_maps(self, height: int, width: int, device: torch.device) -> _Indices:
        gather, back = self._make_indices(height, width, torch.device("cpu"))
        return (
            _unless_in_order(gather, height * width, device),
            _unless_in_order(back, gather.numel(), device),
        )

    def _line_maps(self, height: int, width: int, device: torch.device) -> _Indices:
        """The maps of `indices` for one line; `EMPTY` slots read the zero after the last token."""
        size = height if self.dim == 2 else width
        slots = slot_tokens(size, self.region, self.shift, self.padding, self.cross_region)
        landing = landing_slots(size, self.region, self.shift, self.cross_region, self.restore)
        return (
            _unless_in_order(slots.masked_fill(slots == EMPTY, size), size, device),
            _unless_in_order(landing, len(slots), device),
        )

    def _make_indices(self, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The index maps of `rearrange` for one axis, carried to positions in the whole map.

        Slots are laid out region by region with a region's tokens side by side: (regions, W,
        region) along the height, (H, regions, region) along the width.
        """
        size = height if self.dim == 2 else width
        slots = slot_tokens(
            size, self.region, self.shift, self.padding, self.cross_region, device
        ).unflatten(0, (-1, self.region))
        landing = landing_slots(
            size, self.region, self.shift, self.cross_region, self.restore, device
        )
        rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
        if self.dim == 2:
            gather = slots[:, None, :] * width + columns[None, :, None]
            into, inside = landing // self.region, landing % self.region
            back = (into[:, None] * width + columns) * self.region + inside[:, None]
            empty = slots[:, None, :].expand_as(gather) == EMPTY
        else:
            gather = rows[:, None, None] * width + slots
            back = rows[:, None] * slots.numel() + landing
            empty = slots.expand_as(gather) == EMPTY
        if self.zero:
            gather = gather.masked_fill(empty, height * width)  # the row of zeros at the end
        return gather.flatten(), back.flatten()

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "gathers" or _recorded():
            return self.out(self._by_gathers(x))
        return self.out(self._strided(x))

    def _strided(self, x: Tensor) -> Tensor:
        """Regions read by a convolution; written by a transposed one, or put back by a gather."""
        height, width = x.shape[2:]
        line, landing = self._kept(self._line_maps, height, width, x.device)
        axis = self.dim - 1  # of the map as (B, H, W, C), which is how it lies in memory
        tokens = x.permute(0, 2, 3, 1)
        if self.zero:
            tokens = tokens * self.scale + self.offset
        if line is not None:
            if self.zero:
                tokens = F.pad(tokens, (0, 0, 0, 1) if axis == 2 else (0, 0, 0, 0, 0, 1))
            tokens = tokens.index_select(axis, line)
        stride = (self.region, 1) if self.dim == 2 else (1, self.region)
        first, *rest = self._linears()
        y = F.conv2d(tokens.permute(0, 3, 1, 2), self._kernel(first.weight), first.bias, stride)
        y = first.activate(y)
        if self.way == "strided reading":
            for layer in rest:
                y = layer(y)
            return self._put_back(y, x)
        *inner, last = rest
        for layer in inner:
            y = layer(y)
        y = F.conv_transpose2d(y, self._kernel(last.weight.T), None, stride).permute(0, 2, 3, 1)
        # a transposed convolution has one bias for a channel, a branch one for each slot
        bias = last.bias.unflatten(0, (self.region, -1)).repeat(y.shape[axis] // self.region, 1)
        y = y + (bias if axis == 2 else bias[:, None])
        return (y if landing is None else y.index_select(axis, landing)).permute(0, 3, 1, 2)

    def _kernel(self, weight: Tensor) -> Tensor:
        """(N, region * C), token by token, as a convolution's (N, C, region, 1), or (N, C, 1,
        region) along the width."""
        kernel = weight.unflatten(1, (self.region, -1)).transpose(1, 2)
        return kernel.unsqueeze(3 if self.dim == 2 else 2)

    def _by_gathers(self, x: Tensor) -> Tensor:
        tokens = _tokens(x)
        gather, _ = self.indices(x)
        if self.zero:
            tokens = F.pad(tokens * self.scale + self.offset, (0, 0, 0, 1))
        if gather is not None:
            tokens = tokens.index_select(1, gather)
        elif self.zero:
            tokens = tokens[:, :-1]
        # a region's tokens follow each other: seen as one longer token, in a map of one row
        y = tokens.unflatten(1, (-1, self.region)).flatten(2)
        y = y.unsqueeze(1).permute(0, 3, 1, 2)
        return self._put_back(self.layers(y), x)

    def _put_back(self, y: Tensor, x: Tensor) -> Tensor:
        """Regions of concatenated tokens as the map of ``x``."""
        y = _tokens(y).unflatten(2, (self.region, x.shape[1])).flatten(1, 2)
        back = self.indices(x)[1]
        return _map(y if back is None else y.index_select(1, back), x)


class DeployedMixing(nn.Module):
    """`HireMixing` on raw input: the block's first norm is inside the branches."""

    def __init__(self, block: HireBlock) -> None:
        super().__init__()
        hire, norm = block.hire, block.norm1
        self.height = self.width = self.channel = self.gate = self.proj = None
        if hire.height is not None:
            self.height = DeployedAxis(hire.height, norm)
        if hire.width is not None:
            self.width = DeployedAxis(hire.width, norm)
        if hire.channel is not None:
            self.channel = DeployedChannel(*_fold(hire.channel.fc, before=norm), like=norm.weight)
        if hire.gate is not None and isinstance(hire.proj, nn.Conv2d):
            self.gate = deepcopy(hire.gate)
            self.gate.out = Probe(hire.gate.out.kind)  # without the hooks at the network's
            self.proj = Linear(*_fold(hire.proj), like=norm.weight)
        self.fused = Probe()

    def forward(self, x: Tensor) -> Tensor:
        outs = []
        if self.height is not None:
            outs.append(self.height(x))
        if self.width is not None:
            outs.append(self.width(x))
        if self.channel is not None:
            outs.append(self.channel(x))
        if self.gate is None or self.proj is None:
            return self.fused(sum(outs[1:], outs[0]))
        weights = _weigh(self.gate, outs)
        fused = outs[0] * weights[0]
        for out, weight in zip(outs[1:], weights[1:], strict=True):
            fused = torch.addcmul(fused, out, weight)
        return self.proj(self.fused(fused))


def _weigh(gate: Gate, outs: list[Tensor]) -> tuple[Tensor, ...]:
    """The gate's weights, (B, C, 1, 1) for each branch."""
    means = torch.stack([out.mean((2, 3)) for out in outs]).sum(0)
    return gate(means)[..., None, None].unbind(2)


class DeployedMlp(Tunable):
    """`ChannelMlp` with the block's second norm folded in.

    Its ways: all tokens at once, or in parts one after another, whose hidden values, four times as
    many as the map's, stay near the processor. Who reads or edits ``hidden`` gets it whole.
    """

    def __init__(self, block: HireBlock) -> None:
        super().__init__()
        like = block.norm2.weight
        self.fc1 = Linear(*_fold(block.mlp.fc1, before=block.norm2), like, "gelu")
        self.hidden = Probe()
        self.fc2 = Linear(*_fold(block.mlp.fc2), like=like)
        self.way = "whole"

    def ways(self, x: Tensor) -> tuple[str, ...]:
        return "whole", *(f"{n} parts" for n in _PARTS)

    def alike(self) -> tuple[Any, ...]:
        return *self.fc1.alike(), *self.fc2.alike()

    def forward(self, x: Tensor) -> Tensor:
        watched = self.hidden._forward_hooks or self.hidden._forward_pre_hooks
        if self.way == "whole" or watched or _recorded():
            return self.fc2(self.hidden(self.fc1(x)))
        parts = _tokens(x).flatten(0, 1).chunk(int(self.way.split()[0]))
        done = [self.fc2(self.fc1(part[None, None].permute(0, 3, 1, 2))) for part in parts]
        return _map(torch.cat([_tokens(part)[0] for part in done]).unflatten(0, (len(x), -1)), x)


class DeployedBlock(nn.Module):
    """`HireBlock`: (B, C, H, W) in channels-last memory to the same."""

    def __init__(self, block: HireBlock) -> None:
        super().__init__()
        self.hire = DeployedMixing(block)
        self.mid = Probe()
        self.mlp = DeployedMlp(block)
        self.out = Probe()

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(x + self.hire(x))
        return self.out(x + self.mlp(x))


class DeployedConv(nn.Module):
    """`ConvNormAct` with its norm folded in, in channels-last memory."""

    weight: Tensor
    bias: Tensor

    def __init__(self, module: ConvNormAct) -> None:
        super().__init__()
        conv = module.conv
        assert conv.bias is not None
        assert not isinstance(conv.padding, str)
        scale, offset = _affine(module.norm)
        weight = (conv.weight.double() * scale[:, None, None, None]).to(conv.weight)
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", (conv.bias.double() * scale + offset).to(conv.bias))
        self.stride, self.padding = conv.stride, conv.padding
        self.out = Probe()

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding).relu_()
        return self.out(y.contiguous(memory_format=torch.channels_last))


class DeployedStage(nn.Module):
    """`HireStage`."""

    def __init__(self, stage: HireStage) -> None:
        super().__init__()
        down = stage.downsample
        self.downsample = DeployedConv(down) if isinstance(down, ConvNormAct) else nn.Identity()
        self.blocks = nn.Sequential(*(DeployedBlock(block) for block in blocks_of(stage)))
        self.out = Probe()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.blocks(self.downsample(x)))


class DeployedHireMLP(Probed, nn.Module):
    """What `deploy` returns: the function of a `HireMLP` in evaluation mode, folded."""

    scale: Tensor
    offset: Tensor
    tuning: Tuning | None = None
    """What was chosen, where it was deployed with ``tune=True``."""

    def __init__(self, model: HireMLP) -> None:
        super().__init__()
        assert isinstance(model.norm, _NORMS)
        self.in_chans, self.num_classes = model.in_chans, model.num_classes
        self.num_features, self.feature_info = model.num_features, deepcopy(model.feature_info)
        self.stem = DeployedConv(model.stem)
        self.stages = nn.Sequential(*(DeployedStage(stage) for stage in stages_of(model)))
        scale, offset = _affine(model.norm)
        self.register_buffer("scale", scale.to(model.norm.weight)[:, None, None])
        self.register_buffer("offset", offset.to(model.norm.weight)[:, None, None])
        self.features = Probe()
        self.global_pool = deepcopy(model.global_pool)
        self.pooled = Probe(model.pooled.kind)
        self.head = deepcopy(model.head)
        self.logits = Probe(model.logits.kind)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> DeployedHireMLP:
        """There is no training mode: its BatchNorms are gone."""
        if mode:
            raise RuntimeError(
                "A deployed network has no BatchNorms left and cannot train; train the network it "
                "was made from, and deploy that again."
            )
        return super().train(False)

    def run_with_cache(
        self, x: Tensor, points: str | Iterable[str] = "*", **options: Any
    ) -> tuple[Tensor | None, Cache]:
        """As `Probed.run_with_cache`, for the points that are still there."""
        try:
            return super().run_with_cache(x, points, **options)
        except UnknownPoint as error:
            raise UnknownPoint(
                f"{error} A deployed network has folded some points away; read those on the "
                "network it was made from."
            ) from None

    def forward_features(self, x: Tensor) -> Tensor:
        """The normalised map of the last stage."""
        x = check_input(x, self.in_chans).contiguous(memory_format=torch.channels_last)
        return self.features(self.stages(self.stem(x)) * self.scale + self.offset)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.head(self.pooled(self.global_pool(self.forward_features(x)))))


def deploy(
    model: HireMLP,
    tune: bool = False,
    img_size: int | tuple[int, int] | None = None,
    batch_size: int | None = None,
) -> DeployedHireMLP:
    """An equal network for inference; ``model`` is left as it is and shares no memory with it.

    The current settings (shift, padding, cross-region mode, restore) are built in. Works for any
    input size, and keeps the points that still exist.

    Args:
        tune: measure, for some seconds, which way of computing each part is the fastest on this
            machine with torch's current number of threads, and keep it: the same function up to
            rounding. ``deployed.tuning`` prints what was chosen. Another size or batch works, and
            may be better served by other ways.
        img_size: (height, width) in pixels to tune for, or one number for a square; 224 where it is
            not given.
        batch_size: images in a batch to tune for; 1 where it is not given.

    Raises:
        HirelabError: for something else than a Hire-MLP of this library, a network without its
            final norm (pruned for features), or a size that cannot be measured.
    """
    if not isinstance(model, HireMLP):
        raise HirelabError(
            f"deploy takes a HireMLP; this is a {type(model).__name__}: give a network of "
            "hirelab.create."
        )
    if not isinstance(model.norm, _NORMS):
        raise HirelabError(
            "The network was pruned and has no final norm; deploy it before pruning."
        )
    if not isinstance(tune, bool):
        raise HirelabError(f"tune is {tune!r}; give True or False.")
    if not tune and (img_size is not None or batch_size is not None):
        raise HirelabError(
            "img_size and batch_size say what tune=True measures for; add it, or leave them out: "
            "a deployed network takes any size."
        )
    size = check_img_size(224 if img_size is None else img_size)
    batch = check_whole("batch_size", 1 if batch_size is None else batch_size, 1, unit="images")
    if tune and model.stem.conv.weight.is_meta:
        raise HirelabError(
            "The network is on the meta device, where nothing is computed; deploy it without "
            "tune=True."
        )
    with torch.inference_mode(False), torch.no_grad():
        deployed = DeployedHireMLP(model)
        if tune:
            _tune(deployed, size, batch)
    return deployed


def _tune(network: DeployedHireMLP, size: tuple[int, int], batch: int) -> None:
    """Let every part use its fastest way."""
    like = network.stem.weight
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, network.in_chans, *size, generator=generator).to(like)
    choices, times_as_fast = tune_parts(network, x)
    network.tuning = Tuning(size, batch, hardware(), choices, times_as_fast)
