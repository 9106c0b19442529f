"""What the reports of a training and of an evaluation have in common: scored images and their findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import msgspec
import numpy as np

from algan_stream.bundle import Manifest
from algan_stream.calibration import Calibration, p_values
from algan_stream.types import Spec, VectorSpec
from algan_trainer.data import GOOD
from algan_trainer.report import measures
from algan_trainer.report.content import Hard, Histogram, Model, Report, Result, Roc, Threshold
from algan_trainer.report.measures import Floats
from algan_trainer.report.page import render
from algan_trainer.report.pictures import Thumbnails

PAGE, NUMBERS = "index.html", "report.json"
#: Parts of the data, the one that counts most first: it chose neither checkpoint nor threshold.
_BY_WEIGHT = ("judged", "test", "validation", "calibration")

#: Hardest images that are listed where no pictures are wanted.
_MOST_LISTED = 12


@dataclass(frozen=True)
class Scored:
    """Images, or rows of a table, with their scores: n of each.

    Attributes:
        root: What `paths` are relative to.
        paths: With `/`.
        kinds: `good`, or the type of defect.
        parts: `test`, `validation`, `calibration` or `judged`.
        scores: (n,) finite.
    """

    root: Path
    paths: Sequence[str]
    kinds: Sequence[str]
    parts: Sequence[str]
    scores: Floats


@dataclass(frozen=True)
class Findings:
    """The fields of a `Report` that follow from scored images."""

    results: tuple[Result, ...]
    histogram: Histogram | None
    roc: Roc | None
    hard_good: tuple[Hard, ...]
    hard_anomalous: tuple[Hard, ...]


def find(
    scored: Scored, calibration: Calibration | None, thumbnails: Thumbnails | None, pictures: int
) -> Findings:
    """Judges scored images, and writes thumbnails of the hardest.

    Args:
        scored: All that are to be reported on.
        calibration: Gives the threshold; None: not calibrated.
        thumbnails: Writes the pictures; None: a table's rows have none.
        pictures: Most pictures in a group; 0: none, the hardest are then listed without.
    """
    threshold = None if calibration is None else calibration.threshold
    parts = np.asarray(scored.parts, dtype=object)
    results = []
    for part in _BY_WEIGHT:
        if rows := np.flatnonzero(parts == part).tolist():
            kinds = [scored.kinds[i] for i in rows]
            results.append(measures.result(part, scored.scores[rows], kinds, threshold))
    shown = results[0].part if results else ""
    names = np.asarray(scored.kinds, dtype=object)
    good = scored.scores[(parts == shown) & (names == GOOD)]
    bad = scored.scores[(parts == shown) & (names != GOOD)]
    hard = measures.hardest(scored.scores, scored.kinds, pictures or _MOST_LISTED)
    prefixes = ("hard-good", "hard-anomalous")
    lists = [
        _hard(scored, rows, calibration, thumbnails if pictures else None, prefix)
        for rows, prefix in zip(hard, prefixes, strict=True)
    ]
    return Findings(
        tuple(results),
        measures.histogram(shown, good, bad, threshold),
        measures.roc(shown, good, bad),
        lists[0],
        lists[1],
    )


def model_of(manifest: Manifest, sha256: str) -> Model:
    """The model in words."""
    return Model(
        name=manifest.name, kind=manifest.model_kind, input=input_in_words(manifest.spec), sha256=sha256
    )


def input_in_words(spec: Spec) -> str:
    """What the model takes."""
    if isinstance(spec, VectorSpec):
        return f"vectors of {spec.features} numbers"
    planes = "red, green, blue, their maximum and mean" if spec.pooled_channels else "red, green, blue"
    return f"{spec.width_px} × {spec.height_px} px: {planes}"


def threshold_of(calibration: Calibration | None) -> Threshold | None:
    """The threshold with its interval, without the scores behind it."""
    if calibration is None:
        return None
    return Threshold(
        value=calibration.threshold,
        method=calibration.method,
        false_reject_rate=calibration.false_reject_rate,
        false_reject_rate_ci95=calibration.false_reject_rate_ci95,
        good_images=len(calibration.good_scores),
    )


def write_page(folder: Path, report: Report) -> None:
    """Writes the numbers and the page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NUMBERS).write_bytes(msgspec.json.encode(report) + b"\n")
    (folder / PAGE).write_text(render(report), "utf-8")


def now() -> str:
    """UTC, to the minute."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def without_folders(value: Any, places: Sequence[Path] = ()) -> Any:
    """Cuts absolute paths in JSON down to their last part: a report tells nothing of the machine.

    Args:
        value: JSON of any depth.
        places: Absolute folders; names of files in them are cut also in the middle of a text.
    """
    if isinstance(value, dict):
        return {key: without_folders(of, places) for key, of in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_folders(of, places) for of in value]
    if not isinstance(value, str):
        return value
    for place in places:
        value = value.replace(f"{place}/", "").replace(str(place), place.name)
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(value).is_absolute() or value.startswith("~"):
            return kind(value).name
    return value


def _hard(
    scored: Scored,
    rows: Sequence[int],
    calibration: Calibration | None,
    thumbnails: Thumbnails | None,
    prefix: str,
) -> tuple[Hard, ...]:
    found = []
    for number, row in enumerate(rows, start=1):
        path, score = scored.paths[row], float(scored.scores[row])
        picture = why = None
        if thumbnails is not None:
            picture, why = thumbnails.write(f"{prefix}-{number:02d}", scored.root / path)
        known = calibration is not None and len(calibration.good_scores) > 0
        found.append(
            Hard(
                path=without_folders(path),
                part=scored.parts[row],
                kind=scored.kinds[row],
                score=score,
                p_value=float(p_values(calibration.good_scores, score)) if calibration and known else None,
                rejected=None if calibration is None else score > calibration.threshold,
                picture=picture,
                why=why,
            )
        )
    return tuple(found)
