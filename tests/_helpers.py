"""What tests of several rooms share: random images, and weights that no constructor gives."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from hirelab.results import Result

Network = TypeVar("Network", bound=nn.Module)


# Texts whose contrast with what is behind them is below 4.5 : 1, as [text, contrast]
PALE = """() => {
    const numbers = color => color.match(/[\\d.]+/g).map(Number);
    const light = rgb => {
        const [r, g, b] = rgb.map(v => v / 255).map(
            v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = element => {
        for (; element; element = element.parentElement) {
            const [r, g, b, alpha = 1] = numbers(getComputedStyle(element).backgroundColor);
            if (alpha > 0.99) return [r, g, b];
        }
        return [255, 255, 255];
    };
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = [];
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement;
        const text = texts.currentNode.data.trim();
        if (!text || ["SCRIPT", "NOSCRIPT", "STYLE"].includes(element.tagName)) continue;
        const [a, b] = [numbers(getComputedStyle(element).color).slice(0, 3), behind(element)]
            .map(light).sort((x, y) => y - x);
        const contrast = (a + 0.05) / (b + 0.05);
        if (contrast < 4.5) found.push([text.slice(0, 40), contrast]);
    }
    return found;
}"""

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def random_images(
    batch: int = 2,
    channels: int = 3,
    height: int = 64,
    width: int | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 1,
) -> Tensor:
    """Normal noise (batch, channels, height, width), the same for the same arguments."""
    shape = (batch, channels, height, height if width is None else width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def randomise(model: Network, seed: int = 2) -> Network:
    """Fill every number as if after training, so that no part is idle and nothing is 0 or 1 by
    chance: a signal stays about as large as it was, and variances and norms' weights positive."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            if re.search(r"(norm|bn)\d?\.weight|running_var", name):
                tensor.copy_(0.5 + noise)
            elif tensor.dim() > 1:
                tensor.copy_((noise - 0.5) * 3 / tensor[0].numel() ** 0.5)
            else:
                tensor.copy_(noise - 0.5)
    return model


def attached_hooks(model: nn.Module) -> int:
    """How many PyTorch hooks hang on the network's modules, forward and backward."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def noise_image(width: int, height: int, seed: int = 0) -> Image.Image:
    """An RGB image in which no two neighbouring pixels agree."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def four_corners() -> Image.Image:
    """40 x 20 pixels whose four corners are red, green, blue and white, so no view is alike."""
    image = Image.new("RGB", (40, 20))
    for box, colour in zip(
        [(0, 0), (20, 0), (0, 10), (20, 10)], [RED, GREEN, BLUE, WHITE], strict=True
    ):
        image.paste(colour, (*box, box[0] + 20, box[1] + 10))
    return image


def same_image(a: Image.Image, b: Image.Image, tolerance: int = 0) -> bool:
    """Whether two RGB images have the same size and values within `tolerance`."""
    assert a.mode == b.mode == "RGB"
    left, right = np.asarray(a, int), np.asarray(b, int)
    return left.shape == right.shape and np.abs(left - right).max() <= tolerance


def counted_by_hooks(model: nn.Module, x: torch.Tensor) -> tuple[int, int]:
    """Parameters, and multiply-adds of layers with weights, while real numbers run through."""
    macs = []

    def count(module, args, output):
        places = output[0].numel() // module.weight.shape[0]
        macs.append(places * module.weight.numel())

    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    handles = [m.register_forward_hook(count) for m in layers]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return sum(p.numel() for p in model.parameters()), sum(macs)


def check_kept(made: Result, folder: Path) -> None:
    """A result that is saved and loaded says and draws what it did."""
    made.save(folder / "result.npz")
    kept = type(made).load(folder / "result.npz")
    assert repr(kept) == repr(made)
    assert kept.versions == made.versions
    if hasattr(made, "plot"):
        assert kept.plot().text == made.plot().text
        assert kept.plot().data.startswith(b"\x89PNG")
