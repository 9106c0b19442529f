"""The subcommands `algan-stream backbone …`. Importing this must not import torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Pretrained networks whose features ALGAN-feature is trained on.", no_args_is_help=True
)


@app.command("export")
def export(
    name: Annotated[
        str, typer.Argument(help="efficientnet-lite0, -lite1, -lite2, wide_resnet101_2 or another name.")
    ],
    *,
    out: Annotated[Path, typer.Option(help="The ONNX file to write.")],
    weights: Annotated[
        Path | None,
        typer.Option(help=".safetensors, or .pth of nothing but tensors; by default the library's own."),
    ] = None,
    library: Annotated[str | None, typer.Option(help="torchvision or timm; by default either.")] = None,
    taps: Annotated[
        str | None, typer.Option(help="Modules to take features from, shallowest first: a,b,c.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder with images to compare on; by default the demo's.")
    ] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Not pretrained: only to try out the graph.")
    ] = False,
) -> None:
    """Make an ONNX backbone from a PyTorch network, and compare the two on images."""
    from algan_stream.errors import ConfigError, PluginError

    if random_weights and weights:
        raise ConfigError("--weights and --random-weights exclude each other")
    try:
        from algan_trainer.backbone.making import make_backbone
        from algan_trainer.backbone.networks import load_network
    except ImportError as error:
        raise PluginError(
            f"this needs the Python package {error.name}: pip install 'algan-stream[train,backbone]'"
        ) from error
    wanted = tuple(part.strip() for part in taps.split(",")) if taps else ()
    network = load_network(name, library, weights, wanted, random=random_weights)
    backbone, difference = make_backbone(network, name, out, images)
    channels = ", ".join(f"{tap} {of.channels}" for tap, of in backbone.taps.items())
    typer.echo(f"{out}: {network.source}; {network.crop_px} px; features: {channels}")
    typer.echo(f"largest difference from PyTorch: {difference:.2g} of the largest feature")
    typer.echo(f"sha256: {backbone.sha256}")


@app.command("inspect")
def inspect(file: Annotated[Path, typer.Argument(help="An ONNX backbone.")]) -> None:
    """Show what a backbone takes and gives."""
    from algan_stream.errors import PluginError

    try:
        from algan_trainer.backbone.file import read_backbone
    except ImportError as error:
        raise PluginError(
            f"this needs the Python package {error.name}: pip install 'algan-stream[train]'"
        ) from error
    backbone = read_backbone(file)
    typer.echo(f"input: {backbone.input_name} (N, 3, {backbone.size_px or 'H'}, {backbone.size_px or 'W'})")
    for tap, of in backbone.taps.items():
        typer.echo(f"output: {tap}, {of.channels} {'channels' if of.is_map else 'numbers'}")
    if backbone.info is None:
        typer.echo("no metadata: feature.crop_px, feature.mean and feature.std must be given to train on it")
    else:
        for key in ("name", "resize_px", "crop_px", "mean", "std", "features", "source"):
            typer.echo(f"{key}: {getattr(backbone.info, key)}")
    typer.echo(f"opset: {backbone.opset}")
    typer.echo(f"sha256: {backbone.sha256}")
