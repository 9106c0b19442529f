"""The report of a training, in its bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from algan_stream.bundle import Manifest
from algan_stream.types import InputSpec
from algan_trainer.algan import State
from algan_trainer.data import Dataset, Sample
from algan_trainer.report.building import (
    Scored,
    find,
    model_of,
    now,
    threshold_of,
    without_folders,
    write_page,
)
from algan_trainer.report.content import Counts, Data, Epoch, Fakes, Report, Training
from algan_trainer.report.fakes import draw_fakes
from algan_trainer.report.measures import Floats
from algan_trainer.report.pictures import Thumbnails, to_rgb, write_sheet
from algan_trainer.session import Data as Loaded
from algan_trainer.session import Journal


def write_training_report(
    folder: Path,
    model: Path,
    manifest: Manifest,
    state: State,
    journal: Journal,
    data: Loaded,
    samples: Sequence[Sample],
    scores: Floats,
    pictures: int,
) -> Report:
    """Writes the page, its numbers and its pictures; the tables beside them are written by `export`.

    Args:
        folder: `report/` of the bundle that is being made.
        model: The exported graph.
        manifest: Complete but for `files`.
        state: As training left it: G is shown as it stands.
        journal: Training curve and best checkpoints.
        data: What was trained on.
        samples: All that were not trained on.
        scores: (n,) theirs, by the exported graph.
        pictures: Most pictures in a group; 0: none.
    """
    dataset, provenance = data.dataset, manifest.provenance
    scored = Scored(
        dataset.root,
        [s.path for s in samples],
        [s.kind for s in samples],
        [s.split for s in samples],
        scores,
    )
    spec = manifest.spec
    thumbnails = Thumbnails(folder, spec) if isinstance(spec, InputSpec) else None
    findings = find(scored, manifest.calibration, thumbnails, pictures)
    fakes, missing = _fakes(folder, manifest, state, data, pictures)
    report = Report(
        subject="training",
        made_at=now(),
        model=model_of(manifest, hashlib.sha256(model.read_bytes()).hexdigest()),
        data=_data(dataset, provenance["data"]),
        threshold=threshold_of(manifest.calibration),
        results=findings.results,
        training=_training(provenance, journal),
        histogram=findings.histogram,
        roc=findings.roc,
        hard_good=findings.hard_good,
        hard_anomalous=findings.hard_anomalous,
        fakes=fakes,
        fakes_missing=missing,
        versions=provenance["versions"],
    )
    write_page(folder, report)
    return report


def _data(dataset: Dataset, facts: dict[str, Any]) -> Data:
    root = dataset.root.resolve()
    places = [place for place in (dataset.root, root) if place.is_absolute()]
    known = ("sha256", "layout", "counts", "split")
    return Data(
        name=root.name,
        layout=dataset.layout,
        sha256=facts["sha256"],
        parts={part: Counts(**counts) for part, counts in facts["counts"].items()},
        notes=tuple(without_folders(list(dataset.notes), places)),
        facts=without_folders({key: value for key, value in facts.items() if key not in known}, places),
    )


def _training(provenance: dict[str, Any], journal: Journal) -> Training:
    checkpoint = provenance["checkpoint"]
    return Training(
        epochs=provenance["epochs"],
        seconds=journal.seconds,
        seed=provenance["seed"],
        rule=checkpoint["rule"],
        chosen_epoch=int(checkpoint["epoch"]),
        best=journal.best,
        curve=tuple(
            Epoch(
                epoch=row["epoch"],
                loss_d=round(row["loss_d"], 6),
                loss_g=round(row["loss_g"], 6),
                auroc=row["auroc"],
                label_free=row["label_free"],
            )
            for row in journal.curve
        ),
        config=without_folders(provenance["config"]),
        parity=provenance["parity"],
    )


def _fakes(
    folder: Path, manifest: Manifest, state: State, data: Loaded, pictures: int
) -> tuple[Fakes | None, str]:
    """Sheets of what G makes; or None and the reason."""
    spec = manifest.spec
    if manifest.model_kind != "algan-image" or not isinstance(spec, InputSpec):
        return None, "G makes vectors here, not images: there is nothing to see."
    if not pictures:
        return None, "Pictures were left out (--report-pictures 0)."
    made = draw_fakes(state, spec, pictures)
    chosen = np.linspace(0, len(data.train) - 1, min(pictures, len(data.train))).round().astype(np.intp)
    real = to_rgb(data.train[chosen.tolist()].float().cpu().numpy(), spec)
    sheets = [
        write_sheet(folder, name, images) if len(images) else None
        for name, images in (("fake-normal", made.normal), ("fake-anomalous", made.anomalous))
    ]
    return Fakes(
        epoch=state.epoch,
        sigma=state.config.algan.sigma,
        real=write_sheet(folder, "real", real),
        normal=sheets[0],
        anomalous=sheets[1],
    ), ""
