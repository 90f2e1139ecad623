"""Hire-MLP once more: slow, in NumPy, one token after another, straight from the definition.

Nothing of hirelab is imported. A network is a dictionary of arrays (its state dict) and a
dictionary of settings; regions are built by walking along lines of tokens.
"""

from __future__ import annotations

import math

import numpy as np

EPS = 1e-5


def forward(state: dict, x: np.ndarray, settings: dict, training: bool = False) -> np.ndarray:
    """Logits for a batch (B, C, H, W). ``training`` normalises by the batch."""
    net = _Net(state, settings, training)
    x = net.conv_norm_relu("stem", x, stride=4, pad=2)
    for i, depth in enumerate(settings["depths"]):
        if i > 0:
            x = net.conv_norm_relu(f"stages.{i}.downsample", x, stride=2, pad=1)
        for j in range(depth):
            x = net.block(i, j, x)
    x = net.norm("norm", x)
    return x.mean(axis=(2, 3)) @ state["head.weight"].T + state["head.bias"]


def walk(tokens: list, region: int, padding: str) -> list:
    """The line, lengthened one step at a time until whole regions are full; None is emptiness."""
    filled, size = list(tokens), len(tokens)
    place, step = size - 1, -1  # reflect: a ball that bounces between the ends
    while len(filled) % region:
        if padding == "circular":
            filled.append(filled[len(filled) - size])
        elif padding == "replicate":
            filled.append(tokens[-1])
        elif padding == "zero":
            filled.append(None)
        else:
            if size > 1:
                if not 0 <= place + step < size:
                    step = -step
                place += step
            filled.append(tokens[place])
    return filled


def reorder(size: int, region: int, shift: int, cross_region: str) -> list[int]:
    """Which token stands at each position after the cross-region step."""
    if shift == 0 or cross_region == "none":
        return list(range(size))
    if cross_region == "shuffle":  # deal the cards into `region` piles, then stack the piles
        piles: list[list[int]] = [[] for _ in range(region)]
        for token in range(size):
            piles[token % region].append(token)
        return [token for pile in piles for token in pile]
    standing = [0] * size
    for token in range(size):
        standing[(token + shift) % size] = token  # towards higher index
    return standing


class _Net:
    def __init__(self, state: dict, settings: dict, training: bool) -> None:
        self.state, self.settings, self.training = state, settings, training

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        """BatchNorm on axis 1 of (B, C, ...)."""
        rest = tuple(a for a in range(x.ndim) if a != 1)
        if self.training:
            mean, var = x.mean(axis=rest), x.var(axis=rest)
        else:
            mean, var = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
        shape = [1, -1] + [1] * (x.ndim - 2)
        x = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + EPS)
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return x * weight.reshape(shape) + bias.reshape(shape)

    def conv_norm_relu(self, name: str, x: np.ndarray, stride: int, pad: int) -> np.ndarray:
        weight, bias = self.state[f"{name}.conv.weight"], self.state[f"{name}.conv.bias"]
        kernel = weight.shape[-1]
        x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        high = (x.shape[2] - kernel) // stride + 1
        wide = (x.shape[3] - kernel) // stride + 1
        out = np.zeros((x.shape[0], len(weight), high, wide))
        for row in range(high):
            for column in range(wide):
                top, left = row * stride, column * stride
                window = x[:, :, top : top + kernel, left : left + kernel]
                out[:, :, row, column] = np.tensordot(window, weight, ((1, 2, 3), (1, 2, 3))) + bias
        return np.maximum(self.norm(f"{name}.norm", out), 0.0)

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        """A linear layer on axis 1, whether it is stored as a matrix or as a 1x1 kernel."""
        weight = self.state[f"{name}.weight"].reshape(len(self.state[f"{name}.weight"]), -1)
        out = np.moveaxis(np.tensordot(x, weight, (1, 1)), -1, 1)
        if f"{name}.bias" in self.state:
            out = out + self.state[f"{name}.bias"].reshape([1, -1] + [1] * (x.ndim - 2))
        return out

    def block(self, i: int, j: int, x: np.ndarray) -> np.ndarray:
        name = f"stages.{i}.blocks.{j}"
        x = x + self.hire(f"{name}.hire", self.norm(f"{name}.norm1", x), i, j)
        y = gelu(self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.norm2", x)))
        return x + self.linear(f"{name}.mlp.fc2", y)

    def hire(self, name: str, x: np.ndarray, i: int, j: int) -> np.ndarray:
        outs = []
        for branch in ("height", "width", "channel"):
            if branch not in self.settings["branches"]:
                continue
            if branch == "channel":
                outs.append(self.linear(f"{name}.channel.fc", x))
            elif branch == "height":
                outs.append(self.columns(f"{name}.height", x, i, j))
            else:  # a row is a column of the turned image
                turned = self.columns(f"{name}.width", x.transpose(0, 1, 3, 2), i, j)
                outs.append(turned.transpose(0, 1, 3, 2))
        if self.settings["fusion"] == "sum":
            return sum(outs)
        hidden = gelu(self.linear(f"{name}.gate.fc1", sum(outs).mean(axis=(2, 3))))
        scores = self.linear(f"{name}.gate.fc2", hidden)
        batch, channels = x.shape[:2]
        fused = np.zeros_like(x)
        for b in range(batch):
            for c in range(channels):
                score = scores[b, c * len(outs) : (c + 1) * len(outs)]
                share = np.exp(score - score.max())
                for weight, out in zip(share / share.sum(), outs, strict=True):
                    fused[b, c] += weight * out[b, c]
        return self.linear(f"{name}.proj", fused)

    def columns(self, name: str, x: np.ndarray, i: int, j: int) -> np.ndarray:
        """Rearrange every column, mix its regions, put the tokens back."""
        batch, channels, size, wide = x.shape
        region = self.settings["region"][i]
        shift = (j % self.settings["shift_cycle"][i]) * self.settings["shift"][i]
        standing = reorder(size, region, shift, self.settings["cross_region"])
        slots = walk(standing, region, self.settings["padding"])

        regions = len(slots) // region
        vectors = np.zeros((batch, channels * region, regions, wide))
        for slot, token in enumerate(slots):
            if token is not None:
                for c in range(channels):
                    vectors[:, c * region + slot % region, slot // region] = x[:, c, token]

        layers = self.settings["fc_layers"]
        for k in range(1, layers + 1):
            vectors = self.linear(f"{name}.mix.fc{k}", vectors)
            if k < layers:
                vectors = np.maximum(self.norm(f"{name}.mix.norm{k}", vectors), 0.0)

        out = np.zeros_like(x)
        for position, token in enumerate(standing):
            place = token if self.settings["restore"] else position
            for c in range(channels):
                mixed = vectors[:, c * region + position % region, position // region]
                out[:, c, place] = mixed
        return out


def gelu(x: np.ndarray) -> np.ndarray:
    error = np.array([math.erf(v) for v in (x / math.sqrt(2.0)).ravel()])
    return 0.5 * x * (1.0 + error.reshape(x.shape))
