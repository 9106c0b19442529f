"""The `zmq` source and the client in one process: well-behaved and other peers."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq

from algan_stream import wire
from algan_stream.client import Client, ClientAccount
from algan_stream.errors import InputError, ProtocolError
from algan_stream.ledger import Tally
from algan_stream.pipeline import Pipeline
from algan_stream.sources import zmq as zmq_source
from algan_stream.sources.base import SourceContext
from algan_stream.types import FrameVerdict, VerdictKind
from fakes import FakeEngine, ListSink, fake_bundle

_IMAGE = np.full((6, 8, 3), 40, np.uint8)


class Host:
    """A `zmq` source that feeds a pipeline with a fake engine."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.endpoint = f"ipc://{folder / 's'}"
        self.engine, self.sink = FakeEngine(), ListSink()
        self.pipeline = Pipeline(fake_bundle(), self.engine, [self.sink])
        context = SourceContext(
            "own",
            None,
            4,
            self.pipeline.ledger,
            lambda name, size: self.pipeline.open_camera(name, size, "block"),
        )
        section = {"bind": self.endpoint, **config}
        self.source = zmq_source.create(zmq_source.Config(**section), context)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self.error: BaseException | None = None
        self.pipeline.start()
        self._thread.start()

    def _feed(self) -> None:
        try:
            for frame in self.source.frames(self._stop):
                self.pipeline.receive(frame)
        except BaseException as error:
            self.error = error

    def close(self) -> None:
        self.engine.release.set()
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.pipeline.close(20)
        self.source.close()
        assert self.error is None

    def frames(self, camera: str) -> Tally:
        accounts = self.pipeline.ledger.snapshot()
        return accounts[camera].frames if camera in accounts else Tally()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    made: list[Host] = []

    def make(**config: Any) -> Host:
        made.append(Host(tmp_path, **config))
        return made[-1]

    yield make
    for host in made:
        host.close()


