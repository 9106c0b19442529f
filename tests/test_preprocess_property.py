"""Preprocessing of images, boxes and sizes that nobody would think of."""

import runpy
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from algan_stream import _core
from algan_stream.errors import InputError
from algan_stream.preprocess import available_simd, empty_slots, preprocess, preprocess_into
from algan_stream.types import InputSpec

reference = runpy.run_path(str(Path(__file__).with_name("preprocess_reference.py")))["reference"]

# As in test_preprocess.py; both axes shrink or grow by any factor here.
TOLERANCE = 1.5e-4

sides = st.integers(1, 70)
specs = st.builds(
    InputSpec,
    height_px=sides,
    width_px=sides,
    pooled_channels=st.sampled_from([False, "max", "mean", True]),
    downscale=st.sampled_from(["area", "bilinear"]),
    fit=st.sampled_from(["stretch", "letterbox"]),
    pad_level=st.floats(0, 255),
    box_margin=st.sampled_from([0.0, 0.125, 2.0]),
    white_level=st.sampled_from([255, 4095, 65535]),
)

FORMATS = [
    "bgr8", "rgb8", "grey8", "bgra8", "rgba8", "grey16", "bayer_rggb8", "bayer_bggr8", "bayer_grbg8",
    "bayer_gbrg8", "nv12", "nv21", "i420", "yuyv", "uyvy",
]  # fmt: skip
LAST_AXIS = {"bgr8": (3,), "rgb8": (3,), "bgra8": (4,), "rgba8": (4,), "yuyv": (2,), "uyvy": (2,)}
STACKED = ("nv12", "nv21", "i420")


@st.composite
def images(draw):
    """Pixels, what they are, and the picture's height and width."""
    pixel_format = draw(st.sampled_from(FORMATS))
    height, width = draw(sides), draw(st.integers(1, 150))
    if pixel_format in (*STACKED, "yuyv", "uyvy"):
        height, width = height + height % 2, width + width % 2
    dtype = np.uint16 if pixel_format == "grey16" else np.uint8
    rows = height * 3 // 2 if pixel_format in STACKED else height
    shape = (rows, width, *LAST_AXIS.get(pixel_format, ()))
    if rows * width < 900 and draw(st.booleans()):
        image = draw(hnp.arrays(dtype, shape))
    else:
        seed = draw(st.integers(0, 99))
        image = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype)
    if pixel_format not in STACKED and draw(st.booleans()):
        image = image[:: draw(st.sampled_from([-1, 2, -2]))]
        height = image.shape[0]
    return image, pixel_format, height, width


@st.composite
def turned_boxes(draw, height, width):
    centre = [draw(st.floats(0, extent - 0.01)) for extent in (width, height)]
    side = st.floats(0.5, 2.0 * max(height, width))
    return (*centre, min(draw(side), 60), min(draw(side), 60), draw(st.floats(-720, 720)))


@st.composite
def boxes_of(draw, height, width):
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    if draw(st.integers(0, 3)) == 0:
        return np.array([draw(turned_boxes(height, width))], np.float64)
    boxes = []
    for _ in range(draw(st.integers(0, 3))):
        edges = []
        for extent in (width, height):
            low = draw(st.floats(-extent, extent - 0.1))
            high = draw(st.floats(max(low, 0) + 0.05, 2 * extent + 0.1))
            edges.append((low, high))
        (x_min, x_max), (y_min, y_max) = edges
        boxes.append((x_min, y_min, x_max, y_max))
    return np.array(boxes, dtype).reshape(-1, 4)


def on_the_verge(spec, boxes):
    """Letterboxes whose side lies so close to a half that rounding may go either way."""
    if spec.fit == "stretch" or boxes is None:
        return False
    sizes = [(b[2], b[3]) if len(b) == 5 else (b[2] - b[0], b[3] - b[1]) for b in boxes.astype(float)]
    sides = [s * min(spec.width_px / w, spec.height_px / h) for w, h in sizes for s in (w, h)]
    return any(abs(side % 1 - 0.5) < 1e-6 for side in sides)


@pytest.fixture(params=available_simd(), scope="module")
def simd(request):
    _core._force_simd(request.param)
    yield request.param
    _core._force_simd("")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), spec=specs, image=images())
def test_anything_matches_the_reference(simd, data, spec, image):
    pixels, pixel_format, height, width = image
    how = {"pixel_format": pixel_format, "boxes": data.draw(st.none() | boxes_of(height, width))}
    if data.draw(st.booleans()):
        how["mask"] = np.random.default_rng(7).integers(0, 2, (height, width), np.uint8)
    how["yuv"] = data.draw(st.sampled_from(["bt601", "bt601_full", "bt709", "bt709_full"]))
    assume(not on_the_verge(spec, how["boxes"]))
    got = preprocess(pixels, spec, **how)
    np.testing.assert_allclose(got, reference(pixels, spec, **how), rtol=0, atol=TOLERANCE)


@settings(max_examples=100, deadline=None)
@given(spec=specs, image=images())
def test_outputs_stay_within_black_and_white(simd, spec, image):
    pixels, pixel_format, _, _ = image
    got = preprocess(pixels, spec, pixel_format=pixel_format)
    assert got.min() >= -1 - TOLERANCE
    assert got.max() <= 1 + TOLERANCE
    if spec.pooled_channels in (True, "max"):
        np.testing.assert_array_equal(got[:, 3], got[:, :3].max(axis=1))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), image=images(), width=st.sampled_from([16, 32, 64]), height=st.integers(1, 20))
def test_outputs_past_the_cache_are_the_same_bits(simd, data, image, width, height):
    pixels, pixel_format, image_height, image_width = image
    spec = data.draw(specs)
    spec = msgspec.structs.replace(spec, width_px=width, height_px=height)
    how = {"pixel_format": pixel_format, "boxes": data.draw(st.none() | boxes_of(image_height, image_width))}
    try:
        _core._force_streaming(False)
        want = preprocess(pixels, spec, **how)
        _core._force_streaming(True)
        got = preprocess(pixels, spec, **how)
    finally:
        _core._force_streaming(None)
    np.testing.assert_array_equal(got, want)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), spec=specs, image=images())
def test_other_outputs_are_the_same_numbers(simd, data, spec, image):
    pixels, pixel_format, height, width = image
    boxes = data.draw(st.none() | boxes_of(height, width))
    want = preprocess(pixels, spec, pixel_format=pixel_format, boxes=boxes).astype(np.float16)
    out = empty_slots(len(want), spec, dtype=np.float16, layout="nhwc")
    preprocess_into(out, pixels, spec, pixel_format=pixel_format, boxes=boxes, layout="nhwc")
    np.testing.assert_array_equal(out.transpose(0, 3, 1, 2), want)


@settings(max_examples=100, deadline=None)
@given(box=hnp.arrays(np.float64, (1, 4), elements=st.floats(width=64)))
def test_any_box_is_used_or_refused(simd, box):
    image = np.zeros((9, 11, 3), np.uint8)
    try:
        got = preprocess(image, InputSpec(height_px=6, width_px=5), boxes=box)
    except InputError as error:
        assert "boxes[0]" in str(error)  # noqa: PT017
    else:
        np.testing.assert_allclose(got, -1, rtol=0, atol=TOLERANCE)
