"""Golden images of a wrapped model: real ones, spread over its scores, clear of the threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from algan_stream.bundle import GOLDEN, Golden

#: Golden images in a bundle, at most.
COUNT = 16


def choose_rows(
    scores: npt.NDArray[np.float64], anomalous: npt.NDArray[np.bool_], threshold: float | None, margin: float
) -> npt.NDArray[np.intp]:
    """Rows of up to `COUNT` images, half of them defective if there are any.

    Images within `margin` of the threshold are passed over: rounding alone could turn their verdict, and the
    gate would then refuse a sound engine. If all are, the farthest one will do.
    """
    distance = np.full(len(scores), np.inf) if threshold is None else np.abs(scores - threshold)
    shares = (COUNT - COUNT // 2, COUNT // 2) if anomalous.any() else (COUNT, 0)
    chosen: list[int] = []
    for kind, share in zip((False, True), shares, strict=True):
        rows = np.flatnonzero((anomalous == kind) & (distance > margin))
        rows = rows[np.argsort(scores[rows], kind="stable")]
        if len(rows) > share:
            rows = rows[np.linspace(0, len(rows) - 1, share).round().astype(int)] if share else rows[:0]
        chosen += rows.tolist()
    return np.array(chosen or [int(np.argmax(distance))], dtype=np.intp)


def write_golden(golden: Golden, folder: Path) -> None:
    """Writes `golden.npz`."""
    assert golden.images_rgb is not None  # a wrapped model takes images
    np.savez_compressed(
        folder / GOLDEN,
        allow_pickle=False,
        images_rgb=golden.images_rgb,
        inputs=golden.inputs,
        logits=golden.logits,
    )
