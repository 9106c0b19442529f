"""Random changes of good images that leave them good (paper, section 4.2, and past it)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812  (everyone's name for it)
from torch import Tensor

from algan_trainer.networks import append_pooled
from algan_trainer.sections import DataConfig


def augment(images: Tensor, config: DataConfig, rng: torch.Generator) -> Tensor:
    """Changes each image on its own; returns a new tensor. Vectors stay as they are.

    Args:
        images: (N, 1, 3 or 5, H, W) in −1..1, H = W; one channel is grey, and with five the last two are the
            pooled ones.
        config: What to do, and how much.
        rng: Source of randomness, on the CPU.
    """
    if images.ndim == 2:
        return images
    count, channels = images.shape[:2]
    for axis, enabled in ((-1, config.horizontal_flip), (-2, config.vertical_flip)):
        if enabled:
            images = torch.where(_coin(count, rng, images), images.flip(axis), images)
    if config.rotation == "right_angles":
        images = torch.where(_coin(count, rng, images), images.transpose(-1, -2), images)
        for axis in (-1, -2):  # a transposition and two flips make all eight positions of a square
            images = torch.where(_coin(count, rng, images), images.flip(axis), images)
    if config.rotation == "any" or config.shift:
        images = _moved(images, config, rng)
    if config.brightness or config.contrast:
        rgb = images[:, :3]
        gain = 1.0 + config.contrast * _signed(count, rng, images)
        offset = 2.0 * config.brightness * _signed(count, rng, images)
        middle = rgb.mean((1, 2, 3), keepdim=True)
        rgb = ((rgb - middle) * gain + middle + offset).clamp(-1.0, 1.0)
        images = append_pooled(rgb) if channels == 5 else rgb
    return images


def _moved(images: Tensor, config: DataConfig, rng: torch.Generator) -> Tensor:
    """Rotates and shifts about the centre by bilinear sampling; the border is reflected."""
    count = len(images)
    turn = (
        math.pi * (2.0 * torch.rand(count, generator=rng) - 1.0)
        if config.rotation == "any"
        else torch.zeros(count)
    )
    cos, sin = turn.cos().to(images.device), turn.sin().to(images.device)
    shift = 2.0 * config.shift * (2.0 * torch.rand(2, count, generator=rng) - 1.0)  # the grid spans −1..1
    grid = _grid(cos, sin, shift.to(images.device), images.shape[-1])
    # In float32: bfloat16 coordinates would be off by whole pixels.
    moved = F.grid_sample(
        images[:, :3].float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    if images.shape[1] == 5:  # the maximum of interpolated colours is not the interpolated maximum
        moved = append_pooled(moved)
    return moved.to(images.dtype)


def _grid(cos: Tensor, sin: Tensor, shift: Tensor, side: int) -> Tensor:
    """Where each pixel comes from, (N, side, side, 2) of x, y in −1..1.

    The same as `F.affine_grid`, which takes a product of matrices for it and several times as long.
    """
    at = (2.0 * torch.arange(side, device=cos.device) + 1.0) / side - 1.0
    grid = torch.empty(len(cos), side, side, 2, device=cos.device)
    cos, sin, shift = cos[:, None, None], sin[:, None, None], shift[:, :, None, None]
    grid[..., 0] = cos * at + (shift[0] - sin * at[:, None])
    grid[..., 1] = sin * at + (shift[1] + cos * at[:, None])
    return grid


def _coin(count: int, rng: torch.Generator, like: Tensor) -> Tensor:
    return (torch.rand(count, 1, 1, 1, generator=rng) < 0.5).to(like.device)


def _signed(count: int, rng: torch.Generator, like: Tensor) -> Tensor:
    return (2.0 * torch.rand(count, 1, 1, 1, generator=rng) - 1.0).to(like.device, like.dtype)
