"""What the guard looks at: a small picture of the frame and a few patches of it at full resolution.

Both are made by `_core`, which alone reads a camera's pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from algan_stream.plain import size_of
from algan_stream.preprocess import empty_slots, preprocess_into
from algan_stream.types import FULL_RANGE, CameraFormat, InputSpec

#: Side of the small picture, in its pixels.
VIEW_PX = 64
#: Side of a patch, in the frame's pixels.
PATCH_PX = 32
#: Rows of a frame that the small picture is made of, at least; more would cost time and change nothing.
_ROWS = 128
#: Formats whose rows stand for themselves, so that some may be left out.
_PLAIN_ROWS = frozenset({"bgr8", "rgb8", "grey8", "bgra8", "rgba8", "grey16", "yuyv", "uyvy"})

Floats = npt.NDArray[np.float32]
#: Shares of a frame's sides: x and y of a patch's centre.
Places = tuple[tuple[float, float], ...]


def grid(side: int) -> Places:
    """Centres of `side` × `side` patches, evenly over the frame."""
    at = [(i + 0.5) / side for i in range(side)]
    return tuple((x, y) for y in at for x in at)


@dataclass(frozen=True)
class View:
    """A frame as the guard sees it; 0 is black, 1 is white.

    Attributes:
        size_wh: Of the frame, in pixels.
        small: (4, VIEW_PX, VIEW_PX): red, green, blue and their mean; averages over the frame's pixels.
        patches: (P, PATCH_PX, PATCH_PX): grey patches, pixel by pixel; P is 0 where the frame is too small.
    """

    size_wh: tuple[int, int]
    small: Floats
    patches: Floats


class Viewer:
    """Makes views of one camera's frames; for one thread at a time.

    Args:
        places: Where the patches lie.
        white_level: White of 16-bit frames.
    """

    def __init__(self, places: Places, white_level: int = FULL_RANGE) -> None:
        self._places = np.asarray(places, np.float32).reshape(-1, 2)
        self._small_spec, self._patch_spec = _spec(VIEW_PX, white_level), _spec(PATCH_PX, white_level)
        self._patches = empty_slots(len(self._places), self._patch_spec)
        self._boxes: dict[tuple[int, int], npt.NDArray[np.float32]] = {}

    def look(self, image: npt.NDArray[Any], pixel_format: CameraFormat) -> View:
        """Makes the view of one frame; it stays as it is while the next ones are made.

        Raises:
            InputError: The frame's pixels cannot be used.
        """
        small = empty_slots(1, self._small_spec)
        step = max(1, image.shape[0] // _ROWS) if pixel_format in _PLAIN_ROWS else 1
        preprocess_into(small, image[::step], self._small_spec, pixel_format=pixel_format)
        width, height = size_of(image, pixel_format)
        patches = np.empty((0, PATCH_PX, PATCH_PX), np.float32)
        if len(self._places) and min(width, height) >= 2 * PATCH_PX:
            boxes = self._boxes_in(width, height)
            preprocess_into(self._patches, image, self._patch_spec, pixel_format=pixel_format, boxes=boxes)
            patches = self._patches[:, 3].copy()
        return View((width, height), small[0], patches)

    def _boxes_in(self, width: int, height: int) -> npt.NDArray[np.float32]:
        boxes = self._boxes.get((width, height))
        if boxes is None:
            # On whole pixels, so that a patch is a copy; even ones, for formats whose colours are shared.
            corner = np.round(self._places * (width, height) - PATCH_PX / 2)
            corner = np.clip(corner, 0, np.array((width, height)) - PATCH_PX) // 2 * 2
            boxes = np.concatenate([corner, corner + PATCH_PX], axis=1).astype(np.float32)
            self._boxes = {(width, height): boxes}  # of one size only: a camera hardly changes it
        return boxes


@lru_cache(maxsize=16)
def _spec(side: int, white_level: int) -> InputSpec:
    return InputSpec(
        height_px=side,
        width_px=side,
        pooled_channels="mean",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        white_level=white_level,
    )
