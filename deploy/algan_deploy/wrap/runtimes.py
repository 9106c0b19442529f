"""Runs a model exactly as it came: the witness that the wrapped graph is compared with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from algan_stream.errors import BundleError

Array = npt.NDArray[Any]
Scores = npt.NDArray[np.float64]


class Runtime(ABC):
    """An ONNX file, ready to run; `name` says by what."""

    name: str

    @abstractmethod
    def run(self, feed: dict[str, Array], output: str) -> Array:
        """One output for these inputs."""


def open_runtime(path: Path) -> Runtime:
    """Opens a file in ONNX Runtime, where that is installed and reads it, else in OpenVINO.

    Raises:
        BundleError: Neither can read it.
    """
    problems = []
    for kind in (OnnxRuntime, OpenVino):
        try:
            return kind(path)
        except ImportError:
            continue  # onnxruntime is no dependency
        except Exception as error:  # noqa: BLE001  each runtime raises errors of its own
            problems.append(f"{kind.__name__}: {_first_lines(error)}")
    raise BundleError(f"{path}: cannot be run: {'; '.join(problems)}; export it with another opset")


class OnnxRuntime(Runtime):
    """ONNX Runtime on the CPU."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.name = f"onnxruntime {onnxruntime.__version__}"

    def run(self, feed: dict[str, Array], output: str) -> Array:
        """See `Runtime`."""
        return np.asarray(self._session.run([output], feed)[0])


class OpenVino(Runtime):
    """OpenVINO on the CPU, in fp32."""

    def __init__(self, path: Path) -> None:
        import openvino as ov

        self._compiled: Any = ov.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        self.name = f"openvino {version('openvino')}"

    def run(self, feed: dict[str, Array], output: str) -> Array:
        """See `Runtime`."""
        return np.array(self._compiled(feed)[output])


def _first_lines(error: Exception) -> str:
    """Runtimes fill pages; what matters stands at the top."""
    return " ".join(str(error).split())[:300]
