"""Frames through shared memory: that they arrive, and what no client and no machine can do to them."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from algan_stream import ring_client, shm, wire
from algan_stream.bundle import Bundle
from algan_stream.client import Client
from algan_stream.errors import ConfigError, InputError, ProtocolError, SharedMemoryError
from algan_stream.ledger import Tally
from algan_stream.rings import RingHost
from algan_stream.types import VerdictKind
from processes import Service
from test_zmq_source import Host, Raw, hosts

__all__ = ["hosts"]  # a fixture

_IMAGE = np.full((120, 200, 3), 40, np.uint8)
_Hosts = Callable[..., Host]


def _wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "in vain"
        time.sleep(0.01)


# ---- what works -----------------------------------------------------------------------------------------


def test_frames_go_through_the_ring_and_its_slots_come_back(hosts: _Hosts) -> None:
    host = hosts()
    with Client(host.endpoint, "cam", slots=3) as client:
        ids = [client.send(_IMAGE + i, part_id=str(i)) for i in range(40)]
        assert client.shared
        assert host.source._rings is not None
        assert host.source._rings.held_bytes() == shm.layout(0, 3, _IMAGE.nbytes).size_bytes
        verdicts = list(client.drain(10))
    assert [v.frame_id for v in verdicts] == ids
    assert [v.part_id for v in verdicts] == [str(i) for i in ids]
    assert {v.verdict for v in verdicts} == {VerdictKind.PASS}
    assert host.frames("cam") == Tally(received=40, scored=40)
    _wait_for(lambda: host.source._rings is not None and host.source._rings.held_bytes() == 0)


def test_what_arrives_is_what_was_sent(hosts: _Hosts) -> None:
    """Scores of the fake engine follow from the pixels: through the ring they are those of the socket."""
    rng, host = np.random.default_rng(3), hosts()
    images = [rng.integers(0, 256, (90, 301, 3), np.uint8) for _ in range(6)]
    images += [images[0][::2, ::-1], images[1][:, :100]]  # rows with gaps
    scores = []
    for mode in ("always", "never"):
        with Client(host.endpoint, "cam", shm=mode) as client:  # type: ignore[arg-type]
            for image in images:
                client.send(image, pixel_format="rgb8")
            scores.append([v.boxes[0].score for v in client.drain(10)])
            assert client.shared is (mode == "always")
    assert scores[0] == scores[1]
    assert len(set(scores[0])) == len(images)


def test_a_slot_is_written_in_place(hosts: _Hosts) -> None:
    host = hosts()
    with Client(host.endpoint, "cam", slots=2) as client:
        for value in (40, 250, 40):
            with client.slot(120, 200, "grey8") as slot:
                slot.image[:] = value
                slot.send(part_id=str(value))
                with pytest.raises(ValueError, match="read-only"):
                    slot.image[:] = 0
                with pytest.raises(InputError, match="sent once"):
                    slot.send()
        for _ in range(5):  # not sent: thrown away
            with client.slot(120, 200) as slot:
                slot.image[:] = 1
        with (
            pytest.raises(InputError, match=r"boxes: expected shape \(N, 4\)"),
            client.slot(120, 200) as slot,
        ):
            slot.send(boxes=[1.0, 2.0])
        with pytest.raises(InputError, match="expected 1 to"), client.slot(0, 200):
            pass
        assert [v.verdict.value for v in client.drain(10)] == ["pass", "reject", "pass"]
    assert host.frames("cam") == Tally(received=3, scored=3)


def test_slots_work_without_shared_memory_as_well(hosts: _Hosts) -> None:
    host = hosts(shared_memory_bytes=0)
    with Client(host.endpoint, "cam") as client, client.slot(120, 200) as slot:
        slot.image[:] = 40
        slot.send()
        assert not client.shared
        assert [v.verdict.value for v in client.drain(10)] == ["pass"]
    with (
        Client(host.endpoint, "cam", shm="always") as client,
        pytest.raises(SharedMemoryError, match="the service offers no shared memory"),
    ):
        client.send(_IMAGE)


def test_larger_frames_get_a_larger_ring(hosts: _Hosts) -> None:
    host = hosts()
    with Client(host.endpoint, "cam", slots=4) as client:
        for size in (200, 300, 250, 400):
            for _ in range(6):
                client.send(np.full((size, size, 3), 40, np.uint8))
        assert len(list(client.drain(10))) + client.account().answered >= 24
        assert client.account().answered == 24
        assert host.source._rings is not None
        assert host.source._rings.held_bytes() == shm.layout(0, 4, 400 * 400 * 3).size_bytes
    assert host.frames("cam") == Tally(received=24, scored=24)


def test_over_loopback_and_small_frames(tmp_path: Path) -> None:
    host = Host(tmp_path, bind="tcp://127.0.0.1:*")
    try:
        with Client(host.source.endpoint, "cam") as client:
            client.send(_IMAGE[:20])  # as fast through the socket
            assert not client.shared
            client.send(_IMAGE)
            assert client.shared
            assert len(list(client.drain(10))) == 2
        folder = host.source._rings and host.source._rings._folder
        assert folder
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        host.close()
    assert not folder.exists()


def test_the_sockets_are_private_and_go_away(hosts: _Hosts, tmp_path: Path) -> None:
    hosts()
    assert stat.S_IMODE((tmp_path / "s.ring").stat().st_mode) == 0o600


def test_a_goodbye_right_after_a_frame_loses_nothing(hosts: _Hosts) -> None:
    host = hosts()
    for _ in range(10):
        with Client(host.endpoint, "cam") as client:
            client.send(_IMAGE)
    _wait_for(lambda: host.frames("cam").scored == 10)


def test_modes_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shm: expected one of auto, always, never"):
        Client("ipc://x", shm="yes")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="slots: expected at least 1, got 0"):
        Client("ipc://x", slots=0)


# ---- what a client cannot do ----------------------------------------------------------------------------


class _Ringed(Raw):
    """Attaches a ring by hand and then does as it pleases."""

    def attach(self, slots: int = 2, slot_bytes: int = 72_000) -> ring_client.RingLease:
        welcome = self.hello()
        assert welcome.ring
        return ring_client.attach(welcome.ring, slots, slot_bytes, 5.0)

    def announce(self, lease: ring_client.RingLease, frame_id: int = 0, **change: Any) -> None:
        header = wire.SendSlot(
            frame_id=frame_id,
            height_px=120,
            width_px=200,
            pixel_format="bgr8",
            captured_ns=0,
            ring=lease.place.ring,
            slot=0,
            generation=1,
        )
        self.send(wire.encode(msgspec.structs.replace(header, **change)))


def _write(lease: ring_client.RingLease, slot: int, generation: int) -> None:
    lease._segment.words[slot] = generation << 1
    lease.pixels(slot, (72_000,))[:] = 40


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"slot": 2}, "slot: expected 0 to 1, got 2"),
        ({"slot": -1}, "slot: expected 0 to 1, got -1"),
        ({"slot": 1}, "slot: 1 was not written to its end"),
        ({"ring": 7}, "ring: expected"),
        ({"generation": 0}, "generation: expected more than 0"),
        ({"generation": 2}, "slot: 0 was not written to its end"),
        ({"generation": 1 << 63}, "generation: expected more than 0"),
        ({"height_px": 121}, "slot: expected at most 72000 bytes, got 72600"),
        ({"height_px": 65_535, "width_px": 65_535}, "slot: expected at most 72000 bytes"),
        ({"width_px": 0}, "size: expected 1 to 65535 px"),
        ({"boxes": [(0.0,) * 4] * 4097}, "boxes: expected at most 4096"),
    ],
)
def test_a_descriptor_is_not_trusted(hosts: _Hosts, change: dict[str, Any], reason: str) -> None:
    host = hosts()
    with _Ringed(host.endpoint) as raw:
        lease = raw.attach()
        _write(lease, 0, 1)
        raw.announce(lease, 0, **change)
        refused = raw.verdict()
        assert refused.verdict is VerdictKind.UNKNOWN
        assert refused.reason.startswith(f"malformed_frame: {reason}")
        raw.announce(lease, 1)
        assert raw.verdict().verdict is VerdictKind.PASS  # the slot was never taken
        lease.close()
    assert host.frames("raw") == Tally(received=2, scored=1, failed=1)


def test_a_slot_is_taken_once(hosts: _Hosts) -> None:
    host = hosts()
    host.engine.release.clear()
    with _Ringed(host.endpoint) as raw:
        lease = raw.attach()
        _write(lease, 0, 5)
        raw.announce(lease, 0, generation=5)
        raw.announce(lease, 1, generation=5)
        assert "slot: 0 still holds a frame without result" in raw.verdict().reason
        host.engine.release.set()
        assert raw.verdict().verdict is VerdictKind.PASS
        raw.announce(lease, 2, generation=5)
        assert "generation: expected more than 5 in slot 0, got 5" in raw.verdict().reason
        lease.close()


def test_descriptors_without_a_ring_and_with_pixels_beside(hosts: _Hosts) -> None:
    with _Ringed(hosts().endpoint) as raw:
        lease = raw.attach()
        lease.close()
        with Raw(raw.socket.getsockopt_string(0x20)) as other:  # ZMQ_LAST_ENDPOINT
            other.hello("other")
            header = wire.SendSlot(
                frame_id=0,
                height_px=1,
                width_px=1,
                pixel_format="grey8",
                captured_ns=0,
                ring=lease.place.ring,
                slot=0,
                generation=1,
            )
            other.send(wire.encode(header))
            assert "ring: expected a client that has attached one" in other.verdict().reason
            other.send(wire.encode(msgspec.structs.replace(header, frame_id=1)), b"x")
            assert "expected a header alone, got 2 parts" in other.verdict().reason


def test_pixels_overwritten_before_they_were_read_are_never_ok(hosts: _Hosts) -> None:
    host = hosts()
    host.engine.release.clear()
    with _Ringed(host.endpoint) as raw:
        lease = raw.attach(slots=16)
        for slot in range(16):
            _write(lease, slot, 1)
            raw.announce(lease, slot, slot=slot)
        _wait_for(lambda: host.frames("raw").received > 8)
        lease._segment.words[15] = 3  # it begins to write the second frame before the first is read
        host.engine.release.set()
        verdicts = {v.frame_id: v for v in (raw.verdict() for _ in range(16))}
        lease.close()
    assert verdicts[15].verdict is VerdictKind.UNKNOWN
    assert {v.verdict for i, v in verdicts.items() if i < 15} == {VerdictKind.PASS}


def test_a_client_cannot_shrink_the_memory(hosts: _Hosts) -> None:
    """A hole that it tears reads as zeros; the service goes on."""
    host = hosts()
    with _Ringed(host.endpoint) as raw:
        welcome = raw.hello()
        assert welcome.ring
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(welcome.ring.path)
            connection.send(shm.encode(shm.Attach(token=welcome.ring.token, slots=1, slot_bytes=72_000)))
            packet, (descriptor,), _, _ = socket.recv_fds(connection, 4096, 1)
            place = shm.decode_answer(packet)
            assert isinstance(place, shm.Attached)
            for size in (0, place.size_bytes * 2):
                with pytest.raises(PermissionError):
                    os.ftruncate(descriptor, size)
            with pytest.raises(PermissionError):
                fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
            segment = shm.attach(descriptor, place)
            segment.words[0] = 2
            subprocess.run(
                [shutil.which("fallocate") or "true", "--punch-hole", "-o", str(place.first_byte),
                 "-l", str(place.stride_bytes), f"/proc/self/fd/{descriptor}"],
                pass_fds=[descriptor], check=True,
            )  # fmt: skip
            lease = ring_client.RingLease(connection, segment)
            raw.announce(lease, 0)
            assert raw.verdict().verdict is VerdictKind.PASS  # zeros are dark to the fake engine
            os.close(descriptor)


def _request(path: str, packet: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(5)
        connection.connect(path)
        connection.send(packet)
        return connection.recv(4096)


def test_only_who_was_welcomed_gets_memory(hosts: _Hosts) -> None:
    host = hosts(credits=4, max_frame_bytes=100_000, shared_memory_bytes=1 << 20)
    with Raw(host.endpoint) as raw:
        offer = raw.hello().ring
        assert offer
        good = {"token": offer.token, "slots": 4, "slot_bytes": 100_000}
        for change, message in (
            ({"token": bytes(16)}, "expected the token of a welcome"),
            ({"slots": 5}, "slots: expected 1 to 4, got 5"),
            ({"slots": 0}, "slots: expected 1 to 4, got 0"),
            ({"slot_bytes": 100_001}, "slot_bytes: expected 1 to 100000, got 100001"),
        ):
            answer = shm.decode_answer(_request(offer.path, shm.encode(shm.Attach(**{**good, **change}))))
            assert isinstance(answer, shm.Unattached)
            assert message in answer.message
        for garbage in (b"\xc1", b"x" * 5000, b"\x81\xa4type\xa3bye"):
            assert isinstance(shm.decode_answer(_request(offer.path, garbage)), shm.Unattached)
        leases: list[ring_client.RingLease] = []
        for i in range(3):  # 400 KiB each, in 1 MiB
            with Raw(host.endpoint) as other:
                offer = other.hello(f"c{i}").ring
                assert offer
                if i == 2:
                    with pytest.raises(SharedMemoryError, match="of shared_memory_bytes are left"):
                        ring_client.attach(offer, 4, 100_000, 5.0)
                else:
                    leases.append(ring_client.attach(offer, 4, 100_000, 5.0))
        for lease in leases:
            lease.close()


def test_silent_connections_do_not_pile_up(hosts: _Hosts) -> None:
    host = hosts(max_clients=1)
    with Client(host.endpoint, "cam") as client:
        client.send(_IMAGE)
        path = client._welcome.ring.path if client._welcome.ring else ""
        silent = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(60)]
        for connection in silent:
            connection.connect(path)
        client.send(_IMAGE)
        assert len(list(client.drain(10))) == 2
        assert client.shared
        assert host.source._rings is not None
        assert len(host.source._rings._leases) <= 20
        for connection in silent:
            connection.close()


# ---- deaths ---------------------------------------------------------------------------------------------


def _half_written(endpoint: str, written: Any) -> None:
    client = Client(endpoint, "press")
    client.send(_IMAGE)
    list(client.drain(10))
    with client.slot(120, 200) as slot:
        slot.image[:60] = 255
        written.set()
        time.sleep(60)


def test_a_client_killed_in_the_middle_of_a_slot(bundle: Bundle, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    room = shm.layout(0, 8, _IMAGE.nbytes).size_bytes
    with Service(tmp_path, bundle.path, source={"shared_memory_bytes": room}) as service:
        written = context.Event()
        victim = context.Process(target=_half_written, args=(service.endpoint, written), daemon=True)
        victim.start()
        assert written.wait(30)
        with (
            Client(service.endpoint, "beside", shm="always") as beside,
            pytest.raises(SharedMemoryError, match="of shared_memory_bytes are left"),
        ):
            beside.send(_IMAGE)  # the victim has it all
        os.kill(victim.pid or 0, signal.SIGKILL)
        victim.join(20)

        def sends() -> bool:
            with Client(service.endpoint, "beside", shm="always") as client:
                try:
                    client.send(_IMAGE)
                except SharedMemoryError:
                    return False
                return len(list(client.drain(10))) == 1

        _wait_for(sends)  # nobody sends anything to the dead, and still its memory is free again
        assert service.stop() == 0
        assert service.frames("press") == {**service.frames("press"), "received": 1, "scored": 1}
        assert service.frames("beside") == {**service.frames("beside"), "received": 1, "scored": 1}


def test_a_service_killed_while_a_client_holds_a_ring(bundle: Bundle, tmp_path: Path) -> None:
    with Service(tmp_path, bundle.path) as service:
        client = Client(service.endpoint, "cam", timeout_s=1.0)
        client.send(_IMAGE)
        assert len(list(client.drain(10))) == 1
        with client.slot(120, 200) as slot:
            service.process.kill()
            service.process.wait(20)
            slot.image[:] = 40  # the memory is still there
            with pytest.raises(ProtocolError, match="not connected for 1 s"):
                slot.send()
    with Service(tmp_path, bundle.path) as service:  # what the killed one left behind is in nobody's way
        _wait_for(lambda: client.poll(0.1) == [] and client._welcome is not None)
        client.send(_IMAGE)
        assert client.shared  # through a ring of the new service
        assert len(list(client.drain(10))) == 1
        client.close()
        assert service.stop() == 0
        assert service.frames() == {**service.frames(), "received": 1, "scored": 1}
    assert not Path(service.endpoint.removeprefix("ipc://") + ".ring").exists()


# ---- machines without ----------------------------------------------------------------------------------


@pytest.fixture
def host_at(tmp_path: Path) -> Iterator[Callable[[int | None], RingHost]]:
    made: list[RingHost] = []

    def make(limit_bytes: int | None) -> RingHost:
        made.append(RingHost(f"ipc://{tmp_path / 'r'}", limit_bytes, 16, 1 << 20, 4))
        return made[-1]

    yield make
    for host in made:
        host.close()


def test_more_than_the_machine_has_is_refused_at_the_start(host_at: Callable[[int | None], RingHost]) -> None:
    with pytest.raises(
        ConfigError, match=r"shared_memory_bytes: expected at most the \d+ bytes that are free"
    ):
        host_at(1 << 49)


def test_memory_that_cannot_be_reserved_is_refused_in_words(tmp_path: Path) -> None:
    """The kernel's own refusal, in a process that may have no large files."""
    code = (
        "import resource; from algan_stream.rings import RingHost\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        f"RingHost('ipc://{tmp_path}/r', None, 1, 1, 1)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "bytes cannot be reserved: File too large; `shared_memory_bytes: 0` does without" in ended.stderr
    assert ended.returncode == 1


@pytest.mark.parametrize(
    "shm_dir",
    [
        "mount -t tmpfs -o size=4k x /dev/shm && head -c 4096 /dev/zero > /dev/shm/x",
        "mount --bind /proc/self/fdinfo /dev/shm",
    ],
)
def test_dev_shm_full_or_missing_does_not_matter(tmp_path: Path, shm_dir: str) -> None:
    """In a mount namespace of its own: every frame is scored, and through shared memory."""
    code = """
import sys; from pathlib import Path; import numpy as np
from algan_stream.client import Client; from test_zmq_source import Host
host = Host(Path(sys.argv[1]))
with Client(host.endpoint, "cam", shm="always") as client:
    for _ in range(20):
        client.send(np.full((500, 600, 3), 40, np.uint8))
    list(client.drain(10))
host.close()
tally = host.frames("cam")
print(client.account().answered, tally.received, tally.scored, tally.in_flight)
"""
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare, for a /dev/shm of its own")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this container may make no mount namespaces")
    script = f'{shm_dir} && exec "$0" -c "$1" "$2"'
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, sys.executable, code, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.stdout, ended.returncode) == ("20 20 20 0\n", 0), ended.stderr


def test_a_strange_memory_is_not_mapped(tmp_path: Path) -> None:
    """What could shrink under the client is refused, and so is what is not the ring that was announced."""
    place = shm.layout(5, 2, 4096)
    with (tmp_path / "plain").open("w+b") as file:
        file.truncate(place.size_bytes)
        with pytest.raises((SharedMemoryError, OSError)):
            shm.attach(file.fileno(), place)
    descriptor = shm.create(place)
    with pytest.raises(SharedMemoryError, match="not the one that the service announced"):
        shm.attach(descriptor, shm.layout(6, 2, 4096))
    with pytest.raises(SharedMemoryError, match="not of a fixed, known size"):
        shm.attach(descriptor, shm.layout(5, 3, 4096))
    segment = shm.attach(descriptor, place)
    with pytest.raises(ProtocolError, match="slot 2: expected up to 4096 bytes"):
        segment.pixels(2, 1)
    os.close(descriptor)