class Raw:
    """A peer without manners: sends any bytes and gets any answer."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.connect(endpoint)

    def send(self, *parts: bytes) -> None:
        self.socket.send_multipart(parts)

    def hello(self, camera: str = "raw") -> wire.Welcome:
        self.send(wire.encode(wire.Hello(version=1, camera=camera)))
        welcome = self.answer()
        assert isinstance(welcome, wire.Welcome)
        return welcome

    def frame(self, frame_id: int, **more: Any) -> None:
        header = wire.SendFrame(
            frame_id=frame_id, height_px=6, width_px=8, pixel_format="bgr8", captured_ns=0
        )
        self.send(wire.encode(msgspec.structs.replace(header, **more)), _IMAGE.tobytes())

    def answer(self) -> wire.ToClient:
        assert self.socket.poll(10_000), "no answer"
        return wire.decode_to_client(self.socket.recv_multipart()[0])

    def refusal(self) -> wire.Refusal:
        answer = self.answer()
        assert isinstance(answer, wire.Refusal)
        return answer

    def verdict(self) -> FrameVerdict:
        answer = self.answer()
        assert isinstance(answer, wire.Result)
        return answer.verdict

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)


def test_frames_of_all_kinds_come_back_with_their_verdicts(hosts: Callable[..., Host]) -> None:
    host = hosts()
    with Client(host.endpoint, "cam") as client:
        assert client.camera == "cam"
        grey = np.full((8, 8), 250, np.uint8)
        ids = [
            client.send(_IMAGE, part_id="a"),
            client.send(grey, pixel_format="grey8", captured_ns=77),
            client.send(grey[::2, ::-1], pixel_format="grey8", boxes=[(0, 0, 4, 4), (1, 1, 2, 2)]),
            client.send(_IMAGE, pixel_format="rgb8", boxes=np.zeros((0, 4))),
            client.send(_IMAGE, deadline_ms=-1.0),
        ]
        assert ids == [0, 1, 2, 3, 4]
        verdicts = sorted(client.drain(10), key=lambda v: v.frame_id)
    assert [v.frame_id for v in verdicts] == ids
    assert [v.verdict.value for v in verdicts] == ["pass", "reject", "reject", "unknown", "unknown"]
    assert verdicts[0].part_id == "a"
    assert verdicts[1].captured_ns == 77
    assert [b.box for b in verdicts[2].boxes] == [(0, 0, 4, 4), (1, 1, 2, 2)]
    assert [v.reason for v in verdicts[3:]] == ["no_boxes", "expired"]
    assert client.account() == ClientAccount(sent=5, answered=5)
    assert host.frames("cam") == Tally(received=5, scored=3, failed=1, expired=1)


def test_without_a_name_the_services_own_counts(hosts: Callable[..., Host]) -> None:
    host = hosts()
    with Client(host.endpoint) as client:
        assert client.camera == "own"


def test_credits_hold_the_client_back(hosts: Callable[..., Host]) -> None:
    host = hosts(credits=3)
    host.engine.release.clear()
    with Client(host.endpoint, "cam", timeout_s=1.0) as client:
        for _ in range(3):
            client.send(_IMAGE)
        with pytest.raises(ProtocolError, match="no verdict within 1 s on any of 3 frames"):
            client.send(_IMAGE)
        assert client.account().sent == 3
        host.engine.release.set()
        assert len(list(client.drain(10))) == 3
        for _ in range(20):
            client.send(_IMAGE)
        assert len(list(client.drain(10))) == 20
    assert host.frames("cam") == Tally(received=23, scored=23)


def test_gaps_are_counted_apart(hosts: Callable[..., Host]) -> None:
    host = hosts()
    with Client(host.endpoint, "cam") as client:
        client.send(_IMAGE)
        client.skip(5)
        client.send(_IMAGE)
        assert [v.frame_id for v in client.drain(10)] == [0, 6]
    account = host.pipeline.ledger.snapshot()["cam"]
    assert (account.missing, account.frames.received) == (5, 2)


def test_what_the_client_itself_refuses(hosts: Callable[..., Host]) -> None:
    host = hosts(max_frame_bytes=1000)
    with Client(host.endpoint, "cam") as client:
        for image, pixel_format, message in (
            (_IMAGE, "grey8", r"expected uint8 \(H, W\) for grey8"),
            (_IMAGE[..., 0], "bgr8", r"expected uint8 \(H, W, 3\) for bgr8"),
            (_IMAGE.astype(np.float32), "bgr8", "got float32"),
            (np.zeros((4, 4, 4), np.uint8), "bgr8", r"got uint8 \(4, 4, 4\)"),
            (np.zeros((40, 40, 3), np.uint8), "bgr8", "expected at most 1000 bytes, got 4800"),
            (_IMAGE, "yuv", "expected one of bgr8, rgb8, grey8"),
        ):
            with pytest.raises(InputError, match=message):
                client.send(image, pixel_format=pixel_format)
        with pytest.raises(InputError, match=r"boxes: expected shape \(N, 4\)"):
            client.send(_IMAGE, boxes=[1, 2, 3])
        assert client.account().sent == 0


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match=r"no answer within 0\.2 s; is the service running there\?"):
        Client(f"ipc://{tmp_path / 'nobody'}", timeout_s=0.2)
    with pytest.raises(InputError, match="endpoint: expected ipc://PATH or tcp"):
        Client("somewhere")


@pytest.mark.parametrize("camera", ["a b", "x" * 65, "ä", "../x"])
def test_a_camera_name_that_could_not_be_a_topic_or_file(hosts: Callable[..., Host], camera: str) -> None:
    host = hosts()
    with pytest.raises(ProtocolError, match=r"refused \(camera\): expected 1 to 64 letters"):
        Client(host.endpoint, camera)


def test_a_newer_client_takes_its_camera_over(hosts: Callable[..., Host]) -> None:
    host = hosts()
    with Client(host.endpoint, "cam") as old, Client(host.endpoint, "cam") as new:
        new.send(_IMAGE)
        assert len(list(new.drain(10))) == 1
        while not old.refusals:
            assert old.poll(0.05) == []
        assert [refusal.code for refusal in old.refusals] == ["superseded"]
        with pytest.raises(ProtocolError, match="takes no more frames"):
            old.send(_IMAGE)


def test_too_many_clients(hosts: Callable[..., Host]) -> None:
    host = hosts(max_clients=2)
    with Client(host.endpoint, "a"), Client(host.endpoint, "b"):
        with pytest.raises(ProtocolError, match=r"refused \(full\): expected at most 2 clients"):
            Client(host.endpoint, "c")
        with Client(host.endpoint, "b") as again:  # a restart is no new client
            again.send(_IMAGE)
            assert len(list(again.drain(10))) == 1


def test_clients_that_vanished_do_not_count(hosts: Callable[..., Host]) -> None:
    """Killed ones cannot say goodbye."""
    host = hosts(max_clients=2)
    for i in range(6):
        with Raw(host.endpoint) as raw:
            raw.hello(f"dead-{i}")
        time.sleep(0.05)
    with Client(host.endpoint, "alive") as client:
        client.send(_IMAGE)
        assert len(list(client.drain(10))) == 1


def test_another_version_is_refused_in_words(hosts: Callable[..., Host]) -> None:
    with Raw(hosts().endpoint) as raw:
        raw.send(wire.encode(wire.Hello(version=2, camera="x")))
        assert raw.refusal() == wire.Refusal(code="version", message="expected protocol 1, got 2")


def test_frames_before_hello_are_refused_by_name(hosts: Callable[..., Host]) -> None:
    host = hosts()
    with Raw(host.endpoint) as raw:
        raw.frame(7)
        refusal = raw.refusal()
        assert (refusal.code, refusal.frame_id) == ("hello_first", 7)
    assert host.source.counts["hello_first"] == 1
    assert host.pipeline.ledger.snapshot() == {}


@pytest.mark.parametrize(
    "parts",
    [
        (b"",),
        (b"\xc1",),
        (b"", b"", b""),
        (b"\x82\xa4type\xa5hello\xa6camera\xa2\xff\xfe",),
        (b"\x81\xa1x" + b"\x91" * 100_000,),
        (wire.encode(wire.Closing()),),
        (wire.encode(wire.Hello(version=1))[:-1],),
    ],
)
def test_garbage_is_answered_and_counted(hosts: Callable[..., Host], parts: tuple[bytes, ...]) -> None:
    host = hosts()
    with Raw(host.endpoint) as raw, Client(host.endpoint, "healthy") as healthy:
        raw.send(*parts)
        assert raw.refusal().code == "malformed"
        assert host.source.counts["malformed"] == 1
        raw.hello()
        raw.frame(0)
        assert raw.verdict().verdict is VerdictKind.PASS  # it may mend its ways
        healthy.send(_IMAGE)
        assert len(list(healthy.drain(10))) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"height_px": 7}, "payload: expected 7×8×3 = 168 bytes for bgr8, got 144"),
        ({"pixel_format": "grey8"}, "payload: expected 6×8×1 = 48 bytes for grey8, got 144"),
        ({"width_px": 0}, "size: expected 1 to 65535 px, got 0×6"),
        ({"boxes": [(0.0,) * 4] * 4097}, "boxes: expected at most 4096, got 4097"),
        ({"deadline_ms": math.inf}, "deadline_ms: expected up to 3600000, got inf"),
        ({"deadline_ms": math.nan}, "deadline_ms: expected up to 3600000, got nan"),
        ({"deadline_ms": 1e308}, "deadline_ms: expected up to 3600000"),
    ],
)
def test_a_malformed_frame_is_accounted_and_answered(
    hosts: Callable[..., Host], change: dict[str, Any], reason: str
) -> None:
    host = hosts()
    with Raw(host.endpoint) as raw:
        raw.hello()
        raw.frame(0, **change)
        raw.frame(1)
        answers = {verdict.frame_id: verdict for verdict in (raw.verdict(), raw.verdict())}
    assert answers[0].verdict is VerdictKind.UNKNOWN
    assert answers[0].reason.startswith(f"malformed_frame: {reason}")
    assert answers[1].verdict is VerdictKind.PASS
    assert host.frames("raw") == Tally(received=2, scored=1, failed=1)
    assert host.pipeline.ledger.snapshot()["raw"].reasons == {"malformed_frame": 1}
    assert host.source.counts["malformed"] == 1


def test_a_frame_that_is_too_large_but_small_enough_to_arrive(hosts: Callable[..., Host]) -> None:
    host = hosts(max_frame_bytes=143)
    with Raw(host.endpoint) as raw:
        assert raw.hello().max_frame_bytes == 143
        raw.frame(0)
        assert raw.verdict().reason == "malformed_frame: payload: expected at most 143 bytes"
    assert host.frames("raw") == Tally(received=1, failed=1)


@pytest.mark.parametrize("extra", [(), (b"x", b"y")])
def test_a_frame_with_the_wrong_number_of_parts(hosts: Callable[..., Host], extra: tuple[bytes, ...]) -> None:
    host = hosts()
    header = wire.SendFrame(frame_id=0, height_px=1, width_px=1, pixel_format="grey8", captured_ns=0)
    with Raw(host.endpoint) as raw:
        raw.hello()
        raw.send(wire.encode(header), *extra)
        assert f"expected header and payload, got {1 + len(extra)} parts" in raw.verdict().reason
    assert host.frames("raw") == Tally(received=1, failed=1)


@pytest.mark.parametrize("frame_id", [3, 0, -1])
def test_a_frame_id_that_goes_back_is_refused(hosts: Callable[..., Host], frame_id: int) -> None:
    host = hosts()
    with Raw(host.endpoint) as raw:
        raw.hello()
        raw.frame(3)
        raw.verdict()
        raw.frame(frame_id)
        refusal = raw.refusal()
        assert (refusal.code, refusal.frame_id) == ("malformed", frame_id)
    assert host.frames("raw") == Tally(received=1, scored=1)


def test_more_frames_than_credits_are_answered_unscored(hosts: Callable[..., Host]) -> None:
    host = hosts(credits=4)
    host.engine.release.clear()
    with Raw(host.endpoint) as raw, Client(host.endpoint, "healthy") as healthy:
        assert raw.hello().credits == 4
        for i in range(10):
            raw.frame(i)
        time.sleep(0.1)
        healthy.send(_IMAGE)
        host.engine.release.set()
        verdicts = [raw.verdict() for _ in range(10)]
        assert len(list(healthy.drain(10))) == 1
    assert sorted(v.frame_id for v in verdicts) == list(range(10))
    failed = [v for v in verdicts if v.reason.startswith("malformed_frame: credits: expected at most 4")]
    assert len(failed) == 6
    assert host.frames("raw") == Tally(received=10, scored=4, failed=6)


def test_a_client_that_does_not_read_stops_no_other(hosts: Callable[..., Host]) -> None:
    host = hosts(credits=16)
    with Raw(host.endpoint) as deaf, Client(host.endpoint, "healthy") as healthy:
        deaf.hello("deaf")
        for i in range(400):
            deaf.frame(i)
            if i % 4 == 0:
                healthy.send(_IMAGE)
        assert len(list(healthy.drain(10))) + healthy.account().answered >= 100
        assert healthy.account().answered == healthy.account().sent == 100


def test_results_on_frames_taken_before_the_end_still_come(hosts: Callable[..., Host]) -> None:
    host = hosts(credits=200)
    host.engine.release.clear()
    with Client(host.endpoint, "cam") as client:
        for _ in range(150):
            client.send(_IMAGE)
        while host.frames("cam").received < 150:
            time.sleep(0.005)
        threading.Timer(0.1, host.engine.release.set).start()
        closing = threading.Thread(target=host.close)
        closing.start()
        verdicts = list(client.drain(10))
        closing.join(20)
        assert len(verdicts) == 150
        assert client.closing
        with pytest.raises(ProtocolError, match="the service is stopping"):
            client.send(_IMAGE)


@pytest.mark.parametrize(("key", "value"), [("credits", 0), ("max_clients", 5000), ("max_frame_bytes", 0)])
def test_limits_of_the_configuration(key: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{key}: expected 1 to"):
        zmq_source.Config(bind="ipc://x", **{key: value})


def test_a_client_cannot_take_the_name_of_another_sources_camera(hosts: Callable[..., Host]) -> None:
    host = hosts()

    def open_camera(name: str, size: int) -> None:
        if name == "folder1":
            raise InputError("camera folder1 is another source's in this line")
        host.pipeline.open_camera(name, size, "block")

    host.source._context = dataclasses.replace(host.source._context, open_camera=open_camera)
    with pytest.raises(ProtocolError, match=r"refused \(camera\): camera folder1 is another source's"):
        Client(host.endpoint, "folder1")
    with Client(host.endpoint, "cam") as client:
        client.send(_IMAGE)
        assert len(list(client.drain(10))) == 1


def test_names_of_cameras_are_bounded_but_known_ones_may_come_back(hosts: Callable[..., Host]) -> None:
    host = hosts(max_cameras=2)
    for camera in ("a", "b", "a"):
        Client(host.endpoint, camera).close()
    with pytest.raises(ProtocolError, match="expected at most 2 different cameras"):
        Client(host.endpoint, "c")
    assert host.source.counts["camera"] == 1
