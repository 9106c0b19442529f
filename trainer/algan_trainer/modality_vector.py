"""Any vectors (sensor spectra, embeddings), as ALGAN-feature takes them.

The exported graph takes raw vectors and standardises them itself: nothing can be forgotten at serving.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from algan_stream.bundle import ModelKind
from algan_stream.types import VectorSpec
from algan_trainer.config import Config
from algan_trainer.data import Sample
from algan_trainer.modality import Floats
from algan_trainer.networks_vector import VectorDiscriminator
from algan_trainer.onnx_graph import write_vector_onnx
from algan_trainer.vector_data import read_vectors

#: A feature that spreads less than this share of its own size is constant: float32 rounds to 6e-8.
CONSTANT_SHARE = 1e-6
#: The same for features about 0; far above where float32 loses digits.
_LEAST_SPREAD = 1e-30


@dataclass(frozen=True, eq=False)
class Standardisation:
    """(vector − mean) / scale, feature by feature, in float32.

    Attributes:
        mean: (features,) float32, of the training vectors.
        scale: (features,) float32, above 0: their standard deviation. Of a constant feature it is the size
            of its value (1 if that is 0): it then goes in as 0, and a change by its own size as 1, so that D
            sees it change.
        constant: (features,) bool: which features are.
    """

    mean: Floats
    scale: Floats
    constant: np.ndarray

    def __call__(self, vectors: Floats) -> Floats:
        """(n, features) → (n, features)."""
        standardised: Floats = (vectors - self.mean) / self.scale
        return standardised


def standardisation_of(vectors: Floats) -> Standardisation:
    """Measures training vectors, (n, features), n ≥ 2."""
    mean, std = vectors.mean(axis=0, dtype=np.float64), vectors.std(axis=0, dtype=np.float64)
    size = np.abs(mean)
    constant = std <= np.maximum(CONSTANT_SHARE * size, _LEAST_SPREAD)
    own_size = np.where(size > _LEAST_SPREAD, size, 1.0)
    scale = np.where(constant, own_size, std)
    return Standardisation(mean.astype(np.float32), scale.astype(np.float32), constant)


class VectorModality:
    """See `modality.Modality`."""

    model_kind: ModelKind = "algan-vector"
    #: Raw vectors may differ from their mean by far less than their size; bfloat16 keeps 3 digits of it.
    precisions = ("fp32",)
    witnesses: int | None = None

    def __init__(self, root: Path, config: Config) -> None:
        self.dataset, self._vectors = read_vectors(root, config.seed, config.data.calibration_fraction)
        self.spec = VectorSpec(features=self._vectors.values.shape[1], names=self._vectors.names)
        self.standardise = standardisation_of(self.load(self.dataset.of("train")))

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every vector, by its sample's path."""
        return self._vectors.hashes()

    def training_inputs(self) -> Floats:
        """(n, features), standardised, one for each training vector."""
        return self.network_inputs(self.dataset.of("train"))

    def network_inputs(self, samples: Sequence[Sample]) -> Floats:
        """(n, features), standardised."""
        return self.standardise(self.load(samples))

    def load(self, samples: Sequence[Sample]) -> Floats:
        """(n, features), raw."""
        return self._vectors.of(samples)

    def to_network(self, inputs: Floats) -> Floats:
        """Standardises raw vectors."""
        return self.standardise(inputs)

    def golden(self, samples: Sequence[Sample]) -> tuple[None, Floats]:
        """No images; the raw vectors."""
        return None, self.load(samples)

    def write_onnx(self, network: nn.Module, path: Path) -> None:
        """Writes standardisation and D as one graph."""
        if not isinstance(network, VectorDiscriminator):
            raise TypeError(f"expected a VectorDiscriminator, got {type(network).__name__}")
        write_vector_onnx(network, self.standardise.mean, self.standardise.scale, path)

    def describe(self, config: Config) -> str:
        """Features and layers."""
        constant = int(self.standardise.constant.sum())
        return (
            f"{self.spec.features} features ({constant} constant), hidden layers of {config.network.hidden}"
        )

    def facts(self) -> dict[str, Any]:
        """How many features there are, and how many never change."""
        return {"features": self.spec.features, "constant_features": int(self.standardise.constant.sum())}
