"""The saliency maps once more, by PyTorch and its own backward pass: what exported graphs are checked by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812  (everyone's name for it)
from torch import Tensor

from algan_trainer.saliency_graph import RELEVANCE_EPSILON, Floats, Layer

if TYPE_CHECKING:
    from algan_trainer.saliency import Normal, Recipe


def through(layer: Layer, x: Tensor) -> Tensor:
    """One convolution and its leaky ReLU."""
    y = F.conv2d(x, torch.from_numpy(layer.weight), torch.from_numpy(layer.bias), layer.stride, layer.padding)
    return y if layer.slope is None else F.leaky_relu(y, layer.slope)


def by_torch(
    layers: list[Layer], inputs: Floats, recipe: Recipe, normal: list[Normal], kernel: Tensor, weights: Tensor
) -> tuple[Floats, Floats]:
    """(N, C, H, W) inputs → (N, H, W) maps and (N,) logits.

    Args:
        layers: D.
        inputs: Images as it takes them.
        recipe: How the maps are made.
        normal: What every convolution's inputs are like in good images.
        kernel: (k,) the smoothing along one axis.
        weights: (1, 1, H, W) what the smoothed map is multiplied by.
    """
    xs, x = [], torch.from_numpy(inputs)
    for index, layer in enumerate(layers):
        if index == recipe.layer:
            x = x.detach().requires_grad_()
        xs.append(x)
        x = through(layer, x)
    coarse = _coarse(layers, xs, x, recipe, normal)
    side_px = inputs.shape[2]
    if coarse.shape[-1] != side_px:
        coarse = F.interpolate(coarse, (side_px, side_px), mode="bilinear", align_corners=False)
    half = len(kernel) // 2
    coarse = F.conv2d(coarse, kernel[None, None, :, None], padding=(half, 0))
    coarse = F.conv2d(coarse, kernel[None, None, None, :], padding=(0, half))
    return (coarse * weights)[:, 0].numpy(), x.detach().flatten().numpy()


def _coarse(
    layers: list[Layer], xs: list[Tensor], logit: Tensor, recipe: Recipe, normal: list[Normal]
) -> Tensor:
    at = recipe.layer
    if recipe.method == "relevance":
        away = [x.detach() - torch.from_numpy(n.mean) for x, n in zip(xs, normal, strict=True)]
        return _relevance(layers, away, at).sum(1, keepdim=True).clamp(min=0)
    (g,) = torch.autograd.grad(-logit.sum(), xs[at])
    x = xs[at].detach()
    d = x - torch.from_numpy(normal[at].mean)
    if recipe.method == "gradient":
        return g.abs().sum(1, keepdim=True)
    if recipe.method == "layercam":
        return (g.clamp(min=0) * x.clamp(min=0)).sum(1, keepdim=True)
    if recipe.method == "deviation":
        return (d.square() / torch.from_numpy(normal[at].variance)).sum(1, keepdim=True)
    return (g * d).sum(1, keepdim=True).clamp(min=0)


def _relevance(layers: list[Layer], away: list[Tensor], to: int) -> Tensor:
    """Layer-wise relevance as the gradient of a convolution with sizes for weights."""
    share = away[-1] * -torch.from_numpy(layers[-1].weight)
    for index in range(len(layers) - 2, to - 1, -1):
        layer = layers[index]
        size = away[index].abs().requires_grad_()
        total = F.conv2d(size, torch.from_numpy(layer.weight).abs(), None, layer.stride, layer.padding)
        ratio = share / (total.detach() + RELEVANCE_EPSILON)
        (handed,) = torch.autograd.grad((total * ratio).sum(), size)
        share = size.detach() * handed
    return share
