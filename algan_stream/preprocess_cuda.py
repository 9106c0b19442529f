"""`algan_stream.preprocess` on a CUDA device: the same numbers, straight into a batch in device memory.

The results equal those of the processor's `scalar` path bit by bit. All work is enqueued on the stream that
the caller names, one launch for all boxes of a call. Needs no torch, CuPy or pycuda: any of them may own the
memory and the streams.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from algan_stream import _core
from algan_stream.errors import EngineError, InputError
from algan_stream.preprocess import Boxes, Image, Layout, Yuv, _native
from algan_stream.types import CameraFormat, InputSpec

#: Something in device memory that offers `__cuda_array_interface__`: a torch or CuPy array, a `DeviceArray`.
CudaArray: TypeAlias = Any


@dataclass(frozen=True)
class DeviceArray:
    """A C-contiguous array in device memory, by its address; does not own it.

    Attributes:
        pointer: Address, e.g. `int(allocation)` of pycuda's, or `binding.ptr`.
        shape: Length of each axis.
        dtype: Of the elements, e.g. `np.float32`.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: npt.DTypeLike

    def __post_init__(self) -> None:
        """Refuse what cannot be an array.

        Raises:
            InputError: The pointer or a side is negative, or the pointer is 0 and there are elements.
        """
        if self.pointer < 0 or any(side < 0 for side in self.shape):
            raise InputError(f"DeviceArray: expected an address and sides of 0 and more, got {self}")
        if self.pointer == 0 and math.prod(self.shape) > 0:
            raise InputError(f"DeviceArray: expected the address of its elements, got 0 in {self}")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """What torch, CuPy, Numba and this package read (version 3)."""
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": np.dtype(self.dtype).str,
            "data": (self.pointer, False),
            "strides": None,
        }


class CudaPreprocessor:
    """`preprocess_into` for a CUDA device; owns the memory through which images and boxes travel.

    Belongs to the CUDA context that is current in the thread that makes it: for a library with contexts of
    its own (pycuda), make it while that context is current. Never changes the current device or context.
    Threads may share one, but take turns; several streams then take turns, too.

    Nothing waits for the device, except where memory grows (see `reserve`), where a stream is three uploads
    behind, and when the object is deleted. Calls with an image on the device and at most 16 boxes use none of
    its memory and can be captured into a CUDA graph.

    Raises:
        EngineError: algan-stream was built without CUDA, or there is no driver or no device; says which.
    """

    def __init__(self) -> None:
        if not _core.has_cuda:
            raise EngineError(
                "CudaPreprocessor: expected a build with CUDA, got one without; put nvcc on the PATH and "
                "build again: pip install --no-build-isolation -C cmake.define.ALGAN_CUDA=ON ."
            )
        try:
            self._native = _core.CudaPreprocessor()
        except EngineError as error:
            raise EngineError(
                f"CudaPreprocessor: expected a CUDA device and its driver, got {error}; `nvidia-smi` should "
                "list the device"
            ) from error

    def reserve(self, *, image_bytes: int, boxes: int = 0) -> None:
        """Make room, so that no later call has to wait while memory grows.

        Args:
            image_bytes: Of the largest image that will be uploaded, with its mask.
            boxes: The most boxes of a call.

        Raises:
            EngineError: There is not so much memory.
            InputError: A number is negative.
        """
        if image_bytes < 0 or boxes < 0:
            raise InputError(f"reserve: expected 0 and more, got {image_bytes=}, {boxes=}")
        self._native.reserve(image_bytes=image_bytes, boxes=boxes)

    def preprocess_into(
        self,
        out: CudaArray,
        image: Image | CudaArray,
        spec: InputSpec,
        *,
        pixel_format: CameraFormat = "bgr8",
        boxes: Boxes | None = None,
        first_slot: int = 0,
        layout: Layout = "nchw",
        mask: Any | None = None,
        yuv: Yuv = "bt601",
        stream: int = 0,
    ) -> int:
        """Enqueue the work that turns an image, or boxes of it, into slots of a batch in device memory.

        Args:
            out: As for `algan_stream.preprocess.preprocess_into`, but in device memory. Must stay until the
                stream has passed.
            image: In host memory, as for `algan_stream.preprocess.preprocess`: it is read before this
                returns, and copied by way of pinned memory. Or in device memory, of the same shapes and
                strides: it must stay until the stream has passed.
            spec: As for `preprocess`.
            pixel_format: As for `preprocess`.
            boxes: As for `preprocess`; in host memory, at most 65535.
            first_slot: Slot of the first output; the others follow.
            layout: Order of an image's axes in `out`.
            mask: As for `preprocess`; in host or device memory, like the image.
            yuv: As for `preprocess`.
            stream: Handle of the CUDA stream, e.g. `torch.cuda.current_stream().cuda_stream`, `.ptr` of
                CuPy's, `.handle` of pycuda's; 0 is the legacy default stream. What wrote `image`, and what
                last read `out`, must be ordered before it: the arrays' own streams are not looked at.

        Returns:
            Number of slots that will be written.

        Raises:
            InputError: An argument cannot be used, or `out` has too few slots; nothing is enqueued.
            EngineError: A call of the CUDA runtime failed; the message begins with its name.
        """
        if stream < 0:
            raise InputError(f"stream: expected a stream's handle, 0 or more, got {stream}")
        return self._native.preprocess_into(
            out,
            image,
            _native(spec),
            pixel_format=pixel_format,
            boxes=boxes,
            first_slot=first_slot,
            layout=layout,
            mask=mask,
            yuv=yuv,
            stream=stream,
        )
