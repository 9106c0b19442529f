"""The images of a bundle's split, for peers and for ourselves alike."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Images:
    """Files of one part of a split, and which of them show defects."""

    paths: list[Path]
    anomalous: np.ndarray


def read_split(split_csv: Path, data: Path, part: str) -> Images:
    """Reads one part, `train` or `test`, of a bundle's `report/split.csv`."""
    with split_csv.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == part]
    if not rows:
        raise SystemExit(f"{split_csv}: has no images of split {part}")
    return Images([data / row["path"] for row in rows], np.array([row["kind"] != "good" for row in rows]))


def link(paths: list[Path], folder: Path) -> Path:
    """A folder of links, as anomalib wants one for each kind of image."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        to = folder / f"{number:04d}_{path.name}"
        if not to.is_symlink():
            to.symlink_to(path.resolve())
    return folder


def auroc(scores: np.ndarray, anomalous: np.ndarray) -> float:
    """Probability that an anomalous image scores above a good one; ties count half."""
    good, bad = scores[~anomalous], scores[anomalous]
    return float(((bad[:, None] > good) + 0.5 * (bad[:, None] == good)).mean())
