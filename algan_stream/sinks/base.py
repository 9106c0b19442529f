"""What every sink is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from algan_stream.types import FrameVerdict, VerdictKind


class Sink(ABC):
    """Takes verdicts, one at a time and never two at once, from the pipeline's threads."""

    #: Whether `write` may wait for something outside; it then runs in a thread of its own, see `outlet.py`.
    waits: ClassVar[bool] = False
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

    def tick(self) -> None:  # noqa: B027  most sinks have nothing to say of themselves
        """A sign of life to the receiver, from the same thread as `write`; an error counts like one there."""

    def close(self) -> None:  # noqa: B027  most sinks hold nothing back
        """Writes out what is held back. May be called twice."""
