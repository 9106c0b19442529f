"""The CUDA face of preprocessing, as far as no device is needed: what it refuses, and how it says so.

The kernels themselves: tests/cpp/test_cuda_emulated.cpp on the processor, tests/gpu on a device.
"""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from algan_stream import _core
from algan_stream.errors import EngineError, InputError
from algan_stream.preprocess import _native, preprocess_into
from algan_stream.preprocess_cuda import CudaPreprocessor, DeviceArray
from algan_stream.types import InputSpec

SPEC = InputSpec(height_px=8, width_px=6)
ADDRESS = 0x7F0000000000
OUT = DeviceArray(ADDRESS, (4, 5, 8, 6), np.float32)
IMAGE = DeviceArray(ADDRESS, (20, 30, 3), np.uint8)
HOST_IMAGE = np.zeros((20, 30, 3), np.uint8)

needs_cuda = pytest.mark.skipif(not _core.has_cuda, reason="algan-stream was built without CUDA here")


class Interface:
    """Any object with a `__cuda_array_interface__`."""

    def __init__(self, **changes):
        self.__cuda_array_interface__ = OUT.__cuda_array_interface__ | changes


def check(out=OUT, image=IMAGE, **options):
    defaults = {"pixel_format": "bgr8", "boxes": None, "first_slot": 0, "layout": "nchw", "mask": None}
    return _core._check_cuda_request(out, image, _native(SPEC), **defaults | {"yuv": "bt601"} | options)


def no_device():
    return not Path("/proc/driver/nvidia/version").exists() and not Path("/dev/nvhost-gpu").exists()


def test_it_is_known_whether_cuda_was_built_in():
    assert isinstance(_core.has_cuda, bool)
    assert _core.has_cuda == hasattr(_core, "CudaPreprocessor")


@needs_cuda
@pytest.mark.skipif(not no_device(), reason="a CUDA driver is here")
def test_without_a_driver_the_error_says_so():
    with pytest.raises(EngineError, match="expected a CUDA device and its driver, got cudaGetDeviceCount: "):
        CudaPreprocessor()


def test_without_cuda_built_in_the_error_says_how_to_build_it(monkeypatch):
    monkeypatch.setattr(_core, "has_cuda", False)
    with pytest.raises(EngineError, match="ALGAN_CUDA=ON"):
        CudaPreprocessor()


def test_importing_it_loads_no_owner_of_device_memory():
    code = "import algan_stream.preprocess_cuda, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "cupy", "pycuda", "numba"} & set(loaded.stdout.split())


def test_a_device_array_describes_itself():
    assert OUT.__cuda_array_interface__ == {
        "version": 3,
        "shape": (4, 5, 8, 6),
        "typestr": "<f4",
        "data": (ADDRESS, False),
        "strides": None,
    }
    with pytest.raises(dataclasses.FrozenInstanceError):
        OUT.pointer = 1


@pytest.mark.parametrize(("pointer", "shape"), [(0, (1,)), (-1, (1,)), (ADDRESS, (3, -1))])
def test_a_device_array_has_an_address_and_sides(pointer, shape):
    with pytest.raises(InputError, match="DeviceArray: expected"):
        DeviceArray(pointer, shape, np.uint8)


@needs_cuda
def test_what_fits_is_taken():
    assert check() == 1
    assert check(image=HOST_IMAGE) == 1
    assert check(first_slot=2, boxes=np.array([[0, 0, 9, 9], [1, 1, 5, 5]], np.float32)) == 2
    assert check(boxes=np.array([[9, 9, 5, 5, 30]], np.float64)) == 1
    for dtype in (np.float32, np.float16, np.uint8):
        assert check(out=DeviceArray(ADDRESS, (1, 8, 6, 5), dtype), layout="nhwc") == 1
    padded = Interface(shape=(20, 30, 3), typestr="|u1", strides=(128, 3, 1), data=(ADDRESS, True))
    assert check(image=padded, mask=DeviceArray(ADDRESS, (20, 30), np.bool_)) == 1
    assert check(image=DeviceArray(ADDRESS, (30, 20), np.uint8), pixel_format="nv12") == 1
    planes = tuple(DeviceArray(ADDRESS, shape, np.uint8) for shape in ((20, 30), (10, 15), (10, 15)))
    assert check(image=planes, pixel_format="i420") == 1
    assert check(out=Interface(strides=(5 * 8 * 6 * 4, 8 * 6 * 4, 6 * 4, 4))) == 1


