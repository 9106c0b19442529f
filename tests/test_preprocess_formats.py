"""Every camera format, on every path, against a plain reference and against OpenCV."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from algan_stream import _core
from algan_stream.images import read_image
from algan_stream.preprocess import available_simd, empty_slots, preprocess, preprocess_into
from algan_stream.types import InputSpec

HERE = Path(__file__)
reference = runpy.run_path(str(HERE.with_name("preprocess_reference.py")))["reference"]
to_rgb = runpy.run_path(str(HERE.with_name("colour_reference.py")))["to_rgb"]

TOLERANCE = 1.5e-4  # as in test_preprocess.py
BAYER = ["bayer_rggb8", "bayer_bggr8", "bayer_grbg8", "bayer_gbrg8"]
PLANAR = ["nv12", "nv21", "i420"]
PACKED = ["yuyv", "uyvy"]
FORMATS = ["bgr8", "rgb8", "grey8", "bgra8", "rgba8", "grey16", *BAYER, *PLANAR, *PACKED]
MATRICES = ["bt601", "bt601_full", "bt709", "bt709_full"]


@pytest.fixture(params=available_simd())
def simd(request):
    _core._force_simd(request.param)
    yield request.param
    _core._force_simd("")


def make_image(height, width, pixel_format, seed=0):
    rng = np.random.default_rng(seed)
    if pixel_format == "grey16":
        return rng.integers(0, 65536, (height, width), np.uint16)
    last = {"bgr8": (3,), "rgb8": (3,), "bgra8": (4,), "rgba8": (4,), "yuyv": (2,), "uyvy": (2,)}
    rows = height * 3 // 2 if pixel_format in PLANAR else height
    return rng.integers(0, 256, (rows, width, *last.get(pixel_format, ())), np.uint8)


def colours(image, pixel_format, height, width, yuv="bt601", white_level=65535):
    """uint8 (H, W, 3): each pixel as the core reads it, by way of an output of the same size."""
    spec = InputSpec(height_px=height, width_px=width, pooled_channels=False, white_level=white_level)
    out = empty_slots(1, spec, dtype=np.uint8, layout="nhwc")
    preprocess_into(out, image, spec, pixel_format=pixel_format, layout="nhwc", yuv=yuv)
    return out[0]


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize(
    "size", [(2, 2), (2, 6), (6, 62), (4, 64), (8, 66), (10, 126), (12, 130), (6, 200)], ids=str
)
def test_every_pixel_is_read_exactly(simd, pixel_format, size):
    image = make_image(*size, pixel_format)
    np.testing.assert_array_equal(colours(image, pixel_format, *size), to_rgb(image, pixel_format))


@pytest.mark.parametrize("pixel_format", ["bgra8", "grey16", *BAYER])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (3, 65), (5, 127)], ids=str)
def test_odd_sizes_where_the_format_allows_them(simd, pixel_format, size):
    image = make_image(*size, pixel_format)
    np.testing.assert_array_equal(colours(image, pixel_format, *size), to_rgb(image, pixel_format))


@pytest.mark.parametrize("pixel_format", ["nv12", "i420", "yuyv"])
@pytest.mark.parametrize("yuv", MATRICES)
def test_every_yuv_matrix_at_every_value(simd, pixel_format, yuv):
    image = make_image(64, 256, pixel_format)
    image[:64] = np.arange(256, dtype=np.uint8).reshape(1, 256, *[1] * (image.ndim - 2))
    got = colours(image, pixel_format, 64, 256, yuv)
    np.testing.assert_array_equal(got, to_rgb(image, pixel_format, yuv))


def real_valued(image, pixel_format, yuv):
    """The textbook's matrix, in float64."""
    names = runpy.run_path(str(HERE.with_name("colour_reference.py")))
    red, blue, limited = names["YUV"][yuv]
    y, u, v = (p.astype(np.float64) for p in names["split_yuv"](image, pixel_format))
    y = np.maximum(y - 16, 0) * 255 / 219 if limited else y
    u, v = ((c - 128) * (255 / 224 if limited else 1) for c in (u, v))
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], axis=-1)


