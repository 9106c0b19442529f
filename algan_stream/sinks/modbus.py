"""Tells a PLC by Modbus TCP, with handshake, heartbeat and a bit that says whether a verdict is valid.

The PLC is the server; everything lies in its holding registers, from `address` on (big-endian words):

| register | written by | holds |
|---|---|---|
| 0 | us | heartbeat: goes up every `heartbeat_s`; standing still, nobody is at work |
| 1 | us | bit 0 ready, bit 1 busy (a verdict waits for its acknowledgement), bit 2 verdict valid |
| 2 | us | sequence of the verdict, 1 to 65535, then 1 again |
| 3 | us | 0 unknown, 1 pass, 2 reject |
| 4, 5 | us | score, float32; NaN: none |
| 6, 7 | us | frame_id, lowest 32 bits |
| 8 to 23 | us | part_id, at most 32 bytes of UTF-8, then zeros |
| 24 | PLC | acknowledgement: the sequence that it has taken |

A verdict is written while bit 2 is off, and bit 2 set last. The PLC reads it when the bit is on and writes
its sequence to register 24; the bit goes off again. A verdict older than `max_age_ms` is never written: to
the PLC that part has none, which it must treat like a reject.
"""

from __future__ import annotations

import math
import struct
import time
from typing import Any, ClassVar, Literal

import msgspec

from algan_stream.endpoints import is_loopback
from algan_stream.errors import ConfigError, SinkRefusedError
from algan_stream.sinks.base import Sink
from algan_stream.types import FrameVerdict, VerdictKind

