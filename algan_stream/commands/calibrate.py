"""`algan-stream calibrate`: sets a bundle's threshold from good images."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from algan_stream import calibration
from algan_stream.bundle import DEMO_NAME, Bundle, read_bundle, replace_calibration
from algan_stream.commands.options import (
    BundleArgument,
    JsonOption,
    Precision,
    PrecisionOption,
    engine_section,
)
from algan_stream.engines.gate import open_engine
from algan_stream.errors import BundleError, CalibrationError, ConfigError, ImageError
from algan_stream.images import list_images
from algan_stream.scoring import ImageScore, VectorScore, score_images, score_table
from algan_stream.tables import Table, list_tables, read_table, row_hashes
from algan_stream.types import VectorSpec


def calibrate(
    bundle: BundleArgument,
    good_images: Annotated[
        Path, typer.Argument(help="Folder of good images that were not trained on; or a table of vectors.")
    ],
    false_reject_rate: Annotated[
        float | None, typer.Option(help="Share of good parts that may be rejected, e.g. 0.01.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Or: reject above this score (equation 8).")] = None,
    precision: PrecisionOption = Precision.FP32,
    json_: JsonOption = False,
) -> None:
    """Set the threshold of a bundle from good images (or vectors), and write it into the bundle."""
    if (false_reject_rate is None) == (threshold is None):
        raise ConfigError("give either --false-reject-rate or --threshold")
    if bundle == DEMO_NAME:
        raise BundleError("the shipped demo bundle is not changed; copy its directory and calibrate the copy")
    opened = read_bundle(bundle)
    vectors = isinstance(opened.manifest.spec, VectorSpec)
    tables = [read_table(file) for file in list_tables(good_images)] if vectors else []
    files = [] if vectors else list_images(good_images)
    _refuse_training_data(opened, files, tables)
    engine = open_engine(opened, engine_section(precision))
    try:
        lines: list[ImageScore | VectorScore] = list(score_images(opened, engine, files)) if files else []
        for table in tables:
            lines += score_table(opened, engine, table)
    finally:
        engine.close()
    for line in lines:
        if line.score is None:
            where = f" row {line.row}" if isinstance(line, VectorScore) else ""
            raise ImageError(f"{line.path}{where}: cannot calibrate on it: {line.reason}; mend or remove it")
    scores = [line.score for line in lines if line.score is not None]
    if threshold is not None:
        result = calibration.with_raw_threshold(scores, threshold)
    elif false_reject_rate is not None:
        result = calibration.calibrate(scores, false_reject_rate)
    replace_calibration(opened, result)
    low, high = result.false_reject_rate_ci95 or (float("nan"), float("nan"))
    if json_:
        shown = {name: getattr(result, name) for name in result.__struct_fields__ if name != "good_scores"}
        typer.echo(msgspec.json.encode({**shown, "n": len(scores)}))
    elif threshold is not None:
        typer.echo(f"{bundle}: rejects above {result.threshold:.6g}, as you chose")
    else:
        typer.echo(
            f"{bundle}: rejects above {result.threshold:.6g}; of good parts at most {false_reject_rate:.4g} "
            f"on average, between {low:.4g} and {high:.4g} (95 %) given {len(scores)} of them"
        )


def _refuse_training_data(bundle: Bundle, files: list[Path], tables: list[Table]) -> None:
    """A model scores what it was trained on as better than it scores other good parts.

    Raises:
        CalibrationError: Some are among those that the bundle's `report/split.csv` says were trained on.
    """
    split = bundle.path / "report" / "split.csv"
    if not split.is_file():
        return
    with split.open(encoding="utf-8", newline="") as file:
        trained = {row["sha256"] for row in csv.DictReader(file) if row["split"] == "train"}
    digits = len(next(iter(trained), ""))
    hashes = {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    for table in tables:
        hashes |= {f"{table.path} row {row}": found for row, found in enumerate(row_hashes(table.values))}
    known = [name for name, found in hashes.items() if found[:digits] in trained]
    if digits and known:
        raise CalibrationError(
            f"{len(known)} of {len(hashes)} {'vectors' if tables else 'images'} were trained on, {known[0]} "
            f"for one; calibrate on good ones that the model has not seen"
        )
