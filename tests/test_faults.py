"""Faults of a factory, on real processes, with exact accounts.

Short here; `make faults` runs all, each as long as it may last out there (`ALGAN_FAULTS=long`).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import faulty_engine
from algan_stream import wire
from algan_stream.bundle import Bundle
from algan_stream.client import Client, ClientAccount
from algan_stream.sinks import zmq_pub
from algan_stream.subscriber import Subscriber
from algan_stream.types import FrameVerdict, Outcome, VerdictKind
from processes import Service
from servers import Mosquitto, WebServer, free_port, wait_for

_LONG = os.environ.get("ALGAN_FAULTS") == "long"
#: How long a receiver is away, and a process stopped.
_OUTAGE_S = 60.0 if _LONG else 2.0
_IMAGE = np.full((48, 64, 3), 90, np.uint8)

#: Their short forms would only repeat what other tests do in less time.
_only_long = pytest.mark.skipif(not _LONG, reason="takes long: make faults")

pytestmark = pytest.mark.timeout(900 if _LONG else 300)


class Camera(threading.Thread):
    """A client in a thread of its own that sends at a pace and keeps every verdict."""

    def __init__(
        self, endpoint: str, name: str, *, fps: float = 100.0, deadline_ms: float = 30_000, **client: Any
    ) -> None:
        super().__init__(name=f"camera-{name}", daemon=True)
        self.verdicts: list[FrameVerdict] = []
        self.account = ClientAccount()
        #: From sending to reading, by frame.
        self.waited_s: dict[int, float] = {}
        self._client = Client(endpoint, name, **{"timeout_s": 90.0, **client})
        self._fps, self._deadline_ms, self._done = fps, deadline_ms, threading.Event()
        self.error: BaseException | None = None
        self._sent_at: dict[int, float] = {}
        self.start()

    def run(self) -> None:
        try:
            while not self._done.is_set():
                begin = time.monotonic()
                self._sent_at[self._client.send(_IMAGE, part_id="p", deadline_ms=self._deadline_ms)] = (
                    time.monotonic()
                )
                while (left_s := begin + 1 / self._fps - time.monotonic()) > 0:
                    self._keep(self._client.poll(left_s))
                self._keep(self._client.poll())
            for verdict in self._client.drain(30):
                self._keep([verdict])
            self.account = self._client.close()
        except BaseException as error:
            self.error = error

    def wait_for(self, verdicts: int) -> None:
        """Waits until so many have come."""
        wait_for(lambda: len(self.verdicts) >= verdicts or self.error is not None, 120)

    def end(self) -> list[int]:
        """Sends no more, waits for what is out, and returns the ids in order of their verdicts."""
        self._done.set()
        self.join(120)
        assert not self.is_alive()
        if self.error:
            raise self.error
        ids = [verdict.frame_id for verdict in self.verdicts]
        assert sorted(ids) == list(range(self.account.sent)), "each frame has exactly one verdict"
        return ids

    def _keep(self, verdicts: list[FrameVerdict]) -> None:
        for verdict in verdicts:
            self.waited_s[verdict.frame_id] = time.monotonic() - self._sent_at[verdict.frame_id]
        self.verdicts += verdicts


def _kinds(camera: Camera) -> set[str]:
    return {verdict.verdict.value for verdict in camera.verdicts}


# ---- the service is killed, or stands still ---------------------------------------------------------------


def test_a_service_killed_and_started_again_loses_nothing_silently(bundle: Bundle, tmp_path: Path) -> None:
    with Service(tmp_path, bundle.path) as first:
        endpoint = first.endpoint
        reporting = Camera(endpoint, "reporting", fps=1000)
        resending = Camera(endpoint, "resending", fps=1000, resend=True, deadline_ms=300_000)
        reporting.wait_for(60)
        resending.wait_for(60)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(30)
    time.sleep(_OUTAGE_S if _LONG else 0.1)
    before = {camera.name: len(camera.verdicts) for camera in (reporting, resending)}
    with Service(tmp_path, bundle.path) as second:
        for camera in (reporting, resending):
            camera.wait_for(before[camera.name] + 60)
            camera.end()
        assert second.stop() == 0
    lost = [v for v in reporting.verdicts if v.reason == "connection_lost"]
    assert {v.verdict for v in lost} <= {VerdictKind.UNKNOWN}
    account = reporting.account
    assert (account.lost, account.refused, account.unanswered, account.resent) == (len(lost), 0, 0, 0)
    assert account.sent == account.answered + account.lost
    assert 0 < account.lost <= 16
    again = resending.account
    assert (again.answered, again.lost, again.refused, again.unanswered) == (again.sent, 0, 0, 0)
    assert 0 < again.resent <= 16
    assert _kinds(resending) <= {"pass", "reject"}
    for camera in (reporting, resending):
        name = camera.name.removeprefix("camera-")
        frames = second.frames(name)
        assert second.stopped["cameras"][name]["missing"] == 0  # it goes on with its count, and has no gap
        first_life = {v["frame_id"] for v in second.verdicts() if v["camera"] == name}
        answered = {v.frame_id for v in camera.verdicts if v.reason != "connection_lost"}
        assert answered <= first_life  # the file has what either service said
        assert frames["received"] == frames["scored"]


@_only_long
def test_a_service_that_stands_still_is_left_and_found_again(service: Service) -> None:
    """As long as a heartbeat is missed; both sides then have their own, exact account."""
    camera = Camera(service.endpoint, "cam", fps=200)
    camera.wait_for(40)
    service.process.send_signal(signal.SIGSTOP)
    time.sleep(_OUTAGE_S if _LONG else 5.0)
    service.process.send_signal(signal.SIGCONT)
    camera.wait_for(len(camera.verdicts) + 60)
    camera.end()
    account = camera.account
    assert account.sent == account.answered + account.lost
    assert (account.refused, account.unanswered) == (0, 0)
    assert 0 < account.lost <= 32
    assert service.stop() == 0
    frames = service.frames()
    assert frames["received"] == frames["scored"] >= account.answered
    assert frames["received"] + service.stopped["cameras"]["cam"]["missing"] <= account.sent


# ---- the engine -------------------------------------------------------------------------------------------


def test_an_engine_that_raises_in_the_middle(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", faulty_engine.install(tmp_path / "site"))
    flag = tmp_path / "flag"
    with Service(tmp_path, bundle.path, engine={"kind": "faulty", "flag": str(flag)}) as service:
        camera = Camera(service.endpoint, "cam", fps=200)
        for word in ("start", "finish"):
            camera.wait_for(len(camera.verdicts) + 20)
            flag.with_name("new").write_text(word)
            flag.with_name("new").rename(flag)
            camera.wait_for(len(camera.verdicts) + 20)
            flag.unlink()
        camera.wait_for(len(camera.verdicts) + 40)
        camera.end()
        assert service.stop() == 0
        frames = service.frames()
        failed = [v for v in camera.verdicts if v.reason == "engine_error"]
        assert len(failed) >= 20
        assert {v.verdict for v in failed} == {VerdictKind.UNKNOWN}
        assert {v.verdict.value for v in camera.verdicts if v.reason != "engine_error"} <= {"pass", "reject"}
        assert camera.verdicts[-1].reason != "engine_error"
        assert (frames["received"], frames["failed"]) == (camera.account.sent, len(failed))
        assert frames["scored"] == frames["received"] - frames["failed"]
        assert "the device is gone" in service.errors


# ---- receivers --------------------------------------------------------------------------------------------

_RETRY = {"retry_first_s": 0.05, "retry_most_s": 0.5, "drain_s": 30.0}


@_only_long
def test_a_receiver_away_for_a_while_gets_all_in_order(bundle: Bundle, tmp_path: Path) -> None:
    server = WebServer()
    port = server.port
    hook = {"kind": "webhook", "url": f"http://127.0.0.1:{port}/", "delivery": {**_RETRY, "spill": "spill"}}
    with Service(tmp_path, bundle.path, sinks=[hook, {"kind": "jsonl", "path": "verdicts.jsonl"}]) as service:
        camera = Camera(service.endpoint, "cam", fps=50)
        camera.wait_for(20)
        server.stop()
        time.sleep(_OUTAGE_S)
        back = WebServer(port)
        camera.wait_for(len(camera.verdicts) + 20)
        camera.end()
        assert max(camera.waited_s.values()) < 5.0  # nobody waited for the receiver
        assert service.stop() == 0
    got = [msgspec.json.decode(body, type=FrameVerdict).frame_id for body, _ in server.got + back.got]
    assert list(dict.fromkeys(got)) == list(range(camera.account.sent))
    assert len(got) <= camera.account.sent + 1  # taken, but killed before it could say so
    counts = service.stopped["deliveries"]["sinks[0] (webhook)"]
    assert (counts["delivered"], counts["lost"], counts["waiting"]) == (camera.account.sent, 0, 0)
    assert counts["failures"] >= 2
    back.stop()


@_only_long
def test_a_broker_away_for_a_while_gets_all_in_order(bundle: Bundle, tmp_path: Path) -> None:
    paho = pytest.importorskip("paho.mqtt.client")
    broker = Mosquitto(tmp_path)
    mqtt = {"kind": "mqtt", "port": broker.port, "topic": "plant", "timeout_s": 2.0}
    got: list[int] = []
    listener = paho.Client(paho.CallbackAPIVersion.VERSION2, "listener", clean_session=False)
    listener.on_connect = lambda client, *_: client.subscribe("plant/#", qos=1)
    listener.on_message = lambda _, __, message: got.append(json.loads(message.payload)["frame_id"])
    listener.reconnect_delay_set(1, 1)
    listener.connect("127.0.0.1", broker.port)
    listener.loop_start()
    sinks = [{**mqtt, "delivery": {**_RETRY, "retry_first_s": 1.5, "retry_most_s": 3.0, "spill": "spill"}}]
    with Service(tmp_path, bundle.path, sinks=sinks) as service:
        camera = Camera(service.endpoint, "cam", fps=50)
        wait_for(lambda: len(got) >= 20, 60)
        broker.stop()
        time.sleep(_OUTAGE_S)
        broker.start()
        camera.wait_for(len(camera.verdicts) + 20)
        camera.end()
        assert max(camera.waited_s.values()) < 5.0
        assert service.stop() == 0
    counts = service.stopped["deliveries"]["sinks[0] (mqtt)"]
    assert (counts["delivered"], counts["lost"], counts["waiting"]) == (camera.account.sent, 0, 0)
    wait_for(lambda: bool(got) and got[-1] == camera.account.sent - 1, 60)
    listener.loop_stop()
    broker.stop()
    # What the broker had acknowledged and not passed on when it was killed is its own loss; of all others, at
    # least once, and in order.
    firsts = list(dict.fromkeys(got))
    assert firsts == sorted(firsts)
    assert len(firsts) >= camera.account.sent - 20


@contextmanager
def _small_disk(folder: Path, size_kib: int) -> Iterator[Path]:
    """A file system of its own with so much room."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_costs_only_who_writes_there(bundle: Bundle, tmp_path: Path) -> None:
    port = free_port()
    with _small_disk(tmp_path / "disk", 16_384) as disk:
        sinks = [
            {"kind": "jsonl", "path": "disk/verdicts.jsonl"},
            {"kind": "database", "path": "disk/history.db", "delivery": _RETRY},
            {
                "kind": "webhook",
                "url": f"http://127.0.0.1:{port}/",
                "delivery": {**_RETRY, "spill": "disk/spill"},
            },
            {"kind": "jsonl", "path": "elsewhere.jsonl"},
        ]
        with Service(tmp_path, bundle.path, sinks=sinks) as service:
            camera = Camera(service.endpoint, "cam", fps=200)
            camera.wait_for(100)
            filler = disk / "filler"
            with filler.open("wb", buffering=0) as file:
                try:
                    while file.write(bytes(65_536)):
                        pass
                except OSError:
                    pass
            camera.wait_for(len(camera.verdicts) + 300)
            filler.unlink()
            server = WebServer(port)
            camera.wait_for(len(camera.verdicts) + 50)
            camera.end()
            sent = camera.account.sent
            assert _kinds(camera) <= {"pass", "reject"}
            assert max(camera.waited_s.values()) < 5.0
            assert service.stop() == 0
        # Every line is whole, in order; each that is not there was counted and told.
        lines = [json.loads(line) for line in (disk / "verdicts.jsonl").read_text().splitlines()]
        ids = [line["frame_id"] for line in lines]
        assert ids == sorted(set(ids))
        assert len(ids) + service.stopped["sink_errors"] == sent
        assert 0 < service.stopped["sink_errors"] < sent - 100
        assert "No space left on device" in service.errors
        assert "could not be delivered to JsonlSink" in service.errors
        assert service.errors.count("could not be delivered") <= 4  # at 1, 10, 100, 1000
        history, hook = (
            service.stopped["deliveries"][name] for name in ("sinks[1] (database)", "sinks[2] (webhook)")
        )
        connection = sqlite3.connect(disk / "history.db")
        rows = connection.execute("SELECT frame_id FROM verdicts ORDER BY frame_id").fetchall()
        connection.close()
        assert (history["delivered"], history["lost"], history["waiting"]) == (sent, 0, 0)
        assert [row[0] for row in rows] == list(range(sent))
        assert history["failures"] > 0
        # The spill folder had no room for some: these are counted as lost; all others came, once, in order.
        got = [msgspec.json.decode(body, type=FrameVerdict).frame_id for body, _ in server.got]
        assert got == sorted(set(got))
        assert (hook["delivered"], hook["waiting"]) == (len(got), 0)
        assert len(got) + hook["lost"] == sent
        assert hook["lost"] > 0
        assert "or its disk is full" in service.errors
        server.stop()
    whole = [json.loads(line)["frame_id"] for line in (tmp_path / "elsewhere.jsonl").read_text().splitlines()]
    assert whole == list(range(sent))


