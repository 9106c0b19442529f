from __future__ import annotations

import pytest
import torch

from algan_trainer.config import Config, override
from algan_trainer.networks import Discriminator, append_pooled, initialise
from algan_trainer.planes import complete, keep, kept_planes


def pooled(grey: bool) -> torch.Tensor:
    rgb = torch.rand(4, 1 if grey else 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return append_pooled(rgb.expand(-1, 3, -1, -1).contiguous())


@pytest.mark.parametrize(
    ("emits", "grey", "planes"),
    [("auto", True, 1), ("auto", False, 3), ("grey", False, 3), ("rgb", True, 3), ("all", True, 5)],
)
def test_which_planes_are_kept(emits: str, grey: bool, planes: int, tiny: Config) -> None:
    config = override(tiny, {"network.generator_emits": emits})
    images = pooled(grey)
    assert kept_planes(config, images) == planes
    kept = keep(images, planes)
    assert kept.shape == (4, planes, 32, 32)
    whole = complete(kept, 5)
    assert torch.allclose(whole.expand(-1, 5, -1, -1), images, atol=1e-6)


def test_vectors_are_left_alone(tiny: Config) -> None:
    vectors = torch.rand(4, 7)
    config = override(tiny, {"network.kind": "feature"})
    assert kept_planes(config, vectors) == 7
    assert complete(keep(vectors, 7), 7) is vectors


def test_one_plane_stands_for_all_of_a_grey_image() -> None:
    network = Discriminator(32, 4, 5)
    initialise(network, torch.Generator().manual_seed(0))
    network.eval()
    images = pooled(grey=True)
    one, all_five = complete(keep(images, 1), 5).requires_grad_(), images.clone().requires_grad_()
    logits = network(one), network(all_five)
    assert torch.allclose(*logits, atol=1e-6)
    gradients = []
    for logit in logits:
        network.zero_grad()
        logit.sum().backward()
        weight = network.convs[0].weight.grad
        assert weight is not None
        gradients.append(weight.clone())
    assert torch.allclose(*gradients, atol=1e-5)
    assert one.grad is not None
    assert all_five.grad is not None
    assert torch.allclose(one.grad, all_five.grad.sum(1, keepdim=True), atol=1e-5)


def test_gradients_flow_through() -> None:
    kept = keep(pooled(grey=False), 3).requires_grad_()
    complete(kept, 5).square().sum().backward()
    assert kept.grad is not None
    assert (kept.grad.abs().amax((0, 2, 3)) > 0).all()
