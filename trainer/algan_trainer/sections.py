"""The sections of the training configuration, typed and frozen; `config.Config` holds one of each."""

from __future__ import annotations

from typing import Literal

import msgspec

from algan_stream.errors import ConfigError
from algan_stream.types import FULL_RANGE, InputSpec
from algan_trainer.data.layouts import Layout, SplitBy

#: Sizes whose halvings end at 4×4.
SIZES_PX = (32, 64, 128, 256, 512)


def require(ok: bool, path: str, expected: str, got: object) -> None:
    """Refuses a value, naming its key.

    Raises:
        ConfigError: `ok` is false.
    """
    if not ok:
        raise ConfigError(f"{path}: expected {expected}, got {got}")


class NetworkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Shapes of the two networks; the paper gives only the number of layers and the latent dimension.

    Attributes:
        kind: What is trained on: `image`; `feature`: what a pretrained backbone makes of images; `vector`: a
            table of numbers. The last two are fully connected, and `hidden` is their size; the keys below
            from `size_px` on are for images only, but for `latent_dim` and `init`.
        hidden: Units in each hidden layer of the fully connected networks.
        size_px: Side of the square input, one of `SIZES_PX`. Small defects vanish at small sizes.
        width: Channels after the first convolution; they double with every halving, up to 16 × width.
        latent_dim: Length of z.
        pooled_channels: Give D the channel-wise maximum and mean besides red, green and blue.
        generator_emits: `rgb`: G paints three channels, and maximum and mean are computed from them as
            for real images; `all`: G paints all five, which then need not agree with each other; `grey`: G
            paints one, shown as three equal ones; `auto`: `grey` where all training images are grey, else
            `rgb`. On grey images D could else tell every fake by its colours and learn nothing more.
        norm: Of D's layers, all but the last: `spectral`, the paper's; `batch`: at the same cost on the
            line D learns several times as fast, best at `adam.lr_discriminator` 1e-3; for surfaces: on small
            sets of objects it did worse. Images only: fully connected networks have `spectral`.
        init: Distribution of fresh weights, see `networks.initialise`.
    """

    kind: Literal["image", "feature", "vector"] = "image"
    hidden: int = 512
    size_px: int = 128
    width: int = 32
    latent_dim: int = 100
    pooled_channels: bool = True
    generator_emits: Literal["auto", "rgb", "grey", "all"] = "auto"
    norm: Literal["spectral", "batch"] = "spectral"
    init: Literal["pytorch", "dcgan"] = "pytorch"

    def __post_init__(self) -> None:
        sizes = ", ".join(map(str, SIZES_PX))
        require(self.size_px in SIZES_PX, "network.size_px", f"one of {sizes}", self.size_px)
        require(1 <= self.width <= 1024, "network.width", "1 to 1024", self.width)
        require(1 <= self.hidden <= 65536, "network.hidden", "1 to 65536", self.hidden)
        require(1 <= self.latent_dim <= 65536, "network.latent_dim", "1 to 65536", self.latent_dim)

    def input_spec(self) -> InputSpec:
        """How images become the networks' input: −1..1, antialiased when they shrink."""
        return InputSpec(height_px=self.size_px, width_px=self.size_px, pooled_channels=self.pooled_channels)


class AlganConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Hyperparameters of Algorithm 1, by default the paper's, and our reading where it leaves room.

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
        require(0 < self.sigma < float("inf"), "algan.sigma", "above 0", self.sigma)
        require(0 <= self.alpha <= 1, "algan.alpha", "0 to 1", self.alpha)
        require(0 <= self.xi <= 1, "algan.xi", "0 to 1", self.xi)
        require(self.n_z >= 1, "algan.n_z", "1 or more", self.n_z)
        require(self.n_dis >= 1, "algan.n_dis", "1 or more", self.n_dis)


class AdamConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Adam for both networks. The paper trains D at 1e-4; at 4e-4 it learns several times as fast.

    Attributes:
        lr_generator: Learning rate of G, above 0.
        lr_discriminator: Learning rate of D, above 0.
        beta1: Decay of the gradient's mean, 0 to below 1.
        beta2: Decay of its square, 0 to below 1.
    """

    lr_generator: float = 2e-4
    lr_discriminator: float = 4e-4
    beta1: float = 0.0
    beta2: float = 0.9

    def __post_init__(self) -> None:
        for name in ("lr_generator", "lr_discriminator"):
            require(0 < getattr(self, name) < float("inf"), f"adam.{name}", "above 0", getattr(self, name))
        for name in ("beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, f"adam.{name}", "0 to below 1", getattr(self, name))


class PseudoConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Pseudo-anomalies made from the good images themselves, past the paper; see `pseudo`.

    Attributes:
        weight: Their share of the loss over all fakes, 0 (the paper) to below 1.
        kinds: Families to draw from, each equally often: `cutpaste`, `perlin`.
    """

    weight: float = 0.9
    kinds: tuple[Literal["cutpaste", "perlin"], ...] = ("cutpaste", "perlin")

    def __post_init__(self) -> None:
        require(0 <= self.weight < 1, "pseudo.weight", "0 to below 1", self.weight)
        distinct = len(set(self.kinds)) == len(self.kinds) > 0
        require(distinct, "pseudo.kinds", "one or more different kinds", list(self.kinds))


class DataConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How images are read, split and augmented.

    Attributes:
        layout: How the images are arranged; `auto`: told by what the folder holds.
        split: `given`: the data's own split where it has one; `random`: never mind it (MTD: the paper's own
            protocol).
        group_aware: Keep images of the same part on one side of the split, where the layout tells which are.
        skip_bad: Leave files that cannot be decoded out, counted and named, instead of refusing the dataset.
        white_level: Value of white in 16-bit files, 255 to 65535, e.g. 4095 for a camera of 12 bits; none:
            65535, and images that use less than a quarter of that are refused.
        calibration_fraction: Share of the good images held out for calibration where the data has no
            validation part of its own, above 0 and below 1.
        horizontal_flip: Mirror each training image left to right with probability ½.
        vertical_flip: The same, top to bottom.
        rotation: `none`; `right_angles`: by 0, 90, 180 or 270°, for square textures; `any`: by any angle, the
            border filled by reflection (paper, section 4.2: some objects).
        grey: Judge by brightness alone: colours are replaced by their mean, in training and, folded into D's
            first convolution, in the exported graph (paper, section 4.2: Toothbrush).
        shift: Largest random shift to either side, as a share of the image's; the border is reflected. Like
            `brightness` and `contrast` past the paper: D then sees more good parts than there are images.
        brightness: Largest random change of brightness, as a share of the range from black to white.
        contrast: Largest random change of contrast, as a share of it.
    """

    layout: Layout | Literal["auto"] = "auto"
    split: SplitBy = "given"
    group_aware: bool = False
    skip_bad: bool = False
    white_level: int | None = None
    calibration_fraction: float = 0.2
    horizontal_flip: bool = True
    vertical_flip: bool = False
    rotation: Literal["none", "right_angles", "any"] = "none"
    grey: bool = False
    shift: float = 0.05
    brightness: float = 0.15
    contrast: float = 0.3

    def __post_init__(self) -> None:
        for name in ("shift", "brightness", "contrast"):
            require(0 <= getattr(self, name) <= 0.5, f"data.{name}", "0 to 0.5", getattr(self, name))
        white = self.white_level is None or 255 <= self.white_level <= FULL_RANGE
        require(white, "data.white_level", f"255 to {FULL_RANGE}", self.white_level)
        inside = 0 < self.calibration_fraction < 1
        require(inside, "data.calibration_fraction", "above 0 and below 1", self.calibration_fraction)


class FeatureConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which features of a backbone are trained on, with `network.kind = "feature"`.

    Attributes:
        layers: Outputs of the backbone, each pooled to a vector, the vectors then joined. `last`, that of the
            paper, is the deepest. Defects too fine for it show in shallower ones.
        pool: How a map becomes a vector: `mean` (the paper's), `max` and `std` over its places.
        resize_px: Images are resized to this square; 0: to `crop_px`, so that nothing is cut off.
        crop_px: Side of the centre crop that the backbone sees; 0: what it was trained with.
        mean: Subtracted from red, green and blue in 0..1; by default the backbone's own.
        std: Divisor after that; by default the backbone's own.
        scaling: `each`: every feature is brought to mean 0 and standard deviation 1 over the training images;
            `all`: features stay as they are, but for one common factor. The paper names neither.
        train_rotations: Copies of each training image, turned by angles evenly spaced over 360° (paper: 24).
        test_rotations: The same when judging; the score is the mean over them (paper: 64). Time goes with it.
        rotation_fill: What shows in the corners of a turned image: `reflection` or the last pixel of its
            `border`, or `zeros`, which is the backbone's mean colour.
        backbone_sha256: Of the backbone's file; filled in by training. Given here, another file is refused.
    """

    layers: tuple[str, ...] = ("last",)
    pool: tuple[Literal["mean", "max", "std"], ...] = ("mean",)
    resize_px: int = 0
    crop_px: int = 0
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    scaling: Literal["each", "all"] = "each"
    train_rotations: int = 1
    test_rotations: int = 1
    rotation_fill: Literal["reflection", "border", "zeros"] = "reflection"
    backbone_sha256: str = ""

    def __post_init__(self) -> None:
        for name in ("layers", "pool"):
            given = getattr(self, name)
            distinct = len(set(given)) == len(given) > 0
            require(distinct, f"feature.{name}", "one or more different names", list(given))
        for name in ("resize_px", "crop_px"):
            require(0 <= getattr(self, name) <= 4096, f"feature.{name}", "0 to 4096", getattr(self, name))
        for name in ("train_rotations", "test_rotations"):
            require(1 <= getattr(self, name) <= 360, f"feature.{name}", "1 to 360", getattr(self, name))
        require(self.std is None or min(self.std) > 0, "feature.std", "three numbers above 0", self.std)
