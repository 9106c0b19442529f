"""OpenVINO on CPUs: the default engine; runs anywhere, needs no GPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from algan_stream.bundle import Bundle
from algan_stream.cpus import available_cpus
from algan_stream.engines.base import Engine, EngineConfig, EngineIdentity, Slot
from algan_stream.engines.graph import Floats, Graph, Shape
from algan_stream.errors import EngineError

#: OpenVINO's name of each precision.
HINTS = {"fp32": "f32", "bf16": "bf16"}


class Config(EngineConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `engine` with `kind: openvino`; `streams: 0` is one for each thread.

    Attributes:
        precision: `fp32`, or `bf16` where the processor computes in it.
    """

    kind: Literal["openvino"] = "openvino"
    precision: Literal["fp32", "bf16"] = "fp32"


class OpenVinoEngine(Engine):
    """Asynchronous inference requests, each bound to one slot's memory (no copy on the way in)."""

    def __init__(self, bundle: Bundle, config: Config) -> None:
        import openvino as ov

        core = ov.Core()
        threads = config.threads or available_cpus()
        streams = min(config.streams or threads, threads)
        _check_precision(core, config.precision)
        try:
            model = core.read_model(bundle.model_for(config.precision))
            _check_model(model, bundle.manifest.spec.shape)
            self._compiled: Any = core.compile_model(
                model,
                "CPU",
                {
                    "PERFORMANCE_HINT": "THROUGHPUT",
                    "INFERENCE_PRECISION_HINT": HINTS[config.precision],
                    "INFERENCE_NUM_THREADS": threads,
                    "NUM_STREAMS": streams,
                },
            )
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(f"{bundle.model_path}: OpenVINO cannot compile it: {error}") from error
        version = ov.get_version().split("-")[0]
        super().__init__(
            EngineIdentity("openvino", version, "CPU", config.precision, threads),
            bundle.manifest.spec,
            config.max_batch,
            slot_count=2 * streams + 1,
            streams=streams,
        )
        self._requests = [self._compiled.create_infer_request() for _ in self.slots]
        # A tensor over the first n images of a slot costs some microseconds to make; each is made once.
        self._tensors = [
            [ov.Tensor(slot.inputs_nchw[: n + 1], shared_memory=True) for n in range(self.max_batch)]
            for slot in self.slots
        ]
        self._warm_up()

    def close(self) -> None:
        """Waits for running requests, then frees the compiled model."""
        for request in self._requests:
            request.wait()
        self._requests, self._tensors, self._compiled = [], [], None

    def _start(self, slot: Slot, count: int) -> None:
        request = self._requests[slot.index]
        request.set_input_tensor(self._tensors[slot.index][count - 1])
        request.start_async()

    def _finish(self, slot: Slot, timeout_s: float) -> npt.NDArray[np.float32]:
        request = self._requests[slot.index]
        if not request.wait_for(int(timeout_s * 1000)):
            raise TimeoutError
        logits: npt.NDArray[np.float32] = request.get_output_tensor().data.copy()
        return logits

    def _warm_up(self) -> None:
        """Runs every batch size once: OpenVINO prepares kernels for a shape when it first meets it."""
        for count in range(1, self.max_batch + 1):
            for slot in self.slots[: self.streams]:
                self._start(slot, count)
            for slot in self.slots[: self.streams]:
                self._finish(slot, timeout_s=60.0)


def create(bundle: Bundle, config: Config) -> OpenVinoEngine:
    """Compiles the bundle's model for this machine.

    Raises:
        EngineError: The model's inputs or outputs are not the bundle's, or the precision is not to be had.
    """
    return OpenVinoEngine(bundle, config)


class OpenVinoGraph(Graph):
    """Another ONNX file, run on demand by a single request."""

    def __init__(self, path: Path, input_shape: Shape, outputs: Mapping[str, Shape], config: Config) -> None:
        import openvino as ov

        core = ov.Core()
        _check_precision(core, config.precision)
        try:
            model = core.read_model(path)
            _check_graph(path, model, input_shape, outputs)
            properties = {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": HINTS[config.precision],
                "INFERENCE_NUM_THREADS": config.threads or available_cpus(),
            }
            self._compiled: Any = core.compile_model(model, "CPU", properties)
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(f"{path}: OpenVINO cannot compile it: {error}") from error
        super().__init__(path.name, input_shape, outputs, config.max_batch)

    def close(self) -> None:
        """Frees the compiled graph."""
        self._compiled = None

    def _run(self, inputs: Floats) -> dict[str, Floats]:
        found = self._compiled(inputs)
        return {name: found[name].copy() for name in self.outputs}


def open_graph(path: Path, input_shape: Shape, outputs: Mapping[str, Shape], config: Config) -> OpenVinoGraph:
    """Compiles an ONNX file beside the bundle's model; see `graph.open_graph`."""
    return OpenVinoGraph(path, input_shape, outputs, config)


def _check_graph(path: Path, model: Any, input_shape: Shape, outputs: Mapping[str, Shape]) -> None:
    found = [str(i.partial_shape) for i in model.inputs]
    given = {name: str(o.partial_shape) for o in model.outputs for name in o.get_names()}
    expected = {name: f"[{','.join(['?', *map(str, shape)])}]" for name, shape in outputs.items()}
    wanted = f"[{','.join(['?', *map(str, input_shape)])}]"
    if found != [wanted] or any(given.get(name) != shape for name, shape in expected.items()):
        raise EngineError(
            f"{path}: expected one input {wanted} and outputs {expected}, got inputs {found} and outputs "
            f"{given}"
        )


def _check_precision(core: Any, precision: str) -> None:
    offered = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in offered:
        raise EngineError(
            f"engine.precision: bf16 is not offered by this processor (it offers {', '.join(offered)}); "
            "use fp32"
        )


def _check_model(model: Any, shape: tuple[int, ...]) -> None:
    inputs = [str(i.partial_shape) for i in model.inputs]
    outputs = [str(o.partial_shape) for o in model.outputs]
    expected = f"[?,{','.join(map(str, shape))}]"
    if inputs != [expected] or outputs != ["[?]"]:
        raise EngineError(
            f"model: expected one input {expected} and one output [?], got inputs {inputs} and outputs "
            f"{outputs}; the ONNX file does not fit the manifest"
        )
