"""The report's pictures: small files with names of our own, in `pictures/` beside the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, features

from algan_stream.explain import Explainer, overlay
from algan_stream.images import read_image
from algan_stream.preprocess import preprocess
from algan_stream.types import InputSpec
from algan_trainer.report.content import Picture

FOLDER = "pictures"
#: Longest side of a picture; what is smaller stays as it is.
SIDE_PX = 128
#: Pictures in a row of a sheet, and the space between them.
_COLUMNS, _GAP_PX = 6, 4
_GAP_GREY = 255
_QUALITY, _SHEET_QUALITY = 80, 60

Images = npt.NDArray[np.uint8]


class Thumbnails:
    """Small pictures of image files, whole and in their own proportions.

    Args:
        report: Folder of the report.
        spec: Says which value of a 16-bit image is white, and what an explanation is made from.
        explainer: Shows in a second picture where the score comes from; None: there is none.
    """

    def __init__(self, report: Path, spec: InputSpec, explainer: Explainer | None = None) -> None:
        self._report, self._spec, self._explainer = report, spec, explainer

    def write(self, name: str, source: Path) -> tuple[Picture, Picture | None]:
        """Writes the pictures of one file; `name` is the new file's, without a suffix.

        Raises:
            ImageError: The file cannot be decoded.
            EngineError: The explanation failed.
        """
        pixels, pixel_format = read_image(source, self._spec.white_level)
        image = Image.fromarray(pixels)
        image.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS, reducing_gap=3.0)
        plain = _write(self._report, name, image)
        if self._explainer is None:
            return plain, None
        saliency = self._explainer.saliency(preprocess(pixels, self._spec, pixel_format=pixel_format))[0]
        laid_over = overlay(np.asarray(image), saliency, pixel_format=pixel_format)[..., ::-1]  # BGR → RGB
        return plain, _write(self._report, f"{name}-why", Image.fromarray(np.ascontiguousarray(laid_over)))


def write_sheet(report: Path, name: str, images: Images) -> Picture:
    """Writes images (n, H, W, 3), n ≥ 1, side by side in rows of six."""
    return _write(report, name, Image.fromarray(sheet(images)), _SHEET_QUALITY)


def sheet(images: Images) -> Images:
    """Lays images (n, H, W, 3) out in rows of six, none larger than `SIDE_PX`: (H', W', 3)."""
    count, height, width, _ = images.shape
    shrink = min(1.0, SIDE_PX / max(height, width))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    shape = (rows * (size[1] + _GAP_PX) - _GAP_PX, columns * (size[0] + _GAP_PX) - _GAP_PX, 3)
    canvas = np.full(shape, _GAP_GREY, np.uint8)
    for i, image in enumerate(images):
        small = Image.fromarray(image).resize(size, Image.Resampling.BOX)
        top, left = (i // columns) * (size[1] + _GAP_PX), (i % columns) * (size[0] + _GAP_PX)
        canvas[top : top + size[1], left : left + size[0]] = np.asarray(small)
    return canvas


def to_rgb(inputs: npt.NDArray[np.float32], spec: InputSpec) -> Images:
    """Turns the networks' inputs (n, C, H, W) back into pictures (n, H, W, 3)."""
    mean, std = (np.asarray(v, np.float32)[:, None, None] for v in (spec.mean, spec.std))
    values = (inputs[:, :3] * std + mean) * 255.0
    return np.ascontiguousarray(np.rint(values.clip(0.0, 255.0)).astype(np.uint8).transpose(0, 2, 3, 1))


def remove_pictures(report: Path, pictures: Sequence[Picture]) -> None:
    """Removes the pictures of an earlier report."""
    for picture in pictures:
        (report / FOLDER / Path(picture.file).name).unlink(missing_ok=True)


def _write(report: Path, name: str, image: Image.Image, quality: int = _QUALITY) -> Picture:
    """As WebP, half the size of JPEG, where Pillow was built with it."""
    suffix = ".webp" if features.check("webp") else ".jpg"
    file = f"{FOLDER}/{name}{suffix}"
    (report / FOLDER).mkdir(parents=True, exist_ok=True)
    image.save(report / file, quality=quality)
    return Picture(file=file, width_px=image.width, height_px=image.height)
