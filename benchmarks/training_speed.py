"""Images a second of our training step against the loop that most people would write, in one run.

    python benchmarks/training_speed.py DATA [--size 128] [--width 16] [--epochs 4] [--threads 1] [--config F]

DATA is any folder that `algan-stream train` takes. The textbook loop does the same Algorithm 1 with the same
networks and hyperparameters: a `DataLoader` that decodes, resizes and normalises each image when its turn
comes (OpenCV and NumPy), float32, one pass through D for each kind of fake, G run anew for each update of D,
`torch.nn.utils.parametrizations.spectral_norm`, plain Adam. Batches of both alternate, so that a noisy
machine disturbs both alike; the ratio is the median of the ratios of neighbouring batches. Prints one JSON
object, with the AUROC of both where the data has labels. `--batches N` stops after N of each: no AUROC then.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (everyone's name for it)
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.data import DataLoader, Dataset

from algan_trainer.algan import new_state, train
from algan_trainer.config import Config, override, read_config
from algan_trainer.evaluate import auroc_of
from algan_trainer.modality import open_modality
from algan_trainer.networks import LEAKY_SLOPE, anomaly_scores, stage_channels
from algan_trainer.precision import dtype_of, resolve


class Images(Dataset[Tensor]):
    """Decodes and prepares an image whenever it is asked for."""

    def __init__(self, paths: list[Path], size_px: int, flip: bool) -> None:
        self.paths, self.size_px, self.flip = paths, size_px, flip

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        image = cv2.imread(str(self.paths[index]))
        image = cv2.resize(image, (self.size_px, self.size_px), interpolation=cv2.INTER_AREA)
        rgb = (image[:, :, ::-1].astype(np.float32) / 255.0 - 0.5) / 0.5
        planes = np.concatenate((rgb, rgb.max(2, keepdims=True), rgb.mean(2, keepdims=True)), 2)
        if self.flip and torch.rand(()) < 0.5:
            planes = planes[:, ::-1]
        return torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1)))


def textbook_discriminator(size_px: int, width: int) -> nn.Sequential:
    """The same network from PyTorch's own parts."""
    planes = [5, *stage_channels(size_px, width)]
    layers: list[nn.Module] = []
    for before, after in pairwise(planes):
        layers += [spectral_norm(nn.Conv2d(before, after, 4, 2, 1)), nn.LeakyReLU(LEAKY_SLOPE)]
    return nn.Sequential(*layers, spectral_norm(nn.Conv2d(planes[-1], 1, 4)), nn.Flatten(0))


def textbook_generator(size_px: int, width: int, latent_dim: int) -> nn.Sequential:
    """Likewise; it paints one grey channel, as ours does for grey images."""
    inner = stage_channels(size_px, width)[::-1]
    layers: list[nn.Module] = [nn.ConvTranspose2d(latent_dim, inner[0], 4, bias=False)]
    for before, after in pairwise(inner):
        layers += [nn.BatchNorm2d(before), nn.ReLU()]
        layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False)]
    layers += [nn.BatchNorm2d(inner[-1]), nn.ReLU(), nn.ConvTranspose2d(inner[-1], 1, 4, 2, 1), nn.Tanh()]
    return nn.Sequential(*layers)


def textbook_batches(config: Config, paths: list[Path]) -> tuple[nn.Module, Iterator[None]]:
    """Returns D and an endless iterator that trains one batch each time."""
    net = config.network
    d = textbook_discriminator(net.size_px, net.width)
    g = textbook_generator(net.size_px, net.width, net.latent_dim)
    return d, _textbook(config, paths, d, g)


def _textbook(config: Config, paths: list[Path], d: nn.Module, g: nn.Module) -> Iterator[None]:
    net, algan, adam, size = config.network, config.algan, config.adam, config.batch_size
    images = Images(paths, net.size_px, config.data.horizontal_flip)
    loader = DataLoader(images, size, shuffle=True, drop_last=True)
    betas = (adam.beta1, adam.beta2)
    adam_d = torch.optim.Adam(d.parameters(), adam.lr_discriminator, betas)
    adam_g = torch.optim.Adam(g.parameters(), adam.lr_generator, betas)
    buffer = torch.empty(0)

    def painted(z: Tensor) -> Tensor:
        return g(z[:, :, None, None]).expand(-1, 5, -1, -1)

    for epoch in itertools.count():
        if epoch % algan.n_z == 0:
            z_d, z_g = torch.randn(2, len(loader), size, net.latent_dim)
            z_d[:, round(algan.alpha * size) :] *= algan.sigma
        for j, x in enumerate(loader):
            for _ in range(algan.n_dis):
                fake = painted(z_d[j]).detach()
                loss = F.softplus(-d(x)).mean()
                if epoch == 0:
                    loss = loss + F.softplus(d(fake)).mean()
                else:
                    old = buffer[torch.randperm(len(buffer))[:size]]
                    loss = loss + algan.xi * F.softplus(d(fake)).mean()
                    loss = loss + (1 - algan.xi) * F.softplus(d(old)).mean()
                adam_d.zero_grad()
                loss.backward()
                adam_d.step()
            if len(buffer) < 2 * size:
                buffer = torch.cat((buffer, fake)) if len(buffer) else fake.clone()
            else:
                buffer[torch.randperm(len(buffer))[:size]] = fake
            loss_g = F.softplus(-d(painted(z_g[j]))).mean()
            adam_g.zero_grad()
            loss_g.backward()
            adam_g.step()
            yield


def main() -> int:
    """Trains by both, batch by batch, and reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--config", type=Path, default=Path("trainer/configs/paper.toml"))
    for name, value in (("size", 128), ("width", 16), ("epochs", 4), ("threads", 1), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--batches", type=int, help="stop after so many batches of each; no AUROC")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    wanted = {
        "network.size_px": args.size,
        "network.width": args.width,
        "epochs": args.batches or args.epochs,
    }
    config = override(read_config(args.config), wanted | {"seed": args.seed})
    config = override(config, {"precision": resolve(config.precision)})
    modality = open_modality(args.data, config)
    images = torch.from_numpy(modality.training_inputs())
    images = images.to(dtype_of(config.precision), memory_format=torch.channels_last)
    state = new_state(config, images)
    ours = iter(train(state, images))
    d, textbook = textbook_batches(config, [args.data / s.path for s in modality.dataset.of("train")])
    seconds: dict[str, list[float]] = {"ours": [], "textbook": []}
    total = args.batches or args.epochs * len(state.order)
    for _ in range(total):
        for name, batches in (("ours", ours), ("textbook", textbook)):
            started = time.perf_counter()
            next(batches)
            seconds[name].append(time.perf_counter() - started)
    # The first epoch has no buffer yet, which makes it cheaper for both; the first batches warm up.
    begin = len(state.order) if total > 2 * len(state.order) else min(2, total - 1)
    pairs = list(zip(seconds["textbook"][begin:], seconds["ours"][begin:], strict=True))
    report = {
        "case": f"{args.size} px, width {args.width}, {config.precision}, {args.threads} threads",
        "batches": total,
        "images_per_second": {
            name: config.batch_size / statistics.median(values[begin:]) for name, values in seconds.items()
        },
        "ratio": statistics.median(theirs / mine for theirs, mine in pairs),
    }
    if args.batches is None:
        test = modality.dataset.of("test") or modality.dataset.validation
        inputs, labels = torch.from_numpy(modality.network_inputs(test)), [s.anomalous for s in test]
        report["test_auroc"] = {
            "ours": auroc_of(anomaly_scores(state.scorer, inputs), labels),
            "textbook": auroc_of(anomaly_scores(d, inputs), labels),
        }
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
