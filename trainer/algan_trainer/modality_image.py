"""Images, as ALGAN-image takes them: `_core` makes the input, and D sees it as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from algan_stream.bundle import ModelKind
from algan_stream.images import read_image
from algan_stream.preprocess import preprocess
from algan_stream.types import FULL_RANGE, InputSpec
from algan_trainer.config import Config
from algan_trainer.data import Dataset, Sample, examine, file_hashes, load_inputs, read_dataset
from algan_trainer.modality import Floats
from algan_trainer.networks import Discriminator
from algan_trainer.onnx_graph import write_onnx


class ImageModality:
    """See `modality.Modality`."""

    model_kind: ModelKind = "algan-image"
    precisions: tuple[str, ...] = ("fp32", "bf16")
    witnesses: int | None = None

    def __init__(self, root: Path, config: Config) -> None:
        white_level = config.data.white_level or FULL_RANGE
        self.spec = msgspec.structs.replace(config.network.input_spec(), white_level=white_level)
        self.dataset = open_images(root, config)
        self._grey = config.data.grey

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every image file, by its path."""
        return file_hashes(self.dataset.root, self.dataset.samples)

    def training_inputs(self) -> Floats:
        """(n, C, height_px, width_px), one for each training image."""
        return self.network_inputs(self.dataset.of("train"))

    def network_inputs(self, samples: Sequence[Sample]) -> Floats:
        """(n, C, height_px, width_px); other than `load` where colours are not to count."""
        return self.to_network(self.load(samples))

    def load(self, samples: Sequence[Sample]) -> Floats:
        """(n, C, height_px, width_px)."""
        paths = [s.path for s in samples]
        return load_inputs(self.dataset.root, paths, self.spec, torch.get_num_threads())

    def to_network(self, inputs: Floats) -> Floats:
        """Returns them as they are, or with the mean of red, green and blue in all channels."""
        if not self._grey:
            return inputs
        return np.ascontiguousarray(np.broadcast_to(inputs[:, :3].mean(1, keepdims=True), inputs.shape))

    def golden(self, samples: Sequence[Sample]) -> tuple[npt.NDArray[np.uint8], Floats]:
        """Images at the network's size, and the inputs that `_core` makes of these."""
        images = np.stack([resized_rgb(self.dataset.root / s.path, self.spec) for s in samples])
        return images, np.concatenate([preprocess(i, self.spec, pixel_format="rgb8") for i in images])

    def write_onnx(self, network: nn.Module, path: Path) -> None:
        """Writes D with its spectral norm folded in."""
        if not isinstance(network, Discriminator):
            raise TypeError(f"expected a Discriminator, got {type(network).__name__}")
        write_onnx(network, self.spec.shape_chw, path, grey=self._grey)

    def describe(self, config: Config) -> str:
        """Size and width."""
        return f"{config.network.size_px} x {config.network.size_px} px, width {config.network.width}"

    def facts(self) -> dict[str, Any]:
        """Files that were left out, and why."""
        return {"skipped": [{"path": path, "reason": reason} for path, reason in self.dataset.skipped]}


def open_images(root: Path, config: Config) -> Dataset:
    """Lists, splits and decodes once what the configuration names; see `read_dataset` and `examine`."""
    wish = config.data
    dataset = read_dataset(
        root, config.seed, wish.calibration_fraction, wish.layout, wish.split, group_aware=wish.group_aware
    )
    threads = torch.get_num_threads()
    return examine(dataset, threads=threads, skip_bad=wish.skip_bad, white_level=wish.white_level)


def resized_rgb(path: Path, spec: InputSpec) -> npt.NDArray[np.uint8]:
    """An image file at the spec's size, (H, W, 3) uint8, by the core's own resize."""
    plain = InputSpec(
        height_px=spec.height_px,
        width_px=spec.width_px,
        pooled_channels=False,
        downscale=spec.downscale,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    image, pixel_format = read_image(path, spec.white_level)
    planes = preprocess(image, plain, pixel_format=pixel_format)[0]  # (3, H, W), 0..1
    return np.ascontiguousarray(np.rint(planes * 255.0).astype(np.uint8).transpose(1, 2, 0))
