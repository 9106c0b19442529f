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

How and when they are written is `handshake.py`'s business.
"""

from __future__ import annotations

import logging
import struct
from typing import Any, Literal

import msgspec

from algan_stream.endpoints import is_loopback, require_plain_host
from algan_stream.errors import ConfigError
from algan_stream.ranges import check_ranges
from algan_stream.sinks.base import Sink
from algan_stream.sinks.handshake import CODES, PlcSink, score_of, short_part_id
from algan_stream.types import FrameVerdict

HEARTBEAT, STATUS, SEQUENCE, VERDICT, ACKNOWLEDGED = 0, 1, 2, 3, 24
READY, BUSY, VALID = 1, 2, 4
_PART_ID_BYTES = 32


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
        check_ranges(
            ("port", self.port, 1, 65_535),
            ("device_id", self.device_id, 0, 255),
            ("address", self.address, 0, 65_535 - ACKNOWLEDGED),
            ("max_age_ms", self.max_age_ms, 1, 3_600_000),
            ("acknowledge_ms", self.acknowledge_ms, 1, 60_000),
            ("heartbeat_s", self.heartbeat_s, 0.01, 60),
            ("timeout_s", self.timeout_s, 0.01, 60),
        )


class ModbusSink(PlcSink):
    """A client of the PLC, which is the server."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._settings = config
        self._client: Any = None

    def connect(self) -> None:
        """Connects.

        Raises:
            ConnectionError: No PLC answers.
        """
        from pymodbus.client import ModbusTcpClient

        config = self._settings
        client: Any = ModbusTcpClient(config.host, port=config.port, timeout=config.timeout_s, retries=0)
        if not client.connect():
            raise ConnectionError(f"{config.host}:{config.port}: no PLC answers")
        self._client = client

    def disconnect(self) -> None:
        """Ends the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def put_status(self, *, ready: bool, busy: bool, valid: bool) -> None:
        """Writes register 1."""
        self._put(STATUS, [READY * ready | BUSY * busy | VALID * valid])

    def put_verdict(self, sequence: int, verdict: FrameVerdict) -> None:
        """Writes registers 2 to 23."""
        self._put(SEQUENCE, [sequence, CODES[verdict.verdict], *_details(verdict)])

    def put_heartbeat(self, beat: int) -> None:
        """Writes register 0."""
        self._put(HEARTBEAT, [beat])

    def acknowledged(self) -> int:
        """Reads register 24."""
        register = self._settings.address + ACKNOWLEDGED
        answer = self._client.read_holding_registers(register, count=1, device_id=self._settings.device_id)
        if answer.isError():
            raise ConnectionError(f"the PLC refuses register {register}: {answer}")
        value: int = answer.registers[0]
        return value

    def _put(self, register: int, values: list[int]) -> None:
        register += self._settings.address
        answer = self._client.write_registers(register, values, device_id=self._settings.device_id)
        if answer.isError():
            raise ConnectionError(f"the PLC refuses register {register}: {answer}")


def create(config: Config) -> Sink:
    """Makes the sink; it connects from its own thread, so that the PLC may start later.

    Raises:
        ConfigError: The PLC is on another host, and the section does not accept that.
        ModuleNotFoundError: pymodbus is not installed.
    """
    import pymodbus.client  # noqa: F401  missing, it shall be said at the start

    # What it has to say comes as an error as well, and the outlet tells that once, not at each attempt.
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
    require_plain_host(config.host)
    if not (config.insecure or is_loopback(config.host)):
        raise ConfigError(
            f"host: {config.host} is another host, and Modbus TCP has neither encryption nor passwords; "
            "close the network between, and write `insecure: true` to accept that"
        )
    return ModbusSink(config)


def _details(verdict: FrameVerdict) -> list[int]:
    part = short_part_id(verdict, _PART_ID_BYTES).ljust(_PART_ID_BYTES, b"\0")
    raw = struct.pack(">fI", score_of(verdict), verdict.frame_id & 0xFFFFFFFF) + part
    return list(struct.unpack(f">{len(raw) // 2}H", raw))
