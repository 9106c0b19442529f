"""What all live cameras share: a connection that comes back, a watchdog, capture times, gaps in the count.

Each connection is read by a thread of its own. A camera's library that hangs then holds up neither the stop
nor the next attempt, and a slow reader of `frames` never leaves old pictures in the camera's buffers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import ClassVar

import msgspec
import numpy as np

from algan_stream.errors import CameraError
from algan_stream.ranges import check_ranges
from algan_stream.sources.base import Source, SourceContext
from algan_stream.sources.device import GLANCE_S, Device, Picture, Reader, TriggerMode, left_behind
from algan_stream.sources.link import Backoff, CameraClock, Gaps, Link
from algan_stream.types import Frame

log = logging.getLogger(__name__)


#: Pictures that wait between the reading thread and the pipeline; one too many and the oldest is answered
#: with `overrun`.
_WAITING = 8
#: A library that still connects so long after its own limit hangs.
_GRACE_S = 1.0
#: How long the end waits for a device to be closed; a library that hangs is left behind.
_GOODBYE_S = 1.0
#: Connections that hang in their library; with more, no new one is opened.
_MOST_HUNG = 3


class LiveConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Keys that every live camera has.

    Attributes:
        required_at_start: A camera that cannot be reached when the line starts ends the start. `false`: the
            line starts without it, says so, and goes on trying. Wrong settings always end the start.
        open_s: Longest wait for a connection.
        stale_s: Without a picture for so long the connection is given up and made anew; by default 2; 0 =
            never, for cameras whose pictures wait for a trigger.
        retry_s: Wait before the first new attempt; each further one waits twice as long.
        retry_most_s: The longest wait between two attempts.
        latency_ms: The least time from exposure to arrival, where it is known; taken off the capture time.
        size_wh: Width and height in pixels that pictures must have; None: those of the first.
    """

    required_at_start: bool = True
    open_s: float = 5.0
    stale_s: float | None = None
    retry_s: float = 0.1
    retry_most_s: float = 1.0
    latency_ms: float = 0.0
    size_wh: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_ranges(
            ("open_s", self.open_s, 0.1, 600),
            ("retry_s", self.retry_s, 0.01, 600),
            ("retry_most_s", self.retry_most_s, self.retry_s, 3600),
            ("latency_ms", self.latency_ms, 0, 60_000),
        )
        if not (self.stale_s in (None, 0) or 0.1 <= self.patience_s <= 3600):
            raise ValueError(f"stale_s: expected 0 for never, or 0.1 to 3600, got {self.stale_s:g}")
        if self.size_wh is not None and min(self.size_wh) < 1:
            raise ValueError(f"size_wh: expected two numbers above 0, got {list(self.size_wh)}")

    @property
    def patience_s(self) -> float:
        """`stale_s`, or its default."""
        return 2.0 if self.stale_s is None else self.stale_s


