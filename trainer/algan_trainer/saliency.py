"""Where in an image its score comes from, told by the discriminator itself.

A map is made from the inputs x of one of D's convolutions and the gradient g of the score (−logit) by them,
both from the same weights that score the image; `Recipe` says how. It is brought to the image's size,
smoothed, and divided by a level that good images seldom reach, so that 1 means the same in every bundle. All
of it is one ONNX graph of plain forward operators (`saliency_graph`), built from the exported discriminator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import onnx
import torch

from algan_stream.engines.graph import open_graph
from algan_trainer.saliency_check import by_torch, through
from algan_trainer.saliency_graph import (
    Chain,
    Floats,
    Graph,
    Layer,
    SaliencyError,
    backward,
    forward,
    read_layers,
    relevance,
)

#: How a map is made of x, g, and the deviation d = x − r from a reference r, summed over channels Σ:
#: `gradient` Σ|g|; `layercam` Σ max(g, 0) · max(x, 0) (Jiang et al. 2021); `contrast` max(Σ g·d, 0), the
#: score's first-order rise over the reference; `deviation` Σ d² / v, v the variance, which leaves the score
#: out; `relevance` max(Σ R, 0), the score handed back layer by layer, see `saliency_graph.relevance`.
Method = Literal["gradient", "layercam", "contrast", "deviation", "relevance"]
METHODS: tuple[Method, ...] = get_args(Method)
#: What r is: 0, or the mean over good images, at each place or one for all places of a channel.
Reference = Literal["zero", "channel", "place"]
#: Standard deviation of the smoothing, as a share of the side.
SMOOTHING = 3.0 / 128.0
#: Share of held-out good images whose highest saliency stays below 1.
LEVEL_QUANTILE = 0.95
#: Largest |difference| between the exported map and PyTorch's, as a share of the highest value.
PARITY_SHARE = 1e-2
#: Held-out images on which they are compared; images that run at once; most good images looked at.
_COMPARED, _AT_ONCE, _MOST = 16, 16, 1024
#: Added to a variance, as a share of its mean: what never changes in good images must not rule the map.
_VARIANCE_SHARE = 1e-3


@dataclass(frozen=True)
class Recipe:
    """How a map is made.

    Attributes:
        method: See `Method`.
        layer: Which convolution's inputs are looked at: 0 is the image itself.
        reference: See `Reference`.
    """

    method: Method
    layer: int
    reference: Reference = "place"

    def __str__(self) -> str:
        return f"{self.method} at convolution {self.layer}, reference {self.reference}"


#: Chosen by `benchmarks/saliency.py` on validation images: of the best on MTD, and not the worst on cookies.
DEFAULT = Recipe("deviation", 2, "place")


@dataclass(frozen=True)
class Normal:
    """Reference and variance of one convolution's inputs, each (C, h, w) or (C, 1, 1) float32."""

    mean: Floats
    variance: Floats


def write_explanation(
    discriminator: Path, good: Floats, heldout_good: Floats, path: Path, recipe: Recipe = DEFAULT
) -> float:
    """Writes `input` (N, C, H, W) → `saliency` (N, H, W) ≥ 0 and `logit` (N,), and checks it.

    Args:
        discriminator: The exported graph of D.
        good: (n, C, H, W) good images as it takes them, to say what is normal.
        heldout_good: Further ones, which set the level that counts as 1.
        path: Where it shall stand.
        recipe: How the maps are made.

    Returns:
        The largest difference from PyTorch's own backward pass, as a share of the highest value.

    Raises:
        SaliencyError: D is no chain of convolutions, or the graph does not compute what PyTorch does.
    """
    layers = read_layers(onnx.load(discriminator))
    if not (len(good) and len(heldout_good)):
        raise SaliencyError(f"expected good images of both sorts, got {len(good)} and {len(heldout_good)}")
    good, heldout_good = (images[:: math.ceil(len(images) / _MOST)] for images in (good, heldout_good))
    normal = describe(layers, good, recipe.reference)
    side_px = good.shape[2]
    onnx.save(build(layers, side_px, recipe, normal, level=1.0), path)
    peaks = run_graph(path, heldout_good)[0].max(axis=(1, 2))
    level = float(np.quantile(peaks, LEVEL_QUANTILE, method="higher"))
    if not math.isfinite(level):
        raise SaliencyError(f"{recipe}: the maps of good images are not finite")
    level = level or 1.0  # maps of nothing but zeros stay so
    onnx.save(build(layers, side_px, recipe, normal, level), path)
    few = heldout_good[:_COMPARED]
    found, logits = run_graph(path, few)
    expected, expected_logits = by_torch(
        layers,
        few,
        recipe,
        normal,
        torch.from_numpy(gaussian(side_px)),
        torch.from_numpy(inside(side_px) / level),
    )
    difference = float(np.abs(found - expected).max() / max(float(expected.max()), 1e-6))
    of_logits = float(np.abs(logits - expected_logits).max() / max(1.0, float(np.abs(expected_logits).max())))
    if not max(difference, of_logits) <= PARITY_SHARE:
        raise SaliencyError(
            f"{recipe}: the exported map differs from PyTorch's by {difference:.3g} of its highest value, "
            f"the logits by {of_logits:.3g} (allowed {PARITY_SHARE:g}); the bundle was not written; please "
            "report this with the versions of both libraries"
        )
    return difference


