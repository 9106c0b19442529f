"""From pixels to network input: the one owner of preprocessing, for training and serving alike.

Crop, resize, bring to RGB, normalise, append channel maximum and mean, straight into a slot of the
batch buffer. The work is done in C++ (`csrc/`), by the fastest path that the processor has; the
environment variable ALGAN_SIMD forces one of `available_simd()`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from algan_stream.types import InputSpec, PixelFormat, Spec

try:
    from algan_stream import _core
except ImportError as error:
    if "_core" in str(error) and hasattr(error, "add_note"):  # Python 3.10 has no notes
        error.add_note(
            "The native core of algan-stream is missing or does not fit this Python. Build it with: "
            "pip install --no-build-isolation -e ."
        )
    raise

Boxes: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]

#: Slots that start at a multiple of this are written fastest.
SLOT_ALIGNMENT_BYTES = 64


@lru_cache(maxsize=64)
def _native(spec: InputSpec) -> _core.Spec:
    return _core.Spec(
        spec.height_px, spec.width_px, spec.pooled_channels, spec.downscale, spec.mean, spec.std
    )


def empty_slots(count: int, spec: Spec) -> npt.NDArray[np.float32]:
    """A batch buffer for `preprocess_into`, aligned so that large batches are written fastest.

    Args:
        count: Number of slots.
        spec: Decides their shape.

    Returns:
        float32 (count, *spec.shape), C order, not initialised.
    """
    floats = count * math.prod(spec.shape)
    memory = np.empty(floats * 4 + SLOT_ALIGNMENT_BYTES, np.uint8)
    skip = -memory.ctypes.data % SLOT_ALIGNMENT_BYTES
    return memory[skip : skip + floats * 4].view(np.float32).reshape(count, *spec.shape)


def preprocess(
    image: npt.NDArray[np.uint8],
    spec: InputSpec,
    *,
    pixel_format: PixelFormat = "bgr8",
    boxes: Boxes | None = None,
) -> npt.NDArray[np.float32]:
    """Turn an image, or boxes of it, into new network input.

    Args:
        image: uint8, (H, W, 3) for `bgr8` and `rgb8`, (H, W) for `grey8`. Rows may have any stride,
            also negative; the pixels of a row must be neighbours. May be read-only; is not kept.
        spec: Size, filter and normalisation of the output.
        pixel_format: Order of the image's last axis.
        boxes: (N, 4) float32 or float64, (x_min, y_min, x_max, y_max) in pixels; the maxima are
            exclusive edges; parts outside the image are cut off. None for the whole image.

    Returns:
        float32 (N, C, height_px, width_px), C order; N is 1 for the whole image, C as in
        `spec.channels`. Each output depends on its own box only.

    Raises:
        InputError: The image or a box cannot be used; nothing has been computed.

    Example:
        >>> spec = InputSpec(height_px=2, width_px=2, pooled_channels=False)
        >>> preprocess(np.full((4, 4), 255, np.uint8), spec, pixel_format="grey8")[0, 0]
        array([[1., 1.],
               [1., 1.]], dtype=float32)
    """
    count = len(boxes) if isinstance(boxes, np.ndarray) and boxes.ndim > 0 else 1
    out = empty_slots(count, spec)
    _core.preprocess_into(out, image, _native(spec), pixel_format, boxes, 0)
    return out


def preprocess_into(
    out: npt.NDArray[np.float32],
    image: npt.NDArray[np.uint8],
    spec: InputSpec,
    *,
    pixel_format: PixelFormat = "bgr8",
    boxes: Boxes | None = None,
    first_slot: int = 0,
) -> int:
    """Turn an image, or boxes of it, into slots of a buffer that exists; allocates nothing large.

    Releases the GIL while it works and starts no threads. Several threads may write to different
    slots of one buffer.

    Args:
        out: float32 (M, C, height_px, width_px), C-contiguous and writeable. Large batches are
            written about twice as fast into a buffer from `empty_slots`.
        image: As for `preprocess`; must not change meanwhile.
        spec: As for `preprocess`.
        pixel_format: As for `preprocess`.
        boxes: As for `preprocess`.
        first_slot: Index in `out` of the first output; other slots are left alone.

    Returns:
        Number of slots written, starting at `first_slot`.

    Raises:
        InputError: An argument cannot be used, or `out` has too few slots; nothing is written.
    """
    return _core.preprocess_into(out, image, _native(spec), pixel_format, boxes, first_slot)


def active_simd() -> str:
    """Name of the path in use, e.g. `avx512`.

    Raises:
        InputError: ALGAN_SIMD names a path that this machine does not have.
    """
    return _core.active_simd()


def available_simd() -> tuple[str, ...]:
    """Names of the paths that this machine can run, fastest first; always ends in `scalar`."""
    return tuple(_core.available_simd())
