"""Pixel masks of defects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from algan_stream.errors import ImageError
from algan_trainer.data.dataset import Sample


def read_mask(root: Path, sample: Sample) -> npt.NDArray[np.bool_] | None:
    """Where a sample's image shows the defect.

    A mask that has transparency marks the defect by its opacity; of any other, the grey value counts, or the
    index of a palette's colour if the sample's level is 0. Several masks of one image add up.

    Args:
        root: The data's root.
        sample: As from `read_dataset` or `list_labelled`.

    Returns:
        bool (H, W), at the mask's own size, which is that of the image in every dataset known to us; None
        where the sample has no mask.

    Raises:
        ImageError: A mask cannot be decoded, or masks of one image differ in size.
    """
    if not sample.mask:
        return None
    path = root / sample.mask
    files = sorted(path.glob("*.png")) if path.is_dir() else [path]
    if not files:
        raise ImageError(f"{path}: expected a mask, or a folder with masks that end in .png, got none")
    masks = [_read(file, sample.mask_above) for file in files]
    if len({mask.shape for mask in masks}) > 1:
        raise ImageError(f"{path}: expected masks of one size, got {sorted({m.shape for m in masks})}")
    union: npt.NDArray[np.bool_] = np.logical_or.reduce(masks)
    return union


def _read(path: Path, above: int) -> npt.NDArray[np.bool_]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            if image.has_transparency_data:
                return np.asarray(image.convert("RGBA").getchannel("A")) > above
            indexed = image.mode == "P" and above == 0
            return np.asarray(image if indexed else image.convert("L")) > above
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such mask") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: cannot be decoded as a mask: {error}") from error
