"""OpenVINO: the default engine; runs anywhere, needs no GPU, and uses one of Intel's where there is one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from algan_stream.bundle import Bundle
from algan_stream.cpus import available_cpus
from algan_stream.engines.any_graph import AnyGraph, OpenShape
from algan_stream.engines.base import Engine, EngineConfig, EngineIdentity, Slot
from algan_stream.engines.graph import Floats, Graph, Shape
from algan_stream.engines.openvino_device import (
    FIXED_BATCH,
    check_precision,
    choose,
    load_openvino,
    present,
    properties,
)
from algan_stream.errors import AlganError, EngineError

_DEVICE = re.compile(r"CPU|GPU(\.\d+)?|NPU|AUTO")


class Config(EngineConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `engine` with `kind: openvino`; `streams: 0` is one for each thread, or what a GPU wants.

    Attributes:
        precision: What the device must be able to compute in; `int8` runs the bundle's quantised graph.
        device: `CPU`, `GPU`, `GPU.1` (the second of several), `NPU`, or `AUTO`: which OpenVINO thinks best.
        cache_dir: Folder where OpenVINO keeps compiled models, for a faster start on a GPU; empty: nowhere.
    """

    kind: Literal["openvino"] = "openvino"
    precision: Literal["fp32", "bf16", "fp16", "int8"] = "fp32"
    device: str = "CPU"
    cache_dir: str = ""

    def __post_init__(self) -> None:
        EngineConfig.__post_init__(self)
        if not _DEVICE.fullmatch(self.device):
            raise ValueError(f"device: expected CPU, GPU, GPU.n, NPU or AUTO, got {self.device!r}")


class OpenVinoEngine(Engine):
    """Asynchronous inference requests, each bound to one slot's memory (no copy on the way in)."""

    def __init__(self, bundle: Bundle, config: Config) -> None:
        ov = load_openvino()

        core, path = ov.Core(), bundle.model_for(config.precision)
        threads = config.threads or available_cpus()
        try:
            model = core.read_model(path)
            _check_model(model, bundle.manifest.spec.shape)
            device = choose(core, config.device, path)
            check_precision(core, device, config.precision)
            cpu = device == "CPU"
            self._fixed = device in FIXED_BATCH
            if self._fixed:
                model.reshape([config.max_batch, *bundle.manifest.spec.shape])
            wanted = properties(
                device,
                config.precision,
                "THROUGHPUT",
                threads=threads,
                streams=min(config.streams or threads, threads) if cpu else config.streams,
                cache_dir=config.cache_dir,
            )
            self._compiled: Any = core.compile_model(model, device, wanted)
            streams = wanted.get("NUM_STREAMS") or self._compiled.get_property(
                "OPTIMAL_NUMBER_OF_INFER_REQUESTS"
            )
        except AlganError:
            raise
        except Exception as error:
            raise EngineError(f"{path}: OpenVINO cannot compile it: {error}") from error
        version = ov.get_version().split("-")[0]
        super().__init__(
            EngineIdentity("openvino", version, device, config.precision, threads if cpu else 1),
            bundle.manifest.spec,
            config.max_batch,
            slot_count=2 * streams + 1,
            streams=streams,
        )
        self._requests = [self._compiled.create_infer_request() for _ in self.slots]
        # A tensor over the first n images of a slot costs some microseconds to make; each is made once.
        sizes = [self.max_batch] * self.max_batch if self._fixed else range(1, self.max_batch + 1)
        self._tensors = [
            [ov.Tensor(slot.inputs_nchw[:n], shared_memory=True) for n in sizes] for slot in self.slots
        ]
        self._counts = [0] * len(self.slots)
        self._warm_up()

    def close(self) -> None:
        """Waits for running requests, then frees the compiled model."""
        for request in self._requests:
            request.wait()
        self._requests, self._tensors, self._compiled = [], [], None

    def _start(self, slot: Slot, count: int) -> None:
        request = self._requests[slot.index]
        request.set_input_tensor(self._tensors[slot.index][count - 1])
        self._counts[slot.index] = count
        request.start_async()

    def _finish(self, slot: Slot, timeout_s: float) -> npt.NDArray[np.float32]:
        request = self._requests[slot.index]
        if not request.wait_for(int(timeout_s * 1000)):
            raise TimeoutError
        logits: npt.NDArray[np.float32] = request.get_output_tensor().data[: self._counts[slot.index]].copy()
        return logits

    def _warm_up(self) -> None:
        """Runs every batch size once: OpenVINO prepares kernels for a shape when it first meets it."""
        for count in [self.max_batch] if self._fixed else range(1, self.max_batch + 1):
            for slot in self.slots[: self.streams]:
                self._start(slot, count)
            for slot in self.slots[: self.streams]:
                self._finish(slot, timeout_s=60.0)


