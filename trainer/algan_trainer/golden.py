"""Golden inputs: real ones, with the trainer's own answers, that every engine must reproduce."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from algan_stream.bundle import GOLDEN, Golden
from algan_trainer.data import Sample
from algan_trainer.modality import Modality
from algan_trainer.networks import anomaly_scores

#: Candidates looked at for them.
_CANDIDATES = 64


def choose_golden(
    modality: Modality, network: nn.Module, threshold: float, *, margin: float, count: int
) -> Golden:
    """Chooses up to `count` held-out samples that spread over the scores, half of them anomalous if any are.

    Samples whose score lies within `margin`, the widest tolerance that the bundle states, of the threshold
    are passed over: rounding alone could turn their verdict, and the gate would then refuse a sound engine.
    """
    dataset = modality.dataset
    good = dataset.calibration
    anomalous = [s for s in dataset.of("validation") if s.anomalous]
    shares = (count - count // 2, count // 2) if anomalous else (count, 0)
    most = _CANDIDATES if modality.witnesses is None else modality.witnesses
    chosen: list[Golden] = []
    for samples, share in zip((good, anomalous), shares, strict=True):
        if samples and share:
            candidates = _golden(modality, spread(samples, most), network)
            distance = np.abs(-candidates.logits - threshold)
            clear = np.flatnonzero(distance > margin)
            by_score = clear[np.argsort(candidates.logits[clear])]
            chosen.append(_take(candidates, np.array(spread(by_score.tolist(), share), dtype=np.intp)))
    if not any(
        len(part.logits) for part in chosen
    ):  # few samples, all at the threshold: the farthest will do
        everything = good + dataset.of("train")
        candidates = _golden(modality, spread(everything, most), network)
        chosen.append(_take(candidates, np.argmax(np.abs(-candidates.logits - threshold), keepdims=True)))
    images = [part.images_rgb for part in chosen if part.images_rgb is not None]
    return Golden(
        np.concatenate(images) if images else None,
        np.concatenate([part.inputs for part in chosen]),
        np.concatenate([part.logits for part in chosen]),
    )


def write_golden(golden: Golden, folder: Path) -> None:
    """Writes `golden.npz`."""
    arrays: dict[str, npt.NDArray[np.generic]] = {"inputs": golden.inputs, "logits": golden.logits}
    if golden.images_rgb is not None:
        arrays = {"images_rgb": golden.images_rgb, **arrays}
    np.savez_compressed(folder / GOLDEN, allow_pickle=False, **arrays)


def _golden(modality: Modality, samples: list[Sample], network: nn.Module) -> Golden:
    images, inputs = modality.golden(samples)
    logits = -anomaly_scores(network, torch.from_numpy(modality.to_network(inputs)))
    return Golden(images, inputs, logits.astype(np.float32))


def spread(items: list[Sample] | list[int], count: int) -> list:  # type: ignore[type-arg]
    """At most `count` items, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def _take(golden: Golden, rows: npt.NDArray[np.intp]) -> Golden:
    images = None if golden.images_rgb is None else golden.images_rgb[rows]
    return Golden(images, golden.inputs[rows], golden.logits[rows])
