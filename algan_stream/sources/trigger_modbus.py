"""Triggers from a PLC by Modbus TCP, with handshake and part id.

The PLC is the server; everything lies in its holding registers, from `address` on (big-endian words):

| register | written by | holds |
|---|---|---|
| 0 | PLC | number of the trigger, 1 to 65535, then 1 again; 0: there was none yet |
| 1 to 16 | PLC | part_id, at most 32 bytes of UTF-8, then zeros |
| 17 | us | number of the trigger that was served |
| 18 | us | 1: its picture is taken, the part may move on; 2: there is no picture |

The PLC writes the part id first and the number last, and gives no new trigger before register 17 has its
number. With `coil`, that coil going on is the trigger instead of register 0, and we put it off when the part
may move on. A trigger that was given while nobody listened is answered with 2, and its part is `unknown`.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from algan_stream.endpoints import is_loopback
from algan_stream.errors import ConfigError
from algan_stream.ranges import check_ranges
from algan_stream.sources.base import require
from algan_stream.sources.link import Backoff, Link
from algan_stream.sources.triggers import Trigger, TriggerPort

NUMBER, PART, SERVED, STATE = 0, 1, 17, 18
TAKEN, NO_PICTURE = 1, 2
_TOP = 65_535
_MISSED = "trigger_missed: it came while the connection to the PLC was down"


class ModbusTrigger(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="modbus"
):
    """Section `trigger` with `kind: modbus`.

    Attributes:
        host: The PLC's address.
        port: Its port.
        device_id: Unit that the PLC expects, 0 to 255.
        address: First of the 19 holding registers.
        coil: Coil that triggers, instead of register 0; None: the register.
        poll_ms: Between two looks; a trigger is seen so much later at most.
        timeout_s: Longest wait for the connection and for an answer.
        insecure: Allow a PLC on another host: Modbus TCP has neither encryption nor passwords, so that nobody
            else may reach the network between.
    """

    host: str
    port: int = 502
    device_id: int = 1
    address: int = 0
    coil: int | None = None
    poll_ms: float = 2.0
    timeout_s: float = 1.0
    insecure: bool = False

    def __post_init__(self) -> None:
        check_ranges(
            ("port", self.port, 1, 65_535),
            ("device_id", self.device_id, 0, 255),
            ("address", self.address, 0, 65_535 - STATE),
            ("coil", self.coil or 0, 0, 65_535),
            ("poll_ms", self.poll_ms, 0.5, 1000),
            ("timeout_s", self.timeout_s, 0.01, 60),
        )


class ModbusPort(TriggerPort):
    """Asks the PLC again and again; all its traffic is of the thread that listens.

    Args:
        config: The section.
        camera: Whose trigger it is.

    Raises:
        ConfigError: The PLC is on another host, and the section does not accept that.
        PluginError: pymodbus is not installed.
    """

    def __init__(self, config: ModbusTrigger, camera: str) -> None:
        require("pymodbus.client", "modbus")
        super().__init__()
        if not (config.insecure or is_loopback(config.host)):
            raise ConfigError(
                f"trigger.host: {config.host} is another host, and Modbus TCP has neither encryption nor "
                "passwords; close the network between, and write `insecure: true` to accept that"
            )
        self._config = config
        self.link = Link(f"{camera}.trigger", f"trigger of camera {camera}")
        self.links = (self.link,)
        self._closing = threading.Event()
        self._client: Any = None
        self._seen: int | None = None  # the last trigger that was taken; None before the first look
        self._fresh = True
        self._served: tuple[int, int] | None = None  # to be written
        self._busy = False

    def listen(self, stop: threading.Event, take: Callable[[Trigger], bool]) -> None:
        """Polls until `close`; while the PLC does not answer, connects anew."""
        backoff = Backoff(0.1, 1.0)
        while not self._closing.is_set():
            try:
                self._connect()
                self._report()
                if not (stop.is_set() or self._busy):
                    self._look(take)
                self.link.up()
                backoff.reset()
                self._closing.wait(self._config.poll_ms / 1e3)
            except Exception as error:  # noqa: BLE001  pymodbus raises anything
                self.link.down(f"{self._config.host}:{self._config.port}: {error}")
                self._disconnect()
                self._closing.wait(backoff.next_s())
        try:
            self._report()
        except Exception:  # noqa: BLE001  the PLC is gone: it sees that register 17 stands still
            pass
        finally:
            self._disconnect()

    def close(self) -> None:
        """Ends `listen`."""
        self._closing.set()

    def _look(self, take: Callable[[Trigger], bool]) -> None:
        # The coil first: the PLC sets it once the part id stands there, so that what is read after it is new.
        fired = self._config.coil is not None and self._coil_is_on()
        words = self._registers()
        number = words[NUMBER]
        if self._config.coil is not None:
            number = (self._seen or 0) % _TOP + 1 if fired else self._seen or 0
        elif self._seen is None:
            self._seen = words[SERVED]
        fresh, self._fresh = self._fresh, False
        if number in (0, self._seen):
            return
        lost = (number - (self._seen or 0) - 1) % _TOP
        if self._seen and lost:  # without a number served before, the PLC may begin anywhere
            self.missed(lost)
        self._seen, self._busy = number, True
        fault = _MISSED if fresh else ""
        trigger = Trigger(
            _part_id(words), time.monotonic_ns(), fault, taken=lambda good: self._serve(number, good)
        )
        if not take(trigger):
            self._serve(number, False)
            self.missed(1)

    def _serve(self, number: int, good: bool) -> None:
        """From the source's thread: the listening one writes it."""
        self._served = (number, TAKEN if good else NO_PICTURE)

    def _report(self) -> None:
        if self._served is None:
            return
        number, state = self._served
        self._check(self._client.write_registers(self._at(STATE), [state], device_id=self._config.device_id))
        self._check(
            self._client.write_registers(self._at(SERVED), [number], device_id=self._config.device_id)
        )
        if self._config.coil is not None:
            answer = self._client.write_coil(self._config.coil, False, device_id=self._config.device_id)
            self._check(answer)
        self._served, self._busy = None, False

    def _registers(self) -> list[int]:
        answer = self._client.read_holding_registers(
            self._at(0), count=STATE + 1, device_id=self._config.device_id
        )
        self._check(answer)
        words: list[int] = answer.registers
        return words

    def _coil_is_on(self) -> bool:
        answer = self._client.read_coils(self._config.coil, count=1, device_id=self._config.device_id)
        self._check(answer)
        return bool(answer.bits[0])

    def _at(self, register: int) -> int:
        return self._config.address + register

    def _check(self, answer: Any) -> None:
        if answer.isError():
            raise ConnectionError(f"the PLC refuses: {answer}")

    def _connect(self) -> None:
        if self._client is not None:
            return
        from pymodbus.client import ModbusTcpClient

        config = self._config
        client: Any = ModbusTcpClient(config.host, port=config.port, timeout=config.timeout_s, retries=0)
        if not client.connect():
            raise ConnectionError("no PLC answers")
        self._client, self._fresh = client, True

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _part_id(words: list[int]) -> str:
    raw = struct.pack(">16H", *words[PART : PART + 16])
    return raw.rstrip(b"\0").decode("utf-8", "replace")
