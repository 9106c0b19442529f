"""Letterbox, margins, turned boxes and masks, on every path, against the reference."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from algan_stream import _core
from algan_stream.errors import ConfigError, InputError
from algan_stream.preprocess import available_simd, preprocess
from algan_stream.types import InputSpec

reference = runpy.run_path(str(Path(__file__).with_name("preprocess_reference.py")))["reference"]

TOLERANCE = 1.5e-4  # as in test_preprocess.py


@pytest.fixture(params=available_simd())
def simd(request):
    _core._force_simd(request.param)
    yield request.param
    _core._force_simd("")


def make_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def check(image, spec, **how):
    got = preprocess(image, spec, **how)
    np.testing.assert_allclose(got, reference(image, spec, **how), rtol=0, atol=TOLERANCE)
    return got


@pytest.mark.parametrize("downscale", ["area", "bilinear"])
@pytest.mark.parametrize("size", [(40, 100), (100, 40), (50, 50), (1, 300), (300, 1), (9, 14)], ids=str)
@pytest.mark.parametrize("target", [(32, 32), (64, 48), (17, 90)], ids=str)
def test_letterboxes_match_the_reference(simd, size, target, downscale):
    spec = InputSpec(
        height_px=target[0], width_px=target[1], downscale=downscale, fit="letterbox", pad_level=114,
        mean=(0.4, 0.5, 0.6), std=(0.3, 0.4, 0.5),
    )  # fmt: skip
    check(make_image(*size), spec, pixel_format="rgb8")


def test_a_letterbox_keeps_proportions_and_pads_with_the_level(simd):
    spec = InputSpec(height_px=64, width_px=64, fit="letterbox", pad_level=51.0)
    got = preprocess(np.full((100, 200, 3), 255, np.uint8), spec)[0]
    np.testing.assert_allclose(got[:, 16:48], 1, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(got[:, :16], 2 * 51 / 255 - 1, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(got[:, 48:], got[:, :16])


def test_letterboxed_boxes_each_have_their_own_region(simd):
    spec = InputSpec(height_px=40, width_px=40, fit="letterbox")
    boxes = np.array([[0, 0, 60, 30], [10, 5, 30, 65], [3, 3, 43, 43]], np.float32)
    check(make_image(70, 80), spec, boxes=boxes)


@pytest.mark.parametrize("margin", [0.1, 0.5, 3.0])
def test_a_margin_widens_boxes_and_is_cut_off_at_the_edge(simd, margin):
    spec = InputSpec(height_px=24, width_px=31, box_margin=margin)
    boxes = np.array([[20, 30, 40, 45], [0, 0, 10, 10], [70, 50, 80, 60]], np.float64)
    check(make_image(60, 80), spec, boxes=boxes)


def test_a_margin_does_not_touch_whole_images():
    image = make_image(30, 40)
    wide = InputSpec(height_px=16, width_px=16, box_margin=1.0)
    narrow = InputSpec(height_px=16, width_px=16)
    np.testing.assert_array_equal(preprocess(image, wide), preprocess(image, narrow))


def test_a_margin_does_not_bring_in_boxes_from_outside():
    boxes = np.array([[82, 10, 90, 20]], np.float32)
    with pytest.raises(InputError, match=r"boxes\[0\]"):
        preprocess(make_image(60, 80), InputSpec(height_px=8, width_px=8, box_margin=5.0), boxes=boxes)


TURNED = {
    "upright": [40, 30, 30, 20, 0],
    "30 degrees": [40, 30, 30, 20, 30],
    "a quarter turn": [40.5, 29.5, 25, 15, 90],
    "minus 200 degrees": [33.25, 31.75, 28, 40, -200],
    "over the corner": [2, 3, 30, 30, 45],
    "around the whole image": [40, 30, 120, 120, 17],
    "less than a pixel": [40.3, 30.4, 0.5, 0.25, 60],
    "many turns": [40, 30, 30, 20, 3630],
}


@pytest.mark.parametrize("downscale", ["area", "bilinear"])
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("box", TURNED.values(), ids=TURNED.keys())
def test_turned_boxes_match_the_reference(simd, box, fit, downscale):
    spec = InputSpec(height_px=12, width_px=15, downscale=downscale, fit=fit, box_margin=0.05)
    boxes = np.array([box], np.float64)
    check(make_image(60, 80), spec, boxes=boxes)
    grey = make_image(60, 80)[:, :, 0].copy()
    check(grey, spec, pixel_format="grey8", boxes=boxes)


def test_turned_boxes_of_other_formats(simd):
    spec = InputSpec(height_px=10, width_px=13)
    boxes = np.array([[40, 30, 30, 20, 25], [70, 50, 40, 40, 80]], np.float32)
    rng = np.random.default_rng(5)
    nv12 = rng.integers(0, 256, (90, 96), np.uint8)
    check(nv12, spec, pixel_format="nv12", boxes=boxes)
    check(rng.integers(0, 256, (60, 96), np.uint8), spec, pixel_format="bayer_bggr8", boxes=boxes)


def test_angles_turn_clockwise_as_opencv_has_them():
    import cv2

    image = np.zeros((200, 200, 3), np.uint8)
    corners = cv2.boxPoints(((100, 90), (80, 30), 35.0))
    cv2.fillConvexPoly(image, np.round(corners).astype(np.int32), (255, 255, 255))
    spec = InputSpec(height_px=20, width_px=40)
    inside = preprocess(image, spec, boxes=np.array([[100, 90, 70, 22, 35.0]]))
    np.testing.assert_allclose(inside, 1, rtol=0, atol=1e-5)
    other_way = preprocess(image, spec, boxes=np.array([[100, 90, 70, 22, -35.0]]))
    assert (other_way < 0).any()


def test_a_quarter_turn_equals_a_turned_image(simd):
    image = make_image(60, 80)
    spec = InputSpec(height_px=20, width_px=30, downscale="bilinear")
    turned = preprocess(image, spec, boxes=np.array([[40, 30, 30, 20, 90.0]]))
    # Turned clockwise by 90 degrees, the box's x axis points down the image.
    back = np.ascontiguousarray(np.rot90(image))
    upright = preprocess(back, spec, boxes=np.array([[15, 30, 45, 50]], np.float64))
    np.testing.assert_allclose(turned, upright, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([40, 30, 0, 20, 0], "sides above 0"),
        ([40, 30, 20, -1, 0], "sides above 0"),
        ([80, 30, 20, 20, 0], "centre inside the image of 80 x 60 px"),
        ([40, -0.5, 20, 20, 0], "centre inside"),
        ([40, 30, 20000, 20, 0], "diagonal of at most 16384 px"),
        ([40, 30, 20, 20, np.nan], "finite"),
        ([40, np.inf, 20, 20, 0], "finite"),
    ],
)
def test_unusable_turned_boxes_are_refused(box, message):
    boxes = np.array([[40, 30, 20, 20, 0], box], np.float64)
    with pytest.raises(InputError, match=rf"boxes\[1\]: .*{message}"):
        preprocess(make_image(60, 80), InputSpec(height_px=8, width_px=8), boxes=boxes)


@pytest.mark.parametrize("downscale", ["area", "bilinear"])
@pytest.mark.parametrize("dtype", [np.uint8, np.bool_])
@pytest.mark.parametrize("size", [(50, 40), (90, 150)], ids=str)
def test_masked_pixels_are_read_as_the_pad_level(simd, downscale, dtype, size):
    rng = np.random.default_rng(1)
    image, mask = make_image(*size), rng.integers(0, 2, size).astype(dtype)
    boxes = np.array([[0, 0, size[1], size[0]], [3.5, 4.5, 30, 41], [20, 9, 38, 50]], np.float32)
    for side in (9, 70):
        spec = InputSpec(height_px=side, width_px=side, downscale=downscale, pad_level=200)
        check(image, spec, boxes=boxes, mask=mask)
        check(image[:, :, 1].copy(), spec, pixel_format="grey8", boxes=boxes, mask=mask)
        check(image[:, :, :2].copy(), spec, pixel_format="yuyv", boxes=boxes, mask=mask)
        wide = np.zeros((size[0], size[1] + 7), dtype)
        wide[:, 3:-4] = mask
        check(image, spec, mask=wide[:, 3:-4])


def test_what_a_mask_hides_cannot_be_seen(simd):
    image = make_image(80, 90)
    mask = np.zeros((80, 90), np.uint8)
    mask[10:50, 20:70] = 255
    changed = image.copy()
    changed[mask == 0] ^= 255
    spec = InputSpec(height_px=33, width_px=33)
    np.testing.assert_array_equal(preprocess(image, spec, mask=mask), preprocess(changed, spec, mask=mask))


@pytest.mark.parametrize(
    "mask",
    [np.zeros((80, 89), np.uint8), np.zeros((80, 90), np.float32), np.zeros((80, 180), np.uint8)[:, ::2],
     np.zeros((80, 90, 1), np.uint8), [[1, 2]]],
    ids=["size", "dtype", "strides", "three axes", "list"],
)  # fmt: skip
def test_unusable_masks_are_refused(mask):
    with pytest.raises(InputError, match=r"mask: expected a uint8 or bool array \(80, 90\)"):
        preprocess(make_image(80, 90), InputSpec(height_px=8, width_px=8), mask=mask)


@pytest.mark.parametrize(
    "field", [{"pooled_channels": "min"}, {"fit": "boxy"}, {"downscale": "cubic"}], ids=str
)
def test_unknown_choices_are_refused(field):
    with pytest.raises(ConfigError, match=f"input_spec.{next(iter(field))}: expected one of"):
        InputSpec(height_px=8, width_px=8, **field)


@pytest.mark.parametrize(
    "field", [{"pad_level": -1}, {"pad_level": 256}, {"box_margin": -0.1}, {"box_margin": 11}], ids=str
)
def test_unusable_specs_are_refused(field):
    with pytest.raises(ConfigError, match=f"input_spec.{next(iter(field))}: expected 0 to"):
        InputSpec(height_px=8, width_px=8, **field)
