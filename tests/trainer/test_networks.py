from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from algan_stream.engines.graph import open_graph
from algan_trainer.algan import new_state, train
from algan_trainer.averaging import update_average
from algan_trainer.batch_norm import SharedBatchNorm2d
from algan_trainer.config import Config, override
from algan_trainer.networks import (
    BatchNormConv2d,
    Discriminator,
    Generator,
    anomaly_scores,
    append_pooled,
    initialise,
    stage_channels,
)
from algan_trainer.onnx_graph import write_onnx


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("size", "layers"), [(32, 4), (64, 5), (128, 6), (256, 7)])
def test_shapes_and_layers(size: int, layers: int) -> None:
    generator = Generator(size, 2, 10, 5, painted=3)
    discriminator = Discriminator(size, 2, 5)
    images = generator(torch.randn(2, 10, generator=rng()))
    assert images.shape == (2, 5, size, size)
    assert images.abs().max() <= 1
    assert discriminator(images).shape == (2,)
    assert len(discriminator.convs) == layers
    assert sum(isinstance(m, torch.nn.ConvTranspose2d) for m in generator.modules()) == layers


def test_channels_double_up_to_sixteenfold() -> None:
    assert stage_channels(256, 32) == [32, 64, 128, 256, 512, 512]


def test_no_batch_norm_on_the_output_and_none_in_the_discriminator() -> None:
    layers = list(Generator(32, 2, 10, 5, painted=3).layers)
    assert isinstance(layers[-1], torch.nn.Tanh)
    assert isinstance(layers[-2], torch.nn.ConvTranspose2d)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in Discriminator(32, 2, 5).modules())


def test_pooled_channels_are_those_of_the_colours() -> None:
    pooled = append_pooled(torch.tensor([0.1, 0.9, -0.4]).reshape(1, 3, 1, 1)).flatten()
    assert torch.allclose(pooled[3:], torch.tensor([0.9, 0.2]))


def test_generator_may_paint_all_channels() -> None:
    assert Generator(32, 2, 10, 5, painted=5)(torch.zeros(2, 10)).shape == (2, 5, 32, 32)


def test_folded_spectral_norm_is_one() -> None:
    network = Discriminator(64, 8, 5)
    initialise(network, rng())
    x = torch.randn(2, 5, 64, 64, generator=rng())
    for _ in range(50):  # as training does: one power iteration each
        network(x)
    for conv in network.convs:
        norm = torch.linalg.matrix_norm(conv.folded_weight().flatten(1), ord=2).item()
        assert norm == pytest.approx(1.0, abs=1e-2)


def test_fresh_weights_are_spread_as_pytorchs_own_and_come_from_the_given_generator() -> None:
    network, again = Discriminator(64, 16, 5), Discriminator(64, 16, 5)
    initialise(network, rng())
    initialise(again, rng())
    for mine, twin in zip(network.convs, again.convs, strict=True):
        torchs = torch.nn.Conv2d(mine.weight.shape[1], mine.weight.shape[0], 4)
        assert mine.weight.std().item() == pytest.approx(torchs.weight.std().item(), rel=0.1)
        assert torch.equal(mine.weight, twin.weight)


def test_dcgans_fresh_weights_have_its_spread() -> None:
    network = Discriminator(64, 16, 5)
    initialise(network, rng(), "dcgan")
    for conv in network.convs:
        assert conv.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_fresh_spectral_norms_are_already_close_to_one() -> None:
    network = Discriminator(64, 8, 5)
    initialise(network, rng())
    for conv in network.convs:
        assert 0.99 < torch.linalg.matrix_norm(conv.folded_weight().flatten(1), ord=2).item() < 1.1


def test_scoring_changes_nothing_and_is_repeatable() -> None:
    network = Discriminator(32, 4, 5)
    initialise(network, rng())
    before = {name: t.clone() for name, t in network.state_dict().items()}
    images = torch.randn(5, 5, 32, 32, generator=rng())
    first = anomaly_scores(network, images, batch_size=2)
    assert network.training
    assert (first == anomaly_scores(network, images, batch_size=2)).all()
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())


def test_each_logit_depends_on_its_own_image_only() -> None:
    network = Discriminator(32, 4, 5).eval()
    initialise(network, rng())
    images = torch.randn(3, 5, 32, 32, generator=rng())
    changed = images.clone()
    changed[1:] = 0
    assert torch.allclose(network(images)[0], network(changed)[0], atol=1e-6)


