"""Tables of feature vectors → samples with a split. No torch here.

One file: good vectors, one a row, unless it has a column `label`. Or a folder of files: `train.npy` (or
`.csv`) holds good vectors to train on; every other file's name says what its vectors are, `good` or a kind of
anomaly. The columns `label` and `split` of a CSV say both for each row, and win over the file's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from algan_stream.errors import InputError
from algan_stream.tables import (
    LABEL,
    SPLIT,
    Table,
    is_table,
    list_tables,
    read_table,
    require_finite,
    row_hashes,
)
from algan_trainer.data import GOOD, SPLITS, Dataset, Sample
from algan_trainer.data.manifest import is_manifest

#: Good vectors that training takes at the least: with fewer there is no spread to measure.
LEAST_TRAINING = 2


@dataclass(frozen=True, eq=False)
class Vectors:
    """Samples, each with its vector.

    Attributes:
        samples: Their paths are FILE#ROW, FILE relative to the data's root.
        values: (n, features) float32, finite; row i belongs to `samples[i]`.
        names: Names of the features, or empty.
    """

    samples: tuple[Sample, ...]
    values: npt.NDArray[np.float32]
    names: tuple[str, ...]

    def of(self, samples: Sequence[Sample]) -> npt.NDArray[np.float32]:
        """The vectors of some samples, (n, features)."""
        row = {sample.path: i for i, sample in enumerate(self.samples)}
        return self.values[[row[s.path] for s in samples]].reshape(len(samples), -1)

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every vector, in hex, by its sample's path."""
        return {s.path: found for s, found in zip(self.samples, row_hashes(self.values), strict=True)}


def holds_vectors(data: Path) -> bool:
    """Whether data are tables of vectors, by their names: nothing is said of images."""
    if data.is_dir():
        files = [p for p in data.iterdir() if not p.name.startswith(".")]
        return bool(files) and all(is_table(p) for p in files) and not any(map(is_manifest, files))
    return is_table(data) and not is_manifest(data)


def list_vectors(root: Path) -> Vectors:
    """Reads all tables of a file or folder; `split` is set only where the tables say so.

    Raises:
        InputError: There is none, or one cannot be used.
    """
    tables = [read_table(path) for path in list_tables(root)]
    samples: list[Sample] = []
    for table in tables:
        require_finite(table)
        _require_same_features(tables[0], table)
        samples += _samples(table, alone=not root.is_dir())
    names = next((table.names for table in tables if table.names), ())
    return Vectors(tuple(samples), np.concatenate([table.values for table in tables]), names)


def read_vectors(root: Path, seed: int, calibration_fraction: float) -> tuple[Dataset, Vectors]:
    """Lists and splits vectors for training; the same seed gives the same split.

    What has no split yet: with training vectors at hand it is halved between validation and test, kind by
    kind; else good vectors are split 50/25/25 and anomalous ones 50/50 (as the paper does with MTD), or,
    where all are good, trained on.

    Raises:
        InputError: A table cannot be used, or there are too few good vectors.
    """
    vectors = list_vectors(root)
    rng = np.random.default_rng(seed)
    samples = _with_splits(list(vectors.samples), rng)
    dataset = Dataset(root, "vectors", tuple(samples))
    if not dataset.calibration:
        dataset = Dataset(root, "vectors", tuple(_hold_out(samples, calibration_fraction, rng)))
    _check(dataset)
    return dataset, replace(vectors, samples=dataset.samples)


def _samples(table: Table, *, alone: bool) -> list[Sample]:
    stem = table.path.stem
    split, kind = (stem, "") if stem in SPLITS else ("", stem)
    if alone:
        split, kind = "", GOOD
    elif split == "train":
        kind = GOOD
    count = len(table.values)
    kinds = table.about.get(LABEL, [kind] * count)
    splits = table.about.get(SPLIT, [split] * count)
    for row, (of_kind, of_split) in enumerate(zip(kinds, splits, strict=True)):
        if not of_kind:
            raise InputError(
                f"{table.path}: row {row}: {LABEL}: expected `{GOOD}` or a kind of anomaly, got none"
            )
        if of_split not in ("", *SPLITS):
            raise InputError(
                f"{table.path}: row {row}: {SPLIT}: expected {', '.join(SPLITS)}, got {of_split!r}"
            )
    if LABEL in table.about and alone and GOOD not in kinds:
        raise InputError(
            f"{table.path}: {LABEL}: expected `{GOOD}` for good vectors, got only "
            f"{', '.join(sorted(set(kinds))[:5])}"
        )
    return [
        Sample(f"{table.path.name}#{row}", of_kind, of_split)
        for row, (of_kind, of_split) in enumerate(zip(kinds, splits, strict=True))
    ]


def _require_same_features(first: Table, other: Table) -> None:
    if other.values.shape[1] != first.values.shape[1]:
        raise InputError(
            f"{other.path}: expected {first.values.shape[1]} features as in {first.path.name}, "
            f"got {other.values.shape[1]}"
        )
    if first.names and other.names and first.names != other.names:
        raise InputError(
            f"{other.path}: its columns are named or ordered otherwise than those of {first.path.name}"
        )


def _with_splits(samples: list[Sample], rng: np.random.Generator) -> list[Sample]:
    splits = [s.split for s in samples]
    free = [i for i, split in enumerate(splits) if not split]
    halves = {"validation": 0.5, "test": 0.5}
    if any(split == "train" for split in splits):
        good = halves
    elif any(samples[i].anomalous for i in free):
        good = {"train": 0.5, "validation": 0.25, "test": 0.25}
    else:
        good = {"train": 1.0}
    for kind in sorted({samples[i].kind for i in free}):
        rows = [i for i in free if samples[i].kind == kind]
        shares = good if kind == GOOD else halves
        ends = np.floor(np.cumsum(list(shares.values())) * len(rows) + 1e-9).astype(int)
        ends[-1] = len(rows)
        for name, part in zip(shares, np.split(rng.permutation(rows), ends[:-1]), strict=True):
            for i in part.tolist():
                splits[i] = name
    return [replace(sample, split=split) for sample, split in zip(samples, splits, strict=True)]


def _hold_out(samples: list[Sample], fraction: float, rng: np.random.Generator) -> list[Sample]:
    """Moves a share of the training vectors to calibration, and leaves enough to train on."""
    train = [i for i, s in enumerate(samples) if s.split == "train"]
    count = max(0, min(max(1, round(fraction * len(train))), len(train) - LEAST_TRAINING))
    held = set(rng.permutation(train)[:count].tolist())
    return [replace(s, split="calibration") if i in held else s for i, s in enumerate(samples)]


def _check(dataset: Dataset) -> None:
    train = dataset.of("train")
    if bad := [s for s in train if s.anomalous]:
        raise InputError(f"{dataset.root}: {bad[0].path} is `{bad[0].kind}` but listed for training")
    if len(train) < LEAST_TRAINING or not dataset.calibration:
        good = sum(not s.anomalous for s in dataset.samples)
        raise InputError(
            f"{dataset.root}: expected at least {LEAST_TRAINING + 1} good vectors, {LEAST_TRAINING} to train "
            f"on and one to calibrate with, got {good} ({len(train)} for training)"
        )
