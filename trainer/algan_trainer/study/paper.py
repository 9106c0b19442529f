"""The paper's numbers (ALGAN, arXiv 2202.10281, IEEE Access 2022): facts only, by the number of their table.

Every value is an AUROC, mean and standard deviation of 10 experiments, where nothing else is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reported:
    """A number of the paper.

    Attributes:
        mean: Mean, or the only value given.
        std: Standard deviation; None where the paper gives none.
    """

    mean: float
    std: float | None = None


#: Everything that sections 4.1 and 4.2 fix, as changes to the trainer's own defaults.
#: A test holds it equal to trainer/configs/paper.toml.
CONFIG: dict[str, Any] = {
    "epochs": 512,
    "batch_size": 16,
    "validate_every": 8,
    "selection": "labels",
    "average_decay": 0.0,
    "network.size_px": 256,
    "network.width": 32,
    "network.latent_dim": 100,
    "network.pooled_channels": True,
    "network.norm": "spectral",
    "algan.sigma": 4.0,
    "algan.alpha": 0.75,
    "algan.xi": 0.75,
    "algan.n_z": 2,
    "algan.n_dis": 2,
    "adam.lr_generator": 2e-4,
    "adam.lr_discriminator": 1e-4,
    "adam.beta1": 0.0,
    "adam.beta2": 0.9,
    "data.horizontal_flip": True,
    "data.vertical_flip": False,
    "data.rotation": "none",
    "data.grey": False,
    "data.shift": 0.0,
    "data.brightness": 0.0,
    "data.contrast": 0.0,
    "pseudo.weight": 0.0,
}

#: Section 4.2: what is done to the training images of each category of MVTec AD.
_FLIPS = {"data.horizontal_flip": True, "data.vertical_flip": True}
_MIRROR = {"data.horizontal_flip": True, "data.vertical_flip": False}
_PLAIN = {"data.horizontal_flip": False, "data.vertical_flip": False}
AUGMENTATION: dict[str, dict[str, Any]] = {
    "carpet": _FLIPS,
    "grid": _FLIPS,
    "leather": _FLIPS,
    "tile": _FLIPS,
    "wood": _MIRROR,
    "bottle": _FLIPS | {"data.rotation": "any"},
    "cable": _PLAIN,
    "capsule": _PLAIN,
    "hazelnut": _FLIPS | {"data.rotation": "any"},
    "metal_nut": _PLAIN | {"data.rotation": "any"},
    "pill": _PLAIN,
    "screw": _PLAIN | {"data.rotation": "any"},
    "toothbrush": _MIRROR | {"data.grey": True},
    "transistor": _MIRROR,
    "zipper": _MIRROR,
}

TABLE_1_METHODS = ("GANomaly", "Skip-GANomaly", "ALOCC", "ALGAN-image")


def _table_1(*pairs: tuple[float, float]) -> dict[str, Reported]:
    return {method: Reported(*pair) for method, pair in zip(TABLE_1_METHODS, pairs, strict=True)}


#: MVTec AD, methods that learn from images.
TABLE_1: dict[str, dict[str, Reported]] = {
    "carpet": _table_1((0.803, 0.070), (0.829, 0.056), (0.736, 0.054), (0.846, 0.041)),
    "grid": _table_1((0.924, 0.088), (0.816, 0.079), (0.847, 0.087), (0.938, 0.057)),
    "leather": _table_1((0.796, 0.079), (0.787, 0.095), (0.768, 0.042), (0.920, 0.041)),
    "tile": _table_1((0.852, 0.034), (0.941, 0.041), (0.648, 0.071), (0.914, 0.034)),
    "wood": _table_1((0.939, 0.029), (0.969, 0.020), (0.849, 0.062), (0.972, 0.022)),
    "bottle": _table_1((0.704, 0.063), (0.674, 0.096), (0.801, 0.075), (0.948, 0.024)),
    "cable": _table_1((0.686, 0.057), (0.636, 0.064), (0.686, 0.053), (0.877, 0.036)),
    "capsule": _table_1((0.717, 0.075), (0.691, 0.068), (0.707, 0.073), (0.805, 0.083)),
    "hazelnut": _table_1((0.765, 0.058), (0.955, 0.036), (0.697, 0.111), (0.836, 0.047)),
    "metal_nut": _table_1((0.698, 0.064), (0.553, 0.105), (0.771, 0.066), (0.811, 0.060)),
    "pill": _table_1((0.772, 0.050), (0.787, 0.083), (0.659, 0.043), (0.819, 0.053)),
    "screw": _table_1((0.567, 0.357), (1.000, 0.001), (0.938, 0.076), (0.811, 0.090)),
    "toothbrush": _table_1((0.774, 0.098), (0.808, 0.084), (0.778, 0.102), (0.933, 0.048)),
    "transistor": _table_1((0.783, 0.067), (0.769, 0.094), (0.745, 0.085), (0.865, 0.074)),
    "zipper": _table_1((0.693, 0.052), (0.675, 0.070), (0.656, 0.079), (0.879, 0.025)),
}
TABLE_1_MEAN: dict[str, Reported] = dict(
    zip(TABLE_1_METHODS, (Reported(0.765), Reported(0.793), Reported(0.752), Reported(0.878)), strict=True)
)
TEXTURES = ("carpet", "grid", "leather", "tile", "wood")

#: MVTec AD, methods that learn from features: means over textures, objects and all categories.
TABLE_2: dict[str, dict[str, Reported]] = {
    "texture": {
        "Mah.AD": Reported(0.978),
        "PaDiM": Reported(0.990),
        "CutPaste": Reported(0.962),
        "PatchCore-25": Reported(0.991),
        "GANomaly": Reported(0.775),
        "DifferNet": Reported(0.915),
        "ALGAN-feature": Reported(0.925),
    },
    "object": {
        "Mah.AD": Reported(0.950),
        "PaDiM": Reported(0.972),
        "CutPaste": Reported(0.955),
        "PatchCore-25": Reported(0.992),
        "GANomaly": Reported(0.755),
        "DifferNet": Reported(0.934),
        "ALGAN-feature": Reported(0.905),
    },
    "all": {
        "SPADE": Reported(0.855),
        "Mah.AD": Reported(0.958),
        "PaDiM": Reported(0.979),
        "CutPaste": Reported(0.961),
        "PatchCore-25": Reported(0.991),
        "GANomaly": Reported(0.761),
        "DifferNet": Reported(0.927),
        "ALGAN-feature": Reported(0.911),
    },
}

#: Magnetic Tile Defects; the paper gives no standard deviations.
TABLE_3: dict[str, Reported] = {
    "GANomaly": Reported(0.683),
    "Skip-GANomaly": Reported(0.504),
    "ALGAN-image": Reported(0.956),
    "PatchCore-10": Reported(0.979),
    "GANomaly-feat.": Reported(0.766),
    "DifferNet": Reported(0.977),
    "ALGAN-feature": Reported(0.824),
}

#: COIL-100.
TABLE_4: dict[str, Reported] = {
    "DifferNet": Reported(0.999, 0.003),
    "PatchCore-1": Reported(1.000, 0.000),
    "ALGAN-image": Reported(0.999, 0.001),
    "ALGAN-feature": Reported(1.000, 0.000),
}

#: Ablation on MVTec AD, all categories: (buffered data, anomalous latent) → AUROC. Its last standard
#: deviation is the mean of those of Table 1, which tells how the paper averages over categories.
TABLE_7: dict[tuple[bool, bool], Reported] = {
    (False, False): Reported(0.643, 0.097),
    (True, False): Reported(0.761, 0.102),
    (False, True): Reported(0.779, 0.104),
    (True, True): Reported(0.878, 0.049),
}

#: σ, on MVTec AD's Bottle, like the tables after it.
TABLE_8: dict[float, Reported] = {
    2.0: Reported(0.859, 0.058),
    3.0: Reported(0.932, 0.042),
    4.0: Reported(0.948, 0.024),
    5.0: Reported(0.947, 0.025),
    6.0: Reported(0.937, 0.033),
    8.0: Reported(0.917, 0.036),
}

#: α → ξ → AUROC.
TABLE_9: dict[float, dict[float, Reported]] = {
    0.25: {
        0.25: Reported(0.808, 0.085),
        0.5: Reported(0.720, 0.077),
        0.75: Reported(0.749, 0.155),
        0.85: Reported(0.656, 0.162),
    },
    0.5: {
        0.25: Reported(0.755, 0.148),
        0.5: Reported(0.814, 0.081),
        0.75: Reported(0.892, 0.068),
        0.85: Reported(0.794, 0.157),
    },
    0.75: {
        0.25: Reported(0.826, 0.138),
        0.5: Reported(0.860, 0.048),
        0.75: Reported(0.948, 0.024),
        0.85: Reported(0.808, 0.122),
    },
    0.85: {
        0.25: Reported(0.816, 0.094),
        0.5: Reported(0.846, 0.110),
        0.75: Reported(0.910, 0.060),
        0.85: Reported(0.765, 0.153),
    },
}

#: n_z; the values for 1, 3 and 4 are missing from the text that these numbers were taken from.
TABLE_10: dict[int, Reported | None] = {1: None, 2: Reported(0.948, 0.024), 3: None, 4: None}

#: n_dis.
TABLE_11: dict[int, Reported] = {
    1: Reported(0.887, 0.082),
    2: Reported(0.948, 0.024),
    3: Reported(0.943, 0.031),
    4: Reported(0.933, 0.049),
}

#: Section 5.7: the share of pseudo-anomalies that D calls anomalous; "all", at no stated threshold.
SECTION_5_7 = Reported(1.0)