def test_gradient_is_that_of_torchs_own_spectral_norm() -> None:
    network = Discriminator(32, 4, 5)
    initialise(network, rng())
    mine = network.convs[1]
    theirs = torch.nn.Conv2d(4, 8, 4, stride=2, padding=1)
    with torch.no_grad():
        theirs.weight.copy_(mine.weight)
        theirs.bias.copy_(mine.bias)  # type: ignore[union-attr]
    torch.nn.utils.parametrizations.spectral_norm(theirs)
    parametrization = theirs.parametrizations.weight[0]  # type: ignore[union-attr,index]
    parametrization._u.copy_(mine.u)
    parametrization._v.copy_(mine.v)
    x = torch.randn(2, 4, 16, 16, generator=rng())
    for module in (mine.eval(), theirs.eval()):  # both with the vectors as they stand
        module(x).square().sum().backward()
    original = theirs.parametrizations.weight.original  # type: ignore[union-attr]
    assert torch.allclose(mine.weight.grad, original.grad, rtol=1e-3, atol=1e-5)


def trained_by_batch_norm(tiny: Config) -> tuple[Discriminator, torch.Tensor]:
    images = torch.rand(8, 5, 32, 32, generator=rng())
    state = new_state(override(tiny, {"network.norm": "batch", "average_decay": 0.0, "epochs": 3}), images)
    for _ in train(state, images):
        pass
    assert isinstance(state.discriminator, Discriminator)
    return state.discriminator, images


def test_a_trained_d_with_batch_norm_judges_each_image_by_itself(tiny: Config) -> None:
    network, images = trained_by_batch_norm(tiny)
    assert network.training  # G's update leaves it as it was
    together, alone = anomaly_scores(network, images), anomaly_scores(network, images, batch_size=1)
    assert np.allclose(together, alone, atol=1e-5)


def test_folded_batch_norm_computes_the_same(tiny: Config) -> None:
    network, images = trained_by_batch_norm(tiny)
    network.eval()
    layer = network.convs[0]
    assert isinstance(layer, BatchNormConv2d)
    assert layer.norm.running_mean is not None
    assert layer.norm.running_mean.abs().max() > 1e-3  # there is something to fold
    weight, bias = layer.folded()
    folded = torch.nn.functional.conv2d(images, weight, bias, stride=2, padding=1)
    assert torch.allclose(folded, layer(images), atol=1e-5)


def test_generators_update_leaves_batch_norms_statistics_alone(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    forward = SharedBatchNorm2d.forward

    def watched(self: SharedBatchNorm2d, x: torch.Tensor) -> torch.Tensor:
        modes.append((self.training, len(x)))
        return forward(self, x)

    monkeypatch.setattr(SharedBatchNorm2d, "forward", watched)
    trained_by_batch_norm(tiny)
    batch = tiny.batch_size
    assert (False, batch) in modes  # G's fakes alone
    assert all(training == (rows > batch) for training, rows in modes)


def test_average_takes_batch_norms_statistics_along() -> None:
    network, average = (Discriminator(32, 4, 5, "batch") for _ in range(2))
    network(torch.rand(4, 5, 32, 32, generator=rng()))
    for step in range(200):
        update_average(average, network, 0.9, step)
    for mine, theirs in zip(average.buffers(), network.buffers(), strict=True):
        if mine.is_floating_point():
            assert torch.allclose(mine, theirs, atol=1e-4)


@pytest.mark.parametrize("planes", [1, 5])
def test_export_folds_batch_norm(tiny: Config, tmp_path: Path, planes: int) -> None:
    network, images = trained_by_batch_norm(tiny)
    grey = images[:, :1]
    inputs = images if planes == 5 else grey.expand(-1, 5, -1, -1).contiguous()
    write_onnx(network, (5, 32, 32), tmp_path / "d.onnx")
    graph = open_graph(tmp_path / "d.onnx", (5, 32, 32), {"logit": ()}, {"kind": "openvino", "threads": 1})
    try:
        logits = graph.infer(inputs.numpy())["logit"]
    finally:
        graph.close()
    # A single plane stands for five equal ones.
    scores = anomaly_scores(network, images if planes == 5 else grey)
    assert np.allclose(-logits, scores, atol=1e-4)
