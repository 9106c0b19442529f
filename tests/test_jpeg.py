"""JPEG bytes: the same pixels as from a file, at no more than the size that is needed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from algan_stream.errors import ImageError, InputError
from algan_stream.images import read_image
from algan_stream.jpeg import decode_jpeg, preprocess_jpeg_into
from algan_stream.preprocess import empty_slots, preprocess
from algan_stream.types import InputSpec


def picture(height: int, width: int, mode: str = "RGB") -> Image.Image:
    """Something smooth, as cameras see it, in which every direction differs."""
    y, x = np.mgrid[0:height, 0:width]
    red = 127 + 120 * np.sin(x / 37) * np.cos(y / 23)
    green, blue = 255 * x / width, 255 * y / height
    rgb = np.stack([red, green, blue], axis=-1).astype(np.uint8)
    return Image.fromarray(rgb).convert(mode)


def jpeg(image: Image.Image, orientation: int = 1, **how: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, exif=exif, **how)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_bytes_give_the_pixels_of_the_file(tmp_path: Path, mode: str, orientation: int) -> None:
    data = jpeg(picture(90, 130, mode), orientation)
    (tmp_path / "a.jpg").write_bytes(data)
    want, want_format = read_image(tmp_path / "a.jpg")
    got, got_format = decode_jpeg(data)
    assert (got_format, got.shape) == (want_format, want.shape)
    # Two builds of libjpeg-turbo may round differently.
    assert np.abs(got.astype(int) - want).max() <= 2


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("height", "width"), [(1080, 1920), (300, 1000), (257, 256), (100, 90)])
def test_no_larger_than_needed_and_never_smaller_than_the_input(
    height: int, width: int, orientation: int
) -> None:
    spec = InputSpec(height_px=256, width_px=256)
    got, _ = decode_jpeg(jpeg(picture(height, width), orientation), spec)
    full = (height, width) if orientation == 1 else (width, height)
    for side, whole in zip(got.shape[:2], full, strict=True):
        assert min(256, whole) <= side <= whole
    if min(height, width) >= 1000:
        assert got.shape[0] < full[0] / 2


def test_a_letterbox_needs_its_part_only() -> None:
    data = jpeg(picture(400, 1600))
    stretch = InputSpec(height_px=200, width_px=200)
    boxed = InputSpec(height_px=200, width_px=200, fit="letterbox")
    assert decode_jpeg(data, stretch)[0].shape == (200, 800, 3)
    assert decode_jpeg(data, boxed)[0].shape == (50, 200, 3)


def test_scaled_decoding_is_close_to_full_decoding() -> None:
    data = jpeg(picture(1080, 1920))
    spec = InputSpec(height_px=128, width_px=128)
    full, scaled = empty_slots(1, spec), empty_slots(1, spec)
    assert preprocess_jpeg_into(full, data, spec) == 1
    assert preprocess_jpeg_into(scaled, data, spec, scaled=True) == 1
    assert not np.array_equal(full, scaled)
    np.testing.assert_allclose(scaled, full, rtol=0, atol=4 / 127.5)
    np.testing.assert_array_equal(full, preprocess(decode_jpeg(data)[0], spec, pixel_format="rgb8"))


def test_boxes_are_cut_from_the_full_size() -> None:
    data = jpeg(picture(1080, 1920))
    spec = InputSpec(height_px=32, width_px=32)
    boxes = np.array([[100, 200, 300, 400], [1500, 700, 1900, 1000]], np.float32)
    out = empty_slots(3, spec)
    assert preprocess_jpeg_into(out, data, spec, boxes=boxes, first_slot=1) == 2
    want = preprocess(decode_jpeg(data)[0], spec, pixel_format="rgb8", boxes=boxes)
    np.testing.assert_array_equal(out[1:], want)
    with pytest.raises(InputError, match="leave scaled out"):
        preprocess_jpeg_into(out, data, spec, boxes=boxes, scaled=True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "got 0 bytes of something else"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "begin with FF D8, got 58 bytes"),
        (jpeg(picture(64, 64))[:-200], "cannot be decoded"),
        (jpeg(picture(64, 64, "CMYK")), "expected a grey or colour image"),
    ],
    ids=["empty", "not a JPEG", "truncated", "CMYK"],
)
def test_what_is_no_whole_jpeg_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode_jpeg(data)
