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
from torch import Tensor, nn

from algan_stream.errors import AlganError
from algan_trainer.augment import augment
from algan_trainer.averaging import new_average, update_average
from algan_trainer.buffer import Buffer
from algan_trainer.config import Config
from algan_trainer.distributed import Network, Team
from algan_trainer.latents import loss_weights, mixed_latents, normal_latents
from algan_trainer.models import new_networks
from algan_trainer.networks import initialise
from algan_trainer.planes import complete, keep, kept_planes
from algan_trainer.pseudo import pseudo_anomalies


class DivergedError(AlganError):
    """A loss is no longer a finite number; the checkpoint before it is untouched."""

    exit_code = 8


@dataclass
class State:
    """All that Algorithm 1 changes. B is the batch size, m the number of batches in an epoch.

    Networks, optimisers, buffer and latents are on the device that trains; `rng` and `order` stay on the CPU,
    so that the same numbers are drawn wherever it trains.

    Attributes:
        buffer: Earlier fakes; of their channels those that are kept, see `planes`.
        rng: The one source of randomness; no global generator is ever used.
        z_d: (m or 1, B, latent_dim) latents for D, held for n_z epochs.
        z_g: (m or 1, B, latent_dim) latents for G, likewise.
        order: (m, B) indices of the training images in this epoch.
        epoch: Epochs completed.
        batch: Batches completed in the epoch under way.
        losses: Sums of D's and G's loss over those batches.
        average: Moving average of D, in evaluation mode, or None without one.
    """

    config: Config
    generator: nn.Module
    discriminator: nn.Module
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
    average: nn.Module | None = None

    @property
    def scorer(self) -> nn.Module:
        """The network that is validated and deployed: the average where there is one, else D itself."""
        return self.discriminator if self.average is None else self.average


def new_state(config: Config, images: Tensor) -> State:
    """Fresh networks and an empty buffer for `images`, (n, C, size_px, size_px), or vectors (n, features).

    They are on the images' device.
    """
    rng = torch.Generator().manual_seed(config.seed)
    net, adam = config.network, config.adam
    generator, discriminator = new_networks(config, images)
    initialise(generator, rng, net.init)
    initialise(discriminator, rng, net.init)
    device = images.device
    if images.ndim == 4:  # G's activations take its weights' layout, and this one is the fastest
        generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator.to(device)
    discriminator.to(device)
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
        buffer=Buffer(capacity, keep(images[:1], kept_planes(config, images))),
        rng=rng,
        z_d=torch.zeros(held, config.batch_size, net.latent_dim, device=device),
        z_g=torch.zeros(held, config.batch_size, net.latent_dim, device=device),
        order=torch.zeros(batches, config.batch_size, dtype=torch.int64),
        average=new_average(discriminator) if config.average_decay else None,
    )


def train(state: State, images: Tensor, team: Team | None = None) -> Iterator[State]:
    """Runs Algorithm 1 from wherever `state` stands; yields it after every batch.

    Args:
        state: Changed in place. When it is yielded with `batch == 0`, an epoch has just ended.
        images: (n, C, H, W) good images, or vectors (n, features), on the state's device, in the dtype that D
            shall compute in (float32 or bfloat16).
        team: The processes that share the work; None: this one does all of it.

    Raises:
        DivergedError: A loss became NaN or infinite.
    """
    config, step = state.config, _Step.of(state, images, team or Team())
    images = keep(images, step.planes)
    while state.epoch < config.epochs:  # line 1
        if state.batch == 0:
            _begin_epoch(state, len(images))  # lines 2 to 5
        while state.batch < len(state.order):  # line 6
            j = state.batch
            x = augment(images[state.order[j]], config.data, state.rng)  # line 7
            # Line 9 stands inside the loop over k, but neither θ nor z_d changes there: x' is the same
            # for all n_dis updates. No gradient reaches G from them.
            with torch.no_grad(), _precision(images):
                fake = state.generator(state.z_d[j % len(state.z_d)])
            fake = keep(fake.to(images.dtype), step.planes)
            of_d = [
                _update_discriminator(state, step, x, fake) for _ in range(config.algan.n_dis)
            ]  # 8, 10–16
            state.buffer.put(fake, step.weights, state.rng)  # line 17
            of_g = _update_generator(state, step, images.dtype)  # lines 19 and 20
            loss_d, loss_g = _finite(step.team.mean(torch.stack((torch.stack(of_d).mean(), of_g))), state)
            if state.average is not None:
                done = state.epoch * len(state.order) + j
                update_average(state.average, state.discriminator, config.average_decay, done)
            state.losses = (state.losses[0] + loss_d, state.losses[1] + loss_g)
            state.batch += 1
            if state.batch < len(state.order):
                yield state
        state.epoch += 1
        state.batch = 0
        yield state


