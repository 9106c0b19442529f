"""What every sink is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

import msgspec

from algan_stream.types import Frame, FrameVerdict, VerdictKind

if TYPE_CHECKING:
    from algan_stream.bundle import Bundle


class Sink(ABC):
    """Takes verdicts, one at a time and never two at once, from the pipeline's threads."""

    #: Whether `write` may wait for something outside; it then runs in a thread of its own, see `outlet.py`.
    waits: ClassVar[bool] = False
    #: Whether it is given the frame with its pixels too: `write_frame` is called instead of `write`.
    wants_frames: ClassVar[bool] = False
    #: How often its outlet calls `tick` while there is nothing to write; None: never.
    tick_s: float | None = None
    #: Verdicts on frames, on parts that were tracked, or both; a sink's key `only`.
    only: Literal["frames", "parts"] | None = None
    #: Whether it also takes verdicts on frames that are to be ignored because they are empty.
    takes_ignored: ClassVar[bool] = False

    def wants(self, verdict: FrameVerdict) -> bool:
        """Whether a verdict is for this sink."""
        if self.only is not None and (verdict.part is not None) is not (self.only == "parts"):
            return False
        ignored = verdict.reason == "empty" and verdict.verdict is VerdictKind.UNKNOWN
        return self.takes_ignored or not ignored

    @abstractmethod
    def write(self, verdict: FrameVerdict) -> None:
        """Takes one verdict. An error is logged, counted and harms no other sink.

        Where it does not wait for anything outside, it must return quickly. Where it does, it returns once
        the receiver has taken the verdict, and raises otherwise: it is then tried again with a new sink.

        Raises:
            SinkRefusedError: The receiver will never take this verdict; it is not tried again.
        """

    def write_frame(self, frame: Frame, verdict: FrameVerdict) -> None:
        """Takes one verdict and the frame it is on; called where `wants_frames`, after all other sinks.

        `frame.image` and `frame.vector` are their source's. They hold what was scored until this returns and
        not a moment longer: a ring in shared memory, or a camera's buffer, is written anew once the verdict
        is out. Copy what is to be kept, change nothing, and return quickly: the client waits for its answer.
        """
        self.write(verdict)

    def use_bundle(self, bundle: Bundle) -> None:  # noqa: B027  most sinks do not care who judged
        """Is told which bundle judges from now on: before the first verdict, and after a swap of models.

        Verdicts of the old one may still come; `FrameVerdict.model` tells.

        Raises:
            AlganError: The sink cannot do with this bundle what its section asks for.
        """

    def tick(self) -> None:  # noqa: B027  most sinks have nothing to say of themselves
        """A sign of life to the receiver, from the same thread as `write`; an error counts like one there."""

    def close(self) -> None:  # noqa: B027  most sinks hold nothing back
        """Writes out what is held back. May be called twice."""


class DeliveryCounts(msgspec.Struct, kw_only=True):
    """What became of the verdicts that a sink was given.

    Attributes:
        delivered: Taken by the receiver, or written.
        waiting: Not yet delivered.
        lost: Fell out of a full queue, could not be written, or were still waiting in memory at the end.
        refused: The receiver said that it will never take them.
        failures: Attempts that failed.
        circuit: `closed`: all is well; `open`: the receiver failed so often that it is only tried now and
            then; `half_open`: it is being tried.
    """

    delivered: int = 0
    waiting: int = 0
    lost: int = 0
    refused: int = 0
    failures: int = 0
    circuit: str = "closed"


class QueuedSink(Sink):
    """A sink with a queue and a thread of its own, which says what became of the verdicts.

    Attributes:
        name: Names it in messages and metrics.
    """

    name: str = "sink"

    @abstractmethod
    def counts(self) -> DeliveryCounts:
        """What became of the verdicts, at this moment."""

    @abstractmethod
    def begin_close(self) -> None:
        """Lets the time for `close` begin, without waiting: several sinks then drain at once."""
