"""How pixels become the input of somebody else's model: a file, a named range, and what the graph says."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from algan_stream import plugins
from algan_stream.errors import BundleError, ConfigError
from algan_stream.types import InputSpec


class InputRange(str, Enum):
    """Values that the model was trained on."""

    UNIT = "unit"
    SYMMETRIC = "symmetric"
    IMAGENET = "imagenet"
    BYTE = "byte"
    OURS = "ours"


_PLAIN = {"pooled_channels": False, "mean": (0.0, 0.0, 0.0)}
#: The part of an `InputSpec` that each range stands for.
_RANGES: dict[InputRange, dict[str, Any]] = {
    InputRange.UNIT: {**_PLAIN, "std": (1.0, 1.0, 1.0)},
    InputRange.SYMMETRIC: {**_PLAIN, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    InputRange.IMAGENET: {**_PLAIN, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    InputRange.BYTE: {**_PLAIN, "std": (1 / 255, 1 / 255, 1 / 255)},
    InputRange.OURS: {},
}
_VALUES = ("mean", "std", "pooled_channels")
#: Planes of a graph → what `InputSpec` appends to red, green and blue; a grey plane is made from these.
_POOLED: dict[int, bool] = {1: False, 3: False, 5: True}


def make_spec(
    path: Path | None,
    input_range: InputRange | None,
    *,
    planes: int | None,
    height_px: int | None,
    width_px: int | None,
) -> InputSpec:
    """Joins what the user says with what the graph fixes.

    Args:
        path: YAML or JSON file with fields of `InputSpec`; what it leaves out comes from range and graph.
        input_range: Values that the model takes.
        planes: Channels of the graph's input, None where it fixes none.
        height_px: Its height, None likewise.
        width_px: Its width, None likewise.

    Raises:
        ConfigError: The file cannot be read, a key is wrong, or it is not said how pixels are normalised.
        BundleError: File and graph contradict each other, or neither says how large the input is.
    """
    given = _read(path)
    where = str(path) if path else "--input-spec"
    spoken = [name for name in _VALUES if name in given]
    if input_range is not None and spoken:
        raise ConfigError(
            f"{where}: {', '.join(spoken)} and --input-range {input_range.value} say the same thing twice; "
            "leave one of them out"
        )
    if input_range is None and not {"mean", "std"} <= given.keys():
        raise ConfigError(
            "it is not said how the model's pixels are normalised; give --input-range "
            f"{'|'.join(choice.value for choice in InputRange)}, or mean and std in --input-spec"
        )
    fields = {**(_RANGES[input_range] if input_range else {}), **given}
    if "pooled_channels" not in fields and planes in _POOLED and input_range is None:
        fields["pooled_channels"] = _POOLED[planes]
    for name, size in (("height_px", height_px), ("width_px", width_px)):
        if name not in fields and size is None:
            raise BundleError(
                f"the model's input has no fixed {name.removesuffix('_px')}; say the size that it was "
                f"trained at by {name} in --input-spec, it is then fixed in the bundle"
            )
        if size is not None and fields.setdefault(name, size) != size:
            raise BundleError(
                f"{where}: {name}: the model takes {size}, got {fields[name]}; leave it out, or export the "
                "model at that size"
            )
    spec: InputSpec = plugins.convert(fields, InputSpec, where)
    made = 1 if planes == 1 and spec.channels == 3 else spec.channels
    if planes == 1 and (len(set(spec.mean)), len(set(spec.std))) != (1, 1):
        raise BundleError(
            f"{where}: the model takes one grey channel, but mean {spec.mean} and std {spec.std} differ "
            "between red, green and blue; give the same number three times"
        )
    if planes not in (None, made):
        raise BundleError(
            f"the model takes {planes} channels, but the input spec makes {made} "
            f"(pooled_channels: {spec.pooled_channels}); expected 1, 3, 4 or 5 that fit"
        )
    return spec


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        found = yaml.safe_load(path.read_text("utf-8"))  # JSON is YAML, too
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is neither YAML nor JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected fields such as mean and std, got {type(found).__name__}")
    return found
