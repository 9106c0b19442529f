"""One picture for each trigger, with the name of its part: the screen-less inspection point.

A trigger is an announced frame. Where the camera gives no picture in time, the part is `unknown` with the
reason `no_image`; it never gets the picture of another.
"""

from __future__ import annotations

import queue
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import msgspec
import numpy as np

from algan_stream import plugins
from algan_stream.errors import CameraError, ConfigError
from algan_stream.ledger import Ledger
from algan_stream.ranges import check_ranges
from algan_stream.sources.base import Source, SourceContext
from algan_stream.sources.live import LiveSource
from algan_stream.sources.trigger_modbus import ModbusPort, ModbusTrigger
from algan_stream.sources.trigger_zmq import ZmqPort, ZmqTrigger
from algan_stream.sources.triggers import Trigger, TriggerPort
from algan_stream.types import Frame

#: Triggers that may wait for the camera.
_WAITING = 256
#: The newest pictures of a camera that runs by itself.
_KEPT = 8
_GLANCE_S = 0.05
_GOODBYE_S = 2.0


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A source with `kind: triggered`.

    Attributes:
        camera: Section of the source that gives the pictures, as under `source`: a live camera, or recorded
            pictures, of which each trigger takes the next.
        trigger: Where triggers come from, by `kind`: `zmq` or `modbus`.
        timeout_ms: A picture taken later than this after its trigger is not of that part.
        early_ms: A picture taken so long before the trigger was heard of is of that part; for cameras that
            the same signal triggers by a wire, which is faster.
        late_ms: A trigger that waited longer than this for the one before it is not given to the camera any
            more: the part has moved on.
    """

    kind: Literal["triggered"] = "triggered"
    camera: dict[str, Any]
    trigger: ZmqTrigger | ModbusTrigger
    timeout_ms: float = 500.0
    early_ms: float = 0.0
    late_ms: float = 100.0

    def __post_init__(self) -> None:
        check_ranges(
            ("timeout_ms", self.timeout_ms, 1, 600_000),
            ("early_ms", self.early_ms, 0, 60_000),
            ("late_ms", self.late_ms, 1, 600_000),
        )


class _NoImageError(Exception):
    """There is no picture for a trigger; the message is the frame's fault."""


class _Camera(ABC):
    """Gives one frame for one trigger."""

    @abstractmethod
    def start(self, stop: threading.Event) -> None: ...

    @abstractmethod
    def shoot(self, trigger: Trigger, stop: threading.Event) -> Frame: ...

    @abstractmethod
    def join(self) -> None: ...


