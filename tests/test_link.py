"""A client whose connection breaks, against a service that a test plays by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import zmq

from algan_stream import wire
from algan_stream.client import Client, ClientAccount
from algan_stream.errors import ProtocolError
from algan_stream.types import FrameVerdict, Outcome, VerdictKind

_IMAGE = np.full((6, 8, 3), 40, np.uint8)


class Played:
    """A ROUTER socket that does what it is told, and can be gone and back."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._context = zmq.Context()
        self.identity = b""
        self.begin()

    def begin(self) -> None:
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.bind(self.endpoint)

    def end(self) -> None:
        self._socket.close(linger=0)

    def receive(self) -> wire.ToService:
        assert self._socket.poll(10_000), "nothing came"
        self.identity, header, *_ = self._socket.recv_multipart()
        return wire.decode_to_service(header)

    def say(self, message: wire.ToClient) -> None:
        self._socket.send_multipart((self.identity, wire.encode(message)))

    def greet(self, credits_: int = 4) -> wire.Hello:
        hello = self.receive()
        assert isinstance(hello, wire.Hello)
        self.say(wire.Welcome(version=1, camera="cam", credits=credits_, max_frame_bytes=1000))
        return hello

    def answer(self, frame_id: int) -> None:
        verdict = FrameVerdict(
            camera="cam", frame_id=frame_id, verdict=VerdictKind.PASS, outcome=Outcome.SCORED, captured_ns=0
        )
        self.say(wire.Result(verdict=verdict))

    def close(self) -> None:
        self._context.destroy(linger=0)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Played]:
    played = Played(f"ipc://{tmp_path / 's'}")
    yield played
    played.close()


def _connect(service: Played, *, resend: bool = False, timeout_s: float = 10.0) -> Client:
    """The client waits for its welcome in its constructor; the service here has only this thread."""
    made: list[Client] = []
    thread = Thread(target=lambda: made.append(Client(service.endpoint, "cam", timeout_s, resend=resend)))
    thread.start()
    assert service.greet().next_id == 0
    thread.join(10)
    return made[0]


def test_frames_whose_answer_is_lost_come_as_unknown(service: Played) -> None:
    client = _connect(service)
    client.send(_IMAGE)
    client.send(_IMAGE, boxes=[(0, 0, 1, 1), (1, 1, 2, 2)], part_id="B", captured_ns=9)
    client.send(_IMAGE)
    for _ in range(3):
        service.receive()
    service.answer(0)
    assert [v.verdict.value for v in client.poll(10)] == ["pass"]
    service.end()
    lost = client.poll(10)
    assert [(v.frame_id, v.verdict, v.reason) for v in lost] == [
        (1, VerdictKind.UNKNOWN, "connection_lost"),
        (2, VerdictKind.UNKNOWN, "connection_lost"),
    ]
    assert (lost[0].part_id, lost[0].captured_ns, lost[0].outcome) == ("B", 9, Outcome.FAILED)
    assert [box.box for box in lost[0].boxes] == [(0, 0, 1, 1), (1, 1, 2, 2)]
    assert {box.verdict for v in lost for box in v.boxes} == {VerdictKind.UNKNOWN}
    service.begin()
    assert client.poll(0.3) == []
    assert service.greet().next_id == 3
    assert client.send(_IMAGE) == 3
    service.receive()
    service.answer(3)
    service.answer(1)  # an answer to what is given up already counts for nothing
    assert [v.frame_id for v in client.drain(10)] == [3]
    assert client.poll(0.1) == []
    assert client.close() == ClientAccount(sent=4, answered=2, lost=2)


def test_frames_are_sent_again_as_far_as_the_new_service_takes_them(service: Played) -> None:
    client = _connect(service, resend=True)
    for i in range(4):
        client.send(_IMAGE, deadline_ms=60_000, part_id=str(i))
        service.receive()
    service.answer(1)
    assert [v.frame_id for v in client.poll(10)] == [1]
    service.end()
    assert client.poll(0.3) == []
    service.begin()
    assert client.poll(0.3) == []
    assert service.greet(credits_=2).next_id == 0
    assert [(v.frame_id, v.reason) for v in client.poll(10)] == [(3, "connection_lost")]
    again = [service.receive(), service.receive()]
    assert [(h.frame_id, h.part_id) for h in again if isinstance(h, wire.SendFrame)] == [(0, "0"), (2, "2")]
    left_ms = [h.deadline_ms for h in again if isinstance(h, wire.SendFrame)]
    assert all(ms is not None and 1000 < ms < 59_700 for ms in left_ms)  # it has come nearer meanwhile
    service.answer(0)
    service.answer(2)
    assert sorted(v.frame_id for v in client.drain(10)) == [0, 2]
    assert client.close() == ClientAccount(sent=4, answered=3, lost=1, resent=2)


def test_a_service_that_came_back_before_the_client_looked(service: Played) -> None:
    """The frame reaches the new service before a hello does, which then says so."""
    client = _connect(service)
    service.end()
    service.begin()
    while not client._link.broken:
        client._link.wait(0.1)
    client._link.broken = False  # as if it had not looked yet
    client._dispatch(
        wire.SendFrame(frame_id=0, height_px=6, width_px=8, pixel_format="bgr8", captured_ns=0),
        _IMAGE.data,
    )
    assert isinstance(service.receive(), wire.SendFrame)
    service.say(wire.Refusal(code="hello_first", message="m", frame_id=0))
    assert [(v.frame_id, v.reason) for v in client.poll(10)] == [(0, "connection_lost")]
    client.poll(0.2)
    assert service.greet().next_id == 1
    assert client.close() == ClientAccount(sent=1, lost=1)


def test_a_service_that_stops_and_is_gone_answers_no_more(service: Played) -> None:
    client = _connect(service, resend=True)
    client.send(_IMAGE)
    service.receive()
    service.say(wire.Closing())
    assert client.poll(0.5) == []
    service.end()
    assert [v.reason for v in client.poll(10)] == ["connection_lost"]  # and there is nobody to send it to
    with pytest.raises(ProtocolError, match="the service is stopping and takes no more frames"):
        client.send(_IMAGE)
    assert client.close() == ClientAccount(sent=1, lost=1)


def test_a_service_that_stays_away(service: Played) -> None:
    client = _connect(service, timeout_s=0.3)
    service.end()
    client.poll(0.2)
    with pytest.raises(ProtocolError, match=r"not connected for 0\.3 s; the service is gone"):
        client.send(_IMAGE)
    assert client.close() == ClientAccount()


def test_a_service_that_came_back_and_does_not_want_us(service: Played) -> None:
    client = _connect(service)
    service.end()
    service.begin()
    client.poll(0.3)
    assert isinstance(service.receive(), wire.Hello)
    service.say(wire.Refusal(code="full", message="expected at most 2 clients"))
    client.poll(0.3)
    with pytest.raises(ProtocolError, match=r"refuses this client \(full: expected at most 2 clients\)"):
        client.send(_IMAGE)
    assert [refusal.code for refusal in client.refusals] == ["full"]
    client.close()
