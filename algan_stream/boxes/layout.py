"""A fixed layout, such as the pockets of a tray; every one is scored in every frame, under its name."""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from algan_stream.boxes.base import BoxFinder, has_pixels
from algan_stream.plain import size_of
from algan_stream.types import Box, Frame

_MAX_POCKETS = 4096


class GridConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Key `grid`: pockets in rows and columns, named A1, A2, …, B1, … from the first row on.

    Attributes:
        origin: Upper left corner (x, y) of pocket A1, in pixels.
        pitch: From one column, and one row, to the next (x, y), in pixels.
        size: Width and height of a pocket in pixels.
        rows: Number of rows.
        columns: Number of columns.
    """

    origin: tuple[float, float]
    pitch: tuple[float, float]
    size: tuple[float, float]
    rows: int
    columns: int

    def __post_init__(self) -> None:
        if not (self.rows >= 1 and self.columns >= 1 and self.rows * self.columns <= _MAX_POCKETS):
            raise ValueError(
                f"rows, columns: expected 1 to {_MAX_POCKETS} pockets, got {self.rows} × {self.columns}"
            )
        if not min(self.size) > 0:
            raise ValueError(f"size: expected above 0, got {list(self.size)}")
        if (self.columns > 1 and self.pitch[0] <= 0) or (self.rows > 1 and self.pitch[1] <= 0):
            raise ValueError(f"pitch: expected above 0, got {list(self.pitch)}")

    def pockets(self) -> dict[str, Box]:
        """The boxes by name, row by row."""
        (x, y), (dx, dy), (width, height) = self.origin, self.pitch, self.size
        return {
            f"{_letters(row)}{column + 1}": (
                x + column * dx,
                y + row * dy,
                x + column * dx + width,
                y + row * dy + height,
            )
            for row in range(self.rows)
            for column in range(self.columns)
        }


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `boxes` with `kind: layout`; one of `grid` and `pockets`.

    Attributes:
        grid: Pockets in rows and columns.
        pockets: Boxes by name: x_min, y_min, x_max, y_max in pixels.
        frame: Width and height of the camera's frames: the layout is then checked when the line starts, and a
            frame of another size is `unknown(layout_misfit)`. Without it, a frame that does not hold the
            whole layout is.
    """

    kind: Literal["layout"] = "layout"
    grid: GridConfig | None = None
    pockets: dict[str, Box] | None = None
    frame: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if (self.grid is None) == (self.pockets is None):
            raise ValueError("grid: expected either grid or pockets")
        if not 1 <= len(self.boxes()) <= _MAX_POCKETS:
            raise ValueError(f"pockets: expected 1 to {_MAX_POCKETS}, got {len(self.boxes())}")
        for name, (x0, y0, x1, y1) in self.boxes().items():
            if not (all(map(math.isfinite, (x0, y0, x1, y1))) and x1 > x0 and y1 > y0):
                raise ValueError(
                    f"pockets.{name}: expected x_min < x_max and y_min < y_max, got {[x0, y0, x1, y1]}"
                )
        if self.frame is not None and (why := misfit(self.boxes(), *self.frame)):
            raise ValueError(f"frame: {why}")

    def boxes(self) -> dict[str, Box]:
        """The boxes by name."""
        return self.grid.pockets() if self.grid is not None else self.pockets or {}


class Layout(BoxFinder):
    """The same boxes for every frame; boxes that came with it are ignored."""

    def __init__(self, config: Config) -> None:
        self._pockets, self._frame_wh = config.boxes(), config.frame
        self._names = tuple(self._pockets)
        self._boxes = np.array(list(self._pockets.values()), np.float32).reshape(-1, 4)
        self._fits: set[tuple[int, int]] = set()

    def find(self, frame: Frame) -> npt.NDArray[np.float32] | None:
        """Returns the layout; a frame that does not hold it has the fault `layout_misfit`."""
        if not has_pixels(frame):
            return None
        frame.box_names = self._names
        width, height = size_of(frame.image, frame.pixel_format)
        if (width, height) not in self._fits:
            if self._frame_wh is not None and (width, height) != self._frame_wh:
                expected = "×".join(map(str, self._frame_wh))
                frame.fault = f"layout_misfit: expected frames of {expected}, got {width}×{height}"
            elif why := misfit(self._pockets, width, height):
                frame.fault = f"layout_misfit: {why}"
            else:
                self._fits.add((width, height))
        return self._boxes


def misfit(pockets: dict[str, Box], width_px: int, height_px: int) -> str:
    """The first pocket that is not wholly in a frame of this size, in words; empty if all are."""
    for name, (x0, y0, x1, y1) in pockets.items():
        if x0 < 0 or y0 < 0 or x1 > width_px or y1 > height_px:
            return (
                f"pocket {name} from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}) is not wholly in a frame of "
                f"{width_px}×{height_px}"
            )
    return ""


def _letters(number: int) -> str:
    """A, B, …, Z, AA, AB, … for 0, 1, …, 25, 26, 27, …."""
    text = ""
    while number >= 0:
        number, last = divmod(number, 26)
        text, number = chr(ord("A") + last) + text, number - 1
    return text


def create(config: Config) -> Layout:
    """Makes the plugin."""
    return Layout(config)
