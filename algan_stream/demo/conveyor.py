"""A camera above a conveyor belt with parts on it, rendered faster than a real one delivers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import numpy as np
import numpy.typing as npt

from algan_stream.demo.parts import (
    DEFECTS,
    GAIN_SPREAD,
    MAX_SIZE_PX,
    U8,
    Layer,
    belt_tile,
    expose,
    part_layer,
)
from algan_stream.demo.surface import Stream, random_stream, uniform
from algan_stream.errors import InputError

#: Frames that a slow rise and fall of the lamp's brightness takes.
_LAMP_PERIOD_FRAMES = 900


@dataclass(frozen=True)
class ConveyorFrame:
    """One camera frame and the truth about it.

    Attributes:
        image: uint8 (H, W, 3), BGR.
        boxes: float32 (N, 4) xyxy pixels, whole numbers: a square of the conveyor's `size_px` around each
            part that is fully in view. A cut-out is distributed like the images of `render_part`.
        part_ids: Number of each box's part, counted from 0 in order of arrival.
        defects: Defect of each box's part, None where it is good.
    """

    image: U8
    boxes: npt.NDArray[np.float32]
    part_ids: tuple[int, ...]
    defects: tuple[str | None, ...]


@dataclass(frozen=True)
class _Part:
    number: int
    defect: str | None
    layer: Layer
    start_px: int  # Place of the box's left edge before the belt has moved.
    y: int


class Conveyor:
    """Parts that ride from left to right under a camera; every part is another one.

    A frame depends on the arguments and the frame's index alone, so two conveyors with the same
    arguments show the same parts, and frames can be taken in any order.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        defect_rate: float = 0.15,
        frame_wh: tuple[int, int] = (640, 360),
        size_px: int = 128,
        speed_px: int = 6,
    ) -> None:
        """Sets the line up; no part is rendered before it comes into view.

        Args:
            seed: Another seed, ≥ 0, gives other parts.
            defect_rate: Share of defective parts, 0 to 1; the defects are equally likely.
            frame_wh: Width and height of a frame in pixels, each at least `size_px`.
            size_px: Side of a part's box in pixels, 32 to 512.
            speed_px: Way of the belt from frame to frame in pixels, 1 or more.

        Raises:
            InputError: An argument is out of range.
        """
        width, height = frame_wh
        if seed < 0:
            raise InputError(f"seed: expected 0 or more, got {seed}")
        if not 0.0 <= defect_rate <= 1.0:
            raise InputError(f"defect_rate: expected 0 to 1, got {defect_rate}")
        if not 32 <= size_px <= MAX_SIZE_PX:
            raise InputError(f"size_px: expected 32 to {MAX_SIZE_PX}, got {size_px}")
        if min(width, height) < size_px:
            raise InputError(f"frame_wh: expected at least {size_px} by {size_px}, got {width} by {height}")
        if speed_px < 1:
            raise InputError(f"speed_px: expected 1 or more, got {speed_px}")
        self.frame_wh = frame_wh
        self.size_px = size_px
        self._seed = seed
        self._defect_rate = defect_rate
        self._speed_px = speed_px
        self._pitch_px = size_px + size_px // 2
        tile = belt_tile(size_px)
        # Tile, mirrored tile, and as much again as one frame shows: one plain copy cuts any view.
        self._belt_period_px = 2 * tile.shape[1]
        extra_rows = max(0, height - tile.shape[0])
        belt = np.pad(tile, ((0, extra_rows), (0, tile.shape[1] + width), (0, 0)), mode="symmetric")
        self._belt = belt[:height]
        self._part = lru_cache(maxsize=width // self._pitch_px + 4)(self._make_part)

    def frame(self, index: int) -> ConveyorFrame:
        """Renders the frame of a free-running camera with this index, from 0; the belt starts empty."""
        travel_px = index * self._speed_px
        image, parts = self._lay(travel_px)
        # Up and down through the range evenly: each single frame is as if drawn from it at random.
        phase = 2.0 * (index % _LAMP_PERIOD_FRAMES) / _LAMP_PERIOD_FRAMES
        gain = 1.0 + GAIN_SPREAD * (2.0 * abs(1.0 - phase) - 1.0)
        rng = random_stream(Stream.CAMERA, self._seed, 1, index)
        width = self.frame_wh[0]
        whole = [p for p in parts if 0 <= p.start_px + travel_px <= width - self.size_px]
        return self._truth(expose(image, gain, rng), whole, travel_px)

    def frames(self) -> Iterator[ConveyorFrame]:
        """Yields what a free-running camera sees, without end."""
        return map(self.frame, count())

    def triggered_frame(self, number: int) -> ConveyorFrame:
        """Renders part `number` centred under the camera; its neighbours may show but have no box."""
        part = self._part(number)
        travel_px = (self.frame_wh[0] - self.size_px) // 2 - part.start_px
        image, _ = self._lay(travel_px)
        rng = random_stream(Stream.CAMERA, self._seed, 2, number)
        gain = uniform(rng, 1.0 - GAIN_SPREAD, 1.0 + GAIN_SPREAD)
        return self._truth(expose(image, gain, rng), [part], travel_px)

    def triggered_frames(self) -> Iterator[ConveyorFrame]:
        """Yields one frame for each part, as a light barrier triggers the camera, without end."""
        return map(self.triggered_frame, count())

    def _make_part(self, number: int) -> _Part:
        rng = random_stream(Stream.LINE, self._seed, number)
        defect = DEFECTS[int(rng.integers(len(DEFECTS)))] if rng.random() < self._defect_rate else None
        free_px = self.frame_wh[1] - self.size_px
        sway_px = min(self.size_px // 8, free_px // 2)
        return _Part(
            number=number,
            defect=defect,
            layer=part_layer(int(rng.integers(1 << 62)), defect=defect, size_px=self.size_px),
            # Gaps differ: half the spare way between two parts is left to chance.
            start_px=-self.size_px - number * self._pitch_px - int(rng.integers(self.size_px // 4)),
            y=free_px // 2 + int(rng.integers(-sway_px, sway_px + 1)),
        )

    def _lay(self, travel_px: int) -> tuple[U8, list[_Part]]:
        """Copies the belt and lays on it all parts that are at least partly in view."""
        width = self.frame_wh[0]
        offset = -travel_px % self._belt_period_px
        image = self._belt[:, offset : offset + width].copy()
        # The last part may have left up to its chance share of the gap earlier.
        gone_px = travel_px - width - self.size_px - self.size_px // 4
        first = max(0, -(-gone_px // self._pitch_px))
        parts = [self._part(number) for number in range(first, travel_px // self._pitch_px + 1)]
        for part in parts:
            part.layer.onto(image, part.start_px + travel_px, part.y)
        return image, parts

    def _truth(self, image: U8, parts: list[_Part], travel_px: int) -> ConveyorFrame:
        boxes = np.empty((len(parts), 4), dtype=np.float32)
        for row, part in enumerate(parts):
            x = part.start_px + travel_px
            boxes[row] = x, part.y, x + self.size_px, part.y + self.size_px
        numbers, defects = tuple(p.number for p in parts), tuple(p.defect for p in parts)
        return ConveyorFrame(image, boxes, numbers, defects)