def create(bundle: Bundle, config: Config) -> OpenVinoEngine:
    """Compiles the bundle's model for this machine.

    Raises:
        BundleError: There is no graph of this precision.
        EngineError: The model's inputs or outputs are not the bundle's, or device or precision are not to be
            had.
    """
    return OpenVinoEngine(bundle, config)


def devices() -> list[str]:
    """The devices here."""
    ov = load_openvino()

    return present(ov.Core())


class OpenVinoGraph(Graph):
    """Another ONNX file, run on demand by a single request."""

    def __init__(self, path: Path, input_shape: Shape, outputs: Mapping[str, Shape], config: Config) -> None:
        ov = load_openvino()

        core = ov.Core()
        try:
            model = core.read_model(path)
            _check_graph(path, model, input_shape, outputs)
            device = choose(core, config.device, path)
            check_precision(core, device, config.precision)
            wanted = properties(
                device,
                config.precision,
                "LATENCY",
                threads=config.threads or available_cpus(),
                streams=0,
                cache_dir=config.cache_dir,
            )
            self._fixed = device in FIXED_BATCH
            if self._fixed:
                model.reshape([config.max_batch, *input_shape])
            self._compiled: Any = core.compile_model(model, device, wanted)
        except AlganError:
            raise
        except Exception as error:
            raise EngineError(f"{path}: OpenVINO cannot compile it: {error}") from error
        super().__init__(path.name, input_shape, outputs, config.max_batch)

    def close(self) -> None:
        """Frees the compiled graph."""
        self._compiled = None

    def _run(self, inputs: Floats) -> dict[str, Floats]:
        count = len(inputs)
        if self._fixed and count < self.max_batch:
            missing = np.zeros((self.max_batch - count, *self.input_shape), np.float32)
            inputs = np.concatenate([inputs, missing])
        found = self._compiled(inputs)
        return {name: found[name][:count].copy() for name in self.outputs}


def open_graph(path: Path, input_shape: Shape, outputs: Mapping[str, Shape], config: Config) -> OpenVinoGraph:
    """Compiles an ONNX file beside the bundle's model; see `graph.open_graph`."""
    return OpenVinoGraph(path, input_shape, outputs, config)


class OpenVinoAnyGraph(AnyGraph):
    """An ONNX file whose inputs and outputs are its own, run by a single request."""

    def __init__(self, path: Path, config: Config) -> None:
        import openvino as ov

        core = ov.Core()
        try:
            model = core.read_model(path)
            device = choose(core, config.device, path)
            check_precision(core, device, config.precision)
            threads = config.threads or available_cpus()
            wanted = properties(
                device, config.precision, "LATENCY", threads=threads, streams=0, cache_dir=config.cache_dir
            )
            self._compiled: Any = core.compile_model(model, device, wanted)
            ports = [_ports(self._compiled.inputs), _ports(self._compiled.outputs)]
        except AlganError:
            raise
        except Exception as error:
            raise EngineError(f"{path}: OpenVINO cannot compile it: {error}") from error
        super().__init__(path.name, *ports)

    def close(self) -> None:
        """Frees the compiled graph."""
        self._compiled = None

    def _run(self, inputs: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        found = self._compiled(inputs)
        return {name: found[i].copy() for i, name in enumerate(self.outputs)}


def open_any(path: Path, config: Config) -> OpenVinoAnyGraph:
    """Compiles somebody else's ONNX file; see `any_graph.open_any`."""
    return OpenVinoAnyGraph(path, config)


def _ports(ports: Any) -> dict[str, tuple[str, OpenShape]]:
    return {
        port.get_any_name(): (
            np.dtype(port.get_element_type().to_dtype()).name,
            tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape),
        )
        for port in ports
    }


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


def _check_model(model: Any, shape: tuple[int, ...]) -> None:
    inputs = [str(i.partial_shape) for i in model.inputs]
    outputs = [str(o.partial_shape) for o in model.outputs]
    expected = f"[?,{','.join(map(str, shape))}]"
    if inputs != [expected] or outputs != ["[?]"]:
        raise EngineError(
            f"model: expected one input {expected} and one output [?], got inputs {inputs} and outputs "
            f"{outputs}; the ONNX file does not fit the manifest"
        )
