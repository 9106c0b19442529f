"""The training configuration: typed, frozen, and the same in a TOML file, a checkpoint and a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from algan_stream.errors import ConfigError
from algan_stream.plugins import convert
from algan_trainer.sections import (
    AdamConfig,
    AlganConfig,
    DataConfig,
    FeatureConfig,
    NetworkConfig,
    PseudoConfig,
    require,
)

T = TypeVar("T")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that decides what a training run computes; everything else only decides where and how fast.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images in a batch, 2 or more.
        validate_every: Epochs between validations.
        keep_every: Keep a checkpoint of every so many epochs for good; 0 keeps only the last and the best.
        seed: Of the split, the weights and everything random.
        selection: Which checkpoint becomes the model: `labels`, the paper's rule, by the AUROC of validation
            images of both kinds (the last one where there are none); `label_free`, by held-out good images
            against pseudo-anomalies of them; `last`; `auto`: `labels` where there are any, else `label_free`.
        average_decay: Share that stays, batch by batch, of a moving average of D's weights, which is then
            what is validated and deployed; 0 (the paper): none.
        precision: `bf16` where the processor multiplies it in hardware, else `fp32`; `auto` finds out.
        golden_images: Most golden images in the bundle, 1 to 64; every start of an engine runs them.
    """

    epochs: int = 512
    batch_size: int = 16
    validate_every: int = 8
    keep_every: int = 0
    seed: int = 0
    selection: Literal["auto", "labels", "label_free", "last"] = "auto"
    average_decay: float = 0.999
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    golden_images: int = 8
    network: NetworkConfig = NetworkConfig()
    algan: AlganConfig = AlganConfig()
    adam: AdamConfig = AdamConfig()
    data: DataConfig = DataConfig()
    pseudo: PseudoConfig = PseudoConfig()
    feature: FeatureConfig = FeatureConfig()

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "epochs", "1 or more", self.epochs)
        require(2 <= self.batch_size <= 65536, "batch_size", "2 to 65536", self.batch_size)
        require(self.validate_every >= 1, "validate_every", "1 or more", self.validate_every)
        require(self.keep_every >= 0, "keep_every", "0 or more", self.keep_every)
        require(1 <= self.golden_images <= 64, "golden_images", "1 to 64", self.golden_images)
        require(0 <= self.average_decay < 1, "average_decay", "0 to below 1", self.average_decay)
        require(0 <= self.seed < 2**63, "seed", "0 to 2**63 - 1", self.seed)
        kind = self.network.kind
        norm, spectral = self.network.norm, "spectral for network.kind " + kind
        require(kind == "image" or norm == "spectral", "network.norm", spectral, norm)
        require(kind == "image" or not self.data.grey, "data.grey", "false for network.kind " + kind, True)


def read_config(path: Path) -> Config:
    """Reads a TOML file; keys that it leaves out keep their defaults.

    Raises:
        ConfigError: The file cannot be read, a key is unknown, or a value is of the wrong type or range.
    """
    try:
        raw = msgspec.toml.decode(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from error
    try:
        config: Config = convert(raw, Config, "")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return config


def override(config: Config, changes: dict[str, Any]) -> Config:
    """Returns the configuration with dotted keys replaced, e.g. `{"network.width": 16}`; None is skipped.

    Raises:
        ConfigError: A value is of the wrong type or out of range.
    """
    for key, value in changes.items():
        if value is not None:
            config = _replaced(config, key.split("."), value)
    typed: Config = convert(msgspec.to_builtins(config), Config, "")
    return typed


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Names every key in which two configurations (as dictionaries) differ, with both values."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key} was {before}, now {after}")
    return found


def _replaced(struct: T, keys: list[str], value: object) -> T:
    if len(keys) > 1:
        value = _replaced(getattr(struct, keys[0]), keys[1:], value)
    return msgspec.structs.replace(struct, **{keys[0]: value})  # type: ignore[type-var]
