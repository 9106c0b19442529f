"""Preprocessing on a GPU, equal bit by bit to the processor's scalar path; without one these say why not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from algan_stream import _core
from algan_stream.errors import InputError
from algan_stream.preprocess import empty_slots, preprocess_into
from algan_stream.preprocess_cuda import CudaPreprocessor, DeviceArray
from algan_stream.types import InputSpec

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA GPU here"),
    pytest.mark.skipif(not _core.has_cuda, reason="algan-stream was built without CUDA here"),
]

TORCH = {np.float32: torch.float32, np.float16: torch.float16, np.uint8: torch.uint8}
PLAIN = {"bgr8": 3, "rgb8": 3, "bgra8": 4, "rgba8": 4, "yuyv": 2, "uyvy": 2}
FORMATS = [*PLAIN, "grey8", "grey16", "bayer_rggb8", "bayer_bggr8", "bayer_grbg8", "bayer_gbrg8"]
FORMATS += ["nv12", "nv21", "i420"]

UPRIGHT = np.array(
    [[0, 0, 64, 48], [3.25, 7.75, 41.5, 29.125], [-9, 20, 80, 48], [63, 47, 64, 48]], np.float32
)
TURNED = np.array([[32, 24, 64, 20, 30], [1, 2, 90, 3, -75.5]], np.float64)
MANY = np.array([[i, i / 3, i + 1.5 + i / 2, i / 3 + 20] for i in range(30)], np.float64)


@pytest.fixture(autouse=True)
def _scalar() -> Iterator[None]:
    _core._force_simd("scalar")
    yield
    _core._force_simd("")


@pytest.fixture(scope="module")
def preprocessor() -> CudaPreprocessor:
    torch.cuda.init()
    return CudaPreprocessor()


def make_image(pixel_format: str, height: int = 48, width: int = 64) -> np.ndarray:
    rng = np.random.default_rng(len(pixel_format))
    if pixel_format == "grey16":
        return rng.integers(0, 65536, (height, width), np.uint16)
    if pixel_format in PLAIN:
        return rng.integers(0, 256, (height, width, PLAIN[pixel_format]), np.uint8)
    rows = height * 3 // 2 if pixel_format in {"nv12", "nv21", "i420"} else height
    return rng.integers(0, 256, (rows, width), np.uint8)


def on_device(array: np.ndarray) -> torch.Tensor | DeviceArray:
    tensor = torch.from_numpy(array.view(np.uint8)).cuda()
    if array.dtype != np.uint16:
        return tensor
    keep.append(tensor)
    return DeviceArray(tensor.data_ptr(), array.shape, array.dtype)


keep: list[torch.Tensor] = []


def check(preprocessor: CudaPreprocessor, image: Any, spec: InputSpec, **options: Any) -> None:
    """Uploaded and from device memory, against the processor."""
    dtype = options.pop("dtype", np.float32)
    layout = options.get("layout", "nchw")
    boxes = options.get("boxes")
    count = 1 if boxes is None else len(boxes)
    want = empty_slots(count, spec, dtype=dtype, layout=layout)
    preprocess_into(want, image, spec, **options)
    stream = torch.cuda.Stream()
    for lies_on_device in (False, True):
        out = torch.empty(want.shape, dtype=TORCH[dtype], device="cuda")
        given = on_device(image) if lies_on_device else image
        changes = dict(options)
        if lies_on_device and options.get("mask") is not None:
            changes["mask"] = torch.from_numpy(options["mask"]).cuda()
        torch.cuda.synchronize()
        assert preprocessor.preprocess_into(out, given, spec, stream=stream.cuda_stream, **changes) == count
        stream.synchronize()
        got = out.cpu().numpy()
        assert got.tobytes() == want.tobytes(), np.abs(got.astype(np.float64) - want).max()


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("boxes", [None, UPRIGHT, TURNED, MANY], ids=["image", "upright", "turned", "many"])
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_formats(preprocessor: CudaPreprocessor, pixel_format: str, boxes: Any, masked: bool) -> None:
    mask = np.random.default_rng(1).integers(0, 3, (48, 64), np.uint8) if masked else None
    for downscale in ("area", "bilinear"):
        spec = InputSpec(height_px=34, width_px=40, downscale=downscale)
        image = make_image(pixel_format)
        check(preprocessor, image, spec, pixel_format=pixel_format, boxes=boxes, mask=mask)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("pooled", [False, "max", "mean", True])
def test_outputs(preprocessor: CudaPreprocessor, dtype: Any, layout: str, fit: str, pooled: Any) -> None:
    for size in ((1, 1), (9, 33), (70, 20)):
        spec = InputSpec(
            height_px=size[0], width_px=size[1], fit=fit, pooled_channels=pooled, pad_level=101.5
        )
        for boxes in (None, UPRIGHT, TURNED):
            check(preprocessor, make_image("bgr8"), spec, boxes=boxes, dtype=dtype, layout=layout)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (13, 17), (1080, 1920)], ids=str)
def test_sizes(preprocessor: CudaPreprocessor, size: tuple[int, int]) -> None:
    for pixel_format in ("bgr8", "grey8", "bayer_rggb8"):
        image = make_image(pixel_format, *size)
        check(preprocessor, image, InputSpec(height_px=256, width_px=256), pixel_format=pixel_format)


def test_tall_tiles(preprocessor: CudaPreprocessor) -> None:
    boxes = np.tile(UPRIGHT, (64, 1))
    check(preprocessor, make_image("bgr8"), InputSpec(height_px=130, width_px=131), boxes=boxes)


def test_the_host_may_write_over_its_image_at_once(preprocessor: CudaPreprocessor) -> None:
    spec = InputSpec(height_px=128, width_px=128)
    image = np.empty((720, 1280, 3), np.uint8)
    streams = [torch.cuda.Stream() for _ in range(2)]
    out = torch.empty((20, *spec.shape), device="cuda")
    want = empty_slots(20, spec)
    torch.cuda.synchronize()
    for i in range(20):
        image[:] = np.random.default_rng(i).integers(0, 256, (1, 1280, 3), np.uint8)
        preprocess_into(want, image, spec, first_slot=i)
        preprocessor.preprocess_into(out, image, spec, first_slot=i, stream=streams[i % 2].cuda_stream)
    torch.cuda.synchronize()
    assert out.cpu().numpy().tobytes() == want.tobytes()


def test_it_can_be_captured_into_a_graph(preprocessor: CudaPreprocessor) -> None:
    spec = InputSpec(height_px=32, width_px=32)
    host = make_image("bgr8")
    image = torch.from_numpy(host).cuda()
    out = torch.zeros((4, *spec.shape), device="cuda")
    preprocessor.preprocess_into(out, image, spec, boxes=UPRIGHT)  # loads the kernel, which a capture may not
    torch.cuda.synchronize()
    out.zero_()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        stream = torch.cuda.current_stream().cuda_stream
        preprocessor.preprocess_into(out, image, spec, boxes=UPRIGHT, stream=stream)
    image.zero_()
    image.copy_(torch.from_numpy(host))
    graph.replay()
    want = empty_slots(4, spec)
    preprocess_into(want, host, spec, boxes=UPRIGHT)
    assert out.cpu().numpy().tobytes() == want.tobytes()


def test_host_memory_is_not_taken_for_the_devices(preprocessor: CudaPreprocessor) -> None:
    spec = InputSpec(height_px=8, width_px=8)
    host = np.zeros((1, *spec.shape), np.float32)
    wrong = DeviceArray(host.ctypes.data, host.shape, host.dtype)
    with pytest.raises(InputError, match="out: expected memory that the CUDA device can reach"):
        preprocessor.preprocess_into(wrong, make_image("bgr8"), spec)
