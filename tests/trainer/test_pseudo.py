from __future__ import annotations

import pytest
import torch

from algan_stream.errors import ConfigError
from algan_trainer.networks import append_pooled
from algan_trainer.pseudo import pseudo_anomalies
from algan_trainer.sections import PseudoConfig


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def good(count: int, side: int = 64) -> torch.Tensor:
    return append_pooled(torch.rand(count, 3, side, side, generator=rng(9)) - 0.5)


@pytest.mark.parametrize("kinds", [("cutpaste",), ("perlin",), ("cutpaste", "perlin")])
def test_every_image_is_changed_in_a_part_of_it(kinds: tuple[str, ...]) -> None:
    images = good(64)
    made = pseudo_anomalies(images, PseudoConfig(kinds=kinds), rng())  # type: ignore[arg-type]
    assert made.shape == images.shape
    assert made.abs().max() <= 1.0
    changed = (made != images).any(1).float().mean((1, 2))
    # A blot or scar at the very border may miss the image; hardly any does, and none covers all of it.
    assert (changed > 0).float().mean() > 0.95
    assert changed.max() < 0.9
    assert changed.median() < 0.3


def test_pooled_channels_belong_to_the_colours() -> None:
    made = pseudo_anomalies(good(16), PseudoConfig(), rng())
    assert torch.allclose(made, append_pooled(made[:, :3]), atol=1e-6)


def test_grey_stays_grey_and_three_channels_stay_three() -> None:
    grey = torch.rand(16, 1, 32, 32, generator=rng()).expand(-1, 3, -1, -1) - 0.5
    made = pseudo_anomalies(grey, PseudoConfig(), rng())
    assert made.shape == grey.shape
    assert torch.equal(made[:, 0], made[:, 1])
    assert torch.equal(made[:, 0], made[:, 2])


def test_the_seed_decides() -> None:
    images = good(8)
    first = pseudo_anomalies(images, PseudoConfig(), rng(1))
    assert torch.equal(first, pseudo_anomalies(images, PseudoConfig(), rng(1)))
    assert not torch.equal(first, pseudo_anomalies(images, PseudoConfig(), rng(2)))


def test_a_single_image_and_bfloat16_will_do() -> None:
    made = pseudo_anomalies(good(1).bfloat16(), PseudoConfig(), rng(1))
    assert made.dtype == torch.bfloat16
    assert not torch.equal(made, good(1).bfloat16())


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"weight": 1.0}, "pseudo.weight"),
        ({"weight": -0.1}, "pseudo.weight"),
        ({"kinds": ()}, "pseudo.kinds"),
    ],
)
def test_impossible_wishes_are_named(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        PseudoConfig(**wrong)  # type: ignore[arg-type]
