from __future__ import annotations

from typing import Any

import pytest
import torch

from algan_trainer.augment import augment
from algan_trainer.networks import append_pooled
from algan_trainer.sections import DataConfig


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def only(**wanted: Any) -> DataConfig:
    nothing = {"horizontal_flip": False, "shift": 0.0, "brightness": 0.0, "contrast": 0.0}
    return DataConfig(**(nothing | wanted))


@pytest.fixture
def colours() -> torch.Tensor:
    return append_pooled(torch.rand(6, 3, 16, 16, generator=rng()) * 1.6 - 0.8)


def test_nothing_wanted_changes_nothing(colours: torch.Tensor) -> None:
    assert torch.equal(augment(colours, only(), rng()), colours)


@pytest.mark.parametrize(
    "wanted",
    [
        {"vertical_flip": True},
        {"rotation": "right_angles"},
        {"rotation": "any"},
        {"shift": 0.2},
        {"brightness": 0.3},
        {"contrast": 0.4},
    ],
)
def test_each_changes_images_but_not_their_kind(colours: torch.Tensor, wanted: dict[str, Any]) -> None:
    before = colours.clone()
    changed = augment(colours, only(**wanted), rng())
    assert torch.equal(colours, before)  # the training images are never touched
    assert changed.shape == colours.shape
    assert not torch.equal(changed, colours)
    assert changed.abs().max() <= 1.0
    # Maximum and mean always belong to the colours, as they do in what `_core` makes.
    assert torch.allclose(changed, append_pooled(changed[:, :3]), atol=1e-6)
    assert torch.equal(changed, augment(colours, only(**wanted), rng()))  # from the seed alone


def test_right_angles_reach_all_eight_positions_of_a_square() -> None:
    corner = torch.zeros(400, 3, 4, 4)
    corner[:, :, 0, 1] = 1.0
    turned = augment(corner, only(rotation="right_angles"), rng())
    assert len({int(image[0].argmax()) for image in turned}) == 8


def test_a_shift_moves_by_at_most_its_share_and_leaves_no_empty_border() -> None:
    ramp = torch.linspace(-0.5, 0.5, 20).expand(64, 3, 20, 20).contiguous()
    shifted = augment(ramp, only(shift=0.1), rng())
    step = 1.0 / 19
    assert (shifted[:, :, :, 2:-2] - ramp[:, :, :, 2:-2]).abs().max() <= 2.0 * step + 1e-5
    assert shifted.min() >= -0.5 - 1e-5


def test_brightness_and_contrast_stay_in_their_ranges() -> None:
    flat = torch.zeros(200, 3, 4, 4)
    brighter = augment(flat, only(brightness=0.1), rng())
    assert 0.15 < brighter.abs().max() <= 0.2 + 1e-6  # a tenth of the two units from black to white
    step = torch.zeros(200, 3, 4, 4)
    step[..., :2], step[..., 2:] = -0.5, 0.5
    spread = augment(step, only(contrast=0.4), rng())
    assert (spread[..., 2:] - spread[..., :2]).min() >= 0.6 - 1e-6
    assert (spread[..., 2:] - spread[..., :2]).max() <= 1.4 + 1e-6


def test_bfloat16_stays_bfloat16(colours: torch.Tensor) -> None:
    config = only(rotation="any", shift=0.1, brightness=0.1, contrast=0.1)
    assert augment(colours.bfloat16(), config, rng()).dtype == torch.bfloat16
