"""Decodes image files, strictly: a truncated file is an error, never a picture with a grey rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from algan_stream.errors import ImageError, InputError
from algan_stream.types import PixelFormat

#: Suffixes that a folder of images is searched for.
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
#: Modes that convert to 8 bits per channel without loss of what the camera saw.
_TO_MODE = {"L": "L", "RGB": "RGB", "1": "L", "P": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}


def read_image(path: str | Path) -> tuple[npt.NDArray[np.uint8], PixelFormat]:
    """Decodes one image file, upright by its EXIF orientation.

    Args:
        path: A file of any kind in `IMAGE_SUFFIXES`.

    Returns:
        uint8 (H, W, 3) with `rgb8`, or (H, W) with `grey8`.

    Raises:
        ImageError: The file is missing, empty, truncated, not an image, or of a kind that 8 bits per
            channel cannot hold (16-bit, float, transparency).
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            image.load()
            mode = _TO_MODE.get(image.mode)
            if mode is None or image.has_transparency_data:
                also = " with transparency" if mode else ""
                raise ImageError(
                    f"{path}: expected 8-bit grey or RGB, got mode {image.mode!r}{also}; convert it to 8-bit "
                    "PNG without transparency"
                )
            upright = ImageOps.exif_transpose(image).convert(mode)
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, ImageError):
            raise
        size = Path(path).stat().st_size if Path(path).is_file() else 0
        why = "the file is empty" if size == 0 else f"{error} (file of {size} bytes)"
        raise ImageError(f"{path}: cannot be decoded as an image: {why}") from error
    return np.ascontiguousarray(upright), "grey8" if mode == "L" else "rgb8"


def list_images(folder: str | Path) -> list[Path]:
    """Lists the image files below a folder, sorted by path.

    Raises:
        InputError: The folder does not exist or holds no image.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: expected a folder of images, but there is no such folder")
    found = sorted(p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not found:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"{root}: holds no images; expected files that end in {kinds}")
    return found
