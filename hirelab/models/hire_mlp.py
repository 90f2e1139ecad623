"""Hire-MLP, a vision backbone of rearranged tokens and linear layers.

Paper: `Hire-MLP: Vision MLP via Hierarchical Rearrangement`, Guo et al., CVPR 2022,
    https://arxiv.org/abs/2108.13341
Credit: the authors' network, https://github.com/ggjy/Hire-Wave-MLP.pytorch, is the reference for
    everything that the paper leaves open. Where the two differ this file follows the code, whose
    parameters and operations are the published ones, and an argument gives the paper's form:
    - fusion: the code weighs the branches by a gate and projects the sum ("gate"); the paper's
      equation adds them up ("sum");
    - norm: BatchNorm, where the paper's first equation says LayerNorm;
    - shift: block j of a stage shifts by ``(j mod shift_cycle) * shift`` tokens, so the first block
      of every stage does not shift, and stage 3 goes 0, 1, 2, 0, ... where the paper says 1.

Every intermediate passes through a `Probe`; the dotted path of the probe is its public name.
"""

# Annotations stay types here and are not deferred: torch.fx writes those of `forward` into the
# graph that it traces, and TorchScript cannot read them there as text.

import warnings
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import torch
import torch.fx
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import DropPath, calculate_drop_path_rates, create_classifier, trunc_normal_
from timm.models import checkpoint_seq, generate_default_cfgs, is_model, model_entrypoint
from timm.models import register_model as timm_register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from .._shared.checks import check_choice, check_whole
from .._shared.errors import HirelabError, unknown
from ..hooks.points import Probe, Probed
from ..rearrange import AXES, Rearrangement, check_settings, partition, shift, unpartition, unshift
from .arguments import BRANCHES, FUSIONS, check_branches, check_input, check_stages, per_stage
from .builder import build
from .pretrained import bundled, path_of

__all__ = ["HireMLP"]

# The rearrangement asks for sizes in plain Python; torch.fx records it as one call each.
for _name in ("shift", "unshift", "partition", "unpartition", "check_input"):
    torch.fx.wrap(_name)


class ConvNormAct(nn.Module):
    """Strided convolution, BatchNorm, ReLU: the stem and the downsampling between stages."""

    def __init__(
        self, in_chs: int, out_chs: int, kernel: int, stride: int, padding: int, **dd: Any
    ):
        super().__init__()
        self.conv = nn.Conv2d(in_chs, out_chs, kernel, stride, padding, **dd)
        self.norm = nn.BatchNorm2d(out_chs, **dd)
        self.act = nn.ReLU()
        self.out = Probe()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.act(self.norm(self.conv(x))))


def _region_mlp(chs: int, hidden: int, layers: int, **dd: Any) -> nn.Sequential:
    """The linear layers that mix a region's concatenated tokens (paper section 3.2).

    Two layers are the paper's choice: a bottleneck of ``hidden`` channels. One goes straight from
    ``chs`` to ``chs``; more add layers inside the bottleneck (their widths are our reading: the
    paper prints only the count). 1x1 convolutions; all but the last without bias, since a
    BatchNorm follows.
    """
    widths = [chs, *[hidden] * (layers - 1), chs]
    parts: list[tuple[str, nn.Module]] = []
    for i, (before, after) in enumerate(pairwise(widths), start=1):
        last = i == layers
        parts.append((f"fc{i}", nn.Conv2d(before, after, 1, bias=last, **dd)))
        if not last:
            parts += [(f"norm{i}", nn.BatchNorm2d(after, **dd)), (f"act{i}", nn.ReLU())]
    return nn.Sequential(OrderedDict(parts))


