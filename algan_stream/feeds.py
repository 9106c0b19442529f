"""A camera of a running line: its source, the thread that runs it, and how it is taken away again."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from algan_stream import plugins
from algan_stream.boxes.base import BoxFinder
from algan_stream.config import CameraConfig
from algan_stream.errors import ConfigError, InputError
from algan_stream.guard.guard import Guard, open_guard
from algan_stream.intake import Backpressure
from algan_stream.ledger import Ledger
from algan_stream.parts import SUFFIX, open_parts
from algan_stream.pipeline import Pipeline
from algan_stream.sources.base import Source, SourceContext
from algan_stream.types import VectorSpec

_GLANCE_S = 0.01


@dataclass(eq=False)
class Feed:
    """One entry of `cameras` at work.

    Attributes:
        camera: The entry.
        source: Where its frames come from.
        boxes: Which parts of them are scored.
        context: What the source was given.
        names: Cameras that the source sends for: the entry's, and those of its clients.
        stop: Asks the source to end.
        thread: Runs it; None before the line does.
        guard: Looks for faults of the camera, where its entry says so.
    """

    camera: CameraConfig
    source: Source
    boxes: BoxFinder
    context: SourceContext
    names: set[str]
    stop: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    guard: Guard | None = None

    @property
    def running(self) -> bool:
        """Whether frames may still come."""
        return self.thread is not None and self.thread.is_alive()

    def wait(self, timeout_s: float) -> None:
        """Waits for the end of its frames."""
        if self.thread is not None:
            self.thread.join(timeout_s)

    def end(self, ledger: Ledger, timeout_s: float) -> bool:
        """Ends the source, and closes it after the last verdict on its frames.

        Returns:
            Whether all that took no longer than `timeout_s`; if not, it is closed all the same, and the
            verdicts on its last frames go to the sinks alone.
        """
        give_up = time.monotonic() + timeout_s
        self.stop.set()
        if self.thread is not None:
            self.thread.join(timeout_s)
        while (waiting := self._in_flight(ledger)) and time.monotonic() < give_up:
            time.sleep(_GLANCE_S)
        if not self.running:  # it must not find its camera gone
            self.source.close()
            self.boxes.close()
        return not (self.running or waiting)

    def _in_flight(self, ledger: Ledger) -> bool:
        accounts = ledger.snapshot()
        return any(accounts[name].frames.in_flight for name in self.names if name in accounts)


def open_feed(camera: CameraConfig, path: str, pipeline: Pipeline, feeds: list[Feed]) -> Feed:
    """Opens a camera's source and queue, and adds it to the line's.

    Args:
        camera: The entry.
        path: Where it stands in the file, for messages.
        pipeline: Gets its frames.
        feeds: Of the line; what was opened is added also when an error follows, so that it is closed. No
            client of another may use their names.

    Raises:
        AlganError: A key is wrong, or the source cannot be opened.
    """
    box_module, box_config = plugins.load("boxes", camera.boxes, f"{path}.boxes")
    module, config = plugins.load("sources", camera.source, f"{path}.source")
    names, bundle = {camera.id}, pipeline.model.bundle
    if camera.track and pipeline.parts is None:
        pipeline.parts = open_parts(pipeline.ledger)
    guard = open_guard(camera.guard, bundle.manifest.spec, f"{path}.guard")

    def open_lane(name: str, queue_size: int) -> None:
        if name != camera.id and name in {other.camera.id for other in tuple(feeds)}:
            raise InputError(f"camera {name} is another source's in this line")
        if pipeline.parts is not None and name.endswith(SUFFIX):
            raise InputError(f"camera {name}: names ending in {SUFFIX} are for tracked parts in this line")
        pipeline.open_camera(name, queue_size, camera.backpressure or default)
        names.add(name)

    context = SourceContext(
        camera.id, camera.deadline_ms, camera.queue_size, pipeline.ledger, open_lane, bundle.manifest.spec
    )
    with plugins.placed(f"{path}.source"):
        source: Source = module.create(config, context)
    default: Backpressure = "drop_oldest" if source.live else "block"
    open_lane(camera.id, camera.queue_size)
    with plugins.placed(f"{path}.boxes"):
        boxes: BoxFinder = box_module.create(box_config)
    feed = Feed(camera, source, boxes, context, names, guard=guard)
    feeds.append(feed)
    if camera.rule is not None and getattr(box_config, "fuse", "max") == "mean":
        raise ConfigError(f"{path}.rule: cannot be combined with boxes.fuse mean; remove one of them")
    wanted = "vector" if isinstance(bundle.manifest.spec, VectorSpec) else "image"
    if wanted not in source.payloads:
        raise ConfigError(
            f"{path}.source: kind {config.kind} gives {' or '.join(source.payloads)}s, but "
            f"{bundle.path} takes {wanted}s; choose another source or bundle"
        )
    return feed
