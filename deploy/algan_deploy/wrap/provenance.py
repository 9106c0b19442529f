"""What a wrapped bundle's manifest tells of where it comes from."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from algan_deploy.wrap.graph import Wish
from algan_deploy.wrap.runtimes import Runtime, Scores
from algan_deploy.wrap.source import Source


def about(source: Source, wish: Wish, rewritten: list[str]) -> dict[str, Any]:
    """The file, its score and what was done to its graph."""
    model = source.model
    return {
        "file": source.path.name,
        "sha256": source.sha256,
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "opset": source.opset,
        "ir_version": model.ir_version,
        "input": source.input_name,
        "layout": source.layout,
        "score_output": source.output_name,
        "higher_is": "normal" if wish.higher_is_normal else "anomalous",
        "channel_order": "bgr" if wish.bgr else "rgb",
        "constants": dict(source.constants),
        "batch": "any" if source.batch is None else f"exported for {source.batch}",
        "rewritten": rewritten,
    }


def about_images(
    paths: list[Path], anomalous: npt.NDArray[np.bool_], compared: int, scores: Scores
) -> dict[str, Any]:
    """How many images there were, a hash over all, and the AUROC where some were defective."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    good, bad = scores[~anomalous], scores[anomalous]
    found: dict[str, Any] = {
        "good": len(good),
        "defective": len(bad),
        "compared": compared,
        "sha256": digest.hexdigest(),
    }
    if bad.size:
        found["auroc"] = float(((bad[:, None] > good) + 0.5 * (bad[:, None] == good)).mean())
    return found


def versions(original: Runtime, onnx_version: str) -> dict[str, str]:
    """Of everything that took part."""
    found = {"python": platform.python_version(), "onnx": onnx_version, "reference": original.name}
    for name in ("algan-stream", "openvino", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
