"""What every sink is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from algan_stream.types import FrameVerdict


class Sink(ABC):
    """Takes verdicts, one at a time and never two at once, from the pipeline's threads."""

    @abstractmethod
    def write(self, verdict: FrameVerdict) -> None:
        """Takes one verdict; must return quickly. An error is logged, counted and harms no other sink."""

    def close(self) -> None:  # noqa: B027  most sinks hold nothing back
        """Writes out what is held back. May be called twice."""