class AxisBranch(nn.Module):
    """Rearrange along one axis, mix inside regions, restore: (B, C, H, W) to the same shape.

    ``shift``, ``padding``, ``cross_region`` and ``restore`` have no parameters and may be set on a
    built network; ``region`` sets the width of the layers and may not.
    """

    def __init__(
        self,
        dim: int,
        axis: str,
        region: int,
        shift: int,
        padding: str,
        cross_region: str,
        restore: bool,
        fc_layers: int,
        **dd: Any,
    ):
        super().__init__()
        check_settings(region, shift, padding, cross_region)
        self.axis = axis
        self.dim = AXES[axis]
        self.region = region
        self.shift = shift
        self.padding = padding
        self.cross_region = cross_region
        self.restore = restore
        self.shifted = Probe()
        self.regions = Probe("region grid")
        self.mix = _region_mlp(dim * region, dim // 2, fc_layers, **dd)
        self.mixed = Probe("region grid")
        self.out = Probe()

    @torch.jit.ignore
    def rearrangement(self, size: int) -> Rearrangement:
        """The current index map on a line of ``size`` tokens."""
        return Rearrangement(
            size, self.region, self.shift, self.padding, self.cross_region, self.restore
        )

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[self.dim]
        x = self.shifted(shift(x, self.dim, self.region, self.shift, self.cross_region))
        x = self.regions(partition(x, self.dim, self.region, self.padding))
        x = self.mixed(self.mix(x))
        x = unpartition(x, self.dim, self.region, size)
        if self.restore:
            x = unshift(x, self.dim, self.region, self.shift, self.cross_region)
        return self.out(x)

    def extra_repr(self) -> str:
        return (
            f"{self.axis}, region={self.region}, shift={self.shift}, padding={self.padding}, "
            f"cross_region={self.cross_region}, restore={self.restore}"
        )


class ChannelBranch(nn.Module):
    """The third branch: every token by itself, one linear layer."""

    def __init__(self, dim: int, **dd: Any):
        super().__init__()
        self.fc = nn.Conv2d(dim, dim, 1, **dd)
        self.out = Probe()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.fc(x))


class Gate(nn.Module):
    """How much each branch counts, per image and channel: (B, C) to (B, C, branches).

    A small network on the average over the whole map, then a softmax over the branches. It is
    global: through it every token depends on every other. From the authors' code; not in the paper.
    """

    def __init__(self, dim: int, branches: tuple[str, ...], **dd: Any):
        super().__init__()
        self.branches = branches
        self.fc1 = nn.Linear(dim, dim // 4, **dd)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(dim // 4, dim * len(branches), **dd)
        self.out = Probe("gate")

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc2(self.act(self.fc1(x)))
        # (C, branches), not (branches, C): the branches of one channel stand side by side
        return self.out(x.unflatten(1, (-1, len(self.branches))).softmax(-1))


class HireMixing(nn.Module):
    """The hire module: the branches, their fusion and the projection (paper figure 2, eq. 2)."""

    def __init__(
        self, dim: int, branches: tuple[str, ...], fusion: str, axis_settings: dict, **dd: Any
    ):
        super().__init__()
        self.input = Probe()
        self.height = self.width = self.channel = None
        if "height" in branches:
            self.height = AxisBranch(dim, "height", **axis_settings, **dd)
        if "width" in branches:
            self.width = AxisBranch(dim, "width", **axis_settings, **dd)
        if "channel" in branches:
            self.channel = ChannelBranch(dim, **dd)
        self.gate = Gate(dim, branches, **dd) if fusion == "gate" else None
        self.fused = Probe()
        self.proj = nn.Conv2d(dim, dim, 1, **dd) if fusion == "gate" else nn.Identity()
        self.out = Probe()

    def forward(self, x: Tensor) -> Tensor:
        x = self.input(x)
        outs: list[Tensor] = []
        if self.height is not None:
            outs.append(self.height(x))
        if self.width is not None:
            outs.append(self.width(x))
        if self.channel is not None:
            outs.append(self.channel(x))
        fused = outs[0]
        if self.gate is None:
            for out in outs[1:]:
                fused = fused + out
        else:
            # the gate reads the average of the branches' sum, which is the sum of their averages
            means = outs[0].mean((2, 3))
            for out in outs[1:]:
                means = means + out.mean((2, 3))
            weights = self.gate(means)[..., None, None].unbind(2)  # one (B, C, 1, 1) a branch
            fused = fused * weights[0]
            for i, out in enumerate(outs[1:]):
                fused = torch.addcmul(fused, out, weights[i + 1])
        return self.out(self.proj(self.fused(fused)))


class ChannelMlp(nn.Module):
    """The block's second half: a two-layer network on every token, GELU between."""

    def __init__(self, dim: int, ratio: float, **dd: Any):
        super().__init__()
        self.fc1 = nn.Conv2d(dim, int(dim * ratio), 1, **dd)
        self.act = nn.GELU()
        self.hidden = Probe()
        self.fc2 = nn.Conv2d(int(dim * ratio), dim, 1, **dd)
        self.out = Probe()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.fc2(self.hidden(self.act(self.fc1(x)))))


