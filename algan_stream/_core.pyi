from typing import final

import numpy as np
import numpy.typing as npt

@final
class Spec:
    def __init__(
        self,
        height_px: int,
        width_px: int,
        pooled_channels: bool,
        downscale: str,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None: ...

def preprocess_into(
    out: npt.NDArray[np.float32],
    image: npt.NDArray[np.uint8],
    spec: Spec,
    pixel_format: str,
    boxes: npt.NDArray[np.float32] | npt.NDArray[np.float64] | None,
    first_slot: int,
) -> int: ...
def available_simd() -> list[str]: ...
def active_simd() -> str: ...
def _force_simd(name: str) -> None: ...
