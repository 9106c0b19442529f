"""A sink that keeps pictures: copies of what it wants, a queue bounded in bytes, and a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from abc import abstractmethod
from collections import deque
from dataclasses import replace
from typing import ClassVar, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from algan_stream.errors import AlganError
from algan_stream.logs import Seldom
from algan_stream.sinks.base import DeliveryCounts, QueuedSink
from algan_stream.sinks.buffers import Buffers
from algan_stream.types import Frame, FrameVerdict

log = logging.getLogger(__name__)

#: What a frame without pixels still takes in the queue.
_LEAST_BYTES = 4096
#: How often `rest` is called while nothing is to be stored.
_REST_S = 1.0


class _Waiting(NamedTuple):
    frame: Frame
    verdict: FrameVerdict
    size: int
    buffer: npt.NDArray[np.uint8]


class FrameSink(QueuedSink):
    """Stores frames from its own thread, so that no verdict waits for a disk or an encoder.

    What does not fit into the queue any more, or cannot be stored, is lost for this sink alone, counted and
    logged. Subclasses set up all they need, then call `start`.

    Args:
        queue_mb: Most megabytes of copied pixels that wait.
        drain_s: How long `close` waits for what is still to be stored.
    """

    wants_frames: ClassVar[bool] = True

    def __init__(self, queue_mb: float, drain_s: float) -> None:
        self._most_bytes, self._drain_s = round(queue_mb * 1e6), drain_s
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._buffers = Buffers(self._most_bytes)
        self._bytes = 0
        self._busy = 0  # in the thread's hands
        self._counts = DeliveryCounts()
        self._loss, self._failing = Seldom(), Seldom()
        self._failed_in_a_row = 0
        self._give_up = float("inf")
        self._closed = False
        self._thread = threading.Thread(target=self._store_all, name="frames", daemon=True)

    @abstractmethod
    def keeps(self, frame: Frame, verdict: FrameVerdict) -> bool:
        """Whether a frame is to be stored; called for every frame, from the pipeline's threads."""

    @abstractmethod
    def store(self, frame: Frame, verdict: FrameVerdict) -> None:
        """Stores one frame, whose memory is this sink's own until this returns; an error means it is lost."""

    def rest(self) -> None:
        """Called now and then from the thread that stores, first of all before anything is stored."""

    def end(self) -> None:
        """Called once from the thread that stores, after the last frame."""

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def write(self, verdict: FrameVerdict) -> None:
        """Is not what the pipeline calls.

        Raises:
            AlganError: Always: without the frame there is nothing to store.
        """
        raise AlganError(f"{self.name}: expected a frame with the verdict; call `write_frame`")

    def write_frame(self, frame: Frame, verdict: FrameVerdict) -> None:
        """Copies the frame into the queue, if it is wanted and there is room."""
        if not self.keeps(frame, verdict):
            return
        size = _LEAST_BYTES + frame.image.nbytes + (0 if frame.vector is None else frame.vector.nbytes)
        with self._changed:
            # One that is larger than the whole queue is still taken by an empty one.
            full = (self._waiting and self._bytes + size > self._most_bytes) or self._give_up < float("inf")
            if full:
                self._counts.lost += 1
        if full:
            if (silent := self._loss.silenced()) is not None:
                more = f", and {silent} before" if silent else ""
                log.error("%s: its queue is full; frame %d is lost for it%s", self.name, frame.frame_id, more)
            return
        # Outside of the lock: this is the only thing that takes time here, 0.3 to 0.5 ms for 1080p.
        vector = None if frame.vector is None else np.array(frame.vector)
        image, buffer = self._buffers.copy(frame.image)
        if frame.intact is not None and not frame.intact():  # written into: no picture of this frame
            self._buffers.give_back(buffer)
            with self._changed:
                self._counts.lost += 1
            return
        kept = replace(frame, image=image, vector=vector, reply=None, intact=None)
        with self._changed:
            self._waiting.append(_Waiting(kept, verdict, size, buffer))
            self._bytes += size
            self._changed.notify()

    def counts(self) -> DeliveryCounts:
        """What became of the frames that were to be stored, at this moment."""
        with self._changed:
            return msgspec.structs.replace(self._counts, waiting=len(self._waiting) + self._busy)

    def begin_close(self) -> None:
        """Lets the time for `close` begin."""
        with self._changed:
            if self._give_up == float("inf"):
                self._give_up = time.monotonic() + self._drain_s
            self._changed.notify()

    def close(self) -> None:
        """Stores what waits, for `drain_s`; the rest is lost."""
        if self._closed:
            return
        self._closed = True
        self.begin_close()
        if self._thread.ident is not None:
            self._thread.join(max(0.0, self._give_up - time.monotonic()) + 5.0)
        with self._changed:
            left = len(self._waiting)
            self._counts.lost += left
            self._waiting.clear()
        if left:
            log.warning("%s: %d frames are not stored; they are lost for it", self.name, left)

    def _store_all(self) -> None:
        self._guarded_rest()
        rested = time.monotonic()
        while True:
            with self._changed:
                if not self._waiting and self._give_up == float("inf"):
                    self._changed.wait(_REST_S)
                over = time.monotonic() > self._give_up
                item = self._waiting.popleft() if self._waiting and not over else None
                stopping = self._give_up < float("inf")
                if item is not None:
                    self._busy, self._bytes = 1, self._bytes - item.size
            if item is not None:
                self._store_one(item.frame, item.verdict)
                self._buffers.give_back(item.buffer)
            elif stopping:
                break
            self._buffers.prepare()
            if time.monotonic() - rested >= _REST_S:
                self._guarded_rest()
                rested = time.monotonic()
        try:
            self.end()
        except Exception as error:  # noqa: BLE001  whatever a codec raises
            self._fail(error)

    def _store_one(self, frame: Frame, verdict: FrameVerdict) -> None:
        try:
            self.store(frame, verdict)
        except Exception as error:  # noqa: BLE001  a full disk, a broken codec: the line goes on
            self._fail(error)
            stored = False
        else:
            stored = True
            if self._failed_in_a_row:
                log.warning("%s: works again; %d frames were lost for it", self.name, self._failed_in_a_row)
            self._failed_in_a_row = 0
        with self._changed:
            self._busy = 0
            self._counts.delivered += stored
            self._counts.lost += not stored
            self._failed_in_a_row += not stored

    def _guarded_rest(self) -> None:
        try:
            self.rest()
        except Exception as error:  # noqa: BLE001  a folder that is gone, say: the next frame shows it, too
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._counts.failures += 1
        if (silent := self._failing.silenced()) is not None:
            more = f" ({silent} more failures before)" if silent else ""
            log.error("%s: cannot store: %s%s", self.name, error, more)
