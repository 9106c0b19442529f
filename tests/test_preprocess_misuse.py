"""What preprocessing refuses, and that its messages say what came and how to mend it."""

import numpy as np
import pytest

from algan_stream.errors import InputError
from algan_stream.preprocess import empty_slots, preprocess, preprocess_into
from algan_stream.types import InputSpec

SPEC = InputSpec(height_px=8, width_px=8)
IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


@pytest.mark.parametrize(
    ("image", "pixel_format", "message"),
    [
        (IMAGE.astype(np.float32), "bgr8", r"image: expected a uint8 array .*got float32 \(20, 30, 3\)"),
        (IMAGE.astype(np.uint16), "bgr8", "image: expected a uint8 array"),
        (IMAGE[:, :, :2].copy(), "bgr8", r"got uint8 \(20, 30, 2\)"),
        (np.zeros((20, 30, 4), np.uint8), "rgb8", "bgra8"),
        (np.zeros((20, 30, 5), np.uint8), "rgb8", r"image\[:, :, :3\]"),
        (IMAGE[0, 0], "bgr8", r"got uint8 \(3,\)"),
        (IMAGE[:, :, 0].copy(), "bgr8", "grey8"),
        (IMAGE, "grey8", r"\(H, W\) for grey8"),
        (IMAGE[:0], "bgr8", "got 0 x 30"),
        (IMAGE[:, :0], "bgr8", "got 20 x 0"),
        (IMAGE[:, ::2], "bgr8", "np.ascontiguousarray"),
        (IMAGE[:, ::-1], "bgr8", "np.ascontiguousarray"),
        (IMAGE[:, :, ::-1], "bgr8", "np.ascontiguousarray"),
        (IMAGE.transpose(1, 0, 2), "bgr8", "np.ascontiguousarray"),
        (IMAGE[:, :, 0], "grey8", "np.ascontiguousarray"),
        (IMAGE.tolist(), "bgr8", "got list"),
        (None, "bgr8", "got NoneType; is there an image at all"),
        (IMAGE, "yuv", r"pixel_format: expected one of bgr8, rgb8, .*; got \"yuv\""),
    ],
)
def test_unusable_images_are_refused(image, pixel_format, message):
    with pytest.raises(InputError, match=message):
        preprocess(image, SPEC, pixel_format=pixel_format)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0, 0, 9, 9], [0, 0, 9, np.nan]], r"boxes\[1\]: expected finite"),
        ([[0, 0, np.inf, 9]], r"boxes\[0\]: expected finite"),
        ([[0, 0, 9, 9], [1, 1, 5, 5], [5, 5, 5, 9]], r"boxes\[2\]: .* inside the image of 30 x 20 px"),
        ([[9, 9, 3, 12]], r"boxes\[0\]"),
        ([[30, 0, 40, 9]], r"boxes\[0\]"),
        ([[-9, -9, 0, 9]], r"boxes\[0\]"),
    ],
)
def test_unusable_boxes_are_refused_by_number(boxes, message):
    out = np.full((4, *SPEC.shape_chw), np.nan, np.float32)
    with pytest.raises(InputError, match=message):
        preprocess_into(out, IMAGE, SPEC, boxes=np.array(boxes, np.float32))
    assert np.isnan(out).all()


@pytest.mark.parametrize(
    "boxes",
    [
        np.zeros((2, 6), np.float32),
        np.zeros(4, np.float32),
        np.array([[0, 0, 5, 5]]),
        np.array(3.0),
        [[0.0, 0.0, 5.0, 5.0]],
    ],
    ids=["six columns", "one dimension", "integers", "scalar", "list"],
)
def test_boxes_of_the_wrong_kind_are_refused(boxes):
    with pytest.raises(InputError, match="boxes: expected a float32 or float64 array"):
        preprocess(IMAGE, SPEC, boxes=boxes)


def read_only_slots():
    slots = empty_slots(1, SPEC)
    slots.setflags(write=False)
    return slots


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.zeros((1, 5, 8, 8)), "got float64"),
        (np.zeros((1, 3, 8, 8), np.float32), r"got float32 \(1, 3, 8, 8\)"),
        (np.zeros((5, 8, 8), np.float32), r"got float32 \(5, 8, 8\)"),
        (np.zeros((1, 5, 8, 9), np.float32), "expected a C-contiguous"),
        (np.zeros((2, 5, 8, 8), np.float32)[:, :, :, ::-1], "not C-contiguous"),
        (np.zeros((1, 5, 8, 8), ">f4"), "got >f4"),
        (read_only_slots(), "read-only"),
        (None, "got NoneType"),
    ],
)
def test_unusable_outputs_are_refused(out, message):
    with pytest.raises(InputError, match=message):
        preprocess_into(out, IMAGE, SPEC)