class TriggeredSource(Source):
    """Triggers in, frames out.

    Args:
        config: The section.
        context: As every source's.
        inner: The camera.
        port: Where triggers come from.
    """

    def __init__(self, config: Config, context: SourceContext, inner: Source, port: TriggerPort) -> None:
        super().__init__()
        self._config, self._context, self._inner, self._port = config, context, inner, port
        self.payloads = inner.payloads
        self.links = (*inner.links, *port.links)
        self._camera = _Watched(inner, config) if isinstance(inner, LiveSource) else _Recorded(inner)
        self._triggers: queue.Queue[Trigger] = queue.Queue(_WAITING)
        self._next_id = 0
        port.missed = self._missed

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Yields a frame for each trigger; after `stop`, for those that wait."""
        self._next_id = 0
        self._camera.start(stop)
        listener = threading.Thread(
            target=self._port.listen,
            args=(stop, self._take),
            name=f"trigger-{self._context.camera}",
            daemon=True,
        )
        listener.start()
        while not (stop.is_set() and self._triggers.empty()):
            try:
                trigger = self._triggers.get(timeout=_GLANCE_S)
            except queue.Empty:
                if not (listener.is_alive() or stop.is_set()):
                    raise CameraError(
                        f"camera {self._context.camera}: its trigger broke; the log says why"
                    ) from None
                continue
            yield self._frame(trigger, stop)
        self._camera.join()

    def close(self) -> None:
        """Sends the last answers, and frees the camera."""
        self._port.close()
        self._inner.close()

    def _take(self, trigger: Trigger) -> bool:
        try:
            self._triggers.put_nowait(trigger)
        except queue.Full:
            return False
        return True

    def _missed(self, count: int) -> None:
        self._context.ledger.missed(self._context.camera, count)

    def _frame(self, trigger: Trigger, stop: threading.Event) -> Frame:
        now_ns = time.monotonic_ns()
        try:
            if trigger.fault:
                raise _NoImageError(trigger.fault)
            if stop.is_set():
                raise _NoImageError("no_image: the service stops")
            waited_ms = (now_ns - trigger.at_ns) / 1e6
            if waited_ms > self._config.late_ms and self._must_be_prompt:
                raise _NoImageError(f"trigger_late: it waited {waited_ms:.0f} ms for the part before")
            frame = self._camera.shoot(trigger, stop)
        except _NoImageError as error:
            frame = self._no_image(trigger, str(error))
        if trigger.taken is not None:
            trigger.taken(not frame.fault)
        deadline_ns = self._context.deadline_ns()
        waited_ns = time.monotonic_ns() - trigger.at_ns
        self._next_id += 1
        return replace(
            frame,
            camera=self._context.camera,
            frame_id=self._next_id - 1,
            part_id=trigger.part_id or frame.part_id,
            deadline_ns=None if deadline_ns is None else deadline_ns - waited_ns,
            reply=trigger.verdict,
        )

    @property
    def _must_be_prompt(self) -> bool:
        """Only what the software fires, fires late."""
        return not isinstance(self._inner, LiveSource) or self._inner.mode == "software"

    def _no_image(self, trigger: Trigger, fault: str) -> Frame:
        return Frame(
            camera=self._context.camera,
            frame_id=0,
            image=np.zeros((0, 0), np.uint8),
            pixel_format="grey8",
            captured_ns=time.time_ns() - (time.monotonic_ns() - trigger.at_ns),
            fault=fault,
        )


class _Recorded(_Camera):
    """The next of the recorded pictures."""

    def __init__(self, inner: Source) -> None:
        self._inner = inner
        self._frames: Iterator[Frame] = iter(())

    def start(self, stop: threading.Event) -> None:
        self._frames = self._inner.frames(stop)

    def shoot(self, trigger: Trigger, stop: threading.Event) -> Frame:
        frame = next(self._frames, None)
        if frame is None:
            raise _NoImageError("no_image: the recording is over")
        return frame

    def join(self) -> None:
        pass


class _Watched(_Camera):
    """The first picture of a live camera from its trigger on.

    A camera that owes a picture when the time is up is connected anew: else that picture might come late and
    be taken for the next part's.
    """

    def __init__(self, inner: LiveSource, config: Config) -> None:
        self._inner, self._config = inner, config
        self._arrived = threading.Condition()
        self._kept: deque[Frame] = deque(maxlen=_KEPT)
        self._pump = threading.Thread()

    def start(self, stop: threading.Event) -> None:
        self._pump = threading.Thread(target=self._watch, args=(stop,), name="watch", daemon=True)
        self._pump.start()

    def join(self) -> None:
        self._pump.join(_GOODBYE_S)

    def shoot(self, trigger: Trigger, stop: threading.Event) -> Frame:
        wall_ns = time.time_ns() - (time.monotonic_ns() - trigger.at_ns)
        first_ns = wall_ns - round(self._config.early_ms * 1e6)
        last_ns = wall_ns + round(self._config.timeout_ms * 1e6)
        self._forget_before(first_ns)
        try:
            self._inner.trigger()
        except CameraError as error:
            raise _NoImageError(f"no_image: {error}") from error
        while not stop.is_set():
            with self._arrived:
                if not self._kept:
                    self._arrived.wait(max(0.0, min(_GLANCE_S, (last_ns - time.time_ns()) / 1e9)))
                frame = self._kept.popleft() if self._kept else None
            if frame is not None and first_ns <= frame.captured_ns <= last_ns:
                return frame
            if frame is not None and frame.captured_ns < first_ns:
                self._surplus()
            elif frame is not None or time.time_ns() > last_ns:
                break
        reason = self._inner.link.error or f"the camera gave none within {self._config.timeout_ms:g} ms"
        if self._inner.mode != "free":
            self._inner.renew(f"no picture within {self._config.timeout_ms:g} ms of a trigger")
        raise _NoImageError(f"no_image: {reason}")

    def _watch(self, stop: threading.Event) -> None:
        for frame in self._inner.frames(stop):
            if frame.fault.startswith("overrun"):
                self._surplus()
                continue
            with self._arrived:
                if len(self._kept) == _KEPT:
                    self._surplus()
                self._kept.append(frame)
                self._arrived.notify()

    def _forget_before(self, first_ns: int) -> None:
        with self._arrived:
            while self._kept and self._kept[0].captured_ns < first_ns:
                self._kept.popleft()
                self._surplus()

    def _surplus(self) -> None:
        """A camera that runs by itself takes more pictures than are wanted; any other should not."""
        if self._inner.mode != "free":
            self._inner.counts["picture_without_trigger"] += 1


def create(config: Config, context: SourceContext) -> TriggeredSource:
    """Opens the camera, then the trigger.

    Raises:
        ConfigError: The camera's kind gives no single pictures, or the trigger cannot be set up.
        AlganError: What the camera's own kind raises.
    """
    module, section = plugins.load("sources", config.camera, "camera")
    # What a camera that runs by itself shows between two parts is not missing: it keeps books of its own.
    with plugins.placed("camera"):
        inner: Source = module.create(section, replace(context, ledger=Ledger()))
    if not inner.on_demand:
        inner.close()
        raise ConfigError(
            f"camera.kind: {section.kind} gives no single pictures; choose a camera or recordings"
        )
    source_counts = inner.counts
    try:
        port: TriggerPort
        if isinstance(config.trigger, ZmqTrigger):
            port = ZmqPort(config.trigger, source_counts)
        else:
            port = ModbusPort(config.trigger, context.camera)
    except BaseException:
        inner.close()
        raise
    source = TriggeredSource(config, context, inner, port)
    source.counts = source_counts
    return source
