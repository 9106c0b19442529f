"""Preprocessing against a naive reference, on every path that this machine can run."""

import os
import re
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from algan_stream import _core
from algan_stream.errors import InputError
from algan_stream.preprocess import active_simd, available_simd, empty_slots, preprocess, preprocess_into
from algan_stream.types import InputSpec

reference = runpy.run_path(str(Path(__file__).with_name("preprocess_reference.py")))["reference"]

# In units of the normalised planes, where black to white is -1 to 1 and one grey level 0.0078.
SCALAR_TOLERANCE = 2e-6  # float32 arithmetic on numbers up to 1, a few roundings
SIMD_TOLERANCE = 1.5e-4  # 16-bit weights and sums: 2^-15 of full scale for each axis, with a margin


def tolerance(simd):
    return SCALAR_TOLERANCE if simd == "scalar" else SIMD_TOLERANCE


@pytest.fixture(params=available_simd())
def simd(request):
    _core._force_simd(request.param)
    yield request.param
    _core._force_simd("")


def make_image(height, width, grey=False, seed=0):
    shape = (height, width) if grey else (height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def check(simd, image, spec, pixel_format="bgr8", boxes=None):
    got = preprocess(image, spec, pixel_format=pixel_format, boxes=boxes)
    want = reference(image, spec, pixel_format, boxes)
    assert got.dtype == np.float32
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance(simd))


SIZES = [(1, 1), (1, 7), (7, 1), (2, 3), (13, 17), (31, 64), (97, 101), (240, 320)]


@pytest.mark.parametrize("downscale", ["area", "bilinear"])
@pytest.mark.parametrize("source", SIZES, ids=str)
@pytest.mark.parametrize("target", [(1, 1), (5, 3), (16, 16), (37, 53), (64, 40)], ids=str)
def test_whole_images_match_the_reference(simd, source, target, downscale):
    for grey, pixel_format in ((False, "bgr8"), (False, "rgb8"), (True, "grey8")):
        for pooled in (False, True):
            spec = InputSpec(
                height_px=target[0], width_px=target[1], pooled_channels=pooled, downscale=downscale
            )
            check(simd, make_image(*source, grey), spec, pixel_format)


BOXES = {
    "whole": [0, 0, 90, 70],
    "corners": [80, 60, 90, 70],
    "one pixel": [89, 69, 90, 70],
    "over all edges": [-20, -5.5, 200, 99],
    "fractional": [3.25, 7.75, 41.5, 29.125],
    "inside one pixel": [10.2, 20.3, 10.4, 20.9],
    "across two pixels": [10.9, 20.9, 11.1, 21.1],
    "wide and flat": [0, 30, 90, 31.5],
    "narrow and tall": [44, 0, 46, 70],
}


@pytest.mark.parametrize("downscale", ["area", "bilinear"])
@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES.keys())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_boxes_match_the_reference(simd, box, grey, downscale, dtype):
    spec = InputSpec(height_px=24, width_px=19, downscale=downscale)
    check(simd, make_image(70, 90, grey), spec, "grey8" if grey else "rgb8", np.array([box], dtype))


def test_means_and_stds_belong_to_red_green_blue(simd):
    spec = InputSpec(height_px=9, width_px=11, mean=(0.485, 0.456, 0.406), std=(0.5, 0.8, 0.65))
    check(simd, make_image(40, 50), spec, "bgr8")
    check(simd, make_image(40, 50), spec, "rgb8")


@pytest.mark.parametrize("downscale", ["area", "bilinear"])
def test_a_large_shrink(simd, downscale):
    """Beyond 256 source rows for each output the SIMD paths leave the sums to the scalar one."""
    spec = InputSpec(height_px=2, width_px=3, downscale=downscale)
    check(simd, make_image(1025, 777), spec)
    check(simd, make_image(1025, 777, grey=True), spec, "grey8")


@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_flat_images_stay_flat(simd, value):
    spec = InputSpec(height_px=37, width_px=41)
    for size in ((37, 41), (100, 90), (20, 11), (74, 82)):
        got = preprocess(np.full((*size, 3), value, np.uint8), spec)
        np.testing.assert_allclose(got, value / 127.5 - 1, rtol=0, atol=tolerance(simd))