@pytest.mark.parametrize(("first_slot", "count"), [(-1, 1), (3, 1), (2, 2), (99, 0)])
def test_too_few_slots_are_refused_before_anything_is_written(first_slot, count):
    out = np.full((3, *SPEC.shape_chw), np.nan, np.float32)
    boxes = np.array([[0, 0, 9, 9]] * count, np.float32).reshape(-1, 4)
    with pytest.raises(InputError, match=r"out: expected room for .* got 3 slots"):
        preprocess_into(out, IMAGE, SPEC, boxes=boxes, first_slot=first_slot)
    assert np.isnan(out).all()


FLAT = np.zeros((30, 40), np.uint8)


@pytest.mark.parametrize(
    ("image", "pixel_format", "message"),
    [
        (FLAT[:, :39].copy(), "nv12", "even width"),
        ((FLAT[:29], FLAT[:14]), "nv12", "even width, and for nv12, nv21 and i420 an even height"),
        (np.zeros((31, 40), np.uint8), "nv12", "height of 3/2 times that of the picture"),
        (np.zeros((30, 60), np.uint8)[:, :40], "i420", "rows without padding"),
        (FLAT[::-1, ::-1], "nv21", "np.ascontiguousarray"),
        (np.zeros((30, 40, 3), np.uint8), "nv12", r"\(H \* 3 / 2, W\)"),
        ((FLAT,), "nv12", "expected two planes"),
        ((FLAT, FLAT[:15]), "i420", r"expected three planes \(Y, U, V\), got 2"),
        ((FLAT, FLAT[:14]), "nv12", r"colour plane of uint8 \(15, 40\), got uint8 \(14, 40\)"),
        ((FLAT, FLAT[:15, :20], FLAT[:15, :19]), "i420", r"colour plane of uint8 \(15, 20\)"),
        ((FLAT, FLAT[:15, :20], FLAT[:15, :20].copy()), "i420", "same row stride"),
        ((FLAT, FLAT[:15].astype(np.int8)), "nv12", "colour plane of uint8"),
        ((FLAT, "plane"), "nv12", "got str"),
        ((FLAT, FLAT), "bgr8", "got tuple"),
        (np.zeros((9, 9, 2), np.uint8), "yuyv", "even width"),
        (np.zeros((9, 8, 3), np.uint8), "uyvy", r"\(H, W, 2\)"),
        (FLAT, "grey16", r"a uint16 array \(H, W\)"),
        (FLAT.astype(">u2"), "grey16", "a uint16 array"),
        (FLAT.astype(np.uint16), "grey8", "grey16"),
        (np.zeros((9, 9, 3), np.uint8), "rgba8", r"\(H, W, 4\)"),
        (np.zeros((9, 9, 3), np.uint8), "bayer_rggb8", r"\(H, W\) for Bayer"),
    ],
)
def test_unusable_images_of_other_formats_are_refused(image, pixel_format, message):
    with pytest.raises(InputError, match=message):
        preprocess(image, SPEC, pixel_format=pixel_format)


def test_an_unknown_yuv_matrix_is_refused():
    with pytest.raises(
        InputError, match='yuv: expected bt601, bt601_full, bt709 or bt709_full, got "bt2020"'
    ):
        preprocess(FLAT, SPEC, pixel_format="nv12", yuv="bt2020")


class OnGpu:
    """As torch and CuPy describe their arrays on a device."""

    def __init__(self):
        shape = (4, 4, 3)
        self.__cuda_array_interface__ = {"shape": shape, "typestr": "|u1", "data": (1, False), "version": 3}


class OnGpuByDlpack:
    def __dlpack__(self):
        raise AssertionError("must not be asked for its memory")

    def __dlpack_device__(self):
        return (2, 0)


@pytest.mark.parametrize("image", [OnGpu(), OnGpuByDlpack()], ids=["interface", "dlpack"])
def test_pixels_on_a_device_are_refused(image):
    with pytest.raises(InputError, match=r"in host memory, got a OnGpu.* on a device; copy it to the host"):
        preprocess(image, SPEC)
    with pytest.raises(InputError, match=r"out: expected .* in host memory"):
        preprocess_into(image, IMAGE, SPEC)