@pytest.mark.parametrize("yuv", MATRICES)
def test_yuv_is_within_rounding_of_the_textbook(yuv):
    image = make_image(128, 256, "nv12")
    want = np.clip(real_valued(image, "nv12", yuv), 0, 255)
    assert np.abs(to_rgb(image, "nv12", yuv) - want).max() <= 0.6


def test_yuv_and_bayer_are_what_opencv_makes_of_them():
    import cv2

    for pixel_format in (*PLANAR, *PACKED):
        code = getattr(cv2, f"COLOR_YUV2RGB_{pixel_format.upper()}")
        image = make_image(96, 130, pixel_format)
        theirs = cv2.cvtColor(image, code).astype(int)
        assert np.abs(colours(image, pixel_format, 96, 130) - theirs).max() <= 1
    for pixel_format in BAYER:
        code = getattr(cv2, f"COLOR_Bayer{pixel_format[6:10].upper()}2RGB")
        image = make_image(95, 131, pixel_format)
        inner = (slice(1, -1), slice(1, -1))  # at the edge OpenCV repeats the pixels beside it
        np.testing.assert_array_equal(
            colours(image, pixel_format, 95, 131)[inner], cv2.cvtColor(image, code)[inner]
        )


@pytest.mark.parametrize("downscale", ["area", "bilinear"])
@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("size", [(48, 40), (150, 202)], ids=str)
def test_filters_are_those_of_plain_pixels(simd, pixel_format, downscale, size):
    image = make_image(*size, pixel_format)
    height, width = size
    boxes = np.array(
        [[0, 0, width, height], [3, 5, 30, 39], [7.25, 1.5, 38.5, 44.75], [1, 1, width, 3],
         [width - 9, height - 7, width, height], [width - 1, 0, width, height]], np.float32,
    )  # fmt: skip
    for side in (7, 33, 64):
        spec = InputSpec(height_px=side, width_px=side + 1, downscale=downscale)
        got = preprocess(image, spec, pixel_format=pixel_format, boxes=boxes)
        want = reference(image, spec, pixel_format, boxes)
        np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("downscale", ["area", "bilinear"])
@pytest.mark.parametrize("pixel_format", [*BAYER, *PLANAR, *PACKED])
def test_filters_give_the_bits_of_the_rgb_picture(simd, pixel_format, downscale):
    """However few pixels a path converts, and wherever it adds them up."""
    height, width = 98, 262
    image = make_image(height, width, pixel_format)
    rgb = to_rgb(image, pixel_format)
    boxes = np.array(
        [[0, 0, width, height], [33, 7, 196, 91], [7.25, 1.5, 250.5, 44.75], [1, 3, 3, 5],
         [31, 0, 97, height], [width - 70, height - 60, width, height], [width - 1, 0, width, height]],
        np.float32,
    )  # fmt: skip
    # Steps from enlarging to more rows and columns than a strip or a tap's table holds.
    for side_y, side_x in ((3, 16), (11, 23), (33, 130), (64, 8), (120, 41), (16, 300)):
        spec = InputSpec(height_px=side_y, width_px=side_x, downscale=downscale)
        got = preprocess(image, spec, pixel_format=pixel_format, boxes=boxes)
        np.testing.assert_array_equal(got, preprocess(rgb, spec, pixel_format="rgb8", boxes=boxes))


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_a_box_sees_what_the_whole_image_sees(simd, pixel_format):
    """The colours of a pixel do not depend on the crop it is read for."""
    image = make_image(70, 150, pixel_format)
    whole = colours(image, pixel_format, 70, 150)
    spec = InputSpec(height_px=20, width_px=31, pooled_channels=False)
    for left, top in ((0, 0), (1, 3), (64, 7), (118, 49), (119, 50)):
        out = empty_slots(1, spec, dtype=np.uint8, layout="nhwc")
        box = np.array([[left, top, left + 31, top + 20]], np.float64)
        preprocess_into(out, image, spec, pixel_format=pixel_format, boxes=box, layout="nhwc")
        np.testing.assert_array_equal(out[0], whole[top : top + 20, left : left + 31])