@pytest.mark.skipif(os.getuid() == 0 and not _LONG, reason="the test before did more, as root")
def test_a_file_that_may_not_grow_ends_with_a_whole_line(bundle: Bundle, tmp_path: Path) -> None:
    """The same without root: a limit on the size of files instead of a full disk."""
    resource = pytest.importorskip("resource")
    with Service(tmp_path, bundle.path) as service:
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (20_001, 20_001))
        camera = Camera(service.endpoint, "cam", fps=1000)
        camera.wait_for(150)
        camera.end()
        assert service.stop() == 0
        text = (tmp_path / "verdicts.jsonl").read_text()
        assert text.endswith("}\n")
        assert len(service.verdicts()) + service.stopped["sink_errors"] == camera.account.sent
        assert service.stopped["sink_errors"] > 0
        assert "File too large" in service.errors


# ---- the clock --------------------------------------------------------------------------------------------


def test_a_clock_that_is_set_moves_no_deadline(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wall clock of the service jumps by hours, for all of its code, C++ included."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("libfaketime is not installed (Debian: apt install faketime)")
    offset = tmp_path / "offset"

    def step(to: str) -> None:
        offset.with_name("new").write_text(to)
        offset.with_name("new").rename(offset)

    step("+0")
    settings = {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with Service(tmp_path, bundle.path, camera={"deadline_ms": 20_000}) as service:
        for name in settings:
            monkeypatch.delenv(name)
        camera = Camera(service.endpoint, "cam", fps=100)
        for to in ("+3h", "-2d", "+400d", "+0"):
            camera.wait_for(len(camera.verdicts) + 30)
            step(to)
            camera.wait_for(len(camera.verdicts) + 30)
        camera.end()
        assert _kinds(camera) <= {"pass", "reject"}
        assert max(camera.waited_s.values()) < 10.0
        times = [v.stages.total_ms for v in camera.verdicts]
        assert 0 < min(times) <= max(times) < 10_000
        assert service.stop() == 0
        assert service.frames()["scored"] == camera.account.sent == camera.account.answered


# ---- clients ----------------------------------------------------------------------------------------------


def _memory_and_files(pid: int) -> tuple[int, int]:
    """Resident memory in KiB, and open files."""
    status = Path(f"/proc/{pid}/status").read_text()
    kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return kib, len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_clients_that_come_and_go_leave_nothing_behind(bundle: Bundle, tmp_path: Path) -> None:
    """Half of them say goodbye; each frame of all is accounted for."""
    count = 1000 if _LONG else 150
    port = free_port()
    endpoint = f"tcp://127.0.0.1:{port}"
    with Service(tmp_path, bundle.path, source={"bind": endpoint, "max_clients": 32}) as service:

        def round_of(clients: int) -> int:
            for i in range(clients):
                client = Client(endpoint, f"cam{i % 8}")
                client.send(_IMAGE)
                assert len(list(client.drain(30))) == 1
                if i % 2:
                    client.close()
                else:
                    client._link.close()  # as a kill: no goodbye
            return clients

        done = round_of(100)  # to warm up
        kib, files = _memory_and_files(service.process.pid)
        done += round_of(count)
        wait_for(lambda: _memory_and_files(service.process.pid)[1] <= files + 4)
        grown = _memory_and_files(service.process.pid)[0] - kib
        assert grown < 4096 + kib // 50, f"{grown} KiB more after {count} clients"
        assert service.stop() == 0
    totals = [camera["frames"] for camera in service.stopped["cameras"].values()]
    assert sum(frames["scored"] for frames in totals) == done == len(service.verdicts())


@_only_long
def test_killed_in_the_middle_of_many_messages_over_and_over(bundle: Bundle, tmp_path: Path) -> None:
    """Peers of raw TCP break off at any byte of a frame; nothing of it is received, and nobody else minds."""
    port = free_port()
    header = wire.SendFrame(frame_id=0, height_px=48, width_px=64, pixel_format="bgr8", captured_ns=0)
    encoded = wire.encode(header)
    pixels = _IMAGE.tobytes()
    message = bytes([1, len(encoded)]) + encoded + b"\x02" + struct.pack(">Q", len(pixels)) + pixels
    with Service(tmp_path, bundle.path, source={"bind": f"tcp://127.0.0.1:{port}"}) as service:
        healthy = Camera(f"tcp://127.0.0.1:{port}", "healthy", fps=200)
        rng = np.random.default_rng(1)
        for cut in (*range(1, len(encoded) + 12, 7), *rng.integers(1, len(message), 20).tolist()):
            with socket.create_connection(("127.0.0.1", port)) as raw:
                hello = wire.encode(wire.Hello(version=1, camera="half"))
                ready = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
                greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
                raw.sendall(greeting + bytes([4, len(ready)]) + ready + bytes([0, len(hello)]) + hello)
                raw.sendall(message[:cut])
                if cut % 2:
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        healthy.wait_for(len(healthy.verdicts) + 20)
        healthy.end()
        assert healthy.account.answered == healthy.account.sent
        assert service.stop() == 0
        assert service.frames("healthy")["scored"] == healthy.account.sent
        assert "half" not in service.stopped["cameras"]
        assert {v["camera"] for v in service.verdicts()} == {"healthy"}


def _stopped_client(endpoint: str, seconds: float, report: Any) -> None:
    client = Client(endpoint, "frozen", timeout_s=60)
    verdicts, give_up = 0, time.monotonic() + seconds
    while time.monotonic() < give_up:
        client.send(_IMAGE)
        verdicts += len(client.poll())
        report.send(("running", verdicts))
    verdicts += len(list(client.drain(20)))
    report.send(("done", verdicts, msgspec.to_builtins(client.close())))


def test_a_client_that_stands_still_harms_nobody_and_keeps_its_account(service: Service) -> None:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    seconds = _OUTAGE_S + 8.0
    process = multiprocessing.get_context("spawn").Process(
        target=_stopped_client, args=(service.endpoint, seconds, theirs), daemon=True
    )
    process.start()
    assert ours.recv()[0] == "running"
    beside = Camera(service.endpoint, "beside", fps=100)
    beside.wait_for(20)
    kib, _ = _memory_and_files(service.process.pid)
    assert process.pid
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(_OUTAGE_S + 3.0)
    grown = _memory_and_files(service.process.pid)[0] - kib
    os.kill(process.pid, signal.SIGCONT)
    said: tuple[Any, ...] = ("running",)
    while said[0] == "running":
        assert ours.poll(60)
        said = ours.recv()
    process.join(30)
    _, verdicts, account = said
    beside.end()
    assert beside.account.answered == beside.account.sent
    assert max(beside.waited_s.values()) < 5.0
    assert grown < 8192
    assert account["sent"] == account["answered"] + account["lost"]
    assert account["sent"] == verdicts
    assert account["unanswered"] == account["refused"] == 0
    assert account["lost"] <= 16
    assert service.stop() == 0
    frozen = service.frames("frozen")
    assert frozen["received"] == frozen["scored"]
    assert account["answered"] <= frozen["received"] <= account["sent"]


# ---- subscribers ------------------------------------------------------------------------------------------


def _verdict(frame_id: int, camera: str) -> FrameVerdict:
    return FrameVerdict(
        camera=camera, frame_id=frame_id, part_id="x" * 200, verdict=VerdictKind.PASS,
        outcome=Outcome.SCORED, captured_ns=0,
    )  # fmt: skip


def test_a_slow_subscriber_misses_by_itself_and_can_count_it(tmp_path: Path) -> None:
    at = f"ipc://{tmp_path / 'pub'}"
    sink = zmq_pub.create(zmq_pub.Config(kind="zmq_pub", bind=at, high_water_mark=1000))
    slow, quick = Subscriber(at), Subscriber(at, "b")
    heard: list[FrameVerdict] = []
    first = 0
    while not (slow.poll(0.05) and quick.poll(0.05)):  # until both are subscribed
        for camera in ("a", "b"):
            sink.write(_verdict(first, camera))
        first += 1
    quick.poll(0.2)
    slow.poll(0.2)
    stop = threading.Event()

    def listen() -> None:
        while not stop.is_set():
            heard.extend(quick.poll(0.05))

    listener = threading.Thread(target=listen)
    listener.start()
    longest_s, count = 0.0, 20_000 if _LONG else 8_000
    for i in range(count):
        for camera in ("a", "b"):
            begin = time.monotonic()
            sink.write(_verdict(first + i, camera))
            longest_s = max(longest_s, time.monotonic() - begin)
        if i % 20 == 0:
            wait_for(lambda i=i: len(heard) >= i - 40)  # type: ignore[misc]  as fast as the quick one reads
    wait_for(lambda: bool(heard) and heard[-1].frame_id == first + count - 1)
    stop.set()
    listener.join(10)
    while slow.poll(0.2):
        pass
    for camera in ("a", "b"):  # what comes now tells what did not come before
        sink.write(_verdict(first + count, camera))
    last = slow.poll(5)
    assert {v.frame_id for v in last} == {first + count}
    assert quick.missed.total() == 0
    assert [v.frame_id for v in heard] == list(range(first, first + count))
    assert slow.missed["a"] > count // 2
    assert longest_s < 2.0
    slow.close()
    quick.close()
    sink.close()


def test_a_publisher_that_was_started_again_is_noticed(tmp_path: Path) -> None:
    at = f"ipc://{tmp_path / 'pub'}"
    config = zmq_pub.Config(kind="zmq_pub", bind=at)
    with Subscriber(at, "cam") as listener:
        sink = zmq_pub.create(config)
        sent = 0
        while not listener.poll(0.05):
            sink.write(_verdict(sent, "cam"))
            sent += 1
        sink.close()
        listener.poll(0.2)
        sink = zmq_pub.create(config)
        sent = 0
        while not (came := listener.poll(0.05)):
            sink.write(_verdict(sent, "cam"))
            sent += 1
        assert listener.missed["cam"] == came[0].frame_id  # all before it, since the restart
        sink.close()
