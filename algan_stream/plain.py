"""Camera formats for those who need plain pixels: how large a frame is, and its pixels in 8 bits."""

from __future__ import annotations

from typing import Any, cast, get_args

import numpy as np
import numpy.typing as npt

from algan_stream.preprocess import empty_slots, preprocess_into
from algan_stream.types import FULL_RANGE, CameraFormat, InputSpec, PixelFormat

_PLAIN = frozenset(get_args(PixelFormat))
_PLANAR_YUV = frozenset({"nv12", "nv21", "i420"})


def size_of(image: npt.NDArray[Any], pixel_format: CameraFormat) -> tuple[int, int]:
    """Width and height of a frame in pixels; planar YUV has half as many rows again in its array."""
    rows = image.shape[0] * 2 // 3 if pixel_format in _PLANAR_YUV else image.shape[0]
    return image.shape[1], rows


def is_plain(pixel_format: CameraFormat) -> bool:
    """Whether a frame is uint8 grey, BGR or RGB."""
    return pixel_format in _PLAIN


def as_plain(
    image: npt.NDArray[Any], pixel_format: CameraFormat, white_level: int = FULL_RANGE
) -> tuple[npt.NDArray[np.uint8], PixelFormat]:
    """A frame in 8 bits, of the same size: itself, or RGB made of a camera's format.

    Args:
        image: As `preprocess` takes it.
        pixel_format: What its pixels are.
        white_level: White of 16-bit frames.

    Raises:
        InputError: The frame's pixels cannot be used.
    """
    if is_plain(pixel_format):
        return image, cast(PixelFormat, pixel_format)
    width, height = size_of(image, pixel_format)
    spec = InputSpec(height_px=height, width_px=width, pooled_channels=False, white_level=white_level)
    rgb = empty_slots(1, spec, dtype=np.uint8, layout="nhwc")
    preprocess_into(rgb, image, spec, pixel_format=pixel_format, layout="nhwc")
    return rgb[0], "rgb8"
