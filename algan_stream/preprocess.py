"""From pixels to network input: the one owner of preprocessing, for training and serving alike.

Crop, resize, bring to RGB, normalise, append channel maximum and mean, straight into a slot of the
batch buffer. The work is done in C++ (`csrc/`), by the fastest path that the processor has; the
environment variable ALGAN_SIMD forces one of `available_simd()`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal, TypeAlias, TypeVar, overload

import numpy as np
import numpy.typing as npt

from algan_stream.errors import InputError
from algan_stream.types import CameraFormat, InputSpec, Spec

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
#: Pixels in host memory: NumPy arrays, or what offers `__dlpack__` or `__array_interface__` (as OpenCV,
#: torch, CuPy in pinned memory); for `nv12`, `nv21` and `i420` also a tuple of planes. Never copied.
Image: TypeAlias = Any
Mask: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.bool_]
Layout: TypeAlias = Literal["nchw", "nhwc"]
#: How YUV was made from RGB; `_full`: Y from 0 to 255, as in JPEG, instead of 16 to 235.
Yuv: TypeAlias = Literal["bt601", "bt601_full", "bt709", "bt709_full"]
Element: TypeAlias = np.float32 | np.float16 | np.uint8
Slots: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float16] | npt.NDArray[np.uint8]

_ElementT = TypeVar("_ElementT", np.float32, np.float16, np.uint8)

#: Slots that start at a multiple of this are written fastest.
SLOT_ALIGNMENT_BYTES = 64


@lru_cache(maxsize=64)
def _native(spec: InputSpec) -> _core.Spec:
    wanted = spec.pooled_channels
    pooled = wanted if isinstance(wanted, str) else "max_mean" if wanted else "none"
    return _core.Spec(
        height_px=spec.height_px,
        width_px=spec.width_px,
        pooled=pooled,
        downscale=spec.downscale,
        mean=spec.mean,
        std=spec.std,
        fit=spec.fit,
        pad_level=spec.pad_level,
        box_margin=spec.box_margin,
        white_level=spec.white_level,
    )


@overload
def empty_slots(count: int, spec: Spec) -> npt.NDArray[np.float32]: ...
@overload
def empty_slots(
    count: int, spec: Spec, *, dtype: type[_ElementT], layout: Layout = "nchw"
) -> npt.NDArray[_ElementT]: ...
def empty_slots(
    count: int, spec: Spec, *, dtype: type[Any] = np.float32, layout: Layout = "nchw"
) -> npt.NDArray[Any]:
    """A batch buffer for `preprocess_into`, aligned so that large batches are written fastest.

    Args:
        count: Number of slots.
        spec: Decides their shape.
        dtype: `np.float32`, `np.float16` or `np.uint8`.
        layout: Order of an image's axes.

    Returns:
        (count, *spec.shape) for `nchw`, (count, height_px, width_px, channels) for `nhwc`; C order, not
        initialised.

    Raises:
        InputError: There are no slots of this dtype.
    """
    if np.dtype(dtype) not in (np.float32, np.float16, np.uint8):
        raise InputError(f"dtype: expected np.float32, np.float16 or np.uint8, got {dtype}")
    shape = spec.shape if layout == "nchw" else (*spec.shape[1:], spec.shape[0])
    size = count * math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + SLOT_ALIGNMENT_BYTES, np.uint8)
    skip = -memory.ctypes.data % SLOT_ALIGNMENT_BYTES
    slots: npt.NDArray[Any] = memory[skip : skip + size].view(dtype).reshape(count, *shape)
    return slots


def preprocess(
    image: Image,
    spec: InputSpec,
    *,
    pixel_format: CameraFormat = "bgr8",
    boxes: Boxes | None = None,
    mask: Mask | None = None,
    yuv: Yuv = "bt601",
    threads: int = 1,
) -> npt.NDArray[np.float32]:
    """Turn an image, or boxes of it, into new network input.

    Args:
        image: Pixels, of any row stride, also negative, but with the pixels of a row side by side. May be
            read-only; is not kept. uint8 (H, W, 3) for `bgr8` and `rgb8`; (H, W, 4) for `bgra8` and `rgba8`,
            whose fourth is ignored; (H, W) for `grey8` and the Bayer patterns; (H, W, 2) for `yuyv` and
            `uyvy`; (H * 3 / 2, W), or a tuple of planes, for `nv12`, `nv21` and `i420`; uint16 (H, W) for
            `grey16`.
        spec: Size, filter and normalisation of the output.
        pixel_format: What the pixels are.
        boxes: float32 or float64. (N, 4): (x_min, y_min, x_max, y_max) in pixels; the maxima are exclusive
            edges; parts outside the image are cut off. (N, 5): turned boxes, (x_centre, y_centre, width,
            height, angle in degrees, clockwise on the image, as in OpenCV's RotatedRect); beyond the image
            its last pixels repeat. None for the whole image.
        mask: uint8 or bool (H, W): pixels where it is 0 are read as `spec.pad_level`.
        yuv: Matrix and range of YUV formats.
        threads: Share the boxes out among at most so many threads, the calling one among them.

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
    preprocess_into(
        out, image, spec, pixel_format=pixel_format, boxes=boxes, mask=mask, yuv=yuv, threads=threads
    )
    return out


def preprocess_into(
    out: Slots,
    image: Image,
    spec: InputSpec,
    *,
    pixel_format: CameraFormat = "bgr8",
    boxes: Boxes | None = None,
    first_slot: int = 0,
    layout: Layout = "nchw",
    mask: Mask | None = None,
    yuv: Yuv = "bt601",
    threads: int = 1,
) -> int:
    """Turn an image, or boxes of it, into slots of a buffer that exists; allocates nothing large.

    Releases the GIL while it works and starts no threads unless asked to. Several threads may write to
    different slots of one buffer at once.

    Args:
        out: (M, C, height_px, width_px), or (M, height_px, width_px, C) for `nhwc`; C-contiguous and
            writeable; float32, float16, or uint8, which holds the values from 0 to 255, rounded, for networks
            that normalise themselves.
        image: As for `preprocess`.
        spec: As for `preprocess`.
        pixel_format: As for `preprocess`.
        boxes: As for `preprocess`.
        first_slot: Slot of the first output; the others follow.
        layout: Order of an image's axes in `out`.
        mask: As for `preprocess`.
        yuv: As for `preprocess`.
        threads: As for `preprocess`.

    Returns:
        Number of slots written.

    Raises:
        InputError: An argument cannot be used, or `out` has too few slots; nothing is written.
    """
    return _core.preprocess_into(
        out,
        image,
        _native(spec),
        pixel_format=pixel_format,
        boxes=boxes,
        first_slot=first_slot,
        layout=layout,
        mask=mask,
        yuv=yuv,
        threads=threads,
    )


def active_simd() -> str:
    """Name of the path in use, e.g. `avx512`.

    Raises:
        InputError: ALGAN_SIMD names a path that this machine does not have.
    """
    return _core.active_simd()


def available_simd() -> tuple[str, ...]:
    """Names of the paths that this machine can run, fastest first; always ends in `scalar`."""
    return tuple(_core.available_simd())
