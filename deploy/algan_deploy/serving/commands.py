"""`algan-stream export`: a bundle into the model repository of an inference server."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from algan_deploy.serving.export import MARK, Options
from algan_deploy.serving.export import export as write
from algan_stream.bundle import read_bundle
from algan_stream.commands.options import BundleArgument, JsonOption


class ServerKind(str, Enum):
    """What shall serve it."""

    TRITON = "triton"
    OVMS = "ovms"


class ServedPrecision(str, Enum):
    """What the server computes in."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


def export(
    bundle: BundleArgument,
    to: Annotated[ServerKind, typer.Option(help="NVIDIA Triton or OpenVINO Model Server.")],
    out: Annotated[Path, typer.Option(help="The server's model repository; other models in it stay.")],
    name: Annotated[str, typer.Option(help="Name of the model; by default the bundle's.")] = "",
    max_batch: Annotated[
        int | None, typer.Option(help="Most images in one run (Triton); 8 if not given.")
    ] = None,
    instances: Annotated[int, typer.Option(help="Batches that run at the same time.")] = 1,
    precision: Annotated[
        ServedPrecision, typer.Option(help="What the server computes in; fp16 only with --plan.")
    ] = ServedPrecision.FP32,
    plan: Annotated[
        Path | None, typer.Option(help="TensorRT engine built from this bundle, served instead (Triton).")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Write a bundle's model for an inference server: Triton or OpenVINO Model Server.

    A line then scores through it with `engine: {kind: triton, url: …, model: NAME}`.
    """
    options = Options(
        to=to.value,
        name=name,
        max_batch=max_batch,
        instances=instances,
        precision=precision.value,
        plan=plan,
    )
    target = write(read_bundle(bundle), out, options)
    if json_:
        mark = msgspec.json.decode((target / MARK).read_bytes())
        typer.echo(msgspec.json.encode({"path": str(target), "name": target.name, **mark}))
        return
    typer.echo(f"{target}: ready for {to.value}; check it with a line of `engine: {{kind: triton, …}}`")
