"""The DCGAN-like pair of ALGAN-image (paper, section 4.1).

One transposed convolution / convolution for each halving between the image and 4×4, and one more for the
last 4×4 step: seven of each at 256×256, six at 128×128. Widths are not given in the paper; ours double with
every halving from `width` up to `16 × width`, which at 256×256 and width 32 costs 0.65 GMAC an image.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (everyone's name for it)
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from algan_trainer.batch_norm import SharedBatchNorm2d

LEAKY_SLOPE = 0.2
#: Power iterations at the start, so that the first forward already divides by a good estimate.
INITIAL_POWER_ITERATIONS = 20
#: Standard deviation of fresh weights in DCGAN (Radford et al. 2016).
DCGAN_STD = 0.02


def stage_channels(size_px: int, width: int) -> list[int]:
    """Returns the channels at size_px/2, size_px/4, …, 4: [w, 2w, 4w, …], at most 16w."""
    return [min(width * 2**i, width * 16) for i in range(int(math.log2(size_px)) - 2)]


def append_pooled(rgb: Tensor) -> Tensor:
    """(N, 3, H, W) → (N, 5, H, W): appends channel-wise maximum and mean, as `_core` does for real images."""
    return torch.cat((rgb, rgb.amax(1, keepdim=True), rgb.mean(1, keepdim=True)), dim=1)


class Generator(nn.Module):
    """Latent (N, latent_dim) → image (N, channels, size_px, size_px) in −1..1.

    Transposed convolutions with BN + ReLU; tanh and no BN on the output. It paints `painted` channels: 1, to
    be shown as three equal ones; 3; or all of `channels`. Of five channels, the maximum and mean that it does
    not paint are computed, so that these can never disagree with the colours.
    """

    def __init__(self, size_px: int, width: int, latent_dim: int, channels: int, *, painted: int) -> None:
        super().__init__()
        self.channels = channels
        inner = stage_channels(size_px, width)[::-1]
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent_dim, inner[0], 4, bias=False)]  # 1×1 → 4×4
        for before, after in pairwise(inner):
            layers += [nn.BatchNorm2d(before), nn.ReLU(inplace=True)]
            layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(inner[-1]), nn.ReLU(inplace=True)]
        layers += [nn.ConvTranspose2d(inner[-1], painted, 4, stride=2, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """z: (N, latent_dim)."""
        image: Tensor = self.layers(z[:, :, None, None])
        if image.shape[1] == 1:
            return image.expand(-1, self.channels, -1, -1)  # maximum and mean are the same again
        return append_pooled(image) if image.shape[1] < self.channels else image


class SpectralLayer(nn.Module):
    """A layer whose weight is divided by its largest singular value (Miyato et al. 2018).

    Each forward in training mode takes one power iteration; evaluation uses the vectors as they stand and
    leaves them alone. Written out because it is 20 lines, exports by `folded_weight`, and keeps its vectors
    as plain buffers that a checkpoint holds.
    """

    u: Tensor
    v: Tensor

    def __init__(self, *weight_shape: int) -> None:
        """`weight_shape`: (out, in, …); the norm is that of the matrix (out, in · …)."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(weight_shape))
        self.bias = nn.Parameter(torch.zeros(weight_shape[0]))
        self.register_buffer("u", torch.empty(weight_shape[0]))
        self.register_buffer("v", torch.empty(math.prod(weight_shape[1:])))

    @torch.no_grad()
    def power_iteration(self) -> None:
        """Moves u and v one step towards the first singular vectors of the weight as a matrix."""
        # Frozen first: autograd may still hold the previous u and v for a backward pass.
        matrix = self.weight.flatten(1)
        self.v = F.normalize(matrix.mT @ self.u, dim=0, eps=1e-12)
        self.u = F.normalize(matrix @ self.v, dim=0, eps=1e-12)

    def folded_weight(self) -> Tensor:
        """The weight divided by σ = uᵀWv, in the weight's shape; gradients flow through σ as well."""
        sigma = torch.dot(self.u, torch.mv(self.weight.flatten(1), self.v))
        return self.weight / sigma

    def normalised_weight(self) -> Tensor:
        """`folded_weight` for a forward pass: after one power iteration in training mode."""
        with torch.autocast(self.weight.device.type, enabled=False):  # σ in bf16 would wobble by 1 %
            if self.training:
                self.power_iteration()
            return self.folded_weight()


