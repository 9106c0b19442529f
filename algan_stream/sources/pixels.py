"""Camera makers' names for pixel formats, and which of them `preprocess` reads as they are."""

from __future__ import annotations

from algan_stream.errors import ConfigError
from algan_stream.types import CameraFormat, InputSpec, Spec

#: By the name in GenICam's pixel format naming convention, and what Basler called it before.
_NAMES: dict[str, CameraFormat] = {
    "Mono8": "grey8",
    "Mono10": "grey16",
    "Mono12": "grey16",
    "Mono14": "grey16",
    "Mono16": "grey16",
    "BayerRG8": "bayer_rggb8",
    "BayerBG8": "bayer_bggr8",
    "BayerGR8": "bayer_grbg8",
    "BayerGB8": "bayer_gbrg8",
    "RGB8": "rgb8",
    "RGB8Packed": "rgb8",
    "BGR8": "bgr8",
    "BGR8Packed": "bgr8",
    "RGBa8": "rgba8",
    "BGRa8": "bgra8",
}
#: Numbers side by side in one pixel.
CHANNELS: dict[CameraFormat, int] = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4}


def camera_format(name: str) -> CameraFormat:
    """What `preprocess` calls a camera's pixel format.

    Raises:
        ConfigError: It does not read that one.
    """
    known = _NAMES.get(name)
    if known is None:
        raise ConfigError(
            f"features.PixelFormat: expected one of {', '.join(_NAMES)}, but the camera sends {name}; "
            "set PixelFormat among the features"
        )
    return known


def check_white(name: str, spec: Spec | None) -> None:
    """A camera of 12 bits is dark to a model that was trained on 16: both must have the same white.

    Raises:
        ConfigError: They have not.
    """
    if _NAMES.get(name) != "grey16" or not isinstance(spec, InputSpec):
        return
    white = (1 << int(name.removeprefix("Mono"))) - 1
    if spec.white_level != white:
        raise ConfigError(
            f"features.PixelFormat: white is {white} in {name}, but {spec.white_level} in the bundle's "
            "white_level; choose the format that it was trained with"
        )
