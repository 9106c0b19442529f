"""`algan-stream watch`: verdicts as they come."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from algan_stream.commands.options import JsonOption, SecretKeyOption, ServerKeyOption, client_keys
from algan_stream.subscriber import Subscriber
from algan_stream.types import FrameVerdict, VerdictKind

_STYLE = {VerdictKind.PASS: "green", VerdictKind.REJECT: "red", VerdictKind.UNKNOWN: "yellow"}


def watch(
    at: Annotated[
        str, typer.Argument(help="Where the service's `zmq_pub` sink is bound.")
    ] = "tcp://127.0.0.1:5556",
    camera: Annotated[str, typer.Option(help="Only this camera.")] = "",
    count: Annotated[int, typer.Option(help="End after this many verdicts; 0 = never.", min=0)] = 0,
    secret_key: SecretKeyOption = None,
    server_key: ServerKeyOption = None,
    json_: JsonOption = False,
) -> None:
    """Show verdicts as a service publishes them, and on standard error how many were missed."""
    seen = missed = 0
    with Subscriber(at, camera, curve=client_keys(secret_key, server_key)) as verdicts:
        try:
            while count == 0 or seen < count:
                for verdict in verdicts.poll(timeout_s=1.0, most=count - seen if count else 1000):
                    seen += 1
                    typer.echo(msgspec.json.encode(verdict) if json_ else _line(verdict))
                if (total := verdicts.missed.total()) > missed:
                    typer.echo(
                        f"missed {total - missed} verdicts: they came faster than they were read", err=True
                    )
                    missed = total
        except KeyboardInterrupt:
            pass


def _line(verdict: FrameVerdict) -> str:
    scores = [box.score for box in verdict.boxes if box.score is not None]
    score = f"{max(scores):+9.4f}" if scores else "        –"
    limit = "–" if verdict.threshold is None else f"{verdict.threshold:.4f}"
    kind = typer.style(f"{verdict.verdict.value:8}", fg=_STYLE[verdict.verdict])
    return (
        f"{verdict.camera}/{verdict.frame_id:<8} {kind} {score} (threshold {limit}) "
        f"{verdict.stages.total_ms:6.1f} ms  {verdict.part_id} {verdict.reason}"
    )