class HireBlock(nn.Module):
    """x + hire(norm1(x)), then x + mlp(norm2(x)) (paper eq. 1)."""

    def __init__(self, dim: int, hire: dict, mlp_ratio: float, drop_path: float, **dd: Any):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(dim, **dd)
        self.hire = HireMixing(dim, **hire, **dd)
        self.drop_path1 = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.mid = Probe()
        self.norm2 = nn.BatchNorm2d(dim, **dd)
        self.mlp = ChannelMlp(dim, mlp_ratio, **dd)
        self.drop_path2 = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.out = Probe()

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(x + self.drop_path1(self.hire(self.norm1(x))))
        return self.out(x + self.drop_path2(self.mlp(self.norm2(x))))


class HireStage(nn.Module):
    """Downsampling (not in the first stage), then blocks at one resolution."""

    def __init__(self, downsample: nn.Module, blocks: Sequence[nn.Module]):
        super().__init__()
        self.grad_checkpointing = False
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)
        self.out = Probe()

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():
            x = checkpoint_seq(self.blocks, x)
        else:
            x = self.blocks(x)
        return self.out(x)


class HireMLP(Probed, nn.Module):
    """Hire-MLP with the choices that the paper ablates as arguments.

    Args:
        in_chans, num_classes, global_pool, drop_rate, drop_path_rate, device, dtype: as everywhere
            in timm. Drop path rises linearly over all blocks.
        depths, dims: blocks and channels of each stage.
        region: tokens in a region, a stage; the paper's h = w.
        shift: the paper's s, a stage; see ``shift_cycle``. One number stands for all stages.
        shift_cycle: block j of a stage shifts by ``(j mod cycle) * shift`` tokens.
        padding: "circular", "zero", "reflect" or "replicate".
        cross_region: "shift", "shuffle" (as ShuffleNet's) or "none".
        restore: whether tokens return to their places after the mixing.
        branches: any of "height", "width", "channel".
        fc_layers: linear layers that mix a region; 2 in the paper.
        fusion: "gate" as in the authors' code (with a projection after it); "sum" as in the
            paper's equation (with none).
        mlp_ratio: hidden width of the channel MLP in multiples of the stage's.
        stage_norms: a norm for the output of every stage, as the authors' segmentation backbone has
            them; `forward_intermediates` applies them with ``norm=True``.

    Raises:
        HirelabError: for an impossible choice, naming it and the cure.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        depths: Sequence[int] = (2, 2, 4, 2),
        dims: Sequence[int] = (64, 128, 320, 512),
        region: int | Sequence[int] = (4, 3, 3, 2),
        shift: int | Sequence[int] = (2, 2, 1, 1),
        shift_cycle: int | Sequence[int] = (2, 2, 3, 2),
        padding: str = "circular",
        cross_region: str = "shift",
        restore: bool = True,
        branches: Sequence[str] = BRANCHES,
        fc_layers: int = 2,
        fusion: str = "gate",
        mlp_ratio: float = 4.0,
        stage_norms: bool = False,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device=None,
        dtype=None,
    ):
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        check_stages(depths, dims)
        check_choice("fusion", fusion, FUSIONS)
        check_whole("fc_layers", fc_layers, 1)
        branches = check_branches(branches)
        region = per_stage("region", region, len(depths))
        shift = per_stage("shift", shift, len(depths))
        self.shift_cycle = per_stage("shift_cycle", shift_cycle, len(depths), 1)

        self.in_chans = in_chans
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = dims[-1]
        self.drop_rate = drop_rate
        self.feature_info = []

        self.stem = ConvNormAct(in_chans, dims[0], 7, stride=4, padding=2, **dd)
        rates = cast(
            "list[list[float]]",
            calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True),
        )
        built = []
        for i, (depth, dim) in enumerate(zip(depths, dims, strict=True)):
            down = (
                ConvNormAct(dims[i - 1], dim, 3, stride=2, padding=1, **dd) if i else nn.Identity()
            )
            blocks = []
            for j in range(depth):
                axis_settings = {
                    "region": region[i],
                    "shift": (j % self.shift_cycle[i]) * shift[i],
                    "padding": padding,
                    "cross_region": cross_region,
                    "restore": restore,
                    "fc_layers": fc_layers,
                }
                hire = {"branches": branches, "fusion": fusion, "axis_settings": axis_settings}
                blocks.append(HireBlock(dim, hire, mlp_ratio, rates[i][j], **dd))
            built.append(HireStage(down, blocks))
            self.feature_info.append(
                {"num_chs": dim, "reduction": 4 * 2**i, "module": f"stages.{i}"}
            )
        self.stages = nn.Sequential(*built)
        norms = [nn.BatchNorm2d(dim, **dd) for dim in dims] if stage_norms else []
        self.stage_norms = nn.ModuleList(norms)
        self.norm: nn.Module = nn.BatchNorm2d(self.num_features, **dd)
        self.features = Probe()
        self.global_pool, self.head_drop, self.head = create_classifier(
            self.num_features,
            num_classes,
            pool_type=global_pool,
            use_conv=not global_pool,
            drop_rate=drop_rate,
            **dd,
        )
        # unpooled, the head classifies every position
        kind = "vector" if global_pool else "token grid"
        self.pooled, self.logits = Probe(kind), Probe(kind)
        self.apply(_init_weights)

    # -------------------------------------------------------------- the current rearrangement

    @torch.jit.ignore
    def axis_branches(self) -> dict[str, AxisBranch]:
        """Every height and width branch by its path."""
        return {name: m for name, m in self.named_modules() if isinstance(m, AxisBranch)}

    @torch.jit.ignore
    def set_rearrangement(
        self,
        shift: int | Sequence[int] | None = None,
        padding: str | None = None,
        cross_region: str | None = None,
        restore: bool | None = None,
        **others: Any,
    ) -> None:
        """Change, on the built network, what has no parameters; what is None stays.

        ``shift`` is in the constructor's terms: block j of stage i shifts by
        ``(j mod shift_cycle[i]) * shift[i]``. A single block may be set at its own branches:
        ``model.stages[2].blocks[1].hire.height.shift = 2``.

        ``region``, ``branches``, ``fc_layers`` and ``fusion`` shape the weights and cannot be
        changed here: build another network, ``hirelab.create(name, region=2)``.

        Raises:
            HirelabError: for an impossible setting, or another one, before anything is changed.
        """
        for name in others:
            if name in ("region", "branches", "fc_layers", "fusion"):
                raise HirelabError(
                    f"{name} shapes the weights and cannot be changed on a built network; build "
                    f"another one: hirelab.create(name, {name}={others[name]!r})."
                )
            known = ("shift", "padding", "cross_region", "restore")
            raise HirelabError(unknown("setting", name, known, f"There are {', '.join(known)}."))
        steps = None if shift is None else per_stage("shift", shift, len(self.stages))
        check_settings(
            1,
            0,
            "circular" if padding is None else padding,
            "shift" if cross_region is None else cross_region,
        )
        changes = {"padding": padding, "cross_region": cross_region, "restore": restore}
        changes = {name: value for name, value in changes.items() if value is not None}
        for i, stage in enumerate(stages_of(self)):
            for j, block in enumerate(blocks_of(stage)):
                for branch in (block.hire.height, block.hire.width):
                    if branch is None:
                        continue
                    if steps is not None:
                        branch.shift = (j % self.shift_cycle[i]) * steps[i]
                    for name, value in changes.items():
                        setattr(branch, name, value)

    # -------------------------------------------------------------- timm's interface

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Parameter groups in order of depth, for layer-wise learning rates."""
        if coarse:
            return {"stem": r"^stem", "blocks": r"^stages\.(\d+)"}
        return {
            "stem": r"^stem",
            "blocks": [
                (r"^stages\.(\d+)\.downsample", (0,)),
                (r"^stages\.(\d+)\.blocks\.(\d+)", None),
                (r"^norm", (99999,)),
            ],
        }

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass, a block at a time."""
        for stage in stages_of(self):
            stage.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        return self.head

    @torch.jit.ignore
    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new head; ``global_pool=""`` keeps the map and classifies every position."""
        pool = self.global_pool.pool_type if global_pool is None else global_pool
        reference = (
            self.norm.weight if isinstance(self.norm, nn.BatchNorm2d) else next(self.parameters())
        )
        self.num_classes = num_classes
        self.global_pool, self.head = create_classifier(
            self.num_features,
            num_classes,
            pool_type=pool,
            use_conv=not pool,
            device=reference.device,
            dtype=reference.dtype,
        )
        self.head.apply(_init_weights)
        self.pooled.kind = self.logits.kind = "vector" if pool else "token grid"
        for module in (self.global_pool, self.head):
            module.train(self.training)

    @torch.jit.ignore
    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Outputs of the stages.

        Args:
            indices: the last n stages if a number, all if None, else these stages.
            norm: normalise: every stage with ``stage_norms``, else the last one by the final norm
                (the others have other widths).
            stop_early: skip the stages after the last wanted one.
            output_fmt: "NCHW".
            intermediates_only: return only the list, not the final features beside it.
        """
        if output_fmt != "NCHW":
            raise HirelabError(f"output_fmt is {output_fmt!r}; this network gives 'NCHW'.")
        take, last = feature_take_indices(len(self.stages), indices)
        stages = self.stages[: last + 1] if stop_early else self.stages
        x = self._stem(x)
        intermediates = []
        for i, stage in enumerate(stages):
            x = stage(x)
            if i in take:
                intermediates.append(self._normalised(x, i) if norm else x)
        if intermediates_only:
            return intermediates
        if len(stages) == len(self.stages):
            x = self.features(self.norm(x))
        return x, intermediates

    @torch.jit.ignore
    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what the wanted stages do not need; returns the wanted stages."""
        take, last = feature_take_indices(len(self.stages), indices)
        cut = last < len(self.stages) - 1
        self.stages, self.stage_norms = self.stages[: last + 1], self.stage_norms[: last + 1]
        if cut:
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
        if prune_norm or cut:
            self.norm = nn.Identity()
        if prune_head or cut:
            self.reset_classifier(0, "")
        return take

    @torch.jit.ignore
    def _normalised(self, x: Tensor, stage: int) -> Tensor:
        if len(self.stage_norms):
            return self.stage_norms[stage](x)
        return self.norm(x) if stage == len(self.stages) - 1 else x

    def _stem(self, x: Tensor) -> Tensor:
        return self.stem(check_input(x, self.in_chans))

    def forward_features(self, x: Tensor) -> Tensor:
        """The normalised map of the last stage, (B, C, H/32, W/32)."""
        return self.features(self.norm(self.stages(self._stem(x))))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool and classify a map of `forward_features`."""
        x = self.head_drop(self.pooled(self.global_pool(x)))
        return x if pre_logits else self.logits(self.head(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def stages_of(model: "HireMLP") -> list[HireStage]:
    """The stages, as what they are (a Sequential says only that they are modules)."""
    return cast("list[HireStage]", list(model.stages))


def blocks_of(stage: HireStage) -> list[HireBlock]:
    """The blocks of a stage, as what they are."""
    return cast("list[HireBlock]", list(stage.blocks))


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


# ------------------------------------------------------------------ entry points


def _create(variant: str, pretrained: bool = False, **kwargs: Any) -> HireMLP:
    kwargs = {**_trained_with(f"{variant}.{kwargs.get('pretrained_cfg')}"), **kwargs}
    return build(HireMLP, variant, default_cfgs[variant], pretrained, **kwargs)


def _cfg(url: str = "", **kwargs: Any) -> dict[str, Any]:
    return {
        "url": url,
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "classifier": "head",
        "first_conv": "stem.conv",
        **kwargs,
    }


_BUNDLED = bundled()  # in data/weights; what `hirelab release` adds is known by its manifest


def _bundled(variant: str) -> dict[str, dict[str, Any]]:
    """The weights of a network that come with the checkout, by name; none where there are none."""
    found = {name: of for name, of in _BUNDLED.items() if name.startswith(f"{variant}.")}
    return {
        name: _cfg(
            file=str(path_of(name)),
            num_classes=len(of["label_names"]),
            label_names=tuple(of["label_names"]),
            input_size=(3, of["img_size"], of["img_size"]),
            pool_size=(of["img_size"] // 32, of["img_size"] // 32),
            crop_pct=of["crop_pct"],
        )
        for name, of in found.items()
    } or {variant: _cfg()}


def _trained_with(name: str) -> dict[str, Any]:
    """Arguments that bundled weights were trained with, and that other weights of the same shapes
    were not: a network of that name is built with them, unless the caller says otherwise."""
    arguments = _BUNDLED[name]["config"]["model_arguments"] if name in _BUNDLED else {}
    return {key: value for key, value in arguments.items() if key != "pretrained"}


_RELEASE = "https://github.com/ggjy/Hire-Wave-MLP.pytorch/releases/download/log/"

default_cfgs = generate_default_cfgs(
    {
        "hire_mlp_atto": _cfg(),
        **_bundled("hire_mlp_atto"),
        **_bundled("hire_mlp_pico"),
        "hire_mlp_tiny": _cfg(_RELEASE + "hire_mlp_tiny.pth"),  # top-1 79.7 by the authors' README
        "hire_mlp_small": _cfg(_RELEASE + "hire_mlp_small.pth"),  # 82.1
        "hire_mlp_base": _cfg(_RELEASE + "hire_mlp_base.pth"),  # 83.2
        "hire_mlp_large": _cfg(),  # no weights were released
    }
)
# Atto is made to be built in other ways: its name alone is the plain design, 1000 classes at 224
# pixels, and its weights are had by their tags. timm would put the first weights in its place.
default_cfgs["hire_mlp_atto"].tags.remove("")
default_cfgs["hire_mlp_atto"].tags.appendleft("")


def register_model(fn):
    """timm's registration; quiet when this very module registers again (IPython's autoreload)."""
    name = fn.__name__
    with warnings.catch_warnings():
        if is_model(name) and model_entrypoint(name).__module__ == fn.__module__:
            warnings.filterwarnings("ignore", message=f"Overwriting {name} in registry")
        return timm_register_model(fn)


@register_model
def hire_mlp_atto(pretrained: bool = False, **kwargs) -> HireMLP:
    """A study size of under a million parameters, for tests and live cells; not in the paper."""
    sizes = {"depths": (2, 2, 3, 2), "dims": (16, 24, 48, 96)}
    return _create("hire_mlp_atto", pretrained, **{**sizes, **kwargs})


@register_model
def hire_mlp_pico(pretrained: bool = False, **kwargs) -> HireMLP:
    """A study size that two cores can train: Tiny at half the width; not in the paper."""
    sizes = {"depths": (2, 2, 4, 2), "dims": (32, 64, 160, 256)}
    return _create("hire_mlp_pico", pretrained, **{**sizes, **kwargs})


@register_model
def hire_mlp_tiny(pretrained: bool = False, **kwargs) -> HireMLP:
    """Hire-MLP-Tiny: 18.0 M parameters, 2.1 GMACs at 224 x 224."""
    sizes = {"depths": (2, 2, 4, 2), "dims": (64, 128, 320, 512)}
    return _create("hire_mlp_tiny", pretrained, **{**sizes, **kwargs})


@register_model
def hire_mlp_small(pretrained: bool = False, **kwargs) -> HireMLP:
    """Hire-MLP-Small: 33.1 M parameters, 4.2 GMACs at 224 x 224."""
    sizes = {"depths": (3, 4, 10, 3), "dims": (64, 128, 320, 512)}
    return _create("hire_mlp_small", pretrained, **{**sizes, **kwargs})


@register_model
def hire_mlp_base(pretrained: bool = False, **kwargs) -> HireMLP:
    """Hire-MLP-Base: 58.2 M parameters, 8.1 GMACs at 224 x 224."""
    sizes = {"depths": (4, 6, 24, 3), "dims": (64, 128, 320, 512)}
    return _create("hire_mlp_base", pretrained, **{**sizes, **kwargs})


@register_model
def hire_mlp_large(pretrained: bool = False, **kwargs) -> HireMLP:
    """Hire-MLP-Large: 95.7 M parameters, 13.4 GMACs at 224 x 224."""
    sizes = {"depths": (4, 6, 24, 3), "dims": (96, 192, 384, 768)}
    return _create("hire_mlp_large", pretrained, **{**sizes, **kwargs})
