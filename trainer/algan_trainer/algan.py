"""Algorithm 1 of the paper, top to bottom.

Everything it changes lives in `State`, so that a checkpoint is a `State` and nothing else. `train` is a
generator: it yields after every batch, and its caller validates, saves, reports or stops in between.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  (everyone's name for it)
from torch import Tensor

from algan_stream.errors import AlganError
from algan_trainer.augment import augment
from algan_trainer.buffer import Buffer
from algan_trainer.config import Config
from algan_trainer.latents import loss_weights, mixed_latents, normal_latents
from algan_trainer.networks import Discriminator, Generator, initialise


class DivergedError(AlganError):
    """A loss is no longer a finite number; the checkpoint before it is untouched."""

    exit_code = 8


@dataclass
class State:
    """All that Algorithm 1 changes. B is the batch size, m the number of batches in an epoch.

    Attributes:
        rng: The one source of randomness; no global generator is ever used.
        z_d: (m or 1, B, latent_dim) latents for D, held for n_z epochs.
        z_g: (m or 1, B, latent_dim) latents for G, likewise.
        order: (m, B) indices of the training images in this epoch.
        epoch: Epochs completed.
        batch: Batches completed in the epoch under way.
        losses: Sums of D's and G's loss over those batches.
    """

    config: Config
    generator: Generator
    discriminator: Discriminator
    adam_g: torch.optim.Adam
    adam_d: torch.optim.Adam
    buffer: Buffer
    rng: torch.Generator
    z_d: Tensor
    z_g: Tensor
    order: Tensor
    epoch: int = 0
    batch: int = 0
    losses: tuple[float, float] = (0.0, 0.0)


def new_state(config: Config, images: Tensor) -> State:
    """Fresh networks and an empty buffer for `images`, (n, C, size_px, size_px) in the wanted dtype."""
    rng = torch.Generator().manual_seed(config.seed)
    net, adam = config.network, config.adam
    channels = images.shape[1]
    pooled = net.generator_emits == "rgb" and net.pooled_channels
    generator = Generator(net.size_px, net.width, net.latent_dim, 3 if pooled else channels, pooled=pooled)
    discriminator = Discriminator(net.size_px, net.width, channels)
    initialise(generator, rng, net.init)
    initialise(discriminator, rng, net.init)
    betas = (adam.beta1, adam.beta2)
    batches = math.ceil(len(images) / config.batch_size)
    held = batches if config.algan.latents_per == "sample" else 1
    capacity = 2 * (config.batch_size if config.algan.buffer == "batch" else batches * config.batch_size)
    return State(
        config=config,
        generator=generator,
        discriminator=discriminator,
        adam_g=torch.optim.Adam(generator.parameters(), adam.lr_generator, betas, fused=True),
        adam_d=torch.optim.Adam(discriminator.parameters(), adam.lr_discriminator, betas, fused=True),
        buffer=Buffer(capacity, images[:1]),
        rng=rng,
        z_d=torch.zeros(held, config.batch_size, net.latent_dim),
        z_g=torch.zeros(held, config.batch_size, net.latent_dim),
        order=torch.zeros(batches, config.batch_size, dtype=torch.int64),
    )


def train(state: State, images: Tensor) -> Iterator[State]:
    """Runs Algorithm 1 from wherever `state` stands; yields it after every batch.

    Args:
        state: Changed in place. When it is yielded with `batch == 0`, an epoch has just ended.
        images: (n, C, H, W) good images, in the dtype that D shall compute in (float32 or bfloat16).

    Raises:
        DivergedError: A loss became NaN or infinite.
    """
    config = state.config
    weights = loss_weights(config.batch_size, config.algan)
    while state.epoch < config.epochs:  # line 1
        if state.batch == 0:
            _begin_epoch(state, len(images))  # lines 2 to 5
        while state.batch < len(state.order):  # line 6
            j = state.batch
            x = augment(images[state.order[j]], config.data, state.rng)  # line 7
            # Line 9 stands inside the loop over k, but neither θ nor z_d changes there: x' is the same
            # for all n_dis updates. No gradient reaches G from them.
            with torch.no_grad(), _precision(images):
                fake = state.generator(state.z_d[j % len(state.z_d)]).to(images.dtype)
            loss_d = 0.0
            for _ in range(config.algan.n_dis):  # line 8
                loss_d += _update_discriminator(state, x, fake, weights)  # lines 10 to 16
            state.buffer.put(fake, weights, state.rng)  # line 17
            loss_g = _update_generator(state, images)  # lines 19 and 20
            state.losses = (state.losses[0] + loss_d / config.algan.n_dis, state.losses[1] + loss_g)
            state.batch += 1
            if state.batch < len(state.order):
                yield state
        state.epoch += 1
        state.batch = 0
        yield state


def _begin_epoch(state: State, count: int) -> None:
    """Shuffles the images, and draws new latents where their n_z epochs are over."""
    config, (batches, size) = state.config, state.order.shape
    if state.epoch % config.algan.n_z == 0:  # line 2, counted from 0 so that the first epoch has latents
        held, dim = len(state.z_d), config.network.latent_dim
        state.z_d = mixed_latents(held, size, dim, config.algan, state.rng)  # line 3
        state.z_g = normal_latents(held, size, dim, state.rng)  # line 4
    # The last batch is filled up with further images, so that all batches, and with them batch norm's
    # statistics and the weights of equation 6, are of one size.
    passes = math.ceil(batches * size / count)
    order = torch.cat([torch.randperm(count, generator=state.rng) for _ in range(passes)])
    state.order = order[: batches * size].reshape(batches, size)
    state.losses = (0.0, 0.0)


def _update_discriminator(state: State, x: Tensor, fake: Tensor, weights: Tensor) -> float:
    """One step of Adam on D; the buffer takes part from the second epoch on (lines 10 to 16)."""
    parts = [x, fake]
    if state.epoch > 0:
        buffered, buffered_weights = state.buffer.sample(len(x), state.rng)  # line 13
        parts.append(buffered)
    with _precision(x):
        # One batch for all: D has no batch norm, so the parts do not see each other.
        logits = state.discriminator(torch.cat(parts)).float().split([len(part) for part in parts])
    loss = real_loss(logits[0])
    if state.epoch > 0:
        loss = loss + fake_loss(logits[1], weights, logits[2], buffered_weights, state.config.algan.xi)
    else:
        loss = loss + (weights * F.softplus(logits[1])).mean()  # line 11
    value = loss.item()
    _require_finite(value, "discriminator", state)
    state.adam_d.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    state.adam_d.step()
    return value


def real_loss(logits: Tensor) -> Tensor:
    """−E[log D(x)] of logits (n,)."""
    return F.softplus(-logits).mean()


def fake_loss(
    fresh: Tensor, weights: Tensor, buffered: Tensor, buffered_weights: Tensor, xi: float
) -> Tensor:
    """The fakes' terms of equation 6, negated: ξ E[log(1 − D(x'))] + (1 − ξ) E[log(1 − D(x̂))].

    Args:
        fresh: (n,) logits of fresh fakes.
        weights: (n,) their share of α and 1 − α, see `latents.loss_weights`.
        buffered: (k,) logits of buffered fakes.
        buffered_weights: (k,) theirs.
        xi: ξ.
    """
    of_fresh = (weights * F.softplus(fresh)).mean()  # −log(1 − sigmoid(t)) = softplus(t)
    of_buffered = (buffered_weights * F.softplus(buffered)).mean()
    return xi * of_fresh + (1.0 - xi) * of_buffered


def _update_generator(state: State, images: Tensor) -> float:
    """One step of Adam on G, from normal latents only (lines 19 and 20)."""
    # The last z_g in use belongs to the batch under way.
    z = state.z_g[state.batch % len(state.z_g)]
    state.discriminator.requires_grad_(False)  # only G's gradients are wanted
    with _precision(images):
        logits = state.discriminator(state.generator(z).to(images.dtype)).float()
    if state.config.algan.generator_loss == "non_saturating":
        loss = real_loss(logits)  # fool D: −E[log D(G(z))]
    else:
        loss = -F.softplus(logits).mean()  # equation 5: E[log(1 − D(G(z)))]
    value = loss.item()
    _require_finite(value, "generator", state)
    state.adam_g.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    state.adam_g.step()
    state.discriminator.requires_grad_(True)
    return value


def _precision(images: Tensor) -> torch.autocast:
    """Autocast to bfloat16 where the images are bfloat16; master weights and losses stay float32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=images.dtype == torch.bfloat16)


def _require_finite(loss: float, of: str, state: State) -> None:
    if not math.isfinite(loss):
        raise DivergedError(
            f"the {of}'s loss is {loss} in epoch {state.epoch + 1}, batch {state.batch + 1}: training has "
            "diverged; go on from the last checkpoint with another seed or a lower learning rate"
        )
