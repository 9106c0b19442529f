"""The training configuration: typed, frozen, and the same in a TOML file, a checkpoint and a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from algan_stream.errors import ConfigError
from algan_stream.plugins import convert
from algan_stream.types import InputSpec

#: Sizes whose halvings end at 4×4.
SIZES_PX = (32, 64, 128, 256, 512)

T = TypeVar("T")


def _require(ok: bool, path: str, expected: str, got: object) -> None:
    if not ok:
        raise ConfigError(f"{path}: expected {expected}, got {got}")


class NetworkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Shapes of the two networks; the paper gives only the number of layers and the latent dimension.

    Attributes:
        size_px: Side of the square input, one of `SIZES_PX`. Small defects vanish at small sizes.
        width: Channels after the first convolution; they double with every halving, up to 16 × width.
        latent_dim: Length of z.
        pooled_channels: Give D the channel-wise maximum and mean besides red, green and blue.
        generator_emits: `rgb`: G paints three channels, and maximum and mean are computed from them as
            for real images; `all`: G paints all five, which then need not agree with each other.
        init: Distribution of fresh weights, see `networks.initialise`.
    """

    size_px: int = 128
    width: int = 32
    latent_dim: int = 100
    pooled_channels: bool = True
    generator_emits: Literal["rgb", "all"] = "rgb"
    init: Literal["pytorch", "dcgan"] = "pytorch"

    def __post_init__(self) -> None:
        sizes = ", ".join(map(str, SIZES_PX))
        _require(self.size_px in SIZES_PX, "network.size_px", f"one of {sizes}", self.size_px)
        _require(1 <= self.width <= 1024, "network.width", "1 to 1024", self.width)
        _require(1 <= self.latent_dim <= 65536, "network.latent_dim", "1 to 65536", self.latent_dim)

    def input_spec(self) -> InputSpec:
        """How images become the networks' input: −1..1, antialiased when they shrink."""
        return InputSpec(height_px=self.size_px, width_px=self.size_px, pooled_channels=self.pooled_channels)


class AlganConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Hyperparameters of Algorithm 1, and our reading of it where the paper leaves room.

    Attributes:
        sigma: Standard deviation σ of anomalous latents, above 0.
        alpha: Share α of normal latents among those for D, 0 to 1.
        xi: Weight ξ of fresh fakes against 1 − ξ for buffered ones (equation 6), 0 to 1.
        n_z: Epochs for which latents are held.
        n_dis: Updates of D for each update of G.
        alpha_by: `sampling`: normal and anomalous latents are drawn α : 1 − α (Algorithm 1, line 3);
            `weight`: half and half, and the losses are weighted α and 1 − α (equation 6). The same in
            expectation, not in variance.
        latents_per: `sample`: every image of the epoch has its own z; `batch`: one batch of z serves all.
        generator_loss: `non_saturating`: G maximises log D(G(z)), as is practice; `saturating`: it
            minimises log(1 − D(G(z))), equation 5 to the letter.
        buffer: `batch`: twice the batch size, half of it replaced by every batch (section 4.1);
            `dataset`: twice the training data, half of it replaced in an epoch (section 3.1).
    """

    sigma: float = 4.0
    alpha: float = 0.75
    xi: float = 0.75
    n_z: int = 2
    n_dis: int = 2
    alpha_by: Literal["sampling", "weight"] = "sampling"
    latents_per: Literal["sample", "batch"] = "sample"
    generator_loss: Literal["non_saturating", "saturating"] = "non_saturating"
    buffer: Literal["batch", "dataset"] = "batch"

    def __post_init__(self) -> None:
        _require(0 < self.sigma < float("inf"), "algan.sigma", "above 0", self.sigma)
        _require(0 <= self.alpha <= 1, "algan.alpha", "0 to 1", self.alpha)
        _require(0 <= self.xi <= 1, "algan.xi", "0 to 1", self.xi)
        _require(self.n_z >= 1, "algan.n_z", "1 or more", self.n_z)
        _require(self.n_dis >= 1, "algan.n_dis", "1 or more", self.n_dis)


class AdamConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Adam for both networks.

    Attributes:
        lr_generator: Learning rate of G, above 0.
        lr_discriminator: Learning rate of D, above 0.
        beta1: Decay of the gradient's mean, 0 to below 1.
        beta2: Decay of its square, 0 to below 1.
    """

    lr_generator: float = 2e-4
    lr_discriminator: float = 1e-4
    beta1: float = 0.0
    beta2: float = 0.9

    def __post_init__(self) -> None:
        for name in ("lr_generator", "lr_discriminator"):
            _require(0 < getattr(self, name) < float("inf"), f"adam.{name}", "above 0", getattr(self, name))
        for name in ("beta1", "beta2"):
            _require(0 <= getattr(self, name) < 1, f"adam.{name}", "0 to below 1", getattr(self, name))


class DataConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How images are split and augmented.

    Attributes:
        calibration_fraction: Share of the good images held out for calibration where the data has no
            validation part of its own, above 0 and below 1.
        horizontal_flip: Mirror each training image left to right with probability ½.
        vertical_flip: The same, top to bottom.
    """

    calibration_fraction: float = 0.2
    horizontal_flip: bool = True
    vertical_flip: bool = False

    def __post_init__(self) -> None:
        inside = 0 < self.calibration_fraction < 1
        _require(inside, "data.calibration_fraction", "above 0 and below 1", self.calibration_fraction)


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that decides what a training run computes; everything else only decides where and how fast.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images in a batch, 2 or more.
        validate_every: Epochs between validations.
        keep_every: Keep a checkpoint of every so many epochs for good; 0 keeps only the last and the best.
        seed: Of the split, the weights and everything random.
        precision: `bf16` where the processor multiplies it in hardware, else `fp32`; `auto` finds out.
        golden_images: Most golden images in the bundle, 1 to 64; every start of an engine runs them.
    """

    epochs: int = 512
    batch_size: int = 16
    validate_every: int = 8
    keep_every: int = 0
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    golden_images: int = 8
    network: NetworkConfig = NetworkConfig()
    algan: AlganConfig = AlganConfig()
    adam: AdamConfig = AdamConfig()
    data: DataConfig = DataConfig()

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "epochs", "1 or more", self.epochs)
        _require(2 <= self.batch_size <= 65536, "batch_size", "2 to 65536", self.batch_size)
        _require(self.validate_every >= 1, "validate_every", "1 or more", self.validate_every)
        _require(self.keep_every >= 0, "keep_every", "0 or more", self.keep_every)
        _require(1 <= self.golden_images <= 64, "golden_images", "1 to 64", self.golden_images)
        _require(0 <= self.seed < 2**63, "seed", "0 to 2**63 - 1", self.seed)


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
