"""`algan-stream score`: verdicts on image files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
import typer
from msgspec import UNSET

from algan_stream.bundle import Bundle, read_bundle
from algan_stream.commands.options import (
    BoxesOption,
    BundleArgument,
    Precision,
    PrecisionOption,
    engine_section,
    read_boxes,
)
from algan_stream.engines.base import Engine
from algan_stream.engines.gate import open_engine
from algan_stream.errors import InputError
from algan_stream.explain import Explainer, OverlayWriter
from algan_stream.images import list_images
from algan_stream.scoring import ImageScore, VectorScore, score_images, score_table
from algan_stream.tables import is_table, list_tables, read_table
from algan_stream.types import VectorSpec, VerdictKind

ImageBoxes: TypeAlias = Mapping[str, npt.NDArray[np.float32]] | None

_STYLE = {VerdictKind.PASS: "green", VerdictKind.REJECT: "red", VerdictKind.UNKNOWN: "yellow"}


def score(
    bundle: BundleArgument,
    paths: Annotated[
        list[Path],
        typer.Argument(help="Images or folders of them; for a bundle of vectors, tables.", metavar="PATH…"),
    ],
    boxes: BoxesOption = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="One JSON object per image, box or row and line.")
    ] = False,
    precision: PrecisionOption = Precision.FP32,
    explain: Annotated[
        Path | None,
        typer.Option(help="Show in pictures, in this folder, what in a rejected image speaks against it."),
    ] = None,
    explain_all: Annotated[
        bool, typer.Option("--explain-all", help="With --explain: also for what passes.")
    ] = False,
) -> None:
    """Score images, or the boxes in them; or the rows of tables (.npy, .csv), with a bundle of vectors.

    Ends with 0 when every verdict is `pass`, 10 when something was rejected, 11 when something is unknown.
    """
    boxes_by_image = read_boxes(boxes)
    opened = read_bundle(bundle)
    to_lines = _table_lines if isinstance(opened.manifest.spec, VectorSpec) else _image_lines
    lines_by = to_lines(opened, paths, boxes_by_image)
    if explain_all and explain is None:
        raise InputError("--explain-all: needs --explain DIR, the folder for the pictures")
    explainer = Explainer(opened) if explain else None
    overlays = OverlayWriter(explainer, explain, everything=explain_all) if explainer and explain else None
    engine = open_engine(opened, engine_section(precision))
    counts: Counter[VerdictKind] = Counter()
    try:
        for line in lines_by(engine, overlays):
            counts[line.verdict] += 1
            if jsonl:
                typer.echo(msgspec.json.encode(line))
                continue
            shown = (
                "" if line.score is None else f"{line.score:+9.4f}  p = {line.p_value or float('nan'):.4f}"
            )
            verdict = typer.style(f"{line.verdict.value:8}", fg=_STYLE[line.verdict])
            typer.echo(f"{verdict} {shown:22} {line.path}{_place(line)} {line.reason}{_explained(line)}")
    finally:
        engine.close()
        if explainer:
            explainer.close()
    if counts[VerdictKind.UNKNOWN]:
        raise typer.Exit(11)
    if counts[VerdictKind.REJECT]:
        raise typer.Exit(10)


_Lines: TypeAlias = Callable[[Engine, OverlayWriter | None], Iterator[ImageScore] | Iterator[VectorScore]]


def _image_lines(bundle: Bundle, paths: list[Path], boxes: ImageBoxes) -> _Lines:
    """Finds the images; what it returns scores them."""
    if missing := [path for path in paths if not path.exists()]:
        raise InputError(f"{missing[0]}: expected an image or a folder of images, but there is no such file")
    files = [file for path in paths for file in (list_images(path) if path.is_dir() else [path])]
    if tables := [file for file in files if is_table(file)]:
        raise InputError(f"{tables[0]}: is a table of vectors, but {bundle.path} takes images")
    _refuse_stray_boxes(boxes or {}, files)
    return lambda engine, overlays: score_images(bundle, engine, files, boxes, overlays)


def _table_lines(bundle: Bundle, paths: list[Path], boxes: ImageBoxes) -> _Lines:
    """Reads the tables; what it returns scores them."""
    if boxes is not None:
        raise InputError(f"--boxes: {bundle.path} takes vectors, which have no boxes")
    tables = [read_table(file) for path in paths for file in list_tables(path)]
    return lambda engine, _: (line for table in tables for line in score_table(bundle, engine, table))


def _place(line: ImageScore | VectorScore) -> str:
    if isinstance(line, VectorScore):
        return f" row {line.row}" + (f" ({line.id})" if line.id else "")
    return "" if line.box is None else f" box {tuple(round(edge, 1) for edge in line.box)}"


def _explained(line: ImageScore | VectorScore) -> str:
    if isinstance(line, VectorScore) or line.explanation is UNSET:
        return ""
    return f" see {line.explanation}, peak at {line.peak_xy_px}"


def _refuse_stray_boxes(boxes: Mapping[str, object], files: list[Path]) -> None:
    """A slip in a name must not turn boxes into a verdict on the whole image."""
    known = {name for file in files for name in (str(file), file.name)}
    if stray := sorted(set(boxes) - known):
        raise InputError(
            f"--boxes: {stray[0]!r} is none of the {len(files)} images to score; correct its name"
        )
