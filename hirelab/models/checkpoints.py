"""Weights in and out: the authors' checkpoints, ours, and files that are neither.

Names are translated by one table, both ways; tensors are views of what was loaded. Files are read
as safetensors, or by torch.load with ``weights_only``, so opening one never runs code from it.
"""

from __future__ import annotations

import argparse
import math
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._shared.errors import HirelabError, brief

State = dict[str, Tensor]

# Module names inside a block: the authors', ours.
_BLOCK = {
    "norm1": "norm1",
    "attn.mlp_h1": "hire.height.mix.fc1",
    "attn.mlp_h1_norm": "hire.height.mix.norm1",
    "attn.mlp_h2": "hire.height.mix.fc2",
    "attn.mlp_w1": "hire.width.mix.fc1",
    "attn.mlp_w1_norm": "hire.width.mix.norm1",
    "attn.mlp_w2": "hire.width.mix.fc2",
    "attn.mlp_c": "hire.channel.fc",
    "attn.reweight.fc1": "hire.gate.fc1",
    "attn.reweight.fc2": "hire.gate.fc2",
    "attn.proj": "hire.proj",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_BLOCK_BACK = {ours: theirs for theirs, ours in _BLOCK.items()}
_CONV = {"proj": "conv", "norm": "norm"}  # in the stem and the downsampling
_CONV_BACK = {ours: theirs for theirs, ours in _CONV.items()}


def _ours(key: str) -> str:
    """Our name for a key of the authors; a key that is not theirs comes back as it is."""
    module, _, leaf = key.rpartition(".")
    if m := re.fullmatch(r"patch_embed\.(proj|norm)", module):
        return f"stem.{_CONV[m[1]]}.{leaf}"
    if m := re.fullmatch(r"network\.([135])\.(proj|norm)", module):
        return f"stages.{(int(m[1]) + 1) // 2}.downsample.{_CONV[m[2]]}.{leaf}"
    if (m := re.fullmatch(r"network\.([0246])\.(\d+)\.(.+)", module)) and m[3] in _BLOCK:
        return f"stages.{int(m[1]) // 2}.blocks.{m[2]}.{_BLOCK[m[3]]}.{leaf}"
    if m := re.fullmatch(r"norm([0246])", module):  # the segmentation backbone's extra norms
        return f"stage_norms.{int(m[1]) // 2}.{leaf}"
    return key


def _theirs(key: str) -> str:
    """The authors' name for a key of ours; a key that is not ours comes back as it is."""
    module, _, leaf = key.rpartition(".")
    if m := re.fullmatch(r"stem\.(conv|norm)", module):
        return f"patch_embed.{_CONV_BACK[m[1]]}.{leaf}"
    if m := re.fullmatch(r"stages\.(\d)\.downsample\.(conv|norm)", module):
        return f"network.{2 * int(m[1]) - 1}.{_CONV_BACK[m[2]]}.{leaf}"
    if (m := re.fullmatch(r"stages\.(\d)\.blocks\.(\d+)\.(.+)", module)) and m[3] in _BLOCK_BACK:
        return f"network.{2 * int(m[1])}.{m[2]}.{_BLOCK_BACK[m[3]]}.{leaf}"
    if m := re.fullmatch(r"stage_norms\.(\d)", module):
        return f"norm{2 * int(m[1])}.{leaf}"
    return key


# Where a training script keeps the weights; averaged ones come first, as in timm.
_INSIDE = ("state_dict_ema", "model_ema", "state_dict", "model")
_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")  # of parallel training and of torch.compile

_GATE = re.compile(r"hire\.gate\.fc[12]\.weight$")  # a 1x1 convolution there, a linear layer here


def from_authors(state: Mapping[str, Tensor]) -> State:
    """The authors' state dict in our names and shapes; values are views, nothing is copied.

    A key that is not theirs is kept, so that a strict load can name it.
    """
    renamed = {_ours(key): value for key, value in state.items()}
    return {k: v.flatten(1) if _GATE.search(k) and v.dim() == 4 else v for k, v in renamed.items()}


def to_authors(state: Mapping[str, Tensor]) -> State:
    """Our state dict in the authors' names and shapes; the inverse of `from_authors`."""
    shaped = {k: v[..., None, None] if _GATE.search(k) else v for k, v in state.items()}
    return {_theirs(key): value for key, value in shaped.items()}


def unwrap(checkpoint: Any) -> State:
    """The state dict inside a checkpoint: bare, under "model" or "state_dict" (averaged weights
    first, under "model_ema" or "state_dict_ema"), with "module." or "_orig_mod." in front of its
    names, or a whole segmentation network's, whose backbone is taken.

    Raises:
        HirelabError: when there is no state dict inside.
    """
    state = checkpoint
    for _ in _INSIDE:  # deep enough; a file may hold a dictionary that holds itself
        if isinstance(state, Mapping):
            inner = [state[name] for name in _INSIDE if isinstance(state.get(name), Mapping)]
            state = inner[0] if inner else state
    if not isinstance(state, Mapping) or not state:
        raise HirelabError(
            f"The checkpoint holds a {type(checkpoint).__name__} without a state dict; expected "
            "names and tensors, bare or under 'model' or 'state_dict'."
        )
    strange = [k for k, v in state.items() if not (isinstance(k, str) and isinstance(v, Tensor))]
    if strange:
        raise HirelabError(
            f"The checkpoint's entry {brief(strange[0])} is no named tensor; expected names and "
            "tensors, bare or under 'model' or 'state_dict'."
        )
    for key, value in state.items():
        _check_held(key, value)
    state = {_WRAPPERS.sub("", key): value for key, value in state.items()}
    backbone = {k.removeprefix("backbone."): v for k, v in state.items() if k[:9] == "backbone."}
    return backbone or state


def _check_held(key: str, value: Tensor) -> None:
    """Make sure that a file holds the numbers that a tensor claims to have.

    Raises:
        HirelabError: a sparse tensor, one without data, or one whose shape repeats the same few
            numbers: a few bytes could claim more memory than a machine has.
    """
    name = _printable(str(key))
    if value.layout != torch.strided or value.is_meta or value.is_quantized:
        kind = "without data" if value.is_meta else f"of {value.layout}"
        kind = "quantised" if value.is_quantized else kind
        raise HirelabError(
            f"The checkpoint's entry {name} is a tensor {kind}; expected plain dense tensors: save "
            "the network's own state_dict()."
        )
    held = value.untyped_storage().nbytes() // max(1, value.element_size())
    if value.numel() > held:
        raise HirelabError(
            f"The checkpoint's entry {name} claims {value.numel():,} numbers and holds {held:,}; "
            "expected whole tensors: save them with .contiguous()."
        )


def checkpoint_filter_fn(checkpoint: Any, model: nn.Module | None = None) -> State:
    """What timm calls on a downloaded checkpoint: a state dict in our names, from any form."""
    state = unwrap(checkpoint)
    return state if "stem.conv.weight" in state else from_authors(state)


def read(path: str | Path) -> Any:
    """Open a checkpoint file without running anything in it.

    Raises:
        FileNotFoundError: there is no such file.
        HirelabError: it is damaged, no checkpoint, or holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint file {path}; give the path of one.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        # timm's training script stores its options, a Namespace of plain values, beside the weights
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise HirelabError(
            f"{path} holds more than tensors and plain values, or is no checkpoint; hirelab does "
            "not run code from a checkpoint: save the bare state dict as safetensors where you "
            "trust the file."
        ) from error
    except Exception as error:  # garbage makes an unpickler fail in every way there is
        first = _printable(str(error).partition("\n")[0]) or type(error).__name__
        raise HirelabError(f"{path} is damaged or no checkpoint ({first}).") from error


def _printable(text: str) -> str:
    """A name or message out of a file, which may hold anything, fit for a sentence."""
    return repr(text)[1:-1][:120]


def _shape(state: Mapping[str, Tensor], key: str, axes: tuple[int, ...] = (4,)) -> tuple[int, ...]:
    shape = tuple(state[key].shape)
    if len(shape) not in axes or 0 in shape:
        raise HirelabError(
            f"These are not the weights of a Hire-MLP: {key} has shape {shape}; expected "
            f"{' or '.join(map(str, axes))} axes, none of them empty."
        )
    return shape


def _mlp_ratio(widths: Iterable[tuple[int, int]]) -> float:
    """The ratio that gives every stage, as (channels, hidden width), ``int(channels * ratio)``."""
    widths = list(widths)
    ratio = max(hidden / dim for dim, hidden in widths)
    # a quotient times its divisor may fall short by a rounding, and be cut to one less
    return ratio if all(int(d * ratio) >= h for d, h in widths) else math.nextafter(ratio, math.inf)


def architecture(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of `HireMLP` that the shapes of a state dict (ours) determine.

    Shift, padding, cross-region mode and restore leave no trace in the weights; they keep their
    defaults.

    Raises:
        HirelabError: when the shapes are not of a Hire-MLP.
    """
    if "stem.conv.weight" not in state:
        some = _printable(", ".join(list(state)[:3]))
        raise HirelabError(f"These are not the weights of a Hire-MLP: the names begin {some} ...")
    blocks: dict[int, int] = {}
    for key in state:
        if m := re.match(r"stages\.(\d{1,6})\.blocks\.(\d{1,6})\.", key):
            blocks[int(m[1])] = max(blocks.get(int(m[1]), 0), int(m[2]) + 1)
    dim, in_chans = _shape(state, "stem.conv.weight")[:2]
    dims, regions, hidden, branches, layers = [], [], [], [], 2
    for i in sorted(blocks):
        down = f"stages.{i}.downsample.conv.weight"
        dim = _shape(state, down)[0] if down in state else dim
        dims.append(dim)
        hire = f"stages.{i}.blocks.0.hire"
        axes = [b for b in ("height", "width") if f"{hire}.{b}.mix.fc1.weight" in state]
        channel = ["channel"] if f"{hire}.channel.fc.weight" in state else []
        branches = axes + channel
        if axes:
            regions.append(_shape(state, f"{hire}.{axes[0]}.mix.fc1.weight")[1] // dim)
            layers = sum(1 for k in state if re.match(rf"{hire}\.{axes[0]}\.mix\.fc\d+\.weight", k))
        mlp = f"stages.{i}.blocks.0.mlp.fc1.weight"
        hidden.append(_shape(state, mlp)[0] if mlp in state else 4 * dim)
    # a number in a name could claim any number of blocks; each has an entry at least
    beyond = sum(blocks.values()) > len(state)
    if beyond or sorted(blocks) != list(range(len(blocks))) or not branches:
        raise HirelabError("These are not the weights of a Hire-MLP: its blocks are not complete.")
    found = {
        "in_chans": in_chans,
        "num_classes": 0,
        "depths": tuple(blocks[i] for i in sorted(blocks)),
        "dims": tuple(dims),
        "branches": tuple(branches),
        "fc_layers": layers,
        "fusion": "gate" if "stages.0.blocks.0.hire.gate.fc1.weight" in state else "sum",
        "mlp_ratio": _mlp_ratio(zip(dims, hidden, strict=True)),
        "stage_norms": "stage_norms.0.weight" in state,
    }
    if "head.weight" in state:
        found["num_classes"], width, *kernel = _shape(state, "head.weight", (2, 4))
        if kernel:  # classifies every position
            found["global_pool"] = ""
        elif width == 2 * dims[-1]:
            found["global_pool"] = "catavgmax"
    if len(regions) == len(dims):
        found["region"] = tuple(regions)
    elif not regions:  # the channel branch alone rearranges nothing
        found |= {"region": 1, "shift": 0, "shift_cycle": 1}
    return found


def load_into(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """A strict load, all or nothing, whose refusal is one sentence.

    Raises:
        HirelabError: for missing, unexpected or misshapen entries: how many, and the first of each.
    """
    check_fits(model, state, what)
    model.load_state_dict(dict(state))


def check_fits(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Make sure that a state has the entries of a network, each of its shape.

    Raises:
        HirelabError: for missing, unexpected or misshapen entries: how many, and the first of each.
    """
    own = model.state_dict()
    shapes = {k: (tuple(v.shape), tuple(own[k].shape)) for k, v in state.items() if k in own}
    faults = {
        "missing": [k for k in own if k not in state],
        "unknown": [k for k in state if k not in own],
        "of another shape": [
            f"{k} {given} for {needed}" for k, (given, needed) in shapes.items() if given != needed
        ],
    }
    wrong = [f"{len(v)} {kind} (such as {_printable(v[0])})" for kind, v in faults.items() if v]
    if wrong:
        raise HirelabError(
            f"{what} does not fit {type(model).__name__}: of {len(own)} entries "
            f"{', '.join(wrong)}; the file is incomplete, of another network, or an argument "
            "contradicts it."
        )
