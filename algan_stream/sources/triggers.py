"""What tells a `triggered` source to take a picture."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from algan_stream.sources.link import Link
from algan_stream.types import FrameVerdict


@dataclass(slots=True)
class Trigger:
    """One part that wants its picture, and so a verdict.

    Attributes:
        part_id: The caller's name for it.
        at_ns: `time.monotonic_ns()` when the trigger came.
        fault: Why no picture is to be taken any more; the part gets its `unknown` all the same.
        verdict: Called with the verdict, from the pipeline's thread.
        taken: Called when the picture is there (True) or cannot be had (False): the part may move on.
    """

    part_id: str
    at_ns: int = field(default_factory=time.monotonic_ns)
    fault: str = ""
    verdict: Callable[[FrameVerdict], None] | None = None
    taken: Callable[[bool], None] | None = None


class TriggerPort(ABC):
    """Where triggers come from.

    Attributes:
        links: Its connection, where it has one that can be lost.
        missed: Called with the number of triggers that were lost before they came here.
    """

    links: tuple[Link, ...] = ()

    def __init__(self) -> None:
        self.missed: Callable[[int], None] = lambda count: None

    @abstractmethod
    def listen(self, stop: threading.Event, take: Callable[[Trigger], bool]) -> None:
        """Hands over triggers until `close`; those that come after `stop` are refused.

        Runs in a thread of its own. `take` returns False where too many wait already.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends `listen`, after the last verdict."""
