"""Which part each box shows: boxes of one camera, frame after frame, joined by their motion (norfair)."""

from __future__ import annotations

import math
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from algan_stream.boxes.base import usable_boxes
from algan_stream.config import TrackConfig
from algan_stream.types import Frame

#: Boxes in a frame; joining takes time that grows with their square.
_MAX_BOXES = 512
#: Frames that a gap is stepped through one by one; in a longer one every part is lost anyway.
_LONGEST_GAP = 1000


class CameraTracker:
    """Numbers the parts in one camera's frames, which must come in order.

    Args:
        config: Section `track`.
        numbers: Where part numbers come from; they are never used twice.
    """

    def __init__(self, config: TrackConfig, numbers: count[int]) -> None:
        self._config, self._numbers = config, numbers
        self._last_frame_id = -1
        self._tick = 0
        self._ids: dict[int, int] = {}  # norfair's number → ours
        self._tracker: Any = None

    def assign(self, frame: Frame) -> list[tuple[int, str]]:
        """Sets the frame's `track_ids`.

        A frame that nobody could look into moves the expected places on, and so does one that is missing.

        Returns:
            The parts that have ended, each with the reason: `lost`, or `restart`.
        """
        ended = []
        if frame.frame_id <= self._last_frame_id:  # the source counts from the beginning again
            ended = [(number, "restart") for number in self.stop()]
        if self._tracker is None:
            self._tracker = _new_tracker(self._config)
        gap = min(frame.frame_id - self._last_frame_id - 1, _LONGEST_GAP) if self._last_frame_id >= 0 else 0
        self._last_frame_id = frame.frame_id
        for _ in range(gap):
            self._tracker.update(None)
        if frame.fault or frame.boxes is None:
            self._tracker.update(None)
        else:
            frame.track_ids = self._matched(frame, frame.boxes)
        alive = {obj.id for obj in self._tracker.tracked_objects if obj.hit_counter_is_positive}
        gone = [theirs for theirs in self._ids if theirs not in alive]
        return ended + [(self._ids.pop(theirs), "lost") for theirs in gone]

    def stop(self) -> list[int]:
        """Forgets everything; returns the parts that were still in view."""
        left = list(self._ids.values())
        self._ids, self._tracker, self._last_frame_id = {}, None, -1
        return left

    def _matched(self, frame: Frame, boxes: npt.NDArray[np.float32]) -> tuple[int | None, ...]:
        from norfair import Detection

        if len(boxes) > _MAX_BOXES:
            raise ValueError(f"expected at most {_MAX_BOXES} boxes to track, got {len(boxes)}")
        self._tick += 1
        usable = np.flatnonzero(usable_boxes(boxes, frame.image, frame.pixel_format)).tolist()
        seen = [Detection(boxes[i].astype(np.float64).reshape(2, 2), data=(self._tick, i)) for i in usable]
        self._tracker.update(seen or None)
        ids: list[int | None] = [None] * len(boxes)
        for obj in self._tracker.tracked_objects:
            tick, i = obj.last_detection.data
            if tick == self._tick:
                if obj.id not in self._ids:
                    self._ids[obj.id] = next(self._numbers)
                ids[i] = self._ids[obj.id]
        return tuple(ids)


def _new_tracker(config: TrackConfig) -> Any:
    from norfair import OptimizedKalmanFilterFactory, Tracker, VectorizedDistance

    tracker = Tracker(
        "euclidean",
        distance_threshold=config.reach,
        # Lost after so many frames without it; a part counts from the first frame on.
        hit_counter_max=config.lost_frames,
        initialization_delay=0,
        # Nothing is known of a new part's speed: its second box tells.
        filter_factory=OptimizedKalmanFilterFactory(R=4.0, Q=1.0, vel_variance=1000.0),
        past_detections_length=0,
    )
    tracker.distance_function = VectorizedDistance(_relative_distance)
    return tracker


def _relative_distance(
    candidates: npt.NDArray[np.float64], objects: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Distance of centres in sides of the box, (candidates, objects); rows are corners x0, y0, x1, y1."""
    centres = (candidates[:, :2] + candidates[:, 2:]) / 2
    expected = (objects[:, :2] + objects[:, 2:]) / 2
    sides = np.maximum(candidates[:, 2:] - candidates[:, :2], 1e-3)
    apart = (centres[:, None] - expected[None]) / sides[:, None]
    return np.asarray(np.minimum(np.hypot(apart[..., 0], apart[..., 1]), math.sqrt(1e12)), np.float64)
