from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from algan_trainer.averaging import new_average, update_average
from algan_trainer.config import Config, override
from algan_trainer.networks import Discriminator, initialise
from algan_trainer.selection import Rule, new_trial, rule_for


class Flatness(nn.Module):
    """Scores by how much an image varies: pseudo-anomalies of flat images vary more."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.sign * -x.flatten(1).std(1)


def flat_images(count: int) -> torch.Tensor:
    levels = torch.linspace(-0.5, 0.5, count)[:, None, None, None]
    return levels.expand(-1, 3, 32, 32).contiguous()


def test_label_free_measure_tells_a_good_network_from_a_bad_one() -> None:
    anomalous = np.zeros(12, bool)
    trial = new_trial(flat_images(12), anomalous)
    good, bad = trial.measure(Flatness(1.0)), trial.measure(Flatness(-1.0))
    assert good["label_free"] is not None
    assert bad["label_free"] is not None
    assert good["label_free"] > 0.95
    assert bad["label_free"] < 0.05
    assert good["labels"] is None  # there are none


def test_labels_are_measured_where_both_kinds_are_there_and_never_leak_into_the_proxies() -> None:
    images = flat_images(12)
    images[8:, :, :5] = 0.9
    anomalous = np.arange(12) >= 8
    trial = new_trial(images, anomalous)
    assert trial.measure(Flatness(1.0))["labels"] == 1.0
    assert len(trial.proxies) == 2 * 8
    assert torch.equal(trial.proxies, new_trial(images[:8], anomalous[:8]).proxies)


def test_vectors_have_proxies_too() -> None:
    vectors = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    assert new_trial(vectors, np.zeros(20, bool)).proxies.shape == (40, 6)


@pytest.mark.parametrize(
    ("wanted", "labels", "expected"),
    [
        ("auto", True, "labels"),
        ("auto", False, "label_free"),
        ("labels", False, "last"),
        ("label_free", True, "label_free"),
        ("last", True, "last"),
    ],
)
def test_rules(wanted: Rule, labels: bool, expected: Rule) -> None:
    assert rule_for(wanted, np.array([False, False, labels])) == expected


@pytest.mark.parametrize("wanted", ["auto", "labels", "label_free", "last"])
def test_without_a_good_sample_to_judge_by_the_last_checkpoint_is_taken(wanted: Rule) -> None:
    anomalous = np.ones(3, bool)
    assert rule_for(wanted, anomalous) == "last"
    measured = new_trial(flat_images(3), anomalous).measure(Flatness(1.0))
    assert measured == {"labels": None, "label_free": None}


def network(seed: int) -> Discriminator:
    made = Discriminator(32, 2, 3)
    initialise(made, torch.Generator().manual_seed(seed))
    return made


def test_average_forgets_its_start_soon_and_then_follows_slowly() -> None:
    start, target = network(0), network(1)
    average = new_average(start)
    for step in range(200):
        update_average(average, target, 0.9, step)
    for averaged, wanted in zip(average.parameters(), target.parameters(), strict=True):
        assert torch.allclose(averaged, wanted, atol=1e-4)
    other = network(2)
    update_average(average, other, 0.9, 1000)
    first, moved = next(target.parameters()), next(average.parameters())
    assert torch.allclose(moved, first.lerp(next(other.parameters()), 0.1), atol=1e-4)
    assert not average.training
    assert not any(p.requires_grad for p in average.parameters())


def test_average_has_the_spectral_norm_of_its_own_weights() -> None:
    average = new_average(network(0))
    for step in range(100):
        update_average(average, network(1), 0.9, step)
    for layer in average.convs:
        norm = torch.linalg.matrix_norm(layer.folded_weight().flatten(1), 2)
        assert norm == pytest.approx(1.0, abs=0.02)


def test_the_average_is_what_is_scored(tiny: Config) -> None:
    from algan_trainer.algan import new_state, train

    images = torch.rand(8, 5, 32, 32, generator=torch.Generator().manual_seed(0))
    state = new_state(override(tiny, {"average_decay": 0.9, "epochs": 2}), images)
    for _ in train(state, images):
        pass
    assert state.scorer is state.average
    assert not torch.equal(next(state.scorer.parameters()), next(state.discriminator.parameters()))
    plain = new_state(override(tiny, {"average_decay": 0.0, "epochs": 2}), images)
    assert plain.scorer is plain.discriminator
