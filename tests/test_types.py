"""The input spec refuses what cannot be computed."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

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