HEARTBEAT, STATUS, SEQUENCE, VERDICT, ACKNOWLEDGED = 0, 1, 2, 3, 24
READY, BUSY, VALID = 1, 2, 4
CODES = {VerdictKind.UNKNOWN: 0, VerdictKind.PASS: 1, VerdictKind.REJECT: 2}
_PART_ID_BYTES = 32
#: Between two looks for the acknowledgement; a PLC's cycle takes some milliseconds.
_GLANCE_S = 0.002


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sink with `kind: modbus`.

    Attributes:
        host: The PLC's address.
        port: Its port.
        device_id: Unit that the PLC expects, 0 to 255.
        address: First of the 25 holding registers.
        camera: Only this camera's verdicts; None: all.
        max_age_ms: A verdict that is older, counted from the frame's capture, is not written.
        acknowledge_ms: Longest wait for the PLC's acknowledgement; then the verdict is written again.
        heartbeat_s: Between two beats.
        timeout_s: Longest wait for the connection and for an answer.
        insecure: Allow a PLC on another host: Modbus TCP has neither encryption nor passwords, so that nobody
            else may reach the network between.
    """

    kind: Literal["modbus"]
    host: str
    port: int = 502
    device_id: int = 1
    address: int = 0
    camera: str | None = None
    max_age_ms: float = 1000.0
    acknowledge_ms: float = 200.0
    heartbeat_s: float = 0.5
    timeout_s: float = 1.0
    insecure: bool = False

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("port", self.port, 1, 65_535),
            ("device_id", self.device_id, 0, 255),
            ("address", self.address, 0, 65_535 - ACKNOWLEDGED),
            ("max_age_ms", self.max_age_ms, 1, 3_600_000),
            ("acknowledge_ms", self.acknowledge_ms, 1, 60_000),
            ("heartbeat_s", self.heartbeat_s, 0.01, 60),
            ("timeout_s", self.timeout_s, 0.01, 60),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name}: expected {low:g} to {high:g}, got {value:g}")


class ModbusSink(Sink):
    """The only writer of its registers; runs in its outlet's thread alone."""

    waits: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        self._config = config
        self.tick_s = config.heartbeat_s
        self._client: Any = None
        self._sequence = 0
        self._beat = 0
        self._last_beat = 0.0

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
        if age_ms > self._config.max_age_ms:
            raise SinkRefusedError(
                f"frame {verdict.frame_id} of {verdict.camera} is {age_ms:.0f} ms old, more than "
                f"{self._config.max_age_ms:g}; the PLC gets no verdict for it"
            )
        sequence = self._sequence % 65_535 + 1
        self._put(STATUS, [READY | BUSY])
        self._put(SEQUENCE, [sequence, CODES[verdict.verdict], *_details(verdict)])
        self._put(STATUS, [READY | BUSY | VALID])
        try:
            self._await_acknowledgement(sequence)
        finally:
            self._put(STATUS, [READY])
        self._sequence = sequence

    def tick(self) -> None:
        """Connects if need be, and beats."""
        self._connect()
        now = time.monotonic()
        if now - self._last_beat >= 0.9 * self._config.heartbeat_s:
            self._beat, self._last_beat = (self._beat + 1) % 65_536, now
            self._put(HEARTBEAT, [self._beat])

    def close(self) -> None:
        """Takes back `ready`, if the PLC still answers, and ends the connection."""
        client, self._client = self._client, None
        if client is None:
            return
        try:
            client.write_registers(self._config.address + STATUS, [0], device_id=self._config.device_id)
        except Exception:  # noqa: BLE001  it is gone; its heartbeat has stopped, which says the same
            pass
        finally:
            client.close()

    def _connect(self) -> None:
        if self._client is not None:
            return
        from pymodbus.client import ModbusTcpClient

        config = self._config
        client: Any = ModbusTcpClient(config.host, port=config.port, timeout=config.timeout_s, retries=0)
        if not client.connect():
            raise ConnectionError(f"{config.host}:{config.port}: no PLC answers")
        self._client = client
        # Goes on from what the PLC took last, so that an old acknowledgement is none of ours.
        self._sequence = int(self._get(ACKNOWLEDGED))
        self._put(STATUS, [READY])

    def _await_acknowledgement(self, sequence: int) -> None:
        give_up = time.monotonic() + self._config.acknowledge_ms / 1e3
        while self._get(ACKNOWLEDGED) != sequence:
            self.tick()
            if time.monotonic() > give_up:
                raise TimeoutError(f"no acknowledgement within {self._config.acknowledge_ms:g} ms")
            time.sleep(_GLANCE_S)

    def _put(self, register: int, values: list[int]) -> None:
        answer = self._client.write_registers(
            self._config.address + register, values, device_id=self._config.device_id
        )
        if answer.isError():
            raise ConnectionError(f"the PLC refuses register {self._config.address + register}: {answer}")

    def _get(self, register: int) -> int:
        answer = self._client.read_holding_registers(
            self._config.address + register, count=1, device_id=self._config.device_id
        )
        if answer.isError():
            raise ConnectionError(f"the PLC refuses register {self._config.address + register}: {answer}")
        value: int = answer.registers[0]
        return value


def create(config: Config) -> ModbusSink:
    """Makes the sink; it connects from its own thread, so that the PLC may start later.

    Raises:
        ConfigError: The PLC is on another host, and the section does not accept that.
        ModuleNotFoundError: pymodbus is not installed.
    """
    import pymodbus.client  # noqa: F401  missing, it shall be said at the start

    if not (config.insecure or is_loopback(config.host)):
        raise ConfigError(
            f"host: {config.host} is another host, and Modbus TCP has neither encryption nor passwords; "
            "close the network between, and write `insecure: true` to accept that"
        )
    return ModbusSink(config)


def _details(verdict: FrameVerdict) -> list[int]:
    scores = [box.score for box in verdict.boxes if box.score is not None]
    score = verdict.fused_score if verdict.fused_score is not None else max(scores, default=math.nan)
    part = verdict.part_id.encode()[:_PART_ID_BYTES].ljust(_PART_ID_BYTES, b"\0")
    raw = struct.pack(">fI", score, verdict.frame_id & 0xFFFFFFFF) + part
    return list(struct.unpack(f">{len(raw) // 2}H", raw))
