"""The buffer of earlier fakes (paper, sections 3.3 and 4.1; Algorithm 1, lines 13 and 17)."""

from __future__ import annotations

import torch
from torch import Tensor


class Buffer:
    """Fakes of earlier iterations, normal and anomalous, each with its weight in the loss.

    Attributes:
        images: (capacity, C, H, W), or (capacity, features); the first `filled` hold fakes.
        weights: (capacity,) of equation 6, see `latents.loss_weights`.
        filled: Number of fakes held.
    """

    def __init__(self, capacity: int, image_like: Tensor) -> None:
        """Makes an empty buffer for images like `image_like`, (1 or more, C, H, W), or vectors."""
        shape = (capacity, *image_like.shape[1:])
        empty = torch.zeros(shape, dtype=image_like.dtype, device=image_like.device)
        self.images = empty
        self.weights = torch.ones(capacity, device=image_like.device)
        self.filled = 0

    def put(self, images: Tensor, weights: Tensor, rng: torch.Generator) -> None:
        """Stores new fakes: in free places while there are any, then in place of old ones at random."""
        free = torch.arange(self.filled, min(self.filled + len(images), len(self.images)))
        taken = torch.randperm(self.filled, generator=rng)[: len(images) - len(free)]
        slots = torch.cat((free, taken))
        self.images[slots] = images[: len(slots)]
        self.weights[slots] = weights[: len(slots)]
        self.filled += len(free)

    def sample(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws `count` (or all, if fewer are held) different fakes, (n, …), and weights (n,)."""
        slots = torch.randperm(self.filled, generator=rng)[:count]
        return self.images[slots], self.weights[slots]
