"""Pseudo-anomalies made from good vectors: one more kind of fake for D, as `pseudo` makes of images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Spread of the noise that is added, in standard deviations of the feature.
_NOISE = (0.5, 8.0)


def vector_pseudo_anomalies(vectors: Tensor, rng: torch.Generator) -> Tensor:
    """Makes one pseudo-anomaly of each good vector.

    In each, some features are changed, one at least, few as often as many: half of the vectors take them from
    other vectors, so that only how features go together is broken; to the other half noise is added.

    Args:
        vectors: (N, F), standardised; N ≥ 1.
        rng: Source of randomness, on the CPU.

    Returns:
        (N, F) in the vectors' dtype.
    """
    count, features = vectors.shape
    share = torch.rand(count, 1, generator=rng).mul(-math.log(features)).exp()  # 1/F to 1
    changed = torch.rand(count, features, generator=rng) < share
    changed[torch.arange(count), torch.randint(features, (count,), generator=rng)] = True
    # A permutation of its own for each feature: every value is one that the feature has in good vectors.
    other = vectors.gather(0, torch.rand(count, features, generator=rng).argsort(0).to(vectors.device))
    low, high = map(math.log, _NOISE)
    spread = (low + (high - low) * torch.rand(count, 1, generator=rng)).exp()
    noise = spread * torch.randn(count, features, generator=rng)
    taken = torch.rand(count, 1, generator=rng) < 0.5
    made = torch.where(taken.to(vectors.device), other, vectors + noise.to(vectors.device, vectors.dtype))
    return torch.where(changed.to(vectors.device), made, vectors)
