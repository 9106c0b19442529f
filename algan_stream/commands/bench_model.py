"""The network that benchmarks run by default: the paper's shape, with random weights (speed ignores them)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from algan_stream.bundle import FORMAT_VERSION, MODEL, Bundle, FileEntry, Manifest
from algan_stream.calibration import with_raw_threshold
from algan_stream.types import InputSpec

#: Seven convolutions at 256×256 (paper, section 4.1) and our usual width: 0.65 GMAC an image.
SIZE_PX, WIDTH = 256, 32


class _ReferenceBundle(Bundle):
    """A bundle that holds OpenVINO's own format, so that making it needs no ONNX library."""

    @property
    def model_path(self) -> Path:
        return self.path / "discriminator.xml"


def reference_bundle(folder: Path) -> Bundle:
    """Writes the network into a folder. There are no golden images: it must never serve."""
    import openvino as ov

    spec = InputSpec(height_px=SIZE_PX, width_px=SIZE_PX)
    path = folder / "discriminator.xml"
    ov.save_model(_discriminator(spec), path, compress_to_fp16=False)
    weights = path.with_suffix(".bin").read_bytes()
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=f"reference {SIZE_PX} px, width {WIDTH}",
        model_kind="algan-image",
        input_spec=spec,
        tolerance={},
        calibration=with_raw_threshold([], 0.0),
        files={MODEL: FileEntry(hashlib.sha256(weights).hexdigest(), len(weights))},
    )
    return _ReferenceBundle(folder, manifest)


def _discriminator(spec: InputSpec) -> Any:
    import openvino as ov
    from openvino import opset13 as ops

    rng = np.random.default_rng(0)

    def convolution(x: Any, channels: int, out: int, stride: int, pad: int) -> Any:
        kernel = rng.normal(size=(out, channels, 4, 4)) / np.sqrt(channels * 8)
        weights = ops.constant(kernel.astype(np.float32))
        return ops.convolution(x, weights, [stride] * 2, [pad] * 2, [pad] * 2, [1, 1])

    inputs = ops.parameter([-1, *spec.shape_chw], np.float32, name="input")
    x, channels, size, out = inputs, spec.channels, spec.height_px, WIDTH
    while size > 4:
        x = ops.prelu(convolution(x, channels, out, stride=2, pad=1), ops.constant(np.float32(0.2)))
        channels, size, out = out, size // 2, min(out * 2, WIDTH * 16)
    logit = ops.reshape(convolution(x, channels, 1, stride=1, pad=0), ops.constant([-1]), special_zero=False)
    return ov.Model([logit], [inputs], "discriminator")
