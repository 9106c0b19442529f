"""How well saliency maps find the defects: pixel AUROC and pointing accuracy against masks. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from algan_stream.bundle import Bundle
from algan_stream.errors import InputError
from algan_stream.explain import Explainer, on_pixels, peak_xy_px
from algan_stream.images import read_image
from algan_stream.preprocess import preprocess
from algan_stream.types import InputSpec
from algan_trainer.data import Sample, read_mask

#: How far from the defect a peak may lie and still count, as a share of the image's width and height.
TOLERANCE = 0.05
#: Bits of a float32 that a histogram leaves out: values within 1/2048 of each other share a bin.
_DROPPED_BITS = 12
_BINS = 1 << (31 - _DROPPED_BITS)

Mask = npt.NDArray[np.bool_]
Saliency = npt.NDArray[np.float32]


class PixelAuroc:
    """AUROC over any number of pixels in a fixed 8 MiB: two histograms over the float32's leading bits.

    Floats from 0 are ordered as their bits are, so that the bins are fine at every magnitude; pixels that
    share a bin count as ties, half.
    """

    def __init__(self) -> None:
        self._good = np.zeros(_BINS, np.int64)
        self._defective = np.zeros(_BINS, np.int64)

    def add(self, saliency: Saliency, mask: Mask) -> None:
        """Counts the pixels of one image: (H, W) float32 ≥ 0, finite, and (H, W) where it is defective."""
        bins = np.abs(saliency).view(np.uint32) >> _DROPPED_BITS
        defective = np.bincount(bins[mask], minlength=_BINS)
        self._defective += defective
        self._good += np.bincount(bins.ravel(), minlength=_BINS) - defective

    def auroc(self) -> float | None:
        """Probability that a defective pixel lies above a good one; None without both."""
        good, defective = self._good.sum(), self._defective.sum()
        if not (good and defective):
            return None
        below = np.cumsum(self._good) - self._good
        wins = (self._defective * (below + 0.5 * self._good)).sum()
        return float(wins / (float(good) * float(defective)))


def localise(
    bundle: Bundle, root: Path, samples: Sequence[Sample], section: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Compares a bundle's saliency maps with masks; see `compare`.

    Args:
        bundle: With an explanation graph.
        root: The data's root.
        samples: Images.
        section: Configuration section `engine`.

    Raises:
        InputError: No image has a mask.
        ImageError: An image or mask cannot be read.
        BundleError: The bundle has no explanation graph.
    """
    explainer = Explainer(bundle, section)
    try:
        return compare(bundle.manifest.image_spec, root, samples, explainer.saliency)
    finally:
        explainer.close()


def compare(
    spec: InputSpec, root: Path, samples: Sequence[Sample], to_maps: Callable[[Saliency], Saliency]
) -> dict[str, Any]:
    """Compares maps with masks, at the images' own resolution.

    Args:
        spec: How images become network inputs.
        root: The data's root.
        samples: Good images count as wholly good. Defective ones without a mask, or with an empty one, are
            left out and counted.
        to_maps: (N, C, H, W) network inputs → (N, H, W) maps.

    Returns:
        `pixel_auroc` over all pixels; `pointing_accuracy`, the share of defective images whose peak lies
        within `TOLERANCE` of the defect, `pointing_strict` on it; for each what a random place would reach,
        `…_chance`; `n_masks`, `n_without_mask`, and `per_type`.

    Raises:
        InputError: No image has a mask, or one is of another size than its image.
        ImageError: An image or mask cannot be read.
    """
    pixels, hits = PixelAuroc(), list[tuple[str, bool, bool, float, float]]()
    without = 0
    for sample in samples:
        image, pixel_format = read_image(root / sample.path, spec.white_level)
        mask = read_mask(root, sample) if sample.anomalous else np.zeros(image.shape[:2], np.bool_)
        if mask is None or (sample.anomalous and not mask.any()):
            without += 1
            continue
        if mask.shape != image.shape[:2]:
            raise InputError(f"{root / sample.path}: expected a mask of {image.shape[:2]}, got {mask.shape}")
        saliency = to_maps(preprocess(image, spec, pixel_format=pixel_format))[0]
        pixels.add(on_pixels(saliency, image), mask)
        if sample.anomalous:
            hits.append((sample.kind, *_pointing(peak_xy_px(saliency, image), mask)))
    if not hits:
        raise InputError(f"{root}: none of the {len(samples)} images has a mask to compare with")
    names = ("pointing_accuracy", "pointing_strict", "pointing_accuracy_chance", "pointing_strict_chance")
    return {
        "pixel_auroc": pixels.auroc(),
        **{name: float(np.mean([hit[i] for hit in hits])) for i, name in enumerate(names, 1)},
        "n_masks": len(hits),
        "n_without_mask": without,
        "per_type": {
            kind: {
                "n": sum(hit[0] == kind for hit in hits),
                "pointing_accuracy": float(np.mean([hit[1] for hit in hits if hit[0] == kind])),
            }
            for kind in sorted({hit[0] for hit in hits})
        },
    }


def _pointing(peak: tuple[float, float], mask: Mask) -> tuple[bool, bool, float, float]:
    """Whether the peak is near the defect and on it, and how likely a random place is either."""
    import cv2

    height, width = mask.shape
    x, y = min(int(peak[0]), width - 1), min(int(peak[1]), height - 1)
    reach_x, reach_y = round(TOLERANCE * width), round(TOLERANCE * height)
    around = np.ones((2 * reach_y + 1, 2 * reach_x + 1), np.uint8)
    near = cv2.dilate(mask.astype(np.uint8), around)
    return bool(near[y, x]), bool(mask[y, x]), float(near.mean()), float(mask.mean())
