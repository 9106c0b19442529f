"""What differs between kinds of data: from files to the networks' input, and back out as an ONNX graph.

One training run (`run`), one export (`export`) and one choice of golden inputs (`golden`) serve all kinds;
what they need to know of the data, they ask a `Modality`. There is one file for each: `modality_image`,
`modality_vector`, …
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import nn

from algan_stream.bundle import ModelKind
from algan_stream.errors import ConfigError
from algan_stream.types import Spec
from algan_trainer.config import Config, override
from algan_trainer.data import Dataset, Sample
from algan_trainer.vector_data import holds_vectors

Floats = npt.NDArray[np.float32]


class Modality(Protocol):
    """A dataset of one kind, opened and split.

    Two sorts of input are told apart. The *graph's* input is what the exported model takes, and what the
    runtime makes of an image or a vector. The *network's* input is what G makes and D takes: the same for
    images, standardised for vectors, the backbone's features for `algan-feature`.
    """

    @property
    def model_kind(self) -> ModelKind:
        """For the bundle's manifest."""
        ...

    @property
    def spec(self) -> Spec:
        """Likewise; decides the shape of the graph's input."""
        ...

    @property
    def dataset(self) -> Dataset:
        """The samples and their split."""
        ...

    @property
    def precisions(self) -> tuple[str, ...]:
        """In which engines may compute the exported graph."""
        ...

    @property
    def witnesses(self) -> int | None:
        """By how many held-out samples engines are compared, where all would take too long; None: by all."""
        ...

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every sample's content, in hex, by its path."""
        ...

    def training_inputs(self) -> Floats:
        """The network's inputs to train on, (n, …); n may exceed the number of training samples."""
        ...

    def network_inputs(self, samples: Sequence[Sample]) -> Floats:
        """The network's input of each sample, (n, …)."""
        ...

    def load(self, samples: Sequence[Sample]) -> Floats:
        """The graph's input of each sample, (n, *spec.shape)."""
        ...

    def to_network(self, inputs: Floats) -> Floats:
        """The graph's inputs, (n, *spec.shape), as the network's, (n, …)."""
        ...

    def golden(self, samples: Sequence[Sample]) -> tuple[npt.NDArray[np.uint8] | None, Floats]:
        """Golden images (n, H, W, 3) uint8, or None, and the graph's inputs that come of them."""
        ...

    def write_onnx(self, network: nn.Module, path: Path) -> None:
        """Writes the graph: `input` (N, *spec.shape) float32 → `logit` (N,) float32."""
        ...

    def describe(self, config: Config) -> str:
        """The model's shape in a few words, for the log."""
        ...

    def facts(self) -> dict[str, Any]:
        """What the bundle's provenance shall say about the data beside hash and counts; JSON."""
        ...


#: Keys behind options of `train` that say nothing about vectors.
_IMAGE_OPTIONS = (
    "network.size_px",
    "network.width",
    "data.layout",
    "data.split",
    "data.group_aware",
    "data.skip_bad",
)


def default_config(data: Path) -> Config:
    """The configuration where none is given: for tables of vectors another one than for images."""
    if not holds_vectors(data):
        return Config()
    # At the paper's learning rates these networks, so much smaller than those for images, take several times
    # as long to the same AUROC.
    rates = {"adam.lr_generator": 1e-3, "adam.lr_discriminator": 5e-4}
    return override(Config(), {"network.kind": "vector", "epochs": 48, "pseudo.weight": 0.5, **rates})


def refuse_image_options(kind: str, changes: Mapping[str, Any]) -> None:
    """Refuses options that would do nothing for vectors, instead of passing over them in silence.

    Args:
        kind: The configuration's `network.kind`.
        changes: Dotted keys that the command line sets; None values are not set.

    Raises:
        ConfigError: One of them is for images only.
    """
    stray = [key for key in _IMAGE_OPTIONS if changes.get(key) is not None] if kind == "vector" else []
    if stray:
        raise ConfigError(f"{', '.join(stray)}: only for images, but the data are vectors; leave it out")


def open_modality(
    root: Path, config: Config, backbone: Path | None = None, feature_cache: Path | None = None
) -> Modality:
    """Opens the data as the configuration's `network.kind` wants it.

    Args:
        root: The data.
        config: Says which kind.
        backbone: ONNX file that makes the features, with `feature` only.
        feature_cache: Folder for features that were computed; by default in the backbone's folder.

    Raises:
        AlganError: The data cannot be used; the message says what and how to mend it.
    """
    if config.network.kind == "vector":
        from algan_trainer.modality_vector import VectorModality

        return VectorModality(root, config)
    if config.network.kind == "feature":
        from algan_trainer.backbone.file import BackboneError
        from algan_trainer.modality_feature import FeatureModality

        if backbone is None:
            raise BackboneError("network.kind = 'feature' needs a backbone: name one by --backbone FILE")
        return FeatureModality(root, config, backbone, feature_cache or backbone.parent / "features")
    if holds_vectors(root):
        raise ConfigError(f'{root}: holds vectors, not images; set network.kind = "vector"')
    from algan_trainer.modality_image import ImageModality

    return ImageModality(root, config)
