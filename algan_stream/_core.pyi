from typing import Any, final

import numpy as np
import numpy.typing as npt

@final
class Spec:
    def __init__(
        self,
        *,
        height_px: int,
        width_px: int,
        pooled: str,
        downscale: str,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        fit: str,
        pad_level: float,
        box_margin: float,
        white_level: int,
    ) -> None: ...

def preprocess_into(
    out: Any,
    image: Any,
    spec: Spec,
    *,
    pixel_format: str,
    boxes: npt.NDArray[np.float32] | npt.NDArray[np.float64] | None,
    first_slot: int,
    layout: str,
    mask: npt.NDArray[np.uint8] | npt.NDArray[np.bool_] | None,
    yuv: str,
    threads: int,
) -> int: ...
def available_simd() -> list[str]: ...
def active_simd() -> str: ...
def _force_simd(name: str) -> None: ...
def _force_streaming(always: bool | None) -> None: ...
def _stream(
    image: npt.NDArray[np.uint8], runs: npt.NDArray[np.int64], out: npt.NDArray[np.uint8]
) -> None: ...

has_cuda: bool

# Only where has_cuda.
@final
class CudaPreprocessor:
    def __init__(self) -> None: ...
    def reserve(self, *, image_bytes: int, boxes: int) -> None: ...
    def preprocess_into(
        self,
        out: Any,
        image: Any,
        spec: Spec,
        *,
        pixel_format: str,
        boxes: npt.NDArray[np.float32] | npt.NDArray[np.float64] | None,
        first_slot: int,
        layout: str,
        mask: Any | None,
        yuv: str,
        stream: int,
    ) -> int: ...

def _check_cuda_request(
    out: Any,
    image: Any,
    spec: Spec,
    *,
    pixel_format: str,
    boxes: npt.NDArray[np.float32] | npt.NDArray[np.float64] | None,
    first_slot: int,
    layout: str,
    mask: Any | None,
    yuv: str,
) -> int: ...
