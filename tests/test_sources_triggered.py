"""One picture for each trigger: an emulated Basler camera, a PLC on Modbus TCP, a requester on ZeroMQ."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq
from PIL import Image

from algan_stream.bundle import Bundle
from algan_stream.errors import CameraError, ConfigError
from algan_stream.ledger import Ledger
from algan_stream.sources import triggered
from algan_stream.sources.base import SourceContext
from algan_stream.sources.device import Device, Picture, TriggerMode
from algan_stream.sources.live import LiveConfig, LiveSource
from algan_stream.sources.triggers import Trigger, TriggerPort
from algan_stream.types import Frame
from cameras import Opened, opened
from fakes import ListSink
from lines import get, line_of, running, wait_for
from servers import free_port

#: Emulated Basler cameras use SIGALRM themselves, which the usual way of watching tests takes for its own.
pytestmark = pytest.mark.timeout(60, method="thread")

_BASE, _COIL = 200, 300


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "images").mkdir()
    for i in range(6):
        Image.fromarray(np.full((8, 8), 40 * i, np.uint8)).save(tmp_path / "images" / f"{i}.png")
    return {"kind": "folder", "path": str(tmp_path / "images")}


class Requester:
    """A REQ socket."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self.socket: zmq.Socket[bytes] = self._context.socket(zmq.REQ)
        self.socket.setsockopt(zmq.RCVTIMEO, 20_000)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(endpoint)

    def ask(self, part_id: str) -> dict[str, Any]:
        return self.send(json.dumps({"part_id": part_id}).encode())

    def send(self, body: bytes) -> dict[str, Any]:
        self.socket.send(body)
        answer = self.socket.recv()
        said: dict[str, Any] = (
            msgspec.json.decode(answer) if answer[:1] == b"{" else msgspec.msgpack.decode(answer)
        )
        return said

    def __enter__(self) -> Requester:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)


def _by_zmq(folder: Path, camera: dict[str, Any], **more: Any) -> tuple[dict[str, Any], str]:
    endpoint = f"ipc://{folder / 't'}"
    return {
        "kind": "triggered",
        "camera": camera,
        "trigger": {"kind": "zmq", "bind": endpoint},
        **more,
    }, endpoint


def test_every_request_gets_the_verdict_on_its_own_part(
    bundle: Bundle, tmp_path: Path, images: dict[str, Any]
) -> None:
    section, endpoint = _by_zmq(tmp_path, images)
    sink = ListSink()
    with (
        running(line_of(bundle, section), sink) as service,
        Requester(endpoint) as plc,
        Requester(endpoint) as hmi,
    ):
        answers = [plc.ask(f"A-{i}") for i in range(5)]
        packed = hmi.send(msgspec.msgpack.encode({"part_id": "B-1"}))
        over = plc.ask("A-6")
        assert hmi.send(b"\xc1")["error"] == "malformed"
        assert hmi.send(b'{"part": 1}')["error"] == "malformed"
        assert hmi.send(json.dumps({"part_id": "x" * 300}).encode())["error"] == "malformed"
        assert service.refusals() == {"malformed": 3}
    for i, answer in enumerate([*answers, packed]):
        assert (answer["camera"], answer["frame_id"]) == ("cam0", i)
        assert answer["verdict"] in ("pass", "reject")
    assert [answer["part_id"] for answer in answers] == [f"A-{i}" for i in range(5)]
    assert packed["part_id"] == "B-1"
    assert (over["verdict"], over["reason"]) == ("unknown", "no_image: the recording is over")
    account = service.accounts()["cam0"]
    assert (account.frames.received, account.frames.scored, account.reasons) == (7, 6, {"no_image": 1})
    assert [verdict.part_id for verdict in sink.verdicts] == [*(f"A-{i}" for i in range(5)), "B-1", "A-6"]


