"""Pseudo-anomalies cut from real images, after CutPaste (Li et al. 2021): not part of the paper's method.

A piece of a good image, a patch or a thin scar, is pasted elsewhere onto the same image, somewhat brighter or
darker. D learns them as one more kind of fake; G never sees them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from algan_trainer.networks import append_pooled

#: Ranges, as shares of the image's side: (shortest, longest) of a patch's side, and of a scar's.
PATCH_SIDE = (0.08, 0.35)
SCAR_LENGTH, SCAR_WIDTH = (0.10, 0.40), (0.015, 0.06)
#: A piece's values, −1..1, are multiplied by 1 ± GAIN and moved by ± OFFSET.
GAIN, OFFSET = 0.3, 0.25


def cutpaste(images: Tensor, rng: torch.Generator) -> Tensor:
    """Pastes one piece onto each image.

    Args:
        images: (N, C, H, W) in −1..1, C of 3, or 5 with pooled channels (which are computed anew).
        rng: Source of randomness.

    Returns:
        A new tensor of the same shape and dtype.
    """
    count, channels, height, width = images.shape
    rgb = images[:, :3]

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, 1, 1, generator=rng) * (high - low) + low

    scar = torch.rand(count, 1, 1, generator=rng) < 0.5
    long = torch.where(scar, uniform(*SCAR_LENGTH), uniform(*PATCH_SIDE))
    short = torch.where(scar, uniform(*SCAR_WIDTH), uniform(*PATCH_SIDE))
    angle = uniform(-math.pi, math.pi)
    # Coordinates in shares of the side, turned and moved to the piece's own centre.
    y = (torch.arange(height).view(1, -1, 1) + 0.5) / height - uniform(0.1, 0.9)
    x = (torch.arange(width).view(1, 1, -1) + 0.5) / width - uniform(0.1, 0.9)
    along = x * angle.cos() + y * angle.sin()
    across = y * angle.cos() - x * angle.sin()
    piece = ((along.abs() < long / 2) & (across.abs() < short / 2)).unsqueeze(1)  # (N, 1, H, W)

    # What is pasted comes from the same image, a random way off (around the edges, as on a torus).
    way = torch.randint(0, height * width, (count,), generator=rng)
    rows = (torch.arange(height) + way.div(width, rounding_mode="floor").unsqueeze(1)) % height  # (N, H)
    columns = (torch.arange(width) + (way % width).unsqueeze(1)) % width  # (N, W)
    moved = rgb[torch.arange(count).view(-1, 1, 1), :, rows.unsqueeze(2), columns.unsqueeze(1)].movedim(-1, 1)
    gain, offset = uniform(1 - GAIN, 1 + GAIN).unsqueeze(1), uniform(-OFFSET, OFFSET).unsqueeze(1)
    changed = (moved * gain + offset).clamp(-1, 1).to(rgb.dtype)
    pasted = torch.where(piece, changed, rgb)
    return append_pooled(pasted) if channels == 5 else pasted
