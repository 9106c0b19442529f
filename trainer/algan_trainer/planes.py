"""The planes of an image that training keeps; D's other input planes follow from these.

A grey image is three equal planes, and their maximum and mean are the same again: one plane says it all. Of a
coloured one, maximum and mean follow from the three colours. So augmentation, pseudo-anomalies and the buffer
work on one or three planes instead of five, and D's input is completed in one go, in the layout that its
convolutions are fastest in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from algan_trainer.config import Config
from algan_trainer.models import painted_channels
from algan_trainer.networks import append_pooled


def kept_planes(config: Config, samples: Tensor) -> int:
    """How many of the channels of training samples (n, C, H, W) are kept; of vectors (n, features) all."""
    if samples.ndim == 2:
        return samples.shape[1]
    painted = painted_channels(config.network.generator_emits, samples)
    if painted == 1 and painted_channels("auto", samples) != 1:
        return 3  # grey fakes of coloured images
    return painted


def keep(samples: Tensor, planes: int) -> Tensor:
    """The first `planes` channels, contiguous; everything where there are no more."""
    return samples if samples.ndim == 2 else samples[:, :planes].contiguous()


def complete(kept: Tensor, channels: int) -> Tensor:
    """D's input from kept planes (N, 1, 3 or `channels`, H, W); gradients flow through.

    Returns:
        (N, channels, H, W), channels last; a single plane, or vectors, as they are: D takes a plane for all.
    """
    if kept.ndim == 2:
        return kept
    if kept.shape[1] == 1:  # says channels last in its strides, or the convolution would leave that layout
        return kept.reshape(len(kept), *kept.shape[2:], 1).permute(0, 3, 1, 2)
    whole = append_pooled(kept) if kept.shape[1] < channels else kept
    return whole.contiguous(memory_format=torch.channels_last)
