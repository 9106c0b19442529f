"""The two ends of each way from process to process; run by transport.py, in the peers' environment for peers.

    python transport_ends.py send|receive WAY ADDRESS SECONDS

Every receiver does the same with each frame: reads one number of every cache line of it. The clock runs at
the receiver, from its 20th frame on.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np
import numpy.typing as npt

SHAPE = (1080, 1920, 3)
_WARM_UP = 20

Image = npt.NDArray[np.uint8]


def images() -> Iterator[Image]:
    """Four frames in turns, for ever: no sender finds its frame in the cache."""
    rng = np.random.default_rng(0)
    return cycle([rng.integers(0, 256, SHAPE, np.uint8) for _ in range(4)])


def read(image: Image) -> None:
    """One number of every cache line."""
    assert image.shape == SHAPE
    np.bitwise_xor.reduce(image.reshape(-1).view(np.uint64)[::8])


def measure(frames: Iterator[Image], seconds: float) -> None:
    """Prints frames per second."""
    for image in islice(frames, _WARM_UP):
        read(image)
    began, count = time.perf_counter(), 0
    for image in frames:
        read(image)
        count += 1
        if time.perf_counter() - began > seconds:
            break
    sys.stdout.write(f"{count / (time.perf_counter() - began)}\n")
    sys.stdout.flush()


# ---- peers ----------------------------------------------------------------------------------------------


def imagezmq_send(address: str) -> None:
    """Sends for ever."""
    import imagezmq

    sender = imagezmq.ImageSender(connect_to=address)
    for image in images():
        sender.send_image("cam", image)


def imagezmq_receive(address: str, seconds: float) -> None:
    """Receives, reads, answers."""
    import imagezmq

    hub = imagezmq.ImageHub(open_port=address)

    def frames() -> Iterator[Image]:
        while True:
            _, image = hub.recv_image()
            yield image
            hub.send_reply(b"OK")  # the next one is sent after this; it has been read

    measure(frames(), seconds)


def _netgear(address: str, receive: bool) -> Any:
    from vidgear.gears import NetGear

    host, _, port = address.removeprefix("tcp://").rpartition(":")
    options = {"jpeg_compression": False, "copy": False, "track": False}  # raw, and its fastest
    return NetGear(
        address=host, port=port, protocol="tcp", pattern=0, receive_mode=receive, logging=False, **options
    )


def netgear_send(address: str) -> None:
    """Sends for ever."""
    server = _netgear(address, False)
    for image in images():
        server.send(image)


def netgear_receive(address: str, seconds: float) -> None:
    """Receives, reads, answers."""
    client = _netgear(address, True)

    def frames() -> Iterator[Image]:
        while (image := client.recv()) is not None:
            yield image

    measure(frames(), seconds)


# ---- ours -----------------------------------------------------------------------------------------------


def ours_send(address: str, shm: str = "never", *, in_place: bool = False, keys: bool = False) -> None:
    """Sends for ever."""
    from algan_stream.client import Client
    from algan_stream.curve import ClientKeys

    curve = ClientKeys(secret_key="client.key_secret", server_key="service.key") if keys else None
    with Client(address, "cam", shm=shm, curve=curve) as client:  # type: ignore[arg-type]
        for i, image in enumerate(images()):
            if in_place:
                with client.slot(*SHAPE[:2]) as slot:
                    slot.image.fill(i & 255)
                    slot.send()
            else:
                client.send(image)
            client.poll()


def ours_receive(address: str, seconds: float, *, keys: bool = False) -> None:
    """The service's own source, answering each frame once it has been read, as the pipeline does."""
    from algan_stream.curve import CurveConfig
    from algan_stream.heap import keep_large_messages
    from algan_stream.ledger import Ledger
    from algan_stream.sources import zmq as source
    from algan_stream.sources.base import SourceContext
    from algan_stream.types import BoxVerdict, FrameVerdict, Outcome, VerdictKind

    keep_large_messages()  # as `algan-stream run` does
    context = SourceContext("cam", None, 16, Ledger(), lambda *_: None)
    curve = CurveConfig(secret_key="service.key_secret", allow="client.key") if keys else None
    host = source.create(source.Config(bind=address, curve=curve), context)
    box = BoxVerdict(verdict=VerdictKind.PASS, score=-1.0, p_value=0.5)

    def frames() -> Iterator[Image]:
        for frame in host.frames(threading.Event()):
            assert not frame.fault, frame.fault
            yield frame.image
            assert frame.intact is None or frame.intact()
            assert frame.reply
            frame.reply(
                FrameVerdict(
                    camera=frame.camera,
                    frame_id=frame.frame_id,
                    verdict=VerdictKind.PASS,
                    boxes=(box,),
                    outcome=Outcome.SCORED,
                    captured_ns=frame.captured_ns,
                )
            )

    measure(frames(), seconds)


SEND: dict[str, Callable[[str], None]] = {
    "ours, shared memory": lambda address: ours_send(address, "always"),
    "ours, shared memory, in place": lambda address: ours_send(address, "always", in_place=True),
    "ours, ipc": ours_send,
    "ours, tcp": ours_send,
    "ours, tcp with CURVE": lambda address: ours_send(address, keys=True),
    "imagezmq": imagezmq_send,
    "NetGear": netgear_send,
}


def main() -> None:
    """One end of one way."""
    end, way, address, seconds = sys.argv[1:]
    if end == "send":
        SEND[way](address)
    else:
        receive = {
            "imagezmq": imagezmq_receive,
            "NetGear": netgear_receive,
            "ours, tcp with CURVE": partial(ours_receive, keys=True),
        }.get(way, ours_receive)
        receive(address, float(seconds))


if __name__ == "__main__":
    main()
