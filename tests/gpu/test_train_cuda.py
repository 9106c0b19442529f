"""Training on a GPU against training on the CPU; without a GPU these say why they did not run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from algan_trainer.algan import State, new_state, train
from algan_trainer.checkpoint import capture, restore
from algan_trainer.config import Config, override
from algan_trainer.distributed import Team
from algan_trainer.networks import anomaly_scores
from algan_trainer.run import run
from algan_trainer.session import Request

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA GPU here")

#: Of losses over the first steps in float32, as a share: TF32 is off, but cuDNN adds up in another order, and
#: Adam with β₁ = 0 turns small differences of gradients into steps of full size.
CLOSE = 5e-3
CUDA = torch.device("cuda")


@pytest.fixture
def config() -> Config:
    return override(
        Config(),
        {
            "network.size_px": 32,
            "network.width": 8,
            "network.latent_dim": 16,
            "batch_size": 8,
            "precision": "fp32",
            "epochs": 2,
        },
    )


@pytest.fixture
def images() -> torch.Tensor:
    rgb = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return torch.cat((rgb, rgb.amax(1, keepdim=True), rgb.mean(1, keepdim=True)), 1)


@pytest.fixture(autouse=True)
def _no_tf32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def losses(state: State, images: torch.Tensor, team: Team | None = None) -> list[tuple[float, float]]:
    """Sums of the losses after each batch."""
    return [state.losses for state in train(state, images, team)]


def test_first_losses_agree_with_the_cpus(config: Config, images: torch.Tensor) -> None:
    on_cpu = losses(new_state(config, images), images)
    state = new_state(config, images.to(CUDA))
    on_gpu = losses(state, images.to(CUDA))
    assert state.buffer.images.device.type == "cuda"
    assert np.allclose(on_cpu, on_gpu, rtol=CLOSE, atol=CLOSE)


def test_the_same_numbers_are_drawn(config: Config, images: torch.Tensor) -> None:
    states = [new_state(config, images.to(device)) for device in ("cpu", "cuda")]
    for state in states:
        next(train(state, images.to(state.z_d.device)))
    assert torch.equal(states[0].order, states[1].order)
    assert torch.equal(states[0].z_d, states[1].z_d.cpu())
    assert torch.equal(states[0].rng.get_state(), states[1].rng.get_state())


def test_bf16_follows_fp32(config: Config, images: torch.Tensor) -> None:
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this GPU does not compute in bf16")
    exact = losses(new_state(config, images.to(CUDA)), images.to(CUDA))
    halved = images.to(CUDA, torch.bfloat16)
    state = new_state(config, halved)
    assert np.allclose(exact, losses(state, halved), rtol=0.05, atol=0.05)
    assert all(p.dtype == torch.float32 for p in state.discriminator.parameters())


def test_compiled_agrees_with_eager(config: Config, images: torch.Tensor) -> None:
    eager = losses(new_state(config, images.to(CUDA)), images.to(CUDA))
    state = new_state(config, images.to(CUDA))
    names = list(state.discriminator.state_dict())
    compiled = losses(state, images.to(CUDA), Team(CUDA, compiled=True))
    assert np.allclose(eager, compiled, rtol=CLOSE, atol=CLOSE)
    assert list(state.discriminator.state_dict()) == names


def test_a_checkpoint_moves_between_devices(config: Config, images: torch.Tensor) -> None:
    state = new_state(config, images.to(CUDA))
    next(train(state, images.to(CUDA)))
    arrays, facts = capture(state)
    on_cpu = new_state(config, images)
    restore(on_cpu, arrays, facts)
    back = new_state(config, images.to(CUDA))
    restore(back, *capture(on_cpu))
    assert all(np.array_equal(array, arrays[name]) for name, array in capture(back)[0].items())
    assert np.allclose(
        anomaly_scores(on_cpu.scorer, images), anomaly_scores(back.scorer, images), rtol=CLOSE, atol=1e-4
    )
    next(train(back, images.to(CUDA)))  # the optimisers' counts are where the fused kernels want them
    next(train(on_cpu, images))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_bundle_comes_out(compiled: bool, config: Config, tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(1)
    (tmp_path / "good").mkdir()
    for i in range(20):
        Image.fromarray(rng.integers(100, 150, (40, 40), dtype=np.uint8)).save(tmp_path / "good" / f"{i}.png")
    request = Request(
        tmp_path / "good", tmp_path / "b", tmp_path / "w", device="cuda", compiled=compiled, threads=1
    )
    assert run(config, {}, request).manifest.provenance["epochs"] == 2
