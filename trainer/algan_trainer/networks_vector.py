"""The fully connected pair of ALGAN-feature (paper, section 4.1): three layers each, for any vectors.

The sizes of the layers are not given in the paper; `hidden` is ours to choose.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812  (everyone's name for it)
from torch import Tensor, nn

from algan_trainer.networks import LEAKY_SLOPE, SpectralLinear


class VectorGenerator(nn.Module):
    """Latent (N, latent_dim) → vector (N, features).

    BN + ReLU after the first two layers; the output is linear, since features have no common range.
    """

    def __init__(self, features: int, hidden: int, latent_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, features),
        )

    def forward(self, z: Tensor) -> Tensor:
        """z: (N, latent_dim)."""
        vectors: Tensor = self.layers(z)
        return vectors


class VectorDiscriminator(nn.Module):
    """Vector (N, features) → logit (N,): high for real normal vectors.

    Several vectors of one thing, (N, K, features), such as an image's features under K rotations, get the
    mean of their logits.
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        sizes = ((features, hidden), (hidden, hidden), (hidden, 1))
        self.linears = nn.ModuleList(SpectralLinear(a, b) for a, b in sizes)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, features), or (N, K, features)."""
        if x.dim() == 3:
            many: Tensor = self(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            return many.mean(1)
        for linear in self.linears[:-1]:
            x = F.leaky_relu(linear(x), LEAKY_SLOPE, inplace=True)
        logit: Tensor = self.linears[-1](x)  # (N, 1)
        return logit.flatten()

    def spectral_linears(self) -> list[SpectralLinear]:
        """The layers from vector to logit."""
        return [linear for linear in self.linears if isinstance(linear, SpectralLinear)]