@pytest.mark.parametrize("white_level", [255, 1023, 4095, 65535])
def test_grey16_is_mapped_as_files_are(simd, white_level, tmp_path):
    import cv2

    values = np.arange(0, white_level + 1, max(1, white_level // 4000), dtype=np.uint16)
    image = np.resize(values, (40, 128))
    cv2.imwrite(str(tmp_path / "a.png"), image)
    from_file, _ = read_image(tmp_path / "a.png", white_level)
    got = colours(image, "grey16", 40, 128, white_level=white_level)
    np.testing.assert_array_equal(got, from_file[:, :, None].repeat(3, axis=2))


def test_grey16_above_white_is_white(simd):
    image = np.full((3, 70), 5000, np.uint16)
    assert (colours(image, "grey16", 3, 70, white_level=4095) == 255).all()


@pytest.mark.parametrize(
    ("pixel_format", "view"),
    [("nv12", "padded")]  # its rows belong together, so that only they may be padded
    + [(f, v) for f in ("bgra8", "grey16", "bayer_grbg8", "yuyv")
       for v in ("padded", "upside down", "every other row")],
)  # fmt: skip
def test_any_row_stride_is_read_in_place(simd, pixel_format, view):
    image = make_image(60, 180, pixel_format)
    image.setflags(write=False)
    strided = {"padded": image[:, 20:152], "upside down": image[::-1], "every other row": image[::2]}[view]
    spec = InputSpec(height_px=20, width_px=23)
    np.testing.assert_array_equal(
        preprocess(strided, spec, pixel_format=pixel_format),
        preprocess(np.ascontiguousarray(strided), spec, pixel_format=pixel_format),
    )


@pytest.mark.parametrize("pixel_format", PLANAR)
def test_planes_of_their_own_equal_one_array(simd, pixel_format):
    """As PyAV and GStreamer hand them out, each with its own padding."""
    image = make_image(60, 132, pixel_format)
    spec = InputSpec(height_px=25, width_px=27)
    want = preprocess(image, spec, pixel_format=pixel_format)

    def padded(plane):
        wide = np.zeros((plane.shape[0], plane.shape[1] + 13), np.uint8)
        wide[:, : plane.shape[1]] = plane
        return wide[:, : plane.shape[1]]

    luma, rest = image[:60], np.ascontiguousarray(image[60:])
    planes = [padded(luma)]
    if pixel_format == "i420":
        planes += [padded(plane) for plane in rest.reshape(2, 30, 66)]
    else:
        planes.append(padded(rest))
        pairs = (luma, rest.reshape(30, 66, 2))
        np.testing.assert_array_equal(preprocess(pairs, spec, pixel_format=pixel_format), want)
    np.testing.assert_array_equal(preprocess(tuple(planes), spec, pixel_format=pixel_format), want)


class Foreign:
    """Pixels of another library, by one protocol."""

    def __init__(self, array, protocol):
        self._array = array
        if protocol == "__array_interface__":
            self.__array_interface__ = array.__array_interface__

    def __getattr__(self, name):
        if name in ("__dlpack__", "__dlpack_device__") and "__array_interface__" not in self.__dict__:
            return getattr(self._array, name)
        raise AttributeError(name)


@pytest.mark.parametrize("protocol", ["__dlpack__", "__array_interface__"])
def test_other_libraries_pixels_come_without_a_copy(protocol):
    image = make_image(40, 50, "bgr8")
    spec = InputSpec(height_px=16, width_px=16)
    want = preprocess(image, spec)
    np.testing.assert_array_equal(preprocess(Foreign(image, protocol), spec), want)
    out = np.zeros((2, 5, 16, 16), np.float32)
    assert preprocess_into(Foreign(out, protocol), image, spec, first_slot=1) == 1
    np.testing.assert_array_equal(out[1:], want)


def test_torch_tensors_are_read_in_place():
    torch = pytest.importorskip("torch")
    image = torch.randint(0, 256, (30, 40, 3), dtype=torch.uint8)
    spec = InputSpec(height_px=16, width_px=16)
    np.testing.assert_array_equal(preprocess(image, spec), preprocess(image.numpy(), spec))
    out = torch.zeros((1, 5, 16, 16))
    preprocess_into(out, image, spec)
    np.testing.assert_array_equal(out.numpy(), preprocess(image.numpy(), spec))
