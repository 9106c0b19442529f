"""Exponential moving average of D's weights, past the paper: one D for deployment that wavers less.

From one checkpoint to the next D's AUROC jumps by several hundredths (the paper's Fig. 7 shows it too); the
average over the last epochs does not, and costs nothing when it runs.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from algan_trainer.batch_norm import SharedBatchNorm2d
from algan_trainer.networks import SpectralLayer

#: Power iterations that settle the averaged weights' own spectral norm after each update.
_POWER_ITERATIONS = 1


Network = TypeVar("Network", bound=nn.Module)


def new_average(network: Network) -> Network:
    """A copy that takes no gradients and is always in evaluation mode."""
    return copy.deepcopy(network).requires_grad_(False).eval()


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Moves `average` towards `network`.

    Args:
        average: Changed in place.
        network: Of the same shape.
        decay: Share of the average that stays, below 1; less in the first steps, so that the fresh weights
            are forgotten soon.
        step: Steps taken before this one.
    """
    share = 1.0 - min(decay, (1.0 + step) / (10.0 + step))
    for averaged, current in zip(average.parameters(), network.parameters(), strict=True):
        averaged.lerp_(current, share)
    for mine, theirs in zip(_statistics(average), _statistics(network), strict=True):
        mine.lerp_(theirs, share)
    for layer in average.modules():
        if isinstance(layer, SpectralLayer):
            for _ in range(_POWER_ITERATIONS):
                layer.power_iteration()


def _statistics(network: nn.Module) -> list[Tensor]:
    """Batch norm's means and variances, which belong to the weights that they were taken with."""
    norms = [m for m in network.modules() if isinstance(m, SharedBatchNorm2d)]
    return [t for norm in norms for t in (norm.running_mean, norm.running_var) if t is not None]
