"""`algan-stream bundle wrap`: somebody else's ONNX model becomes a bundle. Imports nothing heavy."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from algan_deploy.wrap.spec import InputRange
from algan_stream.errors import ConfigError


class Higher(str, Enum):
    """What a high score of the model means."""

    ANOMALOUS = "anomalous"
    NORMAL = "normal"


class Order(str, Enum):
    """Order of the model's colours."""

    RGB = "rgb"
    BGR = "bgr"


def wrap(
    model: Annotated[Path, typer.Argument(help="ONNX file with one image in and a score out.")],
    *,
    out: Annotated[Path, typer.Option(help="The bundle to write.")],
    good: Annotated[Path, typer.Option(help="Folder of good images that the model was not trained on.")],
    input_spec: Annotated[
        Path | None, typer.Option(help="YAML or JSON: height_px, width_px, mean, std, downscale, fit, …")
    ] = None,
    input_range: Annotated[
        InputRange | None,
        typer.Option(
            help="Values that the model takes, not by mean and std: 0..1, −1..1, ImageNet's, 0..255, ours."
        ),
    ] = None,
    score_output: Annotated[
        str | None, typer.Option(help="Output that is the score; by default pred_score, or the only one.")
    ] = None,
    higher_is: Annotated[Higher, typer.Option(help="What a high score means.")] = Higher.ANOMALOUS,
    channel_order: Annotated[Order, typer.Option(help="Order of the model's colours.")] = Order.RGB,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=NUMBER for an input besides the image; may be repeated."),
    ] = None,
    defective: Annotated[
        Path | None, typer.Option(help="Folder of defective images, for golden images and an AUROC.")
    ] = None,
    false_reject_rate: Annotated[
        float, typer.Option(help="Share of good parts that may be rejected.")
    ] = 0.01,
    name: Annotated[str, typer.Option(help="Name of the bundle; by default the model's.")] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a bundle that stands there already.")
    ] = False,
) -> None:
    """Make a bundle of any ONNX anomaly model, and compare the two on images."""
    from algan_deploy.wrap.bundling import Request
    from algan_deploy.wrap.bundling import wrap as make
    from algan_deploy.wrap.graph import Wish

    if not 0.0 < false_reject_rate < 1.0:
        raise ConfigError(f"--false-reject-rate: expected above 0 and below 1, got {false_reject_rate}")
    request = Request(
        model=model,
        out=out,
        good=good,
        defective=defective,
        spec_file=input_spec,
        input_range=input_range,
        score_output=score_output,
        wish=Wish(higher_is is Higher.NORMAL, channel_order is Order.BGR),
        constants=_numbers(set_ or []),
        false_reject_rate=false_reject_rate,
        name=name,
        overwrite=overwrite,
    )
    bundle = make(request, typer.echo)
    auroc = bundle.manifest.provenance["images"].get("auroc")
    judged = "" if auroc is None else f", AUROC {auroc:.4f} on the images given"
    typer.echo(f"{bundle.path}: SHA-256 {bundle.model_sha256[:12]}…{judged}")


def _numbers(settings: list[str]) -> dict[str, float]:
    found = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise ConfigError(f"--set {setting}: expected NAME=NUMBER")
    return found