class LiveSource(Source):
    """Pictures of one camera that comes and goes.

    Args:
        config: The section.
        context: As every source's.
        connect: Makes a connection, within `config.open_s`; raises CameraError where that fails, and
            ConfigError where the camera does not do what the section asks for.
        mode: What makes the camera take a picture: its own clock, a signal, or `trigger`.

    Raises:
        CameraError: It cannot be reached, and is `required_at_start`.
        ConfigError: It does not do what the section asks for.
    """

    live: ClassVar[bool] = True
    on_demand: ClassVar[bool] = True

    def __init__(
        self,
        config: LiveConfig,
        context: SourceContext,
        connect: Callable[[], Device],
        mode: TriggerMode = "free",
    ) -> None:
        super().__init__()
        self.mode = mode
        self._live_config, self._context, self._connect = config, context, connect
        self.link = Link(context.camera)
        self.links = (self.link,)
        self._arrived = threading.Condition()
        self._pictures: deque[Picture] = deque()
        self._overrun = 0
        self._reader: Reader | None = None
        self._hung: list[Reader] = []
        self._next_id = 0
        self._given_up = ""
        self._closed = threading.Event()
        self._size_wh = config.size_wh
        try:
            connect().close()
        except CameraError as error:
            if config.required_at_start:
                raise CameraError(
                    f"{error}; switch it on, or write `required_at_start: false` to start without it"
                ) from error
            self.link.down(str(error))

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Yields pictures as they come, over any number of connections, until `stop` is set."""
        backoff = Backoff(self._live_config.retry_s, self._live_config.retry_most_s)
        self._next_id = 0
        while not (stop.is_set() or self._closed.is_set()):
            yield from self._one_connection(stop, backoff)
            stop.wait(backoff.next_s())
        for _ in range(self._overrun):  # of pictures that came before the end, and were not looked at
            yield self._overrun_frame()
        self._overrun = 0

    def close(self) -> None:
        """Frees the camera, also where nobody reads `frames` to their end."""
        self._closed.set()
        if (reader := self._reader) is not None:
            reader.leave.set()
            reader.join(_GOODBYE_S)

    def trigger(self) -> None:
        """Asks for one picture; see `Device.trigger`.

        Raises:
            CameraError: The camera is away, or does not take the trigger.
        """
        reader = self._reader
        device = reader.device if reader is not None and not self._given_up else None
        if device is None:
            raise CameraError(self.link.error or "is being connected anew")
        device.trigger()

    def renew(self, reason: str) -> None:
        """Gives the connection up and makes another, so that no picture of the old one comes any more."""
        self._given_up = reason

    # ---- one connection ---------------------------------------------------------------------------------

    def _one_connection(self, stop: threading.Event, backoff: Backoff) -> Iterator[Frame]:
        self._hung = [reader for reader in self._hung if reader.is_alive()]
        if len(self._hung) >= _MOST_HUNG:
            self.link.down(f"{_MOST_HUNG} connections hang in the camera's library; restart this service")
            return
        self._given_up = ""
        reader = self._reader = Reader(f"camera-{self._context.camera}", self._connect, self._take)
        reader.start()
        try:
            yield from self._read(reader, stop, backoff)
        finally:
            self._reader = None
            reader.leave.set()
            reader.join(_GOODBYE_S)
            if reader.is_alive():
                self._hung.append(reader)
                left_behind.add(reader)
            with self._arrived:
                self._overrun += len(self._pictures)  # they were taken, and must be answered
                self._pictures.clear()

    def _read(self, reader: Reader, stop: threading.Event, backoff: Backoff) -> Iterator[Frame]:
        gaps: Gaps | None = None
        clock = CameraClock()
        last: float | None = None
        while not stop.is_set():
            picture, overrun = self._next()
            for _ in range(overrun):
                yield self._overrun_frame()
            if picture is not None:
                device = reader.device
                gaps = gaps or Gaps(device.wrap if device else None)
                last = time.monotonic()
                backoff.reset()
                self.link.up()
                yield self._frame(picture, gaps.lost_before(picture.number), clock)
            if (picture is None or self._given_up) and (reason := self._ended(reader, last)):
                self.link.down(reason)
                return

    def _ended(self, reader: Reader, last: float | None) -> str:
        """Why a connection is to be given up; empty while it is well."""
        if reason := reader.ended or self._given_up:
            return reason
        config, now = self._live_config, time.monotonic()
        if reader.device is None:
            late = now - reader.began > config.open_s + _GRACE_S
            return f"no connection within {config.open_s:g} s" if late else ""
        if config.patience_s == 0:
            self.link.up()
        elif now - max(reader.began, last or 0.0) > config.patience_s:
            return f"no picture for {config.patience_s:g} s"
        return ""

    def _take(self, reader: Reader, picture: Picture) -> None:
        """From the reading thread; one that was given up is not listened to any more."""
        with self._arrived:
            if reader is not self._reader:
                return
            if len(self._pictures) >= _WAITING:
                self._pictures.popleft()
                self._overrun += 1
            self._pictures.append(picture)
            self._arrived.notify()

    def _next(self) -> tuple[Picture | None, int]:
        with self._arrived:
            if not self._pictures:
                self._arrived.wait(GLANCE_S / 2)
            overrun, self._overrun = self._overrun, 0
            return (self._pictures.popleft() if self._pictures else None), overrun

    # ---- frames -----------------------------------------------------------------------------------------

    def _frame(self, picture: Picture, lost: int, clock: CameraClock) -> Frame:
        if lost:
            self._context.ledger.missed(self._context.camera, lost)
            self._next_id += lost
        captured_ns = picture.arrived_ns if picture.taken_ns is None else picture.taken_ns
        if picture.camera_ns is not None:
            captured_ns = clock.captured_ns(picture.camera_ns, picture.arrived_ns)
        captured_ns -= round(self._live_config.latency_ms * 1e6)
        now_ns = time.monotonic_ns()
        deadline_ns = self._context.deadline_ns()
        self._next_id += 1
        return Frame(
            camera=self._context.camera,
            frame_id=self._next_id - 1,
            image=picture.image,
            pixel_format=picture.pixel_format,
            captured_ns=time.time_ns() - (now_ns - captured_ns),
            deadline_ns=None if deadline_ns is None else deadline_ns - (now_ns - picture.arrived_ns),
            fault=picture.fault or self._wrong_size(picture),
        )

    def _wrong_size(self, picture: Picture) -> str:
        """A camera that was set back shows the parts larger or smaller: no score of it means anything."""
        if self._size_wh is None:
            self._size_wh = picture.size_wh
        if picture.size_wh == self._size_wh:
            return ""
        (width, height), (got_width, got_height) = self._size_wh, picture.size_wh
        return f"wrong_size: expected {width} x {height} pixels, got {got_width} x {got_height}"

    def _overrun_frame(self) -> Frame:
        self._next_id += 1
        return Frame(
            camera=self._context.camera,
            frame_id=self._next_id - 1,
            image=np.zeros((0, 0), np.uint8),
            pixel_format="grey8",
            captured_ns=time.time_ns(),
            deadline_ns=self._context.deadline_ns(),
            fault="overrun: pictures came faster than they could be taken",
        )