def test_an_emulated_camera_takes_one_picture_for_each_part(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("pypylon", reason="pypylon is not installed (extra `pylon`)")
    camera = {
        "kind": "pylon",
        "serial": "0815-0000",
        "trigger": "software",
        "features": {"Width": 64, "Height": 48},
    }
    section, endpoint = _by_zmq(tmp_path, camera, timeout_ms=2000)
    with running(line_of(bundle, section)) as service, Requester(endpoint) as plc:
        wait_for(lambda: service.links()["cam0"].connected)
        answers = [plc.ask(f"A-{i}") for i in range(20)]
    assert [answer["part_id"] for answer in answers] == [f"A-{i}" for i in range(20)]
    assert {answer["verdict"] for answer in answers} <= {"pass", "reject"}
    assert service.accounts()["cam0"].frames.scored == 20
    assert service.refusals() == {}


# ---- pairing, on a scripted camera ----------------------------------------------------------------------


class Shutter(Device):
    """Gives pictures, each of its own grey, as told from outside."""

    def __init__(self, camera: Fake) -> None:
        self._camera = camera

    def grab(self, timeout_s: float) -> Picture | None:
        give_up = time.monotonic() + timeout_s
        while time.monotonic() < give_up:
            if self._camera.due and self._camera.due[0] <= time.monotonic():
                self._camera.due.pop(0)
                return self._camera.next_picture()
            time.sleep(0.002)
        return None

    def trigger(self) -> None:
        if self._camera.refuses:
            raise CameraError("cam:1: is not ready for a trigger")
        delays = self._camera.delays_s.pop(0) if self._camera.delays_s else [0.01]
        self._camera.due += [time.monotonic() + delay for delay in delays]

    def close(self) -> None:
        self._camera.due.clear()  # a new connection owes nothing


class Fake(TriggerPort):
    """A triggered source around a `Shutter`, with triggers from the test."""

    def __init__(self, mode: TriggerMode = "software", **config: Any) -> None:
        super().__init__()
        self.due: list[float] = []
        self.delays_s: list[list[float]] = []
        self.refuses, self._shade, self._closed = False, 0, threading.Event()
        self.ledger, self.stop = Ledger(), threading.Event()
        context = SourceContext("cam", 1000.0, 4, self.ledger, lambda *_: None)
        inner = LiveSource(
            LiveConfig(stale_s=0, retry_s=0.01, retry_most_s=0.02), context, lambda: Shutter(self), mode
        )
        settings = triggered.Config(
            camera={},
            trigger=triggered.ZmqTrigger(bind="ipc:///unused"),
            timeout_ms=600,
            **{"late_ms": 400, **config},
        )
        self.source = triggered.TriggeredSource(settings, context, inner, self)
        self.frames: list[Frame] = []
        self.taken: list[bool] = []
        self._thread = threading.Thread(target=lambda: self.frames.extend(self.source.frames(self.stop)))
        self._thread.start()
        wait_for(lambda: self.source.links[0].connected)

    def next_picture(self) -> Picture:
        self._shade += 1
        return Picture(np.full((4, 4), self._shade, np.uint8), "grey8", (4, 4))

    def listen(self, stop: threading.Event, take: Any) -> None:
        self._take = take
        self._closed.wait()

    def close(self) -> None:
        self._closed.set()

    def fire(self, part_id: str, ago_s: float = 0.0, fault: str = "") -> None:
        at_ns = time.monotonic_ns() - round(ago_s * 1e9)
        assert self._take(Trigger(part_id, at_ns, fault, taken=self.taken.append))

    def shots(self, count: int) -> list[tuple[str, int | str]]:
        """Part and shade, or the fault's code, of what came."""
        wait_for(lambda: len(self.frames) >= count)
        return [
            (frame.part_id, frame.fault.partition(":")[0] or int(frame.image[0, 0])) for frame in self.frames
        ]

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join(10)
        self.source.close()
        assert not self._thread.is_alive()


def test_no_picture_in_time_is_said_and_a_late_one_is_nobodys() -> None:
    """The camera owes A's picture when B comes; B must not get it."""
    with Fake() as camera:
        camera.delays_s = [[5.0]]
        camera.fire("A")
        wait_for(lambda: len(camera.frames) == 1)
        wait_for(lambda: camera.source.links[0].reconnects == 1)
        camera.fire("B")
        camera.fire("C")
        assert camera.shots(3) == [("A", "no_image"), ("B", 1), ("C", 2)]
        assert camera.taken == [False, True, True]
    assert [frame.frame_id for frame in camera.frames] == [0, 1, 2]


def test_two_pictures_for_one_trigger_do_not_shift_the_parts() -> None:
    with Fake() as camera:
        camera.delays_s = [[0.01, 0.05]]
        camera.fire("A")
        wait_for(lambda: len(camera.frames) == 1)
        time.sleep(0.15)
        camera.fire("B")
        assert camera.shots(2) == [("A", 1), ("B", 3)]
        assert camera.source._inner.counts["picture_without_trigger"] == 1


def test_a_camera_that_refuses_is_said() -> None:
    with Fake() as camera:
        camera.refuses = True
        camera.fire("A")
        camera.shots(1)
        assert camera.frames[0].fault == "no_image: cam:1: is not ready for a trigger"
        assert camera.frames[0].part_id == "A"


def test_triggers_that_waited_too_long_are_not_given_to_the_camera() -> None:
    with Fake() as camera:
        camera.fire("A", ago_s=0.45)
        camera.fire("B")
        camera.fire("C", fault="trigger_missed: the connection was down")
        assert camera.shots(3) == [("A", "trigger_late"), ("B", 1), ("C", "trigger_missed")]


def test_a_camera_that_runs_freely_gives_the_first_picture_after_the_trigger() -> None:
    with Fake("free") as camera:
        camera.delays_s = [[]] * 9
        camera.due = [time.monotonic() + 0.05]
        time.sleep(0.15)
        camera.due += [time.monotonic() + 0.05, time.monotonic() + 0.1]
        camera.fire("A")
        assert camera.shots(1) == [("A", 2)]
        camera.due.clear()
        time.sleep(0.1)
        camera.fire("B")
        assert camera.shots(2)[1] == ("B", "no_image")
        assert camera.source.links[0].reconnects == 0


def test_a_wire_is_faster_than_a_message() -> None:
    with Fake("hardware", early_ms=500) as camera:
        camera.delays_s = [[]] * 9
        camera.due = [time.monotonic()]
        wait_for(lambda: camera._shade == 1)
        time.sleep(0.03)
        camera.fire("A")
        assert camera.shots(1) == [("A", 1)]


def test_deadlines_count_from_the_trigger() -> None:
    with Fake() as camera:
        camera.delays_s = [[0.1]]
        before = time.monotonic_ns()
        camera.fire("A")
        camera.shots(1)
        deadline = camera.frames[0].deadline_ns
        assert deadline is not None
        assert abs(deadline - before - 1_000_000_000) < 20_000_000


def test_what_waits_at_the_stop_is_answered() -> None:
    with Fake() as camera:
        camera.delays_s = [[9.0]]
        for part in "ABC":
            camera.fire(part)
        time.sleep(0.05)
        camera.stop.set()
        assert [part for part, _ in camera.shots(3)] == ["A", "B", "C"]
        assert all(frame.fault.startswith("no_image: ") for frame in camera.frames)


# ---- a PLC ----------------------------------------------------------------------------------------------


class Plc:
    """A Modbus TCP server; `trigger` does what a PLC's program would."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._loop = asyncio.new_event_loop()
        self._server: Any = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self._start())

    async def _start(self) -> None:
        from pymodbus.server import ModbusTcpServer
        from pymodbus.simulator import DataType, SimData, SimDevice

        registers = SimData(_BASE, count=19, values=0, datatype=DataType.REGISTERS)
        coils = SimData(_COIL, count=1, values=False, datatype=DataType.BITS)
        empty = SimData(0, count=1, values=0, datatype=DataType.REGISTERS)
        device = SimDevice(1, ([coils], [coils], [registers], [empty]))
        self._server = ModbusTcpServer(device, address=("127.0.0.1", self.port))
        await self._server.listen()

    def stop(self) -> None:
        self._do(self._server.shutdown())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def words(self) -> list[int]:
        words: list[int] = self._do(self._server.async_getValues(1, 3, _BASE, 19))
        return words

    def coil(self, on: bool | None = None) -> bool:
        if on is not None:
            self._do(self._server.async_setValues(1, 5, _COIL, [on]))
        return bool(self._do(self._server.async_getValues(1, 1, _COIL, 1))[0])

    def put(self, part_id: str, number: int | None) -> None:
        part = list(struct.unpack(">16H", part_id.encode().ljust(32, b"\0")))
        self._do(self._server.async_setValues(1, 16, _BASE + 1, part))
        if number is not None:
            self._do(self._server.async_setValues(1, 16, _BASE, [number]))

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)


@pytest.fixture
def plc() -> Iterator[Plc]:
    pytest.importorskip("pymodbus", reason="pymodbus is not installed (extra `modbus`)")
    made = Plc(free_port())
    yield made
    made.stop()


def _by_plc(port: int, camera: dict[str, Any], **trigger: Any) -> dict[str, Any]:
    trigger = {"kind": "modbus", "host": "127.0.0.1", "port": port, "address": _BASE, **trigger}
    return {"kind": "triggered", "camera": camera, "trigger": trigger}


def test_a_plc_triggers_and_is_told_when_the_part_may_move_on(
    bundle: Bundle, images: dict[str, Any], plc: Plc
) -> None:
    sink = ListSink()
    with running(line_of(bundle, _by_plc(plc.port, images)), sink) as service:
        wait_for(lambda: service.links()["cam0.trigger"].connected)
        for number in range(1, 8):
            plc.put(f"Teil-{number:02}-ü", number)
            wait_for(lambda n=number: plc.words()[17] == n)  # type: ignore[misc]
            assert plc.words()[18] == (1 if number <= 6 else 2)
        assert service.links()["cam0.trigger"].problem() == ""
    # What has no image waits for nothing, and may come first.
    in_order = sorted(sink.verdicts, key=lambda verdict: verdict.frame_id)
    assert [verdict.part_id for verdict in in_order] == [f"Teil-{i:02}-ü" for i in range(1, 8)]
    account = service.accounts()["cam0"]
    assert (account.frames.scored, account.reasons, account.missing) == (6, {"no_image": 1}, 0)


def test_triggers_that_were_given_while_nobody_listened(
    bundle: Bundle, images: dict[str, Any], plc: Plc
) -> None:
    plc.put("early", 65_535)
    sink = ListSink()
    with running(line_of(bundle, _by_plc(plc.port, images)), sink) as service:
        wait_for(lambda: plc.words()[17] == 65_535)
        assert plc.words()[18] == 2
        plc.put("next", 1)  # the number after the last
        wait_for(lambda: plc.words()[17] == 1)
        plc.put("hasty", 4)  # the PLC did not wait for our answer to 2 and 3
        wait_for(lambda: plc.words()[17] == 4)
    said = [(verdict.part_id, verdict.reason.partition(":")[0]) for verdict in sink.verdicts]
    assert said[0] == ("early", "trigger_missed")
    assert [part for part, _ in said[1:]] == ["next", "hasty"]
    assert service.accounts()["cam0"].missing == 2


def test_a_coil_triggers(bundle: Bundle, images: dict[str, Any], plc: Plc) -> None:
    sink = ListSink()
    with running(line_of(bundle, _by_plc(plc.port, images, coil=_COIL)), sink) as service:
        wait_for(lambda: service.links()["cam0.trigger"].connected)
        for i in range(3):
            plc.put(f"A-{i}", None)
            plc.coil(True)
            wait_for(lambda: not plc.coil())
            assert plc.words()[18] == 1
    assert [verdict.part_id for verdict in sink.verdicts] == ["A-0", "A-1", "A-2"]
    assert service.accounts()["cam0"].missing == 0


def test_a_plc_that_is_away_is_told_and_comes_back(bundle: Bundle, images: dict[str, Any]) -> None:
    pytest.importorskip("pymodbus", reason="pymodbus is not installed (extra `modbus`)")
    port = free_port()
    sink = ListSink()
    with running(line_of(bundle, _by_plc(port, images)), sink) as service:
        wait_for(lambda: "no PLC answers" in service.links()["cam0.trigger"].problem())
        assert get(service, "/readyz")[0] == 503
        plc = Plc(port)
        try:
            wait_for(lambda: service.links()["cam0.trigger"].connected)
            assert get(service, "/readyz")[0] == 200
            plc.put("A", 1)
            wait_for(lambda: plc.words()[17] == 1)
        finally:
            plc.stop()
        wait_for(lambda: not service.links()["cam0.trigger"].connected)
    assert [verdict.part_id for verdict in sink.verdicts] == ["A"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"trigger": {"kind": "horn"}}, r"source\.trigger.*horn"),
        ({"trigger": {"kind": "zmq", "bind": "tcp://0.0.0.0:1"}}, "bind: tcp://0.0.0.0:1 can be reached"),
        ({"trigger": {"kind": "modbus", "host": "192.0.2.1"}}, "trigger.host: 192.0.2.1 is another host"),
        (
            {"trigger": {"kind": "modbus", "host": "127.0.0.1", "coils": 3}},
            r"source\.trigger\.coils: unknown key",
        ),
        ({"camera": {"kind": "folder"}}, r"camera\.path: is required"),
        (
            {"camera": {"kind": "zmq", "bind": "tcp://127.0.0.1:0"}},
            "camera.kind: zmq gives no single",
        ),
        ({"timeout_ms": 0}, "timeout_ms: expected 1 to 600000"),
    ],
)
def test_what_is_wrong_is_said_at_the_start(
    more: dict[str, Any], message: str, tmp_path: Path, images: dict[str, Any]
) -> None:
    section, _ = _by_zmq(tmp_path, images)
    with pytest.raises(ConfigError, match=message):
        Opened(section | more)


def test_the_address_is_free_again(tmp_path: Path, images: dict[str, Any]) -> None:
    section, _ = _by_zmq(tmp_path, images)
    for _ in range(2):
        with opened(section) as source:
            source.stop.set()
            assert list(source.frames()) == []
