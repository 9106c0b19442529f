"""Golden images: real ones, with the trainer's own answers, that every engine must reproduce."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from algan_stream.bundle import GOLDEN, Golden
from algan_stream.images import read_image
from algan_stream.preprocess import preprocess
from algan_stream.types import InputSpec
from algan_trainer.data import Dataset, Sample
from algan_trainer.networks import Discriminator, anomaly_scores

#: Candidates looked at for them.
_CANDIDATES = 64


def choose_golden(
    dataset: Dataset, network: Discriminator, spec: InputSpec, threshold: float, *, margin: float, count: int
) -> Golden:
    """Chooses up to `count` held-out images that spread over the scores, half of them anomalous if any are.

    Images whose score lies within `margin`, the widest tolerance that the bundle states, of the threshold are
    passed over: rounding alone could turn their verdict, and the gate would then refuse a sound engine.
    """
    root = dataset.root
    good = dataset.calibration
    anomalous = [s for s in dataset.of("validation") if s.anomalous]
    shares = (count - count // 2, count // 2) if anomalous else (count, 0)
    chosen: list[Golden] = []
    for samples, share in zip((good, anomalous), shares, strict=True):
        if samples and share:
            candidates = _golden(root, _spread(samples, _CANDIDATES), network, spec)
            distance = np.abs(-candidates.logits - threshold)
            clear = np.flatnonzero(distance > margin)
            by_score = clear[np.argsort(candidates.logits[clear])]
            chosen.append(_take(candidates, np.array(_spread(by_score.tolist(), share), dtype=np.intp)))
    if not any(len(part.logits) for part in chosen):  # few images, all at the threshold: the farthest will do
        everything = good + dataset.of("train")
        candidates = _golden(root, _spread(everything, _CANDIDATES), network, spec)
        chosen.append(_take(candidates, np.argmax(np.abs(-candidates.logits - threshold), keepdims=True)))
    return Golden(
        np.concatenate([part.images_rgb for part in chosen]),
        np.concatenate([part.inputs for part in chosen]),
        np.concatenate([part.logits for part in chosen]),
    )


def write_golden(golden: Golden, folder: Path) -> None:
    """Writes `golden.npz`."""
    np.savez_compressed(
        folder / GOLDEN, images_rgb=golden.images_rgb, inputs=golden.inputs, logits=golden.logits
    )


def _golden(root: Path, samples: list[Sample], network: Discriminator, spec: InputSpec) -> Golden:
    images = np.stack([_resized_rgb(root / s.path, spec) for s in samples])
    inputs = np.concatenate([preprocess(image, spec, pixel_format="rgb8") for image in images])
    logits = -anomaly_scores(network, torch.from_numpy(inputs))
    return Golden(images, inputs, logits.astype(np.float32))


def _resized_rgb(path: Path, spec: InputSpec) -> npt.NDArray[np.uint8]:
    """An image file at the network's size, (H, W, 3) uint8, by the core's own resize."""
    plain = InputSpec(
        height_px=spec.height_px,
        width_px=spec.width_px,
        pooled_channels=False,
        downscale=spec.downscale,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    image, pixel_format = read_image(path)
    planes = preprocess(image, plain, pixel_format=pixel_format)[0]  # (3, H, W), 0..1
    return np.ascontiguousarray(np.rint(planes * 255.0).astype(np.uint8).transpose(1, 2, 0))


def _spread(items: list[Sample] | list[int], count: int) -> list:  # type: ignore[type-arg]
    """At most `count` items, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def _take(golden: Golden, rows: npt.NDArray[np.intp]) -> Golden:
    return Golden(golden.images_rgb[rows], golden.inputs[rows], golden.logits[rows])
