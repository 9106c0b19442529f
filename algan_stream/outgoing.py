"""What a client checks before it sends: the service would refuse it as well, but later and further away."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from algan_stream.errors import InputError
from algan_stream.types import MAX_FEATURES, Box

_SHAPES = {"bgr8": 3, "rgb8": 3, "grey8": 2}


def image_shape(height_px: int, width_px: int, pixel_format: str) -> tuple[int, ...]:
    """Shape of an image of that format: (H, W, 3), or (H, W) for grey.

    Raises:
        InputError: The format is unknown.
    """
    wanted = _SHAPES.get(pixel_format)
    if wanted is None:
        raise InputError(f"pixel_format: expected one of {', '.join(_SHAPES)}, got {pixel_format!r}")
    return (height_px, width_px, 3) if wanted == 3 else (height_px, width_px)


def check_image(image: npt.NDArray[np.uint8], pixel_format: str, max_bytes: int) -> None:
    """Checks an image against its format and the service's limit.

    Raises:
        InputError: It does not have the stated format, or is too large.
    """
    channels = image_shape(0, 0, pixel_format)[2:]
    if image.dtype != np.uint8 or image.ndim != 2 + len(channels) or image.shape[2:] != channels:
        shape = "(H, W, 3)" if channels else "(H, W)"
        raise InputError(f"image: expected uint8 {shape} for {pixel_format}, got {image.dtype} {image.shape}")
    if image.nbytes > max_bytes:
        raise InputError(f"image: expected at most {max_bytes} bytes, got {image.nbytes}")


def vector_payload(vector: npt.ArrayLike, max_bytes: int) -> npt.NDArray[np.float32]:
    """A vector as it is sent: little-endian float32.

    Raises:
        InputError: It is no vector of numbers, or is too large.
    """
    numbers = np.asarray(vector)
    if numbers.dtype.kind not in "fiu" or numbers.ndim != 1 or not 1 <= numbers.size <= MAX_FEATURES:
        raise InputError(
            f"vector: expected 1 to {MAX_FEATURES} numbers of shape (features,), "
            f"got {numbers.dtype} {numbers.shape}"
        )
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and then unknown
        payload = numbers.astype("<f4")
    if payload.nbytes > max_bytes:
        raise InputError(f"vector: expected at most {max_bytes} bytes, got {payload.nbytes}")
    return payload


def boxes_list(boxes: npt.ArrayLike | None) -> list[Box] | None:
    """Boxes as they are sent.

    Raises:
        InputError: They are not (N, 4).
    """
    if boxes is None:
        return None
    array = np.asarray(boxes, np.float64)
    if array.size and (array.ndim != 2 or array.shape[1] != 4):
        raise InputError(f"boxes: expected shape (N, 4), xyxy pixels, got {array.shape}")
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in array.reshape(-1, 4).tolist()]
