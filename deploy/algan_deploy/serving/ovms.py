"""The `config.json` of an OpenVINO Model Server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from algan_stream.errors import BundleError

CONFIG = "config.json"
_MODELS = "model_config_list"


def entry(name: str, instances: int) -> dict[str, Any]:
    """One model's entry.

    Args:
        name: Of the model, and of its folder beside the configuration.
        instances: Batches that run at the same time.
    """
    plugin = {
        # Without it OpenVINO computes in bf16 where the processor can, and the golden gate would refuse that.
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": str(instances),
    }
    policy = {"specific": {"versions": [1]}}
    return {"name": name, "base_path": name, "model_version_policy": policy, "plugin_config": plugin}


def merged(path: Path, new: dict[str, Any]) -> bytes:
    """The configuration at `path`, if there is one, with a model added or replaced; other models stay.

    Raises:
        BundleError: What stands there is no such configuration.
    """
    config: dict[str, Any] = {}
    if path.exists():
        try:
            config = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
            others = [m for m in config.get(_MODELS, []) if m["config"]["name"] != new["name"]]
        except (OSError, msgspec.DecodeError, TypeError, KeyError) as error:
            raise BundleError(
                f"{path}: exists and is no configuration of OpenVINO Model Server ({error}); "
                "name another folder"
            ) from error
    else:
        others = []
    return msgspec.json.format(msgspec.json.encode({**config, _MODELS: [*others, {"config": new}]}), indent=2)
