"""What a pretrained backbone makes of images, as ALGAN-feature takes it (paper, sections 4.1 and 4.2).

G and D see features only. The exported graph takes images like any other and holds the backbone itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from algan_stream.bundle import ModelKind
from algan_stream.types import FULL_RANGE, InputSpec
from algan_trainer.backbone.file import read_backbone
from algan_trainer.config import Config
from algan_trainer.data import Sample
from algan_trainer.feature_cache import FeatureCache
from algan_trainer.feature_extraction import Extractor
from algan_trainer.feature_graph import make_plan, write_feature_onnx
from algan_trainer.modality import Floats
from algan_trainer.modality_image import ImageModality
from algan_trainer.modality_vector import Standardisation, standardisation_of
from algan_trainer.networks_vector import VectorDiscriminator


class FeatureModality(ImageModality):
    """See `modality.Modality`. The network's inputs are features, standardised.

    Args:
        root: Folder of images.
        config: With `network.kind = "feature"`.
        backbone: The ONNX backbone.
        cache: Folder for features that were computed.
    """

    model_kind: ModelKind = "algan-feature"
    #: Samples by which engines are compared, and golden ones chosen: each costs all its rotations.
    witnesses: int | None = 16

    def __init__(self, root: Path, config: Config, backbone: Path, cache: Path) -> None:
        white_level = config.data.white_level or FULL_RANGE
        plan = make_plan(read_backbone(backbone), config.feature, white_level)
        super().__init__(root, config)
        self.spec: InputSpec = plan.spec
        # In bfloat16 OpenVINO rounds also where a turned pixel comes from, by up to a pixel.
        self.precisions = ("fp32", "bf16") if config.feature.test_rotations == 1 else ("fp32",)
        self._plan, self._config = plan, config.feature
        note = Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print
        self._extractor = Extractor(plan, FeatureCache(cache, note), torch.get_num_threads())

    @cached_property
    def _hashes(self) -> dict[str, str]:
        return super().hashes()

    @cached_property
    def _training_features(self) -> Floats:
        """(n · train_rotations, features), as they come out of the backbone."""
        features = self._features(self.dataset.of("train"), self._config.train_rotations)
        return features.reshape(-1, self._plan.features)

    @cached_property
    def standardise(self) -> Standardisation:
        """By the training images' features: each by its own mean and spread, or all by one factor."""
        each = standardisation_of(self._training_features)
        if self._config.scaling == "each":
            return each
        size = float(np.sqrt(np.square(self._training_features, dtype=np.float64).mean()))
        scale = np.full_like(each.scale, size or 1.0)  # a root mean square of 1
        return Standardisation(np.zeros_like(each.mean), scale, each.constant)

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every image file, by its path."""
        return self._hashes

    def training_inputs(self) -> Floats:
        """(n · train_rotations, features)."""
        return self.standardise(self._training_features)

    def network_inputs(self, samples: Sequence[Sample]) -> Floats:
        """(n, test_rotations, features)."""
        return self.standardise(self._features(samples, self._config.test_rotations))

    def to_network(self, inputs: Floats) -> Floats:
        """(n, 3, resize_px, resize_px) → (n, test_rotations, features)."""
        return self.standardise(self._extractor.of_inputs(inputs, self._config.test_rotations))

    def write_onnx(self, network: nn.Module, path: Path) -> None:
        """Writes crop, rotations, backbone, pooling, standardisation and D as one graph."""
        if not isinstance(network, VectorDiscriminator):
            raise TypeError(f"expected a VectorDiscriminator, got {type(network).__name__}")
        mean, scale = self.standardise.mean, self.standardise.scale
        with torch.no_grad():
            write_feature_onnx(self._plan, self._config.test_rotations, network, mean, scale, path)

    def describe(self, config: Config) -> str:
        """Backbone, features and rotations."""
        plan, feature = self._plan, config.feature
        name = plan.backbone.info.name if plan.backbone.info else plan.backbone.path.name
        return (
            f"{name}: {', '.join(plan.layers)}: {plan.features} features, "
            f"{feature.train_rotations} rotations in training and {feature.test_rotations} in judging, "
            f"hidden layers of {config.network.hidden}"
        )

    def facts(self) -> dict[str, Any]:
        """Which backbone, which features, and how many of them never change."""
        plan, info = self._plan, self._plan.backbone.info
        return {
            **super().facts(),
            "backbone": {
                "name": info.name if info else plan.backbone.path.name,
                "sha256": plan.backbone.sha256,
                "source": info.source if info else "",
            },
            "features": plan.features,
            "layers": list(plan.layers),
            "constant_features": int(self.standardise.constant.sum()),
        }

    def _features(self, samples: Sequence[Sample], rotations: int) -> Floats:
        by_path = {sample.path: sample for sample in samples}
        return self._extractor.of_files(
            [sample.path for sample in samples],
            self._hashes,
            lambda paths: self.load([by_path[path] for path in paths]),
            rotations,
        )
