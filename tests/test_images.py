"""Image files: decoded as they are, or refused with the reason; never a picture with a grey rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from algan_stream.errors import ImageError, InputError
from algan_stream.images import IMAGE_SUFFIXES, list_images, read_image

_RGB = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def test_rgb_and_grey_come_back_bit_for_bit(tmp_path: Path) -> None:
    for name, pixels, expected in (("rgb.png", _RGB, "rgb8"), ("grey.png", _RGB[..., 0], "grey8")):
        Image.fromarray(pixels).save(tmp_path / name)
        image, pixel_format = read_image(tmp_path / name)
        assert pixel_format == expected
        assert np.array_equal(image, pixels)
        assert image.flags.c_contiguous


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_every_suffix_that_is_listed_can_be_read(tmp_path: Path, suffix: str) -> None:
    pixels = _RGB[..., 0] if suffix == ".pgm" else _RGB
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    assert list_images(tmp_path) == [tmp_path / f"a{suffix}"]
    assert read_image(tmp_path / f"a{suffix}")[0].shape == pixels.shape


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.95])
def test_a_truncated_file_is_refused(tmp_path: Path, kind: str, kept: float) -> None:
    path = tmp_path / "image"
    Image.fromarray(_RGB).save(path, kind)
    data = path.read_bytes()
    path.write_bytes(data[: round(len(data) * kept)])
    with pytest.raises(ImageError, match="image: cannot be decoded as an image"):
        read_image(path)


def test_an_empty_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(ImageError, match=r"a\.png: cannot be decoded as an image: the file is empty"):
        read_image(tmp_path / "a.png")


def test_text_a_folder_and_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("not a picture")
    (tmp_path / "b.png").mkdir()
    for name, message in (("a.png", "13 bytes"), ("b.png", "cannot be decoded"), ("c.png", "no such file")):
        with pytest.raises(ImageError, match=message):
            read_image(tmp_path / name)


@pytest.mark.parametrize("corrupt_at", [0.3, 0.6, 0.9])
def test_a_png_with_a_flipped_byte_is_refused(tmp_path: Path, corrupt_at: float) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(_RGB).save(path)
    data = bytearray(path.read_bytes())
    data[round(len(data) * corrupt_at)] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ImageError, match="cannot be decoded"):
        read_image(path)


@pytest.mark.parametrize(
    ("mode", "pixels"),
    [
        ("I;16", np.full((8, 8), 1000, np.uint16)),
        ("RGBA", np.zeros((8, 8, 4), np.uint8)),
        ("LA", np.zeros((8, 8, 2), np.uint8)),
    ],
)
def test_what_8_bits_cannot_hold_is_refused(tmp_path: Path, mode: str, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=f"expected 8-bit grey or RGB, got mode '{mode}'.*convert it"):
        read_image(tmp_path / "a.png")


def test_a_float_tiff_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="got mode 'F'"):
        read_image(tmp_path / "a.tif")


def test_transparency_in_a_palette_or_a_colour_key_is_refused(tmp_path: Path) -> None:
    """The pixel under a transparent one is anybody's guess; it must not be scored as if it were seen."""
    palette = Image.fromarray(_RGB).quantize(8)
    palette.save(tmp_path / "palette.png", transparency=0)
    Image.fromarray(_RGB).save(tmp_path / "key.png", transparency=(1, 2, 3))
    for name in ("palette.png", "key.png"):
        with pytest.raises(ImageError, match="transparency"):
            read_image(tmp_path / name)


def test_palette_and_bilevel_images_are_converted(tmp_path: Path) -> None:
    Image.fromarray(_RGB).quantize(8).save(tmp_path / "p.png")
    image, pixel_format = read_image(tmp_path / "p.png")
    assert (image.shape, pixel_format) == ((40, 60, 3), "rgb8")
    Image.fromarray(_RGB[..., 0] > 127).save(tmp_path / "1.png")
    image, pixel_format = read_image(tmp_path / "1.png")
    assert pixel_format == "grey8"
    assert np.array_equal(image, np.where(_RGB[..., 0] > 127, 255, 0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture_upright(tmp_path: Path, orientation: int) -> None:
    turned = {
        1: _RGB,
        2: _RGB[:, ::-1],
        3: _RGB[::-1, ::-1],
        4: _RGB[::-1],
        5: _RGB.transpose(1, 0, 2),
        6: np.rot90(_RGB, -1),
        7: _RGB[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(_RGB),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(_RGB).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png")[0], turned)


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    """A few kilobytes that claim to be gigapixels."""
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 60000 60000 255\n" + b"\0" * 100)
    with pytest.raises(ImageError, match="cannot be decoded"):
        read_image(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_large_but_possible_image_is_read(tmp_path: Path) -> None:
    """Line-scan cameras deliver more pixels than Pillow's warning likes; it must not become an error."""
    path = tmp_path / "a.pgm"
    height, width = 9_000, 10_001
    path.write_bytes(f"P5 {width} {height} 255\n".encode() + bytes(height * width))
    assert read_image(path)[0].shape == (height, width)


def test_folders_are_listed_in_order_with_subfolders(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/1.jpg", "a.bmp", "notes.txt", "b/.hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.relative_to(tmp_path).as_posix() for p in list_images(tmp_path)] == [
        "a.bmp",
        "b/1.jpg",
        "b/2.PNG",
    ]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no images; expected files that end in \.bmp"):
        list_images(tmp_path)
    with pytest.raises(InputError, match="there is no such folder"):
        list_images(tmp_path / "nowhere")