@dataclass(frozen=True)
class _Step:
    """What every batch needs and none changes.

    Attributes:
        team: The processes that share the work.
        generator: G as its own update runs it.
        discriminator: D as its own update runs it.
        judge: D as G's update runs it.
        weights: (B,) of the fakes, see `latents.loss_weights`.
        channels: Of D's input.
        planes: Of these, what is kept, see `planes`.
    """

    team: Team
    generator: Network
    discriminator: Network
    judge: Network
    weights: Tensor
    channels: int
    planes: int

    @classmethod
    def of(cls, state: State, images: Tensor, team: Team) -> _Step:
        return cls(
            team,
            team.learner(state.generator),
            team.learner(state.discriminator),
            team.judge(state.discriminator),
            loss_weights(state.config.batch_size, state.config.algan).to(images.device),
            images.shape[1],
            state.buffer.images.shape[1],
        )


def _begin_epoch(state: State, count: int) -> None:
    """Shuffles the images, and draws new latents where their n_z epochs are over."""
    config, (batches, size) = state.config, state.order.shape
    if state.epoch % config.algan.n_z == 0:  # line 2, counted from 0 so that the first epoch has latents
        held, dim, device = len(state.z_d), config.network.latent_dim, state.z_d.device
        state.z_d = mixed_latents(held, size, dim, config.algan, state.rng).to(device)  # line 3
        state.z_g = normal_latents(held, size, dim, state.rng).to(device)  # line 4
    # The last batch is filled up with further images, so that all batches, and with them batch norm's
    # statistics and the weights of equation 6, are of one size.
    passes = math.ceil(batches * size / count)
    order = torch.cat([torch.randperm(count, generator=state.rng) for _ in range(passes)])
    state.order = order[: batches * size].reshape(batches, size)
    state.losses = (0.0, 0.0)


def _update_discriminator(state: State, step: _Step, x: Tensor, fake: Tensor) -> Tensor:
    """One step of Adam on D; the buffer takes part from the second epoch on (lines 10 to 16).

    Past the paper, pseudo-anomalies take `pseudo.weight` of the loss over all fakes.

    Args:
        state: Of it, D, its optimiser and the source of randomness change.
        step: See there.
        x: (B, planes, H, W) good images.
        fake: (B, planes, H, W) fresh fakes.

    Returns:
        The loss over this process's share of the batch.
    """
    share = step.team.share
    parts, weights = [share(x), share(fake)], share(step.weights)
    replayed = state.epoch > 0 and state.config.algan.xi < 1.0  # ξ = 1 leaves the buffer out (Table 7)
    if replayed:
        buffered, buffered_weights = map(share, state.buffer.sample(len(x), state.rng))  # line 13
        parts.append(buffered)
    pseudo_share = state.config.pseudo.weight
    if pseudo_share:
        parts.append(share(pseudo_anomalies(x, state.config.pseudo, state.rng)))
    with _precision(x):
        # One batch for all, the fastest way. With spectral norm the parts do not see each other.
        logits = step.discriminator(complete(torch.cat(parts), step.channels)).float()
    real, fresh, *others = torch.split(logits, [len(part) for part in parts])
    if replayed:
        fakes = fake_loss(fresh, weights, others[0], buffered_weights, state.config.algan.xi)
    else:
        fakes = (weights * F.softplus(fresh)).mean()  # line 11
    if pseudo_share:
        fakes = (1.0 - pseudo_share) * fakes + pseudo_share * F.softplus(others[-1]).mean()
    loss = real_loss(real) + fakes
    state.adam_d.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    state.adam_d.step()
    return loss.detach()


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


def _update_generator(state: State, step: _Step, dtype: torch.dtype) -> Tensor:
    """One step of Adam on G, from normal latents only (lines 19 and 20); returns the loss of this share.

    G makes the whole batch in every process, so that batch norm sees all of it; D judges this one's share.
    """
    # The last z_g in use belongs to the batch under way.
    z = state.z_g[state.batch % len(state.z_g)]
    state.discriminator.requires_grad_(False)  # only G's gradients are wanted
    learning = state.discriminator.training
    # Fakes alone would shift batch norm's statistics, by which good images are judged later.
    state.discriminator.train(learning and state.config.network.norm != "batch")
    with _precision(state.buffer.images):
        fake = step.team.share(keep(step.generator(z).to(dtype), step.planes))
        logits = step.judge(complete(fake, step.channels)).float()
    if state.config.algan.generator_loss == "non_saturating":
        loss = real_loss(logits)  # fool D: −E[log D(G(z))]
    else:
        loss = -F.softplus(logits).mean()  # equation 5: E[log(1 − D(G(z)))]
    state.adam_g.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    state.adam_g.step()
    state.discriminator.requires_grad_(True)
    state.discriminator.train(learning)
    return loss.detach()


def _precision(images: Tensor) -> torch.autocast:
    """Autocast to bfloat16 where the images are bfloat16; master weights and losses stay float32."""
    return torch.autocast(images.device.type, torch.bfloat16, enabled=images.dtype == torch.bfloat16)


def _finite(losses: Tensor, state: State) -> tuple[float, float]:
    """Reads D's and G's loss, once for each batch: on a GPU, reading waits for everything before."""
    loss_d, loss_g = losses.tolist()
    for of, loss in (("discriminator", loss_d), ("generator", loss_g)):
        if not math.isfinite(loss):
            raise DivergedError(
                f"the {of}'s loss is {loss} in epoch {state.epoch + 1}, batch {state.batch + 1}: training "
                "has diverged; go on from the last checkpoint with another seed or a lower learning rate"
            )
    return loss_d, loss_g
