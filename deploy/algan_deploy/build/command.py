"""`algan-stream build`: compiles a bundle's graph for the machine that will run it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args

import msgspec
import typer

from algan_deploy.build import tensorrt, tensorrt_rtx
from algan_deploy.build.request import Built, Request
from algan_stream import plugins
from algan_stream.bundle import read_bundle
from algan_stream.commands.options import BundleArgument, JsonOption
from algan_stream.config import read_line
from algan_stream.engines.cache import EngineCache, cache_folder
from algan_stream.engines.tensorrt_common import Precision, TensorRtConfig
from algan_stream.errors import ConfigError

#: Name in `--target` → what builds it.
TARGETS: dict[str, Callable[[Request], list[Built]]] = {
    "tensorrt": tensorrt.build,
    "tensorrt-rtx": tensorrt_rtx.build,
}


def build(
    bundle: BundleArgument,
    target: Annotated[
        str, typer.Option(help="tensorrt: for the device here; tensorrt-rtx:sm80,sm86: for these, anywhere.")
    ],
    precision: Annotated[
        str | None, typer.Option(help="fp32 (default), fp16, or int8 (needs the bundle's int8 graph).")
    ] = None,
    min_batch: Annotated[int | None, typer.Option(help="Smallest batch; default 1.")] = None,
    opt_batch: Annotated[int | None, typer.Option(help="Batch to tune for; default the largest.")] = None,
    max_batch: Annotated[int | None, typer.Option(help="Largest batch; default 8.")] = None,
    line: Annotated[
        Path | None,
        typer.Option(help="Take precision, batches and cache from this line.", metavar="LINE.yaml"),
    ] = None,
    device: Annotated[int | None, typer.Option(help="Number of the CUDA device; default 0.")] = None,
    dla: Annotated[
        int | None, typer.Option(help="Core of a Jetson's accelerator instead of the GPU.")
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Let later TensorRT versions load the engine.")
    ] = False,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="Let any GPU from Ampere on load the engine.")
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of engines; default ALGAN_ENGINE_CACHE, or in the bundle.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build again what is there already.")] = False,
    json_: JsonOption = False,
) -> None:
    """Compile a bundle's graph into engines for the machines that will run it, and keep them in its cache.

    What was built before is found again, unless --force. A service that finds its engine missing says which
    call of this command builds it.
    """
    name, _, listed = target.partition(":")
    if name not in TARGETS:
        raise ConfigError(f"--target: expected one of {', '.join(TARGETS)}, got {target!r}")
    capabilities = tuple(part.strip().lower() for part in listed.split(",") if part.strip())
    given = {
        "precision": precision,
        "min_batch": min_batch,
        "opt_batch": opt_batch,
        "max_batch": max_batch,
        "device": device,
        "dla": dla,
        "cache": None if cache is None else str(cache),
    }
    config = _config(name.replace("-", "_"), {k: v for k, v in given.items() if v is not None}, line)
    opened = read_bundle(bundle)
    request = Request(
        bundle=opened,
        cache=EngineCache(cache_folder(opened, config.cache)),
        precision=config.precision,
        batch=config.batch,
        capabilities=capabilities,
        device=config.device,
        dla=config.dla,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        force=force,
    )
    built = TARGETS[name](request)
    if json_:
        typer.echo(msgspec.json.encode(built))
        return
    for engine in built:
        typer.echo(f"{'found' if engine.found else 'built'}: {_line(engine)}")
    typer.echo(f"in {request.cache.folder}")


def _config(kind: str, given: dict[str, Any], line: Path | None) -> TensorRtConfig:
    """The section `engine` that such engines serve: a line's, with what is given on top."""
    section: dict[str, Any] = {"kind": kind}
    if line is not None:
        section = read_line(line).engine
        if section.get("kind") != kind:
            raise ConfigError(
                f"{line}: engine.kind: expected {kind} for this target, got {section.get('kind')!r}"
            )
    if "precision" in given and given["precision"] not in get_args(Precision):
        raise ConfigError(
            f"--precision: expected one of {', '.join(get_args(Precision))}, got {given['precision']}"
        )
    module = plugins.load("engines", section, "engine")[0]
    config: TensorRtConfig = plugins.convert({**section, **given}, module.Config, "engine")
    return config


def _line(engine: Built) -> str:
    low, best, high = engine.batch
    flags = f", {' '.join(engine.flags)}" if engine.flags else ""
    return (
        f"{engine.kind} {engine.version} {engine.device} {engine.precision}, "
        f"batch {low} to {high} (best {best}), "
        f"{engine.size_bytes / 2**20:.1f} MiB in {engine.build_s:.1f} s{flags}, key {engine.key[:12]}"
    )
