from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from algan_trainer.algan import DivergedError, State, fake_loss, new_state, real_loss, train
from algan_trainer.augment import augment
from algan_trainer.buffer import Buffer
from algan_trainer.config import Config, override
from algan_trainer.latents import loss_weights, mixed_latents, normal_count
from algan_trainer.sections import AlganConfig, DataConfig

Images = Callable[[int], torch.Tensor]


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def epochs_of(state: State, images: torch.Tensor, count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Runs `count` epochs and returns the latents that each used."""
    used = []
    for _ in train(state, images):
        if state.batch == 0:
            used.append((state.z_d.clone(), state.z_g.clone()))
        if state.epoch == count:
            break
    return used


def test_latents_are_held_for_n_z_epochs(tiny: Config, images: Images) -> None:
    config = override(tiny, {"algan.n_z": 3, "epochs": 9})
    used = epochs_of(new_state(config, images(6)), images(6), 7)
    for which in (0, 1):
        held = [z[which] for z in used]
        assert torch.equal(held[0], held[1])
        assert torch.equal(held[1], held[2])
        assert not torch.equal(held[2], held[3])
        assert torch.equal(held[3], held[5])
        assert not torch.equal(held[5], held[6])


def test_the_first_epoch_has_latents(tiny: Config, images: Images) -> None:
    (z_d, z_g), *_ = epochs_of(new_state(tiny, images(6)), images(6), 1)
    assert z_d.abs().min() > 0
    assert z_g.abs().min() > 0


def test_latents_per_sample_or_per_batch(tiny: Config, images: Images) -> None:
    assert new_state(tiny, images(6)).z_d.shape == (2, 4, 8)
    shared = override(tiny, {"algan.latents_per": "batch"})
    state = new_state(shared, images(6))
    assert state.z_d.shape == (1, 4, 8)
    assert len(epochs_of(state, images(6), 1)) == 1


def test_normal_and_anomalous_latents_in_the_ratio_alpha() -> None:
    config = AlganConfig(alpha=0.75, sigma=4.0)
    z = mixed_latents(50, 16, 200, config, rng())
    assert normal_count(16, config) == 12
    assert z[:, :12].std() == pytest.approx(1.0, abs=0.02)
    assert z[:, 12:].std() == pytest.approx(4.0, abs=0.08)


@pytest.mark.parametrize("alpha_by", ["sampling", "weight"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.75, 1.0])
def test_weighted_mean_is_alpha_of_normal_and_rest_of_anomalous(alpha_by: str, alpha: float) -> None:
    config = override(Config(), {"algan.alpha": alpha, "algan.alpha_by": alpha_by}).algan
    count, losses = normal_count(16, config), torch.rand(16, generator=rng())
    expected = sum(
        share * part.mean().item()
        for share, part in ((alpha, losses[:count]), (1 - alpha, losses[count:]))
        if len(part)
    )
    if 0 < count < 16 or alpha_by == "sampling":
        assert (loss_weights(16, config) * losses).mean().item() == pytest.approx(expected, rel=1e-5)


def test_loss_is_equation_6_by_hand() -> None:
    xi, alpha = 0.75, 0.75
    weights = loss_weights(4, AlganConfig(alpha=alpha, xi=xi))
    real, fresh, buffered = [0.5, -1.0], [1.0, 0.2, -0.3, 2.0], [0.1, -2.0, 3.0, 0.4]

    def d(logit: float) -> float:
        return 1 / (1 + math.exp(-logit))

    normal_fresh = sum(math.log(1 - d(t)) for t in fresh[:3]) / 3
    normal_buffered = sum(math.log(1 - d(t)) for t in buffered[:3]) / 3
    anomalous_fresh, anomalous_buffered = math.log(1 - d(fresh[3])), math.log(1 - d(buffered[3]))
    objective = (
        sum(math.log(d(t)) for t in real) / 2
        + alpha * (xi * normal_fresh + (1 - xi) * normal_buffered)
        + (1 - alpha) * (xi * anomalous_fresh + (1 - xi) * anomalous_buffered)
    )
    loss = real_loss(torch.tensor(real)) + fake_loss(
        torch.tensor(fresh), weights, torch.tensor(buffered), weights, xi
    )
    assert loss.item() == pytest.approx(-objective, rel=1e-5)


def test_buffer_fills_then_replaces_and_never_forgets_weights() -> None:
    buffer, source = Buffer(8, torch.zeros(1, 1, 1, 1)), rng()

    def put(value: float) -> None:
        buffer.put(torch.full((4, 1, 1, 1), value), torch.full((4,), value), source)

    put(1.0)
    assert buffer.filled == 4
    assert len(buffer.sample(8, source)[0]) == 4  # never an empty place
    put(2.0)
    assert buffer.filled == 8
    put(3.0)
    values = buffer.images.flatten()
    assert (values == 3).sum() == 4  # half of it is replaced
    assert torch.equal(values, buffer.weights)
    sampled, weights = buffer.sample(4, source)
    assert torch.equal(sampled.flatten(), weights)


def test_buffered_fakes_are_drawn_without_repetition() -> None:
    buffer = Buffer(8, torch.zeros(1, 1, 1, 1))
    buffer.put(torch.arange(8.0).reshape(8, 1, 1, 1), torch.ones(8), rng())
    assert sorted(buffer.sample(8, rng())[0].flatten().tolist()) == list(range(8))


@pytest.mark.parametrize(("size", "capacity"), [("batch", 8), ("dataset", 16)])
def test_buffer_capacity(size: str, capacity: int, tiny: Config, images: Images) -> None:
    state = new_state(override(tiny, {"algan.buffer": size}), images(6))
    assert len(state.buffer.images) == capacity


def test_buffer_takes_part_from_the_second_epoch_on(
    tiny: Config, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    state = new_state(tiny, images(6))
    sample = Buffer.sample

    def spy(self: Buffer, count: int, source: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        drawn.append(state.epoch)
        return sample(self, count, source)

    monkeypatch.setattr(Buffer, "sample", spy)
    epochs_of(state, images(6), 2)
    assert drawn == [1] * 4  # 2 batches × n_dis in the second epoch, none in the first


def test_every_image_is_seen_in_every_epoch_and_batches_are_full(tiny: Config, images: Images) -> None:
    state = new_state(tiny, images(6))
    epochs_of(state, images(6), 1)
    assert state.order.shape == (2, 4)
    assert set(state.order.flatten().tolist()) == set(range(6))


def test_fewer_images_than_a_batch(tiny: Config, images: Images) -> None:
    state = new_state(tiny, images(1))
    epochs_of(state, images(1), 2)
    assert state.epoch == 2


def test_same_seed_same_weights_other_seed_others(tiny: Config, images: Images) -> None:
    def weights(seed: int) -> torch.Tensor:
        state = new_state(override(tiny, {"seed": seed}), images(6))
        epochs_of(state, images(6), 2)
        return next(state.discriminator.parameters()).detach()

    first = weights(1)
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))


def test_global_random_state_is_left_alone(tiny: Config, images: Images) -> None:
    before = torch.get_rng_state()
    epochs_of(new_state(tiny, images(6)), images(6), 1)
    # Modules draw their throw-away default weights from the global generator; training itself must not.
    state = new_state(tiny, images(6))
    before = torch.get_rng_state()
    epochs_of(state, images(6), 1)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("loss", ["non_saturating", "saturating"])
def test_generator_learns_only_from_its_own_step(loss: str, tiny: Config, images: Images) -> None:
    state = new_state(override(tiny, {"algan.generator_loss": loss}), images(6))
    first = next(iter(state.generator.parameters())).detach().clone()
    next(train(state, images(6)))
    assert not torch.equal(first, next(iter(state.generator.parameters())))
    assert all(p.requires_grad for p in state.discriminator.parameters())


def test_bf16_trains(tiny: Config, images: Images) -> None:
    data = images(6).to(torch.bfloat16, memory_format=torch.channels_last)
    state = new_state(tiny, data)
    epochs_of(state, data, 2)
    assert state.buffer.images.dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in state.discriminator.parameters())


def test_nan_stops(tiny: Config, images: Images) -> None:
    data = images(6)
    data[2] = float("nan")
    with pytest.raises(DivergedError, match=r"discriminator's loss is nan in epoch 1"):
        epochs_of(new_state(tiny, data), data, 1)


def test_flips() -> None:
    image = torch.arange(6.0).reshape(1, 1, 2, 3).repeat(200, 1, 1, 1)
    still = {"shift": 0.0, "brightness": 0.0, "contrast": 0.0}
    both = augment(image, DataConfig(horizontal_flip=True, vertical_flip=True, **still), rng())
    assert len({tuple(x.flatten().tolist()) for x in both}) == 4
    none = augment(image, DataConfig(horizontal_flip=False, vertical_flip=False, **still), rng())
    assert torch.equal(none, image)
    horizontal = augment(image, DataConfig(**still), rng())
    assert {tuple(x[0, 0].tolist()) for x in horizontal} == {(0.0, 1.0, 2.0), (2.0, 1.0, 0.0)}
