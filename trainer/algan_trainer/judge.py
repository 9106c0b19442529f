"""`algan-stream evaluate`: a bundle's verdicts on labelled images, by the runtime's own engine. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from algan_stream.bundle import Bundle
from algan_stream.engines.gate import check_golden
from algan_stream.engines.openvino import Config as EngineConfig
from algan_stream.engines.openvino import create
from algan_stream.errors import ImageError, InputError
from algan_stream.scoring import ImageScore, score_images
from algan_stream.types import VerdictKind
from algan_trainer.data import GOOD, Sample, file_hashes, list_labelled
from algan_trainer.evaluate import auroc_of, per_type, share_above
from algan_trainer.report import HASH_DIGITS, SPLIT, read_split


def judge(bundle: Bundle, root: Path, split: str | None, engine: EngineConfig) -> dict[str, Any]:
    """Scores a labelled folder.

    Args:
        bundle: Calibrated; its engine must pass the golden gate first.
        root: Folder in any layout of `data.list_labelled`.
        split: `test`, `validation` or `all`; None: every image that neither trained the model nor chose
            its checkpoint.
        engine: How to run.

    Returns:
        `auroc` (None without both kinds), `n_normal`, `n_anomalous`, `false_reject_rate`, `detection_rate`
        (shares above the threshold, None without images), `per_type`, and `scores`, one for each image.

    Raises:
        InputError: No image is left to judge, or the bundle has no threshold.
        ImageError: Files cannot be decoded; the message names them.
    """
    if bundle.manifest.calibration is None:
        raise InputError(f"{bundle.path}: has no calibration; run `algan-stream calibrate` first")
    samples = select(bundle, root, list_labelled(root), split)
    results = _score(bundle, [root / s.path for s in samples], engine)
    scores, kinds = np.array([r.score for r in results]), [s.kind for s in samples]
    bad = np.array([s.anomalous for s in samples])
    rejected = np.array([float(r.verdict is VerdictKind.REJECT) for r in results])
    return {
        "auroc": auroc_of(scores, bad),
        "n_normal": int((~bad).sum()),
        "n_anomalous": int(bad.sum()),
        "false_reject_rate": share_above(rejected[~bad], 0.5),
        "detection_rate": share_above(rejected[bad], 0.5),
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
    }


def select(bundle: Bundle, root: Path, samples: list[Sample], split: str | None) -> list[Sample]:
    """Picks the images of a split by their content, wherever they lie and whatever they are called.

    Raises:
        InputError: None is left.
    """
    if split == "all":
        return samples
    known: dict[str, set[str]] = {}
    for row in read_split(bundle.path / "report" / SPLIT):
        known.setdefault(row["sha256"][:HASH_DIGITS], set()).add(row["split"])
    hashes = file_hashes(root, samples)
    # What the bundle does not know keeps what the folder says; a copy of a training image is one.
    splits = [known.get(hashes[s.path][:HASH_DIGITS], {s.split}) for s in samples]
    if split is not None:
        chosen = [s for s, of in zip(samples, splits, strict=True) if split in of and "train" not in of]
        if not chosen:
            raise InputError(
                f"{root}: holds no image of the {split} split of {bundle.path}'s data; use --split all"
            )
        return chosen
    fresh = [s for s, of in zip(samples, splits, strict=True) if of <= {"test", ""}]
    untrained = [s for s, of in zip(samples, splits, strict=True) if "train" not in of]
    if not untrained:
        raise InputError(
            f"{root}: {bundle.path} was trained on every image in it; use --split all to score them"
        )
    return fresh or untrained


def _score(bundle: Bundle, paths: list[Path], config: EngineConfig) -> list[ImageScore]:
    engine = create(bundle, config)
    try:
        check_golden(bundle, engine)
        results = list(score_images(bundle, engine, paths))
    finally:
        engine.close()
    if bad := [r.reason for r in results if r.score is None]:
        raise ImageError("\n".join(bad[:10]) + (f"\n… and {len(bad) - 10} more" if len(bad) > 10 else ""))
    return results
