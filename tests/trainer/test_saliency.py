"""Saliency graphs: what they compute is PyTorch's gradient, and they look where the discriminator looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from algan_trainer import saliency
from algan_trainer.networks import Discriminator, initialise
from algan_trainer.networks_vector import VectorDiscriminator
from algan_trainer.onnx_graph import write_onnx, write_vector_onnx
from algan_trainer.saliency import METHODS, Recipe, run_graph, write_explanation
from algan_trainer.saliency_graph import SaliencyError, read_layers

SIZE = 32


def discriminator(seed: int = 0) -> Discriminator:
    network = Discriminator(SIZE, 4, 5)
    initialise(network, torch.Generator().manual_seed(seed))
    return network.eval()


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(24, 5, SIZE, SIZE)).astype(np.float32)


def explained(network: Discriminator, good: np.ndarray, path: Path, **changes: Any) -> Path:
    write_onnx(network, (5, SIZE, SIZE), path / "d.onnx")
    write_explanation(path / "d.onnx", good, good, path / "e.onnx", **changes)
    return path / "e.onnx"


def gradient_at(network: Discriminator, images: np.ndarray, layer: int) -> tuple[Tensor, Tensor]:
    """Inputs of a convolution of the real network, and the score's gradient by them, by hooks."""
    seen: list[Tensor] = []

    def keep(_module: Any, arguments: tuple[Tensor, ...]) -> None:
        arguments[0].retain_grad()
        seen.append(arguments[0])

    hook = network.convs[layer].register_forward_pre_hook(keep)
    (-network(torch.from_numpy(images).requires_grad_()).sum()).backward()
    hook.remove()
    assert seen[0].grad is not None
    return seen[0].detach(), seen[0].grad


def unsmoothed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saliency, "SMOOTHING", 1e-6)
    monkeypatch.setattr(saliency, "LEVEL_QUANTILE", 1.0)


