"""Verdicts on their way to the sinks."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence

from algan_stream.sinks.base import Sink
from algan_stream.types import Frame, FrameVerdict

log = logging.getLogger(__name__)


class Outgoing:
    """Hands each verdict to every sink that wants it; one that fails harms no other.

    To be called by one thread at a time.

    Args:
        sinks: Closed by the caller.
    """

    def __init__(self, sinks: Sequence[Sink] = ()) -> None:
        #: How often a verdict could not be handed over.
        self.errors = 0
        self._failures: Counter[str] = Counter()  # the same, by sink
        self._sinks: tuple[Sink, ...] = ()
        self.use(sinks)

    def use(self, sinks: Sequence[Sink]) -> None:
        """Hands verdicts to these from now on; safe from any thread."""
        # Those that copy pixels come last, so that no other receiver waits for it.
        self._sinks = tuple(sorted(sinks, key=lambda sink: sink.wants_frames))

    def write(self, said: FrameVerdict, frame: Frame | None = None) -> None:
        """Hands one over; with the frame it is on, unless it is on a part, which has no pixels of its own."""
        for sink in self._sinks:
            if not sink.wants(said):
                continue
            if not sink.wants_frames:
                self.deliver(sink.write, said)
            elif frame is not None:
                self.deliver(sink.write_frame, said, frame)

    def deliver(self, write: Callable[..., None], said: FrameVerdict, *before: Frame) -> None:
        """Calls one receiver; what it raises is counted, and told of less and less often."""
        try:
            write(*before, said)
        except Exception:
            self.errors += 1
            to = type(getattr(write, "__self__", write)).__name__
            self._failures[to] += 1
            if (times := str(self._failures[to])).strip("0") == "1":  # a full disk must not fill the log too
                about = {"camera": said.camera, "frame": said.frame_id}
                text = "a verdict of camera %s could not be delivered to %s, number %s of them"
                log.exception(text, said.camera, to, times, extra=about)