@pytest.mark.parametrize("downscale", ["area", "bilinear"])
def test_same_size_keeps_every_pixel(simd, downscale):
    image = make_image(45, 67)
    spec = InputSpec(height_px=45, width_px=67, downscale=downscale, pooled_channels=False)
    got = preprocess(image, spec, pixel_format="rgb8")
    want = (image.transpose(2, 0, 1) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(got[0], want, rtol=0, atol=SCALAR_TOLERANCE)


@pytest.mark.parametrize("downscale", ["area", "bilinear"])
@pytest.mark.parametrize("size", [(50, 60), (9, 7), (30, 7)], ids=["shrink", "grow", "mixed"])
def test_whole_pixel_boxes_equal_a_crop(simd, downscale, size):
    image = make_image(90, 120)
    spec = InputSpec(height_px=30, width_px=40, downscale=downscale)
    height, width = size
    boxed = preprocess(image, spec, boxes=np.array([[11, 13, 11 + width, 13 + height]], np.float32))
    cropped = preprocess(np.ascontiguousarray(image[13 : 13 + height, 11 : 11 + width]), spec)
    np.testing.assert_array_equal(boxed, cropped)


@pytest.mark.parametrize("downscale", ["area", "bilinear"])
def test_nothing_leaks_in_from_beside_a_box(simd, downscale):
    image = np.full((60, 60, 3), 255, np.uint8)
    image[20:40, 20:40] = 0
    box = np.array([[20, 20, 40, 40]], np.float32)
    for side in (7, 20, 51):
        spec = InputSpec(height_px=side, width_px=side, downscale=downscale)
        np.testing.assert_allclose(preprocess(image, spec, boxes=box), -1, rtol=0, atol=tolerance(simd))


VIEWS = {
    "padded rows": lambda a: a[:, 3:-5],
    "every other row": lambda a: a[::2],
    "upside down": lambda a: a[::-1],
    "upside down and cropped": lambda a: a[-2:3:-3, 1:-1],
    "last pixels of the buffer": lambda a: a[-2:, -2:],
    "one row for all": lambda a: np.broadcast_to(a[:1], a.shape),
    "one column": lambda a: a[:, 7:8],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
@pytest.mark.parametrize("side", [8, 100])
def test_any_row_stride_is_read_in_place(simd, view, grey, side):
    image = make_image(61, 53, grey)
    image.setflags(write=False)
    for downscale in ("area", "bilinear"):
        spec = InputSpec(height_px=side, width_px=side, downscale=downscale)
        check(simd, view(image), spec, "grey8" if grey else "bgr8")


def test_paths_agree():
    image = make_image(211, 307)
    boxes = np.array([[0, 0, 307, 211], [5.5, 6.25, 30, 199], [100, 50, 130, 90]], np.float32)
    for downscale in ("area", "bilinear"):
        spec = InputSpec(height_px=64, width_px=80, downscale=downscale)
        outputs = {}
        for name in available_simd():
            _core._force_simd(name)
            outputs[name] = preprocess(image, spec, boxes=boxes)
        _core._force_simd("")
        for got in outputs.values():
            np.testing.assert_allclose(got, outputs["scalar"], rtol=0, atol=SIMD_TOLERANCE)


def test_an_output_does_not_depend_on_slot_batch_or_order(simd):
    """Also where a batch is large enough for another kind of store, and not aligned for it."""
    spec = InputSpec(height_px=128, width_px=128)
    image = make_image(300, 300)
    rng = np.random.default_rng(3)
    low = rng.uniform(0, 200, (24, 2))
    boxes = np.concatenate([low, low + rng.uniform(1, 99, (24, 2))], axis=1)
    batch = preprocess(image, spec, boxes=boxes)
    alone = np.concatenate([preprocess(image, spec, boxes=box[None]) for box in boxes])
    np.testing.assert_array_equal(batch, alone)
    order = rng.permutation(24)
    np.testing.assert_array_equal(preprocess(image, spec, boxes=boxes[order]), batch[order])
    for skip in (1, 4, 9):
        memory = np.zeros(batch.size + skip, np.float32)
        out = memory[skip:].reshape(batch.shape)
        preprocess_into(out, image, spec, boxes=boxes)
        np.testing.assert_array_equal(out, batch)


def test_into_writes_its_slots_and_no_others(simd):
    spec = InputSpec(height_px=10, width_px=13)
    image = make_image(50, 40)
    boxes = np.array([[0, 0, 40, 50], [5, 5, 9, 45]], np.float32)
    out = np.full((5, *spec.shape_chw), np.nan, np.float32)
    assert preprocess_into(out, image, spec, boxes=boxes, first_slot=2) == 2
    assert np.isnan(out[[0, 1, 4]]).all()
    np.testing.assert_array_equal(out[2:4], preprocess(image, spec, boxes=boxes))


def test_no_boxes_no_outputs():
    spec = InputSpec(height_px=4, width_px=4)
    boxes = np.empty((0, 4), np.float32)
    assert preprocess(make_image(9, 9), spec, boxes=boxes).shape == (0, 5, 4, 4)
    assert preprocess_into(empty_slots(2, spec), make_image(9, 9), spec, boxes=boxes, first_slot=2) == 0


def test_slots_are_aligned():
    slots = empty_slots(3, InputSpec(height_px=5, width_px=7))
    assert slots.shape == (3, 5, 5, 7)
    assert slots.ctypes.data % 64 == 0
    assert slots.flags.c_contiguous
    assert slots.flags.writeable


def test_threads_share_a_buffer(simd):
    spec = InputSpec(height_px=48, width_px=56)
    images = [make_image(60 + 7 * i, 90 + 5 * i, seed=i) for i in range(8)]
    want = np.concatenate([preprocess(image, spec) for image in images])
    out = empty_slots(len(images), spec)

    def work(i):
        for _ in range(20):
            preprocess_into(out, images[i], spec, first_slot=i)

    with ThreadPoolExecutor(len(images)) as pool:
        list(pool.map(work, range(len(images))))
    np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize("threads", [2, 3, 16, 256])
def test_boxes_shared_out_among_threads_give_the_same(simd, threads):
    spec = InputSpec(height_px=64, width_px=64)
    image = make_image(200, 300)
    rng = np.random.default_rng(3)
    low = rng.uniform(0, 150, (37, 2))
    upright = np.concatenate([low, low + rng.uniform(1, 99, (37, 2))], axis=1)
    turned = np.column_stack([low, rng.uniform(1, 99, (37, 2)), rng.uniform(0, 360, 37)])
    for boxes in (None, upright[:1], upright, turned):
        np.testing.assert_array_equal(
            preprocess(image, spec, boxes=boxes, threads=threads), preprocess(image, spec, boxes=boxes)
        )


@pytest.mark.parametrize("threads", [0, -1, 257, 2.5, "2", None, 2**70])
def test_a_senseless_number_of_threads_is_refused(threads):
    with pytest.raises(InputError, match=re.escape(f"threads: expected 1 to 256, got {threads!r}")):
        preprocess(make_image(9, 9), InputSpec(height_px=8, width_px=8), threads=threads)


def test_strided_boxes_are_read():
    spec = InputSpec(height_px=8, width_px=8)
    boxes = np.array([[0, 0, 9, 9, 7], [1, 2, 8, 19, 7], [3, 3, 20, 20, 7]], np.float32)
    got = preprocess(make_image(20, 30), spec, boxes=boxes[::2, :4])
    np.testing.assert_array_equal(got, preprocess(make_image(20, 30), spec, boxes=boxes[::2, :4].copy()))


def in_new_process(simd):
    code = "from algan_stream.preprocess import active_simd; print(active_simd())"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ALGAN_SIMD": simd},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", available_simd())
def test_the_environment_forces_a_path(name):
    assert in_new_process(name).stdout.strip() == name


def test_an_impossible_path_is_an_error_not_a_crash():
    run = in_new_process("quantum")
    assert run.returncode == 1
    assert "InputError: ALGAN_SIMD: expected one of" in run.stderr
    assert 'got "quantum"' in run.stderr
    assert in_new_process("").stdout.strip() == available_simd()[0]


def test_a_path_can_be_forced_and_named(simd):
    assert active_simd() == simd
    with pytest.raises(InputError, match='got "mmx"'):
        _core._force_simd("mmx")
    assert active_simd() == simd
