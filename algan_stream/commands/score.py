"""`algan-stream score`: verdicts on image files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from algan_stream.bundle import read_bundle
from algan_stream.commands.options import (
    BoxesOption,
    BundleArgument,
    Precision,
    PrecisionOption,
    engine_section,
    read_boxes,
)
from algan_stream.errors import InputError
from algan_stream.images import list_images
from algan_stream.scoring import score_images
from algan_stream.service import open_engine
from algan_stream.types import VerdictKind

_STYLE = {VerdictKind.PASS: "green", VerdictKind.REJECT: "red", VerdictKind.UNKNOWN: "yellow"}


def score(
    bundle: BundleArgument,
    paths: Annotated[list[Path], typer.Argument(help="Images, or folders of images.", metavar="PATH…")],
    boxes: BoxesOption = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="One JSON object per image or box and line.")
    ] = False,
    precision: PrecisionOption = Precision.FP32,
) -> None:
    """Score images, or the boxes in them.

    Ends with 0 when every verdict is `pass`, 10 when something was rejected, 11 when something is unknown.
    """
    boxes_by_image = read_boxes(boxes)
    files = [file for path in paths for file in (list_images(path) if path.is_dir() else [path])]
    _refuse_stray_boxes(boxes_by_image or {}, files)
    opened = read_bundle(bundle)
    engine = open_engine(opened, engine_section(precision))
    counts: Counter[VerdictKind] = Counter()
    try:
        for line in score_images(opened, engine, files, boxes_by_image):
            counts[line.verdict] += 1
            if jsonl:
                typer.echo(msgspec.json.encode(line))
                continue
            shown = (
                "" if line.score is None else f"{line.score:+9.4f}  p = {line.p_value or float('nan'):.4f}"
            )
            where = "" if line.box is None else f" box {tuple(round(edge, 1) for edge in line.box)}"
            verdict = typer.style(f"{line.verdict.value:8}", fg=_STYLE[line.verdict])
            typer.echo(f"{verdict} {shown:22} {line.path}{where} {line.reason}")
    finally:
        engine.close()
    if counts[VerdictKind.UNKNOWN]:
        raise typer.Exit(11)
    if counts[VerdictKind.REJECT]:
        raise typer.Exit(10)


def _refuse_stray_boxes(boxes: Mapping[str, object], files: list[Path]) -> None:
    """A slip in a name must not turn boxes into a verdict on the whole image."""
    known = {name for file in files for name in (str(file), file.name)}
    if stray := sorted(set(boxes) - known):
        raise InputError(
            f"--boxes: {stray[0]!r} is none of the {len(files)} images to score; correct its name"
        )
