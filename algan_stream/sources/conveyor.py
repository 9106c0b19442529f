"""The project's own rendered conveyor as a camera: for demonstrations and tests without any hardware."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import dropwhile
from typing import ClassVar, Literal

import msgspec

from algan_stream.demo.conveyor import Conveyor
from algan_stream.sources.base import Pace, Source, SourceContext
from algan_stream.types import Frame


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A source with `kind: conveyor`.

    Attributes:
        fps: Frames per second; 0 = as fast as they are scored.
        frames: Frames to show; 0 = until stopped.
        seed: Another seed shows other parts.
        defect_rate: Share of defective parts, 0 to 1.
        triggered: One frame for each part, as a photo-eye would trigger it, instead of a free-running camera.
    """

    kind: Literal["conveyor"] = "conveyor"
    fps: float = 25.0
    frames: int = 0
    seed: int = 0
    defect_rate: float = 0.15
    triggered: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.fps <= 10_000:
            raise ValueError(f"fps: expected 0 to 10000, got {self.fps}")
        if self.frames < 0:
            raise ValueError(f"frames: expected 0 or more, got {self.frames}")


class ConveyorSource(Source):
    """Frames with a box for each part in view; `part_id` names them, with the defect they were rendered with.

    A part reads `17` or `17:scratch`; several in one frame are separated by spaces.
    """

    live: ClassVar[bool] = True
    on_demand: ClassVar[bool] = True

    def __init__(self, config: Config, context: SourceContext) -> None:
        super().__init__()
        self._config, self._context = config, context
        self._conveyor = Conveyor(config.seed, defect_rate=config.defect_rate)

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Yields rendered frames."""
        pace = Pace(self._config.fps)
        shown = self._conveyor.triggered_frames() if self._config.triggered else self._conveyor.frames()
        from_first_part = dropwhile(lambda frame: len(frame.boxes) == 0, shown)  # the belt starts empty
        for frame_id, frame in enumerate(from_first_part):
            if self._config.frames and frame_id >= self._config.frames:
                return
            if not pace.wait(stop):
                return
            parts = zip(frame.part_ids, frame.defects, strict=True)
            yield Frame(
                camera=self._context.camera,
                frame_id=frame_id,
                image=frame.image,
                pixel_format="bgr8",
                captured_ns=time.time_ns(),
                deadline_ns=self._context.deadline_ns(),
                boxes=frame.boxes,
                part_id=" ".join(f"{number}:{defect}" if defect else str(number) for number, defect in parts),
            )


def create(config: Config, context: SourceContext) -> ConveyorSource:
    """Sets the line up.

    Raises:
        InputError: An argument is out of range.
    """
    return ConveyorSource(config, context)