@pytest.mark.parametrize(
    ("method", "layer"),
    [("gradient", 0), ("gradient", 2), ("layercam", 1), ("contrast", 0), ("contrast", 1), ("contrast", 2)],
)
def test_the_map_is_what_autograd_gives(
    method: Any, layer: int, noise: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsmoothed(monkeypatch)
    network = discriminator()
    maps, logits = run_graph(explained(network, noise, tmp_path, recipe=Recipe(method, layer)), noise)
    x, g = gradient_at(network, noise, layer)
    coarse = {
        "gradient": g.abs().sum(1),
        "layercam": (g.clamp(min=0) * x.clamp(min=0)).sum(1),
        "contrast": (g * (x - x.mean(0))).sum(1).clamp(min=0),
    }[method]
    expected = torch.nn.functional.interpolate(coarse[:, None], (SIZE, SIZE), mode="bilinear")[:, 0]
    peaks = expected.amax((1, 2))
    assert np.abs(maps - (expected / peaks.max()).numpy()).max() < 1e-5
    with torch.no_grad():
        assert np.abs(logits - network(torch.from_numpy(noise)).numpy()).max() < 1e-5


@pytest.mark.parametrize(
    ("method", "reference"),
    [*((method, "place") for method in METHODS), ("relevance", "zero"), ("deviation", "channel")],
)
def test_every_method_gives_finite_maps_of_the_inputs_size(
    method: Any, reference: Any, noise: np.ndarray, tmp_path: Path
) -> None:
    recipe = Recipe(method, 1, reference)
    maps, _ = run_graph(explained(discriminator(), noise, tmp_path, recipe=recipe), noise)
    assert maps.shape == (24, SIZE, SIZE)
    assert np.isfinite(maps).all()
    assert maps.min() >= 0
    # The level: of 24 good images at most one in twenty goes beyond 1.
    assert (maps.max((1, 2)) > 1 + 1e-5).sum() <= 1
    assert maps.max() > 0.5


@pytest.mark.parametrize("corner", [(0, 3), (3, 0)])
@pytest.mark.parametrize("method", [m for m in METHODS if m != "deviation"])
def test_a_discriminator_that_looks_at_one_corner_points_there(
    method: Any, corner: tuple[int, int], noise: np.ndarray, tmp_path: Path
) -> None:
    network = discriminator(seed=3)
    with torch.no_grad():
        last = network.convs[-1]
        kept = last.weight[:, :, corner[0], corner[1]].clone()
        last.weight.zero_()
        last.weight[:, :, corner[0], corner[1]] = kept
        last.power_iteration()
        last.power_iteration()
    maps, _ = run_graph(explained(network, noise, tmp_path, recipe=Recipe(method, 1)), noise)
    half = SIZE // 2
    for one in maps[maps.max((1, 2)) > 0]:
        row, column = np.unravel_index(one.argmax(), one.shape)
        assert (row >= half, column >= half) == (corner[0] == 3, corner[1] == 3)


def test_what_deviates_from_good_images_is_found(noise: np.ndarray, tmp_path: Path) -> None:
    path = explained(discriminator(), 0.2 * noise, tmp_path, recipe=Recipe("deviation", 1))
    changed = 0.2 * noise[:8]
    changed[:, :, 20:26, 4:10] += 3.0
    maps, _ = run_graph(path, changed)
    peaks = np.array([np.unravel_index(one.argmax(), one.shape) for one in maps])
    near = (np.abs(peaks - np.array([22.5, 6.5])) <= 6).all(axis=1)
    assert near.mean() >= 0.75


def test_relevance_keeps_its_sum(noise: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares are divided, never made or lost: what the last layer contributed arrives at the image."""
    unsmoothed(monkeypatch)
    network = discriminator()
    with torch.no_grad():  # positive activations that all raise the score, so that nothing is cut off at 0
        *_, before, last = network.convs
        before.bias.fill_(20.0)
        last.weight.abs_().neg_()
        for _ in range(5):
            last.power_iteration()  # or its norm would still be taken along the old weights, and negative
    write_onnx(network, (5, SIZE, SIZE), tmp_path / "d.onnx")
    layers = read_layers(onnx.load(tmp_path / "d.onnx"))
    normal = saliency.describe(layers, noise, "zero")
    onnx.save(saliency.build(layers, SIZE, Recipe("relevance", 0, "zero"), normal, 1.0), tmp_path / "e.onnx")
    maps, _ = run_graph(tmp_path / "e.onnx", noise)
    x, _ = gradient_at(network, noise, len(layers) - 1)
    contributed = (x * -torch.from_numpy(layers[-1].weight)).sum((1, 2, 3)).numpy()
    assert contributed.min() > 0
    assert maps.sum((1, 2)) == pytest.approx(contributed, rel=1e-2)


def test_borders_are_not_darker(noise: np.ndarray) -> None:
    ones = torch.ones(1, 1, SIZE, SIZE)
    kernel = torch.from_numpy(saliency.gaussian(SIZE))
    half = len(kernel) // 2
    smooth = torch.nn.functional.conv2d(ones, kernel[None, None, :, None], padding=(half, 0))
    smooth = torch.nn.functional.conv2d(smooth, kernel[None, None, None, :], padding=(0, half))
    assert smooth.min() < 0.9
    assert (smooth * torch.from_numpy(saliency.inside(SIZE)) - 1).abs().max() < 1e-5


def test_the_graph_is_plain(noise: np.ndarray, tmp_path: Path) -> None:
    model = onnx.load(explained(discriminator(), noise, tmp_path))
    assert {o.name for o in model.graph.output} == {"saliency", "logit"}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert not {"Loop", "If", "Scan"} & {node.op_type for node in model.graph.node}


def test_a_graph_that_is_not_pytorchs_is_refused(
    noise: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = run_graph
    monkeypatch.setattr(
        saliency, "run_graph", lambda *arguments: tuple(part * 1.05 for part in true(*arguments))
    )
    with pytest.raises(SaliencyError, match=r"differs from PyTorch's by 0\.0"):
        explained(discriminator(), noise, tmp_path)


def test_a_graph_of_another_model_is_refused(tmp_path: Path) -> None:
    network = VectorDiscriminator(6, 4)
    initialise(network, torch.Generator().manual_seed(0))
    write_vector_onnx(network, np.zeros(6, np.float32), np.ones(6, np.float32), tmp_path / "v.onnx")
    with pytest.raises(SaliencyError, match=r"kind algan-image\); this graph has .*Gemm"):
        read_layers(onnx.load(tmp_path / "v.onnx"))


def test_a_layer_that_is_not_there_is_refused(noise: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(SaliencyError, match="layer: expected 0 to 2, got 3"):
        explained(discriminator(), noise, tmp_path, recipe=Recipe("contrast", 3))
