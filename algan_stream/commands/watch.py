"""`algan-stream watch`: verdicts as they come."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
import zmq

from algan_stream import wire
from algan_stream.commands.options import JsonOption
from algan_stream.errors import InputError
from algan_stream.types import FrameVerdict, VerdictKind

_STYLE = {VerdictKind.PASS: "green", VerdictKind.REJECT: "red", VerdictKind.UNKNOWN: "yellow"}


def watch(
    at: Annotated[
        str, typer.Argument(help="Where the service's `zmq_pub` sink is bound.")
    ] = "tcp://127.0.0.1:5556",
    camera: Annotated[str, typer.Option(help="Only this camera.")] = "",
    count: Annotated[int, typer.Option(help="End after this many verdicts; 0 = never.", min=0)] = 0,
    json_: JsonOption = False,
) -> None:
    """Show verdicts as a service publishes them."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SUBSCRIBE, wire.TOPIC_PREFIX + camera.encode())
    try:
        socket.connect(at)
    except zmq.ZMQError as error:
        raise InputError(
            f"expected ipc://PATH or tcp://ADDRESS:PORT, got {at!r}: {error.strerror}"
        ) from error
    seen = 0
    try:
        while count == 0 or seen < count:
            topic, payload = socket.recv_multipart()
            if camera and topic != wire.TOPIC_PREFIX + camera.encode():
                continue  # subscriptions match prefixes: cam1 would also bring cam10
            verdict = wire.decode_verdict(payload)
            seen += 1
            typer.echo(msgspec.json.encode(verdict) if json_ else _line(verdict))
    except KeyboardInterrupt:
        pass
    finally:
        socket.close()


def _line(verdict: FrameVerdict) -> str:
    scores = [box.score for box in verdict.boxes if box.score is not None]
    score = f"{max(scores):+9.4f}" if scores else "        –"
    limit = "–" if verdict.threshold is None else f"{verdict.threshold:.4f}"
    kind = typer.style(f"{verdict.verdict.value:8}", fg=_STYLE[verdict.verdict])
    return (
        f"{verdict.camera}/{verdict.frame_id:<8} {kind} {score} (threshold {limit}) "
        f"{verdict.stages.total_ms:6.1f} ms  {verdict.part_id} {verdict.reason}"
    )
