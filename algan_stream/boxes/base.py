"""What every box plugin is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from algan_stream.types import Frame


def usable_boxes(boxes: npt.NDArray[np.float32], image: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which of (N, 4) xyxy boxes are finite and lie, at least in part, on the image."""
    height, width = image.shape[:2]
    with np.errstate(invalid="ignore"):
        low = np.maximum(boxes[:, :2], 0)
        high = np.minimum(boxes[:, 2:], np.array((width, height), np.float32))
        return np.asarray(np.isfinite(boxes).all(axis=1) & (high > low).all(axis=1), np.bool_)


class BoxFinder(ABC):
    """Says which parts of a frame are scored; called before the frame is entered in the accounts."""

    @abstractmethod
    def find(self, frame: Frame) -> npt.NDArray[np.float32] | None:
        """Returns (N, 4) float32 xyxy pixels, or None for the whole frame."""
