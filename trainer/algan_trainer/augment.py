"""Random flips (paper, section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from algan_trainer.config import DataConfig


def augment(images: Tensor, config: DataConfig, rng: torch.Generator) -> Tensor:
    """Flips each image of (N, C, H, W) on its own; returns a new tensor."""
    for axis, enabled in ((-1, config.horizontal_flip), (-2, config.vertical_flip)):
        if enabled:
            flipped = torch.rand(len(images), 1, 1, 1, generator=rng) < 0.5
            images = torch.where(flipped, images.flip(axis), images)
    return images
