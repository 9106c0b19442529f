"""The input spec refuses what cannot be computed."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from algan_stream.engines.base import EngineIdentity
from algan_stream.errors import ConfigError
from algan_stream.types import InputSpec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height_px": 0}, "input_spec.height_px: expected 1 to 4096, got 0"),
        ({"width_px": 4097}, "input_spec.width_px: expected 1 to 4096, got 4097"),
        ({"mean": (0.0, math.nan, 0.0)}, "input_spec.mean: expected finite"),
        ({"std": (1.0, 1.0, 0.0)}, "input_spec.std: expected finite numbers above 0"),
        ({"std": (1.0, -1.0, 1.0)}, "input_spec.std: expected finite numbers above 0"),
        ({"std": (1.0, math.inf, 1.0)}, "input_spec.std: expected finite numbers above 0"),
    ],
)
def test_impossible_specs(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        InputSpec(**{"height_px": 8, "width_px": 8, **change})


def test_shapes() -> None:
    assert InputSpec(height_px=3, width_px=4).shape_chw == (5, 3, 4)
    assert InputSpec(height_px=3, width_px=4, pooled_channels=False).shape_chw == (3, 3, 4)


def test_a_spec_survives_json() -> None:
    spec = InputSpec(height_px=3, width_px=4, mean=(0.1, 0.2, 0.3), downscale="bilinear")
    assert msgspec.json.decode(msgspec.json.encode(spec), type=InputSpec) == spec


def test_an_engines_name_says_all_that_a_verdict_must_tell() -> None:
    named = EngineIdentity("tensorrt", "10.14", "GPU.0", "fp16", threads=2, cache_key="0123456789abcdef")
    assert str(named) == "tensorrt 10.14 GPU.0 fp16 0123456789ab"
    assert str(EngineIdentity("openvino", "2026.4", "CPU", "int8", threads=2)) == "openvino 2026.4 CPU int8"
