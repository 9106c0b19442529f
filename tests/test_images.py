"""Image files: decoded as they are, or refused with the reason; never a picture with a grey rest."""

from __future__ import annotations

import struct
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from algan_stream.errors import ImageError, InputError
from algan_stream.images import IMAGE_SUFFIXES, list_images, read_image, read_pixels
from algan_stream.ledger import Ledger
from algan_stream.sources import folder
from algan_stream.sources.base import SourceContext
from algan_stream.types import InputSpec

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
    ("mode", "pixels"), [("RGBA", np.zeros((8, 8, 4), np.uint8)), ("LA", np.zeros((8, 8, 2), np.uint8))]
)
def test_transparency_is_refused(tmp_path: Path, mode: str, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=f"expected 8-bit grey or RGB.*got mode '{mode}'.*convert it"):
        read_image(tmp_path / "a.png")


def expected_8_bits(pixels: np.ndarray, white: int) -> np.ndarray:
    return np.floor(pixels.astype(np.float64) * 255 / white + 0.5).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("white", [65535, 4095, 1023])
def test_16_bits_are_mapped_by_one_straight_line(
    tmp_path: Path, suffix: str, channels: int, white: int
) -> None:
    path = tmp_path / f"a{suffix}"
    pixels = np.random.default_rng(1).integers(0, white + 1, (20, 30, channels), np.uint16)
    pixels[0, 0], pixels[0, 1] = 0, white
    assert cv2.imwrite(str(path), pixels[..., ::-1])  # OpenCV writes BGR
    image, pixel_format = read_image(path, white)
    assert image.dtype == np.uint8
    assert pixel_format == ("grey8" if channels == 1 else "rgb8")
    assert image.flags.c_contiguous
    assert np.array_equal(image.reshape(pixels.shape), expected_8_bits(pixels, white))
    assert (image[0, 0].min(), image[0, 1].max()) == (0, 255)
    raw, _ = read_pixels(path)
    assert raw.dtype == np.uint16
    assert np.array_equal(raw.reshape(pixels.shape), pixels)


def test_the_range_of_one_image_does_not_stretch_it(tmp_path: Path) -> None:
    """Else a dark part and a bright one would look the same, and one hot pixel would change every score."""
    for name, level in (("dark", 10_000), ("bright", 60_000)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((8, 8), level, np.uint16))
    assert int(read_image(tmp_path / "dark.png")[0].max()) == round(10_000 / 257)
    assert int(read_image(tmp_path / "bright.png")[0].max()) == round(60_000 / 257)


def test_brighter_than_white_and_an_unknown_white_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((8, 8), 5000, np.uint16))
    with pytest.raises(ImageError, match=r"a\.png: holds the value 5000, above the white level 4095"):
        read_image(tmp_path / "a.png", 4095)
    with pytest.raises(ImageError, match="without a model it is not known which value is white"):
        read_image(tmp_path / "a.png", None)
    Image.fromarray(_RGB).save(tmp_path / "b.png")
    assert np.array_equal(read_image(tmp_path / "b.png", None)[0], _RGB)
    assert np.array_equal(read_image(tmp_path / "b.png", 255)[0], _RGB)


@pytest.mark.parametrize("channels", [2, 4])
def test_16_bits_with_transparency_are_refused(tmp_path: Path, channels: int) -> None:
    pixels = np.zeros((8, 8, 4), np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    if channels == 2:
        Image.fromarray(np.zeros((8, 8, 2), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="without transparency"):
        read_image(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore:.*Corrupt EXIF data:UserWarning")  # Pillow also says so aloud
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_truncated_16_bit_file_is_refused(tmp_path: Path, suffix: str, channels: int, kept: float) -> None:
    """OpenCV alone would hand out a picture with a black rest."""
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 65536, (40, 60, channels), np.uint16))
    data = path.read_bytes()
    path.write_bytes(data[: round(len(data) * kept)])
    with pytest.raises(ImageError, match="cannot be decoded"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_16_bits_upright_as_it_does_8(tmp_path: Path, suffix: str, orientation: int) -> None:
    grey = np.random.default_rng(0).integers(0, 65536, (20, 30), np.uint16)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(grey).save(tmp_path / f"deep{suffix}", exif=exif)
    Image.fromarray((grey >> 8).astype(np.uint8)).save(tmp_path / f"plain{suffix}", exif=exif)
    deep, _ = read_pixels(tmp_path / f"deep{suffix}")
    assert np.array_equal(deep >> 8, read_image(tmp_path / f"plain{suffix}")[0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_16_bit_rgb_upright(tmp_path: Path, orientation: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (20, 30, 3), np.uint16)
    cv2.imwrite(str(tmp_path / "plain.png"), pixels[..., ::-1])
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray((pixels >> 8).astype(np.uint8)).save(tmp_path / "shallow.png", exif=exif)
    insert_chunk(tmp_path / "plain.png", b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    deep, _ = read_pixels(tmp_path / "plain.png")
    assert deep.dtype == np.uint16
    assert np.array_equal(deep >> 8, read_image(tmp_path / "shallow.png")[0])


def insert_chunk(path: Path, kind: bytes, body: bytes) -> None:
    """Puts a chunk behind a PNG's header."""
    data = path.read_bytes()
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    path.write_bytes(data[:33] + chunk + data[33:])


@pytest.mark.parametrize("header", [b"P5 4 2 1023\n", b"P5 4 2 65535\n", b"P6 4 2 4095\n", b"P6 4 2 65535\n"])
def test_netpbm_of_more_than_8_bits_is_refused(tmp_path: Path, header: bytes) -> None:
    """Pillow would stretch it by the file's own maximum, or cut it to 8 bits, without a word."""
    (tmp_path / "a.ppm").write_bytes(header + bytes(2 * 4 * 2 * (3 if header[1:2] == b"6" else 1)))
    with pytest.raises(ImageError, match="of 16 bits; convert it to PNG"):
        read_image(tmp_path / "a.ppm")


def test_a_16_bit_tiff_whose_zero_is_white_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 1000, np.uint16)).save(tmp_path / "a.tif", tiffinfo={262: 0})
    with pytest.raises(ImageError, match="0 means white"):
        read_image(tmp_path / "a.tif")


def test_a_folder_source_maps_16_bits_as_the_model_was_trained(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((8, 8), 4095, np.uint16))
    spec = InputSpec(height_px=32, width_px=32, white_level=4095)
    for known, level, fault in ((spec, 255, ""), (None, None, "without a model")):
        context = SourceContext("cam", None, 4, Ledger(), lambda *_: None, known)
        (frame,) = folder.create(folder.Config(path=str(tmp_path)), context).frames(threading.Event())
        assert fault in frame.fault
        assert level is None or int(frame.image.max()) == level


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
