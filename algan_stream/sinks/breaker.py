"""A circuit breaker: who failed several times in a row is left alone, and only tried now and then."""

from __future__ import annotations

import random
from typing import Literal, TypeAlias

Circuit: TypeAlias = Literal["closed", "open", "half_open"]


class Breaker:
    """Says how long to wait after each failure, and what state the circuit is in; for one thread.

    `closed` → `open` after `open_after` failures in a row → `half_open` while one attempt is made →
    `closed` if it succeeds, `open` for longer if not.

    Args:
        open_after: Failures in a row that open the circuit.
        first_s: Wait after the first failure; it doubles with each further one.
        most_s: Longest wait.
    """

    def __init__(self, open_after: int, first_s: float, most_s: float) -> None:
        self._open_after, self._first_s, self._most_s = open_after, first_s, most_s
        self.state: Circuit = "closed"
        #: Failures since the last success.
        self.failures = 0

    def begin(self) -> None:
        """An attempt begins."""
        if self.state == "open":
            self.state = "half_open"

    def failed(self) -> float:
        """It failed; returns how many seconds to wait before the next."""
        self.failures += 1
        if self.failures >= self._open_after:
            self.state = "open"
        doubled_s = self._first_s * 2.0 ** min(self.failures - 1, 30)
        # Not to the second: many lines would else come back to one receiver all at once.
        return min(self._most_s, doubled_s) * random.uniform(0.5, 1.0)

    def succeeded(self) -> int:
        """It succeeded; returns how many failed before."""
        failures, self.failures, self.state = self.failures, 0, "closed"
        return failures
