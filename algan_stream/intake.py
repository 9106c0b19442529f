"""Frames between the sources and the batcher: one bounded queue for each camera.

The nearest deadline goes first, among the cameras that have not had more than their share: those whose boxes
so far lie within `HEAD_START` of what the camera that had least has had. (Start-time fair queueing with a box
as the unit of work, so that a camera with 200 boxes does not starve one with a single box.) A camera that had
nothing to do begins where the others are, and saves no credit meanwhile. Whoever is alone has no limit.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from algan_stream.types import Frame

#: What happens when a camera's queue is full.
Backpressure = Literal["block", "drop_oldest", "drop_newest"]

#: Boxes that a camera may be ahead of the one that waits longest, while its deadlines are nearer.
HEAD_START = 32

#: A frame without a deadline queues as if it had this long: it gives way to urgent ones, but not forever.
_PATIENCE_NS = 1_000_000_000


@dataclass
class _Lane:
    capacity: int
    policy: Backpressure
    frames: deque[Frame] = field(default_factory=deque)
    served: int = 0  # boxes taken, or where others were when this camera came back


class Intake:
    """Bounded, thread-safe queues with one consumer."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lanes: dict[str, _Lane] = {}
        self._closed = self._woken = self._interrupted = False
        self._served = 0  # the least of the cameras that waited, when the last frame was taken

    def open_lane(self, camera: str, capacity: int, policy: Backpressure) -> None:
        """Makes the queue of one camera; again with the same name changes nothing."""
        with self._changed:
            self._lanes.setdefault(camera, _Lane(capacity, policy))

    def close_lane(self, camera: str) -> None:
        """Takes away the queue of a camera that sends no more; one in which frames wait stays."""
        with self._changed:
            if camera in self._lanes and not self._lanes[camera].frames:
                del self._lanes[camera]

    def put(self, frame: Frame) -> list[tuple[Frame, str]]:
        """Queues a frame; with `block`, waits for room.

        Returns:
            The frames that fell out, each with the reason, so that the caller can account for them.
        """
        with self._changed:
            lane = self._lanes[frame.camera]
            while lane.policy == "block" and len(lane.frames) >= lane.capacity and not self._closed:
                self._changed.wait()
            if self._closed:
                return [(frame, "shutdown")]
            fallen: list[tuple[Frame, str]] = []
            if len(lane.frames) >= lane.capacity:
                if lane.policy == "drop_newest":
                    return [(frame, "queue_full")]
                fallen.append((lane.frames.popleft(), "queue_full"))
            if not lane.frames:
                lane.served = max(lane.served, self._served)
            lane.frames.append(frame)
            self._changed.notify_all()
            return fallen

    def take(self, timeout_s: float | None) -> Frame | None:
        """The most urgent of the oldest frames of those cameras that have not had more than their share.

        Returns None when time is up, when `wake` or `interrupt` was called meanwhile, or when all is closed
        and empty.
        """
        give_up = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not (waiting := [lane for lane in self._lanes.values() if lane.frames]):
                left = None if give_up is None else give_up - time.monotonic()
                woken = self._interrupted or (left is not None and (left <= 0 or self._woken))
                if self._closed or woken:
                    self._woken = self._interrupted = False
                    return None
                self._changed.wait(left)
            return self._take_of(waiting)

    def take_between(self, camera: str, most_boxes: int) -> Frame | None:
        """The same among other cameras' frames with few boxes, without waiting: for the gaps in a large job.

        Args:
            camera: Whose frame is in work.
            most_boxes: What fits the gap.
        """
        with self._changed:
            small = [
                lane
                for name, lane in self._lanes.items()
                if name != camera and lane.frames and _boxes(lane.frames[0]) <= most_boxes
            ]
            return self._take_of(small) if small else None

    def _take_of(self, waiting: list[_Lane]) -> Frame:
        least = min(lane.served for lane in waiting)
        entitled = (lane for lane in waiting if lane.served <= least + HEAD_START)
        lane = min(entitled, key=lambda lane: _urgency(lane.frames[0]))
        frame = lane.frames.popleft()
        lane.served += _boxes(frame)
        self._served = max(self._served, least)
        self._changed.notify_all()
        return frame

    def wake(self) -> None:
        """Ends a `take` that has a time limit, so that its caller looks at the world again."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def interrupt(self) -> None:
        """Ends any `take`, also one without a time limit."""
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    def empty(self) -> bool:
        """Whether no frame waits."""
        with self._changed:
            return not any(lane.frames for lane in self._lanes.values())

    def depths(self) -> dict[str, int]:
        """How many frames wait, by camera; every camera that was opened is there."""
        with self._changed:
            return {camera: len(lane.frames) for camera, lane in self._lanes.items()}

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Refuses further frames; those inside can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _boxes(frame: Frame) -> int:
    return 1 if frame.boxes is None else max(1, len(frame.boxes))


def _urgency(frame: Frame) -> int:
    return frame.deadline_ns if frame.deadline_ns is not None else frame.received_ns + _PATIENCE_NS
