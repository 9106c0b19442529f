"""The subcommands `algan-stream train` and `algan-stream evaluate`. Importing this must not import torch."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Split(str, Enum):
    """Which images `evaluate` takes."""

    TEST = "test"
    VALIDATION = "validation"
    ALL = "all"


def train(
    data: Annotated[Path, typer.Argument(help="Folder of good images, or MVTec AD or MTD layout.")],
    *,
    out: Annotated[Path, typer.Option(help="Where the model bundle shall stand.")],
    size: Annotated[
        int | None, typer.Option(help="Side of the network's input: 32, 64, 128, 256 or 512.")
    ] = None,
    width: Annotated[int | None, typer.Option(help="Channels after the first convolution.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the images.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a batch.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the split, the weights and everything random.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    config: Annotated[Path | None, typer.Option(help="TOML file; options given here win over it.")] = None,
    work_dir: Annotated[Path | None, typer.Option(help="For checkpoints; by default OUT.training.")] = None,
    false_reject_rate: Annotated[
        float | None,
        typer.Option(
            help="Share of good parts that may be rejected; by default the least supported, 1 % or more."
        ),
    ] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="By default all that this process may use.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; by default that of OUT.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a bundle that stands at OUT.")
    ] = False,
    stop_after_epochs: Annotated[
        int | None, typer.Option(min=1, help="Stop, resumable, after so many epochs.")
    ] = None,
) -> None:
    """Train on images of good parts and write a model bundle."""
    from algan_stream.errors import PluginError
    from algan_trainer.config import read_config

    try:
        from algan_trainer.run import run
        from algan_trainer.session import Request
    except ImportError as error:
        raise PluginError(
            f"training needs the Python package {error.name}: pip install 'algan-stream[train]'"
        ) from error

    request = Request(
        data=data,
        out=out,
        work_dir=work_dir or out.with_name(out.name + ".training"),
        resume=resume,
        name=name,
        false_reject_rate=false_reject_rate,
        threads=threads,
        overwrite=overwrite,
        stop_after_epochs=stop_after_epochs,
    )
    changes = {
        "network.size_px": size,
        "network.width": width,
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
        "precision": precision,
    }
    bundle = run(read_config(config) if config else None, changes, request)
    typer.echo(bundle.path)


def evaluate(
    bundle: Annotated[str, typer.Argument(help="Model bundle, or `demo`.")],
    data: Annotated[Path, typer.Argument(help="Labelled images: MVTec AD or MTD layout, or good ones only.")],
    *,
    json: Annotated[Path | None, typer.Option(help="Write all numbers and scores to this file.")] = None,
    split: Annotated[
        Split | None,
        typer.Option(help="By default every image that neither trained the model nor chose its checkpoint."),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="0: all that this process may use.")] = 0,
) -> None:
    """Judge a bundle on labelled images: AUROC, false rejects, detection, by type of defect."""
    import msgspec

    from algan_stream.bundle import read_bundle
    from algan_stream.engines.openvino import Config as EngineConfig
    from algan_trainer.judge import judge

    result = judge(read_bundle(bundle), data, split.value if split else None, EngineConfig(threads=threads))
    if json is not None:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    summary = {key: value for key, value in result.items() if key not in ("scores", "per_type")}
    for key, value in summary.items():
        typer.echo(f"{key}: {_shown(value)}")
    for kind, numbers in result["per_type"].items():
        typer.echo(f"{kind}: " + ", ".join(f"{key} {_shown(value)}" for key, value in numbers.items()))


def _shown(value: float | int | None) -> str:
    if value is None:
        return "none"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
