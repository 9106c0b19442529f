"""What `algan-stream bench preprocess` measures: formats, frame sizes, boxes and output sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from algan_stream.types import CameraFormat, InputSpec

#: (height, width) in pixels.
FRAMES = {"VGA": (480, 640), "1080p": (1080, 1920), "4K": (2160, 3840), "20 MP": (3648, 5472)}
FORMATS: tuple[CameraFormat, ...] = ("bgr8", "bgra8", "grey8", "grey16", "bayer_rggb8", "nv12", "yuyv")
FILTERS: tuple[Literal["bilinear", "area"], ...] = ("bilinear", "area")
SIDES_PX = (64, 128, 256, 512)
BOX_COUNTS = (1, 16, 64, 256)

_LAST_AXIS: dict[str, tuple[int, ...]] = {"bgr8": (3,), "bgra8": (4,), "yuyv": (2,)}
_PIXEL_BYTES = {"bgr8": 3, "bgra8": 4, "grey16": 2, "yuyv": 2}


@dataclass(frozen=True)
class Case:
    """A row of the table: what is turned into inputs, how large, and with which filter.

    Attributes:
        frame: Name in `FRAMES`.
        pixel_format: As a camera delivers the frame.
        count: Number of boxes, or 0 for the whole frame.
        box_px: Side of the boxes.
        side_px: Side of the outputs.
        downscale: Filter.
    """

    frame: str
    pixel_format: CameraFormat
    count: int
    box_px: int
    side_px: int
    downscale: Literal["bilinear", "area"]

    @property
    def name(self) -> str:
        """As in the table."""
        what = f"{self.count} of {self.box_px} px in {self.frame}" if self.count else self.frame
        return f"{self.pixel_format} {what} to {self.side_px} px, {self.downscale}"

    @property
    def spec(self) -> InputSpec:
        """Of the outputs."""
        return InputSpec(height_px=self.side_px, width_px=self.side_px, downscale=self.downscale)

    # Drawn once: `crops` is called while peers are being timed.
    @cached_property
    def boxes(self) -> npt.NDArray[np.float32] | None:
        """(count, 4) xyxy at whole pixels, the same in every run; None for the whole frame."""
        if not self.count:
            return None
        height, width = FRAMES[self.frame]
        rng = np.random.default_rng(1)
        left = rng.integers(0, width - self.box_px, self.count)
        top = rng.integers(0, height - self.box_px, self.count)
        return np.stack([left, top, left + self.box_px, top + self.box_px], axis=1).astype(np.float32)

    @cached_property
    def _windows(self) -> list[tuple[slice, slice]]:
        if self.boxes is None:
            return [(slice(None), slice(None))]
        return [(slice(y0, y1), slice(x0, x1)) for x0, y0, x1, y1 in self.boxes.astype(int).tolist()]

    def crops(self, frame: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
        """The frame, or its boxes, as views."""
        return [frame[window] for window in self._windows]

    def make_frame(self, seed: int) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """Noise in the camera's format."""
        height, width = FRAMES[self.frame]
        rng = np.random.default_rng(seed)
        if self.pixel_format == "grey16":
            return rng.integers(0, 65536, (height, width), np.uint16)
        rows = height * 3 // 2 if self.pixel_format == "nv12" else height
        return rng.integers(0, 256, (rows, width, *_LAST_AXIS.get(self.pixel_format, ())), np.uint8)

    def needed_bytes(self) -> npt.NDArray[np.int64]:
        """(N, 3) runs (row, begin, end) of the bytes that the outputs depend on, in rows of the frame.

        With the bilinear filter those of the two rows around each output row, whole: its columns lie less
        than a cache line apart unless the frame is more than about 20 times as wide as the output. Of a Bayer
        image also the rows above and below these.
        """
        height, width = FRAMES[self.frame]
        boxes = np.array([[0, 0, width, height]]) if self.boxes is None else self.boxes.astype(np.int64)
        pixel = _PIXEL_BYTES.get(self.pixel_format, 1)
        runs = []
        for x0, y0, x1, y1 in boxes.tolist():
            rows = self._needed_rows(y0, y1)
            if self.pixel_format.startswith("bayer"):
                rows = sorted({r + k for r in rows for k in (-1, 0, 1) if 0 <= r + k < height})
            runs += [(row, x0 * pixel, x1 * pixel) for row in rows]
            if self.pixel_format == "nv12":
                runs += [(height + row, x0, x1) for row in sorted({row // 2 for row in rows})]
        return np.array(runs, np.int64)

    def _needed_rows(self, top: int, bottom: int) -> list[int]:
        step = (bottom - top) / self.side_px
        if self.downscale == "area" or step <= 2:
            return list(range(top, bottom))
        centres = [(i + 0.5) * step - 0.5 for i in range(self.side_px)]
        rows = {top + min(math.floor(c) + k, bottom - top - 1) for c in centres for k in (0, 1)}
        return sorted(rows)


def short_list() -> list[Case]:
    """The cases that most users have."""
    cases = []
    for downscale in FILTERS:
        cases += [Case("1080p", "bgr8", 64, side, 256, downscale) for side in (200, 400)]
        cases.append(Case("1080p", "bgr8", 0, 0, 256, downscale))
    return cases


def full_list() -> list[Case]:
    """Every format by every frame size; output sizes by frame sizes; boxes by output sizes."""
    cases = []
    for downscale in FILTERS:
        for frame in FRAMES:
            cases += [Case(frame, form, 0, 0, 256, downscale) for form in FORMATS]
            cases += [Case(frame, "bgr8", 0, 0, side, downscale) for side in SIDES_PX if side != 256]
        for count in BOX_COUNTS:
            cases += [Case("1080p", "bgr8", count, 200, side, downscale) for side in SIDES_PX]
    return cases
