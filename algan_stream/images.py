"""Decodes image files, strictly: a truncated file is an error, never a picture with a grey rest.

Everything behind this works on 8 bits per channel. 16-bit PNG and TIFF files are mapped there by one fixed
straight line, 0 to black and the white level to 255, the same for every image: a stretch by each image's own
range would make its score depend on its brightest pixel. The white level is part of the model's `InputSpec`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from algan_stream.errors import ImageError, InputError
from algan_stream.types import FULL_RANGE, PixelFormat

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from PIL.ImageFile import ImageFile

#: Suffixes that a folder of images is searched for.
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
#: Modes that convert to 8 bits per channel without loss of what the camera saw.
_TO_MODE = {"L": "L", "RGB": "RGB", "1": "L", "P": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}
#: Modes that hold a 16-bit grey image; `I` is that only from a PNG file.
_GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")

#: Tags of TIFF files, and a value of the second.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
#: The eight orientations of EXIF; OpenCV may or may not have applied the file's.
_TURNS: tuple[Callable[[npt.NDArray[Any]], npt.NDArray[Any]], ...] = (
    lambda a: a,
    lambda a: a[::-1, ::-1],
    np.rot90,
    lambda a: np.rot90(a, -1),
    lambda a: a[:, ::-1],
    lambda a: a[::-1],
    lambda a: a.swapaxes(0, 1),
    lambda a: a[::-1, ::-1].swapaxes(0, 1),
)

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def read_image(
    path: str | Path, white_level: int | None = FULL_RANGE
) -> tuple[npt.NDArray[np.uint8], PixelFormat]:
    """Decodes one image file, upright by its EXIF orientation, to 8 bits per channel.

    Args:
        path: A file of any kind in `IMAGE_SUFFIXES`.
        white_level: Value in 16-bit files that becomes 255, from the model's `InputSpec`; None where no
            model is known: then they are refused.

    Returns:
        uint8 (H, W, 3) with `rgb8`, or (H, W) with `grey8`.

    Raises:
        ImageError: The file is missing, empty, truncated, not an image, of a kind that 8 bits per
            channel cannot hold (float, transparency), or brighter than the white level.
    """
    pixels, pixel_format = read_pixels(path)
    if pixels.dtype == np.uint8:
        return pixels.view(np.uint8), pixel_format
    if white_level is None:
        raise ImageError(
            f"{path}: is a 16-bit image, and without a model it is not known which value is white; convert "
            "it to 8 bits"
        )
    if (brightest := int(pixels.max())) > white_level:
        raise ImageError(
            f"{path}: holds the value {brightest}, above the white level {white_level} that the model was "
            "trained with; the camera's settings differ from then, or the model needs another white level"
        )
    return _to_8_bits(white_level)[pixels], pixel_format


def read_pixels(path: str | Path) -> tuple[Pixels, PixelFormat]:
    """Decodes one image file as it is, upright by its EXIF orientation.

    Returns:
        uint8 or uint16, (H, W, 3) in RGB order with `rgb8`, or (H, W) with `grey8`; C order.

    Raises:
        ImageError: As for `read_image`, but for the white level.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            bits = _bits(image)
            image.load()
            if bits == 16 and image.format in ("PNG", "TIFF") and not image.has_transparency_data:
                if image.mode in _GREY_16 or image.mode == "I":
                    return np.ascontiguousarray(ImageOps.exif_transpose(image), np.uint16), "grey8"
                if image.mode == "RGB":
                    return _rgb_16(path, ImageOps.exif_transpose(image)), "rgb8"
            mode = _TO_MODE.get(image.mode)
            if mode is None or image.has_transparency_data or bits != 8:
                also = " with transparency" if mode and image.has_transparency_data else ""
                depth = f" of {bits} bits" if bits != 8 else ""
                raise ImageError(
                    f"{path}: expected 8-bit grey or RGB, or 16-bit PNG or TIFF, got mode {image.mode!r}"
                    f"{also}{depth}; convert it to PNG without transparency"
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


def _bits(image: ImageFile) -> int:
    """Bits per channel in the file, which the mode of an RGB image does not tell; call it before `load`."""
    args = image.tile[0][3] if image.tile else ()
    fields = args if isinstance(args, tuple) else (args,)
    if image.format == "PPM":
        return 16 if image.mode == "I" or any(isinstance(f, int) and f > 255 for f in fields) else 8
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        if tags.get(_PHOTOMETRIC, 1) == _WHITE_IS_ZERO and max(tags.get(_BITS_PER_SAMPLE, (1,))) > 8:
            raise ValueError("0 means white in it, which is only read from images of 8 bits")
        return int(max(8, *tags.get(_BITS_PER_SAMPLE, (1,))))
    return 16 if ";16" in str(args) else 8


def _rgb_16(path: str | Path, upright: PILImage) -> npt.NDArray[np.uint16]:
    """16-bit RGB by OpenCV, for Pillow cuts it to 8 bits; Pillow, the stricter of the two, bears witness."""
    import cv2

    found = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is not None and found.dtype == np.uint16 and found.ndim == 3 and found.shape[2] == 3:
        rgb = found[..., ::-1]
        witness = np.asarray(upright).astype(np.int32)
        for turn in _TURNS:
            turned = turn(rgb)
            if turned.shape == witness.shape and np.abs((turned >> 8).astype(np.int32) - witness).max() <= 1:
                return np.ascontiguousarray(turned, np.uint16)
    raise ValueError("two decoders do not agree on this 16-bit RGB image; convert it to 8 bits")


@functools.lru_cache(maxsize=4)
def _to_8_bits(white_level: int) -> npt.NDArray[np.uint8]:
    """Table from 16-bit values to 8 bits, rounded half up, as `_core` maps `grey16`."""
    values = np.arange(FULL_RANGE + 1, dtype=np.int64)
    return np.minimum((510 * values + white_level) // (2 * white_level), 255).astype(np.uint8)


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
