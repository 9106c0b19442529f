"""Batch norm for D: one set of statistics over all processes that share a batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _SumOverAll(torch.autograd.Function):
    """The sum over all processes; their losses depend on each other's images, so gradients are summed."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm (Ioffe and Szegedy 2015) whose statistics are those of the whole batch.

    Where several processes hold equal shares of a batch, each would else normalise by its own, and N
    processes would not train what one does. PyTorch has the like for GPUs only.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W); in training, over all processes' N together."""
        if not self.training or not dist.is_available() or not dist.is_initialized():
            normed: Tensor = super().forward(x)
            return normed
        return self._over_all(x, dist.get_world_size())

    def _over_all(self, x: Tensor, processes: int) -> Tensor:
        wide = x.float()
        moments = torch.stack((wide.mean((0, 2, 3)), wide.square().mean((0, 2, 3))))
        total: Tensor = _SumOverAll.apply(moments)  # type: ignore[no-untyped-call]
        mean, power = (total / processes).unbind()
        variance = (power - mean.square()).clamp(min=0.0)  # rounding can take it below
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            raise TypeError("expected running statistics")
        with torch.no_grad():
            count = processes * x.numel() // x.shape[1]
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / max(count - 1, 1)), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return torch.addcmul(shift[:, None, None], wide, scale[:, None, None]).to(x.dtype)
