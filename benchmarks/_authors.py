"""The authors' formulation of the network, restated: what speed is measured against.

Written from their description and key names in our own words: the rearrangement as separate steps
(roll, circular pad, reshape, permute, reshape), 1x1 convolutions, BatchNorm apart, NCHW throughout.
It loads `to_authors` of our weights strictly and gives the same numbers, which a test asserts, so
that times are compared of one and the same function.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Mlp(nn.Module):
    """Two 1x1 convolutions with GELU between."""

    def __init__(self, dim: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Mixing(nn.Module):
    """Height, width and channel branches, weighed by a softmax over the three."""

    def __init__(self, dim: int, region: int, shift: int) -> None:
        super().__init__()
        self.region, self.shift = region, shift
        hidden = dim // 2
        self.mlp_h1 = nn.Conv2d(dim * region, hidden, 1, bias=False)
        self.mlp_h1_norm = nn.BatchNorm2d(hidden)
        self.mlp_h2 = nn.Conv2d(hidden, dim * region, 1)
        self.mlp_w1 = nn.Conv2d(dim * region, hidden, 1, bias=False)
        self.mlp_w1_norm = nn.BatchNorm2d(hidden)
        self.mlp_w2 = nn.Conv2d(hidden, dim * region, 1)
        self.mlp_c = nn.Conv2d(dim, dim, 1)
        self.act = nn.ReLU()
        self.reweight = Mlp(dim, dim // 4, dim * 3)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        p = self.region
        h = w = x
        if self.shift:
            h = torch.roll(x, self.shift, 2)
            w = torch.roll(x, self.shift, 3)
        pad_h, pad_w = -height % p, -width % p
        if pad_h:
            h = F.pad(h, (0, 0, 0, pad_h), mode="circular")
        if pad_w:
            w = F.pad(w, (0, pad_w, 0, 0), mode="circular")
        rows, cols = (height + pad_h) // p, (width + pad_w) // p

        h = h.reshape(b, c, rows, p, width).permute(0, 1, 3, 2, 4).reshape(b, c * p, rows, width)
        h = self.mlp_h2(self.act(self.mlp_h1_norm(self.mlp_h1(h))))
        h = h.reshape(b, c, p, rows, width).permute(0, 1, 3, 2, 4).reshape(b, c, rows * p, width)
        h = h.narrow(2, 0, height)

        w = w.reshape(b, c, height, cols, p).permute(0, 1, 4, 2, 3).reshape(b, c * p, height, cols)
        w = self.mlp_w2(self.act(self.mlp_w1_norm(self.mlp_w1(w))))
        w = w.reshape(b, c, p, height, cols).permute(0, 1, 3, 4, 2).reshape(b, c, height, cols * p)
        w = w.narrow(3, 0, width)

        if self.shift:
            h = torch.roll(h, -self.shift, 2)
            w = torch.roll(w, -self.shift, 3)
        own = self.mlp_c(x)

        gate = self.reweight((h + w + own).flatten(2).mean(2)[..., None, None])
        gate = gate.reshape(b, c, 3).permute(2, 0, 1).softmax(0)[..., None, None]
        return self.proj(h * gate[0] + w * gate[1] + own * gate[2])


class Block(nn.Module):
    """x + mixing(norm(x)), x + mlp(norm(x))."""

    def __init__(self, dim: int, region: int, shift: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(dim)
        self.attn = Mixing(dim, region, shift)
        self.norm2 = nn.BatchNorm2d(dim)
        self.mlp = Mlp(dim, dim * 4, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Embed(nn.Module):
    """Strided convolution, BatchNorm, ReLU."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(before, after, kernel, stride, padding)
        self.norm = nn.BatchNorm2d(after)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.proj(x)))


class AuthorsHireMLP(nn.Module):
    """The network with the authors' key names, for 1000 or other numbers of classes."""

    def __init__(
        self,
        depths: Sequence[int],
        dims: Sequence[int],
        classes: int = 1000,
        regions: Sequence[int] = (4, 3, 3, 2),
        cycles: Sequence[int] = (2, 2, 3, 2),
        steps: Sequence[int] = (2, 2, 1, 1),
    ) -> None:
        super().__init__()
        self.patch_embed = Embed(3, dims[0], 7, 4, 2)
        network: list[nn.Module] = []
        for i, (depth, dim) in enumerate(zip(depths, dims, strict=True)):
            if i:
                network.append(Embed(dims[i - 1], dim, 3, 2, 1))
            shifts = [(j % cycles[i]) * steps[i] for j in range(depth)]
            network.append(nn.Sequential(*(Block(dim, regions[i], s) for s in shifts)))
        self.network = nn.ModuleList(network)
        self.norm = nn.BatchNorm2d(dims[-1])
        self.head = nn.Linear(dims[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for part in self.network:
            x = part(x)
        return self.head(self.norm(x).mean((2, 3)))
