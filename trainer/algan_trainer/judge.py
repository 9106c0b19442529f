"""`algan-stream evaluate`: a bundle's verdicts on labelled images, by the runtime's own engine. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from algan_stream.bundle import Bundle
from algan_stream.engines.base import Engine
from algan_stream.engines.gate import check_golden
from algan_stream.engines.openvino import Config as EngineConfig
from algan_stream.engines.openvino import create
from algan_stream.errors import ImageError, InputError
from algan_stream.scoring import ImageScore, VectorScore, score_images, score_table
from algan_stream.tables import Table
from algan_stream.types import VectorSpec, VerdictKind
from algan_trainer.data import GOOD, Sample, data_root, file_hashes, list_labelled
from algan_trainer.evaluate import auroc_of, per_type, share_above
from algan_trainer.pixels import localise
from algan_trainer.report import HASH_DIGITS, SPLIT, read_split
from algan_trainer.vector_data import list_vectors

Score: TypeAlias = ImageScore | VectorScore


def judge(
    bundle: Bundle,
    data: Path,
    split: str | None,
    engine: EngineConfig,
    layout: str = "auto",
    *,
    pixel: bool = False,
) -> dict[str, Any]:
    """Scores a labelled folder.

    Args:
        bundle: Calibrated; its engine must pass the golden gate first.
        data: Folder or manifest in any layout of `data.list_labelled`.
        split: `test`, `validation` or `all`; None: every image that neither trained the model nor chose
            its checkpoint.
        engine: How to run.
        layout: How the images are arranged; `auto`: told by what the folder holds.
        pixel: Also compare saliency maps with masks, see `pixels.localise`.

    Returns:
        `auroc` (None without both kinds), `n_normal`, `n_anomalous`, `false_reject_rate`, `detection_rate`
        (shares above the threshold, None without images), `left_out_trained_on` and `left_out_held_out`
        (images of this data not judged because the model was trained on them, or because they calibrated it
        or chose its checkpoint, or belong to another split than asked for), `per_type`, `scores`, one for
        each image, and, if wanted, `pixel`.

    Raises:
        InputError: No image is left to judge, or the bundle has no threshold.
        ImageError: Files cannot be decoded; the message names them.
    """
    if bundle.manifest.calibration is None:
        raise InputError(f"{bundle.path}: has no calibration; run `algan-stream calibrate` first")
    subject = _open(bundle, data, layout)
    listed, score = subject.samples, subject.score
    samples, trained_on = select(bundle, subject, split)
    results = _score(bundle, lambda ready: score(ready, samples), engine)
    scores, kinds = np.array([r.score for r in results]), [s.kind for s in samples]
    bad = np.array([s.anomalous for s in samples])
    rejected = np.array([float(r.verdict is VerdictKind.REJECT) for r in results])
    section = {"kind": "openvino", "threads": engine.threads}
    return {
        "auroc": auroc_of(scores, bad),
        "n_normal": int((~bad).sum()),
        "n_anomalous": int(bad.sum()),
        "false_reject_rate": share_above(rejected[~bad], 0.5),
        "detection_rate": share_above(rejected[bad], 0.5),
        "left_out_trained_on": trained_on,
        "left_out_held_out": len(listed) - len(samples) - trained_on,
        "per_type": per_type(scores, kinds, GOOD, bundle.manifest.calibration.threshold),
        "scores": [
            {
                "path": s.path,
                "label": "anomalous" if s.anomalous else GOOD,
                "type": s.kind,
                "score": r.score,
                "p_value": r.p_value,
                "verdict": r.verdict.value,
            }
            for s, r in zip(samples, results, strict=True)
        ],
        **({"pixel": localise(bundle, subject.root, samples, section)} if pixel else {}),
    }


class Subject(Protocol):
    """Labelled samples that can be told by their content, and scored."""

    root: Path
    samples: list[Sample]

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every sample's content, in hex, by its path."""
        ...

    def score(self, engine: Engine, samples: list[Sample]) -> Iterable[Score]:
        """One score for each of the samples, in order."""
        ...


class Images:
    """Image files as a `Subject`."""

    def __init__(self, bundle: Bundle, root: Path, samples: list[Sample]) -> None:
        self._bundle, self.root, self.samples = bundle, root, samples

    def hashes(self) -> dict[str, str]:
        """Of the files."""
        return file_hashes(self.root, self.samples)

    def score(self, engine: Engine, samples: list[Sample]) -> Iterable[ImageScore]:
        """As the service would."""
        return score_images(self._bundle, engine, [self.root / s.path for s in samples])


class Rows:
    """The rows of tables as a `Subject`."""

    def __init__(self, bundle: Bundle, data: Path) -> None:
        self._bundle, self.root, self._vectors = bundle, data, list_vectors(data)
        self.samples = list(self._vectors.samples)

    def hashes(self) -> dict[str, str]:
        """Of the vectors."""
        return self._vectors.hashes()

    def score(self, engine: Engine, samples: list[Sample]) -> Iterable[VectorScore]:
        """As the service would."""
        table = Table(self.root, self._vectors.of(samples), self._vectors.names)
        return score_table(self._bundle, engine, table)


def _open(bundle: Bundle, data: Path, layout: str) -> Subject:
    if isinstance(bundle.manifest.spec, VectorSpec):
        return Rows(bundle, data)
    seed = bundle.manifest.provenance.get("seed", 0)
    return Images(bundle, data_root(data), list_labelled(data, layout, seed if isinstance(seed, int) else 0))


def select(bundle: Bundle, subject: Subject, split: str | None) -> tuple[list[Sample], int]:
    """Picks the samples of a split by their content, wherever they lie and whatever they are called.

    Returns:
        The images, and how many are left out because the model was trained on them.

    Raises:
        InputError: None is left.
    """
    root, samples = subject.root, subject.samples
    if split == "all":
        return samples, 0
    known: dict[str, set[str]] = {}
    for row in read_split(bundle.path / "report" / SPLIT):
        known.setdefault(row["sha256"][:HASH_DIGITS], set()).add(row["split"])
    hashes = subject.hashes()
    # A copy of a training image is one. What a bundle that knows its split has never seen was not trained on,
    # though this folder keeps it for training; without such knowledge the folder's word counts.
    foreign = [{"" if known and s.split == "train" else s.split} for s in samples]
    splits = [known.get(hashes[s.path][:HASH_DIGITS], of) for s, of in zip(samples, foreign, strict=True)]
    trained_on = sum("train" in of for of in splits)
    if split is not None:
        chosen = [s for s, of in zip(samples, splits, strict=True) if split in of and "train" not in of]
        if not chosen:
            raise InputError(
                f"{root}: holds no image of the {split} split of {bundle.path}'s data; use --split all"
            )
        return chosen, trained_on
    fresh = [s for s, of in zip(samples, splits, strict=True) if of <= {"test", ""}]
    untrained = [s for s, of in zip(samples, splits, strict=True) if "train" not in of]
    if not untrained:
        raise InputError(
            f"{root}: {bundle.path} was trained on every image in it; use --split all to score them"
        )
    return fresh or untrained, trained_on


def _score(bundle: Bundle, by: Callable[[Engine], Iterable[Score]], config: EngineConfig) -> list[Score]:
    engine = create(bundle, config)
    try:
        check_golden(bundle, engine)
        results = list(by(engine))
    finally:
        engine.close()
    if bad := [r.reason for r in results if r.score is None]:
        raise ImageError("\n".join(bad[:10]) + (f"\n… and {len(bad) - 10} more" if len(bad) > 10 else ""))
    return results
