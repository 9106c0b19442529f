"""The pair of networks for each kind of model."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from algan_trainer.config import Config
from algan_trainer.networks import Discriminator, Generator
from algan_trainer.networks_vector import VectorDiscriminator, VectorGenerator


def new_networks(config: Config, samples: Tensor) -> tuple[nn.Module, nn.Module]:
    """Makes G and D, not yet initialised.

    Args:
        config: Decides their kind and size.
        samples: What they are to be trained on: images (n, C, size_px, size_px), or vectors (n, features).

    Returns:
        G: latent (N, latent_dim) → sample (N, …); D: sample (N, …) → logit (N,).
    """
    net = config.network
    if net.kind == "image":
        channels = samples.shape[1]
        painted = painted_channels(net.generator_emits, samples)
        generator = Generator(net.size_px, net.width, net.latent_dim, channels, painted=painted)
        return generator, Discriminator(net.size_px, net.width, channels, net.norm)
    features = samples.shape[1]
    return VectorGenerator(features, net.hidden, net.latent_dim), VectorDiscriminator(features, net.hidden)


def painted_channels(emits: Literal["auto", "rgb", "grey", "all"], images: Tensor) -> int:
    """Channels that G paints itself, for training images (n, C, H, W)."""
    if emits == "all":
        return images.shape[1]
    grey = images[:, 0].equal(images[:, 1]) and images[:, 1].equal(images[:, 2])
    return 1 if emits == "grey" or (emits == "auto" and grey) else 3
