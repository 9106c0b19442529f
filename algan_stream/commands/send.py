"""`algan-stream send`: a folder or a video as a camera over ZeroMQ."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Annotated, cast

import msgspec
import numpy as np
import numpy.typing as npt
import typer

from algan_stream.client import Client
from algan_stream.commands.options import (
    BoxesOption,
    JsonOption,
    SecretKeyOption,
    ServerKeyOption,
    client_keys,
    read_boxes,
)
from algan_stream.errors import InputError, ProtocolError
from algan_stream.ledger import Ledger
from algan_stream.sources import folder, table, video
from algan_stream.sources.base import Source, SourceContext
from algan_stream.tables import is_table
from algan_stream.types import Frame, PixelFormat


def send(
    path: Annotated[Path, typer.Argument(help="Folder of images, video file, or table (.npy, .csv).")],
    to: Annotated[
        str, typer.Option(help="Where the service's `zmq` source is bound.")
    ] = "tcp://127.0.0.1:5555",
    camera: Annotated[str, typer.Option(help="Name of the camera; empty: the service's own.")] = "",
    fps: Annotated[
        float, typer.Option(help="Frames or rows per second; 0 = as fast as the service takes them.")
    ] = 25.0,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again after the last frame.")] = False,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Play images in random order.")] = False,
    boxes: BoxesOption = None,
    deadline_ms: Annotated[float | None, typer.Option(help="Verdicts later than this are unknown.")] = None,
    resend: Annotated[
        bool, typer.Option("--resend", help="Send frames again whose verdict was lost with the connection.")
    ] = False,
    secret_key: SecretKeyOption = None,
    server_key: ServerKeyOption = None,
    json_: JsonOption = False,
) -> None:
    """Play a folder, video or table as a camera, wait for every verdict, and account for every frame.

    Ends with 0 only if every frame was sent and has a verdict, else with 8.
    """
    boxes_by_image = read_boxes(boxes)
    if boxes_by_image is not None and is_table(path):
        raise InputError(f"--boxes: {path} is a table of vectors, which have no boxes")
    source = _source(path, fps, loop, shuffle)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    verdicts: Counter[str] = Counter()
    unreadable, broken = 0, ""
    with Client(to, camera, curve=client_keys(secret_key, server_key), resend=resend) as client:
        try:
            for frame in source.frames(stop):
                if frame.fault:
                    typer.echo(f"{frame.part_id or path}: {frame.fault}", err=True)
                    unreadable += 1
                    client.skip()
                    continue
                own = None if boxes_by_image is None else boxes_by_image.get(frame.part_id)
                _send(client, frame, own, deadline_ms)
                verdicts.update(verdict.verdict.value for verdict in client.poll())
        except ProtocolError as error:
            broken = str(error)
        verdicts.update(verdict.verdict.value for verdict in client.drain(timeout_s=10.0))
        account = client.close()
    interrupted = stop.is_set() and not loop  # a loop has no other end
    report = {
        **msgspec.to_builtins(account),
        "unreadable": unreadable,
        "interrupted": interrupted,
        "verdicts": dict(verdicts),
        "error": broken,
    }
    typer.echo(
        msgspec.json.encode(report) if json_ else ", ".join(f"{k} {v}" for k, v in report.items() if v)
    )
    if account.answered != account.sent or unreadable or broken or interrupted:
        raise typer.Exit(8)


def _send(
    client: Client, frame: Frame, boxes: npt.NDArray[np.float32] | None, deadline_ms: float | None
) -> None:
    if frame.vector is not None:
        client.send_vector(
            frame.vector, part_id=frame.part_id, deadline_ms=deadline_ms, captured_ns=frame.captured_ns
        )
        return
    client.send(
        frame.image,
        pixel_format=cast(PixelFormat, frame.pixel_format),  # `send` refuses any other
        boxes=boxes,
        part_id=frame.part_id,
        deadline_ms=deadline_ms,
        captured_ns=frame.captured_ns,
    )


def _source(path: Path, fps: float, loop: bool, shuffle: bool) -> Source:
    context = SourceContext("send", None, 1, Ledger(), lambda camera, queue_size: None)
    if path.is_dir():
        return folder.create(folder.Config(path=str(path), fps=fps, loop=loop, shuffle=shuffle), context)
    if is_table(path):
        return table.create(table.Config(path=str(path), fps=fps, loop=loop, shuffle=shuffle), context)
    return video.create(video.Config(path=str(path), fps=fps, loop=loop), context)
