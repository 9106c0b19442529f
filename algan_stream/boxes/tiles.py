"""Tiles that cover the frame: for defects too small to survive shrinking the whole of it."""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from algan_stream.boxes.base import BoxFinder
from algan_stream.plain import size_of
from algan_stream.types import Frame


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `boxes` with `kind: tiles`.

    The model's images and its threshold should be those of such tiles: train and calibrate on them.

    Attributes:
        height_px: Height of a tile.
        width_px: Width of a tile; by default its height.
        overlap_px: Least overlap of neighbours, so that a defect on a seam is seen whole by one of them.
        fuse: Verdict on the frame; `max`: one tile above the threshold rejects it; `mean`: the mean of the
            scores of all tiles does.
    """

    kind: Literal["tiles"] = "tiles"
    height_px: int
    width_px: int | None = None
    overlap_px: int = 0
    fuse: Literal["max", "mean"] = "max"

    def __post_init__(self) -> None:
        smallest = min(self.height_px, self.height_px if self.width_px is None else self.width_px)
        if not 1 <= smallest <= 1 << 20:
            raise ValueError(
                f"height_px, width_px: expected 1 or more, got {self.height_px}, {self.width_px}"
            )
        if not 0 <= self.overlap_px < smallest:
            raise ValueError(f"overlap_px: expected 0 to {smallest - 1}, got {self.overlap_px}")


class Tiles(BoxFinder):
    """Cuts every frame into the same grid; boxes that came with the frame are ignored."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def find(self, frame: Frame) -> npt.NDArray[np.float32] | None:
        """Returns the grid; None, the whole frame, where there are no pixels to cut."""
        if frame.vector is not None or frame.fault:
            return frame.boxes
        frame.fuse = self._config.fuse
        width, height = size_of(frame.image, frame.pixel_format)
        tile_width = self._config.width_px or self._config.height_px
        return tile_boxes(height, width, self._config.height_px, tile_width, self._config.overlap_px)


def tile_boxes(
    height_px: int, width_px: int, tile_height_px: int, tile_width_px: int, overlap_px: int
) -> npt.NDArray[np.float32]:
    """Tiles of one size, evenly spread from edge to edge, at whole pixels, row by row.

    Returns:
        (N, 4) float32 xyxy pixels. Neighbours overlap by `overlap_px` or more; a frame smaller than a tile
        makes one tile of its own size.
    """
    rows = _starts(height_px, tile_height_px, overlap_px)
    columns = _starts(width_px, tile_width_px, overlap_px)
    top, left = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
    high, wide = min(tile_height_px, height_px), min(tile_width_px, width_px)
    return np.stack([left, top, left + wide, top + high], axis=1).astype(np.float32)


def _starts(extent_px: int, tile_px: int, overlap_px: int) -> npt.NDArray[np.int64]:
    if extent_px <= tile_px:
        return np.zeros(1, np.int64)
    count = math.ceil((extent_px - overlap_px) / (tile_px - overlap_px))
    return np.floor(np.linspace(0, extent_px - tile_px, count) + 0.5).astype(np.int64)


def create(config: Config) -> Tiles:
    """Makes the plugin."""
    return Tiles(config)
