"""How a verdict is handed to a PLC by any protocol: ready, busy, valid, sequence, acknowledgement, heartbeat.

A verdict is written while `valid` is off, and `valid` set last. The PLC reads it when that is on, and writes
its sequence back as the acknowledgement; `valid` goes off again. A verdict older than `max_age_ms` is never
written: to the PLC that part has none, which it must treat like a reject.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from typing import ClassVar, Protocol

from algan_stream.errors import SinkRefusedError
from algan_stream.sinks.base import Sink
from algan_stream.types import FrameVerdict, VerdictKind

CODES = {VerdictKind.UNKNOWN: 0, VerdictKind.PASS: 1, VerdictKind.REJECT: 2}
#: Between two looks for the acknowledgement; a PLC's cycle takes some milliseconds.
_GLANCE_S = 0.002


class HandshakeConfig(Protocol):
    """What the section of any such sink has."""

    @property
    def camera(self) -> str | None:
        """Only this camera's verdicts; None: all."""

    @property
    def max_age_ms(self) -> float:
        """A verdict that is older, counted from the frame's capture, is not written."""

    @property
    def acknowledge_ms(self) -> float:
        """Longest wait for the PLC's acknowledgement; then the verdict is written again."""

    @property
    def heartbeat_s(self) -> float:
        """Between two beats."""


class PlcSink(Sink):
    """The only writer of its registers or nodes; runs in its outlet's thread alone.

    Args:
        config: How long to wait for what.
    """

    waits: ClassVar[bool] = True
    #: Beat and sequence count to this, then the one begins again with 0, the other with 1.
    highest: ClassVar[int] = 65_535

    def __init__(self, config: HandshakeConfig) -> None:
        self._config = config
        self.tick_s = config.heartbeat_s
        self._sequence = 0
        self._beat = 0
        self._last_beat = 0.0
        self._connected = False

    @abstractmethod
    def connect(self) -> None:
        """Connects.

        Raises:
            ConnectionError: There is no PLC, or not what it should have.
        """

    @abstractmethod
    def disconnect(self) -> None:
        """Ends the connection; a PLC that does not answer any more costs no more than a moment."""

    @abstractmethod
    def put_status(self, *, ready: bool, busy: bool, valid: bool) -> None:
        """Writes the three bits."""

    @abstractmethod
    def put_verdict(self, sequence: int, verdict: FrameVerdict) -> None:
        """Writes a verdict and its sequence."""

    @abstractmethod
    def put_heartbeat(self, beat: int) -> None:
        """Writes the beat."""

    @abstractmethod
    def acknowledged(self) -> int:
        """Reads the sequence that the PLC took last."""

    def write(self, verdict: FrameVerdict) -> None:
        """Writes one verdict and waits for the acknowledgement.

        Raises:
            SinkRefusedError: The verdict is too old.
            TimeoutError: There was no acknowledgement in time.
        """
        if self._config.camera not in (None, verdict.camera):
            return
        self.tick()
        age_ms = (time.time_ns() - verdict.captured_ns) / 1e6
        # One from the future has waited while the clock was set back: nobody knows for how long.
        if not abs(age_ms) <= self._config.max_age_ms:
            raise SinkRefusedError(
                f"frame {verdict.frame_id} of {verdict.camera} is {age_ms:.0f} ms old by the clock, over "
                f"{self._config.max_age_ms:g} off; the PLC gets no verdict for it"
            )
        sequence = self._sequence % self.highest + 1
        self.put_status(ready=True, busy=True, valid=False)
        self.put_verdict(sequence, verdict)
        self.put_status(ready=True, busy=True, valid=True)
        try:
            self._await_acknowledgement(sequence)
        finally:
            self.put_status(ready=True, busy=False, valid=False)
        self._sequence = sequence

    def tick(self) -> None:
        """Connects if need be, and beats."""
        if not self._connected:
            self.connect()
            self._connected = True
            # Goes on from what the PLC took last, so that an old acknowledgement is none of ours.
            self._sequence = self.acknowledged()
            self.put_status(ready=True, busy=False, valid=False)
        now = time.monotonic()
        if now - self._last_beat >= 0.9 * self._config.heartbeat_s:
            self._beat, self._last_beat = (self._beat + 1) % (self.highest + 1), now
            self.put_heartbeat(self._beat)

    def close(self) -> None:
        """Takes back `ready`, if the PLC still answers, and ends the connection."""
        if not self._connected:
            return
        self._connected = False
        try:
            self.put_status(ready=False, busy=False, valid=False)
        except Exception:  # noqa: BLE001  it is gone; its heartbeat has stopped, which says the same
            pass
        finally:
            self.disconnect()

    def _await_acknowledgement(self, sequence: int) -> None:
        give_up = time.monotonic() + self._config.acknowledge_ms / 1e3
        while self.acknowledged() != sequence:
            self.tick()
            if time.monotonic() > give_up:
                raise TimeoutError(f"no acknowledgement within {self._config.acknowledge_ms:g} ms")
            time.sleep(_GLANCE_S)


def score_of(verdict: FrameVerdict) -> float:
    """The score that stands for a frame: the fused one, or its boxes' highest; NaN: none."""
    scores = [box.score for box in verdict.boxes if box.score is not None]
    return verdict.fused_score if verdict.fused_score is not None else max(scores, default=math.nan)


def short_part_id(verdict: FrameVerdict, most_bytes: int) -> bytes:
    """The part's name in UTF-8, cut at a character's end if it is longer."""
    return verdict.part_id.encode("utf-8", "replace")[:most_bytes].decode("utf-8", "ignore").encode()
