"""BatchNorm over the batches of all processes, on any device.

PyTorch's SyncBatchNorm runs on GPUs only. On a CPU the same function is a few lines on all-reduces
that gradients flow through; with it, several CPU processes train exactly the network that one
would, which a test relies on.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose statistics in training are those of all processes' batches together."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and dist.is_initialized()):
            return super().forward(x)
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = all_reduce(torch.cat([x.sum((0, 2, 3)), count]))
        count = sums[-1]
        mean = sums[:-1] / count
        centred = x - mean[:, None, None]
        # squares of what is centred already: sums of raw squares lose digits
        var = all_reduce(centred.square().sum((0, 2, 3))) / count
        self._track(mean.detach(), (var * count / (count - 1)).detach())
        scale = self.weight * (var + self.eps).rsqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]

    def _track(self, mean: Tensor, var: Tensor) -> None:
        """Move the running statistics, where there are any, as BatchNorm2d does."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None  # the three come together
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:
            momentum = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(var, momentum)


def synchronise(model: nn.Module, device: torch.device) -> nn.Module:
    """``model`` with every BatchNorm synchronised over the processes; its keys stay the same."""
    if device.type != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlobalBatchNorm2d  # same attributes, another forward
    return model
