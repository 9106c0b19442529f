"""Publishes over ZeroMQ: topic `verdict.CAMERA`, a msgpack `FrameVerdict`, its `Place` (see `wire.py`)."""

from __future__ import annotations

import time
from collections import Counter
from typing import Literal

import msgspec
import zmq

from algan_stream import endpoints, wire
from algan_stream.curve import CurveConfig
from algan_stream.errors import ConfigError
from algan_stream.sinks.base import Sink
from algan_stream.types import FrameVerdict


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sink with `kind: zmq_pub`.

    Attributes:
        bind: `ipc://PATH` or `tcp://ADDRESS:PORT`.
        high_water_mark: Verdicts held for a slow subscriber; when they are full, that subscriber misses
            the next ones and no one else does. It can count them: `Place.sequence`.
        curve: Own keys and those of subscribers who may connect; needed where other hosts reach the address.
        insecure: Allow that without encryption or authentication.
    """

    kind: Literal["zmq_pub"]
    bind: str
    high_water_mark: int = 10_000
    curve: CurveConfig | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.high_water_mark <= 10_000_000:
            raise ValueError(f"high_water_mark: expected 1 to 10000000, got {self.high_water_mark}")


class ZmqPubSink(Sink):
    """PUB socket; the pipeline's lock makes its use from several threads safe."""

    def __init__(self, config: Config) -> None:
        self._run = time.time_ns()
        self._sequences: Counter[str] = Counter()  # by camera
        # A context of its own: only its end makes sure that the last verdicts are out before the process is.
        self._zmq = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._zmq.socket(zmq.PUB)
        self._socket.setsockopt(zmq.SNDHWM, config.high_water_mark)
        self._socket.setsockopt(zmq.LINGER, 1000)
        try:
            self.endpoint, self.doorman = endpoints.listen(
                self._socket, config.bind, insecure=config.insecure, curve=config.curve
            )
        except ConfigError:
            self._zmq.destroy(linger=0)
            raise

    def write(self, verdict: FrameVerdict) -> None:
        """Publishes one verdict; never waits for a subscriber."""
        topic = wire.TOPIC_PREFIX + verdict.camera.encode()
        place = wire.Place(run=self._run, sequence=self._sequences[verdict.camera])
        self._sequences[verdict.camera] += 1
        self._socket.send_multipart((topic, wire.encode(verdict), wire.encode(place)), zmq.NOBLOCK)

    def close(self) -> None:
        """Closes the socket after what is queued is out, for at most a second."""
        if self.doorman:
            self.doorman.close()
        self._socket.close()
        self._zmq.term()


def create(config: Config) -> ZmqPubSink:
    """Binds the socket.

    Raises:
        ConfigError: The endpoint cannot be bound, or is open to other hosts without `curve` or `insecure`.
    """
    return ZmqPubSink(config)
