"""Preprocessing on a CUDA device: time per call, and the share of the memory bandwidth that it uses.

    python benchmarks/preprocess_cuda.py            measure; without a device, an estimate for three of them

Measured: image and batch lie in device memory; the median of many calls, timed by CUDA events, against a
plain copy on the device of as many bytes, in the same run. Calls go round so many images and batches that the
device's cache holds none of them. Estimated: a roofline, that is, the bytes moved (of the source, each pixel
that a box covers once; of the batch, each element once) at the memory's full bandwidth; how near the kernel
comes to that is what the measurement is for.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from algan_stream import _core
from algan_stream.types import CameraFormat, InputSpec

#: Peak memory bandwidth, from NVIDIA's data sheets, and that of the link from the host, in GB/s: PCIe 4.0 and
#: 5.0 with 16 lanes, at about 80 % of their 32 and 63 GB/s. The Orin's memory is shared: an upload is a copy
#: within it, read once and written once.
DEVICES = {
    "A100 80GB SXM": (2039.0, 25.0),
    "H100 SXM": (3350.0, 50.0),
    "Jetson AGX Orin": (204.8, 102.4),
}


#: More than any device's cache.
BEYOND_CACHE_BYTES = 2**28


@dataclass(frozen=True)
class Case:
    """One kind of call."""

    name: str
    height_px: int
    width_px: int
    pixel_format: CameraFormat
    spec: InputSpec
    boxes: np.ndarray | None
    dtype: type[Any]

    @property
    def image(self) -> np.ndarray:
        """Noise of the right shape."""
        rng = np.random.default_rng(0)
        if self.pixel_format == "nv12":
            return rng.integers(0, 256, (self.height_px * 3 // 2, self.width_px), np.uint8)
        return rng.integers(0, 256, (self.height_px, self.width_px, 3), np.uint8)

    @property
    def count(self) -> int:
        """Of outputs."""
        return 1 if self.boxes is None else len(self.boxes)

    @property
    def image_bytes(self) -> int:
        """That an upload moves."""
        return int(self.height_px * self.width_px * (1.5 if self.pixel_format == "nv12" else 3))

    @property
    def source_bytes(self) -> int:
        """That the boxes cover; pixels in two boxes count once."""
        if self.boxes is None:
            return self.image_bytes
        covered = np.zeros((self.height_px, self.width_px), bool)
        for left, top, right, bottom in self.boxes.astype(int):
            covered[top:bottom, left:right] = True
        return int(covered.sum()) * 3

    @property
    def output_bytes(self) -> int:
        """Of all outputs."""
        return int(self.count * np.prod(self.spec.shape)) * np.dtype(self.dtype).itemsize


def cases() -> list[Case]:
    """What the numbers are about."""
    small, large = InputSpec(height_px=256, width_px=256), InputSpec(height_px=512, width_px=512)
    corners = [(x, y) for y in range(0, 880, 125) for x in range(0, 1720, 230)][:64]
    boxes = np.array([(x, y, x + 200, y + 200) for x, y in corners], np.float32)
    return [
        Case("1080p bgr8 → 5×256×256 float32", 1080, 1920, "bgr8", small, None, np.float32),
        Case("1080p bgr8 → 5×256×256 float16", 1080, 1920, "bgr8", small, None, np.float16),
        Case("64 boxes of 200×200 px → 64×5×256×256 float32", 1080, 1920, "bgr8", small, boxes, np.float32),
        Case("64 boxes of 200×200 px → 64×5×256×256 float16", 1080, 1920, "bgr8", small, boxes, np.float16),
        Case("4K nv12 → 5×512×512 float32", 2160, 3840, "nv12", large, None, np.float32),
    ]


def estimate() -> None:
    """Print the roofline as a Markdown table."""
    print("**An estimate, not a measurement**: bytes moved at full memory bandwidth; the upload is extra.\n")
    heads = [f"{name} | upload" for name in DEVICES]
    print("| call | MB read + written |", " | ".join(heads), "|")
    print("|---|---|" + "---|---|" * len(DEVICES))
    for case in cases():
        moved = case.source_bytes + case.output_bytes
        cells = [f"{case.source_bytes / 1e6:.2f} + {case.output_bytes / 1e6:.2f}"]
        for memory_gb_s, link_gb_s in DEVICES.values():
            cells += [f"{moved / memory_gb_s / 1e3:.1f} µs", f"{case.image_bytes / link_gb_s / 1e3:.0f} µs"]
        print(f"| {case.name} |", " | ".join(cells), "|")
    print()
    for name, (memory_gb_s, link_gb_s) in DEVICES.items():
        print(f"- {name}: memory {memory_gb_s:g} GB/s, upload at {link_gb_s:g} GB/s")
    print("- A launch costs the device a few µs besides, which rules where the table says less than that.")
    print("- Before an upload, the host copies the image into pinned memory: 0.1 ms per MB at 10 GB/s.")


def timed_us(torch: Any, calls: list[Callable[[], Any]], repeats: int) -> float:
    """Median time of a call on the current stream; the calls take turns."""
    times = []
    for i in range(10 + repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        calls[i % len(calls)]()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3)
    return statistics.median(times[10:])


def measure(torch: Any, repeats: int) -> None:
    """Print measured times as a Markdown table."""
    from algan_stream.preprocess_cuda import CudaPreprocessor

    preprocessor = CudaPreprocessor()
    stream = torch.cuda.current_stream().cuda_stream
    print(f"{torch.cuda.get_device_name()}, medians of {repeats} calls:\n")
    print(
        "| call | on the device | with upload | plain copy of the same bytes | GB/s | share of the copy's |"
    )
    print("|---|---|---|---|---|---|")
    for case in cases():
        moved = case.source_bytes + case.output_bytes
        turns = BEYOND_CACHE_BYTES // moved + 1
        host = case.image
        images = [torch.from_numpy(host).cuda() for _ in range(turns)]
        shape = (turns, case.count, *case.spec.shape)
        outs = torch.empty(shape, dtype=getattr(torch, np.dtype(case.dtype).name), device="cuda")
        copies = torch.empty((turns, 2, moved // 2), dtype=torch.uint8, device="cuda")  # each way once
        options = {"pixel_format": case.pixel_format, "boxes": case.boxes, "stream": stream}
        run = partial(preprocessor.preprocess_into, spec=case.spec, **options)
        on_device = [partial(run, outs[i], images[i]) for i in range(turns)]
        uploaded = [partial(run, outs[i], host) for i in range(turns)]
        plain = [partial(copies[i, 0].copy_, copies[i, 1]) for i in range(turns)]
        device_us, upload_us, copy_us = (timed_us(torch, c, repeats) for c in (on_device, uploaded, plain))
        print(
            f"| {case.name} | {device_us:.1f} µs | {upload_us:.0f} µs | {copy_us:.1f} µs "
            f"| {moved / device_us / 1e3:.0f} | {copy_us / device_us:.0%} |"
        )


def main() -> None:
    """Measure, or estimate where nothing can be measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=200, help="calls that the median is taken of")
    parser.add_argument("--estimate", action="store_true", help="print the estimate even with a device")
    options = parser.parse_args()
    reason = "" if _core.has_cuda else "algan-stream was built without CUDA"
    try:
        import torch
    except ImportError:
        reason = reason or "PyTorch is not installed"
    else:
        reason = reason or ("" if torch.cuda.is_available() else "PyTorch finds no CUDA device")
    if reason or options.estimate:
        print(f"Not measured: {reason or 'asked for the estimate'}.\n")
        estimate()
    else:
        measure(torch, options.repeats)


if __name__ == "__main__":
    main()
