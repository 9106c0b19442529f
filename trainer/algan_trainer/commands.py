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


class Device(str, Enum):
    """What `train` computes on."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def train(
    data: Annotated[
        Path, typer.Argument(help="Images (folder or manifest.csv), or tables of vectors (.npy, .csv).")
    ],
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
    layout: Annotated[
        str | None,
        typer.Option(help="folder, mvtec, visa, mtd, coil100, coil20 or manifest; by default told."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="given: the data's own split; random: by the seed, as in the paper.")
    ] = None,
    group_aware: Annotated[
        bool, typer.Option("--group-aware", help="Keep images of the same part on one side of the split.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out images that cannot be decoded, and count them.")
    ] = False,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="By default all that this process may use.")
    ] = None,
    device: Annotated[
        Device, typer.Option(help="What to train on; auto: a CUDA GPU where there is one.")
    ] = Device.AUTO,
    devices: Annotated[
        int, typer.Option(min=1, help="Processes that share each batch, each on its own GPU, or on the CPU.")
    ] = 1,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the networks; pays in long trainings on a GPU.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of the model; by default that of OUT.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a bundle that stands at OUT.")
    ] = False,
    stop_after_epochs: Annotated[
        int | None, typer.Option(min=1, help="Stop, resumable, after so many epochs.")
    ] = None,
    backbone: Annotated[
        Path | None, typer.Option(help="ONNX backbone: train on its features (ALGAN-feature).")
    ] = None,
    feature_cache: Annotated[
        Path | None, typer.Option(help="For computed features; by default in the work dir.")
    ] = None,
    report_pictures: Annotated[
        int, typer.Option(min=0, max=99, help="Most pictures in each group of the report; 0: none.")
    ] = 12,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Log losses, AUROC and samples for TensorBoard to this folder.")
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
        device=device.value,
        devices=devices,
        compiled=compiled,
        overwrite=overwrite,
        stop_after_epochs=stop_after_epochs,
        backbone=backbone,
        feature_cache=feature_cache,
        report_pictures=report_pictures,
        tensorboard=tensorboard,
    )
    changes = {
        "network.kind": "feature" if backbone else None,
        "network.size_px": size,
        "network.width": width,
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
        "data.layout": layout,
        "data.split": split,
        "data.group_aware": group_aware or None,
        "data.skip_bad": skip_bad or None,
        "precision": precision,
    }
    bundle = run(read_config(config) if config else None, changes, request)
    typer.echo(bundle.path)


def evaluate(
    bundle: Annotated[str, typer.Argument(help="Model bundle, or `demo`.")],
    data: Annotated[Path, typer.Argument(help="Labelled images in any layout, or tables of vectors.")],
    *,
    json: Annotated[Path | None, typer.Option(help="Write all numbers and scores to this file.")] = None,
    split: Annotated[
        Split | None,
        typer.Option(help="By default every image that neither trained the model nor chose its checkpoint."),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(help="folder, mvtec, visa, mtd, coil100, coil20 or manifest; by default told."),
    ] = None,
    pixel: Annotated[
        bool,
        typer.Option(
            "--pixel", help="Also compare saliency maps with the data's masks: where the defect is."
        ),
    ] = False,
    threads: Annotated[int, typer.Option(min=0, help="0: all that this process may use.")] = 0,
    report: Annotated[
        Path | None, typer.Option(help="Write a page of it to this folder: index.html, pictures, tables.")
    ] = None,
    report_pictures: Annotated[
        int, typer.Option(min=0, max=99, help="Most pictures in each group of the report; 0: none.")
    ] = 12,
) -> None:
    """Judge a bundle on labelled images: AUROC, false rejects, detection, by type of defect."""
    import msgspec

    from algan_stream.bundle import read_bundle
    from algan_stream.engines.openvino import Config as EngineConfig
    from algan_trainer.judge import judge
    from algan_trainer.report.evaluation import check_folder, write_evaluation_report

    if report is not None:  # refused before the work, not after
        check_folder(report)
    opened = read_bundle(bundle)
    engine = EngineConfig(threads=threads)
    result = judge(opened, data, split.value if split else None, engine, layout or "auto", pixel=pixel)
    if json is not None:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    if report is not None:
        write_evaluation_report(report, opened, data, result, split.value if split else None, report_pictures)
    pixels = result.get("pixel", {})
    summary = {key: value for key, value in (result | pixels).items() if not isinstance(value, (list, dict))}
    for key, value in summary.items():
        typer.echo(f"{key}: {_shown(value)}")
    for kind, numbers in result["per_type"].items():
        numbers |= {k: v for k, v in pixels.get("per_type", {}).get(kind, {}).items() if k != "n"}
        typer.echo(f"{kind}: " + ", ".join(f"{key} {_shown(value)}" for key, value in numbers.items()))


def add_explanation(
    bundle: Annotated[Path, typer.Argument(help="Model bundle for images.")],
    data: Annotated[Path, typer.Argument(help="Images in any layout, best those it was trained on.")],
) -> None:
    """Give a bundle that lacks one the graph for `score --explain`; its model and verdicts stay."""
    from algan_stream.bundle import read_bundle
    from algan_trainer import add_explanation as adding

    typer.echo(adding.add_explanation(read_bundle(bundle), data).path)


def _shown(value: float | int | None) -> str:
    if value is None:
        return "none"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
