"""Somebody else's graph beside the stream: its inputs and outputs are found out, not prescribed.

Detectors are such graphs: how many boxes come, and in which form, is theirs to say. A plugin of `engines/`
offers one by a function `open_any(path, config)`; `openvino` and `onnxruntime` do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from algan_stream import plugins
from algan_stream.errors import EngineError

#: Sizes of an input or output; None where they are open.
OpenShape = tuple[int | None, ...]


class AnyGraph(ABC):
    """A compiled graph, for one thread at a time.

    Args:
        name: Names it in messages.
        inputs: NumPy's name of the type, and the shape, of each input by its name.
        outputs: Likewise of each output.
    """

    def __init__(
        self,
        name: str,
        inputs: dict[str, tuple[str, OpenShape]],
        outputs: dict[str, tuple[str, OpenShape]],
    ) -> None:
        self.name, self.inputs, self.outputs = name, inputs, outputs

    def run(self, inputs: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Runs it and waits: every output, owned by the caller.

        Raises:
            EngineError: The inference failed.
        """
        try:
            return self._run(inputs)
        except Exception as error:
            raise EngineError(f"{self.name}: inference failed: {error}") from error

    def described(self) -> str:
        """Inputs and outputs in words."""

        def told(ports: dict[str, tuple[str, OpenShape]]) -> str:
            return ", ".join(
                f"{name} {dtype} [{','.join('?' if size is None else str(size) for size in shape)}]"
                for name, (dtype, shape) in ports.items()
            )

        return f"inputs {told(self.inputs)}; outputs {told(self.outputs)}"

    @abstractmethod
    def close(self) -> None:
        """Frees the compiled graph. May be called twice."""

    @abstractmethod
    def _run(self, inputs: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]: ...


def open_any(path: Path, section: dict[str, Any] | None = None) -> AnyGraph:
    """Compiles a graph by the engine that a section names.

    Args:
        path: ONNX file.
        section: Configuration section `engine`; by default OpenVINO in fp32.

    Raises:
        ConfigError: A key of the section is wrong.
        EngineError: It cannot be compiled, or the engine offers no such graphs.
    """
    section = section or {"kind": "openvino"}
    module, config = plugins.load("engines", section, "engine")
    if not hasattr(module, "open_any"):
        raise EngineError(
            f"engine.kind: {section['kind']} runs discriminators only; use openvino for {path.name}"
        )
    if not path.is_file():
        raise EngineError(f"{path}: expected an ONNX file, but there is no such file")
    graph: AnyGraph = module.open_any(path, config)
    return graph


def empty_inputs(graph: AnyGraph, shapes: dict[str, tuple[int, ...]]) -> dict[str, npt.NDArray[Any]]:
    """Zeros of the graph's types, to try it with."""
    return {name: np.zeros(shape, graph.inputs[name][0]) for name, shape in shapes.items()}
