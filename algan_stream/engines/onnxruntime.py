"""ONNX Runtime: the same ONNX file by another library, on CPUs and on NVIDIA GPUs.

On a CPU every logit depends on its own image alone, bit for bit. On a GPU the library may choose another
kernel for another size of batch, whose last bits differ; the golden gate's tolerance bounds that.
"""

from __future__ import annotations

import queue
import threading
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
from algan_stream.engines.onnxruntime_session import PROVIDERS, check_choice, library, offered, open_session
from algan_stream.errors import EngineError

#: Batches at the same time on a GPU where the configuration leaves it open: one copies while one computes.
_GPU_STREAMS = 2


class Config(EngineConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `engine` with `kind: onnxruntime`; `streams: 0` is one for each thread, on a GPU two.

    Attributes:
        provider: What computes. One that is not there is an error; another never takes its place.
        precision: `int8` runs the bundle's quantised graph; `fp16` only TensorRT has.
        gpu: Number of the GPU, where there are several.
    """

    kind: Literal["onnxruntime"] = "onnxruntime"
    provider: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    gpu: int = 0

    def __post_init__(self) -> None:
        EngineConfig.__post_init__(self)
        if not 0 <= self.gpu <= 1023:
            raise ValueError(f"gpu: expected 0 to 1023, got {self.gpu}")


class OnnxRuntimeEngine(Engine):
    """One session, called by as many threads as there are streams; inputs are read in place (no copy).

    The first thread to be free takes the next batch, so batches start in the order of `submit`.
    """

    def __init__(self, bundle: Bundle, config: Config) -> None:
        check_choice(config.provider, config.precision)
        cpu = config.provider == "cpu"
        threads = config.threads or available_cpus()
        streams = min(config.streams or (threads if cpu else _GPU_STREAMS), threads if cpu else 1024)
        self._session: Any = open_session(
            bundle.model_for(config.precision),
            (bundle.manifest.spec.shape, {"logit": ()}),
            provider=config.provider,
            precision=config.precision,
            gpu=config.gpu,
            # All streams share the session's pool; each adds the thread that calls.
            pool_threads=threads - streams + 1 if cpu else 1,
            max_batch=config.max_batch,
            whole=True,
        )
        device = "CPU" if cpu else f"{config.provider}:{config.gpu}"
        used = threads if cpu else streams
        super().__init__(
            EngineIdentity("onnxruntime", library().__version__, device, config.precision, used),
            bundle.manifest.spec,
            config.max_batch,
            slot_count=2 * streams + 1,
            streams=streams,
        )
        self._places = [_Place(self._session, slot, on_cpu=cpu) for slot in self.slots]
        self._work: queue.SimpleQueue[tuple[_Place, int] | None] = queue.SimpleQueue()
        self._workers = [
            threading.Thread(target=self._serve, name=f"onnxruntime-{i}", daemon=True) for i in range(streams)
        ]
        for worker in self._workers:
            worker.start()
        try:
            self._warm_up()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Waits for what is running and frees the session."""
        for _ in self._workers:
            self._work.put(None)
        for worker in self._workers:
            worker.join()
        self._workers, self._places, self._session = [], [], None

    def _start(self, slot: Slot, count: int) -> None:
        self._work.put((self._places[slot.index], count))

    def _finish(self, slot: Slot, timeout_s: float) -> npt.NDArray[np.float32]:
        return self._places[slot.index].answer(timeout_s)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            place, count = work
            place.run(count)

    def _warm_up(self) -> None:
        """Runs every batch size once: memory is laid out for a shape when it is first met."""
        for count in range(1, self.max_batch + 1):
            for slot in self.slots[: self.streams]:
                self._start(slot, count)
            for slot in self.slots[: self.streams]:
                self._finish(slot, self.patience_s)


class _Place:
    """What belongs to one slot: a binding of its memory for every batch size, and the way back."""

    def __init__(self, session: Any, slot: Slot, *, on_cpu: bool) -> None:
        ort = library()
        self._session, self._on_cpu = session, on_cpu
        self._logits = np.empty(len(slot.inputs_nchw), np.float32)
        self._done: queue.SimpleQueue[npt.NDArray[np.float32] | Exception] = queue.SimpleQueue()
        self._bound = []
        for n in range(1, len(slot.inputs_nchw) + 1):
            binding = session.io_binding()
            value = ort.OrtValue.ortvalue_from_numpy(slot.inputs_nchw[:n])
            binding.bind_ortvalue_input("input", value)
            binding.bind_ortvalue_output("logit", ort.OrtValue.ortvalue_from_numpy(self._logits[:n]))
            self._bound.append((binding, value))

    def run(self, count: int) -> None:
        """Called by a worker; what goes wrong is an answer too."""
        try:
            binding, value = self._bound[count - 1]
            if not self._on_cpu:
                # Binding is what copies to a device; on a CPU the slot's memory itself is bound, once.
                binding.bind_ortvalue_input("input", value)
            self._session.run_with_iobinding(binding)
            self._done.put(self._logits[:count].copy())
        except Exception as error:  # noqa: BLE001  a worker must outlive a batch
            self._done.put(error)

    def answer(self, timeout_s: float) -> npt.NDArray[np.float32]:
        """Waits for `run`.

        Raises:
            TimeoutError: Nothing came.
        """
        try:
            found = self._done.get(timeout=timeout_s)
        except queue.Empty as error:
            raise TimeoutError from error
        if isinstance(found, Exception):
            raise found
        return found


def create(bundle: Bundle, config: Config) -> OnnxRuntimeEngine:
    """Compiles the bundle's model for this machine.

    Raises:
        BundleError: There is no graph of this precision.
        EngineError: The model is not the bundle's, or provider or precision are not to be had.
        PluginError: The package `onnxruntime` is not installed.
    """
    return OnnxRuntimeEngine(bundle, config)


def devices() -> list[str]:
    """The providers that the installed package offers.

    Raises:
        PluginError: The package `onnxruntime` is not installed.
    """
    return offered()


class OnnxRuntimeGraph(Graph):
    """Another ONNX file, run on demand by the thread that asks."""

    def __init__(self, path: Path, input_shape: Shape, outputs: Mapping[str, Shape], config: Config) -> None:
        check_choice(config.provider, config.precision)
        self._session: Any = open_session(
            path,
            (input_shape, outputs),
            provider=config.provider,
            precision=config.precision,
            gpu=config.gpu,
            pool_threads=config.threads or available_cpus(),
            max_batch=config.max_batch,
            whole=False,
        )
        super().__init__(path.name, input_shape, outputs, config.max_batch)

    def close(self) -> None:
        """Frees the compiled graph."""
        self._session = None

    def _run(self, inputs: Floats) -> dict[str, Floats]:
        names = list(self.outputs)
        return dict(zip(names, self._session.run(names, {"input": inputs}), strict=True))


def open_graph(
    path: Path, input_shape: Shape, outputs: Mapping[str, Shape], config: Config
) -> OnnxRuntimeGraph:
    """Compiles an ONNX file beside the bundle's model; see `graph.open_graph`."""
    return OnnxRuntimeGraph(path, input_shape, outputs, config)


class OnnxRuntimeAnyGraph(AnyGraph):
    """An ONNX file whose inputs and outputs are its own, run by the thread that asks."""

    def __init__(self, path: Path, config: Config) -> None:
        check_choice(config.provider, config.precision)
        ort = library()
        options = ort.SessionOptions()
        options.intra_op_num_threads = config.threads or available_cpus()
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        wanted = PROVIDERS[config.provider]
        try:
            self._session: Any = ort.InferenceSession(
                str(path), options, providers=[wanted], enable_fallback=0
            )
        except Exception as error:
            raise EngineError(f"{path}: ONNX Runtime cannot compile it: {error}") from error
        if (running := self._session.get_providers()[0]) != wanted:
            raise EngineError(f"engine.provider: {config.provider} does not start: it would use {running}")
        super().__init__(path.name, _ports(self._session.get_inputs()), _ports(self._session.get_outputs()))

    def close(self) -> None:
        """Frees the session."""
        self._session = None

    def _run(self, inputs: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        names = list(self.outputs)
        return dict(zip(names, self._session.run(names, inputs), strict=True))


def open_any(path: Path, config: Config) -> OnnxRuntimeAnyGraph:
    """Compiles somebody else's ONNX file; see `any_graph.open_any`."""
    return OnnxRuntimeAnyGraph(path, config)


def _ports(ports: Any) -> dict[str, tuple[str, OpenShape]]:
    types = {"float": "float32", "double": "float64"}
    return {
        port.name: (
            types.get(kind := port.type[len("tensor(") : -1], kind),
            tuple(size if isinstance(size, int) else None for size in port.shape),
        )
        for port in ports
    }
