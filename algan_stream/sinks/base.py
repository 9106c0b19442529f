"""What every sink is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from algan_stream.types import FrameVerdict


class Sink(ABC):
    """Takes verdicts, one at a time and never two at once, from the pipeline's threads."""

    #: Whether `write` may wait for something outside; it then runs in a thread of its own, see `outlet.py`.
    waits: ClassVar[bool] = False
    #: How often its outlet calls `tick` while there is nothing to write; None: never.
    tick_s: float | None = None

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
