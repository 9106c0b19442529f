"""Preprocessing of images, boxes and sizes that nobody would think of."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from algan_stream import _core
from algan_stream.errors import InputError
from algan_stream.preprocess import available_simd, preprocess
from algan_stream.types import InputSpec

reference = runpy.run_path(str(Path(__file__).with_name("preprocess_reference.py")))["reference"]

# As in test_preprocess.py; both axes shrink or grow by any factor here.
TOLERANCE = 1.5e-4

sides = st.integers(1, 70)
specs = st.builds(
    InputSpec,
    height_px=sides,
    width_px=sides,
    pooled_channels=st.booleans(),
    downscale=st.sampled_from(["area", "bilinear"]),
)


@st.composite
def images(draw):
    height, width, channels = draw(sides), draw(sides), draw(st.sampled_from([1, 3]))
    shape = (height, width) if channels == 1 else (height, width, channels)
    if draw(st.booleans()):
        image = draw(hnp.arrays(np.uint8, shape))
    else:
        image = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, shape, np.uint8)
    if draw(st.booleans()):
        image = image[:: draw(st.sampled_from([-1, 2, -2]))]
    pixel_format = "grey8" if channels == 1 else draw(st.sampled_from(["bgr8", "rgb8"]))
    return image, pixel_format


@st.composite
def boxes_of(draw, image):
    height, width = image.shape[:2]
    boxes = []
    for _ in range(draw(st.integers(0, 3))):
        edges = []
        for extent in (width, height):
            low = draw(st.floats(-extent, extent - 0.1))
            high = draw(st.floats(max(low, 0) + 0.05, 2 * extent + 0.1))
            edges.append((low, high))
        (x_min, x_max), (y_min, y_max) = edges
        boxes.append((x_min, y_min, x_max, y_max))
    return np.array(boxes, draw(st.sampled_from([np.float32, np.float64]))).reshape(-1, 4)


@pytest.fixture(params=available_simd(), scope="module")
def simd(request):
    _core._force_simd(request.param)
    yield request.param
    _core._force_simd("")


@settings(max_examples=150, deadline=None)
@given(data=st.data(), spec=specs, image=images())
def test_anything_matches_the_reference(simd, data, spec, image):
    pixels, pixel_format = image
    boxes = data.draw(st.none() | boxes_of(pixels))
    got = preprocess(pixels, spec, pixel_format=pixel_format, boxes=boxes)
    np.testing.assert_allclose(got, reference(pixels, spec, pixel_format, boxes), rtol=0, atol=TOLERANCE)


@settings(max_examples=100, deadline=None)
@given(spec=specs, image=images())
def test_outputs_stay_within_black_and_white(simd, spec, image):
    pixels, pixel_format = image
    got = preprocess(pixels, spec, pixel_format=pixel_format)
    low, high = pixels.min() / 127.5 - 1, pixels.max() / 127.5 - 1
    assert got.min() >= low - TOLERANCE
    assert got.max() <= high + TOLERANCE
    if spec.pooled_channels:
        np.testing.assert_array_equal(got[:, 3], got[:, :3].max(axis=1))


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
