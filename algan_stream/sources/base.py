"""What every source is."""

from __future__ import annotations

import importlib
import random
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, TypeVar

from algan_stream.errors import PluginError
from algan_stream.ledger import Ledger
from algan_stream.sources.link import Link
from algan_stream.types import Frame, Spec

Payload: TypeAlias = Literal["image", "vector"]
T = TypeVar("T")


@dataclass
class SourceContext:
    """What a source is given.

    Attributes:
        camera: The camera's configured name.
        deadline_ms: The camera's deadline, counted from a frame's arrival, or None; may change while it runs.
        queue_size: Most frames that wait for a camera.
        ledger: For counting frames that were lost before they arrived.
        open_camera: Makes the queue of one more camera, for sources that serve several; raises
            InputError if the name belongs to another source.
        spec: What the line's bundle takes, or None outside a line.
    """

    camera: str
    deadline_ms: float | None
    queue_size: int
    ledger: Ledger
    open_camera: Callable[[str, int], None]
    spec: Spec | None = None

    def deadline_ns(self, own_ms: float | None = None) -> int | None:
        """Deadline of a frame that arrives now: the nearer of the camera's and the frame's own."""
        limits = [ms for ms in (self.deadline_ms, own_ms) if ms is not None]
        return time.monotonic_ns() + round(min(limits) * 1e6) if limits else None


class Source(ABC):
    """Frames of one camera, or of several clients.

    Construction checks everything that can be checked, and raises; a broken frame later is announced with
    `Frame.fault` and never ends the stream.
    """

    #: Whether frames come at the camera's pace (then old ones are dropped when the queue is full) or wait.
    live: ClassVar[bool] = False
    #: Whether a `triggered` source may take its frames one by one.
    on_demand: ClassVar[bool] = False
    #: What its frames may hold; a line whose bundle takes something else does not start.
    payloads: tuple[Payload, ...] = ("image",)

    def __init__(self) -> None:
        #: What was refused before it became a frame, by code.
        self.counts: Counter[str] = Counter()
        #: Connections to a camera, or what triggers it, for health and metrics; empty where none can be lost.
        self.links: tuple[Link, ...] = ()

    @abstractmethod
    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Yields frames until there are no more or `stop` is set; runs in a thread of its own."""

    def close(self) -> None:  # noqa: B027  most sources hold nothing
        """Frees the camera, after the last verdict on its frames. May be called twice."""


def require(package: str, extra: str) -> None:
    """Says at the start which library a source lacks.

    Raises:
        PluginError: It is not installed.
    """
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise PluginError(
            f"kind: needs the Python package {error.name}; pip install 'algan-stream[{extra}]'"
        ) from error


class Pace:
    """Releases frames at a steady rate.

    Args:
        fps: Frames per second; 0 = as fast as they are taken.
    """

    def __init__(self, fps: float) -> None:
        self._interval_s = 1.0 / fps if fps > 0 else 0.0
        self._next = time.monotonic()

    def wait(self, stop: threading.Event) -> bool:
        """Waits for the next frame's time; returns False when `stop` was set instead."""
        if self._interval_s == 0.0:
            return not stop.is_set()
        self._next = max(self._next + self._interval_s, time.monotonic() - self._interval_s)
        return not stop.wait(max(0.0, self._next - time.monotonic()))


def played(
    items: Sequence[T], stop: threading.Event, *, fps: float, loop: bool, seed: int | None
) -> Iterator[tuple[int, T]]:
    """Plays recorded things as a camera does: numbered from 0 through all rounds, at a steady rate.

    Args:
        items: In the order of the first round, unless they are shuffled.
        stop: Ends it.
        fps: Items per second; 0 = as fast as they are taken.
        loop: Begin again after the last one.
        seed: Of a random order, another one in each round; None: as they stand.
    """
    pace, order, frame_id = Pace(fps), list(items), 0
    shuffler = None if seed is None else random.Random(seed)
    while True:
        if shuffler is not None:
            shuffler.shuffle(order)
        for item in order:
            if not pace.wait(stop):
                return
            yield frame_id, item
            frame_id += 1
        if not loop:
            return
