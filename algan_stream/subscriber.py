"""Verdicts as a `zmq_pub` sink publishes them, and how many were missed.

with Subscriber("tcp://127.0.0.1:5556") as verdicts:
    for verdict in verdicts.poll(timeout_s=1.0):
        ...
"""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType

import zmq

from algan_stream import wire
from algan_stream.curve import ClientKeys
from algan_stream.errors import ProtocolError
from algan_stream.link import Link
from algan_stream.types import FrameVerdict


class Subscriber:
    """Listens to one service; for one thread. Connects again by itself.

    A publisher waits for nobody: who reads too slowly, or was away, misses verdicts. What was missed is
    counted from the numbers that verdicts carry.

    Args:
        endpoint: Where the service's `zmq_pub` sink is bound.
        camera: Only this one; empty: all.
        curve: Own key and the service's, where the sink has `curve`.

    Raises:
        InputError: The endpoint is malformed.
        ConfigError: A key file cannot be used.
    """

    def __init__(self, endpoint: str, camera: str = "", *, curve: ClientKeys | None = None) -> None:
        #: Verdicts that were published and did not come, by camera: those between two that came, and after
        #: the publisher was started anew, all before the first one that came.
        self.missed: Counter[str] = Counter()
        self._endpoint = endpoint
        self._topic = wire.TOPIC_PREFIX + camera.encode()
        self._camera = camera
        self._places: dict[str, wire.Place] = {}
        self._link = Link(endpoint, zmq.SUB, curve)
        self._link.socket.setsockopt(zmq.SUBSCRIBE, self._topic)

    def poll(self, timeout_s: float = 0.0, most: int = 1000) -> list[FrameVerdict]:
        """Returns up to `most` verdicts that have come, waiting for the first if there is none.

        Raises:
            ProtocolError: The service turned us away for our keys, or sends something else.
        """
        give_up = time.monotonic() + timeout_s
        came: list[FrameVerdict] = []
        while True:
            self._link.wait(max(0.0, give_up - time.monotonic()) if not came else 0.0)
            while len(came) < most and (parts := self._link.receive()) is not None:
                if (verdict := self._take(parts)) is not None:
                    came.append(verdict)
            if came or time.monotonic() >= give_up:
                return came
            if self._link.broken and self._link.failure:
                raise ProtocolError(f"{self._endpoint}: {self._link.failure}")

    def close(self) -> None:
        """Ends the connection. May be called twice."""
        self._link.close()

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, parts: list[bytes]) -> FrameVerdict | None:
        if len(parts) != 3:
            raise ProtocolError(
                f"{self._endpoint}: expected topic, verdict and place, got {len(parts)} parts"
            )
        if self._camera and parts[0] != self._topic:
            return None  # subscriptions match prefixes: cam1 would also bring cam10
        verdict, place = wire.decode_verdict(parts[1]), wire.decode_place(parts[2])
        last = self._places.get(verdict.camera)
        if last is not None:
            expected = last.sequence + 1 if last.run == place.run else 0
            self.missed[verdict.camera] += max(0, place.sequence - expected)
        self._places[verdict.camera] = place
        return verdict
