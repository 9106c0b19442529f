"""Pseudo-anomalies made from good images: one more kind of fake for D, past the paper.

Each is a good image with a mask in which something else shows. Two families:

* `cutpaste` (after Li et al. 2021): a rectangle or a thin, rotated scar, filled from elsewhere;
* `perlin` (after Zavrtanik et al. 2021): blots of any size and shape, cut out of Perlin-like noise, from a
  few pixels to a third of the image, a little transparent at most times; and cracks along its level lines.

What shows is another place of another image, or the same place darker or brighter. All of it is arithmetic on
whole batches: no loop over images or pixels.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F  # noqa: N812  (everyone's name for it)
from torch import Tensor

from algan_trainer.networks import append_pooled
from algan_trainer.pseudo_vector import vector_pseudo_anomalies
from algan_trainer.sections import PseudoConfig

#: Least side of a rectangle or scar, as a share of the image's.
_SCAR_WIDTH, _SCAR_LENGTH = (0.008, 0.06), (0.04, 0.5)
_PATCH_AREA, _PATCH_ASPECT = (0.002, 0.4), (0.2, 5.0)
#: Cells of the noise's coarsest grid along one side, drawn per batch; more cells make smaller blots.
_PERLIN_CELLS = (2, 4, 8, 16)
#: Share of cracks among what noise makes.
_CRACKS = 0.4
#: Brightness of what is pasted, as a shift in −1..1 units.
_SHIFT = (0.1, 0.8)


def pseudo_anomalies(images: Tensor, config: PseudoConfig, rng: torch.Generator) -> Tensor:
    """Makes one pseudo-anomaly of each good image; of vectors (N, F), see `pseudo_vector`.

    Args:
        images: (N, 1, 3 or 5, H, W) in −1..1, H = W; N ≥ 1. With five channels the last two are taken for
            the pooled ones, and computed anew.
        config: Which families.
        rng: Source of randomness, on the CPU.

    Returns:
        (N, C, H, W) in the images' dtype; differs from its image within a mask only.
    """
    if images.ndim <= 3:  # (N, F), or (N, K, F): K vectors of each image
        return vector_pseudo_anomalies(images.flatten(0, -2), rng).reshape(images.shape)
    rgb = images[:, :3]
    masks = torch.stack(
        [_MASKS[kind](len(images), images.shape[-1], rng, images.device) for kind in config.kinds]
    )
    chosen = torch.randint(len(config.kinds), (len(images),), generator=rng)
    mask = masks[chosen, torch.arange(len(images))].to(images.dtype)  # (N, 1, H, W)
    made = torch.lerp(rgb, _filling(rgb, rng), mask)
    return append_pooled(made) if images.shape[1] == 5 else made


def _filling(rgb: Tensor, rng: torch.Generator) -> Tensor:
    """What shows in the mask: elsewhere (half of them) or here, darker or brighter; (N, 3, H, W)."""
    count, _, height, width = rgb.shape
    shift = [int(torch.randint(1, side, (), generator=rng)) for side in (height, width)]
    elsewhere = rgb.roll(1, 0).roll(shift, (-2, -1))
    other = (torch.rand(count, 1, 1, 1, generator=rng) < 0.5).to(rgb.device)
    size = _uniform(*_SHIFT, count, rng, rgb.device)[:, None, None, None]
    darker = (torch.rand(size.shape, generator=rng) < 0.5).to(rgb.device)
    # What comes from elsewhere already differs: its brightness changes less.
    signed = torch.where(darker, -size, size) * torch.where(other, 0.5, 1.0)
    source = torch.where(other, elsewhere, rgb)
    return (source + signed.to(rgb.dtype)).clamp(-1.0, 1.0)


def _cutpaste_mask(count: int, side: int, rng: torch.Generator, device: torch.device) -> Tensor:
    """Rectangles (half of them) and scars: (count, 1, side, side) of 0 and 1."""
    area = _log_uniform(*_PATCH_AREA, count, rng, device)
    aspect = _log_uniform(*_PATCH_ASPECT, count, rng, device)
    scar = (torch.rand(count, generator=rng) < 0.5).to(device)
    long = torch.where(scar, _log_uniform(*_SCAR_LENGTH, count, rng, device), (area * aspect).sqrt())
    short = torch.where(scar, _log_uniform(*_SCAR_WIDTH, count, rng, device), (area / aspect).sqrt())
    angle = torch.where(scar, _uniform(0.0, math.pi, count, rng, device), torch.zeros(count, device=device))
    grid = (torch.arange(side, device=device) + 0.5) / side
    y = grid[None, :, None] - torch.rand(count, 1, 1, generator=rng).to(device)
    x = grid[None, None, :] - torch.rand(count, 1, 1, generator=rng).to(device)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    along, across = (x * cos + y * sin).abs(), (y * cos - x * sin).abs()
    # At least one pixel wide, or the thinnest scars would have gaps.
    half_short = short.clamp(min=1.0 / side)[:, None, None] / 2
    return ((along <= long[:, None, None] / 2) & (across <= half_short)).float()[:, None]


def _perlin_mask(count: int, side: int, rng: torch.Generator, device: torch.device) -> Tensor:
    """Blots and cracks of noise, (count, 1, side, side) of 0 to 1: opacity times shape."""
    cells = _PERLIN_CELLS[int(torch.randint(len(_PERLIN_CELLS), (), generator=rng))]
    noise = torch.zeros(count, 1, side, side, device=device)
    for octave in range(2):
        grid = min(cells * 2**octave, side)
        coarse = torch.randn(count, 1, grid + 1, grid + 1, generator=rng).to(device)
        spread = _bicubic(grid + 1, side).to(device)
        noise += 0.5**octave * (spread @ coarse @ spread.mT)
    # Only what lies round one random place, so that the blots of a fine grid are not all over the image.
    centre = torch.rand(count, 2, 1, 1, generator=rng).to(device)
    radius = _log_uniform(0.04, 0.5, count, rng, device)[:, None, None]
    pixels = (torch.arange(side, device=device) + 0.5) / side
    distance = (pixels[:, None] - centre[:, 0]).square() + (pixels[None, :] - centre[:, 1]).square()
    # At least the pixel that holds the centre.
    inside = (1.0 - distance / radius.clamp(min=1.0 / side).square()).clamp(min=0.0)[:, None]
    opacity = _uniform(0.5, 1.0, count, rng, device)[:, None, None, None]
    # What stands highest of noise and nearness to the centre: at least one pixel does.
    height = torch.where(inside > 0, noise + 1.5 * inside, -torch.inf)
    top = height.flatten(1).amax(1)[:, None, None, None]
    depth = _uniform(0.3, 1.5, count, rng, device)[:, None, None, None]
    blots = ((height - top + depth) * 8.0).clamp(0.0, 1.0)
    # A level line of the noise, a few pixels wide wherever the noise is steep: cracks, hairs, scratches.
    steepness = torch.hypot(*torch.gradient(noise, dim=(-2, -1))).clamp(min=1e-6)
    half_px = _uniform(0.4, 1.5, count, rng, device)[:, None, None, None]
    cracks = (half_px + 0.5 - noise.abs() / steepness).clamp(0.0, 1.0) * (inside > 0)
    crack = (torch.rand(count, 1, 1, 1, generator=rng) < _CRACKS).to(device)
    shape = torch.where(crack & (cracks.flatten(1).amax(1) > 0)[:, None, None, None], cracks, blots)
    return opacity * shape


@lru_cache(maxsize=32)
def _bicubic(points: int, side: int) -> Tensor:
    """The matrix, (side, points), that interpolates along one axis: much less work than the whole plane."""
    rows = torch.eye(points)[None, None]
    return F.interpolate(rows, (side, points), mode="bicubic", align_corners=True)[0, 0]


def _uniform(low: float, high: float, count: int, rng: torch.Generator, device: torch.device) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=rng).to(device)


def _log_uniform(low: float, high: float, count: int, rng: torch.Generator, device: torch.device) -> Tensor:
    return _uniform(math.log(low), math.log(high), count, rng, device).exp()


_MASKS = {"cutpaste": _cutpaste_mask, "perlin": _perlin_mask}
