"""Normal and anomalous latent variables (paper, section 3.3; Algorithm 1, lines 2 to 5)."""

from __future__ import annotations

import torch
from torch import Tensor

from algan_trainer.sections import AlganConfig


def normal_latents(batches: int, batch_size: int, dim: int, rng: torch.Generator) -> Tensor:
    """Draws z ~ N(0, I), (batches, batch_size, dim)."""
    return torch.randn(batches, batch_size, dim, generator=rng)


def mixed_latents(
    batches: int, batch_size: int, dim: int, config: AlganConfig, rng: torch.Generator
) -> Tensor:
    """Draws z_d, (batches, batch_size, dim): in each batch first the normal ones, then N(0, σ²I)."""
    z = normal_latents(batches, batch_size, dim, rng)
    z[:, normal_count(batch_size, config) :] *= config.sigma
    return z


def normal_count(batch_size: int, config: AlganConfig) -> int:
    """Number of normal latents in a batch for D: its share α, or half where α is a weight instead."""
    one_kind = config.alpha in (0.0, 1.0)  # half of the batch would have no weight
    share = config.alpha if config.alpha_by == "sampling" or one_kind else 0.5
    return round(share * batch_size)


def loss_weights(batch_size: int, config: AlganConfig) -> Tensor:
    """Weights, (batch_size,), that make a mean over mixed fakes into α E[normal] + (1 − α) E[anomalous].

    All 1 when the batch holds them in exactly that ratio.
    """
    normal = normal_count(batch_size, config)
    weights = torch.empty(batch_size)
    weights[:normal] = config.alpha * batch_size / max(normal, 1)
    weights[normal:] = (1.0 - config.alpha) * batch_size / max(batch_size - normal, 1)
    return weights