class SpectralConv2d(SpectralLayer):
    """4×4 convolution with spectral norm."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int, padding: int) -> None:
        super().__init__(channels_out, channels_in, 4, 4)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, in, H, W), or (N, 1, H, W), which stands for `in` planes that are all equal."""
        return F.conv2d(x, _for_planes(self.normalised_weight(), x), self.bias, self.stride, self.padding)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the plain convolution that does the same in evaluation mode."""
        return self.folded_weight(), self.bias


class BatchNormConv2d(nn.Module):
    """4×4 convolution with batch norm, which becomes part of the weights when deployed. Past the paper."""

    def __init__(
        self, channels_in: int, channels_out: int, *, stride: int, padding: int, normed: bool = True
    ) -> None:
        """Without `normed`, a plain convolution: the last of such a D, whose logit has its own scale."""
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 4, bias=not normed)
        self.norm = SharedBatchNorm2d(channels_out) if normed else None
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, in, H, W), or (N, 1, H, W), which stands for `in` planes that are all equal."""
        x = F.conv2d(x, _for_planes(self.conv.weight, x), self.conv.bias, self.stride, self.padding)
        return x if self.norm is None else self.norm(x)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the plain convolution that does the same in evaluation mode."""
        weight, bias, norm = self.conv.weight, self.conv.bias, self.norm
        if norm is not None and norm.running_mean is not None and norm.running_var is not None:
            return fuse_conv_bn_weights(
                weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
        if bias is None:
            raise TypeError("expected a bias, or batch norm with running statistics")
        return weight, bias


def _for_planes(weight: Tensor, x: Tensor) -> Tensor:
    """The weight for x of as many planes as it has, or of one that stands for all of them."""
    return weight.sum(1, keepdim=True) if x.shape[1] == 1 < weight.shape[1] else weight


class SpectralLinear(SpectralLayer):
    """Fully connected layer with spectral norm."""

    def __init__(self, features_in: int, features_out: int) -> None:
        super().__init__(features_out, features_in)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, in)."""
        return F.linear(x, self.normalised_weight(), self.bias)


class Discriminator(nn.Module):
    """Image (N, channels, size_px, size_px) → logit (N,): high for real normal images.

    With spectral norm, the paper's, the images of a batch do not see each other. With batch norm they do
    while it trains, real, fake, buffered and pseudo-anomalous ones alike; a trained D, in evaluation mode and
    in its exported graph, judges each image by itself.
    """

    def __init__(
        self, size_px: int, width: int, channels: int, norm: Literal["spectral", "batch"] = "spectral"
    ) -> None:
        super().__init__()
        planes = [channels, *stage_channels(size_px, width)]
        halvings: list[nn.Module]
        last: nn.Module
        if norm == "spectral":
            halvings = [SpectralConv2d(a, b, stride=2, padding=1) for a, b in pairwise(planes)]
            last = SpectralConv2d(planes[-1], 1, stride=1, padding=0)
        else:
            halvings = [BatchNormConv2d(a, b, stride=2, padding=1) for a, b in pairwise(planes)]
            last = BatchNormConv2d(planes[-1], 1, stride=1, padding=0, normed=False)
        self.convs = nn.ModuleList([*halvings, last])

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, channels, size_px, size_px), or (N, 1, size_px, size_px) of grey images: equal planes."""
        for conv in self.convs[:-1]:
            x = F.leaky_relu(conv(x), LEAKY_SLOPE, inplace=True)
        logit: Tensor = self.convs[-1](x)  # (N, 1, 1, 1)
        return logit.flatten()

    def layers(self) -> list[SpectralConv2d | BatchNormConv2d]:
        """The convolutions from image to logit."""
        return [conv for conv in self.convs if isinstance(conv, (SpectralConv2d, BatchNormConv2d))]


def initialise(
    network: nn.Module, rng: torch.Generator, how: Literal["pytorch", "dcgan"] = "pytorch"
) -> None:
    """Draws fresh weights, all from `rng`, and settles the spectral norms.

    The paper does not say how it starts. It matters more than elsewhere: spectral norm divides the weights'
    scale away but not Adam's steps, so the scale of D's fresh weights is its learning rate's inverse.

    Args:
        network: Changed in place.
        rng: Source of randomness.
        how: `pytorch`: its default, uniform in ±1/√fan-in; `dcgan`: N(0, 0.02²), with which D and G move
            faster and waver more.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, SpectralLayer)):
            if how == "dcgan":
                nn.init.normal_(module.weight, 0.0, DCGAN_STD, generator=rng)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            else:
                bound = 1.0 / math.sqrt(module.weight[0].numel())  # PyTorch takes the second axis for inputs
                nn.init.uniform_(module.weight, -bound, bound, generator=rng)
                if module.bias is not None:
                    nn.init.uniform_(module.bias, -bound, bound, generator=rng)
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and how == "dcgan":
            nn.init.normal_(module.weight, 1.0, DCGAN_STD, generator=rng)
        if isinstance(module, SpectralLayer):
            nn.init.normal_(module.u, generator=rng)
            for _ in range(INITIAL_POWER_ITERATIONS):
                module.power_iteration()


@torch.no_grad()
def anomaly_scores(network: nn.Module, images: Tensor, batch_size: int = 32) -> npt.NDArray[np.float64]:
    """Scores (N, C, H, W) float32 images: (N,) of −logit, higher is more anomalous (paper, Fig. 5).

    In float32 whatever training computes in, as the exported model will; leaves the network as it was.
    """
    was_training = network.training
    network.eval()
    device = next((parameter.device for parameter in network.parameters()), images.device)
    logits = [network(images[i : i + batch_size].to(device)) for i in range(0, len(images), batch_size)]
    network.train(was_training)
    return -torch.cat(logits).double().cpu().numpy() if logits else np.empty(0)
