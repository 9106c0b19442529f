"""A graph beside the stream: any ONNX file with one input and named outputs, run on demand.

What the stream runs is an `Engine`, with slots and deadlines and one logit for each input. A graph has
neither: it takes a batch, waits, and returns every output. A plugin of `engines/` offers one by a function
`open_graph(path, input_shape, outputs, config)`; `openvino` does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from algan_stream import plugins
from algan_stream.errors import EngineError

Floats = npt.NDArray[np.float32]
Shape = tuple[int, ...]


class Graph(ABC):
    """A compiled graph.

    Args:
        name: Names it in messages.
        input_shape: Shape of one input, without N.
        outputs: Shape of one output, without N, by its name.
        max_batch: Most inputs that are run at once.
    """

    def __init__(self, name: str, input_shape: Shape, outputs: Mapping[str, Shape], max_batch: int) -> None:
        self.name = name
        self.input_shape = input_shape
        self.outputs = dict(outputs)
        self.max_batch = max_batch

    def infer(self, inputs: Floats) -> dict[str, Floats]:
        """Runs ready inputs, of any number: (N, *input_shape) float32 → (N, *shape) float32 by output.

        Raises:
            EngineError: The inputs are of another shape or type, or the inference failed.
        """
        if inputs.shape[1:] != self.input_shape or inputs.dtype != np.float32:
            raise EngineError(
                f"{self.name}: expected inputs float32 (N, {', '.join(map(str, self.input_shape))}), "
                f"got {inputs.dtype} {inputs.shape}"
            )
        parts: dict[str, list[Floats]] = {name: [] for name in self.outputs}
        for start in range(0, len(inputs), self.max_batch):
            chunk = np.ascontiguousarray(inputs[start : start + self.max_batch])
            try:
                found = self._run(chunk)
            except Exception as error:
                raise EngineError(f"{self.name}: inference failed: {error}") from error
            for name, shape in self.outputs.items():
                if found[name].shape != (len(chunk), *shape):
                    raise EngineError(
                        f"{self.name}: {name}: expected {(len(chunk), *shape)}, got {found[name].shape}"
                    )
                parts[name].append(found[name])
        return {
            name: np.concatenate(of) if of else np.empty((0, *self.outputs[name]), np.float32)
            for name, of in parts.items()
        }

    @abstractmethod
    def close(self) -> None:
        """Frees the compiled graph. May be called twice."""

    @abstractmethod
    def _run(self, inputs: Floats) -> dict[str, Floats]:
        """At most `max_batch` inputs → every output, owned by the caller."""


def open_graph(
    path: Path, input_shape: Shape, outputs: Mapping[str, Shape], section: dict[str, Any] | None = None
) -> Graph:
    """Compiles a graph by the engine that a section names.

    Args:
        path: ONNX file with one input (N, *input_shape) float32.
        input_shape: Shape of one input, without N.
        outputs: Shape of one output, without N, by its name; all of them float32.
        section: Configuration section `engine`; by default OpenVINO in fp32.

    Raises:
        ConfigError: A key of the section is wrong.
        EngineError: It cannot be compiled, has other inputs or outputs, or the engine offers no graphs.
    """
    section = section or {"kind": "openvino"}
    module, config = plugins.load("engines", section, "engine")
    if not hasattr(module, "open_graph"):
        raise EngineError(
            f"engine.kind: {section['kind']} runs discriminators only; use openvino for {path.name}"
        )
    graph: Graph = module.open_graph(path, input_shape, outputs, config)
    return graph
