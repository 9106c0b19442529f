"""The connection to a camera: when it is tried again, whether pictures are missing, what its clock says."""

from __future__ import annotations

import logging
import random
import time

log = logging.getLogger(__name__)

#: A camera's clock is compared with ours over the last one or two of these spans.
_WINDOW_NS = 30_000_000_000
#: A picture cannot be older than this when it arrives; if it seems so, the camera's clock was set.
_OLDEST_NS = 60_000_000_000


class Link:
    """Whether a camera's pictures come; written by its source's thread, read by any.

    Every change is logged once, not every attempt.

    Args:
        name: In metrics; the camera's.
        what: In messages.

    Attributes:
        connected: Whether pictures come, or could.
        since: `time.monotonic()` of the last change.
        reconnects: How often they came again after they had stopped.
        error: Why they do not come; empty while they do.
    """

    def __init__(self, name: str, what: str = "") -> None:
        self.name = name
        self._what = what or f"camera {name}"
        self.connected, self.reconnects, self.error = False, 0, "not connected yet"
        self.since = time.monotonic()
        self._was_up = self._told = False

    def up(self) -> None:
        """Pictures come."""
        if self.connected:
            return
        away_s = time.monotonic() - self.since
        self.reconnects += self._was_up
        log.info(
            "%s: %s",
            self._what,
            f"is back after {away_s:.1f} s" if self._was_up or self._told else "is connected",
            extra={"camera": self.name},
        )
        self.connected, self.error, self.since = True, "", time.monotonic()
        self._was_up, self._told = True, False

    def down(self, reason: str) -> None:
        """They do not; the first reason is logged, later ones only kept."""
        if self.connected:
            self.connected, self.since = False, time.monotonic()
        self.error = reason
        if not self._told:
            self._told = True
            about = {"camera": self.name}
            log.warning("%s: %s; trying again until it is back", self._what, reason, extra=about)

    def problem(self) -> str:
        """What an operator has to know; empty if all is well."""
        if self.connected:
            return ""
        return f"{self._what}: away for {time.monotonic() - self.since:.0f} s: {self.error}"


class Backoff:
    """Waits between attempts: each twice the one before, cut by chance so that cameras do not come in step.

    Args:
        first_s: The first wait.
        most_s: The longest.
    """

    def __init__(self, first_s: float, most_s: float) -> None:
        self._first_s, self._most_s = first_s, most_s
        self._attempts = 0
        self._random = random.Random()

    def next_s(self) -> float:
        """Half of the full wait to all of it."""
        full_s = min(self._most_s, self._first_s * 2.0 ** min(self._attempts, 30))
        self._attempts += 1
        return full_s * self._random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """A picture came: the next wait is the first again."""
        self._attempts = 0


class Gaps:
    """Finds pictures that a camera numbered and we never saw.

    Args:
        wrap: First and last number before the counter starts again; None: it goes on for ever.
    """

    def __init__(self, wrap: tuple[int, int] | None = None) -> None:
        self._wrap = wrap
        self._last: int | None = None

    def lost_before(self, number: int | None) -> int:
        """How many are missing between the last picture and this one.

        A counter that goes back was started again, by the camera; how many were lost then nobody knows.
        """
        last, self._last = self._last, number
        if number is None or last is None:
            return 0
        step = number - last
        if self._wrap is not None:
            first, top = self._wrap
            span = top - first + 1
            step %= span
            if step > span // 2:
                return 0
        return max(0, step - 1)


class CameraClock:
    """Brings a camera's own time onto this host's clock.

    A camera knows exactly how far apart two exposures were, and the host when each picture arrived. The
    picture that came fastest in the last minute tells how the two clocks lie to each other; one that was
    held up on its way is then known to be older than its arrival says. What even the fastest needed cannot
    be seen, and is not taken off.
    """

    def __init__(self) -> None:
        self._before: int | None = None
        self._now: int | None = None
        self._began_ns = 0

    def captured_ns(self, camera_ns: int, arrived_ns: int) -> int:
        """When the picture was taken.

        Args:
            camera_ns: By the camera's clock, from any beginning.
            arrived_ns: `time.monotonic_ns()` when it arrived.

        Returns:
            `time.monotonic_ns()` of its capture, never after its arrival.
        """
        offset = arrived_ns - camera_ns
        known = [value for value in (self._before, self._now) if value is not None]
        if known and offset - min(known) > _OLDEST_NS:
            self._before = self._now = None
        if self._now is None or arrived_ns - self._began_ns > _WINDOW_NS:
            self._before, self._now, self._began_ns = self._now, offset, arrived_ns
        self._now = min(self._now, offset)
        best = self._now if self._before is None else min(self._before, self._now)
        return camera_ns + best
