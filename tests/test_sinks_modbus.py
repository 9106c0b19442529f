"""The PLC sink against a real Modbus TCP server, with a PLC's program that reads and acknowledges."""

from __future__ import annotations

import asyncio
import math
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from algan_stream.errors import ConfigError
from algan_stream.sinks.modbus import ACKNOWLEDGED, BUSY, HEARTBEAT, READY, STATUS, VALID, Config
from algan_stream.sinks.outlet import Outlet, open_sink
from algan_stream.types import BoxVerdict, FrameVerdict, Outcome, VerdictKind
from servers import free_port, wait_for

pytest.importorskip("pymodbus")

_BASE = 100


class Plc:
    """A Modbus server; its program takes each valid verdict, as a PLC's cycle does."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.took: list[list[int]] = []
        self.acknowledges = True
        self.beats: list[int] = []
        self.words: list[int] = []
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._stop = threading.Event()
        self._thread.start()
        assert self._started.wait(20)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(20)

    @property
    def status(self) -> int:
        """As it was at the end of the last cycle."""
        return self.words[STATUS]

    async def _serve(self) -> None:
        from pymodbus.server import ModbusTcpServer
        from pymodbus.simulator import DataType, SimData, SimDevice

        registers = SimData(_BASE, count=ACKNOWLEDGED + 1, values=0, datatype=DataType.REGISTERS)
        server = ModbusTcpServer(SimDevice(1, [registers]), address=("127.0.0.1", self.port))
        await server.listen()
        while not self._stop.is_set():
            await asyncio.sleep(0.001)
            await self._cycle(server)
            self._started.set()
        await self._cycle(server)
        await server.shutdown()

    async def _cycle(self, server: Any) -> None:
        self.words = await server.async_getValues(1, 3, _BASE, ACKNOWLEDGED + 1)
        words = self.words
        if not self.beats or self.beats[-1] != words[HEARTBEAT]:
            self.beats.append(words[HEARTBEAT])
        if self.acknowledges and words[STATUS] & VALID and words[2] != words[ACKNOWLEDGED]:
            self.took.append(words)
            await server.async_setValues(1, 16, _BASE + ACKNOWLEDGED, [words[2]])


@pytest.fixture
def plc() -> Iterator[Plc]:
    made = Plc(free_port())
    yield made
    made.stop()


def _open(port: int, **more: Any) -> Outlet:
    delivery = {"retry_first_s": 0.02, "retry_most_s": 0.1, "drain_s": more.pop("drain_s", 10.0)}
    section = {"kind": "modbus", "host": "127.0.0.1", "port": port, "address": _BASE, "heartbeat_s": 0.05}
    sink = open_sink({**section, **more, "delivery": delivery}, "sinks[0]")
    assert isinstance(sink, Outlet)
    return sink


def _verdict(frame_id: int, kind: VerdictKind = VerdictKind.PASS, **more: Any) -> FrameVerdict:
    score = None if kind is VerdictKind.UNKNOWN else -0.5 + frame_id
    box = BoxVerdict(verdict=kind, score=score)
    more.setdefault("captured_ns", time.time_ns())
    return FrameVerdict(
        camera="cam", frame_id=frame_id, verdict=kind, boxes=(box,), outcome=Outcome.SCORED, **more
    )


def test_every_verdict_is_taken_once_and_in_order(plc: Plc) -> None:
    sink = _open(plc.port, max_age_ms=60_000)
    kinds = [VerdictKind.PASS, VerdictKind.REJECT, VerdictKind.UNKNOWN]
    for i in range(30):
        sink.write(_verdict(i, kinds[i % 3], part_id=f"A-{i:04d}"))
    sink.close()
    assert [words[2] for words in plc.took] == list(range(1, 31))
    assert [words[3] for words in plc.took] == [1, 2, 0] * 10
    for i, words in enumerate(plc.took):
        score, frame_id = struct.unpack(">fI", struct.pack(">4H", *words[4:8]))
        assert frame_id == i
        assert math.isnan(score) if i % 3 == 2 else score == -0.5 + i
        assert struct.pack(">16H", *words[8:24]).rstrip(b"\0") == f"A-{i:04d}".encode()
        assert words[STATUS] == READY | BUSY | VALID
    plc.stop()
    assert plc.status == 0  # at the end it is not ready any more
    assert sink.counts().delivered == 30


def test_the_heart_beats_without_a_verdict(plc: Plc) -> None:
    sink = _open(plc.port)
    wait_for(lambda: len(plc.beats) >= 6)
    assert plc.status == READY
    sink.close()
    assert plc.beats[1:6] == [1, 2, 3, 4, 5]


def test_a_plc_that_does_not_acknowledge(plc: Plc) -> None:
    plc.acknowledges = False
    sink = _open(plc.port, acknowledge_ms=30, max_age_ms=60_000)
    sink.write(_verdict(0))
    sink.write(_verdict(1, VerdictKind.REJECT))
    wait_for(lambda: sink.counts().failures >= 3)
    assert sink.counts().delivered == 0
    plc.acknowledges = True
    wait_for(lambda: sink.counts().delivered == 2)
    assert [words[3] for words in plc.took] == [1, 2]
    sink.close()


def test_a_late_verdict_is_never_shown(plc: Plc) -> None:
    """Nor one that seems to come from the future, because the clock was set back while it waited."""
    sink = _open(plc.port, max_age_ms=20_000)
    sink.write(_verdict(0, captured_ns=time.time_ns() - 10**11))
    sink.write(_verdict(1, VerdictKind.REJECT, captured_ns=time.time_ns()))
    sink.write(_verdict(2, captured_ns=time.time_ns() + 10**11))
    wait_for(lambda: sink.counts().delivered + sink.counts().refused == 3)
    assert [words[3] for words in plc.took] == [2]
    assert sink.counts().refused == 2
    sink.close()


def test_a_plc_that_goes_and_comes_back(plc: Plc) -> None:
    sink = _open(plc.port, max_age_ms=60_000)
    sink.write(_verdict(0))
    wait_for(lambda: sink.counts().delivered == 1)
    plc.stop()
    sink.write(_verdict(1))
    wait_for(lambda: sink.counts().failures >= 2)
    again = Plc(plc.port)
    wait_for(lambda: sink.counts().delivered == 2)
    assert [words[3] for words in again.took] == [1]
    sink.close()
    again.stop()


def test_another_host_must_be_accepted_in_words() -> None:
    section = {"kind": "modbus", "host": "plc.plant"}
    with pytest.raises(ConfigError, match=r"host: plc\.plant is another host"):
        open_sink(section, "sinks[0]")
    open_sink({**section, "insecure": True, "delivery": {"drain_s": 0}}, "sinks[0]").close()


def test_other_cameras_are_not_its_business(plc: Plc) -> None:
    sink = _open(plc.port, camera="other")
    sink.write(_verdict(0))
    sink.close()
    assert plc.took == []


@pytest.mark.parametrize(
    "wrong", [{"port": 0}, {"address": 65_530}, {"acknowledge_ms": 0}, {"device_id": 256}, {"max_age_ms": 0}]
)
def test_numbers_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
        Config(kind="modbus", host="h", **wrong)
