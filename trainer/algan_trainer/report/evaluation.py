"""The report of `algan-stream evaluate --report`: the same page for any bundle on any labelled data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from algan_stream.bundle import MANIFEST, Bundle
from algan_stream.errors import InputError
from algan_stream.explain import Explainer
from algan_stream.types import InputSpec
from algan_trainer.data import data_root
from algan_trainer.report.building import (
    NUMBERS,
    PAGE,
    Scored,
    find,
    model_of,
    now,
    threshold_of,
    write_page,
)
from algan_trainer.report.content import Counts, Data, Hard, Report
from algan_trainer.report.pictures import Thumbnails, remove_pictures
from algan_trainer.report.tables import SCORES, write_table


def write_evaluation_report(
    folder: Path, bundle: Bundle, data: Path, result: dict[str, Any], split: str | None, pictures: int
) -> Report:
    """Writes the page, its numbers and its pictures, and `scores.csv`.

    Args:
        folder: Where; see `check_folder`.
        bundle: What was judged.
        data: The labelled data.
        result: What `judge.judge` found on it.
        split: The split that was asked for.
        pictures: Most pictures in a group; 0: none.

    Raises:
        InputError: The folder holds something else.
    """
    check_folder(folder)
    _remove_earlier(folder)
    lines = result["scores"]
    manifest = bundle.manifest
    scored = Scored(
        data_root(data),
        [line["path"] for line in lines],
        [line["type"] for line in lines],
        ["judged"] * len(lines),
        np.array([line["score"] for line in lines], np.float64),
    )
    with _thumbnails(folder, bundle, pictures) as thumbnails:
        findings = find(scored, manifest.calibration, thumbnails, pictures)
    report = Report(
        subject="evaluation",
        made_at=now(),
        model=model_of(manifest, bundle.model_sha256),
        data=Data(
            name=data.resolve().name,
            layout="",
            sha256=None,
            parts={"judged": Counts(good=result["n_normal"], anomalous=result["n_anomalous"])},
            notes=_notes(result, split),
        ),
        threshold=threshold_of(manifest.calibration),
        results=findings.results,
        histogram=findings.histogram,
        roc=findings.roc,
        hard_good=findings.hard_good,
        hard_anomalous=findings.hard_anomalous,
        versions=manifest.provenance.get("versions", {}),
    )
    write_table(folder / SCORES, lines, ["path", "label", "type", "score", "p_value", "verdict"])
    write_page(folder, report)
    return report


@contextmanager
def _thumbnails(folder: Path, bundle: Bundle, pictures: int) -> Iterator[Thumbnails | None]:
    """With explanations where the bundle has a graph for them."""
    spec = bundle.manifest.spec
    if not pictures or not isinstance(spec, InputSpec):
        yield None
        return
    explainer = Explainer(bundle) if bundle.explain_path is not None else None
    try:
        yield Thumbnails(folder, spec, explainer)
    finally:
        if explainer is not None:
            explainer.close()


def _notes(result: dict[str, Any], split: str | None) -> tuple[str, ...]:
    """What was not judged, and what should not have been, in words."""
    if split == "all":
        text = "Everything was judged, also what the model may have been trained on (--split all): "
        return (text + "the numbers may be too good.",)
    asked = f"the {split} split" if split else "what neither trained nor chose the model"
    notes = [f"Judged: {asked}."]
    if trained := result["left_out_trained_on"]:
        notes.append(f"Left out because the model was trained on them: {trained}.")
    if held := result["left_out_held_out"]:
        notes.append(f"Left out because they calibrated or chose it, or are of another split: {held}.")
    return tuple(notes)


def check_folder(folder: Path) -> None:
    """Refuses a place for a report that holds something else; an earlier report is replaced.

    Raises:
        InputError: It lies inside a bundle, whose files have hashes, or is not empty and no report.
    """
    for parent in (folder.resolve(), *folder.resolve().parents):
        if (parent / MANIFEST).is_file() and (parent / "golden.npz").is_file():
            raise InputError(f"{folder}: lies inside the bundle {parent}, which stays as it is; name another")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder for the report, but it is a file")
    if folder.is_dir() and any(folder.iterdir()) and _earlier(folder) is None:
        raise InputError(f"{folder}: holds something other than a report; name an empty folder, or a new one")


def _earlier(folder: Path) -> Report | None:
    try:
        report = msgspec.json.decode((folder / NUMBERS).read_bytes(), type=Report)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return report if report.subject == "evaluation" else None


def _remove_earlier(folder: Path) -> None:
    """Only what that report says it is made of: other files beside it stay."""
    earlier = _earlier(folder)
    if earlier is not None:
        hard: tuple[Hard, ...] = (*earlier.hard_good, *earlier.hard_anomalous)
        shown = [picture for image in hard for picture in (image.picture, image.why)]
        remove_pictures(folder, [picture for picture in shown if picture is not None])
        for name in (PAGE, SCORES, NUMBERS):
            (folder / name).unlink(missing_ok=True)