def build(
    layers: list[Layer], side_px: int, recipe: Recipe, normal: list[Normal], level: float
) -> onnx.ModelProto:
    """Builds the graph; `level` becomes 1 in its maps."""
    if not 0 <= recipe.layer < len(layers) - 1:
        raise SaliencyError(f"layer: expected 0 to {len(layers) - 2}, got {recipe.layer}")
    graph = Graph()
    chain = forward(graph, layers, side_px)
    coarse = _combined(graph, chain, recipe, normal)
    factor = side_px / chain.sides_px[recipe.layer]
    if factor != 1.0:
        scales = graph.constant([1.0, 1.0, factor, factor])
        coarse = graph.add(
            "Resize", coarse, "", scales, mode="linear", coordinate_transformation_mode="half_pixel"
        )
    kernel, weights = gaussian(side_px), inside(side_px)
    half = len(kernel) // 2
    for shape, pads in (((1, 1, -1, 1), [half, 0, half, 0]), ((1, 1, 1, -1), [0, half, 0, half])):
        coarse = graph.add("Conv", coarse, graph.constant(kernel.reshape(shape)), pads=pads)
    smooth = graph.add("Mul", coarse, graph.constant(weights / level))
    graph.add("Squeeze", smooth, graph.constant([1], np.int64), output="saliency")
    channels = layers[0].weight.shape[1]
    return graph.model(
        "algan-saliency", (channels, side_px, side_px), {"saliency": (side_px, side_px), "logit": ()}
    )


def run_graph(path: Path, inputs: Floats) -> tuple[Floats, Floats]:
    """Runs an explanation graph by the runtime's own engine: (N, H, W) saliency and (N,) logits."""
    side_px = inputs.shape[2]
    section = {"kind": "openvino", "threads": torch.get_num_threads()}
    graph = open_graph(path, inputs.shape[1:], {"saliency": (side_px, side_px), "logit": ()}, section)
    try:
        found = graph.infer(inputs)
    finally:
        graph.close()
    return found["saliency"], found["logit"]


@torch.no_grad()
def describe(layers: list[Layer], good: Floats, reference: Reference) -> list[Normal]:
    """What every convolution's inputs are like over (n, C, H, W) good images, in double precision."""
    totals = [torch.zeros(()).double()] * len(layers)
    squares = list(totals)
    for start in range(0, len(good), _AT_ONCE):
        x = torch.from_numpy(good[start : start + _AT_ONCE])
        for index, layer in enumerate(layers):
            totals[index] = totals[index] + x.double().sum(0)
            squares[index] = squares[index] + x.double().square().sum(0)
            x = through(layer, x)
    found = []
    for total, square in zip(totals, squares, strict=True):
        mean, power = total / len(good), square / len(good)
        if reference != "place":
            mean, power = mean.mean((1, 2), keepdim=True), power.mean((1, 2), keepdim=True)
        if reference == "zero":
            mean = torch.zeros_like(mean)
        variance = (power - mean.square()).clamp(min=0.0)
        variance = variance + _VARIANCE_SHARE * variance.mean() + 1e-12
        found.append(Normal(mean.float().numpy(), variance.float().numpy()))
    return found


def _combined(graph: Graph, chain: Chain, recipe: Recipe, normal: list[Normal]) -> str:
    """The method as ONNX nodes: (N, 1, h, w) ≥ 0 at the layer's own resolution."""
    x, add, method, at = chain.inputs[recipe.layer], graph.add, recipe.method, recipe.layer
    if method == "relevance":
        deviations = [_away(graph, *pair) for pair in zip(chain.inputs[at:], normal[at:], strict=True)]
        return add("Relu", _sum(graph, relevance(graph, chain, at, deviations)))
    if method == "deviation":
        away = _away(graph, x, normal[at])
        return _sum(graph, add("Mul", add("Mul", away, away), graph.constant(1.0 / normal[at].variance)))
    gradient = backward(graph, chain, at)
    if method == "gradient":
        return _sum(graph, add("Abs", gradient))
    if method == "layercam":
        return _sum(graph, add("Mul", add("Relu", gradient), add("Relu", x)))
    return add("Relu", _sum(graph, add("Mul", gradient, _away(graph, x, normal[at]))))


def _away(graph: Graph, tensor: str, normal: Normal) -> str:
    """How far a tensor is from its reference."""
    return graph.add("Sub", tensor, graph.constant(normal.mean)) if normal.mean.any() else tensor


def _sum(graph: Graph, tensor: str) -> str:
    return graph.add("ReduceSum", tensor, graph.constant([1], np.int64), keepdims=1)


def gaussian(side_px: int) -> Floats:
    """A normalised Gaussian of odd length, cut at three standard deviations."""
    deviation = SMOOTHING * side_px
    half = max(1, math.ceil(3.0 * deviation))
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / deviation) ** 2)
    return np.asarray(kernel / kernel.sum(), np.float32)


def inside(side_px: int) -> Floats:
    """(1, 1, H, W): makes up for the part of the kernel that lies outside, so that borders are not darker."""
    part = np.convolve(np.ones(side_px), gaussian(side_px).astype(np.float64), mode="same")
    return np.asarray(1.0 / np.outer(part, part), np.float32)[None, None]
