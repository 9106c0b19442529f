"""Kinds of output: element type, order of axes, number of channels."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from algan_stream import _core
from algan_stream.errors import InputError
from algan_stream.preprocess import available_simd, empty_slots, preprocess, preprocess_into
from algan_stream.types import InputSpec

reference = runpy.run_path(str(Path(__file__).with_name("preprocess_reference.py")))["reference"]


@pytest.fixture(params=available_simd())
def simd(request):
    _core._force_simd(request.param)
    yield request.param
    _core._force_simd("")


POOLED = [False, "max", "mean", True]
BOXES = np.array([[0, 0, 90, 70], [5.5, 3, 40, 66], [80, 1, 90, 9]], np.float32)
IMAGE = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)


def slots_of(spec, dtype, layout, **how):
    out = empty_slots(len(BOXES), spec, dtype=dtype, layout=layout)
    assert preprocess_into(out, IMAGE, spec, boxes=BOXES, layout=layout, **how) == len(BOXES)
    return out if layout == "nchw" else out.transpose(0, 3, 1, 2)


@pytest.mark.parametrize("pooled", POOLED)
@pytest.mark.parametrize("downscale", ["area", "bilinear"])
@pytest.mark.parametrize("width", [5, 24, 67])
def test_channels_as_asked_for(simd, pooled, downscale, width):
    spec = InputSpec(height_px=21, width_px=width, pooled_channels=pooled, downscale=downscale)
    got = preprocess(IMAGE, spec, boxes=BOXES)
    assert got.shape == (3, {False: 3, True: 5}.get(pooled, 4), 21, width)
    np.testing.assert_allclose(got, reference(IMAGE, spec, boxes=BOXES), rtol=0, atol=1.5e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("pooled", POOLED)
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("width", [1, 20, 67])
def test_other_outputs_are_the_same_numbers(simd, dtype, layout, pooled, fit, width):
    spec = InputSpec(
        height_px=23, width_px=width, pooled_channels=pooled, fit=fit, pad_level=100, mean=(0.4, 0.5, 0.6)
    )
    want = preprocess(IMAGE, spec, boxes=BOXES).astype(dtype)
    np.testing.assert_array_equal(slots_of(spec, dtype, layout), want)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("pooled", POOLED)
@pytest.mark.parametrize("downscale", ["area", "bilinear"])
def test_uint8_is_the_value_before_normalisation(simd, layout, pooled, downscale):
    spec = InputSpec(
        height_px=23,
        width_px=29,
        pooled_channels=pooled,
        downscale=downscale,
        fit="letterbox",
        pad_level=99.6,
    )
    want = reference(IMAGE, spec, boxes=BOXES, raw=True)
    got = slots_of(spec, np.uint8, layout).astype(float)
    # Half a level of rounding, and the filters' own tolerance, in levels.
    assert np.abs(got - want).max() <= 0.5 + 1.5e-4 * 127.5


def test_normalising_uint8_afterwards_is_close_to_normalising_here(simd):
    spec = InputSpec(height_px=40, width_px=40)
    in_network = (slots_of(spec, np.uint8, "nchw").astype(np.float32) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(in_network, preprocess(IMAGE, spec, boxes=BOXES), rtol=0, atol=0.51 / 127.5)


def test_float16_rounds_as_numpy_does(simd):
    """Also numbers that become infinite, or less than the smallest normal one."""
    for std in (1e-5, 1.0, 1e4, 1e6, 3e8):
        spec = InputSpec(height_px=16, width_px=19, mean=(0.25, 0.25, 0.25), std=(std, std, std))
        with np.errstate(over="ignore"):
            want = preprocess(IMAGE, spec, boxes=BOXES).astype(np.float16)
        np.testing.assert_array_equal(slots_of(spec, np.float16, "nchw"), want)


def test_slots_of_other_kinds_are_written_and_no_others(simd):
    spec = InputSpec(height_px=10, width_px=13)
    for dtype, layout in ((np.float16, "nchw"), (np.uint8, "nhwc"), (np.float32, "nhwc")):
        out = empty_slots(6, spec, dtype=dtype, layout=layout)
        out[...] = 77
        assert preprocess_into(out, IMAGE, spec, boxes=BOXES, first_slot=2, layout=layout) == 3
        assert (out[[0, 1, 5]] == 77).all()
        assert out.ctypes.data % 64 == 0
        assert (out[2:5] != 77).any(axis=(1, 2, 3)).all()


def test_uint8_pooled_channels_need_one_normalisation():
    spec = InputSpec(height_px=8, width_px=8, mean=(0.4, 0.5, 0.6))
    with pytest.raises(InputError, match="same mean and std for all three"):
        preprocess_into(empty_slots(1, spec, dtype=np.uint8), IMAGE, spec)
    plain = InputSpec(height_px=8, width_px=8, mean=(0.4, 0.5, 0.6), pooled_channels=False)
    assert preprocess_into(empty_slots(1, plain, dtype=np.uint8), IMAGE, plain) == 1


@pytest.mark.parametrize(
    ("shape", "layout", "message"),
    [
        ((1, 8, 8, 5), "nchw", r"\(M, 5, 8, 8\), got float32 \(1, 8, 8, 5\)"),
        ((1, 5, 8, 8), "nhwc", r"\(M, 8, 8, 5\), got float32 \(1, 5, 8, 8\)"),
        ((1, 5, 8, 8), "chwn", 'layout: expected nchw or nhwc, got "chwn"'),
    ],
)
def test_the_order_of_axes_must_fit(shape, layout, message):
    with pytest.raises(InputError, match=message):
        preprocess_into(np.zeros(shape, np.float32), IMAGE, InputSpec(height_px=8, width_px=8), layout=layout)