@needs_cuda
@pytest.mark.parametrize(
    ("out", "message"),
    [
        (
            np.zeros((4, 5, 8, 6), np.float32),
            "out: expected .* in device memory, got a ndarray .*DeviceArray",
        ),
        (None, "out: expected .* in device memory, got a NoneType"),
        (DeviceArray(ADDRESS, (4, 5, 6, 8), np.float32), r"\(M, 5, 8, 6\), got float32 \(4, 5, 6, 8\)"),
        (DeviceArray(ADDRESS, (5, 8, 6), np.float32), r"got float32 \(5, 8, 6\)"),
        (DeviceArray(ADDRESS, OUT.shape, np.float64), "got float64"),
        (DeviceArray(ADDRESS + 2, OUT.shape, np.float32), "not aligned; make a new one on the device"),
        (Interface(data=(ADDRESS, True)), "read-only"),
        (Interface(strides=(5 * 8 * 8 * 4, 8 * 8 * 4, 8 * 4, 4)), "not C-contiguous"),
        (Interface(data=(0, False)), "cannot be read: its address is 0"),
        (Interface(data=None), "__cuda_array_interface__ cannot be read"),
        (Interface(typestr="?!"), "__cuda_array_interface__ cannot be read"),
        (Interface(strides=(4, 4)), "__cuda_array_interface__ cannot be read"),
        (Interface(shape=(4, 5, -8, 6)), "__cuda_array_interface__ cannot be read"),
        (DeviceArray(ADDRESS, (0, 5, 8, 6), np.float32), "room for 1 outputs from first_slot 0, got 0"),
    ],
)
def test_unusable_outputs_are_refused(out, message):
    with pytest.raises(InputError, match=message):
        check(out=out)


@needs_cuda
@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (DeviceArray(ADDRESS, (20, 30, 4), np.uint8), {}, "bgra8"),
        (DeviceArray(ADDRESS, (20, 30, 3), np.float32), {}, r"image: .*got float32 \(20, 30, 3\)"),
        (Interface(shape=(20, 30, 3), typestr="|u1", strides=(180, 6, 1)), {}, "neighbouring pixels 3 bytes"),
        (DeviceArray(ADDRESS, (0, 30, 3), np.uint8), {}, "got 0 x 30"),
        (IMAGE, {"mask": np.ones((20, 30), np.uint8)}, "mask: expected .* in device memory, got a ndarray"),
        (HOST_IMAGE, {"mask": DeviceArray(ADDRESS, (20, 30), np.uint8)}, "mask: .*copy it to the host"),
        (IMAGE, {"mask": DeviceArray(ADDRESS, (20, 31), np.uint8)}, r"mask: expected .*\(20, 30\)"),
        (IMAGE, {"boxes": np.array([[30, 0, 40, 9]], np.float32)}, r"boxes\[0\]: .* inside the image"),
        (IMAGE, {"boxes": DeviceArray(ADDRESS, (1, 4), np.float32)}, "boxes: .*in host memory"),
        (IMAGE, {"layout": "hwc"}, "layout: expected nchw or nhwc"),
        (IMAGE, {"first_slot": 4}, "room for 1 outputs from first_slot 4, got 4 slots"),
        (IMAGE, {"pixel_format": "yuv"}, "pixel_format: expected one of"),
        ((IMAGE, HOST_IMAGE), {"pixel_format": "nv12"}, "image: "),
        ((), {"pixel_format": "nv12"}, "two planes"),
    ],
)
def test_unusable_images_and_options_are_refused(image, options, message):
    with pytest.raises(InputError, match=message):
        check(image=image, **options)


def test_the_processors_face_sends_device_memory_away():
    with pytest.raises(InputError, match=r"out: .* on a device; copy it to the host"):
        preprocess_into(OUT, HOST_IMAGE, SPEC)  # type: ignore[arg-type]
