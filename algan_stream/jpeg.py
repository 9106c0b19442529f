"""JPEG bytes to pixels by libjpeg-turbo, in full or no larger than the network needs.

A JPEG can be decoded at 1/8 to 7/8 of its size in less time, by leaving frequencies out. The result is a good
reduction of its own, but not the one that `preprocess` makes of all pixels: scores move, and some verdicts
with them (`benchmarks/README.md` says how far). So it is done only where it is asked for, and then for whole
frames; a model that is to be fed so should be calibrated so.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from algan_stream.errors import ImageError, InputError
from algan_stream.preprocess import Boxes, Slots, preprocess_into
from algan_stream.types import InputSpec, PixelFormat

_START_OF_IMAGE = b"\xff\xd8"
#: EXIF tag of the orientation, and the values that swap height and width.
_ORIENTATION, _SWAPPED = 0x0112, (5, 6, 7, 8)


def decode_jpeg(
    data: bytes | memoryview, covering: InputSpec | None = None
) -> tuple[npt.NDArray[np.uint8], PixelFormat]:
    """Decodes a JPEG, upright by its EXIF orientation.

    Args:
        data: The whole file.
        covering: Decode at the smallest scale where the image is still at least as high and as wide as this
            input (for `letterbox`: as its part of the input); None for full size.

    Returns:
        uint8 (H, W, 3) with `rgb8`, or (H, W) with `grey8`.

    Raises:
        ImageError: It is truncated, not a JPEG, or of a kind that is neither grey nor colour.
    """
    import simplejpeg

    if not isinstance(data, bytes | bytearray | memoryview):
        raise ImageError(
            f"JPEG: expected the bytes of a file, got {type(data).__name__}; read the file first"
        )
    if bytes(data[:2]) != _START_OF_IMAGE:
        raise ImageError(
            f"JPEG: expected bytes that begin with FF D8, got {len(data)} bytes of something else"
        )
    try:
        height, width, colourspace, _ = simplejpeg.decode_jpeg_header(data)
        orientation = _orientation(data)
        least = (0, 0) if covering is None else _least_size(covering, height, width, orientation)
        if colourspace not in ("Gray", "YCbCr", "RGB"):
            raise ImageError(f"JPEG: expected a grey or colour image, got {colourspace}; convert it to RGB")
        grey = colourspace == "Gray"
        pixels = simplejpeg.decode_jpeg(
            data, "GRAY" if grey else "RGB", min_height=least[0], min_width=least[1]
        )
    except ValueError as error:
        raise ImageError(f"JPEG of {len(data)} bytes cannot be decoded: {error}") from error
    upright = _turned(pixels[:, :, 0] if grey else pixels, orientation)
    return upright, "grey8" if grey else "rgb8"


def preprocess_jpeg_into(
    out: Slots,
    data: bytes | memoryview,
    spec: InputSpec,
    *,
    boxes: Boxes | None = None,
    first_slot: int = 0,
    scaled: bool = False,
) -> int:
    """Turns a JPEG, or boxes of it, into slots of a buffer, as `preprocess_into` does with pixels.

    Args:
        out: As for `preprocess_into`.
        data: The whole file.
        spec: As for `preprocess_into`.
        boxes: As for `preprocess_into`, in pixels of the full size.
        first_slot: Slot of the first output.
        scaled: Decode at the smallest scale that still covers the input: faster, other scores. With boxes it
            is refused.

    Returns:
        Number of slots written.

    Raises:
        ImageError: The JPEG cannot be decoded.
        InputError: An argument cannot be used; nothing is written.
    """
    if boxes is not None and scaled:
        raise InputError(
            "scaled: boxes are in pixels of the full size; leave scaled out where there are boxes"
        )
    image, pixel_format = decode_jpeg(data, spec if scaled else None)
    return preprocess_into(out, image, spec, pixel_format=pixel_format, boxes=boxes, first_slot=first_slot)


def _least_size(spec: InputSpec, height: int, width: int, orientation: int) -> tuple[int, int]:
    """Height and width, as stored, at which the upright image still covers the input."""
    swapped = orientation in _SWAPPED
    upright_height, upright_width = (width, height) if swapped else (height, width)
    rows, columns = spec.height_px, spec.width_px
    if spec.fit == "letterbox":
        scale = min(rows / upright_height, columns / upright_width)
        rows, columns = round(upright_height * scale), round(upright_width * scale)
    rows, columns = min(rows, upright_height), min(columns, upright_width)
    return (columns, rows) if swapped else (rows, columns)


def _orientation(data: bytes | memoryview) -> int:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return int(image.getexif().get(_ORIENTATION, 1))


def _turned(pixels: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    if orientation not in range(2, 9):
        return np.ascontiguousarray(pixels)
    if orientation in _SWAPPED:
        pixels = pixels.swapaxes(0, 1)
    rows: Any = slice(None, None, -1) if orientation in (3, 4, 7, 8) else slice(None)
    columns: Any = slice(None, None, -1) if orientation in (2, 3, 6, 7) else slice(None)
    return np.ascontiguousarray(pixels[rows, columns])
