"""A video file as a camera."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec
import numpy as np

from algan_stream.errors import InputError
from algan_stream.sources.base import Pace, Source, SourceContext
from algan_stream.types import Frame

#: Time between attempts to open a file again that cannot be opened.
_RETRY_S = 0.5


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A source with `kind: video`.

    Attributes:
        path: Video file of any kind that FFmpeg reads.
        fps: Frames per second; None = the file's own rate; 0 = as fast as they are scored.
        loop: Begin again after the last frame.
    """

    kind: Literal["video"] = "video"
    path: str
    fps: float | None = None
    loop: bool = False

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 <= self.fps <= 10_000:
            raise ValueError(f"fps: expected 0 to 10000, got {self.fps}")


class VideoSource(Source):
    """Plays a video file frame by frame; `part_id` stays empty."""

    on_demand: ClassVar[bool] = True

    def __init__(self, config: Config, context: SourceContext) -> None:
        super().__init__()
        self._config, self._context = config, context
        capture = _open(config.path)
        self._fps = self._own_rate(capture) if config.fps is None else config.fps
        readable, _ = capture.read()
        capture.release()
        if not readable:
            raise InputError(f"{config.path}: holds no frame that can be decoded")

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Yields each frame. A file that breaks off or is gone gives a last frame of fault `video_broken`."""
        pace, frame_id = Pace(self._fps), 0
        while True:
            try:
                capture = _open(self._config.path)
            except InputError as error:  # it was there when the line was started
                yield self._frame(frame_id, None, f"video_broken: {error}")
                frame_id += 1
                if not self._config.loop or stop.wait(_RETRY_S):
                    return
                continue
            promised, first_id = _frame_count(capture), frame_id
            try:
                while pace.wait(stop):
                    decoded, image = capture.read()
                    if not decoded:
                        break
                    yield self._frame(frame_id, image)
                    frame_id += 1
                else:
                    return
            finally:
                capture.release()
            if frame_id - first_id < promised - 1:  # containers often promise one frame too many
                yield self._frame(frame_id, None, f"video_broken: {frame_id - first_id} of {promised} frames")
                frame_id += 1
            if not self._config.loop:
                return

    def _frame(self, frame_id: int, image: Any, fault: str = "") -> Frame:
        return Frame(
            camera=self._context.camera,
            frame_id=frame_id,
            image=np.zeros((0, 0, 3), np.uint8) if image is None else image,
            pixel_format="bgr8",
            captured_ns=time.time_ns(),
            deadline_ns=self._context.deadline_ns(),
            fault=fault,
        )

    def _own_rate(self, capture: Any) -> float:
        import cv2

        rate = float(capture.get(cv2.CAP_PROP_FPS))
        if not 0 < rate <= 10_000:
            raise InputError(f"{self._config.path}: states no frame rate; set `fps` for this source")
        return rate


def create(config: Config, context: SourceContext) -> VideoSource:
    """Opens the file once, to see that it can be played.

    Raises:
        InputError: It is missing or cannot be decoded.
    """
    return VideoSource(config, context)


def _open(path: str) -> Any:
    import cv2

    if not Path(path).is_file():
        raise InputError(f"{path}: expected a video file, but there is no such file")
    capture = cv2.VideoCapture(path)
    if not capture.isOpened():
        raise InputError(f"{path}: cannot be opened as a video ({Path(path).stat().st_size} bytes)")
    return capture


def _frame_count(capture: Any) -> int:
    import cv2

    return int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
