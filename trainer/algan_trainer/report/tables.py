"""The report's plain tables, which any tool reads, and the split that evaluation needs."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from algan_trainer.data import Dataset

CURVE, SCORES, SPLIT = "training_curve.csv", "scores.csv", "split.csv"
CURVE_COLUMNS = ["epoch", "loss_d", "loss_g", "auroc", "label_free", "seconds"]
#: Hex digits of an image's hash that the split keeps: enough to know an image again, half the size.
HASH_DIGITS = 32


def write_table(path: Path, rows: Iterable[Mapping[str, Any]], columns: list[str]) -> None:
    """Writes rows as CSV; None becomes an empty field."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_split(path: Path, dataset: Dataset, hashes: Mapping[str, str]) -> None:
    """Writes which image belongs to which split, with `HASH_DIGITS` of its SHA-256."""
    rows = [
        {"path": s.path, "split": s.split, "kind": s.kind, "sha256": hashes[s.path][:HASH_DIGITS]}
        for s in sorted(dataset.samples, key=lambda s: (s.split, s.path))
    ]
    write_table(path, rows, ["path", "split", "kind", "sha256"])


def read_split(path: Path) -> list[dict[str, str]]:
    """Reads what `write_split` wrote; empty where there is none."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
